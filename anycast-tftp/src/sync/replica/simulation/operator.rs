//! What people do to the folders, and what they know when they do it.

use super::world::{Event, MEMBERS, World, is_in_the_way, name};
use super::*;
use crate::sync::content::ContentHash;

const PATHS: [&str; 5] = ["a", "b", "d", "d/x", "d/y"];

impl World {
    fn content(&mut self) -> ContentId {
        self.contents += 1;
        let hash = ContentHash(*blake3::hash(&self.contents.to_be_bytes()).as_bytes());
        ContentId {
            hash,
            size: self.contents,
        }
    }

    /// Whether what is written there counts.
    fn may_write(&self, at: usize) -> bool {
        !self.is_origin || at == 0
    }

    pub(super) fn operate(&mut self) {
        if !self.random.chance(self.faults.edit) {
            return;
        }
        let mut at = self.random.below(self.nodes.len());
        if self.is_origin && self.random.chance(700) {
            at = 0;
        }
        if self.now < self.nodes[at].rests_until {
            return;
        }
        match self.random.below(10) {
            0..=5 => {
                let path = self.some_path(at);
                let content = self.content();
                self.write_file(at, &path, content);
            }
            6 | 7 => {
                let path = self.some_path(at);
                self.remove_file(at, &path);
            }
            8 => self.write_group(at),
            _ => {
                if self.random.chance(300) {
                    for member in MEMBERS {
                        self.remove_file(at, &name(member));
                    }
                }
            }
        }
    }

    /// One of a few, or one that is there, such as a conflict; not of the group.
    fn some_path(&mut self, at: usize) -> FileName {
        if !self.may_write(at) {
            // What the origin does not know stays, and could be in its way.
            return name(self.random.pick(&PATHS[..2]).unwrap());
        }
        let there: Vec<_> = self.nodes[at].files.keys().cloned().collect();
        let is_member = |path: &FileName| MEMBERS.contains(&path.as_str());
        match self.random.pick(&there) {
            Some(path) if !is_member(path) && self.random.chance(500) => path.clone(),
            _ => name(self.random.pick(&PATHS).unwrap()),
        }
    }

    fn write_file(&mut self, at: usize, path: &FileName, content: ContentId) {
        if is_in_the_way(&self.nodes[at].files, path) {
            return;
        }
        self.say(|| format!("n{at}: {path} is written: {content:?}"));
        if let Some(old) = self.nodes[at].files.insert(path.clone(), content) {
            self.replaces(at, old);
        }
        if self.may_write(at) {
            self.written.insert(content);
        }
        self.is_touched(at, path);
    }

    /// The driver hears of it at once, and then looks.
    fn is_touched(&mut self, at: usize, path: &FileName) {
        let delay = self.random.below(60) as u64;
        self.after(delay, at, Event::Changing(path.clone()));
    }

    /// At a mirror it does not count; but it may have been the last copy.
    fn replaces(&mut self, at: usize, old: ContentId) {
        if self.may_write(at) {
            self.replaced.insert(old);
        } else {
            self.lost.insert(old);
        }
    }

    fn remove_file(&mut self, at: usize, path: &FileName) {
        if let Some(old) = self.nodes[at].files.remove(path) {
            self.say(|| format!("n{at}: {path} is removed: {old:?}"));
            self.replaces(at, old);
            self.is_touched(at, path);
        }
    }

    /// Both files of the group, one after the other.
    fn write_group(&mut self, at: usize) {
        if self.nodes[at].is_editing_group {
            return;
        }
        self.nodes[at].is_editing_group = true;
        let members = MEMBERS.map(|member| (name(member), self.content()));
        self.generations.extend(Generation::new(members.to_vec()));
        let [first, second] = members;
        self.write_file(at, &first.0, first.1);
        let delay = self.random.below(1500) as u64;
        self.after(delay, at, Event::WriteMember(first, second));
    }

    /// The second one, unless the first is no longer there: a disk was lost.
    pub(super) fn write_member(
        &mut self,
        at: usize,
        first: &(FileName, ContentId),
        second: &(FileName, ContentId),
    ) {
        self.nodes[at].is_editing_group = false;
        if self.nodes[at].files.get(&first.0) == Some(&first.1) {
            self.write_file(at, &second.0, second.1);
        }
    }

    /// Contents that are on this disk and nowhere else.
    fn only_here(&self, at: usize) -> Vec<ContentId> {
        let node = &self.nodes[at];
        let all = node.files.values().chain(&node.objects).copied();
        let others = || (0..self.nodes.len()).filter(|other| *other != at);
        // What was replaced there, and nobody has heard of it yet, is nowhere either.
        let all = all.chain(self.replaced.iter().copied());
        // An object elsewhere may be let go for the sake of a file that has just been wiped.
        let has_file = |at: usize, content: &ContentId| {
            let mut files = self.nodes[at].files.values();
            files.any(|held| held == content)
        };
        all.filter(|content| !others().any(|other| has_file(other, content)))
            .collect()
    }

    /// Another disk, which is empty; sometimes the state is lost with it.
    pub(super) fn lose_disk(&mut self, at: usize) {
        self.lost.extend(self.only_here(at));
        self.crash(at);
        self.say(|| format!("n{at}: another disk"));
        let node = &mut self.nodes[at];
        node.files.clear();
        node.objects.clear();
        node.marker = None;
        if self.random.chance(self.faults.lose_state) {
            self.nodes[at].log.clear();
        }
    }

    /// All files go, and the disk stays. Nobody means by that that they are to go elsewhere. (One
    /// file could not be told from a deletion.)
    pub(super) fn wipe(&mut self, at: usize) {
        let Some(replica) = &self.nodes[at].replica else {
            return;
        };
        let files = self.nodes[at].files.iter();
        let known = files.filter(|(path, _)| replica.on_disk(path).is_some());
        if known.count() < 2 {
            return;
        }
        self.lost.extend(self.only_here(at));
        let files = std::mem::take(&mut self.nodes[at].files);
        self.say(|| format!("n{at}: wiped"));
        self.nodes[at].rests_until = self.now + 20_000;
        for path in files.into_keys() {
            self.is_touched(at, &path);
        }
    }

    /// Where all files have vanished somebody says that the disk was lost.
    pub(super) fn mend(&mut self, at: usize) {
        let replica = self.nodes[at].replica.as_ref();
        if replica.is_some_and(|replica| replica.is_held) && self.nodes[at].marker.is_some() {
            self.nodes[at].marker = None;
            self.after(0, at, Event::Scan);
        }
    }
}
