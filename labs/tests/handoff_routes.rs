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

use moves::clients::{Client, PROGRAMS};
use moves::lab::Lab;
use moves::scenario::{Scenario, play};
use moves::site::{Announcing, Part};
use moves::{Handoff, noise, prepare, table, uboot};

/// Eight seconds at a client's rate.
const SIZE: usize = 4 << 20;
/// The dead man's 3 s, then the heir's 5.5 s or a client's own 5 s, and a slow machine.
const LONGEST: Duration = Duration::from_secs(20);

/// Every client has the whole file, and the firewall of the site that they went on at has let in what
/// it had never seen.
fn goes_on(router: Kind, scenario: Scenario) {
    let announcing = Announcing::Itself;
    let mut lab = Lab::build(router, announcing, Handoff::BeforeReply, noise(1, SIZE));
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
    let [requests, acks] = lab.sites[1].admitted();
    let seen = play(&mut lab, scenario);
    println!("{}: {seen:#?}", scenario.name(announcing));
    assert!(seen.moved.is_some(), "the route has not moved");
    for outcome in &seen.outcomes {
        assert_eq!(outcome.failure, None, "{}", outcome.client);
        assert!(outcome.is_identical, "{}: other bytes", outcome.client);
        assert!(outcome.stall < LONGEST, "{outcome:?}");
    }
    let admitted = lab.sites[1].admitted();
    assert!(
        admitted[1] > acks,
        "no ACK of an unknown flow: {admitted:?}"
    );
    assert_eq!(admitted[0], requests, "a transfer has begun again");
}

#[test]
fn bird_leaves_a_node_that_was_killed_and_its_transfers_go_on() {
    let scenario = Scenario::Killed(&[Part::Service]);
    isolated_with(prepare, || goes_on(Kind::Bird, scenario));
}

#[test]
fn frr_leaves_a_node_that_was_cut_off_and_its_transfers_go_on() {
    isolated_with(prepare, || goes_on(Kind::Frr, Scenario::LinkCut));
}

#[test]
fn the_document_has_a_row_for_every_scenario_and_client() {
    let clients: Vec<_> = PROGRAMS.iter().map(|program| program.name).collect();
    table::assert_complete(&[&clients[..], &["U-Boot"]].concat());
}
