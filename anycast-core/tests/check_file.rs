//! The check `file` with real files.

#![cfg(all(feature = "check-file", feature = "check-disk"))]
#![allow(
    clippy::disallowed_methods,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test waits by the clock, fails by panicking and tells its state by printing"
)]

mod check_support;

use std::fs::File;
use std::time::{Duration, SystemTime};

use anycast_core::HealthCheck;
use anycast_core::health::Evidence::Probe;
use anycast_core::health::disk::DiskCheck;
use anycast_core::health::file::FileCheck;

use check_support::{TIMEOUT, assert_healthy, assert_unhealthy, assert_unknown};

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn presence_and_absence() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("flag");
    let mut present = FileCheck::new(&path);
    let mut absent = FileCheck::absent(&path);
    assert_unhealthy(&present.check(TIMEOUT).await, Probe, "does not exist");
    assert_healthy(&absent.check(TIMEOUT).await);
    File::create(&path).unwrap();
    assert_healthy(&present.check(TIMEOUT).await);
    assert_unhealthy(&absent.check(TIMEOUT).await, Probe, "flag exists");
    // Below a file there is nothing.
    let mut below = FileCheck::new(path.join("x"));
    assert_unhealthy(&below.check(TIMEOUT).await, Probe, "does not exist");
    std::fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("nowhere", &path).unwrap();
    assert_unhealthy(&present.check(TIMEOUT).await, Probe, "does not exist");
    assert_healthy(&FileCheck::new("/").check(TIMEOUT).await);
}

#[tokio::test]
async fn what_cannot_be_looked_at_is_unknown_either_way() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("circle");
    std::os::unix::fs::symlink(&path, &path).unwrap();
    let long = folder.path().join("x".repeat(300));
    for path in [path, long] {
        assert_unknown(&FileCheck::new(&path).check(TIMEOUT).await, "");
        assert_unknown(&FileCheck::absent(&path).check(TIMEOUT).await, "");
    }
}

#[tokio::test]
async fn size_and_age_are_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("zone");
    let file = File::create(&path).unwrap();
    let mut filled = FileCheck::new(&path).with_min_size(1);
    assert_unhealthy(&filled.check(TIMEOUT).await, Probe, "holds 0 bytes");
    std::fs::write(&path, "x").unwrap();
    assert_healthy(&filled.check(TIMEOUT).await);

    let mut young = FileCheck::new(&path).with_max_age(HOUR);
    assert_healthy(&young.check(TIMEOUT).await);
    file.set_modified(SystemTime::now() - 2 * HOUR).unwrap();
    let verdict = young.check(TIMEOUT).await;
    assert_unhealthy(&verdict, Probe, "was last modified 720");
    // In the future: age 0.
    file.set_modified(SystemTime::now() + 2 * HOUR).unwrap();
    assert_healthy(&young.clone().check(TIMEOUT).await);
    let mut settled = FileCheck::new(&path).with_min_age(HOUR);
    assert_unhealthy(&settled.check(TIMEOUT).await, Probe, "was modified 0 s ago");
}

#[tokio::test]
async fn a_dropped_probe_is_no_obstacle() {
    let mut check = FileCheck::new("/");
    for _ in 0..50 {
        let _ = tokio::time::timeout(Duration::ZERO, check.check(TIMEOUT)).await;
    }
    assert_healthy(&check.check(TIMEOUT).await);
}

#[tokio::test]
async fn a_disk_is_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    let mut check = DiskCheck::new(folder.path());
    assert_healthy(&check.check(TIMEOUT).await);
    let mut check = check.with_min_free(u64::MAX);
    assert_unhealthy(&check.check(TIMEOUT).await, Probe, "bytes free, less than");
    let mut missing = DiskCheck::new(folder.path().join("none"));
    assert_unknown(&missing.check(TIMEOUT).await, "No such file");
}
