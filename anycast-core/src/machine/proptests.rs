//! Property tests of F1 to F5 and F9 to F12 on random histories.
//!
//! Domains are small on purpose (three checks, three peers, milliseconds from a handful), so
//! that inputs collide. At least [`CASES`] cases each; `PROPTEST_CASES` may ask for more.

use std::num::{NonZeroU16, NonZeroU32};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::announce::Applied;
use crate::announce::Preference;
use crate::health::Evidence;
use crate::invariants::{self, History, Input, Step};
use crate::reconcile::{Action, Reconciler};
use crate::testing::kernel::{Kernel, Seen};

const CASES: u32 = 20_000;

fn config() -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|n| n.parse().ok());
    ProptestConfig {
        cases: asked.unwrap_or(CASES).max(CASES),
        ..ProptestConfig::default()
    }
}

/// A proptest run as a plain function, so that its failure file has one fixed place.
fn check<S: Strategy>(name: &str, strategy: S, test: impl Fn(S::Value) -> Result<(), TestCaseError>)
where
    S::Value: std::fmt::Debug,
{
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/proptest-regressions");
    let file: &'static str = Box::leak(format!("{folder}/{name}.txt").into_boxed_str());
    let config = ProptestConfig {
        failure_persistence: Some(Box::new(
            proptest::test_runner::FileFailurePersistence::Direct(file),
        )),
        ..config()
    };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    if let Err(error) = runner.run(&strategy, test) {
        panic!("{error}");
    }
}

fn holds(result: Result<(), invariants::Violation>) -> Result<(), TestCaseError> {
    result.map_err(|violation| TestCaseError::fail(violation.to_string()))
}

const CHECKS: usize = 3;
const STEP: Duration = Duration::from_millis(100);

fn rules(count: usize) -> Vec<CheckRule> {
    (0..count)
        .map(|n| CheckName::new(&format!("check{n}")).unwrap().into())
        .collect()
}

fn source() -> CheckName {
    CheckName::new("sync").unwrap()
}

fn peer(n: u8) -> NodeName {
    NodeName::new(&format!("peer{n}")).unwrap()
}

pub(super) fn identity(service: &str) -> Identity {
    Identity {
        service: ServiceName::new(service).unwrap(),
        addresses: ServiceAddresses::new(vec![
            "192.0.2.69/32".parse().unwrap(),
            "2001:db8::69/128".parse().unwrap(),
        ])
        .unwrap(),
        role: Role::Primary,
    }
}

/// An input with times as offsets, so that a case prints readably and shrinks well.
#[derive(Debug, Clone)]
enum Op {
    Verdict(usize, Verdict),
    Intent(u8, Option<u32>),
    Grant(u8, u32),
    GrantRequest(u8, u32),
    /// Ready, not ready, unknown.
    Readiness(u8),
    /// Who, whether preferred, and for how long it has been failing.
    Peer(u8, bool, Option<u32>),
    /// For so long, waiting, cut off.
    Turn(u32),
    WaitsForTurn,
    CutOff,
    Timeout,
    Expiry,
    Restart,
}

fn verdict() -> impl Strategy<Value = Verdict> {
    prop_oneof![
        4 => Just(Verdict::Healthy),
        3 => Just(Verdict::Unhealthy("no answer".into(), Evidence::Probe)),
        1 => Just(Verdict::Unhealthy("exited".into(), Evidence::Conclusive)),
        3 => Just(Verdict::unknown("EMFILE")),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => (0..CHECKS + 1, verdict()).prop_map(|(check, verdict)| Op::Verdict(check, verdict)),
        2 => (0u8..3, proptest::option::of(0u32..20)).prop_map(|(which, until)| Op::Intent(which, until)),
        1 => (0u8..3, 0u32..20).prop_map(|(peer, until)| Op::Grant(peer, until)),
        1 => (0u8..3, 0u32..20).prop_map(|(peer, long)| Op::GrantRequest(peer, long)),
        1 => (0u8..3).prop_map(Op::Readiness),
        2 => (0u8..4, any::<bool>(), proptest::option::of(0u32..20))
            .prop_map(|(peer, preferred, failing)| Op::Peer(peer, preferred, failing)),
        2 => (0u32..20).prop_map(Op::Turn),
        1 => Just(Op::WaitsForTurn),
        1 => Just(Op::CutOff),
        2 => Just(Op::Timeout),
        1 => Just(Op::Expiry),
        1 => Just(Op::Restart),
    ]
}

