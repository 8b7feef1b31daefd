//! Contents that are held open for records.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Node, State};
use crate::handoff::limits::MAX_CONTENTS;
use crate::proto::Flow;
use crate::proto::jobs::StoreRequest;
use crate::store::{Content, ContentId, OpenError};

/// A content that was not to be had is asked for again after this.
const AGAIN: Duration = Duration::from_millis(500);

#[derive(Debug)]
enum Pin {
    Opening,
    Here(Arc<dyn Content>),
    Missing(Instant),
}

#[derive(Debug)]
struct Pinned {
    pin: Pin,
    /// Live records that refer to it.
    records: usize,
}

#[derive(Debug, Default)]
pub(super) struct Contents(BTreeMap<ContentId, Pinned>);

impl Contents {
    pub(super) fn get(&self, content: &ContentId) -> Option<&Arc<dyn Content>> {
        match &self.0.get(content)?.pin {
            Pin::Here(content) => Some(content),
            Pin::Opening | Pin::Missing(_) => None,
        }
    }
}

impl State {
    /// A live record refers to a content; `here` if it is open already.
    pub(super) fn pin(&mut self, content: Option<ContentId>, here: Option<Arc<dyn Content>>) {
        let Some(content) = content else {
            return;
        };
        let is_full = self.contents.0.len() >= MAX_CONTENTS;
        let pinned = self.contents.0.entry(content).or_insert(Pinned {
            pin: Pin::Missing(self.start),
            records: 0,
        });
        pinned.records += 1;
        match (&pinned.pin, here) {
            (Pin::Here(_), _) => {}
            (_, Some(here)) => pinned.pin = Pin::Here(here),
            // One too many is opened when a client comes for it.
            (Pin::Missing(_), None) if !is_full => {
                pinned.pin = Pin::Opening;
                self.requests.push_back(StoreRequest::Pin { content });
            }
            (Pin::Opening | Pin::Missing(_), None) => {}
        }
    }

    /// A live record does no more.
    pub(super) fn unpin(&mut self, content: Option<ContentId>) {
        let Some(content) = content else {
            return;
        };
        let Some(pinned) = self.contents.0.get_mut(&content) else {
            return;
        };
        pinned.records = pinned.records.saturating_sub(1);
        if pinned.records == 0
            && let Some(pinned) = self.contents.0.remove(&content)
            && let Pin::Here(content) = pinned.pin
        {
            // Closing may have to wait for a disk.
            self.requests.push_back(StoreRequest::Close { content });
        }
    }

    /// The content of a record, where it is here; else it is asked for.
    pub(super) fn content(
        &mut self,
        now: Instant,
        content: &ContentId,
    ) -> Option<Arc<dyn Content>> {
        let pinned = self.contents.0.get_mut(content)?;
        match &pinned.pin {
            Pin::Here(content) => return Some(Arc::clone(content)),
            Pin::Missing(until) if now >= *until => {
                pinned.pin = Pin::Opening;
                self.requests
                    .push_back(StoreRequest::Pin { content: *content });
            }
            Pin::Opening | Pin::Missing(_) => {}
        }
        None
    }
}

impl Node {
    /// A content that was open cannot be read any more: it is opened once more, at a peer perhaps.
    pub(super) fn unreadable(&mut self, now: Instant, flow: &Flow) {
        let Some(state) = &mut self.shared else {
            return;
        };
        let Some(entry) = state.entries.get_mut(flow) else {
            return;
        };
        entry.has_session = false;
        let Some(content) = entry.record.content else {
            return;
        };
        if let Some(pinned) = state.contents.0.get_mut(&content)
            && let Pin::Here(_) = pinned.pin
            && let Pin::Here(content) = std::mem::replace(&mut pinned.pin, Pin::Missing(now))
        {
            state.requests.push_back(StoreRequest::Close { content });
        }
        state.content(now, &content);
    }

    /// No node has a content any more: the transfers whose client is here are over. Those whose
    /// client is elsewhere end there.
    fn lost(&mut self, now: Instant, id: &ContentId) {
        let Some(state) = &self.shared else {
            return;
        };
        let entries = state.entries.iter().filter(|(_, entry)| {
            let is_without = entry.is_live() && !entry.has_session;
            is_without && entry.record.content == Some(*id)
        });
        let flows = entries.filter(|(flow, entry)| {
            let is_here = entry.own.is_some() || state.strangers.has(flow);
            is_here && state.is_allowed(now, entry)
        });
        for flow in flows.map(|(flow, _)| *flow).collect::<Vec<_>>() {
            tracing::warn!(client = %flow.remote, content = %id.hash, "no node has the content of a transfer");
            self.server.refuse_shared(flow, "the file cannot be read");
            self.over(now, &flow);
        }
    }

    /// An owner whose content is not to be had for now asks for it again.
    pub(super) fn reopen(&mut self, now: Instant, flow: &Flow) {
        let Some(state) = &mut self.shared else {
            return;
        };
        let entry = state.entries.get(flow).filter(|entry| !entry.has_session);
        if let Some(content) = entry.and_then(|entry| entry.record.content) {
            state.content(now, &content);
        }
    }

    /// The store has opened a content, or has not.
    pub(super) fn pinned(
        &mut self,
        now: Instant,
        id: ContentId,
        result: Result<Arc<dyn Content>, OpenError>,
    ) {
        let Some(state) = &mut self.shared else {
            return;
        };
        let Some(pinned) = state.contents.0.get_mut(&id) else {
            if let Ok(content) = result {
                state.requests.push_back(StoreRequest::Close { content });
            }
            return;
        };
        if matches!(pinned.pin, Pin::Here(_)) {
            return;
        }
        match result {
            Ok(content) if content.size() == id.size => pinned.pin = Pin::Here(content),
            Ok(_) => {
                tracing::error!(content = %id.hash, "a store opened another content");
                pinned.pin = Pin::Missing(now + AGAIN);
                return;
            }
            Err(error) => {
                tracing::debug!(content = %id.hash, %error, "the content of a transfer is not here");
                pinned.pin = Pin::Missing(now + AGAIN);
                if matches!(error, OpenError::NotFound) {
                    self.lost(now, &id);
                }
                return;
            }
        }
        let flows: Vec<Flow> = state
            .entries
            .iter()
            .filter(|(_, entry)| entry.is_live() && entry.record.content == Some(id))
            .map(|(flow, _)| *flow)
            .collect();
        for flow in flows {
            let Some(entry) = self.shared.as_ref().and_then(|s| s.entries.get(&flow)) else {
                continue;
            };
            let owner = entry.tenure.owner;
            let is_owned = entry.own.is_some() && !entry.has_session;
            self.say_kept(now, &flow, owner);
            if is_owned && self.adopt(now, &flow, false) {
                self.server.repeat(&flow);
            }
            self.retry_stranger(now, &flow);
        }
    }
}
