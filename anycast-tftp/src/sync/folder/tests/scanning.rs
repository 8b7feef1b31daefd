use super::*;

#[test]
fn what_is_there_is_found_once_and_what_changes_again() {
    let place = Place::new();
    place.write_old("a", "one");
    place.write_old("boot/b", "two");
    place.write_old("boot/deep/c", "");
    let folder = place.open();
    let (found, report) = scan(&folder);
    let all = [
        ("a".to_owned(), id("one")),
        ("boot/b".to_owned(), id("two")),
        ("boot/deep/c".to_owned(), id("")),
    ];
    assert_eq!(found, all);
    assert_eq!(
        (report.files, report.hashed, report.hashed_bytes),
        (3, 3, 6)
    );
    assert_eq!(report.troubles, []);

    let (found, report) = scan(&folder);
    assert_eq!((found.len(), report.files, report.hashed), (0, 3, 0));
    let full = ScanOptions {
        is_full: true,
        ..ScanOptions::default()
    };
    assert_eq!(scan_with(&folder, Scope::All, full).0, all);

    // Same size, same time: the inode's own time tells.
    let modified = std::fs::metadata(place.at("a"))
        .unwrap()
        .modified()
        .unwrap();
    place.write("a", "eno");
    let file = File::options().append(true).open(place.at("a")).unwrap();
    file.set_modified(modified).unwrap();
    std::fs::remove_file(place.at("boot/b")).unwrap();
    let (found, report) = scan(&folder);
    assert_eq!(found, [("a".to_owned(), id("eno"))]);
    assert_eq!(gone(&report), ["boot/b"]);
    assert_eq!(report.gone[0].content, id("two"));
    assert_eq!(folder.content_at(&name("boot/b")), None);
    assert_eq!(folder.files(), 2);

    std::fs::remove_dir_all(place.at("boot")).unwrap();
    assert_eq!(gone(&scan(&folder).1), ["boot/deep/c"]);
}

#[test]
fn what_is_told_as_changed_is_all_that_is_looked_at() {
    let place = Place::new();
    for path in ["a/1", "a/2", "ab", "b/1", "c"] {
        place.write_old(path, path);
    }
    let folder = place.open();
    scan(&folder);
    std::fs::remove_dir_all(place.at("a")).unwrap();
    place.write_old("a", "now a file");
    std::fs::remove_file(place.at("b/1")).unwrap();
    std::fs::remove_file(place.at("c")).unwrap();
    place.write_old("c/d", "now a folder");
    std::fs::remove_file(place.at("ab")).unwrap();

    let some = |paths: &[&str]| {
        let paths: Vec<String> = paths.iter().map(|&path| path.to_owned()).collect();
        scan_with(&folder, Scope::Paths(&paths), ScanOptions::default())
    };
    let (found, report) = some(&["a"]);
    assert_eq!(found, [("a".to_owned(), id("now a file"))]);
    assert_eq!(gone(&report), ["a/1", "a/2"]);
    let (found, report) = some(&["b", "c"]);
    assert_eq!(found, [("c/d".to_owned(), id("now a folder"))]);
    assert_eq!(gone(&report), ["b/1", "c"]);
    assert_eq!(folder.content_at(&name("ab")), Some(id("ab")));
    // Hints are not trusted.
    let (found, report) = some(&["../x", "a/../c", ".anycast-tftp-sync", "no/such", "a//x"]);
    assert_eq!((found.len(), report.gone.len()), (0, 0));
    assert_eq!(gone(&some(&["", "ab"]).1), ["ab"]);
}

#[test]
fn what_cannot_be_synced_is_told_and_left_alone() {
    use std::os::unix::ffi::OsStrExt as _;
    let place = Place::new();
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret"), "secret").unwrap();
    place.write_old("fine", "x");
    place.write_old(".anycast-tftp-1-2", "an upload");
    place.write_old(
        "d/.anycast-tftp-install-0-7",
        "left by an install below a mount point",
    );
    place.write_old("back\\slash", "x");
    place.write_old("new\nline", "x");
    symlink(outside.path(), place.at("folder")).unwrap();
    symlink("fine", place.at("link")).unwrap();
    std::fs::write(
        place.root.path().join(std::ffi::OsStr::from_bytes(b"\xff")),
        "x",
    )
    .unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(place.at("socket")).unwrap();
    let long = vec!["d".repeat(250); 4].join("/");
    place.write_old(&format!("{long}/{}", "f".repeat(30)), "x");

    let folder = place.open();
    let full = ScanOptions {
        is_full: true,
        ..ScanOptions::default()
    };
    let (found, report) = scan_with(&folder, Scope::All, full);
    assert_eq!(found, [("fine".to_owned(), id("x"))]);
    assert!(!place.at("d/.anycast-tftp-install-0-7").exists());
    assert!(place.at(".anycast-tftp-1-2").exists());
    let mut kinds: Vec<_> = report
        .troubles
        .iter()
        .map(|one| format!("{:?}", one.kind))
        .collect();
    kinds.sort();
    let expected = [
        "Link", "Link", "Name", "Name", "Name", "NotAFile", "TooLong",
    ];
    assert_eq!(kinds, expected);
}

