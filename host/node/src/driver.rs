//! Drives a shard: takes what waits in its queues, hands it to [`GroupCommit`] as one batch, and carries out the
//! outputs after the commit.
//!
//! The driver owns the queues, the connections and the metrics. It decides nothing: the machine says what may leave the
//! node, and when. Begin with `run`, then `batch`, `input_of` and `act`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use rejoin_core::control::{CatalogChange, Wait};
use rejoin_core::node::batch::{GroupCommit, Input, Output};
use rejoin_core::node::links::LinkEvent;
use rejoin_core::ring::RingEvent;
use rejoin_core::shard::event::{Event, MergeTicket, Now, ReplyTo};
use rejoin_core::view::ClusterView;
use rejoin_merge::TenantShare;
use rejoin_proto::client::{Reply, StartId};
use rejoin_proto::peer::{ActorNext, DataRequest, PeerEnvelope};
use rejoin_proto::{BucketId, ErrorCode, ErrorReply, Name, NodeId, PluginDigest, TenantId, codec};
use rejoin_store::{CommitSeq, ShardStore};
use rejoin_wire::{Frame, Sender};

use crate::backlog::{Backlog, queue};
use crate::clock::Clock;
use crate::faults::{self, Faults};
use crate::frames::{Encoder, LARGE_BYTES, answer};
use crate::members::ShardRequests;
use crate::messages::{CatalogRequest, InboxItem, Inspection, RingRequest, ShardMessage, ShardReport, ShardStopped};
use crate::metering::{InFlight, Metering};
use crate::metrics::Metrics;
use crate::plugin_table::share;
use crate::plugins::PluginService;
use crate::requests::{Requests, UnderWay};
use crate::scanning::Scans;
use crate::syncing::SyncRequests;

/// The most entries that one batch takes from each queue.
const BATCH: usize = 1024;
/// The most bulk messages that one batch takes. Requests wait for them, and for each that carries objects about two
/// milliseconds.
const BULK_BATCH: usize = 4;
/// The bytes of large messages of peers at which a batch takes no more of them. One is always in it.
const LARGE_BATCH_BYTES: usize = 1 << 20;
/// A batch whose items have so many bytes takes some milliseconds: it is done on a thread for blocking work, and the
/// connections of the shard's loop go on meanwhile.
const LONG_BATCH_BYTES: usize = 1 << 20;
/// Retry delay for a client that reads its replies more slowly than it sends requests, in milliseconds.
const SLOW_READER_RETRY_MS: u32 = 50;

/// The replies to one client for which room is kept from batch to batch.
const KEPT_REPLIES: usize = 64;

/// The most messages of peers that one batch takes while several tenants use the shard: requests wait for them.
const SHARED_BATCH: usize = 512;

/// The receiving ends of a shard's queues.
pub(crate) struct ShardQueues {
    /// Requests of clients.
    pub(crate) requests: Requests,
    /// Messages of peers.
    pub(crate) inbox: mpsc::Receiver<InboxItem>,
    /// Large messages of peers.
    pub(crate) large: mpsc::Receiver<InboxItem>,
    /// Bulk messages of peers.
    pub(crate) bulk: mpsc::Receiver<InboxItem>,
    pub(crate) messages: mpsc::UnboundedReceiver<ShardMessage>,
}

/// A shard's machine, its store, and the queues and services that the driver uses for them.
pub(crate) struct Driver {
    /// The node's name, for spans.
    pub(crate) name: Name,
    /// The data directory, named in replies that say the disk is full.
    pub(crate) data: PathBuf,
    pub(crate) index: u16,
    pub(crate) batch: GroupCommit,
    pub(crate) store: ShardStore,
    /// Whether long batches are done on a thread of their own.
    pub(crate) long_beside: bool,
    /// With fault injection: all batches are, while writes to the journal are held back.
    pub(crate) faults: Option<Faults>,
    /// The most bytes of messages to one peer that wait here for space in its send queues.
    pub(crate) backlog_bytes: usize,
    pub(crate) clock: Clock,
    pub(crate) view: Arc<ClusterView>,
    pub(crate) plugins: PluginService,
    pub(crate) metering: Arc<Metering>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) syncs: SyncRequests,
    pub(crate) scans: Scans,
    /// The shard's own queue, for results of what it asks for.
    pub(crate) messages: mpsc::UnboundedSender<ShardMessage>,
    /// What the links have to know of this shard.
    pub(crate) links: mpsc::UnboundedSender<LinkEvent>,
    /// The new start id of a shard (by index) whose tenure has ended.
    pub(crate) starts: mpsc::UnboundedSender<(u16, u64)>,
    /// The catalog's queue.
    pub(crate) catalog: mpsc::UnboundedSender<CatalogRequest>,
    /// What has become of requests to peers, for the membership task.
    pub(crate) requests: mpsc::UnboundedSender<ShardRequests>,
    /// Reasons for which the node must stop.
    pub(crate) failures: mpsc::UnboundedSender<String>,
}

