use super::*;
use crate::announce::{InForce, Role, Withdrawal, WithdrawalCause};
use crate::service::{ServiceAddresses, ServiceName};

const DEAD_MAN: Duration = Duration::from_secs(3);
const PERIOD: Duration = Duration::from_secs(5);

fn reconciler(dead_man: Option<Duration>) -> Reconciler {
    let capabilities = Capabilities {
        demote: true,
        dead_man,
        ..Capabilities::NONE
    };
    Reconciler::new(capabilities, PERIOD)
}

fn decision(at: Instant, preference: Preference) -> Decision {
    Decision {
        service: ServiceName::new("tftp").unwrap(),
        addresses: addresses(),
        preference,
        role: Role::Primary,
        lifetime: Lifetime::DeadMan,
        decided_at: at,
        reason: "test".into(),
    }
}

fn addresses() -> ServiceAddresses {
    ServiceAddresses::new(vec!["192.0.2.69/32".parse().unwrap()]).unwrap()
}

fn observed(state: InForce) -> Observation {
    Observation {
        addresses: addresses().iter().map(|address| (address, state)).collect(),
    }
}

/// Decides, expects an apply, and reports this outcome.
fn apply(
    r: &mut Reconciler,
    at: Instant,
    preference: Preference,
    outcome: Result<Applied, Reason>,
) {
    r.handle_decision(decision(at, preference));
    let action = r.poll_action(at);
    assert!(
        matches!(&action, Some(Action::Apply(d)) if d.preference() == preference),
        "{action:?}"
    );
    r.handle_applied(at, outcome);
}

#[test]
fn nothing_is_done_before_the_first_decision() {
    let mut r = reconciler(Some(DEAD_MAN));
    assert!(r.poll_action(Instant::now()).is_none());
    assert!(r.poll_timeout().is_none());
}

#[test]
fn a_decision_is_applied_once_and_renewed_at_a_third() {
    let mut r = reconciler(Some(DEAD_MAN));
    let start = Instant::now();
    apply(&mut r, start, Preference::Preferred, Ok(Applied::Confirmed));
    assert!(r.is_confirmed(Preference::Preferred));
    let early = start + DEAD_MAN / 3 - Duration::from_millis(1);
    r.handle_decision(decision(early, Preference::Preferred));
    assert!(r.poll_action(early).is_none());
    let due = start + DEAD_MAN / 3;
    assert_eq!(r.poll_timeout(), Some((due, "renewal is due")));
    apply(&mut r, due, Preference::Preferred, Ok(Applied::Confirmed));
}

#[test]
fn a_boost_has_run_out_a_dead_man_time_after_its_decision() {
    let mut r = reconciler(Some(DEAD_MAN));
    let start = Instant::now();
    apply(&mut r, start, Preference::Preferred, Ok(Applied::Confirmed));
    assert!(!r.has_run_out(start + DEAD_MAN - Duration::from_millis(1)));
    assert!(r.has_run_out(start + DEAD_MAN));
    apply(&mut r, start, Preference::Demoted, Ok(Applied::Confirmed));
    assert!(!r.has_run_out(start + DEAD_MAN));
}

#[test]
fn without_a_further_decision_nothing_is_renewed() {
    let mut r = reconciler(Some(DEAD_MAN));
    let start = Instant::now();
    apply(&mut r, start, Preference::Preferred, Ok(Applied::Confirmed));
    // The decision loop is dead: time passes, nobody decides.
    for n in 1..100 {
        let action = r.poll_action(start + DEAD_MAN * n);
        assert!(!matches!(action, Some(Action::Apply(_))), "{action:?}");
        r.handle_observed(start + DEAD_MAN * n, Ok(observed(InForce::Demoted)));
    }
}

#[test]
fn a_demotion_is_not_renewed_but_observed() {
    let mut r = reconciler(Some(DEAD_MAN));
    let start = Instant::now();
    apply(&mut r, start, Preference::Demoted, Ok(Applied::Confirmed));
    let later = start + DEAD_MAN;
    r.handle_decision(decision(later, Preference::Demoted));
    assert!(r.poll_action(later).is_none());
    assert_eq!(
        r.poll_timeout(),
        Some((start + PERIOD, "observation is due"))
    );
    assert!(matches!(
        r.poll_action(start + PERIOD),
        Some(Action::Observe)
    ));
}

