//! The driver in paused time, with scripted checks and a recording announcer.

mod drains;
mod orders;
mod supervision;

use std::num::NonZeroU32;
use std::time::Instant;

use super::*;
use crate::announce::{InForce, Preference, Role};
use crate::health::Verdict;
use crate::intent_store::OrderKind;
use crate::machine::{Identity, Phase};
use crate::reconcile::Confirmation;
use crate::service::{CheckName, ServiceAddresses};
use crate::testing::fakes::{Behaviour, RecordingAnnouncer, ScriptedCheck};

const DEAD_MAN: Duration = Duration::from_secs(3);
const INTERVAL: Duration = Duration::from_secs(1);
/// Long enough for anything that is to happen; nothing waits for it in real time.
const LONG: Duration = Duration::from_secs(120);
/// For what may have to wait for the update budget: two tokens, after a fault that took all.
const PATIENCE: Duration = Duration::from_secs(1200);

fn healthy() -> ScriptedCheck {
    ScriptedCheck::new(Behaviour::Say(Verdict::Healthy))
}

fn check_spec(name: &str, check: &ScriptedCheck) -> CheckSpec {
    let check = check.clone();
    CheckSpec {
        name: CheckName::new(name).unwrap(),
        interval: INTERVAL,
        timeout: Duration::from_millis(500),
        recheck: None,
        severity: crate::health::Severity::Critical,
        build: Arc::new(move || Box::new(check.clone())),
    }
}

fn spec(service: &str, checks: &[(&str, &ScriptedCheck)], to: &RecordingAnnouncer) -> ServiceSpec {
    let identity = Identity {
        service: ServiceName::new(service).unwrap(),
        addresses: ServiceAddresses::new(vec!["192.0.2.69/32".parse().unwrap()]).unwrap(),
        role: Role::Primary,
    };
    let policy = Policy {
        rise: NonZeroU32::new(2).unwrap(),
        fall: NonZeroU32::new(2).unwrap(),
        hold_down: Duration::from_secs(5),
        ..Policy::default()
    };
    let checks = checks
        .iter()
        .map(|(name, check)| check_spec(name, check))
        .collect();
    ServiceSpec::new(identity, policy, checks, Box::new(to.clone()))
}

fn order(kind: OrderKind, lasts: Option<Duration>) -> Order {
    Order {
        kind,
        reason: "disk swap".into(),
        by: "alice from ::1".into(),
        lasts,
    }
}

struct Running {
    node: Node,
    state: watch::Receiver<Snapshot>,
}

impl Running {
    fn start(spec: ServiceSpec) -> Self {
        Self::start_with(spec, None)
    }

    fn start_with(spec: ServiceSpec, probes: Option<Handle>) -> Self {
        let name = spec.identity.service.clone();
        let mut node = Node::new(NodeName::new("ams1").unwrap());
        if let Some(probes) = probes {
            node = node.with_probe_runtime(probes);
        }
        node.start(spec).unwrap();
        let state = node.handle().watch(&name).unwrap();
        Self { node, state }
    }

    /// Waits, in paused time, until the state is so.
    async fn until(&mut self, what: &str, so: impl FnMut(&Snapshot) -> bool) {
        let found = tokio::time::timeout(PATIENCE, self.state.wait_for(so)).await;
        let is_so = found.is_ok_and(|state| state.is_ok());
        assert!(is_so, "never: {what}; {:?}", self.state.borrow());
    }

