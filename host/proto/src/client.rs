//! Messages between clients and nodes: a hello in each direction on the control stream, then requests and replies,
//! matched by frame id.

mod admin;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::access::Grant;
use crate::address::Address;
use crate::audit::AuditPage;
use crate::catalog::{Quorum, Record};
use crate::codec::{self, Versioned};
use crate::conflict::{ConflictNote, LawViolation};
use crate::error::ErrorReply;
use crate::id::{BucketId, ClusterId, Name, NodeId, PartitionId, PluginDigest, RequestId, TenantId};
use crate::layout::{Layout, LayoutRef};
#[cfg(doc)]
use crate::layout_request::LayoutRequest;
use crate::layout_request::{LayoutPlan, LayoutStatus};
use crate::object::Content;
use crate::plugin_state::NodePlugins;
use crate::quota::Limit;
use crate::receipt::{KeyReport, ReceiptPage};
use crate::ring::Ring;
use crate::trial::ShadowReport;

pub use admin::{AdminRequest, MAX_FIXTURE_BYTES, MAX_FIXTURES, MAX_INTENT_BYTES, PushChecks};

/// The protocol version of this release.
pub const PROTOCOL: u16 = 1;

/// Identifies the retry memory of a node. It changes whenever a tenure ends. A node refuses a retry with another id.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug, Serialize, Deserialize)]
pub struct StartId(pub u64);

/// The first message of a client.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ClientHello {
    /// The client's [`PROTOCOL`].
    pub protocol: u16,
    /// The token text, `tenant/name:secret`; `name:secret` is a token of the tenant `default`. Empty for a client whose
    /// certificate names its tenant.
    pub token: String,
    /// The tenant whose data the requests are about. `None`: that of the token. Only an operator's token opens another.
    pub tenant: Option<Name>,
    /// The client's name in the node's log. At most 64 bytes are kept.
    pub client: String,
}

impl Versioned for ClientHello {
    const VERSION: u8 = 1;
    const WHAT: &'static str = "client hello";
}

/// The node's answer to a client that is admitted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ServerHello {
    /// [`PROTOCOL`] of the node.
    pub protocol: u16,
    /// The cluster of the node.
    pub cluster: ClusterId,
    /// The name of the node.
    pub node: Name,
    /// The tenant whose data the requests are about.
    pub tenant: Name,
    /// Its id, which is part of the place of each key.
    pub tenant_id: TenantId,
    /// See [`StartId`].
    pub start: StartId,
    /// The node recognises retries of a write for this many milliseconds after the first attempt.
    pub retry_window_ms: u32,
    /// Where requests go.
    pub routes: Routes,
}

/// What a client routes by.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Routes {
    /// The layout.
    pub layout: Layout,
    /// The nodes of the layout that were started under another address since.
    pub moved: Vec<MovedNode>,
}

/// The address of a node that was started under another one than its first.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MovedNode {
    /// The node.
    pub node: NodeId,
    /// Counts its addresses: the one with the larger number is in use.
    pub number: u64,
    /// The address.
    pub address: Address,
}

/// The answer to a client's hello.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum HelloReply {
    /// The client is admitted.
    Welcome(ServerHello),
    /// The client is refused.
    Refused(ErrorReply),
}

impl Versioned for HelloReply {
    const VERSION: u8 = 1;
    const WHAT: &'static str = "server hello";
}

/// One request.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Request {
    /// Milliseconds until the client gives up. 0 stands for the node's default. Capped by the node's limit.
    pub deadline_ms: u32,
    /// The trace id in the spans of all nodes. 0: the node draws one.
    pub trace: u64,
    /// The layout that the client routed by.
    pub layout: LayoutRef,
    /// The request itself.
    pub body: RequestBody,
}

impl Versioned for Request {
    const VERSION: u8 = 1;
    const WHAT: &'static str = "request";
}

