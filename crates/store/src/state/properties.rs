//! Random commands against a model so naive that it is plainly right: it keeps the whole picture
//! of every revision, and nothing else.

use std::collections::BTreeMap;

use proptest::{collection::vec, prelude::*, sample::select};

use super::{Command, Reply, State};
use crate::{Change, Committed, Entry, Guard, Key, LeaseId, Op, Revision, Txn, Unavailable, prefixes::Prefixes};

type Picture = BTreeMap<Key, Entry>;

/// Every picture there was, by revision, and which leases live.
#[derive(Default)]
struct Model {
    pictures: Vec<Picture>,
    leases: Vec<bool>,
    ids: u64,
}

impl Model {
    fn new() -> Model {
        Model { pictures: vec![Picture::new()], ..Model::default() }
    }

    fn now(&self) -> &Picture {
        self.pictures.last().expect("there is always the first picture")
    }

    fn revision(&self) -> Revision {
        Revision(self.pictures.len() as u64 - 1)
    }

    fn lives(&self, lease: LeaseId) -> bool {
        self.leases.get(lease.0 as usize - 1).copied().unwrap_or(false)
    }

    fn apply(&mut self, command: Command) -> Reply {
        match command {
            Command::Txn(txn) => Reply::Committed(self.commit(txn)),
            Command::Grant { .. } => {
                self.leases.push(true);
                Reply::Granted(LeaseId(self.leases.len() as u64))
            }
            Command::Revoke(lease) => {
                if let Some(lives) = self.leases.get_mut(lease.0 as usize - 1) {
                    *lives = false;
                }
                let tied = self.now().values().filter(|entry| entry.lease == Some(lease));
                Reply::Committed(self.write(tied.map(|entry| Op::Delete(entry.key.clone())).collect()))
            }
            Command::AllocateId => {
                self.ids += 1;
                Reply::Id(self.ids)
            }
        }
    }

    fn commit(&mut self, txn: Txn) -> Committed {
        if let Some(complaint) = txn.complaint() {
            return Committed::Unavailable(complaint);
        }
        if let Some(guard) = txn.guards.iter().find(|guard| !guard.holds(self.now().get(guard.key()))) {
            return Committed::Refused(guard.clone());
        }
        match txn.ops.iter().find_map(|op| op.lease().filter(|lease| !self.lives(*lease))) {
            Some(lease) => Committed::Unavailable(Unavailable { why: format!("lease {} does not exist", lease.0) }),
            None => self.write(txn.ops),
        }
    }

    fn write(&mut self, ops: Vec<Op>) -> Committed {
        let (mut picture, at) = (self.now().clone(), Revision(self.revision().0 + 1));
        let mut changed = false;
        for op in ops {
            let before = picture.remove(op.key());
            changed |= before.is_some();
            if let Op::Put(key, value, lease) = op {
                let created = before.map_or(at, |entry| entry.created);
                picture.insert(key.clone(), Entry { key, value, created, modified: at, lease });
                changed = true;
            }
        }
        if changed {
            self.pictures.push(picture);
        }
        Committed::Done(self.revision())
    }
}

/// Few keys, few leases and small revisions, so that they meet.
fn a_key() -> impl Strategy<Value = Key> {
    select(vec!["", "a", "a/", "a/1", "a/10", "a/2", "ab", "b", "b/1", "c"]).prop_map(Key::from)
}

fn a_lease() -> impl Strategy<Value = LeaseId> {
    (1..6u64).prop_map(LeaseId)
}

fn a_guard() -> impl Strategy<Value = Guard> {
    let at = || (0..30u64).prop_map(Revision);
    prop_oneof![
        a_key().prop_map(Guard::Absent),
        (a_key(), at()).prop_map(|(key, at)| Guard::Unchanged(key, at)),
        (a_key(), at()).prop_map(|(key, at)| Guard::CreatedAt(key, at)),
        (a_key(), at()).prop_map(|(key, at)| Guard::NotCreatedAt(key, at)),
    ]
}

fn an_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (a_key(), any::<u8>()).prop_map(|(key, value)| Op::Put(key, [value].into(), None)),
        2 => (a_key(), any::<u8>(), a_lease()).prop_map(|(key, value, lease)| Op::Put(key, [value].into(), Some(lease))),
        2 => a_key().prop_map(Op::Delete),
    ]
}

