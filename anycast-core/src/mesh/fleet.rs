//! Between a running node and the mesh: how this node's services are goes out, and what the peers
//! say of theirs comes in, to the machine's [panic threshold](crate::machine::PanicPolicy). So do
//! promises not to withdraw (F5): while a service's machine wants them its peers are asked, and
//! what peers ask its machine answers. And so do turns: what a machine with a
//! [`TurnPolicy`](crate::machine::TurnPolicy) wants goes to whoever gives them, and it hears whose
//! turn it is.
//!
//! A peer is a member of a service's fleet once it has named the service, and stays one when it is
//! gone: its report grows old, and says nothing any more ([`PanicPolicy::fresh_for`]).
//!
//! # Tasks
//! One that follows each service, one that gathers what they say, one that passes on what peers
//! say, one that passes on whose turn it is, one that passes on what they ask and promise, with one
//! for each request. They end when [`Joined`] is dropped, when the mesh has gone, or when the node has. Nothing
//! of the node waits for them.
//!
//! [`PanicPolicy::fresh_for`]: crate::machine::PanicPolicy::fresh_for

#![allow(
    clippy::disallowed_methods,
    reason = "runtime module: durations are counted from real time"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, timeout};

use super::engine::turns::{Need, Part, TurnState};
use super::engine::{Answer, CLIENTS_EVERY, Output, PeerView, TurnsView};
use super::status;
use super::transport::{Line, Mesh, Views};
use super::wire::{
    Clients, DataStatus, MAX_DATA_SETS, MAX_NETWORKS, MAX_SERVICES, ServiceStatus, TurnStage,
    WaitsFor,
};
use crate::CheckName;
use crate::announce::Preference;
use crate::health::Reason;
use crate::machine::{MAX_GRANT, Move, PeerReport, Turn};
use crate::node::{ClientsStatus, MeshStatus, NodeError, NodeHandle, Snapshot, TurnSnapshot};
use crate::reconcile::Confirmation;
use crate::service::{NodeName, ServiceName};
use crate::sync::{Lag, Sync};

/// States of this node's services on their way out. When it is full the followers wait, and pass on
/// the latest state afterwards.
const NEWS: usize = 64;
/// Requests for promises that are answered at once; further ones are dropped, and made again.
const REQUESTS: usize = 64;
/// How long one service may take to answer; it then counts as one that has not.
const SERVICE_TIME: Duration = Duration::from_millis(200);
/// How long all services of a request may take; those that are left count likewise.
const REQUEST_TIME: Duration = Duration::from_secs(1);

/// A node that takes part. Dropped, it does not any more.
#[derive(Debug)]
pub struct Joined {
    tasks: JoinSet<()>,
    line: Line,
}

/// A data set of which peers hear. Dropped, they hear of it no more.
#[derive(Debug)]
pub struct Telling {
    line: Line,
    name: CheckName,
    _tasks: JoinSet<()>,
}

impl Drop for Telling {
    fn drop(&mut self) {
        let said = &self.line.said;
        said.send_modify(|said| said.data.retain(|one| one.name != self.name));
    }
}

/// Has peers hear how fit this data set is to be served from, as it says every `every`. Must be
/// called within a tokio runtime.
#[must_use]
pub fn tell_data(mesh: &Mesh, name: CheckName, data: Arc<dyn Sync>, every: Duration) -> Telling {
    let line = mesh.line();
    let (said, called) = (line.said.clone(), name.clone());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut ticks = tokio::time::interval(every.max(Duration::from_millis(10)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let now = data_status(&called, &*data).await;
            said.send_if_modified(|said| {
                let known = said.data.iter().position(|one| one.name == called);
                match known.and_then(|known| said.data.get_mut(known)) {
                    Some(known) => std::mem::replace(known, now.clone()) != now,
                    None => {
                        said.data.push(now);
                        said.data.truncate(MAX_DATA_SETS);
                        true
                    }
                }
            });
        }
    });
    Telling {
        line,
        name,
        _tasks: tasks,
    }
}

