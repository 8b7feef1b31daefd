//! What goes out: one packet, or several of one window in one buffer.

use std::net::SocketAddr;
use std::time::Instant;

use super::super::packet::{ErrorCode, ack, encode_error};
use super::super::session::{Due, Phase, Session};
use super::super::table::SessionId;
use super::read::{self, NotFilled};
use super::{End, Outputs, Reply, Server};

/// Smallest buffer for [`Server::poll_transmit`], in bytes: every packet fits.
pub const MAX_TRANSMIT: usize = 65_535;

/// A packet above this, headers of IP and UDP not counted, is never sent together with
/// others: segmentation offload needs segments that fit the link.
const MAX_SEGMENT: usize = 1472;

/// Most bytes sent together: an IP packet's limit, with room for its headers.
const MAX_BATCH: usize = 65_000;

/// What to send: the first [`len`](Self::len) bytes of the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transmit {
    /// To whom.
    pub remote: SocketAddr,
    /// From which of our addresses.
    pub local: SocketAddr,
    /// Bytes in the buffer.
    pub len: usize,
    /// `Some(n)`: several packets of `n` bytes each, the last one perhaps shorter.
    pub segment_size: Option<usize>,
}

/// What came of asking a session for packets.
enum Sent {
    Packets(Transmit),
    Nothing,
    End(End),
}

impl Server {
    /// Writes the next packet, or up to `max_segments` packets of one window, to `buf`, which
    /// must hold [`MAX_TRANSMIT`] bytes. Sessions take turns.
    pub fn poll_transmit(
        &mut self,
        now: Instant,
        max_segments: usize,
        buf: &mut [u8],
    ) -> Option<Transmit> {
        while let Some(reply) = self.out.replies.pop_front() {
            if let Some(transmit) = error(&mut self.out, &reply, buf) {
                return Some(transmit);
            }
        }
        while let Some(id) = self.out.ready.pop_front() {
            let Some(session) = self.table.get_mut(id) else {
                continue;
            };
            session.is_queued = false;
            let flow = session.flow;
            match send(id, session, &mut self.out, now, max_segments.max(1), buf) {
                Sent::Packets(transmit) => return Some(transmit),
                Sent::Nothing => {}
                Sent::End(end) => {
                    self.end(now, flow, Some(end));
                    if let Some(reply) = self.out.replies.pop_front()
                        && let Some(transmit) = error(&mut self.out, &reply, buf)
                    {
                        return Some(transmit);
                    }
                }
            }
        }
        None
    }
}

fn error(out: &mut Outputs, reply: &Reply, buf: &mut [u8]) -> Option<Transmit> {
    let Reply { flow, code, text } = reply;
    let len = encode_error(*code, text.as_bytes(), buf).ok()?;
    out.stats.errors_sent += 1;
    tracing::trace!(client = %flow.remote, %code, text, "sent ERROR");
    Some(Transmit {
        remote: flow.remote,
        local: flow.local,
        len,
        segment_size: None,
    })
}

fn send(
    id: SessionId,
    session: &mut Session,
    out: &mut Outputs,
    now: Instant,
    max_segments: usize,
    buf: &mut [u8],
) -> Sent {
    let due = std::mem::replace(&mut session.due, Due::Nothing);
    if session.share.until.is_some_and(|until| now >= until) {
        // It was queued while this session could still speak for its transfer.
        return Sent::Nothing;
    }
    let len = match due {
        Due::Nothing => return Sent::Nothing,
        Due::Data => return send_data(id, session, out, now, max_segments, buf),
        Due::Oack => copy(&session.oack, buf),
        Due::Ack => match &session.phase {
            Phase::Writing(writing) => copy(&ack(writing.receiver.ack()), buf),
            Phase::Lingering { ack: block } => copy(&ack(*block), buf),
            Phase::Opening | Phase::Reading(_) => return Sent::Nothing,
        },
    };
    let Some(len) = len else {
        return Sent::End(no_room());
    };
    tracing::trace!(client = %session.flow.remote, len, ?due, "sent");
    // Karn: what was sent before measures nothing.
    if std::mem::take(&mut session.is_repeat) {
        session.timed = None;
        session.retries += 1;
        out.stats.acks_resent += 1;
    } else {
        session.timed = Some(now);
    }
    session.last_sent = Some(now);
    if !session.is_lingering() {
        let wait = session.wait(now);
        out.arm(id, session, now, wait);
    }
    Sent::Packets(transmit(session, len, None))
}

fn send_data(
    id: SessionId,
    session: &mut Session,
    out: &mut Outputs,
    now: Instant,
    max_segments: usize,
    buf: &mut [u8],
) -> Sent {
    let blksize = session.blksize;
    let Phase::Reading(reading) = &mut session.phase else {
        return Sent::Nothing;
    };
    let packet = usize::from(blksize) + 4;
    let max_blocks = if packet > MAX_SEGMENT {
        1
    } else {
        max_segments.min(MAX_BATCH / packet)
    };
    let filled = match read::fill(reading, blksize, max_blocks, buf) {
        Ok(filled) => filled,
        Err(NotFilled::Nothing) => return Sent::Nothing,
        Err(NotFilled::Failed(error)) => return Sent::End(read::failed(session, out, &error)),
        Err(NotFilled::Index(block)) => {
            read::index(id, session, out, block);
            session.job_since = now;
            let wait = session.rto.current();
            out.arm(id, session, now, wait);
            return Sent::Nothing;
        }
        Err(NotFilled::Wait(offset)) => {
            read::load(id, session, out, offset);
            session.job_since = now;
            let wait = session.rto.current();
            out.arm(id, session, now, wait);
            return Sent::Nothing;
        }
    };
    let blocks = filled.last - filled.first + 1;
    let again = reading.sender.sent(now, filled.first, filled.last);
    let has_more = reading.sender.sendable().is_some();
    tracing::trace!(client = %session.flow.remote, first = filled.first, last = filled.last, again, "sent DATA");
    out.stats.blocks_sent += blocks;
    out.stats.blocks_resent += again;
    out.stats.bytes_sent += filled.len as u64 - 4 * blocks;
    session.retries += again;
    session.last_sent = Some(now);
    if has_more {
        out.queue(id, session, Due::Data);
    }
    let wait = session.wait(now);
    out.arm(id, session, now, wait);
    let segment_size = (blocks > 1).then_some(filled.segment);
    Sent::Packets(transmit(session, filled.len, segment_size))
}

const fn transmit(session: &Session, len: usize, segment_size: Option<usize>) -> Transmit {
    Transmit {
        remote: session.flow.remote,
        local: session.flow.local,
        len,
        segment_size,
    }
}

fn copy(packet: &[u8], buf: &mut [u8]) -> Option<usize> {
    buf.get_mut(..packet.len())?.copy_from_slice(packet);
    Some(packet.len())
}

fn no_room() -> End {
    End::failed(
        ErrorCode::NotDefined,
        "internal error",
        "the transmit buffer is too small".into(),
    )
}
