//! A shard: the state machine for the partitions of one arc of the ring on one node.
//!
//! It owns the operations under way, the actors of its partitions, the retry rows, and what it has seen of other nodes'
//! actors. [`Shard::handle`] is a function of the time, an event and the store, and returns effects. It never blocks,
//! reads no clock and draws from the generator that it was given, so the same events give the same effects.
//!
//! In reading order: [`event`], `op` (an operation), `ops` (all of them), `turn` (one call), `room` (what they may
//! hold), `copy` (objects in the store), `replica` (`absorb`, and the answers to coordinators), `forward`, `read`,
//! `asking` (whom a read asks), `validate`, `write`, `busy` (nodes that take a write later), `operations` (of data
//! types), `contacts` (whom to ask first) and `read_times` (how long peers take), `trees` (upkeep of the hash trees),
//! `exchange`, `walking`, `naming` and `serving` (walks, of this node and others), `pacing` (what they may do beside
//! requests), `gaps` (what this replica lacks), `folding` (objects that meet in them), `receipts` and `undoing` (of
//! folds), `recorded` (siblings for a check of laws), `views` (what owners make of equal objects), [`handoff`] (nodes
//! that stand in for owners), `layouts` (changes of layouts), `stale` (requests that a change overtakes), `split` (of
//! partitions).

mod asking;
mod busy;
mod contacts;
mod copy;
mod counters;
pub mod event;
mod exchange;
mod folding;
mod forward;
mod gaps;
pub mod handoff;
mod jobs;
mod layouts;
mod looking;
mod naming;
mod op;
mod operations;
mod ops;
mod pacing;
mod peers;
mod quotas;
mod read;
mod read_times;
mod reaping;
mod receipts;
pub mod recorded;
mod replica;
mod room;
mod serving;
mod split;
mod stale;
mod trees;
mod turn;
mod undo_read;
mod undoing;
mod validate;
mod views;
mod walking;
mod write;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;

use busy::Again;
use bytes::Bytes;
use contacts::Contacts;
use event::{Effect, Event, Now};
use folding::ExchangeFold;
use handoff::HandoffLimits;
use handoff::drain::Drain;
use handoff::holdings::Holdings;
use layouts::RingSteps;
use op::{Claim, CopyAnswer, Op, Origin, SameAnswer, Step, Work};
use ops::Ops;
use peers::PeerConnections;
use rand_core::Rng;
use reaping::REAP_PAUSE_US;
use split::Grid;
use turn::Turn;
use views::Views;

pub use asking::ReadLimits;
pub use counters::Counters;
pub use ops::MAX_IN_FLIGHT;
pub use receipts::ReceiptsWanted;

use rejoin_proto::client::{Reply, StartId};
use rejoin_proto::context::ContextKey;
use rejoin_proto::peer::{Absorbed, ActorNext, DataRequest, OpId, PeerBody, PeerEnvelope};
use rejoin_proto::{BucketId, Dot, ErrorCode, ErrorReply, Hlc, NodeId, PartitionId, TenantId};

use crate::Prng;
use crate::exchange::gaps::Gaps;
use crate::exchange::hash::CausalKey;
use crate::exchange::pace::Kind;
use crate::exchange::state::{Exchanges, Held, HeldBody};
use crate::exchange::{ExchangeConfig, Trees};
use crate::members::Liveness;
use crate::port::{Change, Store, StoreFault};
use crate::quota::Reached;
use crate::receipts::Receipts;
use crate::retries::Retries;
use crate::tenure::{Observed, Tenures};
use crate::view::ClusterView;

pub use crate::receipts::ReceiptSums;

