//! Drives a shard: drains its inbox, handles every event, commits once, then lets the effects go as far as their barriers allow.
//!
//! Nothing of a batch leaves before the batch is written to the journal. Acknowledgements wait for the disk too, which a thread of its own
//! syncs while this one goes on with the next batch.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use rejoin_core::port::StoreFault;
use rejoin_core::shard::event::{Barrier, ClientRequest, DurableTicket, Effect, Event, MergeTicket, Merged, Session};
use rejoin_core::shard::{Counters, Shard};
use rejoin_core::view::ClusterView;
use rejoin_proto::client::{Answer, Reply, StartId};
use rejoin_proto::peer::{ActorNext, DataRequest, PeerBody, PeerEnvelope};
use rejoin_proto::{LayoutRef, NodeId, codec};
use rejoin_store::{CommitSeq, ShardStore, Stats};
use rejoin_wire::{Class, Frame, SendError, Sender};
use tokio::sync::{mpsc, oneshot};

use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::modules::Desk;
use crate::syncing::SyncRequests;

/// The most events that one batch takes from each queue.
const BATCH: usize = 1024;
/// Messages above this many bytes travel with the patient traffic, so that small ones do not wait behind them.
const BULK_BYTES: usize = 64 << 10;

/// What waits before a shard and may be refused when there is too much of it.
pub(crate) enum Work {
    Client(ClientRequest, Sender),
    Peer(NodeId, PeerEnvelope),
}

/// What a shard is always told.
pub(crate) enum Notice {
    View(Arc<ClusterView>),
    Serving,
    Start(StartId),
    PeerUp { peer: NodeId, sender: Sender, actors: Vec<ActorNext>, done: oneshot::Sender<()> },
    PeerDown(NodeId),
    Peer(NodeId, PeerEnvelope),
    Merged(MergeTicket, Result<Merged, String>),
    Synced(Result<CommitSeq, StoreFault>),
    SessionClosed(u64),
    Actors(oneshot::Sender<Vec<ActorNext>>),
    Report(oneshot::Sender<Report>),
    Stop(oneshot::Sender<Result<(), String>>),
}

/// A shard's figures.
pub(crate) struct Report {
    pub(crate) core: Counters,
    pub(crate) store: Stats,
    pub(crate) in_flight: usize,
    pub(crate) waiting: usize,
}

/// How the rest of the node reaches a shard.
#[derive(Clone)]
pub(crate) struct ShardHandle {
    pub(crate) inbox: mpsc::Sender<Work>,
    pub(crate) notices: mpsc::UnboundedSender<Notice>,
}

/// What a driver is made of.
pub(crate) struct Driver {
    pub(crate) index: u16,
    pub(crate) shard: Shard,
    pub(crate) store: ShardStore,
    pub(crate) clock: Clock,
    pub(crate) view: Arc<ClusterView>,
    pub(crate) desk: Desk,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) syncs: SyncRequests,
    pub(crate) notices: mpsc::UnboundedSender<Notice>,
    /// Told when a tenure has ended: (shard, its new start).
    pub(crate) starts: mpsc::UnboundedSender<(u16, u64)>,
    /// Told when the node cannot go on.
    pub(crate) failures: mpsc::UnboundedSender<String>,
}

/// What a running driver keeps beside its parts.
#[derive(Default)]
struct Desks {
    peers: BTreeMap<NodeId, Sender>,
    clients: BTreeMap<u64, Sender>,
    /// When each request came in, in microseconds, and whether it is a read.
    begun: BTreeMap<Session, (u64, bool)>,
    merging: BTreeMap<MergeTicket, u64>,
    /// Effects that wait for the disk, with the commit that must be on it.
    waiting: VecDeque<(CommitSeq, Held)>,
    synced: CommitSeq,
    start: StartId,
}

/// One effect that waits for the disk.
enum Held {
    Send(NodeId, Box<PeerEnvelope>),
    Notice(DurableTicket),
}

impl Driver {
    /// Runs until told to stop, or until the store fails.
    pub(crate) async fn run(mut self, mut inbox: mpsc::Receiver<Work>, mut notices: mpsc::UnboundedReceiver<Notice>) {
        let mut desks = Desks::default();
        let (mut works, mut told) = (Vec::with_capacity(BATCH), Vec::with_capacity(BATCH));
        loop {
            let wake = self.clock.instant(self.shard.next_wake_us());
            tokio::select! {
                biased;
                count = notices.recv_many(&mut told, BATCH) => if count == 0 { return },
                count = inbox.recv_many(&mut works, BATCH) => if count == 0 { return },
                () = tokio::time::sleep_until(wake) => {}
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
                let outcome = self.store.close().map_err(|fault| fault.to_string());
                // Whoever asked may be gone; the store is closed all the same.
                let _ = stop.send(outcome);
                return;
            }
        }
    }

