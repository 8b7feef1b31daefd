#![allow(clippy::disallowed_methods, reason = "a test begins at some instant")]

use std::sync::Arc;

use super::super::session::Outcome;
use super::super::transfer::Rollover;
use super::pair::{ColdStore, Fates, LOCAL, World, name, pattern};
use super::*;
use crate::proto::client;
use crate::store::{FileName, MemoryStore, OpenError, Store, Upload, WritePolicy};

mod amplification;
mod limits;
mod timing;

const CLIENT: &str = "198.51.100.7:4000";

/// An engine with a store, driven by hand.
struct Bench {
    server: Server,
    store: MemoryStore,
    now: Instant,
    events: Vec<TransferRecord>,
}

impl Bench {
    fn new(settings: Settings) -> Self {
        let store = MemoryStore::new();
        for (file, len) in [("empty", 0), ("small", 100), ("f", 5000)] {
            store.insert(name(file), pattern(len));
        }
        Self {
            server: Server::new(settings).unwrap(),
            store,
            now: Instant::now(),
            events: Vec::new(),
        }
    }

    fn wait(&mut self, millis: u64) -> Vec<Vec<u8>> {
        self.now += Duration::from_millis(millis);
        self.server.handle_timeout(self.now);
        self.drain()
    }

    fn take(&mut self, packet: &[u8]) {
        self.take_from(CLIENT, packet);
    }

    fn take_from(&mut self, remote: &str, packet: &[u8]) {
        let flow = Flow {
            remote: remote.parse().unwrap(),
            local: LOCAL.parse().unwrap(),
        };
        self.server.handle_datagram(self.now, flow, packet);
    }

    fn send(&mut self, packet: &[u8]) -> Vec<Vec<u8>> {
        self.take(packet);
        self.drain()
    }

    fn drain(&mut self) -> Vec<Vec<u8>> {
        let mut buf = vec![0; MAX_TRANSMIT];
        let mut sent = Vec::new();
        loop {
            while let Some(request) = self.server.poll_store_request() {
                if let Some(reply) = request.run(&self.store) {
                    self.server.handle_store_reply(self.now, reply);
                }
            }
            while let Some(event) = self.server.poll_event() {
                self.events.push(event);
            }
            let Some(transmit) = self.server.poll_transmit(self.now, 64, &mut buf) else {
                return sent;
            };
            let segment = transmit.segment_size.unwrap_or(transmit.len);
            sent.extend(buf[..transmit.len].chunks(segment).map(<[u8]>::to_vec));
        }
    }

    /// The numbers of the blocks sent.
    fn blocks(packets: &[Vec<u8>]) -> Vec<u16> {
        packets
            .iter()
            .map(|packet| {
                assert_eq!(packet[1], 3, "not DATA");
                u16::from_be_bytes([packet[2], packet[3]])
            })
            .collect()
    }

    fn stats(&self) -> &Stats {
        self.server.stats()
    }
}

fn request(opcode: u8, strings: &[&str]) -> Vec<u8> {
    let mut packet = vec![0, opcode];
    for string in strings {
        packet.extend(string.as_bytes());
        packet.push(0);
    }
    packet
}

fn ack(block: u16) -> Vec<u8> {
    super::super::packet::ack(block).to_vec()
}

fn oack(strings: &[&str]) -> Vec<u8> {
    request(6, strings)
}

#[test]
fn the_oack_holds_what_was_asked_for_and_nothing_else() {
    let node = Some("ams1".parse().unwrap());
    let mut bench = Bench::new(Settings::new().with_node(node));
    let cases: [(&[&str], &[&str]); 8] = [
        (&["small", "octet", "blksize", "1024"], &["blksize", "1024"]),
        (&["small", "octet", "blksize", "9000"], &["blksize", "1468"]),
        (
            &["small", "octet", "windowsize", "65535"],
            &["windowsize", "64"],
        ),
        (&["small", "octet", "timeout", "255"], &["timeout", "255"]),
        (&["small", "octet", "tsize", "0"], &["tsize", "100"]),
        (
            &["small", "octet", "TSIZE", "0", "multicast", ""],
            &["tsize", "100"],
        ),
        (
            &["small", "octet", "anycast-node", ""],
            &["anycast-node", "ams1"],
        ),
        (
            &["empty", "octet", "tsize", "0", "blksize", "512"],
            &["blksize", "512"],
        ),
    ];
    for (index, (asked, answered)) in cases.into_iter().enumerate() {
        let remote = format!("198.51.100.7:{}", 4000 + index);
        bench.take_from(&remote, &request(1, asked));
        assert_eq!(bench.drain(), [oack(answered)], "{asked:?}");
    }
}

