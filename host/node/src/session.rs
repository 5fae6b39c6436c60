//! A client's session: hello, token, and passing its requests to shards, catalog or operator. Begin with `serve`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use rejoin_core::fair::{Full, Load};
use rejoin_core::shard::event::{ClientRequest, ReplyTo};
use rejoin_core::view::{ClusterView, shard_of};
use rejoin_proto::client::{
    AdminRequest, ClientHello, HelloReply, MAX_RECEIPTS, PROTOCOL, Receipt, Reply, Request, RequestBody, ServerHello,
};
use rejoin_proto::peer::DataRequest;
use rejoin_proto::quota::Limit;
use rejoin_proto::{ErrorCode, ErrorReply, LayoutRef, TenantId, codec};
use rejoin_wire::{Class, CloseCode, Connection, Frame, Sender};

use crate::audit;
use crate::caller::{Caller, Proof};
use crate::context::NodeContext;
use crate::frames::answer;
use crate::metering::Meter;
use crate::quotas;
use crate::requests::{NotTaken, Waiting, Weighed};
use crate::sessions::{AtLimit, SessionPermit};

/// The most frames taken from a connection at once.
const MAX_FRAMES: usize = 256;
/// The most administrative requests that one client may have under way.
const MAX_ADMIN_REQUESTS: u32 = 32;
/// For how long the commands of a client whose token has ended are answered. It can have revoked the token itself.
const LAST_ANSWERS: Duration = Duration::from_millis(500);
/// Retry delay for a client that is refused because of load, in milliseconds.
const RETRY_AFTER_MS: u32 = 20;
/// As [`RETRY_AFTER_MS`], for a tenant that has as many requests waiting as it may.
const CROWDED_RETRY_MS: u32 = 100;
/// For how long at most a connection is not read because its tenant has too many requests waiting, or too long: what
/// comes on it besides requests must be seen.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);
/// As [`RETRY_AFTER_MS`], for a tenant with as many connections as it may have.
const CONNECT_AGAIN_MS: u32 = 1_000;
/// How long a new client waits for a starting node to serve.
const START_WAIT: Duration = Duration::from_millis(500);
/// The answer of a node that is about to stop.
const STOPPING: &str = "the node is stopping; try another";

/// Closes the connection of a client that is not admitted.
const REFUSED: CloseCode = CloseCode(CloseCode::FIRST_FREE.0 + 16);

/// The frame id on the control class that tells a client that the node is stopping. The body is empty.
const GOING_AWAY: u64 = 1;

/// Serves a client until its connection ends.
pub(crate) async fn serve(ctx: Arc<NodeContext>, connection: Connection) {
    let hello_wait = Duration::from_millis(ctx.config.hello_ms);
    let entered = tokio::select! {
        biased;
        entered = wait_until_serving(&ctx) => entered,
        _ = connection.closed() => return,
    };
    if let Err(refusal) = entered {
        return refuse(&connection, refusal, hello_wait).await;
    }
    let (caller, permit) = match tokio::time::timeout(hello_wait, authenticate(&ctx, &connection)).await {
        Ok(Ok(admitted)) => admitted,
        Ok(Err(refusal)) => return refuse(&connection, refusal, hello_wait).await,
        Err(_) => return connection.close(REFUSED, "no hello"),
    };
    let number = ctx.session_numbers.fetch_add(1, Relaxed) + 1;
    tracing::debug!(token = %caller.principal.name, from = %connection.remote_address(), "client connected");
    let mut client = ClientSession {
        ctx: ctx.clone(),
        sender: connection.sender(),
        number,
        meter: ctx.metering.tenant(&ctx.cluster_view(), caller.tenant),
        flow: caller.tenant,
        caller,
        permit,
        admin_permits: Arc::new(Semaphore::new(MAX_ADMIN_REQUESTS as usize)),
        told_stopping: false,
        full: None,
    };
    let flow = client.flow;
    client.receive(&connection).await;
    for shard in &ctx.shards {
        // Behind the session's requests.
        shard.requests.close_session(flow, number);
    }
}

