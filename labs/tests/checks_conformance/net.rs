//! The checks over a network, and combinations of them.

use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU16, NonZeroU32};
use std::process::Command;
use std::sync::Arc;

use anycast_core::health::BuildCheck;
use anycast_core::health::combine::{Child, Combination, CombineError};
use anycast_core::health::dns::{DnsCheck, Question, Transport};
use anycast_core::health::file::FileCheck;
use anycast_core::health::http::HttpCheck;
use anycast_core::health::icmp::IcmpCheck;
use anycast_core::health::ntp::NtpCheck;
use anycast_core::health::tcp::TcpCheck;
use anycast_core::testing::health_suite::Condition::{
    self, CheckerFails, Garbage, Refusing, Silent, Well, Wrong,
};
use anycast_core::testing::health_suite::HealthBench;
use anycast_core::{CheckName, NodeName, ServiceAddress, ServiceAddresses};
use anycast_tftp::health::{Proof, TftpCheck};
use async_trait::async_trait;

use crate::builds;
use crate::stage::{Over, Stage, noise};

pub(crate) const EVERY: [Condition; 6] = [Well, Silent, Refusing, Wrong, Garbage, CheckerFails];
pub(crate) const PORT: NonZeroU16 = NonZeroU16::new(8053).unwrap();

pub(crate) fn at() -> SocketAddr {
    SocketAddr::new(ip(), PORT.get())
}

fn ip() -> IpAddr {
    "127.0.0.53".parse().unwrap()
}

pub(crate) fn addresses() -> ServiceAddresses {
    ServiceAddresses::new(vec![ServiceAddress::new(ip()).unwrap()]).unwrap()
}

fn greeting(condition: Condition, _: &[u8]) -> Option<Vec<u8>> {
    match condition {
        Well => Some(b"220 mail.example\r\n".to_vec()),
        Garbage => Some(noise(5000)),
        Silent => None,
        _ => Some(b"421 busy\r\n".to_vec()),
    }
}

fn greeted() -> TcpCheck {
    TcpCheck::new(&addresses(), PORT)
        .with_greeting("220 ")
        .unwrap()
}

pub(crate) async fn tcp() -> Stage {
    Stage::new(at(), Over::TcpFirst, greeting, &EVERY, builds(greeted()))
}

/// One answer over HTTP.
pub(crate) fn page(condition: Condition, _: &[u8]) -> Option<Vec<u8>> {
    match condition {
        Well => Some(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nready".to_vec()),
        Garbage => Some(noise(5000)),
        Silent => None,
        _ => Some(b"HTTP/1.1 503 Unavailable\r\nContent-Length: 0\r\n\r\n".to_vec()),
    }
}

pub(crate) fn ready() -> HttpCheck {
    let check = HttpCheck::new(&addresses(), PORT);
    check.with_body("ready").unwrap()
}

pub(crate) async fn http() -> Stage {
    Stage::new(at(), Over::Tcp, page, &EVERY, builds(ready()))
}

/// The question again, with one address, or with a refusal.
fn resolved(condition: Condition, query: &[u8]) -> Option<Vec<u8>> {
    match condition {
        Silent => return None,
        Garbage => return Some(noise(500)),
        _ => {}
    }
    let name = query.get(12..)?.iter().position(|byte| *byte == 0)?;
    let mut answer = query.get(..12 + name + 5)?.to_vec();
    answer[2] |= 0x80;
    answer[6..12].copy_from_slice(&[0, 1, 0, 0, 0, 0]);
    answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1]);
    if condition != Well {
        answer[3] |= 2; // SERVFAIL
    }
    Some(answer)
}

fn resolver() -> DnsCheck {
    let question = Question::new("health.example", "A").unwrap();
    DnsCheck::new(addresses(), question).with_port(PORT.get())
}

pub(crate) async fn dns() -> Stage {
    Stage::new(at(), Over::Udp, resolved, &EVERY, builds(resolver()))
}

pub(crate) async fn dns_over_tcp() -> Stage {
    let answer = |condition, query: &[u8]| {
        let said = resolved(condition, query.get(2..)?)?;
        let length = u16::try_from(said.len()).unwrap().to_be_bytes();
        Some([&length[..], &said].concat())
    };
    let check = resolver().with_transport(Transport::Tcp);
    Stage::new(at(), Over::Tcp, answer, &EVERY, builds(check))
}

pub(crate) async fn ntp() -> Stage {
    let answer = |condition, request: &[u8]| {
        let mut packet = vec![0; 48];
        packet[0] = 0b00_100_100;
        packet[1] = if condition == Well { 2 } else { 16 };
        packet[24..32].copy_from_slice(request.get(40..48)?);
        packet[32..48].fill(0x11);
        match condition {
            Silent => None,
            Garbage => Some(noise(48)),
            _ => Some(packet),
        }
    };
    let check = NtpCheck::new(addresses()).with_port(PORT.get());
    Stage::new(at(), Over::Udp, answer, &EVERY, builds(check))
}

