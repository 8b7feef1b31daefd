use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::super::tests::{is_up, node, pair, until};
use super::super::{DatagramError, Mesh, STREAMS, WINDOW};
use super::*;

/// Enough for a machine that is busy with much else.
const SOON: Duration = Duration::from_secs(60);

/// Two nodes that hear each other, a and b.
async fn up() -> (Mesh, Mesh) {
    let (one, two) = pair();
    let (one, two) = (Mesh::start(one).unwrap(), Mesh::start(two).unwrap());
    until(&one, "b to be up", is_up).await;
    until(&two, "a to be up", is_up).await;
    (one, two)
}

async fn next(incoming: &mut Incoming) -> Arrival {
    timeout(SOON, incoming.next()).await.unwrap().unwrap()
}

#[tokio::test]
async fn what_one_writes_the_other_reads_whoever_opened() {
    let (one, two) = up().await;
    for (opens, takes, name, other) in [(&one, &two, "b", "a"), (&two, &one, "a", "b")] {
        let mut incoming = takes.accept(Purpose::Leases, 4);
        let handle = opens.handle();
        let (mut send, mut receive) = handle.open(&node(name), Purpose::Leases).await.unwrap();
        send.write_frame(b"a frame").await.unwrap();
        send.write_frame(b"").await.unwrap();
        send.write_chunk(Bytes::from_static(b"and the rest"))
            .await
            .unwrap();
        send.shutdown().await.unwrap();
        let (from, mut answer, mut asked) = next(&mut incoming).await;
        assert_eq!(from, node(other));
        let frame = asked.read_frame(7, SOON).await.unwrap();
        assert_eq!(frame.as_deref(), Some(&b"a frame"[..]));
        let empty = asked.read_frame(7, SOON).await.unwrap();
        assert_eq!(empty.as_deref(), Some(&b""[..]));
        let mut rest = String::new();
        asked.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "and the rest");
        assert_eq!(asked.read_frame(7, SOON).await, Ok(None));
        answer.write_all(b"yes").await.unwrap();
        answer.finish().unwrap();
        // It may be dropped now, and all is delivered.
        drop((answer, asked));
        assert_eq!(
            receive.read_chunk(9).await.unwrap().as_deref(),
            Some(&b"yes"[..])
        );
        assert_eq!(receive.read_chunk(9).await, Ok(None));
        send.delivered().await.unwrap();
        assert_eq!(send.finish(), Err(StreamError::Closed));
    }
}

#[tokio::test]
async fn a_stream_that_nobody_takes_is_refused_and_the_connection_stays() {
    let (one, two) = up().await;
    let handle = one.handle();
    let (_send, mut receive) = handle.open(&node("b"), Purpose::Files).await.unwrap();
    let refused = timeout(SOON, receive.read_chunk(1)).await.unwrap();
    assert_eq!(refused, Err(StreamError::Refused(Refusal::Nobody)));
    // A purpose of a later version.
    let connection = handle.connection(&node("b")).unwrap();
    let (mut send, receive) = connection.open_bi().await.unwrap();
    send.write_all(&[77]).await.unwrap();
    let mut receive = Receiver::new(receive, None);
    let refused = timeout(SOON, receive.read_chunk(1)).await.unwrap();
    assert_eq!(refused, Err(StreamError::Refused(Refusal::Unknown)));
    // No more than were asked for.
    let mut incoming = two.accept(Purpose::Files, 1);
    let (mut send, first) = handle.open(&node("b"), Purpose::Files).await.unwrap();
    let taken = next(&mut incoming).await;
    let (_other, mut receive) = handle.open(&node("b"), Purpose::Files).await.unwrap();
    let refused = timeout(SOON, receive.read_chunk(1)).await.unwrap();
    assert_eq!(refused, Err(StreamError::Refused(Refusal::Busy)));
    // As soon as the first has ended there is room again.
    send.finish().unwrap();
    drop((first, taken));
    let _again = handle.open(&node("b"), Purpose::Files).await.unwrap();
    next(&mut incoming).await;
    assert!(handle.is_up(&node("b")) && two.handle().is_up(&node("a")));
    assert!(connection.close_reason().is_none());
}

