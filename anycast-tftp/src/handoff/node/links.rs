//! The peers: which of them are there, what they are, and how things are said to them.

use std::time::{Duration, Instant};

use super::Node;
use crate::handoff::entry::Holder;
use crate::handoff::limits::{self, MAX_MESSAGE};
use crate::handoff::record::NodeId;
use crate::handoff::wire::{LEAST_VERSION, Message, common};
use crate::proto::Flow;

/// How often peers hear what this node is.
const HELLO_EVERY: Duration = Duration::from_secs(1);

impl Node {
    /// A peer can be reached, or no more.
    pub(super) fn peer_changed(&mut self, now: Instant, id: NodeId, is_up: bool) {
        let Some(state) = &mut self.shared else {
            return;
        };
        let Some(peer) = state.nodes.peers.get_mut(&id) else {
            return;
        };
        if peer.is_linked == is_up {
            return;
        }
        peer.is_linked = is_up;
        // What comes back may be another process.
        peer.speaks = None;
        state.outbox.remove(&id);
        if is_up {
            state.next_hello = now;
            self.greet(now);
        } else {
            self.takes_part(now, id, false);
        }
    }

    /// A peer takes part, or does no more.
    fn takes_part(&mut self, now: Instant, id: NodeId, is_up: bool) {
        let Some(state) = &mut self.shared else {
            return;
        };
        let Some(peer) = state.nodes.peers.get_mut(&id) else {
            return;
        };
        if peer.is_up == is_up {
            return;
        }
        peer.is_up = is_up;
        peer.since = Some(now);
        peer.is_draining = false;
        let is_alone = state.nodes.up().next().is_none();
        self.server.set_alone(is_alone);
        let flows: Vec<Flow> = state.entries.keys().copied().collect();
        for flow in flows {
            self.keep_elsewhere(now, &flow);
            if let Some(entry) = self.shared.as_mut().and_then(|s| s.entries.get_mut(&flow))
                && let Some(holder) = entry.own.as_mut().and_then(|own| own.holders.get_mut(&id))
                && is_up
            {
                // What it kept it may have lost.
                holder.is_kept = false;
                holder.tries = 0;
                holder.next_put = now;
            }
            let entry = self.shared.as_mut().and_then(|s| s.entries.get_mut(&flow));
            let Some(entry) = entry.filter(|_| is_up) else {
                self.tick(now, &flow);
                continue;
            };
            // What is not confirmed it is asked about at once.
            entry.asked = entry.asked.filter(|_| entry.is_confirmed);
            if entry.is_live() && entry.tenure.owner == id {
                // If it has begun anew, it says so; until then it may know nothing.
                entry.answering.notices = 0;
                entry.answering.owner_knows = (0, false);
                self.notice(now, &flow);
            }
            self.tick(now, &flow);
        }
    }

    /// Where the directory is gone, others keep the record.
    fn keep_elsewhere(&mut self, now: Instant, flow: &Flow) {
        let Some(state) = &mut self.shared else {
            return;
        };
        let me = state.nodes.me;
        let keepers = state.nodes.keepers(flow);
        let Some(entry) = state.entries.get_mut(flow) else {
            return;
        };
        let acked = entry.floor;
        if let Some(own) = &mut entry.own {
            for id in keepers.into_iter().filter(|id| *id != me) {
                own.holders
                    .entry(id)
                    .or_insert_with(|| Holder::new(now, acked));
            }
        }
    }

    /// A peer says which version it speaks: so is it spoken to from now on.
    pub(super) fn learn_version(&mut self, from: NodeId, speaks: u8) {
        let Some(state) = &mut self.shared else {
            return;
        };
        let own = state.speaks;
        if let Some(peer) = state.nodes.peers.get_mut(&from)
            && peer.is_linked
            && peer.speaks.replace(speaks) != Some(speaks)
        {
            let version = common(own, peer.speaks);
            tracing::info!(peer = %peer.name, speaks, version, "a peer hands transfers on");
        }
    }

