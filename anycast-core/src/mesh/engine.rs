//! Who is there, what they say, and what is said to them. Pure.
//!
//! # Contract
//!
//! - **Inputs**: [`handle_connected`](Engine::handle_connected) when an authenticated connection
//!   with a peer stands, [`handle_message`](Engine::handle_message) with what comes over it,
//!   [`handle_closed`](Engine::handle_closed) when it ends, [`handle_status`](Engine::handle_status)
//!   when this node's services change, [`handle_timeout`](Engine::handle_timeout) when
//!   [`poll_timeout`](Engine::poll_timeout) has come.
//! - **Outputs**: [`poll_output`](Engine::poll_output), until it answers `None`, after any input.
//! - The first message on each side is a [`Hello`], within [`HELLO_WITHIN`]. A peer that says something else first, whose
//!   name is not the one that its key stands for, or with whom no version is shared, is cut off.
//! - This node's status goes out at once when it changes, at most every [`STATUS_LEAST`], and again
//!   every [`STATUS_EVERY`]: silence for longer says that something is wrong.
//! - A peer may send [`BURST`] messages at once and [`RATE`] a second; one that sends more is cut
//!   off. So is one whose status goes back in time.
//! - Promises not to withdraw (F5) are asked for while [`handle_wants`](Engine::handle_wants) names
//!   services: see [`grants`].
//! - Whose turn it is to join or leave an equal-cost set is agreed on for the services that
//!   [`handle_parts`](Engine::handle_parts) names: see [`turns`].
//! - A new connection of a peer replaces its old one: the old one may be dead and not know it yet.
//! - Nothing here waits for a peer, and a peer's fault touches nobody else.

mod grants;
mod link;
pub mod turns;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use self::grants::Asking;
pub use self::grants::{ASK_EVERY, ASK_LEAST, Answer, GRANT_FOR};
use self::link::Link;
use self::turns::{Part, TurnState, Turns};
use super::clock::Offset;
use super::wire::{
    Clients, DataStatus, Hello, LEAST_VERSION, Message, Ping, Pong, ServiceStatus, Status,
    TurnStage, VERSION,
};
use crate::health::Reason;
use crate::service::{NodeName, ServiceName};

/// How long a connection may stand without a Hello.
pub const HELLO_WITHIN: Duration = Duration::from_secs(3);
/// How often a status goes out that has not changed.
pub const STATUS_EVERY: Duration = Duration::from_secs(1);
/// Between two that have.
pub const STATUS_LEAST: Duration = Duration::from_millis(100);
/// How often a status says whose requests are answered here, at most.
pub const CLIENTS_EVERY: Duration = Duration::from_secs(10);
/// How often a peer is asked for its clock.
pub const PING_EVERY: Duration = Duration::from_secs(2);
/// Messages of a peer that are taken at once.
pub const BURST: u32 = 64;
/// And then a second.
pub const RATE: u32 = 32;
/// Outputs that wait to be polled; a driver that leaves more is broken, and the oldest are dropped.
const OUTPUTS: usize = 16_384;

/// One connection with a peer; the number is the driver's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// What the driver is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Output {
    /// Send this.
    Send(ConnectionId, Message),
    /// End the connection, for this reason, which is for the log and for the peer.
    Close(ConnectionId, Reason),
    /// The peer has said who it is; it is up.
    Up(NodeName),
    /// It has no connection any more.
    Down(NodeName, Reason),
    /// How its services are. Those that it named before and not now are not there any more.
    Heard {
        /// The peer.
        peer: NodeName,
        /// When.
        at: Instant,
        /// How each is.
        services: Vec<ServiceStatus>,
    },
    /// It asks for promises; [`Engine::handle_answer`] says which are given.
    Asked {
        /// The peer.
        peer: NodeName,
        /// Over this connection.
        connection: ConnectionId,
        /// The request's, for the answer.
        id: u64,
        /// For so long.
        duration: Duration,
        /// That these are not withdrawn.
        services: Vec<ServiceName>,
    },
    /// It has answered.
    Granted {
        /// The peer.
        peer: NodeName,
        /// Its promises stand until then, by this node's clock.
        until: Instant,
        /// What it promises not to withdraw.
        granted: Vec<ServiceName>,
        /// What it promises nothing about, whatever it promised before.
        refused: Vec<ServiceName>,
    },
}

