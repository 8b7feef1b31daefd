//! A binary of ours on a node with a real routing daemon, and the router that hears it.
//! Included by the tests of each binary.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anycast_labs::mrt::{Message, Prefix};
use anycast_labs::node::{Kind, Node, dump_path};
use anycast_labs::{Netns, Proc, eventually, isolate, link, require};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// What a wait may take on a machine that stands still for a while.
const PATIENCE: Duration = Duration::from_secs(90);
const BOTH: [&str; 2] = ["192.0.2.69", "2001:db8::69"];
/// Where packages put FRR's daemons.
const FRR: [&str; 3] = ["/usr/lib/frr", "/usr/libexec/frr", "/usr/lib64/frr"];

/// A binary of ours under test.
pub(crate) struct Binary {
    pub(crate) path: &'static str,
    /// Its configuration below `[node]`, for this folder and table `[announce]`.
    pub(crate) config: fn(folder: &Path, announce: &str) -> String,
    /// Its check is healthy while this file of that folder is there.
    pub(crate) file: &'static str,
}

pub(crate) struct Stage {
    pub(crate) node: Node,
    router: Node,
    kind: Kind,
    binary: Binary,
    pub(crate) folder: PathBuf,
    program: Option<Proc>,
    /// The daemon's successors.
    daemons: Vec<Proc>,
}

impl Stage {
    /// The routing daemon and its router; `change` its sample configuration. The binary is not
    /// started.
    pub(crate) fn new(kind: Kind, binary: Binary, change: impl FnOnce(String) -> String) -> Self {
        let (node, hub) = (Netns::new("node").unwrap(), Netns::new("router").unwrap());
        link(&node, "up", &hub, "down").unwrap();
        for (namespace, device, host) in [(&node, "up", 2), (&hub, "down", 1)] {
            let v4 = format!("10.0.0.{host}/24");
            namespace.address(device, &v4).unwrap();
            let v6 = format!("2001:db8:0:1::{host}/64");
            namespace.address(device, &v6).unwrap();
        }
        let hub_config = router(&dump_path(&hub));
        let router = Node::start(hub, Kind::Bird, &hub_config).unwrap();
        let node = Node::start(node, kind, &change(sample(kind))).unwrap();
        let folder = isolate::work_dir().join("under-test");
        fs::create_dir_all(folder.join("state")).unwrap();
        let file = folder.join(binary.file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, "ok\n").unwrap();
        let stage = Self {
            node,
            router,
            kind,
            binary,
            folder,
            program: None,
            daemons: Vec::new(),
        };
        stage.until_router_has(Some(50));
        // FRR 8.4 may turn a change before its End-of-RIB into a withdrawal and an update.
        stage.until("End-of-RIB of both sessions", |stage| {
            stage.kind == Kind::Bird || stage.ends_of_rib() >= 2
        });
        stage
    }

    /// The folder of the daemon's sockets.
    fn daemon_folder(&self) -> PathBuf {
        let dump = dump_path(self.node.namespace());
        dump.parent().unwrap().to_owned()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.daemon_folder().join(match self.kind {
            Kind::Bird => "bird.ctl",
            Kind::Frr => "bgpd.vty",
        })
    }

    /// The usual table `[announce]`, with what is particular to the test.
    pub(crate) fn announce(&self, more: &str) -> String {
        let socket = self.socket();
        let (kind, read_back) = match self.kind {
            Kind::Bird => ("bird", "channels = [\"router4.ipv4\", \"router6.ipv6\"]"),
            Kind::Frr => ("frr", "neighbours = [\"10.0.0.1\", \"2001:db8:0:1::1\"]"),
        };
        format!(
            "[announce]\nkind = \"{kind}\"\nfloor = true\nsocket = \"{}\"\n{read_back}\n{more}\n",
            socket.display()
        )
    }

    fn command(&self, announce: &str) -> Command {
        let folder = self.folder.display();
        let node = format!(
            "[node]\nname = \"ams1\"\nstate_dir = \"{folder}/state\"\n\
             admin = \"unix:{folder}/admin.sock\"\n"
        );
        let path = self.folder.join("under-test.toml");
        fs::write(&path, node + &(self.binary.config)(&self.folder, announce)).unwrap();
        let mut command = Command::new(self.binary.path);
        command.arg("--config").arg(path);
        command
    }

