//! The suite on a service in memory: it passes a right check and names each wrong one.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use super::*;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    BlamesTheHealthy,
    BlamesForItsOwn,
    TrustsItsOwnFailure,
    TrustsAnything,
    SaysNoReason,
    KnowsTooMuch,
    Remembers,
    ChangesTheService,
    Panics,
    PanicsOnAShortTimeout,
    Hangs,
    IsLate,
    BlamesWhenStarved,
    BlocksItsThread,
    BlocksForEver,
    BreaksWhenDropped,
    SharesALock,
    LeaksTasks,
    LeaksFiles,
    CriesWolf,
    NeverTells,
    ForgetsADeath,
}

/// How late a time-out may be noticed and still be believed.
const LATE: Duration = Duration::from_millis(200);

#[derive(Default)]
struct Service {
    condition: Mutex<Option<Condition>>,
    writes: AtomicU32,
    died: Notify,
    /// Only [`Fault::SharesALock`] takes it.
    lock: tokio::sync::Mutex<()>,
    leaked: Mutex<Vec<std::fs::File>>,
}

impl Service {
    fn condition(&self) -> Condition {
        let condition = self
            .condition
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        condition.unwrap_or(Condition::Well)
    }
}

struct InMemory {
    service: Arc<Service>,
    fault: Fault,
    first: Option<Verdict>,
    busy: bool,
    alive: bool,
    /// It has waited for a push, and trusts in it from then on.
    listened: bool,
}

impl InMemory {
    fn found(&self) -> Verdict {
        let reason = if self.fault == Fault::SaysNoReason {
            ""
        } else {
            "found"
        };
        match self.service.condition() {
            Condition::Well if self.fault == Fault::BlamesTheHealthy => Verdict::unhealthy(reason),
            Condition::Well => Verdict::Healthy,
            Condition::CheckerFails if self.fault == Fault::BlamesForItsOwn => {
                Verdict::unhealthy(reason)
            }
            Condition::CheckerFails if self.fault == Fault::TrustsItsOwnFailure => Verdict::Healthy,
            Condition::CheckerFails => Verdict::unknown(reason),
            Condition::Wrong | Condition::Garbage if self.fault == Fault::TrustsAnything => {
                Verdict::Healthy
            }
            Condition::Dead => Verdict::gone(reason),
            Condition::Wrong if self.fault == Fault::KnowsTooMuch => Verdict::gone(reason),
            Condition::Silent | Condition::Refusing | Condition::Wrong | Condition::Garbage => {
                Verdict::unhealthy(reason)
            }
        }
    }

    /// Waits in vain; what comes of it depends on whether it was run in time.
    async fn silence(&self, timeout: Duration) -> Verdict {
        let deadline = Instant::now() + timeout;
        match self.fault {
            Fault::Hangs => std::future::pending().await,
            Fault::IsLate => tokio::time::sleep(timeout + GRACE * 2).await,
            Fault::BlocksItsThread => std::thread::sleep(timeout),
            _ => tokio::time::sleep_until(deadline).await,
        }
        let late = deadline.elapsed();
        if late > LATE && !matches!(self.fault, Fault::BlamesWhenStarved | Fault::IsLate) {
            return Verdict::unknown("not run in time");
        }
        Verdict::unhealthy("silent")
    }

    fn misbehave(&mut self, timeout: Duration) {
        let service = Arc::clone(&self.service);
        match self.fault {
            Fault::Panics => panic!("on purpose"),
            Fault::PanicsOnAShortTimeout => assert!(timeout > Duration::from_millis(1)),
            Fault::ChangesTheService => {
                service.writes.fetch_add(1, Ordering::Relaxed);
            }
            Fault::LeaksTasks => drop(tokio::spawn(std::future::pending::<()>())),
            Fault::LeaksFiles => {
                let file = std::fs::File::open("/dev/null").unwrap();
                service.leaked.lock().unwrap().push(file);
            }
            Fault::BlocksForEver => loop {
                // Until the end of the process.
                std::thread::park();
            },
            _ => {}
        }
    }
}

#[async_trait]
impl HealthCheck for InMemory {
    async fn check(&mut self, timeout: Duration) -> Verdict {
        let apart = std::thread::current().name() == Some("anycast-suite");
        if self.fault != Fault::BlocksForEver || apart {
            self.misbehave(timeout);
        }
        let shared = Arc::clone(&self.service);
        let _lock = match self.fault {
            Fault::SharesALock => match tokio::time::timeout(timeout, shared.lock.lock()).await {
                Ok(lock) => Some(lock),
                Err(_) => return Verdict::unknown("its lock is taken"),
            },
            _ => None,
        };
        if self.fault == Fault::ForgetsADeath && self.listened {
            return Verdict::Healthy;
        }
        if self.fault == Fault::BreaksWhenDropped && self.busy {
            return Verdict::unknown("busy");
        }
        self.busy = true;
        tokio::time::sleep(Duration::from_millis(1)).await;
        let verdict = match self.service.condition() {
            Condition::Silent => self.silence(timeout).await,
            _ => self.found(),
        };
        self.busy = false;
        self.alive = verdict == Verdict::Healthy;
        if self.fault == Fault::Remembers {
            return self.first.get_or_insert(verdict).clone();
        }
        verdict
    }

