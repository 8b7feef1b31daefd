//! Names what will fail in silence: the traps in a node's routing daemon, kernel and settings.
//!
//! [`examine`] is pure: [`Facts`] in, [`Report`] out. [`gather`] collects the facts from this
//! host and changes nothing; anybody may collect them otherwise, from captured replies of the
//! daemons for example.
//!
//! What could not be seen (a socket that may not be opened, a file that may not be read) is in
//! [`Report::unseen`], with the reason, and never counts as fine.

pub mod bird;
pub mod bird_text;
pub mod frr;
pub mod frr_text;
pub mod gather;
pub mod kernel;
pub mod snippet;

use std::fmt;

use anycast_core::service::ServiceAddress;
use serde::Serialize;

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Severity {
    /// Good to know; nothing to mend.
    Note,
    /// It fails under circumstances that cannot be seen from here.
    Warning,
    /// It fails, or will.
    Trap,
}

/// Which trap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Trap {
    /// No permanent route of the service prefix: losing the boost withdraws.
    NoFloor,
    /// Nothing announces the boost.
    NoBoost,
    /// The floor loses to an imported route of the same prefix: withdrawn.
    FloorOutranked,
    /// The boost does not beat the floor: it changes nothing.
    BoostOutranked,
    /// Floor and boost are announced at one level.
    SameLevel,
    /// The boost is imported from other interfaces than `lo`.
    BoostEverywhere,
    /// FRR announces a network only while it has another route of it.
    ImportCheck,
    /// FRR never applies changes of route-maps, or late.
    DelayTimer,
    /// Updates are sent late.
    SlowUpdates,
    /// A dead node keeps its routes until a timer ends.
    GracefulRestart,
    /// An address of an OSPF interface is announced at metric 0, whatever its cost.
    OspfHostCost,
    /// What runs is not what stands in the file.
    HalfEdited,
    /// What was sent cannot be read back.
    NoExportTable,
    /// The service may not change addresses.
    Capability,
    /// The kernel has no dummy interfaces.
    NoDummy,
    /// Packets are dropped whose way back is another interface.
    ReversePath,
    /// The boost has no end, or is not ours to end.
    PermanentBoost,
    /// The permanent copy is itself a connected route of the prefix.
    CopyWithoutPeer,
    /// No less-specific route would take over.
    NoBackup,
}

impl fmt::Display for Trap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// Which trap.
    pub trap: Trap,
    /// How much it matters.
    pub severity: Severity,
    /// Where: a daemon and its part, a file, an interface.
    pub place: String,
    /// What was found.
    pub what: String,
    /// Why it matters.
    pub why: String,
    /// What to write where.
    pub fix: String,
}

impl Finding {
    pub(crate) fn new(trap: Trap, severity: Severity, place: impl Into<String>) -> Self {
        Self {
            trap,
            severity,
            place: place.into(),
            what: String::new(),
            why: String::new(),
            fix: String::new(),
        }
    }

    pub(crate) fn what(mut self, what: impl Into<String>) -> Self {
        self.what = what.into();
        self
    }

    pub(crate) fn why(mut self, why: impl Into<String>) -> Self {
        self.why = why.into();
        self
    }

    pub(crate) fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = fix.into();
        self
    }
}

/// Something that could not be looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Unseen {
    /// What.
    pub what: String,
    /// Why not.
    pub why: String,
}

/// How a look ended. The number is the exit status of `anycastctl doctor`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Verdict {
    /// Nothing was found; notes do not count.
    Clean = 0,
    /// Warnings.
    Warnings = 1,
    /// At least one trap.
    Traps = 2,
    /// No trap was found, but not everything could be looked at.
    Blind = 3,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// What was looked at.
    pub seen: Vec<String>,
    /// The findings, the worst first.
    pub findings: Vec<Finding>,
    /// What could not be looked at.
    pub unseen: Vec<Unseen>,
}

