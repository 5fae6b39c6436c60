//! The steps of a start: reads and checks identity, configuration and stored layout (`StartPlan`), then opens data
//! directory, catalog and shards (`OpenedNode`). Nothing runs yet.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rand_core::SeedableRng as _;
use rand_xoshiro::Xoshiro256PlusPlus;
use tokio::sync::Notify;

use rejoin_core::control::{Catalog, Control};
use rejoin_core::exchange::hash::CausalKey;
use rejoin_core::members::{self, Members};
use rejoin_core::node::MAX_WAITING;
use rejoin_core::node::batch::GroupCommit;
use rejoin_core::node::identity::Disks;
use rejoin_core::node::links::{self, Links};
use rejoin_core::placement::{self, DEFAULT_PARTITIONS};
use rejoin_core::ring::RingControl;
use rejoin_core::shard::handoff::HandoffLimits;
use rejoin_core::shard::{self, ReadLimits, Shard};
use rejoin_core::view::ClusterView;
use rejoin_proto::access::DEFAULT_TENANT;
use rejoin_proto::catalog::{Record, RecordBody, RecordKey};
use rejoin_proto::client::PROTOCOL;
use rejoin_proto::context::ContextKey;
use rejoin_proto::peer::{ClusterParams, DiskId};
use rejoin_proto::{Address, Hlc, Layout, LayoutRef, Name, NodeId, Ring, TenantId, codec};
use rejoin_store::{ControlFile, DataDir, Disk, Keys, OpenError, Options, ShardStore, Start};
use rejoin_wire::Identity;

use crate::bootstrap;
use crate::certificates::{CertificateFiles, own_id, read};
use crate::clock::Clock;
use crate::config::Config;
use crate::control_files::{CATALOG_FILE, DISKS_FILE, LAYOUT_FILE, RING_FILE};
use crate::encryption;
use crate::error::StartError;
use crate::faults::{FaultDisk, Faults};
use crate::joining;
use crate::platform::{Platform, SharedRng, Threads};
use crate::ring::RingPart;
use crate::secret::Secret;
use crate::view::{NodeView, node_view};

/// The longest wait of a start that is connected to fewer than half of the nodes, in milliseconds. It is long enough
/// for a handshake on a busy machine, and short for clients of the last node that is left.
const LONELY_MS: u64 = 3_000;
/// Everything that a start can check without writing. A start that fails here leaves no trace.
pub(crate) struct StartPlan {
    pub(crate) identity: Identity,
    pub(crate) files: CertificateFiles,
    pub(crate) node: NodeId,
    pub(crate) secret: Secret,
    /// The keys that values are encrypted with on the disk.
    pub(crate) keys: Option<Arc<Keys>>,
    pub(crate) listen: SocketAddr,
    pub(crate) admin: Option<SocketAddr>,
    pub(crate) faults: Faults,
    /// Differences between the stored layout and the bootstrap list.
    pub(crate) contradictions: Vec<String>,
    /// The data directory does not exist yet.
    pub(crate) first: bool,
    owner: rejoin_store::Identity,
    disk: Arc<dyn Disk>,
    ring: Ring,
    catalog: Catalog,
}

/// An open node that does not run yet.
pub(crate) struct OpenedNode {
    pub(crate) dir: DataDir,
    pub(crate) ring: RingPart,
    pub(crate) control: Control,
    pub(crate) links: Links,
    pub(crate) members: Members,
    pub(crate) view: Arc<NodeView>,
    pub(crate) shards: Vec<OpenedShard>,
    /// Data that the stores found missing, for people.
    pub(crate) lost: Vec<String>,
}

/// An open shard that does not run yet.
pub(crate) struct OpenedShard {
    pub(crate) batch: GroupCommit,
    pub(crate) store: ShardStore,
    /// Notified when maintenance is due, with [`Threads::Shared`].
    pub(crate) due: Arc<Notify>,
}

