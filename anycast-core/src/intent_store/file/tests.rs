//! Saving and loading on a real disk, and every bad file.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

fn service() -> ServiceName {
    ServiceName::new("tftp").unwrap()
}

fn reading() -> ClockReading {
    ClockReading {
        boot: BootId::new("3c5dff4a-0c0e-4b39-a1a2-1f0fbe0b6c59"),
        boottime: Duration::new(12_345, 678_901_234),
        wall: Duration::new(1_700_000_000, 1),
    }
}

fn intent(reason: &str, lasts: Option<u64>) -> SavedIntent {
    SavedIntent::new(
        OrderKind::Demote,
        reason.into(),
        "alice from 127.0.0.1".into(),
        lasts.map(Duration::from_secs),
        &reading(),
    )
}

struct State {
    folder: TempDir,
    file: IntentFile,
}

impl State {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let file = IntentFile::new(folder.path(), &service());
        Self { folder, file }
    }

    fn holding(content: &[u8]) -> Self {
        let state = Self::new();
        fs::write(state.file.path(), content).unwrap();
        state
    }

    fn saved() -> (Self, Vec<u8>) {
        let state = Self::new();
        state.file.save(&intent("swap", Some(7_200))).unwrap();
        let content = fs::read(state.file.path()).unwrap();
        (state, content)
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

#[test]
fn what_was_saved_is_loaded_and_can_be_forgotten() {
    let state = State::new();
    assert!(state.file.load().unwrap().is_none());
    state.file.remove().unwrap();
    for lasts in [None, Some(7_200)] {
        for order in [OrderKind::Demote, OrderKind::Withdraw] {
            let mut saved = intent("swap of \"sda\"", lasts);
            saved.order = order;
            saved.given.boot = None;
            state.file.save(&saved).unwrap();
            assert_eq!(state.file.load().unwrap(), Some(saved));
        }
    }
    assert_eq!(state.names(), ["intent-tftp.json"]);
    state.file.remove().unwrap();
    assert!(state.file.load().unwrap().is_none());
    assert!(state.names().is_empty());
}

#[test]
fn services_have_files_of_their_own() {
    let state = State::new();
    let other = ServiceName::new("tftp.json").unwrap();
    let other = IntentFile::new(state.folder.path(), &other);
    state.file.save(&intent("one", None)).unwrap();
    other.save(&intent("two", None)).unwrap();
    assert_eq!(state.file.load().unwrap().unwrap().reason.as_str(), "one");
    other.remove().unwrap();
    assert!(state.file.load().unwrap().is_some());
}

#[test]
fn a_missing_folder_is_created_for_us_alone() {
    let state = State::new();
    let folder = state.folder.path().join("a/b");
    let file = IntentFile::new(&folder, &service());
    assert!(file.load().unwrap().is_none());
    file.save(&intent("swap", None)).unwrap();
    assert!(file.load().unwrap().is_some());
    let mode = fs::metadata(&folder).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode & !0o750, 0, "{mode:o}");
    let mode = fs::metadata(file.path()).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode & !0o640, 0, "{mode:o}");
}

#[test]
fn a_folder_that_is_a_file_holds_no_intent_and_takes_none() {
    let state = State::new();
    let folder = state.folder.path().join("file");
    fs::write(&folder, "").unwrap();
    let file = IntentFile::new(&folder, &service());
    assert!(file.load().unwrap().is_none());
    let error = file.save(&intent("swap", None)).unwrap_err().to_string();
    assert!(error.contains("creating its folder"), "{error}");
    file.remove().unwrap();
}

