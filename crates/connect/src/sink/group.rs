//! The shell around the group committer: carries submissions to the machine, its orders to the
//! writers, and the writers' answers back. One task per hub; it ends when the hub's last door is
//! dropped, and its writers with it.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tenure_core::{
    flow::{Reason, supervisor::Code},
    grant::Permit,
    id::FlowId,
    moment::{Dice, Moment},
};
use tokio::sync::{mpsc, oneshot};

use super::{
    Written,
    committer::{Answer, BatchId, Committer, Effect, Input, Load, Submission, Target, Ticket, Work},
};
use crate::world::World;

/// What a writer gets. At most one [`Order::Do`] is under way per writer, so its queue is as
/// short as that.
#[derive(Debug)]
pub enum Order<P> {
    /// Do this, and answer.
    Do(BatchId, Work<P>),
    /// End it as soon as possible, answer or not.
    Cut(BatchId),
}

/// Takes orders to one writer, without waiting.
pub type ToWriter<P> = Box<dyn Fn(Order<P>) + Send + Sync>;

/// Where writers answer; works from any thread.
pub type Answers = mpsc::UnboundedSender<(BatchId, Answer)>;

/// The doors' side. A flow has at most one write under way, so the queue behind it is never longer
/// than the number of flows.
pub struct Group<P> {
    wishes: mpsc::UnboundedSender<Wish<P>>,
    tickets: AtomicU64,
}

/// What doors send.
enum Wish<P> {
    Submit(Submission<P>, oneshot::Sender<Written>),
    Withdraw(FlowId, Ticket),
}

/// Withdraws a submission whose writer stopped waiting.
struct Waiting<'w, P> {
    wishes: &'w mpsc::UnboundedSender<Wish<P>>,
    flow: &'w FlowId,
    ticket: Ticket,
    told: bool,
}

impl<P> Drop for Waiting<'_, P> {
    fn drop(&mut self) {
        if !self.told {
            // Without the task there is nothing to withdraw from.
            drop(self.wishes.send(Wish::Withdraw(self.flow.clone(), self.ticket)));
        }
    }
}

impl<P: Load> Group<P> {
    /// Starts the task. The dice make the nonces: they must differ in every process.
    pub fn start(
        world: Arc<dyn World>,
        dice: Dice,
        writers: Vec<ToWriter<P>>,
        answers: mpsc::UnboundedReceiver<(BatchId, Answer)>,
    ) -> Group<P> {
        let (wishes, incoming) = mpsc::unbounded_channel();
        let machine = Committer::new(writers.len(), dice);
        let shell = Shell { machine, world: Arc::clone(&world), writers, waiting: HashMap::new() };
        world.spawn(Box::pin(shell.run(incoming, answers)));
        Group { wishes, tickets: AtomicU64::new(0) }
    }

    /// Hands one flow's batch in and waits for what became of it.
    pub async fn write(&self, permit: Permit<'_>, seq: u64, target: Target, load: P) -> Written {
        let ticket = Ticket(self.tickets.fetch_add(1, Ordering::Relaxed));
        let grant = permit.grant;
        let submission = Submission {
            ticket,
            flow: grant.flow.clone(),
            token: grant.token,
            holder: grant.holder,
            seq,
            target,
            until: permit.until.cloned(),
            load: Arc::new(load),
        };
        let (tell, told) = oneshot::channel();
        if self.wishes.send(Wish::Submit(submission, tell)).is_err() {
            return gone();
        }
        let mut waiting = Waiting { wishes: &self.wishes, flow: &grant.flow, ticket, told: false };
        let written = told.await.unwrap_or_else(|_| gone());
        waiting.told = true;
        written
    }
}

fn gone() -> Written {
    Written::Failed(Reason::new(Code::SinkUnreachable, "the sink's task has ended; the next start opens it anew"))
}

struct Shell<P> {
    machine: Committer<P>,
    world: Arc<dyn World>,
    writers: Vec<ToWriter<P>>,
    waiting: HashMap<Ticket, oneshot::Sender<Written>>,
}

