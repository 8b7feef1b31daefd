//! Checks made of checks: all, any, quorum, weighted, not.
//!
//! A [`Combination`] is a rule over children; what it [builds](Combination::build) is itself a
//! [`HealthCheck`] and may be a child of another.
//!
//! # What the whole says
//!
//! Three values, as Kleene has them: a child that is `Unknown` might be either. The whole is
//! `Unhealthy` only where the children that are known to fail suffice whatever the others are,
//! `Healthy` only where those known to be well do, else `Unknown`. So a broken checker never
//! makes the whole fail.
//!
//! | rule | `Healthy` | `Unhealthy` |
//! |---|---|---|
//! | all | every child | one child |
//! | any | one child | every child |
//! | quorum *n* of *m* | *n* children | more than *m − n* |
//! | weighted, threshold *t* of total *w* | weights of *t* | weights of more than *w − t* |
//! | not | the child is unhealthy | the child is healthy |
//!
//! The evidence is conclusive where the children that are conclusively gone suffice alone;
//! never for *not*. Reasons name the children, those that decide first.
//!
//! # How the children run
//!
//! All at once, within the task of the whole: a probe takes as long as its slowest child. Each
//! gets seven eighths of the whole's time-out, or its own if that is shorter, so that one that
//! meets a silent service can say so before the whole's time is over. A child that has said
//! nothing [`CUT`] after the whole's time-out is cut off.
//!
//! A child that is cut off or panics is `Unknown`, is dropped and built afresh for the next
//! probe; its siblings are neither delayed nor disturbed. As any check, a child must not block
//! its thread: that would hold up the whole, which its supervisor then reports as `Unknown`.
//!
//! # Changes that are learnt at once
//!
//! [`changed`](HealthCheck::changed) waits for every child's. A verdict that a child pushes
//! replaces its last one, and the whole is judged again over the last verdicts of all. It is
//! reported when it says something else than before or is conclusive.
//!
//! **Cancellation**: both futures may be dropped at any await. What a child pushed by then is
//! kept.

mod run;
#[cfg(test)]
#[cfg(feature = "testing")]
mod tests;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use self::run::Combined;

use super::{BuildCheck, Evidence, HealthCheck, MAX_REASON_CHARS, Verdict};
use crate::service::CheckName;

/// Most children of one combination.
pub const MAX_CHILDREN: usize = 64;
/// How long after the whole's time-out a child may still answer: less than the driver allows
/// the whole.
pub const CUT: Duration = Duration::from_millis(100);

/// One child: what it is called in reasons, and how it is built.
#[derive(Clone)]
pub struct Child {
    name: CheckName,
    weight: NonZeroU32,
    timeout: Option<Duration>,
    build: BuildCheck,
}

impl Child {
    /// A child of weight 1 that may use the time that the whole leaves it.
    #[must_use]
    pub const fn new(name: CheckName, build: BuildCheck) -> Self {
        Self {
            name,
            weight: NonZeroU32::MIN,
            timeout: None,
            build,
        }
    }

    /// Sets how much it counts for [`Combination::weighted`]; no other rule looks at it.
    #[must_use]
    pub const fn with_weight(mut self, weight: NonZeroU32) -> Self {
        self.weight = weight;
        self
    }

    /// Gives it less time than the whole leaves it.
    #[must_use]
    pub const fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }
}

impl std::fmt::Debug for Child {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Child")
            .field("name", &self.name)
            .field("weight", &self.weight)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// Why children cannot be combined.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CombineError {
    /// No children.
    #[error("there is nothing to combine; name at least one check")]
    Empty,
    /// More than [`MAX_CHILDREN`].
    #[error("{count} checks are more than {MAX_CHILDREN}; combine some of them first")]
    TooMany {
        /// How many.
        count: usize,
    },
    /// Two children of one name.
    #[error("two of its checks are called {name}; give each a name of its own")]
    Twice {
        /// The name.
        name: CheckName,
    },
    /// A quorum or a threshold of none, or of more than there is.
    #[error("{wanted} must be between 1 and {total}, which is all there is")]
    OutOfReach {
        /// What was asked for.
        wanted: u64,
        /// What all children together amount to.
        total: u64,
    },
}

/// A rule over children. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Combination {
    rule: Rule,
    children: Arc<[Child]>,
}

/// Every rule but `not` is a threshold over weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    All,
    Any,
    Quorum(u64),
    Weighted(u64),
    Not,
}

impl Combination {
    /// Healthy while every child is.
    ///
    /// # Errors
    /// [`CombineError`].
    pub fn all(children: Vec<Child>) -> Result<Self, CombineError> {
        Self::checked(Rule::All, children)
    }

    /// Healthy while at least one child is.
    ///
    /// # Errors
    /// [`CombineError`].
    pub fn any(children: Vec<Child>) -> Result<Self, CombineError> {
        Self::checked(Rule::Any, children)
    }

    /// Healthy while at least `n` children are.
    ///
    /// # Errors
    /// [`CombineError`].
    pub fn quorum(n: u32, children: Vec<Child>) -> Result<Self, CombineError> {
        Self::checked(Rule::Quorum(n.into()), children)
    }

    /// Healthy while the weights of healthy children come to at least `threshold`.
    ///
    /// # Errors
    /// [`CombineError`].
    pub fn weighted(threshold: u64, children: Vec<Child>) -> Result<Self, CombineError> {
        Self::checked(Rule::Weighted(threshold), children)
    }

