//! What the sessions of a routing daemon have sent, and what that means. Pure.

use std::time::Duration;

use anycast_core::announce::{AnnounceError, InForce, Observation, Preference};
use anycast_core::health::Reason;
use anycast_core::service::ServiceAddress;

/// What was found in the Adj-RIB-Out.
#[derive(Debug, Default)]
pub(crate) struct Readback {
    /// Session, address, and the level sent, or what was sent that is none.
    pub(crate) sent: Vec<(String, ServiceAddress, Result<InForce, String>)>,
    /// Sessions that are not established.
    pub(crate) silent: Vec<String>,
}

impl Readback {
    /// The first thing that is not as decided.
    pub(crate) fn differs(
        &self,
        addresses: &[ServiceAddress],
        preference: Preference,
    ) -> Option<String> {
        let wanted = match preference {
            Preference::Preferred => InForce::Preferred,
            Preference::Demoted => InForce::Demoted,
            Preference::Withdrawn(_) => InForce::Withdrawn,
        };
        for (session, address, level) in &self.sent {
            match level {
                Ok(level) if *level == wanted => {}
                Ok(level) => return Some(format!("{session} has {address} {}", word(*level))),
                Err(found) => return Some(format!("{session} exports {address} with {found}")),
            }
        }
        addresses.iter().find_map(|address| {
            let is_sent = self.sent.iter().any(|(_, sent, _)| sent == address);
            (!is_sent).then(|| self.unsent(*address))
        })
    }

    fn unsent(&self, address: ServiceAddress) -> String {
        let down = if self.silent.is_empty() {
            "none is configured for it".to_owned()
        } else {
            format!("down: {}", self.silent.join(", "))
        };
        format!("no established session carries {address}, so nothing can be read back ({down})")
    }

    /// What is in force: for each address the lowest level that any session has.
    pub(crate) fn observation(
        &self,
        addresses: &[ServiceAddress],
    ) -> Result<Observation, AnnounceError> {
        let seen = addresses.iter().map(|&address| {
            let level = self.in_force(address).map_err(|how| {
                backend("what is exported".to_owned(), std::io::Error::other(how))
            })?;
            Ok((address, level))
        });
        Ok(Observation {
            addresses: seen.collect::<Result<_, AnnounceError>>()?,
        })
    }

    fn in_force(&self, address: ServiceAddress) -> Result<InForce, String> {
        let mut lowest = None;
        for (session, sent, level) in &self.sent {
            if *sent != address {
                continue;
            }
            let level = level
                .clone()
                .map_err(|found| format!("{session} exports {address} with {found}"))?;
            lowest = Some(lower(lowest, level));
        }
        lowest.ok_or_else(|| self.unsent(address))
    }
}

fn lower(one: Option<InForce>, other: InForce) -> InForce {
    match (one, other) {
        (Some(InForce::Withdrawn), _) | (_, InForce::Withdrawn) => InForce::Withdrawn,
        (Some(InForce::Demoted), _) | (_, InForce::Demoted) => InForce::Demoted,
        (Some(InForce::Preferred) | None, InForce::Preferred) => InForce::Preferred,
    }
}

/// How long a daemon may be waited for after its boost was renewed: a third of the dead-man
/// time, at which the next renewal is due, and never more than this.
pub(crate) fn patience(dead_man: Option<Duration>, at_most: Duration) -> Duration {
    dead_man.map_or(at_most, |time| (time / 3).min(at_most))
}

/// An error with its sources, each said once.
pub(crate) fn reason(error: &dyn std::error::Error) -> Reason {
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
    Reason::new(&text)
}

/// For each address the lower of what two places say.
pub(crate) fn lowest(mut one: Observation, other: &Observation) -> Observation {
    for (address, level) in &mut one.addresses {
        let there = other.addresses.iter().find(|(there, _)| there == address);
        if let Some((_, there)) = there {
            *level = lower(Some(*level), *there);
        }
    }
    one
}

const fn word(level: InForce) -> &'static str {
    match level {
        InForce::Preferred => "preferred",
        InForce::Demoted => "demoted",
        InForce::Withdrawn => "not exported",
    }
}

pub(crate) fn backend(
    what: String,
    source: impl std::error::Error + Send + Sync + 'static,
) -> AnnounceError {
    AnnounceError::Backend {
        what,
        source: Box::new(source),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address() -> ServiceAddress {
        "192.0.2.69/32".parse().unwrap()
    }

    fn sent(levels: &[(&str, Result<InForce, &str>)]) -> Readback {
        let sent = levels.iter().map(|(session, level)| {
            let level = level.map_err(str::to_owned);
            ((*session).to_owned(), address(), level)
        });
        Readback {
            sent: sent.collect(),
            silent: vec!["r2.ipv4".to_owned()],
        }
    }

    #[test]
    fn one_session_that_lags_is_named() {
        let found = sent(&[
            ("r1.ipv4", Ok(InForce::Preferred)),
            ("r3.ipv4", Ok(InForce::Demoted)),
        ]);
        let how = found.differs(&[address()], Preference::Preferred);
        assert_eq!(how.unwrap(), "r3.ipv4 has 192.0.2.69/32 demoted");
        let seen = found.observation(&[address()]).unwrap();
        assert_eq!(seen.agreed(), Some(InForce::Demoted));
    }

    #[test]
    fn no_session_is_not_known_and_never_withdrawn() {
        let found = sent(&[]);
        let how = found.differs(&[address()], Preference::Demoted).unwrap();
        assert!(how.contains("(down: r2.ipv4)"), "{how}");
        assert!(found.observation(&[address()]).is_err());
    }

    #[test]
    fn what_is_no_level_is_no_observation() {
        let found = sent(&[("r1.ipv4", Err("local preference 100"))]);
        assert!(found.observation(&[address()]).is_err());
        let how = found.differs(&[address()], Preference::Demoted).unwrap();
        assert_eq!(
            how,
            "r1.ipv4 exports 192.0.2.69/32 with local preference 100"
        );
    }
}
