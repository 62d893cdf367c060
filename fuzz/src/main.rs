//! `cargo run -p tenure-fuzz -- TARGET FILE...` gives kept inputs to one target, without a fuzzer;
//! without arguments it lists the targets.

use std::{env, fs, process::ExitCode};

use tenure_fuzz::{TARGETS, Target};

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let Some((name, files)) = words.split_first() else {
        TARGETS.iter().for_each(|target| println!("{:20} {}", target.name, target.about));
        return ExitCode::SUCCESS;
    };
    let Some(target) = Target::named(name) else {
        eprintln!("there is no target {name:?}; without arguments, all are listed");
        return ExitCode::from(2);
    };
    for file in files {
        match fs::read(file) {
            Ok(data) => {
                println!("{name} {file}: {} bytes", data.len());
                target.run(&data);
            }
            Err(error) => {
                eprintln!("{file}: {error}");
                return ExitCode::from(2);
            }
        }
    }
    ExitCode::SUCCESS
}
