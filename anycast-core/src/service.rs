//! Names and addresses: what is announced, and who announces it.
//!
//! Everything here is checked when it is built, so that no later code meets an
//! empty list, a multicast service address or a name with a line feed in it.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use ipnet::IpNet;

/// Longest service, node or check name, in bytes (a DNS label's limit).
pub const MAX_NAME_LEN: usize = 63;

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// The name is empty.
    #[error("a name must not be empty")]
    Empty,
    /// The name is longer than [`MAX_NAME_LEN`].
    #[error("the name is {len} bytes long; at most {MAX_NAME_LEN} are allowed")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// The name holds a character outside `a-z A-Z 0-9 . _ -`.
    #[error("{character:?} is not allowed in a name; use letters, digits, '.', '_' and '-'")]
    Character {
        /// The first such character.
        character: char,
    },
}

fn check_name(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > MAX_NAME_LEN {
        return Err(NameError::TooLong { len: name.len() });
    }
    let allowed = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    match name.chars().find(|c| !allowed(c)) {
        Some(character) => Err(NameError::Character { character }),
        None => Ok(()),
    }
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        ///
        /// One to [`MAX_NAME_LEN`] ASCII letters, digits, `.`, `_` or `-`. Cheap to clone.
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks and wraps a name.
            ///
            /// # Errors
            /// [`NameError`] when it is empty, too long or holds another character.
            pub fn new(name: &str) -> Result<Self, NameError> {
                check_name(name)?;
                Ok(Self(name.into()))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(name: &str) -> Result<Self, NameError> {
                Self::new(name)
            }
        }

        #[cfg(feature = "serde")]
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        #[cfg(feature = "serde")]
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let name = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                Self::new(&name).map_err(serde::de::Error::custom)
            }
        }
    };
}

name_type! {
    /// The name of a service, unique on its node: `tftp`, `dns`.
    ServiceName
}
name_type! {
    /// The name of a node, unique in the fleet and never derived from an address: `ams1`.
    NodeName
}
name_type! {
    /// The name of a health check, unique within its service.
    CheckName
}

/// Why a service address was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// Not `address/length`.
    #[error("{text:?} is not a prefix; write an address and its length, such as 192.0.2.69/32")]
    Malformed {
        /// What was given, cut to 64 characters.
        text: String,
    },
    /// A service address is one host.
    #[error("{prefix} is not a single address; a service address is a /32 (IPv4) or a /128 (IPv6)")]
    NotAHost {
        /// The prefix given.
        prefix: IpNet,
    },
    /// Unspecified, multicast, broadcast, link-local or IPv4-mapped.
    #[error("{address} cannot be a service address: it is {what}")]
    Unusable {
        /// The address given.
        address: IpAddr,
        /// Which kind it is.
        what: &'static str,
    },
    /// The list is empty. An empty list never means "remove all" (F10).
    #[error("the list of service addresses is empty; name at least one")]
    EmptyList,
    /// The list names one address twice.
    #[error("{address} is listed twice")]
    Duplicate {
        /// The address.
        address: ServiceAddress,
    },
}

/// The address of a service: one IPv4 /32 or IPv6 /128 that every site announces.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceAddress(IpAddr);

impl ServiceAddress {
    /// Checks an address.
    ///
    /// # Errors
    /// [`AddressError::Unusable`] for an address that no route can lead a client to.
    pub fn new(address: IpAddr) -> Result<Self, AddressError> {
        let what = match address {
            IpAddr::V4(v4) if v4.is_broadcast() => Some("the broadcast address"),
            IpAddr::V4(v4) if v4.is_link_local() => Some("link-local"),
            IpAddr::V6(v6) if v6.is_unicast_link_local() => Some("link-local"),
            IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => Some("an IPv4-mapped address"),
            IpAddr::V4(_) | IpAddr::V6(_) => None,
        }
        .or_else(|| {
            address
                .is_unspecified()
                .then_some("the unspecified address")
        })
        .or_else(|| address.is_multicast().then_some("multicast"));
        match what {
            Some(what) => Err(AddressError::Unusable { address, what }),
            None => Ok(Self(address)),
        }
    }

