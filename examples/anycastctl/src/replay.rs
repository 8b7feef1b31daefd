//! `anycastctl replay`: what a recorded node decided, when and why, and whether the machine of
//! this build decides the same.
//!
//! It asks no node and changes nothing.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anycast_core::record::{MAX_RECORD, RecordError, Replay, ReplayDecision, ReplayStep};

use crate::screen::Screen;
use crate::text::{Span, Style, Table, Text};
use crate::view;

/// Most of an input that is shown on a terminal, in characters.
const MAX_CAUSE: usize = 32;

/// Why a record was not replayed, or not to the same. Each is one line that names the file, and
/// the line where there is one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReplayError {
    #[error("{}: cannot be read: {source}", file.display())]
    Read { file: PathBuf, source: io::Error },
    #[error("{}:{line}: {reason}", file.display())]
    Line {
        file: PathBuf,
        line: usize,
        reason: String,
    },
    #[error("{}: {reason}", file.display())]
    Record { file: PathBuf, reason: String },
    #[error(
        "{}:{line}: the record says {recorded}, the replay comes to {replayed}: another version \
         decided it, or the record was changed",
        file.display()
    )]
    Differs {
        file: PathBuf,
        line: usize,
        recorded: String,
        replayed: String,
    },
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
}

/// Replays a file and shows it; `all`: with the inputs that changed no decision.
pub(crate) fn run(file: &Path, all: bool, screen: Screen) -> Result<(), ReplayError> {
    let text = read(file).map_err(|source| ReplayError::Read {
        file: file.to_owned(),
        source,
    })?;
    let replay = Replay::run(&text, Instant::now()).map_err(|error| failed(file, error))?;
    screen.write(&show(&replay, all, screen.width()))?;
    match replay.first_difference() {
        None => Ok(()),
        Some(step) => Err(ReplayError::Differs {
            file: file.to_owned(),
            line: step.line,
            recorded: clean(&step.recorded),
            replayed: step.replayed.clone(),
        }),
    }
}

/// Reads no more than a record can have, and one byte to tell that it is more.
fn read(file: &Path) -> io::Result<String> {
    let limit = MAX_RECORD as u64 + 1;
    let mut text = Vec::new();
    if file == Path::new("-") {
        io::stdin().lock().take(limit).read_to_end(&mut text)?;
    } else {
        File::open(file)?.take(limit).read_to_end(&mut text)?;
    }
    String::from_utf8(text).map_err(|_| io::Error::other("it is no UTF-8 text"))
}

fn failed(file: &Path, error: RecordError) -> ReplayError {
    let file = file.to_owned();
    if let RecordError::Line { line, reason } = &error {
        let (line, reason) = (*line, clean(reason));
        return ReplayError::Line { file, line, reason };
    }
    if let RecordError::Checks(error) = &error {
        let (line, reason) = (1, clean(&error.to_string()));
        return ReplayError::Line { file, line, reason };
    }
    let reason = clean(&error.to_string());
    ReplayError::Record { file, reason }
}

/// One line, whatever the file says.
fn clean(text: &str) -> String {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().take(1024).map(clean).collect()
}

/// A line of the timeline.
struct Row {
    at: Duration,
    cause: Span,
    decided: Span,
    why: Span,
}

impl Row {
    fn of(decision: &ReplayDecision) -> Self {
        let preference = decision.preference.to_string();
        let decided = format!("{preference} ({})", decision.state);
        Self {
            at: decision.at,
            cause: match &decision.input {
                Some(input) => input.as_str().into(),
                None => Span::new(Style::Dim, "(time)"),
            },
            decided: Span::new(view::preference(&preference).style(), &decided),
            why: decision.reason.as_str().into(),
        }
    }
}

fn show(replay: &Replay, all: bool, width: Option<usize>) -> Text {
    let mut text = Text::default();
    let (service, node) = (&replay.header.service, &replay.header.node);
    text.line([Span::new(
        Style::Head,
        &format!("{service} on {node}, replayed"),
    )]);
    text.blank();
    let mut table = Table::new(["TIME", "INPUT", "DECIDED", "WHY"]);
    for row in rows(replay, all) {
        let time = format!("+{:.3} s", row.at.as_secs_f64());
        let cause = if width.is_some() {
            short(row.cause)
        } else {
            row.cause
        };
        table.row([time.into(), cause, row.decided, row.why]);
    }
    text.append(table.layout(width));
    text.blank();
    text.line([verdict(replay)]);
    if replay.dropped > 0 {
        let more = format!(
            "the record was full: {} later inputs are not in it",
            replay.dropped
        );
        text.line([Span::new(Style::Warn, &more)]);
    }
    text
}

/// Decisions, and the inputs that brought none about where they are wanted, by time.
fn rows(replay: &Replay, all: bool) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    let mut decisions = replay.decisions.iter().peekable();
    for step in &replay.steps {
        let mut changed = false;
        while let Some(decision) = decisions.next_if(|decision| decision.line <= step.line) {
            changed |= decision.input.is_some();
            rows.push(Row::of(decision));
        }
        if !step.agrees() {
            rows.push(difference(step));
        } else if all && !changed {
            rows.push(Row {
                at: step.at,
                cause: step.input.as_str().into(),
                decided: view::dash(),
                why: Span::default(),
            });
        }
    }
    rows
}

/// What fits beside the reasons, which say it whole.
fn short(span: Span) -> Span {
    if span.text().chars().count() <= MAX_CAUSE {
        return span;
    }
    let text: String = span.text().chars().take(MAX_CAUSE - 1).collect();
    Span::new(span.style(), &format!("{text}…"))
}

fn difference(step: &ReplayStep) -> Row {
    let recorded = format!("recorded: {}", clean(&step.recorded));
    Row {
        at: step.at,
        cause: step.input.as_str().into(),
        decided: Span::new(Style::Bad, &step.replayed),
        why: Span::new(Style::Bad, &recorded),
    }
}

fn verdict(replay: &Replay) -> Span {
    let inputs = replay.steps.len();
    let decisions = replay.decisions.len();
    let differing = replay.steps.iter().filter(|step| !step.agrees()).count();
    if differing == 0 {
        let same = format!("as recorded: {decisions} decisions, {inputs} moments compared");
        Span::new(Style::Good, &same)
    } else {
        let other = format!("NOT as recorded: {differing} of {inputs} moments differ");
        Span::new(Style::Bad, &other)
    }
}
