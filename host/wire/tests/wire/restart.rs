//! A process that is killed says nothing; the one that is started in its place does.

use crate::support::{CLUSTER, authority, loopback, name, node_of, soon, valid};
use rejoin_wire::{Accepted, Endpoint, Identity, Limits};
use std::{net::SocketAddr, sync::mpsc, time::Duration};

/// Runs an endpoint on a runtime of its own that accepts one connection, and ends that runtime as a kill would: nothing is said to anybody.
fn serve_and_die(identity: Identity, address: mpsc::Sender<SocketAddr>, accepted: mpsc::Sender<()>, die: mpsc::Receiver<()>) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let held = runtime.block_on(async {
        let endpoint = Endpoint::bind(loopback(), identity, Limits::default()).unwrap();
        address.send(endpoint.local_addr()).unwrap();
        let connection = endpoint.accept().await.unwrap();
        accepted.send(()).unwrap();
        (endpoint, connection)
    });
    die.recv().unwrap();
    runtime.shutdown_background();
    drop(held);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_killed_and_started_again_frees_its_peers_without_their_waiting() {
    let ca = authority(CLUSTER);
    let mut limits = Limits::default();
    limits.idle_timeout = Duration::from_secs(3_600);
    limits.keep_alive = Duration::from_millis(100);
    let peer = node_of(&ca, "n1", limits);
    let issued = ca.issue_node(&name("n2"), &[], valid()).unwrap();
    let identity = Identity::node(ca.cert_pem(), &issued.cert_pem, &issued.key_pem).unwrap();

    let (address_in, address) = mpsc::channel();
    let (accepted_in, accepted) = mpsc::channel();
    let (die, dying) = mpsc::channel();
    let first = identity.clone();
    let victim = std::thread::spawn(move || serve_and_die(first, address_in, accepted_in, dying));
    let address = address.recv().unwrap();
    let connection = soon(peer.connect_peer(address, &name("n2"))).await.unwrap();
    accepted.recv().unwrap();
    die.send(()).unwrap();
    victim.join().unwrap();

    // The dead one's socket goes with its runtime, a moment later.
    let again = soon(async {
        loop {
            match Endpoint::bind(address, identity.clone(), Limits::default()) {
                Ok(endpoint) => return endpoint,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    });
    let again = again.await;
    soon(connection.closed()).await;
    let n2 = name("n2");
    let (dialled, accepted) = tokio::join!(soon(peer.connect_peer(address, &n2)), soon(again.accept()));
    assert!(dialled.is_ok() && matches!(accepted, Some(Accepted::Peer(..))));
}
