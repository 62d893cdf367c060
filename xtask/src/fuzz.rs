//! Runs the fuzz targets under libFuzzer, on the stable toolchain.
//!
//! What `cargo fuzz` asks a nightly compiler for, stable has behind other names: the pass that counts
//! coverage is part of LLVM, and is asked for by name. `--cfg fuzzing` is left out on purpose: some
//! libraries behave otherwise under it, and what is fuzzed shall be what is shipped.

mod choice;

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, Instant},
};

use crate::steps::{Failed, root, run_with};

/// How long each target runs unless asked otherwise.
const SECONDS: u64 = 60;
/// More than this is a finding, whatever the input. Kept far above what a good input needs.
const RSS_MIB: u32 = 512;
/// And so is an input that takes longer, in seconds.
const INPUT_SECONDS: u32 = 1;
/// The longest input that is made up, in bytes: long enough for two documents.
const INPUT_MAX: u32 = 4096;

/// `--cfg tokio_unstable` is what `.cargo/config.toml` sets for all builds.
const FLAGS: &str = "--cfg tokio_unstable -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=4";

/// What was asked for.
#[derive(Debug)]
struct Asked {
    seconds: u64,
    targets: Vec<String>,
}

/// What became of one target.
#[derive(Default)]
struct Told {
    target: String,
    executions: u64,
    per_second: u64,
    coverage: u64,
    corpus: usize,
    findings: Vec<PathBuf>,
}

/// `cargo xtask fuzz [--seconds N] [TARGET...]`
pub(crate) fn fuzz(words: &[String]) -> Result<(), Failed> {
    let asked = read(words)?;
    let fuzzer = build()?;
    let known = targets(&fuzzer)?;
    if let Some(odd) = asked.targets.iter().find(|target| !known.contains(target)) {
        return Err(Failed(format!("there is no target {odd:?}; there are {}", known.join(", "))));
    }
    let chosen = if asked.targets.is_empty() { known } else { asked.targets };
    let mut all = Vec::new();
    for target in chosen {
        println!("--- {target}: {} s", asked.seconds);
        let told = Run { fuzzer: &fuzzer, target: &target }.whole(asked.seconds)?;
        println!("{}", told.line());
        all.push(told);
    }
    report(&all)
}

fn read(words: &[String]) -> Result<Asked, Failed> {
    let mut asked = Asked { seconds: SECONDS, targets: Vec::new() };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if word == "--seconds" {
            let number = words.next().and_then(|n| n.parse().ok()).filter(|n| *n > 0);
            asked.seconds = number.ok_or_else(|| Failed("--seconds wants a number above 0".to_owned()))?;
        } else if word.starts_with('-') {
            return Err(Failed(format!("fuzz has no option {word}; there is --seconds N")));
        } else {
            asked.targets.push(word.clone());
        }
    }
    Ok(asked)
}

/// Where the instrumented build goes: beside the ordinary one, which keeps its own flags.
fn build_dir() -> PathBuf {
    let dir = env::var_os("CARGO_TARGET_DIR").map_or_else(|| Path::new(root()).join("target"), PathBuf::from);
    dir.join("libfuzzer")
}

/// Builds the fuzzer, and says where it is.
fn build() -> Result<PathBuf, Failed> {
    let host = host()?;
    let dir = build_dir();
    let dir_name = dir.to_string_lossy();
    same_libraries()?;
    // With a target named, the flags do not apply to build scripts and macros, which could not bear them.
    let args = ["build", "--release", "--manifest-path", "fuzz/libfuzzer/Cargo.toml", "--target", &host];
    run_with("fuzzer", "cargo", &args, &[("RUSTFLAGS", FLAGS), ("CARGO_TARGET_DIR", &dir_name)])?;
    Ok(dir.join(host).join("release/tenure-libfuzzer"))
}

/// What is fuzzed shall be what is shipped: the fuzzer, which is no part of the workspace, begins with
/// the workspace's lock; cargo adds to it what libFuzzer needs.
fn same_libraries() -> Result<(), Failed> {
    let (shipped, fuzzed) = (Path::new(root()).join("Cargo.lock"), Path::new(root()).join("fuzz/libfuzzer/Cargo.lock"));
    let changed = |path: &Path| fs::metadata(path).and_then(|about| about.modified());
    let at = changed(&shipped).map_err(|error| named(&shipped, &error))?;
    // Not each time: without a lock of its own it has to ask the registry.
    if !changed(&fuzzed).is_ok_and(|its| its >= at) {
        fs::copy(&shipped, &fuzzed).map_err(|error| named(&fuzzed, &error))?;
    }
    Ok(())
}

