//! A flood of requests that come to nothing does not flood the log.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    reason = "tests drive real sockets"
)]

mod common;

use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use anycast_tftp::server::Settings;
use common::{Client, TestServer, pattern, rrq};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber, span};

/// What is logged at INFO and above.
#[derive(Debug, Default, Clone, Copy)]
struct Seen {
    refused: u64,
    complete: u64,
    suppressed: u64,
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Line {
    result: String,
    suppressed: Option<u64>,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "result" {
            self.result = format!("{value:?}");
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "suppressed" {
            self.suppressed = Some(value);
        }
    }
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("anycast_tftp") && *metadata.level() <= Level::INFO
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        let mut seen = self.0.lock().unwrap();
        if let Some(suppressed) = line.suppressed {
            seen.suppressed += suppressed;
        } else if line.result.starts_with("refused") {
            seen.refused += 1;
        } else if line.result == "complete" {
            seen.complete += 1;
        }
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[test]
fn what_anybody_can_cause_is_summed_up_and_what_moved_bytes_is_not() {
    const FLOOD: u64 = 2000;

    let lines = Lines::default();
    tracing::subscriber::set_global_default(lines.clone()).unwrap();
    let (server, _) = TestServer::of_memory(&[("f", pattern(10))], Settings::new());
    let client = Client::new(server.address());
    for index in 0..FLOOD {
        assert_eq!(client.ask_error(&rrq(&format!("missing-{index}"), &[])), 1);
    }
    for _ in 0..100 {
        assert_eq!(
            Client::bound("127.0.0.2:0", server.address()).fetch("f", &[]),
            pattern(10)
        );
    }
    server.wait_for("transfers", |stats| {
        (stats.engine.refused_not_found, stats.engine.completed_reads) == (FLOOD, 100)
    });
    server.handle.shutdown();
    let end = std::time::Instant::now() + common::PATIENCE;
    let all = || *lines.0.lock().unwrap();
    while all().refused + all().suppressed < FLOOD {
        assert!(std::time::Instant::now() < end, "{:?}", all());
        std::thread::yield_now();
    }
    let all = all();
    assert_eq!(all.refused + all.suppressed, FLOOD, "{all:?}");
    assert!(all.suppressed > FLOOD / 2, "{all:?}");
    assert_eq!(all.complete, 100);
}