    async fn until_in_force(&mut self, preference: Preference) {
        let what = preference.to_string();
        self.until(&what, |s| s.is_in_force(preference)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn rises_falls_and_rises_again_after_the_hold_down() {
    let check = healthy();
    let announcer = RecordingAnnouncer::new(DEAD_MAN);
    let mut running = Running::start(spec("tftp", &[("probe", &check)], &announcer));
    running.until_in_force(Preference::Preferred).await;
    assert_eq!(announcer.in_force(), InForce::Preferred);

    check.set(Behaviour::Say(Verdict::unhealthy("no answer")));
    running.until_in_force(Preference::Demoted).await;
    assert_eq!(announcer.in_force(), InForce::Demoted);
    assert!(running.state.borrow().reason.as_str().contains("no answer"));

    check.set(Behaviour::Say(Verdict::Healthy));
    let lowered = now();
    running.until_in_force(Preference::Preferred).await;
    assert!(
        now() - lowered >= Duration::from_secs(3),
        "the hold-down was not kept"
    );
}

#[tokio::test(start_paused = true)]
async fn the_boost_is_renewed_while_it_stands() {
    let announcer = RecordingAnnouncer::new(DEAD_MAN);
    let mut running = Running::start(spec("tftp", &[("probe", &healthy())], &announcer));
    running.until_in_force(Preference::Preferred).await;
    for _ in 0..100 {
        tokio::time::sleep(DEAD_MAN / 4).await;
        assert_eq!(announcer.in_force(), InForce::Preferred);
    }
    let renewals: Vec<_> = announcer
        .applied()
        .into_iter()
        .filter(|(_, preference)| *preference == Preference::Preferred)
        .collect();
    let longest = renewals.windows(2).map(|w| w[1].0 - w[0].0).max().unwrap();
    assert!(
        longest <= DEAD_MAN / 3 + Duration::from_millis(10),
        "{longest:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_panicking_check_is_unknown_and_moves_no_route() {
    let check = healthy();
    let announcer = RecordingAnnouncer::new(DEAD_MAN);
    let mut running = Running::start(spec("tftp", &[("probe", &check)], &announcer));
    running.until_in_force(Preference::Preferred).await;
    check.set(Behaviour::Panic);
    running
        .until("the panic is reported", |s| {
            matches!(&s.checks[0].last, Some((_, Verdict::Unknown(why))) if why.as_str().contains("scripted panic"))
        })
        .await;
    tokio::time::sleep(LONG).await;
    assert_eq!(announcer.in_force(), InForce::Preferred);
    assert_eq!(running.state.borrow().checks[0].phase, Phase::Up);
    // It is built afresh each time, so it recovers as soon as it can.
    check.set(Behaviour::Say(Verdict::unhealthy("gone")));
    running.until_in_force(Preference::Demoted).await;
}

#[tokio::test(start_paused = true)]
async fn a_hanging_check_is_unknown_and_delays_no_other() {
    let (hanging, other) = (healthy(), healthy());
    let announcer = RecordingAnnouncer::new(DEAD_MAN);
    let checks = [("hanging", &hanging), ("other", &other)];
    let mut running = Running::start(spec("tftp", &checks, &announcer));
    running.until_in_force(Preference::Preferred).await;
    hanging.set(Behaviour::Hang);
    running
        .until("the hang is reported", |s| {
            matches!(&s.checks[0].last, Some((_, Verdict::Unknown(why))) if why.as_str().contains("hung"))
        })
        .await;
    let before = other.probes();
    tokio::time::sleep(INTERVAL * 20).await;
    assert!(other.probes() - before >= 15, "the other check was delayed");
    assert_eq!(announcer.in_force(), InForce::Preferred);
    other.set(Behaviour::Say(Verdict::unhealthy("no answer")));
    running.until_in_force(Preference::Demoted).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_that_blocks_its_thread_is_unknown() {
    struct Blocks(std::sync::Mutex<std::sync::mpsc::Receiver<()>>);
    #[async_trait::async_trait]
    impl crate::HealthCheck for Blocks {
        async fn check(&mut self, _timeout: Duration) -> Verdict {
            let _ = self.0.lock().unwrap().recv(); // until the test lets go
            Verdict::Healthy
        }
    }
    let (let_go, blocked) = std::sync::mpsc::channel();
    let blocked = std::sync::Mutex::new(Some(blocked));
    let announcer = RecordingAnnouncer::new(Duration::from_secs(60));
    let mut spec = spec("tftp", &[("probe", &healthy())], &announcer);
    spec.checks.push(CheckSpec {
        name: CheckName::new("blocks").unwrap(),
        interval: Duration::from_millis(200),
        timeout: Duration::from_millis(50),
        recheck: None,
        severity: crate::health::Severity::Critical,
        build: Arc::new(move || {
            let receiver = blocked.lock().unwrap().take();
            let receiver = receiver.unwrap_or_else(|| std::sync::mpsc::channel().1);
            Box::new(Blocks(std::sync::Mutex::new(receiver)))
        }),
    });
    let probes = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let mut running = Running::start_with(spec, Some(probes.handle().clone()));
    running
        .until("the blocked thread is reported", |s| {
            s.checks.get(1).is_some_and(
                |c| matches!(&c.last, Some((_, Verdict::Unknown(why))) if why.as_str().contains("blocks its thread")),
            )
        })
        .await;
    drop(let_go);
    probes.shutdown_background();
}

#[tokio::test(start_paused = true)]
async fn a_pushed_conclusive_failure_does_not_wait_for_the_poll() {
    let check = healthy();
    let announcer = RecordingAnnouncer::new(DEAD_MAN);
    let mut spec = spec("tftp", &[("probe", &check)], &announcer);
    spec.checks[0].interval = Duration::from_secs(30);
    let mut running = Running::start(spec);
    running.until_in_force(Preference::Preferred).await;
    let before = now();
    check.push(Verdict::gone("the process exited"));
    running.until_in_force(Preference::Demoted).await;
    assert!(now() - before < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_restart_adopts_and_changes_nothing() {
    let announcer = RecordingAnnouncer::new(DEAD_MAN);
    announcer.leave_boost(Duration::from_secs(2));
    let mut running = Running::start(spec("tftp", &[("probe", &healthy())], &announcer));
    running.until_in_force(Preference::Preferred).await;
    tokio::time::sleep(LONG).await;
    let applied = announcer.applied();
    assert!(
        applied
            .iter()
            .all(|(_, preference)| *preference == Preference::Preferred)
    );
    assert_eq!(announcer.in_force(), InForce::Preferred);
}

#[tokio::test(start_paused = true)]
async fn no_probe_is_sent_before_the_first_decision_was_carried_out() {
    let check = healthy();
    let announcer = RecordingAnnouncer::new(DEAD_MAN);
    announcer.set_slow(Duration::from_secs(2));
    let mut running = Running::start(spec("tftp", &[("probe", &check)], &announcer));
    tokio::time::sleep(Duration::from_secs(3)).await; // observed, not applied yet
    assert_eq!(check.probes(), 0, "the address may not exist yet");
    running.until_in_force(Preference::Preferred).await;
}

#[tokio::test(start_paused = true)]
async fn an_adopted_boost_is_not_renewed_before_the_checks_have_spoken() {
    let check = ScriptedCheck::new(Behaviour::Hang);
    let announcer = RecordingAnnouncer::new(DEAD_MAN);
    announcer.leave_boost(Duration::from_secs(2));
    let mut spec = spec("tftp", &[("probe", &check)], &announcer);
    spec.checks[0].timeout = Duration::from_secs(20);
    spec.checks[0].interval = Duration::from_secs(20);
    let _running = Running::start(spec);
    // A process that dies again and again before its first check is answered would otherwise
    // keep its boost alive for ever.
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(announcer.applied(), []);
    assert_eq!(announcer.in_force(), InForce::Demoted);
}

#[tokio::test(start_paused = true)]
async fn drift_is_repaired_within_a_period_and_at_once_when_noticed() {
    let announcer = RecordingAnnouncer::new(Duration::from_secs(3600));
    let mut running = Running::start(spec("tftp", &[("probe", &healthy())], &announcer));
    running.until_in_force(Preference::Preferred).await;
    announcer.disturb();
    assert_eq!(announcer.in_force(), InForce::Demoted);
    let disturbed = now();
    while announcer.in_force() != InForce::Preferred {
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(now() - disturbed < Duration::from_secs(1), "not repaired");
    }
    announcer.lose_boost();
    let lost = now();
    while announcer.in_force() != InForce::Preferred {
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(
            now() - lost < OBSERVE_EVERY + Duration::from_secs(1),
            "not repaired"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_failing_announcer_is_retried_and_lets_the_dead_man_demote() {
    let announcer = RecordingAnnouncer::new(DEAD_MAN);
    let mut running = Running::start(spec("tftp", &[("probe", &healthy())], &announcer));
    running.until_in_force(Preference::Preferred).await;
    announcer.set_failing(true);
    running
        .until("the failure is reported", |s| {
            matches!(s.confirmation, Confirmation::Failing(_))
        })
        .await;
    assert_eq!(running.state.borrow().preference, Preference::Preferred);
    tokio::time::sleep(DEAD_MAN).await;
    assert_eq!(announcer.in_force(), InForce::Demoted);
    announcer.set_failing(false);
    running.until_in_force(Preference::Preferred).await;
    assert_eq!(announcer.in_force(), InForce::Preferred);
}

#[tokio::test(start_paused = true)]
async fn a_hanging_announcer_is_cut_off_and_retried() {
    let announcer = RecordingAnnouncer::new(DEAD_MAN);
    let mut running = Running::start(spec("tftp", &[("probe", &healthy())], &announcer));
    running.until_in_force(Preference::Preferred).await;
    announcer.set_hanging(true);
    running
        .until("the hang is reported", |s| {
            matches!(&s.confirmation, Confirmation::Failing(why) if why.as_str().contains("did not end"))
        })
        .await;
    announcer.set_hanging(false);
    running.until_in_force(Preference::Preferred).await;
}

#[tokio::test(start_paused = true)]
async fn an_announcer_that_cannot_observe_at_the_start_is_waited_for() {
    let announcer = RecordingAnnouncer::new(DEAD_MAN);
    announcer.set_failing(true);
    let mut running = Running::start(spec("tftp", &[("probe", &healthy())], &announcer));
    running
        .until("the failure is reported", |s| {
            matches!(s.confirmation, Confirmation::Failing(_))
        })
        .await;
    announcer.set_failing(false);
    running.until_in_force(Preference::Preferred).await;
}

#[tokio::test(start_paused = true)]
async fn f11_services_do_not_disturb_each_other() {
    let (bad, good) = (ScriptedCheck::new(Behaviour::Panic), healthy());
    let bad_announcer = RecordingAnnouncer::new(DEAD_MAN);
    let good_announcer = RecordingAnnouncer::new(DEAD_MAN);
    bad_announcer.set_hanging(true);
    let mut running = Running::start(spec("dns", &[("probe", &good)], &good_announcer));
    running
        .node
        .start(spec("tftp", &[("probe", &bad)], &bad_announcer))
        .unwrap();
    running.until_in_force(Preference::Preferred).await;
    let before = good.probes();
    tokio::time::sleep(INTERVAL * 30).await;
    assert_eq!(good_announcer.in_force(), InForce::Preferred);
    assert!(good.probes() - before >= 25);
}

#[tokio::test(start_paused = true)]
async fn an_orderly_stop_demotes_keeps_or_withdraws() {
    for (on_stop, expected) in [
        (OnStop::Demote, InForce::Demoted),
        (OnStop::Keep(Duration::from_secs(600)), InForce::Preferred),
        (OnStop::Withdraw, InForce::Withdrawn),
    ] {
        let announcer = RecordingAnnouncer::new(DEAD_MAN);
        let mut spec = spec("tftp", &[("probe", &healthy())], &announcer);
        spec.on_stop = on_stop;
        let mut running = Running::start(spec);
        running.until_in_force(Preference::Preferred).await;
        running.node.stop().await;
        assert_eq!(announcer.in_force(), expected, "{on_stop:?}");
        if let OnStop::Keep(keep_for) = on_stop {
            let left = announcer.boost_until().unwrap() - now();
            assert!(left > DEAD_MAN && left <= keep_for, "{left:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_node_leaves_the_dead_man_to_demote() {
    let announcer = RecordingAnnouncer::new(DEAD_MAN);
    let mut running = Running::start(spec("tftp", &[("probe", &healthy())], &announcer));
    running.until_in_force(Preference::Preferred).await;
    drop(running);
    assert_eq!(announcer.in_force(), InForce::Preferred);
    tokio::time::sleep(DEAD_MAN + Duration::from_millis(1)).await;
    assert_eq!(announcer.in_force(), InForce::Demoted);
    let withdrawn = |(_, preference): &(_, Preference)| preference.is_withdrawn();
    assert!(!announcer.applied().iter().any(withdrawn));
}

#[tokio::test(start_paused = true)]
async fn intents_outrank_health_and_lapse() {
    let announcer = RecordingAnnouncer::new(DEAD_MAN);
    let mut running = Running::start(spec("tftp", &[("probe", &healthy())], &announcer));
    running.until_in_force(Preference::Preferred).await;
    let handle = running.node.handle();
    let service = ServiceName::new("tftp").unwrap();
    let thirty_seconds = Some(Duration::from_secs(30));
    let order = order(OrderKind::Demote, thirty_seconds);
    handle.order(&service, order).await.unwrap();
    running.until_in_force(Preference::Demoted).await;
    running.until_in_force(Preference::Preferred).await;
}

#[tokio::test(start_paused = true)]
async fn a_reload_that_changes_nothing_moves_no_route_and_an_empty_one_is_refused() {
    let check = healthy();
    let announcer = RecordingAnnouncer::new(DEAD_MAN);
    let mut running = Running::start(spec("tftp", &[("probe", &check)], &announcer));
    running.until_in_force(Preference::Preferred).await;
    let handle = running.node.handle();
    let service = ServiceName::new("tftp").unwrap();
    let policy = Policy::default();
    let same = vec![check_spec("probe", &check)];
    handle.reconfigure(&service, policy, same).await.unwrap();
    let refused = handle.reconfigure(&service, policy, vec![]).await;
    assert!(matches!(
        refused,
        Err(NodeError::Checks(ChecksError::Empty { .. }))
    ));
    let before = check.probes();
    tokio::time::sleep(LONG).await;
    assert!(check.probes() > before, "the check no longer runs");
    assert_eq!(announcer.in_force(), InForce::Preferred);
    let demoted = |(_, p): &(_, Preference)| *p != Preference::Preferred;
    let after_first = announcer.applied().into_iter().skip(1);
    assert_eq!(after_first.filter(demoted).count(), 0);
}

#[tokio::test(start_paused = true)]
async fn bad_services_are_refused_by_name() {
    let announcer = RecordingAnnouncer::new(DEAD_MAN);
    let mut node = Node::new(NodeName::new("ams1").unwrap());
    let empty = node.start(spec("tftp", &[], &announcer));
    assert!(matches!(
        empty,
        Err(NodeError::Checks(ChecksError::Empty { .. }))
    ));
    let check = healthy();
    node.start(spec("tftp", &[("a", &check)], &announcer))
        .unwrap();
    let twice = node.start(spec("tftp", &[("a", &check)], &announcer));
    assert!(matches!(twice, Err(NodeError::DuplicateService { .. })));
    let unknown = node.handle().watch(&ServiceName::new("dns").unwrap());
    assert!(matches!(unknown, Err(NodeError::UnknownService { .. })));
}

/// Holds the only thread, and with it every task, while the paused clock goes on, as SIGSTOP
/// or a paused host would.
#[tokio::test(start_paused = true)]
async fn a_stall_longer_than_the_dead_man_is_a_restart() {
    let check = healthy();
    let announcer = RecordingAnnouncer::new(DEAD_MAN);
    let mut running = Running::start(spec("tftp", &[("probe", &check)], &announcer));
    running.until_in_force(Preference::Preferred).await;
    check.set(Behaviour::Say(Verdict::unknown("starved")));
    tokio::time::advance(DEAD_MAN * 2).await;
    tokio::time::sleep(LONG).await;
    assert_eq!(
        announcer.in_force(),
        InForce::Demoted,
        "raised without a check"
    );
    check.set(Behaviour::Say(Verdict::Healthy));
    running.until_in_force(Preference::Preferred).await;
}

#[tokio::test(start_paused = true)]
async fn an_adopted_boost_that_ran_out_is_not_made_anew_by_one_verdict() {
    for first in [Verdict::unhealthy("slow and failing"), Verdict::Healthy] {
        let check = ScriptedCheck::new(Behaviour::Slow(Duration::from_secs(2), first));
        let announcer = RecordingAnnouncer::new(DEAD_MAN);
        announcer.leave_boost(Duration::from_millis(500));
        let mut spec = spec("tftp", &[("probe", &check)], &announcer);
        spec.checks[0].timeout = Duration::from_secs(5);
        let mut running = Running::start(spec);
        running.until_in_force(Preference::Demoted).await;
        let raised = |(_, preference): &(_, Preference)| *preference == Preference::Preferred;
        assert!(!announcer.applied().iter().any(raised));
    }
}

#[tokio::test(start_paused = true)]
async fn keep_survives_a_failure_at_the_stop() {
    let announcer = RecordingAnnouncer::new(DEAD_MAN);
    let mut spec = spec("tftp", &[("probe", &healthy())], &announcer);
    spec.on_stop = OnStop::Keep(Duration::from_secs(600));
    let mut running = Running::start(spec);
    running.until_in_force(Preference::Preferred).await;
    announcer.set_failing(true);
    let recovering = announcer.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(1)).await;
        recovering.set_failing(false);
    });
    running.node.stop().await;
    let left = announcer.boost_until().unwrap() - now();
    assert!(left > DEAD_MAN, "the boost was not kept: {left:?}");
}

#[tokio::test(start_paused = true)]
async fn keep_does_not_lengthen_an_adopted_boost_that_no_check_has_spoken_for() {
    let check = ScriptedCheck::new(Behaviour::Hang);
    let announcer = RecordingAnnouncer::new(DEAD_MAN);
    announcer.leave_boost(DEAD_MAN);
    let mut spec = spec("tftp", &[("probe", &check)], &announcer);
    spec.on_stop = OnStop::Keep(Duration::from_secs(600));
    let running = Running::start(spec);
    tokio::time::sleep(Duration::from_millis(100)).await;
    running.node.stop().await;
    assert!(announcer.boost_until().unwrap() - now() <= DEAD_MAN);
}

#[tokio::test(start_paused = true)]
async fn an_announcer_that_hangs_when_the_stop_comes_does_not_lose_the_demotion() {
    let announcer = RecordingAnnouncer::new(Duration::from_secs(3600));
    let mut running = Running::start(spec("tftp", &[("probe", &healthy())], &announcer));
    running.until_in_force(Preference::Preferred).await;
    announcer.set_hanging(true);
    announcer.disturb();
    tokio::time::sleep(Duration::from_millis(1)).await; // the observation hangs now
    announcer.leave_boost(Duration::from_secs(3600));
    announcer.set_hanging(false);
    running.node.stop().await;
    assert_eq!(announcer.in_force(), InForce::Demoted);
}

#[tokio::test(start_paused = true)]
async fn f9_an_intent_given_before_anything_can_be_observed_is_kept() {
    let announcer = RecordingAnnouncer::new(DEAD_MAN);
    announcer.set_failing(true);
    let check = healthy();
    let running = Running::start(spec("tftp", &[("probe", &check)], &announcer));
    let handle = running.node.handle();
    let service = ServiceName::new("tftp").unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let order = order(OrderKind::Demote, None);
    handle.order(&service, order).await.unwrap();
    let checks = vec![check_spec("other", &check)];
    let policy = Policy::default();
    handle.reconfigure(&service, policy, checks).await.unwrap();
    announcer.set_failing(false);
    tokio::time::sleep(LONG).await;
    assert_eq!(announcer.in_force(), InForce::Demoted);
    let snapshot = running.state.borrow();
    assert!(snapshot.reason.as_str().contains("disk swap"));
    assert_eq!(snapshot.checks[0].name.as_str(), "other");
}

#[tokio::test(start_paused = true)]
async fn a_dead_announcer_ends_the_service_and_is_told() {
    let announcer = RecordingAnnouncer::new(DEAD_MAN);
    let mut running = Running::start(spec("tftp", &[("probe", &healthy())], &announcer));
    running.until_in_force(Preference::Preferred).await;
    announcer.set_panicking();
    let handle = running.node.handle();
    let failed = tokio::time::timeout(LONG, handle.failed()).await.unwrap();
    assert_eq!(failed.as_str(), "tftp");
    assert!(!handle.status().is_working());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_that_stops_probing_is_unknown() {
    /// Answers once, then blocks its thread between two probes until the test lets go.
    struct Stuck(std::sync::Mutex<std::sync::mpsc::Receiver<()>>);
    #[async_trait::async_trait]
    impl crate::HealthCheck for Stuck {
        async fn check(&mut self, _timeout: Duration) -> Verdict {
            Verdict::Healthy
        }
        async fn changed(&mut self) -> Verdict {
            let _ = self.0.lock().unwrap().recv();
            std::future::pending().await
        }
    }
    let (let_go, stuck) = std::sync::mpsc::channel();
    let stuck = std::sync::Mutex::new(Some(stuck));
    let announcer = RecordingAnnouncer::new(Duration::from_secs(60));
    let mut spec = spec("tftp", &[("stuck", &healthy())], &announcer);
    spec.checks[0].interval = Duration::from_millis(200);
    spec.checks[0].timeout = Duration::from_millis(50);
    spec.checks[0].build = Arc::new(move || {
        let receiver = stuck.lock().unwrap().take();
        let receiver = receiver.unwrap_or_else(|| std::sync::mpsc::channel().1);
        Box::new(Stuck(std::sync::Mutex::new(receiver)))
    });
    let probes = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let mut running = Running::start_with(spec, Some(probes.handle().clone()));
    running
        .until("the missing probes are reported", |s| {
            s.checks.first().is_some_and(
                |c| matches!(&c.last, Some((_, Verdict::Unknown(why))) if why.as_str().contains("blocks its thread")),
            )
        })
        .await;
    drop(let_go);
    probes.shutdown_background();
}

#[tokio::test(start_paused = true)]
async fn check_times_that_cannot_be_are_refused() {
    for times in [Duration::ZERO, Duration::MAX] {
        let announcer = RecordingAnnouncer::new(DEAD_MAN);
        let mut node = Node::new(NodeName::new("ams1").unwrap());
        let mut bad = spec("tftp", &[("probe", &healthy())], &announcer);
        bad.checks[0].interval = times;
        assert!(matches!(node.start(bad), Err(NodeError::CheckTimes { .. })));
    }
}

#[tokio::test(start_paused = true)]
async fn a_decision_loop_that_lives_completes_steps_and_wakes_nobody_by_them() {
    let announcer = RecordingAnnouncer::new(Duration::from_secs(3600));
    let mut spec = spec("tftp", &[("probe", &healthy())], &announcer);
    spec.checks[0].interval = Duration::from_secs(3600);
    let mut running = Running::start(spec);
    running.until_in_force(Preference::Demoted).await;
    tokio::time::sleep(Duration::from_secs(10)).await; // the first verdict, and the hold-down
    let handle = running.node.handle();
    for _ in 0..5 {
        let before = now();
        running.state.mark_unchanged();
        tokio::time::sleep(OBSERVE_EVERY + Duration::from_secs(1)).await;
        assert!(handle.steps().all(|(_, step)| step > before));
        assert!(!running.state.has_changed().unwrap());
    }
}
