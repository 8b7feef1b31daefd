use proptest::prelude::*;

use super::*;
use crate::sync::content::ContentHash;
use crate::sync::wire;

fn name(text: &str) -> FileName {
    FileName::from_wire(text.as_bytes()).unwrap()
}

fn content(number: u8) -> ContentId {
    ContentId {
        hash: ContentHash([number; 32]),
        size: u64::from(number),
    }
}

fn writer(number: u8) -> Writer {
    Writer {
        node: format!("n{number}").parse().unwrap(),
        incarnation: 7,
    }
}

/// Few names, so that they meet: among them a folder, and the name of a conflict.
fn key(number: u8) -> Key {
    let names = ["a", "b", "b/c", "g/1"];
    match names.get(usize::from(number)) {
        Some(text) => Key::File(name(text)),
        None => Key::Group("group".parse().unwrap()),
    }
}

fn version(key: &Key, number: u8) -> Version {
    match key {
        Key::File(_) => Version::File(content(number)),
        Key::Group(_) => {
            let members = vec![(name("g/1"), content(number)), (name("g/2"), content(1))];
            Version::Group(Generation::new(members).unwrap())
        }
    }
}

/// What happens to a few copies.
#[derive(Debug, Clone)]
enum Step {
    /// Writes, having seen all that the copy has, or nothing of it.
    Write {
        at: usize,
        key: u8,
        content: u8,
        knowingly: bool,
    },
    Delete {
        at: usize,
        key: u8,
    },
    Hear {
        at: usize,
        from: usize,
    },
}

const COPIES: usize = 3;

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..COPIES, 0..5_u8, 0..6_u8, any::<bool>()).prop_map(|(at, key, content, knowingly)| {
            Step::Write {
                at,
                key,
                content,
                knowingly,
            }
        }),
        (0..COPIES, 0..5_u8).prop_map(|(at, key)| Step::Delete { at, key }),
        (0..COPIES, 0..COPIES).prop_map(|(at, from)| Step::Hear { at, from }),
    ]
}

#[derive(Debug, Default)]
struct Fleet {
    copies: Vec<Manifest>,
    counter: u64,
    /// Dots that somebody removed who had seen them.
    removed: BTreeSet<(Key, Dot)>,
    written: BTreeSet<(Key, Dot)>,
}

impl Fleet {
    fn run(steps: &[Step]) -> Self {
        let mut fleet = Self {
            copies: (0..COPIES).map(|_| Manifest::new(100)).collect(),
            ..Self::default()
        };
        for step in steps {
            fleet.step(step);
        }
        fleet
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Write {
                at,
                key: number,
                content,
                knowingly,
            } => {
                let key = key(number);
                self.counter += 1;
                let dot = Dot {
                    counter: self.counter,
                    writer: writer(u8::try_from(at).unwrap()),
                };
                if knowingly {
                    self.remove(at, &key);
                }
                self.written.insert((key.clone(), dot.clone()));
                let version = version(&key, content);
                self.copies[at]
                    .write(&key, dot, version, |_| knowingly)
                    .unwrap();
            }
            Step::Delete { at, key: number } => {
                let key = key(number);
                self.remove(at, &key);
                self.copies[at].erase(&key, |_| true).unwrap();
            }
            Step::Hear { at, from } => {
                let entries: Vec<_> = self.copies[from].entries_after(None).collect();
                for (key, entry) in entries {
                    self.copies[at].merge(&key, &entry).unwrap();
                }
            }
        }
    }

    fn remove(&mut self, at: usize, key: &Key) {
        let entry = self.copies[at].entry(key).unwrap_or_default();
        let dots = entry.live().keys().map(|dot| (key.clone(), dot.clone()));
        self.removed.extend(dots);
    }

    fn entries(&self, at: usize) -> Vec<(Key, Entry)> {
        self.copies[at].entries_after(None).collect()
    }
}

fn merged(parts: &[&[(Key, Entry)]]) -> Manifest {
    let mut manifest = Manifest::new(100);
    for (key, entry) in parts.iter().copied().flatten() {
        manifest.merge(key, entry).unwrap();
    }
    manifest
}

fn is_same(a: &Manifest, b: &Manifest) -> bool {
    let is_equal = a.entries_after(None).eq(b.entries_after(None));
    assert_eq!(is_equal, a.digest() == b.digest(), "digests");
    assert!(!is_equal || a.view() == b.view(), "views");
    is_equal
}

