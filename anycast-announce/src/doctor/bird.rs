//! Traps in a running BIRD. Pure.

use std::net::IpAddr;

use anycast_core::service::ServiceAddress;

use super::bird_text::{Channel, Protocol, Route, Status};
use super::{Finding, Report, Severity, Sight, Trap, Wanted, no_backup};

/// What an export filter would make of the routes of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filtered {
    /// The channel, such as `router4.ipv4`.
    pub channel: String,
    /// Its filter.
    pub filter: String,
    /// The service.
    pub service: ServiceAddress,
    /// What it lets through; or BIRD's words.
    pub routes: Result<Vec<Route>, String>,
}

/// BIRD's main configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MainFile {
    /// Its path.
    pub path: String,
    /// It was written after BIRD last loaded it.
    pub is_newer: bool,
}

/// What was read of BIRD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BirdFacts {
    /// Its control socket.
    pub socket: String,
    /// What `show status` says.
    pub status: Status,
    /// Its protocols.
    pub protocols: Vec<Protocol>,
    /// The routes of each service; or BIRD's words.
    pub routes: Vec<(ServiceAddress, Result<Vec<Route>, String>)>,
    /// What each named export filter of a BGP channel makes of them.
    pub filtered: Vec<Filtered>,
    /// The neighbours that BFD watches.
    pub bfd: Vec<IpAddr>,
    /// By OSPF instance, the hosts that this router announces at metric 0; or BIRD's words.
    pub zero_stubs: Vec<(String, Result<Vec<IpAddr>, String>)>,
    /// By BGP channel, whether it keeps an export table; or BIRD's words.
    pub export_tables: Vec<(String, Result<bool, String>)>,
    /// The services that a less-specific route covers.
    pub covered: Vec<ServiceAddress>,
    /// Its configuration file.
    pub main_file: Sight<MainFile>,
}

pub(super) fn examine(facts: &BirdFacts, wanted: &Wanted, report: &mut Report) {
    let version = facts.status.version.as_deref().unwrap_or("?");
    report
        .seen
        .push(format!("BIRD {version}, {}", facts.socket));
    for (service, routes) in &facts.routes {
        match routes {
            Ok(routes) => {
                let carried = Carried::of(routes);
                preferences(facts, *service, &carried, report);
                levels(facts, *service, &carried, report);
            }
            Err(why) => report.unseen(format!("BIRD's routes of {service}"), why),
        }
        if !facts.covered.contains(service) {
            report.add(no_backup("BIRD", *service));
        }
    }
    graceful_restart(facts, report);
    ospf(facts, wanted, report);
    export_tables(facts, wanted, report);
    main_file(facts, report);
}

/// The routes of a service by what they are.
struct Carried<'a> {
    floor: Option<&'a Route>,
    boosts: Vec<&'a Route>,
    imported: Vec<&'a Route>,
}

impl<'a> Carried<'a> {
    /// The static route that is preferred least is the floor; another beside it is a boost
    /// that is carried by a protocol.
    fn of(routes: &'a [Route]) -> Self {
        let is = |route: &&Route, source: &str| route.source == source;
        let statics = || routes.iter().filter(|route| is(route, "static"));
        let floor = statics().min_by_key(|route| route.preference);
        let mut boosts: Vec<_> = routes.iter().filter(|one| is(one, "device")).collect();
        boosts.extend(statics().filter(|one| Some(*one) != floor));
        let imported = |one: &&Route| !is(one, "device") && !is(one, "static");
        Self {
            floor,
            boosts,
            imported: routes.iter().filter(imported).collect(),
        }
    }
}

const fn family(service: ServiceAddress) -> &'static str {
    if service.ip().is_ipv4() {
        "ipv4"
    } else {
        "ipv6"
    }
}

