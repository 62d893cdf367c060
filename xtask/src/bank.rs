//! The bug bank: deliberate mistakes, each a small patch, and how soon a simulator finds them.
//!
//! A patch is applied to a scratch copy of the tree, the simulator is built there and run until a
//! sentence is broken. A harness that finds all of them is worth more than any number of quiet seeds.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Instant,
};

use crate::steps::{Failed, root};

/// A directory of patches, and the simulator that is to find them.
struct Bank {
    dir: &'static str,
    package: &'static str,
    /// How it is run, up to the seeds.
    run: &'static [&'static str],
}

const BANKS: &[Bank] = &[
    Bank { dir: "sim/bugs", package: "tenure-sim", run: &["run", "--no-shrink"] },
    Bank { dir: "sim/embedded/bugs", package: "tenure-sim-embedded", run: &["run", "--fail-fast", "--no-shrink"] },
];

/// Every one is found within so many seeds.
const SEEDS: u64 = 1_000;

/// There are so many at least.
const BUGS_MIN: usize = 57;

struct Bug {
    name: String,
    /// What it breaks: the patch's first line.
    breaks: String,
    patch: PathBuf,
}

enum Verdict {
    Caught { seeds: u64, by: String },
    Missed,
    Broken(String),
}

/// That every patch still applies, and that none of them is lost; says which do not.
pub(crate) fn check() -> Result<(), Failed> {
    let mut broken = Vec::new();
    let mut count = 0;
    for bank in BANKS {
        for bug in bugs(bank)? {
            count += 1;
            let checked = git(root()).args(["apply", "--check"]).arg(&bug.patch).output().map_err(failed)?;
            if !checked.status.success() {
                broken.push(format!("{}: {}", bug.patch.display(), last_line(&checked.stderr)));
            }
        }
    }
    if count < BUGS_MIN {
        return Err(Failed(format!("only {count} deliberate bugs are there; {BUGS_MIN} at least")));
    }
    if broken.is_empty() {
        println!("figure: {count} deliberate bugs, every patch applies");
        return Ok(());
    }
    Err(Failed(format!("patches that do not apply any more:\n{}", broken.join("\n"))))
}

/// Hunts every bug (or those named) in a scratch copy, and prints the table.
pub(crate) fn hunt(only: &[String]) -> Result<(), Failed> {
    let mut known = Vec::new();
    for bank in BANKS {
        known.extend(bugs(bank)?.into_iter().map(|bug| bug.name));
    }
    if let Some(strange) = only.iter().find(|name| !known.contains(name)) {
        return Err(Failed(format!("there is no bug {strange:?}; there are: {}", known.join(", "))));
    }
    let scratch = Path::new(root()).join("target/bugs");
    let tree = copy(&scratch)?;
    let (mut caught, mut all) = (0, 0);
    println!("| bug | what it breaks | caught by | after seeds |\n| --- | --- | --- | ---: |");
    for bank in BANKS {
        let wanted = |bug: &Bug| only.is_empty() || only.contains(&bug.name);
        for bug in bugs(bank)?.into_iter().filter(wanted) {
            let began = Instant::now();
            let verdict = look_for(bank, &tree, &scratch, &bug)?;
            all += 1;
            let (by, after) = match verdict {
                Verdict::Caught { seeds, by } => {
                    caught += 1;
                    (format!("`{by}`"), seeds.to_string())
                }
                Verdict::Missed => ("MISSED".to_owned(), format!("> {SEEDS}")),
                Verdict::Broken(why) => (format!("BROKEN: {why}"), "-".to_owned()),
            };
            println!("| {} | {} | {by} | {after} |", bug.name, bug.breaks);
            eprintln!("{}: {} s", bug.name, began.elapsed().as_secs());
        }
    }
    println!("\nfigure: {caught} of {all} caught within {SEEDS} seeds");
    if caught == all { Ok(()) } else { Err(Failed(format!("{} bugs were not caught", all - caught))) }
}

