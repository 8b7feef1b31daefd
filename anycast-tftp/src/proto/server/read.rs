//! The client reads: ACKs in, blocks out.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use super::super::jobs::{Part, PartRequest, StoreRequest};
use super::super::netascii::BlockIndex;
use super::super::packet::{DATA_HEADER, ErrorCode, data_header};
use super::super::session::{Due, Outcome, Phase, Reading, Role, Session};
use super::super::table::SessionId;
use super::super::transfer::Acked;
use super::shared::{self, Shared};
use super::{End, Outputs};
use crate::store::{Content, ReadError};

/// How many bytes a session holds of a file that is not in memory: the store is asked once for
/// many blocks. A client that has not answered yet gets no more than one.
const PART: usize = 64 << 10;

/// Most bytes that all sessions together hold of such files. When full, the store is asked for
/// each block.
const MAX_PART_MEMORY: usize = 64 << 20;

/// How much more is brought into memory when a file is not there: the disk is asked once for
/// hundreds of blocks.
const LOAD_AHEAD: u64 = 1 << 20;

/// Most bytes that are translated to netascii before a block that is due; the store does more. Only
/// transfers that another node began need more than a window.
const TRANSLATED_AT_ONCE: u64 = 256 << 10;

pub(super) fn handle_ack(
    id: SessionId,
    session: &mut Session,
    out: &mut Outputs,
    now: Instant,
    block: u16,
) -> Option<End> {
    let Phase::Reading(reading) = &mut session.phase else {
        out.stats.strays += 1;
        return None;
    };
    let is_waiting = session.job.is_some();
    let is_shared = session.share.role != Role::Alone;
    if is_shared && block != 0 {
        // Another node had the ACK of the options.
        reading.awaits_ack_0 = false;
    }
    if reading.awaits_ack_0 {
        if block != 0 {
            out.stats.strays += 1;
            return None;
        }
        reading.awaits_ack_0 = false;
        let sent = session.timed.take();
        session.has_acked_options(sent.map(|sent| now.saturating_duration_since(sent)));
        out.queue(id, session, Due::Data);
        shared::report(session, out, now, 0);
        return None;
    }
    let acked = reading.sender.handle_ack(now, block, session.rto.minimum());
    let sent = reading
        .sender
        .acked()
        .saturating_mul(session.blksize.into());
    session.bytes = sent.min(reading.content.size());
    match acked {
        Acked::Complete { round_trip } => {
            session.bytes = reading.content.size();
            session.heard(round_trip);
            Some(End::silent(Outcome::Complete))
        }
        Acked::Progress { round_trip } => {
            session.heard(round_trip);
            if !is_waiting {
                out.queue(id, session, Due::Data);
            }
            let acked = session.acked();
            shared::report(session, out, now, acked);
            None
        }
        Acked::Repeat => {
            if !is_waiting {
                out.queue(id, session, Due::Data);
            }
            None
        }
        Acked::Duplicate => {
            out.stats.duplicates += 1;
            super::end::repeat_first_block(id, session, out, now);
            shared::repeat_where_nobody_does(id, session, out, now);
            None
        }
        Acked::Stray => {
            out.stats.strays += 1;
            if is_shared {
                out.shared.push_back(Shared::Behind(session.flow, block));
            }
            None
        }
    }
}

/// The client is silent: what it has not acknowledged goes out again.
pub(super) fn resend(id: SessionId, session: &mut Session, out: &mut Outputs) {
    let Phase::Reading(reading) = &mut session.phase else {
        return;
    };
    if reading.awaits_ack_0 {
        session.is_repeat = true;
        out.queue(id, session, Due::Oack);
    } else {
        reading.sender.restart(session.silence);
        out.queue(id, session, Due::Data);
    }
}

/// Asks the store to translate up to a block.
pub(super) fn index(id: SessionId, session: &mut Session, out: &mut Outputs, block: u64) {
    let Phase::Reading(reading) = &mut session.phase else {
        return;
    };
    let Some(text) = reading.text.clone() else {
        return;
    };
    reading.indexed = block;
    let (content, wanted) = (
        Arc::clone(&reading.content),
        Arc::downgrade(&reading.ticket),
    );
    let id = out.job(id, session, false);
    out.requests.push_back(StoreRequest::Index {
        id,
        content,
        text,
        block,
        wanted,
    });
}

