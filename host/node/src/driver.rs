//! Drives a shard: drains its inbox, hands everything to [`GroupCommit`], and does what that lets go after the commit.
//!
//! The machine decides what may leave the node and when. Here are the queues, the connections and the metrics.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use rejoin_core::node::batch::{GroupCommit, Input, Output};
use rejoin_core::port::StoreFault;
use rejoin_core::shard::Counters;
use rejoin_core::shard::event::{ClientRequest, Event, Invalid, MergeTicket, Merged, ReplyTo, ValidateTicket};
use rejoin_core::view::ClusterView;
use rejoin_proto::client::{Answer, Receipt, Reply, StartId};
use rejoin_proto::peer::{ActorNext, DataRequest, PeerBody, PeerEnvelope};
use rejoin_proto::{ErrorCode, ErrorReply, LayoutRef, Name, NodeId, codec};
use rejoin_store::{CommitSeq, ShardStore, Stats};
use rejoin_wire::{Class, Frame, SendError, Sender};

use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::modules::Desk;
use crate::syncing::SyncRequests;

/// The most events that one batch takes from each queue.
const BATCH: usize = 1024;
/// Messages above this many bytes travel with the patient traffic, so that small ones do not wait behind them.
const BULK_BYTES: usize = 64 << 10;
/// What a client waits that does not read its replies as fast as it asks, in milliseconds.
const BEHIND_RETRY_MS: u32 = 50;

/// What waits before a shard and may be refused when there is too much of it.
pub(crate) enum Work {
    Client(ClientRequest, Sender, Room),
    Peer(NodeId, PeerEnvelope, Room),
    /// A client has these answers.
    Settled(Vec<Receipt>),
    /// Behind the last request of that session, so that none of them brings it back.
    SessionClosed(u64),
}

/// What a shard is always told.
pub(crate) enum Notice {
    /// An event of the shard's own. One that concerns the driver too has a notice of its own.
    Event(Box<Event>),
    View(Arc<ClusterView>),
    Start(StartId),
    PeerUp {
        peer: NodeId,
        connection: u64,
        sender: Sender,
        actors: Vec<ActorNext>,
    },
    PeerDown(NodeId),
    /// Whether something asked of a peer is not answered yet.
    WaitsFor(NodeId, oneshot::Sender<bool>),
    Merged(MergeTicket, Result<Merged, String>),
    Validated(ValidateTicket, Result<(), Invalid>),
    Synced(Result<CommitSeq, StoreFault>),
    /// The queue of a class to a peer has room again.
    Room(NodeId, Class),
    Actors(oneshot::Sender<Vec<ActorNext>>),
    Report(oneshot::Sender<Report>),
    Stop(oneshot::Sender<Stopped>),
}

/// How a shard has stopped.
pub(crate) struct Stopped {
    /// Whether its store has yet to take the end of a tenure.
    pub(crate) owes_ends: bool,
    /// Whether its store could be closed, or why not.
    pub(crate) closed: Result<(), String>,
}

/// A shard's figures.
pub(crate) struct Report {
    pub(crate) core: Counters,
    pub(crate) store: Stats,
    pub(crate) in_flight: usize,
    /// Bytes that the requests under way hold.
    pub(crate) in_flight_bytes: usize,
    /// Bytes that the writes take which are remembered for their retries.
    pub(crate) retry_bytes: usize,
    pub(crate) waiting: usize,
}

/// How the rest of the node reaches a shard.
#[derive(Clone)]
pub(crate) struct ShardHandle {
    pub(crate) inbox: mpsc::Sender<Work>,
    pub(crate) notices: mpsc::UnboundedSender<Notice>,
    /// The bytes for which the inbox has room.
    pub(crate) room: Arc<Semaphore>,
    pub(crate) room_bytes: u32,
}

/// Room in an inbox, given back when what it was taken for has been handled.
pub(crate) type Room = OwnedSemaphorePermit;

