//! Requests: whether one is a repeat, the record of a new transfer, and how one ends.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::{Node, State, own};
use crate::handoff::entry::{Answering, Entry, Held, Holder, Over, Own};
use crate::handoff::fleet::Mode;
use crate::handoff::limits::{MAX_RECORDS, REVOKE_WAIT};
use crate::handoff::record::{NodeId, Record, Tenure};
use crate::handoff::wire::{Standing, View};
use crate::proto::Flow;
use crate::proto::rtt::INITIAL_RTO;
use crate::proto::server::{REPEAT_GRACE, fingerprint};
use crate::proto::session::Role;

impl Node {
    /// Whether a request belongs to a transfer that is known here and not served here, and nothing
    /// new begins. A transfer that it does not belong to is over.
    pub(super) fn repeats_shared(&mut self, now: Instant, flow: Flow, datagram: &[u8]) -> bool {
        let Some(state) = &mut self.shared else {
            return false;
        };
        let Some(entry) = state.entries.get_mut(&flow).filter(|entry| entry.is_live()) else {
            return false;
        };
        if entry.record.request == fingerprint(datagram) {
            let progress = self
                .server
                .progress(&flow)
                .filter(|_| self.server.has(&flow));
            if let Some((acked, is_greeted, _)) = progress.filter(|_| entry.own.is_some()) {
                // The engine knows what a repeat is; what other nodes heard, it has heard. It does
                // not know how old the transfer was when it came here.
                let has_only_begun = entry.has_only_begun() && acked == 0 && !is_greeted;
                if !has_only_begun || entry.is_young(now) {
                    return false;
                }
                if self.server.has_just_sent(now, &flow) {
                    return true;
                }
            } else if entry.is_young(now) {
                return self.repeat_first_reply(now, flow);
            }
            if now.saturating_duration_since(entry.heard) < REPEAT_GRACE {
                return true;
            }
        }
        self.over(now, &flow);
        false
    }

    /// The first bytes again, for a client whose route has moved, or that asks two nodes.
    fn repeat_first_reply(&mut self, now: Instant, flow: Flow) -> bool {
        let Some(state) = &mut self.shared else {
            return false;
        };
        let Some(entry) = state.entries.get_mut(&flow) else {
            return false;
        };
        let has_just_been = entry
            .answering
            .repeated
            .is_some_and(|at| now.saturating_duration_since(at) < INITIAL_RTO);
        // The owner's first reply comes first.
        if now < entry.held_until || has_just_been {
            return true;
        }
        if !self.may_answer(now, &flow) || !self.adopt(now, &flow, false) {
            let Some(entry) = self.shared.as_ref().and_then(|s| s.entries.get(&flow)) else {
                return true;
            };
            let is_recent = now.saturating_duration_since(entry.created) < REPEAT_GRACE;
            if !is_recent {
                self.over(now, &flow);
            }
            return is_recent;
        }
        self.server.repeat(&flow);
        if let Some(entry) = self.shared.as_mut().and_then(|s| s.entries.get_mut(&flow)) {
            entry.answering.repeated = Some(now);
            entry.heard = now;
        }
        self.notice(now, &flow);
        true
    }

    /// A transfer began here: it gets a record, and the directory gets that.
    pub(super) fn opened(&mut self, now: Instant, flow: Flow) {
        let Some(begun) = self.server.begun(&flow) else {
            return;
        };
        let Some(state) = &mut self.shared else {
            return;
        };
        let old = state.remove(&flow);
        let directory = state.nodes.directory(&flow);
        let revoking = old.as_ref().map(|old| state.may_still_answer(now, old));
        let order = old
            .as_ref()
            .map_or(0, |old| old.record.order)
            .saturating_add(1);
        let lease_until = old.as_ref().and_then(|old| old.granted);
        let has_content = begun.content.is_some();
        let record = Record {
            flow,
            nonce: state.nonce(),
            order,
            request: begun.request,
            name: begun.name,
            content: begun.content.as_ref().map(|(id, _)| *id),
            mode: begun.mode,
            oack: begun.oack,
            blksize: begun.blksize,
            windowsize: begun.windowsize,
            timeout: begun.timeout,
            rollover: begun.rollover,
        };
        let me = state.nodes.me;
        let view = View::begun(me);
        let standing = Standing { record, view };
        let mut entry = Entry::new(now, standing, directory, me);
        // Whatever takes its place before it is over has to wait for it too.
        entry.granted = lease_until;
        let holders = state
            .nodes
            .keepers(&flow)
            .into_iter()
            .filter(|id| *id != me);
        let holders = holders.map(|id| (id, Holder::new(now, 0)));
        let waits = state.fleet.mode == Mode::BeforeReply;
        // Whatever the mode, nobody is to answer for the older transfer meanwhile.
        let is_held = has_content && (waits || old.is_some());
        entry.own = Some(Own {
            held: is_held.then(|| Held {
                until: if waits {
                    now + state.fleet.hold_wait
                } else {
                    now
                },
                revoking: revoking.unwrap_or_default(),
                revoke_until: now + REVOKE_WAIT,
                lease_until,
            }),
            holders: holders.collect(),
            guests: BTreeMap::new(),
            told_at: now,
            told: 0,
            was_greeted: false,
            raises: 0,
        });
        entry.has_session = true;
        let id = entry.record.content;
        state.pin(id, begun.content.map(|(_, content)| content));
        state.insert(flow, entry);
        if !is_held {
            self.server.release(&flow);
        }
        self.tick(now, &flow);
        self.server.set_report(&flow, own::HINT_BLOCKS_FIRST, now);
    }

