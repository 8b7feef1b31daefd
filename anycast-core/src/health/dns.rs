//! The check `dns`: name, type, expected answer, and who gave it.
//!
//! Every probe asks each address of the service the same [`Question`] and judges the answer.
//! Over UDP the query is sent at most three times within the time-out, always with one
//! random identifier; an answer counts when it comes from the address asked (the socket is
//! connected) and repeats identifier and question. Anything else is ignored, and named in the
//! reason if nothing better comes. An answer that is cut off (TC) is asked for again over TCP,
//! within the same time-out. Queries carry EDNS with a payload of 1232 bytes.
//!
//! | heard | verdict |
//! |---|---|
//! | the expected answer | healthy |
//! | another answer, another response code, another node's identity, an answer that cannot be decoded | unhealthy, at once |
//! | silence or noise until the time-out, connection refused or closed, address not on this node | unhealthy |
//! | no descriptor, memory or port, this host's own firewall, a checker that was starved | unknown |
//!
//! # What the proof is worth
//!
//! With [`Source::Service`] (the default) only the local node's answer can arrive, see
//! [`probe`]; the server must accept queries from its own service address (unbound:
//! `access-control: 192.0.2.53/32 allow`). It does not prove *which process* answered: a
//! forwarder on this node that passes queries on under an address of its own answers as well.
//! An [`Identity`] does: every node's server has its own, and it is compared.
//!
//! - NSID (RFC 5001) is part of the very answer that is judged. Prefer it. unbound:
//!   `nsid: "ascii_ams1"`; knot: `nsid: "ams1"`; BIND: `server-id "ams1";`.
//! - `id.server` (RFC 4892) and `hostname.bind` are a query of their own, side by side with
//!   the other: where a load balancer may send the two to different nodes, it proves less.
//!   unbound: `identity: "ams1"`; knot: `identity: "ams1"`; BIND: `server-id`.
//!
//! With [`Source::Any`] and no identity nothing proves that this node answered.
//!
//! What it proves of the service is no more than the question: a name served from the
//! server's own data says nothing about recursion, and one that needs recursion blames the
//! server for the Internet's faults. For a resolver, ask a name that it serves itself, and
//! add a second check with severity `warning` for recursion.

mod judge;
mod question;
#[cfg(feature = "config")]
mod table;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout_at;

use self::judge::{Finding, Query, judge};
pub use self::question::{Class, Identity, Question, QuestionError};
#[cfg(feature = "config")]
pub use self::table::DnsTable;

use super::probe::exchange::{Heard, Ignored, NoAnswer, Patience, all, exchange, random};
use super::probe::{self, Source};
use super::{HealthCheck, Verdict};
use crate::service::{ServiceAddress, ServiceAddresses};

/// The port of DNS.
pub const PORT: u16 = 53;

/// What queries are sent over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Deserialize),
    serde(rename_all = "lowercase")
)]
#[non_exhaustive]
pub enum Transport {
    /// UDP, and TCP for an answer that is cut off. The default.
    #[default]
    Udp,
    /// TCP alone.
    Tcp,
}

/// The check `dns`; see the [module](self). Cheap to clone.
#[derive(Debug, Clone)]
pub struct DnsCheck {
    addresses: ServiceAddresses,
    question: Arc<Question>,
    port: u16,
    source: Source,
    transport: Transport,
    identity: Option<Arc<Identity>>,
}

impl DnsCheck {
    /// Asks `question` of each of these addresses: over UDP, at port 53, from the service
    /// address, without an identity.
    #[must_use]
    pub fn new(addresses: ServiceAddresses, question: Question) -> Self {
        Self {
            addresses,
            question: Arc::new(question),
            port: PORT,
            source: Source::default(),
            transport: Transport::default(),
            identity: None,
        }
    }

    /// Asks at another port.
    #[must_use]
    pub const fn with_port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Where queries come from.
    #[must_use]
    pub const fn with_source(mut self, source: Source) -> Self {
        self.source = source;
        self
    }

    /// What queries are sent over.
    #[must_use]
    pub const fn with_transport(mut self, transport: Transport) -> Self {
        self.transport = transport;
        self
    }

    /// Demands that the server says who it is.
    #[must_use]
    pub fn with_identity(mut self, identity: Identity) -> Self {
        self.identity = Some(Arc::new(identity));
        self
    }

    async fn probe(&self, address: ServiceAddress, patience: Patience) -> Verdict {
        let target = SocketAddr::new(address.ip(), self.port);
        let identity = self.identity.as_deref();
        let question = self.ask(target, &self.question, identity, patience);
        match identity.and_then(Identity::question) {
            Some(who) => all([question, self.ask(target, who, None, patience)]).await,
            None => question.await,
        }
    }

