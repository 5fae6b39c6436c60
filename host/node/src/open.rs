//! What a node finds when it starts: its identity, its data directory, layout and catalog, and its shards, opened and not yet running.

use std::path::Path;
use std::sync::Arc;

use rand_core::SeedableRng as _;
use rand_xoshiro::Xoshiro256PlusPlus;
use rejoin_core::control::{Catalog, Control};
use rejoin_core::placement::{DEFAULT_PARTITIONS, bootstrap};
use rejoin_core::shard::{self, Shard};
use rejoin_core::view::ClusterView;
use rejoin_proto::catalog::{Record, RecordBody, RecordKey};
use rejoin_proto::context::ContextKey;
use rejoin_proto::{ClusterId, Hlc, Layout, LayoutNode, Name, NodeId, TenantId, codec};
use rejoin_store::{ControlFile, DataDir, Disk, Options, ShardStore, Start};
use rejoin_wire::{Identity, Role};
use tokio::sync::Notify;

use crate::catalog::{CATALOG_FILE, node_view};
use crate::config::Config;
use crate::faults::{Faults, HeldDisk};
use crate::node::StartError;
use crate::parts::NodeView;
use crate::platform::{Chance, Platform, Threads};
use crate::token::DEFAULT_TENANT;

/// The name under which the layout is kept.
const LAYOUT_FILE: &str = "layout";
/// The fewest bytes of a cluster's secret.
const MIN_SECRET_BYTES: usize = 16;

/// What a node starts from.
pub(crate) struct Opening {
    pub(crate) identity: Identity,
    pub(crate) node: NodeId,
    pub(crate) secret: Vec<u8>,
    pub(crate) faults: Faults,
    pub(crate) dir: DataDir,
    pub(crate) layout: Layout,
    pub(crate) control: Control,
    pub(crate) view: Arc<NodeView>,
    pub(crate) shards: Vec<Opened>,
    /// What the store has lost, for people.
    pub(crate) lost: Vec<String>,
}

/// A shard that is open and not yet running.
pub(crate) struct Opened {
    pub(crate) shard: Shard,
    pub(crate) store: ShardStore,
    /// Told when the store has maintenance to do, unless a thread of the store's own does it.
    pub(crate) due: Arc<Notify>,
}

