use std::time::Duration;

use super::*;
use crate::announce::Role;
use crate::machine::{CheckId, Identity, Policy};
use crate::service::{CheckName, ServiceAddresses, ServiceName};

const SECOND: Duration = Duration::from_secs(1);
const PROBE: CheckId = CheckId::new(0);

fn machine(now: Instant) -> Machine {
    let identity = Identity {
        service: ServiceName::new("dns").unwrap(),
        addresses: ServiceAddresses::new(vec!["192.0.2.53/32".parse().unwrap()]).unwrap(),
        role: Role::Primary,
    };
    let rules = [CheckName::new("probe").unwrap().into()];
    Machine::new(identity, Policy::default(), &rules, None, now).unwrap()
}

fn recorder(machine: &Machine, now: Instant) -> Recorder {
    Recorder::new(machine, &NodeName::new("ams1").unwrap(), None, now)
}

fn healthy() -> Input {
    Input::Verdict(PROBE, Verdict::Healthy)
}

fn failed() -> Input {
    Input::Verdict(PROBE, Verdict::unhealthy("no answer"))
}

#[test]
fn an_uneventful_day_takes_no_room_and_a_long_failure_one_line() {
    let start = Instant::now();
    let mut machine = machine(start);
    let mut recorder = recorder(&machine, start);
    let mut at = start;
    for _ in 0..86_400 {
        at += SECOND;
        recorder.handle(&mut machine, at, &healthy());
    }
    assert_eq!(
        recorder.to_text().lines().count(),
        1 + 3 + 1,
        "header, rise = 3, end"
    );
    for _ in 0..10_000 {
        at += SECOND;
        recorder.handle(&mut machine, at, &failed());
    }
    assert_eq!(
        recorder.to_text().lines().count(),
        4 + 3 + 1,
        "fall = 2, and the last one, end"
    );
    for _ in 0..3 {
        at += SECOND * 3;
        recorder.handle(&mut machine, at, &healthy());
    }
    let replay = Replay::run(&recorder.to_text(), start).unwrap();
    assert_eq!(replay.first_difference(), None);
    assert_eq!(replay.steps.last().unwrap().replayed, "preferred (healthy)");
    assert_eq!(replay.header.service.as_str(), "dns");
}

/// A hold-down ends without an input: the decision is in the replay at its own moment, and the
/// end of the record is compared as well.
#[test]
fn what_time_alone_decides_is_replayed_and_compared() {
    let start = Instant::now();
    let identity = machine(start).identity().clone();
    let policy = Policy {
        hold_down: SECOND * 30,
        ..Policy::default()
    };
    let rules = [CheckName::new("probe").unwrap().into()];
    let mut machine = Machine::new(identity, policy, &rules, None, start).unwrap();
    let mut recorder = recorder(&machine, start);
    let tell = |recorder: &mut Recorder, machine: &mut Machine, at: u32, input: &Input| {
        recorder.handle(machine, start + SECOND * at, input);
    };
    for at in 0..3 {
        tell(&mut recorder, &mut machine, at, &healthy());
    }
    for at in 10..12 {
        tell(&mut recorder, &mut machine, at, &failed());
    }
    for at in 20..=90 {
        tell(&mut recorder, &mut machine, at, &healthy());
    }
    let text = recorder.to_text();
    assert!(text.lines().last().unwrap().contains("until"), "{text}");
    let replay = Replay::run(&text, start + SECOND * 1000).unwrap();
    assert_eq!(replay.first_difference(), None);
    let last = replay.decisions.last().unwrap();
    assert_eq!(
        (last.input.as_deref(), last.preference),
        (None, Preference::Preferred),
        "{last:?}"
    );
    assert!(last.at < SECOND * 90, "{last:?}");
    assert_eq!(replay.steps.last().unwrap().at, SECOND * 90);
    // An end that says otherwise is a difference.
    let (entries, end) = text.trim_end().rsplit_once('\n').unwrap();
    let other = format!("{entries}\n{}\n", end.replace("preferred", "demoted"));
    let replay = Replay::run(&other, start).unwrap();
    let difference = replay.first_difference().unwrap();
    assert_eq!(difference.line, other.lines().count());
}

#[test]
fn a_full_record_says_so_and_still_replays() {
    let start = Instant::now();
    let mut machine = machine(start);
    let mut recorder = recorder(&machine, start);
    let extra = 100;
    for n in 0..MAX_ENTRIES + extra {
        let at = start + SECOND * u32::try_from(n).unwrap();
        let verdict = if n % 2 == 0 { healthy() } else { failed() };
        recorder.handle(&mut machine, at, &verdict);
    }
    let text = recorder.to_text();
    assert!(
        text.ends_with(&format!("{{\"dropped\":{extra}}}\n")),
        "{}",
        &text[text.len() - 99..]
    );
    let replay = Replay::run(&text, start).unwrap();
    assert_eq!(replay.dropped, extra as u64);
    assert_eq!(replay.first_difference(), None);
}

#[test]
fn a_record_that_was_tampered_with_shows_the_difference() {
    let start = Instant::now();
    let mut machine = machine(start);
    let mut recorder = recorder(&machine, start);
    for n in 0..3 {
        recorder.handle(&mut machine, start + SECOND * n, &healthy());
    }
    let text = recorder.to_text().replace("preferred", "demoted");
    let replay = Replay::run(&text, start).unwrap();
    let difference = replay.first_difference().unwrap();
    assert_eq!(difference.line, 4);
    assert_eq!(difference.recorded, "demoted (healthy)");
    assert_eq!(difference.replayed, "preferred (healthy)");
}

#[test]
fn bad_records_are_one_line_of_error() {
    let start = Instant::now();
    let machine = machine(start);
    let good = recorder(&machine, start).to_text();
    let entry = |at: &str, input: &str| {
        format!("{good}{{\"at\":{at},\"input\":{input},\"preference\":\"x\",\"state\":\"y\"}}\n")
    };
    for (text, piece) in [
        (String::new(), "empty"),
        ("garbage".to_owned(), "line 1"),
        ("{}".to_owned(), "line 1"),
        (good.replace(":1,", ":2,"), "line 1"),
        (format!("{good}{good}"), "line 2: a second header"),
        (format!("{good}null"), "line 2"),
        (
            entry("0", r#"{"healthy":{"check":"other"}}"#),
            "no check is called other",
        ),
        (entry("0", r#"{"healthy":{"check":""}}"#), "line 2"),
        (entry("1e99", r#"{"expiry":{}}"#), "line 2"),
        (entry("0", r#"{"reboot":{}}"#), "line 2"),
        (good.replace("probe", "probe\u{7}"), "line 1"),
        (good.replace("critical", "warning"), "line 1"),
        (
            format!("{good}{{\"dropped\":1}}\n{{\"dropped\":1}}"),
            "line 3: it comes after",
        ),
    ] {
        let error = Replay::run(&text, start).unwrap_err().to_string();
        assert!(error.contains(piece), "{piece} is not in: {error}");
        assert!(!error.contains('\n'), "{error}");
    }
    assert!(Replay::run(&entry("0", r#"{"expiry":{}}"#), start).is_ok());
}
