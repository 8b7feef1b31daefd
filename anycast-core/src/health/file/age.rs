//! How old a file is, in spite of a wall clock that jumps. Pure: the clocks are arguments.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A ctime so close to the mtime shows that the file was written, not that its mtime was set.
const WRITTEN: Duration = Duration::from_secs(1);

/// Both clocks at one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    pub(super) wall: SystemTime,
    pub(super) monotonic: Instant,
}

/// When the content (mtime) and the inode (ctime) last changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Times {
    pub(super) modified: SystemTime,
    pub(super) changed: SystemTime,
}

/// The least and the most that its age may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Age {
    pub(super) least: Duration,
    pub(super) most: Duration,
}

/// What is remembered of a file.
#[derive(Debug, Default)]
pub(super) struct Ages(Option<Seen>);

#[derive(Debug, Clone, Copy)]
struct Seen {
    times: Times,
    /// When these times were first seen, and how old the file was then.
    first: Instant,
    age_then: Duration,
    last: Instant,
}

impl Ages {
    /// The file is gone: what comes next is another one.
    pub(super) const fn forget(&mut self) {
        self.0 = None;
    }

    /// The age of a file seen now.
    pub(super) fn observe(&mut self, times: Times, now: Now) -> Age {
        let wall = now
            .wall
            .duration_since(times.modified)
            .unwrap_or(Duration::ZERO);
        let seen = match self.0 {
            Some(seen) if seen.times.modified == times.modified => Seen {
                times,
                last: now.monotonic,
                ..seen
            },
            before => Seen {
                times,
                first: now.monotonic,
                age_then: match before {
                    Some(before) if was_written(times) => {
                        wall.min(now.monotonic.saturating_duration_since(before.last))
                    }
                    Some(_) | None => wall,
                },
                last: now.monotonic,
            },
        };
        self.0 = Some(seen);
        let aged = seen
            .age_then
            .saturating_add(now.monotonic.saturating_duration_since(seen.first));
        Age {
            least: wall.min(aged),
            most: wall.max(aged),
        }
    }
}

/// Whether its mtime is that of a write, and was not carried over from another file.
fn was_written(times: Times) -> bool {
    match times.changed.duration_since(times.modified) {
        Ok(later) => later < WRITTEN,
        Err(earlier) => earlier.duration() < WRITTEN,
    }
}

/// A time of a file as the kernel gives it.
pub(super) fn at(seconds: i64, nanoseconds: i64) -> SystemTime {
    let nanoseconds = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(0));
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let time = if seconds < 0 {
        UNIX_EPOCH.checked_sub(whole)
    } else {
        UNIX_EPOCH.checked_add(whole)
    };
    time.and_then(|time| time.checked_add(nanoseconds))
        .unwrap_or(UNIX_EPOCH)
}
