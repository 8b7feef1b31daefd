//! What happens, to the nearest site of both routers at once.

use super::topology::Topology;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scenario {
    Rise,
    Demote,
    Recover,
    Drain,
    ControllerRestart,
    ControllerKilled,
    ControllerFrozen,
    ServiceFrozen,
    DaemonRestart,
    DaemonFrozen,
    AllFrozen,
    AllChecksBroken,
    AllDrained,
    LinkCut,
    Partition,
}

impl Scenario {
    /// In the order in which they are run: each leaves everything well.
    const ALL: [Self; 15] = [
        Self::Rise,
        Self::Demote,
        Self::Recover,
        Self::Drain,
        Self::ControllerRestart,
        Self::ControllerKilled,
        Self::ControllerFrozen,
        Self::ServiceFrozen,
        Self::AllChecksBroken,
        Self::AllDrained,
        Self::DaemonRestart,
        Self::DaemonFrozen,
        Self::AllFrozen,
        Self::LinkCut,
        Self::Partition,
    ];

    /// Those for which BFD makes a difference: what is silent, and not gone.
    const BFD: [Self; 3] = [Self::DaemonFrozen, Self::AllFrozen, Self::LinkCut];

    pub(crate) const fn of(topology: Topology) -> &'static [Self] {
        if topology.bfd { &Self::BFD } else { &Self::ALL }
    }

    /// Its name in the table.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Rise => "rise",
            Self::Demote => "demote: the check fails",
            Self::Recover => "recover: it passes again",
            Self::Drain => "drain and undrain",
            Self::ControllerRestart => "controller killed and restarted at once, 3 times",
            Self::ControllerKilled => "controller killed (dead man)",
            Self::ControllerFrozen => "controller frozen (dead man)",
            Self::ServiceFrozen => "service frozen",
            Self::AllChecksBroken => "all checks broken at once",
            Self::AllDrained => "all nodes drained",
            Self::DaemonRestart => "routing daemon killed, then restarted",
            Self::DaemonFrozen => "routing daemon frozen",
            Self::AllFrozen => "daemon, controller and service frozen",
            Self::LinkCut => "link to the nearest router cut",
            Self::Partition => "network partitioned",
        }
    }

    /// Whether the node is demoted while its service lives: it answers whoever comes to it.
    pub(crate) const fn keeps_serving(self) -> bool {
        matches!(
            self,
            Self::Demote
                | Self::Drain
                | Self::ControllerRestart
                | Self::ControllerKilled
                | Self::ControllerFrozen
        )
    }

    /// Whether the node's sessions with its first hop end by what happens: the route goes with
    /// them, by no withdrawal of the node's.
    pub(crate) const fn ends_sessions(self) -> bool {
        match self {
            Self::DaemonRestart
            | Self::DaemonFrozen
            | Self::AllFrozen
            | Self::LinkCut
            | Self::Partition => true,
            Self::Rise
            | Self::Demote
            | Self::Recover
            | Self::Drain
            | Self::ControllerRestart
            | Self::ControllerKilled
            | Self::ControllerFrozen
            | Self::ServiceFrozen
            | Self::AllChecksBroken
            | Self::AllDrained => false,
        }
    }
}
