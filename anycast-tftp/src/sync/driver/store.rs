//! The files as clients are to have them.
//!
//! - A file of its own is opened in the folder, as without sync.
//! - A file of a group is opened by its content, in the generation that the client began with, here or
//!   at another node, and else in the one that is complete here.
//! - A file that is known and not here yet is read through from a peer that has it.
//!
//! Opening may block, on the disk and, for the last kind, on a peer.
//!
//! A content that is known for certain says what it is ([`Content::id`]), and never gives other bytes.
//! Of a file in the folder it is known where nothing about the file has changed since it was hashed;
//! one that is [`SMALL`](crate::sync::folder::SMALL) is hashed otherwise, while it is opened.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use super::Shared;
use super::identified::Identified;
use super::through::Remote;
use crate::store::fs::FsContent;
use crate::store::{
    Content, CreateError, FileName, FsStore, OpenError, Store, Upload, WritePolicy,
};
use crate::sync::content::ContentId;
use crate::sync::folder::ObjectError;
use crate::sync::wire::GenerationId;

/// The store of a [`FileSync`](super::FileSync).
#[derive(Debug)]
pub struct SyncStore {
    shared: Arc<Shared>,
    files: FsStore,
}

/// Where a name leads.
enum Place {
    /// To the folder.
    Folder,
    /// To this content, of a group.
    Object(ContentId),
    /// To peers that have it.
    Peers(ContentId),
}

impl SyncStore {
    pub(super) fn new(shared: Arc<Shared>, files: FsStore) -> Self {
        Self { shared, files }
    }

    fn place(&self, name: &FileName, client: Option<IpAddr>) -> Place {
        let shared = &self.shared;
        let (group, generations, coming) = {
            let replica = shared.replica();
            let Some(group) = replica.group_of(name) else {
                return Place::Folder;
            };
            let generations = replica.generations(&group);
            let coming = replica.manifest().generation(&group);
            (group, generations, coming)
        };
        let now = Instant::now();
        let coming_id = coming.as_ref().map(GenerationId::of);
        let chosen = client.and_then(|client| {
            // One that is not complete here is chosen by those who began with it elsewhere.
            let known: Vec<_> = generations
                .iter()
                .map(|(id, _)| *id)
                .chain(coming_id)
                .collect();
            let chosen = shared.affinity().open(now, client, &group, &known);
            shared.noticed.notify_one();
            chosen
        });
        let held = generations.iter().find(|(id, _)| Some(*id) == chosen);
        let is_coming = held.is_none() && chosen.is_some() && chosen == coming_id;
        let generation = held.or_else(|| generations.first()).filter(|_| !is_coming);
        if let Some(content) = generation.and_then(|(_, generation)| generation.content(name)) {
            return Place::Object(content);
        }
        // Nothing of the group is complete here, or not what the client began with.
        match coming.and_then(|generation| generation.content(name)) {
            Some(content) => Place::Peers(content),
            None => Place::Folder,
        }
    }

    /// A content that is somewhere in this folder; `None`: it is not.
    fn open_here(&self, content: ContentId) -> Result<Option<Arc<dyn Content>>, OpenError> {
        let held = match self.shared.folder.open_certain(&content) {
            Ok(held) => held,
            Err(ObjectError::Absent(_)) => return Ok(None),
            Err(error) => return Err(OpenError::Io(io::Error::other(error))),
        };
        let file = held.file().try_clone().map_err(OpenError::Io)?;
        let file = self.files.adopt(file)?;
        // What was changed since it was looked at is not what was asked for.
        if !held.is_intact().map_err(OpenError::Io)? {
            return Ok(None);
        }
        Ok(Identified::new(file, content).map(|file| Arc::new(file) as _))
    }

    /// A content by its hash, or through a peer where its disk lost it.
    fn open_object(&self, content: ContentId) -> Result<Arc<dyn Content>, OpenError> {
        match self.open_here(content)? {
            Some(opened) => Ok(opened),
            None => self.open_remote(content),
        }
    }

    /// A content that the manifest has: who has not got it yet may have it in a moment.
    fn open_remote(&self, content: ContentId) -> Result<Arc<dyn Content>, OpenError> {
        let peers = self.shared.replica().sources();
        match Remote::open(&self.shared, content, peers) {
            Err(OpenError::NotFound) => {
                Err(OpenError::Overloaded(io::Error::other("no peer has it")))
            }
            opened => opened,
        }
    }

    fn open_in_folder(&self, name: &FileName) -> Result<Arc<dyn Content>, OpenError> {
        let opened = match self.files.open_file(name) {
            Ok(file) => return Ok(self.identified(name, file)),
            Err(error) => Err(error),
        };
        if !matches!(opened, Err(OpenError::NotFound)) {
            return opened;
        }
        let wanted = {
            let replica = self.shared.replica();
            let wanted = replica.manifest().wanted(name);
            // What was here and was deleted by hand is gone, not missing.
            wanted.filter(|wanted| replica.on_disk(name) != Some(*wanted))
        };
        match wanted {
            None => opened,
            Some(content) => self.open_remote(content),
        }
    }

    fn open_at(&self, name: &FileName, place: Place) -> Result<Arc<dyn Content>, OpenError> {
        match place {
            Place::Folder => self.open_in_folder(name),
            Place::Object(content) => self.open_object(content),
            Place::Peers(content) => self.open_remote(content),
        }
    }

    /// A file that was opened at this path, as what it is where that is known.
    fn identified(&self, name: &FileName, file: Arc<FsContent>) -> Arc<dyn Content> {
        let content = match self.shared.folder.identify(name, file.file()) {
            Ok(Some(content)) => content,
            Ok(None) => {
                tracing::debug!(file = %name, "what it is is not known yet: its transfers end with this node");
                return file;
            }
            Err(error) => {
                tracing::debug!(file = %name, %error, "what it is cannot be found out");
                return file;
            }
        };
        match Identified::new(Arc::clone(&file), content) {
            Some(identified) => Arc::new(identified),
            None => file,
        }
    }
}

impl Store for SyncStore {
    fn open(&self, name: &FileName) -> Result<Arc<dyn Content>, OpenError> {
        self.open_at(name, self.place(name, None))
    }

    fn open_for(&self, name: &FileName, client: IpAddr) -> Result<Arc<dyn Content>, OpenError> {
        self.open_at(name, self.place(name, Some(client)))
    }

    fn open_content(&self, content: &ContentId) -> Result<Arc<dyn Content>, OpenError> {
        if let Some(opened) = self.open_here(*content)? {
            return Ok(opened);
        }
        let (peers, all) = {
            let replica = self.shared.replica();
            (replica.sources(), replica.config().peers.len())
        };
        let is_everybody = peers.len() == all;
        match Remote::open(&self.shared, *content, peers) {
            Err(OpenError::NotFound) if !is_everybody => Err(OpenError::Overloaded(
                io::Error::other("no peer that is up has it"),
            )),
            opened => opened,
        }
    }

    /// What is written here goes to all nodes; at a node that mirrors another nothing may be.
    fn create(&self, name: &FileName, policy: WritePolicy) -> Result<Box<dyn Upload>, CreateError> {
        if self.shared.replica().is_mirror() {
            return Err(CreateError::Denied);
        }
        self.files.create(name, policy)
    }
}
