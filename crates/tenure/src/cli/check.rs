//! `tenure check`: flow documents, without a cluster.

use clap::Args;

use serde_json::json;

use super::{failure::Failure, format::Format, show};
use crate::documents::Gathered;

pub(super) const EXAMPLES: &str = "\
Examples:
  tenure check feeds.yaml      what is wrong with file:line:column, and what would be right
  tenure check feeds/          every .yaml, .yml, .json, .ndjson and .jsonl file in it
  generate | tenure check -    standard input";

/// What to check.
#[derive(Args)]
pub(super) struct Check {
    /// Files, directories, or - for standard input.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
}

impl Check {
    pub(super) fn run(&self, format: Format) -> Result<(), Failure> {
        let all = Gathered::from_paths(&self.files)?;
        if !all.mistakes.is_empty() {
            return Err(Failure::Documents(all.mistakes));
        }
        match (all.found.len(), format) {
            (0, _) => Err(Failure::no_document(&self.files)),
            (n, Format::Json | Format::Ndjson) => show::json(format, &json!({ "documents": n })),
            (n, Format::Table) => show::line(format!("{}, nothing wrong", show::count(n, "document"))),
        }
    }
}
