use std::os::unix::fs::PermissionsExt as _;

use super::*;

fn install_one(folder: &Folder, one: Put) -> Result<(), InstallError> {
    folder.install(&[one]).remove(0)
}

fn removal(path: &str, expecting: ContentId) -> Removal {
    Removal {
        name: name(path),
        expecting,
        keeps_old: false,
    }
}

#[test]
fn an_install_is_whole_and_no_change_to_the_next_scan() {
    let place = Place::new();
    let folder = place.open();
    let one = bring(&folder, "one");
    install_one(&folder, put("boot/deep/x", one, None)).unwrap();
    assert_eq!(place.read("boot/deep/x"), b"one");
    assert_eq!(folder.content_at(&name("boot/deep/x")), Some(one));
    let (found, report) = scan(&folder);
    assert_eq!((found.len(), report.gone.len()), (0, 0));
    // An object that had one path to go to is there now.
    assert_eq!(folder.objects().unwrap(), []);
    assert_eq!(read_content(&folder, &one).unwrap(), b"one");

    let two = bring(&folder, "two");
    let replace = Put {
        keeps_old: true,
        ..put("boot/deep/x", two, Some(one))
    };
    install_one(&folder, replace.clone()).unwrap();
    assert_eq!(place.read("boot/deep/x"), b"two");
    assert_eq!(read_content(&folder, &one).unwrap(), b"one");
    // Again is no change.
    install_one(&folder, put("boot/deep/x", two, Some(two))).unwrap();
    let error = install_one(&folder, replace).unwrap_err();
    assert!(matches!(error, InstallError::Changed(_)), "{error}");
    assert_eq!(scan(&folder).0, []);
}

#[test]
fn an_edit_that_was_not_expected_is_never_replaced_or_removed() {
    let place = Place::new();
    place.write_old("x", "mine");
    place.write_old("seen", "old");
    let folder = place.open();
    let new = bring(&folder, "new");
    // Never looked at.
    for expecting in [None, Some(id("mine"))] {
        let error = install_one(&folder, put("x", new, expecting)).unwrap_err();
        assert!(matches!(error, InstallError::Changed(_)), "{error}");
    }
    scan(&folder);
    place.write("seen", "edited");
    let error = install_one(&folder, put("seen", new, Some(id("old")))).unwrap_err();
    assert!(matches!(error, InstallError::Changed(_)), "{error}");
    let error = folder
        .remove(&[removal("seen", id("old"))])
        .remove(0)
        .unwrap_err();
    assert!(matches!(error, InstallError::Changed(_)), "{error}");
    let error = folder
        .remove(&[removal("x", id("other"))])
        .remove(0)
        .unwrap_err();
    assert!(matches!(error, InstallError::Changed(_)), "{error}");
    assert_eq!(
        (place.read("x"), place.read("seen")),
        (b"mine".to_vec(), b"edited".to_vec())
    );
    // Removed here, and to be replaced: found first, too.
    std::fs::remove_file(place.at("x")).unwrap();
    let error = install_one(&folder, put("x", new, Some(id("mine")))).unwrap_err();
    assert!(matches!(error, InstallError::Changed(_)), "{error}");
    assert_eq!(folder.objects().unwrap(), [new]);
}

#[test]
fn what_comes_between_the_look_and_the_rename_is_put_back() {
    let place = Place::new();
    place.write_old("x", "old");
    place.write_old("y", "new");
    let parent = File::open(place.root.path()).unwrap();
    let old = disk::look(&parent, "x").unwrap();
    // The edit of the last instant.
    place.write("edit", "edit");
    std::fs::rename(place.at("edit"), place.at("x")).unwrap();
    let exchanged = batch::exchange(parent.as_fd(), "y", &parent, "x", &old).unwrap();
    assert!(!exchanged);
    assert_eq!(
        (place.read("x"), place.read("y")),
        (b"edit".to_vec(), b"new".to_vec())
    );
    let edit = disk::look(&parent, "x").unwrap();
    assert!(batch::exchange(parent.as_fd(), "y", &parent, "x", &edit).unwrap());
    assert_eq!(
        (place.read("x"), place.read("y")),
        (b"new".to_vec(), b"edit".to_vec())
    );
}

#[test]
fn file_systems_that_cannot_exchange_replace() {
    let place = Place::new();
    place.write_old("x", "old");
    place.write_old("y", "new");
    let parent = File::open(place.root.path()).unwrap();
    assert!(batch::replace(parent.as_fd(), "y", &parent, "x").unwrap());
    assert_eq!(
        (place.read("x"), place.read("y")),
        (b"new".to_vec(), b"old".to_vec())
    );
}

#[test]
fn one_content_at_many_paths_is_as_many_files() {
    let place = Place::new();
    let folder = place.open();
    let one = bring(&folder, "one");
    let puts = ["a", "b/c", "b/d"].map(|path| put(path, one, None));
    let answers = folder.install(&puts);
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert_eq!(place.hidden("objects"), [""; 0]);
    assert_eq!(place.hidden("staging"), [""; 0]);
    // To edit one of them in place is to edit that one.
    place.write("b/c", "two");
    assert_eq!(
        (place.read("a"), place.read("b/d")),
        (b"one".to_vec(), b"one".to_vec())
    );
    // And from one of them to a fourth, now that there is no object.
    install_one(&folder, put("e", one, None)).unwrap();
    assert_eq!(place.read("e"), b"one");
    let kept = Put {
        keeps_new: true,
        ..put("f", bring(&folder, "six"), None)
    };
    install_one(&folder, kept).unwrap();
    assert_eq!(folder.objects().unwrap(), [id("six")]);
    assert_eq!(scan(&folder).0, [("b/c".to_owned(), id("two"))]);
}

