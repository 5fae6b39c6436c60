//! What a node finds when it starts: its identity, its data directory, layout and catalog, and its shards, opened and
//! not yet running.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rand_core::SeedableRng as _;
use rand_xoshiro::Xoshiro256PlusPlus;
use tokio::sync::Notify;

use rejoin_core::control::{Catalog, Control};
use rejoin_core::node::MAX_WAITING;
use rejoin_core::node::batch::GroupCommit;
use rejoin_core::node::identity::Disks;
use rejoin_core::node::links::{self, Links};
use rejoin_core::placement::{self, DEFAULT_PARTITIONS};
use rejoin_core::shard::{self, Shard};
use rejoin_core::view::ClusterView;
use rejoin_proto::catalog::{Record, RecordBody, RecordKey};
use rejoin_proto::client::PROTOCOL;
use rejoin_proto::context::ContextKey;
use rejoin_proto::peer::{DiskId, Terms};
use rejoin_proto::{Address, ClusterId, Hlc, Layout, Name, NodeId, TenantId, codec};
use rejoin_store::{ControlFile, DataDir, Disk, OpenError, Options, ShardStore, Start};
use rejoin_wire::{Identity, Role};

use crate::bootstrap;
use crate::catalog::{CATALOG_FILE, node_view};
use crate::certificates::Files;
use crate::clock::Clock;
use crate::config::Config;
use crate::faults::{Faults, HeldDisk};
use crate::node::StartError;
use crate::parts::NodeView;
use crate::peers::DISKS_FILE;
use crate::platform::{Chance, Platform, Threads};
use crate::token::{DEFAULT_TENANT, Secret};

/// How long a start that has met fewer than half of the nodes waits at most, in milliseconds: long enough for a
/// handshake on a busy machine, and short for clients of the only node that is left.
const LONELY_MS: u64 = 3_000;
/// The name under which the layout is kept.
const LAYOUT_FILE: &str = "layout";

/// What a node starts with, as far as it can be known without writing anything: a start that fails on it leaves no
/// trace.
pub(crate) struct Plan {
    pub(crate) identity: Identity,
    pub(crate) files: Files,
    pub(crate) node: NodeId,
    pub(crate) secret: Secret,
    pub(crate) listen: SocketAddr,
    pub(crate) admin: Option<SocketAddr>,
    pub(crate) faults: Faults,
    /// Where the kept layout says something else than the configuration.
    pub(crate) contradictions: Vec<String>,
    /// The data directory will be made.
    pub(crate) first: bool,
    owner: rejoin_store::Identity,
    disk: Arc<dyn Disk>,
    layout: Layout,
    /// The layout is a new one, which is to be kept.
    new_layout: bool,
    catalog: Catalog,
}

/// What a node starts from.
pub(crate) struct Opening {
    pub(crate) dir: DataDir,
    pub(crate) layout: Layout,
    pub(crate) control: Control,
    pub(crate) links: Links,
    pub(crate) view: Arc<NodeView>,
    pub(crate) shards: Vec<Opened>,
    /// What the store has lost, for people.
    pub(crate) lost: Vec<String>,
}

/// A shard that is open and not yet running.
pub(crate) struct Opened {
    pub(crate) batch: GroupCommit,
    pub(crate) store: ShardStore,
    /// Told when the store has maintenance to do, unless a thread of the store's own does it.
    pub(crate) due: Arc<Notify>,
}

