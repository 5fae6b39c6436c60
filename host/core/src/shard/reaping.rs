//! Removes the objects of buckets that are reaped.
//!
//! The hash trees know which partitions have some. Peers that have not reaped the bucket yet send none: they refuse to
//! talk of a bucket that only one side knows. An object goes as one that was handed over does, and with it the tenure,
//! because a restoration may still come from a node that was away.

use core::ops::ControlFlow;

use alloc::vec::Vec;
use bytes::Bytes;

use rejoin_proto::{BucketId, PartitionId};

use super::Shard;
use super::copy::{Place, StoredRow};
use super::turn::Turn;
use crate::port::{Change, Space};

/// The most objects that are removed in one turn.
const REAPED_AT_ONCE: usize = 128;
/// After so many bytes of rows a turn takes no further one.
const REAPED_BYTES: usize = 4 << 20;
/// The pause between two such turns while there are more, in microseconds: about 6 000 objects a second.
pub(super) const REAP_PAUSE_US: u64 = 20_000;

impl Shard {
    /// Removes some objects of reaped buckets. Returns whether there may be more.
    pub(super) fn reap_objects(&mut self, turn: &mut Turn<'_>) -> bool {
        if !self.serving || !self.view.reaps() {
            return false;
        }
        let left: Vec<_> = self.trees.filled().filter(|(_, bucket)| self.view.is_reaped(*bucket)).collect();
        let (mut reaped, mut bytes) = (0, 0);
        for (partition, bucket) in left {
            for (store_key, row) in self.rows_of(turn, partition, bucket) {
                bytes += row.len();
                let place = Place { partition, store_key: &store_key };
                // A full or busy store is asked again with the next upkeep.
                if self.drop_object(turn, place, &StoredRow::Present(row), Change::default()).is_err() {
                    return false;
                }
                self.counters.objects_reaped += 1;
                reaped += 1;
            }
            if reaped >= REAPED_AT_ONCE || bytes >= REAPED_BYTES {
                return true;
            }
        }
        false
    }

    /// The first rows of a bucket in a partition.
    fn rows_of(&self, turn: &Turn<'_>, partition: PartitionId, bucket: BucketId) -> Vec<(Bytes, Bytes)> {
        let (start, end) = (self.start_of(bucket, partition), self.end_of(bucket, partition));
        let (mut rows, mut bytes) = (Vec::new(), 0);
        let mut visit = |key: &[u8], row: Bytes| {
            bytes += row.len();
            rows.push((Bytes::copy_from_slice(key), row));
            if rows.len() < REAPED_AT_ONCE && bytes < REAPED_BYTES {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        };
        // Rows that cannot be read stay; the recount of their leaf reports them.
        let _ = turn.store.scan(Space::Objects, &start, end.as_deref(), &mut visit);
        rows
    }
}
