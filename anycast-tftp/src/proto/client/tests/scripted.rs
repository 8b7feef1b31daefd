//! Single packets against a client in every phase.

use super::*;

const SERVER: &str = "192.0.2.69:69";
const TID: &str = "192.0.2.69:40000";

struct Script {
    client: Client,
    now: Instant,
    buffer: Vec<u8>,
}

impl Script {
    fn read(settings: Settings) -> Self {
        let now = Instant::now();
        Self::new(
            Client::read(socket(SERVER), b"file", settings, now).unwrap(),
            now,
        )
    }

    fn write(settings: Settings) -> Self {
        let now = Instant::now();
        let client = Client::write(socket(SERVER), b"file", None, settings, now).unwrap();
        Self::new(client, now)
    }

    fn new(client: Client, now: Instant) -> Self {
        let mut script = Self {
            client,
            now,
            buffer: vec![0; 2048],
        };
        let (to, request) = script.sent().unwrap();
        assert!(to == socket(SERVER) && request[1] <= 2);
        script
    }

    fn sent(&mut self) -> Option<(SocketAddr, Vec<u8>)> {
        let transmit = self.client.poll_transmit(self.now, &mut self.buffer)?;
        Some((transmit.to, self.buffer[..transmit.len].to_vec()))
    }

    fn get<'d>(&mut self, from: &str, datagram: &'d [u8]) -> Option<&'d [u8]> {
        self.client
            .handle_datagram(self.now, socket(from), datagram)
    }

    fn data(&mut self, from: &str, block: u16, len: usize) -> bool {
        let mut datagram = crate::proto::packet::data_header(block).to_vec();
        datagram.resize(4 + len, b'd');
        self.get(from, &datagram).is_some()
    }

    fn ack(&mut self, block: u16) {
        let ack = crate::proto::packet::ack(block);
        assert_eq!(self.get(TID, &ack), None);
    }

    fn assert_ack(&mut self, block: u16) {
        let ack = crate::proto::packet::ack(block).to_vec();
        assert_eq!(self.sent(), Some((socket(TID), ack)));
        self.assert_quiet();
    }

    fn assert_blocks_sent(&mut self, blocks: &[u16]) {
        for block in blocks {
            let (_, packet) = self.sent().unwrap();
            assert_eq!(packet[..4], crate::proto::packet::data_header(*block));
        }
        self.assert_quiet();
    }

    fn assert_quiet(&mut self) {
        assert_eq!(self.sent(), None);
    }

    fn time_out(&mut self) {
        (self.now, _) = self.client.poll_timeout().unwrap();
        self.client.handle_timeout(self.now);
    }

    fn failure(&self) -> &Failure {
        self.client.outcome().unwrap().unwrap_err()
    }
}

