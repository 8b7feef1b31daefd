//! The families of node, services and checks.

use std::fmt;

use super::Page;
use crate::announce::{Preference, Role};
use crate::drain::Phase as DrainPhase;
use crate::health::Severity;
use crate::intent_store::OrderKind;
use crate::machine::Phase;
use crate::node::{
    CheckStatus, MeshPeerStatus, NodeStatus, PeerStatus, ReadinessStatus, ServiceStatus,
};
use crate::reconcile::Confirmation;

const PREFERENCES: [&str; 3] = ["preferred", "demoted", "withdrawn"];
const STATES: [&str; 13] = [
    "adopted",
    "healthy",
    "held",
    "leaving",
    "queued",
    "waiting",
    "parked",
    "unready",
    "rising",
    "failed",
    "yielded",
    "drained",
    "withdrawn",
];
const ORDERS: [&str; 3] = ["none", "demote", "withdraw"];
const DRAINS: [&str; 5] = ["none", "demoting", "converging", "finishing", "done"];
const ROLES: [&str; 2] = ["primary", "backup"];
const CONFIRMATIONS: [&str; 4] = ["pending", "confirmed", "unconfirmed", "failing"];
const PEERS: [&str; 4] = ["preferred", "demoted", "draining", "unheard"];
const PHASES: [&str; 3] = ["pending", "up", "down"];
const SEVERITIES: [&str; 2] = ["critical", "warning"];
const VERDICTS: [&str; 3] = ["healthy", "unhealthy", "unknown"];

const fn one_if(is: bool) -> f64 {
    if is { 1.0 } else { 0.0 }
}

pub(super) fn node(page: &mut Page<'_>, status: &NodeStatus) -> fmt::Result {
    let node = status.node.as_str();
    page.infos(
        "anycast_node",
        "The node and the version of anycast-core that it runs",
        [[("node", node), ("version", env!("CARGO_PKG_VERSION"))]],
    )?;
    page.gauges(
        "anycast_node_working",
        "1 while every decision loop runs and what it decided is in force, as /healthz tells",
        [([("node", node)], one_if(status.is_working()))],
    )
}

pub(super) fn services(page: &mut Page<'_>, status: &NodeStatus) -> fmt::Result {
    let all = || status.services.iter();
    page.infos(
        "anycast_service",
        "The service and what announces it",
        all().map(|s| [("service", s.name.as_str()), ("announcer", s.announcer)]),
    )?;
    page.gauges(
        "anycast_service_running",
        "1 while the decision loop runs",
        all().map(|s| (service(s), one_if(s.running))),
    )?;
    page.gauges(
        "anycast_service_preference",
        "1 for the preference that was decided",
        all().flat_map(|s| states(s, "preference", PREFERENCES, preference(s))),
    )?;
    page.gauges(
        "anycast_service_state",
        "1 for the state behind the preference",
        all().flat_map(|s| {
            let state = s.state.to_string();
            let present = STATES.into_iter().find(|name| *name == state);
            states(s, "state", STATES, present.unwrap_or_default())
        }),
    )?;
    page.seconds(
        "anycast_service_preference_age",
        "Time since the preference was decided",
        all().filter_map(|s| Some((service(s), s.preference_age_s?))),
    )?;
    page.gauges(
        "anycast_service_role",
        "1 for the role of this node",
        all().flat_map(|s| states(s, "role", ROLES, role(s))),
    )?;
    page.gauges(
        "anycast_service_backup_rank",
        "Rank of a backup, from 1; 0 for a primary",
        all().map(|s| (service(s), rank(s))),
    )?;
    page.gauges(
        "anycast_service_confirmation",
        "1 for what is known of the decision: whether it is in force",
        all().flat_map(|s| states(s, "confirmation", CONFIRMATIONS, confirmation(s))),
    )?;
    limits(page, status)?;
    orders(page, status)?;
    readiness(page, status)?;
    fleet(page, status)
}

/// What holds a service down, or up, besides its health.
fn limits(page: &mut Page<'_>, status: &NodeStatus) -> fmt::Result {
    let all = || status.services.iter();
    page.gauges(
        "anycast_service_budget_tokens",
        "Route changes that the update budget has left; a raise needs two",
        all().map(|s| (service(s), f64::from(s.budget_tokens))),
    )?;
    page.seconds(
        "anycast_service_parked_age",
        "Time since the service was parked for flapping; absent when it is not",
        all().filter_map(|s| Some((service(s), s.parked_age_s?))),
    )?;
    page.seconds(
        "anycast_service_failing_age",
        "Time since the service is not healthy, whatever is announced; absent when it is",
        all().filter_map(|s| Some((service(s), s.failing_age_s?))),
    )
}

