//! The cluster as a shard sees it: an immutable snapshot of layout and catalog, handed to it as an event.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;

use rejoin_proto::catalog::{BucketProps, Record, RecordBody, RecordKey};
use rejoin_proto::hash::MAX_KEY_BYTES;
use rejoin_proto::quota::{Limit, Quota};
use rejoin_proto::{
    BucketId, ErrorCode, ErrorReply, Hlc, Layout, LayoutRef, Name, NodeId, ObjectId, PartitionId, PluginDigest,
    TenantId,
};

use crate::copies::{Copies, LiveCopies};
use crate::layouts::{LayoutSet, LiveLayouts, Owners};
use crate::ring::RingView;
use crate::tenants::TenantNames;

/// A bucket as a coordinator needs it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bucket {
    /// Its id.
    pub id: BucketId,
    /// Its tenant.
    pub tenant: TenantId,
    /// Its name, for messages.
    pub name: Name,
    /// The version of its record.
    pub version: u64,
    /// When it was created, if its record is the first one.
    pub created: Option<Hlc>,
    /// Its properties, with its copies in the newest layout.
    pub props: BucketProps,
    /// Its copies in each live layout.
    pub live: LiveCopies,
    /// The most siblings of an object by its quota and its tenant's.
    pub siblings_quota: Option<u16>,
}

/// Whom a quota is for: a tenant, or one of its buckets.
pub type Owner = (TenantId, Option<BucketId>);

/// A plugin of the catalog.
#[derive(Clone, Debug)]
struct KnownPlugin {
    name: Name,
    bytes: u64,
}

/// A snapshot of layout and catalog.
#[derive(Clone, Debug)]
pub struct ClusterView {
    layouts: LiveLayouts,
    /// As in [`RingView`].
    generation: u64,
    closed: bool,
    sources: BTreeSet<NodeId>,
    dead: BTreeSet<NodeId>,
    buckets: BTreeMap<TenantId, BTreeMap<Name, Arc<Bucket>>>,
    by_id: BTreeMap<BucketId, Arc<Bucket>>,
    tenants: BTreeMap<TenantId, Name>,
    names: TenantNames,
    /// The tenants and buckets that are deleted: nobody reads or writes them. Until they are reaped the buckets are
    /// kept equal all the same.
    disabled: BTreeSet<(TenantId, Option<BucketId>)>,
    /// The buckets whose objects are to be removed.
    reaped: BTreeSet<BucketId>,
    quotas: BTreeMap<Owner, Quota>,
    plugins: BTreeMap<(TenantId, PluginDigest), KnownPlugin>,
    /// The plugins whose merges are not run, with the reason.
    quarantines: BTreeMap<(TenantId, PluginDigest), String>,
    /// The zone of each node, by a number.
    zones: BTreeMap<NodeId, u16>,
}

/// A key with its place in the cluster.
#[derive(Clone, Debug)]
pub struct Target {
    /// Tenant, bucket id and key.
    pub object: ObjectId,
    /// Its place on the ring, [`ObjectId::hash`].
    pub hash: u128,
    /// Its key in the store.
    pub store_key: Bytes,
    /// The bucket's record.
    pub bucket: Arc<Bucket>,
    /// The partition of the key's hash.
    pub partition: PartitionId,
    /// Its owners in the live layouts, the preferred one first.
    pub owners: Owners,
    /// The newest of these layouts, and the one that reads use. They are those of the whole operation, whatever becomes
    /// of the ring meanwhile.
    pub layout: LayoutRef,
    /// See `layout`.
    pub reads: LayoutRef,
}

impl Target {
    /// The bucket's copies in the layout that reads use.
    #[must_use]
    pub fn read_copies(&self) -> Copies {
        self.bucket.live.in_layout(self.owners.reads())
    }
}

