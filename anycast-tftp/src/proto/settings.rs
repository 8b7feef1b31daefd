//! What a server engine may do and how much of it: [`Settings`].

use std::net::IpAddr;
use std::time::Duration;

use anycast_core::NodeName;

use super::packet::{MAX_BLKSIZE, MIN_BLKSIZE};
use super::transfer::Rollover;
use crate::store::WritePolicy;

/// Smallest [`Settings::mtu`]: what every IPv4 host must take (RFC 791).
pub const MIN_MTU: u32 = 576;
/// Largest [`Settings::mtu`]: the MTU of Linux's loopback.
pub const MAX_MTU: u32 = 65_536;
/// Largest [`Settings::max_windowsize`]: half of the block numbers, so that an
/// acknowledgement never fits two blocks in flight.
pub const MAX_WINDOWSIZE: u16 = 32_767;

/// IPv4 header without options, UDP header, DATA header.
const OVERHEAD_V4: u32 = 20 + 8 + 4;
/// IPv6 header without extensions, UDP header, DATA header.
const OVERHEAD_V6: u32 = 40 + 8 + 4;

/// Policy and limits of a server engine.
///
/// Private fields: set them with the `with_*` methods, then hand the settings to a server,
/// which calls [`validate`](Self::validate). A change reaches new transfers; those that run
/// keep what they negotiated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    writes: WritePolicy,
    node: Option<NodeName>,
    mtu: u32,
    max_blksize: u16,
    max_windowsize: u16,
    rollover: Rollover,
    max_sessions: u32,
    max_sessions_per_prefix: u32,
    max_pending_opens: u32,
    max_upload: u64,
    max_uploads: u32,
    max_upload_total: u64,
    max_retries: u8,
    open_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            writes: WritePolicy::Off,
            node: None,
            mtu: 1500,
            max_blksize: MAX_BLKSIZE,
            max_windowsize: 64,
            rollover: Rollover::Zero,
            max_sessions: 65_536,
            max_sessions_per_prefix: 4096,
            max_pending_opens: 1024,
            max_upload: 1 << 30,
            max_uploads: 256,
            max_upload_total: 4 << 30,
            max_retries: 8,
            open_timeout: Duration::from_secs(10),
        }
    }
}

/// Why settings were refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// The MTU is out of range.
    #[error("mtu {0} is out of range; use {MIN_MTU} to {MAX_MTU} bytes")]
    Mtu(u32),
    /// The block size is out of range.
    #[error("max_blksize {0} is out of range; use 512 to {MAX_BLKSIZE} bytes")]
    Blksize(u16),
    /// The window is out of range.
    #[error("max_windowsize {0} is out of range; use 1 to {MAX_WINDOWSIZE} blocks")]
    Windowsize(u16),
    /// A limit of zero would refuse every client.
    #[error("{0} is zero: no client could be served")]
    Zero(&'static str),
}

impl Settings {
    /// The defaults: reads only, an MTU of 1500 bytes, windows of up to 64 blocks.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether clients may write. Default: [`WritePolicy::Off`].
    #[must_use]
    pub const fn with_writes(mut self, writes: WritePolicy) -> Self {
        self.writes = writes;
        self
    }

    /// The name that a client learns which asks with the option `anycast-node`. Default: none,
    /// and the option is ignored.
    #[must_use]
    pub fn with_node(mut self, node: Option<NodeName>) -> Self {
        self.node = node;
        self
    }

    /// Largest IP packet, in bytes, that reaches every client at every site whole:
    /// [`MIN_MTU`]–[`MAX_MTU`], default 1500. It caps the block size that is agreed to, at
    /// MTU − 32 for IPv4 (1468) and MTU − 52 for IPv6 (1448): a block that has to travel in
    /// fragments is lost with any one of them, and firewalls and boot ROMs drop fragments.
    /// Raise it to allow larger blocks; they are then fragmented where the path needs it.
    #[must_use]
    pub const fn with_mtu(mut self, mtu: u32) -> Self {
        self.mtu = mtu;
        self
    }