/// The translation stands at the block that is due.
pub(super) fn indexed(
    id: SessionId,
    session: &mut Session,
    out: &mut Outputs,
    result: Result<Box<BlockIndex>, ReadError>,
) -> Option<End> {
    let text = match result {
        Ok(text) => text,
        Err(error) => return Some(failed(session, out, &error)),
    };
    if let Phase::Reading(reading) = &mut session.phase {
        reading.text = Some(text);
        out.queue(id, session, Due::Data);
    }
    None
}

/// The bytes that were not in memory are here now.
pub(super) fn loaded(
    id: SessionId,
    session: &mut Session,
    out: &mut Outputs,
    result: Result<Part, ReadError>,
) -> Option<End> {
    let part = match result {
        Ok(part) => part,
        Err(error) => return Some(failed(session, out, &error)),
    };
    if let Phase::Reading(reading) = &mut session.phase {
        reading.part = Some(part);
        out.queue(id, session, Due::Data);
    }
    None
}

/// Blocks that were written to a buffer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Filled {
    /// Bytes in the buffer.
    pub(super) len: usize,
    /// Bytes of each packet but the last; that of the only one.
    pub(super) segment: usize,
    /// Blocks.
    pub(super) first: u64,
    pub(super) last: u64,
}

/// Why no blocks were written.
pub(super) enum NotFilled {
    /// The window is full, or the content has ended.
    Nothing,
    /// The disk has to be waited for, from this byte on.
    Wait(u64),
    /// Too much has to be translated before this block.
    Index(u64),
    /// The file cannot be read any more.
    Failed(ReadError),
}

/// Writes up to `max_blocks` packets of the window, one after the other, to `buf`.
pub(super) fn fill(
    reading: &mut Reading,
    blksize: u16,
    max_blocks: usize,
    buf: &mut [u8],
) -> Result<Filled, NotFilled> {
    let (first, end) = reading.sender.sendable().ok_or(NotFilled::Nothing)?;
    let segment = DATA_HEADER + usize::from(blksize);
    let room = (buf.len() / segment).min(max_blocks) as u64;
    let last = end.min(first.saturating_add(room).saturating_sub(1));
    if last < first {
        return Err(NotFilled::Nothing);
    }
    match reading.text {
        None => fill_octet(reading, segment, first, last, buf),
        Some(_) => fill_netascii(reading, segment, first, buf),
    }
}

fn fill_octet(
    reading: &mut Reading,
    segment: usize,
    first: u64,
    last: u64,
    buf: &mut [u8],
) -> Result<Filled, NotFilled> {
    let blksize = segment - DATA_HEADER;
    let mut count = usize::try_from(last - first + 1).unwrap_or(1);
    let offset = (first - 1).saturating_mul(blksize as u64);
    let left = reading.content.size().saturating_sub(offset);
    let held = reading
        .part
        .as_ref()
        .map_or(0, |part| part.from(offset).len());
    if held as u64 != left && held >= blksize {
        count = count.min(held / blksize);
    }
    let payload = usize::try_from(left)
        .unwrap_or(usize::MAX)
        .min(count * blksize);
    // One read puts the bytes of all blocks behind the room of all headers; then each block
    // moves forward to its place. Never onto a later block: there are fewer headers before it.
    let headers = count * DATA_HEADER;
    let Some(target) = buf.get_mut(headers..headers + payload) else {
        return Err(NotFilled::Nothing);
    };
    read(&*reading.content, &mut reading.part, offset, target)?;
    for index in 0..count {
        let start = index * blksize;
        let len = blksize.min(payload.saturating_sub(start));
        let at = index * segment;
        let from = headers + start.min(payload);
        buf.copy_within(from..from + len, at + DATA_HEADER);
        let wire = reading.sender.wire(first + index as u64);
        if let Some(header) = buf.get_mut(at..at + DATA_HEADER) {
            header.copy_from_slice(&data_header(wire));
        }
    }
    Ok(Filled {
        len: headers + payload,
        segment: segment.min(headers + payload),
        first,
        last: first + count as u64 - 1,
    })
}

