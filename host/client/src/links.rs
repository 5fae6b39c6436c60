//! One connection per node: opened when it is first needed, opened again when it was lost, and left alone for a while
//! when it cannot be.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::time::Instant;

use rejoin_proto::client::{ClientHello, Request, RequestBody};
use rejoin_proto::{Address, Layout, NodeId};
use rejoin_wire::{Class, Endpoint, Identity, Limits, Network};

use crate::routing::Target;
use crate::session::{Session, dial_error, endpoint_error, lock};
use crate::{Error, ErrorKind};

/// A session with the layout that its node had when it was opened, if it was opened just now.
pub(crate) type Opened = (Arc<Session>, Option<Layout>);

/// Every connection of a client.
#[derive(Debug)]
pub(crate) struct Links {
    dialler: Dialler,
    links: Mutex<BTreeMap<(NodeId, Address), Arc<Link>>>,
}

/// What a connection is opened with.
#[derive(Clone, Debug)]
struct Dialler {
    endpoint: Endpoint,
    hello: ClientHello,
    connect_timeout: Duration,
}

/// The connection to one node at one address.
#[derive(Debug, Default)]
struct Link {
    /// Held while dialling, so that all who need a connection wait for one dial.
    session: tokio::sync::Mutex<Option<Arc<Session>>>,
    health: Mutex<Health>,
}

/// What was seen of a node.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum Health {
    /// It answers, or nothing is known of it.
    #[default]
    Well,
    /// It could not be reached or did not answer. It is avoided while there are others, until an answer comes or the
    /// task that probes it gets one.
    Failed,
}

/// The pause before the `n`th probe of a node (from 0): 200 ms, doubled each time up to 6.4 s.
fn probe_pause(n: u32) -> Duration {
    Duration::from_millis(200 << n.min(5))
}

/// The bounds of a client's connections. A node that was killed is noticed within three seconds also when nothing
/// answers for it.
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
        Ok(Self { dialler: Dialler { endpoint, hello, connect_timeout }, links: Mutex::default() })
    }

    /// The IP addresses of an address.
    pub(crate) async fn resolve(&self, address: &Address) -> Result<Vec<SocketAddr>, Error> {
        self.dialler.endpoint.resolve(address).await.map_err(dial_error)
    }

    /// Dials an IP address of an address of which only that is known, within the time that connecting may take.
    pub(crate) async fn dial(&self, at: SocketAddr, address: &Address, deadline: Instant) -> Result<(Arc<Session>, Layout), Error> {
        let limit = self.dialler.connect_timeout.min(deadline.saturating_duration_since(Instant::now()));
        let dial = Session::open(&self.dialler.endpoint, at, &self.dialler.hello);
        let (session, layout) = tokio::time::timeout(limit, dial).await.map_err(|_| silent(&at, limit))??;
        let session = Arc::new(session);
        let link = self.link(session.node, address);
        *link.session.lock().await = Some(Arc::clone(&session));
        Ok((session, layout))
    }

    /// The session with a node, opened now if there is none, within `limit` and the time that connecting may take.
    pub(crate) async fn session(self: &Arc<Self>, target: &Target, limit: Duration) -> Result<Opened, Error> {
        let link = self.link(target.id, &target.address);
        let limit = self.dialler.connect_timeout.min(limit);
        let opened = tokio::time::timeout(limit, self.reuse_or_open(&link, target)).await;
        let opened = opened.unwrap_or_else(|_| Err(silent(&target.address, limit)));
        match &opened {
            Ok((_, Some(_))) => *lock(&link.health) = Health::Well,
            Ok(_) => {}
            Err(_) => self.failed(target, &link),
        }
        opened
    }

    async fn reuse_or_open(&self, link: &Link, target: &Target) -> Result<Opened, Error> {
        let mut slot = link.session.lock().await;
        if let Some(session) = slot.as_ref().filter(|session| session.is_open()) {
            return Ok((Arc::clone(session), None));
        }
        *slot = None;
        let (session, layout) = self.dialler.open(target).await?;
        let session = Arc::new(session);
        *slot = Some(Arc::clone(&session));
        Ok((session, Some(layout)))
    }

    /// A request on this session was not answered. If nothing at all came back, the session is given up and its node
    /// avoided for a while: a node that was killed does not say so.
    pub(crate) fn unanswered(self: &Arc<Self>, target: &Target, session: &Arc<Session>, silent: bool) {
        let link = self.link(target.id, &target.address);
        if !silent && session.is_open() {
            return;
        }
        self.failed(target, &link);
        // Not waited for, since the call's time is over: who holds the place for long is dialling, and has emptied it.
        if let Ok(mut slot) = link.session.try_lock()
            && slot.as_ref().is_some_and(|current| Arc::ptr_eq(current, session))
        {
            *slot = None;
        }
    }

    /// Avoids a node from now on, and probes it until it answers: no caller waits to find out that it is still away.
    fn failed(self: &Arc<Self>, target: &Target, link: &Arc<Link>) {
        if std::mem::replace(&mut *lock(&link.health), Health::Failed) == Health::Well {
            let (links, link) = (Arc::downgrade(self), Arc::downgrade(link));
            tokio::spawn(probe(links, link, self.dialler.clone(), target.clone()));
        }
    }

    /// A node has answered.
    pub(crate) fn answered(&self, target: &Target) {
        *lock(&self.link(target.id, &target.address).health) = Health::Well;
    }

    /// Whether a node should be left alone while there are others.
    pub(crate) fn avoided(&self, target: &Target) -> bool {
        let links = lock(&self.links);
        links.get(&(target.id, target.address.clone())).is_some_and(|link| *lock(&link.health) == Health::Failed)
    }

    /// Closes the connections to nodes that are not among these.
    pub(crate) fn keep(&self, targets: &[Target]) {
        lock(&self.links).retain(|(id, address), _| targets.iter().any(|target| target.id == *id && target.address == *address));
    }

    fn link(&self, id: NodeId, address: &Address) -> Arc<Link> {
        Arc::clone(lock(&self.links).entry((id, address.clone())).or_default())
    }
}