    /// Largest block size agreed to, in bytes, whatever the MTU: 512–65,464, default 65,464.
    #[must_use]
    pub const fn with_max_blksize(mut self, max_blksize: u16) -> Self {
        self.max_blksize = max_blksize;
        self
    }

    /// Largest window agreed to, in blocks: 1–[`MAX_WINDOWSIZE`], default 64, beyond which
    /// some clients fail.
    #[must_use]
    pub const fn with_max_windowsize(mut self, max_windowsize: u16) -> Self {
        self.max_windowsize = max_windowsize;
        self
    }

    /// What follows block 65,535. Default: block 0.
    #[must_use]
    pub const fn with_rollover(mut self, rollover: Rollover) -> Self {
        self.rollover = rollover;
        self
    }

    /// Most sessions of one engine, default 65,536, those of clients on this host not counted.
    /// When full, the oldest session whose client has sent nothing but its request makes room.
    /// Where there is none, the request is dropped in silence and counted: the client asks
    /// again, here or at another site.
    #[must_use]
    pub const fn with_max_sessions(mut self, max_sessions: u32) -> Self {
        self.max_sessions = max_sessions;
        self
    }

    /// Most sessions of the clients in one prefix (IPv4 /24, IPv6 /56), default 4096, and of
    /// those on this host. When full, as above, with the sessions of the prefix. Lower it where no NAT hides many clients.
    #[must_use]
    pub const fn with_max_sessions_per_prefix(mut self, limit: u32) -> Self {
        self.max_sessions_per_prefix = limit;
        self
    }

    /// Most files that are being opened at once, default 1024, and as many for clients on this
    /// host. When full (the disk hangs, or
    /// a flood of requests comes in), the request is dropped in silence and counted.
    #[must_use]
    pub const fn with_max_pending_opens(mut self, limit: u32) -> Self {
        self.max_pending_opens = limit;
        self
    }

    /// Largest file that clients may write, in bytes, default 1 GiB. Beyond it: ERROR 3.
    #[must_use]
    pub const fn with_max_upload(mut self, bytes: u64) -> Self {
        self.max_upload = bytes;
        self
    }

    /// Most files of one engine that are being written at once, default 256: each is a hidden
    /// file and two descriptors, for which anybody needs no more than one packet where
    /// writes are on. When full, a write request is dropped in silence and counted.
    #[must_use]
    pub const fn with_max_uploads(mut self, limit: u32) -> Self {
        self.max_uploads = limit;
        self
    }

    /// Most bytes of all files together that are being written and not complete, default
    /// 4 GiB. Beyond it: ERROR 3. How much complete files may take, a quota of the file system
    /// says.
    #[must_use]
    pub const fn with_max_upload_total(mut self, bytes: u64) -> Self {
        self.max_upload_total = bytes;
        self
    }

    /// How often one packet is sent again before the transfer is given up, 1–255, default 8.
    /// (A client that never answered gets fewer.)
    #[must_use]
    pub const fn with_max_retries(mut self, retries: u8) -> Self {
        self.max_retries = retries;
        self
    }