impl StartPlan {
    /// Reads and checks everything that a start depends on.
    pub(crate) async fn make(config: &Config, platform: &Platform) -> Result<Self, StartError> {
        let files = CertificateFiles::read(config)?;
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
        let disk = if config.dev_faults { Arc::new(FaultDisk { disk, faults: faults.clone() }) } else { disk };
        let owner = rejoin_store::Identity { cluster, node, shards: config.shards };
        let keys = encryption::keys(config.encryption.as_ref()).await?;
        let found = DataDir::inspect(&config.data, owner, &disk)?;
        DataDir::check_keys(&config.data, config.shards, disk.as_ref(), keys.as_deref())?;
        let kept = kept_ring(&found.control)?;
        let contradictions = kept.as_ref().map_or_else(Vec::new, |kept| {
            bootstrap::contradictions(&config.name, &config.bootstrap, &bootstrap::with_addresses(kept))
        });
        let ring = match kept {
            Some(ring) => ring,
            None if !config.join.is_empty() => joining::fetch_ring(config, platform, &identity, &secret).await?,
            None => Ring::new(first_layout(config, node)?),
        };
        let partitions = ring.partitions();
        if u32::from(config.shards) > partitions {
            return Err(StartError::Unfit(format!(
                "shards = {}: more than the ring's {partitions} partitions",
                config.shards
            )));
        }
        let catalog = catalog(&found.control)?;
        let first = found.first;
        Ok(Self {
            identity,
            files,
            node,
            secret,
            keys,
            listen,
            admin,
            faults,
            contradictions,
            first,
            owner,
            disk,
            ring,
            catalog,
        })
    }

    /// Opens everything that a node has on its disk, or creates it.
    pub(crate) fn open(
        &self,
        config: &Config,
        threads: Threads,
        (clock, rng): (Clock, &SharedRng),
        (bound, first_start): (Option<SocketAddr>, &mut FirstStartGuard),
    ) -> Result<OpenedNode, StartError> {
        let address = own_address(config, self.node, bound.unwrap_or(self.listen), &self.ring)?;
        let opened = DataDir::open_on(&config.data, self.owner, self.disk.clone());
        let made_by_another = match &opened {
            Err(OpenError::InUse { .. }) => true,
            Ok((_, start)) => !start.first,
            Err(_) => false,
        };
        if made_by_another {
            // Another process has created it since the plan was made.
            first_start.disarm();
        }
        let (dir, start) = opened?;
        let control = Control::new(self.catalog.clone());
        let ring_rng = Xoshiro256PlusPlus::from_seed(rng.next_seed());
        let own = (config.name.clone(), address);
        let ring = RingControl::new(self.node, config.shards, self.ring.clone(), own, ring_rng);
        let encoded = codec::encode(ring.ring());
        // A start on a full disk has no room to write what is there.
        if dir.control().read(RING_FILE)?.is_none_or(|kept| kept != encoded) {
            dir.control().write(RING_FILE, &encoded)?;
        }
        let view = Arc::new(node_view((ring.ring(), &ring.view()), &control, &self.secret));
        let member_of = self.ring.live.iter().rev().find(|layout| layout.node(self.node).is_some()).map(Layout::name);
        let disks = disks(&dir.control(), rng, member_of)?;
        let opener = ShardOpener {
            config,
            threads,
            disk: &self.disk,
            keys: &self.keys,
            rng,
            node: self.node,
            contexts: self.secret.context_key(self.owner.cluster),
            causal_key: self.secret.causal_key(self.owner.cluster),
            view: &view.cluster,
            replaced: disks.replaced.is_some(),
            dir: &dir,
            start: &start,
        };
        let (shards, lost) = opener.open_all()?;
        let links = self.links(config, disks, clock, rng);
        let members = self.members(config, clock, rng);
        let ring = RingPart::new(ring, dir.control());
        Ok(OpenedNode { dir, ring, control, links, members, view, shards, lost })
    }

    fn members(&self, config: &Config, clock: Clock, rng: &SharedRng) -> Members {
        let now = clock.now();
        let of = members::Config {
            node: self.node,
            peers: self.others().into_keys().collect(),
            start: now.wall_ms,
            timing: config.members.timing(),
        };
        Members::new(of, now.mono_us, Xoshiro256PlusPlus::from_seed(rng.next_seed()))
    }

    /// The other members of the live layouts.
    fn others(&self) -> BTreeMap<NodeId, Name> {
        let members = self.ring.live.iter().flat_map(|layout| &layout.nodes);
        members.filter(|node| node.id != self.node).map(|node| (node.id, node.name.clone())).collect()
    }

