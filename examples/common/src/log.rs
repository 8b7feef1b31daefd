//! The log: to stderr, by a thread of its own, so that a pipe or a terminal that is not read
//! delays no packet.
//!
//! At most [`QUEUE`] lines wait. When that is full, lines are dropped, and one line says how
//! many as soon as the reader has caught up. What waits at the end is still written, unless
//! the reader takes longer than [`LAST_WORDS`].

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

/// Most lines that wait to be written. When full, further ones are dropped and counted.
const QUEUE: usize = 1024;

/// How long the end of the process waits for the log.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How lines look.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

enum Message {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

/// Takes lines in and never waits.
#[derive(Clone)]
struct Lines {
    queue: SyncSender<Message>,
    lost: Arc<AtomicU64>,
}

impl Write for Lines {
    /// A line is written by one call.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.queue.try_send(Message::Line(line.to_vec())).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes what waits when it is dropped.
#[derive(Debug)]
pub struct LogGuard {
    queue: SyncSender<Message>,
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        let end = Instant::now() + LAST_WORDS;
        let (done, written) = sync_channel(1);
        let mut message = Message::Flush(done);
        while let Err(TrySendError::Full(back)) = self.queue.try_send(message) {
            if Instant::now() >= end {
                return;
            }
            message = back;
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = written.recv_timeout(end.saturating_duration_since(Instant::now()));
    }
}

/// Starts the log; what is logged, the variable RUST_LOG says. Starts a thread.
///
/// # Errors
/// The thread could not be started.
pub fn to_stderr(format: LogFormat) -> io::Result<LogGuard> {
    let (queue, waiting) = sync_channel(QUEUE);
    let lines = Lines {
        queue: queue.clone(),
        lost: Arc::default(),
    };
    let lost = Arc::clone(&lines.lost);
    std::thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || write_lines(&waiting, &lost))?;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(move || lines.clone())
        .with_ansi(io::stderr().is_terminal());
    match format {
        LogFormat::Human => log.init(),
        LogFormat::Json => log.json().init(),
    }
    Ok(LogGuard { queue })
}

fn write_lines(waiting: &Receiver<Message>, lost: &AtomicU64) {
    let mut stderr = io::stderr();
    while let Ok(message) = waiting.recv() {
        let mut next = Some(message);
        let mut flushed = Vec::new();
        while let Some(message) = next {
            match message {
                // There is nowhere to say that the log cannot be written.
                Message::Line(line) => drop(stderr.write_all(&line)),
                Message::Flush(done) => flushed.push(done),
            }
            next = waiting.try_recv().ok();
            if next.is_none() {
                // There is room now for a line that says so.
                let lines = lost.swap(0, Ordering::Relaxed);
                if lines > 0 {
                    tracing::warn!(
                        lines,
                        "log lines were lost: whoever reads the log is too slow"
                    );
                    next = waiting.try_recv().ok();
                }
            }
        }
        for done in flushed {
            let _ = done.try_send(());
        }
    }
}