/// The requests of a client.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum RequestBody {
    /// Read an object.
    Get(Get),
    /// Write or delete an object.
    Put(Put),
    /// Return the node's layout.
    Layout,
    /// A request of an operator.
    Admin(AdminRequest),
    /// The client has the answers to these writes and will not repeat them, so the node may drop their retry rows. A
    /// client never sends the receipt of a write with more than one attempt: an earlier attempt may still arrive. Has
    /// no reply. Only the first [`MAX_RECEIPTS`] are used.
    Settled(Vec<Receipt>),
}

/// The most receipts of one [`RequestBody::Settled`].
pub const MAX_RECEIPTS: usize = 256;

/// Names the retry row of a write. It is made of the object and of the request id, which is random and known only to
/// its client and the owners, so a client can name only rows of its own.
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
    /// A bucket of the connection's tenant.
    pub bucket: Name,
    /// At most 1 KiB.
    pub key: Bytes,
    /// Overrides the bucket's `r`.
    pub r: Option<Quorum>,
    /// Overrides the bucket's `pr`.
    pub pr: Option<Quorum>,
    /// Also return the siblings of a merged value.
    pub siblings: bool,
    /// What the plugin makes of the value for the reader.
    pub show: Show,
}

/// What a reader wants of the plugin beside the value.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum Show {
    /// Nothing.
    #[default]
    Nothing,
    /// The readable form of the value, if the plugin has one.
    Readable,
    /// The answer to this question in the place of the value, which is not sent.
    Answer(Bytes),
}

/// What a write replaces.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Basis {
    /// Replaces what this context has seen.
    Context(Bytes),
    /// Refused if a read at `r` finds a value.
    Create,
    /// Replaces nothing: the value becomes a sibling of what is stored.
    Blind,
    /// The content is an operation of the plugin's data type. The plugin of the node that coordinates makes the value
    /// of it and of that node's copy, and the value replaces what that copy had.
    Operation,
    /// The content is a [`Restoration`](crate::receipt::Restoration). All of its inputs take the place of the folded
    /// entry that has exactly the dots of this context, or the write is refused if there is none.
    Undo(Bytes),
}

/// Writes or deletes an object.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Put {
    /// A bucket of the connection's tenant.
    pub bucket: Name,
    /// At most 1 KiB.
    pub key: Bytes,
    /// The value, or a tombstone, or an operation.
    pub content: Content,
    /// The values that it replaces.
    pub basis: Basis,
    /// The same for all attempts at this write.
    pub request: RequestId,
    /// The start id under which the first attempt was sent.
    pub start: StartId,
    /// 0 for the first attempt.
    pub attempt: u8,
    /// Overrides the bucket's `w`.
    pub w: Option<Quorum>,
    /// Overrides the bucket's `pw`.
    pub pw: Option<Quorum>,
    /// Overrides the bucket's time to live, in milliseconds.
    pub ttl_ms: Option<u64>,
}

/// One sibling, as returned to readers and passed to plugins.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Sibling {
    /// The value.
    pub value: Bytes,
    /// The time of the write, in milliseconds since 1970.
    pub stamp_ms: u64,
    /// The actor that coordinated its latest write: the same on every replica.
    pub writer: u64,
}

/// The plugin that merged a value.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MergedBy {
    /// The name in the catalog, `None` if the node does not have the record.
    pub name: Option<Name>,
    /// The digest of the component.
    pub digest: PluginDigest,
}

/// The answer to a [`Get`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GetReply {
    /// The value, single or merged. `None` if there is none, or if the siblings could not be merged.
    pub value: Option<Bytes>,
    /// The plugin's readable form of `value`, if requested and available; or its answer, without `value`.
    pub shown: Option<Bytes>,
    /// One sibling for a single or merged value, all if they were requested or could not be merged, none if nothing was
    /// found.
    pub siblings: Vec<Sibling>,
    /// For the write that follows this read.
    pub context: Bytes,
    /// The plugin that merged `value`, now or in an earlier fold.
    pub merged_by: Option<MergedBy>,
    /// Why the siblings were not merged.
    pub merge_fault: Option<String>,
    /// The replicas that answered in time.
    pub answered: Vec<Name>,
    /// Fallbacks that may hold writes to the key and could not be asked.
    pub unreachable: Vec<Name>,
}

