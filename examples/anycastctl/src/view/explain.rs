//! `anycastctl explain`: the chain from check to route, link by link.

use super::checks::in_a_row;
use super::{in_force, last_verdict, phase};
use crate::model::{Check, Node, Peer, Readiness, Service};
use crate::text::{Span, Style, Table, Text, age};

/// The chain of one service.
pub(crate) fn show(node: &Node, service: &Service, width: Option<usize>) -> Text {
    let mut text = Text::default();
    text.line([
        Span::new(Style::Head, &format!("{} on {}: ", service.name, node.node)),
        super::preference(&service.preference),
        format!(" for {}", age(service.preference_age_s)).into(),
    ]);
    text.blank();
    let mut chain = Table::bare();
    link(&mut chain, "checks", checks(service));
    link(&mut chain, "readiness", readiness(service));
    link(&mut chain, "fleet", fleet(service));
    link(&mut chain, "order", orders(service));
    link(&mut chain, "decision", decision(service));
    link(&mut chain, "announcer", vec![in_force(service)]);
    link(&mut chain, "route", route(service));
    text.append(chain.layout(width));
    text
}

/// One link of the chain: its name once, then what is to be said of it.
fn link(chain: &mut Table<2>, name: &str, lines: Vec<Span>) {
    let mut name = Span::new(Style::Head, name);
    for line in lines {
        chain.row([std::mem::take(&mut name), line]);
    }
}

fn checks(service: &Service) -> Vec<Span> {
    if service.checks.is_empty() {
        return vec!["none has been started yet".into()];
    }
    service.checks.iter().map(check).collect()
}

fn check(check: &Check) -> Span {
    let warning = check.severity.as_deref() == Some("warning");
    let counts = if warning {
        " (a warning: it changes nothing)"
    } else {
        ""
    };
    let verdict = last_verdict(check);
    let row = match in_a_row(check).as_str() {
        "-" => String::new(),
        row => format!(", {row} in a row"),
    };
    let since = age(check.phase_age_s);
    let text = format!(
        "{}: {} for {since}{row}{counts}; last: {}",
        check.name,
        check.phase,
        verdict.text()
    );
    Span::new(phase(check).style(), &text)
}

fn readiness(service: &Service) -> Vec<Span> {
    if service.readiness.is_empty() {
        return vec!["no inputs: nothing besides the checks is waited for".into()];
    }
    service.readiness.iter().map(input).collect()
}

fn input(input: &Readiness) -> Span {
    let since = age(input.age_s);
    let reason = input.reason.as_ref();
    let reason = reason.map_or_else(String::new, |reason| format!(": {reason}"));
    let (style, ready) = if input.ready {
        (Style::Good, "ready")
    } else {
        (Style::Bad, "not ready")
    };
    Span::new(
        style,
        &format!("{}: {ready} for {since}{reason}", input.name),
    )
}

fn fleet(service: &Service) -> Vec<Span> {
    if service.fleet.is_empty() {
        return vec!["this node knows no other: it decides alone".into()];
    }
    service.fleet.iter().map(peer).collect()
}

fn peer(peer: &Peer) -> Span {
    let Some(heard) = peer.heard_age_s else {
        return Span::new(Style::Warn, &format!("{}: never heard", peer.node));
    };
    let state = match (peer.draining, peer.preferred) {
        (Some(true), _) => "draining",
        (_, Some(true)) => "preferred",
        _ => "demoted",
    };
    Span::plain(&format!(
        "{}: {state}, heard {} ago",
        peer.node,
        age(Some(heard))
    ))
}

fn orders(service: &Service) -> Vec<Span> {
    let order = match &service.intent {
        Some(intent) => super::order(intent),
        None => "none: health decides".into(),
    };
    let drain = service.drain.as_ref();
    let drain = drain.map(|drain| Span::plain(&format!("drain: {}", super::drain(drain).text())));
    [order].into_iter().chain(drain).collect()
}

