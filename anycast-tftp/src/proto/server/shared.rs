//! Sessions that other nodes know of: what [handoff](crate::handoff) does to them, and hears.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::netascii::BlockIndex;
use super::super::options::Options;
use super::super::packet::Mode;
use super::super::rtt::MIN_RTO;
use super::super::session::{Direction, Due, Outcome, Phase, Reading, Role, Session, Share};
use super::super::stats::Stats;
use super::super::table::{Flow, SessionId};
use super::super::transfer::{Rollover, Sender};
use super::{End, Outputs, Server};
use crate::handoff::limits::{ALONE_AFTER, ALONE_RESENDS, HEIR_PROBES};
use crate::store::{Content, ContentId, FileName};

/// How long a session that only answers outlives the last packet that came to it.
const ANSWER_LIFE: Duration = Duration::from_secs(3);

/// No packet of the network's is doubled later than this.
pub(crate) const DOUBLED: Duration = Duration::from_secs(1);

/// What became of a shared session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Shared {
    /// A transfer began. The first reply of a read waits for [`Server::release`].
    Opened(Flow),
    /// Its client has so many blocks, and the time to tell of it has come.
    Acked(Flow, u64),
    /// Its client acknowledges a block of this number, which is not ahead.
    Behind(Flow, u16),
    /// Its content can be read here no more.
    Unreadable(Flow),
    /// It ended here.
    Ended(Flow, Outcome),
}

/// A transfer as the other nodes are to know it.
#[derive(Debug, Clone)]
pub(crate) struct Begun {
    pub(crate) request: u128,
    pub(crate) name: FileName,
    /// What is read; None: the client writes.
    pub(crate) content: Option<(ContentId, Arc<dyn Content>)>,
    pub(crate) mode: Mode,
    pub(crate) oack: Box<[u8]>,
    pub(crate) blksize: u16,
    pub(crate) windowsize: u16,
    pub(crate) timeout: Option<u8>,
    pub(crate) rollover: Rollover,
}

/// A read to go on with.
#[derive(Debug)]
pub(crate) struct Adopt {
    pub(crate) flow: Flow,
    pub(crate) begun: Begun,
    /// Blocks that the client has.
    pub(crate) acked: u64,
    /// It has acknowledged the options.
    pub(crate) is_greeted: bool,
    pub(crate) role: Role,
}

impl Outputs {
    /// Whether other nodes are to know of this read: they must be able to have the same bytes.
    pub(super) fn shares(&self, session: &Session) -> bool {
        let is_known = match &session.phase {
            Phase::Reading(reading) => reading.content.id().is_some(),
            Phase::Opening | Phase::Writing(_) | Phase::Lingering { .. } => false,
        };
        self.sharing && is_known && !session.flow.is_own_host()
    }
}

impl Server {
    /// From now on other nodes are to know of transfers.
    pub(crate) const fn share(&mut self) {
        self.out.sharing = true;
    }

    /// Whether no other node can be heard: then silent clients are not sent to for long.
    pub(crate) const fn set_alone(&mut self, is_alone: bool) {
        self.out.is_alone = is_alone;
    }

    /// What became of shared sessions.
    pub(crate) fn poll_shared(&mut self) -> Option<Shared> {
        self.out.shared.pop_front()
    }

    fn session(&mut self, flow: &Flow) -> Option<(SessionId, &mut Session, &mut Outputs)> {
        let id = self.table.find(flow)?;
        let session = self.table.get_mut(id)?;
        Some((id, session, &mut self.out))
    }

    /// The session of a flow, as other nodes are to know it.
    pub(crate) fn begun(&mut self, flow: &Flow) -> Option<Begun> {
        let rollover = self.out.settings.rollover();
        let (_, session, _) = self.session(flow)?;
        let content = match &session.phase {
            Phase::Reading(reading) => Some((reading.content.id()?, Arc::clone(&reading.content))),
            Phase::Writing(_) => None,
            Phase::Opening | Phase::Lingering { .. } => return None,
        };
        Some(Begun {
            request: session.request,
            name: session.name.clone(),
            content,
            mode: session.mode,
            oack: session.oack.clone(),
            blksize: session.blksize,
            windowsize: session.windowsize,
            timeout: session.asked.timeout,
            rollover,
        })
    }

