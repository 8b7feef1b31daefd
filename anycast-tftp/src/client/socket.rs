//! A transfer's socket, and the loop between it and the engine.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::time::timeout_at;

use super::{TransferErrorKind, Transferred};
use crate::proto::client::{Client, Failure};
use crate::proto::packet::{DATA_HEADER, ErrorCode};

/// Any UDP datagram fits.
const BUFFER: usize = 65_536;
/// Receive buffer to ask the kernel for, in bytes: a window of 64 blocks of 65,464 bytes.
/// Less is granted silently; the transfer then loses more and goes slower.
const RECEIVE_BUFFER: usize = 4 * 1024 * 1024;

/// An engine and its socket. Dropped before the end, it tells the server with an ERROR.
pub(super) struct Link {
    engine: Client,
    socket: UdpSocket,
    incoming: Vec<u8>,
    /// Length of the payload received last.
    payload: usize,
    outgoing: Vec<u8>,
    /// The last failure to send that was taken for a lost packet.
    fault: Option<io::Error>,
}

impl Link {
    pub(super) fn open(
        engine: Client,
        server: SocketAddr,
        local: Option<IpAddr>,
    ) -> Result<Self, TransferErrorKind> {
        let socket =
            bind(server, local).map_err(|source| TransferErrorKind::Bind { local, source })?;
        Ok(Self {
            engine,
            socket,
            incoming: vec![0; BUFFER],
            payload: 0,
            outgoing: vec![0; BUFFER],
            fault: None,
        })
    }

    pub(super) const fn engine(&self) -> &Client {
        &self.engine
    }

    pub(super) fn provide(&mut self, block: &[u8]) {
        self.engine.handle_block(block);
    }

    /// Bytes on the wire that the server has acknowledged, the last block taken as whole.
    pub(super) fn acknowledged(&self) -> u64 {
        let blksize = self.engine.agreed().map_or(0, |agreed| agreed.blksize);
        self.engine.blocks() * u64::from(blksize)
    }

    /// Sends what the engine has to send.
    pub(super) async fn flush(&mut self) -> Result<(), TransferErrorKind> {
        while let Some(transmit) = self
            .engine
            .poll_transmit(Instant::now(), &mut self.outgoing)
        {
            let datagram = &self.outgoing[..transmit.len];
            if let Err(error) = self.socket.send_to(datagram, transmit.to).await {
                self.handle_fault(error)?;
            }
        }
        Ok(())
    }

    /// A socket error is the server's refusal, or before its first answer the end, or
    /// later as good as a lost packet: routes change while a transfer runs.
    fn handle_fault(&mut self, error: io::Error) -> Result<(), TransferErrorKind> {
        if error.kind() == io::ErrorKind::ConnectionRefused {
            self.engine.handle_refused();
            return Ok(());
        }
        if self.engine.peer().is_none() {
            return Err(TransferErrorKind::Socket(error));
        }
        self.fault = Some(error);
        Ok(())
    }

    /// Waits for a datagram or the engine's time-out. True when [`payload`](Self::payload)
    /// is what comes next in the file.
    pub(super) async fn next(&mut self) -> Result<bool, TransferErrorKind> {
        let Some((deadline, _)) = self.engine.poll_timeout() else {
            return self.check().map(|()| false);
        };
        let receive = self.socket.recv_from(&mut self.incoming);
        let received = timeout_at(deadline.into(), receive).await;
        let now = Instant::now();
        let mut payload = None;
        match received {
            Ok(Ok((len, from))) => {
                self.fault = None;
                let datagram = &self.incoming[..len];
                payload = self.engine.handle_datagram(now, from, datagram);
            }
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                self.engine.handle_refused();
            }
            // Unreachable for now: routes move, the engine's own limit decides.
            Ok(Err(error)) => self.fault = Some(error),
            Err(_) => {}
        }
        let payload = payload.map(<[u8]>::len);
        // Even while datagrams keep coming: rubbish must not put the time-out off.
        self.engine.handle_timeout(now);
        if let Some(Err(failure)) = self.engine.outcome() {
            let kind = match (failure, self.fault.take()) {
                (Failure::NoAnswer { .. }, Some(fault)) => TransferErrorKind::Socket(fault),
                (failure, _) => failure.into(),
            };
            self.farewell();
            return Err(kind);
        }
        self.payload = payload.unwrap_or(0);
        Ok(payload.is_some())
    }

    /// The payload that [`next`](Self::next) received.
    pub(super) fn payload(&self) -> &[u8] {
        &self.incoming[DATA_HEADER..][..self.payload]
    }

    fn check(&self) -> Result<(), TransferErrorKind> {
        match self.engine.outcome() {
            Some(Err(failure)) => Err(failure.into()),
            Some(Ok(())) | None => Ok(()),
        }
    }

    /// Ends the transfer from this side.
    pub(super) fn abort(&mut self, code: ErrorCode, message: &'static str) {
        self.engine.abort(code, message);
        self.farewell();
    }

    /// Sends a last packet without waiting; one that does not go out is lost.
    fn farewell(&mut self) {
        let now = Instant::now();
        if let Some(transmit) = self.engine.poll_transmit(now, &mut self.outgoing) {
            let datagram = &self.outgoing[..transmit.len];
            let _ = self.socket.try_send_to(datagram, transmit.to);
        }
    }

    pub(super) fn transferred(
        &self,
        bytes: u64,
        start: Instant,
    ) -> Result<Transferred, TransferErrorKind> {
        let silent = || TransferErrorKind::Protocol("complete without an answer".to_owned());
        Ok(Transferred {
            bytes,
            blocks: self.engine.blocks(),
            agreed: self.engine.agreed().cloned().ok_or_else(silent)?,
            peer: self.engine.peer().ok_or_else(silent)?,
            retransmissions: self.engine.retransmissions(),
            duration: start.elapsed(),
        })
    }

    /// Stays behind to repeat the last acknowledgement.
    pub(super) fn dally(mut self, dally: Duration) {
        if dally.is_zero() {
            return;
        }
        tokio::spawn(async move {
            while self.engine.poll_timeout().is_some() {
                if self.next().await.is_err() || self.flush().await.is_err() {
                    return;
                }
            }
        });
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.abort(ErrorCode::NotDefined, "cancelled");
    }
}

fn bind(server: SocketAddr, local: Option<IpAddr>) -> io::Result<UdpSocket> {
    let any = match server {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = Socket::new(
        Domain::for_address(server),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    if server.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // A smaller buffer is granted where the system allows no more.
    let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
    report_icmp(&socket, server);
    socket.bind(&SocketAddr::new(local.unwrap_or(any), 0).into())?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket.into())
}

/// Has ICMP errors reported on a socket that is not connected, so that a refusal is learnt
/// at once. Connecting would lose the answers of servers that take a new port. Best effort.
#[cfg(target_os = "linux")]
fn report_icmp(socket: &Socket, server: SocketAddr) {
    use nix::sys::socket::{setsockopt, sockopt};
    let _ = match server {
        SocketAddr::V4(_) => setsockopt(socket, sockopt::Ipv4RecvErr, &true),
        SocketAddr::V6(_) => setsockopt(socket, sockopt::Ipv6RecvErr, &true),
    };
}

#[cfg(not(target_os = "linux"))]
fn report_icmp(_: &Socket, _: SocketAddr) {}
