//! The mesh in `/status`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::engine::PeerView;
use super::wire::{ServiceStatus, TurnStage};
use crate::node::{
    ClientsStatus, DataSetStatus, MeshPeerStatus, PeerServiceStatus, PeerTurn, seconds,
};
use crate::service::NodeName;

pub(super) fn peer(
    name: &NodeName,
    view: &PeerView,
    addresses: &BTreeMap<NodeName, SocketAddr>,
    now: Instant,
) -> MeshPeerStatus {
    let age = |at: Instant| seconds(now.saturating_duration_since(at));
    let said = view.services_at.unwrap_or(now);
    MeshPeerStatus {
        node: name.clone(),
        address: addresses.get(name).copied(),
        up_age_s: view.up_since.map(age),
        down_reason: view.down.clone(),
        heard_age_s: view.heard_at.map(age),
        version: view.version,
        software: view.software.clone(),
        clock_offset_s: view.clock.map(|clock| signed_seconds(clock.micros)),
        clock_error_s: view.clock.map(|clock| seconds(clock.error)),
        said_age_s: view.services_at.map(age),
        services: view
            .services
            .iter()
            .map(|one| service(one, now.saturating_duration_since(said)))
            .collect(),
        data: view
            .data
            .iter()
            .map(|set| DataSetStatus {
                name: set.name.clone(),
                ready: set.ready,
                reason: set.reason.clone(),
                behind: set.behind,
            })
            .collect(),
        clients: view.clients.as_ref().map(|(at, told)| {
            let age = now.saturating_duration_since(*at);
            ClientsStatus::new(told, age)
        }),
    }
}

fn service(status: &ServiceStatus, passed: Duration) -> PeerServiceStatus {
    let failing = status.failing_for.map(Duration::from_millis);
    PeerServiceStatus {
        name: status.name.clone(),
        preferred: status.preferred,
        draining: status.draining,
        failing_age_s: failing.map(|time| seconds(time.saturating_add(passed))),
        turn: match status.turn {
            TurnStage::Idle => None,
            TurnStage::Waits => Some(PeerTurn::Waits),
            TurnStage::Has => Some(PeerTurn::Has),
        },
    }
}

/// To the millisecond.
fn signed_seconds(micros: i64) -> f64 {
    let size = seconds(Duration::from_micros(micros.unsigned_abs()));
    if micros < 0 { -size } else { size }
}
