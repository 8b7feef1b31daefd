//! What the checks over a network share: where a probe comes from, and whose fault an error is.
//!
//! # Proof that the local node answered
//!
//! A route to the service address in the local table is not proof enough: an `ip rule`, a
//! DNAT or a tunnel may send the probe to another site, which answers for us. So a probe is
//! sent **from the service address itself** ([`Source::Service`]). Its answer is addressed to
//! that address too, and every node that could have answered holds it: a remote node delivers
//! its answer to itself. Only the local node's answer can arrive here, and a TCP handshake
//! with another node cannot complete. Where the protocol names the node (NSID, a header, the
//! TFTP option of ours) the name is compared as well.
//!
//! What it does not prove: that the *process* we mean answered. A local forwarder (a proxy,
//! full NAT) that passes the request on under an address of its own still answers locally;
//! against that only a per-node answer helps.
//!
//! # Whose fault an error is
//!
//! Descriptors, memory, buffers and ports that ran out, a refusal by this host's own firewall,
//! and a time-out that this host noticed late are the checker's own: `Unknown`. An address that
//! cannot be bound to because it is not on this node is the service's: `Unhealthy`.

pub(crate) mod exchange;

use std::fmt::Display;
use std::io;
#[cfg(feature = "config")]
use std::net::IpAddr;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};
use tokio::net::{TcpStream, UdpSocket};

use super::Verdict;
#[cfg(feature = "config")]
use crate::service::{ServiceAddress, ServiceAddresses};

/// Where a probe comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Deserialize),
    serde(rename_all = "lowercase")
)]
#[non_exhaustive]
pub enum Source {
    /// The service address itself: proves that the local node answered. The default. The
    /// service must accept requests from that address (its access list).
    #[default]
    Service,
    /// Whatever the kernel chooses. Proves nothing about who answered; for a service whose
    /// access list cannot hold the service address, together with a per-node answer.
    Any,
}

/// Whether this error is the checker's own and says nothing about the service.
///
/// Exhausted descriptors, memory, buffers, epoll entries or ports, and a refusal of this
/// host's own firewall.
pub(crate) fn is_checkers_own(error: &io::Error) -> bool {
    use io::ErrorKind;
    const EPERM: i32 = 1;
    const ENOMEM: i32 = 12;
    const EACCES: i32 = 13;
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    const ENOSPC: i32 = 28;
    const EADDRINUSE: i32 = 98;
    const ENOBUFS: i32 = 105;
    match error.raw_os_error() {
        Some(code) => matches!(
            code,
            EPERM | ENOMEM | EACCES | ENFILE | EMFILE | ENOSPC | EADDRINUSE | ENOBUFS
        ),
        None => error.kind() == ErrorKind::OutOfMemory,
    }
}

/// The verdict on an error met while probing `target`.
pub(crate) fn verdict_on(target: impl Display, doing: &str, error: &io::Error) -> Verdict {
    if is_checkers_own(error) {
        return Verdict::unknown(format!("{target}: {doing}: {error}"));
    }
    if error.kind() == io::ErrorKind::AddrNotAvailable {
        return Verdict::unhealthy(format!("{target}: the address is not on this node"));
    }
    Verdict::unhealthy(format!("{target}: {doing}: {error}"))
}

/// A UDP socket that sends to `target`, and hears its answers alone.
pub(crate) fn udp(target: SocketAddr, source: Source) -> io::Result<UdpSocket> {
    let socket = Socket::new(
        Domain::for_address(target),
        Type::DGRAM.nonblocking().cloexec(),
        Some(Protocol::UDP),
    )?;
    if source == Source::Service {
        socket.bind(&SockAddr::from(SocketAddr::new(target.ip(), 0)))?;
    }
    socket.connect(&SockAddr::from(target))?;
    UdpSocket::from_std(socket.into())
}

/// A TCP connection to `target`, or the verdict on there being none. The caller bounds it in
/// time.
///
/// Dropping it resets it, so that nothing of it stays behind in the kernel, whatever the
/// service does; [`close_politely`] undoes that.
///
/// A connection that turned out to be one with itself (possible where the service's port lies
/// in the range of ephemeral ports and nobody listens) counts as refused.
pub(crate) async fn tcp(target: SocketAddr, source: Source) -> Result<TcpStream, Verdict> {
    match dial(target, source)? {
        Dialled::Complete(socket) => watched(target, socket),
        Dialled::OnItsWay(socket) => arrive(target, socket).await,
    }
}

/// That `target` accepts a TCP connection, which is reset at once. Else as [`tcp`].
///
/// On the local node a handshake is as a rule complete when the system call returns. Then the
/// runtime's poller is not troubled, which saves much of the cost.
pub(crate) async fn tcp_accepts(target: SocketAddr, source: Source) -> Result<(), Verdict> {
    match dial(target, source)? {
        Dialled::Complete(_) => Ok(()),
        Dialled::OnItsWay(socket) => arrive(target, socket).await.map(drop),
    }
}

