//! The decision loop of one service.

mod stop;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use super::announcer::{self, Report};
use super::begin::{Begin, Wishes};
use super::checks::{self, CheckSpec, Reports, Spoken};
use super::inputs::{self, Recorded};
use super::orders::Orders;
use super::probes::Places;
use super::spec;
use super::status::Snapshot;
use super::{
    AbortOnDrop, Command, InFlight, NodeError, OnStop, ServiceSpec, VERDICT_QUEUE, now, spawn,
};
use crate::announce::{InForce, Preference};
use crate::drain::{self, Drain};
use crate::health::Verdict;
use crate::health::unknown::{Episodes, Tell};
use crate::machine::{Event, Input, Machine, Phase, Policy, Readiness};
use crate::reconcile::{Action, Confirmation, Reconciler};
use crate::service::{CheckName, NodeName, ServiceName};

/// Runs one service until it is told to stop or its node is dropped.
pub(super) async fn run(
    node: NodeName,
    mut spec: ServiceSpec,
    places: Arc<Places>,
    mut commands: mpsc::Receiver<Command>,
    drain_settings: watch::Receiver<drain::Settings>,
    publish: watch::Sender<Snapshot>,
) {
    let mut begin = Begin {
        wishes: Wishes::of(&mut spec),
        commands: &mut commands,
        publish: &publish,
    };
    let Some(observed) = begin.adopt(&mut spec).await else {
        tracing::warn!(
            service = %spec.identity.service,
            "stopped before what is in force could be observed; it stays as it is"
        );
        return;
    };
    let wishes = begin.wishes;
    let rules = checks::rules(&wishes.checks);
    let identity = spec.identity.clone();
    let start = now();
    let readiness: Vec<_> = spec.readiness.iter().map(|r| r.name.clone()).collect();
    let machine = match Machine::new(identity, wishes.policy, &rules, observed, start) {
        Ok(machine) => machine
            .with_members(&spec.members)
            .with_readiness(&readiness),
        Err(error) => {
            tracing::error!(%error, "the service cannot be started");
            return;
        }
    };
    let mut machine = Recorded::new(machine, &node, observed, start);
    machine.hear(now(), &Input::Intent(wishes.orders.intent()));
    let (listening, ready) = inputs::listen(std::mem::take(&mut spec.readiness));
    let capabilities = spec.announcer.capabilities();
    let mut reconciler = Reconciler::new(capabilities, spec.observe_every);
    if observed == Some(InForce::Preferred) {
        reconciler = reconciler.adopting();
    }
    let (verdicts, heard) = mpsc::channel(VERDICT_QUEUE);
    let (actions, to_do) = mpsc::channel(1);
    let (told, reported) = mpsc::channel(1);
    let addresses = spec.identity.addresses.clone();
    let announcer = spawn(announcer::run(spec.announcer, addresses, to_do, told));
    let reports = Reports {
        service: spec.identity.service.clone(),
        generation: 0,
        verdicts,
    };
    let mut service = Service {
        machine,
        reconciler,
        on_stop: spec.on_stop,
        orders: wishes.orders,
        stopping: false,
        drain: Drain::new(spec::fit(spec.drain, capabilities.dead_man), now()),
        drain_settings,
        in_flight: spec.in_flight,
        waiting: None,
        running: Vec::new(),
        places,
        reports,
        heard,
        unknown: BTreeMap::new(),
        ready,
        actions,
        reported,
        dead_man: capabilities.dead_man,
        last_step: now(),
        publish,
        _announcer: announcer,
        _listening: listening,
    };
    if observed == Some(InForce::Preferred) {
        service.start_checks(&wishes.checks);
    } else {
        service.waiting = Some(wishes.checks);
    }
    service.run(&mut commands).await;
}

struct Service {
    machine: Recorded,
    reconciler: Reconciler,
    on_stop: OnStop,
    orders: Orders,
    /// The machine obeys `on_stop` now, and no order.
    stopping: bool,
    drain: Drain,
    drain_settings: watch::Receiver<drain::Settings>,
    in_flight: Option<InFlight>,
    places: Arc<Places>,
    /// Checks that wait for the first decision to be carried out: before it a service address
    /// may not exist, and a probe would blame the service for that.
    waiting: Option<Vec<CheckSpec>>,
    running: Vec<AbortOnDrop>,
    reports: Reports,
    heard: mpsc::Receiver<Spoken>,
    /// Of checks that ever were `Unknown`.
    unknown: BTreeMap<CheckName, Episodes>,
    ready: mpsc::Receiver<(CheckName, Readiness)>,
    actions: mpsc::Sender<Action>,
    reported: mpsc::Receiver<Report>,
    dead_man: Option<Duration>,
    last_step: Instant,
    publish: watch::Sender<Snapshot>,
    _announcer: AbortOnDrop,
    _listening: Vec<AbortOnDrop>,
}

