//! What a client asks for, and what was agreed.

use std::time::Duration;

use crate::proto::packet::{DEFAULT_BLKSIZE, EncodeError, Mode, Options, Request};

/// Most bytes of a write's window (blocks in flight times block size). More is refused
/// when the transfer is built, since each of them is kept for retransmission.
pub const MAX_WINDOW_BYTES: usize = 8 * 1024 * 1024;
/// What a request carries as the value of `anycast-node`; servers ignore it.
const NODE_QUESTION: &[u8] = b"?";

/// Which number follows block 65,535.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Rollover {
    /// 0, as nearly all implementations have it.
    #[default]
    Zero,
    /// 1.
    One,
    /// In a read without a window: whichever of the two the server sends. Otherwise as
    /// [`Zero`](Self::Zero), since then a lost block 0 looks the same.
    Detect,
}

impl Rollover {
    /// The number on the wire of a block (from 1; 0 is the acknowledgement of a request).
    #[must_use]
    pub const fn wire(self, block: u64) -> u16 {
        match self {
            Self::Zero | Self::Detect => block as u16,
            Self::One if block == 0 => 0,
            Self::One => ((block - 1) % 65_535) as u16 + 1,
        }
    }

    /// How far a number on the wire lies after `base`, in blocks, modulo the cycle.
    #[must_use]
    pub const fn distance(self, base: u64, wire: u16) -> u64 {
        let (from, to) = (self.wire(base) as u64, wire as u64);
        match self {
            Self::Zero | Self::Detect => (to + 65_536 - from) % 65_536,
            // Number 0 occurs once, before block 1.
            Self::One => (to + 65_535 - from) % 65_535,
        }
    }
}

/// What a client asks for.
///
/// The default is octet mode with the options `blksize` 1428, `windowsize` 16 and `tsize`;
/// [`plain`](Self::plain) asks for nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub(super) mode: Mode,
    pub(super) blksize: Option<u16>,
    pub(super) windowsize: Option<u16>,
    pub(super) timeout: Option<u8>,
    pub(super) tsize: bool,
    pub(super) ask_node: bool,
    pub(super) rollover: Rollover,
    pub(super) first_interval: Duration,
    pub(super) retries: u32,
    pub(super) give_up: Duration,
    pub(super) dally: Duration,
    pub(super) abort_when_refused: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            mode: Mode::Octet,
            blksize: Some(1428),
            windowsize: Some(16),
            timeout: None,
            tsize: true,
            ask_node: false,
            rollover: Rollover::Zero,
            first_interval: Duration::from_secs(1),
            retries: 12,
            give_up: Duration::from_secs(30),
            dally: Duration::from_secs(1),
            abort_when_refused: true,
        }
    }
}

impl Settings {
    /// No option at all: RFC 1350 with blocks of 512 bytes.
    #[must_use]
    pub fn plain() -> Self {
        Self {
            blksize: None,
            windowsize: None,
            tsize: false,
            ..Self::default()
        }
    }

    /// Transfer mode. Default: octet. In netascii the transfer's payload is text in wire
    /// form; [`netascii`](crate::proto::netascii) translates it.
    #[must_use]
    pub const fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// Block size in bytes, 8–65,464; `None` leaves it at 512. Default: 1428, which fits
    /// an Ethernet frame under IPv4 and IPv6 with room for tunnels.
    #[must_use]
    pub const fn blksize(mut self, blksize: Option<u16>) -> Self {
        self.blksize = blksize;
        self
    }

    /// Window in blocks, 1–65,535; `None` leaves it at 1. Default: 16.
    #[must_use]
    pub const fn windowsize(mut self, windowsize: Option<u16>) -> Self {
        self.windowsize = windowsize;
        self
    }

    /// Retransmission interval to ask for, in seconds, 1–255; `None` asks for none, and
    /// both sides choose their own. Default: none.
    #[must_use]
    pub const fn timeout(mut self, seconds: Option<u8>) -> Self {
        self.timeout = seconds;
        self
    }

    /// Whether to ask a server for the size of the file, and to tell it in a write when it
    /// is known. Default: yes.
    #[must_use]
    pub const fn tsize(mut self, ask: bool) -> Self {
        self.tsize = ask;
        self
    }

    /// Whether to ask for the name of the node that answers. Default: no.
    #[must_use]
    pub const fn ask_node(mut self, ask: bool) -> Self {
        self.ask_node = ask;
        self
    }

    /// Which number follows block 65,535. Default: 0.
    #[must_use]
    pub const fn rollover(mut self, rollover: Rollover) -> Self {
        self.rollover = rollover;
        self
    }

    /// When to repeat the request for the first time; later intervals double, or follow the
    /// measured round trip. Zero counts as 1 ms. Default: 1 s.
    #[must_use]
    pub const fn first_interval(mut self, interval: Duration) -> Self {
        self.first_interval = interval;
        self
    }

    /// Retransmissions in a row without progress before giving up. Default: 12.
    #[must_use]
    pub const fn retries(mut self, retries: u32) -> Self {
        self.retries = retries;
        self
    }

    /// Time without progress before giving up. Default: 30 s.
    #[must_use]
    pub const fn give_up(mut self, after: Duration) -> Self {
        self.give_up = after;
        self
    }

    /// How long to stay after the last acknowledgement of a read, to repeat it should it
    /// have been lost (RFC 1350 §6). Default: 1 s.
    #[must_use]
    pub const fn dally(mut self, dally: Duration) -> Self {
        self.dally = dally;
        self
    }