#[test]
fn a_group_is_ready_whole_or_not_at_all() {
    let place = Place::new();
    let folder = place.open();
    let (kernel, initrd) = (bring(&folder, "kernel"), id("initrd"));
    let puts = [put("kernel", kernel, None), put("initrd", initrd, None)];
    let prepared = folder.prepare(&puts);
    assert!(!prepared.is_ready());
    let errors: Vec<_> = prepared.errors().map(|(index, _)| index).collect();
    assert_eq!(errors, [1]);
    drop(prepared);
    assert!(!place.at("kernel").exists());
    bring(&folder, "initrd");
    let prepared = folder.prepare(&puts);
    assert!(prepared.is_ready());
    assert!(!place.at("kernel").exists());
    // Readable by hash before they have their paths, and after.
    assert!(folder.open_content(&initrd).is_ok());
    assert!(prepared.commit().iter().all(Result::is_ok));
    assert!(folder.open_content(&initrd).is_ok());
    assert_eq!(place.read("initrd"), b"initrd");
}

#[test]
fn what_stands_in_the_way_is_named() {
    let place = Place::new();
    place.write_old("file", "x");
    place.write_old("folder/y", "y");
    symlink("file", place.at("link")).unwrap();
    std::fs::create_dir_all(place.at("empty/deep/deeper")).unwrap();
    let folder = place.open();
    let new = bring(&folder, "new");
    let error = |path: &str| install_one(&folder, put(path, new, None)).unwrap_err();
    let found = error("file/below/x");
    assert!(
        matches!(&found, InstallError::FileInTheWay { at, .. } if at == "file"),
        "{found}"
    );
    assert!(matches!(error("link/x"), InstallError::FileInTheWay { .. }));
    assert!(matches!(error("folder"), InstallError::FolderInTheWay(_)));
    assert!(matches!(error("link"), InstallError::NotAFile(_)));
    let long = "n".repeat(256);
    assert!(matches!(error(&long), InstallError::NameTooLong(_)));
    assert!(matches!(
        error(&format!("{long}/x")),
        InstallError::NameTooLong(_)
    ));
    let absent = put("z", id("nowhere"), None);
    let error = install_one(&folder, absent).unwrap_err();
    assert!(matches!(error, InstallError::NoContent { .. }), "{error}");
    // Empty folders are nothing.
    install_one(&folder, put("empty", new, None)).unwrap();
    assert_eq!(place.read("empty"), b"new");
}

#[test]
fn folders_that_an_install_made_go_with_their_last_file() {
    let place = Place::new();
    std::fs::create_dir(place.at("theirs")).unwrap();
    let folder = place.open();
    let (one, two) = (bring(&folder, "one"), bring(&folder, "two"));
    let puts = [
        put("theirs/ours/deep/x", one, None),
        put("theirs/ours/y", two, None),
    ];
    assert!(folder.install(&puts).iter().all(Result::is_ok));
    folder.save().unwrap();
    drop(folder);
    let folder = place.open();
    folder
        .remove(&[removal("theirs/ours/deep/x", one)])
        .remove(0)
        .unwrap();
    assert!(!place.at("theirs/ours/deep").exists());
    assert!(place.at("theirs/ours/y").exists());
    let kept = Removal {
        keeps_old: true,
        ..removal("theirs/ours/y", two)
    };
    folder
        .remove(std::slice::from_ref(&kept))
        .remove(0)
        .unwrap();
    assert!(!place.at("theirs/ours").exists());
    assert!(place.at("theirs").exists());
    assert_eq!(read_content(&folder, &two).unwrap(), b"two");
    // What is not there is removed.
    folder.remove(&[kept]).remove(0).unwrap();
    let (found, report) = scan(&folder);
    assert_eq!((found.len(), report.gone.len(), folder.files()), (0, 0, 0));
}

#[test]
fn the_rights_of_a_file_outlive_its_replacement() {
    let place = Place::new();
    place.write_old("x", "old");
    let rights = std::fs::Permissions::from_mode(0o640);
    std::fs::set_permissions(place.at("x"), rights).unwrap();
    let folder = place.open();
    scan(&folder);
    let new = bring(&folder, "new");
    install_one(&folder, put("x", new, Some(id("old")))).unwrap();
    assert_eq!(
        std::fs::metadata(place.at("x")).unwrap().mode() & 0o7777,
        0o640
    );
    assert_eq!(scan(&folder).0, []);
}

#[test]
fn names_that_differ_in_case_alone_are_found() {
    let names = |all: &[&str]| all.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    let other = |all: &[&str], name| parents::other_of(names(all).into_iter(), name);
    assert_eq!(other(&["a", "Boot"], "boot").as_deref(), Some("Boot"));
    assert_eq!(other(&["Boot", "boot"], "boot"), None);
    assert_eq!(other(&["a"], "boot"), None);
    assert!(!Place::new().open().ignores_case());
}

#[test]
fn temporary_names_of_a_crash_are_removed_at_the_next_start() {
    let place = Place::new();
    drop(place.open());
    place.write(".anycast-tftp-sync/staging/temporary-7", "half");
    place.write(
        &format!(".anycast-tftp-sync/staging/{}", "ab".repeat(32)),
        "part",
    );
    drop(place.open());
    assert_eq!(place.hidden("staging"), ["ab".repeat(32)]);
}
