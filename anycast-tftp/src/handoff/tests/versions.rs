//! Nodes of two versions of the wire beside each other.

use super::*;
use crate::handoff::wire::{LEAST_VERSION, Message, messages};

/// What nodes have said to each other since the last look, in which versions; Hello not counted.
fn spoken(net: &mut Net) -> BTreeSet<u8> {
    let letters = std::mem::take(&mut net.letters);
    let is_hello = |letter: &&(usize, usize, Vec<u8>)| {
        let mut all = messages(&letter.2, u8::MAX);
        all.any(|message| matches!(message, Ok(Message::Hello { .. })))
    };
    for letter in letters.iter().filter(is_hello) {
        assert_eq!(letter.2[0], LEAST_VERSION, "any node must read a Hello");
    }
    let others = letters.iter().filter(|letter| !is_hello(letter));
    others.map(|(_, _, bytes)| bytes[0]).collect()
}

fn refused(net: &Net) -> u64 {
    let stats = net.nodes.iter().map(|node| node.stats().messages_refused);
    stats.sum()
}

/// A client reads a file whose route goes from node to node with each packet.
fn read_across(net: &mut Net, port: u16, nodes: &[usize]) {
    let file = bytes(5000, 1);
    net.put("a", &file);
    let flow = client(port);
    net.send(nodes[0], flow, &rrq("a", &[]));
    let mut at = nodes.iter().cycle();
    for (block, expected) in (1..).zip(file.chunks(512)) {
        let packets = net.take();
        let bytes: Vec<_> = packets.iter().map(|(_, packet)| packet).collect();
        assert_eq!(bytes, [&data(block, expected)]);
        net.send(*at.next().unwrap(), flow, &ack(block));
    }
    net.wait(Duration::from_secs(3));
    assert_eq!(net.take(), []);
}

#[test]
fn each_pair_speaks_the_highest_version_that_both_know() {
    for (versions, expected) in [
        ([1, 1, 1], vec![1]),
        ([1, 2, 2], vec![1, 2]),
        ([2, 2, 2], vec![2]),
    ] {
        let mut net = Net::of_versions(&versions);
        spoken(&mut net);
        read_across(&mut net, 1000, &[0, 1, 2]);
        let expected = expected.into_iter().collect();
        assert_eq!(spoken(&mut net), expected, "{versions:?}");
        assert_eq!(refused(&net), 0, "{versions:?}");
    }
}

#[test]
fn a_fleet_is_upgraded_and_taken_back_node_by_node_while_transfers_run() {
    let mut net = Net::of_versions(&[1, 1, 1]);
    let file = bytes(40_000, 2);
    net.put("image", &file);
    let flow = client(2000);
    let mut blocks = (1..).zip(file.chunks(512));
    let mut at = 0;
    net.send(at, flow, &rrq("image", &[]));
    // Up, one of them back, and up again.
    for (node, version) in [(0, 2), (1, 2), (2, 2), (1, 1), (1, 2)] {
        for _ in 0..6 {
            let (block, expected) = blocks.next().unwrap();
            let sent = net.take();
            assert!(
                sent.iter()
                    .all(|(_, packet)| *packet == data(block, expected))
            );
            assert!(!sent.is_empty(), "block {block} at node {at}");
            // Never to the one that is to be replaced next.
            at = (node + 1 + usize::from(block % 2 == 0)) % 3;
            net.send(at, flow, &ack(block));
        }
        net.replace(node, version);
        assert_eq!(refused(&net), 0, "node {node} of version {version}");
    }
    spoken(&mut net);
    for (block, expected) in blocks {
        let sent = net.take();
        assert_eq!(
            sent.last().map(|sent| &sent.1),
            Some(&data(block, expected))
        );
        at = (at + 1) % 3;
        net.send(at, flow, &ack(block));
    }
    assert_eq!(spoken(&mut net), BTreeSet::from([2]));
    assert_eq!(refused(&net), 0);
}

#[test]
fn a_lease_is_renewed_without_the_record_where_both_can() {
    for (versions, has_stands) in [([2; 5], true), ([1; 5], false)] {
        let mut net = Net::of_versions(&versions);
        let file = bytes(20_000, 1);
        net.put("a", &file);
        let flow = client(1000);
        let (holders, others) = net.directory(&flow);
        net.send(holders[0], flow, &rrq("a", &[]));
        let (mut puts, mut stands) = (0, 0);
        for block in 1..30 {
            net.send(others[0], flow, &ack(block));
            // Beyond the lease.
            net.wait(Duration::from_millis(if block % 5 == 0 {
                2100
            } else {
                20
            }));
            for (_, to, letter) in std::mem::take(&mut net.letters) {
                for message in messages(&letter, 2).flatten().filter(|_| to == others[0]) {
                    puts += usize::from(matches!(message, Message::Put(_)));
                    stands += usize::from(matches!(message, Message::Stands { .. }));
                }
            }
        }
        assert_eq!(stands > 0, has_stands, "{puts} and {stands}");
        assert_eq!(puts > 2, !has_stands, "{puts} and {stands}");
    }
}
