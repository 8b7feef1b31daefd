//! The tables of `docs/handoff.md`, made by the labs.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::{env, fs};

use anycast_labs::document::{replaced, rows};
use anycast_labs::node::Kind;
use serde_json::{Value, json};

use super::Handoff;
use super::clients::{GIVE_UP, Outcome};
use super::crowd::Crowd;
use super::scenario::{Scenario, Seen};
use super::site::Announcing;

/// Set to `write`, the labs write what they measured to the document.
pub(crate) const WRITE: &str = "ANYCAST_HANDOFF";

const COLUMNS: [&str; 11] = [
    "scenario",
    "client",
    "moved after",
    "before: completed",
    "identical",
    "stall",
    "again",
    "after: completed",
    "identical",
    "stall",
    "again",
];
/// Those that are compared: what was measured is not.
const KEYS: usize = 2;
const CROWD: &str = "## 200 clients\n";
const CROWD_COLUMNS: [&str; 6] = [
    "at the router",
    "completed",
    "identical",
    "moved after",
    "longest stall",
    "median stall",
];

/// One lab: everything in it happens one after the other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    pub(crate) router: Kind,
    pub(crate) announcing: Announcing,
    pub(crate) handoff: Handoff,
}

const fn daemon(kind: Kind) -> &'static str {
    match kind {
        Kind::Bird => "BIRD",
        Kind::Frr => "FRR",
    }
}

fn heading(router: Kind) -> String {
    format!("## {} at the router and at the site\n", daemon(router))
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
}

fn document() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/handoff.md")
}

impl Run {
    /// Where a lab leaves what it saw for the document.
    fn draft(self) -> PathBuf {
        let announcing = match self.announcing {
            Announcing::Itself => "itself",
            Announcing::Guard => "guard",
        };
        let handoff = match self.handoff {
            Handoff::Off => "before",
            Handoff::BeforeReply => "after",
        };
        folder().join(format!(
            "handoff-{}-{announcing}-{handoff}.json",
            daemon(self.router).to_lowercase()
        ))
    }

    /// Leaves what was seen so far.
    pub(crate) fn keep(self, seen: &[(Scenario, Seen)]) {
        let all: Vec<_> = seen
            .iter()
            .flat_map(|(scenario, seen)| {
                let name = scenario.name(self.announcing);
                seen.outcomes
                    .iter()
                    .map(move |outcome| row(&name, seen, outcome))
            })
            .collect();
        fs::write(self.draft(), Value::from(all).to_string()).unwrap();
    }

    fn kept(self) -> Vec<Value> {
        let path = self.draft();
        let text = fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}: run the labs first", path.display()));
        let rows: Value = serde_json::from_str(&text).unwrap();
        rows.as_array().unwrap().clone()
    }
}

/// What a lab keeps of one client in one scenario: the cells of the document.
fn row(scenario: &str, seen: &Seen, outcome: &Outcome) -> Value {
    let moved = match (seen.moved, seen.moves) {
        (Some(moved), _) => format!("{:.1} s", moved.as_secs_f64()),
        (None, 0) => "–".to_owned(),
        (None, moves) => format!("{moves} times"),
    };
    // The capture may have missed a packet; and tftp-hpa does not say that it failed.
    let is_whole = outcome.is_identical || outcome.percent == 100;
    let is_complete = outcome.failure.is_none() && is_whole;
    let completed = if is_complete {
        "yes".to_owned()
    } else if outcome.failure.as_deref() == Some("began again") {
        "began again".to_owned()
    } else {
        format!("**no**, {} %", outcome.percent)
    };
    let identical = match (is_complete, outcome.is_identical) {
        (true, true) => "yes",
        (true, false) => "**NO**",
        (false, _) => "–",
    };
    let stall = outcome.stall.as_secs_f64();
    let stall = if is_complete || outcome.stall < GIVE_UP {
        format!("{stall:.1} s")
    } else {
        format!("> {} s", GIVE_UP.as_secs())
    };
    json!({
        "scenario": scenario,
        "client": outcome.client,
        "moved": moved,
        "cells": [completed, identical, stall,
                  format!("{} + {}", outcome.data_again, outcome.acks_again)],
    })
}

