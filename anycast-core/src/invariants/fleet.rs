//! The properties of a whole fleet, and of what stands in a kernel.

use std::time::{Duration, Instant};

use super::Violation;
use crate::announce::{Level, Role};
use crate::service::NodeName;

/// One node of a fleet at one moment, as far as consent to withdrawals goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consent {
    /// The node.
    pub node: NodeName,
    /// Whether it has withdrawn by itself (an operator's order is another matter).
    pub yielded: bool,
    /// How many unexpired grants it holds.
    pub grants: usize,
}

/// F5: a node that withdrew by itself holds the grants of `min_peers`, and not every node of
/// the fleet (of two or more) has withdrawn by itself.
///
/// # Errors
/// The first node without consent, or that all have withdrawn.
pub fn f5_withdraws_with_consent(fleet: &[Consent], min_peers: usize) -> Result<(), Violation> {
    let alone = fleet
        .iter()
        .find(|node| node.yielded && node.grants < min_peers);
    if let Some(Consent { node, grants, .. }) = alone {
        let what = format!("{node} withdrew with {grants} of {min_peers} grants");
        return Err(Violation { rule: "F5", what });
    }
    if !fleet.is_empty() && fleet.iter().all(|node| node.yielded) {
        let what = "every node has withdrawn by itself".to_owned();
        return Err(Violation { rule: "F5", what });
    }
    Ok(())
}

/// One origin of the service's route, as a router sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Site {
    /// What the node announces.
    pub level: Level,
    /// Its role.
    pub role: Role,
    /// The router's distance to it.
    pub distance: u32,
}

/// F6: where all nodes are at one level, a router that compares local preferences and then
/// distances chooses the same best paths as if all were preferred.
///
/// # Errors
/// When it chooses others.
pub fn f6_same_best_path(sites: &[Site]) -> Result<(), Violation> {
    let same = |site: &Site| Some(site.level) == sites.first().map(|first| first.level);
    if !sites.iter().all(same) {
        return Ok(());
    }
    let preferences = |site: &Site| {
        let healthy = site.role.local_pref(Level::Preferred);
        (healthy, site.role.local_pref(site.level), site.distance)
    };
    same_best_path(&sites.iter().map(preferences).collect::<Vec<_>>())
}

/// The same for local preferences when healthy, those of now, and distances.
pub(super) fn same_best_path(sites: &[(u32, u32, u32)]) -> Result<(), Violation> {
    let now = best(sites.iter().map(|(_, now, distance)| (*now, *distance)));
    let healthy = best(
        sites
            .iter()
            .map(|(healthy, _, distance)| (*healthy, *distance)),
    );
    if now != healthy {
        let what = format!("sites {now:?} are chosen, {healthy:?} if all were healthy");
        return Err(Violation { rule: "F6", what });
    }
    Ok(())
}

/// The indices of the best paths: highest local preference, then shortest distance.
fn best(sites: impl Iterator<Item = (u32, u32)>) -> Vec<usize> {
    let order = |(preference, distance): (u32, u32)| (std::cmp::Reverse(preference), distance);
    let sites: Vec<_> = sites.map(order).collect();
    let first = sites.iter().min().copied();
    let chosen = sites
        .iter()
        .enumerate()
        .filter(|(_, site)| Some(**site) == first);
    chosen.map(|(index, _)| index).collect()
}

/// What stands on one node for one service address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Announced {
    /// Any route to the address is announced: at the floor or above.
    pub route: bool,
    /// The permanent copy of the address is present.
    pub permanent: bool,
}

/// F7: whenever a route is announced, the permanent copy of the address is there.
///
/// # Errors
/// The first moment at which it was not.
pub fn f7_permanent_copy(seen: &[Announced]) -> Result<(), Violation> {
    match seen.iter().position(|at| at.route && !at.permanent) {
        Some(index) => Err(Violation {
            rule: "F7",
            what: format!("observation {index}: announced without the permanent copy"),
        }),
        None => Ok(()),
    }
}

/// A node as an outsider sees it at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watched {
    /// When.
    pub at: Instant,
    /// Whether its controller lives.
    pub alive: bool,
    /// Whether it is announced as preferred.
    pub preferred: bool,
    /// Whether it is not announced at all.
    pub withdrawn: bool,
}

/// F8: once a controller has been dead for `within` its node is not preferred any more; while
/// it is dead a route that was announced stays announced; and a boost does not come back while
/// nobody lives to raise it.
///
/// # Errors
/// The first moment that breaks it.
pub fn f8_dead_man(seen: &[Watched], within: Duration) -> Result<(), Violation> {
    let fail = |what: &str, at: usize| {
        Err(Violation {
            rule: "F8",
            what: format!("observation {at}: {what}"),
        })
    };
    let mut died: Option<Watched> = None;
    let mut last: Option<Watched> = None;
    for (index, now) in seen.iter().enumerate() {
        if now.alive {
            died = None;
            last = Some(*now);
            continue;
        }
        let death = *died.get_or_insert(*now);
        let dead_for = now.at.saturating_duration_since(death.at);
        if now.preferred && dead_for >= within {
            return fail("still preferred after the dead-man time", index);
        }
        if let Some(before) = last {
            if now.withdrawn && !before.withdrawn {
                return fail("withdrawn while the controller was dead", index);
            }
            if now.preferred && !before.preferred {
                return fail("raised while the controller was dead", index);
            }
        }
        last = Some(*now);
    }
    Ok(())
}