#[test]
fn without_an_option_to_agree_to_the_first_block_comes_at_once() {
    for strings in [
        &["small", "octet"][..],
        &["small", "octet", "timeout", "0"],
        &["small", "octet", "blksize", "7"],
        &["small", "octet", "anycast-node", ""],
        &["small", "netascii", "tsize", "0"],
        &["empty", "octet", "tsize", "0"],
    ] {
        let mut bench = Bench::new(Settings::new());
        let sent = bench.send(&request(1, strings));
        assert_eq!(Bench::blocks(&sent), [1], "{strings:?}");
    }
}

#[test]
fn one_packet_is_in_flight_until_the_client_has_answered_and_few_are_repeated() {
    for (strings, first, retries) in [
        (
            &["f", "octet", "windowsize", "64"][..],
            6,
            UNVALIDATED_RETRIES,
        ),
        (&["f", "octet"], 3, UNVALIDATED_DATA_RETRIES),
    ] {
        let mut bench = Bench::new(Settings::new());
        let mut sent = bench.send(&request(1, strings));
        for _ in 0..600 {
            sent.extend(bench.wait(100));
        }
        assert_eq!(sent.len(), 1 + usize::from(retries));
        assert!(sent.iter().all(|packet| packet == &sent[0]));
        assert_eq!(sent[0][1], first);
        assert_eq!(bench.server.sessions(), 0);
        assert_eq!(bench.events[0].outcome, Outcome::TimedOut);
        assert_eq!(bench.events[0].retries, u64::from(retries));
    }
}

#[test]
fn a_repeated_request_is_the_same_session() {
    let mut bench = Bench::new(Settings::new());
    let rrq = request(1, &["f", "octet", "blksize", "1000"]);
    let first = bench.send(&rrq);
    assert_eq!(first.len(), 1);
    // Some boot programs send several within milliseconds.
    assert_eq!(bench.send(&rrq), [] as [Vec<u8>; 0]);
    bench.wait(9);
    assert_eq!(bench.send(&rrq), [] as [Vec<u8>; 0]);
    assert_eq!(bench.wait(991), first, "the timer");
    bench.wait(1001);
    assert_eq!(bench.send(&rrq), first, "the same bytes again");
    assert_eq!(bench.server.sessions(), 1);
    assert_eq!(bench.stats().sessions, 1);
    assert_eq!(bench.stats().repeated_requests, 3);
    assert_eq!(Bench::blocks(&bench.send(&ack(0))), [1]);
    // One that the network delayed does not begin anew what runs.
    assert_eq!(bench.send(&rrq), [] as [Vec<u8>; 0]);
    assert_eq!(Bench::blocks(&bench.send(&ack(1))), [2]);
    // After a silence it does.
    bench.now += REPEAT_GRACE;
    assert_eq!(bench.send(&rrq), first);
    assert_eq!(bench.events[0].outcome, Outcome::Replaced);
}

#[test]
fn a_different_request_from_the_same_port_replaces_the_session() {
    let mut bench = Bench::new(Settings::new());
    assert_eq!(
        Bench::blocks(&bench.send(&request(1, &["f", "octet"]))),
        [1]
    );
    bench.send(&ack(1));
    let sent = bench.send(&request(1, &["small", "octet"]));
    assert_eq!(sent[0][4..], pattern(100));
    assert_eq!(bench.server.sessions(), 1);
    assert_eq!(bench.events[0].outcome, Outcome::Replaced);
    assert_eq!(bench.send(&ack(1)), [] as [Vec<u8>; 0]);
    assert_eq!(bench.events[1].outcome, Outcome::Complete);
    assert_eq!(bench.events[1].bytes, 100);
}

