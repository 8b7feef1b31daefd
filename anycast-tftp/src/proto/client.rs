//! The client's engine: one read or write, without IO.
//!
//! The caller owns socket, clock, sink and source, and drives a [`Client`]:
//!
//! 1. A datagram arrives: [`handle_datagram`](Client::handle_datagram). In a read it may
//!    return payload, which goes to the sink *before* anything else is polled, since the
//!    next [`poll_transmit`](Client::poll_transmit) acknowledges it.
//! 2. In a write, while [`wants_block`](Client::wants_block) names a length, read that much
//!    from the source and hand it to [`handle_block`](Client::handle_block).
//! 3. [`poll_transmit`](Client::poll_transmit) until it returns `None`.
//! 4. Look at [`outcome`](Client::outcome), then wait for a datagram or for
//!    [`poll_timeout`](Client::poll_timeout), and at the latter call
//!    [`handle_timeout`](Client::handle_timeout).
//!
//! `now` must never go back. Memory is bounded by one window of a write
//! ([`MAX_WINDOW_BYTES`]); a read keeps nothing.
//!
//! **Transfer IDs** (RFC 1350 §4). The request goes to the server's port. The first fitting
//! answer from the server's *address* fixes the peer's port, whether it is the same one
//! (single-port servers) or a new one. Afterwards another port of that address gets ERROR 5,
//! at most [`MAX_STRANGERS`] times, and never in answer to an ERROR; any other address
//! gets nothing, since its packets may be forged to make us send.
//!
//! **Loss.** A request, an acknowledgement or a window is sent again at an interval that
//! follows the measured round trip and doubles (RFC 6298). A repeated DATA is acknowledged
//! again; a repeated ACK never makes a lock-step sender send (RFC 1123 §4.2.3.1).

mod output;
mod receive;
mod send;
mod settings;
mod timer;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

pub use self::output::{Failure, TimeoutReason, Transmit};
pub use self::settings::{Agreed, MAX_WINDOW_BYTES, RequestError, Rollover, Settings};

use self::receive::{Arrival, Receiver};
use self::send::{Moved, Sender};
use self::timer::Timer;
use super::packet::{ErrorCode, MAX_ERROR, MAX_REQUEST, Options, Packet, Request, encode_error};

/// Most ERROR 5 replies to other ports of the server in one transfer; then silence.
pub const MAX_STRANGERS: u32 = 8;
/// Largest window of a write, in blocks: half the number space, so that an old ACK can
/// never be taken for a new one.
pub const MAX_WRITE_WINDOW: u16 = 32_767;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Read,
    Write,
}

#[derive(Debug)]
enum Phase {
    Requesting,
    Receiving(Receiver),
    Sending(Sender),
    /// Complete, and whether the receiver still repeats its acknowledgement.
    Complete(Option<Receiver>),
    Failed(Failure),
}

/// One transfer, seen from the client.
#[derive(Debug)]
pub struct Client {
    settings: Settings,
    direction: Direction,
    file: Vec<u8>,
    size: Option<u64>,
    server: SocketAddr,
    peer: Option<SocketAddr>,
    phase: Phase,
    agreed: Option<Agreed>,
    timer: Timer,
    request_due: bool,
    /// An ERROR to the peer that ends the transfer.
    error_due: Option<(ErrorCode, &'static str)>,
    stranger_due: Option<SocketAddr>,
    strangers: u32,
    retransmissions: u64,
    received: u64,
    blocks: u64,
}

impl Client {
    /// A read of `file` from `server` (address and port of its requests).
    ///
    /// # Errors
    /// [`RequestError`] when the request cannot be written.
    pub fn read(
        server: SocketAddr,
        file: &[u8],
        settings: Settings,
        now: Instant,
    ) -> Result<Self, RequestError> {
        Self::new(Direction::Read, server, file, Some(0), settings, now)
    }

    /// A write of `file` to `server`; `size` in bytes if it is known.
    ///
    /// # Errors
    /// [`RequestError`] when the request cannot be written or its window is too large.
    pub fn write(
        server: SocketAddr,
        file: &[u8],
        size: Option<u64>,
        settings: Settings,
        now: Instant,
    ) -> Result<Self, RequestError> {
        let windowsize = settings.windowsize.unwrap_or(1);
        let blksize = settings.blksize.unwrap_or(super::packet::DEFAULT_BLKSIZE);
        let bytes = usize::from(windowsize) * usize::from(blksize);
        if bytes > MAX_WINDOW_BYTES || windowsize > MAX_WRITE_WINDOW {
            return Err(RequestError::Window {
                windowsize,
                blksize,
            });
        }
        Self::new(Direction::Write, server, file, size, settings, now)
    }