impl ClusterView {
    /// Makes a snapshot of the ring, or of a single layout that does not change.
    #[must_use]
    pub fn new<'a>(ring: impl Into<RingView>, records: impl IntoIterator<Item = &'a Record> + Clone) -> Self {
        let RingView { live, reads, partitions, generation, closed, sources, dead } = ring.into();
        let layouts = LiveLayouts::new(live, reads).divided(partitions);
        let (mut made, mut plugins, mut quarantines) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        let names = TenantNames::new(records.clone());
        let (mut tenants, mut disabled, mut reaped) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        let (mut reaped_tenants, mut quotas) = (BTreeSet::new(), BTreeMap::new());
        for record in records {
            match (&record.key, &record.body) {
                (
                    RecordKey::Bucket(tenant, name),
                    RecordBody::Bucket { id, props, past } | RecordBody::DeletedBucket { id, props, past, .. },
                ) => {
                    if let RecordBody::DeletedBucket { deleted, .. } = &record.body {
                        disabled.insert((*tenant, Some(*id)));
                        reaped.extend(deleted.reaped.then_some(*id));
                    }
                    // Rule: what is reaped stays reaped. A node that was away may come with any of them.
                    reaped.extend(&past.buckets);
                    let live = LiveCopies::new(layouts.iter().map(|layout| Copies::of(layout, *id, props)));
                    let Copies { n, sloppy } = live.at(0);
                    made.push(Bucket {
                        id: *id,
                        tenant: *tenant,
                        name: name.clone(),
                        version: record.version,
                        created: (record.version == 1).then_some(record.stamp),
                        props: BucketProps { n, sloppy, ..props.clone() },
                        live,
                        siblings_quota: None,
                    });
                }
                (RecordKey::Plugin(tenant, digest), RecordBody::Plugin(plugin)) => {
                    plugins.insert((*tenant, *digest), KnownPlugin { name: plugin.name.clone(), bytes: plugin.bytes });
                    quarantines.extend(plugin.quarantined.clone().map(|why| ((*tenant, *digest), why)));
                }
                (RecordKey::Quota(tenant, bucket), RecordBody::Quota(quota)) if !quota.is_none() => {
                    quotas.insert((*tenant, *bucket), **quota);
                }
                (RecordKey::Tenant(tenant), RecordBody::Tenant { name }) => {
                    tenants.insert(*tenant, name.clone());
                }
                (RecordKey::Tenant(tenant), RecordBody::DeletedTenant { name, deleted }) => {
                    disabled.insert((*tenant, None));
                    match deleted.reaped {
                        true => drop(reaped_tenants.insert(*tenant)),
                        false => drop(tenants.insert(*tenant, name.clone())),
                    }
                }
                _ => {}
            }
        }
        let is_lost = |bucket: &&Bucket| reaped_tenants.contains(&bucket.tenant);
        reaped.extend(made.iter().filter(is_lost).map(|bucket| bucket.id));
        let (mut buckets, mut by_id) = (BTreeMap::<_, BTreeMap<Name, Arc<Bucket>>>::new(), BTreeMap::new());
        for mut bucket in made.into_iter().filter(|bucket| !reaped.contains(&bucket.id)) {
            let owners = [(bucket.tenant, None), (bucket.tenant, Some(bucket.id))];
            let quota = |owner| quotas.get(&owner).and_then(|quota: &Quota| quota.hard.get(Limit::Siblings));
            let most = owners.into_iter().filter_map(quota).min();
            bucket.siblings_quota = most.map(|most| u16::try_from(most).unwrap_or(u16::MAX));
            let bucket = Arc::new(bucket);
            buckets.entry(bucket.tenant).or_default().insert(bucket.name.clone(), bucket.clone());
            by_id.insert(bucket.id, bucket);
        }
        let zones = zones(&layouts);
        Self {
            layouts,
            generation,
            closed,
            sources,
            dead,
            buckets,
            by_id,
            tenants,
            names,
            disabled,
            reaped,
            quotas,
            plugins,
            quarantines,
            zones,
        }
    }

    /// The newest layout, by which requests are routed.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        self.layouts.newest()
    }

    /// The same as it was applied: with fewer partitions, if these were split since.
    #[must_use]
    pub fn applied_layout(&self) -> &Layout {
        self.layouts.applied()
    }

    /// The number of partitions of the ring.
    #[must_use]
    pub fn partitions(&self) -> u32 {
        self.layout().partitions()
    }

    /// The ring has 2^this partitions.
    #[must_use]
    pub fn partition_bits(&self) -> u8 {
        self.partitions().trailing_zeros() as u8
    }

    /// The same in a ring of so many partitions, if it has fewer.
    #[must_use]
    pub fn divided(&self, partitions: u32) -> Self {
        Self { layouts: self.layouts.clone().divided(partitions), ..self.clone() }
    }

    /// Its version and hash.
    #[must_use]
    pub fn layout_name(&self) -> LayoutRef {
        self.layouts.newest_name()
    }

    /// The live layouts.
    #[must_use]
    pub fn layouts(&self) -> &LiveLayouts {
        &self.layouts
    }

    /// See [`RingView::generation`].
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// See [`RingView::closed`].
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// The nodes that have closed the older layouts too, without those that an operator has declared dead.
    pub fn sources(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.sources.difference(&self.dead).copied()
    }

    /// Whether an operator has declared a node dead.
    #[must_use]
    pub fn is_dead(&self, node: NodeId) -> bool {
        self.dead.contains(&node)
    }

    /// Whether another view has the same live layouts.
    #[must_use]
    pub fn has_layouts_of(&self, other: &Self) -> bool {
        self.layouts.iter().eq(other.layouts.iter())
    }

    /// The tenant that has a name. There need not be one, see [`ClusterView::tenant_name`].
    #[must_use]
    pub fn tenant_named(&self, name: &Name) -> TenantId {
        self.names.get(name)
    }

    /// The name of a tenant in the catalog, if it is not reaped.
    #[must_use]
    pub fn tenant_name(&self, tenant: TenantId) -> Option<&Name> {
        self.tenants.get(&tenant)
    }

    /// All tenants that are not reaped.
    pub fn tenants(&self) -> impl Iterator<Item = (TenantId, &Name)> {
        self.tenants.iter().map(|(id, name)| (*id, name))
    }

    /// Whether a tenant is deleted, be it reaped or not.
    #[must_use]
    pub fn is_deleted(&self, tenant: TenantId) -> bool {
        self.disabled.contains(&(tenant, None))
    }

    /// The quota of a tenant, or of one of its buckets, if there is one.
    #[must_use]
    pub fn quota(&self, owner: Owner) -> Option<&Quota> {
        self.quotas.get(&owner)
    }

    /// The share of a tenant where tenants wait for each other, in relation to theirs.
    #[must_use]
    pub fn weight(&self, tenant: TenantId) -> u32 {
        self.quota((tenant, None)).and_then(|quota| quota.weight).unwrap_or(1).max(1)
    }

    /// All quotas that limit something.
    pub fn quotas(&self) -> impl Iterator<Item = (Owner, &Quota)> {
        self.quotas.iter().map(|(owner, quota)| (*owner, quota))
    }

    /// Whether the objects of a bucket are to be removed.
    #[must_use]
    pub fn is_reaped(&self, bucket: BucketId) -> bool {
        self.reaped.contains(&bucket)
    }

    /// Whether there are buckets whose objects are to be removed.
    #[must_use]
    pub fn reaps(&self) -> bool {
        !self.reaped.is_empty()
    }

    /// The name of a tenant's plugin in the catalog.
    #[must_use]
    pub fn plugin_name(&self, tenant: TenantId, digest: &PluginDigest) -> Option<&Name> {
        self.plugins.get(&(tenant, *digest)).map(|plugin| &plugin.name)
    }

    /// How many plugins a tenant has, and their bytes.
    #[must_use]
    pub fn plugins_of(&self, tenant: TenantId) -> (u64, u64) {
        let all = (tenant, PluginDigest([0; 32]))..=(tenant, PluginDigest([0xff; 32]));
        self.plugins.range(all).fold((0, 0), |(count, bytes), (_, plugin)| (count + 1, bytes + plugin.bytes))
    }

    /// Why the merges of a tenant's plugin are not run, if they are not.
    #[must_use]
    pub fn quarantine(&self, tenant: TenantId, digest: &PluginDigest) -> Option<&str> {
        self.quarantines.get(&(tenant, *digest)).map(String::as_str)
    }

    /// The plugins whose merges are not run, with the reason.
    pub fn quarantines(&self) -> impl Iterator<Item = (TenantId, &PluginDigest, &str)> {
        self.quarantines.iter().map(|((tenant, digest), why)| (*tenant, digest, why.as_str()))
    }

    /// The version of a bucket's record, 0 if it is not known here.
    #[must_use]
    pub fn bucket_version(&self, id: BucketId) -> u64 {
        self.by_id.get(&id).map_or(0, |bucket| bucket.version)
    }

    /// A tenant's bucket by its name.
    #[must_use]
    pub fn bucket_named(&self, tenant: TenantId, name: &Name) -> Option<&Arc<Bucket>> {
        self.buckets.get(&tenant)?.get(name)
    }

    /// A bucket by its id.
    #[must_use]
    pub fn bucket(&self, id: BucketId) -> Option<&Arc<Bucket>> {
        self.by_id.get(&id)
    }

    /// All buckets.
    pub fn buckets(&self) -> impl Iterator<Item = &Arc<Bucket>> {
        self.by_id.values()
    }

    /// The first `n` owners of a partition in each live layout.
    #[must_use]
    pub fn owners(&self, partition: PartitionId, n: u8) -> Owners {
        self.layouts.owners(partition, n)
    }

    /// The owners of what a bucket has in a partition, in each live layout.
    #[must_use]
    pub fn owners_of(&self, partition: PartitionId, bucket: &Bucket) -> Owners {
        self.layouts.owners_by(partition, |place| bucket.live.at(place).n)
    }

    /// The most copies that any bucket has in any live layout; `None` without buckets.
    #[must_use]
    pub fn most_copies(&self) -> Option<u8> {
        self.by_id.values().map(|bucket| bucket.live.most()).max()
    }

    /// The buckets of which the ids are not below that one, in order.
    pub fn buckets_from(&self, first: BucketId) -> impl Iterator<Item = BucketId> + '_ {
        self.by_id.range(first..).map(|(id, _)| *id)
    }

    /// Whether a node is in a live layout.
    #[must_use]
    pub fn is_member(&self, node: NodeId) -> bool {
        self.zones.contains_key(&node)
    }

    /// Every node with the number of its zone.
    pub fn zones(&self) -> impl Iterator<Item = (NodeId, u16)> + '_ {
        self.zones.iter().map(|(node, zone)| (*node, *zone))
    }

    /// How many zones the live layouts have.
    #[must_use]
    pub fn zone_count(&self) -> usize {
        self.zones.values().max().map_or(0, |last| usize::from(*last) + 1)
    }

    /// The nodes that may stand in for owners of a key, see [`LiveLayouts::fallbacks`].
    #[must_use]
    pub fn fallbacks(&self, target: &Target, usable: impl Fn(NodeId) -> bool) -> Vec<NodeId> {
        self.layouts.fallbacks(target.partition, target.bucket.live.most(), usable)
    }

    /// Whether that node is an owner of what a bucket has in a partition, in a live layout. Of an unknown bucket it may
    /// be one if any bucket's objects could be its.
    #[must_use]
    pub fn owns(&self, node: NodeId, partition: PartitionId, bucket: BucketId) -> bool {
        let bucket = self.by_id.get(&bucket);
        self.layouts.owns_by(node, partition, |place| bucket.map_or(u8::MAX, |bucket| bucket.live.at(place).n))
    }

    /// The name of a node, or its id as a name if the layout does not know it.
    #[must_use]
    pub fn node_name(&self, id: NodeId) -> Name {
        let known = self.layouts.iter().find_map(|layout| layout.node(id)).map(|node| node.name.clone());
        known.unwrap_or_else(|| Name::new(alloc::format!("{id}")).expect("hexadecimal digits make a name"))
    }

    /// Finds a tenant's key.
    ///
    /// # Errors
    /// An [`ErrorReply`] if there is no such bucket, or the key is empty or longer than 1 KiB.
    pub fn target(&self, tenant: TenantId, bucket: &Name, key: &Bytes) -> Result<Target, ErrorReply> {
        let (bucket, object) = self.object(tenant, bucket, key)?;
        let hash = object.hash();
        let store_key = Bytes::from(object.store_key_of(hash));
        let partition = self.layout().partition_of(hash);
        let owners = self.owners_of(partition, bucket);
        let (layout, reads) = (self.layouts.newest_name(), self.layouts.reads_name());
        Ok(Target { object, hash, store_key, bucket: bucket.clone(), partition, owners, layout, reads })
    }

    /// The partition of a tenant's key, and so its shard.
    ///
    /// # Errors
    /// As [`ClusterView::target`].
    pub fn partition(&self, tenant: TenantId, bucket: &Name, key: &Bytes) -> Result<PartitionId, ErrorReply> {
        self.object(tenant, bucket, key).map(|(_, object)| self.layout().partition(&object))
    }

    fn object(&self, tenant: TenantId, bucket: &Name, key: &Bytes) -> Result<(&Arc<Bucket>, ObjectId), ErrorReply> {
        if key.is_empty() {
            return Err(ErrorReply::new(ErrorCode::BadRequest, "the key is empty"));
        }
        if key.len() > MAX_KEY_BYTES {
            let message = alloc::format!("the key has {} bytes, the most is {MAX_KEY_BYTES}", key.len());
            return Err(ErrorReply::new(ErrorCode::TooLarge, message));
        }
        // Rule: buckets are of their tenant.
        let Some(found) = self.bucket_named(tenant, bucket) else {
            let message = alloc::format!("there is no bucket {bucket}: make it with `rejoin bucket create {bucket}`");
            return Err(ErrorReply::new(ErrorCode::NotFound, message));
        };
        // Rule: what is deleted is not served.
        let deleted = match () {
            () if self.is_deleted(tenant) => "the tenant was deleted; an operator can restore it".into(),
            () if self.disabled.contains(&(tenant, Some(found.id))) => {
                alloc::format!("bucket {bucket} was deleted; `rejoin bucket restore {bucket}` brings it back in time")
            }
            () => return Ok((found, ObjectId { tenant, bucket: found.id, key: key.clone() })),
        };
        Err(ErrorReply::new(ErrorCode::NotFound, deleted))
    }

    /// How many more nodes may fail before some key loses its read quorum, and its write quorum in some live layout.
    /// Only the nodes that `read` or `write` accepts count; for a write to a sloppy bucket any of them, but for PW.
    /// Negative: some key has lost it. `None` without buckets.
    #[must_use]
    pub fn spare(&self, read: impl Fn(NodeId) -> bool, write: impl Fn(NodeId) -> bool) -> Option<(i16, i16)> {
        let least = |n: u8, of: LayoutSet, counts: &dyn Fn(NodeId) -> bool| {
            let layout = self.layouts.get(of);
            let alive =
                |partition: PartitionId| layout.owners(partition, n).filter(|owner| counts(owner.id)).count() as i16;
            partition_ids(layout).map(alive).min()
        };
        let any = self.zones.keys().filter(|node| write(**node)).count().min(i16::MAX as usize) as i16;
        let of_writes = |props: &BucketProps, layout: LayoutSet, Copies { n, sloppy }: Copies| {
            let (writes, owners) = (i16::from(props.w.of(n).max(1)), least(n, layout, &write)?);
            Some(match (sloppy, i16::from(props.pw.of(n))) {
                (false, pw) => owners - writes.max(pw),
                (true, 0) => any - writes,
                (true, pw) => (any - writes).min(owners - pw),
            })
        };
        let spare = |bucket: &Arc<Bucket>| {
            let (props, reads) = (&bucket.props, self.layouts.reads());
            let n = bucket.live.in_layout(reads).n;
            let writes = bucket.live.each().filter_map(|(layout, copies)| of_writes(props, layout, copies)).min()?;
            Some((least(n, reads, &read)? - i16::from(props.r.of(n).max(1)), writes))
        };
        self.by_id.values().filter_map(spare).reduce(|a, b| (a.0.min(b.0), a.1.min(b.1)))
    }
}