/// Waits until the node serves. Before that it may lack buckets and tokens that other nodes have. If the wait would be
/// long, the client is better served by another node.
///
/// # Errors
/// Why the client is refused.
async fn wait_until_serving(ctx: &NodeContext) -> Result<(), ErrorReply> {
    if ctx.serving.initialized() {
        return Ok(());
    }
    let refused = |why: &str| {
        let message = format!("{} does not serve: {why}; nothing was done", ctx.config.name);
        Err(ErrorReply::new(ErrorCode::NotServing, message))
    };
    let mut barred = ctx.barred.subscribe();
    tokio::select! {
        biased;
        _ = ctx.serving.wait() => Ok(()),
        _ = ctx.stopping.wait() => Err(ErrorReply::new(ErrorCode::Stopping, STOPPING)),
        // Fails only when the sender is dropped, and `ctx` owns it.
        Ok(why) = barred.wait_for(Option::is_some) => refused(why.as_deref().unwrap_or_default()),
        () = tokio::time::sleep(START_WAIT) => match ctx.peers().links.why_not_serving() {
            Some(reason) => refused(&reason.why),
            None => Ok(()),
        },
    }
}

/// Reads the hello, checks its token, and welcomes the client.
///
/// # Errors
/// Why the client is refused.
async fn authenticate<'a>(
    ctx: &'a Arc<NodeContext>,
    connection: &Connection,
) -> Result<(Caller, SessionPermit<'a>), ErrorReply> {
    let refused = |code, message: &str| Err(ErrorReply::new(code, message));
    let Some(frame) = connection.recv().await else { return refused(ErrorCode::BadRequest, "the connection was lost") };
    let hello: ClientHello = match codec::decode(&frame.body) {
        Ok(hello) if frame.class == Class::Control => hello,
        _ => return refused(ErrorCode::Protocol, "the first frame is not a hello that this node understands"),
    };
    if hello.protocol != PROTOCOL {
        let message = format!("this node speaks protocol {PROTOCOL}, the client {}", hello.protocol);
        return refused(ErrorCode::Protocol, &message);
    }
    let view = ctx.view.borrow().clone();
    let now_ms = ctx.clock.now().wall_ms;
    let proof = Proof::of(connection, hello.token)?;
    let Some(principal) = proof.check(&view.tokens, now_ms) else {
        let what = if matches!(proof, Proof::Token(_)) { "token" } else { "certificate" };
        let message = format!("this cluster does not accept the {what}; ask its operator for another");
        return refused(ErrorCode::Denied, &message);
    };
    let caller = Caller::new(proof, principal, hello.tenant, &view.cluster)?;
    if ctx.stopping.initialized() {
        return refused(ErrorCode::Stopping, STOPPING);
    }
    let limit = ctx.config.clients_per_token;
    let tenant_limit = view.cluster.quota((caller.principal.tenant, None));
    let tenant_limit = tenant_limit.and_then(|quota| quota.hard.get(Limit::Connections));
    let permit = match ctx.sessions.try_admit(&caller.token_key(), limit, tenant_limit) {
        Ok(permit) => permit,
        Err(AtLimit::Tenant(limit)) => {
            let tenant = caller.principal.tenant;
            return Err(quotas::too_many_connections(&view.cluster, tenant, limit, CONNECT_AGAIN_MS));
        }
        Err(AtLimit::Token) => {
            let message = format!(
                "token {} has {limit} connections to this node, which is the limit; close some, use more tokens, or \
                 raise clients_per_token",
                caller.principal.name
            );
            return Err(ErrorReply::new(ErrorCode::Overloaded, message).retry_after(RETRY_AFTER_MS));
        }
    };
    permit.used(now_ms);
    connection.charge_to(caller.tenant.0, view.cluster.weight(caller.tenant));
    connection.admit();
    let welcome = ServerHello {
        protocol: PROTOCOL,
        cluster: ctx.cluster,
        node: ctx.config.name.clone(),
        tenant: caller.tenant_name.clone(),
        tenant_id: caller.tenant,
        start: *ctx.start.borrow(),
        retry_window_ms: ctx.config.retry_window_ms,
        routes: view.routes(),
    };
    let body = codec::encode(&HelloReply::Welcome(welcome));
    match connection.sender().send(Class::Control, 0, body.into()).await {
        Ok(()) => Ok((caller, permit)),
        Err(_) => refused(ErrorCode::BadRequest, "the connection was lost"),
    }
}