    /// Whether the flow has a session that is no longer being opened.
    pub(crate) fn has(&mut self, flow: &Flow) -> bool {
        self.session(flow)
            .is_some_and(|(_, session, _)| !matches!(session.phase, Phase::Opening))
    }

    /// The first reply goes out: this node is the owner.
    pub(crate) fn release(&mut self, flow: &Flow) {
        let Some((id, session, out)) = self.session(flow) else {
            return;
        };
        let Phase::Reading(reading) = &mut session.phase else {
            return;
        };
        if session.share.role != Role::Held {
            return;
        }
        session.share.role = Role::Owner;
        reading.sender.share();
        let due = if reading.awaits_ack_0 {
            Due::Oack
        } else {
            Due::Data
        };
        out.queue(id, session, due);
    }

    /// Goes on with a read. Nothing is sent before [`repeat`](Self::repeat), or an ACK. False:
    /// there is no room for it.
    pub(crate) fn adopt(&mut self, now: Instant, adopt: Adopt) -> bool {
        let Adopt {
            flow,
            begun,
            acked,
            is_greeted,
            role,
        } = adopt;
        let Some((_, content)) = begun.content else {
            return false;
        };
        if self.table.find(&flow).is_some() || !self.has_room(now, flow) {
            return false;
        }
        let asked = Options {
            timeout: begun.timeout,
            ..Options::default()
        };
        let mut session = Session::opening(
            now,
            flow,
            begun.request,
            begun.name,
            Direction::Read,
            begun.mode,
            asked,
        );
        let blocks = content.size() / u64::from(begun.blksize.max(1)) + 1;
        let (text, last) = match begun.mode {
            Mode::Octet => (None, Some(blocks)),
            Mode::Netascii => (Some(Box::new(BlockIndex::new(begun.blksize))), None),
        };
        session.bytes = acked
            .saturating_mul(begun.blksize.into())
            .min(content.size());
        session.blksize = begun.blksize;
        session.windowsize = begun.windowsize;
        session.is_validated = acked > 0;
        session.is_greeted = is_greeted || acked > 0;
        let awaits_ack_0 = !begun.oack.is_empty() && !session.is_greeted;
        session.oack = begun.oack;
        session.share = Share {
            role,
            ..Share::alone()
        };
        session.phase = Phase::Reading(Reading {
            content,
            sender: Sender::resume(begun.rollover, begun.windowsize, last, acked),
            text,
            indexed: 0,
            awaits_ack_0,
            part: None,
            ticket: Arc::default(),
        });
        let is_validated = session.is_validated;
        let Some(id) = self.table.insert(flow, session) else {
            return false;
        };
        if is_validated {
            self.table.settle(id);
        }
        self.out.stats.adopted += 1;
        if role != Role::Answering {
            self.out.in_flight += 1;
        }
        if let Some((id, session, out)) = self.session(&flow) {
            let wait = session.wait(now);
            out.arm(id, session, now, wait);
        }
        true
    }

    /// Another role for a session that was adopted or released.
    pub(crate) fn set_role(&mut self, now: Instant, flow: &Flow, role: Role) {
        let Some((id, session, out)) = self.session(flow) else {
            return;
        };
        if matches!(session.share.role, Role::Alone | Role::Held) || session.share.role == role {
            return;
        }
        match (session.share.role, role) {
            (Role::Answering, _) => out.in_flight += 1,
            (_, Role::Answering) => out.in_flight = out.in_flight.saturating_sub(1),
            _ => {}
        }
        session.share.role = role;
        session.silence = 0;
        session.silent_since = now;
        let wait = session.wait(now);
        out.arm(id, session, now, wait);
    }

    /// Until when packets are taken; None: for ever.
    pub(crate) fn set_until(&mut self, now: Instant, flow: &Flow, until: Option<Instant>) {
        let Some((id, session, out)) = self.session(flow) else {
            return;
        };
        let was_over = session.share.until.is_some_and(|until| now >= until);
        session.share.until = until;
        if was_over && session.share.takes(now) && session.share.role != Role::Alone {
            session.silent_since = now;
            let wait = session.wait(now);
            out.arm(id, session, now, wait);
        }
    }

