//! The mesh over real sockets: QUIC connections in, views of the peers out.
//!
//! # Tasks
//!
//! - One for the [engine](super::engine), with every peer's state; it never waits for a peer.
//! - One that accepts. A source address is proven first (a Retry, RFC 9000, section 8.1.2). The
//!   addresses of the configured peers have a door of their own, with [`HANDSHAKES_OF_PEER`] places
//!   for handshakes each; strangers share another with [`HANDSHAKES`]. Who finds his door full, or
//!   comes too often ([`HANDSHAKE_EVERY`]), is refused without any state.
//! - One for each peer that this node dials: connects, serves, and after the end again, with
//!   back-off from [`BACK_OFF_MIN`] to [`BACK_OFF_MAX`] and jitter.
//! - One for each connection: reads frames, and writes what the engine says; takes the peer's
//!   [streams] and [datagrams] once the peer is up, with a task for each stream until it has said
//!   what it is for.
//!
//! # Queues
//!
//! | queue | holds | when it is full |
//! |---|---|---|
//! | [`INBOX`] | what comes from all connections | their readers wait, each within its rate |
//! | [`CONSENT`] | what peers ask and promise, on its way to the node | it is dropped: nothing is promised, which can only demote |
//! | [`OUTBOX`], one for each connection | what the engine says to it | the peer does not read: the connection is ended |
//! | the watched views | the latest state | never: the latest replaces what nobody has seen |
//!
//! Those of streams and datagrams are in [`streams`] and [`datagrams`]. What a peer that is let in
//! can make this node hold is bounded by the windows of its streams ([`streams::STREAM_WINDOW`]):
//! 98 MiB, if whoever reads them does not. The control stream is sent first, then leases, transfers
//! and files.
//!
//! # Time
//!
//! Each connection sends something every [`KEEP_ALIVE`]; one that is silent for [`SILENCE`] is over.
//! A frame that has begun is whole within [`FRAME_TIME`], there and here: a peer that does not take
//! one for so long is cut off.
//!
//! # Failed handshakes
//!
//! Anybody can make one fail: one in [`TELL_EVERY`] is logged, with its remote address and reason,
//! and with how many were `untold` since the one before. That count comes with the next one that is
//! logged; after the last it stays untold. What this node dials is another matter: each new reason
//! is logged and is the peer's `down_reason` in `/status`.
//!
//! # Cancellation
//!
//! Dropping [`Mesh`] ends every task; peers are told (CONNECTION_CLOSE) where the runtime still
//! runs for a moment, and notice after [`SILENCE`] where it does not.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "runtime module: sockets, and the time of day"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use quinn::{Connection, Endpoint, EndpointConfig, TokioRuntime, TransportConfig, VarInt};
use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_send_buffer_size};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout_at;

use self::datagrams::Letterboxes;
use self::dial::dial;
use self::drive::{Inbox, drive};
pub use self::line::CONSENT;
pub(super) use self::line::{Line, Said};
pub use self::listen::TELL_EVERY;
use self::listen::accept;
use self::streams::{Ports, STREAM_WINDOW};
use super::engine::{Engine, PeerView, TurnsView};
use super::identity::{Fingerprint, Identity};
use super::tls::{self, Pins};
use super::wire::{Clients, DataStatus, ServiceStatus};
use crate::service::NodeName;

pub use self::datagrams::{DatagramError, Datagrams};
pub use self::streams::{
    Arrival, Incoming, OPEN_TIME, OpenError, Purpose, Receiver, Refusal, Sender, StreamError,
};

pub mod datagrams;
mod dial;
mod drive;
pub mod frames;
mod line;
mod link;
mod listen;
pub mod streams;

