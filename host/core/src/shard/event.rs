//! The events that a shard handles, and the effects that it asks for.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;

use rejoin_proto::client::{Receipt, Reply, Show, Sibling, StartId};
use rejoin_proto::fault::{MergeFault, QueueOf};
use rejoin_proto::peer::{ActorNext, DataRequest, PeerBody, PeerEnvelope};
use rejoin_proto::{BucketId, Dot, LayoutRef, Name, NodeId, ObjectId, PartitionId, PluginDigest, ProfileId, TenantId};

use crate::exchange::ExchangeCommand;
use crate::members::{Liveness, Requests};
use crate::port::StoreFault;
use crate::quota::Reached;
use crate::view::ClusterView;

/// The time, as the shell reads it once per batch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub struct Now {
    /// Microseconds of a clock that never goes back, for deadlines.
    pub mono_us: u64,
    /// Milliseconds since 1970, for stamps and times to live. It may jump.
    pub wall_ms: u64,
}

/// Where a reply to a client goes. The shell makes it and gets it back with the reply.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ReplyTo {
    /// The client's connection.
    pub connection: u64,
    /// The number of the request on that connection.
    pub request: u64,
}

/// Something that has happened, for a shard to handle.
#[derive(Clone, Debug)]
pub enum Event {
    /// Layout or catalog have changed.
    View(Arc<ClusterView>),
    /// These buckets have as much as their quota, or their tenant's, allows; no others have.
    Full(BTreeMap<BucketId, Reached>),
    /// Requests are taken from now on. Unless every peer could object to this node's actors, their tenures end first.
    Serving {
        /// Whether every peer could object.
        met_all: bool,
    },
    /// The node's data directory was replaced by an empty one. The copies of this replica do not count in reads until
    /// they are rebuilt.
    Replaced,
    /// The node's start id, made of those of all shards.
    Start(StartId),
    /// A peer is connected, and can be asked.
    PeerUp(NodeId),
    /// A peer has announced its actors in this shard's partitions. The shard objects to those that it has seen later
    /// writes of.
    PeerActors(NodeId, Vec<ActorNext>),
    /// The connection to a peer is lost. Requests to it will not be answered.
    PeerDown(NodeId),
    /// A peer is about to stop. It is asked nothing more; requests under way may still be answered.
    PeerLeaving(NodeId),
    /// This node's wall clock is wrong, by the clocks of most nodes: so many milliseconds are to be added to it. 0: it
    /// is good.
    CorrectClock(i64),
    /// A message of this shard to a peer was not sent, because its queue is full, it is too large, or too much waits
    /// for the disk.
    NotSent(NodeId, Box<PeerBody>),
    /// A peer answers, or it does not: those that do not are asked last.
    Liveness(NodeId, Liveness),
    /// A client's request.
    Client(ClientRequest),
    /// A message of another node.
    Peer(NodeId, PeerEnvelope),
    /// The result of an [`Effect::Merge`].
    Merged(MergeTicket, Result<Merged, PluginError>),
    /// The result of an [`Effect::Validate`].
    Validated(ValidateTicket, Result<(), PluginError>),
    /// The result of an [`Effect::Apply`]: the new value.
    Applied(ApplyTicket, Result<Bytes, PluginError>),
    /// The answer to [`Effect::WhenDurable`]: its batch is on the disk.
    Durable(DurableTicket),
    /// The other answer to [`Effect::WhenDurable`]: too much waits for the disk, so nobody will say when the batch is
    /// there.
    NotDurable(DurableTicket),
    /// The result of an [`Effect::Scan`]. After a fault nothing is known of the range; [`StoreFault::Busy`] is to be
    /// tried again.
    Scanned(ScanTicket, Result<ScannedRows, StoreFault>),
    /// A client has the answers to these writes, and will not retry them.
    Settled(Vec<Receipt>),
    /// What an operator wants of the exchanges.
    Exchange(ExchangeCommand),
    /// Time has passed; due at [`crate::shard::Shard::next_wake_us`].
    Tick,
}

