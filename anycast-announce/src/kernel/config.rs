//! What the operator chooses about the kernel announcer.

use std::time::Duration;

/// Longest interface name, in bytes (the kernel's IFNAMSIZ less the final zero).
pub const MAX_INTERFACE_LEN: usize = 15;

/// The interface that holds the permanent copies when nothing else is configured.
pub const DEFAULT_INTERFACE: &str = "svc0";

/// The IFA_PROTO (Linux 5.18) of every address that the kernel announcer made.
///
/// The kernel knows 0 to 3 and leaves the rest to user space; the number is used by none of
/// the routing protocols numbered in `rtnetlink.h`.
pub const ADDRESS_PROTOCOL: u8 = 172;

/// The default dead-man time.
///
/// The driver renews at a third of it, so two renewals may be lost before the boost expires,
/// and a dead controller demotes its node within 5 s, which a TFTP or DHCP client bridges
/// with its own retries.
pub const DEFAULT_DEAD_MAN: Duration = Duration::from_secs(5);

/// The shortest dead-man time: the kernel counts whole seconds, and a renewal must fit in.
pub const MIN_DEAD_MAN: Duration = Duration::from_secs(2);

/// The longest dead-man time.
pub const MAX_DEAD_MAN: Duration = Duration::from_secs(3600);

/// The longest time for which a boost outlives its controller under
/// [`Lifetime::Keep`](anycast_core::announce::Lifetime::Keep); a longer one is cut to this,
/// so that no configuration amounts to "for ever".
pub const MAX_KEEP: Duration = Duration::from_secs(7 * 24 * 3600);

/// Why a configuration of the kernel announcer was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KernelConfigError {
    /// The name cannot be an interface of ours.
    #[error("{name:?} cannot be the service interface: {reason}")]
    Interface {
        /// The name given, cut to 64 characters.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The dead-man time is out of range.
    #[error("a dead-man time of {given:?} is not possible; choose whole seconds from 2 s to 1 h")]
    DeadMan {
        /// The time given.
        given: Duration,
    },
}

/// The configuration of a [`KernelAnnouncer`](super::KernelAnnouncer).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelConfig {
    floor: bool,
    interface: String,
    dead_man: Duration,
}

impl KernelConfig {
    /// A configuration with [`DEFAULT_INTERFACE`] and [`DEFAULT_DEAD_MAN`].
    ///
    /// `floor` says whether the routing daemon holds a permanent route of low preference for
    /// the same prefix, in its own configuration. With a floor, losing the boost demotes;
    /// without one it withdraws. It has no default, because only the operator knows.
    #[must_use]
    pub fn new(floor: bool) -> Self {
        Self {
            floor,
            interface: DEFAULT_INTERFACE.to_owned(),
            dead_man: DEFAULT_DEAD_MAN,
        }
    }

    /// Chooses the interface that holds the permanent copies, created when it is absent.
    ///
    /// # Errors
    /// [`KernelConfigError::Interface`] when the kernel would not take the name, or when it
    /// is `lo`, which holds the boost.
    pub fn with_interface(mut self, name: &str) -> Result<Self, KernelConfigError> {
        let reason = match name {
            "" => Some("it is empty"),
            "lo" => Some("lo holds the boost; the permanent copy must be elsewhere"),
            "." | ".." | "all" | "default" => Some("the name is reserved"),
            _ if name.len() > MAX_INTERFACE_LEN => Some("it is longer than 15 bytes"),
            _ if !name.chars().all(allowed_in_name) => {
                Some("use letters, digits, '.', '_' and '-'")
            }
            _ => None,
        };
        if let Some(reason) = reason {
            return Err(KernelConfigError::Interface {
                name: name.chars().take(64).collect(),
                reason,
            });
        }
        name.clone_into(&mut self.interface);
        Ok(self)
    }

    /// Chooses the dead-man time: whole seconds, [`MIN_DEAD_MAN`] to [`MAX_DEAD_MAN`].
    ///
    /// # Errors
    /// [`KernelConfigError::DeadMan`] for any other time.
    pub fn with_dead_man(mut self, dead_man: Duration) -> Result<Self, KernelConfigError> {
        let in_range = (MIN_DEAD_MAN..=MAX_DEAD_MAN).contains(&dead_man);
        if !in_range || dead_man.subsec_nanos() != 0 {
            return Err(KernelConfigError::DeadMan { given: dead_man });
        }
        self.dead_man = dead_man;
        Ok(self)
    }

    /// Whether the routing daemon holds a floor.
    #[must_use]
    pub const fn floor(&self) -> bool {
        self.floor
    }

    /// The interface that holds the permanent copies.
    #[must_use]
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// The dead-man time.
    #[must_use]
    pub const fn dead_man(&self) -> Duration {
        self.dead_man
    }
}

fn allowed_in_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_names_are_what_the_kernel_takes() {
        for good in ["svc0", "svc-a.1", "a", "abcdefghijklmno"] {
            assert!(
                KernelConfig::new(true).with_interface(good).is_ok(),
                "{good}"
            );
        }
        for bad in [
            "",
            "lo",
            ".",
            "..",
            "all",
            "default",
            "abcdefghijklmnop",
            "a b",
            "a/b",
            "a%d",
            "é",
        ] {
            assert!(
                KernelConfig::new(true).with_interface(bad).is_err(),
                "{bad}"
            );
        }
    }

    #[test]
    fn the_dead_man_is_whole_seconds_in_range() {
        for good in [2, 5, 3600] {
            let time = Duration::from_secs(good);
            let config = KernelConfig::new(true).with_dead_man(time).unwrap();
            assert_eq!(config.dead_man(), time);
        }
        for bad in [0, 1_000, 1_999, 2_500, 3_600_001] {
            let time = Duration::from_millis(bad);
            assert!(
                KernelConfig::new(true).with_dead_man(time).is_err(),
                "{time:?}"
            );
        }
    }
}
