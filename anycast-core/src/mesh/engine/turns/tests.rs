//! Scenes of a few nodes, over a network without delay.

use super::*;
use crate::mesh::wire::{Turn, TurnAnswer, TurnWant, Vote, VoteRequest};

const SECOND: Duration = Duration::from_secs(1);
const SPACING: Duration = Duration::from_secs(5);

fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

fn tftp() -> ServiceName {
    ServiceName::new("tftp").unwrap()
}

/// Nodes a, b, c …, all of which see each other but for those that are `away`.
struct Net {
    now: Instant,
    names: Vec<NodeName>,
    nodes: Vec<Turns>,
    preferred: Vec<bool>,
    away: Vec<bool>,
    status_at: Instant,
}

impl Net {
    fn new(size: usize) -> Self {
        let now = Instant::now();
        let names: Vec<_> = ["a", "b", "c", "d", "e"][..size]
            .iter()
            .map(|n| node(n))
            .collect();
        let others = |own: &NodeName| -> Vec<_> {
            names
                .iter()
                .filter(|other| *other != own)
                .cloned()
                .collect()
        };
        let nodes = names
            .iter()
            .map(|name| Turns::new(now, name.clone(), &others(name), 1000));
        let mut net = Self {
            now,
            nodes: nodes.collect(),
            preferred: vec![false; size],
            away: vec![false; size],
            status_at: now,
            names,
        };
        for at in 0..size {
            net.need(at, Need::Nothing);
            net.connect(at);
        }
        net
    }

    /// Connects it with all others.
    fn connect(&mut self, at: usize) {
        self.away[at] = false;
        for other in (0..self.nodes.len()).filter(|other| *other != at) {
            let (now, own, peer) = (self.now, self.names[at].clone(), self.names[other].clone());
            self.nodes[at].handle_up(now, &peer, 2);
            self.nodes[other].handle_up(now, &own, 2);
        }
        self.tell();
    }

    fn cut_off(&mut self, at: usize) {
        self.away[at] = true;
        for other in (0..self.nodes.len()).filter(|other| *other != at) {
            let (now, own, peer) = (self.now, self.names[at].clone(), self.names[other].clone());
            self.nodes[at].handle_down(now, &peer);
            self.nodes[other].handle_down(now, &own);
        }
        self.carry();
    }

    fn need(&mut self, at: usize, need: Need) {
        let part = Part {
            spacing: SPACING,
            need,
        };
        let now = self.now;
        self.nodes[at].handle_parts(now, BTreeMap::from([(tftp(), part)]));
    }

    fn joins(&mut self, at: usize) {
        self.need(at, Need::Turn { leaves: false });
        self.tell();
    }

    /// Its change is in force.
    fn is_done(&mut self, at: usize, preferred: bool) {
        self.preferred[at] = preferred;
        self.need(at, Need::Nothing);
        self.tell();
    }

    fn own_status(&self, at: usize) -> ServiceStatus {
        ServiceStatus {
            name: tftp(),
            preferred: self.preferred[at],
            draining: false,
            failing_for: None,
            outlives: Some(8000),
            turn: self.nodes[at].stage(&tftp()),
        }
    }

    /// Everybody says how it is.
    fn tell(&mut self) {
        for at in 0..self.nodes.len() {
            let (now, own) = (self.now, self.own_status(at));
            self.nodes[at].handle_own_status(now, std::slice::from_ref(&own));
            let status = Status {
                services: vec![own],
                gives_turns: self.nodes[at].gives_turns(),
                ..Status::default()
            };
            for other in 0..self.nodes.len() {
                if other != at && !self.away[at] && !self.away[other] {
                    let name = self.names[at].clone();
                    self.nodes[other].handle_status(now, &name, &status);
                }
            }
        }
        self.carry();
    }

    fn carry(&mut self) {
        while let Some((from, to, message)) = self.next_message() {
            if self.away[from] || self.away[to] {
                continue;
            }
            let (now, peer) = (self.now, self.names[from].clone());
            let node = &mut self.nodes[to];
            match message {
                Message::TurnRequest(request) => node.handle_request(now, &peer, request),
                Message::Turn(turn) => node.handle_turn(now, &peer, &turn),
                Message::VoteRequest(request) => node.handle_vote_request(now, &peer, request),
                Message::Vote(vote) => node.handle_vote(now, &peer, vote),
                Message::Hello(_)
                | Message::Status(_)
                | Message::Ping(_)
                | Message::Pong(_)
                | Message::GrantRequest(_)
                | Message::Grant(_) => panic!("{message:?}"),
            }
        }
    }

