//! What strangers can cause.

use super::*;
use crate::handoff::record::Record;
use crate::handoff::wire::{Message, Standing, VERSION, View, messages};

#[test]
fn unknown_packets_cost_messages_within_bounds_and_are_never_answered() {
    let mut net = Net::new(3, Mode::BeforeReply);
    let before = net.messages;
    for number in 0..20_000_u32 {
        let flow = Flow {
            remote: (
                [10, (number >> 14) as u8, 7, 9],
                (number & 0x3fff) as u16 + 1024,
            )
                .into(),
            local: ([192, 0, 2, 69], 69).into(),
        };
        net.nodes[0].handle_datagram(net.now, flow, &ack(5));
        if number % 64 == 0 {
            net.pump();
        }
    }
    net.wait(Duration::from_secs(1));
    assert_eq!(net.take(), []);
    let stats = net.nodes[0].stats();
    assert!(stats.held <= 600, "{}", stats.held);
    assert_eq!(stats.held + stats.not_asked, 20_000);
    assert!(net.messages - before < 3000, "{}", net.messages - before);
}

#[test]
fn clients_of_one_prefix_are_found_all_at_once() {
    let mut net = Net::new(4, Mode::BeforeReply);
    let file = bytes(1000, 1);
    net.put("a", &file);
    let flow = |number: u8| Flow {
        remote: ([10, 0, 0, number], 2000).into(),
        local: ([192, 0, 2, 69], 69).into(),
    };
    for number in 1..=200 {
        net.send(0, flow(number), &rrq("a", &[]));
    }
    net.take();
    for number in 1..=200 {
        net.send(3, flow(number), &ack(1));
    }
    let sent = net.take();
    assert_eq!(sent.len(), 200);
    assert!(
        sent.iter()
            .all(|(_, packet)| *packet == data(2, &file[512..]))
    );
}

/// What a peer with a valid key may say of a client that never asked.
fn forged(net: &Net, number: u16, acked: u64) -> Vec<u8> {
    forged_in_order(net, number, acked, 1)
}

fn forged_in_order(net: &Net, number: u16, acked: u64, order: u32) -> Vec<u8> {
    let id = net.files[0].put("forged", &bytes(5000, 3));
    let owner = NodeId::of(&"node1".parse().unwrap());
    let mut view = View::begun(owner);
    (view.progress.acked, view.progress.is_greeted) = (acked, acked > 0);
    let standing = Standing {
        record: Record {
            flow: client(number),
            nonce: u64::from(number) + 1,
            order,
            request: 5,
            name: FileName::from_wire(b"forged").unwrap(),
            content: Some(id),
            mode: crate::proto::packet::Mode::Octet,
            oack: Box::default(),
            blksize: 512,
            windowsize: 1,
            timeout: None,
            rollover: crate::proto::transfer::Rollover::Zero,
        },
        view,
    };
    let put = Message::Put(Box::new(standing)).encode(VERSION);
    [vec![VERSION], put].concat()
}

#[test]
fn a_forged_record_of_a_client_that_never_asked_sends_it_next_to_nothing() {
    let mut net = Net::new(2, Mode::BeforeReply);
    let peer: NodeName = "node1".parse().unwrap();
    for (port, acked) in [(1000, 0), (1001, 3)] {
        let message = forged(&net, port, acked);
        net.nodes[0].handle_message(net.now, &peer, &message);
    }
    net.pump();
    net.wait(Duration::from_secs(2));
    assert_eq!(net.take(), []);
    // The forger goes away, and this node is the heir.
    net.kill(1);
    net.wait(Duration::from_secs(120));
    let sent: Vec<_> = std::mem::take(&mut net.sent);
    assert!(sent.len() <= 3, "{} packets", sent.len());
    assert!(sent.iter().all(|(_, flow, _)| *flow == client(1001)));
    assert_eq!(net.nodes[0].known(), 0, "all is forgotten");
}

/// There is no order above it, so that nobody else's record could stand there.
#[test]
fn a_record_of_the_highest_order_makes_no_two_other_nodes_argue() {
    let mut net = Net::new(3, Mode::BeforeReply);
    let file = bytes(1500, 1);
    net.put("a", &file);
    let liar: NodeName = "node1".parse().unwrap();
    let message = forged_in_order(&net, 1000, 0, u32::MAX);
    net.nodes[2].handle_message(net.now, &liar, &message);
    net.wait(Duration::from_secs(3));
    let before = net.messages;
    net.send(0, client(1000), &rrq("a", &[]));
    net.wait(Duration::from_secs(20));
    assert!(net.messages - before < 400, "{}", net.messages - before);
    // It is served by the node that it asked, if at all.
    assert!(net.take().iter().all(|(at, _)| *at == 0));
}

