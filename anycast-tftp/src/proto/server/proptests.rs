//! Properties: every file arrives whole whatever the network does, and nothing that anybody
//! sends hurts.
#![allow(clippy::disallowed_methods, reason = "a test begins at some instant")]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::netascii::{Decoder, Encoder};
use super::super::packet::Mode;
use super::super::settings::Settings;
use super::super::table::Flow;
use super::super::transfer::Rollover;
use super::pair::{ColdStore, Fates, LOCAL, World, name, pattern};
use super::{MAX_TRANSMIT, Server, is_refused_source};
use crate::proto::client;
use crate::store::{MemoryStore, Store, WritePolicy};

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases: ProptestConfig::default().cases.max(cases),
        ..ProptestConfig::default()
    }
}

fn settings() -> Settings {
    Settings::new()
        .with_writes(WritePolicy::Overwrite)
        .with_max_retries(255)
}

fn fates() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 64..256)
}

/// The same network without loss.
fn lossless(fates: Vec<u8>) -> Vec<u8> {
    fates.into_iter().map(|fate| fate | 2).collect()
}

fn store(bytes: &[u8], is_cold: bool) -> (MemoryStore, Arc<dyn Store>) {
    let memory = MemoryStore::new();
    memory.insert(name("f"), bytes);
    let store: Arc<dyn Store> = if is_cold {
        Arc::new(ColdStore(memory.clone()))
    } else {
        Arc::new(memory.clone())
    };
    (memory, store)
}

fn options(blksize: u16, windowsize: u16) -> client::Settings {
    let mut settings = World::patient();
    if blksize != 512 {
        settings = settings.blksize(Some(blksize));
    }
    if windowsize > 1 {
        settings = settings.windowsize(Some(windowsize));
    }
    settings
}

/// Text with line ends of all kinds.
fn text(len: usize) -> Vec<u8> {
    let letters = b"a\nb\rc\r\n\0d\r\0";
    (0..len)
        .map(|i| letters[(i * 7 + i / 11) % letters.len()])
        .collect()
}

fn to_wire(text: &[u8]) -> Vec<u8> {
    let mut wire = vec![0; text.len() * 2];
    let len = Encoder::default().encode(text, &mut wire).produced;
    wire.truncate(len);
    wire
}

fn from_wire(wire: &[u8]) -> Vec<u8> {
    let (mut decoder, mut text) = (Decoder::default(), Vec::new());
    decoder.decode(wire, &mut text);
    decoder.finish(&mut text);
    text
}

proptest! {
    #![proptest_config(config(1_000))]

    #[test]
    fn every_file_is_read_whole(
        len in 0_usize..3000,
        blksize in prop_oneof![Just(8_u16), Just(64), Just(512), Just(1468)],
        windowsize in prop_oneof![Just(1_u16), 2_u16..20, Just(64)],
        is_cold: bool,
        is_text: bool,
        fates in fates(),
    ) {
        let bytes = if is_text { text(len) } else { pattern(len) };
        let (_, store) = store(&bytes, is_cold);
        let mut world = World::new(settings(), store, Fates::new(fates));
        let mode = if is_text { Mode::Netascii } else { Mode::Octet };
        world.read("f", options(blksize, windowsize).mode(mode));
        let results = world.run();
        prop_assert!(results[0].is_ok(), "{results:?}");
        let received = &world.peers[0].received;
        let received = if is_text { from_wire(received) } else { received.clone() };
        prop_assert!(received == bytes, "the file differs");
        // Go-back-n resends at most a window for a loss; this bounds all of them together.
        let blocks = 2 * len as u64 / u64::from(blksize) + 1;
        let bound = 40 + blocks * (4 + 2 * u64::from(windowsize));
        prop_assert!(world.sent <= bound, "{} packets for {blocks} blocks", world.sent);
    }

    #[test]
    fn every_file_is_written_whole(
        len in 0_usize..3000,
        blksize in prop_oneof![Just(8_u16), Just(64), Just(512), Just(1468)],
        windowsize in prop_oneof![Just(1_u16), 2_u16..20],
        is_text: bool,
        is_lossy: bool,
        fates in fates(),
    ) {
        let fates = if is_lossy { fates } else { lossless(fates) };
        let bytes = if is_text { text(len) } else { pattern(len) };
        let (memory, store) = store(b"old", false);
        let mut world = World::new(settings(), store, Fates::new(fates));
        let mode = if is_text { Mode::Netascii } else { Mode::Octet };
        let wire = if is_text { to_wire(&bytes) } else { bytes.clone() };
        world.write("f", wire, options(blksize, windowsize).mode(mode));
        let results = world.run();
        let file = memory.get(&name("f")).unwrap();
        // The last ACK may be lost again and again: then the client does not learn that the
        // file is there. It is whole, or the old one, all the same.
        let is_excused = is_lossy && *file == *b"old";
        prop_assert!(is_excused || *file == bytes[..], "the file differs");
        prop_assert!(is_lossy || results[0].is_ok(), "{results:?}");
        prop_assert!(results[0].is_err() || *file == bytes[..]);
    }

    #[test]
    fn clients_do_not_disturb_each_other(
        lens in vec(0_usize..2000, 2..8),
        fates in fates().prop_map(lossless),
    ) {
        let memory = MemoryStore::new();
        let mut world = World::new(settings(), Arc::new(memory.clone()), Fates::new(fates));
        for (index, len) in lens.iter().enumerate() {
            let file = format!("f{index}");
            memory.insert(name(&file), pattern(*len));
            let windowsize = u16::try_from(index).unwrap() * 3 + 1;
            if index % 3 == 2 {
                world.write(&file, pattern(*len + 1), options(64, windowsize));
            } else {
                world.read(&file, options(64, windowsize));
            }
        }
        let results = world.run();
        for (index, len) in lens.iter().enumerate() {
            prop_assert!(results[index].is_ok(), "{results:?}");
            if index % 3 == 2 {
                let written = memory.get(&name(&format!("f{index}"))).unwrap();
                prop_assert!(*written == pattern(*len + 1)[..]);
            } else {
                prop_assert!(world.peers[index].received == pattern(*len));
            }
        }
    }
}