fn socket(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn a_read_without_options() {
    let mut script = Script::read(Settings::plain());
    assert!(script.data(TID, 1, 512));
    script.assert_ack(1);
    assert!(script.data(TID, 2, 5));
    assert_eq!(script.client.outcome(), Some(Ok(())));
    script.assert_ack(2);
    assert_eq!((script.client.received(), script.client.blocks()), (517, 2));
    assert_eq!(script.client.agreed(), Some(&Agreed::default()));
}

#[test]
fn options_are_acknowledged_with_block_zero() {
    let mut script = Script::read(Settings::default());
    script.get(TID, b"\0\x06blksize\x008\0windowsize\x002\0tsize\x0020\0");
    script.assert_ack(0);
    assert_eq!(script.client.agreed().unwrap().size, Some(20));
    assert!(script.data(TID, 1, 8));
    script.assert_quiet();
    assert!(script.data(TID, 2, 8));
    script.assert_ack(2);
    assert!(script.data(TID, 3, 4));
    script.assert_ack(3);
}

#[test]
fn a_lost_acknowledgement_of_the_options_is_repeated() {
    let oack = b"\0\x06blksize\x008\0";
    let mut script = Script::read(Settings::default());
    script.get(TID, oack);
    script.assert_ack(0);
    script.get(TID, oack);
    script.assert_ack(0);
    assert!(script.data(TID, 1, 8));
    script.assert_ack(1);
    script.get(TID, oack);
    script.assert_quiet();
}

#[test]
fn the_request_is_repeated_with_doubling_then_given_up() {
    let mut script = Script::read(Settings::plain().retries(3));
    let start = script.now;
    for after in [1, 3, 7] {
        script.time_out();
        assert_eq!(script.now - start, Duration::from_secs(after));
        assert_eq!(script.sent().unwrap().0, socket(SERVER));
    }
    script.time_out();
    let after = Duration::from_secs(15);
    assert_eq!(script.failure(), &Failure::NoAnswer { after });
    script.assert_quiet();
    assert_eq!(script.client.poll_timeout(), None);
}

#[test]
fn repetition_without_progress_is_no_answer() {
    let mut script = Script::read(Settings::plain().give_up(Duration::from_secs(5)));
    assert!(script.data(TID, 1, 512));
    script.assert_ack(1);
    while script.client.outcome().is_none() {
        assert!(!script.data(TID, 1, 512));
        script.time_out();
        while script.sent().is_some() {}
    }
    assert!(matches!(script.failure(), Failure::NoAnswer { after } if after.as_secs() >= 5));
}

#[test]
fn a_server_that_only_repeats_itself_is_given_up() {
    let five = Duration::from_secs(5);
    for settings in [
        Settings::plain().retries(1000).give_up(five),
        Settings::plain().retries(3),
    ] {
        let mut script = Script::read(settings);
        assert!(script.data(TID, 1, 512));
        script.assert_ack(1);
        // It repeats sooner than we would.
        for _ in 0..100 {
            script.now += Duration::from_millis(200);
            assert!(!script.data(TID, 1, 512));
            script.client.handle_timeout(script.now);
            while script.sent().is_some() {}
        }
        assert!(matches!(
            script.client.outcome(),
            Some(Err(Failure::NoAnswer { .. }))
        ));
    }
}

#[test]
fn an_old_block_is_acknowledged_again_but_not_twice_at_once() {
    let mut script = Script::read(Settings::plain());
    assert!(script.data(TID, 1, 512));
    script.assert_ack(1);
    assert!(!script.data(TID, 1, 512));
    script.assert_ack(1);
    assert!(!script.data(TID, 1, 512));
    script.assert_quiet();
    script.now += Duration::from_secs(1);
    assert!(!script.data(TID, 1, 512));
    script.assert_ack(1);
}

#[test]
fn a_gap_is_reported_once() {
    let mut script = Script::read(Settings::default());
    script.get(TID, b"\0\x06windowsize\x004\0");
    script.assert_ack(0);
    assert!(script.data(TID, 1, 512));
    assert!(!script.data(TID, 3, 512));
    script.assert_ack(1);
    assert!(!script.data(TID, 4, 512));
    script.assert_quiet();
    for block in 2..=5 {
        assert!(script.data(TID, block, 512));
    }
    script.assert_ack(5);
}

#[test]
fn the_tail_of_a_window_that_is_lost_is_asked_for() {
    let mut script = Script::read(Settings::default());
    script.get(TID, b"\0\x06windowsize\x004\0");
    script.assert_ack(0);
    assert!(script.data(TID, 1, 512));
    script.time_out();
    script.assert_ack(1);
}

#[test]
fn the_last_acknowledgement_is_repeated_while_dallying() {
    let mut script = Script::read(Settings::plain());
    assert!(script.data(TID, 1, 0));
    script.assert_ack(1);
    assert!(!script.data(TID, 1, 0));
    script.assert_ack(1);
    let (_, reason) = script.client.poll_timeout().unwrap();
    assert_eq!(reason, TimeoutReason::Dally);
    script.time_out();
    assert!(!script.data(TID, 1, 0));
    script.assert_quiet();
    assert_eq!(script.client.outcome(), Some(Ok(())));
}

#[test]
fn without_dallying_the_last_acknowledgement_is_still_sent() {
    let mut script = Script::read(Settings::plain().dally(Duration::ZERO));
    assert!(script.data(TID, 1, 0));
    script.client.handle_timeout(script.now);
    script.assert_ack(1);
    script.time_out();
    assert_eq!(script.client.poll_timeout(), None);
}

#[test]
fn single_port_servers_answer_from_their_own_port() {
    let mut script = Script::read(Settings::plain());
    assert!(script.data(SERVER, 1, 512));
    assert_eq!(script.sent().unwrap().0, socket(SERVER));
    assert_eq!(script.client.peer(), Some(socket(SERVER)));
}

#[test]
fn strangers_get_error_5_when_that_is_safe() {
    let mut script = Script::read(Settings::plain());
    assert!(script.data(TID, 1, 512));
    script.assert_ack(1);
    // Another host: may be forged.
    assert!(!script.data("198.51.100.1:40000", 2, 512));
    script.assert_quiet();
    // An ERROR is never answered.
    script.get("192.0.2.69:40001", b"\0\x05\0\0gone\0");
    script.assert_quiet();
    // Another port of the server: a second copy of the request was served.
    for _ in 0..MAX_STRANGERS {
        assert!(!script.data("192.0.2.69:40001", 2, 512));
        let (to, packet) = script.sent().unwrap();
        assert_eq!(to, socket("192.0.2.69:40001"));
        assert_eq!(packet[..4], [0, 5, 0, 5]);
    }
    assert!(!script.data("192.0.2.69:40001", 2, 512));
    script.assert_quiet();
    assert!(script.data(TID, 2, 0));
    assert_eq!(script.client.outcome(), Some(Ok(())));
}

#[test]
fn an_error_ends_the_transfer_and_is_not_answered() {
    let mut script = Script::read(Settings::plain());
    script.get(SERVER, b"\0\x05\0\x01File not found");
    assert_eq!(
        script.failure(),
        &Failure::Server {
            code: ErrorCode::FileNotFound,
            message: "File not found".into()
        }
    );
    script.assert_quiet();
}

#[test]
fn unacceptable_options_are_refused_with_error_8() {
    for oack in [
        &b"\0\x06blksize\x001429\0"[..],
        b"\0\x06blksize\x001\0",
        b"\0\x06utimeout\x001\0",
        b"\0\x06timeout\x001\0",
        b"\0\x06anycast-node\0ams1\0",
        b"\0\x06blksize",
    ] {
        let mut script = Script::read(Settings::default());
        script.get(TID, oack);
        assert!(
            matches!(script.failure(), Failure::Options { .. }),
            "{oack:?}"
        );
        let (to, packet) = script.sent().unwrap();
        assert_eq!((to, &packet[..4]), (socket(TID), &[0, 5, 0, 8][..]));
        script.assert_quiet();
    }
}

#[test]
fn a_block_that_is_too_large_ends_the_transfer() {
    let mut script = Script::read(Settings::default());
    assert!(!script.data(TID, 1, 513));
    let (len, blksize) = (513, 512);
    assert_eq!(script.failure(), &Failure::Oversized { len, blksize });
    assert_eq!(script.sent().unwrap().1[..4], [0, 5, 0, 4]);
}

#[test]
fn rubbish_changes_nothing() {
    let mut script = Script::read(Settings::plain());
    for rubbish in [
        &b""[..],
        b"\0",
        b"\0\x03\0",
        b"\0\x03\0\x02late",
        b"\0\x04\0\0",
        b"\0\x07\0\x01",
        b"\0\x01f\0octet\0",
    ] {
        assert_eq!(script.get(TID, rubbish), None, "{rubbish:?}");
        script.assert_quiet();
        assert_eq!(script.client.peer(), None);
    }
    assert!(script.data("192.0.2.69:40002", 1, 3));
}

#[test]
fn wrap_to_one_is_detected_in_lock_step() {
    for (rollover, number, accepted) in [
        (Rollover::Zero, 0, true),
        (Rollover::Zero, 1, false),
        (Rollover::One, 1, true),
        (Rollover::One, 0, false),
        (Rollover::Detect, 0, true),
        (Rollover::Detect, 1, true),
    ] {
        let mut script = Script::read(Settings::default().rollover(rollover));
        script.get(TID, b"\0\x06blksize\x008\0");
        while script.sent().is_some() {}
        for block in 1..=65_535 {
            assert!(script.data(TID, block, 8));
            script.assert_ack(block);
        }
        assert_eq!(script.data(TID, number, 8), accepted, "{rollover:?}");
        if accepted {
            script.assert_ack(number);
            assert!(script.data(TID, number + 1, 0));
            script.assert_ack(number + 1);
        }
    }
}

#[test]
fn a_write_in_lock_step_ignores_repeated_acknowledgements() {
    let mut script = Script::write(Settings::plain());
    assert_eq!(script.client.wants_block(), None);
    script.ack(0);
    assert_eq!(script.client.wants_block(), Some(512));
    assert!(!script.client.handle_block(&[b'd'; 513]));
    assert!(script.client.handle_block(&[b'd'; 512]));
    assert_eq!(script.client.wants_block(), None);
    script.assert_blocks_sent(&[1]);
    script.ack(0);
    script.assert_quiet();
    script.ack(1);
    script.ack(1);
    script.ack(7);
    script.assert_quiet();
    assert!(script.client.handle_block(b""));
    script.assert_blocks_sent(&[2]);
    script.time_out();
    script.assert_blocks_sent(&[2]);
    script.ack(2);
    assert_eq!(script.client.outcome(), Some(Ok(())));
    assert_eq!(script.client.poll_timeout(), None);
}

#[test]
fn a_write_resumes_its_window_after_the_block_acknowledged() {
    let mut script = Script::write(Settings::default());
    script.get(TID, b"\0\x06windowsize\x004\0");
    while script.client.wants_block().is_some() {
        script.client.handle_block(&[b'd'; 512]);
    }
    script.assert_blocks_sent(&[1, 2, 3, 4]);
    script.ack(2);
    script.client.handle_block(&[b'd'; 512]);
    script.client.handle_block(&[b'd'; 1]);
    assert_eq!(script.client.wants_block(), None);
    script.assert_blocks_sent(&[3, 4, 5, 6]);
    // Block 3 was lost: believed once.
    script.ack(2);
    script.assert_blocks_sent(&[3, 4, 5, 6]);
    script.ack(2);
    script.assert_quiet();
    script.ack(1);
    script.assert_quiet();
    script.ack(6);
    assert_eq!(script.client.outcome(), Some(Ok(())));
}

#[test]
fn an_idle_source_is_not_the_peers_silence() {
    let mut script = Script::write(Settings::plain());
    script.ack(0);
    assert_eq!(script.client.poll_timeout(), None);
    script.now += Duration::from_secs(3600);
    script.client.handle_block(&[b'd'; 512]);
    script.assert_blocks_sent(&[1]);
    script.time_out();
    assert_eq!(script.client.outcome(), None);
}

#[test]
fn abort_tells_the_peer() {
    let mut script = Script::write(Settings::plain());
    script.ack(0);
    script.client.abort(ErrorCode::DiskFull, "full");
    assert_eq!(script.failure(), &Failure::Aborted);
    assert_eq!(script.sent().unwrap().1, b"\0\x05\0\x03full\0");
    script.assert_quiet();
}

#[test]
fn refused_ends_the_transfer_unless_told_otherwise() {
    let mut script = Script::read(Settings::plain());
    script.client.handle_refused();
    assert_eq!(script.failure(), &Failure::Refused);
    let mut script = Script::read(Settings::plain().abort_when_refused(false));
    script.client.handle_refused();
    assert_eq!(script.client.outcome(), None);
}

#[test]
fn a_write_whose_window_is_too_large_is_not_begun() {
    let write = |blksize, windowsize| {
        let settings = Settings::default()
            .blksize(Some(blksize))
            .windowsize(Some(windowsize));
        Client::write(socket(SERVER), b"f", None, settings, Instant::now()).is_ok()
    };
    assert!(write(8, 32_767));
    assert!(!write(8, 32_768));
    assert!(!write(65_464, 129));
    assert!(Client::read(socket(SERVER), b"", Settings::plain(), Instant::now()).is_err());
}
