//! A bucket gets a plugin when every node that is alive is ready for it, whether the client waits for that or not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use rejoin_client::ErrorKind;
use rejoin_client::admin::{BucketProps, Canary, PluginDigest, PluginInfo, Shadow, activation};
use rejoin_proto::client::{AdminRequest, ClientHello, PROTOCOL, Reply, ReplyEnvelope, Request, RequestBody};
use rejoin_proto::peer::PeerBody;
use rejoin_proto::plugin_state::PluginState;
use rejoin_proto::{ErrorCode, ErrorReply, LayoutRef, codec};
use rejoin_test_hostile::guests;
use rejoin_test_shell::{Files, Impostor, Setup, World, name, simulate, simulate_with};
use rejoin_wire::{Class, Identity};

use crate::impostor::{self, send};

/// How long the node is held back.
const HELD: Duration = Duration::from_secs(3);

/// Whether the node that is held back may go on.
static RELEASED: AtomicBool = AtomicBool::new(false);

/// A node that compiles whatever it is asked about until it is released.
async fn held_back(world: World, node: &'static str) {
    impostor::play(world, node, |connection, layout, body| {
        if let PeerBody::PluginAsk { number, .. } = body
            && !RELEASED.load(Relaxed)
        {
            // The first answer of a node counts.
            let answer = PeerBody::PluginAnswer { number: *number, state: PluginState::Compiling };
            send(connection, layout, Class::Request, answer);
        }
    })
    .await;
}

/// Sends a command to n1 once, as a client does that waits for nothing.
async fn once(world: &World, body: AdminRequest) -> Reply {
    let endpoint = world.endpoint(0, Identity::client(world.files.ca_pem(), None).unwrap());
    let connection = endpoint.connect_client(world.address("n1")).await.unwrap();
    let hello = ClientHello { protocol: PROTOCOL, token: world.files.token(), tenant: None, client: "hasty".into() };
    connection.sender().try_send(Class::Control, 0, codec::encode(&hello).into()).unwrap();
    connection.recv().await.unwrap();
    let (deadline_ms, layout) = (10_000, LayoutRef::default());
    let request = Request { deadline_ms, trace: 0, layout, body: RequestBody::Admin(body) };
    connection.sender().try_send(Class::Request, 1, codec::encode(&request).into()).unwrap();
    codec::decode::<ReplyEnvelope>(&connection.recv().await.unwrap().body).unwrap().reply
}

async fn refused(world: &World, body: AdminRequest) -> ErrorReply {
    match once(world, body).await {
        Reply::Error(error) => error,
        other => panic!("a node is not ready: {other:?}"),
    }
}

fn with(plugin: &PluginInfo, props: &BucketProps) -> BucketProps {
    BucketProps { plugin: Some(plugin.activation()), ..props.clone() }
}

#[test]
fn a_bucket_gets_no_plugin_while_a_node_that_is_alive_is_not_ready() {
    let setup = Setup::default();
    let impostor: Impostor = ("n3", |world, node| Box::pin(held_back(world, node)));
    simulate_with(&setup, Arc::new(Files::create(setup.nodes)), &[impostor], |world| async move {
        let client = world.patiently(|| world.pinned_builder("n1").attempts(1)).await;
        let admin = client.admin();
        while world.figure("n1", "rejoin_peers_connected").await < 2.0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let made = admin.create_bucket("carts", BucketProps::default()).await.unwrap();
        let forced = admin.create_bucket("forced", BucketProps::default()).await.unwrap();
        let plugin = admin.push_plugin("first", guests::first()).await.unwrap();
        let set = |props, force| AdminRequest::BucketSet { name: name("carts"), version: made.version, props, force };
        loop {
            let error = refused(&world, set(with(&plugin, &made.props), false)).await;
            assert_eq!(error.code, ErrorCode::PluginNotReady, "{error}");
            assert!(error.message.contains("n3 (compiling)") && error.message.contains("--force"), "{error}");
            // The simulation's end is the deadline for the other one.
            if !error.message.contains("n2 (") {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let canary = Some(Canary { plugin: plugin.activation(), percent: 10 });
        let shadow = Some(Shadow { plugin: plugin.digest, since: Default::default(), percent: 100 });
        let create = AdminRequest::BucketCreate { name: name("others"), props: with(&plugin, &made.props) };
        for command in [
            set(BucketProps { canary, ..made.props.clone() }, false),
            set(BucketProps { shadow, ..made.props.clone() }, false),
            create,
        ] {
            let error = refused(&world, command).await;
            assert_eq!(error.code, ErrorCode::PluginNotReady, "{error}");
        }
        let versions: Vec<u64> = admin.buckets().await.unwrap().iter().map(|bucket| bucket.version).collect();
        assert_eq!(versions, [made.version, forced.version], "nothing was changed");

        // An operator may do it anyway, and a client of the SDK waits.
        let version = forced.version;
        let props = with(&plugin, &forced.props);
        let command = AdminRequest::BucketSet { name: name("forced"), version, props, force: true };
        assert!(matches!(once(&world, command).await, Reply::Changed { .. }));
        let begun = world.now();
        let release = async {
            tokio::time::sleep(HELD).await;
            RELEASED.store(true, Relaxed);
        };
        let (changed, ()) = tokio::join!(admin.set_bucket("carts", made.version, with(&plugin, &made.props)), release);
        assert_eq!(changed.unwrap().props.plugin.map(|of| of.plugin), Some(plugin.digest));
        assert!(world.now() - begun >= HELD, "it waited for {:?}", world.now() - begun);
    });
}

#[test]
fn a_node_that_is_away_holds_up_no_plugin() {
    simulate(&Setup::default(), |world| async move {
        let client = world.pinned("n1").await;
        let admin = client.admin();
        let made = admin.create_bucket("carts", BucketProps::default()).await.unwrap();
        world.kill("n3");
        let plugin = admin.push_plugin("first", guests::first()).await.unwrap();
        let changed = admin.set_bucket("carts", made.version, with(&plugin, &made.props)).await.unwrap();
        assert_eq!(changed.props.plugin.map(|of| of.plugin), Some(plugin.digest));
        // What there is not is not waited for.
        let unknown = BucketProps { plugin: Some(activation(PluginDigest([9; 32]))), ..made.props };
        let error = admin.create_bucket("others", unknown).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    });
}
