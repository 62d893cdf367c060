//! What a node never does, checked against everything it asks for.

use std::collections::BTreeMap;

use tenure_core::{
    flow::OnLeaseLoss,
    flow::promise::promise,
    id::{FlowId, SessionId},
    moment::Moment,
    node::STUCK_AFTER,
    record::Order,
    session::Timing,
    token::Token,
};

/// A pipeline as the node has it: started, and not yet heard to have ended.
#[derive(Clone, Debug)]
pub(crate) struct Pipeline {
    pub(crate) token: Token,
    pub(crate) order: std::sync::Arc<Order>,
    pub(crate) open: bool,
    pub(crate) halt_by: Option<Moment>,
}

/// What the node may count on, by the world's own account.
#[derive(Default, Debug)]
pub(crate) struct Rules {
    pub(crate) pipelines: BTreeMap<FlowId, Pipeline>,
    /// The latest token that was used for a start or a closing.
    used: BTreeMap<FlowId, Token>,
    /// The session that the node believes in, and until when.
    pub(crate) session: Option<(SessionId, Moment)>,
    /// Since when it has known that it is not live.
    not_live_since: Option<Moment>,
    /// Since when it has known that the session is lost.
    lost_since: Option<Moment>,
    pub(crate) has_left: bool,
    now: Moment,
}

impl Rules {
    /// Before a step: what the node knows from now on.
    pub(crate) fn time_is(&mut self, now: Moment) {
        let live = self.session.is_some_and(|(_, until)| now < until);
        self.not_live_since = if live { None } else { self.not_live_since.or(Some(now)) };
        self.lost_since = if self.session.is_some() { None } else { self.lost_since.or(Some(now)) };
        self.now = now;
    }

    /// invariant: live_starts. A flow starts only while the session is live, and only by an order
    /// of that session.
    /// invariant: one_pipeline. A flow starts only after its former pipeline has ended.
    pub(crate) fn starts(&mut self, now: Moment, flow: &FlowId, token: Token, order: &std::sync::Arc<Order>) {
        let (session, until) = self.session.unwrap_or_else(|| panic!("{flow} starts without a session"));
        assert!(now < until, "{flow} starts at {now}, the session is doubtful since {until}");
        assert_eq!(order.assignment.session, session, "{flow} starts by another session's order");
        assert!(token.same_owner(order.assignment.token), "{flow} starts under {token}, not its order's");
        self.uses(flow, token);
        let pipeline = Pipeline { token, order: order.clone(), open: false, halt_by: None };
        let former = self.pipelines.insert(flow.clone(), pipeline);
        assert!(
            former.as_ref().is_none_or(|former| self.may_be_given_up(former)),
            "{flow} starts under {token} while {former:?} is up"
        );
    }

    /// invariant: fresh_tokens. Each start and each closing of a flow has a greater token than the
    /// one before.
    pub(crate) fn uses(&mut self, flow: &FlowId, token: Token) {
        let before = self.used.insert(flow.clone(), token);
        assert!(before < Some(token), "{flow}: {token} after {before:?}");
    }

    pub(crate) fn halts(&mut self, flow: &FlowId, token: Token, by: Moment) {
        let pipeline = self.pipelines.get_mut(flow).unwrap_or_else(|| panic!("{flow} is halted and does not run"));
        assert_eq!(pipeline.token, token, "{flow} is halted under another token");
        pipeline.halt_by = Some(pipeline.halt_by.map_or(by, |former| former.min(by)));
    }

    /// invariant: quiet_hands. Nobody closes, gives away or lets go what still runs.
    pub(crate) fn lets_go(&mut self, flow: &FlowId) {
        let former = self.pipelines.remove(flow);
        assert!(former.is_none_or(|former| self.may_be_given_up(&former)), "{flow} is let go while it runs");
    }

    /// It was to be gone for so long that it is taken for stuck; its sink keeps it out.
    fn may_be_given_up(&self, pipeline: &Pipeline) -> bool {
        let stuck = pipeline.halt_by.is_some_and(|by| by.after(STUCK_AFTER) <= self.now);
        stuck && !is_strict(&pipeline.order)
    }

    /// invariant: clean_lives. A session is opened, or ended, only when nothing runs.
    pub(crate) fn begins_or_ends(&mut self) {
        let mut still = std::mem::take(&mut self.pipelines);
        still.retain(|_, pipeline| !self.may_be_given_up(pipeline));
        assert!(still.is_empty(), "these still run: {still:?}");
    }

    /// invariant: no_needless_end. A process ends itself only for a strict flow that did not end in
    /// time while the session is not live.
    pub(crate) fn aborts(&self, now: Moment, flow: &FlowId) {
        let pipeline = self.pipelines.get(flow).unwrap_or_else(|| panic!("{flow} does not run"));
        assert!(is_strict(&pipeline.order), "{flow} is kept out by its sink");
        assert!(self.not_live_since.is_some(), "the session is live");
        assert!(pipeline.halt_by.is_some_and(|by| by < now), "{flow} still has time: {pipeline:?}");
    }

    /// The process has gone, and with it all that ran.
    pub(crate) fn starts_over(&mut self) {
        *self = Rules { used: std::mem::take(&mut self.used), ..Rules::default() };
    }

    /// After a step.
    /// invariant: self_fencing. Once a node knows that its session is doubtful its strict flows are
    /// told to end within the stop budget; once it is lost, all are.
    pub(crate) fn hold(&self) {
        let budget = Timing::default().stop_budget;
        for (flow, pipeline) in &self.pipelines {
            let since = if is_strict(&pipeline.order) { self.not_live_since } else { self.lost_since };
            if let Some(since) = since {
                let by = pipeline.halt_by.unwrap_or(Moment(u64::MAX));
                assert!(by <= since.after(budget), "{flow} runs until {by}, not live since {since}");
            }
        }
    }
}

pub(crate) fn is_strict(order: &Order) -> bool {
    promise(&order.flow.document).on_lease_loss == OnLeaseLoss::Stop
}
