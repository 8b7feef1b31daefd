//! The suite that every synchronisation must pass.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anycast_core::mesh::transport::Mesh;
use anycast_core::sync::{self, Forced, Lag, Status, SyncError};
use anycast_core::testing::sync_suite::{Items, SyncBench, run};
use anycast_tftp::sync::driver::FileSync;
use async_trait::async_trait;
use tokio::sync::Mutex;
use tokio::time::sleep;

use crate::nodes::{Member, Node, PATIENCE, members, name, until, write};

/// The peer dials, so that it is met at once whenever it is there again.
const PEER: &str = "a";
const NODE: &str = "z";

/// A node that runs, and a peer that does only when they are to meet: what is changed there
/// meanwhile reaches the node by the order, and not before.
struct World {
    all: Vec<Member>,
    mesh: Mesh,
    node: Option<Arc<FileSync>>,
    peer: Option<Node>,
    is_cut_off: bool,
    /// Something was changed in the peer's folder.
    is_dirty: bool,
}

impl World {
    fn peer(&self) -> &Member {
        self.all.iter().find(|one| one.name == name(PEER)).unwrap()
    }

    /// The peer finds what was changed in its folder, with nobody to tell it to.
    async fn find(&mut self) {
        self.peer = None;
        let deleted = self.peer().state().join("deleted");
        let gone = fs::read_to_string(&deleted)
            .unwrap_or_default()
            .lines()
            .count() as u64;
        let mut alone = members(&[PEER, NODE]);
        alone.swap_remove(1);
        let mesh = alone[0].join(&alone).await;
        let peer = self.peer();
        let sync = peer.sync(&mesh, peer.config(&self.all)).await;
        let files = items(&peer.root()).len() as u64;
        until("the peer to find its files", || {
            let details = sync.details();
            let has_scanned = !sync.now().reason.to_string().contains("scanned");
            has_scanned && details.files == files && details.counts["deletions"] >= gone
        })
        .await;
        let _ = fs::remove_file(deleted);
        self.is_dirty = false;
    }

    async fn meet(&mut self) {
        if self.is_cut_off {
            return;
        }
        if self.is_dirty {
            self.find().await;
        }
        if self.peer.is_none() {
            let mesh = self.peer().join(&self.all).await;
            until("the two to meet", || {
                mesh.handle().is_up(&name(NODE)) && self.mesh.handle().is_up(&name(PEER))
            })
            .await;
            let peer = self.peer();
            let sync = peer.sync(&mesh, peer.config(&self.all)).await;
            let root = peer.root();
            self.peer = Some(Node { root, sync, mesh });
        }
    }

    async fn part(&mut self) {
        self.peer = None;
        until("the node to be alone", || {
            !self.mesh.handle().is_up(&name(PEER))
        })
        .await;
    }
}

/// The node, whose peer comes when it is given the order.
struct Meets(Arc<Mutex<World>>);

impl Meets {
    async fn sync(&self) -> Arc<FileSync> {
        Arc::clone(self.0.lock().await.node.as_ref().unwrap())
    }
}

#[async_trait]
impl sync::Sync for Meets {
    async fn status(&self) -> Result<Status, SyncError> {
        sync::Sync::status(&*self.sync().await).await
    }

    async fn lag(&self) -> Result<Lag, SyncError> {
        sync::Sync::lag(&*self.sync().await).await
    }

    async fn force(&self) -> Result<Forced, SyncError> {
        let world = Arc::clone(&self.0);
        // Not a part of what may be cut short.
        let met = tokio::spawn(async move { world.lock().await.meet().await });
        met.await.unwrap();
        let sync = self.sync().await;
        sync::Sync::force(&*sync).await
    }
}

struct Bench(Arc<Mutex<World>>);

fn items(root: &Path) -> Items {
    let files = fs::read_dir(root).unwrap().map(Result::unwrap);
    let files = files.filter(|file| file.file_type().unwrap().is_file());
    let item = |file: fs::DirEntry| {
        let name = file.file_name().into_string().unwrap();
        (name, fs::read(file.path()).unwrap())
    };
    files.map(item).collect()
}

fn member<'a>(world: &'a World, one: &str) -> &'a Member {
    let one = name(one);
    world.all.iter().find(|member| member.name == one).unwrap()
}

#[async_trait]
impl SyncBench for Bench {
    async fn node(&mut self) -> Arc<dyn sync::Sync> {
        let mut world = self.0.lock().await;
        world.node = None;
        let member = member(&world, NODE);
        let node = member.sync(&world.mesh, member.config(&world.all)).await;
        world.node = Some(Arc::new(node));
        Arc::new(Meets(Arc::clone(&self.0)))
    }

    async fn here(&mut self) -> Items {
        items(&member(&*self.0.lock().await, NODE).root())
    }

    async fn put_here(&mut self, name: &str, content: &[u8]) {
        write(&member(&*self.0.lock().await, NODE).root(), name, content);
    }

    async fn there(&mut self) -> Items {
        items(&self.0.lock().await.peer().root())
    }

    async fn put_there(&mut self, name: &str, content: &[u8]) {
        let mut world = self.0.lock().await;
        if world.peer.is_some() {
            world.part().await;
        }
        write(&world.peer().root(), name, content);
        world.is_dirty = true;
    }

    async fn delete_there(&mut self, name: &str) {
        let mut world = self.0.lock().await;
        world.part().await;
        fs::remove_file(world.peer().root().join(name)).unwrap();
        fs::write(world.peer().state().join("deleted"), "one\n").unwrap();
        world.is_dirty = true;
    }

    async fn lose_there(&mut self) {
        let mut world = self.0.lock().await;
        world.part().await;
        // Its last threads may still be at it.
        sleep(Duration::from_millis(200)).await;
        fs::remove_dir_all(world.peer().root()).unwrap();
        fs::remove_dir_all(world.peer().state()).unwrap();
        fs::create_dir(world.peer().root()).unwrap();
    }

    /// What it has heard of it fetches.
    async fn hear(&mut self) -> bool {
        false
    }

    async fn cut_off(&mut self, cut_off: bool) {
        let mut world = self.0.lock().await;
        world.is_cut_off = cut_off;
        if cut_off {
            world.part().await;
        }
        world.meet().await;
    }

    async fn spoil(&mut self, _: bool) -> bool {
        false
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn file_sync_passes_the_suite() {
    let all = members(&[PEER, NODE]);
    let mesh = all[1].join(&all).await;
    let world = World {
        all,
        mesh,
        node: None,
        peer: None,
        is_cut_off: false,
        is_dirty: false,
    };
    let mut bench = Bench(Arc::new(Mutex::new(world)));
    let passed = tokio::time::timeout(PATIENCE * 5, run(&mut bench)).await;
    passed.unwrap().unwrap();
}
