use std::num::NonZeroU32;

use super::super::proptests::identity;
use super::super::*;
use super::*;
use crate::announce::InForce;

const SECOND: Duration = Duration::from_secs(1);
const CHECK: CheckId = CheckId::new(0);

fn machine(observed: Option<InForce>, now: Instant) -> Machine {
    let policy = Policy {
        rise: NonZeroU32::MIN,
        fall: NonZeroU32::MIN,
        hold_down: Duration::ZERO,
        turns: Some(TurnPolicy::default()),
        ..Policy::default()
    };
    let sync = CheckName::new("sync").unwrap();
    let rules = [CheckName::new("probe").unwrap().into()];
    let mut machine = Machine::new(identity("tftp"), policy, &rules, observed, now)
        .unwrap()
        .with_readiness(std::slice::from_ref(&sync));
    machine.handle_turn(now, waits());
    machine.handle_readiness(now, &sync, Readiness::Ready);
    machine.handle_verdict(now, CHECK, Verdict::Healthy);
    machine
}

fn waits() -> Turn {
    Turn::Waits("fra1 joins".into())
}

fn yours(until: Instant) -> Turn {
    Turn::Yours { until }
}

fn drain() -> Intent {
    Intent::Demote {
        reason: "work".into(),
        by: "alice".into(),
        until: None,
    }
}

#[test]
fn a_healthy_node_joins_in_its_turn() {
    let now = Instant::now();
    let mut m = machine(None, now);
    assert_eq!(m.state(), State::Auto(Standing::Queued));
    assert_eq!(m.wants_turn(), Some(Move::Join));
    let said = "healthy; waits for its turn: fra1 joins";
    assert_eq!(m.reason().as_str(), said);
    assert_eq!(m.would_raise().unwrap().as_str(), "its turn; fra1 joins");
    m.handle_turn(now, Turn::CutOff("1 of 3 nodes is seen".into()));
    assert_eq!(m.preference(), Preference::Demoted, "alone it never joins");
    m.handle_turn(now, yours(now));
    assert_eq!(m.preference(), Preference::Demoted, "its end has come");
    m.handle_turn(now, yours(now + SECOND));
    assert_eq!(m.state(), State::Auto(Standing::Healthy));
    assert_eq!((m.wants_turn(), m.used_turn()), (None, Some(Move::Join)));
}

#[test]
fn a_turn_is_for_one_change_and_for_now() {
    let now = Instant::now();
    let mut m = machine(None, now);
    let turn = yours(now + SECOND * 9);
    m.handle_turn(now, turn.clone());
    m.handle_verdict(now, CHECK, Verdict::unhealthy("no answer"));
    assert_eq!(
        m.preference(),
        Preference::Demoted,
        "what fails does not wait"
    );
    m.handle_verdict(now, CHECK, Verdict::Healthy);
    m.handle_turn(now, turn);
    assert_eq!(m.state(), State::Auto(Standing::Queued), "it was used");
    // One that comes when nothing waits for it is gone.
    m.handle_verdict(now, CHECK, Verdict::unhealthy("no answer"));
    m.handle_turn(now, yours(now + SECOND * 10));
    m.handle_verdict(now, CHECK, Verdict::Healthy);
    assert_eq!(m.state(), State::Auto(Standing::Queued));
}

#[test]
fn an_order_waits_for_its_turn_and_not_for_ever() {
    let now = Instant::now();
    let adopted = machine(Some(InForce::Preferred), now);
    assert_eq!(adopted.state(), State::Auto(Standing::Healthy), "no turn");
    let mut m = adopted.clone();
    m.handle_intent(now, drain());
    assert_eq!(m.state(), State::Auto(Standing::Leaving));
    assert_eq!(m.wants_turn(), Some(Move::Leave));
    let said = "demoted by alice: work; stays preferred until its turn: fra1 joins";
    assert_eq!(m.reason().as_str(), said);
    let (due, _) = m.poll_timeout().unwrap();
    assert_eq!(due, now + SECOND * 60);
    m.handle_timeout(due);
    assert_eq!(m.state(), State::Drained);
    let said = "demoted by alice: work; not in turn: none came within 60s";
    assert_eq!(m.reason().as_str(), said);
    assert_eq!(m.used_turn(), None);

    let mut m = adopted.clone();
    m.handle_intent(now, drain());
    m.handle_turn(now, yours(now + SECOND));
    assert_eq!(m.state(), State::Drained);
    assert_eq!(m.reason().as_str(), "demoted by alice: work");
    m.handle_intent(now, Intent::Auto);
    assert_eq!(m.state(), State::Auto(Standing::Queued));

    let mut m = adopted;
    m.handle_intent(now, drain());
    m.handle_intent(now, Intent::Auto);
    assert_eq!(m.state(), State::Auto(Standing::Healthy), "lifted in time");
    assert_eq!(m.poll_timeout(), None);
}

#[test]
fn what_is_not_ready_leaves_in_its_turn_and_what_is_cut_off_at_once() {
    let now = Instant::now();
    let sync = CheckName::new("sync").unwrap();
    let mut m = machine(Some(InForce::Preferred), now);
    m.handle_readiness(now, &sync, Readiness::NotReady("behind".into()));
    assert_eq!(m.state(), State::Auto(Standing::Leaving));
    let mut failed = m.clone();
    failed.handle_verdict(now, CHECK, Verdict::unhealthy("no answer"));
    assert_eq!(failed.state(), State::Auto(Standing::Failed));
    m.handle_turn(now, Turn::CutOff("1 of 3 nodes is seen".into()));
    assert_eq!(m.state(), State::Auto(Standing::Unready));
    let said = "sync is not ready: behind; not in turn: 1 of 3 nodes is seen";
    assert_eq!(m.reason().as_str(), said);
    m.handle_readiness(now, &sync, Readiness::Ready);
    assert_eq!(m.state(), State::Auto(Standing::Queued));
}

#[test]
fn without_the_policy_nothing_waits() {
    let now = Instant::now();
    let mut m = machine(None, now);
    let policy = Policy {
        turns: None,
        ..*m.policy()
    };
    m.handle_policy(now, policy);
    assert_eq!(m.state(), State::Auto(Standing::Healthy));
    m.handle_intent(now, drain());
    assert_eq!(m.state(), State::Drained);
}