/// State of a running driver that the machine does not need.
#[derive(Default)]
struct DriverState {
    peers: BTreeMap<NodeId, Sender>,
    backlogs: BTreeMap<NodeId, Backlog>,
    clients: BTreeMap<u64, Client>,
    /// The peers and the clients to which the batch sends something.
    sent_to: Vec<NodeId>,
    answered: Vec<u64>,
    /// The outputs of the batch. Kept for their room, as the two above.
    outputs: Vec<Output>,
    encoder: Encoder,
    begun: BTreeMap<ReplyTo, BegunRequest>,
    /// When each merge was asked for, in microseconds.
    merging: BTreeMap<MergeTicket, u64>,
    start: StartId,
    /// Callers that want this shard's actors, as they are after the batch is written.
    actors: Vec<oneshot::Sender<(u8, Vec<ActorNext>)>>,
    /// Looks at the shard and its store, as they are after a batch is written.
    inspections: VecDeque<Inspection>,
}

/// A connected client, with the replies of the batch.
struct Client {
    sender: Sender,
    replies: Vec<Frame>,
}

/// A client's request that is not answered yet.
struct BegunRequest {
    /// When it came in, in microseconds.
    at_us: u64,
    is_read: bool,
    in_flight: InFlight,
    under_way: UnderWay,
}

impl Driver {
    /// Runs until a [`ShardMessage::Stop`], or until all senders are gone.
    pub(crate) async fn run(mut self, queues: ShardQueues) {
        let ShardQueues { requests, mut inbox, mut large, mut bulk, messages: mut queue } = queues;
        let mut state = DriverState::default();
        let (mut items, mut messages) = (Vec::with_capacity(BATCH), Vec::with_capacity(BATCH));
        let (mut large_items, mut transfers) = (Vec::new(), Vec::with_capacity(BULK_BATCH));
        let mut more = false;
        let mut alarm = pin!(tokio::time::sleep_until(self.clock.instant(self.batch.next_wake_us())));
        loop {
            // The timer is only moved to an earlier time. When it fires early, the batch is empty; moving it for each
            // request that comes and goes would cost more.
            let wake = self.clock.instant(self.batch.next_wake_us());
            if alarm.is_elapsed() || wake < alarm.deadline() {
                alarm.as_mut().reset(wake);
            }
            tokio::select! {
                biased;
                count = queue.recv_many(&mut messages, BATCH) => if count == 0 { return },
                count = inbox.recv_many(&mut items, SHARED_BATCH) => if count == 0 { return },
                () = requests.ready() => {}
                // Lets the sessions and connections of this thread go on in between.
                () = tokio::task::yield_now(), if more => {}
                count = large.recv_many(&mut large_items, 1) => if count == 0 { return },
                count = bulk.recv_many(&mut transfers, BULK_BATCH) => if count == 0 { return },
                () = &mut alarm => {}
            }
            // What has arrived by now shares this batch's commit.
            let now_us = self.clock.now().mono_us;
            while messages.len() < BATCH
                && let Ok(message) = queue.try_recv()
            {
                messages.push(message);
            }
            let most = if requests.is_shared(now_us) { SHARED_BATCH } else { BATCH };
            while items.len() < most
                && let Ok(item) = inbox.try_recv()
            {
                items.push(item);
            }
            while bytes_of(&large_items) < LARGE_BATCH_BYTES
                && let Ok(item) = large.try_recv()
            {
                large_items.push(item);
            }
            while transfers.len() < BULK_BATCH
                && let Ok(item) = bulk.try_recv()
            {
                transfers.push(item);
            }
            more = requests.take(now_us, BATCH, &mut items);
            // Behind the others, which are committed and answered first.
            let large_request = items.pop_if(|last| last.bytes() >= LONG_BATCH_BYTES);
            drop(transfers.splice(0..0, large_request.into_iter().chain(large_items.drain(..))));
            let waiting = inbox.len() + large.len() + requests.waiting();
            let is_due = alarm.is_elapsed() && transfers.is_empty();
            let mut stop = None;
            let is_held = self.faults.as_ref().is_some_and(Faults::holds_journal);
            // If there is nothing, what it was woken for went with the last batch.
            let looks = !state.inspections.is_empty();
            if !messages.is_empty() || !items.is_empty() || is_due || looks {
                // Values of 100 kB of many clients make a batch as long as one large value does.
                if is_held || self.long_beside && bytes_of(&items) >= LONG_BATCH_BYTES {
                    let moved = (self, state, std::mem::take(&mut messages), std::mem::take(&mut items));
                    let Some(done) = beside(moved, waiting).await else { return };
                    (self, state, stop) = done;
                } else {
                    stop = self.batch(&mut state, &mut messages, &mut items, waiting);
                }
            }
            let is_long = !transfers.is_empty();
            if is_long && stop.is_none() {
                if is_held || self.long_beside && bytes_of(&transfers) >= LONG_BATCH_BYTES {
                    let moved = (self, state, std::mem::take(&mut messages), std::mem::take(&mut transfers));
                    let Some(done) = beside(moved, waiting).await else { return };
                    (self, state, stop) = done;
                } else {
                    stop = self.batch(&mut state, &mut messages, &mut transfers, waiting);
                }
            }
            if let Some(stop) = stop {
                let owes_ends = self.batch.shard().owes_ends();
                let closed = self.store.close().map_err(|fault| fault.to_string());
                // The store is closed even if the caller is gone.
                let _ = stop.send(ShardStopped { owes_ends, closed });
                return;
            }
            let looks = !state.inspections.is_empty();
            // What is left to be looked at has a batch of its own.
            more |= looks;
            if is_long || looks {
                // The connections that this thread drives have waited.
                tokio::task::yield_now().await;
            }
        }
    }

