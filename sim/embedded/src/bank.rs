//! The bug bank: deliberate mistakes, each a patch of the product, and how soon they are found.
//!
//! A patch is applied to a scratch copy of the tree, the simulation is built there and run from
//! seed 1 on until an invariant is violated. A harness that finds all of them is worth more than
//! any number of quiet seeds.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// Where the patches lie, from the root of the tree.
const BUGS: &str = "sim/embedded/bugs";

/// One deliberate mistake.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bug {
    /// Its file's name, without `.patch`.
    pub name: String,
    /// What it breaks: the patch's first line.
    pub breaks: String,
    /// The patch.
    pub patch: PathBuf,
}

/// What became of a bug.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Caught at that seed, by these invariants.
    Caught {
        /// The first seed that failed.
        seed: u64,
        /// What it violated.
        by: String,
    },
    /// Not within so many seeds.
    Missed {
        /// How many were run.
        seeds: u64,
    },
    /// It does not apply or build any more.
    Broken(String),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Caught { seed, by } => write!(f, "caught at seed {seed} by {by}"),
            Verdict::Missed { seeds } => write!(f, "MISSED in {seeds} seeds"),
            Verdict::Broken(why) => write!(f, "BROKEN: {why}"),
        }
    }
}

/// All bugs below a tree, in order of their names.
///
/// # Errors
/// The directory or a patch cannot be read.
pub fn bugs(root: &Path) -> io::Result<Vec<Bug>> {
    let mut found = Vec::new();
    for item in fs::read_dir(root.join(BUGS))? {
        let patch = item?.path();
        if patch.extension().is_some_and(|ext| ext == "patch") {
            let text = fs::read_to_string(&patch)?;
            let breaks = text.lines().next().unwrap_or_default().trim_start_matches('#').trim().to_owned();
            let name = patch.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            found.push(Bug { name, breaks, patch });
        }
    }
    found.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(found)
}

/// Says why a patch does not apply to a tree, if it does not.
///
/// # Errors
/// git cannot be run.
pub fn objection(root: &Path, bug: &Bug) -> io::Result<Option<String>> {
    let output = git(root).args(["apply", "--check"]).arg(&bug.patch).output()?;
    Ok((!output.status.success()).then(|| String::from_utf8_lossy(&output.stderr).into_owned()))
}

fn git(within: &Path) -> Command {
    let mut git = Command::new("git");
    git.current_dir(within);
    git
}

/// A copy of the tree that bugs may be put into.
#[derive(Debug)]
pub struct Scratch {
    tree: PathBuf,
    target: PathBuf,
}

impl Scratch {
    /// Copies what git knows of `root` into `scratch/tree`, and builds into `scratch/target`. What is there
    /// from earlier is brought up to date, so that little is built again.
    ///
    /// # Errors
    /// A file cannot be copied, or git cannot be run.
    pub fn new(root: &Path, scratch: &Path) -> io::Result<Scratch> {
        let (tree, target) = (scratch.join("tree"), scratch.join("target"));
        let listed = git(root).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).output()?;
        for name in String::from_utf8_lossy(&listed.stdout).split('\0').filter(|name| !name.is_empty()) {
            let (from, to) = (root.join(name), tree.join(name));
            let Ok(bytes) = fs::read(&from) else { continue };
            if fs::read(&to).is_ok_and(|there| there == bytes) {
                continue;
            }
            if let Some(parent) = to.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::write(&to, bytes)?;
        }
        Ok(Scratch { tree, target })
    }

    /// Puts a bug in, looks for it in the seeds from 1 on, and takes it out.
    ///
    /// # Errors
    /// A program cannot be run.
    pub fn hunt(&self, bug: &Bug, seeds: u64) -> io::Result<Verdict> {
        let applied = self.apply(bug, &[])?;
        if !applied.status.success() {
            return Ok(Verdict::Broken(last_line(&applied.stderr)));
        }
        let verdict = self.build_and_run(seeds);
        let reversed = self.apply(bug, &["--reverse"])?;
        if !reversed.status.success() {
            return Err(io::Error::other(format!("{} cannot be taken out: {}", bug.name, last_line(&reversed.stderr))));
        }
        verdict
    }

    /// The unmodified tree in the same seeds: nobody may be accused.
    ///
    /// # Errors
    /// A program cannot be run.
    pub fn build_and_run(&self, seeds: u64) -> io::Result<Verdict> {
        let built = Command::new("cargo")
            .current_dir(&self.tree)
            .env("CARGO_TARGET_DIR", &self.target)
            // A build that was broken off must not spoil the next one.
            .env("CARGO_INCREMENTAL", "0")
            .args(["build", "--quiet", "-p", "tenure-sim-embedded"])
            .output()?;
        if !built.status.success() {
            return Ok(Verdict::Broken(first_error(&built.stderr)));
        }
        let run = Command::new(self.target.join("debug/tenure-sim-embedded"))
            .args(["run", "--fail-fast", "--jobs", "1", "--seeds", &format!("1..{seeds}")])
            .output()?;
        Ok(verdict(&run, seeds))
    }

    fn apply(&self, bug: &Bug, more: &[&str]) -> io::Result<Output> {
        // Without this git would look for the repository around the copy, and skip what is outside of it.
        git(&self.tree)
            .env("GIT_CEILING_DIRECTORIES", &self.tree)
            .env("GIT_DIR", "/dev/null")
            .arg("apply")
            .args(more)
            .arg(&bug.patch)
            .output()
    }
}

fn verdict(run: &Output, seeds: u64) -> Verdict {
    let text = String::from_utf8_lossy(&run.stdout);
    if run.status.success() {
        return Verdict::Missed { seeds };
    }
    let seed = text.lines().find_map(|line| line.strip_prefix("--- seed ")?.parse().ok());
    let mut by: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("VIOLATED  ")?.split(':').next()).collect();
    by.sort_unstable();
    by.dedup();
    match seed {
        Some(seed) if !by.is_empty() => Verdict::Caught { seed, by: by.join(", ") },
        _ => Verdict::Broken(format!("the run ended with {}: {}", run.status, last_line(&run.stderr))),
    }
}

fn first_error(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.lines().find(|line| line.starts_with("error")).unwrap_or_default().to_owned()
}

fn last_line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default().to_owned()
}
