//! `--dry-run`: what would be announced and checked, what the checks say now, and what would be
//! decided if they went on to say so.
//!
//! It looks and probes, with the capabilities that the daemon would keep, and changes nothing.

use std::fmt::Write as _;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anycast_announce::kernel::KernelShare;
use anycast_core::announce::InForce;
use anycast_core::health::{Severity, Verdict};
use anycast_core::intent_store::OrderKind;
use anycast_core::intent_store::file::{IntentFile, SystemClock};
use anycast_core::machine::{CheckRule, Intent, Machine, Policy};
use anycast_core::node::{CheckSpec, OnStop};
use anycast_daemon::terminal::say;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::config::{Config, Service};
use crate::reload;

/// Probes at once: enough to be quick, few enough for the usual limit of open files.
const AT_ONCE: usize = 64;
/// Beyond its own time-out, how long a probe may take.
const GRACE: Duration = Duration::from_secs(1);

/// Prints what a start would do.
pub(crate) async fn run(path: &Path, config: &Config) {
    say(&format!(
        "{}: the configuration can be used",
        path.display()
    ));
    let admin = match &config.node.admin {
        Some(admin) => format!("/status would be served at {:?}", admin.addresses()),
        None => "no [node] admin: /status would not be served".to_owned(),
    };
    say(&format!("node {}: {admin}", config.node.name));
    let slots = Arc::new(Semaphore::new(AT_ONCE));
    let probes: Vec<_> = config
        .services
        .iter()
        .map(|service| {
            let probe = |check: &CheckSpec| probe(check.clone(), Arc::clone(&slots));
            service.checks.iter().map(probe).collect::<Vec<_>>()
        })
        .collect();
    for (service, probes) in config.services.iter().zip(probes) {
        say(&describe(service));
        match service.announce.probe(service.identity.role).await {
            Ok(None) => {}
            Ok(Some(reason)) => say(&format!("  would wait for its routing daemon: {reason}")),
            Err(error) => say(&format!("  could not be announced here: {error}")),
        }
        let (observed, told) = in_force(service).await;
        say(&format!("  in force now: {told}"));
        let mut verdicts = Vec::with_capacity(probes.len());
        for (check, probe) in service.checks.iter().zip(probes) {
            let verdict = said(probe).await;
            say(&format!("  {}: {verdict}", describe_check(check)));
            verdicts.push(verdict);
        }
        let order = order(service, &config.node.state_dir);
        say(&format!(
            "  would come to be: {}",
            outlook(service, observed, &verdicts, order)
        ));
    }
}

/// What the service would come to be if its checks went on to say this: the machine itself is
/// asked, with counts and a hold-down that are over at once.
fn outlook(
    service: &Service,
    observed: Option<InForce>,
    verdicts: &[Verdict],
    order: Option<Intent>,
) -> String {
    let rule = |check: &CheckSpec| CheckRule {
        name: check.name.clone(),
        severity: check.severity,
    };
    let rules: Vec<_> = service.checks.iter().map(rule).collect();
    let policy = Policy {
        rise: NonZeroU32::MIN,
        fall: NonZeroU32::MIN,
        hold_down: Duration::ZERO,
        ..service.policy
    };
    let now = Instant::now();
    let mut machine = match Machine::new(service.identity.clone(), policy, &rules, observed, now) {
        Ok(machine) => machine,
        Err(error) => return format!("nothing: {error}"),
    };
    if let Some(order) = order {
        machine.handle_intent(now, order);
    }
    for (rule, verdict) in rules.iter().zip(verdicts) {
        if let Some(check) = machine.check_id(&rule.name) {
            machine.handle_verdict(now, check, verdict.clone());
        }
    }
    match machine.decide(now) {
        None => format!(
            "as it is for as long as the boost of before lasts, then demoted: {}",
            machine.reason()
        ),
        Some(decision) => format!("{}: {}", decision.preference(), machine.reason()),
    }
}