    /// One batch: events, one commit, effects. Returns who wants the shard to stop.
    fn batch(
        &mut self,
        desks: &mut Desks,
        told: &mut Vec<Notice>,
        works: &mut Vec<Work>,
        waiting: usize,
    ) -> Option<oneshot::Sender<Result<(), String>>> {
        let now = self.clock.now();
        let mut effects = Vec::new();
        let mut heard = Vec::new();
        let mut stop = None;
        self.metrics.batch_events.record((told.len() + works.len()) as f64);
        for notice in told.drain(..) {
            match self.event_of(desks, notice, waiting, &mut heard) {
                Ok(Some(event)) => self.shard.handle(now, event, &mut self.store, &mut effects),
                Ok(None) => {}
                Err(stopping) => stop = Some(stopping),
            }
        }
        for work in works.drain(..) {
            let event = match work {
                Work::Client(request, sender) => {
                    let is_read = matches!(request.request, DataRequest::Get(_));
                    desks.begun.insert(request.session, (now.mono_us, is_read));
                    desks.clients.insert(request.session.connection, sender);
                    tracing::debug!(shard = self.index, trace = format_args!("{:016x}", request.trace), "request");
                    Event::Client(request)
                }
                Work::Peer(from, envelope) => {
                    tracing::trace!(shard = self.index, trace = format_args!("{:016x}", envelope.trace), %from, "peer message");
                    Event::Peer(from, envelope)
                }
            };
            self.shard.handle(now, event, &mut self.store, &mut effects);
        }
        while let Some(ticket) = desks.durable() {
            self.shard.handle(now, Event::Durable(ticket), &mut self.store, &mut effects);
        }
        self.shard.handle(now, Event::Tick, &mut self.store, &mut effects);
        match self.store.commit() {
            Ok(seq) => self.release(desks, seq, effects),
            Err(fault) => self.fail(&fault.to_string()),
        }
        for done in heard {
            // Whoever waited may have lost its connection meanwhile.
            let _ = done.send(());
        }
        stop
    }

    /// The event that a notice is for the shard, if it is one. `Err` is the wish to stop.
    fn event_of(
        &mut self,
        desks: &mut Desks,
        notice: Notice,
        waiting: usize,
        heard: &mut Vec<oneshot::Sender<()>>,
    ) -> Result<Option<Event>, oneshot::Sender<Result<(), String>>> {
        Ok(match notice {
            Notice::View(view) => {
                self.view = view.clone();
                Some(Event::View(view))
            }
            Notice::Serving => Some(Event::Serving),
            Notice::Start(start) => {
                desks.start = start;
                Some(Event::Start(start))
            }
            Notice::PeerUp { peer, sender, actors, done } => {
                desks.peers.insert(peer, sender);
                heard.push(done);
                Some(Event::PeerUp(peer, actors))
            }
            Notice::PeerDown(peer) => {
                desks.peers.remove(&peer);
                Some(Event::PeerDown(peer))
            }
            Notice::Peer(from, envelope) => Some(Event::Peer(from, envelope)),
            Notice::Merged(ticket, result) => {
                if let Some(asked) = desks.merging.remove(&ticket) {
                    self.metrics.merge_seconds.record(seconds(self.clock.now().mono_us.saturating_sub(asked)));
                }
                if let Err(why) = &result {
                    tracing::info!(shard = self.index, why, "a merge gave no result; the siblings are kept");
                }
                Some(Event::Merged(ticket, result))
            }
            Notice::Synced(Ok(seq)) => {
                desks.synced = desks.synced.max(seq);
                self.release_held(desks);
                None
            }
            Notice::Synced(Err(fault)) => {
                self.fail(&fault.to_string());
                None
            }
            Notice::SessionClosed(connection) => {
                desks.clients.remove(&connection);
                let of_it = Session { connection, request: 0 }..=Session { connection, request: u64::MAX };
                let gone: Vec<Session> = desks.begun.range(of_it).map(|(session, _)| *session).collect();
                for session in gone {
                    desks.begun.remove(&session);
                }
                None
            }
            Notice::Actors(answer) => {
                // Whoever asked may have given up its handshake.
                let _ = answer.send(self.shard.actors());
                None
            }
            Notice::Report(answer) => {
                let (core, store, in_flight) = (self.shard.counters(), self.store.stats(), self.shard.in_flight());
                let _ = answer.send(Report { core, store, in_flight, waiting });
                None
            }
            Notice::Stop(answer) => return Err(answer),
        })
    }

