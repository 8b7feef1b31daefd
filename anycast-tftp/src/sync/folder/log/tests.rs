use proptest::prelude::*;

use super::*;

fn place() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    (folder, path)
}

fn open(path: &Path) -> Result<(Log, Recovered, Vec<Vec<u8>>), LogError> {
    let mut records = Vec::new();
    let (log, recovered) = Log::open(path, &mut |record| records.push(record.to_vec()))?;
    Ok((log, recovered, records))
}

fn records(range: std::ops::Range<u8>) -> Vec<Vec<u8>> {
    range.map(|n| vec![n; usize::from(n) * 7 % 61]).collect()
}

#[test]
fn what_was_appended_is_there_again() {
    let (_folder, path) = place();
    let (mut log, recovered, found) = open(&path).unwrap();
    assert!(recovered.is_new);
    assert_eq!(found, [[0; 0]; 0]);
    log.append(&records(0..10)).unwrap();
    log.append::<&[u8]>(&[]).unwrap();
    log.append(&records(10..11)).unwrap();
    drop(log);
    let (mut log, recovered, found) = open(&path).unwrap();
    assert_eq!((recovered.records, recovered.torn), (11, 0));
    assert_eq!(found, records(0..11));
    log.append(&records(11..12)).unwrap();
    assert_eq!(open(&path).unwrap().2, records(0..12));
}

#[test]
fn a_log_cut_at_any_byte_has_all_that_was_promised_before() {
    let (_folder, path) = place();
    let (mut log, _, _) = open(&path).unwrap();
    let mut promised = vec![(log.size(), 0)];
    for from in [0, 3, 4, 9] {
        let to = [3, 4, 9, 15][promised.len() - 1];
        log.append(&records(from..to)).unwrap();
        promised.push((log.size(), usize::from(to)));
    }
    drop(log);
    let whole = std::fs::read(&path).unwrap();
    for cut in 0..whole.len() {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let opened = open(&path);
        if cut < HEAD {
            // It gets its name with its header in it: this is not what a crash leaves.
            assert!(opened.is_err(), "{cut}");
            continue;
        }
        let (mut log, recovered, found) = opened.unwrap();
        let (end, least) = promised
            .iter()
            .rfind(|(end, _)| *end <= cut as u64)
            .unwrap();
        assert!(found.len() >= *least, "{cut}");
        assert_eq!(
            found,
            records(0..u8::try_from(found.len()).unwrap()),
            "{cut}"
        );
        assert!(recovered.torn <= cut as u64 - end, "{cut}");
        // And it goes on from there.
        log.append(&[b"more"]).unwrap();
        let again = open(&path).unwrap();
        assert_eq!(again.1.torn, 0);
        assert_eq!(again.2.last().unwrap(), b"more");
    }
}

#[test]
fn a_damaged_byte_is_refused_where_it_was_promised_and_cut_off_where_it_was_not() {
    let (_folder, path) = place();
    let (mut log, _, _) = open(&path).unwrap();
    log.append(&records(1..4)).unwrap();
    let last = log.size();
    log.append(&records(4..8)).unwrap();
    drop(log);
    let whole = std::fs::read(&path).unwrap();
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x40;
        std::fs::write(&path, &damaged).unwrap();
        match open(&path) {
            // The last append may not have been confirmed: a crash leaves any of its pages out.
            Ok((_, recovered, found)) => {
                assert!(at as u64 >= last, "{at}");
                assert!(found.len() >= 3 && recovered.torn > 0, "{at}");
            }
            Err(LogError::Foreign { .. }) => assert!(at < VERSION.len(), "{at}"),
            Err(error @ LogError::Damaged { .. }) => {
                assert!((at as u64) < last, "{at}");
                assert!(error.to_string().contains("move the file away"), "{error}");
                // Nothing was done to it.
                assert_eq!(std::fs::read(&path).unwrap(), damaged);
            }
            Err(error) => panic!("{at}: {error}"),
        }
    }
}

#[test]
fn pages_of_one_append_may_be_missing_in_any_order() {
    let (_folder, path) = place();
    let (mut log, _, _) = open(&path).unwrap();
    log.append(&records(1..3)).unwrap();
    let from = usize::try_from(log.size()).unwrap();
    let big: Vec<Vec<u8>> = (0..40).map(|n| vec![n; 700]).collect();
    log.append(&big).unwrap();
    drop(log);
    let whole = std::fs::read(&path).unwrap();
    for page in (from..whole.len()).step_by(512) {
        let mut torn = whole.clone();
        let end = (page + 512).min(torn.len());
        torn[page..end].fill(0);
        std::fs::write(&path, &torn).unwrap();
        let (_, recovered, found) = open(&path).unwrap();
        assert!(recovered.torn > 0);
        assert_eq!(found[..2], records(1..3));
    }
}

