//! Nodes, disks, a network; virtual time in milliseconds.

use super::*;
use crate::sync::wire::{Follow, Page};

pub(super) const GROUP: &str = "kernel";
pub(super) const MEMBERS: [&str; 2] = ["k/initrd", "k/linux"];

pub(super) fn name(text: &str) -> FileName {
    FileName::from_wire(text.as_bytes()).unwrap()
}

/// How often what goes wrong, in a thousand.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Faults {
    pub(super) crash: usize,
    pub(super) drop: usize,
    pub(super) twice: usize,
    pub(super) cut: usize,
    pub(super) lose_disk: usize,
    pub(super) lose_state: usize,
    pub(super) wipe: usize,
    pub(super) full: usize,
    pub(super) edit: usize,
    pub(super) slow: usize,
}

impl Faults {
    /// Each kind in some of the runs only, so that runs differ in kind.
    pub(super) fn some(random: &mut Random) -> Self {
        let mut one = |permille: usize| if random.chance(600) { permille } else { 0 };
        Self {
            crash: one(3),
            drop: one(100),
            twice: one(100),
            cut: one(30),
            lose_disk: one(4),
            lose_state: one(150),
            wipe: one(4),
            full: one(20),
            edit: 150,
            slow: one(400),
        }
    }
}

#[derive(Debug, Clone)]
pub(super) enum Saying {
    Page(Page),
    Head(Head),
    Follow(Follow),
}

#[derive(Debug, Clone)]
pub(super) enum Event {
    Tick,
    Restart(usize),
    /// Something happens to a path.
    Changing(FileName),
    /// A look at a path begins.
    Look(FileName),
    /// And ends.
    Seen(Ticket, FileName, Option<ContentId>),
    Scan,
    Scanned(Ticket, Vec<(FileName, ContentId)>),
    ScanEnds,
    Execute(Output),
    Done(JobId, Result<(), DiskError>),
    Kept(ContentId, Result<(), DiskError>),
    Fetched(ContentId, Result<(), FetchError>),
    Heard(usize, u64, Saying),
    /// The second file of a group that an operator is replacing.
    WriteMember((FileName, ContentId), (FileName, ContentId)),
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) replica: Option<Replica>,
    pub(super) boot: u64,
    pub(super) log: Vec<u8>,
    pub(super) files: BTreeMap<FileName, ContentId>,
    pub(super) objects: BTreeSet<ContentId>,
    pub(super) marker: Option<RootId>,
    pub(super) served: BTreeMap<GroupName, Generation>,
    pub(super) followers: BTreeMap<usize, Follow>,
    pub(super) is_full: bool,
    pub(super) is_editing_group: bool,
    /// Until when nobody touches a folder that was wiped.
    pub(super) rests_until: u64,
    pub(super) skew: u64,
    counts: Counts,
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) random: Random,
    pub(super) now: u64,
    base: Instant,
    pub(super) is_origin: bool,
    pub(super) nodes: Vec<Node>,
    pub(super) faults: Faults,
    /// Pairs that cannot talk.
    cut: BTreeSet<(usize, usize)>,
    events: BTreeMap<(u64, u64), (usize, u64, Event)>,
    serial: u64,
    pub(super) contents: u64,
    /// Contents that somebody replaced or deleted knowingly.
    pub(super) replaced: BTreeSet<ContentId>,
    /// Contents that were nowhere else when a disk was lost.
    pub(super) lost: BTreeSet<ContentId>,
    /// All that were written where it counts, once.
    pub(super) written: BTreeSet<ContentId>,
    /// Generations that an operator has made.
    pub(super) generations: BTreeSet<Generation>,
    pub(super) is_healed: bool,
}

impl World {
    #[allow(clippy::disallowed_methods, reason = "virtual time starts at any time")]
    pub(super) fn new(mut random: Random, count: usize, is_origin: bool) -> Self {
        let node = |random: &mut Random| Node {
            replica: None,
            boot: 0,
            log: Vec::new(),
            files: BTreeMap::new(),
            objects: BTreeSet::new(),
            marker: None,
            served: BTreeMap::new(),
            followers: BTreeMap::new(),
            is_full: false,
            is_editing_group: false,
            rests_until: 0,
            skew: random.next() % 3_600_000_000,
            counts: Counts::default(),
        };
        let nodes = (0..count).map(|_| node(&mut random)).collect();
        let mut world = Self {
            random,
            now: 0,
            base: Instant::now(),
            is_origin,
            nodes,
            faults: Faults::default(),
            cut: BTreeSet::new(),
            events: BTreeMap::new(),
            serial: 0,
            contents: 0,
            replaced: BTreeSet::new(),
            lost: BTreeSet::new(),
            written: BTreeSet::new(),
            generations: BTreeSet::new(),
            is_healed: false,
        };
        for at in 0..count {
            world.after(0, at, Event::Restart(at));
        }
        world.after(50, 0, Event::Tick);
        world
    }

