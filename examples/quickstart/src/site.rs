//! `anycast-tftpd` at each site: its key, its folder, its configuration and its process.
//!
//! Each node makes its own key and is told the other's fingerprint: that is the mesh. The file is
//! put at the first site alone; file sync brings it to the other, and knows it there by the same
//! hash. With both, transfers are handed on by default.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};
use std::{env, fs};

use anycast_core::mesh::identity::{Fingerprint, Identity};
use anycast_labs::isolate::work_dir;
use anycast_labs::{Netns, Proc};
use serde_json::Value;

use crate::error::Error;
use crate::network::{SERVICE, SITES, site_address};

/// Carries the path of `anycast-tftpd` inside.
pub(crate) const DAEMON_VARIABLE: &str = "QUICKSTART_TFTPD";
/// The large file.
pub(crate) const FILE: &str = "image.bin";
/// Its size in bytes.
pub(crate) const FILE_SIZE: usize = 32 * 1024 * 1024;
/// How long the boost outlives the daemon, in whole seconds.
pub(crate) const DEAD_MAN: u64 = 3;

/// How long the file has been there.
const AGE: Duration = Duration::from_secs(3600);
/// A daemon answers about itself sooner.
const ADMIN_PATIENCE: Duration = Duration::from_secs(5);

/// Bytes of which no two blocks are equal, the same in every run.
pub(crate) fn content() -> Vec<u8> {
    let mut content = vec![0; FILE_SIZE];
    let mut stream = blake3::Hasher::new_derive_key("anycast quickstart image.bin").finalize_xof();
    stream.fill(&mut content);
    content
}

/// The service at one site. Key, folder and configuration outlive its process, as they do on a
/// real machine.
#[derive(Debug)]
pub(crate) struct Daemon {
    site: usize,
    folder: PathBuf,
    process: Option<Proc>,
}

/// Lays out both sites, which know each other, and puts the file at the first; no service is
/// started.
pub(crate) fn lay_out(content: &[u8]) -> Result<[Daemon; 2], Error> {
    let daemons = [0, 1].map(|site| Daemon {
        site,
        folder: work_dir().join(SITES[site]).join("tftpd"),
        process: None,
    });
    let mut keys = Vec::new();
    for daemon in &daemons {
        for name in ["root", "state"] {
            let path = daemon.folder.join(name);
            fs::create_dir_all(&path).map_err(|source| Error::File { path, source })?;
        }
        keys.push(daemon.make_key()?);
    }
    for (daemon, peer) in daemons.iter().zip(keys.iter().rev()) {
        daemon.write("root/health", b"well\n")?;
        daemon.write("tftpd.toml", daemon.config(peer).as_bytes())?;
    }
    daemons[0].write(&format!("root/{FILE}"), content)?;
    daemons[0].age(&format!("root/{FILE}"))?;
    Ok(daemons)
}

impl Daemon {
    /// As `anycastctl identity new` does.
    fn make_key(&self) -> Result<Fingerprint, Error> {
        let key = |error: &dyn std::fmt::Display| {
            Error::Daemon(format!(
                "cannot make a key for {}: {error}",
                SITES[self.site]
            ))
        };
        let identity = Identity::generate().map_err(|error| key(&error))?;
        identity
            .save_new(&self.folder.join("state/identity.pem"))
            .map_err(|error| key(&error))?;
        Ok(identity.fingerprint())
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let path = self.folder.join(name);
        fs::write(&path, bytes).map_err(|source| Error::File { path, source })
    }

    /// Starts it, in the place of one that was killed.
    pub(crate) fn start(&mut self, namespace: &Netns) -> Result<(), Error> {
        let executable = env::var_os(DAEMON_VARIABLE)
            .ok_or_else(|| Error::Daemon(format!("{DAEMON_VARIABLE} is not set")))?;
        let mut command = Command::new(executable);
        command.arg("--config").arg(self.folder.join("tftpd.toml"));
        let name = format!("{}-tftpd", SITES[self.site]);
        self.process = Some(Proc::start(namespace, &name, &mut command)?);
        Ok(())
    }

    /// SIGKILL: it can do nothing any more, not even say goodbye.
    pub(crate) fn kill(&mut self) -> Result<(), Error> {
        match &mut self.process {
            Some(process) => Ok(process.kill()?),
            None => Ok(()),
        }
    }

    /// An error when it has ended, with the last that it said.
    pub(crate) fn check(&mut self) -> Result<(), Error> {
        let Some(process) = &mut self.process else {
            return Ok(());
        };
        match process.has_ended()? {
            None => Ok(()),
            Some(status) => Err(Error::Deviation(format!(
                "{} ended ({status}): {}",
                process.name(),
                process.tail(1)
            ))),
        }
    }

    /// Whether it has the file, and each that the other has, and knows that the other has each of
    /// its own.
    pub(crate) fn is_in_step(&self) -> bool {
        if !self.folder.join("root").join(FILE).exists() {
            return false;
        }
        let Some(sync) = ask(&self.folder.join("admin.sock"), "/sync/files") else {
            return false;
        };
        let peers = sync["peers"].as_array().map_or(&[][..], Vec::as_slice);
        sync["ready"] == true
            && peers.len() == SITES.len() - 1
            && peers.iter().all(|peer| peer["lag"]["state"] == "none")
    }

    /// As if the file had lain there for long: one that was changed a moment before it is looked at
    /// is not taken to be certain.
    fn age(&self, name: &str) -> Result<(), Error> {
        let path = self.folder.join(name);
        let before = SystemTime::now() - AGE;
        let set = File::options().write(true).open(&path);
        set.and_then(|file| file.set_modified(before))
            .map_err(|source| Error::File { path, source })
    }

    fn config(&self, peer: &Fingerprint) -> String {
        let (site, other) = (self.site, 1 - self.site);
        let folder = self.folder.display();
        format!(
            r#"[node]
name = "{}"
state_dir = "{folder}/state"
admin = "unix:{folder}/admin.sock"

[service]
name = "tftp"
addresses = ["{SERVICE}/32"]
fail_safe = "demote"
rise = 2
fall = 3
hold_down = "1s"

[[check]]
kind = "tftp"
file = "health"
interval = "1s"
timeout = "1s"

[announce]
kind = "loopback"
floor = true
dead_man = "{DEAD_MAN}s"

[mesh]
listen = "{}:4747"

[[mesh.peer]]
name = "{}"
address = "{}:4747"
fingerprints = ["{peer}"]

[sync]
mode = "multi"

[tftp]
root = "{folder}/root"
"#,
            SITES[site],
            site_address(site),
            SITES[other],
            site_address(other),
        )
    }
}

/// What a daemon answers at its admin socket; `None` while it does not.
fn ask(socket: &Path, path: &str) -> Option<Value> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(ADMIN_PATIENCE)).ok()?;
    let request = format!("GET {path} HTTP/1.0\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
}