#[test]
fn a_compacted_log_is_refused_wherever_it_is_damaged() {
    let (_folder, path) = place();
    let (mut log, _, _) = open(&path).unwrap();
    log.append(&records(0..20)).unwrap();
    log.compact(&mut records(5..9).into_iter()).unwrap();
    let compacted = log.size();
    log.append(&records(9..10)).unwrap();
    drop(log);
    assert_eq!(open(&path).unwrap().2, records(5..10));
    let whole = std::fs::read(&path).unwrap();
    for at in 0..usize::try_from(compacted).unwrap() {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        std::fs::write(&path, &damaged).unwrap();
        assert!(open(&path).is_err(), "{at}");
        std::fs::write(&path, &whole[..at]).unwrap();
        assert!(open(&path).is_err(), "cut at {at}");
    }
}

#[test]
fn a_compaction_that_was_cut_off_changes_nothing() {
    let (_folder, path) = place();
    let (mut log, _, _) = open(&path).unwrap();
    log.append(&records(0..5)).unwrap();
    std::fs::write(temporary(&path), b"anycast log 001\nhalf").unwrap();
    assert_eq!(open(&path).unwrap().2, records(0..5));
    assert!(!temporary(&path).exists());
    let too_large = vec![vec![0; MAX_RECORD + 1]];
    let error = log.compact(&mut too_large.into_iter()).unwrap_err();
    assert!(matches!(error, LogError::Record { .. }), "{error}");
    log.append(&records(5..6)).unwrap();
    assert_eq!(open(&path).unwrap().2, records(0..6));
}

#[test]
fn what_is_no_log_is_left_alone() {
    let (_folder, path) = place();
    for other in [&b""[..], b"anycast log 002\n................", &[0; 100]] {
        std::fs::write(&path, other).unwrap();
        let error = open(&path).unwrap_err();
        assert!(matches!(error, LogError::Foreign { .. }), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), other);
    }
    std::fs::remove_file(&path).unwrap();
    let (mut log, _, _) = open(&path).unwrap();
    let size = log.size();
    let error = log.append(&[vec![0; MAX_RECORD + 1]]).unwrap_err();
    assert!(matches!(error, LogError::Record { .. }), "{error}");
    assert_eq!((log.size(), log.is_broken()), (size, false));
}

#[derive(Debug, Clone)]
enum Step {
    Append(Vec<Vec<u8>>),
    Compact,
    Reopen,
    /// A crash during an append: this share of its bytes (of 256) arrived.
    Torn(Vec<Vec<u8>>, u8),
}

fn step() -> impl Strategy<Value = Step> {
    let record = proptest::collection::vec(any::<u8>(), 0..40);
    let some = proptest::collection::vec(record, 0..5);
    prop_oneof![
        some.clone().prop_map(Step::Append),
        Just(Step::Compact),
        Just(Step::Reopen),
        (some, any::<u8>()).prop_map(|(records, share)| Step::Torn(records, share)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_log_is_a_list(steps in proptest::collection::vec(step(), 1..20)) {
        let (_folder, path) = place();
        let (mut log, _, _) = open(&path).unwrap();
        let mut model: Vec<Vec<u8>> = Vec::new();
        for step in steps {
            match step {
                Step::Append(records) => {
                    log.append(&records).unwrap();
                    model.extend(records);
                }
                Step::Compact => {
                    // As a manifest does it: what is still true, which may be less.
                    model.truncate(model.len().div_ceil(2));
                    log.compact(&mut model.clone().into_iter()).unwrap();
                }
                Step::Reopen => {
                    let (again, recovered, found) = open(&path).unwrap();
                    prop_assert_eq!(recovered.torn, 0);
                    prop_assert_eq!(&found, &model);
                    log = again;
                }
                Step::Torn(records, share) => {
                    let before = log.size();
                    log.append(&records).unwrap();
                    let part = (log.size() - before) * u64::from(share) / 256;
                    log.file.set_len(before + part).unwrap();
                    let (again, _, found) = open(&path).unwrap();
                    prop_assert!(found.len() >= model.len());
                    let arrived = found.len() - model.len();
                    model.extend(records.into_iter().take(arrived));
                    prop_assert_eq!(&found, &model);
                    log = again;
                }
            }
        }
        prop_assert_eq!(open(&path).unwrap().2, model);
    }

    #[test]
    fn no_bytes_make_it_panic(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..300),
        has_head in any::<bool>(),
    ) {
        let (_folder, path) = place();
        if has_head {
            bytes.splice(0..0, head(HEAD as u64));
        }
        std::fs::write(&path, &bytes).unwrap();
        let _ = open(&path);
    }
}
