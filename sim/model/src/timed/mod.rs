//! The timed model: one strict flow, its holder, the store that counts the holder's lease, and the
//! node that gets the flow next. Time goes in steps of [`STEP`]; in each step every clock is slow,
//! right or fast by the rate error of [`Timing`], whatever it was before. All ages are relative, so
//! that there is a last state without a last hour.
//!
//! What decides is the product's: [`tenure_core::session::Session`] says whether the holder may act,
//! [`tenure_core::grant::Grant`] whether it may write, and [`Timing`] whether the numbers are right.

mod clock;
mod holder;

use std::fmt;

use stateright::{Model, Property};
use tenure_core::{
    moment::Moment,
    session::{Standing, Timing},
};

use clock::Part;
pub use clock::{RATES, Rate, STEP};
use holder::Reading;
pub use holder::{Holder, Renewal, Stage};

use crate::explore::Story;

/// The model, with some numbers and under some rules.
#[derive(Clone, Debug)]
pub struct Clocked {
    /// The numbers of the session protocol.
    pub timing: Timing,
    /// The default is the real protocol.
    pub rules: Rules,
    /// How many renewals may be on their way at a time: 1 or 2.
    pub renewals: usize,
}

/// Rules that can be switched off to see that they are needed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rules {
    /// Validity counts from the send of the acknowledged renewal, not from the receipt of its answer.
    pub counts_from_the_send: bool,
    /// Whoever gives the flow away stands on the old session being gone.
    pub waits_for_the_end: bool,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules { counts_from_the_send: true, waits_for_the_end: true }
    }
}

/// Numbers that meet T1 exactly, and all other inequalities, in whole steps of the clocks.
pub fn tight() -> Timing {
    let ms = std::time::Duration::from_millis;
    Timing { ttl: ms(5_050), valid: ms(3_960), stop_budget: ms(990), ..Timing::default() }
}

/// What is to be seen of the timed model: its name, and whether claims are to hold.
pub fn trials() -> Vec<(&'static str, bool, Clocked)> {
    let (tick, real) = (std::time::Duration::from_millis(1), Rules::default);
    let one = |name, holds, timing, rules| (name, holds, Clocked { timing, rules, renewals: 1 });
    let sends = Rules { counts_from_the_send: false, ..real() };
    let waits = Rules { waits_for_the_end: false, ..real() };
    vec![
        one("the defaults", true, Timing::default(), real()),
        one("T1 exactly met", true, tight(), real()),
        one("validity a millisecond longer", false, Timing { valid: tight().valid + tick, ..tight() }, real()),
        one(
            "stop budget a millisecond longer",
            false,
            Timing { stop_budget: tight().stop_budget + tick, ..tight() },
            real(),
        ),
        one("session a millisecond shorter", false, Timing { ttl: tight().ttl - tick, ..tight() }, real()),
        one("validity counted from the receipt of the answer", false, tight(), sends),
        one("a flow given away before the old session is gone", false, tight(), waits),
    ]
}

/// One state.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Moments {
    /// The holder, by its own clock.
    pub holder: Holder,
    /// For how long the store has not received a renewal, by the store's clock; none once the session
    /// has ended.
    pub lease: Option<u64>,
    /// The next holder reads.
    pub next_reads: bool,
}

/// One step.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// True time passes.
    Pass {
        /// How the holder's clock goes meanwhile.
        holder: Rate,
        /// How the store's clock goes meanwhile.
        store: Rate,
    },
    /// The holder sends a renewal; it is in that place.
    Send(usize),
    /// The renewal in that place reaches the store.
    Receive(usize),
    /// Its answer reaches the holder.
    Answer(usize),
    /// The holder's pipeline has ended.
    Stop,
    /// The holder starts reading again.
    Start,
    /// The store ends the session: at once, and later than it could have.
    Expire,
    /// The store ends the session at the first moment it may, within a step.
    ExpireWithin {
        /// How the holder's clock goes until then.
        holder: Rate,
        /// How the store's clock goes until then.
        store: Rate,
    },
    /// The next holder gets the flow and reads.
    Next,
}

