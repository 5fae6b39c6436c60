//! A session: a connection to one node after the hello. It matches replies to requests by frame id, and never retries.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use rejoin_proto::client::{
    ClientHello, HelloReply, PROTOCOL, Receipt, ReplyEnvelope, Request, Routes, ServerHello, StartId,
};
use rejoin_proto::{ClusterId, Name, NodeId, TenantId, codec};
use rejoin_wire::{Class, CloseCode, Connection, Endpoint, SendError};

use crate::sync::lock;
use crate::window::Window;
use crate::{Error, ErrorKind};

/// How long the client waits after the deadline that it sent to the node, for the reply to arrive.
const GRACE: Duration = Duration::from_millis(200);
/// The number of receipts that are sent together.
const RECEIPTS: usize = 64;

/// The frame id of a control frame that announces that the node is stopping.
const GOING_AWAY: u64 = 1;

/// Why a call has no reply.
#[derive(Debug)]
pub(crate) enum CallError {
    /// Nothing was sent.
    NotSent(Error),
    /// It was sent, and no usable reply came. `silent` if no frame came from the node since.
    Lost { why: String, silent: bool },
}

/// The pending calls by request id; `None` once the connection has ended.
type Waiting = Mutex<Option<BTreeMap<u64, oneshot::Sender<Result<ReplyEnvelope, String>>>>>;

/// Shared by the reader task and the callers.
#[derive(Debug, Default)]
struct Shared {
    waiting: Waiting,
    heard: AtomicU64,
    start: AtomicU64,
    /// The node is stopping: it answers pending requests and accepts no new ones.
    leaving: AtomicBool,
    /// Notified when a call ends while the node is stopping.
    idle: Notify,
}

impl Shared {
    /// Ends the session if the node is stopping and no call is pending.
    fn end_if_idle(&self) -> bool {
        let mut waiting = lock(&self.waiting);
        let ends = self.leaving.load(Ordering::Acquire) && waiting.as_ref().is_some_and(BTreeMap::is_empty);
        if ends {
            *waiting = None;
        }
        ends
    }
}

/// A connection after the hello.
#[derive(Debug)]
pub(crate) struct Session {
    connection: Connection,
    shared: Arc<Shared>,
    reader: JoinHandle<()>,
    next_id: AtomicU64,
    pub(crate) node: NodeId,
    pub(crate) name: Name,
    pub(crate) cluster: ClusterId,
    pub(crate) tenant: Name,
    pub(crate) tenant_id: TenantId,
    pub(crate) retry_window: Duration,
    /// Receipts of answered writes that were not sent yet.
    receipts: Mutex<Vec<Receipt>>,
    /// How many reads and writes may be under way, once the node has refused some as overloaded.
    pub(crate) window: Arc<Window>,
}

impl Session {
    /// Connects and sends the client's hello. Also returns the node's routes.
    pub(crate) async fn open(
        endpoint: &Endpoint,
        address: SocketAddr,
        hello: &ClientHello,
    ) -> Result<(Self, Routes), Error> {
        let connection = endpoint.connect_client(address).await.map_err(dial_error)?;
        let hello = codec::encode(hello);
        let lost = |why: &dyn std::fmt::Display| {
            Error::new(ErrorKind::Unreachable, format!("{address} was lost during the hello: {why}"))
        };
        connection.sender().send(Class::Control, 0, hello.into()).await.map_err(|why| lost(&why))?;
        let reply = loop {
            match connection.recv().await {
                Some(frame) if frame.class == Class::Control && frame.id == 0 => break frame.body,
                Some(_) => {}
                None => return Err(lost(&connection.closed().await)),
            }
        };
        let reply = codec::decode(&reply)
            .map_err(|why| Error::new(ErrorKind::Protocol, format!("{address} answers the hello with {why}")))?;
        match reply {
            HelloReply::Refused(reply) => Err(reply.into()),
            HelloReply::Welcome(hello) if hello.protocol != PROTOCOL => {
                let versions = format!("{} speaks protocol {}, this client {PROTOCOL}", hello.node, hello.protocol);
                Err(Error::new(ErrorKind::Protocol, format!("{versions}: use a client of the cluster's release")))
            }
            HelloReply::Welcome(hello) => Ok(Self::welcomed(connection, hello)),
        }
    }

