use proptest::prelude::*;

use super::*;

/// At least 10,000 cases; `PROPTEST_CASES` asks for more.
fn cases() -> ProptestConfig {
    let default = ProptestConfig::default();
    ProptestConfig {
        cases: default.cases.max(10_000),
        ..default
    }
}

fn request(datagram: &[u8]) -> Request<'_> {
    match Packet::parse(datagram) {
        Ok(Packet::ReadRequest(request) | Packet::WriteRequest(request)) => request,
        other => panic!("{other:?}"),
    }
}

#[test]
fn rfc_1350_packets() {
    let rrq = b"\0\x01vmlinuz\0octet\0";
    assert_eq!(
        Packet::parse(rrq),
        Ok(Packet::ReadRequest(Request::new(b"vmlinuz", Mode::Octet)))
    );
    let wrq = b"\0\x02notes.txt\0NetASCII\0";
    assert_eq!(
        Packet::parse(wrq),
        Ok(Packet::WriteRequest(Request::new(
            b"notes.txt",
            Mode::Netascii
        )))
    );
    assert_eq!(
        Packet::parse(b"\0\x03\0\x01abc"),
        Ok(Packet::Data {
            block: 1,
            payload: b"abc"
        })
    );
    assert_eq!(
        Packet::parse(b"\0\x03\xff\xff"),
        Ok(Packet::Data {
            block: 65_535,
            payload: b""
        })
    );
    assert_eq!(
        Packet::parse(b"\0\x04\x01\x02"),
        Ok(Packet::Ack { block: 0x0102 })
    );
    assert_eq!(
        Packet::parse(b"\0\x05\0\x01File not found\0"),
        Ok(Packet::Error {
            code: ErrorCode::FileNotFound,
            message: b"File not found"
        })
    );
}

/// The example of RFC 2348, `testfile` with blksize 1428, and the OACK of RFC 7440.
#[test]
fn rfc_2348_and_7440_examples() {
    let datagram = b"\0\x01testfile\0octet\0blksize\x001428\0";
    let parsed = request(datagram);
    assert_eq!(parsed.filename, b"testfile");
    assert_eq!(parsed.options.blksize, Some(1428));
    let mut buffer = [0; MAX_REQUEST];
    let len = Packet::ReadRequest(parsed).encode(&mut buffer).unwrap();
    assert_eq!(&buffer[..len], datagram);

    let options = Options {
        windowsize: Some(16),
        ..Options::default()
    };
    let len = encode_option_ack(&options, &mut buffer).unwrap();
    assert_eq!(&buffer[..len], b"\0\x06windowsize\x0016\0");
}

#[test]
fn option_names_and_modes_know_no_case() {
    let parsed = request(b"\0\x01f\0OcTeT\0BlkSize\x00512\0TSIZE\x000\0Anycast-Node\0?\0");
    assert_eq!(parsed.options.blksize, Some(512));
    assert_eq!(parsed.options.tsize, Some(0));
    assert_eq!(parsed.options.node, Some(&b"?"[..]));
}

#[test]
fn padded_packets_are_read() {
    assert_eq!(
        Packet::parse(b"\0\x04\0\x01\0\0\0\0\0\0"),
        Ok(Packet::Ack { block: 1 })
    );
    assert_eq!(
        request(b"\0\x01f\0octet\0\0\0\0").options,
        Options::default()
    );
    assert_eq!(
        Packet::parse(b"\0\x06blksize\x001024\0\0\0"),
        Ok(Packet::OptionAck(Options {
            blksize: Some(1024),
            ..Options::default()
        }))
    );
}

#[test]
fn short_and_foreign_datagrams_get_no_answer() {
    for (datagram, error) in [
        (&b""[..], ParseError::TooShort { len: 0 }),
        (b"\0", ParseError::TooShort { len: 1 }),
        (b"\0\x03", ParseError::TooShort { len: 2 }),
        (b"\0\x03\0", ParseError::TooShort { len: 3 }),
        (b"\0\x04", ParseError::TooShort { len: 2 }),
        (b"\0\x04\0", ParseError::TooShort { len: 3 }),
        (b"\0\x05\0", ParseError::TooShort { len: 3 }),
        (b"\0\0octet", ParseError::UnknownOpcode { opcode: 0 }),
        (b"\0\x07", ParseError::UnknownOpcode { opcode: 7 }),
        (
            b"\x01\x01f\0octet\0",
            ParseError::UnknownOpcode { opcode: 257 },
        ),
        (b"\0\x06blksize\x001", ParseError::OptionList),
        (b"\0\x06utimeout\x001\0", ParseError::UnknownOption),
    ] {
        assert_eq!(Packet::parse(datagram), Err(error), "{datagram:?}");
        assert_eq!(error.reply(datagram), None, "{datagram:?}");
    }
}

