//! The operator's orders: what can be ordered, when it is refused, and what is answered.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use crate::announce::Preference;
use crate::health::Reason;
use crate::intent_store::OrderKind;
use crate::machine::{PanicPolicy, Standing, State};
use crate::node::{self, NodeError, NodeHandle, PeerStatus, Saved, ServiceStatus, Snapshot};
use crate::reconcile::Confirmation;
use crate::service::{NodeName, ServiceName};

/// Longest time that an answer waits for an order to be in force. The order stands when it is
/// not by then; the answer says so.
pub const SETTLE: Duration = Duration::from_secs(2);
/// Longest time that an order can be given for: ten years.
const MAX_FOR: Duration = Duration::from_secs(10 * 365 * 86_400);
/// Shortest.
const MIN_FOR: Duration = Duration::from_secs(1);

/// What can be ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verb {
    Drain,
    Undrain,
    Withdraw,
}

impl Verb {
    pub(super) const ALL: [Self; 3] = [Self::Drain, Self::Undrain, Self::Withdraw];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Drain => "drain",
            Self::Undrain => "undrain",
            Self::Withdraw => "withdraw",
        }
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verb| verb.name() == name)
    }

    /// Whether this is what was ordered, and known to be in force.
    fn is_in_force(self, snapshot: &Snapshot) -> bool {
        let reached = match self {
            Self::Drain => snapshot.state == State::Drained,
            Self::Withdraw => snapshot.state == State::Withdrawn,
            Self::Undrain => !snapshot.state.is_ordered(),
        };
        reached && snapshot.confirmation == Confirmation::Confirmed
    }
}

/// Why an order was not carried out. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub(super) enum OrderError {
    #[error(
        "the body cannot be read: {0}; it is a JSON object such as {{\"for\": \"2h\", \"reason\": \"kernel update\", \"force\": false}}"
    )]
    Body(serde_json::Error),
    #[error("for = {text:?} is not a duration between 1s and 10 years, such as 30m or 2h")]
    For { text: String },
    #[error("{key} has no effect on undrain; leave it out")]
    NoEffect { key: &'static str },
    #[error(
        "no other node is known to be preferred for {service}: {order} would leave none; raise \
         another node first, or give force"
    )]
    LastPreferred {
        service: ServiceName,
        order: &'static str,
    },
    #[error(transparent)]
    Node(#[from] NodeError),
}

/// The body of a request.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    r#for: Option<String>,
    reason: Option<String>,
    #[serde(default)]
    force: bool,
}

/// An order, as it was asked for.
#[derive(Debug, Clone)]
pub(super) struct Order {
    pub(super) service: ServiceName,
    pub(super) verb: Verb,
    lasts: Option<Duration>,
    pub(super) reason: Reason,
    force: bool,
}

impl Order {
    /// Reads the body; an empty one is `{}`.
    pub(super) fn parse(service: ServiceName, verb: Verb, body: &[u8]) -> Result<Self, OrderError> {
        let body: Body = if body.trim_ascii().is_empty() {
            Body::default()
        } else {
            serde_json::from_slice(body).map_err(OrderError::Body)?
        };
        if verb == Verb::Undrain {
            for (given, key) in [(body.r#for.is_some(), "for"), (body.force, "force")] {
                if given {
                    return Err(OrderError::NoEffect { key });
                }
            }
        }
        let lasts = body.r#for.map(|text| {
            humantime::parse_duration(&text)
                .ok()
                .filter(|lasts| (MIN_FOR..=MAX_FOR).contains(lasts))
                .ok_or_else(|| OrderError::For {
                    text: text.chars().take(64).collect(),
                })
        });
        let reason = body.reason.as_deref().map(str::trim);
        Ok(Self {
            service,
            verb,
            lasts: lasts.transpose()?,
            reason: reason
                .filter(|reason| !reason.is_empty())
                .unwrap_or("no reason given")
                .into(),
            force: body.force,
        })
    }

    /// Carries it out, and tells what is in force then. Runs to its end in a task of its own:
    /// a client that goes away must not leave half an order behind.
    pub(super) async fn carry_out(self, node: &NodeHandle, by: &str) -> Result<Answer, OrderError> {
        let mut warnings = Vec::new();
        if self.verb != Verb::Undrain {
            let status = status(node, &self.service)?;
            match Leaves::of(status.preference, &status.fleet) {
                Leaves::Others => {}
                Leaves::NobodyKnows => warnings.push(
                    "this node knows no other: whether one of them is preferred was not checked"
                        .to_owned(),
                ),
                Leaves::Nobody if self.force => warnings.push(
                    "no other node is known to be preferred; done all the same, by force"
                        .to_owned(),
                ),
                Leaves::Nobody => {
                    return Err(OrderError::LastPreferred {
                        service: self.service,
                        order: self.verb.name(),
                    });
                }
            }
        }
        let (saved, why_not) = match give(node, &self, by).await? {
            Saved::Yes => (true, None),
            Saved::Pending => (false, Some("it is still being written".into())),
            Saved::No(reason) => (false, Some(reason)),
        };
        tracing::info!(
            service = %self.service,
            order = self.verb.name(),
            by,
            reason = %self.reason,
            lasts = ?self.lasts,
            force = self.force,
            saved,
            "operator's order"
        );
        if let Some(why) = why_not {
            warnings.push(format!("it does not survive a restart: {why}"));
        }
        self.settle(node).await;
        let status = status(node, &self.service)?;
        let waits = status.state == State::Auto(Standing::Leaving);
        let waits = waits.then(|| status.reason.to_string());
        let trouble = status.trouble().or(waits);
        if let Some(trouble) = &trouble {
            warnings.push(format!("ordered, but not in force yet: {trouble}"));
        }
        Ok(Answer {
            node: node.status().node,
            service: self.service,
            order: self.verb,
            reason: self.reason,
            by: by.into(),
            for_s: self.lasts.map(|lasts| lasts.as_secs_f64()),
            saved,
            preference: status.preference,
            in_force: trouble.is_none(),
            warnings,
            status,
        })
    }

    async fn settle(&self, node: &NodeHandle) {
        let Ok(mut state) = node.watch(&self.service) else {
            return;
        };
        let wait = state.wait_for(|snapshot| self.verb.is_in_force(snapshot));
        // What is not in force by then is told as such; a loop that has ended as well.
        let _ = timeout(SETTLE, wait).await;
    }
}