#[test]
fn an_error_after_the_oack_is_a_question_answered() {
    let mut bench = Bench::new(Settings::new());
    bench.send(&request(1, &["f", "octet", "tsize", "0"]));
    assert_eq!(bench.send(&[0, 5, 0, 8, 0]), [] as [Vec<u8>; 0]);
    assert_eq!(bench.events[0].outcome, Outcome::Probe);
    assert_eq!(bench.server.sessions(), 0);
    // Some clients acknowledge an ERROR.
    assert_eq!(bench.send(&ack(0)), [] as [Vec<u8>; 0]);
    assert_eq!(bench.wait(60_000), [] as [Vec<u8>; 0]);
}

#[test]
fn a_stranger_is_not_answered() {
    let mut bench = Bench::new(Settings::new());
    for packet in [
        ack(0),
        ack(1),
        vec![0, 3, 0, 1, 7],
        vec![0, 5, 0, 0, 0],
        oack(&["blksize", "8"]),
        vec![0, 9],
        vec![],
    ] {
        assert_eq!(bench.send(&packet), [] as [Vec<u8>; 0]);
    }
    // Not even where a session runs: another port is another client.
    bench.send(&request(1, &["f", "octet"]));
    bench.take_from("198.51.100.7:4001", &ack(1));
    assert_eq!(bench.drain(), [] as [Vec<u8>; 0]);
    assert_eq!(Bench::blocks(&bench.send(&ack(1))), [2]);
}

#[test]
fn refused_sources_get_nothing_and_take_nothing() {
    let mut bench = Bench::new(Settings::new());
    let rrq = request(1, &["f", "octet"]);
    let bad = [
        "198.51.100.7:0",
        "198.51.100.7:7",
        "198.51.100.7:19",
        "198.51.100.7:69",
        "255.255.255.255:4000",
        "224.0.0.1:4000",
        "0.0.0.0:4000",
        "[ff02::1]:4000",
        "[::]:4000",
        LOCAL,
    ];
    for source in bad {
        bench.take_from(source, &rrq);
        assert_eq!(bench.drain(), [] as [Vec<u8>; 0], "{source}");
    }
    assert_eq!(bench.stats().refused_sources, bad.len() as u64);
    assert_eq!(bench.server.sessions(), 0);
    for to in ["255.255.255.255:69", "224.0.0.1:69"] {
        let flow = Flow {
            remote: CLIENT.parse().unwrap(),
            local: to.parse().unwrap(),
        };
        bench.server.handle_datagram(bench.now, flow, &rrq);
        assert_eq!(bench.drain(), [] as [Vec<u8>; 0], "{to}");
    }
}

#[test]
fn limits_drop_requests_in_silence() {
    let settings = Settings::new()
        .with_max_sessions(5)
        .with_max_sessions_per_prefix(2);
    let mut bench = Bench::new(settings);
    let rrq = request(1, &["f", "octet"]);
    let mut ask = |remote: &str| {
        bench.take_from(remote, &rrq);
        let sent = bench.drain().len();
        // It answers: only then is its place its own.
        bench.take_from(remote, &ack(1));
        bench.drain();
        (
            sent,
            bench.stats().dropped_prefix,
            bench.stats().dropped_sessions,
        )
    };
    assert_eq!(ask("198.51.100.1:1000"), (1, 0, 0));
    assert_eq!(ask("198.51.100.2:1000"), (1, 0, 0));
    assert_eq!(ask("198.51.100.3:1000"), (0, 1, 0));
    assert_eq!(ask("198.51.101.3:1000"), (1, 1, 0));
    assert_eq!(ask("[2001:db8::1]:1000"), (1, 1, 0));
    assert_eq!(ask("[2001:db8::2]:1000"), (1, 1, 0));
    assert_eq!(ask("203.0.113.1:1000"), (0, 1, 1));
    // A place that becomes free is given again.
    bench.take_from("198.51.100.1:1000", &[0, 5, 0, 0, 0]);
    bench.take_from("203.0.113.1:1000", &rrq);
    assert_eq!(bench.drain().len(), 1);
}

