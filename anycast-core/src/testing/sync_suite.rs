//! The suite that every [`sync::Sync`](crate::sync::Sync) must pass, ours and outsiders'.
//!
//! Implement [`SyncBench`] for a node and one peer that you can cut off from each other, and
//! call [`run`] from a test inside a tokio runtime with time enabled. Each rule is a sentence
//! of the trait's documentation; a [`Violation`] quotes it.

#![allow(
    clippy::disallowed_methods,
    reason = "the suite measures how long a real implementation takes"
)]

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use crate::sync::{Forced, Lag, Status, Sync, SyncError};
pub use crate::testing::Violation;
use crate::testing::violation::{cut, ensure, violated};

/// How long `status` and `lag` may take, and how often a busy machine may miss that.
const AT_ONCE: Duration = Duration::from_millis(100);
const TRIES: u32 = 20;
/// What `force` may take with the few items of this suite.
const PATIENCE: Duration = Duration::from_secs(60);
/// Items at the peer, and the size of each.
const ITEMS: usize = 8;
const SIZE: usize = 4096;
/// A `force` dropped after this many polls is tried, from 0 up.
const CUT_AFTER_AT_MOST: usize = 24;

/// Items by name.
pub type Items = BTreeMap<String, Vec<u8>>;

/// A node under test and a peer, with nothing in either at the start.
#[async_trait]
pub trait SyncBench: Send {
    /// The node's synchronisation, as after a restart of its process.
    async fn node(&mut self) -> Arc<dyn Sync>;

    /// All that the node holds.
    async fn here(&mut self) -> Items;

    /// Puts an item into the node's copy, as the service there would.
    async fn put_here(&mut self, name: &str, content: &[u8]);

    /// All that the peer holds.
    async fn there(&mut self) -> Items;

    /// Puts an item into the peer's copy, as the service there would.
    async fn put_there(&mut self, name: &str, content: &[u8]);

    /// Deletes an item at the peer on purpose, as the service there would.
    async fn delete_there(&mut self, name: &str);

    /// The peer loses all that it holds without anybody having deleted anything: a new disk.
    async fn lose_there(&mut self);

    /// Waits until the node has heard what the peer holds now, and has fetched none of it.
    /// False where this implementation cannot tell without fetching.
    async fn hear(&mut self) -> bool;

    /// Cuts the node off from the peer, or joins them again; returns when it is so.
    async fn cut_off(&mut self, cut_off: bool);

    /// Spoils the node's local store, or mends it. False where that cannot be done.
    async fn spoil(&mut self, spoilt: bool) -> bool;
}

/// Tries every rule.
///
/// # Errors
/// The first [`Violation`].
pub async fn run(bench: &mut dyn SyncBench) -> Result<(), Violation> {
    let mut trial = Trial {
        node: bench.node().await,
        bench,
    };
    trial.lag().await?;
    trial.complete().await?;
    trial.both_ways().await?;
    trial.deletion().await?;
    trial.loss().await?;
    trial.cut_off().await?;
    trial.cancellation().await?;
    trial.spoilt().await
}

struct Trial<'a> {
    node: Arc<dyn Sync>,
    bench: &'a mut dyn SyncBench,
}

fn content(name: &str) -> Vec<u8> {
    name.bytes().cycle().take(SIZE).collect()
}

