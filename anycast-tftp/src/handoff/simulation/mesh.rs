//! Links between nodes: who can talk, and who is told so.

use std::collections::{BTreeMap, BTreeSet};

use anycast_core::NodeName;

use super::setting::{MS, SECOND};
use super::world::{Event, Letter, World, node_name};
use crate::handoff::limits::MAX_MESSAGE;
use crate::handoff::record::NodeId;
use crate::handoff::wire::{Message, Progress, Standing, VERSION, messages};

/// More messages than that in a second are a storm, whatever there is to ask.
const MAX_PACE: u64 = 20_000;

/// Two nodes could not talk, or one did not know that they could.
#[derive(Debug, Clone, Copy)]
pub(super) struct Apart {
    pub(super) pair: (usize, usize),
    pub(super) from: u64,
    pub(super) until: Option<u64>,
}

#[derive(Debug)]
pub(super) struct Mesh {
    cut: BTreeSet<(usize, usize)>,
    /// Changes whenever a link does; what was to be told before is out of date.
    epochs: BTreeMap<(usize, usize), u32>,
    /// Which life of the peer a node has been told is up.
    told: BTreeMap<(usize, usize), u32>,
    pub(super) apart: Vec<Apart>,
    /// Messages that were sent.
    pub(super) sent: u64,
    /// Of them, before the last client had ended.
    pub(super) sent_for_clients: u64,
    /// In which second so many messages went from one node to another.
    pace: BTreeMap<(usize, usize), (u64, u64)>,
    /// When the last message arrives.
    last: BTreeMap<(usize, usize), u64>,
}

const fn pair(a: usize, b: usize) -> (usize, usize) {
    if a < b { (a, b) } else { (b, a) }
}

impl Mesh {
    pub(super) const fn new() -> Self {
        Self {
            cut: BTreeSet::new(),
            epochs: BTreeMap::new(),
            told: BTreeMap::new(),
            apart: Vec::new(),
            sent: 0,
            sent_for_clients: 0,
            pace: BTreeMap::new(),
            last: BTreeMap::new(),
        }
    }

    /// Whether two nodes were apart at some time between these, by a cut.
    pub(super) fn were_apart(&self, a: usize, b: usize, from: u64, until: u64) -> bool {
        let mut apart = self.apart.iter();
        apart.any(|apart| {
            apart.pair == pair(a, b)
                && apart.from <= until
                && apart.until.is_none_or(|end| end >= from)
        })
    }
}

impl World {
    fn can_pass(&self, a: usize, b: usize) -> bool {
        let runs = |at: usize| self.hosts[at].node.is_some() && !self.hosts[at].is_paused;
        runs(a) && runs(b) && !self.mesh.cut.contains(&pair(a, b))
    }

    pub(super) fn relink_all(&mut self, at: usize) {
        for peer in 0..self.hosts.len() {
            if peer != at {
                self.relink(at, peer);
            }
        }
    }

    /// A link has changed: both ends are told, later.
    fn relink(&mut self, a: usize, b: usize) {
        let epoch = self.mesh.epochs.entry(pair(a, b)).or_default();
        *epoch += 1;
        let epoch = *epoch;
        let can = self.can_pass(a, b);
        for (at, peer) in [(a, b), (b, a)] {
            let told = self.mesh.told.get(&(at, peer)).copied();
            if can && told != Some(self.hosts[peer].life) {
                let delay = self.random.range(20 * MS, 300 * MS);
                self.after(delay, Event::Tell(at, peer, true, epoch));
            } else if !can && told.is_some() {
                let delay = self.random.range(950 * MS, 1050 * MS);
                self.after(delay, Event::Tell(at, peer, false, epoch));
            }
        }
    }

    pub(super) fn tell(&mut self, at: usize, peer: usize, is_up: bool, epoch: u32) {
        if self.mesh.epochs.get(&pair(at, peer)) != Some(&epoch) {
            return;
        }
        if self.hosts[at].node.is_none() || self.hosts[at].is_paused {
            return;
        }
        // A new process at the peer: the old link is gone first.
        self.tell_down(at, peer);
        if is_up {
            let life = self.hosts[peer].life;
            self.mesh.told.insert((at, peer), life);
            self.say(|| format!("n{at} is told that n{peer} is up"));
            self.with_node(at, |node, now| {
                node.handle_peer(now, &node_name(peer), true)
            });
            self.are_together(at, peer);
        }
    }

    pub(super) fn tell_down(&mut self, at: usize, peer: usize) {
        if self.mesh.told.remove(&(at, peer)).is_some() {
            self.say(|| format!("n{at} is told that n{peer} is down"));
            self.with_node(at, |node, now| {
                node.handle_peer(now, &node_name(peer), false)
            });
        }
    }

    /// The end of a cut is when both know of it.
    fn are_together(&mut self, a: usize, b: usize) {
        let both = [(a, b), (b, a)];
        if both.iter().all(|key| self.mesh.told.contains_key(key)) {
            let now = self.now;
            let apart = self.mesh.apart.iter_mut();
            for apart in apart.filter(|apart| apart.pair == pair(a, b)) {
                apart.until.get_or_insert(now);
            }
        }
    }

