//! The suite on copies in memory: it passes a right synchronisation and names each wrong one.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard};

use super::*;
use crate::service::NodeName;
use crate::sync::PeerStatus;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    AsksPeers,
    IsSlow,
    FetchesWhenAsked,
    SaysCaughtUp,
    MissesNothing,
    DisordersPeers,
    FetchesInPart,
    CountsWrongly,
    RepeatsItself,
    SendsNothing,
    KeepsTheDeleted,
    RemovesTheUnlisted,
    ForcesAlone,
    TearsItems,
    HidesABadStore,
    SaysNothing,
}

#[derive(Debug, Default)]
struct Copies {
    here: Items,
    there: Items,
    deleted: BTreeSet<String>,
    heard: BTreeSet<String>,
    cut_off: bool,
    spoilt: bool,
}

struct InMemory {
    copies: Arc<Mutex<Copies>>,
    fault: Fault,
}

impl InMemory {
    fn copies(&self) -> MutexGuard<'_, Copies> {
        self.copies.lock().unwrap()
    }

    fn store(&self) -> Result<(), SyncError> {
        if self.copies().spoilt && self.fault != Fault::HidesABadStore {
            return Err(SyncError::Store {
                data_set: "files".to_owned(),
                source: "spoilt".into(),
            });
        }
        if self.copies().cut_off && self.fault == Fault::AsksPeers {
            return Err(unreachable());
        }
        Ok(())
    }

    fn behind(&self) -> Lag {
        let copies = self.copies();
        let missing = copies
            .heard
            .iter()
            .filter(|name| !copies.here.contains_key(*name));
        let age = Duration::from_secs(1);
        match missing.count() {
            0 if self.fault == Fault::MissesNothing => Lag::Behind { items: 0, age },
            0 => Lag::None,
            _ if self.fault == Fault::SaysCaughtUp => Lag::None,
            items => Lag::Behind {
                items: items.try_into().unwrap(),
                age,
            },
        }
    }
}

fn unreachable() -> SyncError {
    SyncError::Unreachable {
        data_set: "files".to_owned(),
        reason: "cut off".into(),
    }
}

#[async_trait]
impl Sync for InMemory {
    async fn status(&self) -> Result<Status, SyncError> {
        self.store()?;
        if self.fault == Fault::FetchesWhenAsked {
            let there = self.copies().there.clone();
            self.copies().here.extend(there);
        }
        let reason = if self.fault == Fault::SaysNothing {
            ""
        } else {
            "as found"
        };
        let mut status = Status::new(true, reason);
        for (peer, lag) in [("ams1", self.behind()), ("fra1", Lag::Unknown)] {
            let peer = NodeName::new(peer).unwrap();
            status.peers.push(PeerStatus { peer, lag });
        }
        if self.fault == Fault::DisordersPeers {
            status.peers.reverse();
        }
        Ok(status)
    }

    async fn lag(&self) -> Result<Lag, SyncError> {
        self.store()?;
        if self.fault == Fault::IsSlow {
            tokio::time::sleep(AT_ONCE * 2).await;
        }
        Ok(self.behind())
    }

    async fn force(&self) -> Result<Forced, SyncError> {
        self.store()?;
        if self.copies().cut_off && self.fault != Fault::ForcesAlone {
            return Err(unreachable());
        }
        let mut done = Forced::default();
        let deleted = self.copies().deleted.clone();
        for name in deleted {
            if self.fault != Fault::KeepsTheDeleted && self.copies().here.remove(&name).is_some() {
                done.removed += 1;
            }
        }
        let there = self.copies().there.clone();
        if self.fault == Fault::RemovesTheUnlisted && there.is_empty() {
            self.copies().here.clear();
        }
        for (name, content) in &there {
            done.compared += 1;
            if self.copies().here.get(name) == Some(content) {
                continue;
            }
            if self.fault == Fault::TearsItems {
                self.copies()
                    .here
                    .insert(name.clone(), content[..9].to_vec());
            }
            tokio::task::yield_now().await;
            if self.fault == Fault::FetchesInPart && name.ends_with("-7") {
                continue;
            }
            self.copies().here.insert(name.clone(), content.clone());
            done.fetched += u64::from(self.fault != Fault::CountsWrongly);
        }
        let here = self.copies().here.clone();
        for (name, content) in here {
            let deleted = self.copies().deleted.contains(&name);
            let lacks = !deleted && !self.copies().there.contains_key(&name);
            if lacks && self.fault != Fault::SendsNothing {
                self.copies().there.insert(name, content);
                done.sent += 1;
            }
        }
        done.sent += u64::from(self.fault == Fault::RepeatsItself);
        Ok(done)
    }
}

