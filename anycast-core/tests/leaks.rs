//! Checks that leak are found, named and built afresh; each test in a process of its own.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test: it fails by panicking, and runs in real time"
)]
#![cfg(feature = "testing")]

use std::fs::File;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anycast_core::announce::{InForce, Preference, Role};
use anycast_core::machine::{Identity, Policy};
use anycast_core::node::{CheckSpec, Node, ServiceSpec};
use anycast_core::testing::fakes::{Behaviour, RecordingAnnouncer, ScriptedCheck};
use anycast_core::{CheckName, HealthCheck, NodeName, ServiceAddresses, ServiceName, Verdict};
use anycast_labs::isolated;
use anycast_labs::logged::Logged;
use async_trait::async_trait;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use tracing::Level;

const LIMIT: Duration = Duration::from_secs(90);
const INTERVAL: Duration = Duration::from_millis(100);

async fn until(logged: &Logged, parts: &[&str]) {
    let begun = Instant::now();
    let has = |line: &String| parts.iter().all(|part| line.contains(part));
    while !logged.lines().iter().any(has) {
        let lines = logged.lines();
        assert!(begun.elapsed() < LIMIT, "no {parts:?} in {lines:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The first that is built keeps what it opens and begins; it is healthy all the same.
struct Leaky {
    descriptors: usize,
    tasks: usize,
    files: Vec<File>,
    helpers: JoinSet<()>,
}

#[async_trait]
impl HealthCheck for Leaky {
    async fn check(&mut self, _timeout: Duration) -> Verdict {
        if self.files.len() < self.descriptors {
            let opened = (0..20).filter_map(|_| File::open("/dev/null").ok());
            self.files.extend(opened);
        }
        if self.helpers.len() < self.tasks {
            for _ in 0..200 {
                self.helpers.spawn(std::future::pending());
            }
        }
        Verdict::Healthy
    }
}

fn spec_of(name: &str, build: anycast_core::health::BuildCheck) -> CheckSpec {
    CheckSpec::new(
        CheckName::new(name).unwrap(),
        INTERVAL,
        INTERVAL * 10,
        build,
    )
}

fn threads() -> Runtime {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().unwrap()
}

/// A leaky check beside two others, in a process that may have 256 descriptors.
fn is_found(descriptors: usize, tasks: usize, told: &str) {
    let pid = std::process::id().to_string();
    let prlimit = Command::new("prlimit")
        .args(["--nofile=256:256", "--pid", &pid])
        .status();
    assert!(prlimit.unwrap().success(), "install util-linux");
    let logged = Logged::new("anycast_core", Level::WARN);
    tracing::subscriber::set_global_default(logged.clone()).unwrap();
    let well = ScriptedCheck::new(Behaviour::Say(Verdict::Healthy));
    let announcer = RecordingAnnouncer::new(Duration::from_secs(10));
    let built = Arc::new(AtomicUsize::new(0));
    let build = |check: &ScriptedCheck| {
        let check = check.clone();
        let build: anycast_core::health::BuildCheck = Arc::new(move || Box::new(check.clone()));
        build
    };
    let leaky = Arc::clone(&built);
    let leaky: anycast_core::health::BuildCheck = Arc::new(move || {
        let first = leaky.fetch_add(1, Ordering::SeqCst) == 0;
        Box::new(Leaky {
            descriptors: if first { descriptors } else { 0 },
            tasks: if first { tasks } else { 0 },
            files: Vec::new(),
            helpers: JoinSet::new(),
        })
    });
    let checks = vec![
        spec_of("one", build(&well)),
        spec_of("leaky", leaky),
        spec_of("two", build(&well)),
    ];
    let identity = Identity {
        service: ServiceName::new("tftp").unwrap(),
        addresses: ServiceAddresses::new(vec!["192.0.2.69/32".parse().unwrap()]).unwrap(),
        role: Role::Primary,
    };
    let policy = Policy {
        hold_down: Duration::ZERO,
        ..Policy::default()
    };
    let spec = ServiceSpec::new(identity, policy, checks, Box::new(announcer.clone()));
    let (here, probes) = (threads(), threads());
    here.block_on(async {
        let node = Node::new(NodeName::new("ams1").unwrap());
        let mut node = node.with_probe_runtime(probes.handle().clone());
        node.start(spec).unwrap();
        until(&logged, &["run short"]).await;
        let parts = ["service=tftp", "check=leaky", "it leaks: ", told];
        until(&logged, &parts).await;
        let begun = Instant::now();
        while built.load(Ordering::SeqCst) < 2 {
            assert!(begun.elapsed() < LIMIT, "it is not built afresh");
            tokio::time::sleep(INTERVAL).await;
        }
        let open = std::fs::read_dir("/proc/self/fd").unwrap().count();
        assert!(open < 128, "{open} are open");
        // Everybody goes on.
        let mut state = node.handle().watch(&"tftp".parse().unwrap()).unwrap();
        let healthy = state.wait_for(|s| {
            let last = |c: &anycast_core::node::CheckSnapshot| c.last.clone();
            s.checks
                .iter()
                .filter_map(last)
                .all(|(_, v)| v == Verdict::Healthy)
        });
        tokio::time::timeout(LIMIT, healthy).await.unwrap().unwrap();
        let (begun, before) = (Instant::now(), well.probes());
        while well.probes() < before + 10 {
            assert!(begun.elapsed() < LIMIT, "the other checks stand still");
            tokio::time::sleep(INTERVAL).await;
        }
        let boost = |(_, preference): &(Instant, Preference)| *preference == Preference::Preferred;
        let applied = announcer.applied();
        let since = applied.iter().position(boost).unwrap();
        assert!(applied[since..].iter().all(boost), "it was lowered");
        assert_eq!(announcer.in_force(), InForce::Preferred);
        assert_eq!(built.load(Ordering::SeqCst), 2, "it is built afresh once");
        // On a slow machine they may be late; they are not to be blamed.
        let is_blamed = |line: &String| line.contains("it leaks") && !line.contains("check=leaky");
        let lines = logged.lines();
        assert!(!lines.iter().any(is_blamed), "{lines:?}");
    });
    probes.shutdown_background();
}

#[test]
fn a_check_that_keeps_descriptors_is_named_and_built_afresh() {
    isolated(|| is_found(180, 0, " descriptors and "));
}

#[test]
fn a_check_that_keeps_tasks_is_named_and_built_afresh() {
    isolated(|| is_found(0, 2000, " tasks went with it"));
}
