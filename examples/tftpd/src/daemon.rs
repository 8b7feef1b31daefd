//! The life of the daemon: start, reload, drain, stop.
//!
//! **Start**: sockets are bound before anything is announced, so that a client that arrives
//! finds a listener. Then the admin endpoint, the mesh (a peer that is not there is waited for by
//! nobody), then the node. An operator's order from before
//! the restart, kept in `state_dir`, is in force again before anything is announced.
//!
//! **SIGHUP** reads the file again. A file that cannot be used, or that changes what only a
//! restart can change, is reported in one line and the old configuration stays in force,
//! whole.
//!
//! **Other nodes** go on with transfers that began here, and this one with theirs, where there is
//! `[tftp] handoff`. They are told when clients are led elsewhere, by an order or a stop, and take
//! transfers over as their clients come to them.
//!
//! **SIGTERM, SIGINT**: `on_stop` is carried out (a demotion by default); the server goes on
//! serving while the routes converge (5 s) and until transfers in flight are done, at most
//! `drain_timeout`; then it stops. With `on_stop = "keep"` clients still come, so nothing is
//! waited for: the successor is to answer within their patience. A second signal ends it at
//! once.
//!
//! **If the server or a decision loop dies** of itself, the node is demoted whatever `on_stop`
//! says, and the process ends with an error: a supervisor starts it again.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anycast_announce::kernel::KernelShare;
use anycast_core::ServiceName;
use anycast_core::admin::{Admin, AdminError};
use anycast_core::announce::Announcer;
use anycast_core::catchment::Catchment;
use anycast_core::drain::CONVERGE;
use anycast_core::mesh::fleet::{self, Joined};
use anycast_core::mesh::transport::Mesh;
use anycast_core::node::{
    ClientsStatus, Node, NodeError, NodeHandle, OnStop, ServiceSpec, StateDir,
};
use anycast_daemon::announce::{Announce, CannotAnnounce};
use anycast_daemon::mesh::{CannotMesh, warn_about_consent};
use anycast_daemon::signals::{Signals, Wake};
use anycast_tftp::proto::{Direction, TransferRecord};
use anycast_tftp::server::carry::{Carrier, carry};
use anycast_tftp::server::{BindError, RunError, Server, ServerConfig, ServerHandle};
use anycast_tftp::store::Store;
use anycast_tftp::sync::driver::{FileSync, StartError};
use serde::Serialize;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::config::Config;
use crate::handoff::Following;
use crate::sync::Shown;

/// Client networks that `/status` shows.
const MAX_SHOWN: usize = 16;

