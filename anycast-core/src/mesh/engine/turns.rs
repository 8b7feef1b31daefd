//! Turns: where several nodes share a cost, they join and leave one at a time. Pure.
//!
//! A node that joins or leaves a set of equal-cost nodes makes routers hash anew, which moves flows.
//! What moves is harmless while it moves once and comes to rest; two changes at once are another
//! matter. So a service that takes part needs a *turn* to become preferred, and to stop being so by
//! an order or for want of readiness. What fails is demoted at once, without one.
//!
//! # Contract
//!
//! - **The giver** gives the turns of all services: of the nodes that take part and *see a majority*
//!   the one with the lowest name. A node sees itself and every peer that is up and has said how it
//!   is within [`FRESH`]; a majority is more than half of the configured nodes. Each node says in
//!   its status whether it may be the giver ([`Status::gives_turns`]).
//! - **It gives with consent**: while more than half of the configured nodes, itself included, let
//!   nobody else give. It asks every [`VOTE_EVERY`]; a consent holds for [`VOTE_FOR`]. A node
//!   consents to one at a time, to none while it sees a possible giver of a lower name, and to none
//!   for so long after its own start. So when two nodes each hold themselves for the giver, since
//!   some nodes do not see each other, one of them at most gives.
//! - **A turn** is of one service and one node, and ends when the holder says so or [`TURN_FOR`]
//!   after it was asked for. The next one of that service is given `spacing` after it has ended *and*
//!   after the last change of anybody's preference that was seen, whatever the cause. A preferred
//!   peer that is not seen any more counts as one that changes when its boost runs out
//!   ([`ServiceStatus::outlives`]). Who leaves comes before who joins, then who asked first.
//! - **A new giver**, after its start or when the one before is gone, gives nothing for as long as a
//!   turn of one before may last, and then `spacing`.
//! - **Who wants a turn** tells the giver all services that want one, or use one, every
//!   [`ASK_EVERY`] and when that changes: a service that is not named any more, or that has another
//!   wish, is done. Asking again changes nothing; nothing that was asked over an earlier connection
//!   is answered.
//! - **A node that sees no majority** is cut off: it has no turn and gets none, and its services are
//!   told so. What a service then may do is up to its [machine](crate::machine::TurnPolicy).
//! - **Time**: only durations are told. A turn and a consent count for their holder from when it
//!   asked, and bind whoever gave them from the answer on, for a [`MARGIN`]th longer.
//!
//! # What holds
//!
//! Of a service one node at most has a turn at any moment, and between two turns is `spacing`,
//! however late, lost or doubled messages are, whoever dies, restarts or is cut off from whom; while
//! clocks run equally fast to within a [`MARGIN`]th, all nodes speak version 2, and any two of them
//! agree on all configured nodes but one. (A simulation in the tests judges it.)
//!
//! A peer that speaks version 1 is never the giver and takes no turns: its changes are seen in its
//! status, it counts as seen, and as one that consents. With such peers the above holds where seeing
//! is mutual and common (a partition into sides, and not nodes that see different others).
//!
//! Whoever sees a majority, but not the giver, asks in vain, and stays what it is until that is
//! mended. Of two nodes the majority is both: while one is away the other neither joins nor leaves
//! in turn.

mod asking;
mod lead;
mod office;
#[cfg(test)]
#[allow(
    clippy::disallowed_methods,
    reason = "a test starts somewhere in real time"
)]
mod simulation;
#[cfg(test)]
#[allow(
    clippy::disallowed_methods,
    reason = "a test starts somewhere in real time"
)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use self::asking::{Asking, Own};
use self::lead::Lead;
use self::office::Office;
use super::STATUS_EVERY;
use crate::mesh::wire::{
    Message, ServiceStatus, Status, TurnRequest, TurnStage, VERSION, WaitsFor,
};
use crate::service::{NodeName, ServiceName};