/// The operator's hand, and what it began.
fn orders(page: &mut Page<'_>, status: &NodeStatus) -> fmt::Result {
    let all = || status.services.iter();
    page.gauges(
        "anycast_service_order",
        "1 for the operator's order in force",
        all().flat_map(|s| states(s, "order", ORDERS, order(s))),
    )?;
    page.seconds(
        "anycast_service_order_age",
        "Time since the operator's order in force was given; absent where there is none",
        all().filter_map(|s| Some((service(s), s.intent.as_ref()?.age_s))),
    )?;
    page.gauges(
        "anycast_service_order_saved",
        "1 where the operator's order in force survives a restart; absent where there is none",
        all().filter_map(|s| Some((service(s), one_if(s.intent.as_ref()?.saved)))),
    )?;
    page.gauges(
        "anycast_service_drain",
        "1 for how far the drain is",
        all().flat_map(|s| states(s, "phase", DRAINS, drain(s))),
    )?;
    page.seconds(
        "anycast_service_drain_phase_age",
        "Time since the drain is that far; absent when nothing is drained",
        all().filter_map(|s| Some((service(s), s.drain.as_ref()?.phase_age_s))),
    )
}

fn readiness(page: &mut Page<'_>, status: &NodeStatus) -> fmt::Result {
    let all = || {
        let services = status.services.iter();
        services.flat_map(|s| s.readiness.iter().map(move |r| (s, r)))
    };
    let labels = |(s, r): (&'_ ServiceStatus, &'_ ReadinessStatus)| {
        [
            ("service", s.name.as_str().to_owned()),
            ("input", r.name.as_str().to_owned()),
        ]
    };
    page.gauges(
        "anycast_readiness_ready",
        "1 while this input of readiness counts as ready",
        all().map(|of| (labels(of), one_if(of.1.ready))),
    )?;
    page.seconds(
        "anycast_readiness_age",
        "Time since the input of readiness counts as that",
        all().map(|of| (labels(of), of.1.age_s)),
    )
}

/// Counts alone: a large fleet would be too many series for each of its nodes.
fn fleet(page: &mut Page<'_>, status: &NodeStatus) -> fmt::Result {
    let all = || status.services.iter();
    page.gauges(
        "anycast_fleet_peers",
        "Other nodes of the fleet, by what they last said",
        all().flat_map(|s| {
            let count = |state| s.fleet.iter().filter(|p| peer(p) == state).count();
            PEERS.map(|state| {
                let labels = [("service", s.name.as_str()), ("state", state)];
                (
                    labels,
                    f64::from(u32::try_from(count(state)).unwrap_or(u32::MAX)),
                )
            })
        }),
    )?;
    page.seconds(
        "anycast_fleet_oldest_report_age",
        "Time since the peer was heard that was not heard for longest; absent before all were",
        all().filter_map(|s| {
            let ages: Option<Vec<_>> = s.fleet.iter().map(|peer| peer.heard_age_s).collect();
            Some((service(s), ages?.into_iter().reduce(f64::max)?))
        }),
    )?;
    page.gauges(
        "anycast_fleet_grants",
        "Peers that promise not to withdraw",
        all().map(|s| {
            let grants = u32::try_from(s.grants).unwrap_or(u32::MAX);
            (service(s), f64::from(grants))
        }),
    )
}

/// One series a peer: a mesh has few, and each is looked at.
pub(super) fn mesh(page: &mut Page<'_>, status: &NodeStatus) -> fmt::Result {
    let Some(mesh) = &status.mesh else {
        return Ok(());
    };
    let all = || mesh.peers.iter();
    let labels = |peer: &MeshPeerStatus| [("peer", peer.node.as_str().to_owned())];
    page.gauges(
        "anycast_mesh_up",
        "1 while there is a connection with the peer",
        all().map(|p| (labels(p), one_if(p.up_age_s.is_some()))),
    )?;
    page.seconds(
        "anycast_mesh_heard_age",
        "Time since the last message of the peer; absent before the first",
        all().filter_map(|p| Some((labels(p), p.heard_age_s?))),
    )?;
    page.seconds(
        "anycast_mesh_clock_offset",
        "What the wall clock of the peer is ahead of this node's; absent before it is known",
        all().filter_map(|p| Some((labels(p), p.clock_offset_s?))),
    )?;
    page.seconds(
        "anycast_mesh_clock_error",
        "How much the clock offset of the peer may be off",
        all().filter_map(|p| Some((labels(p), p.clock_error_s?))),
    )
}

