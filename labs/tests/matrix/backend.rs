//! The announcers under test. Another one is a variant here, and all rows of the table.

use std::time::Duration;

/// An announcer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backend {
    /// The kernel announcer.
    Loopback,
}

impl Backend {
    pub(crate) const ALL: [Self; 1] = [Self::Loopback];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Loopback => "loopback",
        }
    }

    /// The table `[announce]` of the controller.
    pub(crate) fn table(self, dead_man: Duration) -> String {
        let dead_man = dead_man.as_secs();
        match self {
            Self::Loopback => format!(
                "[announce]\nkind = \"loopback\"\nfloor = true\ndead_man = \"{dead_man}s\"\n"
            ),
        }
    }
}
