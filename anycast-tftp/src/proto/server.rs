//! The server engine: every transfer of one listening socket, in one table.
//!
//! **Contract.** Give it datagrams ([`Server::handle_datagram`]), store replies
//! ([`Server::handle_store_reply`]) and the passing of time ([`Server::handle_timeout`]).
//! After any of them drain, in any order, until each says `None`:
//! [`Server::poll_store_request`], [`Server::poll_transmit`], [`Server::poll_event`]; then
//! wait until [`Server::poll_timeout`]. `now` never goes back.
//!
//! Sending needs no answer: a packet that could not be sent is a packet lost.
//!
//! **What is never answered:** an ERROR; an ACK or DATA of no session here (at an anycast
//! address the session may live at another site, and ERROR 5 would abort it); the sources
//! that [`REFUSED_SOURCE_PORTS`] and [`is_refused_source`] name; anything that is not TFTP.
//!
//! **Amplification.** A request with a forged source is answered to that source. What one
//! packet of 20 to 512 bytes can cause, headers not counted:
//!
//! - A read request without options: a block of 512 bytes, at most
//!   1 + [`UNVALIDATED_DATA_RETRIES`] times: some 1 KB, up to 50 times the request.
//! - Another request: an OACK, no longer than the request but for the values (`tsize`, the
//!   node's name), or an ACK, at most 1 + [`UNVALIDATED_RETRIES`] times.
//! - What is no request, or of no session: nothing, or one ERROR of less than 100 bytes.
//!
//! Sessions have one port, so there is no secret in them: whoever forges a request can forge
//! the ACKs that follow it too. **That is not prevented.** A forged ACK 0 causes one window (64
//! blocks of 1468 bytes by default: 94 KB, about a thousand times what was sent), but
//! until a block was acknowledged nothing but block 1 is sent again. A forged ACK of a whole
//! window causes the next one, up to the end of the file, and once no more come, time-outs
//! send two windows and a few blocks more. Forged ACKs within a window cause less than that,
//! but again a multiple: [`RESENT_PER_BLOCK`](super::transfer::RESENT_PER_BLOCK). Where
//! strangers can send from forged sources, [`Settings::with_max_windowsize`] bounds what one
//! packet causes.
//!
//! **Single port.** All packets of a transfer come from the address and port that its request
//! was sent to. A client port has one transfer. A request that repeats the running one, byte
//! for byte, is the same transfer: before any progress it gets the same first packet again,
//! but not within one round trip; afterwards it is a late double made by the network and
//! ignored, unless the client has been silent for [`REPEAT_GRACE`]: then it has begun anew.
//! Any other request replaces the transfer.
//!
//! **Limits**: [`Settings`]. Forged requests must not lock real clients out, so where all
//! sessions are taken, those of the client's prefix or of the whole table, the oldest one whose
//! client has not been heard of since its request is given up for the new request. Where there
//! is none, and where too many files are being opened, the request is dropped in silence and
//! counted: the client repeats it, perhaps at a better site.
//!
//! Clients on this host, such as a health check, come from the very address that they send to.
//! They share no limit with others, lest a flood silence the check: they have their own
//! [`Settings::with_max_sessions_per_prefix`] and [`Settings::with_max_pending_opens`]. (Linux drops IPv4 packets
//! that claim such a source and come from outside; for IPv6 the border of the network must.)

use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::jobs::{JobId, PartMemory, StoreReply, StoreRequest, Uploads};
use super::packet::{ErrorCode, Packet, ParseError};
use super::session::{Due, Outcome, Phase, Role, Session, TransferRecord};
use super::settings::{Settings, SettingsError};
use super::stats::Stats;
use super::table::{Flow, SessionId, Table};
use super::timers::Timers;

mod end;
mod output;
#[cfg(test)]
mod pair;
#[cfg(test)]
mod proptests;
mod read;
mod request;
mod shared;
#[cfg(test)]
mod tests;
mod write;

use end::{End, count, expired, handle_error};
pub use output::{MAX_TRANSMIT, Transmit};
pub(crate) use request::fingerprint;
pub(crate) use shared::{Adopt, Begun, DOUBLED, Shared};

