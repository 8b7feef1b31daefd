//! One node, and how it is driven: as the contract of the server engine says.

use std::collections::BTreeSet;

use super::files::Shelf;
use super::invariants;
use super::routes::show;
use super::setting::{MS, SECOND};
use super::world::{Event, World, node_name};
use crate::handoff::{Fleet, Node};
use crate::proto::Flow;
use crate::proto::jobs::StoreRequest;
use crate::proto::packet::Packet;
use crate::proto::settings::Settings;

/// Most datagrams in a socket that nobody reads.
const SOCKET: usize = 200;
/// Packets that may be sent at once.
const SEGMENTS: usize = 64;
/// A timer that is due as often at one and the same time never waits.
const SPINS: u32 = 1000;
/// Timers of one node in a second, beside some for each packet of a flood: more are due again and
/// again without need.
pub(super) const WAKES: u32 = 800;
pub(super) const WAKES_OF_STRANGER: u32 = 5;

/// A datagram of a client, and for which of its reads it was said, after which of its requests.
#[derive(Debug)]
pub(super) struct Inbound {
    pub(super) flow: Flow,
    pub(super) bytes: Vec<u8>,
    pub(super) job: Option<usize>,
    pub(super) asks: u32,
}

#[derive(Debug, Default)]
pub(super) struct Host {
    /// None while it is dead.
    pub(super) node: Option<Node>,
    /// Which one it is.
    pub(super) life: u32,
    pub(super) is_paused: bool,
    pub(super) is_draining: bool,
    /// Routes may lead here.
    pub(super) attracts: bool,
    pub(super) shelf: Shelf,
    timer_at: Option<u64>,
    spins: (u64, u32),
    wakes: (u64, u32),
    /// What came while it was paused.
    pub(super) socket: Vec<Inbound>,
}

impl Host {
    pub(super) const fn disarm(&mut self) {
        self.timer_at = None;
    }
}

impl World {
    /// A process begins.
    pub(super) fn start(&mut self, at: usize) {
        let peers = (0..self.hosts.len()).filter(|peer| *peer != at);
        let seed = self.random.next();
        let mut fleet = Fleet::new(node_name(at), peers.map(node_name).collect(), seed);
        fleet.domain = node_name(self.setting.domains[at]);
        fleet.mode = self.setting.mode;
        let settings = Settings::new().with_node(Some(node_name(at)));
        let mut node = Node::new(self.instant(), settings, Some(fleet)).unwrap();
        let (first, later) = self.setting.speaks[at];
        let is_first = self.hosts[at].life == 0;
        node.speak_at_most(if is_first { first } else { later });
        let host = &mut self.hosts[at];
        host.node = Some(node);
        host.life += 1;
        host.is_paused = false;
        host.is_draining = false;
        host.attracts = true;
        host.timer_at = None;
        host.socket.clear();
        self.relink_all(at);
        self.drain(at);
    }

    /// The node, unless it is dead or does nothing.
    fn running(&mut self, at: usize) -> Option<&mut Node> {
        let host = &mut self.hosts[at];
        host.node.as_mut().filter(|_| !host.is_paused)
    }

    /// Something happens to a node, and what follows from it.
    pub(super) fn with_node(
        &mut self,
        at: usize,
        input: impl FnOnce(&mut Node, std::time::Instant),
    ) {
        let now = self.instant();
        if let Some(node) = self.running(at) {
            input(node, now);
            self.drain(at);
        }
    }

    /// A datagram is there.
    pub(super) fn arrives(&mut self, at: usize, inbound: Inbound) {
        if self.hosts[at].node.is_none() || self.is_of_another_time(&inbound) {
            self.count("lost at a node");
            return;
        }
        if self.hosts[at].is_paused {
            if self.hosts[at].socket.len() < SOCKET {
                self.hosts[at].socket.push(inbound);
            }
            return;
        }
        self.take_datagram(at, &inbound);
    }

