//! The machine against a small model of a sink that loses answers, keeps zombies, refuses rows and
//! is taken over: whatever happens, what the flows were told is what the sink holds.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use proptest::prelude::*;
use tenure_core::flow::supervisor::Code;

use super::{transcripts::Rows, *};

const US: Holder = Holder(1);
const THEM: Holder = Holder(2);

/// What goes wrong with one piece of work.
#[derive(Clone, Copy, Debug)]
enum Luck {
    Honest {
        names_the_row: bool,
    },
    LostBefore,
    LostAfter,
    /// No answer, and the transaction stays open on the server.
    Zombie,
    Unreachable,
    InTheWay,
}

#[derive(Clone, Debug)]
enum Act {
    Submit { flow: usize, rows: usize },
    Answer { which: usize, luck: Luck },
    ZombieEnds { which: usize, commits: bool },
    Takeover { flow: usize },
    Pass { ms: u64 },
}

type Key = (FlowId, u64);

#[derive(Debug, Default)]
struct Sink {
    fences: BTreeMap<FlowId, Stored>,
    rows: BTreeMap<Key, BTreeSet<usize>>,
    aside: BTreeMap<Key, BTreeSet<usize>>,
    zombies: Vec<(Nonce, Vec<Part>)>,
}

/// A member without its lifetime in the machine.
#[derive(Clone, Debug)]
struct Part {
    key: Key,
    ticket: Ticket,
    token: Token,
    holder: Holder,
    rows: BTreeSet<usize>,
    aside: BTreeSet<usize>,
}

impl Part {
    fn of(member: &Member<Rows>) -> Part {
        Part {
            key: (member.what.flow.clone(), member.what.seq),
            ticket: member.what.ticket,
            token: member.what.token,
            holder: member.what.holder,
            rows: member.rows.iter().cloned().flatten().collect(),
            aside: member.aside.iter().map(|refused| refused.row).collect(),
        }
    }
}

/// Which rows the table refuses, whoever asks.
fn is_bad(key: &Key, row: usize) -> bool {
    let seed = key.0.as_str().bytes().map(u64::from).sum::<u64>() * 31 + key.1 * 7 + row as u64;
    seed.is_multiple_of(11)
}

impl Sink {
    fn stored(&self, flow: &FlowId) -> Stored {
        let fresh = Stored { token: Token::first(1, 1), holder: US, seq: 0, nonce: Nonce(0) };
        self.fences.get(flow).copied().unwrap_or(fresh)
    }

    /// What the table says about the data alone: the key (flow, seq, row) is unique.
    fn refuses(&self, parts: &[Part]) -> Option<(Ticket, usize)> {
        let bad = |part: &Part, row: &usize| {
            is_bad(&part.key, *row) || self.rows.get(&part.key).is_some_and(|there| there.contains(row))
        };
        parts.iter().find_map(|part| part.rows.iter().find(|row| bad(part, row)).map(|row| (part.ticket, *row)))
    }

    fn commit(&mut self, nonce: Nonce, parts: &[Part]) -> Result<(), Answer> {
        let refused: Vec<(FlowId, Option<Stored>)> = parts
            .iter()
            .map(|part| (part, self.stored(&part.key.0)))
            .filter(|(part, at)| (at.token, at.holder, at.seq + 1) != (part.token, part.holder, part.key.1))
            .map(|(part, at)| (part.key.0.clone(), Some(at)))
            .collect();
        if !refused.is_empty() {
            return Err(Answer::Fenced(refused));
        }
        for part in parts {
            let (token, holder) = (part.token, part.holder);
            self.fences.insert(part.key.0.clone(), Stored { token, holder, seq: part.key.1, nonce });
            self.rows.entry(part.key.clone()).or_default().extend(&part.rows);
            self.aside.entry(part.key.clone()).or_default().extend(&part.aside);
        }
        Ok(())
    }

    /// Whoever wants the same rows or fences waits until the zombie has ended, one way or the other.
    fn end_zombies_of(&mut self, parts: &[Part], commits: bool) {
        let flows: BTreeSet<&FlowId> = parts.iter().map(|part| &part.key.0).collect();
        let (mine, others): (Vec<_>, Vec<_>) = std::mem::take(&mut self.zombies)
            .into_iter()
            .partition(|(_, held)| held.iter().any(|part| flows.contains(&part.key.0)));
        self.zombies = others;
        for (nonce, held) in mine {
            if commits {
                // Its fences may have moved on; then it fails like anybody.
                let _fenced = self.commit(nonce, &held);
            }
        }
    }

