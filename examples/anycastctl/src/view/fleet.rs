//! The other nodes, in `anycastctl status`.

use super::or_dash;
use crate::model::{DataSet, Mesh, MeshPeer, PeerService};
use crate::text::{Span, Style, Table, Text, age};

/// Further off than this is a fault of somebody's clock, in seconds.
const CLOCK_LIMIT: f64 = 0.5;

/// A line a peer; nothing without peers.
pub(super) fn table(mesh: &Mesh, width: Option<usize>) -> Text {
    if mesh.peers.is_empty() {
        return Text::default();
    }
    let mut table = Table::new([
        "PEER", "ADDRESS", "UP", "HEARD", "CLOCK", "VERSION", "DATA", "SERVICES",
    ]);
    for peer in &mesh.peers {
        table.row([
            peer.node.as_str().into(),
            or_dash(peer.address.as_deref()),
            up(peer),
            age(peer.heard_age_s).into(),
            clock(peer.clock_offset_s),
            or_dash(peer.software.as_deref()),
            data(&peer.data),
            services(peer),
        ]);
    }
    table.layout(width)
}

fn up(peer: &MeshPeer) -> Span {
    match peer.up_age_s {
        Some(_) => Span::new(Style::Good, &age(peer.up_age_s)),
        None => Span::new(Style::Bad, "down"),
    }
}

fn clock(offset: Option<f64>) -> Span {
    let Some(offset) = offset.filter(|offset| offset.is_finite()) else {
        return "-".into();
    };
    let style = if offset.abs() > CLOCK_LIMIT {
        Style::Warn
    } else {
        Style::Plain
    };
    Span::new(style, &format!("{offset:+.3}s"))
}

fn data(sets: &[DataSet]) -> Span {
    let one = |set: &DataSet| {
        let name = &set.name;
        match (set.ready, set.behind) {
            (true, None | Some(0)) => format!("{name} ready"),
            (true, Some(behind)) => format!("{name} ready, {behind} behind"),
            (false, Some(behind)) => format!("{name} not ready, {behind} behind"),
            (false, None) => format!("{name} not ready"),
        }
    };
    let all: Vec<_> = sets.iter().map(one).collect();
    match &all[..] {
        [] => "-".into(),
        all if sets.iter().all(|set| set.ready) => all.join("; ").into(),
        all => Span::new(Style::Warn, &all.join("; ")),
    }
}

/// What it said, and why it is down or its data are not ready.
fn services(peer: &MeshPeer) -> Span {
    let one = |service: &PeerService| {
        let mut text = format!("{} ", service.name);
        text += if service.preferred {
            "preferred"
        } else {
            "not preferred"
        };
        if service.draining {
            text += ", by order";
        }
        if service.failing_age_s.is_some() {
            text += &format!(", failing for {}", age(service.failing_age_s));
        }
        match service.turn.as_deref() {
            Some("waits") => text += ", waits for its turn",
            Some("has") => text += ", has its turn",
            Some(_) | None => {}
        }
        text
    };
    let mut all: Vec<_> = peer.services.iter().map(one).collect();
    let reasons = peer.data.iter().filter(|set| !set.ready);
    all.extend(reasons.filter_map(|set| Some(format!("{}: {}", set.name, set.reason.as_ref()?))));
    if peer.up_age_s.is_some() {
        let failing = peer.services.iter().any(|s| s.failing_age_s.is_some());
        let style = if failing { Style::Warn } else { Style::Plain };
        return Span::new(style, &all.join("; "));
    }
    // What it said before is no news any more.
    or_dash(peer.down_reason.as_deref())
}
