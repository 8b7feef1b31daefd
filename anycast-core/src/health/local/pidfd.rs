//! A process that is held by a pidfd: its death is an event, and no other process can be
//! taken for it.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Pause after the kernel could not say whether the process has ended.
const RETRY: Duration = Duration::from_millis(20);

/// A pidfd within the runtime that it was made in.
#[derive(Debug)]
pub(crate) struct Pidfd(AsyncFd<OwnedFd>);

impl Pidfd {
    /// Watches a process. Must be called within a runtime that drives IO.
    pub(crate) fn new(pidfd: OwnedFd) -> io::Result<Self> {
        #[allow(
            deprecated,
            reason = "its successor is unsafe for the sake of types that do not own their \
                      descriptor; an OwnedFd does"
        )]
        AsyncFd::with_interest(pidfd, Interest::READABLE).map(Self)
    }

    /// Whether it has ended; a zombie has. Does not wait.
    pub(crate) fn has_ended(&self) -> io::Result<bool> {
        has_ended(self.0.get_ref())
    }

    /// Waits until it has ended. Cancel-safe.
    pub(crate) async fn ended(&self) {
        loop {
            match (self.0.readable().await, self.has_ended()) {
                (_, Ok(true)) => return,
                (Ok(mut ready), Ok(false)) => ready.clear_ready(),
                (Ok(_), Err(_)) | (Err(_), _) => tokio::time::sleep(RETRY).await,
            }
        }
    }
}

/// Whether the process of a pidfd has ended; a zombie has. Does not wait.
///
/// A process whose first thread has ended while others run is alive.
pub(crate) fn has_ended(pidfd: &OwnedFd) -> io::Result<bool> {
    const NO_TIME: Timespec = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    loop {
        let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
        match poll(&mut fds, Some(&NO_TIME)) {
            Ok(ready) => return Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}
