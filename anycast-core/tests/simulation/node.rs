//! One node: the pure parts that a real one is made of, stepped as the driver steps them, over
//! a kernel and a disk that outlive its process.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anycast_core::announce::{Applied, InForce, Preference, Role, WithdrawalCause};
use anycast_core::drain::{self, Drain};
use anycast_core::health::{Reason, Verdict};
use anycast_core::intent_store::{BootId, ClockReading, OrderKind, SavedIntent};
use anycast_core::invariants::{
    self, Announced, Consent, History, Input, Step, Violation, Watched,
};
use anycast_core::machine::{
    CheckId, CheckRule, FailSafe, Identity, Intent, MAX_GRANT, Machine, PeerReport, Policy,
    Standing, State,
};
use anycast_core::reconcile::{Action, Reconciler};
use anycast_core::testing::kernel::Kernel;
use anycast_core::{CheckName, NodeName, ServiceAddresses, ServiceName};

use crate::message::Message;

/// How long a boost lives without a decision.
pub(crate) const DEAD_MAN: Duration = Duration::from_secs(6);
pub(crate) const CHECKS: usize = 2;
const OBSERVE_EVERY: Duration = Duration::from_secs(5);
const DRAIN: drain::Settings = drain::Settings {
    confirm: Duration::from_secs(7),
    converge: Duration::from_secs(2),
    finish: Duration::from_secs(3),
};

/// A node's own idea of time: it starts anywhere and runs a little fast or slow.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    pub(crate) base: Instant,
    pub(crate) ahead: Duration,
    /// Ticks for a million microseconds.
    pub(crate) rate: u64,
}

impl Clock {
    /// What it shows at a true time, in microseconds.
    pub(crate) fn at(&self, time: u64) -> Instant {
        self.base + self.ahead + Duration::from_nanos(time * self.rate / 1000)
    }

    /// The first true time at which it shows `local`.
    pub(crate) fn when(&self, local: Instant) -> u64 {
        let passed = local.saturating_duration_since(self.base + self.ahead);
        let passed = u64::try_from(passed.as_nanos()).unwrap();
        (passed * 1000).div_ceil(self.rate)
    }
}

/// What is true of the service, whatever its checks say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Service {
    Well,
    Failing,
    Exited,
}

/// What is true of the checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Checker {
    Works,
    /// It cannot tell.
    Blind,
    /// It finds fault with everything.
    Wrong,
    /// Each time something else.
    Erratic,
}

/// What dies with the process.
pub(crate) struct Process {
    pub(crate) machine: Machine,
    pub(crate) reconciler: Reconciler,
    drain: Drain,
    last_step: Instant,
    history: History,
    /// The same inputs without the verdicts that are `Unknown` (F2).
    shadow: Machine,
    shadow_steps: Vec<Step>,
    /// Requests for grants under way, and when they were made.
    requests: BTreeMap<u64, Instant>,
    /// Grants reckoned apart from the machine.
    grants: BTreeMap<NodeName, Instant>,
    /// What was promised to others lasts until then.
    promised: Option<Instant>,
}

pub(crate) struct Node {
    pub(crate) name: NodeName,
    pub(crate) peers: Vec<NodeName>,
    pub(crate) role: Role,
    pub(crate) distance: u32,
    pub(crate) clock: Clock,
    pub(crate) policy: Policy,
    pub(crate) kernel: Kernel,
    disk: Option<SavedIntent>,
    pub(crate) process: Option<Process>,
    /// Counts processes: what an earlier one began is void.
    pub(crate) incarnation: u64,
    pub(crate) stalled_until: u64,
    pub(crate) service: Service,
    pub(crate) checker: Checker,
    pub(crate) announcer_fails: u64,
    pub(crate) announcer_slow: bool,
    pub(crate) wall: Duration,
    boot: u64,
    booted: Instant,
    /// Since the boot, over any number of processes.
    history: History,
    watched: Vec<Watched>,
    announced: Vec<Announced>,
    next_request: u64,
    drain_phase: drain::Phase,
}

pub(crate) fn addresses() -> ServiceAddresses {
    let list = ["192.0.2.69/32", "2001:db8::69/128"];
    ServiceAddresses::new(list.map(|a| a.parse().unwrap()).to_vec()).unwrap()
}