pub(super) fn checks(page: &mut Page<'_>, status: &NodeStatus) -> fmt::Result {
    let all = || {
        let services = status.services.iter();
        services.flat_map(|s| s.checks.iter().map(move |c| (s, c)))
    };
    page.gauges(
        "anycast_check_severity",
        "1 for how much the check matters; a warning changes no level",
        all().flat_map(|(s, c)| check_states(s, c, "severity", SEVERITIES, severity(c))),
    )?;
    page.gauges(
        "anycast_check_phase",
        "1 for what the check counts as",
        all().flat_map(|(s, c)| check_states(s, c, "phase", PHASES, phase(c))),
    )?;
    page.seconds(
        "anycast_check_phase_age",
        "Time since the check counts as that",
        all().map(|(s, c)| (check(s, c), c.phase_age_s)),
    )?;
    page.gauges(
        "anycast_check_verdict",
        "1 for the last verdict; unknown: the check itself failed",
        all()
            .filter_map(|(s, c)| Some((s, c, verdict(c)?)))
            .flat_map(|(s, c, v)| check_states(s, c, "verdict", VERDICTS, v)),
    )?;
    page.seconds(
        "anycast_check_verdict_age",
        "Time since the last verdict",
        all().filter_map(|(s, c)| Some((check(s, c), c.verdict_age_s?))),
    )?;
    page.gauges(
        "anycast_check_successes_in_row",
        "Successes in a row, up to the rise of the service",
        all().map(|(s, c)| (check(s, c), f64::from(c.successes))),
    )?;
    page.gauges(
        "anycast_check_failures_in_row",
        "Failures in a row, up to the fall of the service",
        all().map(|(s, c)| (check(s, c), f64::from(c.failures))),
    )
}

type ServiceLabels<'a> = [(&'static str, &'a str); 1];
type CheckLabels<'a> = [(&'static str, &'a str); 2];

fn service(status: &ServiceStatus) -> ServiceLabels<'_> {
    [("service", status.name.as_str())]
}

fn check<'a>(service: &'a ServiceStatus, check: &'a CheckStatus) -> CheckLabels<'a> {
    [
        ("service", service.name.as_str()),
        ("check", check.name.as_str()),
    ]
}

/// One sample for each state, 1 for the present one.
fn states<'a, const N: usize>(
    status: &'a ServiceStatus,
    label: &'static str,
    states: [&'static str; N],
    present: &'static str,
) -> impl Iterator<Item = ([(&'static str, &'a str); 2], f64)> {
    states.into_iter().map(move |state| {
        let labels = [("service", status.name.as_str()), (label, state)];
        (labels, one_if(state == present))
    })
}

fn check_states<'a, const N: usize>(
    service: &'a ServiceStatus,
    status: &'a CheckStatus,
    label: &'static str,
    states: [&'static str; N],
    present: &'static str,
) -> impl Iterator<Item = ([(&'static str, &'a str); 3], f64)> {
    states.into_iter().map(move |state| {
        let [service, check] = check(service, status);
        ([service, check, (label, state)], one_if(state == present))
    })
}

fn order(status: &ServiceStatus) -> &'static str {
    match status.intent.as_ref().map(|intent| intent.order) {
        None => "none",
        Some(OrderKind::Demote) => "demote",
        Some(OrderKind::Withdraw) => "withdraw",
    }
}

fn drain(status: &ServiceStatus) -> &'static str {
    match status.drain.as_ref().map(|drain| drain.phase) {
        None | Some(DrainPhase::Idle) => "none",
        Some(DrainPhase::Demoting) => "demoting",
        Some(DrainPhase::Converging) => "converging",
        Some(DrainPhase::Finishing) => "finishing",
        Some(DrainPhase::Done) => "done",
    }
}

const fn preference(status: &ServiceStatus) -> &'static str {
    match status.preference {
        Preference::Preferred => "preferred",
        Preference::Demoted => "demoted",
        Preference::Withdrawn(_) => "withdrawn",
    }
}

const fn role(status: &ServiceStatus) -> &'static str {
    match status.role {
        Role::Primary => "primary",
        Role::Backup(_) => "backup",
    }
}

fn rank(status: &ServiceStatus) -> f64 {
    match status.role {
        Role::Primary => 0.0,
        Role::Backup(rank) => f64::from(rank.get()),
    }
}

const fn confirmation(status: &ServiceStatus) -> &'static str {
    match status.confirmation {
        Confirmation::Pending => "pending",
        Confirmation::Confirmed => "confirmed",
        Confirmation::Unconfirmed(_) => "unconfirmed",
        Confirmation::Failing(_) => "failing",
    }
}

const fn severity(status: &CheckStatus) -> &'static str {
    match status.severity {
        Severity::Critical => "critical",
        Severity::Warning => "warning",
    }
}

const fn peer(status: &PeerStatus) -> &'static str {
    match (status.draining, status.preferred) {
        (Some(true), _) => "draining",
        (_, Some(true)) => "preferred",
        (_, Some(false)) => "demoted",
        (_, None) => "unheard",
    }
}

const fn phase(status: &CheckStatus) -> &'static str {
    match status.phase {
        Phase::Pending => "pending",
        Phase::Up => "up",
        Phase::Down => "down",
    }
}

/// The kind of the last verdict: its first word.
fn verdict(status: &CheckStatus) -> Option<&'static str> {
    let text = status.verdict.as_deref()?;
    let (word, _) = text.split_once(':').unwrap_or((text, ""));
    VERDICTS.into_iter().find(|kind| *kind == word)
}
