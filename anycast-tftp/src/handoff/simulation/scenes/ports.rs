//! One port for file after file: what is left of the transfer before.

use super::*;

#[test]
fn a_port_is_used_for_another_file_at_another_node_while_the_first_ones_timer_is_set() {
    for mesh in [200, 10 * MS, 80 * MS] {
        // The timer is due after a quarter of a second: at some of these, just when the client
        // waits for the block of that number.
        for delay in (5000..7000).step_by(100) {
            let mut setting = Setting::peaceful(3)
                .with_file(1024 * 20)
                .with_file(1024 * 60);
            setting.mesh = Path::good(mesh);
            setting = setting.with_guest(Kind::RaspberryPi, 1024, &[0, 1, 0]);
            last(&mut setting).paths = vec![Path::good(delay); 3];
            let setting = setting
                // The last ACK is lost, so that its node sends again.
                .with_fault(When::Blocks(0, 21), Fault::Mute(0, 1))
                .with_fault(When::Blocks(0, 21), Fault::Move(0, 1));
            all_within(&holds(8, &setting), 6 * SECOND);
        }
    }
}

/// A client that reads file after file from one port, near all nodes.
fn keeper(nodes: usize, kind: Kind, reads: &[usize]) -> Setting {
    let mut setting = Setting::peaceful(nodes)
        .with_file(1024 * 20)
        .with_file(1024 * 60)
        .with_guest(kind, 1024, reads);
    last(&mut setting).port = Some(49_152);
    last(&mut setting).options.windowsize = None;
    setting
}

#[test]
fn the_last_ack_of_the_transfer_before_comes_late_and_twice() {
    for kind in [Kind::Curl, Kind::Ipxe, Kind::RaspberryPi, Kind::Grub] {
        for (nodes, later) in (2..=5).flat_map(|nodes| (1..12).map(move |later| (nodes, later))) {
            // Another file, and one with as many blocks.
            for reads in [[0, 1], [0, 0], [1, 0]] {
                let blocks = if reads[0] == 0 { 21 } else { 61 };
                let echo = Fault::Echo(0, later * MS);
                let mut setting = keeper(nodes, kind, &reads)
                    .with_fault(When::Blocks(0, blocks), echo)
                    .with_fault(When::Blocks(0, blocks - 1), Fault::Move(0, 1));
                last(&mut setting).pause = MS;
                all_within(&holds(8, &setting), 8 * SECOND);
            }
        }
    }
}

#[test]
fn a_probe_is_ended_at_one_node_and_the_file_asked_for_at_another() {
    for nodes in 2..=5 {
        for (first, second) in [(1, 0), (2, 1), (3, 1), (4, 2)] {
            for mesh in [200, 5 * MS, 30 * MS] {
                let mut setting = keeper(nodes, Kind::Edk2, &[0, 1])
                    .with_fault(When::Datagram(1), Fault::Move(0, first % nodes))
                    .with_fault(When::Datagram(2), Fault::Move(0, second % nodes));
                setting.mesh = Path::good(mesh);
                all_within(&holds(8, &setting), 10 * SECOND);
            }
        }
    }
}

#[test]
fn an_idle_node_that_stood_still_finds_an_old_request() {
    for nodes in 2..=4 {
        let mut setting = keeper(nodes, Kind::UBoot, &[1, 0]).with_fault(
            When::At(SECOND / 2),
            Fault::Pause(0, 5 * SECOND, Some(SECOND)),
        );
        far(&mut setting);
        all_within(&holds(8, &setting), 12 * SECOND);
    }
}

#[test]
fn both_nodes_of_a_directory_are_dead() {
    // Whichever two these are.
    for (a, b) in [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)] {
        let mut setting = keeper(4, Kind::Grub, &[0, 1, 0, 1])
            .with_fault(When::At(SECOND / 2), Fault::Die(a, 0, None))
            .with_fault(When::At(SECOND / 2), Fault::Die(b, 0, None));
        let guest = last(&mut setting);
        (guest.begins, guest.wander) = (3 * SECOND, Wander::Each(1));
        all_within(&holds(8, &setting), 12 * SECOND);
    }
}

#[test]
fn a_request_that_was_never_answered_is_made_again_when_the_file_is_another() {
    // GRUB hears nothing and gives up after 33 s; the transfer has an heir meanwhile. What it asks
    // for then, from the same port, is what has the name by then.
    for nodes in 2..=4 {
        let mut setting = keeper(nodes, Kind::Grub, &[0, 0])
            .with_fault(When::Datagram(2), Fault::Die(0, 0, None));
        setting.files[0].1 = 2;
        for node in 1..nodes {
            let (file, version) = (0, 1);
            let publish = Fault::Publish {
                node,
                file,
                version,
            };
            setting.faults.push((When::At(5 * SECOND), publish));
        }
        let world = holds(8, &setting);
        assert_eq!(world.jobs[0].outcome, Some(Ended::Silence));
        assert_eq!(world.jobs[1].outcome, Some(Ended::Whole));
        assert_eq!(world.jobs[1].candidates, [1], "{nodes} nodes");
    }
}
