//! A client that asks the service again and again, and counts what is not answered.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anycast_labs::topo::SERVICE;
use anycast_labs::{Netns, eventually};

use super::site::{PATIENCE, WHO};
use super::topology::SITES;

/// Between two queries of one address family.
const PERIOD: Duration = Duration::from_millis(100);
/// How long an answer may be under way before its query counts as lost.
const LATE: Duration = Duration::from_secs(1);

/// By its number when each query was sent, and which site answered in time.
type Answers = Arc<Mutex<Vec<(Instant, Option<usize>)>>>;

/// Asks for both addresses until dropped.
#[derive(Debug)]
pub(crate) struct Probe {
    answers: [Answers; 2],
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Probe {
    pub(crate) fn start(namespace: &Netns) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let answers: [Answers; 2] = Default::default();
        let threads = SERVICE.iter().zip(&answers).map(|(service, answers)| {
            let open = || {
                let any: IpAddr = if service.is_ipv4() {
                    [0; 4].into()
                } else {
                    [0_u16; 8].into()
                };
                let socket = UdpSocket::bind((any, 0)).unwrap();
                socket.set_read_timeout(Some(PERIOD / 10)).unwrap();
                socket
            };
            let socket = namespace.enter(open).unwrap();
            let (answers, over) = (Arc::clone(answers), Arc::clone(&over));
            let service = SocketAddr::new(*service, 53);
            thread::spawn(move || ask(&socket, service, &answers, &over))
        });
        Self {
            threads: threads.collect(),
            answers,
            over,
        }
    }

    /// How many have been asked so far, in each family.
    pub(crate) fn mark(&self) -> [usize; 2] {
        self.answers
            .each_ref()
            .map(|answers| answers.lock().unwrap().len())
    }

    /// How many of those asked from `from` to now were lost, of how many. Waits for the late.
    pub(crate) fn lost(&self, from: [usize; 2]) -> (usize, usize) {
        let until = self.mark();
        thread::sleep(LATE);
        let mut counts = (0, 0);
        for ((answers, from), until) in self.answers.iter().zip(from).zip(until) {
            let answers = answers.lock().unwrap();
            let asked = &answers[from..until];
            counts.0 += asked.iter().filter(|query| query.1.is_none()).count();
            counts.1 += asked.len();
        }
        counts
    }

    /// Waits until this site answers what is asked from now on, in both families.
    pub(crate) fn await_site(&self, site: usize) {
        let from = self.mark();
        let what = format!("{} to answer", SITES[site].device);
        eventually(PATIENCE, &what, || {
            self.answers.iter().zip(from).all(|(answers, from)| {
                let answers = answers.lock().unwrap();
                let mut newest = answers[from..]
                    .iter()
                    .rev()
                    .filter_map(|query| query.1.as_ref());
                newest.next() == Some(&site)
            })
        })
        .unwrap();
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // One that panicked has been told of by the answers that are missing.
            let _ = thread.join();
        }
    }
}

fn ask(socket: &UdpSocket, service: SocketAddr, answers: &Answers, over: &AtomicBool) {
    let mut buffer = [0; 1500];
    let mut next = Instant::now();
    while !over.load(Ordering::Relaxed) {
        if Instant::now() >= next {
            next = Instant::now() + PERIOD;
            let number = {
                let mut answers = answers.lock().unwrap();
                answers.push((Instant::now(), None));
                answers.len() - 1
            };
            // Without a route it is lost, as any other.
            let _ = socket.send_to(&query(number), service);
        }
        if let Ok((length, _)) = socket.recv_from(&mut buffer) {
            note(&buffer[..length], &mut answers.lock().unwrap());
        }
    }
}

/// A DNS query for the text record of [`WHO`].
fn query(number: usize) -> Vec<u8> {
    // Fewer than 65,536 in the longest of these labs.
    let mut query = u16::try_from(number).unwrap().to_be_bytes().to_vec();
    query.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in WHO.split('.') {
        query.push(u8::try_from(label.len()).unwrap());
        query.extend(label.bytes());
    }
    query.extend([0, 0, 16, 0, 1]);
    query
}

/// The name of the site is the end of its answer. A service that was frozen answers when it is
/// too late, what it finds in its socket: that is no answer.
fn note(answer: &[u8], answers: &mut [(Instant, Option<usize>)]) {
    let [high, low, ..] = *answer else { return };
    let number = usize::from(u16::from_be_bytes([high, low]));
    let site = SITES
        .iter()
        .position(|site| answer.ends_with(site.device.as_bytes()));
    if let (Some((sent, slot)), Some(site)) = (answers.get_mut(number), site)
        && sent.elapsed() <= LATE
    {
        *slot = Some(site);
    }
}

#[test]
fn an_answer_is_known_by_its_number_and_its_end() {
    let now = Instant::now();
    let mut answers = vec![(now, None); 3];
    answers.extend(now.checked_sub(2 * LATE).map(|sent| (sent, None)));
    note(b"\x00\x01 anything site-c", &mut answers);
    note(b"\x00\x09 anything site-a", &mut answers);
    note(b"\x00\x02 refused", &mut answers);
    note(b"\x00\x03 too late site-a", &mut answers);
    let sites: Vec<_> = answers.iter().map(|query| query.1).collect();
    assert_eq!(sites[..3], [None, Some(2), None]);
    assert!(sites[3..].iter().all(Option::is_none));
    assert_eq!(query(258)[..2], [1, 2]);
    assert_eq!(query(0)[12..25], *b"\x04node\x07example");
}
