use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

const SETTINGS: Settings = Settings {
    confirm: Duration::from_secs(12),
    converge: Duration::from_secs(5),
    finish: Duration::from_secs(30),
};

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn begun() -> (Drain, Instant) {
    let start = Instant::now();
    let mut drain = Drain::new(SETTINGS, start);
    assert_eq!((drain.phase(), drain.poll_timeout()), (Phase::Idle, None));
    drain.handle_begin(start, &"disk swap".into());
    assert_eq!(drain.phase(), Phase::Demoting);
    assert_eq!(drain.why().as_str(), "disk swap");
    (drain, start)
}

#[test]
fn a_drain_in_order() {
    let (mut drain, start) = begun();
    drain.handle_in_flight(start, 2);
    drain.handle_lowered(start + seconds(1), true);
    assert_eq!(drain.phase(), Phase::Converging);
    drain.handle_in_flight(start + seconds(2), 0); // idle for a moment: clients still come
    drain.handle_timeout(start + seconds(5));
    assert_eq!(drain.phase(), Phase::Converging);
    drain.handle_in_flight(start + seconds(5), 2);
    assert_eq!(drain.poll_timeout().unwrap().0, start + seconds(6));
    drain.handle_timeout(start + seconds(6));
    assert_eq!(drain.phase(), Phase::Finishing);
    assert_eq!(drain.in_flight(), Some(2));
    drain.handle_in_flight(start + seconds(6), 1);
    let (at, _) = drain.poll_timeout().unwrap();
    assert_eq!(at, start + seconds(6) + COUNT_EVERY);
    drain.handle_in_flight(start + seconds(9), 0);
    assert_eq!(drain.phase(), Phase::Done);
    assert_eq!(drain.since(), start + seconds(9));
    assert_eq!(drain.poll_timeout(), None);
    drain.handle_begin(start + seconds(10), &"the node is stopping".into());
    assert_eq!(drain.phase(), Phase::Done, "a stop after it need not wait");
}

#[test]
fn what_does_not_end_is_cut_off() {
    let (mut drain, start) = begun();
    drain.handle_lowered(start, true);
    drain.handle_in_flight(start, 3);
    drain.handle_timeout(start + seconds(5));
    drain.handle_timeout(start + seconds(34));
    assert_eq!(drain.phase(), Phase::Finishing);
    drain.handle_timeout(start + seconds(35));
    assert_eq!(drain.phase(), Phase::Done);
    assert_eq!(drain.why().as_str(), "3 in flight after 30s");
}

#[test]
fn other_settings_count_at_once() {
    let (mut drain, start) = begun();
    drain.handle_lowered(start, true);
    drain.handle_in_flight(start, 3);
    drain.handle_timeout(start + seconds(30));
    let finish = seconds(60);
    drain.handle_settings(start + seconds(30), Settings { finish, ..SETTINGS });
    drain.handle_timeout(start + seconds(89));
    assert_eq!(drain.phase(), Phase::Finishing);
    drain.handle_settings(start + seconds(89), SETTINGS);
    assert_eq!(drain.phase(), Phase::Done);
}

#[test]
fn without_a_count_it_is_done_once_the_routes_have_moved() {
    let (mut drain, start) = begun();
    drain.handle_lowered(start, true);
    drain.handle_timeout(start + seconds(5));
    assert_eq!(drain.phase(), Phase::Done);
}

#[test]
fn a_demotion_that_is_never_confirmed_is_given_up_on() {
    let (mut drain, start) = begun();
    drain.handle_in_flight(start, 0);
    drain.handle_timeout(start + seconds(11));
    assert_eq!(drain.phase(), Phase::Demoting);
    drain.handle_timeout(start + seconds(12));
    assert_eq!(drain.phase(), Phase::Converging);
    assert!(drain.why().as_str().contains("not confirmed"));
    drain.handle_timeout(start + seconds(17));
    assert_eq!(drain.phase(), Phase::Done);
}

