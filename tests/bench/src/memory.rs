//! A store without a disk, and the only shard of a node on it.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use rand_core::SeedableRng;
use rand_xoshiro::Xoshiro256PlusPlus;

use rejoin_core::exchange::ExchangeConfig;
use rejoin_core::exchange::hash::CausalKey;
use rejoin_core::port::{Change, Space, Store, StoreFault};
use rejoin_core::shard::{Config, Shard};
use rejoin_core::view::ClusterView;
use rejoin_proto::NodeId;
use rejoin_proto::context::ContextKey;

/// Rows in memory.
#[derive(Default, Debug)]
pub(crate) struct Memory(BTreeMap<(Space, Bytes), Bytes>);

impl Memory {
    /// How many objects there are.
    #[cfg(test)]
    pub(crate) fn objects(&self) -> u64 {
        self.0.keys().filter(|(space, _)| *space == Space::Objects).count() as u64
    }
}

impl Store for Memory {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, StoreFault> {
        Ok(self.0.get(&(space, Bytes::copy_from_slice(key))).cloned())
    }

    fn scan(
        &self,
        space: Space,
        from: &[u8],
        to: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>,
    ) -> Result<(), StoreFault> {
        let inside = |key: &[u8]| key >= from && to.is_none_or(|to| key < to);
        let mut rows = self.0.iter().filter(|((at, key), _)| *at == space && inside(key));
        let _ = rows.try_for_each(|((_, key), value)| visit(key, value.clone()));
        Ok(())
    }

    fn write(&mut self, change: Change) -> Result<(), StoreFault> {
        for row in change.rows {
            match row.value {
                Some(value) => self.0.insert((row.space, row.key), value),
                None => self.0.remove(&(row.space, row.key)),
            };
        }
        Ok(())
    }
}

/// The only shard of a node, which exchanges nothing by itself.
pub(crate) fn shard(node: NodeId, view: Arc<ClusterView>) -> (Shard, Memory) {
    let config = Config {
        node,
        shard: 0,
        shards: 1,
        exchange: ExchangeConfig { paused: true, ..ExchangeConfig::default() },
        contexts: ContextKey::derive(1, b"a secret of a benchmark"),
        causal_key: CausalKey::derive(b"a secret of a benchmark"),
        max_skew_ms: 60_000,
        retry_window_ms: 30_000,
        max_retry_bytes: 128 << 20,
        max_receipt_bytes: 256 << 20,
        max_ops: 8192,
        max_op_bytes: 128 << 20,
        lost: false,
        rows_lost: false,
        replaced: false,
        handoff: Default::default(),
        reads: Default::default(),
    };
    let mut store = Memory::default();
    let rng = Xoshiro256PlusPlus::seed_from_u64(node.0);
    let shard = Shard::open(config, view, rng, &mut store).expect("a shard");
    (shard, store)
}
