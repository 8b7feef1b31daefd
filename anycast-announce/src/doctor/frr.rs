//! Traps in a running bgpd. Pure.

use std::collections::BTreeSet;

use anycast_core::service::ServiceAddress;

use super::frr_text::{Config, Section};
use super::{Finding, Report, Severity, Sight, Trap, Wanted, no_backup};

/// Without `set local-preference`.
const DEFAULT_PREF: u32 = 100;
/// Seconds between two updates beyond which a demotion is slow.
const SLOW: u32 = 5;

/// What was read of FRR.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrrFacts {
    /// bgpd's vty socket.
    pub socket: String,
    /// What `show running-config` of bgpd says.
    pub running: Config,
    /// The path and text of frr.conf.
    pub file: Sight<(String, Config)>,
    /// The services that a less-specific route covers.
    pub covered: Vec<ServiceAddress>,
}

pub(super) fn examine(facts: &FrrFacts, wanted: &Wanted, report: &mut Report) {
    report.seen.push(format!("FRR, {}", facts.socket));
    let config = &facts.running;
    for service in &wanted.services {
        floor_and_boost(config, *service, report);
        if !facts.covered.contains(service) {
            report.add(no_backup("FRR", *service));
        }
    }
    timers(config, report);
    for instance in config.bgp() {
        graceful_restart(instance, report);
        overriding(config, instance, report);
    }
    compare(facts, report);
}

fn floor_and_boost(config: &Config, service: ServiceAddress, report: &mut Report) {
    let place = |instance: &Section| format!("FRR, {}", instance.head);
    let family = if service.ip().is_ipv4() {
        "ipv4"
    } else {
        "ipv6"
    };
    let prefix = service.prefix().to_string();
    let mut has_floor = false;
    for instance in config.bgp() {
        let networks = instance.after("network");
        let mut floors = networks.filter(|rest| rest.split(' ').next() == Some(&prefix));
        let Some(floor) = floors.next() else {
            continue;
        };
        has_floor = true;
        if !instance.has("no bgp network import-check") {
            report.add(import_check(place(instance)));
        }
        let map = floor.split_once("route-map ").map(|(_, name)| name);
        let low = map.map_or(Some(DEFAULT_PREF), |name| level(config, name));
        boost(config, instance, service, low, report);
    }
    if !has_floor {
        report.add(
            Finding::new(Trap::NoFloor, Severity::Trap, format!("FRR, {service}"))
                .what(format!("bgpd has no `network {prefix}`"))
                .why("when the boost goes, nothing is left to announce: a demotion withdraws")
                .fix(format!(
                    "`network {prefix} route-map FLOOR` in `address-family {family} unicast`, \
                     with `set local-preference 50` in that route-map"
                )),
        );
    }
}

fn import_check(place: String) -> Finding {
    Finding::new(Trap::ImportCheck, Severity::Trap, place)
        .what("`bgp network import-check` is on, as it is by default")
        .why(
            "`network` then lasts only as long as zebra has a route of it; it goes away together \
             with the boost, which is a withdrawal",
        )
        .fix("`no bgp network import-check` in that `router bgp`")
}