/// The nodes of the live layouts, each with a number for its zone.
fn zones(layouts: &LiveLayouts) -> BTreeMap<NodeId, u16> {
    let nodes = || layouts.iter().flat_map(|layout| &layout.nodes);
    let mut names: Vec<&Name> = nodes().map(|node| &node.zone).collect();
    names.sort();
    names.dedup();
    let number = |zone: &Name| names.binary_search(&zone).ok().and_then(|at| u16::try_from(at).ok());
    nodes().map(|node| (node.id, number(&node.zone).unwrap_or(u16::MAX))).collect()
}

fn partition_ids(layout: &Layout) -> impl Iterator<Item = PartitionId> + use<> {
    (0..layout.partitions()).map(|at| PartitionId(u16::try_from(at).unwrap_or(u16::MAX)))
}

/// The shard that a partition belongs to: shards own whole arcs of the ring, by the leading bits of the hash.
///
/// # Panics
/// If `shards` is not a power of two or larger than `partitions`; both are checked when a data directory is made.
#[must_use]
pub fn shard_of(partition: PartitionId, partitions: u32, shards: u16) -> u16 {
    assert!(
        shards.is_power_of_two() && u32::from(shards) <= partitions,
        "shards are a power of two up to the number of partitions"
    );
    (u32::from(partition.0) / (partitions / u32::from(shards))) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::bootstrap;
    use alloc::format;
    use rejoin_proto::catalog::Quorum;
    use rejoin_proto::layout::LayoutNode;

    fn spare(props: BucketProps, dead: usize) -> Option<(i16, i16)> {
        let node = |at: u16| {
            let (name, zone) = (Name::new(format!("n{at}")).expect("a name"), Name::new("z").expect("a name"));
            let (id, address) = (NodeId::from_name(&name), ([127, 0, 0, 1], at).into());
            LayoutNode { id, name, zone, capacity: 1, address }
        };
        let layout = bootstrap((0..5).map(node).collect(), 256).expect("a layout");
        let dead: Vec<NodeId> = layout.nodes.iter().take(dead).map(|node| node.id).collect();
        let (tenant, name) = (TenantId(1), Name::new("b").expect("a name"));
        let body = RecordBody::Bucket { id: BucketId::derive(tenant, &name, 0), props, past: Default::default() };
        let record = Record { key: RecordKey::Bucket(tenant, name), version: 1, stamp: Hlc::default(), body };
        let alive = |node| !dead.contains(&node);
        ClusterView::new(layout, &[record]).spare(alive, alive)
    }

    #[test]
    fn a_sloppy_bucket_takes_writes_while_w_nodes_are_left_and_pw_owners() {
        let (sloppy, strict) = (BucketProps::default(), BucketProps { sloppy: false, ..BucketProps::default() });
        assert_eq!([spare(strict.clone(), 0), spare(strict, 2)], [Some((1, 1)), Some((-1, -1))]);
        assert_eq!([spare(sloppy.clone(), 0), spare(sloppy.clone(), 2)], [Some((1, 3)), Some((-1, 1))]);
        assert_eq!(spare(BucketProps { pw: Quorum::Count(2), ..sloppy }, 0), Some((1, 1)));
    }
}
