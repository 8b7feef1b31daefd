//! The table `[sync]`: files that are the same at every site.
//!
//! ```toml
//! [sync]                              # needs [mesh] or [sync.bucket]
//! mode = "multi"                      # or "origin": one node's files are everybody's
//! # origin = "ams1"                   # with mode = "origin": which node
//! # max_lag = 0                       # files that may be missing here while preferred
//! # settle = "2s"                     # a group is published once its files have been left alone so long
//! # hold = "5m"                       # a client that has begun with a generation of a group keeps it so long
//! # rescan = "1m"                     # between two looks at the whole folder, beside what inotify tells
//! [[sync.group]]                      # the same at every node
//! name = "debian"
//! files = ["debian/linux", "debian/initrd.gz"]
//! [sync.bucket]                       # see `bucket.rs`
//! ```

mod bucket;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anycast_core::CheckName;
use anycast_core::admin::DataSet;
use anycast_core::config::{ConfigError, Period, invalid};
use anycast_core::mesh::fleet::{self, Telling};
use anycast_core::mesh::transport::{Mesh, MeshHandle};
use anycast_core::node::ReadinessSpec;
use anycast_core::service::NodeName;
use anycast_tftp::store::FileName;
use anycast_tftp::sync::driver::{Details, FileSync, FileSyncConfig, StartError};
use anycast_tftp::sync::manifest::GroupName;
use anycast_tftp::sync::replica::{Config, GroupConfig, Mode};
use serde::{Deserialize, Serialize};

use self::bucket::{BucketConfig, BucketTable};

/// Default of `settle`.
const SETTLE: Duration = Duration::from_secs(2);
/// Default of `hold`.
const HOLD: Duration = Duration::from_secs(300);
/// Default of `rescan`.
const RESCAN: Duration = Duration::from_secs(60);
/// What the data is called in `/status`, in `/sync` and by `anycastctl sync`.
pub(crate) const DATA_SET: &str = "files";
/// Most groups, and most files of one.
const MAX_GROUPS: usize = 1024;
/// How often the node asks whether its files are as the fleet has them.
const ASK_EVERY: Duration = Duration::from_millis(200);
/// How often peers hear of it, if it changes.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// `[sync]` as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SyncTable {
    mode: ModeKey,
    origin: Option<NodeName>,
    #[serde(default)]
    max_lag: u64,
    settle: Option<Period>,
    hold: Option<Period>,
    rescan: Option<Period>,
    #[serde(default)]
    group: Vec<GroupTable>,
    bucket: Option<BucketTable>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ModeKey {
    Multi,
    Origin,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct GroupTable {
    name: String,
    files: Vec<String>,
}

/// What `[sync]` says, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SyncConfig {
    /// `None`: every node may change files.
    pub(crate) origin: Option<NodeName>,
    pub(crate) max_lag: u64,
    pub(crate) settle: Duration,
    pub(crate) hold: Duration,
    pub(crate) rescan: Duration,
    pub(crate) groups: BTreeMap<GroupName, Vec<FileName>>,
    /// Has the files too.
    pub(crate) bucket: Option<BucketConfig>,
}

impl SyncConfig {
    /// Opens the folder and the state, and begins.
    ///
    /// # Errors
    /// [`StartError`], in one line.
    pub(crate) async fn start(
        &self,
        node: &NodeName,
        peers: Vec<NodeName>,
        root: &Path,
        state_dir: &Path,
        mesh: Option<MeshHandle>,
    ) -> Result<FileSync, StartError> {
        let mut replica = Config::new(node.clone(), peers);
        if let Some(origin) = &self.origin {
            replica.mode = Mode::Origin(origin.clone());
        }
        replica.max_lag = self.max_lag;
        replica.settle = self.settle;
        replica.hold = self.hold;
        let groups = self.groups.iter().map(|(name, members)| GroupConfig {
            name: name.clone(),
            members: members.clone(),
        });
        replica.groups = groups.collect();
        let state = state_dir.join("sync");
        let mut config = FileSyncConfig::new(replica, root.to_owned(), state);
        config.rescan = self.rescan;
        config.bucket = self.bucket.as_ref().map(BucketConfig::driver);
        FileSync::start(config, mesh).await
    }
}

