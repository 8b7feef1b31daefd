//! The client writes: blocks in, ACKs out.
//!
//! A window is acknowledged when the store has taken it, the last one when the file is
//! durable and visible: what a client was told is there, is there.

use std::time::Instant;

use super::super::jobs::StoreRequest;
use super::super::packet::ErrorCode;
use super::super::session::{Due, Outcome, Phase, Session, Writing};
use super::super::table::SessionId;
use super::super::transfer::Received;
use super::{End, LINGER, Outputs};
use crate::store::{Upload, WriteError};

pub(super) fn handle_data(
    id: SessionId,
    session: &mut Session,
    out: &mut Outputs,
    now: Instant,
    block: u16,
    payload: &[u8],
) -> Option<End> {
    let blksize = usize::from(session.blksize);
    // A repeat that comes this soon was made by the network, not by a client that waited.
    let is_echo = session.has_just_sent(now, session.rto.base() / 2);
    let writing = match &mut session.phase {
        Phase::Writing(writing) => writing,
        Phase::Lingering { ack } => {
            if *ack == block && !is_echo {
                session.is_repeat = true;
                out.queue(id, session, Due::Ack);
            }
            out.stats.duplicates += 1;
            return None;
        }
        Phase::Opening | Phase::Reading(_) => {
            out.stats.strays += 1;
            return None;
        }
    };
    if payload.len() > blksize {
        return Some(End::failed(
            ErrorCode::IllegalOperation,
            "block too large",
            "the client sent a block larger than agreed".into(),
        ));
    }
    if writing.upload.is_none() {
        // The store has not finished with the previous window; the client will repeat.
        session.is_validated = true;
        session.silence = 0;
        out.stats.duplicates += 1;
        return None;
    }
    match writing.receiver.handle_data(block) {
        Received::Next { fills_window } => {
            let sent = session.timed.take();
            session.heard(sent.map(|sent| now.saturating_duration_since(sent)));
            take(id, session, out, now, payload, fills_window)
        }
        Received::Gap(true) => {
            session.is_validated = true;
            session.timed = None;
            out.stats.strays += 1;
            acknowledge(id, session, out, now);
            None
        }
        Received::Gap(false) => {
            out.stats.strays += 1;
            None
        }
        Received::Old => {
            out.stats.duplicates += 1;
            if !is_echo {
                session.is_repeat = true;
                acknowledge(id, session, out, now);
            }
            None
        }
    }
}

/// Takes the next block in.
fn take(
    id: SessionId,
    session: &mut Session,
    out: &mut Outputs,
    now: Instant,
    payload: &[u8],
    fills_window: bool,
) -> Option<End> {
    out.stats.blocks_received += 1;
    out.stats.bytes_received += payload.len() as u64;
    let Phase::Writing(writing) = &mut session.phase else {
        return None;
    };
    let before = writing.buffer.len();
    writing.is_ended = payload.len() < usize::from(session.blksize);
    match &mut writing.text {
        None => writing.buffer.extend_from_slice(payload),
        Some(decoder) => {
            decoder.decode(payload, &mut writing.buffer);
            if writing.is_ended {
                decoder.finish(&mut writing.buffer);
            }
        }
    }
    session.bytes += (writing.buffer.len() - before) as u64;
    if session.bytes > out.settings.max_upload() {
        return Some(End::failed(
            ErrorCode::DiskFull,
            "file too large",
            "the file is larger than the limit".into(),
        ));
    }
    if writing.is_ended || fills_window {
        store(id, session, out, now);
    } else {
        let wait = session.wait(now);
        out.arm(id, session, now, wait);
    }
    None
}

/// Gives what was taken in to the store.
fn store(id: SessionId, session: &mut Session, out: &mut Outputs, now: Instant) {
    let Phase::Writing(writing) = &mut session.phase else {
        return;
    };
    let Some(upload) = writing.upload.take() else {
        return;
    };
    // Its ACK has never been sent.
    session.is_repeat = false;
    let bytes = std::mem::take(&mut writing.buffer);
    let commit = writing.is_ended;
    let mut job = out.job(id, session, false);
    job.charge = session.reserved;
    out.requests.push_back(StoreRequest::Write {
        id: job,
        upload,
        bytes,
        commit,
    });
    session.job_since = now;
    let wait = session.rto.current();
    out.arm(id, session, now, wait);
}

/// Acknowledges what was received, once the store has it.
fn acknowledge(id: SessionId, session: &mut Session, out: &mut Outputs, now: Instant) {
    let Phase::Writing(writing) = &mut session.phase else {
        return;
    };
    if writing.buffer.is_empty() {
        writing.receiver.acknowledged();
        // A client that has sent a block, even if it is not the first, has the OACK, and takes
        // only ACK 0 for the sign that its window is to begin again.
        let due = if session.is_validated || session.oack.is_empty() {
            Due::Ack
        } else {
            Due::Oack
        };
        out.queue(id, session, due);
    } else {
        store(id, session, out, now);
    }
}

/// The client is silent: it is told again what was received.
pub(super) fn resend(id: SessionId, session: &mut Session, out: &mut Outputs, now: Instant) {
    session.is_repeat = true;
    acknowledge(id, session, out, now);
}

/// The store has what it was given.
pub(super) fn written(
    id: SessionId,
    session: &mut Session,
    out: &mut Outputs,
    now: Instant,
    result: Result<Option<Box<dyn Upload>>, WriteError>,
) -> Option<End> {
    let upload = match result {
        Ok(upload) => upload,
        Err(error) => {
            out.release(std::mem::take(&mut session.reserved));
            return Some(write_failed(&error));
        }
    };
    let Phase::Writing(writing) = &mut session.phase else {
        return None;
    };
    let Writing {
        receiver, is_ended, ..
    } = writing;
    let ack = receiver.ack();
    if *is_ended {
        out.release(std::mem::take(&mut session.reserved));
        out.in_flight = out.in_flight.saturating_sub(1);
        out.stats.completed_writes += 1;
        out.events.push_back(session.record(now, Outcome::Complete));
        session.phase = Phase::Lingering { ack };
        out.arm(id, session, now, LINGER);
    } else {
        receiver.acknowledged();
        writing.upload = upload;
    }
    out.queue(id, session, Due::Ack);
    None
}

fn write_failed(error: &WriteError) -> End {
    let (code, text) = match error {
        WriteError::Full => (ErrorCode::DiskFull, "disk full"),
        WriteError::Exists => (ErrorCode::FileExists, "file already exists"),
        WriteError::Io(_) => (ErrorCode::NotDefined, "the file cannot be written"),
    };
    End::failed(code, text, error.to_string())
}
