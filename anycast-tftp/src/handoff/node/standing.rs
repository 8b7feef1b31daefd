//! Records that come from other nodes: which of two transfers of a flow stands, and who owns it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::Node;
use crate::handoff::entry::{Entry, Holder, Older};
use crate::handoff::limits::{LEASE, REVOKE_WAIT};
use crate::handoff::record::{NodeId, Tenure};
use crate::handoff::wire::{Message, Progress, Standing, View};
use crate::proto::Flow;
use crate::proto::server::REPEAT_GRACE;
use crate::proto::session::Role;

/// A node that did not run asks again after this, and less often the longer its client is silent.
const ASK_AGAIN: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));
/// Of two transfers of a flow whose owners insist the one with the higher number stays, after each
/// has raised its order so often.
const MAX_RAISES: u8 = 3;
/// What one node says of a client another one hears so much later, beside two round trips, where
/// processors are busy.
const HEARD_LATE: Duration = Duration::from_millis(50);
/// So much longer silent is a transfer that the client has left for another one.
const LEFT_FOR: Duration = Duration::from_secs(1);

impl Node {
    /// A record, from its owner or from one that was asked.
    pub(super) fn put(&mut self, now: Instant, from: NodeId, standing: Standing) {
        let Some(state) = &mut self.shared else {
            return;
        };
        let flow = standing.record.flow;
        let owner = standing.view.progress.tenure.owner;
        let is_known = owner == state.nodes.me || state.nodes.peers.contains_key(&owner);
        if !is_known || flow.is_own_host() {
            self.server.stats_mut().messages_refused += 1;
            return;
        }
        if state.ends.contains(standing.record.nonce) {
            return self.say_end(from, &flow, standing.record.nonce);
        }
        let Some(entry) = state.entries.get(&flow) else {
            if standing.view.is_sure {
                return self.take_up(now, from, standing, None);
            }
            // Here it would be taken for certain.
            return self.is_unknown_to(&flow, from);
        };
        if entry.record.nonce == standing.record.nonce {
            if entry.is_live() {
                return self.merge(now, from, &flow, &standing.view);
            }
            return self.say_end(from, &flow, standing.record.nonce);
        }
        if !standing.view.is_sure {
            // It knows of one of the two, and this node of the other.
            if entry.is_confirmed && entry.is_live() {
                let put = Message::Put(Box::new(entry.standing(now)));
                self.say(from, &put);
            }
            return;
        }
        if entry.is_live() && !entry.is_confirmed {
            return self.supersede(now, from, standing);
        }
        let new = &standing.record;
        let old = &entry.record;
        // Who is no holder does not hear of what came after an end, or after its lease.
        let is_guest = entry.own.is_none() && !entry.directory.contains(&state.nodes.me);
        let is_leased = entry.lease.is_some_and(|until| now < until);
        let is_stale = is_guest && !(entry.is_live() && is_leased);
        let silence = now.saturating_duration_since(entry.heard);
        let is_active = entry.is_live() && (entry.is_young(now) || silence < REPEAT_GRACE);
        let is_same = old.request == new.request && is_active;
        // One that did not know of the other says it again with an order above.
        let is_above = is_stale
            || new.order > old.order
            || (is_same && new.order == old.order && new.nonce > old.nonce);
        // One request that came to two nodes, and this one has answered it already.
        let was_answered = is_same
            && new.order == old.order
            && entry.own.as_ref().is_some_and(|own| own.held.is_none())
            && !old.is_alike(new);
        if was_answered && standing.view.hold.is_zero() {
            // So has the other one, otherwise: the client begins anew.
            self.say_end(from, &flow, new.nonce);
            return self.over(now, &flow);
        }
        if was_answered || !is_above {
            // The client is in the transfer in which it was heard of later; of one request it may
            // be a double.
            let pause = if old.request == new.request {
                LEFT_FOR
            } else {
                Duration::ZERO
            };
            let is_over = !is_same
                && (!entry.is_live()
                    || silence > standing.view.progress.silence.saturating_add(pause));
            let refused = Message::Refused {
                nonce: new.nonce,
                is_over,
                standing: Box::new(entry.standing(now)),
            };
            return self.say(from, &refused);
        }
        let order = new.order;
        let is_here = |since| old.request != new.request && since < standing.view.progress.silence;
        if entry.has_just_repeated(now).is_some_and(is_here) {
            return self.renew(now, from, &flow, order);
        }
        self.supersede(now, from, standing);
    }