/// What an operator ordered before and a start would restore, else what the file orders.
fn order(service: &Service, state_dir: &Path) -> Option<Intent> {
    let standing = reload::standing(service);
    let saved = match IntentFile::new(state_dir, service.name()).load() {
        Ok(saved) => saved.filter(|saved| saved.by != standing.by),
        Err(error) => {
            return Some(Intent::Demote {
                reason: format!("an order that cannot be read: {error}").into(),
                by: "this node".into(),
                until: None,
            });
        }
    };
    let reading = SystemClock::new().read();
    let saved = saved.and_then(|saved| saved.restore(&reading));
    let (kind, reason, by) = match saved {
        Some(saved) => (saved.order, saved.reason, saved.by),
        None => {
            let (kind, reason) = standing.order?;
            (kind, reason, standing.by)
        }
    };
    // Its end, if it has one, is not waited for here.
    let until = None;
    Some(match kind {
        OrderKind::Demote => Intent::Demote { reason, by, until },
        OrderKind::Withdraw => Intent::Withdraw { reason, by, until },
    })
}

fn describe(service: &Service) -> String {
    let policy = &service.policy;
    let mut text = format!(
        "\nservice {}, {}: rise {}, fall {}, hold-down {}\n  would be announced: ",
        service.name(),
        service.identity.role,
        policy.rise,
        policy.fall,
        humantime::format_duration(policy.hold_down),
    );
    let addresses: Vec<_> = service.identity.addresses.iter().collect();
    for (index, address) in addresses.iter().enumerate() {
        let comma = if index == 0 { "" } else { ", " };
        // Writing to a string cannot fail.
        let _ = write!(text, "{comma}{address}");
    }
    let on_stop = match service.on_stop {
        OnStop::Demote => "demoted".to_owned(),
        OnStop::Keep(time) => format!("kept for {}", humantime::format_duration(time)),
        OnStop::Withdraw => "withdrawn".to_owned(),
    };
    let _ = match service.announce.kernel() {
        Some(kernel) => write!(
            text,
            "; permanently on {}, and on lo while preferred (demoted {} after a crash, \
             {on_stop} at a stop)",
            kernel.interface(),
            humantime::format_duration(kernel.dead_man()),
        ),
        None => write!(
            text,
            "; as it is at a crash, since nothing lowers it then, {on_stop} at a stop"
        ),
    };
    let _ = write!(text, "\n  by: {}", service.announce);
    text
}

/// What is in force, and that in words.
async fn in_force(service: &Service) -> (Option<InForce>, String) {
    let role = service.identity.role;
    let Some(mut announcer) = service.announce.announcer(role, &KernelShare::default()) else {
        return (None, "not announced".to_owned());
    };
    match announcer.observe(&service.identity.addresses).await {
        Ok(observation) => {
            let agreed = observation.agreed();
            (agreed, observed(agreed).to_owned())
        }
        Err(error) => (None, format!("cannot be told: {error}")),
    }
}

const fn observed(agreed: Option<InForce>) -> &'static str {
    match agreed {
        Some(InForce::Preferred) => "preferred",
        Some(InForce::Demoted) => "demoted",
        Some(InForce::Withdrawn) => "not announced",
        None => "partly announced",
    }
}

fn describe_check(check: &CheckSpec) -> String {
    let severity = match check.severity {
        Severity::Critical => "",
        Severity::Warning => ", reported only",
    };
    format!(
        "check {} (every {}, within {}{severity})",
        check.name,
        humantime::format_duration(check.interval),
        humantime::format_duration(check.timeout),
    )
}

/// Probes once, in a task of its own: a check that panics says so, and no more.
fn probe(check: CheckSpec, slots: Arc<Semaphore>) -> JoinHandle<Verdict> {
    tokio::spawn(async move {
        let Ok(_slot) = slots.acquire_owned().await else {
            return Verdict::unknown("it was not begun");
        };
        let begun = Instant::now();
        let mut probe = (check.build)();
        let within = check.timeout + GRACE;
        match tokio::time::timeout(within, probe.check(check.timeout)).await {
            Ok(verdict) => verdict,
            Err(_) => Verdict::unknown(format!("it hangs since {:?}", begun.elapsed())),
        }
    })
}

async fn said(probe: JoinHandle<Verdict>) -> Verdict {
    match probe.await {
        Ok(verdict) => verdict,
        Err(error) => Verdict::unknown(format!("it panicked: {error}")),
    }
}
