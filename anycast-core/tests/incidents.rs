//! Records of incidents, replayed: a machine that decides otherwise today fails here.
//!
//! `anycastctl record > anycast-core/tests/incidents/NAME.jsonl` adds one. Where a decision is
//! to change on purpose, the record says what was decided then, so take it anew or drop it,
//! with the reason in the commit.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test: it fails by panicking, and starts somewhere in real time"
)]
#![cfg(feature = "record")]

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anycast_core::announce::Preference;
use anycast_core::record::Replay;

fn incidents() -> Vec<(String, Replay)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/incidents");
    let mut all: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "jsonl"))
        .map(|path| {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            let text = fs::read_to_string(&path).unwrap();
            let replay = Replay::run(&text, Instant::now());
            let replay = replay.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            (name, replay)
        })
        .collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

#[test]
fn what_was_decided_is_decided_again() {
    let incidents = incidents();
    assert!(!incidents.is_empty());
    for (name, replay) in incidents {
        if let Some(step) = replay.first_difference() {
            panic!("tests/incidents/{name}.jsonl:{}: {step:?}", step.line);
        }
        assert!(!replay.decisions.is_empty(), "{name} decides nothing");
    }
}

/// A file that a check fetched was removed and came back; then the service was drained,
/// released, withdrawn and released. By then the update budget was used up, so that it stayed
/// demoted although it was healthy.
#[test]
fn a_service_whose_budget_is_used_up_waits_and_says_so() {
    let (_, replay) = incidents()
        .into_iter()
        .find(|(name, _)| name == "health-file-removed")
        .unwrap();
    let preferences: Vec<_> = replay.decisions.iter().map(|d| d.preference).collect();
    assert_eq!(
        preferences[..4],
        [
            Preference::Preferred,
            Preference::Demoted,
            Preference::Preferred,
            Preference::Demoted,
        ]
    );
    let raised = &replay.decisions[2];
    assert_eq!(
        raised.input, None,
        "the hold-down ended: time alone raised it"
    );
    assert!(raised.at > Duration::from_secs(20), "{raised:?}");
    let last = replay.decisions.last().unwrap();
    assert_eq!(last.preference, Preference::Demoted);
    assert!(last.reason.contains("update budget is used up"), "{last:?}");
    assert_eq!(replay.steps.last().unwrap().replayed, "demoted (waiting)");
}
