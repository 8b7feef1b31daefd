//! Round trips, and whatever else comes in.

use proptest::prelude::*;

use super::*;
use crate::handoff::record::{Record, Tenure};
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
        view: view(),
    }
}

fn view() -> View {
    View {
        progress: Progress {
            tenure: Tenure {
                epoch: 2,
                owner: NodeId(99),
            },
            acked: 70_000,
            floor: 65_000,
            pace: 1200,
            is_greeted: true,
            silence: Duration::from_millis(150),
        },
        hold: Duration::from_millis(20),
        lease: Duration::from_secs(2),
        echo: 12_345,
        is_sure: true,
        age: Duration::from_secs(9),
    }
}

/// What version 1 can say.
fn of_version_1() -> Vec<Message> {
    let (flow, nonce, acked) = (flow(), 17, 70_000);
    vec![
        Message::Hello {
            domain: 5,
            mtu: 1500,
            is_draining: true,
            speaks: 1,
            age: None,
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
        Message::Hint(Hint {
            flow,
            nonce,
            progress: view().progress,
            echo: 4,
        }),
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
        Message::Ask {
            flow,
            stamp: 8,
            has: None,
        },
        Message::Unknown { flow },
        Message::End { flow, nonce },
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

/// And what version 2 can.
fn of_version_2() -> Vec<Message> {
    let (flow, nonce) = (flow(), 17);
    let mut all = of_version_1();
    all.extend([
        Message::Hello {
            domain: 5,
            mtu: 1500,
            is_draining: false,
            speaks: 2,
            age: Some(86_400_000),
        },
        Message::Ask {
            flow,
            stamp: 8,
            has: Some(nonce),
        },
        Message::Stands {
            flow,
            nonce,
            view: view(),
        },
    ]);
    all
}

fn of(version: u8) -> Vec<Message> {
    if version == 1 {
        of_version_1()
    } else {
        of_version_2()
    }
}

fn datagram(version: u8, messages: &[Message]) -> Vec<u8> {
    let bodies = messages.iter().map(|message| message.encode(version));
    [version].into_iter().chain(bodies.flatten()).collect()
}

#[test]
fn every_message_comes_back() {
    for version in 1..=2 {
        let all = of(version);
        let datagram = datagram(version, &all);
        let read: Result<Vec<_>, _> = messages(&datagram, 2).collect();
        assert_eq!(read, Ok(all));
    }
}

/// The bytes of version 1 do not change: its nodes are still there.
#[test]
fn what_is_said_to_a_node_of_version_1_is_what_it_has_always_heard() {
    let bytes = |message: Message| message.encode(1);
    let flow = Flow {
        remote: "10.0.0.1:2070".parse().unwrap(),
        local: "192.0.2.69:69".parse().unwrap(),
    };
    let named = [4, 10, 0, 0, 1, 8, 22, 4, 192, 0, 2, 69, 0, 69];
    let hello = Message::Hello {
        domain: 1,
        mtu: 1500,
        is_draining: true,
        speaks: 1,
        age: None,
    };
    let said = [1, 0, 13, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 5, 220, 1];
    assert_eq!(bytes(hello), said);
    let ask = Message::Ask {
        flow,
        stamp: 7,
        has: Some(9),
    };
    let said = [&[8, 0, 22][..], &named, &[0, 0, 0, 0, 0, 0, 0, 7]].concat();
    assert_eq!(bytes(ask), said);
    let end = Message::End { flow, nonce: 5 };
    let said = [
        &[10, 0, 26][..],
        &named,
        &[0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0],
    ];
    assert_eq!(bytes(end), said.concat());
}

#[test]
fn a_node_of_version_1_reads_the_hello_of_any() {
    let hello = Message::Hello {
        domain: 1,
        mtu: 1400,
        is_draining: true,
        speaks: 2,
        age: Some(5),
    };
    let datagram = datagram(LEAST_VERSION, &[hello]);
    // It reads what it knows of the body: no more than the first thirteen bytes.
    let mut short = datagram.clone();
    short[1 + 2] = 13;
    short.truncate(1 + 3 + 13);
    let read: Vec<_> = messages(&short, 1).flatten().collect();
    let [
        Message::Hello {
            domain: 1,
            mtu: 1400,
            is_draining: true,
            speaks: 1,
            age: None,
        },
    ] = read[..]
    else {
        panic!("{read:?}");
    };
    // And what says no version is of version 1, also for a later one.
    assert_eq!(messages(&short, 2).flatten().collect::<Vec<_>>(), read);
}

#[test]
fn the_highest_version_of_both_is_spoken_and_the_oldest_to_who_has_not_said() {
    for (own, peer, spoken) in [
        (2, None, 1),
        (2, Some(1), 1),
        (2, Some(2), 2),
        (2, Some(9), 2),
        (1, Some(2), 1),
        (2, Some(0), 1),
    ] {
        assert_eq!(common(own, peer), spoken, "{own} {peer:?}");
    }
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
    assert!(datagram(2, &[refused]).len() <= crate::handoff::limits::MAX_MESSAGE);
}

#[test]
fn what_a_later_version_adds_is_skipped() {
    let known = Message::Unknown { flow: flow() };
    let mut longer = known.encode(2);
    let len = u16::try_from(longer.len() - 3 + 2).unwrap();
    longer[1..3].copy_from_slice(&len.to_be_bytes());
    longer.extend([1, 2]);
    let datagram = [vec![2, 200, 0, 1, 9], longer].concat();
    assert_eq!(messages(&datagram, 2).collect::<Vec<_>>(), [Ok(known)]);
    for version in [0, 3] {
        let refused = messages(&[version, 9, 0, 0], 2).collect::<Vec<_>>();
        assert_eq!(refused, [Err(WireError::Version(version))]);
    }
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
        let datagram = datagram(2, &[Message::Put(Box::new(bad))]);
        let read = messages(&datagram, 2).collect::<Vec<_>>();
        assert!(matches!(read[..], [Err(WireError::Value(_))]), "{read:?}");
    }
    // A name as no client may send it.
    let mut bytes = datagram(2, &[Message::Put(Box::new(standing("a/b")))]);
    let at = bytes.windows(3).position(|w| w == b"a/b").unwrap();
    bytes[at..at + 3].copy_from_slice(b"../");
    assert!(messages(&bytes, 2).all(|message| message.is_err()));
}

proptest! {
    #[test]
    fn whatever_comes_in_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = messages(&bytes, 2).count();
        for version in 1..=2 {
            let mut framed = vec![version];
            framed.extend(&bytes);
            for message in messages(&framed, 2).flatten() {
                let again = datagram(version, std::slice::from_ref(&message));
                prop_assert_eq!(messages(&again, 2).collect::<Vec<_>>(), vec![Ok(message)]);
            }
        }
    }

    #[test]
    fn a_changed_byte_is_read_or_refused(at in 0_usize..2000, by in any::<u8>(), version in 1..=2_u8) {
        let mut bytes = datagram(version, &of(version));
        let at = at % bytes.len();
        bytes[at] ^= by;
        let _ = messages(&bytes, 2).count();
    }
}
