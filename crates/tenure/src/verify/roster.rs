//! Who should have a fence row, by the documents and by the cluster, and who has one.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    fence::{Fences, TABLE},
    finding::{Finding, some_of},
};

/// What the cluster says of a flow.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Told {
    /// The owner's lineage and epoch; none if it never had one.
    pub owner: Option<(i64, i64)>,
    /// It runs: its holder has claimed the fence.
    pub running: bool,
}

/// The cluster's word, from before the sink was read and from after.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Cluster {
    /// Before: what ran then had claimed its fence by then.
    pub before: BTreeMap<String, Told>,
    /// After: who claimed until then had been given the flow by then.
    pub after: BTreeMap<String, Told>,
}

/// Fence rows beside documents: whose document is missing, and who has not begun. Flows that have
/// rows have begun, whatever became of their fence row.
pub fn beside_documents(documented: &BTreeSet<&str>, begun: &BTreeSet<&str>, fences: &Fences) -> Vec<Finding> {
    let strange: Vec<&String> = fences.keys().filter(|flow| !documented.contains(flow.as_str())).collect();
    let idle: Vec<&&str> = documented.difference(begun).filter(|flow| !fences.contains_key(**flow)).collect();
    let mut found = Vec::new();
    if !strange.is_empty() {
        let what = format!("{}: no document names {}", some_of(&strange, "flow"), them(strange.len()));
        found.push(Finding::note(
            "unknown_flow",
            TABLE,
            what,
            "removed flows leave their row behind, and that is right",
        ));
    }
    if !idle.is_empty() {
        let what = format!("{}: no fence row yet", some_of(&idle, "flow"));
        found.push(Finding::note("not_claimed", TABLE, what, "no holder has begun here; `tenure flow why` tells why"));
    }
    found
}

fn them(number: usize) -> &'static str {
    if number == 1 { "it" } else { "them" }
}

/// Fence rows beside the cluster's word. `documented` flows are known to belong into this sink.
pub fn beside_cluster(cluster: &Cluster, documented: &BTreeSet<&str>, fences: &Fences) -> Vec<Finding> {
    let mut found = Vec::new();
    for (flow, fence) in fences {
        let stored = (fence.token.0, fence.token.1);
        let after = cluster.after.get(flow).and_then(|told| told.owner);
        if let Some(owner) = after.filter(|owner| stored > *owner) {
            let what = format!("the fence holds {}, but the cluster's owner is {}.{}", fence.token, owner.0, owner.1);
            let remedy = "another cluster uses this sink, or the cluster was set back without a new lineage";
            found.push(Finding::violation("fence_above_cluster", TABLE, what, remedy).of(flow));
        }
        let before = cluster.before.get(flow).filter(|told| told.running).and_then(|told| told.owner);
        if let Some(owner) = before.filter(|owner| stored < *owner) {
            let what = format!("the fence holds {}, but the cluster runs it as {}.{}", fence.token, owner.0, owner.1);
            found.push(below("fence_below_cluster", documented.contains(flow.as_str()), what).of(flow));
        }
    }
    for flow in documented.iter().filter(|flow| !fences.contains_key(**flow)) {
        if cluster.before.get(*flow).is_some_and(|told| told.running) {
            found.push(
                below("no_fence_row", true, "the cluster runs it, and there is no fence row".to_owned()).of(flow),
            );
        }
    }
    let unknown: Vec<&String> = fences.keys().filter(|flow| !cluster.after.contains_key(*flow)).collect();
    if !unknown.is_empty() {
        let what = format!("{}: the cluster does not know {}", some_of(&unknown, "flow"), them(unknown.len()));
        found.push(Finding::note(
            "unknown_flow",
            TABLE,
            what,
            "removed flows leave their row behind, and that is right",
        ));
    }
    found
}

fn below(code: &'static str, here: bool, what: String) -> Finding {
    let remedy = "the sink was set back to an earlier state, or the cluster runs another document than this one";
    let elsewhere = (!here).then_some("it may write into another sink now; give its document with -f");
    Finding::violation(code, TABLE, what, remedy).unless(elsewhere)
}

#[cfg(test)]
mod tests {
    use super::{super::fence::tests::fence, *};

    fn fences(all: &[(&str, i64)]) -> Fences {
        all.iter().map(|(flow, epoch)| ((*flow).to_owned(), fence(flow, *epoch, 1))).collect()
    }

    fn told(flow: &str, epoch: i64, running: bool) -> BTreeMap<String, Told> {
        [(flow.to_owned(), Told { owner: Some((7, epoch)), running })].into()
    }

    fn codes(found: &[Finding]) -> Vec<(&'static str, bool)> {
        found.iter().map(|f| (f.code, f.is_violation())).collect()
    }

    #[test]
    fn rows_without_documents_and_documents_without_rows_are_named_as_notes() {
        let none = BTreeSet::new();
        let found = beside_documents(&["a", "b"].into(), &none, &fences(&[("a", 1), ("z", 1)]));
        assert_eq!(codes(&found), [("unknown_flow", false), ("not_claimed", false)]);
        assert!(found[0].what.starts_with("z: ") && found[1].what.starts_with("b: "), "{found:?}");
        assert_eq!(beside_documents(&["a"].into(), &none, &fences(&[("a", 1)])), []);
        assert_eq!(beside_documents(&["a"].into(), &["a"].into(), &Fences::new()), [], "said of its rows");
    }

    #[test]
    fn a_fence_may_lead_or_follow_while_a_flow_changes_hands() {
        let known = ["a"].into();
        for (before, fence, after) in [(1, 1, 1), (1, 1, 2), (1, 2, 2), (1, 2, 3)] {
            let cluster = Cluster { before: told("a", before, true), after: told("a", after, false) };
            assert_eq!(beside_cluster(&cluster, &known, &fences(&[("a", fence)])), []);
        }
        let starting = Cluster { before: told("a", 5, false), after: told("a", 5, false) };
        assert_eq!(beside_cluster(&starting, &known, &fences(&[("a", 4)])), [], "not claimed yet");
    }

    #[test]
    fn a_fence_above_what_was_ever_given_is_a_violation() {
        let cluster = Cluster { before: told("a", 2, true), after: told("a", 2, true) };
        let found = beside_cluster(&cluster, &BTreeSet::new(), &fences(&[("a", 3)]));
        assert_eq!(codes(&found), [("fence_above_cluster", true)]);
    }

    #[test]
    fn a_running_flow_whose_fence_is_below_it_was_set_back() {
        let cluster = Cluster { before: told("a", 2, true), after: told("a", 2, true) };
        let below = fences(&[("a", 1)]);
        assert_eq!(codes(&beside_cluster(&cluster, &["a"].into(), &below)), [("fence_below_cluster", true)]);
        let elsewhere = beside_cluster(&cluster, &BTreeSet::new(), &below);
        assert_eq!(codes(&elsewhere), [("fence_below_cluster", false)], "it may have another sink now");
        assert_eq!(codes(&beside_cluster(&cluster, &["a"].into(), &Fences::new())), [("no_fence_row", true)]);
    }

    #[test]
    fn a_row_that_the_cluster_does_not_know_is_a_note() {
        let found = beside_cluster(&Cluster::default(), &BTreeSet::new(), &fences(&[("a", 1)]));
        assert_eq!(codes(&found), [("unknown_flow", false)]);
    }
}
