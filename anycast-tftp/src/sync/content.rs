//! The name of a content: its BLAKE3 hash and its size.

pub use crate::store::{ContentHash, ContentId};