    /// Another transfer of the flow stands now.
    fn supersede(&mut self, now: Instant, from: NodeId, standing: Standing) {
        let flow = standing.record.flow;
        let Some(state) = &mut self.shared else {
            return;
        };
        let Some(old) = state.entries.get(&flow) else {
            return;
        };
        let was_live = old.is_live();
        // What was acknowledged in one says nothing of the other.
        let is_alike =
            was_live && old.record.is_alike(&standing.record) && old.acked == 0 && !old.is_greeted;
        let held = old.own.as_ref().is_some_and(|own| own.held.is_some());
        if is_alike && old.has_session && !held {
            // The client cannot tell the two apart.
            self.server.set_role(now, &flow, Role::Answering);
        } else {
            self.server.drop_shared(now, &flow);
        }
        let has_begun = self
            .server
            .progress(&flow)
            .is_some_and(|(acked, is_greeted, _)| acked > 0 || is_greeted);
        if has_begun {
            self.server.drop_shared(now, &flow);
        }
        let has_session = is_alike && self.server.has(&flow);
        let Some(state) = &mut self.shared else {
            return;
        };
        let older = state.remove(&flow);
        if was_live {
            state.strangers.forget(&flow);
        }
        self.take_up(now, from, standing, older);
        if let Some(entry) = self.shared.as_mut().and_then(|s| s.entries.get_mut(&flow)) {
            entry.has_session = has_session;
        }
        if has_session {
            self.bound_session(now, &flow);
            self.server.set_report(&flow, 0, now);
        }
    }

    /// A flow that is not known here gets its record.
    fn take_up(&mut self, now: Instant, from: NodeId, standing: Standing, older: Option<Entry>) {
        let Some(state) = &mut self.shared else {
            return;
        };
        let flow = standing.record.flow;
        let content = standing.record.content;
        let View { lease, echo, .. } = standing.view;
        let directory = state.nodes.directory(&flow);
        let mut entry = Entry::new(now, standing, directory, from);
        entry.follows = older.is_some();
        entry.granted = older.as_ref().and_then(|old| old.granted);
        entry.older = Older {
            owner: older.filter(Entry::is_live).map(|old| old.tenure.owner),
            until: entry.granted,
        };
        if let Some(until) = entry.granted {
            // As its owner will hear.
            entry.held_until = entry.held_until.max(until);
        }
        trust(state.moment(now, echo), lease, &mut entry);
        let made = entry.made;
        if !state.insert(flow, entry) {
            self.server.stats_mut().messages_refused += 1;
            return;
        }
        state.strangers.forget_before(&flow, made);
        state.pin(content, None);
        state.schedule(now, &flow);
        self.say_kept(now, &flow, from);
        self.retry_stranger(now, &flow);
    }

    /// Says that the record of a flow is kept here, and what it took the place of.
    pub(super) fn say_kept(&mut self, now: Instant, flow: &Flow, to: NodeId) {
        let Some(state) = &self.shared else {
            return;
        };
        let Some(entry) = state.entries.get(flow) else {
            return;
        };
        let content = entry.record.content;
        let until = entry.older.until.unwrap_or(now);
        let kept = Message::Kept {
            flow: *flow,
            nonce: entry.record.nonce,
            has_content: content.is_none_or(|content| state.contents.get(&content).is_some()),
            older: entry.older.owner.filter(|owner| *owner != to),
            wait: until.saturating_duration_since(now),
            stamp: state.stamp(now),
        };
        self.say(to, &kept);
    }

    /// A transfer that was asked about, of which the record is here.
    pub(super) fn stands(
        &mut self,
        now: Instant,
        from: NodeId,
        flow: &Flow,
        nonce: u64,
        view: &View,
    ) {
        let entry = self.shared.as_ref().and_then(|s| s.entries.get(flow));
        if entry.is_some_and(|entry| entry.is_live() && entry.record.nonce == nonce) {
            self.merge(now, from, flow, view);
        }
    }

    /// More of a transfer that is known.
    fn merge(&mut self, now: Instant, from: NodeId, flow: &Flow, view: &View) {
        if let Some(state) = &mut self.shared {
            let at = state.moment(now, view.echo);
            // At the earliest: it too may have heard of it from another node, a while later.
            let heard = at.and_then(|at| {
                let trips = now.saturating_duration_since(at).saturating_mul(2);
                let late = trips.saturating_add(HEARD_LATE);
                at.checked_sub(view.progress.silence.saturating_add(late))
            });
            state.forget_overtaken(flow, heard, view.progress.acked);
        }
        self.progressed(now, flow, from, &view.progress);
        let Some(state) = &mut self.shared else {
            return;
        };
        let at = state.moment(now, view.echo);
        let Some(entry) = state.entries.get_mut(flow) else {
            return;
        };
        if view.progress.tenure.owner == from {
            entry.held_until = entry.held_until.min(now + view.hold);
        }
        trust(at, view.lease, entry);
        let is_owner = entry.own.is_some();
        let was_asked_before = at.is_some_and(|at| at < state.paused_at);
        if view.is_sure && !was_asked_before {
            self.confirmed(now, flow);
        } else {
            self.does_not_know(now, from, flow);
        }
        if !is_owner && view.echo == 0 {
            self.say_kept(now, flow, from);
        }
        self.tell_owner_news(now, flow);
        self.bound_session(now, flow);
        self.retry_stranger(now, flow);
        self.tick(now, flow);
    }

