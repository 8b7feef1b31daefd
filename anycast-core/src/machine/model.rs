//! An exhaustive check of small fleets: every reachable state of the real machine, with coarse
//! time, under every order of events.
//!
//! Time goes on in ticks of [`TICK`], without end: a state is told in times relative to the
//! present, and what is older than anything that counts is as old as `World::far`; so the states
//! are finite in number, and all are visited. An event may happen at any tick or never, which
//! is how messages are delayed, lost and reordered, how nodes are cut off, and how announcers
//! fail. A small reference reckons each check beside the machine.

use std::num::{NonZeroU16, NonZeroU32};
use std::time::{Duration, Instant};

use stateright::{Checker, Model, Property};

use super::proptests::identity;
use super::*;
use crate::announce::{Level, Preference, WithdrawalCause};
use crate::invariants::{self, Consent, Site};

/// Two of it outlast the quarantine after a start and a promise.
const TICK: Duration = Duration::from_secs(16);
/// Ticks within which all must be preferred once all is well.
const HEALING: usize = 8;

/// What the checks amount to, by the rule alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Reckoned {
    up: bool,
    successes: u32,
    failures: u32,
    /// Since the last failure, up to the hold-down.
    quiet: Duration,
}

impl Reckoned {
    const fn new(up: bool, policy: &Policy) -> Self {
        Self {
            up,
            successes: 0,
            failures: 0,
            quiet: policy.hold_down,
        }
    }

    fn hear(&mut self, verdict: &Verdict, policy: &Policy) {
        match verdict {
            Verdict::Healthy => {
                self.failures = 0;
                self.successes = (self.successes + 1).min(policy.rise.get());
            }
            Verdict::Unhealthy(_, evidence) => {
                self.successes = 0;
                self.failures = (self.failures + 1).min(policy.fall.get());
                self.quiet = Duration::ZERO;
                let conclusive = *evidence == crate::health::Evidence::Conclusive;
                if conclusive || self.failures == policy.fall.get() {
                    self.up = false;
                }
            }
            Verdict::Unknown(_) => {}
        }
        self.settle(policy);
    }

    fn settle(&mut self, policy: &Policy) {
        if self.successes == policy.rise.get() && self.quiet >= policy.hold_down {
            self.up = true;
        }
    }
}

/// What stands in a node's kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Stands {
    Preferred,
    Demoted,
    Withdrawn(WithdrawalCause),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Node {
    /// `None`: dead.
    machine: Option<Machine>,
    reckoned: Reckoned,
    stands: Stands,
    /// Answers under way to this node, of each peer: the end of the grant.
    answers: Vec<Option<Instant>>,
    /// Grants that arrived, reckoned apart from the machine.
    grants: Vec<Option<Instant>>,
    /// The fleet has said that this node is not alone.
    is_together: bool,
    /// It has joined or left out of turn (F12).
    broke: bool,
}

type Nodes = Vec<Node>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    Healthy,
    Unhealthy,
    Gone,
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ordered {
    Demote,
    Withdraw,
    Lift,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Tick,
    Verdict(usize, Said),
    Order(usize, Ordered),
    /// The announcer carries the latest decision out.
    Apply(usize),
    /// The first asks the second, which answers if it grants.
    Ask(usize, usize),
    /// The answer of the second reaches the first.
    Answer(usize, usize),
    /// The first tells the second how it is.
    Report(usize, usize),
    Crash(usize),
    Start(usize),
    /// The boost ran out while the process stood still.
    Expiry(usize),
    /// It is this node's turn.
    Turn(usize),
    /// It has to wait for its turn; or it is cut off.
    Wait(usize, bool),
}

/// A fleet, and what may happen to it.
struct World {
    size: usize,
    policy: Policy,
    base: Instant,
    orders: bool,
    reports: bool,
    crashes: bool,
    /// Announcers may be late; else each decision is in force at once.
    late: bool,
    /// Each asks its neighbour alone, in a ring; else each asks all others.
    ring: bool,
    /// Further than any time that the policy knows: all beyond it is alike.
    far: Duration,
}