impl Report {
    /// How the look ended: traps outweigh what was not seen, and that outweighs warnings.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        match self.findings.iter().map(|found| found.severity).max() {
            Some(Severity::Trap) => Verdict::Traps,
            _ if !self.unseen.is_empty() => Verdict::Blind,
            Some(Severity::Warning) => Verdict::Warnings,
            Some(Severity::Note) | None => Verdict::Clean,
        }
    }

    /// The findings of one kind.
    pub fn of(&self, trap: Trap) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(move |found| found.trap == trap)
    }

    pub(crate) fn add(&mut self, finding: Finding) {
        if !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }

    pub(crate) fn unseen(&mut self, what: impl Into<String>, why: impl fmt::Display) {
        self.unseen.push(Unseen {
            what: what.into(),
            why: why.to_string(),
        });
    }
}

/// What may be there, and may be seen.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sight<T> {
    /// It is not there.
    Absent,
    /// It could not be looked at, and why.
    Unseen(String),
    /// It was looked at.
    Seen(T),
}

/// What the node's settings say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The service addresses; empty where they are not known.
    pub services: Vec<ServiceAddress>,
    /// Whether an announcer reads back what BIRD has sent.
    pub reads_bird: bool,
}

/// Everything that is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The node's settings.
    pub wanted: Wanted,
    /// BIRD.
    pub bird: Sight<bird::BirdFacts>,
    /// FRR's bgpd.
    pub frr: Sight<frr::FrrFacts>,
    /// The kernel and the service's processes.
    pub kernel: kernel::KernelFacts,
}

/// Says what is wrong with what was seen.
#[must_use]
pub fn examine(facts: &Facts) -> Report {
    let mut report = Report::default();
    let services = &facts.wanted.services;
    if services.is_empty() {
        let why = "neither given nor found on an interface of the kernel announcer";
        report.unseen("the service addresses", why);
    } else {
        let names: Vec<_> = services.iter().map(ToString::to_string).collect();
        report
            .seen
            .push(format!("service addresses {}", names.join(", ")));
    }
    match &facts.bird {
        Sight::Absent => {}
        Sight::Unseen(why) => report.unseen("BIRD", why),
        Sight::Seen(bird) => bird::examine(bird, &facts.wanted, &mut report),
    }
    match &facts.frr {
        Sight::Absent => {}
        Sight::Unseen(why) => report.unseen("FRR", why),
        Sight::Seen(frr) => frr::examine(frr, &facts.wanted, &mut report),
    }
    if facts.bird == Sight::Absent && facts.frr == Sight::Absent {
        let why = "no control socket of BIRD and no vty socket of bgpd is there";
        report.unseen("a routing daemon", why);
    }
    let has_frr = matches!(facts.frr, Sight::Seen(_));
    kernel::examine(&facts.kernel, services, has_frr, &mut report);
    report
        .findings
        .sort_by(|a, b| (b.severity, a.trap).cmp(&(a.severity, b.trap)));
    report
}

/// No route that would take over, as far as the node can see.
pub(crate) fn no_backup(place: &str, service: ServiceAddress) -> Finding {
    Finding::new(Trap::NoBackup, Severity::Warning, place)
        .what(format!("no less-specific route covers {service} here"))
        .why(
            "on the day on which every node is gone from the routers' tables, nothing takes \
             over; routers that do not announce their backup route to this node may have one",
        )
        .fix(
            "on the routers, a static less-specific route to one site: `anycastctl doctor \
             --backup-route` prints it",
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traps_outweigh_what_was_not_seen_and_that_outweighs_warnings() {
        let mut report = Report::default();
        assert_eq!(report.verdict(), Verdict::Clean);
        report.add(Finding::new(Trap::NoDummy, Severity::Note, "x"));
        assert_eq!(report.verdict(), Verdict::Clean);
        report.add(Finding::new(Trap::NoBackup, Severity::Warning, "x"));
        report.add(Finding::new(Trap::NoBackup, Severity::Warning, "x"));
        assert_eq!(report.findings.len(), 2);
        assert_eq!(report.verdict(), Verdict::Warnings);
        report.unseen("BIRD", "Permission denied");
        assert_eq!(report.verdict(), Verdict::Blind);
        report.add(Finding::new(Trap::NoFloor, Severity::Trap, "x"));
        assert_eq!(report.verdict(), Verdict::Traps);
        assert_eq!(Trap::OspfHostCost.to_string(), "ospf-host-cost");
    }
}