async fn data_status(name: &CheckName, data: &dyn Sync) -> DataStatus {
    let (ready, reason) = match data.status().await {
        Ok(status) => (status.ready, status.reason),
        Err(error) => (false, Reason::new(&error.to_string())),
    };
    let behind = match data.lag().await {
        Ok(Lag::None) => Some(0),
        Ok(Lag::Behind { items, .. }) => Some(items),
        Ok(Lag::Unknown) | Err(_) => None,
    };
    DataStatus {
        name: name.clone(),
        ready,
        reason: Some(reason),
        behind,
    }
}

impl Joined {
    /// Has peers hear whose requests this node answers, as `tell` says each time it is due
    /// ([`CLIENTS_EVERY`]), at most so many networks ([`MAX_NETWORKS`]): see
    /// [`catchment`](crate::catchment). Must be called within a tokio runtime; `tell` must not
    /// block for long.
    pub fn tell_clients(&mut self, tell: impl Fn(Instant, usize) -> Clients + Send + 'static) {
        let said = self.line.said.clone();
        self.tasks.spawn(async move {
            let mut ticks = tokio::time::interval(CLIENTS_EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let mut clients = tell(Instant::now(), MAX_NETWORKS);
                clients.top.truncate(MAX_NETWORKS);
                said.send_modify(|said| said.clients = Some(clients));
            }
        });
    }
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
    let line = mesh.line();
    show(node, mesh);
    tasks.spawn(consent(node.clone(), line.listen(), line.clone()));
    tasks.spawn(gather(news, line));
    tasks.spawn(pass_on(node.clone(), services.to_vec(), mesh.views()));
    let line = mesh.line();
    tasks.spawn(tell_turns(node.clone(), line.turns.clone()));
    Ok(Joined { tasks, line })
}

/// Has `/status` and the metrics of the node tell of the mesh: [`join`] does so too. It is for a node
/// that announces nothing, and takes no part in what the others decide.
pub fn show(node: &NodeHandle, mesh: &Mesh) {
    let (listen, addresses) = (mesh.address(), mesh.addresses().clone());
    let line = mesh.line();
    let (views, said, turns) = (mesh.views(), line.said, line.turns);
    node.show_mesh(move |now| {
        let views = views.borrow().clone();
        let peers = views.iter();
        let peers = peers.map(|(name, view)| status::peer(name, view, &addresses, now));
        let clients = said.borrow().clients.clone();
        MeshStatus {
            listen,
            clients: clients.map(|told| ClientsStatus::new(&told, Duration::ZERO)),
            giver: turns.borrow().giver.clone(),
            peers: peers.collect(),
        }
    });
}

/// How a service is, and what it wants of the others.
struct News {
    status: ServiceStatus,
    wants_grants: bool,
    part: Option<Part>,
}

async fn follow(mut state: watch::Receiver<Snapshot>, tell: mpsc::Sender<News>) {
    loop {
        let news = {
            let snapshot = state.borrow_and_update();
            News {
                status: status_of(&snapshot, Instant::now()),
                wants_grants: snapshot.wants_grants,
                part: snapshot.turn.as_ref().map(part_of),
            }
        };
        if tell.send(news).await.is_err() || state.changed().await.is_err() {
            return;
        }
    }
}

async fn gather(mut news: mpsc::Receiver<News>, line: Line) {
    // With when it was said: a service that fails has failed for longer when another changes.
    let mut all: BTreeMap<ServiceName, (Instant, ServiceStatus)> = BTreeMap::new();
    while let Some(News {
        status,
        wants_grants,
        part,
    }) = news.recv().await
    {
        let now = Instant::now();
        let name = status.name.clone();
        all.insert(name.clone(), (now, status));
        let services = all.values().map(|(said, status)| aged(status, now - *said));
        let services = services.collect();
        line.said.send_modify(|said| {
            said.services = services;
            said.at = Some(now);
            match part {
                Some(part) => drop(said.parts.insert(name.clone(), part)),
                None => drop(said.parts.remove(&name)),
            }
            if wants_grants {
                said.wants.insert(name);
            } else {
                said.wants.remove(&name);
            }
        });
    }
}