#[tokio::test]
async fn what_is_not_whole_never_looks_whole() {
    let (one, two) = up().await;
    let mut incoming = two.accept(Purpose::Transfers, 4);
    let open = async || {
        let opened = one.handle().open(&node("b"), Purpose::Transfers).await;
        opened.unwrap()
    };
    let left = async |receiver: &mut Receiver| loop {
        match timeout(SOON, receiver.read_chunk(64)).await.unwrap() {
            Ok(Some(_)) => {}
            ended => return ended,
        }
    };
    let (mut send, _receive) = open().await;
    send.write_all(b"half of").await.unwrap();
    let (_, _answer, mut receiver) = next(&mut incoming).await;
    drop(send);
    assert_eq!(left(&mut receiver).await, Err(StreamError::Left));
    let (mut send, _receive) = open().await;
    let (_, _answer, mut receiver) = next(&mut incoming).await;
    send.reset(7);
    assert_eq!(left(&mut receiver).await, Err(StreamError::GivenUp(7)));
    // A frame that was begun.
    let (mut send, _receive) = open().await;
    send.write_all(&[0, 0, 0, 9, 1]).await.unwrap();
    send.finish().unwrap();
    let (_, mut answer, mut receiver) = next(&mut incoming).await;
    assert_eq!(receiver.read_frame(9, SOON).await, Err(FrameError::Cut));
    // A reader that wants no more.
    receiver.stop(3);
    let (mut send, mut receive) = open().await;
    receive.stop(9);
    let (_, mut other, _receiver) = next(&mut incoming).await;
    let stopped = async {
        loop {
            if let Err(error) = other.write_all(&[0; 1024]).await {
                return error;
            }
        }
    };
    let stopped = timeout(SOON, stopped).await.unwrap();
    assert_eq!(stopped, StreamError::GivenUp(9));
    send.finish().unwrap();
    answer.finish().unwrap();
}

#[tokio::test]
async fn a_frame_read_that_is_cancelled_is_gone_on_with() {
    let (one, two) = up().await;
    let mut incoming = two.accept(Purpose::Files, 1);
    let (mut send, _receive) = one.handle().open(&node("b"), Purpose::Files).await.unwrap();
    let (_, _answer, mut receiver) = next(&mut incoming).await;
    for piece in [&b"\0\0"[..], &b"\0\x05ab"[..], &b"cd"[..], &b"e"[..]] {
        let step = Duration::from_millis(20);
        assert!(timeout(step, receiver.read_frame(5, SOON)).await.is_err());
        send.write_all(piece).await.unwrap();
    }
    let frame = timeout(SOON, receiver.read_frame(5, SOON)).await.unwrap();
    assert_eq!(frame.unwrap().as_deref(), Some(&b"abcde"[..]));
    send.write_frame(b"sixsix").await.unwrap();
    let long = timeout(SOON, receiver.read_frame(5, SOON)).await.unwrap();
    assert_eq!(long, Err(FrameError::Long { length: 6, max: 5 }));
}

