//! What goes over a client's link, packet by packet.
//!
//! A packet socket in the client's namespace is given every packet in both directions. Blocks are
//! told by number, so that progress, silence and what is sent again can be told apart.

use std::collections::{BTreeMap, HashSet};
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anycast_labs::Netns;
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{LinkAddr, recvfrom};
use socket2::{Domain, Protocol, Socket, Type};

use super::SERVICE;

/// How long a packet is waited for before it is looked whether to end.
const LOOK: Duration = Duration::from_millis(20);
/// Bytes that the kernel is asked to keep while the thread does not run; it may grant fewer.
const BUFFER: usize = 16 << 20;
/// Of each packet: the longest IPv4 header, UDP's, and TFTP's first four bytes.
const HEADERS: usize = 60 + 8 + 4;
/// Every packet, outgoing ones too.
const ETH_P_ALL: u16 = 3;
const TFTP: u16 = 69;

/// A client's address and port.
type Client = (Ipv4Addr, u16);

/// What a packet to or from the service is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Packet {
    Request,
    /// The first of its blocks, and how many bytes follow the UDP header: a window may be one packet
    /// until a link needs it in pieces.
    Data(u16, usize),
    Ack(u16),
    /// OACK, or ERROR.
    Other,
}

/// One transfer, as its client's link saw it.
#[derive(Debug, Clone)]
pub(crate) struct Flow {
    begun: Instant,
    /// When something new came last: a block, or an answer to the request.
    pub(crate) newest: Instant,
    /// The longest time without anything new so far, and how long after the request it began.
    stall: (Duration, Duration),
    highest: u64,
    blocks: HashSet<u64>,
    is_answered: bool,
    acked: Option<u64>,
    /// Blocks that came again.
    pub(crate) data_again: usize,
    /// ACKs and requests that the client sent again.
    pub(crate) acks_again: usize,
}

impl Flow {
    fn new(now: Instant) -> Self {
        Self {
            begun: now,
            newest: now,
            stall: (Duration::ZERO, Duration::ZERO),
            highest: 0,
            blocks: HashSet::new(),
            is_answered: false,
            acked: None,
            data_again: 0,
            acks_again: 0,
        }
    }

    fn handle(&mut self, packet: Packet, blksize: usize, now: Instant) {
        match packet {
            Packet::Request => self.acks_again += 1,
            Packet::Data(first, length) => {
                let count = length.div_ceil(4 + blksize).max(1);
                for number in 0..count {
                    let block = first.wrapping_add(u16::try_from(number).unwrap_or(u16::MAX));
                    self.data(nearest(self.highest, block), now);
                }
            }
            Packet::Ack(number) => {
                let block = nearest(self.highest, number);
                if self.acked.is_some_and(|acked| block <= acked) {
                    self.acks_again += 1;
                }
                self.acked = self.acked.max(Some(block));
            }
            Packet::Other => {
                if !self.is_answered {
                    self.is_answered = true;
                    self.move_on(now);
                }
            }
        }
    }

    fn data(&mut self, block: u64, now: Instant) {
        if self.blocks.insert(block) {
            self.highest = self.highest.max(block);
            self.is_answered = true;
            self.move_on(now);
        } else {
            self.data_again += 1;
        }
    }

    fn move_on(&mut self, now: Instant) {
        let silence = (
            now.duration_since(self.newest),
            self.newest.duration_since(self.begun),
        );
        self.stall = self.stall.max(silence);
        self.newest = now;
    }

    /// The longest silence up to `end`.
    pub(crate) fn stall(&self, end: Instant) -> Duration {
        self.stall.0.max(end.saturating_duration_since(self.newest))
    }

    /// How many blocks came.
    pub(crate) fn blocks(&self) -> usize {
        self.blocks.len()
    }
}

/// The block nearest to `highest` that has this number on the wire.
fn nearest(highest: u64, number: u16) -> u64 {
    let ahead = number.wrapping_sub(highest as u16);
    if ahead < 0x8000 {
        highest + u64::from(ahead)
    } else {
        highest.saturating_sub(u64::from(ahead.wrapping_neg()))
    }
}

type Flows = Arc<Mutex<BTreeMap<Client, Flow>>>;