/// The data set of the admin endpoint.
pub(crate) fn data_set(sync: &Arc<FileSync>) -> DataSet {
    let (details, diff) = (Arc::clone(sync), Arc::clone(sync));
    DataSet::new(DATA_SET, Arc::clone(sync) as _)
        .with_details(move || details.details())
        .with_diff(move || diff.diff())
}

/// What keeps the node from being preferred as long as its files are not the fleet's.
pub(crate) fn readiness(sync: &Arc<FileSync>) -> Option<ReadinessSpec> {
    // A name that is one.
    let name = CheckName::new(DATA_SET).ok();
    name.map(|name| ReadinessSpec::of_sync(name, Arc::clone(sync) as _, ASK_EVERY))
}

/// Has peers hear of it.
pub(crate) fn tell(sync: &Arc<FileSync>, mesh: &Mesh) -> Option<Telling> {
    // A name that is one.
    let name = CheckName::new(DATA_SET).ok();
    name.map(|name| fleet::tell_data(mesh, name, Arc::clone(sync) as _, TELL_EVERY))
}

/// The section `sync` of `/status`.
#[derive(Debug, Serialize)]
pub(crate) struct Shown {
    ready: bool,
    reason: String,
    #[serde(flatten)]
    details: Details,
}

impl Shown {
    /// The keys whose numbers can fall.
    pub(crate) const GAUGES: &[&str] = &["entries", "files", "missing", "rescan_ms"];

    pub(crate) fn of(sync: &FileSync) -> Self {
        let status = sync.now();
        Self {
            ready: status.ready,
            reason: status.reason.to_string(),
            details: sync.details(),
        }
    }
}

impl SyncTable {
    /// Whether there is a bucket, so that `[mesh]` may be absent.
    pub(crate) fn has_bucket(&self) -> bool {
        self.bucket.is_some()
    }

    /// Checks it. `nodes` are this one and its peers; `knows_all`: there are no others.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`].
    pub(crate) fn resolve(
        &self,
        path: &Path,
        nodes: &[&NodeName],
        knows_all: bool,
    ) -> Result<SyncConfig, ConfigError> {
        let fault = |key: &str, reason: String| invalid(path, format!("[sync] {key}"), reason);
        let wrong = |key: &str, reason: String| Err(fault(key, reason));
        match (self.mode, &self.origin) {
            (ModeKey::Origin, None) => {
                let reason = "is missing: with mode = \"origin\" it names the node whose files are \
                              everybody's";
                return wrong("origin", reason.to_owned());
            }
            (ModeKey::Multi, Some(_)) => {
                let reason = "has no effect with mode = \"multi\"; remove it";
                return wrong("origin", reason.to_owned());
            }
            (ModeKey::Origin, Some(origin)) if knows_all && !nodes.contains(&origin) => {
                let reason = format!("{origin} is neither this node nor a [[mesh.peer]]");
                return wrong("origin", reason);
            }
            (ModeKey::Origin, Some(_)) | (ModeKey::Multi, None) => {}
        }
        let period = |key: &str, given: Option<Period>, default, min: u64, max: u64| {
            let period = given.map_or(default, Period::get);
            let range = Duration::from_millis(min)..=Duration::from_secs(max);
            if range.contains(&period) {
                return Ok(period);
            }
            let (min, max) = (range.start(), range.end());
            Err(fault(key, format!("must be between {min:?} and {max:?}")))
        };
        let bucket = self.bucket.as_ref();
        let bucket = bucket.map(|bucket| bucket.resolve(path, nodes));
        Ok(SyncConfig {
            origin: self.origin.clone(),
            max_lag: self.max_lag,
            settle: period("settle", self.settle, SETTLE, 100, 3600)?,
            hold: period("hold", self.hold, HOLD, 1000, 86_400)?,
            rescan: period("rescan", self.rescan, RESCAN, 1000, 86_400)?,
            groups: self.groups(path)?,
            bucket: bucket.transpose()?,
        })
    }