impl<P: Load> Shell<P> {
    async fn run(
        mut self,
        mut incoming: mpsc::UnboundedReceiver<Wish<P>>,
        mut answers: mpsc::UnboundedReceiver<(BatchId, Answer)>,
    ) {
        let mut stepped = self.world.now();
        loop {
            let input = tokio::select! {
                biased;
                Some((batch, answer)) = answers.recv() => Input::Answer(batch, answer),
                wish = incoming.recv() => match wish {
                    Some(Wish::Submit(submission, tell)) => {
                        self.waiting.insert(submission.ticket, tell);
                        Input::Submit(submission)
                    }
                    Some(Wish::Withdraw(flow, ticket)) => {
                        self.waiting.remove(&ticket);
                        Input::Withdraw(flow, ticket)
                    }
                    None => return,
                },
                () = self.wake(stepped) => Input::Tick,
            };
            stepped = self.world.now();
            for effect in self.machine.step(stepped, input) {
                self.carry_out(effect);
            }
        }
    }

    /// The machine is asked as of its last step: what has come due since then is not over, it is
    /// what to wake for at once.
    async fn wake(&self, stepped: Moment) {
        match self.machine.wake(stepped) {
            Some(moment) => self.world.sleep(moment.since(self.world.now())).await,
            None => std::future::pending().await,
        }
    }

    fn carry_out(&mut self, effect: Effect<P>) {
        match effect {
            Effect::Do { batch, writer, work } => (self.writers[writer])(Order::Do(batch, work)),
            Effect::Cut { batch, writer } => (self.writers[writer])(Order::Cut(batch)),
            Effect::Reply(ticket, written) => {
                // Whoever dropped its future does not want to know.
                if let Some(tell) = self.waiting.remove(&ticket) {
                    drop(tell.send(written));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::future::BoxFuture;
    use tenure_core::{
        flow::OnLeaseLoss,
        grant::{Grant, Validity},
        token::{Holder, Token},
    };

    use super::*;

    /// A clock that is a millisecond later at each look: work takes time.
    #[derive(Default)]
    struct Busy(Arc<AtomicU64>);

    impl World for Busy {
        fn now(&self) -> Moment {
            Moment(self.0.fetch_add(1, Ordering::Relaxed))
        }

        fn sleep(&self, span: Duration) -> BoxFuture<'static, ()> {
            let clock = Arc::clone(&self.0);
            Box::pin(async move {
                let _before = clock.fetch_add(span.as_millis() as u64, Ordering::Relaxed);
            })
        }

        fn spawn(&self, task: BoxFuture<'static, ()>) {
            drop(tokio::spawn(task));
        }
    }

    struct OneRow;

    impl Load for OneRow {
        fn rows(&self) -> usize {
            1
        }

        fn rejected(&self) -> usize {
            0
        }

        fn weight(&self) -> usize {
            1
        }
    }

    #[tokio::test]
    async fn a_batch_that_lingers_is_sent_whatever_the_clock_did_between_two_looks() {
        let (answer, answers) = mpsc::unbounded_channel();
        let writer = move |order| match order {
            Order::Do(batch, _) => drop(answer.send((batch, Answer::Done { aside: Vec::new() }))),
            Order::Cut(_) => {}
        };
        let group = Group::start(Arc::new(Busy::default()), Dice::from_seed(1), vec![Box::new(writer)], answers);
        let grant = Grant {
            flow: FlowId::new("f").expect("an id"),
            token: Token::first(1, 1),
            holder: Holder(1),
            origin: 0,
            validity: Validity::until(Moment(u64::MAX)),
            on_lease_loss: OnLeaseLoss::RideThrough,
        };
        for seq in 1..100 {
            let permit = grant.permit(Moment(0)).expect("it is valid");
            let written = group.write(permit, seq, "t".into(), OneRow);
            // Nothing else happens that would wake the task.
            let written = tokio::time::timeout(Duration::from_secs(10), written).await;
            assert_eq!(written, Ok(Written::Settled { rows: 1, rejected: 0 }), "batch {seq}");
        }
    }
}