fn history(policy: Policy, adopted: bool) -> History {
    History {
        policy,
        checks: CHECKS,
        adopted,
        steps: Vec::new(),
    }
}

impl Node {
    pub(crate) fn new(
        name: NodeName,
        peers: Vec<NodeName>,
        place: (Role, u32),
        clock: Clock,
        policy: Policy,
    ) -> Self {
        Self {
            name,
            peers,
            role: place.0,
            distance: place.1,
            clock,
            policy,
            kernel: Kernel::bare(addresses(), DEAD_MAN),
            disk: None,
            process: None,
            incarnation: 0,
            stalled_until: 0,
            service: Service::Well,
            checker: Checker::Works,
            announcer_fails: 0,
            announcer_slow: false,
            wall: Duration::from_secs(1_700_000_000),
            boot: 0,
            booted: clock.at(0),
            history: history(policy, false),
            watched: Vec::new(),
            announced: Vec::new(),
            next_request: 0,
            drain_phase: drain::Phase::Idle,
        }
    }

    fn clocks(&self, now: Instant) -> ClockReading {
        let boottime = now - self.booted;
        ClockReading {
            boot: BootId::new(&format!("boot-{}", self.boot)),
            boottime,
            wall: self.wall + boottime,
        }
    }

    fn rules() -> Vec<CheckRule> {
        let name = |n| CheckName::new(&format!("check{n}")).unwrap().into();
        (0..CHECKS).map(name).collect()
    }

    /// A process starts: it restores an order, and adopts what it finds.
    pub(crate) fn start(&mut self, time: u64) {
        let now = self.clock.at(time);
        let observed = self.kernel.observe(now).agreed();
        let identity = Identity {
            service: ServiceName::new("tftp").unwrap(),
            addresses: addresses(),
            role: self.role,
        };
        let machine = Machine::new(identity, self.policy, &Self::rules(), observed, now).unwrap();
        let machine = machine.with_members(&self.peers);
        let clocks = self.clocks(now);
        self.disk = self.disk.take().and_then(|saved| saved.restore(&clocks));
        let intent = self.disk.as_ref().map_or(Intent::Auto, |saved| {
            to_intent(saved, saved.left(&clocks).map(|left| now + left))
        });
        let adopting = observed == Some(InForce::Preferred);
        let mut reconciler = Reconciler::new(self.kernel.capabilities(), OBSERVE_EVERY);
        if adopting {
            reconciler = reconciler.adopting();
        }
        self.process = Some(Process {
            shadow: machine.clone(),
            machine,
            reconciler,
            drain: Drain::new(DRAIN, now),
            last_step: now,
            history: history(self.policy, adopting),
            shadow_steps: Vec::new(),
            requests: BTreeMap::new(),
            grants: BTreeMap::new(),
            promised: None,
        });
        let first = self.history.steps.is_empty();
        self.feed(now, &Input::Intent(intent), first);
        if !first {
            self.note(now, Input::Restart);
        }
    }

    /// The process is killed.
    pub(crate) fn kill(&mut self, time: u64) -> Result<(), Violation> {
        let judged = self.judge_process();
        self.process = None;
        self.incarnation += 1;
        self.watch(time);
        judged
    }

    /// The host goes down and comes up again: the kernel forgets, the disk does not.
    pub(crate) fn reboot(&mut self, time: u64) -> Result<(), Violation> {
        self.judge()?;
        self.process = None;
        self.incarnation += 1;
        self.boot += 1;
        self.wall += self.clock.at(time) - self.booted;
        self.booted = self.clock.at(time);
        self.kernel = Kernel::bare(addresses(), DEAD_MAN);
        self.history = history(self.policy, false);
        self.watched.clear();
        self.announced.clear();
        Ok(())
    }

    /// An operator orders something; it is kept before it is obeyed.
    pub(crate) fn order(&mut self, time: u64, order: Option<(OrderKind, Option<Duration>)>) {
        let now = self.clock.at(time);
        if self.process.is_none() {
            return;
        }
        let clocks = self.clocks(now);
        self.disk = order.map(|(kind, lasts)| {
            SavedIntent::new(kind, "work".into(), "alice".into(), lasts, &clocks)
        });
        let intent = match (&self.disk, order) {
            (Some(saved), Some((_, lasts))) => to_intent(saved, lasts.map(|lasts| now + lasts)),
            _ => Intent::Auto,
        };
        self.hear(now, &Input::Intent(intent));
    }

