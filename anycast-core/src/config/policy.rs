//! The keys of a service's policy, and what they become.

use std::num::{NonZeroU16, NonZeroU32};
use std::path::Path;
use std::time::Duration;

use super::{ConfigError, FailSafeKey, Period, ServiceTable, TurnsTable, invalid};
use crate::machine::{
    Budget, FailSafe, FlapPolicy, PanicPolicy, Policy, TurnPolicy, WithdrawPolicy,
};

/// Longest of the times below: a week. None of them means anything beyond it.
const MAX_TIME: Duration = Duration::from_secs(7 * 86_400);
/// Longest of those of `[service.turns]`.
const MAX_TURN_TIME: Duration = Duration::from_secs(3600);

impl ServiceTable {
    /// Rise, fall, hold-down, budget, flapping, the fleet's panic threshold, turns, fail-safe.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] for a value out of range, or one that has no effect here.
    pub fn policy(&self, path: &Path) -> Result<Policy, ConfigError> {
        let default = Policy::default();
        let fail_safe = match (self.fail_safe, self.min_peers) {
            (FailSafeKey::Demote, None) => FailSafe::Demote,
            (FailSafeKey::Demote, Some(_)) => {
                return Err(invalid(
                    path,
                    "[service] min_peers",
                    "has no effect here; set fail_safe = \"withdraw\" or remove it",
                ));
            }
            (FailSafeKey::Withdraw, min_peers) => FailSafe::Withdraw(WithdrawPolicy {
                min_peers: min_peers.unwrap_or(NonZeroU16::MIN),
            }),
        };
        Ok(Policy {
            fail_safe,
            rise: self.rise.unwrap_or(default.rise),
            fall: self.fall.unwrap_or(default.fall),
            hold_down: time(path, "hold_down", self.hold_down, default.hold_down)?,
            budget: self.budget(path, default.budget)?,
            flap: self.flap(path, default.flap)?,
            panic: self.panic(path, default.panic)?,
            turns: self
                .turns
                .map(|table| turns(path, table, TurnPolicy::default()))
                .transpose()?,
        })
    }

    fn budget(&self, path: &Path, default: Budget) -> Result<Budget, ConfigError> {
        let burst = self.budget_burst.unwrap_or(default.burst);
        if burst < Budget::MIN_BURST || burst > NonZeroU32::MIN.saturating_add(999) {
            return Err(invalid(
                path,
                "[service] budget_burst",
                format!(
                    "is {burst}; at least 2 (one raise, and the demotion that is always left) \
                     and at most 1000"
                ),
            ));
        }
        let refill = time(path, "budget_refill", self.budget_refill, default.refill)?;
        Ok(Budget { burst, refill })
    }

    fn flap(&self, path: &Path, default: FlapPolicy) -> Result<FlapPolicy, ConfigError> {
        let limit = self.flap_limit.unwrap_or(default.limit);
        if limit > FlapPolicy::MAX_LIMIT {
            let most = FlapPolicy::MAX_LIMIT;
            let reason = format!("is {limit}; at most {most}, or 0 for never");
            return Err(invalid(path, "[service] flap_limit", reason));
        }
        Ok(FlapPolicy {
            limit,
            window: time(path, "flap_window", self.flap_window, default.window)?,
            park_for: time(path, "park_for", self.park_for, default.park_for)?,
        })
    }

    fn panic(&self, path: &Path, default: PanicPolicy) -> Result<PanicPolicy, ConfigError> {
        let percent = self.panic_percent.unwrap_or(default.percent);
        if percent > 100 {
            let reason = format!("is {percent}; a percentage, 100 for never");
            return Err(invalid(path, "[service] panic_percent", reason));
        }
        Ok(PanicPolicy {
            percent,
            within: time(path, "panic_within", self.panic_within, default.within)?,
            fresh_for: default.fresh_for,
        })
    }
}

fn turns(path: &Path, table: TurnsTable, default: TurnPolicy) -> Result<TurnPolicy, ConfigError> {
    let time = |key: &str, given: Option<Period>, default| {
        let time = given.map_or(default, Period::get);
        if time > MAX_TURN_TIME {
            let key = format!("[service.turns] {key}");
            return Err(invalid(path, key, "must be at most 1h"));
        }
        Ok(time)
    };
    Ok(TurnPolicy {
        spacing: time("spacing", table.spacing, default.spacing)?,
        leave_within: time("leave_within", table.leave_within, default.leave_within)?,
    })
}

fn time(
    path: &Path,
    key: &str,
    given: Option<Period>,
    default: Duration,
) -> Result<Duration, ConfigError> {
    let time = given.map_or(default, Period::get);
    if time > MAX_TIME {
        return Err(invalid(
            path,
            format!("[service] {key}"),
            "must be at most 7days",
        ));
    }
    Ok(time)
}
