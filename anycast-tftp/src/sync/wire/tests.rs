use proptest::prelude::*;

use super::*;

fn hash() -> impl Strategy<Value = ContentHash> {
    any::<[u8; 32]>().prop_map(ContentHash)
}

fn content() -> impl Strategy<Value = ContentId> {
    (hash(), any::<u64>()).prop_map(|(hash, size)| ContentId { hash, size })
}

fn file_names() -> impl Strategy<Value = FileName> {
    "[a-z]{1,8}(/[a-z0-9._ -]{0,8}[a-z0-9]){0,3}"
        .prop_map(|text| FileName::from_wire(text.as_bytes()).unwrap())
}

fn generation() -> impl Strategy<Value = Generation> {
    let members = prop::collection::btree_map(file_names(), content(), 1..5);
    members.prop_map(|members| Generation::new(members.into_iter().collect()).unwrap())
}

fn entry() -> impl Strategy<Value = (Key, Entry)> {
    let dots = prop::collection::vec((0..4_u8, 1..MAX_COUNTER, content(), generation()), 0..6);
    let key = prop_oneof![
        file_names().prop_map(Key::File),
        "[a-z]{1,20}".prop_map(|text| Key::Group(text.parse().unwrap())),
    ];
    (key, dots, any::<bool>()).prop_map(|(key, dots, is_dead)| {
        let mut entry = Entry::default();
        for (writer, counter, content, generation) in dots {
            let node: NodeName = format!("n{writer}").parse().unwrap();
            let writer = Writer {
                node,
                incarnation: 3,
            };
            let version = match &key {
                Key::File(_) => Version::File(content),
                Key::Group(_) => Version::Group(generation),
            };
            entry.write(Dot { counter, writer }, version);
        }
        if is_dead {
            entry.erase(|_| true);
        }
        (key, entry)
    })
}

fn message() -> impl Strategy<Value = Message> {
    let item =
        (content(), any::<u64>(), any::<u64>()).prop_map(|(content, offset, length)| ReadItem {
            content,
            offset,
            length,
        });
    let notice = (any::<std::net::IpAddr>(), any::<[u8; 16]>(), any::<u32>()).prop_map(
        |(client, generation, remaining)| Notice {
            client,
            group: "kernel".parse().unwrap(),
            generation: GenerationId(generation),
            remaining,
        },
    );
    prop_oneof![
        (any::<u64>(), any::<u64>())
            .prop_map(|(epoch, since)| Message::Follow(Follow { epoch, since })),
        (any::<[u64; 3]>(), prop::collection::vec(entry(), 0..4)).prop_map(
            |([epoch, after, upto], entries)| Message::Page(Page {
                epoch,
                after,
                upto,
                entries
            })
        ),
        (any::<[u64; 4]>(), any::<u128>()).prop_map(|([epoch, seq, files, missing], digest)| {
            let digest = Digest(digest);
            Message::Head(Head {
                epoch,
                seq,
                digest,
                files,
                missing,
            })
        }),
        prop::collection::vec(item, 0..5).prop_map(Message::Read),
        content().prop_map(Message::Recipe),
        content().prop_map(Message::Subtrees),
        prop::collection::vec(notice, 0..5).prop_map(Message::Affinity),
    ]
}

fn body(message: &Message) -> Vec<u8> {
    let frame = message.encode().unwrap();
    let (head, body) = frame.split_first_chunk().unwrap();
    assert_eq!(frame_length(*head), Ok(body.len()));
    body.to_vec()
}

