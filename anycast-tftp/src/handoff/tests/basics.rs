//! What each clause comes to in the plainest case.

use super::*;

const MS: fn(u64) -> Duration = Duration::from_millis;

/// Of a file at two nodes, `a`, of so many bytes, the client has one block, from the first node.
fn one_block_read(len: usize) -> (Net, Vec<u8>, Flow) {
    let mut net = Net::new(2, Mode::BeforeReply);
    let file = bytes(len, 1);
    net.put("a", &file);
    let flow = client(1000);
    net.send(0, flow, &rrq("a", &[]));
    net.send(0, flow, &ack(1));
    (net, file, flow)
}

#[test]
fn any_node_answers_an_ack() {
    let mut net = Net::new(3, Mode::BeforeReply);
    let file = bytes(2000, 1);
    net.put("a", &file);
    let flow = client(1000);
    net.send(0, flow, &rrq("a", &[]));
    assert_eq!(net.take(), [(0, data(1, &file[..512]))]);
    net.send(1, flow, &ack(1));
    assert_eq!(net.take(), [(1, data(2, &file[512..1024]))]);
    net.send(2, flow, &ack(2));
    assert_eq!(net.take(), [(2, data(3, &file[1024..1536]))]);
    net.send(0, flow, &ack(3));
    assert_eq!(net.take(), [(0, data(4, &file[1536..]))]);
    net.send(1, flow, &ack(4));
    net.wait(Duration::from_secs(20));
    assert_eq!(net.take(), [], "the end is known everywhere");
}

#[test]
fn the_first_reply_waits_for_a_holder_but_not_for_long() {
    let mut net = Net::new(2, Mode::BeforeReply);
    net.put("a", b"small");
    net.cut = BTreeSet::from([(0, 1), (1, 0)]);
    net.send(0, client(1000), &rrq("a", &[]));
    assert_eq!(net.take(), []);
    net.wait(MS(149));
    assert_eq!(net.take(), []);
    net.wait(MS(2));
    assert_eq!(net.take(), [(0, data(1, b"small"))]);
    assert_eq!(net.nodes[0].stats().unprotected, 1);
    // In `async` it does not wait.
    let mut net = Net::new(2, Mode::Async);
    net.put("a", b"small");
    net.cut = BTreeSet::from([(0, 1), (1, 0)]);
    net.send(0, client(1000), &rrq("a", &[]));
    assert_eq!(net.take(), [(0, data(1, b"small"))]);
}

#[test]
fn a_request_that_comes_elsewhere_again_gets_the_same_bytes() {
    let mut net = Net::new(2, Mode::BeforeReply);
    let file = bytes(2000, 1);
    net.put("a", &file);
    let request = rrq("a", &[("blksize", "1000"), ("tsize", "0")]);
    net.send(0, client(1000), &request);
    let first = net.take();
    assert_eq!(first.len(), 1);
    net.wait(MS(900));
    net.files[1].put("a", &bytes(3000, 2));
    net.send(1, client(1000), &request);
    assert_eq!(net.take(), [(1, first[0].1.clone())], "the OACK as it was");
    net.send(1, client(1000), &ack(0));
    assert_eq!(net.take(), [(1, data(1, &file[..1000]))]);
    // While it moves, the request is a late double.
    net.send(0, client(1000), &request);
    assert_eq!(net.take(), []);
    // Later it is a new transfer, of what the name means by now.
    net.wait(MS(1500));
    net.take();
    net.send(1, client(1000), &request);
    // Nobody else has that.
    net.wait(MS(151));
    let oack = net.take();
    assert!(
        oack.iter()
            .any(|(at, packet)| *at == 1 && packet.ends_with(b"3000\0")),
        "{oack:?}"
    );
}

#[test]
fn what_no_node_has_any_more_ends_with_an_error_where_the_client_is() {
    let mut net = Net::new(3, Mode::BeforeReply);
    let file = bytes(3000, 1);
    let ids = net.put("a", &file);
    for at in [1, 2] {
        net.files[at].lose(&ids[at]);
    }
    let flow = client(1000);
    net.send(0, flow, &rrq("a", &[]));
    net.wait(MS(151));
    assert_eq!(net.take(), [(0, data(1, &file[..512]))]);
    // With this node the content goes, for all that is known.
    net.kill(0);
    net.wait(MS(1000));
    net.take();
    net.send(1, flow, &ack(1));
    let error = [&b"\0\x05\0\0"[..], b"the file cannot be read\0"].concat();
    assert_eq!(net.take(), [(1, error)]);
    // It is over everywhere.
    net.send(2, flow, &ack(1));
    net.wait(Duration::from_secs(30));
    assert_eq!(net.take(), []);
}

