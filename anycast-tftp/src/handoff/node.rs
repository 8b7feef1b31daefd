//! The server engine of one node, together with what it knows of the others.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use anycast_core::NodeName;

use super::Fleet;
use super::entry::Entry;
use super::fleet::{Mode, Nodes, mix};
use super::limits::{PAUSE, RECORD_LIFE, TOMBSTONE_LIFE};
use super::record::NodeId;
use super::wire::VERSION;
use crate::proto::jobs::{StoreReply, StoreRequest};
use crate::proto::packet::Packet;
use crate::proto::server::{Server, Shared, Timeout, Transmit};
use crate::proto::session::Outcome;
use crate::proto::settings::{Settings, SettingsError};
use crate::proto::stats::Stats;
use crate::proto::{Flow, TransferRecord};

use self::contents::Contents;
use self::strangers::Strangers;
use self::writes::Parts;

mod answering;
mod contents;
mod links;
mod own;
mod peers;
mod request;
mod standing;
mod strangers;
mod takeover;
mod writes;

/// How often a node looks whether it runs.
const HEARTBEAT: Duration = Duration::from_millis(250);
/// How long a node that was paused takes no packets of clients: they came before.
const DEAF: Duration = Duration::from_millis(50);

/// See the [module documentation](super).
#[derive(Debug)]
pub struct Node {
    server: Server,
    /// Absent: the server engine alone.
    shared: Option<State>,
}

/// What is known of the other nodes, and of transfers that they know of.
#[derive(Debug)]
struct State {
    fleet: Fleet,
    nodes: Nodes,
    /// The version that this node speaks at most.
    speaks: u8,
    settings: Settings,
    entries: BTreeMap<Flow, Entry>,
    timers: BTreeSet<(Instant, Flow)>,
    contents: Contents,
    strangers: Strangers,
    parts: Parts,
    ends: Ends,
    requests: VecDeque<StoreRequest>,
    outbox: BTreeMap<NodeId, VecDeque<Vec<u8>>>,
    /// When this node began: its time in messages counts from here.
    start: Instant,
    last_turn: Instant,
    /// Packets of clients are taken again from then on.
    deaf_until: Option<Instant>,
    /// When it last found that it had not run for a while.
    paused_at: Instant,
    /// Since when it had not; where a transfer was not confirmed yet by then, the time before.
    stopped_at: Instant,
    next_hello: Instant,
    is_draining: bool,
    nonces: u64,
}

/// Transfers that are said to have ended, for messages that come after that; of more than
/// [`Ends::MAX`] the oldest is forgotten.
#[derive(Debug, Default)]
struct Ends {
    known: BTreeSet<u64>,
    order: VecDeque<(Instant, u64)>,
}

impl Ends {
    const MAX: usize = 16_384;

    fn insert(&mut self, now: Instant, nonce: u64) {
        while self.order.len() >= Self::MAX
            || self
                .order
                .front()
                .is_some_and(|(at, _)| now.saturating_duration_since(*at) > TOMBSTONE_LIFE)
        {
            if let Some((_, nonce)) = self.order.pop_front() {
                self.known.remove(&nonce);
            }
        }
        if self.known.insert(nonce) {
            self.order.push_back((now, nonce));
        }
    }

    fn contains(&self, nonce: u64) -> bool {
        self.known.contains(&nonce)
    }
}

impl State {
    /// This node's time, as it is told to others and comes back.
    fn stamp(&self, now: Instant) -> u64 {
        let millis = now.saturating_duration_since(self.start).as_millis();
        u64::try_from(millis).unwrap_or(u64::MAX).saturating_add(1)
    }

    /// The moment that such a time means; in the past.
    fn moment(&self, now: Instant, stamp: u64) -> Option<Instant> {
        let since = Duration::from_millis(stamp.checked_sub(1)?);
        self.start.checked_add(since).filter(|at| *at <= now)
    }

    fn nonce(&mut self) -> u64 {
        self.nonces = self.nonces.wrapping_add(1);
        mix(self.fleet.seed ^ mix(self.nonces))
    }