#[test]
fn a_malformed_request_is_an_illegal_operation() {
    let mut long = b"\0\x01".to_vec();
    long.extend([b'a'; 504]);
    long.extend(b"\0octet\0");
    assert_eq!(long.len(), MAX_REQUEST + 1);
    let mut fitting = long.clone();
    fitting.remove(2);
    assert_eq!(request(&fitting).filename.len(), 503);
    for (datagram, error) in [
        (&b"\0\x01"[..], ParseError::Unterminated),
        (b"\0\x01name", ParseError::Unterminated),
        (b"\0\x01name\0", ParseError::MissingMode),
        (b"\0\x01name\0\0\0", ParseError::MissingMode),
        (b"\0\x02name\0octet", ParseError::Unterminated),
        (b"\0\x01\0octet\0", ParseError::EmptyFilename),
        (b"\0\x02f\0mail\0", ParseError::UnknownMode),
        (b"\0\x01f\0octe\0", ParseError::UnknownMode),
        (b"\0\x01f\0octet\0blksize\0", ParseError::OptionList),
        (b"\0\x01f\0octet\0blksize\x00512", ParseError::OptionList),
        (&long, ParseError::RequestTooLong),
    ] {
        assert_eq!(Packet::parse(datagram), Err(error), "{datagram:?}");
        let reply = error.reply(datagram);
        assert_eq!(reply, Some(ErrorCode::IllegalOperation), "{datagram:?}");
    }
}

#[test]
fn hundreds_of_options_are_counted_and_forgotten() {
    let mut datagram = b"\0\x01f\0octet\0".to_vec();
    let mut many = 0;
    while datagram.len() + 4 <= MAX_REQUEST {
        datagram.extend(b"x\x001\0");
        many += 1;
    }
    let parsed = request(&datagram);
    assert!(many > 100 && parsed.options.is_empty());
    assert_eq!(parsed.omitted, many);
}

#[test]
fn names_are_handed_on_as_they_came() {
    for name in [
        &b"../../etc/passwd"[..],
        b"..\\boot.ini",
        b"//a",
        b"/abs",
        b"%n%n%n",
        b"\xff\xfe\x01\n",
    ] {
        let mut datagram = b"\0\x01".to_vec();
        datagram.extend(name);
        datagram.extend(b"\0octet\0");
        assert_eq!(request(&datagram).filename, name);
    }
}

#[test]
fn error_text_is_bounded() {
    let mut datagram = b"\0\x05\0\0".to_vec();
    datagram.extend(vec![b'x'; 65_000]);
    let Ok(Packet::Error { message, .. }) = Packet::parse(&datagram) else {
        panic!("not an error");
    };
    assert_eq!(message.len(), MAX_ERROR_MESSAGE);
    let mut buffer = [0; MAX_ERROR];
    let len = encode_error(ErrorCode::NotDefined, &[b'x'; 4096], &mut buffer).unwrap();
    assert_eq!((len, buffer[len - 1]), (MAX_ERROR, 0));
    let len = encode_error(ErrorCode::NotDefined, b"a\0b", &mut buffer).unwrap();
    assert_eq!(&buffer[..len], b"\0\x05\0\0a\0");
}

#[test]
fn encoders_refuse_what_they_could_not_read() {
    let mut buffer = [0; 600];
    let mut encode = |filename: &[u8], options| {
        let mut request = Request::new(filename, Mode::Octet);
        request.options = options;
        Packet::ReadRequest(request).encode(&mut buffer)
    };
    assert_eq!(encode(b"", Options::default()), Err(EncodeError::Filename));
    assert_eq!(
        encode(b"a\0", Options::default()),
        Err(EncodeError::Filename)
    );
    assert_eq!(
        encode(&[b'a'; 504], Options::default()),
        Err(EncodeError::RequestTooLong)
    );
    let small = Options {
        blksize: Some(7),
        ..Options::default()
    };
    assert_eq!(encode(b"a", small), Err(EncodeError::Option));
    assert_eq!(
        encode_option_ack(&small, &mut [0; 64]),
        Err(EncodeError::Option)
    );
    assert_eq!(
        Packet::Ack { block: 1 }.encode(&mut [0; 3]),
        Err(EncodeError::Buffer { len: 3 })
    );
}

