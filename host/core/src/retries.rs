//! The retry table: the writes that were done, by request id, for as long as a client may retry them.
//!
//! It owns which rows are kept and when each may go. The rows themselves are in the store, written with the put they
//! belong to.
//!
//! Rows age in *epochs* of the shard's own running time, because wall clocks step, and the monotonic clock of one
//! process says nothing about that of the next. Each row has the number of the epoch in which it was written. An epoch
//! lasts an eighth of the window. After a pause of the process at most one epoch ends, so that requests that have
//! waited meanwhile are handled first. A start continues the latest epoch that it finds, from its beginning. So a row
//! may live longer than the window, never shorter.

use alloc::collections::{BTreeMap, VecDeque};

use rejoin_proto::client::Receipt;
use rejoin_proto::{PartitionId, RequestId, codec};

use crate::port::{Change, Space, Store, StoreFault};
use crate::rows::{self, Kind, RetryRow};

/// The epochs of a window, and how many more a row is kept: a retry that was sent within the window may still be on its
/// way.
const EPOCHS: u64 = 8;
const LATE_EPOCHS: u64 = 2;
/// The bytes that a row takes beside its key and value: an entry in the store's map of pinned rows and one here.
pub(crate) const ROW_OVERHEAD: usize = 128;

/// The key of a row, ordered by epoch.
type Place = (u64, PartitionId, RequestId);

/// The table of one shard. The rows are not kept in the objects, because a delete, an overwrite or a fold would lose
/// them.
#[derive(Debug)]
pub(crate) struct Retries {
    /// The rows to be kept, with the bytes that each takes.
    rows: BTreeMap<Place, u32>,
    /// Rows whose clients have the answer, to be removed from the store.
    settled: VecDeque<(PartitionId, RequestId, u32)>,
    bytes: usize,
    limit: usize,
    epoch: u64,
    epoch_us: u64,
    /// When the epoch ends; unknown until the first call with a time.
    ends_us: Option<u64>,
}

impl Retries {
    /// Reads the table. `limit` is in bytes, the window in milliseconds.
    pub(crate) fn open(store: &dyn Store, limit: usize, window_ms: u64) -> Result<Self, StoreFault> {
        let epoch_us = (window_ms.saturating_mul(1000) / EPOCHS).max(1);
        let mut table = Self {
            rows: BTreeMap::new(),
            settled: VecDeque::new(),
            bytes: 0,
            limit,
            epoch: 0,
            epoch_us,
            ends_us: None,
        };
        for (partition, rest, row) in rows::load::<RetryRow>(store, Kind::Retry)? {
            let request = <[u8; 16]>::try_from(rest.as_slice())
                .map_err(|_| StoreFault::Damaged("retry row: short key".into()))?;
            let bytes = cost(codec::encode(&row).len());
            table.rows.insert((row.epoch, partition, RequestId(u128::from_be_bytes(request))), bytes);
            table.bytes += bytes as usize;
            table.epoch = table.epoch.max(row.epoch);
        }
        Ok(table)
    }

    /// The row of the write that was done for this request, if one was.
    pub(crate) fn get(
        store: &dyn Store,
        partition: PartitionId,
        request: RequestId,
    ) -> Result<Option<RetryRow>, StoreFault> {
        let Some(row) = store.get(Space::Pinned, &rows::retry_key(partition, request))? else { return Ok(None) };
        codec::decode(&row).map(Some).map_err(|error| StoreFault::Damaged(alloc::format!("{error}")))
    }

    /// Whether there is room for another row. Without one a write must not be done: a retry would not be recognised.
    pub(crate) fn has_room(&self) -> bool {
        self.bytes < self.limit
    }

    /// The bytes that the rows take.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The epoch for a row that is written now.
    pub(crate) fn epoch(&mut self, now_us: u64) -> u64 {
        match self.ends_us {
            Some(ends_us) if now_us < ends_us => {}
            ended => {
                self.epoch += u64::from(ended.is_some());
                self.ends_us = Some(now_us.saturating_add(self.epoch_us));
            }
        }
        self.epoch
    }

    /// Adds a write's row to the table and to the change.
    pub(crate) fn insert(&mut self, partition: PartitionId, request: RequestId, row: &RetryRow, change: &mut Change) {
        let value = codec::encode_bytes(row);
        let bytes = cost(value.len());
        change.put(Space::Pinned, rows::retry_key(partition, request), value);
        if self.rows.insert((row.epoch, partition, request), bytes).is_none() {
            self.bytes += bytes as usize;
        }
    }

    /// Takes back an [`Retries::insert`] whose change was not written.
    pub(crate) fn forget(&mut self, epoch: u64, partition: PartitionId, request: RequestId) {
        let bytes = self.rows.remove(&(epoch, partition, request));
        self.bytes -= bytes.unwrap_or_default() as usize;
    }

    /// A client has the answer to a write and will not repeat it. Returns whether there is such a row.
    pub(crate) fn settle(&mut self, store: &dyn Store, Receipt { partition, id }: Receipt) -> bool {
        let request = RequestId(id);
        let Ok(Some(row)) = Self::get(store, partition, request) else { return false };
        let Some(bytes) = self.rows.remove(&(row.epoch, partition, request)) else { return false };
        self.settled.push_back((partition, request, bytes));
        true
    }

    /// Adds the removals of up to `most` rows to a change: settled ones first, then those whose time is over, oldest
    /// first. Returns how many. Call [`Retries::dropped`] once the change is written.
    pub(crate) fn droppable(&self, most: usize, change: &mut Change) -> usize {
        let settled = self.settled.iter().map(|&(partition, request, _)| (partition, request));
        let oldest = self.epoch.saturating_sub(EPOCHS + LATE_EPOCHS);
        let over = self
            .rows
            .range(..(oldest, PartitionId(0), RequestId(0)))
            .map(|(&(_, partition, request), _)| (partition, request));
        let mut count = 0;
        for (partition, request) in settled.chain(over).take(most) {
            change.remove(Space::Pinned, rows::retry_key(partition, request));
            count += 1;
        }
        count
    }

    /// The first `count` rows that [`Retries::droppable`] named are removed.
    pub(crate) fn dropped(&mut self, count: usize) {
        for _ in 0..count {
            let settled = self.settled.pop_front().map(|(.., bytes)| bytes);
            let bytes = settled.or_else(|| self.rows.pop_first().map(|(_, bytes)| bytes));
            self.bytes -= bytes.unwrap_or_default() as usize;
        }
    }
}

/// The bytes that a row with a value of so many bytes takes.
fn cost(value: usize) -> u32 {
    let key = 1 + size_of::<PartitionId>() + size_of::<RequestId>();
    u32::try_from(key + value + ROW_OVERHEAD).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(epoch: u64) -> Retries {
        Retries {
            rows: BTreeMap::new(),
            settled: VecDeque::new(),
            bytes: 0,
            limit: 1000,
            epoch,
            epoch_us: 100,
            ends_us: None,
        }
    }

    #[test]
    fn an_epoch_lasts_its_time_and_a_pause_ends_one_at_most() {
        let mut table = table(7);
        assert_eq!([5, 104].map(|now| table.epoch(now)), [7, 7], "a start goes on in the last one, from its beginning");
        assert_eq!([105, 204, 205].map(|now| table.epoch(now)), [8, 8, 9]);
        assert_eq!([1_000_000, 1_000_099, 1_000_100].map(|now| table.epoch(now)), [10, 10, 11]);
        assert_eq!(table.epoch(3), 11, "a clock that goes back is not believed");
    }
}
