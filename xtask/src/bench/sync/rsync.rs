//! rsync: one that serves at the first node, and a run of it at another node for each copy.

use std::fs::{self, File};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anycast_labs::{Proc, require};

use super::super::subject::{self, failed, until};
use super::Subject;
use super::bed::{Bed, Node};
use crate::run::Failure;

const RSYNC_PORT: u16 = 873;
const SSH_PORT: u16 = 22;
/// How long a server may take to count what its child of the last connection has used.
const REAPED: Duration = Duration::from_millis(300);

/// As it says itself, in `rsync  version 3.2.7  protocol version 31`.
pub(super) fn version() -> String {
    let output = Command::new("rsync").arg("--version").output();
    let said = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let said = said.unwrap_or_default();
    let version = said.split_whitespace().nth(2);
    version.unwrap_or("not installed").to_owned()
}

/// What serves the first node's files.
pub(super) struct Server {
    process: Proc,
    /// Of the client, up to the folder that receives.
    line: Vec<String>,
}

impl Server {
    pub(super) fn start(bed: &Bed, subject: Subject) -> Result<Self, Failure> {
        let [origin, ..] = &bed.nodes[..] else {
            return Err(Failure::new("there is no node"));
        };
        let (mut command, port, source) = if subject == Subject::Ssh {
            sshd(origin)?
        } else {
            daemon(origin)?
        };
        let process = Proc::start(&origin.namespace, "server", &mut command)
            .map_err(|e| failed(subject.name(), e))?;
        let up = || {
            let connect = || TcpStream::connect((origin.address(), port)).is_ok();
            origin.namespace.enter(connect).unwrap_or(false)
        };
        until(subject.name(), up)
            .map_err(|e| failed(subject.name(), format!("{e}; {}", process.tail(5))))?;
        Ok(Self {
            process,
            line: source,
        })
    }

    /// CPU seconds so far, with those of all connections that have ended.
    pub(super) fn cpu(&self) -> f64 {
        thread::sleep(REAPED);
        subject::cpu_of(self.process.id())
    }

    /// Starts to make a node's folder equal. `-an` for `mode` would only compare.
    pub(super) fn pull(&self, node: &Node, mode: &[&str]) -> Result<Pull, Failure> {
        let log = node.folder.join("rsync.log");
        let errors = File::create(&log).map_err(|e| failed("rsync.log", e))?;
        let mut command = node.command("rsync");
        command.args(mode).args(&self.line);
        command.arg(format!("{}/", node.root().display()));
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(errors);
        let child = node.namespace.spawn(&mut command);
        Ok(Pull {
            child: child.map_err(|e| failed("rsync", e))?,
            log,
        })
    }

    /// What it last said.
    pub(super) fn said(&self) -> String {
        self.process.tail(5)
    }
}

/// A run of rsync.
pub(super) struct Pull {
    child: Child,
    log: PathBuf,
}

impl Pull {
    pub(super) fn wait(mut self) -> Result<(), Failure> {
        let status = self.child.wait().map_err(|e| failed("rsync", e))?;
        if status.success() {
            return Ok(());
        }
        let said = fs::read_to_string(&self.log).unwrap_or_default();
        Err(failed("rsync", format!("{status}: {}", said.trim())))
    }
}

impl Drop for Pull {
    fn drop(&mut self) {
        // It has ended where it was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn daemon(origin: &Node) -> Result<(Command, u16, Vec<String>), Failure> {
    let config = origin.folder.join("rsyncd.conf");
    // Nobody answers questions for names here, and each would be waited for.
    let text = format!(
        "reverse lookup = no\nuse chroot = no\nuid = 0\ngid = 0\nlog file = {}\n[files]\npath = {}\nread only = yes\n",
        origin.folder.join("rsyncd.log").display(),
        origin.root().display(),
    );
    fs::write(&config, text).map_err(|e| failed("rsyncd.conf", e))?;
    let mut command = origin.command("rsync");
    command.args(["--daemon", "--no-detach", "--port"]);
    command.arg(RSYNC_PORT.to_string());
    command.arg(format!("--config={}", config.display()));
    let source = format!("rsync://{}/files/", origin.address());
    Ok((command, RSYNC_PORT, vec![source]))
}

fn sshd(origin: &Node) -> Result<(Command, u16, Vec<String>), Failure> {
    let folder = &origin.folder;
    for name in ["host", "user"] {
        let mut command = Command::new("ssh-keygen");
        command.args(["-q", "-t", "ed25519", "-N", "", "-f"]);
        command.arg(folder.join(name));
        let made = command.status().map_err(|e| failed("ssh-keygen", e))?;
        if !made.success() {
            return Err(failed("ssh-keygen", made));
        }
    }
    // It drops its rights into this folder, which is in memory here.
    fs::create_dir_all("/run/sshd").map_err(|e| failed("/run/sshd", e))?;
    let config = folder.join("sshd_config");
    let at = folder.display();
    let text = format!(
        "Port {SSH_PORT}\nHostKey {at}/host\nAuthorizedKeysFile {at}/user.pub\nStrictModes no\n\
         UsePAM no\nPidFile none\nPermitRootLogin prohibit-password\n"
    );
    fs::write(&config, text).map_err(|e| failed("sshd_config", e))?;
    // It wants its own full path, to start itself again for each connection.
    let program = require("sshd", &[], "openssh-server").map_err(|e| failed("sshd", e))?;
    let mut command = origin.command(program);
    command.args(["-D", "-e", "-f"]).arg(&config);
    let shell = format!(
        "ssh -F none -i {at}/user -o BatchMode=yes -o StrictHostKeyChecking=no \
         -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
    );
    let source = format!("root@{}:{}/", origin.address(), origin.root().display());
    Ok((command, SSH_PORT, vec!["-e".to_owned(), shell, source]))
}
