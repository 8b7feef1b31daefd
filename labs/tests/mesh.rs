//! `anycast-guard` at three nodes that speak to each other: what each hears, and what it does with
//! it.

#![allow(
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and says what it saw"
)]

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anycast_core::mesh::identity::Identity;
use anycast_labs::node::service::{GUARD, build_guard};
use anycast_labs::{Netns, Proc, eventually, isolate, isolated_with, link};
use serde_json::Value;

/// Far more than any change here takes.
const PATIENCE: Duration = Duration::from_secs(60);
const NODES: [&str; 3] = ["ams1", "fra1", "lon1"];

struct Node {
    name: &'static str,
    folder: PathBuf,
    namespace: Netns,
    guard: Option<Proc>,
}

struct Lab {
    hub: Netns,
    nodes: Vec<Node>,
}

const LOOPBACK: &str = "kind = \"loopback\"\n";

fn address(node: usize) -> String {
    format!("10.30.{node}.2")
}

impl Lab {
    /// Three nodes around a router, each with the keys of the others.
    fn start() -> Self {
        Self::start_with("", |_| LOOPBACK.to_owned())
    }

    /// The same, with these keys of the service, and these of `[announce]` for each folder.
    fn start_with(keys_of_service: &str, announce: impl Fn(&Node) -> String) -> Self {
        let hub = Netns::new("hub").unwrap();
        hub.forward().unwrap();
        let nodes: Vec<_> = NODES
            .into_iter()
            .enumerate()
            .map(|(number, name)| {
                let namespace = Netns::new(name).unwrap();
                link(&hub, name, &namespace, "up").unwrap();
                let router = format!("10.30.{number}.1");
                hub.address(name, &format!("{router}/24")).unwrap();
                let own = format!("{}/24", address(number));
                namespace.address("up", &own).unwrap();
                namespace.route("default", &router).unwrap();
                let folder = isolate::work_dir().join(name);
                fs::create_dir_all(folder.join("state")).unwrap();
                Node {
                    name,
                    folder,
                    namespace,
                    guard: None,
                }
            })
            .collect();
        let keys: Vec<_> = nodes
            .iter()
            .map(|node| {
                let identity = Identity::generate().unwrap();
                let file = node.folder.join("state/identity.pem");
                identity.save_new(&file).unwrap();
                identity.fingerprint()
            })
            .collect();
        let mut lab = Self { hub, nodes };
        for number in 0..NODES.len() {
            let node = &lab.nodes[number];
            let folder = node.folder.display();
            let announce = announce(node);
            let mut text = format!(
                "[node]\nname = \"{}\"\nstate_dir = \"{folder}/state\"\n\
                 admin = \"unix:{folder}/admin.sock\"\n\n\
                 [announce]\nfloor = true\ndead_man = \"3s\"\n{announce}\n\
                 [[service]]\nname = \"dns\"\naddresses = [\"192.0.2.69/32\"]\n\
                 rise = 1\nfall = 1\nhold_down = \"0s\"\nflap_limit = 0\nbudget_refill = \"0s\"\n{keys_of_service}\n\
                 [[service.check]]\nkind = \"file\"\nname = \"file\"\npath = \"{folder}/health\"\n\
                 interval = \"200ms\"\ntimeout = \"200ms\"\n\n\
                 [mesh]\nlisten = \"{}:4747\"\n",
                node.name,
                address(number),
            );
            for other in (0..NODES.len()).filter(|other| *other != number) {
                text += &format!(
                    "[[mesh.peer]]\nname = \"{}\"\naddress = \"{}:4747\"\n\
                     fingerprints = [\"{}\"]\n",
                    NODES[other],
                    address(other),
                    keys[other],
                );
            }
            fs::write(node.folder.join("guard.toml"), text).unwrap();
            lab.nodes[number].well(true);
            lab.nodes[number].start();
        }
        lab
    }

    /// How many are withdrawn now.
    fn withdrawn(&self) -> usize {
        let is = |node: &&Node| node.service()["preference"] == "withdrawn";
        self.nodes.iter().filter(is).count()
    }

