//! The request-id table: which writes were already done for which request, for as long as a client may retry.

use alloc::collections::{BTreeMap, BTreeSet};

use rejoin_proto::{PartitionId, RequestId, codec};

use crate::port::{Change, Space, Store, StoreFault};
use crate::rows::{self, Kind, RetryRow};

type Key = (PartitionId, RequestId);

/// The table of one shard. Written with the put itself, because in the object it would be lost by a delete, an overwrite or a fold.
#[derive(Debug)]
pub(crate) struct Retries {
    rows: BTreeMap<Key, RetryRow>,
    oldest_first: BTreeSet<(u64, Key)>,
    limit: usize,
}

impl Retries {
    /// An empty table of at most so many rows.
    pub(crate) fn new(limit: usize) -> Self {
        Self { rows: BTreeMap::new(), oldest_first: BTreeSet::new(), limit }
    }

    pub(crate) fn open(store: &dyn Store, limit: usize) -> Result<Self, StoreFault> {
        let mut table = Self::new(limit);
        for (partition, rest, row) in rows::load::<RetryRow>(store, Kind::Retry)? {
            let request = <[u8; 16]>::try_from(rest.as_slice()).map_err(|_| StoreFault::Damaged("retry row: short key".into()))?;
            let key = (partition, RequestId(u128::from_be_bytes(request)));
            table.oldest_first.insert((row.until_ms, key));
            table.rows.insert(key, row);
        }
        Ok(table)
    }

    pub(crate) fn get(&self, partition: PartitionId, request: RequestId) -> Option<&RetryRow> {
        self.rows.get(&(partition, request))
    }

    /// Whether another write can be remembered. If not, it must not be done: a retry of it could not be recognised.
    pub(crate) fn has_room(&self) -> bool {
        self.rows.len() < self.limit
    }

    /// Remembers a write; the change gets the row.
    pub(crate) fn insert(&mut self, partition: PartitionId, request: RequestId, row: RetryRow, change: &mut Change) {
        change.put(Space::Pinned, rows::retry_key(partition, request), codec::encode(&row));
        self.oldest_first.insert((row.until_ms, (partition, request)));
        self.rows.insert((partition, request), row);
    }

    /// Takes back an [`Retries::insert`] whose change was not written.
    pub(crate) fn forget(&mut self, partition: PartitionId, request: RequestId) {
        if let Some(row) = self.rows.remove(&(partition, request)) {
            self.oldest_first.remove(&(row.until_ms, (partition, request)));
        }
    }

    /// Drops up to `most` rows whose time is over; the change gets their removals.
    pub(crate) fn expire(&mut self, now_ms: u64, most: usize, change: &mut Change) {
        for _ in 0..most {
            match self.oldest_first.first() {
                Some(&(until, key)) if until < now_ms => {
                    self.oldest_first.pop_first();
                    if self.rows.remove(&key).is_some() {
                        change.remove(Space::Pinned, rows::retry_key(key.0, key.1));
                    }
                }
                _ => return,
            }
        }
    }
}