/// The pause between two writes of lazily durable rows, in microseconds.
const UPKEEP_US: u64 = 1_000_000;
/// The configuration of a shard.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node.
    pub node: NodeId,
    /// Which of the node's shards it is.
    pub shard: u16,
    /// How many shards the node has.
    pub shards: u16,
    /// The key that seals contexts.
    pub contexts: ContextKey,
    /// The key of causal hashes.
    pub causal_key: CausalKey,
    /// How far clocks may differ, in milliseconds.
    pub max_skew_ms: u64,
    /// The time for which a retry is recognised, in milliseconds.
    pub retry_window_ms: u64,
    /// The limit of retry rows, in bytes: in memory, and in each segment of the journal.
    pub max_retry_bytes: usize,
    /// The limit of the receipts of folds, in bytes. Those that would go next make room for another one.
    pub max_receipt_bytes: u64,
    /// The limit of requests under way, at most [`MAX_IN_FLIGHT`]. Any more are answered *overloaded*.
    pub max_ops: usize,
    /// The limit of bytes that requests under way hold: values to be written, and copies that were read. A request that
    /// would exceed it is answered *overloaded*, unless it is alone.
    pub max_op_bytes: usize,
    /// Whether data may be gone (lost, or unsynced when the machine went down): then no actor of the last run goes on.
    pub lost: bool,
    /// How it exchanges with other owners.
    pub exchange: ExchangeConfig,
    /// Whether the store has found at its start that rows are lost. Then the hash trees are counted anew.
    pub rows_lost: bool,
    /// Whether the data directory was replaced by an empty one. Its copies do not count in reads until they are
    /// rebuilt.
    pub replaced: bool,
    /// Limits of the walk that empties a fallback.
    pub handoff: HandoffLimits,
    /// Whom reads ask, and when.
    pub reads: ReadLimits,
}

/// How long a client should wait when there is no room for its request, in milliseconds.
const BUSY_RETRY_MS: u32 = 50;

/// Whose request it is and how long it may take.
struct Admission {
    origin: Origin,
    tenant: TenantId,
    trace: u64,
    begun_us: u64,
    deadline_us: u64,
}

/// One shard of one node.
#[derive(Debug)]
pub struct Shard {
    config: Config,
    rng: Prng,
    view: Arc<ClusterView>,
    connections: PeerConnections,
    contacts: Contacts,
    serving: bool,
    /// See [`Event::Full`].
    full: BTreeMap<BucketId, Reached>,
    /// The node's start id; `None` until the shell has told it after a change of this shard's.
    start: Option<StartId>,
    tenures: Tenures,
    observed: Observed,
    retries: Retries,
    receipts: Receipts,
    /// As of the last upkeep; `None` until there was one.
    steady: Option<receipts::SteadyClock>,
    trees: Trees,
    gaps: Gaps,
    /// Whether this run has found out that its disk is an old one.
    disk_is_old: bool,
    exchanges: Exchanges,
    /// Merges for exchanges, by ticket.
    folds: BTreeMap<u64, ExchangeFold>,
    views: Views,
    /// The number of the next scan.
    next_scan: u64,
    clock: Hlc,
    /// Milliseconds to add to the wall clock, and when that became known.
    correction: Option<(i64, Now)>,
    ops: Ops<Op>,
    /// The bytes that they hold.
    op_bytes: usize,
    /// The operation of each write, so that a retry finds the attempt under way.
    writing: BTreeMap<Claim, u64>,
    /// The operations on each object that wait for their plugin, in the order in which they came. The first one runs.
    applying: BTreeMap<Bytes, VecDeque<u64>>,
    /// Writes that are sent again to nodes that were busy.
    again: Again,
    /// Answered reads that wait for late owners, to repair them. They do not count as requests under way.
    lingering: BTreeSet<u64>,
    /// Store keys whose copy was damaged when it was last asked for.
    unreadable: BTreeSet<Bytes>,
    /// Per partition, the write number of the store up to which losses have ended the tenure.
    lost_upto: BTreeMap<PartitionId, u64>,
    holdings: Holdings,
    grid: Grid,
    drain: Drain,
    ring: RingSteps,
    /// When a write may have waited long enough for a node to ask a fallback too, in microseconds.
    next_relief_us: u64,
    next_upkeep_us: u64,
    next_expiry_us: u64,
    counters: Counters,
}

