//! The children at work: in virtual time, so that no bound depends on the machine.

use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use proptest::prelude::*;
use tokio::time::Instant;

use super::*;
use crate::testing::fakes::{Behaviour, ScriptedCheck};

const TIMEOUT: Duration = Duration::from_millis(800);

/// A scripted child and how often it was built.
struct Part {
    script: ScriptedCheck,
    built: Arc<AtomicUsize>,
}

impl Part {
    fn new(behaviour: Behaviour) -> Self {
        Self {
            script: ScriptedCheck::new(behaviour),
            built: Arc::default(),
        }
    }

    fn child(&self, text: &str) -> Child {
        let (script, built) = (self.script.clone(), Arc::clone(&self.built));
        let build: BuildCheck = Arc::new(move || {
            built.fetch_add(1, Ordering::Relaxed);
            Box::new(script.clone())
        });
        Child::new(name(text), build)
    }

    fn built(&self) -> usize {
        self.built.load(Ordering::Relaxed)
    }
}

fn healthy() -> Behaviour {
    Behaviour::Say(Verdict::Healthy)
}

/// Two children under `all`, at work.
fn pair(first: &Part, second: &Part) -> Box<dyn HealthCheck> {
    let children = vec![first.child("first"), second.child("second")];
    (Combination::all(children).unwrap().build())()
}

