//! Promises about reads.

use futures_util::future::join;

use super::{Bench, done, keys, let_others_run, put, read};
use crate::Txn;

/// A read that begins after a commit was acknowledged sees it, through whichever door.
pub async fn a_read_sees_every_acknowledged_commit(bench: &dyn Bench) {
    let (here, there) = (bench.store(), bench.other_door());
    for n in 0..32u8 {
        let (writer, reader) = if n % 2 == 0 { (&here, &there) } else { (&there, &here) };
        let at = done(writer.commit(Txn::new().put("a", [n])).await);
        let seen = reader.read(keys(&["a"])).await.expect("a store that is up can be read");
        assert!(seen.at >= at, "read at {} after {at} was acknowledged", seen.at);
        assert_eq!(seen.entries.first().map(|entry| entry.value.to_vec()), Some(vec![n]));
    }
}

/// Several prefixes are read as of one moment: two keys that are only written together are never
/// seen apart.
pub async fn a_read_of_several_prefixes_is_of_one_revision(bench: &dyn Bench) {
    let (writer, reader) = (bench.store(), bench.other_door());
    done(writer.commit(Txn::new().put("left/x", [0]).put("right/x", [0])).await);
    let write = async {
        for n in 1..64u8 {
            done(writer.commit(Txn::new().put("left/x", [n]).put("right/x", [n])).await);
            let_others_run().await;
        }
    };
    let look = async {
        for _ in 1..64 {
            let seen = reader.read(keys(&["right/", "left/"])).await.expect("a store that is up can be read");
            assert_eq!(seen.entries.len(), 2);
            let (left, right) = (&seen.entries[0], &seen.entries[1]);
            assert_eq!((&left.value, left.modified), (&right.value, right.modified));
            assert!(seen.at >= left.modified);
            let_others_run().await;
        }
    };
    join(write, look).await;
}

/// Prefixes that overlap or repeat list no entry twice; a full key is its own prefix; the order is
/// that of the keys' bytes.
pub async fn a_read_gives_each_entry_once_in_key_order(bench: &dyn Bench) {
    for name in ["b", "a/2", "a/10", "a", "a0", "c/\u{e9}", "c/z"] {
        put(bench, name, name).await;
    }
    let read_keys = async |prefixes: &[&str]| -> Vec<String> {
        read(bench, prefixes).await.entries.iter().map(|entry| entry.key.to_string()).collect()
    };
    assert_eq!(read_keys(&[""]).await, ["a", "a/10", "a/2", "a0", "b", "c/z", "c/\u{e9}"]);
    assert_eq!(read_keys(&["c/", "a/", "a/1", "a/"]).await, ["a/10", "a/2", "c/z", "c/\u{e9}"]);
    assert_eq!(read_keys(&["a/2"]).await, ["a/2"]);
    assert_eq!(read_keys(&["b", "none"]).await, ["b"]);
    assert_eq!(read_keys(&[]).await, [""; 0]);
}
