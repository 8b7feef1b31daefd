//! Peers with a good key that open streams and do nothing with them.

use anycast_core::mesh::transport::Purpose;
use anycast_tftp::sync::wire::Message;

use crate::nodes::{Node, Peer, absent, members, name, page, tell, told, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_streams_without_a_question_hold_up_nobody() {
    let all = members(&["node", "silent", "third"]);
    let silent = Peer::start(&all[1], &all, |question, sender, _| async move {
        match question {
            Message::Follow(_) => tell(sender, page(5, Vec::new())).await,
            _ => absent(sender).await,
        }
    })
    .await;
    let node = Node::start(&all[0], &all).await;
    let third = Node::start(&all[2], &all).await;
    let handle = silent.mesh.handle();
    until("the silent one to be up", || handle.is_up(&name("node"))).await;
    let mut streams = Vec::new();
    for number in 0..16 {
        let mut stream = handle.open(&name("node"), Purpose::Files).await.unwrap();
        // Some say a part of a question.
        if number % 2 == 0 {
            stream.0.write_all(&[0, 0, 1]).await.unwrap();
        }
        streams.push(stream);
    }
    third.write("honest", b"content");
    node.has("honest", b"content").await;
    node.write("back", b"content");
    third.has("back", b"content").await;
    until("all to be ended", || {
        told("silent", "a stream about files was ended") >= 16
    })
    .await;
    drop(streams);
    let (mut sender, mut receiver) = handle.open(&name("node"), Purpose::Files).await.unwrap();
    let question = Message::Recipe(crate::nodes::content(b"content"));
    sender.write_all(&question.encode().unwrap()).await.unwrap();
    assert!(receiver.read_chunk(1).await.unwrap().is_some(), "an answer");
}
