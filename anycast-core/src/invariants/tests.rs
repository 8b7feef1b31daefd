//! Each rule is shown a history that breaks it, and one beside it that does not.

use std::num::NonZeroU32;
use std::time::Duration;

use super::*;
use crate::announce::{Level, Role, Withdrawal};
use crate::machine::{Budget, CheckId, Turn, TurnPolicy, WithdrawPolicy};
use crate::service::NodeName;

const SECOND: Duration = Duration::from_secs(1);
const PREFERRED: Preference = Preference::Preferred;
const DEMOTED: Preference = Preference::Demoted;
const WITHDRAWN: Preference = Preference::Withdrawn(Withdrawal::new(WithdrawalCause::Operator));
const YIELDED: Preference = Preference::Withdrawn(Withdrawal::new(WithdrawalCause::Peers));

fn policy() -> Policy {
    Policy {
        rise: NonZeroU32::new(2).unwrap(),
        fall: NonZeroU32::new(2).unwrap(),
        hold_down: SECOND * 5,
        budget: Budget::OFF,
        flap: crate::machine::FlapPolicy::OFF,
        ..Policy::default()
    }
}

/// One step each second.
fn history(policy: Policy, adopted: bool, steps: &[(Input, Preference)]) -> History {
    let start = Instant::now();
    let step = |(n, (input, preference)): (usize, &(Input, Preference))| Step {
        at: start + SECOND * u32::try_from(n).unwrap(),
        input: input.clone(),
        preference: *preference,
    };
    History {
        policy,
        checks: 1,
        adopted,
        steps: steps.iter().enumerate().map(step).collect(),
    }
}

fn verdict(verdict: Verdict) -> Input {
    Input::Verdict(CheckId::new(0), verdict)
}

fn good() -> Input {
    verdict(Verdict::Healthy)
}

fn bad() -> Input {
    verdict(Verdict::unhealthy("no answer"))
}

fn order(withdraw: bool, until: Option<Instant>) -> Input {
    let (reason, by) = ("work".into(), "alice".into());
    Input::Intent(if withdraw {
        Intent::Withdraw { reason, by, until }
    } else {
        Intent::Demote { reason, by, until }
    })
}

fn lift() -> Input {
    Input::Intent(Intent::Auto)
}

#[track_caller]
fn breaks(rule: &str, result: Result<(), Violation>) {
    let violation = result.expect_err("the rule should be broken");
    assert_eq!(violation.rule, rule, "{violation}");
}

#[test]
fn f1_sees_a_withdrawal_that_nobody_ordered() {
    let judge = |steps: &[_]| f1_never_withdraws_unordered(&history(policy(), true, steps));
    breaks("F1", judge(&[(bad(), DEMOTED), (bad(), WITHDRAWN)]));
    breaks("F1", judge(&[(order(false, None), WITHDRAWN)]));
    breaks(
        "F1",
        judge(&[(order(true, None), WITHDRAWN), (lift(), WITHDRAWN)]),
    );
    let ends = Some(Instant::now());
    breaks("F1", judge(&[(order(true, ends), WITHDRAWN)]));
    breaks("F1", judge(&[(order(true, None), YIELDED)]));
    judge(&[
        (order(true, None), WITHDRAWN),
        (bad(), WITHDRAWN),
        (lift(), DEMOTED),
    ])
    .unwrap();
    let fail_safe = FailSafe::Withdraw(WithdrawPolicy::default());
    let ebgp = Policy {
        fail_safe,
        ..policy()
    };
    f1_never_withdraws_unordered(&history(ebgp, true, &[(bad(), YIELDED)])).unwrap();
}

#[test]
fn f2_sees_an_unknown_that_lowers() {
    let unknown = || verdict(Verdict::unknown("EMFILE"));
    let with = history(policy(), true, &[(unknown(), PREFERRED), (good(), DEMOTED)]);
    let mut without = history(policy(), true, &[(good(), PREFERRED)]);
    breaks("F2", f2_unknown_is_neutral(&with, &without));
    without.steps[0].preference = DEMOTED;
    f2_unknown_is_neutral(&with, &without).unwrap();
    breaks("F2", f2_unknown_is_neutral(&without, &with));
}

