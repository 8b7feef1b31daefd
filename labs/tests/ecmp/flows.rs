//! A hundred reads at once, each from a port of its own: slow, until they are told to hurry.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anycast_labs::{Netns, link};

use crate::lab::{Lab, SERVICE};

pub(crate) const COUNT: usize = 100;
/// Each block is as long as a packet takes.
const BLOCK: usize = 1428;
/// A client's pause before it acknowledges a block.
const PACE: Duration = Duration::from_millis(60);
/// After so long a silence it repeats itself, as clients do.
const REPEAT: Duration = Duration::from_secs(1);
/// After so long a one it gives up.
const GIVE_UP: Duration = Duration::from_secs(40);
/// The address that all of them share.
const CLIENTS: &str = "10.40.0.2";
const TABLE: &str = "table ip flows {\n\
    set seen { type inet_service; flags dynamic,timeout; timeout 2s; size 4096; }\n\
    chain come { type filter hook input priority 0;\n\
    ip saddr 10.40.0.2 udp dport 69 update @seen { udp sport }\n}\n}\n";

/// What became of one.
pub(crate) struct Outcome {
    pub(crate) bytes: Vec<u8>,
    pub(crate) failure: Option<String>,
    /// The longest silence.
    pub(crate) stall: Duration,
    pub(crate) repeats: usize,
}

/// All of them, under way.
pub(crate) struct Flows {
    hurry: Arc<AtomicBool>,
    left: Arc<AtomicUsize>,
    _clients: Netns,
    reading: Vec<JoinHandle<Outcome>>,
}

impl Flows {
    /// They begin. What comes to each site is counted there.
    pub(crate) fn begin(lab: &Lab, file: &str) -> Self {
        for site in &lab.sites {
            site.namespace.nft(TABLE).unwrap();
        }
        let clients = Netns::new("clients").unwrap();
        link(&lab.hub, "clients", &clients, "up").unwrap();
        lab.hub.address("clients", "10.40.0.1/24").unwrap();
        clients.address("up", &format!("{CLIENTS}/24")).unwrap();
        clients.route("default", "10.40.0.1").unwrap();
        let (hurry, left) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicUsize::new(COUNT)),
        );
        let begin = || {
            let read = |_| {
                let socket = UdpSocket::bind((CLIENTS, 0)).unwrap();
                let (file, hurry, left) = (file.to_owned(), Arc::clone(&hurry), Arc::clone(&left));
                thread::spawn(move || {
                    let outcome = Read::new(&socket, &hurry).run(&file);
                    left.fetch_sub(1, Ordering::Relaxed);
                    outcome
                })
            };
            (0..COUNT).map(read).collect()
        };
        let reading = clients.enter(begin).unwrap();
        Self {
            hurry,
            left,
            _clients: clients,
            reading,
        }
    }

    /// How many have not ended.
    pub(crate) fn left(&self) -> usize {
        self.left.load(Ordering::Relaxed)
    }

    pub(crate) fn end(self) -> Vec<Outcome> {
        self.hurry.store(true, Ordering::Relaxed);
        let joined = self
            .reading
            .into_iter()
            .map(|reading| reading.join().unwrap());
        joined.collect()
    }
}

/// At which site each flow, by its port, was seen last in the last two seconds.
pub(crate) fn places(lab: &Lab) -> BTreeMap<u64, usize> {
    let mut places: BTreeMap<u64, (u64, usize)> = BTreeMap::new();
    for (number, site) in lab.sites.iter().enumerate() {
        let text = site.namespace.run("nft -j list set ip flows seen").unwrap();
        let listed: serde_json::Value = serde_json::from_str(&text).unwrap();
        let listed = listed["nftables"].as_array().unwrap();
        let elements = listed
            .iter()
            .filter_map(|one| one["set"]["elem"].as_array());
        for element in elements.flatten().map(|one| &one["elem"]) {
            let (port, expires) = (element["val"].as_u64(), element["expires"].as_u64());
            let (Some(port), Some(expires)) = (port, expires) else {
                continue;
            };
            let last = places.entry(port).or_insert((expires, number));
            *last = (*last).max((expires, number));
        }
    }
    let places = places.into_iter();
    places.map(|(port, (_, site))| (port, site)).collect()
}

/// One read.
struct Read<'a> {
    socket: &'a UdpSocket,
    hurry: &'a AtomicBool,
    bytes: Vec<u8>,
    /// The last packet that it sent.
    last: Vec<u8>,
    acknowledged: u16,
    stall: Duration,
    repeats: usize,
}

impl<'a> Read<'a> {
    fn new(socket: &'a UdpSocket, hurry: &'a AtomicBool) -> Self {
        socket.connect((SERVICE, 69)).unwrap();
        socket.set_read_timeout(Some(REPEAT)).unwrap();
        Self {
            socket,
            hurry,
            bytes: Vec::new(),
            last: Vec::new(),
            acknowledged: 0,
            stall: Duration::ZERO,
            repeats: 0,
        }
    }

    fn run(mut self, file: &str) -> Outcome {
        let failure = self.read(file).err();
        Outcome {
            bytes: self.bytes,
            failure,
            stall: self.stall,
            repeats: self.repeats,
        }
    }

    fn read(&mut self, file: &str) -> Result<(), String> {
        self.last = format!("\0\x01{file}\0octet\0blksize\0{BLOCK}\0").into_bytes();
        self.say();
        let (mut packet, mut progress, mut said) = ([0; 2048], Instant::now(), Instant::now());
        loop {
            let received = match self.socket.recv(&mut packet) {
                Ok(length) => packet.get(..length).unwrap_or_default().to_vec(),
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    Vec::new()
                }
                Err(error) => return Err(error.to_string()),
            };
            match received.as_slice() {
                [0, 5, rest @ ..] => {
                    return Err(format!("ERROR {}", String::from_utf8_lossy(rest)));
                }
                [0, 6, ..] if self.acknowledged == 0 && self.bytes.is_empty() => {
                    self.stall = self.stall.max(progress.elapsed());
                    progress = Instant::now();
                    self.acknowledge(0);
                    said = Instant::now();
                }
                [0, 3, high, low, data @ ..] => {
                    let block = u16::from_be_bytes([*high, *low]);
                    if block == self.acknowledged.wrapping_add(1) {
                        self.stall = self.stall.max(progress.elapsed());
                        progress = Instant::now();
                        self.bytes.extend_from_slice(data);
                        if !self.hurry.load(Ordering::Relaxed) {
                            thread::sleep(PACE);
                        }
                        self.acknowledge(block);
                        said = Instant::now();
                        if data.len() < BLOCK {
                            return Ok(());
                        }
                    }
                }
                _ => {}
            }
            if progress.elapsed() > GIVE_UP {
                return Err(format!(
                    "nothing for {GIVE_UP:?} after block {}",
                    self.acknowledged
                ));
            }
            if said.elapsed() >= REPEAT {
                self.repeats += 1;
                self.say();
                said = Instant::now();
            }
        }
    }

    fn acknowledge(&mut self, block: u16) {
        self.acknowledged = block;
        self.last = [&[0, 4][..], &block.to_be_bytes()].concat();
        self.say();
    }

    fn say(&self) {
        // Where nobody listens the next look says so; it is said again then.
        let _ = self.socket.send(&self.last);
    }
}
