//! The one system call of this check; no crate offers it without `unsafe`.

#![allow(unsafe_code, reason = "adjtimex has no safe wrapper in rustix or nix")]

use std::io;
use std::time::Duration;

/// What the kernel knows of its clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Clock {
    pub(super) max_error: Duration,
    pub(super) estimated_error: Duration,
    pub(super) unsync: bool,
}

/// Reads the state of the clock (adjtimex(2) with `modes` 0, which changes nothing).
pub(super) fn read() -> io::Result<Clock> {
    // SAFETY: `timex` is a C structure of integers; zero is a valid value of each.
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel reads and writes this one structure, which outlives the call.
    let state = unsafe { libc::adjtimex(&raw mut timex) };
    if state == -1 {
        return Err(io::Error::last_os_error());
    }
    #[allow(clippy::useless_conversion, reason = "c_long is i32 on some targets")]
    let microseconds =
        |value: libc::c_long| Duration::from_micros(u64::try_from(value).unwrap_or(u64::MAX));
    Ok(Clock {
        max_error: microseconds(timex.maxerror),
        estimated_error: microseconds(timex.esterror),
        unsync: timex.status & libc::STA_UNSYNC != 0,
    })
}
