//! The demonstration, inside the namespaces: two runs, a fault in each.
//!
//! **Threads.** Two that watch the boosts, one that watches the route, one the packets, with the
//! follower three more, and one for each transfer. They end when the demonstration does, whether well
//! or not. Everything inside ends after [`LIMIT`] at the latest.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

use anycast_labs::{diag, eventually};

use crate::error::Error;
use crate::follower::{self, BOOST, FLOOR};
use crate::network::{Network, SERVICE, SITES};
use crate::screen::{self, Screen};
use crate::site::{self, DEAD_MAN, Daemon, FILE, FILE_SIZE};
use crate::timeline::{Event, Expected, Stamped, Timeline, Took, thousands};
use crate::{Options, blocks, launch, transfer, watch};

const A: usize = 0;
const B: usize = 1;
/// The whole demonstration takes less, or is ended.
const LIMIT: Duration = Duration::from_secs(120);
/// Each single thing that is waited for comes sooner, however slow the machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long nothing may have been told before a run begins.
const SETTLED: Duration = Duration::from_millis(300);
/// The sites are in step for so long before a run begins: what file sync has just written it looks
/// at again, before it says for certain what it is.
const IN_STEP: Duration = Duration::from_secs(4);
/// How often it is looked whether a daemon has ended.
const SLICE: Duration = Duration::from_millis(200);
/// The fault strikes when this much of the file has arrived, in percent.
const FAULT_AT: u64 = 40;

/// Runs it.
pub(crate) fn run(options: &Options) -> Result<(), Error> {
    launch::enter()?;
    thread::spawn(|| {
        thread::sleep(LIMIT);
        screen::complain(&format!("not done after {} s", LIMIT.as_secs()));
        // The first process of the PID namespace: all others end with it.
        std::process::exit(1);
    });
    let outcome = show(options);
    if options.verbose && outcome.is_err() {
        screen::dump(&diag::logs());
    }
    outcome
}

fn show(options: &Options) -> Result<(), Error> {
    let begun = Instant::now();
    let screen = Screen::new();
    screen.line("anycast quickstart: a TFTP transfer, and the site that serves it fails\n");
    let bird = Network::bird();
    let network = Network::build(bird.is_ok() && !options.follower)?;
    let content = site::content();
    let hash = blake3::hash(&content);
    let daemons = site::lay_out(&content)?;
    drop(content);
    introduce(&screen, &network, bird.err(), hash)?;

    let stop = AtomicBool::new(false);
    let (sender, events) = mpsc::channel();
    thread::scope(|scope| {
        let _stop = Stop(&stop);
        start_watchers(scope, &network, &stop, &sender);
        let mut story = Story {
            network: &network,
            daemons,
            events,
            boosts: [false; 2],
            route: None,
            screen,
        };
        story.prepare()?;
        let expected = Expected {
            failing: A,
            other: B,
            boost_goes: true,
            bytes: FILE_SIZE as u64,
            hash,
        };
        let fetch = || start_fetching(scope, &network, &stop, &sender);
        let killed = story.daemon_killed(expected.clone(), fetch)?;
        story.restore()?;
        let fetch = || start_fetching(scope, &network, &stop, &sender);
        let expected = Expected {
            boost_goes: false,
            ..expected
        };
        let cut = story.site_cut(expected, fetch)?;
        story.screen.line(&format!(
            "\nDone in {:.0} s. The client had the whole file\n\
            \x20 after the daemon was killed in {killed},\n\
            \x20 after the site was cut off in {cut}.",
            begun.elapsed().as_secs_f32(),
        ));
        if killed.failed + cut.failed > 0 {
            let why = "a transfer was begun again where it should have gone on";
            return Err(Error::Deviation(why.to_owned()));
        }
        Ok(())
    })
}

/// Set when dropped, also by an error: the threads end.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn introduce(
    screen: &Screen,
    network: &Network,
    no_bird: Option<String>,
    hash: blake3::Hash,
) -> Result<(), Error> {
    let routes = match (network.bird_version()?, no_bird) {
        (Some(version), _) => {
            format!("{version}, real BGP, at the router and the sites (--follower does without)")
        }
        (None, Some(why)) => format!("the built-in follower; for real BGP, {why}"),
        (None, None) => "the built-in follower, as asked (BIRD is installed)".to_owned(),
    };
    screen.line(&format!(
        "  client --- router --+-- {}   anycast-tftpd at {SERVICE}; the router's choice at a tie\n\
        \x20                     +-- {}   anycast-tftpd at {SERVICE}\n\n\
        \x20 routes   {routes}\n\
        \x20 levels   floor {FLOOR}, boost {BOOST}; without its daemon a boost lives {DEAD_MAN} s at the most\n\
        \x20 mesh     both sites have the same files, and hand transfers on (before-reply)\n\
        \x20 file     {FILE}, {} bytes, BLAKE3 {:.16}...\n\
        \x20 client   limited to {} MB/s, so that there is time to break things\n",
        SITES[A],
        SITES[B],
        thousands(FILE_SIZE as u64),
        hash.to_hex(),
        transfer::RATE / 1_000_000,
    ));
    Ok(())
}

