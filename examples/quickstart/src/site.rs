//! `anycast-tftpd` at one site: its folder, its configuration and its process.

use std::path::PathBuf;
use std::process::Command;
use std::{env, fs};

use anycast_labs::isolate::work_dir;
use anycast_labs::{Netns, Proc};

use crate::error::Error;
use crate::network::{SERVICE, SITES};

/// Carries the path of `anycast-tftpd` inside.
pub(crate) const DAEMON_VARIABLE: &str = "QUICKSTART_TFTPD";
/// The large file.
pub(crate) const FILE: &str = "image.bin";
/// Its size in bytes.
pub(crate) const FILE_SIZE: usize = 32 * 1024 * 1024;
/// How long the boost outlives the daemon, in whole seconds.
pub(crate) const DEAD_MAN: u64 = 3;

/// Bytes of which no two blocks are equal, the same in every run.
pub(crate) fn content() -> Vec<u8> {
    let mut content = vec![0; FILE_SIZE];
    let mut stream = blake3::Hasher::new_derive_key("anycast quickstart image.bin").finalize_xof();
    stream.fill(&mut content);
    content
}

/// The service at one site. Folder and configuration outlive its process, as they do on a
/// real machine.
#[derive(Debug)]
pub(crate) struct Daemon {
    site: usize,
    config: PathBuf,
    process: Option<Proc>,
}

impl Daemon {
    /// Lays out the folder of site 0 or 1; the service is not started.
    pub(crate) fn new(site: usize, content: &[u8]) -> Result<Self, Error> {
        let folder = work_dir().join(SITES[site]).join("tftpd");
        for name in ["root", "state"] {
            let path = folder.join(name);
            fs::create_dir_all(&path).map_err(|source| Error::File { path, source })?;
        }
        let config = config(SITES[site], &folder.to_string_lossy());
        let files = [
            ("root/image.bin", content),
            ("root/health", b"well\n"),
            ("tftpd.toml", config.as_bytes()),
        ];
        for (name, bytes) in files {
            let path = folder.join(name);
            fs::write(&path, bytes).map_err(|source| Error::File { path, source })?;
        }
        Ok(Self {
            site,
            config: folder.join("tftpd.toml"),
            process: None,
        })
    }

    /// Starts it, in the place of one that was killed.
    pub(crate) fn start(&mut self, namespace: &Netns) -> Result<(), Error> {
        let executable = env::var_os(DAEMON_VARIABLE)
            .ok_or_else(|| Error::Daemon(format!("{DAEMON_VARIABLE} is not set")))?;
        let mut command = Command::new(executable);
        command.arg("--config").arg(&self.config);
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
}

fn config(name: &str, folder: &str) -> String {
    format!(
        r#"[node]
name = "{name}"
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

[tftp]
root = "{folder}/root"
"#
    )
}