impl ShardHandle {
    /// Room in the inbox for a frame of so many bytes, if there is any. One that is larger than all of it takes all of
    /// it.
    pub(crate) fn try_room(&self, bytes: usize) -> Option<Room> {
        self.room.clone().try_acquire_many_owned(self.share(bytes)).ok()
    }

    /// The same, as soon as there is room. `None`: the node has ended.
    pub(crate) async fn room(&self, bytes: usize) -> Option<Room> {
        self.room.clone().acquire_many_owned(self.share(bytes)).await.ok()
    }

    fn share(&self, bytes: usize) -> u32 {
        u32::try_from(bytes).unwrap_or(u32::MAX).clamp(1, self.room_bytes)
    }
}

/// What a driver is made of.
pub(crate) struct Driver {
    /// The node's, for spans.
    pub(crate) name: Name,
    /// Where its data are, for who is told that the disk is full.
    pub(crate) data: PathBuf,
    pub(crate) index: u16,
    pub(crate) batch: GroupCommit,
    pub(crate) store: ShardStore,
    /// The most bytes of messages that wait here for room in the queues to one peer.
    pub(crate) backlog_bytes: usize,
    pub(crate) clock: Clock,
    pub(crate) view: Arc<ClusterView>,
    pub(crate) desk: Desk,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) syncs: SyncRequests,
    pub(crate) notices: mpsc::UnboundedSender<Notice>,
    /// Told when a shard has looked at a peer's actors: the connection.
    pub(crate) heard: mpsc::UnboundedSender<u64>,
    /// Told when a tenure has ended: (shard, its new start).
    pub(crate) starts: mpsc::UnboundedSender<(u16, u64)>,
    /// Told when the node cannot go on.
    pub(crate) failures: mpsc::UnboundedSender<String>,
}

/// What a running driver keeps beside its parts.
#[derive(Default)]
struct Desks {
    peers: BTreeMap<NodeId, Sender>,
    /// What found the queue to a peer full, by peer.
    backlogs: BTreeMap<NodeId, Backlog>,
    clients: BTreeMap<u64, Sender>,
    /// When each request came in, in microseconds, and whether it is a read.
    begun: BTreeMap<ReplyTo, (u64, bool)>,
    merging: BTreeMap<MergeTicket, u64>,
    start: StartId,
    /// They want to announce this shard's actors, as they are once the batch is written.
    actors: Vec<oneshot::Sender<Vec<ActorNext>>>,
}

/// Messages to a peer that found its queue full, in order. A burst of large ones among healthy nodes is no reason to
/// lose any: what they hold is counted by the operations that they belong to.
#[derive(Default)]
struct Backlog {
    frames: Vec<Frame>,
    /// By class: a [`Notice::Room`] is on its way.
    awaited: [bool; 3],
}

impl Backlog {
    /// Drops the last ones, down to so many bytes. Returns how many.
    fn bound(&mut self, most: usize) -> usize {
        let before = self.frames.len();
        let mut bytes = 0_usize;
        let over = self.frames.iter().position(|frame| {
            bytes = bytes.saturating_add(frame.body.len());
            bytes > most
        });
        self.frames.truncate(over.unwrap_or(before));
        before - self.frames.len()
    }
}