proptest! {
    #[test]
    fn merge_is_commutative_associative_and_idempotent(steps in prop::collection::vec(step(), 0..40)) {
        let fleet = Fleet::run(&steps);
        let [a, b, c] = [0, 1, 2].map(|at| fleet.entries(at));
        let abc = merged(&[&a, &b, &c]);
        prop_assert!(is_same(&abc, &merged(&[&c, &a, &b])));
        prop_assert!(is_same(&abc, &merged(&[&b, &c, &b, &a, &a])));
        let bc: Vec<_> = merged(&[&b, &c]).entries_after(None).collect();
        prop_assert!(is_same(&abc, &merged(&[&a, &bc])));
    }

    #[test]
    fn equal_digests_are_equal_manifests_and_equal_views(steps in prop::collection::vec(step(), 0..40)) {
        let fleet = Fleet::run(&steps);
        for a in &fleet.copies {
            for b in &fleet.copies {
                is_same(a, b);
            }
        }
    }

    #[test]
    fn what_nobody_knowingly_replaced_is_live_and_shown_and_nothing_else_is(steps in prop::collection::vec(step(), 0..40)) {
        let fleet = Fleet::run(&steps);
        let [a, b, c] = [0, 1, 2].map(|at| fleet.entries(at));
        let all = merged(&[&a, &b, &c]);
        let shown: BTreeSet<ContentId> = all.view().into_values().collect();
        for (key, dot) in &fleet.written {
            let entry = all.entry(key).unwrap();
            let is_live = entry.live().contains_key(dot);
            prop_assert_eq!(is_live, !fleet.removed.contains(&(key.clone(), dot.clone())));
            if let Some(Version::File(content)) = entry.live().get(dot) {
                prop_assert!(shown.contains(content));
            }
        }
    }

    #[test]
    fn the_view_does_not_depend_on_how_it_came_to_be(steps in prop::collection::vec(step(), 0..40)) {
        let fleet = Fleet::run(&steps);
        for at in 0..COPIES {
            let anew = merged(&[&fleet.entries(at)]);
            prop_assert!(is_same(&anew, &fleet.copies[at]));
        }
    }

    #[test]
    fn a_change_tells_what_every_path_had_before(steps in prop::collection::vec(step(), 0..40)) {
        let mut fleet = Fleet::run(&[]);
        for step in &steps {
            let before = fleet.copies[0].view();
            let (key, entry) = match step {
                Step::Hear { at: 0, from } => match fleet.entries(*from).into_iter().next() {
                    Some(found) => found,
                    None => continue,
                },
                Step::Hear { .. } | Step::Write { .. } | Step::Delete { .. } => {
                    fleet.step(step);
                    continue;
                }
            };
            let touched = fleet.copies[0].merge(&key, &entry).unwrap();
            let after = fleet.copies[0].view();
            for path in before.keys().chain(after.keys()) {
                if before.get(path) != after.get(path) {
                    prop_assert_eq!(touched.before.get(path), Some(&before.get(path).copied()));
                }
            }
        }
    }

    #[test]
    fn a_follower_of_pages_comes_to_the_same(steps in prop::collection::vec(step(), 0..60), budget in 1..500_usize) {
        let fleet = Fleet::run(&steps);
        let leader = &fleet.copies[0];
        let mut follower = Manifest::new(100);
        let mut since = 0;
        while since < leader.seq() {
            let changes = leader.changes_since(since, u64::MAX, budget);
            prop_assert!(changes.upto > since);
            since = changes.upto;
            for (key, entry) in &changes.entries {
                follower.merge(key, entry).unwrap();
            }
        }
        prop_assert!(is_same(leader, &follower));
    }

    #[test]
    fn an_encoded_entry_is_the_same_entry(steps in prop::collection::vec(step(), 0..40)) {
        let fleet = Fleet::run(&steps);
        for (key, entry) in fleet.entries(0) {
            let bytes = wire::encode_entry(&key, &entry);
            prop_assert!(wire::entry_size(&key, &entry) >= bytes.len() * 9 / 10);
            prop_assert_eq!(wire::decode_entry(&bytes), Ok((key, entry)));
        }
    }
}

#[test]
fn an_edit_wins_over_a_deletion_that_did_not_know_of_it() {
    let mut here = Manifest::new(10);
    let key = Key::File(name("a"));
    let dot = |counter, number| Dot {
        counter,
        writer: writer(number),
    };
    here.write(&key, dot(1, 0), Version::File(content(1)), |_| true)
        .unwrap();
    let mut there = merged(&[&here.entries_after(None).collect::<Vec<_>>()]);
    there
        .write(&key, dot(2, 1), Version::File(content(2)), |_| true)
        .unwrap();
    here.erase(&key, |_| true).unwrap();
    here.merge(&key, &there.entry(&key).unwrap()).unwrap();
    assert_eq!(here.wanted(&name("a")), Some(content(2)));
    there.merge(&key, &here.entry(&key).unwrap()).unwrap();
    assert_eq!(here.digest(), there.digest());
}

#[test]
fn of_two_edits_one_has_the_path_and_the_other_is_beside_it_within_what_file_systems_take() {
    let mut manifest = Manifest::new(10);
    let long = format!("folder/{}", "ä".repeat(120));
    let key = Key::File(name(&long));
    for number in [1, 2] {
        let dot = Dot {
            counter: 5,
            writer: writer(number),
        };
        let version = Version::File(content(number));
        manifest.write(&key, dot, version, |_| false).unwrap();
    }
    assert_eq!(manifest.wanted(&name(&long)), Some(content(2)));
    let (path, claim) = manifest.conflicts().next().unwrap();
    assert_eq!(claim.content, content(1));
    assert!(path.as_str().ends_with(".conflict-n1-0101010101010101"));
    assert!(path.split().1.len() <= 255);
}

#[test]
fn a_full_manifest_refuses_more_and_takes_changes_of_what_it_has() {
    let mut manifest = Manifest::new(1);
    let dot = |counter| Dot {
        counter,
        writer: writer(1),
    };
    let a = Key::File(name("a"));
    manifest
        .write(&a, dot(1), Version::File(content(1)), |_| true)
        .unwrap();
    let b = Key::File(name("b"));
    let refused = manifest.write(&b, dot(2), Version::File(content(1)), |_| true);
    assert!(matches!(refused, Err(Refused::Full { limit: 1, .. })));
    assert!(
        manifest
            .write(&a, dot(3), Version::File(content(2)), |_| true)
            .is_ok()
    );
    assert_eq!(manifest.len(), 1);
}
