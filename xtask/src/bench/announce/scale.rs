//! A thousand prefixes of one node, demoted in one batch.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anycast_labs::mrt::Message;
use anycast_labs::node::Kind;

use super::super::subject::failed;
use super::Subject;
use super::bed::Bed;
use super::controller::Controller;
use crate::run::Failure;

/// Prefixes.
const COUNT: u32 = 1000;
/// Demotions of each.
const ROUNDS: usize = 3;

pub(super) fn run() -> Result<String, Failure> {
    let mut text = format!(
        "\n## {COUNT} prefixes of one node, demoted in one batch\n\n\
         | announcer | all moved after ms | confirmed after ms | commands to the daemon | \
         UPDATEs sent | withdrawals |\n|---|--:|--:|--:|--:|--:|\n"
    );
    let mut missing = String::new();
    // exabgp is set up here with one address alone.
    let subjects = Subject::ALL.into_iter();
    for subject in subjects.filter(|subject| *subject != Subject::Exabgp) {
        match measure(subject) {
            Ok(row) => text += &row,
            Err(error) => missing += &super::not_measured(subject, &error),
        }
    }
    Ok(text + &missing)
}

/// A row; of the rounds, the one in the middle by time.
fn measure(subject: Subject) -> Result<String, Failure> {
    let bed = Bed::build(subject, COUNT)?;
    let through = Through::open(subject, &bed)?;
    let mut controller = Controller::start(subject, &bed, COUNT, Some(&through.folder))?;
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        bed.await_best("a")
            .map_err(|e| failed("site a", format!("{e}; {}", controller.said())))?;
        controller.settle(true)?;
        // FRR tells of a route-map twice, 5 s apart.
        thread::sleep(Duration::from_secs(6));
        let (heard, said) = (received(&bed)?.len(), through.commands());
        let decided = controller.decide(false)?;
        let moved = bed.routes.next("b", COUNT)?;
        controller.settle(false)?;
        let confirmed = decided.elapsed();
        let commands = through.commands() - said;
        let (updates, withdrawn) = sent(&received(&bed)?[heard..]);
        rounds.push((
            moved.saturating_duration_since(decided),
            confirmed,
            commands,
            updates,
            withdrawn,
        ));
        controller.decide(true)?;
    }
    rounds.sort();
    let (moved, confirmed, commands, updates, withdrawn) = rounds[ROUNDS / 2];
    let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
    let confirmed = if subject == Subject::Script {
        "never read back".to_owned()
    } else {
        format!("{:.0}", milliseconds(confirmed))
    };
    let commands = match subject {
        Subject::Script => "1".to_owned(),
        Subject::RouteMap => format!("{commands}, and one vtysh"),
        Subject::Loopback(_)
        | Subject::Daemon(_)
        | Subject::Protocol
        | Subject::Include
        | Subject::Exabgp => commands.to_string(),
    };
    Ok(format!(
        "| {} | {:.0} | {confirmed} | {commands} | {updates} | {withdrawn} |\n",
        subject.name(),
        milliseconds(moved),
    ))
}

fn received(bed: &Bed) -> Result<Vec<Message>, Failure> {
    let records = bed.router.received().map_err(|e| failed("the dump", e))?;
    let from_a = |record: &anycast_labs::mrt::Record| record.peer.to_string() == "10.10.1.2";
    Ok(records
        .into_iter()
        .filter(from_a)
        .map(|record| record.message)
        .collect())
}

/// Messages with announcements, and prefixes withdrawn.
fn sent(messages: &[Message]) -> (usize, usize) {
    let (mut updates, mut withdrawn) = (0, 0);
    for message in messages {
        if let Message::Update(update) = message {
            updates += usize::from(!update.announced.is_empty());
            withdrawn += update.withdrawn.len();
        }
    }
    (updates, withdrawn)
}

/// A socket before the daemon's that counts what is asked.
struct Through {
    folder: PathBuf,
    count: Arc<AtomicUsize>,
}

impl Through {
    fn open(subject: Subject, bed: &Bed) -> Result<Self, Failure> {
        let folder = bed.folder.join("through");
        fs::create_dir_all(&folder).map_err(|e| failed("folder", e))?;
        let (name, end) = match subject.kind() {
            Some(Kind::Frr) => ("bgpd.vty", 0),
            Some(Kind::Bird) | None => ("bird.ctl", b'\n'),
        };
        let listener = UnixListener::bind(folder.join(name)).map_err(|e| failed("socket", e))?;
        let behind = bed.sockets().join(name);
        let through = Self {
            folder,
            count: Arc::default(),
        };
        let count = Arc::clone(&through.count);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (behind, count) = (behind.clone(), Arc::clone(&count));
                thread::spawn(move || pass(&client, &behind, end, &count));
            }
        });
        Ok(through)
    }

    fn commands(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
}

/// Passes everything on until either side closes.
fn pass(client: &UnixStream, behind: &Path, end: u8, count: &AtomicUsize) -> Option<()> {
    let daemon = UnixStream::connect(behind).ok()?;
    let (mut from, mut to) = (daemon.try_clone().ok()?, client.try_clone().ok()?);
    let back = thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Both);
    });
    let (mut from, mut to) = (client, &daemon);
    let mut buffer = [0; 65536];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        let said = buffer[..length].iter().filter(|byte| **byte == end);
        count.fetch_add(said.count(), Ordering::Relaxed);
        to.write_all(&buffer[..length]).ok()?;
    }
    let _ = daemon.shutdown(std::net::Shutdown::Both);
    back.join().ok()
}
