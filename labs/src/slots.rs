//! How many labs of one test executable run at once, however many threads the tests have.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// So many slots; a `static` of the tests that share them.
#[derive(Debug)]
pub struct Slots {
    free: Mutex<usize>,
    freed: Condvar,
}

/// One of them, free again when it is dropped, also by a lab that fails.
#[derive(Debug)]
pub struct Slot<'a>(&'a Slots);

impl Slots {
    /// So many, at least one.
    #[must_use]
    pub const fn new(count: usize) -> Self {
        Self {
            free: Mutex::new(if count == 0 { 1 } else { count }),
            freed: Condvar::new(),
        }
    }

    /// Waits for one, for as long as it takes.
    pub fn take(&self) -> Slot<'_> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free: MutexGuard<'_, usize> = self
            .freed
            .wait_while(free, |free| *free == 0)
            .unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        Slot(self)
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.freed.notify_one();
    }
}