/// Longest time from asking for a turn to its end.
pub const TURN_FOR: Duration = Duration::from_secs(10);
/// How often the giver is asked anew.
pub const ASK_EVERY: Duration = Duration::from_secs(1);
/// Between two requests.
pub const ASK_LEAST: Duration = Duration::from_millis(200);
/// A request older than this is none any more.
pub const ASKED_FOR: Duration = Duration::from_secs(4);
/// How long a consent holds.
pub const VOTE_FOR: Duration = Duration::from_secs(4);
/// How often the giver asks for it: two answers may be lost before one expires.
pub const VOTE_EVERY: Duration = Duration::from_secs(1);
/// A peer whose last status is older than this is not seen.
pub const FRESH: Duration = STATUS_EVERY.saturating_mul(3);
/// Longest spacing: an hour. A longer one counts as this.
pub const MAX_SPACING: Duration = Duration::from_secs(3600);
/// Who gave something is bound by it for this part longer than it was given for.
pub const MARGIN: u32 = 16;

/// What a giver's turn, or a consent, of such a length may last by another clock.
const fn bound(time: Duration) -> Duration {
    // Const: without the operators of `Duration`.
    Duration::from_millis(time.as_millis() as u64 + time.as_millis() as u64 / MARGIN as u64)
}

/// What a service of this node that takes part needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// For how long nothing may have changed before its turn.
    pub spacing: Duration,
    /// What it needs now.
    pub need: Need,
}

/// What a service needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// No turn, or it is done with the one that it had.
    Nothing,
    /// A turn.
    Turn {
        /// To leave the preferred ones; else to join them.
        leaves: bool,
    },
    /// It has made its change in its turn, and that is not in force yet.
    Uses {
        /// It has left the preferred ones; else it has joined them.
        leaves: bool,
    },
}

/// How it stands with the turn of a service of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TurnState {
    /// This node sees no majority.
    CutOff {
        /// It sees so many nodes, itself included.
        seen: usize,
        /// Of so many.
        of: usize,
    },
    /// It has none.
    Waits {
        /// Whose turn it waits for; `None`: of nobody that is seen.
        giver: Option<NodeName>,
        /// For what.
        what: WaitsFor,
    },
    /// It has one until then, by this node's clock.
    Has {
        /// Its end.
        until: Instant,
    },
}

/// What a node announces of a service, as it was seen to.
#[derive(Debug, Clone, Copy)]
struct Announced {
    preferred: bool,
    changed_at: Option<Instant>,
    outlives: Duration,
}

/// One of the others.
#[derive(Debug, Default)]
struct Peer {
    is_up: bool,
    /// Version 2.
    speaks: bool,
    /// When its last status came over the connection that stands.
    said_at: Option<Instant>,
    is_seen: bool,
    may_give: bool,
    services: BTreeMap<ServiceName, Announced>,
    /// When services that it no longer names were preferred last.
    dropped_at: Option<Instant>,
    /// This node's last request for its consent, and when it left.
    vote_asked: Option<(u64, Instant)>,
    vote_until: Option<Instant>,
    /// Its last request for turns, and when it came.
    asked: Option<(Instant, TurnRequest)>,
}

/// Who may change next. See the [module documentation](self).
#[derive(Debug)]
pub(super) struct Turns {
    me: NodeName,
    peers: BTreeMap<NodeName, Peer>,
    /// Of this node, those that take part.
    own: BTreeMap<ServiceName, Own>,
    /// All services of this node.
    announced: BTreeMap<ServiceName, Announced>,
    lead: Lead,
    asking: Asking,
    offices: BTreeMap<ServiceName, Office>,
    /// The last request's.
    id: u64,
    latest: Instant,
    outputs: VecDeque<(NodeName, Message)>,
}

impl Turns {
    /// `seed` is another one at each start.
    pub(super) fn new(now: Instant, me: NodeName, peers: &[NodeName], seed: u64) -> Self {
        let peers = peers.iter().map(|name| (name.clone(), Peer::default()));
        Self {
            me,
            peers: peers.collect(),
            own: BTreeMap::new(),
            announced: BTreeMap::new(),
            lead: Lead::new(now),
            asking: Asking::new(now),
            offices: BTreeMap::new(),
            id: seed,
            latest: now,
            outputs: VecDeque::new(),
        }
    }