/// What a crash between any two steps of a save leaves behind.
#[test]
fn a_crash_while_saving_leaves_the_old_or_the_new() {
    let (old, new) = (intent("old", None), intent("new", Some(60)));
    let scratch = State::new();
    scratch.file.save(&new).unwrap();
    let whole = fs::read(scratch.file.path()).unwrap();
    for had_old in [false, true] {
        let steps = (0..whole.len()).step_by(13);
        for length in steps.chain([whole.len()]) {
            let state = State::new();
            if had_old {
                state.file.save(&old).unwrap();
            }
            let temporary = with_suffix(state.file.path(), ".tmp");
            fs::write(&temporary, &whole[..length]).unwrap();
            assert_eq!(state.file.load().unwrap().is_some(), had_old);
            if length == whole.len() {
                fs::rename(&temporary, state.file.path()).unwrap();
                assert_eq!(state.file.load().unwrap(), Some(new.clone()));
                fs::write(&temporary, "left behind").unwrap();
            }
            // The next save is not disturbed by what lies around.
            state.file.save(&new).unwrap();
            assert_eq!(state.file.load().unwrap(), Some(new.clone()));
            assert_eq!(state.names(), ["intent-tftp.json"]);
        }
    }
}

#[test]
fn a_planted_temporary_link_is_not_written_through() {
    let state = State::new();
    let victim = state.folder.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    symlink(&victim, with_suffix(state.file.path(), ".tmp")).unwrap();
    state.file.save(&intent("swap", None)).unwrap();
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
}

#[test]
fn every_truncation_is_an_error_and_no_panic() {
    let (_, content) = State::saved();
    for length in 0..content.len() - 1 {
        let state = State::holding(&content[..length]);
        // Without its last line feed it is whole.
        let error = state.file.load();
        assert!(
            matches!(error, Err(LoadError::Malformed { .. })),
            "{length}: {error:?}"
        );
    }
}