proptest! {
    #[test]
    fn what_is_said_is_what_is_heard(message in message()) {
        prop_assert_eq!(Message::decode(&body(&message)), Ok(Some(message)));
    }

    #[test]
    fn no_bytes_make_it_panic(kind in 0..12_u8, bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Message::decode(&[&[kind], &bytes[..]].concat());
        let _ = decode_entry(&bytes);
    }

    #[test]
    fn no_changed_byte_makes_it_panic(message in message(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = body(&message);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(Some(heard)) = Message::decode(&bytes) {
            prop_assert!(heard.encode().is_ok());
        }
        let _ = Message::decode(&bytes[..at]);
    }

    #[test]
    fn fields_of_a_later_version_are_skipped(message in message(), tag in 100u8.., value in prop::collection::vec(any::<u8>(), 0..20)) {
        let mut newer = Fields(body(&message));
        newer.put(tag, &value);
        prop_assert_eq!(Message::decode(&newer.0), Ok(Some(message)));
    }
}

#[test]
fn a_name_that_is_not_normal_is_refused() {
    for bad in [
        &b"/etc/passwd"[..],
        b"../x",
        b"a/../b",
        b"a//b",
        b"./a",
        b"a\\b",
        b"a\0b",
        b"a\nb",
        b"",
        b"a/",
        b"\xff",
        b".anycast-tftp-sync/objects/x",
        b"d/.anycast-tftp-1",
    ] {
        let mut fields = Fields(Vec::new());
        fields.put(1, bad);
        let refused = WireError::Field {
            kind: PAGES,
            tag: 1,
        };
        assert_eq!(decode_entry(&fields.0), Err(refused), "{bad:?}");
        assert_eq!(file_name(bad), None);
    }
}

#[test]
fn a_length_that_only_promises_is_refused_before_anything_is_allocated() {
    // A field of 4 GiB, and a list of as many names.
    assert_eq!(
        Message::decode(&[PAGES, 4, 0xff, 0xff, 0xff, 0xff, 0]),
        Err(WireError::Cut)
    );
    assert_eq!(
        decode_entry(&[1, 0xff, 0xff, 0xff, 0xff]),
        Err(WireError::Cut)
    );
    assert_eq!(frame_length([0, 4, 0, 0]), Ok(MAX_FRAME));
    assert!(frame_length([0, 4, 0, 1]).is_err());
    let read = vec![0; 5 + MAX_FRAME];
    assert_eq!(Message::decode(&read), Err(WireError::Long(5 + MAX_FRAME)));
}

#[test]
fn a_list_that_is_too_long_is_refused() {
    let item = ReadItem {
        content: ContentId {
            hash: ContentHash([0; 32]),
            size: 0,
        },
        offset: 0,
        length: 0,
    };
    let long = Message::Read(vec![item; MAX_ITEMS + 1]);
    assert_eq!(long.encode(), Err(WireError::Items { kind: READ }));
    assert!(Message::Read(vec![item; MAX_ITEMS]).encode().is_ok());
}

#[test]
fn a_dot_that_nobody_has_seen_or_a_counter_that_cannot_be_is_refused() {
    let entry = |seen: u64, live: Option<u64>| {
        let mut fields = Fields(Vec::new());
        fields.put(1, b"a");
        fields.put(
            3,
            &[&7_u64.to_be_bytes()[..], &seen.to_be_bytes(), b"n1"].concat(),
        );
        if let Some(live) = live {
            fields.put(4, &[&[0, 0][..], &live.to_be_bytes(), &[0; 40]].concat());
        }
        decode_entry(&fields.0).map(drop)
    };
    let refused = |tag| Err(WireError::Field { kind: PAGES, tag });
    assert_eq!(entry(5, Some(5)), Ok(()));
    for seen in [0, MAX_COUNTER + 1] {
        assert_eq!(entry(seen, None), refused(3), "{seen}");
    }
    for live in [0, 6] {
        assert_eq!(entry(5, Some(live)), refused(4), "{live}");
    }
}

#[test]
fn what_precedes_the_bytes_is_what_was_said() {
    for status in [ReadStatus::Here, ReadStatus::Absent, ReadStatus::Failed] {
        let head = ReadHead { status, length: 77 };
        assert_eq!(ReadHead::decode(head.encode()), head);
    }
}