    /// Handles one batch: inputs, one commit, outputs. Returns the caller that wants the shard to stop.
    fn batch(
        &mut self,
        state: &mut DriverState,
        messages: &mut Vec<ShardMessage>,
        items: &mut Vec<InboxItem>,
        waiting: usize,
    ) -> Option<oneshot::Sender<ShardStopped>> {
        let now = self.clock.now();
        let mut stop = None;
        self.metrics.batch_events.record((messages.len() + items.len()) as f64);
        for message in messages.drain(..) {
            match self.input_of(state, message, waiting) {
                Ok(Some(input)) => self.batch.handle(now, input, &mut self.store),
                Ok(None) => {}
                Err(stopping) => stop = Some(stopping),
            }
        }
        for item in items.drain(..) {
            let _span = self.span(&item).entered();
            let event = match item {
                InboxItem::SessionClosed(connection) => {
                    state.forget(connection);
                    continue;
                }
                InboxItem::Settled(receipts, _under_way) => Event::Settled(receipts),
                InboxItem::Client(request, sender, in_flight, under_way) => {
                    let is_read = matches!(request.request, DataRequest::Get(_));
                    let begun = BegunRequest { at_us: now.mono_us, is_read, in_flight, under_way };
                    state.begun.insert(request.reply_to, begun);
                    state.clients.entry(request.reply_to.connection).or_insert_with(|| Client::new(sender));
                    tracing::debug!("a client's request");
                    Event::Client(*request)
                }
                InboxItem::Peer(from, envelope, _permit) => {
                    tracing::debug!(%from, what = envelope.body.kind(), "a peer's message");
                    Event::Peer(from, envelope)
                }
                InboxItem::Forwarded(from, envelope, _under_way) => {
                    tracing::debug!(%from, "a request that a peer has forwarded");
                    Event::Peer(from, *envelope)
                }
            };
            self.batch.handle(now, Input::Event(event), &mut self.store);
            if self.batch.is_full() {
                self.commit(state, now);
            }
        }
        self.commit(state, now);
        if self.batch.has_failed() {
            // Actors that were not written must not be announced. The callers see that the shard is gone.
            state.actors.clear();
            state.inspections.clear();
        }
        for answer in state.actors.drain(..) {
            let shard = self.batch.shard();
            let _ = answer.send((shard.partition_bits(), shard.actors()));
        }
        // One of them reads megabytes: requests do not wait for several.
        if let Some(inspect) = state.inspections.pop_front() {
            inspect(self.batch.shard(), &self.store);
        }
        stop
    }