#[test]
fn a_folder_that_became_a_link_is_gone_and_not_followed() {
    let place = Place::new();
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("x"), "outside").unwrap();
    place.write_old("d/x", "inside");
    let folder = place.open();
    scan(&folder);
    std::fs::remove_dir_all(place.at("d")).unwrap();
    symlink(outside.path(), place.at("d")).unwrap();
    let (found, report) = scan(&folder);
    assert_eq!(found, []);
    assert_eq!(gone(&report), ["d/x"]);
    assert!(folder.open_content(&id("inside")).is_err());
    let content = bring(&folder, "new");
    let error = folder
        .install(&[put("d/x", content, None)])
        .remove(0)
        .unwrap_err();
    assert!(
        matches!(error, InstallError::FileInTheWay { .. }),
        "{error}"
    );
    assert_eq!(std::fs::read(outside.path().join("x")).unwrap(), b"outside");
}

#[test]
fn a_folder_that_cannot_be_read_keeps_what_was_in_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = Place::new();
    place.write_old("d/e/x", "x");
    place.write_old("y", "y");
    let folder = place.open();
    scan(&folder);
    let closed = std::fs::Permissions::from_mode(0o000);
    std::fs::set_permissions(place.at("d"), closed).unwrap();
    // Root may read it all the same.
    let is_root = std::fs::read_dir(place.at("d")).is_ok();
    let (_, report) = scan(&folder);
    std::fs::set_permissions(place.at("d"), std::fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(report.gone, []);
    assert_eq!(report.troubles.is_empty(), is_root, "{report:?}");
}

#[test]
fn another_folder_at_the_path_of_the_root_deletes_nothing() {
    let place = Place::new();
    let root = place.root.path().join("tftp");
    std::fs::create_dir(&root).unwrap();
    std::fs::write(root.join("x"), "x").unwrap();
    let folder = Folder::open(&root, place.state.path()).unwrap();
    scan(&folder);
    std::fs::rename(&root, place.root.path().join("away")).unwrap();
    let mut found = |found: Found| panic!("{found:?}");
    let mut again = || folder.scan(Scope::All, ScanOptions::default(), &mut found);
    assert!(matches!(again(), Err(ScanError::Root { .. })));
    std::fs::create_dir(&root).unwrap();
    let error = again().unwrap_err();
    assert!(matches!(error, ScanError::Moved(_)), "{error}");
    assert_eq!(folder.content_at(&name("x")), Some(id("x")));
}

#[test]
fn a_file_that_is_being_written_is_looked_at_later() {
    let place = Place::new();
    place.write("young", "half");
    place.write_old("old", "whole");
    let folder = place.open();
    let quiet = ScanOptions {
        quiet: std::time::Duration::from_secs(500),
        ..ScanOptions::default()
    };
    let (found, report) = scan_with(&folder, Scope::All, quiet);
    assert_eq!(found, [("old".to_owned(), id("whole"))]);
    assert_eq!(report.busy, ["young"]);
    // A busy file is not gone, and a time in the future does not make one busy for ever.
    age(&place.at("young"), 600);
    assert_eq!(
        scan_with(&folder, Scope::All, quiet).0,
        [("young".to_owned(), id("half"))]
    );
    place.write("young", "written again");
    let file = File::options()
        .append(true)
        .open(place.at("young"))
        .unwrap();
    let later = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(4_000_000_000);
    file.set_modified(later).unwrap();
    let (found, report) = scan_with(&folder, Scope::All, quiet);
    assert_eq!(found, [("young".to_owned(), id("written again"))]);
    assert_eq!(report.gone, []);
}

#[test]
fn a_young_file_is_hashed_once_more() {
    let place = Place::new();
    place.write("x", "x");
    let folder = place.open();
    assert_eq!(scan(&folder).1.hashed, 1);
    // It may have been changed within the same tick of the clock.
    assert_eq!(scan(&folder).1.hashed, 1);
    age(&place.at("x"), 10);
    assert_eq!(scan(&folder).1.hashed, 1);
    assert_eq!(scan(&folder).1.hashed, 0);
}

#[test]
fn a_restart_hashes_only_what_changed() {
    let place = Place::new();
    for n in 0..300 {
        place.write_old(&format!("d{}/f{n}", n % 7), format!("content {n}"));
    }
    let folder = place.open();
    assert_eq!(scan(&folder).1.hashed, 300);
    folder.save().unwrap();
    drop(folder);
    place.write_old("d0/f0", "another");
    std::fs::remove_file(place.at("d1/f1")).unwrap();
    let folder = place.open();
    assert_eq!(folder.files(), 300);
    let (found, report) = scan(&folder);
    assert_eq!((found.len(), report.hashed), (1, 1));
    assert_eq!(gone(&report), ["d1/f1"]);
    assert_eq!(
        read_content(&folder, &id("content 2")).unwrap(),
        b"content 2"
    );
}

#[test]
fn what_was_saved_is_taken_whole_or_not_at_all() {
    let place = Place::new();
    place.write_old("a", "a");
    place.write_old("b/c", "c");
    let folder = place.open();
    scan(&folder);
    folder.save().unwrap();
    drop(folder);
    let saved = place.state.path().join("cache");
    let whole = std::fs::read(&saved).unwrap();
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        std::fs::write(&saved, damaged).unwrap();
        assert_eq!(place.open().files(), 0);
        std::fs::write(&saved, &whole[..at]).unwrap();
        assert_eq!(place.open().files(), 0);
    }
    std::fs::write(&saved, &whole).unwrap();
    assert_eq!(place.open().files(), 2);
    // And not for another folder.
    let other = Place::new();
    assert_eq!(
        Folder::open(other.root.path(), place.state.path())
            .unwrap()
            .files(),
        0
    );
}
