//! Preferred, demoted, withdrawn; and the dead man.

use std::time::{Duration, Instant};

use anycast_announce::kernel::ADDRESS_PROTOCOL;
use anycast_core::announce::{AnnounceError, Announcer, Applied, InForce, Lifetime, Preference};
use anycast_core::testing::withdrawn_by_operator;
use anycast_labs::{eventually, isolated};

use crate::support::{
    BOTH, Echo, LONG, PATIENCE, V4, V6, about, announcer, assert_copies, boosts, confirm, decision,
    has, in_force, lab, lifetime, lines, now, tags,
};

#[test]
fn preferred_is_a_permanent_copy_on_svc0_and_a_boost_on_lo() {
    isolated(|| {
        lab(async |node| {
            let mut announcer = announcer(true, Duration::from_secs(30));
            announcer.probe().await.unwrap();
            assert_eq!(in_force(&mut announcer).await, Some(InForce::Withdrawn));
            confirm(&mut announcer, now(Preference::Preferred)).await;
            assert_eq!(in_force(&mut announcer).await, Some(InForce::Preferred));
            assert_copies(node);
            for address in BOTH {
                let left = lifetime(node, "lo", address).unwrap();
                assert!(left <= 30, "{left}");
            }
            // The tag on each of four addresses.
            assert_eq!(tags(&BOTH).await, [ADDRESS_PROTOCOL; 4]);
            for device in ["svc0", "lo"] {
                let line = lines(node, device, V6).concat();
                assert!(
                    line.contains("nodad") && line.contains("noprefixroute"),
                    "{line}"
                );
                assert!(!line.contains("tentative"), "{line}");
            }
            Echo::bind(V4).assert_answers();
            Echo::bind(V6).assert_answers();
        });
    });
}

#[test]
fn the_other_end_of_a_veth_pair_carries_nothing() {
    isolated(|| {
        lab(async |node| {
            confirm(&mut announcer(true, LONG), now(Preference::Preferred)).await;
            let links = node.run("ip -o -d link show").unwrap();
            if !links.contains("veth") {
                assert!(links.contains("dummy"), "{links}");
                return;
            }
            assert!(
                node.run("ip link show dev svc0p")
                    .unwrap()
                    .contains("NOARP")
            );
            assert_eq!(node.run("ip -o addr show dev svc0p").unwrap(), "");
            let own = node.run("ip -o addr show dev svc0").unwrap();
            assert_eq!(own.lines().count(), 2, "{own}");
        });
    });
}

#[test]
fn without_renewal_the_kernel_demotes_and_the_service_answers() {
    isolated(|| {
        lab(async |node| {
            let mut announcer = announcer(true, Duration::from_secs(2));
            let decided = Instant::now();
            confirm(&mut announcer, now(Preference::Preferred)).await;
            let echoes = BOTH.map(Echo::bind);
            let gone = || {
                echoes.iter().for_each(Echo::assert_answers);
                boosts(node) == 0
            };
            eventually(PATIENCE, "the boosts to expire", gone).unwrap();
            assert!(decided.elapsed() >= Duration::from_millis(1_400));
            assert_eq!(in_force(&mut announcer).await, Some(InForce::Demoted));
            assert_copies(node);
            echoes.iter().for_each(Echo::assert_answers);
            let routes = node.run("ip -6 route show table all").unwrap();
            assert_eq!(routes.matches("2001:db8::69").count(), 1, "{routes}");
        });
    });
}

#[test]
fn renewals_keep_the_boost() {
    isolated(|| {
        lab(async |node| {
            // Twice the dead-man time, with renewals at a third of it.
            let mut announcer = announcer(true, Duration::from_secs(6));
            let begun = Instant::now();
            confirm(&mut announcer, now(Preference::Preferred)).await;
            let mut before = Instant::now();
            while begun.elapsed() < Duration::from_secs(12) {
                tokio::time::sleep(Duration::from_secs(2)).await;
                let on_time = before.elapsed() < Duration::from_secs(5);
                before = Instant::now();
                // A machine that stood still may have let it expire, rightly.
                assert!(
                    !on_time || boosts(node) == 2,
                    "{}",
                    crate::support::all(node)
                );
                confirm(&mut announcer, now(Preference::Preferred)).await;
            }
            assert_eq!(in_force(&mut announcer).await, Some(InForce::Preferred));
        });
    });
}

#[test]
fn demoting_removes_the_boost_alone() {
    isolated(|| {
        lab(async |node| {
            let mut announcer = announcer(true, LONG);
            confirm(&mut announcer, now(Preference::Preferred)).await;
            let echoes = BOTH.map(Echo::bind);
            confirm(&mut announcer, now(Preference::Demoted)).await;
            assert_eq!(boosts(node), 0);
            assert_copies(node);
            assert_eq!(in_force(&mut announcer).await, Some(InForce::Demoted));
            echoes.iter().for_each(Echo::assert_answers);
            confirm(&mut announcer, now(Preference::Preferred)).await;
            assert_eq!(boosts(node), 2);
        });
    });
}