/// Operations, each some steps of time after the one before.
fn ops() -> impl Strategy<Value = Vec<(u32, Op)>> {
    proptest::collection::vec((0u32..8, op()), 0..60)
}

fn without_restarts() -> impl Strategy<Value = Vec<(u32, Op)>> {
    ops().prop_map(|mut ops| {
        ops.retain(|(_, op)| !matches!(op, Op::Restart));
        ops
    })
}

fn policy() -> impl Strategy<Value = Policy> {
    let fail_safe = prop_oneof![
        2 => Just(FailSafe::Demote),
        1 => (1u16..3).prop_map(|k| FailSafe::Withdraw(WithdrawPolicy {
            min_peers: NonZeroU16::new(k).unwrap()
        })),
    ];
    let flap = (0u16..4, 0u32..60, 0u32..60).prop_map(|(limit, window, park)| FlapPolicy {
        limit,
        window: STEP * window,
        park_for: STEP * park,
    });
    let budget = (1u32..5, 0u32..40).prop_map(|(burst, refill)| Budget {
        burst: NonZeroU32::new(burst).unwrap(),
        refill: STEP * refill,
    });
    let panic = (0u8..=100, 0u32..30, 0u32..30).prop_map(|(percent, within, fresh)| PanicPolicy {
        percent,
        within: STEP * within,
        fresh_for: STEP * fresh,
    });
    let counts = (1u32..4, 1u32..4, 0u32..10);
    let turns = (0u32..10).prop_map(|steps| TurnPolicy {
        spacing: STEP,
        leave_within: STEP * steps,
    });
    let turns = proptest::option::of(turns);
    (fail_safe, counts, flap, budget, panic, turns).prop_map(
        |(fail_safe, (rise, fall, hold_down), flap, budget, panic, turns)| Policy {
            fail_safe,
            rise: NonZeroU32::new(rise).unwrap(),
            fall: NonZeroU32::new(fall).unwrap(),
            hold_down: STEP * hold_down,
            budget,
            flap,
            panic,
            turns,
        },
    )
}

/// Nothing but checks and operators has a say.
fn plain_policy() -> impl Strategy<Value = Policy> {
    demote_policy().prop_map(|policy| Policy {
        budget: Budget::OFF,
        flap: FlapPolicy::OFF,
        turns: None,
        ..policy
    })
}

/// It is preferred without being told that it may.
fn without_turns(policy: Policy) -> Policy {
    Policy {
        turns: None,
        ..policy
    }
}

fn plain(mut ops: Vec<(u32, Op)>) -> Vec<(u32, Op)> {
    ops.retain(|(_, op)| !matches!(op, Op::Readiness(_) | Op::Peer(..)));
    ops
}

fn demote_policy() -> impl Strategy<Value = Policy> {
    policy().prop_map(|policy| Policy {
        fail_safe: FailSafe::Demote,
        ..policy
    })
}

fn to_input(op: &Op, at: Instant) -> Input {
    match op {
        Op::Verdict(check, verdict) => Input::Verdict(CheckId::new(*check), verdict.clone()),
        Op::Intent(which, until) => {
            let until = until.map(|steps| at + STEP * steps);
            let (reason, by) = (Reason::from("maintenance"), Reason::from("alice"));
            Input::Intent(match which {
                0 => Intent::Auto,
                1 => Intent::Demote { reason, by, until },
                _ => Intent::Withdraw { reason, by, until },
            })
        }
        Op::Grant(from, until) => Input::Grant(peer(*from), at + STEP * *until),
        Op::GrantRequest(from, long) => Input::GrantRequest(peer(*from), STEP * *long),
        Op::Readiness(which) => Input::Readiness(
            source(),
            match which {
                0 => Readiness::Ready,
                1 => Readiness::NotReady("behind".into()),
                _ => Readiness::Unknown("store failed".into()),
            },
        ),
        Op::Peer(from, preferred, failing) => Input::Peer(
            peer(*from),
            PeerReport {
                heard_at: at,
                preferred: *preferred,
                draining: false,
                failing_since: failing.map(|steps| at - STEP * steps),
            },
        ),
        Op::Turn(steps) => Input::Turn(Turn::Yours {
            until: at + STEP * *steps,
        }),
        Op::WaitsForTurn => Input::Turn(Turn::Waits("ams1 joins".into())),
        Op::CutOff => Input::Turn(Turn::CutOff("alone".into())),
        Op::Timeout => Input::Timeout,
        Op::Expiry => Input::Expiry,
        Op::Restart => Input::Restart,
    }
}