    /// Puts a flow where its next deadline belongs.
    fn schedule(&mut self, now: Instant, flow: &Flow) {
        let Some(entry) = self.entries.get_mut(flow) else {
            return;
        };
        let due = next_due(now, flow, entry, &self.nodes);
        if entry.due != Some(due) {
            if let Some(old) = entry.due.replace(due) {
                self.timers.remove(&(old, *flow));
            }
            self.timers.insert((due, *flow));
        }
    }
}

/// When there is something to do about a flow.
fn next_due(now: Instant, flow: &Flow, entry: &Entry, nodes: &Nodes) -> Instant {
    let mut due = entry.heard.max(entry.owner_said) + RECORD_LIFE;
    if let Some(over) = &entry.over {
        due = over.at + TOMBSTONE_LIFE;
        if over.untold.iter().any(|id| nodes.is_up(*id)) && over.tries < own::MAX_ENDS {
            due = due.min(over.next);
        }
        return due.max(now);
    }
    if !entry.is_confirmed {
        due = due.min(standing::asks_again(entry).unwrap_or(now));
        return due.max(now + Duration::from_millis(1));
    }
    if entry.has_session {
        // The engine gives that up.
        due = now + RECORD_LIFE;
    }
    match &entry.own {
        Some(own) => due = due.min(own::due(now, entry, own, nodes)),
        None => {
            let notice = entry.answering.next_notice;
            for at in takeover::inherits_at(flow, entry, nodes)
                .into_iter()
                .chain(notice)
            {
                due = due.min(at);
            }
        }
    }
    // Never in the past again and again.
    due.max(now + Duration::from_millis(1))
}

impl Node {
    /// A node without transfers. Without a fleet, or where it hands nothing on, it is the server
    /// engine alone.
    ///
    /// # Errors
    /// [`SettingsError`].
    pub fn new(
        now: Instant,
        settings: Settings,
        fleet: Option<Fleet>,
    ) -> Result<Self, SettingsError> {
        let mut server = Server::new(settings.clone())?;
        let fleet = fleet.filter(|fleet| fleet.mode != Mode::Off);
        let shared = fleet.map(|fleet| {
            server.share();
            server.set_alone(!fleet.peers.is_empty());
            State {
                nodes: Nodes::new(&fleet),
                speaks: VERSION,
                fleet,
                settings,
                entries: BTreeMap::new(),
                timers: BTreeSet::new(),
                contents: Contents::default(),
                strangers: Strangers::new(now),
                parts: Parts::default(),
                ends: Ends::default(),
                requests: VecDeque::new(),
                outbox: BTreeMap::new(),
                start: now,
                last_turn: now,
                deaf_until: None,
                paused_at: now,
                stopped_at: now,
                next_hello: now,
                is_draining: false,
                nonces: 0,
            }
        });
        Ok(Self { server, shared })
    }

    /// Replaces the settings for new transfers.
    ///
    /// # Errors
    /// [`SettingsError`]; nothing has changed then.
    pub fn handle_settings(&mut self, settings: Settings) -> Result<(), SettingsError> {
        self.server.handle_settings(settings.clone())?;
        if let Some(state) = &mut self.shared {
            state.settings = settings;
            self.agree_on_mtu();
        }
        Ok(())
    }

    /// Takes a datagram of a client, whatever is in it.
    pub fn handle_datagram(&mut self, now: Instant, flow: Flow, datagram: &[u8]) {
        // Clients on this host are its own checks.
        if self.shared.is_none() || flow.is_own_host() {
            return self.server.handle_datagram(now, flow, datagram);
        }
        self.turn(now);
        let Some(state) = &mut self.shared else {
            return;
        };
        if state.deaf_until.is_some_and(|until| now < until) {
            return;
        }
        state.deaf_until = None;
        let Some(packet) = self.server.parse(flow, datagram) else {
            return;
        };
        let is_request = matches!(packet, Packet::ReadRequest(_) | Packet::WriteRequest(_));
        if is_request {
            // What is kept came before it.
            state.strangers.forget(&flow);
        }
        if is_request && self.repeats_shared(now, flow, datagram) {
            self.server.stats_mut().repeated_requests += 1;
        } else if !self.is_certain(now, &flow, &packet)
            || !self.server.handle_packet(now, flow, datagram, packet)
        {
            self.stranger(now, flow, datagram);
        } else if let Some(state) = &mut self.shared {
            // The client said it before this.
            state.strangers.forget(&flow);
        }
        self.settle(now);
    }

