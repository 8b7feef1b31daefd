//! `[tftp] handoff`: transfers that survive a route move.
//!
//! ```toml
//! [tftp]
//! handoff = "before-reply"            # or "async", "off"; needs [sync], and [mesh] with peers
//! hold_wait = "150ms"                 # longest wait for another node before the first reply
//! ```
//!
//! It needs the others, and files that are the same there: what a transfer is of is told by the hash of
//! its content, which file sync knows.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::path::Path;
use std::time::Duration;

use anycast_core::ServiceName;
use anycast_core::config::{ConfigError, NodeTable, Period, invalid};
use anycast_core::node::{NodeHandle, Snapshot};
use anycast_core::service::NodeName;
use anycast_daemon::mesh::MeshTable;
use anycast_tftp::handoff::{Fleet, Mode};
use anycast_tftp::server::ServerHandle;
use serde::Deserialize;
use tokio::sync::watch;

/// Default of `hold_wait`.
const HOLD_WAIT: Duration = Duration::from_millis(150);
/// Longest `hold_wait`: clients ask again after a second or a few.
const MAX_HOLD_WAIT: Duration = Duration::from_secs(2);

/// `[tftp] handoff` as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum HandoffKey {
    /// Others know a transfer before its client does.
    BeforeReply,
    /// At the same time.
    Async,
    /// They never do.
    Off,
}

/// What `[tftp]` says of it, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HandoffConfig {
    pub(crate) mode: Mode,
    pub(crate) hold_wait: Duration,
}

impl HandoffConfig {
    /// Checks both keys. `None`: each transfer ends with its node. That is the default where there
    /// are no others, or where their files may differ.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`].
    pub(crate) fn resolve(
        path: &Path,
        (handoff, hold_wait): (Option<HandoffKey>, Option<Period>),
        mesh: Option<&MeshTable>,
        has_sync: bool,
    ) -> Result<Option<Self>, ConfigError> {
        let wrong = |key: &str, reason: String| Err(invalid(path, format!("[tftp] {key}"), reason));
        let has_peers = mesh.is_some_and(|mesh| !mesh.peer.is_empty());
        let mode = match handoff {
            None if has_peers && has_sync => Mode::BeforeReply,
            None | Some(HandoffKey::Off) => Mode::Off,
            Some(HandoffKey::BeforeReply) => Mode::BeforeReply,
            Some(HandoffKey::Async) => Mode::Async,
        };
        if mode != Mode::Off && !has_peers {
            let reason = "needs [mesh] with a [[mesh.peer]]: there is no other node that could go on \
                          with a transfer; add them, or remove this";
            return wrong("handoff", reason.to_owned());
        }
        if mode != Mode::Off && !has_sync {
            let reason = "needs [sync]: another node goes on only with the very same file; add it, \
                          or remove this";
            return wrong("handoff", reason.to_owned());
        }
        let hold_wait = match (mode, hold_wait.map(Period::get)) {
            (_, None) => HOLD_WAIT,
            (Mode::BeforeReply, Some(wait)) if wait > MAX_HOLD_WAIT => {
                return wrong("hold_wait", format!("must be at most {MAX_HOLD_WAIT:?}"));
            }
            (Mode::BeforeReply, Some(wait)) => wait,
            (Mode::Async | Mode::Off, Some(_)) => {
                let reason = "has no effect without handoff = \"before-reply\"; remove it";
                return wrong("hold_wait", reason.to_owned());
            }
        };
        Ok((mode != Mode::Off).then_some(Self { mode, hold_wait }))
    }

    /// The nodes, as the server is told of them.
    pub(crate) fn fleet(&self, node: &NodeTable, mesh: Option<&MeshTable>) -> Fleet {
        let peers = mesh.into_iter().flat_map(|mesh| &mesh.peer);
        let peers: Vec<NodeName> = peers.map(|peer| peer.name.clone()).collect();
        // Another one at each start: what this process says is not taken for what the last one said.
        let seed = RandomState::new().build_hasher().finish();
        let mut fleet = Fleet::new(node.name.clone(), peers, seed);
        if let Some(domain) = &node.domain {
            fleet.domain = domain.clone();
        }
        fleet.mode = self.mode;
        fleet.hold_wait = self.hold_wait;
        fleet
    }
}

