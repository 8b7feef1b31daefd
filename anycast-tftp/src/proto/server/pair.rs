//! The server engine and client engines joined in virtual time by a bad network, with a
//! store that takes its time.
#![allow(clippy::disallowed_methods, reason = "a test begins at some instant")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::super::client::{Client, Failure, Settings as ClientSettings};
use super::super::jobs::StoreReply;
use super::super::settings::Settings;
use super::super::table::Flow;
use super::{MAX_TRANSMIT, Server};
use crate::store::{
    Content, CreateError, FileName, MemoryStore, OpenError, ReadError, Store, Upload, WritePolicy,
};

pub(super) const LOCAL: &str = "192.0.2.69:69";

/// More steps than any transfer of these tests can need.
const MAX_STEPS: u32 = 3_000_000;

pub(super) fn name(text: &str) -> FileName {
    FileName::from_wire(text.as_bytes()).unwrap()
}

pub(super) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i ^ (i >> 7) ^ (i >> 15)) as u8).collect()
}

/// Content whose bytes are never in memory the first time they are asked for.
#[derive(Debug)]
struct Cold {
    content: Arc<dyn Content>,
    is_warm: AtomicBool,
}

impl Content for Cold {
    fn size(&self) -> u64 {
        self.content.size()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        self.is_warm.store(true, Ordering::Relaxed);
        self.content.read_at(offset, buf)
    }

    fn try_read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        // Warm once, cold again: the worst cache there is.
        if self.is_warm.swap(false, Ordering::Relaxed) {
            return self.content.read_at(offset, buf);
        }
        Err(ReadError::WouldBlock)
    }
}

#[derive(Debug)]
pub(super) struct ColdStore(pub(super) MemoryStore);

impl Store for ColdStore {
    fn open(&self, name: &FileName) -> Result<Arc<dyn Content>, OpenError> {
        Ok(Arc::new(Cold {
            content: self.0.open(name)?,
            is_warm: AtomicBool::new(false),
        }))
    }

    fn create(&self, name: &FileName, policy: WritePolicy) -> Result<Box<dyn Upload>, CreateError> {
        self.0.create(name, policy)
    }
}

/// How many packets in a row a network may lose in one direction.
const MAX_LOST: u8 = 2;

/// What the network does to each packet, over and over.
#[derive(Debug, Clone)]
pub(super) struct Fates {
    fates: Vec<u8>,
    next: usize,
    /// Lost in a row, to the server and to clients.
    lost: [u8; 2],
}

impl Fates {
    pub(super) fn new(fates: Vec<u8>) -> Self {
        Self {
            fates,
            next: 0,
            lost: [0; 2],
        }
    }

    pub(super) fn none() -> Self {
        Self::new(vec![15])
    }

    /// Of 16: two lost, one doubled, one late, one very late.
    fn delays(&mut self, is_to_client: bool) -> &'static [u64] {
        let fate = self.fates[self.next % self.fates.len()] % 16;
        self.next += 1;
        let lost = &mut self.lost[usize::from(is_to_client)];
        if fate < 2 && *lost < MAX_LOST {
            *lost += 1;
            return &[];
        }
        *lost = 0;
        match fate {
            2 => &[5, 9],
            3 => &[40],
            4 => &[400],
            _ => &[5],
        }
    }
}

#[derive(Debug)]
enum Event {
    ToServer(usize, Vec<u8>),
    ToClient(usize, Vec<u8>),
    Store(StoreReply),
}

pub(super) struct Peer {
    pub(super) client: Client,
    pub(super) received: Vec<u8>,
    source: Vec<u8>,
    taken: usize,
}

pub(super) struct World {
    pub(super) server: Server,
    pub(super) peers: Vec<Peer>,
    pub(super) now: Instant,
    /// Datagrams that the server sent.
    pub(super) sent: u64,
    store: Arc<dyn Store>,
    segments: usize,
    fates: Fates,
    events: BTreeMap<(Instant, u64), Event>,
    serial: u64,
}

impl World {
    pub(super) fn new(settings: Settings, store: Arc<dyn Store>, fates: Fates) -> Self {
        Self {
            server: Server::new(settings).unwrap(),
            peers: Vec::new(),
            now: Instant::now(),
            sent: 0,
            store,
            segments: 16,
            fates,
            events: BTreeMap::new(),
            serial: 0,
        }
    }

    fn local() -> SocketAddr {
        LOCAL.parse().unwrap()
    }

    pub(super) fn remote(index: usize) -> SocketAddr {
        SocketAddr::from(([198, 51, 100, 1], 10_000 + u16::try_from(index).unwrap()))
    }