#[test]
fn a_demotion_that_is_lost_again_begins_converging_anew() {
    let (mut drain, start) = begun();
    drain.handle_lowered(start, true);
    drain.handle_lowered(start + seconds(4), false);
    assert_eq!(drain.phase(), Phase::Demoting);
    drain.handle_lowered(start + seconds(6), true);
    drain.handle_timeout(start + seconds(10));
    assert_eq!(drain.phase(), Phase::Converging);
    drain.handle_timeout(start + seconds(11));
    assert_eq!(drain.phase(), Phase::Done);
}

#[test]
fn a_node_that_was_demoted_long_ago_has_converged() {
    let start = Instant::now();
    let mut drain = Drain::new(SETTINGS, start);
    drain.handle_lowered(start, true);
    drain.handle_lowered(start + seconds(59), true);
    drain.handle_begin(start + seconds(60), &"the node is stopping".into());
    assert_eq!(drain.phase(), Phase::Done);
}

#[test]
fn cancelled_it_begins_anew() {
    let (mut drain, start) = begun();
    drain.handle_lowered(start, true);
    drain.handle_cancel(start + seconds(3));
    assert_eq!((drain.phase(), drain.poll_timeout()), (Phase::Idle, None));
    drain.handle_lowered(start + seconds(3), false);
    drain.handle_begin(start + seconds(4), &"again".into());
    drain.handle_lowered(start + seconds(4), true);
    drain.handle_timeout(start + seconds(8));
    assert_eq!(drain.phase(), Phase::Converging);
    drain.handle_timeout(start + seconds(9));
    assert_eq!(drain.phase(), Phase::Done);
}

#[test]
fn settings_without_end_are_bounded() {
    let start = Instant::now();
    let endless = Settings {
        confirm: Duration::MAX,
        converge: Duration::MAX,
        finish: Duration::MAX,
    };
    assert_eq!(endless.longest(), MAX_TIME * 3);
    let mut drain = Drain::new(endless, start);
    drain.handle_begin(start, &"".into());
    assert_eq!(drain.poll_timeout().unwrap().0, start + MAX_TIME);
}

#[derive(Debug, Clone)]
enum Input {
    Begin,
    Cancel,
    Lowered(bool),
    InFlight(u64),
    Nothing,
}

fn input() -> impl Strategy<Value = (Duration, Input)> {
    let input = prop_oneof![
        3 => Just(Input::Begin),
        1 => Just(Input::Cancel),
        5 => any::<bool>().prop_map(Input::Lowered),
        5 => (0u64..3).prop_map(Input::InFlight),
        3 => Just(Input::Nothing),
    ];
    let wait = prop_oneof![Just(0), 1u64..900, 900u64..9_000];
    (wait.prop_map(Duration::from_millis), input)
}

fn settings() -> impl Strategy<Value = Settings> {
    (0u64..9, 0u64..9, 0u64..9).prop_map(|(confirm, converge, finish)| Settings {
        confirm: seconds(confirm),
        converge: seconds(converge),
        finish: seconds(finish),
    })
}

/// What is known of one drain without the drain: reckoned from the inputs alone.
#[derive(Debug, Clone, Copy)]
struct Reckoning {
    began: Instant,
    /// The last moment, while there was still time to confirm it, at which the demotion was
    /// not in force.
    not_lowered: Instant,
    /// It is not in force, and was lost before that time was over.
    lost: bool,
}

struct Tested {
    drain: Drain,
    settings: Settings,
    now: Instant,
    lowered: bool,
    lowered_at: Instant,
    in_flight: Option<u64>,
    was_done: bool,
    reckoning: Option<Reckoning>,
}

impl Tested {
    fn new(settings: Settings) -> Self {
        let now = Instant::now();
        Self {
            drain: Drain::new(settings, now),
            settings,
            now,
            lowered: false,
            lowered_at: now,
            in_flight: None,
            was_done: false,
            reckoning: None,
        }
    }

    /// Lets time pass as a driver does, which comes back whenever it is asked to.
    fn pass(&mut self, until: Instant) {
        loop {
            let due = self.drain.poll_timeout().map(|(at, _)| at);
            let at = due.filter(|at| *at <= until).unwrap_or(until);
            self.now = self.now.max(at);
            self.reckon();
            match self.in_flight {
                Some(count) => self.drain.handle_in_flight(at, count),
                None => self.drain.handle_timeout(at),
            }
            self.verify();
            if due.is_none_or(|at| at > until) {
                return;
            }
        }
    }

