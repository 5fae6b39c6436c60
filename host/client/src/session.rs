//! One welcomed connection to one node: requests go out, answers find whoever waits for them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

use rejoin_proto::client::{Answer, ClientHello, HelloReply, PROTOCOL, Receipt, Request, ServerHello, StartId};
use rejoin_proto::{ClusterId, Layout, Name, NodeId, TenantId, codec};
use rejoin_wire::{Class, CloseCode, Connection, Endpoint, SendError};

use crate::{Error, ErrorKind};

/// How long the client waits beyond the deadline that it told the node, for the answer to travel.
const GRACE: Duration = Duration::from_millis(200);
/// The receipts of answered writes that are sent back together.
const RECEIPTS: usize = 64;

/// The frame id on the control class with which a node says that it is going away.
const GOING_AWAY: u64 = 1;

/// Locks, also after a panic elsewhere: what these locks guard is whole between any two statements.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why a call on a session has no answer.
#[derive(Debug)]
pub(crate) enum CallError {
    /// Nothing was sent.
    NotSent(Error),
    /// It was sent, nothing usable came back. `silent`: nothing at all was heard from the node since.
    Lost { why: String, silent: bool },
}

/// Those who wait, by request id; none once the connection has ended.
type Waiting = Mutex<Option<BTreeMap<u64, oneshot::Sender<Result<Answer, String>>>>>;

/// What the reader shares with the callers.
#[derive(Debug, Default)]
struct Shared {
    waiting: Waiting,
    heard: AtomicU64,
    start: AtomicU64,
    /// The node is going away: it answers what it was asked, and takes nothing more.
    leaving: AtomicBool,
    /// Told when nobody waits any more and the node is going away.
    idle: Notify,
}

impl Shared {
    /// Ends the session if the node is going away and nobody waits for an answer.
    fn end_if_idle(&self) -> bool {
        let mut waiting = lock(&self.waiting);
        let ends = self.leaving.load(Ordering::Acquire) && waiting.as_ref().is_some_and(BTreeMap::is_empty);
        if ends {
            *waiting = None;
        }
        ends
    }
}

/// A welcomed connection.
#[derive(Debug)]
pub(crate) struct Session {
    connection: Connection,
    shared: Arc<Shared>,
    reader: JoinHandle<()>,
    next_id: AtomicU64,
    pub(crate) node: NodeId,
    pub(crate) name: Name,
    pub(crate) cluster: ClusterId,
    pub(crate) tenant: TenantId,
    pub(crate) retry_window: Duration,
    /// Of answered writes, still to be sent back.
    receipts: Mutex<Vec<Receipt>>,
}

impl Session {
    /// Connects and introduces the client. Also returns the node's layout.
    pub(crate) async fn open(endpoint: &Endpoint, address: SocketAddr, hello: &ClientHello) -> Result<(Self, Layout), Error> {
        let connection = endpoint.connect_client(address).await.map_err(dial_error)?;
        let hello = codec::encode(hello);
        let lost = |why: &dyn std::fmt::Display| Error::new(ErrorKind::Unreachable, format!("{address} was lost during the hello: {why}"));
        connection.sender().send(Class::Control, 0, hello.into()).await.map_err(|why| lost(&why))?;
        let reply = loop {
            match connection.recv().await {
                Some(frame) if frame.class == Class::Control && frame.id == 0 => break frame.body,
                Some(_) => {}
                None => return Err(lost(&connection.closed().await)),
            }
        };
        let reply =
            codec::decode(&reply).map_err(|why| Error::new(ErrorKind::Protocol, format!("{address} answers the hello with {why}")))?;
        match reply {
            HelloReply::Refused(reply) => Err(reply.into()),
            HelloReply::Welcome(hello) if hello.protocol != PROTOCOL => {
                let versions = format!("{} speaks protocol {}, this client {PROTOCOL}", hello.node, hello.protocol);
                Err(Error::new(ErrorKind::Protocol, format!("{versions}: use a client of the cluster's release")))
            }
            HelloReply::Welcome(hello) => Ok(Self::welcomed(connection, hello)),
        }
    }

    fn welcomed(connection: Connection, hello: ServerHello) -> (Self, Layout) {
        let shared = Arc::new(Shared { waiting: Mutex::new(Some(BTreeMap::new())), ..Shared::default() });
        shared.start.store(hello.start.0, Ordering::Release);
        let reader = tokio::spawn(read(connection.clone(), Arc::clone(&shared)));
        let session = Self {
            connection,
            shared,
            reader,
            next_id: AtomicU64::new(1),
            node: NodeId::from_name(&hello.node),
            name: hello.node,
            cluster: hello.cluster,
            tenant: hello.tenant,
            retry_window: Duration::from_millis(u64::from(hello.retry_window_ms)),
            receipts: Mutex::default(),
        };
        (session, hello.layout)
    }

    /// The node's start as it was last heard.
    pub(crate) fn start(&self) -> StartId {
        StartId(self.shared.start.load(Ordering::Acquire))
    }

    /// Whether requests can still be sent.
    pub(crate) fn is_open(&self) -> bool {
        !self.shared.leaving.load(Ordering::Acquire) && lock(&self.shared.waiting).is_some()
    }

