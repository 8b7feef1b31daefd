//! The request, and from the bytes of an answer to what it means: pure, and total on any bytes.

use std::time::Duration;

/// Length of the packet without extension fields (RFC 5905 7.3).
const LENGTH: usize = 48;
/// Leap indicator 0, version 4, mode 3.
const CLIENT: u8 = 0b00_100_011;
/// The mode of an answer.
const SERVER_MODE: u8 = 4;
/// Leap indicator: not synchronised.
const ALARM: u8 = 3;
/// Highest stratum of a synchronised server.
const MAX_STRATUM: u8 = 15;
/// Seconds from 1900 to 1970.
const UNIX_IN_NTP: u64 = 2_208_988_800;

/// A time as NTP writes it: seconds since 1900 modulo 2³², and 32 bits of fraction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Timestamp(pub(super) u64);

impl Timestamp {
    pub(super) fn from_unix(since_1970: Duration) -> Self {
        Self(UNIX_IN_NTP << 32).after(since_1970)
    }

    pub(super) fn after(self, time: Duration) -> Self {
        let fraction = (u64::from(time.subsec_nanos()) << 32) / 1_000_000_000;
        Self(self.0.wrapping_add((time.as_secs() << 32) + fraction))
    }

    /// How much later than `other` this is; right as long as they are within 68 years.
    const fn since(self, other: Self) -> i64 {
        self.0.wrapping_sub(other.0).cast_signed()
    }
}

/// 32 bits of seconds and 32 of fraction, as a duration; less than a microsecond is cut off.
fn duration(units: u64) -> Duration {
    let micros = ((units & 0xffff_ffff) * 1_000_000) >> 32;
    Duration::from_secs(units >> 32) + Duration::from_micros(micros)
}

/// One request on its way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request {
    nonce: u64,
}

impl Request {
    /// The nonce takes the place of the transmit timestamp, which servers do not read.
    pub(super) const fn new(nonce: u64) -> Self {
        // Zero is what a server answers that has seen no timestamp.
        let nonce = if nonce == 0 { 1 } else { nonce };
        Self { nonce }
    }

    pub(super) fn encode(self) -> [u8; LENGTH] {
        let mut packet = [0; LENGTH];
        packet[0] = CLIENT;
        packet[40..].copy_from_slice(&self.nonce.to_be_bytes());
        packet
    }
}

/// What a healthy answer stays within.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) stratum: u8,
    pub(super) distance: Option<Duration>,
    pub(super) offset: Option<Duration>,
}

/// What an answer means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Finding {
    /// Within the limits.
    Right,
    /// The answer to this request, and not within them; why.
    Wrong(String),
    /// The server will not serve this client; why.
    Unwilling(String),
    /// No answer to this request; what it is instead.
    NotOurs(String),
}

/// The fields that matter here.
struct Answer {
    leap: u8,
    version: u8,
    mode: u8,
    stratum: u8,
    root_delay: u32,
    root_dispersion: u32,
    reference_id: [u8; 4],
    origin: u64,
    receive: Timestamp,
    transmit: Timestamp,
}

impl Answer {
    /// `None` when it is too short. Extension fields and authenticators are not looked at.
    fn read(bytes: &[u8]) -> Option<Self> {
        let (packet, _) = bytes.split_first_chunk::<LENGTH>()?;
        let four = |at: usize| packet.get(at..)?.first_chunk::<4>().copied();
        let eight = |at: usize| packet.get(at..)?.first_chunk::<8>().copied();
        Some(Self {
            leap: packet[0] >> 6,
            version: (packet[0] >> 3) & 0b111,
            mode: packet[0] & 0b111,
            stratum: packet[1],
            root_delay: u32::from_be_bytes(four(4)?),
            root_dispersion: u32::from_be_bytes(four(8)?),
            reference_id: four(12)?,
            origin: u64::from_be_bytes(eight(24)?),
            receive: Timestamp(u64::from_be_bytes(eight(32)?)),
            transmit: Timestamp(u64::from_be_bytes(eight(40)?)),
        })
    }

