//! Requests: which session they begin, what is negotiated, what is refused.

use std::sync::Arc;
use std::time::Instant;

use super::super::jobs::StoreRequest;
use super::super::netascii::{BlockIndex, Decoder};
use super::super::options::{DEFAULT_BLKSIZE, Options};
use super::super::packet::{ErrorCode, MAX_OPTION_ACK, Mode, Request, encode_option_ack};
use super::super::session::{
    Direction, Due, Outcome, Phase, Reading, Role, Session, TransferRecord, Writing,
};
use super::super::settings::Settings;
use super::super::table::{Flow, SessionId};
use super::super::transfer::{Receiver, Sender};
use super::end::{printable, refusal};
use super::{End, MAX_UPLOAD_BUFFER, MAX_UPLOAD_MEMORY, Outputs, REPEAT_GRACE, Server, Shared};
use crate::store::{Content, CreateError, FileName, OpenError, Upload, WritePolicy};

impl Server {
    pub(super) fn handle_request(
        &mut self,
        now: Instant,
        flow: Flow,
        datagram: &[u8],
        request: Request<'_>,
        direction: Direction,
    ) {
        let fingerprint = fingerprint(datagram);
        if self.repeats_running(now, flow, fingerprint) {
            self.out.stats.repeated_requests += 1;
            return;
        }
        self.end(now, flow, Some(End::silent(Outcome::Replaced)));
        if !self.has_room(now, flow) {
            return;
        }
        let name = match FileName::from_wire(request.filename) {
            Ok(name) if direction == Direction::Read => name,
            Ok(name) if self.out.settings.writes() != WritePolicy::Off => name,
            Ok(_) => {
                let reason = "writes are off".to_owned();
                return self.refuse(flow, request, direction, "writes are not allowed", reason);
            }
            Err(error) => {
                let reason = error.to_string();
                return self.refuse(flow, request, direction, "bad file name", reason);
            }
        };
        let asked = Options {
            blksize: request.options.blksize,
            timeout: request.options.timeout,
            tsize: request.options.tsize,
            windowsize: request.options.windowsize,
            node: request.options.node.map(|_| &b""[..]),
        };
        let mode = request.mode;
        let session = Session::opening(now, flow, fingerprint, name, direction, mode, asked);
        self.begin(now, session);
    }

    /// Whether a request belongs to the session that its flow has already.
    fn repeats_running(&mut self, now: Instant, flow: Flow, fingerprint: u128) -> bool {
        let id = self.table.find(&flow);
        let Some((id, session)) = id.and_then(|id| Some((id, self.table.get_mut(id)?))) else {
            return false;
        };
        if session.request != fingerprint {
            return false;
        }
        if !session.is_young() {
            return now.saturating_duration_since(session.last_heard) < REPEAT_GRACE;
        }
        let due = match &session.phase {
            Phase::Reading(reading) if !reading.awaits_ack_0 => Due::Data,
            Phase::Writing(_) if session.oack.is_empty() => Due::Ack,
            Phase::Reading(_) | Phase::Writing(_) => Due::Oack,
            Phase::Opening | Phase::Lingering { .. } => return true,
        };
        if session.share.role == Role::Held {
            return true;
        }
        if !session.has_just_sent(now, session.rto.base()) && session.job.is_none() {
            session.is_repeat = !session.is_queued;
            if let Phase::Reading(reading) = &mut session.phase {
                reading.sender.restart(0);
            }
            self.out.queue(id, session, due);
        }
        true
    }

    /// Whether the limits allow another session, once an old one has made room where it must;
    /// counts when they do not.
    pub(super) fn has_room(&mut self, now: Instant, flow: Flow) -> bool {
        let (settings, table) = (&self.out.settings, &self.table);
        let is_own = flow.is_own_host();
        let opening = if is_own {
            self.out.own_opens.len()
        } else {
            self.out.opening as usize
        };
        let in_group = table.in_group(&flow);
        let (limit, taken, oldest, counter) = if opening >= settings.max_pending_opens() as usize {
            let counter = &mut self.out.stats.dropped_opens;
            ("pending opens", opening, None, counter)
        } else if in_group >= settings.max_sessions_per_prefix() {
            let oldest = table.oldest_young_in_group(&flow);
            let counter = &mut self.out.stats.dropped_prefix;
            ("sessions of the prefix", in_group as usize, oldest, counter)
        } else if !is_own && table.foreign() >= settings.max_sessions() as usize {
            let counter = &mut self.out.stats.dropped_sessions;
            ("sessions", table.foreign(), table.oldest_young(), counter)
        } else {
            return true;
        };
        let Some(oldest) = oldest.and_then(|id| self.table.get_mut(id)) else {
            *counter += 1;
            tracing::debug!(client = %flow.remote, limit, taken, "request dropped: limit reached");
            return false;
        };
        let oldest = oldest.flow;
        self.end(now, oldest, Some(End::silent(Outcome::Evicted)));
        true
    }

