//! The programs that the labs and the interop tests need: real routing daemons, real clients.
//!
//! They are installed through apt as root; others are told the one command to run. While
//! packages are being configured a temporary `policy-rc.d` keeps their daemons from starting
//! on this machine, and the units that come with a newly installed daemon are disabled, so
//! that it does not start with the next boot either: the tests start what they need, where
//! they need it. Nothing is ever removed (`--no-remove`): a package that conflicts with what
//! machines have, such as chrony with the `systemd-timesyncd` of nearly all, is not installed
//! but unpacked below `target/tools`, where the labs find its program. What Debian does not have
//! comes from Python's package index into a virtual environment below `target/tools-python`.

use std::os::unix::fs::MetadataExt;
use std::process::Command;

use anycast_labs::require;

use crate::run::{Failure, Runner};

/// A program and the packages that bring it: any one of them will do, the first is installed.
struct Tool {
    program: &'static str,
    packages: &'static [&'static str],
}

const fn tool(program: &'static str, packages: &'static [&'static str]) -> Tool {
    Tool { program, packages }
}

/// Debian's and Ubuntu's names are the same for all of these.
const TOOLS: &[Tool] = &[
    tool("bird", &["bird2"]),
    tool("bgpd", &["frr"]),
    tool("atftp", &["atftp"]),
    tool("atftpd", &["atftpd"]),
    tool("tftp", &["tftp-hpa"]),
    tool("busybox", &["busybox", "busybox-static"]),
    tool("unbound", &["unbound"]),
    tool("knotd", &["knot"]),
    tool("nginx", &["nginx"]),
    tool("dnsmasq", &["dnsmasq-base", "dnsmasq"]),
    tool("curl", &["curl"]),
    tool("promtool", &["prometheus"]),
    tool("systemd-analyze", &["systemd"]),
    tool("ip", &["iproute2"]),
    tool("nft", &["nftables"]),
    tool("ping", &["iputils-ping"]),
    tool("unshare", &["util-linux"]),
    tool("python3", &["python3-venv"]),
];

/// What is unpacked where it is not installed.
const UNPACKED: &[Tool] = &[tool("chronyd", &["chrony"])];

/// An S3 server that stores in memory: `moto_server`. Of its extra `server` it needs these alone.
const PYTHON: &[&str] = &["moto[s3]==5.2.5", "flask==3.1.3", "flask-cors==6.0.5"];

/// Makes a virtual environment in the folder `$1` that has `$2…`; `installed` in it is written
/// last and says what it has.
const VENV: &str = r#"
set -eu
folder=$1
shift
python3 -m venv --clear "$folder"
"$folder/bin/pip" install --quiet --disable-pip-version-check --retries 3 "$@"
printf '%s\n' "$*" >"$folder/installed"
"#;

/// Downloads and unpacks `$2…` into the folder `$1`. Needs no root.
const UNPACK: &str = r#"
set -eu
folder=$1
shift
rm -rf "$folder.part"
mkdir -p "$folder.part"
cd "$folder.part"
apt-get --quiet --quiet -o APT::Sandbox::User=root -o Acquire::Retries=3 download "$@"
for package in *.deb; do dpkg-deb --extract "$package" .; done
rm -f -- *.deb
rm -rf "$folder"
mv "$folder.part" "$folder"
"#;

/// Where Debian keeps FRR's daemons.
const DAEMONS: &str = "/usr/lib/frr";

/// Installs as root. `$@` are the packages. The trap removes `policy-rc.d` on every way out,
/// signals included; one that was left by a killed run is known by its second line.
const INSTALL: &str = r#"
set -eu
policy=/usr/sbin/policy-rc.d
mark='# temporary, written by cargo xtask test: no daemon starts while packages are installed'
ours() { [ -f "$policy" ] && [ "$(sed -n 2p "$policy")" = "$mark" ]; }
trap 'if ours; then rm -f "$policy"; fi' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
if ours; then rm -f "$policy"; fi
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\n%s\nexit 101\n' "$mark" >"$policy"
  chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
apt-get --quiet --quiet -o Acquire::Retries=3 update
apt-get --quiet --yes --no-install-recommends --no-remove \
  -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 install "$@"
if command -v systemctl >/dev/null; then
  for package in "$@"; do
    case "$package" in
      bird2) units='bird.service' ;;
      frr) units='frr.service' ;;
      atftpd) units='atftpd.socket atftpd.service' ;;
      unbound) units='unbound.service' ;;
      knot) units='knot.service' ;;
      prometheus) units='prometheus.service' ;;
      nginx) units='nginx.service' ;;
      *) continue ;;
    esac
    for unit in $units; do systemctl --quiet disable "$unit" || :; done
  done
fi
"#;

/// Whether this process may install packages.
fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// Installs what is missing, or says what to install.
pub(crate) fn ensure(runner: &mut Runner) -> Result<(), Failure> {
    if require("dpkg-query", &[], "dpkg").is_err() {
        without_dpkg()?;
        return python(runner);
    }
    let missing = missing(runner)?;
    if missing.is_empty() {
        println!("    all installed: {}", all_packages().join(" "));
    } else if is_root() {
        println!("    missing: {}", missing.join(" "));
        let mut install = Command::new("sh");
        install.args(["-c", INSTALL, "install"]).args(&missing);
        runner.run(install).map_err(|failure| match failure {
            Failure::Phase(text) => Failure::new(format!(
                "{text}; see what apt said above, or install by hand: apt-get install {}",
                missing.join(" ")
            )),
            other @ (Failure::Usage(_) | Failure::Interrupted(_)) => other,
        })?;
        let still = self::missing(runner)?;
        if !still.is_empty() {
            return Err(Failure::new(format!(
                "apt succeeded, yet dpkg does not have: {}",
                still.join(" ")
            )));
        }
    } else {
        println!("sudo apt-get install {}", missing.join(" "));
        return Err(Failure::new(
            "packages are missing and only root may install them; run the line above, then \
             this command again",
        ));
    }
    unpack(runner)?;
    for tool in TOOLS.iter().chain(UNPACKED) {
        require(tool.program, &[DAEMONS], tool.packages[0])
            .map_err(|error| Failure::new(error.to_string()))?;
    }
    python(runner)
}