#[test]
fn failures_back_off_up_to_a_third_of_the_dead_man() {
    let mut r = reconciler(Some(DEAD_MAN));
    let mut at = Instant::now();
    let mut pauses = Vec::new();
    for _ in 0..8 {
        apply(&mut r, at, Preference::Preferred, Err("busy".into()));
        r.handle_decision(decision(at, Preference::Preferred));
        assert!(r.poll_action(at).is_none());
        let (next, why) = r.poll_timeout().unwrap();
        assert_eq!(why, "a retry is due");
        pauses.push(next - at);
        at = next;
    }
    assert_eq!(pauses[..3], [RETRY_MIN, RETRY_MIN * 2, RETRY_MIN * 4]);
    assert_eq!(pauses[7], DEAD_MAN / 3);
    assert!(matches!(r.confirmation(), Confirmation::Failing(_)));
}

#[test]
fn a_demotion_does_not_wait_for_the_back_off_of_a_raise() {
    let mut r = reconciler(Some(DEAD_MAN));
    let start = Instant::now();
    for n in 0..4 {
        apply(
            &mut r,
            start + RETRY_MIN * 10 * n,
            Preference::Preferred,
            Err("busy".into()),
        );
    }
    let at = start + RETRY_MIN * 31;
    apply(&mut r, at, Preference::Demoted, Ok(Applied::Confirmed));
}

#[test]
fn unconfirmed_is_asked_again() {
    let mut r = reconciler(None);
    let start = Instant::now();
    let unconfirmed = || Ok(Applied::Unconfirmed("not read back".into()));
    apply(&mut r, start, Preference::Demoted, unconfirmed());
    assert!(r.is_settled(Preference::Demoted));
    assert!(!r.is_confirmed(Preference::Demoted));
    let (again, _) = r.poll_timeout().unwrap();
    apply(&mut r, again, Preference::Demoted, unconfirmed());
}

#[test]
fn drift_is_repaired_by_the_next_decision() {
    let mut r = reconciler(Some(Duration::from_secs(3600)));
    let start = Instant::now();
    apply(&mut r, start, Preference::Preferred, Ok(Applied::Confirmed));
    r.handle_disturbed(start);
    assert!(matches!(r.poll_action(start), Some(Action::Observe)));
    r.handle_observed(start, Ok(observed(InForce::Demoted)));
    assert!(matches!(r.confirmation(), Confirmation::Unconfirmed(_)));
    apply(&mut r, start, Preference::Preferred, Ok(Applied::Confirmed));
    assert!(r.is_confirmed(Preference::Preferred));
}

#[test]
fn f10_a_failed_or_empty_observation_is_not_taken_for_a_state() {
    let mut r = reconciler(Some(Duration::from_secs(3600)));
    let start = Instant::now();
    apply(&mut r, start, Preference::Preferred, Ok(Applied::Confirmed));
    r.handle_disturbed(start);
    assert!(matches!(r.poll_action(start), Some(Action::Observe)));
    r.handle_observed(start, Err("the dump was interrupted".into()));
    assert!(r.is_confirmed(Preference::Preferred));
    let empty = Observation { addresses: vec![] };
    assert_eq!(empty.agreed(), None);
}

/// A look at `at` that ends like this.
fn look(r: &mut Reconciler, at: Instant, outcome: Result<Observation, Reason>) {
    let action = r.poll_action(at);
    assert!(matches!(action, Some(Action::Observe)), "{action:?}");
    r.handle_observed(at, outcome);
}

fn demoted_and_observed_in_vain(start: Instant) -> (Reconciler, Instant) {
    let mut r = reconciler(Some(DEAD_MAN));
    apply(&mut r, start, Preference::Demoted, Ok(Applied::Confirmed));
    let first = start + PERIOD;
    let again = first + OBSERVE_AGAIN;
    look(&mut r, first, Err("no answer".into()));
    assert!(r.is_confirmed(Preference::Demoted), "one is bad luck");
    assert_eq!(r.poll_timeout(), Some((again, "observation is due")));
    look(&mut r, again, Err("no answer".into()));
    assert!(!r.is_confirmed(Preference::Demoted));
    let Confirmation::Unconfirmed(reason) = r.confirmation() else {
        panic!("{r:?}");
    };
    assert!(reason.as_str().ends_with("no answer"), "{reason}");
    (r, again)
}