#[test]
fn a_store_that_hangs_holds_no_more_requests_than_allowed() {
    let settings = Settings::new().with_max_pending_opens(3);
    let mut bench = Bench::new(settings);
    for port in 1000..1010 {
        let remote = format!("198.51.100.1:{port}");
        bench.take_from(&remote, &request(1, &["f", "octet"]));
    }
    assert_eq!(bench.stats().dropped_opens, 7);
    let hung: Vec<_> = std::iter::from_fn(|| bench.server.poll_store_request()).collect();
    assert_eq!(hung.len(), 3);
    // The clients are given up; the requests still count.
    bench.now += Duration::from_secs(11);
    bench.server.handle_timeout(bench.now);
    assert_eq!(bench.server.sessions(), 0);
    bench.take(&request(1, &["f", "octet"]));
    assert_eq!(bench.stats().dropped_opens, 8);
    for request in hung {
        let reply = request.run(&bench.store).unwrap();
        bench.server.handle_store_reply(bench.now, reply);
    }
    assert_eq!(bench.drain(), [] as [Vec<u8>; 0], "nobody waits any more");
    assert_eq!(bench.send(&request(1, &["f", "octet"])).len(), 1);
}

#[test]
fn duplicate_acks_never_cause_a_block_to_be_sent_again() {
    let store = MemoryStore::new();
    store.insert(name("f"), pattern(512 * 200));
    let mut world = World::new(Settings::new(), Arc::new(store), Fates::new(vec![2]));
    // Everything is doubled, in both directions.
    world.read("f", World::patient());
    assert!(world.run()[0].is_ok());
    assert!(world.peers[0].received == pattern(512 * 200));
    assert_eq!(world.server.stats().blocks_resent, 0);
    assert_eq!(world.server.stats().blocks_sent, 201);
}

#[test]
fn with_windows_duplication_does_not_feed_itself() {
    let store = MemoryStore::new();
    store.insert(name("f"), pattern(8 * 2000));
    let mut world = World::new(Settings::new(), Arc::new(store), Fates::new(vec![2]));
    world.read("f", World::patient().blksize(Some(8)).windowsize(Some(16)));
    assert!(world.run()[0].is_ok());
    assert!(world.peers[0].received == pattern(8 * 2000));
    let stats = world.server.stats();
    assert!(stats.blocks_sent <= 2 * 2001, "{stats:?}");
}

#[test]
fn without_faults_nothing_is_sent_twice() {
    for (windowsize, len) in [(1, 800), (4, 800), (16, 803), (16, 0), (64, 8 * 640)] {
        let store = MemoryStore::new();
        store.insert(name("f"), pattern(len));
        let mut world = World::new(Settings::new(), Arc::new(store), Fates::none());
        world.read(
            "f",
            World::patient()
                .blksize(Some(8))
                .windowsize(Some(windowsize)),
        );
        assert!(world.run()[0].is_ok());
        assert!(world.peers[0].received == pattern(len));
        let stats = world.server.stats();
        assert_eq!(stats.blocks_sent, len as u64 / 8 + 1);
        assert_eq!(
            (stats.blocks_resent, stats.acks_resent, stats.strays),
            (0, 0, 0)
        );
    }
}

#[test]
fn block_numbers_wrap_under_loss() {
    for (rollover, theirs) in [
        (Rollover::Zero, client::Rollover::Zero),
        (Rollover::One, client::Rollover::One),
    ] {
        for windowsize in [1, 16] {
            let bytes = pattern(8 * 70_000);
            let store = MemoryStore::new();
            store.insert(name("f"), bytes.clone());
            let settings = Settings::new()
                .with_rollover(rollover)
                .with_writes(WritePolicy::Overwrite);
            // One packet in 97 is lost, one doubled, one very late.
            let fates = (0..97).map(|n: u8| if n < 5 { n } else { 15 }).collect();
            let mut world = World::new(settings, Arc::new(store.clone()), Fates::new(fates));
            let options = World::patient()
                .blksize(Some(8))
                .windowsize(Some(windowsize))
                .rollover(theirs);
            world.read("f", options.clone());
            world.write("g", bytes.clone(), options);
            assert!(world.run().iter().all(Result::is_ok));
            assert!(
                world.peers[0].received == bytes,
                "{rollover:?} {windowsize}"
            );
            assert!(*store.get(&name("g")).unwrap() == bytes[..]);
        }
    }
}