    fn links(&self, config: &Config, disks: Disks, clock: Clock, rng: &SharedRng) -> Links {
        let cluster = self.owner.cluster;
        let params = ClusterParams {
            protocol: PROTOCOL,
            cluster,
            secret_check: self.secret.key_check(cluster),
            origin: self.ring.origin,
            max_skew_ms: config.max_skew_ms,
        };
        let config = links::Config {
            node: self.node,
            peers: self.others().into_iter().collect(),
            params,
            layouts: self.ring.live_range(),
            shards: config.shards,
            grace_us: config.start_grace_ms.saturating_mul(1000),
            minority_us: config.start_grace_ms.max(config.start_wait_ms.min(LONELY_MS)).saturating_mul(1000),
            longest_start_us: config.start_grace_ms.max(config.start_wait_ms).saturating_mul(1000),
            timing: links::Timing::default(),
        };
        Links::new(config, disks, clock.now(), Xoshiro256PlusPlus::from_seed(rng.next_seed()))
    }
}

/// The first IP address of `listen` or `admin`.
async fn looked_up(key: &str, address: &Address) -> Result<SocketAddr, StartError> {
    let found = rejoin_wire::resolve(address).await;
    let unfit = |why: &dyn std::fmt::Display| StartError::Unfit(format!("{key} = {address}: {why}"));
    found.map_err(|why| unfit(&why))?.first().copied().ok_or_else(|| unfit(&"it has no IP address"))
}

/// Removes what a failed first start has created in or above the data directory.
pub(crate) struct FirstStartGuard {
    path: PathBuf,
    /// What was in the directory before; `None` if it did not exist.
    before: Option<Vec<std::ffi::OsString>>,
    /// The parent directories that did not exist, the deepest first.
    missing: Vec<PathBuf>,
    armed: bool,
}

impl FirstStartGuard {
    /// Notes what is there before a start. If it is not the first one, nothing will be removed.
    pub(crate) fn new(path: &Path, first: bool) -> Self {
        let names = |entries: std::fs::ReadDir| entries.filter_map(|entry| Some(entry.ok()?.file_name())).collect();
        let missing = path.ancestors().skip(1).take_while(|above| !above.as_os_str().is_empty() && !above.exists());
        let missing = missing.map(Path::to_path_buf).collect();
        Self { path: path.to_path_buf(), before: std::fs::read_dir(path).ok().map(names), missing, armed: first }
    }

    /// The start has succeeded, or another process owns the directory: nothing will be removed.
    pub(crate) fn disarm(&mut self) {
        self.armed = false;
    }
}

