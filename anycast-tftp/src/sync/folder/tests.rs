use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, symlink};

use super::*;
use crate::sync::content::ContentHash;

mod crash;
mod full;
mod properties;
mod putting;
mod scanning;
mod staging;
mod watching;

/// Lets go of every object that is not in `keep`, and sweeps partial contents.
fn sweep(folder: &Folder, keep: &[ContentId], fetching: &[ContentId], limit: u64) -> Swept {
    for object in folder.objects().unwrap() {
        if !keep.contains(&object) {
            folder.release(&object);
        }
    }
    let fetching = fetching.iter().map(|content| content.hash).collect();
    folder.sweep_staging(&fetching, limit).unwrap()
}

/// A folder and its state, removed in the end.
struct Place {
    root: tempfile::TempDir,
    state: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self {
            root: tempfile::tempdir().unwrap(),
            state: tempfile::tempdir().unwrap(),
        }
    }

    fn open(&self) -> Folder {
        Folder::open(self.root.path(), self.state.path()).unwrap()
    }

    fn at(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.at(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.at(name)).unwrap()
    }

    /// A file whose last change is long ago.
    fn write_old(&self, name: &str, bytes: impl AsRef<[u8]>) {
        self.write(name, bytes);
        age(&self.at(name), 1000);
    }

    /// What is in a part of the hidden folder.
    fn hidden(&self, part: &str) -> Vec<String> {
        let folder = std::fs::read_dir(self.at(HIDDEN).join(part)).unwrap();
        let names = folder.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }
}

fn age(path: &Path, seconds: u64) {
    let file = File::options().append(true).open(path).unwrap();
    let then =
        file.metadata().unwrap().modified().unwrap() - std::time::Duration::from_secs(seconds);
    file.set_modified(then).unwrap();
}

fn name(text: &str) -> FileName {
    FileName::from_wire(text.as_bytes()).unwrap()
}

fn id(bytes: impl AsRef<[u8]>) -> ContentId {
    let bytes = bytes.as_ref();
    ContentId {
        hash: ContentHash(*blake3::hash(bytes).as_bytes()),
        size: bytes.len() as u64,
    }
}

fn scan(folder: &Folder) -> (Vec<(String, ContentId)>, ScanReport) {
    scan_with(folder, Scope::All, ScanOptions::default())
}

fn scan_with(
    folder: &Folder,
    scope: Scope<'_>,
    options: ScanOptions,
) -> (Vec<(String, ContentId)>, ScanReport) {
    let mut all = Vec::new();
    let mut found = |found: Found| all.push((found.name.as_str().to_owned(), found.content));
    let report = folder.scan(scope, options, &mut found).unwrap();
    all.sort();
    (all, report)
}

fn gone(report: &ScanReport) -> Vec<&str> {
    report.gone.iter().map(|gone| gone.name.as_str()).collect()
}

/// Brings a content in.
fn bring(folder: &Folder, bytes: impl AsRef<[u8]>) -> ContentId {
    let content = id(&bytes);
    let mut stage = folder.stage(content).unwrap();
    stage.restart().unwrap();
    stage.write(bytes.as_ref()).unwrap();
    let staged = stage.finish().unwrap();
    let mut synced = folder.sync_all(vec![staged]);
    synced.remove(0).unwrap()
}

fn put(path: &str, content: ContentId, expecting: Option<ContentId>) -> Put {
    Put {
        name: name(path),
        content,
        expecting,
        keeps_old: false,
        keeps_new: false,
    }
}

fn read_content(folder: &Folder, content: &ContentId) -> Option<Vec<u8>> {
    let held = folder.open_content(content).ok()?;
    let mut bytes = vec![0; usize::try_from(content.size).unwrap()];
    held.read_at(0, &mut bytes).unwrap();
    Some(bytes)
}

#[test]
fn a_folder_that_is_not_there_names_itself() {
    let state = tempfile::tempdir().unwrap();
    let error = Folder::open(Path::new("/nonexistent/tftp"), state.path()).unwrap_err();
    assert!(error.to_string().contains("/nonexistent/tftp"), "{error}");
}

#[test]
fn the_marker_tells_a_copy_from_an_emptied_folder() {
    let place = Place::new();
    let folder = place.open();
    assert_eq!(folder.marker().unwrap(), None);
    folder.mark(&[7; 16]).unwrap();
    assert_eq!(folder.marker().unwrap(), Some([7; 16]));
    assert_eq!(scan(&folder).1.marker, Some([7; 16]));
    drop(folder);
    let folder = place.open();
    assert_eq!(folder.marker().unwrap(), Some([7; 16]));
    std::fs::remove_file(place.at(HIDDEN).join(MARKER)).unwrap();
    assert_eq!(scan(&folder).1.marker, None);
    place.write(".anycast-tftp-sync/root-id", "my own notes");
    let error = folder.marker().unwrap_err();
    assert!(error.to_string().contains("move it away"), "{error}");
    drop(folder);
    let error = Folder::open(place.root.path(), place.state.path()).unwrap_err();
    assert!(matches!(error, FolderError::BadMarker { .. }), "{error}");
}

#[test]
fn two_processes_do_not_share_a_folder_or_its_state() {
    let place = Place::new();
    let other = Place::new();
    let _folder = place.open();
    for (root, state) in [(&place, &place), (&place, &other), (&other, &place)] {
        let error = Folder::open(root.root.path(), state.state.path()).unwrap_err();
        assert!(matches!(error, FolderError::InUse { .. }), "{error}");
    }
}

/// A process that is being started elsewhere has a copy of every descriptor until it runs.
#[test]
fn a_folder_is_free_once_it_is_closed_whoever_has_a_copy_of_its_descriptor() {
    let place = Place::new();
    let folder = place.open();
    let copy = rustix::io::dup(folder.clock.as_fd()).unwrap();
    drop(folder);
    place.open();
    drop(copy);
}

#[test]
fn a_hidden_folder_that_is_a_link_is_refused() {
    let place = Place::new();
    let outside = tempfile::tempdir().unwrap();
    symlink(outside.path(), place.at(HIDDEN)).unwrap();
    assert!(Folder::open(place.root.path(), place.state.path()).is_err());
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[test]
fn clients_cannot_name_what_is_hidden() {
    let path = format!("{HIDDEN}/root-id");
    assert!(FileName::from_wire(path.as_bytes()).is_err());
}
