use super::*;

const ID: ConnectionId = ConnectionId(1);

fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

fn names(names: &[&str]) -> Vec<ServiceName> {
    let names = names.iter().map(|name| ServiceName::new(name).unwrap());
    names.collect()
}

fn wants(engine: &mut Engine, now: Instant, services: &[&str]) {
    engine.handle_wants(now, names(services).into_iter().collect());
}

/// Node a, with b connected and up, and what a says then.
struct Side {
    now: Instant,
    engine: Engine,
}

impl Side {
    fn new(incarnation: u64) -> Self {
        let now = Instant::now();
        let engine = Engine::new(now, node("a"), incarnation, vec![node("b")]);
        let mut side = Self { now, engine };
        side.connect(ID);
        side
    }

    fn connect(&mut self, id: ConnectionId) {
        self.engine.handle_connected(self.now, &node("b"), id);
        let other = Engine::new(self.now, node("b"), 3, Vec::new());
        self.hear(id, Message::Hello(other.hello));
    }

    fn hear(&mut self, id: ConnectionId, message: Message) {
        self.engine
            .handle_message(self.now, 0, &node("b"), id, message);
    }

    fn outputs(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.engine.poll_output()).collect()
    }

    /// The requests that were made since the last look.
    fn requests(&mut self) -> Vec<GrantRequest> {
        self.engine.handle_timeout(self.now, 0);
        let outputs = self.outputs().into_iter();
        let requests = outputs.filter_map(|output| {
            let Output::Send(_, Message::GrantRequest(request)) = output else {
                return None;
            };
            Some(request)
        });
        requests.collect()
    }

    /// What a promise, or a refusal, comes to.
    fn granted(&mut self, id: ConnectionId, grant: Grant) -> Option<(Instant, usize, usize)> {
        self.hear(id, Message::Grant(grant));
        self.outputs().into_iter().find_map(|output| {
            let Output::Granted {
                until,
                granted,
                refused,
                ..
            } = output
            else {
                return None;
            };
            Some((until, granted.len(), refused.len()))
        })
    }
}

fn grant(id: u64, granted: &[&str], refused: &[&str]) -> Grant {
    Grant {
        id,
        duration: millis(GRANT_FOR),
        granted: names(granted),
        refused: names(refused),
    }
}

#[test]
fn promises_are_asked_for_while_they_are_wanted_and_not_more_often_than_needed() {
    let mut side = Side::new(7);
    assert!(side.requests().is_empty(), "nothing is wanted");
    wants(&mut side.engine, side.now, &["dns"]);
    let first = side.requests();
    assert_eq!(first[0].services, names(&["dns"]));
    assert!(side.requests().is_empty());
    wants(&mut side.engine, side.now, &["dns", "ntp"]);
    assert!(side.requests().is_empty());
    side.now += ASK_LEAST;
    let second = side.requests();
    assert_eq!(second[0].services, names(&["dns", "ntp"]));
    assert_ne!(first[0].id, second[0].id);
    wants(&mut side.engine, side.now, &["ntp"]);
    let mut asked = 0;
    for _ in 0..120 {
        side.now += Duration::from_millis(500);
        asked += side.requests().len();
    }
    assert_eq!(asked, 20, "once every three seconds");
    wants(&mut side.engine, side.now, &[]);
    side.now += ASK_EVERY;
    assert!(side.requests().is_empty());
}

#[test]
fn the_holder_counts_from_its_request_and_takes_an_answer_once() {
    let mut side = Side::new(7);
    wants(&mut side.engine, side.now, &["dns", "ntp"]);
    let asked_at = side.now;
    let id = side.requests()[0].id;
    side.now += Duration::from_secs(2);
    let answer = Grant {
        duration: u32::MAX,
        ..grant(id, &["dns", "tftp"], &["ntp"])
    };
    let granted = side.granted(ID, answer.clone());
    assert_eq!(granted, Some((asked_at + GRANT_FOR, 1, 1)));
    let again = side.granted(ID, answer);
    assert_eq!(
        again.map(|(_, granted, refused)| granted + refused),
        Some(0)
    );
}

#[test]
fn a_late_answer_promises_nothing() {
    let mut side = Side::new(7);
    wants(&mut side.engine, side.now, &["dns"]);
    let id = side.requests()[0].id;
    side.now += GRANT_FOR;
    let granted = side.granted(ID, grant(id, &["dns"], &[]));
    assert_eq!(granted.map(|(_, granted, _)| granted), Some(0));
}

#[test]
fn an_answer_to_an_earlier_request_connection_or_start_is_not_taken() {
    let mut side = Side::new(7);
    assert_eq!(side.granted(ID, grant(7, &["dns"], &[])), None);
    wants(&mut side.engine, side.now, &["dns"]);
    let first = side.requests()[0].id;
    side.now += ASK_EVERY;
    let second = side.requests()[0].id;
    assert_eq!(side.granted(ID, grant(first, &["dns"], &[])), None);
    side.connect(ConnectionId(2));
    let third = side.requests()[0].id;
    assert_eq!(side.granted(ID, grant(second, &["dns"], &[])), None);
    assert_eq!(
        side.granted(ConnectionId(2), grant(second, &["dns"], &[])),
        None
    );
    let granted = side.granted(ConnectionId(2), grant(third, &["dns"], &[]));
    assert_eq!(granted.map(|(_, granted, _)| granted), Some(1));
    let mut later = Side::new(8);
    wants(&mut later.engine, later.now, &["dns"]);
    assert!(!later.requests().is_empty());
    assert_eq!(later.granted(ID, grant(first, &["dns"], &[])), None);
}

#[test]
fn a_request_is_answered_once_over_its_own_connection() {
    let mut side = Side::new(7);
    let request = |id| {
        Message::GrantRequest(GrantRequest {
            id,
            duration: 9000,
            services: names(&["dns"]),
        })
    };
    side.hear(ID, request(1));
    side.hear(ID, request(2));
    let asked = side.outputs().into_iter().filter_map(|output| {
        let Output::Asked {
            connection,
            id,
            duration,
            ..
        } = output
        else {
            return None;
        };
        Some((connection, id, duration))
    });
    let asked: Vec<_> = asked.collect();
    assert_eq!(asked.last(), Some(&(ID, 2, Duration::from_secs(9))));
    let answer = |id, connection| Answer {
        peer: node("b"),
        connection,
        id,
        duration: Duration::from_secs(9),
        granted: names(&["dns"]),
        refused: Vec::new(),
    };
    for (id, connection, sent) in [(1, ID, 0), (2, ConnectionId(9), 0), (2, ID, 1), (2, ID, 0)] {
        side.engine.handle_answer(answer(id, connection));
        let grants = side.outputs().into_iter();
        let grants = grants.filter(|out| matches!(out, Output::Send(_, Message::Grant(_))));
        assert_eq!(grants.count(), sent, "{id} over {connection:?}");
    }
}
