use proptest::prelude::*;

use super::*;

/// Bytes that no two seeds share, the same on every machine.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut hasher = Hasher::new();
    hasher.update(&seed.to_be_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

fn subtrees(bytes: &[u8]) -> Subtrees {
    Subtrees::of(bytes).unwrap()
}

/// Everything that must hold for a content.
fn check(bytes: &[u8]) {
    let made = subtrees(bytes);
    let size = bytes.len() as u64;
    assert_eq!(made.id().hash.0, *blake3::hash(bytes).as_bytes(), "{size}");
    assert_eq!(made.id().size, size);
    let list = made.encode();
    assert_eq!(Subtrees::encoded_len(size), Some(list.len() as u64));
    let received = Subtrees::decode(made.id(), &list).unwrap();
    assert_eq!(received, made);
    let mut end = 0;
    for index in 0..received.blocks() {
        let range = received.range(index).unwrap();
        assert_eq!(range.start, end);
        end = range.end;
        let block = &bytes[range.start as usize..range.end as usize];
        assert_eq!(received.verify_block(index, block), Ok(()));
    }
    assert_eq!(end, size);
    assert_eq!(received.range(received.blocks()), None);
}

#[test]
fn every_size_near_a_boundary_gives_the_hash_of_the_whole() {
    let bytes = noise(1, 9 * BLOCK + 2);
    let near = |size: usize| size.saturating_sub(2)..=size + 2;
    let chunks = (0..4).map(|chunks| chunks * 1024);
    let blocks = (1..=9).map(|blocks| blocks * BLOCK);
    for size in chunks.chain(blocks).flat_map(near) {
        check(&bytes[..size]);
    }
    for chunks in [63, 65, 127, 129] {
        check(&bytes[..chunks * 1024]);
    }
}

#[test]
fn a_list_of_another_length_is_refused_before_it_is_read() {
    let id = |size| ContentId {
        hash: ContentHash([0; 32]),
        size,
    };
    assert_eq!(
        Subtrees::decode(id(3 * BLOCK as u64), &[0; 64]),
        Err(TreeError::OtherLength {
            size: 3 * BLOCK as u64,
            len: 64,
            expected: 96
        })
    );
    assert_eq!(
        Subtrees::decode(id(1), &[0; 32]),
        Err(TreeError::OtherLength {
            size: 1,
            len: 32,
            expected: 0
        })
    );
    let size = MAX_CONTENT + 1;
    assert_eq!(
        Subtrees::decode(id(size), &[]),
        Err(TreeError::TooLarge { size })
    );
    assert_eq!(Subtrees::encoded_len(u64::MAX), None);
}

#[test]
fn blocks_that_are_not_there_are_refused() {
    let bytes = noise(2, 2 * BLOCK);
    let subtrees = subtrees(&bytes);
    for index in [2, 3, u64::MAX] {
        let hash = subtrees.id().hash;
        assert_eq!(
            subtrees.verify_block(index, &bytes[..BLOCK]),
            Err(BlockError::BeyondEnd { hash, index })
        );
    }
}

#[test]
fn a_block_of_the_wrong_length_or_place_is_refused() {
    let bytes = noise(3, 2 * BLOCK + 10);
    let subtrees = subtrees(&bytes);
    let hash = subtrees.id().hash;
    for (index, range) in [
        (0, 0..BLOCK - 1),
        (0, 0..BLOCK + 1),
        (0, 0..2 * BLOCK),
        (0, 0..0),
        (1, 0..BLOCK),
        (2, 2 * BLOCK..2 * BLOCK + 9),
    ] {
        assert_eq!(
            subtrees.verify_block(index, &bytes[range]),
            Err(BlockError::OtherBytes { hash, index })
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_content_is_proven_by_its_hash(seed in any::<u64>(), len in 0..20 * BLOCK) {
        check(&noise(seed, len));
    }

    #[test]
    fn a_flipped_bit_is_refused(
        seed in any::<u64>(),
        len in 1..6 * BLOCK,
        at in any::<prop::sample::Index>(),
        bit in 0..8_u8,
    ) {
        let bytes = noise(seed, len);
        let subtrees = subtrees(&bytes);
        let at = at.index(len);
        let mut wrong = bytes;
        wrong[at] ^= 1 << bit;
        for index in 0..subtrees.blocks() {
            let range = subtrees.range(index).unwrap();
            let here = range.contains(&(at as u64));
            let block = &wrong[range.start as usize..range.end as usize];
            prop_assert_eq!(subtrees.verify_block(index, block).is_err(), here);
        }
    }

    #[test]
    fn a_flipped_bit_in_the_list_is_refused(
        seed in any::<u64>(),
        len in BLOCK + 1..6 * BLOCK,
        at in any::<prop::sample::Index>(),
        bit in 0..8_u8,
    ) {
        let subtrees = subtrees(&noise(seed, len));
        let mut list = subtrees.encode();
        let at = at.index(list.len());
        list[at] ^= 1 << bit;
        let hash = subtrees.id().hash;
        prop_assert_eq!(
            Subtrees::decode(subtrees.id(), &list),
            Err(TreeError::OtherContent { hash })
        );
    }

    #[test]
    fn no_bytes_make_it_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..500),
        size in prop_oneof![any::<u64>(), 0..20 * BLOCK as u64],
        index in any::<u64>(),
    ) {
        let id = ContentId { hash: ContentHash([7; 32]), size };
        if let Ok(subtrees) = Subtrees::decode(id, &bytes) {
            prop_assert!(subtrees.verify_block(index, &bytes).is_err());
        }
    }
}
