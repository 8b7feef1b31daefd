//! What each kind of client does in its own way.

use super::super::random::Random;
use crate::proto::options::Options;

const MS: u64 = 1000;
const SECOND: u64 = 1000 * MS;

/// What a client answers to a block that it does not wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Answer {
    Nothing,
    /// The ACK of that very block.
    ItsNumber,
    /// The ACK of what it has.
    Position,
    /// The same, once for each place that it is at.
    PositionOnce,
    /// The same, where the block is the last one that it has.
    PositionIfLast,
}

/// When something is sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Again {
    Never,
    Every(u64),
    Doubling(u64),
    /// First after the one, each time the other longer.
    Slower(u64, u64),
}

impl Again {
    pub(in super::super) fn after(self, now: u64, attempts: u32) -> Option<u64> {
        Some(match self {
            Self::Never => return None,
            Self::Every(wait) => now + wait,
            Self::Doubling(wait) => now + (wait << attempts.min(16)),
            Self::Slower(wait, more) => now + wait + more * u64::from(attempts),
        })
    }
}

#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Habits {
    /// When the request is sent again.
    pub(in super::super) asks_again: Again,
    /// When the last ACK is.
    pub(in super::super) repeats: Again,
    /// How long it waits for progress.
    pub(in super::super) patience: u64,
    /// Any block counts as progress.
    pub(in super::super) any_block_counts: bool,
    pub(in super::super) to_old: Answer,
    pub(in super::super) to_ahead: Answer,
    /// Keeps what lies ahead, and says where its first gap is.
    pub(in super::super) keeps_ahead: bool,
    /// Asks for the options first and ends that by ERROR 8.
    pub(in super::super) probes: bool,
    /// From so many ports at nearly the same time.
    pub(in super::super) asks_at_once: u16,
    /// Uses one port for one file after the other, as others sometimes do, and takes only an OACK
    /// for an answer.
    pub(in super::super) keeps_port: bool,
    /// After an ERROR of the server.
    pub(in super::super) begins_again: bool,
    /// It knows what follows block 65,535.
    pub(in super::super) wraps: bool,
}

const PLAIN: Habits = Habits {
    asks_again: Again::Every(5 * SECOND),
    repeats: Again::Every(5 * SECOND),
    patience: 25 * SECOND,
    any_block_counts: false,
    to_old: Answer::Nothing,
    to_ahead: Answer::Nothing,
    keeps_ahead: false,
    probes: false,
    asks_at_once: 1,
    keeps_port: false,
    begins_again: false,
    wraps: true,
};

/// A client that is used in the field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Kind {
    /// Sends each ACK once: the server has to send again. It acknowledges an old block by that
    /// block's number, ignores what lies ahead, and gives up after some 33 s.
    Grub,
    /// Waits 5 s, ten times. To a block that it does not wait for it says where it is, once for
    /// each place. After an ERROR, other than 1 and 2, it starts from zero, from another port.
    UBoot,
    /// 0.25 s, doubling: 15.75 s in all, during which any block makes it wait anew. It answers each
    /// block with its first gap. (What it does with an old block at the wrap, which it takes for a
    /// later one, is left out: it reads nothing here that wraps.)
    Ipxe,
    /// Asks for the options, ends that with ERROR 8, then reads. 3 s, six times; says where it is
    /// whenever something else comes; refuses options that it did not ask for or larger ones.
    Edk2,
    /// Asks for one file several times, from ports side by side, takes the first OACK and ends the
    /// others; then uses the same ports for the next file, at once. Block numbers do not wrap. (How
    /// it waits is not known: 2 s, doubling, 15 s.)
    RaspberryPi,
    /// 5.2: no options. Sends its last packet again after 5 s, gives up after 25 s, and answers a
    /// repeat of its last block.
    TftpHpa,
    /// Sends its last ACK again after 5 s, ten times, and to a repeat of its last block; asks for a
    /// timeout of 5 s, which it then has to get; refuses a size of 0.
    Curl,
    /// Windows; says where it is once when something is missing; 5 s, five times.
    Atftp,
}

impl Kind {
    pub(in super::super) const ALL: [Self; 8] = [
        Self::Grub,
        Self::UBoot,
        Self::Ipxe,
        Self::Edk2,
        Self::RaspberryPi,
        Self::TftpHpa,
        Self::Curl,
        Self::Atftp,
    ];

    pub(in super::super) const fn habits(self) -> Habits {
        match self {
            Self::Grub => Habits {
                asks_again: Again::Slower(400 * MS, 20 * MS),
                repeats: Again::Never,
                patience: 33 * SECOND,
                to_old: Answer::ItsNumber,
                ..PLAIN
            },
            Self::UBoot => Habits {
                patience: 50 * SECOND,
                to_old: Answer::PositionOnce,
                to_ahead: Answer::PositionOnce,
                begins_again: true,
                ..PLAIN
            },
            Self::Ipxe => Habits {
                asks_again: Again::Doubling(250 * MS),
                repeats: Again::Doubling(250 * MS),
                patience: 15_750 * MS,
                any_block_counts: true,
                to_old: Answer::Position,
                keeps_ahead: true,
                wraps: false,
                ..PLAIN
            },
            Self::Edk2 => Habits {
                asks_again: Again::Every(3 * SECOND),
                repeats: Again::Every(3 * SECOND),
                patience: 18 * SECOND,
                to_old: Answer::Position,
                to_ahead: Answer::Position,
                probes: true,
                ..PLAIN
            },
            Self::RaspberryPi => Habits {
                asks_again: Again::Doubling(2 * SECOND),
                repeats: Again::Doubling(2 * SECOND),
                patience: 15 * SECOND,
                to_old: Answer::PositionIfLast,
                asks_at_once: 3,
                keeps_port: true,
                wraps: false,
                ..PLAIN
            },
            Self::TftpHpa => Habits {
                to_old: Answer::PositionIfLast,
                ..PLAIN
            },
            Self::Curl => Habits {
                patience: 50 * SECOND,
                to_old: Answer::PositionIfLast,
                ..PLAIN
            },
            Self::Atftp => Habits {
                to_old: Answer::PositionOnce,
                to_ahead: Answer::PositionOnce,
                ..PLAIN
            },
        }
    }

    /// What it asks for, with blocks of that size where it can.
    pub(in super::super) fn options(self, random: &mut Random, blksize: u16) -> Options<'static> {
        let blksize = Some(blksize);
        let sized = Options {
            blksize,
            tsize: Some(0),
            ..Options::default()
        };
        match self {
            Self::Grub | Self::Ipxe | Self::RaspberryPi => sized,
            Self::TftpHpa => Options::default(),
            Self::Curl => Options {
                timeout: Some(5),
                ..sized
            },
            Self::Edk2 => Options {
                windowsize: random.chance(500).then_some(4),
                ..sized
            },
            Self::UBoot => Options {
                timeout: Some(5),
                windowsize: Some(random.pick(&[1, 4, 16])),
                ..sized
            },
            Self::Atftp => Options {
                windowsize: Some(random.pick(&[1, 4, 16, 64])),
                ..sized
            },
        }
    }
}
