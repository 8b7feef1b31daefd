//! The fleet, the network between its nodes, and all that befalls them, in virtual time.

use std::collections::{BTreeMap, VecDeque};
use std::num::{NonZeroU8, NonZeroU16, NonZeroU32};
use std::time::{Duration, Instant};

use anycast_core::announce::{Applied, Level, Role};
use anycast_core::invariants::{self, Consent, Site, Violation};
use anycast_core::machine::{
    Budget, FailSafe, FlapPolicy, PanicPolicy, Policy, Standing, State, WithdrawPolicy,
};
use anycast_core::reconcile::Action;
use anycast_core::{NodeName, drain};

use crate::message::Message;
use crate::node::{CHECKS, Checker, Clock, Node, Service};
use crate::rng::Rng;

/// Microseconds.
pub(crate) const MS: u64 = 1000;
pub(crate) const SECOND: u64 = 1000 * MS;
const TAIL: usize = 60;

pub(crate) fn name(index: usize) -> NodeName {
    NodeName::new(&format!("node{index}")).unwrap()
}

#[derive(Debug, Clone)]
enum Event {
    Wake,
    Probe(usize),
    Gossip,
    /// A write or a look of the announcer takes effect.
    Effect(Action),
    Deliver(usize, Message),
    Start,
    Look,
    Chaos,
}

/// What a run is like; how often each thing happened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting {
    pub(crate) seed: u64,
    /// Wall clocks jump.
    pub(crate) jumps: bool,
    pub(crate) reboots: bool,
    pub(crate) tracing: bool,
    /// How long things go wrong.
    pub(crate) chaos: u64,
}

/// How often the interesting things happened: a simulation in which they never do is vacuous.
pub(crate) type Counts = BTreeMap<&'static str, u64>;

/// A broken rule, and how it came to that.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) violation: Violation,
    pub(crate) tail: Vec<String>,
}

pub(crate) struct World {
    pub(crate) setting: Setting,
    pub(crate) rng: Rng,
    pub(crate) now: u64,
    seq: u64,
    queue: BTreeMap<(u64, u64), (usize, u64, Event)>,
    pub(crate) nodes: Vec<Node>,
    /// Which side of a partition each node is on.
    pub(crate) side: Vec<bool>,
    pub(crate) loss: u64,
    pub(crate) delay: u64,
    pub(crate) counts: Counts,
    trace: VecDeque<String>,
    states: Vec<Option<State>>,
    /// When each node is to be woken next; another time is out of date.
    wakes: Vec<Option<u64>>,
    policy: Policy,
}

fn policy(rng: &mut Rng) -> Policy {
    let seconds = Duration::from_secs;
    let withdraw = WithdrawPolicy {
        min_peers: NonZeroU16::new(rng.pick(&[1, 1, 2])).unwrap(),
    };
    Policy {
        fail_safe: rng.pick(&[FailSafe::Demote, FailSafe::Withdraw(withdraw)]),
        rise: NonZeroU32::new(rng.pick(&[1, 2, 3])).unwrap(),
        fall: NonZeroU32::new(rng.pick(&[1, 2, 3])).unwrap(),
        hold_down: seconds(rng.range(0, 5)),
        budget: Budget {
            burst: NonZeroU32::new(rng.pick(&[1, 2, 3, 5])).unwrap(),
            refill: seconds(rng.pick(&[0, 2, 8, 20])),
        },
        flap: FlapPolicy {
            limit: rng.pick(&[0, 2, 3]),
            window: seconds(rng.range(10, 60)),
            park_for: seconds(rng.range(5, 40)),
        },
        panic: PanicPolicy {
            percent: rng.pick(&[30, 50, 100, 100]),
            within: seconds(rng.range(5, 30)),
            fresh_for: seconds(rng.range(4, 10)),
        },
        turns: None,
    }
}

