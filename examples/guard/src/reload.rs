//! Reading the configuration again, and what is in force of it.
//!
//! A reload is taken whole or refused whole. It is refused, in one line and with the old
//! configuration left in force, when
//!
//! - the file cannot be read, has a typo, an empty list or keys that do not fit together;
//! - it changes what only a restart can change: a node's name, a service's addresses, role,
//!   `on_stop` or `announce`, a service that is new, a capability that was dropped. (A
//!   restart under `on_stop = "keep"` moves no route either);
//! - a service is absent: to leave one out does not mean to drain it. A service goes by
//!   `state = "removed"`, which demotes it; the next file may leave it out, and it stays
//!   demoted.
//!
//! What an operator orders outranks the file. When that ends or is lifted, what the file says
//! stands again: an undrain does not raise what the file has removed.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use anycast_core::ServiceName;
use anycast_core::config::ConfigError;
use anycast_core::health::Reason;
use anycast_core::intent_store::OrderKind;
use anycast_core::node::{NodeError, NodeHandle, StandingOrder};
use serde::Serialize;

use crate::config::{Config, Service};

/// Who has ordered what follows from the file.
const BY: &str = "the configuration";
const REMOVED: &str = "state = \"removed\" in the configuration";

/// Why a reload was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReloadError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("{}: {key}: only a restart can change this", file.display())]
    Restart { file: PathBuf, key: String },
    #[error(
        "{}: [[service]] {}: is not there; to leave a service out does not remove it: say \
         state = \"removed\" in its table first, which demotes it",
        file.display(), names.join(", ")
    )]
    LeftOut { file: PathBuf, names: Vec<String> },
    #[error(transparent)]
    Node(#[from] NodeError),
    #[error("{}: it could not be read: {reason}", file.display())]
    Died { file: PathBuf, reason: String },
}

/// The section `configuration` of `/status`.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct InForce {
    /// The file.
    file: PathBuf,
    /// When what is in force was read, in UTC.
    loaded_at: String,
    /// The services that are to be guarded.
    services: usize,
    /// Those that are drained because the file says that they are removed.
    removed: Vec<ServiceName>,
    /// Why the last reload was refused; null when it was not.
    error: Option<Refused>,
    /// 1 while `error` is there, for `/metrics`.
    last_reload_refused: u8,
}

#[derive(Debug, Clone, Serialize)]
struct Refused {
    /// When, in UTC.
    at: String,
    reason: String,
}

/// The keys of the section whose numbers can fall.
pub(crate) const GAUGES: &[&str] = &["services", "last_reload_refused"];

/// What is in force, for `/status`. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Shown(Arc<Mutex<InForce>>);

impl Shown {
    pub(crate) fn new(file: &Path, config: &Config) -> Self {
        Self(Arc::new(Mutex::new(InForce::new(file, config))))
    }

    pub(crate) fn get(&self) -> InForce {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Whether the last reload was refused.
    pub(crate) fn is_refused(&self) -> bool {
        let shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        shown.error.is_some()
    }

    fn set(&self, result: Result<InForce, &ReloadError>) {
        let mut shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(in_force) => *shown = in_force,
            Err(error) => {
                shown.error = Some(Refused {
                    at: now(),
                    reason: error.to_string(),
                });
                shown.last_reload_refused = 1;
            }
        }
    }
}

impl InForce {
    fn new(file: &Path, config: &Config) -> Self {
        let removed = config.services.iter().filter(|service| service.is_removed);
        Self {
            file: file.to_owned(),
            loaded_at: now(),
            services: config.services.len(),
            removed: removed.map(|service| service.name().clone()).collect(),
            error: None,
            last_reload_refused: 0,
        }
    }
}

fn now() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}

/// Reads the file again, and logs and shows the outcome.
pub(crate) async fn reload(file: &Path, config: &mut Config, node: &NodeHandle, shown: &Shown) {
    match attempt(file, config, node).await {
        Ok(new) => {
            tracing::info!(file = %file.display(), services = new.services.len(), "configuration reloaded");
            shown.set(Ok(InForce::new(file, &new)));
            *config = new;
        }
        Err(error) => {
            tracing::error!(%error, "reload refused; the old configuration stays in force");
            shown.set(Err(&error));
        }
    }
}

async fn attempt(file: &Path, old: &Config, node: &NodeHandle) -> Result<Config, ReloadError> {
    let path = file.to_owned();
    let new = match tokio::task::spawn_blocking(move || Config::load(&path)).await {
        Ok(loaded) => loaded?,
        Err(error) => {
            return Err(ReloadError::Died {
                file: file.to_owned(),
                reason: error.to_string(),
            });
        }
    };
    compare(file, old, &new)?;
    for service in &new.services {
        let checks = service.checks.clone();
        node.reconfigure(service.name(), service.policy, checks)
            .await?;
    }
    for service in &new.services {
        node.set_standing(service.name(), standing(service)).await?;
    }
    Ok(new)
}

/// Refuses what only a restart can change, and services that were left out.
fn compare(file: &Path, old: &Config, new: &Config) -> Result<(), ReloadError> {
    if let Some(key) = old.needs_restart(new) {
        return Err(ReloadError::Restart {
            file: file.to_owned(),
            key,
        });
    }
    let left_out = old.left_out(new);
    if !left_out.is_empty() {
        return Err(ReloadError::LeftOut {
            file: file.to_owned(),
            names: left_out.into_iter().map(ToString::to_string).collect(),
        });
    }
    Ok(())
}

/// What the file orders of a service.
pub(crate) fn standing(service: &Service) -> StandingOrder {
    let removal = (OrderKind::Demote, Reason::new(REMOVED));
    StandingOrder {
        by: Reason::new(BY),
        order: service.is_removed.then_some(removal),
    }
}
