//! Packets of flows that have no session here: kept for a moment while others are asked, and
//! answered where the record is here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::{Entry, Node, State};
use crate::handoff::limits::{
    AHEAD, ASKS, ASKS_OF_PREFIX, ASKS_OF_PREFIX_RATE, ASKS_RATE, HOLD, MAX_HELD,
};
use crate::handoff::record::NodeId;
use crate::handoff::wire::Message;
use crate::proto::Flow;
use crate::proto::packet::Packet;
use crate::proto::rtt::MIN_RTO;
use crate::proto::server::{Adopt, Begun};

/// Longest packet that is kept: those that are not blocks of writes are short.
const MAX_KEPT: usize = 2048;
/// What a node that went away longer ago than this has answered, its client does not wait for.
const GONE: Duration = Duration::from_secs(60);
/// A client that acknowledges the same old block again after this is there.
const BEHIND_AFTER: Duration = Duration::from_millis(200);
/// A flow is asked about again after this.
const ASK_AGAIN: Duration = Duration::from_millis(150);
/// Prefixes whose questions are counted; beyond, those that have asked nothing lately are forgotten.
const MAX_PREFIXES: usize = 16_384;

#[derive(Debug)]
struct Kept {
    datagram: Box<[u8]>,
    /// When it came.
    at: Instant,
    until: Instant,
    asked_at: Instant,
    /// Its place among the deadlines.
    due: Instant,
    /// Who has not answered yet.
    asked: BTreeSet<NodeId>,
}

/// So many at once, and so many a second.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl Bucket {
    fn take(&mut self, now: Instant, burst: u32, rate: u32) -> bool {
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        self.left = (self.left + since * f64::from(rate)).min(f64::from(burst));
        self.at = now;
        let may = self.left >= 1.0;
        if may {
            self.left -= 1.0;
        }
        may
    }
}

#[derive(Debug)]
pub(super) struct Strangers {
    kept: BTreeMap<Flow, Kept>,
    due: BTreeSet<(Instant, Flow)>,
    all: Bucket,
    prefixes: BTreeMap<u128, Bucket>,
}

impl Strangers {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            kept: BTreeMap::new(),
            due: BTreeSet::new(),
            all: Bucket {
                left: f64::from(ASKS),
                at: now,
            },
            prefixes: BTreeMap::new(),
        }
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Whether a packet of this flow is kept.
    pub(super) fn has(&self, flow: &Flow) -> bool {
        self.kept.contains_key(flow)
    }

    pub(super) fn forget(&mut self, flow: &Flow) -> Option<Box<[u8]>> {
        let kept = self.kept.remove(flow)?;
        self.due.remove(&(kept.due, *flow));
        Some(kept.datagram)
    }

    /// What came before this moment is of another transfer than the one that began then.
    pub(super) fn forget_before(&mut self, flow: &Flow, made: Instant) {
        if self.kept.get(flow).is_some_and(|kept| kept.at < made) {
            self.forget(flow);
        }
    }

    /// Whether a question about this flow is within the limits.
    fn may_ask(&mut self, now: Instant, flow: &Flow) -> bool {
        let prefix = match flow.remote.ip() {
            IpAddr::V4(v4) => u128::from(u32::from(v4) >> 8),
            IpAddr::V6(v6) => u128::from(v6) >> 72 | 1 << 127,
        };
        if self.prefixes.len() >= MAX_PREFIXES {
            let full = Duration::from_secs(u64::from(ASKS_OF_PREFIX / ASKS_OF_PREFIX_RATE) + 1);
            self.prefixes
                .retain(|_, bucket| now.saturating_duration_since(bucket.at) < full);
            if self.prefixes.len() >= MAX_PREFIXES {
                return false;
            }
        }
        let bucket = self.prefixes.entry(prefix).or_insert(Bucket {
            left: f64::from(ASKS_OF_PREFIX),
            at: now,
        });
        bucket.take(now, ASKS_OF_PREFIX, ASKS_OF_PREFIX_RATE) && self.all.take(now, ASKS, ASKS_RATE)
    }
}

