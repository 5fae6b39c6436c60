//! What a client and a node say to each other: a hello each way on the control stream, then requests and replies
//! matched by frame id.

use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::address::Address;
use crate::catalog::{BucketProps, Quorum, Record, Scope};
use crate::codec::Versioned;
use crate::error::ErrorReply;
use crate::id::{ClusterId, Name, PartitionId, PluginDigest, RequestId, TenantId};
use crate::layout::{Layout, LayoutRef};
use crate::object::Content;

/// The protocol spoken by this release.
pub const PROTOCOL: u16 = 1;

/// Stands for everything a node remembers of retries. Renewed whenever a tenure ends; a retry that names another one is
/// not taken.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug, Serialize, Deserialize)]
pub struct StartId(pub u64);

/// The client's first words.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ClientHello {
    /// [`PROTOCOL`] of the client.
    pub protocol: u16,
    /// The token, as it was handed out.
    pub token: String,
    /// What the client calls itself, for the log. At most 64 bytes are kept.
    pub client: String,
}

impl Versioned for ClientHello {
    const VERSION: u8 = 1;
    const WHAT: &'static str = "client hello";
}

/// The node's answer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ServerHello {
    /// [`PROTOCOL`] of the node.
    pub protocol: u16,
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: Name,
    /// Whose buckets the token opens: with a bucket's name it gives the place of a key.
    pub tenant: TenantId,
    /// See [`StartId`].
    pub start: StartId,
    /// Retries of a write are taken for so many milliseconds after the first attempt.
    pub retry_window_ms: u32,
    /// What to route by.
    pub layout: Layout,
}

/// The outcome of a client's hello.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum HelloReply {
    /// Welcome.
    Welcome(ServerHello),
    /// Not welcome.
    Refused(ErrorReply),
}

impl Versioned for HelloReply {
    const VERSION: u8 = 1;
    const WHAT: &'static str = "server hello";
}

/// One request.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Request {
    /// Milliseconds that the client still waits. 0 is the node's default; above the node's limit is cut to it.
    pub deadline_ms: u32,
    /// Follows the request through every node's spans. 0: the node draws one.
    pub trace: u64,
    /// The layout it was routed by.
    pub layout: LayoutRef,
    /// What is wanted.
    pub body: RequestBody,
}

impl Versioned for Request {
    const VERSION: u8 = 1;
    const WHAT: &'static str = "request";
}

/// What a client can ask.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum RequestBody {
    /// Read an object.
    Get(Get),
    /// Write or delete an object.
    Put(Put),
    /// The layout the node has now.
    Layout,
    /// An operator's verb.
    Admin(Admin),
    /// The client has the answers to these writes and will not repeat them, so that the node may forget how to
    /// recognise a retry. It never sends the receipt of a write of which it made more than one attempt: an earlier one
    /// may still arrive. Not answered. At most [`MAX_RECEIPTS`] are looked at.
    Settled(Vec<Receipt>),
}

/// The most receipts of one [`RequestBody::Settled`].
pub const MAX_RECEIPTS: usize = 256;

/// Names the row by which a node recognises retries of a write. Made of the write's request id, which is random and
/// known to its client and the owners only, and of its object: so a client can name its own rows and no others.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Receipt {
    /// The partition of the object.
    pub partition: PartitionId,
    /// The request id crossed with the object's bucket and hash.
    pub id: u128,
}

/// Reads an object.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Get {
    /// In which bucket of the token's tenant.
    pub bucket: Name,
    /// At most 1 KiB.
    pub key: Bytes,
    /// Instead of the bucket's `r`.
    pub r: Option<Quorum>,
    /// Instead of the bucket's `pr`.
    pub pr: Option<Quorum>,
    /// Whether the siblings are wanted too where they were merged.
    pub siblings: bool,
    /// Whether the plugin's readable form is wanted.
    pub show: bool,
}

/// What a write without a context means.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Basis {
    /// It replaces what this context has seen.
    Context(Bytes),
    /// Nothing must be there: refused if a read at R finds a value.
    Create,
    /// It stands beside whatever is there.
    Blind,
}

/// Writes or deletes an object.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Put {
    /// In which bucket of the token's tenant.
    pub bucket: Name,
    /// At most 1 KiB.
    pub key: Bytes,
    /// The value, or a tombstone.
    pub content: Content,
    /// What it replaces.
    pub basis: Basis,
    /// The same for every attempt at this write.
    pub request: RequestId,
    /// The node's start as the client knew it at the first attempt.
    pub start: StartId,
    /// 0 for the first attempt.
    pub attempt: u8,
    /// Instead of the bucket's `w`.
    pub w: Option<Quorum>,
    /// Instead of the bucket's `pw`.
    pub pw: Option<Quorum>,
    /// Instead of the bucket's time to live, in milliseconds.
    pub ttl_ms: Option<u64>,
}

/// One sibling as readers and plugins see it.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Sibling {
    /// The value.
    pub value: Bytes,
    /// When it was written, in milliseconds since 1970.
    pub stamp_ms: u64,
    /// The actor that coordinated its latest write: the same on every replica.
    pub writer: u64,
}

/// Which plugin merged.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MergedBy {
    /// The plugin's name in the catalog, if it is known here.
    pub name: Option<Name>,
    /// The component.
    pub digest: PluginDigest,
}

