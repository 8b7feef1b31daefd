//! A node with one service and its admin endpoint, and clients that say what they like.

use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anycast_core::admin::{Admin, AdminConfig, DataSet};
use anycast_core::announce::{InForce, Preference, Role};
use anycast_core::health::Severity;
use anycast_core::machine::{Identity, PeerReport, Phase, Policy, Readiness, ReadinessState};
use anycast_core::node::{CheckSpec, Node, ReadinessSpec, ServiceSpec, Snapshot, StateDir};
use anycast_core::testing::fakes::{Behaviour, RecordingAnnouncer, ScriptedCheck};
use anycast_core::{CheckName, NodeName, ServiceAddresses, ServiceName, Verdict};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use crate::data_sets::Files;

pub(crate) const LIMIT: Duration = Duration::from_secs(60);
pub(crate) const TOKEN: &str = "a-token-of-the-tests-alone";

pub(crate) struct Endpoint {
    pub(crate) node: Node,
    pub(crate) address: SocketAddr,
    pub(crate) socket: PathBuf,
    pub(crate) announcer: RecordingAnnouncer,
    pub(crate) check: ScriptedCheck,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) running: JoinHandle<()>,
    /// Of the input of readiness `clock`, where there is one.
    pub(crate) clock: Option<watch::Sender<Readiness>>,
    /// Lets the data set `files` end to reconcile.
    pub(crate) files: Arc<Notify>,
}

impl Endpoint {
    /// With a Unix socket, and TCP that takes no orders.
    pub(crate) async fn start() -> Self {
        Self::with(|config, _| config).await
    }

    /// With a Unix socket, and TCP that takes orders with [`TOKEN`].
    pub(crate) async fn with_token() -> Self {
        Self::with(|config, folder| {
            let path = folder.join("token");
            write_token(&path, TOKEN, 0o600);
            config.with_token_file(path).unwrap()
        })
        .await
    }

