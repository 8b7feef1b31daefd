//! Transfers that survive a route move: three real daemons, real clients that read a file from the
//! service address, and a router between them that sends their packets now here, now there.

#![allow(
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and says what it saw"
)]

mod clients;
#[path = "../sync/lab.rs"]
mod lab;
mod scene;

use std::thread;
use std::time::{Duration, Instant};

use anycast_labs::isolated_with;

use crate::clients::{CURL, read_all};
use crate::lab::{SERVICE, noise, prepare};
use crate::scene::{HICCUP, LOSS, NAMES, SIZE, Scene};

/// The lab moves what it says: without handoff a transfer is over when its route has moved.
#[test]
fn without_it_a_transfer_ends_with_its_route() {
    isolated_with(prepare, || {
        let scene = Scene::with("handoff = \"off\"", vec![CURL]);
        let outcomes = read_all(&scene.clients, |_| {
            thread::sleep(Duration::from_secs(3));
            scene.lead_to(1);
        });
        let said = format!("{:?}, {}", outcomes[0].failure, outcomes[0].bytes.len());
        assert!(outcomes[0].failure.is_some(), "{said}");
        assert!(outcomes[0].bytes.len() < SIZE, "{said}");
        println!("{said}");
    });
}

#[test]
fn a_route_that_goes_round_every_second_costs_a_hiccup() {
    isolated_with(prepare, || {
        let scene = Scene::new();
        scene.watch_unreachable();
        let mut moves = 0;
        let outcomes = read_all(&scene.clients, |some_read| {
            while some_read() {
                thread::sleep(Duration::from_secs(1));
                moves += 1;
                scene.lead_to(moves % NAMES.len());
            }
        });
        println!("{moves} moves");
        scene.assert_complete(&outcomes, HICCUP);
        scene.assert_none_unreachable();
        assert!(moves >= 8, "{moves} moves");
    });
}

#[test]
fn packets_that_go_ten_by_ten_to_three_sites_make_one_transfer() {
    isolated_with(prepare, || {
        let scene = Scene::new();
        scene.watch_unreachable();
        for site in 0..NAMES.len() {
            let table = 101 + site;
            let via = lab::address(site);
            for line in [
                format!("ip route add {SERVICE}/32 via {via} table {table}"),
                format!("ip rule add fwmark {table} lookup {table}"),
            ] {
                scene.hub().run(&line).unwrap();
            }
        }
        scene
            .hub()
            .nft(&format!(
                "table ip spread {{\nchain divide {{ type filter hook prerouting priority mangle;\n\
                 ip daddr {SERVICE} meta mark set numgen inc mod 30 map \
                 {{ 0-9 : 101, 10-19 : 102, 20-29 : 103 }}\n}}\n}}\n"
            ))
            .unwrap();
        let outcomes = read_all(&scene.clients, |_| {});
        scene.assert_complete(&outcomes, HICCUP);
        scene.assert_none_unreachable();
        for site in 0..NAMES.len() {
            assert!(scene.counted(site, "datagrams") > 1000, "site {site}");
        }
    });
}

/// What a client has begun with it ends with, at whichever node, whatever has the name by then.
#[test]
fn a_file_that_is_replaced_meanwhile_is_read_on_as_it_was() {
    isolated_with(prepare, || {
        let scene = Scene::new();
        let outcomes = read_all(&scene.clients, |some_read| {
            for (version, site) in [(2, 1), (3, 2), (4, 0)] {
                thread::sleep(Duration::from_secs(2));
                let new = noise(version, SIZE);
                scene.lab.sites[site].write("image", &new);
                for other in &scene.lab.sites {
                    other.until("the new one to be there", |other| {
                        other.read("image").as_ref() == Some(&new)
                    });
                }
                assert!(some_read(), "too late");
                scene.lead_to(site);
            }
        });
        scene.assert_complete(&outcomes, HICCUP);
    });
}

