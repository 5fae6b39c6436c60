//! The keys of a run, with their places and the buckets of the catalog.

use std::collections::BTreeMap;

use bytes::Bytes;

use rejoin_core::control::plugin_record;
use rejoin_core::copies::Copies;
use rejoin_core::placement;
use rejoin_core::view::shard_of;
use rejoin_proto::catalog::{BucketProps, Durability, Quorum, Record, RecordBody, RecordKey};
use rejoin_proto::{BucketId, Hlc, Layout, LayoutNode, Name, NodeId, ObjectId, TenantId};

use crate::history::{CallId, Key, KeyId, Kind, NodeIndex, TenantIndex};
use crate::options::{BucketOptions, Options};
use crate::plugins::{self, Version};

/// The tenants of the clients.
const TENANTS: [&str; 2] = ["sim", "neighbour"];

fn name(text: &str) -> Name {
    Name::new(text).expect("a good name")
}

/// One key.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// The index of its bucket in the options.
    pub(crate) bucket: usize,
    pub(crate) name: Bytes,
    pub(crate) object: ObjectId,
    pub(crate) store_key: Bytes,
    /// The shard that has it on each of its owners.
    pub(crate) shard: u16,
    pub(crate) owners: Vec<NodeIndex>,
}

/// A bucket as it is now.
#[derive(Clone, Debug)]
pub(crate) struct Bucket {
    pub(crate) tenant: TenantId,
    pub(crate) name: Name,
    pub(crate) options: BucketOptions,
    id: BucketId,
    props: BucketProps,
}

/// Layout, catalog and keys.
#[derive(Debug)]
pub(crate) struct Keys {
    layout: Layout,
    shards: u16,
    /// The tenants. With two of them each bucket and each key has a twin of the same name.
    tenants: usize,
    /// The buckets of the first tenant, then those of the second.
    pub(crate) buckets: Vec<Bucket>,
    pub(crate) places: Vec<Place>,
    by_store_key: BTreeMap<Bytes, KeyId>,
    /// Per bucket, the keys in use.
    pub(crate) current: Vec<Vec<KeyId>>,
    /// Where there are two tenants: per key, the last good answer that a client was given.
    answered: BTreeMap<KeyId, (CallId, Bytes)>,
    /// All nodes, in the order of their ids. The layout at the start has all but the spare ones.
    all: Vec<LayoutNode>,
    /// Whether owners change, and whether copies do.
    moves: bool,
    pub(crate) changes_copies: bool,
    /// Whether the versions of plugins change, and whether the first one of carts is the component.
    changes_versions: bool,
    pub(crate) wasm: bool,
}

impl Keys {
    pub(crate) fn new(options: &Options) -> Self {
        let node = |at: u8| {
            let (name, zone) = (name(&format!("n{at}")), name(&format!("z{}", at % options.zones)));
            LayoutNode {
                id: NodeId::from_name(&name),
                name,
                zone,
                capacity: 1,
                address: ([127, 0, 0, 1], 7000 + u16::from(at)).into(),
            }
        };
        let members = (0..options.nodes - options.spares).map(node).collect();
        let layout = placement::bootstrap(members, options.partitions).expect("a layout");
        let mut all: Vec<LayoutNode> = (0..options.nodes).map(node).collect();
        all.sort_by_key(|node| node.id);
        let tenants = usize::from(options.tenants);
        let bucket = |tenant: TenantId, (at, bucket): (usize, &BucketOptions)| {
            let name = name(&format!("b{at}"));
            let id = BucketId::derive(tenant, &name, 0);
            Bucket { tenant, name, options: bucket.clone(), id, props: props(bucket, options) }
        };
        let of = |tenant: &&str| {
            let tenant = TenantId::from_name(&name(tenant));
            options.buckets.iter().enumerate().map(move |of| bucket(tenant, of))
        };
        let buckets: Vec<Bucket> = TENANTS[..tenants].iter().flat_map(of).collect();
        let (places, by_store_key, current) = (Vec::new(), BTreeMap::new(), vec![Vec::new(); buckets.len()]);
        let (shards, moves) = (options.shards, options.faults.layout > 0);
        let changes_copies = options.change_copies;
        let answered = BTreeMap::new();
        let (changes_versions, wasm) = (options.faults.version > 0, options.wasm);
        Self {
            layout,
            shards,
            tenants,
            buckets,
            places,
            by_store_key,
            current,
            answered,
            all,
            moves,
            changes_copies,
            changes_versions,
            wasm,
        }
    }