    fn groups(&self, path: &Path) -> Result<BTreeMap<GroupName, Vec<FileName>>, ConfigError> {
        let mut groups = BTreeMap::new();
        let mut owners: BTreeMap<FileName, &str> = BTreeMap::new();
        for group in &self.group {
            let wrong = |reason: String| {
                let key = format!("[[sync.group]] {:?}", group.name);
                Err(invalid(path, key, reason))
            };
            let Ok(group_name) = group.name.parse::<GroupName>() else {
                return wrong("a name has 1 to 64 letters, digits, -, _ or .".to_owned());
            };
            if group.files.len() < 2 || group.files.len() > MAX_GROUPS {
                return wrong(format!("files: 2 to {MAX_GROUPS} belong together"));
            }
            let mut files = Vec::new();
            for file in &group.files {
                let name = FileName::from_wire(file.as_bytes());
                let Some(name) = name.ok().filter(|name| name.as_str() == file) else {
                    return wrong(format!(
                        "{file:?}: give its path from the root, such as \"debian/linux\""
                    ));
                };
                if let Some(owner) = owners.insert(name.clone(), &group.name) {
                    return wrong(format!("{file:?} belongs to group {owner:?} already"));
                }
                files.push(name);
            }
            if groups.insert(group_name, files).is_some() {
                return wrong("is there twice".to_owned());
            }
        }
        if groups.len() > MAX_GROUPS {
            let reason = format!("there are more than {MAX_GROUPS}");
            return Err(invalid(path, "[[sync.group]]", reason));
        }
        Ok(groups)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(text: &str) -> Result<SyncConfig, String> {
        let table: SyncTable = toml::from_str(text).map_err(|error| error.to_string())?;
        let nodes: [NodeName; 2] = ["ams1".parse().unwrap(), "fra1".parse().unwrap()];
        let nodes: Vec<_> = nodes.iter().collect();
        let resolved = table.resolve(Path::new("tftpd.toml"), &nodes, !table.has_bucket());
        resolved.map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_left_out_has_a_default() {
        let config = resolve("mode = 'multi'").unwrap();
        assert_eq!((config.settle, config.hold), (SETTLE, HOLD));
        assert_eq!((config.rescan, config.max_lag), (RESCAN, 0));
        assert_eq!(config.origin, None);
        let config = resolve("mode = 'origin'\norigin = 'fra1'").unwrap();
        assert_eq!(config.origin, Some("fra1".parse().unwrap()));
        // By a bucket come files of nodes that this one does not know.
        let text = "mode = 'origin'\norigin = 'lon1'\n[bucket]\nname = 'boot'";
        assert_eq!(resolve(text).unwrap().origin, Some("lon1".parse().unwrap()));
    }

    #[test]
    fn what_cannot_work_is_said_in_one_line() {
        let group = |name: &str, files: &str| {
            format!("mode = 'multi'\n[[group]]\nname = '{name}'\nfiles = [{files}]\n")
        };
        let good = group("debian", "'debian/linux', 'debian/initrd'");
        assert_eq!(resolve(&good).unwrap().groups.len(), 1);
        let twice = format!("{good}[[group]]\nname = 'b'\nfiles = ['debian/linux', 'x']\n");
        for (text, why) in [
            ("mode = 'origin'".to_owned(), "origin: is missing"),
            ("mode = 'multi'\norigin = 'ams1'".to_owned(), "no effect"),
            (
                "mode = 'origin'\norigin = 'lon1'".to_owned(),
                "neither this node",
            ),
            ("mode = 'multi'\nsettle = '1ms'".to_owned(), "settle"),
            ("mode = 'multi'\nhold = '9days'".to_owned(), "hold"),
            (group("a b", "'x', 'y'"), "letters"),
            (group("a", "'x'"), "belong together"),
            (group("a", "'x', '../y'"), "path from the root"),
            (group("a", "'x', '/y'"), "path from the root"),
            (twice, "already"),
        ] {
            let said = resolve(&text).unwrap_err();
            assert!(said.contains(why) && said.lines().count() == 1, "{said}");
        }
    }
}
