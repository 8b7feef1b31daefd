//! The real service: `anycast-tftpd`, built when needed, run at a site; and `anycast-guard`,
//! built alike.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;
use std::{env, io};

use serde_json::Value;

use super::{NodeError, folder, write};
use crate::netns::Netns;
use crate::process::Proc;
use crate::wait::eventually;

/// Carries the path of the executable from [`build`] to [`Tftpd`]. When it is
/// set outside, that executable is tested (an installed one) and none is built.
pub const EXECUTABLE: &str = "ANYCAST_LABS_TFTPD";
/// The same for `anycast-guard`.
pub const GUARD: &str = "ANYCAST_LABS_GUARD";
/// The same for `anycastctl`.
pub const CTL: &str = "ANYCAST_LABS_CTL";
/// The same for `anycast-tftpd` as a node of the version before, for labs of an upgrade.
pub const PREVIOUS: &str = "ANYCAST_LABS_TFTPD_PREVIOUS";
/// How long it may take to answer after its start.
const READY: Duration = Duration::from_secs(30);
/// The file that the service's own check reads.
pub const HEALTH_FILE: &str = "health";

/// Build `anycast-tftpd` with the profile of the calling test, or find that it
/// is up to date: the `prepare` of [`isolated_with`](crate::isolated_with).
///
/// # Errors
/// What cargo said.
pub fn build() -> Result<Vec<(String, OsString)>, String> {
    // Once for all tests of an executable.
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    build_once("anycast-tftpd", EXECUTABLE, Wire::Current, &BUILT)
}

/// [`build`] for `anycast-tftpd` as a node that speaks the versions of the wires before these, which
/// [`PREVIOUS`] names.
///
/// # Errors
/// What cargo said.
pub fn build_previous() -> Result<Vec<(String, OsString)>, String> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    build_once("anycast-tftpd", PREVIOUS, Wire::Previous, &BUILT)
}

/// [`build`] for `anycast-guard`, whose executable [`GUARD`] names.
///
/// # Errors
/// What cargo said.
pub fn build_guard() -> Result<Vec<(String, OsString)>, String> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    build_once("anycast-guard", GUARD, Wire::Current, &BUILT)
}

/// [`build`] for `anycastctl`, whose executable [`CTL`] names.
///
/// # Errors
/// What cargo said.
pub fn build_ctl() -> Result<Vec<(String, OsString)>, String> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    build_once("anycastctl", CTL, Wire::Current, &BUILT)
}

/// Which versions of the wires a node speaks at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wire {
    Current,
    Previous,
}

fn build_once(
    package: &str,
    variable: &str,
    wire: Wire,
    built: &OnceLock<Result<PathBuf, String>>,
) -> Result<Vec<(String, OsString)>, String> {
    let executable = match env::var_os(variable) {
        Some(given) => given.into(),
        None => built
            .get_or_init(|| built_aside(package, wire))
            .clone()
            .map_err(|error| format!("cargo build --package {package}: {error}"))?,
    };
    Ok(vec![(variable.to_owned(), executable.into_os_string())])
}

/// Builds an executable and links it to a place of its own. Cargo puts those of both wires into one
/// place, so nobody builds meanwhile, and the current one is there afterwards.
fn built_aside(package: &str, wire: Wire) -> Result<PathBuf, String> {
    let lock = env::temp_dir().join("anycast-labs-build.lock");
    let lock = File::create(&lock).map_err(|error| format!("{}: {error}", lock.display()))?;
    lock.lock().map_err(|error| error.to_string())?;
    let built = cargo_build(package, wire)?;
    let folder = built.with_file_name("labs");
    let name = match wire {
        Wire::Current => package.to_owned(),
        Wire::Previous => format!("{package}-previous"),
    };
    let (aside, new) = (folder.join(&name), folder.join(format!("{name}.new")));
    let linked = fs::create_dir_all(&folder)
        .and_then(|()| match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => fs::hard_link(&built, &new),
        })
        .and_then(|()| fs::rename(&new, &aside));
    // Of two links to one file neither is renamed.
    let _ = fs::remove_file(&new);
    linked.map_err(|error| format!("{}: {error}", aside.display()))?;
    if wire == Wire::Previous {
        cargo_build(package, Wire::Current)?;
    }
    Ok(aside)
}

fn cargo_build(package: &str, wire: Wire) -> Result<PathBuf, String> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = crate::cargo::cargo(cargo);
    command.args(["build", "--package", package, "--message-format", "json"]);
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    if is_release() {
        command.arg("--release");
    }
    if wire == Wire::Previous {
        let wrapper = concat!(env!("CARGO_MANIFEST_DIR"), "/previous-wire.sh");
        command.env("RUSTC_WORKSPACE_WRAPPER", wrapper);
    }
    let output = command.output().map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let messages = String::from_utf8_lossy(&output.stdout).into_owned();
    executable_in(&messages, package)
        .ok_or_else(|| "it builds no executable of this name".to_owned())
}