/// Installs what is not in the virtual environment yet. Needs no root.
fn python(runner: &mut Runner) -> Result<(), Failure> {
    let wanted = PYTHON.join(" ");
    let Some(folder) = anycast_labs::process::python_tools() else {
        return Err(Failure::new(
            "this program is not in cargo's target folder, so there is no place for a virtual \
             environment of Python; run it by `cargo xtask test`",
        ));
    };
    let installed = std::fs::read_to_string(folder.join("installed"));
    if installed.is_ok_and(|installed| installed.trim_end() == wanted) {
        return Ok(());
    }
    println!("    in a virtual environment: {wanted}");
    let mut command = Command::new("sh");
    command.args(["-c", VENV, "venv"]).arg(&folder).args(PYTHON);
    runner.run(command).map_err(|failure| match failure {
        Failure::Phase(text) => Failure::new(format!(
            "{text}; see what python3 and pip said above: they need the package python3-venv and \
             a way to a package index (pip's own settings and PIP_INDEX_URL count)"
        )),
        other @ (Failure::Usage(_) | Failure::Interrupted(_)) => other,
    })
}

/// Fetches what is neither installed nor unpacked yet.
fn unpack(runner: &mut Runner) -> Result<(), Failure> {
    let absent = |tool: &&Tool| require(tool.program, &[], tool.packages[0]).is_err();
    let packages: Vec<_> = UNPACKED
        .iter()
        .filter(absent)
        .map(|tool| tool.packages[0])
        .collect();
    if packages.is_empty() {
        return Ok(());
    }
    let Some(folder) = anycast_labs::process::tools() else {
        return Err(Failure::new(format!(
            "this program is not in cargo's target folder, so there is no place to unpack to; \
             install by hand: apt-get install {}",
            packages.join(" ")
        )));
    };
    println!("    unpacked, not installed: {}", packages.join(" "));
    // Only root can renew the lists; another user has those of the last `apt-get update`.
    let update = "apt-get --quiet --quiet -o Acquire::Retries=3 update";
    if is_root() {
        let mut command = Command::new("sh");
        command.args(["-c", update]);
        runner.run(command)?;
    }
    let mut command = Command::new("sh");
    command
        .args(["-c", UNPACK, "unpack"])
        .arg(&folder)
        .args(&packages);
    runner.run(command).map_err(|failure| match failure {
        Failure::Phase(text) => Failure::new(format!(
            "{text}; run `sudo apt-get update` and this command again, or install by hand: \
                 sudo apt-get install {}",
            packages.join(" ")
        )),
        other @ (Failure::Usage(_) | Failure::Interrupted(_)) => other,
    })
}

/// Other distributions: the programs count, and the user knows the packages' names better.
fn without_dpkg() -> Result<(), Failure> {
    let absent: Vec<_> = TOOLS
        .iter()
        .chain(UNPACKED)
        .map(|tool| tool.program)
        .filter(|program| require(program, &[DAEMONS], program).is_err())
        .collect();
    if absent.is_empty() {
        return Ok(());
    }
    Err(Failure::new(format!(
        "this is neither Debian nor Ubuntu; install the packages that bring these programs: {}",
        absent.join(" ")
    )))
}

fn all_packages() -> Vec<&'static str> {
    TOOLS.iter().map(|tool| tool.packages[0]).collect()
}

/// The packages that dpkg does not have, by its own account.
fn missing(runner: &Runner) -> Result<Vec<&'static str>, Failure> {
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat", "${Package} ${db:Status-Abbrev}\n"]);
    query.args(TOOLS.iter().flat_map(|tool| tool.packages));
    // It fails when it knows one of the names not at all; what it prints counts.
    let (_, listing) = runner.output(query)?;
    Ok(missing_from(&listing))
}

/// Lines are `name status`; `ii` and `hi` (held) are installed, `rc` is not.
fn missing_from(listing: &str) -> Vec<&'static str> {
    let installed = |package: &&str| {
        listing.lines().any(|line| {
            line.split_once(' ').is_some_and(|(name, status)| {
                name == *package && status.as_bytes().get(1) == Some(&b'i')
            })
        })
    };
    TOOLS
        .iter()
        .filter(|tool| !tool.packages.iter().any(&installed))
        .map(|tool| tool.packages[0])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_dpkg_lacks_is_missing() {
        let listing = "bird2 ii \nfrr rc \natftp hi \natftpd ii \ntftp-hpa un \nbusybox-static ii \nunbound ii \nknot ii \n\
                       nginx ii \ndnsmasq-base ii \ncurl ii \nprometheus ii \nsystemd ii \niproute2 ii \nnftables ii \niputils-ping iU \nutil-linux ii \npython3-venv ii \n";
        assert_eq!(missing_from(listing), ["frr", "tftp-hpa", "iputils-ping"]);
        assert_eq!(missing_from("").len(), TOOLS.len());
    }
}
