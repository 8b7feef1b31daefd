//! What BIRD has loaded, and when. Pure.
//!
//! BIRD loads its whole configuration or nothing of it. Whoever says `configure` therefore
//! loads whatever an operator has left in the files since, finished or not; the time of the
//! last load tells whether there is something.

use std::time::Duration;

use super::reply::Reply;

/// How long ago the configuration was loaded, from the reply to `show status`. Both times in it
/// are in one zone, so that the difference holds wherever BIRD believes to be.
///
/// None: BIRD prints its times otherwise than `timeformat base iso long`, the default.
#[must_use]
pub fn loaded_ago(status: &Reply) -> Option<Duration> {
    let time = |mark: &str| {
        let mut lines = status.lines().iter();
        let rest = lines.find_map(|line| line.text.trim().strip_prefix(mark))?;
        milliseconds(rest.trim())
    };
    let (now, loaded) = (
        time("Current server time is")?,
        time("Last reconfiguration on")?,
    );
    Some(Duration::from_millis(now.saturating_sub(loaded)))
}

/// `2026-11-26 16:27:41.711`, in milliseconds since some day.
fn milliseconds(text: &str) -> Option<u64> {
    let (date, time) = text.split_once(' ')?;
    let mut date = date.splitn(3, '-').map(number);
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let mut time = time.splitn(3, ':');
    let (hour, minute) = (number(time.next()?)?, number(time.next()?)?);
    let (second, fraction) = match time.next()?.split_once('.') {
        Some((second, fraction)) => (number(second)?, fraction),
        None => return None, // whole seconds are too coarse to compare with a file's
    };
    let is_sane = (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && year < 10_000
        && hour < 24
        && minute < 60
        && second < 62
        && !fraction.is_empty();
    if !is_sane {
        return None;
    }
    let thousandths = number(fraction.get(..fraction.len().min(3))?)?;
    let seconds = ((days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second;
    Some(seconds * 1000 + thousandths)
}

/// Days since some day, by the civil calendar.
const fn days(year: u64, month: u64, day: u64) -> u64 {
    // The year begins in March, so that the leap day is its last; and 400 years earlier, where
    // the calendar is the same, so that nothing falls below zero.
    let (year, month) = if month > 2 {
        (year + 400, month - 3)
    } else {
        (year + 399, month + 9)
    };
    year * 365 + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day
}

fn number(text: &str) -> Option<u64> {
    let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_plain.then(|| text.parse().ok()).flatten()
}

/// The value of a constant, from the reply to `eval`.
#[must_use]
pub fn value(eval: &Reply) -> Option<u32> {
    /// `Evaluation result`.
    const VALUE: u16 = 23;
    let line = eval.lines().iter().find(|line| line.code == VALUE)?;
    line.text.trim().parse().ok()
}

/// The files that a configuration includes, as they are written there.
#[must_use]
pub fn includes(configuration: &str) -> Vec<String> {
    let text = without_comments(configuration);
    let mut found = Vec::new();
    for (at, _) in text.match_indices("include") {
        let before = text.get(..at).unwrap_or_default();
        let rest = text.get(at + "include".len()..).unwrap_or_default();
        let is_word = !before.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let quoted = rest.trim_start().strip_prefix('"');
        if let (true, Some((name, _))) = (is_word, quoted.and_then(|rest| rest.split_once('"'))) {
            found.push(name.to_owned());
        }
    }
    found
}

/// Neither `# …` nor `/* … */`. A mark within quotes is none.
fn without_comments(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    let mut is_quoted = false;
    while let Some(c) = rest.next() {
        match c {
            '"' => is_quoted = !is_quoted,
            '\n' => is_quoted = false,
            '#' if !is_quoted => {
                for skipped in rest.by_ref() {
                    if skipped == '\n' {
                        break;
                    }
                }
                kept.push('\n');
                continue;
            }
            '/' if !is_quoted && rest.peek() == Some(&'*') => {
                let mut last = ' ';
                rest.next();
                for skipped in rest.by_ref() {
                    if last == '*' && skipped == '/' {
                        break;
                    }
                    last = skipped;
                }
                kept.push(' ');
                continue;
            }
            _ => {}
        }
        kept.push(c);
    }
    kept
}

/// Whether a name is one that `*` and `?` of a pattern stand for.
#[must_use]
pub fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<_>, Vec<_>) = (pattern.chars().collect(), name.chars().collect());
    // Positions in the pattern that are reached after each character of the name.
    let mut reached = vec![false; pattern.len() + 1];
    if let Some(first) = reached.first_mut() {
        *first = true;
    }
    spread(&pattern, &mut reached);
    for c in name {
        let mut next = vec![false; pattern.len() + 1];
        for (at, wanted) in pattern.iter().enumerate() {
            if !reached.get(at).copied().unwrap_or(false) {
                continue;
            }
            let to = if *wanted == '*' { at } else { at + 1 };
            let fits = matches!(wanted, '*' | '?') || *wanted == c;
            if let (true, Some(place)) = (fits, next.get_mut(to)) {
                *place = true;
            }
        }
        reached = next;
        spread(&pattern, &mut reached);
    }
    reached.last().copied().unwrap_or(false)
}

/// A star may stand for nothing.
fn spread(pattern: &[char], reached: &mut [bool]) {
    for (at, wanted) in pattern.iter().enumerate() {
        let here = reached.get(at).copied().unwrap_or(false);
        if let (true, '*', Some(next)) = (here, wanted, reached.get_mut(at + 1)) {
            *next = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::reply::ReplyParser;
    use super::*;
    use proptest::prelude::*;

    fn status(now: &str, loaded: &str) -> Reply {
        let text = format!(
            "1000-BIRD 2.0.12\n1011-Router ID is 10.0.0.2\n Current server time is {now}\n \
             Last reboot on 2020-01-01 00:00:00.000\n Last reconfiguration on {loaded}\n\
             0013 Daemon is up and running\n"
        );
        let mut parser = ReplyParser::new();
        parser.handle_bytes(text.as_bytes()).unwrap();
        parser.poll_reply().unwrap()
    }

    #[test]
    fn the_age_of_what_is_loaded_is_read_across_midnights_and_leap_days() {
        for (now, loaded, age) in [
            ("2026-11-26 16:27:43.085", "2026-11-26 16:27:41.719", 1_366),
            ("2026-01-01 00:00:00.001", "2025-12-31 23:59:59.999", 2),
            (
                "2028-03-01 00:00:00.000",
                "2028-02-28 00:00:00.000",
                2 * 86_400_000,
            ),
            (
                "2027-03-01 00:00:00.000",
                "2027-02-28 00:00:00.000",
                86_400_000,
            ),
            // Its clock was set back.
            ("2026-11-26 16:00:00.000", "2026-11-26 17:00:00.000", 0),
        ] {
            let ago = loaded_ago(&status(now, loaded));
            assert_eq!(ago, Some(Duration::from_millis(age)), "{now} {loaded}");
        }
        for other in [
            "16:27:41",
            "26-11-2026 16:27:41",
            "2026-11-26",
            "",
            "2026-11-26 16:27:41",
        ] {
            assert_eq!(loaded_ago(&status(other, other)), None, "{other}");
        }
    }

    #[test]
    fn includes_are_found_and_comments_are_not() {
        let text = "include \"a.conf\";\n# include \"b.conf\";\n/* include \"c.conf\"; */\n\
                    log \"# no comment\"; include   \"d/*.conf\";\nmyinclude \"e\";\n";
        assert_eq!(includes(text), ["a.conf", "d/*.conf"]);
    }

    #[test]
    fn patterns_are_those_of_a_shell() {
        for (pattern, name, fits) in [
            ("*.conf", "a.conf", true),
            ("*.conf", ".conf", true),
            ("*.conf", "a.conf.bak", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*a*b*", "xaxbx", true),
            ("", "", true),
        ] {
            assert_eq!(matches(pattern, name), fits, "{pattern} {name}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "\\PC{0,60}", name in "\\PC{0,20}") {
            let _ = (milliseconds(&text), includes(&text), matches(&text, &name));
        }
    }
}
