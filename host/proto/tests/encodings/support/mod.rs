//! One value of everything that has a frozen encoding, for the tests of this crate.

pub(crate) mod client;
pub(crate) mod peer;

use bytes::Bytes;

use rejoin_proto::access::{Grant, Limits, Scope};
use rejoin_proto::catalog::{
    Activation, BucketPast, BucketProps, Deleted, Durability, OldSecret, PastPlugin, PluginRecord, Quorum, Record,
    RecordBody, RecordKey, Transcript,
};
use rejoin_proto::codec::{self, DecodeError, Versioned};
use rejoin_proto::layout::LayoutNode;
use rejoin_proto::quota::{Limit, Quota};
use rejoin_proto::receipt::{FoldReceipt, MergeLimits, Restoration, Restored};
use rejoin_proto::ring::{Announced, PastLayout, Progress, RingNotes, Role, Staged};
use rejoin_proto::signing::Provenance;
use rejoin_proto::trial::{Canary, Shadow};
use rejoin_proto::{
    ActorId, BucketCopies, BucketId, Content, Dot, DotSet, DotSpan, Entry, FoldedBy, Hlc, Layout, LayoutPolicy,
    LayoutRef, Name, NodeId, Object, ObjectId, PluginDigest, ProfileId, Ring, SignerKey, TenantId, VersionVector,
    ZoneDemand,
};

/// An encoded value, and how to decode and encode it again.
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) again: fn(&[u8]) -> Result<Vec<u8>, DecodeError>,
}

pub(crate) fn sample<T: Versioned>(name: &str, value: &T) -> Sample {
    Sample { name: name.into(), bytes: codec::encode(value), again: again::<T> }
}

pub(crate) fn again<T: Versioned>(bytes: &[u8]) -> Result<Vec<u8>, DecodeError> {
    codec::decode::<T>(bytes).map(|value| codec::encode(&value))
}

/// Every message, object and record of version 1.
pub(crate) fn samples() -> Vec<Sample> {
    let mut all = vec![
        sample("object", &object()),
        sample("object-empty", &Object::default()),
        sample("fold-receipt", &fold_receipt()),
        sample("restoration", &restoration()),
        sample("layout", &layout()),
        sample("ring", &Ring { notes: ring_notes(), ..Ring::new(layout()) }),
        sample("record-tenant", &record(RecordKey::Tenant(tenant()), RecordBody::Tenant { name: name("shop") })),
        sample("record-bucket", &bucket_record()),
        sample("record-plugin", &plugin_record()),
        sample("record-token", &token_record()),
        sample(
            "record-quota",
            &record(RecordKey::Quota(tenant(), Some(object_id().bucket)), RecordBody::Quota(Box::new(quota()))),
        ),
        sample("record-bucket-deleted", &deleted_bucket_record()),
        sample("record-tenant-deleted", &deleted_tenant_record()),
        sample("record-plugin-deleted", &deleted_plugin_record()),
        sample(
            "record-signers",
            &record(RecordKey::Signers(tenant()), RecordBody::Signers(vec![SignerKey([1; 32]), SignerKey([2; 32])])),
        ),
    ];
    all.extend(client::samples());
    all.extend(peer::samples());
    all
}

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).expect("a good name")
}

pub(crate) fn tenant() -> TenantId {
    TenantId::from_name(&name("shop"))
}

pub(crate) fn object_id() -> ObjectId {
    ObjectId { tenant: tenant(), bucket: BucketId::derive(tenant(), &name("cart"), 0), key: "alice".into() }
}

pub(crate) fn digest() -> PluginDigest {
    PluginDigest(core::array::from_fn(|at| at as u8))
}

pub(crate) fn vector() -> VersionVector {
    [(3, 300), (5, 7), (u64::MAX, u64::MAX)]
        .map(|(actor, counter)| Dot { actor: ActorId(actor), counter })
        .into_iter()
        .collect()
}

/// The same, with a write that was seen above one that was not.
pub(crate) fn clouded() -> VersionVector {
    let mut vector = vector();
    vector.insert_span(DotSpan { actor: ActorId(3), lo: 305, hi: 307 });
    vector
}

pub(crate) fn runs(spans: &[(u64, u64, u64)]) -> DotSet {
    spans.iter().map(|&(actor, lo, hi)| DotSpan { actor: ActorId(actor), lo, hi }).collect()
}

