//! What is written to the terminal: lines, and below them a progress bar. Where standard
//! output is no terminal, the bar becomes a line at each quarter.

use std::io::{self, IsTerminal, Write};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Lines and at most one bar. Dropping it removes the bar.
#[derive(Debug)]
pub(crate) struct Screen {
    terminal: bool,
    bar: Option<ProgressBar>,
    /// Quarters told of the bar, where there is no terminal.
    quarters: u64,
    total: u64,
}

impl Screen {
    pub(crate) fn new() -> Self {
        Self {
            terminal: io::stdout().is_terminal(),
            bar: None,
            quarters: 0,
            total: 0,
        }
    }

    pub(crate) fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| write_line(text)),
            None => write_line(text),
        }
    }

    /// Begins a bar of `total` bytes, at 0.
    pub(crate) fn begin(&mut self, total: u64) {
        self.total = total;
        self.quarters = 0;
        if !self.terminal {
            return;
        }
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stdout());
        let template = "   {bar:40} {percent:>3} %  {decimal_bytes} of {decimal_total_bytes}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        self.bar = Some(bar);
    }

    /// `bytes` have arrived; fewer than before when the transfer was begun again.
    pub(crate) fn progress(&mut self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(bytes);
            return;
        }
        let quarters = (bytes * 4).checked_div(self.total).unwrap_or(0);
        if quarters > self.quarters {
            write_line(&format!("   {:>3} % of the file", quarters * 25));
        }
        self.quarters = quarters;
    }

    pub(crate) fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.end();
    }
}

/// A reader that went away is no reason to stop.
fn write_line(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}

/// One line on standard error.
pub(crate) fn complain(reason: &str) {
    let _ = writeln!(io::stderr(), "quickstart: {reason}");
}

/// The inside was killed; on a terminal its bar may stand in the line that we are in.
pub(crate) fn interrupted() {
    if io::stdout().is_terminal() {
        write_line("");
    }
    complain("interrupted; nothing is left behind");
}

/// More than a line on standard error, such as logs.
pub(crate) fn dump(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}
