use super::*;

#[tokio::test]
async fn who_floods_and_comes_back_again_and_again_is_cut_off_each_time() {
    let mut site = Site::new().await;
    let ping = Message::Ping(Ping { id: 1 }).encode().unwrap();
    let flood = [hello("a"), ping.repeat(4096)].concat();
    let began = Instant::now();
    let (mut too_much, mut too_often) = (0, 0);
    while too_often < 20 {
        let Ok(mut hostile) = Hostile::dial(&site).await else {
            too_often += 1; // its handshake was refused
            continue;
        };
        let _ = hostile.send.write_all(&flood).await;
        let why = hostile.closed().await;
        if why.contains("it sends too much") {
            too_much += 1;
        } else {
            assert!(why.contains("it connects too often"), "{why}");
            too_often += 1;
        }
    }
    assert!(too_much > 0);
    site.told(&["WARN", "peer=a", "it sends too much"]).await;
    site.others_notice_nothing().await;
    // It is there and gone again so many times, and no more.
    let lines = site.lines(&["peer=a"]).len() as u64;
    let most = 2 * (u64::from(CONNECTIONS_AT_ONCE) + 1 + began.elapsed().as_secs());
    assert!(lines <= most, "{lines}: {:?}", site.log.lines());
    site.a_is_let_in().await;
}

#[tokio::test]
async fn frames_that_are_none_are_refused_and_the_peer_is_told_why() {
    let mut site = Site::new().await;
    let endless = [&hello("a")[..], &[0xff; 4]].concat();
    let garbage = [&hello("a")[..], &[0, 0, 0, 2, 2, 7]].concat();
    let cases: [(&[u8], &str); 3] = [
        (&[0xff; 64], "a frame of 4294967295 bytes"),
        (&endless, "a frame of 4294967295 bytes"),
        (&garbage, "cut short"),
    ];
    for (bytes, why) in cases {
        let mut hostile = Hostile::dial(&site).await.unwrap();
        hostile.send.write_all(bytes).await.unwrap();
        let said = hostile.closed().await;
        assert!(said.contains(why), "{said}");
        site.told(&["WARN", "peer=a", why]).await;
        site.log.clear();
    }
    // Mute.
    let hostile = Hostile::dial(&site).await.unwrap();
    let said = hostile.closed().await;
    assert!(
        said.contains("Hello") || said.contains("no control stream"),
        "{said}"
    );
    site.others_notice_nothing().await;
    site.a_is_let_in().await;
}