/// A tombstone, a fresh value with an expiry, and a fold that was cut.
pub(crate) fn object() -> Object {
    let fresh = |runs: DotSet, content, expires| Entry {
        covers: runs.clone(),
        dots: runs,
        content,
        stamp: Hlc::from_ms(1_700_000_000_000),
        expires,
        folded_by: None,
    };
    let folded = Entry {
        dots: runs(&[(3, 100, 299)]),
        covers: runs(&[(3, 0, 299), (4, 0, 2)]),
        content: Content::Value(Bytes::from_static(b"milk,bread")),
        stamp: Hlc(9),
        expires: None,
        folded_by: Some(FoldedBy { plugin: digest(), profile: ProfileId(77) }),
    };
    let value = Content::Value(Bytes::from_static(b"\x00\xffeggs"));
    Object {
        context: clouded(),
        entries: vec![
            folded,
            fresh(runs(&[(3, 299, 300)]), Content::Tombstone, None),
            fresh(runs(&[(5, 6, 7)]), value, Some(Hlc::from_ms(1_800_000_000_000))),
        ],
    }
}

pub(crate) fn layout() -> Layout {
    let node = |at: u8| {
        let name = name(&format!("n{at}"));
        let address = match at {
            2 => "n2.example:7102".parse().expect("an address"),
            3 => "[::1]:7103".parse().expect("an address"),
            _ => ([127, 0, 0, 1], 7100 + u16::from(at)).into(),
        };
        LayoutNode {
            id: NodeId::from_name(&name),
            name,
            zone: self::name(&format!("z{at}")),
            capacity: u32::from(at),
            address,
        }
    };
    let mut nodes: Vec<LayoutNode> = (1..=3).map(node).collect();
    nodes.sort_by_key(|node| node.id);
    Layout {
        version: 1,
        policy: LayoutPolicy::default(),
        nodes,
        owners: vec![vec![0, 1, 2], vec![1, 2, 0], vec![2, 0], vec![1]],
        copies: vec![BucketCopies { bucket: BucketId(3), change: 2, n: 5, sloppy: true }],
    }
}

/// Notes with something in every field.
pub(crate) fn ring_notes() -> RingNotes {
    let (layout, node) = (layout_ref(), NodeId::from_name(&name("n4")));
    let zone = name("z1");
    let steps = Progress { acknowledged: layout, closed: layout, exchanged: LayoutRef::default(), reads: layout };
    let role = Staged { base: layout, number: 2, what: Some(Role::Member { zone, capacity: 5 }) };
    let policy = LayoutPolicy { n: 2, zones: ZoneDemand::AtLeast(2) };
    let announced = Announced { number: 1, name: name("n4"), address: ([127, 0, 0, 1], 7104).into() };
    let past =
        PastLayout { applied_ms: 1_700_000_000_000, by: node, nodes: 3, moved: 0, bucket: None, split: Some(512) };
    RingNotes {
        oldest: layout,
        progress: [(node, steps)].into(),
        skipped: [(node, layout)].into(),
        staged: [(node, role), (NodeId(1), Staged { base: layout, number: 1, what: Some(Role::Removed) })].into(),
        policy: Some(Staged { base: layout, number: 1, what: Some(policy) }),
        announced: [(node, announced)].into(),
        past: [(layout, past)].into(),
        partitions: 512,
        split: Some(Staged { base: layout, number: 1, what: Some(1024) }),
    }
}

pub(crate) fn layout_ref() -> LayoutRef {
    LayoutRef { version: 1, hash: 0x0123_4567_89ab_cdef }
}

/// Properties of which none is the default.
pub(crate) fn props() -> BucketProps {
    let plugin =
        Activation { plugin: digest(), self_causal: true, since: Hlc::from_ms(5), replaces: true, validates: true };
    BucketProps {
        n: 5,
        r: Quorum::Count(2),
        w: Quorum::Count(3),
        pr: Quorum::Majority,
        pw: Quorum::Count(1),
        durability: Durability::Os,
        sloppy: false,
        plugin: Some(plugin),
        value_bytes: 4096,
        siblings: 7,
        fuel: 1_000_000,
        memory_bytes: 1 << 20,
        ttl_ms: Some(86_400_000),
        fold_delay_ms: 1,
        zones: 2,
        fold_undo_ms: 604_800_001,
        canary: Some(Canary { plugin: Activation { plugin: PluginDigest([6; 32]), ..plugin }, percent: 25 }),
        shadow: Some(Shadow { plugin: PluginDigest([7; 32]), since: Hlc::from_ms(6), percent: 50 }),
    }
}

/// The receipt of a fold of everything in an object.
pub(crate) fn fold_receipt() -> FoldReceipt {
    FoldReceipt {
        object: object_id(),
        by: FoldedBy { plugin: digest(), profile: ProfileId(7) },
        inputs: object().entries,
        dots: runs(&[(3, 0, 299)]),
        covers: runs(&[(3, 0, 299), (4, 0, 2)]),
        output: [5; 32],
        output_bytes: 10,
        limits: MergeLimits { fuel: 250_000_000, memory_bytes: 1 << 26, result_bytes: 1 << 20 },
        fuel_used: 12_345,
        node: NodeId(3),
        at_ms: 1_700_000_000_000,
        until_ms: 1_700_604_800_000,
    }
}

