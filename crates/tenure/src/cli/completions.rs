//! `tenure completions`: for shells.

use std::io::{self, Write as _};

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, failure::Failure};

pub(super) const EXAMPLES: &str = "\
Examples:
  tenure completions bash > ~/.local/share/bash-completion/completions/tenure
  tenure completions zsh > ~/.zfunc/_tenure
  tenure completions fish > ~/.config/fish/completions/tenure.fish";

/// Which shell.
#[derive(Args)]
pub(super) struct Completions {
    /// The shell.
    shell: Shell,
}

impl Completions {
    pub(super) fn run(&self) -> Result<(), Failure> {
        // Into memory first: the generator panics when its reader goes away.
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "tenure", &mut text);
        Ok(io::stdout().lock().write_all(&text)?)
    }
}
