//! What a client does with what it is sent.

use super::{Answer, Client, Ended, ErrorCode, HUMAN_PATIENCE, Options, Packet, Phase};
use crate::proto::packet::ack;

/// Bytes of the file, and where they belong.
pub(in super::super) type Delivery<'a> = (u64, &'a [u8]);

impl Client {
    pub(in super::super) fn handle_datagram<'a>(
        &mut self,
        now: u64,
        port: u16,
        datagram: &'a [u8],
    ) -> Option<Delivery<'a>> {
        let is_asking = matches!(self.phase, Phase::Asking { .. });
        if self.ended().is_some() || matches!(self.phase, Phase::Resting(_)) {
            return None;
        }
        let Ok(packet) = Packet::parse(datagram) else {
            self.end(Ended::Nonsense("what came is malformed"));
            return None;
        };
        if is_asking && !self.ports.contains(&port) {
            return None;
        }
        if !is_asking && port != self.port {
            // Another request of the same file has been answered before.
            if matches!(packet, Packet::OptionAck(_)) && self.ports.contains(&port) {
                self.say_error(port, ErrorCode::NotDefined, "Early terminate");
            }
            return None;
        }
        match packet {
            Packet::OptionAck(options) => self.handle_options(now, port, &options),
            Packet::Error { code, .. } => self.handle_error(now, code),
            Packet::Data { block, payload } if is_asking => {
                // Who reuses a port takes nothing for an answer but the options.
                if self.habits.keeps_port || block != 1 {
                    return None;
                }
                self.port = port;
                self.phase = Phase::Reading;
                return self.handle_data(now, block, payload);
            }
            Packet::Data { block, payload } => return self.handle_data(now, block, payload),
            Packet::ReadRequest(_) | Packet::WriteRequest(_) | Packet::Ack { .. } => {
                self.end(Ended::Nonsense("no server sends this"));
            }
        }
        None
    }

    fn handle_options(&mut self, now: u64, port: u16, options: &Options<'_>) {
        let is_probe = match self.phase {
            Phase::Asking { is_probe } => is_probe,
            Phase::Reading if self.expected == 1 => {
                // It came twice.
                self.say(self.port, ack(0).to_vec());
                return;
            }
            Phase::Reading | Phase::Resting(_) | Phase::Ended(_) => return,
        };
        if let Some(fault) = self.fault(options, is_probe) {
            self.say_error(port, ErrorCode::OptionRefused, "no such option");
            return self.end(Ended::Nonsense(fault));
        }
        self.port = port;
        if is_probe {
            self.say_error(port, ErrorCode::OptionRefused, "User aborted the transfer");
            self.phase = Phase::Resting(now + 2000);
            self.ports = vec![port + u16::from(!self.habits.keeps_port)];
            return;
        }
        self.blksize = options.blksize.unwrap_or(self.blksize);
        self.window = options.windowsize.unwrap_or(1);
        self.phase = Phase::Reading;
        self.progressed(now);
        self.send_ack(now);
    }

    /// Why it does not take these options.
    fn fault(&self, options: &Options<'_>, is_probe: bool) -> Option<&'static str> {
        let asked = &self.options;
        if options.blksize > asked.blksize {
            return Some("another block size than it asked for");
        }
        let windowsize = asked.windowsize.filter(|_| !is_probe);
        if options.windowsize > windowsize {
            return Some("another window than it asked for");
        }
        if options.timeout.is_some() && options.timeout != asked.timeout {
            return Some("another timeout than it asked for");
        }
        if options.tsize.is_some() && asked.tsize.is_none() {
            return Some("a size that it did not ask for");
        }
        if options.tsize == Some(0) {
            return Some("a size of 0, which curl refuses");
        }
        None
    }

    fn handle_error(&mut self, now: u64, code: ErrorCode) {
        let is_final = matches!(code, ErrorCode::FileNotFound | ErrorCode::AccessViolation);
        if self.habits.begins_again && !is_final {
            self.restarts += 1;
            self.ports = vec![self.port + 1];
            return self.ask(now, false);
        }
        self.end(Ended::Refused(code));
    }

    fn progressed(&mut self, now: u64) {
        let human = self.last_news + HUMAN_PATIENCE;
        self.gives_up_at = human.min(now + self.habits.patience);
    }

    fn handle_data<'a>(
        &mut self,
        now: u64,
        number: u16,
        payload: &'a [u8],
    ) -> Option<Delivery<'a>> {
        if payload.len() > usize::from(self.blksize) {
            self.end(Ended::Nonsense("a block that is too long"));
            return None;
        }
        if self.habits.any_block_counts {
            self.progressed(now);
        }
        let distance = number.wrapping_sub(self.expected as u16).cast_signed();
        if distance == 0 {
            return Some(self.take(now, payload));
        }
        if distance > 0 && self.habits.keeps_ahead {
            return self.take_ahead(now, distance.unsigned_abs(), payload);
        }
        let answer = if distance < 0 {
            self.habits.to_old
        } else {
            self.habits.to_ahead
        };
        match answer {
            Answer::Nothing => {}
            Answer::ItsNumber => self.say(self.port, ack(number).to_vec()),
            Answer::Position => self.send_ack(now),
            Answer::PositionOnce if self.complained == Some(self.expected) => {}
            Answer::PositionOnce => {
                self.complained = Some(self.expected);
                self.send_ack(now);
            }
            Answer::PositionIfLast if number == self.wire() => self.send_ack(now),
            Answer::PositionIfLast => {}
        }
        None
    }

    fn take<'a>(&mut self, now: u64, payload: &'a [u8]) -> Delivery<'a> {
        let offset = (self.expected - 1) * u64::from(self.blksize);
        if payload.len() < usize::from(self.blksize) {
            self.last = Some(self.expected);
        }
        self.expected += 1;
        while self.ahead.remove(&self.expected) {
            self.expected += 1;
        }
        self.since_ack += 1;
        self.last_news = now;
        self.progressed(now);
        if self.last.is_some_and(|last| last < self.expected) {
            self.send_ack(now);
            self.end(Ended::Whole);
        } else if self.since_ack >= self.window {
            self.send_ack(now);
        } else {
            self.attempts = 0;
            self.repeat_at = self.habits.repeats.after(now, 0);
        }
        (offset, payload)
    }

    fn take_ahead<'a>(
        &mut self,
        now: u64,
        distance: u16,
        payload: &'a [u8],
    ) -> Option<Delivery<'a>> {
        let block = self.expected + u64::from(distance);
        let is_new = self.ahead.insert(block);
        if is_new {
            self.last_news = now;
        }
        if payload.len() < usize::from(self.blksize) {
            self.last = Some(block);
        }
        self.send_ack(now);
        is_new.then_some(((block - 1) * u64::from(self.blksize), payload))
    }
}