fn machine(policy: Policy, adopted: bool, start: Instant) -> Machine {
    let observed = if adopted {
        InForce::Preferred
    } else {
        InForce::Demoted
    };
    Machine::new(
        identity("tftp"),
        policy,
        &rules(CHECKS),
        Some(observed),
        start,
    )
    .unwrap()
    .with_members(&[peer(0), peer(1), peer(2)])
}

/// Runs operations on a machine.
fn run(policy: Policy, adopted: bool, start: Instant, ops: &[(u32, Op)]) -> History {
    run_with(machine(policy, adopted, start), adopted, start, ops, false)
}

/// The same, with a step at every moment that the machine asks for if `punctual`.
fn run_with(
    mut machine: Machine,
    adopted: bool,
    start: Instant,
    ops: &[(u32, Op)],
    punctual: bool,
) -> History {
    let policy = *machine.policy();
    let mut at = start;
    let mut steps = Vec::new();
    for (pause, op) in ops {
        at += STEP * *pause;
        while let Some((due, _)) = machine.poll_timeout()
            && punctual
            && due <= at
        {
            machine.handle_timeout(due);
            steps.push(Step {
                at: due,
                input: Input::Timeout,
                preference: machine.preference(),
            });
        }
        let input = to_input(op, at);
        machine.handle(at, &input);
        let preference = machine.preference();
        steps.push(Step {
            at,
            input,
            preference,
        });
    }
    History {
        policy,
        checks: CHECKS,
        adopted,
        steps,
    }
}

/// Machine, reconciler and a model of the kernel together; a restart loses the first two.
/// Announcer errors come from `faults`. Returns the decided history and every state the
/// kernel was in.
fn run_node(policy: Policy, ops: &[(u32, Op)], faults: &[bool]) -> (History, Vec<Seen>) {
    let start = Instant::now();
    let mut kernel = Kernel::new(identity("tftp").addresses, STEP * 30);
    let mut at = start;
    let mut machine = machine(policy, false, start);
    let mut saved = Intent::Auto;
    let mut reconciler = Reconciler::new(kernel.capabilities(), STEP * 10);
    let mut faults = faults.iter().copied().cycle();
    let mut steps = Vec::new();
    for (pause, op) in ops {
        at += STEP * *pause;
        let input = to_input(op, at);
        if matches!(input, Input::Restart) {
            let observed = kernel.observe(at).agreed();
            machine = Machine::new(identity("tftp"), policy, &rules(CHECKS), observed, at).unwrap();
            machine.handle_intent(at, saved.clone());
            reconciler = Reconciler::new(kernel.capabilities(), STEP * 10);
        }
        if let Input::Intent(intent) = &input {
            saved = intent.clone();
        }
        machine.handle(at, &input);
        if let Some(decision) = machine.decide(at) {
            reconciler.handle_decision(decision);
        }
        while let Some(action) = reconciler.poll_action(at) {
            let fault = faults.next().unwrap_or(false);
            match action {
                Action::Apply(_) if fault => {
                    reconciler.handle_applied(at, Err("netlink is busy".into()));
                }
                Action::Apply(decision) => {
                    let applied = kernel.apply(at, &decision);
                    let outcome = applied.map(|_| Applied::Confirmed);
                    reconciler.handle_applied(at, outcome.map_err(|e| e.to_string().into()));
                }
                Action::Observe if fault => {
                    reconciler.handle_observed(at, Err("netlink is busy".into()));
                }
                Action::Observe => reconciler.handle_observed(at, Ok(kernel.observe(at))),
            }
        }
        let preference = machine.preference();
        steps.push(Step {
            at,
            input,
            preference,
        });
        kernel.look(at);
    }
    let history = History {
        policy,
        checks: CHECKS,
        adopted: false,
        steps,
    };
    (history, kernel.into_seen())
}

