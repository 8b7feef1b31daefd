//! Drains and stops, in virtual time.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::drain::{CONVERGE, Phase};

/// What a service has in flight, as a test sets it.
#[derive(Clone, Default)]
struct Counter(Arc<AtomicU64>);

impl Counter {
    fn set(&self, count: u64) {
        self.0.store(count, Ordering::Relaxed);
    }

    fn in_flight(&self) -> InFlight {
        let count = Arc::clone(&self.0);
        Arc::new(move || count.load(Ordering::Relaxed))
    }
}

async fn preferred(counter: &Counter) -> (Running, RecordingAnnouncer) {
    let announcer = RecordingAnnouncer::new(DEAD_MAN);
    let mut spec = spec("tftp", &[("probe", &healthy())], &announcer);
    spec.in_flight = Some(counter.in_flight());
    let mut running = Running::start(spec);
    running.until_in_force(Preference::Preferred).await;
    (running, announcer)
}

async fn give(running: &Running, kind: OrderKind) {
    let service = ServiceName::new("tftp").unwrap();
    let handle = running.node.handle();
    handle.order(&service, order(kind, None)).await.unwrap();
}

impl Running {
    async fn until_phase(&mut self, phase: Phase) {
        let what = phase.to_string();
        let is = |s: &Snapshot| s.drain.as_ref().is_some_and(|drain| drain.phase == phase);
        self.until(&what, is).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_drain_goes_through_its_phases_and_is_shown() {
    let counter = Counter::default();
    let (mut running, announcer) = preferred(&counter).await;
    assert_eq!(running.state.borrow().drain, None);
    counter.set(2);
    give(&running, OrderKind::Demote).await;
    running.until_phase(Phase::Converging).await;
    assert_eq!(announcer.in_force(), InForce::Demoted);
    let converging = now();
    running.until_phase(Phase::Finishing).await;
    assert!(now() - converging >= CONVERGE);
    counter.set(1);
    running
        .until("one is in flight", |s| {
            s.drain
                .as_ref()
                .is_some_and(|drain| drain.in_flight == Some(1))
        })
        .await;
    counter.set(0);
    running.until_phase(Phase::Done).await;
    let status = running.node.handle().status().services.remove(0);
    let drain = status.drain.unwrap();
    assert_eq!((drain.phase, drain.in_flight), (Phase::Done, Some(0)));
    assert!(drain.why.as_str().contains("nothing is in flight"));
    let stopping = now();
    running.node.stop().await;
    assert_eq!(now(), stopping, "what is drained stops at once");
}

#[tokio::test(start_paused = true)]
async fn an_undrain_at_any_phase_ends_the_drain() {
    for phase in [Phase::Converging, Phase::Finishing, Phase::Done] {
        let counter = Counter::default();
        let (mut running, _) = preferred(&counter).await;
        counter.set(u64::from(phase == Phase::Finishing));
        give(&running, OrderKind::Demote).await;
        running.until_phase(phase).await;
        let service = ServiceName::new("tftp").unwrap();
        running.node.handle().undrain(&service).await.unwrap();
        running.until_in_force(Preference::Preferred).await;
        assert_eq!(running.state.borrow().drain, None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_the_routes_and_for_what_is_in_flight() {
    let counter = Counter::default();
    let (running, announcer) = preferred(&counter).await;
    counter.set(3);
    let finishing = counter.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(20)).await;
        finishing.set(0);
    });
    let stopping = now();
    running.node.stop().await;
    let took = now() - stopping;
    assert!(took >= Duration::from_secs(20), "{took:?}");
    assert!(took < Duration::from_secs(21), "{took:?}");
    assert_eq!(announcer.in_force(), InForce::Demoted);
}

#[tokio::test(start_paused = true)]
async fn a_stop_is_bounded_and_demotes_first() {
    let counter = Counter::default();
    let (running, announcer) = preferred(&counter).await;
    counter.set(3);
    let stopping = now();
    running.node.stop().await;
    let took = now() - stopping;
    assert!(took >= Duration::from_secs(35), "{took:?}");
    assert!(took < Duration::from_secs(36), "{took:?}");
    let demoted = |(_, preference): &&(Instant, Preference)| *preference == Preference::Demoted;
    let (at, _) = *announcer.applied().iter().rfind(demoted).unwrap();
    assert!(at - stopping < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_stop_of_a_node_that_was_demoted_long_ago_does_not_wait() {
    let check = healthy();
    let announcer = RecordingAnnouncer::new(DEAD_MAN);
    let mut running = Running::start(spec("tftp", &[("probe", &check)], &announcer));
    running.until_in_force(Preference::Preferred).await;
    check.set(Behaviour::Say(Verdict::unhealthy("no answer")));
    running.until_in_force(Preference::Demoted).await;
    tokio::time::sleep(LONG).await;
    let stopping = now();
    running.node.stop().await;
    assert!(now() - stopping < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_drain_goes_on_when_the_demotion_cannot_be_confirmed() {
    let counter = Counter::default();
    let (mut running, announcer) = preferred(&counter).await;
    announcer.set_failing(true);
    give(&running, OrderKind::Demote).await;
    running.until_phase(Phase::Demoting).await;
    let began = now();
    running.until_phase(Phase::Converging).await;
    assert!(now() - began >= Duration::from_secs(11));
    assert_eq!(announcer.in_force(), InForce::Demoted, "by the dead man");
    running.until_phase(Phase::Done).await;
    let stopping = now();
    running.node.stop().await;
    assert!(now() - stopping < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_stop_announces_nothing_that_an_operator_withdrew() {
    let counter = Counter::default();
    let (mut running, announcer) = preferred(&counter).await;
    give(&running, OrderKind::Withdraw).await;
    running.until_phase(Phase::Done).await;
    let applied = announcer.applied().len();
    running.node.stop().await;
    let after = announcer.applied().split_off(applied);
    assert!(after.iter().all(|(_, p)| p.is_withdrawn()), "{after:?}");
    assert_eq!(announcer.in_force(), InForce::Withdrawn);
}

#[tokio::test(start_paused = true)]
async fn an_order_that_comes_while_the_node_stops_is_refused_at_once() {
    let counter = Counter::default();
    let (running, announcer) = preferred(&counter).await;
    counter.set(1);
    let handle = running.node.handle();
    let stop = tokio::spawn(running.node.stop());
    tokio::time::sleep(Duration::from_secs(1)).await;
    let service = ServiceName::new("tftp").unwrap();
    let before = now();
    let refused = handle.undrain(&service).await;
    assert!(matches!(refused, Err(NodeError::Ended { .. })));
    assert_eq!(now(), before);
    stop.await.unwrap();
    assert_eq!(announcer.in_force(), InForce::Demoted);
}

#[tokio::test(start_paused = true)]
async fn a_stop_with_another_on_stop_does_not_drain() {
    let counter = Counter::default();
    let (running, announcer) = preferred(&counter).await;
    counter.set(3);
    let stopping = now();
    running.node.stop_with(OnStop::Demote).await;
    assert!(now() - stopping < Duration::from_secs(1));
    assert_eq!(announcer.in_force(), InForce::Demoted);
}

#[tokio::test(start_paused = true)]
async fn a_reload_of_the_drain_counts_for_the_next_stop() {
    let counter = Counter::default();
    let (running, _) = preferred(&counter).await;
    counter.set(3);
    let settings = drain::Settings {
        finish: Duration::from_secs(100),
        ..drain::Settings::default()
    };
    let service = ServiceName::new("tftp").unwrap();
    let handle = running.node.handle();
    handle.set_drain(&service, settings).unwrap();
    let stopping = now();
    running.node.stop().await;
    let took = now() - stopping;
    assert!(took >= Duration::from_secs(105), "{took:?}");
    assert!(took < Duration::from_secs(106), "{took:?}");
}
