//! Styled lines and tables, for a terminal of any width or for a pipe.
//!
//! What comes from a node is cleaned of control characters, so that nothing in it steers the
//! terminal.

use std::fmt::Write;

/// A column narrower than this is not worth wrapping: the line is left to the terminal.
const MIN_WRAP: usize = 24;
/// Space between two columns.
const GAP: usize = 2;

/// What a piece of text means; colours are given to meanings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Style {
    #[default]
    Plain,
    /// A heading.
    Head,
    /// Of less importance.
    Dim,
    Good,
    Warn,
    Bad,
}

impl Style {
    /// The SGR parameters (ECMA-48); none for plain text.
    const fn sgr(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Head => Some("1"),
            Self::Dim => Some("2"),
            Self::Good => Some("32"),
            Self::Warn => Some("33"),
            Self::Bad => Some("1;31"),
        }
    }
}

/// Text of one meaning.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Span {
    style: Style,
    text: String,
}

impl Span {
    pub(crate) fn new(style: Style, text: &str) -> Self {
        let clean = |c: char| if c.is_control() { ' ' } else { c };
        Self {
            style,
            text: text.chars().map(clean).collect(),
        }
    }

    pub(crate) fn plain(text: &str) -> Self {
        Self::new(Style::Plain, text)
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(crate) const fn style(&self) -> Style {
        self.style
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }
}

impl From<&str> for Span {
    fn from(text: &str) -> Self {
        Self::plain(text)
    }
}

impl From<String> for Span {
    fn from(text: String) -> Self {
        Self::plain(&text)
    }
}

/// Lines of spans.
#[derive(Debug, Clone, Default)]
pub(crate) struct Text {
    lines: Vec<Vec<Span>>,
}

impl Text {
    pub(crate) fn line(&mut self, spans: impl IntoIterator<Item = Span>) {
        self.lines.push(spans.into_iter().collect());
    }

    pub(crate) fn blank(&mut self) {
        self.lines.push(Vec::new());
    }

    pub(crate) fn append(&mut self, other: Self) {
        self.lines.extend(other.lines);
    }

    /// Keeps the first lines, and says how many are gone.
    pub(crate) fn clip(&mut self, height: usize) {
        if self.lines.len() > height {
            let kept = height.saturating_sub(1);
            let gone = self.lines.len() - kept;
            self.lines.truncate(kept);
            let more = format!("… {gone} more lines");
            self.line([Span::new(Style::Dim, &more)]);
        }
    }

    /// The lines with or without colours, each with its line feed.
    pub(crate) fn render(&self, colour: bool) -> Vec<String> {
        let line = |spans: &Vec<Span>| {
            let mut line = String::new();
            for span in spans {
                match span.style.sgr().filter(|_| colour) {
                    // Writing to a string does not fail.
                    Some(sgr) => {
                        let _ = write!(line, "\x1b[{sgr}m{}\x1b[0m", span.text);
                    }
                    None => line.push_str(&span.text),
                }
            }
            line
        };
        self.lines.iter().map(line).collect()
    }
}

/// Left-aligned columns; the last one is wrapped where the terminal ends.
#[derive(Debug)]
pub(crate) struct Table<const N: usize> {
    rows: Vec<[Span; N]>,
}

impl<const N: usize> Table<N> {
    pub(crate) fn new(head: [&str; N]) -> Self {
        Self {
            rows: vec![head.map(|title| Span::new(Style::Head, title))],
        }
    }

