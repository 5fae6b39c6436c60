//! What nodes say to each other. Each message stands in a [`PeerEnvelope`] that bears the sender's layout.

use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::catalog::{Durability, Record, RecordKey};
use crate::causal::VersionVector;
use crate::client::{Get, Put, Reply};
use crate::codec::Versioned;
use crate::error::ErrorCode;
use crate::hash::ObjectId;
use crate::id::{ActorId, ClusterId, NodeId, PartitionId, PluginDigest, TenantId};
use crate::layout::LayoutRef;
use crate::object::{Object, ReapEpoch};

/// A node's first words to another, each way, before anything else.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PeerHello {
    /// What must be equal on both sides.
    pub terms: Terms,
    /// The node, which must be that of its certificate.
    pub node: NodeId,
    /// Random bits of the process, so that a restarted node is told from one that dials twice.
    pub run: u64,
    /// The id of its data directory.
    pub disk: DiskId,
    /// Whether it knows that its data directory was replaced, and what the old one held is lost.
    pub replaced: bool,
    /// What it remembers of the receiver's data directory.
    pub known_disk: Option<DiskId>,
    /// Its wall clock, in milliseconds since 1970.
    pub wall_ms: u64,
    /// The digest of its catalog; when they differ, both sides send their summaries.
    pub catalog: u64,
    /// The next counter of each of its actors: a peer that has seen a later one answers [`PeerBody::Observed`], and the
    /// actor ends.
    pub actors: Vec<ActorNext>,
}

impl Versioned for PeerHello {
    const VERSION: u8 = 1;
    const WHAT: &'static str = "peer hello";
}

/// What must be equal on all nodes of a cluster. A node refuses a peer with other terms and says which of them differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Terms {
    /// [`crate::client::PROTOCOL`].
    pub protocol: u16,
    /// The cluster.
    pub cluster: ClusterId,
    /// Derived from the cluster's secret, which it does not tell.
    pub secret_check: u64,
    /// Version and hash of the layout: nodes, zones, capacities, addresses and owners.
    pub layout: LayoutRef,
    /// How far clocks may differ, in milliseconds.
    pub max_skew_ms: u64,
}

/// A data directory: random bits, drawn when it is made.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct DiskId(pub u64);

/// An actor and the counter it will use next.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ActorNext {
    /// The partition it writes for.
    pub partition: PartitionId,
    /// The actor.
    pub actor: ActorId,
    /// Its next counter.
    pub next: u64,
}

/// Matches an answer to what it answers, within one shard of the asking node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct OpId {
    /// The shard of the node that asked.
    pub shard: u16,
    /// Its number there.
    pub number: u64,
}

/// What is common to all messages between nodes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PeerEnvelope {
    /// The sender's layout.
    pub layout: LayoutRef,
    /// Follows a request across nodes; 0 for none.
    pub trace: u64,
    /// The message.
    pub body: PeerBody,
}

impl Versioned for PeerEnvelope {
    const VERSION: u8 = 1;
    const WHAT: &'static str = "peer message";
}

/// A message between nodes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum PeerBody {
    /// A request from a node that does not own the key. Forwarded once, never again.
    Forward(Forward),
    /// Its answer.
    ForwardReply {
        /// Of the forwarding node.
        op: OpId,
        /// For the client.
        reply: Reply,
    },
    /// Reads the receiver's copy.
    Read {
        /// Of the coordinator.
        op: OpId,
        /// Of what.
        object: ObjectId,
    },
    /// The copy.
    ReadReply {
        /// Of the coordinator.
        op: OpId,
        /// Read in this epoch.
        epoch: ReapEpoch,
        /// The copy (empty if there is none), or why it cannot be read.
        copy: Result<Object, ErrorCode>,
        /// Whether the replica still has what it has acknowledged. If not, the copy is joined and does not count.
        complete: bool,
    },
    /// An object to be absorbed: a new write, or a read repair.
    Replicate(Replicate),
    /// What became of it.
    Replicated {
        /// Of the coordinator.
        op: OpId,
        /// The layout by which the receiver counts itself an owner.
        layout: LayoutRef,
        /// The bucket's version there, 0 if it does not know the bucket.
        bucket_version: u64,
        /// What became of it.
        outcome: Result<Absorbed, ErrorCode>,
    },
    /// The sender has seen this counter of one of the receiver's actors, which had announced a lower next one: an old
    /// or cloned disk.
    Observed {
        /// The actor as it was announced.
        actor: ActorNext,
        /// What was seen.
        counter: u64,
    },
    /// Names and ranks of all records of the sender's catalog.
    CatalogSummary(Vec<(RecordKey, u64, u64)>),
    /// Records that the receiver may lack.
    CatalogRecords {
        /// Of the sender; 0 if no answer is wanted.
        number: u64,
        /// The records.
        records: Vec<Record>,
    },
    /// The records of that number are kept, durably.
    CatalogTaken {
        /// As it was sent.
        number: u64,
    },
    /// Asks for a plugin's component.
    ModuleWanted(PluginDigest),
    /// A component, or nothing if the sender does not have it.
    Module {
        /// Which.
        digest: PluginDigest,
        /// Its bytes.
        bytes: Option<Bytes>,
    },
}

impl PeerBody {
    /// What kind of message it is, for logs and metrics.
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
        }
    }
}

/// A client's request on its way to an owner.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Forward {
    /// Of the forwarding node.
    pub op: OpId,
    /// The client's tenant, which the forwarding node has checked.
    pub tenant: TenantId,
    /// Milliseconds that are left.
    pub deadline_ms: u32,
    /// What is wanted.
    pub request: DataRequest,
}

/// The requests that are routed to owners.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum DataRequest {
    /// A read.
    Get(Get),
    /// A write or delete.
    Put(Put),
}

/// An object to be absorbed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Replicate {
    /// Of the sender; `None` if no answer is wanted.
    pub op: Option<OpId>,
    /// Which object.
    pub object: ObjectId,
    /// The sender's version of the bucket.
    pub bucket_version: u64,
    /// The epoch in which it was read.
    pub epoch: ReapEpoch,
    /// The write it is about, whose fate is answered; `None` for a repair.
    pub dot: Option<crate::id::Dot>,
    /// What an acknowledgement must mean.
    pub durability: Durability,
    /// The object.
    pub state: Object,
}

/// What absorbing did.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Absorbed {
    /// The write is live here.
    Stored,
    /// The write had already been overwritten here, by what this context has seen. It counts.
    Superseded(VersionVector),
}

/// A node's reason, in words, for a code that it sent.
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
