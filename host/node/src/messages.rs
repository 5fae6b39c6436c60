//! Messages between the tasks of a node: what is sent to a shard and to the catalog.
//!
//! A shard has five queues. Requests of clients, also those that peers forward, wait in a fair queue between tenants
//! ([`requests`](crate::requests)), which may refuse. Messages of peers have an inbox that is bounded by entries and
//! bytes; a batch takes them ahead of the requests. Large ones have an inbox of their own, and so have bulk messages: a
//! batch takes few of them, behind the requests, which would otherwise wait some hundredths of a second for each of the
//! largest. The fifth queue is unbounded, because these messages must not be lost: results that the shard waits for,
//! and news of peers and of the catalog. Their number is bounded by what the shard has asked for.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use rejoin_core::control::{CatalogChange, Published, Wait};
use rejoin_core::exchange::ExchangeStatus;
use rejoin_core::port::StoreFault;
use rejoin_core::ring::{RingCommand, RingEvent};
use rejoin_core::shard::event::{
    ApplyTicket, ClientRequest, Event, MergeTicket, Merged, PluginError, ScanTicket, ScannedRows, ValidateTicket,
};
use rejoin_core::shard::handoff::Held;
use rejoin_core::shard::{Counters, ReceiptSums, Shard};
use rejoin_core::view::ClusterView;
use rejoin_proto::catalog::Record;
use rejoin_proto::client::{Receipt, RecordKind, StartId};
use rejoin_proto::exchange::Sum;
use rejoin_proto::layout_request::LayoutChanges;
use rejoin_proto::peer::{ActorNext, PeerBody, PeerEnvelope};
use rejoin_proto::{BucketId, ErrorReply, NodeId, PartitionId, PluginDigest, Ring, TenantId};
use rejoin_store::{CommitSeq, ShardStore, Stats};
use rejoin_wire::{Class, Sender};

use crate::metering::InFlight;
use crate::requests::{RequestQueue, UnderWay};
use crate::ring::RingAnswer;

/// An entry of a shard's batch: from its inboxes, or from its queue of requests.
#[allow(clippy::large_enum_variant)] // Most entries are messages of peers, and a box would be allocated for each.
pub(crate) enum InboxItem {
    Client(Box<ClientRequest>, Sender, InFlight, UnderWay),
    Peer(NodeId, PeerEnvelope, InboxPermit),
    /// A request that a peer has forwarded. It has waited among those of its tenant.
    Forwarded(NodeId, Box<PeerEnvelope>, UnderWay),
    /// Receipts for answers that a client has.
    Settled(Vec<Receipt>, UnderWay),
    /// A session has ended.
    SessionClosed(u64),
}

impl InboxItem {
    /// The bytes of the frame that it came in.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Client(_, _, _, under_way) | Self::Settled(_, under_way) | Self::Forwarded(_, _, under_way) => {
                under_way.bytes()
            }
            Self::Peer(_, _, permit) => permit.num_permits(),
            Self::SessionClosed(_) => 0,
        }
    }
}

/// A message in a shard's unbounded queue.
pub(crate) enum ShardMessage {
    /// An event for the core that the driver passes on as it is.
    Core(Box<Event>),
    View(Arc<ClusterView>),
    Start(StartId),
    PeerUp {
        peer: NodeId,
        connection: u64,
        sender: Sender,
        actors: Vec<ActorNext>,
    },
    PeerDown(NodeId),
    /// Asks whether the shard waits for an answer of that peer.
    WaitsFor(NodeId, oneshot::Sender<bool>),
    Merged(MergeTicket, Result<Merged, PluginError>),
    Validated(ValidateTicket, Result<(), PluginError>),
    Applied(ApplyTicket, Result<Bytes, PluginError>),
    Synced(Result<CommitSeq, StoreFault>),
    Scanned(ScanTicket, Result<ScannedRows, StoreFault>),
    /// The send queue of that class to the peer has space again.
    QueueSpace(NodeId, Class),
    /// Asks for the shard's actors, as they are after the next commit, of a ring of 2^this partitions.
    Actors(oneshot::Sender<(u8, Vec<ActorNext>)>),
    Report(oneshot::Sender<ShardReport>),
    /// Asks for the bytes of each partition, of a ring of 2^this many.
    Sizes(oneshot::Sender<(u8, Vec<(PartitionId, u64)>)>),
    /// A plugin breaks laws, with the evidence: the catalog is to quarantine it.
    Quarantine(TenantId, PluginDigest, String),
    Stop(oneshot::Sender<ShardStopped>),
    /// Looks at the shard and its store, as they are after the next commit.
    Inspect(Inspection),
}

