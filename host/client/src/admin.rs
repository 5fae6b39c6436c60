//! The interface of operators and tenants' administrators: status, tenants, buckets, tokens, plugins and layouts.
//!
//! The types of records and properties are those of the cluster. Changes are compare-and-set: they name the version
//! that was read, and fail with [`ErrorKind::VersionConflict`] if the record was changed meanwhile. Changes are sent
//! once. If no reply comes, they fail with [`ErrorKind::Unknown`], and the record should be read again.
//!
//! ```no_run
//! use rejoin_client::admin::BucketProps;
//!
//! # async fn run(client: rejoin_client::Client) -> rejoin_client::Result<()> {
//! let admin = client.admin();
//! let plugin = admin.push_plugin("cart", std::fs::read("cart.wasm").unwrap()).await?;
//! admin.create_bucket("cart", BucketProps { plugin: Some(plugin.activation()), ..BucketProps::default() }).await?;
//! # Ok(()) }
//! ```

mod audit;
mod conflicts;
mod deletions;
mod from_nodes;
mod layouts;
mod lifecycle;
mod plugins;
mod quotas;
mod readiness;
mod receipts;
mod records;
mod signers;
mod tenants;
mod tokens;
mod trials;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use readiness::{FIRST_PAUSE, LONGEST_PAUSE};
use records::{bucket_info, plugin_info};

use rejoin_proto::catalog::Record;
use rejoin_proto::client::{AdminRequest, RecordKind, Reply, RequestBody};
use rejoin_wire::Class;

use crate::engine::{Engine, Route, unexpected};
use crate::{Error, ErrorKind, Result};

pub use conflicts::Conflict;
pub use from_nodes::FromNodes;
pub use plugins::{Component, PUSH_TIMEOUT, PushedPlugin};
pub use quotas::{Stored, Usage};
pub use readiness::{PluginReadiness, READY_WAIT};
pub use receipts::ReceiptFilter;
pub use records::{BucketInfo, PluginInfo, activation};
pub use rejoin_proto::access::{Grant, Limits, Scope};
pub use rejoin_proto::audit::{
    AuditActor, AuditCommand, AuditEntry, AuditEvent, AuditHash, AuditHead, AuditOutcome, AuditPage, AuditRecord,
    ChainFault, ChainWalk,
};
pub use rejoin_proto::catalog::{Activation, BucketProps, Deleted, Durability, PastPlugin, Quorum, Transcript};
pub use rejoin_proto::client::{
    Doubt, ExchangePair, ExchangeStatus, Holdings, LawState, Liveness, MAX_FIXTURE_BYTES, MAX_FIXTURES, MemberView,
    NodeStatus, PushChecks, ReachedLimit, Rebuild, Status, TokenStatus,
};
pub use rejoin_proto::conflict::LawViolation;
pub use rejoin_proto::layout_request::{
    AwaitedNode, BucketChange, ChangeStatus, CopiesStatus, LayoutChanges, LayoutNodeStatus, LayoutPlan, LayoutStatus,
    LayoutStep, MemberStatus, NodeChange, PastLayoutStatus, PlannedNode,
};
pub use rejoin_proto::plugin_state::{NodePlugins, PluginState};
pub use rejoin_proto::quota::{Amounts, Limit, MAX_WEIGHT, Quota};
pub use rejoin_proto::receipt::{
    CopyReport, EntryReport, FailedMerge, FoldReceipt, KeptReceipt, KeyReport, MergeLimits, output_hash,
    siblings as siblings_of,
};
pub use rejoin_proto::ring::Role;
pub use rejoin_proto::signing::{BadSignature, PluginSignature, Provenance, SignerKey};
pub use rejoin_proto::trial::{Canary, Shadow, ShadowCounts, ShadowReport, ShadowSample};
pub use rejoin_proto::undo::{Undo, UndoPlan, plan as undo_plan};
pub use rejoin_proto::{
    BucketId, ClusterId, Content, DotSet, Entry, FoldedBy, LayoutPolicy, LayoutRef, Name, PartitionId, PluginDigest,
    ProfileId, TenantId, ZoneDemand,
};
pub use tenants::TenantInfo;
pub use tokens::NewToken;

/// The administrative interface of a [`Client`](crate::Client). Clones are cheap.
#[derive(Clone, Debug)]
pub struct Admin {
    engine: Arc<Engine>,
    timeout: Duration,
    push_timeout: Duration,
}

impl Admin {
    pub(crate) fn new(engine: Arc<Engine>) -> Self {
        let timeout = engine.timeout;
        Self { engine, timeout, push_timeout: timeout.max(PUSH_TIMEOUT) }
    }

