//! One transfer of a client with the server engine, and the record that is left of it.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::jobs::Part;
use super::netascii::{BlockIndex, Decoder};
use super::options::Options;
use super::packet::{ErrorCode, Mode};
use super::rtt::Rto;
use super::server::{MAX_KEPT_TIMEOUT, MAX_SILENCE, UNVALIDATED_LIFE};
use super::table::Flow;
use super::timers::Timer;
use super::transfer::{Receiver, Sender};
use crate::handoff::limits::HEIR_EVERY;
use crate::store::{Content, FileName, Upload};

/// Which way the file goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// The client reads.
    Read,
    /// The client writes.
    Write,
}

/// How a transfer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The client has, or gave, the whole file.
    Complete,
    /// The client asked for options, such as the size, and ended it with ERROR before the
    /// first block, as UEFI does before every download. Not a failure.
    Probe,
    /// The client ended it with ERROR.
    Aborted {
        /// Its code.
        code: ErrorCode,
        /// Its text, without control characters.
        text: String,
    },
    /// The client fell silent.
    TimedOut,
    /// The request was answered by ERROR.
    Refused {
        /// The code that was sent.
        code: ErrorCode,
        /// Why, for the operator; the client is told less.
        reason: String,
    },
    /// It could not go on: the file changed, the disk failed, the client broke the protocol.
    Failed {
        /// Why, for the operator.
        reason: String,
    },
    /// The request was dropped in silence because the server is out of files or memory. It
    /// leaves no record.
    Dropped {
        /// Why, for the operator.
        reason: String,
    },
    /// The same client port sent another request.
    Replaced,
    /// The client had sent nothing but its request, and another one needed the place.
    Evicted,
    /// It ended at another node, or another node goes on with it.
    Moved,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Complete => f.write_str("complete"),
            Self::Probe => f.write_str("options only"),
            Self::Aborted { code, text } if text.is_empty() => {
                write!(f, "ended by the client: error {code}")
            }
            Self::Aborted { code, text } => {
                write!(f, "ended by the client: error {code}, {text:?}")
            }
            Self::TimedOut => f.write_str("given up: the client is silent"),
            Self::Refused { code, reason } => write!(f, "refused: error {code}: {reason}"),
            Self::Failed { reason } => write!(f, "failed: {reason}"),
            Self::Dropped { reason } => write!(f, "dropped in silence: {reason}"),
            Self::Replaced => f.write_str("replaced by another request"),
            Self::Moved => f.write_str("goes on or has ended at another node"),
            Self::Evicted => f.write_str("made room for another client: only a request came"),
        }
    }
}

/// What is left of a transfer that ended: enough for one line in a log.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TransferRecord {
    /// The client.
    pub client: SocketAddr,
    /// Our address, as the client used it.
    pub local: SocketAddr,
    /// The file; what the client wrote, made printable, when the name was refused.
    pub file: String,
    /// Which way.
    pub direction: Direction,
    /// Octet or netascii.
    pub mode: Mode,
    /// Bytes of the file that the client acknowledged, or that were taken from it.
    pub bytes: u64,
    /// Block size agreed, in bytes.
    pub blksize: u16,
    /// Window agreed, in blocks.
    pub windowsize: u16,
    /// From the request to the end.
    pub duration: Duration,
    /// Packets that were sent again.
    pub retries: u64,
    /// How it ended.
    pub outcome: Outcome,
}

impl TransferRecord {
    /// Whether the client has answered to what it was sent, so that its address is not forged.
    #[must_use]
    pub fn has_answered(&self) -> bool {
        self.bytes > 0 || matches!(self.outcome, Outcome::Complete | Outcome::Probe)
    }

    /// Whether a client on this host read a whole file: what a health check does every few
    /// seconds.
    #[must_use]
    pub fn is_routine(&self) -> bool {
        self.outcome == Outcome::Complete
            && self.direction == Direction::Read
            && self.client.ip() == self.local.ip()
    }
}

