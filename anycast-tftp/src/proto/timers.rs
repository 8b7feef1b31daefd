//! Deadlines of sessions, in a heap.
//!
//! A deadline that moves later, which every packet causes, costs nothing: the entry stays
//! where it is, and when it comes up early it is put back. Setting an earlier one costs
//! O(log n) and leaves the old entry behind, until its own time comes: then it is ignored, as
//! is that of a session that ended. So the heap holds one entry for each session, and one for
//! each time that a deadline moved forward or a session ended, until that old deadline. So
//! while a transfer runs, deadlines are near; the one of opening the file, once a session, and
//! those of peers that have been silent for a while may be far.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

use super::table::SessionId;

#[derive(Debug, Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(Instant, SessionId)>>,
}

/// The timer of one session.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Timer {
    deadline: Option<Instant>,
    scheduled: Option<Instant>,
}

impl Timers {
    /// Sets the deadline of a session.
    pub(super) fn set(&mut self, id: SessionId, timer: &mut Timer, deadline: Instant) {
        timer.deadline = Some(deadline);
        if timer.scheduled.is_none_or(|scheduled| scheduled > deadline) {
            timer.scheduled = Some(deadline);
            self.heap.push(Reverse((deadline, id)));
        }
    }

    /// When to look again. It may turn out to be early.
    pub(super) fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// The next entry that is due, whatever it means now.
    pub(super) fn pop(&mut self, now: Instant) -> Option<(Instant, SessionId)> {
        self.next().filter(|at| *at <= now)?;
        self.heap.pop().map(|Reverse(entry)| entry)
    }

    /// Whether an entry of [`pop`](Self::pop) is the session's deadline; puts it back when it
    /// came up early.
    pub(super) fn is_due(
        &mut self,
        id: SessionId,
        timer: &mut Timer,
        entry: Instant,
        now: Instant,
    ) -> bool {
        if timer.scheduled != Some(entry) {
            return false;
        }
        timer.scheduled = None;
        match timer.deadline {
            Some(deadline) if deadline <= now => {
                timer.deadline = None;
                true
            }
            Some(deadline) => {
                self.set(id, timer, deadline);
                false
            }
            None => false,
        }
    }
}