    pub(crate) async fn with(change: impl FnOnce(AdminConfig, &Path) -> AdminConfig) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let announcer = RecordingAnnouncer::new(Duration::from_secs(60));
        let check = ScriptedCheck::new(Behaviour::Say(Verdict::Healthy));
        let node = node(&announcer, &check).await;
        Self::of(node, announcer, check, folder, change).await
    }

    /// Its orders are kept in this folder.
    pub(crate) async fn keeping(folder: &Path) -> Self {
        let announcer = RecordingAnnouncer::new(Duration::from_secs(60));
        let check = ScriptedCheck::new(Behaviour::Say(Verdict::Healthy));
        let mut spec = spec(&announcer, &check);
        spec.state = Some(StateDir::new(folder));
        let mut node = Node::new(NodeName::new("ams1").unwrap());
        node.start(spec).unwrap();
        let own = tempfile::tempdir().unwrap();
        Self::of(node, announcer, check, own, |config, _| config).await
    }

    /// A service with a backup's role, a fleet of three, two inputs of readiness (one ready), a
    /// check that is a warning, a place where orders are kept, something in flight, and a
    /// policy that parks at the first fall.
    pub(crate) async fn in_trouble() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let announcer = RecordingAnnouncer::new(Duration::from_secs(60));
        let check = ScriptedCheck::new(Behaviour::Say(Verdict::Healthy));
        let mut spec = spec(&announcer, &check);
        spec.identity.role = Role::Backup(std::num::NonZeroU8::MIN);
        spec.policy.flap.limit = 1;
        let mut warning = CheckSpec::new(
            CheckName::new("disk").unwrap(),
            Duration::from_millis(100),
            Duration::from_secs(10),
            Arc::new(|| {
                let full = Verdict::unhealthy("almost full");
                Box::new(ScriptedCheck::new(Behaviour::Say(full)))
            }),
        );
        warning.severity = Severity::Warning;
        spec.checks.push(warning);
        spec.state = Some(StateDir::new(folder.path().join("state")));
        spec.in_flight = Some(Arc::new(|| 3));
        let unknown = Readiness::Unknown("no answer".into());
        let (sync, clock) = (watch::channel(Readiness::Ready), watch::channel(unknown));
        for (name, state) in [("sync", sync.1), ("clock", clock.1)] {
            spec.readiness.push(ReadinessSpec {
                name: CheckName::new(name).unwrap(),
                state,
            });
        }
        let peer = |name| NodeName::new(name).unwrap();
        spec.members = vec![peer("fra1"), peer("lon1")];
        let service = spec.identity.service.clone();
        let mut node = Node::new(NodeName::new("ams1").unwrap());
        node.start(spec).unwrap();
        let handle = node.handle();
        let mut state = handle.watch(&service).unwrap();
        let up = state.wait_for(|s| s.checks.iter().any(|check| check.phase == Phase::Up));
        tokio::time::timeout(LIMIT, up).await.unwrap().unwrap();
        for name in ["fra1", "lon1"] {
            let report = report(Some(std::time::Instant::now()));
            handle
                .report_peer(&service, peer(name), report)
                .await
                .unwrap();
        }
        let heard = state.wait_for(|s| s.fleet.iter().all(|(_, report)| report.is_some()));
        tokio::time::timeout(LIMIT, heard).await.unwrap().unwrap();
        let same = |config, _: &Path| config;
        let mut endpoint = Self::of(node, announcer, check, folder, same).await;
        endpoint.clock = Some(clock.0);
        endpoint
    }

    /// The service falls, rises and is parked, whatever it was before.
    pub(crate) async fn park(&self) {
        let service = "tftp".parse().unwrap();
        let mut state = self.node.handle().watch(&service).unwrap();
        if let Some(clock) = &self.clock {
            clock.send_replace(Readiness::Ready);
        }
        // As long as the whole fleet seems to fall, a fall is none.
        for name in ["fra1", "lon1"] {
            let peer = NodeName::new(name).unwrap();
            let told = self
                .node
                .handle()
                .report_peer(&service, peer, report(None))
                .await;
            told.unwrap();
        }
        let ready = |s: &Snapshot| s.readiness.iter().all(ReadinessState::is_ready);
        let healthy = state.wait_for(|s| s.failing_since.is_none() && ready(s));
        tokio::time::timeout(LIMIT, healthy).await.unwrap().unwrap();
        let dead = Verdict::unhealthy("it comes and goes");
        self.check.set(Behaviour::Say(dead));
        let down = state.wait_for(|s| s.checks[0].phase == Phase::Down);
        tokio::time::timeout(LIMIT, down).await.unwrap().unwrap();
        self.check.set(Behaviour::Say(Verdict::Healthy));
        let parked = state.wait_for(|s| s.parked_since.is_some() && s.checks[0].phase == Phase::Up);
        tokio::time::timeout(LIMIT, parked).await.unwrap().unwrap();
    }

    async fn of(
        node: Node,
        announcer: RecordingAnnouncer,
        check: ScriptedCheck,
        folder: tempfile::TempDir,
        change: impl FnOnce(AdminConfig, &Path) -> AdminConfig,
    ) -> Self {
        let socket = folder.path().join("admin.sock");
        let config = AdminConfig::listening_on(vec![
            format!("unix:{}", socket.display()).parse().unwrap(),
            "127.0.0.1:0".parse().unwrap(),
        ]);
        let config = change(config.unwrap(), folder.path());
        let admin = Admin::bind(&config).await.unwrap();
        let admin = admin
            .with_section("tftp", || {
                std::collections::BTreeMap::from([("blocks_sent", 7), ("in_flight", 2)])
            })
            .with_gauges("tftp", &["in_flight"])
            .with_section("node", || "taken");
        let files = Files::default();
        let may_end = Arc::clone(&files.0);
        let files = DataSet::new("files", Arc::new(files))
            .with_diff(|| std::collections::BTreeMap::from([("fra1", ["boot/linux"])]));
        let admin = admin.with_data_set(files);
        let address = admin.local_addr().unwrap();
        let running = tokio::spawn(admin.run(node.handle()));
        Self {
            node,
            address,
            socket,
            announcer,
            check,
            folder,
            running,
            clock: None,
            files: may_end,
        }
    }

    /// A request over TCP, as it is, and all that is answered.
    pub(crate) async fn ask(&self, request: &[u8]) -> String {
        let stream = TcpStream::connect(self.address).await.unwrap();
        exchange(stream, request).await
    }

    /// The same over the Unix socket.
    pub(crate) async fn ask_socket(&self, request: &[u8]) -> String {
        let stream = UnixStream::connect(&self.socket).await.unwrap();
        exchange(stream, request).await
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
        Reply::read(&self.ask(request.as_bytes()).await)
    }

    /// An order over the Unix socket.
    pub(crate) async fn order(&self, verb: &str, body: &str) -> Reply {
        let path = format!("/services/tftp/{verb}");
        let request = post(&path, &[("Host", "localhost"), JSON], body);
        Reply::read(&self.ask_socket(&request).await)
    }

    /// An order over TCP, with these headers beside the usual ones.
    pub(crate) async fn order_tcp(&self, verb: &str, headers: &[(&str, &str)]) -> Reply {
        let path = format!("/services/tftp/{verb}");
        let headers = [&[("Host", "localhost:9180"), JSON][..], headers].concat();
        Reply::read(&self.ask(&post(&path, &headers, "{}")).await)
    }

    /// A reload: it joins and leaves in turn from now on.
    #[cfg(feature = "mesh")]
    pub(crate) async fn take_turns(&self) {
        let policy = Policy {
            hold_down: Duration::ZERO,
            turns: Some(anycast_core::machine::TurnPolicy::default()),
            ..Policy::default()
        };
        let (service, checks) = ("tftp".parse().unwrap(), vec![probe(&self.check)]);
        let handle = self.node.handle();
        handle.reconfigure(&service, policy, checks).await.unwrap();
    }

    pub(crate) async fn in_force(&self, preference: Preference) {
        let service = "tftp".parse().unwrap();
        let mut state = self.node.handle().watch(&service).unwrap();
        let reached = state.wait_for(|s| s.is_in_force(preference));
        tokio::time::timeout(LIMIT, reached).await.unwrap().unwrap();
    }

    /// Waits until this was decided, whether it is in force or not.
    pub(crate) async fn decided(&self, preference: Preference) {
        let service = "tftp".parse().unwrap();
        let mut state = self.node.handle().watch(&service).unwrap();
        let reached = state.wait_for(|s| s.preference == preference);
        tokio::time::timeout(LIMIT, reached).await.unwrap().unwrap();
    }

    /// No order has reached the service: it was never lowered since it was raised.
    pub(crate) fn is_untouched(&self) -> bool {
        let applied = self.announcer.applied();
        let raised = applied
            .iter()
            .skip_while(|(_, preference)| *preference != Preference::Preferred);
        self.announcer.in_force() == InForce::Preferred
            && raised
                .into_iter()
                .all(|(_, preference)| *preference == Preference::Preferred)
    }
}