impl Drop for FirstStartGuard {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        let Some(before) = &self.before else {
            // Removing is an attempt: the start has already failed for another reason.
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

/// The stored ring, or one of the only layout that was stored before there were rings.
fn kept_ring(files: &ControlFile) -> Result<Option<Ring>, StartError> {
    let unfit = |why: String| StartError::Unfit(why);
    if let Some(kept) = files.read(RING_FILE)? {
        let ring: Ring =
            codec::decode(&kept).map_err(|error| unfit(format!("the kept ring cannot be read: {error}")))?;
        ring.check().map_err(|bad| unfit(format!("the kept ring is damaged: {bad}")))?;
        return Ok(Some(ring));
    }
    let Some(kept) = files.read(LAYOUT_FILE)? else { return Ok(None) };
    let layout: Layout =
        codec::decode(&kept).map_err(|error| unfit(format!("the kept layout cannot be read: {error}")))?;
    layout.check().map_err(|bad| unfit(format!("the kept layout is damaged: {bad}")))?;
    Ok(Some(Ring::new(layout)))
}

/// The address that this node announces: where others reach it.
fn own_address(config: &Config, node: NodeId, bound: SocketAddr, ring: &Ring) -> Result<Address, StartError> {
    let listed = || config.bootstrap.iter().find(|listed| listed.name == config.name).map(|own| own.address.clone());
    let listens = || match &config.listen {
        Address::Ip(_) => (!bound.ip().is_unspecified()).then(|| bound.into()),
        name @ Address::Host(_) => (name.port() != 0).then(|| name.clone()),
    };
    // One with another port is that of an earlier start.
    let announced = || ring.notes.announced.get(&node).map(|known| known.address.clone());
    let announced = || announced().filter(|known| known.port() == bound.port());
    let kept = || ring.newest().node(node).map(|known| known.address.clone());
    config.address.clone().or_else(listed).or_else(listens).or_else(announced).or_else(kept).ok_or_else(|| {
        let why = format!(
            "listen = {}: the other nodes cannot know from that where this one is reached; write `address` too, such \
                as address = \"10.0.0.4:{}\"",
            config.listen,
            bound.port()
        );
        StartError::Unfit(why)
    })
}

/// The layout of the bootstrap list.
fn first_layout(config: &Config, node: NodeId) -> Result<Layout, StartError> {
    let unfit = |why: String| StartError::Unfit(why);
    if config.bootstrap.is_empty() {
        return Err(unfit(
            "this is a first start, and the configuration has neither a [[bootstrap]] list, which names every node of \
                a new cluster, nor `join`, which names nodes of a running one"
                .into(),
        ));
    }
    let nodes = bootstrap::members(&config.bootstrap);
    if !nodes.iter().any(|member| member.id == node) {
        return Err(unfit(format!(
            "the [[bootstrap]] list does not name this node, {}: a node that is added to a running cluster has `join` \
                instead of a list",
            config.name
        )));
    }
    placement::bootstrap(nodes, DEFAULT_PARTITIONS)
        .map_err(|bad| unfit(format!("the [[bootstrap]] list makes no layout: {bad}")))
}

/// The stored catalog, or a new one with the default tenant.
fn catalog(files: &ControlFile) -> Result<Catalog, StartError> {
    if let Some(kept) = files.read(CATALOG_FILE)? {
        return codec::decode(&kept)
            .map_err(|error| StartError::Unfit(format!("the kept catalog cannot be read: {error}")));
    }
    let name = Name::new(DEFAULT_TENANT).map_err(|error| StartError::Unfit(error.to_string()))?;
    let key = RecordKey::Tenant(TenantId::from_name(&name));
    // With a fixed stamp: every node of a new cluster must create the same record.
    Ok(Catalog { records: vec![Record { key, version: 1, stamp: Hlc::default(), body: RecordBody::Tenant { name } }] })
}

/// The ids of this node's disk and of its peers' disks. A new directory gets a random id. The newest layout of which
/// the node is a member, as its ring says, is on the disk before it does anything as one.
fn disks(files: &ControlFile, rng: &SharedRng, member_of: Option<LayoutRef>) -> Result<Disks, StartError> {
    let kept = files.read(DISKS_FILE)?;
    let unreadable = |error| StartError::Unfit(format!("the kept disk ids cannot be read: {error}"));
    let known = kept.map(|kept| codec::decode::<Disks>(&kept).map_err(unreadable)).transpose()?;
    let is_new = known.is_none();
    let mut disks = known.unwrap_or_else(|| Disks::new(DiskId(rng.next_u64())));
    let must_be_saved = is_new || disks.member_of.is_none() && member_of.is_some();
    let is_member_of_more = member_of.is_some_and(|layout| disks.note_member(layout));
    if must_be_saved || is_member_of_more {
        match files.write(DISKS_FILE, &codec::encode(&disks)) {
            // An older layout says as well that this is no empty directory.
            Err(error) if error.is_for_want_of_room() && !must_be_saved => {}
            saved => saved?,
        }
    }
    Ok(disks)
}

/// Opens the shards of a node. It has what they have in common.
struct ShardOpener<'a> {
    config: &'a Config,
    threads: Threads,
    disk: &'a Arc<dyn Disk>,
    keys: &'a Option<Arc<Keys>>,
    rng: &'a SharedRng,
    node: NodeId,
    contexts: ContextKey,
    causal_key: CausalKey,
    view: &'a Arc<ClusterView>,
    /// A peer knows this node with another data directory.
    replaced: bool,
    dir: &'a DataDir,
    start: &'a Start,
}

impl ShardOpener<'_> {
    /// Opens every shard. Returns what the stores have lost too, for people. After a possible loss all actors end,
    /// durably, before anything is minted.
    fn open_all(&self) -> Result<(Vec<OpenedShard>, Vec<String>), StartError> {
        let (mut opened, mut all_lost, mut owes_ends) = (Vec::new(), Vec::new(), false);
        for index in 0..self.config.shards {
            let (shard, lost) = self.open(index)?;
            owes_ends |= shard.batch.shard().owes_ends();
            all_lost.extend(lost.iter().map(|what| format!("shard {index}: {what}")));
            opened.push(shard);
        }
        self.dir.note_encrypted(self.keys.is_some())?;
        if !owes_ends {
            self.dir.settle()?;
        }
        Ok((opened, all_lost))
    }

