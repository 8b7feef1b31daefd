use super::super::frames::FrameError;
use super::*;

/// A byte, a second.
async fn trickle(send: &mut SendStream, bytes: &[u8]) {
    for byte in bytes {
        if send.write_all(&[*byte]).await.is_err() {
            return;
        }
        sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test]
async fn one_byte_a_second_on_the_control_stream_is_cut_off() {
    let mut site = Site::new().await;
    // A Hello, and later a message.
    let mut hostile = Hostile::dial(&site).await.unwrap();
    trickle(&mut hostile.send, &hello("a")).await;
    let why = hostile.closed().await;
    assert!(why.contains("Hello"), "{why}");
    site.told(&["WARN", "peer=a", "it has not said Hello"])
        .await;
    let mut hostile = Hostile::up(&site).await;
    let ping = Message::Ping(Ping { id: 1 }).encode().unwrap();
    trickle(&mut hostile.send, &ping).await;
    let why = hostile.closed().await;
    assert!(why.contains("a frame took longer"), "{why}");
    site.told(&["WARN", "peer=a", "a frame took longer"]).await;
    site.others_notice_nothing().await;
    site.a_is_let_in().await;
}

#[tokio::test]
async fn slow_and_endless_frames_end_their_stream_and_no_other() {
    let site = Site::new().await;
    let hostile = Hostile::up(&site).await;
    let mut incoming = site.b.accept(Purpose::Files, 4);
    for (bytes, ends) in [
        (&[1, 0, 0, 0, 9, 1][..], FrameError::Slow(SILENCE)),
        (
            &[1, 0xff, 0xff, 0xff, 0xff],
            FrameError::Long {
                length: 0xffff_ffff,
                max: 64,
            },
        ),
    ] {
        let (mut send, _receive) = hostile.connection.open_bi().await.unwrap();
        send.write_all(bytes).await.unwrap();
        let (from, _answer, mut receiver) = timeout(SOON, incoming.next()).await.unwrap().unwrap();
        assert_eq!(from, node("a"));
        // An honest one beside it.
        let (mut honest, _) = site
            .c
            .handle()
            .open(&node("b"), Purpose::Files)
            .await
            .unwrap();
        honest.write_frame(b"quick").await.unwrap();
        let (from, _, mut other) = timeout(SOON, incoming.next()).await.unwrap().unwrap();
        assert_eq!(from, node("c"));
        let frame = timeout(SOON, other.read_frame(64, SOON)).await.unwrap();
        assert_eq!(frame.unwrap().as_deref(), Some(&b"quick"[..]));
        let ended = timeout(SOON, receiver.read_frame(64, SILENCE))
            .await
            .unwrap();
        assert_eq!(ended, Err(ends));
    }
    assert!(hostile.connection.close_reason().is_none());
    site.others_notice_nothing().await;
}

#[tokio::test]
async fn streams_that_say_nothing_are_refused_in_time() {
    let site = Site::new().await;
    let hostile = Hostile::up(&site).await;
    let mut incoming = site.b.accept(Purpose::Files, 4);
    // As many as are allowed; the use of the last one opens them all (RFC 9000, section 3.2).
    let mut mute = Vec::new();
    while mute.len() < usize::try_from(STREAMS).unwrap() - 1 {
        mute.push(hostile.connection.open_bi().await.unwrap());
    }
    let (last, _) = mute.last_mut().unwrap();
    last.write_all(&[1]).await.unwrap();
    let taken = timeout(SOON, incoming.next()).await.unwrap().unwrap();
    // No more than these, whatever it does.
    let more = timeout(Duration::from_millis(200), hostile.connection.open_bi()).await;
    assert!(more.is_err());
    let refused = timeout(SOON, mute[0].0.stopped()).await.unwrap();
    assert_eq!(refused.unwrap(), Some(VarInt::from_u32(4)));
    let (mut honest, _) = site
        .c
        .handle()
        .open(&node("b"), Purpose::Files)
        .await
        .unwrap();
    honest.write_frame(b"quick").await.unwrap();
    let (from, ..) = timeout(SOON, incoming.next()).await.unwrap().unwrap();
    assert_eq!(from, node("c"));
    drop(taken);
    site.others_notice_nothing().await;
}

#[tokio::test]
async fn a_peer_that_never_reads_is_cut_off() {
    let mut site = Site::new().await;
    let mut deaf = transport();
    deaf.stream_receive_window(VarInt::from_u32(64));
    let dialled = client(&site.a, &site.a.identity, deaf);
    let hostile = Hostile::dial_with(dialled, HERE, site.target()).await;
    let mut hostile = hostile.unwrap();
    hostile.send.write_all(&hello("a")).await.unwrap();
    let why = hostile.closed().await;
    assert!(why.contains("it does not read what it is told"), "{why}");
    site.told(&["WARN", "peer=a", "it does not read what it is told"])
        .await;
    site.others_notice_nothing().await;
    site.a_is_let_in().await;
}