/// Source ports that are never answered: 0 is no port; 7 (echo) and 19 (chargen) answer
/// everything; 69 is another single-port TFTP server. An answer would begin an endless
/// exchange (CVE-2024-2169).
pub const REFUSED_SOURCE_PORTS: [u16; 4] = [0, 7, 19, 69];

/// How often an OACK, the ACK of a write request, or block 1 after an OACK is repeated to a
/// client that has not acknowledged a block, or sent one.
pub const UNVALIDATED_RETRIES: u8 = 3;

/// How often block 1 is repeated where it is the answer to the request itself.
pub const UNVALIDATED_DATA_RETRIES: u8 = 1;

/// How long after its request, or its ACK of the OACK, a client that has not acknowledged a
/// block is still listened to, without anything being sent: its answer may have been lost as
/// often as our packets.
pub const UNVALIDATED_LIFE: Duration = Duration::from_secs(30);

/// Most ERRORs that wait to be sent. When full, further ones are dropped and counted: to the
/// client they are lost packets.
pub const MAX_WAITING_ERRORS: usize = 1024;

/// Most bytes of one upload that are held until the store takes them. It caps the window that
/// is agreed to.
pub const MAX_UPLOAD_BUFFER: usize = 1 << 20;

/// Most bytes that all uploads together may hold. As they fill up, windows are made smaller;
/// when full, write requests are dropped in silence and counted.
pub const MAX_UPLOAD_MEMORY: usize = 256 << 20;

/// How long after the client's last packet a finished write still answers repeats of its last
/// block, in case our ACK was lost. A client that begins to repeat later has to begin anew.
pub const LINGER: Duration = Duration::from_secs(30);

/// How long a client may be silent in a transfer before it is given up, however few packets
/// it was sent again in this time. curl without `--max-time` repeats its ACK after 72 s.
pub const MAX_SILENCE: Duration = Duration::from_secs(80);

/// How long a transfer waits for the store to read or write. Then it fails, whatever the
/// client does; its silence does not count while the store is waited for.
pub const STORE_TIMEOUT: Duration = Duration::from_secs(60);

/// Longest `timeout` that is kept (RFC 2349). Where a client negotiated a longer one, our
/// packets are sent again after this time: with fewer of them a client would be given up after
/// [`MAX_SILENCE`] because of one that was lost.
pub const MAX_KEPT_TIMEOUT: Duration = Duration::from_secs(20);

/// How long after a client's last packet a repeated request is taken for a late double.
pub const REPEAT_GRACE: Duration = Duration::from_secs(1);

/// Whether a packet from there, to us at `local`, is never answered: the ports above,
/// addresses that are no single host, and our own socket. A packet that was sent to a
/// multicast address or to 255.255.255.255 is not answered either (RFC 1123 §4.2.3.5). The
/// broadcast address of a subnet looks like any other here: it takes a session, but Linux sends
/// nothing from it.
#[must_use]
pub fn is_refused_source(remote: SocketAddr, local: SocketAddr) -> bool {
    let is_no_host = |address: IpAddr| {
        let is_broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
        is_broadcast || address.is_multicast() || address.is_unspecified()
    };
    REFUSED_SOURCE_PORTS.contains(&remote.port())
        || is_no_host(remote.ip())
        || is_no_host(local.ip())
        || remote == local
}

/// When to call [`Server::handle_timeout`], and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeout {
    /// When.
    pub at: Instant,
    /// Why.
    pub reason: &'static str,
}

/// An ERROR outside of any session.
#[derive(Debug)]
struct Reply {
    flow: Flow,
    code: ErrorCode,
    text: &'static str,
}

/// Everything but the sessions themselves.
#[derive(Debug)]
struct Outputs {
    settings: Arc<Settings>,
    timers: Timers,
    ready: VecDeque<SessionId>,
    replies: VecDeque<Reply>,
    requests: VecDeque<StoreRequest>,
    events: VecDeque<TransferRecord>,
    /// Whether other nodes are to know of transfers.
    sharing: bool,
    /// No other node can be heard.
    is_alone: bool,
    shared: VecDeque<Shared>,
    stats: Stats,
    /// Files being opened, those of sessions that are gone included.
    opening: u32,
    /// The same for clients on this host: the serial numbers of the requests.
    own_opens: BTreeSet<u32>,
    /// Sessions that have not ended (lingering ones have).
    in_flight: usize,
    /// For parts of files that are not in memory.
    parts: PartMemory,
    /// Unfinished files.
    uploads: Uploads,
    /// Bytes set aside for uploads.
    upload_memory: usize,
    serial: u32,
}

