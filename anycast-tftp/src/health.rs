//! The `tftp` health check: fetches a file from the service address, and proves who sent it.
//!
//! Each probe sends a read request for a small file to every address of the service, as a
//! client would, and follows the transfer to its last byte. The bytes are thrown away.
//!
//! **Proof.** A probe of an anycast address does not by itself say anything about *this*
//! node: when the local service is dead, or the address is missing here, the probe may be
//! answered by another site, and the check of a dead node would report "healthy". So the
//! probe asks with the option `anycast-node`, and [`Proof::Required`] demands that the OACK
//! carry this node's name. Our server always answers that option. Another name, or none, is
//! **Unhealthy**: the service that should answer here did not, whoever else did. The proof
//! tells nodes of one fleet apart; it is no authentication, since the name is not secret.
//!
//! [`Proof::None`] suits a server that does not know the option. Then make sure by other
//! means that the probe cannot leave the host.
//!
//! | what happened | verdict |
//! |---|---|
//! | every address sent the whole file (an empty one too) and the proof | `Healthy` |
//! | silence or no last byte within the time-out, port, host or network unreachable (the address of the service is gone), an ERROR (file missing, access denied, overload), broken protocol | `Unhealthy` |
//! | another node's name, or none where one is required | `Unhealthy` |
//! | no socket (out of descriptors or buffers, source address missing), nothing can be sent for another reason, an unusable file name | `Unknown` |
//! | this check was not run for so long that it missed its own deadline | `Unknown` |
//!
//! If several addresses disagree, `Unhealthy` outweighs `Unknown`, and `Unknown` `Healthy`.

#![allow(
    clippy::disallowed_methods,
    reason = "this module is part of the runtime: it measures whether it met its deadline"
)]

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use anycast_core::service::ServiceAddresses;
use anycast_core::{HealthCheck, NodeName, Verdict};
use async_trait::async_trait;
use tokio::io::AsyncWrite;
use tokio::task::JoinSet;

use crate::client::{Client, Progress, Settings, TransferErrorKind, Transferred};

/// How late a probe's time-out may fire and still be believed. Later, this host did not run
/// the check, so the silence says nothing about the service.
const MAX_LATENESS: Duration = Duration::from_millis(500);
/// Requests that are sent before a silent probe's time is over, roughly: intervals of an
/// eighth, a quarter and a half of the time-out.
const FIRST_INTERVAL_SHARE: u32 = 8;

/// What a probe demands to believe that this node answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// The answer must name this node.
    Required(NodeName),
    /// Any answer will do.
    None,
}

/// The `tftp` health check. See the [module](self).
#[derive(Debug, Clone)]
pub struct TftpCheck {
    servers: Vec<SocketAddr>,
    file: String,
    proof: Proof,
    source: Option<IpAddr>,
}

impl TftpCheck {
    /// A check that fetches `file` from every address of the service at `port` (TFTP's is
    /// 69). The file should be small enough for the check's time-out; a few bytes will do.
    #[must_use]
    pub fn new(addresses: &ServiceAddresses, port: u16, file: &str, proof: Proof) -> Self {
        Self {
            servers: addresses
                .iter()
                .map(|address| SocketAddr::new(address.ip(), port))
                .collect(),
            file: file.to_owned(),
            proof,
            source: None,
        }
    }

    /// Sends probes from this address, of the family of the service's only address, instead
    /// of the one that the system chooses (for an address of this host: that address).
    #[must_use]
    pub const fn source(mut self, address: IpAddr) -> Self {
        self.source = Some(address);
        self
    }

    fn client(&self, timeout: Duration) -> Client {
        let settings = Settings::default()
            .ask_node(self.proof != Proof::None)
            .first_interval(timeout / FIRST_INTERVAL_SHARE)
            .give_up(timeout)
            .dally(Duration::ZERO);
        let client = Client::new(settings);
        match self.source {
            Some(source) => client.local_address(source),
            None => client,
        }
    }
}

