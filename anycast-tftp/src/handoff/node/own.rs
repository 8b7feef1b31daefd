//! Ownership: records to the directory, hints, the first reply, takeovers, the heir; and how an
//! answering node deals with the owner.

use std::time::{Duration, Instant};

use super::{Node, RECORD_LIFE, TOMBSTONE_LIFE, takeover};
use crate::handoff::entry::{Entry, Own};
use crate::handoff::fleet::{Mode, Nodes};
use crate::handoff::limits::{HINT_BLOCKS, HINT_EVERY};
use crate::handoff::record::NodeId;
use crate::handoff::wire::{Hint, Message};
use crate::proto::Flow;
use crate::proto::session::Role;

/// Blocks after which the first hint is due: at once.
pub(super) const HINT_BLOCKS_FIRST: u64 = 1;
/// First pause before a record is sent again; it doubles.
const PUT_AGAIN: Duration = Duration::from_millis(40);
/// The longest.
const PUT_AGAIN_MAX: Duration = Duration::from_secs(1);
/// How often the end of a transfer is told to one that does not say that it knows.
pub(super) const MAX_ENDS: u32 = 6;
/// First pause before it is told again; it doubles.
const END_AGAIN: Duration = Duration::from_millis(50);
/// How often holders of a transfer that wraps hear of it when it does not move.
const KEEP_HINTING: Duration = Duration::from_secs(1);
/// And those of any other: of two owners that do not know of each other one learns of it then.
const KEEP_OWNING: Duration = Duration::from_secs(2);
/// ACKs that have advanced at another node, before the timers follow them there.
const ADVANCES: u8 = 3;
/// An owner that says nothing for so long, though it was told of them, has lost the transfer.
const OWNER_SILENCE: Duration = Duration::from_millis(500);
/// An answering node tells the owner again after this; it doubles while the owner does not answer.
const NOTICE_EVERY: Duration = Duration::from_millis(60);
/// The longest pause.
const NOTICE_EVERY_MAX: Duration = Duration::from_millis(500);
/// How often it does.
const MAX_NOTICES: u32 = 10;

/// When an owner has something to do.
pub(super) fn due(now: Instant, entry: &Entry, own: &Own, nodes: &Nodes) -> Instant {
    let mut due = now + Duration::from_secs(5);
    if let Some(held) = &own.held {
        due = due.min(if held.revoking.is_empty() && held.lease_until.is_none() {
            held.until
        } else {
            held.revoke_until.min(now + Duration::from_millis(20))
        });
    }
    for (id, holder) in &own.holders {
        if !holder.is_kept && nodes.is_up(*id) {
            due = due.min(holder.next_put);
        }
    }
    let is_news = entry.acked > own.told || entry.is_greeted != own.was_greeted;
    if entry.is_greeted != own.was_greeted {
        due = now;
    } else if is_news {
        due = due.min(own.told_at + HINT_EVERY);
    } else {
        due = due.min(own.told_at + keep_hinting(entry));
    }
    if entry.heard + Duration::from_secs(2) > now {
        // The engine knows of ACKs that nobody was told of.
        due = due.min(own.told_at.max(now) + HINT_EVERY);
    }
    due
}

fn keep_hinting(entry: &Entry) -> Duration {
    if entry.record.wraps() {
        KEEP_HINTING
    } else {
        KEEP_OWNING
    }
}

