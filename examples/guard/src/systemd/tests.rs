//! The watchdog against decision loops that hang and die, in real time.

use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;

use anycast_core::Verdict;
use anycast_core::announce::Role;
use anycast_core::intent_store::OrderKind;
use anycast_core::machine::{Identity, Policy};
use anycast_core::node::{CheckSpec, Node, Order, ServiceSpec};
use anycast_core::service::ServiceAddresses;
use anycast_core::testing::fakes::{Behaviour, RecordingAnnouncer, ScriptedCheck};

use super::*;

/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);
const WATCHDOG: Duration = Duration::from_millis(400);
/// Many times the pause between two looks, and between two steps of a loop.
const SILENCE: Duration = Duration::from_secs(3);

fn service(name: &str, announcer: &RecordingAnnouncer) -> ServiceSpec {
    let identity = Identity {
        service: name.parse().unwrap(),
        addresses: ServiceAddresses::new(vec!["192.0.2.69/32".parse().unwrap()]).unwrap(),
        role: Role::Primary,
    };
    let policy = Policy {
        rise: NonZeroU32::MIN,
        ..Policy::default()
    };
    let check = ScriptedCheck::new(Behaviour::Say(Verdict::Healthy));
    let (every, within) = (Duration::from_millis(200), Duration::from_millis(100));
    let build = Arc::new(move || Box::new(check.clone()) as Box<_>);
    let check = CheckSpec::new("probe".parse().unwrap(), every, within, build);
    ServiceSpec::new(identity, policy, vec![check], Box::new(announcer.clone()))
}

struct Manager(UnixDatagram);

impl Manager {
    fn bind(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        Self(socket)
    }

    /// The next message, if one comes within this time.
    fn next(&self, within: Duration) -> Option<String> {
        self.0.set_read_timeout(Some(within)).unwrap();
        let mut buffer = [0; 4096];
        let length = self.0.recv(&mut buffer).ok()?;
        Some(String::from_utf8(buffer[..length].to_vec()).unwrap())
    }

    fn until(&self, part: &str) {
        loop {
            let message = self.next(PATIENCE).unwrap_or_else(|| panic!("no {part}"));
            if message.contains(part) {
                return;
            }
        }
    }

    /// How often the watchdog is fed in this time, after what waits now.
    fn fed_within(&self, time: Duration) -> usize {
        while self.next(Duration::from_millis(1)).is_some() {}
        let end = Instant::now() + time;
        let mut fed = 0;
        while let left @ 1.. = end.saturating_duration_since(Instant::now()).as_millis() {
            let left = Duration::from_millis(u64::try_from(left).unwrap());
            let message = self.next(left);
            fed += usize::from(message.is_some_and(|text| text.contains("WATCHDOG=1")));
        }
        fed
    }
}

/// Holds the decision loop that asks for it.
#[derive(Default)]
struct Hold {
    wanted: AtomicBool,
    holds: AtomicBool,
}

impl Hold {
    fn ask(&self) -> u64 {
        let end = Instant::now() + PATIENCE;
        while self.wanted.load(Ordering::SeqCst) && Instant::now() < end {
            self.holds.store(true, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(5));
        }
        0
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 6)]
async fn the_watchdog_is_fed_only_while_every_loop_decides() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify.sock");
    let manager = Manager::bind(&path);
    let systemd = Systemd {
        socket: Some(connect(&path.into_os_string()).unwrap()),
        watchdog: Some(WATCHDOG),
        ready: AtomicBool::new(false),
    };
    let dead_man = Duration::from_millis(600);
    let announcers = [(); 2].map(|()| RecordingAnnouncer::new(dead_man));
    let [web, dns] = &announcers;
    let hold = Arc::new(Hold::default());
    let mut node = Node::new("ams1".parse().unwrap());
    node.start(service("web", web)).unwrap();
    let mut held = service("dns", dns);
    let asked = Arc::clone(&hold);
    held.in_flight = Some(Arc::new(move || asked.ask()));
    node.start(held).unwrap();
    let handle = node.handle();

    // A reload before the start is over says nothing, and so cannot say that it is.
    systemd.reloading();
    systemd.reloaded();
    let follower = handle.clone();
    let _telling = Abort(tokio::spawn(async move {
        systemd.follow(&follower, || false).await;
    }));
    let first = manager.next(PATIENCE).unwrap();
    assert!(first.starts_with("STATUS=starting"), "{first}");
    manager.until("READY=1");
    for _ in 0..3 {
        manager.until("WATCHDOG=1");
    }

    // One loop of two hangs.
    hold.wanted.store(true, Ordering::SeqCst);
    let order = Order {
        kind: OrderKind::Demote,
        reason: "test".into(),
        by: "test".into(),
        lasts: None,
    };
    handle.order(&"dns".parse().unwrap(), order).await.unwrap();
    while !hold.holds.load(Ordering::SeqCst) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let steps_of_web = || handle.steps().next().unwrap().1;
    // One message may have been under way.
    let _ = manager.fed_within(WATCHDOG);
    let before = steps_of_web();
    assert_eq!(manager.fed_within(SILENCE), 0);
    assert!(steps_of_web() > before, "the other loop goes on");
    hold.wanted.store(false, Ordering::SeqCst);
    for _ in 0..3 {
        manager.until("WATCHDOG=1");
    }

    // One loop of two dies.
    web.set_panicking();
    assert_eq!(handle.failed().await.as_str(), "web");
    let _ = manager.fed_within(WATCHDOG);
    assert_eq!(manager.fed_within(SILENCE), 0);
    drop(node);
}

struct Abort(tokio::task::JoinHandle<()>);

impl Drop for Abort {
    fn drop(&mut self) {
        self.0.abort();
    }
}