/// Why the daemon could not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DaemonError {
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error(transparent)]
    Admin(#[from] AdminError),
    #[error(transparent)]
    Node(#[from] NodeError),
    #[error(transparent)]
    Announce(#[from] CannotAnnounce),
    #[error(transparent)]
    Mesh(#[from] CannotMesh),
    #[error("[sync]: {0}")]
    Sync(#[from] StartError),
    #[error("signals cannot be received: {0}")]
    Signals(std::io::Error),
    #[error("the server stopped by itself: {0}")]
    ServerEnded(String),
    #[error("{0}: its decision loop or its announcer died; see the log")]
    NodeFailed(ServiceName),
}

/// Runs until a signal stops it.
///
/// Probes run in `probes`, so that one that blocks delays neither packets nor decisions.
///
/// # Errors
/// [`DaemonError`] when it cannot start.
pub(crate) async fn run(
    path: &Path,
    mut config: Config,
    probes: Handle,
) -> Result<(), DaemonError> {
    let mut signals = Signals::new().map_err(DaemonError::Signals)?;
    let (name, state_dir) = (&config.node.name, &config.node.state_dir);
    let mesh = config.mesh.as_ref().map(|mesh| mesh.start(name, state_dir));
    // Dropped at the end of this function: peers hear of this node until it serves no more.
    let mesh = mesh.transpose()?;
    let sync = sync(&config, mesh.as_ref()).await?;
    let catchment = Arc::new(Mutex::new(Catchment::new(Instant::now())));
    let (server, _carrier) = bind(&config, store(&config, sync.as_ref()), mesh.as_ref())?;
    let server = server.with_observer(count_clients(&catchment));
    let tftp = server.handle();
    for address in &config.listen {
        tracing::info!(%address, root = %config.root.display(), "serving TFTP");
    }
    let mut serving = tokio::spawn(server.run());
    let admin = match &config.node.admin {
        Some(address) => Some(Admin::bind(address).await?),
        None => None,
    };
    let mut node = Node::new(config.node.name.clone()).with_probe_runtime(probes);
    let role = config.identity.role;
    if let Some(announcer) = config.announce.announcer(role, &KernelShare::default()) {
        let (name, fail_safe) = (&config.identity.service, config.policy.fail_safe);
        warn_about_consent(name, fail_safe, &*announcer, config.mesh.as_ref());
        if let Some(reason) = config.announce.probe(role).await? {
            tracing::warn!(%reason, "the routing daemon does not answer; it is asked again");
        }
        tracing::info!(announcer = %config.announce, "announcing");
        node.start(service(&config, announcer, &tftp, sync.as_ref()))?;
    }
    let steering = node.handle();
    let _joined = join(&config, &steering, mesh.as_ref(), &catchment)?;
    let _telling = sync
        .as_ref()
        .zip(mesh.as_ref())
        .map(|(sync, mesh)| crate::sync::tell(sync, mesh));
    let refused = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&refused);
    // Dropped at the end of this function, and with it the socket's file.
    let admin = async {
        match admin {
            Some(admin) => {
                let counted = tftp.clone();
                let admin = with_sync(admin, sync.as_ref());
                let catchment = Arc::clone(&catchment);
                let admin = admin
                    .with_section("tftp", move || section(&counted, &catchment))
                    .with_gauges("tftp", &["in_flight"])
                    .with_section("configuration", move || {
                        let refused = u64::from(told.load(Ordering::Relaxed));
                        BTreeMap::from([("last_reload_refused", refused)])
                    })
                    .with_gauges("configuration", &["last_reload_refused"]);
                admin.run(steering.clone()).await;
            }
            None => std::future::pending().await,
        }
    };
    let life = live(
        path,
        &mut config,
        node,
        (&tftp, sync.as_ref()),
        &refused,
        &mut serving,
        &mut signals,
    );
    tokio::select! {
        result = life => result,
        () = admin => Ok(()), // it serves for ever
    }
}

/// Has the node take part in the mesh, or, where it announces nothing, only tell of it.
fn join(
    config: &Config,
    node: &NodeHandle,
    mesh: Option<&Mesh>,
    catchment: &Arc<Mutex<Catchment>>,
) -> Result<Option<Joined>, NodeError> {
    let Some(mesh) = mesh else {
        return Ok(None);
    };
    if config.announce == Announce::Nothing {
        fleet::show(node, mesh);
        return Ok(None);
    }
    let mut joined = fleet::join(node, mesh, std::slice::from_ref(&config.identity.service))?;
    let asked = Arc::clone(catchment);
    joined.tell_clients(move |now, most| lock(&asked).top(now, most));
    Ok(Some(joined))
}

/// Binds the service addresses; peers hear of what is served there, where that is configured.
fn bind(
    config: &Config,
    store: Arc<dyn Store>,
    mesh: Option<&Mesh>,
) -> Result<(Server, Option<Carrier>), BindError> {
    let mut server = ServerConfig::new(config.listen.clone()).with_settings(config.tftp.clone());
    if let Some(handoff) = &config.handoff {
        server = server.with_fleet(handoff.fleet(&config.node, config.mesh.as_ref()));
    }
    let mut server = Server::bind(server, store)?;
    let ends = server.peers().zip(mesh);
    let carrier = ends.map(|(ends, mesh)| carry(&mesh.handle(), ends));
    Ok((server, carrier))
}

/// Begins to sync the files, where that is configured.
async fn sync(config: &Config, mesh: Option<&Mesh>) -> Result<Option<Arc<FileSync>>, DaemonError> {
    let Some(sync) = &config.sync else {
        return Ok(None);
    };
    let peers = config.mesh.iter().flat_map(|mesh| &mesh.peer);
    let peers = peers.map(|peer| peer.name.clone()).collect();
    let (node, mesh) = (&config.node, mesh.map(Mesh::handle));
    let started = sync.start(&node.name, peers, &config.root, &node.state_dir, mesh);
    Ok(Some(Arc::new(started.await?)))
}

/// What is served: the folder as it is, or as file sync has it.
fn store(config: &Config, sync: Option<&Arc<FileSync>>) -> Arc<dyn Store> {
    match sync {
        Some(sync) => sync.store(),
        None => Arc::clone(&config.store) as _,
    }
}

fn with_sync(admin: Admin, sync: Option<&Arc<FileSync>>) -> Admin {
    let Some(sync) = sync else {
        return admin;
    };
    let shown = Arc::clone(sync);
    admin
        .with_data_set(crate::sync::data_set(sync))
        .with_section("sync", move || Shown::of(&shown))
        .with_gauges("sync", Shown::GAUGES)
}

/// The service as the node runs it.
fn service(
    config: &Config,
    announcer: Box<dyn Announcer>,
    tftp: &ServerHandle,
    sync: Option<&Arc<FileSync>>,
) -> ServiceSpec {
    let (identity, checks) = (config.identity.clone(), config.checks.clone());
    let mut spec = ServiceSpec::new(identity, config.policy, checks, announcer);
    spec.on_stop = config.on_stop;
    spec.readiness.extend(sync.and_then(crate::sync::readiness));
    spec.state = Some(StateDir::new(&config.node.state_dir));
    spec.drain = config.drain();
    let counted = tftp.clone();
    spec.in_flight = Some(Arc::new(move || in_flight(&counted)));
    spec
}

async fn live(
    path: &Path,
    config: &mut Config,
    node: Node,
    (tftp, sync): (&ServerHandle, Option<&Arc<FileSync>>),
    refused: &AtomicBool,
    serving: &mut JoinHandle<Result<(), RunError>>,
    signals: &mut Signals,
) -> Result<(), DaemonError> {
    let steering = node.handle();
    let mut following = Following::new(&steering, &config.identity.service, tftp);
    loop {
        let wake = tokio::select! {
            wake = signals.next() => wake,
            () = following.next() => continue,
            service = steering.failed() => {
                tftp.set_draining(true);
                node.stop_with(OnStop::Demote).await;
                if config.announce != Announce::Nothing {
                    tokio::time::sleep(CONVERGE).await; // nobody is left to follow the drain
                }
                finish(config, tftp).await;
                return Err(DaemonError::NodeFailed(service));
            }
            ended = &mut *serving => {
                node.stop_with(OnStop::Demote).await;
                return Err(DaemonError::ServerEnded(match ended {
                    Ok(Ok(())) => "it was told to".to_owned(),
                    Ok(Err(error)) => error.to_string(),
                    Err(error) => error.to_string(),
                }));
            }
        };
        match wake {
            Wake::Reload => tokio::select! {
                taken = reload(path, config, tftp, sync, &steering) => {
                    refused.store(!taken, Ordering::Relaxed);
                }
                () = signals.stop() => break, // a folder that hangs must not hold up a stop
            },
            Wake::Stop => break,
        }
    }
    tokio::select! {
        () = stop(config, node, tftp, &mut following) => {}
        () = signals.stop() => tracing::warn!("second signal: stopping at once"),
    }
    Ok(())
}

/// The `tftp` section of `/status`.
#[derive(Debug, Serialize)]
struct Section {
    #[serde(flatten)]
    counters: BTreeMap<&'static str, u64>,
    /// Whose reads were answered here.
    clients: ClientsStatus,
}

fn section(tftp: &ServerHandle, catchment: &Mutex<Catchment>) -> Section {
    let counters = tftp.stats();
    let in_flight = [("in_flight", in_flight(tftp))];
    let mut catchment = lock(catchment);
    let clients = catchment.top(Instant::now(), MAX_SHOWN);
    Section {
        counters: counters.iter().chain(in_flight).collect(),
        clients: ClientsStatus::new(&clients, Duration::ZERO),
    }
}

/// Counts reads, but not what this host's own checks read.
fn count_clients(
    catchment: &Arc<Mutex<Catchment>>,
) -> impl Fn(&TransferRecord) + Send + Sync + 'static {
    let catchment = Arc::clone(catchment);
    move |record| {
        let is_own = record.client.ip() == record.local.ip();
        if record.direction == Direction::Read && record.has_answered() && !is_own {
            lock(&catchment).handle_request(Instant::now(), record.client.ip());
        }
    }
}

fn lock(catchment: &Mutex<Catchment>) -> MutexGuard<'_, Catchment> {
    catchment.lock().unwrap_or_else(PoisonError::into_inner)
}

fn in_flight(tftp: &ServerHandle) -> u64 {
    u64::try_from(tftp.in_flight()).unwrap_or(u64::MAX)
}

/// Reads the file again; false: it was refused, and the old configuration stays in force.
async fn reload(
    path: &Path,
    config: &mut Config,
    tftp: &ServerHandle,
    sync: Option<&Arc<FileSync>>,
    node: &NodeHandle,
) -> bool {
    let file = path.to_owned();
    let new = match tokio::task::spawn_blocking(move || Config::load(&file)).await {
        Ok(Ok(new)) => new,
        Ok(Err(error)) => {
            tracing::error!(%error, "reload refused; the old configuration stays in force");
            return false;
        }
        Err(error) => {
            tracing::error!(%error, "reload refused; the old configuration stays in force");
            return false;
        }
    };
    if let Some(key) = config.needs_restart(&new) {
        tracing::error!(
            file = %path.display(),
            key,
            "reload refused: only a restart can change this; the old configuration stays in force"
        );
        return false;
    }
    if new.announce != Announce::Nothing {
        let service = &new.identity.service;
        let change = node.reconfigure(service, new.policy, new.checks.clone());
        if let Err(error) = change.await {
            tracing::error!(%error, "reload refused; the old configuration stays in force");
            return false;
        }
        if let Err(error) = node.set_drain(service, new.drain()) {
            tracing::error!(%error, "the new drain_timeout was not taken");
        }
    }
    if let Err(error) = tftp.reload(new.tftp.clone(), store(&new, sync)) {
        // Settings are validated when the file is read, so this is a fault of ours; say so.
        tracing::error!(%error, "the new [tftp] table was not taken");
        return false;
    }
    tracing::info!(file = %path.display(), "configuration reloaded");
    *config = new;
    true
}

/// Carries `on_stop` out, and with it the drain.
async fn stop(config: &Config, node: Node, tftp: &ServerHandle, following: &mut Following) {
    tracing::info!(on_stop = ?config.on_stop, "stopping");
    if config.policy.turns.is_some() && !matches!(config.on_stop, OnStop::Keep(_)) {
        // Clients still come, until its turn to leave.
        let mut stopping = std::pin::pin!(node.stop());
        loop {
            tokio::select! {
                () = &mut stopping => break,
                () = following.next() => {}
            }
        }
        tftp.set_draining(true);
    } else {
        tftp.set_draining(true);
        node.stop().await;
    }
    if matches!(config.on_stop, OnStop::Keep(_)) {
        tracing::info!(
            in_flight = tftp.in_flight(),
            "the boost is kept; clients repeat to the successor"
        );
    } else if config.announce == Announce::Nothing {
        finish(config, tftp).await;
    } else if tftp.in_flight() > 0 {
        tracing::warn!(in_flight = tftp.in_flight(), "transfers are cut off");
    }
    tftp.shutdown();
}

/// Lets transfers in flight end where no drain of the node has waited for them.
async fn finish(config: &Config, tftp: &ServerHandle) {
    let in_flight = tftp.in_flight();
    if in_flight > 0 {
        tracing::info!(in_flight, timeout = ?config.drain_timeout, "waiting for transfers in flight");
    }
    if tokio::time::timeout(config.drain_timeout, tftp.wait_idle())
        .await
        .is_err()
    {
        tracing::warn!(in_flight = tftp.in_flight(), "transfers are cut off");
    }
}