    /// The machine hears something, after all that was due before; everything is noted.
    pub(crate) fn hear(&mut self, now: Instant, input: &Input) {
        self.feed(now, input, true);
    }

    fn feed(&mut self, now: Instant, input: &Input, on_boot_history: bool) {
        let Some(process) = &mut self.process else {
            return;
        };
        let mut steps = Vec::new();
        while let Some((due, _)) = process.machine.poll_timeout()
            && due <= now
        {
            process.machine.handle_timeout(due);
            steps.push(step(due, Input::Timeout, &process.machine));
        }
        process.machine.handle(now, input);
        steps.push(step(now, input.clone(), &process.machine));
        let known = |step: &&Step| !matches!(step.input, Input::Verdict(_, Verdict::Unknown(_)));
        for step in steps.iter().filter(known) {
            process.shadow.handle(step.at, &step.input);
            let preference = process.shadow.preference();
            process.shadow_steps.push(Step {
                preference,
                ..step.clone()
            });
        }
        if on_boot_history {
            self.history.steps.extend(steps.iter().cloned());
        }
        process.history.steps.extend(steps);
    }

    fn note(&mut self, now: Instant, input: Input) {
        if let Some(process) = &self.process {
            self.history.steps.push(step(now, input, &process.machine));
        }
    }

    /// A probe of one check.
    pub(crate) fn probe(&mut self, now: Instant, check: usize, odd: bool) {
        let verdict = match (self.checker, self.service) {
            (Checker::Blind, _) => Verdict::unknown("EMFILE"),
            (Checker::Wrong, _) => Verdict::unhealthy("no answer"),
            (Checker::Erratic, _) if odd => Verdict::unhealthy("no answer"),
            (Checker::Erratic, _) => Verdict::Healthy,
            (Checker::Works, Service::Well) => Verdict::Healthy,
            (Checker::Works, Service::Failing) => Verdict::unhealthy("no answer"),
            (Checker::Works, Service::Exited) => Verdict::gone("exited"),
        };
        self.hear(now, &Input::Verdict(CheckId::new(check), verdict));
    }

    /// What the node tells its peers of itself.
    pub(crate) fn report(&self, now: Instant) -> Option<Message> {
        let machine = &self.process.as_ref()?.machine;
        Some(Message::State {
            preferred: machine.preference() == Preference::Preferred,
            draining: *machine.intent() != Intent::Auto,
            failing_for: machine
                .failing_since()
                .map(|since| now.saturating_duration_since(since)),
        })
    }

    /// A request for consent, where one is of use; or an `eager` one, where it is not.
    pub(crate) fn request(
        &mut self,
        now: Instant,
        duration: Duration,
        eager: bool,
    ) -> Option<Message> {
        let asks = matches!(self.policy.fail_safe, FailSafe::Withdraw(_));
        let process = self.process.as_mut().filter(|_| asks)?;
        let fails = process.machine.failing_since().is_some();
        if !(process.machine.wants_grants() || (eager && fails)) {
            return None;
        }
        self.next_request += 1;
        process.requests.insert(self.next_request, now);
        if process.requests.len() > 8 {
            process.requests.pop_first();
        }
        Some(Message::Request {
            id: (self.incarnation << 32) + self.next_request,
            duration,
        })
    }

    /// A message of a peer arrives; the answer goes back to it.
    pub(crate) fn receive(
        &mut self,
        now: Instant,
        from: usize,
        message: &Message,
    ) -> Option<Message> {
        let peer = crate::world::name(from);
        self.process.as_ref()?;
        match *message {
            Message::State {
                preferred,
                draining,
                failing_for,
            } => {
                let report = PeerReport {
                    heard_at: now,
                    preferred,
                    draining,
                    failing_since: failing_for.map(|age| now - age),
                };
                self.hear(now, &Input::Peer(peer, report));
                None
            }
            Message::Request { id, duration } => self.grant(now, peer, id, duration),
            Message::Grant { id, duration } => {
                let process = self.process.as_mut()?;
                if id >> 32 != self.incarnation {
                    return None;
                }
                let asked = *process.requests.get(&(id & 0xffff_ffff))?;
                let until = asked + duration;
                if until > now {
                    process
                        .grants
                        .insert(peer.clone(), until.min(now + MAX_GRANT));
                } else {
                    process.grants.remove(&peer);
                }
                self.hear(now, &Input::Grant(peer, until));
                None
            }
        }
    }

