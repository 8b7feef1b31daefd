//! How far a peer's wall clock is from this node's. Pure.
//!
//! As NTP does it (RFC 5905, section 8): a question leaves at `t1`, comes at `t2`, its answer
//! leaves at `t3` and comes at `t4`; the offset is `((t2 - t1) + (t3 - t4)) / 2`, and wrong by at
//! most half of what the way there and back took. Of the last [`SAMPLES`] the quickest counts.

use std::collections::VecDeque;
use std::time::Duration;

/// So many questions are remembered.
pub const SAMPLES: usize = 8;

/// What is known of a peer's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offset {
    /// What to add to this node's clock, in microseconds, to have the peer's.
    pub micros: i64,
    /// How much that may be off.
    pub error: Duration,
}

/// The samples of one connection.
#[derive(Debug, Clone, Default)]
pub(super) struct Samples(VecDeque<Sample>);

#[derive(Debug, Clone, Copy)]
struct Sample {
    round_trip: i64,
    offset: i64,
}

impl Samples {
    /// The four times, in microseconds; the outer two by this node's clock. What no clock that
    /// runs forward can show is ignored.
    pub(super) fn add(&mut self, left: i64, received: i64, sent: i64, came: i64) {
        let took = came.checked_sub(left);
        let held = sent.checked_sub(received).filter(|held| *held >= 0);
        let round_trip = took
            .zip(held)
            .and_then(|(took, held)| took.checked_sub(held));
        let there = received.checked_sub(left);
        let back = sent.checked_sub(came);
        let twice = there
            .zip(back)
            .and_then(|(there, back)| there.checked_add(back));
        let (Some(round_trip @ 0..), Some(twice)) = (round_trip, twice) else {
            return;
        };
        if self.0.len() == SAMPLES {
            self.0.pop_front();
        }
        let offset = twice / 2;
        self.0.push_back(Sample { round_trip, offset });
    }

    pub(super) fn offset(&self) -> Option<Offset> {
        let best = self.0.iter().min_by_key(|sample| sample.round_trip)?;
        Some(Offset {
            micros: best.offset,
            error: Duration::from_micros(best.round_trip.unsigned_abs() / 2),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_quickest_of_the_last_counts() {
        let mut samples = Samples::default();
        assert_eq!(samples.offset(), None);
        // 5 s ahead; 1 ms each way, then 1 ms there and 21 back.
        samples.add(0, 5_001_000, 5_001_000, 2_000);
        samples.add(0, 5_001_000, 5_001_000, 22_000);
        let offset = samples.offset().unwrap();
        assert_eq!(offset.micros, 5_000_000);
        assert_eq!(offset.error, Duration::from_millis(1));
        for _ in 0..SAMPLES {
            samples.add(0, 5_001_000, 5_001_000, 22_000);
        }
        assert_eq!(samples.offset().unwrap().error, Duration::from_millis(11));
    }

    proptest! {
        #[test]
        fn the_true_offset_is_within_the_error(
            offset in -1_000_000_000i64..1_000_000_000,
            rounds in prop::collection::vec((0i64..1_000_000, 0i64..1_000_000, 0i64..1_000_000), 1..20),
        ) {
            let mut samples = Samples::default();
            let mut now = 1_700_000_000_000_000;
            for (there, held, back) in rounds {
                let received = now + there + offset;
                let came = now + there + held + back;
                samples.add(now, received, received + held, came);
                now = came;
            }
            let found = samples.offset().unwrap();
            let error = i64::try_from(found.error.as_micros()).unwrap() + 1;
            prop_assert!((found.micros - offset).abs() <= error);
        }

        #[test]
        fn no_times_make_it_panic(a in any::<i64>(), b in any::<i64>(), c in any::<i64>(), d in any::<i64>()) {
            let mut samples = Samples::default();
            samples.add(a, b, c, d);
            let _ = samples.offset();
        }
    }
}
