//! What BIRD has exported, read from `show route export table`. Pure and total.
//!
//! The export table is what was sent, not what the filter would send now: `show route export`
//! runs the filter again and prints what was never announced.

use anycast_core::service::ServiceAddress;

use super::reply::{Line, Reply};
use crate::attributes::{Attributes, Community};

/// `Network not found`: nothing is exported of this prefix.
const NOT_FOUND: u16 = 8001;

/// A syntax error, and with it every name that BIRD does not know.
const SYNTAX: u16 = 9001;

/// A line of a route: its prefix, or its next hop.
const ROUTE: u16 = 1007;

/// A line of attributes.
const ATTRIBUTES: u16 = 1012;

/// One exported route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// The protocol that the route is from: boost or floor.
    pub protocol: String,
    /// Its attributes.
    pub attributes: Attributes,
}

/// Why a reply says nothing about what is exported.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The channel keeps no export table.
    #[error(
        "the channel keeps no export table, so what was sent cannot be read back; add `export \
         table on;` to it"
    )]
    NoTable,
    /// The command failed otherwise.
    #[error("BIRD refused: {code} {text}")]
    Refused {
        /// BIRD's code.
        code: u16,
        /// BIRD's words.
        text: String,
    },
    /// A listing of OSPF's without this node's own LSAs.
    #[error("BIRD lists no router at distance 0, so not its own LSAs; is the protocol up?")]
    Itself,
    /// OSPF: the node originates it in another way too, or in no way that a preference changes.
    #[error(
        "this node originates {address} as \"{found}\" as well; a preference must show in one \
         external route alone"
    )]
    Ambiguous {
        /// The address.
        address: ServiceAddress,
        /// BIRD's words.
        found: String,
    },
    /// The reply is not about this prefix.
    #[error("BIRD's answer has no route of {0}")]
    Other(ServiceAddress),
}

/// The route of `address` in the reply to
/// [`Command::ShowExported`](super::command::Command::ShowExported). None: not exported.
///
/// # Errors
/// [`ExportError`].
pub fn exported(reply: &Reply, address: ServiceAddress) -> Result<Option<Exported>, ExportError> {
    match reply.code() {
        NOT_FOUND => return Ok(None),
        // The words are the only difference between this and a wrong name.
        SYNTAX if reply.last_text().starts_with("No export table") => {
            return Err(ExportError::NoTable);
        }
        code if reply.is_error() => {
            return Err(ExportError::Refused {
                code,
                text: reply.last_text().to_owned(),
            });
        }
        _ => {}
    }
    let prefix = address.prefix().to_string();
    let mut lines = reply.lines().iter();
    let protocol = lines
        .find_map(|line| protocol_of(line, &prefix))
        .ok_or(ExportError::Other(address))?;
    let mut attributes = Attributes::default();
    for line in lines {
        match line.code {
            ATTRIBUTES => read_attribute(&line.text, &mut attributes),
            // Another route begins at the left margin; next hops are indented.
            ROUTE if !line.text.starts_with(['\t', ' ']) => break,
            _ => {}
        }
    }
    Ok(Some(Exported {
        protocol,
        attributes,
    }))
}

/// The protocol in `192.0.2.69/32  unicast [anycast_boost 13:08:22.665] * (240)`.
fn protocol_of(line: &Line, prefix: &str) -> Option<String> {
    let rest = line.text.strip_prefix(prefix)?;
    if line.code != ROUTE || !rest.starts_with([' ', '\t']) {
        return None;
    }
    let (_, inside) = rest.split_once('[')?;
    inside.split([' ', ']']).next().map(str::to_owned)
}

/// `BGP.local_pref: 200` (BIRD 2) or `bgp_local_pref: 200` (BIRD 3), indented.
fn read_attribute(line: &str, attributes: &mut Attributes) {
    let Some((name, value)) = line.trim().split_once(':') else {
        return;
    };
    let value = value.trim();
    attributes.shown += 1;
    match name.to_ascii_lowercase().replace('.', "_").as_str() {
        "bgp_local_pref" => attributes.local_pref = value.parse().ok(),
        "bgp_med" => attributes.med = value.parse().ok(),
        "bgp_path" | "bgp_as_path" => {
            attributes.path_length = value.split_whitespace().count();
        }
        "bgp_community" => attributes.communities = communities(value),
        _ => {}
    }
}

