//! The start of a service: what an operator ordered before, and what is in force.

use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::announcer;
use super::checks::{self, CheckSpec};
use super::orders::{self, Orders};
use super::status::Snapshot;
use super::{ANNOUNCER_TIMEOUT, Command, ServiceSpec, now};
use crate::announce::InForce;
use crate::machine::Policy;
use crate::reconcile::{Confirmation, RETRY_MAX, RETRY_MIN};
use crate::service::ServiceName;

/// What an operator wants before there is a machine to tell it to.
pub(super) struct Wishes {
    pub(super) policy: Policy,
    pub(super) checks: Vec<CheckSpec>,
    pub(super) orders: Orders,
    /// An order was given, or lifted, by now: what was saved before no longer counts.
    ordered: bool,
}

impl Wishes {
    /// What the service was given. Its checks are taken out of it.
    pub(super) fn of(spec: &mut ServiceSpec) -> Self {
        Self {
            policy: spec.policy,
            checks: std::mem::take(&mut spec.checks),
            orders: Orders::new(
                spec.state.as_ref(),
                &spec.identity.service,
                spec.standing.take(),
            ),
            ordered: false,
        }
    }

    fn heed(&mut self, service: &ServiceName, command: Command) {
        match command {
            Command::Order { order, taken } => {
                self.ordered = true;
                // The caller may have gone; the order stands all the same.
                let _ = taken.send(self.orders.give(now(), order));
            }
            Command::Reconfigure {
                policy,
                checks,
                done,
            } => {
                let valid = checks::validate(service, &checks);
                if valid.is_ok() {
                    (self.policy, self.checks) = (policy, checks);
                }
                let _ = done.send(valid);
            }
            Command::Standing(standing) if self.ordered => {
                self.orders.set_standing(now(), standing);
            }
            Command::Standing(standing) => self.orders.replace_standing(standing),
            // There is no machine yet; who asks again is answered.
            Command::Fleet(_) | Command::Stop(_) => {}
            #[cfg(feature = "record")]
            Command::Record(_) => {}
        }
    }
}

/// Takes commands and tells the state while the service begins.
pub(super) struct Begin<'a> {
    pub(super) wishes: Wishes,
    pub(super) commands: &'a mut mpsc::Receiver<Command>,
    pub(super) publish: &'a watch::Sender<Snapshot>,
}

impl Begin<'_> {
    /// Restores an operator's order, then finds out what is in force, with back-off for as
    /// long as it takes: to start from a guess could flap a route. `None` when it is stopped.
    pub(super) async fn adopt(&mut self, spec: &mut ServiceSpec) -> Option<Option<InForce>> {
        let service = spec.identity.service.clone();
        let loading = orders::load(spec.state.clone(), service.clone());
        let loaded = self.obeying(&service, loading).await?;
        if !self.wishes.ordered {
            self.wishes.orders.begin(now(), loaded);
            self.tell_order();
        }
        let mut pause = RETRY_MIN;
        loop {
            let observation = spec.announcer.observe(&spec.identity.addresses);
            let observation = tokio::time::timeout(ANNOUNCER_TIMEOUT, observation);
            let reason = match self.obeying(&service, observation).await? {
                Ok(Ok(observation)) => return Some(observation.agreed()),
                Ok(Err(error)) => announcer::full_text(&error),
                Err(_) => format!("observe did not end within {ANNOUNCER_TIMEOUT:?}"),
            };
            tracing::error!(%service, %reason, "what is in force cannot be observed; retrying");
            self.publish.send_modify(|snapshot| {
                snapshot.stepped = now();
                snapshot.confirmation = Confirmation::Failing(reason.as_str().into());
            });
            self.pause(&service, pause).await?;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    async fn pause(&mut self, service: &ServiceName, pause: Duration) -> Option<()> {
        self.obeying(service, tokio::time::sleep(pause)).await
    }

    /// Does this, and takes commands meanwhile. `None` when it is stopped.
    async fn obeying<T>(
        &mut self,
        service: &ServiceName,
        work: impl Future<Output = T>,
    ) -> Option<T> {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                output = &mut work => return Some(output),
                command = self.commands.recv() => match command {
                    Some(Command::Stop(_)) | None => return None,
                    Some(command) => self.wishes.heed(service, command),
                },
                () = self.wishes.orders.changed() => {}
            }
            self.tell_order();
        }
    }

    fn tell_order(&self) {
        let intent = self.wishes.orders.snapshot();
        self.publish.send_if_modified(|snapshot| {
            let changed = snapshot.intent != intent;
            snapshot.intent = intent;
            changed
        });
    }
}