#[test]
fn a_peer_cannot_fill_the_table_with_records() {
    let mut net = Net::new(2, Mode::BeforeReply);
    let peer: NodeName = "node1".parse().unwrap();
    let template = forged(&net, 1, 0);
    let port = template
        .windows(6)
        .position(|w| w == [10, 0, 0, 1, 0, 1])
        .unwrap();
    for number in 0..60_000_u32 {
        let mut message = template.clone();
        message[port..port + 4].copy_from_slice(&[10, 9, (number >> 8) as u8, number as u8]);
        net.nodes[0].handle_message(net.now, &peer, &message);
        while net.nodes[0].poll_message(net.now).is_some() {}
    }
    let quota = crate::handoff::limits::MAX_RECORDS / 2;
    assert_eq!(net.nodes[0].known(), quota);
    assert_eq!(net.nodes[0].stats().messages_refused, 60_000 - quota as u64);
    // Clients are served all the same.
    net.put("a", b"small");
    net.send(0, client(3000), &rrq("a", &[]));
    assert_eq!(net.take(), [(0, data(1, b"small"))]);
}

#[test]
fn a_record_that_is_replayed_after_its_end_is_refused() {
    let mut net = Net::new(2, Mode::BeforeReply);
    let peer: NodeName = "node1".parse().unwrap();
    let message = forged(&net, 1000, 2);
    net.nodes[0].handle_message(net.now, &peer, &message);
    let end = Message::End {
        flow: client(1000),
        nonce: 1001,
    };
    let end = [vec![VERSION], end.encode(VERSION)].concat();
    net.nodes[0].handle_message(net.now, &peer, &end);
    net.pump();
    for _ in 0..3 {
        net.nodes[0].handle_message(net.now, &peer, &message);
        net.pump();
        net.send(0, client(1000), &ack(2));
        net.wait(Duration::from_secs(1));
        assert_eq!(net.take(), []);
    }
    // Also one whose end came first.
    let (early, late) = (forged(&net, 2000, 2), client(2000));
    let end = Message::End {
        flow: late,
        nonce: 2001,
    };
    let end = [vec![VERSION], end.encode(VERSION)].concat();
    net.nodes[0].handle_message(net.now, &peer, &end);
    net.nodes[0].handle_message(net.now, &peer, &early);
    net.pump();
    net.send(0, late, &ack(2));
    net.wait(Duration::from_secs(1));
    assert_eq!(net.take(), []);
}

/// It belongs to the requests of a transfer, but is said by whoever holds an older one.
#[test]
fn a_refusal_of_an_order_that_was_raised_since_is_no_news() {
    let mut net = Net::new(2, Mode::BeforeReply);
    let peer: NodeName = "node1".parse().unwrap();
    let flow = client(1000);
    let file = bytes(2000, 1);
    net.put("a", &file);
    net.cut = BTreeSet::from([(0, 1), (1, 0)]);
    net.letters.clear();
    net.send(0, flow, &rrq("a", &[]));
    net.wait(Duration::from_millis(151));
    assert_eq!(net.take(), [(0, data(1, &file[..512]))]);
    let letters = std::mem::take(&mut net.letters);
    let mut said = letters
        .iter()
        .flat_map(|letter| messages(&letter.2, VERSION));
    let put = said.find_map(|message| match message {
        Ok(Message::Put(standing)) => Some(standing),
        _ => None,
    });
    let nonce = put.unwrap().record.nonce;
    let older = messages(&forged(&net, 1000, 0), VERSION).next().unwrap();
    let Ok(Message::Put(standing)) = older else {
        panic!("{older:?}");
    };
    // The first one makes it say its record again, above that one; the second was under way then.
    for is_over in [true, false] {
        let standing = standing.clone();
        let refused = Message::Refused {
            nonce,
            is_over,
            standing,
        };
        let refused = [vec![VERSION], refused.encode(VERSION)].concat();
        net.nodes[0].handle_message(net.now, &peer, &refused);
        net.pump();
    }
    net.send(0, flow, &ack(1));
    assert_eq!(net.take(), [(0, data(2, &file[512..1024]))]);
}