impl Service {
    async fn run(mut self, commands: &mut mpsc::Receiver<Command>) {
        loop {
            self.step();
            let wake = self.next_wake();
            tokio::select! {
                Some(spoken) = self.heard.recv() => self.handle_spoken(spoken),
                Some((name, readiness)) = self.ready.recv() => {
                    self.machine.hear(now(), &Input::Readiness(name, readiness));
                }
                report = self.reported.recv() => match report {
                    Some(report) => self.handle_report(report),
                    None => return self.announcer_died(),
                },
                command = commands.recv() => match command {
                    Some(Command::Order { order, taken }) => {
                        let ticket = self.orders.give(now(), order);
                        self.machine.hear(now(), &Input::Intent(self.orders.intent()));
                        self.tell();
                        // The caller may have gone; the order stands all the same.
                        let _ = taken.send(ticket);
                    }
                    Some(Command::Standing(standing)) => {
                        self.orders.set_standing(now(), standing);
                        self.machine.hear(now(), &Input::Intent(self.orders.intent()));
                        self.tell();
                    }
                    Some(Command::Fleet(news)) => {
                        let stays = self.reconciler.is_in_force(Preference::Preferred);
                        self.machine.hear_fleet(now(), news, stays);
                    }
                    #[cfg(feature = "record")]
                    Some(Command::Record(answer)) => {
                        // Whoever asked may have gone.
                        let _ = answer.send(self.machine.record());
                    }
                    Some(Command::Reconfigure { policy, checks, done }) => {
                        // The caller may have gone; the change stands all the same.
                        let _ = done.send(self.reconfigure(policy, checks));
                    }
                    Some(Command::Stop(on_stop)) => {
                        return self.stop(on_stop, commands).await;
                    }
                    None => return,
                },
                () = self.orders.changed() => {}
                () = sleep_until(wake) => {}
            }
        }
    }

    fn handle_spoken(&mut self, spoken: Spoken) {
        if spoken.generation != self.reports.generation {
            return;
        }
        if let Some(id) = self.machine.check_id(&spoken.check) {
            tracing::trace!(check = %spoken.check, verdict = %spoken.verdict, "verdict");
            self.tell_unknown(&spoken);
            self.machine
                .hear(now(), &Input::Verdict(id, spoken.verdict));
        }
    }

    /// Logs that a checker fails, or works again. The machine has no event for that: it changes
    /// no level.
    fn tell_unknown(&mut self, Spoken { check, verdict, .. }: &Spoken) {
        if matches!(verdict, Verdict::Unknown(_)) && !self.unknown.contains_key(check) {
            self.unknown.insert(check.clone(), Episodes::default());
        }
        let Some(episodes) = self.unknown.get_mut(check) else {
            return;
        };
        let service = &self.reports.service;
        match episodes.hear(now(), verdict) {
            Some(Tell::Began { reason, untold }) => {
                tracing::warn!(%service, %check, %reason, untold, "check is unknown: the checker fails, which lowers nothing");
            }
            Some(Tell::Over { lasted }) => {
                tracing::info!(%service, %check, %verdict, ?lasted, "check is no longer unknown");
            }
            None => {}
        }
    }

    /// Without an announcer nothing can be done here. The loop ends, which
    /// [`NodeHandle::failed`](super::NodeHandle::failed) tells; the dead man demotes.
    fn announcer_died(&self) {
        tracing::error!(service = %self.name(), "the announcer died; the dead man will demote this node");
        self.publish.send_modify(|snapshot| {
            let reason = "the announcer died; restart this node";
            snapshot.confirmation = Confirmation::Failing(reason.into());
        });
    }

    /// One decision step: decide, hand the action over, tell what changed.
    fn step(&mut self) {
        let now = now();
        self.notice_stall(now);
        if !self.stopping
            && let Some(intent) = self.orders.refresh(now)
        {
            self.machine.hear(now, &Input::Intent(intent));
        }
        if let Some(intent) = self.orders.expire(now)
            && !self.stopping
        {
            self.machine.hear(now, &Input::Intent(intent));
        }
        if let Some(decision) = self.machine.decide(now) {
            self.reconciler.handle_decision(decision);
        }
        self.follow_drain(now);
        self.act(now);
        self.tell();
    }

