//! What the fuzzer calls for handoff, and what an ordinary test calls with the committed corpora.
//! Each takes what a peer may send. None may panic, and what is understood is said again in the same
//! words.

use std::time::{Duration, Instant};

use anycast_tftp::handoff::limits::MAX_MESSAGE;
use anycast_tftp::handoff::wire::{VERSION, messages};
use anycast_tftp::handoff::{Fleet, Node};
use anycast_tftp::proto::Flow;
use anycast_tftp::server::Settings;

/// A datagram of messages, of whichever version.
pub(crate) fn handoff_message(bytes: &[u8]) {
    let Some(version) = bytes.first().copied() else {
        return;
    };
    for message in messages(bytes, VERSION).flatten() {
        let mut datagram = vec![version];
        datagram.extend(message.encode(version));
        let again: Vec<_> = messages(&datagram, VERSION).collect();
        assert_eq!(again, [Ok(message)]);
    }
}

#[allow(clippy::disallowed_methods, reason = "a node starts at any time")]
fn now() -> Instant {
    Instant::now()
}

/// A node that hears datagrams of two peers, and of clients, and lets time pass.
pub(crate) fn handoff_node(bytes: &[u8]) {
    let names = ["a", "b", "c"].map(|name| name.parse().ok());
    let [Some(a), Some(b), Some(c)] = names else {
        return;
    };
    let mut now = now();
    let fleet = Fleet::new(a, vec![b.clone(), c.clone()], 7);
    let Ok(mut node) = Node::new(now, Settings::new(), Some(fleet)) else {
        return;
    };
    node.handle_peer(now, &b, true);
    node.handle_peer(now, &c, true);
    let flow = |port: u8| Flow {
        remote: ([10, 0, 0, 1], 1024 + u16::from(port % 3)).into(),
        local: ([192, 0, 2, 69], 69).into(),
    };
    let mut rest = bytes;
    while let Some(([what, len], tail)) = rest.split_first_chunk() {
        let (piece, tail) = tail.split_at(usize::from(*len).min(tail.len()));
        rest = tail;
        match what % 5 {
            0 => node.handle_message(now, &b, piece),
            1 => node.handle_message(now, &c, piece),
            2 => node.handle_datagram(now, flow(what / 5), piece),
            3 => node.handle_peer(now, &c, len % 2 == 0),
            _ => {
                now += Duration::from_millis(u64::from(*len) * 20);
                node.handle_timeout(now);
            }
        }
        let mut buf = vec![0; anycast_tftp::proto::server::MAX_TRANSMIT];
        while node.poll_store_request().is_some() {}
        while let Some((_, message)) = node.poll_message(now) {
            assert!(message.len() <= MAX_MESSAGE);
        }
        while let Some(sent) = node.poll_transmit(now, 8, &mut buf) {
            // Without a store nothing is sent but ERRORs to malformed requests.
            assert_eq!(buf.get(..2), Some(&[0, 5][..]), "{} bytes", sent.len);
        }
        while node.poll_event().is_some() {}
    }
}
