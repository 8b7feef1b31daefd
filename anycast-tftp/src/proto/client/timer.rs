//! When to retransmit, and when to give up.

use std::time::{Duration, Instant};

/// Shortest interval: a receiver that repeats acknowledgements sooner than a server can
/// read from its disk wakes the Sorcerer's Apprentice in old servers.
const MIN: Duration = Duration::from_millis(250);
/// Longest interval, unless a longer time-out was agreed on.
const MAX: Duration = Duration::from_secs(8);

/// A retransmission timer after RFC 6298, with Karn's rule.
#[derive(Debug)]
pub(super) struct Timer {
    /// Interval before the first round trip is known.
    initial: Duration,
    /// Smoothed round trip and its variation.
    estimate: Option<(Duration, Duration)>,
    /// Never retransmit sooner: the agreed time-out.
    floor: Duration,
    /// Doublings in force. They stay until a round trip was measured.
    doublings: u32,
    /// Retransmissions since the last progress.
    pub(super) attempts: u32,
    /// When the packet was sent whose answer measures the round trip.
    sample: Option<Instant>,
    /// When the peer began to owe us an answer.
    since: Instant,
    /// When to retransmit; `None` while nothing is owed.
    pub(super) deadline: Option<Instant>,
}

impl Timer {
    pub(super) fn new(now: Instant, initial: Duration) -> Self {
        Self {
            initial,
            estimate: None,
            floor: MIN,
            doublings: 0,
            attempts: 0,
            sample: None,
            since: now,
            deadline: None,
        }
    }

    pub(super) fn set_floor(&mut self, floor: Duration) {
        self.floor = floor.max(MIN);
    }

    /// The interval in force.
    pub(super) fn interval(&self) -> Duration {
        let base = self.estimate.map_or(self.initial, |(mean, deviation)| {
            (mean + 4 * deviation).max(self.floor)
        });
        let doubled = base.saturating_mul(1 << self.doublings.min(16));
        doubled.min(MAX.max(self.floor))
    }

    /// Something new was sent that the peer must answer.
    pub(super) fn sent(&mut self, now: Instant) {
        if self.attempts == 0 {
            self.sample.get_or_insert(now);
            self.since = now;
        }
        self.deadline = Some(now + self.interval());
    }

    /// Something was sent again because the peer repeated itself. That moves neither the
    /// deadline nor the time since when the peer owes progress: a peer that does nothing else
    /// is given up. What it answers now measures nothing (Karn).
    pub(super) fn repeated(&mut self) {
        self.sample = None;
    }

    /// The peer's answer brought the transfer forward; more is expected from it.
    pub(super) fn progress(&mut self, now: Instant) {
        if let Some(sent) = self.sample.take() {
            self.measure(now.saturating_duration_since(sent));
            self.doublings = 0;
        }
        self.attempts = 0;
        self.since = now;
        self.deadline = Some(now + self.interval());
    }

    /// The deadline passed: doubles the interval and counts.
    pub(super) fn expired(&mut self, now: Instant) {
        self.sample = None;
        self.doublings += 1;
        self.attempts += 1;
        self.deadline = Some(now + self.interval());
    }

    /// Nothing is owed.
    pub(super) fn stop(&mut self) {
        self.deadline = None;
    }

    /// How long the peer has owed an answer.
    pub(super) fn silence(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }

    fn measure(&mut self, sample: Duration) {
        self.estimate = Some(match self.estimate {
            None => (sample, sample / 2),
            Some((mean, deviation)) => (
                (mean * 7 + sample) / 8,
                (deviation * 3 + mean.abs_diff(sample)) / 4,
            ),
        });
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::disallowed_methods,
        reason = "virtual time begins at an arbitrary instant"
    )]

    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const INITIAL: Duration = Duration::from_secs(1);

    #[test]
    fn the_interval_follows_the_round_trip_and_doubles() {
        let start = Instant::now();
        let mut timer = Timer::new(start, INITIAL);
        assert_eq!(timer.interval(), INITIAL);
        timer.sent(start);
        timer.progress(start + 100 * MS);
        assert_eq!(timer.interval(), 300 * MS);
        timer.sent(start + 100 * MS);
        timer.expired(start + 400 * MS);
        timer.expired(start + 1000 * MS);
        assert_eq!(timer.interval(), 1200 * MS);
        assert_eq!(timer.silence(start + 1000 * MS), 900 * MS);
        // Karn: an answer after a retransmission measures nothing.
        timer.progress(start + 1100 * MS);
        assert_eq!((timer.interval(), timer.attempts), (1200 * MS, 0));
        timer.sent(start + 1100 * MS);
        timer.progress(start + 1200 * MS);
        assert!(timer.interval() < 300 * MS);
    }

    #[test]
    fn the_interval_is_bounded() {
        let start = Instant::now();
        let mut timer = Timer::new(start, INITIAL);
        for _ in 0..100 {
            timer.expired(start);
        }
        assert_eq!(timer.interval(), MAX);
        timer.set_floor(Duration::from_secs(255));
        timer.progress(start);
        timer.sent(start);
        timer.progress(start + MS);
        assert_eq!(timer.interval(), Duration::from_secs(255));
    }
}
