//! The check `icmp`: an echo to the service address.
//!
//! Every probe sends each address of the service an echo request (RFC 792, RFC 4443) with a
//! random nonce, at most three times within the time-out. A reply counts when it comes from the
//! address asked (the socket is connected) and returns sequence number and nonce; anything else
//! is ignored.
//!
//! | heard | verdict |
//! |---|---|
//! | the reply | healthy |
//! | silence until the time-out, address not on this node, unreachable | unhealthy |
//! | no permission for ICMP, no descriptor or memory, this host's own firewall, a flood of other packets, a checker that was starved | unknown |
//!
//! # Permission
//!
//! An unprivileged ICMP socket is tried first; Linux grants it to the groups in
//! `net.ipv4.ping_group_range` (for IPv6 too), by default to none. Then a raw socket, which needs
//! the capability `CAP_NET_RAW`. Where neither is allowed the check is unknown, and says so.
//!
//! # What the proof is worth
//!
//! **The kernel answers, not the service.** The reply proves that the address is on this node
//! and that packets to it are delivered here; the service may be dead for all that. With
//! [`Source::Service`] (the default) only the local node's reply can arrive, see
//! `probe`. A host with `net.ipv4.icmp_echo_ignore_all = 1` never replies. Use it beside a
//! check of the service itself, so that a reason tells the two apart.

mod echo;
#[cfg(feature = "config")]
mod table;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use async_trait::async_trait;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::net::UdpSocket;

use self::echo::{Framing, Request};
#[cfg(feature = "config")]
pub use self::table::IcmpTable;

use super::probe::exchange::{Heard, NoAnswer, Patience, all, exchange, random};
use super::probe::{Source, is_checkers_own};
use super::{HealthCheck, Verdict};
use crate::service::ServiceAddresses;

/// What to do where ICMP is not permitted.
const REMEDY: &str = "no permission for ICMP; grant the capability CAP_NET_RAW, or put this \
                      process's group into the sysctl net.ipv4.ping_group_range";

/// The check `icmp`; see the [module](self). Cheap to clone.
#[derive(Debug, Clone)]
pub struct IcmpCheck {
    addresses: ServiceAddresses,
    source: Source,
}

impl IcmpCheck {
    /// Asks each of these addresses, from the service address.
    #[must_use]
    pub fn new(addresses: ServiceAddresses) -> Self {
        Self {
            addresses,
            source: Source::default(),
        }
    }

    /// Where requests come from.
    #[must_use]
    pub const fn with_source(mut self, source: Source) -> Self {
        self.source = source;
        self
    }

    async fn probe(&self, address: IpAddr, patience: Patience) -> Verdict {
        match self.ask(address, patience).await {
            Ok(()) => Verdict::Healthy,
            // A raw socket hears whatever else is pinged here.
            Err(NoAnswer::Flooded(ignored)) => {
                Verdict::unknown(format!("{address}: too much other ICMP{ignored}"))
            }
            Err(
                no_answer @ (NoAnswer::Io(..)
                | NoAnswer::Verdict(_)
                | NoAnswer::Silent(..)
                | NoAnswer::Starved),
            ) => no_answer.verdict(address),
        }
    }

    async fn ask(&self, address: IpAddr, patience: Patience) -> Result<(), NoAnswer> {
        let (socket, framing) = open(address)?;
        let socket = joined(socket, address, self.source).map_err(|e| NoAnswer::Io("open", e))?;
        let request = Request::new(address.is_ipv6(), random().to_be_bytes(), random());
        let hear = |packet: &[u8]| match request.fault(packet, framing) {
            None => Heard::Answer(()),
            Some(what) => Heard::Ignored(format!("{what} ({} bytes)", packet.len())),
        };
        exchange(&socket, &request.encode(), patience, hear).await
    }
}

/// An unprivileged socket, else a raw one.
fn open(address: IpAddr) -> Result<(Socket, Framing), NoAnswer> {
    let (domain, protocol) = match address {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    let socket = |kind: Type| Socket::new(domain, kind.nonblocking().cloexec(), Some(protocol));
    let unprivileged = match socket(Type::DGRAM) {
        Ok(socket) => return Ok((socket, Framing::Bare)),
        Err(error) => error,
    };
    if is_checkers_own(&unprivileged) && !is_refusal(&unprivileged) {
        return Err(NoAnswer::Io("open", unprivileged));
    }
    let framing = match address {
        IpAddr::V4(_) => Framing::Ipv4Header,
        IpAddr::V6(_) => Framing::Bare,
    };
    match socket(Type::RAW) {
        Ok(socket) => Ok((socket, framing)),
        Err(error) if is_refusal(&error) => {
            let verdict = Verdict::unknown(format!("{address}: {REMEDY}"));
            Err(NoAnswer::Verdict(verdict))
        }
        Err(error) => Err(NoAnswer::Io("open", error)),
    }
}

fn is_refusal(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

/// Sends to `address` and hears it alone; the runtime needs no more than a datagram socket.
fn joined(socket: Socket, address: IpAddr, source: Source) -> io::Result<UdpSocket> {
    let address = SockAddr::from(SocketAddr::new(address, 0));
    if source == Source::Service {
        socket.bind(&address)?;
    }
    socket.connect(&address)?;
    UdpSocket::from_std(socket.into())
}

#[async_trait]
impl HealthCheck for IcmpCheck {
    async fn check(&mut self, timeout: Duration) -> Verdict {
        let patience = Patience::new(timeout);
        let this = &*self;
        let probes = self
            .addresses
            .iter()
            .map(|to| this.probe(to.ip(), patience));
        all(probes).await
    }
}
