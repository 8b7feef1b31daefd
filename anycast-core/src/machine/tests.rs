use std::num::NonZeroU32;
use std::time::Duration;

use super::proptests::identity;
use super::*;
use crate::announce::Preference;
use crate::health::Evidence;

const HOLD_DOWN: Duration = Duration::from_secs(5);
const SECOND: Duration = Duration::from_secs(1);

fn policy(rise: u32, fall: u32) -> Policy {
    Policy {
        rise: NonZeroU32::new(rise).unwrap(),
        fall: NonZeroU32::new(fall).unwrap(),
        hold_down: HOLD_DOWN,
        ..Policy::default()
    }
}

fn rule(name: &str) -> CheckRule {
    CheckName::new(name).unwrap().into()
}

fn by() -> Reason {
    "alice".into()
}

fn machine(observed: Option<InForce>, now: Instant) -> Machine {
    Machine::new(
        identity("tftp"),
        policy(2, 2),
        &[rule("a"), rule("b")],
        observed,
        now,
    )
    .unwrap()
}

const A: CheckId = CheckId::new(0);
const B: CheckId = CheckId::new(1);

fn bad() -> Verdict {
    Verdict::unhealthy("no answer")
}

fn raise(m: &mut Machine, at: Instant) {
    for _ in 0..2 {
        m.handle_verdict(at, A, Verdict::Healthy);
        m.handle_verdict(at, B, Verdict::Healthy);
    }
}

#[test]
fn a_fresh_node_is_demoted_until_every_check_has_risen() {
    let now = Instant::now();
    let mut m = machine(None, now);
    assert_eq!(m.decide(now).unwrap().preference(), Preference::Demoted);
    m.handle_verdict(now, A, Verdict::Healthy);
    m.handle_verdict(now, A, Verdict::Healthy);
    m.handle_verdict(now, B, Verdict::Healthy);
    assert_eq!(m.preference(), Preference::Demoted);
    assert_eq!(
        m.would_raise().unwrap().as_str(),
        "b: 1 more successes in a row"
    );
    m.handle_verdict(now, B, Verdict::Healthy);
    assert_eq!(m.preference(), Preference::Preferred);
    assert_eq!(m.would_raise(), None);
}

#[test]
fn one_failure_of_two_moves_nothing_and_unknown_does_not_count() {
    let now = Instant::now();
    let mut m = machine(None, now);
    raise(&mut m, now);
    m.handle_verdict(now, A, bad());
    m.handle_verdict(now, A, Verdict::unknown("EMFILE"));
    assert_eq!(m.preference(), Preference::Preferred);
    m.handle_verdict(now, A, bad());
    assert_eq!(
        m.preference(),
        Preference::Demoted,
        "Unknown does not reset the count either"
    );
    assert_eq!(m.reason().as_str(), "a is down: no answer");
}

#[test]
fn conclusive_evidence_does_not_wait_for_fall() {
    let now = Instant::now();
    let mut m = machine(None, now);
    raise(&mut m, now);
    m.handle_verdict(
        now,
        B,
        Verdict::Unhealthy("exited".into(), Evidence::Conclusive),
    );
    assert_eq!(m.preference(), Preference::Demoted);
}

#[test]
fn the_hold_down_counts_from_the_last_failure_and_ends_by_itself() {
    let now = Instant::now();
    let mut m = machine(None, now);
    raise(&mut m, now);
    m.handle_verdict(now, A, bad());
    m.handle_verdict(now + SECOND, A, bad());
    m.handle_verdict(now + SECOND * 2, A, Verdict::Healthy);
    m.handle_verdict(now + SECOND * 3, A, Verdict::Healthy);
    assert_eq!(m.preference(), Preference::Demoted);
    assert_eq!(m.would_raise().unwrap().as_str(), "a: the hold-down ends");
    let (ends, why) = m.poll_timeout().unwrap();
    assert_eq!((ends, why), (now + SECOND + HOLD_DOWN, "a hold-down ends"));
    m.handle_timeout(ends);
    assert_eq!(m.preference(), Preference::Preferred);
}

