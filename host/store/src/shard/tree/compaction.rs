//! Which compaction is due, and doing it.
//!
//! Most are those of a levelled tree. They drop a removed row only where they come by, and a shard that is written no
//! more has none. So there are others, which bring tombstones to the last level: there a tombstone ends, together with
//! the row that it hides.

use std::sync::Arc;

use lsm_tree::compaction::{Choice, CompactionStrategy, Leveled};
use lsm_tree::{AbstractTree, Table};

use super::error::TreeError;
use super::{MARGIN, Tree};

/// Bytes of tables that are compacted in one go to free room: as many as the first level of a levelled tree may have.
/// The tables of a larger tree are merged down a few at a time.
const AT_ONCE_BYTES: u64 = 256 << 20;
/// The size of a table that a compaction of the whole tree writes.
const TABLE_BYTES: u64 = 64 << 20;

/// A compaction that is due.
pub(in crate::shard) struct DueCompaction {
    /// The numbers of the tables that it reads.
    pub(in crate::shard) tables: Vec<u64>,
    /// Bytes of room that it needs until those tables are removed.
    pub(in crate::shard) bytes: u64,
    /// Whether it is done for the room of removed rows.
    pub(in crate::shard) frees: bool,
    way: Way,
}

/// How tables are compacted.
#[derive(Clone, Copy)]
enum Way {
    /// A level that has outgrown its size goes into the next one.
    Levels,
    /// Every level goes into the next one, down to the last.
    Down,
    /// All tables become one run in the last level.
    Whole,
}

impl Way {
    fn levels(self) -> Leveled {
        match self {
            // With a size of 0 for each level, each but the last has outgrown it.
            Self::Down => Leveled::default().with_l0_threshold(0),
            Self::Levels | Self::Whole => Leveled::default(),
        }
    }
}

/// Rows of the tables that a compaction could free, and all rows.
#[derive(Clone, Copy, Default, Debug)]
pub(in crate::shard) struct RemovedRows {
    /// Tombstones; each hides about one row.
    pub(in crate::shard) removed: u64,
    /// Rows in tables, with the tombstones.
    pub(in crate::shard) rows: u64,
}

impl Tree {
    /// The compaction of a levelled tree that is due, if there is one.
    pub(in crate::shard) fn due_compaction(&self) -> Option<DueCompaction> {
        self.due(Way::Levels)
    }

    /// The next compaction that frees the room of removed rows. There is none while a snapshot is open, for which
    /// those are kept.
    pub(in crate::shard) fn due_reclaim(&self) -> Option<DueCompaction> {
        if self.snapshots.any() {
            return None;
        }
        let version = self.shared().tree.current_version();
        let bytes = version.iter_tables().map(|table| table.metadata.file_size).sum::<u64>();
        if bytes > AT_ONCE_BYTES {
            return self.due(Way::Down);
        }
        let tables: Vec<u64> = version.iter_tables().map(Table::id).collect();
        (!tables.is_empty()).then(|| DueCompaction { tables, bytes: with_margin(bytes), frees: true, way: Way::Whole })
    }

    /// The removed rows whose room [`Self::due_reclaim`] frees.
    pub(in crate::shard) fn removed_rows(&self) -> RemovedRows {
        let version = self.shared().tree.current_version();
        let bytes = version.iter_tables().map(|table| table.metadata.file_size).sum::<u64>();
        let last = version.level_count() - 1;
        let mut found = RemovedRows::default();
        for (number, level) in version.iter_levels().enumerate() {
            for table in level.iter().flat_map(|run| run.iter()) {
                found.rows += table.metadata.item_count;
                // A tombstone in the last level hides nothing. Only a compaction of all tables comes by there.
                if number < last || bytes <= AT_ONCE_BYTES {
                    found.removed += table.tombstone_count();
                }
            }
        }
        found
    }

