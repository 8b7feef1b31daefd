//! The check `file`: age and presence.
//!
//! A file, a folder or anything else with a path: present (default) or absent (a maintenance
//! flag), not older or younger than a bound, of at least some size. Links are followed; one
//! that leads nowhere is absent.
//!
//! | what was found | verdict |
//! |---|---|
//! | present and within its bounds, or absent where it must be | `Healthy` |
//! | absent, too old, too young or too small; present where it must be absent | `Unhealthy` |
//! | any other error (no permission, I/O error, stale NFS handle) | `Unknown` |
//! | the file system has not answered in time (a dead NFS server) | `Unknown` |
//!
//! **Proof.** None about the service itself: only what writes or removes the file knows. Use it
//! for what *feeds* the service (a zone file that a transfer renews) and for the operator's
//! flag. A path below a mount point that is not mounted is absent.
//!
//! # Age and the clock
//!
//! The age is the time since the content was last modified (mtime), by the wall clock; an mtime
//! in the future is age 0. So that a wall clock that is set forth or back does not by itself
//! fail the check, the same mtime is also aged by the monotonic clock from when this check
//! first saw it, and a file that was written between two probes cannot be older than the time
//! between them. The file is too old only if all of these say so, and too young only if all
//! say so. At the first look there is the wall clock alone.

#![allow(
    clippy::disallowed_methods,
    reason = "this module is part of the runtime: it compares times of files with the clock"
)]

mod age;
#[cfg(feature = "config")]
mod table;
#[cfg(test)]
mod tests;

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use tokio::time::Instant;

#[cfg(feature = "config")]
pub use super::local::size::Size;
#[cfg(feature = "config")]
pub use table::FileTable;

use super::local::blocking::Blocking;
use super::{HealthCheck, Verdict};
use age::{Ages, Now, Times};

/// The check `file`. See the [module](self). A clone starts with no memory of the file.
#[derive(Debug)]
pub struct FileCheck {
    path: PathBuf,
    expect: Expect,
    ages: Ages,
    looking: Blocking,
}

#[derive(Debug, Clone, Copy)]
enum Expect {
    Absent,
    Present {
        max_age: Option<Duration>,
        min_age: Option<Duration>,
        min_size: u64,
    },
}

impl Clone for FileCheck {
    fn clone(&self) -> Self {
        Self {
            path: self.path.clone(),
            expect: self.expect,
            ages: Ages::default(),
            looking: Blocking::new(),
        }
    }
}

impl FileCheck {
    /// A check that the path exists.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            expect: Expect::Present {
                max_age: None,
                min_age: None,
                min_size: 0,
            },
            ages: Ages::default(),
            looking: Blocking::new(),
        }
    }

    /// A check that the path does not exist: an operator's flag, for instance.
    #[must_use]
    pub fn absent(path: impl Into<PathBuf>) -> Self {
        Self {
            expect: Expect::Absent,
            ..Self::new(path)
        }
    }

    /// It must have been modified within this time. No effect on one that must be absent.
    #[must_use]
    pub const fn with_max_age(mut self, age: Duration) -> Self {
        if let Expect::Present { max_age, .. } = &mut self.expect {
            *max_age = Some(age);
        }
        self
    }

    /// It must not have been modified within this time. No effect on one that must be absent.
    #[must_use]
    pub const fn with_min_age(mut self, age: Duration) -> Self {
        if let Expect::Present { min_age, .. } = &mut self.expect {
            *min_age = Some(age);
        }
        self
    }

    /// It must hold at least so many bytes; 1 means: not empty. No effect on one that must be
    /// absent.
    #[must_use]
    pub const fn with_min_size(mut self, bytes: u64) -> Self {
        if let Expect::Present { min_size, .. } = &mut self.expect {
            *min_size = bytes;
        }
        self
    }

    fn judge(&mut self, found: io::Result<Found>, now: Now) -> Verdict {
        let path = self.path.display();
        match (found, self.expect) {
            (Err(error), _) if !is_absence(&error) => Verdict::unknown(format!("{path}: {error}")),
            (Err(_), Expect::Absent) => Verdict::Healthy,
            (Ok(_), Expect::Absent) => Verdict::unhealthy(format!("{path} exists")),
            (Err(_), Expect::Present { .. }) => {
                self.ages.forget();
                Verdict::unhealthy(format!("{path} does not exist"))
            }
            (
                Ok(found),
                Expect::Present {
                    max_age,
                    min_age,
                    min_size,
                },
            ) => {
                let age = self.ages.observe(found.times, now);
                let problem = if found.size < min_size {
                    format!("holds {} bytes, less than {min_size}", found.size)
                } else if max_age.is_some_and(|max| age.least > max) {
                    format!("was last modified {} ago", seconds(age.least))
                } else if min_age.is_some_and(|min| age.most < min) {
                    format!("was modified {} ago", seconds(age.most))
                } else {
                    return Verdict::Healthy;
                };
                Verdict::unhealthy(format!("{path} {problem}"))
            }
        }
    }
}

fn seconds(age: Duration) -> String {
    format!("{} s", age.as_secs())
}

/// `ENOENT` and `ENOTDIR`: certainly not there.
fn is_absence(error: &io::Error) -> bool {
    use io::ErrorKind;
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

#[derive(Debug, Clone, Copy)]
struct Found {
    size: u64,
    times: Times,
}

/// One system call (`statx`); needs no descriptor.
fn look(path: &Path) -> io::Result<Found> {
    let metadata = std::fs::metadata(path)?;
    Ok(Found {
        size: metadata.len(),
        times: Times {
            modified: age::at(metadata.mtime(), metadata.mtime_nsec()),
            changed: age::at(metadata.ctime(), metadata.ctime_nsec()),
        },
    })
}

#[async_trait]
impl HealthCheck for FileCheck {
    async fn check(&mut self, timeout: Duration) -> Verdict {
        let path = self.path.clone();
        let deadline = Instant::now() + timeout;
        match self.looking.run(deadline, move || look(&path)).await {
            Ok(found) => {
                let now = Now {
                    wall: SystemTime::now(),
                    monotonic: std::time::Instant::now(),
                };
                self.judge(found, now)
            }
            Err(stuck) => Verdict::unknown(format!(
                "{}: looking at it {}",
                self.path.display(),
                stuck.describe()
            )),
        }
    }
}
