//! How sessions end: the reasons, what is counted, and what becomes of silence.

use std::time::Instant;

use super::super::packet::ErrorCode;
use super::super::session::{Direction, Due, Outcome, Phase, Session};
use super::super::settings::Settings;
use super::super::stats::Stats;
use super::super::table::SessionId;
use super::shared;
use super::{LINGER, Outputs, STORE_TIMEOUT, UNVALIDATED_DATA_RETRIES, UNVALIDATED_RETRIES};

/// Longest text from the wire in a record, in characters.
const MAX_RECORDED_NAME: usize = 128;

/// Why a session ends, and what the client is told.
#[derive(Debug)]
pub(super) struct End {
    pub(super) outcome: Outcome,
    pub(super) error: Option<(ErrorCode, &'static str)>,
}

impl End {
    pub(super) const fn silent(outcome: Outcome) -> Self {
        Self {
            outcome,
            error: None,
        }
    }

    pub(super) fn failed(code: ErrorCode, text: &'static str, reason: String) -> Self {
        Self {
            outcome: Outcome::Failed { reason },
            error: Some((code, text)),
        }
    }

    pub(super) fn refused(code: ErrorCode, text: &'static str, reason: String) -> Self {
        Self {
            outcome: Outcome::Refused { code, reason },
            error: Some((code, text)),
        }
    }
}

pub(super) fn count(stats: &mut Stats, session: &Session, outcome: &Outcome) {
    let counter = match (outcome, session.direction) {
        (Outcome::Complete, Direction::Read) => &mut stats.completed_reads,
        (Outcome::Complete, Direction::Write) => &mut stats.completed_writes,
        (Outcome::Probe, _) => &mut stats.probes,
        (Outcome::Aborted { .. }, _) => &mut stats.aborted,
        (Outcome::TimedOut, _) => &mut stats.timed_out,
        (Outcome::Refused { code, .. }, _) => refusal(stats, *code),
        (Outcome::Failed { .. }, _) => &mut stats.failed,
        (Outcome::Dropped { .. }, _) => &mut stats.dropped_opens,
        (Outcome::Replaced, _) => &mut stats.replaced,
        (Outcome::Evicted, _) => &mut stats.evicted,
        (Outcome::Moved, _) => &mut stats.moved,
    };
    *counter += 1;
}

pub(super) fn refusal(stats: &mut Stats, code: ErrorCode) -> &mut u64 {
    match code {
        ErrorCode::FileNotFound => &mut stats.refused_not_found,
        ErrorCode::AccessViolation => &mut stats.refused_access,
        ErrorCode::FileExists => &mut stats.refused_exists,
        ErrorCode::NotDefined
        | ErrorCode::DiskFull
        | ErrorCode::IllegalOperation
        | ErrorCode::UnknownTransfer
        | ErrorCode::NoSuchUser
        | ErrorCode::OptionRefused
        | ErrorCode::Other(_) => &mut stats.refused_other,
    }
}

/// The client ended the transfer. An ERROR is never answered.
pub(super) fn handle_error(session: &Session, code: ErrorCode, message: &[u8]) -> End {
    let has_blocks = match &session.phase {
        Phase::Opening | Phase::Lingering { .. } => false,
        Phase::Reading(reading) => !reading.awaits_ack_0 || reading.sender.acked() > 0,
        Phase::Writing(writing) => writing.receiver.received() > 0,
    };
    if !has_blocks && !session.oack.is_empty() {
        return End::silent(Outcome::Probe);
    }
    End::silent(Outcome::Aborted {
        code,
        text: printable(message),
    })
}

/// Text from the wire, made harmless for a log.
pub(super) fn printable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes)
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MAX_RECORDED_NAME)
        .collect()
}

/// The deadline of a session has passed.
pub(super) fn expired(
    id: SessionId,
    session: &mut Session,
    out: &mut Outputs,
    now: Instant,
) -> Option<End> {
    match &session.phase {
        Phase::Opening => {
            return Some(End::silent(Outcome::Failed {
                reason: "the store did not open the file in time".into(),
            }));
        }
        Phase::Lingering { .. } => {
            let wait = LINGER.saturating_sub(now.saturating_duration_since(session.last_heard));
            if wait.is_zero() {
                // It is not recorded a second time.
                return Some(End::silent(Outcome::Complete));
            }
            out.arm(id, session, now, wait);
            return None;
        }
        Phase::Reading(_) | Phase::Writing(_) => {}
    }
    if let Some(end) = shared::expired(id, session, out, now) {
        return end;
    }
    if session.is_queued {
        // Our own socket is slow; the client has not been asked anything yet.
        let wait = session.rto.current();
        out.arm(id, session, now, wait);
        return None;
    }
    if session.job.is_some() {
        // It is the store that is silent, not the client.
        let waited = now.saturating_duration_since(session.job_since);
        let left = STORE_TIMEOUT.saturating_sub(waited);
        if left.is_zero() {
            return Some(store_is_silent(session));
        }
        out.arm(id, session, now, left);
        return None;
    }
    let patience = session.patience(now);
    let is_tired = session.silence >= retries(session, &out.settings);
    if patience.is_zero() || (is_tired && session.is_validated) {
        return Some(End::silent(Outcome::TimedOut));
    }
    if is_tired {
        // It is still listened to.
        out.arm(id, session, now, patience);
        return None;
    }
    session.silence += 1;
    session.rto.timed_out();
    match &mut session.phase {
        Phase::Reading(_) => super::read::resend(id, session, out),
        Phase::Writing(_) => super::write::resend(id, session, out, now),
        Phase::Opening | Phase::Lingering { .. } => {}
    }
    None
}

/// How often a packet that is not answered is sent again.
fn retries(session: &Session, settings: &Settings) -> u8 {
    let is_large = session.direction == Direction::Read && session.oack.is_empty();
    let most = if session.is_validated {
        u8::MAX
    } else if is_large {
        UNVALIDATED_DATA_RETRIES
    } else {
        UNVALIDATED_RETRIES
    };
    most.min(settings.max_retries())
}

/// The client repeats the ACK of the OACK. Once our own repeats of block 1 are used up, none
/// of which seems to have arrived, each such ACK gets it again, at most one in a round trip.
pub(super) fn repeat_first_block(
    id: SessionId,
    session: &mut Session,
    out: &mut Outputs,
    now: Instant,
) {
    let is_tired = session.silence >= retries(session, &out.settings);
    let is_late = !session.has_just_sent(now, session.rto.base());
    let Phase::Reading(reading) = &mut session.phase else {
        return;
    };
    if reading.sender.acked() == 0 && is_tired && is_late && session.job.is_none() {
        reading.sender.restart(0);
        out.queue(id, session, Due::Data);
    }
}

fn store_is_silent(session: &Session) -> End {
    let reason = "the store did not answer".to_owned();
    if session.is_validated {
        return End::failed(ErrorCode::NotDefined, "the file cannot be reached", reason);
    }
    // The client is better off asking again.
    End::silent(Outcome::Failed { reason })
}
