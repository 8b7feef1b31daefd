//! What a node shows of the others: the mesh as it sees it.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::status::seconds;
use crate::catchment::Clients;
use crate::health::Reason;
use crate::service::{CheckName, NodeName, ServiceName};

/// The mesh of a node, as `/status` gives it. Ages are in seconds.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct MeshStatus {
    /// Where this node listens (UDP).
    pub listen: SocketAddr,
    /// Whose requests this node answers; absent where it does not count them.
    pub clients: Option<ClientsStatus>,
    /// Who gives the turns to join and to leave, as far as this node sees; absent where nobody does.
    pub giver: Option<NodeName>,
    /// The others, in order of name.
    pub peers: Vec<MeshPeerStatus>,
}

/// What is known of one peer. What it said is absent until it is first heard, and stays when it is
/// gone, as old as it is.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct MeshPeerStatus {
    /// Its name.
    pub node: NodeName,
    /// Where it is looked for.
    pub address: Option<SocketAddr>,
    /// How long there has been a connection; absent while there is none.
    pub up_age_s: Option<f64>,
    /// Why there is none; absent while there is one, or none was tried.
    pub down_reason: Option<Reason>,
    /// How long ago its last message came.
    pub heard_age_s: Option<f64>,
    /// The version of the mesh's protocol that is spoken with it.
    pub version: Option<u16>,
    /// The version of its software.
    pub software: Option<Reason>,
    /// What its wall clock is ahead of this node's, in seconds; behind: below zero.
    pub clock_offset_s: Option<f64>,
    /// How much that may be off.
    pub clock_error_s: Option<f64>,
    /// How long ago it said how its services are.
    pub said_age_s: Option<f64>,
    /// How they are.
    pub services: Vec<PeerServiceStatus>,
    /// How fit its data are to be served from, where it says so.
    pub data: Vec<DataSetStatus>,
    /// Whose requests it answers, where it says so.
    pub clients: Option<ClientsStatus>,
}

/// One service of a peer.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct PeerServiceStatus {
    /// The service.
    pub name: ServiceName,
    /// Whether it is announced as preferred, and that is in force.
    pub preferred: bool,
    /// Whether an operator has drained or withdrawn it.
    pub draining: bool,
    /// How long it has not been healthy; absent when it is.
    pub failing_age_s: Option<f64>,
    /// Its turn to join or to leave; absent when it wants none.
    pub turn: Option<PeerTurn>,
}

/// The turn of a peer's service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(rename_all = "lowercase")
)]
pub enum PeerTurn {
    /// It waits for it.
    Waits,
    /// It has it.
    Has,
}

/// A set of data of a peer: files, leases.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct DataSetStatus {
    /// Which.
    pub name: CheckName,
    /// Whether the node may be preferred as far as this set is concerned.
    pub ready: bool,
    /// Why, or why not, where it says so.
    pub reason: Option<Reason>,
    /// How many items it lacks, where it knows.
    pub behind: Option<u64>,
}

/// Whose requests a node answers, counted with decay.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct ClientsStatus {
    /// The requests of all networks.
    pub total: u64,
    /// The networks that ask most, the first one first.
    pub top: Vec<ClientNetworkStatus>,
    /// How long ago that was said.
    pub age_s: f64,
}

/// The clients of one network.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct ClientNetworkStatus {
    /// The network.
    #[cfg_attr(feature = "serde", serde(serialize_with = "as_text"))]
    pub network: IpNet,
    /// Its requests.
    pub requests: u64,
}

#[cfg(feature = "serde")]
fn as_text<S: serde::Serializer>(network: &IpNet, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(network)
}

impl ClientsStatus {
    /// What was counted, so long ago.
    #[must_use]
    pub fn new(clients: &Clients, age: Duration) -> Self {
        let networks = clients.top.iter();
        let top = networks.map(|(network, requests)| ClientNetworkStatus {
            network: *network,
            requests: *requests,
        });
        Self {
            total: clients.total,
            top: top.collect(),
            age_s: seconds(age),
        }
    }
}

type Tell = dyn Fn(Instant) -> MeshStatus + Send + Sync;

/// Where the mesh of a node puts what it knows; shared by the node's handles.
#[derive(Clone, Default)]
pub(crate) struct MeshSlot(Arc<Mutex<Option<Arc<Tell>>>>);

impl MeshSlot {
    #[cfg(feature = "mesh")]
    pub(crate) fn fill(&self, tell: impl Fn(Instant) -> MeshStatus + Send + Sync + 'static) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(tell));
    }

    pub(crate) fn tell(&self, now: Instant) -> Option<MeshStatus> {
        let tell = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        tell.map(|tell| tell(now))
    }
}

impl fmt::Debug for MeshSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MeshSlot")
    }
}
