//! Whether namespaces can be made here, and what to do when not.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use thiserror::Error;

/// Why nothing was run inside namespaces, or how it ended.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum IsolateError {
    /// `setpriv` or `unshare` could not be started.
    #[error("cannot start setpriv and unshare ({0}): apt install util-linux")]
    Tools(#[source] io::Error),
    /// The kernel, its settings or a container refuse the namespaces.
    #[error("namespaces are not permitted here ({stderr}): {remedy}")]
    NotPermitted {
        /// What `unshare` said.
        stderr: String,
        /// What to enable.
        remedy: String,
    },
    /// The path of this executable is not known.
    #[error("cannot find the path of this executable: {0}")]
    Executable(#[source] io::Error),
    /// This executable lies in a folder that is empty inside.
    #[error("{} is under {folder}, which a lab replaces: build it elsewhere", executable.display())]
    Hidden {
        /// The executable.
        executable: PathBuf,
        /// The folder.
        folder: &'static str,
    },
    /// What the inside needs could not be prepared.
    #[error("{0}")]
    Prerequisite(String),
    /// A pipe or the process could not be made.
    #[error("cannot start inside namespaces: {0}")]
    Start(#[source] io::Error),
    /// Waiting failed.
    #[error("cannot wait for the inside of the namespaces: {0}")]
    Wait(#[source] io::Error),
    /// It ran too long and was killed.
    #[error("not done inside the namespaces after {after:?}: killed")]
    TimedOut {
        /// The bound.
        after: Duration,
    },
    /// The test failed.
    #[error("{name} failed inside its namespaces ({status}); its output is above")]
    Failed {
        /// The test.
        name: String,
        /// How the process ended.
        status: ExitStatus,
    },
    /// The test executable has no test of this name: `isolated` was not called
    /// from the test function itself.
    #[error("{name} did not run inside its namespaces: no such test in this executable")]
    NotRun {
        /// The name looked for.
        name: String,
    },
    /// The environment variable is set, but this is no isolation.
    #[error("the environment variable {variable} is set outside: unset it")]
    Stray {
        /// Its name.
        variable: &'static str,
    },
    /// The inside could not be prepared.
    #[error("cannot prepare the inside of the namespaces: {step}: {source}")]
    Prepare {
        /// What was tried.
        step: &'static str,
        /// What the kernel answered.
        source: io::Error,
    },
}

/// Whether a user namespace is needed (`true`) or not (`false`).
pub(super) fn probe() -> Result<bool, IsolateError> {
    if nix::unistd::geteuid().is_root() && attempt(false)?.is_ok() {
        return Ok(false);
    }
    match attempt(true)? {
        Ok(()) => Ok(true),
        Err(stderr) => Err(IsolateError::NotPermitted {
            stderr,
            remedy: remedy(),
        }),
    }
}

/// Make the namespaces for `true`; the inner error is what was said.
fn attempt(user: bool) -> Result<Result<(), String>, IsolateError> {
    let mut command = super::unshare(user);
    let output = super::silent(command.arg("true"))
        .output()
        .map_err(IsolateError::Tools)?;
    if output.status.success() {
        return Ok(Ok(()));
    }
    let stderr = String::from_utf8_lossy(&output.stderr)
        .trim()
        .replace('\n', "; ");
    // Said by setpriv when it finds no unshare.
    if output.status.code() == Some(127) {
        return Err(IsolateError::Tools(io::Error::other(stderr)));
    }
    Ok(Err(stderr))
}

/// The settings that forbid user namespaces, with the value that does.
const SETTINGS: [(&str, &str, &str); 3] = [
    ("kernel.unprivileged_userns_clone", "0", "1"),
    ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
    ("user.max_user_namespaces", "0", "15000"),
];

fn remedy() -> String {
    let read = |name: &str| {
        fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/")))
            .ok()
            .map(|value| value.trim().to_owned())
    };
    remedy_for(read)
}

fn remedy_for(read: impl Fn(&str) -> Option<String>) -> String {
    let commands: Vec<String> = SETTINGS
        .iter()
        .filter(|(name, forbids, _)| read(name).as_deref() == Some(*forbids))
        .map(|(name, _, allows)| format!("sysctl -w {name}={allows}"))
        .collect();
    if commands.is_empty() {
        "run as root; in a container, allow user namespaces and an unmasked /proc \
         (docker run --privileged, podman run --security-opt unmask=ALL)"
            .to_owned()
    } else {
        format!("as root: {}", commands.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_remedy_names_exactly_the_settings_that_forbid() {
        let remedy = remedy_for(|name| {
            Some(
                if name == "user.max_user_namespaces" {
                    "96365"
                } else {
                    "1"
                }
                .to_owned(),
            )
        });
        assert_eq!(
            remedy,
            "as root: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
        );
    }

    #[test]
    fn without_such_a_setting_the_remedy_speaks_of_root_and_containers() {
        assert!(remedy_for(|_| None).contains("container"));
    }
}
