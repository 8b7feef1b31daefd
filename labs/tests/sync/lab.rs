//! Three sites around a router, each with `anycast-tftpd` on the same service address.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anycast_core::mesh::identity::{Fingerprint, Identity};
use anycast_labs::node::service::{CTL, EXECUTABLE, build, build_ctl};
use anycast_labs::{Netns, Proc, eventually, isolate, link};
use serde_json::Value;

/// Far more than any change here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Has the address of the service at every site.
const SERVICE: &str = "192.0.2.69";

/// The daemon and the command that asks it.
pub(crate) fn prepare() -> Result<Vec<(String, std::ffi::OsString)>, String> {
    Ok([build()?, build_ctl()?].concat())
}

pub(crate) struct Lab {
    pub(crate) hub: Netns,
    pub(crate) sites: Vec<Site>,
}

pub(crate) struct Site {
    pub(crate) name: String,
    pub(crate) root: PathBuf,
    folder: PathBuf,
    namespace: Netns,
    key: Fingerprint,
    pub(crate) daemon: Option<Proc>,
}

fn address(number: usize) -> String {
    format!("10.30.{number}.2")
}

impl Lab {
    /// Sites of these names, each with the keys of the others; `sync` is what `[sync]` says. None
    /// runs yet.
    pub(crate) fn new(names: &[&str], sync: &str) -> Self {
        let hub = Netns::new("hub").unwrap();
        hub.forward().unwrap();
        let sites: Vec<_> = names
            .iter()
            .enumerate()
            .map(|(number, name)| Site::new(&hub, number, name))
            .collect();
        let lab = Self { hub, sites };
        for (number, site) in lab.sites.iter().enumerate() {
            site.configure(number, &lab.sites, sync);
        }
        lab
    }

    /// The same, running and agreed.
    pub(crate) fn start(names: &[&str], sync: &str) -> Self {
        let mut lab = Self::new(names, sync);
        for site in &mut lab.sites {
            site.start();
        }
        lab.await_agreed();
        lab
    }

    /// Every site is ready and has what all have, and its disk does.
    pub(crate) fn await_agreed(&self) {
        for site in &self.sites {
            site.until("all to be in step", |site| {
                let peers = site.sync()["peers"].as_array().cloned().unwrap_or_default();
                let in_step = |peer: &&Value| peer["lag"]["state"] == "none";
                site.sync()["ready"] == true
                    && peers.iter().filter(in_step).count() == self.sites.len() - 1
            });
        }
    }
}

impl Site {
    fn new(hub: &Netns, number: usize, name: &str) -> Self {
        let namespace = Netns::new(name).unwrap();
        link(hub, name, &namespace, "up").unwrap();
        let router = format!("10.30.{number}.1");
        hub.address(name, &format!("{router}/24")).unwrap();
        let own = format!("{}/24", address(number));
        namespace.address("up", &own).unwrap();
        namespace.route("default", &router).unwrap();
        let folder = isolate::work_dir().join(name);
        let root = folder.join("root");
        fs::create_dir_all(folder.join("state")).unwrap();
        fs::create_dir_all(&root).unwrap();
        fs::write(root.join("health"), "ok\n").unwrap();
        let identity = Identity::generate().unwrap();
        identity
            .save_new(&folder.join("state/identity.pem"))
            .unwrap();
        Self {
            name: name.to_owned(),
            root,
            folder,
            namespace,
            key: identity.fingerprint(),
            daemon: None,
        }
    }