/// What is known of a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerView {
    /// Since when it is up; `None` while it is not.
    pub up_since: Option<Instant>,
    /// When its last message came, over this connection or an earlier one.
    pub heard_at: Option<Instant>,
    /// The version spoken with it.
    pub version: Option<u16>,
    /// Its clock.
    pub clock: Option<Offset>,
    /// Its services, as it last said.
    pub services: Vec<ServiceStatus>,
    /// When it said so.
    pub services_at: Option<Instant>,
    /// How fit its data are, as it said then.
    pub data: Vec<DataStatus>,
    /// The version of its software, as it said then.
    pub software: Option<Reason>,
    /// Whose requests it answers, and when it said so.
    pub clients: Option<(Instant, Clients)>,
    /// Why it is down.
    pub down: Option<Reason>,
}

/// Whose turn it is, as far as this node knows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct TurnsView {
    /// Who gives the turns.
    pub giver: Option<NodeName>,
    /// How it stands with those of this node's services that take part.
    pub services: BTreeMap<ServiceName, TurnState>,
}

/// The state of the mesh at one node. See the [module documentation](self).
#[derive(Debug)]
pub struct Engine {
    hello: Hello,
    peers: BTreeMap<NodeName, Peer>,
    services: Vec<ServiceStatus>,
    /// When [`Self::services`] was said, to turn durations on.
    services_at: Instant,
    data: Vec<DataStatus>,
    clients: Option<Clients>,
    /// The services for which promises are asked.
    wants: BTreeSet<ServiceName>,
    /// The last request's.
    request: u64,
    turns: Turns,
    /// What the last status said of turns: that this node gives them, and those of its services.
    said_of_turns: (bool, Vec<TurnStage>),
    sequence: u64,
    outputs: VecDeque<Output>,
}

#[derive(Debug, Default)]
struct Peer {
    link: Option<Link>,
    heard_at: Option<Instant>,
    services: Vec<ServiceStatus>,
    services_at: Option<Instant>,
    data: Vec<DataStatus>,
    software: Option<Reason>,
    clients: Option<(Instant, Clients)>,
    down: Option<Reason>,
}

impl Engine {
    /// A node of this name, with these peers. `incarnation` is another one at each start.
    #[must_use]
    pub fn new(now: Instant, name: NodeName, incarnation: u64, peers: Vec<NodeName>) -> Self {
        Self {
            turns: Turns::new(now, name.clone(), &peers, incarnation),
            said_of_turns: (false, Vec::new()),
            hello: Hello {
                name,
                version: VERSION,
                least_version: LEAST_VERSION,
                incarnation,
            },
            peers: peers
                .into_iter()
                .map(|name| (name, Peer::default()))
                .collect(),
            services: Vec::new(),
            services_at: now,
            data: Vec::new(),
            clients: None,
            wants: BTreeSet::new(),
            // Another start's answers are answers to nothing.
            request: incarnation,
            sequence: 0,
            outputs: VecDeque::new(),
        }
    }

    /// What is known of each peer.
    pub fn peers(&self) -> impl Iterator<Item = (&NodeName, PeerView)> {
        self.peers.iter().map(|(name, peer)| {
            let link = peer.link.as_ref().filter(|link| link.up_since.is_some());
            let view = PeerView {
                up_since: link.and_then(|link| link.up_since),
                heard_at: peer.heard_at,
                version: link.map(|link| link.version),
                clock: link.and_then(|link| link.clock.offset()),
                services: peer.services.clone(),
                services_at: peer.services_at,
                data: peer.data.clone(),
                software: peer.software.clone(),
                clients: peer.clients.clone(),
                down: peer.down.clone().filter(|_| link.is_none()),
            };
            (name, view)
        })
    }

