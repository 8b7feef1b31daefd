//! The table `[mesh]`: the other nodes, and how they are known.
//!
//! ```toml
//! [mesh]
//! listen = "10.0.0.2:4747"            # UDP; a unicast address of this node
//! identity = "/var/lib/anycast/identity.pem"
//! [[mesh.peer]]
//! name = "fra1"                       # what [node] name is there
//! address = "10.0.1.2:4747"           # what [mesh] listen is there
//! fingerprints = ["sha256:…"]         # `anycastctl identity show` there; two while it changes
//! ```

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use anycast_core::announce::Announcer;
use anycast_core::config::{ConfigError, invalid};
use anycast_core::machine::{FailSafe, TurnPolicy};
use anycast_core::mesh::identity::{Fingerprint, Identity, IdentityError};
use anycast_core::mesh::transport::{MAX_PEERS, Mesh, MeshConfig, MeshError, PeerConfig};
use anycast_core::service::{NodeName, ServiceAddress, ServiceName};
use serde::Deserialize;

/// `[mesh]` as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeshTable {
    /// Where this node listens.
    pub listen: SocketAddr,
    /// The file with its key. Default: `identity.pem` in `[node] state_dir`.
    pub identity: Option<PathBuf>,
    /// The others.
    #[serde(default)]
    pub peer: Vec<PeerTable>,
}

/// `[[mesh.peer]]` as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerTable {
    /// What it calls itself.
    pub name: NodeName,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its key, or two.
    pub fingerprints: Vec<Fingerprint>,
}

/// Why the mesh does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CannotMesh {
    /// The key.
    #[error("[mesh] identity: {0}; make one: anycastctl identity new FILE")]
    Identity(#[from] IdentityError),
    /// The rest.
    #[error("[mesh]: {0}")]
    Mesh(#[from] MeshError),
}

impl MeshTable {
    /// Checks what needs no socket.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`].
    pub fn check<'a>(
        &self,
        path: &Path,
        node: &NodeName,
        services: impl Iterator<Item = &'a ServiceAddress>,
    ) -> Result<(), ConfigError> {
        let wrong = |key: &str, reason: &str| Err(invalid(path, format!("[mesh] {key}"), reason));
        let services: BTreeSet<IpAddr> = services.map(|address| address.ip()).collect();
        if services.contains(&self.listen.ip()) {
            let reason = "is a service address, which other nodes have too; use a unicast address \
                          of this node";
            return wrong("listen", reason);
        }
        if self.listen.port() == 0 {
            return wrong("listen", "has port 0; peers must know the port");
        }
        if self.peer.len() > MAX_PEERS {
            return wrong("peer", &format!("there are more than {MAX_PEERS}"));
        }
        let mut names = BTreeSet::new();
        for peer in &self.peer {
            let name = &peer.name;
            let fault = if name == node {
                "has this node's own name"
            } else if !names.insert(name) {
                "is there twice"
            } else if services.contains(&peer.address.ip()) {
                "has a service address; use its unicast address"
            } else if peer.fingerprints.is_empty() {
                "has no fingerprint; run `anycastctl identity show` there"
            } else if peer.fingerprints.len() > 2 {
                "has more than two fingerprints: the old key's and the new one's"
            } else {
                continue;
            };
            return wrong(&format!("peer {name}"), fault);
        }
        Ok(())
    }

    /// Reads the key, listens and dials. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`CannotMesh`], in one line.
    pub fn start(&self, node: &NodeName, state_dir: &Path) -> Result<Mesh, CannotMesh> {
        let identity = match &self.identity {
            Some(identity) => identity.clone(),
            None => state_dir.join("identity.pem"),
        };
        let identity = Identity::load(&identity)?;
        let peers = self.peer.iter().map(|peer| PeerConfig {
            name: peer.name.clone(),
            address: peer.address,
            fingerprints: peer.fingerprints.clone(),
        });
        tracing::info!(
            listen = %self.listen,
            fingerprint = %identity.fingerprint(),
            peers = self.peer.len(),
            "joining the mesh"
        );
        Ok(Mesh::start(MeshConfig {
            name: node.clone(),
            listen: self.listen,
            identity,
            peers: peers.collect(),
        })?)
    }
}