    /// Lets effects go whose batch is written; those that need the disk wait for it.
    fn release(&mut self, desks: &mut Desks, seq: CommitSeq, effects: Vec<Effect>) {
        let mut frames: BTreeMap<NodeId, Vec<Frame>> = BTreeMap::new();
        let mut replies: BTreeMap<u64, Vec<Frame>> = BTreeMap::new();
        let layout = self.view.layout_name();
        for effect in effects {
            match effect {
                Effect::Send { to, barrier: Barrier::Written, envelope } => frames.entry(to).or_default().push(frame(&envelope)),
                Effect::Send { to, barrier: Barrier::Durable, envelope } if seq <= desks.synced => {
                    frames.entry(to).or_default().push(frame(&envelope));
                }
                Effect::Send { to, barrier: Barrier::Durable, envelope } => {
                    desks.waiting.push_back((seq, Held::Send(to, Box::new(envelope))))
                }
                Effect::WhenDurable(ticket) => desks.waiting.push_back((seq, Held::Notice(ticket))),
                Effect::Reply { session, reply } => {
                    self.observe(desks, session, &reply);
                    let frame = answer(session, layout, desks.start, reply);
                    replies.entry(session.connection).or_default().push(frame);
                }
                Effect::Merge(ticket, job) => {
                    desks.merging.insert(ticket, self.clock.now().mono_us);
                    self.desk.merge(ticket, job, self.notices.clone());
                }
                Effect::StartRenewed(start) => drop(self.starts.send((self.index, start))),
                Effect::Alarm(alarm) => tracing::error!(shard = self.index, "{alarm}"),
                Effect::Fatal(why) => self.fail(&why),
            }
        }
        if desks.waiting.back().is_some_and(|(last, _)| *last > desks.synced) {
            self.syncs.want();
        } else if !desks.waiting.is_empty() {
            // Nothing new was written, so what it waits for is on the disk already.
            drop(self.notices.send(Notice::Synced(Ok(desks.synced))));
        }
        self.send_all(desks, frames, replies);
    }

    /// Lets go what waited for the disk and has it now. Notices become events of the batch in which this is called.
    fn release_held(&mut self, desks: &mut Desks) {
        let mut frames: BTreeMap<NodeId, Vec<Frame>> = BTreeMap::new();
        let mut notices = VecDeque::new();
        while let Some((seq, _)) = desks.waiting.front()
            && *seq <= desks.synced
            && let Some((seq, held)) = desks.waiting.pop_front()
        {
            match held {
                Held::Send(to, envelope) => frames.entry(to).or_default().push(frame(&envelope)),
                Held::Notice(ticket) => notices.push_back((seq, Held::Notice(ticket))),
            }
        }
        // Back to the front: `Desks::durable` takes them within this batch.
        notices.extend(std::mem::take(&mut desks.waiting));
        desks.waiting = notices;
        self.send_all(desks, frames, BTreeMap::new());
    }

    fn send_all(&self, desks: &mut Desks, frames: BTreeMap<NodeId, Vec<Frame>>, replies: BTreeMap<u64, Vec<Frame>>) {
        for (peer, mut frames) in frames {
            // A peer that is gone or not taking anything: its messages are lost as on any network, and their deadlines see to the rest.
            let Some(sender) = desks.peers.get(&peer) else { continue };
            let lost = match sender.try_send_batch(&mut frames) {
                Ok(_) | Err(SendError::Closed) => frames.len(),
                Err(error) => {
                    tracing::error!(shard = self.index, %peer, %error, "messages to a peer were not sent");
                    frames.len()
                }
            };
            self.metrics.sends_dropped.increment(lost as u64);
        }
        for (connection, mut frames) in replies {
            let Some(sender) = desks.clients.get(&connection) else { continue };
            if let Err(error @ SendError::TooLarge { .. }) = sender.try_send_batch(&mut frames) {
                tracing::error!(shard = self.index, %error, "a reply was not sent");
            }
            self.metrics.sends_dropped.increment(frames.len() as u64);
        }
    }

    fn observe(&self, desks: &mut Desks, session: Session, reply: &Reply) {
        let Some((begun, is_read)) = desks.begun.remove(&session) else { return };
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

    fn fail(&self, why: &str) {
        tracing::error!(shard = self.index, why, "the store has failed: the node stops");
        // The node hears of it once; later words find nobody, which is fine.
        let _ = self.failures.send(format!("shard {}: {why}", self.index));
    }
}

impl Desks {
    /// The next request whose own write is on the disk.
    fn durable(&mut self) -> Option<DurableTicket> {
        match self.waiting.front() {
            Some((seq, Held::Notice(ticket))) if *seq <= self.synced => {
                let ticket = *ticket;
                self.waiting.pop_front();
                Some(ticket)
            }
            _ => None,
        }
    }
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
        PeerBody::Observed { .. } | PeerBody::CatalogSummary(_) | PeerBody::CatalogRecords { .. } | PeerBody::CatalogTaken { .. } => {
            Class::Control
        }
        PeerBody::Module { .. } => Class::Bulk,
        _ if body.len() > BULK_BYTES => Class::Bulk,
        _ => Class::Request,
    };
    Frame { class, id: 1, body: body.into() }
}

/// A reply as a frame, under the id of its request.
pub(crate) fn answer(session: Session, layout: LayoutRef, start: StartId, reply: Reply) -> Frame {
    let body = codec::encode(&Answer { layout, start, reply });
    Frame { class: Class::Request, id: session.request, body: body.into() }
}
