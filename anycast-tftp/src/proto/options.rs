//! The options of RFC 2347: which ones we know, their ranges, and what becomes of bad ones.
//!
//! | option | source | range | in a request |
//! |---|---|---|---|
//! | `blksize` | RFC 2348 | 8–65,464 bytes | largest block that the client takes |
//! | `timeout` | RFC 2349 | 1–255 s | retransmission interval |
//! | `tsize` | RFC 2349 | 0–2⁶⁴−1 bytes | 0 in a read request, the size in a write request |
//! | `windowsize` | RFC 7440 | 1–65,535 blocks | blocks in flight before an acknowledgement |
//! | `anycast-node` | this crate | 0–63 bytes | asks which node answers |
//!
//! Names are compared without regard to case. A number is one to twenty ASCII digits and
//! nothing else: no sign, blank, `0x` or unit; leading zeros are harmless and allowed.
//!
//! **In a request** an option that is unknown, malformed, out of range or given more than
//! once is *omitted*, as RFC 2347 has it for an option that the server does not like: the
//! client finds it missing from the OACK and goes on with the default. Of a duplicate
//! neither value counts, since nobody can tell which one the client will use. A list that
//! cannot be cut into names and values makes the whole request malformed.
//!
//! **In an acknowledgement (OACK)** there is no such latitude: the peer's view of the
//! transfer must be known exactly, so any fault makes the packet malformed.
//!
//! `anycast-node` is our own, after NSID (RFC 5001): a client that sends it learns from the
//! OACK the name of the node that serves it. The value in a request is ignored; other
//! servers ignore the option, as they must.

use super::packet::ParseError;

/// Smallest `blksize`, in bytes (RFC 2348).
pub const MIN_BLKSIZE: u16 = 8;
/// Largest `blksize`, in bytes (RFC 2348).
pub const MAX_BLKSIZE: u16 = 65_464;
/// Block size of a transfer that did not negotiate one, in bytes (RFC 1350).
pub const DEFAULT_BLKSIZE: u16 = 512;
/// Longest value of `anycast-node`, in bytes; a longer one is omitted or malformed.
pub const MAX_NODE_LEN: usize = 63;
/// Most digits of a number: those of 2⁶⁴−1. A longer one is malformed.
const MAX_DIGITS: usize = 20;

/// The options of a request or of an acknowledgement.
///
/// `None` is an option that is absent. Values that came from [`parse`](super::packet::Packet::parse)
/// are in range; the encoders refuse values that are not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Options<'a> {
    /// Block size in bytes, [`MIN_BLKSIZE`]–[`MAX_BLKSIZE`].
    pub blksize: Option<u16>,
    /// Retransmission interval in seconds, 1–255.
    pub timeout: Option<u8>,
    /// Size of the file in bytes; 0 in a read request.
    pub tsize: Option<u64>,
    /// Window in blocks, 1–65,535.
    pub windowsize: Option<u16>,
    /// `anycast-node`: any value in a request, the node's name in an acknowledgement.
    pub node: Option<&'a [u8]>,
}

