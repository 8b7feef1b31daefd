//! Transfers that another node goes on with, by what became of the one before.

use super::*;

/// One client that is far away, at the first of three nodes; the others are nearly as far.
fn one(kind: Kind, blocks: usize) -> Setting {
    let mut setting = Setting::peaceful(3).with_file(1024 * blocks);
    setting = setting.with_guest(kind, 1024, &[0]);
    far(&mut setting);
    last(&mut setting).options.windowsize = None;
    setting
}

#[test]
fn the_owner_sends_again_what_was_lost_at_the_move() {
    let setting = one(Kind::Grub, 100)
        .with_fault(When::Blocks(0, 30), Fault::Move(0, 1))
        .with_fault(When::Blocks(0, 30), Fault::Deafen(0, 1));
    all_within(&holds(8, &setting), 5 * SECOND);
}

#[test]
fn an_heir_sends_what_was_lost_when_the_owner_died() {
    // The block after the move is lost, the ACK before it, or both.
    let heir = limits::HEIR_AFTER.as_micros() as u64;
    for (deaf, mute) in [(1, 0), (0, 1), (1, 1)] {
        let setting = one(Kind::Grub, 100)
            .with_fault(When::Blocks(0, 30), Fault::Die(0, 0, None))
            .with_fault(When::Blocks(0, 30), Fault::Mute(0, mute))
            .with_fault(When::Blocks(0, 30), Fault::Deafen(0, deaf));
        all_within(&holds(8, &setting), heir + 12 * SECOND);
    }
}

#[test]
fn each_client_survives_the_death_of_its_node() {
    for (nodes, kind) in (3..=5).flat_map(|nodes| Kind::ALL.map(|kind| (nodes, kind))) {
        for (converges, delay) in [(0, 10), (500, 1), (4000, 10)] {
            let mut setting = Setting::peaceful(nodes).with_file(1024 * 100);
            setting = setting.with_guest(kind, 1024, &[0]);
            // The nearer it is, the further it gets between two hints.
            last(&mut setting).paths = vec![Path::good(delay * MS); nodes];
            last(&mut setting).options.windowsize = None;
            let die = Fault::Die(0, converges * MS, None);
            let setting = setting.with_fault(When::Blocks(0, 60), die);
            all_within(&holds(8, &setting), 20 * SECOND);
        }
    }
}

#[test]
fn who_took_the_timers_over_under_a_lease_still_has_them_when_it_is_over() {
    // The first node dies, so the second one, which may be no holder, takes the timers over; at the
    // third the client is when its block is lost, long after the lease.
    for (second, third) in (1..5).flat_map(|a| (1..5).map(move |b| (a, b))) {
        let mut setting = Setting::peaceful(5).with_file(1024 * 400);
        setting = setting.with_guest(Kind::Grub, 1024, &[0]);
        far(&mut setting);
        let setting = setting
            .with_fault(When::Blocks(0, 30), Fault::Die(0, 0, None))
            .with_fault(When::Blocks(0, 30), Fault::Move(0, second))
            .with_fault(When::Blocks(0, 130), Fault::Move(0, third))
            .with_fault(When::Blocks(0, 280), Fault::Deafen(0, 1));
        all_within(&holds(8, &setting), 10 * SECOND);
    }
}

#[test]
fn an_owner_that_comes_back_with_nothing_is_followed_by_another() {
    // The client is elsewhere when it says its last ACK, which is lost. Until the owner is back, before
    // there is an heir, it was told so often of the ones before that it is told no more.
    for (nodes, back) in (2..=5).flat_map(|nodes| [3000, 3800, 4200].map(|back| (nodes, back))) {
        let mut setting = Setting::peaceful(nodes).with_file(1024 * 100);
        setting = setting.with_guest(Kind::Grub, 1024, &[0]);
        far(&mut setting);
        let setting = setting
            .with_fault(When::Blocks(0, 30), Fault::Die(0, 0, Some(back * MS)))
            .with_fault(When::Blocks(0, 30), Fault::Move(0, 1))
            .with_fault(When::Blocks(0, 34), Fault::Mute(0, 1));
        all_within(&holds(8, &setting), 15 * SECOND);
    }
}