/// The bytes that have arrived, if this event tells.
const fn arrived(event: &Event) -> Option<u64> {
    match event {
        Event::Progress { bytes, .. } => Some(*bytes),
        Event::Finished(finished) => Some(finished.bytes),
        Event::Boost { .. }
        | Event::Route(_)
        | Event::Moved(_)
        | Event::Broken { .. }
        | Event::Failed(_) => None,
    }
}

/// A thread that fails says so by [`Event::Failed`].
fn start<'scope>(
    scope: &'scope Scope<'scope, '_>,
    events: &Sender<Stamped>,
    work: impl FnOnce(&Sender<Stamped>) -> Result<(), Error> + Send + 'scope,
) {
    let events = events.clone();
    scope.spawn(move || {
        if let Err(error) = work(&events) {
            let _ = events.send((Instant::now(), Event::Failed(error.to_string())));
        }
    });
}

fn start_watchers<'scope>(
    scope: &'scope Scope<'scope, '_>,
    network: &'scope Network,
    stop: &'scope AtomicBool,
    events: &Sender<Stamped>,
) {
    for site in [A, B] {
        let namespace = network.site(site);
        start(scope, events, move |to| {
            watch::boost(site, namespace, stop, to)
        });
        if network.table().is_some() {
            start(scope, events, move |_| {
                follower::speak(site, namespace, stop)
            });
        }
    }
    start(scope, events, |to| watch::route(network.router(), stop, to));
    start(scope, events, |to| {
        blocks::moves(network.router(), stop, to)
    });
    if let Some(table) = network.table() {
        start(scope, events, |_| {
            follower::listen(network.router(), table, stop)
        });
    }
}

fn start_fetching<'scope>(
    scope: &'scope Scope<'scope, '_>,
    network: &'scope Network,
    stop: &'scope AtomicBool,
    events: &Sender<Stamped>,
) {
    start(scope, events, |to| {
        transfer::run(network.client(), stop, to)
    });
}

struct Story<'a> {
    network: &'a Network,
    daemons: [Daemon; 2],
    events: Receiver<Stamped>,
    boosts: [bool; 2],
    route: Option<usize>,
    screen: Screen,
}