    /// RFC 5905 7.4: a kiss code, where a server of stratum 0 gives one.
    fn kiss_code(&self) -> Option<&str> {
        let code = self.reference_id.trim_ascii_end();
        let code = code.split(|byte| *byte == 0).next().unwrap_or_default();
        let is_code = !code.is_empty() && code.iter().all(u8::is_ascii_alphanumeric);
        std::str::from_utf8(code).ok().filter(|_| is_code)
    }

    /// Half the root delay, and the root dispersion: seconds with 16 bits of fraction.
    fn distance(&self) -> Duration {
        duration((u64::from(self.root_delay) << 15) + (u64::from(self.root_dispersion) << 16))
    }
}

/// Judges what was received, whatever it is. `exchanged`: this host's clock when the request
/// was first sent, and when this was received.
pub(super) fn judge(
    answer: &[u8],
    request: &Request,
    exchanged: [Timestamp; 2],
    limits: &Limits,
) -> Finding {
    let Some(read) = Answer::read(answer) else {
        return Finding::NotOurs(format!("not an NTP packet ({} bytes)", answer.len()));
    };
    if read.origin != request.nonce {
        return Finding::NotOurs("a packet that does not answer the request".to_owned());
    }
    if read.mode != SERVER_MODE || !(3..=4).contains(&read.version) {
        let (version, mode) = (read.version, read.mode);
        return Finding::Wrong(format!(
            "answered version {version} mode {mode}, not a server's"
        ));
    }
    if read.stratum == 0
        && let Some(code) = read.kiss_code()
    {
        return kissed(code);
    }
    let fault = synchronisation_fault(&read, limits)
        .or_else(|| limits.distance.and_then(|most| distance_fault(&read, most)))
        .or_else(|| {
            let most = limits.offset?;
            offset_fault(&read, exchanged, most)
        });
    fault.map_or(Finding::Right, Finding::Wrong)
}

fn kissed(code: &str) -> Finding {
    match code {
        "RATE" => Finding::Unwilling(
            "the server limits the rate of this checker (RATE); make the interval longer or \
             exempt the service address"
                .to_owned(),
        ),
        "DENY" | "RSTR" => Finding::Unwilling(format!(
            "the server denies this checker ({code}); allow the service address in its access list"
        )),
        _ => Finding::Wrong(format!("not synchronised (kiss code {code})")),
    }
}

fn synchronisation_fault(read: &Answer, limits: &Limits) -> Option<String> {
    let stratum = read.stratum;
    if read.leap == ALARM {
        return Some("not synchronised (leap indicator 3)".to_owned());
    }
    if stratum == 0 || stratum > MAX_STRATUM {
        return Some(format!("not synchronised (stratum {stratum})"));
    }
    if stratum > limits.stratum {
        return Some(format!(
            "stratum {stratum}, at most {} is healthy",
            limits.stratum
        ));
    }
    (read.transmit.0 == 0).then(|| "the answer tells no time (transmit timestamp 0)".to_owned())
}

fn distance_fault(read: &Answer, most: Duration) -> Option<String> {
    let distance = read.distance();
    (distance > most).then(|| format!("root distance {distance:?}, at most {most:?} is healthy"))
}

/// RFC 5905 8: θ = ((T2 − T1) + (T3 − T4)) / 2, known to within half the round trip.
fn offset_fault(read: &Answer, [sent, received]: [Timestamp; 2], most: Duration) -> Option<String> {
    let there = i128::from(read.receive.since(sent));
    let back = i128::from(read.transmit.since(received));
    let round_trip = (there - back).max(0);
    let magnitude = |units: i128| duration(u64::try_from(units.abs() / 2).unwrap_or(u64::MAX));
    let (offset, margin) = (magnitude(there + back), magnitude(round_trip));
    let sign = if there + back < 0 { "-" } else { "+" };
    (offset > most.saturating_add(margin)).then(|| {
        format!("its time is {sign}{offset:?} off this host's clock, at most {most:?} is healthy")
    })
}
