//! The end of a service: `on_stop`, and the drain that it goes through.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::{Service, sleep_until};
use crate::announce::Preference;
use crate::drain::Phase;
use crate::machine::{Input, Intent, Move, Turn};
use crate::node::inputs::FleetNews;
use crate::node::{Command, OnStop, STOP_TIMEOUT, now, spec};

impl Service {
    /// Follows the drain that an operator's order or a stop began, if there is one.
    pub(super) fn follow_drain(&mut self, now: Instant) {
        if self.drain_settings.has_changed().unwrap_or(false) {
            let settings = *self.drain_settings.borrow_and_update();
            let settings = spec::fit(settings, self.dead_man);
            self.drain.handle_settings(now, settings);
        }
        let before = self.drain.phase();
        match self.machine.intent() {
            // Nobody is led elsewhere before its turn to leave.
            _ if self.machine.wants_turn() == Some(Move::Leave) => self.drain.handle_cancel(now),
            Intent::Auto => self.drain.handle_cancel(now),
            Intent::Demote { reason, .. } | Intent::Withdraw { reason, .. } => {
                self.drain.handle_begin(now, reason);
            }
        }
        let preference = self.machine.preference();
        let lowered = preference != Preference::Preferred && self.reconciler.is_settled(preference);
        self.drain.handle_lowered(now, lowered);
        if let Some(count) = &self.in_flight
            && self.drain.phase() != Phase::Idle
        {
            self.drain.handle_in_flight(now, count());
        }
        self.drain.handle_timeout(now);
        let phase = self.drain.phase();
        if phase != before {
            let (why, in_flight) = (self.drain.why(), self.drain.in_flight());
            tracing::info!(service = %self.name(), %phase, %why, in_flight, "drain");
        }
    }

    /// Carries `on_stop` out, or `instead`, and waits, bounded, until it is confirmed. Unless
    /// it is done `instead`, or the boost is kept, also until the service is drained.
    pub(super) async fn stop(
        mut self,
        instead: Option<OnStop>,
        commands: &mut mpsc::Receiver<Command>,
    ) {
        self.running.clear();
        self.stopping = true;
        self.on_stop = instead.unwrap_or(self.on_stop);
        let (reason, by, until) = ("the node is stopping".into(), "on_stop".into(), None);
        let withdrawn = matches!(self.machine.intent(), Intent::Withdraw { .. });
        let intent = match self.on_stop {
            OnStop::Keep(_) => None,
            // What an operator withdrew is not announced again by a stop.
            OnStop::Demote if !withdrawn => Some(Intent::Demote { reason, by, until }),
            OnStop::Demote | OnStop::Withdraw => Some(Intent::Withdraw { reason, by, until }),
        };
        let drains = intent.is_some() && instead.is_none();
        if instead.is_some() {
            let at_once = Turn::CutOff("what is to leave does not wait".into());
            self.machine.hear(now(), &Input::Turn(at_once));
        }
        if let Some(intent) = intent {
            self.machine.hear(now(), &Input::Intent(intent));
        }
        let limit = if drains {
            let turns = self.machine.policy().turns;
            let turn = turns.map_or(Duration::ZERO, |policy| policy.leave_within);
            turn + spec::stop_limit(*self.drain_settings.borrow(), self.dead_man)
        } else {
            STOP_TIMEOUT
        };
        let stop = self.carry_out_stop(drains, commands);
        if tokio::time::timeout(limit, stop).await.is_err() {
            tracing::error!(service = %self.name(), "the last decision was not confirmed in time; the dead man has the rest");
        }
    }

    async fn carry_out_stop(&mut self, drains: bool, commands: &mut mpsc::Receiver<Command>) {
        loop {
            let done = match self.on_stop {
                // An adopted boost that no check has spoken for yet is not made to last.
                OnStop::Keep(keep_for)
                    if self.machine.preference() == Preference::Preferred
                        && !self.machine.awaits_first_verdicts() =>
                {
                    self.last_step = now();
                    let decision = self.machine.decide_keep(now(), keep_for);
                    self.reconciler.handle_decision(decision);
                    self.act(now());
                    self.tell();
                    self.reconciler.is_kept()
                }
                OnStop::Keep(_) => true,
                OnStop::Demote | OnStop::Withdraw => {
                    self.step();
                    let settled = self.reconciler.is_settled(self.machine.preference());
                    match self.drain.phase() {
                        Phase::Done => true,
                        Phase::Idle | Phase::Demoting | Phase::Converging | Phase::Finishing => {
                            settled && !drains
                        }
                    }
                }
            };
            if done {
                return;
            }
            let wake = self.next_wake();
            tokio::select! {
                report = self.reported.recv() => match report {
                    Some(report) => self.handle_report(report),
                    None => return self.announcer_died(),
                },
                // Too late for any but its turn: the sender is told that nobody is there to take it.
                Some(command) = commands.recv() => {
                    if let Command::Fleet(news @ FleetNews::Turn(_)) = command
                        && drains
                    {
                        self.machine.hear_fleet(now(), news, false);
                    }
                }
                () = sleep_until(wake) => {}
            }
        }
    }
}