    /// Whether an ICMP "port unreachable" ends the transfer at once; otherwise it counts as
    /// silence, which outlives a service that comes back. Default: yes.
    #[must_use]
    pub const fn abort_when_refused(mut self, abort: bool) -> Self {
        self.abort_when_refused = abort;
        self
    }

    /// The mode asked for.
    #[must_use]
    pub const fn chosen_mode(&self) -> Mode {
        self.mode
    }

    /// How long a read stays after its end.
    #[must_use]
    pub const fn dally_time(&self) -> Duration {
        self.dally
    }

    pub(super) fn request<'a>(&'a self, file: &'a [u8], size: Option<u64>) -> Request<'a> {
        Request {
            filename: file,
            mode: self.mode,
            options: Options {
                blksize: self.blksize,
                timeout: self.timeout,
                tsize: size.filter(|_| self.tsize),
                windowsize: self.windowsize,
                node: self.ask_node.then_some(NODE_QUESTION),
            },
            omitted: 0,
        }
    }

    /// Compares an OACK with the request. Nothing unrequested, nothing larger, and the
    /// time-out exactly as asked (RFC 2347–2349, 7440).
    pub(super) fn agree(&self, options: &Options<'_>) -> Result<Agreed, &'static str> {
        fn at_most(answer: Option<u16>, asked: Option<u16>) -> bool {
            answer.is_none_or(|answer| asked.is_some_and(|asked| answer <= asked))
        }
        if !at_most(options.blksize, self.blksize) {
            return Err("blksize larger than requested");
        }
        if !at_most(options.windowsize, self.windowsize) {
            return Err("windowsize larger than requested");
        }
        if options.timeout.is_some() && options.timeout != self.timeout {
            return Err("timeout differs from the request");
        }
        if options.tsize.is_some() && !self.tsize {
            return Err("unrequested tsize");
        }
        if options.node.is_some() && !self.ask_node {
            return Err("unrequested anycast-node");
        }
        Ok(Agreed {
            blksize: options.blksize.unwrap_or(DEFAULT_BLKSIZE),
            windowsize: options.windowsize.unwrap_or(1),
            timeout: options.timeout.map(|s| Duration::from_secs(s.into())),
            size: options.tsize,
            node: options
                .node
                .map(|node| String::from_utf8_lossy(node).into_owned()),
        })
    }
}

/// What both sides agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agreed {
    /// Block size in bytes.
    pub blksize: u16,
    /// Window in blocks.
    pub windowsize: u16,
    /// Retransmission interval, if one was agreed on.
    pub timeout: Option<Duration>,
    /// Size of the file in bytes as the server tells it, if it does. In netascii servers
    /// mean the size before or after translation; it is a hint.
    pub size: Option<u64>,
    /// The node that serves the transfer, if it says so.
    pub node: Option<String>,
}

impl Default for Agreed {
    fn default() -> Self {
        Self {
            blksize: DEFAULT_BLKSIZE,
            windowsize: 1,
            timeout: None,
            size: None,
            node: None,
        }
    }
}

/// Why a transfer cannot be asked for. Nothing was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The request cannot be written.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The window of a write is over [`MAX_WINDOW_BYTES`].
    #[error(
        "a window of {windowsize} blocks of {blksize} bytes is more than {MAX_WINDOW_BYTES} bytes"
    )]
    Window {
        /// Blocks asked for.
        windowsize: u16,
        /// Bytes each.
        blksize: u16,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_wrap_to_zero_or_one() {
        let wires = |rollover: Rollover| {
            [0, 1, 65_535, 65_536, 65_537, 131_070, 131_071, 131_072].map(|b| rollover.wire(b))
        };
        assert_eq!(
            wires(Rollover::Zero),
            [0, 1, 65_535, 0, 1, 65_534, 65_535, 0]
        );
        assert_eq!(wires(Rollover::One), [0, 1, 65_535, 1, 2, 65_535, 1, 2]);
    }

    #[test]
    fn distance_undoes_wire() {
        for rollover in [Rollover::Zero, Rollover::One] {
            for base in [0, 1, 65_000, 65_535, 65_536, 200_000] {
                for step in [0, 1, 2, 600, 32_767] {
                    let wire = rollover.wire(base + step);
                    assert_eq!(rollover.distance(base, wire), step, "{rollover:?} {base}");
                }
            }
        }
    }

    #[test]
    fn an_answer_may_be_smaller_but_not_larger_nor_unrequested() {
        let asked = Settings::default().timeout(Some(3));
        let agree = |change: fn(&mut Options<'_>)| {
            let mut options = Options::default();
            change(&mut options);
            asked.agree(&options)
        };
        assert_eq!(agree(|_| {}), Ok(Agreed::default()));
        assert_eq!(agree(|o| o.blksize = Some(1024)).unwrap().blksize, 1024);
        assert!(agree(|o| o.blksize = Some(1429)).is_err());
        assert!(agree(|o| o.windowsize = Some(17)).is_err());
        assert!(agree(|o| o.timeout = Some(2)).is_err());
        assert!(agree(|o| o.timeout = Some(3)).is_ok());
        assert!(agree(|o| o.node = Some(b"ams1")).is_err());
        assert!(agree(|o| o.tsize = Some(0)).is_ok());
        let plain = Settings::plain();
        let any = Options {
            blksize: Some(8),
            ..Options::default()
        };
        assert!(plain.agree(&any).is_err());
    }
}