    pub(super) fn greeted(
        &mut self,
        now: Instant,
        from: NodeId,
        domain: u64,
        mtu: u32,
        (is_draining, age): (bool, Option<u64>),
    ) {
        let Some(state) = &mut self.shared else {
            return;
        };
        let Some(peer) = state.nodes.peers.get_mut(&from) else {
            return;
        };
        // A link that is down has late messages at most.
        if !peer.is_linked {
            return;
        }
        let is_first = !peer.is_up;
        peer.said_at = Some(now);
        if let Some(age) = age {
            let began = now.checked_sub(Duration::from_millis(age));
            peer.may_have_forgotten &= began.is_some_and(|began| began > state.stopped_at);
        }
        peer.is_draining = is_draining;
        let is_moved = std::mem::replace(&mut peer.domain, domain) != domain;
        let is_new = std::mem::replace(&mut peer.mtu, mtu) != mtu;
        if is_new {
            self.agree_on_mtu();
        }
        if is_first {
            // It answers nobody who has not said what it is.
            if let Some(state) = &mut self.shared {
                state.next_hello = now;
            }
            self.greet(now);
            self.takes_part(now, from, true);
        }
        let Some(state) = &mut self.shared else {
            return;
        };
        if is_moved && state.nodes.peers.len() > 2 {
            let flows: Vec<Flow> = state.entries.keys().copied().collect();
            for flow in flows {
                let directory = state.nodes.directory(&flow);
                if let Some(entry) = state.entries.get_mut(&flow) {
                    entry.directory = directory;
                }
                state.schedule(now, &flow);
            }
        }
    }

    /// A client may come to any node, so blocks must fit everywhere.
    pub(super) fn agree_on_mtu(&mut self) {
        let Some(state) = &self.shared else {
            return;
        };
        let mine = state.settings.mtu();
        let least = state.nodes.peers.values().map(|peer| peer.mtu).min();
        let mtu = least.unwrap_or(mine).min(mine);
        let settings = state.settings.clone().with_mtu(mtu);
        if let Err(error) = self.server.handle_settings(settings) {
            tracing::warn!(%error, "what a peer says of its packets is not heeded");
        }
    }

    /// Tells the peers what this node is.
    pub(super) fn greet(&mut self, now: Instant) {
        let Some(state) = &mut self.shared else {
            return;
        };
        if now < state.next_hello {
            return;
        }
        state.next_hello = now + HELLO_EVERY;
        let hello = Message::Hello {
            domain: state.nodes.domain,
            mtu: state.settings.mtu(),
            is_draining: state.is_draining,
            speaks: state.speaks,
            age: Some(state.stamp(now)),
        };
        let linked = state.nodes.peers.iter().filter(|(_, peer)| peer.is_linked);
        for id in linked.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.say(id, &hello);
        }
    }

    /// Says something to a peer, if it can be reached.
    pub(super) fn say(&mut self, to: NodeId, message: &Message) {
        let Some(state) = &mut self.shared else {
            return;
        };
        let Some(peer) = state.nodes.peers.get(&to) else {
            return;
        };
        let is_hello = matches!(message, Message::Hello { .. });
        if !(peer.is_up || (is_hello && peer.is_linked)) {
            return;
        }
        let version = if is_hello {
            LEAST_VERSION
        } else {
            common(state.speaks, peer.speaks)
        };
        self.server.stats_mut().messages_sent += 1;
        let bytes = message.encode(version);
        let waiting = state.outbox.entry(to).or_default();
        match waiting.back_mut() {
            Some(last)
                if last.first() == Some(&version) && last.len() + bytes.len() <= MAX_MESSAGE =>
            {
                last.extend(bytes);
            }
            _ => {
                let mut datagram = Vec::with_capacity(1 + bytes.len());
                datagram.push(version);
                datagram.extend(bytes);
                waiting.push_back(datagram);
            }
        }
        while waiting.len() > limits::OUTBOX {
            waiting.pop_front();
        }
    }
}
