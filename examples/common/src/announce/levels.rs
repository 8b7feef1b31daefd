//! How a level shows in what a routing daemon announces.

use anycast_announce::attributes::{Community, Expression, MetricType};
use serde::Deserialize;

use super::{AnnounceTable, Fault};

/// `{ preferred = 200, demoted = 50 }`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Levels {
    /// Of a preferred node.
    pub preferred: u32,
    /// Of a demoted node.
    pub demoted: u32,
}

/// The longest AS path that is taken for a sensible one.
const LONGEST_PATH: u32 = 64;

impl AnnounceTable {
    /// The attribute that was chosen; None: local preference, by role.
    pub(super) fn expression(&self) -> Result<Option<Expression>, Fault> {
        let given = [
            (self.local_pref.is_some(), "local_pref"),
            (self.med.is_some(), "med"),
            (self.prepend.is_some(), "prepend"),
            (self.community.is_some(), "community"),
            (self.ospf_metric1.is_some(), "ospf_metric1"),
            (self.ospf_metric2.is_some(), "ospf_metric2"),
        ];
        let mut given = given.into_iter().filter(|(given, _)| *given);
        let first = given.next();
        if let (Some((_, first)), Some((_, second))) = (first, given.next()) {
            let reason = format!("{first} says already how a level shows; remove one of the two");
            return Err(Fault::new(second, &reason));
        }
        if let Some(Levels { preferred, demoted }) = self.local_pref {
            let expression = Expression::LocalPref { preferred, demoted };
            return ordered(
                "local_pref",
                expression,
                "demoted must be lower than preferred",
            );
        }
        if let Some(Levels { preferred, demoted }) = self.med {
            let expression = Expression::Med { preferred, demoted };
            let reason = "demoted must be higher than preferred: the lower MED is the better";
            return ordered("med", expression, reason);
        }
        if let Some(levels) = self.prepend {
            if levels.demoted > LONGEST_PATH {
                let reason = format!("a path of {}; at most {LONGEST_PATH}", levels.demoted);
                return Err(Fault::new("prepend", &reason));
            }
            let length = |count| usize::try_from(count).unwrap_or(usize::MAX);
            let expression = Expression::Prepend {
                preferred: length(levels.preferred),
                demoted: length(levels.demoted),
            };
            return ordered(
                "prepend",
                expression,
                "demoted must be longer than preferred",
            );
        }
        let types = [
            (self.ospf_metric1, "ospf_metric1", MetricType::One),
            (self.ospf_metric2, "ospf_metric2", MetricType::Two),
        ];
        for (levels, key, kind) in types {
            if let Some(Levels { preferred, demoted }) = levels {
                let expression = Expression::OspfMetric {
                    kind,
                    preferred,
                    demoted,
                };
                let reason = "demoted must be higher than preferred, since the lower metric is \
                              the better, and at most 16777214: a route of 16777215 is none";
                return ordered(key, expression, reason);
            }
        }
        self.community.as_deref().map(community).transpose()
    }
}

fn ordered(
    key: &'static str,
    expression: Expression,
    reason: &'static str,
) -> Result<Option<Expression>, Fault> {
    if expression.is_ordered() {
        Ok(Some(expression))
    } else {
        Err(Fault::new(key, &reason))
    }
}

fn community(text: &str) -> Result<Expression, Fault> {
    let halves = text.split_once(':');
    let parsed = halves.and_then(|(high, low)| {
        let half = |text: &str| {
            let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
            is_plain.then(|| text.parse().ok()).flatten()
        };
        Some(Community(half(high)?, half(low)?))
    });
    parsed.map(Expression::Community).ok_or_else(|| {
        let shown: String = text.chars().take(32).collect();
        let reason = format!(
            "{shown:?} is no community: write two numbers up to 65535, such as \"65535:0\" \
             (GRACEFUL_SHUTDOWN)"
        );
        Fault::new("community", &reason)
    })
}