impl State {
    /// Whether no other node that is to know of a transfer can be reached.
    fn is_left(&self, entry: &Entry) -> bool {
        let mut others = entry.directory.iter().chain([&entry.tenure.owner]);
        !others.any(|id| *id != self.nodes.me && self.nodes.is_up(*id))
    }
}

impl State {
    /// Whether this node may speak for a transfer now: what it knows of it is certain enough.
    pub(super) fn is_allowed(&self, now: Instant, entry: &Entry) -> bool {
        let me = self.nodes.me;
        let is_holder = entry.tenure.owner == me || entry.directory.contains(&me);
        // Where nobody could allow it, nobody can forbid it.
        let is_left = self.is_left(entry);
        let is_leased = is_holder || is_left || entry.lease.is_some_and(|until| now < until);
        let is_certain = !entry.record.wraps() || entry.own.is_some() || now < entry.trust;
        entry.is_confirmed && is_leased && is_certain
    }
}

impl Node {
    /// A packet of a flow that has no session here.
    pub(super) fn stranger(&mut self, now: Instant, flow: Flow, datagram: &[u8]) {
        let Some(state) = &mut self.shared else {
            return;
        };
        let Some(entry) = state.entries.get(&flow) else {
            return self.keep(now, flow, datagram);
        };
        if !entry.is_live() {
            // Who is no holder hears of an end, and not of what the client began after it.
            if !entry.directory.contains(&state.nodes.me) {
                self.keep(now, flow, datagram);
            }
            return;
        }
        if entry.record.content.is_none() {
            return self.pass_on(now, flow, datagram);
        }
        if entry.own.as_ref().is_some_and(|own| own.held.is_some()) {
            // Nothing has been sent yet.
            return;
        }
        let Ok(packet) = Packet::parse(datagram) else {
            return;
        };
        match packet {
            Packet::Error { .. } if entry.follows && entry.is_young(now) => {
                // It is of the transfer before: of this one the client has acknowledged nothing.
                self.server.stats_mut().strays += 1;
            }
            Packet::Error { code, message } => {
                let text = String::from_utf8_lossy(message);
                tracing::debug!(client = %flow.remote, %code, ?text, "ended by the client");
                self.over(now, &flow);
            }
            Packet::Ack { block } => {
                if self.may_answer(now, &flow) {
                    self.answer(now, flow, block, datagram);
                } else {
                    self.keep(now, flow, datagram);
                }
            }
            Packet::ReadRequest(_)
            | Packet::WriteRequest(_)
            | Packet::Data { .. }
            | Packet::OptionAck(_) => self.server.stats_mut().strays += 1,
        }
    }

    /// Whether this node may answer for a transfer now: what it knows of it is certain enough, and
    /// the content is here.
    pub(super) fn may_answer(&mut self, now: Instant, flow: &Flow) -> bool {
        let Some(state) = &mut self.shared else {
            return false;
        };
        let Some(entry) = state.entries.get(flow).filter(|entry| entry.is_live()) else {
            return false;
        };
        let is_allowed = state.is_allowed(now, entry);
        let content = entry.record.content;
        match content.filter(|_| is_allowed) {
            Some(content) => state.content(now, &content).is_some(),
            None => false,
        }
    }

    /// Whether what a session knows is enough to take a packet: an ACK far beyond that is looked at
    /// together with what other nodes know.
    pub(super) fn is_certain(&mut self, now: Instant, flow: &Flow, packet: &Packet<'_>) -> bool {
        match packet {
            Packet::Ack { block } => self.server.is_plausible(now, flow, *block),
            Packet::ReadRequest(_)
            | Packet::WriteRequest(_)
            | Packet::Data { .. }
            | Packet::Error { .. }
            | Packet::OptionAck(_) => true,
        }
    }

