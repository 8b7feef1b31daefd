//! The tables `[[check]]` of every binary: kinds, times, severities, combinators.
//!
//! ```toml
//! [[check]]                 # [[service.check]] where a file has several services
//! kind = "http"
//! name = "web"              # unique within the service; default: the kind
//! interval = "1s"           # 100ms to 1h; default 1s
//! timeout = "500ms"         # 10ms up to the interval; default 500ms or the interval
//! recheck = "250ms"         # 10ms up to the interval; default a quarter of it, from 100ms up
//! severity = "critical"     # or "warning": reported, never lowers
//! port = 80                 # from here on the kind's own keys
//! ```
//!
//! Some kinds are made of others, up to [`MAX_DEPTH`] deep; what each says is in
//! [`combine`](crate::health::combine):
//!
//! ```toml
//! [[check]]
//! kind = "quorum"           # all, any, quorum (at_least), weighted (threshold), not (of one)
//! name = "upstreams"
//! at_least = 2
//! of = [                    # kind, name, timeout, with "weighted" weight; the kind's own keys
//!     { kind = "tcp", port = 53 },
//!     { kind = "dns", query = "example.net", timeout = "200ms" },
//!     { kind = "not", of = [ { kind = "file", path = "/run/maintenance" } ] },
//! ]
//! ```
//!
//! A table is read in two steps, because which keys it may hold depends on its kind, and which
//! kinds there are on the binary. First the file is read with its checks as [`CheckTable`]s,
//! which hold every key with its place; then [`checks`] hands each to its kind in [`Kinds`].
//! Unknown keys are refused in both steps, and every fault names file, line, column, check and,
//! where there is one, the key.
//!
//! A kind of one's own is a table and a function:
//!
//! ```
//! # use std::{path::Path, sync::Arc, time::Duration};
//! use anycast_core::config::Source;
//! use anycast_core::config::check::{CheckContext, CheckTable, Kinds, checks};
//! use anycast_core::{HealthCheck, Verdict};
//! # struct Always;
//! # #[async_trait::async_trait]
//! # impl HealthCheck for Always {
//! #     async fn check(&mut self, _: Duration) -> Verdict { Verdict::Healthy }
//! # }
//!
//! #[derive(serde::Deserialize)]
//! #[serde(deny_unknown_fields)]
//! struct PoolTable {
//!     minimum: u32,
//! }
//!
//! #[derive(serde::Deserialize)]
//! #[serde(deny_unknown_fields)]
//! struct File {
//!     check: Vec<CheckTable>,
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let kinds = Kinds::built_in().with("pool", |table: &PoolTable, _context| {
//!     if table.minimum == 0 {
//!         return Err("minimum: must be at least 1".to_owned());
//!     }
//!     Ok(Arc::new(|| Box::new(Always) as Box<dyn HealthCheck>))
//! });
//! let source = Source::new(Path::new("d.toml"), "[[check]]\nkind = \"pool\"\nminimum = 0\n");
//! let file: File = source.tables()?;
//! # let (node, service) = ("ams1".parse()?, "dhcp".parse()?);
//! # let addresses = anycast_core::ServiceAddresses::new(vec!["192.0.2.67/32".parse()?])?;
//! let context = CheckContext { node: &node, service: &service, addresses: &addresses };
//! let error = checks(&source, &file.check, &context, &kinds).unwrap_err();
//! assert_eq!(error.to_string(), "d.toml:3:1: [[check]] pool minimum: must be at least 1");
//! # Ok(())
//! # }
//! ```

#[cfg(feature = "node")]
mod compose;
#[cfg(feature = "node")]
mod kinds;
#[cfg(feature = "node")]
mod table;
#[cfg(test)]
#[cfg(feature = "node")]
mod tests;
#[cfg(feature = "node")]
mod value;

use std::time::Duration;

#[cfg(feature = "node")]
pub use self::compose::MAX_DEPTH;
#[cfg(feature = "node")]
pub use self::kinds::Kinds;
#[cfg(feature = "node")]
pub use self::table::CheckTable;

use super::Period;
use crate::service::{NodeName, ServiceAddresses, ServiceName};

/// What a check is built for; every kind's table gets it.
#[derive(Debug, Clone, Copy)]
pub struct CheckContext<'a> {
    /// This node.
    pub node: &'a NodeName,
    /// The service under check.
    pub service: &'a ServiceName,
    /// Its addresses: a check over a network probes each of them unless its table says
    /// otherwise.
    pub addresses: &'a ServiceAddresses,
}

/// When a check runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckTimes {
    /// Time between the starts of two probes.
    pub interval: Duration,
    /// Time for the service to answer one.
    pub timeout: Duration,
    /// Time between the starts of two probes after the first failure.
    pub recheck: Duration,
}