    fn next_message(&mut self) -> Option<(usize, usize, Message)> {
        let mut from = self.nodes.iter_mut().enumerate();
        let (from, (to, message)) =
            from.find_map(|(from, node)| Some((from, node.poll_output()?)))?;
        let to = self.names.iter().position(|name| *name == to).unwrap();
        Some((from, to, message))
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            let due = self.nodes.iter().filter_map(Turns::poll_timeout);
            let due = due
                .map(|(at, _)| at)
                .chain([self.status_at, end])
                .min()
                .unwrap();
            self.now = self.now.max(due).min(end);
            let now = self.now;
            self.nodes
                .iter_mut()
                .for_each(|node| node.handle_timeout(now));
            if self.status_at <= now {
                self.status_at = now + STATUS_EVERY;
                self.tell();
            }
            self.carry();
        }
    }

    /// Until it has a turn; how long that took.
    fn until_turn(&mut self, at: usize) -> Duration {
        let begun = self.now;
        while !self.has_turn(at) {
            self.pass(Duration::from_millis(100));
            assert!(self.now - begun < SECOND * 100, "{:?}", self.state(at));
        }
        self.now - begun
    }

    fn state(&self, at: usize) -> TurnState {
        self.nodes[at].states().next().unwrap().1
    }

    fn has_turn(&self, at: usize) -> bool {
        matches!(self.state(at), TurnState::Has { .. })
    }

    fn waits_for(&self, at: usize) -> WaitsFor {
        let state = self.state(at);
        let TurnState::Waits { what, .. } = state else {
            panic!("{state:?}");
        };
        what
    }
}

/// A fleet that has just started gives its first turn when what was before it may be over.
const FIRST: Duration = SECOND.saturating_mul(15 + 5);

#[test]
fn who_asks_at_once_changes_one_after_the_other() {
    let mut net = Net::new(3);
    (0..3).for_each(|at| net.joins(at));
    net.pass(SECOND * 6);
    assert_eq!(net.nodes[2].giver(), Some(&node("a")));
    assert_eq!(net.waits_for(2), WaitsFor::Beginning);
    let first = SECOND * 6 + net.until_turn(0);
    assert!(
        first >= FIRST - SECOND && first <= FIRST + SECOND,
        "{first:?}"
    );
    assert_eq!(net.nodes[0].stage(&tftp()), TurnStage::Has);
    net.pass(ASK_EVERY);
    let joins = WaitsFor::Node {
        node: node("a"),
        leaves: false,
    };
    assert_eq!((net.waits_for(1), net.waits_for(2)), (joins.clone(), joins));
    net.is_done(0, true);
    net.pass(ASK_EVERY);
    assert_eq!(net.waits_for(1), WaitsFor::Settling);
    let next = ASK_EVERY + net.until_turn(1);
    assert!(next >= SPACING && next <= SPACING + SECOND, "{next:?}");
    assert!(!net.has_turn(0) && !net.has_turn(2));
    net.is_done(1, true);
    net.until_turn(2);
}

#[test]
fn a_turn_that_nobody_ends_ends_by_itself() {
    let mut net = Net::new(3);
    net.joins(1);
    net.until_turn(1);
    net.joins(2);
    let next = net.until_turn(2);
    let least = TURN_FOR - ASK_EVERY + SPACING;
    assert!(
        next >= least && next <= bound(TURN_FOR) + SPACING + SECOND,
        "{next:?}"
    );
    assert!(!net.has_turn(1));
}

#[test]
fn who_leaves_comes_before_who_joins() {
    let mut net = Net::new(3);
    net.preferred[1] = true;
    net.joins(0);
    net.joins(2);
    net.until_turn(0);
    net.need(1, Need::Turn { leaves: true });
    net.is_done(0, true);
    net.until_turn(1);
    let leaves = WaitsFor::Node {
        node: node("b"),
        leaves: true,
    };
    net.pass(ASK_EVERY);
    assert_eq!(net.waits_for(2), leaves);
}

#[test]
fn a_failure_is_a_change_that_others_wait_for() {
    let mut net = Net::new(3);
    net.preferred[2] = true;
    net.pass(FIRST * 2);
    net.preferred[2] = false;
    net.tell();
    net.joins(1);
    let waited = net.until_turn(1);
    assert!(
        waited >= SPACING && waited <= SPACING + SECOND,
        "{waited:?}"
    );
}

/// Its boost runs out some time after it was heard last, and nobody sees that.
#[test]
fn a_preferred_node_that_is_lost_changes_when_its_boost_runs_out() {
    let mut net = Net::new(3);
    net.preferred[2] = true;
    net.pass(FIRST * 2);
    net.cut_off(2);
    net.joins(1);
    let waited = net.until_turn(1);
    let least = SECOND * 7 + SPACING;
    assert!(
        waited >= least && waited <= least + SECOND * 2,
        "{waited:?}"
    );
}