impl World {
    pub(crate) fn new(base: Instant, setting: Setting) -> Self {
        let mut rng = Rng::new(setting.seed);
        let size = usize::try_from(rng.range(3, 7)).unwrap();
        let policy = policy(&mut rng);
        let mut nodes = Vec::new();
        for index in 0..size {
            let peers = (0..size).filter(|n| *n != index).map(name).collect();
            let backup = NonZeroU8::new(u8::try_from(rng.range(1, 12)).unwrap()).unwrap();
            let role = rng.pick(&[Role::Primary, Role::Primary, Role::Backup(backup)]);
            let distance = u32::try_from(rng.range(1, 4)).unwrap();
            let clock = Clock {
                base,
                ahead: Duration::from_secs(rng.range(1000, 1_000_000)),
                rate: rng.range(990_000, 1_010_000),
            };
            nodes.push(Node::new(
                name(index),
                peers,
                (role, distance),
                clock,
                policy,
            ));
        }
        let mut world = Self {
            setting,
            rng,
            now: 0,
            seq: 0,
            queue: BTreeMap::new(),
            side: vec![false; size],
            loss: 0,
            delay: 20 * MS,
            counts: Counts::new(),
            trace: VecDeque::new(),
            states: vec![None; size],
            wakes: vec![None; size],
            nodes,
            policy,
        };
        for index in 0..size {
            let after = world.rng.range(0, 3 * SECOND);
            world.push(after, index, Event::Start);
        }
        world.push(SECOND, 0, Event::Look);
        world.push(10 * SECOND, 0, Event::Chaos);
        world
    }

    /// Things go wrong, then heal; every rule holds throughout, and all are preferred again.
    pub(crate) fn run(&mut self) -> Result<(), Failure> {
        self.try_run().map_err(|violation| Failure {
            violation,
            tail: self.trace.iter().cloned().collect(),
        })
    }

    fn try_run(&mut self) -> Result<(), Violation> {
        self.until(self.setting.chaos)?;
        self.heal()?;
        // Longest: a whole parking, or two tokens; then a rise and a hold-down.
        let refill = self.policy.budget.refill * 3;
        let longest = refill.max(self.policy.flap.park_for) + self.policy.hold_down;
        let longest = u64::try_from(longest.as_micros()).unwrap() + 30 * SECOND;
        self.until(self.now + longest)?;
        for _ in 0..20 {
            self.until(self.now + SECOND / 2)?;
            if let Some(node) = self.nodes.iter().find(|node| !node.is_well(self.now)) {
                return Err(Violation {
                    rule: "liveness",
                    what: format!(
                        "{} is not preferred after all has healed: {}",
                        node.name,
                        node.explain()
                    ),
                });
            }
        }
        self.nodes.iter().try_for_each(Node::judge)
    }

    /// After all has healed: each node dies and is back before its boost has run out. No route
    /// changes (F8).
    pub(crate) fn restart_quietly(&mut self) -> Result<(), Failure> {
        for index in 0..self.nodes.len() {
            let killed = self.nodes[index].kill(self.now);
            let after = self.rng.range(1, 1500 * MS);
            self.push(after, index, Event::Start);
            // Each probe is answered within a second, before the boost ends.
            let run = killed.and_then(|()| {
                for _ in 0..100 {
                    self.until(self.now + 100 * MS)?;
                    let seen = self.nodes[index]
                        .kernel
                        .state(self.nodes[index].clock.at(self.now));
                    if !seen.preferred {
                        return Err(Violation {
                            rule: "F8",
                            what: format!("{} lost its boost over a quick restart", name(index)),
                        });
                    }
                }
                Ok(())
            });
            run.map_err(|violation| Failure {
                violation,
                tail: self.trace.iter().cloned().collect(),
            })?;
        }
        Ok(())
    }

    fn push(&mut self, after: u64, index: usize, event: Event) {
        self.seq += 1;
        let entry = (index, self.nodes[index].incarnation, event);
        self.queue.insert((self.now + after, self.seq), entry);
    }

    fn until(&mut self, end: u64) -> Result<(), Violation> {
        while let Some((&(at, seq), _)) = self.queue.first_key_value()
            && at <= end
        {
            let Some((index, incarnation, event)) = self.queue.remove(&(at, seq)) else {
                break;
            };
            self.now = at;
            self.happen(index, incarnation, event)?;
        }
        self.now = end;
        Ok(())
    }

    pub(crate) fn tell(&mut self, what: impl FnOnce() -> String) {
        if self.setting.tracing {
            if self.trace.len() == TAIL {
                self.trace.pop_front();
            }
            let line = format!("{:>10.3} s  {}", self.now as f64 / 1e6, what());
            self.trace.push_back(line);
        }
    }