fn boost(
    config: &Config,
    instance: &Section,
    service: ServiceAddress,
    low: Option<u32>,
    report: &mut Report,
) {
    let family = if service.ip().is_ipv4() {
        "ipv4"
    } else {
        "ipv6"
    };
    let place = format!("FRR, {}", instance.head);
    let redistributed = instance.lines.iter().find_map(|(within, line)| {
        let is_family = within
            .as_deref()
            .is_some_and(|one| one.split(' ').nth(1) == Some(family));
        let rest = line.strip_prefix("redistribute connected")?;
        is_family.then_some(rest)
    });
    let Some(rest) = redistributed else {
        report.add(
            Finding::new(Trap::NoBoost, Severity::Trap, place)
                .what(format!("no `redistribute connected` for {family}"))
                .why("the address on lo never becomes a route: the node is never preferred")
                .fix(format!(
                    "`redistribute connected route-map BOOST` in `address-family {family} \
                     unicast`, with `match interface lo` and `set local-preference 200`"
                )),
        );
        return;
    };
    let name = rest.split_once("route-map ").map(|(_, name)| name);
    let high = name.map_or(Some(DEFAULT_PREF), |name| level(config, name));
    let names_lo = name.is_some_and(|name| {
        let mut permits = config
            .route_map(name)
            .filter(|one| one.head.contains(" permit "));
        permits.all(|one| one.has("match interface lo"))
    });
    if !names_lo {
        report.add(
            Finding::new(Trap::BoostEverywhere, Severity::Trap, place.clone())
                .what(format!(
                    "`redistribute connected` for {family} is not limited to lo"
                ))
                .why(
                    "a copy of the address on another interface counts as the boost, and other \
                     addresses leave as well",
                )
                .fix("`match interface lo` in its route-map"),
        );
    }
    if let (Some(low), Some(high)) = (low, high)
        && low >= high
    {
        report.add(
            Finding::new(Trap::SameLevel, Severity::Trap, place)
                .what(format!(
                    "{service}: the floor leaves at local preference {low}, the boost at {high}"
                ))
                .why("a demotion moves no traffic: the routers cannot tell the levels apart")
                .fix("`set local-preference 50` in the floor's route-map, 200 in the boost's"),
        );
    }
}

/// The local preference that a route-map sets; `None` where it sets something else, by which
/// the levels may be told apart.
fn level(config: &Config, name: &str) -> Option<u32> {
    let mut found = None;
    for entry in config.route_map(name) {
        if let Some(value) = entry.after("set local-preference").next() {
            return value.parse().ok();
        }
        // An origin is no level: it makes the boost what `network` is by itself.
        if entry.after("set").any(|what| !what.starts_with("origin ")) {
            found = Some(());
        }
    }
    found.is_none().then_some(DEFAULT_PREF)
}

fn timers(config: &Config, report: &mut Report) {
    let instances = || {
        config
            .bgp()
            .flat_map(|one| one.lines.iter().map(|(_, line)| line))
    };
    let value =
        |line: &str, key: &str| -> Option<u32> { line.strip_prefix(key)?.trim().parse().ok() };
    for line in config.lines.iter().chain(instances()) {
        if value(line, "bgp route-map delay-timer") == Some(0) {
            report.add(
                Finding::new(Trap::DelayTimer, Severity::Trap, "FRR, bgpd")
                    .what(format!("`{line}`"))
                    .why(
                        "0 does not mean at once: later changes of route-maps, also of those that \
                         make floor and boost, are never applied",
                    )
                    .fix("`no bgp route-map delay-timer` (5 s), or 1"),
            );
        }
        let coalesce = value(line, "coalesce-time").or_else(|| value(line, "bgp coalesce-time"));
        let coalesce = coalesce.map(|milliseconds| milliseconds / 1000);
        let interval = line.split_once(" advertisement-interval ");
        let interval = interval.and_then(|(_, seconds)| seconds.parse().ok());
        if let Some(seconds) = coalesce.or(interval).filter(|seconds| *seconds > SLOW) {
            report.add(slow(
                line,
                &format!("a demotion leaves up to {seconds} s late"),
            ));
        }
        if line.contains(" timers delayopen ") || line.starts_with("bgp update-delay ") {
            report.add(slow(
                line,
                "after a restart of bgpd the node is announced that much later",
            ));
        }
    }
}

fn slow(line: &str, why: &str) -> Finding {
    Finding::new(Trap::SlowUpdates, Severity::Warning, "FRR, bgpd")
        .what(format!("`{line}`"))
        .why(why)
        .fix(format!("`no {line}`, where there is no reason for it"))
}

