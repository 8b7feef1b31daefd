//! FRRouting: zebra and the daemons that the configuration needs, configured
//! through `vtysh -b` from one integrated file, as a packaged FRR is.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;
use std::{fs, io};

use nix::mount::{MsFlags, mount};
use serde_json::Value;

use super::{Best, NodeError, folder, remove, write};
use crate::mrt::Prefix;
use crate::netns::Netns;
use crate::process::{Proc, require};
use crate::wait::eventually;

/// How long a daemon may take to open its socket.
const READY: Duration = Duration::from_secs(30);
/// Where packages put the daemons.
const FOLDERS: [&str; 3] = ["/usr/lib/frr", "/usr/libexec/frr", "/usr/lib64/frr"];

/// A running FRR.
#[derive(Debug)]
pub(super) struct Frr {
    daemons: Vec<Proc>,
    names: Vec<&'static str>,
    folder: PathBuf,
}

/// The daemons besides zebra, and the line that needs each.
const DAEMONS: [(&str, &str); 4] = [
    ("bfdd", "\nbfd\n"),
    ("bgpd", "\nrouter bgp "),
    ("ospfd", "\nrouter ospf\n"),
    ("ospf6d", "\nrouter ospf6\n"),
];

/// In the order in which they have to start.
fn needed(config: &str) -> Vec<&'static str> {
    let others = DAEMONS.iter().filter(|(_, line)| config.contains(line));
    std::iter::once("zebra")
        .chain(others.map(|(name, _)| *name))
        .collect()
}

impl Frr {
    pub(super) fn start(namespace: &Netns, config: &str) -> Result<Self, NodeError> {
        require("vtysh", &[], "frr")?;
        be_in_the_vty_group()?;
        let folder = folder(namespace);
        write(folder.join("frr.conf"), config)?;
        write(
            folder.join("vtysh.conf"),
            "service integrated-vtysh-config\n",
        )?;
        write(folder.join("empty.conf"), "")?;
        let mut frr = Self {
            daemons: Vec::new(),
            names: needed(config),
            folder,
        };
        frr.launch(namespace)?;
        Ok(frr)
    }

    fn launch(&mut self, namespace: &Netns) -> Result<(), NodeError> {
        self.daemons.clear();
        for name in &self.names {
            self.daemons
                .push(launch_one(namespace, &self.folder, name)?);
        }
        // It exits with an error for a line that no daemon accepts.
        namespace.run(&format!("{} -b", self.vtysh()))?;
        Ok(())
    }

    pub(super) fn processes(&mut self) -> &mut [Proc] {
        &mut self.daemons
    }

    /// In the place of those that were killed.
    pub(super) fn start_again(&mut self, namespace: &Netns) -> Result<(), NodeError> {
        for name in &self.names {
            remove(&self.folder.join(format!("{name}.vty")))?;
        }
        self.launch(namespace)
    }

    fn vtysh(&self) -> String {
        let folder = self.folder.display();
        format!("vtysh --vty_socket {folder} --config_dir {folder}")
    }

    pub(super) fn ask(&self, namespace: &Netns, command: &str) -> Result<String, NodeError> {
        let folder = &self.folder;
        let mut vtysh = Command::new("vtysh");
        vtysh
            .arg("--vty_socket")
            .arg(folder)
            .arg("--config_dir")
            .arg(folder);
        let output = namespace.output(vtysh.args(["-c", command]))?;
        let answer = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(answer);
        }
        Err(NodeError::Answer {
            node: namespace.name().to_owned(),
            what: "vtysh failed",
            answer: answer + &String::from_utf8_lossy(&output.stderr),
        })
    }

    fn ask_json(&self, namespace: &Netns, command: &str) -> Result<Value, NodeError> {
        let answer = self.ask(namespace, command)?;
        serde_json::from_str(&answer).map_err(|_| NodeError::Answer {
            node: namespace.name().to_owned(),
            what: "no JSON",
            answer,
        })
    }

    pub(super) fn best(
        &self,
        namespace: &Netns,
        prefix: Prefix,
    ) -> Result<Option<Best>, NodeError> {
        let family = if prefix.address.is_ipv4() {
            "ipv4"
        } else {
            "ipv6"
        };
        let (address, length) = (prefix.address, prefix.length);
        let command = format!("show bgp {family} unicast {address}/{length} json");
        Ok(parse_best(&self.ask_json(namespace, &command)?))
    }

    pub(super) fn established(&self, namespace: &Netns) -> Result<usize, NodeError> {
        Ok(count_established(
            &self.ask_json(namespace, "show bgp summary json")?,
        ))
    }
}