#[test]
fn f1_demote_never_withdraws_unordered() {
    check(
        "f1_demote_never_withdraws_unordered",
        (
            demote_policy(),
            ops(),
            proptest::collection::vec(any::<bool>(), 1..8),
        ),
        |(policy, ops, faults)| {
            let (history, seen) = run_node(policy, &ops, &faults);
            holds(invariants::f1_never_withdraws_unordered(&history))?;
            holds(invariants::f9_order_outranks_health(&history))?;
            // What the kernel was made to do is part of the trace as well: without an order
            // in it, no route was ever withdrawn.
            let ordered = history
                .steps
                .iter()
                .any(|step| matches!(step.input, Input::Intent(Intent::Withdraw { .. })));
            prop_assert!(
                ordered || seen.iter().all(|seen| !seen.withdrawn),
                "{seen:?}"
            );
            Ok(())
        },
    );
}

#[test]
fn f2_removing_every_unknown_reaches_the_same_level() {
    check(
        "f2_removing_every_unknown_reaches_the_same_level",
        (policy(), any::<bool>(), without_restarts()),
        |(policy, adopted, ops)| {
            let start = Instant::now();
            let with = run(policy, adopted, start, &ops);
            // The same operations at the same times, the Unknowns left out.
            let mut pause = 0;
            let mut kept = Vec::new();
            for (step, op) in &ops {
                pause += step;
                if !matches!(op, Op::Verdict(_, Verdict::Unknown(_))) {
                    kept.push((std::mem::take(&mut pause), op.clone()));
                }
            }
            let without = run(policy, adopted, start, &kept);
            holds(invariants::f2_unknown_is_neutral(&with, &without))
        },
    );
}

#[test]
fn f3_levels_follow_rise_fall_and_hold_down() {
    check(
        "f3_levels_follow_rise_fall_and_hold_down",
        (demote_policy(), any::<bool>(), without_restarts()),
        |(policy, adopted, ops)| {
            let start = Instant::now();
            let machine = machine(policy, adopted, start);
            let history = run_with(machine, adopted, start, &ops, true);
            holds(invariants::f3_hysteresis(&history))
        },
    );
    check(
        "f3_plain_levels_are_exact",
        (plain_policy(), any::<bool>(), without_restarts()),
        |(policy, adopted, ops)| {
            let history = run(policy, adopted, Instant::now(), &plain(ops));
            holds(invariants::f3_hysteresis(&history))
        },
    );
}

#[test]
fn f4_changes_keep_to_the_budget_and_a_demotion_is_never_starved() {
    check(
        "f4_changes_keep_to_the_budget",
        (policy(), any::<bool>(), without_restarts()),
        |(policy, adopted, ops)| {
            let start = Instant::now();
            let machine = machine(policy, adopted, start).with_readiness(&[source()]);
            let history = run_with(machine, adopted, start, &ops, true);
            holds(invariants::f4_budget(&history))?;
            // A machine whose data are never heard of never rises, whatever its checks say.
            let hears = |(_, op): &(u32, Op)| matches!(op, Op::Readiness(..));
            if policy.fail_safe == FailSafe::Demote && (adopted || ops.iter().any(hears)) {
                holds(invariants::f3_hysteresis(&history))?;
            }
            Ok(())
        },
    );
}

/// One machine: withdrawn by itself only while so many grants stand, and bound by no promise.
#[test]
fn f5_withdraws_only_with_grants_and_without_promises() {
    check(
        "f5_withdraws_only_with_grants_and_without_promises",
        (policy(), without_restarts()),
        |(policy, ops)| {
            let start = Instant::now();
            let mut machine = machine(policy, false, start);
            let settled = start + MAX_GRANT * 2;
            let mut at = settled;
            let mut promised = settled;
            for (pause, op) in &ops {
                at += STEP * *pause;
                let input = to_input(op, at);
                if let Input::GrantRequest(peer, long) = &input {
                    if let Some(granted) = machine.handle_grant_request(at, peer.clone(), *long) {
                        prop_assert_eq!(machine.preference(), Preference::Preferred);
                        promised = promised.max(at + granted);
                    }
                } else {
                    machine.handle(at, &input);
                }
                let FailSafe::Withdraw(rule) = policy.fail_safe else {
                    continue;
                };
                let yielded = machine.state() == State::Yielded;
                prop_assert!(!(yielded && at < promised), "a promise was broken");
                let consent = invariants::Consent {
                    node: peer(9),
                    yielded,
                    grants: machine.grants(),
                };
                let other = invariants::Consent {
                    node: peer(0),
                    yielded: false,
                    grants: 0,
                };
                let needed = usize::from(rule.min_peers.get());
                let fleet = [consent, other];
                holds(invariants::f5_withdraws_with_consent(&fleet, needed))?;
            }
            Ok(())
        },
    );
}