fn restoration() -> Restoration {
    let restored = |entry: Entry| Restored { content: entry.content, expires: entry.expires, dots: entry.dots };
    Restoration { by: fold_receipt().by, inputs: object().entries.into_iter().map(restored).collect() }
}

/// A bucket without a plugin. Every property is spelled out: a new default is not a new format.
pub(crate) fn plain_props() -> BucketProps {
    BucketProps {
        n: 3,
        r: Quorum::Majority,
        w: Quorum::Majority,
        pr: Quorum::Count(0),
        pw: Quorum::Count(0),
        durability: Durability::Fsync,
        sloppy: true,
        plugin: None,
        value_bytes: 1024 * 1024,
        siblings: 32,
        fuel: 50_000_000,
        memory_bytes: 16 * 1024 * 1024,
        ttl_ms: None,
        fold_delay_ms: 24 * 60 * 60 * 1000,
        zones: 1,
        fold_undo_ms: 7 * 24 * 60 * 60 * 1000,
        canary: None,
        shadow: None,
    }
}

pub(crate) fn record(key: RecordKey, body: RecordBody) -> Record {
    Record { key, version: 2, stamp: Hlc::from_ms(1_700_000_000_000), body }
}

fn bucket_past() -> BucketPast {
    let plugins = vec![
        PastPlugin { plugin: None, until: Hlc::from_ms(5) },
        PastPlugin { plugin: props().plugin, until: Hlc::from_ms(6) },
    ];
    BucketPast { buckets: vec![BucketId(7)], plugins }
}

fn bucket_body() -> RecordBody {
    RecordBody::Bucket { id: object_id().bucket, props: props(), past: bucket_past() }
}

pub(crate) fn bucket_record() -> Record {
    record(RecordKey::Bucket(tenant(), name("cart")), bucket_body())
}

fn deleted_bucket_record() -> Record {
    let deleted = Deleted { reap_ms: 1_700_000_600_000, reaped: false };
    let body = RecordBody::DeletedBucket { id: object_id().bucket, props: props(), past: bucket_past(), deleted };
    record(RecordKey::Bucket(tenant(), name("cart")), body)
}

fn deleted_plugin_record() -> Record {
    let plugin = Box::new(PluginRecord {
        name: name("cart"),
        version: "0.1.0".into(),
        bytes: 37_000,
        self_causal: true,
        validates: false,
        quarantined: None,
        unchecked: None,
        transcripts: Vec::new(),
        provenance: None,
    });
    let deleted = Deleted { reap_ms: 1_700_000_600_000, reaped: false };
    record(RecordKey::Plugin(tenant(), digest()), RecordBody::DeletedPlugin { plugin, deleted })
}

fn deleted_tenant_record() -> Record {
    let deleted = Deleted { reap_ms: 1_700_000_600_000, reaped: true };
    record(RecordKey::Tenant(tenant()), RecordBody::DeletedTenant { name: name("shop"), deleted })
}

pub(crate) fn plugin_record() -> Record {
    let plugin = Box::new(PluginRecord {
        name: name("cart"),
        version: "0.1.0".into(),
        bytes: 37_000,
        self_causal: true,
        validates: true,
        quarantined: Some("n2 got another result".into()),
        unchecked: Some(name("root")),
        transcripts: vec![Transcript { profile: ProfileId(0x1234_5678_9abc_def0), cases: 1, hash: [9; 32] }],
        provenance: Some(Box::new(Provenance {
            pushed_by: name("ann"),
            pushed: Hlc::from_ms(1_700_000_000_000),
            signer: Some(SignerKey([3; 32])),
            builder: Some("rustc 1.90.0".into()),
        })),
    });
    record(RecordKey::Plugin(tenant(), digest()), RecordBody::Plugin(plugin))
}

pub(crate) fn grant() -> Grant {
    let limits = Limits { buckets: vec![name("cart")], prefix: Bytes::from_static(b"eu/") };
    Grant { scope: Scope::ReadOnly, limits, expires_ms: Some(1_800_000_000_000) }
}

pub(crate) fn quota() -> Quota {
    let limits = Quota::default().with(Limit::Objects, 1_000).with(Limit::Connections, 64);
    limits.warn(Limit::FuelPerSecond, 1 << 32).weighing(3)
}

pub(crate) fn token_record() -> Record {
    let before = Some(OldSecret { hash: [6; 32], until_ms: 1_700_000_600_000 });
    let body = RecordBody::Token { grant: grant(), secret_hash: [7; 32], before, revoked: true, barred: true };
    record(RecordKey::Token(tenant(), name("ops")), body)
}
