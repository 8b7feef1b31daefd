//! The mesh over real sockets: QUIC connections in, views of the peers out.
//!
//! # Tasks
//!
//! - One for the [engine](super::engine), with every peer's state; it never waits for a peer.
//! - One that accepts. A source address is proven first (a Retry, RFC 9000, section 8.1.2), and at
//!   most [`HANDSHAKES`] are under way at once; further ones are refused.
//! - One for each peer that this node dials: connects, serves, and after the end again, with
//!   back-off from [`BACK_OFF_MIN`] to [`BACK_OFF_MAX`] and jitter.
//! - One for each connection: reads frames, and writes what the engine says.
//!
//! # Queues
//!
//! | queue | holds | when it is full |
//! |---|---|---|
//! | [`INBOX`] | what comes from all connections | their readers wait, each within its rate |
//! | [`OUTBOX`], one for each connection | what the engine says to it | the peer does not read: the connection is ended |
//! | the watched views | the latest state | never: the latest replaces what nobody has seen |
//!
//! # Time
//!
//! Each connection sends something every [`KEEP_ALIVE`]; one that is silent for [`SILENCE`] is over.
//! A frame that has begun is whole within [`FRAME_TIME`].
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
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use quinn::{
    Connection, Endpoint, EndpointConfig, Incoming, RecvStream, SendStream, TokioRuntime,
    TransportConfig, VarInt,
};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until, timeout};

use super::engine::{ConnectionId, Engine, Output, PeerView};
use super::identity::{Fingerprint, Identity};
use super::tls::{self, Pins};
use super::wire::{Message, ServiceStatus, WireError, frame_length};
use crate::health::Reason;
use crate::service::NodeName;

/// Handshakes of strangers and peers that are under way at once.
pub const HANDSHAKES: usize = 32;
/// How long one may take.
pub const HANDSHAKE_TIME: Duration = Duration::from_secs(3);
/// Messages of all peers on their way to the engine.
pub const INBOX: usize = 1024;
/// Messages on their way to one peer.
pub const OUTBOX: usize = 64;
/// How often a connection that has nothing to say says so.
pub const KEEP_ALIVE: Duration = Duration::from_millis(250);
/// After so long a silence it is over.
pub const SILENCE: Duration = Duration::from_secs(1);
/// From the first byte of a frame to its last.
pub const FRAME_TIME: Duration = Duration::from_secs(5);
/// First pause before dialling again.
pub const BACK_OFF_MIN: Duration = Duration::from_millis(100);
/// Longest pause.
pub const BACK_OFF_MAX: Duration = Duration::from_secs(5);
/// Most peers.
pub const MAX_PEERS: usize = 256;

/// Failed handshakes are told in the log once in this time.
const TELL_EVERY: Duration = Duration::from_secs(10);

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

/// A running mesh. See the [module documentation](self).
#[derive(Debug)]
pub struct Mesh {
    address: SocketAddr,
    services: watch::Sender<Vec<ServiceStatus>>,
    views: watch::Receiver<Views>,
    endpoint: Endpoint,
    _tasks: JoinSet<()>,
}

