//! The whole transition table, made by driving the machine, and kept as a snapshot.
//!
//! From each state that can be reached, each kind of event is tried. The table and the drawing
//! made from it are committed, so that a change of the machine's behaviour shows up in review.
//! `UPDATE_SNAPSHOTS=1` writes them anew; `dot -Tsvg` renders the drawing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use super::proptests::identity;
use super::*;
use crate::announce::Preference;

const SECOND: Duration = Duration::from_secs(1);
/// Longer than any time in the policy below, and than any grant or quarantine.
const LONG: Duration = Duration::from_secs(10_000);
const CHECK: CheckId = CheckId::new(0);

/// An event as an operator would call it, and what it does to a machine.
type Event = (&'static str, fn(&mut Machine, Instant));

const EVENTS: &[Event] = &[
    ("check rises", |m, at| {
        m.handle_verdict(at, CHECK, Verdict::Healthy);
    }),
    ("check falls", |m, at| {
        m.handle_verdict(at, CHECK, Verdict::unhealthy("no answer"));
    }),
    ("process exits", |m, at| {
        m.handle_verdict(at, CHECK, Verdict::gone("exited"));
    }),
    ("check is unknown", |m, at| {
        m.handle_verdict(at, CHECK, Verdict::unknown("EMFILE"));
    }),
    ("becomes ready", |m, at| {
        m.handle_readiness(at, &sync(), Readiness::Ready);
    }),
    ("becomes unready", |m, at| {
        m.handle_readiness(at, &sync(), Readiness::NotReady("behind".into()));
    }),
    ("drain", |m, at| {
        m.handle_intent(at, order(at, false));
    }),
    ("withdraw", |m, at| {
        m.handle_intent(at, order(at, true));
    }),
    ("undrain", |m, at| {
        m.handle_intent(at, Intent::Auto);
    }),
    ("peer fails", |m, at| {
        m.handle_peer(at, &peer(), report(at, true));
    }),
    ("peer recovers", |m, at| {
        m.handle_peer(at, &peer(), report(at, false));
    }),
    ("peer grants", |m, at| {
        m.handle_grant(at, peer(), at + SECOND * 20);
    }),
    ("grant ends", |m, at| {
        m.handle_grant(at, peer(), at);
    }),
    ("boost runs out", |m, at| {
        m.handle_expiry(at);
    }),
    ("has its turn", |m, at| {
        m.handle_turn(at, Turn::Yours { until: at + SECOND });
    }),
    ("waits for turn", |m, at| {
        m.handle_turn(at, Turn::Waits("fra1 joins".into()));
    }),
    ("is cut off", |m, at| {
        m.handle_turn(at, Turn::CutOff("1 of 3 nodes are seen".into()));
    }),
    ("time passes", |m, at| {
        m.handle_timeout(at + LONG);
    }),
];

fn sync() -> CheckName {
    CheckName::new("sync").unwrap()
}

fn peer() -> NodeName {
    NodeName::new("fra1").unwrap()
}

fn order(at: Instant, withdraw: bool) -> Intent {
    let (reason, by, until) = ("work".into(), "alice".into(), Some(at + LONG / 2));
    if withdraw {
        Intent::Withdraw { reason, by, until }
    } else {
        Intent::Demote { reason, by, until }
    }
}

fn report(at: Instant, fails: bool) -> PeerReport {
    PeerReport {
        heard_at: at,
        preferred: !fails,
        draining: false,
        failing_since: fails.then_some(at),
    }
}

fn policy(fail_safe: FailSafe) -> Policy {
    Policy {
        fail_safe,
        rise: NonZeroU32::MIN,
        fall: NonZeroU32::MIN,
        hold_down: Duration::ZERO,
        budget: Budget {
            burst: NonZeroU32::new(3).unwrap(),
            refill: SECOND * 1000,
        },
        flap: FlapPolicy {
            limit: 2,
            window: SECOND * 1000,
            park_for: SECOND * 1000,
        },
        panic: PanicPolicy {
            percent: 50,
            within: SECOND * 30,
            fresh_for: SECOND * 1000,
        },
        turns: None,
    }
}

/// What tells two situations apart for the purpose of the table.
fn shape(m: &Machine) -> String {
    let (phases, ready): (Vec<_>, Vec<_>) = (
        m.checks()
            .map(|(_, _, s)| (s.phase(), s.is_conclusive()))
            .collect(),
        m.readiness().map(ReadinessState::is_ready).collect(),
    );
    let failing: Vec<_> = m
        .members()
        .map(|(_, r)| r.map(|r| r.failing_since.is_some()))
        .collect();
    let intent = std::mem::discriminant(m.intent());
    let parked = m.parked_since().is_some();
    let (tokens, grants, falls) = (m.tokens(), m.grants(), m.falls());
    let adopting = m.awaits_first_verdicts();
    // Without turns it makes no difference.
    let cut_off = m.policy().turns.is_some() && matches!(m.turn(), Turn::CutOff(_));
    format!(
        "{} {phases:?} {ready:?} {failing:?} {intent:?} {parked} {tokens} {grants} {falls} {adopting} {cut_off}",
        m.state()
    )
}

type Table = BTreeMap<(State, &'static str), BTreeSet<State>>;

fn explore(fail_safe: FailSafe) -> Table {
    explore_with(policy(fail_safe))
}

/// A node of an equal-cost set.
fn in_turn() -> Table {
    let turns = TurnPolicy {
        spacing: SECOND * 10,
        leave_within: SECOND * 60,
    };
    explore_with(Policy {
        turns: Some(turns),
        ..policy(FailSafe::Demote)
    })
}

/// Of a node that may withdraw, and of one that takes turns: every state there is.
fn whole() -> Table {
    let mut whole = explore(FailSafe::Withdraw(WithdrawPolicy::default()));
    for (from, to) in in_turn() {
        whole.entry(from).or_default().extend(to);
    }
    whole
}

fn explore_with(policy: Policy) -> Table {
    let start = Instant::now();
    let mut table = Table::new();
    let mut seen = BTreeSet::new();
    let mut queue = VecDeque::new();
    for observed in [None, Some(InForce::Preferred)] {
        let rules = [CheckName::new("probe").unwrap().into()];
        let mut machine = Machine::new(identity("dns"), policy, &rules, observed, start)
            .unwrap()
            .with_readiness(&[sync()])
            .with_members(&[peer()]);
        machine.handle_timeout(start + MAX_GRANT * 2);
        queue.push_back((machine, start + MAX_GRANT * 2));
    }
    while let Some((machine, at)) = queue.pop_front() {
        if !seen.insert(shape(&machine)) {
            continue;
        }
        for (name, event) in EVENTS {
            let (mut next, at) = (machine.clone(), at + SECOND);
            event(&mut next, at);
            while next.poll_event().is_some() {}
            let states = table.entry((machine.state(), name)).or_default();
            states.insert(next.state());
            let at = if *name == "time passes" {
                at + LONG
            } else {
                at
            };
            queue.push_back((next, at));
        }
    }
    table
}

fn as_text(title: &str, table: &Table) -> String {
    let mut text = format!("{title}\n\n");
    for ((from, event), to) in table {
        let to: Vec<_> = to.iter().map(ToString::to_string).collect();
        writeln!(text, "{from:<10} {event:<17} {}", to.join(" | ")).unwrap();
    }
    text
}

/// The states and what leads from one to another; loops are left out.
fn as_dot(table: &Table) -> String {
    let mut edges: BTreeMap<(State, State), Vec<&str>> = BTreeMap::new();
    for ((from, event), states) in table {
        for to in states.iter().filter(|to| *to != from) {
            edges.entry((*from, *to)).or_default().push(event);
        }
    }
    let states: BTreeSet<State> = table.keys().map(|(state, _)| *state).collect();
    let mut dot = String::from(
        "// Made from the machine by its tests; see anycast-core/src/machine/table.rs.\n\
         digraph machine {\n  rankdir=LR; node [shape=box, style=\"rounded,filled\", \
         fontname=\"sans-serif\"]; edge [fontname=\"sans-serif\", fontsize=9];\n",
    );
    for state in states {
        let colour = match state.preference() {
            Preference::Preferred => "#c8e6c9",
            Preference::Demoted => "#ffe0b2",
            Preference::Withdrawn(_) => "#ffcdd2",
        };
        let label = format!("{state}\\n{}", state.preference());
        writeln!(
            dot,
            "  \"{state}\" [label=\"{label}\", fillcolor=\"{colour}\"];"
        )
        .unwrap();
    }
    for ((from, to), events) in edges {
        let label = events.join("\\n");
        writeln!(dot, "  \"{from}\" -> \"{to}\" [label=\"{label}\"];").unwrap();
    }
    dot.push_str("}\n");
    dot
}

fn snapshot(path: &Path, text: &str) {
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        kept == text,
        "{} differs from what the machine does; look at it, then run with UPDATE_SNAPSHOTS=1:\n\
         {text}",
        path.display()
    );
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_transition_table_is_the_committed_one() {
    let demote = explore(FailSafe::Demote);
    let withdraw = explore(FailSafe::Withdraw(WithdrawPolicy::default()));
    let text = format!(
        "{}\n{}\n{}",
        as_text("fail_safe = demote", &demote),
        as_text("fail_safe = withdraw, one peer", &withdraw),
        as_text("fail_safe = demote, in turn", &in_turn())
    );
    snapshot(&root().join("src/machine/snapshots/transitions.txt"), &text);
    snapshot(&root().join("../docs/machine.dot"), &as_dot(&whole()));
}

/// F1 once more, over every state that can be reached: under demote only `withdraw` leads to
/// a withdrawal.
#[test]
fn under_demote_only_an_order_leads_to_a_withdrawal() {
    for ((from, event), states) in explore(FailSafe::Demote).into_iter().chain(in_turn()) {
        for to in states.iter().filter(|to| to.preference().is_withdrawn()) {
            assert_eq!(*to, State::Withdrawn);
            assert!(
                event == "withdraw"
                    || from == State::Withdrawn
                    // The order is there, and waits.
                    || from == State::Auto(Standing::Leaving),
                "{from} {event} {to}"
            );
        }
    }
}

/// F2 once more: no state is left because a check is unknown, but for the end of an adoption,
/// which is no change of preference.
#[test]
fn unknown_leads_nowhere() {
    for fail_safe in [
        FailSafe::Demote,
        FailSafe::Withdraw(WithdrawPolicy::default()),
    ] {
        for ((from, event), states) in explore(fail_safe) {
            if event == "check is unknown" {
                let same = |to: &State| to.preference() == from.preference();
                assert!(states.iter().all(same), "{from} {states:?}");
            }
        }
    }
}

#[test]
fn every_state_can_be_reached_and_left() {
    let table = whole();
    let reached: BTreeSet<State> = table.keys().map(|(state, _)| *state).collect();
    assert_eq!(reached.len(), 13, "{reached:?}");
    for state in reached {
        let left = table
            .iter()
            .any(|((from, _), to)| *from == state && to.iter().any(|to| to != from));
        assert!(left, "{state}");
    }
}

/// F12 once more: nothing but its turn makes a node of an equal-cost set preferred, and what leaves
/// by an order leaves in its turn, or when it need not wait for one.
#[test]
fn in_turn_only_a_turn_makes_it_preferred() {
    let is_preferred = |state: State| state.preference() == Preference::Preferred;
    for ((from, event), states) in in_turn() {
        let rises = |to: &State| is_preferred(*to) && !is_preferred(from);
        if event != "has its turn" {
            assert!(!states.iter().any(rises), "{from} {event} {states:?}");
        }
        let obeys = |to: &State| to.is_ordered();
        let at_once = ["drain", "withdraw"].contains(&event) && is_preferred(from);
        if at_once {
            // Cut off, it does; else it waits.
            let leaving = State::Auto(Standing::Leaving);
            assert!(
                states.iter().any(obeys) || from == leaving,
                "{from} {event}"
            );
            assert!(states.contains(&leaving) || from == State::Auto(Standing::Held));
        }
    }
}

/// The picture in the documentation shows every state and every edge of the drawing.
#[test]
fn the_picture_is_of_this_drawing() {
    let dot = std::fs::read_to_string(root().join("../docs/machine.dot")).unwrap();
    let svg = std::fs::read_to_string(root().join("../docs/machine.svg")).unwrap();
    let edges = |text: &str, arrow: &str| text.matches(arrow).count();
    let arrows = edges(&dot, " -> ");
    assert_eq!(
        edges(&svg, "class=\"edge\""),
        arrows,
        "run: dot -Tsvg docs/machine.dot"
    );
    for line in dot.lines().filter(|line| line.contains(" -> ")) {
        let edge = line.split(" [").next().unwrap().replace([' ', '"'], "");
        assert!(svg.contains(&edge.replace("->", "&#45;&gt;")), "{edge}");
    }
}
