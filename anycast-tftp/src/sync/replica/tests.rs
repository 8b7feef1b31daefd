#![allow(clippy::disallowed_methods, reason = "tests start at any time")]

use super::*;
use crate::sync::manifest::Key;
use crate::sync::wire::{Follow, Page};

fn name(text: &str) -> FileName {
    FileName::from_wire(text.as_bytes()).unwrap()
}

fn content(number: u8) -> ContentId {
    ContentId {
        hash: ContentHash([number; 32]),
        size: u64::from(number),
    }
}

fn node(text: &str) -> NodeName {
    NodeName::new(text).unwrap()
}

fn config(of: &str) -> Config {
    let mut config = Config::new(node(of), vec![node("n1"), node("n2")]);
    config.groups = vec![GroupConfig {
        name: "kernel".parse().unwrap(),
        members: vec![name("k/initrd"), name("k/linux")],
    }];
    config
}

/// A replica whose outputs are all done at once, and its log.
struct Driven {
    replica: Replica,
    log: Vec<u8>,
    outputs: Vec<Output>,
    now: Instant,
}

const WALL: u64 = 1_700_000_000_000_000;

fn start(now: Instant) -> Start {
    Start {
        now,
        wall: WALL,
        epoch: 5,
        incarnation: 9,
    }
}

impl Driven {
    fn new(config: Config) -> Self {
        let now = Instant::now();
        let mut driven = Self {
            replica: Replica::new(config, start(now)).unwrap(),
            log: Vec::new(),
            outputs: Vec::new(),
            now,
        };
        driven.replica.handle_root(None, RootId(1));
        driven.scan(&[]);
        driven
    }

    fn scan(&mut self, files: &[(&str, u8)]) {
        self.replica.handle_scan_began();
        for (path, number) in files {
            let ticket = self.replica.ticket();
            let found = (name(path), content(*number));
            self.replica
                .handle_found(self.now, WALL, ticket, &found.0, found.1);
        }
        self.replica.handle_scan_ended(self.now, WALL);
        self.drain();
    }

    fn found(&mut self, path: &str, number: u8) {
        let ticket = self.replica.ticket();
        self.replica
            .handle_found(self.now, WALL, ticket, &name(path), content(number));
        self.drain();
    }

    fn gone(&mut self, path: &str) {
        let ticket = self.replica.ticket();
        self.replica
            .handle_gone(self.now, WALL, ticket, &name(path));
        self.drain();
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.replica.handle_timeout(self.now, WALL);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.replica.poll_output() {
            match &output {
                Output::Record(bytes) => {
                    self.log.extend(bytes);
                    self.replica.handle_recorded(self.now, Ok(()));
                }
                Output::Install { id, .. } | Output::Remove { id, .. } => {
                    self.replica.handle_done(self.now, *id, Ok(()));
                }
                Output::Fetch { content, .. } => {
                    self.replica.handle_fetched(self.now, *content, Ok(()));
                }
                Output::Keep { content, .. } => {
                    self.replica.handle_kept(self.now, *content, Ok(()));
                }
                Output::Mark(_)
                | Output::Cancel(_)
                | Output::Release(_)
                | Output::Look(_)
                | Output::Unserve(_)
                | Output::Follow(_)
                | Output::Changed => {}
            }
            self.outputs.push(output);
        }
    }

    fn page(&self) -> Page {
        let from = Follow { epoch: 0, since: 0 };
        self.replica.page(from, 1 << 20)
    }

    fn wanted(&self, path: &str) -> Option<ContentId> {
        self.replica.manifest().wanted(&name(path))
    }

    fn restored(&self, log: &[u8], piece: usize) -> (Replica, Restored) {
        let mut restore = Restore::new(config("n1"), start(self.now)).unwrap();
        for bytes in log.chunks(piece) {
            restore.handle_bytes(bytes);
        }
        restore.finish()
    }
}

fn some_life() -> Driven {
    let mut driven = Driven::new(config("n1"));
    driven.found("a", 1);
    driven.found("d/x", 2);
    driven.found("a", 3);
    driven.found("k/linux", 4);
    driven.found("k/initrd", 5);
    driven.pass(Duration::from_secs(2));
    driven.gone("d/x");
    driven.pass(Duration::from_secs(2));
    driven
}

