//! The table `[sync]`: files that are the same at every site.
//!
//! ```toml
//! [sync]                              # needs [mesh]
//! mode = "multi"                      # or "origin": one node's files are everybody's
//! # origin = "ams1"                   # with mode = "origin": which node
//! # max_lag = 0                       # files that may be missing here while preferred
//! # settle = "2s"                     # a group is published once its files have been left alone so long
//! # hold = "5m"                       # a client that has begun with a generation of a group keeps it so long
//! # rescan = "1m"                     # between two looks at the whole folder, beside what inotify tells
//! [[sync.group]]                      # the same at every node
//! name = "debian"
//! files = ["debian/linux", "debian/initrd.gz"]
//! ```

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anycast_core::config::{ConfigError, Period, invalid};
use anycast_core::service::NodeName;
use anycast_tftp::store::FileName;
use serde::Deserialize;

/// Default of `settle`.
const SETTLE: Duration = Duration::from_secs(2);
/// Default of `hold`.
const HOLD: Duration = Duration::from_secs(300);
/// Default of `rescan`.
const RESCAN: Duration = Duration::from_secs(60);
/// Most groups, and most files of one.
const MAX_GROUPS: usize = 1024;

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
    pub(crate) groups: BTreeMap<String, Vec<FileName>>,
}

impl SyncTable {
    /// Checks it. `nodes` are this one and its peers.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`].
    pub(crate) fn resolve(
        &self,
        path: &Path,
        nodes: &[&NodeName],
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
            (ModeKey::Origin, Some(origin)) if !nodes.contains(&origin) => {
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
        Ok(SyncConfig {
            origin: self.origin.clone(),
            max_lag: self.max_lag,
            settle: period("settle", self.settle, SETTLE, 100, 3600)?,
            hold: period("hold", self.hold, HOLD, 1000, 86_400)?,
            rescan: period("rescan", self.rescan, RESCAN, 1000, 86_400)?,
            groups: self.groups(path)?,
        })
    }

    fn groups(&self, path: &Path) -> Result<BTreeMap<String, Vec<FileName>>, ConfigError> {
        let mut groups = BTreeMap::new();
        let mut owners: BTreeMap<FileName, &str> = BTreeMap::new();
        for group in &self.group {
            let wrong = |reason: String| {
                let key = format!("[[sync.group]] {:?}", group.name);
                Err(invalid(path, key, reason))
            };
            let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            if !(1..=64).contains(&group.name.len()) || !group.name.chars().all(is_plain) {
                return wrong("a name has 1 to 64 letters, digits, -, _ or .".to_owned());
            }
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
            if groups.insert(group.name.clone(), files).is_some() {
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
        let resolved = table.resolve(Path::new("tftpd.toml"), &nodes);
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
    }

    #[test]
    fn what_cannot_work_is_said_in_one_line() {
        let group = |name: &str, files: &str| {
            format!("mode = 'multi'\n[[group]]\nname = '{name}'\nfiles = [{files}]\n")
        };
        let good = group("debian", "'debian/linux', 'debian/initrd'");
        assert_eq!(resolve(&good).unwrap().groups["debian"].len(), 2);
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