    pub(crate) fn start(&mut self, announce: &str) {
        let mut command = self.command(announce);
        let namespace = self.node.namespace();
        self.program = Some(Proc::start(namespace, "under-test", &mut command).unwrap());
        self.until("the program to answer", |stage| stage.status().is_some());
    }

    /// Starts it, and expects it to end with one line that holds these.
    pub(crate) fn refuses(&self, announce: &str, names: &[&str]) {
        let mut command = self.command(announce);
        let output = self.node.namespace().output(&mut command).unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        let line = said.lines().last().unwrap();
        for name in names {
            assert!(line.contains(name), "{name} is not in: {line}");
        }
    }

    /// What it says when it is called like this.
    pub(crate) fn says(&self, announce: &str, more: &[&str]) -> String {
        let mut command = self.command(announce);
        let output = self.node.namespace().output(command.args(more)).unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// SIGTERM, and its end.
    pub(crate) fn stop(&mut self) {
        let mut program = self.program.take().unwrap();
        program.signal(Signal::SIGTERM).unwrap();
        eventually(PATIENCE, "the program to end", || {
            program.has_ended().unwrap().is_some()
        })
        .unwrap();
        let status = program.has_ended().unwrap().unwrap();
        assert!(status.success(), "{}", program.tail(30));
    }

    pub(crate) fn program(&self) -> &Proc {
        self.program.as_ref().unwrap()
    }

    pub(crate) fn ail(&self) {
        fs::remove_file(self.folder.join(self.binary.file)).unwrap();
    }

    pub(crate) fn heal(&self) {
        fs::write(self.folder.join(self.binary.file), "ok\n").unwrap();
    }

    /// The daemon dies without a word: BIRD, or bgpd.
    pub(crate) fn kill_daemon(&self) {
        let socket = self.socket();
        let marks = match self.kind {
            Kind::Bird => ["bird\0".to_owned(), format!("{}\0", socket.display())],
            Kind::Frr => [
                "bgpd\0".to_owned(),
                format!("{}\0", self.daemon_folder().display()),
            ],
        };
        // Everything here is in a PID namespace of the test's own.
        let is_it = |line: &str| marks.iter().all(|mark| line.contains(mark.as_str()));
        let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| {
            let path = entry.unwrap().path();
            let line = fs::read(path.join("cmdline")).ok()?;
            let pid = path.file_name()?.to_str()?.parse().ok()?;
            is_it(&String::from_utf8_lossy(&line)).then_some(pid)
        });
        let pids: Vec<i32> = pids.collect();
        assert_eq!(pids.len(), 1, "{pids:?}");
        kill(Pid::from_raw(pids[0]), Signal::SIGKILL).unwrap();
        let is_gone = || UnixStream::connect(&socket).is_err();
        eventually(PATIENCE, "the daemon to be gone", is_gone).unwrap();
    }

    /// It is there again.
    pub(crate) fn restart_daemon(&mut self) {
        let (folder, socket) = (self.daemon_folder(), self.socket());
        let namespace = self.node.namespace();
        let mut command = match self.kind {
            Kind::Bird => {
                let mut bird = Command::new(require("bird", &[], "bird2").unwrap());
                bird.arg("-f").arg("-c").arg(folder.join("bird.conf"));
                bird.arg("-s").arg(&socket);
                bird
            }
            Kind::Frr => {
                let mut bgpd = Command::new(require("bgpd", &FRR, "frr").unwrap());
                bgpd.args(["-u", "root", "-g", "root", "--log", "stdout"]);
                bgpd.arg("-f").arg(folder.join("empty.conf"));
                bgpd.arg("-i").arg(folder.join("bgpd.pid"));
                bgpd.arg("-z").arg(folder.join("zserv"));
                bgpd.arg("--vty_socket").arg(&folder);
                bgpd
            }
        };
        let daemon = Proc::start(namespace, "daemon-again", &mut command).unwrap();
        self.daemons.push(daemon);
        let answers = || UnixStream::connect(&socket).is_ok();
        eventually(PATIENCE, "the daemon to listen", answers).unwrap();
        if self.kind == Kind::Frr {
            let folder = folder.display();
            let vtysh = format!("vtysh --vty_socket {folder} --config_dir {folder} -b");
            namespace.run(&vtysh).unwrap();
        }
    }

