//! The state that all tasks of a node share. It decides nothing.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;

use tokio::sync::{Notify, SetOnce, mpsc, oneshot, watch};

use rejoin_core::node::identity::Disks;
use rejoin_core::view::{ClusterView, shard_of};
use rejoin_proto::access::DEFAULT_TENANT;
use rejoin_proto::client::StartId;
use rejoin_proto::{ClusterId, Name, NodeId, PartitionId, PluginDigest, TenantId};
use rejoin_store::{ControlFile, Keys, StoreWatch};
use rejoin_wire::{Validity, utc_text};

use crate::aside::Aside;
use crate::audit::Audit;
use crate::bootstrap;
use crate::certificates::{Certificates, WARN_BEFORE};
use crate::clock::Clock;
use crate::config::Config;
use crate::encryption::EncryptionState;
use crate::faults::Faults;
use crate::lock::lock;
use crate::members::Membership;
use crate::messages::{CatalogRequest, ShardHandle, ShardMessage, ShardReport};
use crate::metering::Metering;
use crate::metrics::Metrics;
use crate::peer_table::Peers;
use crate::platform::SharedRng;
use crate::plugins::PluginService;
use crate::problems::Problems;
use crate::readiness::Readiness;
use crate::sessions::Sessions;
use crate::sizes::Sizes;
use crate::view::NodeView;

/// The shared state of a node's tasks.
pub(crate) struct NodeContext {
    pub(crate) config: Config,
    pub(crate) cluster: ClusterId,
    pub(crate) node: NodeId,
    pub(crate) shards: Vec<ShardHandle>,
    /// The catalog task's queue.
    pub(crate) catalog: mpsc::UnboundedSender<CatalogRequest>,
    pub(crate) view: watch::Receiver<Arc<NodeView>>,
    pub(crate) start: watch::Receiver<StartId>,
    /// Set once the node serves; clients are admitted from then on.
    pub(crate) serving: SetOnce<()>,
    /// Why the node cannot serve until an operator changes something.
    pub(crate) barred: watch::Sender<Option<String>>,
    pub(crate) catalog_digest: AtomicU64,
    pub(crate) peers: Mutex<Peers>,
    /// Locked after `peers`, never before.
    pub(crate) members: Mutex<Membership>,
    /// Peers to dial, for the links task.
    pub(crate) dials: mpsc::UnboundedSender<NodeId>,
    pub(crate) files: ControlFile,
    /// Reasons for which the node must stop. The first one stops it.
    pub(crate) failures: mpsc::UnboundedSender<String>,
    /// The number of the last connection to a peer.
    pub(crate) connection_numbers: AtomicU64,
    pub(crate) sessions: Sessions,
    pub(crate) metering: Arc<Metering>,
    /// The number of the last session.
    pub(crate) session_numbers: AtomicU64,
    /// Set when the node is asked to stop. It takes no client requests from then on.
    pub(crate) stopping: SetOnce<()>,
    /// While stopping: the peers that wait for nothing more from this node.
    pub(crate) released_by: watch::Sender<BTreeSet<NodeId>>,
    /// Wakes the links task, because its next wake-up time may have changed.
    pub(crate) links_changed: Notify,
    /// Wakes the links task to dial now.
    pub(crate) redial: Notify,
    pub(crate) plugins: PluginService,
    pub(crate) aside: Aside,
    pub(crate) faults: Faults,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) clock: Clock,
    pub(crate) rng: SharedRng,
    pub(crate) certificates: Certificates,
    pub(crate) audit: Audit,
    /// Differences between the stored layout and the bootstrap list, for people.
    pub(crate) contradictions: Vec<String>,
    /// Data that the store found missing at the start, for people.
    pub(crate) lost: Vec<String>,
    pub(crate) problems: Problems,
    pub(crate) sizes: Sizes,
    pub(crate) readiness: Readiness,
    /// One for each shard.
    pub(crate) stores: Vec<StoreWatch>,
    /// The keys that values are encrypted with on the disk.
    pub(crate) keys: Option<Arc<Keys>>,
}

/// What there is to say of a quarantined plugin.
pub(crate) fn quarantined(view: &ClusterView, (tenant, digest, why): (TenantId, &PluginDigest, &str)) -> String {
    let name = view.plugin_name(tenant, digest).map_or_else(String::new, |name| format!("{name}, "));
    let of = match view.tenant_name(tenant) {
        Some(tenant) if tenant.as_str() != DEFAULT_TENANT => format!(" of tenant {tenant}"),
        _ => String::new(),
    };
    format!(
        "plugin {name}{digest}{of}, is quarantined: {why}. Its merges are not run, and readers get all siblings, until `rejoin \
         plugin release {digest}`"
    )
}