impl Node {
    /// Does what is due about a flow.
    pub(super) fn tick(&mut self, now: Instant, flow: &Flow) {
        let Some(state) = &mut self.shared else {
            return;
        };
        let Some(entry) = state.entries.get_mut(flow) else {
            return;
        };
        if let Some(over) = &entry.over {
            if now >= over.at + TOMBSTONE_LIFE {
                state.remove(flow);
                return;
            }
            self.tell_end(now, flow);
        } else if !(entry.has_session && entry.is_confirmed)
            && now >= entry.heard.max(entry.owner_said) + RECORD_LIFE
        {
            // The engine gives a session up in its own time, unless it must not speak.
            return self.forget(now, flow);
        } else if !entry.is_confirmed {
            self.confirm(now, flow);
        } else if entry.own.is_some() {
            self.look_at_session(now, flow);
            self.reopen(now, flow);
            self.tell_record(now, flow);
            self.release(now, flow);
            self.hint(now, flow);
        } else if takeover::inherits_at(flow, entry, &state.nodes).is_some_and(|at| now >= at) {
            self.inherit(now, flow);
        } else if entry.answering.next_notice.is_some_and(|at| now >= at) {
            self.look_at_session(now, flow);
            self.notice_again(now, flow);
        }
        if let Some(state) = &mut self.shared {
            state.schedule(now, flow);
        }
    }

    /// What the engine has heard since.
    fn look_at_session(&mut self, now: Instant, flow: &Flow) {
        let Some(state) = &mut self.shared else {
            return;
        };
        let progress = self.server.progress(flow);
        if let Some(entry) = state.entries.get_mut(flow)
            && let Some((acked, is_greeted, heard)) = progress
        {
            entry.learn(now, acked, is_greeted);
            entry.heard = entry.heard.max(heard);
        }
    }

    /// Tells those who have not said that they know that the transfer has ended.
    fn tell_end(&mut self, now: Instant, flow: &Flow) {
        let Some(state) = &mut self.shared else {
            return;
        };
        let Some(entry) = state.entries.get_mut(flow) else {
            return;
        };
        let end = Message::End {
            flow: *flow,
            nonce: entry.record.nonce,
        };
        let Some(over) = entry.over.as_mut() else {
            return;
        };
        if now < over.next || over.tries >= MAX_ENDS {
            return;
        }
        over.next = now + END_AGAIN * 2_u32.pow(over.tries);
        over.tries += 1;
        for id in over.untold.clone() {
            self.say(id, &end);
        }
    }

    /// Sends the record to those who have not said that they keep it.
    pub(super) fn tell_record(&mut self, now: Instant, flow: &Flow) {
        let Some(state) = &mut self.shared else {
            return;
        };
        let Some(entry) = state.entries.get_mut(flow) else {
            return;
        };
        let standing = entry.standing(now);
        let Some(own) = &mut entry.own else {
            return;
        };
        let mut whom = Vec::new();
        for (id, holder) in &mut own.holders {
            if holder.is_kept || now < holder.next_put || !state.nodes.is_up(*id) {
                continue;
            }
            let pause = PUT_AGAIN * 2_u32.pow(holder.tries.min(5));
            holder.next_put = now + pause.min(PUT_AGAIN_MAX);
            holder.tries += 1;
            whom.push(*id);
        }
        if !whom.is_empty() {
            let put = Message::Put(Box::new(standing));
            for id in whom {
                self.say(id, &put);
            }
        }
    }

