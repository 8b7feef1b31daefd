//! One reading of `/proc` for all checks that look for a program.
//!
//! At most one reading runs at a time in this process, and one that is young enough serves
//! every check, so that a thousand checks that miss their process read `/proc` at most ten
//! times a second.

use std::io;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::procfs::Table;
use crate::health::local::blocking::{Blocking, Stuck};

/// How old a table may be in which a process is looked for.
pub(super) const FRESH: Duration = Duration::from_millis(100);

static READING: LazyLock<Blocking> = LazyLock::new(Blocking::new);
static LAST: Mutex<Option<(Instant, Arc<Table>)>> = Mutex::new(None);

/// The table of processes, at most `max_age` old.
pub(super) async fn table(
    max_age: Duration,
    deadline: Instant,
) -> Result<io::Result<Arc<Table>>, Stuck> {
    if let Some(table) = last(max_age) {
        return Ok(Ok(table));
    }
    let read = move || {
        // Somebody else's reading may have ended while this one waited for its place.
        if let Some(table) = last(max_age) {
            return Ok(table);
        }
        let begun = Instant::now();
        let table = Arc::new(Table::read()?);
        *LAST.lock().unwrap_or_else(PoisonError::into_inner) = Some((begun, Arc::clone(&table)));
        Ok(table)
    };
    READING.run(deadline, read).await
}

fn last(max_age: Duration) -> Option<Arc<Table>> {
    let last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    let (begun, table) = last.as_ref()?;
    (begun.elapsed() <= max_age).then(|| Arc::clone(table))
}