/// A client's request.
#[derive(Clone, Debug)]
pub struct ClientRequest {
    /// Where the reply goes.
    pub reply_to: ReplyTo,
    /// The tenant of the client's token.
    pub tenant: TenantId,
    /// The layout by which it was routed. Not looked at yet: there is one layout.
    pub layout: LayoutRef,
    /// Follows the request through every node.
    pub trace: u64,
    /// When it arrived, in microseconds of [`Now::mono_us`]: it may have waited in a queue since.
    pub arrived_us: u64,
    /// The deadline, in microseconds of [`Now::mono_us`].
    pub deadline_us: u64,
    /// The request itself.
    pub request: DataRequest,
}

/// Matches a merge's result to its request.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct MergeTicket(pub(crate) u64);

/// Matches a validation's result to its write, and to the value and the version of the plugin that validates.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ValidateTicket {
    pub(crate) op: u64,
    pub(crate) run: u16,
}

/// Matches an operation's result to its request, and to the run of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ApplyTicket {
    pub(crate) op: u64,
    pub(crate) run: u8,
}

/// Matches a durability notice to its request.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct DurableTicket(pub(crate) u64);

/// A merge for a plugin to run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MergeJob {
    /// The component.
    pub plugin: PluginDigest,
    /// The bucket. Each bucket has its share of the threads.
    pub bucket: BucketId,
    /// The bucket's name, for logs.
    pub bucket_name: Name,
    /// The key, for the plugin.
    pub key: Bytes,
    /// The key's place on the ring, for logs.
    pub key_hash: u128,
    /// The inputs in canonical order. A single one is shown only.
    pub siblings: Vec<Sibling>,
    /// What the reader wants of the merged value.
    pub show: Show,
    /// Whether the plugin must run, though the result of an equal merge may be known.
    pub fresh: bool,
    /// The limit of fuel.
    pub fuel: u64,
    /// The limit of linear memory, in bytes.
    pub memory_bytes: u32,
    /// The limit of the result, in bytes.
    pub result_bytes: u32,
    /// The deadline of the request, in microseconds of [`Now::mono_us`].
    pub deadline_us: u64,
}

/// A merge's result.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Merged {
    /// The merged value. Of a single sibling its own.
    pub value: Bytes,
    /// The readable form, if it was wanted and the plugin has one; or the answer to the reader's question.
    pub shown: Option<Bytes>,
    /// The engine's profile.
    pub profile: ProfileId,
    /// The fuel that the merge has used; 0 if an equal one was remembered.
    pub fuel_used: u64,
}

/// A value for a plugin to validate before it is written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ValidateJob {
    /// The component.
    pub plugin: PluginDigest,
    /// The bucket. Each bucket has its share of the threads.
    pub bucket: BucketId,
    /// The bucket's name, for logs.
    pub bucket_name: Name,
    /// The key, for the plugin.
    pub key: Bytes,
    /// The key's place on the ring, for logs.
    pub key_hash: u128,
    /// The value.
    pub value: Bytes,
    /// The limit of fuel.
    pub fuel: u64,
    /// The limit of linear memory, in bytes.
    pub memory_bytes: u32,
    /// The deadline of the request, in microseconds of [`Now::mono_us`].
    pub deadline_us: u64,
}

/// An operation for a plugin to apply to the value that it merges of the siblings. If it has a validator, that takes
/// the result.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ApplyJob {
    /// The component.
    pub plugin: PluginDigest,
    /// The bucket. Each bucket has its share of the threads.
    pub bucket: BucketId,
    /// The bucket's name, for logs.
    pub bucket_name: Name,
    /// The key, for the plugin.
    pub key: Bytes,
    /// The key's place on the ring, for logs.
    pub key_hash: u128,
    /// The values of the node's copy in canonical order. There may be none.
    pub siblings: Vec<Sibling>,
    /// The operation.
    pub operation: Bytes,
    /// The dot that is reserved for it.
    pub dot: Dot,
    /// The limit of fuel, for each call.
    pub fuel: u64,
    /// The limit of linear memory, in bytes.
    pub memory_bytes: u32,
    /// The limit of the result, in bytes.
    pub result_bytes: u32,
    /// The deadline of the request, in microseconds of [`Now::mono_us`].
    pub deadline_us: u64,
}

/// Matches a scan's result to its request.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ScanTicket(pub u64);

