//! Property tests of F7, F8 and F9: machine, reconciler and saved orders over a kernel and a
//! disk that outlive their process, which may be killed in the middle of a write.
//!
//! At least [`CASES`] cases each; `PROPTEST_CASES` may ask for more.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::{FileFailurePersistence, TestRunner};

use super::{Action, Reconciler};
use crate::announce::{Applied, InForce, Preference, Role};
use crate::health::Verdict;
use crate::intent_store::{BootId, ClockReading, OrderKind, SavedIntent};
use crate::invariants::{self, Announced, History, Input, Step, Watched};
use crate::machine::{CheckId, CheckRule, Identity, Intent, Machine, Policy};
use crate::service::{CheckName, ServiceAddresses, ServiceName};
use crate::testing::kernel::{Kernel, WRITES};

const CASES: u32 = 20_000;
const STEP: Duration = Duration::from_millis(500);
const DEAD_MAN: Duration = Duration::from_secs(3);

fn check<S: Strategy>(name: &str, strategy: S, test: impl Fn(S::Value) -> Result<(), TestCaseError>)
where
    S::Value: std::fmt::Debug,
{
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/proptest-regressions");
    let file: &'static str = Box::leak(format!("{folder}/{name}.txt").into_boxed_str());
    let asked = std::env::var("PROPTEST_CASES").ok();
    let asked = asked.and_then(|n| n.parse().ok()).unwrap_or(CASES);
    let config = ProptestConfig {
        cases: asked.max(CASES),
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(file))),
        ..ProptestConfig::default()
    };
    if let Err(error) = TestRunner::new(config).run(&strategy, test) {
        panic!("{error}");
    }
}

fn holds(result: Result<(), invariants::Violation>) -> Result<(), TestCaseError> {
    result.map_err(|violation| TestCaseError::fail(violation.to_string()))
}

#[derive(Debug, Clone)]
enum Op {
    Healthy,
    Failing,
    Unknown,
    /// Withdraw rather than demote, and for so many steps.
    Order(bool, Option<u32>),
    Lift,
    /// Killed after so many writes of the next action.
    Kill(u32),
    Start,
    /// The next actions stop after so many writes.
    Writes(u32),
    /// From now on what is in force can be observed, or not.
    Blind(bool),
    /// Somebody else removes the boost.
    Lose,
    /// The wall clock is so many hours off, one way or the other.
    Jump(i8),
    Wait,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => Just(Op::Healthy),
        3 => Just(Op::Failing),
        2 => Just(Op::Unknown),
        2 => (any::<bool>(), proptest::option::of(0u32..20)).prop_map(|(w, n)| Op::Order(w, n)),
        1 => Just(Op::Lift),
        3 => (0..=WRITES).prop_map(Op::Kill),
        4 => Just(Op::Start),
        2 => prop_oneof![3 => Just(WRITES), 1 => 0..WRITES].prop_map(Op::Writes),
        2 => any::<bool>().prop_map(Op::Blind),
        1 => Just(Op::Lose),
        1 => any::<i8>().prop_map(Op::Jump),
        2 => Just(Op::Wait),
    ]
}

fn ops() -> impl Strategy<Value = Vec<(u32, Op)>> {
    proptest::collection::vec((0u32..5, op()), 0..50)
}

fn policy() -> impl Strategy<Value = Policy> {
    let counts = (1u32..3, 1u32..3, 0u32..4);
    counts.prop_map(|(rise, fall, hold_down)| Policy {
        rise: NonZeroU32::new(rise).unwrap(),
        fall: NonZeroU32::new(fall).unwrap(),
        hold_down: STEP * hold_down,
        ..Policy::default()
    })
}

/// One node: what is lost with the process, and what is not.
struct Node {
    policy: Policy,
    booted: Instant,
    wall: Duration,
    kernel: Kernel,
    disk: Option<SavedIntent>,
    process: Option<(Machine, Reconciler)>,
    last_step: Instant,
    writes: u32,
    blind: bool,
    steps: Vec<Step>,
    watched: Vec<Watched>,
    announced: Vec<Announced>,
}

impl Node {
    fn new(policy: Policy, booted: Instant) -> Self {
        let list = ["192.0.2.69/32", "2001:db8::69/128"];
        let list = list.map(|a| a.parse().unwrap()).to_vec();
        Self {
            policy,
            booted,
            wall: Duration::from_secs(1_700_000_000),
            kernel: Kernel::bare(ServiceAddresses::new(list).unwrap(), DEAD_MAN),
            disk: None,
            process: None,
            last_step: booted,
            writes: WRITES,
            blind: false,
            steps: Vec::new(),
            watched: Vec::new(),
            announced: Vec::new(),
        }
    }

