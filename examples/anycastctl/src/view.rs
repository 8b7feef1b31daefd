//! What is shown of a node's answers.

pub(crate) mod catchment;
pub(crate) mod checks;
pub(crate) mod explain;
mod fleet;
pub(crate) mod order;
pub(crate) mod status;
pub(crate) mod sync;

use crate::model::{Check, Drain, Intent, Service};
use crate::text::{Span, Style, age};

pub(crate) fn dash() -> Span {
    Span::new(Style::Dim, "-")
}

pub(crate) fn or_dash(text: Option<&str>) -> Span {
    text.map_or_else(dash, Span::plain)
}

pub(crate) fn preference(preference: &str) -> Span {
    let style = match preference {
        "preferred" => Style::Good,
        "demoted" => Style::Warn,
        "withdrawn" => Style::Bad,
        _ => Style::Plain,
    };
    Span::new(style, preference)
}

/// Whether the announcer confirmed what was decided.
pub(crate) fn in_force(service: &Service) -> Span {
    let by = service.announcer.as_deref().unwrap_or("-");
    if service.running == Some(false) {
        let text = format!("no: its decision loop has ended ({by})");
        return Span::new(Style::Bad, &text);
    }
    let Some(confirmation) = &service.confirmation else {
        return Span::plain(&format!("- ({by})"));
    };
    match (confirmation.state.as_str(), &confirmation.reason) {
        ("confirmed", _) => Span::plain(&format!("yes ({by})")),
        ("pending", _) => Span::new(Style::Warn, &format!("not yet ({by})")),
        (state, None) => Span::new(Style::Bad, &format!("{state} ({by})")),
        (state, Some(reason)) => Span::new(Style::Bad, &format!("{state}: {reason} ({by})")),
    }
}

/// The operator's order in force: what, why, who, how long.
pub(crate) fn order(intent: &Intent) -> Span {
    let Intent {
        order, reason, by, ..
    } = intent;
    let ago = age(intent.age_s);
    let ends = match intent.expires_in_s {
        Some(left) => format!("ends in {}", age(Some(left))),
        None => "until it is lifted".to_owned(),
    };
    let saved = match (intent.saved, &intent.unsaved_reason) {
        (Some(false), Some(why)) => format!("; does not survive a restart: {why}"),
        _ => String::new(),
    };
    let text = format!("{order} ({reason}), by {by}, {ago} ago, {ends}{saved}");
    Span::new(Style::Warn, &text)
}

/// How far a drain is.
pub(crate) fn drain(drain: &Drain) -> Span {
    let what = match drain.phase.as_str() {
        "demoting" => "the demotion is not confirmed yet",
        "converging" => "the routes converge",
        "finishing" => "what is in flight is being finished",
        "done" => "done: nothing is left to wait for",
        other => other,
    };
    let left = match drain.in_flight {
        Some(count) => format!(", {count} in flight"),
        None => String::new(),
    };
    Span::plain(&format!("{what}, for {}{left}", age(drain.phase_age_s)))
}

pub(crate) fn phase(check: &Check) -> Span {
    let warning = check.severity.as_deref() == Some("warning");
    let style = match check.phase.as_str() {
        "up" => Style::Good,
        "down" if !warning => Style::Bad,
        _ => Style::Warn,
    };
    Span::new(style, &check.phase)
}

pub(crate) fn last_verdict(check: &Check) -> Span {
    let Some(verdict) = &check.verdict else {
        return dash();
    };
    let style = if verdict.starts_with("unknown") {
        Style::Warn
    } else {
        Style::Plain
    };
    let ago = age(check.verdict_age_s);
    Span::new(style, &format!("{verdict} ({ago} ago)"))
}
