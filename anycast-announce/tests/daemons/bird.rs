//! BIRD: read back from the export tables, under both carriers.

use anycast_announce::attributes::{Expression, GRACEFUL_SHUTDOWN};
use anycast_announce::bird::command::{Channel, Symbol};
use anycast_announce::bird::{BirdAnnouncer, BirdConfig, Carrier};
use anycast_core::announce::{Announcer, Applied, InForce, Preference, Role};
use anycast_core::service::{ServiceAddresses, ServiceName};
use anycast_core::testing::announcer_suite::{AnnouncerBench, run};
use anycast_core::testing::withdrawn_by_operator;
use anycast_labs::isolated;
use anycast_labs::mrt::Update;
use anycast_labs::node::Kind;
use async_trait::async_trait;

use crate::support::{BOTH, Lab, folder, in_force, kernel, name, now, sample, service};

/// The sample, with what read-back needs.
fn config() -> String {
    let text = sample("bird.conf");
    let with = text.replace("next hop self; };", "next hop self; export table on; };");
    assert_eq!(with.matches("export table on").count(), 2);
    with
}

/// The boost as protocols of BIRD's own, off at the start.
fn with_protocols() -> String {
    let boost = |family: &str, prefix: &str| {
        let name = family.trim_start_matches("ipv");
        format!(
            "protocol static boost{name} {{ disabled; {family} {{ preference 241; }}; \
             route {prefix} blackhole; }}\n"
        )
    };
    let text = config().replace("proto = \"anycast_boost\"", "proto ~ \"boost*\"");
    text + &boost("ipv4", BOTH[0]) + &boost("ipv6", BOTH[1])
}

fn symbols(names: &[&str]) -> Vec<Symbol> {
    names
        .iter()
        .map(|name| Symbol::new(name).unwrap())
        .collect()
}

fn bird(lab: &Lab, carrier: Carrier, floor: &[&str]) -> BirdAnnouncer {
    let channels = ["router4.ipv4", "router6.ipv6"];
    let channels = channels.map(|name| Channel::new(name).unwrap());
    let config = BirdConfig::new(carrier, channels.into())
        .unwrap()
        .with_floor(symbols(floor))
        .unwrap()
        .with_socket(folder(lab.node.namespace()).join("bird.ctl"));
    BirdAnnouncer::new(config, Role::Primary)
}

/// Carried by the kernel, and read back from this.
fn shown_by(lab: &Lab, expression: Expression) -> BirdAnnouncer {
    let channels = ["router4.ipv4", "router6.ipv6"];
    let channels = channels.map(|name| Channel::new(name).unwrap());
    let config = BirdConfig::new(Carrier::Kernel(kernel(600)), channels.into())
        .unwrap()
        .with_expression(expression)
        .unwrap()
        .with_socket(folder(lab.node.namespace()).join("bird.ctl"));
    BirdAnnouncer::new(config, Role::Primary)
}

const FLOOR: [&str; 2] = ["anycast_floor4", "anycast_floor6"];
const BOOST: [&str; 2] = ["boost4", "boost6"];

struct Bench<'a> {
    lab: &'a Lab,
    is_kernel: bool,
}

impl Bench<'_> {
    fn carrier(&self) -> Carrier {
        if self.is_kernel {
            Carrier::Kernel(kernel(20))
        } else {
            Carrier::Protocol(symbols(&BOOST))
        }
    }
}

#[async_trait]
impl AnnouncerBench for Bench<'_> {
    async fn announcer(&mut self) -> Box<dyn Announcer> {
        Box::new(bird(self.lab, self.carrier(), &FLOOR))
    }

    fn service(&self) -> ServiceName {
        name()
    }

    fn addresses(&self) -> ServiceAddresses {
        service()
    }

    async fn meddle(&mut self) {
        for (address, protocol) in BOTH.iter().zip(BOOST) {
            if self.is_kernel {
                let namespace = self.lab.node.namespace();
                // It may have expired by itself.
                let _ = namespace.run(&format!("ip addr del {address} dev lo"));
            } else {
                self.lab.node.ask(&format!("disable {protocol}")).unwrap();
            }
        }
        let what = "BIRD to have exported what was undone";
        let done = || {
            BOTH.iter()
                .all(|address| self.lab.best(address) != Some(200))
        };
        anycast_labs::eventually(crate::support::PATIENCE, what, done).unwrap();
    }

    async fn state_of_others(&mut self) -> String {
        let namespace = self.lab.node.namespace();
        let links = namespace.run("ip -o link show").unwrap();
        let routes = self.lab.node.ask("show route 198.51.100.0/24").unwrap();
        let kept = |line: &&str| !line.contains("svc0") && !line.contains("svc1");
        let links: Vec<_> = links.lines().filter(kept).collect();
        format!("{}\n{routes}", links.join("\n"))
    }
}

