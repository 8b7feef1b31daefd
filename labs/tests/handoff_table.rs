//! Every scenario of a moving route with every client, without handoff and with it: the table of
//! `docs/handoff.md`. It takes about half an hour, and `cargo xtask handoff` runs it; what
//! `cargo xtask test` runs of it is in `handoff_routes.rs`.

#![allow(
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and says what it saw"
)]
#![allow(dead_code, reason = "other tests use the rest")]

mod moves;

use std::time::Duration;

use anycast_labs::isolated_with_for;
use anycast_labs::node::Kind;
use anycast_labs::slots::Slots;

use moves::clients::{Client, PROGRAMS};
use moves::lab::Lab;
use moves::scenario::{Scenario, play};
use moves::site::Announcing;
use moves::table::Run;
use moves::{Handoff, crowd, noise, prepare, table, uboot};

/// Of one lab; the longest takes about ten minutes.
const TIMEOUT: Duration = Duration::from_secs(1300);
/// Twelve seconds at a client's rate.
const SIZE: usize = 6 << 20;
/// How many labs run at once, however many threads the tests have: each is nine daemons and a
/// machine with U-Boot.
const AT_ONCE: usize = 2;

static SLOTS: Slots = Slots::new(AT_ONCE);

/// All scenarios of a lab. With handoff every client has to have the very bytes of the file; without
/// it, no others.
fn measure(run: Run) {
    uboot::available().unwrap();
    let mut lab = Lab::build(run.router, run.announcing, run.handoff, noise(1, SIZE));
    for (number, program) in PROGRAMS.into_iter().enumerate() {
        let client = Client::new(lab.hub(), number, program);
        lab.clients.push(client);
    }
    let client = Client::uboot(lab.hub(), PROGRAMS.len());
    lab.clients.push(client);
    let mut all = Vec::new();
    for scenario in Scenario::of(run.announcing) {
        let seen = play(&mut lab, *scenario);
        println!("{}: {seen:#?}", scenario.name(run.announcing));
        all.push((*scenario, seen));
        run.keep(&all);
    }
    for site in &lab.sites {
        println!("{}: unknown flows let in: {:?}", site.name, site.admitted());
    }
    for (scenario, seen) in &all {
        for outcome in &seen.outcomes {
            let what = format!("{}: {outcome:?}", scenario.name(run.announcing));
            let is_complete = outcome.failure.is_none();
            match run.handoff {
                Handoff::BeforeReply => assert!(is_complete && outcome.is_identical, "{what}"),
                Handoff::Off if is_complete && outcome.percent == 100 => {
                    assert!(outcome.is_identical, "{what}");
                }
                Handoff::Off => {}
            }
        }
    }
}

/// A test for each lab.
macro_rules! labs {
    ($($name:ident: $router:ident, $announcing:ident, $handoff:ident;)+) => {$(
        #[test]
        fn $name() {
            let _slot = SLOTS.take();
            let run = Run {
                router: Kind::$router,
                announcing: Announcing::$announcing,
                handoff: Handoff::$handoff,
            };
            isolated_with_for(TIMEOUT, prepare, || measure(run));
        }
    )+};
}

labs! {
    bird_before: Bird, Itself, Off;
    bird_after: Bird, Itself, BeforeReply;
    bird_guarded_before: Bird, Guard, Off;
    bird_guarded_after: Bird, Guard, BeforeReply;
    frr_before: Frr, Itself, Off;
    frr_after: Frr, Itself, BeforeReply;
    frr_guarded_before: Frr, Guard, Off;
    frr_guarded_after: Frr, Guard, BeforeReply;
}

#[test]
fn bird_crowd() {
    let _slot = SLOTS.take();
    isolated_with_for(TIMEOUT, prepare, || hold_out(Kind::Bird));
}

#[test]
fn frr_crowd() {
    let _slot = SLOTS.take();
    isolated_with_for(TIMEOUT, prepare, || hold_out(Kind::Frr));
}

fn hold_out(router: Kind) {
    let crowd = crowd::killed(router);
    table::keep_crowd(router, &crowd);
    assert_eq!(crowd.completed, crowd.clients);
    assert_eq!(crowd.identical, crowd.clients);
}

/// What a site lets in counts: where its firewall wants a transfer to begin with a request, a transfer
/// ends with its route.
#[test]
fn firewall_of_requests_alone_ends_transfers() {
    let _slot = SLOTS.take();
    isolated_with_for(TIMEOUT, prepare, || {
        let itself = Announcing::Itself;
        let mut lab = Lab::build(Kind::Bird, itself, Handoff::BeforeReply, noise(1, SIZE));
        for site in &lab.sites[1..] {
            site.admit_requests_alone();
        }
        let client = Client::new(lab.hub(), 0, PROGRAMS[0]);
        lab.clients.push(client);
        let seen = play(&mut lab, Scenario::CheckFails);
        println!("{seen:#?}");
        assert!(seen.moved.is_some());
        assert!(seen.outcomes[0].failure.is_some());
        assert!(seen.outcomes[0].percent < 100);
    });
}

/// After all others.
#[test]
fn the_document() {
    table::publish();
}