    fn configure(&self, number: usize, all: &[Self], sync: &str) {
        let folder = self.folder.display();
        let mut text = format!(
            "[node]\nname = \"{}\"\nstate_dir = \"{folder}/state\"\n\
             admin = \"unix:{folder}/admin.sock\"\n\n\
             [service]\nname = \"tftp\"\naddresses = [\"{SERVICE}/32\"]\n\
             rise = 1\nfall = 1\nhold_down = \"0s\"\nflap_limit = 0\nbudget_refill = \"0s\"\n\n\
             [[check]]\nkind = \"tftp\"\nfile = \"health\"\ninterval = \"200ms\"\n\
             timeout = \"2s\"\n\n\
             [announce]\nkind = \"loopback\"\nfloor = true\ndead_man = \"3s\"\n\n\
             [tftp]\nroot = \"{folder}/root\"\n\n\
             [mesh]\nlisten = \"{}:4747\"\n",
            self.name,
            address(number),
        );
        for (other, site) in all.iter().enumerate().filter(|(other, _)| *other != number) {
            text += &format!(
                "[[mesh.peer]]\nname = \"{}\"\naddress = \"{}:4747\"\nfingerprints = [\"{}\"]\n",
                site.name,
                address(other),
                site.key,
            );
        }
        text += &format!("\n[sync]\n{sync}\n");
        fs::write(self.folder.join("tftpd.toml"), text).unwrap();
    }

    pub(crate) fn start(&mut self) {
        let mut command = Command::new(std::env::var_os(EXECUTABLE).unwrap());
        command.arg("--config").arg(self.folder.join("tftpd.toml"));
        let name = format!("{}-tftpd", self.name);
        self.daemon = Some(Proc::start(&self.namespace, &name, &mut command).unwrap());
        self.until("the daemon to answer", |site| {
            site.ask("/status") != Value::Null
        });
    }

    pub(crate) fn kill(&mut self) {
        self.daemon.take().unwrap().kill().unwrap();
    }

    pub(crate) fn write(&self, file: &str, content: &[u8]) {
        let path = self.root.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let new = path.with_extension("new");
        fs::write(&new, content).unwrap();
        fs::rename(new, path).unwrap();
    }

    pub(crate) fn read(&self, file: &str) -> Option<Vec<u8>> {
        fs::read(self.root.join(file)).ok()
    }

    /// Every file below the root that a client may see.
    pub(crate) fn files(&self) -> Vec<String> {
        let mut files = Vec::new();
        walk(&self.root, &self.root, &mut files);
        files.sort();
        files
    }

    /// What a client of this site gets, by curl.
    pub(crate) fn fetch(&self, file: &str) -> Option<Vec<u8>> {
        let url = format!("tftp://{SERVICE}/{file}");
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--max-time", "60", &url]);
        let output = self.namespace.output(&mut command).unwrap();
        output.status.success().then_some(output.stdout)
    }

    pub(crate) fn ask(&self, path: &str) -> Value {
        let answer = || {
            let mut stream = UnixStream::connect(self.folder.join("admin.sock")).ok()?;
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let request = format!("GET {path} HTTP/1.0\r\n\r\n");
            stream.write_all(request.as_bytes()).ok()?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).ok()?;
            serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
        };
        answer().unwrap_or(Value::Null)
    }

    /// `/sync/files`.
    pub(crate) fn sync(&self) -> Value {
        self.ask("/sync/files")
    }

    pub(crate) fn preference(&self) -> Value {
        self.ask("/status")["services"][0]["preference"].clone()
    }

    /// What `anycastctl` prints.
    pub(crate) fn ctl(&self, arguments: &[&str]) -> String {
        let socket = self.folder.join("admin.sock");
        let mut command = Command::new(std::env::var_os(CTL).unwrap());
        command.args(arguments).arg("--socket").arg(socket);
        let output = self.namespace.output(&mut command).unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        if let Err(error) = eventually(PATIENCE, what, || condition(self)) {
            let log = self.daemon.as_ref().map(|daemon| daemon.tail(40));
            panic!(
                "{}: {error}\n{:#}\n{:#}\n{:?}\n{}",
                self.name,
                self.ask("/sync"),
                self.ask("/status")["services"][0],
                self.files(),
                log.unwrap_or_default()
            );
        }
    }
}

fn walk(root: &Path, folder: &Path, files: &mut Vec<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let is_hidden = entry.file_name().to_string_lossy().starts_with(".anycast");
        if is_hidden {
            continue;
        }
        if path.is_dir() {
            walk(root, &path, files);
        } else {
            let name = path.strip_prefix(root).unwrap();
            files.push(name.to_string_lossy().into_owned());
        }
    }
}

/// Bytes that do not repeat.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
