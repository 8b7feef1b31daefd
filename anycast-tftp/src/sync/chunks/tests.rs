use proptest::prelude::*;

use super::*;

/// Bytes that no two seeds share, the same on every machine.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_be_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

fn recipe(bytes: &[u8]) -> Recipe {
    Recipe::of(bytes).unwrap()
}

fn apply(steps: &[Step], basis: &[u8], wanted: &[u8]) -> Vec<u8> {
    let part = |from: &[u8], offset: u64, len: u64| {
        from[offset as usize..(offset + len) as usize].to_vec()
    };
    let parts = steps.iter().map(|step| match *step {
        Step::CopyFromBasis { offset, len } => part(basis, offset, len),
        Step::Fetch { offset, len } => part(wanted, offset, len),
    });
    parts.collect::<Vec<_>>().concat()
}

fn fetched(steps: &[Step]) -> u64 {
    let lens = steps.iter().map(|step| match step {
        Step::CopyFromBasis { .. } => 0,
        Step::Fetch { len, .. } => *len,
    });
    lens.sum()
}

#[derive(Debug, Clone)]
enum Edit {
    Insert(usize, usize),
    Delete(usize, usize),
    Replace(usize, usize),
}

impl Edit {
    /// Applies it somewhere, wherever its numbers point, and returns how many bytes are new.
    fn apply(&self, seed: u64, bytes: &mut Vec<u8>) -> u64 {
        let (Self::Insert(at, len) | Self::Delete(at, len) | Self::Replace(at, len)) = *self;
        let at = at % (bytes.len() + 1);
        let removed = match self {
            Self::Insert(..) => at..at,
            Self::Delete(..) | Self::Replace(..) => at..(at + len).min(bytes.len()),
        };
        let new = match self {
            Self::Delete(..) => Vec::new(),
            Self::Insert(..) | Self::Replace(..) => noise(seed, len),
        };
        bytes.splice(removed, new.iter().copied());
        new.len() as u64
    }
}

fn edit() -> impl Strategy<Value = Edit> {
    let sizes = || prop_oneof![0..8_usize, 0..200_000_usize];
    prop_oneof![
        (any::<usize>(), sizes()).prop_map(|(at, len)| Edit::Insert(at, len)),
        (any::<usize>(), sizes()).prop_map(|(at, len)| Edit::Delete(at, len)),
        (any::<usize>(), sizes()).prop_map(|(at, len)| Edit::Replace(at, len)),
    ]
}

/// Hands out a few bytes at a time, and is interrupted before each.
struct Trickle<'a> {
    bytes: &'a [u8],
    step: usize,
    interrupted: bool,
}

impl Read for Trickle<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.interrupted = !self.interrupted;
        if self.interrupted {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let len = buffer.len().min(self.step);
        self.bytes.read(&mut buffer[..len])
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_plan_gives_the_wanted_bytes(
        seed in any::<u64>(),
        len in prop_oneof![0..200_000_usize, 0..2_000_000_usize],
        edits in proptest::collection::vec(edit(), 0..6),
    ) {
        let basis = noise(seed, len);
        let mut wanted = basis.clone();
        for (edit, number) in edits.iter().zip(1..) {
            edit.apply(seed.wrapping_add(number), &mut wanted);
        }
        let steps = plan(&recipe(&wanted), &recipe(&basis));
        prop_assert_eq!(apply(&steps, &basis, &wanted), wanted);
    }

    #[test]
    fn how_a_content_is_read_does_not_move_its_cuts(
        seed in any::<u64>(),
        len in 0..3_000_000_usize,
        step in 1_000..70_000_usize,
    ) {
        let bytes = noise(seed, len);
        let reader = Trickle { bytes: &bytes, step, interrupted: false };
        prop_assert_eq!(Recipe::of(reader).unwrap(), recipe(&bytes));
    }

    #[test]
    fn a_recipe_survives_the_wire(seed in any::<u64>(), len in 0..2_000_000_usize) {
        let recipe = recipe(&noise(seed, len));
        let bytes = recipe.encode();
        prop_assert!(bytes.len() as u64 <= Recipe::max_encoded_len(recipe.size()));
        prop_assert_eq!(Recipe::decode(recipe.size(), &bytes), Ok(recipe));
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..2_000),
        others in proptest::collection::vec(any::<u8>(), 0..2_000),
        size in prop_oneof![any::<u64>(), 0..4_000_000_u64],
    ) {
        if let Ok(recipe) = Recipe::decode(size, &bytes) {
            prop_assert_eq!(recipe.size(), size);
        }
        // With the size that they claim they are lists of chunks that nobody cut.
        let claimed = |bytes: &[u8]| -> u64 {
            let lens = bytes.as_chunks::<RECORD>().0.iter().map(|record| Chunk::decode(record).len);
            lens.map(u64::from).sum()
        };
        let decoded = [&bytes, &others].map(|bytes| {
            let whole = &bytes[..bytes.len() / RECORD * RECORD];
            Recipe::decode(claimed(whole), whole)
        });
        if let [Ok(wanted), Ok(basis)] = decoded {
            let mut end = 0;
            for step in plan(&wanted, &basis) {
                let (Step::CopyFromBasis { len, .. } | Step::Fetch { len, .. }) = step;
                end += len;
            }
            prop_assert_eq!(end, wanted.size());
        }
    }
}

