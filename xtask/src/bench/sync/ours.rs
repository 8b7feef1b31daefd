//! `anycast-tftpd` at each node, and what it says of its files.

use std::fs;
use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anycast_labs::Proc;
use anycast_labs::isolate::work_dir;
use serde_json::Value;

use super::super::subject::{self, failed, until};
use super::bed::Node;
use super::tftp;
use crate::run::Failure;

/// Bound of every wait: the largest copy takes far less.
const PATIENCE: Duration = Duration::from_secs(300);
/// How often a node is asked.
const POLL: Duration = Duration::from_millis(10);
/// How long after a read that failed the next one begins.
const REREAD: Duration = Duration::from_millis(2);
/// The bound of one answer.
const ANSWER: Duration = Duration::from_secs(10);
/// The service address: every node has it on `lo`.
pub(in crate::bench) const SERVICE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 69);
pub(in crate::bench) const TFTP_PORT: u16 = 69;
const MESH_PORT: u16 = 4747;
const SERVER: &str = "anycast-tftpd";
const CONTROL: &str = "anycastctl";

/// What `/status` says of the files. The names of its fields are here and nowhere else.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::bench) struct Status {
    pub(in crate::bench) ready: bool,
    pub(in crate::bench) reason: String,
    pub(in crate::bench) files: u64,
    pub(in crate::bench) missing: u64,
    /// Equal where the nodes know of the same.
    pub(in crate::bench) digest: String,
    /// How long the last look at the whole folder took.
    pub(in crate::bench) rescan_ms: Option<u64>,
}

impl Status {
    /// `None`: this node does not speak of files.
    fn read(status: &Value) -> Option<Self> {
        let sync = status.get("sync").filter(|sync| sync.is_object())?;
        let text = |key: &str| sync[key].as_str().unwrap_or_default().to_owned();
        let number = |key: &str| sync[key].as_u64();
        Some(Self {
            ready: sync["ready"] == true,
            reason: text("reason"),
            files: number("files").unwrap_or_default(),
            missing: number("missing").unwrap_or_default(),
            digest: text("digest"),
            rescan_ms: number("rescan_ms"),
        })
    }
}

/// Whether all hold the same, on their disks, and it is not what it was.
pub(in crate::bench) fn is_settled(all: &[Status], files: u64, before: &str) -> bool {
    let digest = all.first().map(|status| &status.digest);
    digest.is_some_and(|digest| !digest.is_empty() && digest != before)
        && all.iter().all(|status| {
            status.ready
                && status.missing == 0
                && status.files >= files
                && Some(&status.digest) == digest
        })
}

/// One node's server.
pub(in crate::bench) struct Server {
    process: Proc,
    socket: PathBuf,
}

/// Gives every node a key, and a configuration that names all others.
pub(in crate::bench) fn prepare(nodes: &[Node], rescan: &str) -> Result<Vec<String>, Failure> {
    let mut keys = Vec::new();
    for node in nodes {
        let state = node.folder.join("state");
        fs::create_dir_all(&state).map_err(|e| failed("state", e))?;
        let made = Command::new(program(CONTROL)?)
            .args(["identity", "new"])
            .arg(state.join("identity.pem"))
            .output()
            .map_err(|e| failed(CONTROL, e))?;
        let said = String::from_utf8_lossy(&made.stdout).trim().to_owned();
        if !made.status.success() {
            let why = String::from_utf8_lossy(&made.stderr).trim().to_owned();
            return Err(failed("anycastctl identity new", why));
        }
        keys.push(said);
        let service = node.namespace.address("lo", &format!("{SERVICE}/32"));
        service.map_err(|e| failed("the service address", e))?;
    }
    configure(nodes, &keys, rescan, "")?;
    Ok(keys)
}

/// Writes the configurations anew, with further keys of `[tftp]`.
pub(in crate::bench) fn configure(
    nodes: &[Node],
    keys: &[String],
    rescan: &str,
    tftp: &str,
) -> Result<(), Failure> {
    for node in nodes {
        let text = config(node, nodes.iter().zip(keys), rescan, tftp);
        fs::write(node.folder.join("tftpd.toml"), text).map_err(|e| failed("tftpd.toml", e))?;
    }
    Ok(())
}

/// `all`: every node, with its fingerprint.
fn config<'a>(
    node: &Node,
    all: impl Iterator<Item = (&'a Node, &'a String)>,
    rescan: &str,
    tftp: &str,
) -> String {
    let mut text = format!(
        "[node]\nname = \"{}\"\nstate_dir = \"{}\"\nadmin = \"unix:{}\"\n\n\
         [service]\nname = \"tftp\"\naddresses = [\"{SERVICE}/32\"]\n\n\
         [announce]\nkind = \"none\"\n\n[tftp]\nroot = \"{}\"\nport = {TFTP_PORT}\n{tftp}\n\
         [sync]\nmode = \"multi\"\nrescan = \"{rescan}\"\n\n\
         [mesh]\nlisten = \"{}:{MESH_PORT}\"\n",
        name(node),
        node.folder.join("state").display(),
        socket(node).display(),
        node.root().display(),
        node.address(),
    );
    for (peer, key) in all.filter(|(peer, _)| peer.name != node.name) {
        text += &format!(
            "[[mesh.peer]]\nname = \"{}\"\naddress = \"{}:{MESH_PORT}\"\nfingerprints = [\"{key}\"]\n",
            name(peer),
            peer.address(),
        );
    }
    text
}