/// Handshakes of strangers that are under way at once; more are refused.
pub const HANDSHAKES: usize = 32;
/// Handshakes from the address of a configured peer that are; more are refused.
pub const HANDSHAKES_OF_PEER: usize = 8;
/// Twice as many may begin in a moment, and then one in this time; more are refused.
pub const HANDSHAKE_EVERY: Duration = Duration::from_millis(50);
/// Connections of one peer that are taken in a moment; one that comes more often is cut off.
pub const CONNECTIONS_AT_ONCE: u32 = 8;
/// And then one in this time.
pub const CONNECTIONS_EVERY: Duration = Duration::from_secs(1);
/// How long one may take.
pub const HANDSHAKE_TIME: Duration = Duration::from_secs(3);
/// Messages of all peers on their way to the engine.
pub const INBOX: usize = 1024;
/// Messages on their way to one peer: more than the answers to a burst that it may send
/// ([`BURST`](super::engine::BURST)).
pub const OUTBOX: usize = 128;
/// How often a connection that has nothing to say says so.
pub const KEEP_ALIVE: Duration = Duration::from_millis(250);
/// After so long a silence it is over.
pub const SILENCE: Duration = Duration::from_secs(1);
/// From the first byte of a frame of the control stream to its last.
pub const FRAME_TIME: Duration = Duration::from_secs(5);
/// First pause before dialling again.
pub const BACK_OFF_MIN: Duration = Duration::from_millis(100);
/// Longest pause: as short as the time in which routes come back, since transfers that begin before the mesh
/// is back are held by one node. It costs each pair of nodes one packet a second.
pub const BACK_OFF_MAX: Duration = Duration::from_secs(1);
/// A connection that lasted so long was a good one: the next is dialled at once.
pub const STEADY: Duration = Duration::from_secs(5);
/// Most peers.
pub const MAX_PEERS: usize = 256;

/// One of the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerConfig {
    /// What it calls itself.
    pub name: NodeName,
    /// Where it listens: a unicast address of its own, never the service address.
    pub address: SocketAddr,
    /// Its key; two while it is exchanged for another.
    pub fingerprints: Vec<Fingerprint>,
}

/// A node, and its peers.
#[derive(Debug)]
pub struct MeshConfig {
    /// What this node calls itself.
    pub name: NodeName,
    /// Where it listens (UDP): a unicast address of its own. Port 0: any.
    pub listen: SocketAddr,
    /// Its key.
    pub identity: Identity,
    /// The others: at most [`MAX_PEERS`].
    pub peers: Vec<PeerConfig>,
}

/// Why the mesh does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MeshError {
    /// The address cannot be listened at.
    #[error("cannot listen at {address} (UDP): {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system answered.
        source: io::Error,
    },
    /// A peer has this node's own name.
    #[error("peer {0} has this node's own name")]
    Own(NodeName),
    /// Two peers with one name.
    #[error("peer {0} is there twice")]
    Twice(NodeName),
    /// One key for two.
    #[error("peers {0} and {1} have the same fingerprint; each node has a key of its own")]
    SameKey(NodeName, NodeName),
    /// A peer without a key.
    #[error("peer {0} has no fingerprint, so nobody could be it")]
    NoKey(NodeName),
    /// More than [`MAX_PEERS`].
    #[error("{0} peers; at most {MAX_PEERS} are allowed")]
    Many(usize),
    /// TLS does not take the key.
    #[error("the key cannot be used: {0}")]
    Key(String),
}

/// Every peer, and what is known of it.
pub type Views = Vec<(NodeName, PeerView)>;

/// The peers that are up.
type Connections = BTreeMap<NodeName, Connection>;

/// A running mesh. See the [module documentation](self).
#[derive(Debug)]
pub struct Mesh {
    address: SocketAddr,
    addresses: BTreeMap<NodeName, SocketAddr>,
    line: Line,
    handle: MeshHandle,
    up: watch::Sender<Connections>,
    endpoint: Endpoint,
    _tasks: JoinSet<()>,
}

/// The way to the peers, for those who talk with them. Cheap to clone; it does not keep the mesh
/// running.
#[derive(Debug, Clone)]
pub struct MeshHandle {
    shared: Arc<Shared>,
    views: watch::Receiver<Views>,
    up: watch::Receiver<Connections>,
    /// For the streams that this node opens.
    places: Arc<BTreeMap<(NodeName, Purpose), Arc<Semaphore>>>,
}

