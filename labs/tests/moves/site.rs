//! One site: its firewall, its routing daemon, `anycast-tftpd`, and where that announces nothing
//! itself, `anycast-guard`.

use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use std::{env, fs};

use anycast_core::mesh::identity::Identity;
use anycast_labs::node::service::{CTL, EXECUTABLE, GUARD};
use anycast_labs::node::{Kind, Node};
use anycast_labs::{Netns, Proc, eventually, isolate};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::{Handoff, PATIENCE, config};

/// What raises and lowers the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Announcing {
    /// `anycast-tftpd`: controller and service are one process.
    Itself,
    /// `anycast-guard` beside it: they are two.
    Guard,
}

/// A part of a node that can be killed or frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Controller,
    Service,
    /// Every process of the routing daemon.
    Routing,
}

pub(crate) struct Site {
    pub(crate) name: String,
    /// From 1.
    pub(crate) number: usize,
    pub(crate) kind: Kind,
    pub(crate) announcing: Announcing,
    pub(crate) folder: PathBuf,
    pub(crate) fingerprint: String,
    guard: Option<Proc>,
    tftpd: Option<Proc>,
    pub(crate) node: Node,
}

/// A program that is frozen answers nothing.
const ANSWER: Duration = Duration::from_secs(5);
/// As the sample has it: the rules that an operator loads.
const FIREWALL: &str = include_str!("../../../examples/tftpd/anycast-tftpd-firewall.nft");
/// As the sample has it: a host is silent where nobody listens any more.
const SILENT: &str = include_str!("../../../examples/tftpd/anycast-tftpd.nft");
/// Before the firewall decides: packets of clients whose flow connection tracking does not know, by
/// what they are (opcode of TFTP).
const COUNT: &str = "table inet lab_count {\ncounter requests { }\ncounter acks { }\n\
     chain seen { type filter hook input priority -10;\n\
     iif != lo udp dport 69 ct state new @th,64,16 1 counter name requests\n\
     iif != lo udp dport 69 ct state new @th,64,16 4 counter name acks\n}\n}\n";

impl Site {
    /// The services are not started.
    pub(crate) fn new(namespace: Netns, number: usize, kind: Kind, announcing: Announcing) -> Self {
        let name = namespace.name().to_owned();
        let folder = isolate::work_dir().join(format!("{name}-service"));
        for each in ["root", "state", "guard"] {
            fs::create_dir_all(folder.join(each)).unwrap();
        }
        fs::write(folder.join("root/health"), "ok\n").unwrap();
        let identity = Identity::generate().unwrap();
        identity
            .save_new(&folder.join("state/identity.pem"))
            .unwrap();
        for rules in [FIREWALL, SILENT, COUNT] {
            namespace.nft(rules).unwrap();
        }
        let node = Node::start(namespace, kind, &config::site(kind, number)).unwrap();
        let site = Self {
            name,
            number,
            kind,
            announcing,
            folder,
            fingerprint: identity.fingerprint().to_string(),
            guard: None,
            tftpd: None,
            node,
        };
        site.check_passes(true);
        site
    }

