//! BIRD.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::{Best, NodeError, folder, remove, write};
use crate::mrt::Prefix;
use crate::netns::Netns;
use crate::process::{Proc, require};
use crate::wait::eventually;

/// How long it may take to answer after its start.
const READY: Duration = Duration::from_secs(30);

/// A running BIRD.
#[derive(Debug)]
pub(super) struct Bird {
    process: Proc,
    config: PathBuf,
    socket: PathBuf,
}

impl Bird {
    pub(super) fn start(namespace: &Netns, config: &str) -> Result<Self, NodeError> {
        let folder = folder(namespace);
        let config = write(folder.join("bird.conf"), config)?;
        let socket = folder.join("bird.ctl");
        let process = Self::launch(namespace, &config, &socket)?;
        Ok(Self {
            process,
            config,
            socket,
        })
    }

    fn launch(namespace: &Netns, config: &Path, socket: &Path) -> Result<Proc, NodeError> {
        let program = require("bird", &[], "bird2")?;
        let mut command = Command::new(program);
        command.arg("-f").arg("-c").arg(config);
        command.arg("-s").arg(socket);
        let mut process = Proc::start(
            namespace,
            &format!("{}-bird", namespace.name()),
            &mut command,
        )?;
        let ready = eventually(READY, "BIRD to open its socket", || {
            socket.exists() || matches!(process.has_ended(), Ok(Some(_)))
        });
        if process.has_ended()?.is_some() || ready.is_err() {
            return Err(NodeError::Answer {
                node: namespace.name().to_owned(),
                what: "BIRD did not start",
                answer: process.tail(20),
            });
        }
        Ok(process)
    }

    pub(super) fn processes(&mut self) -> &mut [Proc] {
        std::slice::from_mut(&mut self.process)
    }

    /// In the place of the one that was killed.
    pub(super) fn start_again(&mut self, namespace: &Netns) -> Result<(), NodeError> {
        remove(&self.socket)?;
        self.process = Self::launch(namespace, &self.config, &self.socket)?;
        Ok(())
    }

    pub(super) fn ask(&self, namespace: &Netns, command: &str) -> Result<String, NodeError> {
        // Without -v it prints no reply codes; without a terminal, no paging.
        Ok(namespace.run(&format!("birdc -s {} {command}", self.socket.display()))?)
    }

    pub(super) fn best(
        &self,
        namespace: &Netns,
        prefix: Prefix,
    ) -> Result<Option<Best>, NodeError> {
        let (address, length) = (prefix.address, prefix.length);
        let answer = self.ask(
            namespace,
            &format!("show route all primary {address}/{length}"),
        );
        match answer {
            // "Network not found" is an error of the command.
            Err(NodeError::Netns(error)) if error.to_string().contains("Network not found") => {
                Ok(None)
            }
            Err(error) => Err(error),
            Ok(answer) => Ok(parse_best(&answer)),
        }
    }

    pub(super) fn established(&self, namespace: &Netns) -> Result<usize, NodeError> {
        let answer = self.ask(namespace, "show protocols")?;
        Ok(answer.lines().filter(|line| is_established(line)).count())
    }
}

fn is_established(line: &str) -> bool {
    let words: Vec<&str> = line.split_whitespace().collect();
    words.get(1) == Some(&"BGP") && words.last() == Some(&"Established")
}

/// From `show route all primary`: the two attributes, whose names BIRD 2 writes
/// `BGP.local_pref` and BIRD 3 `bgp_local_pref`. An IPv6 next hop may be
/// followed by the link-local one.
fn parse_best(answer: &str) -> Option<Best> {
    let attribute = |name: &str| {
        answer.lines().find_map(|line| {
            let (key, value) = line.trim().split_once(':')?;
            let key = key.to_ascii_lowercase().replace('.', "_");
            (key == name).then(|| value.trim().to_owned())
        })
    };
    Some(Best {
        next_hop: attribute("bgp_next_hop")?
            .split_whitespace()
            .next()?
            .parse()
            .ok()?,
        local_pref: attribute("bgp_local_pref")?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_route_is_read_with_next_hop_and_local_pref() {
        let answer = "BIRD 2.0.12 ready.\nTable master6:\n\
            2001:db8::69/128     unicast [site_a6 14:02:11.221] * (100) [i]\n\
            \tvia fd00:a::2 on site-a\n\
            \tType: BGP univ\n\tBGP.origin: IGP\n\tBGP.as_path: \n\
            \tBGP.next_hop: fd00:a::2 fe80::1\n\tBGP.local_pref: 200\n";
        let best = parse_best(answer).unwrap();
        assert_eq!(
            best,
            Best {
                next_hop: "fd00:a::2".parse().unwrap(),
                local_pref: 200
            }
        );
        let bird3 = "\tbgp_next_hop: 10.0.0.1\n\tbgp_local_pref: 50\n";
        assert_eq!(parse_best(bird3).unwrap().local_pref, 50);
        assert_eq!(parse_best("Network not found"), None);
    }

    #[test]
    fn only_established_bgp_sessions_count() {
        assert!(is_established(
            "site_a4    BGP        ---        up     14:02:11.221  Established   "
        ));
        assert!(!is_established(
            "site_a4    BGP        ---        start  14:02:11.221  Connect       "
        ));
        assert!(!is_established(
            "device1    Device     ---        up     14:02:11.221  "
        ));
    }
}