    /// A transfer has ended elsewhere, or another one has taken its place there, whose request was
    /// answered here a moment ago: the client has ended it there first, and then asked for the same
    /// again. That is a new transfer, of an order above the one there.
    pub(super) fn renew(&mut self, now: Instant, from: NodeId, flow: &Flow, above: u32) {
        let Some(state) = &mut self.shared else {
            return;
        };
        let (me, nonce) = (state.nodes.me, state.nonce());
        let keepers = state.nodes.keepers(flow);
        let Some(entry) = state.entries.get_mut(flow) else {
            return;
        };
        entry.record.nonce = nonce;
        entry.record.order = entry.record.order.max(above).saturating_add(1);
        entry.tenure = Tenure {
            epoch: 0,
            owner: me,
        };
        entry.heard = now;
        entry.made = entry.answering.repeated.unwrap_or(now);
        entry.answering = Answering::default();
        let keepers = keepers.into_iter().chain([from]).filter(|id| *id != me);
        entry.own = Some(Own {
            held: None,
            holders: keepers.map(|id| (id, Holder::new(now, 0))).collect(),
            guests: BTreeMap::new(),
            told_at: now,
            told: 0,
            was_greeted: false,
            raises: 0,
        });
        self.server.set_role(now, flow, Role::Owner);
        self.server.set_report(flow, own::HINT_BLOCKS_FIRST, now);
        self.tick(now, flow);
    }

    /// The transfer of a flow has ended, here or by what the client sent here.
    pub(super) fn over(&mut self, now: Instant, flow: &Flow) {
        let Some(state) = &mut self.shared else {
            return;
        };
        let me = state.nodes.me;
        let Some(entry) = state.entries.get_mut(flow).filter(|entry| entry.is_live()) else {
            return;
        };
        let mut untold: BTreeSet<NodeId> = state.nodes.keepers(flow).into_iter().collect();
        untold.insert(entry.tenure.owner);
        if let Some(own) = &entry.own {
            untold.extend(own.holders.keys().copied());
        }
        untold.remove(&me);
        entry.over = Some(Over {
            at: now,
            untold,
            next: now,
            tries: 0,
        });
        self.close(now, flow);
        self.tick(now, flow);
        // Beyond that an end is told once, and not remembered.
        if let Some(state) = &mut self.shared
            && state.entries.len() > MAX_RECORDS
        {
            state.remove(flow);
        }
    }

    /// A transfer is no more known here; who else knows it may go on with it.
    pub(super) fn forget(&mut self, now: Instant, flow: &Flow) {
        if let Some(state) = &mut self.shared {
            state.remove(flow);
            state.strangers.forget(flow);
        }
        self.server.drop_shared(now, flow);
    }

    /// Lets go of what only a live transfer needs.
    pub(super) fn close(&mut self, now: Instant, flow: &Flow) {
        self.server.drop_shared(now, flow);
        let Some(state) = &mut self.shared else {
            return;
        };
        let Some(entry) = state.entries.get_mut(flow) else {
            return;
        };
        entry.own = None;
        entry.has_session = false;
        let content = entry.record.content;
        state.unpin(content);
        state.strangers.forget(flow);
    }

    /// The role of a session of this flow.
    pub(super) fn role(&self, flow: &Flow) -> Role {
        let entry = self
            .shared
            .as_ref()
            .and_then(|state| state.entries.get(flow));
        match entry {
            Some(entry) if entry.own.is_some() => Role::Owner,
            _ => Role::Answering,
        }
    }
}

impl State {
    /// Adds the record of a flow that has none. False: there is no room, in all or for its owner.
    pub(super) fn insert(&mut self, flow: Flow, entry: Entry) -> bool {
        let quota = MAX_RECORDS / (self.nodes.peers.len() + 1);
        if let Some(peer) = self.nodes.peers.get_mut(&entry.filed) {
            if peer.records >= quota {
                return false;
            }
            peer.records += 1;
        }
        self.entries.insert(flow, entry);
        true
    }

    /// Takes the record of a flow away. Its content is not held for it any more.
    pub(super) fn remove(&mut self, flow: &Flow) -> Option<Entry> {
        let entry = self.entries.remove(flow)?;
        if let Some(due) = entry.due {
            self.timers.remove(&(due, *flow));
        }
        if let Some(peer) = self.nodes.peers.get_mut(&entry.filed) {
            peer.records = peer.records.saturating_sub(1);
        }
        if entry.is_live() {
            self.unpin(entry.record.content);
        }
        Some(entry)
    }

    /// Who may still answer for a transfer: nobody who has said that it is over, and nobody who has
    /// been out of reach for so long that waiting is of no use.
    pub(super) fn may_still_answer(&self, now: Instant, old: &Entry) -> BTreeSet<NodeId> {
        let mut nodes: BTreeSet<NodeId> = match &old.over {
            Some(over) => over.untold.clone(),
            None => {
                let keepers = self.nodes.keepers(&old.record.flow);
                keepers.into_iter().chain([old.tenure.owner]).collect()
            }
        };
        nodes.retain(|id| self.may_be_there(now, *id));
        nodes
    }

    /// Whether a node can be reached, or could be a moment ago.
    pub(super) fn may_be_there(&self, now: Instant, id: NodeId) -> bool {
        self.nodes.peers.get(&id).is_some_and(|peer| {
            let since = peer.since.map(|at| now.saturating_duration_since(at));
            peer.is_up || since.is_some_and(|since| since < REVOKE_WAIT)
        })
    }
}
