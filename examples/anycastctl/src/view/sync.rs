//! `anycastctl sync`.

use std::collections::BTreeMap;

use serde_json::Value;

use super::or_dash;
use crate::model::sync::{DataSet, Diff, Lag};
use crate::text::{Span, Style, Table, Text, age};

/// Every data set: whether it is ready and why, each peer, and what it says of itself.
pub(crate) fn status(all: &BTreeMap<String, DataSet>, width: Option<usize>) -> Text {
    let mut text = Text::default();
    if all.is_empty() {
        text.line(["this node synchronises nothing".into()]);
        return text;
    }
    for (number, (name, data_set)) in all.iter().enumerate() {
        if number > 0 {
            text.blank();
        }
        let state = match data_set.ready {
            Some(true) => Span::new(Style::Good, "ready"),
            Some(false) => Span::new(Style::Bad, "not ready"),
            None => Span::new(Style::Warn, "unknown"),
        };
        let mut table = Table::new(["DATA", "STATE", "BEHIND", "WHY"]);
        table.row([
            name.as_str().into(),
            state,
            lag(&data_set.lag),
            data_set.reason.as_str().into(),
        ]);
        text.append(table.layout(width));
        if !data_set.peers.is_empty() {
            text.blank();
            let mut table = Table::new(["PEER", "BEHIND IT"]);
            for peer in &data_set.peers {
                table.row([peer.peer.as_str().into(), lag(&peer.lag)]);
            }
            text.append(table.layout(width));
        }
        if !data_set.details.is_empty() {
            text.blank();
            let mut table = Table::bare();
            for (key, value) in &data_set.details {
                for part in parts(value) {
                    table.row([Span::new(Style::Dim, key), part.into()]);
                }
            }
            text.append(table.layout(width));
        }
    }
    text
}

/// A value as lines: each entry of a list or an object is one.
fn parts(value: &Value) -> Vec<String> {
    match value {
        Value::Null => Vec::new(),
        Value::String(text) => vec![text.clone()],
        Value::Bool(_) | Value::Number(_) => vec![value.to_string()],
        Value::Array(list) => list.iter().flat_map(parts).collect(),
        Value::Object(entries) => {
            let entry = |(key, value)| {
                let parts = parts(value);
                parts.into_iter().map(move |part| format!("{key}: {part}"))
            };
            entries.iter().flat_map(entry).collect()
        }
    }
}

fn lag(lag: &Lag) -> Span {
    match (lag.state.as_str(), lag.items) {
        ("none", _) => Span::new(Style::Good, "nothing"),
        ("behind", Some(items)) => {
            let files = if items == 1 { "item" } else { "items" };
            let text = format!("{items} {files}, for {}", age(lag.age_s));
            Span::new(Style::Warn, &text)
        }
        ("unknown", _) => Span::new(Style::Warn, "not known"),
        (other, _) => Span::plain(other),
    }
}

/// What differs, by peer and item.
pub(crate) fn diff(diff: &Diff, width: Option<usize>) -> Text {
    let mut text = Text::default();
    let mut table = Table::new(["PEER", "ITEM", "HERE", "THERE", "WHY"]);
    let mut rows = 0;
    for (peer, differs) in diff {
        for item in &differs.items {
            rows += 1;
            table.row([
                peer.as_str().into(),
                item.item.as_str().into(),
                or_dash(item.here.as_deref()),
                or_dash(item.there.as_deref()),
                or_dash(item.why.as_deref()),
            ]);
        }
    }
    if rows > 0 {
        text.append(table.layout(width));
    }
    for (peer, differs) in diff {
        let line = match &differs.error {
            Some(error) => Span::new(Style::Warn, &format!("{peer}: not known: {error}")),
            None if differs.more > 0 => {
                Span::new(Style::Dim, &format!("{peer}: {} more", differs.more))
            }
            None if differs.items.is_empty() => {
                Span::new(Style::Good, &format!("{peer}: nothing differs"))
            }
            None => continue,
        };
        text.line([line]);
    }
    if diff.is_empty() {
        text.line(["there are no peers".into()]);
    }
    text
}

/// What an order to reconcile did.
pub(crate) fn forced(name: &str, data_set: &DataSet) -> Text {
    let mut text = Text::default();
    if let Some(did) = &data_set.force.did {
        let line = format!(
            "{name}: {} compared, {} fetched, {} sent, {} removed",
            did.compared, did.fetched, did.sent, did.removed
        );
        text.line([line.into()]);
    }
    text.line([Span::plain(&format!("{name}: {}", data_set.reason))]);
    text
}