/// The outcome of a write.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum PutOutcome {
    /// Its quorum acknowledged it.
    Stored,
    /// Its quorum did not answer in time: it may still take effect.
    Unknown,
}

/// The answer to a [`Put`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PutReply {
    /// Whether the quorum acknowledged it.
    pub outcome: PutOutcome,
    /// Covers the write and what it replaced, and no sibling that the writer has not read.
    pub context: Bytes,
    /// The number of replicas that acknowledged in time.
    pub acked: u8,
    /// The number of acknowledgements needed.
    pub needed: u8,
    /// For [`RequestBody::Settled`] to the node that replied. `None` if the write may have to be repeated, or if
    /// another node coordinated it.
    pub receipt: Option<Receipt>,
}

/// How far a node has checked the laws of a plugin.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum LawState {
    /// Others are checked before it.
    Waiting,
    /// Its laws are being checked.
    Checking {
        /// The name of the law.
        law: String,
        /// The number of the case.
        case: u32,
        /// The number of cases of this law. 0: it is not known.
        cases: u32,
    },
    /// All laws were checked.
    Checked {
        /// Why the plugin is not stored: the laws that it breaks. `None` if it breaks none.
        broken: Option<String>,
        /// What `rejoin plugin test --json` prints, at most [`MAX_LAW_REPORT_BYTES`].
        report: Bytes,
    },
}

/// The most bytes of the report in [`LawState::Checked`].
pub const MAX_LAW_REPORT_BYTES: usize = 4 * 1024 * 1024;

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
    /// Quotas.
    Quota,
    /// Who may sign plugins.
    Signers,
}

/// One token, as the answering node sees it. Neither its secret nor a hash of it is told.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TokenStatus {
    /// Its name.
    pub name: Name,
    /// What it allows.
    pub grant: Grant,
    /// Until when the secret before its last rotation is taken, in milliseconds since 1970, if it still is.
    pub rotating_until_ms: Option<u64>,
    /// A revoked token is refused.
    pub revoked: bool,
    /// When a client last used it at the answering node, in milliseconds since 1970, if one did since that started.
    pub last_used_ms: Option<u64>,
}

/// What a tenant uses at a node, and has used since the node started.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct TenantUsage {
    /// Requests for objects that were taken.
    pub requests: u64,
    /// Requests for objects, and merges, that were refused because of a quota.
    pub refused: u64,
    /// Bytes of the requests that were taken.
    pub bytes_in: u64,
    /// Bytes of the replies to them.
    pub bytes_out: u64,
    /// Fuel of merges.
    pub fuel: u64,
    /// Connections of clients now.
    pub connections: u64,
    /// Requests under way now.
    pub in_flight: u64,
    /// What the node stores of each bucket.
    pub buckets: Vec<BucketUsage>,
    /// The limits of the tenant and its buckets that are reached, as the node sees it.
    pub reached: Vec<ReachedLimit>,
}

/// A limit that is reached.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReachedLimit {
    /// A bucket's. `None`: the tenant's own.
    pub bucket: Option<Name>,
    /// What is limited.
    pub limit: Limit,
    /// Whether more is refused; else it is only said.
    pub hard: bool,
    /// How much there may be.
    pub most: u64,
    /// How much there is.
    pub used: u64,
}

/// What a node has of a bucket: its own copies.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BucketUsage {
    /// The bucket.
    pub bucket: BucketId,
    /// Copies of objects that have a value. Those that are deleted are not among them.
    pub objects: u64,
    /// Bytes of all rows, with the tombstones of what is deleted.
    pub bytes: u64,
}

/// One node, as the answering node sees it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its name.
    pub name: Name,
    /// Its zone.
    pub zone: Name,
    /// Its address in the layout.
    pub address: Address,
    /// Whether the answering node is it, or has a connection to it.
    pub up: bool,
    /// The number of partitions of which it is the first owner.
    pub first_owner_of: u32,
    /// The number of partitions of which it is an owner.
    pub owner_of: u32,
    /// Whether its data directory was replaced by an empty one, as far as the answering node knows. Reads do not count
    /// it.
    pub replaced: bool,
}

