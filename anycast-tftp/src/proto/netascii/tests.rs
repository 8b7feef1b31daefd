use proptest::prelude::*;

use super::*;

fn cases() -> ProptestConfig {
    let default = ProptestConfig::default();
    ProptestConfig {
        cases: default.cases.max(10_000),
        ..default
    }
}

/// The rule itself, written as directly as can be.
fn translated(text: &[u8]) -> Vec<u8> {
    text.iter()
        .flat_map(|byte| match byte {
            b'\n' => vec![b'\r', b'\n'],
            b'\r' => vec![b'\r', 0],
            other => vec![*other],
        })
        .collect()
}

fn read_at(text: &[u8]) -> impl FnMut(u64, &mut [u8]) -> io::Result<usize> {
    move |offset, target| {
        let rest = &text[text.len().min(offset as usize)..];
        let len = rest.len().min(target.len());
        target[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }
}

fn decoded<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let (mut decoder, mut output) = (Decoder::default(), Vec::new());
    for piece in pieces {
        decoder.decode(piece, &mut output);
    }
    decoder.finish(&mut output);
    output
}

#[test]
fn line_feeds_and_carriage_returns() {
    assert_eq!(translated(b"a\nb\rc\r\n"), b"a\r\nb\r\0c\r\0\r\n");
    assert_eq!(decoded([&b"a\r\nb\r\0c\r\0\r\n"[..]]), b"a\nb\rc\r\n");
    assert_eq!(encoded_len(b"a\nb\rc\r\n"), 11);
}

#[test]
fn a_stray_carriage_return_is_kept() {
    assert_eq!(decoded([&b"a\rb"[..]]), b"a\rb");
    assert_eq!(decoded([&b"a\r"[..]]), b"a\r");
    assert_eq!(decoded([&b"\r\r\n"[..]]), b"\r\n");
    assert_eq!(decoded([&b"\r"[..], b"\n"]), b"\n");
    assert_eq!(decoded([&b"\r"[..], b"\0"]), b"\r");
}

#[test]
fn marks_stay_bounded_and_right() {
    let text: Vec<u8> = (0..200_000_u32)
        .map(|n| b"ab\r\n\n"[n as usize % 5])
        .collect();
    let expected = translated(&text);
    let mut index = BlockIndex::new(8);
    let mut block = [0; 8];
    let last = expected.len() as u64 / 8 + 1;
    for n in 1..=last {
        let len = index.read_block(n, read_at(&text), &mut block).unwrap();
        let from = (n as usize - 1) * 8;
        assert_eq!(&block[..len], &expected[from..expected.len().min(from + 8)]);
    }
    assert!(index.stride > FIRST_STRIDE && index.marks.len() <= MAX_MARKS);
    for n in [1, 2, 17, 1000, 16_385, 30_001, last, last + 1, last + 1000] {
        let len = index.read_block(n, read_at(&text), &mut block).unwrap();
        let from = expected.len().min((n as usize - 1) * 8);
        let to = expected.len().min(from + 8);
        assert_eq!(&block[..len], &expected[from..to], "block {n}");
    }
}

#[test]
fn an_early_block_costs_at_most_a_stride() {
    let text = vec![b'x'; 512 * 1000];
    let mut index = BlockIndex::new(512);
    let mut block = [0; 512];
    for n in 1..=1000 {
        index.read_block(n, read_at(&text), &mut block).unwrap();
    }
    let mut read = 0;
    let mut reader = read_at(&text);
    let counted = |offset, target: &mut [u8]| {
        let len = reader(offset, target)?;
        read += len;
        Ok(len)
    };
    index.read_block(900, counted, &mut block).unwrap();
    assert!(read <= 512 * (FIRST_STRIDE as usize + 1), "{read}");
}

#[test]
fn a_failed_read_leaves_the_index_usable() {
    let mut index = BlockIndex::new(8);
    let mut block = [0; 8];
    let broken = |_, _: &mut [u8]| Err(io::ErrorKind::Other.into());
    assert!(index.read_block(1, broken, &mut block).is_err());
    assert!(index.read_block(0, read_at(b"a"), &mut block).is_err());
    assert!(index.read_block(1, read_at(b"a"), &mut [0; 7]).is_err());
    assert_eq!(index.read_block(1, read_at(b"a"), &mut block).unwrap(), 1);
}