/// A look at a shard.
pub(crate) type Inspection = Box<dyn FnOnce(&Shard, &ShardStore) + Send>;

/// The state in which a shard has stopped.
pub(crate) struct ShardStopped {
    /// Ends of tenures could not be written to the store: the next start must end these tenures.
    pub(crate) owes_ends: bool,
    /// The result of closing the store.
    pub(crate) closed: Result<(), String>,
}

/// A shard's figures, for metrics.
pub(crate) struct ShardReport {
    pub(crate) core: Counters,
    pub(crate) store: Stats,
    pub(crate) in_flight: usize,
    pub(crate) in_flight_bytes: usize,
    /// Bytes of the rows that recognise retried writes.
    pub(crate) retry_bytes: usize,
    /// The receipts of folds.
    pub(crate) receipts: ReceiptSums,
    /// What this node holds without owning it.
    pub(crate) held: Held,
    /// Requests of clients and messages of peers in its queues.
    pub(crate) waiting: usize,
    pub(crate) exchange: ExchangeStatus,
    /// What it has of each bucket.
    pub(crate) buckets: BTreeMap<BucketId, Sum>,
}

/// The queues of a shard, for the other tasks of the node.
#[derive(Clone)]
pub(crate) struct ShardHandle {
    /// For requests of clients.
    pub(crate) requests: RequestQueue,
    /// For messages of peers.
    pub(crate) inbox: Inbox,
    /// For large messages of peers.
    pub(crate) large: Inbox,
    /// For bulk messages of peers.
    pub(crate) bulk: Inbox,
    pub(crate) messages: mpsc::UnboundedSender<ShardMessage>,
}

/// A bounded queue of a shard. An item is sent with the bytes that were reserved for it.
#[derive(Clone)]
pub(crate) struct Inbox {
    pub(crate) items: mpsc::Sender<InboxItem>,
    free: Arc<Semaphore>,
    bytes: u32,
}

/// Bytes reserved in an inbox, until the item they are for was handled.
pub(crate) type InboxPermit = OwnedSemaphorePermit;

impl Inbox {
    /// An inbox of so many items and bytes, and where its items come out.
    pub(crate) fn new(items: usize, bytes: u32) -> (Self, mpsc::Receiver<InboxItem>) {
        let free = Arc::new(Semaphore::new(usize::try_from(bytes).unwrap_or(Semaphore::MAX_PERMITS)));
        let (items, received) = mpsc::channel(items);
        (Self { items, free, bytes }, received)
    }

    /// Reserves bytes in the inbox, once they are free. A frame larger than the inbox reserves all of it.
    pub(crate) async fn reserve(&self, bytes: usize) -> Option<InboxPermit> {
        self.free.clone().acquire_many_owned(self.permits(bytes)).await.ok()
    }

    fn permits(&self, bytes: usize) -> u32 {
        u32::try_from(bytes).unwrap_or(u32::MAX).clamp(1, self.bytes)
    }
}

/// A message to the catalog task.
pub(crate) enum CatalogRequest {
    PeerUp { peer: NodeId, connection: u64, digest: u64 },
    PeerReady { peer: NodeId, digest: u64 },
    PeerDown(NodeId),
    Peer(NodeId, PeerBody),
    Change(CatalogChange, Wait, oneshot::Sender<Result<Published, ErrorReply>>),
    List(RecordKind, TenantId, oneshot::Sender<Vec<Record>>),
    Ring(RingRequest),
}

/// A message about the ring.
pub(crate) enum RingRequest {
    /// For the machine, as it is.
    Event(RingEvent),
    /// An operator stages changes.
    Stage(LayoutChanges, RingAnswer),
    /// Another command of an operator.
    Command(RingCommand, RingAnswer),
    Get(oneshot::Sender<Ring>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_inbox_reserves_its_bytes_and_takes_a_larger_frame_when_it_is_empty() {
        let (inbox, _items) = Inbox::new(8, 1000);
        let first = inbox.reserve(600).await.expect("free bytes");
        assert_eq!(inbox.free.available_permits(), 400);
        let second = inbox.reserve(400).await.expect("exactly the free bytes");
        drop((first, second));
        let large = inbox.reserve(usize::MAX).await.expect("it takes the whole inbox");
        // A peer's message waits, even an empty one, and its connection is not read meanwhile.
        let waiting = inbox.reserve(0);
        tokio::pin!(waiting);
        tokio::select! { biased;
            _ = &mut waiting => panic!("no byte was free"),
            () = std::future::ready(()) => {}
        }
        drop(large);
        assert!(waiting.await.is_some());
    }
}