/// Whether a node answers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Liveness {
    /// It answers.
    Alive,
    /// It is late: others are asked before it.
    Suspect,
    /// It has not answered for long.
    Down,
}

/// Why a node is not taken for alive.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Doubt {
    /// There is no connection to it.
    NotConnected,
    /// It leaves probes unanswered.
    Probes,
    /// It leaves requests unanswered.
    Requests,
    /// That node says so. It may be the answering one, if its probes were answered neither directly nor through others.
    Gossip(Name),
}

/// What one node thinks of another. Ages are in milliseconds at the time of the answer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MemberView {
    /// Of whom.
    pub node: Name,
    /// What it thinks.
    pub liveness: Liveness,
    /// For how long.
    pub for_ms: u64,
    /// Why, unless it is alive.
    pub doubt: Option<Doubt>,
    /// The suspicion, in thousandths of phi.
    pub phi_milli: u64,
    /// How long ago the other node answered a probe, if it ever did.
    pub probe_answered_ms: Option<u64>,
    /// How long ago it answered a request, if it ever did.
    pub request_answered_ms: Option<u64>,
    /// What is said of it in the cluster, whether or not the answering node believes it.
    pub gossip: Liveness,
}

/// What a node still has to make equal with others, and what it has done since it started.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ExchangeStatus {
    /// The answering node.
    pub node: Name,
    /// Whether an operator has paused it.
    pub paused: bool,
    /// Each of its partitions with each other owner that it has met.
    pub pairs: Vec<ExchangePair>,
    /// Partitions in which it may lack writes that it has acknowledged: its copies do not count in reads until they are
    /// rebuilt.
    pub incomplete: Vec<PartitionId>,
    /// Partitions of which it holds objects for their owners.
    pub holdings: u32,
    /// Objects that it held for their owners and has handed over.
    pub handed_over: u64,
}

/// A partition of the answering node, and another owner of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ExchangePair {
    /// The partition.
    pub partition: PartitionId,
    /// The other owner.
    pub peer: Name,
    /// How long ago both were last found or made equal, in milliseconds. `None`: not since they met.
    pub equal_ago_ms: Option<u64>,
    /// Whether they were found to differ since.
    pub differs: bool,
    /// Whether they are being made equal now.
    pub walking: bool,
    /// Attempts that have failed since they were last equal.
    pub failures: u32,
    /// Objects that the other owner was sent by walks that the answering node has begun, since it started.
    pub sent: u64,
    /// Objects that such walks took from it.
    pub received: u64,
    /// Bytes of the objects that were sent.
    pub sent_bytes: u64,
    /// Bytes of the objects that were taken.
    pub received_bytes: u64,
}

/// The state of the cluster as one node sees it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Status {
    /// The cluster.
    pub cluster: ClusterId,
    /// The answering node.
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
    /// Data that this node has lost or cannot read. Reported until it is rebuilt.
    pub lost: Vec<String>,
    /// Plugins named in the catalog that this node does not have yet.
    pub missing_plugins: Vec<PluginDigest>,
    /// Warnings for the operator, such as a stored layout that contradicts the configuration, or certificates that
    /// expire soon.
    pub warnings: Vec<String>,
    /// When the answering node's certificate expires, in milliseconds since 1970.
    pub certificate_until_ms: u64,
    /// When the certificate of the cluster's authority expires, in milliseconds since 1970.
    pub authority_until_ms: u64,
    /// Present problems of this node, one line each.
    pub problems: Vec<String>,
    /// How many more nodes can fail before some key loses its read quorum, and its write quorum. Negative if some key
    /// has lost it. `None` without buckets.
    pub spare: Option<(i16, i16)>,
    /// What the answering node holds for the owners of others' partitions.
    pub holdings: Holdings,
    /// What it rebuilds, if it has lost something.
    pub rebuild: Option<Rebuild>,
}