impl World {
    fn asks(&self) -> bool {
        self.policy.fail_safe != FailSafe::Demote
    }

    fn peer(n: usize) -> NodeName {
        NodeName::new(&format!("node{n}")).unwrap()
    }

    fn start(&self, index: usize, observed: InForce) -> Machine {
        let rules = [CheckName::new("check").unwrap().into()];
        let peers: Vec<_> = (0..self.size)
            .filter(|n| *n != index)
            .map(Self::peer)
            .collect();
        let identity = identity("tftp");
        Machine::new(identity, self.policy, &rules, Some(observed), self.base)
            .unwrap()
            .with_members(&peers)
    }

    fn verdict(said: Said) -> Verdict {
        match said {
            Said::Healthy => Verdict::Healthy,
            Said::Unhealthy => Verdict::unhealthy("silent"),
            Said::Gone => Verdict::gone("exited"),
            Said::Unknown => Verdict::unknown("EMFILE"),
        }
    }

    fn apply(node: &mut Node, now: Instant) {
        let Some(decision) = node.machine.as_mut().and_then(|m| m.decide(now)) else {
            return;
        };
        node.stands = match decision.preference() {
            Preference::Preferred => Stands::Preferred,
            Preference::Demoted => Stands::Demoted,
            Preference::Withdrawn(withdrawal) => Stands::Withdrawn(withdrawal.cause()),
        };
    }

    /// What happens; `None` where it cannot.
    fn happen(&self, nodes: &mut Nodes, act: Act) -> Option<()> {
        let preferred = |node: &Node| {
            let machine = node.machine.as_ref()?;
            Some(machine.preference() == Preference::Preferred)
        };
        let before: Vec<_> = nodes.iter().map(preferred).collect();
        self.act(nodes, act)?;
        if self.policy.turns.is_none() {
            return Some(());
        }
        for (at, before) in before.into_iter().enumerate() {
            let (node, has_turn) = (&mut nodes[at], act == Act::Turn(at));
            let may_leave = has_turn
                || !node.reckoned.up
                || !node.is_together
                // An order has waited for long enough.
                || matches!(act, Act::Tick | Act::Expiry(_));
            node.broke |= match (before, preferred(node)) {
                (Some(false), Some(true)) => !has_turn,
                (Some(true), Some(false)) => !may_leave,
                (None, _) | (_, None) | (Some(false), Some(false)) | (Some(true), Some(true)) => {
                    false
                }
            };
        }
        Some(())
    }

    fn act(&self, nodes: &mut Nodes, act: Act) -> Option<()> {
        let now = self.base;
        match act {
            Act::Tick => return self.tick(nodes),
            Act::Verdict(at, said) => {
                let (verdict, node) = (Self::verdict(said), &mut nodes[at]);
                node.reckoned.hear(&verdict, &self.policy);
                let machine = node.machine.as_mut()?;
                machine.handle_verdict(now, CheckId::new(0), verdict);
            }
            Act::Order(at, ordered) => {
                let (reason, by, until) = ("work".into(), "alice".into(), Some(now + TICK));
                let intent = match ordered {
                    Ordered::Demote => Intent::Demote { reason, by, until },
                    Ordered::Withdraw => Intent::Withdraw { reason, by, until },
                    Ordered::Lift => Intent::Auto,
                };
                nodes[at].machine.as_mut()?.handle_intent(now, intent);
            }
            Act::Apply(at) => Self::apply(&mut nodes[at], now),
            Act::Ask(at, of) => {
                nodes[at].machine.as_ref()?.failing_since()?;
                let granter = &mut nodes[of];
                let stays = granter.stands == Stands::Preferred;
                let machine = granter.machine.as_mut().filter(|_| stays)?;
                let granted = machine.handle_grant_request(now, Self::peer(at), TICK)?;
                nodes[at].answers[of] = Some(now + granted);
            }
            Act::Answer(at, of) => {
                let until = nodes[at].answers[of].take()?;
                let node = &mut nodes[at];
                node.machine
                    .as_mut()?
                    .handle_grant(now, Self::peer(of), until);
                node.grants[of] = Some(until);
            }
            Act::Report(at, to) => self.report(nodes, at, to)?,
            Act::Turn(at) => {
                let until = now + TICK;
                let machine = nodes[at].machine.as_mut()?;
                machine.handle_turn(now, Turn::Yours { until });
            }
            Act::Wait(at, is_together) => Self::wait(&mut nodes[at], now, is_together)?,
            Act::Crash(at) => {
                let node = &mut nodes[at];
                node.machine.take()?;
                node.answers.fill(None);
                node.grants.fill(None);
                node.is_together = false;
                node.reckoned = Reckoned::new(false, &self.policy);
            }
            Act::Start(at) => {
                let observed = match nodes[at].stands {
                    Stands::Preferred => InForce::Preferred,
                    Stands::Demoted => InForce::Demoted,
                    Stands::Withdrawn(_) => InForce::Withdrawn,
                };
                let adopted = observed == InForce::Preferred;
                nodes[at].reckoned = Reckoned::new(adopted, &self.policy);
                nodes[at].machine = Some(self.start(at, observed));
            }
            Act::Expiry(at) => {
                let node = &mut nodes[at];
                node.machine.as_mut()?.handle_expiry(now);
                node.stands = match node.stands {
                    Stands::Preferred | Stands::Demoted => Stands::Demoted,
                    withdrawn @ Stands::Withdrawn(_) => withdrawn,
                };
                let quiet = node.reckoned.quiet;
                node.reckoned = Reckoned {
                    quiet,
                    ..Reckoned::new(false, &self.policy)
                };
            }
        }
        self.carry_out(nodes);
        Some(())
    }