    fn commit(&mut self, state: &mut DriverState, now: Now) {
        let mut outputs = std::mem::take(&mut state.outputs);
        self.batch.commit(now, &mut self.store, &mut outputs);
        self.act(state, &mut outputs);
        state.outputs = outputs;
    }

    /// The span of a request on this node. The trace id is the same on every node that handles the request.
    fn span(&self, item: &InboxItem) -> tracing::Span {
        let trace = match item {
            InboxItem::Client(request, ..) => request.trace,
            InboxItem::Peer(_, envelope, _) => envelope.trace,
            InboxItem::Forwarded(_, envelope, _) => envelope.trace,
            InboxItem::SessionClosed(_) | InboxItem::Settled(..) => return tracing::Span::none(),
        };
        tracing::debug_span!("request", trace = format_args!("{trace:016x}"), node = %self.name, shard = self.index)
    }

    /// Turns a message into an input of the batch, or handles it here and returns `None`. `Err` means: stop the shard.
    fn input_of(
        &mut self,
        state: &mut DriverState,
        message: ShardMessage,
        waiting: usize,
    ) -> Result<Option<Input>, oneshot::Sender<ShardStopped>> {
        let event = match message {
            ShardMessage::Core(event) => *event,
            ShardMessage::View(view) => {
                self.view = view.clone();
                Event::View(view)
            }
            ShardMessage::Start(start) => {
                state.start = start;
                Event::Start(start)
            }
            ShardMessage::PeerUp { peer, connection, sender, actors } => {
                state.peers.insert(peer, sender);
                self.send_backlog(state, peer);
                return Ok(Some(Input::PeerUp { peer, connection, actors }));
            }
            ShardMessage::PeerDown(peer) => {
                state.peers.remove(&peer);
                state.backlogs.remove(&peer);
                Event::PeerDown(peer)
            }
            ShardMessage::WaitsFor(peer, answer) => {
                let _ = answer.send(self.batch.shard().waits_for(peer));
                return Ok(None);
            }
            ShardMessage::Merged(ticket, result) => {
                if let Some(begun) = state.merging.remove(&ticket) {
                    self.metrics.merge_seconds.record(seconds(self.clock.now().mono_us.saturating_sub(begun)));
                }
                Event::Merged(ticket, result)
            }
            ShardMessage::Validated(ticket, result) => Event::Validated(ticket, result),
            ShardMessage::Applied(ticket, result) => Event::Applied(ticket, result),
            ShardMessage::Scanned(ticket, scanned) => {
                self.scans.ended(&self.store);
                Event::Scanned(ticket, scanned)
            }
            ShardMessage::QueueSpace(peer, class) => {
                if let Some(backlog) = state.backlogs.get_mut(&peer) {
                    backlog.awaited[class.index()] = false;
                    self.send_backlog(state, peer);
                }
                return Ok(None);
            }
            ShardMessage::Synced(result) => return Ok(Some(Input::Synced(result))),
            ShardMessage::Actors(answer) => {
                state.actors.push(answer);
                return Ok(None);
            }
            ShardMessage::Report(answer) => {
                let shard = self.batch.shard();
                let (in_flight, in_flight_bytes, retry_bytes) =
                    (shard.in_flight(), shard.in_flight_bytes(), shard.retry_bytes());
                let (core, store, held) = (shard.counters(), self.store.stats(), shard.held());
                let exchange = shard.exchange_status();
                let (buckets, receipts) = (shard.usage(), shard.receipt_sums());
                let _ = answer.send(ShardReport {
                    core,
                    store,
                    in_flight,
                    in_flight_bytes,
                    retry_bytes,
                    receipts,
                    held,
                    waiting,
                    exchange,
                    buckets,
                });
                return Ok(None);
            }
            ShardMessage::Sizes(answer) => {
                let shard = self.batch.shard();
                let _ = answer.send((shard.partition_bits(), shard.partition_bytes()));
                return Ok(None);
            }
            ShardMessage::Quarantine(tenant, plugin, why) => {
                self.quarantine(tenant, plugin, why);
                return Ok(None);
            }
            ShardMessage::Stop(answer) => return Err(answer),
            ShardMessage::Inspect(inspection) => {
                state.inspections.push_back(inspection);
                return Ok(None);
            }
        };
        Ok(Some(Input::Event(event)))
    }