    /// Healthy while the child is not.
    ///
    /// For what must *not* answer, such as a port that has to stay closed. A check's own
    /// failure stays `Unknown`.
    #[must_use]
    pub fn not(child: Child) -> Self {
        Self {
            rule: Rule::Not,
            children: [child].into(),
        }
    }

    /// Builds the check; its children are built at its first probe.
    #[must_use]
    pub fn build(&self) -> BuildCheck {
        let combination = self.clone();
        Arc::new(move || Box::new(Combined::new(combination.clone())) as Box<dyn HealthCheck>)
    }

    fn checked(rule: Rule, children: Vec<Child>) -> Result<Self, CombineError> {
        match children.len() {
            0 => return Err(CombineError::Empty),
            count if count > MAX_CHILDREN => return Err(CombineError::TooMany { count }),
            _ => {}
        }
        let mut names = BTreeSet::new();
        if let Some(twice) = children.iter().find(|child| !names.insert(&child.name)) {
            let name = twice.name.clone();
            return Err(CombineError::Twice { name });
        }
        let combination = Self {
            rule,
            children: children.into(),
        };
        let (wanted, total) = (combination.threshold(), combination.total());
        if wanted == 0 || wanted > total {
            return Err(CombineError::OutOfReach { wanted, total });
        }
        Ok(combination)
    }

    /// What the whole is while its children are so; one verdict for each child.
    fn judge(&self, verdicts: &[Verdict]) -> Verdict {
        if self.rule == Rule::Not {
            return self.negate(verdicts);
        }
        let (mut healthy, mut unhealthy, mut gone) = (0, 0, 0);
        for (index, verdict) in verdicts.iter().enumerate() {
            let weight = self.weight(index);
            match verdict {
                Verdict::Healthy => healthy += weight,
                Verdict::Unhealthy(_, evidence) => {
                    unhealthy += weight;
                    if *evidence == Evidence::Conclusive {
                        gone += weight;
                    }
                }
                Verdict::Unknown(_) => {}
            }
        }
        let threshold = self.threshold();
        let spare = self.total().saturating_sub(threshold);
        if healthy >= threshold {
            Verdict::Healthy
        } else if gone > spare {
            Verdict::gone(self.reason(verdicts, healthy))
        } else if unhealthy > spare {
            Verdict::unhealthy(self.reason(verdicts, healthy))
        } else {
            Verdict::unknown(self.reason(verdicts, healthy))
        }
    }

    fn negate(&self, verdicts: &[Verdict]) -> Verdict {
        let name = &self.children[0].name;
        match verdicts.first() {
            Some(Verdict::Unhealthy(..)) => Verdict::Healthy,
            Some(Verdict::Healthy) => Verdict::unhealthy(format!("not {name}: it is healthy")),
            Some(Verdict::Unknown(reason)) => Verdict::unknown(format!("not {name}: {reason}")),
            None => Verdict::unknown(format!("not {name}: it said nothing")),
        }
    }

    const fn weight_of(&self, child: &Child) -> u64 {
        match self.rule {
            Rule::Weighted(_) => child.weight.get() as u64,
            Rule::All | Rule::Any | Rule::Quorum(_) | Rule::Not => 1,
        }
    }

    fn weight(&self, index: usize) -> u64 {
        self.children
            .get(index)
            .map_or(0, |child| self.weight_of(child))
    }

    /// At most `MAX_CHILDREN` times `u32::MAX`: no sum overflows.
    fn total(&self) -> u64 {
        self.children
            .iter()
            .map(|child| self.weight_of(child))
            .sum()
    }

    fn threshold(&self) -> u64 {
        match self.rule {
            Rule::All => self.total(),
            Rule::Any | Rule::Not => 1,
            Rule::Quorum(threshold) | Rule::Weighted(threshold) => threshold,
        }
    }

    /// Names the children that are not healthy: failed ones first.
    fn reason(&self, verdicts: &[Verdict], healthy: u64) -> String {
        let (total, threshold) = (self.total(), self.threshold());
        let mut text = match self.rule {
            Rule::All => "all: ".to_owned(),
            Rule::Any => "any: ".to_owned(),
            Rule::Quorum(_) => format!("{healthy} of {total} healthy, {threshold} needed: "),
            Rule::Weighted(_) => format!("weight {healthy} of {total}, {threshold} needed: "),
            Rule::Not => "not: ".to_owned(),
        };
        let named = self.children.iter().zip(verdicts);
        let mut failing: Vec<_> = named
            .filter(|(_, verdict)| **verdict != Verdict::Healthy)
            .collect();
        failing.sort_by_key(|(_, verdict)| matches!(verdict, Verdict::Unknown(_)));
        // Each gets a fair part, so that a long reason hides no other child's name.
        let part = MAX_REASON_CHARS.saturating_sub(text.len()) / failing.len().max(1);
        for (index, (child, verdict)) in failing.into_iter().enumerate() {
            let comma = if index == 0 { "" } else { "; " };
            let one = format!("{comma}{} {verdict}", child.name);
            let _ = write!(text, "{}", cut(&one, part));
        }
        text
    }
}

fn cut(text: &str, chars: usize) -> &str {
    text.char_indices()
        .nth(chars)
        .map_or(text, |(end, _)| &text[..end])
}
