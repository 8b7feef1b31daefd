//! The suite that every announcer must pass.

use std::time::Duration;

use anycast_announce::kernel::KernelShare;
use anycast_core::announce::Announcer;
use anycast_core::service::{ServiceAddresses, ServiceName};
use anycast_core::testing::announcer_suite::{AnnouncerBench, run};
use anycast_labs::{Netns, isolated};
use async_trait::async_trait;

use crate::support::{BOTH, V4, V6, announcer, lab, service};

/// Somebody else's addresses, made to resemble ours in all but the tag or the lifetime.
const OTHERS: [&str; 5] = [
    "ip link add name any0 type veth peer name any1",
    "ip addr add 192.0.2.70/32 dev lo valid_lft 90000 preferred_lft 90000",
    "ip addr add 2001:db8::70/128 dev lo nodad noprefixroute",
    "ip addr add 192.0.2.71/32 dev any0",
    "ip route add blackhole 198.51.100.0/24",
];

struct Kernel<'a> {
    node: &'a Netns,
    floor: bool,
    share: Option<KernelShare>,
}

#[async_trait]
impl AnnouncerBench for Kernel<'_> {
    async fn announcer(&mut self) -> Box<dyn Announcer> {
        let announcer = announcer(self.floor, Duration::from_secs(20));
        Box::new(match &self.share {
            Some(share) => announcer.sharing(share),
            None => announcer,
        })
    }

    fn service(&self) -> ServiceName {
        ServiceName::new("tftp").unwrap()
    }

    fn addresses(&self) -> ServiceAddresses {
        service(&BOTH)
    }

    async fn meddle(&mut self) {
        for address in [V4, V6] {
            // It may have expired by itself.
            let _ = self.node.run(&format!("ip addr del {address} dev lo"));
        }
    }

    async fn state_of_others(&mut self) -> String {
        let show = |line: &str| self.node.run(line).unwrap();
        let all = show("ip -o addr show") + &show("ip route show") + &show("ip -o link show");
        let mine = |line: &&str| {
            let ours = [V4, V6, "svc0"].iter().any(|name| line.contains(name));
            !ours
        };
        // The lifetime of others' addresses runs on.
        let still = |line: &str| {
            line.split("valid_lft")
                .next()
                .unwrap_or_default()
                .to_owned()
        };
        all.lines()
            .filter(mine)
            .map(still)
            .collect::<Vec<_>>()
            .join("\n")
    }
}

async fn conforms(node: &Netns, floor: bool, share: Option<KernelShare>) {
    for command in OTHERS {
        node.run(command).unwrap();
    }
    let mut bench = Kernel { node, floor, share };
    assert_eq!(
        bench.state_of_others().await.matches("192.0.2.7").count(),
        2
    );
    run(&mut bench).await.unwrap();
}

#[test]
fn with_a_floor() {
    isolated(|| lab(async |node| conforms(node, true, None).await));
}

#[test]
fn without_a_floor() {
    isolated(|| lab(async |node| conforms(node, false, None).await));
}

#[test]
fn sharing_with_others() {
    isolated(|| lab(async |node| conforms(node, true, Some(KernelShare::default())).await));
}