/// The node is cut off from its clients and from its peers at once.
#[test]
fn a_site_that_is_cut_off_is_followed_by_another_and_comes_back() {
    isolated_with(prepare, || {
        let scene = Scene::new();
        let outcomes = read_all(&scene.clients, |_| {
            thread::sleep(Duration::from_secs(3));
            scene.hub().cut(NAMES[0]).unwrap();
            thread::sleep(Duration::from_millis(500));
            scene.lead_to(1);
            thread::sleep(Duration::from_secs(6));
            scene.hub().heal(NAMES[0]).unwrap();
            thread::sleep(Duration::from_secs(1));
            scene.lead_to(0);
        });
        scene.assert_complete(&outcomes, LOSS);
    });
}

/// Nothing is in the way of the first packet but the round trip between two nodes.
#[test]
fn the_first_reply_comes_at_once() {
    isolated_with(prepare, || {
        let scene = Scene::with("", vec![CURL]);
        let waits = scene.clients[0].first_replies(100);
        let median = waits[waits.len() / 2];
        println!("median {median:?}, longest {:?}", waits.last());
        assert!(median < Duration::from_millis(20), "{waits:?}");
        assert_eq!(scene.counted(0, "unprotected"), 0);
    });
}

#[test]
fn a_daemon_that_is_killed_is_followed_by_another() {
    isolated_with(prepare, || {
        let mut scene = Scene::new();
        scene.watch_unreachable();
        scene.silence();
        let mut daemon = scene.lab.sites[0].daemon.take().unwrap();
        let outcomes = read_all(&scene.clients, |_| {
            thread::sleep(Duration::from_secs(3));
            daemon.kill().unwrap();
            // What a routing daemon with BFD takes.
            thread::sleep(Duration::from_millis(200));
            scene.lead_to(1);
        });
        scene.assert_complete(&outcomes, LOSS);
        scene.assert_none_unreachable();
    });
}

#[test]
fn a_daemon_that_hangs_is_followed_by_another_and_says_nothing_old_when_it_wakes() {
    isolated_with(prepare, || {
        let mut scene = Scene::new();
        scene.watch_unreachable();
        let mut daemon = scene.lab.sites[0].daemon.take().unwrap();
        let outcomes = read_all(&scene.clients, |_| {
            thread::sleep(Duration::from_secs(3));
            daemon.stop().unwrap();
            thread::sleep(Duration::from_millis(500));
            scene.lead_to(1);
            thread::sleep(Duration::from_secs(5));
            daemon.resume().unwrap();
            thread::sleep(Duration::from_secs(1));
            scene.lead_to(0);
        });
        scene.assert_complete(&outcomes, LOSS);
        scene.assert_none_unreachable();
    });
}

#[test]
fn a_node_that_drains_is_left_with_nothing_in_flight_while_its_clients_read_on() {
    isolated_with(prepare, || {
        let scene = Scene::new();
        scene.watch_unreachable();
        let outcomes = read_all(&scene.clients, |some_read| {
            thread::sleep(Duration::from_secs(2));
            let drained = &scene.lab.sites[0];
            assert!(scene.counted(0, "in_flight") >= 1);
            drained.ctl(&["drain", "tftp", "--reason", "maintenance"]);
            scene.lead_to(1);
            let begun = Instant::now();
            drained.until("nothing to be in flight", |_| {
                scene.counted(0, "in_flight") == 0
            });
            println!("drained after {:?}", begun.elapsed());
            assert!(some_read(), "it waited for the clients");
            drained.ctl(&["undrain", "tftp"]);
            scene.lead_to(0);
        });
        scene.assert_complete(&outcomes, HICCUP);
        scene.assert_none_unreachable();
    });
}

/// A stop ends the process with its clients elsewhere, long before they have read the file.
#[test]
fn a_node_that_is_stopped_leaves_its_transfers_to_another() {
    isolated_with(prepare, || {
        let mut scene = Scene::new();
        scene.watch_unreachable();
        let mut daemon = scene.lab.sites[0].daemon.take().unwrap();
        let outcomes = read_all(&scene.clients, |_| {
            thread::sleep(Duration::from_secs(2));
            daemon.signal(nix::sys::signal::Signal::SIGTERM).unwrap();
            thread::sleep(Duration::from_secs(1));
            scene.lead_to(1);
        });
        scene.assert_complete(&outcomes, HICCUP);
        scene.assert_none_unreachable();
        assert!(
            daemon
                .has_ended()
                .unwrap()
                .is_some_and(|status| status.success())
        );
    });
}