    fn wait(node: &mut Node, now: Instant, is_together: bool) -> Option<()> {
        let reason = "told in the model".into();
        let turn = if is_together {
            Turn::Waits(reason)
        } else {
            Turn::CutOff(reason)
        };
        node.machine.as_mut()?.handle_turn(now, turn);
        node.is_together = is_together;
        Some(())
    }

    fn report(&self, nodes: &mut Nodes, at: usize, to: usize) -> Option<()> {
        let machine = nodes[at].machine.as_ref()?;
        // Whether it is preferred or drained has no part in what a peer decides.
        let report = PeerReport {
            heard_at: self.base,
            preferred: false,
            draining: false,
            failing_since: machine.failing_since(),
        };
        let hearer = nodes[to].machine.as_mut()?;
        hearer.handle_peer(self.base, &Self::peer(at), report);
        Some(())
    }

    fn carry_out(&self, nodes: &mut Nodes) {
        if !self.late {
            nodes
                .iter_mut()
                .for_each(|node| Self::apply(node, self.base));
        }
    }

    /// Time goes on, and is told anew from the same base.
    fn tick(&self, nodes: &mut Nodes) -> Option<()> {
        let now = self.base + TICK;
        for node in nodes.iter_mut() {
            match &mut node.machine {
                Some(machine) => machine.handle_timeout(now),
                // The dead man.
                None if node.stands == Stands::Preferred => node.stands = Stands::Demoted,
                None => {}
            }
            let reckoned = &mut node.reckoned;
            reckoned.quiet = (reckoned.quiet + TICK).min(self.policy.hold_down);
            reckoned.settle(&self.policy);
            for at in node.grants.iter_mut().chain(&mut node.answers) {
                *at = at.filter(|at| *at > now).map(|at| at - TICK);
            }
        }
        self.retime(nodes, now);
        self.carry_out(nodes);
        Some(())
    }

    fn retime(&self, nodes: &mut Nodes, now: Instant) {
        let to = |at: Instant| {
            let ahead = at.saturating_duration_since(now).min(self.far);
            self.base + ahead - now.saturating_duration_since(at).min(self.far)
        };
        let machines = nodes.iter_mut().filter_map(|node| node.machine.as_mut());
        machines.for_each(|machine| machine.retime(now, &to));
    }