impl Model for Clocked {
    type State = Moments;
    type Action = Step;

    /// The session was opened this very moment, and nothing took any time.
    fn init_states(&self) -> Vec<Moments> {
        vec![Moments { holder: Holder::new(), lease: Some(0), next_reads: false }]
    }

    fn actions(&self, now: &Moments, steps: &mut Vec<Step>) {
        let pairs = RATES.into_iter().flat_map(|holder| RATES.map(|store| Step::Pass { holder, store }));
        steps.extend(pairs);
        self.message_steps(now, steps);
        match now.holder.reading {
            Reading::Yes | Reading::Stopping { .. } => steps.push(Step::Stop),
            Reading::No if now.holder.standing(&self.timing) == Standing::Live => steps.push(Step::Start),
            Reading::No => (),
        }
        if now.lease.is_some_and(|age| age >= self.ttl()) {
            steps.push(Step::Expire);
        }
        let within = |store: Rate| now.lease.is_some_and(|age| self.until_ttl(age, store).is_some());
        for store in RATES.into_iter().filter(|store| within(*store)) {
            steps.extend(RATES.map(|holder| Step::ExpireWithin { holder, store }));
        }
        let over = now.lease.is_none() || !self.rules.waits_for_the_end;
        if over && !now.next_reads {
            steps.push(Step::Next);
        }
    }

    fn next_state(&self, now: &Moments, step: Step) -> Option<Moments> {
        let mut next = now.clone();
        match step {
            Step::Pass { holder, store } => {
                next.holder.pass(holder.of_a_step(&self.timing), &self.timing);
                next.lease = next.lease.map(|age| (age + store.of_a_step(&self.timing)).min(self.ttl()));
            }
            Step::Send(at) => next.holder.send(at),
            Step::Receive(at) => next.receive(at),
            Step::Answer(at) => next.holder.answered(at, &self.timing, self.rules.counts_from_the_send),
            Step::Stop => next.holder.reading = Reading::No,
            Step::Start => next.holder.reading = Reading::Yes,
            Step::Expire => next.lease = None,
            Step::ExpireWithin { holder, store } => {
                next.holder.pass(holder.of(self.until_ttl(now.lease?, store)?, &self.timing), &self.timing);
                next.lease = None;
            }
            Step::Next => next.next_reads = true,
        }
        (next != *now).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Clocked>> {
        vec![
            Property::always(P_READ, |_, now: &Moments| !(now.holder.reads() && now.next_reads)),
            Property::always(S7, |model: &Clocked, now: &Moments| {
                now.lease.is_some() || now.holder.standing(&model.timing) != Standing::Live
            }),
            Property::always("S7 a session ends after its holder is silent", |_, now: &Moments| {
                now.lease.is_some() || !now.holder.reads()
            }),
            Property::always(
                "no write of a strict flow is permitted after its session",
                |model: &Clocked, now: &Moments| now.lease.is_some() || !now.holder.may_write(&model.timing),
            ),
            Property::always("S9 a lost session stays lost", |model: &Clocked, now: &Moments| {
                !now.holder.lost || now.holder.standing(&model.timing) == Standing::Lost
            }),
            Property::sometimes("the next holder reads", |_, now: &Moments| now.next_reads),
            Property::sometimes("a holder that stopped in doubt reads again", |_, now: &Moments| {
                now.holder.reads() && now.holder.was_doubtful
            }),
            Property::sometimes("a holder hears that its session is gone", |_, now: &Moments| now.holder.lost),
        ]
    }
}

/// The name of the claim that two nodes never read at once.
pub const P_READ: &str = "P-READ two nodes never read a strict flow at once";
const S7: &str = "S7 a session ends after its holder doubts it";

impl Clocked {
    fn ttl(&self) -> u64 {
        self.timing.ttl.as_millis() as u64
    }