#[test]
fn f3_sees_one_failure_too_few_and_a_rise_too_soon() {
    let judge = |adopted, steps: &[_]| f3_hysteresis(&history(policy(), adopted, steps));
    breaks("F3", judge(true, &[(bad(), DEMOTED)]));
    breaks("F3", judge(true, &[(bad(), PREFERRED), (bad(), PREFERRED)]));
    breaks(
        "F3",
        judge(
            true,
            &[(bad(), PREFERRED), (good(), PREFERRED), (bad(), DEMOTED)],
        ),
    );
    let gone = || verdict(Verdict::gone("exited"));
    breaks("F3", judge(true, &[(gone(), PREFERRED)]));
    breaks("F3", judge(false, &[(good(), PREFERRED)]));
    let early = [(gone(), DEMOTED), (good(), DEMOTED), (good(), PREFERRED)];
    breaks("F3", judge(true, &early));
    let mut in_time = vec![(gone(), DEMOTED), (good(), DEMOTED), (good(), DEMOTED)];
    in_time.extend([(); 2].map(|()| (Input::Timeout, DEMOTED)));
    in_time.push((Input::Timeout, PREFERRED));
    judge(true, &in_time).unwrap();
    in_time.pop();
    in_time.push((Input::Timeout, DEMOTED));
    breaks("F3", judge(true, &in_time));
}

#[test]
fn f4_sees_one_change_too_many() {
    let budget = Budget {
        burst: NonZeroU32::new(2).unwrap(),
        refill: SECOND * 10,
    };
    let policy = Policy { budget, ..policy() };
    let swings = |count: usize| -> Vec<_> {
        let levels = [PREFERRED, DEMOTED].into_iter().cycle();
        levels.take(count + 1).map(|level| (bad(), level)).collect()
    };
    f4_budget(&history(policy, true, &swings(2))).unwrap();
    breaks("F4", f4_budget(&history(policy, true, &swings(3))));
    let mut ordered = swings(2);
    ordered.extend([(order(false, None), DEMOTED), (lift(), PREFERRED)]);
    f4_budget(&history(policy, true, &ordered)).unwrap();
    let mut later = history(policy, true, &swings(3));
    later.steps[3].at += SECOND * 10;
    f4_budget(&later).unwrap();
}

#[test]
fn f5_sees_too_few_grants_and_an_empty_fleet() {
    let node = |n: usize, yielded, grants| Consent {
        node: NodeName::new(&format!("node{n}")).unwrap(),
        yielded,
        grants,
    };
    let stays = node(0, false, 0);
    breaks(
        "F5",
        f5_withdraws_with_consent(&[stays.clone(), node(1, true, 1)], 2),
    );
    f5_withdraws_with_consent(&[stays, node(1, true, 2)], 2).unwrap();
    breaks(
        "F5",
        f5_withdraws_with_consent(&[node(0, true, 2), node(1, true, 2)], 2),
    );
    f5_withdraws_with_consent(&[], 1).unwrap();
}

/// The function judges the real local preferences: it is broken by a role that outranks across
/// levels or in another order, which the table of `Role::local_pref` must not have.
#[test]
fn f6_judges_equal_levels_alone() {
    let site = |level, role, distance| Site {
        level,
        role,
        distance,
    };
    let backup = |n| Role::Backup(std::num::NonZeroU8::new(n).unwrap());
    for level in [Level::Preferred, Level::Demoted] {
        let sites = [
            site(level, Role::Primary, 3),
            site(level, backup(1), 1),
            site(level, backup(11), 1),
        ];
        f6_same_best_path(&sites).unwrap();
    }
    let mixed = [
        site(Level::Demoted, Role::Primary, 1),
        site(Level::Preferred, backup(1), 2),
    ];
    f6_same_best_path(&mixed).unwrap();
    f6_same_best_path(&[]).unwrap();
    // Were the order of roles another at the lower level, others would be chosen.
    let wrong = fleet::same_best_path(&[(200, 50, 1), (150, 60, 1)]);
    breaks("F6", wrong);
    breaks("F6", fleet::same_best_path(&[(200, 50, 1), (150, 50, 1)]));
    fleet::same_best_path(&[(200, 50, 1), (150, 10, 1)]).unwrap();
}

