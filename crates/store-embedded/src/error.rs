//! Why a server does not start, and what to do about it.

use std::{fmt, io, path::PathBuf};

/// A refusal to start. Nothing was changed on disk unless the text says so.
#[derive(Debug)]
pub enum StartError {
    /// Another process has the data directory open.
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// A file is damaged, or a file that must be there is not. It is never repaired by guessing.
    Damaged {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The operating system refused something.
    Io {
        /// The file or address.
        at: String,
        /// Its answer.
        source: io::Error,
    },
    /// The cluster could not be joined.
    Join {
        /// What each address said.
        why: String,
    },
    /// A setting contradicts another or the directory.
    Config {
        /// Which, and what to do.
        why: String,
    },
    /// The consensus engine refused to start.
    Raft {
        /// Its words.
        why: String,
    },
}

impl StartError {
    pub(crate) fn damaged(file: impl Into<PathBuf>, what: impl Into<String>) -> StartError {
        StartError::Damaged { file: file.into(), what: what.into() }
    }

    pub(crate) fn io(at: impl fmt::Display, source: io::Error) -> StartError {
        StartError::Io { at: at.to_string(), source }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::InUse { dir } => write!(
                f,
                "{} is in use by another process; stop it, or give this one a data directory of its own",
                dir.display()
            ),
            StartError::Damaged { file, what } => write!(
                f,
                "{}: {what}. Nothing was repaired or cut off, because that could lose acknowledged commits. In a \
                 cluster: remove this member, wipe its data directory, and let it join again (it gets a new id). If it \
                 is the only server: restore the directory from a copy",
                file.display()
            ),
            StartError::Io { at, source } => write!(f, "{at}: {source}"),
            StartError::Join { why } => write!(f, "the cluster could not be joined: {why}"),
            StartError::Config { why } => f.write_str(why),
            StartError::Raft { why } => write!(f, "the consensus engine did not start: {why}"),
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            StartError::Io { source, .. } => Some(source),
            StartError::InUse { .. }
            | StartError::Damaged { .. }
            | StartError::Join { .. }
            | StartError::Config { .. }
            | StartError::Raft { .. } => None,
        }
    }
}
