//! What goes wrong.

use std::time::Duration;

use anycast_core::intent_store::OrderKind;
use anycast_core::invariants::Violation;

use crate::node::Service;
use crate::world::{CHECKERS, MS, SECOND, World};

impl World {
    /// One misfortune, somewhere, or the end of one.
    pub(crate) fn misfortune(&mut self) -> Result<(), Violation> {
        let size = self.nodes.len();
        let index = usize::try_from(self.rng.range(0, size as u64 - 1)).unwrap();
        match self.rng.range(0, 19) {
            0..=3 => {
                let service = self.rng.pick(&[
                    Service::Well,
                    Service::Well,
                    Service::Failing,
                    Service::Exited,
                ]);
                self.nodes[index].service = service;
                self.tell(|| format!("node{index}: the service is {service:?}"));
            }
            4..=6 => {
                let checker = self.rng.pick(&CHECKERS);
                self.nodes[index].checker = checker;
                self.tell(|| format!("node{index}: the checker is {checker:?}"));
            }
            7 => {
                let checker = self.rng.pick(&CHECKERS);
                self.nodes.iter_mut().for_each(|n| n.checker = checker);
                self.tell(|| format!("every checker is {checker:?}"));
            }
            8 => {
                let services = [Service::Well, Service::Well, Service::Failing];
                let service = self.rng.pick(&services);
                self.nodes.iter_mut().for_each(|n| n.service = service);
                self.tell(|| format!("every service is {service:?}"));
            }
            9 | 10 => {
                let parted = self.rng.chance(60);
                for side in 0..size {
                    self.side[side] = parted && self.rng.chance(50);
                }
                let sides = self.side.clone();
                self.tell(|| format!("partition: {sides:?}"));
            }
            11 => {
                self.loss = self.rng.pick(&[0, 10, 40]);
                self.delay = self.rng.pick(&[20 * MS, 200 * MS, 4 * SECOND]);
            }
            12..=14 => self.hurt_process(index)?,
            15 => self.jump(index),
            16 | 17 => self.order(index),
            18 => {
                let node = &mut self.nodes[index];
                node.announcer_fails = self.rng.pick(&[0, 30, 100]);
                node.announcer_slow = self.rng.chance(40);
            }
            _ => self.interfere(index)?,
        }
        Ok(())
    }

    fn hurt_process(&mut self, index: usize) -> Result<(), Violation> {
        let (time, kind) = (self.now, self.rng.range(0, 5));
        let pause = self.rng.range(100 * MS, 12 * SECOND);
        if self.nodes[index].process.is_none() {
            return Ok(());
        }
        match kind {
            0 if self.setting.reboots => {
                self.tell(|| format!("node{index} reboots"));
                self.count("reboot");
                self.nodes[index].reboot(time)?;
                self.start_later(index, pause);
            }
            0..=2 => {
                self.tell(|| format!("node{index} is killed"));
                self.count("kill");
                self.nodes[index].kill(time)?;
                self.start_later(index, pause);
            }
            _ => {
                self.tell(|| format!("node{index} stands still"));
                self.count("stall");
                self.nodes[index].stalled_until = time + pause;
            }
        }
        Ok(())
    }

    /// The wall clock of a node jumps, by up to a day, either way.
    fn jump(&mut self, index: usize) {
        let by = Duration::from_secs(self.rng.range(1, 86_400));
        let back = self.rng.chance(50);
        if self.setting.jumps {
            let wall = &mut self.nodes[index].wall;
            *wall = if back { *wall - by } else { *wall + by };
        }
    }

    fn order(&mut self, index: usize) {
        let lasts = Duration::from_secs(self.rng.range(1, 40));
        let lasts = self.rng.chance(70).then_some(lasts);
        let order = self.rng.pick(&[
            None,
            Some((OrderKind::Demote, lasts)),
            Some((OrderKind::Demote, lasts)),
            Some((OrderKind::Withdraw, lasts)),
        ]);
        if self.nodes[index].stalled_until > self.now {
            return;
        }
        self.tell(|| format!("node{index} is ordered {order:?}"));
        self.nodes[index].order(self.now, order);
    }

    /// Somebody else takes the boost away, or a reload finds an empty list.
    fn interfere(&mut self, index: usize) -> Result<(), Violation> {
        let now = self.nodes[index].clock.at(self.now);
        if self.rng.chance(50) {
            self.tell(|| format!("node{index}: somebody removes the boost"));
            self.nodes[index].kernel.lose_boost();
            if self.rng.chance(50) {
                self.nodes[index].disturbed(now);
            }
            return Ok(());
        }
        if self.nodes[index].stalled_until > self.now {
            return Ok(());
        }
        self.nodes[index].reload_nothing(now)
    }
}
