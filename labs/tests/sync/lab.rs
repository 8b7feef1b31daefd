//! Three sites around a router, each with `anycast-tftpd` on the same service address.
#![allow(dead_code, reason = "each test uses a part of this")]

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
pub(crate) const SERVICE: &str = "192.0.2.69";

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
    pub(crate) namespace: Netns,
    /// Those that the others take for this site's.
    keys: Vec<Fingerprint>,
    /// The variable that names the executable that it starts.
    pub(crate) executable: &'static str,
    pub(crate) daemon: Option<Proc>,
}

pub(crate) fn address(number: usize) -> String {
    format!("10.30.{number}.2")
}

impl Lab {
    /// Sites of these names, each with the keys of the others; `sync` is what `[sync]` says. None
    /// runs yet.
    pub(crate) fn new(names: &[&str], sync: &str) -> Self {
        Self::configured(names, true, sync)
    }

    /// The same, but none knows of another.
    pub(crate) fn apart(names: &[&str], sync: &str) -> Self {
        Self::configured(names, false, sync)
    }

    fn configured(names: &[&str], has_mesh: bool, sync: &str) -> Self {
        let hub = Netns::new("hub").unwrap();
        hub.forward().unwrap();
        let sites: Vec<_> = names
            .iter()
            .enumerate()
            .map(|(number, name)| Site::new(&hub, number, name))
            .collect();
        let lab = Self { hub, sites };
        lab.write_configurations(has_mesh, sync, "");
        lab
    }

    /// Writes every site's configuration anew.
    pub(crate) fn configure(&self, sync: &str) {
        self.write_configurations(true, sync, "");
    }

    /// The same, with further keys of `[tftp]`.
    pub(crate) fn configure_tftp(&self, sync: &str, tftp: &str) {
        self.write_configurations(true, sync, tftp);
    }

    fn write_configurations(&self, has_mesh: bool, sync: &str, tftp: &str) {
        for (number, site) in self.sites.iter().enumerate() {
            let mesh = if has_mesh {
                mesh(number, &self.sites)
            } else {
                String::new()
            };
            site.configure(&mesh, sync, tftp);
        }
    }

    /// The same, running and agreed.
    pub(crate) fn start(names: &[&str], sync: &str) -> Self {
        let mut lab = Self::new(names, sync);
        lab.start_all();
        lab
    }

    /// Every site runs, and they agree.
    pub(crate) fn start_all(&mut self) {
        for site in &mut self.sites {
            site.start();
        }
        self.await_agreed();
    }

    /// The route of all clients beyond the hub.
    pub(crate) fn lead_to(&self, site: usize) {
        let via = address(site);
        let route = format!("ip route replace {SERVICE}/32 via {via}");
        self.hub.run(&route).unwrap();
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
        // Clients that come to this site, whatever its number.
        namespace.address("lo", "198.51.100.1/24").unwrap();
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
            keys: vec![identity.fingerprint()],
            executable: EXECUTABLE,
            daemon: None,
        }
    }

    fn configure(&self, mesh: &str, sync: &str, tftp: &str) {
        let folder = self.folder.display();
        let text = format!(
            "[node]\nname = \"{}\"\nstate_dir = \"{folder}/state\"\n\
             admin = \"unix:{folder}/admin.sock\"\n\n\
             [service]\nname = \"tftp\"\naddresses = [\"{SERVICE}/32\"]\n\
             rise = 1\nfall = 1\nhold_down = \"0s\"\nflap_limit = 0\nbudget_refill = \"0s\"\n\n\
             [[check]]\nkind = \"tftp\"\nfile = \"health\"\ninterval = \"1s\"\n\
             timeout = \"1s\"\n\n\
             [announce]\nkind = \"loopback\"\nfloor = true\ndead_man = \"3s\"\n\n\
             [tftp]\nroot = \"{folder}/root\"\nwrites = \"create\"\n{tftp}\n\n\
             {mesh}\n[sync]\n{sync}\n",
            self.name,
        );
        fs::write(self.folder.join("tftpd.toml"), text).unwrap();
    }

    pub(crate) fn start(&mut self) {
        let mut command = Command::new(std::env::var_os(self.executable).unwrap());
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
        // Not below the root: a name that is there for a moment may be synced, and deleted again.
        let new = self.folder.join("new");
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
        self.curl(&[], file)
    }

    /// What this client gets that comes to this site: one of 1 to 254.
    pub(crate) fn fetch_as(&self, client: u8, file: &str) -> Option<Vec<u8>> {
        self.curl(&["--interface", &format!("198.51.100.{client}")], file)
    }

    /// Whether a client may write this file.
    pub(crate) fn put(&self, file: &str, content: &[u8]) -> bool {
        let upload = self.folder.join("upload");
        fs::write(&upload, content).unwrap();
        self.curl(&["--upload-file", upload.to_str().unwrap()], file)
            .is_some()
    }

    fn curl(&self, arguments: &[&str], file: &str) -> Option<Vec<u8>> {
        let url = format!("tftp://{SERVICE}/{file}");
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--max-time", "60"]);
        command.args(arguments).arg(&url);
        let output = self.namespace.output(&mut command).unwrap();
        output.status.success().then_some(output.stdout)
    }

    /// Another key than until now. The others take both.
    pub(crate) fn renew_key(&mut self) {
        let path = self.folder.join("state/identity.pem");
        fs::rename(&path, path.with_extension("old")).unwrap();
        let identity = Identity::generate().unwrap();
        identity.save_new(&path).unwrap();
        self.keys.push(identity.fingerprint());
    }

    /// Only its newest key is its own.
    pub(crate) fn forget_old_keys(&mut self) {
        let newest = self.keys.len() - 1;
        self.keys.drain(..newest);
    }

    /// A disk of this size (as `mount` has it) holds its files; it is empty, or as before if there was
    /// one.
    pub(crate) fn disk(&self, size: &str) {
        let is_new = !self.root.join("health").exists() || self.files().len() == 1;
        let options = if is_new { "size=" } else { "remount,size=" };
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &format!("{options}{size}"), "lab"]);
        assert!(command.arg(&self.root).status().unwrap().success());
        if is_new {
            fs::write(self.root.join("health"), "ok\n").unwrap();
        }
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
        self.try_ctl(arguments).unwrap()
    }

    /// The same, or what it says is wrong.
    pub(crate) fn try_ctl(&self, arguments: &[&str]) -> Result<String, String> {
        let socket = self.folder.join("admin.sock");
        let mut command = Command::new(std::env::var_os(CTL).unwrap());
        command.args(arguments).arg("--socket").arg(socket);
        let output = self.namespace.output(&mut command).unwrap();
        if output.status.success() {
            return Ok(String::from_utf8(output.stdout).unwrap());
        }
        Err(String::from_utf8(output.stderr).unwrap())
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

/// What `[mesh]` says at one of the sites.
fn mesh(number: usize, all: &[Site]) -> String {
    let mut text = format!("[mesh]\nlisten = \"{}:4747\"\n", address(number));
    for (other, site) in all.iter().enumerate().filter(|(other, _)| *other != number) {
        text += &format!(
            "[[mesh.peer]]\nname = \"{}\"\naddress = \"{}:4747\"\nfingerprints = {:?}\n",
            site.name,
            address(other),
            site.keys
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>(),
        );
    }
    text
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

pub(crate) use anycast_labs::noise;