impl Plan {
    /// Reads and checks everything that a start depends on.
    pub(crate) async fn make(config: &Config, platform: &Platform) -> Result<Self, StartError> {
        let files = Files::read(config)?;
        let identity = files.identity(config)?;
        let cluster = identity.cluster();
        let node = own_id(config, &identity)?;
        let secret = Secret::from_file(&read("secret", &config.secret)?);
        let secret = secret.map_err(|why| StartError::Unfit(format!("secret = {}: {why}", config.secret.display())))?;
        let listen = looked_up("listen", &config.listen).await?;
        let admin = match &config.admin {
            Some(address) => Some(looked_up("admin", address).await?),
            None => None,
        };
        config.check_resolved(listen, admin).map_err(|why| StartError::Unfit(why.to_string()))?;
        let faults = Faults::default();
        let disk = platform.disk.clone();
        let disk = if config.dev_faults { Arc::new(HeldDisk { disk, faults: faults.clone() }) } else { disk };
        let owner = rejoin_store::Identity { cluster, node, shards: config.shards };
        let found = DataDir::look(&config.data, owner, &disk)?;
        let kept = kept_layout(&found.control)?;
        let contradictions = kept.as_ref().map_or_else(Vec::new, |kept| bootstrap::contradictions(&config.bootstrap, kept));
        let new_layout = kept.is_none();
        let layout = kept.map_or_else(|| first_layout(config, node), Ok)?;
        if u32::from(config.shards) > layout.partitions() {
            return Err(StartError::Unfit(format!("shards = {}: more than the ring's {} partitions", config.shards, layout.partitions())));
        }
        let catalog = catalog(&found.control)?;
        let first = found.first;
        Ok(Self { identity, files, node, secret, listen, admin, faults, contradictions, first, owner, disk, layout, new_layout, catalog })
    }

    /// Opens everything that a node has on its disk, or makes it.
    pub(crate) fn open(
        &self,
        config: &Config,
        threads: Threads,
        (clock, chance): (Clock, &Chance),
        unwritten: &mut Unwritten,
    ) -> Result<Opening, StartError> {
        let opened = DataDir::open_on(&config.data, self.owner, self.disk.clone());
        let not_ours = match &opened {
            Err(OpenError::InUse { .. }) => true,
            Ok((_, start)) => !start.first,
            Err(_) => false,
        };
        if not_ours {
            // Another process made it meanwhile.
            unwritten.keep();
        }
        let (dir, start) = opened?;
        if self.new_layout {
            dir.control().write(LAYOUT_FILE, &codec::encode(&self.layout))?;
        }
        let control = Control::new(self.catalog.clone());
        let view = Arc::new(node_view(&self.layout, &control, &self.secret));
        let disks = disks(&dir.control(), chance)?;
        let (cluster, replaced) = (self.owner.cluster, disks.replaced.is_some());
        let of = ShardsOf { cluster, node: self.node, secret: &self.secret, view: &view.cluster, replaced };
        let (shards, lost) = open_shards(config, (threads, chance), &of, (&dir, &start), self.disk.clone())?;
        let links = self.links(config, disks, clock, chance);
        Ok(Opening { dir, layout: self.layout.clone(), control, links, view, shards, lost })
    }

    fn links(&self, config: &Config, disks: Disks, clock: Clock, chance: &Chance) -> Links {
        let cluster = self.owner.cluster;
        let terms = Terms {
            protocol: PROTOCOL,
            cluster,
            secret_check: self.secret.key_check(cluster),
            layout: self.layout.name(),
            max_skew_ms: config.max_skew_ms,
        };
        let others = self.layout.nodes.iter().filter(|other| other.id != self.node);
        let config = links::Config {
            node: self.node,
            peers: others.map(|other| (other.id, other.name.clone())).collect(),
            terms,
            partitions: self.layout.partitions(),
            shards: config.shards,
            grace_us: config.start_grace_ms.saturating_mul(1000),
            minority_us: config.start_grace_ms.max(config.start_wait_ms.min(LONELY_MS)).saturating_mul(1000),
            longest_start_us: config.start_grace_ms.max(config.start_wait_ms).saturating_mul(1000),
            timing: links::Timing::default(),
        };
        Links::new(config, disks, clock.now(), Xoshiro256PlusPlus::from_seed(chance.seed()))
    }
}

/// The first IP address of an address of this node's own.
async fn looked_up(key: &str, address: &Address) -> Result<SocketAddr, StartError> {
    let found = rejoin_wire::resolve(address).await;
    let unfit = |why: &dyn std::fmt::Display| StartError::Unfit(format!("{key} = {address}: {why}"));
    found.map_err(|why| unfit(&why))?.first().copied().ok_or_else(|| unfit(&"it has no IP address"))
}

