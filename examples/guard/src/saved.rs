//! Orders from before a start, and what the file says by now.
//!
//! | saved order | `state = "active"` | `state = "removed"` |
//! |---|---|---|
//! | none, or one that has ended | – | drained by the file |
//! | an operator's | stands | stands: it may be a withdrawal |
//! | the file's own, of an earlier start | forgotten | drained by the file |
//! | one that cannot be read | stands: an operator may have spoken | the same |

use std::collections::BTreeSet;

use anycast_core::ServiceName;
use anycast_core::intent_store::file::{IntentFile, SystemClock};
use anycast_core::node::LOAD_TIMEOUT;

use crate::config::Config;
use crate::reload::BY;

/// Forgets what an earlier file ordered and this one does not, and names the services that
/// are to be drained because this one says so. Bounded in time: on a disk that does not answer
/// nothing is forgotten, and all that are removed are drained.
pub(crate) async fn settle(config: &Config) -> BTreeSet<ServiceName> {
    let removed = |wanted: bool| {
        let all = config.services.iter();
        let those = all.filter(move |service| service.is_removed == wanted);
        those
            .map(|service| service.name().clone())
            .collect::<Vec<_>>()
    };
    let (active, drained) = (removed(false), removed(true));
    let asked: BTreeSet<_> = drained.iter().cloned().collect();
    let folder = config.node.state_dir.clone();
    let work = tokio::task::spawn_blocking(move || {
        for service in &active {
            let file = IntentFile::new(&folder, service);
            if matches!(file.load(), Ok(Some(saved)) if saved.by.as_str() == BY) {
                forget(service, &file);
            }
        }
        let clocks = SystemClock::new();
        let is_operators = |service: &ServiceName| match IntentFile::new(&folder, service).load() {
            Ok(Some(saved)) => saved.by.as_str() != BY && !saved.is_over(&clocks.read()),
            Ok(None) => false,
            Err(_) => true,
        };
        let by_file = |service: &ServiceName| !is_operators(service);
        drained.into_iter().filter(by_file).collect::<BTreeSet<_>>()
    });
    match tokio::time::timeout(LOAD_TIMEOUT, work).await {
        Ok(Ok(drained)) => drained,
        Ok(Err(_)) | Err(_) => {
            tracing::error!("saved orders cannot be looked at; those of an earlier file stand");
            asked
        }
    }
}

fn forget(service: &ServiceName, file: &IntentFile) {
    match file.remove() {
        Ok(()) => tracing::info!(%service, "no longer removed in the configuration"),
        Err(error) => {
            tracing::error!(%service, %error, "removed in an earlier configuration, which cannot be forgotten: undrain it");
        }
    }
}
