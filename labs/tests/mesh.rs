//! `anycast-guard` at three nodes that speak to each other: what each hears, and what it does with
//! it.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

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

fn address(node: usize) -> String {
    format!("10.30.{node}.2")
}

impl Lab {
    /// Three nodes around a router, each with the keys of the others.
    fn start() -> Self {
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
            let mut text = format!(
                "[node]\nname = \"{}\"\nstate_dir = \"{folder}/state\"\n\
                 admin = \"unix:{folder}/admin.sock\"\n\n\
                 [announce]\nkind = \"loopback\"\nfloor = true\ndead_man = \"3s\"\n\n\
                 [[service]]\nname = \"dns\"\naddresses = [\"192.0.2.69/32\"]\n\
                 rise = 1\nfall = 1\nhold_down = \"0s\"\nflap_limit = 0\nbudget_refill = \"0s\"\n\n\
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
