//! Which content belongs under which path.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::{Affected, Entry, Generation, GroupName, Key, Manifest, Touched, Version};
use crate::store::{FileName, MAX_NAME_LEN};
use crate::sync::content::ContentId;

/// Longest component of a path, in bytes, that file systems take.
const MAX_COMPONENT: usize = 255;
/// Numbers tried after a name whose every shorter form is taken. What finds none is not shown.
const NUMBERS: usize = 8;

/// What is beside its path, and what depends on that. Empty as long as there are no conflicts and no
/// groups.
#[derive(Debug, Default)]
pub(super) struct View {
    /// Groups whose winning generation has this path; the first has it.
    members: BTreeMap<FileName, BTreeSet<GroupName>>,
    /// Contents beside their path.
    claims: BTreeMap<FileName, BTreeSet<Claim>>,
    /// Keys that looked at this name for a conflict.
    lookers: BTreeMap<FileName, BTreeSet<Key>>,
    placed: BTreeMap<Key, Placed>,
}

/// Where the conflicts of a key are.
#[derive(Debug, Default, PartialEq, Eq)]
struct Placed {
    /// It does not have its own path.
    is_displaced: bool,
    claims: Vec<(FileName, Claim)>,
    looked_at: Vec<FileName>,
}

/// A content that is beside its path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    /// Whose it is.
    pub key: Key,
    /// The path that another content has.
    pub of: FileName,
    /// What it is.
    pub content: ContentId,
}

impl Manifest {
    /// The content that belongs under a path.
    #[must_use]
    pub fn wanted(&self, path: &FileName) -> Option<ContentId> {
        if let Some(content) = self.member(path) {
            return Some(content);
        }
        if let Some(content) = self.file(path) {
            return Some(content);
        }
        let claims = self.view.claims.get(path)?;
        claims.first().map(|claim| claim.content)
    }

    /// All paths and their contents, in order of path.
    #[must_use]
    pub fn view(&self) -> BTreeMap<FileName, ContentId> {
        let names = self.files.names();
        let names = names.chain(self.view.members.keys());
        let names = names.chain(self.view.claims.keys());
        let wanted = |name: &FileName| Some((name.clone(), self.wanted(name)?));
        names.filter_map(wanted).collect()
    }

    /// The contents that are beside their path, by where they are.
    pub fn conflicts(&self) -> impl Iterator<Item = (&FileName, &Claim)> {
        let claims = self.view.claims.iter();
        claims.flat_map(|(path, claims)| claims.iter().map(move |claim| (path, claim)))
    }

    /// What is under this path as a conflict.
    #[must_use]
    pub fn conflicts_at(&self, path: &FileName) -> Vec<Claim> {
        let claims = self.view.claims.get(path).into_iter().flatten();
        claims.cloned().collect()
    }

    /// The conflicts of a key: where they are, and what.
    #[must_use]
    pub fn conflicts_of(&self, key: &Key) -> Vec<(FileName, Claim)> {
        let placed = self.view.placed.get(key);
        placed.map_or_else(Vec::new, |placed| placed.claims.clone())
    }

    /// Paths that belong to a group or to a conflict.
    pub(in crate::sync) fn paths_of_no_entry(&self) -> BTreeSet<FileName> {
        let paths = self.view.members.keys();
        paths.chain(self.view.claims.keys()).cloned().collect()
    }

    /// The generation of a group that has the names.
    #[must_use]
    pub fn generation(&self, group: &GroupName) -> Option<Generation> {
        winning(&self.groups.get(group)?.entry(&self.writers))
    }

    /// The group that has this path.
    #[must_use]
    pub fn group_at(&self, path: &FileName) -> Option<&GroupName> {
        self.view.members.get(path)?.first()
    }

    /// The groups that there are.
    pub fn groups(&self) -> impl Iterator<Item = &GroupName> {
        self.groups.keys()
    }

    fn member(&self, path: &FileName) -> Option<ContentId> {
        if self.view.members.is_empty() {
            return None;
        }
        self.groups.get(self.group_at(path)?)?.member(path)
    }

    /// The content of an entry that has its own path.
    fn file(&self, path: &FileName) -> Option<ContentId> {
        let content = self.files.get(path)?.content()?;
        if !self.view.placed.is_empty() {
            let placed = self.view.placed.get(&Key::File(path.clone()));
            if placed.is_some_and(|placed| placed.is_displaced) {
                return None;
            }
        }
        Some(content)
    }

    /// Whether something has this path by its own right, and not as a conflict.
    fn is_taken(&self, path: &FileName) -> bool {
        let is_file = self.files.get(path).is_some_and(super::Slot::is_live);
        is_file || self.view.members.contains_key(path)
    }