/// Of two nodes the one whose name comes first dials: whoever starts later does so at once, and the
/// other's pauses between attempts are no part of what is measured.
fn name(node: &Node) -> String {
    format!("site-{:03}", 999 - node.number)
}

/// Not beside the files: the path of a socket is at most 107 bytes long.
fn socket(node: &Node) -> PathBuf {
    work_dir().join(format!("{}.sock", node.name))
}

fn program(name: &str) -> Result<PathBuf, Failure> {
    Ok(Path::new(&super::variable(super::PROGRAMS)?).join(name))
}

/// What is not there of what is needed.
pub(in crate::bench) fn missing() -> Option<String> {
    let absent = |name: &str| match program(name) {
        Ok(path) => (!path.is_file()).then(|| format!("{} is not there", path.display())),
        Err(error) => Some(error.to_string()),
    };
    [SERVER, CONTROL].into_iter().find_map(absent)
}

impl Server {
    pub(in crate::bench) fn start(node: &Node) -> Result<Self, Failure> {
        let mut command = node.command(program(SERVER)?);
        command.arg("--config").arg(node.folder.join("tftpd.toml"));
        let process = Proc::start(&node.namespace, &node.name, &mut command)
            .map_err(|e| failed(SERVER, e))?;
        Ok(Self {
            process,
            socket: socket(node),
        })
    }

    pub(in crate::bench) fn cpu(&self) -> f64 {
        subject::cpu_of(self.process.id())
    }

    /// What it holds in memory now, in bytes.
    pub(in crate::bench) fn memory(&self) -> f64 {
        let path = format!("/proc/{}/status", self.process.id());
        let status = fs::read_to_string(path).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        kib.unwrap_or(0.0) * 1024.0
    }

    pub(in crate::bench) fn status(&self) -> Option<Status> {
        let mut stream = UnixStream::connect(&self.socket).ok()?;
        stream.set_read_timeout(Some(ANSWER)).ok()?;
        stream.write_all(b"GET /status HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let status = serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()?;
        Status::read(&status)
    }
}

/// Reads a file at one node, over and over, until there is as much of it as there is to be; when
/// that was.
pub(in crate::bench) fn await_read(node: &Node, name: &str, size: u64) -> Result<Instant, Failure> {
    let reading = || {
        until(name, || {
            let read = tftp::read((SERVICE, TFTP_PORT).into(), name);
            let is_whole = read.is_ok_and(|length| length == size);
            if !is_whole {
                thread::sleep(REREAD);
            }
            is_whole
        })
    };
    let read = node.namespace.enter(reading);
    read.map_err(|e| failed(&node.name, e))?
}

/// Waits until all are settled; their digest then.
pub(in crate::bench) fn await_settled(
    servers: &mut [Server],
    files: u64,
    before: &str,
) -> Result<String, Failure> {
    let asked = |all: &[Status]| is_settled(all, files, before);
    let all = await_all(servers, asked)?;
    Ok(all.into_iter().next().unwrap_or_default().digest)
}

/// Waits until what all say is as asked.
pub(in crate::bench) fn await_all(
    servers: &mut [Server],
    asked: impl Fn(&[Status]) -> bool,
) -> Result<Vec<Status>, Failure> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let all: Vec<_> = servers.iter().map(Server::status).collect();
        let said: Vec<_> = all.iter().flatten().cloned().collect();
        if said.len() == servers.len() && asked(&said) {
            return Ok(said);
        }
        for server in servers.iter_mut() {
            let ended = server.process.has_ended();
            if let Some(status) = ended.map_err(|e| failed(SERVER, e))? {
                let tail = server.process.tail(3);
                return Err(failed(
                    "anycast-tftpd",
                    format!("it ended ({status}): {tail}"),
                ));
            }
        }
        if Instant::now() > deadline {
            let tails: Vec<_> = servers.iter().map(|s| s.process.tail(3)).collect();
            let what = format!(
                "not settled within {PATIENCE:?}: {all:?}; {}",
                tails.join("; ")
            );
            return Err(failed(SERVER, what));
        }
        thread::sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(digest: &str) -> Status {
        let text = format!(
            r#"{{"sync": {{"ready": true, "reason": "", "files": 3, "missing": 0,
                 "digest": "{digest}", "rescan_ms": 12}}}}"#
        );
        Status::read(&serde_json::from_str(&text).unwrap()).unwrap()
    }

    #[test]
    fn what_a_node_says_of_its_files_is_understood() {
        let read = status("ab");
        assert_eq!((read.files, read.rescan_ms), (3, Some(12)));
        assert_eq!(Status::read(&serde_json::json!({"sync": null})), None);
        assert_eq!(Status::read(&serde_json::json!({})), None);
    }

    #[test]
    fn nodes_are_settled_once_all_hold_the_same_new_files() {
        let all = [status("ab"), status("ab")];
        assert!(is_settled(&all, 3, ""));
        assert!(is_settled(&all, 3, "cd"));
        assert!(!is_settled(&all, 3, "ab"), "it is what it was");
        assert!(!is_settled(&all, 4, ""), "too few");
        assert!(!is_settled(&[status("ab"), status("cd")], 3, ""));
        let lacking = Status {
            missing: 1,
            ..status("ab")
        };
        assert!(!is_settled(&[status("ab"), lacking], 3, ""));
        assert!(!is_settled(&[], 0, ""));
    }
}
