//! Messages between nodes. Each is sent in a [`PeerEnvelope`] with the sender's layout.

use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::catalog::{Durability, Record, RecordKey};
use crate::causal::VersionVector;
use crate::client::{Get, Put, Reply};
use crate::codec::{self, Versioned};
use crate::encoded::EncodedObject;
use crate::error::ErrorCode;
use crate::exchange::{ExchangeAnswer, ExchangeAsk};
use crate::hash::ObjectId;
use crate::id::{ActorId, BucketId, ClusterId, Name, NodeId, PartitionId, PluginDigest, ProfileId, TenantId};
use crate::layout::{LayoutRange, LayoutRef};
use crate::object::{Object, ReapEpoch};
use crate::plugin_state::PluginState;
use crate::ring::RingMessage;

/// The first message of a node to another, in each direction.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PeerHello {
    /// Must be equal on both sides.
    pub params: ClusterParams,
    /// The sender, as in its certificate.
    pub node: NodeId,
    /// Random bits of the process: tells a restarted node from one that dials twice.
    pub run: u64,
    /// The id of its data directory.
    pub disk: DiskId,
    /// Whether the sender knows that its data directory was replaced, and the data of the old one lost.
    pub replaced: bool,
    /// Whether what was lost with it is rebuilt, as far as the other owners have it. Until then the sender's copies do
    /// not count in reads.
    pub rebuilt: bool,
    /// The newest live layout of which the sender was a member since its data directory was made. If it was declared
    /// dead for that one or a newer one, it may have data of the time before.
    pub member_of: Option<LayoutRef>,
    /// The receiver's data directory, as the sender remembers it.
    pub known_disk: Option<DiskId>,
    /// The sender's wall clock, in milliseconds since 1970.
    pub wall_ms: u64,
    /// The digest of the catalog. If the digests differ, both sides send their summaries.
    pub catalog: u64,
    /// The sender's ring has 2^this partitions, by which its actors are listed.
    pub partition_bits: u8,
    /// The next counter of each actor of the sender. A peer that has seen a later one answers [`PeerBody::Observed`],
    /// and the actor ends.
    pub actors: Vec<ActorNext>,
}

impl Versioned for PeerHello {
    const VERSION: u8 = 1;
    const WHAT: &'static str = "peer hello";
}

/// What a node has when it is ready for a peer. A peer that starts waits until it has as much.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PeerReady {
    /// The digest of the catalog.
    pub catalog: u64,
    /// The live layouts.
    pub layouts: LayoutRange,
}

impl Versioned for PeerReady {
    const VERSION: u8 = 1;
    const WHAT: &'static str = "peer ready";
}

/// Parameters that must be equal on all nodes of a cluster. A node refuses a peer with others, and logs which differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ClusterParams {
    /// [`crate::client::PROTOCOL`].
    pub protocol: u16,
    /// The id in the certificates.
    pub cluster: ClusterId,
    /// A hash derived from the cluster's secret.
    pub secret_check: u64,
    /// Version and hash of the cluster's first layout. The newest one may differ while nodes learn of it.
    pub origin: LayoutRef,
    /// The most that clocks may differ, in milliseconds.
    pub max_skew_ms: u64,
}

/// Identifies a data directory: random bits, drawn when it is made.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct DiskId(pub u64);

/// An actor and its next counter.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ActorNext {
    /// The partition of the actor.
    pub partition: PartitionId,
    /// The actor itself.
    pub actor: ActorId,
    /// The counter of its next write.
    pub next: u64,
}

/// Matches a reply to its request, within one shard of the sender of the request.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct OpId {
    /// The shard that sent the request.
    pub shard: u16,
    /// The number of the operation in that shard.
    pub number: u64,
}

/// A message between nodes, with the fields that all messages have.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PeerEnvelope {
    /// The layout of the sender.
    pub layout: LayoutRef,
    /// The trace id of the client request; 0 for none.
    pub trace: u64,
    /// The message.
    pub body: PeerBody,
}

impl Versioned for PeerEnvelope {
    const VERSION: u8 = 1;
    const WHAT: &'static str = "peer message";