/// A connection that was begun.
enum Dialled {
    Complete(Socket),
    OnItsWay(Socket),
}

fn dial(target: SocketAddr, source: Source) -> Result<Dialled, Verdict> {
    let socket = tcp_socket(target, source).map_err(|error| {
        if error.kind() == io::ErrorKind::AddrNotAvailable {
            return verdict_on(target, "opening a socket", &error);
        }
        own_fault(target, &error)
    })?;
    match connect(&socket, target) {
        Ok(()) => {
            not_with_itself(target, &socket)?;
            Ok(Dialled::Complete(socket))
        }
        Err(error) if on_its_way(&error) => Ok(Dialled::OnItsWay(socket)),
        Err(error) => Err(not_connected(target, &error)),
    }
}

/// Linux holds the answer to a SYN back until the system call that sent it returns, so that
/// the first call always says EINPROGRESS. The second one tells what has become of it.
fn connect(socket: &Socket, target: SocketAddr) -> io::Result<()> {
    let target = SockAddr::from(target);
    match socket.connect(&target) {
        Err(error) if on_its_way(&error) => socket.connect(&target),
        outcome => outcome,
    }
}

fn on_its_way(error: &io::Error) -> bool {
    const EALREADY: i32 = 114;
    const EINPROGRESS: i32 = 115;
    matches!(error.raw_os_error(), Some(EALREADY | EINPROGRESS))
}

fn tcp_socket(target: SocketAddr, source: Source) -> io::Result<Socket> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(target), kind, Some(Protocol::TCP))?;
    socket.set_linger(Some(Duration::ZERO))?;
    if source == Source::Service {
        socket.bind(&SockAddr::from(SocketAddr::new(target.ip(), 0)))?;
    }
    Ok(socket)
}

/// Waits for a connection on its way.
async fn arrive(target: SocketAddr, socket: Socket) -> Result<TcpStream, Verdict> {
    let stream = watched(target, socket)?;
    let failed = |error| not_connected(target, &error);
    stream.writable().await.map_err(failed)?;
    if let Some(error) = stream.take_error().map_err(failed)? {
        return Err(failed(error));
    }
    not_with_itself(target, &SockRef::from(&stream))?;
    Ok(stream)
}

/// Hands a socket to the runtime's poller.
fn watched(target: SocketAddr, socket: Socket) -> Result<TcpStream, Verdict> {
    TcpStream::from_std(socket.into()).map_err(|error| own_fault(target, &error))
}

/// Whatever keeps a socket from being opened, the service has no part in it.
fn own_fault(target: SocketAddr, error: &io::Error) -> Verdict {
    Verdict::unknown(format!("{target}: opening a socket: {error}"))
}

fn not_connected(target: SocketAddr, error: &io::Error) -> Verdict {
    if error.kind() == io::ErrorKind::AddrNotAvailable {
        return Verdict::unknown(format!(
            "{target}: connecting: no source address or port is free on this host"
        ));
    }
    verdict_on(target, "connecting", error)
}

fn not_with_itself(target: SocketAddr, socket: &Socket) -> Result<(), Verdict> {
    match socket.local_addr() {
        Ok(local) if local.as_socket() == Some(target) => Err(Verdict::unhealthy(format!(
            "{target}: connecting: nobody listens"
        ))),
        Ok(_) => Ok(()),
        Err(error) => Err(not_connected(target, &error)),
    }
}

/// Lets a connection of [`tcp`] end with a FIN when it is dropped.
pub(crate) fn close_politely(stream: &TcpStream) {
    // If it fails, the connection is reset instead.
    let _ = SockRef::from(stream).set_linger(None);
}

/// The addresses to probe: those named in the key `addresses`, or all of the service's.
///
/// # Errors
/// A line for the operator, when the list is empty or names an address twice or one that is
/// not the service's.
#[cfg(feature = "config")]
pub(crate) fn chosen(
    service: &ServiceAddresses,
    only: Option<&[IpAddr]>,
) -> Result<ServiceAddresses, String> {
    let Some(only) = only else {
        return Ok(service.clone());
    };
    let wrong = |error: &dyn Display| format!("addresses: {error}");
    let mut addresses = Vec::with_capacity(only.len());
    for &ip in only {
        let address = ServiceAddress::new(ip).map_err(|error| wrong(&error))?;
        if !service.contains(address) {
            return Err(format!(
                "addresses: {ip} is not an address of the service; name some of its own, or \
                 remove the key to probe all"
            ));
        }
        addresses.push(address);
    }
    ServiceAddresses::new(addresses).map_err(|error| wrong(&error))
}

#[cfg(test)]
mod tests;
