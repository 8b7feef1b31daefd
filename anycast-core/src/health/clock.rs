//! The check `clock`: whether the kernel's clock is synchronised.
//!
//! The kernel keeps an upper bound of its clock's error: whoever disciplines the clock (chrony,
//! ntpd, systemd-timesyncd) sets it, and it grows by 0.5 ms a second until the next
//! measurement. At 16 s the kernel gives up and calls the clock unsynchronised, as it is after
//! the boot and after the clock was set by hand. This check reads that bound (`adjtimex`
//! without changing anything; needs no privilege).
//!
//! | what was found | verdict |
//! |---|---|
//! | a bound below 16 s and below `max_error` | `Healthy` |
//! | a larger one | `Unhealthy` |
//! | the kernel refuses to say | `Unknown` |
//!
//! The flag STA_UNSYNC is not looked at, only shown: chrony leaves it set unless it has the
//! directive `rtcsync`, also while the clock is exact.
//!
//! **Proof.** What the local time daemon believes. A daemon that believes a wrong server is
//! not found out; the check `ntp` against an independent server would. After the daemon dies
//! the bound takes up to nine hours to reach 16 s; with `max_error = "100ms"` it is minutes.
//!
//! In a container the clock is the host's, and readable. A systemd unit with `ProtectClock=yes`
//! must not read it: then the verdict is `Unknown`.

mod kernel;
#[cfg(feature = "config")]
mod table;

use std::time::Duration;

use async_trait::async_trait;

#[cfg(feature = "config")]
pub use table::ClockTable;

use super::{HealthCheck, Verdict};
use kernel::Clock;

/// Where the kernel gives up (`NTP_PHASE_LIMIT`).
const LIMIT: Duration = Duration::from_secs(16);

/// The check `clock`. See the [module](self).
#[derive(Debug, Clone, Copy, Default)]
pub struct ClockCheck {
    max_error: Option<Duration>,
}

impl ClockCheck {
    /// A check that the clock is synchronised at all.
    #[must_use]
    pub const fn new() -> Self {
        Self { max_error: None }
    }

    /// The upper bound of its error must not exceed this.
    #[must_use]
    pub const fn with_max_error(mut self, error: Duration) -> Self {
        self.max_error = Some(error);
        self
    }

    fn judge(self, clock: Clock) -> Verdict {
        if clock.max_error >= LIMIT {
            return Verdict::unhealthy(
                "the clock is not synchronised; look after the time daemon (chronyc tracking, \
                 timedatectl)",
            );
        }
        match self.max_error {
            Some(limit) if clock.max_error > limit => Verdict::unhealthy(format!(
                "the clock may be off by {:?}, more than {limit:?} (estimated: {:?}; flag \
                 STA_UNSYNC: {})",
                clock.max_error,
                clock.estimated_error,
                if clock.unsync { "set" } else { "clear" },
            )),
            Some(_) | None => Verdict::Healthy,
        }
    }
}

#[async_trait]
impl HealthCheck for ClockCheck {
    async fn check(&mut self, _: Duration) -> Verdict {
        match kernel::read() {
            Ok(clock) => self.judge(clock),
            Err(error) => Verdict::unknown(format!(
                "the kernel does not say whether its clock is synchronised: {error}; is this \
                 unit under ProtectClock=yes?"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock(max_error: Duration, unsync: bool) -> Clock {
        Clock {
            max_error,
            estimated_error: Duration::from_micros(7),
            unsync,
        }
    }

    fn says(check: ClockCheck, clock: Clock) -> String {
        check.judge(clock).to_string()
    }

    #[test]
    fn the_kernels_bound_decides() {
        let check = ClockCheck::new();
        let healthy = clock(Duration::from_millis(15_999), false);
        assert_eq!(check.judge(healthy), Verdict::Healthy);
        let said = says(check, clock(LIMIT, true));
        assert!(said.starts_with("unhealthy: the clock is not"), "{said}");
        // Chrony without rtcsync.
        let exact = clock(Duration::from_millis(2), true);
        assert_eq!(check.judge(exact), Verdict::Healthy);
    }

    #[test]
    fn a_smaller_bound_can_be_demanded() {
        let check = ClockCheck::new().with_max_error(Duration::from_millis(100));
        let good = clock(Duration::from_millis(100), false);
        assert_eq!(check.judge(good), Verdict::Healthy);
        let said = says(check, clock(Duration::from_millis(101), false));
        assert!(said.contains("off by 101ms, more than 100ms"), "{said}");
    }

    #[tokio::test]
    async fn the_real_kernel_answers_and_is_not_changed() {
        let before = kernel::read().unwrap();
        let verdict = ClockCheck::new().check(Duration::from_secs(1)).await;
        assert!(!matches!(verdict, Verdict::Unknown(_)), "{verdict}");
        let after = kernel::read().unwrap();
        assert_eq!(before.unsync, after.unsync);
        assert!(after.max_error <= LIMIT, "{after:?}");
    }
}
