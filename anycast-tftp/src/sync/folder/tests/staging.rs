use super::*;

#[test]
fn a_content_is_continued_where_it_was_left() {
    let place = Place::new();
    let folder = place.open();
    let bytes = vec![7; 3 << 20];
    let content = id(&bytes);
    let mut stage = folder.stage(content).unwrap();
    stage.write(&bytes[..2_000_001]).unwrap();
    assert!(matches!(folder.stage(content), Err(StageError::Busy(_))));
    drop(stage);
    drop(folder);

    let folder = place.open();
    let stage = folder.stage(content).unwrap();
    assert_eq!(stage.offset(), 2_000_001);
    assert!(matches!(stage.finish(), Err(StageError::Short(_))));
    let mut stage = folder.stage(content).unwrap();
    stage.write(&bytes[2_000_001..]).unwrap();
    assert!(matches!(stage.write(b"x"), Err(StageError::TooLong(_))));
    let staged = stage.finish().unwrap();
    assert!(!folder.has_content(&content));
    assert_eq!(folder.sync_all(vec![staged]).remove(0).unwrap(), content);
    assert!(folder.has_content(&content));
    assert_eq!(read_content(&folder, &content).unwrap(), bytes);
    assert_eq!(place.hidden("staging"), [""; 0]);
}

/// A large one is gathered and written past the page cache, but for its last bytes.
#[test]
fn a_large_content_is_the_same_however_it_comes() {
    let place = Place::new();
    let folder = place.open();
    let bytes: Vec<u8> = (0..5_000_001_u32).flat_map(u32::to_be_bytes).collect();
    let bytes = &bytes[..bytes.len() - 1];
    let content = id(bytes);
    let mut stage = folder.stage(content).unwrap();
    for piece in bytes[..9_000_000].chunks(100_003) {
        stage.write(piece).unwrap();
    }
    assert_eq!(stage.offset(), 9_000_000);
    drop(stage);
    let mut stage = folder.stage(content).unwrap();
    let there = usize::try_from(stage.offset()).unwrap();
    assert!((7_000_000..=9_000_000).contains(&there), "{there}");
    for piece in bytes[there..].chunks(3_000_000) {
        stage.write(piece).unwrap();
    }
    let staged = stage.finish().unwrap();
    folder.sync_all(vec![staged]).remove(0).unwrap();
    assert!(read_content(&folder, &content).unwrap() == bytes);
}

#[test]
fn a_basis_is_copied_behind_what_was_gathered() {
    let place = Place::new();
    let old = vec![5; 12 << 20];
    place.write_old("x", &old);
    let folder = place.open();
    scan(&folder);
    let basis = folder.open_content(&id(&old)).unwrap();
    let new = [&b"new"[..], &old, b"end"].concat();
    let mut stage = folder.stage(id(&new)).unwrap();
    stage.write(b"new").unwrap();
    stage.write_from_basis(&basis, 0, 12 << 20).unwrap();
    stage.write(b"end").unwrap();
    let staged = stage.finish().unwrap();
    folder.sync_all(vec![staged]).remove(0).unwrap();
    assert!(read_content(&folder, &id(&new)).unwrap() == new);
}

#[test]
fn other_bytes_than_the_hash_says_are_thrown_away() {
    let place = Place::new();
    let folder = place.open();
    let content = id("right");
    let mut stage = folder.stage(content).unwrap();
    stage.write(b"wrong").unwrap();
    let error = stage.finish().unwrap_err();
    assert!(matches!(error, StageError::Corrupt(_)), "{error}");
    assert_eq!(folder.stage(content).unwrap().offset(), 0);
    // What a crash left may be longer than it should be.
    std::fs::write(
        place.at(HIDDEN).join("staging").join(to_hex(content)),
        "much too long",
    )
    .unwrap();
    assert_eq!(folder.stage(content).unwrap().offset(), 0);
    assert!(folder.open_content(&content).is_err());
}

fn to_hex(content: ContentId) -> String {
    content.hash.to_string()
}

#[test]
fn what_an_older_version_has_in_common_is_copied() {
    let place = Place::new();
    let old: Vec<u8> = (0..3_000_000_u32)
        .map(|n| (n >> 8).to_le_bytes()[0])
        .collect();
    place.write_old("x", &old);
    let folder = place.open();
    scan(&folder);
    let basis = folder.open_content(&id(&old)).unwrap();
    let mut new = old.clone();
    new.splice(1_000_000..1_000_001, *b"some more");
    let mut stage = folder.stage(id(&new)).unwrap();
    stage.write_from_basis(&basis, 0, 1_000_000).unwrap();
    stage.write(b"some more").unwrap();
    let error = stage.write_from_basis(&basis, 2_999_999, 2).unwrap_err();
    assert!(matches!(error, StageError::Basis(_)), "{error}");
    assert_eq!(stage.offset(), 1_000_009);
    stage
        .write_from_basis(&basis, 1_000_001, 1_999_999)
        .unwrap();
    folder
        .sync_all(vec![stage.finish().unwrap()])
        .remove(0)
        .unwrap();
    assert_eq!(read_content(&folder, &id(&new)).unwrap(), new);
}