#[test]
fn bytes_that_are_not_in_memory_are_waited_for_elsewhere() {
    let store = MemoryStore::new();
    store.insert(name("f"), pattern(5000));
    let mut world = World::new(Settings::new(), Arc::new(ColdStore(store)), Fates::none());
    world.read("f", World::patient());
    assert!(world.run()[0].is_ok());
    assert!(world.peers[0].received == pattern(5000));
    assert!(world.server.stats().disk_waits > 0);
}

#[test]
fn the_timer_follows_the_measured_round_trip_and_doubles() {
    let mut bench = Bench::new(Settings::new());
    bench.send(&request(1, &["f", "octet"]));
    for block in 1..4 {
        bench.now += Duration::from_millis(200);
        assert_eq!(bench.send(&ack(block)).len(), 1);
    }
    // Smoothed 200 ms, variation at most 100 ms: 4 × 56 + 200.
    let mut sent_at = Vec::new();
    for tick in 1..=60 {
        if !bench.wait(100).is_empty() {
            sent_at.push(tick);
        }
    }
    assert_eq!(
        sent_at,
        [5, 14, 31],
        "425, 850 and 1700 ms, rounded up to ticks"
    );
    assert_eq!(bench.stats().blocks_resent, 3);
}

fn wrq(strings: &[&str]) -> Vec<u8> {
    request(2, strings)
}

fn data(block: u16, payload: &[u8]) -> Vec<u8> {
    let [high, low] = block.to_be_bytes();
    [&[0, 3, high, low], payload].concat()
}

#[test]
fn a_write_becomes_visible_before_its_last_ack() {
    let mut bench = Bench::new(Settings::new().with_writes(WritePolicy::Create));
    assert_eq!(bench.send(&wrq(&["new", "octet"])), [ack(0)]);
    assert_eq!(bench.send(&data(1, &pattern(512))), [ack(1)]);
    assert!(bench.store.get(&name("new")).is_none());
    // The store is slow: no ACK before it has the file.
    bench.take(&data(2, b"end"));
    let request = bench.server.poll_store_request().unwrap();
    assert_eq!(bench.drain(), [] as [Vec<u8>; 0]);
    assert_eq!(bench.send(&data(2, b"end")), [] as [Vec<u8>; 0]);
    let reply = request.run(&bench.store).unwrap();
    bench.server.handle_store_reply(bench.now, reply);
    assert_eq!(bench.drain(), [ack(2)]);
    assert_eq!(bench.store.get(&name("new")).unwrap().len(), 515);
    assert_eq!(bench.server.in_flight(), 0);
    assert_eq!(bench.events[0].outcome, Outcome::Complete);
    // The last ACK was lost.
    for _ in 0..5 {
        bench.now += LINGER - Duration::from_secs(1);
        assert_eq!(bench.send(&data(2, b"end")), [ack(2)]);
    }
    bench.wait(30_000);
    bench.wait(30_000);
    assert_eq!(bench.server.sessions(), 0);
    assert_eq!(bench.events.len(), 1);
}

#[test]
fn the_lost_first_block_of_a_write_is_asked_for_with_ack_0() {
    let mut bench = Bench::new(Settings::new().with_writes(WritePolicy::Create));
    let options = ["new", "octet", "windowsize", "4"];
    assert_eq!(bench.send(&wrq(&options)), [oack(&["windowsize", "4"])]);
    assert_eq!(bench.send(&data(2, &pattern(512))), [ack(0)]);
    assert_eq!(bench.send(&data(3, &pattern(512))), [] as [Vec<u8>; 0]);
    // That was lost too.
    assert_eq!(bench.wait(1000), [ack(0)]);
    bench.send(&data(1, &pattern(512)));
    assert_eq!(bench.send(&data(2, b"end")), [ack(2)]);
}

