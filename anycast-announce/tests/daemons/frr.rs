//! FRR: read back from what bgpd sent.

use anycast_announce::frr::{FrrAnnouncer, FrrConfig};
use anycast_core::announce::{Announcer, Applied, InForce, Preference, Role};
use anycast_core::service::{ServiceAddresses, ServiceName};
use anycast_core::testing::announcer_suite::{AnnouncerBench, run};
use anycast_core::testing::withdrawn_by_operator;
use anycast_labs::isolated;
use anycast_labs::node::Kind;
use async_trait::async_trait;

use crate::support::{BOTH, Lab, PATIENCE, folder, in_force, kernel, name, now, sample, service};

fn frr(lab: &Lab, dead_man: u64) -> FrrAnnouncer {
    let neighbours = ["10.0.0.1", "2001:db8:0:1::1"].map(|text| text.parse().unwrap());
    let config = FrrConfig::new(kernel(dead_man), neighbours.into())
        .unwrap()
        .with_socket(folder(lab.node.namespace()).join("bgpd.vty"));
    FrrAnnouncer::new(config, Role::Primary)
}

struct Bench<'a>(&'a Lab);

#[async_trait]
impl AnnouncerBench for Bench<'_> {
    async fn announcer(&mut self) -> Box<dyn Announcer> {
        Box::new(frr(self.0, 20))
    }

    fn service(&self) -> ServiceName {
        name()
    }

    fn addresses(&self) -> ServiceAddresses {
        service()
    }

    async fn meddle(&mut self) {
        for address in BOTH {
            // It may have expired by itself.
            let command = format!("ip addr del {address} dev lo");
            let _ = self.0.node.namespace().run(&command);
        }
        let what = "bgpd to have sent what was undone";
        let done = || BOTH.iter().all(|address| self.0.best(address) != Some(200));
        anycast_labs::eventually(PATIENCE, what, done).unwrap();
    }

    async fn state_of_others(&mut self) -> String {
        self.0.node.ask("show running-config").unwrap()
    }
}

#[test]
fn the_suite_passes() {
    isolated(|| {
        let lab = Lab::start(Kind::Frr, &sample("frr.conf"));
        lab.run(async || run(&mut Bench(&lab)).await.unwrap());
    });
}

#[test]
fn confirmed_is_what_the_router_has_and_nothing_is_withdrawn() {
    isolated(|| {
        let lab = Lab::start(Kind::Frr, &sample("frr.conf"));
        lab.run(async || {
            let mut frr = frr(&lab, 600);
            frr.probe().await.unwrap();
            for _ in 0..3 {
                lab.confirm(&mut frr, Preference::Preferred).await;
                lab.router_has(Some(200));
                lab.confirm(&mut frr, Preference::Demoted).await;
                lab.router_has(Some(50));
            }
            // A withdrawal is never confirmed, and demotes at least.
            let applied = frr.apply(&now(withdrawn_by_operator())).await.unwrap();
            assert!(matches!(applied, Applied::Unconfirmed(_)), "{applied:?}");
            assert_eq!(in_force(&mut frr).await, Some(InForce::Demoted));
        });
        assert_eq!(lab.withdrawals(), 0, "{}", lab.router.describe());
    });
}

/// zebra 8.4 removes the newest connected route of a prefix, whichever address is gone: a copy
/// that is newer than the boost must not be one.
#[test]
fn a_boost_that_is_older_than_its_copy_ends_all_the_same() {
    isolated(|| {
        let lab = Lab::start(Kind::Frr, &sample("frr.conf"));
        lab.run(async || {
            let mut frr = frr(&lab, 600);
            lab.confirm(&mut frr, Preference::Preferred).await;
            lab.router_has(Some(200));
            lab.node.namespace().run("ip addr flush dev svc0").unwrap();
            lab.confirm(&mut frr, Preference::Preferred).await;
            lab.confirm(&mut frr, Preference::Demoted).await;
            lab.router_has(Some(50));
        });
        assert_eq!(lab.withdrawals(), 0, "{}", lab.router.describe());
    });
}

#[test]
fn a_route_map_that_was_changed_by_hand_is_seen() {
    isolated(|| {
        let lab = Lab::start(Kind::Frr, &sample("frr.conf"));
        lab.run(async || {
            let mut frr = frr(&lab, 600);
            lab.confirm(&mut frr, Preference::Preferred).await;
            for family in ["4", "6"] {
                let namespace = lab.node.namespace();
                let folder = folder(namespace);
                let mut vtysh = std::process::Command::new("vtysh");
                vtysh.arg("--vty_socket").arg(&folder);
                vtysh.arg("--config_dir").arg(&folder);
                vtysh.args(["-c", "configure terminal"]);
                vtysh.args(["-c", &format!("route-map BOOST{family} permit 10")]);
                vtysh.args(["-c", "set local-preference 77"]);
                let output = namespace.output(&mut vtysh).unwrap();
                assert!(output.status.success(), "{output:?}");
            }
            let what = "bgpd to send 77";
            let sent = || BOTH.iter().all(|address| lab.best(address) == Some(77));
            anycast_labs::eventually(PATIENCE, what, sent).unwrap();
            let applied = frr.apply(&now(Preference::Preferred)).await.unwrap();
            let Applied::Unconfirmed(why) = applied else {
                panic!("{applied:?}");
            };
            assert!(why.as_str().contains("local preference 77"), "{why}");
        });
    });
}

#[test]
fn a_neighbour_that_bgpd_does_not_know_is_found_at_the_start() {
    isolated(|| {
        let lab = Lab::start(Kind::Frr, &sample("frr.conf"));
        lab.run(async || {
            let config = FrrConfig::new(kernel(600), vec!["10.0.0.77".parse().unwrap()])
                .unwrap()
                .with_socket(folder(lab.node.namespace()).join("bgpd.vty"));
            let error = FrrAnnouncer::new(config, Role::Primary)
                .probe()
                .await
                .unwrap_err();
            assert!(error.to_string().contains("10.0.0.77"), "{error}");
        });
    });
}
