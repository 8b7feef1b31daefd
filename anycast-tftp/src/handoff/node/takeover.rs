//! Takeovers: the timers of a transfer come to this node, or go to another one; the heir.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::Node;
use crate::handoff::entry::{Answering, Entry, Holder, Own};
use crate::handoff::fleet::Nodes;
use crate::handoff::limits::{
    HEIR_AFTER, HINT_BLOCKS, HINT_EVERY, HINT_MARGIN, LEASE, REVOKE_WAIT,
};
use crate::handoff::record::Tenure;
use crate::proto::Flow;
use crate::proto::session::Role;

/// The peer's link is told to be down so long after it was last heard of.
const DOWN_AFTER: Duration = Duration::from_secs(1);

/// When this node is to take a transfer over by itself, if it is the heir.
pub(super) fn inherits_at(flow: &Flow, entry: &Entry, nodes: &Nodes) -> Option<Instant> {
    // A write ends with its node.
    entry.record.content?;
    if entry.tenure.owner == nodes.me {
        // It was this node's before it began anew: nobody has its timers.
        return entry.created.checked_add(DOWN_AFTER);
    }
    let owner = nodes.peers.get(&entry.tenure.owner)?;
    if owner.is_up {
        return None;
    }
    let heir = nodes.keepers(flow).into_iter().find(|id| nodes.is_up(*id));
    let since = owner.since.filter(|_| heir == Some(nodes.me))?;
    since
        .max(entry.created)
        .checked_add(HEIR_AFTER.saturating_sub(DOWN_AFTER))
}

impl Node {
    /// The timers of a transfer come here.
    pub(super) fn take_over(&mut self, now: Instant, flow: &Flow, role: Role) {
        let Some(state) = &mut self.shared else {
            return;
        };
        let me = state.nodes.me;
        let Some(entry) = state.entries.get_mut(flow) else {
            return;
        };
        let before = entry.tenure.owner;
        entry.tenure = Tenure {
            epoch: entry.tenure.epoch.saturating_add(1),
            owner: me,
        };
        let floor = entry.floor;
        let mut holders = state.nodes.keepers(flow);
        holders.push(before);
        let holders = holders.iter().filter(|id| **id != me);
        let holders = holders.map(|id| {
            let mut holder = Holder::new(now, floor);
            let peer = state.nodes.peers.get(id);
            if peer.is_some_and(|peer| peer.is_up || *id != before) {
                // What the owner before told it, it may still trust.
                holder.echo = 1;
                let down = peer.filter(|peer| !peer.is_up).and_then(|peer| peer.since);
                holder.since = down.unwrap_or(now);
            }
            (*id, holder)
        });
        let holders: BTreeMap<_, _> = holders.collect();
        // Whom the owner before has let answer, nobody knows here.
        let guests = BTreeMap::from([(me, (floor, now + LEASE + HINT_MARGIN))]);
        entry.own = Some(Own {
            held: None,
            holders,
            guests,
            told_at: now,
            told: entry.acked,
            was_greeted: entry.is_greeted,
            raises: 0,
        });
        entry.answering = Answering::default();
        entry.owner_said = now;
        let acked = entry.acked;
        tracing::info!(client = %flow.remote, file = %entry.record.name, acked, epoch = entry.tenure.epoch, "took a transfer over");
        self.server.stats_mut().taken_over += 1;
        self.server.set_role(now, flow, role);
        // It may have answered under a lease until now.
        self.bound_session(now, flow);
        self.server
            .set_report(flow, acked.saturating_add(HINT_BLOCKS), now + HINT_EVERY);
        self.tick(now, flow);
    }

    /// The owner is gone, and no client has come to anybody: some never repeat an ACK.
    pub(super) fn inherit(&mut self, now: Instant, flow: &Flow) {
        let Some(entry) = self.shared.as_ref().and_then(|s| s.entries.get(flow)) else {
            return;
        };
        let (has_session, acked) = (entry.has_session, entry.acked);
        if !self.may_answer(now, flow) {
            return self.put_off(now, flow);
        }
        if !has_session && !self.adopt(now, flow, true) {
            return self.put_off(now, flow);
        }
        self.server.stats_mut().inherited += 1;
        self.take_over(now, flow, Role::Heir);
        // What was never acknowledged may be forged.
        if acked > 0 {
            self.server.repeat(flow);
        }
    }

    /// The heir cannot go on: it is looked at again in a while.
    fn put_off(&mut self, now: Instant, flow: &Flow) {
        let Some(state) = &mut self.shared else {
            return;
        };
        let me = state.nodes.me;
        if let Some(entry) = state.entries.get_mut(flow) {
            let is_orphan = entry.tenure.owner == me;
            let back = REVOKE_WAIT / if is_orphan { 4 } else { 2 };
            entry.created = now.checked_sub(back).unwrap_or(now);
        }
    }

    /// Another node has the timers.
    pub(super) fn yield_to(&mut self, now: Instant, flow: &Flow, tenure: Tenure) {
        let Some(entry) = self.shared.as_mut().and_then(|s| s.entries.get_mut(flow)) else {
            return;
        };
        entry.tenure = tenure;
        if entry.own.take().is_some() {
            // It has held nothing back, or the other node could not have answered.
            self.server.release(flow);
            self.server.set_role(now, flow, Role::Answering);
            self.server.set_report(flow, 0, now);
            self.bound_session(now, flow);
        }
    }
}
