//! Files that are the same at every site: what each node holds, what is newer, and what is missing.
//!
//! # Contract
//!
//! - A folder at each node holds the files; people and programs change them there, by renaming a new
//!   file into place or by writing it. What was changed at one node comes to be at all.
//! - The manifest says which versions of each name there are. It merges: in whatever
//!   order and however often nodes hear of each other's changes, they come to the same.
//! - **Nothing is lost.** Of two edits that did not know of each other one gets the name and the
//!   other one a name beside it, at every node alike. An edit wins over a deletion that did not know
//!   of it. Only a deletion removes: an absent list, an empty folder or another disk does not (F10).
//! - A file is fetched by the BLAKE3 hash of its content, from whoever has it, verified, on the disk
//!   before its name is, and its name is never on anything else. What has been fetched already, and
//!   what an older version has in common with it, is not fetched again.
//! - **Groups**: files that belong together are one item of the manifest, so that a node sees all of
//!   a generation or nothing of it, and a client goes on with the generation that it began with.
//! - A node is [ready](anycast_core::sync::Status::ready) when it holds what all it can hear hold.
//!   What cannot be stored (a full disk, a name too long for the file system) is told, the node stays
//!   up, and is not ready.
//! - Modes: `multi`, in which every node may change files, and
//!   `origin`, in which one does and the others repair what differs.
//!
//! # Parts
//!
//! | module | what it is |
//! |---|---|
//! | [`content`] | the name of a content: its hash and size |
//! | `manifest` | versions of names; merges (pure) |
//! | `replica` | one node's part: what to record, fetch, install and tell (pure) |
//! | `wire` | what nodes say to each other about files (pure, total) |
//! | `chunks` | what two versions have in common (pure) |
//! | `tree` | proves a part of a content by the hash of the whole (pure) |
//! | `affinity` | which client has begun with which generation of a group (pure) |
//! | `folder` | the disk: scans, inotify, partial contents, installs, the log |
//! | `driver` | the running whole: replica, folder, peers; the store that a server serves from |
//! | `object` | a bucket of an S3-compatible store (feature `object-store`) |

#[cfg(feature = "sync")]
pub mod affinity;
#[cfg(feature = "sync")]
pub mod chunks;
pub mod content;
#[cfg(feature = "sync")]
pub mod driver;
#[cfg(feature = "sync")]
pub mod folder;
#[cfg(feature = "sync")]
pub mod manifest;
#[cfg(feature = "object-store")]
pub mod object;
#[cfg(feature = "sync")]
pub mod replica;
#[cfg(feature = "sync")]
mod sorted;
#[cfg(feature = "sync")]
pub mod tree;
#[cfg(feature = "sync")]
pub mod wire;