#[test]
fn netascii_goes_on_at_another_node_far_from_its_start() {
    let mut net = Net::new(2, Mode::BeforeReply);
    let file: Vec<u8> = (0..900_000_u32)
        .map(|n| b"line\n"[n as usize % 5])
        .collect();
    net.put("a", &file);
    let text: Vec<u8> = file
        .iter()
        .flat_map(|byte| match byte {
            b'\n' => vec![b'\r', b'\n'],
            other => vec![*other],
        })
        .collect();
    let flow = client(1000);
    net.send(0, flow, b"\0\x01a\0netascii\0blksize\x001024\0");
    net.take();
    net.send(0, flow, &ack(0));
    for (block, expected) in (1_u16..).zip(text.chunks(1024)) {
        let at = usize::from(block / 300 % 2);
        let sent = net.take();
        assert_eq!(sent.len(), 1, "block {block}");
        assert!(sent[0].1 == data(block, expected), "block {block}");
        net.send(at, flow, &ack(block));
        net.wait(MS(1));
    }
    let ended = net.nodes.iter().map(|node| node.stats().completed_reads);
    assert_eq!(ended.sum::<u64>(), 1);
}

#[test]
fn the_owner_of_the_transfer_before_is_revoked_though_the_first_answer_is_lost() {
    let mut net = Net::new(5, Mode::BeforeReply);
    for (name, seed) in [("a", 1), ("b", 2), ("c", 3)] {
        net.put(name, &bytes(2000, seed));
    }
    let flow = client(1000);
    let (holders, others) = net.directory(&flow);
    let (one, other) = (others[0], others[1]);
    net.send(one, flow, &rrq("a", &[]));
    for block in 1..=4 {
        net.send(one, flow, &ack(block));
    }
    // Of this one the first node hears nothing.
    net.cut.insert((other, one));
    net.send(other, flow, &rrq("b", &[]));
    net.wait(Duration::from_secs(7));
    net.take();
    let answers = holders.iter().map(|holder| (*holder, one));
    net.cut.extend(answers);
    net.send(one, flow, &rrq("c", &[]));
    net.cut = BTreeSet::from([(other, one)]);
    net.wait(MS(2100));
    let file = bytes(2000, 3);
    let sent = net.take();
    let first = (one, data(1, &file[..512]));
    assert!(!sent.is_empty() && sent.iter().all(|packet| *packet == first));
    net.send(other, flow, &ack(1));
    assert_eq!(net.take(), [(other, data(2, &file[512..1024]))]);
}

#[test]
fn a_node_dies_and_another_goes_on() {
    let (mut net, file, flow) = one_block_read(3000);
    net.wait(MS(260));
    net.take();
    net.kill(0);
    // The client repeats what was not answered.
    net.send(1, flow, &ack(1));
    assert_eq!(net.take(), [(1, data(2, &file[512..1024]))]);
    // Its timers are here now.
    net.wait(MS(1100));
    assert_eq!(net.take(), [(1, data(2, &file[512..1024]))]);
    for block in 2..=5 {
        net.send(1, flow, &ack(block));
        let start = usize::from(block) * 512;
        let end = (start + 512).min(file.len());
        assert_eq!(net.take(), [(1, data(block + 1, &file[start..end]))]);
    }
    net.send(1, flow, &ack(6));
    assert_eq!(net.nodes[1].stats().completed_reads, 1);
    assert_eq!(net.nodes[1].in_flight(), 0);
}

#[test]
fn the_heir_sends_to_a_client_that_never_repeats_an_ack() {
    let mut net = Net::new(3, Mode::BeforeReply);
    let file = bytes(3000, 1);
    net.put("a", &file);
    let flow = client(1000);
    net.send(0, flow, &rrq("a", &[]));
    net.send(0, flow, &ack(1));
    net.wait(MS(260));
    net.take();
    net.kill(0);
    net.wait(MS(4400));
    assert_eq!(net.take(), []);
    net.wait(MS(30_000));
    let sent = net.take();
    assert!(!sent.is_empty() && sent.len() <= 3, "{sent:?}");
    let first = sent[0].0;
    for (at, packet) in sent {
        assert_eq!((at, packet), (first, data(2, &file[512..1024])));
    }
}

#[test]
fn an_error_at_another_node_ends_the_transfer() {
    let mut net = Net::new(3, Mode::BeforeReply);
    net.put("a", &bytes(3000, 1));
    let flow = client(1000);
    net.send(0, flow, &rrq("a", &[]));
    net.send(0, flow, &ack(1));
    net.take();
    net.send(2, flow, &[0, 5, 0, 0, b'x', 0]);
    net.wait(Duration::from_secs(20));
    assert_eq!(net.take(), []);
    assert!(net.nodes.iter().all(|node| node.in_flight() == 0));
}

#[test]
fn a_port_used_again_elsewhere_never_hears_of_the_old_transfer() {
    let mut net = Net::new(3, Mode::BeforeReply);
    let (old, new) = (bytes(3000, 1), bytes(3000, 2));
    net.put("old", &old);
    net.put("new", &new);
    let flow = client(49152);
    net.send(0, flow, &rrq("old", &[]));
    net.send(0, flow, &ack(1));
    net.take();
    // The old node's timer is pending.
    net.send(1, flow, &rrq("new", &[]));
    assert_eq!(net.take(), [(1, data(1, &new[..512]))]);
    net.send(0, flow, &ack(1));
    assert_eq!(net.take(), [(0, data(2, &new[512..1024]))]);
    net.wait(Duration::from_secs(4));
    for (_, packet) in net.take() {
        assert_eq!(packet, data(2, &new[512..1024]));
    }
}