    /// Watches for so long that never more are withdrawn; the most that were.
    fn at_most_withdrawn(&self, most: usize, time: Duration) -> usize {
        let end = Instant::now() + time;
        let mut seen = 0;
        while Instant::now() < end {
            seen = seen.max(self.withdrawn());
            assert!(seen <= most, "{seen} are withdrawn");
            std::thread::sleep(Duration::from_millis(100));
        }
        seen
    }

    /// Every node is preferred, and has heard of two that are.
    fn await_well(&self) {
        for node in &self.nodes {
            node.until("all to be well", |node| {
                let service = node.service();
                let heard = service["fleet"].as_array().map_or(0, |fleet| {
                    let well = fleet.iter().filter(|peer| peer["preferred"] == true);
                    well.count()
                });
                service["preference"] == "preferred" && heard == NODES.len() - 1
            });
        }
    }
}

impl Node {
    fn start(&mut self) {
        let mut command = Command::new(std::env::var_os(GUARD).unwrap());
        command.arg("--config").arg(self.folder.join("guard.toml"));
        let guard = Proc::start(
            &self.namespace,
            &format!("{}-guard", self.name),
            &mut command,
        );
        self.guard = Some(guard.unwrap());
        self.until("the guard to answer", |node| node.status().is_some());
    }

    fn well(&self, well: bool) {
        let health = self.folder.join("health");
        if well {
            fs::write(health, "").unwrap();
        } else {
            fs::remove_file(health).unwrap();
        }
    }

    fn status(&self) -> Option<Value> {
        let mut stream = UnixStream::connect(self.folder.join("admin.sock")).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"GET /status HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
    }

    fn service(&self) -> Value {
        self.status()
            .map_or(Value::Null, |status| status["services"][0].clone())
    }

    fn is(&self, preference: &str, hint: &str) -> bool {
        let service = self.service();
        let reason = service["reason"].as_str().unwrap_or_default();
        service["preference"] == preference && reason.contains(hint)
    }

    /// It is this, with a reason in which this occurs.
    fn await_is(&self, preference: &str, hint: &str) {
        self.until(&format!("it to be {preference}: {hint}"), |node| {
            node.is(preference, hint)
        });
        println!(
            "{} is {preference}: {}",
            self.name,
            self.service()["reason"]
        );
    }

    /// Whether the kernel has the boost.
    fn is_boosted(&self) -> bool {
        let listing = self.namespace.run("ip -o addr show dev lo").unwrap();
        listing.contains("192.0.2.69/32")
    }

    fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        if let Err(error) = eventually(PATIENCE, what, || condition(self)) {
            let log = self.guard.as_ref().map(|guard| guard.tail(30));
            panic!(
                "{}: {error}\n{:#}\n{}",
                self.name,
                self.service(),
                log.unwrap_or_default()
            );
        }
    }
}

/// One node's failure is believed; that of more than half of the fleet is not.
#[test]
fn a_check_that_fails_everywhere_demotes_less_than_half_of_the_fleet() {
    isolated_with(build_guard, || {
        let lab = Lab::start();
        lab.await_well();
        lab.nodes[0].well(false);
        lab.nodes[0].until("it to be demoted", |node| {
            node.service()["preference"] == "demoted"
        });
        for node in &lab.nodes[1..] {
            node.until("it to hear of that", |node| {
                let fleet = node.service()["fleet"].clone();
                let peers = fleet.as_array().cloned().unwrap_or_default();
                peers.iter().any(|peer| peer["failing_age_s"].is_number())
            });
        }
        for node in &lab.nodes[1..] {
            node.well(false);
            node.until("it to hold", |node| node.service()["state"] == "held");
            assert_eq!(node.service()["preference"], "preferred");
        }
        for node in &lab.nodes {
            node.well(true);
        }
        lab.await_well();
    });
}

