//! The shell around the coordinator machine: one per server, and the store lets one of them win.

use std::{sync::Arc, time::Duration};

use tenure_connect::world::World;
use tenure_core::{
    coordinator::{Coordinator, Effect, Input, Post, Settings},
    id::NodeName,
    mirror::News,
    picture::Fact,
    placement::Policy,
    session::Standing,
};
use tenure_store::{Committed, Store, Txn};
use tokio::sync::{mpsc, watch};
use tracing::{debug, info};

use super::{
    node::NodeHandle,
    preview,
    sight::View,
    vital::{self, Process},
};
use crate::catalog::plans;

/// A commit without an answer for this long is unknown.
const COMMIT_PATIENCE: Duration = Duration::from_secs(3);
/// Time is looked at this often at the most, and this often at the least.
const TICK_MIN: Duration = Duration::from_millis(5);
const TICK_MAX: Duration = Duration::from_millis(250);
/// How often what cannot be placed is said anew.
const SAY_EVERY: Duration = Duration::from_secs(1);

/// A running coordinator (in office or not), from outside.
#[derive(Clone)]
pub struct CoordinatorHandle {
    world: Arc<dyn Process>,
    inputs: mpsc::UnboundedSender<Input>,
    post: watch::Receiver<Post>,
}

impl CoordinatorHandle {
    /// Gives the office up for good, if it is ours; returns when that is written or after a while.
    pub async fn resign(&self) {
        drop(self.inputs.send(Input::Resign));
        let mut post = self.post.clone();
        let retired = post.wait_for(|post| *post == Post::Retired);
        drop((&*self.world as &dyn World).within(COMMIT_PATIENCE, retired).await);
    }

    /// What it is now.
    pub fn post(&self) -> Post {
        *self.post.borrow()
    }
}

/// Starts it. `told` is what the view's watch says.
pub fn start(
    world: Arc<dyn Process>,
    me: NodeName,
    settings: Settings,
    store: Arc<dyn Store>,
    node: NodeHandle,
    view: View,
    told: mpsc::UnboundedReceiver<Vec<News<Fact>>>,
) -> CoordinatorHandle {
    let (inputs, inputs_in) = mpsc::unbounded_channel();
    let (post_out, post) = watch::channel(Post::Standby);
    let shell = Shell {
        world: Arc::clone(&world),
        policy: settings.policy.clone(),
        machine: Coordinator::new(me.clone(), settings),
        me,
        store,
        node,
        view,
        answers: inputs.clone(),
        post: post_out,
        said: tenure_core::moment::Moment(0),
    };
    vital::spawn(&world, "the coordinator's loop", shell.run(inputs_in, told));
    CoordinatorHandle { world, inputs, post }
}

struct Shell {
    world: Arc<dyn Process>,
    machine: Coordinator,
    policy: Policy,
    me: NodeName,
    store: Arc<dyn Store>,
    node: NodeHandle,
    view: View,
    answers: mpsc::UnboundedSender<Input>,
    post: watch::Sender<Post>,
    said: tenure_core::moment::Moment,
}

impl Shell {
    async fn run(
        mut self,
        mut inputs: mpsc::UnboundedReceiver<Input>,
        mut told: mpsc::UnboundedReceiver<Vec<News<Fact>>>,
    ) {
        let mut status = self.node.status();
        loop {
            let wake =
                self.machine.wake_at().map_or(TICK_MAX, |at| at.since(self.world.now())).clamp(TICK_MIN, TICK_MAX);
            let input = tokio::select! {
                biased;
                changed = status.changed() => match changed {
                    Ok(()) => None,
                    Err(_) => return, // The node has ended, and this process with it.
                },
                Some(input) = inputs.recv() => Some(input),
                Some(batch) = told.recv() => {
                    for news in batch {
                        self.step(Input::News(news));
                    }
                    None
                }
                () = self.world.sleep(wake) => None,
            };
            let now = *status.borrow_and_update();
            let session = now.session.filter(|_| now.standing == Standing::Live);
            self.step(Input::Session(session));
            if let Some(input) = input {
                self.step(input);
            }
            self.show();
        }
    }

    fn step(&mut self, input: Input) {
        for effect in self.machine.step(self.world.now(), input) {
            self.perform(effect);
        }
    }

    fn perform(&self, effect: Effect) {
        match &effect {
            Effect::Commit { writes, .. } => writes.iter().for_each(|write| debug!(%write, "coordinator")),
            Effect::Campaign(_) | Effect::Resign(_) => debug!(%effect, "coordinator"),
        }
        match effect {
            Effect::Campaign(session) => {
                if let Some(lease) = self.node.lease() {
                    self.commit(vec![plans::campaign(&self.me, session, lease)], |_| None);
                }
            }
            Effect::Resign(office) => {
                let post = self.post.clone();
                self.commit(vec![plans::resign(&office)], move |committed| {
                    // Else the machine asks again until the office is not ours any more.
                    if let Committed::Done(_) | Committed::Refused(_) = committed {
                        post.send_replace(Post::Retired);
                    }
                    None
                });
            }
            Effect::Commit { batch, office, writes } => {
                self.commit(plans::commits(&office, &writes), move |committed| {
                    Some(Input::Answer(batch, plans::answer(committed)))
                });
            }
        }
    }

    /// Makes these commits in order, as long as each of them happens; the last answer counts.
    fn commit(&self, txns: Vec<Txn>, then: impl FnOnce(Committed) -> Option<Input> + Send + 'static) {
        let (store, answers) = (Arc::clone(&self.store), self.answers.clone());
        let world: Arc<dyn World> = self.world.clone();
        self.world.spawn(Box::pin(async move {
            let mut last = Committed::Unknown("there was nothing to commit".to_owned());
            for txn in txns {
                let answered = world.within(COMMIT_PATIENCE, store.commit(txn)).await;
                last = answered.unwrap_or_else(|| Committed::Unknown("no answer in time".to_owned()));
                if !matches!(last, Committed::Done(_)) {
                    debug!(committed = %last, "a coordinator's commit");
                    break;
                }
            }
            if let Some(input) = then(last) {
                drop(answers.send(input));
            }
        }));
    }

    fn show(&mut self) {
        let post = self.machine.post();
        let was = *self.post.borrow();
        // A retirement with an office to give up shows when that is written.
        let resigning = post == Post::Retired && matches!(was, Post::Active | Post::CatchingUp);
        if post != was && was != Post::Retired && !resigning {
            info!(%post, "coordinator");
            self.post.send_replace(post);
        }
        let now = self.world.now();
        if now >= self.said.after(SAY_EVERY) {
            self.said = now;
            self.say_what_has_no_place();
        }
    }

    /// Every server can say why a flow has no place: the planner is a pure function of the picture.
    fn say_what_has_no_place(&self) {
        if let Some(picture) = self.machine.picture() {
            self.view.set_unplaced(preview::why_homeless(picture, &self.policy));
        }
    }
}
