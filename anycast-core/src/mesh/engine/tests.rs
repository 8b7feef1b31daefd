use super::*;
use crate::service::ServiceName;

const ID: ConnectionId = ConnectionId(1);

fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

fn service(name: &str, preferred: bool) -> ServiceStatus {
    ServiceStatus {
        name: ServiceName::new(name).unwrap(),
        preferred,
        draining: false,
        failing_for: (!preferred).then_some(0),
        outlives: None,
        turn: TurnStage::Idle,
    }
}

/// Two nodes and a network without delay; b's wall clock is ahead.
struct Pair {
    now: Instant,
    wall: i64,
    engines: [Engine; 2],
    said: [Vec<Output>; 2],
}

const AHEAD: i64 = 7_000_000;

impl Pair {
    fn new() -> Self {
        let now = Instant::now();
        let engine = |own: &str, other: &str| Engine::new(now, node(own), 7, vec![node(other)]);
        Self {
            now,
            wall: 1_700_000_000_000_000,
            engines: [engine("a", "b"), engine("b", "a")],
            said: [Vec::new(), Vec::new()],
        }
    }

    fn name(index: usize) -> NodeName {
        node(["a", "b"][index])
    }

    fn connect(&mut self) {
        for index in [0, 1] {
            let peer = Self::name(1 - index);
            self.engines[index].handle_connected(self.now, &peer, ID);
        }
        self.carry();
    }

