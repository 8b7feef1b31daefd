//! What other nodes say.

use std::time::{Duration, Instant};

use super::Node;
use crate::handoff::entry::Holder;
use crate::handoff::limits::{HINT_MARGIN, LEASE};
use crate::handoff::record::NodeId;
use crate::handoff::wire::{Hint, Message, Standing, messages};
use crate::proto::Flow;

impl Node {
    /// A datagram of a peer.
    pub(super) fn take_message(&mut self, now: Instant, from: NodeId, datagram: &[u8]) {
        let Some(state) = &self.shared else {
            return;
        };
        if state.deaf_until.is_some_and(|until| now < until) {
            // It came while this node did not run; what matters is said again.
            return;
        }
        if !state.nodes.peers.contains_key(&from) {
            self.server.stats_mut().messages_refused += 1;
            return;
        }
        for message in messages(datagram, state.speaks) {
            self.server.stats_mut().messages_received += 1;
            match message {
                Ok(message) => self.heed(now, from, message),
                Err(error) => {
                    self.server.stats_mut().messages_refused += 1;
                    tracing::debug!(%error, "a message of a peer is not understood");
                }
            }
        }
    }

    fn heed(&mut self, now: Instant, from: NodeId, message: Message) {
        match message {
            Message::Hello {
                domain,
                mtu,
                is_draining,
                speaks,
                age,
            } => {
                self.learn_version(from, speaks);
                self.greeted(now, from, domain, mtu, (is_draining, age));
            }
            Message::Put(standing) => self.put(now, from, *standing),
            Message::Kept {
                flow,
                nonce,
                has_content,
                older,
                wait,
                stamp,
            } => self.kept(now, from, &flow, nonce, (has_content, older, wait, stamp)),
            Message::Refused {
                nonce,
                is_over,
                standing,
            } => self.refused(now, from, nonce, is_over, *standing),
            Message::Hint(hint) => self.hinted(now, from, &hint),
            Message::Known {
                flow,
                nonce,
                acked,
                stamp,
            } => self.known_by(now, from, &flow, nonce, acked, stamp),
            Message::Notice {
                flow,
                nonce,
                acked,
                is_greeted,
                silence,
            } => self.noticed(now, from, &flow, nonce, (acked, is_greeted, silence)),
            Message::Ask { flow, stamp, has } => self.asked(now, from, flow, stamp, has),
            Message::Unknown { flow } => self.unknown(now, from, &flow),
            Message::End { flow, nonce } => self.end(now, from, &flow, nonce),
            Message::Ended { flow, nonce } => self.ended(now, from, &flow, nonce),
            Message::Forward {
                flow,
                id,
                part,
                parts,
                bytes,
            } => self.passed_on(now, from, flow, (id, part, parts), bytes),
            Message::Stands { flow, nonce, view } => self.stands(now, from, &flow, nonce, &view),
        }
    }

    fn kept(
        &mut self,
        now: Instant,
        from: NodeId,
        flow: &Flow,
        nonce: u64,
        (has_content, older, wait, stamp): (bool, Option<NodeId>, Duration, u64),
    ) {
        let Some(state) = &mut self.shared else {
            return;
        };
        let me = state.nodes.me;
        let older = older.filter(|id| *id != me && state.nodes.peers.contains_key(id));
        let is_over = state.ends.contains(nonce);
        let Some(entry) = state.entries.get_mut(flow) else {
            return;
        };
        if entry.record.nonce != nonce || !entry.is_live() {
            if is_over || entry.record.nonce == nonce {
                self.say_end(from, flow, nonce);
            }
            return;
        }
        let acked = entry.acked;
        let Some(own) = &mut entry.own else {
            return;
        };
        let wraps = entry.record.wraps();
        let holder = own.holders.get_mut(&from);
        let is_new = holder.as_ref().is_some_and(|holder| !holder.is_kept);
        if let Some(holder) = holder {
            holder.is_kept = true;
            holder.has_content = has_content;
            holder.echo = holder.echo.max(stamp);
            holder.since = now;
        }
        if let Some(held) = &mut own.held {
            held.revoking.remove(&from);
            if !wait.is_zero() {
                held.lease_until = held.lease_until.max(Some(now + wait.min(LEASE)));
                entry.granted = entry.granted.max(held.lease_until);
            }
        }
        if let Some(older) = older
            && !own.holders.contains_key(&older)
        {
            // It is to know that its transfer is over.
            own.holders.insert(older, Holder::new(now, acked));
            if let Some(held) = &mut own.held {
                held.revoking.insert(older);
            }
        }
        if wraps && is_new {
            self.hint_to(now, flow, from);
        }
        self.tick(now, flow);
    }