/// A file of two bytes, from a server that names its node; another site's answers wrongly.
pub(crate) async fn tftp() -> Stage {
    let answer = |condition, packet: &[u8]| match condition {
        Silent => None,
        Garbage => Some(noise(500)),
        _ => match packet.get(..2)? {
            [0, 1] if condition == Well => Some(b"\0\x06anycast-node\0ams1\0".to_vec()),
            [0, 1] => Some(b"\0\x06anycast-node\0fra1\0".to_vec()),
            [0, 4] if packet.get(2..4)? == [0, 0] => Some(b"\0\x03\0\x01ok".to_vec()),
            _ => None,
        },
    };
    let proof = Proof::Required(NodeName::new("ams1").unwrap());
    let check = TftpCheck::new(&addresses(), PORT.get(), "health", proof);
    Stage::new(at(), Over::Udp, answer, &EVERY, builds(check))
}

const PINGED: &str = "192.0.2.53";

/// The kernel itself answers, so it cannot answer wrongly.
pub(crate) struct Icmp(Stage);

pub(crate) async fn icmp() -> Icmp {
    let conditions = [Well, Silent, Refusing, CheckerFails];
    let address = ServiceAddress::new(PINGED.parse().unwrap()).unwrap();
    let addresses = ServiceAddresses::new(vec![address]).unwrap();
    let check = builds(IcmpCheck::new(addresses));
    Icmp(Stage::new(at(), Over::Udp, |_, _| None, &conditions, check))
}

#[async_trait]
impl HealthBench for Icmp {
    fn build(&self) -> BuildCheck {
        self.0.build()
    }

    fn conditions(&self) -> Vec<Condition> {
        self.0.conditions()
    }

    async fn bring_about(&mut self, condition: Condition) {
        // Descriptors come back first.
        self.0.bring_about(Well).await;
        let ignore = if condition == Silent { "1" } else { "0" };
        std::fs::write("/proc/sys/net/ipv4/icmp_echo_ignore_all", ignore).unwrap();
        let verb = if condition == Refusing {
            "del"
        } else {
            "replace"
        };
        let line = format!("addr {verb} {PINGED}/32 dev lo");
        let done = Command::new("ip").args(line.split(' ')).output().unwrap();
        // What is not there cannot be removed.
        assert!(done.status.success() || verb == "del", "{line}: {done:?}");
        if condition == CheckerFails {
            self.0.bring_about(CheckerFails).await;
        }
    }
}

fn child(name: &str, build: BuildCheck) -> Child {
    Child::new(CheckName::new(name).unwrap(), build)
}

fn file(path: &str) -> BuildCheck {
    builds(FileCheck::new(path))
}

const TWO: NonZeroU32 = NonZeroU32::new(2).unwrap();
const THERE: &str = "/";
const MISSING: &str = "/no/such/file";

/// The service, and files that never change: it alone decides.
fn with_files(rule: fn(Vec<Child>) -> Result<Combination, CombineError>, files: &[&str]) -> Stage {
    let mut children = vec![child("mail", builds(greeted())).with_weight(TWO)];
    for (number, path) in files.iter().enumerate() {
        children.push(child(&format!("file{number}"), file(path)));
    }
    let build = rule(children).unwrap().build();
    Stage::new(at(), Over::TcpFirst, greeting, &EVERY, build)
}

pub(crate) async fn all() -> Stage {
    with_files(Combination::all, &[THERE])
}

pub(crate) async fn any() -> Stage {
    with_files(Combination::any, &[MISSING])
}

pub(crate) async fn quorum() -> Stage {
    with_files(
        |children| Combination::quorum(2, children),
        &[THERE, MISSING],
    )
}

/// Three of four are wanted, and the service is worth two.
pub(crate) async fn weighted() -> Stage {
    with_files(
        |children| Combination::weighted(3, children),
        &[THERE, MISSING],
    )
}

/// Well is what the child finds ill.
pub(crate) struct Not(Stage);

pub(crate) async fn not() -> Not {
    let build = Combination::not(child("mail", builds(greeted()))).build();
    let conditions = [Well, Wrong, CheckerFails];
    Not(Stage::new(
        at(),
        Over::TcpFirst,
        greeting,
        &conditions,
        Arc::clone(&build),
    ))
}

#[async_trait]
impl HealthBench for Not {
    fn build(&self) -> BuildCheck {
        self.0.build()
    }

    fn conditions(&self) -> Vec<Condition> {
        self.0.conditions()
    }

    async fn bring_about(&mut self, condition: Condition) {
        let inner = match condition {
            Well => Refusing,
            Wrong => Well,
            other => other,
        };
        self.0.bring_about(inner).await;
    }
}
