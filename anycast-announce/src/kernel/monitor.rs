//! Learning at once that somebody else changed what we put into force.
//!
//! A second netlink connection is subscribed to changes of links and addresses: on the
//! connection that makes a change, the kernel's report of it is taken for an answer. It has no
//! task of its own and is read only inside [`Monitor::disturbed`] and [`Monitor::drain`];
//! between calls the events wait in the kernel's socket buffer, and when that overflows the
//! overflow is itself reported as a disturbance. A connection that breaks is opened again
//! after a back-off, and reported, since events were missed.

#![allow(
    clippy::disallowed_methods,
    reason = "runtime module: it waits for the kernel"
)]

use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use anycast_core::service::ServiceAddress;
use futures_util::Stream;
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::MulticastGroup;
use rtnetlink::sys::SocketAddr;
use tokio::time::Instant;

use super::config::ADDRESS_PROTOCOL as TAG;
use super::message::{parse_address, parse_link};
use super::plan::{Address, Link, LinkKind};

/// The first wait before a broken subscription is opened again; it doubles each time.
const FIRST_BACK_OFF: Duration = Duration::from_millis(100);

/// The longest such wait. Until then the driver's periodic observation finds what changed.
const LAST_BACK_OFF: Duration = Duration::from_secs(30);

/// What we put into force last, and so expect to hear of.
#[derive(Debug, Clone, Default)]
pub(super) struct Expectation {
    pub(super) interface: String,
    pub(super) addresses: Vec<ServiceAddress>,
    /// Whether the boosts are to be there; `None` before the first decision.
    pub(super) boost: Option<bool>,
}

/// One event of the kernel.
#[derive(Debug)]
pub(super) enum Event {
    Address(Address),
    AddressGone(Address),
    Link(Link),
    LinkGone(Link),
    /// Events were lost.
    Overrun,
}

/// The loopback interface has this index in every network namespace (LOOPBACK_IFINDEX).
const LO: u32 = 1;

impl Event {
    fn parse(message: &NetlinkMessage<RouteNetlinkMessage>) -> Option<Self> {
        let inner = match &message.payload {
            NetlinkPayload::InnerMessage(inner) => inner,
            NetlinkPayload::Overrun(_) => return Some(Self::Overrun),
            NetlinkPayload::Done(_) | NetlinkPayload::Error(_) | NetlinkPayload::Noop | _ => {
                return None;
            }
        };
        if let RouteNetlinkMessage::DelAddress(_) = inner {
            parse_address(inner).map(Self::AddressGone)
        } else if let RouteNetlinkMessage::DelLink(_) = inner {
            parse_link(inner).map(Self::LinkGone)
        } else {
            let address = parse_address(inner).map(Self::Address);
            address.or_else(|| parse_link(inner).map(Self::Link))
        }
    }

    /// The address that it is about; `None` when it may concern any.
    pub(super) const fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Address(address) | Self::AddressGone(address) => Some(address.ip),
            Self::Link(_) | Self::LinkGone(_) | Self::Overrun => None,
        }
    }

    /// Whether this may have undone what we put into force. Our own writes do not.
    pub(super) fn disturbs(&self, expected: &Expectation) -> bool {
        let ours = |ip| expected.addresses.iter().any(|address| address.ip() == ip);
        match self {
            Self::Overrun => true,
            Self::AddressGone(gone) if gone.index == LO => {
                ours(gone.ip) && expected.boost != Some(false)
            }
            Self::AddressGone(gone) => ours(gone.ip),
            Self::Address(seen) if seen.index == LO => {
                let boost = seen.proto == Some(TAG) && !seen.permanent;
                ours(seen.ip) && !(boost && expected.boost == Some(true))
            }
            Self::Address(seen) => ours(seen.ip) && (!seen.permanent || seen.dad_failed),
            Self::LinkGone(link) => link.name == expected.interface,
            Self::Link(link) => {
                let concerned = link.kind == LinkKind::Loopback || link.name == expected.interface;
                concerned && !link.up
            }
        }
    }
}

/// The subscription.
#[derive(Default)]
pub(super) struct Monitor {
    subscription: Option<Subscription>,
    /// Events may have been missed since the last look at the kernel.
    blind: bool,
    failures: u32,
    retry_at: Option<Instant>,
}

