//! Where the admin endpoint listens, and who may give orders there.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

/// Most addresses that one node listens on.
pub const MAX_LISTENERS: usize = 4;
/// Mode of a Unix socket when nothing is said: its owner (and root) alone.
pub const SOCKET_MODE: u32 = 0o600;
/// Mode of a Unix socket when a group is named and no mode.
pub const GROUP_SOCKET_MODE: u32 = 0o660;

/// An address of the admin endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminAddress {
    /// A loopback address and port, such as `127.0.0.1:9180`. Port 0 picks a free one.
    Tcp(SocketAddr),
    /// A Unix socket, written `unix:/run/anycast/ams1.sock`.
    Unix(PathBuf),
}

/// Why the settings of an admin endpoint were refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AdminAddressError {
    /// Neither form.
    #[error("{text:?} is neither a loopback address such as 127.0.0.1:9180 nor unix:/PATH")]
    Malformed {
        /// What was given.
        text: String,
    },
    /// It would be open to the network.
    #[error(
        "{address} is not a loopback address; the admin endpoint is never open beyond this host"
    )]
    NotLoopback {
        /// What was given.
        address: SocketAddr,
    },
    /// None, or more than [`MAX_LISTENERS`].
    #[error("{count} addresses are named to listen on; name one to {MAX_LISTENERS}")]
    Count {
        /// How many.
        count: usize,
    },
    /// The same one twice.
    #[error("{address} is named twice")]
    Twice {
        /// Which.
        address: AdminAddress,
    },
    /// No octal mode, or one that lets everybody in.
    #[error(
        "mode {text:?} cannot be used; write it as \"0600\" or \"0660\": whoever may write to the \
         socket may give orders, so that others than owner and group are never let in"
    )]
    Mode {
        /// What was given.
        text: String,
    },
    /// A key that only a Unix socket has a use for.
    #[error("{key} has no effect without a Unix socket in listen; add one or remove it")]
    NoSocket {
        /// The key.
        key: &'static str,
    },
    /// A token without a TCP address.
    #[error("token_file has no effect without a TCP address in listen; add one or remove it")]
    NoTcp,
    /// The token's path is relative.
    #[error("token_file {} is not an absolute path", path.display())]
    RelativeToken {
        /// What was given.
        path: PathBuf,
    },
}

impl FromStr for AdminAddress {
    type Err = AdminAddressError;

    fn from_str(text: &str) -> Result<Self, AdminAddressError> {
        let malformed = || AdminAddressError::Malformed {
            text: text.chars().take(128).collect(),
        };
        if let Some(path) = text.strip_prefix("unix:") {
            let path = PathBuf::from(path);
            return if path.is_absolute() {
                Ok(Self::Unix(path))
            } else {
                Err(malformed())
            };
        }
        let address: SocketAddr = text.parse().map_err(|_| malformed())?;
        if address.ip().is_loopback() {
            Ok(Self::Tcp(address))
        } else {
            Err(AdminAddressError::NotLoopback { address })
        }
    }
}

impl fmt::Display for AdminAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl<'de> Deserialize<'de> for AdminAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(Error::custom)
    }
}

impl Serialize for AdminAddress {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A user or group, by name or by number.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Principal {
    /// Its number.
    Id(u32),
    /// Its name, looked up in `/etc/passwd` or `/etc/group` when the socket is made.
    Name(String),
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "{id}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// Who may connect to a Unix socket.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct SocketAccess {
    mode: Option<u32>,
    pub(super) owner: Option<Principal>,
    pub(super) group: Option<Principal>,
}

impl SocketAccess {
    pub(super) fn mode(&self) -> u32 {
        let default = if self.group.is_some() {
            GROUP_SOCKET_MODE
        } else {
            SOCKET_MODE
        };
        self.mode.unwrap_or(default)
    }
}

/// The settings of an admin endpoint: `[node] admin`.
///
/// In a file, one address, a list of addresses, or a table:
///
/// ```toml
/// [node.admin]
/// listen = ["unix:/run/anycast/admin.sock", "127.0.0.1:9180"]
/// mode = "0660"                      # of the Unix socket; default 0600, with a group 0660
/// owner = "root"                     # default: who runs the node
/// group = "anycast"                  # default: theirs
/// token_file = "/etc/anycast/token"  # orders over TCP need it; absent: no orders over TCP
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminConfig {
    listen: Vec<AdminAddress>,
    access: SocketAccess,
    token_file: Option<PathBuf>,
}

impl AdminConfig {
    /// One address; a Unix socket has mode [`SOCKET_MODE`], TCP takes no orders.
    #[must_use]
    pub fn new(address: AdminAddress) -> Self {
        Self {
            listen: vec![address],
            access: SocketAccess::default(),
            token_file: None,
        }
    }

    /// These addresses.
    ///
    /// # Errors
    /// [`AdminAddressError::Count`] or [`AdminAddressError::Twice`].
    pub fn listening_on(listen: Vec<AdminAddress>) -> Result<Self, AdminAddressError> {
        let count = listen.len();
        if !(1..=MAX_LISTENERS).contains(&count) {
            return Err(AdminAddressError::Count { count });
        }
        for (index, address) in listen.iter().enumerate() {
            if listen[..index].contains(address) {
                return Err(AdminAddressError::Twice {
                    address: address.clone(),
                });
            }
        }
        Ok(Self {
            listen,
            access: SocketAccess::default(),
            token_file: None,
        })
    }

