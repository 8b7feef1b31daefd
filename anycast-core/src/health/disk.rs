//! The check `disk`: free space and inodes.
//!
//! The file system that holds a path: enough bytes and inodes free, and not read-only (a
//! kernel remounts many file systems so after an I/O error). Free is what an ordinary process
//! may use, as `df` shows it; root's reserve does not count. Percentages are of that plus what
//! is used, again as `df` has it. A file system without a fixed number of inodes (btrfs) never
//! runs out of them.
//!
//! | what was found | verdict |
//! |---|---|
//! | as much as asked for | `Healthy` |
//! | less, or read-only | `Unhealthy` |
//! | `statvfs` fails (no such path, no permission), or has not returned in time (NFS) | `Unknown` |
//!
//! **Proof.** What the file system says of itself at that moment, to this daemon: quotas of
//! other users are not seen, and a path on a disk that is not mounted tells of the file system
//! below. The disk is not written to.

#[cfg(feature = "config")]
mod table;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use rustix::fs::{StatVfs, StatVfsMountFlags, statvfs};
use tokio::time::Instant;

#[cfg(feature = "config")]
pub use super::local::size::Size;
#[cfg(feature = "config")]
pub use table::DiskTable;

use super::local::blocking::Blocking;
use super::{HealthCheck, Verdict};

/// The check `disk`. See the [module](self).
#[derive(Debug)]
pub struct DiskCheck {
    path: PathBuf,
    limits: Limits,
    looking: Blocking,
}

#[derive(Debug, Clone, Copy, Default)]
struct Limits {
    bytes: u64,
    percent: u8,
    inodes: u64,
    inodes_percent: u8,
    read_only: bool,
}

impl Clone for DiskCheck {
    fn clone(&self) -> Self {
        Self {
            path: self.path.clone(),
            limits: self.limits,
            looking: Blocking::new(),
        }
    }
}

impl DiskCheck {
    /// A check that the file system of `path` is not read-only.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            limits: Limits::default(),
            looking: Blocking::new(),
        }
    }

    /// So many bytes must be free.
    #[must_use]
    pub const fn with_min_free(mut self, bytes: u64) -> Self {
        self.limits.bytes = bytes;
        self
    }

    /// So many percent of the space must be free.
    #[must_use]
    pub const fn with_min_free_percent(mut self, percent: u8) -> Self {
        self.limits.percent = percent;
        self
    }

    /// So many inodes must be free.
    #[must_use]
    pub const fn with_min_free_inodes(mut self, inodes: u64) -> Self {
        self.limits.inodes = inodes;
        self
    }

    /// So many percent of the inodes must be free.
    #[must_use]
    pub const fn with_min_free_inodes_percent(mut self, percent: u8) -> Self {
        self.limits.inodes_percent = percent;
        self
    }

    /// Read-only is right, too.
    #[must_use]
    pub const fn with_read_only_allowed(mut self) -> Self {
        self.limits.read_only = true;
        self
    }
}

#[async_trait]
impl HealthCheck for DiskCheck {
    async fn check(&mut self, timeout: Duration) -> Verdict {
        let deadline = Instant::now() + timeout;
        let looked = self.path.clone();
        let answer = self.looking.run(deadline, move || statvfs(&looked)).await;
        let path = self.path.display();
        match answer {
            Ok(Ok(state)) => match problem(&state, self.limits) {
                Some(problem) => Verdict::unhealthy(format!("{path}: {problem}")),
                None => Verdict::Healthy,
            },
            Ok(Err(errno)) => Verdict::unknown(format!(
                "{path}: its file system cannot be looked at: {}",
                std::io::Error::from(errno)
            )),
            Err(stuck) => Verdict::unknown(format!("{path}: statvfs {}", stuck.describe())),
        }
    }
}

/// What is wrong, the worst first.
fn problem(state: &StatVfs, limits: Limits) -> Option<String> {
    if state.f_flag.contains(StatVfsMountFlags::RDONLY) && !limits.read_only {
        return Some("the file system is read-only".to_owned());
    }
    let free = state.f_bavail.saturating_mul(state.f_frsize);
    let used = state.f_blocks.saturating_sub(state.f_bfree);
    let percent = percent(state.f_bavail, used);
    if free < limits.bytes {
        return Some(format!("{free} bytes free, less than {}", limits.bytes));
    }
    if percent < limits.percent {
        let least = limits.percent;
        return Some(format!(
            "{percent} % of the space free, less than {least} %"
        ));
    }
    if state.f_files == 0 {
        return None;
    }
    let used = state.f_files.saturating_sub(state.f_ffree);
    let (free, percent) = (state.f_favail, self::percent(state.f_favail, used));
    if free < limits.inodes {
        return Some(format!("{free} inodes free, less than {}", limits.inodes));
    }
    if percent < limits.inodes_percent {
        let least = limits.inodes_percent;
        return Some(format!(
            "{percent} % of the inodes free, less than {least} %"
        ));
    }
    None
}

/// The free share, rounded down; of nothing, all is free.
fn percent(free: u64, used: u64) -> u8 {
    let (free, all) = (u128::from(free), u128::from(free) + u128::from(used));
    let percent = (free * 100).checked_div(all).unwrap_or(100);
    u8::try_from(percent).unwrap_or(100)
}