impl<'a> Options<'a> {
    /// Whether no option is present.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.blksize.is_none()
            && self.timeout.is_none()
            && self.tsize.is_none()
            && self.windowsize.is_none()
            && self.node.is_none()
    }

    /// Whether the present values are in the ranges of their definitions.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.blksize
            .is_none_or(|n| (MIN_BLKSIZE..=MAX_BLKSIZE).contains(&n))
            && self.timeout != Some(0)
            && self.windowsize != Some(0)
            && self
                .node
                .is_none_or(|node| node.len() <= MAX_NODE_LEN && !node.contains(&0))
    }

    /// Reads the options of a request; bad ones are omitted and counted.
    pub(super) fn parse_request(list: &'a [u8]) -> Result<(Self, u16), ParseError> {
        let mut options = Self::default();
        let mut seen = Seen::default();
        let mut omitted = 0_u16;
        for pair in Pairs(list) {
            let (name, value) = pair?;
            let Some(name) = Name::of(name) else {
                omitted += 1;
                continue;
            };
            if seen.mark(name) {
                omitted += if options.clear(name) { 2 } else { 1 };
            } else if !options.set(name, value) {
                omitted += 1;
            }
        }
        Ok((options, omitted))
    }

    /// Reads the options of an acknowledgement; any fault is an error.
    pub(super) fn parse_acknowledgement(list: &'a [u8]) -> Result<Self, ParseError> {
        let mut options = Self::default();
        let mut seen = Seen::default();
        for pair in Pairs(list) {
            let (name, value) = pair?;
            let known = Name::of(name).ok_or(ParseError::UnknownOption)?;
            if seen.mark(known) || !options.set(known, value) {
                return Err(ParseError::BadOption {
                    option: known.text(),
                });
            }
        }
        Ok(options)
    }

    /// Sets one option; false when the value is malformed or out of range.
    fn set(&mut self, name: Name, value: &'a [u8]) -> bool {
        match name {
            Name::Blksize => {
                self.blksize = number(value)
                    .and_then(|n| u16::try_from(n).ok())
                    .filter(|n| (MIN_BLKSIZE..=MAX_BLKSIZE).contains(n));
                self.blksize.is_some()
            }
            Name::Timeout => {
                self.timeout = number(value)
                    .and_then(|n| u8::try_from(n).ok())
                    .filter(|n| *n > 0);
                self.timeout.is_some()
            }
            Name::Tsize => {
                self.tsize = number(value);
                self.tsize.is_some()
            }
            Name::Windowsize => {
                self.windowsize = number(value)
                    .and_then(|n| u16::try_from(n).ok())
                    .filter(|n| *n > 0);
                self.windowsize.is_some()
            }
            Name::Node => {
                self.node = Some(value).filter(|value| value.len() <= MAX_NODE_LEN);
                self.node.is_some()
            }
        }
    }

    /// Removes one option; true when it was there.
    fn clear(&mut self, name: Name) -> bool {
        match name {
            Name::Blksize => self.blksize.take().is_some(),
            Name::Timeout => self.timeout.take().is_some(),
            Name::Tsize => self.tsize.take().is_some(),
            Name::Windowsize => self.windowsize.take().is_some(),
            Name::Node => self.node.take().is_some(),
        }
    }

    /// Calls `put` with the name and value of every option present, in a fixed order.
    pub(super) fn for_each(&self, mut put: impl FnMut(&[u8], &[u8])) {
        let mut digits = Digits::default();
        if let Some(blksize) = self.blksize {
            put(Name::Blksize.text().as_bytes(), digits.of(blksize.into()));
        }
        if let Some(timeout) = self.timeout {
            put(Name::Timeout.text().as_bytes(), digits.of(timeout.into()));
        }
        if let Some(tsize) = self.tsize {
            put(Name::Tsize.text().as_bytes(), digits.of(tsize));
        }
        if let Some(windowsize) = self.windowsize {
            let value = digits.of(windowsize.into());
            put(Name::Windowsize.text().as_bytes(), value);
        }
        if let Some(node) = self.node {
            put(Name::Node.text().as_bytes(), node);
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Name {
    Blksize,
    Timeout,
    Tsize,
    Windowsize,
    Node,
}

impl Name {
    const ALL: [Self; 5] = [
        Self::Blksize,
        Self::Timeout,
        Self::Tsize,
        Self::Windowsize,
        Self::Node,
    ];

    const fn text(self) -> &'static str {
        match self {
            Self::Blksize => "blksize",
            Self::Timeout => "timeout",
            Self::Tsize => "tsize",
            Self::Windowsize => "windowsize",
            Self::Node => "anycast-node",
        }
    }

    fn of(name: &[u8]) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|known| known.text().as_bytes().eq_ignore_ascii_case(name))
    }
}

/// Which known options have occurred.
#[derive(Default)]
struct Seen(u8);

impl Seen {
    /// Notes an occurrence; true when there was one before.
    const fn mark(&mut self, name: Name) -> bool {
        let bit = 1 << name as u8;
        let before = self.0 & bit != 0;
        self.0 |= bit;
        before
    }
}

/// Cuts a list into names and values. Trailing NULs end it (some clients pad).
struct Pairs<'a>(&'a [u8]);

impl<'a> Iterator for Pairs<'a> {
    type Item = Result<(&'a [u8], &'a [u8]), ParseError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.iter().all(|byte| *byte == 0) {
            return None;
        }
        let pair = split_string(self.0)
            .filter(|(name, _)| !name.is_empty())
            .and_then(|(name, rest)| {
                let (value, rest) = split_string(rest)?;
                self.0 = rest;
                Some((name, value))
            });
        if pair.is_none() {
            self.0 = &[];
        }
        Some(pair.ok_or(ParseError::OptionList))
    }
}