#[test]
fn an_adopted_preference_is_not_decided_before_every_check_has_spoken() {
    let now = Instant::now();
    let mut m = machine(Some(InForce::Preferred), now);
    assert!(m.decide(now).is_none());
    m.handle_verdict(now, A, Verdict::Healthy);
    assert!(m.decide(now).is_none());
    m.handle_verdict(now, B, Verdict::unknown("EMFILE"));
    assert_eq!(m.decide(now).unwrap().preference(), Preference::Preferred);
}

#[test]
fn a_hold_down_beyond_the_end_of_time_never_ends() {
    let now = Instant::now();
    let mut m = machine(None, now);
    m.handle_policy(
        now,
        Policy {
            hold_down: Duration::MAX,
            ..policy(1, 1)
        },
    );
    m.handle_verdict(now, A, bad());
    raise(&mut m, now + SECOND);
    assert_eq!(m.preference(), Preference::Demoted);
}

#[test]
fn after_the_boost_ran_out_every_check_has_to_rise_anew() {
    let now = Instant::now();
    let mut m = machine(None, now);
    raise(&mut m, now);
    m.handle_expiry(now);
    assert_eq!(m.decide(now).unwrap().preference(), Preference::Demoted);
    m.handle_verdict(now, A, Verdict::Healthy);
    m.handle_verdict(now, B, Verdict::Healthy);
    assert_eq!(m.preference(), Preference::Demoted);
    raise(&mut m, now);
    assert_eq!(m.preference(), Preference::Preferred);
}

#[test]
fn an_adopted_preference_is_lowered_at_once_by_a_failure_or_an_operator() {
    let now = Instant::now();
    let mut m = machine(Some(InForce::Preferred), now);
    m.handle_verdict(now, A, Verdict::gone("exited"));
    assert_eq!(m.decide(now).unwrap().preference(), Preference::Demoted);

    let mut m = machine(Some(InForce::Preferred), now);
    let reason = Reason::from("upgrade");
    m.handle_intent(
        now,
        Intent::Demote {
            reason,
            by: by(),
            until: None,
        },
    );
    assert_eq!(m.decide(now).unwrap().preference(), Preference::Demoted);
}

#[test]
fn intent_outranks_health_and_lapses() {
    let now = Instant::now();
    let mut m = machine(None, now);
    raise(&mut m, now);
    let reason = Reason::from("maintenance");
    let (by, until) = (by(), Some(now + SECOND));
    m.handle_intent(now, Intent::Withdraw { reason, by, until });
    assert!(m.preference().is_withdrawn());
    assert_eq!(
        m.poll_timeout(),
        Some((now + SECOND, "an operator's intent expires"))
    );
    m.handle_timeout(now + SECOND);
    assert_eq!(m.preference(), Preference::Preferred);
}

#[test]
fn f5_withdraw_policy_withdraws_only_while_peers_grant_it() {
    let now = Instant::now();
    let policy = Policy {
        fail_safe: FailSafe::Withdraw(WithdrawPolicy::default()),
        ..policy(1, 1)
    };
    let mut m = Machine::new(identity("dns"), policy, &[rule("a")], None, now).unwrap();
    m.handle_verdict(now, A, bad());
    assert_eq!(
        m.preference(),
        Preference::Demoted,
        "alone: demoted, not withdrawn"
    );
    let fra1 = || NodeName::new("fra1").unwrap();
    m.handle_grant(now, fra1(), now + SECOND);
    assert_eq!(
        m.preference(),
        Preference::Demoted,
        "a process before this one may have promised to stay"
    );
    assert!(!m.wants_grants(), "they would bind peers for nothing");
    let later = now + MAX_GRANT * 2;
    m.handle_timeout(later);
    assert!(m.wants_grants(), "no promise is left that may bind it");
    m.handle_grant(later, fra1(), later + SECOND);
    assert!(m.preference().is_withdrawn());
    assert!(m.wants_grants(), "for as long as it is withdrawn");
    m.handle_timeout(later + SECOND);
    assert_eq!(m.preference(), Preference::Demoted, "the grant has expired");
}

