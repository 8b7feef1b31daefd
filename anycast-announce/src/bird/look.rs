//! Questions to BIRD that change nothing, beside those of the announcer.

use std::fmt;
use std::net::IpAddr;

use super::command::Symbol;

/// A question.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Look {
    /// Every protocol with its channels.
    Protocols,
    /// Every route of a prefix, with its attributes.
    Routes(IpAddr, u8),
    /// The same, as a filter would leave them.
    Filtered(IpAddr, u8, Symbol),
    /// The BFD sessions.
    Bfd,
    /// What an OSPF instance knows.
    OspfState(Symbol),
}

impl fmt::Display for Look {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Protocols => f.write_str("show protocols all"),
            Self::Routes(ip, length) => write!(f, "show route all {ip}/{length}"),
            Self::Filtered(ip, length, filter) => {
                write!(f, "show route all {ip}/{length} filter {filter}")
            }
            Self::Bfd => f.write_str("show bfd sessions"),
            Self::OspfState(name) => write!(f, "show ospf state all {name}"),
        }
    }
}
