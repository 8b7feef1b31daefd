//! Runs that are written by hand, each for one way to fail.

use super::client::{Ended, Kind};
use super::holds;
use super::setting::{Fault, Guest, MS, Path, SECOND, Setting, Wander, When};
use super::world::World;
use crate::handoff::{Mode, limits};

mod across;
mod floods;
mod ports;

/// All were read, each in at most so long.
fn all_within(world: &World, limit: u64) {
    for (number, job) in world.jobs.iter().enumerate() {
        let took = job.ended.unwrap() - job.started;
        assert_eq!(job.outcome, Some(Ended::Whole), "read {number}");
        assert!(took <= limit, "read {number} took {} ms", took / MS);
    }
}

/// The last client that was added.
fn last(setting: &mut Setting) -> &mut Guest {
    setting.guests.last_mut().unwrap()
}

/// Far away: a block takes 20 ms.
fn far(setting: &mut Setting) {
    let nodes = setting.nodes;
    last(setting).paths = vec![Path::good(10 * MS); nodes];
}

#[test]
fn one_client_of_each_kind_reads_at_one_node() {
    for kind in Kind::ALL {
        let setting = Setting::peaceful(2).with_file(5000).with_file(0);
        let world = holds(8, &setting.with_guest(kind, 512, &[0, 1, 0]));
        all_within(&world, SECOND);
    }
}

#[test]
fn the_first_reply_waits_for_one_round_trip_between_nodes() {
    let wait = |nodes, mode| {
        let mut setting = Setting::peaceful(nodes).with_file(5000);
        setting.mesh = Path::good(40 * MS);
        setting.mode = mode;
        let world = holds(8, &setting.with_guest(Kind::UBoot, 512, &[0]));
        let job = &world.jobs[0];
        job.answered.unwrap() - job.started
    };
    for nodes in 2..=5 {
        let more = wait(nodes, Mode::BeforeReply) - wait(nodes, Mode::Async);
        // And what the stores take, a millisecond each at most.
        assert!(more.abs_diff(80 * MS) <= 3 * MS, "{nodes} nodes: {more} µs");
    }
}

#[test]
fn a_route_moves_at_each_packet() {
    for kind in Kind::ALL {
        for nodes in 2..=5 {
            let mut setting = Setting::peaceful(nodes).with_file(40_000);
            setting = setting.with_guest(kind, 512, &[0]);
            last(&mut setting).wander = Wander::Each(1);
            all_within(&holds(8, &setting), 10 * SECOND);
        }
    }
}

#[test]
fn three_sites_of_which_one_is_cut_off() {
    let mut setting = Setting::peaceful(3).with_file(1024 * 200);
    for (at, begins) in [
        (0, SECOND),
        (1, SECOND),
        (1, SECOND),
        (0, 4 * SECOND),
        (2, 4 * SECOND),
    ] {
        setting = setting.with_guest(Kind::UBoot, 1024, &[0]);
        far(&mut setting);
        let guest = last(&mut setting);
        (guest.at, guest.begins) = (at, begins);
        guest.options.windowsize = None;
    }
    let cut = Fault::Cut(vec![true, false, false], 15 * SECOND);
    let setting = setting
        .with_fault(When::At(2 * SECOND), cut)
        .with_fault(When::At(3 * SECOND), Fault::Move(2, 2));
    all_within(&holds(8, &setting), 7 * SECOND);
}

/// Longer than the patience with a silent client: whoever does not hear it has nothing to say of it.
#[test]
fn what_a_site_gives_up_that_is_cut_off_or_frozen_for_long_goes_on_elsewhere() {
    let mut setting = Setting::peaceful(2).with_file(1024 * 6000);
    setting = setting.with_guest(Kind::UBoot, 1024, &[0]);
    far(&mut setting);
    last(&mut setting).options.windowsize = None;
    let cut = Fault::Cut(vec![true, false], 95 * SECOND);
    let apart = setting.clone().with_fault(When::At(2 * SECOND), cut);
    all_within(&holds(8, &apart), 130 * SECOND);
    let pause = Fault::Pause(0, 85 * SECOND, Some(SECOND));
    let frozen = setting.with_fault(When::At(2 * SECOND), pause);
    all_within(&holds(8, &frozen), 140 * SECOND);
}

#[test]
fn who_crosses_from_one_half_of_the_mesh_to_the_other_gets_no_wrong_byte() {
    let mut setting = Setting::peaceful(3)
        .with_file(1024 * 200)
        .with_file(1024 * 100);
    setting = setting.with_guest(Kind::Ipxe, 1024, &[0, 1, 0, 1]);
    last(&mut setting).wander = Wander::Each(10);
    let cut = Fault::Cut(vec![true, false, false], 5 * SECOND);
    holds(8, &setting.with_fault(When::At(1500 * MS), cut));
}

#[test]
fn a_node_that_drains_hands_over_all_it_has() {
    for kind in [Kind::Grub, Kind::UBoot, Kind::Ipxe, Kind::Edk2, Kind::Curl] {
        let mut setting = Setting::peaceful(3).with_file(1024 * 400);
        setting = setting.with_guest(kind, 1024, &[0]);
        far(&mut setting);
        last(&mut setting).options.windowsize = None;
        let drain = Fault::Drain(0, SECOND, 3 * SECOND);
        let world = holds(8, &setting.with_fault(When::Datagram(50), drain));
        all_within(&world, 12 * SECOND);
        let in_flight = world.counts.get("drained with transfers in flight");
        assert_eq!(in_flight, None, "{kind:?}");
    }
}

#[test]
fn a_holder_without_the_content_waits_for_it() {
    let mut setting = Setting::peaceful(2);
    setting.files.push((1024 * 100, 2));
    setting.lacks = vec![1];
    let (file, version) = (0, 1);
    let publish = Fault::Publish {
        node: 0,
        file,
        version,
    };
    let hold = Fault::Hold {
        node: 1,
        file,
        version,
    };
    let setting = setting
        .with_guest(Kind::UBoot, 1024, &[0])
        .with_fault(When::At(SECOND / 2), publish)
        .with_fault(When::At(3 * SECOND), hold)
        .with_fault(When::Blocks(0, 20), Fault::Move(0, 1));
    let world = holds(8, &setting);
    all_within(&world, 15 * SECOND);
    assert_eq!(world.jobs[0].candidates, [1]);
}
