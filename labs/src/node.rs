//! Nodes that run a real routing daemon, and what is asked of them.
//!
//! Both daemons are started from a configuration text in the foreground, with
//! all sockets, state and dumps in a folder of the node's own below
//! [`work_dir`](crate::isolate::work_dir), and are killed with the [`Node`].

pub mod bird;
pub mod frr;
pub mod service;

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use thiserror::Error;

use crate::mrt::{self, MrtError, Prefix, Record};
use crate::netns::{Netns, NetnsError};
use crate::process::{Proc, ProcError};
use crate::wait::TimedOut;
use crate::{diag, isolate};

use bird::Bird;
use frr::Frr;

/// What went wrong with a node.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NodeError {
    /// Its namespace, or a command in it.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// Its daemon.
    #[error(transparent)]
    Proc(#[from] ProcError),
    /// It did not become ready.
    #[error(transparent)]
    TimedOut(#[from] TimedOut),
    /// A file of its folder.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// Its daemon answered what we do not understand.
    #[error("{node}: {what}: {answer}")]
    Answer {
        /// The node.
        node: String,
        /// What is wrong.
        what: &'static str,
        /// The answer.
        answer: String,
    },
    /// Its dump of messages.
    #[error("{node}: {source}")]
    Dump {
        /// The node.
        node: String,
        /// What is wrong.
        source: MrtError,
    },
    /// A sample configuration in `examples/routing` lacks this text, which the
    /// lab replaces by its own.
    #[error("the sample routing configuration has no {0:?}")]
    Sample(&'static str),
    /// `anycast-tftpd` could not be built.
    #[error("cargo build -p anycast-tftpd: {0}")]
    Build(String),
}

/// Which routing daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// BIRD 2 or later.
    Bird,
    /// FRRouting.
    Frr,
}

/// The best path of a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Best {
    /// Where packets go.
    pub next_hop: IpAddr,
    /// Its local preference.
    pub local_pref: u32,
}

/// A namespace with a routing daemon.
#[derive(Debug)]
pub struct Node {
    daemon: Daemon,
    namespace: Netns,
}

#[derive(Debug)]
enum Daemon {
    Bird(Bird),
    Frr(Frr),
}

impl Node {
    /// Start the daemon with `config` in `namespace`, and wait until it answers.
    ///
    /// # Errors
    /// [`NodeError`]; a daemon that is not installed is
    /// [`ProcError::Missing`] with the package's name.
    pub fn start(namespace: Netns, kind: Kind, config: &str) -> Result<Self, NodeError> {
        let daemon = match kind {
            Kind::Bird => Daemon::Bird(Bird::start(&namespace, config)?),
            Kind::Frr => Daemon::Frr(Frr::start(&namespace, config)?),
        };
        Ok(Self { daemon, namespace })
    }

    /// Its namespace.
    #[must_use]
    pub const fn namespace(&self) -> &Netns {
        &self.namespace
    }

    /// The best BGP path of `prefix`, or `None` without one.
    ///
    /// # Errors
    /// [`NodeError`].
    pub fn best(&self, prefix: Prefix) -> Result<Option<Best>, NodeError> {
        match &self.daemon {
            Daemon::Bird(bird) => bird.best(&self.namespace, prefix),
            Daemon::Frr(frr) => frr.best(&self.namespace, prefix),
        }
    }

    /// How many BGP sessions are established, each address family's counted.
    ///
    /// # Errors
    /// [`NodeError`].
    pub fn established(&self) -> Result<usize, NodeError> {
        match &self.daemon {
            Daemon::Bird(bird) => bird.established(&self.namespace),
            Daemon::Frr(frr) => frr.established(&self.namespace),
        }
    }

    /// All BGP messages that it received since its start.
    ///
    /// # Errors
    /// [`NodeError::File`], [`NodeError::Dump`].
    pub fn received(&self) -> Result<Vec<Record>, NodeError> {
        let path = dump_path(&self.namespace);
        let dump = std::fs::read(&path).map_err(|source| NodeError::File { path, source })?;
        mrt::parse(&dump).map_err(|source| NodeError::Dump {
            node: self.namespace.name().to_owned(),
            source,
        })
    }

    /// Ask the daemon by its own tool: a command of `birdc`, or of `vtysh`.
    ///
    /// # Errors
    /// [`NodeError`].
    pub fn ask(&self, command: &str) -> Result<String, NodeError> {
        match &self.daemon {
            Daemon::Bird(bird) => bird.ask(&self.namespace, command),
            Daemon::Frr(frr) => frr.ask(&self.namespace, command),
        }
    }

    /// Send a signal to every process of the daemon.
    ///
    /// # Errors
    /// [`NodeError::Proc`] when one has ended.
    pub fn signal(&mut self, signal: Signal) -> Result<(), NodeError> {
        for process in self.processes() {
            process.signal(signal)?;
        }
        Ok(())
    }

    /// SIGKILL every process of the daemon and wait for its end.
    ///
    /// # Errors
    /// [`NodeError::Proc`].
    pub fn kill(&mut self) -> Result<(), NodeError> {
        for process in self.processes() {
            process.kill()?;
        }
        Ok(())
    }

    /// Start the daemon again after [`Self::kill`], with the same configuration.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_again(&mut self) -> Result<(), NodeError> {
        match &mut self.daemon {
            Daemon::Bird(bird) => bird.start_again(&self.namespace),
            Daemon::Frr(frr) => frr.start_again(&self.namespace),
        }
    }

    fn processes(&mut self) -> &mut [Proc] {
        match &mut self.daemon {
            Daemon::Bird(bird) => bird.processes(),
            Daemon::Frr(frr) => frr.processes(),
        }
    }

    /// The state of the namespace and of the daemon, for a failed lab.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = diag::describe(&self.namespace);
        let commands: &[&str] = match &self.daemon {
            Daemon::Bird(_) => &["show protocols all", "show route all"],
            Daemon::Frr(_) => &[
                "show bgp summary",
                "show bgp ipv4 unicast",
                "show bgp ipv6 unicast",
                "show ip route",
                "show ipv6 route",
            ],
        };
        for command in commands {
            let answer = self.ask(command).unwrap_or_else(|error| error.to_string());
            diag::section(&mut text, self.namespace.name(), command, &answer);
        }
        text
    }
}

/// The folder of a node's files.
pub(crate) fn folder(namespace: &Netns) -> PathBuf {
    isolate::work_dir().join(namespace.name())
}

/// Where a node's daemon has to write the messages that it receives, in MRT.
#[must_use]
pub fn dump_path(namespace: &Netns) -> PathBuf {
    folder(namespace).join("bgp.mrt")
}

/// What a killed daemon left; it may be absent.
fn remove(path: &Path) -> Result<(), NodeError> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(NodeError::File {
            path: path.to_owned(),
            source,
        }),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn write(path: PathBuf, text: &str) -> Result<PathBuf, NodeError> {
    let attempt = || {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(&path, text)
    };
    match attempt() {
        Ok(()) => Ok(path),
        Err(source) => Err(NodeError::File { path, source }),
    }
}