    /// Whose turn it is, as far as this node knows.
    #[must_use]
    pub fn turns(&self) -> TurnsView {
        let states = self.turns.states();
        TurnsView {
            giver: self.turns.giver().cloned(),
            services: states.map(|(name, state)| (name.clone(), state)).collect(),
        }
    }

    /// A connection stands with the peer to whom its key belongs.
    pub fn handle_connected(&mut self, now: Instant, peer: &NodeName, id: ConnectionId) {
        let hello = Message::Hello(self.hello.clone());
        let Some(entry) = self.peers.get_mut(peer) else {
            self.put(Output::Close(id, "no peer of that name".into()));
            return;
        };
        let old = entry.link.replace(Link::new(id, now));
        if let Some(old) = old {
            self.turns.handle_down(now, peer);
            self.put(Output::Close(old.id, "replaced by a new connection".into()));
        }
        self.put(Output::Send(id, hello));
        self.tell_of_turns(now);
    }

    /// It has ended.
    pub fn handle_closed(
        &mut self,
        now: Instant,
        peer: &NodeName,
        id: ConnectionId,
        reason: Reason,
    ) {
        let Some(entry) = self.peers.get_mut(peer) else {
            return;
        };
        let Some(link) = entry.link.take_if(|link| link.id == id) else {
            return;
        };
        entry.down = Some(reason.clone());
        if link.up_since.is_some() {
            self.put(Output::Down(peer.clone(), reason));
        }
        self.turns.handle_down(now, peer);
        self.tell_of_turns(now);
    }

    /// It was dialled in vain.
    pub fn handle_failed(&mut self, peer: &NodeName, reason: Reason) {
        let entry = self.peers.get_mut(peer);
        if let Some(entry) = entry.filter(|entry| entry.link.is_none()) {
            entry.down = Some(reason);
        }
    }

    /// This node's services are these. `failing_for` is counted on from now.
    pub fn handle_status(&mut self, now: Instant, services: Vec<ServiceStatus>) {
        let aged = self.services_now(now);
        let is_same = aged.len() == services.len()
            && aged
                .iter()
                .zip(&services)
                .all(|(old, new)| is_alike(old, new));
        self.turns.handle_own_status(now, &services);
        self.services = services;
        self.services_at = now;
        if !is_same {
            self.hurry(now);
        }
        self.tell_of_turns(now);
    }

    /// These services of this node take part in turns, and need this: see [`turns`].
    pub fn handle_parts(&mut self, now: Instant, parts: BTreeMap<ServiceName, Part>) {
        self.turns.handle_parts(now, parts);
        self.tell_of_turns(now);
    }

    /// Says what is to be said of turns, and has peers hear of it in a status.
    fn tell_of_turns(&mut self, now: Instant) {
        while let Some((peer, message)) = self.turns.poll_output() {
            let link = self.peers.get(&peer).and_then(|peer| peer.link.as_ref());
            let link = link.filter(|link| link.up_since.is_some() && link.version >= 2);
            if let Some(id) = link.map(|link| link.id) {
                self.put(Output::Send(id, message));
            }
        }
        let services = self.services.iter();
        let stages = services.map(|service| self.turns.stage(&service.name));
        let says = (self.turns.gives_turns(), stages.collect());
        if says != self.said_of_turns {
            self.said_of_turns = says;
            self.hurry(now);
        }
    }

    /// How fit this node's data are to be served from.
    pub fn handle_data(&mut self, now: Instant, data: Vec<DataStatus>) {
        if self.data != data {
            self.data = data;
            self.hurry(now);
        }
    }

    /// Whose requests this node answers. Told with a status that is due, every [`CLIENTS_EVERY`].
    pub fn handle_clients(&mut self, clients: Option<Clients>) {
        self.clients = clients;
    }

    /// A status is to go out soon.
    fn hurry(&mut self, now: Instant) {
        for link in self
            .peers
            .values_mut()
            .filter_map(|peer| peer.link.as_mut())
        {
            // The last one left a period before the next is due.
            let earliest = link.status_at.checked_sub(STATUS_EVERY - STATUS_LEAST);
            if !link.status_is_new {
                link.status_at = earliest.map_or(now, |earliest| earliest.max(now));
            }
            link.status_is_new = true;
        }
    }

