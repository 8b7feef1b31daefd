//! Runs the children of a combination, each guarded from the others.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::{CUT, Child, Combination};
use crate::health::unknown::{Episodes, Tell};
use crate::health::{Evidence, HealthCheck, Verdict};

/// Least time between two looks at what children push, so that one that pushes without end
/// and changes nothing does not hold the thread.
const PUSH_GAP: Duration = Duration::from_millis(10);

/// A combination at work.
pub(super) struct Combined {
    plan: Combination,
    slots: Vec<Slot>,
    /// What the whole said last.
    said: Verdict,
}

/// One child at work.
struct Slot {
    /// `None`: to be built before the next probe.
    check: Option<Box<dyn HealthCheck>>,
    last: Verdict,
    episodes: Episodes,
}

impl Combined {
    pub(super) fn new(plan: Combination) -> Self {
        let slot = |_| Slot {
            check: None,
            last: Verdict::unknown("not probed yet"),
            episodes: Episodes::default(),
        };
        Self {
            slots: plan.children.iter().map(slot).collect(),
            said: Verdict::unknown("not probed yet"),
            plan,
        }
    }

    fn judge(&self) -> Verdict {
        let last: Vec<_> = self.slots.iter().map(|slot| slot.last.clone()).collect();
        self.plan.judge(&last)
    }

    /// Waits until at least one child has pushed a verdict, and keeps it.
    async fn pushed(&mut self) {
        let mut waiting: Vec<_> = self
            .slots
            .iter_mut()
            .map(|slot| {
                slot.check
                    .as_mut()
                    .map(|check| Guarded::of(|| check.changed()))
            })
            .collect();
        let pushed = poll_fn(|context| {
            let mut pushed = Vec::new();
            for (index, wait) in waiting.iter_mut().enumerate() {
                let Some(wait) = wait else { continue };
                if let Poll::Ready(ended) = Pin::new(wait).poll(context) {
                    pushed.push((index, ended));
                }
            }
            if pushed.is_empty() {
                Poll::Pending
            } else {
                Poll::Ready(pushed)
            }
        })
        .await;
        drop(waiting);
        for (index, ended) in pushed {
            if let Some((slot, child)) =
                self.slots.get_mut(index).zip(self.plan.children.get(index))
            {
                slot.take(child, ended);
            }
        }
    }
}

#[async_trait]
impl HealthCheck for Combined {
    async fn check(&mut self, timeout: Duration) -> Verdict {
        let cut = Instant::now() + timeout + CUT;
        let part = timeout * 7 / 8;
        let children = self.plan.children.iter();
        let probes = self.slots.iter_mut().zip(children);
        all(probes.map(|(slot, child)| slot.probe(child, part, cut))).await;
        self.said = self.judge();
        self.said.clone()
    }

    async fn changed(&mut self) -> Verdict {
        loop {
            self.pushed().await;
            let whole = self.judge();
            if is_conclusive(&whole) || !alike(&whole, &self.said) {
                self.said = whole.clone();
                return whole;
            }
            tokio::time::sleep(PUSH_GAP).await;
        }
    }
}

const fn is_conclusive(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Unhealthy(_, Evidence::Conclusive))
}

/// Whether two verdicts differ at most in their reasons.
const fn alike(one: &Verdict, other: &Verdict) -> bool {
    match (one, other) {
        (Verdict::Healthy, Verdict::Healthy) | (Verdict::Unknown(_), Verdict::Unknown(_)) => true,
        (Verdict::Unhealthy(..), Verdict::Unhealthy(..)) => {
            is_conclusive(one) == is_conclusive(other)
        }
        (Verdict::Healthy | Verdict::Unhealthy(..) | Verdict::Unknown(_), _) => false,
    }
}

impl Slot {
    async fn probe(&mut self, child: &Child, part: Duration, cut: Instant) {
        if self.check.is_none() {
            match guarded(|| (child.build)()) {
                Ok(check) => self.check = Some(check),
                Err(panic) => return self.fail(child, format!("its building panicked: {panic}")),
            }
        }
        let Some(check) = self.check.as_mut() else {
            return;
        };
        let timeout = child.timeout.map_or(part, |own| own.min(part));
        let probe = Guarded::of(|| check.check(timeout));
        match tokio::time::timeout_at(cut, probe).await {
            Ok(ended) => self.take(child, ended),
            Err(_) => self.fail(
                child,
                "no answer within its time-out and a grace: it hung".to_owned(),
            ),
        }
    }

    fn take(&mut self, child: &Child, ended: Result<Verdict, String>) {
        match ended {
            Ok(verdict) => self.keep(child, verdict),
            Err(panic) => self.fail(child, format!("it panicked: {panic}")),
        }
    }

    /// The child itself failed: it is built afresh for the next probe.
    fn fail(&mut self, child: &Child, why: String) {
        let check = self.check.take();
        let _ = guarded(|| drop(check));
        self.keep(child, Verdict::unknown(why));
    }

    /// Logs what the whole may outweigh.
    fn keep(&mut self, child: &Child, verdict: Verdict) {
        self.last = verdict;
        let (check, now) = (&child.name, Instant::now().into_std());
        match self.episodes.hear(now, &self.last) {
            Some(Tell::Began { reason, untold }) => {
                tracing::warn!(%check, %reason, untold, "part of a check is unknown: the checker fails");
            }
            Some(Tell::Over { lasted }) => {
                tracing::info!(%check, verdict = %self.last, ?lasted, "part of a check is no longer unknown");
            }
            None => {}
        }
    }
}

type Verdicts<'a> = Pin<Box<dyn Future<Output = Verdict> + Send + 'a>>;

/// A child's future whose panic is an end like any other.
struct Guarded<'a> {
    future: Result<Verdicts<'a>, String>,
}

impl<'a> Guarded<'a> {
    fn of(start: impl FnOnce() -> Verdicts<'a>) -> Self {
        Self {
            future: guarded(start),
        }
    }
}

impl Future for Guarded<'_> {
    type Output = Result<Verdict, String>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let future = match &mut self.future {
            Ok(future) => future.as_mut(),
            Err(panic) => return Poll::Ready(Err(std::mem::take(panic))),
        };
        match guarded(|| future.poll(context)) {
            Ok(Poll::Ready(verdict)) => Poll::Ready(Ok(verdict)),
            Ok(Poll::Pending) => Poll::Pending,
            Err(panic) => Poll::Ready(Err(panic)),
        }
    }
}

impl Drop for Guarded<'_> {
    fn drop(&mut self) {
        let future = std::mem::replace(&mut self.future, Err(String::new()));
        let _ = guarded(|| drop(future));
    }
}

/// Runs a child's code. After a panic nothing of the child is used again but its destructor.
fn guarded<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|payload| {
        let text = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        text.unwrap_or("without a message").to_owned()
    })
}

/// Runs futures side by side until all have ended.
async fn all(futures: impl Iterator<Item = impl Future<Output = ()>>) {
    let mut running: Vec<_> = futures.map(Box::pin).collect();
    poll_fn(|context| {
        running.retain_mut(|future| future.as_mut().poll(context).is_pending());
        if running.is_empty() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}
