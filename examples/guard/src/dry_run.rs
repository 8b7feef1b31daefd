//! `--dry-run`: what would be announced and checked, and what the checks say now.
//!
//! It looks and probes, with the capabilities that the daemon would keep, and changes nothing.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anycast_announce::kernel::KernelShare;
use anycast_core::announce::{InForce, Observation};
use anycast_core::health::{Severity, Verdict};
use anycast_core::node::{CheckSpec, OnStop};
use anycast_daemon::terminal::say;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::config::{Config, Service};

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
        say(&format!("  in force now: {}", in_force(service).await));
        for (check, probe) in service.checks.iter().zip(probes) {
            say(&format!(
                "  {}: {}",
                describe_check(check),
                said(probe).await
            ));
        }
    }
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
    if service.is_removed {
        text.push_str("\n  state = \"removed\": would be demoted, whatever its checks say");
    }
    text
}

async fn in_force(service: &Service) -> String {
    let role = service.identity.role;
    let Some(mut announcer) = service.announce.announcer(role, &KernelShare::default()) else {
        return "not announced".to_owned();
    };
    match announcer.observe(&service.identity.addresses).await {
        Ok(observation) => observed(&observation),
        Err(error) => format!("cannot be told: {error}"),
    }
}

fn observed(observation: &Observation) -> String {
    match observation.agreed() {
        Some(InForce::Preferred) => "preferred".to_owned(),
        Some(InForce::Demoted) => "demoted".to_owned(),
        Some(InForce::Withdrawn) => "not announced".to_owned(),
        None => "partly announced".to_owned(),
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

async fn said(probe: JoinHandle<Verdict>) -> String {
    match probe.await {
        Ok(verdict) => verdict.to_string(),
        Err(error) => Verdict::unknown(format!("it panicked: {error}")).to_string(),
    }
}
