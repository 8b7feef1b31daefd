//! System calls that may never return, such as `statvfs` on a dead NFS server.
//!
//! Each runs in tokio's pool of blocking threads, one at a time for each [`Blocking`]: while
//! one is stuck no second is begun, so a check costs at most one stuck thread. A stuck call
//! cannot be ended from here; its thread comes back when the kernel lets it.
//!
//! **Cancellation**: when the future is dropped the call goes on, its result is dropped when
//! it returns, and until then the place stays taken.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

/// The place for one blocking call.
#[derive(Debug, Clone)]
pub(crate) struct Blocking(Arc<Semaphore>);

/// Why there is no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stuck {
    /// An earlier call has still not returned.
    Earlier,
    /// This call has not returned in time.
    Late,
    /// The call panicked, or the runtime is shutting down.
    Lost,
}

impl Stuck {
    /// The sentence for a reason, after what was called.
    pub(crate) const fn describe(self) -> &'static str {
        match self {
            Self::Earlier => "hangs since an earlier probe; no second one is begun",
            Self::Late => "has not returned in time",
            Self::Lost => "failed inside this daemon",
        }
    }
}

impl Blocking {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }

    /// Runs `call`, and waits for its result until `deadline`.
    pub(crate) async fn run<T, F>(&self, deadline: Instant, call: F) -> Result<T, Stuck>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let place = match timeout_at(deadline, Arc::clone(&self.0).acquire_owned()).await {
            Ok(Ok(place)) => place,
            Ok(Err(_)) => return Err(Stuck::Lost),
            Err(_) => return Err(Stuck::Earlier),
        };
        let task = tokio::task::spawn_blocking(move || {
            let result = call();
            drop(place);
            result
        });
        match timeout_at(deadline, task).await {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(_)) => Err(Stuck::Lost),
            Err(_) => Err(Stuck::Late),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(50)
    }

    fn late() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[tokio::test]
    async fn a_stuck_call_takes_one_thread_and_no_second() {
        let blocking = Blocking::new();
        let (release, held) = mpsc::channel::<()>();
        let stuck = blocking.run(soon(), move || held.recv().is_ok()).await;
        assert_eq!(stuck, Err(Stuck::Late));
        for _ in 0..3 {
            let second = blocking.run(soon(), || panic!("a second call was begun"));
            assert_eq!(second.await, Err::<(), _>(Stuck::Earlier));
        }
        release.send(()).unwrap();
        assert_eq!(blocking.run(late(), || 7).await, Ok(7));
    }

    #[tokio::test]
    async fn a_dropped_call_keeps_its_place_until_it_returns() {
        let blocking = Blocking::new();
        let (release, held) = mpsc::channel::<()>();
        let dropped = blocking.run(late(), move || held.recv().is_ok());
        assert!(timeout_at(soon(), dropped).await.is_err());
        assert_eq!(
            blocking.run(soon(), || ()).await,
            Err::<(), _>(Stuck::Earlier)
        );
        release.send(()).unwrap();
        assert_eq!(blocking.run(late(), || ()).await, Ok(()));
    }

    #[tokio::test]
    async fn a_panic_is_contained() {
        let blocking = Blocking::new();
        let lost = blocking.run(late(), || panic!("on purpose")).await;
        assert_eq!(lost, Err::<(), _>(Stuck::Lost));
        assert_eq!(blocking.run(late(), || ()).await, Ok(()));
    }
}
