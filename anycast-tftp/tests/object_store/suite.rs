//! The suite of `anycast_core` for data that is kept equal, with a bucket between the two.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use anycast_core::sync::Sync;
use anycast_core::testing::sync_suite::{Items, SyncBench, run};
use async_trait::async_trait;

use crate::nodes::Node;
use crate::s3::{Proxy, S3};

struct Bench {
    server: S3,
    proxy: Proxy,
    here: Node,
    there: Node,
}

#[async_trait]
impl SyncBench for Bench {
    async fn node(&mut self) -> Arc<dyn Sync> {
        Arc::clone(&self.here.sync) as _
    }

    async fn here(&mut self) -> Items {
        self.here.files()
    }

    async fn put_here(&mut self, name: &str, content: &[u8]) {
        self.here.edit(name, content);
    }

    async fn there(&mut self) -> Items {
        self.there.sync.force().await.unwrap();
        self.there.files()
    }

    async fn put_there(&mut self, name: &str, content: &[u8]) {
        self.there.edit(name, content);
        self.there.sync.force().await.unwrap();
    }

    async fn delete_there(&mut self, name: &str) {
        self.there.delete(name);
        self.there.sync.force().await.unwrap();
    }

    async fn lose_there(&mut self) {
        self.there = Node::idle_at("rome", &self.server.url);
    }

    async fn hear(&mut self) -> bool {
        false
    }

    async fn cut_off(&mut self, cut_off: bool) {
        self.proxy.is_cut.store(cut_off, Ordering::Relaxed);
    }

    async fn spoil(&mut self, _: bool) -> bool {
        false
    }
}

#[tokio::test]
async fn a_bucket_keeps_two_nodes_equal() {
    let server = S3::start();
    let proxy = Proxy::start(&server);
    let here = Node::idle_at("oslo", &proxy.url);
    let there = Node::idle_at("rome", &server.url);
    let mut bench = Bench {
        server,
        proxy,
        here,
        there,
    };
    if let Err(violation) = run(&mut bench).await {
        panic!("{violation}");
    }
}
