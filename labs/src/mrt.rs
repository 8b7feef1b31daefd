//! BGP messages as a router received them, read from its MRT dump.
//!
//! Counting withdrawals at the first hop has to be exact, for both daemons and
//! both address families. BIRD (`mrtdump protocols { messages }`) and FRR
//! (`dump bgp all`) both write every BGP message that they receive into an MRT
//! file (RFC 6396, `BGP4MP`), byte for byte, in order and already framed. That
//! is better than a packet capture, which would need TCP reassembly and may
//! lose packets, and better than protocol counters, which differ between the
//! daemons and do not tell the prefix.
//!
//! Pure: bytes in, records out. The dump may be read while it is written: an
//! incomplete last record is left out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use thiserror::Error;

mod bytes;

use bytes::Bytes;

/// The dump is not what RFC 6396 and RFC 4271 say.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
#[error("MRT record {record}: {what}")]
pub struct MrtError {
    /// Which one, counted from 0.
    pub record: usize,
    /// What is wrong with it.
    pub what: &'static str,
}

/// One BGP message received by the daemon that wrote the dump.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Wall-clock time, since 1970. In whole seconds unless the daemon writes
    /// extended timestamps.
    pub at: Duration,
    /// Who sent it.
    pub peer: IpAddr,
    /// What it was.
    pub message: Message,
}

/// A BGP message (RFC 4271 section 4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// OPEN: a session begins.
    Open,
    /// UPDATE.
    Update(Update),
    /// NOTIFICATION: a session ends, with code and subcode.
    Notification(u8, u8),
    /// KEEPALIVE.
    Keepalive,
    /// Anything else, by type.
    Other(u8),
}

/// What an UPDATE changes. An End-of-RIB marker (RFC 4724) changes nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Update {
    /// Routes withdrawn: the field of RFC 4271 and `MP_UNREACH_NLRI`.
    pub withdrawn: Vec<Prefix>,
    /// Routes announced: the field of RFC 4271 and `MP_REACH_NLRI`.
    pub announced: Vec<Prefix>,
    /// `LOCAL_PREF`, if present.
    pub local_pref: Option<u32>,
    /// `MULTI_EXIT_DISC`, if present.
    pub med: Option<u32>,
    /// ASes in `AS_PATH`, those of sets included; 0 without one.
    pub path_length: usize,
}

/// An address prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Prefix {
    /// The address; bits beyond the length are as sent.
    pub address: IpAddr,
    /// Its length in bits.
    pub length: u8,
}

impl Prefix {
    /// The prefix of this address alone.
    #[must_use]
    pub const fn host(address: IpAddr) -> Self {
        Self {
            address,
            length: if address.is_ipv4() { 32 } else { 128 },
        }
    }
}

const BGP4MP: u16 = 16;
const BGP4MP_ET: u16 = 17;
const MESSAGE: u16 = 1;
const MESSAGE_AS4: u16 = 4;
const AFI_IPV4: u16 = 1;
const AFI_IPV6: u16 = 2;
const SAFI_UNICAST: u8 = 1;
const MULTI_EXIT_DISC: u8 = 4;
const AS_PATH: u8 = 2;
const LOCAL_PREF: u8 = 5;
const MP_REACH_NLRI: u8 = 14;
const MP_UNREACH_NLRI: u8 = 15;

/// Parse a dump. Records that hold no received BGP message (state changes,
/// other kinds) are left out, and so is an incomplete last one.
///
/// # Errors
/// [`MrtError`] when a complete record is malformed.
pub fn parse(dump: &[u8]) -> Result<Vec<Record>, MrtError> {
    let mut rest = Bytes(dump);
    let mut records = Vec::new();
    for record in 0.. {
        let Some((header, body)) = next(&mut rest) else {
            break;
        };
        let parsed = parse_record(&header, body);
        let parsed = parsed.map_err(|what| MrtError { record, what })?;
        records.extend(parsed);
    }
    Ok(records)
}

struct Header {
    seconds: u32,
    kind: u16,
    subtype: u16,
}

fn next<'a>(rest: &mut Bytes<'a>) -> Option<(Header, Bytes<'a>)> {
    let header = Header {
        seconds: rest.u32()?,
        kind: rest.u16()?,
        subtype: rest.u16()?,
    };
    let length = rest.u32()?;
    let body = rest.take(usize::try_from(length).ok()?)?;
    Some((header, Bytes(body)))
}