/// Undoes a first start that fails: what it has made in or above the data directory is removed again.
pub(crate) struct Unwritten {
    path: PathBuf,
    /// What was in the directory; none if there was no directory.
    before: Option<Vec<std::ffi::OsString>>,
    /// The directories above it that were missing, the deepest first.
    missing: Vec<PathBuf>,
    armed: bool,
}

impl Unwritten {
    /// Looks at a data directory before a start, which is its first or not.
    pub(crate) fn watch(path: &Path, first: bool) -> Self {
        let names = |entries: std::fs::ReadDir| entries.filter_map(|entry| Some(entry.ok()?.file_name())).collect();
        let missing = path.ancestors().skip(1).take_while(|above| !above.as_os_str().is_empty() && !above.exists());
        let missing = missing.map(Path::to_path_buf).collect();
        Self { path: path.to_path_buf(), before: std::fs::read_dir(path).ok().map(names), missing, armed: first }
    }

    /// The start has succeeded, or the directory is not its own: nothing is removed.
    pub(crate) fn keep(&mut self) {
        self.armed = false;
    }
}

impl Drop for Unwritten {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        let Some(before) = &self.before else {
            // What cannot be removed is as it would be without this.
            let _ = std::fs::remove_dir_all(&self.path);
            self.missing.iter().for_each(|above| drop(std::fs::remove_dir(above)));
            return;
        };
        for entry in std::fs::read_dir(&self.path).into_iter().flatten().flatten() {
            if !before.contains(&entry.file_name()) {
                let path = entry.path();
                let _ = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
            }
        }
    }
}

pub(crate) fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, StartError> {
    std::fs::read(path).map_err(|source| StartError::File { key, path: path.to_path_buf(), source })
}

/// The id of the node in the certificate, which must be the one that the configuration names.
pub(crate) fn own_id(config: &Config, identity: &Identity) -> Result<NodeId, StartError> {
    match identity.subject().map(|subject| &subject.role) {
        Some(Role::Node(name)) if *name == config.name => Ok(NodeId::from_name(name)),
        Some(role) => {
            let path = config.certificate.display();
            Err(StartError::Unfit(format!("certificate = {path}: it is for {role:?}, and this node is {}", config.name)))
        }
        None => Err(StartError::Unfit(format!("certificate = {}: it names nobody", config.certificate.display()))),
    }
}

/// The layout that was kept, if any.
fn kept_layout(files: &ControlFile) -> Result<Option<Layout>, StartError> {
    let unfit = |why: String| StartError::Unfit(why);
    let Some(kept) = files.read(LAYOUT_FILE)? else { return Ok(None) };
    let layout: Layout = codec::decode(&kept).map_err(|error| unfit(format!("the kept layout cannot be read: {error}")))?;
    layout.check().map_err(|bad| unfit(format!("the kept layout is damaged: {bad}")))?;
    Ok(Some(layout))
}

/// The layout that the bootstrap list gives.
fn first_layout(config: &Config, node: NodeId) -> Result<Layout, StartError> {
    let unfit = |why: String| StartError::Unfit(why);
    if config.bootstrap.is_empty() {
        return Err(unfit(
            "this is a first start and the configuration has no [[bootstrap]] list: name every node of the cluster there".into(),
        ));
    }
    let nodes = bootstrap::members(&config.bootstrap);
    if !nodes.iter().any(|member| member.id == node) {
        return Err(unfit(format!("the [[bootstrap]] list does not name this node, {}", config.name)));
    }
    placement::bootstrap(nodes, DEFAULT_PARTITIONS).map_err(|bad| unfit(format!("the [[bootstrap]] list makes no layout: {bad}")))
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

/// The ids of this node's disk and of those of its peers. A new directory draws its own.
fn disks(files: &ControlFile, chance: &Chance) -> Result<Disks, StartError> {
    if let Some(kept) = files.read(DISKS_FILE)? {
        return codec::decode(&kept).map_err(|error| StartError::Unfit(format!("the kept disk ids cannot be read: {error}")));
    }
    let disks = Disks::new(DiskId(chance.word()));
    files.write(DISKS_FILE, &codec::encode(&disks))?;
    Ok(disks)
}

/// What every shard of a node has in common.
struct ShardsOf<'a> {
    cluster: ClusterId,
    node: NodeId,
    secret: &'a Secret,
    view: &'a Arc<ClusterView>,
    replaced: bool,
}