#[test]
fn a_node_that_was_paused_asks_before_it_answers() {
    let (mut net, file, flow) = one_block_read(5000);
    net.take();
    // Node 0 is stopped; node 1 is told after a second, and goes on.
    net.dead.insert(0);
    net.wait(MS(1000));
    net.link(1, 0, false);
    net.send(1, flow, &ack(1));
    for block in 2..5 {
        net.send(1, flow, &ack(block));
    }
    net.wait(MS(5000));
    net.take();
    net.dead.remove(&0);
    // What has waited in its socket.
    net.send(0, flow, &ack(1));
    assert_eq!(net.take(), []);
    net.link(0, 1, false);
    net.link(0, 1, true);
    net.link(1, 0, true);
    net.pump();
    net.wait(MS(300));
    net.take();
    net.send(0, flow, &ack(5));
    assert_eq!(net.take(), [(0, data(6, &file[2560..3072]))]);
    assert_eq!(net.nodes[0].stats().pauses, 1);
}

/// What the client began meanwhile nobody is left to tell.
#[test]
fn a_node_that_was_paused_while_the_others_began_anew_trusts_nothing_that_it_knew() {
    let (mut net, _, flow) = one_block_read(5000);
    net.take();
    net.dead.insert(0);
    net.wait(MS(1000));
    net.nodes[1] = net.begin(1, Mode::BeforeReply);
    net.wait(MS(5000));
    net.dead.remove(&0);
    net.send(0, flow, &ack(2));
    net.link(0, 1, false);
    net.wait(MS(3000));
    net.send(0, flow, &ack(2));
    assert_eq!(
        net.take(),
        [],
        "out of reach it may have answered the client"
    );
    net.link(0, 1, true);
    net.link(1, 0, true);
    net.pump();
    net.wait(MS(2000));
    net.send(0, flow, &ack(2));
    assert_eq!(net.take(), []);
    assert_eq!(net.nodes[0].known() + net.nodes[1].known(), 0);
    // One that comes after it is as any other.
    net.send(0, flow, &rrq("a", &[]));
    net.send(1, flow, &ack(1));
    assert_eq!(net.take().len(), 2);
}

#[test]
fn a_holder_without_the_content_opens_it_when_it_can() {
    let mut net = Net::new(2, Mode::BeforeReply);
    let file = bytes(3000, 1);
    let ids = net.put("a", &file);
    net.files[1].forget(&ids[1]);
    let flow = client(1000);
    net.send(0, flow, &rrq("a", &[]));
    assert_eq!(net.take(), [], "nobody else could go on");
    net.wait(MS(151));
    assert_eq!(net.take(), [(0, data(1, &file[..512]))]);
    net.send(1, flow, &ack(1));
    assert_eq!(net.take(), []);
    net.files[1].put("b", &file);
    // The packet is kept for a moment.
    net.wait(MS(499));
    net.send(1, flow, &ack(1));
    net.wait(MS(10));
    assert_eq!(net.take(), [(1, data(2, &file[512..1024]))]);
}

#[test]
fn a_write_goes_on_where_it_began() {
    let mut net = Net::new(2, Mode::BeforeReply);
    let flow = client(1000);
    let mut wrq = rrq("up", &[("blksize", "1400")]);
    wrq[1] = 2;
    net.send(0, flow, &wrq);
    net.take();
    let (one, two) = (bytes(1400, 1), bytes(100, 2));
    net.send(1, flow, &data(1, &one));
    assert_eq!(net.take(), [(0, ack(1))]);
    net.send(1, flow, &data(2, &two));
    assert_eq!(net.take(), [(0, ack(2))]);
    let name = FileName::from_wire(b"up").unwrap();
    assert_eq!(net.files[0].open(&name).unwrap().size(), 1500);
    // Its node dies in the middle: the client is told.
    let flow = client(1001);
    wrq[2] = b'v';
    net.send(0, flow, &wrq);
    net.send(0, flow, &data(1, &one));
    net.take();
    net.kill(0);
    net.send(1, flow, &data(2, &two));
    assert_eq!(net.take(), []);
    net.wait(MS(3500));
    net.send(1, flow, &data(2, &two));
    let sent = net.take();
    assert_eq!((sent.len(), &sent[0].1[..4]), (1, &[0, 5, 0, 0][..]));
}

#[test]
fn a_draining_node_gives_its_transfers_away() {
    let (mut net, file, flow) = one_block_read(3000);
    net.nodes[0].handle_draining(net.now, true);
    net.pump();
    net.take();
    net.send(1, flow, &ack(2));
    assert_eq!(net.take(), [(1, data(3, &file[1024..1536]))]);
    assert_eq!(net.nodes[0].in_flight(), 0);
    assert_eq!(net.nodes[1].in_flight(), 1);
}