    fn open(&self, index: u16) -> Result<(OpenedShard, Vec<String>), StartError> {
        let due = Arc::new(Notify::new());
        let options = self.store_options(index, &due);
        let (mut store, recovery) =
            ShardStore::open(self.dir.shard_dir(index), options, self.disk.clone(), self.start)?;
        let lost = !recovery.lost.is_empty();
        let config = shard::Config {
            node: self.node,
            shard: index,
            shards: self.config.shards,
            exchange: self.config.exchange.pace(),
            contexts: self.contexts.clone(),
            causal_key: self.causal_key.clone(),
            max_skew_ms: self.config.max_skew_ms,
            retry_window_ms: u64::from(self.config.retry_window_ms),
            max_retry_bytes: self.config.retry_bytes,
            max_receipt_bytes: self.config.receipt_bytes,
            max_ops: self.config.in_flight,
            max_op_bytes: self.config.in_flight_bytes,
            lost: lost || self.start.unsynced_may_be_gone(),
            rows_lost: lost || !recovery.damaged.is_empty(),
            replaced: self.replaced,
            handoff: HandoffLimits {
                batch_objects: self.config.handoff_objects,
                batch_bytes: self.config.handoff_bytes,
                pause_us: self.config.handoff_pause_ms * 1000,
                relief_min_us: self.config.relief_min_ms * 1000,
                relief_max_us: self.config.relief_max_ms * 1000,
                ..HandoffLimits::default()
            },
            reads: ReadLimits {
                hedge_min_us: self.config.hedge_min_ms * 1000,
                hedge_max_us: self.config.hedge_max_ms * 1000,
                all_one_in: self.config.repair_one_in,
            },
        };
        let rng = Xoshiro256PlusPlus::from_seed(self.rng.next_seed());
        let shard = Shard::open(config, self.view.clone(), rng, &mut store)?;
        store.commit()?;
        let synced = store.syncer().sync()?;
        // While a full disk does not take the ends of tenures, the loss stays noted for the next start.
        if lost && !shard.owes_ends() {
            store.settle_loss()?;
        }
        Ok((OpenedShard { batch: GroupCommit::new(shard, synced, MAX_WAITING), store, due }, recovery.lost))
    }

    fn store_options(&self, index: u16, due: &Arc<Notify>) -> Options {
        let (config, due) = (self.config, due.clone());
        Options {
            on_work: (self.threads == Threads::Shared).then(|| Arc::new(move || due.notify_one()) as _),
            segment_bytes: config.segment_bytes,
            memtable_bytes: memtable_share(config.memtable_bytes, self.node, index),
            cache_bytes: config.cache_bytes,
            free_space_floor: config.free_space_floor,
            keys: self.keys.clone(),
            ..Options::default()
        }
    }
}

/// The memtable limit of one shard: between three quarters and all of the configured bytes. With equal limits and equal
/// load all shards of a cluster would flush at the same time. Nodes differ by their ids, and the shards of a node by
/// multiples of the golden ratio.
fn memtable_share(bytes: u64, node: NodeId, shard: u16) -> u64 {
    let place = node.0.wrapping_add(u64::from(shard).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    bytes - ((u128::from(bytes / 4) * u128::from(place)) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_start_is_undone_and_no_more_than_that() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |path: &str| folder.path().join(path);
        let make = |path: &str, first: bool| {
            let guard = FirstStartGuard::new(&at(path), first);
            std::fs::create_dir_all(at(path).join("shard-000")).expect("writable");
            std::fs::write(at(path).join("VERSION"), "x").expect("writable");
            guard
        };
        drop(make("new/deep/n1", true));
        assert!(!at("new").exists(), "with the directories above it");
        std::fs::create_dir_all(at("mount/lost+found")).expect("writable");
        drop(make("mount/n1", true));
        drop(make("mount", true));
        let left: Vec<_> = std::fs::read_dir(at("mount"))
            .expect("it stays")
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
        assert_eq!(left, ["lost+found"]);
        drop(make("kept", false));
        make("succeeded", true).disarm();
        assert!(at("kept/VERSION").exists() && at("succeeded/VERSION").exists());
    }

    #[test]
    fn the_memtables_of_a_cluster_do_not_fill_at_once() {
        let limit = 64 << 20;
        for shards in [2, 4, 16] {
            let nodes = ["n1", "n2", "n3"].map(|name| NodeId::from_name(&Name::new(name).expect("a name")));
            let shares: Vec<Vec<u64>> = nodes
                .iter()
                .map(|node| (0..shards).map(|shard| memtable_share(limit, *node, shard)).collect())
                .collect();
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
}