    /// A client's settings that outlast any loss of these tests.
    pub(super) fn patient() -> ClientSettings {
        ClientSettings::plain()
            .retries(1000)
            .give_up(Duration::from_secs(7200))
            .dally(Duration::from_secs(60))
    }

    pub(super) fn read(&mut self, file: &str, settings: ClientSettings) {
        let client = Client::read(Self::local(), file.as_bytes(), settings, self.now).unwrap();
        self.add(client, Vec::new());
    }

    pub(super) fn write(&mut self, file: &str, bytes: Vec<u8>, settings: ClientSettings) {
        let size = Some(bytes.len() as u64);
        let client =
            Client::write(Self::local(), file.as_bytes(), size, settings, self.now).unwrap();
        self.add(client, bytes);
    }

    fn add(&mut self, client: Client, source: Vec<u8>) {
        self.peers.push(Peer {
            client,
            received: Vec::new(),
            source,
            taken: 0,
        });
    }

    fn later(&mut self, delay: u64, event: Event) {
        self.serial += 1;
        let at = self.now + Duration::from_millis(delay);
        self.events.insert((at, self.serial), event);
    }

    fn flush(&mut self) {
        self.flush_server();
        for index in 0..self.peers.len() {
            self.flush_client(index);
        }
    }

    fn flush_server(&mut self) {
        let mut buf = vec![0; MAX_TRANSMIT];
        loop {
            while let Some(request) = self.server.poll_store_request() {
                if let Some(reply) = request.run(&*self.store) {
                    let delay = u64::from(self.serial.is_multiple_of(3)) * 30;
                    self.later(delay, Event::Store(reply));
                }
            }
            let Some(transmit) = self.server.poll_transmit(self.now, self.segments, &mut buf)
            else {
                return;
            };
            assert_eq!(transmit.local, Self::local());
            let segment = transmit.segment_size.unwrap_or(transmit.len);
            let index = usize::from(transmit.remote.port() - 10_000);
            for packet in buf[..transmit.len].chunks(segment) {
                self.sent += 1;
                for delay in self.fates.delays(true) {
                    self.later(*delay, Event::ToClient(index, packet.to_vec()));
                }
            }
        }
    }

    fn flush_client(&mut self, index: usize) {
        let mut buf = vec![0; MAX_TRANSMIT];
        loop {
            let peer = &mut self.peers[index];
            while let Some(len) = peer.client.wants_block() {
                let end = peer.source.len().min(peer.taken + len);
                assert!(peer.client.handle_block(&peer.source[peer.taken..end]));
                peer.taken = end;
            }
            let Some(transmit) = peer.client.poll_transmit(self.now, &mut buf) else {
                return;
            };
            for delay in self.fates.delays(false) {
                self.later(*delay, Event::ToServer(index, buf[..transmit.len].to_vec()));
            }
        }
    }

    /// Lets the next thing happen. False: nothing ever will.
    pub(super) fn step(&mut self) -> bool {
        self.flush();
        let clients = self.peers.iter().filter_map(|peer| {
            let is_running = peer.client.outcome().is_none();
            peer.client.poll_timeout().filter(|_| is_running)
        });
        let next = clients
            .map(|(at, _)| at)
            .chain(self.events.keys().next().map(|(at, _)| *at))
            .chain(self.server.poll_timeout().map(|timeout| timeout.at))
            .min();
        let Some(next) = next else { return false };
        self.now = self.now.max(next);
        if let Some(entry) = self.events.first_entry()
            && entry.key().0 <= self.now
        {
            match entry.remove() {
                Event::ToServer(index, packet) => {
                    let flow = Flow {
                        remote: Self::remote(index),
                        local: Self::local(),
                    };
                    self.server.handle_datagram(self.now, flow, &packet);
                }
                Event::ToClient(index, packet) => {
                    let peer = &mut self.peers[index];
                    let payload = peer
                        .client
                        .handle_datagram(self.now, Self::local(), &packet);
                    peer.received.extend(payload.unwrap_or_default());
                }
                Event::Store(reply) => self.server.handle_store_reply(self.now, reply),
            }
        }
        self.server.handle_timeout(self.now);
        for peer in &mut self.peers {
            peer.client.handle_timeout(self.now);
        }
        true
    }

    /// Runs until every client has ended and the server has forgotten them all.
    pub(super) fn run(&mut self) -> Vec<Result<(), Failure>> {
        let mut steps = 0;
        while self.step() {
            steps += 1;
            assert!(steps < MAX_STEPS, "no end");
        }
        assert_eq!((self.server.in_flight(), self.server.sessions()), (0, 0));
        assert_eq!(self.server.upload_memory(), 0);
        self.peers
            .iter()
            .map(|peer| peer.client.outcome().unwrap().map_err(Clone::clone))
            .collect()
    }
}