impl Trial<'_> {
    async fn fill(&mut self, prefix: &str) {
        for index in 0..ITEMS {
            let name = format!("{prefix}-{index}");
            self.bench.put_there(&name, &content(&name)).await;
        }
    }

    /// Something is missing here, and that is known.
    async fn lag(&mut self) -> Result<(), Violation> {
        self.fill("lag").await;
        let heard = self.bench.hear().await;
        let before = self.bench.here().await;
        let mut said = Vec::new();
        for _ in 0..3 {
            said.push((self.status().await?, self.lag_now().await?));
        }
        ensure(
            before == self.bench.here().await,
            "status and lag are idempotent",
            || "the node's items changed".to_owned(),
        )?;
        if heard {
            for (status, lag) in &said {
                behind(status, *lag)?;
            }
        }
        Ok(())
    }

    async fn complete(&mut self) -> Result<(), Violation> {
        let rule = "force reconciles completely with every reachable peer";
        let first = self.force(rule).await?;
        let (here, there) = (self.bench.here().await, self.bench.there().await);
        ensure(here == there && here.len() >= ITEMS, rule, || {
            format!("{} items here, {} there", here.len(), there.len())
        })?;
        let fetched = usize::try_from(first.fetched).unwrap_or(usize::MAX);
        ensure(fetched == ITEMS, "force says what was done", || {
            format!("{ITEMS} were missing: {first:?}")
        })?;
        self.nothing_to_do().await?;
        let lag = self.lag_now().await?;
        ensure(lag == Lag::None, rule, || format!("afterwards {lag:?}"))
    }

    async fn nothing_to_do(&mut self) -> Result<(), Violation> {
        let rule = "force is idempotent: a second call finds nothing to do";
        let again = self.force(rule).await?;
        let idle = (again.fetched, again.sent, again.removed) == (0, 0, 0);
        ensure(idle, rule, || format!("{again:?}"))
    }

    async fn both_ways(&mut self) -> Result<(), Violation> {
        let rule = "force reconciles completely with every reachable peer";
        self.bench.put_here("ours", &content("ours")).await;
        let forced = self.force(rule).await?;
        let there = self.bench.there().await;
        ensure(there.contains_key("ours"), rule, || {
            format!("an item of this node did not reach the peer: {forced:?}")
        })?;
        ensure(forced.sent == 1, "force says what was done", || {
            format!("one was to be sent: {forced:?}")
        })
    }

    async fn deletion(&mut self) -> Result<(), Violation> {
        let rule = "an explicit deletion removes";
        self.bench.delete_there("lag-0").await;
        let forced = self.force(rule).await?;
        let gone = !self.bench.here().await.contains_key("lag-0");
        ensure(gone && forced.removed == 1, rule, || {
            format!("gone: {gone}, {forced:?}")
        })?;
        let back = self.bench.there().await.contains_key("lag-0");
        ensure(!back, rule, || "it came back at the peer".to_owned())?;
        self.nothing_to_do().await
    }

    async fn loss(&mut self) -> Result<(), Violation> {
        let rule = "never removes anything because a peer's list is absent or empty (F10)";
        let before = self.bench.here().await;
        self.bench.lose_there().await;
        self.force(rule).await?;
        let after = self.bench.here().await;
        ensure(before == after, rule, || {
            format!("{} items before, {} after", before.len(), after.len())
        })
    }

    async fn cut_off(&mut self) -> Result<(), Violation> {
        let before = self.bench.here().await;
        self.bench.cut_off(true).await;
        self.status().await?;
        let lag = self.lag_now().await?;
        let rule = "Unreachable when there is nobody to reconcile with";
        let forced = self.forced().await?;
        let refused = matches!(forced, Err(SyncError::Unreachable { .. }));
        ensure(refused, rule, || format!("{forced:?}, lag {lag:?}"))?;
        let kept = before == self.bench.here().await;
        ensure(
            kept,
            "no peer could be reached: nothing was changed",
            || "the node's items changed".to_owned(),
        )?;
        self.bench.cut_off(false).await;
        self.force("a peer that is back is reconciled with").await?;
        Ok(())
    }

    async fn cancellation(&mut self) -> Result<(), Violation> {
        let rule = "dropping the future stops the work between two items; every item is either \
                    whole or absent";
        for polls in 0..CUT_AFTER_AT_MOST {
            let prefix = format!("cut{polls}");
            self.fill(&prefix).await;
            let node = Arc::clone(&self.node);
            let _ = tokio::time::timeout(PATIENCE, cut(polls, node.force())).await;
            let whole = |(name, found): (&String, &Vec<u8>)| *found == content(name);
            let here = self.bench.here().await;
            ensure(here.iter().all(whole), rule, || {
                format!("an item in part, after {polls} polls")
            })?;
            let _ = cut(polls, node.status()).await;
            let _ = cut(polls, node.lag()).await;
            if polls % 2 == 1 {
                self.node = self.bench.node().await;
            }
            let rule = "what was dropped half-way is completed by the next";
            self.force(rule).await?;
            let (here, there) = (self.bench.here().await, self.bench.there().await);
            ensure(here == there, rule, || {
                format!("{} items here, {} there", here.len(), there.len())
            })?;
        }
        Ok(())
    }

    async fn spoilt(&mut self) -> Result<(), Violation> {
        if !self.bench.spoil(true).await {
            return Ok(());
        }
        let rule = "SyncError::Store when the local state cannot be read";
        let status = self.node.status().await;
        let store = matches!(status, Err(SyncError::Store { .. }));
        ensure(store, rule, || format!("{status:?}"))?;
        let lag = self.node.lag().await;
        let store = matches!(lag, Err(SyncError::Store { .. }));
        ensure(store, rule, || format!("{lag:?}"))?;
        self.bench.spoil(false).await;
        self.status().await?;
        Ok(())
    }

    async fn status(&self) -> Result<Status, Violation> {
        let status = at_once(|| self.node.status()).await?;
        let names = || status.peers.iter().map(|peer| &peer.peer);
        ensure(names().is_sorted(), "peers in order of name", || {
            format!("{:?}", status.peers)
        })?;
        let said = !status.reason.as_str().trim().is_empty();
        ensure(said, "why, in words for an operator", || {
            "an empty reason".to_owned()
        })?;
        for peer in &status.peers {
            sensible(peer.lag)?;
        }
        Ok(status)
    }

    async fn lag_now(&self) -> Result<Lag, Violation> {
        let lag = at_once(|| self.node.lag()).await?;
        sensible(lag)?;
        Ok(lag)
    }

    async fn forced(&self) -> Result<Result<Forced, SyncError>, Violation> {
        let forced = tokio::time::timeout(PATIENCE, self.node.force()).await;
        forced.map_err(|_| violated("force ends", format!("not within {PATIENCE:?}")))
    }

    async fn force(&self, rule: &'static str) -> Result<Forced, Violation> {
        let forced = self.forced().await?;
        forced.map_err(|error| violated(rule, error.to_string()))
    }
}

