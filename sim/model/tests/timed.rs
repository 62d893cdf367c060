//! T1 is as tight as it can be: met exactly it is enough, and a millisecond more is too much.

use tenure_model::{
    explore,
    timed::{P_READ, tight, trials},
};

#[test]
fn two_nodes_never_read_at_once_with_t1_exactly_met_and_they_do_with_a_millisecond_less() {
    for (name, holds, model) in trials() {
        let found = if holds { explore::all(model) } else { explore::until_breaks(model, P_READ) };
        println!("{name}: {found}");
        if holds {
            assert!(found.is_good(), "{name}");
        } else {
            assert!(!found.broken.is_empty(), "{name}");
        }
    }
}

/// What the explorer finds is what the product refuses at start: neither more nor less.
#[test]
fn the_product_accepts_the_numbers_that_hold_and_refuses_the_others_for_t1_alone() {
    assert_eq!(tight().check(), Ok(()));
    for (name, holds, model) in trials().into_iter().filter(|(_, _, model)| model.rules == Default::default()) {
        let complaints = model.timing.check().err().unwrap_or_default();
        let of_t1 = complaints.len() == 1 && complaints[0].starts_with("T1");
        assert!(if holds { complaints.is_empty() } else { of_t1 }, "{name}: {complaints:?}");
    }
}