impl Dialler {
    /// Opens a session with a node, at the first IP address of its address that answers.
    async fn open(&self, target: &Target) -> Result<(Session, Layout), Error> {
        let mut last = None;
        for address in self.endpoint.resolve(&target.address).await.map_err(dial_error)? {
            match Session::open(&self.endpoint, address, &self.hello).await {
                Ok((session, layout)) if session.node == target.id => return Ok((session, layout)),
                Ok((session, _)) => {
                    let names = format!("{} answers at {} where {} was expected", session.name, target.address, target.name);
                    last = Some(Error::new(ErrorKind::Untrusted, format!("{names}: the layout's address is wrong or out of date")));
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| silent(&target.address, self.connect_timeout)))
    }

    /// Opens a session and has one request answered on it: a node that only shakes hands is of no use to a caller.
    async fn probe(&self, target: &Target) -> Option<Session> {
        let (session, layout) = self.open(target).await.ok()?;
        let deadline_ms = u32::try_from(self.connect_timeout.as_millis()).unwrap_or(u32::MAX).max(1);
        let request = Request { deadline_ms, trace: 0, layout: layout.name(), body: RequestBody::Layout };
        session.call(Class::Request, &request).await.ok()?;
        Some(session)
    }
}

/// Asks a node that has failed until it answers, or nobody wants to know any more: it is well again, the layout names
/// it no more, or the client is gone.
async fn probe(links: Weak<Links>, link: Weak<Link>, dialler: Dialler, target: Target) {
    for n in 0.. {
        tokio::time::sleep(probe_pause(n)).await;
        let wanted = |link: &Arc<Link>| links.strong_count() > 0 && *lock(&link.health) == Health::Failed;
        if !link.upgrade().is_some_and(|link| wanted(&link)) {
            return;
        }
        let Ok(Some(session)) = tokio::time::timeout(dialler.connect_timeout, dialler.probe(&target)).await else { continue };
        let Some(link) = link.upgrade() else { return };
        let mut slot = link.session.lock().await;
        if !slot.as_ref().is_some_and(|session| session.is_open()) {
            *slot = Some(Arc::new(session));
        }
        *lock(&link.health) = Health::Well;
        tracing::debug!(node = %target.name, "a node that had failed answers again");
        return;
    }
}

fn silent(address: &impl std::fmt::Display, waited: Duration) -> Error {
    let waited = waited.as_millis();
    Error::new(ErrorKind::Unreachable, format!("{address} did not answer within {waited} ms; is the node up, and does UDP pass?"))
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
