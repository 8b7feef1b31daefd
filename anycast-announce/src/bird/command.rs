//! What is said to BIRD: nothing that was not checked.
//!
//! Pure. A command is made of validated parts only, so that no name from a configuration can
//! become another command, and none is as long as the 1,023 bytes at which BIRD resets the
//! connection.

use std::fmt;

use anycast_core::service::ServiceAddress;

pub use super::look::Look;

/// The longest name that BIRD knows (`SYM_MAX_LEN`, less the final zero).
pub const MAX_NAME: usize = 63;

/// The name of a protocol, as it stands in BIRD's configuration.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Symbol(String);

/// Why a name cannot be one of BIRD's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// Empty, too long, or a character that BIRD does not allow.
    #[error(
        "{name:?} is no name of BIRD's: 1 to {MAX_NAME} of letters, digits and \"_-.:\", and no \
         digit first"
    )]
    Symbol {
        /// Its beginning.
        name: String,
    },
    /// A channel without its type.
    #[error("{name:?} is no channel: write PROTOCOL.ipv4 or PROTOCOL.ipv6")]
    Channel {
        /// Its beginning.
        name: String,
    },
}

fn shortened(name: &str) -> String {
    name.chars().take(MAX_NAME).collect()
}

impl Symbol {
    /// Checks a name.
    ///
    /// # Errors
    /// [`NameError::Symbol`].
    pub fn new(name: &str) -> Result<Self, NameError> {
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || "_-.:".contains(c);
        let begins_well = name.starts_with(|c: char| !c.is_ascii_digit());
        if begins_well && name.len() <= MAX_NAME && name.chars().all(is_allowed) {
            Ok(Self(name.to_owned()))
        } else {
            Err(NameError::Symbol {
                name: shortened(name),
            })
        }
    }

    /// As it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Symbol {
    /// Quoted where BIRD needs it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if self.0.chars().all(is_plain) {
            f.write_str(&self.0)
        } else {
            write!(f, "'{}'", self.0)
        }
    }
}

/// A channel of a protocol: what an export table belongs to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Channel {
    protocol: Symbol,
    is_v4: bool,
}

impl Channel {
    /// Reads `router4.ipv4`.
    ///
    /// # Errors
    /// [`NameError`].
    pub fn new(name: &str) -> Result<Self, NameError> {
        let channel = || NameError::Channel {
            name: shortened(name),
        };
        let (protocol, family) = name.rsplit_once('.').ok_or_else(channel)?;
        let is_v4 = match family {
            "ipv4" => true,
            "ipv6" => false,
            _ => return Err(channel()),
        };
        Ok(Self {
            protocol: Symbol::new(protocol)?,
            is_v4,
        })
    }

    /// The protocol that it belongs to.
    #[must_use]
    pub const fn protocol(&self) -> &Symbol {
        &self.protocol
    }

    /// Whether routes of this address's family pass through it.
    #[must_use]
    pub const fn carries(&self, address: ServiceAddress) -> bool {
        address.ip().is_ipv4() == self.is_v4
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = if self.is_v4 { "ipv4" } else { "ipv6" };
        write!(f, "{}.{family}", self.protocol)
    }
}

/// A command.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Command {
    /// What this channel has exported of this prefix: the Adj-RIB-Out.
    ShowExported(Channel, ServiceAddress),
    /// What this protocol of OSPF has in its link-state database, its own LSAs among it.
    ShowOspfState(Symbol),
    /// The state of a protocol.
    ShowProtocol(Symbol),
    /// The same, and all that is known of it.
    ShowProtocolAll(Symbol),
    /// Version, state, and when the configuration was loaded.
    ShowStatus,
    /// The value of a constant, as it was loaded.
    Eval(Symbol),
    /// Starts a protocol.
    Enable(Symbol),
    /// Stops a protocol, until somebody enables it or reads the configuration again.
    Disable(Symbol),
    /// Reads the configuration and says whether it could be loaded.
    ConfigureCheck,
    /// Loads the configuration. Never `soft`: that changes filters and exports nothing anew.
    Configure,
    /// Whether a configuration is still being carried out.
    ConfigureStatus,
    /// A question beside the announcer's.
    Look(Look),
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ShowExported(channel, address) => {
                let prefix = address.prefix();
                write!(f, "show route export table {channel} all {prefix}")
            }
            Self::ShowOspfState(name) => write!(f, "show ospf state {name}"),
            Self::ShowProtocol(name) => write!(f, "show protocols {name}"),
            Self::ShowProtocolAll(name) => write!(f, "show protocols all {name}"),
            Self::ShowStatus => f.write_str("show status"),
            Self::Eval(name) => write!(f, "eval {name}"),
            Self::Enable(name) => write!(f, "enable {name}"),
            Self::Disable(name) => write!(f, "disable {name}"),
            Self::ConfigureCheck => f.write_str("configure check"),
            Self::Configure => f.write_str("configure"),
            Self::ConfigureStatus => f.write_str("configure status"),
            Self::Look(look) => look.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_that_would_be_commands_are_refused() {
        for bad in [
            "",
            "a b",
            "a\ndisable all",
            "a;b",
            "\"*\"",
            "'a'",
            "1a",
            "é",
            "a\0",
            "all*",
        ] {
            assert!(Symbol::new(bad).is_err(), "{bad:?}");
        }
        assert!(Symbol::new(&"a".repeat(MAX_NAME)).is_ok());
        assert!(Symbol::new(&"a".repeat(MAX_NAME + 1)).is_err());
    }

    #[test]
    fn commands_are_as_bird_reads_them() {
        let channel = Channel::new("router4.ipv4").unwrap();
        let address = "192.0.2.69/32".parse().unwrap();
        assert!(channel.carries(address));
        assert!(!channel.carries("2001:db8::69/128".parse().unwrap()));
        assert_eq!(
            Command::ShowExported(channel, address).to_string(),
            "show route export table router4.ipv4 all 192.0.2.69/32"
        );
        let odd = Symbol::new("router-4").unwrap();
        assert_eq!(Command::Disable(odd).to_string(), "disable 'router-4'");
        for bad in ["router4", "router4.ipv5", ".ipv4", "a b.ipv4"] {
            assert!(Channel::new(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_name_never_ends_its_line_and_is_short(name in "\\PC{0,80}") {
            if let Ok(symbol) = Symbol::new(&name) {
                let command = Command::Enable(symbol).to_string();
                prop_assert!(command.len() < 200);
                prop_assert!(command.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
                prop_assert!(!command.contains(['"', ';', '\\']));
            }
        }
    }
}