#[test]
fn f6_equal_levels_choose_as_if_all_were_healthy() {
    let role = prop_oneof![
        2 => Just(Role::Primary),
        1 => (1u8..=255).prop_map(|n| Role::Backup(n.try_into().unwrap())),
    ];
    let site = (any::<bool>(), role, 0u32..5);
    check(
        "f6_equal_levels_choose_as_if_all_were_healthy",
        (any::<bool>(), proptest::collection::vec(site, 1..8)),
        |(equal, sites)| {
            let level = |preferred| {
                if preferred {
                    crate::announce::Level::Preferred
                } else {
                    crate::announce::Level::Demoted
                }
            };
            let equally = sites[0].0;
            let sites: Vec<_> = sites
                .into_iter()
                .map(|(preferred, role, distance)| invariants::Site {
                    level: level(if equal { equally } else { preferred }),
                    role,
                    distance,
                })
                .collect();
            holds(invariants::f6_same_best_path(&sites))
        },
    );
}

#[test]
fn f12_joins_and_leaves_in_turn_and_an_order_waits_for_no_longer() {
    let turns = (0u32..10).prop_map(|steps| TurnPolicy {
        spacing: STEP,
        leave_within: STEP * steps,
    });
    check(
        "f12_joins_and_leaves_in_turn",
        (policy(), turns, any::<bool>(), without_restarts()),
        |(policy, turns, adopted, ops)| {
            let policy = Policy {
                turns: Some(turns),
                ..policy
            };
            let start = Instant::now();
            let machine = machine(policy, adopted, start).with_readiness(&[source()]);
            let history = run_with(machine, adopted, start, &ops, true);
            holds(invariants::f12_changes_in_turn(&history))?;
            holds(invariants::f9_order_outranks_health(&history))?;
            if policy.fail_safe == FailSafe::Demote {
                holds(invariants::f3_hysteresis(&history))?;
            }
            Ok(())
        },
    );
}

#[test]
fn f10_an_empty_list_of_checks_removes_none() {
    check(
        "f10_an_empty_list_of_checks_removes_none",
        (policy(), without_restarts(), 0usize..=CHECKS),
        |(policy, ops, keep)| {
            let start = Instant::now();
            let mut machine = machine(policy, false, start);
            let mut at = start;
            for (pause, op) in &ops {
                at += STEP * *pause;
                machine.handle(at, &to_input(op, at));
            }
            let before: Vec<_> = machine.checks().map(|(name, ..)| name.clone()).collect();
            let preference = machine.preference();
            let listed = rules(keep);
            let result = machine.handle_checks(at, &listed);
            let after: Vec<_> = machine.checks().map(|(name, ..)| name.clone()).collect();
            let removed: Vec<_> = before.iter().filter(|name| !after.contains(name)).collect();
            holds(invariants::f10_empty_list_removes_nothing(
                Some(&listed),
                &removed,
            ))?;
            prop_assert_eq!(result.is_err(), listed.is_empty());
            if listed.is_empty() {
                prop_assert_eq!(machine.preference(), preference);
            } else {
                let listed: Vec<_> = listed.into_iter().map(|rule| rule.name).collect();
                prop_assert_eq!(after, listed);
            }
            prop_assert!(ServiceAddresses::new(vec![]).is_err());
            Ok(())
        },
    );
}

