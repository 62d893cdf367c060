//! The `tenure` program. Everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    tenure::cli::run()
}
