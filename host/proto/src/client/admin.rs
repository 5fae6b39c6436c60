//! What an operator, a team's admin or a plugin's author asks of a node.

use alloc::boxed::Box;
use alloc::vec::Vec;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::RecordKind;
#[cfg(doc)]
use super::Reply;
use crate::access::Grant;
use crate::audit::AuditRequest;
use crate::catalog::BucketProps;
use crate::id::{Name, PluginDigest};
use crate::layout_request::LayoutRequest;
use crate::quota::Quota;
use crate::receipt::ReceiptQuery;
use crate::signing::{PluginSignature, SignerChange};

/// A request of an operator.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum AdminRequest {
    /// The state of the cluster as this node sees it.
    Status,
    /// All records of a kind of the tenant: of tenants itself only, unless an operator asks. Of tokens the answer is
    /// [`Reply::Tokens`].
    List(RecordKind),
    /// Makes a bucket.
    BucketCreate {
        /// Unique within the tenant.
        name: Name,
        /// `plugin` names a pushed one.
        props: BucketProps,
    },
    /// Changes a bucket, if its version is still the same.
    BucketSet {
        /// An existing bucket of the tenant.
        name: Name,
        /// The version that the client read.
        version: u64,
        /// All properties, changed or not.
        props: BucketProps,
        /// Whether it gets its plugins also while nodes that are alive are not ready for them.
        force: bool,
    },
    /// Makes a token. The client draws the secret and sends only its hash.
    TokenCreate {
        /// Unique within the tenant.
        name: Name,
        /// What it allows.
        grant: Grant,
        /// BLAKE3 of the secret part.
        secret_hash: [u8; 32],
    },
    /// Gives a token another secret. Both are taken for a while.
    TokenRotate {
        /// An existing token.
        name: Name,
        /// BLAKE3 of the new secret part.
        secret_hash: [u8; 32],
        /// For how long the old secret is taken, in milliseconds.
        overlap_ms: u64,
    },
    /// Revokes a token.
    TokenRevoke {
        /// An existing token, or the name of certificates.
        name: Name,
        /// Also refuses every certificate of that name, for good.
        certificates: bool,
    },
    /// Stores a plugin on this node, which checks its laws first. The other nodes fetch it from there. While the laws
    /// are being checked, and if one is broken, the answer is [`Reply::Laws`] and nothing is stored.
    PluginPush {
        /// Used if the component has no card with a name.
        name: Name,
        /// The bytes of the component.
        module: Bytes,
        /// Stores it without checking its laws, which its record then says.
        unchecked: bool,
        /// That somebody vouches for it. Needed where the tenant has signers.
        signature: Option<PluginSignature>,
    },
    /// What this node thinks of every other one.
    Members,
    /// What this node still has to make equal with others.
    Exchange,
    /// Pauses this node's exchange (`true`), or goes on with it. Answered like [`AdminRequest::Exchange`].
    ExchangePause(bool),
    /// Runs the merges of a quarantined plugin again, and has nodes record its transcripts anew.
    PluginRelease {
        /// A plugin of the catalog.
        digest: PluginDigest,
    },
    /// About layouts.
    Layout(LayoutRequest),
    /// Makes a tenant.
    TenantCreate {
        /// Unique within the cluster.
        name: Name,
    },
    /// A part of the audit log of this node.
    Audit(AuditRequest),
    /// Disables a tenant, and reaps all that it has later.
    TenantDelete {
        /// Any but `default`.
        name: Name,
        /// For how long it can be restored, in milliseconds.
        after_ms: u64,
    },
    /// Undoes the deletion of a tenant that is not reaped.
    TenantRestore {
        /// A deleted one.
        name: Name,
    },
    /// Disables a bucket, and reaps its objects later.
    BucketDelete {
        /// A bucket of the tenant.
        name: Name,
        /// For how long it can be restored, in milliseconds.
        after_ms: u64,
    },
    /// Undoes the deletion of a bucket that is not reaped.
    BucketRestore {
        /// A deleted one.
        name: Name,
    },
    /// Deletes a plugin that no bucket of the tenant uses.
    PluginDelete {
        /// A plugin of the tenant.
        digest: PluginDigest,
        /// For how long it can be restored, in milliseconds.
        after_ms: u64,
    },
    /// Undoes the deletion of a plugin that is not reaped.
    PluginRestore {
        /// A deleted one.
        digest: PluginDigest,
    },
    /// What the tenant uses at the answering node.
    Usage,
    /// Sets the quota of the tenant, or of one of its buckets.
    QuotaSet {
        /// A bucket of the tenant. `None`: all of them together.
        bucket: Option<Name>,
        /// The whole quota: what it does not name is not limited.
        quota: Box<Quota>,
    },
    /// The keys whose merge has failed at the answering node.
    Conflicts {
        /// A bucket of the tenant.
        bucket: Name,
    },
    /// How far this node has checked the laws of a plugin that was pushed here. The answer is [`Reply::Laws`].
    PluginLaws {
        /// The digest of its component.
        digest: PluginDigest,
    },
    /// Whether the answering node can run the tenant's plugins. The answer is [`Reply::PluginStates`].
    PluginStates {
        /// Only this one. If it is on the disk only, the node begins to load it. `None`: all, as they are.
        digest: Option<PluginDigest>,
    },
    /// Changes who may sign the tenant's plugins.
    SignersSet(SignerChange),
    /// The merges of a bucket that were found to break a law, as far as the answering node has kept them. The answer
    /// is [`Reply::Violations`].
    LawViolations {
        /// A bucket of the tenant.
        bucket: Name,
    },
    /// The receipts of folds that the answering node keeps.
    Receipts(Box<ReceiptQuery>),
    /// What the answering node knows of a key.
    KeyShow {
        /// A bucket of the tenant.
        bucket: Name,
        /// The key.
        key: Bytes,
    },
    /// What the answering node knows of a bucket's shadow.
    ShadowReport {
        /// A bucket of the tenant.
        bucket: Name,
        /// Whether the keys and values of merges are wanted, and not only the counts.
        samples: bool,
    },
    /// The component of a plugin.
    PluginFetch {
        /// A plugin of the tenant.
        digest: PluginDigest,
    },
    /// As [`AdminRequest::PluginPush`] of a plugin whose laws are checked, on more than the values of its own sampler.
    PluginPushWith {
        /// Used if the component has no card with a name.
        name: Name,
        /// The bytes of the component.
        module: Bytes,
        /// As there.
        signature: Option<PluginSignature>,
        /// What it is checked on beside its own values.
        checks: Box<PushChecks>,
    },
}

