//! The suite that every [`Announcer`] must pass, ours and outsiders'.
//!
//! Implement [`AnnouncerBench`] for a real router, routing daemon or kernel in an isolation of
//! your own, and call [`run`] from a test inside a tokio runtime with time enabled. Each rule
//! is a sentence of the trait's documentation; a [`Violation`] quotes it.
//!
//! An announcer with a dead-man time of up to [`LONGEST_WAIT`] is also left without renewal
//! until the preference is gone; choose a short one on the bench.

#![allow(
    clippy::disallowed_methods,
    reason = "the suite makes decisions in real time and waits for a real dead man"
)]

use std::time::{Duration, Instant};

use async_trait::async_trait;

use crate::announce::{
    AnnounceError, Announcer, Applied, Capabilities, Decision, InForce, Lifetime, Preference,
};
use crate::service::{ServiceAddresses, ServiceName};
pub use crate::testing::Violation;
use crate::testing::violation::{cut, ensure, violated};
use crate::testing::{decision, withdrawn_by_operator};

/// A dead man up to this long is waited for.
pub const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// How much longer than the dead-man time a busy machine may take to show it.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often an unconfirmed decision is asked for again, and how long between.
const ATTEMPTS: u32 = 60;
const BETWEEN: Duration = Duration::from_millis(500);

/// A decision dropped after this many polls is tried, from 0 up.
const CUT_AFTER_AT_MOST: usize = 20;

/// A router with an announcer under test.
#[async_trait]
pub trait AnnouncerBench: Send {
    /// A new announcer, as after a restart of its process: what earlier ones put into force
    /// is still there.
    async fn announcer(&mut self) -> Box<dyn Announcer>;

    /// The name of the service under test.
    fn service(&self) -> ServiceName;

    /// The addresses of the service under test. Nothing announces them at the start.
    fn addresses(&self) -> ServiceAddresses;

    /// Undoes behind the announcer's back what makes the service preferred, as an operator
    /// or another program might.
    async fn meddle(&mut self);

    /// All state of the router that is not this announcer's, as text, including something
    /// planted beforehand that resembles what the announcer makes. It must never change.
    async fn state_of_others(&mut self) -> String;
}

/// Tries every rule.
///
/// # Errors
/// The first [`Violation`].
pub async fn run(bench: &mut dyn AnnouncerBench) -> Result<(), Violation> {
    let others = bench.state_of_others().await;
    let mut trial = Trial {
        announcer: bench.announcer().await,
        service: bench.service(),
        addresses: bench.addresses(),
    };
    trial.levels().await?;
    trial.withdrawal().await?;
    trial.drift(bench).await?;
    trial.stale().await?;
    trial.restart(bench).await?;
    trial.cancellation(bench).await?;
    trial.dead_man().await?;
    let after = bench.state_of_others().await;
    ensure(after == others, "it touches only what is its own", || {
        format!("before:\n{others}\nafter:\n{after}")
    })
}

struct Trial {
    announcer: Box<dyn Announcer>,
    service: ServiceName,
    addresses: ServiceAddresses,
}

impl Trial {
    async fn levels(&mut self) -> Result<(), Violation> {
        self.reach(Preference::Preferred).await?;
        let twice = "applying the same decision again changes nothing";
        let again = self.now(Preference::Preferred);
        self.apply(&again, twice).await?;
        self.apply(&again, twice).await?;
        self.expect(InForce::Preferred, twice).await?;
        let keep = Lifetime::Keep(Duration::from_secs(600));
        let keep = self.decide(Preference::Preferred, keep, Instant::now());
        self.apply(&keep, "it can keep the preference for a time")
            .await?;
        self.expect(InForce::Preferred, "it can keep the preference for a time")
            .await?;
        if self.able().demote {
            self.reach(Preference::Demoted).await?;
            self.reach(Preference::Demoted).await?;
            return self.reach(Preference::Preferred).await;
        }
        let rule = "a demotion without a floor is refused and changes nothing";
        let demotion = self.now(Preference::Demoted);
        let refused = self.announcer.apply(&demotion).await;
        let inexpressible = matches!(refused, Err(AnnounceError::Inexpressible { .. }));
        ensure(inexpressible, rule, || format!("{refused:?}"))?;
        self.expect(InForce::Preferred, rule).await
    }

    async fn withdrawal(&mut self) -> Result<(), Violation> {
        if self.able().withdraw {
            self.reach(withdrawn_by_operator()).await?;
            return self.reach(Preference::Preferred).await;
        }
        let withdrawal = self.now(withdrawn_by_operator());
        let applied = self.announcer.apply(&withdrawal).await;
        ensure(
            !matches!(applied, Ok(Applied::Confirmed)),
            "it never confirms a withdrawal that it cannot express",
            || format!("{applied:?}"),
        )
    }

    async fn drift(&mut self, bench: &mut dyn AnnouncerBench) -> Result<(), Violation> {
        let rule = "what somebody else undid is observed, and repaired by the next decision";
        self.reach(Preference::Preferred).await?;
        bench.meddle().await;
        let seen = self.observe(rule).await?;
        ensure(seen != Some(InForce::Preferred), rule, || {
            "still observed as preferred".to_owned()
        })?;
        self.reach(Preference::Preferred).await
    }

