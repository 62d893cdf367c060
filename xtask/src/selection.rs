//! Which tests there are. cargo builds a dependency with the features that the selected packages want, so
//! a change of the selection builds half of the tree anew: the workspace is selected every time, and
//! tests are chosen by name.

use std::{fs, path::Path};

use crate::steps::{Failed, root};

/// Where the process tests are: each fills the machine.
const PROCESSES: &str = "crates/tenure";
/// Everything else that has tests of its own.
const PARTS: &[&str] = &[
    "crates/core",
    "crates/store",
    "crates/store-embedded",
    "crates/connect",
    "crates/testbed",
    "sim",
    "sim/embedded",
    "sim/model",
    "chaos",
    "fuzz",
    "xtask",
];

/// `cargo test` for the tests of all parts but the product's processes.
pub(crate) fn of_parts() -> Result<Vec<String>, Failed> {
    let mut names = Vec::new();
    for part in PARTS {
        names.extend(tests_of(part)?);
    }
    Ok(line(names))
}

/// `cargo test` for the product's processes.
pub(crate) fn of_processes() -> Result<Vec<String>, Failed> {
    Ok(line(tests_of(PROCESSES)?))
}

fn line(mut names: Vec<String>) -> Vec<String> {
    names.sort();
    names.dedup();
    let words = ["test", "--workspace", "--locked"].map(str::to_owned).into_iter();
    words.chain(names.into_iter().flat_map(|name| ["--test".to_owned(), name])).collect()
}

/// A file in `tests`, or a directory with a `main.rs`, is a test.
fn tests_of(part: &str) -> Result<Vec<String>, Failed> {
    let dir = Path::new(root()).join(part).join("tests");
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    let broken = |error: std::io::Error| Failed(format!("{}: {error}", dir.display()));
    let mut names = Vec::new();
    for entry in fs::read_dir(&dir).map_err(broken)? {
        let path = entry.map_err(broken)?.path();
        if path.extension().is_some_and(|ext| ext == "rs") || path.join("main.rs").is_file() {
            names.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_member_that_has_tests_is_known_and_no_name_is_both_a_process_and_a_part() {
        let manifest = fs::read_to_string(Path::new(root()).join("Cargo.toml")).unwrap();
        let members = manifest.lines().find_map(|line| line.strip_prefix("members = [")).unwrap();
        let members: BTreeSet<&str> = members.trim_end_matches(']').split(", ").map(|m| m.trim_matches('"')).collect();
        let known: BTreeSet<&str> = PARTS.iter().copied().chain([PROCESSES]).collect();
        assert_eq!(members, known);
        let (parts, processes) = (of_parts().unwrap(), of_processes().unwrap());
        assert!(processes.contains(&"failover".to_owned()) && parts.contains(&"tidy".to_owned()));
        let both: Vec<&String> =
            processes[3..].iter().filter(|name| *name != "--test" && parts.contains(name)).collect();
        assert!(both.is_empty(), "{both:?}");
    }
}
