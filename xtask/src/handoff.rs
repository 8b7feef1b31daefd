//! `cargo xtask handoff`: every scenario of a moving route with every client, without handoff and
//! with it, and what it came to in `docs/handoff.md`.

use std::fs::OpenOptions;
use std::path::Path;

use anycast_labs::require;

use crate::run::{Failure, Runner};
use crate::test::{selecting, tests, tests_with};
use crate::{namespaces, packages};

/// The labs that write the table. `cargo xtask test` leaves them out: they take half an hour.
pub(crate) const TABLE: &str = "handoff_table";
/// The lab of an upgrade, left out as well: it builds a node of the version of the wire before.
pub(crate) const UPGRADE: &str = "handoff_upgrade";
/// The firmware that Debian's package brings.
const FIRMWARE: &str = "/usr/lib/u-boot/qemu_arm/u-boot.bin";
/// What the labs have in common in their names; each group ends within the limit of a command.
const GROUPS: [(&str, &[&str]); 3] = [
    (
        "labs with BIRD",
        &["bird_before", "bird_after", "bird_guarded"],
    ),
    ("labs with FRR", &["frr_before", "frr_after", "frr_guarded"]),
    ("200 clients, and a firewall", &["crowd", "firewall"]),
];

pub(crate) fn run(mut runner: Runner) -> Result<(), Failure> {
    let runner = &mut runner;
    runner.phase("packages", |runner| {
        uboot()?;
        packages::ensure(runner)
    })?;
    runner.phase("namespaces", |_| namespaces::check())?;
    for (name, labs) in GROUPS {
        runner.phase(name, |runner| table(runner, labs))?;
    }
    runner.phase("an upgrade", |runner| {
        tests(runner, &selecting(&[UPGRADE])).map(drop)
    })?;
    runner.phase("document", |runner| table(runner, &["the_document"]))?;
    runner.summary("cargo xtask handoff");
    Ok(())
}

fn table(runner: &mut Runner, labs: &[&str]) -> Result<(), Failure> {
    let arguments = [&selecting(&[TABLE])[..], &["--"], labs].concat();
    let write = [("ANYCAST_HANDOFF", "write")];
    tests_with(runner, &arguments, &write).map(drop)
}

/// One of the clients. It is not among the packages that the tests install: it brings an emulator.
fn uboot() -> Result<(), Failure> {
    let machine = require("qemu-system-arm", &[], "qemu-system-arm");
    if machine.is_err() || !Path::new(FIRMWARE).is_file() {
        return Err(Failure::new(
            "U-Boot, one of the clients, is not installed: apt-get install \
             --no-install-recommends qemu-system-arm u-boot-qemu",
        ));
    }
    let tap = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun");
    tap.map(drop).map_err(|error| {
        Failure::new(format!(
            "the machine with U-Boot needs /dev/net/tun ({error}): run this as root, and load the \
             kernel module tun"
        ))
    })
}