#[test]
fn the_largest_oack_fits_its_buffer() {
    let node = [b'n'; MAX_NODE_LEN];
    let options = Options {
        blksize: Some(MAX_BLKSIZE),
        timeout: Some(255),
        tsize: Some(u64::MAX),
        windowsize: Some(u16::MAX),
        node: Some(&node),
    };
    assert!(encode_option_ack(&options, &mut [0; MAX_OPTION_ACK]).is_ok());
}

fn options() -> impl Strategy<Value = Owned> {
    (
        proptest::option::of(MIN_BLKSIZE..=MAX_BLKSIZE),
        proptest::option::of(1_u8..),
        proptest::option::of(any::<u64>()),
        proptest::option::of(1_u16..),
        proptest::option::of(proptest::collection::vec(1_u8.., 0..=MAX_NODE_LEN)),
    )
        .prop_map(|(blksize, timeout, tsize, windowsize, node)| Owned {
            blksize,
            timeout,
            tsize,
            windowsize,
            node,
        })
}

#[derive(Debug, Clone)]
struct Owned {
    blksize: Option<u16>,
    timeout: Option<u8>,
    tsize: Option<u64>,
    windowsize: Option<u16>,
    node: Option<Vec<u8>>,
}

impl Owned {
    fn borrow(&self) -> Options<'_> {
        Options {
            blksize: self.blksize,
            timeout: self.timeout,
            tsize: self.tsize,
            windowsize: self.windowsize,
            node: self.node.as_deref(),
        }
    }
}

const WORDS: &[&[u8]] = &[
    b"octet",
    b"netascii",
    b"mail",
    b"blksize",
    b"windowsize",
    b"timeout",
    b"tsize",
    b"utimeout",
    b"anycast-node",
    b"-1",
    b"+8",
    b"0x10",
    b"512",
    b"65465",
    b"18446744073709551616",
    b"",
    b"\0",
    b"\xff",
    b"../",
];

fn round_trip(packet: Packet<'_>) {
    let mut buffer = vec![0xaa; 65_536];
    let len = packet.encode(&mut buffer).unwrap();
    assert_eq!(Packet::parse(&buffer[..len]), Ok(packet));
    assert_eq!(buffer.get(len), Some(&0xaa), "wrote past its length");
    let short = packet.encode(&mut buffer[..len - 1]);
    assert_eq!(short, Err(EncodeError::Buffer { len: len - 1 }));
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn requests_round_trip(
        name in proptest::collection::vec(1_u8.., 1..300),
        netascii: bool,
        write: bool,
        options in options(),
    ) {
        let mode = if netascii { Mode::Netascii } else { Mode::Octet };
        let request = Request {
            filename: &name,
            mode,
            options: options.borrow(),
            omitted: 0,
        };
        round_trip(if write {
            Packet::WriteRequest(request)
        } else {
            Packet::ReadRequest(request)
        });
    }

    #[test]
    fn acknowledgements_round_trip(options in options(), block: u16) {
        round_trip(Packet::OptionAck(options.borrow()));
        round_trip(Packet::Ack { block });
    }

    #[test]
    fn data_and_errors_round_trip(
        block: u16,
        payload in proptest::collection::vec(any::<u8>(), 0..2048),
        text in proptest::collection::vec(1_u8.., 0..=MAX_ERROR_MESSAGE),
    ) {
        round_trip(Packet::Data { block, payload: &payload });
        round_trip(Packet::Error { code: block.into(), message: &text });
    }

    #[test]
    fn random_bytes_never_panic(datagram in proptest::collection::vec(any::<u8>(), 0..1024)) {
        if let Err(error) = Packet::parse(&datagram) {
            let _ = error.reply(&datagram);
        }
    }

    /// Bytes that reach deep: a right opcode, then words and separators in any order.
    #[test]
    fn near_packets_never_panic(
        opcode in 0_u8..8,
        words in proptest::collection::vec(
            proptest::sample::select(WORDS),
            0..64,
        ),
        separated in 0_u8..4,
    ) {
        let mut datagram = vec![0, opcode];
        for word in words {
            datagram.extend(word);
            if separated > 0 {
                datagram.push(0);
            }
        }
        match Packet::parse(&datagram) {
            Ok(Packet::ReadRequest(request) | Packet::WriteRequest(request)) => {
                prop_assert!(request.options.is_valid());
                prop_assert!(!request.filename.is_empty());
            }
            Ok(Packet::OptionAck(options)) => prop_assert!(options.is_valid()),
            Ok(Packet::Data { .. } | Packet::Ack { .. } | Packet::Error { .. }) => {}
            Err(error) => {
                let due = error.reply(&datagram).is_some();
                prop_assert_eq!(due, opcode == 1 || opcode == 2);
            }
        }
    }
}
