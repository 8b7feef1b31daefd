//! BIRD in a network of OSPF: read back from its own LSAs.

use anycast_announce::attributes::{Expression, MetricType};
use anycast_announce::bird::command::{Channel, Symbol};
use anycast_announce::bird::include::IncludeFile;
use anycast_announce::bird::{BirdAnnouncer, BirdConfig, Carrier};
use anycast_core::announce::{Announcer, Applied, InForce, Preference, Role};
use anycast_labs::node::{Kind, Node};
use anycast_labs::{Netns, eventually, isolate, isolated, link};

use crate::support::{BOTH, PATIENCE, folder, in_force, kernel, now, runtime, sample};

/// As `bird-ospf.conf` has them.
const METRIC: Expression = Expression::OspfMetric {
    kind: MetricType::Two,
    preferred: 100,
    demoted: 10_000,
};

struct Lab {
    node: Node,
    router: Node,
}

impl Lab {
    fn start() -> Self {
        Self::start_with(|text| text)
    }

    /// With the sample changed.
    fn start_with(change: impl FnOnce(String) -> String) -> Self {
        let (node, hub) = (Netns::new("node").unwrap(), Netns::new("router").unwrap());
        link(&node, "up", &hub, "down").unwrap();
        for (namespace, device, host) in [(&node, "up", 2), (&hub, "down", 1)] {
            let v4 = format!("10.0.0.{host}/24");
            namespace.address(device, &v4).unwrap();
        }
        let text = sample("bird-ospf.conf").replace("\"eth0\"", "\"up\"");
        let text = text.replace("log syslog all;", "log stderr all;");
        let node = Node::start(node, Kind::Bird, &change(text)).unwrap();
        let area = "area 0 { interface \"down\" { type ptp; hello 3; dead 9; }; };";
        let router = format!(
            "log stderr all;\nrouter id 10.0.0.1;\nprotocol device {{}}\n\
             protocol ospf v2 o4 {{ ipv4 {{ import all; }}; {area} }}\n\
             protocol ospf v3 o6 {{ ipv6 {{ import all; }}; {area} }}\n"
        );
        let router = Node::start(hub, Kind::Bird, &router).unwrap();
        Self { node, router }
    }

    fn announcer(&self) -> BirdAnnouncer {
        self.carried(Carrier::Kernel(kernel(600)))
    }

    fn carried(&self, carrier: Carrier) -> BirdAnnouncer {
        let channels = ["anycast_ospf4.ipv4", "anycast_ospf6.ipv6"];
        let channels = channels.map(|name| Channel::new(name).unwrap());
        let config = BirdConfig::new(carrier, channels.into())
            .unwrap()
            .with_expression(METRIC)
            .unwrap()
            .with_socket(folder(self.node.namespace()).join("bird.ctl"));
        BirdAnnouncer::new(config, Role::Primary)
    }

    /// An LSA is originated once in 5 s, so a change soon after another is confirmed late.
    async fn confirm(&self, announcer: &mut BirdAnnouncer, preference: Preference) {
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            let applied = announcer.apply(&now(preference)).await.unwrap();
            if applied == Applied::Confirmed {
                return;
            }
            if std::time::Instant::now() > deadline {
                panic!("{applied:?}\n{}", self.node.describe());
            }
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    }

    fn router_has(&self, metric: u32) {
        for address in BOTH {
            let what = format!("{address} at metric {metric}");
            let has = || {
                let route = self.router.ask(&format!("show route all {address}"));
                route.is_ok_and(|text| text.contains(&format!("OSPF.metric2: {metric}\n")))
            };
            if let Err(error) = eventually(PATIENCE, &what, has) {
                panic!("{error}\n{}", self.router.describe());
            }
        }
    }

    fn run(&self, work: impl AsyncFnOnce() + Send) {
        let run = || runtime().block_on(work());
        self.node.namespace().enter(run).unwrap();
    }
}

#[test]
fn confirmed_is_what_this_node_originates() {
    isolated(|| {
        let lab = Lab::start();
        lab.run(async || {
            let mut bird = lab.announcer();
            bird.probe().await.unwrap();
            for (preference, metric) in [
                (Preference::Preferred, 100),
                (Preference::Demoted, 10_000),
                (Preference::Preferred, 100),
            ] {
                lab.confirm(&mut bird, preference).await;
                lab.router_has(metric);
            }
            // Taken away by somebody else.
            for address in BOTH {
                let undo = format!("ip addr del {address} dev lo");
                lab.node.namespace().run(&undo).unwrap();
            }
            lab.router_has(10_000);
            assert_eq!(in_force(&mut bird).await, Some(InForce::Demoted));
        });
    });
}

