//! A seed that cannot be repeated is an anecdote: the same seed, in two processes, must tell the same
//! story, byte for byte.

use std::{io, process::Command};

use crate::{seeds::Seeds, story};

/// Runs each seed in two processes of this very program and compares what they print. True if it is
/// the same.
pub fn twice(seeds: &Seeds) -> bool {
    let mut bytes = 0;
    for seed in seeds.0.clone() {
        match (told(seed), told(seed)) {
            (Ok(one), Ok(other)) if one == other => bytes += one.len(),
            (Ok(one), Ok(other)) => {
                let fork = one.lines().zip(other.lines()).position(|(one, other)| one != other);
                let line = fork.unwrap_or(one.lines().count().min(other.lines().count()));
                println!("seed {seed} forks at line {}:", line + 1);
                println!(
                    "  {}\n  {}",
                    one.lines().nth(line).unwrap_or("(end)"),
                    other.lines().nth(line).unwrap_or("(end)")
                );
                return false;
            }
            (Err(error), _) | (_, Err(error)) => {
                println!("seed {seed} could not be run: {error}");
                return false;
            }
        }
    }
    println!("figure: seeds {:?} are the same twice, {bytes} bytes compared", seeds.0);
    true
}

fn told(seed: u64) -> io::Result<String> {
    let this = std::env::current_exe()?;
    let output = Command::new(this).args(["replay", "--seed", &seed.to_string()]).output()?;
    let story = String::from_utf8(output.stdout).map_err(io::Error::other)?;
    let ended = story.lines().last().is_some_and(story::is_an_end);
    if !ended {
        let last = String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default().to_owned();
        return Err(io::Error::other(format!("its story has no end ({}): {last}", output.status)));
    }
    Ok(story)
}