#[test]
fn a_write_that_ends_early_leaves_nothing() {
    for ending in [&[0, 5, 0, 0, b'x', 0][..], &data(2, &[0; 513])] {
        let mut bench = Bench::new(Settings::new().with_writes(WritePolicy::Create));
        bench.send(&wrq(&["new", "octet"]));
        bench.send(&data(1, &pattern(512)));
        bench.send(ending);
        assert_eq!(bench.server.sessions(), 0);
        assert!(bench.store.get(&name("new")).is_none());
    }
}

#[test]
fn writes_obey_their_policy() {
    let code = |policy, file: &str| {
        let mut bench = Bench::new(Settings::new().with_writes(policy));
        let sent = bench.send(&wrq(&[file, "octet"]));
        (sent[0][1], sent[0][3])
    };
    assert_eq!(code(WritePolicy::Off, "new"), (5, 2));
    assert_eq!(code(WritePolicy::Off, "f"), (5, 2));
    assert_eq!(code(WritePolicy::Create, "f"), (5, 6));
    assert_eq!(code(WritePolicy::Create, "new"), (4, 0));
    assert_eq!(code(WritePolicy::Overwrite, "f"), (4, 0));
}

#[test]
fn a_file_beyond_the_limit_is_refused() {
    let settings = Settings::new()
        .with_writes(WritePolicy::Create)
        .with_max_upload(600);
    let mut bench = Bench::new(settings);
    let sent = bench.send(&wrq(&["new", "octet", "tsize", "601"]));
    assert_eq!(sent[0][..4], [0, 5, 0, 3]);
    bench.send(&wrq(&["new", "octet"]));
    bench.send(&data(1, &pattern(512)));
    let sent = bench.send(&data(2, &pattern(89)));
    assert_eq!(sent[0][..4], [0, 5, 0, 3]);
    assert!(bench.store.get(&name("new")).is_none());
    assert_eq!(bench.server.sessions(), 0);
}

#[test]
fn the_buffer_of_a_write_is_bounded_whatever_was_asked_for() {
    let settings = Settings::new()
        .with_writes(WritePolicy::Create)
        .with_mtu(65_536)
        .with_max_windowsize(32_767);
    let mut bench = Bench::new(settings);
    let options = ["new", "octet", "blksize", "65464", "windowsize", "65535"];
    let sent = bench.send(&wrq(&options));
    assert_eq!(sent, [oack(&["blksize", "65464", "windowsize", "16"])]);
    let read = ["f", "octet", "blksize", "65464", "windowsize", "65535"];
    let sent = bench.send(&request(1, &read));
    assert_eq!(sent, [oack(&["blksize", "65464", "windowsize", "32767"])]);
}

#[test]
fn settings_change_for_new_transfers_only() {
    let mut bench = Bench::new(Settings::new());
    bench.send(&request(1, &["f", "octet", "blksize", "1024"]));
    let bad = Settings::new().with_mtu(1);
    assert!(bench.server.handle_settings(bad).is_err());
    let smaller = Settings::new().with_max_blksize(600);
    bench.server.handle_settings(smaller).unwrap();
    assert_eq!(bench.send(&ack(0))[0].len(), 1028);
    bench.take_from(
        "198.51.100.8:1",
        &request(1, &["f", "octet", "blksize", "1024"]),
    );
    assert_eq!(bench.drain(), [oack(&["blksize", "600"])]);
}

/// A store that panics.
#[derive(Debug)]
struct Panics;

impl Store for Panics {
    fn open(&self, _: &FileName) -> Result<Arc<dyn crate::store::Content>, OpenError> {
        panic!("as told")
    }

    fn create(
        &self,
        _: &FileName,
        _: WritePolicy,
    ) -> Result<Box<dyn Upload>, crate::store::CreateError> {
        panic!("as told")
    }
}

