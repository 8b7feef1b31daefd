use super::*;

/// 1000 blocks of 4 KiB, 100 inodes.
fn state() -> StatVfs {
    StatVfs {
        f_bsize: 1 << 20,
        f_frsize: 4096,
        f_blocks: 1000,
        f_bfree: 300,
        f_bavail: 200,
        f_files: 100,
        f_ffree: 50,
        f_favail: 50,
        f_fsid: 1,
        f_flag: StatVfsMountFlags::NOATIME,
        f_namemax: 255,
    }
}

fn says(state: &StatVfs, limits: Limits) -> String {
    problem(state, limits).unwrap_or_default()
}

#[test]
fn free_is_what_an_ordinary_process_may_use() {
    let bytes = |bytes| Limits {
        bytes,
        ..Limits::default()
    };
    assert_eq!(says(&state(), bytes(200 * 4096)), "");
    let said = says(&state(), bytes(200 * 4096 + 1));
    assert_eq!(said, "819200 bytes free, less than 819201");
    // 200 free beside 700 used: 22 %.
    let percent = |percent| Limits {
        percent,
        ..Limits::default()
    };
    assert_eq!(says(&state(), percent(22)), "");
    let said = says(&state(), percent(23));
    assert_eq!(said, "22 % of the space free, less than 23 %");
}

#[test]
fn inodes_run_out_too_where_they_are_counted() {
    let inodes = Limits {
        inodes: 51,
        ..Limits::default()
    };
    let percent = Limits {
        inodes_percent: 51,
        ..Limits::default()
    };
    assert_eq!(says(&state(), inodes), "50 inodes free, less than 51");
    let said = says(&state(), percent);
    assert_eq!(said, "50 % of the inodes free, less than 51 %");
    let btrfs = StatVfs {
        f_files: 0,
        f_ffree: 0,
        f_favail: 0,
        ..state()
    };
    assert_eq!(says(&btrfs, inodes), "");
    assert_eq!(says(&btrfs, percent), "");
}

#[test]
fn read_only_is_a_failure_unless_allowed() {
    let read_only = StatVfs {
        f_flag: StatVfsMountFlags::RDONLY,
        ..state()
    };
    let said = says(&read_only, Limits::default());
    assert_eq!(said, "the file system is read-only");
    let allowed = Limits {
        read_only: true,
        ..Limits::default()
    };
    assert_eq!(says(&read_only, allowed), "");
}

#[test]
fn odd_answers_do_no_harm() {
    let empty = StatVfs {
        f_blocks: 0,
        f_bfree: 0,
        f_bavail: 0,
        ..state()
    };
    let strict = Limits {
        percent: 99,
        ..Limits::default()
    };
    assert_eq!(says(&empty, strict), "");
    let huge = StatVfs {
        f_frsize: u64::MAX,
        f_blocks: u64::MAX,
        f_bfree: u64::MAX,
        f_bavail: u64::MAX,
        f_files: u64::MAX,
        f_ffree: 0,
        f_favail: u64::MAX,
        ..state()
    };
    assert_eq!(says(&huge, strict), "");
}

#[cfg(feature = "config")]
#[test]
fn tables_are_checked() {
    use crate::config::check::CheckContext;
    let build = |text: &str| -> Result<(), String> {
        let table: DiskTable = toml::from_str(text).map_err(|e| e.message().to_owned())?;
        let address = "192.0.2.53/32".parse().unwrap();
        let context = CheckContext {
            node: &"ams1".parse().unwrap(),
            service: &"dns".parse().unwrap(),
            addresses: &crate::service::ServiceAddresses::new(vec![address]).unwrap(),
        };
        table.build(&context).map(drop)
    };
    build("path = '/'").unwrap();
    build("path = '/'\nmin_free = '2GiB'\nmin_free_percent = 5\nmin_free_inodes = 1000").unwrap();
    build("path = '/'\nallow_read_only = true\nmin_free_inodes_percent = 1").unwrap();
    for (text, part) in [
        ("path = 'a'", "path: a is not an absolute path"),
        (
            "path = '/'\nmin_free_percent = 0",
            "min_free_percent: must be between 1 and 99",
        ),
        (
            "path = '/'\nmin_free_inodes_percent = 100",
            "must be between 1 and 99",
        ),
        ("path = '/'\nmin_free_percent = 300", "invalid value"),
        (
            "path = '/'\nallow_read_only = true",
            "allow_read_only: then nothing is left",
        ),
        ("path = '/'\nmin_free = '5 %'", "is not a size"),
        ("path = '/'\nfree = 1", "unknown field"),
    ] {
        let error = build(text).unwrap_err();
        assert!(error.contains(part), "{text}: {error}");
    }
}