fn decision(service: &Service) -> Vec<Span> {
    let state = service.state.as_deref().unwrap_or("-");
    let reason = service.reason.as_deref().unwrap_or("-");
    let since = age(service.preference_age_s);
    let decided = format!("{} for {since} ({state}): {reason}", service.preference);
    let mut lines = vec![Span::new(
        super::preference(&service.preference).style(),
        &decided,
    )];
    if let Some(failing) = service.failing_age_s {
        lines.push(format!("the service is not healthy for {}", age(Some(failing))).into());
    }
    if let Some(parked) = service.parked_age_s {
        let parked = format!("parked for flapping for {}", age(Some(parked)));
        lines.push(Span::new(Style::Warn, &parked));
    }
    if let Some(raise) = &service.would_raise {
        lines.push(format!("to be preferred: {raise}").into());
    }
    if let Some(tokens) = service.budget_tokens {
        let enough = if tokens < 2 { "not enough" } else { "enough" };
        let budget = format!("update budget: {tokens} left, {enough} to be raised");
        lines.push(budget.into());
    }
    lines
}

fn route(service: &Service) -> Vec<Span> {
    let how = match service.preference.as_str() {
        "preferred" => "announced at full preference",
        "demoted" => "announced at the inferior level: other nodes come first",
        "withdrawn" => "not announced from here",
        _ => "-",
    };
    let addresses = service.addresses.iter();
    addresses
        .map(|address| Span::plain(&format!("{address}: {how}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_link_is_told() {
        let json = r#"{"node": "ams1", "services": [{"name": "dns", "preference": "demoted",
            "preference_age_s": 192, "state": "failed", "reason": "q is down: no answer",
            "would_raise": "q: 3 more successes in a row", "budget_tokens": 1,
            "failing_age_s": 200, "parked_age_s": 20, "announcer": "loopback",
            "addresses": ["192.0.2.53"], "confirmation": {"state": "failing", "reason": "EPERM"},
            "intent": {"order": "demote", "reason": "new disks", "by": "root (uid 0)", "age_s": 60,
                       "expires_in_s": 7140, "saved": false, "unsaved_reason": "disk full"},
            "drain": {"phase": "finishing", "phase_age_s": 50, "in_flight": 3},
            "readiness": [{"name": "sync", "ready": false, "age_s": 3, "reason": "2 files behind"}],
            "fleet": [{"node": "fra1", "heard_age_s": 0.5, "preferred": true, "draining": false},
                      {"node": "lon1"}],
            "checks": [{"name": "q", "severity": "critical", "phase": "down", "phase_age_s": 192,
                        "verdict": "unhealthy: no answer", "verdict_age_s": 0.3, "failures": 2},
                       {"name": "w", "severity": "warning", "phase": "down"}]}]}"#;
        let node: Node = serde_json::from_str(json).unwrap();
        let text = show(&node, &node.services[0], None)
            .render(false)
            .join("\n");
        for line in [
            "dns on ams1: demoted for 3m 12s",
            "checks     q: down for 3m 12s, 2 bad in a row; last: unhealthy: no answer (0.3s ago)",
            "           w: down for - (a warning: it changes nothing); last: -",
            "readiness  sync: not ready for 3.0s: 2 files behind",
            "fleet      fra1: preferred, heard 0.5s ago",
            "           lon1: never heard",
            "order      demote (new disks), by root (uid 0), 1m 0s ago, ends in 1h 59m; does not survive a restart: disk full",
            "           drain: what is in flight is being finished, for 50s, 3 in flight",
            "decision   demoted for 3m 12s (failed): q is down: no answer",
            "           parked for flapping for 20s",
            "           to be preferred: q: 3 more successes in a row",
            "           update budget: 1 left, not enough to be raised",
            "announcer  failing: EPERM (loopback)",
            "route      192.0.2.53: announced at the inferior level: other nodes come first",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line}\n{text}");
        }
    }
}
