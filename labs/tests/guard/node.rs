//! `anycast-guard` at one node: what it is told, what it says, what the kernel has.

use std::fs;
use std::io::{Read, Write};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anycast_labs::node::service::GUARD;
use anycast_labs::{Netns, Proc, eventually, isolate};
use serde_json::Value;

/// Far more than any change here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The guard in front of one service at one node. Its files outlive its process.
#[derive(Debug)]
pub(crate) struct Guarded<'a> {
    pub(crate) namespace: &'a Netns,
    pub(crate) folder: PathBuf,
    pub(crate) addresses: [IpAddr; 2],
    process: Option<Proc>,
    /// Every change of an address, from before the guard's first start.
    monitor: Proc,
}

impl<'a> Guarded<'a> {
    /// Starts it. `checks` are its tables `[[service.check]]`.
    pub(crate) fn start(
        namespace: &'a Netns,
        addresses: [IpAddr; 2],
        dead_man: &str,
        checks: &str,
    ) -> Self {
        let folder = folder(namespace);
        fs::create_dir_all(folder.join("state")).unwrap();
        let mut monitor = Command::new("ip");
        monitor.args(["-o", "monitor", "address"]);
        let name = format!("{}-addresses", namespace.name());
        let monitor = Proc::start(namespace, &name, &mut monitor).unwrap();
        let mut guarded = Self {
            namespace,
            folder,
            addresses,
            process: None,
            monitor,
        };
        guarded.await_monitor();
        guarded.write(&guarded.config(dead_man, checks));
        guarded.start_again();
        guarded
    }

    /// The monitor has to listen before anything changes: it has seen a change of ours.
    fn await_monitor(&self) {
        let probe = "127.99.99.99/32";
        eventually(PATIENCE, "ip monitor to listen", || {
            // One of the two fails when the other's turn was missed.
            let _ = self.namespace.run(&format!("ip addr add {probe} dev lo"));
            let _ = self.namespace.run(&format!("ip addr del {probe} dev lo"));
            fs::read_to_string(self.monitor.log())
                .unwrap()
                .contains("Deleted")
        })
        .unwrap();
    }

    /// A whole configuration: short times, and neither flap handling nor budget, since these
    /// labs make a service fall more often than any operator would like.
    pub(crate) fn config(&self, dead_man: &str, checks: &str) -> String {
        let folder = self.folder.display();
        let [v4, v6] = self.addresses;
        format!(
            "[node]\nname = \"ams1\"\nstate_dir = \"{folder}/state\"\n\
             admin = \"unix:{folder}/admin.sock\"\n\n\
             [announce]\nkind = \"loopback\"\nfloor = true\ndead_man = \"{dead_man}\"\n\n\
             [[service]]\nname = \"guarded\"\naddresses = [\"{v4}/32\", \"{v6}/128\"]\n\
             rise = 2\nfall = 2\nhold_down = \"1s\"\nflap_limit = 0\nbudget_refill = \"0s\"\n\n\
             {checks}\n"
        )
    }

    fn path(&self) -> PathBuf {
        self.folder.join("guard.toml")
    }

    /// What is in its file.
    pub(crate) fn written(&self) -> String {
        fs::read_to_string(self.path()).unwrap()
    }

    pub(crate) fn write(&self, text: &str) {
        fs::write(self.path(), text).unwrap();
    }

    /// Starts it, at the place of one that has ended, and waits until it answers.
    pub(crate) fn start_again(&mut self) {
        let executable = std::env::var_os(GUARD).unwrap();
        let mut command = Command::new(executable);
        command.arg("--config").arg(self.path());
        let name = format!("{}-guard", self.namespace.name());
        self.process = Some(Proc::start(self.namespace, &name, &mut command).unwrap());
        self.until("the guard to answer", |guarded| {
            guarded.try_status().is_some()
        });
    }

    pub(crate) fn process(&mut self) -> &mut Proc {
        self.process.as_mut().unwrap()
    }

    /// Waits, and when it is in vain tells what there is to know.
    pub(crate) fn until(&self, what: &str, mut condition: impl FnMut(&Self) -> bool) {
        if let Err(error) = eventually(PATIENCE, what, || condition(self)) {
            let status = self.try_status().map(|status| format!("{status:#}"));
            let log = self.process.as_ref().map(|guard| guard.tail(30));
            panic!("{error}\n{status:?}\n{}", log.unwrap_or_default());
        }
    }

    pub(crate) fn status(&self) -> Value {
        self.try_status().unwrap()
    }

    fn try_status(&self) -> Option<Value> {
        Self::ask(self.connect()?)
    }