    pub(super) fn take_datagram(&mut self, at: usize, inbound: &Inbound) {
        let packet = Packet::parse(&inbound.bytes);
        let is_error = matches!(packet, Ok(Packet::Error { .. }));
        let is_request = matches!(packet, Ok(Packet::ReadRequest(_)));
        let is_current = |job: &usize| {
            let visitor = &self.visitors[self.jobs[*job].client];
            is_request && visitor.client.asks == inbound.asks
        };
        let mut asked_first = None;
        if let Some(job) = inbound.job.filter(is_current) {
            let port = inbound.flow.remote.port();
            let asked = &mut self.jobs[job].asked;
            asked_first = (!asked.contains_key(&port)).then_some(job);
            let begun = || (self.now..self.now, BTreeSet::new());
            let (times, nodes) = asked.entry(port).or_insert_with(begun);
            times.end = self.now;
            nodes.insert(at);
        }
        self.say(|| {
            format!(
                "n{at} takes {}: {}",
                inbound.flow.remote,
                show(&inbound.bytes)
            )
        });
        self.watched = (inbound.flow.remote, 0);
        let taken = |host: &Host| host.node.as_ref().map(|node| node.stats().datagrams);
        let before = taken(&self.hosts[at]);
        self.with_node(at, |node, now| {
            node.handle_datagram(now, inbound.flow, &inbound.bytes);
        });
        let is_deaf = taken(&self.hosts[at]) == before;
        if let Some(asked) = asked_first.filter(|_| is_deaf) {
            // It came while the node stood still, which knows nothing of it: it is lost.
            self.jobs[asked].asked.remove(&inbound.flow.remote.port());
        }
        if is_error && self.watched.1 > 0 {
            invariants::an_error_was_answered(self, at, inbound.flow);
        }
    }

    pub(super) fn stored(&mut self, at: usize, life: u32, request: StoreRequest) {
        if self.hosts[at].node.is_none() || self.hosts[at].life != life {
            return;
        }
        if self.hosts[at].is_paused {
            // The process stands still, its threads as well.
            return self.after(10 * MS, Event::Stored(at, life, request));
        }
        let shelf = self.hosts[at].shelf.clone();
        if let Some(reply) = request.run(&shelf) {
            self.with_node(at, |node, now| node.handle_store_reply(now, reply));
        }
    }

    pub(super) fn node_timer(&mut self, at: usize, life: u32) {
        let now = self.instant();
        let host = &mut self.hosts[at];
        if host.life != life || host.timer_at != Some(self.now) {
            return;
        }
        host.timer_at = None;
        if host.is_paused {
            return;
        }
        let Some(node) = host.node.as_mut() else {
            return;
        };
        if node.poll_timeout().is_some_and(|timeout| timeout.at <= now) {
            host.spins = (
                self.now,
                if host.spins.0 == self.now {
                    host.spins.1 + 1
                } else {
                    0
                },
            );
            let second = self.now / SECOND;
            let wakes = match host.wakes {
                (last, count) if last == second => count + 1,
                _ => 0,
            };
            host.wakes = (second, wakes);
            if host.spins.1 > SPINS || wakes > self.setting.wakes() {
                let reason = node.poll_timeout().map(|timeout| timeout.reason);
                self.breaks(|| format!("n{at}: its timer spins: {reason:?}"));
                return;
            }
            node.handle_timeout(now);
        }
        self.drain(at);
    }

    /// All that a node has to say, until it says nothing more.
    pub(super) fn drain(&mut self, at: usize) {
        let now = self.instant();
        let mut buffer = std::mem::take(&mut self.buffer);
        loop {
            let mut is_quiet = true;
            while let Some(request) = self.running(at).and_then(Node::poll_store_request) {
                is_quiet = false;
                let delay = self.random.range(0, self.setting.store);
                let life = self.hosts[at].life;
                self.after(delay, Event::Stored(at, life, request));
            }
            while let Some(transmit) = self
                .running(at)
                .and_then(|node| node.poll_transmit(now, SEGMENTS, &mut buffer))
            {
                is_quiet = false;
                invariants::transmit(self, at, &transmit);
                let segment = transmit.segment_size.unwrap_or(transmit.len).max(1);
                for packet in buffer[..transmit.len].chunks(segment) {
                    invariants::datagram(self, at, transmit.remote, packet);
                    self.send_to_client(at, transmit.remote, packet);
                }
            }
            while let Some((peer, bytes)) = self.running(at).and_then(|node| node.poll_message(now))
            {
                is_quiet = false;
                self.send_letter(at, &peer, bytes);
            }
            while let Some(record) = self.running(at).and_then(Node::poll_event) {
                is_quiet = false;
                self.say(|| {
                    format!(
                        "n{at}: {} {}: {}",
                        record.client, record.file, record.outcome
                    )
                });
            }
            if is_quiet {
                break;
            }
        }
        self.buffer = buffer;
        invariants::node(self, at);
        self.arm(at);
    }

    fn arm(&mut self, at: usize) {
        let Some(timeout) = self.running(at).and_then(|node| node.poll_timeout()) else {
            return;
        };
        let due = self.micros(timeout.at).max(self.now);
        let host = &mut self.hosts[at];
        if host.timer_at.is_none_or(|armed| armed > due) {
            host.timer_at = Some(due);
            let life = host.life;
            self.after(due - self.now, Event::Timer(at, life));
        }
    }
}