#[test]
fn bad_content_is_named() {
    let (_, good) = State::saved();
    let good = String::from_utf8(good).unwrap();
    let with = |from: &str, to: &str| {
        assert!(good.contains(from), "{from} in {good}");
        good.replacen(from, to, 1)
    };
    let cases = [
        (String::new(), "empty"),
        ("[]".to_owned(), "cannot be understood"),
        ("{}".to_owned(), "version"),
        (with("\"version\": 1", "\"version\": 2"), "has format 2"),
        (
            "{\"version\": 9, \"anything\": [1]}".to_owned(),
            "has format 9",
        ),
        (with("\"version\": 1", "\"version\": -1"), "cannot be"),
        (with("\"tftp\"", "\"dns\""), "of the service dns"),
        (with("\"tftp\"", "\"a b\""), "not allowed in a name"),
        (with("\"demote\"", "\"destroy\""), "destroy"),
        (with("\"by\"", "\"buy\""), "buy"),
        (with("3c5dff4a-", "3c5d ff4a-"), "out of range"),
        (
            with("\"secs\": 7200", "\"secs\": 18446744073709551615"),
            "out of range",
        ),
        (with("678901234", "99999999999"), "cannot be understood"),
        (with("\"secs\": 7200", "\"secs\": -1"), "cannot be"),
    ];
    for (content, expected) in cases {
        let state = State::holding(content.as_bytes());
        let error = state.file.load().unwrap_err().to_string();
        assert!(error.contains(expected), "{content}: {error}");
        assert!(error.contains("intent-tftp.json"), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn an_oversized_file_is_not_read() {
    let (state, mut content) = State::saved();
    content.resize(usize::try_from(MAX_FILE).unwrap(), b' ');
    fs::write(state.file.path(), &content).unwrap();
    assert!(state.file.load().unwrap().is_some());
    content.push(b' ');
    fs::write(state.file.path(), &content).unwrap();
    let error = state.file.load();
    assert!(matches!(error, Err(LoadError::NotAnIntent { .. })));
    // Sparse, a terabyte long.
    let file = OpenOptions::new()
        .write(true)
        .open(state.file.path())
        .unwrap();
    file.set_len(1 << 40).unwrap();
    let error = state.file.load();
    assert!(matches!(error, Err(LoadError::NotAnIntent { .. })));
}

#[test]
fn what_is_no_regular_file_is_an_error_and_does_not_block() {
    let folder = State::new();
    fs::create_dir(folder.file.path()).unwrap();
    let link = State::new();
    symlink("/dev/zero", link.file.path()).unwrap();
    let pipe = State::new();
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(
        rustix::fs::CWD,
        pipe.file.path(),
        rustix::fs::FileType::Fifo,
        mode,
        0,
    )
    .unwrap();
    for state in [&folder, &link, &pipe] {
        let error = state.file.load();
        assert!(matches!(error, Err(LoadError::NotAnIntent { .. })));
    }
    // What cannot be kept aside or removed says so.
    assert!(folder.file.set_aside().is_err());
    let error = folder.file.remove().unwrap_err().to_string();
    assert!(error.contains("removing it"), "{error}");
    let error = folder.file.save(&intent("swap", None)).unwrap_err();
    assert!(error.to_string().contains("renaming"), "{error}");
    assert_eq!(folder.names(), ["intent-tftp.json"], "no temporary file");
    link.file.set_aside().unwrap();
    link.file.save(&intent("swap", None)).unwrap();
    assert!(link.file.load().unwrap().is_some());
}

#[test]
fn a_bad_file_is_kept_aside_and_stays_until_it_is_replaced() {
    let state = State::holding(b"not an intent");
    fs::write(state.file.bad_path(), "an older one").unwrap();
    state.file.set_aside().unwrap();
    assert!(
        state.file.load().is_err(),
        "a crash here must not forget it"
    );
    state.file.save(&intent("unreadable", None)).unwrap();
    assert!(state.file.load().unwrap().is_some());
    assert_eq!(
        fs::read_to_string(state.file.bad_path()).unwrap(),
        "not an intent"
    );
    let nothing = State::new();
    assert!(nothing.file.set_aside().is_err());
}

#[test]
fn a_save_that_fails_keeps_the_old_intent() {
    let state = State::new();
    state.file.save(&intent("old", None)).unwrap();
    let temporary = with_suffix(state.file.path(), ".tmp");
    fs::create_dir(&temporary).unwrap(); // in the way of every save
    let error = state.file.save(&intent("new", None)).unwrap_err();
    assert!(error.to_string().contains("temporary"), "{error}");
    assert_eq!(state.file.load().unwrap().unwrap().reason.as_str(), "old");
    fs::remove_dir(&temporary).unwrap();
    state.file.save(&intent("new", None)).unwrap();
}

#[test]
fn the_clocks_of_this_host_can_be_read() {
    let clock = SystemClock::new();
    let (one, other) = (clock.read(), clock.read());
    assert!(one.boot.is_some() && one.boot == other.boot);
    assert!(!one.boottime.is_zero() && one.boottime <= other.boottime);
    assert!(one.wall > Duration::from_secs(1_600_000_000));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_bytes_are_no_panic(content in prop::collection::vec(any::<u8>(), 0..256)) {
        let _ = State::holding(&content).file.load();
    }

    /// Damage in one place: an error, or an intent within its bounds.
    #[test]
    fn damage_is_no_panic_and_stays_bounded(place in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let (state, mut content) = State::saved();
        let place = place.index(content.len());
        content[place] = byte;
        fs::write(state.file.path(), &content).unwrap();
        if let Ok(Some(intent)) = state.file.load() {
            prop_assert!(intent.left(&reading()).is_none_or(|left| left <= MAX_LASTS));
        }
    }

    #[test]
    fn any_intent_comes_back_as_it_was(
        reason in ".{0,300}",
        by in ".{0,300}",
        lasts in prop::option::of(any::<u64>()),
        withdraw in any::<bool>(),
        boottime in any::<(u64, u32)>(),
    ) {
        let state = State::new();
        let order = if withdraw { OrderKind::Withdraw } else { OrderKind::Demote };
        let now = ClockReading {
            boottime: Duration::new(boottime.0 / 2, boottime.1 % 1_000_000_000),
            ..reading()
        };
        let lasts = lasts.map(Duration::from_secs);
        let saved = SavedIntent::new(order, reason.into(), by.into(), lasts, &now);
        state.file.save(&saved).unwrap();
        prop_assert!(fs::metadata(state.file.path()).unwrap().size() <= MAX_FILE);
        prop_assert_eq!(state.file.load().unwrap(), Some(saved));
    }
}
