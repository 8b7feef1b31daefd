//! The TFTP server: sockets around the engine of [`proto::server`](crate::proto::server).
//!
//! **Tasks.** [`Server::run`] is the only future; it runs one task for each listen address
//! (socket, engine, timer) and stops them all when it is dropped. Store requests that may
//! wait for a disk run on tokio's blocking threads, at most [`MAX_OPEN_THREADS`] +
//! [`MAX_TRANSFER_THREADS`] + [`MAX_PIN_THREADS`] of them at once for each listen address; more wait their turn,
//! at most one for each session, and some of sessions that are gone, which cost nothing.
//!
//! **Cancellation.** Dropping [`Server::run`] closes the sockets and drops all transfers;
//! unfinished uploads are removed. A blocking thread that hangs in the kernel cannot be
//! stopped: end the runtime with `shutdown_background` or `shutdown_timeout`.
//!
//! **What happens when full**: each limit of [`Settings`] drops requests in silence, which
//! clients repeat; a full socket buffer loses packets, which both sides repeat; sending stops
//! while the socket is not writable, and nothing is queued meanwhile but one packet. What goes
//! between peers: [`link`].
//!
//! **Other nodes.** With a [fleet](ServerConfig::with_fleet) transfers survive a route move
//! ([`handoff`](crate::handoff)). The server does not know how its peers are reached:
//! [`Server::peers`] are the two ends for whoever carries, over the mesh `carry` (feature `mesh`).
//!
//! ```no_run
//! # async fn f() -> Result<(), Box<dyn std::error::Error>> {
//! use std::{path::Path, sync::Arc};
//! use anycast_tftp::{server::{Server, ServerConfig}, store::FsStore};
//!
//! let store = Arc::new(FsStore::open_root(Path::new("/srv/tftp"))?);
//! let config = ServerConfig::new(vec!["192.0.2.69:69".parse()?]);
//! let server = Server::bind(config, store)?;
//! let handle = server.handle();
//! tokio::spawn(server.run());
//! // … later: finish what runs, then stop.
//! handle.wait_idle().await;
//! handle.shutdown();
//! # Ok(()) }
//! ```
#![allow(
    clippy::disallowed_methods,
    reason = "the driver of the engine: it reads the clock that the engine is given"
)]

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::handoff::Fleet;
use crate::proto::TransferRecord;
pub use crate::proto::settings::{Settings, SettingsError};
pub use crate::proto::stats::Stats;
use crate::store::Store;
pub use crate::store::WritePolicy;

#[cfg(feature = "mesh")]
pub mod carry;
mod drops;
pub mod link;
mod log;
mod pool;
mod shard;
mod socket;

pub use link::{FromPeers, ToPeers};
pub use pool::{MAX_OPEN_THREADS, MAX_PIN_THREADS, MAX_TRANSFER_THREADS};

/// Receive buffer asked of the kernel for each socket, in bytes: room for the requests of a
/// boot storm. The kernel gives at most `net.core.rmem_max`.
pub const DEFAULT_RECEIVE_BUFFER: usize = 8 << 20;

/// How often the kernel is asked what it dropped.
pub const DROPS_EVERY: Duration = Duration::from_secs(10);

/// Where a server listens and what it may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    listen: Vec<SocketAddr>,
    settings: Settings,
    receive_buffer: usize,
    fleet: Option<Fleet>,
}

impl ServerConfig {
    /// Listens on these addresses, with default settings.
    ///
    /// An address need not exist yet: the socket is bound all the same, and serves as soon as
    /// the address appears. `0.0.0.0` and `[::]` answer from whatever address the client
    /// used; `[::]` does not take IPv4, list both.
    #[must_use]
    pub fn new(listen: Vec<SocketAddr>) -> Self {
        Self {
            listen,
            settings: Settings::default(),
            receive_buffer: DEFAULT_RECEIVE_BUFFER,
            fleet: None,
        }
    }

