//! What the tests need beside Rust: real servers, from Debian's packages.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::steps::{Failed, run_with};

/// Makes sure that PostgreSQL's server is there: installs it where that is allowed (root on a
/// Debian machine), else says exactly what is missing.
pub(crate) fn ensure_packages() -> Result<(), Failed> {
    let mut missing = Vec::new();
    if !has_postgres() {
        missing.push("postgresql");
    }
    if !on_path("cc") {
        missing.push("gcc");
    }
    if missing.is_empty() {
        return Ok(());
    }
    let command = format!("apt-get install -y --no-install-recommends {}", missing.join(" "));
    if !(is_root() && Path::new("/usr/bin/apt-get").exists()) {
        return Err(Failed(format!("the tests need {}; run: sudo {command}", missing.join(" and "))));
    }
    println!("the tests need {}; installing", missing.join(" and "));
    let quiet = [("DEBIAN_FRONTEND", "noninteractive")];
    run_with("package lists", "apt-get", &["update", "-q"], &quiet)?;
    let mut args = vec!["install", "-y", "-q", "--no-install-recommends"];
    args.extend(&missing);
    run_with("packages", "apt-get", &args, &quiet)?;
    if has_postgres() { Ok(()) } else { Err(Failed("postgresql was installed, and yet there is no initdb".to_owned())) }
}

/// The tests start servers of their own; only the programs are wanted.
fn has_postgres() -> bool {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    on_path("initdb") || versions.map(|v| v.path().join("bin/initdb")).any(|initdb: PathBuf| initdb.exists())
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).exists())
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|out| out.stdout.trim_ascii() == b"0")
}