impl Driver {
    /// Runs until told to stop, or until the store fails.
    pub(crate) async fn run(mut self, mut inbox: mpsc::Receiver<Work>, mut notices: mpsc::UnboundedReceiver<Notice>) {
        let mut desks = Desks::default();
        let (mut works, mut told) = (Vec::with_capacity(BATCH), Vec::with_capacity(BATCH));
        let mut alarm = pin!(tokio::time::sleep_until(self.clock.instant(self.batch.next_wake_us())));
        loop {
            // One that rings early costs a look; setting it anew for every request that comes and goes costs more.
            let wake = self.clock.instant(self.batch.next_wake_us());
            if alarm.is_elapsed() || wake < alarm.deadline() {
                alarm.as_mut().reset(wake);
            }
            tokio::select! {
                biased;
                count = notices.recv_many(&mut told, BATCH) => if count == 0 { return },
                count = inbox.recv_many(&mut works, BATCH) => if count == 0 { return },
                () = &mut alarm => {}
            }
            // Whatever else has come by now shares this batch's commit.
            while told.len() < BATCH
                && let Ok(notice) = notices.try_recv()
            {
                told.push(notice);
            }
            while works.len() < BATCH
                && let Ok(work) = inbox.try_recv()
            {
                works.push(work);
            }
            let waiting = inbox.len();
            if let Some(stop) = self.batch(&mut desks, &mut told, &mut works, waiting) {
                let owes_ends = self.batch.shard().owes_ends();
                let closed = self.store.close().map_err(|fault| fault.to_string());
                // Whoever asked may be gone; the store is closed all the same.
                let _ = stop.send(Stopped { owes_ends, closed });
                return;
            }
        }
    }

    /// One batch: inputs, one commit, outputs. Returns who wants the shard to stop.
    fn batch(
        &mut self,
        desks: &mut Desks,
        told: &mut Vec<Notice>,
        works: &mut Vec<Work>,
        waiting: usize,
    ) -> Option<oneshot::Sender<Stopped>> {
        let now = self.clock.now();
        let mut stop = None;
        self.metrics.batch_events.record((told.len() + works.len()) as f64);
        for notice in told.drain(..) {
            match self.input_of(desks, notice, waiting) {
                Ok(Some(input)) => self.batch.handle(now, input, &mut self.store),
                Ok(None) => {}
                Err(stopping) => stop = Some(stopping),
            }
        }
        for work in works.drain(..) {
            let _span = self.span(&work).entered();
            let event = match work {
                Work::SessionClosed(connection) => {
                    desks.forget(connection);
                    continue;
                }
                Work::Settled(receipts) => Event::Settled(receipts),
                Work::Client(request, sender, _room) => {
                    let is_read = matches!(request.request, DataRequest::Get(_));
                    desks.begun.insert(request.reply_to, (now.mono_us, is_read));
                    desks.clients.insert(request.reply_to.connection, sender);
                    tracing::debug!("a client's request");
                    Event::Client(request)
                }
                Work::Peer(from, envelope, _room) => {
                    tracing::debug!(%from, what = envelope.body.kind(), "a peer's message");
                    Event::Peer(from, envelope)
                }
            };
            self.batch.handle(now, Input::Event(event), &mut self.store);
        }
        let mut outputs = Vec::new();
        self.batch.commit(now, &mut self.store, &mut outputs);
        self.act(desks, outputs);
        if self.batch.has_failed() {
            // Nobody may take what was not written for what is; whoever waits finds the shard gone.
            desks.actors.clear();
        }
        for answer in desks.actors.drain(..) {
            let _ = answer.send(self.batch.shard().actors());
        }
        stop
    }

    /// The span of a request on this node: the same trace id stands in those of every node that it reaches.
    fn span(&self, work: &Work) -> tracing::Span {
        let trace = match work {
            Work::Client(request, ..) => request.trace,
            Work::Peer(_, envelope, _) => envelope.trace,
            Work::SessionClosed(_) | Work::Settled(_) => return tracing::Span::none(),
        };
        tracing::debug_span!("request", trace = format_args!("{trace:016x}"), node = %self.name, shard = self.index)
    }