    fn clocks(&self, at: Instant) -> ClockReading {
        ClockReading {
            boot: BootId::new("this-boot"),
            boottime: at - self.booted,
            wall: self.wall,
        }
    }

    fn start(&mut self, at: Instant) {
        if self.process.is_some() {
            return;
        }
        let observed = self.kernel.observe(at);
        let identity = Identity {
            service: ServiceName::new("tftp").unwrap(),
            addresses: ServiceAddresses::new(observed.addresses.iter().map(|(a, _)| *a).collect())
                .unwrap(),
            role: Role::Primary,
        };
        let observed = observed.agreed();
        let rules: [CheckRule; 1] = [CheckName::new("check").unwrap().into()];
        let mut machine = Machine::new(identity, self.policy, &rules, observed, at).unwrap();
        let clocks = self.clocks(at);
        self.disk = self.disk.take().and_then(|saved| saved.restore(&clocks));
        if let Some(saved) = &self.disk {
            machine.handle_intent(at, intent(saved, saved.left(&clocks).map(|left| at + left)));
        }
        let mut reconciler = Reconciler::new(self.kernel.capabilities(), STEP * 4);
        if observed == Some(InForce::Preferred) {
            reconciler = reconciler.adopting();
        }
        self.last_step = at;
        self.note(at, Input::Restart, machine.preference());
        self.process = Some((machine, reconciler));
        self.step(at);
    }

    fn note(&mut self, at: Instant, input: Input, preference: Preference) {
        self.steps.push(Step {
            at,
            input,
            preference,
        });
    }

    fn hear(&mut self, at: Instant, input: Input) {
        if let Some((machine, _)) = &mut self.process {
            machine.handle(at, &input);
            let preference = machine.preference();
            self.note(at, input, preference);
        }
    }

    fn order(&mut self, at: Instant, order: Option<(bool, Option<u32>)>) {
        if self.process.is_none() {
            return;
        }
        let clocks = self.clocks(at);
        self.disk = order.map(|(withdraw, lasts)| {
            let kind = if withdraw {
                OrderKind::Withdraw
            } else {
                OrderKind::Demote
            };
            let lasts = lasts.map(|steps| STEP * steps);
            SavedIntent::new(kind, "work".into(), "alice".into(), lasts, &clocks)
        });
        let until = order
            .and_then(|(_, lasts)| lasts)
            .map(|steps| at + STEP * steps);
        let intent = self
            .disk
            .as_ref()
            .map_or(Intent::Auto, |saved| intent(saved, until));
        self.hear(at, Input::Intent(intent));
    }

    /// A decision step and what follows from it, as the driver makes it.
    fn step(&mut self, at: Instant) {
        let pause = at.saturating_duration_since(self.last_step);
        self.last_step = at;
        let Some((machine, reconciler)) = &mut self.process else {
            return;
        };
        let preferred = machine.preference() == Preference::Preferred;
        if pause > DEAD_MAN || (preferred && reconciler.has_run_out(at)) {
            self.hear(at, Input::Expiry);
        } else {
            self.hear(at, Input::Timeout);
        }
        loop {
            let Some((machine, reconciler)) = &mut self.process else {
                return;
            };
            if let Some(decision) = machine.decide(at) {
                reconciler.handle_decision(decision);
            }
            let Some(action) = reconciler.poll_action(at) else {
                return;
            };
            let whole = self.writes == WRITES;
            match action {
                Action::Apply(decision) => {
                    let wrote = self.kernel.apply_partly(at, &decision, self.writes);
                    self.announced.push(self.kernel.announced(at));
                    let outcome = match wrote {
                        Ok(()) if whole => Ok(Applied::Confirmed),
                        Ok(()) => Err("netlink is busy".into()),
                        Err(stale) => Err(stale.to_string().into()),
                    };
                    reconciler.handle_applied(at, outcome);
                }
                Action::Observe => {
                    let seen = if self.blind {
                        Err("netlink is busy".into())
                    } else {
                        Ok(self.kernel.observe(at))
                    };
                    reconciler.handle_observed(at, seen);
                    if reconciler.take_lost_adoption() {
                        self.hear(at, Input::Expiry);
                    }
                }
            }
        }
    }

    fn watch(&mut self, at: Instant) {
        let seen = self.kernel.state(at);
        self.watched.push(Watched {
            at,
            alive: self.process.is_some(),
            preferred: seen.preferred,
            withdrawn: seen.withdrawn,
        });
        self.announced.push(self.kernel.announced(at));
    }