    /// Closes the daemon's socket to everybody, as another owner's without our group is.
    pub(crate) fn forbid(&self, is_forbidden: bool) {
        let mode = if is_forbidden { 0o000 } else { 0o660 };
        fs::set_permissions(self.socket(), fs::Permissions::from_mode(mode)).unwrap();
    }

    fn status(&self) -> Option<Value> {
        let mut stream = UnixStream::connect(self.folder.join("admin.sock")).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"GET /status HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
    }

    /// The first of its services.
    pub(crate) fn service(&self) -> Value {
        self.status()
            .map_or(Value::Null, |status| status["services"][0].clone())
    }

    pub(crate) fn services(&self) -> Vec<Value> {
        let status = self.status().unwrap();
        status["services"].as_array().unwrap().clone()
    }

    pub(crate) fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        if let Err(error) = eventually(PATIENCE, what, || condition(self)) {
            let log = self.program.as_ref().map(|program| program.tail(30));
            let log = log.unwrap_or_default();
            panic!(
                "{error}\n{:#}\n{log}\n{}\n{}",
                self.service(),
                self.node.describe(),
                self.router.describe()
            );
        }
    }

    /// It says so, it was read back, and the router has it.
    pub(crate) fn until_confirmed(&self, preference: &str, local_pref: u32) {
        self.until(&format!("{preference}, confirmed"), |stage| {
            let service = stage.service();
            service["preference"] == preference && service["confirmation"]["state"] == "confirmed"
        });
        self.until_router_has(Some(local_pref));
    }

    /// It is not confirmed, for a reason that holds this.
    pub(crate) fn until_unconfirmed(&self, part: &str) {
        self.until(&format!("unconfirmed: {part}"), |stage| {
            let confirmation = stage.service()["confirmation"].clone();
            let reason = confirmation["reason"].as_str().unwrap_or_default();
            confirmation["state"] != "confirmed" && reason.contains(part)
        });
    }

    /// Both families' best paths have this local preference.
    pub(crate) fn until_router_has(&self, local_pref: Option<u32>) {
        self.until(&format!("the router to have {local_pref:?}"), |stage| {
            BOTH.iter().all(|address| {
                let prefix = Prefix::host(address.parse().unwrap());
                let best = stage.router.best(prefix).unwrap();
                best.map(|best| best.local_pref) == local_pref
            })
        });
    }

    /// How many addresses of the service `lo` has.
    pub(crate) fn boosts(&self) -> usize {
        let listing = self.node.namespace().run("ip -o addr show dev lo").unwrap();
        BOTH.iter()
            .filter(|address| listing.contains(&format!(" {address}/")))
            .count()
    }

    fn ends_of_rib(&self) -> usize {
        let end = Message::Update(anycast_labs::mrt::Update::default());
        let records = self.router.received().unwrap();
        records
            .iter()
            .filter(|record| record.message == end)
            .count()
    }

    /// Withdrawals that the router has heard.
    pub(crate) fn withdrawals(&self) -> usize {
        let records = self.router.received().unwrap();
        let withdrawn = |message: &Message| match message {
            Message::Update(update) => update.withdrawn.len(),
            Message::Open | Message::Notification(..) | Message::Keepalive | Message::Other(_) => 0,
        };
        records
            .iter()
            .map(|record| withdrawn(&record.message))
            .sum()
    }
}

/// The sample configuration, with what reading back needs.
fn sample(kind: Kind) -> String {
    let (name, from, to) = match kind {
        Kind::Bird => (
            "bird.conf",
            "next hop self; };",
            "next hop self; export table on; };",
        ),
        Kind::Frr => ("frr.conf", "", ""),
    };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../routing");
    let text = fs::read_to_string(folder.join(name)).unwrap();
    if from.is_empty() {
        return text;
    }
    assert_eq!(text.matches(from).count(), 2);
    text.replace(from, to)
}

