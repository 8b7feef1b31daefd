//! The life of the guard: start, reload, stop.
//!
//! **Start**: the admin endpoint is bound, the kernel and the routing daemons are asked whether
//! they can be used, then all services are started on one node, each with an announcer of its
//! own. A routing daemon that is not up yet is waited for, and so is a peer of the mesh. What is in
//! force is adopted, so that a restart after a crash, or under `on_stop = "keep"`, moves no route.
//!
//! **SIGHUP** reads the file again: see [`reload`].
//!
//! **SIGTERM, SIGINT**: each service's `on_stop` is carried out (a demotion by default), and
//! the routes are given a moment to converge, so that what is stopped after the guard has no
//! traffic left. A second signal ends it at once.
//!
//! **If a decision loop dies** of itself, every service is demoted whatever `on_stop` says, and
//! the process ends with an error: a supervisor starts it again.

use std::path::Path;
use std::time::Duration;

use anycast_announce::kernel::KernelShare;
use anycast_core::ServiceName;
use anycast_core::admin::{Admin, AdminError};
use anycast_core::mesh::fleet;
use anycast_core::node::{Node, NodeError, OnStop, ServiceSpec, StateDir};
use anycast_daemon::announce::CannotAnnounce;
use anycast_daemon::mesh::{CannotMesh, warn_about_consent};
use anycast_daemon::signals::{Signals, Wake};
use tokio::runtime::Handle;

use crate::config::{Config, Service};
use crate::reload::{self, Shown};
use crate::systemd::Systemd;

/// How long routes are given to converge after the demotion.
const CONVERGE: Duration = Duration::from_secs(1);

/// Why the guard could not start, or had to end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DaemonError {
    #[error(transparent)]
    Admin(#[from] AdminError),
    #[error(transparent)]
    Node(#[from] NodeError),
    #[error(transparent)]
    Announce(#[from] CannotAnnounce),
    #[error(transparent)]
    Mesh(#[from] CannotMesh),
    #[error("signals cannot be received: {0}")]
    Signals(std::io::Error),
    #[error("{0}: its decision loop or its announcer died; see the log")]
    NodeFailed(ServiceName),
}

/// Runs until a signal stops it.
///
/// Probes run in `probes`, so that one that blocks its thread delays no decision.
///
/// # Errors
/// [`DaemonError`] when it cannot start, or when a decision loop died.
pub(crate) async fn run(
    path: &Path,
    mut config: Config,
    probes: Handle,
) -> Result<(), DaemonError> {
    let mut signals = Signals::new().map_err(DaemonError::Signals)?;
    let systemd = Systemd::from_env();
    let admin = match &config.node.admin {
        Some(address) => Some(Admin::bind(address).await?),
        None => None,
    };
    let (name, state_dir) = (&config.node.name, &config.node.state_dir);
    let mesh = config.mesh.as_ref().map(|mesh| mesh.start(name, state_dir));
    // Dropped at the end of this function: peers hear of this node until its services are down.
    let mesh = mesh.transpose()?;
    let node = start(&config, probes).await?;
    let steering = node.handle();
    let services: Vec<_> = config.services.iter().map(Service::name).cloned().collect();
    let joined = mesh
        .as_ref()
        .map(|mesh| fleet::join(&steering, mesh, &services));
    let _joined = joined.transpose()?;
    let shown = Shown::new(path, &config);
    // Dropped at the end of this function, and with it the socket's file.
    let admin = async {
        match admin {
            Some(admin) => {
                let shown = shown.clone();
                let admin = admin
                    .with_section("configuration", move || shown.get())
                    .with_gauges("configuration", reload::GAUGES);
                admin.run(steering.clone()).await;
            }
            None => std::future::pending().await,
        }
    };
    let life = live(path, &mut config, node, &shown, &systemd, &mut signals);
    tokio::select! {
        result = life => result,
        () = admin => Ok(()), // it serves for ever
    }
}

async fn start(config: &Config, probes: Handle) -> Result<Node, DaemonError> {
    let mut node = Node::new(config.node.name.clone()).with_probe_runtime(probes);
    let share = KernelShare::default();
    probe(&config.services).await?;
    for service in &config.services {
        let role = service.identity.role;
        let Some(announcer) = service.announce.announcer(role, &share) else {
            continue; // the configuration lets nothing be guarded that is not announced
        };
        let (name, fail_safe) = (service.name(), service.policy.fail_safe);
        warn_about_consent(name, fail_safe, &*announcer, config.mesh.as_ref());
        let identity = service.identity.clone();
        let checks = service.checks.clone();
        let mut spec = ServiceSpec::new(identity, service.policy, checks, announcer);
        spec.on_stop = service.on_stop;
        spec.state = Some(StateDir::new(config.node.state_dir.clone()));
        spec.standing = Some(reload::standing(service));
        node.start(spec)?;
        let addresses = &service.identity.addresses;
        tracing::info!(
            service = %service.name(),
            ?addresses,
            announcer = %service.announce,
            checks = service.checks.len(),
            "guarding"
        );
    }
    Ok(node)
}

/// Asks the kernel and the routing daemons whether they can be used, each way of announcing
/// once.
async fn probe(services: &[Service]) -> Result<(), CannotAnnounce> {
    let mut probed: Vec<&Service> = Vec::new();
    for service in services {
        if probed
            .iter()
            .any(|other| other.announce == service.announce)
        {
            continue;
        }
        probed.push(service);
        if let Some(reason) = service.announce.probe(service.identity.role).await? {
            tracing::warn!(
                service = %service.name(),
                %reason,
                "the routing daemon does not answer; it is asked again"
            );
            // It would cost as long once more for each that is left.
            break;
        }
    }
    Ok(())
}

async fn live(
    path: &Path,
    config: &mut Config,
    node: Node,
    shown: &Shown,
    systemd: &Systemd,
    signals: &mut Signals,
) -> Result<(), DaemonError> {
    let steering = node.handle();
    let mut telling = std::pin::pin!(systemd.follow(&steering, || shown.is_refused()));
    loop {
        let wake = tokio::select! {
            wake = signals.next() => wake,
            service = steering.failed() => return Err(failed(service, node, systemd).await),
            () = &mut telling => continue, // it tells for ever
        };
        match wake {
            Wake::Reload => {
                systemd.reloading();
                // A disk that hangs must hold up neither a stop nor the watchdog, which would
                // end a guard that works.
                tokio::select! {
                    () = reload::reload(path, config, &steering, shown) => {}
                    () = signals.stop() => break,
                    service = steering.failed() => {
                        return Err(failed(service, node, systemd).await);
                    }
                    () = &mut telling => {} // it tells for ever
                }
                systemd.reloaded();
            }
            Wake::Stop => break,
        }
    }
    systemd.stopping();
    tracing::info!("stopping");
    let stop = async {
        node.stop().await;
        tokio::time::sleep(CONVERGE).await;
    };
    tokio::select! {
        () = stop => {}
        () = signals.stop() => tracing::warn!("second signal: stopping at once"),
    }
    Ok(())
}

/// Demotes all, whatever `on_stop` says.
async fn failed(service: ServiceName, node: Node, systemd: &Systemd) -> DaemonError {
    systemd.stopping();
    node.stop_with(OnStop::Demote).await;
    DaemonError::NodeFailed(service)
}