impl Shard {
    /// Opens a shard on what the store kept.
    ///
    /// # Errors
    /// A fault of the store. The node must not start then.
    pub fn open(
        config: Config,
        view: Arc<ClusterView>,
        mut rng: Prng,
        store: &mut dyn Store,
    ) -> Result<Self, StoreFault> {
        let observed = Observed::open(store)?;
        // Rule: observed ends a tenure. A counter of an own actor is noted only after its tenure has ended.
        let ended = |partition, actor| observed.knows(partition, actor);
        // Rule: loss ends tenures.
        let tenures = Tenures::open(store, ended, config.lost, &mut rng)?;
        // Rule: retries outlive restarts. The rows of the last run are the table of this one.
        let retries = Retries::open(store, config.max_retry_bytes, config.retry_window_ms)?;
        let trees = Trees::open(store, config.causal_key.clone(), view.partitions(), config.rows_lost)?;
        let receipts = Receipts::open(store, config.max_receipt_bytes, config.rows_lost || trees.has_lost())?;
        let gaps = Gaps::open(store)?;
        let exchanges = Exchanges::new(config.exchange, rng.next_u64() >> 34);
        let holdings = Holdings::open(store)?;
        let grid = Grid::open(store, view.partition_bits())?;
        // Rule: runs number apart. An answer to a request of the last run may still arrive, delayed by a slow disk.
        let first_number = rng.next_u64() >> 17;
        let mut shard = Self {
            config,
            rng,
            view,
            connections: PeerConnections::default(),
            contacts: Contacts::default(),
            serving: false,
            full: BTreeMap::new(),
            start: None,
            tenures,
            observed,
            retries,
            receipts,
            steady: None,
            trees,
            gaps,
            disk_is_old: false,
            exchanges,
            folds: BTreeMap::new(),
            views: Views::default(),
            next_scan: 0,
            clock: Hlc::default(),
            correction: None,
            ops: Ops::new(first_number),
            op_bytes: 0,
            writing: BTreeMap::new(),
            applying: BTreeMap::new(),
            again: Again::default(),
            lingering: BTreeSet::new(),
            unreadable: BTreeSet::new(),
            lost_upto: BTreeMap::new(),
            holdings,
            grid,
            drain: Drain::default(),
            ring: RingSteps::default(),
            next_relief_us: u64::MAX,
            next_upkeep_us: 0,
            next_expiry_us: 0,
            counters: Counters::default(),
        };
        shard.split_at_open();
        // Rule: losses begin gaps.
        let has_lost = shard.config.rows_lost || shard.trees.has_lost();
        let is_new = shard.config.replaced && shard.gaps.note_replaced();
        if has_lost || is_new {
            shard.begin_gaps(0);
        }
        shard.open_ring();
        shard.settle_at_open(store)?;
        Ok(shard)
    }

    /// Writes the ends that a start owes. A full disk must not keep the shard from serving reads.
    fn settle_at_open(&mut self, store: &mut dyn Store) -> Result<(), StoreFault> {
        let change = self.owed();
        if change.rows.is_empty() {
            return Ok(());
        }
        match store.write(change) {
            Ok(()) => {
                self.owes_nothing();
                Ok(())
            }
            // Rule: ends are owed.
            Err(StoreFault::Full | StoreFault::Busy) => Ok(()),
            Err(fault) => Err(fault),
        }
    }

    /// The ring has 2^this partitions, as far as the shard has heard.
    #[must_use]
    pub fn partition_bits(&self) -> u8 {
        self.view.partition_bits()
    }

    /// The actors that the node's handshakes announce for this shard.
    #[must_use]
    pub fn actors(&self) -> Vec<ActorNext> {
        self.tenures.announce_all()
    }

    /// The shard's start id: a retry is recognised only while it has not changed.
    #[must_use]
    pub fn start(&self) -> u64 {
        self.tenures.start()
    }