    pub(crate) fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn happen(&mut self, index: usize, incarnation: u64, event: Event) -> Result<(), Violation> {
        match event {
            Event::Look => {
                for node in &mut self.nodes {
                    node.watch(self.now);
                }
                self.push(500 * MS, 0, Event::Look);
                return self.judge_fleet();
            }
            Event::Chaos => {
                if self.now < self.setting.chaos {
                    self.misfortune()?;
                    let after = self.rng.range(500 * MS, 6 * SECOND);
                    self.push(after, 0, Event::Chaos);
                }
                return Ok(());
            }
            Event::Start => {
                if self.nodes[index].process.is_none() {
                    self.start(index);
                    self.follow(index)?;
                }
                return Ok(());
            }
            Event::Wake
            | Event::Probe(_)
            | Event::Gossip
            | Event::Effect(_)
            | Event::Deliver(..) => {}
        }
        if matches!(event, Event::Wake) {
            if self.wakes[index] != Some(self.now) {
                return Ok(());
            }
            self.wakes[index] = None;
        }
        let node = &self.nodes[index];
        let of_this_process =
            node.incarnation == incarnation || matches!(event, Event::Deliver(..));
        if node.process.is_none() || !of_this_process {
            return Ok(());
        }
        if node.stalled_until > self.now {
            let wait = node.stalled_until - self.now;
            if matches!(event, Event::Wake) {
                self.wakes[index] = Some(self.now + wait);
            }
            self.push(wait, index, event);
            return Ok(());
        }
        self.run_event(index, event);
        self.follow(index)
    }

    fn start(&mut self, index: usize) {
        self.count("start");
        let now = self.now;
        let node = &mut self.nodes[index];
        node.stalled_until = 0;
        node.start(now);
        if node.state() == Some(State::Auto(Standing::Adopted)) {
            self.count("adopted");
        }
        self.tell(|| format!("node{index} starts"));
        for check in 0..CHECKS {
            let after = self.rng.range(1, SECOND);
            self.push(after, index, Event::Probe(check));
        }
        let after = self.rng.range(1, SECOND);
        self.push(after, index, Event::Gossip);
    }

    fn run_event(&mut self, index: usize, event: Event) {
        let now = self.nodes[index].clock.at(self.now);
        match event {
            Event::Probe(check) => {
                let odd = self.rng.chance(50);
                self.nodes[index].probe(now, check, odd);
                let after = self.rng.range(900 * MS, 1100 * MS);
                self.push(after, index, Event::Probe(check));
            }
            Event::Gossip => {
                let report = self.nodes[index].report(now);
                self.broadcast(index, report);
                if self.rng.chance(50) {
                    let lasts = Duration::from_millis(self.rng.range(3000, 40_000));
                    let eager = self.rng.chance(50);
                    let request = self.nodes[index].request(now, lasts, eager);
                    self.broadcast(index, request);
                }
                let after = self.rng.range(1500 * MS, 2500 * MS);
                self.push(after, index, Event::Gossip);
            }
            Event::Deliver(from, message) => {
                if let Some(answer) = self.nodes[index].receive(now, from, &message) {
                    let refused =
                        matches!(answer, Message::Grant { duration, .. } if duration.is_zero());
                    self.count(if refused { "refusal" } else { "grant" });
                    self.tell(|| format!("node{index} grants to node{from}: {answer:?}"));
                    self.send(index, from, answer);
                }
            }
            Event::Effect(Action::Observe) => {
                let fails = self.rng.chance(self.nodes[index].announcer_fails);
                self.nodes[index].observed(now, fails);
            }
            Event::Effect(Action::Apply(decision)) => {
                let node = &mut self.nodes[index];
                let writes = match node.announcer_fails {
                    fails if self.rng.chance(fails) => self.rng.range(0, 2),
                    _ => 3,
                };
                let writes = u32::try_from(writes).unwrap();
                let before = node.kernel.state(now);
                let outcome = match node.kernel.apply_partly(now, &decision, writes) {
                    Ok(()) if writes == 3 => Ok(Applied::Confirmed),
                    Ok(()) => Err("netlink is busy".into()),
                    Err(stale) => Err(stale.to_string().into()),
                };
                let changed = before != node.kernel.state(now);
                let text = format!("{outcome:?}");
                node.applied(now, outcome);
                if changed || writes < 3 {
                    self.tell(|| format!("node{index} applies {}: {text}", decision.preference()));
                }
            }
            Event::Wake | Event::Start | Event::Look | Event::Chaos => {}
        }
    }