    fn size_hint(&self) -> usize {
        let carried = match &self.body {
            PeerBody::Replicate(message) => message.object.key.len() + message.state.row().len(),
            _ => 0,
        };
        codec::INITIAL_CAPACITY + carried
    }
}

/// A message between nodes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum PeerBody {
    /// A request from a node that does not own the key. A request is forwarded at most once.
    Forward(Forward),
    /// The reply to a forwarded request.
    ForwardReply {
        /// The operation of the forwarding node.
        op: OpId,
        /// To be passed to the client.
        reply: Reply,
    },
    /// Reads the receiver's copy.
    Read {
        /// The operation of the coordinator.
        op: OpId,
        /// The object to read.
        object: ObjectId,
        /// Whether the receiver is asked as a fallback that may hold the object. As an owner it is asked for what it
        /// must have, and refuses if it is none.
        as_fallback: bool,
        /// The causal hash of the coordinator's copy, under the key of the cluster. A receiver whose copy has the same
        /// one answers [`PeerBody::ReadSame`].
        digest: Option<[u8; 16]>,
    },
    /// The copy of an object.
    ReadReply {
        /// The operation of the coordinator.
        op: OpId,
        /// The epoch in which it was read.
        epoch: ReapEpoch,
        /// The copy (empty if there is none), or why it cannot be read.
        copy: Result<Object, ErrorCode>,
        /// Whether the replica still has every write that it acknowledged. If not, the copy is joined and not counted.
        complete: bool,
    },
    /// An object to absorb: a new write, or a read repair.
    Replicate(Replicate),
    /// The reply to [`PeerBody::Replicate`].
    Replicated {
        /// The operation of the coordinator.
        op: OpId,
        /// The layout by which the receiver is an owner, or a fallback.
        layout: LayoutRef,
        /// The receiver's version of the bucket, 0 if it does not know the bucket.
        bucket_version: u64,
        /// Whether it was absorbed, and how.
        outcome: Result<Absorbed, ErrorCode>,
        /// If the receiver holds it as a fallback: the version of its advertisement for the partition.
        held: Option<u64>,
    },
    /// The sender has seen this counter of an actor for which the receiver announced a lower next one: the receiver has
    /// an old or cloned disk.
    Observed {
        /// As announced in [`PeerHello::actors`].
        actor: ActorNext,
        /// The highest counter seen.
        counter: u64,
    },
    /// Key and rank of every record in the sender's catalog.
    CatalogSummary(Vec<(RecordKey, u64, u64)>),
    /// Records that the receiver may lack.
    CatalogRecords {
        /// Chosen by the sender; 0 if no acknowledgement is needed.
        number: u64,
        /// In any order.
        records: Vec<Record>,
    },
    /// Acknowledges that the records of that number are durable.
    CatalogTaken {
        /// From [`PeerBody::CatalogRecords`].
        number: u64,
    },
    /// Requests a plugin's component.
    ModuleWanted(PluginDigest),
    /// The reply to [`PeerBody::ModuleWanted`].
    Module {
        /// The digest that was requested.
        digest: PluginDigest,
        /// `None` if the sender does not have it.
        bytes: Option<Bytes>,
    },
    /// A question of an exchange.
    ExchangeAsk(ExchangeAsk),
    /// The answer to a [`PeerBody::ExchangeAsk`].
    ExchangeAnswer(ExchangeAnswer),
    /// Which nodes hold objects of a partition without owning them, as far as the sender knows. A node that learns
    /// something from it passes that on.
    Holdings {
        /// The sender's ring has 2^this partitions.
        partition_bits: u8,
        /// The partition.
        partition: PartitionId,
        /// The nodes, in any order. What is said of other nodes does not change.
        holders: Vec<Holder>,
    },
    /// Objects that the sender holds without owning them, for an owner to confirm.
    Offer(Offer),
    /// The reply to [`PeerBody::Offer`].
    OfferReply {
        /// From [`Offer::op`].
        op: OpId,
        /// The newest layout of the replying node. An answer counts only if it is the sender's too.
        layout: LayoutRef,
        /// Its version of the bucket, 0 if it does not know the bucket. An answer counts only if it is the sender's
        /// too.
        bucket_version: u64,
        /// One for each object of the offer, in its order. Empty if the node is no owner by that layout and version.
        answers: Vec<OfferAnswer>,
    },
    /// About layouts and their changes.
    Ring(RingMessage),
    /// Asks what a plugin makes of the receiver's copy of an object, to be compared with the sender's.
    ViewAsk(ViewAsk),
    /// The reply to [`PeerBody::ViewAsk`].
    ViewAnswer {
        /// From [`ViewAsk::op`].
        op: OpId,
        /// The hash of the merged value, under the key of the cluster. `None` if the copy, the plugin or the engine is
        /// another one, or the merge gave no value.
        view: Option<[u8; 16]>,
    },
    /// Asks how many bytes of objects the receiver has, of each partition. The number names the question.
    SizesWanted(u64),
    /// The reply to [`PeerBody::SizesWanted`].
    Sizes {
        /// Of the question.
        number: u64,
        /// The sender's ring has 2^this partitions.
        partition_bits: u8,
        /// The partitions of which it has something.
        bytes: Vec<(PartitionId, u64)>,
    },
    /// The reply to a [`PeerBody::Read`] that bears the digest of the receiver's copy.
    ReadSame {
        /// The operation of the coordinator.
        op: OpId,
        /// The epoch in which the copy was read.
        epoch: ReapEpoch,
        /// As asked. The coordinator may have asked the same operation again, about a newer copy of its own.
        digest: [u8; 16],
        /// As in [`PeerBody::ReadReply`].
        complete: bool,
    },
    /// Asks whether the receiver can run a plugin, which a bucket is to get. One that it has on the disk only it begins
    /// to load.
    PluginAsk {
        /// Names the question.
        number: u64,
        /// The plugin.
        digest: PluginDigest,
    },
    /// The reply to [`PeerBody::PluginAsk`].
    PluginAnswer {
        /// Of the question.
        number: u64,
        /// Whether the sender can run the plugin.
        state: PluginState,
    },
}

