//! Finds the tables that have rows under older keys, and writes them anew.
//!
//! A new table takes the place of the old one, with the same rows in the same order and with the same sequence numbers.
//! So nothing changes for reads, snapshots and compactions. As with a repair, the new tables are durable before a
//! version names them, and the tree is then opened anew under the shard, which removes the old ones.

use bytes::Bytes;
use lsm_tree::config::BloomConstructionPolicy;
use lsm_tree::table::Writer;
use lsm_tree::{AbstractTree, InternalValue, Slice, Table};

use super::error::TreeError;
use super::manifest::{KeyRange, TableEntry, TableRanges};
use super::repair::put_in_place;
use super::salvage::FILTER_BITS;
use super::{MARGIN, Tree, entry, into_bytes};
use crate::sealed::Sealer;
use crate::shard::spaces::TREES;

/// What sealing adds to a row, and some more.
const ROW_BYTES: u64 = 64;

/// A table's file. Numbers are given again after a repair, so the checksum of its content tells it apart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(in crate::shard) struct TableFile {
    pub(in crate::shard) id: u64,
    pub(in crate::shard) checksum: u128,
    pub(in crate::shard) bytes: u64,
    pub(in crate::shard) rows: u64,
}

impl TableFile {
    fn of(table: &Table) -> Self {
        let TableEntry { id, checksum, .. } = entry(table);
        Self { id, checksum, bytes: table.metadata.file_size, rows: table.metadata.item_count }
    }

    /// The room that it needs when it is written anew.
    pub(in crate::shard) fn room(&self) -> u64 {
        self.bytes + self.bytes / 16 + self.rows * ROW_BYTES + MARGIN
    }
}

impl Tree {
    /// All tables.
    pub(in crate::shard) fn table_files(&self) -> Vec<TableFile> {
        self.shared().tree.current_version().iter_tables().map(TableFile::of).collect()
    }

    /// Whether a table has rows under older keys. Reads all of it, past the cache.
    ///
    /// # Errors
    /// [`TreeError`] if it cannot be read.
    pub(in crate::shard) fn has_older_rows(&self, table: TableFile, sealer: &Sealer) -> Result<bool, TreeError> {
        let version = self.shared().tree.current_version();
        let Some(found) = version.iter_tables().find(|found| TableFile::of(found) == table) else { return Ok(false) };
        for row in found.scan()? {
            if older_row(sealer, &row?).is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Writes these tables anew, each with its rows under the key in use, and opens the tree with them. `save_copy`
    /// makes a copy of the list of tables durable.
    ///
    /// # Errors
    /// [`TreeError`]. Either the tree is as it was, or [`Tree::reconcile`] opens the one with the new tables.
    pub(in crate::shard) fn reseal(
        &self,
        tables: &[TableFile],
        sealer: &Sealer,
        save_copy: &dyn Fn(&[u8]),
    ) -> Result<(), TreeError> {
        self.reconcile()?;
        let tree = self.shared().tree.clone();
        let (version, mut manifest) = (tree.current_version(), self.manifest());
        let mut ranges = TableRanges::default();
        for (level, runs) in version.iter_levels().enumerate() {
            for table in runs.iter().flat_map(|run| run.iter()) {
                let mut listed = entry(table);
                if tables.contains(&TableFile::of(table)) {
                    let anew = self.write_anew(table, level, tree.get_next_table_id(), sealer)?;
                    put_in_place(&mut manifest, table.id(), anew);
                    let Some(anew) = anew else { continue };
                    listed = anew;
                }
                let range = &table.metadata.key_range;
                let (first, last) = (Bytes::copy_from_slice(range.min()), Bytes::copy_from_slice(range.max()));
                ranges.insert(&listed, KeyRange { upto: table.get_highest_seqno(), first, last });
            }
        }
        manifest.id += 1;
        // Before the list, since the old tables go once the list is there: a copy must not name them then.
        save_copy(&manifest.to_copy(&ranges));
        manifest.write(&self.path)?;
        self.reopen(self.lost())
    }

    fn write_anew(
        &self,
        table: &Table,
        level: usize,
        number: u64,
        sealer: &Sealer,
    ) -> Result<Option<TableEntry>, TreeError> {
        let path = self.path.join("tables").join(number.to_string());
        let level = u8::try_from(level).unwrap_or_default();
        let mut writer =
            Writer::new(path, number, level)?.use_bloom_policy(BloomConstructionPolicy::BitsPerKey(FILTER_BITS));
        for row in table.scan()? {
            let mut row = row?;
            if let Some(opened) = older_row(sealer, &row) {
                row.value = Slice::from(&sealer.seal(&row.key.user_key, opened)[..]);
            }
            // A copy: the rows of a block share its memory, and the writer keeps keys for its index.
            row.key.user_key = Slice::from(&row.key.user_key[..]);
            writer.write(row)?;
        }
        // A scan has added the table's own number to those of its rows.
        Ok(writer.finish()?.map(|(id, checksum)| TableEntry { id, checksum: checksum.into_u128(), seqno: 0 }))
    }
}

/// The opened row if it is that of an object, under an older key. One that cannot be opened stays as it is.
fn older_row(sealer: &Sealer, row: &InternalValue) -> Option<Bytes> {
    let key = &row.key.user_key;
    if row.is_tombstone() || key.starts_with(&TREES) || sealer.is_current(&row.value) {
        return None;
    }
    sealer.open(key, into_bytes(row.value.clone())).ok()
}