    fn node_name(at: usize) -> NodeName {
        NodeName::new(&format!("n{at}")).unwrap()
    }

    pub(super) fn instant(&self) -> Instant {
        self.base + Duration::from_millis(self.now)
    }

    pub(super) fn wall(&self, at: usize) -> u64 {
        1_700_000_000_000_000 + self.now * 1000 + self.nodes[at].skew
    }

    /// An event of this life of the node.
    pub(super) fn after(&mut self, delay: u64, at: usize, event: Event) {
        self.serial += 1;
        let boot = self.nodes[at].boot;
        let key = (self.now + delay, self.serial);
        self.events.insert(key, (at, boot, event));
    }

    fn delay(&mut self) -> u64 {
        if self.random.chance(self.faults.slow) {
            return self.random.below(4000) as u64;
        }
        self.random.below(60) as u64
    }

    pub(super) fn later(&mut self, at: usize, event: Event) {
        let delay = self.delay();
        self.after(delay, at, event);
    }

    /// The next event, unless it is after `until`.
    pub(super) fn step(&mut self, until: u64) -> bool {
        let Some(((time, _), (at, boot, event))) = self.events.pop_first() else {
            return false;
        };
        self.now = self.now.max(time);
        let is_of_this_life = boot == self.nodes[at].boot;
        match event {
            Event::Tick => self.tick(),
            Event::Restart(at) => self.restart(at),
            Event::WriteMember(first, second) => self.write_member(at, &first, &second),
            Event::Changing(_)
            | Event::Look(_)
            | Event::Seen(..)
            | Event::Scan
            | Event::Scanned(..)
            | Event::ScanEnds
            | Event::Execute(_)
            | Event::Done(..)
            | Event::Kept(..)
            | Event::Fetched(..)
            | Event::Heard(..) => {
                if is_of_this_life {
                    self.handle(at, event);
                    self.drain(at);
                }
            }
        }
        self.now < until
    }

    fn tick(&mut self) {
        self.after(100, 0, Event::Tick);
        if !self.is_healed {
            self.operate();
            self.disturb();
        }
        for at in 0..self.nodes.len() {
            let (now, wall) = (self.instant(), self.wall(at));
            if self.is_healed {
                self.mend(at);
            }
            if let Some(replica) = &mut self.nodes[at].replica
                && replica.poll_timeout().is_some_and(|(due, _)| due <= now)
            {
                replica.handle_timeout(now, wall);
            }
            self.drain(at);
            if self.random.chance(100) {
                self.tell(at);
            }
            if self.random.chance(10) {
                self.after(0, at, Event::Scan);
            }
        }
    }

    fn disturb(&mut self) {
        let faults = self.faults;
        let count = self.nodes.len();
        let at = self.random.below(count);
        let other = self.random.below(count);
        if self.random.chance(faults.cut) && at != other {
            let pair = (at.min(other), at.max(other));
            if !self.cut.remove(&pair) {
                self.cut.insert(pair);
            }
            self.meet(at, other);
        }
        if self.random.chance(faults.full) {
            self.nodes[at].is_full = !self.nodes[at].is_full;
        }
        if self.random.chance(faults.lose_disk) {
            self.lose_disk(at);
        }
        if self.random.chance(faults.crash) {
            self.crash(at);
        }
        if self.random.chance(faults.wipe) {
            self.wipe(at);
        }
    }

    fn can_talk(&self, a: usize, b: usize) -> bool {
        let are_up = self.nodes[a].replica.is_some() && self.nodes[b].replica.is_some();
        a != b && are_up && !self.cut.contains(&(a.min(b), a.max(b)))
    }

    /// Tells two nodes whether they hear each other.
    fn meet(&mut self, a: usize, b: usize) {
        let now = self.instant();
        let can = self.can_talk(a, b);
        for (one, other) in [(a, b), (b, a)] {
            self.nodes[one].followers.remove(&other);
            let other = Self::node_name(other);
            if let Some(replica) = &mut self.nodes[one].replica {
                replica.handle_peer_down(&other);
                if can {
                    replica.handle_peer_up(now, &other);
                }
            }
            self.drain(one);
        }
    }

