//! Checks that panic, hang, block or starve: `Unknown`, built afresh, and nobody else's business.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;
use crate::HealthCheck;

/// A deadline of real time that is far beyond what anything here takes.
const PATIENT: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(100);

/// How a check goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    PanicWhenBuilt,
    PanicInCheck,
    PanicInChanged,
    HangInCheck,
    /// Blocks its thread until it is let go of.
    BlockWhenBuilt,
    BlockInCheck,
    BlockInChanged,
    /// Never yields for longer than its time-out, again and again.
    SleepInCheck,
    /// The same, and burns processor time.
    SpinInCheck,
}

/// A check that goes wrong as long as it is told to. Clones share it.
#[derive(Clone)]
struct Faulty(Arc<Shared>);

struct Shared {
    fault: Mutex<Fault>,
    built: AtomicUsize,
    /// Threads that are blocked now, and most that ever were at once.
    blocked: AtomicUsize,
    most: AtomicUsize,
    /// Names of the threads that probes ran in.
    threads: Mutex<BTreeMap<String, usize>>,
    let_go: AtomicBool,
}

impl Faulty {
    fn new(fault: Fault) -> Self {
        Self(Arc::new(Shared {
            fault: Mutex::new(fault),
            built: AtomicUsize::new(0),
            blocked: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            threads: Mutex::default(),
            let_go: AtomicBool::new(false),
        }))
    }

    fn set(&self, fault: Fault) {
        *self.0.fault.lock().unwrap() = fault;
    }

    fn is(&self, fault: Fault) -> bool {
        *self.0.fault.lock().unwrap() == fault
    }

    fn let_go(&self) {
        self.0.let_go.store(true, Ordering::SeqCst);
    }

    fn built(&self) -> usize {
        self.0.built.load(Ordering::SeqCst)
    }

    fn blocked(&self) -> usize {
        self.0.blocked.load(Ordering::SeqCst)
    }

    fn block(&self) {
        let now = self.0.blocked.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.most.fetch_max(now, Ordering::SeqCst);
        // A test that fails leaves no thread behind for ever.
        let begun = Instant::now();
        while !self.0.let_go.load(Ordering::SeqCst) && begun.elapsed() < PATIENT * 2 {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.0.blocked.fetch_sub(1, Ordering::SeqCst);
    }

    fn spec(&self, name: &str) -> CheckSpec {
        let check = self.clone();
        let build = move || -> Box<dyn HealthCheck> {
            check.0.built.fetch_add(1, Ordering::SeqCst);
            assert!(!check.is(Fault::PanicWhenBuilt), "no such thing");
            if check.is(Fault::BlockWhenBuilt) {
                check.block();
            }
            Box::new(check.clone())
        };
        CheckSpec::new(
            CheckName::new(name).unwrap(),
            SHORT * 2,
            SHORT,
            Arc::new(build),
        )
    }
}

#[async_trait::async_trait]
impl HealthCheck for Faulty {
    async fn check(&mut self, timeout: Duration) -> Verdict {
        let name = std::thread::current().name().unwrap_or("").to_owned();
        *self.0.threads.lock().unwrap().entry(name).or_default() += 1;
        let fault = *self.0.fault.lock().unwrap();
        match fault {
            Fault::PanicInCheck => panic!("no such thing"),
            Fault::HangInCheck => std::future::pending().await,
            Fault::BlockInCheck => self.block(),
            Fault::SleepInCheck => std::thread::sleep(timeout * 8),
            Fault::SpinInCheck => {
                let begun = Instant::now();
                while begun.elapsed() < timeout * 8 {
                    std::hint::spin_loop();
                }
            }
            Fault::None
            | Fault::PanicWhenBuilt
            | Fault::PanicInChanged
            | Fault::BlockWhenBuilt
            | Fault::BlockInChanged => {}
        }
        Verdict::Healthy
    }

    async fn changed(&mut self) -> Verdict {
        assert!(!self.is(Fault::PanicInChanged), "no such thing");
        if self.is(Fault::BlockInChanged) {
            self.block();
        }
        std::future::pending().await
    }
}

/// Two threads for everything, and two for the probes.
struct Threads {
    probes: Option<tokio::runtime::Runtime>,
}

impl Threads {
    fn new() -> Self {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let builder = builder.worker_threads(2).thread_name("probes").enable_all();
        Self {
            probes: Some(builder.build().unwrap()),
        }
    }

