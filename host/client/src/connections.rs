//! One connection per node. It is opened when first needed and reopened after a loss. A node that fails is avoided
//! while others can serve, and probed until it answers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::time::Instant;

use rejoin_proto::client::{ClientHello, Request, RequestBody, Routes};
use rejoin_proto::{Address, NodeId};
use rejoin_wire::{Class, Endpoint, Identity, Limits, Network};

use crate::routing::Target;
use crate::session::{Session, dial_error, endpoint_error};
use crate::sync::lock;
use crate::{Error, ErrorKind};

/// A session, and the routes of its node if the session was opened just now.
pub(crate) type Opened = (Arc<Session>, Option<Routes>);

/// All connections of a client.
#[derive(Debug)]
pub(crate) struct Connections {
    connector: Connector,
    connections: Mutex<BTreeMap<(NodeId, Address), Arc<NodeConnection>>>,
    /// A node does not answer where it was: it may have been started under another address.
    moved: AtomicBool,
}

/// Opens sessions.
#[derive(Clone, Debug)]
struct Connector {
    endpoint: Endpoint,
    hello: ClientHello,
    connect_timeout: Duration,
}

/// The connection to one node at one address.
#[derive(Debug, Default)]
struct NodeConnection {
    /// Locked while dialling, so that concurrent callers share one dial.
    session: tokio::sync::Mutex<Option<Arc<Session>>>,
    health: Mutex<Health>,
}

/// The state of a node, as this client sees it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum Health {
    /// It answers, or was not asked yet.
    #[default]
    Well,
    /// It could not be reached or did not answer. Other nodes are preferred until it answers a request or a probe.
    Failed,
}

/// The pause before the `n`th probe of a node (from 0): 200 ms, doubled each time up to 6.4 s.
fn probe_pause(n: u32) -> Duration {
    Duration::from_millis(200 << n.min(5))
}

/// The limits of a client's connections. A killed node is detected within three seconds, even if its host is gone.
fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.keep_alive = Duration::from_secs(1);
    limits.idle_timeout = Duration::from_secs(3);
    limits
}

impl Connections {
    /// Binds the client's UDP port. Must be called within a tokio runtime.
    pub(crate) fn open(
        network: &dyn Network,
        seed: Option<[u8; 32]>,
        identity: Identity,
        hello: ClientHello,
        connect_timeout: Duration,
    ) -> Result<Self, Error> {
        let endpoint = Endpoint::for_dialling_on(network, seed, identity, limits()).map_err(endpoint_error)?;
        Ok(Self {
            connector: Connector { endpoint, hello, connect_timeout },
            connections: Mutex::default(),
            moved: AtomicBool::new(false),
        })
    }

    /// Resolves an address.
    pub(crate) async fn resolve(&self, address: &Address) -> Result<Vec<SocketAddr>, Error> {
        self.connector.endpoint.resolve(address).await.map_err(dial_error)
    }

    /// Dials one IP address of a seed, whose node is not known yet, within the connect time-out.
    pub(crate) async fn dial(
        &self,
        at: SocketAddr,
        address: &Address,
        deadline: Instant,
    ) -> Result<(Arc<Session>, Routes), Error> {
        let limit = self.connector.connect_timeout.min(deadline.saturating_duration_since(Instant::now()));
        let dial = Session::open(&self.connector.endpoint, at, &self.connector.hello);
        let (session, routes) = tokio::time::timeout(limit, dial).await.map_err(|_| silent(&at, limit))??;
        let session = Arc::new(session);
        let node = self.node(session.node, address);
        *node.session.lock().await = Some(Arc::clone(&session));
        Ok((session, routes))
    }

    /// The session with a node, opened if there is none, within `limit` and the connect time-out.
    pub(crate) async fn session(self: &Arc<Self>, target: &Target, limit: Duration) -> Result<Opened, Error> {
        let node = self.node(target.id, &target.address);
        let limit = self.connector.connect_timeout.min(limit);
        let opened = tokio::time::timeout(limit, self.reuse_or_open(&node, target)).await;
        let opened = opened.unwrap_or_else(|_| Err(silent(&target.address, limit)));
        match &opened {
            Ok((_, Some(_))) => *lock(&node.health) = Health::Well,
            Ok(_) => {}
            Err(_) => self.failed(target, &node),
        }
        opened
    }

    async fn reuse_or_open(&self, node: &NodeConnection, target: &Target) -> Result<Opened, Error> {
        let mut slot = node.session.lock().await;
        if let Some(session) = slot.as_ref().filter(|session| session.is_open()) {
            return Ok((Arc::clone(session), None));
        }
        *slot = None;
        let (session, routes) = self.connector.open(target).await?;
        let session = Arc::new(session);
        *slot = Some(Arc::clone(&session));
        Ok((session, Some(routes)))
    }

