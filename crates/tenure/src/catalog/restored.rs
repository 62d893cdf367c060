//! What has to be said in a store that goes on from a backup.

use tenure_core::record::Cluster;
use tenure_store::{Entry, Guard, Txn};

use super::{Undecodable, decode, encode, keys};

/// Begins the next lineage: what was decided after the backup was taken is forgotten here, and every
/// token that was given out then must be below the next one. `clock` is the wall clock in Unix
/// seconds; it only has to differ between two restores of one backup.
///
/// # Errors
/// The record of the cluster cannot be read.
pub fn next_lineage(cluster: &Entry, clock: u64) -> Result<Txn, Undecodable> {
    let before: Cluster = decode(&cluster.value)?;
    let lineage = clock.max(before.lineage + 1);
    let next = Cluster { lineage, ..before };
    Ok(Txn::new().guard(Guard::Unchanged(cluster.key.clone(), cluster.modified)).put(keys::CLUSTER, encode(&next)))
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tenure_store::{Committed, Store, memory::Memory};

    use super::*;

    fn lineage_after(before: u64, clock: u64) -> u64 {
        let store = Memory::new();
        let cluster = Cluster { id: "c".to_owned(), lineage: before };
        let written = store.commit(Txn::new().put(keys::CLUSTER, encode(&cluster))).now_or_never();
        assert!(matches!(written, Some(Committed::Done(_))));
        let next = next_lineage(store.state().get(keys::CLUSTER).unwrap(), clock).unwrap();
        assert!(matches!(store.commit(next).now_or_never(), Some(Committed::Done(_))));
        let after: Cluster = decode(&store.state().get(keys::CLUSTER).unwrap().value).unwrap();
        assert_eq!(after.id, "c");
        after.lineage
    }

    #[test]
    fn the_lineage_rises_whatever_the_clock_says() {
        assert_eq!([lineage_after(7, 100), lineage_after(7, 3), lineage_after(7, 7)], [100, 8, 8]);
    }
}