    pub(super) fn crash(&mut self, at: usize) {
        let Some(replica) = self.nodes[at].replica.take() else {
            return;
        };
        self.say(|| format!("n{at} crashes"));
        let sum = &mut self.nodes[at].counts;
        let counts = replica.counts();
        sum.edits += counts.edits;
        sum.deletions += counts.deletions;
        sum.installed += counts.installed;
        sum.removed += counts.removed;
        sum.merged += counts.merged;
        sum.lost += counts.lost;
        sum.repaired += counts.repaired;
        sum.failed += counts.failed;
        self.nodes[at].boot += 1;
        self.nodes[at].served.clear();
        for other in 0..self.nodes.len() {
            self.nodes[other].followers.remove(&at);
            if let Some(replica) = &mut self.nodes[other].replica {
                replica.handle_peer_down(&Self::node_name(at));
            }
        }
        let delay = self.random.below(5000) as u64;
        self.after(delay, at, Event::Restart(at));
    }

    fn config(&self, at: usize) -> Config {
        let peers = (0..self.nodes.len()).map(Self::node_name).collect();
        let mut config = Config::new(Self::node_name(at), peers);
        config.groups = vec![GroupConfig {
            name: GROUP.parse().unwrap(),
            members: MEMBERS.map(name).to_vec(),
        }];
        config.fetches = 3;
        config.installs = 2;
        config.hold = Duration::from_secs(20);
        if self.is_origin {
            config.mode = Mode::Origin(Self::node_name(0));
        }
        config
    }

    fn restart(&mut self, at: usize) {
        if self.nodes[at].replica.is_some() {
            return;
        }
        let start = Start {
            now: self.instant(),
            wall: self.wall(at),
            epoch: self.random.next(),
            incarnation: self.random.next(),
        };
        let mut restore = Restore::new(self.config(at), start).unwrap();
        let piece = 1 + self.random.below(500);
        for bytes in self.nodes[at].log.chunks(piece) {
            restore.handle_bytes(bytes);
        }
        let (mut replica, restored) = restore.finish();
        let valid = usize::try_from(restored.valid).unwrap();
        self.nodes[at].log.truncate(valid);
        if self.random.chance(200) {
            let mut log = Vec::new();
            let mut cursor = None;
            loop {
                let (piece, next) = replica.snapshot(cursor.as_ref(), 300);
                log.extend(piece);
                cursor = next;
                if cursor.is_none() {
                    break;
                }
            }
            self.nodes[at].log = log;
        }
        let now = self.instant();
        for content in self.nodes[at].objects.clone() {
            replica.handle_kept(now, content, Ok(()));
        }
        self.nodes[at].replica = Some(replica);
        self.nodes[at].followers.clear();
        self.after(0, at, Event::Scan);
        for other in 0..self.nodes.len() {
            if other != at {
                self.meet(at, other);
            }
        }
        self.drain(at);
    }

    /// What happens, where `SYNC_TRACE` is set.
    pub(super) fn say(&self, what: impl Fn() -> String) {
        say(self.now, what);
    }

    fn handle(&mut self, at: usize, event: Event) {
        if !matches!(event, Event::Heard(..) | Event::Tick) {
            self.say(|| format!("n{at} hears {event:?}"));
        }
        let (now, wall) = (self.instant(), self.wall(at));
        let fresh = RootId(self.random.next());
        let node = &mut self.nodes[at];
        let Some(replica) = &mut node.replica else {
            return;
        };
        match event {
            Event::Changing(path) => {
                replica.handle_changing(now, &path);
                self.later(at, Event::Look(path));
            }
            Event::Look(path) => {
                let seen = node.files.get(&path).copied();
                let event = Event::Seen(replica.ticket(), path, seen);
                self.later(at, event);
            }
            Event::Seen(ticket, path, Some(content)) => {
                replica.handle_found(now, wall, ticket, &path, content);
            }
            Event::Seen(ticket, path, None) => replica.handle_gone(now, wall, ticket, &path),
            Event::Scan => {
                replica.handle_root(node.marker, fresh);
                replica.handle_scan_began();
                let files = node
                    .files
                    .iter()
                    .map(|(path, content)| (path.clone(), *content));
                let scanned = Event::Scanned(replica.ticket(), files.collect());
                let delay = self.delay();
                self.after(delay, at, scanned);
                self.after(delay + 30, at, Event::ScanEnds);
            }
            Event::Scanned(ticket, files) => {
                for (path, content) in files {
                    replica.handle_found(now, wall, ticket, &path, content);
                }
            }
            Event::ScanEnds => replica.handle_scan_ended(now, wall),
            Event::Done(id, result) => replica.handle_done(now, id, result),
            Event::Kept(content, result) => replica.handle_kept(now, content, result),
            Event::Fetched(content, result) => replica.handle_fetched(now, content, result),
            Event::Heard(from, boot, saying) => self.hear(at, from, boot, saying),
            Event::Execute(output) => self.execute(at, output),
            Event::Tick | Event::Restart(_) | Event::WriteMember(..) => {}
        }
    }