    /// Answers a request by ERROR 2 without asking the store.
    fn refuse(
        &mut self,
        flow: Flow,
        request: Request<'_>,
        direction: Direction,
        text: &'static str,
        reason: String,
    ) {
        let code = ErrorCode::AccessViolation;
        *refusal(&mut self.out.stats, code) += 1;
        self.out.reply(flow, code, text);
        self.out.events.push_back(TransferRecord {
            client: flow.remote,
            local: flow.local,
            file: printable(request.filename),
            direction,
            mode: request.mode,
            bytes: 0,
            blksize: DEFAULT_BLKSIZE,
            windowsize: 1,
            duration: std::time::Duration::ZERO,
            retries: 0,
            outcome: Outcome::Refused { code, reason },
        });
    }

    fn begin(&mut self, now: Instant, session: Session) {
        let flow = session.flow;
        let settings = &self.out.settings;
        let slot = match session.direction {
            Direction::Read => None,
            Direction::Write => {
                let (files, bytes) = (settings.max_uploads(), settings.max_upload_total());
                let slot = self.out.uploads.begin(files, bytes);
                if slot.is_none() {
                    self.out.stats.dropped_opens += 1;
                    tracing::debug!(client = %flow.remote, limit = "uploads", taken = files, "request dropped: limit reached");
                    return;
                }
                slot
            }
        };
        let Some(id) = self.table.insert(flow, session) else {
            self.out.stats.dropped_sessions += 1;
            return;
        };
        let Some(session) = self.table.get_mut(id) else {
            return;
        };
        let out = &mut self.out;
        out.stats.sessions += 1;
        out.in_flight += 1;
        let job = out.job(id, session, true);
        let name = session.name.clone();
        out.requests.push_back(match slot {
            None => StoreRequest::Open {
                id: job,
                name,
                client: flow.remote.ip(),
            },
            Some(slot) => StoreRequest::Create {
                id: job,
                name,
                policy: out.settings.writes(),
                slot,
            },
        });
        let wait = out.settings.open_timeout();
        out.arm(id, session, now, wait);
    }
}

/// Tells one request from another, alike at every node (FNV-1a, 128 bits).
pub(crate) fn fingerprint(datagram: &[u8]) -> u128 {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    datagram.iter().fold(OFFSET, |hash, byte| {
        (hash ^ u128::from(*byte)).wrapping_mul(PRIME)
    })
}

/// The store opened the file: the transfer begins with an OACK or with block 1.
pub(super) fn opened(
    id: SessionId,
    session: &mut Session,
    out: &mut Outputs,
    result: Result<Arc<dyn Content>, OpenError>,
) -> Option<End> {
    let content = match result {
        Ok(content) => content,
        Err(OpenError::Overloaded(error)) => return Some(overloaded(&error)),
        Err(error) => return Some(open_refused(&error)),
    };
    let size = content.size();
    negotiate(session, &out.settings, Some(size), u16::MAX);
    let blocks = size / u64::from(session.blksize) + 1;
    let (text, last) = match session.mode {
        Mode::Octet => (None, Some(blocks)),
        Mode::Netascii => (Some(Box::new(BlockIndex::new(session.blksize))), None),
    };
    let awaits_ack_0 = !session.oack.is_empty();
    session.phase = Phase::Reading(Reading {
        content,
        sender: Sender::new(out.settings.rollover(), session.windowsize, last),
        text,
        indexed: 0,
        awaits_ack_0,
        part: None,
        ticket: Arc::default(),
    });
    if out.shares(session) {
        session.share.role = Role::Held;
        out.shared.push_back(Shared::Opened(session.flow));
        return None;
    }
    let due = if awaits_ack_0 { Due::Oack } else { Due::Data };
    out.queue(id, session, due);
    None
}