    /// Until nothing is under way any more.
    fn carry(&mut self) {
        loop {
            let mut is_done = true;
            for index in [0, 1] {
                while let Some(output) = self.engines[index].poll_output() {
                    if let Output::Send(id, message) = &output {
                        is_done = false;
                        let other = 1 - index;
                        let wall = self.wall + if other == 1 { AHEAD } else { 0 };
                        let from = Self::name(index);
                        let message = message.clone();
                        self.engines[other].handle_message(self.now, wall, &from, *id, message);
                    }
                    self.said[index].push(output);
                }
            }
            if is_done {
                return;
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let next = self.engines.iter().filter_map(Engine::poll_timeout).min();
            let Some((at, _)) = next.filter(|(at, _)| *at <= end) else {
                break;
            };
            let at = at.max(self.now);
            self.wall += i64::try_from((at - self.now).as_micros()).unwrap();
            self.now = at;
            for (index, engine) in self.engines.iter_mut().enumerate() {
                let wall = self.wall + if index == 1 { AHEAD } else { 0 };
                engine.handle_timeout(self.now, wall);
            }
            self.carry();
        }
        self.now = end;
    }

    fn view(&self, index: usize) -> PeerView {
        self.engines[index].peers().next().unwrap().1
    }

    /// What the node heard last of its peer's services.
    fn heard(&self, index: usize) -> Option<&Vec<ServiceStatus>> {
        self.said[index]
            .iter()
            .rev()
            .find_map(|output| match output {
                Output::Heard { services, .. } => Some(services),
                Output::Send(..)
                | Output::Close(..)
                | Output::Up(_)
                | Output::Down(..)
                | Output::Asked { .. }
                | Output::Granted { .. } => None,
            })
    }

    fn statuses(&self, index: usize) -> usize {
        let is_status = |output: &&Output| matches!(output, Output::Send(_, Message::Status(_)));
        self.said[index].iter().filter(is_status).count()
    }

    fn closed(&self, index: usize) -> Option<String> {
        self.said[index].iter().find_map(|output| match output {
            Output::Close(_, reason) => Some(reason.to_string()),
            Output::Send(..)
            | Output::Up(_)
            | Output::Down(..)
            | Output::Heard { .. }
            | Output::Asked { .. }
            | Output::Granted { .. } => None,
        })
    }
}

#[test]
fn two_nodes_hear_each_other_at_once_and_then_each_second() {
    let mut pair = Pair::new();
    pair.engines[0].handle_status(pair.now, vec![service("tftp", true)]);
    pair.connect();
    assert_eq!(pair.heard(1).unwrap()[0], service("tftp", true));
    assert_eq!(pair.heard(0).unwrap().len(), 0);
    assert!(pair.view(0).up_since.is_some());
    assert_eq!(pair.view(0).version, Some(VERSION));
    let before = pair.statuses(0);
    pair.pass(Duration::from_secs(10));
    assert_eq!(pair.statuses(0) - before, 10);
}

#[test]
fn a_change_goes_out_soon_and_many_changes_not_more_often() {
    let mut pair = Pair::new();
    pair.connect();
    pair.pass(Duration::from_millis(500));
    let before = pair.statuses(0);
    for round in 0..20 {
        let services = vec![service("tftp", round % 2 == 0)];
        pair.engines[0].handle_status(pair.now, services);
        pair.pass(Duration::from_millis(10));
    }
    let sent = pair.statuses(0) - before;
    assert!((2..=3).contains(&sent), "{sent} in 200 ms");
    pair.pass(STATUS_LEAST);
    assert!(!pair.heard(1).unwrap()[0].preferred, "the last counts");
}

#[test]
fn what_fails_is_said_to_fail_for_longer_and_longer() {
    let mut pair = Pair::new();
    pair.engines[0].handle_status(pair.now, vec![service("tftp", false)]);
    pair.connect();
    pair.pass(Duration::from_secs(3));
    assert_eq!(pair.heard(1).unwrap()[0].failing_for, Some(3000));
}

#[test]
fn the_other_clock_is_known() {
    let mut pair = Pair::new();
    pair.connect();
    pair.pass(Duration::from_secs(3));
    assert_eq!(pair.view(0).clock.unwrap().micros, AHEAD);
    assert_eq!(pair.view(1).clock.unwrap().micros, -AHEAD);
}

#[test]
fn a_key_does_not_speak_for_another_name() {
    let mut pair = Pair::new();
    pair.engines[1].hello.name = node("c");
    pair.connect();
    let said = pair.closed(0).unwrap();
    assert_eq!(said, "it calls itself c, and has the key of b");
    assert!(pair.view(0).up_since.is_none());
    assert_eq!(pair.view(0).down.unwrap().as_str(), said);
}

#[test]
fn without_a_version_in_common_they_part() {
    let mut pair = Pair::new();
    (
        pair.engines[1].hello.version,
        pair.engines[1].hello.least_version,
    ) = (9, 8);
    pair.connect();
    assert!(pair.closed(0).unwrap().contains("versions 8 to 9"));
    let mut pair = Pair::new();
    pair.engines[1].hello.version = 9;
    pair.connect();
    assert_eq!(
        pair.view(0).version,
        Some(VERSION),
        "the newer one comes down"
    );
}

#[test]
fn who_floods_is_cut_off_and_who_is_lively_is_not() {
    let mut pair = Pair::new();
    pair.connect();
    let (now, peer) = (pair.now, node("b"));
    for id in 0..2 * BURST {
        let at = now + Duration::from_secs(1) / RATE * id;
        let ping = Message::Ping(Ping { id });
        pair.engines[0].handle_message(at, 0, &peer, ID, ping);
    }
    pair.carry();
    assert_eq!(pair.closed(0), None);
    let at = now + Duration::from_secs(3600);
    for id in 0..2 * BURST {
        let ping = Message::Ping(Ping { id });
        pair.engines[0].handle_message(at, 0, &peer, ID, ping);
    }
    let mut pongs = 0;
    while let Some(output) = pair.engines[0].poll_output() {
        pongs += u32::from(matches!(output, Output::Send(_, Message::Pong(_))));
        pair.said[0].push(output);
    }
    assert_eq!(pongs, BURST);
    assert_eq!(pair.closed(0).unwrap(), "it sends too much");
}

#[test]
fn a_replayed_status_ends_the_connection() {
    let mut pair = Pair::new();
    pair.connect();
    let status = Message::Status(Status {
        sequence: 1,
        ..Status::default()
    });
    for _ in 0..2 {
        let (now, peer) = (pair.now, node("b"));
        pair.engines[0].handle_message(now, 0, &peer, ID, status.clone());
    }
    pair.carry();
    assert_eq!(pair.closed(0).unwrap(), "its status goes back in time");
}

#[test]
fn whoever_does_not_say_hello_first_is_not_heard() {
    let mut pair = Pair::new();
    pair.engines[0].handle_connected(pair.now, &node("b"), ID);
    let ping = Message::Ping(Ping { id: 1 });
    pair.engines[0].handle_message(pair.now, 0, &node("b"), ID, ping);
    let mut said = Vec::new();
    while let Some(output) = pair.engines[0].poll_output() {
        said.push(output);
    }
    assert!(
        matches!(&said[..], [Output::Send(..), Output::Close(..)]),
        "{said:?}"
    );
}

#[test]
fn whoever_says_nothing_is_let_go() {
    let mut pair = Pair::new();
    pair.engines[0].handle_connected(pair.now, &node("b"), ID);
    let (at, why) = pair.engines[0].poll_timeout().unwrap();
    assert_eq!((at, why), (pair.now + HELLO_WITHIN, "a Hello is overdue"));
    pair.engines[0].handle_timeout(at, 0);
    assert_eq!(pair.engines[0].poll_timeout(), None);
    assert_eq!(pair.view(0).down.unwrap().as_str(), "it has not said Hello");
}

#[test]
fn a_new_connection_replaces_the_old_one_which_is_then_deaf() {
    let mut pair = Pair::new();
    pair.connect();
    let (now, peer) = (pair.now, node("b"));
    pair.engines[0].handle_connected(now, &peer, ConnectionId(2));
    let status = Message::Status(Status::default());
    pair.engines[0].handle_message(now, 0, &peer, ID, status);
    pair.engines[0].handle_closed(pair.now, &peer, ID, "timed out".into());
    let mut said = Vec::new();
    while let Some(output) = pair.engines[0].poll_output() {
        said.push(output);
    }
    assert!(
        matches!(&said[..], [Output::Close(ID, _), Output::Send(..)]),
        "{said:?}"
    );
    // Its own end is the peer's.
    let hello = Message::Hello(pair.engines[1].hello.clone());
    pair.engines[0].handle_message(now, 0, &peer, ConnectionId(2), hello);
    pair.engines[0].handle_closed(pair.now, &peer, ConnectionId(2), "timed out".into());
    assert_eq!(pair.view(0).down.unwrap().as_str(), "timed out");
}
