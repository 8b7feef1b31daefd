//! The unit files that are shipped, read by systemd's own tool, and what they leave to the
//! checks.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anycast_labs::require;

const UNITS: [&str; 2] = ["guard/anycast-guard.service", "tftpd/anycast-tftpd.service"];

fn examples() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn systemd_analyze() -> PathBuf {
    require("systemd-analyze", &[], "systemd").unwrap()
}

/// Verified with programs that are there in the place of those that are to be installed.
#[test]
fn systemd_takes_the_units_as_they_are() {
    for unit in UNITS {
        let text = fs::read_to_string(examples().join(unit)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (_, name) = unit.split_once('/').unwrap();
        let path = folder.path().join(name);
        let program = format!("/usr/bin/{}", name.strip_suffix(".service").unwrap());
        assert!(text.contains(&program), "{unit}");
        let verify = |text: &str| {
            fs::write(
                &path,
                text.replace(&program, env!("CARGO_BIN_EXE_anycast-guard")),
            )
            .unwrap();
            let mut command = Command::new(systemd_analyze());
            command.args(["verify", "--man=no"]).arg(&path);
            let output = command.output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            // What the machine's own units are warned of is not ours.
            let ours = |line: &&str| line.contains(name);
            let ours: Vec<_> = said.lines().filter(ours).map(str::to_owned).collect();
            (output.status.success(), ours)
        };
        assert_eq!(verify(&text), (true, Vec::new()), "{unit}");
        let typo = text.replacen("RestartSec=", "RestartSecs=", 1);
        let (_, said) = verify(&typo);
        assert_eq!(said.len(), 1, "a fault would be told: {said:?}");
    }
}

/// Every system call that a check or the announcer lives by is let through, and one that is
/// not ends no process.
#[test]
fn the_sandbox_leaves_what_the_checks_need() {
    let output = Command::new(systemd_analyze())
        .arg("syscall-filter")
        .output()
        .unwrap();
    let sets = String::from_utf8(output.stdout).unwrap();
    for unit in UNITS {
        let text = fs::read_to_string(examples().join(unit)).unwrap();
        let value = |key: &str| {
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix(&format!("{key}=")));
            line.unwrap_or_default()
                .split(' ')
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let filter = value("SystemCallFilter");
        for call in [
            "adjtimex",
            "capset",
            "chown",
            "openat2",
            "pidfd_open",
            "prctl",
            "recvmmsg",
            "sendmmsg",
            "setpgid",
            "setuid",
            "setgroups",
            "kill",
            "statfs",
            "statx",
            "waitid",
        ] {
            let allowed = filter
                .iter()
                .any(|entry| entry == call || holds(&sets, entry, call));
            assert!(allowed, "{unit}: {call}");
        }
        assert_eq!(value("SystemCallErrorNumber"), ["EPERM"], "{unit}");
        let families = value("RestrictAddressFamilies");
        for family in ["AF_INET", "AF_INET6", "AF_NETLINK", "AF_UNIX"] {
            assert!(
                families.iter().any(|each| each == family),
                "{unit}: {family}"
            );
        }
        assert_eq!(
            value("AmbientCapabilities"),
            value("CapabilityBoundingSet"),
            "{unit}"
        );
        assert!(
            value("AmbientCapabilities").contains(&"CAP_NET_ADMIN".to_owned()),
            "{unit}"
        );
        let name = unit
            .split_once('/')
            .unwrap()
            .1
            .strip_suffix(".service")
            .unwrap();
        assert_eq!(
            value("RuntimeDirectory"),
            [name],
            "the admin socket's folder"
        );
        // It would forbid to read the clock.
        assert!(!text.contains("ProtectClock=true"), "{unit}");
    }
}

/// Whether a set of systemd's has this call, or a set within it.
fn holds(sets: &str, set: &str, call: &str) -> bool {
    let mut lines = sets.lines().skip_while(|line| *line != set).skip(1);
    let entries = lines.by_ref().take_while(|line| line.starts_with(' '));
    entries
        .map(str::trim)
        .any(|entry| entry == call || (entry.starts_with('@') && holds(sets, entry, call)))
}
