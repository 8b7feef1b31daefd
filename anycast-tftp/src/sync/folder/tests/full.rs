//! A disk without space, which needs a file system of its own.

use std::process::Command;

use anycast_labs::isolate::work_dir;
use anycast_labs::isolated;

use super::*;

fn mount(options: &str) -> PathBuf {
    let folder = work_dir().join("small");
    std::fs::create_dir(&folder).unwrap();
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", options, "small"]);
    assert!(mount.arg(&folder).status().unwrap().success());
    folder
}

#[test]
fn a_full_disk_is_told_and_what_was_there_stays() {
    isolated(|| {
        let root = mount("size=1m");
        std::fs::write(root.join("x"), "old").unwrap();
        let folder = Folder::open(&root, &work_dir().join("state")).unwrap();
        scan(&folder);
        let large = vec![7; 2 << 20];
        let mut stage = folder.stage(id(&large)).unwrap();
        let error = stage.write(&large).unwrap_err();
        assert!(matches!(error, StageError::Full(_)), "{error}");
        let offset = stage.offset();
        assert!(offset > 0);
        drop(stage);
        // The operator makes room, and it goes on.
        let remount = ["-o", "remount,size=8m"];
        assert!(
            Command::new("mount")
                .args(remount)
                .arg(&root)
                .status()
                .unwrap()
                .success()
        );
        let mut stage = folder.stage(id(&large)).unwrap();
        assert_eq!(stage.offset(), offset);
        stage
            .write(&large[usize::try_from(offset).unwrap()..])
            .unwrap();
        folder
            .sync_all(vec![stage.finish().unwrap()])
            .remove(0)
            .unwrap();
        folder
            .install(&[put("x", id(&large), Some(id("old")))])
            .remove(0)
            .unwrap();
        assert_eq!(std::fs::read(root.join("x")).unwrap(), large);

        // A copy that does not fit leaves nothing.
        let again: Vec<_> = (0..4)
            .map(|n| put(&format!("y{n}"), id(&large), None))
            .collect();
        let answers = folder.install(&again);
        let full = |answer: &Result<(), InstallError>| matches!(answer, Err(InstallError::Full(_)));
        assert!(answers.first().unwrap().is_ok(), "{answers:?}");
        assert!(full(answers.last().unwrap()), "{answers:?}");
        assert_eq!(objects::names(&folder.staging).unwrap(), [""; 0]);
        assert_eq!(scan(&folder).0, []);
    });
}

#[test]
fn a_log_on_a_full_disk_goes_on_when_there_is_room() {
    isolated(|| {
        let root = mount("size=64k");
        let path = root.join("log");
        let (mut log, _) = log::Log::open(&path, &mut |_| ()).unwrap();
        let record = vec![7; 10_000];
        let mut promised = 0;
        let error = loop {
            match log.append(&[&record]) {
                Ok(()) => promised += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(error, log::LogError::Full { .. }), "{error}");
        assert!(!log.is_broken());
        // Too much to be written a second time beside it: the old one stays.
        let mut all = std::iter::repeat_n(record.clone(), promised);
        let error = log.compact(&mut all).unwrap_err();
        assert!(matches!(error, log::LogError::Full { .. }), "{error}");
        log.append(&[b"small"]).unwrap();
        let mut found = 0;
        let (mut log, recovered) = log::Log::open(&path, &mut |_| found += 1).unwrap();
        assert_eq!((recovered.torn, found), (0, promised + 1));
        let remount = ["-o", "remount,size=128k"];
        let mut mount = Command::new("mount");
        assert!(mount.args(remount).arg(&root).status().unwrap().success());
        log.compact(&mut std::iter::once(record.clone())).unwrap();
        log.append(&[&record]).unwrap();
    });
}

#[test]
fn below_a_mount_point_contents_are_copied() {
    isolated(|| {
        let disk = mount("size=8m");
        let root = work_dir().join("root");
        std::fs::create_dir_all(root.join("mounted")).unwrap();
        let mut bind = Command::new("mount");
        bind.arg("--bind").arg(disk).arg(root.join("mounted"));
        assert!(bind.status().unwrap().success());
        let folder = Folder::open(&root, &work_dir().join("state")).unwrap();
        let one = bring(&folder, "one");
        folder
            .install(&[put("mounted/d/x", one, None)])
            .remove(0)
            .unwrap();
        let two = bring(&folder, "two");
        let replace = Put {
            keeps_old: true,
            ..put("mounted/d/x", two, Some(one))
        };
        folder.install(&[replace]).remove(0).unwrap();
        assert_eq!(std::fs::read(root.join("mounted/d/x")).unwrap(), b"two");
        assert_eq!(read_content(&folder, &one).unwrap(), b"one");
        assert_eq!(
            std::fs::read_dir(root.join("mounted/d")).unwrap().count(),
            1
        );
        let remove = Removal {
            name: name("mounted/d/x"),
            expecting: two,
            keeps_old: true,
        };
        folder.remove(&[remove]).remove(0).unwrap();
        assert!(!root.join("mounted/d").exists());
        assert_eq!(read_content(&folder, &two).unwrap(), b"two");
    });
}
