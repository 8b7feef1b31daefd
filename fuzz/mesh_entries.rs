//! What the fuzzer calls, and what an ordinary test calls with the committed corpora: whatever a
//! peer may say on the mesh's control stream. None may panic.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anycast_core::mesh::engine::turns::{Need, Part};
use anycast_core::mesh::engine::{ConnectionId, Engine};
use anycast_core::mesh::wire::{
    MAX_FRAME, MAX_SERVICES, Message, ServiceStatus, TurnStage, WireError, frame_length,
};
use anycast_core::service::{NodeName, ServiceName};

/// Outputs of one input at most: two peers, each cut off, or told a few things.
const OUTPUTS: usize = 16;

/// A message: what was heard can be said, and is heard the same.
pub(crate) fn mesh_message(bytes: &[u8]) {
    let Ok(Some(message)) = Message::decode(bytes) else {
        return;
    };
    if let Message::Status(status) = &message {
        assert!(status.services.len() <= MAX_SERVICES);
    }
    let said = message.encode();
    assert!(said.is_ok(), "{said:?}");
    let said = said.unwrap_or_default();
    if let Some((head, body)) = said.split_first_chunk() {
        assert_eq!(frame_length(*head), Ok(body.len()));
        assert_eq!(Message::decode(body), Ok(Some(message)));
    }
}

/// A control stream from its beginning.
pub(crate) fn mesh_stream(bytes: &[u8]) {
    let _ = frames(bytes);
}

/// The messages up to the first fault.
fn frames(mut rest: &[u8]) -> Result<Vec<Message>, WireError> {
    let mut messages = Vec::new();
    while let Some((head, after)) = rest.split_first_chunk() {
        let length = frame_length(*head)?;
        assert!(length <= MAX_FRAME);
        let Some((frame, after)) = after.split_at_checked(length) else {
            break;
        };
        mesh_message(frame);
        messages.extend(Message::decode(frame)?);
        rest = after;
    }
    Ok(messages)
}

/// An engine and what its two peers do: steps of a byte for what (its low bits) and whose (its
/// highest), and a byte that says how much.
pub(crate) fn mesh_engine(bytes: &[u8]) {
    let names: Vec<NodeName> = ["a", "c"]
        .iter()
        .filter_map(|name| name.parse().ok())
        .collect();
    let (Ok(own), [one, other]) = ("b".parse(), &names[..]) else {
        return;
    };
    let mut now = Instant::now();
    let mut engine = Engine::new(now, own, 7, names.clone());
    let mut wall = 0i64;
    let mut rest = bytes;
    while let [what, much, after @ ..] = rest {
        rest = after;
        let peer = if what & 0x80 == 0 { one } else { other };
        let id = ConnectionId(u64::from(*much));
        match what & 0x07 {
            0 => engine.handle_connected(now, peer, id),
            1 => engine.handle_closed(now, peer, id, "it ended".into()),
            2 => {
                now += Duration::from_millis(20 * u64::from(*much));
                engine.handle_timeout(now, wall);
            }
            3 => {
                engine.handle_status(now, services(*much));
                engine.handle_parts(now, parts(*much));
            }
            // The wall clock jumps.
            4 => wall = i64::MIN.wrapping_add(i64::from(*much) << 56),
            _ => {
                let Some((head, after)) = rest.split_first_chunk() else {
                    break;
                };
                let length = usize::from(u16::from_be_bytes(*head)).min(after.len());
                let (frame, after) = after.split_at(length);
                rest = after;
                if let Ok(Some(message)) = Message::decode(frame) {
                    engine.handle_message(now, wall, peer, id, message);
                }
            }
        }
        let outputs = std::iter::from_fn(|| engine.poll_output()).take(OUTPUTS + 1);
        assert!(outputs.count() <= OUTPUTS);
        assert_eq!(engine.peers().count(), 2);
        for (_, view) in engine.peers() {
            assert!(view.services.len() <= MAX_SERVICES);
            assert!(view.up_since.is_none() || view.heard_at.is_some());
        }
        let _ = engine.poll_timeout();
    }
}

fn services(much: u8) -> Vec<ServiceStatus> {
    let Ok(name) = "tftp".parse() else {
        return Vec::new();
    };
    vec![ServiceStatus {
        name,
        preferred: much & 1 != 0,
        draining: much & 2 != 0,
        failing_for: (much & 4 != 0).then(|| u64::MAX << (much >> 3)),
        outlives: (much & 8 != 0).then(|| u64::MAX << (much >> 3)),
        turn: TurnStage::Idle,
    }]
}

/// What this node wants of turns.
fn parts(much: u8) -> BTreeMap<ServiceName, Part> {
    let need = match much & 0x30 {
        0x00 => Need::Nothing,
        0x10 => Need::Turn { leaves: false },
        0x20 => Need::Turn { leaves: true },
        _ => Need::Uses { leaves: true },
    };
    let spacing = Duration::from_millis(10 * u64::from(much));
    let name = "tftp".parse().ok().filter(|_| much & 0x40 != 0);
    name.map(|name| (name, Part { spacing, need }))
        .into_iter()
        .collect()
}
