//! The nodes: a namespace and a folder each, around a router that counts what they send.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anycast_labs::{Netns, link};

use super::super::subject::failed;
use crate::run::Failure;

pub(in crate::bench) struct Bed {
    pub(in crate::bench) hub: Netns,
    pub(in crate::bench) nodes: Vec<Node>,
}

pub(in crate::bench) struct Node {
    pub(in crate::bench) name: String,
    pub(in crate::bench) namespace: Netns,
    /// On the disk, empty at the start.
    pub(in crate::bench) folder: PathBuf,
    pub(in crate::bench) number: usize,
}

impl Bed {
    /// So many nodes, and nothing of those that were there before.
    pub(in crate::bench) fn build(folder: &Path, count: usize) -> Result<Self, Failure> {
        let hub = Netns::new("hub").map_err(network)?;
        hub.forward().map_err(network)?;
        let nodes = (0..count).map(|number| Node::build(&hub, folder, number));
        Ok(Self {
            nodes: nodes.collect::<Result<_, _>>()?,
            hub,
        })
    }

    /// Bytes that one node has sent and received so far, at the link.
    pub(in crate::bench) fn wire(&self, number: usize) -> Result<u64, Failure> {
        let read = || fs::read_to_string("/proc/thread-self/net/dev");
        let text = self.hub.enter(read).map_err(network)?;
        let text = text.map_err(|e| failed("/proc/net/dev", e))?;
        bytes_of(&text, &format!("n{number}"))
            .ok_or_else(|| failed("/proc/net/dev", format!("no counters of n{number}")))
    }
}

impl Node {
    pub(in crate::bench) fn build(
        hub: &Netns,
        folder: &Path,
        number: usize,
    ) -> Result<Self, Failure> {
        let name = format!("n{number}");
        let namespace = Netns::new(&name).map_err(network)?;
        link(hub, &name, &namespace, "up").map_err(network)?;
        let router = format!("10.30.{number}.1");
        hub.address(&name, &format!("{router}/24"))
            .and_then(|()| namespace.address("up", &format!("{}/24", address(number))))
            .and_then(|()| namespace.route("default", &router))
            .map_err(network)?;
        let folder = folder.join(&name);
        if folder.exists() {
            fs::remove_dir_all(&folder).map_err(|e| failed(&name, e))?;
        }
        fs::create_dir_all(folder.join("root")).map_err(|e| failed(&name, e))?;
        Ok(Self {
            name,
            namespace,
            folder,
            number,
        })
    }

    pub(in crate::bench) fn address(&self) -> String {
        address(self.number)
    }

    /// What is kept the same.
    pub(in crate::bench) fn root(&self) -> PathBuf {
        self.folder.join("root")
    }

    /// A program that runs on this node's CPUs.
    pub(in crate::bench) fn command(&self, program: impl AsRef<Path>) -> Command {
        let cpus = thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let mut command = Command::new("taskset");
        command.args(["-c", &cpu_list(self.number, cpus)]);
        command.arg(program.as_ref());
        command
    }
}

fn network(error: impl std::fmt::Display) -> Failure {
    failed("the network", error)
}

fn address(number: usize) -> String {
    format!("10.30.{number}.2")
}

/// The first half for the first node, the second half for all others.
fn cpu_list(node: usize, cpus: usize) -> String {
    let half = cpus / 2;
    match node {
        _ if half == 0 => "0".to_owned(),
        0 => format!("0-{}", half - 1),
        _ => format!("{half}-{}", cpus - 1),
    }
}

/// Received and sent bytes of a device, of a text in the form of `/proc/net/dev`.
fn bytes_of(text: &str, device: &str) -> Option<u64> {
    let of_device = |line: &'_ str| {
        let (name, counters) = line.split_once(':')?;
        (name.trim() == device).then(|| counters.to_owned())
    };
    let counters = text.lines().find_map(of_device)?;
    let mut counters = counters.split_whitespace().map(str::parse::<u64>);
    let received = counters.next()?.ok()?;
    let sent = counters.nth(7)?.ok()?;
    Some(received + sent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_both_directions_are_added() {
        let text = "Inter-|   Receive  |  Transmit\n face |bytes packets\n\
                    lo: 5 1 0 0 0 0 0 0 5 1 0 0 0 0 0 0\n\
                    n1: 1000 10 0 0 0 0 0 0 234 2 0 0 0 0 0 0\n   n12: 7 1 0 0 0 0 0 0 7 1 0 0 0 0 0 0\n";
        assert_eq!(bytes_of(text, "n1"), Some(1234));
        assert_eq!(bytes_of(text, "n2"), None);
    }

    #[test]
    fn the_first_node_has_cpus_of_its_own_where_there_are_two() {
        assert_eq!(cpu_list(0, 1), "0");
        assert_eq!(cpu_list(3, 1), "0");
        assert_eq!(
            (cpu_list(0, 2), cpu_list(1, 2)),
            ("0-0".into(), "1-1".into())
        );
        assert_eq!(
            (cpu_list(0, 8), cpu_list(3, 8)),
            ("0-3".into(), "4-7".into())
        );
    }
}
