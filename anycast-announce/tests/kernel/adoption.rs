//! A new process finds what the old one left, and changes nothing.

use std::net::IpAddr;

use anycast_core::announce::{InForce, Preference};
use anycast_labs::isolated;

use crate::support::{
    BOTH, Change, Changes, LONG, announcer, assert_copies, boosts, confirm, in_force, lab, now,
    service,
};

/// One renewal of each boost, IPv6 first, and nothing else.
fn renewals() -> Vec<Change> {
    let boost = |ip: IpAddr| Change::Written(1, ip);
    let mut renewals: Vec<_> = service(&BOTH)
        .iter()
        .map(|address| boost(address.ip()))
        .collect();
    renewals.reverse();
    renewals
}

#[test]
fn a_restart_adopts_what_is_there() {
    isolated(|| {
        lab(async |node| {
            let mut killed = announcer(true, LONG);
            confirm(&mut killed, now(Preference::Preferred)).await;
            let mut changes = Changes::watch();
            drop(killed);
            let mut restarted = announcer(true, LONG);
            assert_eq!(in_force(&mut restarted).await, Some(InForce::Preferred));
            assert_eq!(changes.so_far(node).await, []);
            confirm(&mut restarted, now(Preference::Preferred)).await;
            assert_eq!(changes.so_far(node).await, renewals());
            assert_copies(node);
        });
    });
}

#[test]
fn applying_the_same_again_only_renews() {
    isolated(|| {
        lab(async |node| {
            let mut announcer = announcer(true, LONG);
            confirm(&mut announcer, now(Preference::Preferred)).await;
            let mut changes = Changes::watch();
            for _ in 0..3 {
                confirm(&mut announcer, now(Preference::Preferred)).await;
                assert_eq!(changes.so_far(node).await, renewals());
            }
            confirm(&mut announcer, now(Preference::Demoted)).await;
            assert_eq!(changes.so_far(node).await.len(), 2);
            confirm(&mut announcer, now(Preference::Demoted)).await;
            assert_eq!(changes.so_far(node).await, []);
            assert_eq!(boosts(node), 0);
        });
    });
}

#[test]
fn a_demoted_node_is_adopted_demoted() {
    isolated(|| {
        lab(async |node| {
            confirm(&mut announcer(true, LONG), now(Preference::Demoted)).await;
            let mut changes = Changes::watch();
            let mut restarted = announcer(true, LONG);
            assert_eq!(in_force(&mut restarted).await, Some(InForce::Demoted));
            confirm(&mut restarted, now(Preference::Demoted)).await;
            assert_eq!(changes.so_far(node).await, []);
        });
    });
}
