//! What an order did.

use crate::model::Done;
use crate::text::{Span, Text, age};

/// One line of what was done; the warnings are the caller's.
pub(crate) fn show(done: &Done) -> Text {
    let what = match done.order.as_str() {
        "drain" => "drained",
        "undrain" => "the order is lifted",
        "withdraw" => "withdrawn by order",
        other => other,
    };
    let lasts = match (done.for_s, done.order.as_str()) {
        (_, "undrain") => String::new(),
        (None, _) => ", until it is lifted".to_owned(),
        (Some(seconds), _) => format!(", for {}", age(Some(seconds))),
    };
    let saved = match (done.saved, done.order.as_str()) {
        (_, "undrain") => "",
        (true, _) => ", also over a restart",
        (false, _) => "",
    };
    let force = if done.in_force {
        "in force"
    } else {
        "not in force yet"
    };
    let mut text = Text::default();
    text.line([
        Span::plain(&format!(
            "{} on {}: {what}{lasts}{saved}; now ",
            done.service, done.node
        )),
        super::preference(&done.preference),
        format!(", {force}").into(),
    ]);
    text
}
