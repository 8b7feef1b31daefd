//! Nodes, clients, the network between them; virtual time.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anycast_core::NodeName;

use super::client::Client;
use super::faults::Down;
use super::files::{File, Shelf, Version, name};
use super::host::{Host, Inbound};
use super::jobs::Job;
use super::mesh::Mesh;
use super::owners::Doubles;
use super::random::Random;
use super::routes::{Route, local};
use super::setting::{Fault, Guest, SECOND, Setting, When};
use crate::proto::jobs::StoreRequest;
use crate::proto::server::MAX_TRANSMIT;

/// More events than any run needs.
const MAX_EVENTS: u64 = 4_000_000;
/// Lines of a trace that are kept.
const TAIL: usize = 20_000;
/// How long a run goes on after the last client has ended, of every eighth seed: all must have been
/// forgotten then.
const AFTERMATH: u64 = 200 * SECOND;

/// How often what happened: a run in which nothing does is vacuous.
pub(super) type Counts = BTreeMap<&'static str, u64>;

#[derive(Debug)]
pub(super) enum Event {
    /// The timer of this life of a node.
    Timer(usize, u32),
    ToNode(usize, Inbound),
    ToClient(Outbound),
    Stored(usize, u32, StoreRequest),
    Message(Letter),
    /// A node is told of a peer, unless their link has changed since.
    Tell(usize, usize, bool, u32),
    Client(usize),
    Begin(usize),
    Fault(Fault),
    /// Who owns which transfer is looked at.
    Census,
}

/// A datagram on its way to a client.
#[derive(Debug)]
pub(super) struct Outbound {
    pub(super) from: usize,
    pub(super) remote: SocketAddr,
    pub(super) sent: u64,
    pub(super) bytes: Vec<u8>,
}

/// What one node tells another, each in this life.
#[derive(Debug, Clone)]
pub(super) struct Letter {
    pub(super) from: (usize, u32),
    pub(super) to: (usize, u32),
    pub(super) bytes: Vec<u8>,
}

/// A rule was broken.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) rule: String,
    pub(super) tail: Vec<String>,
}

/// A version of a file has its name at a node.
#[derive(Debug)]
pub(super) struct Offer {
    pub(super) node: usize,
    pub(super) file: usize,
    pub(super) version: usize,
    pub(super) until: Option<u64>,
}

pub(super) struct Visitor {
    pub(super) client: Client,
    pub(super) guest: Guest,
    pub(super) route: Route,
    /// Its address.
    pub(super) ip: [u8; 4],
    /// The next unused port.
    pub(super) next_port: u16,
    /// Reads that have begun.
    pub(super) begun: usize,
    /// The index of the job that runs, or ran last.
    pub(super) job: Option<usize>,
    pub(super) timer_at: Option<u64>,
    /// Packets lost in a row, both ways.
    pub(super) lost: u8,
    /// Datagrams that are to be lost, from it and to it.
    pub(super) mute: u32,
    pub(super) deaf: u32,
    /// The next one comes twice.
    pub(super) echo: Option<u64>,
}

pub(super) struct World {
    seed: u64,
    pub(super) random: Random,
    pub(super) now: u64,
    base: Instant,
    pub(super) setting: Setting,
    pub(super) hosts: Vec<Host>,
    pub(super) mesh: Mesh,
    pub(super) files: Vec<File>,
    pub(super) visitors: Vec<Visitor>,
    pub(super) jobs: Vec<Job>,
    pub(super) downs: Vec<Down>,
    events: BTreeMap<(u64, u64), Event>,
    serial: u64,
    /// Datagrams that clients have sent.
    pub(super) datagrams: u64,
    /// Faults that wait for something else than a time.
    waiting: Vec<(When, Fault)>,
    pub(super) counts: Counts,
    pub(super) buffer: Vec<u8>,
    is_tracing: bool,
    trace: VecDeque<String>,
    pub(super) broken: Option<String>,
    /// Which version had the name, at which node, from when until when.
    pub(super) offers: Vec<Offer>,
    /// When the last datagram between a client and a node arrives, there and back.
    pub(super) last: BTreeMap<(usize, usize, bool), u64>,
    pub(super) doubles: Doubles,
    /// What was sent to the client whose datagram a node has taken last.
    pub(super) watched: (SocketAddr, u64),
    /// Datagrams that nodes sent to addresses of no client.
    pub(super) to_strangers: u64,
    /// When anything was last sent to a client.
    pub(super) last_sent: u64,
}

