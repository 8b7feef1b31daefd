//! One UDP socket of the server: how it is bound, read and written.

use std::collections::BTreeSet;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use quinn_udp::{BATCH_SIZE, RecvMeta, UdpSocketState};
use rustix::io::Errno;
use rustix::net::sockopt::{Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::BindError;
use crate::proto::Flow;
use crate::proto::server::Transmit;

pub(super) mod drops;
#[cfg(test)]
mod tests;

/// Room for what the kernel may hand over at once: a train of datagrams put together (GRO).
const RECEIVE_LEN: usize = 65_536;

/// Most addresses that are remembered as ones to which windows go packet by packet. Beyond it
/// the link is at fault, not the way to a client, and all windows go so.
const MAX_SPLIT: usize = 64;

/// How long it is remembered that windows have to go packet by packet.
const RETRY_JOINED: Duration = Duration::from_secs(600);

/// A bound socket, not yet given to a runtime.
#[derive(Debug)]
pub(super) struct Bound {
    socket: Socket,
    address: SocketAddr,
}

impl Bound {
    pub(super) fn new(address: SocketAddr, receive_buffer: usize) -> Result<Self, BindError> {
        let failed = |step| {
            move |source| BindError::Socket {
                address,
                step,
                source,
            }
        };
        let socket = Socket::new(
            Domain::for_address(address),
            Type::DGRAM.nonblocking().cloexec(),
            Some(Protocol::UDP),
        )
        .map_err(failed("cannot open a socket"))?;
        // The address may appear later: a service address is announced after its service is
        // ready.
        if address.is_ipv4() {
            socket.set_freebind_v4(true)
        } else {
            socket
                .set_only_v6(true)
                .and_then(|()| socket.set_freebind_v6(true))
        }
        .map_err(failed("cannot prepare the socket"))?;
        enlarge_buffer(&socket, address, receive_buffer);
        socket
            .bind(&address.into())
            .map_err(|source| bind_error(address, source))?;
        let address = socket
            .local_addr()
            .and_then(|address| {
                let message = "not an IP socket";
                address
                    .as_socket()
                    .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, message))
            })
            .map_err(failed("cannot read the address back"))?;
        Ok(Self { socket, address })
    }

    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// What names the socket in `/proc/net/udp`.
    pub(super) fn inode(&self) -> io::Result<u64> {
        Ok(rustix::fs::fstat(&self.socket)?.st_ino)
    }
}

/// A smaller buffer than asked for loses packets under load, which is no reason not to serve,
/// but one to say so: the kernel cuts the size down to its limit without an error.
fn enlarge_buffer(socket: &Socket, address: SocketAddr, asked: usize) {
    // Only CAP_NET_ADMIN may go beyond the limit.
    let asking = rustix::net::sockopt::set_socket_recv_buffer_size_force(socket, asked)
        .map_err(io::Error::from)
        .or_else(|_| socket.set_recv_buffer_size(asked));
    match asking.and_then(|()| socket.recv_buffer_size()) {
        Ok(granted) if is_short(granted, asked) => tracing::warn!(
            %address,
            asked,
            granted = granted / 2,
            "small receive buffer: requests of a boot storm may be lost; set sysctl \
             net.core.rmem_max to what was asked for"
        ),
        Ok(_) => {}
        Err(error) => tracing::warn!(%address, %error, "cannot enlarge the receive buffer"),
    }
}

/// The kernel grants, and tells, twice the size, for its own needs.
const fn is_short(granted: usize, asked: usize) -> bool {
    granted / 2 < asked
}

fn bind_error(address: SocketAddr, source: io::Error) -> BindError {
    if source.kind() == io::ErrorKind::AddrInUse {
        return BindError::InUse { address };
    }
    if source.kind() == io::ErrorKind::PermissionDenied {
        return BindError::Denied { address };
    }
    BindError::Socket {
        address,
        step: "cannot bind",
        source,
    }
}

/// A socket in a runtime.
#[derive(Debug)]
pub(super) struct ServerSocket {
    socket: UdpSocket,
    state: UdpSocketState,
    address: SocketAddr,
    /// What the link offers when nothing has gone wrong.
    most_segments: usize,
    /// To whom windows go packet by packet, and since when the first of them is known.
    split: BTreeSet<IpAddr>,
    split_since: Option<Instant>,
}

impl ServerSocket {
    pub(super) fn new(bound: Bound) -> io::Result<Self> {
        let Bound { socket, address } = bound;
        let socket = UdpSocket::from_std(socket.into())?;
        let state = UdpSocketState::new((&socket).into())?;
        allow_fragments(&socket, address)?;
        Ok(Self {
            most_segments: state.max_gso_segments(),
            split: BTreeSet::new(),
            split_since: None,
            socket,
            state,
            address,
        })
    }

    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Packets that may be sent with one call.
    pub(super) fn max_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    /// Waits until there is something to receive, or, when `wants_to_send`, room to send.
    /// Cancel-safe.
    pub(super) async fn ready(&self, wants_to_send: bool) -> io::Result<()> {
        let interest = if wants_to_send {
            Interest::READABLE | Interest::WRITABLE
        } else {
            Interest::READABLE
        };
        self.socket.ready(interest).await.map(|_| ())
    }

