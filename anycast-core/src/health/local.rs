//! What the checks of this host share: bounded blocking calls, commands, pidfds, accounts.

pub(super) mod blocking;
#[cfg(any(feature = "check-exec", feature = "check-process"))]
pub(super) mod command;
#[cfg(any(feature = "check-exec", feature = "check-process"))]
pub(super) mod pidfd;
#[cfg(all(
    feature = "config",
    any(feature = "check-file", feature = "check-disk")
))]
pub(super) mod size;
#[cfg(any(feature = "check-exec", feature = "check-process"))]
pub(super) mod user;

/// An error in words that an operator can act upon.
#[cfg(any(feature = "check-exec", feature = "check-process"))]
pub(super) fn explain(error: &std::io::Error) -> String {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    match error.raw_os_error() {
        Some(EMFILE) => format!("{error}; raise LimitNOFILE= of this daemon's unit"),
        Some(ENFILE) => format!("{error}; raise the sysctl fs.file-max"),
        _ => error.to_string(),
    }
}