    fn run(&mut self, ops: &[(u32, Op)]) {
        let mut at = self.booted;
        for (pause, op) in ops {
            at += STEP * *pause;
            self.watch(at);
            let check = CheckId::new(0);
            match op {
                Op::Healthy => self.hear(at, Input::Verdict(check, Verdict::Healthy)),
                Op::Failing => self.hear(at, Input::Verdict(check, Verdict::unhealthy("silent"))),
                Op::Unknown => self.hear(at, Input::Verdict(check, Verdict::unknown("EMFILE"))),
                Op::Order(withdraw, lasts) => self.order(at, Some((*withdraw, *lasts))),
                Op::Lift => self.order(at, None),
                Op::Kill(writes) => {
                    let writes = std::mem::replace(&mut self.writes, *writes);
                    self.step(at);
                    self.watch(at);
                    self.process = None;
                    self.writes = writes;
                }
                Op::Start => self.start(at),
                Op::Writes(writes) => self.writes = *writes,
                Op::Blind(blind) => self.blind = *blind,
                Op::Lose => self.kernel.lose_boost(),
                Op::Jump(hours) => {
                    let by = Duration::from_secs(3600) * u32::from(hours.unsigned_abs());
                    let wall = &mut self.wall;
                    *wall = if *hours < 0 { *wall - by } else { *wall + by };
                }
                Op::Wait => {}
            }
            self.step(at);
            self.watch(at);
        }
    }
}

fn intent(saved: &SavedIntent, until: Option<Instant>) -> Intent {
    let (reason, by) = (saved.reason.clone(), saved.by.clone());
    match saved.order {
        OrderKind::Demote => Intent::Demote { reason, by, until },
        OrderKind::Withdraw => Intent::Withdraw { reason, by, until },
    }
}

#[test]
fn f7_nothing_is_announced_without_the_permanent_copy() {
    check(
        "f7_nothing_is_announced_without_the_permanent_copy",
        (policy(), ops()),
        |(policy, ops)| {
            let mut node = Node::new(policy, Instant::now());
            node.run(&ops);
            holds(invariants::f7_permanent_copy(&node.announced))
        },
    );
}

#[test]
fn f8_a_dead_node_is_demoted_in_time_and_never_withdrawn() {
    check(
        "f8_a_dead_node_is_demoted_in_time_and_never_withdrawn",
        (policy(), ops()),
        |(policy, ops)| {
            let mut node = Node::new(policy, Instant::now());
            node.run(&ops);
            holds(invariants::f8_dead_man(&node.watched, DEAD_MAN))
        },
    );
}

/// Killed while preferred, back before the boost has run out, and every check answered by
/// then: the kernel never changes.
#[test]
fn f8_a_restart_in_time_changes_no_route() {
    check(
        "f8_a_restart_in_time_changes_no_route",
        (policy(), 0u32..900, 0u32..900, any::<bool>()),
        |(policy, down, silent, unknown)| {
            let start = Instant::now();
            let mut node = Node::new(policy, start);
            node.start(start);
            let healthy = || Input::Verdict(CheckId::new(0), Verdict::Healthy);
            for _ in 0..policy.rise.get() {
                node.hear(start, healthy());
            }
            node.step(start);
            prop_assert!(node.kernel.state(start).preferred);
            node.process = None;
            let back = start + Duration::from_millis(u64::from(down));
            node.start(back);
            let mut at = back + Duration::from_millis(u64::from(silent));
            for n in 0..12 {
                let first = n == 0 && unknown;
                let verdict = if first {
                    Verdict::unknown("EMFILE")
                } else {
                    Verdict::Healthy
                };
                node.hear(at, Input::Verdict(CheckId::new(0), verdict));
                prop_assert!(node.kernel.state(at).preferred, "before the step");
                node.step(at);
                prop_assert!(node.kernel.state(at).preferred, "after the step");
                at += STEP;
            }
            Ok(())
        },
    );
}

#[test]
fn f9_an_order_outranks_health_over_restarts_and_ends_on_time() {
    check(
        "f9_an_order_outranks_health_over_restarts_and_ends_on_time",
        (policy(), ops()),
        |(policy, ops)| {
            let mut node = Node::new(policy, Instant::now());
            node.run(&ops);
            let history = History {
                policy,
                checks: 1,
                adopted: false,
                steps: node.steps,
            };
            holds(invariants::f9_order_outranks_health(&history))?;
            holds(invariants::f1_never_withdraws_unordered(&history))
        },
    );
}
