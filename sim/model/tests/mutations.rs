//! The model is worth something only if it notices what is wrong.

use tenure_model::{explore, untimed::mutation};

#[test]
fn every_broken_rule_is_noticed_by_the_claim_that_is_about_it() {
    for mutation in mutation::all() {
        let found = explore::until_broken(mutation.protocol);
        println!("{}\n{found}", mutation.name);
        let noticed = found.broken.iter().any(|(claim, _)| *claim == mutation.breaks.name());
        assert!(noticed, "{} should break {}", mutation.name, mutation.breaks.name());
    }
}
