//! What FRR has sent to a neighbour, read from `advertised-routes json`. Pure and total.
//!
//! That is the Adj-RIB-Out after the neighbour's route-map: it changes when the update goes
//! out, not when the configuration is edited.

use std::collections::BTreeMap;

use anycast_core::service::ServiceAddress;
use serde::Deserialize;

use crate::attributes::Attributes;

/// What the command prints.
#[derive(Debug, Deserialize)]
struct Printed {
    #[serde(rename = "advertisedRoutes")]
    routes: Option<BTreeMap<String, Route>>,
    warning: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Route {
    #[serde(rename = "locPrf")]
    local_pref: Option<u32>,
    metric: Option<u32>,
    #[serde(default)]
    path: String,
}

/// Why what was printed says nothing about what is sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdvertisedError {
    /// It is no JSON, or none of this command.
    #[error("bgpd's answer cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    /// FRR refused.
    #[error("bgpd refused: {0}")]
    Refused(String),
    /// The list of routes is absent, which is not the same as empty.
    #[error("bgpd's answer has no list of advertised routes")]
    NoList,
}

/// The routes sent to a neighbour.
#[derive(Debug)]
pub struct Advertised(BTreeMap<String, Route>);

impl Advertised {
    /// Reads what was printed.
    ///
    /// # Errors
    /// [`AdvertisedError`].
    pub fn parse(text: &str) -> Result<Self, AdvertisedError> {
        let printed: Printed = serde_json::from_str(text)?;
        match printed {
            Printed {
                warning: Some(warning),
                ..
            } => Err(AdvertisedError::Refused(warning)),
            Printed {
                routes: Some(routes),
                ..
            } => Ok(Self(routes)),
            Printed { routes: None, .. } => Err(AdvertisedError::NoList),
        }
    }

    /// The attributes sent with an address; None: it is not announced.
    #[must_use]
    pub fn route(&self, address: ServiceAddress) -> Option<Attributes> {
        let route = self.0.get(&address.prefix().to_string())?;
        Some(Attributes {
            local_pref: route.local_pref,
            med: route.metric,
            path_length: route.path.split_whitespace().count(),
            ..Attributes::default()
        })
    }
}

/// Whether a session is established, from `show bgp summary json`.
///
/// # Errors
/// [`AdvertisedError`].
pub fn is_established(
    text: &str,
    is_v4: bool,
    neighbour: &str,
) -> Result<Option<bool>, AdvertisedError> {
    let printed: serde_json::Value = serde_json::from_str(text)?;
    let family = if is_v4 { "ipv4Unicast" } else { "ipv6Unicast" };
    let peer = printed
        .get(family)
        .and_then(|family| family.get("peers"))
        .and_then(|peers| peers.get(neighbour));
    Ok(peer
        .map(|peer| peer.get("state").and_then(serde_json::Value::as_str) == Some("Established")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As FRR 8.4.4 prints it.
    const SENT: &str = r#"{"bgpTableVersion":1,"localAS":65000,"advertisedRoutes":{
        "192.0.2.69/32":{"addrPrefix":"192.0.2.69","prefixLen":32,"network":"192.0.2.69/32",
        "nextHop":"0.0.0.0","metric":0,"locPrf":200,"weight":32768,"path":"65000 65000",
        "bgpOriginCode":"?","appliedStatusSymbols":{"*":true,">":true}}},
        "totalPrefixCounter":1,"filteredPrefixCounter":0}"#;

    #[test]
    fn what_was_sent_is_read_with_its_attributes() {
        let sent = Advertised::parse(SENT).unwrap();
        let route = sent.route("192.0.2.69/32".parse().unwrap()).unwrap();
        assert_eq!(route.local_pref, Some(200));
        assert_eq!(route.med, Some(0));
        assert_eq!(route.path_length, 2);
        assert_eq!(sent.route("192.0.2.70/32".parse().unwrap()), None);
    }

    #[test]
    fn nothing_sent_is_told_from_not_known() {
        let none = r#"{"advertisedRoutes":{},"totalPrefixCounter":0}"#;
        let none = Advertised::parse(none).unwrap();
        assert_eq!(none.route("192.0.2.69/32".parse().unwrap()), None);
        let refused = Advertised::parse(r#"{"warning":"No such neighbor in this view/vrf"}"#);
        assert!(matches!(refused, Err(AdvertisedError::Refused(_))));
        assert!(matches!(
            Advertised::parse("{}"),
            Err(AdvertisedError::NoList)
        ));
        for garbage in ["", "[]", "null", "{\"advertisedRoutes\":7}", "\u{1b}[0m"] {
            assert!(Advertised::parse(garbage).is_err(), "{garbage:?}");
        }
    }

    #[test]
    fn a_session_is_established_or_not_or_not_there() {
        let text = r#"{"ipv4Unicast":{"peers":{"10.0.0.1":{"state":"Established"},"10.0.0.9":{"state":"Active"}}}}"#;
        assert_eq!(is_established(text, true, "10.0.0.1").unwrap(), Some(true));
        assert_eq!(is_established(text, true, "10.0.0.9").unwrap(), Some(false));
        assert_eq!(is_established(text, true, "10.0.0.7").unwrap(), None);
        assert_eq!(is_established(text, false, "10.0.0.1").unwrap(), None);
        assert!(is_established("%", true, "x").is_err());
    }
}