    /// Lets the first reply go out, where nothing more is to be waited for.
    pub(super) fn release(&mut self, now: Instant, flow: &Flow) {
        let Some(state) = &mut self.shared else {
            return;
        };
        let Some(entry) = state.entries.get(flow) else {
            return;
        };
        let Some(held) = entry.own.as_ref().and_then(|own| own.held.as_ref()) else {
            return;
        };
        let is_waiting = held.revoking.iter().any(|id| state.may_be_there(now, *id))
            || held.lease_until.is_some_and(|until| now < until);
        if is_waiting && now < held.revoke_until {
            return;
        }
        let domain = state.nodes.domain;
        let holders = entry.own.iter().flat_map(|own| &own.holders);
        let is_kept = holders.clone().any(|(id, holder)| {
            holder.is_kept && holder.has_content && state.nodes.domain_of(*id) != domain
        });
        // Nodes in this one's domain only are better than none.
        let mut others = holders.clone().filter(|(id, _)| state.nodes.is_up(**id));
        let may_come =
            others.any(|(id, holder)| !holder.has_content || state.nodes.domain_of(*id) != domain);
        if !is_kept && may_come && now < held.until {
            return;
        }
        let mut others = holders.filter(|(_, holder)| holder.is_kept);
        let is_known = others.any(|(_, holder)| holder.has_content);
        if !is_known && state.fleet.mode == Mode::BeforeReply {
            self.server.stats_mut().unprotected += 1;
        }
        if let Some(own) = state
            .entries
            .get_mut(flow)
            .and_then(|entry| entry.own.as_mut())
        {
            own.held = None;
        }
        self.server.release(flow);
        self.bound_owner(now, flow);
        // What comes to them from now on is of this transfer.
        let own = self
            .shared
            .as_ref()
            .and_then(|s| s.entries.get(flow)?.own.as_ref());
        let holders = own.map(|own| own.holders.iter().filter(|(_, holder)| holder.is_kept));
        for id in holders
            .into_iter()
            .flatten()
            .map(|(id, _)| *id)
            .collect::<Vec<_>>()
        {
            self.hint_to(now, flow, id);
        }
    }

    /// How far the owner may send: what every holder that counts knows, and so many blocks more.
    pub(super) fn bound_owner(&mut self, now: Instant, flow: &Flow) {
        let Some(state) = &mut self.shared else {
            return;
        };
        let Some(entry) = state.entries.get_mut(flow).filter(|e| e.record.wraps()) else {
            return;
        };
        let acked = entry.acked;
        let Some(own) = &mut entry.own else {
            return;
        };
        own.guests.retain(|_, (_, until)| now < *until);
        let holders = own.holders.values().filter(|holder| holder.counts(now));
        let known = holders.map(|holder| holder.acked);
        let guests = own.guests.values().map(|(acked, _)| *acked);
        let floor = known.chain(guests).min().unwrap_or(acked).min(acked);
        entry.floor = entry.floor.max(floor);
        self.bound_session(now, flow);
    }