    /// Handles an unanswered request. If the session was `silent` it is dropped, and the node avoided: a killed node
    /// does not close its connections.
    pub(crate) fn unanswered(self: &Arc<Self>, target: &Target, session: &Arc<Session>, silent: bool) {
        let node = self.node(target.id, &target.address);
        if !silent && session.is_open() {
            return;
        }
        self.failed(target, &node);
        // The time of the call is over, so this must not wait. A task that holds the lock is dialling a new session.
        if let Ok(mut slot) = node.session.try_lock()
            && slot.as_ref().is_some_and(|current| Arc::ptr_eq(current, session))
        {
            *slot = None;
        }
    }

    /// Whether a node has left another question unanswered since the last call, so that it may have moved.
    pub(crate) fn take_moved(&self) -> bool {
        self.moved.load(Ordering::Relaxed) && self.moved.swap(false, Ordering::Relaxed)
    }

    /// Avoids a node and starts a probe, so that no caller has to wait for a dead node.
    fn failed(self: &Arc<Self>, target: &Target, node: &Arc<NodeConnection>) {
        self.moved.store(true, Ordering::Relaxed);
        if std::mem::replace(&mut *lock(&node.health), Health::Failed) == Health::Well {
            let (connections, node) = (Arc::downgrade(self), Arc::downgrade(node));
            tokio::spawn(probe(connections, node, self.connector.clone(), target.clone()));
        }
    }

    /// Handles an answered request.
    pub(crate) fn answered(&self, target: &Target) {
        *lock(&self.node(target.id, &target.address).health) = Health::Well;
    }

    /// Whether other nodes are to be preferred.
    pub(crate) fn avoided(&self, target: &Target) -> bool {
        let connections = lock(&self.connections);
        connections.get(&(target.id, target.address.clone())).is_some_and(|node| *lock(&node.health) == Health::Failed)
    }

    /// Closes the connections to nodes that are not among these.
    pub(crate) fn keep(&self, targets: &[Target]) {
        lock(&self.connections)
            .retain(|(id, address), _| targets.iter().any(|target| target.id == *id && target.address == *address));
    }

    fn node(&self, id: NodeId, address: &Address) -> Arc<NodeConnection> {
        Arc::clone(lock(&self.connections).entry((id, address.clone())).or_default())
    }
}

impl Connector {
    /// Opens a session with a node, at its first IP address that answers.
    async fn open(&self, target: &Target) -> Result<(Session, Routes), Error> {
        let mut last = None;
        for address in self.endpoint.resolve(&target.address).await.map_err(dial_error)? {
            match Session::open(&self.endpoint, address, &self.hello).await {
                Ok((session, routes)) if session.node == target.id => return Ok((session, routes)),
                Ok((session, _)) => {
                    let names =
                        format!("{} answers at {} where {} was expected", session.name, target.address, target.name);
                    last = Some(Error::new(
                        ErrorKind::Untrusted,
                        format!("{names}: the layout's address is wrong or out of date"),
                    ));
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| silent(&target.address, self.connect_timeout)))
    }

    /// Opens a session and sends one request: a node that completes handshakes may still not answer requests.
    async fn probe(&self, target: &Target) -> Option<Session> {
        let (session, routes) = self.open(target).await.ok()?;
        let deadline_ms = u32::try_from(self.connect_timeout.as_millis()).unwrap_or(u32::MAX).max(1);
        let request = Request { deadline_ms, trace: 0, layout: routes.layout.name(), body: RequestBody::Layout };
        session.call(Class::Request, &request).await.ok()?;
        Some(session)
    }
}

/// Probes a failed node until it answers, the layout no longer has it, or the client is gone.
async fn probe(connections: Weak<Connections>, node: Weak<NodeConnection>, connector: Connector, target: Target) {
    for n in 0.. {
        tokio::time::sleep(probe_pause(n)).await;
        let wanted =
            |node: &Arc<NodeConnection>| connections.strong_count() > 0 && *lock(&node.health) == Health::Failed;
        if !node.upgrade().is_some_and(|node| wanted(&node)) {
            return;
        }
        let Ok(Some(session)) = tokio::time::timeout(connector.connect_timeout, connector.probe(&target)).await else {
            if let Some(connections) = connections.upgrade() {
                connections.moved.store(true, Ordering::Relaxed);
            }
            continue;
        };
        let Some(node) = node.upgrade() else { return };
        let mut slot = node.session.lock().await;
        if !slot.as_ref().is_some_and(|session| session.is_open()) {
            *slot = Some(Arc::new(session));
        }
        *lock(&node.health) = Health::Well;
        tracing::debug!(node = %target.name, "a node that had failed answers again");
        return;
    }
}

fn silent(address: &impl std::fmt::Display, waited: Duration) -> Error {
    let waited = waited.as_millis();
    Error::new(
        ErrorKind::Unreachable,
        format!("{address} did not answer within {waited} ms; is the node up, and does UDP pass?"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_node_is_probed_less_often_each_time_down_to_a_bound() {
        let ms = |n| probe_pause(n).as_millis();
        assert_eq!([ms(0), ms(1), ms(4), ms(5), ms(6), ms(u32::MAX)], [200, 400, 3_200, 6_400, 6_400, 6_400]);
    }
}
