//! Waiting for a condition with a bound.

use std::time::{Duration, Instant};

use thiserror::Error;

/// How often a condition is looked at again.
const POLL: Duration = Duration::from_millis(50);

/// The condition did not come true in time.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
#[error("waited {waited:?} in vain for: {what}")]
pub struct TimedOut {
    /// What was waited for.
    pub what: String,
    /// How long.
    pub waited: Duration,
}

/// Look at `condition` every 50 ms until it holds, at most `within`. Answers
/// after how long it held.
///
/// The condition is looked at once more after the deadline, so that a machine
/// that stood still does not fail a condition that holds.
///
/// # Errors
/// [`TimedOut`], naming `what`.
pub fn eventually(
    within: Duration,
    what: &str,
    mut condition: impl FnMut() -> bool,
) -> Result<Duration, TimedOut> {
    let begun = Instant::now();
    loop {
        let last = begun.elapsed() >= within;
        if condition() {
            return Ok(begun.elapsed());
        }
        if last {
            return Err(TimedOut {
                what: what.to_owned(),
                waited: begun.elapsed(),
            });
        }
        std::thread::sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_that_comes_true_is_seen() {
        let mut looks = 0;
        let seen = eventually(Duration::from_secs(60), "third look", || {
            looks += 1;
            looks == 3
        });
        assert!(seen.is_ok());
    }

    #[test]
    fn a_condition_that_stays_false_times_out_by_name() {
        let failed = eventually(Duration::ZERO, "the impossible", || false);
        assert!(failed.unwrap_err().to_string().contains("the impossible"));
    }
}
