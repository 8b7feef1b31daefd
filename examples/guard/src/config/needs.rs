//! Which capabilities the checks of a file need. Everything else is dropped at the start.

use anycast_daemon::privileges::CapabilitySet;
use toml::{Table, Value};

/// Looks through all tables, so that a check inside a combinator is found too.
///
/// | check | capability |
/// |---|---|
/// | `icmp` | `CAP_NET_RAW` |
/// | `process` by `executable` | `CAP_SYS_PTRACE`: to see other users' programs |
/// | `exec` as another `user` | `CAP_SETUID`, `CAP_SETGID`; `CAP_KILL`: to end it at its time-out |
pub(super) fn of(table: &Table) -> CapabilitySet {
    let needs = match table.get("kind").and_then(Value::as_str) {
        Some("icmp") => CapabilitySet::NET_RAW,
        Some("process") if table.contains_key("executable") => CapabilitySet::SYS_PTRACE,
        Some("exec") if table.contains_key("user") => {
            CapabilitySet::SETUID | CapabilitySet::SETGID | CapabilitySet::KILL
        }
        Some(_) | None => CapabilitySet::empty(),
    };
    needs | of_all(table.values())
}

fn of_all<'a>(values: impl Iterator<Item = &'a Value>) -> CapabilitySet {
    values.fold(CapabilitySet::empty(), |needs, value| {
        needs
            | match value {
                Value::Table(table) => of(table),
                Value::Array(values) => of_all(values.iter()),
                Value::String(_)
                | Value::Integer(_)
                | Value::Float(_)
                | Value::Boolean(_)
                | Value::Datetime(_) => CapabilitySet::empty(),
            }
    })
}
