//! One program for all targets: `TENURE_FUZZ_TARGET` says which; without it, their names are
//! printed. With `TENURE_FUZZ_SEEDS` it only writes the target's seeds into that directory.
//! Everything else is libFuzzer's own command line.
#![no_main]

use std::{env, fs, path::Path, process::exit, sync::OnceLock};

use libfuzzer_sys::fuzz_target;
use tenure_fuzz::{TARGETS, Target};

static TARGET: OnceLock<&Target> = OnceLock::new();

fuzz_target!(init: choose(), |data: &[u8]| {
    if let Some(target) = TARGET.get() {
        target.run(data);
    }
});

fn choose() {
    let Ok(name) = env::var("TENURE_FUZZ_TARGET") else {
        TARGETS.iter().for_each(|target| println!("{}", target.name));
        exit(0);
    };
    let target = Target::named(&name).unwrap_or_else(|| {
        eprintln!("there is no target {name:?}");
        exit(2)
    });
    if let Ok(dir) = env::var("TENURE_FUZZ_SEEDS") {
        if let Err(error) = write_seeds(target, Path::new(&dir)) {
            eprintln!("{dir}: {error}");
            exit(2);
        }
        exit(0);
    }
    TARGET.get_or_init(|| target);
}

fn write_seeds(target: &Target, dir: &Path) -> std::io::Result<()> {
    fs::create_dir_all(dir)?;
    let mut seeds = (target.seeds)().into_iter().enumerate();
    seeds.try_for_each(|(number, seed)| fs::write(dir.join(format!("seed-{number:03}")), seed))
}