fn host() -> Result<String, Failed> {
    let said = output(Command::new("rustc").arg("-vV"))?;
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| Failed("rustc does not say which machine this is".to_owned()))
}

fn targets(fuzzer: &Path) -> Result<Vec<String>, Failed> {
    let said = output(&mut Command::new(fuzzer))?;
    Ok(String::from_utf8_lossy(&said.stdout).lines().map(str::to_owned).collect())
}

fn output(command: &mut Command) -> Result<Output, Failed> {
    let ended = command.output().map_err(|error| Failed(format!("{command:?} could not be started: {error}")))?;
    if ended.status.success() { Ok(ended) } else { Err(Failed(format!("{command:?} failed: {}", last_words(&ended)))) }
}

fn last_words(ended: &Output) -> String {
    let text = String::from_utf8_lossy(&ended.stderr);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

struct Run<'r> {
    fuzzer: &'r Path,
    target: &'r str,
}

impl Run<'_> {
    /// Seeds, the run, and what is kept of it.
    fn whole(&self, seconds: u64) -> Result<Told, Failed> {
        let (corpus, seeds, kept) = (self.work("corpus"), self.work("seeds"), self.kept("corpus"));
        for dir in [&corpus, &kept, &self.kept("crashes")] {
            fs::create_dir_all(dir).map_err(|error| named(dir, &error))?;
        }
        output(self.command().env("TENURE_FUZZ_SEEDS", &seeds))?;
        let mut told = Told { target: self.target.to_owned(), ..Told::default() };
        let until = Instant::now() + Duration::from_secs(seconds);
        while let Some(left) = until.checked_duration_since(Instant::now()).filter(|_| told.findings.is_empty()) {
            self.once(left.as_secs() + 1, &[&corpus, &seeds, &kept], &mut told)?;
        }
        told.per_second = told.executions / seconds;
        told.corpus = files(&corpus)?.len();
        if told.findings.is_empty() {
            self.keep(&[&corpus, &seeds, &kept])?;
        }
        // Without findings it would be a directory that says nothing.
        if files(&self.kept("crashes"))?.is_empty() {
            drop(fs::remove_dir(self.kept("crashes")));
        }
        Ok(told)
    }

    /// Runs until the time is over, or to the first finding.
    fn once(&self, seconds: u64, from: &[&PathBuf], told: &mut Told) -> Result<(), Failed> {
        let crashes = self.kept("crashes");
        let before = files(&crashes)?;
        let mut command = self.command();
        command.arg(format!("-max_total_time={seconds}")).arg(format!("-max_len={INPUT_MAX}"));
        command.arg("-print_final_stats=1").arg(format!("-artifact_prefix={}/", crashes.display())).args(from);
        let ended = command.output().map_err(|error| Failed(format!("{command:?} could not be started: {error}")))?;
        let said = String::from_utf8_lossy(&ended.stderr);
        told.executions += after(&said, "stat::number_of_executed_units:");
        told.coverage = told.coverage.max(after(&said, " cov: "));
        let found: Vec<PathBuf> = files(&crashes)?.into_iter().filter(|file| !before.contains(file)).collect();
        if found.is_empty() && !ended.status.success() {
            return Err(Failed(format!("{}: the fuzzer failed:\n{}", self.target, last_words(&ended))));
        }
        for file in found {
            if self.is_confirmed(&file)? {
                println!("{}", last_words(&ended));
                told.findings.push(file);
            }
        }
        Ok(())
    }

    /// Time is the machine's, too: an input that was only slow while the machine was busy is no finding.
    fn is_confirmed(&self, file: &Path) -> Result<bool, Failed> {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let timed = name.starts_with("timeout-") || name.starts_with("slow-unit-");
        if !timed || (0..3).all(|_| output(self.command().arg("-exact_artifact_path=/dev/null").arg(file)).is_err()) {
            return Ok(true);
        }
        println!("{name} was in time when it was tried again; the machine is busy");
        fs::remove_file(file).map_err(|error| named(file, &error))?;
        Ok(false)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(self.fuzzer);
        command.env("TENURE_FUZZ_TARGET", self.target).current_dir(root());
        command.arg(format!("-rss_limit_mb={RSS_MIB}")).arg(format!("-timeout={INPUT_SECONDS}"));
        command
    }

    /// A directory of this machine's own, for what later runs go on from.
    fn work(&self, what: &str) -> PathBuf {
        build_dir().join(what).join(self.target)
    }

    /// A directory that is kept with the sources.
    fn kept(&self, what: &str) -> PathBuf {
        Path::new(root()).join("fuzz").join(what).join(self.target)
    }

    /// Keeps with the sources, of everything that is known by now, the few inputs that reach most beyond
    /// the seeds.
    fn keep(&self, from: &[&PathBuf]) -> Result<(), Failed> {
        let seeds = self.work("seeds");
        let (seeds, inputs): (Vec<_>, Vec<_>) =
            self.reach(from)?.into_iter().partition(|input| input.path.starts_with(&seeds));
        let mut chosen = Vec::new();
        for path in choice::choose(inputs, &seeds) {
            let bytes = fs::read(&path).map_err(|error| named(&path, &error))?;
            chosen.push((path.file_name().unwrap_or_default().to_owned(), bytes));
        }
        let kept = self.kept("corpus");
        for file in files(&kept)? {
            fs::remove_file(&file).map_err(|error| named(&file, &error))?;
        }
        for (name, bytes) in chosen {
            let to = kept.join(name);
            fs::write(&to, bytes).map_err(|error| named(&to, &error))?;
        }
        Ok(())
    }

    /// Has libFuzzer say what each of these inputs reaches: it writes that down when it merges them.
    fn reach(&self, from: &[&PathBuf]) -> Result<Vec<choice::Input>, Failed> {
        let dir = self.work("merge");
        if dir.exists() {
            fs::remove_dir_all(&dir).map_err(|error| named(&dir, &error))?;
        }
        let (fewest, control) = (dir.join("fewest"), dir.join("control"));
        fs::create_dir_all(&fewest).map_err(|error| named(&fewest, &error))?;
        let mut command = self.command();
        command.arg("-set_cover_merge=1").arg(format!("-merge_control_file={}", control.display()));
        // What is too slow this time is passed over; it was judged in the run.
        command.arg(format!("-artifact_prefix={}/passed-over-", build_dir().display())).arg(&fewest).args(from);
        output(&mut command)?;
        let said = fs::read_to_string(&control).map_err(|error| named(&control, &error))?;
        Ok(choice::read(&said))
    }
}

