//! How a sink is called where nothing of it is known yet but what the flow's document says.

use std::fmt;

use tenure_core::flow::{
    Reason,
    spec::{Secret, Sink},
};

/// Names a sink for people, from the document alone: its file or its table, and where the address
/// comes from. Never a secret's value. Once a sink is open, its reasons name the address itself.
#[derive(Clone, Copy, Debug)]
pub struct Place<'s>(pub &'s Sink);

impl Place<'_> {
    /// The reason, told of this place.
    pub(super) fn blamed(self, reason: &Reason) -> Reason {
        Reason::new(reason.code, format!("{self}: {}", reason.detail))
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Sink::Stdout(_) => f.write_str("standard output"),
            Sink::Sqlite(sqlite) => write!(f, "sqlite {} table {}", sqlite.path, sqlite.table),
            Sink::Postgres(postgres) => {
                let (Secret::Env(from) | Secret::File(from)) = &postgres.url;
                write!(f, "postgres table {} (url: {from})", postgres.table)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_told_from_the_document_alone() {
        let told = |json: &str| Place(&serde_json::from_str(json).unwrap()).to_string();
        let postgres = told(r#"{"postgres": {"url": {"env": "PG_URL"}, "table": "trades"}}"#);
        assert_eq!(postgres, "postgres table trades (url: PG_URL)");
        assert_eq!(told(r#"{"sqlite": {"path": "feeds.db", "table": "t"}}"#), "sqlite feeds.db table t");
        assert_eq!(told(r#"{"stdout": {}}"#), "standard output");
    }
}