#[test]
fn a_fresh_node_that_is_demoted_serves_without_a_boost() {
    isolated(|| {
        lab(async |node| {
            let mut announcer = announcer(true, LONG);
            confirm(&mut announcer, now(Preference::Demoted)).await;
            assert_copies(node);
            assert_eq!(boosts(node), 0);
            Echo::bind(V4).assert_answers();
            Echo::bind(V6).assert_answers();
        });
    });
}

#[test]
fn a_withdrawal_over_a_floor_says_where_the_route_still_stands() {
    isolated(|| {
        lab(async |node| {
            let mut announcer = announcer(true, LONG);
            confirm(&mut announcer, now(Preference::Preferred)).await;
            let applied = announcer
                .apply(&now(withdrawn_by_operator()))
                .await
                .unwrap();
            let Applied::Unconfirmed(reason) = applied else {
                panic!("{applied:?}");
            };
            assert!(reason.as_str().contains("routing daemon"), "{reason}");
            assert_eq!(boosts(node), 0);
            assert_copies(node);
        });
    });
}

#[test]
fn without_a_floor_the_boost_is_the_route_and_demotion_is_inexpressible() {
    isolated(|| {
        lab(async |node| {
            let mut announcer = announcer(false, LONG);
            let able = announcer.capabilities();
            assert!(able.withdraw && !able.demote && able.dead_man == Some(LONG));
            confirm(&mut announcer, now(Preference::Preferred)).await;
            let refused = announcer.apply(&now(Preference::Demoted)).await;
            assert!(
                matches!(refused, Err(AnnounceError::Inexpressible { .. })),
                "{refused:?}"
            );
            assert_eq!(boosts(node), 2);
            confirm(&mut announcer, now(withdrawn_by_operator())).await;
            assert_eq!(in_force(&mut announcer).await, Some(InForce::Withdrawn));
            assert_eq!(boosts(node), 0);
            assert_copies(node);
        });
    });
}

#[test]
fn keeping_sets_the_lifetime_once_and_never_for_ever() {
    isolated(|| {
        lab(async |node| {
            let mut announcer = announcer(true, Duration::from_secs(30));
            confirm(&mut announcer, now(Preference::Preferred)).await;
            for (keep, at_most) in [(600, 600), (u64::MAX / 4, 7 * 24 * 3600)] {
                let keep = Lifetime::Keep(Duration::from_secs(keep));
                let keep = decision(&BOTH, Preference::Preferred, keep, Instant::now());
                confirm(&mut announcer, keep).await;
                for address in BOTH {
                    let left = lifetime(node, "lo", address).unwrap();
                    assert!((at_most - 120..=at_most).contains(&left), "{left}");
                }
            }
            confirm(&mut announcer, now(Preference::Preferred)).await;
            assert!(lifetime(node, "lo", V4).unwrap() <= 30);
        });
    });
}

#[test]
fn the_lifetime_counts_from_the_decision() {
    isolated(|| {
        lab(async |node| {
            let mut announcer = announcer(true, LONG);
            let past = Instant::now() - Duration::from_secs(1800);
            let old = decision(&BOTH, Preference::Preferred, Lifetime::DeadMan, past);
            confirm(&mut announcer, old).await;
            assert!(lifetime(node, "lo", V4).unwrap() <= 1800);
            assert!(lifetime(node, "lo", V6).unwrap() <= 1800);
        });
    });
}

#[test]
fn a_stale_decision_changes_nothing() {
    isolated(|| {
        lab(async |node| {
            let mut announcer = announcer(true, Duration::from_secs(5));
            let past = Instant::now() - Duration::from_secs(5);
            for preference in [Preference::Preferred, Preference::Demoted] {
                let old = decision(&BOTH, preference, Lifetime::DeadMan, past);
                let refused = announcer.apply(&old).await;
                assert!(
                    matches!(refused, Err(AnnounceError::Stale { .. })),
                    "{refused:?}"
                );
            }
            assert!(!has(node, "svc0", V4) && boosts(node) == 0);
        });
    });
}

#[test]
fn two_services_on_one_node_do_not_touch_each_other() {
    isolated(|| {
        lab(async |node| {
            let dns = ["192.0.2.53/32", "2001:db8::53/128"];
            let (mut one, mut two) = (announcer(true, LONG), announcer(true, LONG));
            confirm(&mut one, now(Preference::Preferred)).await;
            confirm(&mut two, about(&dns, Preference::Preferred)).await;
            confirm(&mut one, now(Preference::Demoted)).await;
            assert!(dns.iter().all(|address| has(node, "lo", address)));
            assert!(dns.iter().all(|address| has(node, "svc0", address)));
            assert_eq!(boosts(node), 0);
            assert_copies(node);
            confirm(&mut two, about(&dns, Preference::Demoted)).await;
            confirm(&mut one, now(Preference::Preferred)).await;
            assert!(!dns.iter().any(|address| has(node, "lo", address)));
            assert_eq!(boosts(node), 2);
        });
    });
}