/// Checks that there is somebody to take turns with.
///
/// # Errors
/// [`ConfigError::Invalid`].
pub fn check_turns(
    path: &Path,
    turns: Option<TurnPolicy>,
    mesh: Option<&MeshTable>,
) -> Result<(), ConfigError> {
    let has_peers = mesh.is_some_and(|mesh| !mesh.peer.is_empty());
    if turns.is_some() && !has_peers {
        let reason = "needs [mesh] with a [[mesh.peer]]: there is no other node to take turns with; \
                      add them, or remove this";
        return Err(invalid(path, "[service.turns]", reason));
    }
    Ok(())
}

/// Says in the log what keeps `fail_safe = "withdraw"` from withdrawing.
pub fn warn_about_consent(
    service: &ServiceName,
    fail_safe: FailSafe,
    announcer: &dyn Announcer,
    mesh: Option<&MeshTable>,
) {
    let FailSafe::Withdraw(policy) = fail_safe else {
        return;
    };
    let (peers, needed) = (mesh.map_or(0, |mesh| mesh.peer.len()), policy.min_peers);
    if peers < usize::from(needed.get()) {
        tracing::warn!(
            %service,
            peers,
            min_peers = %needed,
            "fail_safe = \"withdraw\" needs the consent of min_peers peers, and [mesh] has fewer: \
             this node only ever demotes"
        );
    }
    if !announcer.capabilities().withdraw {
        tracing::warn!(
            %service,
            announcer = announcer.kind(),
            "fail_safe = \"withdraw\": this announcer takes away the boost alone; the floor stays \
             in the routing daemon"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "sha256:abababababababababababababababababababababababababababababababab";

    fn table(text: &str) -> MeshTable {
        #[derive(Deserialize)]
        struct File {
            mesh: MeshTable,
        }
        toml::from_str::<File>(text).unwrap().mesh
    }

    fn fault(text: &str) -> Option<String> {
        let services: [ServiceAddress; 1] = ["192.0.2.69/32".parse().unwrap()];
        let node = NodeName::new("ams1").unwrap();
        let checked = table(text).check(Path::new("guard.toml"), &node, services.iter());
        checked.err().map(|error| error.to_string())
    }

    #[test]
    fn what_cannot_work_is_said_in_one_line() {
        let listen = "[mesh]\nlisten = '10.0.0.2:4747'\n";
        let peer = |name: &str, ip: &str, keys: &str| {
            format!(
                "[[mesh.peer]]\nname = '{name}'\naddress = '{ip}:4747'\nfingerprints = [{keys}]\n"
            )
        };
        let one = format!("'{KEY}'");
        let good = peer("fra1", "10.0.1.2", &one);
        assert_eq!(fault(&format!("{listen}{good}")), None);
        let cases = [
            (
                "[mesh]\nlisten = '192.0.2.69:4747'\n".to_owned(),
                "service address",
            ),
            ("[mesh]\nlisten = '10.0.0.2:0'\n".to_owned(), "port 0"),
            (
                format!("{listen}{}", peer("ams1", "10.0.1.2", &one)),
                "own name",
            ),
            (format!("{listen}{good}{good}"), "twice"),
            (
                format!("{listen}{}", peer("fra1", "192.0.2.69", &one)),
                "unicast",
            ),
            (
                format!("{listen}{}", peer("fra1", "10.0.1.2", "")),
                "no fingerprint",
            ),
            (
                format!(
                    "{listen}{}",
                    peer("fra1", "10.0.1.2", &[&one[..]; 3].join(","))
                ),
                "more than two",
            ),
        ];
        for (text, why) in cases {
            let said = fault(&text).unwrap();
            assert!(said.contains(why) && said.lines().count() == 1, "{said}");
        }
    }

    #[test]
    fn turns_are_taken_with_others() {
        let alone = table("[mesh]\nlisten = '10.0.0.2:4747'\n");
        let path = Path::new("guard.toml");
        let turns = Some(TurnPolicy::default());
        for mesh in [None, Some(&alone)] {
            assert!(check_turns(path, None, mesh).is_ok());
            let said = check_turns(path, turns, mesh).unwrap_err().to_string();
            assert!(said.contains("[[mesh.peer]]"), "{said}");
        }
    }

    #[test]
    fn a_missing_key_is_told_with_its_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let node = NodeName::new("ams1").unwrap();
        let table = table("[mesh]\nlisten = '127.0.0.1:4747'\n");
        let error = table.start(&node, folder.path()).unwrap_err().to_string();
        assert!(error.contains("anycastctl identity new"), "{error}");
        assert!(error.contains("identity.pem"), "{error}");
    }
}