fn fill_netascii(
    reading: &mut Reading,
    segment: usize,
    block: u64,
    buf: &mut [u8],
) -> Result<Filled, NotFilled> {
    let Reading {
        content,
        sender,
        text,
        part,
        indexed,
        ..
    } = reading;
    let (Some(index), Some((header, payload))) =
        (text.as_mut(), buf.split_first_chunk_mut::<DATA_HEADER>())
    else {
        return Err(NotFilled::Nothing);
    };
    index.acknowledged(sender.acked());
    if index.distance(block) > TRANSLATED_AT_ONCE && block > *indexed {
        return Err(NotFilled::Index(block));
    }
    let len = translate(index, &**content, part, block, payload)?;
    *header = data_header(sender.wire(block));
    if len < segment - DATA_HEADER {
        sender.ends_with(block);
    }
    Ok(Filled {
        len: DATA_HEADER + len,
        segment: DATA_HEADER + len,
        first: block,
        last: block,
    })
}

fn translate(
    index: &mut BlockIndex,
    content: &dyn Content,
    part: &mut Option<Part>,
    block: u64,
    payload: &mut [u8],
) -> Result<usize, NotFilled> {
    let size = content.size();
    let mut failure = None;
    let produced = index.read_block(
        block,
        |offset, piece| {
            let left = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX);
            let len = piece.len().min(left);
            match read(content, part, offset, &mut piece[..len]) {
                Ok(()) => Ok(len),
                Err(why) => {
                    failure = Some(why);
                    Err(io::ErrorKind::Other.into())
                }
            }
        },
        payload,
    );
    produced.map_err(|error| failure.unwrap_or(NotFilled::Failed(ReadError::Io(error))))
}

/// Never waits: what is neither in memory nor in the part that the store read is asked for.
fn read(
    content: &dyn Content,
    part: &mut Option<Part>,
    offset: u64,
    target: &mut [u8],
) -> Result<(), NotFilled> {
    if target.is_empty() {
        return Ok(());
    }
    let held = part
        .as_ref()
        .and_then(|part| part.from(offset).get(..target.len()));
    if let Some(bytes) = held {
        target.copy_from_slice(bytes);
        return Ok(());
    }
    match content.try_read_at(offset, target) {
        Ok(()) => {
            // The file is in memory again.
            *part = None;
            Ok(())
        }
        Err(ReadError::WouldBlock) => Err(NotFilled::Wait(offset)),
        Err(error) => Err(NotFilled::Failed(error)),
    }
}

/// Asks the store for bytes.
pub(super) fn load(id: SessionId, session: &mut Session, out: &mut Outputs, offset: u64) {
    let Phase::Reading(reading) = &mut session.phase else {
        return;
    };
    // What it holds is sent, or it would not need more.
    reading.part = None;
    let block = usize::from(session.blksize);
    let (wanted, ahead) = if session.is_validated {
        (PART, LOAD_AHEAD)
    } else {
        (block, 0)
    };
    let content = Arc::clone(&reading.content);
    let part = PartRequest {
        offset,
        share: out.parts.reserve(wanted, block, MAX_PART_MEMORY),
        ahead,
        wanted: Arc::downgrade(&reading.ticket),
    };
    out.stats.disk_waits += 1;
    let id = out.job(id, session, false);
    out.requests
        .push_back(StoreRequest::Load { id, content, part });
}

/// The content cannot be read any more. Where other nodes know the transfer, one of them may have
/// it, and the client is not to hear of it.
pub(super) fn failed(session: &Session, out: &mut Outputs, error: &ReadError) -> End {
    if session.share.role == Role::Alone {
        return read_failed(error);
    }
    tracing::warn!(client = %session.flow.remote, file = %session.name, %error, "the content of a transfer cannot be read; it is opened again");
    out.shared.push_back(Shared::Unreadable(session.flow));
    End::silent(Outcome::Moved)
}

/// The transfer cannot go on. The client must not take what it has for the file.
fn read_failed(error: &ReadError) -> End {
    let text = match error {
        ReadError::Changed => "the file changed",
        ReadError::WouldBlock | ReadError::Io(_) => "the file cannot be read",
    };
    End::failed(ErrorCode::NotDefined, text, error.to_string())
}