#[test]
fn a_restart_knows_what_the_log_says_and_a_snapshot_says_the_same() {
    let driven = some_life();
    let (replica, restored) = driven.restored(&driven.log, 7);
    assert!(!restored.is_torn);
    assert_eq!(restored.valid, u64::try_from(driven.log.len()).unwrap());
    let mut snapshot = Vec::new();
    let mut cursor = None;
    loop {
        let (bytes, next) = driven.replica.snapshot(cursor.as_ref(), 1);
        snapshot.extend(bytes);
        cursor = next;
        if cursor.is_none() {
            break;
        }
    }
    let (other, _) = driven.restored(&snapshot, 1000);
    for replica in [&replica, &other] {
        assert_eq!(
            replica.manifest().digest(),
            driven.replica.manifest().digest()
        );
        assert_eq!(replica.writer, driven.replica.writer);
        assert_eq!(replica.root, driven.replica.root);
        for path in ["a", "d/x", "k/linux", "k/initrd"].map(name) {
            assert_eq!(replica.on_disk(&path), driven.replica.on_disk(&path));
        }
    }
    assert!(
        replica.counter
            >= driven
                .replica
                .manifest()
                .entry(&Key::File(name("a")))
                .unwrap()
                .seen()[&replica.writer]
    );
}

#[test]
fn a_log_that_is_cut_anywhere_is_read_up_to_its_last_whole_frame() {
    let driven = some_life();
    for cut in 0..driven.log.len() {
        let (_, restored) = driven.restored(&driven.log[..cut], 64);
        let valid = usize::try_from(restored.valid).unwrap();
        assert!(valid <= cut);
        assert_eq!(restored.is_torn, valid < cut);
    }
}

/// `SYNC_WRITE_CORPUS=1` writes the corpus of the fuzz target `sync_log` anew.
#[test]
fn the_corpus_of_logs_is_of_logs_as_they_are_written() {
    let log = some_life().log;
    let mut damaged = log.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    let files: [(&str, &[u8]); 5] = [
        ("whole", &log),
        ("torn", &log[..log.len() - 5]),
        ("damaged", &damaged),
        ("empty", &[]),
        ("long", &[0xff; 16]),
    ];
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/sync_log");
    for (file, bytes) in files {
        let path = format!("{folder}/{file}");
        if std::env::var_os("SYNC_WRITE_CORPUS").is_some() {
            std::fs::write(&path, bytes).unwrap();
        }
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "{file}");
    }
}

#[test]
fn nobody_is_told_of_what_is_not_on_the_disk_yet() {
    let mut driven = Driven::new(config("n1"));
    let ticket = driven.replica.ticket();
    driven
        .replica
        .handle_found(driven.now, WALL, ticket, &name("a"), content(1));
    let Some(Output::Record(bytes)) = driven.replica.poll_output() else {
        panic!("nothing is recorded");
    };
    assert_eq!(driven.replica.poll_output(), None);
    assert!(driven.page().entries.is_empty());
    driven
        .replica
        .handle_recorded(driven.now, Err("full".into()));
    assert_eq!(driven.replica.poll_output(), None);
    assert!(driven.page().entries.is_empty());
    driven.now += Duration::from_secs(1);
    driven.replica.handle_timeout(driven.now, WALL);
    assert_eq!(driven.replica.poll_output(), Some(Output::Record(bytes)));
    driven.replica.handle_recorded(driven.now, Ok(()));
    assert_eq!(driven.replica.poll_output(), Some(Output::Changed));
    assert_eq!(driven.page().entries.len(), 1);
}

#[test]
fn when_all_files_vanish_nothing_is_deleted_until_it_is_forced() {
    let mut driven = Driven::new(config("n1"));
    driven.found("a", 1);
    driven.found("b", 2);
    driven.gone("a");
    driven.gone("b");
    driven.pass(Duration::from_secs(600));
    assert_eq!(driven.wanted("a"), Some(content(1)));
    assert!(!driven.replica.status(driven.now).ready);
    driven.replica.force(driven.now, WALL);
    assert_eq!(driven.wanted("a"), None);
}

#[test]
fn a_folder_without_its_marker_is_filled_again_and_deletes_nothing() {
    let mut driven = Driven::new(config("n1"));
    driven.found("a", 1);
    driven.found("b", 2);
    driven.outputs.clear();
    driven.replica.handle_root(None, RootId(77));
    driven.scan(&[]);
    assert_eq!(driven.wanted("a"), Some(content(1)));
    assert!(driven.outputs.contains(&Output::Mark(RootId(77))));
    let fetched = |output: &&Output| matches!(output, Output::Fetch { .. });
    assert_eq!(driven.outputs.iter().filter(fetched).count(), 2);
    assert_eq!(driven.replica.on_disk(&name("b")), Some(content(2)));
}

