//! Answers from a record: whether this node may give one, and what follows from an ACK.

use std::time::{Duration, Instant};

use super::{Entry, Node, State};
use crate::handoff::limits::AHEAD;
use crate::proto::Flow;
use crate::proto::packet::Packet;
use crate::proto::rtt::MIN_RTO;
use crate::proto::server::{Adopt, Begun};
use crate::proto::session::Role;

/// What a node that went away longer ago than this has answered, its client does not wait for.
const GONE: Duration = Duration::from_secs(60);
/// A client that acknowledges the same old block again after this is there.
const BEHIND_AFTER: Duration = Duration::from_millis(200);

impl State {
    /// Whether no other node that is to know of a transfer can be reached.
    fn is_left(&self, entry: &Entry) -> bool {
        let mut others = entry.directory.iter().chain([&entry.tenure.owner]);
        !others.any(|id| *id != self.nodes.me && self.nodes.is_up(*id))
    }

    /// Whether this node may let others answer: one that answers under a lease itself does not hear of
    /// the end, nor of what the client began after it.
    pub(super) fn may_lease(&self, entry: &Entry) -> bool {
        let me = self.nodes.me;
        let is_holder = entry.tenure.owner == me || entry.directory.contains(&me);
        // Where nobody could allow it, nobody can forbid it.
        is_holder || self.is_left(entry)
    }

    /// Whether this node may speak for a transfer now: what it knows of it is certain enough.
    pub(super) fn is_allowed(&self, now: Instant, entry: &Entry) -> bool {
        let is_leased = self.may_lease(entry) || entry.lease.is_some_and(|until| now < until);
        let is_certain = !entry.record.wraps() || entry.own.is_some() || now < entry.trust;
        entry.is_confirmed && is_leased && is_certain
    }
}

impl Node {
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

    /// Whether every node that may have answered the client in this transfer can be asked: none
    /// went away since that began, and lately.
    pub(super) fn others_know(&self, now: Instant, flow: &Flow) -> bool {
        let Some(state) = &self.shared else {
            return true;
        };
        let made = state.entries.get(flow).map(|entry| entry.made);
        let peers = state.nodes.peers.values();
        let mut gone = peers
            .filter(|peer| !peer.is_up)
            .filter_map(|peer| peer.since)
            .filter(|at| made.is_none_or(|made| *at >= made));
        !gone.any(|at| now.saturating_duration_since(at) <= GONE)
    }

    /// Answers an ACK from the record.
    pub(super) fn answer(&mut self, now: Instant, flow: Flow, wire: u16, datagram: &[u8]) {
        let Some(entry) = self.shared.as_ref().and_then(|s| s.entries.get(&flow)) else {
            return;
        };
        if now < entry.held_until && self.others_know(now, &flow) {
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
        if !entry.is_plausible(now, block) && self.others_know(now, &flow) {
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
        if let Some(state) = &mut self.shared {
            // The client said it before this.
            state.strangers.forget(&flow);
        }
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
        let role = if as_heir { Role::Heir } else { self.role(flow) };
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
        let lease = (!state.may_lease(entry)).then(|| entry.lease.unwrap_or(now));
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
}