    /// What a notice is for the batch, if anything. `Err` is the wish to stop.
    fn input_of(&mut self, desks: &mut Desks, notice: Notice, waiting: usize) -> Result<Option<Input>, oneshot::Sender<Stopped>> {
        let event = match notice {
            Notice::Event(event) => *event,
            Notice::View(view) => {
                self.view = view.clone();
                Event::View(view)
            }
            Notice::Start(start) => {
                desks.start = start;
                Event::Start(start)
            }
            Notice::PeerUp { peer, connection, sender, actors } => {
                desks.peers.insert(peer, sender);
                self.send_backlog(desks, peer);
                return Ok(Some(Input::PeerUp { peer, connection, actors }));
            }
            Notice::PeerDown(peer) => {
                desks.peers.remove(&peer);
                desks.backlogs.remove(&peer);
                Event::PeerDown(peer)
            }
            Notice::WaitsFor(peer, answer) => {
                let _ = answer.send(self.batch.shard().waits_for(peer));
                return Ok(None);
            }
            Notice::Merged(ticket, result) => {
                if let Some(asked) = desks.merging.remove(&ticket) {
                    self.metrics.merge_seconds.record(seconds(self.clock.now().mono_us.saturating_sub(asked)));
                }
                Event::Merged(ticket, result)
            }
            Notice::Validated(ticket, result) => Event::Validated(ticket, result),
            Notice::Room(peer, class) => {
                if let Some(backlog) = desks.backlogs.get_mut(&peer) {
                    backlog.awaited[class.index()] = false;
                    self.send_backlog(desks, peer);
                }
                return Ok(None);
            }
            Notice::Synced(result) => return Ok(Some(Input::Synced(result))),
            Notice::Actors(answer) => {
                desks.actors.push(answer);
                return Ok(None);
            }
            Notice::Report(answer) => {
                let shard = self.batch.shard();
                let (in_flight, in_flight_bytes, retry_bytes) = (shard.in_flight(), shard.in_flight_bytes(), shard.retry_bytes());
                let (core, store) = (shard.counters(), self.store.stats());
                let _ = answer.send(Report { core, store, in_flight, in_flight_bytes, retry_bytes, waiting });
                return Ok(None);
            }
            Notice::Stop(answer) => return Err(answer),
        };
        Ok(Some(Input::Event(event)))
    }

    /// Does what a batch has asked for.
    fn act(&mut self, desks: &mut Desks, outputs: Vec<Output>) {
        let mut frames: BTreeMap<NodeId, Vec<Frame>> = BTreeMap::new();
        let mut replies: BTreeMap<u64, Vec<Frame>> = BTreeMap::new();
        let mut heard = Vec::new();
        let layout = self.view.layout_name();
        for output in outputs {
            match output {
                Output::Send(to, envelope) => frames.entry(to).or_default().push(frame(&envelope)),
                Output::Reply(reply_to, mut reply) => {
                    self.name_the_disk(&mut reply);
                    self.observe(desks, reply_to, &reply);
                    let frame = answer(reply_to, layout, desks.start, reply);
                    replies.entry(reply_to.connection).or_default().push(frame);
                }
                Output::Merge(ticket, job) => {
                    desks.merging.insert(ticket, self.clock.now().mono_us);
                    self.desk.merge(ticket, job, self.notices.clone());
                }
                Output::Validate(ticket, job) => self.desk.validate(ticket, job, self.notices.clone()),
                Output::ActorsChecked(_, connection) => heard.push(connection),
                Output::StartRenewed(start) => drop(self.starts.send((self.index, start))),
                Output::Alarm(alarm) => tracing::error!(shard = self.index, "{alarm}"),
                Output::Sync => self.syncs.want(),
                // An old commit is on the disk already; the notice wakes the next batch.
                Output::Again => drop(self.notices.send(Notice::Synced(Ok(CommitSeq::default())))),
                Output::Dropped(count) => {
                    tracing::warn!(shard = self.index, count, "too much waits for the disk: requests will end at their deadlines");
                    self.metrics.sends_dropped.increment(count as u64);
                }
                Output::Failed(why) => {
                    tracing::error!(shard = self.index, why, "the store has failed: the node stops");
                    // The node hears of it once; later words find nobody, which is fine.
                    let _ = self.failures.send(format!("shard {}: {why}", self.index));
                }
            }
        }
        self.send_all(desks, frames, replies);
        // Only now: the objections are queued, and *ready* follows behind them.
        for connection in heard {
            // The links end before the shards do.
            let _ = self.heard.send(connection);
        }
    }