    fn welcomed(connection: Connection, hello: ServerHello) -> (Self, Routes) {
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
            tenant_id: hello.tenant_id,
            retry_window: Duration::from_millis(u64::from(hello.retry_window_ms)),
            receipts: Mutex::default(),
            window: Arc::default(),
        };
        (session, hello.routes)
    }

    /// The node's start id in its latest reply.
    pub(crate) fn start(&self) -> StartId {
        StartId(self.shared.start.load(Ordering::Acquire))
    }

    /// Whether requests can still be sent.
    pub(crate) fn is_open(&self) -> bool {
        !self.shared.leaving.load(Ordering::Acquire) && lock(&self.shared.waiting).is_some()
    }

    /// Stores the receipt of a write that will not be repeated. Returns all of them once they are enough to be sent.
    pub(crate) fn keep_receipt(&self, receipt: Receipt) -> Option<Vec<Receipt>> {
        let mut receipts = lock(&self.receipts);
        receipts.push(receipt);
        (receipts.len() >= RECEIPTS).then(|| std::mem::take(&mut *receipts))
    }

    /// Sends a request that has no reply. It is dropped if the queue is full: the node drops retry rows in time anyway.
    pub(crate) fn send_unanswered(&self, request: &Request) {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        if let Err(why) = self.connection.sender().try_send(Class::Request, id, codec::encode(request).into()) {
            tracing::debug!(%why, "receipts were not sent");
        }
    }

    /// Sends a request and waits for its reply, until its deadline plus [`GRACE`]. Nothing is sent if the queue to the
    /// node has no room.
    pub(crate) async fn call(&self, class: Class, request: &Request) -> Result<ReplyEnvelope, CallError> {
        self.call_and(class, request, false).await
    }

    /// As [`Session::call`], and waits for room in the queue to the node until the deadline.
    pub(crate) async fn call_patiently(&self, class: Class, request: &Request) -> Result<ReplyEnvelope, CallError> {
        self.call_and(class, request, true).await
    }

    async fn call_and(&self, class: Class, request: &Request, patient: bool) -> Result<ReplyEnvelope, CallError> {
        let deadline = Instant::now() + Duration::from_millis(u64::from(request.deadline_ms));
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let heard = self.shared.heard.load(Ordering::Acquire);
        let (answered, answer) = oneshot::channel();
        match lock(&self.shared.waiting).as_mut() {
            Some(waiting) => waiting.insert(id, answered),
            None => return Err(CallError::NotSent(self.gone("the connection has ended"))),
        };
        // Removes the entry in every case, also if the caller drops the future.
        let _entry = Entry { shared: &self.shared, id };
        let (sender, body) = (self.connection.sender(), Bytes::from(codec::encode(request)));
        let sent = match sender.try_send(class, id, body.clone()) {
            Err(full @ SendError::Full(_)) if patient => {
                let sent = tokio::time::timeout_at(deadline, sender.send(class, id, body)).await;
                sent.unwrap_or(Err(full))
            }
            sent => sent,
        };
        sent.map_err(|why| CallError::NotSent(self.refused(why)))?;
        let lost = |why: String| {
            let silent = self.shared.heard.load(Ordering::Acquire) == heard;
            CallError::Lost { why: format!("{}: {why}", self.name), silent }
        };
        match tokio::time::timeout_at(deadline + GRACE, answer).await {
            Ok(Ok(Ok(answer))) => Ok(answer),
            Ok(Ok(Err(garbled))) => Err(lost(garbled)),
            Ok(Err(_)) => Err(lost("the connection was lost before the answer came".into())),
            Err(_) => Err(lost(format!("no answer within {} ms", u128::from(request.deadline_ms) + GRACE.as_millis()))),
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

/// A pending call, removed when dropped.
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

/// Passes replies to the pending calls until the connection ends, then fails the remaining calls.
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
        let answer = codec::decode::<ReplyEnvelope>(&frame.body).map_err(|why| why.to_string());
        if let Ok(answer) = &answer {
            shared.start.store(answer.start.0, Ordering::Release);
        }
        let waiting = lock(&shared.waiting).as_mut().and_then(|waiting| waiting.remove(&frame.id));
        if let Some(waiting) = waiting {
            // Fails if the caller has just given up.
            let _ = waiting.send(answer);
        }
    }
    tracing::debug!(why = ?connection.close_reason(), "a connection has ended");
    *lock(&shared.waiting) = None;
}

/// The error of a failed dial.
pub(crate) fn dial_error(error: rejoin_wire::Error) -> Error {
    use rejoin_wire::Error as Wire;
    let kind = match error {
        Wire::Untrusted { .. } | Wire::WrongCluster { .. } | Wire::WrongNode { .. } | Wire::NotANode { .. } => {
            ErrorKind::Untrusted
        }
        Wire::CertificateRefused { .. } => ErrorKind::Denied,
        Wire::NoSuchProtocol { .. } | Wire::Version { .. } | Wire::Foreign => ErrorKind::Protocol,
        Wire::BadPem { .. }
        | Wire::NoIdentity
        | Wire::KeyMismatch { .. }
        | Wire::BadLimits(_)
        | Wire::NoRuntime
        | Wire::Tls(_) => ErrorKind::Config,
        _ => ErrorKind::Unreachable,
    };
    Error::new(kind, error.to_string())
}

/// The error of an endpoint that cannot be made, which concerns no node.
pub(crate) fn endpoint_error(error: rejoin_wire::Error) -> Error {
    match dial_error(error) {
        error if error.kind() == ErrorKind::Unreachable => Error::new(ErrorKind::Config, error.to_string()),
        error => error,
    }
}
