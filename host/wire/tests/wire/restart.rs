//! A killed process does not close its connections; its successor resets them.

use std::{
    io::{self, IoSliceMut},
    net::{SocketAddr, UdpSocket},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    task::{Context, Poll},
    time::Duration,
};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, Runtime, TokioRuntime, UdpPoller};

use rejoin_wire::{Accepted, Endpoint, Identity, Limits};

use crate::support::{CLUSTER, authority, loopback, name, node_of, soon, valid};

/// A socket that can be silenced: later packets are lost, like those of a dead process.
#[derive(Debug)]
struct Mortal {
    socket: Arc<dyn AsyncUdpSocket>,
    dead: Arc<AtomicBool>,
}

impl AsyncUdpSocket for Mortal {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.socket.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        if self.dead.load(Ordering::SeqCst) { Ok(()) } else { self.socket.try_send(transmit) }
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.socket.poll_recv(cx, bufs, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

/// Neither side gives up by itself within the test: the shorter idle time-out of the two would count.
fn patient() -> Limits {
    let mut limits = Limits::default();
    limits.idle_timeout = Duration::from_secs(3_600);
    limits.keep_alive = Duration::from_millis(100);
    limits
}

/// Runs an endpoint on a runtime of its own that accepts one connection, and ends that runtime like a kill: no close is
/// sent.
fn serve_and_die(
    identity: Identity,
    address: mpsc::Sender<SocketAddr>,
    accepted: mpsc::Sender<()>,
    die: mpsc::Receiver<()>,
) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let dead = Arc::new(AtomicBool::new(false));
    let silenced = dead.clone();
    let held = runtime.block_on(async {
        let socket = TokioRuntime.wrap_udp_socket(UdpSocket::bind(loopback()).unwrap()).unwrap();
        let socket = Arc::new(Mortal { socket, dead: silenced });
        let endpoint = Endpoint::bind_with(Arc::new(TokioRuntime), socket, None, identity, patient()).unwrap();
        address.send(endpoint.local_addr()).unwrap();
        let connection = endpoint.accept().await.unwrap();
        accepted.send(()).unwrap();
        (endpoint, connection)
    });
    die.recv().unwrap();
    dead.store(true, Ordering::SeqCst);
    runtime.shutdown_background();
    drop(held);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_killed_and_started_again_frees_its_peers_without_their_waiting() {
    let ca = authority(CLUSTER);
    let peer = node_of(&ca, "n1", patient());
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

    // The socket is closed with its runtime, a moment later.
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