#[tokio::test(start_paused = true)]
async fn a_child_that_panics_or_hangs_is_unknown_and_built_afresh() {
    for broken in [Behaviour::Panic, Behaviour::Hang] {
        let (bad, good) = (Part::new(broken), Part::new(healthy()));
        let mut whole = pair(&bad, &good);
        for round in 1..=3 {
            let started = Instant::now();
            let verdict = whole.check(TIMEOUT).await;
            assert!(matches!(verdict, Verdict::Unknown(_)), "{verdict}");
            assert!(verdict.to_string().contains("first unknown"), "{verdict}");
            assert!(started.elapsed() <= TIMEOUT + CUT);
            assert_eq!(bad.built(), round, "built afresh each time");
            assert_eq!(good.script.probes(), round as u64, "its sibling was probed");
        }
        bad.script.set(healthy());
        assert_eq!(whole.check(TIMEOUT).await, Verdict::Healthy);
        assert_eq!(good.built(), 1, "its sibling was left alone");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_sibling_found_counts_although_another_hangs() {
    let (bad, good) = (
        Part::new(Behaviour::Hang),
        Part::new(Behaviour::Say(Verdict::unhealthy("refused"))),
    );
    let verdict = pair(&bad, &good).check(TIMEOUT).await;
    assert!(
        verdict
            .to_string()
            .starts_with("unhealthy: all: second unhealthy: refused"),
        "{verdict}"
    );
}

#[tokio::test(start_paused = true)]
async fn children_run_side_by_side() {
    let slow = || Part::new(Behaviour::Slow(TIMEOUT / 2, Verdict::Healthy));
    let (first, second) = (slow(), slow());
    let started = Instant::now();
    assert_eq!(pair(&first, &second).check(TIMEOUT).await, Verdict::Healthy);
    assert_eq!(started.elapsed(), TIMEOUT / 2);
}

/// Says what time it was given.
struct Given;

#[async_trait]
impl HealthCheck for Given {
    async fn check(&mut self, timeout: Duration) -> Verdict {
        Verdict::unhealthy(format!("{timeout:?}"))
    }
}

#[tokio::test(start_paused = true)]
async fn each_child_is_given_its_part_of_the_time() {
    let build: BuildCheck = Arc::new(|| Box::new(Given));
    let children = vec![
        Child::new(name("rest"), Arc::clone(&build)),
        Child::new(name("own"), Arc::clone(&build)).with_timeout(TIMEOUT / 8),
        Child::new(name("greedy"), build).with_timeout(TIMEOUT * 2),
    ];
    let inner = Combination::all(children).unwrap();
    let outer = Combination::any(vec![Child::new(name("inner"), inner.build())]).unwrap();
    let said = (inner.build())().check(TIMEOUT).await.to_string();
    for part in [
        "rest unhealthy: 700ms",
        "own unhealthy: 100ms",
        "greedy unhealthy: 700ms",
    ] {
        assert!(said.contains(part), "{said}");
    }
    let said = (outer.build())().check(TIMEOUT).await.to_string();
    assert!(said.contains("rest unhealthy: 612.5ms"), "{said}");
}

#[tokio::test(start_paused = true)]
async fn a_build_that_panics_is_unknown() {
    let build: BuildCheck = Arc::new(|| panic!("no memory"));
    let good = Part::new(healthy());
    let children = vec![Child::new(name("first"), build), good.child("second")];
    let mut whole = (Combination::any(children).unwrap().build())();
    assert_eq!(whole.check(TIMEOUT).await, Verdict::Healthy);
    good.script.set(Behaviour::Say(Verdict::unhealthy("x")));
    let verdict = whole.check(TIMEOUT).await.to_string();
    assert!(
        verdict.starts_with("unknown") && verdict.contains("no memory"),
        "{verdict}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_push_is_reported_when_it_changes_the_whole() {
    let (first, second) = (Part::new(healthy()), Part::new(healthy()));
    let mut whole = pair(&first, &second);
    assert_eq!(whole.check(TIMEOUT).await, Verdict::Healthy);
    first.script.push(Verdict::Healthy);
    second.script.push(Verdict::unhealthy("reset"));
    let verdict = whole.changed().await.to_string();
    assert_eq!(verdict, "unhealthy: all: second unhealthy: reset");
    // The same again is no news; that it is gone is.
    second.script.push(Verdict::unhealthy("reset again"));
    first.script.push(Verdict::gone("exited"));
    let verdict = whole.changed().await;
    assert!(
        matches!(verdict, Verdict::Unhealthy(_, Evidence::Conclusive)),
        "{verdict}"
    );
    assert!(
        verdict.to_string().contains("first unhealthy: exited"),
        "{verdict}"
    );
    first.script.push(Verdict::Healthy);
    second.script.push(Verdict::Healthy);
    let mut last = whole.changed().await;
    while last != Verdict::Healthy {
        last = whole.changed().await; // either may be first
    }
}

#[tokio::test(start_paused = true)]
async fn a_push_that_changes_nothing_is_waited_through() {
    let (first, second) = (Part::new(healthy()), Part::new(healthy()));
    let children = vec![first.child("first"), second.child("second")];
    let mut whole = (Combination::any(children).unwrap().build())();
    assert_eq!(whole.check(TIMEOUT).await, Verdict::Healthy);
    first.script.push(Verdict::gone("exited"));
    let nothing = tokio::time::timeout(Duration::from_secs(3600), whole.changed()).await;
    assert!(nothing.is_err(), "{nothing:?}");
    // It was kept all the same.
    second.script.push(Verdict::unhealthy("late"));
    let verdict = whole.changed().await.to_string();
    assert!(
        verdict.starts_with("unhealthy") && verdict.contains("first"),
        "{verdict}"
    );
}

#[tokio::test(start_paused = true)]
async fn no_push_is_lost_when_the_wait_is_dropped_at_any_poll() {
    for polls in 0..8 {
        let (first, second) = (Part::new(healthy()), Part::new(healthy()));
        let mut whole = pair(&first, &second);
        assert_eq!(whole.check(TIMEOUT).await, Verdict::Healthy);
        let mut heard = None;
        {
            let mut wait = whole.changed();
            for poll in 0..polls {
                if poll == 2 {
                    first.script.push(Verdict::Healthy);
                }
                if poll == 4 {
                    second.script.push(Verdict::gone("exited"));
                }
                let ready =
                    std::future::poll_fn(|cx| std::task::Poll::Ready(wait.as_mut().poll(cx))).await;
                if let std::task::Poll::Ready(verdict) = ready {
                    heard = Some(verdict);
                    break;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
        if polls > 4 && heard.is_none() {
            heard = Some(whole.changed().await);
        }
        assert_eq!(heard.is_some(), polls > 4, "{heard:?} after {polls} polls");
    }
}

/// Pushes the same without end, or panics while it waits.
struct Chatter {
    panics: bool,
}

#[async_trait]
impl HealthCheck for Chatter {
    async fn check(&mut self, _: Duration) -> Verdict {
        Verdict::Healthy
    }

    async fn changed(&mut self) -> Verdict {
        assert!(!self.panics, "it was wrong");
        Verdict::Healthy
    }
}

#[tokio::test(start_paused = true)]
async fn a_child_that_pushes_without_end_holds_up_nobody() {
    let quiet = Part::new(healthy());
    let chatter: BuildCheck = Arc::new(|| Box::new(Chatter { panics: false }));
    let children = vec![Child::new(name("chatter"), chatter), quiet.child("quiet")];
    let mut whole = (Combination::all(children).unwrap().build())();
    assert_eq!(whole.check(TIMEOUT).await, Verdict::Healthy);
    let minute = Duration::from_secs(60);
    assert!(tokio::time::timeout(minute, whole.changed()).await.is_err());
    quiet.script.push(Verdict::gone("exited"));
    assert!(is_gone(&whole.changed().await));
}

#[tokio::test(start_paused = true)]
async fn a_child_that_panics_while_it_waits_is_unknown() {
    let quiet = Part::new(healthy());
    let panics: BuildCheck = Arc::new(|| Box::new(Chatter { panics: true }));
    let children = vec![Child::new(name("bad"), panics), quiet.child("quiet")];
    let mut whole = (Combination::all(children).unwrap().build())();
    assert_eq!(whole.check(TIMEOUT).await, Verdict::Healthy);
    let verdict = whole.changed().await.to_string();
    assert!(
        verdict.starts_with("unknown") && verdict.contains("it was wrong"),
        "{verdict}"
    );
    quiet.script.push(Verdict::gone("exited"));
    assert!(is_gone(&whole.changed().await));
    assert_eq!(whole.check(TIMEOUT).await, Verdict::Healthy, "built afresh");
}

fn is_gone(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Unhealthy(_, Evidence::Conclusive))
}

#[derive(Debug, Clone)]
enum Does {
    Says(u8),
    SaysLate(u16, u8),
    Hangs,
    Panics,
}

impl Does {
    fn verdict(said: u8) -> Verdict {
        match said {
            0 => Verdict::Healthy,
            1 => Verdict::unhealthy("failed"),
            2 => Verdict::gone("gone"),
            _ => Verdict::unknown("broken"),
        }
    }

    fn behaviour(&self) -> Behaviour {
        match self {
            Self::Says(said) => Behaviour::Say(Self::verdict(*said)),
            Self::SaysLate(ms, said) => {
                Behaviour::Slow(Duration::from_millis((*ms).into()), Self::verdict(*said))
            }
            Self::Hangs => Behaviour::Hang,
            Self::Panics => Behaviour::Panic,
        }
    }

    /// What the whole is to believe of it.
    fn believed(&self) -> Verdict {
        match self {
            Self::Says(said) => Self::verdict(*said),
            Self::SaysLate(ms, said) if Duration::from_millis((*ms).into()) < TIMEOUT + CUT => {
                Self::verdict(*said)
            }
            Self::SaysLate(..) | Self::Hangs => {
                Verdict::unknown("no answer within its time-out and a grace: it hung")
            }
            Self::Panics => Verdict::unknown("it panicked: scripted panic"),
        }
    }
}

fn does() -> impl Strategy<Value = Does> {
    prop_oneof![
        4 => (0_u8..4).prop_map(Does::Says),
        2 => (0_u16..1800, 0_u8..4).prop_map(|(ms, said)| Does::SaysLate(ms - ms % 7, said)),
        1 => Just(Does::Hangs),
        1 => Just(Does::Panics),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Rounds of probes of children that do anything: each round, the whole is judged from
    /// exactly what each child said in time, and comes in time itself.
    #[test]
    fn siblings_neither_delay_nor_disturb_each_other(
        rounds in proptest::collection::vec(proptest::collection::vec(does(), 3), 1..4),
        needed in 1_u32..=3,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let parts: Vec<_> = (0..3).map(|_| Part::new(healthy())).collect();
            let children = ["a", "b", "c"].iter().zip(&parts).map(|(n, part)| part.child(n));
            let plan = Combination::quorum(needed, children.collect()).unwrap();
            let mut whole = (plan.build())();
            for round in rounds {
                for (part, does) in parts.iter().zip(&round) {
                    part.script.set(does.behaviour());
                }
                let started = Instant::now();
                let verdict = whole.check(TIMEOUT).await;
                let believed: Vec<_> = round.iter().map(Does::believed).collect();
                assert_eq!(verdict, plan.judge(&believed));
                assert!(started.elapsed() <= TIMEOUT + CUT + Duration::from_millis(1));
            }
        });
    }
}