fn line(cells: &[String]) -> String {
    format!("| {} |\n", cells.join(" | "))
}

fn head(columns: &[&str]) -> String {
    let columns: Vec<_> = columns.iter().map(|column| (*column).to_owned()).collect();
    let mut text = line(&columns);
    let _ = writeln!(text, "|{}", "---|".repeat(columns.len()));
    text
}

/// The section of a router, from what its labs have left.
fn section(router: Kind) -> String {
    let mut text = heading(router) + "\n" + &head(&COLUMNS);
    for announcing in [Announcing::Itself, Announcing::Guard] {
        let [before, after] = [Handoff::Off, Handoff::BeforeReply].map(|handoff| {
            Run {
                router,
                announcing,
                handoff,
            }
            .kept()
        });
        for with in &after {
            let key = |row: &Value| [row["scenario"].clone(), row["client"].clone()];
            let without = before.iter().find(|row| key(row) == key(with));
            let cells = |row: &Value| -> Vec<String> {
                let cells = row["cells"].as_array().into_iter().flatten();
                cells.map(text_of).collect()
            };
            let mut all = vec![
                text_of(&with["scenario"]),
                text_of(&with["client"]),
                text_of(&with["moved"]),
            ];
            all.extend(cells(without.unwrap()));
            all.extend(cells(with));
            text += &line(&all);
        }
    }
    text
}

fn text_of(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Leaves what the crowd of this router saw.
pub(crate) fn keep_crowd(router: Kind, crowd: &Crowd) {
    let seconds = |time: std::time::Duration| format!("{:.1} s", time.as_secs_f64());
    let cells = [
        daemon(router).to_owned(),
        format!("{} of {}", crowd.completed, crowd.clients),
        format!("{} of {}", crowd.identical, crowd.clients),
        seconds(crowd.moved),
        seconds(crowd.longest),
        seconds(crowd.median),
    ];
    fs::write(crowd_draft(router), line(&cells)).unwrap();
}

fn crowd_draft(router: Kind) -> PathBuf {
    folder().join(format!(
        "handoff-crowd-{}.md",
        daemon(router).to_lowercase()
    ))
}

/// Puts what the labs have left in the place of the old sections. All else is written by people.
pub(crate) fn publish() {
    if env::var_os(WRITE).is_none_or(|asked| asked != "write") {
        return;
    }
    let mut text = fs::read_to_string(document()).unwrap();
    for router in [Kind::Bird, Kind::Frr] {
        text = replaced(&text, &heading(router), &section(router));
    }
    let mut crowd = CROWD.to_owned() + "\n" + &head(&CROWD_COLUMNS);
    for router in [Kind::Bird, Kind::Frr] {
        crowd += &fs::read_to_string(crowd_draft(router)).unwrap();
    }
    text = replaced(&text, CROWD, &crowd);
    fs::write(document(), text).unwrap();
}

/// Its rows and columns; what was measured is not compared.
pub(crate) fn assert_complete(clients: &[&str]) {
    let text = fs::read_to_string(document()).unwrap();
    let how = "to make it anew: cargo xtask handoff";
    for router in [Kind::Bird, Kind::Frr] {
        let rows = rows(&text, &heading(router));
        assert_eq!(
            rows.first().map(Vec::as_slice),
            Some(&COLUMNS.map(str::to_owned)[..]),
            "{how}"
        );
        let mut expected = Vec::new();
        for announcing in [Announcing::Itself, Announcing::Guard] {
            for scenario in Scenario::of(announcing) {
                let row = |client: &&str| vec![scenario.name(announcing), (*client).to_owned()];
                expected.extend(clients.iter().map(row));
            }
        }
        let keys: Vec<_> = rows
            .iter()
            .skip(1)
            .map(|row| row[..KEYS].to_vec())
            .collect();
        assert_eq!(keys, expected, "{}: {how}", heading(router));
        for row in rows.iter().skip(1) {
            assert_eq!(row.len(), COLUMNS.len(), "{how}: {row:?}");
        }
    }
    assert_eq!(rows(&text, CROWD).len(), 3, "{how}");
}
