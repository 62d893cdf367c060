//! Visits the states of the models on demand: `cargo run --release -p tenure-model -- help`.

use std::process::ExitCode;

use tenure_model::{
    explore::{self, Found},
    timed::{self, Clocked, P_READ},
    untimed::{Protocol, Rules, SCOPES, mutation},
};

const HELP: &str = "\
The models of the protocol between coordinators, nodes and sinks.

  explore [--size small|large] [SCOPE...]   every state of the clock-free model
  mutations                                 what is noticed when one of its rules is broken
  timed [--renewals 1|2]                    every state of the timed model, and the stories of those
                                            with numbers or rules that are not right
";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let good = match words.as_slice() {
        ["explore", "--size", "small", scopes @ ..] | ["explore", scopes @ ..] if !scopes.contains(&"--size") => {
            explore_scopes(false, scopes)
        }
        ["explore", "--size", "large", scopes @ ..] => explore_scopes(true, scopes),
        ["mutations"] => mutations(),
        ["timed"] | ["timed", "--renewals", "1"] => timed(1),
        ["timed", "--renewals", "2"] => timed(2),
        ["help"] | [] => {
            print!("{HELP}");
            true
        }
        _ => {
            eprint!("{HELP}");
            return ExitCode::from(2);
        }
    };
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn explore_scopes(large: bool, names: &[&str]) -> bool {
    let known = SCOPES.map(|scope| scope.name);
    if let Some(unknown) = names.iter().find(|name| !known.contains(name)) {
        eprintln!("there is no scope {unknown}; there are {}", known.join(", "));
        return false;
    }
    let (mut good, mut states) = (true, 0);
    for scope in SCOPES.iter().filter(|scope| names.is_empty() || names.contains(&scope.name)) {
        let bounds = if large { scope.large } else { scope.small };
        println!("{}: {}\n  {bounds:?}", scope.name, scope.about);
        let found = explore::all(Protocol { rules: Rules::default(), bounds });
        println!("{found}");
        states += found.states;
        good &= found.is_good();
    }
    println!("{states} states in all");
    good
}

fn mutations() -> bool {
    let noticed = |mutation: &mutation::Mutation, found: &Found| {
        found.broken.iter().any(|(claim, _)| *claim == mutation.breaks.name())
    };
    let mut good = true;
    for mutation in mutation::all() {
        let found = explore::until_broken(mutation.protocol.clone());
        println!("{}: {} states until", mutation.name, found.states);
        for (claim, story) in &found.broken {
            println!("  {claim}");
            story.iter().for_each(|line| println!("    {line}"));
        }
        good &= noticed(&mutation, &found);
    }
    good
}

fn timed(renewals: usize) -> bool {
    let mut good = true;
    for (name, holds, model) in timed::trials() {
        println!("{name}: {:?}", model.timing);
        println!(
            "  {}",
            model.timing.check().map_or_else(|wrong| wrong.join("; "), |()| "all inequalities hold".to_owned())
        );
        let model = Clocked { renewals, ..model };
        let found = if holds { explore::all(model) } else { explore::until_breaks(model, P_READ) };
        println!("{found}");
        good &= found.broken.is_empty() == holds;
    }
    good
}
