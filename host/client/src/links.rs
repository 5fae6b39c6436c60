//! One connection per node: opened when it is first needed, opened again when it was lost, and left alone for a while when it cannot be.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rejoin_proto::client::ClientHello;
use rejoin_proto::{Address, Layout, NodeId};
use rejoin_wire::{Endpoint, Identity, Limits, Network};
use tokio::time::Instant;

use crate::routing::Target;
use crate::session::{Session, dial_error, endpoint_error, lock};
use crate::{Error, ErrorKind};

/// A session with the layout that its node had when it was opened, if it was opened just now.
pub(crate) type Opened = (Arc<Session>, Option<Layout>);

/// Every connection of a client.
#[derive(Debug)]
pub(crate) struct Links {
    endpoint: Endpoint,
    hello: ClientHello,
    connect_timeout: Duration,
    links: Mutex<BTreeMap<(NodeId, Address), Arc<Link>>>,
}

/// The connection to one node at one address.
#[derive(Debug, Default)]
struct Link {
    /// Held while dialling, so that all who need a connection wait for one dial.
    session: tokio::sync::Mutex<Option<Arc<Session>>>,
    health: Mutex<Health>,
}

/// What was seen of a node.
#[derive(Clone, Copy, Default, Debug)]
struct Health {
    failures: u32,
    avoid_until: Option<Instant>,
}

impl Health {
    /// After the `n`th failure in a row a node is avoided for 200 ms, doubled each time up to 6.4 s, as long as there are others.
    fn failed(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        self.avoid_until = Some(now + Duration::from_millis(200 << self.failures.clamp(1, 6).saturating_sub(1)));
    }

    fn avoided(&self, now: Instant) -> bool {
        self.avoid_until.is_some_and(|until| now < until)
    }
}

/// The bounds of a client's connections. A node that was killed is noticed within three seconds also when nothing answers for it.
fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.keep_alive = Duration::from_secs(1);
    limits.idle_timeout = Duration::from_secs(3);
    limits
}

impl Links {
    /// Opens the client's UDP port. Must be called within a tokio runtime.
    pub(crate) fn open(
        network: &dyn Network,
        seed: Option<[u8; 32]>,
        identity: Identity,
        hello: ClientHello,
        connect_timeout: Duration,
    ) -> Result<Self, Error> {
        let endpoint = Endpoint::for_dialling_on(network, seed, identity, limits()).map_err(endpoint_error)?;
        Ok(Self { endpoint, hello, connect_timeout, links: Mutex::default() })
    }

    /// Dials an address of which only that is known.
    pub(crate) async fn dial(&self, address: SocketAddr) -> Result<(Arc<Session>, Layout), Error> {
        let dial = Session::open(&self.endpoint, address, &self.hello);
        let (session, layout) = tokio::time::timeout(self.connect_timeout, dial).await.map_err(|_| self.silent(&address))??;
        let session = Arc::new(session);
        let link = self.link(session.node, &address.into());
        *link.session.lock().await = Some(Arc::clone(&session));
        Ok((session, layout))
    }

    /// The session with a node, opened now if there is none, within `limit` and the time that connecting may take.
    pub(crate) async fn session(&self, target: &Target, limit: Duration) -> Result<Opened, Error> {
        let link = self.link(target.id, &target.address);
        let opened = tokio::time::timeout(self.connect_timeout.min(limit), self.reuse_or_open(&link, target)).await;
        let opened = opened.unwrap_or_else(|_| Err(self.silent(&target.address)));
        match &opened {
            Ok((_, Some(_))) => *lock(&link.health) = Health::default(),
            Ok(_) => {}
            Err(_) => lock(&link.health).failed(Instant::now()),
        }
        opened
    }

    async fn reuse_or_open(&self, link: &Link, target: &Target) -> Result<Opened, Error> {
        let mut slot = link.session.lock().await;
        if let Some(session) = slot.as_ref().filter(|session| session.is_open()) {
            return Ok((Arc::clone(session), None));
        }
        *slot = None;
        let (session, layout) = self.open_at(&target.address).await?;
        if session.node != target.id {
            let names = format!("{} answers at {} where {} was expected", session.name, target.address, target.name);
            return Err(Error::new(ErrorKind::Untrusted, format!("{names}: the layout's address is wrong or out of date")));
        }
        let session = Arc::new(session);
        *slot = Some(Arc::clone(&session));
        Ok((session, Some(layout)))
    }

    /// Opens a session at the first of the IP addresses of that address which answers.
    async fn open_at(&self, address: &Address) -> Result<(Session, Layout), Error> {
        let mut last = None;
        for address in self.endpoint.resolve(address).await.map_err(dial_error)? {
            match Session::open(&self.endpoint, address, &self.hello).await {
                Ok(opened) => return Ok(opened),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| self.silent(address)))
    }

    /// A request on this session was not answered. If nothing at all came back, the session is given up and its node avoided for a while:
    /// a node that was killed does not say so.
    pub(crate) fn unanswered(&self, target: &Target, session: &Arc<Session>, silent: bool) {
        let link = self.link(target.id, &target.address);
        if !silent && session.is_open() {
            return;
        }
        lock(&link.health).failed(Instant::now());
        // Not waited for, since the call's time is over: who holds the place for long is dialling, and has emptied it.
        if let Ok(mut slot) = link.session.try_lock()
            && slot.as_ref().is_some_and(|current| Arc::ptr_eq(current, session))
        {
            *slot = None;
        }
    }

    /// A node has answered.
    pub(crate) fn answered(&self, target: &Target) {
        *lock(&self.link(target.id, &target.address).health) = Health::default();
    }

    /// Whether a node should be left alone while there are others.
    pub(crate) fn avoided(&self, target: &Target, now: Instant) -> bool {
        lock(&self.links).get(&(target.id, target.address.clone())).is_some_and(|link| lock(&link.health).avoided(now))
    }

    /// Closes the connections to nodes that are not among these.
    pub(crate) fn keep(&self, targets: &[Target]) {
        lock(&self.links).retain(|(id, address), _| targets.iter().any(|target| target.id == *id && target.address == *address));
    }

    fn link(&self, id: NodeId, address: &Address) -> Arc<Link> {
        Arc::clone(lock(&self.links).entry((id, address.clone())).or_default())
    }

    fn silent(&self, address: &impl std::fmt::Display) -> Error {
        let waited = self.connect_timeout.as_millis();
        Error::new(ErrorKind::Unreachable, format!("{address} did not answer within {waited} ms; is the node up, and does UDP pass?"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_node_is_avoided_for_longer_each_time_up_to_a_bound() {
        let (mut health, now) = (Health::default(), Instant::now());
        assert!(!health.avoided(now));
        health.failed(now);
        assert!(health.avoided(now + Duration::from_millis(199)) && !health.avoided(now + Duration::from_millis(200)));
        health.failed(now);
        assert!(health.avoided(now + Duration::from_millis(399)));
        (0..50).for_each(|_| health.failed(now));
        assert!(health.avoided(now + Duration::from_millis(6_399)) && !health.avoided(now + Duration::from_millis(6_400)));
    }
}