/// What a plugin that is pushed is checked on beside the values of its own sampler.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct PushChecks {
    /// What its operations mean: the JSON of `rejoin plugin test --intent`, at most [`MAX_INTENT_BYTES`].
    pub intent: Option<Bytes>,
    /// A bucket of the tenant, whose siblings the answering node takes a sample of.
    pub siblings_of: Option<Name>,
    /// Valid values of the team, which are checked among those of the sampler: at most [`MAX_FIXTURES`], of
    /// [`MAX_FIXTURE_BYTES`] together.
    #[serde(deserialize_with = "crate::bounded::seq::<_, _, MAX_FIXTURES>")]
    pub fixtures: Vec<Bytes>,
}

impl PushChecks {
    /// Whether there is nothing beside the plugin's own values.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.intent.is_none() && self.siblings_of.is_none() && self.fixtures.is_empty()
    }

    /// The bytes of all fixtures.
    #[must_use]
    pub fn fixture_bytes(&self) -> usize {
        self.fixtures.iter().map(Bytes::len).sum()
    }
}

/// The most bytes of [`PushChecks::intent`].
pub const MAX_INTENT_BYTES: usize = 64 << 10;
/// The most [`PushChecks::fixtures`] that any node takes. One may be configured to take fewer.
pub const MAX_FIXTURES: usize = 4_096;
/// The most bytes of them together.
pub const MAX_FIXTURE_BYTES: usize = 4 << 20;
