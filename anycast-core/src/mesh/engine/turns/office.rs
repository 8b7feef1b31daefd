//! The giver's part: who has the turn of a service, and who is next.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::{ASKED_FOR, MARGIN, MAX_SPACING, TURN_FOR, Turns, bound};
use crate::mesh::engine::millis;
use crate::mesh::wire::{
    MAX_SERVICES, Message, ServiceTurn, Turn, TurnAnswer, TurnRequest, TurnWant, WaitsFor,
};
use crate::service::{NodeName, ServiceName};

/// Services with a turn, or one of late; beyond, no further one has any until one is forgotten.
const OFFICES: usize = 4 * MAX_SERVICES;

/// The turns of one service.
#[derive(Debug, Default)]
pub(super) struct Office {
    holder: Option<Holder>,
    /// When the last turn ended.
    ended_at: Option<Instant>,
    /// Since when each waits.
    waits: BTreeMap<NodeName, Instant>,
}

#[derive(Debug)]
struct Holder {
    node: NodeName,
    leaves: bool,
    wish: u64,
    until: Instant,
}

/// One who wants a turn.
#[derive(Debug, Clone)]
struct Wish {
    node: NodeName,
    leaves: bool,
    spacing: Duration,
    wish: u64,
}

impl Office {
    pub(super) fn ends_at(&self) -> Option<Instant> {
        self.holder.as_ref().map(|holder| holder.until)
    }

    pub(super) fn advance(&mut self, now: Instant) {
        if let Some(holder) = self.holder.take_if(|holder| holder.until <= now) {
            self.ended_at = Some(holder.until);
            // Others come before it.
            self.waits.remove(&holder.node);
        }
    }

    /// The node has this wish, or none: with a turn for another one it is done.
    fn end(&mut self, now: Instant, node: &NodeName, wish: Option<u64>) {
        let is_done = |holder: &mut Holder| holder.node == *node && Some(holder.wish) != wish;
        if self.holder.take_if(is_done).is_some() {
            self.ended_at = Some(now);
            self.waits.remove(node);
        }
    }

    fn is_over(&self, now: Instant) -> bool {
        let is_long_ago = |at: Instant| now.saturating_duration_since(at) > MAX_SPACING;
        self.holder.is_none() && self.waits.is_empty() && self.ended_at.is_none_or(is_long_ago)
    }
}

impl Turns {
    /// A peer says what it wants.
    pub(in super::super) fn handle_request(
        &mut self,
        now: Instant,
        peer: &NodeName,
        request: TurnRequest,
    ) {
        let now = self.advance(now);
        let Some(entry) = self.peers.get_mut(peer).filter(|entry| entry.is_up) else {
            return;
        };
        let is_old = |(_, last): &(Instant, TurnRequest)| last.id >= request.id;
        if entry.asked.as_ref().is_some_and(is_old) {
            return; // said twice, or late
        }
        let wishes = request.wants.iter();
        let wishes: BTreeMap<_, _> = wishes.map(|want| (&want.service, want.wish)).collect();
        for (service, office) in &mut self.offices {
            office.end(now, peer, wishes.get(service).copied());
        }
        entry.asked = Some((now, request));
        self.act(now);
        self.answer(now, peer);
    }

    /// Gives every turn that may be given.
    pub(super) fn give(&mut self, now: Instant) {
        let is_candidate = self.is_candidate();
        if is_candidate {
            for (service, office) in &mut self.offices {
                let own = self.own.get(service);
                let own = own.filter(|own| own.leaves().is_some());
                office.end(now, &self.me, own.map(|own| own.wish));
            }
        }
        let wishes = self.wishes(now);
        self.keep_books(now, &wishes);
        let mut given = BTreeSet::new();
        for (service, wishes) in &wishes {
            let Some(first) = self.first(service, wishes) else {
                continue;
            };
            let is_free = self
                .offices
                .get(service)
                .is_some_and(|o| o.holder.is_none());
            let is_time = self
                .gives_at(service, first.spacing)
                .is_some_and(|at| at <= now);
            if is_free && is_time {
                self.hand_over(now, service, &first);
                given.insert(first.node);
            }
        }
        if is_candidate {
            for (service, wishes) in &wishes {
                if wishes.iter().any(|wish| wish.node == self.me) {
                    let what = self.what_for(now, service, wishes, &self.me);
                    self.tell_own(service, what);
                }
            }
        }
        let me = self.me.clone();
        for node in given.iter().filter(|node| **node != me) {
            self.answer(now, node);
        }
    }

    /// When the next turn may be given that somebody waits for, if nothing happens before.
    pub(super) fn next_to_give(&self, now: Instant) -> Option<Instant> {
        let wishes = self.wishes(now);
        let free = wishes.iter().filter(|(service, _)| {
            let office = self.offices.get(*service);
            office.is_some_and(|office| office.holder.is_none())
        });
        let times = free.filter_map(|(service, wishes)| {
            let first = self.first(service, wishes)?;
            self.gives_at(service, first.spacing)
        });
        times.filter(|at| *at > now).min()
    }

    /// When a turn of the service may be given; `None`: this node gives none.
    fn gives_at(&self, service: &ServiceName, spacing: Duration) -> Option<Instant> {
        let began = self.lead_since()? + bound(TURN_FOR);
        let ended = self.offices.get(service).and_then(|office| office.ended_at);
        let changed = self.changed_at(service);
        let last = ended.into_iter().chain(changed).fold(began, Instant::max);
        Some(last + spacing)
    }

