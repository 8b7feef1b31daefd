//! Fields of messages: big-endian numbers, texts and pieces behind their length in 16 bits.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::WireError;
use crate::proto::Flow;

/// Writes one message.
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn begin(tag: u8) -> Self {
        // The length is put in at the end.
        Self(vec![tag, 0, 0])
    }

    pub(super) fn end(mut self) -> Vec<u8> {
        let len = u16::try_from(self.0.len() - 3).unwrap_or(u16::MAX);
        if let Some(place) = self.0.get_mut(1..3) {
            place.copy_from_slice(&len.to_be_bytes());
        }
        self.0
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn u8(&mut self, number: u8) {
        self.0.push(number);
    }

    pub(super) fn flag(&mut self, flag: bool) {
        self.0.push(u8::from(flag));
    }

    pub(super) fn u16(&mut self, number: u16) {
        self.bytes(&number.to_be_bytes());
    }

    pub(super) fn u32(&mut self, number: u32) {
        self.bytes(&number.to_be_bytes());
    }

    pub(super) fn u64(&mut self, number: u64) {
        self.bytes(&number.to_be_bytes());
    }

    pub(super) fn u128(&mut self, number: u128) {
        self.bytes(&number.to_be_bytes());
    }

    pub(super) fn millis(&mut self, time: Duration) {
        self.u32(u32::try_from(time.as_millis()).unwrap_or(u32::MAX));
    }

    pub(super) fn text(&mut self, text: &[u8]) {
        self.u16(u16::try_from(text.len()).unwrap_or(u16::MAX));
        self.bytes(text);
    }

    pub(super) fn rest(&mut self, bytes: &[u8]) {
        self.bytes(bytes);
    }

    pub(super) fn flow(&mut self, flow: &Flow) {
        self.address(flow.remote);
        self.address(flow.local);
    }

    fn address(&mut self, address: SocketAddr) {
        match address.ip() {
            IpAddr::V4(v4) => {
                self.u8(4);
                self.bytes(&v4.octets());
            }
            IpAddr::V6(v6) => {
                self.u8(6);
                self.bytes(&v6.octets());
            }
        }
        self.u16(address.port());
    }
}

/// Reads one message.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], WireError> {
        let (head, rest) = self.0.split_at_checked(len).ok_or(WireError::Short)?;
        self.0 = rest;
        Ok(head)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        self.take(N)?.try_into().map_err(|_| WireError::Short)
    }

    pub(super) fn u8(&mut self) -> Result<u8, WireError> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    pub(super) fn flag(&mut self) -> Result<bool, WireError> {
        Ok(self.u8()? != 0)
    }

    pub(super) fn u16(&mut self) -> Result<u16, WireError> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    pub(super) fn u32(&mut self) -> Result<u32, WireError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, WireError> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    pub(super) fn u128(&mut self) -> Result<u128, WireError> {
        Ok(u128::from_be_bytes(self.array()?))
    }

    pub(super) fn millis(&mut self) -> Result<Duration, WireError> {
        Ok(Duration::from_millis(self.u32()?.into()))
    }

    pub(super) fn text(&mut self) -> Result<&'a [u8], WireError> {
        self.piece()
    }

    /// Bytes behind their length.
    pub(super) fn piece(&mut self) -> Result<&'a [u8], WireError> {
        let len = self.u16()?;
        self.take(len.into())
    }

    pub(super) const fn rest(&self) -> &'a [u8] {
        self.0
    }

    pub(super) fn flow(&mut self) -> Result<Flow, WireError> {
        Ok(Flow {
            remote: self.address()?,
            local: self.address()?,
        })
    }

    fn address(&mut self) -> Result<SocketAddr, WireError> {
        let ip = match self.u8()? {
            4 => IpAddr::V4(Ipv4Addr::from(self.array::<4>()?)),
            6 => IpAddr::V6(Ipv6Addr::from(self.array::<16>()?)),
            _ => return Err(WireError::Value("an address family")),
        };
        Ok(SocketAddr::new(ip, self.u16()?))
    }
}
