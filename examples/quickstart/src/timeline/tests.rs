use super::*;

const A: usize = 0;
const B: usize = 1;

struct Run {
    timeline: Timeline,
    start: Instant,
    lines: Vec<String>,
}

fn hash() -> blake3::Hash {
    blake3::hash(b"file")
}

fn finished(attempt: u32) -> Finished {
    Finished {
        attempt,
        node: Some(SITES[if attempt == 1 { A } else { B }].to_owned()),
        bytes: 33_554_432,
        hash: hash(),
        longest_wait: Duration::from_millis(2915),
        repeated: 4,
    }
}

impl Run {
    fn new(boost_goes: bool) -> Self {
        Self {
            timeline: Timeline::new(Expected {
                failing: A,
                other: B,
                boost_goes,
                bytes: 33_554_432,
                hash: hash(),
            }),
            start: Instant::now(),
            lines: Vec::new(),
        }
    }

    fn at(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    /// A run whose fault happens at 1,000 ms.
    fn faulted(boost_goes: bool) -> Self {
        let mut run = Self::new(boost_goes);
        run.see(10, progress(1, 5));
        let line = run.timeline.fault(run.at(1000), "killed");
        run.lines.push(line);
        run
    }

    fn see(&mut self, ms: u64, event: Event) -> &mut Self {
        let lines = self.timeline.handle(self.at(ms), event).unwrap();
        self.lines.extend(lines);
        self
    }

    fn refuse(&mut self, event: Event) -> String {
        self.timeline.handle(self.at(5000), event).unwrap_err()
    }
}

fn progress(attempt: u32, bytes: u64) -> Event {
    Event::Progress { attempt, bytes }
}

fn broken(attempt: u32) -> Event {
    Event::Broken {
        attempt,
        why: "connection refused".to_owned(),
    }
}

const MOVED: Event = Event::Moved(Moved {
    from: A,
    last: 9_584,
    to: B,
    first: 9_585,
});

const BOOST_GONE: Event = Event::Boost {
    site: A,
    there: false,
};

#[test]
fn a_killed_daemon_is_told_step_by_step() {
    let mut run = Run::faulted(true);
    run.see(3913, BOOST_GONE)
        .see(3915, Event::Route(Some(B)))
        .see(4041, MOVED)
        .see(4043, progress(1, 1428));
    assert!(!run.timeline.is_complete());
    run.see(8200, Event::Finished(finished(1)));
    assert!(run.timeline.is_complete());
    let took = run.timeline.took().to_string();
    assert_eq!(took, "7.2 s (the longest wait for a block: 2.9 s)");
    assert_eq!(
        run.lines,
        [
            "   + 0.000 s  killed",
            "   + 2.913 s  boost gone at site-a: its lifetime ended, the kernel removed it",
            "   + 2.915 s  route moved to site-b",
            "   + 3.041 s  the same transfer goes on: block 9,584 was the last of site-a, 9,585 is the first of site-b",
            "   + 7.200 s  finished: 33,554,432 bytes, BLAKE3 equal; no request failed; the client repeated 4 packets,\n                and its longest wait for a block was 2.915 s",
        ]
    );
}

#[test]
fn a_transfer_that_breaks_is_told_as_begun_again() {
    let mut run = Run::faulted(true);
    run.see(1002, broken(1))
        .see(1100, broken(2))
        .see(3913, BOOST_GONE)
        .see(3915, Event::Route(Some(B)))
        .see(4041, progress(3, 1428))
        .see(8200, Event::Finished(finished(3)));
    assert!(run.timeline.is_complete());
    let took = run.timeline.took();
    assert_eq!(took.failed, 2);
    assert_eq!(
        took.to_string(),
        "7.2 s (begun again from byte 0: 2 requests failed)"
    );
    assert_eq!(
        run.lines[1..5],
        [
            "   + 0.002 s  transfer broken: connection refused",
            "   + 2.913 s  boost gone at site-a: its lifetime ended, the kernel removed it",
            "   + 2.915 s  route moved to site-b",
            "   + 3.041 s  transfer restarted at site-b, from byte 0 (2 requests failed)",
        ]
    );
}

#[test]
fn a_cause_that_is_seen_late_is_told_first_and_no_later_than_its_effect() {
    let mut run = Run::faulted(true);
    run.see(4000, MOVED);
    assert_eq!(run.lines.len(), 1);
    run.see(4001, Event::Route(Some(B)));
    assert_eq!(run.lines.len(), 1);
    run.see(4003, BOOST_GONE);
    let told: Vec<_> = run.lines[1..].iter().map(|line| &line[..28]).collect();
    assert_eq!(
        told,
        [
            "   + 3.000 s  boost gone at ",
            "   + 3.000 s  route moved to",
            "   + 3.000 s  the same trans"
        ]
    );
}

#[test]
fn a_site_that_is_cut_off_keeps_its_boost() {
    let mut run = Run::faulted(false);
    run.see(1001, Event::Route(None))
        .see(1004, Event::Route(Some(B)))
        .see(1260, MOVED)
        .see(6000, Event::Finished(finished(1)));
    assert!(run.timeline.is_complete());
    assert_eq!(
        run.lines[1],
        "   + 0.001 s  the route is gone, and no other is known yet"
    );
    assert_eq!(run.lines[2], "   + 0.004 s  route moved to site-b");
    assert!(run.refuse(BOOST_GONE).contains("site-a lost its boost"));
}

#[test]
fn old_data_is_no_restart() {
    let mut run = Run::faulted(false);
    run.see(1001, Event::Route(Some(B)))
        .see(1002, progress(1, 99));
    run.see(2000, broken(1)).see(2001, progress(1, 100));
    assert_eq!(run.timeline.missing(), "the transfer to go on");
}

#[test]
fn a_transfer_that_breaks_by_itself_is_told_and_does_not_count() {
    let mut run = Run::new(true);
    run.see(10, broken(1)).see(20, progress(2, 5));
    assert_eq!(
        run.lines,
        ["   the transfer broke by itself (connection refused) and is begun again"]
    );
    assert_eq!(
        run.timeline.missing(),
        "the first half of the file to arrive"
    );
}

#[test]
fn that_the_route_is_where_it_belongs_may_be_told_late() {
    let mut run = Run::new(true);
    run.see(10, Event::Route(Some(A)));
    assert!(run.lines.is_empty());
    assert!(run.refuse(Event::Route(None)).contains("nothing was done"));
}

#[test]
fn blocks_that_were_not_seen_are_not_claimed() {
    let mut run = Run::faulted(false);
    run.see(1001, Event::Route(Some(B)));
    run.see(
        1260,
        Event::Moved(Moved {
            from: A,
            last: 10,
            to: B,
            first: 17,
        }),
    );
    assert!(run.lines[2].contains("block 10 was the last seen of site-a, 17 is the first seen"));
}

#[test]
fn blocks_of_the_wrong_site_are_a_deviation() {
    assert!(Run::new(true).refuse(MOVED).contains("site-b sent block"));
    let back = Event::Moved(Moved {
        from: B,
        last: 2,
        to: A,
        first: 3,
    });
    assert!(
        Run::faulted(true)
            .refuse(back)
            .contains("site-a sent block")
    );
}

#[test]
fn what_happens_without_a_fault_is_a_deviation() {
    assert!(
        Run::new(true)
            .refuse(Event::Route(Some(B)))
            .contains("nothing was done")
    );
    assert!(
        Run::new(true)
            .refuse(BOOST_GONE)
            .contains("nothing was done")
    );
    let over = Run::new(true).refuse(Event::Finished(finished(1)));
    assert!(over.contains("before anything was broken"));
}

#[test]
fn a_file_that_differs_or_comes_from_elsewhere_is_a_deviation() {
    let refuse = |change: fn(&mut Finished)| {
        let mut finished = finished(2);
        change(&mut finished);
        let mut run = Run::faulted(false);
        run.see(2000, broken(1));
        run.refuse(Event::Finished(finished))
    };
    assert!(refuse(|f| f.hash = blake3::hash(b"other")).contains("BLAKE3"));
    assert!(refuse(|f| f.bytes -= 1).contains("33554431 bytes arrived"));
    assert!(refuse(|f| f.node = Some("site-a".into())).contains("site-a took"));
    assert!(refuse(|f| f.node = None).contains("without a name"));
}

#[test]
fn a_fault_that_breaks_nothing_is_a_deviation() {
    let error = Run::faulted(false).refuse(Event::Finished(finished(1)));
    assert!(error.contains("site-b sent nothing of it"));
}

#[test]
fn numbers_are_grouped() {
    assert_eq!(thousands(0), "0");
    assert_eq!(thousands(999), "999");
    assert_eq!(thousands(1_000), "1,000");
    assert_eq!(thousands(33_554_432), "33,554,432");
}