#[async_trait]
impl HealthCheck for TftpCheck {
    /// Cancel-safe: dropping it ends its transfers. The probes of all addresses run at once.
    async fn check(&mut self, timeout: Duration) -> Verdict {
        let mut probes = JoinSet::new();
        for server in &self.servers {
            let (server, file, proof) = (*server, self.file.clone(), self.proof.clone());
            let client = self.client(timeout);
            probes.spawn(async move { probe(&client, server, &file, &proof, timeout).await });
        }
        let mut verdict = Verdict::Healthy;
        while let Some(joined) = probes.join_next().await {
            let found = joined
                .unwrap_or_else(|error| Verdict::unknown(format!("the probe failed: {error}")));
            verdict = worse(verdict, found);
        }
        verdict
    }
}

/// `Unhealthy` outweighs `Unknown`, which outweighs `Healthy`.
fn worse(one: Verdict, other: Verdict) -> Verdict {
    match (&one, &other) {
        (Verdict::Unhealthy(..), _) | (_, Verdict::Healthy) => one,
        (Verdict::Unknown(_), Verdict::Unknown(_)) => one,
        (Verdict::Unknown(_) | Verdict::Healthy, _) => other,
    }
}

async fn probe(
    client: &Client,
    server: SocketAddr,
    file: &str,
    proof: &Proof,
    timeout: Duration,
) -> Verdict {
    let start = Instant::now();
    let mut bytes = 0;
    let mut sink = Discard;
    let progress = |progress: Progress| bytes = progress.bytes;
    let transfer = client.get(server, file, &mut sink, progress);
    let ended = tokio::time::timeout(timeout, transfer).await;
    match ended {
        Ok(Ok(done)) => judge(server, &done, proof),
        Ok(Err(error)) => {
            if matches!(error.kind(), TransferErrorKind::NoAnswer { .. }) {
                silent(server, file, bytes, start, timeout)
            } else if is_local(error.kind()) {
                Verdict::unknown(describe(&error))
            } else {
                Verdict::unhealthy(describe(&error))
            }
        }
        Err(_) => silent(server, file, bytes, start, timeout),
    }
}

/// Whether a failure is this host's rather than the service's.
fn is_local(kind: &TransferErrorKind) -> bool {
    match kind {
        // The system knows no way to an address that should be on this very host.
        TransferErrorKind::Socket(error) => !matches!(
            error.kind(),
            io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable
        ),
        TransferErrorKind::Request(_)
        | TransferErrorKind::Bind { .. }
        | TransferErrorKind::Sink(_)
        | TransferErrorKind::Source(_) => true,
        TransferErrorKind::NoAnswer { .. }
        | TransferErrorKind::Refused
        | TransferErrorKind::Server { .. }
        | TransferErrorKind::Protocol(_) => false,
    }
}

/// An error and its causes in one line.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

fn judge(server: SocketAddr, done: &Transferred, proof: &Proof) -> Verdict {
    let Proof::Required(node) = proof else {
        return Verdict::Healthy;
    };
    match &done.agreed.node {
        Some(name) if name == node.as_str() => Verdict::Healthy,
        Some(name) => Verdict::unhealthy(format!(
            "{server} was answered by node {name:?}, not by this node {node}"
        )),
        None => Verdict::unhealthy(format!(
            "{server} was answered by a server that does not name its node; this node is {node}"
        )),
    }
}

fn silent(
    server: SocketAddr,
    file: &str,
    bytes: u64,
    start: Instant,
    timeout: Duration,
) -> Verdict {
    let late = start.elapsed().saturating_sub(timeout);
    if late > MAX_LATENESS {
        return Verdict::unknown(format!(
            "the check was held up for {} ms on this host",
            late.as_millis()
        ));
    }
    let after = timeout.as_millis();
    Verdict::unhealthy(if bytes == 0 {
        format!("{file:?} at {server}: no answer within {after} ms")
    } else {
        format!("{file:?} at {server}: only {bytes} bytes within {after} ms")
    })
}

/// A sink for bytes that nobody wants.
struct Discard;

impl AsyncWrite for Discard {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests;
