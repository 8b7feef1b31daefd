//! The table of `docs/lab-matrix.md`, made by the labs.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;
use std::{env, fs};

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
            name(self.node).to_owned(),
            self.backend.name().to_owned(),
            self.updates.to_string(),
            self.withdrawals.to_string(),
            self.sessions.to_string(),
            time(self.moved),
            time(self.back),
            format!("{} of {}", self.lost, self.asked),
        ]
    }
}

const fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Bird => "BIRD",
        Kind::Frr => "FRR",
    }
}

fn heading(topology: Topology) -> String {
    format!("## {}\n", topology.name())
}

fn line(cells: &[String]) -> String {
    format!("| {} |\n", cells.join(" | "))
}

/// A section of the document.
pub(crate) fn section(topology: Topology, rows: &[Row]) -> String {
    let mut text = heading(topology) + "\n" + &line(&COLUMNS.map(str::to_owned));
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
pub(crate) fn draft(topology: Topology) -> PathBuf {
    let name = topology.name().replace(' ', "-").to_lowercase();
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("lab-matrix-{name}.md"))
}

/// Puts the section that a lab has left in the place of the old one. All else is written by
/// people.
pub(crate) fn publish(topology: Topology) {
    if env::var_os(WRITE).is_none_or(|asked| asked != "write") {
        return;
    }
    let section = fs::read_to_string(draft(topology)).unwrap();
    let text = fs::read_to_string(document()).unwrap();
    fs::write(document(), replaced(&text, topology, &section)).unwrap();
}

fn replaced(text: &str, topology: Topology, section: &str) -> String {
    let heading = heading(topology);
    let Some(begin) = text.find(&heading) else {
        return format!("{}\n\n{section}", text.trim_end());
    };
    let rest = &text[begin + heading.len()..];
    let after = rest.find("\n## ").map_or("", |end| &rest[end..]);
    [&text[..begin], section, after].concat()
}

/// The cells of every row in a topology's section, without the heading and its line.
fn found(text: &str, topology: Topology) -> Vec<Vec<String>> {
    let Some((_, rest)) = text.split_once(&heading(topology)) else {
        return Vec::new();
    };
    let section = rest.split("\n## ").next().unwrap_or_default();
    let cells = |line: &str| {
        let line = line.trim().trim_matches('|');
        line.split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    section
        .lines()
        .filter(|line| line.starts_with('|') && !line.starts_with("|-"))
        .map(cells)
        .collect()
}

/// Its rows and columns; what was measured is not compared.
#[test]
fn the_document_has_a_row_for_every_scenario_node_and_announcer() {
    let text = fs::read_to_string(document()).unwrap();
    for topology in Topology::ALL {
        let rows = found(&text, topology);
        let how = format!(
            "{}: to make it anew: cargo xtask lab-matrix",
            topology.name()
        );
        assert_eq!(
            rows.first().map(Vec::as_slice),
            Some(&COLUMNS.map(str::to_owned)[..]),
            "{how}"
        );
        let mut expected = Vec::new();
        for backend in Backend::ALL {
            for scenario in Scenario::of(topology) {
                for site in NEAREST {
                    let node = name(SITES[site].kind);
                    expected.push([scenario.name(), node, backend.name()].map(str::to_owned));
                }
            }
        }
        let keys: Vec<_> = rows.iter().skip(1).map(|row| row[..3].to_vec()).collect();
        assert_eq!(keys, expected, "{how}");
        for row in rows.iter().skip(1) {
            assert_eq!(row.len(), COLUMNS.len(), "{how}: {row:?}");
        }
    }
}

#[test]
fn a_section_is_replaced_and_all_else_stays() {
    let [first, second, ..] = Topology::ALL;
    let text = format!(
        "# T\n\nwords\n\n{}\nold\n\n{}\nother\n",
        heading(first),
        heading(second)
    );
    let new = section(first, &[]);
    let whole = replaced(&text, first, &new);
    assert_eq!(
        whole,
        format!("# T\n\nwords\n\n{new}\n{}\nother\n", heading(second))
    );
    assert_eq!(found(&whole, first).len(), 1);
    let appended = replaced("# T\n", first, &new);
    assert_eq!(appended, format!("# T\n\n{new}"));
}