    fn handle(&self) -> Handle {
        self.probes.as_ref().unwrap().handle().clone()
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(probes) = self.probes.take() {
            probes.shutdown_background();
        }
    }
}

/// A service with a check that is well, and these beside it.
fn beside(well: &ScriptedCheck, faulty: &[Faulty], to: &RecordingAnnouncer) -> ServiceSpec {
    let mut spec = spec("tftp", &[("well", well)], to);
    spec.checks[0].interval = SHORT;
    spec.policy.hold_down = Duration::ZERO;
    for (number, check) in faulty.iter().enumerate() {
        spec.checks.push(check.spec(&format!("faulty{number}")));
    }
    spec
}

impl Running {
    /// Waits until the last verdict of this check is so.
    async fn until_told(&mut self, name: &str, what: &str) {
        let so = |snapshot: &Snapshot| {
            let check = snapshot.checks.iter().find(|c| c.name.as_str() == name);
            check.is_some_and(|check| match &check.last {
                Some((_, Verdict::Unknown(why))) => why.as_str().contains(what),
                Some((_, verdict)) => verdict.to_string().contains(what),
                None => false,
            })
        };
        self.until(&format!("{name} {what}"), so).await;
    }
}

/// Real time until it is so.
async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < PATIENT, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The other check goes on, the boost is renewed, and nothing is lowered.
async fn others_go_on(well: &ScriptedCheck, announcer: &RecordingAnnouncer) {
    let (probes, applied) = (well.probes(), announcer.applied().len());
    until("the other check goes on", || well.probes() >= probes + 20).await;
    until("the boost is renewed", || {
        announcer.applied().len() > applied
    })
    .await;
    let boost = |(_, preference): &(Instant, Preference)| *preference == Preference::Preferred;
    let applied = announcer.applied();
    let since = applied.iter().position(boost).unwrap();
    assert!(applied[since..].iter().all(boost), "it was lowered");
    assert_eq!(announcer.in_force(), InForce::Preferred);
}

/// A dead man that a busy machine does not overtake, renewed often enough to be seen.
fn announcer() -> RecordingAnnouncer {
    RecordingAnnouncer::new(Duration::from_secs(6))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_that_goes_wrong_is_unknown_is_built_afresh_and_delays_nobody() {
    for (fault, told) in [
        (Fault::PanicWhenBuilt, "it panicked: no such thing"),
        (Fault::PanicInCheck, "it panicked: no such thing"),
        (Fault::PanicInChanged, "it panicked: no such thing"),
        (Fault::HangInCheck, "it hung"),
        (Fault::BlockWhenBuilt, "it blocks its thread"),
        (Fault::BlockInCheck, "it blocks its thread"),
        (Fault::BlockInChanged, "it blocks its thread"),
        (Fault::SleepInCheck, "its thread"),
        (Fault::SpinInCheck, "its thread"),
    ] {
        let threads = Threads::new();
        let (well, faulty, announcer) = (healthy(), Faulty::new(Fault::None), announcer());
        let spec = beside(&well, std::slice::from_ref(&faulty), &announcer);
        let mut running = Running::start_with(spec, Some(threads.handle()));
        running.until_in_force(Preference::Preferred).await;
        faulty.set(fault);
        if fault == Fault::PanicWhenBuilt || fault == Fault::BlockWhenBuilt {
            // Built once, it has to fail before it is built again.
            faulty.set(Fault::PanicInCheck);
            running.until_told("faulty0", "panicked").await;
            faulty.set(fault);
        }
        running.until_told("faulty0", told).await;
        let built = faulty.built();
        others_go_on(&well, &announcer).await;
        assert!(faulty.blocked() <= 1, "{fault:?}");
        faulty.set(Fault::None);
        faulty.let_go();
        running.until_told("faulty0", "healthy").await;
        assert!(faulty.built() > built, "{fault:?}: not built afresh");
        let state = running.state.borrow();
        assert!(state.checks.iter().all(|check| check.phase == Phase::Up));
        assert_eq!(announcer.in_force(), InForce::Preferred);
    }
}

/// As many checks block as there are threads, and more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checks_that_block_every_thread_delay_nobody() {
    let threads = Threads::new();
    let (well, announcer) = (healthy(), announcer());
    let faulty: Vec<_> = (0..5).map(|_| Faulty::new(Fault::None)).collect();
    let spec = beside(&well, &faulty, &announcer);
    let mut running = Running::start_with(spec, Some(threads.handle()));
    running.until_in_force(Preference::Preferred).await;
    for check in &faulty {
        check.set(Fault::BlockInCheck);
    }
    for (number, check) in faulty.iter().enumerate() {
        until("it blocks a thread", || check.blocked() == 1).await;
        let name = format!("faulty{number}");
        running.until_told(&name, "blocks its thread").await;
    }
    running.until_told("well", "healthy").await;
    others_go_on(&well, &announcer).await;
    for check in &faulty {
        check.set(Fault::None);
        check.let_go();
    }
    for (number, check) in faulty.iter().enumerate() {
        let name = format!("faulty{number}");
        running.until_told(&name, "healthy").await;
        assert_eq!(check.0.most.load(Ordering::SeqCst), 1, "{name}");
    }
    others_go_on(&well, &announcer).await;
}

/// From its second offence on it takes a thread from nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_that_has_blocked_a_thread_gets_one_of_its_own() {
    let threads = Threads::new();
    let (well, faulty, announcer) = (healthy(), Faulty::new(Fault::None), announcer());
    let spec = beside(&well, std::slice::from_ref(&faulty), &announcer);
    let mut running = Running::start_with(spec, Some(threads.handle()));
    running.until_in_force(Preference::Preferred).await;
    let names = || faulty.0.threads.lock().unwrap().clone();
    assert_eq!(names().keys().collect::<Vec<_>>(), ["probes"]);
    faulty.set(Fault::SleepInCheck);
    running.until_told("faulty0", "one of its own").await;
    let before = names()["probes"];
    until("more of them", || {
        names()
            .get("anycast-probe")
            .is_some_and(|count| *count >= 3)
    })
    .await;
    assert_eq!(names()["probes"], before);
    others_go_on(&well, &announcer).await;
    // Its threads end with it.
    running.node.stop().await;
    until("no thread is left", || probe_threads() == 0).await;
}