/// Tells a client why it is refused, and waits until it has closed the connection, for at most `wait`.
async fn refuse(connection: &Connection, refusal: ErrorReply, wait: Duration) {
    tracing::info!(from = %connection.remote_address(), why = %refusal, "a client was refused");
    let body = codec::encode(&HelloReply::Refused(refusal));
    if connection.sender().send(Class::Control, 0, body.into()).await.is_ok() {
        // The client closes the connection once it has read the answer.
        let _ = tokio::time::timeout(wait, connection.closed()).await;
    }
    connection.close(REFUSED, "refused");
}

/// An admitted client.
struct ClientSession<'a> {
    ctx: Arc<NodeContext>,
    sender: Sender,
    number: u64,
    caller: Caller,
    /// Of the caller's tenant.
    meter: Arc<Meter>,
    /// The tenant whose requests its requests wait among. It stays the same, so that they stay in order.
    flow: TenantId,
    permit: SessionPermit<'a>,
    /// Bounds the administrative requests under way.
    admin_permits: Arc<Semaphore>,
    /// The client was told that the node is stopping.
    told_stopping: bool,
    /// The shard that had no room for a request of the tenant, and until when the connection is not read for that.
    full: Option<(usize, Instant)>,
}

/// The part of a request that reads and writes have in common.
struct RequestHead {
    layout: LayoutRef,
    trace: u64,
    /// 0: the node's default.
    deadline_ms: u32,
}

