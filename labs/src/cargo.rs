//! Cargo, called from a program that cargo started.

use std::ffi::OsStr;
use std::process::Command;

/// This cargo without what another one set for the crate that is running: build scripts that
/// watch these variables would run anew, and all that stands on them be compiled anew, with each
/// change of the caller.
#[must_use]
pub fn cargo(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CARGO_PKG_")
            || name == "CARGO_MANIFEST_DIR"
            || name == "CARGO_MANIFEST_PATH"
        {
            command.env_remove(name);
        }
    }
    command
}