    /// A node says how far a transfer is, and who owns it.
    pub(super) fn progressed(
        &mut self,
        now: Instant,
        flow: &Flow,
        from: NodeId,
        progress: &Progress,
    ) {
        let Progress {
            tenure,
            acked,
            is_greeted,
            silence,
            ..
        } = *progress;
        self.learn(now, flow, acked, is_greeted, silence);
        self.meet(now, flow, from, tenure, (acked, is_greeted));
        if let Some(entry) = self.shared.as_mut().and_then(|s| s.entries.get_mut(flow)) {
            entry.floor = entry.floor.max(progress.floor.min(entry.acked));
            entry.pace.learn(progress.pace);
        }
    }

    /// Somebody says how far a transfer is.
    pub(super) fn learn(
        &mut self,
        now: Instant,
        flow: &Flow,
        acked: u64,
        is_greeted: bool,
        silence: Duration,
    ) {
        let Some(entry) = self.shared.as_mut().and_then(|s| s.entries.get_mut(flow)) else {
            return;
        };
        let is_news = entry.learn(now, acked, is_greeted);
        let heard = now.checked_sub(silence).unwrap_or(now);
        let is_later = heard > entry.heard;
        entry.heard = entry.heard.max(heard);
        let (acked, is_greeted) = (entry.acked, entry.is_greeted);
        let own = entry.own.as_mut();
        if is_greeted && own.is_some_and(|own| own.held.take().is_some()) {
            // Another node has answered the client.
            self.server.release(flow);
        }
        if is_news || (is_later && entry.own.is_some()) {
            self.server.handle_progress(now, flow, acked, is_greeted);
        }
    }

    /// Somebody says who owns a transfer: the higher epoch stays, then the higher number.
    pub(super) fn meet(
        &mut self,
        now: Instant,
        flow: &Flow,
        from: NodeId,
        tenure: Tenure,
        known: (u64, bool),
    ) {
        let Some(state) = &mut self.shared else {
            return;
        };
        let me = state.nodes.me;
        let Some(entry) = state.entries.get_mut(flow) else {
            return;
        };
        if tenure.owner == from {
            entry.owner_said = now;
            entry.answering.noticed = None;
            entry.answering.advances = 0;
            entry.answering.notices = 0;
            entry.answering.owner_knows = (known.0, known.1);
        }
        if tenure > entry.tenure && tenure.owner != me {
            self.yield_to(now, flow, tenure);
        } else if tenure < entry.tenure {
            let put = Message::Put(Box::new(entry.standing(now)));
            self.say(from, &put);
        }
    }

    /// The sender's record is not kept: another transfer of the flow stands there.
    pub(super) fn refused(
        &mut self,
        now: Instant,
        from: NodeId,
        nonce: u64,
        is_over: bool,
        standing: Standing,
    ) {
        let flow = standing.record.flow;
        let Some(state) = &mut self.shared else {
            return;
        };
        let Some(entry) = state.entries.get_mut(&flow) else {
            return;
        };
        if entry.record.nonce != nonce || !entry.is_live() {
            return;
        }
        let Some(own) = &entry.own else {
            return;
        };
        if standing.record.order < entry.record.order {
            // It was said of an order that this record no longer has.
            return;
        }
        // What the client was answered it gets to the end, unless it has left it.
        let is_held = own.held.is_some();
        let other = standing.view.progress;
        let silence = now.saturating_duration_since(entry.heard);
        let is_alike = entry.record.is_alike(&standing.record) && entry.has_only_begun();
        let insists = !is_held && !is_alike && silence < other.silence;
        // Where each node takes the other's for the later one, they would go on for ever.
        let yields = own.raises >= MAX_RAISES && standing.record.nonce > nonce;
        if (is_over || insists) && !yields {
            // Ours is newer, and its order has to say so, if it can.
            let Some(above) = standing.record.order.checked_add(1) else {
                return;
            };
            entry.record.order = entry.record.order.max(above);
            let owner = other.tenure.owner;
            let me = state.nodes.me;
            if let Some(own) = &mut entry.own {
                own.raises = own.raises.saturating_add(1);
                if owner != me && state.nodes.peers.contains_key(&owner) {
                    let holder = own.holders.entry(owner);
                    holder.or_insert_with(|| Holder::new(now, 0));
                }
                for holder in own.holders.values_mut() {
                    holder.is_kept = false;
                    holder.next_put = now;
                    holder.tries = 0;
                }
                if let Some(held) = &mut own.held {
                    // They may still answer for the older one.
                    held.revoking.extend(own.holders.keys());
                }
            }
            self.tick(now, &flow);
            return;
        }
        self.give_up(now, &flow);
        self.supersede(now, from, standing);
    }