fn graceful_restart(instance: &Section, report: &mut Report) {
    let everywhere = instance.has("bgp graceful-restart");
    let neighbours: BTreeSet<&str> = instance
        .after("neighbor")
        .filter(|rest| rest.contains(" remote-as ") || rest.contains(" peer-group "))
        .filter_map(|rest| rest.split(' ').next())
        .collect();
    // A neighbour, or its peer group, says it.
    let says = |neighbour: &str, what: &str| {
        let group = format!("neighbor {neighbour} peer-group");
        let group = instance.after(&group).next().map(str::to_owned);
        [Some(neighbour.to_owned()), group]
            .into_iter()
            .flatten()
            .any(|name| {
                let line = format!("neighbor {name} {what}");
                instance.after(&line).next().is_some()
            })
    };
    for neighbour in neighbours {
        let off = says(neighbour, "graceful-restart-disable")
            || says(neighbour, "graceful-restart-helper");
        let on = says(neighbour, "graceful-restart") || everywhere && !off;
        if on && !says(neighbour, "bfd") {
            let place = format!("FRR, {}, neighbor {neighbour}", instance.head);
            report.add(
                Finding::new(Trap::GracefulRestart, Severity::Trap, place)
                    .what("graceful restart is on, and no BFD watches the session")
                    .why(
                        "the router keeps the routes of a node that lost its power until a \
                         timer ends (120 s by default), and sends its clients nowhere",
                    )
                    .fix(format!(
                        "`bgp graceful-restart-disable`, or `neighbor {neighbour} bfd` with bfdd \
                         running on both sides"
                    )),
            );
        }
    }
}

/// A route-map towards a neighbour that sets the level of everything.
fn overriding(config: &Config, instance: &Section, report: &mut Report) {
    for rest in instance.after("neighbor") {
        let words: Vec<_> = rest.split(' ').collect();
        let [neighbour, "route-map", name, "out"] = words[..] else {
            continue;
        };
        for entry in config.route_map(name) {
            if let Some(value) = entry.after("set local-preference").next() {
                report.add(
                    Finding::new(
                        Trap::SameLevel,
                        Severity::Warning,
                        format!("FRR, {}", entry.head),
                    )
                    .what(format!("it sends {neighbour} local preference {value}"))
                    .why("floor and boost leave at one level, where it matches both")
                    .fix("set the levels where floor and boost are made, not on the way out"),
                );
            }
        }
    }
}

fn compare(facts: &FrrFacts, report: &mut Report) {
    let (path, file) = match &facts.file {
        Sight::Absent => return,
        Sight::Unseen(why) => {
            return report.unseen("whether FRR runs what stands in its file", why);
        }
        Sight::Seen((path, file)) => (path, file),
    };
    if !file.is_indented && !file.sections.is_empty() {
        return report.unseen(
            format!("whether FRR runs what stands in {path}"),
            "the file is not indented, so its parts cannot be told apart",
        );
    }
    let (runs, stands) = (facts.running.about_bgp(), file.about_bgp());
    let list = |a: &BTreeSet<String>, b: &BTreeSet<String>| -> Option<String> {
        let mut lines: Vec<_> = a.difference(b).map(|line| format!("`{line}`")).collect();
        let more = lines.len().saturating_sub(3);
        lines.truncate(3);
        let more = (more > 0).then(|| format!("{more} more"));
        lines.extend(more);
        (!lines.is_empty()).then(|| lines.join(", "))
    };
    let (unsaved, unread) = (list(&runs, &stands), list(&stands, &runs));
    if unsaved.is_none() && unread.is_none() {
        report.seen.push(path.clone());
        return;
    }
    let mut what = Vec::new();
    what.extend(unsaved.map(|lines| format!("runs, and is not in the file: {lines}")));
    what.extend(unread.map(|lines| format!("is in the file, and does not run: {lines}")));
    report.add(
        Finding::new(Trap::HalfEdited, Severity::Warning, path.clone())
            .what(what.join("; "))
            .why("a restart or a reload of FRR changes what is announced")
            .fix("`vtysh -c 'write memory'` keeps what runs; frr-reload.py brings the file in"),
    );
}

#[cfg(test)]
#[path = "frr/tests.rs"]
mod tests;