    /// Policy and limits. Session limits hold for each listen address.
    #[must_use]
    pub fn with_settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// Receive buffer of each socket, in bytes; default [`DEFAULT_RECEIVE_BUFFER`].
    #[must_use]
    pub const fn with_receive_buffer(mut self, bytes: usize) -> Self {
        self.receive_buffer = bytes;
        self
    }

    /// Transfers go on at the other nodes of this fleet, whose servers listen on the same
    /// addresses. Default: none, and a transfer ends with its node. Messages go by
    /// [`Server::peers`].
    #[must_use]
    pub fn with_fleet(mut self, fleet: Fleet) -> Self {
        self.fleet = Some(fleet);
        self
    }

    /// Checks everything that can be checked without a socket.
    ///
    /// # Errors
    /// [`BindError::NoAddress`], [`BindError::Duplicate`], [`BindError::Unusable`],
    /// [`BindError::Settings`].
    pub fn validate(&self) -> Result<(), BindError> {
        self.settings.validate().map_err(BindError::Settings)?;
        if self.listen.is_empty() {
            return Err(BindError::NoAddress);
        }
        let mut seen = BTreeSet::new();
        for address in &self.listen {
            if address.ip().is_multicast() {
                return Err(BindError::Unusable { address: *address });
            }
            // Port 0 is a new port each time.
            if address.port() != 0 && !seen.insert(*address) {
                return Err(BindError::Duplicate { address: *address });
            }
        }
        Ok(())
    }
}

/// Why a server could not be bound. Nothing is left open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// There is nothing to listen on.
    #[error("no listen address is given; name at least one")]
    NoAddress,
    /// An address is listed twice.
    #[error("UDP {address} is listed twice")]
    Duplicate {
        /// The address.
        address: SocketAddr,
    },
    /// A multicast address.
    #[error("UDP {address} is a multicast address; TFTP is unicast")]
    Unusable {
        /// The address.
        address: SocketAddr,
    },
    /// The settings are out of range.
    #[error(transparent)]
    Settings(SettingsError),
    /// Another socket has the port.
    #[error(
        "UDP {address}: the port is in use; stop the other server (`ss -lunp sport = :{port}` names it) or choose another port",
        port = address.port()
    )]
    InUse {
        /// The address.
        address: SocketAddr,
    },
    /// The port needs a privilege.
    #[error("UDP {address}: permission denied; ports below 1024 need root or CAP_NET_BIND_SERVICE")]
    Denied {
        /// The address.
        address: SocketAddr,
    },
    /// Anything else.
    #[error("UDP {address}: {step}: {source}")]
    Socket {
        /// The address.
        address: SocketAddr,
        /// What was tried.
        step: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Why a running server stopped by itself.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// A socket could not be given to the runtime.
    #[error("UDP {address}: {source}")]
    Socket {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A task panicked: a bug.
    #[error("a task of the server panicked")]
    Panicked,
}

/// Counters of the sockets, beside those of the engine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct IoStats {
    /// Packets that the kernel refused to send, and that were lost.
    pub send_errors: u64,
    /// Errors of receiving.
    pub receive_errors: u64,
    /// Windows that were sent packet by packet because the link has no segmentation offload.
    pub unsegmented: u64,
    /// Store requests that waited for a thread.
    pub store_waits: u64,
    /// Datagrams that the kernel dropped because the receive buffer was full, as it was at
    /// most [`DROPS_EVERY`] ago.
    pub kernel_drops: u64,
    /// Messages that came from peers.
    pub peer_received: u64,
    /// Of them: for no listen address here. Dropped.
    pub peer_unmatched: u64,
    /// Of them: dropped because [`link::ARRIVALS`] waited.
    pub peer_overflow: u64,
    /// Messages handed out for peers.
    pub peer_sent: u64,
    /// Messages that were dropped because [`link::DEPARTURES`] waited, or that could not be sent.
    pub peer_unsent: u64,
}

/// A snapshot of all counters of a server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerStats {
    /// Of the engines.
    pub engine: Stats,
    /// Of the sockets.
    pub io: IoStats,
}

