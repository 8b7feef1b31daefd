//! The update budget: how many route changes a service may cause (F4).

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

/// A token bucket over a service's automatic route changes; IPv4 and IPv6 together are one.
///
/// Every automatic change takes one token, but a *raise* happens only while two are left: the
/// last one is reserved, so that a demotion is never starved. What an operator orders happens
/// at once; it takes a token if there is one. What the kernel does by itself (a boost that
/// runs out) and asking again for what is already in force are free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Budget {
    /// Tokens of a full bucket, and of a new one: at least [`Budget::MIN_BURST`]; a smaller
    /// value counts as that. Default 4.
    pub burst: NonZeroU32,
    /// Time until one token comes back. Default 6 min 14 s: route flap damping (RFC 2439, as
    /// commonly configured: penalty 500 for an attribute change, suppressed at 2000, half-life
    /// 15 min) tolerates one change in that time for ever. Zero switches the budget off.
    pub refill: Duration,
}

impl Budget {
    /// Smallest burst: one token for a raise, and the reserved one.
    pub const MIN_BURST: NonZeroU32 = NonZeroU32::MIN.saturating_add(1);

    /// No limit.
    pub const OFF: Self = Self {
        burst: Self::MIN_BURST,
        refill: Duration::ZERO,
    };

    pub(super) fn full(&self) -> u32 {
        self.burst.max(Self::MIN_BURST).get()
    }
}

impl Default for Budget {
    fn default() -> Self {
        const BURST: NonZeroU32 = NonZeroU32::MIN.saturating_add(3);
        Self {
            burst: BURST,
            refill: Duration::from_secs(374),
        }
    }
}

/// The tokens left, and when the next one comes back.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Bucket {
    tokens: u32,
    /// When the token now being refilled began to; of no meaning while the bucket is full.
    from: Instant,
}

impl Bucket {
    pub(super) fn new(budget: &Budget, now: Instant) -> Self {
        Self {
            tokens: budget.full(),
            from: now,
        }
    }

    pub(super) const fn tokens(&self) -> u32 {
        self.tokens
    }

    pub(super) fn advance(&mut self, now: Instant, budget: &Budget) {
        let full = budget.full();
        if budget.refill.is_zero() {
            self.tokens = full;
        }
        while self.tokens < full {
            match self.from.checked_add(budget.refill) {
                Some(next) if next <= now => {
                    self.tokens += 1;
                    self.from = next;
                }
                Some(_) | None => break,
            }
        }
        self.tokens = self.tokens.min(full);
    }

    /// Whether a change that must leave the reserved token may happen.
    pub(super) const fn allows_raise(&self) -> bool {
        self.tokens >= 2
    }

    /// Takes a token if there is one.
    pub(super) fn spend(&mut self, now: Instant, budget: &Budget) {
        if budget.refill.is_zero() {
            return;
        }
        if self.tokens == budget.full() {
            self.from = now;
        }
        self.tokens = self.tokens.saturating_sub(1);
    }

    /// The same, told in other times, for a model check.
    #[cfg(test)]
    pub(super) fn retime(
        &mut self,
        now: Instant,
        budget: &Budget,
        to: &dyn Fn(Instant) -> Instant,
    ) {
        let full = self.tokens == budget.full();
        self.from = to(if full { now } else { self.from });
    }

    /// When a raise will be allowed; `None` when it is, or never will be.
    pub(super) fn raise_at(&self, budget: &Budget) -> Option<Instant> {
        let missing = 2u32
            .checked_sub(self.tokens)
            .filter(|missing| *missing > 0)?;
        self.from.checked_add(budget.refill.checked_mul(missing)?)
    }
}
