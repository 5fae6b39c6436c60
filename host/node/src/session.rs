//! A client's connection: its hello, its token, and its requests on their way to the shards.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Semaphore, watch};

use rejoin_core::shard::event::{ClientRequest, ReplyTo};
use rejoin_core::view::shard_of;
use rejoin_proto::catalog::Scope;
use rejoin_proto::client::{ClientHello, HelloReply, MAX_RECEIPTS, PROTOCOL, Receipt, Reply, Request, RequestBody, ServerHello};
use rejoin_proto::peer::DataRequest;
use rejoin_proto::{ErrorCode, ErrorReply, TenantId, codec};
use rejoin_wire::{Class, CloseCode, Connection, Frame, Sender};

use crate::driver::{Work, answer};
use crate::operator;
use crate::parts::Parts;
use crate::token::Holder;

/// The most frames taken from a connection at once.
const FRAMES: usize = 256;
/// The most verbs of an operator that one client may have under way.
const MAX_VERBS: usize = 32;
/// What a client that is turned away for load waits, in milliseconds.
const RETRY_AFTER_MS: u32 = 20;
/// How long a client waits for a node that is starting.
const START_PATIENCE: Duration = Duration::from_millis(500);
/// What a client is told by a node that is about to stop.
const STOPPING: &str = "the node is stopping; try another";

const REFUSED: CloseCode = CloseCode(CloseCode::FIRST_FREE.0 + 16);

/// The frame id on the control class with which a node says that it is going away. Its body is empty.
const GOING_AWAY: u64 = 1;

/// Tokens of different tenants may have one name.
type TokenName = (TenantId, String);

/// The clients that are let in.
#[derive(Default)]
pub(crate) struct Sessions {
    by_token: Mutex<BTreeMap<TokenName, usize>>,
    open: watch::Sender<usize>,
}

/// A client's place among those of its token, given back when dropped.
struct Seat<'a> {
    sessions: &'a Sessions,
    token: TokenName,
}

impl Sessions {
    /// How many clients are let in.
    pub(crate) fn count(&self) -> usize {
        *self.open.borrow()
    }

    /// Resolves when none is.
    pub(crate) async fn none(&self) {
        // It lives as long as this does.
        let _ = self.open.subscribe().wait_for(|open| *open == 0).await;
    }

    /// A place for another client with that token; none if the token has `most` already.
    fn seat(&self, token: &TokenName, most: usize) -> Option<Seat<'_>> {
        let mut by_token = self.by_token.lock().unwrap_or_else(PoisonError::into_inner);
        let count = by_token.entry(token.clone()).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        drop(by_token);
        self.open.send_modify(|open| *open += 1);
        Some(Seat { sessions: self, token: token.clone() })
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut by_token = self.sessions.by_token.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut count) = by_token.entry(self.token.clone()) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        drop(by_token);
        self.sessions.open.send_modify(|open| *open -= 1);
    }
}

/// Serves a client until its connection ends.
pub(crate) async fn serve(parts: Arc<Parts>, connection: Connection) {
    let hello_wait = Duration::from_millis(parts.config.hello_ms);
    let entered = tokio::select! {
        biased;
        entered = enter(&parts) => entered,
        _ = connection.closed() => return,
    };
    if let Err(refusal) = entered {
        return refuse(&connection, refusal, hello_wait).await;
    }
    let (token, holder, seat) = match tokio::time::timeout(hello_wait, greet(&parts, &connection)).await {
        Ok(Ok(known)) => known,
        Ok(Err(refusal)) => return refuse(&connection, refusal, hello_wait).await,
        Err(_) => return connection.close(REFUSED, "no hello"),
    };
    let number = parts.session_numbers.fetch_add(1, Relaxed) + 1;
    tracing::debug!(token = %holder.name, from = %connection.remote_address(), "client connected");
    let mut client = Client {
        parts: parts.clone(),
        sender: connection.sender(),
        number,
        token,
        holder,
        verbs: Arc::new(Semaphore::new(MAX_VERBS)),
        told: false,
    };
    client.receive(&connection).await;
    for shard in &parts.shards {
        // Through the inbox, behind what it has asked for. A shard that has stopped needs no news.
        let _ = shard.inbox.send(Work::SessionClosed(number)).await;
    }
    drop(seat);
}