/// Reads and opens everything that a node has on its disk.
pub(crate) fn open(config: &Config, platform: &Platform, chance: &Chance) -> Result<Opening, StartError> {
    let identity = identity(config)?;
    let cluster = identity.cluster();
    let node = own_id(config, &identity)?;
    let secret = read("secret", &config.secret)?;
    if secret.len() < MIN_SECRET_BYTES {
        return Err(StartError::Unfit(format!("secret = {}: it has fewer than {MIN_SECRET_BYTES} bytes", config.secret.display())));
    }
    let faults = Faults::default();
    let disk = platform.disk.clone();
    let disk = if config.dev_faults { Arc::new(HeldDisk { disk, faults: faults.clone() }) } else { disk };
    let owner = rejoin_store::Identity { cluster, node, shards: config.shards };
    let (dir, start) = DataDir::open_on(&config.data, owner, disk.clone())?;
    let layout = layout(config, &dir.control(), node)?;
    if u32::from(config.shards) > layout.partitions() {
        return Err(StartError::Unfit(format!("shards = {}: more than the ring's {} partitions", config.shards, layout.partitions())));
    }
    let control = Control::new(catalog(&dir.control())?);
    let view = Arc::new(node_view(&layout, &control, &secret));
    let (shards, lost) = open_shards(config, (platform.threads, chance), (cluster, node), &secret, &view.cluster, (&dir, &start), disk)?;
    Ok(Opening { identity, node, secret, faults, dir, layout, control, view, shards, lost })
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, StartError> {
    std::fs::read(path).map_err(|source| StartError::File { key, path: path.to_path_buf(), source })
}

fn identity(config: &Config) -> Result<Identity, StartError> {
    let text = |key, path: &Path| read(key, path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let (ca, certificate, key) = (text("ca", &config.ca)?, text("certificate", &config.certificate)?, text("key", &config.key)?);
    Ok(Identity::node(&ca, &certificate, &key)?)
}

/// The id of the node in the certificate, which must be the one that the configuration names.
fn own_id(config: &Config, identity: &Identity) -> Result<NodeId, StartError> {
    match identity.subject().map(|subject| &subject.role) {
        Some(Role::Node(name)) if *name == config.name => Ok(NodeId::from_name(name)),
        Some(role) => {
            let path = config.certificate.display();
            Err(StartError::Unfit(format!("certificate = {path}: it is for {role:?}, and this node is {}", config.name)))
        }
        None => Err(StartError::Unfit(format!("certificate = {}: it names nobody", config.certificate.display()))),
    }
}

/// The layout that was kept; on a first start the one that the bootstrap list gives, kept from then on.
fn layout(config: &Config, files: &ControlFile, node: NodeId) -> Result<Layout, StartError> {
    let unfit = |why: String| StartError::Unfit(why);
    if let Some(kept) = files.read(LAYOUT_FILE)? {
        let layout: Layout = codec::decode(&kept).map_err(|error| unfit(format!("the kept layout cannot be read: {error}")))?;
        layout.check().map_err(|bad| unfit(format!("the kept layout is damaged: {bad}")))?;
        return Ok(layout);
    }
    if config.bootstrap.is_empty() {
        return Err(unfit(
            "this is a first start and the configuration has no [[bootstrap]] list: name every node of the cluster there".into(),
        ));
    }
    let member = |node: &crate::BootstrapNode| LayoutNode {
        id: NodeId::from_name(&node.name),
        name: node.name.clone(),
        zone: node.zone.clone(),
        capacity: node.capacity,
        address: node.address,
    };
    let nodes: Vec<LayoutNode> = config.bootstrap.iter().map(member).collect();
    if !nodes.iter().any(|member| member.id == node) {
        return Err(unfit(format!("the [[bootstrap]] list does not name this node, {}", config.name)));
    }
    let layout = bootstrap(nodes, DEFAULT_PARTITIONS).map_err(|bad| unfit(format!("the [[bootstrap]] list makes no layout: {bad}")))?;
    files.write(LAYOUT_FILE, &codec::encode(&layout))?;
    Ok(layout)
}

/// The catalog that was kept; a new one knows the default tenant.
fn catalog(files: &ControlFile) -> Result<Catalog, StartError> {
    if let Some(kept) = files.read(CATALOG_FILE)? {
        return codec::decode(&kept).map_err(|error| StartError::Unfit(format!("the kept catalog cannot be read: {error}")));
    }
    let name = Name::new(DEFAULT_TENANT).map_err(|error| StartError::Unfit(error.to_string()))?;
    let key = RecordKey::Tenant(TenantId::from_name(&name));
    // Without a clock's reading, so that every node of a new cluster makes the same record.
    Ok(Catalog { records: vec![Record { key, version: 1, stamp: Hlc::default(), body: RecordBody::Tenant { name } }] })
}

/// Opens every shard. Whatever may have been lost ends all actors, durably, before anything is minted.
fn open_shards(
    config: &Config,
    (threads, chance): (Threads, &Chance),
    (cluster, node): (ClusterId, NodeId),
    secret: &[u8],
    view: &Arc<ClusterView>,
    (dir, start): (&DataDir, &Start),
    disk: Arc<dyn Disk>,
) -> Result<(Vec<Opened>, Vec<String>), StartError> {
    let (mut opened, mut all_lost, mut owed) = (Vec::new(), Vec::new(), false);
    for index in 0..config.shards {
        let due = Arc::new(Notify::new());
        let tell = due.clone();
        let options = Options {
            parallel_mark: threads == Threads::Own,
            on_work: (threads == Threads::Shared).then(|| Arc::new(move || tell.notify_one()) as _),
            segment_bytes: config.segment_bytes,
            memtable_bytes: memtable_share(config.memtable_bytes, node, index),
            cache_bytes: config.cache_bytes,
            free_space_floor: config.free_space_floor,
            ..Options::default()
        };
        let (mut store, recovery) = ShardStore::open(dir.shard_dir(index), options, disk.clone(), start)?;
        let lost = !recovery.lost.is_empty();
        all_lost.extend(recovery.lost.iter().map(|what| format!("shard {index}: {what}")));
        let config = shard::Config {
            node,
            shard: index,
            contexts: context_key(cluster, secret),
            max_skew_ms: config.max_skew_ms,
            retry_window_ms: u64::from(config.retry_window_ms),
            max_retry_bytes: config.retry_bytes,
            max_ops: config.in_flight,
            lost: lost || start.unsynced_may_be_gone(),
        };
        let shard = Shard::open(config, view.clone(), Xoshiro256PlusPlus::from_seed(chance.seed()), &mut store)?;
        store.commit()?;
        store.syncer().sync()?;
        // On a full disk the ends of tenures may be owed still: then the next start must be told again.
        owed |= shard.owes_ends();
        if lost && !shard.owes_ends() {
            store.settle_loss()?;
        }
        opened.push(Opened { shard, store, due });
    }
    if !owed {
        dir.settle()?;
    }
    Ok((opened, all_lost))
}

/// Between three quarters and all of a shard's memtable bytes. Equal load would fill all memtables of a cluster at once, and their flushes would fall into one
/// moment: so every shard of every node has another share. The shards of a node are told apart by multiples of the golden ratio, nodes by their ids.
fn memtable_share(bytes: u64, node: NodeId, shard: u16) -> u64 {
    let place = node.0.wrapping_add(u64::from(shard).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    bytes - ((u128::from(bytes / 4) * u128::from(place)) >> 64) as u64
}

/// Seals contexts. Made with the cluster's id too, so that clusters which were given one secret still do not take each other's contexts.
fn context_key(cluster: ClusterId, secret: &[u8]) -> ContextKey {
    ContextKey::derive(0, &[&cluster.0.to_le_bytes()[..], secret].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rejoin_proto::{BucketId, ObjectId, VersionVector};

    #[test]
    fn the_memtables_of_a_cluster_do_not_fill_at_once() {
        let limit = 64 << 20;
        for shards in [2, 4, 16] {
            let nodes = ["n1", "n2", "n3"].map(|name| NodeId::from_name(&Name::new(name).expect("a name")));
            let shares: Vec<Vec<u64>> =
                nodes.iter().map(|node| (0..shards).map(|shard| memtable_share(limit, *node, shard)).collect()).collect();
            assert!(shares.iter().flatten().all(|share| (limit - limit / 4..=limit).contains(share)), "{shares:?}");
            for shares in &shares {
                let apart = |(place, share): (usize, &u64)| {
                    shares[..place].iter().all(|other| share.abs_diff(*other) > limit / 4 / u64::from(shards) / 3)
                };
                assert!(shares.iter().enumerate().all(apart), "two shards of a node are too close: {shares:?}");
            }
            let mut all = shares.concat();
            all.sort_unstable();
            all.dedup();
            assert_eq!(all.len(), 3 * usize::from(shards));
        }
        assert_eq!((memtable_share(0, NodeId(7), 1), memtable_share(u64::MAX, NodeId(0), 0)), (0, u64::MAX));
    }

    #[test]
    fn clusters_with_one_secret_do_not_take_each_others_contexts() {
        let object = ObjectId { tenant: TenantId(1), bucket: BucketId(2), key: "k".into() };
        let token = context_key(ClusterId(1), b"one secret").seal(&object, &VersionVector::new());
        assert!(context_key(ClusterId(1), b"one secret").open(&object, &token).is_ok());
        assert!(context_key(ClusterId(2), b"one secret").open(&object, &token).is_err());
    }
}
