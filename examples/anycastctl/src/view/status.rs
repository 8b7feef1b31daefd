//! `anycastctl status`.

use super::checks::table;
use super::{drain, fleet, in_force, or_dash, order, preference};
use crate::model::{Check, Node, Service, Turn};
use crate::text::{Span, Style, Table, Text, age};

/// With more checks than this only those that are not well are shown.
const MAX_CHECKS: usize = 24;

pub(crate) fn show(node: &Node, width: Option<usize>) -> Text {
    let mut text = Text::default();
    text.line([Span::new(Style::Head, &format!("node {}", node.node))]);
    text.blank();
    let mesh = node.mesh.as_ref().filter(|mesh| !mesh.peers.is_empty());
    if node.services.is_empty() {
        text.line(["no services".into()]);
        if let Some(mesh) = mesh {
            text.blank();
            text.append(fleet::table(mesh, width));
        }
        return text;
    }
    let mut services = Table::new([
        "SERVICE",
        "PREFERENCE",
        "FOR",
        "STATE",
        "ROLE",
        "IN FORCE",
        "WHY",
    ]);
    for service in &node.services {
        services.row([
            service.name.as_str().into(),
            preference(&service.preference),
            age(service.preference_age_s).into(),
            or_dash(service.state.as_deref()),
            or_dash(service.role.as_deref()),
            in_force(service),
            or_dash(service.reason.as_deref()),
        ]);
    }
    text.append(services.layout(width));
    text.blank();
    if let Some(mesh) = mesh {
        text.append(fleet::table(mesh, width));
        text.blank();
    }
    checks(node, width, &mut text);
    text.blank();
    let giver = node.mesh.as_ref().and_then(|mesh| mesh.giver.as_deref());
    for service in &node.services {
        notes(service, giver, width, &mut text);
    }
    text
}

fn checks(node: &Node, width: Option<usize>, text: &mut Text) {
    let all = || {
        let services = node.services.iter();
        services.flat_map(|service| service.checks.iter().map(move |check| (service, check)))
    };
    let count = all().count();
    if count <= MAX_CHECKS {
        text.append(table(all(), width));
        return;
    }
    let unwell = |(_, check): &(&Service, &Check)| {
        let well = check.verdict.as_deref() == Some("healthy");
        check.phase != "up" || !well
    };
    let shown = all().filter(unwell).count();
    if shown == 0 {
        text.line([format!("{count} checks, all up and healthy").into()]);
        return;
    }
    text.append(table(all().filter(unwell), width));
    text.line([format!("{} more checks, up and healthy", count - shown).into()]);
}

fn notes(service: &Service, giver: Option<&str>, width: Option<usize>, text: &mut Text) {
    let mut notes = Table::bare();
    let name = format!("{}:", service.name);
    let addresses = service.addresses.join(" ");
    notes.row([
        name.as_str().into(),
        format!("addresses {addresses}").into(),
    ]);
    if let Some(intent) = &service.intent {
        notes.row([name.as_str().into(), prefixed("order: ", &order(intent))]);
    }
    if let Some(draining) = &service.drain {
        notes.row([name.as_str().into(), prefixed("drain: ", &drain(draining))]);
    }
    if let Some(turn) = &service.turn {
        notes.row([name.as_str().into(), turns(turn, giver)]);
    }
    if let Some(raise) = &service.would_raise {
        let raise = format!("to be preferred: {raise}");
        notes.row([name.as_str().into(), raise.into()]);
    }
    text.append(notes.layout(width));
}

/// Who waits, for whom, and who says so.
fn turns(turn: &Turn, giver: Option<&str>) -> Span {
    let reason = turn.reason.as_deref().unwrap_or_default();
    let giver = giver.unwrap_or("nobody");
    match (turn.cut_off, turn.wants.as_deref()) {
        (true, _) => Span::new(Style::Warn, &format!("turn: cut off, {reason}")),
        (false, None) => format!("turn: none wanted, {giver} gives them").into(),
        (false, Some(wants)) => {
            let text = format!("turn: waits to {wants}, {giver} gives it; {reason}");
            Span::new(Style::Warn, &text)
        }
    }
}

