//! What file sync costs and how fast it is, beside rsync: on the same machine, in one run, with
//! the same files.
//!
//! The nodes are namespaces around a router. The first one holds the files and has half of the
//! CPUs, the others share the other half. All of them write to the one disk below `target/`: what
//! arrives is synced to it by both. Files hold random bytes, which nothing compresses, and are in
//! the page cache when the time begins, of both alike.

pub(super) mod bed;
mod files;
pub(super) mod ours;
mod rsync;
mod scenarios;
mod table;
pub(super) mod tftp;

use std::path::PathBuf;

use anycast_labs::require;

use super::subject::failed;
use crate::run::Failure;
use scenarios::{Measured, Sizes};

/// Set for the worker: where it keeps the files, on a disk.
pub(super) const FOLDER: &str = "BENCH_FOLDER";
/// Set for the worker: the folder with `anycast-tftpd` and `anycastctl`. Set by the user: they are
/// not built anew.
pub(super) const PROGRAMS: &str = "BENCH_PROGRAMS";
/// Set for the worker by `--quick`: little of everything, to try the bench itself.
pub(super) const QUICK: &str = "BENCH_QUICK";
/// Set by the user: measures these of [`Subject::KEYS`], with commas between, alone.
pub(super) const ONLY: &str = "BENCH_SYNC";

/// Set by the user: measures these of [`PARTS`], with commas between, alone.
const PART: &str = "BENCH_SYNC_PART";
const PARTS: [&str; 4] = ["copies", "changes", "fresh", "unchanged"];

/// What keeps files the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subject {
    /// `rsync --daemon` at the first node, `rsync --fsync` at the others.
    Daemon,
    /// The same over ssh.
    Ssh,
    /// `anycast-tftpd`.
    Ours,
}

impl Subject {
    /// Ours is the last: it keeps a folder of its own beside the files.
    const ALL: [Self; 3] = [Self::Daemon, Self::Ssh, Self::Ours];
    /// What [`ONLY`] may say.
    const KEYS: [(&str, Self); 3] = [
        ("rsync", Self::Daemon),
        ("ssh", Self::Ssh),
        ("ours", Self::Ours),
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Daemon => "rsync, daemon",
            Self::Ssh => "rsync over ssh",
            Self::Ours => "anycast-tftpd",
        }
    }

    /// Those to be measured.
    fn wanted() -> Result<Vec<Self>, Failure> {
        let Ok(only) = std::env::var(ONLY) else {
            return Ok(Self::ALL.to_vec());
        };
        let known = |only: &str| Self::KEYS.iter().find(|(key, _)| *key == only);
        let keys = Self::KEYS.map(|(key, _)| key).join(", ");
        let wanted = only.split(',').map(|only| {
            let unknown = || failed(ONLY, format!("{only:?} is none of {keys}"));
            known(only).map(|(_, subject)| *subject).ok_or_else(unknown)
        });
        wanted.collect()
    }

    /// What it cannot be measured without.
    fn missing(self) -> Option<String> {
        if self == Self::Ours {
            return ours::missing();
        }
        let needed: &[(&str, &str)] = match self {
            Self::Daemon => &[("rsync", "rsync")],
            Self::Ssh => &[
                ("rsync", "rsync"),
                ("ssh", "openssh-client"),
                ("sshd", "openssh-server"),
            ],
            Self::Ours => &[],
        };
        let absent = |(program, package): &(&str, &str)| require(program, &[], package).err();
        needed.iter().find_map(absent).map(|e| e.to_string())
    }
}

pub(super) fn run() -> Result<String, Failure> {
    let folder = PathBuf::from(variable(FOLDER)?);
    let sizes = Sizes::new(std::env::var_os(QUICK).is_some());
    let parts = std::env::var(PART).unwrap_or_else(|_| PARTS.join(","));
    let parts: Vec<_> = parts.split(',').collect();
    if let Some(part) = parts.iter().find(|part| !PARTS.contains(part)) {
        let known = PARTS.join(", ");
        return Err(failed(PART, format!("{part:?} is none of {known}")));
    }
    let wanted = |name: &str| parts.contains(&name);
    let mut all = Measured::default();
    for subject in Subject::wanted()? {
        match subject.missing() {
            Some(why) => all.miss(subject.name(), &why),
            None => scenarios::measure(subject, &folder, &sizes, &wanted, &mut all),
        }
    }
    Ok(table::all(&sizes, &rsync::version(), &all))
}

/// Whether what the project builds is measured at all.
pub(super) fn is_ours_wanted() -> bool {
    Subject::wanted().is_ok_and(|wanted| wanted.contains(&Subject::Ours))
}

fn variable(name: &str) -> Result<String, Failure> {
    std::env::var(name).map_err(|e| failed(name, e))
}
