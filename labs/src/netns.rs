//! Network namespaces, the links between them, and faults on these links.
//!
//! A [`Netns`] is a file descriptor and nothing else: no name under
//! `/run/netns`, no process. The kernel removes the namespace with its links
//! once the descriptor is closed and the last process in it has ended.
//!
//! Namespaces are entered by a thread that ends afterwards, never by the
//! caller's own thread.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;
use std::{fs, panic, process, thread};

use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use thiserror::Error;

/// Bound of [`Netns::run`] and [`Netns::output`].
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);

/// What went wrong in which namespace.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NetnsError {
    /// The namespace could not be made.
    #[error("cannot make network namespace {namespace}: {source}")]
    Make {
        /// Its name.
        namespace: String,
        /// What the kernel answered.
        source: io::Error,
    },
    /// The namespace could not be entered.
    #[error("cannot enter network namespace {namespace}: {source}")]
    Enter {
        /// Its name.
        namespace: String,
        /// What the kernel answered.
        source: io::Error,
    },
    /// A program could not be started or waited for.
    #[error("{namespace}: cannot run {command}: {source}")]
    Run {
        /// Where.
        namespace: String,
        /// The program and its arguments.
        command: String,
        /// What the system answered.
        source: io::Error,
    },
    /// A program ran too long and was killed.
    #[error("{namespace}: {command} did not end within {after:?}: killed")]
    TimedOut {
        /// Where.
        namespace: String,
        /// The program and its arguments.
        command: String,
        /// The bound.
        after: Duration,
    },
    /// A program failed.
    #[error("{namespace}: {command} failed ({status}): {output}")]
    Failed {
        /// Where.
        namespace: String,
        /// The program and its arguments.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// What it said, on standard error first.
        output: String,
    },
    /// A kernel setting could not be written.
    #[error("{namespace}: cannot set {key}={value}: {source}")]
    Sysctl {
        /// Where.
        namespace: String,
        /// Dotted name.
        key: String,
        /// The value.
        value: String,
        /// What the kernel answered.
        source: io::Error,
    },
}

/// A network namespace with `lo` up.
#[derive(Debug)]
pub struct Netns {
    name: String,
    file: File,
}

impl Netns {
    /// Make one. `name` is for messages only.
    ///
    /// # Errors
    /// [`NetnsError::Make`] when not inside an isolation and not root.
    pub fn new(name: &str) -> Result<Self, NetnsError> {
        let make = || -> io::Result<File> {
            unshare(CloneFlags::CLONE_NEWNET)?;
            File::open("/proc/thread-self/ns/net")
        };
        let file = in_thread(make).map_err(|source| NetnsError::Make {
            namespace: name.to_owned(),
            source,
        })?;
        let namespace = Self {
            name: name.to_owned(),
            file,
        };
        namespace.run("ip link set dev lo up")?;
        // Addresses of a lab are unique: without this each IPv6 address is
        // unusable for one to two seconds.
        for which in ["all", "default"] {
            namespace.sysctl(&format!("net.ipv6.conf.{which}.accept_dad"), "0")?;
        }
        Ok(namespace)
    }

