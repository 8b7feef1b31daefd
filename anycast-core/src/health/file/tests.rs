use std::time::{Instant, UNIX_EPOCH};

use super::age::Age;
use super::*;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// Two clocks that a test moves.
struct Clocks {
    now: Now,
}

impl Clocks {
    fn new() -> Self {
        Self {
            now: Now {
                wall: UNIX_EPOCH + 1_000_000 * HOUR / 2,
                monotonic: Instant::now(),
            },
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now.wall += time;
        self.now.monotonic += time;
    }

    /// A file that is written now, by the wall clock.
    fn written(&self) -> Times {
        Times {
            modified: self.now.wall,
            changed: self.now.wall,
        }
    }
}

fn age(least: Duration, most: Duration) -> Age {
    Age { least, most }
}

#[test]
fn while_the_clocks_agree_the_age_is_exact() {
    let (mut clocks, mut ages) = (Clocks::new(), Ages::default());
    let file = clocks.written();
    clocks.pass(HOUR);
    assert_eq!(ages.observe(file, clocks.now), age(HOUR, HOUR));
    clocks.pass(SECOND);
    assert_eq!(
        ages.observe(file, clocks.now),
        age(HOUR + SECOND, HOUR + SECOND)
    );
    let file = clocks.written();
    clocks.pass(SECOND);
    assert_eq!(ages.observe(file, clocks.now), age(SECOND, SECOND));
}

#[test]
fn a_wall_clock_set_forth_makes_no_file_old() {
    let (mut clocks, mut ages) = (Clocks::new(), Ages::default());
    let file = clocks.written();
    ages.observe(file, clocks.now);
    clocks.pass(SECOND);
    clocks.now.wall += 24 * HOUR;
    let found = ages.observe(file, clocks.now);
    assert_eq!(found.least, SECOND);
    // Nor one that is written again just before the clock is set again.
    let file = clocks.written();
    clocks.pass(SECOND);
    clocks.now.wall += 24 * HOUR;
    assert_eq!(ages.observe(file, clocks.now).least, SECOND);
    // It still ages.
    clocks.pass(HOUR);
    assert_eq!(ages.observe(file, clocks.now).least, HOUR + SECOND);
}

#[test]
fn a_wall_clock_set_back_makes_no_file_young() {
    let (mut clocks, mut ages) = (Clocks::new(), Ages::default());
    let file = clocks.written();
    clocks.pass(HOUR);
    ages.observe(file, clocks.now);
    clocks.now.wall -= 24 * HOUR;
    clocks.pass(SECOND);
    let found = ages.observe(file, clocks.now);
    assert_eq!(found, age(Duration::ZERO, HOUR + SECOND));
}

#[test]
fn a_first_look_under_a_wrong_clock_is_put_right_with_the_clock() {
    let (mut clocks, mut ages) = (Clocks::new(), Ages::default());
    let file = clocks.written();
    // The clock is a day ahead when the daemon starts.
    clocks.now.wall += 24 * HOUR;
    assert_eq!(ages.observe(file, clocks.now).least, 24 * HOUR);
    clocks.now.wall -= 24 * HOUR;
    clocks.pass(SECOND);
    assert_eq!(ages.observe(file, clocks.now).least, SECOND);
}

#[test]
fn an_old_file_that_is_copied_into_place_is_old() {
    let (mut clocks, mut ages) = (Clocks::new(), Ages::default());
    let old = clocks.written();
    clocks.pass(48 * HOUR);
    ages.observe(clocks.written(), clocks.now);
    clocks.pass(SECOND);
    // rsync -t: the mtime comes along, the ctime is new.
    let copied = Times {
        changed: clocks.now.wall,
        ..old
    };
    let found = ages.observe(copied, clocks.now);
    assert_eq!(found.least, 48 * HOUR + SECOND);
}

#[test]
fn jumps_back_and_forth_fail_neither_bound() {
    let (mut clocks, mut ages) = (Clocks::new(), Ages::default());
    let file = clocks.written();
    let mut real = Duration::ZERO;
    ages.observe(file, clocks.now);
    for jump in [5 * HOUR, HOUR, 30 * HOUR, SECOND] {
        for forth in [true, false] {
            if forth {
                clocks.now.wall += jump;
            } else {
                clocks.now.wall -= jump * 2;
            }
            clocks.pass(SECOND);
            real += SECOND;
            let found = ages.observe(file, clocks.now);
            assert!(
                found.least <= real && real <= found.most,
                "{found:?} {real:?}"
            );
        }
    }
}

#[test]
fn times_of_any_file_are_read() {
    assert_eq!(age::at(0, 0), UNIX_EPOCH);
    assert_eq!(age::at(-1, 500_000_000), UNIX_EPOCH - SECOND / 2);
    let _ = (age::at(i64::MAX, 999_999_999), age::at(i64::MIN, -1));
}

#[cfg(feature = "config")]
#[test]
fn tables_are_checked() {
    use crate::config::check::CheckContext;
    let build = |text: &str| -> Result<(), String> {
        let table: FileTable = toml::from_str(text).map_err(|e| e.message().to_owned())?;
        let address = "192.0.2.53/32".parse().unwrap();
        let context = CheckContext {
            node: &"ams1".parse().unwrap(),
            service: &"dns".parse().unwrap(),
            addresses: &crate::service::ServiceAddresses::new(vec![address]).unwrap(),
        };
        table.build(&context).map(drop)
    };
    build("path = '/a'").unwrap();
    build("path = '/a'\nabsent = true").unwrap();
    build("path = '/a'\nmax_age = '2h'\nmin_age = '1s'\nmin_size = '1KiB'").unwrap();
    for (text, part) in [
        ("path = 'a'", "path: a is not an absolute path"),
        (
            "path = '/a'\nabsent = true\nmax_age = '1s'",
            "max_age: has no meaning",
        ),
        (
            "path = '/a'\nabsent = true\nmin_size = 1",
            "min_size: has no meaning",
        ),
        (
            "path = '/a'\nmax_age = '1s'\nmin_age = '1s'",
            "min_age: 1s is not below max_age",
        ),
        (
            "path = '/a'\nmax_age = '0s'",
            "max_age: must be longer than 0s",
        ),
        ("path = '/a'\nmax_age = 5", "invalid type"),
        ("path = '/a'\nmin_size = '1G'", "\"1G\" is not a size"),
        ("path = '/a'\nmin_size = -1", "cannot be negative"),
        ("path = '/a'\nage = '1s'", "unknown field"),
        ("absent = true", "missing field `path`"),
    ] {
        let error = build(text).unwrap_err();
        assert!(error.contains(part), "{text}: {error}");
    }
}