    /// Nodes of this cluster, by their place.
    pub(crate) fn node(&self, at: NodeIndex) -> NodeId {
        self.of(at).id
    }

    /// Name, zone and address of a node.
    pub(crate) fn of(&self, at: NodeIndex) -> &LayoutNode {
        &self.all[usize::from(at)]
    }

    /// The owners of all keys are those of that layout now.
    pub(crate) fn settle(&mut self, layout: &Layout) {
        let mut places = std::mem::take(&mut self.places);
        for place in &mut places {
            place.owners = self.owners(layout, place.bucket, &place.object);
        }
        self.places = places;
    }

    /// The owners of an object of a bucket in a layout.
    pub(crate) fn owners(&self, layout: &Layout, bucket: usize, object: &ObjectId) -> Vec<NodeIndex> {
        let n = self.copies(layout, bucket).n;
        layout.owners(layout.partition(object), n).map(|owner| self.index(owner.id)).collect()
    }

    /// The copies of a bucket in a layout.
    pub(crate) fn copies(&self, layout: &Layout, bucket: usize) -> Copies {
        let of = &self.buckets[bucket];
        Copies::of(layout, of.id, &of.props)
    }

    /// The id of a bucket.
    pub(crate) fn bucket_id(&self, bucket: usize) -> BucketId {
        self.buckets[bucket].id
    }

    pub(crate) fn index(&self, id: NodeId) -> NodeIndex {
        self.all.binary_search_by_key(&id, |node| node.id).expect("a node of this cluster") as NodeIndex
    }

    /// The key of a stored object.
    pub(crate) fn of_store_key(&self, store_key: &[u8]) -> KeyId {
        self.by_store_key[store_key]
    }

    pub(crate) fn place(&self, key: KeyId) -> &Place {
        &self.places[key as usize]
    }

    pub(crate) fn bucket_of(&self, key: KeyId) -> &Bucket {
        &self.buckets[self.place(key).bucket]
    }

    pub(crate) fn kind(&self, key: KeyId) -> Kind {
        self.bucket_of(key).options.kind
    }

    /// The key of that name in a bucket. The name has the number of the first tenant's.
    pub(crate) fn of_name(&self, bucket: BucketId, name: &[u8]) -> KeyId {
        let first = name[1..].iter().fold(0, |number, digit| number * 10 + KeyId::from(digit - b'0'));
        let at = self.buckets.iter().position(|of| of.id == bucket).unwrap_or_default();
        first + KeyId::from(self.tenant_at(at))
    }

    /// The tenant of a bucket.
    fn tenant_at(&self, bucket: usize) -> TenantIndex {
        (bucket / (self.buckets.len() / self.tenants)) as TenantIndex
    }

    /// The buckets of a session's tenant.
    pub(crate) fn buckets_of(&self, session: u32) -> std::ops::Range<usize> {
        let each = self.buckets.len() / self.tenants;
        let first = session as usize % self.tenants * each;
        first..first + each
    }

    /// The other tenant's key of the same name.
    pub(crate) fn twin(&self, key: KeyId) -> Option<KeyId> {
        (self.tenants == 2).then_some(key ^ 1)
    }

    /// Keeps the context of a good answer, for the other tenant to try.
    pub(crate) fn answered(&mut self, key: KeyId, call: CallId, context: &Bytes) {
        if self.tenants == 2 {
            self.answered.insert(key, (call, context.clone()));
        }
    }

    /// The last context that the other tenant was given for its key of the same name.
    pub(crate) fn foreign(&self, key: KeyId) -> Option<(CallId, Bytes)> {
        self.answered.get(&self.twin(key)?).cloned()
    }

    /// The place of a bucket.
    pub(crate) fn of_bucket(&self, id: BucketId) -> Option<usize> {
        self.buckets.iter().position(|bucket| bucket.id == id)
    }