/// A node that is cut off decides alone, and so do those that no longer hear it.
#[test]
fn a_node_that_is_cut_off_changes_nothing_and_is_heard_again() {
    isolated_with(build_guard, || {
        let lab = Lab::start();
        lab.await_well();
        let (hub, cut) = (&lab.hub, &lab.nodes[2]);
        hub.cut(cut.name).unwrap();
        let is_old = |peer: &Value| peer["heard_age_s"].as_f64().is_some_and(|age| age > 3.0);
        for node in &lab.nodes {
            node.until("a report to grow old", |node| {
                let fleet = node.service()["fleet"].clone();
                fleet
                    .as_array()
                    .is_some_and(|fleet| fleet.iter().any(is_old))
            });
            assert_eq!(node.service()["preference"], "preferred", "{}", node.name);
        }
        hub.heal(cut.name).unwrap();
        for node in &lab.nodes {
            node.until("fresh reports", |node| {
                let fleet = node.service()["fleet"].clone();
                fleet
                    .as_array()
                    .is_some_and(|fleet| !fleet.iter().any(is_old))
            });
        }
        lab.await_well();
    });
}

const WITHDRAW: &str = "fail_safe = \"withdraw\"\npanic_percent = 100\n";

/// F5 as it is deployed: with the consent of one peer, and without it.
#[test]
fn a_node_withdraws_with_consent_and_is_demoted_without() {
    isolated_with(build_guard, || {
        let lab = Lab::start_with(&format!("{WITHDRAW}min_peers = 1\n"), |_| {
            LOOPBACK.to_owned()
        });
        lab.await_well();
        let [ams, fra, lon] = &lab.nodes[..] else {
            panic!("three nodes");
        };

        // One fails. What it may have promised before its start binds it for half a minute.
        ams.well(false);
        ams.await_is("demoted", "bound by a promise");
        ams.await_is("withdrawn", "2 healthy peers stay");
        assert_eq!(ams.service()["state"], "yielded");
        assert_eq!(ams.service()["grants"], 2);
        ams.until("the boost to go", |node| !node.is_boosted());
        for other in [fra, lon] {
            assert!(other.is("preferred", "") && other.is_boosted());
        }

        // The second one is bound to the first for as long as that leans on it, and not longer.
        fra.well(false);
        fra.await_is("demoted", "bound by a promise");
        fra.await_is("withdrawn", "1 healthy peers stay");
        assert!(ams.is("withdrawn", "") && lon.is("preferred", ""));

        // With the third nobody is left who could promise anything.
        lon.well(false);
        println!(
            "of three: {}",
            lab.at_most_withdrawn(2, Duration::from_secs(1))
        );
        for node in &lab.nodes {
            node.await_is("demoted", "0 of 1 peers grant it");
        }
        let seen = lab.at_most_withdrawn(0, Duration::from_secs(12));
        println!("of three, later: {seen}");

        // One that is withdrawn and cut off: its peers may fail without its knowing.
        fra.well(true);
        lon.well(true);
        ams.await_is("withdrawn", "peers stay");
        lab.hub.cut(ams.name).unwrap();
        ams.await_is("demoted", "0 of 1 peers grant it");
        assert_eq!(lab.withdrawn(), 0);
        lab.hub.heal(ams.name).unwrap();
        ams.await_is("withdrawn", "peers stay");
        ams.well(true);
        lab.await_well();

        // One that is cut off before it fails.
        lab.hub.cut(lon.name).unwrap();
        lon.well(false);
        lon.await_is("demoted", "0 of 1 peers grant it");
        assert_eq!(lab.at_most_withdrawn(0, Duration::from_secs(12)), 0);
        lon.well(true);
        lab.hub.heal(lon.name).unwrap();
        lab.await_well();
    });
}

/// Two fail at once where each needs two: one of them may be quicker, never both.
#[test]
fn of_three_nodes_that_need_two_peers_each_never_two_are_withdrawn() {
    isolated_with(build_guard, || {
        let lab = Lab::start_with(&format!("{WITHDRAW}min_peers = 2\n"), |_| {
            LOOPBACK.to_owned()
        });
        lab.await_well();
        // Its own promises, if it gave any before its start, have ended.
        lab.nodes[0].well(false);
        lab.nodes[0].await_is("withdrawn", "2 healthy peers stay");
        lab.nodes[0].well(true);
        lab.await_well();
        std::thread::sleep(Duration::from_secs(10));
        lab.nodes[0].well(false);
        lab.nodes[1].well(false);
        let seen = lab.at_most_withdrawn(1, Duration::from_secs(25));
        println!("of two that failed at once, withdrawn at some time: {seen}");
        for node in &lab.nodes[..2] {
            node.await_is("demoted", "1 of 2 peers grant it");
        }
        assert!(lab.nodes[2].is("preferred", ""));
        lab.nodes[1].well(true);
        lab.nodes[0].await_is("withdrawn", "2 healthy peers stay");
    });
}

