//! What strangers can cause.

use super::*;

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
