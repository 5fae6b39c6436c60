//! The keys of a run, with their places and the buckets of the catalog.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use bytes::Bytes;

use rejoin_core::control::plugin_record;
use rejoin_core::copies::Copies;
use rejoin_core::placement;
use rejoin_core::view::shard_of;
use rejoin_proto::catalog::{BucketProps, Durability, Quorum, Record, RecordBody, RecordKey};
use rejoin_proto::{BucketId, Hlc, Layout, LayoutNode, Name, NodeId, ObjectId, PluginDigest, TenantId};

use crate::history::{Key, KeyId, Kind, NodeIndex};
use crate::options::{BucketOptions, Options};
use crate::plugins;

/// The tenant of all clients.
pub(crate) fn tenant() -> TenantId {
    static TENANT: LazyLock<TenantId> = LazyLock::new(|| TenantId::from_name(&name("sim")));
    *TENANT
}

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
    pub(crate) buckets: Vec<Bucket>,
    pub(crate) places: Vec<Place>,
    by_store_key: BTreeMap<Bytes, KeyId>,
    /// Per bucket, the keys in use.
    pub(crate) current: Vec<Vec<KeyId>>,
    /// All nodes, in the order of their ids. The layout at the start has all but the spare ones.
    all: Vec<LayoutNode>,
    /// Whether owners change, and whether copies do.
    moves: bool,
    pub(crate) changes_copies: bool,
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
        let bucket = |(at, bucket): (usize, &BucketOptions)| {
            let name = name(&format!("b{at}"));
            let id = BucketId::derive(tenant(), &name, 0);
            Bucket { name, options: bucket.clone(), id, props: props(bucket, options) }
        };
        let buckets = options.buckets.iter().enumerate().map(bucket).collect();
        let (places, by_store_key, current) = (Vec::new(), BTreeMap::new(), vec![Vec::new(); options.buckets.len()]);
        let (shards, moves) = (options.shards, options.faults.layout > 0);
        let changes_copies = options.change_copies;
        Self { layout, shards, buckets, places, by_store_key, current, all, moves, changes_copies }
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

    /// The key of that name, which has its number in it.
    pub(crate) fn of_name(&self, name: &[u8]) -> KeyId {
        name[1..].iter().fold(0, |number, digit| number * 10 + KeyId::from(digit - b'0'))
    }

    /// The kind of values that a plugin merges.
    pub(crate) fn kind_of_plugin(&self, digest: &PluginDigest) -> Kind {
        let names = |bucket: &&Bucket| bucket.props.plugin.is_some_and(|activation| activation.plugin == *digest);
        self.buckets.iter().find(names).map_or(Kind::Set, |bucket| bucket.options.kind)
    }

    /// The shard that a message about an object goes to.
    pub(crate) fn shard_of(&self, object: &ObjectId) -> u16 {
        if self.shards == 1 {
            0
        } else {
            shard_of(self.layout.partition(object), self.layout.partitions(), self.shards)
        }
    }

    /// Makes a new key and puts it in that slot of its bucket, or in a new one.
    pub(crate) fn make(&mut self, bucket: usize, slot: Option<usize>) -> (KeyId, Key) {
        let id = self.places.len() as KeyId;
        let of = &self.buckets[bucket];
        let name = Bytes::from(format!("k{id}"));
        let object = ObjectId { tenant: tenant(), bucket: of.id, key: name.clone() };
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
        };
        let store_key = Bytes::from(object.store_key());
        let shard = self.shard_of(&object);
        self.by_store_key.insert(store_key.clone(), id);
        self.places.push(Place { bucket, name, object, store_key, shard, owners });
        match slot {
            Some(slot) => self.current[bucket][slot] = id,
            None => self.current[bucket].push(id),
        }
        (id, key)
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The catalog's records of the buckets at the start.
    pub(crate) fn records(&self) -> Vec<Record> {
        let record = |bucket: &Bucket| Record {
            key: RecordKey::Bucket(tenant(), bucket.name.clone()),
            version: 1,
            stamp: Hlc::default(),
            body: RecordBody::Bucket { id: bucket.id, props: bucket.props.clone(), past: Vec::new() },
        };
        let plugin = |bucket: &Bucket| {
            let plugin = bucket.props.plugin?.plugin;
            let (key, stamp) = (RecordKey::Plugin(tenant(), plugin), Hlc::default());
            Some(Record {
                key,
                version: 1,
                stamp,
                body: plugin_record(bucket.name.clone(), "1".into(), 0, false, true),
            })
        };
        self.buckets.iter().map(record).chain(self.buckets.iter().filter_map(plugin)).collect()
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