#[test]
fn what_cannot_be_observed_twice_is_asked_for_again() {
    let start = Instant::now();
    let (mut r, again) = demoted_and_observed_in_vain(start);
    let retry = again + RETRY_MIN;
    assert_eq!(r.poll_timeout(), Some((retry, "a retry is due")));
    apply(&mut r, retry, Preference::Demoted, Ok(Applied::Confirmed));
    assert!(r.is_confirmed(Preference::Demoted));
    // It counts anew.
    look(&mut r, retry + PERIOD, Err("no answer".into()));
    assert!(r.is_confirmed(Preference::Demoted));
}

#[test]
fn what_is_seen_again_is_confirmed_or_repaired() {
    let start = Instant::now();
    for (state, matches) in [(InForce::Demoted, true), (InForce::Preferred, false)] {
        let (mut r, again) = demoted_and_observed_in_vain(start);
        // Nobody has decided since; the next look comes first.
        look(&mut r, again + PERIOD, Ok(observed(state)));
        assert_eq!(r.is_confirmed(Preference::Demoted), matches);
        let at = again + PERIOD;
        r.handle_decision(decision(at, Preference::Demoted));
        let repairs = matches!(r.poll_action(at), Some(Action::Apply(_)));
        assert_eq!(repairs, !matches);
    }
}

#[test]
fn failures_of_one_moment_count_as_one() {
    let start = Instant::now();
    let mut r = reconciler(Some(DEAD_MAN));
    apply(&mut r, start, Preference::Demoted, Ok(Applied::Confirmed));
    for _ in 0..5 {
        r.handle_disturbed(start);
        look(&mut r, start, Err("restarting".into()));
        assert!(r.is_confirmed(Preference::Demoted));
    }
}

#[test]
fn a_failing_look_changes_what_is_said_once() {
    let start = Instant::now();
    let (mut r, again) = demoted_and_observed_in_vain(start);
    let said = r.confirmation().clone();
    look(&mut r, again + PERIOD, Err("no answer".into()));
    assert_eq!(*r.confirmation(), said);
    // Another preference does not wait, and is not taken for what was looked for.
    let at = again + PERIOD;
    r.handle_decision(decision(at, Preference::Preferred));
    assert_eq!(*r.confirmation(), Confirmation::Pending);
    assert!(matches!(r.poll_action(at), Some(Action::Apply(_))));
}

#[test]
fn an_adopted_boost_is_seen_once_more_before_it_is_renewed() {
    let start = Instant::now();
    for (state, lost) in [(InForce::Preferred, false), (InForce::Demoted, true)] {
        let mut r = reconciler(Some(DEAD_MAN)).adopting();
        r.handle_decision(decision(start, Preference::Preferred));
        assert!(matches!(r.poll_action(start), Some(Action::Observe)));
        r.handle_observed(start, Ok(observed(state)));
        assert_eq!(r.take_lost_adoption(), lost);
        assert!(!r.take_lost_adoption(), "it is told once");
        let next = r.poll_action(start);
        assert_eq!(matches!(next, Some(Action::Apply(_))), !lost, "{next:?}");
    }
    let mut r = reconciler(Some(DEAD_MAN)).adopting();
    apply(&mut r, start, Preference::Demoted, Ok(Applied::Confirmed));
}

#[test]
fn an_adopted_boost_that_cannot_be_seen_is_asked_for_again() {
    let start = Instant::now();
    let mut r = reconciler(Some(DEAD_MAN)).adopting();
    r.handle_decision(decision(start, Preference::Preferred));
    assert!(matches!(r.poll_action(start), Some(Action::Observe)));
    r.handle_observed(start, Err("busy".into()));
    assert!(r.poll_action(start).is_none());
    assert_eq!(
        r.poll_timeout(),
        Some((start + RETRY_MIN, "a retry is due"))
    );
    let again = start + RETRY_MIN;
    assert!(matches!(r.poll_action(again), Some(Action::Observe)));
    r.handle_observed(again, Ok(observed(InForce::Preferred)));
    assert!(matches!(r.poll_action(again), Some(Action::Apply(_))));
}