/// Independent: a second machine fed other inputs in between changes nothing. Idempotent:
/// intents, grants, time-outs and decisions given twice change nothing. Monotonic: a `now`
/// that steps back counts as the latest seen.
#[test]
fn f11_services_are_independent_and_inputs_idempotent() {
    check(
        "f11_services_are_independent_and_inputs_idempotent",
        (policy(), any::<bool>(), without_restarts(), ops(), 0u32..30),
        |(policy, adopted, ops, foreign, back)| {
            let start = Instant::now() + Duration::from_secs(3600);
            let alone = run(policy, adopted, start, &ops);
            let mut one = machine(policy, adopted, start);
            let mut other = machine(policy, !adopted, start);
            let mut foreign = foreign.iter().cycle();
            let mut at = start;
            let mut steps = Vec::new();
            for (pause, op) in &ops {
                at += STEP * *pause;
                if let Some((_, op)) = foreign.next() {
                    other.handle(at, &to_input(op, at));
                }
                let input = to_input(op, at);
                one.handle_timeout(at);
                // The clock steps back after `at` was seen; that must count as `at`.
                one.handle(at - STEP * back, &input);
                if !matches!(input, Input::Verdict(..)) {
                    one.handle(at, &input);
                }
                one.decide(at);
                one.decide(at - Duration::from_secs(1));
                let preference = one.preference();
                steps.push(Step {
                    at,
                    input,
                    preference,
                });
            }
            let together = History {
                steps,
                ..alone.clone()
            };
            holds(invariants::f11_same_levels(&alone, &together))
        },
    );
}

/// Idempotent at the announcer: once confirmed, further decision steps apply nothing but
/// renewals, and the kernel's announcement does not change.
#[test]
fn f11_repeated_decisions_change_no_route() {
    check(
        "f11_repeated_decisions_change_no_route",
        (demote_policy().prop_map(without_turns), 1usize..40),
        |(policy, repeats)| {
            let start = Instant::now();
            let mut kernel = Kernel::new(identity("tftp").addresses, STEP * 30);
            let mut machine = machine(policy, false, start);
            let mut reconciler = Reconciler::new(kernel.capabilities(), STEP * 10);
            let mut at = start;
            for _ in 0..policy.rise.get() {
                for check in 0..CHECKS {
                    machine.handle_verdict(at, CheckId::new(check), Verdict::Healthy);
                }
            }
            let mut changes = 0;
            for _ in 0..repeats {
                at += STEP;
                reconciler.handle_decision(machine.decide(at).unwrap());
                while let Some(action) = reconciler.poll_action(at) {
                    match action {
                        Action::Apply(decision) => {
                            changes += u32::from(kernel.apply(at, &decision).unwrap());
                            reconciler.handle_applied(at, Ok(Applied::Confirmed));
                        }
                        Action::Observe => reconciler.handle_observed(at, Ok(kernel.observe(at))),
                    }
                }
            }
            prop_assert_eq!(changes, 1, "preferred once, then only renewed");
            Ok(())
        },
    );
}

/// What a recorder leaves out makes no difference: the record replays to the same decision at
/// every entry, and to the same state at the end and ever after.
#[cfg(feature = "record")]
#[test]
fn a_record_replays_to_the_same_decisions() {
    use crate::record::{Recorder, Replay};
    check(
        "a_record_replays_to_the_same_decisions",
        (policy(), any::<bool>(), without_restarts()),
        |(policy, adopted, ops)| {
            let start = Instant::now();
            let observed = adopted.then_some(InForce::Preferred);
            let fresh = || {
                let rules = rules(CHECKS);
                Machine::new(identity("tftp"), policy, &rules, observed, start)
                    .unwrap()
                    .with_members(&[peer(0), peer(1), peer(2)])
                    .with_readiness(&[source()])
            };
            let mut machine = fresh();
            let node = NodeName::new("ams1").unwrap();
            let mut recorder = Recorder::new(&machine, &node, observed, start);
            let mut at = start;
            for (pause, op) in &ops {
                at += STEP * *pause;
                recorder.handle(&mut machine, at, &to_input(op, at));
            }
            let elsewhere = start + Duration::from_secs(86_400);
            let replay = Replay::run(&recorder.to_text(), elsewhere).unwrap();
            prop_assert_eq!(replay.first_difference(), None);
            let mut replayed = replay.machine;
            for later in [0, 5, 50, 500, 5000] {
                let later = STEP * later;
                machine.handle_timeout(at + later);
                replayed.handle_timeout(elsewhere + (at - start) + later);
                prop_assert_eq!(machine.state(), replayed.state());
                let age = |m: &Machine, now: Instant| now.saturating_duration_since(m.since());
                prop_assert_eq!(
                    age(&machine, at + later),
                    age(&replayed, elsewhere + (at - start) + later)
                );
            }
            Ok(())
        },
    );
}
