//! BIRD's answers, as far as the doctor reads them. Pure and total: what is not understood is
//! left out, and what rests on it is then "not seen".

use std::net::IpAddr;

use crate::bird::reply::Reply;

/// `Network not found`.
const NOT_FOUND: u16 = 8001;
/// The line that begins a protocol.
const PROTOCOL: u16 = 1002;
/// What belongs to it.
const DETAIL: u16 = 1006;
/// A route, or its next hop.
const ROUTE: u16 = 1007;
/// Where it is from.
const TYPE: u16 = 1008;
/// Its attributes.
const ATTRIBUTE: u16 = 1012;

/// What `show status` says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// BIRD's version.
    pub version: Option<String>,
    /// How many seconds ago the configuration was loaded; `None` where times are printed in
    /// a form that is not known.
    pub loaded_ago: Option<u64>,
}

/// Reads `show status`.
#[must_use]
pub fn status(reply: &Reply) -> Status {
    let mut status = Status::default();
    let (mut now, mut loaded) = (None, None);
    for line in reply.lines() {
        let text = line.text.trim();
        if let Some(version) = text.strip_prefix("BIRD ") {
            status.version = Some(version.to_owned());
        } else if let Some(time) = text.strip_prefix("Current server time is ") {
            now = seconds(time);
        } else if let Some(time) = text.strip_prefix("Last reconfiguration on ") {
            loaded = seconds(time);
        }
    }
    let age = now.zip(loaded).map(|(now, loaded)| now.checked_sub(loaded));
    status.loaded_ago = age.flatten();
    status
}

/// `2026-11-26 16:52:10.885`, in seconds since some moment.
fn seconds(text: &str) -> Option<u64> {
    let (date, time) = text.split_once(' ')?;
    let mut date = date.splitn(3, '-').map(|part| part.parse::<u64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let time = time.split('.').next()?;
    let mut time = time.splitn(3, ':').map(|part| part.parse::<u64>().ok());
    let (hour, minute, second) = (time.next()??, time.next()??, time.next()??);
    let plausible = (1970..9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second < 61;
    if !plausible {
        return None;
    }
    // Days from a civil date, the year beginning in March.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

/// A channel of a protocol.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Channel {
    /// `ipv4` or `ipv6`, or what else BIRD has.
    pub family: String,
    /// Preference of what it imports.
    pub preference: Option<u32>,
    /// `ACCEPT`, `REJECT`, `(unnamed)` or a name.
    pub input: String,
    /// The same for what it exports.
    pub output: String,
}

/// A protocol of `show protocols all`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Protocol {
    /// Its name.
    pub name: String,
    /// `BGP`, `Static`, `Direct`, `OSPF`, …
    pub kind: String,
    /// Whether it is up.
    pub is_up: bool,
    /// BGP: the neighbour.
    pub neighbour: Option<IpAddr>,
    /// BGP: the session stands, so that its capabilities are shown.
    pub is_established: bool,
    /// BGP: it asks the neighbour to keep its routes when it dies.
    pub restarts_gracefully: bool,
    /// Its channels.
    pub channels: Vec<Channel>,
}

/// Reads `show protocols all`.
#[must_use]
pub fn protocols(reply: &Reply) -> Vec<Protocol> {
    let mut all: Vec<Protocol> = Vec::new();
    // Whose capabilities the lines are about.
    let mut ours = false;
    let mut graceful = false;
    for line in reply.lines() {
        let text = line.text.trim();
        if line.code == PROTOCOL {
            let words: Vec<_> = text.split_whitespace().collect();
            if let [name, kind, _, state, ..] = words[..] {
                all.push(Protocol {
                    name: name.to_owned(),
                    kind: kind.to_owned(),
                    is_up: state == "up",
                    is_established: words.last() == Some(&"Established"),
                    ..Protocol::default()
                });
            }
            (ours, graceful) = (false, false);
            continue;
        }
        let Some(protocol) = all.last_mut().filter(|_| line.code == DETAIL) else {
            continue;
        };
        if let Some(family) = text.strip_prefix("Channel ") {
            protocol.channels.push(Channel {
                family: family.to_owned(),
                ..Channel::default()
            });
            continue;
        }
        match text {
            "Local capabilities" => ours = true,
            "Neighbor capabilities" => ours = false,
            "Graceful restart" => graceful = ours,
            _ => {}
        }
        let Some((key, value)) = text.split_once(':') else {
            continue;
        };
        let value = value.trim();
        let channel = protocol.channels.last_mut();
        match (key, channel) {
            ("Neighbor address", None) => {
                let address = value.split('%').next().unwrap_or_default();
                protocol.neighbour = address.parse().ok();
            }
            // Without families it only helps others to restart.
            ("AF supported", None) if graceful && !value.is_empty() => {
                protocol.restarts_gracefully = true;
            }
            ("Preference", Some(channel)) => channel.preference = value.parse().ok(),
            ("Input filter", Some(channel)) => value.clone_into(&mut channel.input),
            ("Output filter", Some(channel)) => value.clone_into(&mut channel.output),
            _ => {}
        }
    }
    all
}

/// A route of the prefix that was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Route {
    /// The protocol that brought it.
    pub protocol: String,
    /// Its preference.
    pub preference: Option<u32>,
    /// The interface of its next hop.
    pub interface: Option<String>,
    /// `static`, `device`, `BGP`, …
    pub source: String,
    /// Its local preference, where it has one.
    pub local_pref: Option<u32>,
    /// Its BGP attributes, as they are printed.
    pub attributes: Vec<String>,
}