    fn take(&mut self, input: &Input) {
        let now = self.now;
        match input {
            Input::Begin => {
                self.drain.handle_begin(now, &"test".into());
                self.reckoning.get_or_insert(Reckoning {
                    began: now,
                    not_lowered: if self.lowered { self.lowered_at } else { now },
                    lost: !self.lowered,
                });
            }
            Input::Cancel => {
                self.drain.handle_cancel(now);
                self.reckoning = None;
                assert_eq!(self.drain.phase(), Phase::Idle);
            }
            Input::Lowered(lowered) => {
                self.reckon(); // until this moment it was as before
                if *lowered && !self.lowered {
                    self.lowered_at = now;
                }
                self.lowered = *lowered;
                if let Some(reckoning) = &mut self.reckoning {
                    let in_time = now < reckoning.began + self.settings.confirm;
                    reckoning.lost = !lowered && (in_time || reckoning.lost);
                }
                self.drain.handle_lowered(now, *lowered);
            }
            Input::InFlight(count) => {
                self.in_flight = Some(*count);
                self.drain.handle_in_flight(now, *count);
            }
            Input::Nothing => {}
        }
        self.reckon();
        self.verify();
    }

    fn reckon(&mut self) {
        if let Some(reckoning) = &mut self.reckoning
            && reckoning.lost
            && self.drain.phase() != Phase::Done
        {
            reckoning.not_lowered = self.now.min(reckoning.began + self.settings.confirm);
        }
    }

    fn verify(&mut self) {
        let phase = self.drain.phase();
        self.was_done &= phase == Phase::Done;
        let Some(Reckoning {
            began, not_lowered, ..
        }) = self.reckoning
        else {
            assert_eq!(phase, Phase::Idle);
            assert_eq!(self.drain.poll_timeout(), None);
            return;
        };
        assert_ne!(phase, Phase::Idle);
        let converged = self.now >= not_lowered + self.settings.converge;
        if phase >= Phase::Finishing {
            assert!(converged, "{phase} before the routes had their time");
        }
        if phase == Phase::Done {
            // Looked at when it is first seen: what is counted afterwards came later.
            if !std::mem::replace(&mut self.was_done, true) {
                let least = not_lowered + self.settings.converge + self.settings.finish;
                let nothing = self.in_flight.is_none_or(|count| count == 0);
                assert!(
                    nothing || self.now >= least,
                    "{:?} in flight",
                    self.in_flight
                );
            }
        } else {
            let late = self.now >= began + self.settings.longest();
            assert!(!late, "{phase} after {:?}", self.now - began);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn never_done_too_early_nor_too_late(
        settings in settings(),
        inputs in prop::collection::vec(input(), 1..40),
    ) {
        let mut tested = Tested::new(settings);
        for (wait, input) in &inputs {
            tested.pass(tested.now + *wait);
            tested.take(input);
        }
        tested.pass(tested.now + settings.longest());
        let expected = if tested.reckoning.is_some() { Phase::Done } else { Phase::Idle };
        prop_assert_eq!(tested.drain.phase(), expected);
    }

    /// A driver that is late, and one that repeats itself, get there as well.
    #[test]
    fn late_and_repeated_inputs_do_no_harm(
        settings in settings(),
        inputs in prop::collection::vec(input(), 1..40),
    ) {
        let mut now = Instant::now();
        let mut drain = Drain::new(settings, now);
        for (wait, input) in &inputs {
            let before = now;
            now += *wait;
            for at in [now, now, before] {
                match input {
                    Input::Begin => drain.handle_begin(at, &"test".into()),
                    Input::Cancel => drain.handle_cancel(at),
                    Input::Lowered(lowered) => drain.handle_lowered(at, *lowered),
                    Input::InFlight(count) => drain.handle_in_flight(at, *count),
                    Input::Nothing => drain.handle_timeout(at),
                }
                prop_assert!(drain.since() <= now);
                let after = drain.poll_timeout().is_none_or(|(due, _)| due > now);
                let counts = drain.phase() == Phase::Finishing;
                prop_assert!(after || counts, "{:?} is due at once", drain.phase());
            }
        }
    }
}