    /// The mode of the Unix socket. Whoever may write to it may give orders.
    ///
    /// # Errors
    /// [`AdminAddressError::Mode`] for one that lets others than owner and group in, or
    /// [`AdminAddressError::NoSocket`].
    pub fn with_mode(mut self, mode: u32) -> Result<Self, AdminAddressError> {
        if mode & !0o660 != 0 || mode == 0 {
            let text = format!("{mode:04o}");
            return Err(AdminAddressError::Mode { text });
        }
        self.needs_socket("mode")?;
        self.access.mode = Some(mode);
        Ok(self)
    }

    /// The owner of the Unix socket; only root can give it away.
    ///
    /// # Errors
    /// [`AdminAddressError::NoSocket`].
    pub fn with_owner(mut self, owner: Principal) -> Result<Self, AdminAddressError> {
        self.needs_socket("owner")?;
        self.access.owner = Some(owner);
        Ok(self)
    }

    /// The group of the Unix socket: one of the process's own, unless it is root.
    ///
    /// # Errors
    /// [`AdminAddressError::NoSocket`].
    pub fn with_group(mut self, group: Principal) -> Result<Self, AdminAddressError> {
        self.needs_socket("group")?;
        self.access.group = Some(group);
        Ok(self)
    }

    /// The file with the bearer token that orders over TCP need. It must be readable by its
    /// owner and group alone, and hold one line of 16 to 512 characters. It is read anew for
    /// each order, so that a token can be changed or revoked without a restart.
    ///
    /// # Errors
    /// [`AdminAddressError::NoTcp`] or [`AdminAddressError::RelativeToken`].
    pub fn with_token_file(mut self, path: PathBuf) -> Result<Self, AdminAddressError> {
        let is_tcp = |address: &AdminAddress| matches!(address, AdminAddress::Tcp(_));
        if !self.listen.iter().any(is_tcp) {
            return Err(AdminAddressError::NoTcp);
        }
        if !path.is_absolute() {
            return Err(AdminAddressError::RelativeToken { path });
        }
        self.token_file = Some(path);
        Ok(self)
    }

    /// Where it listens: at least one.
    #[must_use]
    pub fn addresses(&self) -> &[AdminAddress] {
        &self.listen
    }

    /// Where the token is kept.
    #[must_use]
    pub fn token_file(&self) -> Option<&Path> {
        self.token_file.as_deref()
    }

    pub(super) const fn access(&self) -> &SocketAccess {
        &self.access
    }

    fn needs_socket(&self, key: &'static str) -> Result<(), AdminAddressError> {
        let is_unix = |address: &AdminAddress| matches!(address, AdminAddress::Unix(_));
        if self.listen.iter().any(is_unix) {
            Ok(())
        } else {
            Err(AdminAddressError::NoSocket { key })
        }
    }
}

impl From<AdminAddress> for AdminConfig {
    fn from(address: AdminAddress) -> Self {
        Self::new(address)
    }
}

impl FromStr for AdminConfig {
    type Err = AdminAddressError;

    fn from_str(text: &str) -> Result<Self, AdminAddressError> {
        text.parse().map(Self::new)
    }
}

/// The table, as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    listen: Listen,
    mode: Option<String>,
    owner: Option<Principal>,
    group: Option<Principal>,
    token_file: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "an address or a list of addresses")]
enum Listen {
    One(String),
    Several(Vec<String>),
}

impl Table {
    fn check(self) -> Result<AdminConfig, AdminAddressError> {
        let listen = match self.listen {
            Listen::One(text) => vec![text.parse()?],
            Listen::Several(texts) => texts
                .iter()
                .map(|text| text.parse())
                .collect::<Result<_, _>>()?,
        };
        let mut config = AdminConfig::listening_on(listen)?;
        if let Some(text) = self.mode {
            match u32::from_str_radix(&text, 8) {
                Ok(mode) => config = config.with_mode(mode)?,
                Err(_) => return Err(AdminAddressError::Mode { text }),
            }
        }
        if let Some(owner) = self.owner {
            config = config.with_owner(owner)?;
        }
        if let Some(group) = self.group {
            config = config.with_group(group)?;
        }
        if let Some(path) = self.token_file {
            config = config.with_token_file(path)?;
        }
        Ok(config)
    }
}

impl<'de> Deserialize<'de> for AdminConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Forms;

        impl<'de> Visitor<'de> for Forms {
            type Value = AdminConfig;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an address, a list of addresses, or a table with the key listen")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<AdminConfig, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<AdminConfig, A::Error> {
                let listen = Vec::deserialize(SeqAccessDeserializer::new(list))?;
                AdminConfig::listening_on(listen).map_err(Error::custom)
            }

            fn visit_map<A: MapAccess<'de>>(self, table: A) -> Result<AdminConfig, A::Error> {
                let table = Table::deserialize(MapAccessDeserializer::new(table))?;
                table.check().map_err(Error::custom)
            }
        }

        deserializer.deserialize_any(Forms)
    }
}

#[cfg(test)]
mod tests;
