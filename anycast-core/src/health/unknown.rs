//! When the log says that a checker failed, and when that it works again: at each change, not at
//! each probe.

use std::time::{Duration, Instant};

use super::{Reason, Verdict};

/// Least time between the end of one episode that was told and the beginning of the next, so
/// that a checker that fails every other time does not fill the log.
const QUIET: Duration = Duration::from_secs(60);

/// What is to be logged.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Tell<'a> {
    /// The check is `Unknown`.
    Began {
        /// Why.
        reason: &'a Reason,
        /// Episodes since the last that was told, and over before they could be.
        untold: u32,
    },
    /// It knows again.
    Over {
        /// For how long it did not.
        lasted: Duration,
    },
}

/// What one check was heard to say, as far as the log is concerned.
#[derive(Debug, Clone, Default)]
pub(crate) struct Episodes {
    unknown_since: Option<Instant>,
    /// The present episode is in the log.
    told: bool,
    told_last: Option<Instant>,
    untold: u32,
}

impl Episodes {
    pub(crate) fn hear<'a>(&mut self, now: Instant, verdict: &'a Verdict) -> Option<Tell<'a>> {
        match verdict {
            Verdict::Unknown(reason) => {
                self.unknown_since.get_or_insert(now);
                let recent = |last| now.saturating_duration_since(last) < QUIET;
                if self.told || self.told_last.is_some_and(recent) {
                    return None;
                }
                (self.told, self.told_last) = (true, Some(now));
                let untold = std::mem::take(&mut self.untold);
                Some(Tell::Began { reason, untold })
            }
            Verdict::Healthy | Verdict::Unhealthy(..) => {
                let since = self.unknown_since.take()?;
                if !std::mem::take(&mut self.told) {
                    self.untold = self.untold.saturating_add(1);
                    return None;
                }
                self.told_last = Some(now);
                let lasted = now.saturating_duration_since(since);
                Some(Tell::Over { lasted })
            }
        }
    }
}

#[cfg(test)]
#[allow(
    clippy::disallowed_methods,
    reason = "an arbitrary instant to count from"
)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// What is told of these verdicts, one a second: `B` and how many were not, `O` and seconds.
    fn told(verdicts: impl IntoIterator<Item = Verdict>) -> Vec<(u64, String)> {
        let (start, mut episodes) = (Instant::now(), Episodes::default());
        let mut all = Vec::new();
        for (second, verdict) in (0..).zip(verdicts) {
            match episodes.hear(start + SECOND * second, &verdict) {
                None => {}
                Some(Tell::Began { reason, untold }) => {
                    all.push((u64::from(second), format!("{reason} {untold}")));
                }
                Some(Tell::Over { lasted }) => {
                    all.push((u64::from(second), format!("over {}", lasted.as_secs())));
                }
            }
        }
        all
    }

    fn unknown(times: usize) -> Vec<Verdict> {
        let one = |number| Verdict::unknown(format!("try {number}"));
        (0..times).map(one).collect()
    }

    fn known(times: usize) -> Vec<Verdict> {
        vec![Verdict::unhealthy("no answer"); times]
    }

    #[test]
    fn an_episode_is_told_once_and_its_end_as_well() {
        let verdicts = [known(3), unknown(500), known(2), vec![Verdict::Healthy]].concat();
        let expected = [(3, "try 0 0"), (503, "over 500")];
        assert_eq!(told(verdicts), expected.map(|(at, s)| (at, s.to_owned())));
    }

    #[test]
    fn one_that_comes_and_goes_is_told_once_a_minute() {
        let pair = [unknown(1), known(1)].concat();
        let verdicts: Vec<_> = std::iter::repeat_n(pair, 150).flatten().collect();
        let expected = [
            (0, "try 0 0"),
            (1, "over 1"),
            (62, "try 0 30"),
            (63, "over 1"),
            (124, "try 0 30"),
            (125, "over 1"),
            (186, "try 0 30"),
            (187, "over 1"),
            (248, "try 0 30"),
            (249, "over 1"),
        ];
        assert_eq!(told(verdicts), expected.map(|(at, s)| (at, s.to_owned())));
    }

    #[test]
    fn one_that_begins_too_soon_and_lasts_is_told_later() {
        let verdicts = [unknown(1), known(1), unknown(100), known(1)].concat();
        let expected = [
            (0, "try 0 0"),
            (1, "over 1"),
            (61, "try 59 0"),
            (102, "over 100"),
        ];
        assert_eq!(told(verdicts), expected.map(|(at, s)| (at, s.to_owned())));
    }
}