    /// What a dead node knew of its links is gone.
    pub(super) fn forget_links(&mut self, at: usize) {
        self.mesh.told.retain(|(one, _), _| *one != at);
    }

    /// Whether this node has been told that the peer is gone.
    pub(super) fn knows_peer(&self, at: usize, peer: usize) -> bool {
        self.mesh.told.contains_key(&(at, peer))
    }

    pub(super) fn cut(&mut self, sides: &[bool]) {
        for a in 0..self.hosts.len() {
            for b in a + 1..self.hosts.len() {
                if sides[a] != sides[b] && self.mesh.cut.insert((a, b)) {
                    self.say(|| format!("n{a} and n{b} are cut off from each other"));
                    self.mesh.apart.push(Apart {
                        pair: (a, b),
                        from: self.now,
                        until: None,
                    });
                    self.relink(a, b);
                }
            }
        }
    }

    pub(super) fn heal(&mut self) {
        for (a, b) in std::mem::take(&mut self.mesh.cut) {
            self.say(|| format!("n{a} and n{b} can talk again"));
            self.relink(a, b);
            if [(a, b), (b, a)]
                .iter()
                .all(|key| self.mesh.told.contains_key(key))
            {
                self.are_together(a, b);
            }
        }
    }

    /// A node has a message for a peer.
    pub(super) fn send_letter(&mut self, from: usize, peer: &NodeName, bytes: Vec<u8>) {
        self.mesh.sent += 1;
        if bytes.len() > MAX_MESSAGE {
            self.breaks(|| format!("n{from}: a message of {} bytes", bytes.len()));
        }
        let Some(to) = (0..self.hosts.len()).find(|at| node_name(*at) == *peer) else {
            return self.breaks(|| format!("n{from}: a message to {peer}, whoever that is"));
        };
        self.count("messages");
        let pace = self.mesh.pace.entry((from, to)).or_default();
        let count = if pace.0 == self.now / SECOND {
            pace.1
        } else {
            0
        };
        *pace = (self.now / SECOND, count + 1);
        if count > MAX_PACE {
            self.breaks(|| format!("(d) n{from} has said {count} things to n{to} in a second"));
        }
        // It goes by the link, to the process at its other end.
        let Some(life) = self.mesh.told.get(&(from, to)).copied() else {
            return;
        };
        let last = self.mesh.last.entry((from, to)).or_default();
        let fate = (self.setting.mesh).fate(&mut self.random, true, self.now, last);
        self.say(|| {
            let lost = if fate[0].is_none() { ", lost" } else { "" };
            format!("n{from} => n{to}: {}{lost}", describe(&bytes))
        });
        for delay in fate.into_iter().flatten() {
            let letter = Letter {
                from: (from, self.hosts[from].life),
                to: (to, life),
                bytes: bytes.clone(),
            };
            self.after(delay, Event::Message(letter));
        }
    }

    pub(super) fn letter_arrives(&mut self, letter: Letter) {
        let (from, life) = letter.from;
        let (to, to_life) = letter.to;
        let is_same = self.hosts[from].life == life && self.hosts[to].life == to_life;
        let is_dead = self.hosts[to].node.is_none();
        if !is_same || is_dead || self.mesh.cut.contains(&pair(from, to)) {
            return;
        }
        if self.hosts[to].is_paused {
            // It lies in the socket.
            return self.after(10 * MS, Event::Message(letter));
        }
        self.say(|| format!("n{to} hears n{from}: {}", describe(&letter.bytes)));
        self.with_node(to, |node, now| {
            node.handle_message(now, &node_name(from), &letter.bytes);
        });
    }

    /// The longest time until both ends of a link that works know of it.
    pub(super) const fn telling() -> u64 {
        SECOND + 350 * MS
    }
}

/// For a trace.
fn describe(bytes: &[u8]) -> String {
    let one = |message: Result<Message, _>| match message {
        Ok(Message::Put(standing)) => put(&standing),
        Ok(Message::Refused {
            nonce,
            is_over,
            standing,
        }) => {
            let other = put(&standing);
            format!("Refused {{ nonce: {nonce}, is_over: {is_over} }} for {other}")
        }
        Ok(message) => format!("{message:?}"),
        Err(error) => format!("{error}"),
    };
    let all: Vec<String> = messages(bytes, VERSION).map(one).collect();
    let mut text = all.join("; ");
    for at in 0..8 {
        let name = node_name(at);
        text = text.replace(&format!("{:?}", NodeId::of(&name)), &format!("{name}"));
    }
    let text = text.replace("flow: Flow { remote: ", "");
    text.replace(", local: 192.0.2.69:69 }", "")
}

fn put(standing: &Standing) -> String {
    let Standing { record, view } = standing;
    let Progress {
        tenure,
        acked,
        silence,
        ..
    } = view.progress;
    format!(
        "Put {{ {}, nonce: {}, order: {}, {tenure:?}, acked: {acked}, silence: {silence:?}, lease: {:?}, hold: {:?} }}",
        record.flow.remote, record.nonce, record.order, view.lease, view.hold,
    )
}