fn preferences(
    facts: &BirdFacts,
    service: ServiceAddress,
    carried: &Carried<'_>,
    report: &mut Report,
) {
    let family = family(service);
    let channel = |one: &Protocol| -> Option<Channel> {
        let mut channels = one.channels.iter();
        channels.find(|channel| channel.family == family).cloned()
    };
    let brings_boost = |one: &&Protocol| {
        let is_boost = one.kind == "Direct" && one.is_up || one.kind == "Static" && !one.is_up;
        is_boost && channel(one).is_some()
    };
    if carried.boosts.is_empty() && !facts.protocols.iter().any(|one| brings_boost(&one)) {
        report.add(
            Finding::new(Trap::NoBoost, Severity::Trap, format!("BIRD, {service}"))
                .what(format!(
                    "no running `protocol direct` has a channel {family}"
                ))
                .why("the address on lo never becomes a route: the node is never preferred")
                .fix(format!(
                    "`protocol direct anycast_boost {{ interface \"lo\"; {family} {{ preference \
                     240; import where net = {service}; }}; }}`"
                )),
        );
    }
    for boost in &carried.boosts {
        let elsewhere = boost.interface.as_deref().filter(|name| *name != "lo");
        if let Some(interface) = elsewhere {
            let place = format!("BIRD, protocol {}", boost.protocol);
            report.add(
                Finding::new(Trap::BoostEverywhere, Severity::Trap, place)
                    .what(format!("it takes {service} from {interface} for the boost"))
                    .why("the permanent copy never goes away, so the node is never demoted")
                    .fix("`interface \"lo\";` in that protocol"),
            );
        }
    }
    let Some(floor) = carried.floor else {
        report.add(no_floor(service, "BIRD has no static route of it"));
        return;
    };
    let Some(low) = floor.preference else {
        return report.unseen(
            format!("BIRD's floor of {service}"),
            "no preference is printed",
        );
    };
    for boost in &carried.boosts {
        let best_import = carried
            .imported
            .iter()
            .filter_map(|one| one.preference)
            .max();
        let least = best_import.map_or(low, |import| import.max(low));
        if boost.preference.is_none_or(|high| high <= least) {
            let high = boost.preference.map_or("?".to_owned(), |it| it.to_string());
            let place = format!("BIRD, protocol {}", boost.protocol);
            report.add(
                Finding::new(Trap::BoostOutranked, Severity::Trap, place)
                    .what(format!(
                        "{service}: preference {high} does not beat {least}"
                    ))
                    .why("raising and losing the boost changes nothing")
                    .fix(format!(
                        "`preference {};` in its channel",
                        least.max(180) + 60
                    )),
            );
        }
    }
    outranked(facts, service, (floor, low), carried, report);
}

/// What beats the floor now, or may.
fn outranked(
    facts: &BirdFacts,
    service: ServiceAddress,
    (floor, low): (&Route, u32),
    carried: &Carried<'_>,
    report: &mut Report,
) {
    let mut finding = |protocol: &str, preference: u32, severity, what: &str| {
        let place = format!("BIRD, protocol {}", floor.protocol);
        report.add(
            Finding::new(Trap::FloorOutranked, severity, place)
                .what(format!(
                    "{service}: the floor's preference {low} does not beat {preference} of \
                     {protocol}, {what}"
                ))
                .why(
                    "BIRD exports only the best route: once the other one is best and the boost \
                     is gone, the floor is no longer announced, which is a withdrawal",
                )
                .fix(format!(
                    "`preference {};` in the channel of {}",
                    preference.max(150) + 30,
                    floor.protocol
                )),
        );
    };
    let mut found = Vec::new();
    for import in &carried.imported {
        if let Some(preference) = import.preference.filter(|one| *one >= low) {
            found.push(import.protocol.clone());
            finding(
                &import.protocol,
                preference,
                Severity::Trap,
                "which brings the same prefix now",
            );
        }
    }
    for protocol in &facts.protocols {
        let imports = matches!(protocol.kind.as_str(), "BGP" | "OSPF" | "RIP" | "Babel");
        if !imports || found.contains(&protocol.name) {
            continue;
        }
        for channel in &protocol.channels {
            let beats = channel.preference.filter(|one| *one >= low);
            let Some(preference) = beats.filter(|_| channel.family == family(service)) else {
                continue;
            };
            let (severity, what) = match channel.input.as_str() {
                "REJECT" => continue,
                "ACCEPT" => (Severity::Trap, "which takes in whatever it hears"),
                _ => (
                    Severity::Warning,
                    "unless its import filter keeps the prefix out",
                ),
            };
            finding(&protocol.name, preference, severity, what);
        }
    }
}