#[test]
fn a_basis_that_changes_meanwhile_is_not_used() {
    let place = Place::new();
    place.write_old("x", vec![1; 100_000]);
    let folder = place.open();
    scan(&folder);
    let basis = folder.open_content(&id(vec![1; 100_000])).unwrap();
    place.write("x", vec![2; 100_000]);
    let mut stage = folder.stage(id(vec![1; 200_000])).unwrap();
    stage.write(&[1; 50_000]).unwrap();
    let error = stage.write_from_basis(&basis, 0, 50_000).unwrap_err();
    assert!(matches!(error, StageError::Basis(_)), "{error}");
    assert_eq!(stage.offset(), 50_000);
    stage.write(&[1; 150_000]).unwrap();
    stage.finish().unwrap();
    let mut buf = [0; 10];
    assert!(basis.read_at(0, &mut buf).is_err());
}

#[test]
fn many_contents_are_made_durable_together() {
    let place = Place::new();
    let folder = place.open();
    for count in [0_u32, 1, 5, 40] {
        let contents: Vec<_> = (0..count).map(|n| format!("{count}-{n}")).collect();
        let staged = contents.iter().map(|bytes| {
            let mut stage = folder.stage(id(bytes)).unwrap();
            stage.write(bytes.as_bytes()).unwrap();
            stage.finish().unwrap()
        });
        let staged = staged.collect();
        let synced: Vec<_> = folder
            .sync_all(staged)
            .into_iter()
            .map(Result::unwrap)
            .collect();
        assert_eq!(synced, contents.iter().map(id).collect::<Vec<_>>());
        assert!(contents.iter().all(|bytes| folder.has_content(&id(bytes))));
    }
    assert_eq!(folder.objects().unwrap().len(), 46);
}

#[test]
fn an_object_that_is_not_what_its_name_says_is_not_used() {
    let place = Place::new();
    let folder = place.open();
    let content = bring(&folder, "good");
    let object = place.at(HIDDEN).join("objects").join(to_hex(content));
    drop(folder);
    std::fs::write(&object, "evil").unwrap();
    let folder = place.open();
    assert!(folder.open_content(&content).is_err());
    assert!(!object.exists());
    // Neither when it changes while we run.
    let content = bring(&folder, "good");
    std::fs::write(&object, "evil").unwrap();
    assert!(folder.open_content(&content).is_err());
}

#[test]
fn a_content_outlives_its_path_where_it_is_kept() {
    let place = Place::new();
    place.write_old("x", "one");
    let folder = place.open();
    scan(&folder);
    folder.keep_content(&id("one")).unwrap();
    folder.keep_content(&id("one")).unwrap();
    assert_eq!(scan(&folder).1.hashed, 0);
    let two = bring(&folder, "two");
    folder
        .install(&[put("x", two, Some(id("one")))])
        .remove(0)
        .unwrap();
    assert_eq!(read_content(&folder, &id("one")).unwrap(), b"one");
    assert_eq!(folder.objects().unwrap(), [id("one")]);
    assert!(matches!(
        folder.keep_content(&id("nowhere")),
        Err(ObjectError::Absent(_))
    ));
}

#[test]
fn sweeping_leaves_what_is_kept_fetched_or_written() {
    let place = Place::new();
    let folder = place.open();
    let (keep, drop_it) = (bring(&folder, "keep"), bring(&folder, "drop"));
    let part = |bytes: &str| {
        let mut stage = folder.stage(id(bytes)).unwrap();
        stage.write(&bytes.as_bytes()[..2]).unwrap();
        stage
    };
    let writing = part("being written");
    drop(part("fetched"));
    drop(part("young"));
    drop(part("ancient"));
    age(
        &place.at(HIDDEN).join("staging").join(to_hex(id("ancient"))),
        100_000,
    );
    let held = folder.open_content(&drop_it).unwrap();

    let swept = sweep(&folder, &[keep], &[id("fetched")], 1000);
    assert_eq!((swept.files, swept.bytes), (1, 2));
    assert_eq!(folder.objects().unwrap(), [keep]);
    let mut left = [id("being written"), id("fetched"), id("young")].map(to_hex);
    left.sort();
    assert_eq!(place.hidden("staging"), left);
    // Who has it open goes on.
    let mut bytes = [0; 4];
    held.read_at(0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"drop");
    assert_eq!(sweep(&folder, &[keep], &[], 0).files, 2);
    assert_eq!(place.hidden("staging"), [to_hex(writing.content())]);
}