#[test]
fn a_reload_keeps_states_and_refuses_bad_lists() {
    let now = Instant::now();
    let mut m = machine(None, now);
    raise(&mut m, now);
    m.handle_checks(now, &[rule("b"), rule("c")]).unwrap();
    assert_eq!(
        m.preference(),
        Preference::Preferred,
        "a new check flaps no route"
    );
    assert!(matches!(
        m.handle_checks(now, &[]),
        Err(ChecksError::Empty { .. })
    ));
    let twice = m.handle_checks(now, &[rule("b"), rule("b")]);
    assert!(matches!(twice, Err(ChecksError::Duplicate { .. })));
    let names: Vec<_> = m
        .checks()
        .map(|(name, _, _)| name.as_str().to_owned())
        .collect();
    assert_eq!(names, ["b", "c"]);
}

#[test]
fn a_verdict_for_a_check_that_is_not_listed_is_ignored() {
    let now = Instant::now();
    let mut m = machine(None, now);
    raise(&mut m, now);
    m.handle_verdict(now, CheckId::new(99), Verdict::gone("exited"));
    assert_eq!(m.preference(), Preference::Preferred);
}

#[test]
fn events_tell_each_change_once_and_are_bounded() {
    let now = Instant::now();
    let mut m = machine(None, now);
    raise(&mut m, now);
    let told: Vec<_> = std::iter::from_fn(|| m.poll_event()).collect();
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(matches!(
        told[2],
        Event::Preference {
            to: Preference::Preferred,
            ..
        }
    ));
    for n in 0..500 {
        let at = now + HOLD_DOWN * 2 * n;
        m.handle_verdict(at, A, Verdict::gone("exited"));
        raise(&mut m, at + HOLD_DOWN);
    }
    assert_eq!(std::iter::from_fn(|| m.poll_event()).count(), MAX_EVENTS);
}

