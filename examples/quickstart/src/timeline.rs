//! One run as a story: what was seen, with times since the fault, and whether it is what
//! should be seen. Pure: events in, lines out.
//!
//! What is seen comes from several watchers, some milliseconds apart. So a line waits until
//! the lines of its causes are out, and a cause that is seen after its effect gets the
//! effect's time: it was there by then.

use std::fmt;
use std::time::{Duration, Instant};

use crate::network::SITES;

/// What was seen when.
pub(crate) type Stamped = (Instant, Event);

/// What can be seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// The boost of a site appeared or is gone.
    Boost { site: usize, there: bool },
    /// The site that the router sends packets to.
    Route(Option<usize>),
    /// Another site sends what the client is to have next.
    Moved(Moved),
    /// So much of the file has arrived.
    Progress { attempt: u32, bytes: u64 },
    /// The client's request failed; it begins again.
    Broken { attempt: u32, why: String },
    /// The client has the file.
    Finished(Finished),
    /// The client's request failed in a way that no repetition mends.
    Failed(String),
}

/// A transfer that goes on at another site: whose blocks were the last and the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moved {
    /// The site that sent until now.
    pub(crate) from: usize,
    /// The number of its last block.
    pub(crate) last: u16,
    /// The site that sends now.
    pub(crate) to: usize,
    /// The number of its first block.
    pub(crate) first: u16,
}

/// The file as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finished {
    /// Which request succeeded, from 1.
    pub(crate) attempt: u32,
    /// The node that the request came to, as it named itself.
    pub(crate) node: Option<String>,
    /// Its size.
    pub(crate) bytes: u64,
    /// BLAKE3 of it.
    pub(crate) hash: blake3::Hash,
    /// The longest time between two blocks that brought the client on.
    pub(crate) longest_wait: Duration,
    /// Packets that the client sent again.
    pub(crate) repeated: u64,
}

/// What has to be seen in this run.
#[derive(Debug, Clone)]
pub(crate) struct Expected {
    /// The site that serves, and fails.
    pub(crate) failing: usize,
    /// The site that takes over.
    pub(crate) other: usize,
    /// Whether the boost of the failing site has to go.
    pub(crate) boost_goes: bool,
    /// Size of the file.
    pub(crate) bytes: u64,
    /// BLAKE3 of the file.
    pub(crate) hash: blake3::Hash,
}

/// The steps after the fault, each the cause of the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    BoostGone,
    RouteMoved,
    /// The transfer goes on at the other site, or, where it broke, begins anew there.
    Continued,
    Finished,
}

const STEPS: [Step; 4] = [
    Step::BoostGone,
    Step::RouteMoved,
    Step::Continued,
    Step::Finished,
];

/// How a run went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Took {
    /// From the fault to the whole file.
    pub(crate) whole: Duration,
    /// The longest time without a block.
    pub(crate) longest_wait: Duration,
    /// Requests that failed, each of which was begun again from byte 0.
    pub(crate) failed: u32,
}

impl fmt::Display for Took {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, wait) = (self.whole.as_secs_f32(), self.longest_wait.as_secs_f32());
        write!(f, "{whole:.1} s ")?;
        if self.failed > 0 {
            return write!(
                f,
                "(begun again from byte 0: {} failed)",
                requests(self.failed)
            );
        }
        write!(f, "(the longest wait for a block: {wait:.1} s)")
    }
}

fn requests(number: u32) -> String {
    match number {
        0 => "no request".to_owned(),
        1 => "1 request".to_owned(),
        many => format!("{many} requests"),
    }
}

/// One run.
#[derive(Debug)]
pub(crate) struct Timeline {
    expected: Expected,
    fault: Option<Instant>,
    /// When each of [`STEPS`] was seen.
    seen: [Option<Instant>; STEPS.len()],
    /// How many of [`STEPS`] are told.
    told: usize,
    attempt: u32,
    /// Requests that failed after the fault.
    failed: u32,
    moved: Option<Moved>,
    finished: Option<Finished>,
}

impl Timeline {
    pub(crate) const fn new(expected: Expected) -> Self {
        Self {
            expected,
            fault: None,
            seen: [None; STEPS.len()],
            told: 0,
            attempt: 1,
            failed: 0,
            moved: None,
            finished: None,
        }
    }