impl Told {
    fn line(&self) -> String {
        let Told { target, executions, per_second, coverage, corpus, findings } = self;
        format!("{target:22} {executions:>12} {per_second:>9} {coverage:>9} {corpus:>7} {:>9}", findings.len())
    }
}

fn report(all: &[Told]) -> Result<(), Failed> {
    println!(
        "\n{:22} {:>12} {:>9} {:>9} {:>7} {:>9}",
        "target", "executions", "exec/s", "coverage", "corpus", "findings"
    );
    all.iter().for_each(|told| println!("{}", told.line()));
    let replays: Vec<String> = all
        .iter()
        .flat_map(|told| told.findings.iter().map(move |file| (told, file)))
        .map(|(told, file)| {
            let file = file.strip_prefix(root()).unwrap_or(file);
            format!("  cargo run -p tenure-fuzz -- {} {}", told.target, file.display())
        })
        .collect();
    if replays.is_empty() {
        return Ok(());
    }
    Err(Failed(format!("{} findings; to replay:\n{}", replays.len(), replays.join("\n"))))
}

/// The files in a directory, in the order of their names.
fn files(dir: &Path) -> Result<Vec<PathBuf>, Failed> {
    let entries = fs::read_dir(dir).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    let mut files: Vec<PathBuf> = entries.map_err(|error| named(dir, &error))?;
    files.sort();
    Ok(files)
}

fn named(path: &Path, error: &io::Error) -> Failed {
    Failed(format!("{}: {error}", path.display()))
}

/// The number after the last of these words.
fn after(text: &str, words: &str) -> u64 {
    let rest = text.rsplit_once(words).map_or("", |(_, rest)| rest).trim_start();
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..digits].parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fuzzers_words_are_read() {
        let said =
            "#2 INITED cov: 7 ft: 1\n#9 DONE   cov: 1234 ft: 99 corp: 5/9b\nstat::average_exec_per_sec:     17\n";
        assert_eq!(after(said, " cov: "), 1234);
        assert_eq!(after(said, "stat::average_exec_per_sec:"), 17);
        assert_eq!(after(said, "stat::peak_rss_mb:"), 0);
    }

    #[test]
    fn options_and_targets_are_told_apart() {
        let read = |words: &[&str]| read(&words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>());
        let asked = read(&["a", "--seconds", "5", "b"]).unwrap();
        assert_eq!((asked.seconds, asked.targets), (5, vec!["a".to_owned(), "b".to_owned()]));
        assert!(read(&["--seconds", "0"]).is_err());
        assert!(read(&["--minutes", "1"]).unwrap_err().0.contains("--minutes"));
    }
}
