//! What every test here stands on: the machine's own clock, a checked flow, a grant of it, and
//! patience with a deadline.

use std::{
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;
use tenure_connect::world::World;
use tenure_core::{
    flow::{Document, OnLeaseLoss, Spec},
    grant::{Grant, Validity},
    id::FlowId,
    moment::Moment,
    token::{Holder, Token},
};

/// Longer than anything here takes; a test that needs it has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The machine's clock and tokio's sleep.
#[derive(Debug)]
pub(crate) struct Real(Instant);

impl World for Real {
    fn now(&self) -> Moment {
        Moment(1 + self.0.elapsed().as_millis() as u64)
    }

    fn sleep(&self, span: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(span))
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        drop(tokio::spawn(task));
    }
}

/// The one clock of this process.
pub(crate) fn world() -> Arc<Real> {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    Arc::new(Real(*START))
}

/// A flow from a JSON document.
pub(crate) fn spec(json: &str) -> Arc<Spec> {
    Arc::new(serde_json::from_str::<Document>(json).unwrap().check().unwrap())
}

/// A grant of the flow `f`, valid until the clock shows 1000.
pub(crate) fn grant(on_lease_loss: OnLeaseLoss, epoch: u64) -> Grant {
    Grant {
        flow: FlowId::new("f").unwrap(),
        token: Token::first(1, epoch),
        holder: Holder(u128::from(epoch)),
        origin: 0,
        on_lease_loss,
        validity: Validity::until(Moment(1000)),
    }
}

/// Waits until it is so.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "never came true: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
