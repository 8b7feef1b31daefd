//! The check `icmp` on this host's own loopback addresses, as far as they permit it.
//!
//! What needs a certain permission, another node or a kernel setting is in the labs
//! (`checks_udp`).
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]
#![cfg(feature = "check-icmp")]

use std::time::Duration;

use anycast_core::health::icmp::IcmpCheck;
use anycast_core::{HealthCheck, ServiceAddresses, Verdict};

/// Long enough for a reply on a slow machine.
const LONG: Duration = Duration::from_secs(20);

async fn verdict(addresses: &[&str]) -> Verdict {
    let addresses = addresses.iter().map(|address| address.parse().unwrap());
    let addresses = ServiceAddresses::new(addresses.collect()).unwrap();
    IcmpCheck::new(addresses).check(LONG).await
}

/// Whether this host and user permit ICMP is not known; what is said must fit.
fn is_refused(verdict: &Verdict) -> bool {
    match verdict {
        Verdict::Healthy => false,
        Verdict::Unhealthy(reason, _) => panic!("{reason}"),
        Verdict::Unknown(reason) => {
            assert!(reason.as_str().contains("CAP_NET_RAW"), "{reason}");
            assert!(reason.as_str().contains("ping_group_range"), "{reason}");
            true
        }
    }
}

#[tokio::test]
async fn this_host_replies_or_the_remedy_is_told() {
    let said = verdict(&["127.0.0.1/32", "127.0.0.77/32"]).await;
    if is_refused(&said) {
        return;
    }
    // TEST-NET-3: on no host.
    let said = verdict(&["127.0.0.1/32", "203.0.113.1/32"]).await;
    let Verdict::Unhealthy(reason, _) = said else {
        panic!("{said}");
    };
    let expected = "203.0.113.1: the address is not on this node";
    assert_eq!(reason.as_str(), expected);
}

/// Each hears the others' requests and replies, where the socket is a raw one.
#[tokio::test]
async fn many_at_once_do_not_take_each_others_replies() {
    let mut probes = tokio::task::JoinSet::new();
    for _ in 0..50 {
        probes.spawn(verdict(&["127.0.0.1/32"]));
    }
    for said in probes.join_all().await {
        is_refused(&said);
    }
}