#[test]
fn what_was_seen_before_an_install_is_no_edit() {
    let mut driven = Driven::new(config("n1"));
    driven.found("a", 1);
    let old = driven.replica.ticket();
    let mut other = Driven::new(config("n2"));
    other
        .replica
        .handle_page(other.now, &node("n1"), &driven.page());
    other.drain();
    other.found("a", 2);
    driven
        .replica
        .handle_page(driven.now, &node("n2"), &other.page());
    driven.drain();
    assert_eq!(driven.replica.on_disk(&name("a")), Some(content(2)));
    driven
        .replica
        .handle_found(driven.now, WALL, old, &name("a"), content(1));
    driven.drain();
    assert_eq!(driven.outputs.last(), Some(&Output::Look(name("a"))));
    assert_eq!(driven.wanted("a"), Some(content(2)));
}

#[test]
fn a_mirror_takes_from_the_origin_and_repairs_what_is_changed_there() {
    let mut origin = Driven::new(config("n1"));
    origin.found("a", 1);
    let mut settings = config("n2");
    settings.mode = Mode::Origin(node("n1"));
    let mut mirror = Driven::new(settings);
    mirror
        .replica
        .handle_page(mirror.now, &node("n1"), &origin.page());
    mirror.drain();
    mirror.found("a", 9);
    assert_eq!(mirror.replica.on_disk(&name("a")), Some(content(1)));
    mirror.found("stray", 7);
    assert_eq!(mirror.wanted("stray"), None);
    assert_eq!(
        mirror.replica.manifest().digest(),
        origin.replica.manifest().digest()
    );
    // Another mirror that publishes is not heard.
    let mut other = Driven::new(config("n3"));
    other.found("a", 8);
    mirror
        .replica
        .handle_page(mirror.now, &node("n2"), &other.page());
    mirror
        .replica
        .handle_page(mirror.now, &node("n1"), &origin.page());
    mirror.drain();
    assert_eq!(mirror.wanted("a"), Some(content(1)));
}

#[test]
fn half_a_group_is_not_published_and_force_puts_it_beside() {
    let mut driven = Driven::new(config("n1"));
    driven.found("k/linux", 1);
    driven.pass(Duration::from_secs(60));
    assert_eq!(driven.wanted("k/linux"), None);
    driven.found("k/initrd", 2);
    driven.pass(Duration::from_secs(1));
    assert_eq!(driven.wanted("k/linux"), None);
    driven.pass(Duration::from_secs(1));
    assert_eq!(driven.wanted("k/linux"), Some(content(1)));
    assert_eq!(
        driven.replica.generations(&"kernel".parse().unwrap()).len(),
        1
    );
    driven.found("k/linux", 3);
    driven.gone("k/initrd");
    driven.pass(Duration::from_secs(60));
    assert_eq!(driven.wanted("k/linux"), Some(content(1)));
    assert!(!driven.replica.status(driven.now).ready);
    driven.replica.force(driven.now, WALL);
    driven.drain();
    assert_eq!(driven.replica.on_disk(&name("k/linux")), Some(content(1)));
    assert_eq!(driven.replica.on_disk(&name("k/initrd")), Some(content(2)));
    let beside = "k/linux.conflict-n1-0303030303030303";
    assert_eq!(driven.replica.on_disk(&name(beside)), Some(content(3)));
}

#[test]
fn a_node_is_ready_once_it_has_all_that_it_hears_of_and_never_for_hearing_nothing_at_once() {
    let mut driven = Driven::new(config("n1"));
    assert!(!driven.replica.status(driven.now).ready);
    driven.replica.handle_peer_up(driven.now, &node("n2"));
    let mut other = Driven::new(config("n2"));
    other.found("a", 1);
    driven
        .replica
        .handle_head(driven.now, &node("n2"), other.replica.head());
    assert!(!driven.replica.status(driven.now).ready);
    driven
        .replica
        .handle_page(driven.now, &node("n2"), &other.page());
    driven.drain();
    assert!(driven.replica.status(driven.now).ready);
    driven.replica.handle_peer_down(&node("n2"));
    driven.pass(Duration::from_secs(3600));
    assert!(driven.replica.status(driven.now).ready);
    // One that never heard anybody waits a while.
    let mut alone = Driven::new(config("n1"));
    assert!(!alone.replica.status(alone.now).ready);
    alone.pass(Duration::from_secs(10));
    assert!(alone.replica.status(alone.now).ready);
}
