//! What is kept of a run that went wrong: what was on the machines' disks, and what the database knew.

use std::{fs, io, path::Path};

use crate::{bed::Bed, machine::FILLER};

/// Copies the nodes' data and logs. The small file systems are seen by this process alone, so it must
/// be done before it ends, and after the nodes have ended.
pub(crate) fn files(dir: &Path, into: &Path) -> io::Result<()> {
    fs::create_dir_all(into)?;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let (from, to) = (entry.path(), into.join(entry.file_name()));
        let kind = entry.file_type()?;
        if kind.is_dir() {
            files(&from, &to)?;
        } else if kind.is_file() && entry.file_name() != FILLER {
            fs::copy(from, to)?;
        }
    }
    Ok(())
}

/// Writes down the fence rows, the account of them, and what the database logged.
pub(crate) async fn tables(bed: &Bed, into: &Path) -> io::Result<()> {
    fs::create_dir_all(into)?;
    for table in ["tenure_flow_fence", "chaos_audit", "tenure_rejected"] {
        let text = bed.sink.csv(table).await.map_err(io::Error::other)?;
        fs::write(into.join(format!("{table}.csv")), text)?;
    }
    fs::copy(bed.sink.log(), into.join("database.log"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_and_logs_are_copied_and_what_filled_a_disk_is_not() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir_all(from.path().join("s1/data")).unwrap();
        for (file, text) in [("s1.log", "said"), ("s1/data/raft.redb", "kept"), ("s1/filler", "7777")] {
            fs::write(from.path().join(file), text).unwrap();
        }
        let into = to.path().join("seed-1");
        files(from.path(), &into).unwrap();
        assert_eq!(fs::read_to_string(into.join("s1/data/raft.redb")).unwrap(), "kept");
        assert_eq!(fs::read_to_string(into.join("s1.log")).unwrap(), "said");
        assert!(!into.join("s1/filler").exists());
    }
}