    /// Counts since it was opened.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The number of requests under way.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.ops.len()
    }

    /// The bytes that the requests under way hold.
    #[must_use]
    pub fn in_flight_bytes(&self) -> usize {
        self.op_bytes
    }

    /// The bytes that the retry rows take.
    #[must_use]
    pub fn retry_bytes(&self) -> usize {
        self.retries.bytes()
    }

    /// How many partitions this node holds objects of without owning them.
    #[must_use]
    pub fn holdings(&self) -> usize {
        self.holdings.count()
    }

    /// When an [`Event::Tick`] is due, in microseconds of [`Now::mono_us`].
    #[must_use]
    pub fn next_wake_us(&self) -> u64 {
        let own =
            self.next_upkeep_us.min(self.next_expiry_us).min(self.next_report_us()).min(self.trees.next_scan_us());
        let own = own.min(self.next_exchange_us()).min(self.next_view_us());
        let own = own.min(self.next_drain_us()).min(self.next_relief_us).min(self.next_again_us());
        own.min(self.ops.next_deadline_us())
    }

    /// Whether the end of a tenure, or that of void hash trees, is owed, because the store was full or busy. Until then
    /// a start must be told again that data may be gone.
    #[must_use]
    pub fn owes_ends(&self) -> bool {
        self.tenures.owes() || self.trees.owes() || self.gaps.owes() || self.grid.owes() || self.holdings.owes()
    }

    /// Whether a request to a peer is not answered yet.
    #[must_use]
    pub fn waits_for(&self, peer: NodeId) -> bool {
        self.ops.values().any(|op| op.waits_for(peer))
    }

    /// Handles one event. Effects are added to `effects` in the order in which they are to happen.
    pub fn handle(&mut self, now: Now, event: Event, store: &mut dyn Store, effects: &mut Vec<Effect>) {
        let mut turn = Turn { now: self.corrected(now), store, effects };
        self.gaps.date_loss(turn.now.wall_ms);
        match event {
            Event::View(view) => {
                let before = self.view.clone();
                self.take_view(&mut turn, view);
                self.ring_changed(&mut turn, &before);
            }
            Event::Full(full) => self.full = full,
            Event::Serving { met_all } => self.serve(&mut turn, met_all),
            Event::CorrectClock(ms) => self.correction = (ms != 0).then_some((ms, now)),
            Event::Replaced => {
                if self.gaps.note_replaced() {
                    self.begin_gaps(now.mono_us);
                    self.write_tenure_ends(&mut turn);
                }
            }
            Event::Start(start) => self.start = Some(start),
            Event::PeerUp(peer) => {
                self.connections.add(peer);
                self.exchange_with(peer, now.mono_us);
                self.tell_holdings(&mut turn, peer);
            }
            Event::PeerActors(peer, actors) => self.peer_actors(&mut turn, peer, &actors),
            Event::PeerDown(peer) => self.peer_down(&mut turn, peer),
            Event::PeerLeaving(peer) => self.connections.leaving(peer),
            Event::NotSent(peer, body) => self.not_sent(&mut turn, peer, &body),
            Event::Liveness(peer, liveness) => {
                self.contacts.set(peer, liveness);
                match liveness {
                    Liveness::Down => self.peer_is_silent(&mut turn, peer),
                    // What waits for it may have waited long enough by now.
                    Liveness::Suspect => self.next_relief_us = 0,
                    Liveness::Alive => {}
                }
            }
            Event::Client(client) => {
                let (origin, deadline_us) = (Origin::Client(client.reply_to), client.deadline_us);
                let begun_us = client.arrived_us.min(now.mono_us);
                let of = Admission { origin, tenant: client.tenant, trace: client.trace, begun_us, deadline_us };
                self.admit(&mut turn, of, client.request);
            }
            Event::Peer(from, envelope) => self.peer_message(&mut turn, from, envelope),
            Event::Settled(receipts) => self.settle_retries(&turn, receipts),
            Event::Merged(ticket, result) => {
                self.counters.merge_faults += u64::from(result.is_err());
                if self.views.waits_for_merge(ticket) {
                    return self.view_merged(&mut turn, ticket, result);
                }
                if let Some(fold) = self.folds.remove(&ticket.0) {
                    return self.exchange_merged(&mut turn, fold, result);
                }
                self.with_op(&mut turn, ticket.0, |shard, turn, op| shard.merged(turn, op, result));
            }
            Event::Validated(ticket, result) => {
                self.with_op(&mut turn, ticket.op, |shard, turn, op| shard.validated(turn, op, ticket.run, result));
            }
            Event::Applied(ticket, result) => {
                self.with_op(&mut turn, ticket.op, |shard, turn, op| shard.applied(turn, op, ticket.run, result));
            }
            Event::Durable(ticket) => self.disk_waited_for(&mut turn, ticket, true),
            Event::NotDurable(ticket) => self.disk_waited_for(&mut turn, ticket, false),
            Event::Exchange(command) => self.command_exchange(command),
            Event::Scanned(ticket, result) if self.drain.waits_for_scan(ticket) => {
                self.drain_scanned(&mut turn, result);
            }
            Event::Scanned(ticket, scanned) => self.scanned(&mut turn, ticket, scanned),
            Event::Tick => self.tick(&mut turn),
        }
    }

    /// The time by the clocks of most nodes, if this node's wall clock is known to be wrong. A wrong clock would hide
    /// and drop values before their time to live is over, and stamp values with a time far ahead. Once the wall clock
    /// has been set, which shows against the monotonic clock, the correction is void.
    fn corrected(&mut self, now: Now) -> Now {
        let Some((ms, since)) = self.correction else { return now };
        let expected_ms = since.wall_ms.saturating_add(now.mono_us.saturating_sub(since.mono_us) / 1000);
        if now.wall_ms.abs_diff(expected_ms) > self.config.max_skew_ms {
            self.correction = None;
            return now;
        }
        Now { wall_ms: now.wall_ms.saturating_add_signed(ms), ..now }
    }

    fn serve(&mut self, turn: &mut Turn<'_>, met_all: bool) {
        // Rule: unmet peers end tenures.
        if !met_all {
            self.end_all_tenures(
                turn,
                "not every peer could be asked whether it has seen later writes of the old ones",
            );
        }
        self.serving = true;
        // Rule: starts mark holdings.
        self.hold_all_unowned(turn);
    }

    /// Objects to the announced actors that this node has seen later writes of: the peer's disk is an old one.
    fn peer_actors(&mut self, turn: &mut Turn<'_>, peer: NodeId, actors: &[ActorNext]) {
        for actor in actors {
            // Rule: peers object.
            if let Some(counter) = self.observed.outruns(actor) {
                self.send(turn, peer, 0, PeerBody::Observed { actor: *actor, counter });
            }
        }
        self.observed.announced(peer, actors);
    }

    fn peer_down(&mut self, turn: &mut Turn<'_>, peer: NodeId) {
        self.connections.lost(peer);
        self.exchange_lost(peer);
        self.contacts.lost(peer);
        self.drain.lost(peer);
        for number in self.ops.which(|op| op.waits_for(peer)) {
            self.with_op(turn, number, |shard, turn, op| shard.node_failed(turn, op, peer, "the connection was lost"));
        }
    }

    fn peer_message(&mut self, turn: &mut Turn<'_>, from: NodeId, envelope: PeerEnvelope) {
        let trace = envelope.trace;
        self.note_peer_message(turn, &envelope.body);
        self.heard(turn, from, &envelope.body);
        match envelope.body {
            PeerBody::Forward(forward) => {
                let deadline_us = turn.now.mono_us.saturating_add(u64::from(forward.deadline_ms) * 1000);
                let (origin, begun_us) = (Origin::Peer { node: from, op: forward.op }, turn.now.mono_us);
                let of = Admission { origin, tenant: forward.tenant, trace, begun_us, deadline_us };
                self.admit(turn, of, forward.request);
            }
            PeerBody::ForwardReply { op, reply } => {
                self.with_op(turn, op.number, |shard, turn, op| shard.forward_answered(turn, op, from, reply));
            }
            PeerBody::Read { op, object, as_fallback, digest } => {
                self.serve_read(turn, (from, trace, envelope.layout), (op, &object), (as_fallback, digest))
            }
            PeerBody::ReadReply { op, epoch, copy, complete } => {
                let answer = CopyAnswer { from, epoch, copy, complete };
                let by = envelope.layout;
                self.with_op(turn, op.number, |shard, turn, op| shard.read_replied(turn, op, answer, by));
            }
            PeerBody::ReadSame { op, epoch, digest, complete } => {
                let answer = SameAnswer { from, epoch, digest, complete };
                self.with_op(turn, op.number, |shard, turn, op| shard.read_same(turn, op, answer));
            }
            PeerBody::Replicate(message) => self.serve_replicate(turn, (from, trace, envelope.layout), message),
            PeerBody::Replicated { op, layout, bucket_version, outcome, held } => {
                let absorbed = outcome.as_ref().map(|_| ()).map_err(|code| *code);
                if self.held_absorbed(from, op.number, (layout, bucket_version), absorbed) {
                    return;
                }
                if let (Some(version), Some(op)) = (held, self.ops.get(op.number)) {
                    let partition = op.target.partition;
                    self.learn_holder(turn, partition, from, version);
                }
                self.with_op(turn, op.number, |shard, turn, op| match outcome {
                    Ok(Absorbed::Stored) => shard.write_acked(turn, op, from),
                    Ok(Absorbed::Superseded(seen)) => shard.write_superseded(turn, op, from, &seen),
                    // Rule: refusals do not count.
                    Err(code) => shard.write_refused(turn, op, (from, layout), code),
                })
            }
            PeerBody::Observed { actor, counter } => self.objected(turn, actor, counter),
            PeerBody::ExchangeAsk(asked) => {
                let held = Held::new(from, (envelope.layout, trace), HeldBody::Exchange(asked));
                self.asked_by_peer(turn, held);
            }
            PeerBody::ExchangeAnswer(answer) => self.exchange_answered(turn, from, answer),
            PeerBody::Holdings { partition_bits, partition, holders } => {
                self.holdings_told_of(turn, from, (partition_bits, partition), holders)
            }
            PeerBody::Offer(offer) => {
                let held = Held::new(from, (envelope.layout, trace), HeldBody::Offer(offer));
                self.asked_by_peer(turn, held);
            }
            PeerBody::OfferReply { op, layout, bucket_version, answers } => {
                self.offer_answered(turn, from, op.number, (layout, bucket_version), &answers);
            }
            PeerBody::ViewAsk(ask) => self.serve_view(turn, from, trace, ask),
            PeerBody::ViewAnswer { op, view } => self.view_answered(turn, from, op, view),
            // The catalog, the ring, modules and sizes are other machines' and the shell's.
            PeerBody::CatalogSummary(_)
            | PeerBody::CatalogRecords { .. }
            | PeerBody::CatalogTaken { .. }
            | PeerBody::Ring(_)
            | PeerBody::ModuleWanted(_)
            | PeerBody::Module { .. }
            | PeerBody::PluginAsk { .. }
            | PeerBody::PluginAnswer { .. }
            | PeerBody::SizesWanted(_)
            | PeerBody::Sizes { .. } => {}
        }
    }

    /// A peer has seen a counter of an actor that this node had announced with a lower one. That may be news of a write
    /// which was made after the announcement: what counts is whether the actor has used the counter by now.
    fn objected(&mut self, turn: &mut Turn<'_>, announced: ActorNext, counter: u64) {
        let actor = announced.actor;
        let seen = [Dot { actor, counter }].into_iter().collect();
        // Rule: objections find their actor. Its partition may have been split since it was announced.
        for partition in self.tenures.partitions_of(actor) {
            // Rule: objections are judged now.
            let outrun = self.tenures.is_outrun(partition, &seen);
            // Rule: objections end a tenure.
            if outrun {
                let why = "a peer has seen later writes of the old one: this is an old or cloned disk";
                self.end_outrun(turn, partition, &seen, why);
            }
        }
    }

    /// Admits a request, or answers it at once if it cannot be served: starts it here, or forwards it to an owner.
    fn admit(&mut self, turn: &mut Turn<'_>, of: Admission, request: DataRequest) {
        let Admission { origin, tenant, trace, begun_us, deadline_us } = of;
        let refused = |error| Reply::Error(error);
        if turn.now.mono_us >= deadline_us {
            let error = ErrorReply::new(
                ErrorCode::TimedOut,
                "the deadline had passed before the request was begun; nothing was done",
            );
            return self.reply_to(turn, origin, trace, refused(error));
        }
        self.bound_lingering(turn);
        let bytes = room::of_request(&request);
        let many = self.ops.len() - self.lingering.len() >= self.config.max_ops || self.ops.is_full();
        // Rule: writes wait for serving.
        if !self.serving || many || !self.has_room_for(turn, bytes) {
            self.counters.overloaded += 1;
            let (code, why) = match (self.serving, many) {
                (false, _) => (ErrorCode::NotServing, "the node is starting; nothing was done"),
                (true, true) => (ErrorCode::Overloaded, "too many requests are under way; nothing was done"),
                (true, false) => {
                    (ErrorCode::Overloaded, "the requests under way hold too many bytes; nothing was done")
                }
            };
            let error = ErrorReply::new(code, why).retry_after(BUSY_RETRY_MS);
            return self.reply_to(turn, origin, trace, refused(error));
        }
        let (bucket, key) = request.bucket_and_key();
        let target = match self.view.target(tenant, bucket, key) {
            Ok(target) => target,
            Err(error) => return self.reply_to(turn, origin, trace, refused(error)),
        };
        let id = OpId { shard: self.config.shard, number: self.ops.begin() };
        let origins = smallvec::smallvec![origin];
        let asked_us = turn.now.mono_us;
        let kind = if matches!(request, DataRequest::Get(_)) { Kind::Read } else { Kind::Write };
        let op = Box::new(Op {
            id,
            origins,
            trace,
            kind,
            begun_us,
            deadline_us,
            asked_us,
            relieved_us: 0,
            target,
            work: Work::Starting,
            claim: None,
            is_stale: false,
            reserved: None,
            bytes: 0,
        });
        self.begin(turn, op, |shard, turn, op| shard.start_request(turn, op, request));
    }

    /// Starts a request here, or forwards it to an owner.
    fn start_request(&mut self, turn: &mut Turn<'_>, op: Box<Op>, request: DataRequest) -> Step {
        let is_owner = op.target.owners.contains(self.config.node);
        let is_clients = op.origins.iter().all(|origin| matches!(origin, Origin::Client(_)));
        let stands_in = !is_owner && is_clients && self.stands_in(&op.target);
        self.counters.stood_in += u64::from(stands_in);
        match (is_owner || stands_in, request) {
            (true, DataRequest::Get(get)) => self.start_get(turn, op, get),
            (true, DataRequest::Put(put)) => self.start_put(turn, op, put),
            (false, request) => self.forward(turn, op, request),
        }
    }

    fn tick(&mut self, turn: &mut Turn<'_>) {
        for number in self.ops.out_of_time(turn.now.mono_us) {
            self.with_op(turn, number, Self::out_of_time);
        }
        self.relieve(turn);
        self.ask_busy(turn);
        if turn.now.mono_us >= self.next_upkeep_us {
            let pause_us = if self.reap_objects(turn) { REAP_PAUSE_US } else { UPKEEP_US };
            self.next_upkeep_us = turn.now.mono_us + pause_us;
            self.notice_losses(turn);
            self.tidy_receipts(turn);
            self.close_lonely_gaps();
            let mut change = Change::default();
            self.observed.flush(&mut change);
            if !change.rows.is_empty() || self.owes_ends() {
                // A full disk must not stop upkeep: what could not be written stays in memory, and is written when
                // there is room.
                if self.write(turn, change).is_ok() {
                    self.observed.flushed();
                }
            }
            self.tidy_trees(turn);
            self.hold_owed(turn);
        }
        if turn.now.mono_us >= self.next_expiry_us {
            self.expire_retries(turn);
        }
        self.count_leaves(turn);
        self.take_ring_steps(turn);
        self.exchange(turn);
        self.compare_views(turn);
        // A catalog without buckets may be one that was replaced too.
        let has_catalog = self.serving && self.view.buckets().next().is_some();
        if has_catalog && self.gaps.is_newly_rebuilt() {
            turn.effects.push(Effect::Rebuilt);
        }
        self.drain(turn);
        self.report(turn);
    }

    /// The epoch of retry rows that are written now.
    fn retry_epoch(&mut self, now: Now) -> u64 {
        // Rule: retries age by running time.
        self.retries.epoch(now.mono_us)
    }

    /// An operation's deadline has come.
    fn out_of_time(&mut self, turn: &mut Turn<'_>, op: Box<Op>) -> Step {
        self.stop_waiting(&op);
        match op.work {
            Work::Starting => Step::Done,
            Work::Forward(_) => self.forward_timed_out(turn, &op),
            Work::Validate(_) => self.validate_timed_out(turn, &op),
            Work::Apply(_) => self.operation_timed_out(turn, &op),
            Work::Read(_) => self.read_timed_out(turn, op),
            Work::Write(_) => self.write_timed_out(turn, &op),
        }
    }

    /// A node that an operation waits for will not answer.
    fn node_failed(&mut self, turn: &mut Turn<'_>, op: Box<Op>, node: NodeId, why: &str) -> Step {
        match op.work {
            Work::Starting => Step::Done,
            Work::Forward(_) => self.forward_failed(turn, op, node, why),
            Work::Validate(_) | Work::Apply(_) => Step::Keep(op),
            Work::Read(_) => self.read_failed(turn, op, node, why),
            Work::Write(_) => self.write_failed(turn, op, node, why),
        }
    }

    /// Runs the first step of an operation. One that goes on is kept until it ends, at its deadline at the latest.
    fn begin(
        &mut self,
        turn: &mut Turn<'_>,
        op: Box<Op>,
        step: impl FnOnce(&mut Self, &mut Turn<'_>, Box<Op>) -> Step,
    ) {
        let number = op.id.number;
        match step(self, turn, op) {
            Step::Keep(op) => {
                if let Some(claim) = op.claim {
                    self.writing.insert(claim, number);
                }
                self.keep(op);
            }
            Step::Done => self.ops.end(number),
        }
    }

    /// Runs a step of the operation with that number, if it has not ended.
    fn with_op(
        &mut self,
        turn: &mut Turn<'_>,
        number: u64,
        step: impl FnOnce(&mut Self, &mut Turn<'_>, Box<Op>) -> Step,
    ) {
        let Some(op) = self.ops.take(number) else { return };
        self.op_bytes -= op.bytes;
        let claim = op.claim;
        match step(self, turn, op) {
            Step::Keep(op) => {
                // One that was forwarded may have become this node's own.
                if let Some(claim) = op.claim.filter(|_| claim.is_none()) {
                    self.writing.insert(claim, number);
                }
                self.keep(op);
            }
            Step::Done => {
                self.ops.end(number);
                self.lingering.remove(&number);
                if let Some(claim) = claim
                    && self.writing.get(&claim) == Some(&number)
                {
                    self.writing.remove(&claim);
                }
                self.no_longer_earlier(turn, number);
            }
        }
    }

    /// Counts the bytes that an operation holds, and puts it with the others.
    fn keep(&mut self, mut op: Box<Op>) {
        op.bytes = op.held_bytes();
        self.op_bytes += op.bytes;
        self.ops.keep(op.id.number, op.deadline_us, op);
    }
}