    /// The record that this node made is no more: whoever took it up is not to answer from it.
    fn give_up(&mut self, now: Instant, flow: &Flow) {
        let Some(state) = &mut self.shared else {
            return;
        };
        let Some(entry) = state.entries.get(flow) else {
            return;
        };
        let nonce = entry.record.nonce;
        let own = entry.own.iter();
        let told = own.flat_map(|own| own.holders.keys().chain(own.guests.keys()));
        let told: BTreeSet<NodeId> = told.copied().collect();
        state.ends.insert(now, nonce);
        for id in told {
            self.say_end(id, flow, nonce);
        }
    }

    /// A node that knows the transfer still does: what a node that did not run knows is true.
    pub(super) fn confirmed(&mut self, now: Instant, flow: &Flow) {
        let Some(entry) = self.shared.as_mut().and_then(|s| s.entries.get_mut(flow)) else {
            return;
        };
        if std::mem::replace(&mut entry.is_confirmed, true) {
            return;
        }
        self.bound_session(now, flow);
        self.retry_stranger(now, flow);
    }

    /// A node that was asked cannot tell either. Where none can, what is known here has to do, unless
    /// one may have forgotten a transfer that came after it.
    pub(super) fn does_not_know(&mut self, now: Instant, from: NodeId, flow: &Flow) {
        let Some(state) = &mut self.shared else {
            return;
        };
        let Some(entry) = state.entries.get_mut(flow) else {
            return;
        };
        entry.unanswered.remove(&from);
        if entry.is_confirmed || !entry.unanswered.is_empty() {
            return;
        }
        let peers = state.nodes.peers.values();
        let doubtful: Vec<_> = peers.filter(|peer| peer.may_have_forgotten).collect();
        if doubtful.is_empty() {
            return self.confirmed(now, flow);
        }
        // One that has said nothing since may yet say that it has run all the time.
        let paused = Some(state.paused_at);
        if doubtful
            .iter()
            .all(|peer| peer.is_up && peer.said_at >= paused)
        {
            tracing::info!(client = %flow.remote, file = %entry.record.name, "given up: this node did not run, and those that did have begun anew");
            self.forget(now, flow);
        }
    }

    /// Asks whether a transfer still is what this node knows; alone it waits until no other
    /// node can expect it to be silent.
    pub(super) fn confirm(&mut self, now: Instant, flow: &Flow) {
        let Some(state) = &mut self.shared else {
            return;
        };
        let paused = state.paused_at;
        let Some(entry) = state.entries.get_mut(flow) else {
            return;
        };
        if asks_again(entry).is_some_and(|at| now < at) {
            return;
        }
        let is_alone = entry.unanswered.is_empty();
        let asked = self.ask(now, flow);
        if is_alone && asked.is_empty() && now >= paused + REVOKE_WAIT {
            self.confirmed(now, flow);
        }
        if let Some(entry) = self.shared.as_mut().and_then(|s| s.entries.get_mut(flow)) {
            entry.asked = Some(now);
        }
    }
}

/// When a node that did not run asks about a transfer again.
pub(super) fn asks_again(entry: &Entry) -> Option<Instant> {
    let asked = entry.asked?;
    let silence = asked.saturating_duration_since(entry.heard);
    Some(asked + (silence / 16).clamp(ASK_AGAIN.0, ASK_AGAIN.1))
}

/// What an answer to a question allows.
fn trust(asked_at: Option<Instant>, lease: Duration, entry: &mut Entry) {
    let Some(at) = asked_at.filter(|_| !lease.is_zero()) else {
        return;
    };
    let until = at + lease.min(LEASE);
    entry.lease = entry.lease.max(Some(until));
    entry.trust = entry.trust.max(until);
}