impl Mesh {
    /// Listens and dials. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`MeshError`]; a peer that is not there is none.
    pub fn start(config: MeshConfig) -> Result<Self, MeshError> {
        let pins = pins(&config)?;
        let endpoint = endpoint(&config, &pins)?;
        let address = endpoint.local_addr().map_err(|source| MeshError::Listen {
            address: config.listen,
            source,
        })?;
        let names: Vec<_> = config.peers.iter().map(|peer| peer.name.clone()).collect();
        let places = names.iter().flat_map(|name| {
            Purpose::ALL.map(|purpose| {
                let places = Arc::new(Semaphore::new(purpose.at_once()));
                ((name.clone(), purpose), places)
            })
        });
        let places = Arc::new(places.collect());
        let incarnation = RandomState::new().build_hasher().finish();
        let engine = Engine::new(Instant::now(), config.name.clone(), incarnation, names);
        let (said, heard) = watch::channel(Said::default());
        let (asks, asked) = watch::channel(None);
        let (publish, views) = watch::channel(Vec::new());
        let (publish_turns, turns) = watch::channel(TurnsView::default());
        let (up, is_up) = watch::channel(Connections::new());
        let (inbox, outside) = mpsc::channel(INBOX);
        let line = Line {
            said,
            answers: inbox.clone(),
            asks,
            turns,
        };
        let shared = Arc::new(Shared {
            inbox,
            pins,
            connections: AtomicU64::new(0),
            ports: Ports::default(),
            letterboxes: Letterboxes::default(),
        });
        let doors = config.peers.iter().map(|peer| peer.address.ip()).collect();
        let addresses = config.peers.iter();
        let addresses = addresses.map(|peer| (peer.name.clone(), peer.address));
        let addresses = addresses.collect();
        let mut tasks = JoinSet::new();
        let publish = (publish, publish_turns);
        tasks.spawn(drive(engine, outside, (heard, asked), publish, up.clone()));
        tasks.spawn(accept(endpoint.clone(), doors, Arc::clone(&shared)));
        for peer in config.peers {
            if config.name < peer.name {
                tasks.spawn(dial(endpoint.clone(), peer, Arc::clone(&shared)));
            }
        }
        let handle = MeshHandle {
            shared,
            views,
            up: is_up,
            places,
        };
        Ok(Self {
            address,
            addresses,
            line,
            handle,
            up,
            endpoint,
            _tasks: tasks,
        })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// This node's services are these now; `failing_for` is counted on from here.
    pub fn set_services(&self, services: Vec<ServiceStatus>) {
        self.line.said.send_modify(|said| {
            said.services = services;
            said.at = Some(Instant::now());
        });
    }

    /// How fit this node's data are to be served from: the first [`MAX_DATA_SETS`].
    ///
    /// [`MAX_DATA_SETS`]: super::wire::MAX_DATA_SETS
    pub fn set_data(&self, mut data: Vec<DataStatus>) {
        data.truncate(super::wire::MAX_DATA_SETS);
        self.line.said.send_modify(|said| said.data = data);
    }

    /// Whose requests this node answers: the first [`MAX_NETWORKS`]. Peers hear of it seldom
    /// ([`CLIENTS_EVERY`]).
    ///
    /// [`MAX_NETWORKS`]: super::wire::MAX_NETWORKS
    /// [`CLIENTS_EVERY`]: super::engine::CLIENTS_EVERY
    pub fn set_clients(&self, mut clients: Clients) {
        clients.top.truncate(super::wire::MAX_NETWORKS);
        self.line
            .said
            .send_modify(|said| said.clients = Some(clients));
    }

    /// For the tasks of a node that takes part.
    pub(super) fn line(&self) -> Line {
        self.line.clone()
    }

    /// Where each peer is.
    pub(super) const fn addresses(&self) -> &BTreeMap<NodeName, SocketAddr> {
        &self.addresses
    }

    /// For those who talk with peers.
    #[must_use]
    pub fn handle(&self) -> MeshHandle {
        self.handle.clone()
    }

    /// [`MeshHandle::views`].
    #[must_use]
    pub fn views(&self) -> watch::Receiver<Views> {
        self.handle.views()
    }

    /// [`MeshHandle::accept`].
    #[must_use]
    pub fn accept(&self, purpose: Purpose, at_once: usize) -> Incoming {
        self.handle.accept(purpose, at_once)
    }

    /// [`MeshHandle::datagrams`].
    #[must_use]
    pub fn datagrams(&self, purpose: Purpose) -> Datagrams {
        self.handle.datagrams(purpose)
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        self.up.send_replace(Connections::new());
        self.handle.shared.ports.close();
        self.handle.shared.letterboxes.close();
        self.endpoint.close(VarInt::from_u32(0), b"the node stops");
    }
}

impl MeshHandle {
    /// What is known of the peers, and when that changes.
    #[must_use]
    pub fn views(&self) -> watch::Receiver<Views> {
        self.views.clone()
    }

