//! tmp
use stateright::{Checker, Model};
use tenure_model::untimed::{Bounds, Protocol, Rules};
fn main() {
    for name in std::env::args().skip(1) {
        let bounds = Bounds::named(&name).unwrap();
        let began = std::time::Instant::now();
        let checker = Protocol { rules: Rules::default(), bounds }
            .checker()
            .threads(2)
            .target_state_count(60_000_000)
            .spawn_bfs()
            .join();
        println!(
            "{name}: unique {} total {} depth {} in {:?}",
            checker.unique_state_count(),
            checker.state_count(),
            checker.max_depth(),
            began.elapsed()
        );
        for p in checker.model().properties() {
            match checker.discovery(p.name) {
                None => println!("  none {:?} {}", p.expectation, p.name),
                Some(path) => {
                    println!("  FOUND {:?} {}", p.expectation, p.name);
                    if format!("{:?}", p.expectation) == "Always" {
                        for a in path.into_actions() {
                            println!("      {a}");
                        }
                    }
                }
            }
        }
    }
}
