//! What others break is mended by the next decision, and noticed at once.

use std::time::Duration;

use anycast_core::announce::{Announcer, Applied, InForce, Preference};
use anycast_labs::{Netns, isolated};

use crate::support::{
    BOTH, Echo, LONG, PATIENCE, V4, V6, announcer, assert_copies, boosts, confirm, copy_of,
    in_force, lab, lifetime, now,
};

/// Breaks a preferred node with these commands, and expects the next decision to mend it.
async fn mended_after(node: &Netns, commands: &[&str]) {
    let mut announcer = announcer(true, LONG);
    confirm(&mut announcer, now(Preference::Preferred)).await;
    for command in commands {
        node.run(command).unwrap();
    }
    let told = tokio::time::timeout(PATIENCE, announcer.disturbed()).await;
    assert!(told.is_ok(), "{commands:?} went unnoticed");
    confirm(&mut announcer, now(Preference::Preferred)).await;
    assert_eq!(in_force(&mut announcer).await, Some(InForce::Preferred));
    assert_copies(node);
    assert_eq!(boosts(node), 2);
    Echo::bind(V4).assert_answers();
    Echo::bind(V6).assert_answers();
    // And the dead man still leaves a service behind.
    confirm(&mut announcer, now(Preference::Demoted)).await;
    Echo::bind(V4).assert_answers();
    Echo::bind(V6).assert_answers();
}

#[test]
fn permanent_copies_deleted_by_hand() {
    isolated(|| {
        lab(async |node| {
            let v4 = format!("ip addr del {} dev svc0", copy_of(V4));
            let v6 = format!("ip addr del {} dev svc0", copy_of(V6));
            mended_after(node, &[&v4, &v6]).await;
        });
    });
}

#[test]
fn one_permanent_copy_deleted_by_hand() {
    isolated(|| {
        lab(async |node| {
            mended_after(node, &[&format!("ip addr del {} dev svc0", copy_of(V6))]).await;
        });
    });
}

#[test]
fn lo_flushed() {
    isolated(|| lab(async |node| mended_after(node, &["ip addr flush dev lo"]).await));
}

#[test]
fn lo_flushed_of_global_addresses() {
    isolated(|| {
        lab(async |node| mended_after(node, &["ip addr flush dev lo scope global"]).await);
    });
}

#[test]
fn svc0_set_down() {
    isolated(|| lab(async |node| mended_after(node, &["ip link set dev svc0 down"]).await));
}

#[test]
fn svc0_deleted() {
    isolated(|| lab(async |node| mended_after(node, &["ip link del dev svc0"]).await));
}

#[test]
fn everything_gone_at_once() {
    isolated(|| {
        lab(async |node| {
            mended_after(node, &["ip link del dev svc0", "ip addr flush dev lo"]).await;
        });
    });
}

#[test]
fn a_permanent_copy_given_a_lifetime_by_hand() {
    isolated(|| {
        lab(async |node| {
            let mut announcer = announcer(true, LONG);
            confirm(&mut announcer, now(Preference::Preferred)).await;
            // `ip` sends no tag, and the kernel then drops ours.
            let copy = copy_of(V4);
            let change = format!("ip addr change {copy} dev svc0 valid_lft 900 preferred_lft 900");
            node.run(&change).unwrap();
            let told = tokio::time::timeout(PATIENCE, announcer.disturbed()).await;
            assert!(told.is_ok());
            let error = announcer
                .apply(&now(Preference::Preferred))
                .await
                .unwrap_err();
            let error = error.to_string();
            assert!(error.contains("was not made by this service"), "{error}");
            assert!(lifetime(node, "svc0", V4).is_some());
            // The remedy it names works.
            let (_, remedy) = error.split_once("remove it: ").unwrap();
            node.run(remedy).unwrap();
            confirm(&mut announcer, now(Preference::Preferred)).await;
            assert_copies(node);
        });
    });
}