/// A range of object rows to read in key order, off the shard's turn.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScanJob {
    /// The first key of the range.
    pub from: Bytes,
    /// The end of the range, which is not part of it. `None`: to the last key.
    pub to: Option<Bytes>,
    /// The most rows of one result; at least one is read.
    pub max_rows: usize,
    /// The bytes of keys and values at which a result ends.
    pub max_bytes: usize,
}

/// Object rows as they were at one position of the store, which may be older than the store is by now. So a row is read
/// again before it is dropped or replaced, and a row that is not here may have been written meanwhile.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct ScannedRows {
    /// The rows, in key order. There may be none although `next` is set.
    pub rows: Vec<(Bytes, Bytes)>,
    /// The first key that was not looked at. `None` if the whole range was.
    pub next: Option<Bytes>,
    /// Ranges of keys, each with its end excluded, in which there may be rows that cannot be read. No key of them may
    /// be taken for absent.
    pub unreadable: Vec<(Bytes, Option<Bytes>)>,
    /// Whether rows of those ranges may become readable again. Rows that are lost for good may not.
    pub damaged: bool,
}

/// Why a plugin gave no answer. Siblings stay as they are, and a value is not written.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PluginError {
    /// The bucket has no plugin.
    #[error("the bucket has no merge plugin: the siblings are as they were written")]
    NoPlugin,
    /// The plugin is not deterministic.
    #[error(
        "plugin {plugin} is quarantined, and the siblings are kept: {why}; `rejoin plugin release {plugin}` ends that"
    )]
    Quarantined {
        /// The component.
        plugin: PluginDigest,
        /// The evidence.
        why: String,
    },
    /// The component has not reached this node.
    #[error("this node does not have plugin {0} yet; it is being fetched from the others")]
    Missing(PluginDigest),
    /// This node cannot compile or load the component.
    #[error("this node cannot use plugin {plugin}: {why}")]
    Unusable {
        /// The component.
        plugin: PluginDigest,
        /// What its compiler says.
        why: String,
    },
    /// Too many calls wait for a thread.
    #[error("{waiting} merges{of} are waiting already; the siblings are kept")]
    Overloaded {
        /// How many may wait.
        waiting: usize,
        /// Whose they are.
        of: QueueOf,
    },
    /// The tenant or bucket has used up its fuel. Says which limit, and when to try again.
    #[error("{0}; the siblings are kept")]
    OverQuota(String),
    /// The request's deadline has come.
    #[error("the merge did not end within the request's time")]
    TimedOut,
    /// The call itself failed.
    #[error(transparent)]
    Call(#[from] MergeFault),
}

impl PluginError {
    /// One word for it, for metrics and logs.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoPlugin => "no_plugin",
            Self::Quarantined { .. } => "plugin_quarantined",
            Self::Missing(_) => "plugin_missing",
            Self::Unusable { .. } => "plugin_refused",
            Self::Overloaded { of: QueueOf::Bucket, .. } => "bucket_overloaded",
            Self::Overloaded { of: QueueOf::Tenant, .. } => "tenant_overloaded",
            Self::Overloaded { of: QueueOf::All, .. } => "overloaded",
            Self::OverQuota(_) => "over_quota",
            Self::TimedOut => "timed_out",
            Self::Call(fault) => fault.reason(),
        }
    }

    /// Whether the plugin itself said no or failed, as it would on every node with the same profile and limits.
    #[must_use]
    pub fn is_deterministic(&self) -> bool {
        matches!(self, Self::Call(fault) if fault.is_deterministic())
    }
}

/// What a message waits for before it may leave the node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Barrier {
    /// The batch is written to the journal file. The end of the process cannot lose it; a power failure can.
    Written,
    /// The batch is on the disk.
    Durable,
}