/// Has the server know whether an operator's order leads clients elsewhere.
#[derive(Debug)]
pub(crate) struct Following {
    /// None: the node does not run the service, which is never drained then.
    snapshots: Option<watch::Receiver<Snapshot>>,
    tftp: ServerHandle,
}

impl Following {
    pub(crate) fn new(node: &NodeHandle, service: &ServiceName, tftp: &ServerHandle) -> Self {
        let mut snapshots = node.watch(service).ok();
        if let Some(snapshots) = &mut snapshots {
            // An order from before the restart.
            snapshots.mark_changed();
        }
        Self {
            snapshots,
            tftp: tftp.clone(),
        }
    }

    /// Waits for the next news and passes them on. Cancel-safe.
    pub(crate) async fn next(&mut self) {
        let Some(snapshots) = &mut self.snapshots else {
            return std::future::pending().await;
        };
        if snapshots.changed().await.is_err() {
            return std::future::pending().await;
        }
        let is_draining = snapshots.borrow_and_update().drain.is_some();
        self.tftp.set_draining(is_draining);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(tftp: &str, peers: bool, sync: bool) -> Result<Option<HandoffConfig>, String> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Keys {
            handoff: Option<HandoffKey>,
            hold_wait: Option<Period>,
        }
        let keys: Keys = toml::from_str(tftp).map_err(|error| error.to_string())?;
        let mut mesh = "listen = '10.0.0.2:4747'\n".to_owned();
        if peers {
            mesh.push_str("[[peer]]\nname = 'fra1'\naddress = '10.0.1.2:4747'\nfingerprints = []");
        }
        let mesh: MeshTable = toml::from_str(&mesh).unwrap();
        let resolved = HandoffConfig::resolve(
            Path::new("tftpd.toml"),
            (keys.handoff, keys.hold_wait),
            Some(&mesh),
            sync,
        );
        resolved.map_err(|error| error.to_string())
    }

    #[test]
    fn it_is_the_default_where_others_have_the_same_files() {
        let default = resolve("", true, true).unwrap().unwrap();
        assert_eq!(default.mode, Mode::BeforeReply);
        assert_eq!(default.hold_wait, HOLD_WAIT);
        for (peers, sync) in [(false, true), (true, false), (false, false)] {
            assert_eq!(resolve("", peers, sync), Ok(None));
            assert_eq!(resolve("handoff = 'off'", peers, sync), Ok(None));
        }
        assert_eq!(resolve("handoff = 'off'", true, true), Ok(None));
        let later = resolve("handoff = 'async'", true, true).unwrap().unwrap();
        assert_eq!(later.mode, Mode::Async);
        let short = "handoff = 'before-reply'\nhold_wait = '20ms'";
        let short = resolve(short, true, true).unwrap().unwrap();
        assert_eq!(short.hold_wait, Duration::from_millis(20));
    }

    #[test]
    fn what_cannot_work_is_said_in_one_line() {
        for (text, peers, sync, why) in [
            ("handoff = 'before-reply'", false, true, "[[mesh.peer]]"),
            ("handoff = 'async'", false, false, "[[mesh.peer]]"),
            ("handoff = 'async'", true, false, "needs [sync]"),
            ("hold_wait = '3s'", true, true, "at most 2s"),
            ("hold_wait = '1s'", true, false, "no effect"),
            (
                "handoff = 'async'\nhold_wait = '1s'",
                true,
                true,
                "no effect",
            ),
        ] {
            let said = resolve(text, peers, sync).unwrap_err();
            assert!(said.contains(why) && said.lines().count() == 1, "{said}");
        }
    }

    #[test]
    fn the_domain_is_the_name_unless_it_is_given() {
        let node: NodeTable = toml::from_str("name = 'ams1'").unwrap();
        let config = resolve("", true, true).unwrap().unwrap();
        let fleet = config.fleet(&node, None);
        assert_eq!(fleet.domain, fleet.name);
        let node: NodeTable = toml::from_str("name = 'ams1'\ndomain = 'ams'").unwrap();
        assert_eq!(config.fleet(&node, None).domain.as_str(), "ams");
        assert_ne!(config.fleet(&node, None).seed, fleet.seed);
    }
}