    /// The time-out of each call. Default: the client's, but at least [`PUSH_TIMEOUT`] for the push of a plugin.
    ///
    /// ```no_run
    /// # async fn run(client: rejoin_client::Client) -> rejoin_client::Result<()> {
    /// let status = client.admin().timeout(std::time::Duration::from_secs(30)).status().await?;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        (self.timeout, self.push_timeout) = (timeout, timeout);
        self
    }

    /// The state of the cluster as the answering node sees it.
    ///
    /// ```no_run
    /// # async fn run(client: rejoin_client::Client) -> rejoin_client::Result<()> {
    /// let down = client.admin().status().await?.nodes.into_iter().filter(|node| !node.up).count();
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Denied`] for a token whose scope does not allow it, and the errors of a node that cannot be reached
    /// or does not answer.
    pub async fn status(&self) -> Result<Status> {
        match self.ask(AdminRequest::Status).await? {
            Reply::Status(status) => Ok(status),
            _ => Err(unexpected("the node")),
        }
    }

    /// What the node that answers thinks of every other one: whether it answers, since when, and why.
    ///
    /// ```no_run
    /// # use rejoin_client::admin::Liveness;
    /// # async fn run(client: rejoin_client::Client) -> rejoin_client::Result<()> {
    /// let members = client.admin().members().await?;
    /// let doubted = members.iter().filter(|member| member.liveness != Liveness::Alive).count();
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Admin::status`].
    pub async fn members(&self) -> Result<Vec<MemberView>> {
        match self.ask(AdminRequest::Members).await? {
            Reply::Members(members) => Ok(members),
            _ => Err(unexpected("the node")),
        }
    }

    /// What the node that answers still has to make equal with others, and what it has done for that.
    ///
    /// ```no_run
    /// # async fn run(client: rejoin_client::Client) -> rejoin_client::Result<()> {
    /// let behind = client.admin().exchange().await?.pairs.iter().filter(|pair| pair.differs).count();
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Admin::status`].
    pub async fn exchange(&self) -> Result<ExchangeStatus> {
        match self.ask(AdminRequest::Exchange).await? {
            Reply::Exchange(status) => Ok(status),
            _ => Err(unexpected("the node")),
        }
    }

    /// Pauses the exchange of the node that answers, or goes on with it, until it is set again or the node restarts.
    /// While it is paused the node begins no comparison with another one; it still answers those of others, and reads
    /// repair what they find.
    ///
    /// ```no_run
    /// # async fn run(client: rejoin_client::Client) -> rejoin_client::Result<()> {
    /// assert!(client.admin().pause_exchange(true).await?.paused);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Admin::status`].
    pub async fn pause_exchange(&self, paused: bool) -> Result<ExchangeStatus> {
        match self.ask(AdminRequest::ExchangePause(paused)).await? {
            Reply::Exchange(status) => Ok(status),
            _ => Err(unexpected("the node")),
        }
    }

    /// All buckets of the tenant, by name, deleted ones too while they can be restored.
    ///
    /// ```no_run
    /// # async fn run(client: rejoin_client::Client) -> rejoin_client::Result<()> {
    /// for bucket in client.admin().buckets().await? {
    ///     println!("{} keeps {} copies", bucket.name, bucket.props.n);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Admin::status`].
    pub async fn buckets(&self) -> Result<Vec<BucketInfo>> {
        let mut buckets: Vec<BucketInfo> =
            self.list(RecordKind::Bucket).await?.into_iter().filter_map(bucket_info).collect();
        buckets.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(buckets)
    }

    /// The tenant's bucket with that name.
    ///
    /// ```no_run
    /// # async fn run(client: rejoin_client::Client) -> rejoin_client::Result<()> {
    /// let r = client.admin().bucket("cart").await?.props.r;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is none; otherwise as [`Admin::status`].
    pub async fn bucket(&self, name: &str) -> Result<BucketInfo> {
        let is_it = |bucket: &BucketInfo| bucket.name.as_str() == name && bucket.deleted.is_none();
        let found = self.buckets().await?.into_iter().find(is_it);
        found.ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!("there is no bucket {name:?}; `rejoin bucket list` shows those there are"),
            )
        })
    }

    /// Makes a bucket. [`BucketInfo::behind`] names the nodes that do not have it yet. If a bucket of the same name
    /// with other properties is made there meanwhile, only one of the two keeps the name.
    ///
    /// A node makes no bucket with a plugin for which a node that is alive is not ready, as just after a push: then the
    /// bucket is asked for again, for [`READY_WAIT`].
    ///
    /// ```no_run
    /// # use rejoin_client::admin::{BucketProps, Quorum};
    /// # async fn run(client: rejoin_client::Client) -> rejoin_client::Result<()> {
    /// client.admin().create_bucket("notes", BucketProps { r: Quorum::Count(1), ..BucketProps::default() }).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Exists`], [`ErrorKind::VersionConflict`] if another node has made one at the same time, and that
    /// one has won, [`ErrorKind::BadRequest`] for properties out of bounds, [`ErrorKind::NotFound`] for a plugin that
    /// was not pushed, [`ErrorKind::PluginNotReady`] and [`ErrorKind::PluginRejected`] with the nodes that are not
    /// ready for it or will not run it, [`ErrorKind::Config`] for a malformed name; else as [`Admin::status`].
    pub async fn create_bucket(&self, name: &str, props: BucketProps) -> Result<BucketInfo> {
        let name = admin_name(name)?;
        self.bucket_change(AdminRequest::BucketCreate { name, props }).await
    }

    /// Replaces all properties of a bucket, if its version is still `version`. [`BucketInfo::behind`] names the nodes
    /// that still use the old properties. Until they have the change, a read there may miss writes made with another r
    /// and w.
    ///
    /// `n` and `sloppy` are changed by themselves, with all other properties as they are. Such a change takes the steps
    /// of a change of layout, which have begun when this returns. [`LayoutStatus::buckets`] has the bucket until they
    /// are done. No request fails because of it.
    ///
    /// For a plugin that it does not have yet this waits as [`Admin::create_bucket`] does.
    /// [`Admin::activate_plugin_at_once`] does not.
    ///
    /// ```no_run
    /// # async fn run(client: rejoin_client::Client) -> rejoin_client::Result<()> {
    /// let admin = client.admin();
    /// let mut cart = admin.bucket("cart").await?;
    /// cart.props.siblings = 64;
    /// admin.set_bucket("cart", cart.version, cart.props).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::VersionConflict`] if it was changed meanwhile; else as [`Admin::create_bucket`].
    pub async fn set_bucket(&self, name: &str, version: u64, props: BucketProps) -> Result<BucketInfo> {
        self.put_bucket(name, version, props, false).await
    }

    /// As [`Admin::set_bucket`]. With `force` nodes need not be ready for its plugins.
    async fn put_bucket(&self, name: &str, version: u64, props: BucketProps, force: bool) -> Result<BucketInfo> {
        let name = admin_name(name)?;
        self.bucket_change(AdminRequest::BucketSet { name, version, props, force }).await
    }

    /// Sends a change of a bucket, again while nodes are not ready for a plugin that it gets.
    async fn bucket_change(&self, verb: AdminRequest) -> Result<BucketInfo> {
        let (until, mut pause) = (Instant::now() + READY_WAIT, FIRST_PAUSE);
        loop {
            match self.change(verb.clone(), bucket_info).await {
                Err(error) if error.kind() == ErrorKind::PluginNotReady && Instant::now() < until => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                changed => return changed.map(|(bucket, behind)| BucketInfo { behind, ..bucket }),
            }
        }
    }

    /// All plugins of the tenant, by name, then digest, deleted ones too while they can be restored.
    ///
    /// ```no_run
    /// # async fn run(client: rejoin_client::Client) -> rejoin_client::Result<()> {
    /// for plugin in client.admin().plugins().await? {
    ///     println!("{} {} {}", plugin.name, plugin.version, plugin.digest);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Admin::status`].
    pub async fn plugins(&self) -> Result<Vec<PluginInfo>> {
        let mut plugins: Vec<PluginInfo> =
            self.list(RecordKind::Plugin).await?.into_iter().filter_map(plugin_info).collect();
        plugins.sort_by(|a, b| (&a.name, a.digest).cmp(&(&b.name, b.digest)));
        Ok(plugins)
    }

    /// Ends the quarantine of a plugin: its merges are run again on every node. Its transcripts are forgotten, and
    /// nodes record them anew, those first that have computed otherwise than what was recorded.
    ///
    /// ```no_run
    /// # async fn run(client: rejoin_client::Client) -> rejoin_client::Result<()> {
    /// let admin = client.admin();
    /// for plugin in admin.plugins().await?.into_iter().filter(|plugin| plugin.quarantined.is_some()) {
    ///     admin.release_plugin(plugin.digest).await?;
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no such plugin; else as [`Admin::status`].
    pub async fn release_plugin(&self, digest: PluginDigest) -> Result<PluginInfo> {
        self.change(AdminRequest::PluginRelease { digest }, plugin_info).await.map(|(plugin, _)| plugin)
    }

    async fn list(&self, kind: RecordKind) -> Result<Vec<Record>> {
        match self.ask(AdminRequest::List(kind)).await? {
            Reply::Records(records) => Ok(records),
            _ => Err(unexpected("the node")),
        }
    }

    /// Sends a request that changes nothing.
    async fn ask(&self, verb: AdminRequest) -> Result<Reply> {
        self.engine.read(Route::Any, &RequestBody::Admin(verb), self.timeout, None).await
    }

    /// Sends a change. Returns the new record, converted by `info`, and the nodes that do not have it yet.
    async fn change<T>(&self, verb: AdminRequest, info: fn(Record) -> Option<T>) -> Result<(T, Vec<Name>)> {
        match self.engine.once(Class::Request, RequestBody::Admin(verb), self.timeout).await? {
            Reply::Changed { record, behind } => {
                info(record).map(|record| (record, behind)).ok_or_else(|| unexpected("the node"))
            }
            _ => Err(unexpected("the node")),
        }
    }
}

fn admin_name(name: &str) -> Result<Name> {
    Name::new(name).map_err(|why| Error::new(ErrorKind::Config, format!("{name:?}: {why}")))
}