struct Bench {
    copies: Arc<Mutex<Copies>>,
    fault: Fault,
}

impl Bench {
    fn copies(&self) -> MutexGuard<'_, Copies> {
        self.copies.lock().unwrap()
    }
}

#[async_trait]
impl SyncBench for Bench {
    async fn node(&mut self) -> Arc<dyn Sync> {
        let copies = Arc::clone(&self.copies);
        let fault = self.fault;
        Arc::new(InMemory { copies, fault })
    }

    async fn here(&mut self) -> Items {
        self.copies().here.clone()
    }

    async fn put_here(&mut self, name: &str, content: &[u8]) {
        self.copies().here.insert(name.to_owned(), content.to_vec());
    }

    async fn there(&mut self) -> Items {
        self.copies().there.clone()
    }

    async fn put_there(&mut self, name: &str, content: &[u8]) {
        self.copies()
            .there
            .insert(name.to_owned(), content.to_vec());
    }

    async fn delete_there(&mut self, name: &str) {
        self.copies().there.remove(name);
        self.copies().deleted.insert(name.to_owned());
    }

    async fn lose_there(&mut self) {
        self.copies().there.clear();
    }

    async fn hear(&mut self) -> bool {
        let heard = self.copies().there.keys().cloned().collect();
        self.copies().heard = heard;
        true
    }

    async fn cut_off(&mut self, cut_off: bool) {
        self.copies().cut_off = cut_off;
    }

    async fn spoil(&mut self, spoilt: bool) -> bool {
        self.copies().spoilt = spoilt;
        true
    }
}

async fn outcome(fault: Fault) -> Result<(), Violation> {
    let copies = Arc::default();
    run(&mut Bench { copies, fault }).await
}

#[tokio::test(start_paused = true)]
async fn a_right_synchronisation_passes() {
    outcome(Fault::None).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_wrong_synchronisation_is_named() {
    for (fault, rule) in [
        (Fault::AsksPeers, "without asking peers"),
        (Fault::IsSlow, "within 100 ms"),
        (Fault::FetchesWhenAsked, "status and lag are idempotent"),
        (Fault::SaysCaughtUp, "behind the furthest copy"),
        (Fault::MissesNothing, "at least one"),
        (Fault::DisordersPeers, "peers in order of name"),
        (Fault::FetchesInPart, "reconciles completely"),
        (Fault::CountsWrongly, "says what was done"),
        (Fault::RepeatsItself, "finds nothing to do"),
        (Fault::SendsNothing, "reconciles completely"),
        (Fault::KeepsTheDeleted, "explicit deletion removes"),
        (Fault::RemovesTheUnlisted, "absent or empty (F10)"),
        (Fault::ForcesAlone, "nobody to reconcile with"),
        (Fault::TearsItems, "either whole or absent"),
        (Fault::HidesABadStore, "local state cannot be read"),
        (Fault::SaysNothing, "words for an operator"),
    ] {
        let violation = outcome(fault).await.expect_err(&format!("{fault:?}"));
        let violation = violation.to_string();
        assert!(violation.contains(rule), "{fault:?}: {violation}");
    }
}