fn no_floor(service: ServiceAddress, what: &str) -> Finding {
    let family = family(service);
    Finding::new(Trap::NoFloor, Severity::Trap, format!("BIRD, {service}"))
        .what(what)
        .why("when the boost goes, nothing is left to announce: a demotion withdraws")
        .fix(format!(
            "`protocol static {{ {family} {{ preference 180; }}; route {service} blackhole; }}`, \
             exported at local preference 50"
        ))
}

/// What the export filters make of floor and boost.
fn levels(facts: &BirdFacts, service: ServiceAddress, carried: &Carried<'_>, report: &mut Report) {
    let Some(floor) = carried.floor else {
        return; // said already
    };
    for protocol in facts.protocols.iter().filter(|one| one.kind == "BGP") {
        for channel in &protocol.channels {
            if channel.family != family(service) {
                continue;
            }
            let place = format!("BIRD, {}.{}", protocol.name, channel.family);
            match channel.output.as_str() {
                "ACCEPT" => report.add(same_level(
                    place,
                    format!("{service}: `export all` gives floor and boost one level"),
                )),
                "(unnamed)" => report.add(not_compared(
                    place,
                    service,
                    "its export filter has no name, so it cannot be asked what it would send",
                )),
                _ => {}
            }
        }
    }
    for filtered in facts.filtered.iter().filter(|one| one.service == service) {
        let place = format!("BIRD, filter {} of {}", filtered.filter, filtered.channel);
        let routes = match &filtered.routes {
            Ok(routes) => routes,
            Err(why) => {
                report.unseen(format!("what {place} makes of {service}"), why);
                continue;
            }
        };
        let through = |wanted: &Route| {
            let mut routes = routes.iter();
            routes.find(|one| one.protocol == wanted.protocol)
        };
        // A filter that lets neither through is for something else.
        let low = through(floor);
        let high = carried.boosts.iter().find_map(|one| through(one));
        match (low, high) {
            (None, None) => {}
            (None, Some(_)) => {
                let what = format!("the filter {} does not let the floor out", filtered.filter);
                report.add(no_floor(service, &what));
            }
            (Some(_), None) if carried.boosts.is_empty() => report.add(not_compared(
                place,
                service,
                "the boost is not up; look again while the node is preferred",
            )),
            (Some(_), None) => report.add(
                Finding::new(Trap::NoBoost, Severity::Trap, place)
                    .what(format!("{service}: it does not let the boost out"))
                    .why("the node is never preferred")
                    .fix("let it through, with local preference 200"),
            ),
            (Some(low), Some(high)) => compare(place, service, low, high, report),
        }
    }
}

fn compare(place: String, service: ServiceAddress, low: &Route, high: &Route, report: &mut Report) {
    let inferior = low.local_pref.zip(high.local_pref);
    let number =
        |pref: Option<u32>| pref.map_or("100 (by default)".to_owned(), |it| it.to_string());
    if low.attributes == high.attributes {
        let pref = number(low.local_pref);
        let what = format!("{service}: floor and boost both leave at local preference {pref}");
        report.add(same_level(place, what));
    } else if inferior.is_some_and(|(low, high)| low > high) {
        let (low, high) = (number(low.local_pref), number(high.local_pref));
        let what = format!("{service}: the floor leaves at {low}, the boost only at {high}");
        report.add(same_level(place, what));
    }
}

fn same_level(place: String, what: String) -> Finding {
    Finding::new(Trap::SameLevel, Severity::Trap, place)
        .what(what)
        .why("a demotion moves no traffic: the routers cannot tell the levels apart")
        .fix(
            "in the export filter: `if proto = \"anycast_boost\" then { bgp_local_pref = 200; \
             accept; } if proto ~ \"anycast_floor*\" then { bgp_local_pref = 50; accept; }`",
        )
}