    async fn ask(
        &self,
        target: SocketAddr,
        question: &Question,
        identity: Option<&Identity>,
        patience: Patience,
    ) -> Verdict {
        let nsid = identity.and_then(Identity::nsid_bytes);
        let query = Query::new(random_id(), question, nsid);
        let Some(bytes) = query.encode() else {
            return Verdict::unknown(format!("{target}: the query cannot be encoded"));
        };
        let outcome = match self.transport {
            Transport::Udp => self.over_udp(target, &query, &bytes, patience).await,
            Transport::Tcp => self.over_tcp(target, &query, &bytes, patience).await,
        };
        match outcome {
            Ok(None) => Verdict::Healthy,
            Ok(Some(fault)) => Verdict::unhealthy(format!("{target}: {fault}")),
            Err(no_answer) => no_answer.verdict(target),
        }
    }

    /// What is wrong with the answer, if anything.
    async fn over_udp(
        &self,
        target: SocketAddr,
        query: &Query<'_>,
        bytes: &[u8],
        patience: Patience,
    ) -> Result<Option<String>, NoAnswer> {
        let socket = probe::udp(target, self.source).map_err(|e| NoAnswer::Io("open", e))?;
        let hear = |answer: &[u8]| match judge(answer, query) {
            Finding::NotOurs(what) => Heard::Ignored(what),
            found @ (Finding::Right | Finding::Wrong(_) | Finding::Truncated) => {
                Heard::Answer(found)
            }
        };
        match exchange(&socket, bytes, patience, hear).await? {
            Finding::Right => Ok(None),
            Finding::Wrong(fault) | Finding::NotOurs(fault) => Ok(Some(fault)),
            Finding::Truncated => {
                let outcome = self.over_tcp(target, query, bytes, patience).await;
                outcome.map_err(|none| NoAnswer::Verdict(after_truncation(none.verdict(target))))
            }
        }
    }

    /// As [`Self::over_udp`].
    async fn over_tcp(
        &self,
        target: SocketAddr,
        query: &Query<'_>,
        bytes: &[u8],
        patience: Patience,
    ) -> Result<Option<String>, NoAnswer> {
        let mut ignored = Ignored::default();
        let talk = async {
            let mut stream = probe::tcp(target, self.source)
                .await
                .map_err(NoAnswer::Verdict)?;
            send(&mut stream, bytes).await?;
            loop {
                match judge(&receive(&mut stream).await?, query) {
                    Finding::Right => return Ok(None),
                    Finding::Wrong(fault) => return Ok(Some(fault)),
                    Finding::Truncated => {
                        return Ok(Some("the answer is cut off (TC), even over TCP".to_owned()));
                    }
                    Finding::NotOurs(what) => ignored.add(what)?,
                }
            }
        };
        match timeout_at(patience.deadline(), talk).await {
            Ok(outcome) => outcome,
            Err(_) => Err(patience.silence(ignored)),
        }
    }
}

fn after_truncation(verdict: Verdict) -> Verdict {
    match verdict {
        Verdict::Unhealthy(reason, _) => Verdict::unhealthy(format!(
            "{reason} (over TCP, since the answer over UDP is cut off)"
        )),
        Verdict::Healthy | Verdict::Unknown(_) => verdict,
    }
}

fn random_id() -> u16 {
    u16::try_from(random() & 0xffff).unwrap_or_default()
}

/// RFC 1035 4.2.2: a message over TCP comes after its length, two bytes.
async fn send(stream: &mut TcpStream, message: &[u8]) -> Result<(), NoAnswer> {
    let failed = |e| NoAnswer::Io("send over TCP", e);
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
    // In one piece: some servers read the length and the message together.
    let framed = [&length.to_be_bytes()[..], message].concat();
    stream.write_all(&framed).await.map_err(failed)
}

async fn receive(stream: &mut TcpStream) -> Result<Vec<u8>, NoAnswer> {
    let failed = |e| NoAnswer::Io("receive over TCP", e);
    let length = stream.read_u16().await.map_err(failed)?;
    let mut message = vec![0; usize::from(length)];
    stream.read_exact(&mut message).await.map_err(failed)?;
    Ok(message)
}

#[async_trait]
impl HealthCheck for DnsCheck {
    async fn check(&mut self, timeout: Duration) -> Verdict {
        let patience = Patience::new(timeout);
        let this = &*self;
        all(self.addresses.iter().map(|to| this.probe(to, patience))).await
    }
}
