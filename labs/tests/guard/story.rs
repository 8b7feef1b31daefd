//! What every daemon goes through: healthy, wedged, answering wrongly, killed, and well again
//! after each.

use anycast_labs::node::service::build_guard;
use anycast_labs::{Netns, isolated_with};

use super::daemons::{CHRONYD, DNSMASQ, Daemon, NGINX, UNBOUND};
use super::node::{Guarded, folder};

/// The service addresses.
pub(crate) fn addresses() -> [std::net::IpAddr; 2] {
    ["192.0.2.69", "2001:db8::69"].map(|address| address.parse().unwrap())
}

/// Neither changes the one permanent copy, and each failure takes the boost alone.
pub(crate) fn falls_and_rises(daemon: Daemon) {
    let node = Netns::new("ams1").unwrap();
    (daemon.lay)(&folder(&node), true);
    let mut running = daemon.start(&node);
    let guarded = Guarded::start(&node, addresses(), "5s", daemon.checks);
    guarded.await_preferred();

    running.stop().unwrap();
    guarded.await_lowered("service");
    running.resume().unwrap();
    guarded.await_preferred();

    daemon.change(&node, &mut running, false);
    guarded.until("the wrong answer to be told", |guarded| {
        guarded.verdict("service").contains(daemon.wrong)
    });
    guarded.await_lowered(daemon.wrong);
    daemon.change(&node, &mut running, true);
    guarded.await_preferred();

    running.kill().unwrap();
    guarded.await_lowered("service");
    running = daemon.start(&node);
    guarded.await_preferred();

    guarded.assert_never_withdrawn();
    drop(running);
}

#[test]
fn unbound_falls_and_rises() {
    isolated_with(build_guard, || falls_and_rises(UNBOUND));
}

#[test]
fn dnsmasq_falls_and_rises() {
    isolated_with(build_guard, || falls_and_rises(DNSMASQ));
}

#[test]
fn nginx_falls_and_rises() {
    isolated_with(build_guard, || falls_and_rises(NGINX));
}

#[test]
fn chronyd_falls_and_rises() {
    isolated_with(build_guard, || falls_and_rises(CHRONYD));
}