    /// A connection on which nothing was asked yet.
    pub(crate) fn connect(&self) -> Option<UnixStream> {
        UnixStream::connect(self.folder.join("admin.sock")).ok()
    }

    /// Asks for `/status` on it.
    pub(crate) fn ask(mut stream: UnixStream) -> Option<Value> {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // HTTP/1.0: the body is not cut into chunks.
        stream.write_all(b"GET /status HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (_, body) = answer.split_once("\r\n\r\n")?;
        serde_json::from_str(body).ok()
    }

    /// The state of its one service.
    pub(crate) fn service(&self) -> Value {
        self.status()["services"][0].clone()
    }

    /// The last verdict of its check of this name, in words.
    pub(crate) fn verdict(&self, check: &str) -> String {
        let service = self.service();
        let checks = service["checks"].as_array().unwrap();
        let check = checks.iter().find(|each| each["name"] == check).unwrap();
        check["verdict"].as_str().unwrap_or_default().to_owned()
    }

    /// The service addresses that this interface has.
    fn held_by(&self, interface: &str) -> usize {
        let Ok(listing) = self
            .namespace
            .run(&format!("ip -j addr show dev {interface}"))
        else {
            return 0; // there is no such interface yet
        };
        let listing: Value = serde_json::from_str(&listing).unwrap();
        let held = listing[0]["addr_info"].as_array().unwrap();
        let is_held = |address: &&IpAddr| {
            held.iter()
                .any(|each| each["local"] == address.to_string().as_str())
        };
        self.addresses.iter().filter(is_held).count()
    }

    /// Both boosts are in the kernel, and both permanent copies.
    pub(crate) fn is_preferred(&self) -> bool {
        self.held_by("lo") == 2 && self.held_by("svc0") == 2
    }

    /// No boost is, and both permanent copies are.
    pub(crate) fn is_lowered(&self) -> bool {
        self.held_by("lo") == 0 && self.held_by("svc0") == 2
    }

    pub(crate) fn await_preferred(&self) {
        self.until("the service to be preferred", Self::is_preferred);
        self.until("its decision to be confirmed", |guarded| {
            guarded.service()["confirmation"]["state"] == "confirmed"
        });
    }

    /// Lowered, with a reason in which this occurs.
    pub(crate) fn await_lowered(&self, hint: &str) {
        self.until("the service to be lowered", Self::is_lowered);
        let said = self.service().to_string();
        assert!(said.contains(hint), "no {hint:?} in {said}");
        println!("lowered: {}", self.service()["reason"]);
    }

    /// Where the record of changes stands.
    pub(crate) fn mark(&self) -> usize {
        fs::read(self.monitor.log()).unwrap().len()
    }

    /// The lines of changes since then.
    pub(crate) fn changes(&self, mark: usize) -> Vec<String> {
        let log = fs::read(self.monitor.log()).unwrap();
        let text = String::from_utf8_lossy(&log[mark..]).into_owned();
        text.lines().map(str::to_owned).collect()
    }

    /// How often a boost was written since then.
    pub(crate) fn renewals(&self, mark: usize) -> usize {
        let changes = self.changes(mark);
        let boost = |line: &&String| !line.contains("Deleted") && line.contains(": lo ");
        changes.iter().filter(boost).count()
    }

    /// Waits until the boosts were renewed this often: so many decisions were carried out.
    pub(crate) fn await_renewals(&self, count: usize) {
        let mark = self.mark();
        self.until("the boosts to be renewed", |guarded| {
            guarded.renewals(mark) >= count
        });
    }

    /// No address of any interface went since then.
    pub(crate) fn assert_nothing_deleted(&self, mark: usize) {
        let deleted = |line: &String| line.contains("Deleted");
        let gone: Vec<_> = self.changes(mark).into_iter().filter(deleted).collect();
        assert!(gone.is_empty(), "{gone:#?}");
    }

    /// The permanent copies never went, from the first start to now.
    pub(crate) fn assert_never_withdrawn(&self) {
        let svc0 = |line: &String| line.contains("Deleted") && line.contains("svc0");
        let gone: Vec<_> = self.changes(0).into_iter().filter(svc0).collect();
        assert!(gone.is_empty(), "{gone:#?}");
        assert_eq!(self.held_by("svc0"), 2);
    }
}

/// Where the files of a node of these labs are.
pub(crate) fn folder(namespace: &Netns) -> PathBuf {
    isolate::work_dir().join(format!("guard-{}", namespace.name()))
}

/// Writes a file for a daemon.
pub(crate) fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    fs::create_dir_all(folder).unwrap();
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    path
}
