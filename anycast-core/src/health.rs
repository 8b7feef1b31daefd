//! Health: what a check says, and the trait of everything that checks.

#[cfg(feature = "check-clock")]
pub mod clock;
#[cfg(feature = "node")]
pub mod combine;
#[cfg(feature = "check-disk")]
pub mod disk;
#[cfg(feature = "check-dns")]
pub mod dns;
#[cfg(feature = "check-exec")]
pub mod exec;
#[cfg(feature = "check-file")]
pub mod file;
#[cfg(feature = "check-http")]
pub mod http;
#[cfg(feature = "check-icmp")]
pub mod icmp;
#[cfg(any(
    feature = "check-exec",
    feature = "check-process",
    feature = "check-file",
    feature = "check-disk"
))]
mod local;
#[cfg(feature = "check-ntp")]
pub mod ntp;
#[cfg(any(
    feature = "check-tcp",
    feature = "check-http",
    feature = "check-dns",
    feature = "check-ntp",
    feature = "check-icmp"
))]
#[allow(dead_code, reason = "no one check uses all of it")]
pub mod probe;
#[cfg(feature = "check-process")]
pub mod process;
#[cfg(feature = "check-tcp")]
pub mod tcp;
#[cfg(feature = "node")]
pub(crate) mod unknown;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

/// Longest [`Reason`], in characters; longer text is cut.
pub const MAX_REASON_CHARS: usize = 256;

/// A human reason for a verdict or a state.
///
/// Bounded to [`MAX_REASON_CHARS`] and free of control characters, because parts of it
/// may come from the service under check: it ends up in logs and in `/status`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Reason(Arc<str>);

impl Reason {
    /// Cuts and cleans a text.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let clean = |c: char| if c.is_control() { ' ' } else { c };
        let text: String = text.chars().take(MAX_REASON_CHARS).map(clean).collect();
        Self(text.into())
    }

    /// The reason as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl From<&str> for Reason {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl From<String> for Reason {
    fn from(text: String) -> Self {
        Self::new(&text)
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for Reason {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for Reason {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        Ok(Self::new(&text))
    }
}

/// How much one failure proves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Evidence {
    /// One failed probe. It counts towards `fall`.
    Probe,
    /// The service is known to be gone (its process exited). It does not wait for `fall`.
    Conclusive,
}

/// How much a check's failure matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "lowercase")
)]
pub enum Severity {
    /// The service is not healthy while the check is down. The default.
    #[default]
    Critical,
    /// Reported, logged and counted; it never changes a level.
    Warning,
}

/// Builds a check: once at the start, and again after it panicked or hung.
///
/// It runs in the probe's own task, and must not block; what it opens belongs to the check.
/// The checks that it builds share nothing: one that hangs holds up no other.
pub type BuildCheck = Arc<dyn Fn() -> Box<dyn HealthCheck> + Send + Sync>;

/// What a check found. A reason is never empty: it says what was found, to an operator.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The service answered as it should.
    Healthy,
    /// The *service* failed: it was silent, refused, or answered wrongly.
    Unhealthy(Reason, Evidence),
    /// The *checker* failed: it could not spawn, ran out of file descriptors, panicked,
    /// starved or is misconfigured. This says nothing about the service and never changes
    /// a level (F2).
    Unknown(Reason),
}

impl Verdict {
    /// A failed probe.
    #[must_use]
    pub fn unhealthy(reason: impl Into<Reason>) -> Self {
        Self::Unhealthy(reason.into(), Evidence::Probe)
    }

    /// The service is known to be gone.
    #[must_use]
    pub fn gone(reason: impl Into<Reason>) -> Self {
        Self::Unhealthy(reason.into(), Evidence::Conclusive)
    }

    /// The checker itself failed.
    #[must_use]
    pub fn unknown(reason: impl Into<Reason>) -> Self {
        Self::Unknown(reason.into())
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Healthy => f.write_str("healthy"),
            Self::Unhealthy(reason, _) => write!(f, "unhealthy: {reason}"),
            Self::Unknown(reason) => write!(f, "unknown: {reason}"),
        }
    }
}

/// A health check of one service on this node.
///
/// Implement [`check`](Self::check); implement [`changed`](Self::changed) as well where the
/// service's death is learnt at once (a pidfd, a closed socket) and need not wait for the
/// next poll. Implementations may be mixed freely: the trait is object-safe.
///
/// **The rule that matters:** a service that is silent, refuses or answers wrongly is
/// [`Verdict::Unhealthy`]; a checker that cannot do its work is [`Verdict::Unknown`]. When in
/// doubt who failed, answer `Unknown`: it never lowers a route, a wrong `Unhealthy` does.
///
/// The node driver gives each check a task of its own. A check that panics, or does not
/// return by its time-out plus a grace, is `Unknown`, is reported, dropped and built afresh;
/// it delays no other check. Checks must not block the thread: blocking work belongs in
/// `spawn_blocking` or a process.
#[async_trait]
pub trait HealthCheck: Send {
    /// Probes the service once.
    ///
    /// - **Deadline**: answer within `timeout`, and call a service that has not answered by
    ///   then `Unhealthy`. The driver drops the future some time after `timeout` and records
    ///   `Unknown`, since then it was the checker that failed to keep its own deadline. A
    ///   time-out that the check itself notices late, because it was not run, says nothing
    ///   about the service: `Unknown`.
    /// - **Freshness**: each probe looks afresh; it never repeats what an earlier one found.
    /// - **Evidence**: silence and wrong answers are [`Evidence::Probe`]; only a death that is
    ///   known is [`Evidence::Conclusive`].
    /// - **Cancellation**: the future may be dropped at any await; the next call must work,
    ///   and a dropped probe leaves nothing open or running.
    /// - **Idempotence**: a probe must not change the service; it is repeated for ever.
    /// - **Errors** are verdicts; there is no other channel.
    async fn check(&mut self, timeout: Duration) -> Verdict;

    /// Waits until the check learns of a change by itself, and says what it learnt.
    ///
    /// The default waits for ever. Called between polls and dropped when the next poll is
    /// due, so it must be cancel-safe: a change that happened while nobody waited must be
    /// reported by the next call or be found by the next `check`. It counts as one verdict.
    async fn changed(&mut self) -> Verdict {
        std::future::pending().await
    }
}