fn parse_record(header: &Header, mut body: Bytes<'_>) -> Result<Option<Record>, &'static str> {
    let mut at = Duration::from_secs(header.seconds.into());
    match header.kind {
        BGP4MP => {}
        BGP4MP_ET => {
            let micros = body.u32().ok_or("no microseconds")?;
            at += Duration::from_micros(micros.into());
        }
        _ => return Ok(None),
    }
    let as_length = match header.subtype {
        MESSAGE => 2,
        MESSAGE_AS4 => 4,
        _ => return Ok(None),
    };
    // Both AS numbers and the interface index.
    body.take(2 * as_length + 2).ok_or("header too short")?;
    let afi = body.u16().ok_or("no address family")?;
    let peer = address(&mut body, afi).ok_or("no peer address")?;
    address(&mut body, afi).ok_or("no local address")?;
    let message = parse_message(body, as_length)?;
    Ok(Some(Record { at, peer, message }))
}

fn address(body: &mut Bytes<'_>, afi: u16) -> Option<IpAddr> {
    match afi {
        AFI_IPV4 => body
            .array::<4>()
            .map(|octets| Ipv4Addr::from(octets).into()),
        AFI_IPV6 => body
            .array::<16>()
            .map(|octets| Ipv6Addr::from(octets).into()),
        _ => None,
    }
}

fn parse_message(mut body: Bytes<'_>, as_length: usize) -> Result<Message, &'static str> {
    if body.array() != Some([0xff; 16]) {
        return Err("no BGP marker");
    }
    let length = body.u16().ok_or("no BGP length")?;
    let kind = body.u8().ok_or("no BGP type")?;
    if usize::from(length) != 19 + body.0.len() {
        return Err("BGP length differs from the record's");
    }
    match kind {
        1 => Ok(Message::Open),
        2 => parse_update(body, as_length).map(Message::Update),
        3 => {
            let codes = body.array::<2>().ok_or("NOTIFICATION too short")?;
            Ok(Message::Notification(codes[0], codes[1]))
        }
        4 => Ok(Message::Keepalive),
        other => Ok(Message::Other(other)),
    }
}

fn parse_update(mut body: Bytes<'_>, as_length: usize) -> Result<Update, &'static str> {
    let mut update = Update::default();
    let withdrawn = body.block().ok_or("withdrawn routes too short")?;
    prefixes(withdrawn, AFI_IPV4, &mut update.withdrawn)?;
    let mut attributes = body.block().ok_or("path attributes too short")?;
    prefixes(body, AFI_IPV4, &mut update.announced)?;
    while !attributes.0.is_empty() {
        let (kind, value) = attribute(&mut attributes).ok_or("path attribute too short")?;
        if kind == AS_PATH {
            update.path_length = path_length(value, as_length).ok_or("AS_PATH too short")?;
        }
        apply(&mut update, kind, value)?;
    }
    Ok(update)
}

fn attribute<'a>(attributes: &mut Bytes<'a>) -> Option<(u8, Bytes<'a>)> {
    const EXTENDED_LENGTH: u8 = 0x10;
    let flags = attributes.u8()?;
    let kind = attributes.u8()?;
    let length = if flags & EXTENDED_LENGTH == 0 {
        attributes.u8()?.into()
    } else {
        attributes.u16()?.into()
    };
    Some((kind, Bytes(attributes.take(length)?)))
}

fn apply(update: &mut Update, kind: u8, mut value: Bytes<'_>) -> Result<(), &'static str> {
    match kind {
        LOCAL_PREF => {
            update.local_pref = Some(value.u32().ok_or("LOCAL_PREF too short")?);
        }
        MULTI_EXIT_DISC => {
            update.med = Some(value.u32().ok_or("MULTI_EXIT_DISC too short")?);
        }
        MP_REACH_NLRI => {
            let (afi, safi) = family(&mut value).ok_or("MP_REACH_NLRI too short")?;
            let next_hop = value.u8().ok_or("MP_REACH_NLRI without next hop")?;
            // The next hop and a reserved octet.
            value
                .take(usize::from(next_hop) + 1)
                .ok_or("next hop too short")?;
            if safi == SAFI_UNICAST {
                prefixes(value, afi, &mut update.announced)?;
            }
        }
        MP_UNREACH_NLRI => {
            let (afi, safi) = family(&mut value).ok_or("MP_UNREACH_NLRI too short")?;
            if safi == SAFI_UNICAST {
                prefixes(value, afi, &mut update.withdrawn)?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// Segments of a type, a number of ASes and these.
fn path_length(mut value: Bytes<'_>, as_length: usize) -> Option<usize> {
    let mut sum = 0;
    while !value.0.is_empty() {
        value.u8()?;
        let count = usize::from(value.u8()?);
        value.take(count * as_length)?;
        sum += count;
    }
    Some(sum)
}

fn family(value: &mut Bytes<'_>) -> Option<(u16, u8)> {
    Some((value.u16()?, value.u8()?))
}

fn prefixes(mut from: Bytes<'_>, afi: u16, into: &mut Vec<Prefix>) -> Result<(), &'static str> {
    while let Some(length) = from.u8() {
        let octets = from
            .take(usize::from(length).div_ceil(8))
            .ok_or("prefix too short")?;
        let address = match afi {
            AFI_IPV4 => padded(octets).map(|octets| Ipv4Addr::from(octets).into()),
            AFI_IPV6 => padded(octets).map(|octets| Ipv6Addr::from(octets).into()),
            _ => return Ok(()),
        };
        let address = address.ok_or("prefix too long")?;
        into.push(Prefix { address, length });
    }
    Ok(())
}

fn padded<const N: usize>(octets: &[u8]) -> Option<[u8; N]> {
    let mut full = [0; N];
    full.get_mut(..octets.len())?.copy_from_slice(octets);
    Some(full)
}

#[cfg(test)]
mod tests;