    fn due(&self, way: Way) -> Option<DueCompaction> {
        let tree = self.shared().tree.clone();
        let version = tree.current_version();
        let frees = matches!(way, Way::Down);
        let tables: Vec<u64> = match way.levels().choose(&version, tree.tree_config(), &Default::default()) {
            Choice::DoNothing => return None,
            Choice::Move(input) => {
                let tables = input.table_ids.into_iter().collect();
                return Some(DueCompaction { tables, bytes: MARGIN, frees, way });
            }
            Choice::Merge(input) => input.table_ids.into_iter().collect(),
            Choice::Drop(tables) => tables.into_iter().collect(),
        };
        let inputs = version.iter_tables().filter(|table| tables.contains(&table.id()));
        let bytes: u64 = inputs.map(|table| table.metadata.file_size).sum();
        Some(DueCompaction { tables, bytes: with_margin(bytes), frees, way })
    }

    /// Does a compaction that is due; flushes have their turn before the next. `published` is called before the tables
    /// that it has read are removed. Returns whether there was one.
    pub(in crate::shard) fn compact(&self, due: &DueCompaction, published: &dyn Fn()) -> Result<bool, TreeError> {
        let tree = self.shared().tree.clone();
        let before = tree.current_version();
        match due.way {
            Way::Levels | Way::Down => tree.compact(Arc::new(due.way.levels()), self.gc_seqno())?,
            Way::Whole => tree.major_compact(TABLE_BYTES, self.gc_seqno())?,
        }
        published();
        // Earlier versions keep the files of the tables that were compacted.
        tree.get_version_history_lock().maintenance(&self.path, super::NEWEST)?;
        // Dropping `before` removes the files, without a lock: that takes tens of milliseconds.
        Ok(before.id() != tree.current_version().id())
    }
}

fn with_margin(bytes: u64) -> u64 {
    bytes + bytes / 16 + MARGIN
}

#[cfg(test)]
mod tests {
    use super::*;
    use lsm_tree::{AnyTree, Config, SequenceNumberCounter};

    fn tables(tree: &AnyTree) -> Vec<(usize, u64, u64)> {
        let version = tree.current_version();
        let levels = version.iter_levels().enumerate();
        let tables = levels.flat_map(|(number, level)| {
            let tables = level.iter().flat_map(|run| run.iter());
            tables.map(move |table| (number, table.metadata.item_count, table.tombstone_count())).collect::<Vec<_>>()
        });
        tables.collect()
    }

    /// The way down needs a level size of 0, which no user of lsm-tree is known to ask for.
    #[test]
    fn every_level_goes_down_to_the_last_where_tombstones_end() {
        let dir = tempfile::tempdir().expect("a directory");
        let (seqno, visible) = (SequenceNumberCounter::default(), SequenceNumberCounter::default());
        let tree = Config::new(dir.path(), seqno.clone(), visible.clone()).open().expect("a tree");
        let write = |keys: std::ops::Range<u64>, value: Option<&str>| {
            for key in keys {
                let seqno = seqno.next();
                match value {
                    Some(value) => drop(tree.insert(key.to_be_bytes(), value, seqno)),
                    None => drop(tree.remove(key.to_be_bytes(), seqno)),
                }
                visible.fetch_max(seqno + 1);
            }
            tree.flush_active_memtable(0).expect("flushed");
        };
        let step = || {
            let before = tree.current_version().id();
            tree.compact(Arc::new(Way::Down.levels()), visible.get()).expect("compacted");
            before != tree.current_version().id()
        };
        write(0..1000, Some("first"));
        assert!(step() && !step(), "it is moved, and no more");
        assert_eq!(tables(&tree), [(6, 1000, 0)]);
        write(0..600, None);
        write(500..900, Some("second"));
        let mut steps = 0;
        while step() {
            steps += 1;
            assert!(steps < 10, "{:?}", tables(&tree));
        }
        assert_eq!(tables(&tree), [(6, 500, 0)], "{steps} steps");
        assert_eq!(tree.get(550_u64.to_be_bytes(), visible.get()).expect("read").as_deref(), Some(&b"second"[..]));
        assert!(tree.get(0_u64.to_be_bytes(), visible.get()).expect("read").is_none());
    }
}