    fn hinted(&mut self, now: Instant, from: NodeId, hint: &Hint) {
        let Hint {
            flow,
            nonce,
            progress,
            echo,
        } = hint;
        let Some(state) = &mut self.shared else {
            return;
        };
        let at = state.moment(now, *echo);
        let stamp = state.stamp(now);
        match state.entries.get_mut(flow) {
            Some(entry) if entry.record.nonce == *nonce && entry.is_live() => {}
            Some(entry) if entry.record.nonce == *nonce => return self.say_end(from, flow, *nonce),
            Some(_) | None => {
                let (flow, has) = (*flow, None);
                return self.say(from, &Message::Ask { flow, stamp, has });
            }
        }
        self.progressed(now, flow, from, progress);
        let Some(entry) = self.shared.as_mut().and_then(|s| s.entries.get_mut(flow)) else {
            return;
        };
        if progress.tenure.owner == from {
            entry.held_until = entry.held_until.min(now);
        }
        if entry.record.wraps() && entry.own.is_none() {
            if let Some(at) = at {
                entry.trust_since(at);
            }
            entry.trust_pace(now);
            let known = Message::Known {
                flow: *flow,
                nonce: *nonce,
                acked: entry.acked,
                stamp,
            };
            self.say(from, &known);
        }
        self.confirmed(now, flow);
        self.tell_owner_news(now, flow);
        self.bound_session(now, flow);
        let state = self.shared.as_ref();
        let is_doubtful = state.is_some_and(|state| {
            state.strangers.has(flow) && state.entries.get(flow).is_some_and(|entry| entry.follows)
        });
        if is_doubtful {
            // Only an answer tells which came first, what the client said here or what it said there.
            self.ask(now, flow);
        } else {
            self.retry_stranger(now, flow);
        }
        if let Some(state) = &mut self.shared {
            state.schedule(now, flow);
        }
    }

    fn known_by(
        &mut self,
        now: Instant,
        from: NodeId,
        flow: &Flow,
        nonce: u64,
        acked: u64,
        stamp: u64,
    ) {
        let Some(entry) = self.shared.as_mut().and_then(|s| s.entries.get_mut(flow)) else {
            return;
        };
        if entry.record.nonce != nonce {
            return;
        }
        let most = entry.acked;
        if let Some(own) = &mut entry.own
            && let Some(holder) = own.holders.get_mut(&from)
        {
            holder.acked = holder.acked.max(acked.min(most));
            holder.echo = holder.echo.max(stamp);
            holder.since = now;
            self.bound_owner(now, flow);
        }
    }

    fn noticed(
        &mut self,
        now: Instant,
        from: NodeId,
        flow: &Flow,
        nonce: u64,
        (acked, is_greeted, silence): (u64, bool, Duration),
    ) {
        let Some(entry) = self.shared.as_ref().and_then(|s| s.entries.get(flow)) else {
            return self.say(from, &Message::Unknown { flow: *flow });
        };
        if entry.record.nonce != nonce {
            let answer = if entry.is_live() {
                Message::Put(Box::new(entry.standing(now)))
            } else {
                Message::Unknown { flow: *flow }
            };
            let state = self.shared.as_ref();
            if state.is_some_and(|state| state.ends.contains(nonce)) {
                self.say_end(from, flow, nonce);
            }
            return self.say(from, &answer);
        }
        if !entry.is_live() {
            return self.say_end(from, flow, nonce);
        }
        if entry.own.is_none() {
            let is_orphan = self
                .shared
                .as_ref()
                .is_some_and(|state| entry.tenure.owner == state.nodes.me);
            let answer = if is_orphan {
                Message::Unknown { flow: *flow }
            } else {
                Message::Put(Box::new(entry.standing(now)))
            };
            return self.say(from, &answer);
        }
        if !entry.is_confirmed {
            let standing = Message::Put(Box::new(entry.standing(now)));
            return self.say(from, &standing);
        }
        self.learn(now, flow, acked, is_greeted, silence);
        self.hint_to(now, flow, from);
        self.tick(now, flow);
    }

