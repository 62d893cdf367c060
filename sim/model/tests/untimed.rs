//! Every state of the small scopes.

use tenure_model::{
    explore,
    untimed::{Protocol, Rules, SCOPES},
};

#[test]
fn the_claims_hold_in_every_state_and_everything_that_should_be_seen_is() {
    for scope in SCOPES {
        let found = explore::all(Protocol { rules: Rules::default(), bounds: scope.small });
        println!("{} ({}): {found}", scope.name, scope.about);
        assert!(found.is_good(), "{}", scope.name);
        assert!(found.states > 30_000, "{}: something keeps the model from moving", scope.name);
    }
}
