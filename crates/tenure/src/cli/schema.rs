//! `tenure schema`: the JSON Schema of what people write.

use clap::{Args, ValueEnum};

use super::{failure::Failure, format::Format, show};
use crate::api::openapi;

pub(super) const EXAMPLES: &str = "\
Examples:
  tenure schema flow > flow.schema.json
  # yaml-language-server: $schema=./flow.schema.json      as the first line of a YAML file, for editors";

/// Which schema.
#[derive(Args)]
pub(super) struct Schema {
    /// Of what.
    #[arg(default_value = "flow")]
    of: Of,
}

#[derive(Clone, Copy, ValueEnum)]
enum Of {
    /// A flow document.
    Flow,
    /// The HTTP API (an OpenAPI document).
    Api,
}

impl Schema {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let schema = match self.of {
            Of::Flow => openapi::flow_schema(),
            Of::Api => openapi::document(),
        };
        show::json(Format::Json, &schema)
    }
}