    /// A boost outlived by the pause between two steps is gone, and what the checks said
    /// before it is old: the machine starts anew, as after a restart.
    fn notice_stall(&mut self, now: Instant) {
        let pause = now.saturating_duration_since(self.last_step);
        self.last_step = now;
        let stalled = self.dead_man.is_some_and(|dead_man| pause > dead_man);
        let preferred = self.machine.preference() == Preference::Preferred;
        if stalled || (preferred && self.reconciler.has_run_out(now)) {
            tracing::warn!(service = %self.name(), ?pause, "the boost ran out while decisions stood still; every check has to rise anew");
            self.machine.hear(now, &Input::Expiry);
        }
    }

    fn act(&mut self, now: Instant) {
        if let Some(action) = self.reconciler.poll_action(now) {
            // The reconciler has one action under way at most, so the one place is free; a
            // closed channel is noticed where reports are received.
            let _ = self.actions.try_send(action);
        }
    }

    fn next_wake(&self) -> Option<Instant> {
        let machine = self.machine.poll_timeout();
        let reconciler = self.reconciler.poll_timeout();
        // A step at least that often, so that a stall can be told from having nothing to do.
        let beat = self.dead_man.map(|dead_man| self.last_step + dead_man / 3);
        let drain = self.drain.poll_timeout();
        let due = machine.into_iter().chain(reconciler).chain(drain);
        due.map(|(at, _)| at).chain(beat).min()
    }

    fn handle_report(&mut self, report: Report) {
        let now = now();
        let before = self.reconciler.confirmation().clone();
        match report {
            Report::Applied(outcome) => {
                self.reconciler.handle_applied(now, outcome);
                if let Some(checks) = self.waiting.take() {
                    self.start_checks(&checks);
                }
            }
            Report::Observed(outcome) => {
                if let Err(reason) = &outcome {
                    tracing::warn!(service = %self.name(), %reason, "what is in force cannot be observed");
                }
                self.reconciler.handle_observed(now, outcome);
                if self.reconciler.take_lost_adoption() {
                    tracing::warn!(service = %self.name(), "the boost of the process before ran out before every check had spoken; every check has to rise anew");
                    self.machine.hear(now, &Input::Expiry);
                }
            }
            Report::Disturbed => self.reconciler.handle_disturbed(now),
        }
        let after = self.reconciler.confirmation();
        if before != *after {
            let service = self.name();
            let preference = self.machine.preference();
            match after {
                Confirmation::Confirmed => {
                    tracing::info!(%service, %preference, "in force");
                }
                Confirmation::Unconfirmed(reason) => {
                    tracing::warn!(%service, %preference, %reason, "not confirmed");
                }
                Confirmation::Failing(reason) => {
                    tracing::error!(%service, %preference, %reason, "cannot be applied");
                }
                Confirmation::Pending => {}
            }
        }
    }

    fn reconfigure(&mut self, policy: Policy, checks: Vec<CheckSpec>) -> Result<(), NodeError> {
        checks::validate(&self.name(), &checks)?;
        self.machine
            .hear(now(), &Input::Checks(checks::rules(&checks)));
        self.machine.hear(now(), &Input::Policy(policy));
        self.waiting = None;
        self.unknown
            .retain(|name, _| checks.iter().any(|check| check.name == *name));
        self.start_checks(&checks);
        Ok(())
    }

    /// Replaces the running checks, if any.
    fn start_checks(&mut self, checks: &[CheckSpec]) {
        self.reports.generation += 1;
        self.running = checks::start(checks, &self.places, &self.reports);
    }

    /// Logs what changed and publishes the state; followers are woken only if that changed.
    fn tell(&mut self) {
        while let Some(event) = self.machine.poll_event() {
            log(self.machine.identity().service.as_str(), &event);
        }
        self.publish.send_if_modified(|old| {
            let snapshot = old.update(&self.machine, &self.reconciler, &self.orders, &self.drain);
            let changed = *old != snapshot;
            if changed {
                *old = snapshot;
            }
            old.stepped = now();
            changed
        });
    }

    fn name(&self) -> ServiceName {
        self.machine.identity().service.clone()
    }
}

fn log(service: &str, event: &Event) {
    match event {
        Event::Preference {
            from,
            to,
            state,
            reason,
            ..
        } => {
            tracing::info!(service, %from, %to, %state, %reason, "preference changed");
        }
        Event::State {
            from, to, reason, ..
        } => {
            tracing::info!(service, %from, %to, %reason, "state changed");
        }
        Event::Readiness {
            name,
            reason: Some(reason),
            ..
        } => tracing::warn!(service, %name, %reason, "not ready"),
        Event::Readiness { name, .. } => tracing::info!(service, %name, "ready"),
        Event::Check {
            check,
            phase: Phase::Down,
            reason: Some(reason),
            ..
        } => tracing::warn!(service, %check, %reason, "check is down"),
        Event::Check { check, phase, .. } => {
            tracing::info!(service, %check, ?phase, "check changed");
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
