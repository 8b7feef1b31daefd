//! The Unix socket's file: whose it is, and whom it lets in.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anycast_core::admin::{Admin, AdminAddress, AdminConfig, AdminError, Principal};
use anycast_core::node::Node;
use tokio::net::UnixStream;

use crate::support::Endpoint;

fn config(path: &Path) -> AdminConfig {
    AdminConfig::new(AdminAddress::Unix(path.to_owned()))
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[tokio::test]
async fn it_replaces_a_dead_one_and_spares_a_live_one() {
    let endpoint = Endpoint::start().await;
    let path = endpoint.folder.path().join("second.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap()); // leaves a dead socket file
    let admin = Admin::bind(&config(&path)).await.unwrap();
    assert!(matches!(
        Admin::bind(&config(&path)).await,
        Err(AdminError::InUse { .. })
    ));
    drop(admin);
    assert!(!path.exists(), "the socket's file was left behind");
    let answer = endpoint
        .ask_socket(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        .await;
    assert!(answer.ends_with("ok\n"), "{answer}");
    endpoint.running.abort();
    let _ = endpoint.running.await;
    assert!(
        !endpoint.socket.exists(),
        "the socket's file was left behind"
    );
}

/// A daemon ends its runtime without waiting for its tasks, which are then never dropped.
#[test]
fn it_is_gone_when_what_runs_the_endpoint_is_dropped_and_no_task_runs_again() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    runtime.block_on(async {
        let admin = Admin::bind(&config(&path)).await.unwrap();
        let node = Node::new("ams1".parse().unwrap());
        tokio::select! {
            () = admin.run(node.handle()) => {}
            connected = UnixStream::connect(&path) => drop(connected.unwrap()),
        }
    });
    let left = path.exists();
    std::mem::forget(runtime);
    assert!(!left, "the socket's file was left behind");
}

#[tokio::test]
async fn a_file_that_is_no_socket_is_spared() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    fs::write(&path, "precious").unwrap();
    assert!(matches!(
        Admin::bind(&config(&path)).await,
        Err(AdminError::Bind { .. })
    ));
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}

#[tokio::test]
async fn a_file_that_took_its_place_is_not_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    let admin = Admin::bind(&config(&path)).await.unwrap();
    fs::remove_file(&path).unwrap();
    fs::write(&path, "another's").unwrap();
    drop(admin);
    assert!(path.exists());
}

#[tokio::test]
async fn it_has_the_mode_that_was_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    let bound = Admin::bind(&config(&path)).await.unwrap();
    assert_eq!(mode(&path), 0o600);
    drop(bound);
    let group = fs::metadata(folder.path()).unwrap().gid();
    let config = config(&path).with_group(Principal::Id(group)).unwrap();
    let bound = Admin::bind(&config).await.unwrap();
    assert_eq!(mode(&path), 0o660);
    assert_eq!(fs::metadata(&path).unwrap().gid(), group);
    drop(bound);
    let bound = Admin::bind(&config.with_mode(0o640).unwrap())
        .await
        .unwrap();
    assert_eq!(mode(&path), 0o640);
    drop(bound);
}

#[tokio::test]
async fn an_owner_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    let nobody = Principal::Name("no such user".into());
    let config = config(&path).with_owner(nobody).unwrap();
    let Err(error) = Admin::bind(&config).await else {
        panic!("it was bound");
    };
    assert!(error.to_string().contains("/etc/passwd has no"), "{error}");
    assert!(!path.exists());
}

/// Somebody who looks at the file all the time never finds it open to others.
#[tokio::test(flavor = "multi_thread")]
async fn it_is_never_open_for_a_moment() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    let done = Arc::new(AtomicBool::new(false));
    let watcher = {
        let (path, done) = (path.clone(), Arc::clone(&done));
        std::thread::spawn(move || {
            let mut seen = 0_u64;
            while !done.load(Ordering::Relaxed) {
                if let Ok(metadata) = fs::symlink_metadata(&path) {
                    seen += 1;
                    assert_eq!(metadata.mode() & 0o077, 0, "{:o}", metadata.mode());
                }
            }
            seen
        })
    };
    for _ in 0..500 {
        drop(Admin::bind(&config(&path)).await.unwrap());
    }
    done.store(true, Ordering::Relaxed);
    let seen = watcher.join().unwrap();
    assert!(seen > 0, "the file was never seen at all");
}

#[test]
fn addresses_are_loopback_or_absolute_paths() {
    for good in [
        "127.0.0.1:9180",
        "[::1]:9180",
        "unix:/run/anycast/ams1.sock",
    ] {
        let address: AdminAddress = good.parse().unwrap();
        assert_eq!(address.to_string(), good);
    }
    for bad in [
        "0.0.0.0:9180",
        "192.0.2.1:9180",
        "unix:relative",
        "9180",
        "",
        "[::]:1",
    ] {
        assert!(bad.parse::<AdminAddress>().is_err(), "{bad}");
    }
}