/// Waits until the node serves: before it knows what the others know, a client could be told that a bucket is unknown
/// which was made elsewhere. A start that is all but over is waited for; otherwise the client does better at another
/// node, and hears why.
///
/// # Errors
/// Why the client is turned away.
async fn enter(parts: &Parts) -> Result<(), ErrorReply> {
    if parts.serving.initialized() {
        return Ok(());
    }
    let refused = |why: &str| {
        let message = format!("{} does not serve: {why}; nothing was done", parts.config.name);
        Err(ErrorReply::new(ErrorCode::NotServing, message))
    };
    let mut barred = parts.barred.subscribe();
    tokio::select! {
        biased;
        _ = parts.serving.wait() => Ok(()),
        _ = parts.leaving.wait() => Err(ErrorReply::new(ErrorCode::Stopping, STOPPING)),
        // The sender lives as long as this does.
        Ok(why) = barred.wait_for(Option::is_some) => refused(why.as_deref().unwrap_or_default()),
        () = tokio::time::sleep(START_PATIENCE) => match parts.peers().links.why_not_serving() {
            Some(told) => refused(&told.why),
            None => Ok(()),
        },
    }
}

async fn greet<'a>(parts: &'a Arc<Parts>, connection: &Connection) -> Result<(String, Holder, Seat<'a>), ErrorReply> {
    let refused = |code, message: &str| Err(ErrorReply::new(code, message));
    let Some(frame) = connection.recv().await else { return refused(ErrorCode::BadRequest, "the connection was lost") };
    let hello: ClientHello = match codec::decode(&frame.body) {
        Ok(hello) if frame.class == Class::Control => hello,
        _ => return refused(ErrorCode::Protocol, "the first frame was no hello that this node understands"),
    };
    if hello.protocol != PROTOCOL {
        let message = format!("this node speaks protocol {PROTOCOL}, the client {}", hello.protocol);
        return refused(ErrorCode::Protocol, &message);
    }
    let view = parts.view.borrow().clone();
    let Some(holder) = view.tokens.check(&hello.token) else {
        return refused(ErrorCode::Denied, "the token is not one that this cluster takes; ask its operator for another");
    };
    if parts.leaving.initialized() {
        return refused(ErrorCode::Stopping, STOPPING);
    }
    let most = parts.config.clients_per_token;
    let Some(seat) = parts.sessions.seat(&(holder.tenant, holder.name.clone()), most) else {
        let message = format!(
            "token {} has {most} connections to this node, which is the most; close some, give programs tokens of their own, or raise clients_per_token",
            holder.name
        );
        return Err(ErrorReply::new(ErrorCode::Overloaded, message).retry_after(RETRY_AFTER_MS));
    };
    connection.let_in();
    let welcome = ServerHello {
        protocol: PROTOCOL,
        cluster: parts.cluster,
        node: parts.config.name.clone(),
        tenant: holder.tenant,
        start: *parts.start.borrow(),
        retry_window_ms: parts.config.retry_window_ms,
        layout: view.cluster.layout().clone(),
    };
    let body = codec::encode(&HelloReply::Welcome(welcome));
    match connection.sender().send(Class::Control, 0, body.into()).await {
        Ok(()) => Ok((hello.token, holder, seat)),
        Err(_) => refused(ErrorCode::BadRequest, "the connection was lost"),
    }
}

