//! Where the packets of a client go, and what becomes of them on the way.

use std::net::{Ipv4Addr, SocketAddr};

use super::client::{Kind, Said};
use super::host::Inbound;
use super::setting::{SECOND, Wander};
use super::world::{Event, Outbound, World};
use crate::proto::Flow;
use crate::proto::packet::{Packet, ack, data_header};

/// The service address.
pub(super) const LOCAL: &str = "192.0.2.69:69";
/// How many packets of a client may be lost in a row, both ways together.
const MAX_LOST: u8 = 2;
/// To a client that says a thing once, or seldom, nothing is lost so long after a fault: the heir
/// has three attempts, and of the client's own one may be left when the routes have moved.
const NO_LOSS_AFTER_FAULT: u64 = 20 * SECOND;

#[derive(Debug)]
pub(super) struct Route {
    pub(super) at: usize,
    sent: u64,
    moved: u64,
}

impl Route {
    pub(super) const fn new(at: usize) -> Self {
        Self {
            at,
            sent: 0,
            moved: 0,
        }
    }
}

pub(super) fn local() -> SocketAddr {
    LOCAL.parse().unwrap()
}

/// For a trace.
pub(super) fn show(bytes: &[u8]) -> String {
    match Packet::parse(bytes) {
        Ok(Packet::ReadRequest(request)) => {
            format!("RRQ {}", String::from_utf8_lossy(request.filename))
        }
        Ok(Packet::Data { block, payload }) => format!("DATA {block} ({})", payload.len()),
        Ok(Packet::Ack { block }) => format!("ACK {block}"),
        Ok(Packet::Error { code, message }) => {
            format!("ERROR {code} {}", String::from_utf8_lossy(message))
        }
        Ok(Packet::OptionAck(_)) => "OACK".to_owned(),
        Ok(Packet::WriteRequest(_)) => "WRQ".to_owned(),
        Err(error) => format!("{error}"),
    }
}

impl World {
    /// The node that the next packet of a client goes to.
    fn route(&mut self, index: usize) -> usize {
        let all: Vec<usize> = (0..self.hosts.len())
            .filter(|at| self.hosts[*at].attracts)
            .collect();
        let (now, visitor) = (self.now, &mut self.visitors[index]);
        let route = &mut visitor.route;
        let number = route.sent;
        route.sent += 1;
        let wanders = match visitor.guest.wander {
            Wander::Stays => false,
            Wander::Once(packet) => number == packet,
            Wander::Each(packets) => number > 0 && number.is_multiple_of(packets),
            Wander::EachSecond => now >= route.moved + SECOND,
            Wander::Random(permille) => self.random.chance(permille),
        };
        let others: Vec<usize> = all.iter().copied().filter(|at| *at != route.at).collect();
        if (wanders || !all.contains(&route.at)) && !others.is_empty() {
            route.at = self.random.pick(&others);
            route.moved = now;
            let at = route.at;
            self.count("moves");
            self.say(|| format!("c{index}: its route leads to n{at}"));
        }
        self.visitors[index].route.at
    }

    /// Whether the network may lose a packet of a client now.
    fn may_lose(&self, index: usize) -> bool {
        let visitor = &self.visitors[index];
        let quiet = self.downs.iter().all(|down| {
            let until = down.until.unwrap_or(self.now);
            self.now > until + NO_LOSS_AFTER_FAULT || self.now < down.from
        });
        let kind = visitor.client.kind;
        let is_patient = !matches!(kind, Kind::Grub | Kind::Ipxe | Kind::RaspberryPi);
        visitor.lost < MAX_LOST && (is_patient || quiet)
    }

    /// When a packet arrives, and its double.
    fn fate(&mut self, index: usize, node: usize, is_back: bool) -> [Option<u64>; 2] {
        let may_lose = self.may_lose(index);
        let visitor = &mut self.visitors[index];
        let scripted = if is_back {
            &mut visitor.deaf
        } else {
            &mut visitor.mute
        };
        if *scripted > 0 {
            *scripted -= 1;
            return [None, None];
        }
        let path = visitor.guest.paths[node];
        let last = self.last.entry((index, node, is_back)).or_default();
        let fate = path.fate(&mut self.random, may_lose, self.now, last);
        let visitor = &mut self.visitors[index];
        if fate[0].is_none() {
            visitor.lost += 1;
            self.count("lost");
        } else {
            visitor.lost = 0;
        }
        fate
    }