fn router(dump: &Path) -> String {
    format!(
        r#"
log stderr all;
router id 10.0.0.1;
mrtdump "{}";
mrtdump protocols {{ messages }};
protocol device {{}}
template bgp node {{ local as 65000; connect delay time 1; connect retry time 2; error wait time 1, 2; }}
protocol bgp node4 from node {{ neighbor 10.0.0.2 as 65000; ipv4 {{ import all; export none; }}; }}
protocol bgp node6 from node {{ neighbor 2001:db8:0:1::2 as 65000; ipv6 {{ import all; export none; }}; }}
"#,
        dump.display()
    )
}

/// The whole life of a service behind a routing daemon.
pub(crate) fn story(kind: Kind, binary: Binary) {
    let name = match kind {
        Kind::Bird => "bird",
        Kind::Frr => "frr",
    };
    let mut stage = Stage::new(kind, binary, |text| text);
    stage.start(&stage.announce("dead_man = \"5s\""));
    stage.until_confirmed("preferred", 200);
    assert_eq!(stage.service()["announcer"], name);
    for _ in 0..2 {
        stage.ail();
        stage.until_confirmed("demoted", 50);
        stage.heal();
        stage.until_confirmed("preferred", 200);
    }
    let withdrawals = stage.withdrawals();
    assert_eq!(withdrawals, 0, "{}", stage.router.describe());
    println!("{name}: 2 demotions and 3 raises: {withdrawals} withdrawals");

    // The daemon dies: that is told, and lowers nothing.
    stage.kill_daemon();
    stage.until_unconfirmed(&stage.socket().display().to_string());
    println!("{name}: {}", stage.service()["confirmation"]["reason"]);
    std::thread::sleep(Duration::from_secs(6)); // longer than the dead man
    assert_eq!(stage.service()["preference"], "preferred");
    assert_eq!(stage.boosts(), 2, "{}", stage.program().tail(30));
    stage.restart_daemon();
    stage.until_confirmed("preferred", 200);

    // So does the right to ask it, and then it has to be told from a withdrawal.
    stage.kill_daemon();
    stage.until_unconfirmed("");
    stage.ail();
    stage.until("the boost to go", |stage| stage.boosts() == 0);
    stage.restart_daemon();
    stage.until_confirmed("demoted", 50);
    stage.heal();
    stage.until_confirmed("preferred", 200);
    stage.stop();
    stage.until_router_has(Some(50));
}

/// The daemon is not there at the start, or not for us.
pub(crate) fn socket_story(kind: Kind, binary: Binary) {
    let mut stage = Stage::new(kind, binary, |text| text);
    let announce = stage.announce("dead_man = \"5s\"");
    stage.forbid(true);
    stage.refuses(&announce, &["denied", "SupplementaryGroups="]);
    stage.forbid(false);
    let unknown = announce
        .replace("router4", "router5")
        .replace("10.0.0.1", "10.0.0.77");
    let named = if kind == Kind::Bird {
        "router5"
    } else {
        "10.0.0.77"
    };
    stage.refuses(&unknown, &[named]);

    stage.kill_daemon();
    let _ = fs::remove_file(stage.socket()); // a reboot leaves none behind
    stage.start(&announce);
    let remedy = if kind == Kind::Bird {
        "is BIRD running"
    } else {
        "is bgpd running"
    };
    stage.until_unconfirmed(remedy);
    stage.until("the boost, for the day the daemon is back", |stage| {
        stage.boosts() == 2
    });
    stage.restart_daemon();
    stage.until_confirmed("preferred", 200);
    // The right to ask is lost, and comes back.
    stage.forbid(true);
    stage.kill_daemon();
    stage.restart_daemon();
    stage.forbid(true);
    stage.until_unconfirmed("SupplementaryGroups=");
    assert_eq!(stage.boosts(), 2, "{}", stage.program().tail(30));
    stage.forbid(false);
    stage.until_confirmed("preferred", 200);
    stage.stop();
}