    /// Carries out the outputs of a batch.
    fn act(&mut self, state: &mut DriverState, outputs: &mut Vec<Output>) {
        let mut checked = Vec::new();
        // A message to several peers is encoded once.
        let mut last: Option<(Box<PeerEnvelope>, Frame)> = None;
        let layout = self.view.layout_name();
        for output in outputs.drain(..) {
            match output {
                Output::Send(to, envelope) => {
                    let encoded = match last {
                        Some((same, encoded)) if same == envelope => encoded,
                        _ => state.encoder.frame(&envelope),
                    };
                    state.send(to, encoded.clone());
                    last = Some((envelope, encoded));
                }
                Output::Reply(reply_to, mut reply) => {
                    self.name_the_data_directory(&mut reply);
                    let begun = self.observe(state, reply_to, &reply);
                    let frame = state.encoder.answer(reply_to, layout, state.start, reply);
                    if let Some(mut begun) = begun {
                        begun.in_flight.replied(frame.body.len());
                        begun.under_way.replied(frame.body.len());
                    }
                    state.reply(reply_to.connection, frame);
                }
                Output::Merge(ticket, job) => {
                    let now_us = self.clock.now().mono_us;
                    state.merging.insert(ticket, now_us);
                    match self.metering.begin_merge(&self.view, job.bucket, now_us) {
                        Ok(payers) => {
                            let share = self.share_of(job.bucket);
                            self.plugins.merge(ticket, (job, share), payers, self.messages.clone());
                        }
                        Err(refusal) => {
                            self.metrics.merge_failed(refusal.reason());
                            drop(self.messages.send(ShardMessage::Merged(ticket, Err(refusal))));
                        }
                    }
                }
                Output::Validate(ticket, job) => {
                    match self.metering.begin_merge(&self.view, job.bucket, self.clock.now().mono_us) {
                        Ok(payers) => {
                            let share = self.share_of(job.bucket);
                            self.plugins.validate(ticket, (job, share), payers, self.messages.clone());
                        }
                        Err(refusal) => {
                            self.metrics.merge_failed(refusal.reason());
                            drop(self.messages.send(ShardMessage::Validated(ticket, Err(refusal))));
                        }
                    }
                }
                Output::Apply(ticket, job) => {
                    match self.metering.begin_merge(&self.view, job.bucket, self.clock.now().mono_us) {
                        Ok(payers) => {
                            let share = self.share_of(job.bucket);
                            self.plugins.apply(ticket, (job, share), payers, self.messages.clone());
                        }
                        Err(refusal) => {
                            self.metrics.merge_failed(refusal.reason());
                            drop(self.messages.send(ShardMessage::Applied(ticket, Err(refusal))));
                        }
                    }
                }
                Output::Scan(ticket, job) => self.scans.request(&self.store, ticket, job),
                Output::ActorsChecked(_, connection) => checked.push(connection),
                Output::StartRenewed(start) => drop(self.starts.send((self.index, start))),
                Output::Requests(requests) => drop(self.requests.send((self.index, requests))),
                Output::OlderEnded(generation) => {
                    self.tell_ring(RingEvent::Settled { shard: self.index, generation });
                }
                Output::Exchanged(layout) => self.tell_ring(RingEvent::Exchanged { shard: self.index, layout }),
                Output::Alarm(alarm) => tracing::error!(shard = self.index, "{alarm}"),
                Output::Rebuilt => drop(self.links.send(LinkEvent::ShardRebuilt(self.index))),
                Output::Quarantine(tenant, plugin, why) => self.quarantine(tenant, plugin, why),
                Output::Sync => self.syncs.request(),
                // The oldest commit is on the disk already: this message only starts another batch.
                Output::Again => drop(self.messages.send(ShardMessage::Synced(Ok(CommitSeq::default())))),
                Output::Dropped(count) => {
                    tracing::warn!(
                        shard = self.index,
                        count,
                        "too much waits for the disk: acknowledgements that found no room are asked for again"
                    );
                    self.metrics.sends_dropped.increment(count as u64);
                }
                Output::Failed(why) => {
                    tracing::error!(shard = self.index, why, "the store has failed: the node stops");
                    // The receiver acts on the first failure and is gone after it.
                    let _ = self.failures.send(format!("shard {}: {why}", self.index));
                }
            }
        }
        self.send_all(state);
        // After the sends: the links task sends `READY` behind the objections that were just queued.
        for connection in checked {
            // When the node stops, the links task ends before the shards.
            let _ = self.links.send(LinkEvent::ActorsChecked(connection));
        }
    }

