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
use std::sync::Mutex;
use std::time::Duration;

use anycast_labs::node::service::build_guard;
use anycast_labs::slots::Slots;
use anycast_labs::{isolate, isolated_with_for};

use backend::Backend;
use topology::Topology;

/// Of one lab; the longest, OSPF, takes about five minutes.
const TIMEOUT: Duration = Duration::from_secs(900);

/// How many labs run at once, however many threads the tests have: each is five routing daemons
/// and more, and waits for timers most of the time.
const AT_ONCE: usize = 6;

static SLOTS: Slots = Slots::new(AT_ONCE);

/// Inside the namespaces.
fn play(topology: Topology, backend: Backend) {
    let rows = story::run(topology, backend);
    let section = table::section(topology, backend, &rows);
    fs::write(table::draft(topology, backend), section).unwrap();
}

/// Outside the namespaces.
fn publish(topology: Topology, backend: Backend) {
    static WRITING: Mutex<()> = Mutex::new(());
    if isolate::inside().is_none() {
        let _one_at_a_time = WRITING.lock();
        table::publish(topology, backend);
    }
}

/// A test for each topology with each announcer.
macro_rules! labs {
    ($($name:ident: $topology:ident, $backend:ident;)+) => {$(
        #[test]
        fn $name() {
            let _slot = SLOTS.take();
            let (topology, backend) = (topology::$topology, Backend::$backend);
            isolated_with_for(TIMEOUT, build_guard, || play(topology, backend));
            publish(topology, backend);
        }
    )+};
}

labs! {
    ibgp: IBGP, Loopback;
    ibgp_read_back: IBGP, Daemon;
    ibgp_without_the_kernel: IBGP, Steered;
    ibgp_with_bfd: IBGP_BFD, Loopback;
    ibgp_with_bfd_read_back: IBGP_BFD, Daemon;
    ibgp_with_bfd_without_the_kernel: IBGP_BFD, Steered;
    ospf: OSPF, Loopback;
    ospf_read_back: OSPF, Daemon;
    ospf_with_bfd: OSPF_BFD, Loopback;
    ospf_with_bfd_read_back: OSPF_BFD, Daemon;
    ebgp: EBGP, Loopback;
    ebgp_read_back: EBGP, Daemon;
    ebgp_without_the_kernel: EBGP, Steered;
    ebgp_with_bfd: EBGP_BFD, Loopback;
    ebgp_with_bfd_read_back: EBGP_BFD, Daemon;
    ebgp_with_bfd_without_the_kernel: EBGP_BFD, Steered;
}