fn probe_threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let name = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm"));
    tasks
        .filter(|task| task.path().join("comm").exists())
        .filter_map(|task| name(task).ok())
        .filter(|name| name.trim() == "anycast-probe")
        .count()
}

/// Reloads, while a check blocks its thread for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_does_not_let_a_check_block_a_second_thread() {
    let threads = Threads::new();
    let (well, faulty, announcer) = (healthy(), Faulty::new(Fault::None), announcer());
    let build = || beside(&well, std::slice::from_ref(&faulty), &announcer);
    let spec = build();
    let (service, policy) = (spec.identity.service.clone(), spec.policy);
    let mut running = Running::start_with(spec, Some(threads.handle()));
    running.until_in_force(Preference::Preferred).await;
    faulty.set(Fault::BlockInCheck);
    until("it blocks", || faulty.blocked() == 1).await;
    let handle = running.node.handle();
    for _ in 0..10 {
        let (policy, checks) = (policy, build().checks);
        handle.reconfigure(&service, policy, checks).await.unwrap();
        running.until_told("faulty0", "blocks its thread").await;
        tokio::time::sleep(SHORT).await;
    }
    others_go_on(&well, &announcer).await;
    assert_eq!(faulty.0.most.load(Ordering::SeqCst), 1);
    faulty.set(Fault::None);
    faulty.let_go();
    running.until_told("faulty0", "healthy").await;
}

/// Nobody's check is to blame, and nothing can be done but wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_that_is_starved_is_unknown_until_it_is_run_again() {
    let threads = Threads::new();
    let (well, announcer) = (healthy(), announcer());
    let mut running = Running::start_with(beside(&well, &[], &announcer), Some(threads.handle()));
    running.until_in_force(Preference::Preferred).await;
    let blocker = Faulty::new(Fault::None);
    for _ in 0..2 {
        let blocker = blocker.clone();
        threads.handle().spawn(async move { blocker.block() });
    }
    running
        .until_told("well", "nothing is run where it runs")
        .await;
    let applied = announcer.applied().len();
    until("the boost is renewed", || {
        announcer.applied().len() > applied
    })
    .await;
    blocker.let_go();
    running.until_told("well", "healthy").await;
    others_go_on(&well, &announcer).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_task_is_leaked() {
    let threads = Threads::new();
    let here = Handle::current().metrics();
    let there = threads.handle().metrics();
    let before = (here.num_alive_tasks(), there.num_alive_tasks());
    let alive = || (here.num_alive_tasks(), there.num_alive_tasks());
    let (well, announcer) = (healthy(), announcer());
    let faulty = [
        Faulty::new(Fault::HangInCheck),
        Faulty::new(Fault::PanicInCheck),
        Faulty::new(Fault::SleepInCheck),
    ];
    let build = || beside(&well, &faulty, &announcer);
    let spec = build();
    let (service, policy) = (spec.identity.service.clone(), spec.policy);
    let mut running = Running::start_with(spec, Some(threads.handle()));
    running.until_in_force(Preference::Demoted).await;
    for name in ["faulty0", "faulty1", "faulty2"] {
        running.until_told(name, "").await;
    }
    let handle = running.node.handle();
    let reload = async || {
        let (policy, checks) = (policy, build().checks);
        handle.reconfigure(&service, policy, checks).await.unwrap();
    };
    reload().await;
    let most = {
        tokio::time::sleep(SHORT).await;
        let (here, there) = alive();
        (here + 8, there + 16)
    };
    for _ in 0..50 {
        for _ in 0..4 {
            reload().await;
        }
        until("what reloads left behind has ended", || {
            let (here, there) = alive();
            here <= most.0 && there <= most.1
        })
        .await;
    }
    drop(handle);
    let Running { node, state } = running;
    node.stop().await;
    drop(state);
    until("every task has ended", || alive() == before).await;
}