    /// Takes the answer to a store request, however late.
    pub fn handle_store_reply(&mut self, now: Instant, reply: StoreReply) {
        self.turn(now);
        if let StoreReply::Pinned(content, result) = reply {
            self.pinned(now, content, result);
        } else {
            self.server.handle_store_reply(now, reply);
        }
        self.settle(now);
    }

    /// Time has passed. Harmless at any time.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.turn(now);
        self.server.handle_timeout(now);
        self.settle(now);
        self.greet(now);
        self.forget_strangers(now);
        loop {
            let Some(state) = &mut self.shared else {
                return;
            };
            let Some((_, flow)) = state.timers.first().copied().filter(|(at, _)| *at <= now) else {
                break;
            };
            state.timers.pop_first();
            if let Some(entry) = state.entries.get_mut(&flow) {
                entry.due = None;
            }
            self.tick(now, &flow);
        }
        self.settle(now);
    }

    /// A peer can be reached, or no more. All are down at first. It must be told within about a
    /// second that nothing comes from it.
    pub fn handle_peer(&mut self, now: Instant, peer: &NodeName, is_up: bool) {
        self.turn(now);
        self.peer_changed(now, NodeId::of(peer), is_up);
        self.settle(now);
    }

    /// Takes what a peer sent, whatever is in it.
    pub fn handle_message(&mut self, now: Instant, peer: &NodeName, message: &[u8]) {
        self.turn(now);
        self.take_message(now, NodeId::of(peer), message);
        self.settle(now);
    }

    /// This node drains, or does no more: peers take its transfers over as their clients come to
    /// them.
    pub fn handle_draining(&mut self, now: Instant, is_draining: bool) {
        if let Some(state) = &mut self.shared
            && state.is_draining != is_draining
        {
            state.is_draining = is_draining;
            state.next_hello = now;
            self.greet(now);
        }
    }

    /// What a peer is to be told, of at most [`MAX_MESSAGE`](super::limits::MAX_MESSAGE) bytes. It may be lost.
    pub fn poll_message(&mut self, _now: Instant) -> Option<(NodeName, Vec<u8>)> {
        let state = self.shared.as_mut()?;
        while let Some((id, mut waiting)) = state.outbox.pop_first() {
            let next = waiting.pop_front();
            if !waiting.is_empty() {
                state.outbox.insert(id, waiting);
            }
            if let Some((peer, datagram)) = state.nodes.peers.get(&id).zip(next) {
                return Some((peer.name.clone(), datagram));
            }
        }
        None
    }

    /// Something for a store to do.
    pub fn poll_store_request(&mut self) -> Option<StoreRequest> {
        let own = self
            .shared
            .as_mut()
            .and_then(|state| state.requests.pop_front());
        own.or_else(|| self.server.poll_store_request())
    }

    /// As [`Server::poll_transmit`].
    pub fn poll_transmit(
        &mut self,
        now: Instant,
        max_segments: usize,
        buf: &mut [u8],
    ) -> Option<Transmit> {
        self.turn(now);
        let transmit = self.server.poll_transmit(now, max_segments, buf);
        if self.shared.is_some() && transmit.is_none() {
            // A file that cannot be read ends its transfer.
            self.settle(now);
        }
        transmit
    }

    /// The record of a transfer that ended here.
    pub fn poll_event(&mut self) -> Option<TransferRecord> {
        self.server.poll_event()
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do, at the earliest.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Timeout> {
        let server = self.server.poll_timeout();
        let Some(state) = &self.shared else {
            return server;
        };
        let deadline = state.timers.first().map(|(at, _)| *at);
        let beat = (!state.nodes.peers.is_empty()).then_some(state.last_turn + HEARTBEAT);
        let mut peers = state.nodes.peers.values();
        let hello = peers.any(|peer| peer.is_linked).then_some(state.next_hello);
        let held = state.strangers.next_due();
        let own = [deadline, beat, hello, held].into_iter().flatten().min();
        let own = own.map(|at| Timeout {
            at,
            reason: "another node is to hear of a transfer, or has not answered",
        });
        match (server, own) {
            (Some(server), Some(own)) if own.at < server.at => Some(own),
            (server, own) => server.or(own),
        }
    }

    /// The counters.
    #[must_use]
    pub const fn stats(&self) -> &Stats {
        self.server.stats()
    }

    /// Transfers that have not ended and that this node is to end.
    #[must_use]
    pub const fn in_flight(&self) -> usize {
        self.server.in_flight()
    }

    /// Flows that this node knows, those that have ended lately included.
    #[must_use]
    pub fn known(&self) -> usize {
        self.shared.as_ref().map_or(0, |state| state.entries.len())
    }

    /// Finds out whether this node has not run for a while: then it trusts nothing that it knows.
    fn turn(&mut self, now: Instant) {
        let Self { server, shared } = self;
        let Some(state) = shared else {
            return;
        };
        let before = std::mem::replace(&mut state.last_turn, now);
        let gap = now.saturating_duration_since(before);
        if gap <= PAUSE || state.nodes.peers.is_empty() {
            return;
        }
        server.stats_mut().pauses += 1;
        tracing::warn!(
            ?gap,
            "this node did not run; its transfers are confirmed anew"
        );
        state.deaf_until = Some(now + DEAF);
        state.paused_at = now;
        let took_part: BTreeSet<NodeId> = state.nodes.up().collect();
        if state.entries.values().all(|entry| entry.is_confirmed) {
            state.stopped_at = before;
            for peer in state.nodes.peers.values_mut() {
                peer.may_have_forgotten = false;
            }
        }
        for peer in state.nodes.peers.values_mut() {
            peer.may_have_forgotten |= peer.is_up;
        }
        for (flow, entry) in &mut state.entries {
            if entry.is_live() {
                if std::mem::replace(&mut entry.is_confirmed, false) {
                    entry.unanswered.clear();
                }
                entry.unanswered.extend(&took_part);
                entry.asked = None;
                for holder in entry
                    .own
                    .iter_mut()
                    .flat_map(|own| own.holders.values_mut())
                {
                    // Nobody has heard of this node meanwhile, nor it of them.
                    holder.since = now;
                }
                server.set_until(now, flow, Some(now));
            }
        }
        let flows: Vec<_> = state.entries.keys().copied().collect();
        for flow in flows {
            state.schedule(now, &flow);
        }
    }

    /// Takes in what became of sessions.
    fn settle(&mut self, now: Instant) {
        if self.shared.is_none() {
            return;
        }
        while let Some(event) = self.server.poll_shared() {
            match event {
                Shared::Opened(flow) => self.opened(now, flow),
                Shared::Acked(flow, acked) => self.acked(now, flow, acked),
                Shared::Behind(flow, wire) => self.fell_behind(now, flow, wire),
                Shared::Unreadable(flow) => self.unreadable(now, &flow),
                Shared::Ended(flow, Outcome::Moved) => {
                    if let Some(state) = &mut self.shared
                        && let Some(entry) = state.entries.get_mut(&flow)
                    {
                        entry.has_session = false;
                    }
                }
                // The client may be at another node, and go on there.
                Shared::Ended(flow, Outcome::TimedOut) => self.forget(now, &flow),
                Shared::Ended(flow, _) => self.over(now, &flow),
            }
        }
    }

    /// It is a node of an older version from now on. To be said before anything else.
    #[cfg(test)]
    pub(crate) fn speak_at_most(&mut self, version: u8) {
        if let Some(state) = &mut self.shared {
            state.speaks = version;
        }
    }

    /// Flows whose timers this node has.
    #[cfg(test)]
    pub(crate) fn owned_flows(&self) -> Vec<Flow> {
        let entries = self.shared.iter().flat_map(|state| &state.entries);
        let owned = entries.filter(|(_, entry)| entry.is_live() && entry.own.is_some());
        owned.map(|(flow, _)| *flow).collect()
    }
}