    /// Whether every node that may have answered the client can be asked: none went away lately.
    fn others_know(&self, now: Instant) -> bool {
        let peers = self
            .shared
            .iter()
            .flat_map(|state| state.nodes.peers.values());
        let mut gone = peers
            .filter(|peer| !peer.is_up)
            .filter_map(|peer| peer.since);
        !gone.any(|at| now.saturating_duration_since(at) <= GONE)
    }

    /// Answers an ACK from the record.
    fn answer(&mut self, now: Instant, flow: Flow, wire: u16, datagram: &[u8]) {
        let Some(entry) = self.shared.as_ref().and_then(|s| s.entries.get(&flow)) else {
            return;
        };
        if now < entry.held_until && self.others_know(now) {
            // It may be of the transfer before.
            return self.keep(now, flow, datagram);
        }
        let Some(entry) = self.shared.as_ref().and_then(|s| s.entries.get(&flow)) else {
            return;
        };
        let is_late = now.saturating_duration_since(entry.heard) >= MIN_RTO;
        if entry.is_behind(wire) {
            return self.fell_behind(now, flow, wire);
        }
        let Some(block) = entry.resolve(wire) else {
            self.server.stats_mut().ambiguous += 1;
            return;
        };
        if !entry.is_plausible(now, block) && self.others_know(now) {
            return self.keep(now, flow, datagram);
        }
        let greets = block == 0 && !entry.is_greeted && !entry.record.oack.is_empty();
        let is_known = block == entry.acked && !greets;
        // Somebody has answered it; a client that did not get that waits before it repeats.
        if is_known && !is_late {
            self.server.stats_mut().duplicates += 1;
            return;
        }
        if is_known {
            return self.answer_again(now, flow, block);
        }
        if !self.adopt(now, &flow, false) {
            return;
        }
        self.server.set_report(&flow, 0, now);
        if let Ok(packet) = Packet::parse(datagram) {
            self.server.handle_packet(now, flow, datagram, packet);
        }
    }

    /// A client acknowledges less than is known. It may have heard an old block, and says so: then
    /// it lacks what follows what is known. A client that says the same again after a while is where
    /// it says it is; what was known is not true of it.
    pub(super) fn fell_behind(&mut self, now: Instant, flow: Flow, wire: u16) {
        let progress = self.server.progress(&flow);
        let Some(entry) = self.shared.as_mut().and_then(|s| s.entries.get_mut(&flow)) else {
            return;
        };
        let (known, heard) = progress.map_or((entry.acked, entry.heard), |(acked, _, heard)| {
            (acked, heard.min(entry.heard))
        });
        let rollover = entry.record.rollover;
        let back = rollover
            .ahead(u64::from(wire), rollover.wire(known))
            .unwrap_or(0);
        if back == 0 || back > AHEAD.min(known) {
            return;
        }
        let first = entry
            .behind
            .filter(|(number, _)| *number == wire)
            .map(|(_, at)| at);
        let since = first.map(|at| now.saturating_duration_since(at));
        match since {
            Some(since) if since < BEHIND_AFTER => {}
            Some(_) => {
                entry.behind = None;
                tracing::debug!(client = %flow.remote, known, back, "a client is not where it was thought to be");
                if self.adopt(now, &flow, false) {
                    self.server.fall_back(now, &flow, known - back);
                }
            }
            None => {
                entry.behind = Some((wire, now));
                if now.saturating_duration_since(heard) >= MIN_RTO {
                    self.answer_again(now, flow, known);
                }
            }
        }
    }

    /// Sends what follows the last ACK once more: what was sent has not arrived.
    fn answer_again(&mut self, now: Instant, flow: Flow, block: u64) {
        if !self.adopt(now, &flow, false) {
            return;
        }
        self.server.repeat(&flow);
        if let Some(entry) = self.shared.as_mut().and_then(|s| s.entries.get_mut(&flow)) {
            entry.heard = now;
        }
        self.acked(now, flow, block);
    }