fn bugs(bank: &Bank) -> Result<Vec<Bug>, Failed> {
    let mut found = Vec::new();
    for item in fs::read_dir(Path::new(root()).join(bank.dir)).map_err(failed)? {
        let patch = item.map_err(failed)?.path();
        if patch.extension().is_none_or(|ext| ext != "patch") {
            continue;
        }
        let text = fs::read_to_string(&patch).map_err(failed)?;
        let breaks = text.lines().next().unwrap_or_default().trim_start_matches('#').trim().to_owned();
        let name = patch.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let patch = fs::canonicalize(&patch).map_err(failed)?;
        found.push(Bug { name, breaks, patch });
    }
    found.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(found)
}

/// Copies what git knows of the tree. What is there from earlier is brought up to date, so that little
/// is built again.
fn copy(scratch: &Path) -> Result<PathBuf, Failed> {
    let tree = scratch.join("tree");
    let listed = git(root()).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).output();
    let listed = listed.map_err(failed)?;
    for name in String::from_utf8_lossy(&listed.stdout).split('\0').filter(|name| !name.is_empty()) {
        let (from, to) = (Path::new(root()).join(name), tree.join(name));
        let Ok(bytes) = fs::read(&from) else { continue };
        if fs::read(&to).is_ok_and(|there| there == bytes) {
            continue;
        }
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent).map_err(failed)?;
        }
        fs::write(&to, bytes).map_err(failed)?;
    }
    Ok(tree)
}

fn look_for(bank: &Bank, tree: &Path, scratch: &Path, bug: &Bug) -> Result<Verdict, Failed> {
    let applied = apply(tree, bug, &[])?;
    if !applied.status.success() {
        return Ok(Verdict::Broken(last_line(&applied.stderr)));
    }
    let verdict = build_and_run(bank, tree, scratch);
    let reversed = apply(tree, bug, &["--reverse"])?;
    if !reversed.status.success() {
        return Err(Failed(format!("{} cannot be taken out again: {}", bug.name, last_line(&reversed.stderr))));
    }
    verdict
}

fn build_and_run(bank: &Bank, tree: &Path, scratch: &Path) -> Result<Verdict, Failed> {
    let target = scratch.join("target");
    let built = Command::new("cargo")
        .current_dir(tree)
        .env("CARGO_TARGET_DIR", &target)
        .args(["build", "--quiet", "--locked", "-p", bank.package])
        .output()
        .map_err(failed)?;
    if !built.status.success() {
        eprintln!("{}", String::from_utf8_lossy(&built.stderr));
        return Ok(Verdict::Broken(last_line(&built.stderr)));
    }
    let run = Command::new(target.join("debug").join(bank.package))
        .args(bank.run)
        .args(["--seeds", &format!("0..{SEEDS}")])
        .output()
        .map_err(failed)?;
    Ok(judge(&run))
}

/// Both simulators say `seed 7: rule: what is wrong`, the first also when.
fn judge(run: &Output) -> Verdict {
    if run.status.success() {
        return Verdict::Missed;
    }
    let text = String::from_utf8_lossy(&run.stdout);
    let Some(line) = text.lines().find_map(|line| line.strip_prefix("seed ")) else {
        return Verdict::Broken(format!("the run ended with {}: {}", run.status, last_line(&run.stderr)));
    };
    // A patch that upsets the harness is not a bug that it has found.
    if line.contains(": panics: the simulation itself") {
        return Verdict::Broken(line.to_owned());
    }
    let seed: u64 = line.split(|c: char| !c.is_ascii_digit()).next().and_then(|n| n.parse().ok()).unwrap_or(0);
    let by = line.split(": ").nth(1).unwrap_or("?").to_owned();
    Verdict::Caught { seeds: seed + 1, by }
}

/// git must not look for the repository around the copy, or it would skip what is outside of it.
fn apply(tree: &Path, bug: &Bug, more: &[&str]) -> Result<Output, Failed> {
    git(tree).env("GIT_DIR", "/dev/null").arg("apply").args(more).arg(&bug.patch).output().map_err(failed)
}

fn git(within: impl AsRef<Path>) -> Command {
    let mut git = Command::new("git");
    git.current_dir(within);
    git
}

fn failed(error: io::Error) -> Failed {
    Failed(error.to_string())
}

fn last_line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default().to_owned()
}