fn not_compared(place: String, service: ServiceAddress, why: &str) -> Finding {
    Finding::new(Trap::SameLevel, Severity::Note, place)
        .what(format!("the levels of {service} were not compared"))
        .why(why)
        .fix("nothing, where they are known to differ")
}

fn graceful_restart(facts: &BirdFacts, report: &mut Report) {
    for protocol in facts.protocols.iter().filter(|one| one.kind == "BGP") {
        let place = format!("BIRD, protocol {}", protocol.name);
        let is_watched = protocol
            .neighbour
            .is_some_and(|one| facts.bfd.contains(&one));
        if protocol.restarts_gracefully && !is_watched {
            report.add(
                Finding::new(Trap::GracefulRestart, Severity::Trap, place)
                    .what("graceful restart is on, and no BFD session watches the neighbour")
                    .why(
                        "the router keeps the routes of a node that lost its power until a \
                         timer ends (120 s by default), and sends its clients nowhere",
                    )
                    .fix("`graceful restart off;` in it; or `direct; bfd on;` (without `direct` iBGP is \
                         multihop, for which BIRD demands a source address) and a `protocol bfd {}`"),
            );
        } else if !protocol.is_established && !is_watched {
            report.add(
                Finding::new(Trap::GracefulRestart, Severity::Note, place)
                    .what("whether it restarts gracefully is shown only while the session stands")
                    .why("it does not stand now")
                    .fix("look again when it does"),
            );
        }
    }
}

fn ospf(facts: &BirdFacts, wanted: &Wanted, report: &mut Report) {
    for (name, stubs) in &facts.zero_stubs {
        let place = format!("BIRD, protocol {name}");
        let stubs = match stubs {
            Ok(stubs) => stubs,
            Err(why) => {
                report.unseen(format!("the state of {place}"), why);
                continue;
            }
        };
        for service in &wanted.services {
            if !stubs.contains(&service.ip()) {
                continue;
            }
            report.add(
                Finding::new(Trap::OspfHostCost, Severity::Trap, place.clone())
                    .what(format!("{service} is announced as a stub at metric 0"))
                    .why(
                        "BIRD ignores the `cost` of an interface for host addresses: demoting by \
                         cost does nothing, and every node is at the same distance",
                    )
                    .fix(format!(
                        "take the interface out of the area; `stubnet {service} {{ cost 100; }};` \
                         in it, or export the boost with `ospf_metric1`"
                    )),
            );
        }
    }
}

fn export_tables(facts: &BirdFacts, wanted: &Wanted, report: &mut Report) {
    if !wanted.reads_bird {
        return;
    }
    for (channel, table) in &facts.export_tables {
        match table {
            Ok(true) => {}
            Ok(false) => report.add(
                Finding::new(
                    Trap::NoExportTable,
                    Severity::Trap,
                    format!("BIRD, {channel}"),
                )
                .what("the channel keeps no export table")
                .why(
                    "what was sent cannot be read back: no preference is ever confirmed, and \
                         the announcer repeats for ever",
                )
                .fix("`export table on;` in the channel; the session restarts once"),
            ),
            Err(why) => report.unseen(format!("the export table of {channel}"), why),
        }
    }
}

fn main_file(facts: &BirdFacts, report: &mut Report) {
    match &facts.main_file {
        Sight::Absent => {}
        Sight::Unseen(why) => report.unseen("whether BIRD's file was changed since", why),
        Sight::Seen(file) if file.is_newer => report.add(
            Finding::new(Trap::HalfEdited, Severity::Warning, file.path.clone())
                .what("it was written after BIRD loaded it last")
                .why(
                    "what runs is not what stands there; the next `configure`, by anybody, or a \
                     restart brings it in",
                )
                .fix("`birdc configure check`, then `birdc configure`; or put it back"),
        ),
        Sight::Seen(file) => report.seen.push(file.path.clone()),
    }
}

#[cfg(test)]
#[path = "bird/tests.rs"]
mod tests;