/// `(65535,0) (65000,7)`.
fn communities(value: &str) -> Vec<Community> {
    let one = |text: &str| {
        let (high, low) = text.strip_prefix('(')?.strip_suffix(')')?.split_once(',')?;
        Some(Community(high.parse().ok()?, low.parse().ok()?))
    };
    value.split_whitespace().filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::super::reply::ReplyParser;
    use super::super::reply::tests::reply;
    use super::*;
    use proptest::prelude::*;

    fn service() -> ServiceAddress {
        "192.0.2.69/32".parse().unwrap()
    }

    /// As BIRD 2.0.12 prints it.
    const BOOST: &str = "1007-Table export:\n 192.0.2.69/32        unicast [anycast_boost 13:08:22.665] * (240)\n \tdev lo\n1008-\tType: device univ\n1012-\tBGP.local_pref: 200\n \tBGP.med: 7\n \tBGP.as_path: 65000 65000\n \tBGP.community: (65535,0) (65000,7)\n0000 \n";

    #[test]
    fn an_exported_route_is_read_with_its_attributes() {
        let route = exported(&reply(BOOST), service()).unwrap().unwrap();
        assert_eq!(route.protocol, "anycast_boost");
        assert_eq!(route.attributes.local_pref, Some(200));
        assert_eq!(route.attributes.med, Some(7));
        assert_eq!(route.attributes.path_length, 2);
        assert_eq!(route.attributes.shown, 4);
        assert_eq!(
            route.attributes.communities,
            [Community(65535, 0), Community(65000, 7)]
        );
    }

    #[test]
    fn bird_3_writes_attributes_otherwise() {
        let text = BOOST.replace("BGP.", "bgp_");
        let route = exported(&reply(&text), service()).unwrap().unwrap();
        assert_eq!(route.attributes.local_pref, Some(200));
    }

    #[test]
    fn attributes_of_the_next_route_are_not_taken() {
        let two = "1007-Table export:\n 192.0.2.69/32 unicast [floor 1] * (180)\n1008-\tType: x\n1007-192.0.2.6/32 unicast [b 1] (1)\n1012-\tBGP.local_pref: 7\n0000 \n";
        let route = exported(&reply(two), service()).unwrap().unwrap();
        assert_eq!(route.attributes.local_pref, None);
        // One prefix is not another that begins alike.
        let other: ServiceAddress = "192.0.2.6/32".parse().unwrap();
        assert_eq!(
            exported(&reply(two), other)
                .unwrap()
                .unwrap()
                .attributes
                .local_pref,
            Some(7)
        );
    }

    #[test]
    fn nothing_exported_is_told_from_not_known() {
        let none = exported(&reply("8001 Network not found\n"), service());
        assert_eq!(none, Ok(None));
        let no_table = reply("9001 No export table in channel r4b.ipv4\n");
        assert_eq!(exported(&no_table, service()), Err(ExportError::NoTable));
        let unknown = reply("9001 Channel r4.ipv6 not found\n");
        let said = exported(&unknown, service()).unwrap_err().to_string();
        assert_eq!(said, "BIRD refused: 9001 Channel r4.ipv6 not found");
        // An empty listing is no proof that nothing is exported.
        let empty = exported(&reply("0000 \n"), service());
        assert_eq!(empty, Err(ExportError::Other(service())));
    }

    proptest! {
        #[test]
        fn nothing_panics(lines in proptest::collection::vec("(1007|1012|1008)[- ](192.0.2.69/32)?\\PC{0,40}", 0..12)) {
            let mut parser = ReplyParser::new();
            let text = format!("{}\n0000 \n", lines.join("\n"));
            if parser.handle_bytes(text.as_bytes()).is_ok() {
                while let Some(reply) = parser.poll_reply() {
                    let _ = exported(&reply, service());
                }
            }
        }
    }
}