    /// The peer has said who it is, over a new connection.
    pub(super) fn handle_up(&mut self, now: Instant, peer: &NodeName, version: u16) {
        let now = self.advance(now);
        if let Some(entry) = self.peers.get_mut(peer) {
            entry.lose(now);
            (entry.is_up, entry.speaks) = (true, version >= 2);
            (entry.said_at, entry.vote_asked) = (None, None);
        }
        self.asking.forget(peer);
        self.act(now);
    }

    /// It has no connection any more.
    pub(super) fn handle_down(&mut self, now: Instant, peer: &NodeName) {
        let now = self.advance(now);
        if let Some(entry) = self.peers.get_mut(peer) {
            entry.lose(now);
            (entry.is_up, entry.said_at, entry.vote_asked) = (false, None, None);
        }
        self.asking.forget(peer);
        self.act(now);
    }

    /// It says how it is.
    pub(super) fn handle_status(&mut self, now: Instant, peer: &NodeName, status: &Status) {
        let now = self.advance(now);
        let Some(entry) = self.peers.get_mut(peer).filter(|entry| entry.is_up) else {
            return;
        };
        (entry.said_at, entry.is_seen) = (Some(now), true);
        entry.may_give = status.gives_turns && entry.speaks;
        let was_preferred = follow(now, &mut entry.services, &status.services);
        entry.dropped_at = was_preferred.or(entry.dropped_at);
        self.act(now);
    }

    /// This node's services are these.
    pub(super) fn handle_own_status(&mut self, now: Instant, services: &[ServiceStatus]) {
        let now = self.advance(now);
        // What is not a service any more asks for no turn either.
        follow(now, &mut self.announced, services);
        self.act(now);
    }