fn a_command() -> impl Strategy<Value = Command> {
    prop_oneof![
        6 => vec(an_op(), 0..4).prop_map(|ops| Command::Txn(Txn { guards: Vec::new(), ops })),
        3 => (vec(a_guard(), 1..3), vec(an_op(), 0..4)).prop_map(|(guards, ops)| Command::Txn(Txn { guards, ops })),
        2 => (1..10_000u64).prop_map(|ttl_ms| Command::Grant { ttl_ms }),
        1 => a_lease().prop_map(Command::Revoke),
        1 => Just(Command::AllocateId),
    ]
}

/// As a reader would: from the picture at one revision, by the changes, to a later one.
fn replay(mut picture: Picture, changes: Vec<Change>) -> Picture {
    for change in changes {
        match change {
            Change::Put(entry) => drop(picture.insert(entry.key.clone(), entry)),
            Change::Gone(key, _) => assert!(picture.remove(&key).is_some(), "{key} went, but was not there"),
            other => panic!("{other:?} is no change of a key"),
        }
    }
    picture
}

fn seen_by(prefixes: &Prefixes, picture: &Picture) -> Picture {
    prefixes.select(picture).map(|entry| (entry.key.clone(), entry.clone())).collect()
}

fn state_after(commands: &[Command]) -> State {
    let mut state = State::new();
    commands.iter().for_each(|command| drop(state.apply(command.clone())));
    state
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn the_state_answers_and_ends_up_as_the_naive_model_does(commands in vec(a_command(), 0..60)) {
        let (mut state, mut model) = (State::new(), Model::new());
        for command in commands {
            prop_assert_eq!(state.apply(command.clone()), model.apply(command));
            prop_assert_eq!(state.revision(), model.revision());
            let there = state.read(&Prefixes::all());
            prop_assert_eq!((there.at, there.entries), (model.revision(), model.now().values().cloned().collect()));
            let leases: Vec<u64> = state.leases().map(|(id, _)| id.0).collect();
            let alive = (1..=model.leases.len() as u64).filter(|id| model.lives(LeaseId(*id)));
            prop_assert_eq!(leases, alive.collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_changes_since_any_revision_lead_from_its_picture_to_the_present_one(
        commands in vec(a_command(), 0..60), wanted in vec(a_key(), 0..4),
    ) {
        let (state, mut model, prefixes) = (state_after(&commands), Model::new(), Prefixes::new(wanted));
        commands.into_iter().for_each(|command| drop(model.apply(command)));
        let now = seen_by(&prefixes, model.now());
        for (at, then) in model.pictures.iter().enumerate() {
            let changes = state.changes_since(Revision(at as u64), &prefixes).expect("so short a history is kept");
            prop_assert!(changes.is_sorted_by_key(Change::revision));
            prop_assert!(changes.iter().all(|change| change.revision() > Some(Revision(at as u64))));
            prop_assert_eq!(replay(seen_by(&prefixes, then), changes), now.clone());
        }
    }

    #[test]
    fn a_snapshot_is_the_state_and_goes_on_like_it(
        before in vec(a_command(), 0..40), after in vec(a_command(), 0..20),
    ) {
        let mut state = state_after(&before);
        let bytes = postcard::to_stdvec(&state).expect("a state can be written");
        let mut restored: State = postcard::from_bytes(&bytes).expect("what was written can be read");
        prop_assert_eq!(&restored, &state);
        for command in after {
            prop_assert_eq!(restored.apply(command.clone()), state.apply(command));
        }
        prop_assert_eq!(restored.digest(), state.digest());
        prop_assert_eq!(restored, state);
    }

    #[test]
    fn replicas_agree_though_each_forgets_history_at_its_own_time(
        commands in vec(a_command(), 0..60), forgets in 0..60usize,
    ) {
        let (mut one, mut two) = (State::new(), State::new());
        for (n, command) in commands.into_iter().enumerate() {
            if n == forgets {
                two.forget_history();
            }
            prop_assert_eq!(one.apply(command.clone()), two.apply(command));
        }
        prop_assert_eq!(one.digest(), two.digest());
    }
}
