//! The nodes, what is under way between them, and what befalls them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::{Duration, Instant};

use super::super::{MARGIN, TURN_FOR, Turns};
use super::node::{Clock, DEAD_MAN, Node, SECOND, name};
use crate::announce::Preference;
use crate::invariants::{self, Turned};
use crate::mesh::wire::Message;

const CHAOS: u64 = 240 * SECOND;
/// How much faster than the true time a clock may run, and how much slower.
const DRIFT: u64 = 25_000;

/// How often what happened.
#[derive(Debug, Default)]
pub(super) struct Counts(BTreeMap<&'static str, u64>);

impl Counts {
    pub(super) fn add(&mut self, other: &Self) {
        for (what, count) in &other.0 {
            *self.0.entry(what).or_default() += count;
        }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.0.iter().map(|(what, count)| (*what, *count))
    }
}

#[derive(Debug, Clone)]
enum Event {
    Wake(usize),
    Probe(usize),
    Status(usize),
    /// The machine hears what the engine has, and the engine what the machine wants.
    Tell(usize),
    Parts(usize),
    /// The latest decision comes into force.
    Apply(usize),
    RunsOut(usize),
    Deliver {
        to: usize,
        from: usize,
        connection: u64,
        message: Box<Message>,
    },
    /// One end notices that the connection stands, or that it does not any more.
    Up(usize, usize, u64),
    Down(usize, usize, u64),
    Dial(usize, usize),
    Start(usize),
    Misfortune,
}

pub(super) struct World {
    now: u64,
    rng: u64,
    spacing: Duration,
    nodes: Vec<Node>,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    events: BTreeMap<u64, Event>,
    next: u64,
    /// The connection of a pair as each end knows it; the second is what stands.
    ends: BTreeMap<(usize, usize), u64>,
    stands: BTreeMap<(usize, usize), u64>,
    connections: u64,
    /// When each is to be woken; another time is out of date.
    wakes: Vec<Option<u64>>,
    /// Pairs that cannot reach each other.
    cut: Vec<(usize, usize)>,
    /// Only whole sides are cut off from each other.
    by_sides: bool,
    /// One misfortune comes upon the other.
    hectic: bool,
    turned: Vec<Turned>,
    /// The changes that were made in them.
    changed: Vec<Turned>,
    counts: Counts,
    /// What a process had broken when it died.
    broken: Option<String>,
}

impl World {
    pub(super) fn run(seed: u64) -> Result<Counts, String> {
        let mut world = Self::new(seed);
        world.go_on(CHAOS)?;
        world.heal();
        let size = u64::try_from(world.nodes.len()).unwrap();
        let spacing = u64::try_from(world.spacing.as_micros()).unwrap();
        // Two new givers, and a turn for each.
        let patience = 60 * SECOND + 3 * spacing + size * (spacing + 14 * SECOND);
        let until = world.now + patience;
        while world.now < until && !world.all_preferred() {
            world.go_on((world.now + SECOND).min(until))?;
        }
        if !world.all_preferred() {
            return Err(format!("not all joined: {}", world.describe()));
        }
        world.close();
        for node in &world.nodes {
            node.judge()
                .map_err(|broken| format!("{}: {broken}", node.name))?;
        }
        // The giver waits by its own clock.
        let least = world.spacing * 95 / 100;
        for turns in [&world.turned, &world.changed] {
            invariants::f12_one_at_a_time(turns, least).map_err(|broken| broken.to_string())?;
        }
        Ok(world.counts)
    }

    fn new(seed: u64) -> Self {
        let mut world = Self {
            now: SECOND,
            rng: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d,
            spacing: Duration::ZERO,
            nodes: Vec::new(),
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            next: 0,
            ends: BTreeMap::new(),
            stands: BTreeMap::new(),
            connections: 0,
            wakes: Vec::new(),
            broken: None,
            cut: Vec::new(),
            by_sides: false,
            hectic: false,
            turned: Vec::new(),
            changed: Vec::new(),
            counts: Counts::default(),
        };
        let size = usize::try_from(world.range(2, 6)).unwrap();
        world.spacing = Duration::from_secs(world.range(1, 15));
        world.by_sides = world.chance(50);
        world.hectic = world.chance(60);
        let base = Instant::now();
        for index in 0..size {
            let rate = SECOND - DRIFT + world.range(0, 2 * DRIFT);
            let old = world.by_sides && world.chance(15);
            let is_preferred = world.chance(30);
            world.nodes.push(Node {
                name: name(index),
                clock: Clock { base, rate },
                speaks: !old,
                process: None,
                is_preferred,
                runs_out: None,
                is_well: true,
                incarnation: 0,
                held: None,
            });
        }
        world.wakes = vec![None; size];
        (0..size).for_each(|index| world.start(index));
        let first = world.now + world.range(0, 60 * SECOND);
        world.put(first, Event::Misfortune);
        world
    }

    fn start(&mut self, index: usize) {
        let size = self.nodes.len();
        let peers: Vec<_> = (0..size).filter(|n| *n != index).map(name).collect();
        let (now, spacing) = (self.now, self.spacing);
        self.nodes[index].start(now, spacing, &peers);
        self.nodes[index].runs_out = None;
        for event in [
            Event::Probe(index),
            Event::Status(index),
            Event::Parts(index),
        ] {
            self.put(now, event);
        }
        for other in (0..size).filter(|n| *n != index) {
            let at = now + self.range(0, SECOND);
            self.put(at, Event::Dial(index, other));
        }
    }

    fn kill(&mut self, index: usize) {
        self.counted("kill");
        self.release(index);
        let judged = self.nodes[index].judge();
        self.broken = self
            .broken
            .take()
            .or(judged.err().map(|broken| broken.to_string()));
        self.nodes[index].process = None;
        let dead_man = u64::try_from(DEAD_MAN.as_micros()).unwrap();
        let at = self.now + self.range(dead_man / 2, dead_man * 9 / 10);
        self.nodes[index].runs_out = Some(at);
        self.put(at, Event::RunsOut(index));
        for other in 0..self.nodes.len() {
            self.break_off(index, other);
            self.ends.remove(&(index, other));
        }
    }

    /// The connection does not stand any more; each end notices when it does.
    fn break_off(&mut self, one: usize, other: usize) {
        let pair = (one.min(other), one.max(other));
        let Some(connection) = self.stands.remove(&pair) else {
            return;
        };
        for (at, peer) in [(one, other), (other, one)] {
            let notices = self.now + self.range(0, 1_500_000);
            self.put(notices, Event::Down(at, peer, connection));
        }
        let again = self.now + self.range(SECOND, 4 * SECOND);
        self.put(again, Event::Dial(one, other));
    }

    fn go_on(&mut self, until: u64) -> Result<(), String> {
        while let Some(Reverse((at, number))) = self.queue.peek().copied() {
            if at > until {
                break;
            }
            self.queue.pop();
            let event = self.events.remove(&number).unwrap();
            self.now = self.now.max(at);
            let touched = self.happen(event);
            if let Some(index) = touched {
                self.follow(index)?;
            }
            if let Some(broken) = self.broken.take() {
                return Err(broken);
            }
        }
        self.now = until;
        Ok(())
    }

    /// Whom it touched.
    fn happen(&mut self, event: Event) -> Option<usize> {
        let now = self.now;
        match event {
            Event::Wake(index) => {
                self.wakes[index].take_if(|at| *at == now)?;
                let at = self.nodes[index].clock.at(now);
                self.turns(index)?.handle_timeout(at);
                Some(index)
            }
            Event::Probe(index) => {
                self.nodes[index].process.as_ref()?;
                self.nodes[index].probe(now);
                self.put(now + SECOND, Event::Probe(index));
                Some(index)
            }
            Event::Status(index) => {
                let status = self.nodes[index].status()?;
                for other in 0..self.nodes.len() {
                    self.send(index, other, &Message::Status(status.clone()));
                }
                let again = now + SECOND;
                self.put(again, Event::Status(index));
                None
            }
            Event::Tell(index) => {
                if self.nodes[index].tell(now) {
                    self.counted("change in turn");
                    let at = Duration::from_micros(now);
                    self.changed.push(Turned {
                        node: name(index),
                        from: at,
                        until: at,
                    });
                }
                Some(index)
            }
            Event::Parts(index) => {
                let spacing = self.spacing;
                self.nodes[index].parts(now, spacing);
                Some(index)
            }
            Event::Apply(index) => {
                let node = &mut self.nodes[index];
                let machine = &node.process.as_ref()?.machine;
                node.is_preferred = machine.preference() == Preference::Preferred;
                Some(index)
            }
            Event::RunsOut(index) => {
                let node = &mut self.nodes[index];
                if node.runs_out == Some(now) && node.process.is_none() {
                    node.is_preferred = false;
                }
                None
            }
            event @ (Event::Deliver { .. } | Event::Dial(..) | Event::Up(..) | Event::Down(..)) => {
                self.happen_between(event)
            }
            Event::Start(index) => {
                if self.nodes[index].process.is_none() {
                    self.counted("start");
                    self.start(index);
                }
                None
            }
            Event::Misfortune => {
                self.misfortune();
                let most = if self.hectic { 5 } else { 30 };
                let again = now + self.range(100_000, most * SECOND);
                if again < CHAOS {
                    self.put(again, Event::Misfortune);
                }
                None
            }
        }
    }

    /// What happens to a connection.
    fn happen_between(&mut self, event: Event) -> Option<usize> {
        let now = self.now;
        match event {
            Event::Deliver {
                to,
                from,
                connection,
                message,
            } => {
                if self.ends.get(&(to, from)) != Some(&connection) {
                    return None;
                }
                self.deliver(to, from, *message);
                Some(to)
            }
            Event::Dial(one, other) => {
                let pair = (one.min(other), one.max(other));
                let both = [one, other]
                    .iter()
                    .all(|n| self.nodes[*n].process.is_some());
                if !both || self.cut.contains(&pair) || self.stands.contains_key(&pair) {
                    return None;
                }
                self.connections += 1;
                let connection = self.connections;
                self.stands.insert(pair, connection);
                for (at, peer) in [(one, other), (other, one)] {
                    let notices = now + self.range(0, 100_000);
                    self.put(notices, Event::Up(at, peer, connection));
                }
                None
            }
            Event::Up(at, peer, connection) => {
                let pair = (at.min(peer), at.max(peer));
                if self.stands.get(&pair) != Some(&connection) {
                    return None;
                }
                self.ends.insert((at, peer), connection);
                let version = if self.nodes[peer].speaks { 2 } else { 1 };
                let (clock, name) = (self.nodes[at].clock.at(now), name(peer));
                if let Some(turns) = self.turns(at) {
                    turns.handle_up(clock, &name, version);
                }
                // Said to the new one at once.
                let status = self.nodes[at].status()?;
                self.send(at, peer, &Message::Status(status));
                Some(at)
            }
            Event::Down(at, peer, connection) => {
                if self.ends.get(&(at, peer)) != Some(&connection) {
                    return None;
                }
                self.ends.remove(&(at, peer));
                let (clock, name) = (self.nodes[at].clock.at(now), name(peer));
                self.turns(at)?.handle_down(clock, &name);
                Some(at)
            }
            Event::Wake(_)
            | Event::Probe(_)
            | Event::Status(_)
            | Event::Tell(_)
            | Event::Parts(_)
            | Event::Apply(_)
            | Event::RunsOut(_)
            | Event::Start(_)
            | Event::Misfortune => None,
        }
    }

    fn deliver(&mut self, to: usize, from: usize, message: Message) {
        let (now, peer) = (self.nodes[to].clock.at(self.now), name(from));
        let Some(turns) = self.turns(to) else {
            return;
        };
        match message {
            Message::Status(status) => turns.handle_status(now, &peer, &status),
            Message::TurnRequest(request) => turns.handle_request(now, &peer, request),
            Message::Turn(turn) => turns.handle_turn(now, &peer, &turn),
            Message::VoteRequest(request) => turns.handle_vote_request(now, &peer, request),
            Message::Vote(vote) => turns.handle_vote(now, &peer, vote),
            Message::Hello(_)
            | Message::Ping(_)
            | Message::Pong(_)
            | Message::GrantRequest(_)
            | Message::Grant(_) => {}
        }
    }

    /// Carries out what came of it, and looks whether the rules hold.
    fn follow(&mut self, index: usize) -> Result<(), String> {
        let now = self.now;
        while let Some((peer, message)) = self.turns(index).and_then(Turns::poll_output) {
            let other = (0..self.nodes.len()).find(|n| name(*n) == peer).unwrap();
            self.send(index, other, &message);
        }
        if let Some((at, _)) = self.turns(index).and_then(|turns| turns.poll_timeout()) {
            let at = self.nodes[index].clock.when(at).max(now + 1);
            if self.wakes[index] != Some(at) {
                self.wakes[index] = Some(at);
                self.put(at, Event::Wake(index));
            }
        }
        if self.nodes[index].has_news() && self.nodes[index].process.is_some() {
            let status = self.nodes[index].status().unwrap();
            for other in 0..self.nodes.len() {
                self.send(index, other, &Message::Status(status.clone()));
            }
        }
        // Other tasks carry news between engine and machine, and put decisions into force.
        for event in [Event::Tell(index), Event::Parts(index)] {
            let at = now + self.range(1, 50_000);
            self.once(at, event);
        }
        let node = &self.nodes[index];
        let wants = node
            .process
            .as_ref()
            .map(|p| p.machine.preference() == Preference::Preferred);
        if wants.is_some_and(|wants| wants != node.is_preferred) {
            // Now and then an announcer hangs.
            let most = if self.chance(15) { 15 } else { 2 };
            let at = now + self.range(1000, most * SECOND);
            self.once(at, Event::Apply(index));
        }
        self.note_turn(index);
        let holders: Vec<_> = (0..self.nodes.len())
            .filter(|n| self.has_turn(*n))
            .collect();
        if holders.len() > 1 {
            return Err(format!(
                "two have the turn: {holders:?}; {}",
                self.describe()
            ));
        }
        Ok(())
    }

    /// One of a kind at a time.
    fn once(&mut self, at: u64, event: Event) {
        let is_there = self.events.values().any(|other| match (other, &event) {
            (Event::Tell(a), Event::Tell(b))
            | (Event::Parts(a), Event::Parts(b))
            | (Event::Apply(a), Event::Apply(b)) => a == b,
            _ => false,
        });
        if is_there {
            return;
        }
        let changes = match &event {
            Event::Tell(index) => self.nodes[*index].is_untold(),
            Event::Parts(index) => self.nodes[*index].is_unasked(self.spacing),
            Event::Apply(_)
            | Event::Wake(_)
            | Event::Probe(_)
            | Event::Status(_)
            | Event::RunsOut(_)
            | Event::Deliver { .. }
            | Event::Up(..)
            | Event::Down(..)
            | Event::Dial(..)
            | Event::Start(_)
            | Event::Misfortune => true,
        };
        if changes {
            self.put(at, event);
        }
    }

    fn has_turn(&self, index: usize) -> bool {
        let node = &self.nodes[index];
        node.turn()
            .is_some_and(|until| until > node.clock.at(self.now))
    }

    fn note_turn(&mut self, index: usize) {
        let turn = self.nodes[index].turn();
        let same = self.nodes[index].held.map(|(_, until)| until) == turn;
        if same {
            return;
        }
        self.release(index);
        if let Some(until) = turn {
            self.counted("turn");
            self.nodes[index].held = Some((self.now, until));
        }
    }

    /// The turn that it had is over.
    fn release(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        if let Some((from, until)) = node.held.take() {
            let until = node.clock.when(until).min(self.now);
            let (from, until) = (Duration::from_micros(from), Duration::from_micros(until));
            // One that was cut off for a moment has the same turn again, until its end.
            let same = self.turned.last_mut().filter(|last| {
                last.node == node.name && from < last.from + TURN_FOR + TURN_FOR / MARGIN
            });
            match same {
                Some(last) => last.until = until,
                None => self.turned.push(Turned {
                    node: node.name.clone(),
                    from,
                    until,
                }),
            }
        }
    }

    fn close(&mut self) {
        for index in 0..self.nodes.len() {
            self.release(index);
        }
    }

    fn send(&mut self, from: usize, to: usize, message: &Message) {
        let Some(connection) = self.ends.get(&(from, to)).copied() else {
            return;
        };
        let is_late = self.chance(if self.hectic { 15 } else { 3 });
        let copies = if self.chance(4) {
            0
        } else if self.chance(4) {
            2
        } else {
            1
        };
        for _ in 0..copies {
            let delay = if is_late {
                self.range(SECOND, 8 * SECOND)
            } else {
                self.range(1000, 60_000)
            };
            // A status that is overtaken would end a connection.
            let is_status = matches!(message, Message::Status(_));
            let delay = if is_status { 1000 } else { delay };
            let event = Event::Deliver {
                to,
                from,
                connection,
                message: Box::new(message.clone()),
            };
            self.put(self.now + delay, event);
        }
    }

    fn misfortune(&mut self) {
        let size = u64::try_from(self.nodes.len()).unwrap();
        let index = usize::try_from(self.range(0, size - 1)).unwrap();
        match self.range(0, 10) {
            0 | 1 => {
                if self.nodes[index].process.is_some() {
                    self.kill(index);
                }
                let most = if self.chance(70) { 3 } else { 40 };
                let again = self.now + self.range(0, most * SECOND);
                self.put(again, Event::Start(index));
            }
            2 | 3 => {
                self.counted("cut");
                let ones = self.range(1, (1 << size) - 2);
                for one in 0..self.nodes.len() {
                    for other in one + 1..self.nodes.len() {
                        let apart = (ones >> one) & 1 != (ones >> other) & 1;
                        let cuts = if self.by_sides {
                            apart
                        } else {
                            self.chance(30)
                        };
                        if cuts {
                            self.cut.push((one, other));
                            self.break_off(one, other);
                        }
                    }
                }
            }
            4 | 5 => {
                self.cut.clear();
                self.dial_all();
            }
            6 => {
                self.counted("fails");
                self.nodes[index].is_well = false;
            }
            7 => self.nodes.iter_mut().for_each(|node| node.is_well = true),
            8 => {
                self.counted("drain");
                self.order(index, true);
            }
            9 => self.order(index, false),
            _ => (0..self.nodes.len()).for_each(|index| self.order(index, false)),
        }
    }

    fn order(&mut self, index: usize, drain: bool) {
        let now = self.now;
        self.nodes[index].order(now, drain);
        self.once(now, Event::Parts(index));
    }

    fn dial_all(&mut self) {
        for one in 0..self.nodes.len() {
            for other in one + 1..self.nodes.len() {
                let at = self.now + self.range(0, SECOND);
                self.put(at, Event::Dial(one, other));
            }
        }
    }

    fn heal(&mut self) {
        self.cut.clear();
        for index in 0..self.nodes.len() {
            self.nodes[index].is_well = true;
            if self.nodes[index].process.is_none() {
                self.start(index);
            }
            self.order(index, false);
        }
        self.dial_all();
    }

    fn all_preferred(&self) -> bool {
        self.nodes.iter().all(|node| node.is_preferred)
    }

    fn describe(&self) -> String {
        let nodes = self.nodes.iter().map(|node| {
            let process = node.process.as_ref();
            format!(
                "\n{} preferred {} well {} speaks {}: {} ({}) {:?}",
                node.name,
                node.is_preferred,
                node.is_well,
                node.speaks,
                process.map_or("dead".to_owned(), |p| p.machine.state().to_string()),
                process.map_or(String::new(), |p| p.machine.reason().to_string()),
                process.and_then(|p| p.turns.as_ref()),
            )
        });
        format!("at {} s: {}", self.now / SECOND, nodes.collect::<String>())
    }

    fn turns(&mut self, index: usize) -> Option<&mut Turns> {
        self.nodes[index].process.as_mut()?.turns.as_mut()
    }

    fn put(&mut self, at: u64, event: Event) {
        self.next += 1;
        self.queue.push(Reverse((at, self.next)));
        self.events.insert(self.next, event);
    }

    fn counted(&mut self, what: &'static str) {
        *self.counts.0.entry(what).or_default() += 1;
    }

    fn random(&mut self) -> u64 {
        self.rng = self.rng.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.rng;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Both ends included.
    fn range(&mut self, least: u64, most: u64) -> u64 {
        least + self.random() % (most - least + 1)
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.random() % 100 < percent
    }
}