    /// The name given.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Run `work` in a thread inside; sockets opened there stay there. A panic
    /// of `work` is passed on.
    ///
    /// # Errors
    /// [`NetnsError::Enter`].
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
        in_thread(|| {
            setns(&self.file, CloneFlags::CLONE_NEWNET)?;
            Ok(work())
        })
        .map_err(|source| NetnsError::Enter {
            namespace: self.name.clone(),
            source,
        })
    }

    /// Start a program inside.
    ///
    /// # Errors
    /// [`NetnsError::Run`] naming the program.
    pub fn spawn(&self, command: &mut Command) -> Result<Child, NetnsError> {
        self.enter(|| command.spawn())?
            .map_err(|source| NetnsError::Run {
                namespace: self.name.clone(),
                command: describe(command),
                source: with_package(command, source),
            })
    }

    /// Run a program inside to its end, at most one minute, with standard input
    /// empty, and answer what it said, whether it succeeded or not.
    ///
    /// # Errors
    /// [`NetnsError::Run`], [`NetnsError::TimedOut`].
    pub fn output(&self, command: &mut Command) -> Result<Output, NetnsError> {
        command.stdin(Stdio::null());
        self.output_of(command, None)
    }

    /// Run a command line inside (words are split at white space, there is no
    /// quoting) and answer its standard output.
    ///
    /// # Errors
    /// Those of [`Self::output`]; [`NetnsError::Failed`] when it did not exit
    /// with 0, with its standard error.
    pub fn run(&self, line: &str) -> Result<String, NetnsError> {
        let mut words = line.split_whitespace();
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words);
        let output = self.output(&mut command)?;
        self.succeeded(&command, output)
    }

    /// Feed `ruleset` to `nft -f -` inside.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn nft(&self, ruleset: &str) -> Result<(), NetnsError> {
        let mut command = Command::new("nft");
        command.args(["-f", "-"]).stdin(Stdio::piped());
        let output = self.output_of(&mut command, Some(ruleset))?;
        self.succeeded(&command, output).map(drop)
    }

    fn succeeded(&self, command: &Command, output: Output) -> Result<String, NetnsError> {
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(stdout);
        }
        let stderr = String::from_utf8_lossy(&output.stderr);
        Err(NetnsError::Failed {
            namespace: self.name.clone(),
            command: describe(command),
            status: output.status,
            output: format!("{} {}", stderr.trim(), stdout.trim())
                .trim()
                .to_owned(),
        })
    }

    fn output_of(&self, command: &mut Command, input: Option<&str>) -> Result<Output, NetnsError> {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.spawn(command)?;
        let failed = |source| NetnsError::Run {
            namespace: self.name.clone(),
            command: describe(command),
            source,
        };
        if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
            // A program that does not read to the end says why by its status.
            let _ = stdin.write_all(input.as_bytes());
        }
        let pid = Pid::from_raw(child.id().cast_signed());
        let (sender, receiver) = mpsc::channel();
        let waiting = thread::spawn(move || sender.send(child.wait_with_output()));
        if let Ok(output) = receiver.recv_timeout(COMMAND_TIMEOUT) {
            return output.map_err(failed);
        }
        // Not reaped yet: the thread that would do so still waits.
        let _ = kill(pid, Signal::SIGKILL);
        let _ = waiting.join();
        Err(NetnsError::TimedOut {
            namespace: self.name.clone(),
            command: describe(command),
            after: COMMAND_TIMEOUT,
        })
    }

    /// Add an address, `10.0.0.1/24` or `fd00::1/64`, usable at once.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn address(&self, device: &str, address: &str) -> Result<(), NetnsError> {
        let nodad = if address.contains(':') { "nodad" } else { "" };
        self.run(&format!("ip addr add {address} dev {device} {nodad}"))
            .map(drop)
    }

    /// Add a route to `prefix` (or `default`) by the next hop `via`.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn route(&self, prefix: &str, via: &str) -> Result<(), NetnsError> {
        let family = if via.contains(':') { "-6" } else { "-4" };
        self.run(&format!("ip {family} route add {prefix} via {via}"))
            .map(drop)
    }

    /// Write a kernel setting, such as `net.ipv4.ip_forward`.
    ///
    /// # Errors
    /// [`NetnsError::Sysctl`].
    pub fn sysctl(&self, key: &str, value: &str) -> Result<(), NetnsError> {
        let path = format!("/proc/sys/{}", key.replace('.', "/"));
        self.enter(|| fs::write(path, value))?
            .map_err(|source| NetnsError::Sysctl {
                namespace: self.name.clone(),
                key: key.to_owned(),
                value: value.to_owned(),
                source,
            })
    }

    /// Forward IPv4 and IPv6, as a router does.
    ///
    /// # Errors
    /// As [`Self::sysctl`].
    pub fn forward(&self) -> Result<(), NetnsError> {
        self.sysctl("net.ipv4.ip_forward", "1")?;
        self.sysctl("net.ipv6.conf.all.forwarding", "1")
    }

    /// Lose `percent` (0 to 100) of the packets that arrive on `device`, at
    /// random. Replaces an earlier loss on it.
    ///
    /// # Errors
    /// As [`Self::nft`].
    pub fn lose(&self, device: &str, percent: u8) -> Result<(), NetnsError> {
        let drop = format!("numgen random mod 100 < {percent} drop");
        self.fault(device, &format!("iifname {device} {drop}"), "")
    }

    /// Drop every packet to and from `device` while the link stays up: the
    /// peer notices only by its timers.
    ///
    /// # Errors
    /// As [`Self::nft`].
    pub fn cut(&self, device: &str) -> Result<(), NetnsError> {
        let (inwards, outwards) = (
            format!("iifname {device} drop"),
            format!("oifname {device} drop"),
        );
        self.fault(device, &inwards, &outwards)
    }

    fn fault(&self, device: &str, inwards: &str, outwards: &str) -> Result<(), NetnsError> {
        let table = format!("inet lab_{device}");
        self.nft(&format!(
            "table {table} {{}}\ndelete table {table}\ntable {table} {{\n\
             chain inwards {{ type filter hook prerouting priority -300; {inwards}\n}}\n\
             chain outwards {{ type filter hook postrouting priority 300; {outwards}\n}}\n}}\n"
        ))
    }

    /// Undo [`Self::lose`] and [`Self::cut`] on `device`.
    ///
    /// # Errors
    /// As [`Self::nft`].
    pub fn heal(&self, device: &str) -> Result<(), NetnsError> {
        self.nft(&format!(
            "table inet lab_{device} {{}}\ndelete table inet lab_{device}\n"
        ))
    }

    /// Set `device` down; the other end of the link sees its carrier go.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn down(&self, device: &str) -> Result<(), NetnsError> {
        self.run(&format!("ip link set dev {device} down"))
            .map(drop)
    }

    /// Set `device` up again. IPv6 addresses that it lost have to be added anew.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn up(&self, device: &str) -> Result<(), NetnsError> {
        self.run(&format!("ip link set dev {device} up")).map(drop)
    }
}