/// Reads `show route all P`. `None` where BIRD refused, with its words.
///
/// # Errors
/// BIRD's words.
pub fn routes(reply: &Reply) -> Result<Vec<Route>, String> {
    if reply.code() == NOT_FOUND {
        return Ok(Vec::new());
    }
    if reply.is_error() {
        return Err(format!("{:04} {}", reply.code(), reply.last_text()));
    }
    let mut all: Vec<Route> = Vec::new();
    for line in reply.lines() {
        match line.code {
            ROUTE if line.text.starts_with('\t') => {
                let words: Vec<_> = line.text.split_whitespace().collect();
                let at = words
                    .iter()
                    .position(|word| *word == "dev" || *word == "on");
                let name = at.and_then(|at| words.get(at + 1));
                if let (Some(route), Some(name)) = (all.last_mut(), name) {
                    route.interface = Some((*name).to_owned());
                }
            }
            ROUTE => all.extend(route(&line.text)),
            TYPE => {
                let source = line.text.trim().strip_prefix("Type: ");
                if let (Some(route), Some(source)) = (all.last_mut(), source) {
                    let source = source.split(' ').next().unwrap_or_default();
                    source.clone_into(&mut route.source);
                }
            }
            ATTRIBUTE => {
                let text = line.text.trim();
                if let (Some(route), Some((name, value))) = (all.last_mut(), text.split_once(':')) {
                    if matches!(name, "BGP.local_pref" | "bgp_local_pref") {
                        route.local_pref = value.trim().parse().ok();
                    }
                    if name.starts_with("BGP.") || name.starts_with("bgp_") {
                        route.attributes.push(text.to_owned());
                    }
                }
            }
            _ => {}
        }
    }
    Ok(all)
}

/// `192.0.2.69/32  unicast [anycast_boost 16:51:58.267] * (240)`, or the same without prefix.
fn route(text: &str) -> Option<Route> {
    let (_, inside) = text.split_once('[')?;
    let (inside, rest) = inside.split_once(']')?;
    let preference = rest.split_once('(').and_then(|(_, rest)| {
        let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
        digits.parse().ok()
    });
    Some(Route {
        protocol: inside.split(' ').next()?.to_owned(),
        preference,
        ..Route::default()
    })
}

/// The neighbours of `show bfd sessions`, whatever their state.
#[must_use]
pub fn bfd(reply: &Reply) -> Vec<IpAddr> {
    let first = |text: &str| {
        let word = text.split_whitespace().next()?;
        word.split('%').next()?.parse().ok()
    };
    reply
        .lines()
        .iter()
        .filter_map(|line| first(&line.text))
        .collect()
}

/// The host prefixes of `show ospf state all` at metric 0, of one router.
#[must_use]
pub fn stubs_at_zero(reply: &Reply, router_id: &str) -> Vec<IpAddr> {
    let mut found = Vec::new();
    let mut is_ours = false;
    for line in reply.lines() {
        let words: Vec<_> = line.text.split_whitespace().collect();
        match words[..] {
            ["router", id] => is_ours = id == router_id,
            ["stubnet", prefix, "metric", "0"] if is_ours => {
                let host = prefix.split_once('/').and_then(|(ip, length)| {
                    let ip: IpAddr = ip.parse().ok()?;
                    let host = if ip.is_ipv4() { "32" } else { "128" };
                    (length == host).then_some(ip)
                });
                found.extend(host);
            }
            _ => {}
        }
    }
    found
}

/// The router id of `show status`.
#[must_use]
pub fn router_id(reply: &Reply) -> Option<String> {
    let id = |text: &str| text.trim().strip_prefix("Router ID is ").map(str::to_owned);
    reply.lines().iter().find_map(|line| id(&line.text))
}

#[cfg(test)]
pub(crate) mod tests {
    pub(crate) use crate::bird::reply::tests::reply;

    use super::*;
    use crate::bird::reply::ReplyParser;
    use proptest::prelude::*;

    /// As BIRD 2.0.12 prints it, with graceful restart and OSPF.
    pub(crate) const PROTOCOLS: &str = include_str!("data/bird_protocols.txt");
    pub(crate) const STATUS: &str = "1000-BIRD 2.0.12\n1011-Router ID is 10.0.0.2\n Hostname is vm\n Current server time is 2026-11-26 16:52:10.885\n Last reboot on 2026-11-26 16:51:58.265\n Last reconfiguration on 2026-11-26 16:51:58.265\n0013 Daemon is up and running\n";
    pub(crate) const FILTERED: &str = "1007-Table master4:\n 192.0.2.69/32        unicast [anycast_boost 16:51:58.267] * (240)\n \tdev lo\n1008-\tType: device univ\n1012-\tBGP.local_pref: 200\n1007-                     blackhole [anycast_floor4 16:51:58.265] (180)\n1008-\tType: static univ\n1012-\tBGP.local_pref: 50\n0000 \n";