    /// Whether all are preferred some ticks after everything has become well.
    fn recovers(&self, state: &Nodes) -> bool {
        let mut nodes = state.clone();
        for at in 0..self.size {
            if nodes[at].machine.is_none() {
                self.happen(&mut nodes, Act::Start(at));
            }
            self.happen(&mut nodes, Act::Order(at, Ordered::Lift));
        }
        for _ in 0..HEALING {
            for at in 0..self.size {
                for _ in 0..self.policy.rise.get() {
                    self.happen(&mut nodes, Act::Verdict(at, Said::Healthy));
                }
                if self.policy.turns.is_some() {
                    self.happen(&mut nodes, Act::Turn(at));
                }
                self.happen(&mut nodes, Act::Apply(at));
            }
            self.tick(&mut nodes);
        }
        nodes.iter().all(|node| node.stands == Stands::Preferred)
    }

    fn machines<'a>(&self, state: &'a Nodes) -> impl Iterator<Item = (&'a Node, &'a Machine)> {
        let alive = |node: &'a Node| Some((node, node.machine.as_ref()?));
        state.iter().filter_map(alive)
    }

    fn f1(&self, state: &Nodes) -> bool {
        let fine = |machine: &Machine| match machine.preference() {
            Preference::Withdrawn(_) => matches!(machine.intent(), Intent::Withdraw { .. }),
            Preference::Demoted | Preference::Preferred => true,
        };
        self.asks() || self.machines(state).all(|(_, machine)| fine(machine))
    }

    fn f3(&self, state: &Nodes) -> bool {
        self.machines(state)
            .all(|(node, machine)| match machine.state() {
                State::Auto(Standing::Healthy | Standing::Adopted) => node.reckoned.up,
                State::Auto(Standing::Rising | Standing::Failed) | State::Yielded => {
                    !node.reckoned.up
                }
                State::Auto(Standing::Held) => !node.reckoned.up && self.reports,
                State::Auto(Standing::Waiting | Standing::Parked) => node.reckoned.up,
                State::Auto(Standing::Queued | Standing::Leaving) => node.reckoned.up,
                State::Auto(Standing::Unready) => false,
                State::Drained | State::Withdrawn => self.orders,
            })
    }

    fn f5(&self, state: &Nodes) -> bool {
        let FailSafe::Withdraw(rule) = self.policy.fail_safe else {
            return true;
        };
        let needed = usize::from(rule.min_peers.get());
        let node = |yielded, grants| Consent {
            node: Self::peer(0),
            yielded,
            grants,
        };
        let decided = self.machines(state).all(|(at, machine)| {
            let yielded = machine.state() == State::Yielded;
            let grants = at.grants.iter().flatten().count();
            let fleet = [node(yielded, grants), node(false, 0)];
            invariants::f5_withdraws_with_consent(&fleet, needed).is_ok()
        });
        let yields = |at: &Node| at.stands == Stands::Withdrawn(WithdrawalCause::Peers);
        let fleet: Vec<_> = state.iter().map(|at| node(yields(at), needed)).collect();
        decided && invariants::f5_withdraws_with_consent(&fleet, needed).is_ok()
    }

    fn f6(&self, state: &Nodes) -> bool {
        let roles = [
            Role::Primary,
            Role::Backup(std::num::NonZeroU8::MIN),
            Role::Primary,
        ];
        let sites = state
            .iter()
            .zip(roles)
            .zip(1..)
            .filter_map(|((node, role), distance)| {
                let level = match node.stands {
                    Stands::Preferred => Level::Preferred,
                    Stands::Demoted => Level::Demoted,
                    Stands::Withdrawn(_) => return None,
                };
                Some(Site {
                    level,
                    role,
                    distance,
                })
            });
        invariants::f6_same_best_path(&sites.collect::<Vec<_>>()).is_ok()
    }

    fn f9(&self, state: &Nodes) -> bool {
        self.machines(state)
            .all(|(_, machine)| match machine.intent() {
                Intent::Auto => true,
                // It waits for its turn, for a bounded time.
                _ if machine.state() == State::Auto(Standing::Leaving) => {
                    self.policy.turns.is_some() && machine.leaves_at() > Some(self.base)
                }
                Intent::Demote { .. } => machine.preference() == Preference::Demoted,
                Intent::Withdraw { .. } => machine.preference().is_withdrawn(),
            })
    }

    fn f12(&self, state: &Nodes) -> bool {
        state.iter().all(|node| !node.broke)
    }

    fn some(&self, state: &Nodes, wanted: State) -> bool {
        self.machines(state)
            .any(|(_, machine)| machine.state() == wanted)
    }

    /// Visits every state; the number of them is printed, and must be this at least.
    fn check(self, what: &str, at_least: usize) {
        let checker = self.checker().threads(2).spawn_bfs().join();
        let (unique, depth) = (checker.unique_state_count(), checker.max_depth());
        println!("{what}: {unique} states, {depth} deep, all visited");
        checker.assert_properties();
        assert!(unique >= at_least, "{what}: only {unique} states");
    }
}