pub(super) fn node_name(at: usize) -> NodeName {
    NodeName::new(&format!("n{at}")).unwrap()
}

impl World {
    #[allow(clippy::disallowed_methods, reason = "virtual time starts at any time")]
    pub(super) fn new(seed: u64, setting: Setting, is_tracing: bool) -> Self {
        let files = Self::files(seed, &setting);
        let hosts = (0..setting.nodes).map(|_| Host::default()).collect();
        let mut world = Self {
            seed,
            random: Random::new(seed ^ 0x5eed),
            now: 0,
            base: Instant::now(),
            mesh: Mesh::new(),
            hosts,
            files,
            visitors: Vec::new(),
            jobs: Vec::new(),
            downs: Vec::new(),
            events: BTreeMap::new(),
            serial: 0,
            datagrams: 0,
            waiting: Vec::new(),
            counts: Counts::new(),
            buffer: vec![0; MAX_TRANSMIT],
            is_tracing,
            trace: VecDeque::new(),
            broken: None,
            offers: Vec::new(),
            last: BTreeMap::new(),
            doubles: Doubles::new(),
            watched: (local(), 0),
            to_strangers: 0,
            last_sent: 0,
            setting,
        };
        world.stock();
        world.after(0, Event::Census);
        for at in 0..world.hosts.len() {
            world.start(at);
        }
        for (index, guest) in world.setting.guests.clone().into_iter().enumerate() {
            world.after(guest.begins, Event::Begin(index));
            let [_, _, high, low] = u32::try_from(index + 1).unwrap().to_be_bytes();
            world.visitors.push(Visitor {
                client: Client::new(guest.kind, guest.options),
                route: Route::new(guest.at),
                ip: [198, 51, 100 + high, low],
                guest,
                next_port: 20_000,
                begun: 0,
                job: None,
                timer_at: None,
                lost: 0,
                mute: 0,
                deaf: 0,
                echo: None,
            });
        }
        for (when, fault) in world.setting.faults.clone() {
            match when {
                When::At(at) => world.after(at, Event::Fault(fault)),
                When::Datagram(_) | When::Blocks(..) => world.waiting.push((when, fault)),
            }
        }
        world
    }

    fn files(seed: u64, setting: &Setting) -> Vec<File> {
        let one = |(index, (size, versions)): (usize, &(usize, usize))| {
            let salt = (seed % 1000) << 8 | (index as u64) << 2;
            let version = |number: usize| {
                // Another size as well, but for a file that is to be empty.
                let size = if *size == 0 { 0 } else { size + number * 7 };
                Version::new(salt | number as u64, size)
            };
            File {
                name: name(&format!("f{index}")),
                versions: (0..*versions).map(version).collect(),
            }
        };
        setting.files.iter().enumerate().map(one).collect()
    }

    /// Every node has the first version of each file; of the others the contents, unless it
    /// lacks them.
    fn stock(&mut self) {
        for (at, host) in self.hosts.iter_mut().enumerate() {
            host.shelf = Shelf::default();
            if self.setting.is_cold {
                host.shelf.make_cold();
            }
            for (index, file) in self.files.iter().enumerate() {
                host.shelf.publish(&file.name, &file.versions[0]);
                self.offers.push(Offer {
                    node: at,
                    file: index,
                    version: 0,
                    until: None,
                });
                for version in &file.versions[1..] {
                    if !self.setting.lacks.contains(&at) {
                        host.shelf.hold(version);
                    }
                }
            }
        }
    }

    pub(super) fn instant(&self) -> Instant {
        self.base + Duration::from_micros(self.now)
    }

    pub(super) fn micros(&self, instant: Instant) -> u64 {
        let since = instant.saturating_duration_since(self.base);
        // Rounded up: never too early.
        u64::try_from(since.as_nanos().div_ceil(1000)).unwrap()
    }