/// What is preferred once this node is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaves {
    /// Another node, or as many as before: this one is not preferred.
    Others,
    /// This node was told of no other.
    NobodyKnows,
    /// No other node was lately heard to be preferred.
    Nobody,
}

impl Leaves {
    fn of(here: Preference, fleet: &[PeerStatus]) -> Self {
        let fresh = PanicPolicy::default().fresh_for.as_secs_f64();
        let stays = |peer: &PeerStatus| {
            peer.preferred == Some(true)
                && peer.draining != Some(true)
                && peer.heard_age_s.is_some_and(|age| age < fresh)
        };
        if here != Preference::Preferred || fleet.iter().any(stays) {
            Self::Others
        } else if fleet.is_empty() {
            Self::NobodyKnows
        } else {
            Self::Nobody
        }
    }
}

/// Hands an order to the decision loop, and tells whether it survives a restart.
async fn give(node: &NodeHandle, order: &Order, by: &str) -> Result<Saved, NodeError> {
    let kind = match order.verb {
        Verb::Drain => OrderKind::Demote,
        Verb::Withdraw => OrderKind::Withdraw,
        Verb::Undrain => return Ok(node.undrain(&order.service).await?.saved),
    };
    let given = node::Order {
        kind,
        reason: order.reason.clone(),
        by: by.into(),
        lasts: order.lasts,
    };
    Ok(node.order(&order.service, given).await?.saved)
}

fn status(node: &NodeHandle, service: &ServiceName) -> Result<ServiceStatus, NodeError> {
    let services = node.status().services;
    let found = services.into_iter().find(|status| status.name == *service);
    found.ok_or_else(|| NodeError::UnknownService {
        service: service.clone(),
    })
}

/// What was done, and what is in force now.
#[derive(Debug, Serialize)]
pub(super) struct Answer {
    node: NodeName,
    service: ServiceName,
    order: Verb,
    reason: Reason,
    by: Reason,
    #[serde(skip_serializing_if = "Option::is_none")]
    for_s: Option<f64>,
    saved: bool,
    preference: Preference,
    in_force: bool,
    warnings: Vec<String>,
    status: ServiceStatus,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(age: Option<f64>, preferred: bool, draining: bool) -> PeerStatus {
        PeerStatus {
            node: "fra1".parse().unwrap(),
            heard_age_s: age,
            preferred: age.map(|_| preferred),
            draining: age.map(|_| draining),
            failing_age_s: None,
        }
    }

    #[test]
    fn only_a_fresh_preferred_peer_that_stays_takes_over() {
        let here = Preference::Preferred;
        let stays = peer(Some(1.0), true, false);
        let not = [
            peer(None, true, false),
            peer(Some(3600.0), true, false),
            peer(Some(1.0), false, false),
            peer(Some(1.0), true, true),
        ];
        assert_eq!(Leaves::of(here, &[]), Leaves::NobodyKnows);
        assert_eq!(Leaves::of(here, &not), Leaves::Nobody);
        let with = [&not[..], &[stays]].concat();
        assert_eq!(Leaves::of(here, &with), Leaves::Others);
        // One that is not preferred takes nothing away.
        assert_eq!(Leaves::of(Preference::Demoted, &not), Leaves::Others);
    }

    #[test]
    fn an_empty_body_is_an_order_without_wishes() {
        for body in [&b""[..], b" \n", b"{}", b"{\"reason\": \"  \"}"] {
            let order = Order::parse("x".parse().unwrap(), Verb::Drain, body).unwrap();
            assert_eq!(order.reason.as_str(), "no reason given");
            assert_eq!((order.lasts, order.force), (None, false));
        }
    }
}
