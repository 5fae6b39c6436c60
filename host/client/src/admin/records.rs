//! Records of the catalog as types for operators.

use rejoin_proto::catalog::{Activation, BucketProps, Deleted, PastPlugin, Record, RecordBody, RecordKey, Transcript};
use rejoin_proto::signing::Provenance;
use rejoin_proto::{BucketId, Hlc, Name, PluginDigest, TenantId};

/// A bucket in the catalog.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct BucketInfo {
    /// Its name.
    pub name: Name,
    /// The tenant that it belongs to.
    pub tenant: TenantId,
    /// Its id, never reused.
    pub id: BucketId,
    /// Grows by one with each change.
    pub version: u64,
    /// Its properties.
    pub props: BucketProps,
    /// The plugins that it had before, the latest last.
    pub past_plugins: Vec<PastPlugin>,
    /// Set if it is deleted.
    pub deleted: Option<Deleted>,
    /// After a change: the nodes that do not have it yet. Empty for a listed bucket.
    pub behind: Vec<Name>,
}

/// A plugin in the catalog.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct PluginInfo {
    /// The SHA-256 of its component.
    pub digest: PluginDigest,
    /// The name in its card, or the one it was pushed with.
    pub name: Name,
    /// The version in its card.
    pub version: String,
    /// The size of the component.
    pub bytes: u64,
    /// Whether it declares that its values carry their own causality, so that reads may fold.
    pub self_causal: bool,
    /// Whether it has a validator, which is called before every put.
    pub validates: bool,
    /// Why its merges are not run, if it is quarantined.
    pub quarantined: Option<String>,
    /// The token of the operator who has pushed it without its laws being checked, if one has ever.
    pub unchecked: Option<Name>,
    /// What each node must compute with it before it merges with it, one for each engine.
    pub transcripts: Vec<Transcript>,
    /// Where it comes from.
    pub provenance: Option<Provenance>,
    /// Set if it is deleted.
    pub deleted: Option<Deleted>,
}

impl PluginInfo {
    /// The value of [`BucketProps::plugin`] that activates it. The node that changes the bucket fills in the other
    /// fields.
    ///
    /// ```no_run
    /// # use rejoin_client::admin::{BucketProps, PluginInfo};
    /// # fn run(plugin: PluginInfo) {
    /// let props = BucketProps { plugin: Some(plugin.activation()), ..BucketProps::default() };
    /// # }
    /// ```
    #[must_use]
    pub fn activation(&self) -> Activation {
        Activation {
            plugin: self.digest,
            self_causal: self.self_causal,
            since: Hlc::default(),
            replaces: false,
            validates: self.validates,
        }
    }
}

/// The value of [`BucketProps::plugin`] that activates the plugin with that digest. The node that changes the bucket
/// fills in the other fields.
///
/// ```
/// use rejoin_client::admin::{BucketProps, PluginDigest, activation};
///
/// let digest: PluginDigest = "00".repeat(32).parse()?;
/// let props = BucketProps { plugin: Some(activation(digest)), ..BucketProps::default() };
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn activation(digest: PluginDigest) -> Activation {
    Activation { plugin: digest, self_causal: false, since: Hlc::default(), replaces: false, validates: false }
}

pub(super) fn bucket_info(record: Record) -> Option<BucketInfo> {
    let RecordKey::Bucket(tenant, name) = record.key else { return None };
    let (id, props, past, deleted) = match record.body {
        RecordBody::Bucket { id, props, past } => (id, props, past, None),
        RecordBody::DeletedBucket { id, props, past, deleted } => (id, props, past, Some(deleted)),
        _ => return None,
    };
    let (version, past_plugins) = (record.version, past.plugins);
    Some(BucketInfo { name, tenant, id, version, props, past_plugins, deleted, behind: Vec::new() })
}

pub(super) fn plugin_info(record: Record) -> Option<PluginInfo> {
    let RecordKey::Plugin(_, digest) = record.key else { return None };
    let (plugin, deleted) = match record.body {
        RecordBody::Plugin(plugin) => (plugin, None),
        RecordBody::DeletedPlugin { plugin, deleted } => (plugin, Some(deleted)),
        _ => return None,
    };
    Some(PluginInfo {
        digest,
        name: plugin.name,
        version: plugin.version,
        bytes: plugin.bytes,
        self_causal: plugin.self_causal,
        validates: plugin.validates,
        quarantined: plugin.quarantined,
        unchecked: plugin.unchecked,
        transcripts: plugin.transcripts,
        provenance: plugin.provenance.map(|from| *from),
        deleted,
    })
}