    async fn changed(&mut self) -> Verdict {
        match self.fault {
            Fault::CriesWolf => return Verdict::unhealthy("wolf"),
            Fault::NeverTells => std::future::pending().await,
            _ => {}
        }
        self.listened = true;
        loop {
            let died = self.service.died.notified();
            let forgets = self.fault == Fault::ForgetsADeath;
            if !forgets && self.alive && self.service.condition() == Condition::Dead {
                self.alive = false;
                return Verdict::gone("dead");
            }
            died.await;
            if forgets {
                return Verdict::gone("dead");
            }
        }
    }
}

struct Bench {
    service: Arc<Service>,
    fault: Fault,
}

#[async_trait]
impl HealthBench for Bench {
    fn build(&self) -> BuildCheck {
        let (service, fault) = (Arc::clone(&self.service), self.fault);
        Arc::new(move || {
            Box::new(InMemory {
                service: Arc::clone(&service),
                fault,
                first: None,
                busy: false,
                alive: false,
                listened: false,
            })
        })
    }

    fn conditions(&self) -> Vec<Condition> {
        vec![
            Condition::Well,
            Condition::Silent,
            Condition::Refusing,
            Condition::Wrong,
            Condition::Garbage,
            Condition::Dead,
            Condition::CheckerFails,
        ]
    }

    async fn bring_about(&mut self, condition: Condition) {
        *self.service.condition.lock().unwrap() = Some(condition);
        if condition == Condition::Dead {
            self.service.died.notify_waiters();
        }
    }

    fn pushes(&self) -> bool {
        true
    }

    async fn service(&mut self) -> String {
        self.service.writes.load(Ordering::Relaxed).to_string()
    }
}

/// In a runtime of its own, whose tasks are counted.
fn outcome(fault: Fault) -> Result<(), Violation> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let service = Arc::default();
    runtime.block_on(run(&mut Bench { service, fault }))
}

/// The suite counts the process's open files, so those that leave some come last, alone.
#[test]
fn a_right_check_passes_and_a_wrong_one_is_named() {
    outcome(Fault::None).unwrap();
    let cases = [
        (Fault::BlamesTheHealthy, "Healthy: the service answered"),
        (Fault::BlamesForItsOwn, "cannot do its work is Unknown"),
        (Fault::TrustsItsOwnFailure, "cannot do its work is Unknown"),
        (Fault::TrustsAnything, "answers wrongly is Unhealthy"),
        (Fault::SaysNoReason, "a reason is never empty"),
        (Fault::KnowsTooMuch, "silence and wrong answers are"),
        (Fault::Remembers, "each probe looks afresh"),
        (Fault::ChangesTheService, "must not change the service"),
        (Fault::Panics, "errors are verdicts"),
        (Fault::PanicsOnAShortTimeout, "errors are verdicts"),
        (Fault::Hangs, "answer within `timeout`"),
        (Fault::IsLate, "call a service that has not answered"),
        (Fault::BlamesWhenStarved, "notices late says nothing"),
        (Fault::BlocksItsThread, "must not block the thread"),
        (Fault::BlocksForEver, "must not block the thread"),
        (Fault::BreaksWhenDropped, "dropped at any await"),
        (Fault::SharesALock, "one that hangs holds up no other"),
        (Fault::LeaksTasks, "leaves nothing open or running"),
        (Fault::CriesWolf, "waits until the check learns"),
        (Fault::NeverTells, "says what it learnt"),
        (Fault::ForgetsADeath, "while nobody waited"),
    ];
    let outcomes = cases.map(|(fault, rule)| {
        let thread = std::thread::spawn(move || outcome(fault));
        (fault, rule, thread)
    });
    for (fault, rule, thread) in outcomes {
        names(fault, rule, thread.join().unwrap());
    }
    let left = outcome(Fault::LeaksFiles);
    names(Fault::LeaksFiles, "leaves nothing open or running", left);
}

#[track_caller]
fn names(fault: Fault, rule: &str, outcome: Result<(), Violation>) {
    let violation = outcome.expect_err(&format!("{fault:?}")).to_string();
    assert!(violation.contains(rule), "{fault:?}: {violation}");
}