const OTHERS: &str = "\nprotocol static other_boost { ipv4; route 198.51.100.0/24 blackhole; }\n";

#[test]
fn the_suite_passes_with_the_kernel_as_carrier() {
    isolated(|| {
        let lab = Lab::start(Kind::Bird, &(config() + OTHERS));
        lab.run(async || {
            let mut bench = Bench {
                lab: &lab,
                is_kernel: true,
            };
            run(&mut bench).await.unwrap();
        });
    });
}

#[test]
fn the_suite_passes_with_protocols_as_carrier() {
    isolated(|| {
        let lab = Lab::start(Kind::Bird, &(with_protocols() + OTHERS));
        lab.run(async || {
            let mut bench = Bench {
                lab: &lab,
                is_kernel: false,
            };
            run(&mut bench).await.unwrap();
        });
    });
}

#[test]
fn confirmed_is_what_the_router_has_and_nothing_is_withdrawn() {
    isolated(|| {
        let lab = Lab::start(Kind::Bird, &config());
        lab.run(async || {
            let mut bird = bird(&lab, Carrier::Kernel(kernel(600)), &[]);
            bird.probe().await.unwrap();
            for _ in 0..3 {
                lab.confirm(&mut bird, Preference::Preferred).await;
                lab.router_has(Some(200));
                lab.confirm(&mut bird, Preference::Demoted).await;
                lab.router_has(Some(50));
            }
        });
        assert_eq!(lab.withdrawals(), 0, "{}", lab.router.describe());
    });
}

#[test]
fn a_withdrawal_is_real_and_a_raise_comes_back_from_it() {
    isolated(|| {
        let lab = Lab::start(Kind::Bird, &config());
        lab.run(async || {
            let mut bird = bird(&lab, Carrier::Kernel(kernel(600)), &FLOOR);
            lab.confirm(&mut bird, Preference::Preferred).await;
            lab.router_has(Some(200));
            lab.confirm(&mut bird, withdrawn_by_operator()).await;
            lab.router_has(None);
            assert_eq!(in_force(&mut bird).await, Some(InForce::Withdrawn));
            lab.confirm(&mut bird, Preference::Demoted).await;
            lab.router_has(Some(50));
        });
    });
}

/// A plain `configure` enables what was disabled by hand, and undrains in silence.
#[test]
fn a_reload_by_the_operator_is_drift_and_is_repaired() {
    isolated(|| {
        let lab = Lab::start(Kind::Bird, &with_protocols().replace("disabled;", ""));
        lab.run(async || {
            let mut bird = bird(&lab, Carrier::Protocol(symbols(&BOOST)), &FLOOR);
            lab.confirm(&mut bird, Preference::Demoted).await;
            assert_eq!(in_force(&mut bird).await, Some(InForce::Demoted));
            lab.node.ask("configure").unwrap();
            lab.router_has(Some(200));
            assert_eq!(in_force(&mut bird).await, Some(InForce::Preferred));
            lab.confirm(&mut bird, Preference::Demoted).await;
            lab.router_has(Some(50));
        });
        assert_eq!(lab.withdrawals(), 0, "{}", lab.router.describe());
    });
}

