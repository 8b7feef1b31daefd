//! `anycast-guard` killed, with real BIRD: started again within the boost's time nothing
//! changes, in the kernel or on a router; not started again the node falls to its floor. The
//! router's record of BGP messages counts.

use anycast_labs::isolated_with;
use anycast_labs::node::Kind;
use anycast_labs::node::service::build_guard;
use anycast_labs::topo::{BOOST, FLOOR, Heard, Lab, SERVICE};

use super::daemons::DNSMASQ;
use super::node::{Guarded, folder};

const A: usize = 0;

fn await_announced(guarded: &Guarded<'_>, lab: &Lab, local_pref: u32) {
    for service in SERVICE {
        guarded.until(
            &format!("{service} to be announced at {local_pref}"),
            |_| lab.heard(A, service, 0).unwrap().announced.last() == Some(&local_pref),
        );
    }
}

/// What the router heard since then: these preferences, no withdrawal, no session lost.
fn assert_heard(lab: &Lab, since: usize, announced: &[u32]) {
    for service in SERVICE {
        let expected = Heard {
            announced: announced.to_vec(),
            withdrawn: 0,
            sessions: 0,
        };
        assert_eq!(lab.heard(A, service, since).unwrap(), expected, "{service}");
    }
}

fn at_site_a(dead_man: &str, body: impl FnOnce(&Lab, Guarded<'_>, anycast_labs::Proc)) {
    let lab = Lab::build(Kind::Bird, Kind::Bird, &[]).unwrap();
    let node = lab.sites[A].node.namespace();
    (DNSMASQ.lay)(&folder(node), true);
    let running = DNSMASQ.start(node);
    let guarded = Guarded::start(node, SERVICE, dead_man, DNSMASQ.checks);
    guarded.await_preferred();
    await_announced(&guarded, &lab, BOOST);
    body(&lab, guarded, running);
}

#[test]
fn a_guard_killed_and_started_again_changes_no_route() {
    isolated_with(build_guard, || {
        at_site_a("30s", |lab, mut guarded, _running| {
            let (since, mark) = (lab.messages().unwrap(), guarded.mark());
            for _ in 0..3 {
                guarded.process().kill().unwrap();
                guarded.start_again();
                guarded.await_preferred();
                guarded.await_renewals(2);
            }
            guarded.assert_nothing_deleted(mark);
            assert_heard(lab, since, &[]);
            println!(
                "3 kills and starts: {} boosts written, no address removed, no route update",
                guarded.renewals(mark)
            );
        });
    });
}

#[test]
fn a_guard_killed_and_not_started_again_falls_to_the_floor() {
    isolated_with(build_guard, || {
        at_site_a("5s", |lab, mut guarded, _running| {
            let since = lab.messages().unwrap();
            guarded.process().kill().unwrap();
            await_announced(&guarded, lab, FLOOR);
            assert!(guarded.is_lowered());
            assert_heard(lab, since, &[FLOOR]);
            guarded.start_again();
            await_announced(&guarded, lab, BOOST);
            assert_heard(lab, since, &[FLOOR, BOOST]);
            guarded.assert_never_withdrawn();
        });
    });
}

#[test]
fn a_service_that_is_killed_falls_to_the_floor_and_withdraws_nothing() {
    isolated_with(build_guard, || {
        at_site_a("5s", |lab, guarded, mut running| {
            let since = lab.messages().unwrap();
            running.kill().unwrap();
            await_announced(&guarded, lab, FLOOR);
            running = DNSMASQ.start(lab.sites[A].node.namespace());
            await_announced(&guarded, lab, BOOST);
            assert_heard(lab, since, &[FLOOR, BOOST]);
            guarded.assert_never_withdrawn();
            drop(running);
        });
    });
}
