//! What the service manager is told: sd_notify(3).
//!
//! | message | when |
//! |---|---|
//! | `READY=1` | every service's first decision was carried out or failed, at most [`READY_WITHIN`] after the start: a check that is slow must not have the guard killed |
//! | `STATUS=` | when it changes, looked at once a second: what is not preferred and why, and that a reload was refused |
//! | `WATCHDOG=1` | only after every decision loop has completed a step since the last one |
//! | `RELOADING=1` with `MONOTONIC_USEC=`, `READY=1` | around a reload, whether it is refused or not; not before the first `READY=1`, which a reload must not bring early |
//! | `STOPPING=1` | when a stop begins |
//!
//! The socket is opened once and never blocks: a process that is out of descriptors must not
//! seem dead, and a manager that does not read must not delay a decision. A message that it
//! does not take is lost; the next look sends a newer one.
//!
//! Without `NOTIFY_SOCKET` in the environment nothing is sent.

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anycast_core::node::{NodeHandle, NodeStatus, ServiceStatus};
use anycast_core::reconcile::Confirmation;
use sd_notify::NotifyState;

/// How long `READY=1` may wait for the first decisions.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// How often is looked whether it is time for `READY=1`.
const UNTIL_READY: Duration = Duration::from_millis(50);
/// How often is looked whether something is to be told.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Services named with their reasons in `STATUS=`; the others are counted.
const NAMED: usize = 3;

/// The connection to the service manager, if there is one.
#[derive(Debug)]
pub(crate) struct Systemd {
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
    /// `READY=1` was told.
    ready: AtomicBool,
}

impl Systemd {
    /// Connects to the socket that the environment names. A failure is logged: the guard works
    /// without.
    pub(crate) fn from_env() -> Self {
        let socket = std::env::var_os("NOTIFY_SOCKET").and_then(|address| {
            connect(&address)
                .inspect_err(|error| {
                    tracing::warn!(?address, %error, "the service manager cannot be told anything");
                })
                .ok()
        });
        Self {
            socket,
            watchdog: sd_notify::watchdog_enabled(),
            ready: AtomicBool::new(false),
        }
    }

    fn tell(&self, states: &[NotifyState<'_>]) {
        let Some(socket) = &self.socket else { return };
        let message: String = states.iter().map(|state| format!("{state}\n")).collect();
        if let Err(error) = socket.send(message.as_bytes()) {
            tracing::debug!(%error, "the service manager does not listen");
        }
    }

    /// A reload begins.
    pub(crate) fn reloading(&self) {
        if !self.ready.load(Ordering::Relaxed) {
            return;
        }
        // Without the time, systemd 253 and later take the reload for failed.
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.tell(&[NotifyState::Reloading, now]),
            Err(error) => tracing::debug!(%error, "no monotonic clock"),
        }
    }

    /// A reload has ended.
    pub(crate) fn reloaded(&self) {
        if self.ready.load(Ordering::Relaxed) {
            self.tell(&[NotifyState::Ready]);
        }
    }

    /// A stop begins.
    pub(crate) fn stopping(&self) {
        self.tell(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
    }

    /// Tells all else, for ever. `is_refused`: whether the last reload was.
    pub(crate) async fn follow(&self, node: &NodeHandle, is_refused: impl Fn() -> bool) {
        let starting = "starting: the first decisions are being carried out";
        self.tell(&[NotifyState::Status(starting)]);
        let ready_by = Instant::now() + READY_WITHIN;
        while !has_decided(&node.status()) && Instant::now() < ready_by {
            tokio::time::sleep(UNTIL_READY).await;
        }
        self.ready.store(true, Ordering::Relaxed);
        self.tell(&[NotifyState::Ready]);
        if self.socket.is_none() {
            return std::future::pending().await;
        }
        let pause = self
            .watchdog
            .map_or(LOOK_EVERY, |watchdog| (watchdog / 4).min(LOOK_EVERY));
        let mut fed = Instant::now();
        let mut told = String::new();
        loop {
            if self.watchdog.is_some() && node.steps().all(|(_, step)| step > fed) {
                fed = Instant::now();
                self.tell(&[NotifyState::Watchdog]);
            }
            let mut status = summary(&node.status());
            if is_refused() {
                status.push_str("; the last reload was refused");
            }
            if status != told {
                self.tell(&[NotifyState::Status(&status)]);
                told = status;
            }
            tokio::time::sleep(pause).await;
        }
    }
}

fn connect(address: &OsString) -> io::Result<UnixDatagram> {
    let bytes = address.as_bytes();
    let address = match bytes.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(address)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Whether every service's first decision was carried out, or failed.
fn has_decided(status: &NodeStatus) -> bool {
    status
        .services
        .iter()
        .all(|service| !service.running || service.confirmation != Confirmation::Pending)
}

/// One line for `systemctl status`.
fn summary(status: &NodeStatus) -> String {
    use anycast_core::Preference;
    let is_preferred = |service: &&ServiceStatus| service.preference == Preference::Preferred;
    let others: Vec<_> = status
        .services
        .iter()
        .filter(|service| !is_preferred(service) || service.trouble().is_some())
        .collect();
    let preferred = status.services.iter().filter(is_preferred).count();
    let mut line = format!("{preferred} of {} preferred", status.services.len());
    for service in others.iter().take(NAMED) {
        let reason = service
            .trouble()
            .unwrap_or_else(|| service.reason.to_string());
        // Writing to a string cannot fail.
        let _ = write!(line, "; {} {}: {reason}", service.name, service.preference);
    }
    if others.len() > NAMED {
        let _ = write!(line, "; and {} more", others.len() - NAMED);
    }
    line
}