impl Outputs {
    fn reply(&mut self, flow: Flow, code: ErrorCode, text: &'static str) {
        if self.replies.len() >= MAX_WAITING_ERRORS {
            self.stats.errors_dropped += 1;
            return;
        }
        self.replies.push_back(Reply { flow, code, text });
    }

    /// Queues a session to send what is due.
    fn queue(&mut self, id: SessionId, session: &mut Session, due: Due) {
        session.due = due;
        if !session.is_queued {
            session.is_queued = true;
            self.ready.push_back(id);
        }
    }

    fn arm(&mut self, id: SessionId, session: &mut Session, now: Instant, wait: Duration) {
        let deadline = now.checked_add(wait).unwrap_or(now);
        self.timers.set(id, &mut session.timer, deadline);
    }

    /// The id of the one store request that the session now waits for.
    fn job(&mut self, id: SessionId, session: &mut Session, is_open: bool) -> JobId {
        self.serial = self.serial.wrapping_add(1);
        session.job = Some(self.serial);
        if is_open && session.flow.is_own_host() {
            self.own_opens.insert(self.serial);
        } else if is_open {
            self.opening += 1;
        }
        JobId {
            session: id,
            serial: self.serial,
            is_open,
            charge: 0,
        }
    }

    /// Lets go of a file. Whoever holds it last closes it, which may have to wait for a disk.
    fn close(&mut self, content: Arc<dyn crate::store::Content>) {
        if Arc::strong_count(&content) == 1 {
            self.requests.push_back(StoreRequest::Close { content });
        }
    }

    const fn release(&mut self, bytes: usize) {
        self.upload_memory = self.upload_memory.saturating_sub(bytes);
    }
}

/// The engine; see the module for its contract.
#[derive(Debug)]
pub struct Server {
    table: Table<Session>,
    out: Outputs,
}

impl Server {
    /// An engine without sessions.
    ///
    /// # Errors
    /// [`SettingsError`].
    pub fn new(settings: Settings) -> Result<Self, SettingsError> {
        settings.validate()?;
        Ok(Self {
            table: Table::new(),
            out: Outputs {
                settings: Arc::new(settings),
                timers: Timers::default(),
                ready: VecDeque::new(),
                replies: VecDeque::new(),
                requests: VecDeque::new(),
                events: VecDeque::new(),
                sharing: false,
                is_alone: false,
                shared: VecDeque::new(),
                stats: Stats::default(),
                opening: 0,
                own_opens: BTreeSet::new(),
                in_flight: 0,
                parts: PartMemory::default(),
                uploads: Uploads::default(),
                upload_memory: 0,
                serial: 0,
            },
        })
    }

    /// Replaces the settings for new transfers. Those that run keep what they negotiated.
    ///
    /// # Errors
    /// [`SettingsError`]; nothing has changed then.
    pub fn handle_settings(&mut self, settings: Settings) -> Result<(), SettingsError> {
        settings.validate()?;
        self.out.settings = Arc::new(settings);
        Ok(())
    }

    /// Takes a datagram, whatever is in it.
    pub fn handle_datagram(&mut self, now: Instant, flow: Flow, datagram: &[u8]) {
        if let Some(packet) = self.parse(flow, datagram) {
            self.handle_packet(now, flow, datagram, packet);
        }
    }

