//! A disk without space or without inodes, where orders are kept and checks look.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anycast_core::announce::Preference;
use anycast_core::health::disk::DiskCheck;
use anycast_core::health::file::FileCheck;
use anycast_core::{HealthCheck, Verdict};
use anycast_labs::isolate::work_dir;
use anycast_labs::isolated;

use crate::log::Lines;
use crate::support::Endpoint;

/// A small file system of its own.
struct Disk(PathBuf);

impl Disk {
    fn mount(options: &str) -> Self {
        let folder = work_dir().join("state");
        fs::create_dir(&folder).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "small"]);
        assert!(mount.arg(&folder).status().unwrap().success());
        Self(folder)
    }

    /// Until nothing goes in any more.
    fn fill(&self) {
        for number in 0.. {
            let filler = self.0.join(format!("filler{number}"));
            if let Err(error) = fs::write(filler, [1; 4096]) {
                assert_eq!(error.kind(), ErrorKind::StorageFull);
                return;
            }
        }
    }

    fn empty(&self) {
        for file in fs::read_dir(&self.0).unwrap().flatten() {
            if file.file_name().to_string_lossy().starts_with("filler") {
                fs::remove_file(file.path()).unwrap();
            }
        }
    }

    fn files(&self) -> Vec<String> {
        let files = fs::read_dir(&self.0).unwrap().flatten();
        let names = files.map(|file| file.file_name().to_string_lossy().into_owned());
        names.filter(|name| !name.starts_with("filler")).collect()
    }

    fn intent(&self) -> String {
        fs::read_to_string(self.0.join("intent-tftp.json")).unwrap()
    }
}

fn run(test: impl Future<Output = ()>) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap().block_on(test);
}

async fn order(endpoint: &Endpoint, verb: &str, reason: &str) -> serde_json::Value {
    let answer = endpoint
        .order(verb, &format!(r#"{{"reason": "{reason}"}}"#))
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

async fn orders_on_a_full_disk(options: &str) {
    let (lines, _guard) = Lines::collect();
    let disk = Disk::mount(options);
    let endpoint = Endpoint::keeping(&disk.0).await;
    endpoint.in_force(Preference::Preferred).await;
    // Full from the start.
    disk.fill();
    let told = order(&endpoint, "drain", "first").await;
    assert_eq!(told["in_force"], true, "{told}");
    assert_eq!(told["preference"], "demoted");
    assert_eq!(told["saved"], false);
    let warnings = told["warnings"].to_string();
    let full = "No space left on device";
    for part in ["it does not survive a restart: ", "intent-tftp.json", full] {
        assert!(warnings.contains(part), "{warnings}");
    }
    let intent = endpoint.get("/status").await.json()["services"][0]["intent"].clone();
    assert_eq!(intent["saved"], false, "{intent}");
    assert!(intent["unsaved_reason"].to_string().contains(full));
    let line = lines.until("cannot be saved; it stands").await;
    assert!(line.starts_with("ERROR") && line.contains(full), "{line}");
    assert_eq!(disk.files(), [""; 0], "nothing is left half-written");
    // There is space again: the next order is kept.
    disk.empty();
    let told = order(&endpoint, "drain", "second").await;
    assert_eq!(told["saved"], true, "{told}");
    lines.until("is saved now").await;
    assert!(disk.intent().contains("second"));
    // Full again: what was saved stays whole, until it can be replaced or is to go.
    disk.fill();
    let told = order(&endpoint, "withdraw", "third").await;
    assert_eq!(told["saved"], false, "{told}");
    assert_eq!(told["preference"], "withdrawn");
    assert!(disk.intent().contains("second"));
    assert_eq!(disk.files(), ["intent-tftp.json"]);
    let told = order(&endpoint, "undrain", "done").await;
    assert_eq!(told["saved"], true, "{told}");
    assert_eq!(disk.files(), [""; 0]);
    let intent = &endpoint.get("/status").await.json()["services"][0]["intent"];
    assert!(intent.is_null(), "{intent}");
    assert_eq!(endpoint.get("/healthz").await.status, 200);
    assert!(endpoint.node.handle().status().is_working());
}

#[test]
fn an_order_on_a_full_disk_stands_and_is_told_not_to_be_saved() {
    isolated(|| run(orders_on_a_full_disk("size=64k")));
}

#[test]
fn an_order_on_a_disk_without_inodes_stands_and_is_told_not_to_be_saved() {
    isolated(|| run(orders_on_a_full_disk("size=1m,nr_inodes=8")));
}

async fn look(check: &mut dyn HealthCheck) -> Verdict {
    check.check(Duration::from_secs(20)).await
}

fn unhealthy(verdict: &Verdict, why: &str) {
    let said = verdict.to_string();
    assert!(
        said.starts_with("unhealthy: ") && said.contains(why),
        "{said}"
    );
}

/// A full disk is the service's trouble, not the checkers'.
#[test]
fn checks_on_a_full_disk_say_so() {
    isolated(|| {
        run(async {
            let disk = Disk::mount("size=64k");
            let zone = disk.0.join("zone");
            let write = |path: &Path| fs::write(path, "content");
            let mut file = FileCheck::new(&zone).with_min_size(1);
            let mut free = DiskCheck::new(&disk.0).with_min_free(16 * 1024);
            write(&zone).unwrap();
            assert_eq!(look(&mut file).await, Verdict::Healthy);
            assert_eq!(look(&mut free).await, Verdict::Healthy);
            disk.fill();
            fs::remove_file(&zone).unwrap();
            disk.fill();
            // The service writes its file anew, and cannot.
            assert_eq!(write(&zone).unwrap_err().kind(), ErrorKind::StorageFull);
            unhealthy(&look(&mut file).await, "zone");
            unhealthy(&look(&mut free).await, "free");
            disk.empty();
            write(&zone).unwrap();
            assert_eq!(look(&mut file).await, Verdict::Healthy);
            assert_eq!(look(&mut free).await, Verdict::Healthy);
        });
    });
}
