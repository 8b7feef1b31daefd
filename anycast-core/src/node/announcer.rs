//! The announcer's own task: one action at a time, bounded in time.

use tokio::sync::mpsc;

use super::ANNOUNCER_TIMEOUT;
use crate::announce::{AnnounceError, Announcer, Applied, Observation};
use crate::health::Reason;
use crate::reconcile::Action;
use crate::service::ServiceAddresses;

/// What the announcer's task reports to the decision loop.
pub(super) enum Report {
    Applied(Result<Applied, Reason>),
    Observed(Result<Observation, Reason>),
    Disturbed,
}

/// Runs until the decision loop drops either channel.
///
/// `disturbed` is only waited for while no action is under way: what happened meanwhile is
/// found by the observation that every applied change is followed by.
pub(super) async fn run(
    mut announcer: Box<dyn Announcer>,
    addresses: ServiceAddresses,
    mut actions: mpsc::Receiver<Action>,
    reports: mpsc::Sender<Report>,
) {
    loop {
        let action = tokio::select! {
            action = actions.recv() => match action {
                Some(action) => Some(action),
                None => return,
            },
            () = announcer.disturbed() => None,
        };
        let report = match action {
            None => Report::Disturbed,
            Some(Action::Apply(decision)) => {
                Report::Applied(bounded("apply", announcer.apply(&decision)).await)
            }
            Some(Action::Observe) => {
                Report::Observed(bounded("observe", announcer.observe(&addresses)).await)
            }
        };
        if reports.send(report).await.is_err() {
            return;
        }
    }
}

async fn bounded<T>(
    what: &str,
    work: impl Future<Output = Result<T, AnnounceError>>,
) -> Result<T, Reason> {
    match tokio::time::timeout(ANNOUNCER_TIMEOUT, work).await {
        Ok(result) => result.map_err(|error| full_text(&error).into()),
        Err(_) => Err(format!("{what} did not end within {ANNOUNCER_TIMEOUT:?}").into()),
    }
}

/// An error with its sources, in one line, each said once.
pub(super) fn full_text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let said = error.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        source = error.source();
    }
    text
}