/// Tells a client why it is turned away, and gives it a moment to hear it.
async fn refuse(connection: &Connection, refusal: ErrorReply, patience: Duration) {
    tracing::info!(from = %connection.remote_address(), why = %refusal, "a client is turned away");
    let body = codec::encode(&HelloReply::Refused(refusal));
    if connection.sender().send(Class::Control, 0, body.into()).await.is_ok() {
        // The client closes when it has read the answer; one that does not is closed.
        let _ = tokio::time::timeout(patience, connection.closed()).await;
    }
    connection.close(REFUSED, "refused");
}

struct Client {
    parts: Arc<Parts>,
    sender: Sender,
    number: u64,
    token: String,
    holder: Holder,
    /// One for each operator's verb that may be under way.
    verbs: Arc<Semaphore>,
    /// It was told that the node is going away.
    told: bool,
}

impl Client {
    async fn receive(&mut self, connection: &Connection) {
        let mut view = self.parts.view.clone();
        let mut frames = Vec::with_capacity(FRAMES);
        while self.next(connection, &mut frames).await > 0 {
            if view.has_changed().unwrap_or(false) {
                // A token that was withdrawn ends its sessions with their next request.
                let tokens = view.borrow_and_update().tokens.check(&self.token);
                match tokens {
                    Some(holder) => self.holder = holder,
                    None => return connection.close(REFUSED, "the token was withdrawn"),
                }
            }
            for frame in frames.drain(..) {
                match codec::decode::<Request>(&frame.body) {
                    Ok(request) => self.request(connection, &frame, request),
                    Err(error) => {
                        let error = ErrorReply::new(ErrorCode::BadRequest, error.to_string());
                        self.answer(&frame, Reply::Error(error));
                    }
                }
            }
        }
    }

    /// The next frames. When the node begins to stop, the client is told once; it ends the connection when it has its
    /// answers.
    async fn next(&mut self, connection: &Connection, frames: &mut Vec<Frame>) -> usize {
        if self.told {
            return connection.recv_batch(frames, FRAMES).await;
        }
        tokio::select! {
            biased;
            _ = self.parts.leaving.wait() => {
                self.told = true;
                // A client that does not take it finds out by its next request.
                let _ = self.sender.try_send(Class::Control, GOING_AWAY, Bytes::new());
                connection.recv_batch(frames, FRAMES).await
            }
            count = connection.recv_batch(frames, FRAMES) => count,
        }
    }

    fn request(&mut self, connection: &Connection, frame: &Frame, request: Request) {
        if self.parts.leaving.initialized() {
            let error = ErrorReply::new(ErrorCode::Stopping, "the node is stopping, and nothing was done; try another");
            return self.answer(frame, Reply::Error(error));
        }
        match request.body {
            RequestBody::Get(get) => self.data(frame, request.layout, request.trace, request.deadline_ms, DataRequest::Get(get)),
            RequestBody::Put(put) => self.data(frame, request.layout, request.trace, request.deadline_ms, DataRequest::Put(put)),
            RequestBody::Layout => {
                let layout = self.parts.cluster_view().layout().clone();
                self.answer(frame, Reply::Layout(layout));
            }
            RequestBody::Settled(receipts) => self.settled(receipts),
            RequestBody::Admin(_) if self.holder.scope != Scope::Admin => {
                let message = format!("token {} may read and write, not administer; use one made with --admin", self.holder.name);
                self.answer(frame, Reply::Error(ErrorReply::new(ErrorCode::Denied, message)));
            }
            RequestBody::Admin(verb) => {
                let Ok(permit) = self.verbs.clone().try_acquire_owned() else {
                    let message = format!("{MAX_VERBS} of this client's verbs are under way; wait for one of them");
                    let error = ErrorReply::new(ErrorCode::Overloaded, message).retry_after(RETRY_AFTER_MS);
                    return self.answer(frame, Reply::Error(error));
                };
                let (parts, tenant) = (self.parts.clone(), self.holder.tenant);
                let (sender, id, class) = (self.sender.clone(), frame.id, frame.class);
                let connection = connection.clone();
                let wait = Duration::from_millis(u64::from(request.deadline_ms));
                tokio::spawn(async move {
                    // Work that nobody waits for any more, such as compiling a plugin, ends with the connection.
                    tokio::select! {
                        biased;
                        _ = connection.closed() => {}
                        reply = operator::run(&parts, tenant, verb, wait) => reply_to(&parts, &sender, class, id, reply),
                    }
                    drop(permit);
                });
            }
        }
    }