    /// A message of this connection. `wall` is this node's wall clock, in microseconds since 1970.
    pub fn handle_message(
        &mut self,
        now: Instant,
        wall: i64,
        peer: &NodeName,
        id: ConnectionId,
        message: Message,
    ) {
        let least = self.hello.least_version;
        let ours = self.hello.version;
        let Some(entry) = self.peers.get_mut(peer) else {
            return;
        };
        let Some(link) = entry.link.as_mut().filter(|link| link.id == id) else {
            return; // of a connection that was replaced
        };
        if !link.takes(now) {
            self.cut(now, peer, "it sends too much");
            return;
        }
        entry.heard_at = Some(now);
        if link.up_since.is_none() {
            let Message::Hello(hello) = message else {
                self.cut(now, peer, "its first message is no Hello");
                return;
            };
            let version = ours.min(hello.version);
            if hello.name != *peer {
                let name = hello.name;
                let why = format!("it calls itself {name}, and has the key of {peer}");
                self.cut(now, peer, &why);
            } else if version < least.max(hello.least_version) {
                let (oldest, newest) = (hello.least_version, hello.version);
                let why =
                    format!("it speaks versions {oldest} to {newest}; this node {least} to {ours}");
                self.cut(now, peer, &why);
            } else {
                link.version = version;
                link.incarnation = hello.incarnation;
                link.up_since = Some(now);
                link.status_at = now;
                link.clients_at = now;
                link.ping_at = now;
                link.asking = Asking::new(now);
                entry.down = None;
                self.put(Output::Up(peer.clone()));
                self.turns.handle_up(now, peer, version);
                self.tell_of_turns(now);
                self.speak(now, wall);
            }
            return;
        }
        let knows_turns = link.version >= 2;
        match message {
            Message::Hello(_) => self.cut(now, peer, "a second Hello"),
            Message::Status(status) => self.handle_peer_status(now, peer, status),
            Message::GrantRequest(request) => self.handle_request(peer, request),
            Message::Grant(grant) => self.handle_grant(now, peer, grant),
            Message::Ping(Ping { id: asked }) => {
                let (received, sent) = (wall, wall);
                let pong = Message::Pong(Pong {
                    id: asked,
                    received,
                    sent,
                });
                self.put(Output::Send(id, pong));
            }
            Message::Pong(pong) => {
                if let Some((_, left)) = link.ping.take_if(|(asked, _)| *asked == pong.id) {
                    link.clock.add(left, pong.received, pong.sent, wall);
                }
            }
            // As a kind that is not known.
            Message::TurnRequest(_)
            | Message::Turn(_)
            | Message::VoteRequest(_)
            | Message::Vote(_)
                if !knows_turns => {}
            Message::TurnRequest(request) => self.turns.handle_request(now, peer, request),
            Message::Turn(turn) => self.turns.handle_turn(now, peer, &turn),
            Message::VoteRequest(request) => {
                self.turns.handle_vote_request(now, peer, request);
            }
            Message::Vote(vote) => self.turns.handle_vote(now, peer, vote),
        }
        self.tell_of_turns(now);
    }

    fn handle_peer_status(&mut self, now: Instant, peer: &NodeName, status: Status) {
        let Some(entry) = self.peers.get_mut(peer) else {
            return;
        };
        let Some(link) = &mut entry.link else {
            return;
        };
        if link.sequence.is_some_and(|last| status.sequence <= last) {
            self.cut(now, peer, "its status goes back in time");
            return;
        }
        link.sequence = Some(status.sequence);
        self.turns.handle_status(now, peer, &status);
        entry.services.clone_from(&status.services);
        entry.services_at = Some(now);
        entry.data = status.data;
        entry.software = status.software;
        if let Some(clients) = status.clients {
            entry.clients = Some((now, clients));
        }
        self.put(Output::Heard {
            peer: peer.clone(),
            at: now,
            services: status.services,
        });
    }