/// Text in which the special bytes are as frequent as all others together.
fn text() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(
        prop_oneof![Just(b'\r'), Just(b'\n'), Just(0_u8), any::<u8>()],
        0..300,
    )
}

#[test]
fn an_index_that_advances_gives_the_same_blocks() {
    let content: Vec<u8> = (0..300_000_u32)
        .map(|n| b"ab\r\ncd\n"[n as usize % 7])
        .collect();
    let read_at = |offset: u64, piece: &mut [u8]| {
        let rest = content.get(offset as usize..).unwrap_or_default();
        let len = rest.len().min(piece.len());
        piece[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    };
    let (mut first, mut second) = (BlockIndex::new(100), BlockIndex::new(100));
    let (mut one, mut other) = ([0; 100], [0; 100]);
    let end = (1..)
        .find(|block| first.read_block(*block, read_at, &mut one).unwrap() < 100)
        .unwrap();
    for block in [1, 2, 900, 901, 40, end - 1, end] {
        second.advance(block, read_at).unwrap();
        assert_eq!(second.distance(block), 0, "{block}");
        let len = first.read_block(block, read_at, &mut one).unwrap();
        let same = second.read_block(block, read_at, &mut other).unwrap();
        assert_eq!(one[..len], other[..same], "{block}");
    }
    // Beyond the end.
    second.advance(end + 1000, read_at).unwrap();
    assert_eq!(second.read_block(end + 1000, read_at, &mut one).unwrap(), 0);
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn every_text_survives_in_pieces_of_any_size(text in text(), size in 1_usize..20, out in 1_usize..20) {
        let mut encoder = Encoder::default();
        let mut wire = Vec::new();
        let mut buffer = vec![0; out];
        for piece in text.chunks(size) {
            let mut piece = piece;
            while !piece.is_empty() {
                let done = encoder.encode(piece, &mut buffer);
                piece = &piece[done.consumed..];
                wire.extend(&buffer[..done.produced]);
            }
        }
        while !encoder.is_empty() {
            let done = encoder.encode(&[], &mut buffer);
            wire.extend(&buffer[..done.produced]);
        }
        prop_assert_eq!(&wire, &translated(&text));
        prop_assert_eq!(wire.len() as u64, encoded_len(&text));
        prop_assert_eq!(decoded(wire.chunks(size)), text);
    }

    #[test]
    fn any_block_in_any_order_is_the_slice_of_the_whole(
        text in text(),
        blksize in 1_u16..40,
        order in proptest::collection::vec(1_u64..80, 1..40),
    ) {
        let expected = translated(&text);
        let size = usize::from(blksize);
        let mut index = BlockIndex::new(blksize);
        let mut block = vec![0; size];
        for n in order {
            let len = index.read_block(n, read_at(&text), &mut block).unwrap();
            let from = expected.len().min((n as usize - 1) * size);
            let to = expected.len().min(from + size);
            prop_assert_eq!(&block[..len], &expected[from..to], "block {}", n);
        }
    }

    #[test]
    fn decoding_rubbish_is_bounded(wire in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(decoded([&wire[..]]).len() <= wire.len());
    }
}

#[test]
fn an_earlier_block_of_the_window_costs_no_more_than_the_window() {
    const WINDOW: u64 = 64;
    let text = vec![b'x'; 8 * 300_000];
    let read = std::cell::Cell::new(0);
    let read_at = |offset: u64, piece: &mut [u8]| {
        let rest = &text[usize::try_from(offset).unwrap()..];
        let len = rest.len().min(piece.len());
        piece[..len].copy_from_slice(&rest[..len]);
        read.set(read.get() + len as u64);
        Ok(len)
    };
    let mut index = BlockIndex::new(8);
    let mut payload = [0; 8];
    let (mut acked, mut worst) = (0, 0);
    while acked < 250_000 {
        index.acknowledged(acked);
        read.set(0);
        for block in acked + 1..=acked + WINDOW {
            assert_eq!(index.read_block(block, read_at, &mut payload).unwrap(), 8);
        }
        worst = worst.max(read.get());
        // Every third window arrives in part.
        let partial = (acked / WINDOW).is_multiple_of(3);
        acked += if partial { 7 } else { WINDOW };
    }
    assert!(worst <= 2 * WINDOW * 8, "{worst} bytes for one window");
}
