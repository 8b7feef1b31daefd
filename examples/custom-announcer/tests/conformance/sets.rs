//! The announcer.

use std::process::Command;
use std::time::Duration;

use anycast_core::announce::{AnnounceError, Announcer};
use anycast_core::testing::announcer_suite::{AnnouncerBench, run};
use anycast_core::{ServiceAddress, ServiceAddresses, ServiceName};
use anycast_custom_announcer::sets::{SetsAnnouncer, SetsError};
use anycast_labs::isolated;
use async_trait::async_trait;

use crate::{nft, runtime};

const DEAD_MAN: Duration = Duration::from_secs(20);
const OURS: [&str; 2] = ["192.0.2.69", "2001:db8::69"];

/// Another service's elements in the same sets, a table that resembles ours, and a rule.
const OTHERS: [&str; 10] = [
    "add table inet anycast",
    "add set inet anycast announced4 { type ipv4_addr; }",
    "add set inet anycast announced6 { type ipv6_addr; }",
    "add set inet anycast preferred4 { type ipv4_addr; flags timeout; }",
    "add set inet anycast preferred6 { type ipv6_addr; flags timeout; }",
    "add element inet anycast announced4 { 192.0.2.70 }",
    "add element inet anycast preferred4 { 192.0.2.70 }",
    "add table ip anycast",
    "add set ip anycast preferred4 { type ipv4_addr; elements = { 192.0.2.69 }; }",
    "add element inet anycast announced6 { 2001:db8::70 }",
];

struct Kernel;

#[async_trait]
impl AnnouncerBench for Kernel {
    async fn announcer(&mut self) -> Box<dyn Announcer> {
        Box::new(SetsAnnouncer::new("anycast", DEAD_MAN).unwrap())
    }

    fn service(&self) -> ServiceName {
        ServiceName::new("redis").unwrap()
    }

    fn addresses(&self) -> ServiceAddresses {
        let addresses = OURS.map(|ip| ServiceAddress::new(ip.parse().unwrap()).unwrap());
        ServiceAddresses::new(addresses.to_vec()).unwrap()
    }

    async fn meddle(&mut self) {
        for (set, address) in [("preferred4", OURS[0]), ("preferred6", OURS[1])] {
            // It may have expired by itself.
            let element = format!("{{ {address} }}");
            let arguments = ["delete", "element", "inet", "anycast", set, &element];
            let _ = Command::new("nft").args(arguments).output();
        }
    }

    async fn state_of_others(&mut self) -> String {
        // An element to a line; ours go out of the one table that is shared.
        let shared = nft(&["list", "table", "inet", "anycast"]);
        let shared = shared
            .replace("elements = {", "\n")
            .replace([',', '}'], "\n");
        let not_ours = |line: &&str| !OURS.iter().any(|ip| line.contains(ip));
        let lines = shared
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty());
        let rest = lines.filter(not_ours).collect::<Vec<_>>().join("\n");
        rest + &nft(&["list", "table", "ip", "anycast"])
    }
}

#[test]
fn it_conforms() {
    isolated(|| {
        for line in OTHERS {
            nft(&[line]);
        }
        runtime().block_on(async {
            assert_eq!(Kernel.state_of_others().await.matches("::70").count(), 1);
            run(&mut Kernel).await.unwrap();
        });
    });
}

#[test]
fn it_makes_what_it_needs_and_says_what_it_lacks() {
    isolated(|| {
        runtime().block_on(async {
            let addresses = Kernel.addresses();
            let mut announcer = Kernel.announcer().await;
            let seen = announcer.observe(&addresses).await.unwrap();
            assert_eq!(
                seen.agreed(),
                Some(anycast_core::announce::InForce::Withdrawn)
            );
            // A table of that name whose sets are of another kind.
            nft(&[
                "add table inet anycast; add set inet anycast preferred4 { type inet_service; }",
            ]);
            let decision = anycast_core::testing::decision(
                Kernel.service(),
                addresses,
                anycast_core::Preference::Preferred,
                anycast_core::announce::Lifetime::DeadMan,
                std::time::Instant::now(),
            );
            let refused = announcer.apply(&decision).await;
            assert!(
                matches!(refused, Err(AnnounceError::Backend { .. })),
                "{refused:?}"
            );
        });
    });
}

#[test]
fn names_that_could_carry_a_command_are_refused() {
    for name in ["", "1a", "a b", "a;flush ruleset", "a\n", &"a".repeat(33)] {
        let refused = SetsAnnouncer::new(name, DEAD_MAN);
        assert!(matches!(refused, Err(SetsError::Table(_))), "{name:?}");
    }
    let refused = SetsAnnouncer::new("a", Duration::from_millis(999));
    assert!(matches!(refused, Err(SetsError::DeadMan(_))));
}
