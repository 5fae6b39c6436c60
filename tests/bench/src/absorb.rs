//! Absorbing a write at a replica, and the join of two objects. No disk, no network.

use std::sync::Arc;

use bytes::Bytes;

use rejoin_core::placement;
use rejoin_core::shard::Shard;
use rejoin_core::shard::event::{Event, Now};
use rejoin_core::view::ClusterView;
use rejoin_proto::catalog::Durability;
use rejoin_proto::peer::{OpId, PeerBody, PeerEnvelope, Replicate};
use rejoin_proto::{
    ActorId, BucketId, Content, Dot, DotSet, Entry, Hlc, LayoutNode, LayoutRef, Name, NodeId, Object, ObjectId,
    ReapEpoch, TenantId, VersionVector,
};

use crate::memory::{Memory, shard};

/// Number of keys. Writes go to them in turn.
const KEYS: u64 = 10_000;
const NOW: Now = Now { mono_us: 1, wall_ms: 1_700_000_000_000 };

/// A shard that absorbs one write after another. Each write replaces the value under its key.
pub struct Absorb {
    shard: Shard,
    store: Memory,
    peer: NodeId,
    layout: LayoutRef,
    value: Bytes,
    next: u64,
}

impl Absorb {
    /// A shard for values of `value` bytes.
    ///
    /// # Panics
    /// If the shard does not open.
    #[must_use]
    pub fn new(value: usize) -> Self {
        let node = |at: u8| {
            let name = Name::new(format!("n{at}")).expect("a name");
            let (id, zone) = (NodeId::from_name(&name), Name::new("z").expect("a name"));
            LayoutNode { id, name, zone, capacity: 1, address: ([127, 0, 0, at], 1).into() }
        };
        let nodes: Vec<LayoutNode> = (1..=3).map(node).collect();
        let (own, peer) = (nodes[0].id, nodes[1].id);
        let layout = placement::bootstrap(nodes, placement::DEFAULT_PARTITIONS).expect("a layout");
        let name = layout.name();
        let (shard, store) = shard(own, Arc::new(ClusterView::new(layout, [])));
        Self { shard, store, peer, layout: name, value: crate::bytes(value).into(), next: 0 }
    }

    /// Absorbs `writes` writes.
    ///
    /// # Panics
    /// If a write is not answered.
    pub fn writes(&mut self, writes: u64) {
        let mut effects = Vec::new();
        for _ in 0..writes {
            self.next += 1;
            let body = PeerBody::Replicate(self.write(self.next));
            let envelope = PeerEnvelope { layout: self.layout, trace: 0, body };
            self.shard.handle(NOW, Event::Peer(self.peer, envelope), &mut self.store, &mut effects);
            assert_eq!(effects.len(), 1, "every write is answered");
            effects.clear();
        }
    }

    /// The write number `number`. Its context covers the previous write to the same key.
    fn write(&self, number: u64) -> Replicate {
        let dot = Dot { actor: ActorId(7), counter: number };
        let key = format!("{:08}", number % KEYS).into();
        let state = Object {
            context: [dot].into_iter().collect(),
            entries: vec![entry(dot, number.saturating_sub(KEYS), &self.value)],
        };
        Replicate {
            op: Some(OpId { shard: 0, number }),
            object: ObjectId { tenant: TenantId(1), bucket: BucketId(2), key },
            bucket_version: 1,
            epoch: ReapEpoch::default(),
            dot: Some(dot),
            durability: Durability::Os,
            state: state.into(),
        }
    }
}

/// Two copies of an object with `count` siblings. Each has one sibling that the other lacks.
#[must_use]
pub fn siblings(count: u64, value: usize) -> [Object; 2] {
    let value = Bytes::from(crate::bytes(value));
    let sibling = |actor: u64| entry(Dot { actor: ActorId(actor), counter: 1 }, 0, &value);
    [1..=count - 1, 2..=count].map(|actors| {
        let entries: Vec<Entry> = actors.map(sibling).collect();
        let context: VersionVector = entries.iter().flat_map(|entry| entry.dots.highest()).collect();
        Object { context, entries }
    })
}

fn entry(dot: Dot, after: u64, value: &Bytes) -> Entry {
    let dots = DotSet::minted(dot, after);
    let content = Content::Value(value.clone());
    Entry { covers: dots.clone(), dots, content, stamp: Hlc::from_ms(NOW.wall_ms), expires: None, folded_by: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_replace_those_before_them_and_siblings_are_joined() {
        let mut absorb = Absorb::new(100);
        absorb.writes(2 * KEYS + 1);
        assert_eq!(absorb.shard.counters().absorbs, 2 * KEYS + 1);
        assert_eq!(absorb.store.objects(), KEYS);
        let [one, other] = siblings(8, 10);
        assert_eq!((one.entries.len(), other.entries.len()), (7, 7));
        let (joined, alarm) = rejoin_core::causal::sync(&one, &other);
        assert!(joined.entries.len() == 8 && alarm.is_none());
    }
}
