//! Clusters of real shards and of real control machines, driven by hand: an in-memory store per node, messages that are
//! delivered one by one, and barriers that are honoured as the shell honours them.
#![allow(dead_code)] // Each test file uses its part.

pub(crate) mod catalog;
pub(crate) mod cluster;
pub(crate) mod merge;
pub(crate) mod rings;
pub(crate) mod store;
#[path = "../../../../tests/sim/src/trees.rs"]
pub(crate) mod trees;

use rejoin_core::placement;
use rejoin_core::shard::event::Now;
use rejoin_proto::catalog::{BucketProps, Record, RecordBody, RecordKey};
use rejoin_proto::client::{Basis, Get, Put, StartId};
use rejoin_proto::layout::LayoutNode;
use rejoin_proto::{BucketId, Content, Hlc, Layout, Name, NodeId, ObjectId, RequestId, TenantId};

/// Wall time at the start of every test.
pub(crate) const WALL_MS: u64 = 1_700_000_000_000;
/// Clocks may differ by that much.
pub(crate) const SKEW_MS: u64 = 60_000;
/// Retries are recognised for that long.
pub(crate) const WINDOW_MS: u64 = 60_000;
/// How long a request may take in these tests.
pub(crate) const DEADLINE_US: u64 = 1_000_000;

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).expect("a good name")
}

pub(crate) fn tenant() -> TenantId {
    TenantId::from_name(&name("shop"))
}

pub(crate) fn node(at: usize) -> NodeId {
    NodeId::from_name(&name(&format!("n{at}")))
}

pub(crate) fn object_id(key: &str) -> ObjectId {
    let bucket = BucketId::derive(tenant(), &name("cart"), 0);
    ObjectId { tenant: tenant(), bucket, key: key.to_owned().into() }
}

/// Nodes n0, n1, ... of one zone, and few partitions, so that keys meet in them.
pub(crate) fn layout(nodes: usize) -> Layout {
    let node = |at: usize| {
        let name = name(&format!("n{at}"));
        LayoutNode {
            id: NodeId::from_name(&name),
            name,
            zone: self::name("z"),
            capacity: 1,
            address: ([127, 0, 0, 1], at as u16).into(),
        }
    };
    placement::bootstrap((0..nodes).map(node).collect(), 8).expect("a layout")
}

pub(crate) fn bucket(props: BucketProps) -> Record {
    let key = RecordKey::Bucket(tenant(), name("cart"));
    let body = RecordBody::Bucket { id: object_id("").bucket, props, past: Default::default() };
    Record { key, version: 3, stamp: Hlc::from_ms(1), body }
}

pub(crate) fn at(ms: u64) -> Now {
    Now { mono_us: ms * 1000, wall_ms: WALL_MS + ms }
}

pub(crate) fn get(key: &str) -> Get {
    Get {
        bucket: name("cart"),
        key: key.to_owned().into(),
        r: None,
        pr: None,
        siblings: false,
        show: rejoin_proto::client::Show::Nothing,
    }
}

/// A blind write under a request id of its own number.
pub(crate) fn put(key: &str, value: &str, request: u128) -> Put {
    Put {
        bucket: name("cart"),
        key: key.to_owned().into(),
        content: Content::Value(value.to_owned().into()),
        basis: Basis::Blind,
        request: RequestId(request),
        start: StartId(0),
        attempt: 0,
        w: None,
        pw: None,
        ttl_ms: None,
    }
}

pub(crate) fn delete(key: &str, request: u128) -> Put {
    Put { content: Content::Tombstone, ..put(key, "", request) }
}

pub(crate) fn with(context: &[u8], put: Put) -> Put {
    Put { basis: Basis::Context(context.to_vec().into()), ..put }
}
