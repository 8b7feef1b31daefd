//! What nodes tell each other. Times travel as ages and durations: no clock is shared.

use std::time::Duration;

#[derive(Debug, Clone, Copy)]
pub(crate) enum Message {
    State {
        preferred: bool,
        draining: bool,
        failing_for: Option<Duration>,
    },
    /// Will you promise not to withdraw for so long?
    Request { id: u64, duration: Duration },
    /// Yes, counted from the request; for no time: no, and no longer.
    Grant { id: u64, duration: Duration },
}
