//! What people write: flows and cordons. Each function turns what is there and what is asked into
//! what shall be there; committing it, guarded, is the caller's.

use tenure_core::{
    flow::{Document, promise::stops_on_lease_loss, spec::Sink, state::answers},
    id::{FlowId, NodeName, Revision},
    record::{Assignment, Cordon, Desired, FORMS_MAX, Flow, Form, Quiet, Verdict},
};
use tenure_store::{Guard, Txn, VALUE_MAX};

use super::{encode, keys, store_revision};
use crate::api::door::{Change, Effect, Refusal};

/// The longest flow record, in bytes: its order, which carries the assignment, too, fits one value.
const RECORD_MAX: usize = VALUE_MAX - 16 * 1024;

/// A flow record as it was seen.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// What it says.
    pub flow: &'a Flow,
    /// When it was written.
    pub at: Revision,
    /// Nothing of the flow enters any sink: it is to be stopped, and a verdict says that it has.
    pub at_rest: bool,
    /// The stop that is asked for was answered without a sink's word.
    pub forced: bool,
    /// What is over of the flow's past, as far as the store knows.
    pub quiet: Quiet,
}

impl<'a> Seen<'a> {
    /// A flow record of that revision, the verdict on the flow, and who has it.
    pub fn new(flow: &'a Flow, at: Revision, verdict: Option<&Verdict>, has: Option<&Assignment>) -> Seen<'a> {
        let answer = verdict.filter(|_| flow.desired.outcome().is_some_and(|outcome| answers(verdict, outcome, at)));
        let forced = answer.is_some_and(|verdict| verdict.forced);
        Seen { flow, at, at_rest: answer.is_some() && !forced, forced, quiet: has.map(|a| a.quiet).unwrap_or_default() }
    }
}

/// What applying a document to what is there would write; none if it is the same already.
///
/// `now` is a revision of the picture: it only rises, so it serves as the origin of a flow that
/// is to forget its position.
pub fn applied(seen: Option<Seen<'_>>, document: &Document, now: Revision) -> Result<Option<(Effect, Flow)>, Refusal> {
    let Some(seen @ Seen { flow: there, at_rest, .. }) = seen else {
        return Ok(Some((Effect::Created, Flow::new(document.clone()))));
    };
    if there.forget {
        return Err(Refusal::NotNow(format!("{} is being removed; apply it again when it is gone", document.id)));
    }
    if there.document == *document {
        return Ok(None);
    }
    // A position is kept beside the fence. That of another sink tells what is there, or there is none;
    // but it says nothing about another table there, by whatever way the flow came to it.
    let same = table(&there.document.sink) == table(&document.sink);
    let origin = if same { there.origin } else { fresh_origin(there, now) };
    let earlier = if at_rest { Vec::new() } else { earlier(seen, document)? };
    let flow = Flow { document: document.clone(), origin, earlier, wish: None, ..there.clone() };
    if encode(&flow).len() > RECORD_MAX {
        return Err(Refusal::NotNow(format!(
            "{} and what it was before its sink was changed take more than {RECORD_MAX} bytes together; suspend and \
             resume it first",
            document.id
        )));
    }
    Ok(Some((Effect::Updated, flow)))
}

/// What a holder may still be acting by, once the document is `next`.
fn earlier(seen: Seen<'_>, next: &Document) -> Result<Vec<Form>, Refusal> {
    let Seen { flow: there, at, quiet, .. } = seen;
    let mut earlier = there.earlier.clone();
    earlier.retain(|form| form.until >= quiet.before);
    earlier.retain(|form| !acts_alike(&form.document, &there.document));
    earlier.push(Form { document: there.document.clone(), origin: there.origin, until: at });
    earlier.retain(|form| !acts_alike(&form.document, next));
    if earlier.len() > FORMS_MAX {
        return Err(Refusal::NotNow(format!(
            "the sink of {} was changed {FORMS_MAX} times since it last stopped, and each has to be fenced off when it \
             stops; suspend and resume it first",
            next.id
        )));
    }
    Ok(earlier)
}

/// True if a holder that goes by the one document can do nothing that one which goes by the other
/// could not, as far as a stop is concerned.
fn acts_alike(a: &Document, b: &Document) -> bool {
    same_fence(&a.sink, &b.sink) && stops_on_lease_loss(a) == stops_on_lease_loss(b)
}

fn table(sink: &Sink) -> Option<&str> {
    match sink {
        Sink::Postgres(sink) => Some(&sink.table),
        Sink::Sqlite(sink) => Some(&sink.table),
        Sink::Stdout(_) => None,
    }
}

/// True if both have the flow's fence in one row. A secret counts by its reference: what it holds is
/// known to the nodes alone.
fn same_fence(a: &Sink, b: &Sink) -> bool {
    match (a, b) {
        (Sink::Postgres(a), Sink::Postgres(b)) => a.url == b.url,
        (Sink::Sqlite(a), Sink::Sqlite(b)) => a.path == b.path,
        (Sink::Stdout(_), Sink::Stdout(_)) => true,
        (Sink::Postgres(_) | Sink::Sqlite(_) | Sink::Stdout(_), _) => false,
    }
}

fn fresh_origin(there: &Flow, now: Revision) -> u64 {
    now.0.max(there.origin + 1)
}

/// What a change of what is wanted would write; none if it is so already.
pub fn changed(id: &FlowId, seen: Seen<'_>, change: &Change, now: Revision) -> Result<Option<Flow>, Refusal> {
    let there = seen.flow;
    let not_now = |why: &str| Err(Refusal::NotNow(format!("{id} {why}")));
    if there.forget && !matches!(change, Change::Forget { .. }) {
        return not_now("is being removed");
    }
    match change {
        Change::Suspend { .. } if there.desired == Desired::Terminated => {
            not_now("has been terminated; resume it first if it should run again")
        }
        Change::Suspend { force } => Ok(stopped(seen, Desired::Suspended, *force)),
        Change::Terminate { force } => Ok(stopped(seen, Desired::Terminated, *force)),
        Change::Resume if there.desired == Desired::Run => Ok(None),
        Change::Resume => {
            let earlier = if seen.at_rest { Vec::new() } else { there.earlier.clone() };
            Ok(Some(Flow { desired: Desired::Run, force: false, earlier, wish: None, ..there.clone() }))
        }
        Change::Restart { .. } | Change::Move { .. } if there.desired != Desired::Run => {
            not_now("is not meant to run; resume it first")
        }
        Change::Restart { from_start } => {
            let origin = if *from_start { fresh_origin(there, now) } else { there.origin };
            Ok(Some(Flow { restarts: there.restarts + 1, origin, wish: None, ..there.clone() }))
        }
        // A wish is part of one revision of the record, carried out or passed over with it: the same
        // wish again is a new one. That the flow is there already is for the caller to see.
        Change::Move { to } => Ok(Some(Flow { wish: Some(to.clone()), ..there.clone() })),
        Change::Forget { force } if there.forget => Ok(stopped(seen, Desired::Terminated, *force)),
        Change::Forget { force } => {
            // When it answers, the record is gone, and with it what was forced: nobody else's force counts.
            let force = *force;
            Ok(Some(Flow { desired: Desired::Terminated, forget: true, force, wish: None, ..there.clone() }))
        }
    }
}

/// True while a stop is under way that was asked for with force.
fn is_being_forced(seen: Seen<'_>) -> bool {
    seen.flow.force && seen.flow.desired != Desired::Run && !seen.forced
}

/// A stop that is under way keeps the force it was asked with. One that was answered by force does not
/// answer whoever asks without.
fn stopped(seen: Seen<'_>, desired: Desired, force: bool) -> Option<Flow> {
    let there = seen.flow;
    let force = force || is_being_forced(seen);
    let is_so = there.desired == desired && there.force == force;
    (!is_so).then(|| Flow { desired, force, wish: None, ..there.clone() })
}

/// Writes a flow record over the one that was seen.
pub fn put_flow(id: &FlowId, seen: Option<Revision>, flow: &Flow) -> Txn {
    as_seen(id, seen).put(keys::flow(id), encode(flow))
}

/// Stands on the flow record being as it was seen, and writes nothing.
pub fn as_seen(id: &FlowId, seen: Option<Revision>) -> Txn {
    let key = keys::flow(id);
    Txn::new().guard(match seen {
        None => Guard::Absent(key),
        Some(at) => Guard::Unchanged(key, store_revision(at)),
    })
}

/// Writes what an operator says about a node.
pub fn put_cordon(node: &NodeName, cordon: Option<Cordon>) -> Txn {
    match cordon {
        Some(cordon) => Txn::new().put(keys::cordon(node), encode(&cordon)),
        None => Txn::new().delete(keys::cordon(node)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(sink: &str) -> Flow {
        let json = format!(
            r#"{{"id": "a", "source": {{"tcp": {{"address": "h:1"}}}}, "codec": {{"lines": {{}}}}, "sink": {sink}}}"#
        );
        let document: Document = serde_json::from_str(&json).unwrap();
        Flow { origin: 4, ..Flow::new(document) }
    }

    const ONE: &str = r#"{"sqlite": {"path": "x.db", "table": "t"}}"#;
    const OTHER: &str = r#"{"sqlite": {"path": "y.db", "table": "t"}}"#;

    fn running(flow: &Flow) -> Seen<'_> {
        Seen { flow, at: Revision(7), at_rest: false, forced: false, quiet: Quiet::default() }
    }

    fn apply(there: &Flow, sink: &str) -> Flow {
        applied(Some(running(there)), &flow(sink).document, Revision(9)).unwrap().unwrap().1
    }

    fn change(there: &Flow, change: &Change) -> Result<Option<Flow>, Refusal> {
        changed(&FlowId::new("a").unwrap(), running(there), change, Revision(2))
    }

    #[test]
    fn applying_the_same_document_writes_nothing() {
        assert_eq!(applied(Some(running(&flow(ONE))), &flow(ONE).document, Revision(9)), Ok(None));
    }

    #[test]
    fn a_position_is_kept_where_it_is_and_forgotten_for_another_table_beside_it() {
        assert_eq!(apply(&flow(ONE), OTHER).origin, 4);
        let u = ONE.replace("\"t\"", "\"u\"");
        assert_eq!(apply(&flow(ONE), &u).origin, 9);
        assert_eq!(apply(&apply(&flow(ONE), OTHER), &u).origin, 9, "by a detour, too");
        let mut relabelled = flow(ONE).document;
        relabelled.labels.insert("a".into(), "b".into());
        let (effect, kept) = applied(Some(running(&flow(ONE))), &relabelled, Revision(9)).unwrap().unwrap();
        assert_eq!((effect, kept.origin, kept.earlier), (Effect::Updated, 4, vec![]));
    }

    #[test]
    fn a_sink_that_was_left_is_remembered_until_the_flow_has_stopped() {
        let moved = apply(&flow(ONE), OTHER);
        assert_eq!(moved.earlier, [Form { document: flow(ONE).document, origin: 4, until: Revision(7) }]);
        let back = apply(&moved, ONE);
        assert_eq!(
            back.earlier,
            [Form { document: flow(OTHER).document, origin: 4, until: Revision(7) }],
            "each place once"
        );

        let suspended = change(&moved, &Change::Suspend { force: false }).unwrap().unwrap();
        assert_eq!(suspended.earlier, moved.earlier);
        let id = FlowId::new("a").unwrap();
        let resumed = |at_rest| {
            changed(&id, Seen { at_rest, ..running(&suspended) }, &Change::Resume, Revision(12))
                .unwrap()
                .unwrap()
                .earlier
        };
        assert_eq!((resumed(false), resumed(true)), (moved.earlier, vec![]));
    }

    #[test]
    fn another_table_beside_the_same_fence_is_nothing_to_remember() {
        let moved = apply(&flow(ONE), &ONE.replace("\"t\"", "\"u\""));
        assert_eq!((moved.origin, moved.earlier), (9, vec![]));
    }

    #[test]
    fn a_flow_that_becomes_strict_is_remembered_as_it_was() {
        let mut strict = flow(ONE).document;
        strict.supervision.on_lease_loss = Some(tenure_core::flow::OnLeaseLoss::Stop);
        let (_, strict) = applied(Some(running(&flow(ONE))), &strict, Revision(9)).unwrap().unwrap();
        assert_eq!((strict.origin, strict.earlier.len()), (4, 1));
    }

    #[test]
    fn sinks_that_were_left_are_not_collected_without_end() {
        let place = |n: usize| ONE.replace("x.db", &format!("{n}.db"));
        let many = (0..FORMS_MAX).fold(flow(ONE), |there, n| apply(&there, &place(n)));
        let refused = applied(Some(running(&many)), &flow(OTHER).document, Revision(9));
        assert!(
            matches!(&refused, Err(Refusal::NotNow(why)) if why.contains("suspend and resume it first")),
            "{refused:?}"
        );
        assert!(applied(Some(Seen { at_rest: true, ..running(&many) }), &flow(OTHER).document, Revision(9)).is_ok());
    }

    #[test]
    fn force_can_be_added_to_a_stop_and_ends_with_it() {
        let patient = change(&flow(ONE), &Change::Suspend { force: false }).unwrap().unwrap();
        assert_eq!(change(&patient, &Change::Suspend { force: false }), Ok(None));
        let forced = change(&patient, &Change::Suspend { force: true }).unwrap().unwrap();
        assert!(forced.force);
        assert_eq!(change(&forced, &Change::Suspend { force: false }), Ok(None), "it was said already");
        assert!(change(&forced, &Change::Terminate { force: false }).unwrap().unwrap().force);
        assert!(!change(&forced, &Change::Forget { force: false }).unwrap().unwrap().force);
        assert!(!change(&forced, &Change::Resume).unwrap().unwrap().force);
    }

    #[test]
    fn what_a_sink_did_not_say_is_not_counted_on() {
        let suspended = change(&flow(ONE), &Change::Suspend { force: true }).unwrap().unwrap();
        let token = tenure_core::token::Token::first(1, 1);
        let verdict = |forced| {
            let outcome = tenure_core::record::Outcome::Suspended;
            Verdict { outcome, generation: Revision(7), token, forced }
        };
        assert!(Seen::new(&suspended, Revision(7), Some(&verdict(false)), None).at_rest);
        assert!(!Seen::new(&suspended, Revision(7), Some(&verdict(true)), None).at_rest);
        assert!(!Seen::new(&suspended, Revision(8), Some(&verdict(false)), None).at_rest, "it was changed since");
    }

    #[test]
    fn a_stop_that_was_answered_by_force_does_not_answer_whoever_asks_without() {
        let forced = change(&flow(ONE), &Change::Suspend { force: true }).unwrap().unwrap();
        let answered = Seen { forced: true, ..running(&forced) };
        let id = FlowId::new("a").unwrap();
        let asked = |change| changed(&id, answered, &change, Revision(9)).unwrap();
        assert_eq!(asked(Change::Suspend { force: true }), None);
        assert!(!asked(Change::Suspend { force: false }).unwrap().force);
        assert!(!asked(Change::Terminate { force: false }).unwrap().force);
        assert!(!asked(Change::Forget { force: false }).unwrap().force);
    }

    #[test]
    fn what_is_known_to_be_over_is_not_remembered() {
        let moved = apply(&flow(ONE), OTHER);
        let quiet = Quiet { before: Revision(8), alone: true };
        let seen = Seen { at: Revision(9), quiet, ..running(&moved) };
        let third = ONE.replace("x.db", "z.db");
        let (_, third) = applied(Some(seen), &flow(&third).document, Revision(10)).unwrap().unwrap();
        assert_eq!(third.earlier, [Form { document: flow(OTHER).document, origin: 4, until: Revision(9) }]);
    }

    #[test]
    fn a_record_stays_within_what_the_store_takes() {
        let mut long = flow(ONE);
        long.document.labels.insert("a".into(), "b".repeat(RECORD_MAX));
        let refused = applied(Some(running(&long)), &flow(OTHER).document, Revision(9));
        assert!(matches!(refused, Err(Refusal::NotNow(_))), "{refused:?}");
    }

    #[test]
    fn a_new_origin_is_above_every_former_one() {
        let once = change(&flow(ONE), &Change::Restart { from_start: true }).unwrap().unwrap();
        assert_eq!((once.origin, once.restarts), (5, 1));
    }

    #[test]
    fn a_terminated_flow_is_not_suspended_and_a_stopped_one_is_not_restarted() {
        let ended = Flow { desired: Desired::Terminated, ..flow(ONE) };
        assert!(change(&ended, &Change::Suspend { force: false }).is_err());
        assert!(change(&ended, &Change::Restart { from_start: false }).is_err());
        assert_eq!(change(&ended, &Change::Terminate { force: false }), Ok(None));
    }
}
