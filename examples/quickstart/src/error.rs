//! Why the demonstration ended early: always one line.

use std::io;
use std::path::PathBuf;

use anycast_labs::isolate::IsolateError;
use anycast_labs::node::NodeError;
use anycast_labs::{NetnsError, ProcError, TimedOut};
use thiserror::Error;

#[derive(Debug, Error)]
pub(crate) enum Error {
    /// No namespaces; the message names what to enable.
    #[error(transparent)]
    Isolate(#[from] IsolateError),
    #[error(transparent)]
    Netns(#[from] NetnsError),
    #[error(transparent)]
    Node(#[from] NodeError),
    #[error(transparent)]
    Proc(#[from] ProcError),
    #[error(transparent)]
    TimedOut(#[from] TimedOut),
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("cannot {what}: {source}")]
    System {
        what: &'static str,
        source: io::Error,
    },
    /// `anycast-tftpd` is neither there nor can it be built.
    #[error("{0}")]
    Daemon(String),
    /// Something else was seen than should be.
    #[error("not as it should be: {0}")]
    Deviation(String),
}

impl Error {
    pub(crate) fn system(what: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::System { what, source }
    }
}