impl Story<'_> {
    /// Both sites up and preferred, and the route at the first.
    fn prepare(&mut self) -> Result<(), Error> {
        let begun = Instant::now();
        for (site, daemon) in self.daemons.iter_mut().enumerate() {
            daemon.start(self.network.site(site))?;
        }
        self.await_all_well()?;
        self.screen.line(&format!(
            "Both sites are up, in step and preferred after {:.1} s; the router takes {}.",
            begun.elapsed().as_secs_f32(),
            SITES[A]
        ));
        Ok(())
    }

    fn restore(&mut self) -> Result<(), Error> {
        let begun = Instant::now();
        self.daemons[A].start(self.network.site(A))?;
        self.await_all_well()?;
        self.screen.line(&format!(
            "   the daemon at {} is started again: in step, preferred and served from after {:.1} s",
            SITES[A],
            begun.elapsed().as_secs_f32()
        ));
        Ok(())
    }

    fn await_all_well(&mut self) -> Result<(), Error> {
        let deadline = Instant::now() + PATIENCE;
        while self.boosts != [true; 2] || self.route != Some(A) {
            for daemon in &mut self.daemons {
                daemon.check()?;
            }
            if Instant::now() >= deadline {
                return Err(Error::Deviation(self.not_well()));
            }
            if let Some((_, Event::Failed(why))) = self.next(Instant::now() + SLICE)? {
                return Err(Error::Deviation(why));
            }
        }
        for site in [A, B] {
            let mut known = Ok(None);
            let what = format!("the router to know {} as preferred", SITES[site]);
            eventually(PATIENCE, &what, || {
                known = self.network.preference(site);
                !matches!(known, Ok(preference) if preference != Some(BOOST))
            })?;
            known?;
        }
        self.await_in_step(deadline)?;
        self.settle(deadline)
    }

    /// Both have the file, and each knows it of the other.
    fn await_in_step(&mut self, deadline: Instant) -> Result<(), Error> {
        let mut since = None;
        while since.is_none_or(|since: Instant| since.elapsed() < IN_STEP) {
            if !self.daemons.iter().all(Daemon::is_in_step) {
                since = None;
            } else if since.is_none() {
                since = Some(Instant::now());
            }
            if Instant::now() >= deadline {
                let seconds = PATIENCE.as_secs();
                return Err(Error::Deviation(format!(
                    "the sites are not in step after {seconds} s; --verbose shows their logs"
                )));
            }
            if let Some((_, Event::Failed(why))) = self.next(Instant::now() + SLICE)? {
                return Err(Error::Deviation(why));
            }
        }
        Ok(())
    }

    /// The router knew one boost before the other, and may have gone there and back: what was
    /// seen of that is no part of what follows.
    fn settle(&mut self, deadline: Instant) -> Result<(), Error> {
        loop {
            match self.next(Instant::now() + SETTLED)? {
                None if self.boosts == [true; 2] && self.route == Some(A) => return Ok(()),
                Some((_, Event::Failed(why))) => return Err(Error::Deviation(why)),
                None | Some(_) if Instant::now() >= deadline => {
                    return Err(Error::Deviation(self.not_well()));
                }
                None | Some(_) => {}
            }
        }
    }

    fn not_well(&self) -> String {
        let seconds = PATIENCE.as_secs();
        match self.boosts.iter().position(|there| !there) {
            Some(site) => format!(
                "{} is not preferred after {seconds} s; --verbose shows its log",
                SITES[site]
            ),
            None => format!("the route is not at {} after {seconds} s", SITES[A]),
        }
    }

    /// The next event, noted in our picture of boosts and route; `None` at the deadline.
    fn next(&mut self, deadline: Instant) -> Result<Option<Stamped>, Error> {
        let left = deadline.saturating_duration_since(Instant::now());
        match self.events.recv_timeout(left) {
            Ok((at, event)) => {
                if let Event::Boost { site, there } = event {
                    self.boosts[site] = there;
                }
                if let Event::Route(site) = event {
                    self.route = site;
                }
                Ok(Some((at, event)))
            }
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => {
                Err(Error::Deviation("every watcher has ended".to_owned()))
            }
        }
    }

    /// First run.
    fn daemon_killed(&mut self, expected: Expected, fetch: impl FnOnce()) -> Result<Took, Error> {
        self.screen
            .line("\n1. The daemon alone dies at the serving site: SIGKILL, no goodbye");
        let since = self.network.messages()?;
        let what = format!("anycast-tftpd at {} killed", SITES[A]);
        let took = self.fail_over(expected, &what, fetch, |story| story.daemons[A].kill())?;
        self.no_withdrawal(since)?;
        Ok(took)
    }

    /// Second run.
    fn site_cut(&mut self, expected: Expected, fetch: impl FnOnce()) -> Result<Took, Error> {
        self.screen
            .line("\n2. The whole site is cut off: its link goes down, everything in it lives on");
        let what = format!("{} cut off", SITES[A]);
        self.fail_over(expected, &what, fetch, |story| story.network.cut(A))
    }

    fn fail_over(
        &mut self,
        expected: Expected,
        what: &str,
        fetch: impl FnOnce(),
        fault: impl FnOnce(&mut Self) -> Result<(), Error>,
    ) -> Result<Took, Error> {
        let total = expected.bytes;
        let mut timeline = Timeline::new(expected);
        let mut fault = Some(fault);
        self.screen.begin(total);
        fetch();
        let mut deadline = Instant::now() + PATIENCE;
        while !timeline.is_complete() {
            let Some((at, event)) = self.next(deadline)? else {
                let seconds = PATIENCE.as_secs();
                let missing = timeline.missing();
                let why = format!("waited {seconds} s in vain for {missing}");
                return Err(Error::Deviation(why));
            };
            let progress = arrived(&event);
            if let Some(bytes) = progress {
                self.screen.progress(bytes);
                deadline = Instant::now() + PATIENCE;
            }
            for line in timeline.handle(at, event).map_err(Error::Deviation)? {
                self.screen.line(&line);
            }
            let half = progress.is_some_and(|bytes| bytes * 100 >= total * FAULT_AT);
            if let Some(fault) = fault.take_if(|_| half && !timeline.fault_is_done()) {
                let bytes = thousands(progress.unwrap_or(0));
                let line = timeline.fault(Instant::now(), &format!("{what}, at byte {bytes}"));
                fault(self)?;
                self.screen.line(&line);
            }
        }
        self.screen.end();
        Ok(timeline.took())
    }

    /// What the failing site told the router since message `since`: its floor, and nothing
    /// withdrawn. Only BGP can tell.
    fn no_withdrawal(&self, since: usize) -> Result<(), Error> {
        let mut heard = Ok(None);
        let what = format!("the router to hear of {} at its floor", SITES[A]);
        eventually(PATIENCE, &what, || {
            heard = self.network.heard(A, since);
            let at_floor = |heard: &crate::network::Heard| heard.preferences.last() == Some(&FLOOR);
            !matches!(&heard, Ok(Some(heard)) if !at_floor(heard))
        })?;
        let Some(heard) = heard? else { return Ok(()) };
        if heard.withdrawals > 0 || heard.sessions > 0 {
            return Err(Error::Deviation(format!(
                "{} withdrew its route {} times, and its session changed {} times",
                SITES[A], heard.withdrawals, heard.sessions
            )));
        }
        self.screen.line(&format!(
            "   BGP messages of {} about {SERVICE}: announced at {BOOST} before, {} now; withdrawals: {}",
            SITES[A],
            heard
                .preferences
                .iter()
                .map(u32::to_string)
                .collect::<Vec<_>>()
                .join(", "),
            heard.withdrawals
        ));
        Ok(())
    }
}