    /// One decision step of a node after whatever happened to it, and every rule.
    pub(crate) fn follow(&mut self, index: usize) -> Result<(), Violation> {
        let now = self.now;
        let local = self.nodes[index].clock.at(now);
        if let Some(action) = self.nodes[index].step(now) {
            let slow = if self.nodes[index].announcer_slow {
                3 * SECOND
            } else {
                20 * MS
            };
            let after = self.rng.range(0, slow);
            self.push(after, index, Event::Effect(action));
        }
        if let Some(at) = self.nodes[index].next_wake() {
            // Never at once: a real loop takes its time, too, and a loop that does not end shows.
            let at = at.max(now + MS);
            if self.wakes[index] != Some(at) {
                self.wakes[index] = Some(at);
                self.push(at - now, index, Event::Wake);
            }
        }
        let state = self.nodes[index].state();
        if state != self.states[index] {
            self.states[index] = state;
            self.count(kind(state));
            let text = self.setting.tracing.then(|| self.nodes[index].explain());
            self.tell(|| format!("node{index} is {}", text.unwrap_or_default()));
        }
        if self.nodes[index].drain_phase() == drain::Phase::Done {
            self.count("drained to the end");
        }
        self.nodes[index].watch(now);
        self.nodes[index].judge_consent(local)?;
        if self.setting.tracing {
            self.nodes[index].judge()?;
        }
        self.judge_fleet()
    }

    /// F5 and F6 on what is in force everywhere.
    fn judge_fleet(&self) -> Result<(), Violation> {
        let consent = |node: &Node| Consent {
            node: node.name.clone(),
            yielded: node.yields_in_force(),
            grants: 0,
        };
        let consents: Vec<_> = self.nodes.iter().map(consent).collect();
        if consents.iter().all(|consent| consent.yielded) {
            invariants::f5_withdraws_with_consent(&consents, 0)?;
        }
        let sites = self.nodes.iter().filter_map(|node| {
            let seen = node.kernel.state(node.clock.at(self.now));
            let level = if seen.preferred {
                Level::Preferred
            } else {
                Level::Demoted
            };
            let (role, distance) = (node.role, node.distance);
            (!seen.withdrawn).then_some(Site {
                level,
                role,
                distance,
            })
        });
        invariants::f6_same_best_path(&sites.collect::<Vec<_>>())
    }

    fn broadcast(&mut self, from: usize, message: Option<Message>) {
        let Some(message) = message else { return };
        for to in 0..self.nodes.len() {
            if to != from {
                self.send(from, to, message);
            }
        }
    }

    /// Loses, delays (and so reorders) and duplicates.
    fn send(&mut self, from: usize, to: usize, message: Message) {
        if self.side[from] != self.side[to] {
            return;
        }
        let copies = if self.rng.chance(self.loss / 2) { 2 } else { 1 };
        for _ in 0..copies {
            if !self.rng.chance(self.loss) {
                let after = self.rng.range(1, self.delay);
                self.push(after, to, Event::Deliver(from, message));
            }
        }
    }

    /// A host or a process is to start later.
    pub(crate) fn start_later(&mut self, index: usize, after: u64) {
        self.push(after, index, Event::Start);
    }

    fn heal(&mut self) -> Result<(), Violation> {
        self.tell(|| "all heals".to_owned());
        self.side.fill(false);
        (self.loss, self.delay) = (0, 20 * MS);
        for index in 0..self.nodes.len() {
            let node = &mut self.nodes[index];
            (node.service, node.checker) = (Service::Well, Checker::Works);
            (node.announcer_fails, node.announcer_slow) = (0, false);
            node.stalled_until = node.stalled_until.min(self.now);
            if node.process.is_none() {
                self.start(index);
            }
            // An operator lifts what was ordered, and what was restored.
            self.nodes[index].order(self.now, None);
            self.follow(index)?;
        }
        Ok(())
    }
}

const fn kind(state: Option<State>) -> &'static str {
    match state {
        None => "dead",
        Some(State::Auto(standing)) => match standing {
            Standing::Adopted => "adopted",
            Standing::Healthy => "healthy",
            Standing::Held => "held",
            Standing::Queued => "queued",
            Standing::Leaving => "leaving",
            Standing::Waiting => "waiting",
            Standing::Parked => "parked",
            Standing::Unready => "unready",
            Standing::Rising => "rising",
            Standing::Failed => "failed",
        },
        Some(State::Yielded) => "yielded",
        Some(State::Drained) => "drained",
        Some(State::Withdrawn) => "withdrawn",
    }
}

/// Checks of one kind everywhere, or of one node.
pub(crate) const CHECKERS: [Checker; 6] = [
    Checker::Works,
    Checker::Works,
    Checker::Works,
    Checker::Blind,
    Checker::Wrong,
    Checker::Erratic,
];