/// Watches a link until it is dropped.
pub(crate) struct Capture {
    flows: Flows,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Capture {
    /// Of the link `up`, whose transfers have blocks of this size.
    pub(crate) fn start(namespace: &Netns, blksize: usize) -> Self {
        let open = || {
            let protocol = Protocol::from(i32::from(ETH_P_ALL.to_be()));
            let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(protocol)).unwrap();
            socket.set_recv_buffer_size(BUFFER).unwrap();
            socket.set_read_timeout(Some(LOOK)).unwrap();
            (socket, if_nametoindex("up").unwrap())
        };
        let (socket, link) = namespace.enter(open).unwrap();
        let (flows, is_over): (Flows, Arc<AtomicBool>) = Default::default();
        let (to, end) = (Arc::clone(&flows), Arc::clone(&is_over));
        let thread = thread::spawn(move || watch(&socket, link, blksize, &to, &end));
        Self {
            flows,
            is_over,
            thread: Some(thread),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Client, Flow>> {
        self.flows.lock().unwrap()
    }

    /// All transfers so far, the first one first.
    pub(crate) fn flows(&self) -> Vec<Flow> {
        let mut flows: Vec<_> = self.lock().values().cloned().collect();
        flows.sort_by_key(|flow| flow.begun);
        flows
    }

    /// Whether a request was seen.
    pub(crate) fn has_begun(&self) -> bool {
        !self.lock().is_empty()
    }

    /// For how long nothing new has come.
    pub(crate) fn silence(&self) -> Duration {
        let newest = self.lock().values().map(|flow| flow.newest).max();
        newest.map_or(Duration::ZERO, |newest| newest.elapsed())
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn watch(socket: &Socket, link: u32, blksize: usize, flows: &Flows, is_over: &AtomicBool) {
    let mut buffer = [0; HEADERS];
    while !is_over.load(Ordering::Relaxed) {
        let (length, from) = match recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut buffer) {
            Ok(received) => received,
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ENETDOWN) => continue,
            Err(error) => panic!("cannot watch a link: {error}"),
        };
        let now = Instant::now();
        if from.is_some_and(|from| from.ifindex() != link as usize) {
            continue;
        }
        if let Some((client, packet)) = parse(&buffer[..length.min(HEADERS)]) {
            let mut flows = flows.lock().unwrap();
            match (flows.get_mut(&client), packet) {
                (Some(flow), packet) => flow.handle(packet, blksize, now),
                (None, Packet::Request) => drop(flows.insert(client, Flow::new(now))),
                // Of a transfer before.
                (None, Packet::Data(..) | Packet::Ack(_) | Packet::Other) => {}
            }
        }
    }
}

fn parse(packet: &[u8]) -> Option<(Client, Packet)> {
    let number = |at: usize| -> Option<u16> {
        let bytes = packet.get(at..at + 2)?;
        Some(u16::from_be_bytes([bytes[0], bytes[1]]))
    };
    let address = |at: usize| -> Option<Ipv4Addr> {
        let octets: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
        Some(octets.into())
    };
    let udp = usize::from(packet.first()? & 0xf) * 4;
    if packet.first()? >> 4 != 4 || *packet.get(9)? != 17 {
        return None;
    }
    let (source, target) = (address(12)?, address(16)?);
    let (from, to) = (number(udp)?, number(udp + 2)?);
    let opcode = number(udp + 8)?;
    if target == SERVICE && to == TFTP {
        let packet = match opcode {
            1 => Packet::Request,
            4 => Packet::Ack(number(udp + 10)?),
            _ => return None,
        };
        return Some(((source, from), packet));
    }
    if source != SERVICE || from != TFTP {
        return None;
    }
    let packet = match opcode {
        3 => {
            let length = usize::from(number(2)?).checked_sub(udp + 8)?;
            Packet::Data(number(udp + 10)?, length)
        }
        _ => Packet::Other,
    };
    Some(((target, to), packet))
}

#[test]
fn what_comes_again_is_no_progress() {
    let begun = Instant::now();
    let at = |millis| begun + Duration::from_millis(millis);
    let mut flow = Flow::new(begun);
    flow.handle(Packet::Other, 512, at(10));
    flow.handle(Packet::Ack(0), 512, at(11));
    flow.handle(Packet::Data(1, 516), 512, at(20));
    flow.handle(Packet::Ack(1), 512, at(21));
    flow.handle(Packet::Data(1, 516), 512, at(500));
    flow.handle(Packet::Ack(1), 512, at(501));
    // Two blocks in one packet, the last one short.
    flow.handle(Packet::Data(2, 900), 512, at(900));
    assert_eq!((flow.data_again, flow.acks_again), (1, 1));
    assert_eq!(flow.blocks(), 3);
    assert_eq!(flow.stall(at(1000)), Duration::from_millis(880));
    assert_eq!(flow.stall(at(2000)), Duration::from_millis(1100));
}

#[test]
fn a_number_on_the_wire_is_the_block_nearest_to_where_the_transfer_is() {
    assert_eq!(nearest(0, 5), 5);
    assert_eq!(nearest(70_000, 4464), 70_000);
    assert_eq!(nearest(65_534, 2), 65_538);
    assert_eq!(nearest(65_538, 65_530), 65_530);
}

#[test]
fn packets_of_the_service_are_told_from_all_others() {
    let packet = |from: [u8; 4], to: [u8; 4], ports: [u8; 4], opcode: u8| {
        let mut packet = vec![0x45, 0, 2, 32, 0, 0, 0, 0, 64, 17, 0, 0];
        packet.extend([from, to, ports].concat());
        packet.extend([0, 0, 0, 0, 0, opcode, 1, 2]);
        packet
    };
    let (client, service) = ([10, 40, 0, 2], [192, 0, 2, 69]);
    let flow = (Ipv4Addr::from(client), 0x1234);
    let data = packet(service, client, [0, 69, 0x12, 0x34], 3);
    assert_eq!(parse(&data), Some((flow, Packet::Data(0x102, 516))));
    let ack = packet(client, service, [0x12, 0x34, 0, 69], 4);
    assert_eq!(parse(&ack), Some((flow, Packet::Ack(0x102))));
    assert_eq!(parse(&packet(client, client, [0, 1, 0, 69], 4)), None);
    assert_eq!(parse(&ack[..20]), None);
}