    /// Whose share of the merge threads a call for a bucket uses: its tenant's, also for a merge that the node makes by
    /// itself, such as one of an exchange.
    fn share_of(&self, bucket: BucketId) -> TenantShare {
        // The last merges of a bucket that was deleted meanwhile are nobody's.
        self.view.bucket(bucket).map_or_else(TenantShare::default, |bucket| share(&self.view, bucket.tenant))
    }

    /// Has the catalog quarantine a plugin. If that fails, it is found out again.
    fn quarantine(&self, tenant: TenantId, plugin: PluginDigest, why: String) {
        let (change, nobody) = (CatalogChange::PluginQuarantine(tenant, plugin, why), BTreeSet::new());
        let (answer, _) = oneshot::channel();
        let _ = self.catalog.send(CatalogRequest::Change(change, Wait { all: nobody, until_us: 0 }, answer));
    }

    fn tell_ring(&self, event: RingEvent) {
        // When the node stops, the task of the ring ends before the shards.
        let _ = self.catalog.send(CatalogRequest::Ring(RingRequest::Event(event)));
    }

    fn send_all(&self, state: &mut DriverState) {
        let mut sent_to = std::mem::take(&mut state.sent_to);
        sent_to.drain(..).for_each(|peer| self.send_backlog(state, peer));
        state.sent_to = sent_to;
        for connection in state.answered.drain(..) {
            if let Some(Client { sender, replies }) = state.clients.get_mut(&connection) {
                self.send_replies(sender, replies, state.start);
                replies.shrink_to(KEPT_REPLIES);
            }
        }
    }

    /// Queues the messages that fit, and asks for a [`ShardMessage::QueueSpace`] for the rest. Messages beyond
    /// `backlog_bytes` are dropped, and the machine is told of each.
    fn send_backlog(&self, state: &mut DriverState, peer: NodeId) {
        let (Some(sender), Some(backlog)) = (state.peers.get(&peer), state.backlogs.get_mut(&peer)) else { return };
        let too_large = backlog.queue(sender);
        if backlog.frames.is_empty() && too_large.is_empty() {
            return;
        }
        if !too_large.is_empty() {
            tracing::error!(shard = self.index, %peer, messages = too_large.len(), "messages above the frame limit \
                were not sent");
        }
        if sender.is_closed() {
            // The machine is told that the peer is gone.
            self.metrics.sends_dropped.increment(backlog.frames.len() as u64);
            backlog.frames.clear();
        }
        let mut dropped = backlog.truncate(self.backlog_bytes);
        dropped.extend(too_large);
        self.metrics.sends_dropped.increment(dropped.len() as u64);
        for body in dropped
            .iter()
            .filter_map(|frame| codec::decode::<PeerEnvelope>(&frame.body).ok())
            .map(|envelope| envelope.body)
        {
            let _ = self.messages.send(ShardMessage::Core(Box::new(Event::NotSent(peer, Box::new(body)))));
        }
        for frame in &backlog.frames {
            if !std::mem::replace(&mut backlog.awaited[frame.class.index()], true) {
                let (class, sender, messages) = (frame.class, sender.clone(), self.messages.clone());
                tokio::spawn(async move {
                    sender.writable(class).await;
                    // A shard that has stopped sends nothing more.
                    let _ = messages.send(ShardMessage::QueueSpace(peer, class));
                });
            }
        }
    }