#[test]
fn a_small_edit_costs_a_few_chunks() {
    const LEN: usize = 4 << 20;
    let edits = [
        Edit::Insert(LEN / 2, 1),
        Edit::Delete(LEN / 3, 1),
        Edit::Replace(LEN / 4, 1),
        Edit::Insert(LEN / 5, 100_000),
        Edit::Delete(LEN / 6, 100_000),
        Edit::Replace(LEN / 7, 100_000),
        Edit::Insert(0, 1),
        Edit::Insert(LEN, 1),
    ];
    let mut worst = 0;
    for seed in 0..4 {
        let basis = noise(seed, LEN);
        let old = recipe(&basis);
        for (edit, number) in edits.iter().zip(1..) {
            let mut wanted = basis.clone();
            let new = edit.apply(seed * 100 + number, &mut wanted);
            let steps = plan(&recipe(&wanted), &old);
            assert!(steps.len() <= 3, "{edit:?}: {steps:?}");
            worst = worst.max(fetched(&steps) - new);
        }
    }
    assert!(worst <= 4 * u64::from(MAX_CHUNK), "{worst}");
}

#[test]
fn a_moved_half_is_not_fetched() {
    let basis = noise(7, 2 << 20);
    let (front, back) = basis.split_at(1 << 20);
    let wanted = [back, front].concat();
    let steps = plan(&recipe(&wanted), &recipe(&basis));
    assert_eq!(apply(&steps, &basis, &wanted), wanted);
    assert!(fetched(&steps) <= 4 * u64::from(MAX_CHUNK), "{steps:?}");
}

#[test]
fn contents_that_repeat_themselves_are_copied_in_one_step() {
    let zeros = vec![0; 3 << 20];
    let recipe = recipe(&zeros);
    let whole = Step::CopyFromBasis {
        offset: 0,
        len: 3 << 20,
    };
    assert_eq!(plan(&recipe, &recipe), [whole]);
}

#[test]
fn without_a_basis_all_is_fetched() {
    let bytes = noise(1, 300_000);
    let whole = Step::Fetch {
        offset: 0,
        len: 300_000,
    };
    assert_eq!(plan(&recipe(&bytes), &recipe(&[])), [whole]);
    assert_eq!(plan(&recipe(&[]), &recipe(&bytes)), []);
}

#[test]
fn chunks_keep_to_their_bounds() {
    let recipe = recipe(&noise(3, 8 << 20));
    let (last, others) = recipe.chunks.split_last().unwrap();
    assert!(others.iter().all(|chunk| chunk.len >= MIN_CHUNK));
    assert!(recipe.chunks.iter().all(|chunk| chunk.len <= MAX_CHUNK));
    assert!(last.len > 0);
    let mean = recipe.size() / recipe.chunks() as u64;
    assert!((24_000..48_000).contains(&mean), "{mean}");
}

/// Nodes of different releases save little if they cut differently: this is what they agree on.
#[test]
fn the_cuts_are_those_of_every_release() {
    let lens: Vec<_> = recipe(&noise(42, 300_000))
        .chunks
        .iter()
        .map(|chunk| chunk.len)
        .collect();
    assert_eq!(
        lens,
        [41150, 42822, 9615, 37230, 36874, 42386, 35412, 54511]
    );
}

#[test]
fn a_recipe_of_another_size_is_refused() {
    let recipe = recipe(&noise(5, 500_000));
    let bytes = recipe.encode();
    assert_eq!(
        Recipe::decode(499_999, &bytes),
        Err(RecipeError::OtherSize {
            sum: 500_000,
            size: 499_999
        })
    );
    assert_eq!(
        Recipe::decode(500_000, &bytes[..bytes.len() - 1]),
        Err(RecipeError::Cut {
            len: bytes.len() - 1
        })
    );
    let size = MAX_CONTENT + 1;
    assert_eq!(
        Recipe::decode(size, &bytes),
        Err(RecipeError::TooLarge { size })
    );
    assert_eq!(Recipe::max_encoded_len(size), 0);
}

#[test]
fn more_chunks_than_the_content_can_have_are_refused() {
    // Each is one byte long.
    let bytes = vec![0; 1_000 * RECORD];
    assert_eq!(
        Recipe::decode(1_000, &bytes),
        Err(RecipeError::TooMany {
            chunks: 1_000,
            size: 1_000,
            most: 1
        })
    );
}

#[test]
fn an_error_of_the_reader_is_told() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("a broken disk"))
        }
    }
    let error = Recipe::of(Broken).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the content cannot be read in order to chunk it: a broken disk"
    );
}