impl PeerBody {
    /// Whether the message is a transfer that no request waits for. It travels on a stream of its own, with no order
    /// towards other messages, and is the first to be left unsent when the peer does not keep up.
    #[must_use]
    pub const fn is_bulk(&self) -> bool {
        match self {
            Self::Module { .. } | Self::ExchangeAsk(_) | Self::ExchangeAnswer(_) | Self::Offer(_) => true,
            // An object of a repair or a drain. A write has a dot.
            Self::Replicate(message) => message.dot.is_none(),
            _ => false,
        }
    }

    /// The kind of the message, for logs and metrics.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Forward(_) => "forward",
            Self::ForwardReply { .. } => "forward reply",
            Self::Read { .. } => "read",
            Self::ReadReply { .. } => "read reply",
            Self::Replicate(_) => "replicate",
            Self::Replicated { .. } => "replicated",
            Self::Observed { .. } => "observed",
            Self::CatalogSummary(_) => "catalog summary",
            Self::CatalogRecords { .. } => "catalog records",
            Self::CatalogTaken { .. } => "catalog taken",
            Self::ModuleWanted(_) => "module wanted",
            Self::Module { .. } => "module",
            Self::ExchangeAsk(_) => "exchange ask",
            Self::ExchangeAnswer(_) => "exchange answer",
            Self::Holdings { .. } => "holdings",
            Self::Offer(_) => "offer",
            Self::OfferReply { .. } => "offer reply",
            Self::Ring(_) => "ring",
            Self::ViewAsk(_) => "view ask",
            Self::ViewAnswer { .. } => "view answer",
            Self::SizesWanted(_) => "sizes wanted",
            Self::Sizes { .. } => "sizes",
            Self::ReadSame { .. } => "read same",
            Self::PluginAsk { .. } => "plugin ask",
            Self::PluginAnswer { .. } => "plugin answer",
        }
    }
}