    /// The keys of a bucket, whose limit of siblings is raised to that.
    pub(crate) fn raise_limit(&mut self, bucket: usize, siblings: u16) -> impl Iterator<Item = KeyId> + '_ {
        let options = &mut self.buckets[bucket].options;
        options.siblings = options.siblings.max(siblings);
        (0..).zip(&self.places).filter(move |(_, place)| place.bucket == bucket).map(|(key, _)| key)
    }

    /// The shard that a message about an object goes to.
    pub(crate) fn shard_of(&self, object: &ObjectId) -> u16 {
        if self.shards == 1 {
            0
        } else {
            shard_of(self.layout.partition(object), self.layout.partitions(), self.shards)
        }
    }

    /// Makes a new key of every tenant, all of one name, and puts each in that slot of its bucket, or in a new one.
    pub(crate) fn make(&mut self, bucket: usize, slot: Option<usize>) -> Vec<Key> {
        let each = self.buckets.len() / self.tenants;
        let name = Bytes::from(format!("k{}", self.places.len()));
        (0..self.tenants).map(|tenant| self.make_one(bucket % each + tenant * each, slot, &name)).collect()
    }

    fn make_one(&mut self, bucket: usize, slot: Option<usize>, name: &Bytes) -> Key {
        let id = self.places.len() as KeyId;
        let of = &self.buckets[bucket];
        let object = ObjectId { tenant: of.tenant, bucket: of.id, key: name.clone() };
        let owners = self.owners(&self.layout, bucket, &object);
        let key = Key {
            kind: of.options.kind,
            owners: owners.clone(),
            durability: of.props.durability,
            siblings: of.options.siblings,
            folds: of.options.plugin,
            fallbacks: if of.options.sloppy { self.all.len() - owners.len() } else { 0 },
            later_fallbacks: if self.changes_copies && of.options.sloppy { owners.len() - 1 } else { 0 },
            moves: self.moves,
            later_owners: if self.changes_copies && !of.options.sloppy { self.all.len() - owners.len() } else { 0 },
            strict_from_us: None,
            tenant: self.tenant_at(bucket),
        };
        let store_key = Bytes::from(object.store_key());
        let shard = self.shard_of(&object);
        self.by_store_key.insert(store_key.clone(), id);
        self.places.push(Place { bucket, name: name.clone(), object, store_key, shard, owners });
        match slot {
            Some(slot) => self.current[bucket][slot] = id,
            None => self.current[bucket].push(id),
        }
        key
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The catalog's records of the buckets at the start.
    pub(crate) fn records(&self) -> Vec<Record> {
        let record = |bucket: &Bucket| Record {
            key: RecordKey::Bucket(bucket.tenant, bucket.name.clone()),
            version: 1,
            stamp: Hlc::default(),
            body: RecordBody::Bucket { id: bucket.id, props: bucket.props.clone(), past: Default::default() },
        };
        let versions = if self.changes_versions { &Version::ALL[..] } else { &Version::ALL[..1] };
        let plugin = |bucket: &Bucket, version: Version| {
            let kind = bucket.options.kind;
            let (name, number) = (bucket.name.clone(), (version as u8 + 1).to_string());
            let body = RecordBody::Plugin(plugin_record(name, number, 0, version.is_self_causal(kind), true));
            let key = RecordKey::Plugin(bucket.tenant, version.digest(kind, self.wasm));
            Record { key, version: 1, stamp: Hlc::default(), body }
        };
        let plugins = |bucket| versions.iter().map(move |version| plugin(bucket, *version));
        let with_plugin = self.buckets.iter().filter(|bucket| bucket.options.plugin);
        self.buckets.iter().map(record).chain(with_plugin.flat_map(plugins)).collect()
    }
}

fn props(bucket: &BucketOptions, options: &Options) -> BucketProps {
    let quorum = |count| match options.change_copies && count > 0 {
        true => Quorum::Majority,
        false => Quorum::Count(count),
    };
    BucketProps {
        n: bucket.n,
        r: quorum(bucket.r),
        w: quorum(bucket.w),
        pr: quorum(bucket.pr),
        pw: quorum(bucket.pw),
        durability: if bucket.fsync { Durability::Fsync } else { Durability::Os },
        siblings: bucket.siblings,
        plugin: bucket.plugin.then(|| plugins::activation(bucket.kind, options.wasm)),
        value_bytes: 64 << 10,
        sloppy: bucket.sloppy,
        ..BucketProps::default()
    }
}