    fn has_files_below(&self, path: &FileName) -> bool {
        let Some(from) = first_below(path) else {
            return false; // too long for anything to be below it
        };
        let files = self.files.from(Bound::Included(&from));
        let mut files = files.take_while(|(name, _)| is_below(name, path));
        let mut members = self.view.members.range(from.clone()..);
        files.any(|(_, slot)| slot.is_live())
            || members.next().is_some_and(|(name, _)| is_below(name, path))
    }

    /// The keys whose place a change of this one may change, besides its own.
    pub(super) fn affected(&self, key: &Key, old: Option<&Entry>, new: &Entry) -> Affected {
        let mut affected = Affected::from([key.clone()]);
        let appeared = match key {
            Key::File(name) => {
                let was_live = old.is_some_and(|old| !old.live.is_empty());
                let has_turned = was_live == new.live.is_empty();
                has_turned.then(|| name.clone()).into_iter().collect()
            }
            Key::Group(_) => names(old, new),
        };
        for name in appeared {
            affected.extend(self.view.lookers.get(&name).into_iter().flatten().cloned());
            affected.extend(folders(&name).map(Key::File));
            let groups = self.view.members.get(&name).into_iter().flatten();
            affected.extend(groups.cloned().map(Key::Group));
            affected.insert(Key::File(name));
        }
        affected
    }

    /// What the paths have that are the key's own.
    pub(super) fn remember(
        &self,
        key: &Key,
        old: Option<&Entry>,
        new: &Entry,
    ) -> BTreeMap<FileName, Option<ContentId>> {
        let names = match key {
            Key::File(name) => vec![name.clone()],
            Key::Group(_) => names(old, new),
        };
        let wanted = |name: FileName| {
            let wanted = self.wanted(&name);
            (name, wanted)
        };
        names.into_iter().map(wanted).collect()
    }

    /// Finds the places anew.
    pub(super) fn settle(&mut self, key: &Key, affected: Affected, touched: &mut Touched) {
        if let Key::Group(group) = key {
            self.settle_members(group, touched);
        }
        for key in affected {
            let is_known = match &key {
                Key::File(name) => self.files.number(name).is_some(),
                Key::Group(name) => self.groups.contains_key(name),
            };
            if is_known {
                self.place(&key, touched);
            }
        }
    }

    fn settle_members(&mut self, group: &GroupName, touched: &Touched) {
        let now = self.generation(group);
        for name in touched.before.keys() {
            let is_member = now.as_ref().is_some_and(|now| now.content(name).is_some());
            if is_member {
                let groups = self.view.members.entry(name.clone()).or_default();
                groups.insert(group.clone());
            } else if let Some(groups) = self.view.members.get_mut(name) {
                groups.remove(group);
                if groups.is_empty() {
                    self.view.members.remove(name);
                }
            }
        }
    }

    fn place(&mut self, key: &Key, touched: &mut Touched) {
        let is_simple = match key {
            Key::File(name) => {
                let is_one = !self.slot(key).is_some_and(super::Slot::has_conflicts);
                is_one && !self.view.members.contains_key(name) && !self.has_files_below(name)
            }
            Key::Group(_) => false,
        };
        let placed = if is_simple {
            Placed::default()
        } else {
            self.find_place(key)
        };
        let known = self.view.placed.get(key);
        if known.map_or_else(|| placed == Placed::default(), |known| *known == placed) {
            return;
        }
        let known = known.map_or(&[][..], |known| &known.claims);
        let mut names: BTreeSet<FileName> = BTreeSet::new();
        names.extend(known.iter().map(|(name, _)| name.clone()));
        names.extend(placed.claims.iter().map(|(name, _)| name.clone()));
        if let Key::File(name) = key {
            names.insert(name.clone());
        }
        for name in names {
            let before = self.wanted(&name);
            touched.before.entry(name).or_insert(before);
        }
        let old = self.view.placed.remove(key).unwrap_or_default();
        for (name, claim) in old.claims {
            remove(&mut self.view.claims, &name, &claim);
        }
        for name in &old.looked_at {
            remove(&mut self.view.lookers, name, key);
        }
        for (name, claim) in &placed.claims {
            let claims = self.view.claims.entry(name.clone()).or_default();
            claims.insert(claim.clone());
        }
        for name in &placed.looked_at {
            let lookers = self.view.lookers.entry(name.clone()).or_default();
            lookers.insert(key.clone());
        }
        if placed != Placed::default() {
            self.view.placed.insert(key.clone(), placed);
        }
    }