fn prefixed(prefix: &str, span: &Span) -> Span {
    Span::new(span.style(), &format!("{prefix}{}", span.text()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(json: &str, width: Option<usize>) -> String {
        let node: Node = serde_json::from_str(json).unwrap();
        show(&node, width).render(false).join("\n")
    }

    #[test]
    fn what_is_not_said_is_a_dash_and_nothing_steers_the_terminal() {
        let json = r#"{"node": "a", "unknown": 1, "services": [
            {"name": "tftp", "preference": "demoted", "reason": "x\u001b[31my",
             "checks": [{"name": "c", "phase": "down"}]}]}"#;
        let text = shown(json, None);
        assert!(!text.contains('\u{1b}'), "{text}");
        assert!(
            text.contains("tftp     demoted     -    -      -     - (-)     x [31my"),
            "{text}"
        );
        assert!(text.contains("tftp     c      down   -    -"), "{text}");
    }

    #[test]
    fn the_other_nodes_are_a_line_each() {
        let json = r#"{"node": "a", "services": [{"name": "tftp", "preference": "preferred"}],
            "mesh": {"peers": [
                {"node": "b", "address": "10.0.0.2:4747", "up_age_s": 192.0, "heard_age_s": 0.3,
                 "software": "0.1.0", "clock_offset_s": -0.0012,
                 "services": [{"name": "tftp", "preferred": true},
                              {"name": "dns", "preferred": false, "failing_age_s": 3.0}],
                 "data": [{"name": "files", "ready": false, "behind": 7, "reason": "catching up"}]},
                {"node": "c", "address": "10.0.0.3:4747", "down_reason": "timed out",
                 "services": [{"name": "tftp", "preferred": true}]}]}}"#;
        let text = shown(json, None);
        let line = |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap();
        let b = "b     10.0.0.2:4747  3m 12s  0.3s   -0.001s  0.1.0    files not ready, 7 behind  \
                 tftp preferred; dns not preferred, failing for 3.0s; files: catching up";
        assert_eq!(line("b "), b);
        let c = "c     10.0.0.3:4747  down    -      -        -        -                          \
                 timed out";
        assert_eq!(line("c "), c);
    }

    #[test]
    fn a_node_that_announces_nothing_has_peers_too() {
        let json = r#"{"node": "a", "services": [], "mesh": {"peers": [
            {"node": "b", "address": "10.0.0.2:4747", "down_reason": "timed out"}]}}"#;
        let text = shown(json, None);
        assert!(text.contains("no services\n\nPEER"), "{text}");
        assert!(text.contains("\nb "), "{text}");
    }

    #[test]
    fn who_waits_for_whom_is_told() {
        let json = r#"{"node": "a", "services": [{"name": "tftp", "preference": "demoted",
            "state": "queued", "turn": {"wants": "join", "cut_off": false, "reason": "fra1 joins"}}],
            "mesh": {"giver": "ams1", "peers": [{"node": "fra1", "up_age_s": 1.0,
                "services": [{"name": "tftp", "preferred": false, "turn": "has"}]}]}}"#;
        let text = shown(json, None);
        let own = "tftp:  turn: waits to join, ams1 gives it; fra1 joins";
        assert!(text.contains(own), "{text}");
        assert!(text.contains("tftp not preferred, has its turn"), "{text}");
        let json = r#"{"node": "a", "services": [{"name": "tftp", "preference": "preferred",
            "turn": {"wants": null, "cut_off": true, "reason": "1 of 3 nodes of the fleet is seen"}}]}"#;
        assert!(shown(json, None).contains("turn: cut off, 1 of 3"));
    }

    #[test]
    fn of_many_checks_those_that_are_not_well_are_shown() {
        let check = |name: usize, phase: &str, verdict: &str| serde_json::json!({"name": format!("c{name}"), "phase": phase, "verdict": verdict});
        let node = |last| {
            let mut checks: Vec<_> = (0..30).map(|n| check(n, "up", "healthy")).collect();
            checks.push(last);
            serde_json::json!({"node": "a", "services": [
                {"name": "dns", "preference": "preferred", "checks": checks}]})
            .to_string()
        };
        let text = shown(&node(check(99, "up", "healthy")), None);
        assert!(text.contains("31 checks, all up and healthy"), "{text}");
        let text = shown(&node(check(99, "up", "unknown: EMFILE")), None);
        assert!(text.contains("c99") && !text.contains("c7 "), "{text}");
        assert!(text.contains("30 more checks"), "{text}");
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        let json = r#"{"node": "a", "services": [{"name": "tftp", "preference": "demoted",
            "role": "primary", "announcer": "loopback", "confirmation": {"state": "confirmed"},
            "reason": "probe is down: no answer from 192.0.2.69:69 within 500 ms, asked again twice",
            "checks": []}]}"#;
        for width in [100, 110, 120] {
            let text = shown(json, Some(width));
            for line in text.lines() {
                assert!(line.chars().count() <= width, "{width}: {line}");
            }
        }
    }
}