/// Opens every shard. Whatever may have been lost ends all actors, durably, before anything is minted.
fn open_shards(
    config: &Config,
    (threads, chance): (Threads, &Chance),
    of: &ShardsOf<'_>,
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
            memtable_bytes: memtable_share(config.memtable_bytes, of.node, index),
            cache_bytes: config.cache_bytes,
            free_space_floor: config.free_space_floor,
            ..Options::default()
        };
        let (mut store, recovery) = ShardStore::open(dir.shard_dir(index), options, disk.clone(), start)?;
        let lost = !recovery.lost.is_empty();
        all_lost.extend(recovery.lost.iter().map(|what| format!("shard {index}: {what}")));
        let config = shard::Config {
            node: of.node,
            shard: index,
            contexts: context_key(of.cluster, of.secret.bytes()),
            max_skew_ms: config.max_skew_ms,
            retry_window_ms: u64::from(config.retry_window_ms),
            max_retry_bytes: config.retry_bytes,
            max_ops: config.in_flight,
            max_op_bytes: config.in_flight_bytes,
            lost: lost || start.unsynced_may_be_gone(),
            replaced: of.replaced,
        };
        let shard = Shard::open(config, of.view.clone(), Xoshiro256PlusPlus::from_seed(chance.seed()), &mut store)?;
        store.commit()?;
        let synced = store.syncer().sync()?;
        // On a full disk the ends of tenures may be owed still: then the next start must be told again.
        owed |= shard.owes_ends();
        if lost && !shard.owes_ends() {
            store.settle_loss()?;
        }
        opened.push(Opened { batch: GroupCommit::new(shard, synced, MAX_WAITING), store, due });
    }
    if !owed {
        dir.settle()?;
    }
    Ok((opened, all_lost))
}

/// Between three quarters and all of a shard's memtable bytes. Equal load would fill all memtables of a cluster at
/// once, and their flushes would fall into one moment: so every shard of every node has another share. The shards of a
/// node are told apart by multiples of the golden ratio, nodes by their ids.
fn memtable_share(bytes: u64, node: NodeId, shard: u16) -> u64 {
    let place = node.0.wrapping_add(u64::from(shard).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    bytes - ((u128::from(bytes / 4) * u128::from(place)) >> 64) as u64
}

/// Seals contexts. Made with the cluster's id too, so that clusters which were given one secret still do not take each
/// other's contexts.
fn context_key(cluster: ClusterId, secret: &[u8]) -> ContextKey {
    ContextKey::derive(0, &[&cluster.0.to_le_bytes()[..], secret].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rejoin_proto::{BucketId, ObjectId, VersionVector};

    #[test]
    fn a_first_start_is_undone_and_no_more_than_that() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |path: &str| folder.path().join(path);
        let make = |path: &str, first: bool| {
            let unwritten = Unwritten::watch(&at(path), first);
            std::fs::create_dir_all(at(path).join("shard-000")).expect("writable");
            std::fs::write(at(path).join("VERSION"), "x").expect("writable");
            unwritten
        };
        drop(make("new/deep/n1", true));
        assert!(!at("new").exists(), "with the directories above it");
        std::fs::create_dir_all(at("mount/lost+found")).expect("writable");
        drop(make("mount/n1", true));
        drop(make("mount", true));
        let left: Vec<_> = std::fs::read_dir(at("mount")).expect("it stays").map(|entry| entry.expect("an entry").file_name()).collect();
        assert_eq!(left, ["lost+found"]);
        drop(make("kept", false));
        make("succeeded", true).keep();
        assert!(at("kept/VERSION").exists() && at("succeeded/VERSION").exists());
    }

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
