//! Whatever is done to a folder, from outside and by us: what scans and installs tell is what there is.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const PATHS: [&str; 7] = ["a", "b", "d", "d/a", "d/b", "d/e/a", "z"];

#[derive(Debug, Clone)]
enum Step {
    /// By somebody else; in place or by renaming.
    Write(usize, u8, bool),
    Delete(usize),
    Rename(usize, usize),
    /// A hard link.
    Link(usize, usize),
    /// By us, expecting what we know.
    Install(usize, u8, bool),
    Remove(usize, bool),
    Scan,
    ScanOne(usize),
    Restart(bool),
    Sweep,
}

fn step() -> impl Strategy<Value = Step> {
    let path = 0..PATHS.len();
    let byte = b'0'..b'4';
    prop_oneof![
        4 => (path.clone(), byte.clone(), any::<bool>()).prop_map(|(a, b, c)| Step::Write(a, b, c)),
        1 => path.clone().prop_map(Step::Delete),
        1 => (path.clone(), path.clone()).prop_map(|(a, b)| Step::Rename(a, b)),
        1 => (path.clone(), path.clone()).prop_map(|(a, b)| Step::Link(a, b)),
        4 => (path.clone(), byte, any::<bool>()).prop_map(|(a, b, c)| Step::Install(a, b, c)),
        2 => (path.clone(), any::<bool>()).prop_map(|(a, b)| Step::Remove(a, b)),
        3 => Just(Step::Scan),
        2 => path.prop_map(Step::ScanOne),
        1 => any::<bool>().prop_map(Step::Restart),
        1 => Just(Step::Sweep),
    ]
}

/// What is there, by plain means.
fn walk(root: &Path, prefix: &str, into: &mut BTreeMap<String, ContentId>) {
    for entry in std::fs::read_dir(root).unwrap() {
        let entry = entry.unwrap();
        let own = entry.file_name().into_string().unwrap();
        if own.starts_with(RESERVED_PREFIX) {
            continue;
        }
        let path = format!("{prefix}{own}");
        if entry.file_type().unwrap().is_dir() {
            walk(&entry.path(), &format!("{path}/"), into);
        } else {
            into.insert(path, id(std::fs::read(entry.path()).unwrap()));
        }
    }
}

struct World {
    place: Place,
    folder: Option<Folder>,
    /// What we were told.
    view: BTreeMap<String, ContentId>,
}

impl World {
    fn folder(&self) -> &Folder {
        self.folder.as_ref().unwrap()
    }

    fn scan(&mut self, scope: Scope<'_>, is_full: bool) {
        let options = ScanOptions {
            is_full,
            ..ScanOptions::default()
        };
        let (found, report) = scan_with(self.folder(), scope, options);
        if is_full {
            self.view.clear();
        }
        self.view.extend(found);
        for gone in report.gone {
            self.view.remove(gone.name.as_str());
        }
        assert_eq!(report.busy, [""; 0]);
    }

    fn walk(&self) -> BTreeMap<String, ContentId> {
        let mut truth = BTreeMap::new();
        walk(self.place.root.path(), "", &mut truth);
        truth
    }

    fn by_others(&self, step: &Step) {
        let at = |index: usize| self.place.at(PATHS[index]);
        let parent = |index: usize| {
            let _ = std::fs::create_dir_all(at(index).parent().unwrap());
        };
        match *step {
            Step::Write(path, byte, in_place) => {
                parent(path);
                let target = if in_place {
                    at(path)
                } else {
                    self.place.at(".anycast-tftp-upload")
                };
                let _ = std::fs::write(&target, [byte; 3]);
                if !in_place {
                    let _ = std::fs::rename(target, at(path));
                }
            }
            Step::Delete(path) => {
                let _ =
                    std::fs::remove_file(at(path)).or_else(|_| std::fs::remove_dir_all(at(path)));
            }
            Step::Rename(from, to) => {
                parent(to);
                let _ = std::fs::rename(at(from), at(to));
            }
            Step::Link(from, to) => {
                let _ = std::fs::hard_link(at(from), at(to));
            }
            Step::Install(..)
            | Step::Remove(..)
            | Step::Scan
            | Step::ScanOne(_)
            | Step::Restart(_)
            | Step::Sweep => {}
        }
    }

    fn by_us(&mut self, step: &Step) {
        match *step {
            Step::Install(path, byte, keeps_old) => {
                let content = bring(self.folder(), [byte; 3]);
                let path = PATHS[path];
                let expecting = self.view.get(path).copied();
                let one = Put {
                    keeps_old,
                    ..put(path, content, expecting)
                };
                if self.folder().install(&[one]).remove(0).is_ok() {
                    self.view.insert(path.to_owned(), content);
                    assert_eq!(self.place.read(path), [byte; 3]);
                }
                if let (Some(old), true) = (expecting, keeps_old) {
                    let _ = read_content(self.folder(), &old);
                }
            }
            Step::Remove(path, keeps_old) => {
                let path = PATHS[path];
                if let Some(&expecting) = self.view.get(path) {
                    let name = name(path);
                    let one = Removal {
                        name,
                        expecting,
                        keeps_old,
                    };
                    if self.folder().remove(&[one]).remove(0).is_ok() {
                        self.view.remove(path);
                        assert!(!self.place.at(path).is_file());
                    }
                }
            }
            Step::Restart(saves) => {
                if saves {
                    self.folder().save().unwrap();
                }
                self.folder = None;
                self.folder = Some(self.place.open());
                self.scan(Scope::All, true);
            }
            Step::Sweep => {
                sweep(self.folder(), &[], &[], 0);
            }
            Step::Write(..)
            | Step::Delete(_)
            | Step::Rename(..)
            | Step::Link(..)
            | Step::Scan
            | Step::ScanOne(_) => {}
        }
    }
}

fn below(view: &BTreeMap<String, ContentId>, path: &str) -> BTreeMap<String, ContentId> {
    let is_below = |name: &str| {
        let rest = name.strip_prefix(path);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let found = view.iter().filter(|(name, _)| is_below(name));
    found
        .map(|(name, content)| (name.clone(), *content))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn what_is_told_is_what_there_is(steps in proptest::collection::vec(step(), 1..40)) {
        let place = Place::new();
        let folder = Some(place.open());
        let mut world = World { place, folder, view: BTreeMap::new() };
        for step in steps {
            world.by_others(&step);
            world.by_us(&step);
            if let Step::Scan = step {
                world.scan(Scope::All, false);
            }
            if let Step::ScanOne(path) = step {
                let path = PATHS[path];
                world.scan(Scope::Paths(&[path.to_owned()]), false);
                let (told, truth) = (below(&world.view, path), below(&world.walk(), path));
                prop_assert_eq!(told, truth);
            }
        }
        world.scan(Scope::All, false);
        let truth = world.walk();
        prop_assert_eq!(&world.view, &truth);
        for (path, content) in &truth {
            prop_assert_eq!(world.folder().content_at(&name(path)), Some(*content));
            let read = read_content(world.folder(), content).unwrap();
            prop_assert_eq!(id(read), *content);
        }
    }
}
