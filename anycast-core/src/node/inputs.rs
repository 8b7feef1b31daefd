//! What reaches a machine beside its checks: readiness, and what is heard of the fleet; and
//! the record of all of it.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::MissedTickBehavior;

use super::{AbortOnDrop, spawn};
use crate::announce::InForce;
use crate::health::Reason;
use crate::machine::{Input, Machine, PeerReport, Readiness, Turn};
use crate::service::{CheckName, NodeName};
use crate::sync;

/// Readiness on its way to one decision loop; when it is full its source waits, and the latest
/// state is passed on afterwards.
const READINESS_QUEUE: usize = 16;
/// Longest time a [`sync::Sync`] may take to answer; its answer is `Unknown` then.
const SYNC_TIMEOUT: Duration = Duration::from_secs(2);

/// An input of readiness: data in step, a right clock, room on the disk, addresses left.
///
/// The node is not preferred while one is [`Readiness::NotReady`]. The latest value counts;
/// when the sender is dropped it is [`Readiness::Unknown`], which changes nothing.
#[derive(Debug, Clone)]
pub struct ReadinessSpec {
    /// Its name, unique within the service.
    pub name: CheckName,
    /// What it says.
    pub state: watch::Receiver<Readiness>,
}

impl ReadinessSpec {
    /// Asks a data set every `every` whether it is fit to be served from, within two seconds;
    /// an error or a silence is [`Readiness::Unknown`]. Must be called within a tokio runtime;
    /// the task ends when every receiver has gone.
    #[must_use]
    pub fn of_sync(name: CheckName, data: Arc<dyn sync::Sync>, every: Duration) -> Self {
        let (tell, state) = watch::channel(Readiness::Unknown("not asked yet".into()));
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(every.max(Duration::from_millis(10)));
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    _ = ticks.tick() => {}
                    () = tell.closed() => return,
                }
                let answer = tokio::time::timeout(SYNC_TIMEOUT, data.status()).await;
                let now = match answer {
                    Ok(Ok(status)) if status.ready => Readiness::Ready,
                    Ok(Ok(status)) => Readiness::NotReady(status.reason),
                    Ok(Err(error)) => {
                        Readiness::Unknown(super::announcer::full_text(&error).into())
                    }
                    Err(_) => {
                        let reason = format!("no answer within {SYNC_TIMEOUT:?}");
                        Readiness::Unknown(reason.into())
                    }
                };
                tell.send_if_modified(|old| {
                    let changed = *old != now;
                    *old = now;
                    changed
                });
            }
        });
        Self { name, state }
    }
}

/// Passes every source's latest state on until the handles are dropped.
pub(super) fn listen(
    sources: Vec<ReadinessSpec>,
) -> (Vec<AbortOnDrop>, mpsc::Receiver<(CheckName, Readiness)>) {
    let (tell, heard) = mpsc::channel(READINESS_QUEUE);
    let tasks = sources.into_iter().map(|source| {
        let tell = tell.clone();
        spawn(async move {
            let ReadinessSpec { name, mut state } = source;
            loop {
                let now = state.borrow_and_update().clone();
                if tell.send((name.clone(), now)).await.is_err() {
                    return;
                }
                if state.changed().await.is_err() {
                    let reason = Reason::from("its source has ended");
                    // A loop that has gone hears nothing more.
                    let _ = tell.send((name, Readiness::Unknown(reason))).await;
                    return;
                }
            }
        })
    });
    (tasks.collect(), heard)
}

/// What is heard of the fleet, for one service.
#[derive(Debug)]
pub(crate) enum FleetNews {
    Members(Vec<NodeName>),
    Peer(NodeName, PeerReport),
    Grant(NodeName, Instant),
    GrantRequest(NodeName, Duration, oneshot::Sender<Option<Duration>>),
    Turn(Turn),
}

/// A machine, and the record of what it was told.
pub(super) struct Recorded {
    machine: Machine,
    #[cfg(feature = "record")]
    recorder: crate::record::Recorder,
}

impl Recorded {
    pub(super) fn new(
        machine: Machine,
        node: &NodeName,
        observed: Option<InForce>,
        now: Instant,
    ) -> Self {
        #[cfg(not(feature = "record"))]
        let _ = (node, observed, now);
        Self {
            #[cfg(feature = "record")]
            recorder: crate::record::Recorder::new(&machine, node, observed, now),
            machine,
        }
    }

    /// Gives the machine an input, and writes it down.
    pub(super) fn hear(&mut self, now: Instant, input: &Input) {
        #[cfg(feature = "record")]
        self.recorder.handle(&mut self.machine, now, input);
        #[cfg(not(feature = "record"))]
        self.machine.handle(now, input);
    }

    /// Only a node that `stays`, its preference being in force, grants anything.
    pub(super) fn hear_fleet(&mut self, now: Instant, news: FleetNews, stays: bool) {
        match news {
            FleetNews::Members(members) => self.hear(now, &Input::Members(members)),
            FleetNews::Peer(peer, report) => self.hear(now, &Input::Peer(peer, report)),
            FleetNews::Grant(peer, until) => self.hear(now, &Input::Grant(peer, until)),
            FleetNews::Turn(turn) => self.hear(now, &Input::Turn(turn)),
            FleetNews::GrantRequest(_, _, answer) if !stays => {
                // Whoever asked may have gone.
                let _ = answer.send(None);
            }
            FleetNews::GrantRequest(peer, duration, answer) => {
                // Asking twice gives the same promise; the first time it is written down.
                self.hear(now, &Input::GrantRequest(peer.clone(), duration));
                let granted = self.machine.handle_grant_request(now, peer, duration);
                // Whoever asked may have gone; the promise stands all the same.
                let _ = answer.send(granted);
            }
        }
    }

    /// The record as text.
    #[cfg(feature = "record")]
    pub(super) fn record(&self) -> String {
        self.recorder.to_text()
    }
}

impl Deref for Recorded {
    type Target = Machine;

    fn deref(&self) -> &Machine {
        &self.machine
    }
}

impl DerefMut for Recorded {
    fn deref_mut(&mut self) -> &mut Machine {
        &mut self.machine
    }
}
