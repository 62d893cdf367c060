//! A process's disk and wall clock, as an interposed library bends them: slow syncs, a sync that
//! fails, a clock that is wrong.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
};

const SOURCE: &str = include_str!("../interpose/disk_and_clock.c");
const SLOW: u64 = 0;
const FAILING: u64 = 1;
const AHEAD: u64 = 2;
const SLOWED: u64 = 3;
const WRONG: u64 = 4;
const COUNT: usize = 5;

/// The numbers that one machine's processes look at.
#[derive(Debug)]
pub(crate) struct Switches {
    file: File,
    path: PathBuf,
}

impl Switches {
    /// All at rest.
    pub(crate) fn new(path: PathBuf) -> io::Result<Switches> {
        fs::write(&path, [0; 8 * COUNT])?;
        let file = File::options().read(true).write(true).open(&path)?;
        Ok(Switches { file, path })
    }

    /// What a process's environment needs.
    pub(crate) fn environment(&self, library: &Path) -> [(String, String); 2] {
        [
            ("LD_PRELOAD".to_owned(), library.display().to_string()),
            ("TENURE_CHAOS_SWITCHES".to_owned(), self.path.display().to_string()),
        ]
    }

    /// Each sync takes so many milliseconds longer.
    pub(crate) fn slow_syncs(&self, ms: i64) -> io::Result<()> {
        self.set(SLOW, ms)
    }

    /// The next sync fails.
    pub(crate) fn fail_one_sync(&self) -> io::Result<()> {
        self.set(FAILING, 1)
    }

    /// True if the failure that was asked for has happened.
    pub(crate) fn has_failed(&self) -> io::Result<bool> {
        Ok(self.get(FAILING)? == 0)
    }

    /// How many syncs were slowed so far.
    pub(crate) fn slowed(&self) -> io::Result<i64> {
        self.get(SLOWED)
    }

    /// How often a wrong wall clock was read so far.
    pub(crate) fn misread(&self) -> io::Result<i64> {
        self.get(WRONG)
    }

    /// No sync fails any more.
    pub(crate) fn fail_no_sync(&self) -> io::Result<()> {
        self.set(FAILING, 0)
    }

    /// The wall clock is so many milliseconds ahead.
    pub(crate) fn wall_clock(&self, ms: i64) -> io::Result<()> {
        self.set(AHEAD, ms)
    }

    fn get(&self, which: u64) -> io::Result<i64> {
        let mut number = [0; 8];
        self.file.read_exact_at(&mut number, which * 8)?;
        Ok(i64::from_ne_bytes(number))
    }

    fn set(&self, which: u64, to: i64) -> io::Result<()> {
        self.file.write_all_at(&to.to_ne_bytes(), which * 8)
    }
}

/// Builds the library with the C compiler that Rust needs anyway.
///
/// # Errors
/// There is no compiler, or it refuses; its words are in the error.
pub(crate) fn library(dir: &Path) -> io::Result<PathBuf> {
    let (source, library) = (dir.join("disk_and_clock.c"), dir.join("disk_and_clock.so"));
    fs::write(&source, SOURCE)?;
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-O1", "-Wall", "-o"]).arg(&library).arg(&source).arg("-ldl");
    let out = cc.output().map_err(|error| io::Error::new(error.kind(), format!("cc: {error}")))?;
    if out.status.success() {
        return Ok(library);
    }
    Err(io::Error::other(format!("cc refuses the interposed library: {}", String::from_utf8_lossy(&out.stderr))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(program: &str, arguments: &[&str], environment: &[(String, String)]) -> (bool, String) {
        let mut command = Command::new(program);
        command.args(arguments).envs(environment.iter().map(|(key, value)| (key, value)));
        let out = command.output().expect("it runs");
        (out.status.success(), String::from_utf8_lossy(&out.stdout).trim().to_owned())
    }

    #[test]
    fn exactly_one_sync_fails_and_the_wall_clock_is_wrong_by_what_was_asked() {
        let dir = tempfile::tempdir().unwrap();
        let library = library(dir.path()).unwrap();
        let switches = Switches::new(dir.path().join("switches")).unwrap();
        let environment = switches.environment(&library);
        let file = dir.path().join("x");
        fs::write(&file, "x").unwrap();
        let file = file.display().to_string();
        let sync = || said("sync", &["--data", &file], &environment).0;
        assert!(sync());
        switches.fail_one_sync().unwrap();
        assert!(!switches.has_failed().unwrap());
        assert!(!sync(), "the one that fails");
        assert!(switches.has_failed().unwrap());
        assert!(sync(), "and no further one");
        assert_eq!((switches.slowed().unwrap(), switches.misread().unwrap()), (0, 0));
        switches.slow_syncs(1).unwrap();
        assert!(sync() && switches.slowed().unwrap() == 1, "it is counted");
        let year = |environment: &[(String, String)]| said("date", &["-u", "+%Y"], environment).1.parse::<i64>();
        let true_year = year(&[]).unwrap();
        switches.wall_clock(-40 * 366 * 86_400_000).unwrap();
        assert!(year(&environment).unwrap() <= true_year - 39);
        assert!(switches.misread().unwrap() > 0);
    }
}
