//! Peers and strangers that mean no good, over real sockets. In each test b is what they go for,
//! and c an honest peer of it that must not notice.

use std::net::{IpAddr, Ipv4Addr};

use anycast_labs::logged::Logged;
use quinn::{ConnectionError, RecvStream, SendStream};
use tokio::net::UdpSocket;
use tokio::time::{sleep, timeout};
use tracing::Level;

use super::tests::{config, free, is_up, node, pair, peer, service, until};
use super::*;
use crate::mesh::wire::{Hello, Message, Ping};

mod flood;
mod keys;
mod slow;
mod strangers;

/// Enough for a machine that is busy with much else.
const SOON: Duration = Duration::from_secs(60);
/// Where nobody is configured.
const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// b and c, who hear each other; and what a is made of, whom b expects.
struct Site {
    /// What a would start with.
    a: MeshConfig,
    b: Mesh,
    c: Mesh,
    since: Option<Instant>,
    log: Logged,
    _guard: tracing::subscriber::DefaultGuard,
}

impl Site {
    async fn new() -> Self {
        let log = Logged::new("anycast_core", Level::INFO);
        let guard = tracing::subscriber::set_default(log.clone());
        let (a, mut b) = pair();
        let (key, at) = (Identity::generate().unwrap(), free());
        b.peers.push(peer("c", at, &key));
        let to_b = vec![peer("b", b.listen, &b.identity)];
        let c = Mesh::start(config("c", at, key, to_b)).unwrap();
        let b = Mesh::start(b).unwrap();
        until(&c, "b to be up", is_up).await;
        let mut views = b.views();
        let has_c = |views: &Views| is_up(view(views, "c"));
        timeout(SOON, views.wait_for(has_c)).await.unwrap().unwrap();
        let since = view(&views.borrow(), "c").up_since;
        Self {
            a,
            b,
            c,
            since,
            log,
            _guard: guard,
        }
    }

    fn target(&self) -> SocketAddr {
        self.b.address()
    }

    /// Each hears the other's changes, over the connection that stood all the time: it would not
    /// stand if either had been silent for [`SILENCE`].
    async fn others_notice_nothing(&self) {
        for preferred in [true, false] {
            self.b.set_services(service(preferred));
            self.c.set_services(service(preferred));
            let heard = |view: &PeerView| view.services == service(preferred);
            until(&self.c, "a change of b", heard).await;
            let mut views = self.b.views();
            let heard = |views: &Views| view(views, "c").services == service(preferred);
            timeout(SOON, views.wait_for(heard)).await.unwrap().unwrap();
        }
        let since = view(&self.b.views().borrow(), "c").up_since;
        assert_eq!(since, self.since, "{:?}", self.log.lines());
    }

    /// Nothing of the attack stands in the way of the real a.
    async fn a_is_let_in(&mut self) {
        let spent = config("x", free(), Identity::generate().unwrap(), Vec::new());
        let a = Mesh::start(std::mem::replace(&mut self.a, spent)).unwrap();
        let mut views = self.b.views();
        let has_a = |views: &Views| is_up(view(views, "a"));
        timeout(SOON, views.wait_for(has_a)).await.unwrap().unwrap();
        drop(a);
    }

    /// No more connections are left: that of c, and that of a while its end is awaited.
    async fn forgets(&self, all_but: usize) {
        let forgotten = async {
            while self.b.endpoint.open_connections() > all_but {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(SOON, forgotten).await.unwrap();
    }

    /// The lines that have all of these.
    fn lines(&self, parts: &[&str]) -> Vec<String> {
        let mut lines = self.log.lines();
        lines.retain(|line| parts.iter().all(|part| line.contains(part)));
        lines
    }

    /// Waits for one of them.
    async fn told(&self, parts: &[&str]) {
        let waiting = async {
            while self.lines(parts).is_empty() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        let waited = timeout(SOON, waiting).await;
        assert!(waited.is_ok(), "{parts:?}: {:?}", self.log.lines());
    }
}

fn view<'a>(views: &'a Views, of: &str) -> &'a PeerView {
    let found = views.iter().find(|(name, _)| *name == node(of));
    &found.unwrap().1
}

fn hello(name: &str) -> Vec<u8> {
    let hello = Hello {
        name: node(name),
        version: 1,
        least_version: 1,
        incarnation: 1,
    };
    Message::Hello(hello).encode().unwrap()
}

/// One that speaks QUIC and does what it likes.
struct Hostile {
    connection: Connection,
    send: SendStream,
    _receive: RecvStream,
    _endpoint: Endpoint,
}

impl Hostile {
    /// With the key of a, from where a is expected.
    async fn dial(site: &Site) -> Result<Self, ConnectionError> {
        let client = client(&site.a, &site.a.identity, transport());
        Self::dial_with(client, HERE, site.target()).await
    }

    async fn dial_with(
        client: quinn::ClientConfig,
        from: IpAddr,
        to: SocketAddr,
    ) -> Result<Self, ConnectionError> {
        let endpoint = Endpoint::client((from, 0).into()).unwrap();
        let connecting = endpoint.connect_with(client, to, "anycast-mesh");
        let connection = connecting.unwrap().await?;
        let (send, receive) = connection.open_bi().await?;
        Ok(Self {
            connection,
            send,
            _receive: receive,
            _endpoint: endpoint,
        })
    }

    /// As [`dial`](Self::dial), and says who it is.
    async fn up(site: &Site) -> Self {
        let mut hostile = Self::dial(site).await.unwrap();
        hostile.send.write_all(&hello("a")).await.unwrap();
        let mut views = site.b.views();
        let is_up = |views: &Views| is_up(view(views, "a"));
        timeout(SOON, views.wait_for(is_up)).await.unwrap().unwrap();
        hostile
    }

    /// Why it was cut off.
    async fn closed(&self) -> String {
        let closed = timeout(SOON, self.connection.closed()).await;
        closed.unwrap().to_string()
    }
}

/// Expects whom `known` expects, and shows `identity`.
fn client(
    known: &MeshConfig,
    identity: &Identity,
    transport: TransportConfig,
) -> quinn::ClientConfig {
    let pins = pins(known).unwrap();
    let client = tls::client(identity, &pins).unwrap();
    let mut client = quinn::ClientConfig::new(Arc::new(client));
    client.transport_config(Arc::new(transport));
    client
}