    fn work(&mut self, work: &Work<Rows>, luck: Luck) -> Answer {
        let gone = || Reason::new(Code::SinkUnreachable, "gone");
        match (work, luck) {
            (_, Luck::Unreachable) => Answer::Again { target: None, reason: gone() },
            (Work::Look(_) | Work::Probe(_), Luck::LostBefore | Luck::LostAfter | Luck::Zombie) => {
                Answer::Again { target: None, reason: gone() }
            }
            (Work::Look(flows), _) => {
                Answer::Looked(flows.iter().map(|flow| (flow.clone(), self.stored(flow))).collect())
            }
            (Work::Probe(_) | Work::Commit { .. }, Luck::InTheWay) => {
                Answer::Again { target: Some("t".into()), reason: gone() }
            }
            (Work::Probe(member), luck) => {
                let part = [Part::of(member)];
                self.end_zombies_of(&part, true);
                self.refuses(&part).map_or(Answer::Done { aside: Vec::new() }, |row| refusal(row, luck))
            }
            (Work::Commit { .. }, Luck::LostBefore) => Answer::Ambiguous(gone()),
            (Work::Commit { nonce, members, .. }, luck) => {
                let parts: Vec<Part> = members.iter().map(Part::of).collect();
                self.end_zombies_of(&parts, matches!(luck, Luck::Honest { names_the_row: true } | Luck::LostAfter));
                if let Some(row) = self.refuses(&parts) {
                    return refusal(row, luck);
                }
                if matches!(luck, Luck::Zombie) {
                    self.zombies.push((*nonce, parts));
                    return Answer::Ambiguous(gone());
                }
                match (self.commit(*nonce, &parts), luck) {
                    (Err(fenced), _) => fenced,
                    (Ok(()), Luck::LostAfter) => Answer::Ambiguous(gone()),
                    (Ok(()), _) => Answer::Done { aside: Vec::new() },
                }
            }
        }
    }
}

fn refusal(row: (Ticket, usize), luck: Luck) -> Answer {
    let named = matches!(luck, Luck::Honest { names_the_row: true });
    Answer::Refused(Refusal { error: "no".into(), target: Some("t".into()), row: named.then_some(row) })
}

/// The flows' side: one write under way per flow, a new claim after each failure.
struct World {
    machine: Committer<Rows>,
    sink: Sink,
    now: Moment,
    tickets: u64,
    open: BTreeMap<BatchId, Work<Rows>>,
    waiting: BTreeMap<Ticket, (Key, usize)>,
    tokens: BTreeMap<FlowId, Token>,
    fenced: BTreeMap<FlowId, u64>,
}