    /// The address itself.
    #[must_use]
    pub const fn ip(self) -> IpAddr {
        self.0
    }

    /// The prefix that is announced: /32 or /128.
    #[must_use]
    pub fn prefix(self) -> IpNet {
        IpNet::from(self.0)
    }
}

impl FromStr for ServiceAddress {
    type Err = AddressError;

    /// Reads `192.0.2.69/32` or `2001:db8::69/128`.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let prefix = IpNet::from_str(text).map_err(|_| AddressError::Malformed {
            text: text.chars().take(64).collect(),
        })?;
        if prefix.prefix_len() != prefix.max_prefix_len() {
            return Err(AddressError::NotAHost { prefix });
        }
        Self::new(prefix.addr())
    }
}

impl fmt::Display for ServiceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.prefix(), f)
    }
}

impl fmt::Debug for ServiceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for ServiceAddress {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for ServiceAddress {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// All addresses of one service: never empty, no address twice, sorted (IPv4 first).
///
/// IPv4 and IPv6 together are one change: a service is preferred or demoted with all
/// its addresses or with none. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ServiceAddresses(Arc<[ServiceAddress]>);

impl ServiceAddresses {
    /// Checks a list.
    ///
    /// # Errors
    /// [`AddressError::EmptyList`] or [`AddressError::Duplicate`].
    pub fn new(mut addresses: Vec<ServiceAddress>) -> Result<Self, AddressError> {
        if addresses.is_empty() {
            return Err(AddressError::EmptyList);
        }
        addresses.sort();
        if let Some(pair) = addresses.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(AddressError::Duplicate { address: pair[0] });
        }
        Ok(Self(addresses.into()))
    }

    /// The addresses in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = ServiceAddress> + '_ {
        self.0.iter().copied()
    }

    /// How many there are: at least one.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Whether the service has this address.
    #[must_use]
    pub fn contains(&self, address: ServiceAddress) -> bool {
        self.0.binary_search(&address).is_ok()
    }
}

impl fmt::Debug for ServiceAddresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter()).finish()
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for ServiceAddresses {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter())
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for ServiceAddresses {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let list = Vec::<ServiceAddress>::deserialize(deserializer)?;
        Self::new(list).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bounded_and_printable() {
        assert!(NodeName::new("ams1.example").is_ok());
        assert_eq!(NodeName::new(""), Err(NameError::Empty));
        assert_eq!(
            NodeName::new("a b"),
            Err(NameError::Character { character: ' ' })
        );
        assert_eq!(
            NodeName::new(&"x".repeat(64)),
            Err(NameError::TooLong { len: 64 })
        );
    }

    #[test]
    fn a_service_address_is_one_usable_host() {
        assert!("192.0.2.69/32".parse::<ServiceAddress>().is_ok());
        assert!("2001:db8::69/128".parse::<ServiceAddress>().is_ok());
        for bad in [
            "192.0.2.0/24",
            "192.0.2.69",
            "0.0.0.0/32",
            "224.0.0.1/32",
            "255.255.255.255/32",
            "169.254.1.1/32",
            "fe80::1/128",
            "ff02::1/128",
            "::/128",
            "::ffff:192.0.2.1/128",
            "192.0.2.69/33",
            "nonsense",
            "",
        ] {
            assert!(bad.parse::<ServiceAddress>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_list_is_never_empty_and_names_nothing_twice() {
        assert_eq!(ServiceAddresses::new(vec![]), Err(AddressError::EmptyList));
        let one: ServiceAddress = "192.0.2.69/32".parse().unwrap();
        assert_eq!(
            ServiceAddresses::new(vec![one, one]),
            Err(AddressError::Duplicate { address: one })
        );
    }
}