    fn hear(&mut self, at: usize, from: usize, boot: u64, saying: Saying) {
        if boot != self.nodes[from].boot || !self.can_talk(at, from) {
            return;
        }
        let now = self.instant();
        let peer = Self::node_name(from);
        let Some(replica) = &mut self.nodes[at].replica else {
            return;
        };
        match saying {
            Saying::Page(page) => replica.handle_page(now, &peer, &page),
            Saying::Head(head) => replica.handle_head(now, &peer, head),
            Saying::Follow(follow) => {
                self.nodes[at].followers.insert(from, follow);
                self.tell(at);
            }
        }
    }

    fn send(&mut self, from: usize, to: usize, saying: Saying) {
        if !self.can_talk(from, to) {
            return;
        }
        let times = 1 + usize::from(self.random.chance(self.faults.twice));
        for _ in 0..times {
            if !self.random.chance(self.faults.drop) {
                let boot = self.nodes[from].boot;
                self.later(to, Event::Heard(from, boot, saying.clone()));
            }
        }
    }

    /// All followers are told what they have not been told yet.
    fn tell(&mut self, at: usize) {
        let budget = 1 + self.random.below(600);
        for (to, mut follow) in self.nodes[at].followers.clone() {
            loop {
                let Some(replica) = &self.nodes[at].replica else {
                    return;
                };
                let page = replica.page(follow, budget);
                let is_last = page.entries.is_empty();
                (follow.epoch, follow.since) = (page.epoch, page.upto);
                if is_last {
                    break;
                }
                self.send(at, to, Saying::Page(page));
            }
            self.nodes[at].followers.insert(to, follow);
            let head = self.nodes[at].replica.as_ref().map(Replica::head);
            head.into_iter()
                .for_each(|head| self.send(at, to, Saying::Head(head)));
        }
    }

    /// Does what the replica says, unless the node crashes meanwhile.
    fn drain(&mut self, at: usize) {
        loop {
            let now = self.instant();
            let crashes = self.random.chance(self.faults.crash);
            let Some(replica) = &mut self.nodes[at].replica else {
                return;
            };
            let Some(output) = replica.poll_output() else {
                return;
            };
            if !matches!(output, Output::Record(_) | Output::Changed) {
                let (now, output) = (self.now, &output);
                say(now, || format!("n{at} says {output:?}"));
            }
            match output {
                Output::Record(bytes) if crashes => {
                    let cut = self.random.below(bytes.len());
                    self.nodes[at].log.extend(&bytes[..cut]);
                }
                Output::Record(bytes) => {
                    replica.handle_recorded(now, Ok(()));
                    self.nodes[at].log.extend(&bytes);
                }
                Output::Mark(root) => self.nodes[at].marker = Some(root),
                Output::Changed => self.tell(at),
                Output::Look(path) => self.later(at, Event::Look(path)),
                Output::Follow(peer) => {
                    let follow = replica.follow(&peer);
                    let to = (0..self.nodes.len()).find(|to| Self::node_name(*to) == peer);
                    self.send(at, to.unwrap(), Saying::Follow(follow));
                }
                Output::Cancel(_) => {}
                Output::Release(content) => {
                    self.nodes[at].objects.remove(&content);
                }
                Output::Unserve(group) => {
                    self.nodes[at].served.remove(&group);
                }
                output @ (Output::Fetch { .. }
                | Output::Keep { .. }
                | Output::Install { .. }
                | Output::Remove { .. }) => self.later(at, Event::Execute(output)),
            }
            if crashes {
                self.crash(at);
            }
        }
    }

    pub(super) fn holds(&self, at: usize, content: &ContentId) -> bool {
        let node = &self.nodes[at];
        node.objects.contains(content) || node.files.values().any(|held| held == content)
    }