    fn find_place(&self, key: &Key) -> Placed {
        let mut placed = Placed::default();
        let Some(entry) = self.entry(key) else {
            return placed;
        };
        let siblings = entry.siblings();
        for (rank, (dot, version)) in siblings.iter().enumerate() {
            let node = dot.writer.node.as_str();
            match (key, version) {
                (Key::File(path), Version::File(content)) => {
                    let by_group = self.member(path);
                    placed.is_displaced = by_group.is_some() || self.has_files_below(path);
                    let is_shown = if placed.is_displaced {
                        by_group == Some(*content)
                    } else {
                        rank == 0
                    };
                    if !is_shown {
                        self.claim(&mut placed, key, (path, *content), node);
                    }
                }
                (Key::Group(group), Version::Group(generation)) => {
                    let winner = siblings.first().map(|(_, version)| *version);
                    for (path, content) in generation.members() {
                        let is_own = self.group_at(path) == Some(group);
                        let shown = match winner {
                            Some(Version::Group(winner)) if is_own || rank > 0 => {
                                winner.content(path)
                            }
                            _ => self.member(path),
                        };
                        if shown != Some(*content) {
                            self.claim(&mut placed, key, (path, *content), node);
                        }
                    }
                }
                (Key::File(_), Version::Group(_)) | (Key::Group(_), Version::File(_)) => {}
            }
        }
        placed
    }

    fn claim(
        &self,
        placed: &mut Placed,
        key: &Key,
        (path, content): (&FileName, ContentId),
        node: &str,
    ) {
        let claim = Claim {
            key: key.clone(),
            of: path.clone(),
            content,
        };
        if placed.claims.iter().any(|(_, known)| *known == claim) {
            return; // of two generations
        }
        for name in conflict_names(path, node, &content) {
            placed.looked_at.push(name.clone());
            if !self.is_taken(&name) {
                placed.claims.push((name, claim));
                return;
            }
        }
    }
}

/// The names of a group's winners, before and now, and of what is beside them.
fn names(old: Option<&Entry>, new: &Entry) -> Vec<FileName> {
    let old = old.and_then(winning);
    let both = [old, winning(new)];
    let members = both.iter().flatten().flat_map(Generation::members);
    members.map(|(name, _)| name.clone()).collect()
}

fn winning(entry: &Entry) -> Option<Generation> {
    match entry.winner() {
        Some(Version::Group(generation)) => Some(generation.clone()),
        Some(Version::File(_)) | None => None,
    }
}

fn remove<K: Ord, V: Ord>(map: &mut BTreeMap<K, BTreeSet<V>>, key: &K, value: &V) {
    if let Some(values) = map.get_mut(key) {
        values.remove(value);
        if values.is_empty() {
            map.remove(key);
        }
    }
}

/// The folders that a path is in.
pub(in crate::sync) fn folders(path: &FileName) -> impl Iterator<Item = FileName> {
    let text = path.as_str();
    let slashes = text.match_indices('/').map(|(at, _)| at);
    slashes.filter_map(|at| FileName::from_wire(text.get(..at)?.as_bytes()).ok())
}

/// Whether a path is in the folder of that name.
pub(in crate::sync) fn is_below(path: &FileName, folder: &FileName) -> bool {
    let rest = path.as_str().strip_prefix(folder.as_str());
    rest.is_some_and(|rest| rest.starts_with('/'))
}

/// The least name that there can be below a folder.
pub(in crate::sync) fn first_below(folder: &FileName) -> Option<FileName> {
    // A space is the least character that a name may have.
    FileName::from_wire(format!("{folder}/ ").as_bytes()).ok()
}

/// The names that a content may have that is beside its path, the first that is free.
pub(in crate::sync) fn conflict_names(
    path: &FileName,
    node: &str,
    content: &ContentId,
) -> impl Iterator<Item = FileName> {
    let digits = content.hash.to_string();
    let short = format!(".conflict-{node}-{}", digits.get(..16).unwrap_or(&digits));
    let long = format!(".conflict-{node}-{digits}");
    let mut suffixes = vec![short, long.clone()];
    suffixes.extend((2..2 + NUMBERS).map(|number| format!("{long}-{number}")));
    suffixes
        .into_iter()
        .filter_map(move |suffix| beside(path, &suffix))
}

/// The path with this suffix, its last component cut so that it fits.
fn beside(path: &FileName, suffix: &str) -> Option<FileName> {
    let (folder, file) = path.split();
    let before = folder.map_or(0, |folder| folder.len() + 1);
    let room = MAX_COMPONENT.min(MAX_NAME_LEN.checked_sub(before)?);
    let mut cut = room.checked_sub(suffix.len())?.min(file.len());
    while !file.is_char_boundary(cut) {
        cut -= 1;
    }
    let stem = file.get(..cut)?;
    let folder = folder.map_or_else(String::new, |folder| format!("{folder}/"));
    FileName::from_wire(format!("{folder}{stem}{suffix}").as_bytes()).ok()
}
