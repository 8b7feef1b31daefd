//! The kernel over rtnetlink: snapshots and single steps.
//!
//! There is no task: a [`Netlink`] owns its connection and drives it only inside its own
//! futures. Whoever drops one of them must drop the [`Netlink`] with it; then nothing that was
//! queued can be written later. Every call ends within [`CALL_TIMEOUT`]. An answer counts only
//! when its end was seen (the acknowledgement, or the end of the dump), so a connection that
//! dies half-way through a dump is an error and never a short list.

#![allow(
    clippy::disallowed_methods,
    reason = "runtime module: it talks to the kernel"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::pin::{Pin, pin};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use anycast_core::service::ServiceAddress;
use futures_util::Stream;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute, LinkExtentMask, LinkMessage,
};
use rtnetlink::{LinkDummy, LinkUnspec};

use super::message::{
    address_message, is_local_route, parse_address, parse_link, peer_message, peer_names, peer_of,
    route_query, veth_pair, with_lifetime,
};
use super::plan::{ALIAS, Address, Link, LinkKind, Snapshot, Step};

/// How long one request may take. The kernel answers in microseconds unless another process
/// holds its routing lock; the driver gives a whole step 5 s.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(2);

/// How often an interrupted dump (the list changed while it was read) is read again.
const DUMP_ATTEMPTS: usize = 5;

/// A lifetime the kernel takes for "none" (INFINITY_LIFE_TIME).
const FOR_EVER: u32 = u32::MAX;

// From errno(3).
const EPERM: i32 = 1;
const ENXIO: i32 = 6;
const EACCES: i32 = 13;
const EEXIST: i32 = 17;
const ENODEV: i32 = 19;
const EOPNOTSUPP: i32 = 95;
const EADDRNOTAVAIL: i32 = 99;