/// `target/release/deps/test` or `target/release/program`.
fn is_release() -> bool {
    let path = env::current_exe().unwrap_or_default();
    path.ancestors()
        .skip(1)
        .take(2)
        .any(|folder| folder.ends_with("release"))
}

fn executable_in(messages: &str, name: &str) -> Option<PathBuf> {
    let artifacts = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut ours = artifacts.filter(|message| message["target"]["name"] == name);
    ours.find_map(|message| message["executable"].as_str().map(PathBuf::from))
}

/// The service at one site. Its state, files and configuration outlive its
/// process, as they do on a real machine.
#[derive(Debug)]
pub struct Tftpd {
    name: String,
    config: PathBuf,
    root: PathBuf,
    process: Option<Proc>,
}

impl Tftpd {
    /// Lay out the site's folder: configuration and served files. It is not
    /// started.
    ///
    /// # Errors
    /// [`NodeError::File`].
    pub fn new(namespace: &Netns, files: &[(&str, &[u8])]) -> Result<Self, NodeError> {
        let folder = folder(namespace);
        let root = folder.join("root");
        for folder in [&root, &folder.join("state")] {
            fs::create_dir_all(folder).map_err(file_error(folder))?;
        }
        for (name, content) in files {
            let path = root.join(name);
            fs::write(&path, content).map_err(file_error(&path))?;
        }
        let config = config(namespace.name(), &folder);
        let config = write(folder.join("tftpd.toml"), &config)?;
        Ok(Self {
            name: namespace.name().to_owned(),
            config,
            root,
            process: None,
        })
    }

    /// Start it, at the place of one that was killed, and wait until its admin
    /// endpoint answers.
    ///
    /// # Errors
    /// [`NodeError::Proc`]; [`NodeError::Answer`] with its log when it ends or
    /// does not answer; [`NodeError::Build`] when the test was not entered with
    /// [`build`].
    pub fn start(&mut self, namespace: &Netns) -> Result<(), NodeError> {
        let executable = env::var_os(EXECUTABLE)
            .ok_or_else(|| NodeError::Build("the lab was not entered with it".to_owned()))?;
        let mut command = Command::new(executable);
        command.arg("--config").arg(&self.config);
        let name = format!("{}-tftpd", self.name);
        let mut process = Proc::start(namespace, &name, &mut command)?;
        let socket = self.config.with_file_name("admin.sock");
        let ready = eventually(READY, "the admin endpoint", || {
            UnixStream::connect(&socket).is_ok() || matches!(process.has_ended(), Ok(Some(_)))
        });
        if process.has_ended()?.is_some() || ready.is_err() {
            return Err(NodeError::Answer {
                node: name,
                what: "anycast-tftpd did not start",
                answer: process.tail(20),
            });
        }
        self.process = Some(process);
        Ok(())
    }

    /// Its process.
    ///
    /// # Errors
    /// [`NodeError::Answer`] when it was never started.
    pub fn process(&mut self) -> Result<&mut Proc, NodeError> {
        self.process.as_mut().ok_or_else(|| NodeError::Answer {
            node: self.name.clone(),
            what: "the service was not started",
            answer: String::new(),
        })
    }

    /// The folder that it serves.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }
}

fn config(name: &str, folder: &Path) -> String {
    let folder = folder.display();
    format!(
        r#"[node]
name = "{name}"
state_dir = "{folder}/state"
admin = "unix:{folder}/admin.sock"

[service]
name = "tftp"
addresses = ["192.0.2.69/32", "2001:db8::69/128"]
fail_safe = "demote"
rise = 2
fall = 3
hold_down = "1s"
on_stop = "demote"

[[check]]
kind = "tftp"
interval = "1s"
timeout = "1s"
file = "{HEALTH_FILE}"

[announce]
kind = "loopback"
floor = true
dead_man = "3s"

[tftp]
root = "{folder}/root"
port = 69
"#
    )
}

fn file_error(path: &Path) -> impl Fn(io::Error) -> NodeError {
    move |source| NodeError::File {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_is_read_from_what_cargo_says() {
        let messages = "{\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"other\"},\"executable\":\"/x/other\"}\n\
            not json\n\
            {\"target\":{\"name\":\"anycast-tftpd\"},\"executable\":null}\n\
            {\"target\":{\"name\":\"anycast-tftpd\"},\"executable\":\"/x/anycast-tftpd\"}\n";
        assert_eq!(
            executable_in(messages, "anycast-tftpd"),
            Some(PathBuf::from("/x/anycast-tftpd"))
        );
        assert_eq!(executable_in("", "anycast-tftpd"), None);
    }
}