    /// Packets of flows that nobody knows: ACKs, blocks and ERRORs.
    pub(super) fn flood(&mut self, node: usize, packets: u64, prefixes: u64) {
        self.count("floods");
        for number in 0..packets {
            let prefix = u32::try_from(number % prefixes).unwrap() << 8;
            let host = u32::try_from(number / prefixes % 250).unwrap() + 1;
            let ip = Ipv4Addr::from(0x0a00_0000 | prefix | host);
            let port = 1024 + u16::try_from(number % 60_000).unwrap();
            let block = (number % 50) as u16;
            let bytes = match number % 10 {
                0 => vec![0, 5, 0, 0, b'x', 0],
                1 => data_header(block).to_vec(),
                _ => ack(block).to_vec(),
            };
            let inbound = Inbound {
                flow: Flow {
                    remote: SocketAddr::from((ip, port)),
                    local: local(),
                },
                bytes,
                job: None,
                asks: 0,
            };
            let delay = self.random.range(0, SECOND);
            self.after(delay, Event::ToNode(node, inbound));
        }
    }

    pub(super) fn flow(&self, index: usize, port: u16) -> Flow {
        Flow {
            remote: SocketAddr::from((self.visitors[index].ip, port)),
            local: local(),
        }
    }

    /// A client has said something.
    pub(super) fn send_from_client(&mut self, index: usize, said: &Said) {
        let Some(job) = self.visitors[index].job else {
            return;
        };
        let node = self.route(index);
        self.jobs[job].crossed.insert(node);
        self.count_datagram();
        let flow = self.flow(index, said.port);
        let fate = self.fate(index, node, false);
        self.say(|| {
            let what = show(&said.packet);
            let lost = if fate[0].is_none() { ", lost" } else { "" };
            format!("c{index}:{} -> n{node}: {what}{lost}", said.port)
        });
        let echo = self.visitors[index].echo.take();
        let echo = echo.zip(fate[0]).map(|(later, delay)| delay + later);
        for delay in fate.into_iter().chain([echo]).flatten() {
            let inbound = Inbound {
                flow,
                bytes: said.packet.clone(),
                job: Some(job),
                asks: self.visitors[index].client.asks,
            };
            self.after(delay, Event::ToNode(node, inbound));
        }
    }

    /// The client with this address.
    pub(super) fn visitor_of(&self, remote: SocketAddr) -> Option<usize> {
        let SocketAddr::V4(v4) = remote else {
            return None;
        };
        let [a, b, high, low] = v4.ip().octets();
        let number = usize::from(high.checked_sub(100)?) << 8 | usize::from(low);
        let is_ours = (a, b) == (198, 51) && number <= self.visitors.len();
        number.checked_sub(1).filter(|_| is_ours)
    }

    /// A node has sent a datagram.
    pub(super) fn send_to_client(&mut self, node: usize, remote: SocketAddr, bytes: &[u8]) {
        self.last_sent = self.now;
        let Some(index) = self.visitor_of(remote) else {
            self.to_strangers += 1;
            self.say(|| format!("n{node} -> {remote}: {}", show(bytes)));
            return;
        };
        let fate = self.fate(index, node, true);
        self.say(|| {
            let lost = if fate[0].is_none() { ", lost" } else { "" };
            format!(
                "n{node} -> c{index}:{}: {}{lost}",
                remote.port(),
                show(bytes)
            )
        });
        for delay in fate.into_iter().flatten() {
            let outbound = Outbound {
                from: node,
                remote,
                sent: self.now,
                bytes: bytes.to_vec(),
            };
            self.after(delay, Event::ToClient(outbound));
        }
    }
}
