//! The suite on a router in memory: it passes a right announcer and names each wrong one.

use std::sync::{Arc, Mutex, MutexGuard};

use super::*;
use crate::announce::Observation;

/// Too long to be waited for: no rule then depends on the machine's speed.
const DEAD_MAN: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    ObeysStale,
    NeverExpires,
    TouchesOthers,
    ConfirmsTooEarly,
    NeverConfirms,
    NeverRepairs,
    ConfirmsWithdrawal,
    DemotesWithoutFloor,
    ObservesNothing,
}

#[derive(Debug, Default)]
struct Router {
    preferred_until: Option<Instant>,
    written_once: bool,
    withdrawn: bool,
    others: u32,
}

type Shared = Arc<Mutex<Router>>;

struct InMemory {
    router: Shared,
    fault: Fault,
    floor: bool,
    dead_man: Duration,
}

impl InMemory {
    fn router(&self) -> MutexGuard<'_, Router> {
        self.router.lock().unwrap()
    }
}

#[async_trait]
impl Announcer for InMemory {
    fn kind(&self) -> &'static str {
        "memory"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            demote: self.floor,
            withdraw: !self.floor,
            roles: false,
            dead_man: Some(self.dead_man),
        }
    }

    async fn apply(&mut self, decision: &Decision) -> Result<Applied, AnnounceError> {
        let age = decision.decided_at().elapsed();
        if age >= self.dead_man && self.fault != Fault::ObeysStale {
            let service = decision.service().clone();
            return Err(AnnounceError::Stale { service, age });
        }
        tokio::task::yield_now().await;
        let mut router = self.router();
        router.others += u32::from(self.fault == Fault::TouchesOthers);
        let life = match decision.lifetime() {
            Lifetime::DeadMan if self.fault != Fault::NeverExpires => self.dead_man,
            Lifetime::DeadMan => Duration::from_secs(3600),
            Lifetime::Keep(time) => time,
        };
        match decision.preference() {
            Preference::Preferred => {
                let meddled = router.written_once && router.preferred_until.is_none();
                if !(meddled && self.fault == Fault::NeverRepairs) {
                    router.preferred_until = Some(Instant::now() + life);
                }
                router.written_once = true;
            }
            Preference::Demoted if !self.floor && self.fault != Fault::DemotesWithoutFloor => {
                return Err(AnnounceError::Inexpressible {
                    service: decision.service().clone(),
                    preference: Preference::Demoted,
                    reason: "no floor".to_owned(),
                });
            }
            Preference::Demoted | Preference::Withdrawn(_) => {
                router.written_once = false;
                router.withdrawn = !self.floor;
                if self.fault != Fault::ConfirmsTooEarly {
                    router.preferred_until = None;
                }
            }
        }
        let short = decision.preference().is_withdrawn() && self.floor;
        let honest = !(short && self.fault != Fault::ConfirmsWithdrawal);
        Ok(if honest && self.fault != Fault::NeverConfirms {
            Applied::Confirmed
        } else {
            Applied::Unconfirmed("not so".into())
        })
    }

    async fn observe(
        &mut self,
        addresses: &ServiceAddresses,
    ) -> Result<Observation, AnnounceError> {
        let until = self.router().preferred_until;
        let state = match until {
            Some(until) if until > Instant::now() => InForce::Preferred,
            _ if self.floor => InForce::Demoted,
            _ => InForce::Withdrawn,
        };
        let mut observed: Vec<_> = addresses.iter().map(|address| (address, state)).collect();
        if self.fault == Fault::ObservesNothing {
            observed.clear();
        }
        Ok(Observation {
            addresses: observed,
        })
    }
}

struct Bench {
    router: Shared,
    fault: Fault,
    floor: bool,
}

#[async_trait]
impl AnnouncerBench for Bench {
    async fn announcer(&mut self) -> Box<dyn Announcer> {
        Box::new(InMemory {
            router: Arc::clone(&self.router),
            fault: self.fault,
            floor: self.floor,
            dead_man: DEAD_MAN,
        })
    }

    fn service(&self) -> ServiceName {
        ServiceName::new("tftp").unwrap()
    }

    fn addresses(&self) -> ServiceAddresses {
        let texts = ["192.0.2.69/32", "2001:db8::69/128"];
        ServiceAddresses::new(texts.map(|text| text.parse().unwrap()).to_vec()).unwrap()
    }

    async fn meddle(&mut self) {
        self.router.lock().unwrap().preferred_until = None;
    }

    async fn state_of_others(&mut self) -> String {
        self.router.lock().unwrap().others.to_string()
    }
}

async fn outcome(fault: Fault, floor: bool) -> Result<(), Violation> {
    let router = Shared::default();
    run(&mut Bench {
        router,
        fault,
        floor,
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn a_right_announcer_passes() {
    outcome(Fault::None, true).await.unwrap();
    outcome(Fault::None, false).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_wrong_announcer_is_named() {
    for (fault, floor, rule) in [
        (Fault::ObeysStale, true, "older than the dead-man time"),
        (Fault::TouchesOthers, true, "touches only what is its own"),
        (
            Fault::ConfirmsTooEarly,
            true,
            "what is confirmed is observed",
        ),
        (Fault::NeverConfirms, true, "confirmed in the end"),
        (Fault::NeverRepairs, true, "what is confirmed is observed"),
        (
            Fault::ConfirmsWithdrawal,
            true,
            "never confirms a withdrawal",
        ),
        (
            Fault::DemotesWithoutFloor,
            false,
            "demotion without a floor",
        ),
        (
            Fault::ObservesNothing,
            true,
            "what is confirmed is observed",
        ),
    ] {
        let violation = outcome(fault, floor).await.unwrap_err().to_string();
        assert!(violation.contains(rule), "{fault:?}: {violation}");
    }
}

async fn expiry(fault: Fault) -> Result<(), Violation> {
    let mut trial = Trial {
        announcer: Box::new(InMemory {
            router: Shared::default(),
            fault,
            floor: true,
            dead_man: Duration::from_secs(5),
        }),
        service: ServiceName::new("tftp").unwrap(),
        addresses: ServiceAddresses::new(vec!["192.0.2.69/32".parse().unwrap()]).unwrap(),
    };
    let patience = if fault == Fault::NeverExpires {
        Duration::from_secs(3)
    } else {
        PATIENCE
    };
    trial.expires_within(patience).await
}

#[tokio::test]
async fn a_preference_that_never_expires_is_named() {
    expiry(Fault::None).await.unwrap();
    let violation = expiry(Fault::NeverExpires).await.unwrap_err();
    assert!(violation.rule.contains("lost by itself"), "{violation}");
}
