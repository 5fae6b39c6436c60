//! Framed requests and replies over QUIC and TLS on loopback, both ends in this process and on one thread.

use std::net::SocketAddr;
use std::time::SystemTime;

use bytes::Bytes;
use tokio::runtime::Runtime;

use rejoin_proto::{ClusterId, Name};
use rejoin_wire::{Accepted, Class, Connection, Endpoint, Frame, Identity, Limits};
use rejoin_wire::{Validity, cert::ClusterCa};

/// A client and a node that sends back what it gets.
pub struct Rpc {
    runtime: Runtime,
    client: Connection,
    body: Bytes,
    in_flight: u64,
    _endpoints: [Endpoint; 2],
}

impl Rpc {
    /// Connects client and node. Requests and replies have `body` bytes; `in_flight` requests are open at once.
    ///
    /// # Panics
    /// If they cannot be connected.
    #[must_use]
    pub fn new(body: usize, in_flight: u64) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let valid = || Validity::years(SystemTime::now(), 1);
        let ca = ClusterCa::create(ClusterId(1), valid()).expect("an authority");
        let issued = ca.issue_node(&Name::new("n1").expect("a name"), &[], valid()).expect("a certificate");
        let identity = Identity::node(ca.cert_pem(), &issued.cert_pem, &issued.key_pem).expect("an identity");
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let (endpoints, client) = runtime.block_on(async {
            let node = Endpoint::bind(any, identity, Limits::default()).expect("a node");
            let client =
                Endpoint::bind(any, Identity::client(ca.cert_pem(), None).expect("an identity"), Limits::default());
            let client = client.expect("a client");
            let (dialled, accepted) = tokio::join!(client.connect_client(node.local_addr()), node.accept());
            let Some(Accepted::Client(accepted)) = accepted else { panic!("a client was expected") };
            tokio::spawn(echo(accepted));
            ([node, client], dialled.expect("a connection"))
        });
        Self { runtime, client, body: crate::bytes(body).into(), in_flight, _endpoints: endpoints }
    }

    /// Makes `calls` calls.
    ///
    /// # Panics
    /// If the connection is lost.
    pub fn calls(&self, calls: u64) {
        self.runtime.block_on(async {
            let sender = self.client.sender();
            let request = |id| Frame { class: Class::Request, id, body: self.body.clone() };
            let mut sent = calls.min(self.in_flight);
            let mut out: Vec<Frame> = (0..sent).map(request).collect();
            let (mut got, mut answers) = (0, Vec::new());
            while got < calls {
                sender.try_send_batch(&mut out).expect("the connection lives");
                assert!(self.client.recv_batch(&mut answers, 256).await > 0, "the connection lives");
                for answer in answers.drain(..) {
                    assert_eq!(answer.body.len(), self.body.len());
                    got += 1;
                    if sent < calls {
                        out.push(request(sent));
                        sent += 1;
                    }
                }
            }
        });
    }
}

async fn echo(connection: Connection) {
    let sender = connection.sender();
    let mut frames = Vec::new();
    while connection.recv_batch(&mut frames, 256).await > 0 {
        // Fewer calls are open than a queue holds, so no call is refused.
        if sender.try_send_batch(&mut frames).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_is_answered_also_with_fewer_than_may_be_under_way() {
        let rpc = Rpc::new(1024, 64);
        let answered = || rpc.client.stats().frames_received;
        rpc.calls(3);
        assert_eq!(answered(), 3);
        rpc.calls(1_000);
        assert_eq!(answered(), 1_003);
    }
}