/// Splits at the first NUL; `None` when there is none.
pub(super) fn split_string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

/// One to [`MAX_DIGITS`] ASCII digits that fit 64 bits.
fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > MAX_DIGITS {
        return None;
    }
    text.iter().try_fold(0_u64, |sum, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    })
}

/// Writes a number in decimal without allocating.
#[derive(Default)]
struct Digits([u8; MAX_DIGITS]);

impl Digits {
    fn of(&mut self, mut number: u64) -> &[u8] {
        let mut at = MAX_DIGITS;
        loop {
            at -= 1;
            // A remainder of ten fits a byte.
            self.0[at] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                return &self.0[at..];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_digits_and_nothing_else() {
        assert_eq!(number(b"0"), Some(0));
        assert_eq!(number(b"0512"), Some(512));
        assert_eq!(number(b"18446744073709551615"), Some(u64::MAX));
        for bad in [
            &b""[..],
            b"-1",
            b"+8",
            b"0x200",
            b" 8",
            b"8 ",
            b"8k",
            b"1e3",
            b"18446744073709551616",
            b"99999999999999999999",
            b"000000000000000000512",
            b"\xd9\xa3",
        ] {
            assert_eq!(number(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn digits_write_what_number_reads() {
        for n in [0, 9, 10, 65_464, u64::MAX] {
            assert_eq!(Digits::default().of(n), n.to_string().as_bytes());
        }
    }

    #[test]
    fn a_value_out_of_range_is_omitted_from_a_request() {
        let cases: [(&[u8], bool); 16] = [
            (b"blksize\x007\0", false),
            (b"blksize\x000\0", false),
            (b"blksize\x008\0", true),
            (b"blksize\x0065464\0", true),
            (b"blksize\x0065465\0", false),
            (b"blksize\x0066000\0", false),
            (b"timeout\x000\0", false),
            (b"timeout\x001\0", true),
            (b"timeout\x00255\0", true),
            (b"timeout\x00256\0", false),
            (b"windowsize\x000\0", false),
            (b"windowsize\x0065535\0", true),
            (b"windowsize\x0065536\0", false),
            (b"tsize\x00-1\0", false),
            (b"utimeout\x001\0", false),
            (b"multicast\0\0", false),
        ];
        for (list, kept) in cases {
            let (options, omitted) = Options::parse_request(list).unwrap();
            assert_eq!(!options.is_empty(), kept, "{list:?}");
            assert_eq!(omitted, u16::from(!kept), "{list:?}");
        }
    }

    #[test]
    fn of_a_duplicate_neither_counts() {
        let list = b"blksize\x001024\0BLKSIZE\x001428\0tsize\x000\0";
        let (options, omitted) = Options::parse_request(list).unwrap();
        assert_eq!((options.blksize, options.tsize), (None, Some(0)));
        assert_eq!(omitted, 2);
        let thrice = b"blksize\x008\0blksize\x008\0blksize\x008\0";
        let (options, omitted) = Options::parse_request(thrice).unwrap();
        assert!(options.is_empty());
        assert_eq!(omitted, 3);
    }

    #[test]
    fn a_list_that_cannot_be_cut_is_malformed() {
        for bad in [
            &b"blksize"[..],
            b"blksize\0",
            b"blksize\x001024",
            b"\x001024\0",
            b"blksize\x001024\0tsize\0",
        ] {
            assert_eq!(
                Options::parse_request(bad),
                Err(ParseError::OptionList),
                "{bad:?}"
            );
        }
        let (padded, _) = Options::parse_request(b"blksize\x001024\0\0\0\0").unwrap();
        assert_eq!(padded.blksize, Some(1024));
    }

    #[test]
    fn an_acknowledgement_is_exact() {
        assert!(Options::parse_acknowledgement(b"blksize\x001024\0").is_ok());
        for bad in [
            &b"blksize\x001\0"[..],
            b"blksize\x001024\0blksize\x001024\0",
            b"tsize\0\0",
            b"utimeout\x001\0",
            b"blksize\x001024",
        ] {
            assert!(Options::parse_acknowledgement(bad).is_err(), "{bad:?}");
        }
    }
}
