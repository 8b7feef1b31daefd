//! A host in virtual time: boots, suspensions, and a wall clock that says anything.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A host. `elapsed` is the true time, which no clock of the host need know.
#[derive(Debug, Clone)]
struct Host {
    elapsed: Duration,
    boots: u64,
    booted_at: Duration,
    /// What the wall clock says is `elapsed` plus this; it may have been set to anything.
    wall_ahead: i64,
}

impl Host {
    /// Time before the first boot, so that the wall clock can be behind.
    const EPOCH: Duration = seconds(1_000_000);

    const fn new() -> Self {
        Self {
            elapsed: seconds(0),
            boots: 1,
            booted_at: seconds(0),
            wall_ahead: 0,
        }
    }

    fn read(&self) -> ClockReading {
        let wall = Self::EPOCH + self.elapsed;
        let ahead = Duration::from_secs(self.wall_ahead.unsigned_abs());
        ClockReading {
            boot: BootId::new(&format!("boot-{}", self.boots)),
            boottime: self.elapsed - self.booted_at,
            wall: if self.wall_ahead < 0 {
                wall.saturating_sub(ahead)
            } else {
                wall + ahead
            },
        }
    }

    fn reboot(&mut self, takes: Duration) {
        self.elapsed += takes;
        self.booted_at = self.elapsed;
        self.boots += 1;
    }

    fn order(&self, lasts: Option<u64>) -> SavedIntent {
        SavedIntent::new(
            OrderKind::Demote,
            "disk swap".into(),
            "alice from ::1".into(),
            lasts.map(seconds),
            &self.read(),
        )
    }
}

#[derive(Debug, Clone)]
enum Happening {
    /// Time passes.
    Pass(Duration),
    /// The process is started anew.
    Restart,
    /// The wall clock is set to this many seconds off.
    SetWall(i64),
    /// The host is rebooted, which takes so long.
    Reboot(Duration),
}

fn moment() -> impl Strategy<Value = Duration> {
    (0u64..4_000, 0u32..1_000_000_000).prop_map(|(secs, nanos)| Duration::new(secs, nanos))
}

fn wall() -> impl Strategy<Value = i64> {
    prop_oneof![-2_000_000i64..2_000_000, Just(0), -20i64..20]
}

fn on_one_boot() -> impl Strategy<Value = Vec<Happening>> {
    let happening = prop_oneof![
        moment().prop_map(Happening::Pass),
        Just(Happening::Restart),
        wall().prop_map(Happening::SetWall),
    ];
    prop::collection::vec(happening, 0..24)
}

fn over_boots() -> impl Strategy<Value = Vec<Happening>> {
    let happening = prop_oneof![
        3 => moment().prop_map(Happening::Pass),
        2 => Just(Happening::Restart),
        1 => wall().prop_map(Happening::SetWall),
        2 => moment().prop_map(Happening::Reboot),
    ];
    prop::collection::vec(happening, 0..24)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn f9_f11_on_one_boot_it_ends_exactly_at_its_deadline(
        lasts in 1u64..10_000,
        happenings in on_one_boot(),
    ) {
        let mut host = Host::new();
        host.elapsed = seconds(77);
        let deadline = host.elapsed + seconds(lasts);
        let mut intent = Some(host.order(Some(lasts)));
        for happening in happenings {
            match happening {
                Happening::Pass(time) => host.elapsed += time,
                Happening::SetWall(ahead) => host.wall_ahead = ahead,
                Happening::Restart => intent = intent.and_then(|i| i.restore(&host.read())),
                Happening::Reboot(_) => unreachable!(),
            }
            let left = intent.as_ref().and_then(|i| i.left(&host.read())).unwrap_or_default();
            prop_assert_eq!(left, deadline.saturating_sub(host.elapsed));
        }
    }

    #[test]
    fn f9_after_a_reboot_it_never_has_more_than_it_had(
        lasts in 1u64..10_000,
        happenings in over_boots(),
    ) {
        let mut host = Host::new();
        let mut intent = Some(host.order(Some(lasts)));
        let mut bound_at = host.elapsed;
        let mut had = seconds(lasts);
        for happening in happenings {
            match happening {
                Happening::Pass(time) => host.elapsed += time,
                Happening::SetWall(ahead) => host.wall_ahead = ahead,
                Happening::Restart => intent = intent.and_then(|i| i.restore(&host.read())),
                Happening::Reboot(takes) => {
                    host.reboot(takes);
                    intent = intent.and_then(|i| i.restore(&host.read()));
                    let Some(intent) = &intent else { continue };
                    let left = intent.left(&host.read()).unwrap();
                    prop_assert!(left <= had, "{:?} left of {:?}", left, had);
                    (bound_at, had) = (host.elapsed, left);
                }
            }
            let Some(intent) = &intent else { continue };
            let left = intent.left(&host.read()).unwrap();
            prop_assert_eq!(left, (bound_at + had).saturating_sub(host.elapsed));
        }
    }

    #[test]
    fn f9_with_a_right_wall_clock_reboots_do_not_move_its_end(
        lasts in 1u64..10_000,
        happenings in over_boots(),
    ) {
        let mut host = Host::new();
        let mut intent = Some(host.order(Some(lasts)));
        for happening in happenings {
            match happening {
                Happening::Pass(time) => host.elapsed += time,
                Happening::SetWall(_) => {}
                Happening::Restart => intent = intent.and_then(|i| i.restore(&host.read())),
                Happening::Reboot(takes) => {
                    host.reboot(takes);
                    intent = intent.and_then(|i| i.restore(&host.read()));
                }
            }
            let left = intent.as_ref().and_then(|i| i.left(&host.read())).unwrap_or_default();
            prop_assert_eq!(left, seconds(lasts).saturating_sub(host.elapsed));
        }
    }

    #[test]
    fn one_without_an_end_never_ends(happenings in over_boots()) {
        let mut host = Host::new();
        let mut intent = host.order(None);
        for happening in happenings {
            match happening {
                Happening::Pass(time) => host.elapsed += time,
                Happening::SetWall(ahead) => host.wall_ahead = ahead,
                Happening::Restart => {}
                Happening::Reboot(takes) => host.reboot(takes),
            }
            intent = intent.restore(&host.read()).unwrap();
            prop_assert_eq!(intent.left(&host.read()), None);
        }
    }
}