    /// How far a session is: its acknowledged blocks, whether the options are, and when its client
    /// was last heard of.
    pub(crate) fn progress(&mut self, flow: &Flow) -> Option<(u64, bool, Instant)> {
        let (_, session, _) = self.session(flow)?;
        let is_greeted = session.is_greeted || session.is_validated;
        Some((session.acked(), is_greeted, session.last_heard))
    }

    /// Whether something was sent so short a time ago that a request is a double of one before.
    pub(crate) fn has_just_sent(&mut self, now: Instant, flow: &Flow) -> bool {
        let session = self.session(flow);
        session.is_some_and(|(_, session, _)| session.has_just_sent(now, session.rto.base()))
    }

    /// Whether an ACK is of a block that the client can have by now, as far as is known here. One
    /// that is not may be a late double, of the transfer before, but not for long.
    pub(crate) fn is_plausible(&mut self, now: Instant, flow: &Flow, wire: u16) -> bool {
        self.session(flow).is_none_or(|(_, session, _)| {
            let is_alone = session.share.role == Role::Alone;
            let silence = now.saturating_duration_since(session.last_heard);
            match &session.phase {
                Phase::Reading(reading) => {
                    is_alone || silence >= DOUBLED || reading.sender.is_plausible(wire)
                }
                Phase::Opening | Phase::Writing(_) | Phase::Lingering { .. } => true,
            }
        })
    }

    /// The counters, for what handoff counts.
    pub(crate) const fn stats_mut(&mut self) -> &mut Stats {
        &mut self.out.stats
    }

    /// When [`Shared::Acked`] is due.
    pub(crate) fn set_report(&mut self, flow: &Flow, blocks: u64, at: Instant) {
        if let Some((_, session, _)) = self.session(flow) {
            session.share.report = Some((blocks, at));
        }
    }

    /// The last block that may be sent for now.
    pub(crate) fn set_limit(&mut self, flow: &Flow, limit: Option<u64>) {
        let Some((id, session, out)) = self.session(flow) else {
            return;
        };
        let is_waiting = session.job.is_some();
        let Phase::Reading(reading) = &mut session.phase else {
            return;
        };
        let before = reading.sender.sendable();
        reading.sender.set_limit(limit);
        let awaits = reading.awaits_ack_0 || session.share.role == Role::Held;
        if before.is_none() && reading.sender.sendable().is_some() && !is_waiting && !awaits {
            out.queue(id, session, Due::Data);
        }
    }

    /// Another node has heard the client, and answered it up to here.
    pub(crate) fn handle_progress(&mut self, now: Instant, flow: &Flow, acked: u64, greeted: bool) {
        let Some((id, session, out)) = self.session(flow) else {
            return;
        };
        let blksize = u64::from(session.blksize);
        let Phase::Reading(reading) = &mut session.phase else {
            return;
        };
        if session.share.role == Role::Held {
            return;
        }
        let is_news = reading.sender.skip_to(acked);
        let is_greeting = greeted && std::mem::take(&mut reading.awaits_ack_0);
        if is_news || is_greeting {
            session.bytes = acked.saturating_mul(blksize).min(reading.content.size());
            session.is_validated |= acked > 0;
            session.is_greeted = true;
            session.silence = 0;
            session.rto.reset();
            session.due = Due::Nothing;
        }
        session.last_heard = now;
        session.silent_since = now;
        let wait = session.wait(now);
        out.arm(id, session, now, wait);
    }

    /// The client has no more than these blocks, whatever was said of it.
    pub(crate) fn fall_back(&mut self, now: Instant, flow: &Flow, acked: u64) {
        let Some((id, session, out)) = self.session(flow) else {
            return;
        };
        let is_waiting = session.job.is_some();
        session.last_heard = now;
        session.silent_since = now;
        session.silence = 0;
        let Phase::Reading(reading) = &mut session.phase else {
            return;
        };
        reading.sender.fall_back(acked);
        if !is_waiting {
            out.queue(id, session, Due::Data);
        }
    }