/// The sample of `examples/routing` at the first node, for IPv4 alone, and the router beside it.
fn bird_at_the_node() -> String {
    let sample = include_str!("../../examples/routing/bird.conf");
    let (whole, _) = sample.split_once("protocol bgp router6").unwrap();
    let own = whole
        .replace("log syslog all;", "log stderr all;")
        .replace("10.0.0.1", "10.30.0.1")
        .replace("10.0.0.2", "10.30.0.2");
    let (without, with) = ("next hop self; };", "next hop self; export table on; };");
    assert!(own.contains(without), "the sample has no {without:?}");
    own.replace(without, with)
}

const ROUTER: &str = "log stderr all;\nrouter id 10.30.0.1;\nprotocol device { scan time 1; }\n\
    protocol bgp ams1 {\n\
    local 10.30.0.1 as 65000; neighbor 10.30.0.2 as 65000; direct; hold time 9;\n\
    graceful restart off; connect delay time 1; connect retry time 2; error wait time 1, 2;\n\
    ipv4 { import all; export none; };\n}\n";

fn bird(namespace: &Netns, name: &str, config: &str) -> (Proc, PathBuf) {
    let folder = isolate::work_dir().join(name);
    fs::create_dir_all(&folder).unwrap();
    let (file, socket) = (folder.join("bird.conf"), folder.join("bird.ctl"));
    fs::write(&file, config).unwrap();
    let mut command = Command::new("bird");
    command
        .arg("-f")
        .arg("-c")
        .arg(&file)
        .arg("-s")
        .arg(&socket);
    let process = Proc::start(namespace, &format!("{name}-bird"), &mut command).unwrap();
    eventually(PATIENCE, "BIRD to answer", || socket.exists()).unwrap();
    (process, socket)
}

/// What a withdrawal is where BIRD can express it: not the boost alone goes, the floor goes too.
#[test]
fn with_bird_the_router_hears_the_withdrawal_and_the_floor_comes_back_with_the_consent_gone() {
    isolated_with(build_guard, || {
        // BIRD may start after the guard, which waits for it.
        let lab = Lab::start_with(&format!("{WITHDRAW}min_peers = 1\n"), |node| {
            if node.name != NODES[0] {
                return LOOPBACK.to_owned();
            }
            let folder = isolate::work_dir().join("at-node");
            format!(
                "kind = \"bird\"\nsocket = \"{}/bird.ctl\"\nchannels = [\"router4.ipv4\"]\n\
                 floor_protocols = [\"anycast_floor4\"]\n",
                folder.display()
            )
        });
        let [ams, fra, lon] = &lab.nodes[..] else {
            panic!("three nodes");
        };
        let (_router, router) = bird(&lab.hub, "router", ROUTER);
        let (_own, _) = bird(&ams.namespace, "at-node", &bird_at_the_node());
        let heard = || {
            let ask = format!("birdc -s {} show route all 192.0.2.69/32", router.display());
            // "Network not found" is an error of the command.
            let answer = lab.hub.run(&ask).unwrap_or_default();
            let line = answer.lines().find(|line| line.contains("local_pref"));
            line.and_then(|line| line.rsplit_once(' '))
                .map(|(_, level)| level.to_owned())
        };
        let hears = |level: Option<&str>| {
            ams.until(&format!("the router to hear {level:?}"), |_| {
                heard().as_deref() == level
            });
            ams.until("it to be confirmed", |node| {
                node.service()["confirmation"]["state"] == "confirmed"
            });
            println!("the router hears local_pref {level:?}");
        };
        lab.await_well();
        hears(Some("200"));
        ams.well(false);
        ams.await_is("demoted", "bound by a promise");
        hears(Some("50"));
        ams.await_is("withdrawn", "2 healthy peers stay");
        hears(None);
        fra.well(false);
        lon.well(false);
        ams.await_is("demoted", "0 of 1 peers grant it");
        hears(Some("50"));
        for node in &lab.nodes {
            node.well(true);
        }
        lab.await_well();
        hears(Some("200"));
    });
}
