//! Writes go on where they began: packets that come elsewhere are passed on, in parts that fit a
//! message.

use std::collections::BTreeMap;
use std::time::Instant;

use super::Node;
use crate::handoff::limits::WRITE_LOST_AFTER;
use crate::handoff::record::NodeId;
use crate::handoff::wire::Message;
use crate::proto::Flow;

/// Bytes of a packet in one message.
const PART: usize = 1000;
/// Packets of one peer that are not whole yet; of more the oldest is dropped, as one that is lost.
const MAX_UNFINISHED: usize = 64;

#[derive(Debug)]
struct Unfinished {
    flow: Flow,
    parts: Vec<Option<Vec<u8>>>,
}

/// Packets of which parts have come.
#[derive(Debug, Default)]
pub(super) struct Parts {
    next: u32,
    unfinished: BTreeMap<(NodeId, u32), Unfinished>,
}

impl Node {
    /// A packet of a write that another node owns.
    pub(super) fn pass_on(&mut self, now: Instant, flow: Flow, datagram: &[u8]) {
        let Some(state) = &mut self.shared else {
            return;
        };
        let Some(entry) = state.entries.get(&flow) else {
            return;
        };
        let owner = entry.tenure.owner;
        if owner == state.nodes.me {
            self.server.stats_mut().strays += 1;
            return;
        }
        let Some(peer) = state.nodes.peers.get(&owner) else {
            return;
        };
        if !peer.is_up {
            let down = peer.since.map(|at| now.saturating_duration_since(at));
            if down.is_some_and(|down| down >= WRITE_LOST_AFTER) {
                tracing::info!(client = %flow.remote, file = %entry.record.name, node = %peer.name, "a write ends: its node is gone");
                self.server
                    .refuse_shared(flow, "the server that has the file is gone");
                self.over(now, &flow);
            }
            return;
        }
        let count = datagram.len().div_ceil(PART);
        let Ok(parts) = u8::try_from(count) else {
            return;
        };
        state.parts.next = state.parts.next.wrapping_add(1);
        let id = state.parts.next;
        for (part, bytes) in (0..parts).zip(datagram.chunks(PART)) {
            let forward = Message::Forward {
                flow,
                id,
                part,
                parts,
                bytes: bytes.to_vec(),
            };
            self.say(owner, &forward);
        }
    }

    /// Part of a packet that came to another node.
    pub(super) fn passed_on(
        &mut self,
        now: Instant,
        from: NodeId,
        flow: Flow,
        (id, part, parts): (u32, u8, u8),
        bytes: Vec<u8>,
    ) {
        let Some(state) = &mut self.shared else {
            return;
        };
        let is_ours = state
            .entries
            .get(&flow)
            .is_some_and(|entry| entry.is_live() && entry.own.is_some());
        if !is_ours || parts == 0 || part >= parts {
            return;
        }
        let key = (from, id);
        let all = &mut state.parts.unfinished;
        let mut of_peer = all.range((from, 0)..=(from, u32::MAX));
        let oldest = of_peer.next().map(|(key, _)| *key);
        if let Some(oldest) = oldest.filter(|_| of_peer.count() + 1 >= MAX_UNFINISHED) {
            all.remove(&oldest);
        }
        let unfinished = all.entry(key).or_insert_with(|| Unfinished {
            flow,
            parts: vec![None; parts.into()],
        });
        if unfinished.flow != flow || unfinished.parts.len() != usize::from(parts) {
            all.remove(&key);
            return;
        }
        if let Some(slot) = unfinished.parts.get_mut(usize::from(part)) {
            *slot = Some(bytes);
        }
        if unfinished.parts.iter().any(Option::is_none) {
            return;
        }
        let whole = all.remove(&key).map(|whole| whole.parts);
        let datagram: Vec<u8> = whole.into_iter().flatten().flatten().flatten().collect();
        // A request is for the node that it comes to.
        if matches!(datagram.get(..2), Some([0, 3..=5]))
            && let Some(packet) = self.server.parse(flow, &datagram)
        {
            self.server.handle_packet(now, flow, &datagram, packet);
        }
    }
}
