//! What happens to routes and clients when parts of a node, all of it, or the network fail: every
//! scenario with every announcer, by iBGP, OSPF and eBGP, with BIRD and FRR at the node and at the
//! first hop, for IPv4 and IPv6 at once. The table of it is `docs/lab-matrix.md`.

#![allow(
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking and tells its times by printing"
)]

mod backend;
mod config;
mod lab;
mod probe;
mod scenario;
mod site;
mod story;
mod table;
mod topology;

use std::fs;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

use anycast_labs::node::service::build_guard;
use anycast_labs::{isolate, isolated_with_for};

use backend::Backend;
use topology::Topology;

/// Of one lab; the longest, OSPF, takes about five minutes.
const TIMEOUT: Duration = Duration::from_secs(900);

/// How many labs run at once: each is five routing daemons and more.
const AT_ONCE: usize = 2;

/// A lab that runs, or writes its section.
struct Slot;

static RUNNING: Mutex<usize> = Mutex::new(0);
static ENDED: Condvar = Condvar::new();

impl Slot {
    fn take() -> Self {
        let running = RUNNING.lock().unwrap();
        let mut running: MutexGuard<'_, usize> = ENDED
            .wait_while(running, |running| *running >= AT_ONCE)
            .unwrap();
        *running += 1;
        Self
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        *RUNNING.lock().unwrap() -= 1;
        ENDED.notify_one();
    }
}

/// Inside the namespaces.
fn play(topology: Topology) {
    let rows: Vec<_> = Backend::ALL
        .into_iter()
        .flat_map(|backend| story::run(topology, backend))
        .collect();
    fs::write(table::draft(topology), table::section(topology, &rows)).unwrap();
}

/// Outside them.
fn publish(topology: Topology) {
    static WRITING: Mutex<()> = Mutex::new(());
    if isolate::inside().is_none() {
        let _one_at_a_time = WRITING.lock();
        table::publish(topology);
    }
}

#[test]
fn ibgp() {
    let _slot = Slot::take();
    isolated_with_for(TIMEOUT, build_guard, || play(topology::IBGP));
    publish(topology::IBGP);
}

#[test]
fn ospf() {
    let _slot = Slot::take();
    isolated_with_for(TIMEOUT, build_guard, || play(topology::OSPF));
    publish(topology::OSPF);
}

#[test]
fn ebgp() {
    let _slot = Slot::take();
    isolated_with_for(TIMEOUT, build_guard, || play(topology::EBGP));
    publish(topology::EBGP);
}

#[test]
fn ibgp_with_bfd() {
    let _slot = Slot::take();
    isolated_with_for(TIMEOUT, build_guard, || play(topology::IBGP_BFD));
    publish(topology::IBGP_BFD);
}

#[test]
fn ospf_with_bfd() {
    let _slot = Slot::take();
    isolated_with_for(TIMEOUT, build_guard, || play(topology::OSPF_BFD));
    publish(topology::OSPF_BFD);
}

#[test]
fn ebgp_with_bfd() {
    let _slot = Slot::take();
    isolated_with_for(TIMEOUT, build_guard, || play(topology::EBGP_BFD));
    publish(topology::EBGP_BFD);
}
