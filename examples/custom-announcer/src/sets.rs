//! An announcer that keeps nftables sets.
//!
//! In the table `inet` *name* there are two sets for each family:
//!
//! | set | holds a service address while it is | the element |
//! |---|---|---|
//! | `announced4`, `announced6` | not withdrawn | stays |
//! | `preferred4`, `preferred6` | preferred | has a timeout: the dead man |
//!
//! The rules are the operator's own, in a table of the operator's own chains or in this one:
//! they serve what is preferred here, and send on what is only announced, such as to the next
//! site. When this process dies, the kernel removes the preferred element by itself.
//!
//! Every change is one transaction of the kernel: no packet sees half of it. Elements of other
//! addresses are not touched, so several services may share a table.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anycast_core::announce::{
    AnnounceError, Announcer, Applied, Capabilities, Decision, InForce, Lifetime, Observation,
    Preference,
};
use anycast_core::{ServiceAddress, ServiceAddresses};
use async_trait::async_trait;
use serde_json::Value;

use crate::nft::Nft;

/// Longest name of a table.
pub const MAX_TABLE: usize = 32;
/// Shortest and longest dead-man time.
pub const DEAD_MAN: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(3600);

/// Why the announcer cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetsError {
    /// Not a name that can be written into a script.
    #[error("{0:?} is no name for a table; use up to {MAX_TABLE} letters, digits and underscores")]
    Table(String),
    /// Outside [`DEAD_MAN`].
    #[error("a dead-man time of {0:?} is not between 1 s and 1 h")]
    DeadMan(Duration),
}

/// The announcer. See the [module](self).
#[derive(Debug)]
pub struct SetsAnnouncer {
    table: String,
    dead_man: Duration,
    nft: Nft,
}

impl SetsAnnouncer {
    /// An announcer over the table `inet` `table`, which it makes when it is not there.
    ///
    /// # Errors
    /// [`SetsError`].
    pub fn new(table: &str, dead_man: Duration) -> Result<Self, SetsError> {
        let letter = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let starts = table.starts_with(|c: char| c.is_ascii_alphabetic());
        if !starts || table.len() > MAX_TABLE || !table.chars().all(letter) {
            return Err(SetsError::Table(table.chars().take(64).collect()));
        }
        if !DEAD_MAN.contains(&dead_man) {
            return Err(SetsError::DeadMan(dead_man));
        }
        Ok(Self {
            table: table.to_owned(),
            dead_man,
            nft: Nft::default(),
        })
    }

    /// How long a preferred element may live.
    fn timeout(&self, decision: &Decision) -> Result<Duration, AnnounceError> {
        let age = now().saturating_duration_since(decision.decided_at());
        match decision.lifetime() {
            Lifetime::DeadMan if age >= self.dead_man => Err(AnnounceError::Stale {
                service: decision.service().clone(),
                age,
            }),
            Lifetime::DeadMan => Ok(self.dead_man - age),
            Lifetime::Keep(time) => Ok(time),
        }
    }

    fn script(&self, decision: &Decision, timeout: Duration) -> String {
        let table = &self.table;
        let mut script = format!("add table inet {table}\n");
        for (family, kind) in [("4", "ipv4_addr"), ("6", "ipv6_addr")] {
            script += &format!(
                "add set inet {table} announced{family} {{ type {kind}; }}\n\
                 add set inet {table} preferred{family} {{ type {kind}; flags timeout; }}\n"
            );
        }
        let (announced, preferred) = match decision.preference() {
            Preference::Preferred => (true, true),
            Preference::Demoted => (true, false),
            Preference::Withdrawn(_) => (false, false),
        };
        // An element that is there keeps its old timeout when it is added again; and only what
        // is there can be deleted.
        let milliseconds = timeout.as_millis().max(1);
        for address in decision.addresses().iter() {
            let (ip, family) = (address.ip(), family(address));
            let set = format!("inet {table} announced{family}");
            script += &format!("add element {set} {{ {ip} }}\n");
            if !announced {
                script += &format!("delete element {set} {{ {ip} }}\n");
            }
            let set = format!("inet {table} preferred{family}");
            script += &format!("add element {set} {{ {ip} }}\ndelete element {set} {{ {ip} }}\n");
            if preferred {
                script += &format!("add element {set} {{ {ip} timeout {milliseconds}ms }}\n");
            }
        }
        script
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "an announcer is where decisions meet real time"
)]
fn now() -> Instant {
    Instant::now()
}

fn family(address: ServiceAddress) -> &'static str {
    match address.ip() {
        IpAddr::V4(_) => "4",
        IpAddr::V6(_) => "6",
    }
}

/// Whether a set of a listed table holds an address.
fn holds(table: &Value, set: &str, address: ServiceAddress) -> bool {
    let named = |entry: &&Value| entry.pointer("/set/name").and_then(Value::as_str) == Some(set);
    let entries = table.get("nftables").and_then(Value::as_array);
    let elements = entries
        .and_then(|entries| entries.iter().find(named))
        .and_then(|set| set.pointer("/set/elem"))
        .and_then(Value::as_array);
    let is_it = |element: &Value| {
        // With a timeout it is wrapped.
        let element = element.pointer("/elem/val").unwrap_or(element);
        let found = element.as_str().and_then(|text| text.parse().ok());
        found == Some(address.ip())
    };
    elements.is_some_and(|elements| elements.iter().any(is_it))
}

#[async_trait]
impl Announcer for SetsAnnouncer {
    fn kind(&self) -> &'static str {
        "nft-sets"
    }

    fn capabilities(&self) -> Capabilities {
        let mut able = Capabilities::NONE;
        able.demote = true;
        able.withdraw = true;
        able.dead_man = Some(self.dead_man);
        able
    }

    /// A change that was dropped half-way is waited for by the next call.
    async fn apply(&mut self, decision: &Decision) -> Result<Applied, AnnounceError> {
        let timeout = self.timeout(decision)?;
        let script = self.script(decision, timeout);
        self.nft.script(script).await?;
        let seen = self.observe(decision.addresses()).await?;
        if seen.matches(decision.preference()) {
            return Ok(Applied::Confirmed);
        }
        let reason = format!("the sets hold otherwise: {seen:?}");
        Ok(Applied::Unconfirmed(reason.into()))
    }

    async fn observe(
        &mut self,
        addresses: &ServiceAddresses,
    ) -> Result<Observation, AnnounceError> {
        let table = self.nft.table(&self.table).await?.unwrap_or_default();
        let state = |address| {
            let is_in = |set| holds(&table, &format!("{set}{}", family(address)), address);
            match (is_in("announced"), is_in("preferred")) {
                (true, true) => InForce::Preferred,
                (true, false) => InForce::Demoted,
                (false, _) => InForce::Withdrawn,
            }
        };
        Ok(Observation {
            addresses: addresses.iter().map(|one| (one, state(one))).collect(),
        })
    }
}