    /// The part of a step after which a lease of that age has lasted its time, if it is less than a
    /// whole one.
    fn until_ttl(&self, age: u64, store: Rate) -> Option<Part> {
        let (left, whole) = (self.ttl().saturating_sub(age), store.of_a_step(&self.timing));
        (0 < left && left < whole).then_some(Part { of: whole, is: left })
    }

    fn message_steps(&self, now: &Moments, steps: &mut Vec<Step>) {
        for at in 0..self.renewals {
            match now.holder.renewals[at].map(|renewal| renewal.stage) {
                Some(Stage::Sent) => steps.push(Step::Receive(at)),
                Some(Stage::Answered | Stage::Refused) => steps.push(Step::Answer(at)),
                None => (),
            }
            // One that is on its way may be lost: the next one takes its place.
            if !now.holder.lost {
                steps.push(Step::Send(at));
            }
        }
    }
}

impl Moments {
    /// The store's lease is as young as its last renewal; one that ended is not revived.
    fn receive(&mut self, at: usize) {
        let Some(renewal) = &mut self.holder.renewals[at] else { return };
        renewal.stage = if self.lease.is_some() { Stage::Answered } else { Stage::Refused };
        self.lease = self.lease.map(|_| 0);
    }
}

impl Story for Clocked {
    fn tell(&self, steps: &[(Moments, Step)]) -> Vec<String> {
        let mut clocks = [Moment(0); 3];
        let mut lines = vec!["true time  n1's clock  the store's".to_owned()];
        lines.push(line(clocks, "n1 opens its session and reads", ""));
        for (before, step) in steps {
            self.advance(&mut clocks, before, step);
            let after = self.next_state(before, step.clone()).unwrap_or_else(|| before.clone());
            lines.push(line(clocks, &step.to_string(), &remark(before, &after)));
        }
        lines
    }
}

fn line(clocks: [Moment; 3], step: &str, remark: &str) -> String {
    let [time, holder, store] = clocks.map(|clock| clock.to_string());
    format!("{time:<10} {holder:<11} {store:<11}  {step}{remark}")
}

/// What follows from a step and is not in its name.
fn remark(before: &Moments, after: &Moments) -> String {
    match (before.holder.reading, after.holder.reading) {
        (_, Reading::Yes) if after.next_reads => ", while n1 reads".to_owned(),
        (_, Reading::Stopping { left }) if after.next_reads => format!(", while n1 may read for {left} ms more"),
        (Reading::Yes, Reading::Stopping { left }) => format!("; n1 doubts its session and has {left} ms to stop"),
        (Reading::Yes | Reading::Stopping { .. }, Reading::No) => "; n1 is silent".to_owned(),
        (_, _) => String::new(),
    }
}

impl Clocked {
    /// True time, and what the two clocks show.
    fn advance(&self, [time, holder, store]: &mut [Moment; 3], before: &Moments, step: &Step) {
        let (part, h, s) = match (step, before.lease) {
            (Step::Pass { holder, store }, _) => (Part::WHOLE, *holder, *store),
            (Step::ExpireWithin { holder, store }, Some(age)) => match self.until_ttl(age, *store) {
                Some(part) => (part, *holder, *store),
                None => return,
            },
            (_, _) => return,
        };
        time.0 += Rate::Right.of(part, &self.timing);
        holder.0 += h.of(part, &self.timing);
        store.0 += s.of(part, &self.timing);
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Pass { holder, store } => write!(f, "time passes; n1's clock is {holder}, the store's is {store}"),
            Step::Send(_) => f.write_str("n1 sends a renewal"),
            Step::Receive(_) => f.write_str("a renewal of n1 reaches the store"),
            Step::Answer(_) => f.write_str("n1 hears the answer to a renewal"),
            Step::Stop => f.write_str("n1 is silent"),
            Step::Start => f.write_str("n1 reads again"),
            Step::Expire => f.write_str("the store ends n1's session"),
            Step::ExpireWithin { holder, store } => write!(
                f,
                "less time passes; n1's clock is {holder}, the store's is {store}; the store ends n1's session"
            ),
            Step::Next => f.write_str("n2 gets the flow and reads"),
        }
    }
}
