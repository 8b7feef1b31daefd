//! One site: the routing daemon, the service (dnsmasq) and the controller (`anycast-guard`).

use std::io::{Read, Write};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use std::{env, fs};

use anycast_labs::node::service::GUARD;
use anycast_labs::node::{Kind, Node, dump_path};
use anycast_labs::topo::SERVICE;
use anycast_labs::{Netns, Proc, eventually, isolate, require};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::backend::{Backend, Place};
use super::topology::{self, SITES, Topology};

/// How long the boost outlives its controller: the dead man.
pub(crate) const DEAD_MAN: Duration = Duration::from_secs(3);
/// Far more than any change takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// What a client asks; each site answers with its own name.
pub(crate) const WHO: &str = "node.example";

#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) device: &'static str,
    kind: Kind,
    /// 1 for the first.
    number: usize,
    folder: PathBuf,
    topology: Topology,
    pub(crate) backend: Backend,
    controller: Option<Proc>,
    service: Proc,
    pub(crate) node: Node,
}

impl Site {
    /// The site of this number, from 0. The controller is not started.
    pub(crate) fn new(site: usize, node: Node, topology: Topology, backend: Backend) -> Self {
        let topology::Place { device, kind } = SITES[site];
        let folder = isolate::work_dir().join(format!("{device}-service"));
        fs::create_dir_all(folder.join("state")).unwrap();
        write_hosts(&folder, true);
        let mut command = Command::new(require("dnsmasq", &[], "dnsmasq-base").unwrap());
        command.args([
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--no-hosts",
        ]);
        command.args([
            "--no-resolv",
            "--user=root",
            "--pid-file",
            "--log-facility=-",
        ]);
        command.arg(format!("--addn-hosts={}", folder.join("hosts").display()));
        command.arg(format!("--txt-record={WHO},{device}"));
        let name = format!("{device}-dnsmasq");
        let service = Proc::start(node.namespace(), &name, &mut command).unwrap();
        let site = Self {
            device,
            kind,
            number: site + 1,
            folder,
            topology,
            backend,
            controller: None,
            service,
            node,
        };
        site.configure(DEAD_MAN);
        site
    }

    /// Short times, and neither flap handling nor budget: services fall here more often than any
    /// operator would like.
    fn configure(&self, dead_man: Duration) {
        let dump = dump_path(self.namespace());
        let place = Place {
            kind: self.kind,
            number: self.number,
            sockets: dump.parent().unwrap(),
        };
        let folder = self.folder.display();
        let [v4, v6] = SERVICE;
        let text = format!(
            "[node]\nname = \"{device}\"\nstate_dir = \"{folder}/state\"\n\
             admin = \"unix:{folder}/admin.sock\"\n\n{announce}\n\
             [[service]]\nname = \"dns\"\naddresses = [\"{v4}/32\", \"{v6}/128\"]\n\
             rise = 2\nfall = 2\nhold_down = \"1s\"\nflap_limit = 0\nbudget_refill = \"0s\"\n\n\
             [[service.check]]\nkind = \"dns\"\nname = \"answer\"\nquery = \"health.example\"\n\
             answers = [\"192.0.2.1\"]\nmatch = \"equal\"\n\
             interval = \"1s\"\ntimeout = \"1s\"\nrecheck = \"300ms\"\n",
            device = self.device,
            announce = self.backend.table(self.topology.protocol, dead_man, place),
        );
        fs::write(self.folder.join("guard.toml"), text).unwrap();
    }

    pub(crate) fn namespace(&self) -> &Netns {
        self.node.namespace()
    }

    /// Starts the controller, at the place of one that has ended, and waits until it answers.
    pub(crate) fn start_controller(&mut self, dead_man: Duration) {
        self.configure(dead_man);
        let mut command = Command::new(env::var_os(GUARD).unwrap());
        command.arg("--config").arg(self.folder.join("guard.toml"));
        let name = format!("{}-guard", self.device);
        self.controller = Some(Proc::start(self.namespace(), &name, &mut command).unwrap());
        self.until("the controller to answer", |site| site.status().is_some());
    }

    pub(crate) fn controller(&mut self) -> &mut Proc {
        self.controller.as_mut().unwrap()
    }

    pub(crate) fn service(&mut self) -> &mut Proc {
        &mut self.service
    }

    /// The service answers what the check wants, or something else; clients see no difference.
    pub(crate) fn check_passes(&mut self, right: bool) {
        write_hosts(&self.folder, right);
        self.service.signal(Signal::SIGHUP).unwrap();
    }

    /// An operator's order.
    pub(crate) fn order(&self, verb: &str) {
        let body = match verb {
            "drain" => "{\"reason\":\"lab\",\"force\":true}",
            _ => "{\"reason\":\"lab\"}",
        };
        let request = format!(
            "POST /services/dns/{verb} HTTP/1.0\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = self.http(&request).unwrap();
        assert!(answer.contains(" 200 "), "{verb}: {answer}");
    }

    fn status(&self) -> Option<Value> {
        let answer = self.http("GET /status HTTP/1.0\r\n\r\n")?;
        let (_, body) = answer.split_once("\r\n\r\n")?;
        serde_json::from_str(body).ok()
    }

    fn http(&self, request: &str) -> Option<String> {
        let mut stream = UnixStream::connect(self.folder.join("admin.sock")).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    pub(crate) fn until(&self, what: &str, mut condition: impl FnMut(&Self) -> bool) {
        let what = format!("{}: {what}", self.device);
        if let Err(error) = eventually(PATIENCE, &what, || condition(self)) {
            panic!("{error}\n{:?}", self.status());
        }
    }

    /// The controller says that what it wants is in force.
    pub(crate) fn await_confirmed(&self) {
        self.until("its decision to be confirmed", |site| {
            site.confirmation().as_deref() == Some("confirmed")
        });
    }

    /// How sure the controller is that its decision is in force.
    pub(crate) fn confirmation(&self) -> Option<String> {
        let status = self.status()?;
        let state = status["services"][0]["confirmation"]["state"].as_str();
        state.map(str::to_owned)
    }

    /// Whether its announcer asks the daemon at all.
    pub(crate) fn reads_back(&self) -> bool {
        self.backend.name(self.topology.protocol, self.kind) != "loopback"
    }

    /// The seconds that the kernel lets each boost live from now on.
    pub(crate) fn boost_lifetimes(&self) -> Vec<u64> {
        let listing = self.namespace().run("ip -j addr show dev lo").unwrap();
        let listing: Value = serde_json::from_str(&listing).unwrap();
        let held = listing[0]["addr_info"].as_array().unwrap();
        let is_ours = |each: &&Value| {
            let local = each["local"].as_str().and_then(|text| text.parse().ok());
            local.is_some_and(|address: IpAddr| SERVICE.contains(&address))
        };
        held.iter()
            .filter(is_ours)
            .filter_map(|each| each["valid_life_time"].as_u64())
            .collect()
    }
}

fn write_hosts(folder: &std::path::Path, right: bool) {
    let answer = if right { "192.0.2.1" } else { "192.0.2.66" };
    fs::write(folder.join("hosts"), format!("{answer} health.example\n")).unwrap();
}
