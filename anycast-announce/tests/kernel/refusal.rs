//! Nothing that is not ours is touched.

use anycast_announce::kernel::{KernelAnnouncer, KernelConfig};
use anycast_core::announce::{AnnounceError, Announcer, Preference};
use anycast_labs::{Netns, isolated};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

use crate::support::{
    BOTH, Echo, LONG, V4, V6, all, announcer, assert_copies, boosts, confirm, has, lab, lifetime,
    lines, now,
};

async fn refused(announcer: &mut KernelAnnouncer, preference: Preference) -> String {
    match announcer.apply(&now(preference)).await {
        Err(error @ AnnounceError::Refused { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

/// A copy on `lo` that somebody else made stays as it is, at every level.
async fn foreign_on_lo(node: &Netns, address: &str, options: &str) {
    node.run(&format!("ip addr add {address} dev lo {options}"))
        .unwrap();
    let before = lifetime(node, "lo", address);
    let mut announcer = announcer(true, LONG);
    for preference in [Preference::Preferred, Preference::Demoted] {
        let error = refused(&mut announcer, preference).await;
        let ip = address.split('/').next().unwrap();
        assert!(
            error.contains(ip) && error.contains("ip addr del"),
            "{error}"
        );
    }
    let after = lifetime(node, "lo", address);
    assert!(before.is_none() == after.is_none() && after <= before);
    let others = BOTH.iter().filter(|other| **other != address);
    for other in others {
        assert!(!has(node, "lo", other), "preferred with one address of two");
        assert!(has(node, "svc0", other));
    }
}

#[test]
fn a_permanent_v4_address_on_lo() {
    isolated(|| lab(async |node| foreign_on_lo(node, V4, "").await));
}

#[test]
fn a_permanent_v6_address_on_lo() {
    isolated(|| lab(async |node| foreign_on_lo(node, V6, "nodad").await));
}

#[test]
fn an_untagged_temporary_v4_address_on_lo() {
    isolated(|| {
        lab(async |node| foreign_on_lo(node, V4, "valid_lft 900 preferred_lft 900").await);
    });
}

#[test]
fn an_untagged_temporary_v6_address_on_lo() {
    isolated(|| {
        lab(async |node| foreign_on_lo(node, V6, "valid_lft 900 preferred_lft 900 nodad").await);
    });
}

#[test]
fn an_address_on_lo_with_another_prefix_length() {
    isolated(|| {
        lab(async |node| {
            node.run("ip addr add 2001:db8::69/64 dev lo nodad")
                .unwrap();
            let error = refused(&mut announcer(true, LONG), Preference::Preferred).await;
            assert!(error.contains("2001:db8::69/64"), "{error}");
            assert!(has(node, "lo", "2001:db8::69/64"));
        });
    });
}

#[test]
fn a_boost_made_permanent_by_hand_is_left_alone() {
    isolated(|| {
        lab(async |node| {
            let mut announcer = announcer(true, LONG);
            confirm(&mut announcer, now(Preference::Preferred)).await;
            node.run(&format!(
                "ip addr change {V4} dev lo valid_lft forever preferred_lft forever"
            ))
            .unwrap();
            for preference in [Preference::Preferred, Preference::Demoted] {
                let error = refused(&mut announcer, preference).await;
                assert!(error.contains("for ever"), "{error}");
            }
            assert_eq!(lifetime(node, "lo", V4), None);
            // The other address is demoted all the same.
            assert!(!has(node, "lo", V6));
            assert_copies(node);
        });
    });
}

/// An interface of that name that is somebody else's.
async fn foreign_interface(node: &Netns, commands: &[&str]) {
    for command in commands {
        node.run(command).unwrap();
    }
    let before = node.run("ip -o addr show dev svc0").unwrap();
    let mut announcer = announcer(true, LONG);
    for preference in [Preference::Preferred, Preference::Demoted] {
        let error = refused(&mut announcer, preference).await;
        assert!(error.contains("svc0") && !error.contains('\n'), "{error}");
    }
    assert_eq!(node.run("ip -o addr show dev svc0").unwrap(), before);
    assert_eq!(boosts(node), 0, "{}", all(node));
}

#[test]
fn a_bridge_of_that_name() {
    isolated(|| {
        lab(async |node| foreign_interface(node, &["ip link add name svc0 type bridge"]).await);
    });
}

#[test]
fn a_veth_of_that_name_with_another_address() {
    isolated(|| {
        lab(async |node| {
            foreign_interface(
                node,
                &[
                    "ip link add name svc0 type veth peer name c0",
                    "ip addr add 10.0.0.1/24 dev svc0",
                    "ip link set dev svc0 up",
                    "ip link set dev c0 up",
                ],
            )
            .await;
        });
    });
}

#[test]
fn a_veth_of_that_name_in_a_bridge() {
    isolated(|| {
        lab(async |node| {
            foreign_interface(
                node,
                &[
                    "ip link add name br0 type bridge",
                    "ip link add name svc0 type veth peer name c0",
                    "ip link set dev svc0 master br0",
                ],
            )
            .await;
        });
    });
}

#[test]
fn a_veth_of_that_name_with_anothers_alias() {
    isolated(|| {
        lab(async |node| {
            foreign_interface(
                node,
                &[
                    "ip link add name svc0 type veth peer name c0",
                    "ip link set dev svc0 alias storage",
                ],
            )
            .await;
        });
    });
}

#[test]
fn an_interface_handed_over_by_its_alias_is_used() {
    isolated(|| {
        lab(async |node| {
            node.run("ip link add name svc0 type veth peer name c0")
                .unwrap();
            node.run("ip addr add 10.0.0.1/24 dev svc0").unwrap();
            node.run("ip link set dev svc0 up").unwrap();
            let error = refused(&mut announcer(true, LONG), Preference::Demoted).await;
            let (_, remedy) = error.split_once("hand it over: ").unwrap();
            node.run(remedy).unwrap();
            confirm(&mut announcer(true, LONG), now(Preference::Demoted)).await;
            assert_copies(node);
            assert!(has(node, "svc0", "10.0.0.1/24"));
            // Its other end was not handed over.
            let other = node.run("ip -o link show dev c0").unwrap();
            assert!(!other.contains(",UP"), "{other}");
            confirm(&mut announcer(true, LONG), now(Preference::Preferred)).await;
        });
    });
}

#[test]
fn permanent_copies_of_the_operators_own_are_accepted_and_nothing_is_created() {
    isolated(|| {
        lab(async |node| {
            node.run("ip link add name any0 type veth peer name any1")
                .unwrap();
            node.run("ip link set dev any0 up").unwrap();
            node.run("ip link set dev any1 up").unwrap();
            node.run(&format!("ip addr add {V4} dev any0")).unwrap();
            node.run(&format!("ip addr add {V6} dev any0 nodad noprefixroute"))
                .unwrap();
            let before = node.run("ip -o addr show dev any0").unwrap();
            let mut announcer = announcer(true, LONG);
            confirm(&mut announcer, now(Preference::Preferred)).await;
            assert_eq!(boosts(node), 2);
            confirm(&mut announcer, now(Preference::Demoted)).await;
            assert!(node.run("ip link show dev svc0").is_err());
            assert_eq!(node.run("ip -o addr show dev any0").unwrap(), before);
            // Once the operator's interface is down, its copies serve nobody.
            node.run("ip link set dev any0 down").unwrap();
            confirm(&mut announcer, now(Preference::Demoted)).await;
            assert_copies(node);
            Echo::bind(V4).assert_answers();
        });
    });
}

#[test]
fn another_interface_name_is_used_as_configured() {
    isolated(|| {
        lab(async |node| {
            let config = KernelConfig::new(true)
                .with_interface("abcdefghijklmnp")
                .unwrap();
            confirm(
                &mut KernelAnnouncer::new(config),
                now(Preference::Preferred),
            )
            .await;
            assert!(has(node, "abcdefghijklmnp", V4) && has(node, "abcdefghijklmnp", V6));
            assert!(node.run("ip link show dev svc0").is_err());
        });
    });
}

#[test]
fn ipv6_disabled_is_an_error_that_says_so() {
    isolated(|| {
        lab(async |node| {
            node.sysctl("net.ipv6.conf.default.disable_ipv6", "1")
                .unwrap();
            let error = announcer(true, LONG).apply(&now(Preference::Demoted)).await;
            let error = error.unwrap_err();
            let source = std::error::Error::source(&error).unwrap().to_string();
            assert!(
                error.to_string().contains(V6) && error.to_string().contains("svc0"),
                "{error}"
            );
            assert!(source.contains("IPv6 is disabled"), "{source}");
            assert!(lines(node, "svc0", V4).len() == 1);
        });
    });
}

#[test]
fn without_cap_net_admin_the_error_names_the_remedy() {
    isolated(|| {
        lab(async |node| {
            let mut announcer = announcer(true, LONG);
            let mut mine = capabilities(None).unwrap();
            mine.effective.remove(CapabilitySet::NET_ADMIN);
            set_capabilities(None, mine).unwrap();
            let probed = announcer.probe().await.unwrap_err();
            let applied = announcer
                .apply(&now(Preference::Preferred))
                .await
                .unwrap_err();
            for error in [probed, applied] {
                assert!(
                    matches!(error, AnnounceError::Permission { .. }),
                    "{error:?}"
                );
                let error = error.to_string();
                assert!(
                    error.contains("AmbientCapabilities=CAP_NET_ADMIN"),
                    "{error}"
                );
            }
            // Looking needs no right.
            announcer
                .observe(&crate::support::service(&BOTH))
                .await
                .unwrap();
            mine.effective.insert(CapabilitySet::NET_ADMIN);
            set_capabilities(None, mine).unwrap();
            assert!(node.run("ip link show dev svc0").is_err());
            announcer.probe().await.unwrap();
        });
    });
}
