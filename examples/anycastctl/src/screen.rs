//! The terminal: its size, its colours, and what is written to it.

use std::io::{self, ErrorKind, IsTerminal, Write};

use clap::ValueEnum;

use crate::text::Text;

/// Clears to the end of the line; ECMA-48 EL.
const CLEAR_LINE: &str = "\x1b[K";
/// Moves to the first character; ECMA-48 CUP.
const HOME: &str = "\x1b[H";
/// Clears what is below; ECMA-48 ED.
const CLEAR_BELOW: &str = "\x1b[J";

/// When colours are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Colour {
    /// On a terminal, unless `NO_COLOR` is set or TERM is dumb.
    #[default]
    Auto,
    Always,
    Never,
}

/// Where the output goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Screen {
    colour: bool,
    terminal: bool,
    width: Option<usize>,
    height: Option<usize>,
}

impl Screen {
    pub(crate) fn of_stdout(colour: Colour) -> Self {
        let stdout = io::stdout();
        let terminal = stdout.is_terminal();
        let size = rustix::termios::tcgetwinsize(&stdout).ok();
        let positive = |n: u16| Some(usize::from(n)).filter(|n| *n > 0);
        let variable = |name| std::env::var(name).ok()?.parse().ok();
        let said = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self {
            colour: match colour {
                Colour::Always => true,
                Colour::Never => false,
                Colour::Auto => terminal && !said("NO_COLOR") && !dumb,
            },
            terminal,
            width: size
                .and_then(|size| positive(size.ws_col))
                .or_else(|| variable("COLUMNS")),
            height: size.and_then(|size| positive(size.ws_row)),
        }
    }

    /// With the size that the terminal has now.
    pub(crate) fn resized(self) -> Self {
        let now = Self::of_stdout(Colour::Never);
        Self {
            width: now.width,
            height: now.height,
            ..self
        }
    }

    /// The columns that a table may take; `None`: as many as it likes.
    pub(crate) const fn width(&self) -> Option<usize> {
        self.width
    }

    /// Writes the text. False when nobody reads any more (`| head`).
    pub(crate) fn write(&self, text: &Text) -> io::Result<bool> {
        let mut lines = text.render(self.colour).join("\n");
        lines.push('\n');
        write(&lines)
    }

    /// Writes the text over what was there before, as much of it as fits; where there is no
    /// terminal, below it.
    pub(crate) fn redraw(&self, mut text: Text) -> io::Result<bool> {
        if !self.terminal {
            text.blank();
            return self.write(&text);
        }
        // One line for the cursor.
        text.clip(self.height.unwrap_or(24).saturating_sub(1));
        let mut lines = HOME.to_owned();
        for line in text.render(self.colour) {
            lines.push_str(&line);
            lines.push_str(CLEAR_LINE);
            lines.push('\n');
        }
        lines.push_str(CLEAR_BELOW);
        write(&lines)
    }
}

/// Writes to standard output. False when nobody reads any more.
pub(crate) fn write(text: &str) -> io::Result<bool> {
    let mut output = io::stdout().lock();
    match output
        .write_all(text.as_bytes())
        .and_then(|()| output.flush())
    {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error),
    }
}
