//! The request-id table: which writes were already done for which request, for as long as a client may retry.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use rejoin_proto::{PartitionId, RequestId, codec};

use crate::port::{Change, Space, Store, StoreFault};
use crate::rows::{self, Kind, RetryRow};

/// The table of one shard. Its rows are in the store, written with the put itself, because in the object they would be lost by a delete, an
/// overwrite or a fold. In memory is only when each may be dropped.
#[derive(Debug)]
pub(crate) struct Retries {
    /// By the wall millisecond after which they go.
    oldest_first: BTreeMap<u64, Vec<(PartitionId, RequestId)>>,
    count: usize,
    limit: usize,
}

impl Retries {
    /// The table that the store has, of at most so many rows.
    pub(crate) fn open(store: &dyn Store, limit: usize) -> Result<Self, StoreFault> {
        let mut table = Self { oldest_first: BTreeMap::new(), count: 0, limit };
        for (partition, rest, row) in rows::load::<RetryRow>(store, Kind::Retry)? {
            let request = <[u8; 16]>::try_from(rest.as_slice()).map_err(|_| StoreFault::Damaged("retry row: short key".into()))?;
            table.remember(row.until_ms, partition, RequestId(u128::from_be_bytes(request)));
        }
        Ok(table)
    }

    fn remember(&mut self, until_ms: u64, partition: PartitionId, request: RequestId) {
        self.oldest_first.entry(until_ms).or_default().push((partition, request));
        self.count += 1;
    }

    /// The row of a write that was done for this request.
    pub(crate) fn get(store: &dyn Store, partition: PartitionId, request: RequestId) -> Result<Option<RetryRow>, StoreFault> {
        let Some(row) = store.get(Space::Pinned, &rows::retry_key(partition, request))? else { return Ok(None) };
        codec::decode(&row).map(Some).map_err(|error| StoreFault::Damaged(alloc::format!("{error}")))
    }

    /// Whether another write can be remembered. If not, it must not be done: a retry of it could not be recognised.
    pub(crate) fn has_room(&self) -> bool {
        self.count < self.limit
    }

    /// Remembers a write; the change gets the row.
    pub(crate) fn insert(&mut self, partition: PartitionId, request: RequestId, row: &RetryRow, change: &mut Change) {
        change.put(Space::Pinned, rows::retry_key(partition, request), codec::encode(row));
        self.remember(row.until_ms, partition, request);
    }

    /// Takes back the latest [`Retries::insert`] of a row that goes at that time, whose change was not written.
    pub(crate) fn forget_latest(&mut self, until_ms: u64) {
        if self.oldest_first.get_mut(&until_ms).and_then(Vec::pop).is_some() {
            self.count -= 1;
        }
    }

    /// The removals of up to `most` rows whose time is over, the oldest first. Once they are written, [`Retries::dropped`] is to be told.
    pub(crate) fn expired(&self, now_ms: u64, most: usize) -> Change {
        let mut change = Change::default();
        for &(partition, request) in self.oldest_first.range(..now_ms).flat_map(|(_, rows)| rows).take(most) {
            change.remove(Space::Pinned, rows::retry_key(partition, request));
        }
        change
    }

    /// So many of the oldest rows are gone.
    pub(crate) fn dropped(&mut self, count: usize) {
        let mut left = count.min(self.count);
        self.count -= left;
        while let Some(mut oldest) = self.oldest_first.first_entry() {
            let rows = oldest.get_mut();
            let here = left.min(rows.len());
            rows.drain(..here);
            left -= here;
            if !rows.is_empty() {
                return;
            }
            oldest.remove();
        }
    }
}