    /// The fault is about to happen. Answers its line.
    pub(crate) fn fault(&mut self, now: Instant, what: &str) -> String {
        self.fault = Some(now);
        line(Duration::ZERO, what)
    }

    pub(crate) const fn fault_is_done(&self) -> bool {
        self.fault.is_some()
    }

    /// Everything that has to be seen was seen and told.
    pub(crate) const fn is_complete(&self) -> bool {
        self.told == STEPS.len()
    }

    /// How long it took, once it is [complete](Self::is_complete).
    pub(crate) fn took(&self) -> Took {
        Took {
            whole: self.since_fault(self.seen[Step::Finished as usize]),
            longest_wait: self
                .finished
                .as_ref()
                .map_or(Duration::ZERO, |finished| finished.longest_wait),
            failed: self.failed,
        }
    }

    /// What is waited for, for a message.
    pub(crate) fn missing(&self) -> &'static str {
        if self.fault.is_none() {
            return "the first half of the file to arrive";
        }
        match STEPS.get(self.told) {
            Some(Step::BoostGone) => "the boost to go",
            Some(Step::RouteMoved) => "the route to move",
            Some(Step::Continued) => "the transfer to go on",
            Some(Step::Finished) | None => "the transfer to finish",
        }
    }

    /// Takes what was seen; answers the lines to show now.
    ///
    /// # Errors
    /// What should not have been seen.
    pub(crate) fn handle(&mut self, at: Instant, event: Event) -> Result<Vec<String>, String> {
        let mut lines = Vec::new();
        match event {
            Event::Boost { site, there } => self.handle_boost(at, site, there)?,
            Event::Route(site) => lines.extend(self.handle_route(at, site)?),
            Event::Moved(moved) => self.handle_moved(at, moved)?,
            Event::Progress { attempt, bytes } => {
                if self.fault.is_some() && self.failed > 0 && attempt >= self.attempt && bytes > 0 {
                    self.see(Step::Continued, at);
                }
            }
            Event::Broken { attempt, why } => lines.extend(self.handle_broken(at, attempt, &why)),
            Event::Finished(finished) => self.handle_finished(at, finished)?,
            Event::Failed(why) => return Err(format!("the transfer failed: {why}")),
        }
        lines.extend(self.tell());
        Ok(lines)
    }

    fn handle_boost(&mut self, at: Instant, site: usize, there: bool) -> Result<(), String> {
        let name = SITES[site];
        if there {
            return Err(format!("the boost of {name} appeared during the run"));
        }
        let due = self.expected.boost_goes && site == self.expected.failing;
        if self.fault.is_none() || !due {
            return Err(format!(
                "{name} lost its boost, though nothing was done to it"
            ));
        }
        self.see(Step::BoostGone, at);
        Ok(())
    }

    fn handle_route(&mut self, at: Instant, site: Option<usize>) -> Result<Option<String>, String> {
        if self.fault.is_none() {
            // That it is where it belongs may be told late.
            return if site == Some(self.expected.failing) {
                Ok(None)
            } else {
                Err("the route moved, though nothing was done yet".to_owned())
            };
        }
        match site {
            None => {
                let text = "the route is gone, and no other is known yet";
                Ok(Some(line(self.since_fault(Some(at)), text)))
            }
            Some(site) if site == self.expected.other => {
                self.see(Step::RouteMoved, at);
                Ok(None)
            }
            Some(site) => Err(format!("the route moved to {}", SITES[site])),
        }
    }

    fn handle_moved(&mut self, at: Instant, moved: Moved) -> Result<(), String> {
        let (from, to) = (SITES[moved.from], SITES[moved.to]);
        if self.fault.is_none() || moved.to != self.expected.other {
            return Err(format!(
                "{to} sent block {} of a transfer that {from} had served",
                thousands(moved.first.into())
            ));
        }
        self.moved = Some(moved);
        self.see(Step::Continued, at);
        Ok(())
    }

    fn handle_broken(&mut self, at: Instant, attempt: u32, why: &str) -> Option<String> {
        self.attempt = attempt + 1;
        if self.fault.is_none() {
            return Some(format!(
                "   the transfer broke by itself ({why}) and is begun again"
            ));
        }
        self.failed += 1;
        // What went on there broke there: what is told next is a beginning.
        if self.told <= Step::Continued as usize {
            self.moved = None;
            self.seen[Step::Continued as usize] = None;
        }
        let text = format!("transfer broken: {why}");
        (self.failed == 1).then(|| line(self.since_fault(Some(at)), &text))
    }

    fn handle_finished(&mut self, at: Instant, finished: Finished) -> Result<(), String> {
        let expected = &self.expected;
        if self.fault.is_none() {
            return Err("the transfer was over before anything was broken".to_owned());
        }
        if self.failed == 0 && self.moved.is_none() {
            return Err(format!(
                "the file is there, but {} sent nothing of it",
                SITES[expected.other]
            ));
        }
        let begun_at = if self.failed == 0 {
            expected.failing
        } else {
            expected.other
        };
        let node = finished.node.as_deref().unwrap_or("a node without a name");
        if node != SITES[begun_at] {
            return Err(format!("{node} took the request, not {}", SITES[begun_at]));
        }
        if finished.bytes != expected.bytes {
            return Err(format!(
                "{} bytes arrived, not {}",
                finished.bytes, expected.bytes
            ));
        }
        if finished.hash != expected.hash {
            return Err(format!(
                "the bytes that arrived differ: BLAKE3 {}, not {}",
                finished.hash, expected.hash
            ));
        }
        self.finished = Some(finished);
        self.see(Step::Continued, at);
        self.see(Step::Finished, at);
        Ok(())
    }

    fn see(&mut self, step: Step, at: Instant) {
        self.seen[step as usize].get_or_insert(at);
    }

    /// The lines of the steps whose causes are all told.
    fn tell(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(&step) = STEPS.get(self.told) {
            if step == Step::BoostGone && !self.expected.boost_goes {
                self.told += 1;
                continue;
            }
            if self.seen[step as usize].is_none() {
                break;
            }
            let at = self.seen[step as usize..].iter().flatten().min().copied();
            lines.push(line(self.since_fault(at), &self.text(step)));
            self.told += 1;
        }
        lines
    }

    fn text(&self, step: Step) -> String {
        let failing = SITES[self.expected.failing];
        let other = SITES[self.expected.other];
        match step {
            Step::BoostGone => {
                format!("boost gone at {failing}: its lifetime ended, the kernel removed it")
            }
            Step::RouteMoved => format!("route moved to {other}"),
            Step::Continued => match self.moved.filter(|_| self.failed == 0) {
                Some(moved) => {
                    // The watcher may miss packets on a busy machine, and then says no more.
                    let is_whole = moved.last.checked_add(1) == Some(moved.first);
                    let seen = if is_whole { "" } else { " seen" };
                    format!(
                        "the same transfer goes on: block {} was the last{seen} of {failing}, {} is the first{seen} of {other}",
                        thousands(moved.last.into()),
                        thousands(moved.first.into()),
                    )
                }
                None => format!(
                    "transfer restarted at {other}, from byte 0 ({} failed)",
                    requests(self.failed)
                ),
            },
            Step::Finished => self.text_of_finish(),
        }
    }

    fn text_of_finish(&self) -> String {
        let mut text = format!(
            "finished: {} bytes, BLAKE3 equal",
            thousands(self.expected.bytes)
        );
        if let Some(finished) = &self.finished {
            let packets = match finished.repeated {
                1 => "1 packet".to_owned(),
                many => format!("{many} packets"),
            };
            text += &format!(
                "; {} failed; the client repeated {packets},\n{:16}and its longest wait for a block was {:.3} s",
                requests(self.failed),
                "",
                finished.longest_wait.as_secs_f32()
            );
        }
        text
    }

    fn since_fault(&self, at: Option<Instant>) -> Duration {
        match (at, self.fault) {
            (Some(at), Some(fault)) => at.saturating_duration_since(fault),
            _ => Duration::ZERO,
        }
    }
}

/// `   + 2.913 s  what`
fn line(since_fault: Duration, what: &str) -> String {
    format!("   +{:>6.3} s  {what}", since_fault.as_secs_f64())
}

/// `33,554,432`
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests;
