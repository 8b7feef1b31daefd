//! What exit codes mean.

use std::fmt;
use std::ops::RangeInclusive;

/// What an exit code means for the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It works.
    Healthy,
    /// It failed.
    Unhealthy,
    /// The command could not tell.
    Unknown,
}

/// A meaning for each exit code, and one for death by a signal.
///
/// The default is in the table of the [module](super).
#[derive(Clone, PartialEq, Eq)]
pub struct ExitCodes {
    by_code: [Outcome; 256],
    by_signal: Outcome,
}

impl Default for ExitCodes {
    fn default() -> Self {
        let mut by_code = [Outcome::Unknown; 256];
        for (code, outcome) in by_code.iter_mut().enumerate() {
            *outcome = match code {
                0 => Outcome::Healthy,
                1 | 2 | 4..=125 => Outcome::Unhealthy,
                _ => Outcome::Unknown,
            };
        }
        Self {
            by_code,
            by_signal: Outcome::Unknown,
        }
    }
}

impl ExitCodes {
    /// Gives the codes of a range a meaning.
    #[must_use]
    pub fn with(mut self, codes: RangeInclusive<u8>, outcome: Outcome) -> Self {
        for code in codes {
            self.by_code[usize::from(code)] = outcome;
        }
        self
    }

    /// Gives death by a signal a meaning. Default [`Outcome::Unknown`].
    #[must_use]
    pub const fn with_signals(mut self, outcome: Outcome) -> Self {
        self.by_signal = outcome;
        self
    }

    /// What a code means.
    #[must_use]
    pub fn of_code(&self, code: i32) -> Outcome {
        usize::try_from(code)
            .ok()
            .and_then(|code| self.by_code.get(code))
            .copied()
            .unwrap_or(Outcome::Unknown)
    }

    /// What death by a signal means.
    #[must_use]
    pub const fn of_signal(&self) -> Outcome {
        self.by_signal
    }

    /// Whether any code means `outcome`.
    #[cfg(feature = "config")]
    pub(super) fn any(&self, outcome: Outcome) -> bool {
        self.by_code.contains(&outcome)
    }
}

impl fmt::Debug for ExitCodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let codes = |wanted: Outcome| -> Vec<usize> {
            let codes = self.by_code.iter().enumerate();
            codes
                .filter(|(_, outcome)| **outcome == wanted)
                .map(|(code, _)| code)
                .collect()
        };
        f.debug_struct("ExitCodes")
            .field("healthy", &codes(Outcome::Healthy))
            .field("unhealthy", &codes(Outcome::Unhealthy))
            .field("signals", &self.by_signal)
            .finish_non_exhaustive()
    }
}