    /// Sends what follows the last ACK again, one block of it.
    pub(crate) fn repeat(&mut self, flow: &Flow) {
        let Some((id, session, out)) = self.session(flow) else {
            return;
        };
        let is_waiting = session.job.is_some();
        let Phase::Reading(reading) = &mut session.phase else {
            return;
        };
        let due = if reading.awaits_ack_0 {
            Due::Oack
        } else {
            Due::Data
        };
        reading.sender.restart(u8::MAX);
        session.is_repeat = true;
        if !is_waiting {
            out.queue(id, session, due);
        }
    }

    /// Ends a shared session without a word to the client.
    pub(crate) fn drop_shared(&mut self, now: Instant, flow: &Flow) {
        let is_shared = self
            .session(flow)
            .is_some_and(|(_, session, _)| session.share.role != Role::Alone);
        if is_shared {
            if let Some((_, session, _)) = self.session(flow) {
                // Whoever ends it knows.
                if session.share.role != Role::Answering {
                    self.out.in_flight = self.out.in_flight.saturating_sub(1);
                }
            }
            if let Some((_, session, _)) = self.session(flow) {
                session.share.role = Role::Answering;
            }
            self.end(now, *flow, Some(End::silent(Outcome::Moved)));
        }
    }

    /// Ends a session with an ERROR, or answers a flow that has none.
    pub(crate) fn refuse_shared(&mut self, flow: Flow, text: &'static str) {
        self.out.reply(flow, super::ErrorCode::NotDefined, text);
    }
}

/// Tells whoever shares the session how far it is, where that is due.
pub(super) fn report(session: &mut Session, out: &mut Outputs, now: Instant, acked: u64) {
    if let Some((blocks, at)) = session.share.report
        && (acked >= blocks || now >= at)
    {
        session.share.report = None;
        out.shared.push_back(Shared::Acked(session.flow, acked));
    }
}

/// An answering node has no timer, and a node that is alone does not use its own for long: the client that repeats its ACK, later than the network would,
/// gets the answer again.
pub(super) fn repeat_where_nobody_does(
    id: SessionId,
    session: &mut Session,
    out: &mut Outputs,
    now: Instant,
) {
    let is_late = !session.has_just_sent(now, session.rto.base().max(MIN_RTO));
    let nobody_does = match session.share.role {
        Role::Answering => true,
        // Its timer may be longer than it may send without being asked.
        Role::Owner | Role::Heir => out.is_alone,
        Role::Alone | Role::Held => false,
    };
    if !nobody_does || !is_late || session.job.is_some() {
        return;
    }
    let Phase::Reading(reading) = &mut session.phase else {
        return;
    };
    reading.sender.restart(u8::MAX);
    out.queue(id, session, Due::Data);
    let acked = session.acked();
    report(session, out, now, acked);
}

/// What the passing of time means to a shared session; None: what it means to any.
pub(super) fn expired(
    id: SessionId,
    session: &mut Session,
    out: &mut Outputs,
    now: Instant,
) -> Option<Option<End>> {
    let silence = now.saturating_duration_since(session.last_heard);
    match session.share.role {
        Role::Alone => None,
        Role::Held => {
            out.arm(id, session, now, Duration::from_secs(1));
            Some(None)
        }
        Role::Answering if session.job.is_none() && silence >= ANSWER_LIFE => {
            Some(Some(End::silent(Outcome::Moved)))
        }
        Role::Answering => {
            let left = ANSWER_LIFE.saturating_sub(silence);
            out.arm(id, session, now, left.max(Duration::from_millis(50)));
            Some(None)
        }
        Role::Owner | Role::Heir => {
            let is_stale = session.share.until.is_some_and(|until| now >= until);
            let is_alone =
                out.is_alone && silence >= ALONE_AFTER && session.silence >= ALONE_RESENDS;
            // The first was sent when it took over; what was never acknowledged may be forged.
            let has_probed = session.share.role == Role::Heir
                && (session.silence + 1 >= HEIR_PROBES || !session.is_greeted);
            let patience = session.patience(now);
            if !(is_stale || is_alone || has_probed) || patience.is_zero() {
                return None;
            }
            out.arm(id, session, now, patience);
            Some(None)
        }
    }
}
