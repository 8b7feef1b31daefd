//! Orders over restarts, reboots, wall-clock jumps and bad disks, in virtual time.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use tempfile::TempDir;

use super::*;
use crate::health::Reason;
use crate::intent_store::file::IntentFile;
use crate::intent_store::{BootId, ClockReading};

const HOUR: Duration = Duration::from_secs(3600);
/// What the wall clock said when the host was first booted.
const EPOCH: Duration = Duration::from_secs(1_700_000_000);

/// The clocks of a host that follows tokio's time.
#[derive(Clone)]
struct Host(Arc<Mutex<Clocks>>);

struct Clocks {
    began: Instant,
    boots: u32,
    booted: Instant,
    slept: Duration,
    wall_ahead: i64,
}

impl Host {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Clocks {
            began: now(),
            boots: 1,
            booted: now(),
            slept: Duration::ZERO,
            wall_ahead: 0,
        })))
    }

    fn clocks(&self) -> MutexGuard<'_, Clocks> {
        self.0.lock().unwrap()
    }

    fn set_wall(&self, ahead: i64) {
        self.clocks().wall_ahead = ahead;
    }

    fn reboot(&self) {
        let mut clocks = self.clocks();
        (clocks.boots, clocks.booted) = (clocks.boots + 1, now());
    }

    /// The host was suspended: CLOCK_BOOTTIME and the wall clock went on.
    fn sleep(&self, time: Duration) {
        self.clocks().slept += time;
    }

    fn clock(&self) -> Clock {
        let host = self.clone();
        Arc::new(move || {
            let clocks = host.clocks();
            let wall = EPOCH + (now() - clocks.began) + clocks.slept;
            let ahead = Duration::from_secs(clocks.wall_ahead.unsigned_abs());
            ClockReading {
                boot: BootId::new(&format!("boot-{}", clocks.boots)),
                boottime: now() - clocks.booted + clocks.slept,
                wall: if clocks.wall_ahead < 0 {
                    wall.saturating_sub(ahead)
                } else {
                    wall + ahead
                },
            }
        })
    }
}

/// A host with a disk, on which one service is started again and again.
struct Site {
    folder: TempDir,
    host: Host,
    announcer: RecordingAnnouncer,
}

impl Site {
    fn new() -> Self {
        Self {
            folder: TempDir::new().unwrap(),
            host: Host::new(),
            announcer: RecordingAnnouncer::new(DEAD_MAN),
        }
    }

