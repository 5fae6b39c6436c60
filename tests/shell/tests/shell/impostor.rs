//! A program in the place of a node: it says its hello, answers requests as an owner without any object, is ready for
//! every plugin, and leaves all bulk unread.

use rejoin_proto::peer::{Absorbed, PeerBody, PeerEnvelope, PeerHello, PeerReady};
use rejoin_proto::plugin_state::PluginState;
use rejoin_proto::{LayoutRange, LayoutRef, NodeId, Object, ReapEpoch, codec};
use rejoin_test_shell::{World, name};
use rejoin_wire::{Accepted, Class, Connection};

/// Frame ids between peers.
const HELLO: u64 = 0;
const MESSAGE: u64 = 1;
const READY: u64 = 2;

/// What an impostor does before its answers to requests.
pub(crate) type More = fn(&Connection, LayoutRef, &PeerBody);

/// Plays a node.
pub(crate) async fn play(world: World, node: &'static str, more: More) {
    let endpoint = world.endpoint(world.address(node).port(), world.files.identity(node));
    while let Some(accepted) = endpoint.accept().await {
        let Accepted::Peer(connection, _) = accepted else { continue };
        tokio::task::spawn_local(serve(connection, node, more));
    }
}

async fn serve(connection: Connection, node: &'static str, more: More) {
    let theirs: PeerHello = codec::decode(&connection.recv().await.unwrap().body).unwrap();
    let layout = theirs.params.origin;
    let layouts = LayoutRange { oldest: layout, newest: layout };
    let ready = PeerReady { catalog: theirs.catalog, layouts };
    let ours = PeerHello { node: NodeId::from_name(&name(node)), known_disk: None, actors: Vec::new(), ..theirs };
    connection.sender().try_send(Class::Control, HELLO, codec::encode(&ours).into()).unwrap();
    connection.sender().try_send(Class::Control, READY, codec::encode(&ready).into()).unwrap();
    let mut frames = Vec::new();
    while connection.recv_batch_of(&[Class::Control, Class::Request, Class::Large], &mut frames, 64).await > 0 {
        for frame in frames.drain(..).filter(|frame| frame.id == MESSAGE) {
            let envelope: PeerEnvelope = codec::decode(&frame.body).unwrap();
            more(&connection, layout, &envelope.body);
            answer(&connection, layout, envelope.body);
        }
    }
}

fn answer(connection: &Connection, layout: LayoutRef, body: PeerBody) {
    let send = |class, body| send(connection, layout, class, body);
    match body {
        PeerBody::CatalogRecords { number, .. } => send(Class::Control, PeerBody::CatalogTaken { number }),
        PeerBody::PluginAsk { number, .. } => {
            send(Class::Request, PeerBody::PluginAnswer { number, state: PluginState::Ready });
        }
        PeerBody::Read { op, .. } => {
            let (epoch, copy) = (ReapEpoch::default(), Ok(Object::default()));
            send(Class::Request, PeerBody::ReadReply { op, epoch, copy, complete: true });
        }
        PeerBody::Replicate(message) => {
            if let Some(op) = message.op {
                let (bucket_version, outcome) = (message.bucket_version, Ok(Absorbed::Stored));
                send(Class::Request, PeerBody::Replicated { op, layout, bucket_version, outcome, held: None });
            }
        }
        _ => {}
    }
}

/// Sends a message to a node.
pub(crate) fn send(connection: &Connection, layout: LayoutRef, class: Class, body: PeerBody) {
    let envelope = PeerEnvelope { layout, trace: 0, body };
    // Where the connection has ended, nobody waits.
    let _ = connection.sender().try_send(class, MESSAGE, codec::encode(&envelope).into());
}
