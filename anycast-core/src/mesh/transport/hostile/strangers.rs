use std::sync::Mutex;

use super::*;

/// Passes on what a client sends to a server, and back; keeps what the client sent.
struct Relay {
    address: SocketAddr,
    kept: Arc<Mutex<Vec<Vec<u8>>>>,
    _tasks: JoinSet<()>,
}

impl Relay {
    /// Of the client's packets it passes on so many.
    async fn new(from: IpAddr, to: SocketAddr, passes: usize) -> Self {
        let inside = Arc::new(UdpSocket::bind((HERE, 0)).await.unwrap());
        let outside = Arc::new(UdpSocket::bind((from, 0)).await.unwrap());
        outside.connect(to).await.unwrap();
        let address = inside.local_addr().unwrap();
        let kept: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
        let (client, is_known) = watch::channel(None);
        let mut tasks = JoinSet::new();
        let (listens, sends, keeps) = (inside.clone(), outside.clone(), kept.clone());
        tasks.spawn(async move {
            let mut packet = vec![0; 65_536];
            for number in 0.. {
                let (length, from) = listens.recv_from(&mut packet).await.unwrap();
                client.send_replace(Some(from));
                if number < passes {
                    keeps.lock().unwrap().push(packet[..length].to_vec());
                    let _ = sends.send(&packet[..length]).await;
                }
            }
        });
        tasks.spawn(async move {
            let mut packet = vec![0; 65_536];
            loop {
                let Ok(length) = outside.recv(&mut packet).await else {
                    continue;
                };
                let client = *is_known.borrow();
                if let Some(client) = client {
                    let _ = inside.send_to(&packet[..length], client).await;
                }
            }
        });
        Self {
            address,
            kept,
            _tasks: tasks,
        }
    }

    fn kept(&self) -> Vec<Vec<u8>> {
        self.kept.lock().unwrap().clone()
    }
}

/// Handshakes that begin and go no further, twice as many as b takes at once.
async fn stall(site: &Site) -> Vec<impl Sized + use<>> {
    let stranger = Identity::generate().unwrap();
    let mut stalled = Vec::new();
    for _ in 0..2 * HANDSHAKES {
        // The first, and the one that proves the address; then nothing.
        let relay = Relay::new(ELSEWHERE, site.target(), 2).await;
        let endpoint = Endpoint::client((HERE, 0).into()).unwrap();
        let dialled = client(&site.a, &stranger, transport());
        let connecting = endpoint.connect_with(dialled, relay.address, "anycast-mesh");
        stalled.push((relay, endpoint, connecting.unwrap()));
    }
    stalled
}

#[tokio::test]
async fn handshakes_that_stall_are_given_up_and_keep_no_peer_out() {
    let mut site = Site::new().await;
    let refused = ["WARN", "a handshake failed", "too many handshakes"];
    // Where the machine is so slow that the first ones were given up before the last began, more
    // come. The log tells one failure in ten seconds: it need not be the first refusal.
    let until = Instant::now() + SOON;
    let mut stalled = stall(&site).await;
    while site.lines(&refused).is_empty() {
        assert!(Instant::now() < until, "{:?}", site.log.lines());
        if timeout(HANDSHAKE_TIME / 3, site.told(&refused))
            .await
            .is_err()
        {
            stalled = stall(&site).await;
        }
    }
    site.a_is_let_in().await;
    site.others_notice_nothing().await;
    drop(stalled);
    site.forgets(2).await;
}

/// Strangers with keys of their own come as fast as they can.
fn knock(pins: &Arc<Pins>, target: SocketAddr) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(async {
        let mut flood = JoinSet::new();
        for _ in 0..200 {
            let stranger = Identity::generate().unwrap();
            let dialled = tls::client(&stranger, pins).unwrap();
            let dialled = quinn::ClientConfig::new(Arc::new(dialled));
            flood.spawn(async move {
                if let Ok(hostile) = Hostile::dial_with(dialled, ELSEWHERE, target).await {
                    hostile.closed().await;
                }
            });
        }
        while flood.join_next().await.is_some() {}
    });
}

#[tokio::test]
async fn a_flood_of_strangers_keeps_no_peer_out_and_does_not_fill_the_log() {
    let mut site = Site::new().await;
    let began = Instant::now();
    let (pins, target) = (pins(&site.a).unwrap(), site.target());
    // In a thread of its own: what it costs the strangers is not to cost b.
    let flood = tokio::task::spawn_blocking(move || knock(&pins, target));
    site.a_is_let_in().await;
    site.others_notice_nothing().await;
    timeout(SOON, flood).await.unwrap().unwrap();
    let lines = site.lines(&["a handshake failed"]).len() as u64;
    let most = 1 + began.elapsed().as_secs() / 10;
    assert!(
        (1..=most).contains(&lines),
        "{lines} in {:?}",
        began.elapsed()
    );
    site.forgets(2).await;
}

#[tokio::test]
async fn packets_of_an_earlier_session_replayed_from_elsewhere_do_nothing() {
    let mut site = Site::new().await;
    let relay = Relay::new(HERE, site.target(), usize::MAX).await;
    let spent = config("x", free(), Identity::generate().unwrap(), Vec::new());
    let mut a = std::mem::replace(&mut site.a, spent);
    a.peers[0].address = relay.address;
    let a = Mesh::start(a).unwrap();
    a.set_services(service(true));
    let mut views = site.b.views();
    let heard = |views: &Views| view(views, "a").services == service(true);
    timeout(SOON, views.wait_for(heard)).await.unwrap().unwrap();
    let replay = async |packets: Vec<Vec<u8>>| {
        let socket = UdpSocket::bind((ELSEWHERE, 0)).await.unwrap();
        for packet in packets {
            socket.send_to(&packet, site.target()).await.unwrap();
        }
        // Until b has seen to them.
        sleep(Duration::from_millis(300)).await;
    };
    // While the session lives: it stays where it is.
    let since = view(&views.borrow(), "a").up_since;
    replay(relay.kept()).await;
    a.set_services(service(false));
    let heard = |views: &Views| view(views, "a").services == service(false);
    timeout(SOON, views.wait_for(heard)).await.unwrap().unwrap();
    assert_eq!(view(&views.borrow(), "a").up_since, since);
    // And when it is over.
    drop(a);
    let is_gone = |views: &Views| view(views, "a").down.is_some();
    timeout(SOON, views.wait_for(is_gone))
        .await
        .unwrap()
        .unwrap();
    let gone = view(&views.borrow(), "a").clone();
    site.log.clear();
    replay(relay.kept()).await;
    assert_eq!(*view(&views.borrow(), "a"), gone);
    assert_eq!(site.lines(&["peer=a"]), Vec::<String>::new());
    site.forgets(1).await;
    site.others_notice_nothing().await;
}