/// The sample for eBGP says the levels three times; BIRD then sends no MED, whatever its export
/// table shows. What the router heard is the proof.
#[test]
fn a_med_that_bird_loses_on_the_way_is_not_confirmed() {
    isolated(|| {
        let text = sample("bird-ebgp.conf");
        let text = text.replace("next hop self; };", "next hop self; export table on; };");
        let lab = Lab::start_in(65010, Kind::Bird, &text);
        let med = Expression::Med {
            preferred: 100,
            demoted: 1000,
        };
        lab.run(async || {
            let mut by_community = shown_by(&lab, Expression::Community(GRACEFUL_SHUTDOWN));
            lab.confirm(&mut by_community, Preference::Demoted).await;
            lab.router_hears("the floor", |update| update.path_length == 4);
            let demoted = now(Preference::Demoted);
            let applied = shown_by(&lab, med).apply(&demoted).await.unwrap();
            let Applied::Unconfirmed(why) = applied else {
                panic!("{applied:?}");
            };
            assert!(why.as_str().contains("loses such a MED"), "{why}");
            let floors = |update: &Update| update.path_length == 4 && update.med.is_some();
            assert!(!lab.updates().iter().any(floors), "{:?}", lab.updates());
            // Alone it is sent.
            lab.confirm(&mut shown_by(&lab, med), Preference::Preferred)
                .await;
            lab.router_hears("the boost", |update| update.med == Some(100));
        });
    });
}

/// The filter says 200; `configure soft` loads it and sends nothing. What was sent counts.
#[test]
fn a_filter_that_was_loaded_but_not_applied_is_not_believed() {
    isolated(|| {
        let lab = Lab::start(Kind::Bird, &config());
        lab.run(async || {
            let mut bird = bird(&lab, Carrier::Kernel(kernel(600)), &[]);
            lab.confirm(&mut bird, Preference::Preferred).await;
            let file = folder(lab.node.namespace()).join("bird.conf");
            let text = config().replace("bgp_local_pref = 200", "bgp_local_pref = 77");
            std::fs::write(&file, text).unwrap();
            lab.node.ask("configure soft").unwrap();
            assert_eq!(in_force(&mut bird).await, Some(InForce::Preferred));
            lab.node.ask("configure").unwrap();
            lab.node.ask("reload out all").unwrap();
            let what = "BIRD to export 77";
            let sent = || lab.best(BOTH[0]) == Some(77) && lab.best(BOTH[1]) == Some(77);
            anycast_labs::eventually(crate::support::PATIENCE, what, sent).unwrap();
            let applied = bird.apply(&now(Preference::Preferred)).await.unwrap();
            let Applied::Unconfirmed(why) = applied else {
                panic!("{applied:?}");
            };
            assert!(why.as_str().contains("local preference 77"), "{why}");
            assert!(bird.observe(&service()).await.is_err());
        });
    });
}

#[test]
fn without_an_export_table_nothing_is_confirmed_and_the_remedy_is_named() {
    isolated(|| {
        let lab = Lab::start(Kind::Bird, &sample("bird.conf"));
        lab.run(async || {
            let mut bird = bird(&lab, Carrier::Kernel(kernel(600)), &[]);
            let applied = bird.apply(&now(Preference::Preferred)).await.unwrap();
            let Applied::Unconfirmed(why) = applied else {
                panic!("{applied:?}");
            };
            assert!(why.as_str().contains("export table on"), "{why}");
            // Once it has announced, not even an observation is a guess.
            assert!(bird.observe(&service()).await.is_err());
        });
    });
}

#[test]
fn a_session_that_is_down_is_not_taken_for_a_withdrawal() {
    isolated(|| {
        let lab = Lab::start(Kind::Bird, &config());
        lab.run(async || {
            let mut bird = bird(&lab, Carrier::Kernel(kernel(600)), &[]);
            lab.confirm(&mut bird, Preference::Preferred).await;
            lab.node.ask("disable router4").unwrap();
            let error = bird.observe(&service()).await.unwrap_err();
            let source = std::error::Error::source(&error).unwrap().to_string();
            assert!(source.contains("router4.ipv4"), "{source}");
            let applied = bird.apply(&now(Preference::Preferred)).await.unwrap();
            assert!(matches!(applied, Applied::Unconfirmed(_)), "{applied:?}");
        });
    });
}

#[test]
fn names_that_bird_does_not_know_are_found_at_the_start() {
    isolated(|| {
        let lab = Lab::start(Kind::Bird, &config());
        lab.run(async || {
            let mut bird = bird(&lab, Carrier::Protocol(symbols(&["nonesuch"])), &[]);
            let error = bird.probe().await.unwrap_err();
            assert!(error.to_string().contains("nonesuch"), "{error}");
        });
    });
}