/// Join two namespaces by a link; both ends are up.
///
/// # Errors
/// As [`Netns::run`].
pub fn link(a: &Netns, a_device: &str, b: &Netns, b_device: &str) -> Result<(), NetnsError> {
    // A path through our own descriptors: the namespace has no name.
    let target = format!("/proc/{}/fd/{}", process::id(), b.file.as_raw_fd());
    a.run(&format!(
        "ip link add name {a_device} type veth peer name {b_device} netns {target}"
    ))?;
    a.up(a_device)?;
    b.up(b_device)
}

/// Run `work` in a thread that ends with it.
fn in_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("netns".to_owned());
        match thread.spawn_scoped(scope, work)?.join() {
            Ok(outcome) => outcome,
            Err(payload) => panic::resume_unwind(payload),
        }
    })
}

/// The Debian packages of what labs run most.
const PACKAGES: [(&str, &str); 6] = [
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("ping", "iputils-ping"),
    ("curl", "curl"),
    ("birdc", "bird2"),
    ("vtysh", "frr"),
];

/// A program that is not there, with what to install.
fn with_package(command: &Command, source: io::Error) -> io::Error {
    let package = PACKAGES
        .iter()
        .find(|(program, _)| command.get_program() == *program);
    match package {
        Some((_, package)) if source.kind() == io::ErrorKind::NotFound => io::Error::new(
            source.kind(),
            format!("not installed: apt install {package}"),
        ),
        Some(_) | None => source,
    }
}

/// The command line, for messages.
pub(crate) fn describe(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    line
}