    fn grant(
        &mut self,
        now: Instant,
        peer: NodeName,
        id: u64,
        duration: Duration,
    ) -> Option<Message> {
        let process = self.process.as_ref()?;
        let refusal = Message::Grant {
            id,
            duration: Duration::ZERO,
        };
        if !process.reconciler.is_in_force(Preference::Preferred) {
            return Some(refusal);
        }
        self.hear(now, &Input::GrantRequest(peer.clone(), duration));
        let process = self.process.as_mut()?;
        // Asked twice, as the driver does: the same promise.
        let Some(granted) = process.machine.handle_grant_request(now, peer, duration) else {
            return Some(refusal);
        };
        process.promised = process.promised.max(Some(now + granted));
        let duration = granted;
        Some(Message::Grant { id, duration })
    }

    /// One decision step, as the driver makes it; what is to be done comes back.
    pub(crate) fn step(&mut self, time: u64) -> Option<Action> {
        let now = self.clock.at(time);
        let process = self.process.as_mut()?;
        let pause = now.saturating_duration_since(process.last_step);
        process.last_step = now;
        let preferred = process.machine.preference() == Preference::Preferred;
        let expired = pause > DEAD_MAN || (preferred && process.reconciler.has_run_out(now));
        self.hear(
            now,
            if expired {
                &Input::Expiry
            } else {
                &Input::Timeout
            },
        );
        let process = self.process.as_mut()?;
        if let Some(decision) = process.machine.decide(now) {
            process.reconciler.handle_decision(decision);
        }
        process.follow_drain(now);
        self.drain_phase = process.drain.phase();
        process.reconciler.poll_action(now)
    }

    pub(crate) const fn drain_phase(&self) -> drain::Phase {
        self.drain_phase
    }

    /// The true time of the next step, if nothing happens before.
    pub(crate) fn next_wake(&self) -> Option<u64> {
        let process = self.process.as_ref()?;
        let due = process.machine.poll_timeout().into_iter();
        let due = due.chain(process.reconciler.poll_timeout());
        let due = due.chain(process.drain.poll_timeout()).map(|(at, _)| at);
        let beat = process.last_step + DEAD_MAN / 3;
        due.chain([beat]).min().map(|at| self.clock.when(at))
    }

    pub(crate) fn applied(&mut self, now: Instant, outcome: Result<Applied, Reason>) {
        if let Some(process) = &mut self.process {
            process.reconciler.handle_applied(now, outcome);
        }
    }

    pub(crate) fn observed(&mut self, now: Instant, fails: bool) {
        let seen = self.kernel.observe(now);
        let Some(process) = &mut self.process else {
            return;
        };
        let outcome = if fails { Err("busy".into()) } else { Ok(seen) };
        process.reconciler.handle_observed(now, outcome);
        if process.reconciler.take_lost_adoption() {
            self.hear(now, &Input::Expiry);
        }
    }

    pub(crate) fn disturbed(&mut self, now: Instant) {
        if let Some(process) = &mut self.process {
            process.reconciler.handle_disturbed(now);
        }
    }

    /// Whether it is preferred, decided and in force.
    pub(crate) fn is_well(&self, time: u64) -> bool {
        self.state() == Some(State::Auto(Standing::Healthy))
            && self.kernel.state(self.clock.at(time)).preferred
    }

    pub(crate) fn explain(&self) -> String {
        self.process.as_ref().map_or_else(
            || "dead".to_owned(),
            |p| {
                let (state, reason) = (p.machine.state(), p.machine.reason());
                format!("{state} ({reason}), {:?}", p.reconciler.confirmation())
            },
        )
    }

