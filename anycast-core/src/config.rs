//! The tables that every binary's TOML file shares, and how faults in it are told.
//!
//! A file is read into raw tables that deny unknown keys, so that a typo is a line of error
//! and not a silent default. What has a meaning of its own (names, addresses, durations) is
//! checked while it is read, which gives the error its line; what concerns several keys is
//! checked afterwards.

pub mod check;
mod policy;
mod source;

use std::fmt;
use std::num::{NonZeroU8, NonZeroU16, NonZeroU32};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;

pub use self::source::Source;

use crate::announce::Role;
use crate::machine::Identity;
use crate::service::{NodeName, ServiceAddresses, ServiceName};

/// Largest configuration file, in bytes.
pub const MAX_FILE: u64 = 1 << 20;
/// Longest time `on_stop = "keep"` may keep a boost: one day.
pub const MAX_KEEP_FOR: Duration = Duration::from_secs(86_400);

/// Why a configuration cannot be used. Each is one line that names file, key and remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: cannot be read: {source}; check the path and its permissions", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// The file is larger than [`MAX_FILE`] or is not a regular file.
    #[error("{}: {reason}", path.display())]
    NotAConfiguration {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// TOML syntax, an unknown key, a wrong type or a value out of range.
    #[error("{}:{line}:{column}: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What is wrong there.
        message: String,
    },
    /// Keys that do not fit together, or a value that this host cannot use.
    #[error("{}: {key}: {reason}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The key, as `[table] key`.
        key: String,
        /// What is wrong, and what to do.
        reason: String,
    },
}

/// Reads a file into tables.
///
/// # Errors
/// [`ConfigError`].
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    Source::read(path)?.tables()
}

/// Reads text into tables; `path` is for the errors.
///
/// # Errors
/// [`ConfigError::Syntax`].
pub fn parse<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, ConfigError> {
    source::tables(path, text)
}

/// A duration as an operator writes it: `500ms`, `5s`, `2h 30m`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period(Duration);

impl Period {
    /// Wraps a duration (a default).
    #[must_use]
    pub const fn new(duration: Duration) -> Self {
        Self(duration)
    }

    /// The duration.
    #[must_use]
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl fmt::Debug for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&humantime::format_duration(self.0), f)
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let duration = humantime::parse_duration(&text).map_err(|error| {
            serde::de::Error::custom(format!(
                "{text:?} is not a duration ({error}); write it as \"500ms\", \"5s\" or \"10m\""
            ))
        })?;
        Ok(Self(duration))
    }
}

/// The table `[node]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct NodeTable {
    /// Unique in the fleet.
    pub name: NodeName,
    /// The failure domain; default: the name.
    pub domain: Option<NodeName>,
    /// Where state that survives a restart is kept. Default `/var/lib/anycast`.
    #[serde(default = "default_state_dir")]
    pub state_dir: PathBuf,
    /// Where the node can be asked and steered; absent: nowhere.
    #[cfg(feature = "admin")]
    pub admin: Option<crate::admin::AdminConfig>,
    /// Where `/status` and `/healthz` are served; this build has no admin endpoint.
    #[cfg(not(feature = "admin"))]
    pub admin: Option<String>,
}

fn default_state_dir() -> PathBuf {
    PathBuf::from("/var/lib/anycast")
}

/// `role` in `[service]`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RoleKey {
    /// Takes traffic while preferred. The default.
    #[default]
    Primary,
    /// Takes traffic when no primary is preferred.
    Backup,
}

/// `fail_safe` in `[service]`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FailSafeKey {
    /// Never withdraw by itself. The default.
    #[default]
    Demote,
    /// Withdraw with the consent of peers, else demote.
    Withdraw,
}

/// `on_stop` in `[service]`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnStopKey {
    /// Keep the preference for `keep_for`.
    Keep,
    /// Demote. The default.
    #[default]
    Demote,
    /// Withdraw.
    Withdraw,
}