impl Mesh {
    /// Listens and dials. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`MeshError`]; a peer that is not there is none.
    pub fn start(config: MeshConfig) -> Result<Self, MeshError> {
        let pins = pins(&config)?;
        let transport = Arc::new(transport());
        let server = tls::server(&config.identity, &pins).map_err(MeshError::Key)?;
        let mut server = quinn::ServerConfig::with_crypto(Arc::new(server));
        server.transport_config(Arc::clone(&transport));
        let client = tls::client(&config.identity, &pins).map_err(MeshError::Key)?;
        let mut client = quinn::ClientConfig::new(Arc::new(client));
        client.transport_config(transport);
        let listen = |source| MeshError::Listen {
            address: config.listen,
            source,
        };
        let socket = std::net::UdpSocket::bind(config.listen).map_err(listen)?;
        let runtime = Arc::new(TokioRuntime);
        let endpoint = Endpoint::new(EndpointConfig::default(), Some(server), socket, runtime);
        let mut endpoint = endpoint.map_err(listen)?;
        endpoint.set_default_client_config(client);
        let address = endpoint.local_addr().map_err(listen)?;

        let names: Vec<_> = config.peers.iter().map(|peer| peer.name.clone()).collect();
        let incarnation = RandomState::new().build_hasher().finish();
        let engine = Engine::new(Instant::now(), config.name.clone(), incarnation, names);
        let (services, heard) = watch::channel(Vec::new());
        let (publish, views) = watch::channel(Vec::new());
        let (inbox, outside) = mpsc::channel(INBOX);
        let shared = Arc::new(Shared {
            inbox,
            pins,
            connections: AtomicU64::new(0),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(drive(engine, outside, heard, publish));
        tasks.spawn(accept(endpoint.clone(), Arc::clone(&shared)));
        for peer in config.peers {
            if config.name < peer.name {
                tasks.spawn(dial(endpoint.clone(), peer, Arc::clone(&shared)));
            }
        }
        Ok(Self {
            address,
            services,
            views,
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
        self.services.send_replace(services);
    }

    /// The same, for a task of its own.
    pub(super) fn speaker(&self) -> watch::Sender<Vec<ServiceStatus>> {
        self.services.clone()
    }

    /// What is known of the peers, and when that changes.
    #[must_use]
    pub fn views(&self) -> watch::Receiver<Views> {
        self.views.clone()
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        self.endpoint.close(VarInt::from_u32(0), b"the node stops");
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

fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    let silence = u32::try_from(SILENCE.as_millis()).unwrap_or(u32::MAX);
    transport.max_idle_timeout(Some(VarInt::from_u32(silence).into()));
    transport.keep_alive_interval(Some(KEEP_ALIVE));
    // The control stream, and none of anybody else's choosing.
    transport.max_concurrent_bidi_streams(VarInt::from_u32(1));
    transport.max_concurrent_uni_streams(VarInt::from_u32(0));
    transport.stream_receive_window(VarInt::from_u32(1 << 20));
    transport.receive_window(VarInt::from_u32(1 << 20));
    transport.send_window(1 << 20);
    transport.datagram_receive_buffer_size(None);
    transport
}

/// What the tasks have in common.
struct Shared {
    inbox: mpsc::Sender<Inbox>,
    pins: Arc<Pins>,
    /// Numbers given so far.
    connections: AtomicU64,
}

/// What comes to the engine.
enum Inbox {
    Connected {
        peer: NodeName,
        id: ConnectionId,
        connection: Connection,
        tell: mpsc::Sender<Message>,
    },
    Message(NodeName, ConnectionId, Message),
    Closed(NodeName, ConnectionId, Reason),
}

/// The engine's task.
async fn drive(
    mut engine: Engine,
    mut inbox: mpsc::Receiver<Inbox>,
    mut services: watch::Receiver<Vec<ServiceStatus>>,
    publish: watch::Sender<Views>,
) {
    let mut links: BTreeMap<ConnectionId, (Connection, mpsc::Sender<Message>)> = BTreeMap::new();
    loop {
        let due = engine.poll_timeout().map(|(at, _)| at);
        let wait = async {
            match due {
                Some(at) => sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            item = inbox.recv() => match item {
                None => return,
                Some(Inbox::Connected { peer, id, connection, tell }) => {
                    links.insert(id, (connection, tell));
                    engine.handle_connected(Instant::now(), &peer, id);
                }
                Some(Inbox::Message(peer, id, message)) => {
                    engine.handle_message(Instant::now(), wall(), &peer, id, message);
                }
                Some(Inbox::Closed(peer, id, reason)) => {
                    links.remove(&id);
                    engine.handle_closed(&peer, id, reason);
                }
            },
            changed = services.changed() => {
                if changed.is_err() {
                    return;
                }
                let services = services.borrow_and_update().clone();
                engine.handle_status(Instant::now(), services);
            }
            () = wait => {}
        }
        engine.handle_timeout(Instant::now(), wall());
        while let Some(output) = engine.poll_output() {
            carry_out(output, &mut links);
        }
        let views: Views = engine
            .peers()
            .map(|(name, view)| (name.clone(), view))
            .collect();
        publish.send_if_modified(|old| {
            let is_new = *old != views;
            *old = views;
            is_new
        });
    }
}

fn carry_out(
    output: Output,
    links: &mut BTreeMap<ConnectionId, (Connection, mpsc::Sender<Message>)>,
) {
    match output {
        Output::Send(id, message) => {
            let Some((connection, tell)) = links.get(&id) else {
                return;
            };
            // Its task sees the end, and says so.
            if matches!(
                tell.try_send(message),
                Err(mpsc::error::TrySendError::Full(_))
            ) {
                close(connection, "it does not read what it is told");
            }
        }
        Output::Close(id, reason) => {
            if let Some((connection, _)) = links.get(&id) {
                close(connection, reason.as_str());
            }
        }
        Output::Up(peer) => tracing::info!(%peer, "the peer is there"),
        Output::Down(peer, reason) => tracing::warn!(%peer, %reason, "the peer is gone"),
        Output::Heard { .. } => {} // in the views
    }
}

fn close(connection: &Connection, reason: &str) {
    connection.close(VarInt::from_u32(1), reason.as_bytes());
}

/// In microseconds since 1970.
fn wall() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
    })
}

async fn accept(endpoint: Endpoint, shared: Arc<Shared>) {
    let places = Arc::new(Semaphore::new(HANDSHAKES));
    let mut tasks = JoinSet::new();
    let mut told = Told::default();
    loop {
        tokio::select! {
            incoming = endpoint.accept() => {
                let Some(incoming) = incoming else { return };
                if !incoming.remote_address_validated() {
                    // It cannot fail for one whose address is not validated.
                    let _ = incoming.retry();
                    continue;
                }
                let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                    incoming.refuse();
                    continue;
                };
                let shared = Arc::clone(&shared);
                tasks.spawn(async move {
                    let remote = incoming.remote_address();
                    let shaken = shake_hands(incoming, &shared).await;
                    drop(place);
                    match shaken {
                        Ok((connection, peer)) => {
                            serve(connection, peer, false, &shared).await;
                            None
                        }
                        Err(error) => Some((remote, error)),
                    }
                });
            }
            Some(ended) = tasks.join_next() => {
                if let Ok(Some((remote, error))) = ended {
                    told.tell(remote, &error);
                }
            }
        }
    }
}

async fn shake_hands(
    incoming: Incoming,
    shared: &Shared,
) -> Result<(Connection, NodeName), String> {
    let connecting = incoming.accept().map_err(|error| error.to_string())?;
    let connected = timeout(HANDSHAKE_TIME, connecting).await;
    let connection = connected
        .map_err(|_| format!("no handshake within {HANDSHAKE_TIME:?}"))?
        .map_err(|error| error.to_string())?;
    let peer = owner(&connection, &shared.pins).ok_or("no key of a peer")?;
    Ok((connection, peer))
}

/// Whose key the connection has proven.
fn owner(connection: &Connection, pins: &Pins) -> Option<NodeName> {
    let proven = connection.peer_identity()?;
    let chain = proven.downcast::<Vec<rustls::pki_types::CertificateDer<'static>>>();
    pins.owner(chain.ok()?.first()?).cloned()
}

/// Strangers may knock often; the log says so seldom.
#[derive(Default)]
struct Told {
    last: Option<Instant>,
    kept: u64,
}

impl Told {
    fn tell(&mut self, remote: SocketAddr, error: &str) {
        let is_early = self.last.is_some_and(|last| last.elapsed() < TELL_EVERY);
        if is_early {
            self.kept += 1;
            return;
        }
        let untold = std::mem::take(&mut self.kept);
        self.last = Some(Instant::now());
        let error = Reason::new(error);
        tracing::warn!(%remote, %error, untold, "a handshake failed");
    }
}

/// Dials one peer for as long as the mesh runs.
async fn dial(endpoint: Endpoint, peer: PeerConfig, shared: Arc<Shared>) {
    let mut pause = BACK_OFF_MIN;
    let mut last = String::new();
    loop {
        match connect(&endpoint, &peer, &shared).await {
            Ok(connection) => {
                last.clear();
                serve(connection, peer.name.clone(), true, &shared).await;
                pause = BACK_OFF_MIN;
            }
            Err(error) => {
                // The same again is no news.
                if error != last {
                    let (peer, address) = (&peer.name, peer.address);
                    let error = Reason::new(&error);
                    tracing::warn!(%peer, %address, %error, "no connection; dialling on");
                }
                last = error;
            }
        }
        sleep(jittered(pause)).await;
        pause = (pause * 2).min(BACK_OFF_MAX);
    }
}

async fn connect(
    endpoint: &Endpoint,
    peer: &PeerConfig,
    shared: &Shared,
) -> Result<Connection, String> {
    let connecting = endpoint.connect(peer.address, "anycast-mesh");
    let connecting = connecting.map_err(|error| error.to_string())?;
    let connected = timeout(HANDSHAKE_TIME, connecting).await;
    let connection = connected
        .map_err(|_| format!("no handshake within {HANDSHAKE_TIME:?}"))?
        .map_err(|error| error.to_string())?;
    match owner(&connection, &shared.pins) {
        Some(name) if name == peer.name => Ok(connection),
        Some(name) => {
            close(&connection, "another peer was expected at this address");
            Err(format!("{name} answers there"))
        }
        None => Err("no key of a peer".to_owned()),
    }
}

/// Between three quarters of it and five.
fn jittered(pause: Duration) -> Duration {
    let random = RandomState::new().build_hasher().finish();
    let part = u32::try_from(random % 512).unwrap_or_default();
    pause * 3 / 4 + pause / 1024 * part
}

/// One connection from its handshake to its end.
async fn serve(connection: Connection, peer: NodeName, dialled: bool, shared: &Shared) {
    let id = ConnectionId(shared.connections.fetch_add(1, Ordering::Relaxed));
    let (tell, outgoing) = mpsc::channel(OUTBOX);
    let connected = Inbox::Connected {
        peer: peer.clone(),
        id,
        connection: connection.clone(),
        tell,
    };
    if shared.inbox.send(connected).await.is_err() {
        return;
    }
    let error = match talk(&connection, &peer, id, dialled, outgoing, shared).await {
        Ok(()) => "the node stops".to_owned(),
        Err(error) => error,
    };
    close(&connection, &error);
    let closed = Inbox::Closed(peer, id, Reason::new(&error));
    // The engine has gone: there is nobody to tell.
    let _ = shared.inbox.send(closed).await;
}

async fn talk(
    connection: &Connection,
    peer: &NodeName,
    id: ConnectionId,
    dialled: bool,
    outgoing: mpsc::Receiver<Message>,
    shared: &Shared,
) -> Result<(), String> {
    let stream = async {
        if dialled {
            connection.open_bi().await
        } else {
            connection.accept_bi().await
        }
    };
    let stream = timeout(HANDSHAKE_TIME, stream).await;
    let (send, receive) = stream
        .map_err(|_| format!("no control stream within {HANDSHAKE_TIME:?}"))?
        .map_err(|error| error.to_string())?;
    tokio::select! {
        ended = listen(receive, peer, id, shared) => ended,
        ended = say(send, outgoing) => ended,
        error = connection.closed() => Err(error.to_string()),
    }
}

async fn say(mut stream: SendStream, mut outgoing: mpsc::Receiver<Message>) -> Result<(), String> {
    while let Some(message) = outgoing.recv().await {
        let frame = message.encode().map_err(|error| error.to_string())?;
        let written = stream.write_all(&frame).await;
        written.map_err(|error| error.to_string())?;
    }
    Ok(())
}

async fn listen(
    mut stream: RecvStream,
    peer: &NodeName,
    id: ConnectionId,
    shared: &Shared,
) -> Result<(), String> {
    loop {
        let mut head = [0; 4];
        // Between two frames there may be silence, if not at first: who says nothing is no peer.
        let first = stream.read_exact(&mut head[..1]).await;
        first.map_err(|error| error.to_string())?;
        let frame = timeout(FRAME_TIME, rest_of_frame(&mut stream, head)).await;
        let frame = frame.map_err(|_| format!("a frame took longer than {FRAME_TIME:?}"))??;
        let decoded = Message::decode(&frame).map_err(|error: WireError| error.to_string())?;
        let Some(message) = decoded else {
            continue; // of a later version
        };
        let inbox = Inbox::Message(peer.clone(), id, message);
        if shared.inbox.send(inbox).await.is_err() {
            return Ok(());
        }
    }
}

async fn rest_of_frame(stream: &mut RecvStream, mut head: [u8; 4]) -> Result<Vec<u8>, String> {
    let rest = stream.read_exact(&mut head[1..]).await;
    rest.map_err(|error| error.to_string())?;
    let length = frame_length(head).map_err(|error| error.to_string())?;
    let mut frame = vec![0; length];
    let read = stream.read_exact(&mut frame).await;
    read.map_err(|error| error.to_string())?;
    Ok(frame)
}

#[cfg(test)]
mod tests;