    fn state_dir(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    fn file(&self) -> PathBuf {
        self.state_dir().join("intent-tftp.json")
    }

    fn start(&self) -> Running {
        let mut spec = spec("tftp", &[("probe", &healthy())], &self.announcer);
        spec.state = Some(StateDir::new(self.state_dir()).with_clock(self.host.clock()));
        Running::start(spec)
    }

    /// Kills it. What its last write was doing is waited for: a dead process writes nothing.
    async fn kill(&self, running: Running) {
        drop(running);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    /// Starts it with the order already in force.
    async fn ordered(&self, order: Order) -> Running {
        let mut running = self.start();
        running.until_in_force(Preference::Preferred).await;
        assert_eq!(running.order(order).await, Saved::Yes);
        running.until_in_force(Preference::Demoted).await;
        running
    }
}

impl Running {
    async fn order(&self, order: Order) -> Saved {
        let service = ServiceName::new("tftp").unwrap();
        let ordered = self.node.handle().order(&service, order).await;
        ordered.unwrap().saved
    }

    async fn undrain(&self) -> Saved {
        let service = ServiceName::new("tftp").unwrap();
        self.node.handle().undrain(&service).await.unwrap().saved
    }

    fn intent(&self) -> Option<IntentSnapshot> {
        self.state.borrow().intent.clone()
    }

    fn intent_status(&self) -> IntentStatus {
        let mut status = self.node.handle().status();
        status.services.remove(0).intent.unwrap()
    }
}

fn drain_for(lasts: Duration) -> Order {
    order(OrderKind::Demote, Some(lasts))
}

async fn until_gone(file: &Path) {
    let gone = async {
        while file.exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LONG, gone).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn f9_a_drain_for_two_hours_survives_a_restart_and_ends_on_time() {
    let site = Site::new();
    let running = site.ordered(drain_for(2 * HOUR)).await;
    let until = running.intent().unwrap().until.unwrap();
    assert!(site.file().exists());
    tokio::time::sleep(HOUR).await;
    site.kill(running).await;
    tokio::time::sleep(HOUR / 2).await;

    let mut running = site.start();
    running.until_in_force(Preference::Demoted).await;
    let intent = running.intent().unwrap();
    assert_eq!((intent.until, intent.saved), (Some(until), Saved::Yes));
    let reason = running.state.borrow().reason.clone();
    assert!(reason.as_str().contains("disk swap"), "{reason}");
    let status = running.intent_status();
    assert_eq!(status.by.as_str(), "alice from ::1");
    assert!((5400.0..5500.0).contains(&status.age_s), "{status:?}");
    let left = status.expires_in_s.unwrap();
    assert!((left + status.age_s - 7200.0).abs() < 0.01, "{status:?}");
    assert!(status.saved && status.unsaved_reason.is_none());

    tokio::time::sleep(until - now() - Duration::from_millis(2)).await;
    assert_eq!(site.announcer.in_force(), InForce::Demoted);
    running.until_in_force(Preference::Preferred).await;
    assert_eq!(running.state.borrow().since, Some(until), "not on time");
    assert_eq!(running.intent(), None);
    until_gone(&site.file()).await;
    site.kill(running).await;
    let mut running = site.start();
    running.until_in_force(Preference::Preferred).await;
}

#[tokio::test(start_paused = true)]
async fn f9_killed_at_any_step_an_order_that_was_answered_stands_and_ends_on_time() {
    let mut stood = [0, 0];
    for step in 0..60 {
        let site = Site::new();
        let mut running = site.start();
        running.until_in_force(Preference::Preferred).await;
        let given = now();
        let mut ordered = Box::pin(running.order(drain_for(HOUR)));
        let mut answered = false;
        for _ in 0..step {
            answered |= futures_poll(&mut ordered).await.is_some();
            if answered {
                break;
            }
        }
        drop(ordered);
        site.kill(running).await;
        assert!(!site.file().with_extension("json.tmp").exists());
        let mut running = site.start();
        running.until("it has started", |s| s.since.is_some()).await;
        let stands = running.intent().is_some();
        assert!(stands || !answered, "step {step}: answered, and lost");
        stood[usize::from(stands)] += 1;
        if stands {
            running.until_in_force(Preference::Demoted).await;
            tokio::time::sleep(HOUR - Duration::from_secs(30)).await;
            assert_eq!(site.announcer.in_force(), InForce::Demoted);
            running.until_in_force(Preference::Preferred).await;
            let since = running.state.borrow().since.unwrap();
            assert!(since - given >= HOUR, "step {step}");
            assert!(
                since - given <= HOUR + Duration::from_secs(1),
                "step {step}"
            );
        }
    }
    assert!(stood.iter().all(|count| *count > 0), "{stood:?}");
}

/// Polls once and lets everything else run once. `Some` when it is done.
async fn futures_poll<T>(future: &mut (impl Future<Output = T> + Unpin)) -> Option<T> {
    tokio::select! {
        biased;
        output = future => Some(output),
        () = tokio::task::yield_now() => None,
    }
}

#[tokio::test(start_paused = true)]
async fn f11_wall_clock_jumps_move_no_end() {
    for ahead in [-1_600_000_000, -3600, 3600, 1_000_000_000] {
        let site = Site::new();
        let running = site.ordered(drain_for(2 * HOUR)).await;
        let until = running.intent().unwrap().until;
        site.host.set_wall(ahead);
        tokio::time::sleep(HOUR).await;
        assert_eq!(running.intent().unwrap().until, until);
        site.kill(running).await;
        let mut running = site.start();
        running.until_in_force(Preference::Demoted).await;
        assert_eq!(running.intent().unwrap().until, until);
        site.host.set_wall(-ahead);
        tokio::time::sleep(HOUR).await;
        running.until_in_force(Preference::Preferred).await;
        assert_eq!(running.state.borrow().since, until);
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_reboot_into_a_wrong_wall_clock_it_ends_within_its_time() {
    let site = Site::new();
    let running = site.ordered(drain_for(2 * HOUR)).await;
    tokio::time::sleep(HOUR).await;
    site.kill(running).await;
    site.host.reboot();
    site.host.set_wall(-1_600_000_000); // no battery
    let rebooted = now();
    let mut running = site.start();
    running.until_in_force(Preference::Demoted).await;
    let until = running.intent().unwrap().until.unwrap();
    assert_eq!(until, rebooted + 2 * HOUR, "no more than it had at first");
    running
        .until("it is bound to this boot", |s| {
            s.intent.as_ref().is_some_and(|i| i.saved == Saved::Yes)
        })
        .await;
    site.host.set_wall(0); // set right by NTP
    tokio::time::sleep(HOUR).await;
    site.kill(running).await;
    let mut running = site.start();
    running.until_in_force(Preference::Demoted).await;
    assert_eq!(running.intent().unwrap().until, Some(until));
    site.kill(running).await;

    site.host.reboot();
    site.host.set_wall(1_000_000_000);
    let mut running = site.start();
    running.until_in_force(Preference::Preferred).await;
    until_gone(&site.file()).await;
}

#[tokio::test(start_paused = true)]
async fn an_order_ends_on_time_when_the_host_was_suspended() {
    let site = Site::new();
    let mut running = site.ordered(drain_for(2 * HOUR)).await;
    let until = running.intent().unwrap().until.unwrap();
    site.host.sleep(HOUR);
    tokio::time::sleep(DEAD_MAN).await;
    assert_eq!(running.intent().unwrap().until, Some(until - HOUR));
    site.host.sleep(HOUR);
    running.until_in_force(Preference::Preferred).await;
    assert!(now() < until - HOUR);
}

#[tokio::test(start_paused = true)]
async fn an_order_that_ended_while_nobody_ran_is_forgotten() {
    let site = Site::new();
    let running = site.ordered(drain_for(HOUR)).await;
    site.kill(running).await;
    tokio::time::sleep(HOUR).await;
    let mut running = site.start();
    running.until_in_force(Preference::Preferred).await;
    assert_eq!(running.intent(), None);
    until_gone(&site.file()).await;
}

#[tokio::test(start_paused = true)]
async fn an_order_is_replaced_and_lifted_also_on_the_disk() {
    let site = Site::new();
    let running = site.ordered(order(OrderKind::Demote, None)).await;
    assert_eq!(
        running.order(order(OrderKind::Withdraw, None)).await,
        Saved::Yes
    );
    site.kill(running).await;
    let mut running = site.start();
    let withdrawn = |s: &Snapshot| s.preference.is_withdrawn();
    running.until("withdrawn again", withdrawn).await;
    assert_eq!(running.undrain().await, Saved::Yes);
    assert!(!site.file().exists());
    running.until_in_force(Preference::Preferred).await;
    site.kill(running).await;
    let mut running = site.start();
    running.until_in_force(Preference::Preferred).await;
    assert_eq!(running.undrain().await, Saved::Yes, "nothing to lift");
}

#[tokio::test(start_paused = true)]
async fn a_saved_order_is_restored_before_the_first_decision() {
    let site = Site::new();
    let running = site.ordered(order(OrderKind::Demote, None)).await;
    site.kill(running).await;
    let applied = site.announcer.applied().len();
    site.announcer.leave_boost(DEAD_MAN);
    let mut running = site.start();
    running.until_in_force(Preference::Demoted).await;
    tokio::time::sleep(LONG).await;
    let applied = site.announcer.applied().split_off(applied);
    assert!(!applied.is_empty());
    assert!(applied.iter().all(|(_, p)| *p == Preference::Demoted));
}

#[tokio::test(start_paused = true)]
async fn an_order_given_before_anything_can_be_observed_overrules_the_saved_one() {
    let site = Site::new();
    let running = site.ordered(order(OrderKind::Demote, None)).await;
    site.kill(running).await;
    site.announcer.set_failing(true);
    let mut running = site.start();
    running.until("restored", |s| s.intent.is_some()).await;
    assert_eq!(running.undrain().await, Saved::Yes);
    running.until("lifted", |s| s.intent.is_none()).await;
    site.announcer.set_failing(false);
    running.until_in_force(Preference::Preferred).await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_understood_keeps_the_node_demoted_until_it_is_undrained() {
    let future = br#"{"version": 2, "order": {"kind": "demote"}}"#;
    for bad in [&b""[..], b"{", b"\xff\xfe\x00", &future[..]] {
        let site = Site::new();
        fs::create_dir(site.state_dir()).unwrap();
        fs::write(site.file(), bad).unwrap();
        site.announcer.leave_boost(DEAD_MAN);
        for _ in 0..2 {
            let mut running = site.start();
            running.until_in_force(Preference::Demoted).await;
            tokio::time::sleep(LONG).await;
            assert_eq!(site.announcer.in_force(), InForce::Demoted);
            let status = running.intent_status();
            let reason = status.reason.as_str();
            assert!(reason.contains("undrain"), "{reason}");
            assert!(reason.contains("intent-tftp.json"), "{reason}");
            assert!(status.saved, "{status:?}");
            assert_eq!(status.expires_in_s, None);
            site.kill(running).await;
        }
        let aside = site.state_dir().join("intent-tftp.json.bad");
        assert_eq!(fs::read(&aside).unwrap(), bad);
        let mut running = site.start();
        running.until_in_force(Preference::Demoted).await;
        assert_eq!(running.undrain().await, Saved::Yes);
        running.until_in_force(Preference::Preferred).await;
        site.kill(running).await;
        let mut running = site.start();
        running.until_in_force(Preference::Preferred).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_bad_file_that_cannot_be_moved_is_bad_again_after_a_restart() {
    let site = Site::new();
    fs::create_dir_all(site.file()).unwrap(); // a folder where the file belongs
    for _ in 0..2 {
        let mut running = site.start();
        running.until_in_force(Preference::Demoted).await;
        assert!(!running.intent_status().saved);
        site.kill(running).await;
    }
    let mut running = site.start();
    running.until_in_force(Preference::Demoted).await;
    let lifted = running.undrain().await;
    assert!(matches!(lifted, Saved::No(why) if why.as_str().contains("removing")));
    running.until_in_force(Preference::Preferred).await;
}

#[tokio::test(start_paused = true)]
async fn an_order_that_cannot_be_saved_stands_says_so_and_is_saved_later() {
    let site = Site::new();
    fs::write(site.state_dir(), "in the way").unwrap();
    let mut running = site.start();
    running.until_in_force(Preference::Preferred).await;
    let saved = running.order(drain_for(HOUR)).await;
    assert!(matches!(saved, Saved::No(why) if why.as_str().contains("folder")));
    running.until_in_force(Preference::Demoted).await;
    let status = running.intent_status();
    assert!(
        !status.saved && status.unsaved_reason.is_some(),
        "{status:?}"
    );
    fs::remove_file(site.state_dir()).unwrap();
    running
        .until("it is saved", |s| {
            s.intent.as_ref().is_some_and(|i| i.saved == Saved::Yes)
        })
        .await;
    let service = ServiceName::new("tftp").unwrap();
    let file = IntentFile::new(&site.state_dir(), &service);
    assert!(file.load().unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn without_a_state_dir_an_order_says_that_it_is_not_saved() {
    let announcer = RecordingAnnouncer::new(DEAD_MAN);
    let mut running = Running::start(spec("tftp", &[("probe", &healthy())], &announcer));
    running.until_in_force(Preference::Preferred).await;
    let saved = running.order(drain_for(HOUR)).await;
    assert!(matches!(saved, Saved::No(why) if why.as_str().contains("state_dir")));
    running.until_in_force(Preference::Demoted).await;
    assert!(!running.intent_status().saved);
    tokio::time::sleep(HOUR).await;
    running.until_in_force(Preference::Preferred).await;
}

#[tokio::test(start_paused = true)]
async fn orders_that_cannot_be_are_refused() {
    let announcer = RecordingAnnouncer::new(DEAD_MAN);
    let running = Running::start(spec("tftp", &[("probe", &healthy())], &announcer));
    let handle = running.node.handle();
    let service = ServiceName::new("tftp").unwrap();
    for lasts in [Duration::ZERO, Duration::MAX] {
        let refused = handle.order(&service, drain_for(lasts)).await;
        assert!(matches!(refused, Err(NodeError::OrderTime { .. })));
    }
    let other = ServiceName::new("dns").unwrap();
    let refused = handle.undrain(&other).await;
    assert!(matches!(refused, Err(NodeError::UnknownService { .. })));
    assert_eq!(running.intent(), None);
    drop(running);
    tokio::time::sleep(Duration::from_millis(1)).await;
    let refused = handle.order(&service, drain_for(HOUR)).await;
    assert!(matches!(refused, Err(NodeError::Ended { .. })));
}

/// What the configuration orders is what is left when an operator's order ends or is lifted, and
/// nothing is raised in between.
#[tokio::test(start_paused = true)]
async fn what_the_configuration_orders_stands_when_an_operators_order_ends() {
    let site = Site::new();
    let by = Reason::from("the configuration");
    let removed = StandingOrder {
        by: by.clone(),
        order: Some((OrderKind::Demote, "removed".into())),
    };
    let nothing = StandingOrder {
        by: by.clone(),
        order: None,
    };
    let mut spec = spec("tftp", &[("probe", &healthy())], &site.announcer);
    spec.state = Some(StateDir::new(site.state_dir()).with_clock(site.host.clock()));
    spec.standing = Some(removed.clone());
    let running = Running::start(spec);
    let name = ServiceName::new("tftp").unwrap();
    let node = running.node.handle();
    let given_by = || {
        running
            .state
            .borrow()
            .intent
            .as_ref()
            .map(|intent| intent.by.clone())
    };
    let raised = || {
        let applied = site.announcer.applied();
        let mut preferences = applied.iter().map(|(_, preference)| *preference);
        preferences.any(|preference| preference == Preference::Preferred)
    };
    tokio::time::sleep(HOUR).await;
    assert_eq!(given_by(), Some(by.clone()));

    node.order(&name, drain_for(HOUR)).await.unwrap();
    assert_ne!(given_by(), Some(by.clone()));
    tokio::time::sleep(2 * HOUR).await;
    assert_eq!(given_by(), Some(by.clone()), "the drain has ended");

    node.order(&name, drain_for(HOUR)).await.unwrap();
    node.undrain(&name).await.unwrap();
    assert_eq!(given_by(), Some(by.clone()), "it was lifted");
    tokio::time::sleep(HOUR).await;
    assert!(!raised());

    node.order(&name, drain_for(HOUR)).await.unwrap();
    node.set_standing(&name, nothing.clone()).await.unwrap();
    tokio::time::sleep(HOUR / 2).await;
    assert_ne!(
        given_by(),
        Some(by.clone()),
        "the operator's order outranks it"
    );
    tokio::time::sleep(HOUR).await;
    assert_eq!(given_by(), None);
    assert!(raised());

    node.set_standing(&name, removed).await.unwrap();
    tokio::time::sleep(HOUR).await;
    assert_eq!(given_by(), Some(by));
    node.set_standing(&name, nothing).await.unwrap();
    tokio::time::sleep(HOUR).await;
    assert_eq!(given_by(), None);
}

/// An operator's order that ends while the node stops brings nothing back: the stop has the last
/// word.
#[tokio::test(start_paused = true)]
async fn what_the_configuration_orders_does_not_undo_a_stop() {
    let site = Site::new();
    let mut spec = spec("tftp", &[("probe", &healthy())], &site.announcer);
    spec.on_stop = OnStop::Withdraw;
    spec.standing = Some(StandingOrder {
        by: "the configuration".into(),
        order: Some((OrderKind::Demote, "removed".into())),
    });
    let busy_until = now() + HOUR;
    spec.in_flight = Some(Arc::new(move || u64::from(now() < busy_until)));
    spec.drain.finish = 2 * HOUR;
    let running = Running::start(spec);
    let name = ServiceName::new("tftp").unwrap();
    let order = drain_for(HOUR / 2);
    running.node.handle().order(&name, order).await.unwrap();
    running.node.stop().await;
    assert!(now() >= busy_until, "the drain ended under the stop");
    assert_eq!(site.announcer.in_force(), InForce::Withdrawn);
}
