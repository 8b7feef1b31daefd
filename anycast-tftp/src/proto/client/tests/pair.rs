//! A writing and a reading client joined in virtual time over a bad network.
//!
//! Each is the other's peer: what the writer sends as DATA the reader takes as DATA, and
//! the reader's ACKs go to the writer. So both halves are tested against each other,
//! without sharing any code between sender and receiver.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const SERVER: &str = "[2001:db8::69]:69";

/// What the network does to a packet, one number each.
#[derive(Debug, Clone)]
struct Fates(Vec<u8>, usize);

impl Fates {
    fn next(&mut self) -> u8 {
        self.1 += 1;
        self.0[(self.1 - 1) % self.0.len()]
    }
}

struct Network {
    /// Packets by time of arrival and order of sending; true goes to the reader.
    flying: BTreeMap<(Instant, u64), (bool, Vec<u8>)>,
    fates: Fates,
    sent: u64,
}

impl Network {
    fn send(&mut self, now: Instant, to_reader: bool, packet: &[u8]) {
        self.sent += 1;
        let fate = self.fates.next();
        // Of 16 packets about two are lost, one is doubled, two are late.
        let delays: &[u64] = match fate % 16 {
            0 | 1 => &[],
            2 => &[5, 9],
            3 => &[40],
            4 => &[400],
            _ => &[5],
        };
        for delay in delays {
            let at = now + Duration::from_millis(*delay);
            self.sent += 1;
            self.flying
                .insert((at, self.sent), (to_reader, packet.to_vec()));
        }
    }
}

struct Pair {
    writer: Client,
    reader: Client,
    network: Network,
    now: Instant,
    content: Vec<u8>,
    read_to: usize,
    received: Vec<u8>,
}

impl Pair {
    fn new(content: Vec<u8>, oack: &Options<'_>, rollover: Rollover, fates: Vec<u8>) -> Self {
        let now = Instant::now();
        let server: SocketAddr = SERVER.parse().unwrap();
        let settings = Settings::default()
            .rollover(rollover)
            .retries(1000)
            .give_up(Duration::from_secs(3600))
            .dally(Duration::from_secs(3600));
        let mut pair = Self {
            writer: Client::write(server, b"f", None, settings.clone(), now).unwrap(),
            reader: Client::read(server, b"f", settings, now).unwrap(),
            network: Network {
                flying: BTreeMap::new(),
                fates: Fates(fates, 0),
                sent: 0,
            },
            now,
            content,
            read_to: 0,
            received: Vec::new(),
        };
        // The negotiation itself is between each of them and a server.
        let mut buffer = [0; 2048];
        let len = crate::proto::packet::encode_option_ack(oack, &mut buffer).unwrap();
        for client in [&mut pair.writer, &mut pair.reader] {
            assert!(client.poll_transmit(now, &mut [0; 2048]).is_some());
            client.handle_datagram(now, server, &buffer[..len]);
        }
        assert!(pair.reader.poll_transmit(now, &mut buffer).is_some());
        pair
    }

    fn flush(&mut self) {
        let mut buffer = [0; 2048];
        loop {
            while let Some(len) = self.writer.wants_block() {
                let end = self.content.len().min(self.read_to + len);
                assert!(self.writer.handle_block(&self.content[self.read_to..end]));
                self.read_to = end;
            }
            if let Some(transmit) = self.writer.poll_transmit(self.now, &mut buffer) {
                self.network.send(self.now, true, &buffer[..transmit.len]);
            } else if let Some(transmit) = self.reader.poll_transmit(self.now, &mut buffer) {
                self.network.send(self.now, false, &buffer[..transmit.len]);
            } else {
                return;
            }
        }
    }

