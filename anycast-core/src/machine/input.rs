//! A machine's inputs as data: for records of what happened, replays and models.

use std::time::{Duration, Instant};

use super::{CheckId, CheckRule, Intent, Machine, PeerReport, Policy, Readiness, Turn};
use crate::health::Verdict;
use crate::service::{CheckName, NodeName};

/// One input of a machine, as data.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Input {
    /// A check spoke.
    Verdict(CheckId, Verdict),
    /// An input of readiness spoke.
    Readiness(CheckName, Readiness),
    /// The operator's intent.
    Intent(Intent),
    /// A peer said how it is.
    Peer(NodeName, PeerReport),
    /// The members of the fleet.
    Members(Vec<NodeName>),
    /// A peer's grant, until then.
    Grant(NodeName, Instant),
    /// A peer asked for a grant.
    GrantRequest(NodeName, Duration),
    /// What the fleet says of this node's turn.
    Turn(Turn),
    /// The list of checks was replaced.
    Checks(Vec<CheckRule>),
    /// The policy was replaced.
    Policy(Policy),
    /// Time passed.
    Timeout,
    /// The boost ran out by itself.
    Expiry,
    /// The process died and was started again; what was in force then is in the next step.
    Restart,
}

impl Machine {
    /// Takes an input given as data; the same as its `handle_*` method. [`Input::Restart`] is
    /// not an input of *this* machine: only time passes. A refused list of checks changes
    /// nothing, and the answer to a request for a grant is given up.
    pub fn handle(&mut self, now: Instant, input: &Input) {
        match input {
            Input::Verdict(check, verdict) => self.handle_verdict(now, *check, verdict.clone()),
            Input::Readiness(name, readiness) => {
                self.handle_readiness(now, name, readiness.clone());
            }
            Input::Intent(intent) => self.handle_intent(now, intent.clone()),
            Input::Peer(peer, report) => self.handle_peer(now, peer, report.clone()),
            Input::Members(members) => self.handle_members(now, members),
            Input::Grant(peer, until) => self.handle_grant(now, peer.clone(), *until),
            Input::GrantRequest(peer, duration) => {
                self.handle_grant_request(now, peer.clone(), *duration);
            }
            Input::Turn(turn) => self.handle_turn(now, turn.clone()),
            Input::Checks(checks) => {
                if self.handle_checks(now, checks).is_err() {
                    self.handle_timeout(now);
                }
            }
            Input::Policy(policy) => self.handle_policy(now, *policy),
            Input::Timeout | Input::Restart => self.handle_timeout(now),
            Input::Expiry => self.handle_expiry(now),
        }
    }
}
