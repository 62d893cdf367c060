//! `tenure check`: flow documents, without a cluster.

use clap::Args;

use super::{failure::Failure, show};
use crate::documents::Gathered;

pub(super) const EXAMPLES: &str = "\
Examples:
  tenure check feeds.yaml      every mistake with file:line:column, and what would be right
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
    pub(super) fn run(&self) -> Result<(), Failure> {
        let all = Gathered::from_paths(&self.files)?;
        if !all.mistakes.is_empty() {
            return Err(Failure::Documents(all.mistakes));
        }
        show::line(match all.found.len() {
            0 => "there is no document".to_owned(),
            1 => "1 document, nothing wrong".to_owned(),
            n => format!("{n} documents, nothing wrong"),
        })
    }
}