#[test]
fn after_a_reboot_the_wall_clock_is_asked_once() {
    let mut host = Host::new();
    let given = host.order(Some(7_200));
    host.reboot(seconds(600));
    host.wall_ahead = -900_000; // no battery: the clock starts in the past
    let restored = given.clone().restore(&host.read()).unwrap();
    assert_ne!(restored, given, "it is to be saved again");
    assert_eq!(restored.left(&host.read()), Some(seconds(7_200)));
    host.elapsed += seconds(60);
    host.wall_ahead = 0; // set right by NTP
    assert_eq!(restored.left(&host.read()), Some(seconds(7_140)));
    let again = restored.clone().restore(&host.read()).unwrap();
    assert_eq!(again, restored, "nothing to save on the same boot");
}

#[test]
fn a_wall_clock_far_ahead_ends_it_and_never_underflows() {
    let mut host = Host::new();
    let given = host.order(Some(7_200));
    host.reboot(seconds(1));
    host.wall_ahead = 1_000_000_000;
    assert_eq!(given.restore(&host.read()), None);
}

#[test]
fn without_a_boot_id_the_wall_clock_counts() {
    let mut host = Host::new();
    let blind = |host: &Host| ClockReading {
        boot: None,
        ..host.read()
    };
    let given = SavedIntent::new(
        OrderKind::Withdraw,
        "".into(),
        "".into(),
        Some(seconds(100)),
        &blind(&host),
    );
    host.elapsed += seconds(30);
    let restored = given.restore(&blind(&host)).unwrap();
    assert_eq!(restored.left(&blind(&host)), Some(seconds(70)));
    assert_eq!(restored.age(&blind(&host)), seconds(30));
}

#[test]
fn its_age_ignores_the_wall_clock_on_one_boot() {
    let mut host = Host::new();
    let given = host.order(None);
    host.elapsed += seconds(90);
    host.wall_ahead = -500_000;
    assert_eq!(given.age(&host.read()), seconds(90));
    host.reboot(seconds(10));
    assert_eq!(given.age(&host.read()), seconds(0));
    host.wall_ahead = 0;
    assert_eq!(given.age(&host.read()), seconds(100));
}

#[test]
fn extremes_do_not_overflow() {
    let late = ClockReading {
        boot: BootId::new("b"),
        boottime: Duration::MAX,
        wall: Duration::MAX,
    };
    let intent = SavedIntent::new(
        OrderKind::Demote,
        "".into(),
        "".into(),
        Some(Duration::MAX),
        &late,
    );
    assert!(intent.left(&late).is_some_and(|left| left <= MAX_LASTS));
    let early = Host::new().read();
    let forever = SavedIntent::new(
        OrderKind::Demote,
        "".into(),
        "".into(),
        Some(Duration::MAX),
        &early,
    );
    assert_eq!(forever.left(&early), Some(MAX_LASTS));
}

#[test]
fn boot_ids_are_bounded_and_printable() {
    assert!(BootId::new("3c5dff4a-0c0e-4b39-a1a2-1f0fbe0b6c59").is_some());
    for bad in ["", "a b", "a\n", "é", &"x".repeat(65)] {
        assert_eq!(BootId::new(bad), None, "{bad:?}");
    }
}