    fn step(&mut self) {
        let server: SocketAddr = SERVER.parse().unwrap();
        let deadline = |client: &Client| client.poll_timeout().map(|(at, _)| at);
        let arrival = self.network.flying.keys().next().map(|(at, _)| *at);
        let next = [arrival, deadline(&self.writer), deadline(&self.reader)];
        self.now = next
            .into_iter()
            .flatten()
            .min()
            .expect("stalled")
            .max(self.now);
        if arrival.is_some_and(|at| at <= self.now) {
            let (_, (to_reader, packet)) = self.network.flying.pop_first().unwrap();
            let client = if to_reader {
                &mut self.reader
            } else {
                &mut self.writer
            };
            if let Some(payload) = client.handle_datagram(self.now, server, &packet) {
                self.received.extend(payload);
            }
        }
        self.writer.handle_timeout(self.now);
        self.reader.handle_timeout(self.now);
    }

    /// Runs to the end and returns how many packets that took.
    fn run(&mut self) -> u64 {
        self.flush();
        for _ in 0..2_000_000 {
            if self.writer.outcome().is_some() && self.reader.outcome().is_some() {
                break;
            }
            self.step();
            self.flush();
        }
        assert_eq!(self.reader.outcome(), Some(Ok(())));
        assert_eq!(self.writer.outcome(), Some(Ok(())));
        assert!(self.received == self.content, "the content differs");
        self.network.sent
    }
}

fn agreed(blksize: u16, windowsize: u16) -> Options<'static> {
    Options {
        blksize: Some(blksize),
        windowsize: Some(windowsize),
        ..Options::default()
    }
}

fn content(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 7 + n / 251) as u8).collect()
}

#[test]
fn without_faults_nothing_is_sent_twice() {
    for (window, len) in [(1, 8 * 100), (4, 8 * 100), (16, 8 * 100 + 3), (16, 0)] {
        let options = agreed(8, window);
        let mut pair = Pair::new(content(len), &options, Rollover::Zero, vec![15]);
        let packets = pair.run();
        let blocks = len as u64 / 8 + 1;
        // Every packet is counted twice: when sent and when it arrives.
        assert_eq!(packets, 2 * (blocks + blocks.div_ceil(window.into())));
    }
}

#[test]
fn block_numbers_wrap_under_loss() {
    for rollover in [Rollover::Zero, Rollover::One] {
        for window in [1, 16] {
            // One packet in 97 is lost, one doubled, one very late.
            let fate = |n: u8| if n < 5 { n } else { 15 };
            let fates = (0..97).map(fate).collect();
            let options = agreed(8, window);
            let mut pair = Pair::new(content(8 * 70_000), &options, rollover, fates);
            pair.run();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(10_000), ..ProptestConfig::default() })]

    #[test]
    fn every_file_arrives_whole_under_loss_doubling_and_reordering(
        len in 0_usize..600,
        window in 1_u16..17,
        fates in proptest::collection::vec(any::<u8>(), 64..256),
    ) {
        // A network that loses everything for ever is not a case.
        prop_assume!(fates.iter().filter(|fate| **fate % 16 > 1).count() > fates.len() / 2);
        let mut pair = Pair::new(content(len), &agreed(8, window), Rollover::Zero, fates);
        pair.run();
    }

    #[test]
    fn any_packets_from_the_server_never_panic(
        packets in proptest::collection::vec(
            (0_u8..8, 0_u8..4, proptest::collection::vec(any::<u8>(), 0..40), 0_u16..3000),
            0..60,
        ),
        write: bool,
    ) {
        let mut now = Instant::now();
        let server: SocketAddr = SERVER.parse().unwrap();
        let settings = Settings::default();
        let mut client = if write {
            Client::write(server, b"f", Some(9), settings, now).unwrap()
        } else {
            Client::read(server, b"f", settings, now).unwrap()
        };
        let mut buffer = [0; 2048];
        for (opcode, number, rest, delay) in packets {
            now += Duration::from_millis(delay.into());
            client.handle_timeout(now);
            if client.wants_block().is_some() {
                client.handle_block(&rest);
            }
            let mut sent = 0;
            while client.poll_transmit(now, &mut buffer).is_some() {
                sent += 1;
                prop_assert!(sent <= 64, "endless output");
            }
            let mut packet = vec![0, opcode, 0, number];
            packet.extend(rest);
            client.handle_datagram(now, server, &packet);
        }
    }
}