impl Model for World {
    type State = Nodes;
    type Action = Act;

    fn init_states(&self) -> Vec<Nodes> {
        let node = |at| Node {
            machine: Some(self.start(at, InForce::Demoted)),
            reckoned: Reckoned::new(false, &self.policy),
            stands: Stands::Demoted,
            answers: vec![None; self.size],
            grants: vec![None; self.size],
            is_together: false,
            broke: false,
        };
        let mut nodes: Nodes = (0..self.size).map(node).collect();
        self.retime(&mut nodes, self.base);
        vec![nodes]
    }

    fn actions(&self, state: &Nodes, acts: &mut Vec<Act>) {
        acts.push(Act::Tick);
        for (at, node) in state.iter().enumerate() {
            if node.machine.is_none() {
                acts.push(Act::Start(at));
                continue;
            }
            let said = [Said::Healthy, Said::Unhealthy, Said::Gone, Said::Unknown];
            acts.extend(said.map(|said| Act::Verdict(at, said)));
            if self.orders {
                let ordered = [Ordered::Demote, Ordered::Withdraw, Ordered::Lift];
                acts.extend(ordered.map(|ordered| Act::Order(at, ordered)));
            }
            if self.crashes {
                acts.extend([Act::Crash(at), Act::Expiry(at)]);
            }
            if self.late {
                acts.push(Act::Apply(at));
            }
            if self.policy.turns.is_some() {
                acts.extend([Act::Turn(at), Act::Wait(at, true), Act::Wait(at, false)]);
            }
            for other in (0..self.size).filter(|other| *other != at) {
                let neighbour = (at + 1) % self.size == other;
                if self.asks() && (neighbour || !self.ring) {
                    acts.extend([Act::Ask(at, other), Act::Answer(at, other)]);
                }
                if self.reports {
                    acts.push(Act::Report(at, other));
                }
            }
        }
    }

    fn next_state(&self, last: &Nodes, act: Act) -> Option<Nodes> {
        let mut nodes = last.clone();
        self.happen(&mut nodes, act)?;
        self.retime(&mut nodes, self.base);
        Some(nodes)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always("F1", Self::f1),
            Property::always("F3", Self::f3),
            Property::always("F5", Self::f5),
            Property::always("F6", Self::f6),
            Property::always("F9", Self::f9),
            Property::always("F12", Self::f12),
            Property::always("all recover", Self::recovers),
            Property::sometimes("all are preferred", |_, nodes: &Nodes| {
                nodes.iter().all(|node| node.stands == Stands::Preferred)
            }),
        ];
        if self.asks() {
            let yields = |world: &Self, nodes: &Nodes| world.some(nodes, State::Yielded);
            properties.push(Property::sometimes("one yields", yields));
        }
        if self.reports {
            let holds =
                |world: &Self, nodes: &Nodes| world.some(nodes, State::Auto(Standing::Held));
            properties.push(Property::sometimes("one holds", holds));
        }
        if self.policy.turns.is_some() {
            let joins =
                |world: &Self, nodes: &Nodes| world.some(nodes, State::Auto(Standing::Queued));
            let leaves =
                |world: &Self, nodes: &Nodes| world.some(nodes, State::Auto(Standing::Leaving));
            properties.push(Property::sometimes("one waits to join", joins));
            properties.push(Property::sometimes("one waits to leave", leaves));
        }
        if self.orders {
            let drained = |world: &Self, nodes: &Nodes| world.some(nodes, State::Drained);
            properties.push(Property::sometimes("one is drained", drained));
        }
        properties
    }
}