/// A time that is out of its range: the key, and what it must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {reason}")]
pub struct TimesError {
    /// `interval`, `timeout` or `recheck`.
    pub key: &'static str,
    /// Its range.
    pub reason: &'static str,
}

impl CheckTimes {
    /// Default interval: 1 s.
    pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(1);
    /// Default time-out: 500 ms, or the interval where that is shorter.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_millis(500);
    /// Least default of the time between re-checks, which is otherwise a quarter of the
    /// interval, and at most the interval: often enough that `fall` = 2 is reached a quarter
    /// interval after the first failure, seldom enough to be no load.
    pub const LEAST_DEFAULT_RECHECK: Duration = Duration::from_millis(100);

    /// Checks them against each other and their ranges: interval 100 ms to 1 h, time-out and
    /// re-check 10 ms up to the interval.
    ///
    /// # Errors
    /// [`TimesError`].
    pub fn new(
        interval: Option<Period>,
        timeout: Option<Period>,
        recheck: Option<Period>,
    ) -> Result<Self, TimesError> {
        const LEAST: Duration = Duration::from_millis(10);
        let interval = interval.map_or(Self::DEFAULT_INTERVAL, Period::get);
        let timeout = timeout.map_or(Self::DEFAULT_TIMEOUT.min(interval), Period::get);
        let often = (interval / 4).max(Self::LEAST_DEFAULT_RECHECK);
        let recheck = recheck.map_or(often.min(interval), Period::get);
        if !(Duration::from_millis(100)..=Duration::from_secs(3600)).contains(&interval) {
            return Err(TimesError {
                key: "interval",
                reason: "must be between 100ms and 1h",
            });
        }
        let within = LEAST..=interval;
        for (key, time) in [("timeout", timeout), ("recheck", recheck)] {
            if !within.contains(&time) {
                return Err(TimesError {
                    key,
                    reason: "must be between 10ms and the check's interval",
                });
            }
        }
        Ok(Self {
            interval,
            timeout,
            recheck,
        })
    }
}

/// Builds what the tables describe, in their order.
///
/// An empty list is no fault here: whether a service may go without checks is the binary's to
/// say.
///
/// # Errors
/// [`ConfigError`](super::ConfigError): an unknown kind or one that this build lacks, an
/// unknown key, a wrong type, a value out of range, or two checks of one name.
#[cfg(feature = "node")]
pub fn checks(
    source: &super::Source,
    tables: &[CheckTable],
    context: &CheckContext<'_>,
    kinds: &Kinds<'_>,
) -> Result<Vec<crate::node::CheckSpec>, super::ConfigError> {
    let mut specs: Vec<crate::node::CheckSpec> = Vec::with_capacity(tables.len());
    for table in tables {
        let spec = table
            .spec(context, kinds)
            .map_err(|fault| source.fault(fault.at, &fault.to_string()))?;
        if specs.iter().any(|other| other.name == spec.name) {
            let name = spec.name;
            return Err(source.fault(
                table.place_of("name"),
                &format!(
                    "[[check]] name: two checks are called {name}; give each a name of its own"
                ),
            ));
        }
        specs.push(spec);
    }
    Ok(specs)
}