#[tokio::test]
async fn streams_that_nobody_reads_hold_up_no_other_and_not_the_control_stream() {
    let (one, two) = up().await;
    let mut incoming = two.accept(Purpose::Files, usize::MAX);
    let handle = one.handle();
    let mut unread = Vec::new();
    for _ in 0..Purpose::Files.at_once() {
        let (mut send, receive) = handle.open(&node("b"), Purpose::Files).await.unwrap();
        let fill = async {
            loop {
                send.write_all(&[0; 64 << 10]).await.unwrap();
            }
        };
        // Until the window is full.
        let full = timeout(Duration::from_millis(100), fill).await;
        assert!(full.is_err());
        unread.push((send, receive, next(&mut incoming).await));
    }
    // One more waits for its place, and is told that there is none.
    let busy = handle.open(&node("b"), Purpose::Files).await.unwrap_err();
    assert!(busy.to_string().contains("live already"), "{busy}");
    let mut leases = two.accept(Purpose::Leases, 1);
    let (mut send, _receive) = handle.open(&node("b"), Purpose::Leases).await.unwrap();
    send.write_frame(b"still heard").await.unwrap();
    let (_, _answer, mut receiver) = next(&mut leases).await;
    let frame = timeout(SOON, receiver.read_frame(64, SOON)).await.unwrap();
    assert_eq!(frame.unwrap().as_deref(), Some(&b"still heard"[..]));
    let said = super::super::tests::service(true);
    one.set_services(said.clone());
    until(&two, "the change", |view| view.services == said).await;
    assert!(STREAMS < 256 && u64::from(WINDOW) <= 100 << 20);
}

#[tokio::test]
async fn datagrams_come_to_their_purpose_and_a_full_queue_drops_the_newest() {
    let (one, two) = up().await;
    let mut files = two.datagrams(Purpose::Files);
    let mut leases = two.datagrams(Purpose::Leases);
    let handle = one.handle();
    let longest = handle.max_datagram(&node("b")).unwrap();
    assert!(longest >= 1024, "{longest}");
    // They may be lost, even here.
    let heard = async {
        loop {
            let sent = handle.send_datagram(&node("b"), Purpose::Leases, &vec![7; longest]);
            sent.unwrap();
            let wait = timeout(Duration::from_millis(100), leases.next()).await;
            if let Ok(heard) = wait {
                return heard.unwrap();
            }
        }
    };
    let (from, bytes) = timeout(SOON, heard).await.unwrap();
    assert_eq!((from, bytes.len()), (node("a"), longest));
    let long = handle.send_datagram(&node("b"), Purpose::Leases, &vec![7; 70_000]);
    assert!(
        matches!(long, Err(DatagramError::Long { length: 70_000, .. })),
        "{long:?}"
    );
    let flood = async {
        while files.dropped() == 0 {
            for _ in 0..16 {
                handle
                    .send_datagram(&node("b"), Purpose::Files, b"x")
                    .unwrap();
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, flood).await.unwrap();
    for _ in 0..super::super::datagrams::DATAGRAMS {
        assert_eq!(files.next().await.unwrap().0, node("a"));
    }
}

#[tokio::test]
async fn a_peer_that_is_not_up_is_no_peer_to_talk_with() {
    let (one, two) = up().await;
    let handle = one.handle();
    let stranger = handle.open(&node("c"), Purpose::Files).await.unwrap_err();
    assert_eq!(stranger, OpenError::Down(node("c")));
    let mut incoming = one.accept(Purpose::Files, 1);
    let (_send, mut receive) = handle.open(&node("b"), Purpose::Leases).await.unwrap();
    drop(two);
    let lost = timeout(SOON, receive.read_chunk(1)).await.unwrap();
    assert!(lost.is_err());
    until(&one, "b to be gone", |view| view.down.is_some()).await;
    assert!(!handle.is_up(&node("b")));
    let down = handle.open(&node("b"), Purpose::Files).await.unwrap_err();
    assert_eq!(down, OpenError::Down(node("b")));
    let sent = handle.send_datagram(&node("b"), Purpose::Files, b"x");
    assert_eq!(sent, Err(DatagramError::Down(node("b"))));
    // Nor is there one when the mesh has stopped.
    drop(one);
    assert!(incoming.next().await.is_none());
}

#[test]
fn numbers_of_purposes_stay() {
    for (purpose, number) in Purpose::ALL.into_iter().zip(1..) {
        assert_eq!(purpose.number(), number);
        assert_eq!(Purpose::from_number(number), Some(purpose));
    }
    assert_eq!(Purpose::from_number(0), None);
    assert_eq!(Purpose::from_number(4), None);
}