    fn new(
        direction: Direction,
        server: SocketAddr,
        file: &[u8],
        size: Option<u64>,
        settings: Settings,
        now: Instant,
    ) -> Result<Self, RequestError> {
        let mut buffer = [0; MAX_REQUEST];
        request_packet(direction, settings.request(file, size)).encode(&mut buffer)?;
        let first_interval = settings.first_interval.max(Duration::from_millis(1));
        Ok(Self {
            settings,
            direction,
            file: file.to_vec(),
            size,
            server,
            peer: None,
            phase: Phase::Requesting,
            agreed: None,
            timer: Timer::new(now, first_interval),
            request_due: true,
            error_due: None,
            stranger_due: None,
            strangers: 0,
            retransmissions: 0,
            received: 0,
            blocks: 0,
        })
    }

    /// How the transfer ended: `Ok` when every byte was received, or written and
    /// acknowledged; `None` while it goes on. After the end [`poll_transmit`](Self::poll_transmit)
    /// may still have a last packet.
    #[must_use]
    pub const fn outcome(&self) -> Option<Result<(), &Failure>> {
        match &self.phase {
            Phase::Requesting | Phase::Receiving(_) | Phase::Sending(_) => None,
            Phase::Complete(_) => Some(Ok(())),
            Phase::Failed(failure) => Some(Err(failure)),
        }
    }

    /// What was agreed on, once the server has answered.
    #[must_use]
    pub const fn agreed(&self) -> Option<&Agreed> {
        self.agreed.as_ref()
    }

    /// The peer's transfer ID, once the server has answered.
    #[must_use]
    pub const fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// Blocks received in order, or acknowledged by the server.
    #[must_use]
    pub const fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Bytes of payload received in order.
    #[must_use]
    pub const fn received(&self) -> u64 {
        self.received
    }

    /// Packets sent again because the peer was silent.
    #[must_use]
    pub const fn retransmissions(&self) -> u64 {
        self.retransmissions
    }