/// Something that arrives.
#[derive(Debug, Clone)]
struct Arrival {
    remote: u8,
    packet: Vec<u8>,
    delay: u16,
}

fn arrivals() -> impl Strategy<Value = Vec<Arrival>> {
    let string = prop_oneof![
        Just("f".to_owned()),
        Just("octet".to_owned()),
        Just("netascii".to_owned()),
        Just("blksize".to_owned()),
        Just("windowsize".to_owned()),
        Just("tsize".to_owned()),
        Just("timeout".to_owned()),
        Just("8".to_owned()),
        Just("65464".to_owned()),
        "[ -~]{0,12}",
    ];
    let request = (1_u8..3, vec(string, 0..9)).prop_map(|(opcode, strings)| {
        let mut packet = vec![0, opcode];
        for string in strings {
            packet.extend(string.as_bytes());
            packet.push(0);
        }
        packet
    });
    let plain = (1_u8..3, any::<bool>()).prop_map(|(opcode, is_window)| {
        let mut packet = vec![0, opcode];
        packet.extend(b"f\0octet\0");
        if is_window {
            packet.extend(b"windowsize\x004\0blksize\x008\0");
        }
        packet
    });
    let numbered = (0_u8..8, 0_u8..2, 0_u8..12, vec(any::<u8>(), 0..20)).prop_map(
        |(opcode, high, low, rest)| {
            let mut packet = vec![0, opcode, high * 255, low];
            packet.extend(rest);
            packet
        },
    );
    let packet = prop_oneof![
        vec(any::<u8>(), 0..600),
        request,
        plain.clone(),
        plain,
        numbered.clone(),
        numbered,
    ];
    let arrival = (0_u8..8, packet, 0_u16..3000).prop_map(|(remote, packet, delay)| Arrival {
        remote,
        packet,
        delay,
    });
    vec(arrival, 1..40)
}

/// Good sources and bad ones.
fn remote(number: u8) -> SocketAddr {
    let text = match number {
        0 => "198.51.100.1:69",
        1 => "255.255.255.255:4000",
        2 => "224.0.0.1:4000",
        3 => LOCAL,
        4 => "[2001:db8::1]:4000",
        _ => "198.51.100.1:4000",
    };
    text.parse().unwrap()
}

fn drain(server: &mut Server, store: &MemoryStore, now: Instant) -> Vec<SocketAddr> {
    let mut buf = vec![0; MAX_TRANSMIT];
    let mut sent = Vec::new();
    loop {
        while let Some(request) = server.poll_store_request() {
            if let Some(reply) = request.run(store) {
                server.handle_store_reply(now, reply);
            }
        }
        while server.poll_event().is_some() {}
        let Some(transmit) = server.poll_transmit(now, 4, &mut buf) else {
            return sent;
        };
        sent.push(transmit.remote);
        assert!(sent.len() < 1000, "endless output");
    }
}

proptest! {
    #![proptest_config(config(10_000))]

    #[test]
    fn no_packets_hurt(arrivals in arrivals(), rollover: bool) {
        let rollover = if rollover { Rollover::One } else { Rollover::Zero };
        let settings = settings().with_rollover(rollover).with_max_sessions(3);
        let mut server = Server::new(settings).unwrap();
        let store = MemoryStore::new();
        store.insert(name("f"), pattern(100));
        let local: SocketAddr = LOCAL.parse().unwrap();
        let mut now = Instant::now();
        let mut flows = BTreeSet::new();
        for Arrival { remote: number, packet, delay } in arrivals {
            now += Duration::from_millis(delay.into());
            server.handle_timeout(now);
            for to in drain(&mut server, &store, now) {
                prop_assert!(flows.contains(&to), "sent to a stranger");
            }
            let remote = remote(number);
            let is_request = packet.starts_with(&[0, 1]) || packet.starts_with(&[0, 2]);
            let before = server.sessions();
            server.handle_datagram(now, Flow { remote, local }, &packet);
            if is_request && !is_refused_source(remote, local) {
                flows.insert(remote);
            }
            let sent = drain(&mut server, &store, now);
            for to in &sent {
                prop_assert_eq!(*to, remote, "somebody else was answered");
                prop_assert!(flows.contains(to), "a refused source was answered");
            }
            if before == 0 && !is_request {
                prop_assert!(sent.is_empty(), "answered without a session");
            }
            if packet.starts_with(&[0, 5]) && packet.len() >= 4 {
                prop_assert!(sent.is_empty(), "an ERROR was answered");
            }
            prop_assert!(server.sessions() <= 3);
        }
        // Whatever came in, everything ends by itself.
        let mut steps = 0;
        while let Some(timeout) = server.poll_timeout() {
            now = now.max(timeout.at);
            server.handle_timeout(now);
            drain(&mut server, &store, now);
            steps += 1;
            prop_assert!(steps < 20_000, "no end");
        }
        prop_assert_eq!((server.sessions(), server.in_flight()), (0, 0));
        prop_assert_eq!(server.upload_memory(), 0);
    }
}
