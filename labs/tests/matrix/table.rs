//! The table of `docs/lab-matrix.md`, made by the labs.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;
use std::{env, fs};

use anycast_labs::document::{replaced, rows};
use anycast_labs::node::Kind;

use super::backend::Backend;
use super::scenario::Scenario;
use super::topology::{NEAREST, SITES, Topology};

/// Set to `write`, the labs write what they measured to the document.
pub(crate) const WRITE: &str = "ANYCAST_LAB_MATRIX";

const COLUMNS: [&str; 9] = [
    "scenario",
    "node",
    "announcer",
    "updates",
    "withdrawals",
    "sessions",
    "moved after",
    "back after",
    "queries lost",
];

/// What happened to one node in one scenario.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) topology: Topology,
    pub(crate) scenario: &'static str,
    pub(crate) node: Kind,
    pub(crate) backend: Backend,
    pub(crate) updates: usize,
    pub(crate) withdrawals: usize,
    pub(crate) sessions: usize,
    pub(crate) moved: Option<Duration>,
    pub(crate) back: Option<Duration>,
    pub(crate) lost: usize,
    pub(crate) asked: usize,
}

impl Row {
    fn cells(&self) -> [String; COLUMNS.len()] {
        let time = |time: Option<Duration>| {
            time.map_or_else(
                || "–".to_owned(),
                |time| format!("{:.1} s", time.as_secs_f64()),
            )
        };
        [
            self.scenario.to_owned(),
            daemon(self.node).to_owned(),
            self.backend
                .name(self.topology.protocol, self.node)
                .to_owned(),
            self.updates.to_string(),
            self.withdrawals.to_string(),
            self.sessions.to_string(),
            time(self.moved),
            time(self.back),
            format!("{} of {}", self.lost, self.asked),
        ]
    }
}

const fn daemon(kind: Kind) -> &'static str {
    match kind {
        Kind::Bird => "BIRD",
        Kind::Frr => "FRR",
    }
}

/// A lab's.
pub(crate) fn name(topology: Topology, backend: Backend) -> String {
    topology.name() + backend.heading()
}

fn heading(topology: Topology, backend: Backend) -> String {
    format!("## {}\n", name(topology, backend))
}

fn line(cells: &[String]) -> String {
    format!("| {} |\n", cells.join(" | "))
}

/// A section of the document.
pub(crate) fn section(topology: Topology, backend: Backend, rows: &[Row]) -> String {
    let mut text = heading(topology, backend) + "\n" + &line(&COLUMNS.map(str::to_owned));
    let _ = writeln!(text, "|{}", "---|".repeat(COLUMNS.len()));
    for row in rows {
        text += &line(&row.cells());
    }
    text
}

pub(crate) fn document() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/lab-matrix.md")
}

/// Where the inside of a lab leaves its section for the outside.
pub(crate) fn draft(topology: Topology, backend: Backend) -> PathBuf {
    let name = name(topology, backend);
    let name = name.replace(',', "").replace(' ', "-").to_lowercase();
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("lab-matrix-{name}.md"))
}

/// Puts the section that a lab has left in the place of the old one. All else is written by
/// people.
pub(crate) fn publish(topology: Topology, backend: Backend) {
    if env::var_os(WRITE).is_none_or(|asked| asked != "write") {
        return;
    }
    let section = fs::read_to_string(draft(topology, backend)).unwrap();
    let text = fs::read_to_string(document()).unwrap();
    fs::write(
        document(),
        replaced(&text, &heading(topology, backend), &section),
    )
    .unwrap();
}

/// Its rows and columns; what was measured is not compared.
#[test]
fn the_document_has_a_row_for_every_scenario_node_and_announcer() {
    let text = fs::read_to_string(document()).unwrap();
    for topology in Topology::ALL {
        for backend in Backend::of(topology) {
            assert_complete(&text, topology, *backend);
        }
    }
}

fn assert_complete(text: &str, topology: Topology, backend: Backend) {
    let rows = rows(text, &heading(topology, backend));
    let how = format!(
        "{}: to make it anew: cargo xtask lab-matrix",
        name(topology, backend)
    );
    assert_eq!(
        rows.first().map(Vec::as_slice),
        Some(&COLUMNS.map(str::to_owned)[..]),
        "{how}"
    );
    let mut expected = Vec::new();
    for scenario in Scenario::of(topology) {
        for site in NEAREST {
            let kind = SITES[site].kind;
            let row = [
                scenario.name(),
                daemon(kind),
                backend.name(topology.protocol, kind),
            ];
            expected.push(row.map(str::to_owned));
        }
    }
    let keys: Vec<_> = rows.iter().skip(1).map(|row| row[..3].to_vec()).collect();
    assert_eq!(keys, expected, "{how}");
    for row in rows.iter().skip(1) {
        assert_eq!(row.len(), COLUMNS.len(), "{how}: {row:?}");
    }
}