/// Objects that a node holds for their owners, because these could not take them.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Holdings {
    /// Their partitions.
    pub partitions: Vec<PartitionId>,
    /// How many objects.
    pub objects: u64,
}

/// How far a node has come with the rebuild of what it has lost.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Rebuild {
    /// The partitions that are left: its copies of them do not count in reads.
    pub left: Vec<PartitionId>,
    /// How many there were, since the last rebuild has ended or since the start.
    pub partitions: u32,
    /// Objects that were taken from other owners for them.
    pub objects: u64,
    /// Bytes of those.
    pub bytes: u64,
}

/// One reply.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Reply {
    /// To a get.
    Get(GetReply),
    /// To a put or delete.
    Put(PutReply),
    /// To a request for the layout; also sent with [`crate::ErrorCode::StaleLayout`] on its way.
    Layout(Routes),
    /// To [`AdminRequest::Status`].
    Status(Status),
    /// To [`AdminRequest::List`], but for tokens.
    Records(Vec<Record>),
    /// The request failed.
    Error(ErrorReply),
    /// To a change of a record.
    Changed {
        /// The new record.
        record: Record,
        /// The nodes that do not have it yet. Until then they use the earlier record, and may make another one of its
        /// name.
        behind: Vec<Name>,
    },
    /// To [`AdminRequest::Members`].
    Members(Vec<MemberView>),
    /// To [`AdminRequest::Exchange`].
    Exchange(ExchangeStatus),
    /// To [`LayoutRequest::Show`].
    LayoutStatus(LayoutStatus),
    /// To [`LayoutRequest::Plan`].
    LayoutPlan(LayoutPlan),
    /// To a change of what is staged, of the newest layout, or of whom changes wait for: the name of the newest layout.
    LayoutChanged(LayoutRef),
    /// To [`LayoutRequest::Join`].
    Ring(Ring),
    /// To [`AdminRequest::List`] of tokens.
    Tokens(Vec<TokenStatus>),
    /// To [`AdminRequest::Audit`].
    Audit(AuditPage),
    /// To [`AdminRequest::Usage`].
    Usage(TenantUsage),
    /// To [`AdminRequest::PluginPush`] and [`AdminRequest::PluginPushWith`] while the laws are being checked or if one
    /// is broken, and to [`AdminRequest::PluginLaws`].
    Laws {
        /// The digest of the component.
        digest: PluginDigest,
        /// How far its laws are checked.
        state: LawState,
    },
    /// To [`AdminRequest::Conflicts`].
    Conflicts(Vec<ConflictNote>),
    /// To [`AdminRequest::PluginStates`].
    PluginStates(NodePlugins),
    /// To [`AdminRequest::LawViolations`].
    Violations(Vec<LawViolation>),
    /// To [`AdminRequest::Receipts`].
    Receipts(ReceiptPage),
    /// To [`AdminRequest::KeyShow`].
    Key(Box<KeyReport>),
    /// To [`AdminRequest::ShadowReport`].
    ShadowReport(Box<ShadowReport>),
    /// To [`AdminRequest::PluginFetch`].
    Module(Bytes),
}

/// A reply, and what every reply carries.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReplyEnvelope {
    /// The node's layout. A client with an older one requests it.
    pub layout: LayoutRef,
    /// The node's current start id.
    pub start: StartId,
    /// The reply.
    pub reply: Reply,
}

impl Versioned for ReplyEnvelope {
    const VERSION: u8 = 1;
    const WHAT: &'static str = "reply";

    fn size_hint(&self) -> usize {
        let Reply::Get(get) = &self.reply else { return codec::INITIAL_CAPACITY };
        let values = [&get.value, &get.shown].into_iter().flatten().map(Bytes::len).sum::<usize>();
        let siblings = get.siblings.iter().map(|sibling| sibling.value.len() + codec::INITIAL_CAPACITY / 4);
        codec::INITIAL_CAPACITY + values + siblings.sum::<usize>()
    }
}