    pub(crate) fn address(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 10, u8::try_from(self.number).unwrap(), 2)
    }

    pub(crate) fn namespace(&self) -> &Netns {
        self.node.namespace()
    }

    pub(crate) fn configure(&self, all: &[Self], handoff: Handoff) {
        let text = config::tftpd(self, all, handoff);
        fs::write(self.folder.join("tftpd.toml"), text).unwrap();
        fs::write(self.folder.join("guard.toml"), config::guard(self)).unwrap();
    }

    /// A file that the node's check wants to be there.
    pub(crate) fn well(&self) -> PathBuf {
        self.folder.join("well")
    }

    pub(crate) fn check_passes(&self, passes: bool) {
        if passes {
            fs::write(self.well(), "").unwrap();
        } else {
            fs::remove_file(self.well()).unwrap();
        }
    }

    /// Starts what does not run.
    pub(crate) fn start(&mut self) {
        let (folder, namespace) = (&self.folder, self.node.namespace());
        let start = |variable: &str, what: &str| {
            let mut command = Command::new(env::var_os(variable).unwrap());
            command
                .arg("--config")
                .arg(folder.join(format!("{what}.toml")));
            let name = format!("{}-{what}", namespace.name());
            Some(Proc::start(namespace, &name, &mut command).unwrap())
        };
        if self.tftpd.is_none() {
            self.tftpd = start(EXECUTABLE, "tftpd");
        }
        if self.announcing == Announcing::Guard && self.guard.is_none() {
            self.guard = start(GUARD, "guard");
        }
        self.until("its programs to answer", |site| {
            site.ask("/status") != Value::Null && site.decided() != Value::Null
        });
    }

    pub(crate) fn kill(&mut self, part: Part) {
        match (part, self.announcing) {
            (Part::Controller, Announcing::Guard) => self.guard.take().unwrap().kill().unwrap(),
            (Part::Controller | Part::Service, _) => self.tftpd.take().unwrap().kill().unwrap(),
            (Part::Routing, _) => self.node.kill().unwrap(),
        }
    }

    /// SIGSTOP, or SIGCONT.
    pub(crate) fn freeze(&mut self, part: Part, stop: bool) {
        let signal = if stop {
            Signal::SIGSTOP
        } else {
            Signal::SIGCONT
        };
        match (part, self.announcing) {
            (Part::Controller, Announcing::Guard) => {
                self.guard.as_mut().unwrap().signal(signal).unwrap();
            }
            (Part::Controller | Part::Service, _) => {
                self.tftpd.as_mut().unwrap().signal(signal).unwrap();
            }
            (Part::Routing, _) => self.node.signal(signal).unwrap(),
        }
    }

    /// Takes the boost from what the routing daemon announces, or gives it back, whatever the
    /// controller says.
    pub(crate) fn boost(&self, on: bool) {
        let command = match (self.kind, on) {
            (Kind::Bird, true) => "enable anycast_boost",
            (Kind::Bird, false) => "disable anycast_boost",
            (Kind::Frr, true) => {
                "configure terminal\nrouter bgp 65000\naddress-family ipv4 unicast\n\
                 redistribute connected route-map BOOST4"
            }
            (Kind::Frr, false) => {
                "configure terminal\nrouter bgp 65000\naddress-family ipv4 unicast\n\
                 no redistribute connected"
            }
        };
        self.node.ask(command).unwrap();
    }

    pub(crate) fn write(&self, file: &str, content: &[u8]) {
        let new = self.folder.join("new");
        fs::write(&new, content).unwrap();
        fs::rename(new, self.folder.join("root").join(file)).unwrap();
    }

    pub(crate) fn read(&self, file: &str) -> Option<Vec<u8>> {
        fs::read(self.folder.join("root").join(file)).ok()
    }

    /// What `anycast-tftpd` answers.
    pub(crate) fn ask(&self, path: &str) -> Value {
        ask(self.folder.join("tftpd.sock"), path)
    }

    /// What the controller says of the service.
    pub(crate) fn decided(&self) -> Value {
        let status = match self.announcing {
            Announcing::Itself => self.ask("/status"),
            Announcing::Guard => ask(self.folder.join("guard.sock"), "/status"),
        };
        status["services"][0]["preference"].clone()
    }

    /// An operator's order to the controller.
    pub(crate) fn order(&self, arguments: &[&str]) {
        let socket = match self.announcing {
            Announcing::Itself => self.folder.join("tftpd.sock"),
            Announcing::Guard => self.folder.join("guard.sock"),
        };
        let mut command = Command::new(env::var_os(CTL).unwrap());
        command.args(arguments).arg("--socket").arg(socket);
        let output = self.namespace().output(&mut command).unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
    }

    /// Its files are the fleet's, and it is connected with every peer: what was heard of one that is
    /// gone still stands.
    pub(crate) fn is_in_step(&self, peers: usize) -> bool {
        let sync = self.ask("/sync/files");
        let all = sync["peers"].as_array().cloned().unwrap_or_default();
        let is_well = |peer: &&Value| {
            let name = peer["peer"].as_str().unwrap_or_default();
            peer["lag"]["state"] == "none" && self.is_connected(name)
        };
        sync["ready"] == true && all.iter().filter(is_well).count() == peers
    }

    /// By its status; where it announces nothing that has no part about the mesh, and its log says.
    fn is_connected(&self, peer: &str) -> bool {
        match self.announcing {
            Announcing::Itself => {
                let status = self.ask("/status");
                let peers = status["mesh"]["peers"].as_array().into_iter().flatten();
                let mut of_it = peers.filter(|each| each["node"] == peer);
                of_it.any(|each| !each["up_age_s"].is_null())
            }
            Announcing::Guard => {
                let log = self
                    .tftpd
                    .as_ref()
                    .map(|tftpd| fs::read_to_string(tftpd.log()));
                let log = log.and_then(Result::ok).unwrap_or_default();
                let said = ["the peer is there", "the peer is gone"];
                let mut lines = log.lines().rev().filter(|line| {
                    line.contains(&format!("peer={peer}"))
                        && said.iter().any(|is| line.contains(is))
                });
                lines.next().is_some_and(|line| line.contains(said[0]))
            }
        }
    }

    /// Packets of unknown flows that its firewall has let in: requests, and ACKs of transfers that
    /// another site began.
    pub(crate) fn admitted(&self) -> [u64; 2] {
        ["requests", "acks"].map(|counter| {
            let line = format!("nft list counter inet lab_count {counter}");
            let said = self.namespace().run(&line).unwrap();
            let count = said.split("packets ").nth(1).unwrap();
            count.split(' ').next().unwrap().parse().unwrap()
        })
    }

    /// A firewall that knows nothing of anycast, before its own.
    pub(crate) fn admit_requests_alone(&self) {
        let rule = "iif != lo udp dport 69 ct state new @th,64,16 != 1 drop";
        let rules = format!(
            "table inet lab_strict {{\nchain input {{ type filter hook input priority -5;\n\
             {rule}\n}}\n}}\n"
        );
        self.namespace().nft(&rules).unwrap();
    }

    pub(crate) fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        if let Err(error) = eventually(PATIENCE, what, || condition(self)) {
            let tails = [&self.tftpd, &self.guard].map(|each| {
                let tail = each.as_ref().map(|each| each.tail(30));
                tail.unwrap_or_default()
            });
            panic!(
                "{}: {error}\n{:#}\n{:#}\n{}\n{}",
                self.name,
                self.ask("/sync"),
                self.ask("/status")["services"],
                tails[0],
                tails[1]
            );
        }
    }
}

fn ask(socket: PathBuf, path: &str) -> Value {
    let answer = || {
        let mut stream = UnixStream::connect(socket).ok()?;
        stream.set_read_timeout(Some(ANSWER)).unwrap();
        let request = format!("GET {path} HTTP/1.0\r\n\r\n");
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
    };
    answer().unwrap_or(Value::Null)
}