    fn asked(&mut self, now: Instant, from: NodeId, flow: Flow, stamp: u64, has: Option<u64>) {
        let Some(state) = &mut self.shared else {
            return;
        };
        let Some(entry) = state.entries.get(&flow) else {
            return self.say(from, &Message::Unknown { flow });
        };
        let may_lease = state.may_lease(entry);
        let Some(entry) = state.entries.get_mut(&flow) else {
            return;
        };
        let nonce = entry.record.nonce;
        if !entry.is_live() {
            return self.say_end(from, &flow, nonce);
        }
        let progress = self.server.progress(&flow).filter(|_| entry.own.is_some());
        if let Some((acked, is_greeted, heard)) = progress {
            entry.learn(now, acked, is_greeted);
            entry.heard = entry.heard.max(heard);
        }
        let mut view = entry.view(now);
        view.echo = stamp;
        // In a transfer that wraps only its owner knows enough.
        if may_lease && entry.is_confirmed && (entry.own.is_some() || !entry.record.wraps()) {
            view.lease = LEASE;
            let until = now + LEASE + HINT_MARGIN;
            if !entry.directory.contains(&from) {
                entry.granted = entry.granted.max(Some(until));
            }
            let acked = entry.acked;
            if let Some(own) = &mut entry.own {
                own.guests.insert(from, (acked, until));
            }
        }
        // Whoever says what it has reads this as well.
        let answer = if has == Some(nonce) {
            Message::Stands { flow, nonce, view }
        } else {
            let record = entry.record.clone();
            Message::Put(Box::new(Standing { record, view }))
        };
        self.say(from, &answer);
    }

    /// A transfer has ended, whatever the peer thinks.
    pub(super) fn say_end(&mut self, to: NodeId, flow: &Flow, nonce: u64) {
        let flow = *flow;
        self.say(to, &Message::End { flow, nonce });
    }

    fn unknown(&mut self, now: Instant, from: NodeId, flow: &Flow) {
        self.is_unknown_to(flow, from);
        let Some(state) = &mut self.shared else {
            return;
        };
        let Some(entry) = state.entries.get_mut(flow) else {
            return;
        };
        if !entry.is_live() {
            return;
        }
        if entry.tenure.owner == from && entry.own.is_none() && entry.record.content.is_some() {
            // It has begun anew.
            let keepers = state.nodes.keepers(flow);
            let mut others = keepers.iter().filter(|id| **id != from);
            let is_heir = others.find(|id| state.nodes.is_up(**id)) == Some(&state.nodes.me);
            if !entry.is_confirmed {
                // It is asked about first.
            } else if self.server.has(flow) {
                self.take_over(now, flow, crate::proto::session::Role::Owner);
            } else if is_heir {
                self.inherit(now, flow);
            }
        } else if let Some(holder) = entry
            .own
            .as_mut()
            .and_then(|own| own.holders.get_mut(&from))
        {
            holder.is_kept = false;
            holder.next_put = now;
            holder.tries = 0;
            self.tick(now, flow);
        }
        // It has forgotten the transfer, and with it whatever might have come after it.
        self.does_not_know(now, from, flow);
    }

    fn end(&mut self, now: Instant, from: NodeId, flow: &Flow, nonce: u64) {
        self.say(from, &Message::Ended { flow: *flow, nonce });
        let Some(state) = &mut self.shared else {
            return;
        };
        state.ends.insert(now, nonce);
        if let Some(entry) = state.entries.get_mut(flow)
            && entry.record.nonce == nonce
        {
            let is_live = entry.is_live();
            if entry.has_just_repeated(now).is_some() {
                return self.renew(now, from, flow, 0);
            }
            if is_live {
                self.over(now, flow);
            }
            self.ended(now, from, flow, nonce);
        }
    }

    fn ended(&mut self, now: Instant, from: NodeId, flow: &Flow, nonce: u64) {
        let Some(state) = &mut self.shared else {
            return;
        };
        if let Some(entry) = state.entries.get_mut(flow) {
            if entry.record.nonce == nonce {
                if let Some(over) = &mut entry.over {
                    over.untold.remove(&from);
                }
            } else if let Some(held) = entry.own.as_mut().and_then(|own| own.held.as_mut()) {
                // The end of the transfer before.
                held.revoking.remove(&from);
            }
        }
        self.tick(now, flow);
    }
}
