use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use super::*;

/// Waits until everything that is told has been looked at and the folder is known to be as given.
fn settle(folder: &Folder, wakes: &Receiver<()>, is_done: impl Fn(&Folder) -> bool) {
    while !is_done(folder) {
        let wake = wakes.recv_timeout(Duration::from_secs(60));
        assert!(wake.is_ok(), "nothing was told");
        look(folder);
    }
}

fn look(folder: &Folder) {
    let changes = folder.take_changes();
    assert_eq!(changes.trouble, None);
    if changes.is_everything {
        scan(folder);
    }
    let paths: Vec<_> = changes.closed.into_iter().chain(changes.paths).collect();
    scan_with(folder, Scope::Paths(&paths), ScanOptions::default());
}

fn watched(place: &Place) -> (Folder, Receiver<()>) {
    let folder = place.open();
    let (wake, wakes) = channel();
    let wake = move || {
        let _ = wake.send(());
    };
    folder.watch(wake).unwrap();
    scan(&folder);
    (folder, wakes)
}

#[test]
fn changes_are_told_also_in_new_folders() {
    let place = Place::new();
    place.write_old("a/x", "x");
    let (folder, wakes) = watched(&place);
    place.write("a/x", "changed");
    settle(&folder, &wakes, |f| {
        f.content_at(&name("a/x")) == Some(id("changed"))
    });
    place.write("b/c/d/y", "new");
    settle(&folder, &wakes, |f| {
        f.content_at(&name("b/c/d/y")) == Some(id("new"))
    });
    place.write("b/c/d/z", "in a folder that was made since");
    settle(&folder, &wakes, |f| {
        f.content_at(&name("b/c/d/z")).is_some()
    });
    std::fs::rename(place.at("b/c"), place.at("moved")).unwrap();
    settle(&folder, &wakes, |f| {
        f.content_at(&name("moved/d/y")).is_some() && f.content_at(&name("b/c/d/y")).is_none()
    });
    place.write("moved/d/y", "after the move");
    settle(&folder, &wakes, |f| {
        f.content_at(&name("moved/d/y")) == Some(id("after the move"))
    });
    std::fs::hard_link(place.at("a/x"), place.at("a/second")).unwrap();
    settle(&folder, &wakes, |f| {
        f.content_at(&name("a/second")) == Some(id("changed"))
    });
    std::fs::remove_dir_all(place.at("moved")).unwrap();
    std::fs::remove_file(place.at("a/x")).unwrap();
    settle(&folder, &wakes, |f| f.files() == 1);
}

#[test]
fn what_we_install_is_told_and_is_no_change() {
    let place = Place::new();
    let (folder, wakes) = watched(&place);
    let one = bring(&folder, "one");
    folder.install(&[put("d/x", one, None)]).remove(0).unwrap();
    // The last thing that is told, so that all that comes before it was told too.
    place.write("end", "end");
    let mut hashed = Vec::new();
    while folder.content_at(&name("end")) != Some(id("end")) {
        wakes.recv_timeout(Duration::from_secs(60)).unwrap();
        let changes = folder.take_changes();
        let paths: Vec<_> = changes.closed.into_iter().chain(changes.paths).collect();
        assert!(
            paths.iter().all(|path| !path.contains(RESERVED_PREFIX)),
            "{paths:?}"
        );
        hashed.extend(scan_with(&folder, Scope::Paths(&paths), ScanOptions::default()).0);
    }
    hashed.retain(|(path, content)| path != "end" || *content == id("end"));
    assert_eq!(hashed, [("end".to_owned(), id("end"))]);
}

#[test]
fn more_changes_than_are_remembered_are_everything() {
    let place = Place::new();
    let (folder, _wakes) = watched(&place);
    for n in 0..=MAX_PENDING {
        place.write(&format!("f{n}"), "");
    }
    place.write("end", "");
    while folder.files() <= MAX_PENDING + 1 {
        let changes = folder.take_changes();
        assert!(changes.paths.len() + changes.closed.len() <= MAX_PENDING);
        if changes.is_everything {
            scan(&folder);
        }
        let paths: Vec<_> = changes.closed.into_iter().chain(changes.paths).collect();
        scan_with(&folder, Scope::Paths(&paths), ScanOptions::default());
        std::thread::yield_now();
    }
}