#[test]
fn two_nodes_that_both_stood_still_agree_again() {
    let setting = one(Kind::UBoot, 400)
        .with_fault(When::Blocks(0, 30), Fault::Move(0, 1))
        .with_fault(When::Blocks(0, 60), Fault::Pause(1, 2 * SECOND, None))
        .with_fault(When::Blocks(0, 60), Fault::Pause(0, 2500 * MS, None))
        .with_fault(When::Blocks(0, 60), Fault::Pause(2, 3 * SECOND, None));
    all_within(&holds(8, &setting), 30 * SECOND);
}

#[test]
fn a_route_that_moves_at_each_packet_over_a_mesh_that_loses() {
    for kind in Kind::ALL {
        for (nodes, seed) in (2..=5).flat_map(|nodes| (0..4).map(move |seed| (nodes, seed))) {
            let mut setting = Setting::peaceful(nodes).with_file(512 * 60);
            setting.mesh.loss = 100;
            setting = setting.with_guest(kind, 512, &[0]);
            last(&mut setting).wander = Wander::Each(1);
            all_within(&holds(seed, &setting), 30 * SECOND);
        }
    }
}

#[test]
fn an_owner_that_stood_still_comes_back_to_a_transfer_that_went_on() {
    for kind in [Kind::Grub, Kind::UBoot, Kind::Ipxe, Kind::RaspberryPi] {
        for length in [300 * MS, 1500 * MS, 5 * SECOND] {
            let pause = Fault::Pause(0, length, Some(SECOND));
            let setting = one(kind, 400).with_fault(When::Blocks(0, 30), pause);
            all_within(&holds(8, &setting), 25 * SECOND);
        }
    }
}

#[test]
fn an_owner_that_stood_still_comes_back_to_a_port_that_has_another_file() {
    for seed in 0..8 {
        let mut setting = Setting::peaceful(3)
            .with_file(1024 * 60)
            .with_file(1024 * 900);
        setting = setting.with_guest(Kind::RaspberryPi, 1024, &[0, 1]);
        let setting = setting.with_fault(
            When::Blocks(0, 50),
            Fault::Pause(0, 4 * SECOND, Some(SECOND)),
        );
        // Its route may lead back there when it comes back.
        let setting = setting
            .with_fault(When::At(6 * SECOND), Fault::Move(0, 0))
            .with_fault(When::At(6 * SECOND + 200 * MS), Fault::Move(0, 2));
        all_within(&holds(seed, &setting), 20 * SECOND);
    }
}

#[test]
fn an_error_at_another_node_ends_the_transfer_at_all() {
    for kind in [Kind::Atftp, Kind::Curl] {
        let mut setting = one(kind, 300)
            .with_fault(When::Blocks(0, 40), Fault::Move(0, 1))
            .with_fault(When::Blocks(0, 60), Fault::Move(0, 2))
            .with_fault(When::At(1500 * MS), Fault::Abort(0));
        last(&mut setting).options.windowsize = (kind == Kind::Atftp).then_some(4);
        let world = holds(8, &setting);
        assert!(world.jobs[0].is_aborted);
        let after = world.last_sent.saturating_sub(world.jobs[0].ended.unwrap());
        assert!(after < 100 * MS, "{} ms after its end", after / MS);
    }
}

#[test]
fn a_node_that_heard_nothing_while_numbers_wrapped_is_silent() {
    for seed in 0..3 {
        let mut setting = Setting::peaceful(3).with_file(8 * 200_000);
        setting = setting.with_guest(Kind::Atftp, 8, &[0]);
        last(&mut setting).options.windowsize = Some(64);
        let cut = Fault::Cut(vec![false, false, true], 60 * SECOND);
        let setting = setting
            .with_fault(When::Blocks(0, 20_000), cut)
            .with_fault(When::Blocks(0, 120_000), Fault::Move(0, 2))
            .with_fault(When::Blocks(0, 120_064), Fault::Move(0, 0))
            .with_fault(When::At(25 * SECOND), Fault::Move(0, 0));
        let world = holds(seed, &setting);
        all_within(&world, 45 * SECOND);
    }
}

#[test]
fn numbers_wrap_while_the_route_moves() {
    for (blocks, wander) in [
        (65_536, Wander::Each(1)),
        (70_000, Wander::Each(10)),
        (200_000, Wander::Random(20)),
    ] {
        let mut setting = Setting::peaceful(3).with_file(8 * blocks);
        setting = setting.with_guest(Kind::Atftp, 8, &[0]);
        let guest = last(&mut setting);
        guest.options.windowsize = Some(64);
        guest.wander = wander;
        all_within(&holds(8, &setting), 120 * SECOND);
    }
}