    /// Whether the peer is up: it has said who it is, over the connection that stands.
    #[must_use]
    pub fn is_up(&self, peer: &NodeName) -> bool {
        self.up.borrow().contains_key(peer)
    }

    /// Opens a stream. Returns within [`OPEN_TIME`], at once when the peer is not up. Whether the
    /// peer takes it shows when it is used ([`StreamError::Refused`]). Cancelled, there is none.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(
        &self,
        peer: &NodeName,
        purpose: Purpose,
    ) -> Result<(Sender, Receiver), OpenError> {
        let down = || OpenError::Down(peer.clone());
        let connection = self.connection(peer).ok_or_else(down)?;
        let places = self.places.get(&(peer.clone(), purpose)).ok_or_else(down)?;
        let until = (Instant::now() + OPEN_TIME).into();
        let place = timeout_at(until, Arc::clone(places).acquire_owned()).await;
        let busy = |_| OpenError::Busy {
            peer: peer.clone(),
            purpose,
        };
        // It is never closed.
        let place = Arc::new(place.map_err(busy)?.map_err(|_| down())?);
        let opened = timeout_at(until, async {
            let (send, receive) = connection.open_bi().await?;
            let mut sender = Sender::new(send, Some(purpose), Some(Arc::clone(&place)));
            sender.write_all(&[purpose.number()]).await?;
            Ok((sender, Receiver::new(receive, Some(place))))
        });
        let opened = opened.await.map_err(|_| OpenError::Late(peer.clone()))?;
        opened.map_err(|error: StreamError| OpenError::Lost {
            peer: peer.clone(),
            reason: error.to_string(),
        })
    }

    /// Streams of this purpose that peers open, from now on, at most `at_once` of each peer and
    /// never more than [`Purpose::at_once`]. An [`Incoming`] that was there for it ends.
    #[must_use]
    pub fn accept(&self, purpose: Purpose, at_once: usize) -> Incoming {
        self.shared.ports.accept(purpose, at_once, MAX_PEERS)
    }

    /// Sends a datagram, or drops it; never waits. At most [`max_datagram`](Self::max_datagram)
    /// bytes. When [`datagrams::SEND_BUFFER`] bytes wait, the oldest are dropped for it.
    ///
    /// # Errors
    /// [`DatagramError`]. `Ok` does not say that it arrives.
    pub fn send_datagram(
        &self,
        peer: &NodeName,
        purpose: Purpose,
        bytes: &[u8],
    ) -> Result<(), DatagramError> {
        let connection = self.connection(peer);
        let connection = connection.ok_or_else(|| DatagramError::Down(peer.clone()))?;
        datagrams::send(&connection, peer, purpose, bytes)
    }

    /// The longest datagram that the way to the peer takes now, in bytes; `None` when it is not up
    /// or takes none. It may shrink.
    #[must_use]
    pub fn max_datagram(&self, peer: &NodeName) -> Option<usize> {
        datagrams::longest(&self.connection(peer)?)
    }

    /// Datagrams of this purpose, from now on. A [`Datagrams`] that was there for it ends.
    #[must_use]
    pub fn datagrams(&self, purpose: Purpose) -> Datagrams {
        self.shared.letterboxes.take(purpose, MAX_PEERS)
    }

    fn connection(&self, peer: &NodeName) -> Option<Connection> {
        self.up.borrow().get(peer).cloned()
    }
}