    /// Something is due, or may be.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        let now = self.advance(now);
        self.act(now);
    }

    /// When something is to be done next, and why.
    pub(super) fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let now = self.latest;
        let seen = self.peers.values().filter(|peer| peer.is_seen);
        let seen = seen.filter_map(|peer| peer.said_at?.checked_add(FRESH));
        let seen = seen.map(|at| (at, "a peer is not seen any more"));
        let own = self.own.values().filter_map(|own| own.turn);
        let offices = self.offices.values().filter_map(Office::ends_at);
        let turns = own.chain(offices).map(|at| (at, "a turn ends"));
        let votes = self.is_candidate().then(|| self.lead.ask_at());
        let votes = votes.map(|at| (at, "consent is to be asked for"));
        let ask = self.ask_at().map(|at| (at, "a turn is to be asked for"));
        let give = self.next_to_give(now).map(|at| (at, "a turn may be given"));
        let all = seen.chain(turns).chain(votes).chain(ask).chain(give);
        all.min_by_key(|(at, _)| *at)
    }

    /// The next message to say, and to whom.
    pub(super) fn poll_output(&mut self) -> Option<(NodeName, Message)> {
        self.outputs.pop_front()
    }

    /// Whether this node may be asked for turns.
    pub(super) fn gives_turns(&self) -> bool {
        !self.own.is_empty() && self.sees_majority()
    }

    /// Who gives the turns, as far as this node sees.
    pub(super) fn giver(&self) -> Option<&NodeName> {
        let own = self.gives_turns().then_some(&self.me);
        let gives = |(name, peer): (_, &Peer)| (peer.is_seen && peer.may_give).then_some(name);
        own.into_iter()
            .chain(self.peers.iter().filter_map(gives))
            .min()
    }

    /// What this node's services that take part are to know of their turns.
    pub(super) fn states(&self) -> impl Iterator<Item = (&ServiceName, TurnState)> {
        let (seen, of) = (self.seen(), self.members());
        let is_cut_off = seen * 2 <= of;
        self.own.iter().map(move |(service, own)| {
            let state = match own.turn {
                _ if is_cut_off => TurnState::CutOff { seen, of },
                Some(until) => TurnState::Has { until },
                None => TurnState::Waits {
                    giver: self.giver().cloned(),
                    what: own.waits_for.clone(),
                },
            };
            (service, state)
        })
    }

    /// What the status says of the turn of a service of this node.
    pub(super) fn stage(&self, service: &ServiceName) -> TurnStage {
        match self.own.get(service) {
            Some(own) if own.turn.is_some() => TurnStage::Has,
            Some(own) if matches!(own.part.need, Need::Turn { .. }) => TurnStage::Waits,
            Some(_) | None => TurnStage::Idle,
        }
    }

    fn members(&self) -> usize {
        self.peers.len() + 1
    }

    fn seen(&self) -> usize {
        self.peers.values().filter(|peer| peer.is_seen).count() + 1
    }

    fn sees_majority(&self) -> bool {
        self.seen() * 2 > self.members()
    }

    /// Brings what depends on time up to `now`, and returns the time to use.
    fn advance(&mut self, now: Instant) -> Instant {
        let now = self.latest.max(now);
        self.latest = now;
        for peer in self.peers.values_mut() {
            if peer.is_seen && peer.said_at.is_none_or(|at| at + FRESH <= now) {
                peer.lose(now);
            }
        }
        for own in self.own.values_mut() {
            own.turn = own.turn.filter(|until| *until > now);
        }
        for office in self.offices.values_mut() {
            office.advance(now);
        }
        if !self.has_consent(now) {
            self.lead.lost();
        }
        now
    }

    /// Does what is due.
    fn act(&mut self, now: Instant) {
        if !self.sees_majority() {
            for own in self.own.values_mut() {
                own.turn = None;
            }
        }
        self.ask_for_consent(now);
        self.ask_for_turns(now);
        self.give(now);
    }

    /// When the service was last seen to change, at any node; it may be yet to come.
    fn changed_at(&self, service: &ServiceName) -> Option<Instant> {
        let own = self.announced.get(service).and_then(|one| one.changed_at);
        let peers = self.peers.values().flat_map(|peer| {
            let one = peer.services.get(service).and_then(|one| one.changed_at);
            [one, peer.dropped_at]
        });
        peers.flatten().chain(own).max()
    }

    fn next_id(&mut self) -> u64 {
        self.id = self.id.wrapping_add(1);
        self.id
    }

    fn put(&mut self, peer: &NodeName, message: Message) {
        self.outputs.push_back((peer.clone(), message));
    }
}

impl Peer {
    /// It is not seen any more: what is preferred there changes without anybody hearing of it.
    fn lose(&mut self, now: Instant) {
        (self.may_give, self.asked) = (false, None);
        if !std::mem::take(&mut self.is_seen) {
            return;
        }
        let said_at = self.said_at.unwrap_or(now);
        for one in self.services.values_mut().filter(|one| one.preferred) {
            let runs_out = said_at.checked_add(one.outlives).unwrap_or(now);
            one.changed_at = one.changed_at.max(Some(runs_out.max(now)));
        }
    }
}

/// Notes what has changed; returns `now` if one that was preferred is not named any more.
fn follow(
    now: Instant,
    known: &mut BTreeMap<ServiceName, Announced>,
    services: &[ServiceStatus],
) -> Option<Instant> {
    let mut before = std::mem::take(known);
    for status in services {
        let old = before.remove(&status.name);
        let was_preferred = old.is_some_and(|old| old.preferred);
        let changed_at = if was_preferred == status.preferred {
            old.and_then(|old| old.changed_at)
        } else {
            Some(now)
        };
        let announced = Announced {
            preferred: status.preferred,
            changed_at,
            outlives: Duration::from_millis(status.outlives.unwrap_or_default()).min(MAX_SPACING),
        };
        known.insert(status.name.clone(), announced);
    }
    before.values().any(|old| old.preferred).then_some(now)
}

const _: () = assert!(
    VERSION <= 2,
    "say here what a later version does about turns"
);
