//! Sites of one cost behind one router, which come and go while a hundred clients read: in turn, and
//! no read ends by it.
//!
//! The router hears of the sites by BGP, and spreads the flows over those that are preferred: by a
//! plain multipath route, which hashes anew with each change, or by a resilient next-hop group.

#![allow(
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and says what it saw"
)]

mod flows;
#[path = "../sync/lab.rs"]
mod lab;
mod router;

use std::fs::OpenOptions;
use std::io::Write as _;
use std::thread;
use std::time::{Duration, Instant};

use anycast_core::NodeName;
use anycast_core::invariants::{Turned, f12_one_at_a_time};
use anycast_labs::{eventually, isolate, isolated_with};
use nix::sys::signal::Signal;

use crate::flows::{COUNT, Flows, places};
use crate::lab::{Lab, PATIENCE, noise, prepare};
use crate::router::{Kind, Routing};

const NAMES: [&str; 4] = ["ams1", "fra1", "lon1", "par1"];
/// Between two changes.
const SPACING: Duration = Duration::from_secs(3);
/// By how much one change may take longer than the next from the decision to the router's table.
const UNSHARP: Duration = Duration::from_millis(1500);
/// So long what is counted of flows looks back, and a little.
const COUNTED: Duration = Duration::from_millis(2600);
/// Ninety seconds at a client's pace.
const SIZE: usize = 1428 * 1500 + 7;

struct Scene {
    lab: Lab,
    routing: Routing,
    kind: Kind,
}

impl Scene {
    /// The first three sites run and are preferred, having joined one after the other.
    fn new(kind: Kind, image: &[u8]) -> Self {
        let mut lab = Lab::new(&NAMES, "mode = \"multi\"");
        for site in &lab.sites {
            let path = isolate::work_dir().join(&site.name).join("tftpd.toml");
            let mut file = OpenOptions::new().append(true).open(path).unwrap();
            writeln!(
                file,
                "\n[service.turns]\nspacing = \"3s\"\nleave_within = \"30s\""
            )
            .unwrap();
        }
        lab.sites[0].write("image", image);
        let routing = Routing::start(&lab, kind);
        let begun = Instant::now();
        for site in &mut lab.sites[..3] {
            site.start();
        }
        routing.await_members(&[0, 1, 2]);
        for site in &lab.sites[..3] {
            site.until("the file to be there", |site| {
                site.read("image").is_some_and(|read| read == image)
            });
        }
        println!("{kind:?}: three joined after {:?}", begun.elapsed());
        assert_spaced(&routing, &[0, 1, 2]);
        Self { lab, routing, kind }
    }

    /// Something happens to the set, until the router has these; how many flows have moved.
    fn step(&mut self, what: &str, members: &[usize], act: impl FnOnce(&mut Lab)) {
        let before = places(&self.lab);
        let begun = Instant::now();
        act(&mut self.lab);
        self.routing.await_members(members);
        let took = begun.elapsed();
        thread::sleep(COUNTED);
        let after = places(&self.lab);
        let moved = before
            .iter()
            .filter(|(port, site)| after.get(port).is_some_and(|now| now != *site));
        let mut at = vec![0; NAMES.len()];
        after.values().for_each(|site| at[*site] += 1);
        println!(
            "{:?}: {what}: after {took:.1?}, {} of {} flows moved; now at {at:?}",
            self.kind,
            moved.count(),
            after.len()
        );
    }
}

/// These joined one at a time, and spaced, by the router's clock.
fn assert_spaced(routing: &Routing, sites: &[usize]) {
    let joined = routing.joined();
    let turns = sites.iter().map(|site| Turned {
        node: NodeName::new(NAMES[*site]).unwrap(),
        from: joined[site],
        until: joined[site],
    });
    let turns: Vec<_> = turns.collect();
    let first = turns.iter().map(|turn| turn.from).min().unwrap();
    let after: Vec<_> = turns
        .iter()
        .map(|turn| (turn.node.as_str(), turn.from - first))
        .collect();
    println!("joined: {after:.1?}");
    f12_one_at_a_time(&turns, SPACING - UNSHARP).unwrap();
}

fn come_and_go(kind: Kind) {
    let image = noise(1, SIZE);
    let mut scene = Scene::new(kind, &image);
    let flows = Flows::begin(&scene.lab, "image");
    thread::sleep(COUNTED);
    scene.step("nothing", &[0, 1, 2], |_| {});
    scene.step("par1 starts", &[0, 1, 2, 3], |lab| lab.sites[3].start());
    scene.step("ams1 is drained", &[1, 2, 3], |lab| {
        lab.sites[0].ctl(&["drain", "tftp", "--reason", "maintenance"]);
    });
    let mut stopped = None;
    scene.step("fra1 is stopped", &[2, 3], |lab| {
        let mut daemon = lab.sites[1].daemon.take().unwrap();
        daemon.signal(Signal::SIGTERM).unwrap();
        stopped = Some(daemon);
    });
    let mut stopped = stopped.unwrap();
    eventually(PATIENCE, "fra1 to have ended", || {
        stopped.has_ended().unwrap().is_some()
    })
    .unwrap();
    scene.step("ams1 and fra1 at once", &[0, 1, 2, 3], |lab| {
        lab.sites[1].start();
        lab.sites[0].ctl(&["undrain", "tftp"]);
    });
    assert_spaced(&scene.routing, &[0, 1]);
    assert!(flows.left() > COUNT / 2, "only {} still read", flows.left());
    let outcomes = flows.end();
    let complete = outcomes
        .iter()
        .filter(|one| one.failure.is_none() && one.bytes == image);
    let stalls: Vec<_> = outcomes.iter().map(|one| one.stall).collect();
    let repeats: usize = outcomes.iter().map(|one| one.repeats).sum();
    println!(
        "{kind:?}: {} of {COUNT} complete, longest stall {:.1?}, {repeats} repeats",
        complete.count(),
        stalls.iter().max()
    );
    for outcome in &outcomes {
        assert_eq!(outcome.failure, None);
        assert!(outcome.bytes == image, "other bytes");
    }
}

#[test]
fn sites_come_and_go_behind_a_plain_multipath_route() {
    isolated_with(prepare, || come_and_go(Kind::Plain));
}

#[test]
fn sites_come_and_go_behind_a_resilient_group() {
    isolated_with(prepare, || come_and_go(Kind::Resilient));
}