#[test]
fn a_kept_boost_is_asked_for_until_it_is_confirmed() {
    let start = Instant::now();
    let mut r = reconciler(Some(DEAD_MAN));
    apply(&mut r, start, Preference::Preferred, Ok(Applied::Confirmed));
    let keep = |at| Decision {
        lifetime: Lifetime::Keep(DEAD_MAN * 100),
        ..decision(at, Preference::Preferred)
    };
    r.handle_decision(keep(start));
    assert!(matches!(r.poll_action(start), Some(Action::Apply(_))));
    r.handle_applied(start, Err("busy".into()));
    assert!(!r.is_kept());
    r.handle_decision(keep(start));
    assert!(r.poll_action(start).is_none(), "it backs off");
    let (again, _) = r.poll_timeout().unwrap();
    assert!(again > start);
    r.handle_decision(keep(again));
    assert!(matches!(r.poll_action(again), Some(Action::Apply(_))));
    r.handle_applied(again, Ok(Applied::Confirmed));
    assert!(r.is_kept());
}

#[test]
fn only_the_latest_decision_counts() {
    let mut r = reconciler(Some(DEAD_MAN));
    let start = Instant::now();
    r.handle_decision(decision(start, Preference::Preferred));
    let withdrawn = Preference::Withdrawn(Withdrawal::new(WithdrawalCause::Operator));
    r.handle_decision(decision(start, withdrawn));
    r.handle_decision(decision(start, Preference::Demoted));
    let action = r.poll_action(start);
    assert!(matches!(&action, Some(Action::Apply(d)) if d.preference() == Preference::Demoted));
    assert!(
        r.poll_action(start).is_none(),
        "one action is under way at most"
    );
}

#[test]
fn what_was_confirmed_is_not_taken_for_what_was_just_decided() {
    let now = Instant::now();
    let mut r = reconciler(Some(DEAD_MAN));
    let (high, low) = (Preference::Preferred, Preference::Demoted);
    apply(&mut r, now, high, Ok(Applied::Confirmed));
    assert_eq!(*r.confirmation_of(Some(high)), Confirmation::Confirmed);
    // The machine may be ahead of the decisions that have come here.
    assert_eq!(*r.confirmation_of(Some(low)), Confirmation::Pending);
    r.handle_decision(decision(now, low));
    assert_eq!(*r.confirmation(), Confirmation::Pending);
    assert!(matches!(r.poll_action(now), Some(Action::Apply(_))));
    // Being replaced, the earlier one is no longer known to be in force.
    assert_eq!(*r.confirmation_of(Some(high)), Confirmation::Pending);
    r.handle_applied(now, Ok(Applied::Confirmed));
    assert_eq!(*r.confirmation(), Confirmation::Confirmed);
    // A renewal under way leaves what it renews in force.
    apply(&mut r, now, high, Ok(Applied::Confirmed));
    r.handle_decision(decision(now + DEAD_MAN / 3, high));
    assert!(matches!(
        r.poll_action(now + DEAD_MAN / 3),
        Some(Action::Apply(_))
    ));
    assert_eq!(*r.confirmation(), Confirmation::Confirmed);
}

#[test]
fn a_preference_is_in_force_until_another_is_under_way() {
    let mut r = reconciler(Some(DEAD_MAN));
    let start = Instant::now();
    let preferred = Preference::Preferred;
    apply(&mut r, start, preferred, Ok(Applied::Confirmed));
    assert!(r.is_in_force(preferred));
    let renewal = start + DEAD_MAN / 3;
    r.handle_decision(decision(renewal, preferred));
    assert!(matches!(r.poll_action(renewal), Some(Action::Apply(_))));
    assert!(r.is_in_force(preferred), "it is being renewed");
    r.handle_applied(renewal, Ok(Applied::Confirmed));
    r.handle_decision(decision(renewal, Preference::Demoted));
    assert!(matches!(r.poll_action(renewal), Some(Action::Apply(_))));
    r.handle_decision(decision(renewal, preferred));
    assert!(!r.is_in_force(preferred), "what is under way ends it");
    r.handle_applied(renewal, Err("busy".into()));
    assert!(!r.is_in_force(preferred));
}