    #[test]
    fn the_age_of_the_configuration_is_read_without_a_clock() {
        let found = status(&reply(STATUS));
        assert_eq!(found.version.as_deref(), Some("2.0.12"));
        assert_eq!(found.loaded_ago, Some(12));
        assert_eq!(router_id(&reply(STATUS)).as_deref(), Some("10.0.0.2"));
        let over = STATUS.replace("2026-11-26 16:52:10", "2027-03-01 00:00:00");
        assert_eq!(status(&reply(&over)).loaded_ago, Some(8_147_282));
        for odd in ["16:52:10.885", "2026-13-26 16:52:10", "x"] {
            let text = STATUS.replace("2026-11-26 16:52:10.885", odd);
            assert_eq!(status(&reply(&text)).loaded_ago, None, "{odd}");
        }
    }

    #[test]
    fn protocols_are_read_with_their_channels() {
        let all = protocols(&reply(PROTOCOLS));
        let names: Vec<_> = all.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names.len(), 12, "{names:?}");
        let router = all.iter().find(|one| one.name == "router4").unwrap();
        assert!(router.is_established && router.restarts_gracefully && router.is_up);
        assert_eq!(router.neighbour, Some("10.0.0.1".parse().unwrap()));
        assert_eq!(router.channels[0].output, "to_peer");
        assert_eq!(router.channels[0].preference, Some(100));
        let boost = all.iter().find(|one| one.kind == "Direct").unwrap();
        assert_eq!(boost.channels.len(), 2);
        let off = all.iter().find(|one| one.name == "off1").unwrap();
        assert!(!off.is_up);
        let aware = PROTOCOLS
            .replace("AF supported: ipv4", "AF supported:")
            .replace("AF supported: ipv6", "AF supported:");
        assert!(
            protocols(&reply(&aware))
                .iter()
                .all(|one| !one.restarts_gracefully)
        );
    }

    #[test]
    fn routes_are_read_with_preference_interface_and_level() {
        let found = routes(&reply(FILTERED)).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].protocol, "anycast_boost");
        assert_eq!(found[0].interface.as_deref(), Some("lo"));
        assert_eq!(
            (found[0].preference, found[0].local_pref),
            (Some(240), Some(200))
        );
        assert_eq!(
            (found[1].preference, found[1].local_pref),
            (Some(180), Some(50))
        );
        assert_eq!(found[1].source, "static");
        assert_eq!(routes(&reply("8001 Network not found\n")), Ok(vec![]));
        assert!(routes(&reply("9001 syntax error\n")).is_err());
        let ospf = "1007-Table master4:\n 192.0.2.69/32        unicast [ospf1 16:51:58.370] I (150/0) [10.0.0.2]\n \tvia 10.0.0.1 on up0\n1008-\tType: OSPF univ\n0000 \n";
        let found = routes(&reply(ospf)).unwrap();
        assert_eq!(found[0].preference, Some(150));
        assert_eq!(found[0].interface.as_deref(), Some("up0"));
    }

    #[test]
    fn stubs_and_sessions_are_read() {
        let state = "1016-\n area 0.0.0.0\n \n \trouter 10.0.0.2\n \t\tdistance 0\n \t\tstubnet 192.0.2.69/32 metric 0\n \t\tstubnet 10.0.0.0/24 metric 0\n \trouter 10.0.0.3\n \t\tstubnet 192.0.2.70/32 metric 0\n0000 \n";
        let found = stubs_at_zero(&reply(state), "10.0.0.2");
        assert_eq!(found, ["192.0.2.69".parse::<IpAddr>().unwrap()]);
        let sessions = "1020-bfd1:\n IP address                Interface  State      Since         Interval  Timeout\n 10.0.0.1                  up0        Up         16:52:00.1    0.100    0.500\n0000 \n";
        assert_eq!(
            bfd(&reply(sessions)),
            ["10.0.0.1".parse::<IpAddr>().unwrap()]
        );
    }

    proptest! {
        #[test]
        fn nothing_panics(lines in proptest::collection::vec("(1000|1002|1006|1007|1008|1012|1016)-[ \t]{0,2}\\PC{0,40}", 0..16)) {
            let text = format!("{}\n0000 \n", lines.join("\n"));
            let mut parser = ReplyParser::new();
            if parser.handle_bytes(text.as_bytes()).is_ok()
                && let Some(reply) = parser.poll_reply()
            {
                let _ = (status(&reply), protocols(&reply), routes(&reply));
                let _ = (bfd(&reply), stubs_at_zero(&reply, "10.0.0.2"), router_id(&reply));
            }
        }
    }
}