type Message = NetlinkMessage<RouteNetlinkMessage>;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("the kernel answered: {0}")]
    Kernel(#[source] io::Error),
    #[error("IPv6 is disabled there (see net.ipv6.conf.*.disable_ipv6)")]
    Ipv6Disabled,
    #[error("no netlink socket could be opened: {0}")]
    Open(#[source] io::Error),
    #[error("the netlink connection broke")]
    Closed,
    #[error("no answer from the kernel within {CALL_TIMEOUT:?}")]
    Timeout,
    #[error("the list changed {DUMP_ATTEMPTS} times while it was read")]
    Unsteady,
    #[error("the address is there, but after {CALL_TIMEOUT:?} the kernel does not deliver to it")]
    Undelivered,
    #[error("an answer could not be understood")]
    Garbled,
}

impl Failure {
    fn errno(&self) -> Option<i32> {
        match self {
            Self::Kernel(error) => error.raw_os_error(),
            Self::Ipv6Disabled
            | Self::Open(_)
            | Self::Closed
            | Self::Timeout
            | Self::Unsteady
            | Self::Undelivered
            | Self::Garbled => None,
        }
    }

    /// The right (CAP_NET_ADMIN) is missing.
    pub(super) fn is_permission(&self) -> bool {
        self.errno() == Some(EPERM)
    }

    /// Somebody else changed the same thing since the snapshot: look again.
    pub(super) fn is_race(&self) -> bool {
        matches!(self.errno(), Some(EEXIST | ENODEV | ENXIO | EADDRNOTAVAIL))
    }

    /// Whether the connection is still in step with the kernel after this failure.
    pub(super) fn spares_connection(&self) -> bool {
        matches!(
            self,
            Self::Kernel(_) | Self::Ipv6Disabled | Self::Unsteady | Self::Undelivered
        )
    }
}

/// All addresses of the kernel at one time, and the interfaces that were asked for since.
pub(super) struct Dump {
    began: Instant,
    addresses: Vec<Address>,
    links: Mutex<BTreeMap<LinkKey, Option<Link>>>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum LinkKey {
    Name(String),
    Index(u32),
}

impl Dump {
    /// Whether it shows all that was there at `time`.
    pub(super) fn began_after(&self, time: Instant) -> bool {
        self.began > time
    }

    fn links(&self) -> MutexGuard<'_, BTreeMap<LinkKey, Option<Link>>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection to the kernel.
pub(super) struct Netlink {
    connection: Pin<Box<Connection>>,
    handle: rtnetlink::Handle,
}

type Connection = rtnetlink::proto::Connection<RouteNetlinkMessage>;

impl Netlink {
    /// Opens a connection, in the network namespace of the calling thread.
    pub(super) fn open() -> Result<Self, Failure> {
        let (mut connection, handle, _) = rtnetlink::new_connection().map_err(Failure::Open)?;
        connection.set_forward_ack(true);
        connection.set_forward_done(true);
        Ok(Self {
            connection: Box::pin(connection),
            handle,
        })
    }

    /// Asks for something harmless that needs CAP_NET_ADMIN: removing an address from an
    /// interface that cannot exist.
    pub(super) async fn probe(&mut self) -> Result<(), Failure> {
        const NO_INTERFACE: u32 = i32::MAX as u32;
        let message = address_message(NO_INTERFACE, IpAddr::from([192, 0, 2, 0]));
        match self
            .acknowledged(RouteNetlinkMessage::DelAddress(message), 0)
            .await
        {
            Err(failure) if failure.is_race() => Ok(()),
            other => other,
        }
    }

    /// All addresses that the kernel holds.
    pub(super) async fn dump(&mut self) -> Result<Dump, Failure> {
        Ok(Dump {
            began: Instant::now(),
            addresses: self.addresses().await?,
            links: Mutex::default(),
        })
    }

    /// What the kernel holds of these addresses and of the service interface.
    pub(super) async fn snapshot(
        &mut self,
        dump: &Dump,
        interface: &str,
        addresses: &[ServiceAddress],
    ) -> Result<Snapshot, Failure> {
        let mut links = Vec::new();
        let mut known = BTreeSet::new();
        for name in ["lo", interface] {
            links.extend(self.link_once(dump, LinkKey::Name(name.to_owned())).await?);
        }
        known.extend(links.iter().map(|link| link.index));
        // Whose the others are matters only while the interface is not marked as ours.
        let unmarked = links
            .iter()
            .find(|link| link.name == interface && !link.is_marked())
            .map(|link| link.index);
        let concerns = |address: &&Address| {
            Some(address.index) == unmarked
                || addresses.iter().any(|wanted| wanted.ip() == address.ip)
        };
        let found: Vec<Address> = dump.addresses.iter().filter(concerns).copied().collect();
        let mut others: BTreeSet<u32> = found.iter().map(|address| address.index).collect();
        others.extend(links.iter().filter_map(|link| match link.kind {
            LinkKind::Veth(peer) => peer,
            LinkKind::Loopback | LinkKind::Dummy | LinkKind::Other => None,
        }));
        for index in others.difference(&known) {
            links.extend(self.link_once(dump, LinkKey::Index(*index)).await?);
        }
        Ok(Snapshot {
            links,
            addresses: found,
        })
    }

    /// One interface, read once for all that share the dump.
    async fn link_once(&mut self, dump: &Dump, key: LinkKey) -> Result<Option<Link>, Failure> {
        let read = dump.links().get(&key).cloned();
        if let Some(link) = read {
            return Ok(link);
        }
        let query = match &key {
            LinkKey::Name(name) => LinkUnspec::new_with_name(name).build(),
            LinkKey::Index(index) => LinkUnspec::new_with_index(*index).build(),
        };
        let link = self.link(query).await?;
        dump.links().insert(key, link.clone());
        Ok(link)
    }

    /// Executes one step. `lifetime` is the boost's, in seconds.
    pub(super) async fn execute(
        &mut self,
        step: Step,
        interface: &str,
        lifetime: u32,
    ) -> Result<(), Failure> {
        const CREATE: u16 = NLM_F_CREATE | NLM_F_EXCL;
        const REPLACE: u16 = NLM_F_CREATE | NLM_F_REPLACE;
        match step {
            Step::CreateLink => self.create_link(interface).await,
            Step::MarkLink { index, peer } => {
                // The service interface last: its mark says that the other end has its own.
                for index in peer.into_iter().chain([index]) {
                    self.mark_link(index).await?;
                }
                Ok(())
            }
            Step::SetUp { index } => {
                let message = LinkUnspec::new_with_index(index).up().build();
                self.acknowledged(RouteNetlinkMessage::SetLink(message), 0)
                    .await
            }
            Step::CreateCopy { index, address } => {
                let message = peer_message(index, address.ip(), peer_of(address.ip()));
                self.write_address(message, address, FOR_EVER, CREATE).await
            }
            Step::MakePermanent {
                index,
                address,
                peer,
            } => {
                let message = match peer {
                    Some(peer) => peer_message(index, address.ip(), peer),
                    None => address_message(index, address.ip()),
                };
                self.write_address(message, address, FOR_EVER, REPLACE)
                    .await
            }
            Step::CreateBoost { index, address } => {
                let message = address_message(index, address.ip());
                self.write_address(message, address, lifetime, CREATE).await
            }
            Step::RenewBoost { index, address } => {
                let message = address_message(index, address.ip());
                self.write_address(message, address, lifetime, REPLACE)
                    .await
            }
            Step::RemoveBoost { index, address } => {
                let message = address_message(index, address.ip());
                self.acknowledged(RouteNetlinkMessage::DelAddress(message), 0)
                    .await
            }
        }
    }

    async fn write_address(
        &mut self,
        message: AddressMessage,
        address: ServiceAddress,
        lifetime: u32,
        flags: u16,
    ) -> Result<(), Failure> {
        let index = message.header.index;
        let message = with_lifetime(message, lifetime);
        self.acknowledged(RouteNetlinkMessage::NewAddress(message), flags)
            .await
            .map_err(|failure| match failure.errno() {
                Some(EACCES) if address.ip().is_ipv6() => Failure::Ipv6Disabled,
                _ => failure,
            })?;
        match address.ip() {
            IpAddr::V4(_) => Ok(()),
            IpAddr::V6(ip) => self.delivered(index, ip).await,
        }
    }

    /// Waits until the kernel delivers to a new IPv6 address: it acknowledges the address
    /// first and lays the local route afterwards, from a work queue.
    async fn delivered(&mut self, index: u32, ip: Ipv6Addr) -> Result<(), Failure> {
        const STEP: Duration = Duration::from_millis(5);
        for _ in 0..CALL_TIMEOUT.as_millis() / STEP.as_millis() {
            match self.request(route_query(index, ip), NLM_F_ACK).await {
                Ok(answer) if answer.messages.iter().any(is_local_route) => return Ok(()),
                Ok(_) => {}
                // Until then another route answers, or none: each kind has an error of its own.
                Err(failure) if failure.errno().is_some() => {}
                Err(failure) => return Err(failure),
            }
            tokio::time::sleep(STEP).await;
        }
        Err(Failure::Undelivered)
    }

    /// A dummy interface, or a veth pair where the kernel has no dummy.
    async fn create_link(&mut self, interface: &str) -> Result<(), Failure> {
        const CREATE: u16 = NLM_F_CREATE | NLM_F_EXCL;
        let dummy = LinkDummy::new(interface).build();
        let made = self
            .acknowledged(RouteNetlinkMessage::NewLink(dummy), CREATE)
            .await;
        match made {
            Err(failure) if failure.errno() == Some(EOPNOTSUPP) => {}
            other => return other,
        }
        let mut last = Ok(());
        for peer in peer_names(interface) {
            let veth = veth_pair(interface, &peer);
            last = self
                .acknowledged(RouteNetlinkMessage::NewLink(veth), CREATE)
                .await;
            match &last {
                Err(failure) if failure.errno() == Some(EEXIST) => {}
                Ok(()) | Err(_) => return last,
            }
        }
        last
    }

    /// No link-local address (nothing is to be reached over this interface), and our alias.
    async fn mark_link(&mut self, index: u32) -> Result<(), Failure> {
        let quiet = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
        let message = LinkUnspec::new_with_index(index)
            .append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![quiet]))
            .build();
        let quieted = self
            .acknowledged(RouteNetlinkMessage::SetLink(message), 0)
            .await;
        if let Err(failure) = quieted {
            // A kernel without IPv6 refuses, and needs none of it.
            if !failure.spares_connection() || failure.is_permission() || failure.is_race() {
                return Err(failure);
            }
        }
        let alias = LinkAttribute::IfAlias(format!("{ALIAS}: permanent service addresses"));
        let message = LinkUnspec::new_with_index(index)
            .append_extra_attribute(alias)
            .build();
        self.acknowledged(RouteNetlinkMessage::SetLink(message), 0)
            .await
    }

    async fn acknowledged(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(), Failure> {
        let answer = self.request(message, NLM_F_ACK | flags).await?;
        if answer.complete {
            Ok(())
        } else {
            Err(Failure::Closed)
        }
    }

    /// One interface, or `None` when there is none of that name or index.
    pub(super) async fn link(&mut self, mut message: LinkMessage) -> Result<Option<Link>, Failure> {
        let slim = vec![LinkExtentMask::SkipStats];
        message.attributes.push(LinkAttribute::ExtMask(slim));
        let answer = self
            .request(RouteNetlinkMessage::GetLink(message), NLM_F_ACK)
            .await;
        let answer = match answer {
            Err(failure) if failure.is_race() => return Ok(None),
            other => other?,
        };
        if !answer.complete {
            return Err(Failure::Closed);
        }
        let link = answer.messages.iter().find_map(parse_link);
        link.map(Some).ok_or(Failure::Garbled)
    }

    pub(super) async fn addresses(&mut self) -> Result<Vec<Address>, Failure> {
        for _ in 0..DUMP_ATTEMPTS {
            let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
            let answer = self.request(request, NLM_F_DUMP).await?;
            if !answer.complete {
                return Err(Failure::Closed);
            }
            if !answer.interrupted {
                return Ok(answer.messages.iter().filter_map(parse_address).collect());
            }
        }
        Err(Failure::Unsteady)
    }

    async fn request(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Answer, Failure> {
        let mut message = NetlinkMessage::from(message);
        message.header.flags = NLM_F_REQUEST | flags;
        tokio::time::timeout(CALL_TIMEOUT, self.exchange(message))
            .await
            .map_err(|_| Failure::Timeout)?
    }

    async fn exchange(&mut self, message: Message) -> Result<Answer, Failure> {
        let answers = self.handle.request(message).map_err(|_| Failure::Closed)?;
        let mut answers = pin!(answers);
        let mut answer = Answer::default();
        poll_fn(|cx| {
            let closed = self.connection.as_mut().poll(cx).is_ready();
            loop {
                match answers.as_mut().poll_next(cx) {
                    Poll::Ready(Some(message)) => {
                        if let Err(failure) = answer.take(message) {
                            return Poll::Ready(Err(failure));
                        }
                    }
                    Poll::Ready(None) => return Poll::Ready(Ok(())),
                    Poll::Pending if closed => return Poll::Ready(Err(Failure::Closed)),
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await?;
        Ok(answer)
    }
}

/// What came back for one request.
#[derive(Default)]
struct Answer {
    messages: Vec<RouteNetlinkMessage>,
    /// The acknowledgement or the end of the dump was seen.
    complete: bool,
    /// The kernel says that the list changed while it was read.
    interrupted: bool,
}

impl Answer {
    fn take(&mut self, message: Message) -> Result<(), Failure> {
        self.interrupted |= message.header.flags & NLM_F_DUMP_INTR != 0;
        let code = match message.payload {
            NetlinkPayload::InnerMessage(inner) => {
                self.messages.push(inner);
                return Ok(());
            }
            NetlinkPayload::Error(error) => error.raw_code(),
            NetlinkPayload::Done(done) => done.code,
            NetlinkPayload::Noop => return Ok(()),
            NetlinkPayload::Overrun(_) | _ => return Err(Failure::Garbled),
        };
        if code < 0 {
            return Err(Failure::Kernel(io::Error::from_raw_os_error(-code)));
        }
        self.complete = true;
        Ok(())
    }
}