impl ClientSession<'_> {
    async fn receive(&mut self, connection: &Connection) {
        let mut view = self.ctx.view.clone();
        let mut frames = Vec::with_capacity(MAX_FRAMES);
        loop {
            let ends = self.caller.ends_in(self.ctx.clock.now().wall_ms);
            let count = tokio::select! {
                biased;
                // The catalog has changed: a revoked token ends its connections, also those that are idle. Fails only
                // when the node stops.
                Ok(()) = view.changed() => None,
                () = tokio::time::sleep(ends.unwrap_or_default()), if ends.is_some() => None,
                count = self.next(connection, &mut frames) => Some(count),
            };
            let now_ms = self.ctx.clock.now().wall_ms;
            match count {
                Some(0) => return,
                Some(_) => self.permit.used(now_ms),
                None => {}
            }
            let is_checked = count.is_some() && ends.is_none() && !view.has_changed().unwrap_or(false);
            let refusal =
                if is_checked { None } else { self.caller.check_again(&view.borrow_and_update(), now_ms).err() };
            if let Some(why) = refusal {
                return self.end(connection, why).await;
            }
            if !is_checked {
                // Its weight may have changed.
                let flow = self.weighed(&self.ctx.cluster_view());
                connection.charge_to(flow.tenant.0, flow.weight);
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

    /// Ends a connection whose caller may not go on. Nothing more is taken from it, and commands under way are
    /// answered.
    async fn end(&self, connection: &Connection, why: &str) {
        tracing::info!(token = %self.caller.principal.name, why, "a connection of a client is closed");
        let answered = async {
            if self.admin_permits.available_permits() < MAX_ADMIN_REQUESTS as usize {
                let _ = self.admin_permits.acquire_many(MAX_ADMIN_REQUESTS).await;
                // A client that has its answer and wants no more closes the connection.
                connection.closed().await;
            }
        };
        let _ = tokio::time::timeout(LAST_ANSWERS, answered).await;
        connection.close(REFUSED, why);
    }

    /// The next frames. When the node begins to stop, the client is told once; it closes the connection when it has its
    /// answers.
    async fn next(&mut self, connection: &Connection, frames: &mut Vec<Frame>) -> usize {
        self.wait_for_room().await;
        if self.told_stopping {
            return connection.recv_batch(frames, MAX_FRAMES).await;
        }
        tokio::select! {
            biased;
            _ = self.ctx.stopping.wait() => {
                self.told_stopping = true;
                // If the queue is full, the client learns it from its next request.
                let _ = self.sender.try_send(Class::Control, GOING_AWAY, Bytes::new());
                connection.recv_batch(frames, MAX_FRAMES).await
            }
            count = connection.recv_batch(frames, MAX_FRAMES) => count,
        }
    }

    /// After a request was refused because the tenant has too many waiting, or those wait too long: reads nothing more
    /// for a while, or until more would be taken. QUIC's flow control then holds the client back, and refusing its
    /// requests one by one takes no time from other tenants. May be dropped at any point and called again.
    async fn wait_for_room(&mut self) {
        if let Some((shard, until)) = self.full {
            let clock = self.ctx.clock;
            let eased = self.ctx.shards[shard].requests.eased(self.flow, move || clock.now().mono_us);
            let _ = tokio::time::timeout_at(until, eased).await;
            self.full = None;
        }
    }

    /// How the session's requests wait among those of other tenants.
    fn weighed(&self, view: &ClusterView) -> Weighed {
        Weighed { tenant: self.flow, weight: view.weight(self.flow) }
    }

    fn request(&mut self, connection: &Connection, frame: &Frame, request: Request) {
        if self.ctx.stopping.initialized() {
            let error = ErrorReply::new(ErrorCode::Stopping, "the node is stopping, and nothing was done; try another");
            return self.answer(frame, Reply::Error(error));
        }
        if let Err(denied) = self.caller.authorise(&request.body) {
            return match request.body {
                RequestBody::Admin(admin) => self.admin(connection, frame, admin, Err(denied)),
                _ => self.answer(frame, Reply::Error(denied)),
            };
        }
        let head = RequestHead { layout: request.layout, trace: request.trace, deadline_ms: request.deadline_ms };
        match request.body {
            RequestBody::Get(get) => self.data(frame, head, DataRequest::Get(get)),
            RequestBody::Put(put) => self.data(frame, head, DataRequest::Put(put)),
            RequestBody::Layout => {
                let routes = self.ctx.view.borrow().routes();
                self.answer(frame, Reply::Layout(routes));
            }
            RequestBody::Settled(receipts) => self.settled(receipts),
            RequestBody::Admin(admin) => {
                let wait_ms = if head.deadline_ms == 0 { self.ctx.config.timeout_ms } else { head.deadline_ms };
                let wait = Duration::from_millis(u64::from(wait_ms));
                self.admin(connection, frame, admin, Ok(wait));
            }
        }
    }

    /// Starts an administrative request that may take so long, or records one that is denied.
    fn admin(
        &self,
        connection: &Connection,
        frame: &Frame,
        admin: AdminRequest,
        allowed: Result<Duration, ErrorReply>,
    ) {
        let Ok(permit) = self.admin_permits.clone().try_acquire_owned() else {
            let message = format!(
                "{MAX_ADMIN_REQUESTS} administrative requests of this client are under way; wait for one of them"
            );
            let error = ErrorReply::new(ErrorCode::Overloaded, message).retry_after(RETRY_AFTER_MS);
            return self.answer(frame, Reply::Error(error));
        };
        let (ctx, caller, from) = (self.ctx.clone(), self.caller.clone(), connection.remote_address());
        let (sender, id, class) = (self.sender.clone(), frame.id, frame.class);
        let connection = connection.clone();
        tokio::spawn(async move {
            match allowed {
                // Also if the client has gone meanwhile.
                Err(denied) => {
                    let reply = audit::denied(&ctx, &caller, from, &admin, denied).await;
                    send_reply(&ctx, &sender, class, id, reply);
                }
                // The work, such as compiling a plugin, is dropped when the client disconnects.
                Ok(wait) => tokio::select! {
                    biased;
                    _ = connection.closed() => {}
                    reply = audit::run(&ctx, &caller, from, admin, wait) => {
                        send_reply(&ctx, &sender, class, id, reply);
                    }
                },
            }
            drop(permit);
        });
    }

    /// Passes a read or a write to the shard of its key. If the tenant has no room in its queue, the client is answered
    /// *overloaded*, and its connection is not read for a while.
    fn data(&mut self, frame: &Frame, head: RequestHead, request: DataRequest) {
        let view = self.ctx.cluster_view();
        let (bucket, key) = request.bucket_and_key();
        let arrived_us = self.ctx.clock.now().mono_us;
        let (tenant, named) = (self.caller.tenant, view.bucket_named(self.caller.tenant, bucket).map(|known| &**known));
        let size = (frame.body.len(), arrived_us);
        let in_flight = match self.ctx.metering.begin(&view, (tenant, &self.meter), named, size) {
            Ok(in_flight) => in_flight,
            Err(refusal) => return self.answer(frame, Reply::Error(refusal)),
        };
        let partition = match view.partition(self.caller.tenant, bucket, key) {
            Ok(partition) => partition,
            Err(error) => return self.answer(frame, Reply::Error(error)),
        };
        let config = &self.ctx.config;
        let wait_ms =
            if head.deadline_ms == 0 { config.timeout_ms } else { head.deadline_ms.min(config.max_timeout_ms) };
        let client = ClientRequest {
            reply_to: ReplyTo { connection: self.number, request: frame.id },
            tenant: self.caller.tenant,
            layout: head.layout,
            trace: if head.trace == 0 { self.ctx.rng.next_u64() } else { head.trace },
            arrived_us,
            deadline_us: arrived_us + u64::from(wait_ms) * 1000,
            request,
        };
        let shard = self.ctx.shard_index(partition, &view);
        let waiting = Waiting::Client(Box::new(client), self.sender.clone(), in_flight);
        let pushed = self.ctx.shards[shard].requests.push(arrived_us, self.weighed(&view), frame.body.len(), waiting);
        let overloaded = |message: String, retry_ms| {
            self.ctx.metrics.overloaded.increment(1);
            ErrorReply::new(ErrorCode::Overloaded, message).retry_after(retry_ms)
        };
        let refusal = match pushed {
            Ok(()) => return,
            Err(NotTaken::Full(Full::All(_))) => {
                let message = "too many requests are waiting at this node; nothing was done";
                overloaded(message.to_owned(), RETRY_AFTER_MS)
            }
            Err(NotTaken::Full(Full::Flow(Load { items, bytes }))) => {
                let tenant = &self.caller.tenant_name;
                let message = format!(
                    "{items} requests of tenant {tenant}, of {bytes} bytes, are waiting at this node, and more would \
                     leave too little room to others; nothing was done"
                );
                overloaded(message, CROWDED_RETRY_MS)
            }
            Err(NotTaken::Full(Full::Late(waited_us))) => {
                let (tenant, waited_ms) = (&self.caller.tenant_name, waited_us / 1_000);
                let message = format!(
                    "requests of tenant {tenant} have been waiting too long at this node for a while, the oldest one \
                     for {waited_ms} ms; nothing was done"
                );
                overloaded(message, CROWDED_RETRY_MS)
            }
            Err(NotTaken::Stopped) => ErrorReply::new(ErrorCode::Stopping, STOPPING),
        };
        if refusal.code == ErrorCode::Overloaded {
            self.full = Some((shard, Instant::now() + LONGEST_PAUSE));
        }
        self.answer(frame, Reply::Error(refusal));
    }

    /// Passes receipts to the shards that gave them. A full queue drops them; then the retry rows stay until the end of
    /// the retry window.
    fn settled(&self, receipts: Vec<Receipt>) {
        let view = self.ctx.cluster_view();
        let partitions = view.layout().partitions();
        let (now_us, weighed) = (self.ctx.clock.now().mono_us, self.weighed(&view));
        let mut of_shards: BTreeMap<usize, Vec<Receipt>> = BTreeMap::new();
        for receipt in
            receipts.into_iter().take(MAX_RECEIPTS).filter(|receipt| u32::from(receipt.partition.0) < partitions)
        {
            of_shards
                .entry(usize::from(shard_of(receipt.partition, partitions, self.ctx.shard_count())))
                .or_default()
                .push(receipt);
        }
        for (shard, receipts) in of_shards {
            self.ctx.shards[shard].requests.push_receipts(now_us, weighed, receipts);
        }
    }

    fn answer(&self, frame: &Frame, reply: Reply) {
        send_reply(&self.ctx, &self.sender, frame.class, frame.id, reply);
    }
}

fn send_reply(ctx: &NodeContext, sender: &Sender, class: Class, id: u64, reply: Reply) {
    let reply_to = ReplyTo { connection: 0, request: id };
    let frame = answer(reply_to, ctx.cluster_view().layout_name(), *ctx.start.borrow(), reply);
    if let Err(error) = sender.try_send(class, frame.id, frame.body) {
        tracing::debug!(%error, "a reply was not sent");
    }
}