    /// Tells the holders how far the transfer is, where that is due.
    pub(super) fn hint(&mut self, now: Instant, flow: &Flow) {
        self.bound_owner(now, flow);
        let Some(state) = &mut self.shared else {
            return;
        };
        let Some(entry) = state.entries.get_mut(flow) else {
            return;
        };
        let keep = keep_hinting(entry);
        let (acked, is_greeted) = (entry.acked, entry.is_greeted);
        let Some(own) = &mut entry.own else {
            return;
        };
        if own.held.is_some() {
            return;
        }
        let is_news = acked > own.told || is_greeted != own.was_greeted;
        let pause = now.saturating_duration_since(own.told_at);
        // The first news tells a late ACK of another transfer from one of this.
        let is_first = is_greeted != own.was_greeted;
        let is_due =
            is_first || (is_news && (pause >= HINT_EVERY || acked >= own.told + HINT_BLOCKS));
        let is_kept_alive = pause >= keep;
        if !is_due && !is_kept_alive {
            return;
        }
        (own.told, own.told_at, own.was_greeted) = (acked, now, is_greeted);
        let kept = own.holders.iter().filter(|(_, holder)| holder.is_kept);
        for id in kept.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.hint_to(now, flow, id);
        }
        self.server
            .set_report(flow, acked.saturating_add(HINT_BLOCKS), now + HINT_EVERY);
    }

    /// Tells one node how far a transfer is.
    pub(super) fn hint_to(&mut self, now: Instant, flow: &Flow, id: NodeId) {
        let Some(entry) = self.shared.as_ref().and_then(|s| s.entries.get(flow)) else {
            return;
        };
        let own = entry.own.as_ref();
        let holder = own.and_then(|own| own.holders.get(&id));
        let hint = Hint {
            flow: *flow,
            nonce: entry.record.nonce,
            progress: entry.progress(now),
            echo: holder.map_or(0, |holder| holder.echo),
        };
        self.say(id, &Message::Hint(hint));
    }

    /// A session has heard its client, and the time to tell of it has come.
    pub(super) fn acked(&mut self, now: Instant, flow: Flow, acked: u64) {
        let Some(state) = &mut self.shared else {
            return;
        };
        let progress = self.server.progress(&flow);
        let Some(entry) = state.entries.get_mut(&flow).filter(|entry| entry.is_live()) else {
            return;
        };
        let (acked, is_greeted) =
            progress.map_or((acked, true), |(acked, greeted, _)| (acked, greeted));
        let is_news = entry.learn(now, acked, is_greeted);
        entry.heard = now;
        if entry.own.is_some() {
            if is_news {
                // An heir has found its client.
                self.server.set_role(now, &flow, Role::Owner);
            }
            self.tick(now, &flow);
            let told = self.shared.as_ref().and_then(|state| {
                let own = state.entries.get(&flow)?.own.as_ref()?;
                Some((own.told, own.told_at))
            });
            if let Some((told, told_at)) = told {
                let next = told.saturating_add(HINT_BLOCKS);
                self.server.set_report(&flow, next, told_at + HINT_EVERY);
            }
            return;
        }
        entry.trust_pace(now);
        let owner = state.nodes.peers.get(&entry.tenure.owner);
        let is_lost = owner.is_none_or(|owner| !owner.is_up || owner.is_draining);
        if is_news {
            entry.answering.advances = entry.answering.advances.saturating_add(1);
        }
        let wait = OWNER_SILENCE.max(entry.rto());
        let is_silent = entry.answering.advances >= ADVANCES
            && entry
                .answering
                .noticed
                .is_some_and(|at| now.saturating_duration_since(at) >= wait);
        if is_lost || is_silent {
            self.take_over(now, &flow, Role::Owner);
            return;
        }
        self.notice(now, &flow);
        let at = now + NOTICE_EVERY;
        self.server
            .set_report(&flow, acked.saturating_add(HINT_BLOCKS), at);
        self.bound_session(now, &flow);
    }

    /// The owner has shown that it knows less of the client than this node does.
    pub(super) fn tell_owner_news(&mut self, now: Instant, flow: &Flow) {
        let entry = self.shared.as_ref().and_then(|s| s.entries.get(flow));
        let is_due = entry.is_some_and(|entry| {
            let has_just_been = entry.answering.next_notice.is_some_and(|at| now < at);
            entry.own.is_none() && entry.has_news_for_owner() && !has_just_been
        });
        if is_due {
            self.notice(now, flow);
        }
    }

    /// Tells the owner again, while it does not know what this node does.
    fn notice_again(&mut self, now: Instant, flow: &Flow) {
        let Some(entry) = self.shared.as_mut().and_then(|s| s.entries.get_mut(flow)) else {
            return;
        };
        if entry.has_news_for_owner() {
            self.notice(now, flow);
        } else {
            entry.answering.next_notice = None;
        }
    }

    /// Tells the owner that the client came here.
    pub(super) fn notice(&mut self, now: Instant, flow: &Flow) {
        let Some(state) = &mut self.shared else {
            return;
        };
        let Some(entry) = state.entries.get_mut(flow) else {
            return;
        };
        if entry.own.is_some() {
            return;
        }
        let answering = &mut entry.answering;
        answering.noticed.get_or_insert(now);
        let pause = NOTICE_EVERY * 2_u32.pow(answering.notices.min(4));
        answering.notices = answering.notices.saturating_add(1);
        answering.next_notice =
            (answering.notices <= MAX_NOTICES).then(|| now + pause.min(NOTICE_EVERY_MAX));
        let notice = Message::Notice {
            flow: *flow,
            nonce: entry.record.nonce,
            acked: entry.acked,
            is_greeted: entry.is_greeted,
            silence: now.saturating_duration_since(entry.heard),
        };
        let owner = entry.tenure.owner;
        state.schedule(now, flow);
        self.say(owner, &notice);
    }
}