fn peer(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

fn failing(at: Instant) -> PeerReport {
    PeerReport {
        heard_at: at,
        preferred: false,
        draining: false,
        failing_since: Some(at),
    }
}

fn well(at: Instant) -> PeerReport {
    PeerReport {
        preferred: true,
        failing_since: None,
        ..failing(at)
    }
}

fn fell(m: &mut Machine, at: Instant) {
    m.handle_verdict(at, A, bad());
    m.handle_verdict(at, A, bad());
}

#[test]
fn a_warning_is_reported_and_changes_nothing() {
    let now = Instant::now();
    let warning = CheckRule {
        severity: Severity::Warning,
        ..rule("b")
    };
    let only = std::slice::from_ref(&warning);
    let refused = Machine::new(identity("dns"), policy(1, 1), only, None, now);
    assert!(matches!(refused, Err(ChecksError::Empty { .. })));
    let rules = [rule("a"), warning];
    let mut m = Machine::new(identity("dns"), policy(1, 1), &rules, None, now).unwrap();
    m.handle_verdict(now, A, Verdict::Healthy);
    assert_eq!(m.preference(), Preference::Preferred, "b never rose");
    m.handle_verdict(now, B, Verdict::gone("exited"));
    assert_eq!(m.preference(), Preference::Preferred);
    let told: Vec<_> = std::iter::from_fn(|| m.poll_event()).collect();
    let severity = Severity::Warning;
    assert!(
        matches!(&told[..], [.., Event::Check { severity: s, .. }] if *s == severity),
        "{told:?}"
    );
}

#[test]
fn an_unready_node_is_not_preferred_and_unknown_readiness_changes_nothing() {
    let now = Instant::now();
    let sync = CheckName::new("sync").unwrap();
    let mut m = machine(None, now).with_readiness(std::slice::from_ref(&sync));
    raise(&mut m, now);
    assert_eq!(m.state(), State::Auto(Standing::Unready));
    m.handle_readiness(now, &sync, Readiness::Unknown("store failed".into()));
    assert_eq!(
        m.preference(),
        Preference::Demoted,
        "it does not rise by it"
    );
    m.handle_readiness(now, &sync, Readiness::Ready);
    assert_eq!(m.preference(), Preference::Preferred);
    m.handle_readiness(now, &sync, Readiness::Unknown("store failed".into()));
    assert_eq!(
        m.preference(),
        Preference::Preferred,
        "it does not fall by it"
    );
    m.handle_readiness(now, &sync, Readiness::NotReady("3 files behind".into()));
    assert_eq!(m.preference(), Preference::Demoted);
    assert_eq!(m.reason().as_str(), "sync is not ready: 3 files behind");
    assert_eq!(m.would_raise().unwrap().as_str(), "sync: becomes ready");
}

#[test]
fn the_budget_keeps_a_token_for_the_demotion() {
    let now = Instant::now();
    let policy = Policy {
        hold_down: Duration::ZERO,
        flap: FlapPolicy::OFF,
        ..policy(2, 2)
    };
    let rules = [rule("a"), rule("b")];
    let mut m = Machine::new(identity("dns"), policy, &rules, None, now).unwrap();
    for tokens in [3, 1] {
        raise(&mut m, now);
        assert_eq!(
            (m.preference(), m.tokens()),
            (Preference::Preferred, tokens)
        );
        fell(&mut m, now);
        assert_eq!(
            (m.preference(), m.tokens()),
            (Preference::Demoted, tokens - 1)
        );
    }
    raise(&mut m, now);
    assert_eq!(m.state(), State::Auto(Standing::Waiting));
    assert_eq!(
        m.would_raise().unwrap().as_str(),
        "the update budget, in 748 s"
    );
    let (due, _) = m.poll_timeout().unwrap();
    assert_eq!(due, now + policy.budget.refill * 2);
    m.handle_timeout(due + SECOND);
    assert_eq!(m.preference(), Preference::Preferred);
    assert_eq!(m.since(), due, "each thing happens at its own moment");
    fell(&mut m, due + SECOND);
    assert_eq!(m.preference(), Preference::Demoted, "never starved");
}

#[test]
fn flapping_parks_until_steady_or_undrained() {
    let now = Instant::now();
    let policy = Policy {
        hold_down: Duration::ZERO,
        budget: Budget::OFF,
        ..policy(2, 2)
    };
    let rules = [rule("a"), rule("b")];
    let mut m = Machine::new(identity("dns"), policy, &rules, None, now).unwrap();
    for _ in 0..3 {
        raise(&mut m, now);
        assert_eq!(m.preference(), Preference::Preferred);
        fell(&mut m, now);
    }
    raise(&mut m, now + SECOND);
    assert_eq!(m.state(), State::Auto(Standing::Parked));
    let mut undrained = m.clone();
    undrained.handle_intent(now + SECOND, Intent::Auto);
    assert_eq!(undrained.preference(), Preference::Preferred);
    let (due, why) = m.poll_timeout().unwrap();
    assert_eq!(
        (due, why),
        (now + SECOND + policy.flap.park_for, "parking ends")
    );
    m.handle_timeout(due);
    assert_eq!(m.preference(), Preference::Preferred);
    fell(&mut m, due);
    raise(&mut m, due);
    assert_eq!(
        m.preference(),
        Preference::Preferred,
        "the past is forgotten"
    );
}

#[test]
fn a_node_holds_when_too_much_of_the_fleet_falls_at_once() {
    let now = Instant::now();
    let fleet = [peer("fra1"), peer("lon1")];
    let mut m = machine(None, now).with_members(&fleet);
    raise(&mut m, now);
    m.handle_peer(now, &fleet[0], failing(now));
    m.handle_peer(now, &fleet[1], well(now));
    m.handle_peer(now, &peer("stranger"), failing(now));
    let mut alone = m.clone();
    fell(&mut m, now + SECOND);
    assert_eq!(
        m.state(),
        State::Auto(Standing::Held),
        "2 of 3 is more than half"
    );
    assert_eq!(m.preference(), Preference::Preferred);
    assert_eq!(
        m.failing_since(),
        Some(now + SECOND),
        "peers are told the truth"
    );
    let mut gone = m.clone();
    gone.handle_verdict(now + SECOND, B, Verdict::gone("exited"));
    assert_eq!(
        gone.preference(),
        Preference::Demoted,
        "conclusive evidence is believed"
    );
    m.handle_peer(now + SECOND, &fleet[0], well(now + SECOND));
    assert_eq!(
        m.preference(),
        Preference::Demoted,
        "it is this node after all"
    );
    alone.handle_timeout(now + SECOND * 10);
    fell(&mut alone, now + SECOND * 10);
    assert_eq!(
        alone.preference(),
        Preference::Demoted,
        "an old report says nothing"
    );
}

#[test]
fn the_last_preferred_node_is_known() {
    let now = Instant::now();
    let mut m = machine(None, now);
    raise(&mut m, now);
    assert_eq!(m.is_last_preferred(now), None, "there is no fleet");
    let mut m = m.with_members(&[peer("fra1")]);
    assert_eq!(m.is_last_preferred(now), Some(true));
    m.handle_peer(now, &peer("fra1"), well(now));
    assert_eq!(m.is_last_preferred(now), Some(false));
    let draining = PeerReport {
        draining: true,
        ..well(now)
    };
    m.handle_peer(now, &peer("fra1"), draining);
    assert_eq!(m.is_last_preferred(now), Some(true));
}

#[test]
fn f5_a_granter_is_bound_and_a_failing_node_grants_nothing() {
    let now = Instant::now();
    let policy = Policy {
        fail_safe: FailSafe::Withdraw(WithdrawPolicy::default()),
        ..policy(1, 1)
    };
    let mut m = Machine::new(identity("dns"), policy, &[rule("a")], None, now).unwrap();
    assert_eq!(m.handle_grant_request(now, peer("fra1"), SECOND), None);
    let later = now + MAX_GRANT * 2;
    m.handle_verdict(later, A, Verdict::Healthy);
    let long = MAX_GRANT * 10;
    assert_eq!(
        m.handle_grant_request(later, peer("fra1"), long),
        Some(MAX_GRANT)
    );
    m.handle_grant(later, peer("lon1"), later + long);
    m.handle_verdict(later, A, bad());
    assert_eq!(m.preference(), Preference::Demoted, "bound by its promise");
    let ends = later + MAX_GRANT + MAX_GRANT / PROMISE_MARGIN;
    m.handle_grant(ends - SECOND, peer("lon1"), ends + SECOND);
    m.handle_timeout(ends);
    assert_eq!(m.state(), State::Yielded);
}

#[test]
fn f5_an_adopted_check_that_has_said_nothing_but_unknown_grants_nothing() {
    let now = Instant::now();
    let mut m = machine(Some(InForce::Preferred), now);
    for check in [A, B] {
        m.handle_verdict(now, check, Verdict::unknown("EMFILE"));
    }
    assert_eq!(m.state(), State::Auto(Standing::Healthy));
    assert_eq!(m.handle_grant_request(now, peer("fra1"), SECOND), None);
    raise(&mut m, now);
    let granted = m.handle_grant_request(now, peer("fra1"), SECOND);
    assert_eq!(granted, Some(SECOND));
}

/// Else an input that changes nothing (an `Unknown`) would decide when it fell (F2).
#[test]
fn a_hold_ends_and_the_fall_is_noted_when_an_operator_orders_something() {
    let now = Instant::now();
    let mut m = machine(None, now).with_members(&[peer("fra1")]);
    let later = now + SECOND;
    raise(&mut m, now);
    let failing = PeerReport {
        heard_at: later,
        preferred: true,
        draining: false,
        failing_since: Some(later),
    };
    m.handle_peer(later, &peer("fra1"), failing);
    for _ in 0..2 {
        m.handle_verdict(later, A, bad());
    }
    assert_eq!((m.state(), m.falls()), (State::Auto(Standing::Held), 0));
    let (reason, by) = (Reason::from("maintenance"), by());
    m.handle_intent(
        later,
        Intent::Demote {
            reason,
            by,
            until: None,
        },
    );
    assert_eq!((m.state(), m.falls()), (State::Drained, 1));
}