    /// Makes a session of a record.
    pub(super) fn adopt(&mut self, now: Instant, flow: &Flow, as_heir: bool) -> bool {
        let role = if as_heir {
            crate::proto::session::Role::Heir
        } else {
            self.role(flow)
        };
        let Some(state) = &mut self.shared else {
            return false;
        };
        let Some(entry) = state.entries.get_mut(flow) else {
            return false;
        };
        if self.server.has(flow) {
            self.server
                .handle_progress(now, flow, entry.acked, entry.is_greeted);
            self.bound_session(now, flow);
            return true;
        }
        let record = &entry.record;
        let Some(content) = record
            .content
            .and_then(|id| Some((id, state.contents.get(&id)?.clone())))
        else {
            return false;
        };
        let begun = Begun {
            request: record.request,
            name: record.name.clone(),
            content: Some(content),
            mode: record.mode,
            oack: record.oack.clone(),
            blksize: record.blksize,
            windowsize: record.windowsize,
            timeout: record.timeout,
            rollover: record.rollover,
        };
        let adopted = self.server.adopt(
            now,
            Adopt {
                flow: *flow,
                begun,
                acked: entry.acked,
                is_greeted: entry.is_greeted,
                role,
            },
        );
        entry.has_session |= adopted;
        if adopted {
            tracing::debug!(client = %flow.remote, file = %entry.record.name, acked = entry.acked, ?role, "going on with a transfer");
            self.server.set_report(flow, 0, now);
            self.bound_session(now, flow);
        }
        adopted
    }

    /// Until when and up to where a session may answer.
    pub(super) fn bound_session(&mut self, now: Instant, flow: &Flow) {
        let Some(state) = &self.shared else {
            return;
        };
        let Some(entry) = state.entries.get(flow) else {
            return;
        };
        let me = state.nodes.me;
        let is_holder = entry.tenure.owner == me || entry.directory.contains(&me);
        let is_left = state.is_left(entry);
        let lease = (!is_holder && !is_left).then(|| entry.lease.unwrap_or(now));
        let trust = (entry.record.wraps() && entry.own.is_none()).then_some(entry.trust);
        let until = [lease, trust, (!entry.is_confirmed).then_some(now)];
        let until = until.into_iter().flatten().min();
        let limit = entry
            .record
            .wraps()
            .then(|| entry.floor.saturating_add(AHEAD));
        self.server.set_until(now, flow, until);
        self.server.set_limit(flow, limit);
    }

    /// Keeps a packet while the others are asked.
    fn keep(&mut self, now: Instant, flow: Flow, datagram: &[u8]) {
        let Some(state) = &mut self.shared else {
            return;
        };
        if let Some(kept) = state.strangers.kept.get_mut(&flow) {
            if datagram.len() <= MAX_KEPT {
                kept.datagram = datagram.into();
                kept.at = now;
            }
            if now.saturating_duration_since(kept.asked_at) >= ASK_AGAIN {
                kept.asked_at = now;
                self.ask(now, &flow);
            }
            return;
        }
        let is_full = state.strangers.kept.len() >= MAX_HELD || datagram.len() > MAX_KEPT;
        if is_full || !state.strangers.may_ask(now, &flow) {
            self.server.stats_mut().not_asked += 1;
            return;
        }
        let asked = self.ask(now, &flow);
        let Some(state) = &mut self.shared else {
            return;
        };
        // What is known may only lack its content, which is being opened.
        if asked.is_empty() && !state.entries.contains_key(&flow) {
            self.server.stats_mut().held_in_vain += 1;
            return;
        }
        self.server.stats_mut().held += 1;
        let due = now + ASK_AGAIN;
        let kept = Kept {
            datagram: datagram.into(),
            at: now,
            until: now + HOLD,
            asked_at: now,
            due,
            asked,
        };
        state.strangers.kept.insert(flow, kept);
        state.strangers.due.insert((due, flow));
    }