impl ServerStats {
    /// Every counter with its name, in a fixed order: for status, metrics and logs.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let IoStats {
            send_errors,
            receive_errors,
            unsegmented,
            store_waits,
            kernel_drops,
            peer_received,
            peer_unmatched,
            peer_overflow,
            peer_sent,
            peer_unsent,
        } = self.io;
        self.engine.iter().chain([
            ("send_errors", send_errors),
            ("receive_errors", receive_errors),
            ("unsegmented", unsegmented),
            ("store_waits", store_waits),
            ("kernel_drops", kernel_drops),
            ("peer_received", peer_received),
            ("peer_unmatched", peer_unmatched),
            ("peer_overflow", peer_overflow),
            ("peer_sent", peer_sent),
            ("peer_unsent", peer_unsent),
        ])
    }
}

/// What new transfers go by.
#[derive(Debug)]
struct Active {
    store: Arc<dyn Store>,
    settings: Settings,
}

/// What the tasks and the handles share.
#[derive(Debug)]
struct Shared {
    active: watch::Sender<Arc<Active>>,
    stop: watch::Sender<bool>,
    draining: watch::Sender<bool>,
    /// Transfers in flight, of each task.
    in_flight: watch::Sender<Vec<usize>>,
    /// Counters, of each task.
    stats: Mutex<Vec<ServerStats>>,
    /// What the kernel dropped, of each socket.
    drops: Mutex<Vec<u64>>,
    /// What went between peers.
    counted: link::Counted,
}

type Hear = dyn Fn(&TransferRecord) + Send + Sync;

/// Hears of every transfer that has ended.
#[derive(Clone, Default)]
struct Observer(Option<Arc<Hear>>);

impl std::fmt::Debug for Observer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Observer")
    }
}

/// A TFTP server that is bound and not running yet. Requests that arrive before
/// [`run`](Self::run) wait in the sockets.
#[derive(Debug)]
pub struct Server {
    sockets: Vec<socket::Bound>,
    shared: Arc<Shared>,
    observer: Observer,
    /// Of each socket, where there is a fleet.
    links: Vec<link::Ours>,
    peers: Option<(FromPeers, ToPeers)>,
}

impl Server {
    /// Binds every listen address. Needs no runtime.
    ///
    /// # Errors
    /// [`BindError`], which names the address and the remedy.
    pub fn bind(config: ServerConfig, store: Arc<dyn Store>) -> Result<Self, BindError> {
        config.validate()?;
        let sockets = config
            .listen
            .iter()
            .map(|address| socket::Bound::new(*address, config.receive_buffer))
            .collect::<Result<Vec<_>, _>>()?;
        let shared = Shared {
            active: watch::Sender::new(Arc::new(Active {
                store,
                settings: config.settings,
            })),
            stop: watch::Sender::new(false),
            draining: watch::Sender::new(false),
            in_flight: watch::Sender::new(vec![0; sockets.len()]),
            stats: Mutex::new(vec![ServerStats::default(); sockets.len()]),
            drops: Mutex::new(vec![0; sockets.len()]),
            counted: link::Counted::default(),
        };
        let shared = Arc::new(shared);
        let addresses: Vec<_> = sockets.iter().map(socket::Bound::address).collect();
        let fleet = config.fleet.as_ref();
        let (links, peers) = fleet
            .map(|fleet| link::link(&shared, fleet, &addresses))
            .unzip();
        Ok(Self {
            sockets,
            shared,
            observer: Observer::default(),
            links: links.unwrap_or_default(),
            peers,
        })
    }

    /// Has `observer` hear of every transfer that has ended, in the task that served it: it must
    /// neither block nor take long.
    #[must_use]
    pub fn with_observer(
        mut self,
        observer: impl Fn(&TransferRecord) + Send + Sync + 'static,
    ) -> Self {
        self.observer = Observer(Some(Arc::new(observer)));
        self
    }

    /// The two ends of the way to the peers, for whoever carries messages. `None` without a
    /// [fleet](ServerConfig::with_fleet), and when they have been taken. If nobody takes them,
    /// peers are down for ever.
    pub fn peers(&mut self) -> Option<(FromPeers, ToPeers)> {
        self.peers.take()
    }

