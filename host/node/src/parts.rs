//! What the tasks of a node share.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, SetOnce, mpsc, watch};

use rejoin_core::view::{ClusterView, shard_of};
use rejoin_proto::client::StartId;
use rejoin_proto::{ClusterId, Name, NodeId, PartitionId};
use rejoin_store::ControlFile;
use rejoin_store::StoreWatch;

use crate::catalog::ControlCall;
use crate::certificates::Certificates;
use crate::clock::Clock;
use crate::config::Config;
use crate::driver::{Notice, ShardHandle};
use crate::faults::Faults;
use crate::metrics::Metrics;
use crate::modules::Desk;
use crate::peers::Peers;
use crate::platform::Chance;
use crate::problems::Problems;
use crate::session::Sessions;
use crate::token::Tokens;
use crate::{bootstrap, certificates};

/// Layout and catalog as sessions see them.
pub(crate) struct NodeView {
    pub(crate) cluster: Arc<ClusterView>,
    pub(crate) tokens: Tokens,
}

/// What the tasks of a node share.
pub(crate) struct Parts {
    pub(crate) config: Config,
    pub(crate) cluster: ClusterId,
    pub(crate) node: NodeId,
    pub(crate) shards: Vec<ShardHandle>,
    pub(crate) control: mpsc::UnboundedSender<ControlCall>,
    pub(crate) view: watch::Receiver<Arc<NodeView>>,
    pub(crate) start: watch::Receiver<StartId>,
    /// Whether the other nodes have had their time; clients are let in from then on.
    pub(crate) serving: SetOnce<()>,
    /// Why this node must not serve, while somebody has to change something first.
    pub(crate) barred: watch::Sender<Option<String>>,
    pub(crate) catalog_digest: AtomicU64,
    pub(crate) peers: Mutex<Peers>,
    /// Where peers are asked to be dialled.
    pub(crate) dials: mpsc::UnboundedSender<NodeId>,
    /// Small files of the data directory.
    pub(crate) files: ControlFile,
    /// Told when the node cannot go on.
    pub(crate) failures: mpsc::UnboundedSender<String>,
    pub(crate) generations: AtomicU64,
    pub(crate) sessions: Sessions,
    /// Set when the node is asked to stop: from then on it takes no requests of clients.
    pub(crate) leaving: SetOnce<()>,
    /// The peers that ask nothing more of this node, now that it is leaving.
    pub(crate) left: watch::Sender<BTreeSet<NodeId>>,
    pub(crate) session_numbers: AtomicU64,
    /// Woken when the links may want another wake-up time, or when dialling should be tried at once.
    pub(crate) links_changed: Notify,
    pub(crate) redial: Notify,
    pub(crate) desk: Desk,
    pub(crate) faults: Faults,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) clock: Clock,
    pub(crate) chance: Chance,
    pub(crate) certificates: Certificates,
    /// Where the kept layout says something else than the configuration.
    pub(crate) contradictions: Vec<String>,
    /// What this node has lost, as its store said at the start.
    pub(crate) lost: Vec<String>,
    /// What is not well now.
    pub(crate) problems: Problems,
    /// One for each shard.
    pub(crate) stores: Vec<StoreWatch>,
}

impl Parts {
    pub(crate) fn cluster_view(&self) -> Arc<ClusterView> {
        self.view.borrow().cluster.clone()
    }

    pub(crate) fn shard_of(&self, partition: PartitionId, view: &ClusterView) -> &ShardHandle {
        let shards = u16::try_from(self.shards.len()).unwrap_or(1);
        &self.shards[usize::from(shard_of(partition, view.layout().partitions(), shards))]
    }

    /// What an operator should look at, for people.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let mut warnings = self.contradictions.clone();
        if !warnings.is_empty() {
            warnings.push(bootstrap::KEPT.into());
        }
        warnings.extend(self.certificates.warnings(&self.config));
        warnings.extend(certificates::of_peers(self));
        warnings
    }

    /// Tells every shard.
    pub(crate) fn tell_all(&self, notice: impl Fn() -> Notice) {
        for shard in &self.shards {
            // A shard that has stopped needs no news.
            let _ = shard.notices.send(notice());
        }
    }

    /// What is not well now, with the disk and the damage of this node's stores.
    pub(crate) fn all_problems(&self) -> Vec<String> {
        let name = &self.config.name;
        let stores = self.stores.iter().flat_map(StoreWatch::problems).map(|problem| format!("{name}: {problem}"));
        self.problems.all().into_iter().chain(stores).collect()
    }

    /// Says that this node's data directory was replaced by an empty one.
    pub(crate) fn report_replaced(&self, by: &Name) {
        let name = &self.config.name;
        let problem = format!(
            "this replica has lost everything: {by} knows {name} with another data directory; reads do not count {name} until it is rebuilt"
        );
        self.problems.set("data directory", problem);
    }

    pub(crate) fn peers(&self) -> MutexGuard<'_, Peers> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn peer_name(&self, id: NodeId) -> Name {
        self.cluster_view().node_name(id)
    }
}
