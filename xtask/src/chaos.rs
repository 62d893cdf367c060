//! `cargo xtask chaos`: builds the program under test and what breaks the world around it, and becomes
//! the latter, so that its exit code and the signals of the terminal are its own.

use std::{
    os::unix::process::CommandExt,
    process::{Command, ExitCode},
};

use crate::{
    debian,
    steps::{self, Failed, root, run},
};

/// What the run takes, with the word for its value if it has one. Looked at before anything is
/// installed or built, so that a slip of the pen costs no minutes.
const OPTIONS: [(&str, Option<&str>, &str); 13] = [
    ("--minutes", Some("N"), "how long faults are injected, 0.05 to 1440; 30"),
    ("--seed", Some("S"), "which faults, and when: the same seed draws the same ones; 1"),
    ("--engine", Some("E"), "which store the cluster keeps its truth in: embedded"),
    ("--servers", Some("N"), "machines that keep the store and run flows, 1 to 5; 3"),
    ("--workers", Some("N"), "machines that only run flows, 0 to 20; 4"),
    ("--feeds", Some("N"), "how many feeds there are, 10 to 5000; 300"),
    ("--rate", Some("N"), "records per second of each feed; 2"),
    ("--fault-every", Some("SECONDS"), "between two faults, on average; 2.5"),
    ("--wish-every", Some("SECONDS"), "between two calls of the API, on average; 0.6"),
    ("--loopback", None, "share the loopback interface even where namespaces are permitted"),
    ("--program", Some("FILE"), "the program under test; the one that is built"),
    ("--out", Some("DIR"), "where the report is written; target/chaos"),
    ("--quiet", None, "print the report only"),
];
const KEEP: (&str, Option<&str>, &str) = ("--keep", None, "keep data, logs and the database's account in any case");

/// What becomes of the words after `chaos`.
#[derive(PartialEq, Eq, Debug)]
enum Asked {
    Help,
    Wrong(String),
    Run { debug: bool },
}

/// Returns only if nothing was run. Then nothing was shown, and the exit code says so.
pub(crate) fn chaos(words: &[String]) -> ExitCode {
    let failed = match asked(words) {
        Asked::Run { debug } => build_and_become(words, debug),
        Asked::Help => {
            print!("{}", help());
            return ExitCode::SUCCESS;
        }
        Asked::Wrong(why) => Failed(format!("{why}\n\n{}", help())),
    };
    eprintln!("xtask: {}", failed.0);
    ExitCode::from(2)
}

fn build_and_become(words: &[String], debug: bool) -> Failed {
    if let Err(failed) = build(debug) {
        return failed;
    }
    let profile = profile(debug);
    let options = &words[usize::from(debug)..];
    println!("\n--- chaos: {}", options.join(" "));
    let mut cargo = Command::new("cargo");
    cargo.args(["run", "--quiet", "--profile", profile, "--locked", "-p", "tenure-chaos", "--"]).args(options);
    let error = cargo.current_dir(root()).exec();
    Failed(format!("chaos: cargo could not be started: {error}"))
}

fn build(debug: bool) -> Result<(), Failed> {
    debian::ensure_packages()?;
    steps::raise_open_files();
    // The program under test, too: it is looked for beside the one that runs it.
    let packages = ["-p", "tenure", "-p", "tenure-chaos"];
    run("build", "cargo", &[&["build", "--profile", profile(debug), "--locked"], &packages[..]].concat())
}

fn profile(debug: bool) -> &'static str {
    if debug { "dev" } else { "release" }
}

fn known() -> impl Iterator<Item = (&'static str, Option<&'static str>, &'static str)> {
    OPTIONS.into_iter().chain([KEEP])
}

fn asked(words: &[String]) -> Asked {
    let debug = words.first().is_some_and(|word| word == "--debug");
    let mut rest = words.iter().skip(usize::from(debug)).map(String::as_str);
    while let Some(word) = rest.next() {
        if matches!(word, "-h" | "--help" | "help") {
            return Asked::Help;
        }
        let (name, value) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
        let Some((_, takes, _)) = known().find(|(known, ..)| *known == name) else {
            return Asked::Wrong(format!("chaos has no option {name:?}"));
        };
        let value = if takes.is_some() { value.or_else(|| rest.next()) } else { value };
        let is_number =
            value.is_some_and(|value| value.parse::<f64>().is_ok_and(|number| number.is_finite() && number >= 0.0));
        match takes {
            Some("N" | "S" | "SECONDS") if !is_number => {
                return Asked::Wrong(format!("{name} takes a number, not {:?}", value.unwrap_or_default()));
            }
            Some(_) if value.is_none() => return Asked::Wrong(format!("{name} takes a value")),
            None if value.is_some() => return Asked::Wrong(format!("{name} takes no value")),
            _ => (),
        }
    }
    Asked::Run { debug }
}

fn help() -> String {
    let mut help = "cargo xtask chaos [--debug] [OPTION]...; docs/chaos.md says more\n\n".to_owned();
    help.push_str("  --debug                   before all others: use the debug build\n");
    for (name, value, what) in known() {
        let left = format!("{name} {}", value.unwrap_or_default());
        help.push_str(&format!("  {left:<24}  {what}\n"));
    }
    help.push_str("\nExit codes: 0 nothing happened that must not; 1 something did; 2 nothing was shown.\n");
    help
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Asked {
        asked(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn what_the_run_takes_is_let_through() {
        assert_eq!(of("--debug --minutes 3 --seed=5 --loopback"), Asked::Run { debug: true });
        assert_eq!(of(""), Asked::Run { debug: false });
        assert_eq!(of("--out --odd"), Asked::Run { debug: false }, "a value may be anything");
    }

    #[test]
    fn help_and_slips_are_answered_before_anything_is_built() {
        assert_eq!(of("--minutes 3 --help"), Asked::Help);
        for slip in ["--minuets 3", "--minutes", "--minutes soon", "--rate nan", "--keep=1", "3", "--seed 1 --debug"] {
            assert!(matches!(of(slip), Asked::Wrong(_)), "{slip}");
        }
    }
}