    async fn stale(&mut self) -> Result<(), Violation> {
        let Some(dead_man) = self.able().dead_man else {
            return Ok(());
        };
        let rule = "a decision older than the dead-man time is refused";
        let Some(past) = Instant::now().checked_sub(dead_man) else {
            // The machine has not been up for so long.
            return Ok(());
        };
        self.reach(self.low()).await?;
        let old = self.decide(Preference::Preferred, Lifetime::DeadMan, past);
        let refused = self.announcer.apply(&old).await;
        let stale = matches!(refused, Err(AnnounceError::Stale { .. }));
        ensure(stale, rule, || format!("{refused:?}"))?;
        let seen = self.observe(rule).await?;
        ensure(seen != Some(InForce::Preferred), rule, || {
            "preferred all the same".to_owned()
        })
    }

    async fn restart(&mut self, bench: &mut dyn AnnouncerBench) -> Result<(), Violation> {
        let rule = "a new process observes what the old one put into force";
        self.reach(Preference::Preferred).await?;
        self.announcer = bench.announcer().await;
        self.expect(InForce::Preferred, rule).await?;
        self.reach(Preference::Preferred).await
    }

    async fn cancellation(&mut self, bench: &mut dyn AnnouncerBench) -> Result<(), Violation> {
        let rule = "a decision that was dropped half-way is completed by the next";
        for polls in 0..CUT_AFTER_AT_MOST {
            let low = self.now(self.low());
            cut(polls, self.announcer.apply(&low)).await;
            self.reach(Preference::Preferred).await?;
            bench.meddle().await;
            let high = self.now(Preference::Preferred);
            cut(polls, self.announcer.apply(&high)).await;
            self.reach(self.low()).await?;
            let seen = self.observe(rule).await?;
            ensure(seen != Some(InForce::Preferred), rule, || {
                format!("preferred against the last decision (cut after {polls} polls)")
            })?;
        }
        Ok(())
    }

    async fn dead_man(&mut self) -> Result<(), Violation> {
        match self.able().dead_man {
            Some(time) if time <= LONGEST_WAIT => self.expires_within(time + PATIENCE).await,
            Some(_) | None => Ok(()),
        }
    }

    async fn expires_within(&mut self, time: Duration) -> Result<(), Violation> {
        let rule = "preference is lost by itself after the dead-man time";
        self.reach(Preference::Preferred).await?;
        let deadline = Instant::now() + time;
        while self.observe(rule).await? == Some(InForce::Preferred) {
            ensure(Instant::now() < deadline, rule, || {
                format!("still preferred after {time:?}")
            })?;
            tokio::time::sleep(BETWEEN).await;
        }
        Ok(())
    }

    fn able(&self) -> Capabilities {
        self.announcer.capabilities()
    }

    /// What is not preferred and can be expressed.
    fn low(&self) -> Preference {
        if self.able().demote {
            Preference::Demoted
        } else {
            withdrawn_by_operator()
        }
    }

    fn now(&self, preference: Preference) -> Decision {
        self.decide(preference, Lifetime::DeadMan, Instant::now())
    }

    fn decide(&self, preference: Preference, lifetime: Lifetime, at: Instant) -> Decision {
        decision(
            self.service.clone(),
            self.addresses.clone(),
            preference,
            lifetime,
            at,
        )
    }

    async fn apply(&mut self, wanted: &Decision, rule: &'static str) -> Result<Applied, Violation> {
        let applied = self.announcer.apply(wanted).await;
        applied.map_err(|error| violated(rule, format!("{}: {error}", wanted.preference())))
    }

    async fn observe(&mut self, rule: &'static str) -> Result<Option<InForce>, Violation> {
        let seen = self.announcer.observe(&self.addresses).await;
        let seen = seen.map_err(|error| violated(rule, format!("cannot be observed: {error}")))?;
        let named = seen.addresses.iter().map(|(address, _)| *address);
        ensure(
            named.eq(self.addresses.iter()),
            "an observation has one entry for each address, in order",
            || format!("{seen:?}"),
        )?;
        Ok(seen.agreed())
    }

    async fn expect(&mut self, wanted: InForce, rule: &'static str) -> Result<(), Violation> {
        let seen = self.observe(rule).await?;
        ensure(seen == Some(wanted), rule, || {
            format!("{seen:?} and not {wanted:?}")
        })
    }

    /// Applies until confirmed, as the driver does; then observes twice.
    async fn reach(&mut self, preference: Preference) -> Result<(), Violation> {
        let rule = "what is confirmed is observed, and observing changes nothing";
        for _ in 0..ATTEMPTS {
            let wanted = self.now(preference);
            if self.apply(&wanted, rule).await? == Applied::Confirmed {
                for _ in 0..2 {
                    let seen = self.announcer.observe(&self.addresses).await;
                    let seen = seen.map_err(|error| violated(rule, error.to_string()))?;
                    ensure(seen.matches(preference), rule, || {
                        format!("{preference} confirmed, {seen:?} observed")
                    })?;
                }
                return Ok(());
            }
            tokio::time::sleep(BETWEEN).await;
        }
        Err(violated(
            "a decision is confirmed in the end",
            format!("{preference} asked for {ATTEMPTS} times"),
        ))
    }
}

#[cfg(test)]
#[path = "announcer_suite/tests.rs"]
mod tests;