/// Something that a shard asks for. No effect may leave the node before the batch is written.
#[derive(Clone, PartialEq, Debug)]
pub enum Effect {
    /// A message to another node.
    Send {
        /// The receiver.
        to: NodeId,
        /// What the message waits for.
        barrier: Barrier,
        /// The message.
        envelope: PeerEnvelope,
    },
    /// The reply to a client.
    Reply {
        /// Of the request.
        reply_to: ReplyTo,
        /// The reply.
        reply: Reply,
    },
    /// A merge to run. [`Event::Merged`] answers in any case.
    Merge(MergeTicket, MergeJob),
    /// A value to validate. [`Event::Validated`] answers in any case.
    Validate(ValidateTicket, ValidateJob),
    /// An operation to apply. [`Event::Applied`] answers in any case.
    Apply(ApplyTicket, ApplyJob),
    /// Send [`Event::Durable`] as soon as this batch is on the disk, or [`Event::NotDurable`] if too much waits for it.
    WhenDurable(DurableTicket),
    /// Object rows to read. [`Event::Scanned`] answers in any case.
    Scan(ScanTicket, ScanJob),
    /// This shard's start id has changed: the node's is to be made anew.
    StartRenewed(u64),
    /// What has become of requests to peers since that was last told, for [`Members`](crate::members::Members).
    Requests(Vec<(NodeId, Requests)>),
    /// All operations have ended that began with views of an earlier generation than this one
    /// ([`RingView::generation`](crate::ring::RingView::generation)).
    OlderEnded(u64),
    /// This shard has everything of the partitions that it gains by that layout, and that is on the disk.
    Exchanged(LayoutRef),
    /// Something that an operator should know.
    Alarm(Alarm),
    /// This shard has what the other owners have, after the node's data directory was replaced. Told once by each start
    /// on such a directory.
    Rebuilt,
    /// A plugin is not deterministic, with the evidence: the catalog is to quarantine it.
    Quarantine(TenantId, PluginDigest, String),
    /// The store has failed for good: the node must stop.
    Fatal(String),
}

/// Something that an operator should know.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Alarm {
    /// A disk was cloned or went back, and wrote before that was noticed.
    #[error("one dot under two values in {object:?}: a disk was cloned or restored; both values are kept")]
    OneDotTwoValues {
        /// Where.
        object: ObjectId,
    },
    /// A clock is wrong somewhere.
    #[error("a value in {object:?} is stamped {ahead_ms} ms in the future: some node's clock is wrong")]
    FutureStamp {
        /// Where.
        object: ObjectId,
        /// How far.
        ahead_ms: u64,
    },
    /// An actor has ended.
    #[error("partition {partition}: this node takes a new actor, because {why}")]
    TenureEnded {
        /// For which partition it wrote.
        partition: PartitionId,
        /// Why.
        why: &'static str,
    },
    /// The actors of all partitions have ended.
    #[error("this node takes new actors for {count} partitions, because {why}")]
    TenuresEnded {
        /// How many.
        count: u64,
        /// Why.
        why: &'static str,
    },
    /// What a replica had lost of a partition is rebuilt, as far as the other owners have it.
    #[error(
        "partition {partition}: this node has everything again that the other owners have; its copies count in reads"
    )]
    Rebuilt {
        /// Where.
        partition: PartitionId,
    },
    /// A plugin makes different values of the same siblings. It is quarantined.
    #[error("plugin {plugin}: {why}")]
    NotDeterministic {
        /// The component.
        plugin: PluginDigest,
        /// The evidence.
        why: String,
    },
    /// One node makes another value of the same siblings than the other owners, and makes it again.
    #[error(
        "plugin {plugin}, bucket {bucket}: of {owners} owners that merged the same siblings, {node} got another result; \
         that is not enough to quarantine the plugin, and {}", doubt(.node, *.owners)
    )]
    ViewsDiffer {
        /// The component.
        plugin: PluginDigest,
        /// The bucket.
        bucket: Name,
        /// The node with another result. Of two nodes either may be it; then it is the other one than this.
        node: Name,
        /// How many were compared.
        owners: usize,
    },
    /// A copy cannot be read.
    #[error("partition {partition}: {what}")]
    Damaged {
        /// Where.
        partition: PartitionId,
        /// What the store said.
        what: String,
    },
}

/// Whom another result makes doubtful.
fn doubt(node: &Name, owners: usize) -> String {
    match owners {
        ..=2 => "either node may compute wrongly: two cannot tell which, so test the plugin on both".into(),
        _ => alloc::format!("the machine of {node} may compute wrongly"),
    }
}