    /// Hands a read or a write to the shard of its key; a full inbox is answered at once.
    fn data(&mut self, frame: &Frame, layout: rejoin_proto::LayoutRef, trace: u64, deadline_ms: u32, request: DataRequest) {
        let view = self.parts.cluster_view();
        let (bucket, key) = match &request {
            DataRequest::Get(get) => (&get.bucket, &get.key),
            DataRequest::Put(put) => (&put.bucket, &put.key),
        };
        let partition = match view.partition(self.holder.tenant, bucket, key) {
            Ok(partition) => partition,
            Err(error) => return self.answer(frame, Reply::Error(error)),
        };
        let config = &self.parts.config;
        let wanted_ms = if deadline_ms == 0 { config.timeout_ms } else { deadline_ms.min(config.max_timeout_ms) };
        let client = ClientRequest {
            reply_to: ReplyTo { connection: self.number, request: frame.id },
            tenant: self.holder.tenant,
            layout,
            trace: if trace == 0 { self.parts.chance.word() } else { trace },
            deadline_us: self.parts.clock.now().mono_us + u64::from(wanted_ms) * 1000,
            request,
        };
        let shard = self.parts.shard_of(partition, &view);
        let Some(room) = shard.try_room(frame.body.len()) else {
            self.parts.metrics.overloaded.increment(1);
            let message = "the requests that are waiting at this node take too many bytes; nothing was done";
            let error = ErrorReply::new(ErrorCode::Overloaded, message).retry_after(RETRY_AFTER_MS);
            return self.answer(frame, Reply::Error(error));
        };
        let refusal = match shard.inbox.try_send(Work::Client(client, self.sender.clone(), room)) {
            Ok(()) => return,
            Err(TrySendError::Full(_)) => {
                self.parts.metrics.overloaded.increment(1);
                let message = "too many requests are waiting at this node; nothing was done";
                ErrorReply::new(ErrorCode::Overloaded, message).retry_after(RETRY_AFTER_MS)
            }
            Err(TrySendError::Closed(_)) => ErrorReply::new(ErrorCode::Stopping, STOPPING),
        };
        self.answer(frame, Reply::Error(refusal));
    }

    /// Hands receipts to the shards that gave them. A full inbox loses them, and the rows go in their time.
    fn settled(&self, receipts: Vec<Receipt>) {
        let view = self.parts.cluster_view();
        let partitions = view.layout().partitions();
        let mut of_shards: BTreeMap<usize, Vec<Receipt>> = BTreeMap::new();
        let shards = u16::try_from(self.parts.shards.len()).unwrap_or(1);
        for receipt in receipts.into_iter().take(MAX_RECEIPTS).filter(|receipt| u32::from(receipt.partition.0) < partitions) {
            of_shards.entry(usize::from(shard_of(receipt.partition, partitions, shards))).or_default().push(receipt);
        }
        for (shard, receipts) in of_shards {
            let _ = self.parts.shards[shard].inbox.try_send(Work::Settled(receipts));
        }
    }

    fn answer(&self, frame: &Frame, reply: Reply) {
        reply_to(&self.parts, &self.sender, frame.class, frame.id, reply);
    }
}

fn reply_to(parts: &Parts, sender: &Sender, class: Class, id: u64, reply: Reply) {
    let reply_to = ReplyTo { connection: 0, request: id };
    let frame = answer(reply_to, parts.cluster_view().layout_name(), *parts.start.borrow(), reply);
    if let Err(error) = sender.try_send(class, frame.id, frame.body) {
        tracing::debug!(%error, "a reply was not sent");
    }
}
