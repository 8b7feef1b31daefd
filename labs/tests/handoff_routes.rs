//! Transfers while real routing daemons move their route: one scenario with BIRD at the clients'
//! router, one with FRR. `cargo xtask handoff` runs all of them and writes `docs/handoff.md`.

#![allow(
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and says what it saw"
)]
#![allow(dead_code, reason = "the table needs all of it")]

mod moves;

use std::time::Duration;

use anycast_labs::isolated_with;
use anycast_labs::node::Kind;

use moves::clients::{CURL_WITHOUT_LIMIT, Client, PROGRAMS};
use moves::lab::Lab;
use moves::scenario::{Scenario, Seen, play};
use moves::site::{Announcing, Part};
use moves::{Handoff, noise, prepare, uboot};

/// Twelve seconds at a client's rate.
const SIZE: usize = 6 << 20;
/// The dead man's 3 s, then the heir's 5.5 s or a client's own 5 s, and a slow machine.
const LONGEST: Duration = Duration::from_secs(20);

fn run(router: Kind, announcing: Announcing, scenario: Scenario) -> (Lab, Seen) {
    let image = noise(1, SIZE);
    let mut lab = Lab::build(router, announcing, Handoff::BeforeReply, image);
    for (number, program) in PROGRAMS.into_iter().enumerate() {
        let client = Client::new(lab.hub(), number, program);
        lab.clients.push(client);
    }
    match uboot::available() {
        Ok(()) => {
            let client = Client::uboot(lab.hub(), PROGRAMS.len());
            lab.clients.push(client);
        }
        Err(why) => println!("{why}"),
    }
    if std::env::var_os("PLAIN").is_some() {
        let client = Client::new(lab.hub(), 9, CURL_WITHOUT_LIMIT);
        lab.clients.push(client);
    }
    let seen = play(&mut lab, scenario);
    println!("{}: {:?}", scenario.name(announcing), seen.moved);
    for outcome in &seen.outcomes {
        println!("{outcome:?}");
    }
    for outcome in &seen.outcomes {
        assert_eq!(outcome.failure, None, "{}", outcome.client);
        assert!(outcome.is_identical, "{}: other bytes", outcome.client);
        assert!(outcome.stall < LONGEST, "{outcome:?}");
    }
    (lab, seen)
}

#[test]
fn bird_leaves_a_node_that_was_killed_and_its_transfers_go_on() {
    isolated_with(prepare, || {
        let scenario = Scenario::Killed(&[Part::Service]);
        let (lab, seen) = run(Kind::Bird, Announcing::Itself, scenario);
        assert!(seen.moved.is_some());
        for site in &lab.sites {
            println!("{}: {:?}", site.name, site.admitted());
        }
    });
}

#[test]
fn frr_leaves_a_node_that_was_cut_off_and_its_transfers_go_on() {
    isolated_with(prepare, || {
        let (lab, seen) = run(Kind::Frr, Announcing::Itself, Scenario::LinkCut);
        assert!(seen.moved.is_some());
        for site in &lab.sites {
            println!("{}: {:?}", site.name, site.admitted());
        }
    });
}