impl Monitor {
    /// Forgets the events so far, because the caller looks at the kernel right after this.
    pub(super) async fn drain(&mut self) {
        if self.retry_at.is_none_or(|at| at <= Instant::now()) {
            self.ensure_open();
        }
        let Some(subscription) = &mut self.subscription else {
            return;
        };
        let open = poll_fn(|cx| {
            loop {
                match subscription.poll_event(cx) {
                    Poll::Ready(Some(_)) => {}
                    Poll::Ready(None) => return Poll::Ready(false),
                    Poll::Pending => return Poll::Ready(true),
                }
            }
        })
        .await;
        self.blind = !open;
        if !open {
            self.lost();
        }
    }

    /// Waits until something happened that may have undone what is expected. Cancel-safe.
    pub(super) async fn disturbed(&mut self, expected: &Expectation) {
        let event = self.next_that(|event| event.disturbs(expected)).await;
        tracing::debug!(?event, "somebody else changed the service addresses");
    }

    /// The next event, whatever it is about. Cancel-safe.
    pub(super) async fn next(&mut self) -> Event {
        self.next_that(|_| true).await
    }

    /// The next event that `matters`; an overrun when events were missed.
    async fn next_that(&mut self, matters: impl Fn(&Event) -> bool) -> Event {
        loop {
            if let Some(at) = self.retry_at.take_if(|_| self.subscription.is_none()) {
                // Put back before waiting: this future may be dropped here.
                self.retry_at = Some(at);
                tokio::time::sleep_until(at).await;
            }
            self.ensure_open();
            let Some(subscription) = &mut self.subscription else {
                continue;
            };
            if std::mem::take(&mut self.blind) {
                return Event::Overrun;
            }
            let event = poll_fn(|cx| {
                loop {
                    match subscription.poll_event(cx) {
                        Poll::Ready(Some(event)) if !matters(&event) => {}
                        told @ (Poll::Ready(_) | Poll::Pending) => return told,
                    }
                }
            })
            .await;
            if let Some(event) = event {
                self.failures = 0;
                return event;
            }
            self.lost();
        }
    }

    /// Subscribes, unless that is done.
    pub(super) fn ensure_open(&mut self) {
        if self.subscription.is_some() {
            return;
        }
        match Subscription::open() {
            Ok(subscription) => self.subscription = Some(subscription),
            Err(error) => {
                tracing::warn!(%error, "cannot subscribe to address changes");
                self.lost();
            }
        }
    }

    fn lost(&mut self) {
        let doubled = FIRST_BACK_OFF.saturating_mul(1 << self.failures.min(16));
        self.subscription = None;
        self.blind = true;
        self.failures = self.failures.saturating_add(1);
        self.retry_at = Some(Instant::now() + doubled.min(LAST_BACK_OFF));
    }
}

type Events = Box<dyn Stream<Item = (NetlinkMessage<RouteNetlinkMessage>, SocketAddr)> + Send>;

struct Subscription {
    connection: Pin<Box<rtnetlink::proto::Connection<RouteNetlinkMessage>>>,
    events: Pin<Events>,
    /// Held, because without one the connection would shut down.
    _handle: rtnetlink::Handle,
}

impl Subscription {
    fn open() -> std::io::Result<Self> {
        let (connection, handle, events) = rtnetlink::new_multicast_connection(&[
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
        ])?;
        Ok(Self {
            connection: Box::pin(connection),
            events: Box::into_pin(Box::new(events) as Events),
            _handle: handle,
        })
    }

    /// The next event; `None` when the connection is broken.
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        loop {
            // Events read before the connection broke come first.
            if let Poll::Ready(message) = self.events.as_mut().poll_next(cx) {
                match message.map(|(message, _)| Event::parse(&message)) {
                    Some(Some(event)) => return Poll::Ready(Some(event)),
                    Some(None) => continue,
                    None => return Poll::Ready(None),
                }
            }
            if self.connection.as_mut().poll(cx).is_ready() {
                return Poll::Ready(None);
            }
            match self.events.as_mut().poll_next(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Ready(Some((message, _))) => {
                    if let Some(event) = Event::parse(&message) {
                        return Poll::Ready(Some(event));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "monitor/tests.rs"]
mod tests;
