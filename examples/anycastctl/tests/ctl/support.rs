//! A node with one service, and the command that is tried on it.

use std::num::NonZeroU32;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anycast_core::admin::{Admin, AdminConfig, DataSet};
use anycast_core::announce::Preference;
use anycast_core::health::Verdict;
use anycast_core::machine::{Identity, PeerReport, Policy};
use anycast_core::node::{CheckSpec, Node, ServiceSpec};
use anycast_core::sync::{self, Forced, Lag, PeerStatus, Status, SyncError};
use anycast_core::testing::fakes::{Behaviour, RecordingAnnouncer, ScriptedCheck};
use anycast_core::{NodeName, Role, ServiceAddresses};
use async_trait::async_trait;

/// Long enough for the noisiest machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A node with one service; it ends when it is dropped.
pub(crate) struct Running {
    pub(crate) admin: String,
    pub(crate) announcer: RecordingAnnouncer,
    node: Node,
    runtime: tokio::runtime::Runtime,
}

impl Running {
    /// A fleet of this node and one peer, which was heard just now.
    pub(crate) fn has_peer(&self, preferred: bool) {
        let (service, peer) = ("tftp".parse().unwrap(), "fra1".parse().unwrap());
        let report = PeerReport {
            heard_at: std::time::Instant::now(),
            preferred,
            draining: false,
            failing_since: None,
        };
        let node = self.node.handle();
        let mut state = node.watch(&service).unwrap();
        self.runtime.block_on(async {
            let members = vec![NodeName::clone(&peer)];
            node.set_members(&service, members).await.unwrap();
            node.report_peer(&service, peer, report).await.unwrap();
            let heard = state.wait_for(|s| {
                let mut reports = s.fleet.iter().filter_map(|(_, report)| report.as_ref());
                reports.any(|report| report.preferred == preferred)
            });
            tokio::time::timeout(PATIENCE, heard)
                .await
                .unwrap()
                .unwrap();
        });
    }

    pub(crate) fn in_force(&self, preference: Preference) {
        let service = "tftp".parse().unwrap();
        let mut state = self.node.handle().watch(&service).unwrap();
        self.runtime.block_on(async {
            let reached = state.wait_for(|s| s.is_in_force(preference));
            tokio::time::timeout(PATIENCE, reached)
                .await
                .unwrap()
                .unwrap();
        });
    }
}

/// Starts a node and waits until `preference` is in force and its check has spoken.
pub(crate) fn start(admin: &str, verdict: Verdict, preference: Preference) -> Running {
    start_with(&admin.parse().unwrap(), verdict, preference)
}

pub(crate) fn start_with(
    config: &AdminConfig,
    verdict: Verdict,
    preference: Preference,
) -> Running {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let announcer = RecordingAnnouncer::new(PATIENCE);
    let (node, admin) = runtime.block_on(async {
        let check = CheckSpec::new(
            "probe".parse().unwrap(),
            Duration::from_millis(100),
            Duration::from_secs(10),
            Arc::new(move || Box::new(ScriptedCheck::new(Behaviour::Say(verdict.clone())))),
        );
        let service: anycast_core::ServiceName = "tftp".parse().unwrap();
        let policy = Policy {
            rise: NonZeroU32::MIN,
            hold_down: Duration::ZERO,
            ..Policy::default()
        };
        let mut node = Node::new("ams1".parse().unwrap());
        let identity = Identity {
            service: service.clone(),
            addresses: ServiceAddresses::new(vec![
                "192.0.2.69/32".parse().unwrap(),
                "2001:db8::69/128".parse().unwrap(),
            ])
            .unwrap(),
            role: Role::Primary,
        };
        let announcer = Box::new(announcer.clone());
        let mut spec = ServiceSpec::new(identity, policy, vec![check], announcer);
        spec.observe_every = Duration::from_secs(1);
        node.start(spec).unwrap();
        let admin = Admin::bind(config).await.unwrap();
        let admin = admin.with_data_set(files());
        let address = admin.local_addr().map(|address| address.to_string());
        let address = address.unwrap_or_else(|| config.addresses()[0].to_string());
        tokio::spawn(admin.run(node.handle()));
        let mut state = node.handle().watch(&service).unwrap();
        let reached = state.wait_for(|s| {
            s.is_in_force(preference) && s.checks.iter().all(|check| check.last.is_some())
        });
        tokio::time::timeout(PATIENCE, reached)
            .await
            .unwrap()
            .unwrap();
        (node, address)
    });
    Running {
        admin,
        announcer,
        node,
        runtime,
    }
}

/// Behind fra1 by two files until it is told to reconcile.
#[derive(Debug, Default)]
struct Files(AtomicBool);

#[async_trait]
impl sync::Sync for Files {
    async fn status(&self) -> Result<Status, SyncError> {
        let lag = self.lag().await?;
        let ready = lag == Lag::None;
        let reason = if ready {
            "as the fleet has it"
        } else {
            "2 files are missing"
        };
        let mut status = Status::new(ready, reason);
        status.peers.push(PeerStatus {
            peer: "fra1".parse().unwrap(),
            lag,
        });
        Ok(status)
    }

    async fn lag(&self) -> Result<Lag, SyncError> {
        let age = Duration::from_secs(75);
        let behind = Lag::Behind { items: 2, age };
        Ok(if self.0.load(Ordering::Relaxed) {
            Lag::None
        } else {
            behind
        })
    }

    async fn force(&self) -> Result<Forced, SyncError> {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let first = !self.0.swap(true, Ordering::Relaxed);
        Ok(Forced {
            compared: 9,
            fetched: if first { 2 } else { 0 },
            ..Forced::default()
        })
    }
}

fn files() -> DataSet {
    let item =
        serde_json::json!({"item": "boot/linux", "there": "1.5 MiB", "why": "being fetched"});
    let diff =
        serde_json::json!({"fra1": {"items": [item], "more": 1}, "lon1": {"error": "it is down"}});
    DataSet::new("files", Arc::new(Files::default()))
        .with_details(|| serde_json::json!({"files": 9, "troubles": ["a/b: the disk is full"]}))
        .with_diff(move || diff.clone())
}

/// The command, in an environment that names no node.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_anycastctl"));
    command.args(arguments);
    for variable in [
        "ANYCASTCTL_ADMIN",
        "ANYCASTCTL_TOKEN_FILE",
        "NO_COLOR",
        "COLUMNS",
    ] {
        command.env_remove(variable);
    }
    command
}

pub(crate) fn anycastctl(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

pub(crate) fn text(output: &[u8]) -> String {
    String::from_utf8(output.to_vec()).unwrap()
}

/// Nothing on standard output, one line on standard error.
pub(crate) fn one_line_of_error(output: &Output, status: i32) -> String {
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{error}");
    assert!(output.stdout.is_empty());
    assert_eq!(error.lines().count(), 1, "{error}");
    error
}