/// The store began the file: the transfer begins with an OACK or with ACK 0.
pub(super) fn created(
    id: SessionId,
    session: &mut Session,
    out: &mut Outputs,
    result: Result<Box<dyn Upload>, CreateError>,
) -> Option<End> {
    let upload = match result {
        Ok(upload) => upload,
        Err(CreateError::Overloaded(error)) => return Some(overloaded(&error)),
        Err(error) => return Some(create_refused(&error)),
    };
    // The block size is settled first. The fuller the memory, the smaller the windows.
    negotiate(session, &out.settings, None, u16::MAX);
    let left = MAX_UPLOAD_MEMORY.saturating_sub(out.upload_memory);
    let fits = (left / 8).min(MAX_UPLOAD_BUFFER) / usize::from(session.blksize);
    let fits = u16::try_from(fits.max(1)).unwrap_or(u16::MAX);
    if session.windowsize > fits {
        negotiate(session, &out.settings, None, fits);
    }
    session.reserved = usize::from(session.blksize) * usize::from(session.windowsize);
    let is_full = session.reserved > left;
    out.upload_memory += session.reserved;
    let is_too_large = session
        .asked
        .tsize
        .is_some_and(|size| size > out.settings.max_upload());
    session.phase = Phase::Writing(Writing {
        upload: Some(upload),
        receiver: Receiver::new(out.settings.rollover(), session.windowsize),
        text: (session.mode == Mode::Netascii).then(Decoder::default),
        buffer: Vec::new(),
        is_ended: false,
    });
    if is_full {
        let error = std::io::Error::from(std::io::ErrorKind::OutOfMemory);
        return Some(overloaded(&error));
    }
    if is_too_large {
        return Some(End::refused(
            ErrorCode::DiskFull,
            "file too large",
            "the announced size is beyond the limit".into(),
        ));
    }
    if out.sharing && !session.flow.is_own_host() {
        session.share.role = Role::Owner;
        out.shared.push_back(Shared::Opened(session.flow));
    }
    let due = if session.oack.is_empty() {
        Due::Ack
    } else {
        Due::Oack
    };
    out.queue(id, session, due);
    None
}

/// Settles block size and window, and writes the OACK: only options that were asked for,
/// nothing after the last one.
///
/// - `blksize` and `windowsize` may be lowered (RFC 2348, RFC 7440).
/// - `timeout` is echoed, and kept up to [`MAX_KEPT_TIMEOUT`](super::MAX_KEPT_TIMEOUT), or,
///   when it was malformed, ignored; never changed (RFC 2349): UEFI and U-Boot refuse another
///   value.
/// - `tsize` of a read is the size; it is left out for an empty file, whose 0 curl refuses,
///   and in netascii, whose length on the wire is not known before it was sent.
fn negotiate(session: &mut Session, settings: &Settings, size: Option<u64>, max_window: u16) {
    let asked = session.asked;
    let cap = settings.blksize_for(session.flow.remote.ip());
    let blksize = asked.blksize.map(|asked| asked.min(cap));
    let windowsize = asked
        .windowsize
        .map(|asked| asked.min(settings.max_windowsize()).min(max_window));
    let tsize = asked.tsize.and_then(|announced| match session.direction {
        Direction::Write => Some(announced),
        Direction::Read => size.filter(|size| *size > 0 && session.mode == Mode::Octet),
    });
    let agreed = Options {
        blksize,
        timeout: asked.timeout,
        tsize,
        windowsize,
        node: asked
            .node
            .and(settings.node())
            .map(|name| name.as_str().as_bytes()),
    };
    session.blksize = blksize.unwrap_or(DEFAULT_BLKSIZE);
    session.windowsize = windowsize.unwrap_or(1);
    session.oack = Box::default();
    if !agreed.is_empty() {
        let mut buffer = [0; MAX_OPTION_ACK];
        match encode_option_ack(&agreed, &mut buffer) {
            Ok(len) => session.oack = buffer[..len].into(),
            // Every value is in range, so this cannot be; without an OACK the defaults hold.
            Err(error) => {
                tracing::error!(%error, "cannot write an OACK");
                (session.blksize, session.windowsize) = (DEFAULT_BLKSIZE, 1);
            }
        }
    }
}

/// The client is better off asking again than being refused.
fn overloaded(error: &std::io::Error) -> End {
    End::silent(Outcome::Dropped {
        reason: error.to_string(),
    })
}

fn open_refused(error: &OpenError) -> End {
    let (code, text) = match error {
        OpenError::NotFound => (ErrorCode::FileNotFound, "file not found"),
        OpenError::NotAFile => (ErrorCode::AccessViolation, "not a regular file"),
        OpenError::Denied => (ErrorCode::AccessViolation, "access denied"),
        OpenError::Overloaded(_) | OpenError::Io(_) => {
            (ErrorCode::NotDefined, "the file cannot be opened")
        }
    };
    End::refused(code, text, error.to_string())
}

fn create_refused(error: &CreateError) -> End {
    let (code, text) = match error {
        CreateError::Denied => (ErrorCode::AccessViolation, "access denied"),
        CreateError::Exists => (ErrorCode::FileExists, "file already exists"),
        CreateError::NoFolder => (ErrorCode::FileNotFound, "no such folder"),
        CreateError::NotAFile => (ErrorCode::AccessViolation, "not a regular file"),
        CreateError::Full => (ErrorCode::DiskFull, "disk full"),
        CreateError::Overloaded(_) | CreateError::Io(_) => {
            (ErrorCode::NotDefined, "the file cannot be created")
        }
    };
    End::refused(code, text, error.to_string())
}