impl World {
    fn new(writers: usize) -> World {
        World {
            machine: Committer::new(writers, Dice::from_seed(3)),
            sink: Sink::default(),
            now: Moment(1),
            tickets: 0,
            open: BTreeMap::new(),
            waiting: BTreeMap::new(),
            tokens: BTreeMap::new(),
            fenced: BTreeMap::new(),
        }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Submit { flow, rows } => self.submit(flow_id(flow), rows),
            Act::Answer { which, luck } => self.answer(which, luck),
            Act::ZombieEnds { which, commits } => {
                if !self.sink.zombies.is_empty() {
                    let (nonce, parts) = self.sink.zombies.remove(which % self.sink.zombies.len());
                    let _fenced = if commits { self.sink.commit(nonce, &parts) } else { Ok(()) };
                }
            }
            Act::Takeover { flow } => {
                let at = self.sink.stored(&flow_id(flow));
                let token = Token::first(1, at.token.epoch + 1);
                self.sink.fences.insert(flow_id(flow), Stored { token, holder: THEM, ..at });
            }
            Act::Pass { ms } => {
                self.now = Moment(self.now.0 + ms);
                self.step(Input::Tick);
            }
        }
    }

    fn submit(&mut self, flow: FlowId, rows: usize) {
        let busy = self.waiting.values().any(|((of, _), _)| *of == flow);
        if busy || self.fenced.contains_key(&flow) {
            return;
        }
        let token = *self.tokens.entry(flow.clone()).or_insert(Token::first(1, 1));
        // What the last claim or write told.
        let seq = self.sink.stored(&flow).seq + 1;
        let ticket = Ticket(self.tickets);
        self.tickets += 1;
        self.waiting.insert(ticket, ((flow.clone(), seq), rows));
        let (target, load) = ("t".into(), Arc::new(Rows(rows)));
        self.step(Input::Submit(Submission { ticket, flow, token, holder: US, seq, target, until: None, load }));
    }

    fn answer(&mut self, which: usize, luck: Luck) {
        let Some(batch) = self.open.keys().nth(which % self.open.len().max(1)).copied() else { return };
        let work = self.open.remove(&batch).unwrap();
        let answer = self.sink.work(&work, luck);
        self.step(Input::Answer(batch, answer));
    }

    fn step(&mut self, input: Input<Rows>) {
        for effect in self.machine.step(self.now, input) {
            match effect {
                Effect::Do { batch, work, .. } => {
                    self.open.insert(batch, work);
                }
                Effect::Cut { .. } => panic!("no permit here has an end"),
                Effect::Reply(ticket, written) => self.told(ticket, written),
            }
        }
        let mut flows = BTreeSet::new();
        for work in self.open.values() {
            for flow in flows_of(work) {
                assert!(flows.insert(flow.clone()), "{flow} is in two open batches");
            }
        }
    }

    fn told(&mut self, ticket: Ticket, written: Written) {
        let (key, rows) = self.waiting.remove(&ticket).expect("each write is answered once");
        let there = self.sink.rows.get(&key).cloned().unwrap_or_default();
        let aside = self.sink.aside.get(&key).cloned().unwrap_or_default();
        let (bad, good): (BTreeSet<usize>, BTreeSet<usize>) = (0..rows).partition(|row| is_bad(&key, *row));
        match written {
            Written::Settled { rows, rejected } => {
                assert_eq!((&there, &aside), (&good, &bad), "{key:?}");
                assert_eq!((rows, rejected), (good.len() as u64, bad.len() as u64));
            }
            Written::Fenced { .. } => {
                assert!(there.is_empty() && aside.is_empty(), "{key:?} was told fenced and is there");
                self.fenced.insert(key.0, key.1);
            }
            Written::Failed(_) => self.claim(key.0),
        }
    }

    /// A failed flow starts again: attempt + 1, claimed.
    fn claim(&mut self, flow: FlowId) {
        let at = self.sink.stored(&flow);
        let token = self.tokens[&flow].next_attempt();
        if at.token < token && at.holder == US {
            self.sink.fences.insert(flow.clone(), Stored { token, ..at });
            self.tokens.insert(flow, token);
        } else {
            self.fenced.insert(flow, at.seq + 1);
        }
    }

    /// Nothing goes wrong any more: everybody is answered, and soon.
    fn peace(&mut self) {
        for turn in 0.. {
            if self.waiting.is_empty() {
                break;
            }
            assert!(turn < 20_000, "{:?} is never answered", self.waiting);
            if self.open.is_empty() {
                self.act(Act::Pass { ms: 50 });
            } else {
                self.answer(0, Luck::Honest { names_the_row: turn % 2 == 0 });
            }
        }
        assert!(self.open.is_empty());
        while !self.sink.zombies.is_empty() {
            self.act(Act::ZombieEnds { which: 0, commits: true });
        }
        for (flow, seq) in &self.fenced {
            let key = (flow.clone(), *seq);
            let own = self.sink.stored(flow).holder == US;
            assert!(own || !self.sink.rows.contains_key(&key), "{key:?} landed after it was fenced");
        }
    }
}

fn flow_id(n: usize) -> FlowId {
    FlowId::new(&format!("f{n}")).unwrap()
}

fn flows_of(work: &Work<Rows>) -> Vec<FlowId> {
    match work {
        Work::Commit { members, .. } => members.iter().map(|member| member.what.flow.clone()).collect(),
        Work::Probe(member) => vec![member.what.flow.clone()],
        Work::Look(flows) => flows.clone(),
    }
}

fn luck() -> impl Strategy<Value = Luck> {
    prop_oneof![
        6 => any::<bool>().prop_map(|names_the_row| Luck::Honest { names_the_row }),
        1 => Just(Luck::LostBefore),
        2 => Just(Luck::LostAfter),
        2 => Just(Luck::Zombie),
        1 => Just(Luck::Unreachable),
        1 => Just(Luck::InTheWay),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (0..6usize, 0..12usize).prop_map(|(flow, rows)| Act::Submit { flow, rows }),
        6 => (0..4usize, luck()).prop_map(|(which, luck)| Act::Answer { which, luck }),
        1 => (0..4usize, any::<bool>()).prop_map(|(which, commits)| Act::ZombieEnds { which, commits }),
        1 => (0..24usize).prop_map(|flow| Act::Takeover { flow }),
        2 => (0..2000u64).prop_map(|ms| Act::Pass { ms }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(1500), ..ProptestConfig::default() })]

    #[test]
    fn what_the_flows_were_told_is_what_the_sink_holds(
        writers in 1..4usize,
        acts in prop::collection::vec(act(), 1..120),
    ) {
        let mut world = World::new(writers);
        acts.into_iter().for_each(|act| world.act(act));
        world.peace();
    }
}