    /// Keeps the receipt of a write that will not be repeated. Returns those that are to be sent, when there are enough
    /// of them.
    pub(crate) fn keep_receipt(&self, receipt: Receipt) -> Option<Vec<Receipt>> {
        let mut receipts = lock(&self.receipts);
        receipts.push(receipt);
        (receipts.len() >= RECEIPTS).then(|| std::mem::take(&mut *receipts))
    }

    /// Sends what is not answered. What finds no room is dropped: the node forgets in its own time.
    pub(crate) fn tell(&self, request: &Request) {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        if let Err(why) = self.connection.sender().try_send(Class::Request, id, codec::encode(request).into()) {
            tracing::debug!(%why, "receipts were not sent");
        }
    }

    /// Sends a request and waits for its answer: for the time that the request says, and a little for the way back.
    pub(crate) async fn call(&self, class: Class, request: &Request) -> Result<Answer, CallError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let heard = self.shared.heard.load(Ordering::Acquire);
        let (answered, answer) = oneshot::channel();
        match lock(&self.shared.waiting).as_mut() {
            Some(waiting) => waiting.insert(id, answered),
            None => return Err(CallError::NotSent(self.gone("the connection has ended"))),
        };
        // However this ends, also when the caller drops the future: nobody waits for that id any more.
        let _entry = Entry { shared: &self.shared, id };
        self.connection.sender().try_send(class, id, codec::encode(request).into()).map_err(|why| CallError::NotSent(self.refused(why)))?;
        let wait = Duration::from_millis(u64::from(request.deadline_ms)) + GRACE;
        let lost = |why: String| {
            let silent = self.shared.heard.load(Ordering::Acquire) == heard;
            CallError::Lost { why: format!("{}: {why}", self.name), silent }
        };
        match tokio::time::timeout(wait, answer).await {
            Ok(Ok(Ok(answer))) => Ok(answer),
            Ok(Ok(Err(garbled))) => Err(lost(garbled)),
            Ok(Err(_)) => Err(lost("the connection was lost before the answer came".into())),
            Err(_) => Err(lost(format!("no answer within {} ms", wait.as_millis()))),
        }
    }

    fn gone(&self, why: impl std::fmt::Display) -> Error {
        Error::new(ErrorKind::Unreachable, format!("{}: {why}", self.name))
    }

    fn refused(&self, why: SendError) -> Error {
        match why {
            SendError::Full(_) => Error::new(ErrorKind::Overloaded, format!("{}: {why}", self.name)),
            SendError::TooLarge { .. } => Error::new(ErrorKind::TooLarge, why.to_string()),
            _ => self.gone(why),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.connection.close(CloseCode::DONE, "the client is done");
        self.reader.abort();
    }
}

/// A place among those who wait, given up when dropped.
struct Entry<'a> {
    shared: &'a Shared,
    id: u64,
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        if let Some(waiting) = lock(&self.shared.waiting).as_mut() {
            waiting.remove(&self.id);
        }
        if self.shared.leaving.load(Ordering::Acquire) {
            self.shared.idle.notify_one();
        }
    }
}

/// Hands answers to those who wait until the connection ends; then lets all of them know.
async fn read(connection: Connection, shared: Arc<Shared>) {
    loop {
        if shared.end_if_idle() {
            connection.close(CloseCode::DONE, "the node is going away");
            break;
        }
        let frame = tokio::select! {
            biased;
            frame = connection.recv() => frame,
            () = shared.idle.notified() => continue,
        };
        let Some(frame) = frame else { break };
        shared.heard.fetch_add(1, Ordering::AcqRel);
        if frame.class == Class::Control {
            if frame.id == GOING_AWAY {
                shared.leaving.store(true, Ordering::Release);
            }
            continue;
        }
        let answer = codec::decode::<Answer>(&frame.body).map_err(|why| why.to_string());
        if let Ok(answer) = &answer {
            shared.start.store(answer.start.0, Ordering::Release);
        }
        let waiting = lock(&shared.waiting).as_mut().and_then(|waiting| waiting.remove(&frame.id));
        if let Some(waiting) = waiting {
            // Who gave up in this very moment does not need it any more.
            let _ = waiting.send(answer);
        }
    }
    tracing::debug!(why = ?connection.close_reason(), "a connection has ended");
    *lock(&shared.waiting) = None;
}

/// What a failed dial means to the caller.
pub(crate) fn dial_error(error: rejoin_wire::Error) -> Error {
    use rejoin_wire::Error as Wire;
    let kind = match error {
        Wire::Untrusted { .. } | Wire::WrongCluster { .. } | Wire::WrongNode { .. } | Wire::NotANode { .. } => ErrorKind::Untrusted,
        Wire::CertificateRefused { .. } => ErrorKind::Denied,
        Wire::NoSuchProtocol { .. } | Wire::Version { .. } | Wire::Foreign => ErrorKind::Protocol,
        Wire::BadPem { .. } | Wire::NoIdentity | Wire::KeyMismatch { .. } | Wire::BadLimits(_) | Wire::NoRuntime | Wire::Tls(_) => {
            ErrorKind::Config
        }
        _ => ErrorKind::Unreachable,
    };
    Error::new(kind, error.to_string())
}

/// An endpoint that cannot be made: nothing to do with any node.
pub(crate) fn endpoint_error(error: rejoin_wire::Error) -> Error {
    match dial_error(error) {
        error if error.kind() == ErrorKind::Unreachable => Error::new(ErrorKind::Config, error.to_string()),
        error => error,
    }
}
