//! How a replica is to behave.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anycast_core::service::NodeName;

use crate::store::FileName;
use crate::sync::manifest::GroupName;

/// Who may change files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// Every node.
    Multi,
    /// This one alone; the others repair what differs from it.
    Origin(NodeName),
}

/// Files that belong together; configured alike at all nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupConfig {
    /// Its name.
    pub name: GroupName,
    /// Its files; at most [`MAX_MEMBERS`](crate::sync::manifest::MAX_MEMBERS), none in two groups.
    pub members: Vec<FileName>,
}

/// How a replica is to behave. [`Config::new`] has the defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// This node.
    pub node: NodeName,
    /// The others.
    pub peers: Vec<NodeName>,
    /// Who may change files. Default [`Mode::Multi`].
    pub mode: Mode,
    /// Files that belong together. Default none.
    pub groups: Vec<GroupConfig>,
    /// Most files, deleted ones included; some 200 bytes of memory each. Default 1,000,000; more
    /// are refused and told.
    pub max_files: usize,
    /// How long no file of a group may have changed before it is published. Default 2 s.
    pub settle: Duration,
    /// How long nothing may have vanished before deletions count. Default 2 s: long enough for
    /// `rm -r` to show whether everything goes, and for a file that is deleted and written anew to
    /// be one edit.
    pub quiet: Duration,
    /// How long the contents of a replaced generation stay readable. Default 5 min: a boot.
    pub hold: Duration,
    /// So many missing items are not told as not ready. Default 0.
    pub max_lag: u64,
    /// How long a node that was ready may lag and still be. Default 5 s: an ordinary edit is
    /// everywhere by then, and does not move clients. Zero: not at all.
    pub lag_grace: Duration,
    /// How long after its start a node that hears nobody waits before it is ready. Default 10 s.
    pub alone: Duration,
    /// Contents that are fetched at once. Default 1024: enough small ones that the disk is waited
    /// for once for many.
    pub fetches: usize,
    /// Installs and removals at once, which are recorded together. Default 1024.
    pub installs: usize,
    /// How long after a failure it is tried again; doubled each time up to `retry_most`. Default 1 s.
    pub retry_least: Duration,
    /// Default 60 s.
    pub retry_most: Duration,
}

impl Config {
    /// The defaults.
    #[must_use]
    pub fn new(node: NodeName, peers: Vec<NodeName>) -> Self {
        Self {
            node,
            peers,
            mode: Mode::Multi,
            groups: Vec::new(),
            max_files: 1_000_000,
            settle: Duration::from_secs(2),
            quiet: Duration::from_secs(2),
            hold: Duration::from_secs(300),
            max_lag: 0,
            lag_grace: Duration::from_secs(5),
            alone: Duration::from_secs(10),
            fetches: 1024,
            installs: 1024,
            retry_least: Duration::from_secs(1),
            retry_most: Duration::from_secs(60),
        }
    }

    /// # Errors
    /// [`ConfigError`].
    pub fn validate(&self) -> Result<(), ConfigError> {
        let mut known = BTreeMap::new();
        let mut names = BTreeSet::new();
        for group in &self.groups {
            let name = &group.name;
            if !names.insert(name) {
                return Err(ConfigError::Twice { name: name.clone() });
            }
            if group.members.is_empty() || group.members.len() > crate::sync::manifest::MAX_MEMBERS
            {
                return Err(ConfigError::Members { name: name.clone() });
            }
            for member in &group.members {
                if let Some(other) = known.insert(member, name) {
                    return Err(ConfigError::Member {
                        member: member.clone(),
                        one: other.clone(),
                        other: name.clone(),
                    });
                }
            }
        }
        Ok(())
    }
}

/// Why a configuration cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// Two groups have one name.
    #[error("the group {name} is configured twice")]
    Twice {
        /// The name.
        name: GroupName,
    },
    /// No file, or too many.
    #[error(
        "the group {name} must have 1 to {} files",
        crate::sync::manifest::MAX_MEMBERS
    )]
    Members {
        /// The group.
        name: GroupName,
    },
    /// One file is named twice.
    #[error("{member} is in the groups {one} and {other}; name it once")]
    Member {
        /// The file.
        member: FileName,
        /// Where.
        one: GroupName,
        /// And where.
        other: GroupName,
    },
}