/// A client's request that is forwarded to an owner.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Forward {
    /// The operation of the forwarding node.
    pub op: OpId,
    /// The client's tenant. The forwarding node has checked the token.
    pub tenant: TenantId,
    /// Milliseconds left until the deadline.
    pub deadline_ms: u32,
    /// The request itself.
    pub request: DataRequest,
}

/// A request for the owners of a key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum DataRequest {
    /// A read.
    Get(Get),
    /// A write or delete.
    Put(Put),
}

impl DataRequest {
    /// The bucket's name and the key, by which the request is routed.
    #[must_use]
    pub fn bucket_and_key(&self) -> (&Name, &Bytes) {
        match self {
            Self::Get(get) => (&get.bucket, &get.key),
            Self::Put(put) => (&put.bucket, &put.key),
        }
    }
}

/// An object to absorb.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Replicate {
    /// The operation of the sender; `None` if no reply is needed.
    pub op: Option<OpId>,
    /// The id of the object.
    pub object: ObjectId,
    /// The sender's version of the bucket.
    pub bucket_version: u64,
    /// The epoch in which the sender read it.
    pub epoch: ReapEpoch,
    /// The write that the reply is about; `None` for a repair.
    pub dot: Option<crate::id::Dot>,
    /// When to acknowledge.
    pub durability: Durability,
    /// The state to join with the local copy.
    pub state: EncodedObject,
}

/// Whether a node holds objects of a partition without owning them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Holder {
    /// The node.
    pub node: NodeId,
    /// Chosen by that node, and higher with each change: of two statements the one with the higher version is the
    /// newer.
    pub version: u64,
    /// Whether it holds some.
    pub holds: bool,
}

/// Objects that a node holds without owning them. The envelope has the layout by which the receiver is an owner.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Offer {
    /// For the reply.
    pub op: OpId,
    /// The sender's ring has 2^this partitions.
    pub partition_bits: u8,
    /// The partition of all objects.
    pub partition: PartitionId,
    /// The tenant of the bucket.
    pub tenant: TenantId,
    /// The bucket of all objects.
    pub bucket: BucketId,
    /// The sender's version of the bucket.
    pub bucket_version: u64,
    /// The epoch in which the sender read the objects.
    pub epoch: ReapEpoch,
    /// The objects, at most [`MAX_OFFERED`].
    pub objects: Vec<OfferedObject>,
}

/// The most objects of an [`Offer`]. A receiver looks at no more.
pub const MAX_OFFERED: usize = 1024;

/// One object of an [`Offer`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OfferedObject {
    /// The object's key.
    pub key: Bytes,
    /// The causal hash of the sender's copy, under the key of the cluster.
    pub hash: [u8; 16],
}

/// What an owner says of an offered object.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum OfferAnswer {
    /// Its copy has that hash, and is durable.
    Confirmed,
    /// Its copy differs, is absent, or cannot be read: the object is to be sent.
    Wanted,
}

/// Asks for the view of an object.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ViewAsk {
    /// For the reply.
    pub op: OpId,
    /// The object.
    pub object: ObjectId,
    /// The causal hash of the sender's copy, under the key of the cluster. Only an equal copy is compared.
    pub hash: [u8; 16],
    /// The plugin by which the sender has merged it.
    pub plugin: PluginDigest,
    /// The profile of the sender's engine.
    pub profile: ProfileId,
}

/// The result of absorbing a write.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Absorbed {
    /// The write is live on this replica.
    Stored,
    /// The write was overwritten here before, by writes in this context. It counts as acknowledged.
    Superseded(VersionVector),
}

/// The text for an error code that a peer sent.
#[must_use]
pub fn refusal(code: ErrorCode) -> String {
    let text = match code {
        ErrorCode::DiskFull => "its disk is full",
        ErrorCode::Damaged => "it cannot read its copy",
        ErrorCode::Overloaded => "it is overloaded",
        ErrorCode::StaleLayout => "it uses another layout",
        ErrorCode::Stopping => "it is stopping",
        _ => return alloc::format!("it refused ({code:?})"),
    };
    String::from(text)
}