    fn send_all(&self, desks: &mut Desks, frames: BTreeMap<NodeId, Vec<Frame>>, replies: BTreeMap<u64, Vec<Frame>>) {
        for (peer, frames) in frames {
            // Messages to a peer that is gone are lost as on any network, and their deadlines see to the rest.
            if desks.peers.contains_key(&peer) {
                desks.backlogs.entry(peer).or_default().frames.extend(frames);
                self.send_backlog(desks, peer);
            }
        }
        for (connection, frames) in replies {
            if let Some(sender) = desks.clients.get(&connection) {
                self.send_replies(sender, frames, desks.start);
            }
        }
    }

    /// Queues what there is room for, and asks to be told when there is room for the rest. What is above the bound of a
    /// backlog, to a peer that takes nothing, is lost as on any network.
    fn send_backlog(&self, desks: &mut Desks, peer: NodeId) {
        let (Some(sender), Some(backlog)) = (desks.peers.get(&peer), desks.backlogs.get_mut(&peer)) else { return };
        let too_large = queue(sender, &mut backlog.frames);
        if !too_large.is_empty() {
            tracing::error!(shard = self.index, %peer, messages = too_large.len(), "messages above the largest frame were not sent");
        }
        let dropped = if sender.is_closed() { std::mem::take(&mut backlog.frames).len() } else { backlog.bound(self.backlog_bytes) };
        self.metrics.sends_dropped.increment((too_large.len() + dropped) as u64);
        for frame in &backlog.frames {
            if !std::mem::replace(&mut backlog.awaited[frame.class.index()], true) {
                let (class, sender, notices) = (frame.class, sender.clone(), self.notices.clone());
                tokio::spawn(async move {
                    sender.made_room(class).await;
                    // A shard that has stopped sends nothing more.
                    let _ = notices.send(Notice::Room(peer, class));
                });
            }
        }
    }

    /// A reply that cannot be queued is not dropped in silence: only that of a read is so large, and its client is told
    /// so.
    fn send_replies(&self, sender: &Sender, mut frames: Vec<Frame>, start: StartId) {
        let too_large = queue(sender, &mut frames);
        if frames.is_empty() && too_large.is_empty() {
            return;
        }
        let instead = |frame: &Frame, error: ErrorReply| {
            let reply_to = ReplyTo { connection: 0, request: frame.id };
            answer(reply_to, self.view.layout_name(), start, Reply::Error(error))
        };
        let behind = |frame: Frame| {
            if frame.body.len() <= BULK_BYTES {
                return frame;
            }
            let why = "the replies on this connection are not read as fast as they are asked for";
            instead(&frame, ErrorReply::new(ErrorCode::Overloaded, why).retry_after(BEHIND_RETRY_MS))
        };
        let mut again: Vec<Frame> = frames.into_iter().map(behind).collect();
        let why = "the object with all its siblings is larger than a reply may be";
        again.extend(too_large.iter().map(|frame| instead(frame, ErrorReply::new(ErrorCode::TooLarge, why))));
        queue(sender, &mut again);
        self.metrics.sends_dropped.increment(again.len() as u64);
    }

    /// Says where the disk is that is full, if it is this node's.
    fn name_the_disk(&self, reply: &mut Reply) {
        let Reply::Error(error) = reply else { return };
        let own = format!("the disk of {} ", self.name);
        if error.code == ErrorCode::DiskFull
            && let Some(rest) = error.message.strip_prefix(&own)
        {
            error.message = format!("{own}({}) {rest}", self.data.display());
        }
    }

