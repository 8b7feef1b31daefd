//! Packets of flows that have no session here: kept for a moment while others are asked.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::{Entry, Node, State};
use crate::handoff::limits::{
    ASKS, ASKS_OF_PREFIX, ASKS_OF_PREFIX_RATE, ASKS_RATE, HOLD, MAX_HELD,
};
use crate::handoff::record::NodeId;
use crate::handoff::wire::Message;
use crate::proto::Flow;
use crate::proto::packet::Packet;

/// Longest packet that is kept: those that are not blocks of writes are short.
const MAX_KEPT: usize = 2048;
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
    /// A client that was heard elsewhere at that moment, or later, had so many blocks then. An ACK of
    /// more, which came here before, is of the transfer before, if there was one.
    pub(super) fn forget_overtaken(&mut self, flow: &Flow, heard: Option<Instant>, acked: u64) {
        let Some((kept, entry)) = self.strangers.kept.get(flow).zip(self.entries.get(flow)) else {
            return;
        };
        let came_before = entry.follows && heard.is_some_and(|heard| kept.at < heard);
        let Ok(Packet::Ack { block }) = Packet::parse(&kept.datagram) else {
            return;
        };
        if came_before && entry.resolve(block).is_some_and(|block| block > acked) {
            self.strangers.forget(flow);
        }
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

    /// Keeps a packet while the others are asked.
    pub(super) fn keep(&mut self, now: Instant, flow: Flow, datagram: &[u8]) {
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
            if !entry.is_confirmed {
                whom.extend(&entry.unanswered);
            }
        }
        whom.remove(&state.nodes.me);
        whom.retain(|id| state.nodes.is_up(*id));
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
            if is_doubtful && self.others_know(now, flow) {
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