#[test]
fn f7_sees_a_route_without_its_permanent_copy() {
    let seen = |route, permanent| Announced { route, permanent };
    f7_permanent_copy(&[seen(false, false), seen(true, true), seen(false, true)]).unwrap();
    breaks(
        "F7",
        f7_permanent_copy(&[seen(true, true), seen(true, false)]),
    );
}

#[test]
fn f8_sees_a_boost_that_outlives_its_controller() {
    let start = Instant::now();
    let seen = |seconds, alive, preferred, withdrawn| Watched {
        at: start + SECOND * seconds,
        alive,
        preferred,
        withdrawn,
    };
    let judge = |seen: &[_]| f8_dead_man(seen, SECOND * 10);
    let alive = seen(0, true, true, false);
    judge(&[
        alive,
        seen(1, false, true, false),
        seen(10, false, true, false),
    ])
    .unwrap();
    breaks(
        "F8",
        judge(&[
            alive,
            seen(1, false, true, false),
            seen(11, false, true, false),
        ]),
    );
    breaks("F8", judge(&[alive, seen(1, false, false, true)]));
    breaks(
        "F8",
        judge(&[seen(0, true, false, false), seen(1, false, true, false)]),
    );
    let back = seen(10, true, true, false);
    judge(&[
        alive,
        seen(1, false, true, false),
        back,
        seen(19, false, true, false),
    ])
    .unwrap();
}

#[test]
fn f9_sees_an_order_that_is_not_obeyed() {
    let judge = |steps: &[_]| f9_order_outranks_health(&history(policy(), true, steps));
    breaks("F9", judge(&[(order(false, None), PREFERRED)]));
    breaks("F9", judge(&[(order(true, None), DEMOTED)]));
    breaks(
        "F9",
        judge(&[(order(false, None), DEMOTED), (good(), PREFERRED)]),
    );
    breaks(
        "F9",
        judge(&[(order(false, None), DEMOTED), (Input::Restart, PREFERRED)]),
    );
    let ends = Some(Instant::now() + SECOND / 2);
    judge(&[(order(false, ends), DEMOTED), (good(), PREFERRED)]).unwrap();
}

#[test]
fn f10_sees_what_an_empty_list_removed() {
    breaks("F10", f10_empty_list_removes_nothing::<u8, _>(None, &["a"]));
    breaks(
        "F10",
        f10_empty_list_removes_nothing::<u8, _>(Some(&[]), &["a"]),
    );
    f10_empty_list_removes_nothing(Some(&[1]), &["a"]).unwrap();
    f10_empty_list_removes_nothing::<u8, u8>(None, &[]).unwrap();
}

#[test]
fn f11_sees_another_level_and_another_moment() {
    let one = history(policy(), true, &[(good(), PREFERRED), (bad(), DEMOTED)]);
    let mut other = one.clone();
    f11_same_levels(&one, &other).unwrap();
    other.steps[1].preference = PREFERRED;
    breaks("F11", f11_same_levels(&one, &other));
    other = one.clone();
    other.steps[1].at += SECOND;
    breaks("F11", f11_same_levels(&one, &other));
    other.steps.pop();
    breaks("F11", f11_same_levels(&one, &other));
    // A repeated input at one moment is one moment.
    other = one.clone();
    other.steps.push(one.steps[1].clone());
    f11_same_levels(&one, &other).unwrap();
}