    fn observe(&self, desks: &mut Desks, reply_to: ReplyTo, reply: &Reply) {
        let Some((begun, is_read)) = desks.begun.remove(&reply_to) else { return };
        let took = seconds(self.clock.now().mono_us.saturating_sub(begun));
        if is_read {
            self.metrics.get_seconds.record(took)
        } else {
            self.metrics.put_seconds.record(took)
        }
        if let Reply::Error(error) = reply {
            tracing::debug!(shard = self.index, code = ?error.code, %error, "request failed");
        }
    }
}

impl Desks {
    /// A client's connection has ended.
    fn forget(&mut self, connection: u64) {
        self.clients.remove(&connection);
        let of_it = ReplyTo { connection, request: 0 }..=ReplyTo { connection, request: u64::MAX };
        let gone: Vec<ReplyTo> = self.begun.range(of_it).map(|(reply_to, _)| *reply_to).collect();
        for reply_to in gone {
            self.begun.remove(&reply_to);
        }
    }
}

/// Queues what there is room for. What is left in `frames` found its queue full or the connection closed; returned are
/// those that are too large for any queue, which must not keep the others back.
fn queue(sender: &Sender, frames: &mut Vec<Frame>) -> Vec<Frame> {
    let mut too_large = Vec::new();
    while let Err(SendError::TooLarge { class, limit, .. }) = sender.try_send_batch(frames) {
        let fits = |frame: &Frame| frame.class != class || u32::try_from(frame.body.len()).is_ok_and(|len| len <= limit);
        let (kept, refused): (Vec<Frame>, Vec<Frame>) = std::mem::take(frames).into_iter().partition(fits);
        *frames = kept;
        too_large.extend(refused);
    }
    too_large
}

fn seconds(micros: u64) -> f64 {
    #[allow(clippy::cast_precision_loss)] // A latency of 285 years would lose a microsecond.
    let micros = micros as f64;
    micros / 1e6
}

/// A message as a frame, in the class that its kind and size call for.
pub(crate) fn frame(envelope: &PeerEnvelope) -> Frame {
    let body = codec::encode(envelope);
    let class = match &envelope.body {
        PeerBody::Module { .. } => Class::Bulk,
        _ if body.len() > BULK_BYTES => Class::Bulk,
        PeerBody::Observed { .. } | PeerBody::CatalogSummary(_) | PeerBody::CatalogRecords { .. } | PeerBody::CatalogTaken { .. } => {
            Class::Control
        }
        _ => Class::Request,
    };
    Frame { class, id: 1, body: body.into() }
}

/// A reply as a frame, under the id of its request.
pub(crate) fn answer(reply_to: ReplyTo, layout: LayoutRef, start: StartId, reply: Reply) -> Frame {
    let body = codec::encode(&Answer { layout, start, reply });
    Frame { class: Class::Request, id: reply_to.request, body: body.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_inbox_has_room_for_so_many_bytes_and_for_a_larger_frame_alone() {
        let ((inbox, _works), (notices, _told)) = (mpsc::channel(8), mpsc::unbounded_channel());
        let shard = ShardHandle { inbox, notices, room: Arc::new(Semaphore::new(1000)), room_bytes: 1000 };
        let first = shard.try_room(600).expect("room");
        assert!(shard.try_room(401).is_none(), "there is no room for so many more");
        let second = shard.try_room(400).expect("just enough");
        drop((first, second));
        let large = shard.try_room(usize::MAX).expect("alone it is taken");
        assert!(shard.try_room(0).is_none(), "what is empty takes a byte");
        // A peer's message waits for room, and its connection is not read meanwhile.
        let waiting = shard.room(1);
        tokio::pin!(waiting);
        tokio::select! { biased;
            _ = &mut waiting => panic!("there was no room"),
            () = std::future::ready(()) => {}
        }
        drop(large);
        assert!(waiting.await.is_some());
    }
}
