//! Checks that leak are found, named and built afresh; each test in a process of its own.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test: it fails by panicking, and runs in real time"
)]
#![cfg(feature = "testing")]

use std::fmt::{Debug, Write as _};
use std::fs::File;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anycast_core::announce::{InForce, Preference, Role};
use anycast_core::machine::{Identity, Policy};
use anycast_core::node::{CheckSpec, Node, ServiceSpec};
use anycast_core::testing::fakes::{Behaviour, RecordingAnnouncer, ScriptedCheck};
use anycast_core::{CheckName, HealthCheck, NodeName, ServiceAddresses, ServiceName, Verdict};
use anycast_labs::isolated;
use async_trait::async_trait;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber, span};

const LIMIT: Duration = Duration::from_secs(90);
const INTERVAL: Duration = Duration::from_millis(100);

/// What is logged at WARN and above.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, "{}={value:?} ", field.name()).unwrap();
    }
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("anycast_core") && *metadata.level() <= Level::WARN
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

impl Lines {
    async fn until(&self, parts: &[&str]) {
        let begun = Instant::now();
        let has = |line: &String| parts.iter().all(|part| line.contains(part));
        while !self.0.lock().unwrap().iter().any(has) {
            let lines = self.0.lock().unwrap().clone();
            assert!(begun.elapsed() < LIMIT, "no {parts:?} in {lines:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
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
    let lines = Lines::default();
    tracing::subscriber::set_global_default(lines.clone()).unwrap();
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
        lines.until(&["run short"]).await;
        let parts = ["service=tftp", "check=leaky", "it leaks: ", told];
        lines.until(&parts).await;
        assert_eq!(built.load(Ordering::SeqCst), 2, "it is built afresh");
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
        let lines = lines.0.lock().unwrap();
        assert!(!lines.iter().any(|line| line.contains("check=one")));
        assert!(!lines.iter().any(|line| line.contains("check=two")));
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
