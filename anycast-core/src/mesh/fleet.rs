//! Between a running node and the mesh: how this node's services are goes out, and what the peers
//! say of theirs comes in, to the machine's [panic threshold](crate::machine::PanicPolicy).
//!
//! A peer is a member of a service's fleet once it has named the service, and stays one when it is
//! gone: its report grows old, and says nothing any more ([`PanicPolicy::fresh_for`]).
//!
//! # Tasks
//! One that follows each service, one that gathers what they say, one that passes on what peers
//! say. They end when [`Joined`] is dropped, when the mesh has gone, or when the node has. Nothing
//! of the node waits for them.
//!
//! [`PanicPolicy::fresh_for`]: crate::machine::PanicPolicy::fresh_for

#![allow(
    clippy::disallowed_methods,
    reason = "runtime module: durations are counted from real time"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::engine::PeerView;
use super::transport::{Mesh, Views};
use super::wire::{MAX_SERVICES, ServiceStatus};
use crate::announce::Preference;
use crate::machine::PeerReport;
use crate::node::{NodeError, NodeHandle, Snapshot};
use crate::reconcile::Confirmation;
use crate::service::{NodeName, ServiceName};

/// States of this node's services on their way out. When it is full the followers wait, and pass on
/// the latest state afterwards.
const NEWS: usize = 64;

/// A node that takes part. Dropped, it does not any more.
#[derive(Debug)]
pub struct Joined {
    _tasks: JoinSet<()>,
}

/// Has `node` take part in `mesh` with these of its services: the first [`MAX_SERVICES`]. Must be
/// called within a tokio runtime.
///
/// # Errors
/// [`NodeError::UnknownService`].
pub fn join(node: &NodeHandle, mesh: &Mesh, services: &[ServiceName]) -> Result<Joined, NodeError> {
    let mut tasks = JoinSet::new();
    let (tell, news) = mpsc::channel(NEWS);
    for service in services.iter().take(MAX_SERVICES) {
        tasks.spawn(follow(node.watch(service)?, tell.clone()));
    }
    tasks.spawn(gather(news, mesh.speaker()));
    tasks.spawn(pass_on(node.clone(), services.to_vec(), mesh.views()));
    Ok(Joined { _tasks: tasks })
}

async fn follow(mut state: watch::Receiver<Snapshot>, tell: mpsc::Sender<ServiceStatus>) {
    loop {
        let status = status_of(&state.borrow_and_update(), Instant::now());
        if tell.send(status).await.is_err() || state.changed().await.is_err() {
            return;
        }
    }
}

async fn gather(
    mut news: mpsc::Receiver<ServiceStatus>,
    speaker: watch::Sender<Vec<ServiceStatus>>,
) {
    // With when it was said: a service that fails has failed for longer when another changes.
    let mut all: BTreeMap<ServiceName, (Instant, ServiceStatus)> = BTreeMap::new();
    while let Some(status) = news.recv().await {
        let now = Instant::now();
        all.insert(status.name.clone(), (now, status));
        let aged = all.values().map(|(said, status)| aged(status, now - *said));
        speaker.send_replace(aged.collect());
    }
}

fn aged(status: &ServiceStatus, by: Duration) -> ServiceStatus {
    let by = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
    ServiceStatus {
        failing_for: status.failing_for.map(|time| time.saturating_add(by)),
        ..status.clone()
    }
}

fn status_of(snapshot: &Snapshot, now: Instant) -> ServiceStatus {
    let failing = snapshot
        .failing_since
        .map(|since| now.saturating_duration_since(since).as_millis());
    ServiceStatus {
        name: snapshot.service.clone(),
        preferred: snapshot.preference == Preference::Preferred
            && snapshot.confirmation == Confirmation::Confirmed,
        draining: snapshot.intent.is_some() || snapshot.drain.is_some(),
        failing_for: failing.map(|time| u64::try_from(time).unwrap_or(u64::MAX)),
    }
}

async fn pass_on(node: NodeHandle, services: Vec<ServiceName>, mut views: watch::Receiver<Views>) {
    let mut members: BTreeMap<ServiceName, BTreeSet<NodeName>> = BTreeMap::new();
    let mut passed: BTreeMap<NodeName, Instant> = BTreeMap::new();
    loop {
        let now: Views = views.borrow_and_update().clone();
        for (peer, view) in &now {
            let Some(said_at) = view.services_at else {
                continue;
            };
            if passed.insert(peer.clone(), said_at) == Some(said_at) {
                continue;
            }
            for service in &services {
                let Some(report) = report_of(view, service, said_at) else {
                    continue;
                };
                let fleet = members.entry(service.clone()).or_default();
                if fleet.insert(peer.clone()) {
                    let fleet = fleet.iter().cloned().collect();
                    if node.set_members(service, fleet).await.is_err() {
                        return;
                    }
                }
                if node
                    .report_peer(service, peer.clone(), report)
                    .await
                    .is_err()
                {
                    return;
                }
            }
        }
        if views.changed().await.is_err() {
            return;
        }
    }
}

/// What the peer said of a service; `None`: it has none of that name.
fn report_of(view: &PeerView, service: &ServiceName, said_at: Instant) -> Option<PeerReport> {
    let status = view.services.iter().find(|one| one.name == *service)?;
    let failing = status.failing_for.map(Duration::from_millis);
    Some(PeerReport {
        heard_at: said_at,
        preferred: status.preferred,
        draining: status.draining,
        // Longer than the clock knows is long ago.
        failing_since: failing.map(|time| said_at.checked_sub(time).unwrap_or(said_at)),
    })
}
