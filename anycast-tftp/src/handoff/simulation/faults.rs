//! What befalls nodes.

use super::setting::{Fault, MS, SECOND};
use super::world::{Event, Offer, World};

/// A node was dead, or did nothing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Down {
    pub(super) node: usize,
    pub(super) from: u64,
    /// When it was up again, and its peers knew.
    pub(super) until: Option<u64>,
    /// When no routes led there any more.
    pub(super) shunned: Option<u64>,
}

impl World {
    pub(super) fn befalls(&mut self, fault: Fault) {
        self.say(|| format!("{fault:?}"));
        match fault {
            Fault::Cut(sides, length) => {
                self.count("cuts");
                self.cut(&sides);
                self.after(length, Event::Fault(Fault::Heal));
            }
            Fault::Heal => self.heal(),
            Fault::Die(at, converges, back) => {
                self.die(at, converges);
                if let Some(back) = back {
                    self.after(converges + back, Event::Fault(Fault::Back(at)));
                }
            }
            Fault::Back(at) => {
                if self.hosts[at].node.is_none() {
                    self.start(at);
                    self.is_back(at, 2 * SECOND);
                    // It is not preferred before it is ready.
                    self.hosts[at].attracts = false;
                    self.after(2 * SECOND, Event::Fault(Fault::Seek(at)));
                }
            }
            Fault::Pause(at, length, converges) => self.pause(at, length, converges),
            Fault::Resume(at) => self.resume(at),
            Fault::Drain(at, moves, ends) => {
                self.count("drains");
                self.after(moves, Event::Fault(Fault::Shun(at)));
                self.after(moves + ends, Event::Fault(Fault::Die(at, 0, None)));
                self.hosts[at].is_draining = true;
                self.with_node(at, |node, now| node.handle_draining(now, true));
            }
            Fault::Shun(at) => {
                self.hosts[at].attracts = false;
                let now = self.now;
                let downs = self.downs.iter_mut().filter(|down| down.node == at);
                for down in downs {
                    down.shunned.get_or_insert(now);
                }
            }
            Fault::Seek(at) => {
                if self.hosts[at].node.is_some() && !self.hosts[at].is_paused {
                    self.hosts[at].attracts = true;
                }
            }
            Fault::Publish {
                node,
                file,
                version,
            } => self.publish(node, file, version),
            Fault::Hold {
                node,
                file,
                version,
            } => {
                let version = self.files[file].versions[version].clone();
                self.hosts[node].shelf.hold(&version);
            }
            Fault::Abort(index) => self.abort(index),
            Fault::Move(index, node) => self.visitors[index].route.at = node,
            Fault::Mute(index, packets) => self.visitors[index].mute = packets,
            Fault::Deafen(index, packets) => self.visitors[index].deaf = packets,
            Fault::Echo(index, later) => self.visitors[index].echo = Some(later),
            Fault::Flood(node, packets, prefixes) => self.flood(node, packets, prefixes),
        }
    }

    fn publish(&mut self, node: usize, file: usize, version: usize) {
        let name = self.files[file].name.clone();
        let now = self.now;
        // From now on the old one is not to be had there any more.
        for offer in &mut self.offers {
            if (offer.node, offer.file) == (node, file) {
                offer.until.get_or_insert(now);
            }
        }
        self.offers.push(Offer {
            node,
            file,
            version,
            until: None,
        });
        let version = self.files[file].versions[version].clone();
        self.hosts[node].shelf.publish(&name, &version);
        self.count("replaced");
    }

    fn die(&mut self, at: usize, converges: u64) {
        let Some(node) = self.hosts[at].node.take() else {
            return;
        };
        if self.hosts[at].is_draining && node.in_flight() > 0 {
            self.count("drained with transfers in flight");
        }
        self.count("deaths");
        let shunned = (!self.hosts[at].attracts).then_some(self.now);
        self.downs.push(Down {
            node: at,
            from: self.now,
            until: None,
            shunned,
        });
        self.hosts[at].is_paused = false;
        self.forget_links(at);
        self.relink_all(at);
        self.after(converges, Event::Fault(Fault::Shun(at)));
    }

    fn pause(&mut self, at: usize, length: u64, converges: Option<u64>) {
        if self.hosts[at].node.is_none() || self.hosts[at].is_paused {
            return;
        }
        self.count("pauses");
        self.downs.push(Down {
            node: at,
            from: self.now,
            until: None,
            shunned: None,
        });
        self.hosts[at].is_paused = true;
        self.hosts[at].disarm();
        self.relink_all(at);
        self.after(length, Event::Fault(Fault::Resume(at)));
        if let Some(converges) = converges.filter(|converges| *converges < length) {
            self.after(converges, Event::Fault(Fault::Shun(at)));
        }
    }

    /// It goes on, and finds what came meanwhile in its socket; before or after it finds that its
    /// peers have given it up.
    fn resume(&mut self, at: usize) {
        if !self.hosts[at].is_paused {
            return;
        }
        self.hosts[at].is_paused = false;
        let gone: Vec<usize> = (0..self.hosts.len())
            .filter(|peer| *peer != at && !self.knows_peer(*peer, at))
            .collect();
        let mut socket = std::mem::take(&mut self.hosts[at].socket);
        if self.random.chance(500) {
            for inbound in std::mem::take(&mut socket) {
                self.arrives(at, inbound);
            }
        }
        if self.random.chance(500) {
            self.with_node(at, |node, now| node.handle_timeout(now));
        }
        for peer in gone {
            self.tell_down(at, peer);
        }
        for inbound in socket {
            self.arrives(at, inbound);
        }
        self.with_node(at, |node, now| node.handle_timeout(now));
        self.relink_all(at);
        self.is_back(at, Self::telling());
        let delay = self.random.range(0, 3 * SECOND);
        self.after(delay, Event::Fault(Fault::Seek(at)));
    }

    fn is_back(&mut self, at: usize, delay: u64) {
        let until = self.now + delay + 100 * MS;
        let downs = self.downs.iter_mut().filter(|down| down.node == at);
        for down in downs {
            down.until.get_or_insert(until);
            down.shunned.get_or_insert(until);
        }
    }
}
