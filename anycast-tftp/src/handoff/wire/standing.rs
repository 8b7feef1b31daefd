//! A transfer and how it stands, as bytes.

use std::time::Duration;

use super::WireError;
use super::fields::{Reader, Writer};
use crate::handoff::record::{NodeId, Record, Tenure};
use crate::proto::Flow;
use crate::proto::packet::{MAX_BLKSIZE, MAX_OPTION_ACK, MIN_BLKSIZE, Mode};
use crate::proto::settings::MAX_WINDOWSIZE;
use crate::proto::transfer::Rollover;
use crate::store::{ContentHash, ContentId, FileName};

/// How far a transfer is, and who owns it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Who owns it.
    pub tenure: Tenure,
    /// Blocks that the client is known to have.
    pub acked: u64,
    /// Blocks that every holder is known to know.
    pub floor: u64,
    /// Fastest pace that was seen, in blocks a second; 0: none.
    pub pace: u32,
    /// It has acknowledged the options, or a block.
    pub is_greeted: bool,
    /// How long the client has not been heard of.
    pub silence: Duration,
}

/// How a node sees a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// How far it is.
    pub progress: Progress,
    /// Until the first reply has gone out, at the latest.
    pub hold: Duration,
    /// How long whoever asked may answer; zero where it was not asked, or is not sure.
    pub lease: Duration,
    /// The time of whoever asked, as it said it: see [`Message::Ask`](super::Message::Ask).
    pub echo: u64,
    /// No: the sender did not run for a while, and asks itself.
    pub is_sure: bool,
    /// For how long the sender has known the transfer.
    pub age: Duration,
}

impl View {
    /// A transfer that has just begun: nothing is acknowledged.
    #[must_use]
    pub const fn begun(owner: NodeId) -> Self {
        Self {
            progress: Progress {
                tenure: Tenure { epoch: 0, owner },
                acked: 0,
                floor: 0,
                pace: 0,
                is_greeted: false,
                silence: Duration::ZERO,
            },
            hold: Duration::ZERO,
            lease: Duration::ZERO,
            echo: 0,
            is_sure: true,
            age: Duration::ZERO,
        }
    }
}

/// A transfer, and how a node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The transfer.
    pub record: Record,
    /// How it stands.
    pub view: View,
}

/// How far a transfer is; from its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hint {
    /// Whose.
    pub flow: Flow,
    /// Which.
    pub nonce: u64,
    /// How far.
    pub progress: Progress,
    /// The latest time of the receiver that the owner has seen; 0: none.
    pub echo: u64,
}

pub(super) fn put_progress(w: &mut Writer, progress: &Progress) {
    w.u32(progress.tenure.epoch);
    w.u64(progress.tenure.owner.0);
    w.u64(progress.acked);
    w.u64(progress.floor);
    w.u32(progress.pace);
    w.flag(progress.is_greeted);
    w.millis(progress.silence);
}

pub(super) fn progress(r: &mut Reader<'_>) -> Result<Progress, WireError> {
    Ok(Progress {
        tenure: Tenure {
            epoch: r.u32()?,
            owner: NodeId(r.u64()?),
        },
        acked: r.u64()?,
        floor: r.u64()?,
        pace: r.u32()?,
        is_greeted: r.flag()?,
        silence: r.millis()?,
    })
}

pub(super) fn put_view(w: &mut Writer, view: &View) {
    put_progress(w, &view.progress);
    w.millis(view.hold);
    w.millis(view.lease);
    w.u64(view.echo);
    w.flag(view.is_sure);
    w.millis(view.age);
}

pub(super) fn view(r: &mut Reader<'_>) -> Result<View, WireError> {
    Ok(View {
        progress: progress(r)?,
        hold: r.millis()?,
        lease: r.millis()?,
        echo: r.u64()?,
        is_sure: r.flag()?,
        age: r.millis()?,
    })
}

pub(super) fn put_standing(w: &mut Writer, standing: &Standing) {
    let record = &standing.record;
    w.flow(&record.flow);
    w.u64(record.nonce);
    w.u32(record.order);
    w.u128(record.request);
    w.text(record.name.as_str().as_bytes());
    w.flag(record.content.is_some());
    if let Some(content) = record.content {
        w.bytes(&content.hash.0);
        w.u64(content.size);
    }
    w.flag(record.mode == Mode::Netascii);
    w.text(&record.oack);
    w.u16(record.blksize);
    w.u16(record.windowsize);
    w.u8(record.timeout.unwrap_or(0));
    w.flag(record.rollover == Rollover::One);
    put_view(w, &standing.view);
}

pub(super) fn standing(r: &mut Reader<'_>) -> Result<Standing, WireError> {
    let flow = r.flow()?;
    let (nonce, order, request) = (r.u64()?, r.u32()?, r.u128()?);
    let name = FileName::from_wire(r.text()?).map_err(|_| WireError::Value("the file name"))?;
    let content = if r.flag()? {
        let hash = ContentHash(r.array()?);
        Some(ContentId {
            hash,
            size: r.u64()?,
        })
    } else {
        None
    };
    let mode = if r.flag()? {
        Mode::Netascii
    } else {
        Mode::Octet
    };
    let oack: Box<[u8]> = r.text()?.into();
    if oack.len() > MAX_OPTION_ACK {
        return Err(WireError::Value("the OACK"));
    }
    let (blksize, windowsize) = (r.u16()?, r.u16()?);
    if !(MIN_BLKSIZE..=MAX_BLKSIZE).contains(&blksize) {
        return Err(WireError::Value("the block size"));
    }
    if windowsize == 0 || windowsize > MAX_WINDOWSIZE {
        return Err(WireError::Value("the window"));
    }
    let timeout = Some(r.u8()?).filter(|timeout| *timeout != 0);
    let rollover = if r.flag()? {
        Rollover::One
    } else {
        Rollover::Zero
    };
    let record = Record {
        flow,
        nonce,
        order,
        request,
        name,
        content,
        mode,
        oack,
        blksize,
        windowsize,
        timeout,
        rollover,
    };
    Ok(Standing {
        record,
        view: view(r)?,
    })
}
