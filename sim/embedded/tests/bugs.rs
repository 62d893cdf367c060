//! Every deliberate bug still applies to the product as it is. That each is caught is judged by
//! `tenure-sim-embedded bugs`, which builds the product once for each.

use std::path::Path;

use tenure_sim_embedded::bank;

#[test]
fn every_bug_of_the_bank_still_applies_and_says_what_it_breaks() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the tree");
    let bugs = bank::bugs(&root).expect("the bank");
    assert!(bugs.len() >= 15, "{} bugs", bugs.len());
    for bug in bugs {
        assert!(bug.breaks.ends_with('.'), "{} says {:?}", bug.name, bug.breaks);
        let objection = bank::objection(&root, &bug).expect("git runs");
        assert_eq!(objection, None, "{}", bug.name);
    }
}