    /// How long a request waits for the store to open its file, default 10 s. Then it is
    /// dropped in silence.
    #[must_use]
    pub const fn with_open_timeout(mut self, timeout: Duration) -> Self {
        self.open_timeout = timeout;
        self
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// [`SettingsError`] names the setting and its range.
    pub fn validate(&self) -> Result<(), SettingsError> {
        if !(MIN_MTU..=MAX_MTU).contains(&self.mtu) {
            return Err(SettingsError::Mtu(self.mtu));
        }
        if !(512..=MAX_BLKSIZE).contains(&self.max_blksize) {
            return Err(SettingsError::Blksize(self.max_blksize));
        }
        if !(1..=MAX_WINDOWSIZE).contains(&self.max_windowsize) {
            return Err(SettingsError::Windowsize(self.max_windowsize));
        }
        for (name, limit) in [
            ("max_sessions", self.max_sessions),
            ("max_sessions_per_prefix", self.max_sessions_per_prefix),
            ("max_pending_opens", self.max_pending_opens),
            ("max_uploads", self.max_uploads),
            ("max_retries", u32::from(self.max_retries)),
        ] {
            if limit == 0 {
                return Err(SettingsError::Zero(name));
            }
        }
        if self.open_timeout.is_zero() {
            return Err(SettingsError::Zero("open_timeout"));
        }
        Ok(())
    }

    /// Whether clients may write.
    #[must_use]
    pub const fn writes(&self) -> WritePolicy {
        self.writes
    }

    /// Largest IP packet that reaches every client whole, in bytes.
    #[must_use]
    pub const fn mtu(&self) -> u32 {
        self.mtu
    }

    /// The name of this node.
    #[must_use]
    pub const fn node(&self) -> Option<&NodeName> {
        self.node.as_ref()
    }

    /// The largest block agreed to with a client of this address family, in bytes.
    #[must_use]
    pub fn blksize_for(&self, client: IpAddr) -> u16 {
        let overhead = match client {
            IpAddr::V4(_) => OVERHEAD_V4,
            IpAddr::V6(_) => OVERHEAD_V6,
        };
        let fits = u16::try_from(self.mtu.saturating_sub(overhead)).unwrap_or(MAX_BLKSIZE);
        fits.clamp(MIN_BLKSIZE, self.max_blksize)
    }

    pub(super) const fn max_windowsize(&self) -> u16 {
        self.max_windowsize
    }

    pub(super) const fn rollover(&self) -> Rollover {
        self.rollover
    }

    pub(super) const fn max_sessions(&self) -> u32 {
        self.max_sessions
    }

    pub(super) const fn max_sessions_per_prefix(&self) -> u32 {
        self.max_sessions_per_prefix
    }

    pub(super) const fn max_pending_opens(&self) -> u32 {
        self.max_pending_opens
    }

    pub(super) const fn max_upload(&self) -> u64 {
        self.max_upload
    }

    pub(super) const fn max_uploads(&self) -> u32 {
        self.max_uploads
    }

    pub(super) const fn max_upload_total(&self) -> u64 {
        self.max_upload_total
    }

    pub(super) const fn max_retries(&self) -> u8 {
        self.max_retries
    }

    pub(super) const fn open_timeout(&self) -> Duration {
        self.open_timeout
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mtu_caps_blocks_with_every_header_counted() {
        let v4 = IpAddr::from([192, 0, 2, 1]);
        let v6 = IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]);
        let settings = Settings::new();
        assert_eq!(settings.blksize_for(v4), 1468);
        assert_eq!(settings.blksize_for(v6), 1448);
        let jumbo = Settings::new().with_mtu(9000);
        assert_eq!((jumbo.blksize_for(v4), jumbo.blksize_for(v6)), (8968, 8948));
        let loopback = Settings::new().with_mtu(65_536);
        assert_eq!(loopback.blksize_for(v4), 65_464);
        assert_eq!(loopback.blksize_for(v6), 65_464);
        assert_eq!(loopback.with_max_blksize(1024).blksize_for(v4), 1024);
    }

    #[test]
    fn what_cannot_work_is_refused() {
        assert_eq!(Settings::new().validate(), Ok(()));
        for bad in [
            Settings::new().with_mtu(575),
            Settings::new().with_mtu(65_537),
            Settings::new().with_max_blksize(511),
            Settings::new().with_max_blksize(65_465),
            Settings::new().with_max_windowsize(0),
            Settings::new().with_max_windowsize(32_768),
            Settings::new().with_max_sessions(0),
            Settings::new().with_max_sessions_per_prefix(0),
            Settings::new().with_max_pending_opens(0),
            Settings::new().with_max_retries(0),
            Settings::new().with_max_uploads(0),
            Settings::new().with_open_timeout(Duration::ZERO),
        ] {
            assert!(bad.validate().is_err(), "{bad:?}");
        }
    }
}