/// Each level is confirmed and is what the router has.
fn raised_and_lowered(lab: &Lab, carrier: Carrier) {
    lab.run(async || {
        let mut bird = lab.carried(carrier);
        bird.probe().await.unwrap();
        for (preference, metric) in [(Preference::Preferred, 100), (Preference::Demoted, 10_000)] {
            lab.confirm(&mut bird, preference).await;
            lab.router_has(metric);
        }
    });
}

#[test]
fn protocols_carry_it_too() {
    isolated(|| {
        let lab = Lab::start_with(|text| {
            let boosts: String = ["4", "6"]
                .into_iter()
                .zip(BOTH)
                .map(|(family, prefix)| {
                    format!(
                        "protocol static boost{family} {{ disabled; ipv{family} {{ preference \
                         241; }}; route {prefix} blackhole; }}\n"
                    )
                })
                .collect();
            text.replace("proto = \"anycast_boost\"", "proto ~ \"boost*\"") + &boosts
        });
        let boosts = ["boost4", "boost6"].map(|name| Symbol::new(name).unwrap());
        raised_and_lowered(&lab, Carrier::Protocol(boosts.into()));
    });
}

#[test]
fn an_include_file_carries_it_too() {
    isolated(|| {
        let file = isolate::work_dir().join("level.conf");
        let demoted = "# Written by anycast, and replaced at every change of preference.\n\
                       define anycast_level = 10000;\n";
        std::fs::write(&file, demoted).unwrap();
        let lab = Lab::start_with(|text| {
            let level = text.replace("ospf_metric2 = 10000;", "ospf_metric2 = anycast_level;");
            format!("include \"{}\";\n{level}", file.display())
        });
        let main = folder(lab.node.namespace()).join("bird.conf");
        let include = IncludeFile::new(file.clone()).unwrap();
        let include = include.with_main(main).unwrap();
        raised_and_lowered(&lab, Carrier::Include(include));
    });
}

/// It is preferred for that, whatever the external route says.
#[test]
fn a_node_that_announces_it_otherwise_too_is_not_confirmed() {
    isolated(|| {
        let lab = Lab::start_with(|text| {
            let area = "area 0.0.0.0 {\n";
            let stub = "stubnet 192.0.2.69/32 { cost 5; };\n";
            text.replacen(area, &format!("{area}{stub}"), 1)
        });
        lab.run(async || {
            let mut bird = lab.announcer();
            let deadline = std::time::Instant::now() + PATIENCE;
            loop {
                let applied = bird.apply(&now(Preference::Demoted)).await.unwrap();
                let Applied::Unconfirmed(why) = applied else {
                    panic!("{applied:?}");
                };
                if why.as_str().contains("stubnet metric 5") {
                    return;
                }
                assert!(std::time::Instant::now() < deadline, "{why}");
            }
        });
    });
}

#[test]
fn a_channel_of_the_other_kind_is_refused_at_the_start() {
    isolated(|| {
        let lab = Lab::start();
        lab.run(async || {
            let channel = Channel::new("anycast_ospf4.ipv4").unwrap();
            let config = BirdConfig::new(Carrier::Kernel(kernel(600)), vec![channel]).unwrap();
            let socket = folder(lab.node.namespace()).join("bird.ctl");
            let mut bird = BirdAnnouncer::new(config.with_socket(socket), Role::Primary);
            let error = bird.probe().await.unwrap_err();
            let source = std::error::Error::source(&error).unwrap().to_string();
            assert!(source.contains("ospf_metric2"), "{error}: {source}");
        });
    });
}

#[test]
fn a_node_without_a_neighbour_is_not_confirmed() {
    isolated(|| {
        let lab = Lab::start();
        lab.run(async || {
            let mut bird = lab.announcer();
            lab.confirm(&mut bird, Preference::Demoted).await;
            lab.router.namespace().cut("down").unwrap();
            let alone = || {
                let state = lab.node.ask("show protocols");
                state.is_ok_and(|text| text.matches("Alone").count() == 2)
            };
            eventually(PATIENCE, "both protocols to be alone", alone).unwrap();
            let applied = bird.apply(&now(Preference::Demoted)).await.unwrap();
            assert!(matches!(applied, Applied::Unconfirmed(_)), "{applied:?}");
        });
    });
}