#[test]
fn who_is_cut_off_has_no_turn_and_the_others_another_giver() {
    let mut net = Net::new(3);
    net.pass(FIRST * 2);
    net.joins(0);
    assert!(net.has_turn(0), "the giver's own");
    net.cut_off(0);
    assert_eq!(net.state(0), TurnState::CutOff { seen: 1, of: 3 });
    net.joins(2);
    net.pass(ASK_EVERY * 2);
    assert_eq!(net.nodes[2].giver(), Some(&node("b")));
    let waited = ASK_EVERY * 2 + net.until_turn(2);
    assert!(waited >= TURN_FOR + SPACING, "a new one waits: {waited:?}");
    assert!(!net.has_turn(0));
}

/// What a process before it has promised it does not know.
#[test]
fn a_node_that_has_started_consents_to_nobody_for_a_while() {
    let now = Instant::now();
    let mut turns = Turns::new(now, node("b"), &[node("a"), node("c")], 7);
    let mut ask = |peer: &str, id, at| {
        let duration = 4000;
        turns.handle_vote_request(at, &node(peer), VoteRequest { id, duration });
        let (_, answer) = turns.poll_output().unwrap();
        let Message::Vote(Vote { duration, .. }) = answer else {
            panic!("{answer:?}");
        };
        duration
    };
    assert_eq!(ask("a", 1, now), 0);
    let later = now + bound(VOTE_FOR);
    assert_eq!(ask("c", 2, later), 4000);
    assert_eq!(ask("a", 3, later + VOTE_FOR), 0, "bound to another");
    assert_eq!(ask("c", 4, later + VOTE_FOR), 4000);
    assert_eq!(ask("a", 5, later + VOTE_FOR + bound(VOTE_FOR)), 4000);
}

/// Requests that are late or doubled end no turn and bring none back.
#[test]
fn only_the_latest_request_counts() {
    let mut net = Net::new(3);
    net.pass(FIRST * 2);
    let want = TurnWant {
        service: tftp(),
        leaves: false,
        spacing: 5000,
        wish: 9,
    };
    let request = |id, wants: &[TurnWant]| TurnRequest {
        id,
        wants: wants.to_vec(),
    };
    let now = net.now;
    let giver = &mut net.nodes[0];
    let mut ask = |request: TurnRequest| {
        giver.handle_request(now, &node("b"), request);
        let mut answers = Vec::new();
        while let Some((to, message)) = giver.poll_output() {
            if let Message::Turn(Turn { id, services }) = message {
                let given = |one: &crate::mesh::wire::ServiceTurn| {
                    matches!(one.state, TurnAnswer::Given(_))
                };
                answers.push((to, id, services.iter().any(given)));
            }
        }
        answers
    };
    let given = ask(request(1_000_000, std::slice::from_ref(&want)));
    assert_eq!(given.last(), Some(&(node("b"), 1_000_000, true)));
    assert_eq!(ask(request(999_999, &[])), [], "late: it ends nothing");
    let again = ask(request(1_000_001, std::slice::from_ref(&want)));
    assert_eq!(
        again.last(),
        Some(&(node("b"), 1_000_001, true)),
        "the same turn"
    );
    let another = TurnWant { wish: 10, ..want };
    let again = ask(request(1_000_002, &[another]));
    assert_eq!(again.last(), Some(&(node("b"), 1_000_002, false)), "done");
    assert_eq!(ask(request(1_000_001, &[])), [], "doubled");
}

/// A node of the version before is seen, and consents; it never gives and has no turns.
#[test]
fn a_peer_of_the_version_before_is_a_member_and_no_giver() {
    let now = Instant::now();
    let mut turns = Turns::new(now, node("b"), &[node("a"), node("c")], 7);
    let part = Part {
        spacing: SECOND,
        need: Need::Turn { leaves: false },
    };
    turns.handle_parts(now, BTreeMap::from([(tftp(), part)]));
    let mut at = now;
    let mut has_turn = false;
    while at < now + FIRST + SECOND {
        if at == now {
            turns.handle_up(at, &node("a"), 1);
        }
        let status = Status {
            gives_turns: true, // it cannot say so
            ..Status::default()
        };
        turns.handle_status(at, &node("a"), &status);
        assert_eq!(turns.giver(), Some(&node("b")));
        has_turn |= matches!(turns.states().next().unwrap().1, TurnState::Has { .. });
        assert_eq!(turns.poll_output(), None, "it would not understand");
        at += Duration::from_millis(500);
    }
    assert!(has_turn, "two of three are a majority");
}