#[test]
fn an_interface_left_half_made_is_completed() {
    isolated(|| {
        lab(async |node| {
            node.run("ip link add name svc0 type veth peer name svc0p")
                .unwrap();
            let mut announcer = announcer(true, LONG);
            confirm(&mut announcer, now(Preference::Preferred)).await;
            assert_copies(node);
            Echo::bind(V6).assert_answers();
        });
    });
}

#[test]
fn a_taken_peer_name_is_avoided() {
    isolated(|| {
        lab(async |node| {
            node.run("ip link add name svc0p type bridge").unwrap();
            confirm(&mut announcer(true, LONG), now(Preference::Preferred)).await;
            assert_copies(node);
        });
    });
}

#[test]
fn a_name_that_is_taken_as_an_alternative_name_is_reported() {
    isolated(|| {
        lab(async |node| {
            node.run("ip link add name br0 type bridge").unwrap();
            node.run("ip link property add dev br0 altname svc0")
                .unwrap();
            let applied = announcer(true, LONG)
                .apply(&now(Preference::Preferred))
                .await;
            let Applied::Unconfirmed(reason) = applied.unwrap() else {
                panic!("confirmed without an interface");
            };
            let reason = reason.as_str();
            assert!(
                reason.contains("creating the interface svc0: the kernel"),
                "{reason}"
            );
            assert_eq!(boosts(node), 0);
        });
    });
}

#[test]
fn our_own_renewals_are_no_disturbance() {
    isolated(|| {
        lab(async |_| {
            let mut announcer = announcer(true, LONG);
            for preference in [
                Preference::Preferred,
                Preference::Preferred,
                Preference::Demoted,
                Preference::Preferred,
            ] {
                confirm(&mut announcer, now(preference)).await;
                in_force(&mut announcer).await;
                // Long enough for an event to come, were there one.
                let told = tokio::time::timeout(Duration::from_millis(300), announcer.disturbed());
                assert!(told.await.is_err(), "disturbed by itself at {preference}");
            }
        });
    });
}

#[test]
fn the_expiry_of_the_boost_is_a_disturbance() {
    isolated(|| {
        lab(async |node| {
            let mut announcer = announcer(true, Duration::from_secs(2));
            confirm(&mut announcer, now(Preference::Preferred)).await;
            let told = tokio::time::timeout(PATIENCE, announcer.disturbed()).await;
            assert!(told.is_ok());
            assert!(boosts(node) < BOTH.len());
        });
    });
}

#[test]
fn others_addresses_are_no_disturbance() {
    isolated(|| {
        lab(async |node| {
            let mut announcer = announcer(true, LONG);
            confirm(&mut announcer, now(Preference::Preferred)).await;
            node.run("ip addr add 198.51.100.1/24 dev lo").unwrap();
            node.run("ip addr del 198.51.100.1/24 dev lo").unwrap();
            node.run("ip link add name other0 type veth peer name other1")
                .unwrap();
            node.run("ip link del dev other0").unwrap();
            let told = tokio::time::timeout(Duration::from_millis(300), announcer.disturbed());
            assert!(told.await.is_err());
        });
    });
}

#[test]
fn lost_events_are_a_disturbance() {
    isolated(|| {
        lab(async |node| {
            let mut announcer = announcer(true, LONG);
            confirm(&mut announcer, now(Preference::Preferred)).await;
            // More events than the socket's buffer holds, none of them about us.
            let add = "addr add 198.51.100.1/32 dev lo\naddr del 198.51.100.1/32 dev lo\n";
            std::fs::write("/run/batch", add.repeat(20_000)).unwrap();
            node.run("ip -batch /run/batch").unwrap();
            let told = tokio::time::timeout(PATIENCE, announcer.disturbed()).await;
            assert!(told.is_ok());
            // Once: the driver observes, and hears no more of it.
            in_force(&mut announcer).await;
            let told = tokio::time::timeout(Duration::from_millis(300), announcer.disturbed());
            assert!(told.await.is_err());
        });
    });
}
