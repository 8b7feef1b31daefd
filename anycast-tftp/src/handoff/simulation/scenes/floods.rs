//! Many clients, and packets of none.

use super::*;

#[test]
fn two_hundred_clients_of_one_prefix_move_at_once() {
    for nodes in [3, 5] {
        let mut setting = Setting::peaceful(nodes).with_file(1024 * 60);
        for number in 0..200 {
            setting = setting.with_guest(Kind::ALL[number % Kind::ALL.len()], 1024, &[0]);
            far(&mut setting);
            let guest = last(&mut setting);
            guest.options.windowsize = None;
            guest.wander = Wander::Once(20);
        }
        all_within(&holds(8, &setting), 10 * SECOND);
    }
}

/// A flood comes to one node; a client of another prefix reads there, another comes there.
fn flooded(nodes: usize, packets: u64, prefixes: u64) -> World {
    let mut setting = Setting::peaceful(nodes).with_file(1024 * 100);
    for at in [0, 1] {
        setting = setting.with_guest(Kind::Ipxe, 1024, &[0]);
        far(&mut setting);
        last(&mut setting).at = at;
    }
    let setting = setting
        .with_fault(When::At(SECOND), Fault::Flood(0, packets, prefixes))
        .with_fault(When::Blocks(1, 20), Fault::Move(1, 0));
    holds(8, &setting)
}

/// Messages that so many questions and all their answers are, at most, and what two reads cost.
fn messages(questions: u32) -> u64 {
    u64::from(questions) * 4 + 3000
}

#[test]
fn a_flood_from_one_prefix_asks_no_more_than_that_prefix_may() {
    for nodes in [2, 3, 5] {
        let world = flooded(nodes, 20_000, 1);
        all_within(&world, 10 * SECOND);
        let most = messages(limits::ASKS_OF_PREFIX + 2 * limits::ASKS_OF_PREFIX_RATE);
        assert!(
            world.mesh.sent_for_clients <= most,
            "{} messages",
            world.mesh.sent_for_clients
        );
    }
}

#[test]
fn a_flood_from_everywhere_asks_no_more_than_all_may() {
    for nodes in [2, 3, 5] {
        let world = flooded(nodes, 40_000, 20_000);
        all_within(&world, 16 * SECOND);
        let most = messages(limits::ASKS + 2 * limits::ASKS_RATE);
        assert!(
            world.mesh.sent_for_clients <= most,
            "{} messages",
            world.mesh.sent_for_clients
        );
    }
}
