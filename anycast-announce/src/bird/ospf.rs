//! What BIRD originates by OSPF, read from `show ospf state`. Pure and total.
//!
//! OSPF has no Adj-RIB-Out: what a node says is in its own LSAs, which every router of the area
//! gets as they are. BIRD prints its link-state database as a list of routers for each area; the
//! one at distance 0 is this node. `show ospf lsadb` would say which LSAs there are, and no metric.
//!
//! A level is the metric of an external route. A node that originates the prefix otherwise as well
//! (a stub network, a summary, another metric in another area) is preferred for that, whatever the
//! external route says: so that means no level.

use anycast_core::service::ServiceAddress;

use super::export::ExportError;
use super::reply::Reply;
use crate::attributes::{Attributes, MetricType};

/// The route of `address` in the reply to
/// [`Command::ShowOspfState`](super::command::Command::ShowOspfState). None: this node originates
/// none.
///
/// # Errors
/// [`ExportError`]; [`ExportError::Ambiguous`] where it originates the prefix otherwise.
pub fn originated(
    reply: &Reply,
    address: ServiceAddress,
) -> Result<Option<Attributes>, ExportError> {
    if reply.is_error() {
        return Err(ExportError::Refused {
            code: reply.code(),
            text: reply.last_text().to_owned(),
        });
    }
    let prefix = address.prefix().to_string();
    let (mut knows_itself, mut is_ours) = (false, false);
    let mut found: Option<Attributes> = None;
    for line in reply.lines() {
        let words: Vec<_> = line.text.split_whitespace().collect();
        match words[..] {
            // The head of what somebody originates; with a metric, a link of theirs.
            ["area", _] | ["router" | "network", _] | ["other", ..] => is_ours = false,
            ["distance", "0"] => {
                is_ours = true;
                knows_itself = true;
            }
            [kind, listed, ..] if is_ours && listed == prefix => {
                let agreed = external(&words).filter(|metric| {
                    found
                        .as_ref()
                        .is_none_or(|route| route.ospf == Some(*metric))
                });
                let Some(metric) = agreed else {
                    return Err(ExportError::Ambiguous {
                        address,
                        found: format!("{kind} {}", words[2..].join(" ")),
                    });
                };
                found = Some(Attributes {
                    ospf: Some(metric),
                    ..Attributes::default()
                });
            }
            _ => {}
        }
    }
    if knows_itself {
        Ok(found)
    } else {
        // Without this node's own router LSA the listing proves nothing.
        Err(ExportError::Itself)
    }
}

/// `external 192.0.2.69/32 metric2 100`, `nssa-ext …`, with a forwarding address or not.
fn external(words: &[&str]) -> Option<(MetricType, u32)> {
    let ["external" | "nssa-ext", _, kind, metric, ..] = words else {
        return None;
    };
    let kind = match *kind {
        "metric" => MetricType::One,
        "metric2" => MetricType::Two,
        _ => return None,
    };
    Some((kind, metric.parse().ok()?))
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

    fn metric(text: &str) -> Option<(MetricType, u32)> {
        let found = originated(&reply(text), service()).unwrap();
        found.and_then(|route| route.ospf)
    }

    /// As BIRD 2.0.12 prints it, with another site before and after.
    const STATE: &str = "1016-\n area 0.0.0.0\n \n \trouter 10.0.0.1\n \t\tdistance 1000\n \t\trouter 10.0.0.2 metric 10\n \t\texternal 192.0.2.69/32 metric2 7\n \n \trouter 10.0.0.2\n \t\tdistance 0\n \t\trouter 10.0.0.1 metric 1000\n \t\texternal 192.0.2.6/32 metric2 1\n \t\texternal 192.0.2.69/32 metric2 10000\n \n \trouter 10.0.0.3\n \t\tdistance 1010\n \t\texternal 192.0.2.69/32 metric2 8\n0000 \n";
    const OURS: &str = "external 192.0.2.69/32 metric2 10000";

    #[test]
    fn of_all_who_originate_a_route_this_node_is_read() {
        assert_eq!(metric(STATE), Some((MetricType::Two, 10_000)));
        for (other, kind) in [
            ("external 192.0.2.69/32 metric 10000", MetricType::One),
            (
                "nssa-ext 192.0.2.69/32 metric2 10000 via 10.0.0.9",
                MetricType::Two,
            ),
        ] {
            let other = STATE.replace(OURS, other);
            assert_eq!(metric(&other), Some((kind, 10_000)));
        }
    }

    #[test]
    fn a_version_3_listing_is_read_alike() {
        let text = "1016-\n area 0.0.0.0\n \n \trouter 10.0.0.2\n \t\tdistance 0\n \t\tnetwork [10.0.0.1-5] metric 10\n \t\texternal 2001:db8::69/128 metric2 100\n \n \tnetwork [10.0.0.1-5]\n \t\tdistance 10\n \t\trouter 10.0.0.1\n \t\trouter 10.0.0.2\n \t\taddress fd00::/64\n0000 \n";
        let service = "2001:db8::69/128".parse().unwrap();
        let found = originated(&reply(text), service).unwrap().unwrap();
        assert_eq!(found.ospf, Some((MetricType::Two, 100)));
    }

    #[test]
    fn a_route_that_others_alone_originate_is_none_of_this_node() {
        let gone = STATE.replace("\t\texternal 192.0.2.69/32 metric2 10000\n ", "");
        assert_eq!(originated(&reply(&gone), service()), Ok(None));
    }

    #[test]
    fn a_route_that_is_originated_otherwise_too_means_no_level() {
        let twice = STATE.replace(OURS, &format!("{OURS}\n \t\t{OURS}"));
        assert_eq!(
            metric(&twice),
            Some((MetricType::Two, 10_000)),
            "in two areas"
        );
        for more in [
            "stubnet 192.0.2.69/32 metric 5",
            "xnetwork 192.0.2.69/32 metric 5",
            "external 192.0.2.69/32 metric2 5",
            "external 192.0.2.69/32 metric 10000",
        ] {
            for both in [
                format!("{OURS}\n \t\t{more}"),
                format!("{more}\n \t\t{OURS}"),
            ] {
                let found = originated(&reply(&STATE.replace(OURS, &both)), service());
                let is_ambiguous = matches!(found, Err(ExportError::Ambiguous { .. }));
                assert!(is_ambiguous, "{both}: {found:?}");
            }
        }
        let stub = STATE.replace(OURS, "stubnet 192.0.2.69/32 metric 10000");
        let said = originated(&reply(&stub), service())
            .unwrap_err()
            .to_string();
        assert!(said.contains("\"stubnet metric 10000\""), "{said}");
    }

    #[test]
    fn what_proves_nothing_is_an_error() {
        for text in [
            "0000 \n",
            "1016-\n area 0.0.0.0\n0000 \n",
            "1016 anycast_ospf4: is not up\n",
            "8003 No protocols match\n",
        ] {
            assert!(originated(&reply(text), service()).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_listing_makes_it_panic(lines in prop::collection::vec("(distance 0|external 192.0.2.69/32|stubnet 192.0.2.69/32)?[ a-z0-9./]{0,20}", 0..12)) {
            let text = format!("1016-{}\n0000 \n", lines.join("\n "));
            let mut parser = ReplyParser::new();
            if parser.handle_bytes(text.as_bytes()).is_ok()
                && let Some(reply) = parser.poll_reply()
            {
                let _ = originated(&reply, service());
            }
        }
    }
}