/// Passes on what peers ask and promise.
async fn consent(node: NodeHandle, mut asks: mpsc::Receiver<Output>, line: Line) {
    let mut requests = JoinSet::new();
    while let Some(output) = asks.recv().await {
        while requests.try_join_next().is_some() {}
        match output {
            Output::Asked {
                peer,
                connection,
                id,
                duration,
                services,
            } if requests.len() < REQUESTS => {
                let (node, line) = (node.clone(), line.clone());
                requests.spawn(async move {
                    let mut answer = Answer {
                        peer,
                        connection,
                        id,
                        duration: duration.min(MAX_GRANT),
                        granted: Vec::new(),
                        refused: Vec::new(),
                    };
                    let asking = promise(&node, services, &mut answer);
                    // What was answered by then is sent.
                    let _ = timeout(REQUEST_TIME, asking).await;
                    line.answer(answer).await;
                });
            }
            Output::Granted {
                peer,
                until,
                granted,
                refused,
            } => {
                for (services, until) in [(granted, Some(until)), (refused, None)] {
                    for service in services {
                        // In the past: it is taken back.
                        let until = until.unwrap_or_else(Instant::now);
                        let taken = node.take_grant(&service, peer.clone(), until);
                        // A loop that has ended withdraws nothing; one that hangs must not hold
                        // up the others.
                        let _ = timeout(SERVICE_TIME, taken).await;
                    }
                }
            }
            Output::Asked { .. }
            | Output::Send(..)
            | Output::Close(..)
            | Output::Up(_)
            | Output::Down(..)
            | Output::Heard { .. } => {}
        }
    }
}

/// Asks this node's services for their promises.
async fn promise(node: &NodeHandle, services: Vec<ServiceName>, answer: &mut Answer) {
    for service in services {
        let asked = node.request_grant(&service, answer.peer.clone(), answer.duration);
        match timeout(SERVICE_TIME, asked).await {
            Ok(Ok(Some(promised))) => {
                answer.duration = answer.duration.min(promised);
                answer.granted.push(service);
            }
            // Not preferred, ended, or none of that name.
            Ok(Ok(None) | Err(_)) => answer.refused.push(service),
            Err(_) => {} // it may have promised
        }
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
        outlives: snapshot
            .dead_man
            .map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
        turn: TurnStage::Idle, // the engine says
    }
}

fn part_of(turn: &TurnSnapshot) -> Part {
    let leaves = |change| change == Move::Leave;
    Part {
        spacing: turn.policy.spacing,
        need: match (turn.wants, turn.uses) {
            (Some(change), _) => Need::Turn {
                leaves: leaves(change),
            },
            (None, Some(change)) => Need::Uses {
                leaves: leaves(change),
            },
            (None, None) => Need::Nothing,
        },
    }
}

/// Has each service that takes part know how it stands with its turn.
async fn tell_turns(node: NodeHandle, mut turns: watch::Receiver<TurnsView>) {
    let mut told: BTreeMap<ServiceName, TurnState> = BTreeMap::new();
    loop {
        let now = turns.borrow_and_update().services.clone();
        for (service, state) in &now {
            if told.get(service) == Some(state) {
                continue;
            }
            let telling = node.tell_turn(service, turn_of(state));
            // A loop that has ended changes nothing; one that hangs must not hold up the others,
            // and is told when it changes next.
            let _ = timeout(SERVICE_TIME, telling).await;
        }
        told = now;
        if turns.changed().await.is_err() {
            return;
        }
    }
}

fn turn_of(state: &TurnState) -> Turn {
    let (giver, what) = match state {
        TurnState::Has { until } => return Turn::Yours { until: *until },
        TurnState::CutOff { seen, of } => {
            let reason = format!("{seen} of {of} nodes of the fleet are seen, no majority");
            return Turn::CutOff(reason.into());
        }
        TurnState::Waits { giver, what } => (giver, what),
    };
    let reason = match (giver, what) {
        (_, WaitsFor::Node { node, leaves: true }) => format!("{node} leaves"),
        (_, WaitsFor::Node { node, .. }) => format!("{node} joins"),
        (_, WaitsFor::Settling) => "the last change has to settle".to_owned(),
        (Some(giver), WaitsFor::Beginning) => {
            format!("{giver} has begun to give turns, and those before have to end")
        }
        (Some(giver), WaitsFor::Nothing) => format!("{giver} is asked"),
        (None, WaitsFor::Beginning | WaitsFor::Nothing) => "nobody gives turns".to_owned(),
    };
    Turn::Waits(reason.into())
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