    /// Counts a datagram, and answers one that is no packet.
    pub(crate) fn parse<'a>(&mut self, flow: Flow, datagram: &'a [u8]) -> Option<Packet<'a>> {
        self.out.stats.datagrams += 1;
        if is_refused_source(flow.remote, flow.local) {
            self.out.stats.refused_sources += 1;
            return None;
        }
        match Packet::parse(datagram) {
            Ok(packet) => Some(packet),
            Err(error) => {
                self.handle_malformed(flow, datagram, error);
                None
            }
        }
    }

    /// Takes a packet. False: it is of no session here.
    pub(crate) fn handle_packet(
        &mut self,
        now: Instant,
        flow: Flow,
        datagram: &[u8],
        packet: Packet<'_>,
    ) -> bool {
        tracing::trace!(client = %flow.remote, len = datagram.len(), kind = kind(&packet), "received");
        match packet {
            Packet::ReadRequest(request) => {
                self.out.stats.read_requests += 1;
                self.handle_request(now, flow, datagram, request, super::Direction::Read);
                true
            }
            Packet::WriteRequest(request) => {
                self.out.stats.write_requests += 1;
                self.handle_request(now, flow, datagram, request, super::Direction::Write);
                true
            }
            Packet::Ack { block } => self.handle_in_session(flow, now, |id, session, out| {
                read::handle_ack(id, session, out, now, block)
            }),
            Packet::Data { block, payload } => {
                self.handle_in_session(flow, now, |id, session, out| {
                    write::handle_data(id, session, out, now, block, payload)
                })
            }
            Packet::Error { code, message } => {
                self.handle_in_session(flow, now, |_, session, _| {
                    Some(handle_error(session, code, message))
                })
            }
            // Only a server sends it.
            Packet::OptionAck(_) => {
                self.out.stats.unknown_flow += 1;
                true
            }
        }
    }

    /// Takes the answer to a store request, however late.
    pub fn handle_store_reply(&mut self, now: Instant, reply: StoreReply) {
        let id = match &reply {
            // No session asked for it.
            StoreReply::Pinned(..) => return,
            StoreReply::Opened(id, _)
            | StoreReply::Created(id, _)
            | StoreReply::Loaded(id, _)
            | StoreReply::Indexed(id, _)
            | StoreReply::Written(id, _)
            | StoreReply::Lost(id) => *id,
        };
        if id.is_open && !self.out.own_opens.remove(&id.serial) {
            self.out.opening = self.out.opening.saturating_sub(1);
        }
        let Some(session) = self
            .table
            .get_mut(id.session)
            .filter(|session| session.job == Some(id.serial))
        else {
            self.out.release(id.charge);
            // The session is gone. An unfinished file must not stay.
            if let StoreReply::Created(_, Ok(upload)) | StoreReply::Written(_, Ok(Some(upload))) =
                reply
            {
                self.out
                    .requests
                    .push_back(StoreRequest::Discard { upload });
            } else if let StoreReply::Opened(_, Ok(content)) = reply {
                self.out.close(content);
            }
            return;
        };
        session.job = None;
        session.silent_since = now;
        let out = &mut self.out;
        let end = match reply {
            StoreReply::Opened(_, result) => request::opened(id.session, session, out, result),
            StoreReply::Created(_, result) => request::created(id.session, session, out, result),
            StoreReply::Loaded(_, result) => read::loaded(id.session, session, out, result),
            StoreReply::Indexed(_, result) => read::indexed(id.session, session, out, result),
            StoreReply::Written(_, result) => write::written(id.session, session, out, now, result),
            StoreReply::Pinned(..) => None,
            StoreReply::Lost(_) => {
                out.release(std::mem::take(&mut session.reserved));
                let reason = "the store panicked".into();
                Some(End::failed(ErrorCode::NotDefined, "internal error", reason))
            }
        };
        let flow = session.flow;
        self.end(now, flow, end);
    }

    /// Time has passed. Harmless at any time.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((entry, id)) = self.out.timers.pop(now) {
            let Some(session) = self.table.get_mut(id) else {
                continue;
            };
            let is_due = self.out.timers.is_due(id, &mut session.timer, entry, now);
            if is_due {
                let flow = session.flow;
                let end = expired(id, session, &mut self.out, now);
                self.end(now, flow, end);
            }
        }
    }

    /// Something for a store to do. Bounded: a session has one request out at a time.
    pub fn poll_store_request(&mut self) -> Option<StoreRequest> {
        self.out.requests.pop_front()
    }

    /// The record of a transfer that ended.
    pub fn poll_event(&mut self) -> Option<TransferRecord> {
        self.out.events.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do, at the earliest.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Timeout> {
        self.out.timers.next().map(|at| Timeout {
            at,
            reason: "a client has not answered, or a transfer may be forgotten",
        })
    }

    /// The counters.
    #[must_use]
    pub const fn stats(&self) -> &Stats {
        &self.out.stats
    }

    /// Transfers that have not ended.
    #[must_use]
    pub const fn in_flight(&self) -> usize {
        self.out.in_flight
    }

    /// Sessions in the table: those in flight, and finished writes that still answer repeats.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.table.len()
    }

    #[cfg(test)]
    const fn upload_memory(&self) -> usize {
        self.out.upload_memory
    }

    fn handle_malformed(&mut self, flow: Flow, datagram: &[u8], error: ParseError) {
        self.out.stats.malformed += 1;
        tracing::trace!(client = %flow.remote, len = datagram.len(), %error, "malformed");
        if let Some(code) = error.reply(datagram) {
            self.out.reply(flow, code, malformed_text(error));
        }
    }

    /// Runs a handler on the session of a flow; silent, and false, when there is none.
    fn handle_in_session(
        &mut self,
        flow: Flow,
        now: Instant,
        handle: impl FnOnce(SessionId, &mut Session, &mut Outputs) -> Option<End>,
    ) -> bool {
        let id = self.table.find(&flow);
        let found = id.and_then(|id| Some((id, self.table.get_mut(id)?)));
        let Some((id, session)) = found.filter(|(_, session)| session.share.takes(now)) else {
            self.out.stats.unknown_flow += 1;
            return false;
        };
        session.last_heard = now;
        session.silent_since = now;
        let end = handle(id, session, &mut self.out);
        if session.is_validated {
            self.table.settle(id);
        }
        self.end(now, flow, end);
        true
    }

    /// Ends the session of a flow, if there is a reason to.
    fn end(&mut self, now: Instant, flow: Flow, end: Option<End>) {
        let Some(End { outcome, error }) = end else {
            return;
        };
        let Some(session) = self.table.remove(&flow) else {
            return;
        };
        let session = *session;
        if let Some((code, text)) = error {
            self.out.reply(flow, code, text);
        }
        if session.share.role != Role::Alone {
            let shared = Shared::Ended(flow, outcome.clone());
            self.out.shared.push_back(shared);
        }
        if !session.is_lingering() {
            if session.share.role != Role::Answering {
                self.out.in_flight = self.out.in_flight.saturating_sub(1);
            }
            count(&mut self.out.stats, &session, &outcome);
            if let Outcome::Dropped { reason } = outcome {
                tracing::debug!(client = %flow.remote, reason, "request dropped");
            } else if outcome == Outcome::Moved {
                // Where it ends it is told.
                tracing::debug!(client = %flow.remote, file = %session.name, bytes = session.bytes, "transfer moved");
            } else {
                self.out.events.push_back(session.record(now, outcome));
            }
        }
        // While the store has the bytes, its reply releases them.
        match session.phase {
            Phase::Writing(writing) => {
                if let Some(upload) = writing.upload {
                    self.out.release(session.reserved);
                    self.out
                        .requests
                        .push_back(StoreRequest::Discard { upload });
                }
            }
            Phase::Reading(reading) => self.out.close(reading.content),
            Phase::Opening | Phase::Lingering { .. } => {}
        }
    }
}

const fn kind(packet: &Packet<'_>) -> &'static str {
    match packet {
        Packet::ReadRequest(_) => "RRQ",
        Packet::WriteRequest(_) => "WRQ",
        Packet::Data { .. } => "DATA",
        Packet::Ack { .. } => "ACK",
        Packet::Error { .. } => "ERROR",
        Packet::OptionAck(_) => "OACK",
    }
}

const fn malformed_text(error: ParseError) -> &'static str {
    match error {
        ParseError::RequestTooLong => "request too long",
        ParseError::Unterminated => "unterminated string",
        ParseError::EmptyFilename => "empty file name",
        ParseError::MissingMode => "no transfer mode",
        ParseError::UnknownMode => "unsupported transfer mode",
        ParseError::OptionList => "malformed option list",
        ParseError::TooShort { .. }
        | ParseError::UnknownOpcode { .. }
        | ParseError::UnknownOption
        | ParseError::BadOption { .. } => "malformed packet",
    }
}