    fn execute(&mut self, at: usize, output: Output) {
        match output {
            Output::Fetch { content, from, .. } => {
                let peers =
                    (0..self.nodes.len()).filter(|peer| from.contains(&Self::node_name(*peer)));
                let mut reachable = peers.filter(|peer| self.can_talk(at, *peer));
                let result = if self.nodes[at].is_full {
                    Err(FetchError::Full)
                } else if reachable.any(|peer| self.holds(peer, &content)) {
                    self.nodes[at].objects.insert(content);
                    Ok(())
                } else {
                    Err(FetchError::Absent)
                };
                self.later(at, Event::Fetched(content, result));
            }
            Output::Keep { content, path } => {
                let result = if self.nodes[at].files.get(&path) == Some(&content) {
                    self.nodes[at].objects.insert(content);
                    Ok(())
                } else {
                    Err(DiskError::Differs(path))
                };
                self.later(at, Event::Kept(content, result));
            }
            Output::Install { id, items, group } => {
                let result = self.install(at, &items, group);
                if self.random.chance(self.faults.crash * 10) {
                    self.crash(at);
                }
                if self.nodes[at].replica.is_none() {
                    return;
                }
                self.later(at, Event::Done(id, result));
            }
            Output::Remove {
                id,
                path,
                expecting,
            } => {
                let files = &mut self.nodes[at].files;
                let result = if files.get(&path) == Some(&expecting) {
                    files.remove(&path);
                    Ok(())
                } else {
                    Err(DiskError::Differs(path))
                };
                if self.random.chance(self.faults.crash * 10) {
                    self.crash(at);
                    return;
                }
                self.later(at, Event::Done(id, result));
            }
            Output::Record(_)
            | Output::Mark(_)
            | Output::Cancel(_)
            | Output::Release(_)
            | Output::Look(_)
            | Output::Unserve(_)
            | Output::Follow(_)
            | Output::Changed => {}
        }
    }

    fn install(
        &mut self,
        at: usize,
        items: &[Item],
        group: Option<(GroupName, Generation)>,
    ) -> Result<(), DiskError> {
        let crash = self.faults.crash * 10;
        if self.now < self.nodes[at].rests_until {
            return Err(DiskError::Other("the disk is being wiped".into()));
        }
        let node = &mut self.nodes[at];
        for item in items {
            if node.files.get(&item.path).copied() != item.expecting {
                return Err(DiskError::Differs(item.path.clone()));
            }
            let has_source = match &item.source {
                Source::Kept => node.objects.contains(&item.content),
                Source::Path(path) => node.files.get(path) == Some(&item.content),
            };
            if !has_source {
                return Err(DiskError::Source(item.content.hash));
            }
            if node.is_full && item.expecting != Some(item.content) && self.random.chance(300) {
                return Err(DiskError::Full);
            }
            if is_in_the_way(&node.files, &item.path) {
                return Err(DiskError::Other("something is in its way".into()));
            }
        }
        if let Some((group, generation)) = group {
            let contents = generation.members().iter().map(|(_, content)| *content);
            node.objects.extend(contents);
            node.served.insert(group, generation);
        }
        for item in items {
            self.nodes[at].files.insert(item.path.clone(), item.content);
            if self.random.chance(crash) {
                self.crash(at);
                break;
            }
        }
        Ok(())
    }

    /// Everything works from now on, and nobody edits.
    pub(super) fn heal(&mut self) {
        self.faults = Faults::default();
        self.is_healed = true;
        self.cut.clear();
        for at in 0..self.nodes.len() {
            self.nodes[at].is_full = false;
            self.restart(at);
        }
        for a in 0..self.nodes.len() {
            for b in 0..a {
                self.meet(a, b);
            }
        }
    }

    /// Sums over all lives.
    pub(super) fn counts(&mut self) -> Counts {
        let mut sum = Counts::default();
        for at in 0..self.nodes.len() {
            self.crash(at);
            let counts = self.nodes[at].counts;
            sum.edits += counts.edits;
            sum.deletions += counts.deletions;
            sum.installed += counts.installed;
            sum.removed += counts.removed;
            sum.merged += counts.merged;
            sum.lost += counts.lost;
            sum.repaired += counts.repaired;
            sum.failed += counts.failed;
        }
        sum
    }
}

fn say(now: u64, what: impl Fn() -> String) {
    static IS_ON: std::sync::LazyLock<bool> =
        std::sync::LazyLock::new(|| std::env::var_os("SYNC_TRACE").is_some());
    if *IS_ON {
        println!("{now}: {}", what());
    }
}

/// A file where a folder is to be, or files where a file is to be.
pub(super) fn is_in_the_way(files: &BTreeMap<FileName, ContentId>, path: &FileName) -> bool {
    let is_in = |a: &FileName, b: &FileName| crate::sync::manifest::is_below(a, b);
    files
        .keys()
        .any(|file| is_in(file, path) || is_in(path, file))
}