    pub(crate) fn state(&self) -> Option<State> {
        self.process.as_ref().map(|p| p.machine.state())
    }

    pub(crate) fn yields_in_force(&self) -> bool {
        self.kernel.withdrawn() == Some(WithdrawalCause::Peers)
    }

    /// What an outsider sees now.
    pub(crate) fn watch(&mut self, time: u64) {
        let at = self.clock.at(time);
        let seen = self.kernel.state(at);
        self.watched.push(Watched {
            at,
            alive: self.process.is_some() && time >= self.stalled_until,
            preferred: seen.preferred,
            withdrawn: seen.withdrawn,
        });
        self.announced.push(self.kernel.announced(at));
    }

    /// F5 on this node, after a step of it, with grants reckoned apart from the machine.
    pub(crate) fn judge_consent(&self, now: Instant) -> Result<(), Violation> {
        let (Some(process), FailSafe::Withdraw(rule)) = (&self.process, self.policy.fail_safe)
        else {
            return Ok(());
        };
        let yielded = process.machine.state() == State::Yielded;
        if yielded && process.promised.is_some_and(|until| now < until) {
            return Err(Violation {
                rule: "F5",
                what: format!("{} broke a promise", self.name),
            });
        }
        let here = Consent {
            node: self.name.clone(),
            yielded,
            grants: process.grants.values().filter(|at| **at > now).count(),
        };
        let elsewhere = Consent {
            yielded: false,
            ..here.clone()
        };
        let needed = usize::from(rule.min_peers.get());
        invariants::f5_withdraws_with_consent(&[here, elsewhere], needed)
    }

    /// The rules that are about the history of one process, and of one boot.
    pub(crate) fn judge(&self) -> Result<(), Violation> {
        self.judge_process()?;
        invariants::f1_never_withdraws_unordered(&self.history)?;
        invariants::f4_budget(&self.history)?;
        invariants::f9_order_outranks_health(&self.history)?;
        invariants::f7_permanent_copy(&self.announced)?;
        invariants::f8_dead_man(&self.watched, DEAD_MAN)
    }

    fn judge_process(&self) -> Result<(), Violation> {
        let Some(process) = &self.process else {
            return Ok(());
        };
        let steps = process.shadow_steps.clone();
        let without = History {
            steps,
            ..history(self.policy, process.history.adopted)
        };
        invariants::f2_unknown_is_neutral(&process.history, &without)?;
        invariants::f3_hysteresis(&process.history)
    }

    /// A reload that finds no check in its file.
    pub(crate) fn reload_nothing(&mut self, now: Instant) -> Result<(), Violation> {
        let Some(process) = &mut self.process else {
            return Ok(());
        };
        let names = |m: &Machine| {
            m.checks()
                .map(|(name, ..)| name.clone())
                .collect::<Vec<_>>()
        };
        let (before, listed) = (names(&process.machine), []);
        let refused = process.machine.handle_checks(now, &listed).is_err();
        assert!(refused, "an empty list of checks was taken");
        let after = names(&process.machine);
        let removed: Vec<_> = before.iter().filter(|name| !after.contains(name)).collect();
        invariants::f10_empty_list_removes_nothing(Some(&listed), &removed)
    }
}

impl Process {
    fn follow_drain(&mut self, now: Instant) {
        match self.machine.intent() {
            Intent::Auto => self.drain.handle_cancel(now),
            Intent::Demote { reason, .. } | Intent::Withdraw { reason, .. } => {
                self.drain.handle_begin(now, reason);
            }
        }
        let preference = self.machine.preference();
        let lowered = preference != Preference::Preferred && self.reconciler.is_settled(preference);
        self.drain.handle_lowered(now, lowered);
        self.drain.handle_timeout(now);
    }
}

fn step(at: Instant, input: Input, machine: &Machine) -> Step {
    Step {
        at,
        input,
        preference: machine.preference(),
    }
}

fn to_intent(saved: &SavedIntent, until: Option<Instant>) -> Intent {
    let (reason, by) = (saved.reason.clone(), saved.by.clone());
    match saved.order {
        OrderKind::Demote => Intent::Demote { reason, by, until },
        OrderKind::Withdraw => Intent::Withdraw { reason, by, until },
    }
}