    /// Says what is due, and lets go of those who say nothing.
    pub fn handle_timeout(&mut self, now: Instant, wall: i64) {
        let is_mute = |peer: &Peer| {
            let link = peer.link.as_ref().filter(|link| link.up_since.is_none());
            link.is_some_and(|link| now >= link.began_at + HELLO_WITHIN)
        };
        let mute: Vec<_> = self
            .peers
            .iter()
            .filter(|(_, peer)| is_mute(peer))
            .collect();
        let mute: Vec<_> = mute.into_iter().map(|(name, _)| name.clone()).collect();
        for peer in mute {
            self.cut(now, &peer, "it has not said Hello");
        }
        self.turns.handle_timeout(now);
        self.tell_of_turns(now);
        self.speak(now, wall);
    }

    /// When something is to be said next, and why.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let links = self.peers.values().filter_map(|peer| peer.link.as_ref());
        let wants = !self.wants.is_empty();
        let turns = self.turns.poll_timeout();
        links.filter_map(|link| link.due(wants)).chain(turns).min()
    }

    /// The next thing to do, if any.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn speak(&mut self, now: Instant, wall: i64) {
        let services = self.services_now(now);
        let mut outputs = Vec::new();
        for peer in self.peers.values_mut() {
            let Some(link) = peer.link.as_mut().filter(|link| link.up_since.is_some()) else {
                continue;
            };
            if link.status_at <= now {
                self.sequence += 1;
                let tells_clients = link.clients_at <= now;
                if tells_clients {
                    link.clients_at = now + CLIENTS_EVERY;
                }
                let status = Status {
                    sequence: self.sequence,
                    services: services.clone(),
                    software: Some(env!("CARGO_PKG_VERSION").into()),
                    data: self.data.clone(),
                    clients: self.clients.clone().filter(|_| tells_clients),
                    gives_turns: self.turns.gives_turns(),
                };
                outputs.push(Output::Send(link.id, Message::Status(status)));
                link.status_at = now + STATUS_EVERY;
                link.status_is_new = false;
            }
            if link.ping_at <= now {
                link.pings = link.pings.wrapping_add(1);
                link.ping = Some((link.pings, wall));
                outputs.push(Output::Send(
                    link.id,
                    Message::Ping(Ping { id: link.pings }),
                ));
                link.ping_at = now + PING_EVERY;
            }
        }
        outputs.into_iter().for_each(|output| self.put(output));
        self.ask(now);
    }

    /// What fails has failed for longer by now.
    fn services_now(&self, now: Instant) -> Vec<ServiceStatus> {
        let passed = now.saturating_duration_since(self.services_at).as_millis();
        let passed = u64::try_from(passed).unwrap_or(u64::MAX);
        let mut services = self.services.clone();
        for service in &mut services {
            service.failing_for = service.failing_for.map(|time| time.saturating_add(passed));
            service.turn = self.turns.stage(&service.name);
        }
        services
    }

    /// Ends the connection with a peer for its own fault.
    fn cut(&mut self, now: Instant, peer: &NodeName, reason: &str) {
        let Some(entry) = self.peers.get_mut(peer) else {
            return;
        };
        let Some(link) = entry.link.take() else {
            return;
        };
        let reason = Reason::new(reason);
        entry.down = Some(reason.clone());
        self.put(Output::Close(link.id, reason.clone()));
        if link.up_since.is_some() {
            self.put(Output::Down(peer.clone(), reason));
        }
        self.turns.handle_down(now, peer);
        self.tell_of_turns(now);
    }

    fn put(&mut self, output: Output) {
        if self.outputs.len() == OUTPUTS {
            self.outputs.pop_front();
        }
        self.outputs.push_back(output);
    }
}

fn millis(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

/// But for how long it has failed.
fn is_alike(old: &ServiceStatus, new: &ServiceStatus) -> bool {
    old.name == new.name
        && old.preferred == new.preferred
        && old.draining == new.draining
        && old.failing_for.is_some() == new.failing_for.is_some()
        && old.outlives == new.outlives
}

#[cfg(test)]
#[allow(
    clippy::disallowed_methods,
    reason = "a test starts somewhere in real time"
)]
mod tests;