impl NodeContext {
    pub(crate) fn cluster_view(&self) -> Arc<ClusterView> {
        self.view.borrow().cluster.clone()
    }

    /// The number of shards.
    pub(crate) fn shard_count(&self) -> u16 {
        // The configuration allows 256.
        u16::try_from(self.shards.len()).unwrap_or(u16::MAX)
    }

    /// The index of a partition's shard.
    pub(crate) fn shard_index(&self, partition: PartitionId, view: &ClusterView) -> usize {
        usize::from(shard_of(partition, view.layout().partitions(), self.shard_count()))
    }

    /// Everything that an operator should look at although the node works.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let mut warnings = self.contradictions.clone();
        if !warnings.is_empty() {
            warnings.push(bootstrap::KEPT.into());
        }
        warnings.extend(self.certificates.warnings(&self.config));
        warnings.extend(self.peer_certificate_warnings());
        warnings.extend(self.audit.warnings());
        warnings.extend(self.keys.iter().flat_map(|keys| self.encryption().lines(keys)));
        let view = self.cluster_view();
        warnings.extend(view.quarantines().map(|quarantine| quarantined(&view, quarantine)));
        warnings.extend(self.plugins.alarms(&view));
        // No problem of the node, although its machine may be one: what a tenant pushes is not to decide whether the
        // node is taken out of service.
        warnings.extend(self.plugins.differing().into_iter().map(|(_, why)| why));
        warnings
    }

    /// How far the values on the disk are encrypted with the key in use.
    pub(crate) fn encryption(&self) -> EncryptionState {
        EncryptionState::of(self.stores.iter().filter_map(StoreWatch::sealed_rows))
    }

    /// Sends a message to every shard.
    pub(crate) fn broadcast(&self, message: impl Fn() -> ShardMessage) {
        for shard in &self.shards {
            // A shard that has stopped takes no messages.
            let _ = shard.messages.send(message());
        }
    }

    /// The figures of all shards that have not stopped, in their order.
    pub(crate) async fn reports(&self) -> Vec<ShardReport> {
        let mut reports = Vec::with_capacity(self.shards.len());
        for shard in &self.shards {
            let (answer, answered) = oneshot::channel();
            let _ = shard.messages.send(ShardMessage::Report(answer));
            reports.extend(answered.await);
        }
        reports
    }

    /// The node's problems, those of its stores, and that it computes wrongly.
    pub(crate) fn all_problems(&self) -> Vec<String> {
        let name = &self.config.name;
        let stores = self.stores.iter().flat_map(StoreWatch::problems).map(|problem| format!("{name}: {problem}"));
        self.problems.all().into_iter().chain(stores).chain(self.plugins.machine_fault()).collect()
    }

    /// Reports whether this node's data directory was replaced by an empty one, and the node is not rebuilt yet.
    pub(crate) fn report_replaced(&self, disks: &Disks) {
        let name = &self.config.name;
        let Some(by) = disks.replaced.as_ref().filter(|_| disks.is_replaced()) else {
            return self.problems.clear("data directory");
        };
        let problem = format!(
            "this replica has lost everything: {by} knows {name} with another data directory; reads do not count \
                {name} \
             until it is rebuilt"
        );
        self.problems.set("data directory", problem);
    }

    pub(crate) fn peers(&self) -> MutexGuard<'_, Peers> {
        lock(&self.peers)
    }

    pub(crate) fn members(&self) -> MutexGuard<'_, Membership> {
        lock(&self.members)
    }

    pub(crate) fn peer_name(&self, id: NodeId) -> Name {
        let view = self.view.borrow();
        view.nodes.get(&id).map_or_else(|| view.cluster.node_name(id), |known| known.name.clone())
    }

    /// Warnings about the certificates of connected peers.
    pub(crate) fn peer_certificate_warnings(&self) -> Vec<String> {
        let now = SystemTime::now();
        let shown: Vec<_> =
            self.peers().all().map(|(peer, connection)| (*peer, connection.certificate_validity())).collect();
        let warning = |(peer, period): (NodeId, Option<Validity>)| {
            let (name, period) = (self.peer_name(peer), period?);
            if period.ended_before(now) {
                Some(format!(
                    "the certificate of node {name} has expired on {}; the connection stays until it ends",
                    utc_text(period.until)
                ))
            } else {
                let ends = || format!("the certificate of node {name} ends on {}", utc_text(period.until));
                (period.left(now) < WARN_BEFORE).then(ends)
            }
        };
        shown.into_iter().filter_map(warning).collect()
    }
}
