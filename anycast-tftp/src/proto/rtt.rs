//! How long to wait for an answer: RFC 6298, with the bounds of a protocol whose clients are
//! firmware.

use std::time::Duration;

/// Shortest wait. Firmware that writes flash between two blocks answers late; a shorter wait
/// would send it duplicates, which some boot ROMs do not survive.
pub const MIN_RTO: Duration = Duration::from_millis(250);

/// Wait before anything was measured (RFC 6298 §2.1).
pub const INITIAL_RTO: Duration = Duration::from_secs(1);

/// Longest wait after doubling, unless the client negotiated a longer `timeout`.
pub const MAX_RTO: Duration = Duration::from_secs(8);

/// The retransmission timeout of one transfer.
#[derive(Debug, Clone, Copy)]
pub struct Rto {
    smoothed: Option<Duration>,
    variation: Duration,
    minimum: Option<Duration>,
    floor: Duration,
    base: Duration,
    current: Duration,
    max: Duration,
}

impl Rto {
    /// Nothing measured yet. `timeout` is the value of the option that the client negotiated
    /// (RFC 2349), the interval between two sendings of a packet: no wait is shorter.
    #[must_use]
    pub fn new(timeout: Option<Duration>) -> Self {
        let floor = timeout.unwrap_or(MIN_RTO).max(MIN_RTO);
        Self {
            smoothed: None,
            variation: Duration::ZERO,
            minimum: None,
            floor,
            base: INITIAL_RTO,
            current: INITIAL_RTO.max(floor),
            max: MAX_RTO.max(floor),
        }
    }

    /// Takes a measurement (RFC 6298 §2.2, §2.3). Never of a packet that was sent twice
    /// (Karn): nobody knows which of the two was answered.
    pub fn measured(&mut self, round_trip: Duration) {
        let smoothed = match self.smoothed {
            None => {
                self.variation = round_trip / 2;
                round_trip
            }
            Some(smoothed) => {
                let off = smoothed.abs_diff(round_trip);
                self.variation = (self.variation * 3 + off) / 4;
                (smoothed * 7 + round_trip) / 8
            }
        };
        self.smoothed = Some(smoothed);
        self.minimum = Some(
            self.minimum
                .map_or(round_trip, |least| least.min(round_trip)),
        );
        self.base = (smoothed + self.variation * 4).clamp(MIN_RTO, self.max);
        self.current = self.base.max(self.floor);
    }

    /// Doubles the wait (RFC 6298 §5.5). It stays doubled until something was measured: an
    /// answer to a packet that was sent twice tells nothing about the round trip (Karn).
    pub fn timed_out(&mut self) {
        self.current = (self.current * 2).min(self.max);
    }

    /// The answer came, to another node: nothing is known to be lost, and nothing was measured.
    pub fn reset(&mut self) {
        self.current = self.base.max(self.floor);
    }

    /// How long to wait now.
    #[must_use]
    pub const fn current(&self) -> Duration {
        self.current
    }

    /// How long a round trip takes at most, as far as is known, whatever was negotiated.
    #[must_use]
    pub const fn base(&self) -> Duration {
        self.base
    }

    /// The shortest round trip that was measured. Those of windows include the time that the
    /// whole window took to travel; an answer to its first block comes sooner.
    #[must_use]
    pub const fn minimum(&self) -> Option<Duration> {
        self.minimum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn the_first_measurement_counts_whole_and_the_wait_doubles_to_its_bound() {
        let mut rto = Rto::new(None);
        assert_eq!(rto.current(), INITIAL_RTO);
        rto.measured(ms(200));
        assert_eq!(rto.current(), ms(600));
        for expected in [1200, 2400, 4800, 8000, 8000] {
            rto.timed_out();
            assert_eq!(rto.current(), ms(expected));
        }
        rto.measured(ms(200));
        assert_eq!(
            rto.current(),
            ms(500),
            "200 ms, and four times 75 ms of variation"
        );
    }

    #[test]
    fn a_steady_round_trip_converges_and_never_below_the_minimum() {
        let mut rto = Rto::new(None);
        for _ in 0..100 {
            rto.measured(ms(1));
        }
        assert_eq!(rto.current(), MIN_RTO);
        for _ in 0..100 {
            rto.measured(ms(900));
        }
        assert!((ms(900)..ms(1000)).contains(&rto.current()));
    }

    #[test]
    fn no_wait_is_shorter_than_a_negotiated_timeout() {
        let timeout = Duration::from_secs(5);
        let mut rto = Rto::new(Some(timeout));
        assert_eq!(rto.current(), timeout);
        for _ in 0..9 {
            rto.measured(ms(1));
        }
        assert_eq!((rto.current(), rto.base()), (timeout, MIN_RTO));
        rto.timed_out();
        assert_eq!(rto.current(), MAX_RTO);
        let mut patient = Rto::new(Some(Duration::from_secs(20)));
        patient.timed_out();
        assert_eq!(patient.current(), Duration::from_secs(20));
        assert_eq!(Rto::new(Some(ms(1))).current(), INITIAL_RTO);
    }

    #[test]
    fn the_shortest_round_trip_is_kept() {
        let mut rto = Rto::new(None);
        assert_eq!(rto.minimum(), None);
        for millis in [30, 10, 90] {
            rto.measured(ms(millis));
        }
        assert_eq!(rto.minimum(), Some(ms(10)));
    }
}
