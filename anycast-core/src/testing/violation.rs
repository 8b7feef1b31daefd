//! What the suites share.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

/// A rule that the implementation breaks.
#[derive(Debug, thiserror::Error)]
#[error("{rule}: {found}")]
pub struct Violation {
    /// The rule.
    pub rule: &'static str,
    /// What was found instead.
    pub found: String,
}

pub(super) const fn violated(rule: &'static str, found: String) -> Violation {
    Violation { rule, found }
}

pub(super) fn ensure(
    holds: bool,
    rule: &'static str,
    found: impl FnOnce() -> String,
) -> Result<(), Violation> {
    if holds {
        Ok(())
    } else {
        Err(violated(rule, found()))
    }
}

/// Polls so often, then drops. True when it ended before that.
pub(super) async fn cut(polls: usize, future: impl Future) -> bool {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(false);
        }
        if future.as_mut().poll(cx).is_ready() {
            return Poll::Ready(true);
        }
        left -= 1;
        if left == 0 {
            Poll::Ready(false)
        } else {
            Poll::Pending
        }
    })
    .await
}