/// The answer to a [`Get`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GetReply {
    /// The value, or what the siblings were merged to. `None` if there is none, or the siblings could not be merged.
    pub value: Option<Bytes>,
    /// The plugin's readable form of `value`, if it was asked for and there is one.
    pub shown: Option<Bytes>,
    /// The siblings: one when merged or single, all when they were asked for or could not be merged, none when nothing
    /// was found.
    pub siblings: Vec<Sibling>,
    /// To be passed on with the write that follows from this read.
    pub context: Bytes,
    /// The plugin that made `value` of several siblings, now or in an earlier fold.
    pub merged_by: Option<MergedBy>,
    /// Why there are several siblings and no value.
    pub merge_fault: Option<String>,
    /// The replicas that answered in time.
    pub answered: Vec<Name>,
}

/// How a write ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum PutOutcome {
    /// Its quorum has it.
    Stored,
    /// Its quorum did not answer in time: it may still take effect.
    Unknown,
}

/// The answer to a [`Put`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PutReply {
    /// How it ended.
    pub outcome: PutOutcome,
    /// What the writer has seen now: its own write and what that replaced, and no sibling that it was not shown.
    pub context: Bytes,
    /// Replicas that acknowledged in time.
    pub acked: u8,
    /// Replicas that had to.
    pub needed: u8,
    /// For [`RequestBody::Settled`], to the node that has answered. `None` if the write may have to be repeated, or
    /// another node has coordinated it.
    pub receipt: Option<Receipt>,
}

/// An operator's verb.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Admin {
    /// How the cluster looks from this node.
    Status,
    /// All records of a kind.
    List(RecordKind),
    /// Makes a bucket.
    BucketCreate {
        /// Its name.
        name: Name,
        /// Its properties; `plugin` names a pushed one.
        props: BucketProps,
    },
    /// Changes a bucket, if it is still at that version.
    BucketSet {
        /// Its name.
        name: Name,
        /// The version that was read.
        version: u64,
        /// All of its properties.
        props: BucketProps,
    },
    /// Makes a token. The secret is drawn by the client and only its hash is sent.
    TokenCreate {
        /// Its name.
        name: Name,
        /// What it allows.
        scope: Scope,
        /// BLAKE3 of the secret part.
        secret_hash: [u8; 32],
    },
    /// Withdraws a token.
    TokenRevoke {
        /// Its name.
        name: Name,
    },
    /// Stores a plugin's component on this node, which checks it and lets the others fetch it.
    PluginPush {
        /// What to call it if it does not say itself.
        name: Name,
        /// The component.
        module: Bytes,
    },
}

/// A kind of record.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum RecordKind {
    /// Tenants.
    Tenant,
    /// Buckets.
    Bucket,
    /// Plugins.
    Plugin,
    /// Tokens.
    Token,
}

/// One node as another sees it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its name.
    pub name: Name,
    /// Its zone.
    pub zone: Name,
    /// Where it is reached.
    pub address: Address,
    /// Whether the answering node has a connection to it (or is it).
    pub up: bool,
    /// Partitions of which it is the first owner.
    pub first_owner_of: u32,
    /// Partitions in whose list it stands at all.
    pub owner_of: u32,
    /// Whether its data directory was replaced by an empty one, as far as the answering node knows: it is not counted
    /// in reads.
    pub replaced: bool,
}

/// How the cluster looks from one node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Status {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node that answers.
    pub node: Name,
    /// Its release.
    pub release: String,
    /// Milliseconds since it started.
    pub uptime_ms: u64,
    /// The layout it uses.
    pub layout: LayoutRef,
    /// The number of partitions.
    pub partitions: u32,
    /// All nodes.
    pub nodes: Vec<NodeStatus>,
    /// What this node has lost or cannot read, if anything: said until it is rebuilt.
    pub lost: Vec<String>,
    /// Plugins named in the catalog that this node does not have yet.
    pub missing_plugins: Vec<PluginDigest>,
    /// What an operator should look at, for people: a kept layout that contradicts the configuration, certificates that
    /// end soon.
    pub warnings: Vec<String>,
    /// When the answering node's certificate ends, in milliseconds since 1970.
    pub certificate_until_ms: u64,
    /// When the certificate of the cluster's authority ends, in milliseconds since 1970.
    pub authority_until_ms: u64,
    /// What is not well at this node now, one line each.
    pub problems: Vec<String>,
    /// How many more nodes may go before some key loses its quorum of reads, and of writes; negative if some key has
    /// lost it. `None` without buckets.
    pub spare: Option<(i16, i16)>,
}

/// One reply.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Reply {
    /// To a get.
    Get(GetReply),
    /// To a put or delete.
    Put(PutReply),
    /// To a request for the layout; also sent with [`crate::ErrorCode::StaleLayout`] on its way.
    Layout(Layout),
    /// To [`Admin::Status`].
    Status(Status),
    /// To [`Admin::List`].
    Records(Vec<Record>),
    /// Not done.
    Error(ErrorReply),
    /// To an operator's change.
    Changed {
        /// The record that it made.
        record: Record,
        /// The nodes that have not taken it yet: until they have, they go on with the earlier one, and could make
        /// another under its name.
        behind: Vec<Name>,
    },
}

/// A reply with what every reply tells.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Answer {
    /// The layout the node has: a client with an older one asks for it.
    pub layout: LayoutRef,
    /// The node's present start; see [`StartId`].
    pub start: StartId,
    /// The reply.
    pub reply: Reply,
}

impl Versioned for Answer {
    const VERSION: u8 = 1;
    const WHAT: &'static str = "reply";
}