/// The table `[service]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ServiceTable {
    /// Unique on the node.
    pub name: ServiceName,
    /// At least one /32 or /128.
    pub addresses: ServiceAddresses,
    /// Default `primary`.
    #[serde(default)]
    pub role: RoleKey,
    /// Among backups, 1 comes before 2. Only with `role = "backup"`; default 1.
    pub rank: Option<NonZeroU8>,
    /// Default `demote`.
    #[serde(default)]
    pub fail_safe: FailSafeKey,
    /// Consecutive successes before a check counts as up. Default 3.
    pub rise: Option<NonZeroU32>,
    /// Consecutive failures before a check counts as down. Default 2.
    pub fall: Option<NonZeroU32>,
    /// Time without a failure before a check may rise. Default 5 s.
    pub hold_down: Option<Period>,
    /// Route changes at once before the update budget bites. Default 4, 2 to 1000.
    pub budget_burst: Option<NonZeroU32>,
    /// Time until one more is allowed. Default 6 min 14 s; 0 switches the budget off.
    pub budget_refill: Option<Period>,
    /// Falls within `flap_window` that park the service demoted. Default 3, at most 100; 0:
    /// never.
    pub flap_limit: Option<u16>,
    /// Default 10 min.
    pub flap_window: Option<Period>,
    /// How long a parked service has to be steady. Default 10 min.
    pub park_for: Option<Period>,
    /// Part of the fleet that may fail at once and be believed. Default 50; 100: all.
    pub panic_percent: Option<u8>,
    /// "At once". Default 30 s.
    pub panic_within: Option<Period>,
    /// Peers that must promise to stay before this node withdraws. Only with
    /// `fail_safe = "withdraw"`; default 1.
    pub min_peers: Option<NonZeroU16>,
    /// Default `demote`.
    #[serde(default)]
    pub on_stop: OnStopKey,
    /// How long `on_stop = "keep"` keeps the boost. Default 10 min, at most a day.
    pub keep_for: Option<Period>,
    /// For nodes of one cost: they join and leave one at a time. Absent: whenever they like.
    pub turns: Option<TurnsTable>,
}

/// The table `[service.turns]`.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct TurnsTable {
    /// For how long nothing may have changed in the fleet before the next change. Default 10 s, at
    /// most an hour.
    pub spacing: Option<Period>,
    /// How long what leaves, by an order or since its data are not ready, waits for its turn at
    /// most. Default 60 s, at most an hour; 0: it does not wait.
    pub leave_within: Option<Period>,
}

impl ServiceTable {
    /// What is decided for.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] for a `rank` without `role = "backup"`.
    pub fn identity(&self, path: &Path) -> Result<Identity, ConfigError> {
        let role = match (self.role, self.rank) {
            (RoleKey::Primary, None) => Role::Primary,
            (RoleKey::Backup, rank) => Role::Backup(rank.unwrap_or(NonZeroU8::MIN)),
            (RoleKey::Primary, Some(_)) => {
                return Err(invalid(
                    path,
                    "[service] rank",
                    "only backups are ranked; set role = \"backup\" or remove it",
                ));
            }
        };
        Ok(Identity {
            service: self.name.clone(),
            addresses: self.addresses.clone(),
            role,
        })
    }

    /// What happens to the announcement at an orderly stop.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] for a `keep_for` out of range or without `on_stop = "keep"`.
    #[cfg(feature = "node")]
    pub fn on_stop(&self, path: &Path) -> Result<crate::node::OnStop, ConfigError> {
        use crate::node::OnStop;
        const DEFAULT_KEEP_FOR: Duration = Duration::from_secs(600);
        const KEY: &str = "[service] keep_for";
        match (self.on_stop, self.keep_for.map(Period::get)) {
            (OnStopKey::Demote, None) => Ok(OnStop::Demote),
            (OnStopKey::Withdraw, None) => Ok(OnStop::Withdraw),
            (OnStopKey::Keep, keep_for) => {
                let keep_for = keep_for.unwrap_or(DEFAULT_KEEP_FOR);
                if keep_for < Duration::from_secs(1) || keep_for > MAX_KEEP_FOR {
                    return Err(invalid(path, KEY, "must be between 1s and 1day"));
                }
                Ok(OnStop::Keep(keep_for))
            }
            (OnStopKey::Demote | OnStopKey::Withdraw, Some(_)) => Err(invalid(
                path,
                KEY,
                "has no effect here; set on_stop = \"keep\" or remove it",
            )),
        }
    }
}

/// A [`ConfigError::Invalid`].
pub fn invalid(path: &Path, key: impl Into<String>, reason: impl Into<String>) -> ConfigError {
    ConfigError::Invalid {
        path: path.to_owned(),
        key: key.into(),
        reason: reason.into(),
    }
}

#[cfg(test)]
mod tests;