    /// Queues replies to a client. A large reply that does not fit is replaced by an error, so that the client need not
    /// wait for its deadline.
    fn send_replies(&self, sender: &Sender, frames: &mut Vec<Frame>, start: StartId) {
        let too_large = queue(sender, frames);
        if frames.is_empty() && too_large.is_empty() {
            return;
        }
        let instead = |frame: &Frame, error: ErrorReply| {
            let reply_to = ReplyTo { connection: 0, request: frame.id };
            answer(reply_to, self.view.layout_name(), start, Reply::Error(error))
        };
        let behind = |frame: Frame| {
            if frame.body.len() <= LARGE_BYTES {
                return frame;
            }
            let why =
                "the client reads its replies more slowly than it sends requests: read faster, or send fewer at once";
            instead(&frame, ErrorReply::new(ErrorCode::Overloaded, why).retry_after(SLOW_READER_RETRY_MS))
        };
        let mut again: Vec<Frame> = frames.drain(..).map(behind).collect();
        let why = "the object with all its siblings is larger than a reply may be";
        again.extend(too_large.iter().map(|frame| instead(frame, ErrorReply::new(ErrorCode::TooLarge, why))));
        queue(sender, &mut again);
        self.metrics.sends_dropped.increment(again.len() as u64);
    }

    /// Adds the data directory to a reply that says this node's disk is full.
    fn name_the_data_directory(&self, reply: &mut Reply) {
        let Reply::Error(error) = reply else { return };
        let own = format!("the disk of {} ", self.name);
        if error.code == ErrorCode::DiskFull
            && let Some(rest) = error.message.strip_prefix(&own)
        {
            error.message = format!("{own}({}) {rest}", self.data.display());
        }
    }

    /// Measures an answered request, which is under way no longer.
    fn observe(&self, state: &mut DriverState, reply_to: ReplyTo, reply: &Reply) -> Option<BegunRequest> {
        let begun = state.begun.remove(&reply_to)?;
        let took = seconds(self.clock.now().mono_us.saturating_sub(begun.at_us));
        if begun.is_read {
            self.metrics.get_seconds.record(took)
        } else {
            self.metrics.put_seconds.record(took)
        }
        if let Reply::Error(error) = reply {
            // The message is the client's: it may have names, or a plugin's words, which may have values.
            tracing::debug!(shard = self.index, code = ?error.code, "request failed");
            if error.code == ErrorCode::QuotaExceeded {
                begun.in_flight.refused();
            }
        }
        Some(begun)
    }
}

impl DriverState {
    /// Sends a message with the others of the batch. Messages to a peer that is not connected are dropped; the requests
    /// end at their deadlines.
    fn send(&mut self, to: NodeId, frame: Frame) {
        if !self.peers.contains_key(&to) {
            return;
        }
        if !self.sent_to.contains(&to) {
            self.sent_to.push(to);
        }
        self.backlogs.entry(to).or_default().frames.push(frame);
    }

    /// Sends a reply with the others of the batch.
    fn reply(&mut self, connection: u64, frame: Frame) {
        let Some(client) = self.clients.get_mut(&connection) else { return };
        if client.replies.is_empty() {
            self.answered.push(connection);
        }
        client.replies.push(frame);
    }

    /// Drops the state of a session that has ended.
    fn forget(&mut self, connection: u64) {
        self.clients.remove(&connection);
        let sessions = ReplyTo { connection, request: 0 }..=ReplyTo { connection, request: u64::MAX };
        let gone: Vec<ReplyTo> = self.begun.range(sessions).map(|(reply_to, _)| *reply_to).collect();
        for reply_to in gone {
            self.begun.remove(&reply_to);
        }
    }
}

impl Client {
    fn new(sender: Sender) -> Self {
        Self { sender, replies: Vec::new() }
    }
}

/// A driver with what its batch takes.
type Moved = (Driver, DriverState, Vec<ShardMessage>, Vec<InboxItem>);

/// Handles a batch on a thread for blocking work, while the other tasks of the loop go on. Returns the driver, and the
/// caller that wants the shard to stop; `None` if the runtime ends.
async fn beside(
    (mut driver, mut state, mut messages, mut items): Moved,
    waiting: usize,
) -> Option<(Driver, DriverState, Option<oneshot::Sender<ShardStopped>>)> {
    let batch = move || {
        let stop = faults::blocking(|| driver.batch(&mut state, &mut messages, &mut items, waiting));
        (driver, state, stop)
    };
    match tokio::task::spawn_blocking(batch).await {
        Ok(done) => Some(done),
        // As if it had panicked here: the node stops.
        Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
        Err(_) => None,
    }
}

fn bytes_of(items: &[InboxItem]) -> usize {
    items.iter().map(InboxItem::bytes).sum()
}

fn seconds(micros: u64) -> f64 {
    #[allow(clippy::cast_precision_loss)] // A latency of 285 years would lose a microsecond.
    let micros = micros as f64;
    micros / 1e6
}