impl Machine {
    /// The same machine, told in other times and without what only people read.
    fn retime(&mut self, now: Instant, to: &dyn Fn(Instant) -> Instant) {
        for check in &mut self.checks {
            check.state.retime(now, &self.policy, to);
        }
        let moved = |until: &mut Option<Instant>| *until = until.map(to);
        match &mut self.intent {
            Intent::Auto => {}
            Intent::Demote { until, .. } | Intent::Withdraw { until, .. } => moved(until),
        }
        self.fleet.retime(now, &self.policy.panic, to);
        self.bucket.retime(now, &self.policy.budget, to);
        self.flaps.retime(now, to);
        self.turns.retime(to);
        if self.policy.panic.percent < 100 {
            moved(&mut self.failing_since);
        } else {
            self.failing_since = self.failing_since.map(|_| to(now));
        }
        (self.since, self.latest) = (to(now), to(now));
        self.reason = "told in the model".into();
        self.events.clear();
        self.due = self.next_due();
    }
}

fn plain() -> Policy {
    Policy {
        rise: NonZeroU32::MIN,
        fall: NonZeroU32::MIN,
        hold_down: Duration::ZERO,
        budget: Budget::OFF,
        flap: FlapPolicy::OFF,
        panic: PanicPolicy {
            percent: 100,
            within: TICK,
            fresh_for: TICK * 2,
        },
        fail_safe: FailSafe::Demote,
        turns: None,
    }
}

fn withdraw(min_peers: u16) -> FailSafe {
    FailSafe::Withdraw(WithdrawPolicy {
        min_peers: NonZeroU16::new(min_peers).unwrap(),
    })
}

fn world(size: usize, policy: Policy) -> World {
    World {
        size,
        policy,
        base: Instant::now(),
        orders: false,
        reports: false,
        crashes: false,
        late: false,
        ring: false,
        far: TICK * 4,
    }
}

#[test]
fn one_node_with_counts_a_hold_down_a_budget_and_orders() {
    let two = NonZeroU32::new(2).unwrap();
    let policy = Policy {
        rise: two,
        fall: two,
        hold_down: TICK * 2,
        budget: Budget {
            burst: two,
            refill: TICK * 2,
        },
        flap: FlapPolicy {
            limit: 2,
            window: TICK * 3,
            park_for: TICK * 2,
        },
        ..plain()
    };
    let world = World {
        orders: true,
        crashes: true,
        ..world(1, policy)
    };
    world.check("one node", 20_000);
}

#[test]
fn one_node_that_takes_turns() {
    let two = NonZeroU32::new(2).unwrap();
    let policy = Policy {
        rise: two,
        turns: Some(TurnPolicy {
            spacing: TICK,
            leave_within: TICK * 2,
        }),
        budget: Budget {
            burst: two,
            refill: TICK * 2,
        },
        ..plain()
    };
    let world = World {
        orders: true,
        crashes: true,
        ..world(1, policy)
    };
    world.check("one node that takes turns", 500);
}

#[test]
fn two_nodes_that_demote_hold_and_are_ordered() {
    let panic = PanicPolicy {
        percent: 50,
        fresh_for: TICK,
        ..plain().panic
    };
    let policy = Policy { panic, ..plain() };
    let world = World {
        orders: true,
        reports: true,
        far: TICK * 2,
        ..world(2, policy)
    };
    world.check("two nodes that demote", 20_000);
}

#[test]
fn two_nodes_that_withdraw_crash_and_have_late_announcers() {
    let policy = Policy {
        fail_safe: withdraw(1),
        ..plain()
    };
    let world = World {
        crashes: true,
        late: true,
        ..world(2, policy)
    };
    world.check("two nodes that withdraw", 40_000);
}

#[test]
fn three_nodes_that_withdraw_in_a_ring() {
    let policy = Policy {
        fail_safe: withdraw(1),
        ..plain()
    };
    let world = World {
        ring: true,
        far: TICK * 2,
        ..world(3, policy)
    };
    world.check("three nodes in a ring", 15_000);
}
