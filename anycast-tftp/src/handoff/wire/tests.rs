//! Round trips, and whatever else comes in.

use proptest::prelude::*;

use super::*;
use crate::proto::packet::Mode;
use crate::proto::transfer::Rollover;
use crate::store::{ContentHash, ContentId, FileName};

fn flow() -> Flow {
    Flow {
        remote: "[2001:db8::9]:2070".parse().unwrap(),
        local: "[2001:db8::69]:69".parse().unwrap(),
    }
}

fn standing(name: &str) -> Standing {
    let hash = ContentHash([7; 32]);
    Standing {
        record: Record {
            flow: flow(),
            nonce: 0x0123_4567_89ab_cdef,
            order: 3,
            request: u128::MAX - 5,
            name: FileName::from_wire(name.as_bytes()).unwrap(),
            content: Some(ContentId {
                hash,
                size: 1 << 40,
            }),
            mode: Mode::Netascii,
            oack: b"\0\x06blksize\x001428\0"[..].into(),
            blksize: 1428,
            windowsize: 16,
            timeout: Some(3),
            rollover: Rollover::One,
        },
        tenure: Tenure {
            epoch: 2,
            owner: NodeId(99),
        },
        acked: 70_000,
        floor: 65_000,
        pace: 1200,
        is_greeted: true,
        silence: Duration::from_millis(150),
        hold: Duration::from_millis(20),
        lease: Duration::from_secs(2),
        echo: 12_345,
        is_sure: true,
        age: Duration::from_secs(9),
    }
}

fn all() -> Vec<Message> {
    let (flow, nonce, acked) = (flow(), 17, 70_000);
    let tenure = Tenure {
        epoch: 1,
        owner: NodeId(3),
    };
    vec![
        Message::Hello {
            domain: 5,
            mtu: 1500,
            is_draining: true,
        },
        Message::Put(Box::new(standing("boot/vmlinuz"))),
        Message::Kept {
            flow,
            nonce,
            has_content: true,
            older: Some(NodeId(4)),
            wait: Duration::from_millis(7),
            stamp: 9,
        },
        Message::Refused {
            nonce,
            is_over: true,
            standing: Box::new(standing("a")),
        },
        Message::Hint {
            flow,
            nonce,
            tenure,
            acked,
            floor: 1,
            pace: 2,
            is_greeted: true,
            silence: Duration::ZERO,
            echo: 4,
        },
        Message::Known {
            flow,
            nonce,
            acked,
            stamp: 1,
        },
        Message::Notice {
            flow,
            nonce,
            acked,
            is_greeted: false,
            silence: Duration::from_millis(1),
        },
        Message::Ask { flow, stamp: 8 },
        Message::Unknown { flow },
        Message::End {
            flow,
            nonce,
            order: 2,
        },
        Message::Ended { flow, nonce },
        Message::Forward {
            flow,
            id: 1,
            part: 0,
            parts: 2,
            bytes: vec![1, 2, 3],
        },
    ]
}

fn datagram(messages: &[Message]) -> Vec<u8> {
    let bodies = messages.iter().map(Message::encode);
    [VERSION].into_iter().chain(bodies.flatten()).collect()
}

#[test]
fn every_message_comes_back() {
    let all = all();
    let datagram = datagram(&all);
    let read: Result<Vec<_>, _> = messages(&datagram).collect();
    assert_eq!(read, Ok(all));
}

#[test]
fn the_longest_record_fits_a_message() {
    let mut longest = standing(&"x".repeat(crate::proto::packet::MAX_REQUEST));
    longest.record.oack = vec![0; crate::proto::packet::MAX_OPTION_ACK].into();
    let refused = Message::Refused {
        nonce: 1,
        is_over: true,
        standing: Box::new(longest),
    };
    assert!(datagram(&[refused]).len() <= crate::handoff::limits::MAX_MESSAGE);
}

#[test]
fn what_a_later_version_adds_is_skipped() {
    let known = Message::Unknown { flow: flow() };
    let mut longer = known.encode();
    let len = u16::try_from(longer.len() - 3 + 2).unwrap();
    longer[1..3].copy_from_slice(&len.to_be_bytes());
    longer.extend([1, 2]);
    let datagram = [vec![VERSION, 200, 0, 1, 9], longer].concat();
    assert_eq!(messages(&datagram).collect::<Vec<_>>(), [Ok(known)]);
    let other = [VERSION + 1, 9, 0, 0];
    let refused = messages(&other).collect::<Vec<_>>();
    assert_eq!(refused, [Err(WireError::Version(VERSION + 1))]);
}

#[test]
fn what_cannot_be_is_refused() {
    let good = standing("a");
    let faults: [fn(&mut Record); 4] = [
        |record| record.blksize = 7,
        |record| record.blksize = 65_465,
        |record| record.windowsize = 0,
        |record| record.oack = vec![0; crate::proto::packet::MAX_OPTION_ACK + 1].into(),
    ];
    for fault in faults {
        let mut bad = good.clone();
        fault(&mut bad.record);
        let datagram = datagram(&[Message::Put(Box::new(bad))]);
        let read = messages(&datagram).collect::<Vec<_>>();
        assert!(matches!(read[..], [Err(WireError::Value(_))]), "{read:?}");
    }
    // A name as no client may send it.
    let mut bytes = datagram(&[Message::Put(Box::new(standing("a/b")))]);
    let at = bytes.windows(3).position(|w| w == b"a/b").unwrap();
    bytes[at..at + 3].copy_from_slice(b"../");
    assert!(messages(&bytes).all(|message| message.is_err()));
}

proptest! {
    #[test]
    fn whatever_comes_in_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = messages(&bytes).count();
        let mut framed = vec![VERSION];
        framed.extend(&bytes);
        for message in messages(&framed).flatten() {
            let again = datagram(std::slice::from_ref(&message));
            prop_assert_eq!(messages(&again).collect::<Vec<_>>(), vec![Ok(message)]);
        }
    }

    #[test]
    fn a_changed_byte_is_read_or_refused(at in 0_usize..2000, by in any::<u8>()) {
        let mut bytes = datagram(&all());
        let at = at % bytes.len();
        bytes[at] ^= by;
        let _ = messages(&bytes).count();
    }
}
