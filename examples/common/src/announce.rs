//! The table `[announce]`.
//!
//! ```toml
//! [announce]  kind = "loopback" | "none", floor, dead_man, interface
//! ```

use std::path::Path;

use anycast_announce::kernel::KernelConfig;
use anycast_core::config::{ConfigError, Period, invalid};
use serde::Deserialize;

/// `[announce]` as it is written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnnounceTable {
    /// What announces. There is no default.
    pub kind: Option<AnnounceKind>,
    /// Whether the routing daemon holds a permanent route of low preference.
    pub floor: Option<bool>,
    /// How long the boost outlives the daemon. Default 5 s.
    pub dead_man: Option<Period>,
    /// Holds the permanent copies. Default `svc0`.
    pub interface: Option<String>,
}

/// `kind` in `[announce]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AnnounceKind {
    /// The kernel announcer.
    Loopback,
    /// Nothing.
    None,
}

/// How a service is announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Announce {
    /// By the kernel announcer.
    Loopback(KernelConfig),
    /// Not at all: the operator has set the addresses and announces them by other means.
    Nothing,
}

impl AnnounceTable {
    /// This table's keys, and for those that it lacks the keys of `defaults`.
    #[must_use]
    pub fn or(&self, defaults: &Self) -> Self {
        Self {
            kind: self.kind.or(defaults.kind),
            floor: self.floor.or(defaults.floor),
            dead_man: self.dead_man.or(defaults.dead_man),
            interface: self.interface.clone().or(defaults.interface.clone()),
        }
    }

    /// Checks the keys against each other. `table` is how the table is called in errors.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`].
    pub fn resolve(&self, path: &Path, table: &str) -> Result<Announce, ConfigError> {
        let invalid = |key, reason: &str| invalid(path, format!("{table} {key}"), reason);
        match self.kind {
            None => Err(invalid("kind", "is missing; set kind = \"loopback\"")),
            Some(AnnounceKind::None) => {
                let given = [
                    (self.floor.is_some(), "floor"),
                    (self.dead_man.is_some(), "dead_man"),
                    (self.interface.is_some(), "interface"),
                ];
                match given.into_iter().find(|(given, _)| *given) {
                    Some((_, key)) => Err(invalid(
                        key,
                        "has no effect with kind = \"none\"; remove it",
                    )),
                    None => Ok(Announce::Nothing),
                }
            }
            Some(AnnounceKind::Loopback) => self.loopback(&invalid).map(Announce::Loopback),
        }
    }

    fn loopback(
        &self,
        invalid: &impl Fn(&'static str, &str) -> ConfigError,
    ) -> Result<KernelConfig, ConfigError> {
        let Some(floor) = self.floor else {
            return Err(invalid(
                "floor",
                "is missing; set floor = true once the routing daemon holds a permanent \
                 low-preference route for each service address (see examples/routing)",
            ));
        };
        if !floor {
            return Err(invalid(
                "floor",
                "without a floor a demotion would withdraw the route; configure one on the \
                 routing daemon (see examples/routing) and set floor = true",
            ));
        }
        let mut config = KernelConfig::new(floor);
        if let Some(interface) = &self.interface {
            config = config
                .with_interface(interface)
                .map_err(|error| invalid("interface", &error.to_string()))?;
        }
        if let Some(dead_man) = self.dead_man {
            config = config
                .with_dead_man(dead_man.get())
                .map_err(|error| invalid("dead_man", &error.to_string()))?;
        }
        Ok(config)
    }
}
