//! `anycastctl checks`.

use super::{last_verdict, or_dash, phase};
use crate::model::{Check, Node, Service};
use crate::text::{Table, Text, age};

/// The checks of one service, or of all.
pub(crate) fn show(node: &Node, service: Option<&str>, width: Option<usize>) -> Text {
    let services = node.services.iter();
    let chosen = services.filter(|s| service.is_none_or(|name| s.name == name));
    let checks = chosen.flat_map(|s| s.checks.iter().map(move |check| (s, check)));
    let mut table = Table::new([
        "SERVICE",
        "CHECK",
        "SEVERITY",
        "STATE",
        "FOR",
        "IN A ROW",
        "LAST VERDICT",
    ]);
    for (service, check) in checks {
        table.row([
            service.name.as_str().into(),
            check.name.as_str().into(),
            or_dash(check.severity.as_deref()),
            phase(check),
            age(check.phase_age_s).into(),
            in_a_row(check).into(),
            last_verdict(check),
        ]);
    }
    table.layout(width)
}

/// Which of the two counts stands, and at what.
pub(super) fn in_a_row(check: &Check) -> String {
    match (check.successes, check.failures) {
        (_, Some(failures)) if failures > 0 => format!("{failures} bad"),
        (Some(successes), _) if successes > 0 => format!("{successes} good"),
        _ => "-".to_owned(),
    }
}

/// The shorter table of `status`.
pub(super) fn table<'a>(
    checks: impl Iterator<Item = (&'a Service, &'a Check)>,
    width: Option<usize>,
) -> Text {
    let mut table = Table::new(["SERVICE", "CHECK", "STATE", "FOR", "LAST VERDICT"]);
    for (service, check) in checks {
        table.row([
            service.name.as_str().into(),
            check.name.as_str().into(),
            phase(check),
            age(check.phase_age_s).into(),
            last_verdict(check),
        ]);
    }
    table.layout(width)
}