    /// Takes a datagram. In a read it returns the payload that comes next in the file,
    /// possibly empty at its end.
    pub fn handle_datagram<'d>(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &'d [u8],
    ) -> Option<&'d [u8]> {
        if matches!(self.phase, Phase::Failed(_)) || !same_host(from, self.server) {
            return None;
        }
        let packet = Packet::parse(datagram);
        if self.peer.is_some_and(|peer| !same_socket(peer, from)) {
            self.handle_stranger(from, packet.is_ok_and(is_error));
            return None;
        }
        match packet {
            Ok(Packet::Data { block, payload }) => self.handle_data(now, from, block, payload),
            Ok(Packet::Ack { block }) => {
                self.handle_ack(now, from, block);
                None
            }
            Ok(Packet::OptionAck(options)) => {
                self.handle_option_ack(now, from, &options);
                None
            }
            Ok(Packet::Error { code, message }) => {
                self.handle_error(code, message);
                None
            }
            Ok(Packet::ReadRequest(_) | Packet::WriteRequest(_)) => None,
            Err(error) => {
                if datagram.starts_with(&[0, 6]) && matches!(self.phase, Phase::Requesting) {
                    self.peer = Some(from);
                    self.refuse_options(error.to_string());
                }
                None
            }
        }
    }

    fn handle_stranger(&mut self, from: SocketAddr, is_error: bool) {
        if !is_error && self.strangers < MAX_STRANGERS {
            self.strangers += 1;
            self.stranger_due = Some(from);
        }
    }

    fn handle_error(&mut self, code: ErrorCode, message: &[u8]) {
        if matches!(self.phase, Phase::Complete(_)) {
            return;
        }
        self.fail(Failure::Server {
            code,
            message: String::from_utf8_lossy(message).into_owned(),
        });
    }

    fn handle_option_ack(&mut self, now: Instant, from: SocketAddr, options: &Options<'_>) {
        match &mut self.phase {
            Phase::Requesting => {}
            Phase::Receiving(receiver) => {
                // Our ACK 0 was lost.
                if receiver.blocks() == 0 {
                    receiver.repeat(now, self.timer.interval());
                }
                return;
            }
            Phase::Sending(_) | Phase::Complete(_) | Phase::Failed(_) => return,
        }
        self.peer = Some(from);
        match self.settings.agree(options) {
            Ok(agreed) => self.begin(now, agreed, true),
            Err(reason) => self.refuse_options(reason.to_owned()),
        }
    }

    /// The server has answered the request.
    fn begin(&mut self, now: Instant, agreed: Agreed, acknowledge: bool) {
        if let Some(floor) = agreed.timeout {
            self.timer.set_floor(floor);
        }
        self.request_due = false;
        self.timer.progress(now);
        let rollover = self.settings.rollover;
        self.phase = match self.direction {
            Direction::Read => Phase::Receiving(Receiver::new(&agreed, rollover, acknowledge)),
            Direction::Write => {
                // Nothing is owed until a block is sent.
                self.timer.stop();
                Phase::Sending(Sender::new(&agreed, rollover))
            }
        };
        self.agreed = Some(agreed);
    }

    fn handle_data<'d>(
        &mut self,
        now: Instant,
        from: SocketAddr,
        block: u16,
        payload: &'d [u8],
    ) -> Option<&'d [u8]> {
        if matches!(self.phase, Phase::Requesting) {
            if self.direction == Direction::Write || block != 1 {
                return None;
            }
            self.peer = Some(from);
            self.begin(now, Agreed::default(), false);
        }
        let receiver = match &mut self.phase {
            Phase::Receiving(receiver) => receiver,
            Phase::Complete(Some(receiver)) => {
                receiver.repeat(now, Duration::ZERO);
                return None;
            }
            Phase::Requesting | Phase::Sending(_) | Phase::Complete(None) | Phase::Failed(_) => {
                return None;
            }
        };
        match receiver.data(block, payload.len()) {
            Arrival::Next { last } => {
                self.received += payload.len() as u64;
                self.blocks = receiver.blocks();
                self.timer.progress(now);
                if last {
                    self.complete();
                }
                Some(payload)
            }
            Arrival::Other => {
                receiver.repeat(now, self.timer.interval());
                None
            }
            Arrival::Oversized => {
                let blksize = self.agreed.as_ref().map_or(0, |agreed| agreed.blksize);
                self.error_due = Some((ErrorCode::IllegalOperation, "block too large"));
                self.fail(Failure::Oversized {
                    len: payload.len(),
                    blksize,
                });
                None
            }
        }
    }

    fn handle_ack(&mut self, now: Instant, from: SocketAddr, block: u16) {
        match &mut self.phase {
            Phase::Requesting if self.direction == Direction::Write && block == 0 => {
                self.peer = Some(from);
                self.begin(now, Agreed::default(), false);
            }
            Phase::Sending(sender) => {
                let moved = sender.ack(block);
                self.blocks = sender.acknowledged();
                match moved {
                    Moved::Forward => {
                        self.timer.progress(now);
                        if !sender.is_outstanding() {
                            self.timer.stop();
                        }
                    }
                    Moved::Finished => self.complete(),
                    Moved::No => {}
                }
            }
            Phase::Requesting | Phase::Receiving(_) | Phase::Complete(_) | Phase::Failed(_) => {}
        }
    }

    fn complete(&mut self) {
        self.timer.stop();
        let phase = std::mem::replace(&mut self.phase, Phase::Complete(None));
        if let Phase::Receiving(receiver) = phase {
            self.phase = Phase::Complete(Some(receiver));
        }
    }

    fn fail(&mut self, failure: Failure) {
        self.timer.stop();
        self.request_due = false;
        self.phase = Phase::Failed(failure);
    }

    fn refuse_options(&mut self, reason: String) {
        self.error_due = Some((ErrorCode::OptionRefused, "unacceptable options"));
        self.fail(Failure::Options { reason });
    }

    /// Ends the transfer from this side; the peer is told if there is one.
    pub fn abort(&mut self, code: ErrorCode, message: &'static str) {
        if self.outcome().is_none() {
            self.error_due = Some((code, message));
            self.fail(Failure::Aborted);
        }
    }

    /// The network reported that nobody listens at the peer's port.
    ///
    /// Ignored when the report may concern an ERROR 5 that we sent elsewhere, and by
    /// [`Settings::abort_when_refused`].
    pub fn handle_refused(&mut self) {
        if self.settings.abort_when_refused && self.strangers == 0 && self.outcome().is_none() {
            self.fail(Failure::Refused);
        }
    }

    /// How many bytes the next block takes, when a write has room for one. Fewer are the
    /// end of the file; a file that ends on a whole block needs an empty one.
    #[must_use]
    pub fn wants_block(&self) -> Option<usize> {
        match &self.phase {
            Phase::Sending(sender) => sender.wants(),
            Phase::Requesting | Phase::Receiving(_) | Phase::Complete(_) | Phase::Failed(_) => None,
        }
    }

    /// Takes the next block of a write; ignored when none was wanted or it is too long.
    pub fn handle_block(&mut self, block: &[u8]) -> bool {
        match &mut self.phase {
            Phase::Sending(sender) => sender.provide(block),
            Phase::Requesting | Phase::Receiving(_) | Phase::Complete(_) | Phase::Failed(_) => {
                false
            }
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout), and why.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, TimeoutReason)> {
        let reason = match self.phase {
            Phase::Complete(_) => TimeoutReason::Dally,
            Phase::Requesting | Phase::Receiving(_) | Phase::Sending(_) | Phase::Failed(_) => {
                TimeoutReason::Retransmit
            }
        };
        self.timer.deadline.map(|deadline| (deadline, reason))
    }

    /// Time has passed. Without effect before the deadline.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.timer.deadline.is_none_or(|deadline| now < deadline) {
            return;
        }
        if matches!(self.phase, Phase::Complete(_)) {
            self.timer.stop();
            self.phase = Phase::Complete(None);
            return;
        }
        let silence = self.timer.silence(now);
        if self.timer.attempts >= self.settings.retries || silence >= self.settings.give_up {
            self.error_due = Some((ErrorCode::NotDefined, "timed out"));
            self.fail(Failure::NoAnswer { after: silence });
            return;
        }
        self.timer.expired(now);
        self.retransmissions += 1;
        match &mut self.phase {
            Phase::Requesting => self.request_due = true,
            Phase::Receiving(receiver) => receiver.acknowledge(),
            Phase::Sending(sender) => sender.rewind(),
            Phase::Complete(_) | Phase::Failed(_) => {}
        }
    }

    /// Writes the next datagram to `buffer`, of at least 4 bytes more than the block size
    /// and at least [`MAX_REQUEST`]; one that does not fit is dropped as if it were lost.
    pub fn poll_transmit(&mut self, now: Instant, buffer: &mut [u8]) -> Option<Transmit> {
        if let Some(to) = self.stranger_due.take() {
            let len = encode_error(ErrorCode::UnknownTransfer, b"unknown transfer", buffer).ok()?;
            return Some(Transmit { to, len });
        }
        if let Some((code, message)) = self.error_due.take() {
            let to = self.peer?;
            let len = encode_error(code, message.as_bytes(), buffer).ok()?;
            debug_assert!(len <= MAX_ERROR);
            return Some(Transmit { to, len });
        }
        let (to, packet) = match &mut self.phase {
            Phase::Requesting if self.request_due => {
                self.request_due = false;
                self.timer.sent(now);
                let request = self.settings.request(&self.file, self.size);
                (self.server, request_packet(self.direction, request))
            }
            Phase::Receiving(receiver) if receiver.ack_due => {
                receiver.ack_due = false;
                if receiver.is_repeat {
                    self.timer.repeated();
                } else {
                    self.timer.sent(now);
                }
                let block = receiver.ack_number();
                (self.peer?, Packet::Ack { block })
            }
            Phase::Complete(Some(receiver)) if receiver.ack_due => {
                receiver.ack_due = false;
                // Dallying begins when the last acknowledgement has gone out.
                let end = now + self.settings.dally;
                self.timer.deadline.get_or_insert(end);
                let block = receiver.ack_number();
                (self.peer?, Packet::Ack { block })
            }
            Phase::Sending(sender) => {
                let (block, payload, first) = sender.poll()?;
                if first || self.timer.deadline.is_none() {
                    self.timer.sent(now);
                }
                (self.peer?, Packet::Data { block, payload })
            }
            Phase::Requesting | Phase::Receiving(_) | Phase::Complete(_) | Phase::Failed(_) => {
                return None;
            }
        };
        let len = packet.encode(buffer).ok()?;
        Some(Transmit { to, len })
    }
}

const fn request_packet(direction: Direction, request: Request<'_>) -> Packet<'_> {
    match direction {
        Direction::Read => Packet::ReadRequest(request),
        Direction::Write => Packet::WriteRequest(request),
    }
}

const fn is_error(packet: Packet<'_>) -> bool {
    matches!(packet, Packet::Error { .. })
}

/// Same address; scope and flow label do not count.
fn same_host(one: SocketAddr, other: SocketAddr) -> bool {
    one.ip() == other.ip()
}

fn same_socket(one: SocketAddr, other: SocketAddr) -> bool {
    same_host(one, other) && one.port() == other.port()
}

#[cfg(test)]
mod tests;
