//! The thin shell: asks a sink for facts, and changes nothing but what the audit trail needs.

mod postgres;
mod questions;
mod sqlite;
mod trail;

use std::{fmt, time::Duration};

use tenure_core::flow::{Reason, supervisor::Code};

use super::{
    fence::Fences,
    finding::Finding,
    moment::Facts,
    target::{Place, Target},
    trail::Told,
};

pub use trail::{install, remove};

/// Why a sink could not be asked. Nothing was found out, and nothing was changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// There is no such file, table, column, or secret.
    Missing(String),
    /// It does not answer.
    Unreachable(String),
    /// It refuses, or did not answer in time.
    Refused(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Trouble::Missing(what) | Trouble::Unreachable(what) | Trouble::Refused(what)) = self;
        f.write_str(what)
    }
}

impl From<Reason> for Trouble {
    fn from(reason: Reason) -> Trouble {
        let detail = reason.detail.to_string();
        match reason.code {
            Code::SecretMissing => Trouble::Missing(detail),
            Code::SinkUnreachable => Trouble::Unreachable(detail),
            _ => Trouble::Refused(detail),
        }
    }
}

/// A sink, open for questions.
pub enum Sink {
    /// A database file.
    Sqlite(sqlite::File),
    /// A connection to a server.
    Postgres(Box<postgres::Server>),
}

impl Sink {
    /// Opens it for reading only. No statement may take longer than `limit`.
    ///
    /// # Errors
    /// It is not there, or does not answer.
    pub async fn open(place: &Place, limit: Duration) -> Result<Sink, Trouble> {
        Ok(match place {
            Place::Sqlite(path) => Sink::Sqlite(sqlite::File::open(path, limit)?),
            Place::Postgres(url) => Sink::Postgres(Box::new(postgres::Server::open(url, limit).await?)),
        })
    }

    /// What it is called, without a secret.
    pub fn name(&self) -> String {
        match self {
            Sink::Sqlite(file) => file.name(),
            Sink::Postgres(server) => server.name(),
        }
    }

    /// Everything about the target at one moment: one snapshot.
    ///
    /// # Errors
    /// It does not answer, or lacks a column that was named, or a table that only the person knows of.
    pub async fn moment(&self, target: &Target) -> Result<Facts, Trouble> {
        let facts = match self {
            Sink::Sqlite(file) => file.moment(target),
            Sink::Postgres(server) => server.moment(target).await,
        }?;
        // A document's table comes with the first claim; a name that somebody typed must be right.
        let absent = target.tables.iter().zip(&facts.tables).find(|(_, found)| found.is_none());
        match absent {
            Some((table, _)) if !target.documented => {
                Err(Trouble::Missing(format!("{} has no table {}; look at `--table`", self.name(), table.name)))
            }
            _ => Ok(facts),
        }
    }

    /// The fence rows alone; none if there is no such table.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn fences(&self) -> Result<Option<Fences>, Trouble> {
        match self {
            Sink::Sqlite(file) => file.fences(),
            Sink::Postgres(server) => server.fences().await,
        }
    }

    /// Reads the audit trail and judges it, in one snapshot with the fence rows. In PostgreSQL, the
    /// target's rows are held against it, too.
    ///
    /// # Errors
    /// There is no trail, or the sink does not answer.
    pub async fn audit(&self, target: &Target) -> Result<(Told, Vec<Finding>), Trouble> {
        match self {
            Sink::Sqlite(file) => file.audit(),
            Sink::Postgres(server) => server.audit(target).await,
        }
    }
}

/// Runs a script of [`install`] or [`remove`].
///
/// # Errors
/// The sink does not answer, or refuses; then nothing was changed.
pub async fn run(place: &Place, script: &str) -> Result<(), Trouble> {
    match place {
        Place::Sqlite(path) => sqlite::run(path, script),
        Place::Postgres(url) => postgres::run(url, script).await,
    }
}

fn no_trail(name: &str) -> Trouble {
    Trouble::Missing(format!(
        "{name} has no {}; begin one with `tenure verify --install-audit --apply`",
        super::trail::AUDIT
    ))
}