fn pins(config: &MeshConfig) -> Result<Arc<Pins>, MeshError> {
    if config.peers.len() > MAX_PEERS {
        return Err(MeshError::Many(config.peers.len()));
    }
    let mut known: BTreeMap<Fingerprint, NodeName> = BTreeMap::new();
    let mut names = BTreeSet::new();
    for peer in &config.peers {
        if peer.name == config.name {
            return Err(MeshError::Own(peer.name.clone()));
        }
        if !names.insert(&peer.name) {
            return Err(MeshError::Twice(peer.name.clone()));
        }
        if peer.fingerprints.is_empty() {
            return Err(MeshError::NoKey(peer.name.clone()));
        }
        for fingerprint in &peer.fingerprints {
            let other = known.insert(*fingerprint, peer.name.clone());
            if let Some(other) = other.filter(|other| *other != peer.name) {
                return Err(MeshError::SameKey(other, peer.name.clone()));
            }
        }
    }
    Ok(Pins::new(known))
}

/// Of the UDP socket, each way: what comes while a busy host does not run this.
const SOCKET_BUFFER: usize = 4 << 20;
/// Streams of a connection that this node allows its peer: the control stream, and what has ended
/// here but not yet there, beside those that live.
const STREAMS: u32 = 1 + 2 * STREAMS_AT_ONCE;
/// Of all purposes.
const STREAMS_AT_ONCE: u32 = {
    let [files, transfers, leases] = Purpose::ALL;
    (files.at_once() + transfers.at_once() + leases.at_once()) as u32
};
/// The control stream, and what each of the two has opened: none of them takes another's part.
const WINDOW: u32 = STREAM_WINDOW * (1 + 2 * STREAMS_AT_ONCE);

fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    let silence = u32::try_from(SILENCE.as_millis()).unwrap_or(u32::MAX);
    transport.max_idle_timeout(Some(VarInt::from_u32(silence).into()));
    transport.keep_alive_interval(Some(KEEP_ALIVE));
    transport.max_concurrent_bidi_streams(VarInt::from_u32(STREAMS));
    transport.max_concurrent_uni_streams(VarInt::from_u32(0));
    transport.stream_receive_window(VarInt::from_u32(STREAM_WINDOW));
    transport.receive_window(VarInt::from_u32(WINDOW));
    transport.send_window(u64::from(WINDOW));
    transport.datagram_receive_buffer_size(Some(datagrams::RECEIVE_BUFFER));
    transport.datagram_send_buffer_size(datagrams::SEND_BUFFER);
    transport
}

fn endpoint(config: &MeshConfig, pins: &Arc<Pins>) -> Result<Endpoint, MeshError> {
    let transport = Arc::new(transport());
    let server = tls::server(&config.identity, pins).map_err(MeshError::Key)?;
    let mut server = quinn::ServerConfig::with_crypto(Arc::new(server));
    server.transport_config(Arc::clone(&transport));
    let client = tls::client(&config.identity, pins).map_err(MeshError::Key)?;
    let mut client = quinn::ClientConfig::new(Arc::new(client));
    client.transport_config(transport);
    let listen = |source| MeshError::Listen {
        address: config.listen,
        source,
    };
    let socket = std::net::UdpSocket::bind(config.listen).map_err(listen)?;
    // As much as the system allows (net.core.rmem_max, wmem_max): smaller ones work, and drop more.
    let _ = set_socket_recv_buffer_size(&socket, SOCKET_BUFFER);
    let _ = set_socket_send_buffer_size(&socket, SOCKET_BUFFER);
    let runtime = Arc::new(TokioRuntime);
    let endpoint = Endpoint::new(EndpointConfig::default(), Some(server), socket, runtime);
    let mut endpoint = endpoint.map_err(listen)?;
    endpoint.set_default_client_config(client);
    Ok(endpoint)
}

/// What the tasks have in common.
#[derive(Debug)]
struct Shared {
    inbox: mpsc::Sender<Inbox>,
    pins: Arc<Pins>,
    /// Numbers given so far.
    connections: AtomicU64,
    ports: Ports,
    letterboxes: Letterboxes,
}

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod tests;