    fn lead_since(&self) -> Option<Instant> {
        self.lead.since()
    }

    /// Who wants what: this node, and the peers that have said so lately.
    fn wishes(&self, now: Instant) -> BTreeMap<ServiceName, Vec<Wish>> {
        let mut wishes: BTreeMap<ServiceName, Vec<Wish>> = BTreeMap::new();
        if !self.is_candidate() {
            return wishes;
        }
        let mut add = |service: &ServiceName, wish| {
            wishes.entry(service.clone()).or_default().push(wish);
        };
        for (service, own) in &self.own {
            if let Some(leaves) = own.leaves() {
                let wish = Wish {
                    node: self.me.clone(),
                    leaves,
                    spacing: own.part.spacing,
                    wish: own.wish,
                };
                add(service, wish);
            }
        }
        for (name, peer) in self.peers.iter().filter(|(_, peer)| peer.is_seen) {
            let fresh = peer.asked.as_ref().filter(|(at, _)| *at + ASKED_FOR > now);
            for want in fresh.iter().flat_map(|(_, request)| &request.wants) {
                // Nobody has a turn of what it does not run.
                if peer.services.contains_key(&want.service) {
                    let spacing = Duration::from_millis(want.spacing.into());
                    let wish = Wish {
                        node: name.clone(),
                        leaves: want.leaves,
                        spacing: spacing.min(MAX_SPACING),
                        wish: want.wish,
                    };
                    add(&want.service, wish);
                }
            }
        }
        wishes
    }

    /// Who waits, and since when.
    fn keep_books(&mut self, now: Instant, wishes: &BTreeMap<ServiceName, Vec<Wish>>) {
        for (service, office) in &mut self.offices {
            let wishes = wishes.get(service).map_or(&[][..], Vec::as_slice);
            let waits = |node: &NodeName| wishes.iter().any(|wish| wish.node == *node);
            office.waits.retain(|node, _| waits(node));
        }
        self.offices.retain(|_, office| !office.is_over(now));
        for (service, wishes) in wishes {
            if self.offices.len() >= OFFICES && !self.offices.contains_key(service) {
                continue;
            }
            let office = self.offices.entry(service.clone()).or_default();
            for wish in wishes {
                office.waits.entry(wish.node.clone()).or_insert(now);
            }
        }
    }

    /// Who leaves before who joins, then who has waited for longer, then the lower name.
    fn first(&self, service: &ServiceName, wishes: &[Wish]) -> Option<Wish> {
        let office = self.offices.get(service)?;
        let order = |wish: &&Wish| (!wish.leaves, office.waits.get(&wish.node).copied());
        wishes.iter().min_by_key(order).cloned()
    }

    fn hand_over(&mut self, now: Instant, service: &ServiceName, to: &Wish) {
        if let Some(office) = self.offices.get_mut(service) {
            office.holder = Some(Holder {
                node: to.node.clone(),
                leaves: to.leaves,
                wish: to.wish,
                until: now + bound(TURN_FOR),
            });
        }
        if to.node == self.me {
            self.take_own(service, now + TURN_FOR);
        }
    }

    /// Tells a peer how it stands with everything that it asked for.
    fn answer(&mut self, now: Instant, peer: &NodeName) {
        let asked = self.peers.get(peer).and_then(|peer| peer.asked.clone());
        let Some((_, TurnRequest { id, wants })) = asked else {
            return;
        };
        let wishes = self.wishes(now);
        let services = wants.into_iter().map(|TurnWant { service, .. }| {
            let state = self.state_of(now, peer, &service, &wishes);
            ServiceTurn { service, state }
        });
        let services = services.collect();
        self.put(peer, Message::Turn(Turn { id, services }));
    }

    fn state_of(
        &self,
        now: Instant,
        peer: &NodeName,
        service: &ServiceName,
        wishes: &BTreeMap<ServiceName, Vec<Wish>>,
    ) -> TurnAnswer {
        let holder = self.offices.get(service).and_then(|o| o.holder.as_ref());
        if let Some(holder) = holder.filter(|holder| holder.node == *peer) {
            // The peer counts from its request, which came before now; by its clock it may take
            // the margin longer.
            let left = holder.until.saturating_duration_since(now);
            return TurnAnswer::Given(millis(left / (MARGIN + 1) * MARGIN));
        }
        let wishes = wishes.get(service).map_or(&[][..], Vec::as_slice);
        TurnAnswer::Waits(self.what_for(now, service, wishes, peer))
    }

    fn what_for(
        &self,
        now: Instant,
        service: &ServiceName,
        wishes: &[Wish],
        node: &NodeName,
    ) -> WaitsFor {
        if !self.is_candidate() {
            return WaitsFor::Nothing;
        }
        let of = |node: &NodeName, leaves| WaitsFor::Node {
            node: node.clone(),
            leaves,
        };
        let holder = self.offices.get(service).and_then(|o| o.holder.as_ref());
        if let Some(holder) = holder {
            return of(&holder.node, holder.leaves);
        }
        let spacing = wishes.iter().find(|wish| wish.node == *node);
        let spacing = spacing.map_or(Duration::ZERO, |wish| wish.spacing);
        let began = self
            .lead_since()
            .map(|since| since + bound(TURN_FOR) + spacing);
        if began.is_none_or(|began| began > now) {
            return WaitsFor::Beginning;
        }
        match self.first(service, wishes) {
            Some(first) if first.node != *node => of(&first.node, first.leaves),
            Some(_) => WaitsFor::Settling,
            None => WaitsFor::Nothing,
        }
    }
}