fn launch_one(namespace: &Netns, folder: &Path, name: &str) -> Result<Proc, NodeError> {
    let mut command = Command::new(require(name, &FOLDERS, "frr")?);
    command.args(["-u", "root", "-g", "root", "--log", "stdout"]);
    command.arg("-f").arg(folder.join("empty.conf"));
    command.arg("-i").arg(folder.join(format!("{name}.pid")));
    command.arg("-z").arg(folder.join("zserv"));
    command.arg("--vty_socket").arg(folder);
    if name == "bfdd" {
        // Its default is the same file for every node.
        command.arg("--bfdctl").arg(folder.join("bfdd.sock"));
    }
    let name_here = format!("{}-{name}", namespace.name());
    let mut daemon = Proc::start(namespace, &name_here, &mut command)?;
    let socket = folder.join(format!("{name}.vty"));
    let ready = eventually(READY, "FRR to open its socket", || {
        socket.exists() || matches!(daemon.has_ended(), Ok(Some(_)))
    });
    if daemon.has_ended()?.is_some() || ready.is_err() {
        return Err(NodeError::Answer {
            node: name_here,
            what: "FRR did not start",
            answer: daemon.tail(20),
        });
    }
    Ok(daemon)
}

/// The packaged daemons insist on a group `frrvty` that their user is in, and
/// an ordinary user may not join groups in a user namespace. So, inside the
/// lab's mount namespace only, that group is one of root's.
fn be_in_the_vty_group() -> Result<(), NodeError> {
    static JOINED: OnceLock<io::Result<()>> = OnceLock::new();
    let join = || -> io::Result<()> {
        let groups = fs::read_to_string("/etc/group")?;
        let mut ours: String = groups
            .lines()
            .filter(|line| !line.starts_with("frrvty:"))
            .map(|line| format!("{line}\n"))
            .collect();
        ours.push_str("frrvty:x:0:root\n");
        let path = PathBuf::from("/run/group");
        fs::write(&path, ours)?;
        mount(
            Some(&path),
            "/etc/group",
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        )?;
        Ok(())
    };
    match JOINED.get_or_init(join) {
        Ok(()) => Ok(()),
        Err(error) => Err(NodeError::File {
            path: PathBuf::from("/etc/group"),
            source: io::Error::new(error.kind(), error.to_string()),
        }),
    }
}

fn parse_best(route: &Value) -> Option<Best> {
    let paths = route["paths"].as_array()?;
    let best = paths
        .iter()
        .find(|path| path["bestpath"]["overall"] == true)?;
    let hops = best["nexthops"].as_array()?;
    let global = hops.iter().find(|hop| hop["scope"] != "link-local")?;
    Some(Best {
        next_hop: global["ip"].as_str()?.parse().ok()?,
        local_pref: u32::try_from(best["locPrf"].as_u64()?).ok()?,
    })
}

fn count_established(summary: &Value) -> usize {
    let families = summary
        .as_object()
        .into_iter()
        .flat_map(|families| families.values());
    let peers = families.filter_map(|family| family["peers"].as_object());
    peers
        .flat_map(|peers| peers.values())
        .filter(|peer| peer["state"] == "Established")
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_path_is_the_one_marked_overall_with_its_global_next_hop() {
        let answer = serde_json::json!({"paths": [
            {"locPrf": 50, "bestpath": {}, "nexthops": [{"ip": "fd00:b::2"}]},
            {"locPrf": 200, "bestpath": {"overall": true}, "nexthops": [
                {"ip": "fe80::1", "scope": "link-local"},
                {"ip": "fd00:a::2", "scope": "global"}]}]});
        let expected = Best {
            next_hop: "fd00:a::2".parse().unwrap(),
            local_pref: 200,
        };
        assert_eq!(parse_best(&answer), Some(expected));
        assert_eq!(parse_best(&serde_json::json!({})), None);
    }

    #[test]
    fn the_daemons_are_those_that_the_configuration_needs() {
        assert_eq!(
            needed("\nbfd\n profile x\n\nrouter bgp 65000\n"),
            ["zebra", "bfdd", "bgpd"]
        );
        assert_eq!(
            needed("\nrouter ospf\n!\nrouter ospf6\n"),
            ["zebra", "ospfd", "ospf6d"]
        );
    }

    #[test]
    fn only_established_peers_count_in_each_family() {
        let answer = serde_json::json!({
            "ipv4Unicast": {"peers": {"10.0.0.2": {"state": "Established"}, "10.0.0.3": {"state": "Connect"}}},
            "ipv6Unicast": {"peers": {"fd00::2": {"state": "Established"}}}});
        assert_eq!(count_established(&answer), 2);
    }
}