    /// One without a heading.
    pub(crate) const fn bare() -> Self {
        Self { rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, cells: [Span; N]) {
        self.rows.push(cells);
    }

    /// The table in this width; `None`: as wide as it is.
    pub(crate) fn layout(self, width: Option<usize>) -> Text {
        let widths: [usize; N] = std::array::from_fn(|column| {
            let cells = self.rows.iter().map(|row| row[column].width());
            cells.max().unwrap_or(0)
        });
        let indent: usize = widths.iter().take(N - 1).map(|width| width + GAP).sum();
        let room = width
            .map(|width| width.saturating_sub(indent))
            .filter(|room| *room >= MIN_WRAP);
        let mut text = Text::default();
        for row in self.rows {
            let mut line = Vec::new();
            for (column, cell) in row.into_iter().enumerate() {
                if column + 1 < N {
                    let padding = " ".repeat(widths[column] + GAP - cell.width());
                    line.extend([cell, Span::plain(&padding)]);
                    continue;
                }
                let mut parts = wrap(&cell.text, room).into_iter();
                let first = parts.next().unwrap_or_default();
                line.push(Span::new(cell.style, &first));
                trim_end(&mut line);
                text.line(std::mem::take(&mut line));
                for part in parts {
                    let indent = Span::plain(&" ".repeat(indent));
                    text.line([indent, Span::new(cell.style, &part)]);
                }
            }
        }
        text
    }
}

/// A line does not end in spaces.
fn trim_end(line: &mut Vec<Span>) {
    while let Some(last) = line.last_mut() {
        last.text.truncate(last.text.trim_end().len());
        if !last.text.is_empty() {
            return;
        }
        line.pop();
    }
}

/// Breaks at spaces, and a word that is longer than a line where it must.
fn wrap(text: &str, room: Option<usize>) -> Vec<String> {
    let Some(room) = room else {
        return vec![text.to_owned()];
    };
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in text.split(' ') {
        let mut word: Vec<char> = word.chars().collect();
        if used > 0 && used + 1 + word.len() > room {
            lines.push(String::new());
            used = 0;
        }
        while word.len() > room {
            let rest = word.split_off(room);
            push(&mut lines, &word);
            lines.push(String::new());
            word = rest;
        }
        if used > 0 {
            push(&mut lines, &[' ']);
            used += 1;
        }
        push(&mut lines, &word);
        used += word.len();
    }
    lines
}

fn push(lines: &mut [String], chars: &[char]) {
    if let Some(line) = lines.last_mut() {
        line.extend(chars);
    }
}

/// Seconds as one or two units: `0.4s`, `12s`, `3m 12s`, `5h 3m`, `12d 4h`.
pub(crate) fn age(seconds: Option<f64>) -> String {
    let Some(seconds) = seconds.filter(|s| s.is_finite() && *s >= 0.0) else {
        return "-".to_owned();
    };
    if seconds < 10.0 {
        return format!("{seconds:.1}s");
    }
    let seconds = std::time::Duration::try_from_secs_f64(seconds).map_or(u64::MAX, |d| d.as_secs());
    match (
        seconds / 86_400,
        seconds / 3600 % 24,
        seconds / 60 % 60,
        seconds % 60,
    ) {
        (0, 0, 0, s) => format!("{s}s"),
        (0, 0, m, s) => format!("{m}m {s}s"),
        (0, h, m, _) => format!("{h}h {m}m"),
        (d, h, _, _) => format!("{d}d {h}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(table: Table<3>, width: Option<usize>) -> String {
        table.layout(width).render(false).join("\n")
    }

    fn table() -> Table<3> {
        let mut table = Table::new(["A", "BB", "WHY"]);
        let long = "one two three four five six seven eight nine ten";
        table.row(["x".into(), "".into(), long.into()]);
        table.row(["yyy".into(), "z".into(), "".into()]);
        table
    }

    #[test]
    fn ages_are_short() {
        let shown = |seconds| age(Some(seconds));
        assert_eq!(shown(0.42), "0.4s");
        assert_eq!(shown(12.9), "12s");
        assert_eq!(shown(192.0), "3m 12s");
        assert_eq!(shown(18_180.0), "5h 3m");
        assert_eq!(shown(1_051_200.0), "12d 4h");
        assert_eq!(age(None), "-");
        assert_eq!(shown(f64::INFINITY), "-");
        assert_eq!(shown(-1.0), "-");
        assert!(shown(1e300).ends_with('h'));
    }

    #[test]
    fn without_a_width_a_row_is_a_line() {
        assert_eq!(
            shown(table(), None),
            "A    BB  WHY\n\
             x        one two three four five six seven eight nine ten\n\
             yyy  z"
        );
    }

    #[test]
    fn the_last_column_is_wrapped_at_the_width() {
        let text = shown(table(), Some(40));
        assert_eq!(
            text,
            "A    BB  WHY\n\
             x        one two three four five six\n         \
             seven eight nine ten\n\
             yyy  z"
        );
        // Too narrow to be wrapped: left as it is.
        assert_eq!(shown(table(), Some(20)), shown(table(), None));
    }

    #[test]
    fn no_word_is_lost_and_no_line_is_too_long() {
        for room in 1..60 {
            let text = "a bb  ccc dddddddddddddddddddddddddddddddd e  ff g ";
            let lines = wrap(text, Some(room));
            assert!(lines.iter().all(|line| line.chars().count() <= room));
            let letters = |text: &str| text.replace(' ', "");
            assert_eq!(letters(&lines.concat()), letters(text));
        }
    }

    #[test]
    fn colours_are_only_given_when_wanted_and_nothing_else_steers() {
        let mut text = Text::default();
        text.line([Span::new(Style::Bad, "x\x1b[2Jy\n"), "z".into()]);
        assert_eq!(text.render(false), ["x [2Jy z"]);
        assert_eq!(text.render(true), ["\x1b[1;31mx [2Jy \x1b[0mz"]);
    }

    #[test]
    fn a_text_is_clipped_to_a_height() {
        let mut text = Text::default();
        for line in 0..10 {
            text.line([Span::plain(&line.to_string())]);
        }
        text.clip(10);
        assert_eq!(text.render(false).len(), 10);
        text.clip(4);
        assert_eq!(text.render(false), ["0", "1", "2", "… 7 more lines"]);
    }
}
