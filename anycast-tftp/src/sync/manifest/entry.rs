//! What is known of one key: its versions, and which of all ever written have been seen.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use anycast_core::service::NodeName;

use crate::store::FileName;
use crate::sync::content::ContentId;

/// Longest name of a group, in bytes.
pub const MAX_GROUP_NAME: usize = 63;
/// Most files in a group.
pub const MAX_MEMBERS: usize = 64;
/// The greatest counter of a dot; what has a greater one is refused. It leaves the wall clock, in
/// microseconds, a hundred thousand years.
pub const MAX_COUNTER: u64 = 1 << 62;

/// The name of a group: letters, digits, `-`, `_` and `.`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupName(Arc<str>);

/// A text that is no name of a group.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a group's name has 1 to {MAX_GROUP_NAME} letters, digits, '-', '_' or '.'")]
pub struct GroupNameError;

impl std::str::FromStr for GroupName {
    type Err = GroupNameError;

    fn from_str(text: &str) -> Result<Self, GroupNameError> {
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if text.is_empty() || text.len() > MAX_GROUP_NAME || !text.chars().all(is_allowed) {
            return Err(GroupNameError);
        }
        Ok(Self(text.into()))
    }
}

impl GroupName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for GroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for GroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// What has versions.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// A file that is in no group.
    File(FileName),
    /// Files that belong together.
    Group(GroupName),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(name) => write!(f, "{name}"),
            Self::Group(name) => write!(f, "group {name}"),
        }
    }
}

/// Who writes versions: a node, for as long as it keeps its state.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Writer {
    /// The node.
    pub node: NodeName,
    /// Another one whenever its state was lost, so that no dot is ever used twice.
    pub incarnation: u64,
}

/// One act of writing. Ordered by its counter, which is near the wall clock in microseconds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dot {
    /// Greater than all that the writer used before.
    pub counter: u64,
    /// Who wrote.
    pub writer: Writer,
}

/// The contents of a group's files, in order of name, each named once. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(Arc<[(FileName, ContentId)]>);

impl Generation {
    /// `None`: no file, or more than [`MAX_MEMBERS`], or one named twice.
    #[must_use]
    pub fn new(mut members: Vec<(FileName, ContentId)>) -> Option<Self> {
        members.sort();
        let is_twice = members.windows(2).any(|pair| pair[0].0 == pair[1].0);
        let is_good = !members.is_empty() && members.len() <= MAX_MEMBERS && !is_twice;
        is_good.then(|| Self(members.into()))
    }

    /// Its files.
    #[must_use]
    pub fn members(&self) -> &[(FileName, ContentId)] {
        &self.0
    }

    /// What it has under this name.
    #[must_use]
    pub fn content(&self, name: &FileName) -> Option<ContentId> {
        let at = self.0.binary_search_by(|(member, _)| member.cmp(name)).ok();
        at.and_then(|at| self.0.get(at))
            .map(|(_, content)| *content)
    }
}

/// A version of a key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// Of a file.
    File(ContentId),
    /// Of a group.
    Group(Generation),
}

impl Version {
    /// Whether it is one that the key can have.
    #[must_use]
    pub fn is_of(&self, key: &Key) -> bool {
        matches!(
            (self, key),
            (Self::File(_), Key::File(_)) | (Self::Group(_), Key::Group(_))
        )
    }
}

/// The versions of a key that nobody has replaced, and what has been seen of each writer.
///
/// For each dot an entry is in one of three states, of which each follows on the one before:
/// not seen; live; seen and no longer live. Merging takes the later state of each dot, so it is
/// commutative, associative and idempotent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Entry {
    pub(in crate::sync) live: BTreeMap<Dot, Version>,
    pub(in crate::sync) seen: BTreeMap<Writer, u64>,
}

impl Entry {
    /// The versions that are live.
    #[must_use]
    pub fn live(&self) -> &BTreeMap<Dot, Version> {
        &self.live
    }

    /// The last counter that was seen of each writer of this key.
    #[must_use]
    pub fn seen(&self) -> &BTreeMap<Writer, u64> {
        &self.seen
    }

    /// Whether this dot has been seen, live or no longer.
    #[must_use]
    pub fn has_seen(&self, dot: &Dot) -> bool {
        self.seen
            .get(&dot.writer)
            .is_some_and(|last| dot.counter <= *last)
    }

    /// Takes in what another node knows of the same key; whether that was anything new.
    pub fn merge(&mut self, other: &Self) -> bool {
        let before = self.live.len();
        self.live
            .retain(|dot, _| other.live.contains_key(dot) || !other.has_seen(dot));
        let mut has_changed = self.live.len() != before;
        for (dot, version) in &other.live {
            let is_seen = self.has_seen(dot);
            match self.live.get_mut(dot) {
                // Two versions of one dot are a writer's fault. The greater one, so that all
                // nodes choose alike.
                Some(ours) if *ours < *version => {
                    *ours = version.clone();
                    has_changed = true;
                }
                Some(_) => {}
                None if is_seen => {}
                None => {
                    self.live.insert(dot.clone(), version.clone());
                    has_changed = true;
                }
            }
        }
        for (writer, counter) in &other.seen {
            let ours = self.seen.entry(writer.clone()).or_default();
            has_changed |= *ours < *counter;
            *ours = (*ours).max(*counter);
        }
        has_changed
    }

    /// Removes the live versions that `replaced` says yes to; whether there were any.
    pub fn erase(&mut self, replaced: impl Fn(&Version) -> bool) -> bool {
        let before = self.live.len();
        self.live.retain(|_, version| !replaced(version));
        self.live.len() != before
    }

    /// Adds a version. The dot is to be greater than all that its writer used before.
    pub fn write(&mut self, dot: Dot, version: Version) {
        let last = self.seen.entry(dot.writer.clone()).or_default();
        *last = (*last).max(dot.counter);
        self.live.insert(dot, version);
    }

    /// The live versions that differ, each with the last dot that wrote it, the winner first.
    #[must_use]
    pub fn siblings(&self) -> Vec<(&Dot, &Version)> {
        let mut found: Vec<(&Dot, &Version)> = Vec::new();
        for (dot, version) in self.live.iter().rev() {
            if found.iter().all(|(_, known)| *known != version) {
                found.push((dot, version));
            }
        }
        found
    }

    /// The version that has the name.
    #[must_use]
    pub fn winner(&self) -> Option<&Version> {
        self.live.last_key_value().map(|(_, version)| version)
    }
}