/// What a session wants to send next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    Oack,
    Ack,
    Data,
}

#[derive(Debug)]
pub(super) struct Reading {
    pub(super) content: Arc<dyn Content>,
    pub(super) sender: Sender,
    /// Present in netascii.
    pub(super) text: Option<Box<BlockIndex>>,
    /// The block up to which the store was asked to translate.
    pub(super) indexed: u64,
    /// An OACK was sent and its ACK 0 has not come.
    pub(super) awaits_ack_0: bool,
    /// What the store read because it was not in memory.
    pub(super) part: Option<Part>,
    /// Dropped with the session: what the store was asked for is not wanted then.
    pub(super) ticket: Arc<()>,
}

#[derive(Debug)]
pub(super) struct Writing {
    /// Absent while the store has it.
    pub(super) upload: Option<Box<dyn Upload>>,
    pub(super) receiver: Receiver,
    /// Present in netascii.
    pub(super) text: Option<Decoder>,
    /// Taken in, and not yet given to the store.
    pub(super) buffer: Vec<u8>,
    /// The last block was taken in.
    pub(super) is_ended: bool,
}

#[derive(Debug)]
pub(super) enum Phase {
    /// The store was asked for the file.
    Opening,
    Reading(Reading),
    Writing(Writing),
    /// The file is written; the client may still miss our last ACK (RFC 1350 §6).
    Lingering {
        ack: u16,
    },
}

#[derive(Debug)]
pub(super) struct Session {
    pub(super) flow: Flow,
    /// Hash of the request's bytes.
    pub(super) request: u128,
    pub(super) name: FileName,
    pub(super) direction: Direction,
    pub(super) mode: Mode,
    pub(super) asked: Options<'static>,
    pub(super) started: Instant,
    pub(super) blksize: u16,
    pub(super) windowsize: u16,
    /// The OACK, or empty when none is due.
    pub(super) oack: Box<[u8]>,
    /// The client acknowledged a block or sent one. (No proof that its address is not forged:
    /// see the server on amplification.)
    pub(super) is_validated: bool,
    /// The client acknowledged the OACK.
    pub(super) is_greeted: bool,
    pub(super) rto: Rto,
    /// Time-outs since the last progress.
    pub(super) silence: u8,
    pub(super) timer: Timer,
    pub(super) due: Due,
    pub(super) is_queued: bool,
    /// The store request that it waits for.
    pub(super) job: Option<u32>,
    pub(super) last_sent: Option<Instant>,
    /// When the client last said something in this session.
    pub(super) last_heard: Instant,
    /// Since when the client owes an answer: since it last said something, or since the store
    /// let us answer that.
    pub(super) silent_since: Instant,
    /// When the store was last asked for bytes, or given some.
    pub(super) job_since: Instant,
    /// When an OACK or ACK was sent that measures a round trip: one that was sent once.
    pub(super) timed: Option<Instant>,
    /// The OACK or ACK that is due was sent before.
    pub(super) is_repeat: bool,
    pub(super) bytes: u64,
    pub(super) retries: u64,
    /// Bytes of upload memory set aside for it.
    pub(super) reserved: usize,
    pub(super) share: Share,
    pub(super) phase: Phase,
}

/// What a session is to the other nodes that know of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// No other node knows of it.
    Alone,
    /// Its first reply waits for another node.
    Held,
    /// This node has its timers.
    Owner,
    /// As the owner, but only so many packets are sent again: the client's own silence is expected.
    Heir,
    /// Another node has its timers: this one answers ACKs.
    Answering,
}

/// See [`Role`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Share {
    pub(super) role: Role,
    /// Until when packets are taken; afterwards they are as those of an unknown flow.
    pub(super) until: Option<Instant>,
    /// Whoever shares it is told when so many blocks are acknowledged, or when an ACK comes after
    /// this time.
    pub(super) report: Option<(u64, Instant)>,
}

impl Share {
    pub(super) const fn alone() -> Self {
        Self {
            role: Role::Alone,
            until: None,
            report: None,
        }
    }