fn in_turn() -> Policy {
    Policy {
        rise: NonZeroU32::MIN,
        fall: NonZeroU32::MIN,
        hold_down: Duration::ZERO,
        turns: Some(TurnPolicy {
            spacing: SECOND,
            leave_within: SECOND * 2,
        }),
        ..policy()
    }
}

fn waits() -> Input {
    Input::Turn(Turn::Waits("fra1 joins".into()))
}

#[test]
fn f9_lets_an_order_wait_for_its_turn_and_no_longer() {
    let judge = |steps: &[_]| f9_order_outranks_health(&history(in_turn(), true, steps));
    let (drain, wait) = (|| order(false, None), Input::Timeout);
    let waiting = [
        (waits(), PREFERRED),
        (drain(), PREFERRED),
        (wait.clone(), PREFERRED),
        (wait.clone(), DEMOTED),
    ];
    judge(&waiting).unwrap();
    let mut late = waiting.to_vec();
    late[3].1 = PREFERRED;
    breaks("F9", judge(&late));
    let again = [(drain(), DEMOTED), (wait.clone(), PREFERRED)];
    breaks("F9", judge(&again));
    let rises = history(in_turn(), false, &[(drain(), PREFERRED)]);
    breaks("F9", f9_order_outranks_health(&rises));
    let without = Policy {
        turns: None,
        ..in_turn()
    };
    let without = history(without, true, &waiting);
    breaks("F9", f9_order_outranks_health(&without));
}

#[test]
fn f12_sees_a_change_out_of_turn() {
    let start = Instant::now();
    let turn = |seconds| {
        Input::Turn(Turn::Yours {
            until: start + SECOND * seconds,
        })
    };
    let joins = |steps: &[_]| f12_changes_in_turn(&history(in_turn(), false, steps));
    joins(&[(good(), DEMOTED), (turn(100), PREFERRED)]).unwrap();
    breaks("F12", joins(&[(good(), PREFERRED)]));
    breaks("F12", joins(&[(turn(100), DEMOTED), (good(), PREFERRED)]));
    let twice = [
        (good(), DEMOTED),
        (turn(100), PREFERRED),
        (bad(), DEMOTED),
        (good(), DEMOTED),
        (turn(100), PREFERRED),
    ];
    breaks("F12", joins(&twice));
    let leaves = |steps: &[_]| f12_changes_in_turn(&history(in_turn(), true, steps));
    let drain = || order(false, None);
    leaves(&[(drain(), DEMOTED)]).unwrap(); // it has heard of nobody yet
    breaks("F12", leaves(&[(waits(), PREFERRED), (drain(), DEMOTED)]));
    leaves(&[
        (waits(), PREFERRED),
        (drain(), PREFERRED),
        (turn(100), DEMOTED),
    ])
    .unwrap();
    leaves(&[(waits(), PREFERRED), (bad(), DEMOTED)]).unwrap();
    let late = [
        (waits(), PREFERRED),
        (drain(), PREFERRED),
        (Input::Timeout, PREFERRED),
        (Input::Timeout, DEMOTED),
    ];
    leaves(&late).unwrap();
    let early = [
        (waits(), PREFERRED),
        (drain(), PREFERRED),
        (Input::Timeout, DEMOTED),
    ];
    breaks("F12", leaves(&early));
}

#[test]
fn f12_sees_two_that_change_at_once() {
    let turned = |node: &str, from, until| Turned {
        node: NodeName::new(node).unwrap(),
        from: SECOND * from,
        until: SECOND * until,
    };
    let (a, b) = (turned("a", 0, 5), turned("b", 8, 9));
    f12_one_at_a_time(&[b.clone(), a.clone()], SECOND * 3).unwrap();
    breaks("F12", f12_one_at_a_time(&[a.clone(), b], SECOND * 4));
    let long = turned("a", 0, 20);
    let within = [long, turned("b", 1, 2), turned("c", 10, 11)];
    breaks("F12", f12_one_at_a_time(&within, Duration::ZERO));
    f12_one_at_a_time(&[a], SECOND).unwrap();
}