pub(crate) const JSON: (&str, &str) = ("Content-Type", "application/json");

pub(crate) fn post(path: &str, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
    let headers: String = headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\n{headers}Content-Length: {length}\r\n\r\n{body}").into_bytes()
}

pub(crate) fn write_token(path: &Path, token: &str, mode: u32) {
    fs::write(path, format!("{token}\n")).unwrap();
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

pub(crate) async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    request: &[u8],
) -> String {
    // It may be cut off while it still writes.
    let _ = stream.write_all(request).await;
    let mut answer = Vec::new();
    // A reset after the answer is as good as an end.
    let _ = tokio::time::timeout(LIMIT, stream.read_to_end(&mut answer))
        .await
        .unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// An answer, taken apart.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn read(text: &str) -> Self {
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            panic!("no HTTP answer: {text:?}");
        };
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        Self {
            status: status.unwrap(),
            head: head.to_ascii_lowercase(),
            body: body.to_owned(),
        }
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// The `error` of a refusal.
    pub(crate) fn error(&self) -> String {
        self.json()["error"].as_str().unwrap().to_owned()
    }
}

fn report(failing_since: Option<std::time::Instant>) -> PeerReport {
    PeerReport {
        heard_at: std::time::Instant::now(),
        preferred: true,
        draining: false,
        failing_since,
    }
}

fn probe(check: &ScriptedCheck) -> CheckSpec {
    let check = check.clone();
    CheckSpec::new(
        CheckName::new("probe").unwrap(),
        Duration::from_millis(100),
        Duration::from_millis(50),
        Arc::new(move || Box::new(check.clone())),
    )
}

fn spec(announcer: &RecordingAnnouncer, check: &ScriptedCheck) -> ServiceSpec {
    let identity = Identity {
        service: ServiceName::new("tftp").unwrap(),
        addresses: ServiceAddresses::new(vec!["192.0.2.69/32".parse().unwrap()]).unwrap(),
        role: Role::Primary,
    };
    let policy = Policy {
        hold_down: Duration::ZERO,
        ..Policy::default()
    };
    let announcer = Box::new(announcer.clone());
    let mut spec = ServiceSpec::new(identity, policy, vec![probe(check)], announcer);
    spec.observe_every = Duration::from_secs(1);
    spec
}

pub(crate) async fn node(announcer: &RecordingAnnouncer, check: &ScriptedCheck) -> Node {
    let mut node = Node::new(NodeName::new("ams1").unwrap());
    let spec = spec(announcer, check);
    let service = spec.identity.service.clone();
    node.start(spec).unwrap();
    let mut state = node.handle().watch(&service).unwrap();
    let preferred = state.wait_for(|s| s.is_in_force(Preference::Preferred));
    tokio::time::timeout(LIMIT, preferred)
        .await
        .unwrap()
        .unwrap();
    node
}
