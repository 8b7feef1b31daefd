//! From a decision to the change of a router's best path, for each announcer, beside what else
//! is in use: a script that writes BIRD's include file and reconfigures, and exabgp with its
//! health checker. And what it takes to demote a thousand prefixes at once.
//!
//! A router (BIRD, one session with each site) prefers site a while a is preferred, and site b
//! while a is demoted. Measured is the time from the decision until the router's kernel has
//! the other route, which the kernel itself reports.

mod bed;
mod config;
mod controller;
mod scale;

use std::thread;
use std::time::{Duration, Instant};

use anycast_labs::node::Kind;

use self::bed::Bed;
use self::controller::Controller;
use super::subject::{failed, percentile};
use crate::run::Failure;

/// Demotions of each subject, and as many raises.
const CHANGES: usize = 60;
/// The same for exabgp, which looks at its service once a second.
const EXABGP_CHANGES: usize = 30;

/// What announces, and through what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subject {
    /// `kind = "loopback"`, in front of this daemon.
    Loopback(Kind),
    /// `kind = "bird"` or `"frr"`, the kernel carrying.
    Daemon(Kind),
    /// `kind = "bird"`, `carrier = "protocol"`.
    Protocol,
    /// `kind = "bird"`, `carrier = "include"`.
    Include,
    /// `kind = "frr"`, `carrier = "route-map"`.
    RouteMap,
    /// A shell script: the include file, and `birdc configure`.
    Script,
    /// exabgp and its health checker, which demotes by MED.
    Exabgp,
}

impl Subject {
    const ALL: [Self; 9] = [
        Self::Loopback(Kind::Bird),
        Self::Loopback(Kind::Frr),
        Self::Daemon(Kind::Bird),
        Self::Daemon(Kind::Frr),
        Self::Protocol,
        Self::Include,
        Self::RouteMap,
        Self::Script,
        Self::Exabgp,
    ];

    /// What routes at its site; exabgp speaks BGP itself.
    pub(super) const fn kind(self) -> Option<Kind> {
        match self {
            Self::Loopback(kind) | Self::Daemon(kind) => Some(kind),
            Self::Protocol | Self::Include | Self::Script => Some(Kind::Bird),
            Self::RouteMap => Some(Kind::Frr),
            Self::Exabgp => None,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Loopback(Kind::Bird) => "`loopback`, BIRD",
            Self::Loopback(Kind::Frr) => "`loopback`, FRR",
            Self::Daemon(Kind::Bird) => "`bird`",
            Self::Daemon(Kind::Frr) => "`frr`",
            Self::Protocol => "`bird`, `protocol`",
            Self::Include => "`bird`, `include`",
            Self::RouteMap => "`frr`, `route-map`",
            Self::Script => "script: include file and `birdc configure`",
            Self::Exabgp => "exabgp healthcheck",
        }
    }
}

struct Row {
    subject: Subject,
    /// Sorted.
    demoted: Vec<Duration>,
    raised: Vec<Duration>,
    /// CPU seconds of the controller, in all.
    cpu: f64,
}

pub(super) fn run() -> Result<String, Failure> {
    let (mut rows, mut missing) = (Vec::new(), String::new());
    for subject in Subject::ALL {
        match measure(subject) {
            Ok(row) => rows.push(row),
            Err(error) => missing += &not_measured(subject, &error),
        }
    }
    Ok(table(&rows) + &missing + &scale::run()?)
}

/// In one line.
fn not_measured(subject: Subject, error: &Failure) -> String {
    let error = error.to_string();
    let first = error.lines().next().unwrap_or_default();
    format!("\nNot measured: {}: {first}\n", subject.name())
}

fn measure(subject: Subject) -> Result<Row, Failure> {
    let bed = Bed::build(subject, 1)?;
    let mut controller = Controller::start(subject, &bed, 1, None)?;
    let said = |error: Failure, controller: &Controller| {
        failed(subject.name(), format!("{error}; {}", controller.said()))
    };
    bed.await_best("a")
        .map_err(|error| said(error, &controller))?;
    controller.settle(true)?;
    let changes = if subject == Subject::Exabgp {
        EXABGP_CHANGES
    } else {
        CHANGES
    };
    let (mut demoted, mut raised) = (Vec::new(), Vec::new());
    let before = controller.cpu();
    for number in 0..changes {
        for (is_up, device, times) in [(false, "b", &mut demoted), (true, "a", &mut raised)] {
            // Not in step with anybody's timer.
            thread::sleep(Duration::from_millis(50 + (number as u64 * 37) % 200));
            let decided: Instant = controller.decide(is_up)?;
            let moved = bed.routes.next(device, 1);
            let moved = moved.map_err(|error| said(error, &controller))?;
            let took = moved.checked_duration_since(decided);
            times.push(took.ok_or_else(|| failed("a route", "it moved before the decision"))?);
            controller.settle(is_up)?;
        }
    }
    let cpu = controller.cpu() - before;
    demoted.sort();
    raised.sort();
    Ok(Row {
        subject,
        demoted,
        raised,
        cpu,
    })
}

fn table(rows: &[Row]) -> String {
    let mut text = "\n## From a decision to the change of the router's best path\n\n\
                    | announcer | changes | demoted p50 ms | p99 ms | raised p50 ms | p99 ms | \
                    p50 ÷ script | controller's CPU, ms a change |\n\
                    |---|--:|--:|--:|--:|--:|--:|--:|\n"
        .to_owned();
    let script = rows.iter().find(|row| row.subject == Subject::Script);
    let script = script.map(|row| percentile(&row.demoted, 50));
    for row in rows {
        let ratio = script.map_or_else(
            || "–".to_owned(),
            |script| format!("{:.2}", percentile(&row.demoted, 50) / script),
        );
        text += &format!(
            "| {} | {} | {:.1} | {:.1} | {:.1} | {:.1} | {ratio} | {:.1} |\n",
            row.subject.name(),
            row.demoted.len() + row.raised.len(),
            percentile(&row.demoted, 50),
            percentile(&row.demoted, 99),
            percentile(&row.raised, 50),
            percentile(&row.raised, 99),
            row.cpu * 1000.0 / (row.demoted.len() + row.raised.len()).max(1) as f64,
        );
    }
    text
}
