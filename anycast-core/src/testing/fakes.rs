//! A check that says what a test tells it to, and an announcer that remembers what it did.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::Notify;

use crate::announce::{
    AnnounceError, Announcer, Applied, Capabilities, Decision, InForce, Lifetime, Observation,
    Preference,
};
use crate::health::{HealthCheck, Verdict};
use crate::service::ServiceAddresses;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a [`ScriptedCheck`] does at its next probes.
#[derive(Debug, Clone)]
pub enum Behaviour {
    /// Answer this.
    Say(Verdict),
    /// Answer this after so long.
    Slow(Duration, Verdict),
    /// Never answer, but yield: an await that does not end.
    Hang,
    /// Panic.
    Panic,
}

/// A check whose behaviour a test sets while it runs. Clones share it.
#[derive(Clone)]
pub struct ScriptedCheck {
    behaviour: Arc<Mutex<Behaviour>>,
    pushed: Arc<Mutex<VecDeque<Verdict>>>,
    push: Arc<Notify>,
    probes: Arc<Mutex<u64>>,
}

impl ScriptedCheck {
    /// A check that behaves like this until told otherwise.
    #[must_use]
    pub fn new(behaviour: Behaviour) -> Self {
        Self {
            behaviour: Arc::new(Mutex::new(behaviour)),
            pushed: Arc::default(),
            push: Arc::default(),
            probes: Arc::default(),
        }
    }

    /// From now on behave like this.
    pub fn set(&self, behaviour: Behaviour) {
        *lock(&self.behaviour) = behaviour;
    }

    /// Learns of a change at once, without a poll.
    pub fn push(&self, verdict: Verdict) {
        lock(&self.pushed).push_back(verdict);
        self.push.notify_one();
    }

    /// How many probes were begun.
    #[must_use]
    pub fn probes(&self) -> u64 {
        *lock(&self.probes)
    }
}

#[async_trait]
impl HealthCheck for ScriptedCheck {
    #[allow(clippy::panic, reason = "a test asked for it")]
    async fn check(&mut self, _timeout: Duration) -> Verdict {
        *lock(&self.probes) += 1;
        let behaviour = lock(&self.behaviour).clone();
        match behaviour {
            Behaviour::Say(verdict) => verdict,
            Behaviour::Slow(time, verdict) => {
                tokio::time::sleep(time).await;
                verdict
            }
            Behaviour::Hang => std::future::pending().await,
            Behaviour::Panic => panic!("scripted panic"),
        }
    }

    async fn changed(&mut self) -> Verdict {
        loop {
            if let Some(verdict) = lock(&self.pushed).pop_front() {
                return verdict;
            }
            self.push.notified().await;
        }
    }
}

/// Everything a [`RecordingAnnouncer`] knows.
#[derive(Debug, Default)]
struct Record {
    applied: Vec<(Instant, Preference)>,
    boost_until: Option<Instant>,
    withdrawn: bool,
    failing: bool,
    hanging: bool,
    slow: Duration,
    panicking: bool,
}

/// An announcer with a floor and a boost that runs out, kept in memory. Clones share it, so a
/// test keeps one and gives the other to the driver.
#[derive(Clone)]
pub struct RecordingAnnouncer {
    dead_man: Duration,
    record: Arc<Mutex<Record>>,
    disturbed: Arc<Notify>,
}

impl RecordingAnnouncer {
    /// An announcer with this dead-man time, in tokio's time (which tests may pause).
    #[must_use]
    pub fn new(dead_man: Duration) -> Self {
        Self {
            dead_man,
            record: Arc::default(),
            disturbed: Arc::default(),
        }
    }

    fn now() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    /// What is in force now.
    #[must_use]
    pub fn in_force(&self) -> InForce {
        let record = lock(&self.record);
        if record.withdrawn {
            InForce::Withdrawn
        } else if record.boost_until.is_some_and(|until| until > Self::now()) {
            InForce::Preferred
        } else {
            InForce::Demoted
        }
    }

    /// When the boost runs out, if there is one.
    #[must_use]
    pub fn boost_until(&self) -> Option<Instant> {
        lock(&self.record).boost_until
    }

    /// Every preference applied so far, renewals included, and when.
    #[must_use]
    pub fn applied(&self) -> Vec<(Instant, Preference)> {
        lock(&self.record).applied.clone()
    }

    /// Puts a boost in force as an earlier process would have left it.
    pub fn leave_boost(&self, remaining: Duration) {
        lock(&self.record).boost_until = Some(Self::now() + remaining);
    }

    /// Takes the boost away behind the driver's back.
    pub fn lose_boost(&self) {
        lock(&self.record).boost_until = None;
    }

    /// The same, and tells the driver that something happened.
    pub fn disturb(&self) {
        self.lose_boost();
        self.disturbed.notify_one();
    }

    /// From now on every call fails, or works again.
    pub fn set_failing(&self, failing: bool) {
        lock(&self.record).failing = failing;
    }

    /// From now on no call ends, or they do again.
    pub fn set_hanging(&self, hanging: bool) {
        lock(&self.record).hanging = hanging;
    }

    /// From now on every call takes so long.
    pub fn set_slow(&self, time: Duration) {
        lock(&self.record).slow = time;
    }

    /// From now on every call panics.
    pub fn set_panicking(&self) {
        lock(&self.record).panicking = true;
    }

    #[allow(clippy::panic, reason = "a test asked for it")]
    async fn obstacle(&self) -> Result<(), AnnounceError> {
        let (failing, hanging, panicking, slow) = {
            let record = lock(&self.record);
            (
                record.failing,
                record.hanging,
                record.panicking,
                record.slow,
            )
        };
        tokio::time::sleep(slow).await;
        if panicking {
            panic!("scripted panic");
        }
        if hanging {
            std::future::pending::<()>().await;
        }
        if failing {
            return Err(AnnounceError::Backend {
                what: "recording announcer".to_owned(),
                source: "told to fail".into(),
            });
        }
        Ok(())
    }
}

#[async_trait]
impl Announcer for RecordingAnnouncer {
    fn kind(&self) -> &'static str {
        "recording"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            demote: true,
            withdraw: true,
            roles: false,
            dead_man: Some(self.dead_man),
        }
    }

    async fn apply(&mut self, decision: &Decision) -> Result<Applied, AnnounceError> {
        self.obstacle().await?;
        let age = Self::now().saturating_duration_since(decision.decided_at());
        if decision.lifetime() == Lifetime::DeadMan && age >= self.dead_man {
            return Err(AnnounceError::Stale {
                service: decision.service().clone(),
                age,
            });
        }
        let lifetime = match decision.lifetime() {
            Lifetime::DeadMan => self.dead_man,
            Lifetime::Keep(keep_for) => keep_for,
        };
        let mut record = lock(&self.record);
        record.applied.push((Self::now(), decision.preference()));
        record.withdrawn = decision.preference().is_withdrawn();
        record.boost_until = (decision.preference() == Preference::Preferred)
            .then(|| decision.decided_at() + lifetime);
        Ok(Applied::Confirmed)
    }

    async fn observe(
        &mut self,
        addresses: &ServiceAddresses,
    ) -> Result<Observation, AnnounceError> {
        self.obstacle().await?;
        let state = self.in_force();
        Ok(Observation {
            addresses: addresses.iter().map(|address| (address, state)).collect(),
        })
    }

    async fn disturbed(&mut self) {
        self.disturbed.notified().await;
    }
}