/// [`ITEMS`] are known to be missing.
fn behind(status: &Status, lag: Lag) -> Result<(), Violation> {
    let rule = "lag: how far this node is behind the furthest copy it knows of";
    let items = |lag: Lag| match lag {
        Lag::Behind { items, .. } => usize::try_from(items).unwrap_or(usize::MAX),
        Lag::None | Lag::Unknown => 0,
    };
    ensure(items(lag) == ITEMS, rule, || {
        format!("{ITEMS} items are known to be missing, and it says {lag:?}")
    })?;
    let furthest = status.peers.iter().map(|peer| items(peer.lag)).max();
    ensure(furthest == Some(ITEMS), rule, || {
        format!("of its peers it says {:?}", status.peers)
    })
}

fn sensible(lag: Lag) -> Result<(), Violation> {
    let nothing = matches!(lag, Lag::Behind { items: 0, .. });
    ensure(!nothing, "missing items: at least one", || {
        format!("{lag:?}")
    })
}

/// Asks until the answer came in time once.
async fn at_once<T, F>(ask: impl Fn() -> F) -> Result<T, Violation>
where
    F: Future<Output = Result<T, SyncError>>,
{
    let rule = "answers from memory, within 100 ms, without asking peers";
    let mut took = Duration::ZERO;
    for _ in 0..TRIES {
        let start = Instant::now();
        let answer = tokio::time::timeout(PATIENCE, ask()).await;
        took = start.elapsed();
        match answer {
            Ok(Ok(answer)) if took <= AT_ONCE => return Ok(answer),
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(violated(rule, error.to_string())),
            Err(_) => break,
        }
    }
    Err(violated(rule, format!("{took:?}")))
}

#[cfg(test)]
#[allow(
    clippy::wildcard_enum_match_arm,
    reason = "a fake goes wrong in one way, and right in all others"
)]
mod tests;