    pub(super) fn takes(&self, now: Instant) -> bool {
        self.role != Role::Held && self.until.is_none_or(|until| now < until)
    }
}

impl Session {
    /// A session whose file is being opened.
    pub(super) fn opening(
        now: Instant,
        flow: Flow,
        request: u128,
        name: FileName,
        direction: Direction,
        mode: Mode,
        asked: Options<'static>,
    ) -> Self {
        let timeout = asked
            .timeout
            .map(|seconds| Duration::from_secs(seconds.into()).min(MAX_KEPT_TIMEOUT));
        Self {
            flow,
            request,
            name,
            direction,
            mode,
            asked,
            started: now,
            blksize: super::options::DEFAULT_BLKSIZE,
            windowsize: 1,
            oack: Box::default(),
            is_validated: false,
            is_greeted: false,
            rto: Rto::new(timeout),
            silence: 0,
            timer: Timer::default(),
            due: Due::Nothing,
            is_queued: false,
            job: None,
            last_sent: None,
            last_heard: now,
            silent_since: now,
            job_since: now,
            timed: None,
            is_repeat: false,
            bytes: 0,
            retries: 0,
            reserved: 0,
            share: Share::alone(),
            phase: Phase::Opening,
        }
    }

    /// The record of its end.
    pub(super) fn record(&self, now: Instant, outcome: Outcome) -> TransferRecord {
        TransferRecord {
            client: self.flow.remote,
            local: self.flow.local,
            file: self.name.to_string(),
            direction: self.direction,
            mode: self.mode,
            bytes: self.bytes,
            blksize: self.blksize,
            windowsize: self.windowsize,
            duration: now.saturating_duration_since(self.started),
            retries: self.retries,
            outcome,
        }
    }

    /// Whether it ended and only repeats its last ACK.
    pub(super) const fn is_lingering(&self) -> bool {
        matches!(self.phase, Phase::Lingering { .. })
    }

    /// Whether the client has sent nothing but requests.
    pub(super) const fn is_young(&self) -> bool {
        !self.is_validated && !self.is_greeted && !self.is_lingering()
    }

    /// How long to wait for an answer: not beyond the time when the client is given up.
    pub(super) fn wait(&self, now: Instant) -> Duration {
        let wait = match self.share.role {
            Role::Heir => HEIR_EVERY,
            Role::Alone | Role::Held | Role::Owner | Role::Answering => self.rto.current(),
        };
        wait.min(self.patience(now))
    }

    /// How long the client may still be silent.
    pub(super) fn patience(&self, now: Instant) -> Duration {
        let limit = if self.is_validated {
            MAX_SILENCE
        } else {
            UNVALIDATED_LIFE
        };
        limit.saturating_sub(now.saturating_duration_since(self.silent_since))
    }

    /// Whether something was sent less than `pause` ago.
    pub(super) fn has_just_sent(&self, now: Instant, pause: Duration) -> bool {
        self.last_sent
            .is_some_and(|sent| now.saturating_duration_since(sent) < pause)
    }

    /// Blocks of a read that the client has acknowledged.
    pub(super) fn acked(&self) -> u64 {
        match &self.phase {
            Phase::Reading(reading) => reading.sender.acked(),
            Phase::Opening | Phase::Writing(_) | Phase::Lingering { .. } => 0,
        }
    }

    /// The client acknowledged a block, or sent one.
    pub(super) fn heard(&mut self, round_trip: Option<Duration>) {
        self.is_validated = true;
        self.progressed(round_trip);
    }

    /// The client acknowledged the OACK: anybody can forge that.
    pub(super) fn has_acked_options(&mut self, round_trip: Option<Duration>) {
        self.is_greeted = true;
        self.progressed(round_trip);
    }

    fn progressed(&mut self, round_trip: Option<Duration>) {
        self.silence = 0;
        if let Some(round_trip) = round_trip {
            self.rto.measured(round_trip);
        }
    }
}
