//! How quickly one node's bytes come to another over the mesh.
//!
//! ```sh
//! cargo run --release -p anycast-core --features mesh --example mesh_throughput -- local 4 2
//! ```
//!
//! `local STREAMS GIB`: two nodes in this process, over loopback. Between two hosts or network
//! namespaces: `keys FOLDER` once, then `take FOLDER LISTEN PEER` at the one, and
//! `push FOLDER LISTEN PEER STREAMS GIB` at the other, with the same folder's content.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a tool run by hand: it measures and prints, and what goes wrong ends it"
)]

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anycast_core::mesh::identity::Identity;
use anycast_core::mesh::transport::{Incoming, Mesh, MeshConfig, PeerConfig, Purpose};
use anycast_core::service::NodeName;
use bytes::Bytes;
use rustix::time::{ClockId, clock_gettime};

/// Of one write.
const PIECE: usize = 256 << 10;
/// Of one read.
const READ: usize = 1 << 20;

fn name(text: &str) -> NodeName {
    NodeName::new(text).expect("a name")
}

fn start(own: &str, identity: Identity, listen: SocketAddr, peer: PeerConfig) -> Mesh {
    let config = MeshConfig {
        name: name(own),
        listen,
        identity,
        peers: vec![peer],
    };
    Mesh::start(config).expect("a mesh")
}

fn peer(other: &str, address: SocketAddr, identity: &Identity) -> PeerConfig {
    PeerConfig {
        name: name(other),
        address,
        fingerprints: vec![identity.fingerprint()],
    }
}

/// Reads all streams to their ends, and answers each with how much it was.
async fn take(mut incoming: Incoming) {
    while let Some((_, mut send, mut receive)) = incoming.next().await {
        tokio::spawn(async move {
            let mut came = 0u64;
            while let Ok(Some(bytes)) = receive.read_chunk(READ).await {
                came += bytes.len() as u64;
            }
            let _ = send.write_all(&came.to_be_bytes()).await;
            let _ = send.finish();
        });
    }
}

fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

async fn push(mesh: &Mesh, to: &str, streams: u64, bytes: u64) {
    let (handle, to) = (mesh.handle(), name(to));
    while !handle.is_up(&to) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // The path's MTU is found, as on a connection that has stood for a while.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (began, cpu_before) = (Instant::now(), cpu());
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..streams {
        let (handle, to) = (handle.clone(), to.clone());
        tasks.spawn(async move {
            let (mut send, mut receive) = handle.open(&to, Purpose::Files).await.expect("a stream");
            let piece = Bytes::from(vec![0x5a; PIECE]);
            let mut left = bytes / streams;
            while left > 0 {
                let now = piece.slice(..PIECE.min(usize::try_from(left).unwrap_or(PIECE)));
                left -= now.len() as u64;
                send.write_chunk(now).await.expect("a write");
            }
            send.finish().expect("an end");
            let answer = receive.read_chunk(8).await.expect("an answer");
            assert_eq!(answer.map(|count| count.len()), Some(8));
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.expect("a stream that ends well");
    }
    let (took, cpu) = (began.elapsed(), cpu() - cpu_before);
    let rate = bytes as f64 / 1e6 / took.as_secs_f64();
    println!("{streams} streams: {bytes} bytes in {took:.2?}: {rate:.0} MB/s; CPU here {cpu:.2?}");
    println!("datagrams of at most {:?} bytes", handle.max_datagram(&to));
}

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let key = |folder: &str, of: &str| {
        Identity::load(&Path::new(folder).join(of)).expect("a key; run `keys FOLDER` first")
    };
    match words.as_slice() {
        ["local", streams, gib] => {
            let (one, two) = (Identity::generate().unwrap(), Identity::generate().unwrap());
            let free = || {
                let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
                socket.local_addr().unwrap()
            };
            let (at, there) = (free(), free());
            let (to_two, to_one) = (peer("b", there, &two), peer("a", at, &one));
            let one = start("a", one, at, to_two);
            let two = start("b", two, there, to_one);
            tokio::spawn(take(two.accept(Purpose::Files, usize::MAX)));
            let bytes = gib.parse::<u64>().unwrap() << 30;
            push(&one, "b", streams.parse().unwrap(), bytes).await;
        }
        ["keys", folder] => {
            for of in ["a", "b"] {
                let identity = Identity::generate().unwrap();
                identity.save_new(&Path::new(folder).join(of)).unwrap();
            }
        }
        ["take", folder, listen, other] => {
            let to_one = peer("a", other.parse().unwrap(), &key(folder, "a"));
            let two = start("b", key(folder, "b"), listen.parse().unwrap(), to_one);
            take(two.accept(Purpose::Files, usize::MAX)).await;
        }
        ["push", folder, listen, other, streams, gib] => {
            let to_two = peer("b", other.parse().unwrap(), &key(folder, "b"));
            let one = start("a", key(folder, "a"), listen.parse().unwrap(), to_two);
            let bytes = gib.parse::<u64>().unwrap() << 30;
            push(&one, "b", streams.parse().unwrap(), bytes).await;
        }
        _ => println!("local STREAMS GIB | keys … | take … | push …: see the head of the source"),
    }
}