    /// Receives one batch and hands over each datagram; `WouldBlock` when there is none.
    pub(super) fn receive(
        &self,
        inbox: &mut Inbox,
        mut take: impl FnMut(Flow, &[u8]),
    ) -> io::Result<()> {
        let Inbox { bytes, meta } = inbox;
        let mut chunks = bytes.chunks_exact_mut(RECEIVE_LEN);
        let mut slices: [IoSliceMut<'_>; BATCH_SIZE] =
            std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
        let count = self.socket.try_io(Interest::READABLE, || {
            self.state.recv((&self.socket).into(), &mut slices, meta)
        })?;
        for (meta, slice) in meta.iter().zip(slices.iter()).take(count) {
            let flow = Flow {
                remote: without_flow_label(meta.addr),
                local: self.local(meta.dst_ip),
            };
            let bytes = slice.get(..meta.len).unwrap_or_default();
            if bytes.is_empty() {
                take(flow, bytes);
            }
            for datagram in bytes.chunks(meta.stride.max(1)) {
                take(flow, datagram);
            }
        }
        Ok(())
    }

    /// The address that the client used.
    fn local(&self, destination: Option<IpAddr>) -> SocketAddr {
        match destination {
            Some(ip) if self.is_wildcard() => SocketAddr::new(ip, self.address.port()),
            Some(_) | None => self.address,
        }
    }

    const fn is_wildcard(&self) -> bool {
        self.address.ip().is_unspecified()
    }

    /// Sends one packet, or several that were written one after the other.
    pub(super) fn send(
        &self,
        transmit: &Transmit,
        contents: &[u8],
        segment_size: Option<usize>,
    ) -> io::Result<()> {
        let transmit = quinn_udp::Transmit {
            destination: transmit.remote,
            ecn: None,
            contents,
            segment_size,
            // A socket of one address has no choice, and needs none.
            src_ip: self.is_wildcard().then(|| transmit.local.ip()),
        };
        self.socket.try_io(Interest::WRITABLE, || {
            self.state.try_send((&self.socket).into(), &transmit)
        })
    }

    /// A single packet was refused. What the kernel says of one odd address (`EINVAL`) is no
    /// reason to send all others one by one for ever.
    pub(super) fn recover(&mut self, error: &io::Error) {
        if Errno::from_io_error(error) == Some(Errno::INVAL) && self.split.len() < MAX_SPLIT {
            self.reset();
        }
    }

    /// Whether a window for this client may be sent as one. What went wrong long ago is
    /// forgotten.
    pub(super) fn may_join(&mut self, client: IpAddr, now: Instant) -> bool {
        let is_old = |since: Instant| now.saturating_duration_since(since) >= RETRY_JOINED;
        if self.split_since.is_some_and(is_old) {
            self.split_since = None;
            self.split.clear();
            self.reset();
        }
        !self.split.contains(&client)
    }

    /// A window was refused as one and went packet by packet. The way to one client may be
    /// without offload, or too narrow for it: that is no reason to send to all others so.
    pub(super) fn was_split(&mut self, client: IpAddr, now: Instant) {
        self.split_since.get_or_insert(now);
        if self.split.len() < MAX_SPLIT && self.split.insert(client) {
            self.reset();
        }
    }

    /// Undoes what the socket layer concluded from an error.
    fn reset(&mut self) {
        if self.state.max_gso_segments() >= self.most_segments {
            return;
        }
        match UdpSocketState::new((&self.socket).into()) {
            Ok(state) => self.state = state,
            Err(error) => tracing::warn!(address = %self.address, %error, "cannot reset a socket"),
        }
        if let Err(error) = allow_fragments(&self.socket, self.address) {
            tracing::warn!(address = %self.address, %error, "cannot allow fragments");
        }
    }
}

/// Lets the kernel and routers cut packets that are larger than a link. A TFTP client cannot
/// lower its block size once the transfer runs, so a packet in pieces beats one that never
/// arrives. The socket layer below, made for QUIC, forbids it.
fn allow_fragments(socket: &UdpSocket, address: SocketAddr) -> io::Result<()> {
    use rustix::net::sockopt;

    if address.is_ipv4() {
        return Ok(sockopt::set_ip_mtu_discover(
            socket,
            Ipv4PathMtuDiscovery::DONT,
        )?);
    }
    sockopt::set_ipv6_mtu_discover(socket, Ipv6PathMtuDiscovery::DONT)?;
    nix::sys::socket::setsockopt(socket, nix::sys::socket::sockopt::Ipv6DontFrag, &false)?;
    Ok(())
}

/// The flow label is no part of who the client is.
fn without_flow_label(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(_) => address,
        SocketAddr::V6(mut v6) => {
            v6.set_flowinfo(0);
            v6.into()
        }
    }
}

/// Where datagrams are received.
pub(super) struct Inbox {
    bytes: Vec<u8>,
    meta: [RecvMeta; BATCH_SIZE],
}

impl Inbox {
    pub(super) fn new() -> Self {
        Self {
            bytes: vec![0; RECEIVE_LEN * BATCH_SIZE],
            meta: [RecvMeta::default(); BATCH_SIZE],
        }
    }
}

/// The size that the kernel gave a socket's receive buffer, in bytes.
pub(super) fn receive_buffer(socket: &ServerSocket) -> Option<usize> {
    SockRef::from(&socket.socket).recv_buffer_size().ok()
}