#[test]
fn a_lost_store_request_ends_its_transfer() {
    let mut bench = Bench::new(Settings::new());
    bench.take(&request(1, &["f", "octet"]));
    let request = bench.server.poll_store_request().unwrap();
    let id = request.id().unwrap();
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| request.run(&Panics)));
    assert!(caught.is_err());
    bench
        .server
        .handle_store_reply(bench.now, StoreReply::Lost(id));
    assert_eq!(bench.drain()[0][..4], [0, 5, 0, 0]);
    assert_eq!(bench.server.sessions(), 0);
}

#[test]
fn a_request_that_runs_out_of_descriptors_is_dropped_in_silence() {
    for (opcode, policy) in [(1, WritePolicy::Off), (2, WritePolicy::Create)] {
        let mut bench = Bench::new(Settings::new().with_writes(policy));
        bench.take(&request(opcode, &["f", "octet"]));
        let id = bench.server.poll_store_request().unwrap().id().unwrap();
        let error = std::io::Error::from(std::io::ErrorKind::OutOfMemory);
        let reply = if opcode == 1 {
            StoreReply::Opened(id, Err(OpenError::Overloaded(error)))
        } else {
            StoreReply::Created(id, Err(crate::store::CreateError::Overloaded(error)))
        };
        bench.server.handle_store_reply(bench.now, reply);
        assert_eq!(bench.drain(), [] as [Vec<u8>; 0]);
        assert_eq!(
            (bench.server.sessions(), bench.stats().dropped_opens),
            (0, 1)
        );
        // It failed no transfer, and nobody can fill the log with it.
        assert_eq!((bench.stats().failed, bench.events.len()), (0, 0));
    }
}

#[test]
fn all_uploads_together_hold_bounded_memory() {
    let settings = Settings::new()
        .with_writes(WritePolicy::Create)
        .with_max_uploads(10_000)
        .with_mtu(65_536);
    let mut bench = Bench::new(settings);
    let greedy = wrq(&["new", "octet", "blksize", "65464", "windowsize", "64"]);
    let mut windows = Vec::new();
    for port in 1000..2000 {
        bench.take_from(&format!("198.51.100.1:{port}"), &greedy);
        windows.extend(bench.drain());
        assert!(bench.server.upload_memory() <= MAX_UPLOAD_MEMORY);
    }
    assert_eq!(
        windows.first().unwrap(),
        &oack(&["blksize", "65464", "windowsize", "16"])
    );
    assert_eq!(
        windows.last().unwrap(),
        &oack(&["blksize", "65464", "windowsize", "1"])
    );
    let dropped = bench.stats().dropped_opens;
    assert_eq!(windows.len() as u64 + dropped, 1000);
    assert!(dropped > 0);
    // Readers do not care.
    assert_eq!(bench.send(&request(1, &["small", "octet"])).len(), 1);
    // What ends makes room, also while the store has its bytes.
    let block = data(1, &[7; 65_464]);
    bench.take_from("198.51.100.1:1999", &greedy);
    assert_eq!(bench.drain(), [] as [Vec<u8>; 0]);
    for port in 1000..1010 {
        let client = format!("198.51.100.1:{port}");
        bench.take_from(&client, &block);
        bench.take_from(&client, &[0, 5, 0, 0, 0]);
    }
    bench.drain();
    bench.take_from("198.51.100.1:1999", &greedy);
    assert_eq!(bench.drain().len(), 1);
    for port in 1000..2000 {
        bench.take_from(&format!("198.51.100.1:{port}"), &[0, 5, 0, 0, 0]);
    }
    bench.drain();
    assert_eq!(bench.server.upload_memory(), 0);
}

#[test]
fn a_client_whose_answers_were_lost_is_still_listened_to() {
    let mut bench = Bench::new(Settings::new());
    bench.send(&request(1, &["f", "octet", "blksize", "600"]));
    let mut repeats = 0;
    for _ in 0..29 {
        repeats += bench.wait(1000).len();
    }
    assert_eq!(repeats, usize::from(UNVALIDATED_RETRIES));
    assert_eq!(Bench::blocks(&bench.send(&ack(0))), [1]);
}