    /// Asks whoever may know a flow; who that is.
    pub(super) fn ask(&mut self, now: Instant, flow: &Flow) -> BTreeSet<NodeId> {
        let Some(state) = &mut self.shared else {
            return BTreeSet::new();
        };
        let mut whom: BTreeSet<NodeId> = state.nodes.keepers(flow).into_iter().collect();
        if let Some(entry) = state.entries.get_mut(flow) {
            whom.insert(entry.tenure.owner);
            entry.asked = Some(now);
        }
        whom.remove(&state.nodes.me);
        whom.retain(|id| state.nodes.is_up(*id));
        if let Some(entry) = state.entries.get_mut(flow) {
            entry.unanswered.clone_from(&whom);
        }
        let live = state.entries.get(flow).filter(|entry| entry.is_live());
        let ask = Message::Ask {
            flow: *flow,
            stamp: state.stamp(now),
            has: live.map(|entry| entry.record.nonce),
        };
        for id in &whom {
            self.say(*id, &ask);
        }
        whom
    }

    /// A node that was asked does not know the flow: where none does, its packet is dropped.
    pub(super) fn is_unknown_to(&mut self, flow: &Flow, peer: NodeId) {
        let Some(state) = &mut self.shared else {
            return;
        };
        let Some(kept) = state.strangers.kept.get_mut(flow) else {
            return;
        };
        kept.asked.remove(&peer);
        if kept.asked.is_empty() && !state.entries.contains_key(flow) {
            state.strangers.forget(flow);
            self.server.stats_mut().held_in_vain += 1;
        }
    }

    /// More is known now: what is kept of a flow is looked at again.
    pub(super) fn retry_stranger(&mut self, now: Instant, flow: &Flow) {
        let Some(state) = &mut self.shared else {
            return;
        };
        let is_live = state.entries.get(flow).is_some_and(Entry::is_live);
        let is_answerable = is_live && self.may_answer(now, flow);
        let Some(state) = &mut self.shared else {
            return;
        };
        let is_write = state
            .entries
            .get(flow)
            .is_some_and(|entry| entry.record.content.is_none());
        if !is_live || is_answerable || is_write {
            let kept = state.strangers.kept.get(flow);
            let wire = kept.and_then(|kept| match Packet::parse(&kept.datagram) {
                Ok(Packet::Ack { block }) => Some(block),
                _ => None,
            });
            let block = state
                .entries
                .get(flow)
                .zip(wire)
                .and_then(|(entry, wire)| Some((entry, entry.resolve(wire)?)));
            let is_doubtful = block.is_some_and(|(entry, block)| {
                now < entry.held_until || !entry.is_plausible(now, block)
            });
            if is_doubtful && self.others_know(now) {
                return;
            }
            let Some(state) = &mut self.shared else {
                return;
            };
            let Some(datagram) = state.strangers.forget(flow) else {
                return;
            };
            let packet = Packet::parse(&datagram);
            let is_taken =
                packet.is_ok_and(|packet| self.server.handle_packet(now, *flow, &datagram, packet));
            if !is_taken {
                self.stranger(now, *flow, &datagram);
            }
        }
    }

    /// Packets that were kept long enough are dropped.
    pub(super) fn forget_strangers(&mut self, now: Instant) {
        let Some(mut state) = self.shared.as_mut() else {
            return;
        };
        while let Some((_, flow)) = state
            .strangers
            .due
            .first()
            .copied()
            .filter(|(at, _)| *at <= now)
        {
            state.strangers.due.pop_first();
            let Some(kept) = state.strangers.kept.get_mut(&flow) else {
                continue;
            };
            if now >= kept.until {
                state.strangers.kept.remove(&flow);
                self.server.stats_mut().held_in_vain += 1;
                continue;
            }
            // The question, or its answer, may have been lost.
            kept.asked_at = now;
            kept.due = kept.until.min(now + ASK_AGAIN);
            state.strangers.due.insert((kept.due, flow));
            self.ask(now, &flow);
            let Some(next) = &mut self.shared else {
                return;
            };
            state = next;
        }
    }
}