    /// A handle to watch and steer the server. It may outlive it.
    #[must_use]
    pub fn handle(&self) -> ServerHandle {
        ServerHandle {
            shared: Arc::clone(&self.shared),
        }
    }

    /// The addresses and ports that are bound, in the order of the configuration.
    #[must_use]
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.sockets.iter().map(socket::Bound::address).collect()
    }

    /// Serves until [`ServerHandle::shutdown`].
    ///
    /// # Errors
    /// [`RunError`]; the other addresses are closed too then.
    pub async fn run(self) -> Result<(), RunError> {
        let mut tasks = JoinSet::new();
        let watch = drops::watch(&self.sockets, Arc::clone(&self.shared));
        let mut links = self.links.into_iter();
        for (index, bound) in self.sockets.into_iter().enumerate() {
            let address = bound.address();
            let shard = shard::Shard::new(
                index,
                bound,
                links.next(),
                Arc::clone(&self.shared),
                self.observer.clone(),
            )
            .map_err(|source| RunError::Socket { address, source })?;
            tasks.spawn(shard.run());
        }
        let serve = async {
            while let Some(ended) = tasks.join_next().await {
                if let Err(error) = ended {
                    tracing::error!(%error, "a task of the server ended");
                    return Err(RunError::Panicked);
                }
            }
            Ok(())
        };
        tokio::select! {
            ended = serve => ended,
            never = watch => match never {},
        }
    }
}

/// Watches and steers a server. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ServerHandle {
    shared: Arc<Shared>,
}

impl ServerHandle {
    /// The counters, at most one wakeup of the tasks old.
    #[must_use]
    pub fn stats(&self) -> ServerStats {
        let mut sum = ServerStats::default();
        let all = self
            .shared
            .stats
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for one in all.iter() {
            sum.engine.add(&one.engine);
            sum.io.send_errors += one.io.send_errors;
            sum.io.receive_errors += one.io.receive_errors;
            sum.io.unsegmented += one.io.unsegmented;
            sum.io.store_waits += one.io.store_waits;
        }
        drop(all);
        let drops = self
            .shared
            .drops
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        sum.io.kernel_drops = drops.iter().sum();
        drop(drops);
        self.shared.counted.fill(&mut sum.io);
        sum
    }

    /// Transfers that have not ended.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.shared.in_flight.borrow().iter().sum()
    }

    /// Waits until no transfer is in flight. New requests are served meanwhile: lead clients
    /// elsewhere first. Cancel-safe.
    pub async fn wait_idle(&self) {
        let mut in_flight = self.shared.in_flight.subscribe();
        // The sender lives as long as this handle, so the wait cannot fail.
        let _ = in_flight
            .wait_for(|in_flight| in_flight.iter().all(|count| *count == 0))
            .await;
    }

    /// Replaces settings and store, for new transfers: every request that is sent after this
    /// has returned goes by the new ones. Transfers that run keep their file and what they
    /// negotiated. Listen addresses cannot change.
    ///
    /// # Errors
    /// [`SettingsError`]; nothing has changed then.
    pub fn reload(&self, settings: Settings, store: Arc<dyn Store>) -> Result<(), SettingsError> {
        settings.validate()?;
        self.shared
            .active
            .send_replace(Arc::new(Active { store, settings }));
        Ok(())
    }

    /// Whether clients are being led elsewhere: then peers take transfers over as their clients come
    /// to them. Nothing else changes: new requests are served. Without a fleet it has no effect.
    pub fn set_draining(&self, is_draining: bool) {
        self.shared.draining.send_if_modified(|was| {
            let is_new = *was != is_draining;
            *was = is_draining;
            is_new
        });
    }

    /// Stops the server at once. Repeating it is harmless. To finish what runs, wait for
    /// [`wait_idle`](Self::wait_idle) first.
    pub fn shutdown(&self) {
        self.shared.stop.send_replace(true);
    }
}
