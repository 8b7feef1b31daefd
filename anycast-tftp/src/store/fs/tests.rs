use std::os::unix::fs::symlink;

use super::*;
use crate::store::{RESERVED_PREFIX, WriteError};

fn name(text: &str) -> FileName {
    FileName::from_wire(text.as_bytes()).unwrap()
}

fn store() -> (tempfile::TempDir, FsStore) {
    let root = tempfile::tempdir().unwrap();
    let store = FsStore::open_root(root.path()).unwrap();
    (root, store)
}

fn read(content: &Arc<dyn Content>) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(content.size()).unwrap()];
    read_part(content, 0, &mut bytes).unwrap();
    bytes
}

/// As the server does it: what is not in memory is waited for.
fn read_part(content: &Arc<dyn Content>, offset: u64, buf: &mut [u8]) -> Result<(), ReadError> {
    match content.try_read_at(offset, buf) {
        Err(ReadError::WouldBlock) => content.read_at(offset, buf),
        other => other,
    }
}

fn visible(root: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_missing_root_names_itself() {
    let error = FsStore::open_root(Path::new("/nonexistent/tftp")).unwrap_err();
    assert!(error.to_string().contains("/nonexistent/tftp"), "{error}");
}

#[test]
fn links_work_inside_the_root_and_not_out_of_it() {
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret"), "secret").unwrap();
    let (root, store) = store();
    std::fs::create_dir(root.path().join("v1")).unwrap();
    std::fs::write(root.path().join("v1/kernel"), "kernel").unwrap();
    symlink("v1", root.path().join("current")).unwrap();
    symlink("v1/kernel", root.path().join("link")).unwrap();
    symlink(outside.path().join("secret"), root.path().join("absolute")).unwrap();
    let kernel = root.path().join("v1/kernel");
    symlink(kernel, root.path().join("absolute-inside")).unwrap();
    symlink(outside.path(), root.path().join("folder")).unwrap();
    symlink("../../../../../../etc/passwd", root.path().join("upwards")).unwrap();
    symlink("loop", root.path().join("loop")).unwrap();

    for inside in ["v1/kernel", "current/kernel", "link"] {
        assert_eq!(read(&store.open(&name(inside)).unwrap()), b"kernel");
    }
    for outside in [
        "absolute",
        "absolute-inside",
        "folder/secret",
        "upwards",
        "loop",
    ] {
        let error = store.open(&name(outside)).unwrap_err();
        assert!(matches!(error, OpenError::Denied), "{outside}: {error:?}");
    }
    let error = store
        .create(&name("folder/new"), WritePolicy::Overwrite)
        .unwrap_err();
    assert!(matches!(error, CreateError::Denied), "{error:?}");
}

#[test]
fn only_regular_files_are_opened() {
    let (root, store) = store();
    std::fs::create_dir(root.path().join("folder")).unwrap();
    let fifo = root.path().join("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(root.path().join("socket")).unwrap();
    for odd in ["folder", "fifo", "socket"] {
        let error = store.open(&name(odd)).unwrap_err();
        assert!(matches!(error, OpenError::NotAFile), "{odd}: {error:?}");
        let error = store
            .create(&name(odd), WritePolicy::Overwrite)
            .unwrap_err();
        assert!(matches!(error, CreateError::NotAFile), "{odd}: {error:?}");
    }
    std::fs::write(root.path().join("file"), "x").unwrap();
    for missing in ["missing", "file/below", &"n".repeat(300)] {
        let error = store.open(&name(missing)).unwrap_err();
        assert!(matches!(error, OpenError::NotFound), "{missing}: {error:?}");
    }
}

#[test]
fn a_file_that_changes_ends_its_transfers() {
    let (root, store) = store();
    let path = root.path().join("file");
    std::fs::write(&path, [7; 4096]).unwrap();
    let content = store.open(&name("file")).unwrap();
    let mut buf = [0; 1024];
    read_part(&content, 0, &mut buf).unwrap();

    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(2000)
        .unwrap();
    let error = read_part(&content, 1024, &mut buf).unwrap_err();
    assert!(matches!(error, ReadError::Changed), "{error:?}");
    let error = content.read_at(3072, &mut buf).unwrap_err();
    assert!(matches!(error, ReadError::Changed), "{error:?}");

    let content = store.open(&name("file")).unwrap();
    let rewritten = File::options().write(true).open(&path).unwrap();
    let later = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(4_000_000_000);
    rewritten.set_modified(later).unwrap();
    let mut all = vec![0; 2000];
    let error = read_part(&content, 0, &mut all).unwrap_err();
    assert!(matches!(error, ReadError::Changed), "{error:?}");
}

#[test]
fn a_replaced_file_does_not_disturb_transfers_of_the_old_one() {
    let (root, store) = store();
    std::fs::write(root.path().join("file"), "old").unwrap();
    let old = store.open(&name("file")).unwrap();
    let mut upload = store.create(&name("file"), WritePolicy::Overwrite).unwrap();
    upload.write(b"newer").unwrap();
    upload.commit().unwrap();
    assert_eq!(read(&old), b"old");
    assert_eq!(read(&store.open(&name("file")).unwrap()), b"newer");
}

#[test]
fn an_upload_is_visible_whole_or_not_at_all() {
    let (root, store) = store();
    let mut upload = store.create(&name("new"), WritePolicy::Create).unwrap();
    upload.write(b"half").unwrap();
    assert!(!root.path().join("new").exists());
    drop(upload);
    assert_eq!(visible(root.path()), [""; 0]);

    let mut upload = store.create(&name("new"), WritePolicy::Create).unwrap();
    upload.write(b"half").unwrap();
    upload.write(b" and half").unwrap();
    upload.commit().unwrap();
    assert_eq!(visible(root.path()), ["new"]);
    assert_eq!(
        std::fs::read(root.path().join("new")).unwrap(),
        b"half and half"
    );
}

#[test]
fn the_create_policy_never_replaces() {
    let (root, store) = store();
    std::fs::write(root.path().join("there"), "first").unwrap();
    let error = store
        .create(&name("there"), WritePolicy::Create)
        .unwrap_err();
    assert!(matches!(error, CreateError::Exists), "{error:?}");

    let mut late = store.create(&name("late"), WritePolicy::Create).unwrap();
    late.write(b"second").unwrap();
    std::fs::write(root.path().join("late"), "first").unwrap();
    let error = late.commit().unwrap_err();
    assert!(matches!(error, WriteError::Exists), "{error:?}");
    assert_eq!(std::fs::read(root.path().join("late")).unwrap(), b"first");
    assert_eq!(visible(root.path()), ["late", "there"]);

    let error = store.create(&name("x"), WritePolicy::Off).unwrap_err();
    assert!(matches!(error, CreateError::Denied), "{error:?}");
    let error = store
        .create(&name("no/x"), WritePolicy::Create)
        .unwrap_err();
    assert!(matches!(error, CreateError::NoFolder), "{error:?}");
}

#[test]
fn leftovers_of_a_crash_are_removed_and_running_uploads_are_not() {
    let (root, store) = store();
    let leftover = root.path().join(format!("{RESERVED_PREFIX}1-1"));
    std::fs::write(&leftover, "half").unwrap();
    let mut running = store.create(&name("a"), WritePolicy::Create).unwrap();
    assert!(!leftover.exists());
    // Another process of the same server, on the same root.
    let other = FsStore::open_root(root.path()).unwrap();
    other.create(&name("b"), WritePolicy::Create).unwrap();
    running.write(b"a").unwrap();
    running.commit().unwrap();
    assert_eq!(visible(root.path()), ["a"]);
}

#[test]
fn transfers_of_one_version_share_a_descriptor() {
    let (root, store) = store();
    let path = root.path().join("file");
    std::fs::write(&path, "one").unwrap();
    let first = store.open(&name("file")).unwrap();
    let again = store.open(&name("./file")).unwrap();
    assert!(Arc::ptr_eq(&first, &again));
    std::fs::write(root.path().join("next"), "two").unwrap();
    std::fs::rename(root.path().join("next"), &path).unwrap();
    let second = store.open(&name("file")).unwrap();
    assert_eq!(
        (read(&first), read(&second)),
        (b"one".to_vec(), b"two".to_vec())
    );
    assert_eq!(store.shared.len(), 2);
    drop((first, second));
    assert_eq!(store.shared.len(), 1);
    drop(again);
    assert_eq!(store.shared.len(), 0);
}

#[test]
fn bytes_that_left_the_memory_are_said_to_be_missing_or_read_right() {
    let (root, store) = store();
    let bytes: Vec<u8> = (0..1_000_000_u32).map(|i| (i ^ (i >> 8)) as u8).collect();
    let path = root.path().join("file");
    std::fs::write(&path, &bytes).unwrap();
    let file = File::open(&path).unwrap();
    file.sync_all().unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    let content = store.open(&name("file")).unwrap();
    let mut buf = vec![0; 4000];
    for offset in (0..990_000).step_by(90_000) {
        match content.try_read_at(offset as u64, &mut buf) {
            Ok(()) => {}
            Err(ReadError::WouldBlock) => content.read_at(offset as u64, &mut buf).unwrap(),
            Err(error) => panic!("{error}"),
        }
        assert!(
            buf == bytes[offset..offset + 4000],
            "wrong bytes at {offset}"
        );
    }
}

#[test]
fn where_memory_cannot_be_asked_every_read_is_one_that_may_wait() {
    let (root, store) = store();
    std::fs::write(root.path().join("file"), "bytes").unwrap();
    let file = File::open(root.path().join("file")).unwrap();
    let version = Version::of(&file.metadata().unwrap());
    let content = shared::Shared::insert(&store.shared, file, version);
    content.has_nowait.store(false, Ordering::Relaxed);
    let mut buf = [0; 5];
    let error = content.try_read_at(0, &mut buf).unwrap_err();
    assert!(matches!(error, ReadError::WouldBlock), "{error:?}");
    content.read_at(0, &mut buf).unwrap();
    assert_eq!(&buf, b"bytes");
}

#[test]
fn a_version_is_the_same_however_it_was_looked_up() {
    let (root, _) = store();
    std::fs::write(root.path().join("file"), "bytes").unwrap();
    let file = File::open(root.path().join("file")).unwrap();
    let found = rustix::fs::statx(
        &file,
        "",
        AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC,
        StatxFlags::BASIC_STATS,
    )
    .unwrap();
    assert_eq!(
        Version::of_cached(&found),
        Version::of(&file.metadata().unwrap())
    );
}