    pub(super) fn after(&mut self, delay: u64, event: Event) {
        self.serial += 1;
        self.events.insert((self.now + delay, self.serial), event);
    }

    pub(super) fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    pub(super) fn say(&mut self, line: impl FnOnce() -> String) {
        if !self.is_tracing {
            return;
        }
        if self.trace.len() == TAIL {
            self.trace.pop_front();
        }
        let (seconds, micros) = (self.now / SECOND, self.now % SECOND);
        let line = line();
        self.trace
            .push_back(format!("{seconds:>3}.{micros:06} {line}"));
    }

    pub(super) fn trace(&self) -> String {
        let lines: Vec<&str> = self.trace.iter().map(String::as_str).collect();
        lines.join("\n")
    }

    /// A rule is broken; the first one counts.
    pub(super) fn breaks(&mut self, rule: impl FnOnce() -> String) {
        if self.broken.is_none() {
            let rule = rule();
            self.say(|| format!("BROKEN: {rule}"));
            self.broken = Some(rule);
        }
    }

    /// Until all clients have ended, and what comes after.
    pub(super) fn run(mut self) -> Result<Self, Failure> {
        let mut events = 0;
        let mut until = u64::MAX;
        while self.broken.is_none() {
            let Some(((at, _), event)) = self.events.pop_first() else {
                self.now = until;
                break;
            };
            if at > until {
                self.now = until;
                break;
            }
            self.now = self.now.max(at);
            events += 1;
            if events > MAX_EVENTS {
                self.breaks(|| "it does not come to an end".to_owned());
            }
            self.handle(event);
            if until == u64::MAX && self.is_over() {
                self.mesh.sent_for_clients = self.mesh.sent;
                let is_long = self.seed.is_multiple_of(8);
                until = self.now + if is_long { AFTERMATH } else { SECOND };
            }
        }
        if self.broken.is_none() {
            super::invariants::all_was_understood(&mut self);
        }
        if self.broken.is_none() && self.seed.is_multiple_of(8) {
            super::invariants::all_is_forgotten(&mut self);
        }
        match self.broken.take() {
            None => Ok(self),
            Some(rule) => Err(Failure {
                rule,
                tail: self.trace.into(),
            }),
        }
    }

    fn is_over(&self) -> bool {
        let mut visitors = self.visitors.iter();
        visitors.all(|v| v.begun == v.guest.reads.len() && v.client.ended().is_some())
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Timer(at, life) => self.node_timer(at, life),
            Event::ToNode(at, inbound) => self.arrives(at, inbound),
            Event::ToClient(outbound) => self.arrives_at_client(&outbound),
            Event::Stored(at, life, request) => self.stored(at, life, request),
            Event::Message(letter) => self.letter_arrives(letter),
            Event::Tell(at, peer, is_up, epoch) => self.tell(at, peer, is_up, epoch),
            Event::Client(index) => self.client_timer(index),
            Event::Begin(index) => self.begin_job(index),
            Event::Fault(fault) => self.befalls(fault),
            Event::Census => self.census(),
        }
    }

    /// Faults that were to come with this datagram come after it.
    pub(super) fn count_datagram(&mut self) {
        self.datagrams += 1;
        let count = self.datagrams;
        for fault in self.due(|when| when == When::Datagram(count)) {
            self.after(0, Event::Fault(fault));
        }
    }

    /// And those that were to come with the block that a client has got, before it says so.
    pub(super) fn count_blocks(&mut self, index: usize) {
        if self.waiting.is_empty() {
            return;
        }
        let blocks = self.visitors[index].client.blocks();
        for fault in self.due(|when| when == When::Blocks(index, blocks)) {
            self.befalls(fault);
        }
    }

    fn due(&mut self, is_due: impl Fn(When) -> bool) -> Vec<Fault> {
        let all = std::mem::take(&mut self.waiting);
        let (due, waiting) = all.into_iter().partition(|(when, _)| is_due(*when));
        self.waiting = waiting;
        let due: Vec<(When, Fault)> = due;
        due.into_iter().map(|(_, fault)| fault).collect()
    }
}
