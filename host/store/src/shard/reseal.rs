//! Seals and opens the rows of a shard, and seals those anew that stand under older keys.
//!
//! After a start with another key, or with the first one, the tables and the journal still have rows of before. The
//! start flushes what it has replayed, which retires the journal's older segments. Then maintenance looks through one
//! table after the other, and writes those with such rows anew. What was done is not remembered over a restart, which
//! looks through all tables again: reading costs little beside writing. Once no table has such a row, the older keys go
//! from the shard's list, and no start asks for them any more.
//!
//! A row that cannot be opened stays as it is. It reads as damaged with its key and without it, so no key is kept for
//! it.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;

use rejoin_core::port::{Row, Space, StoreFault};

use super::files::ShardPaths;
use super::signal::lock;
use super::spaces::receipt_key;
use super::tree::{ScanStep, TableFile, UnreadableRange};
use crate::disk::Disk;
use crate::error::{Context, FileError, OpenError};
use crate::sealed::{KeyId, KeyList, Keys, Sealer, Unopened, is_sealed};

/// The pause after a step, as a multiple of the time that it took.
const PAUSE: u32 = 3;
/// Bytes of tables that are written anew in one go, or one table. The tree is opened anew once for each, and the shard
/// waits for that.
const AT_ONCE_BYTES: u64 = 128 << 20;

/// How far the rows of a shard are sealed with the key in use.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct SealedRows {
    /// The key that rows are sealed with; `None` if they are written in the clear.
    pub used: Option<KeyId>,
    /// Other keys that may still be needed.
    pub older: Vec<KeyId>,
    /// Rows may be in the clear that are to be sealed.
    pub plain: bool,
    /// Tables that are still to be looked through.
    pub tables: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What is to be done next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum ResealStep {
    /// Nothing, or not yet.
    None,
    /// The memtable has rows of before: it is to be sealed and flushed.
    Seal,
    /// This table is to be looked through.
    Look(TableFile),
    /// These tables have older rows: they are to be written anew.
    Rewrite(Vec<TableFile>),
    /// No table has older rows.
    Finish,
}

/// The keys of a shard, and what is left to be sealed anew.
pub(super) struct Sealing {
    sealer: Sealer,
    /// Rows in the clear may be there. Otherwise one is taken for damage.
    plain: bool,
    /// The shard is asked to seal its memtable.
    seal: AtomicBool,
    work: Mutex<Work>,
}

#[derive(Default)]
struct Work {
    /// Under what rows may stand beside the key in use. Empty: there is nothing to do.
    older: KeyList,
    /// The memtable or the journal may have rows of before.
    in_memory: bool,
    /// Tables without older rows.
    clean: BTreeSet<TableFile>,
    /// Tables with older rows.
    older_rows: Vec<TableFile>,
    /// The end of the pause.
    until: Option<Instant>,
}

impl Work {
    fn is_done(&self) -> bool {
        !self.older.plain && self.older.keys.is_empty()
    }
}

impl Sealing {
    /// Checks that all keys are there that the shard needs, and durably lists the one that it will seal with; `None`
    /// if the shard has no keys. A shard that `is_new` has no rows.
    ///
    /// # Errors
    /// [`OpenError::KeyMissing`]; a [`FileError`] if the list is damaged or cannot be written.
    pub(super) fn open(
        disk: &dyn Disk,
        paths: &ShardPaths,
        keys: Option<&Arc<Keys>>,
        is_new: bool,
    ) -> Result<Option<Arc<Self>>, OpenError> {
        let listed = KeyList::read(disk, &paths.dir)?;
        if let Some(listed) = &listed {
            listed.check(&paths.dir, keys.map(AsRef::as_ref))?;
        }
        let Some(keys) = keys else { return Ok(None) };
        let mut list = listed.clone().unwrap_or(KeyList { plain: !is_new, keys: BTreeSet::new() });
        let mut older = list.clone();
        match keys.used() {
            Some(id) => {
                older.keys.remove(&id);
                list.keys.insert(id);
            }
            None => (older.plain, list.plain) = (false, true),
        }
        if listed.as_ref() != Some(&list) {
            list.write(disk, &paths.dir)?;
        }
        let sealer = Sealer::new(Arc::clone(keys)).context("draw a salt for", &paths.dir)?;
        let work = Work { older, ..Work::default() };
        Ok(Some(Arc::new(Self { sealer, plain: list.plain, seal: AtomicBool::new(false), work: Mutex::new(work) })))
    }

    /// What rows are sealed with.
    pub(super) fn sealer(&self) -> &Sealer {
        &self.sealer
    }

    /// Whether no row can be under an older key.
    pub(super) fn is_done(&self) -> bool {
        lock(&self.work).is_done()
    }

    /// Notes whether rows of before were left in the memtable and the journal.
    pub(super) fn opened(&self, in_memory: bool, dir: &Path) {
        let mut work = lock(&self.work);
        work.in_memory = in_memory;
        if !work.is_done() {
            let (dir, to, from) = (dir.display(), self.to(), from(&work.older));
            tracing::info!(%dir, to, from, "rows are to be written anew");
        }
    }

    /// Whether rows are sealed, and not written in the clear.
    pub(super) fn seals(&self) -> bool {
        self.sealer.used().is_some()
    }

    /// The rows as they are to be written: every object is sealed, and every receipt, under its key in the tree.
    pub(super) fn seal(&self, mut rows: Vec<Row>) -> Vec<Row> {
        for row in &mut rows {
            row.value = match row.space {
                Space::Objects => row.value.take().map(|value| self.sealer.seal(&row.key, value)),
                Space::Receipts => row.value.take().map(|value| self.sealer.seal(&receipt_key(&row.key), value)),
                Space::Trees | Space::Pinned => continue,
            };
        }
        rows
    }

    /// The object in a row that was read.
    pub(super) fn unseal(&self, key: &[u8], row: Bytes) -> Result<Bytes, StoreFault> {
        let opened = if self.plain || is_sealed(&row) { self.sealer.open(key, row) } else { Err(Unopened::Plain) };
        opened.map_err(|why| StoreFault::Damaged(why.to_string()))
    }

    /// Opens the rows of a step of a scan. Those that cannot be opened are told as unreadable.
    pub(super) fn unseal_step(&self, step: &mut ScanStep) {
        let unreadable = &mut step.unreadable;
        step.rows.retain_mut(|(key, row)| match self.unseal(key, std::mem::take(row)) {
            Ok(opened) => {
                *row = opened;
                true
            }
            Err(_) => {
                let (from, to) = (Bound::Included(key.clone()), Bound::Included(key.clone()));
                unreadable.push(UnreadableRange { from, to, lost_upto: None });
                false
            }
        });
    }

    /// Whether the shard is asked to seal its memtable.
    pub(super) fn wants_seal(&self) -> bool {
        self.seal.load(Relaxed)
    }

    /// The shard has sealed its memtable.
    pub(super) fn memtable_sealed(&self) {
        self.seal.store(false, Relaxed);
    }

    /// A memtable that was sealed since the start is flushed, and the segments before it are retired. The first one had
    /// every row that the start has replayed.
    pub(super) fn flushed(&self) {
        lock(&self.work).in_memory = false;
    }

    /// The next step, with the tables that are there. If it is `patient`, there is none before the pause is over.
    pub(super) fn step(&self, tables: &[TableFile], patient: bool) -> ResealStep {
        let mut work = lock(&self.work);
        if work.is_done() || patient && work.until.is_some_and(|until| until > Instant::now()) {
            return ResealStep::None;
        }
        if work.in_memory {
            self.seal.store(true, Relaxed);
            return ResealStep::Seal;
        }
        work.clean.retain(|table| tables.contains(table));
        work.older_rows.retain(|table| tables.contains(table));
        let next = tables.iter().find(|table| !work.clean.contains(table) && !work.older_rows.contains(table));
        let bytes = work.older_rows.iter().map(|table| table.bytes).sum::<u64>();
        match next {
            Some(table) if bytes < AT_ONCE_BYTES => ResealStep::Look(*table),
            None if work.older_rows.is_empty() => ResealStep::Finish,
            _ => ResealStep::Rewrite(work.older_rows.clone()),
        }
    }

    /// A table was looked through.
    pub(super) fn looked(&self, table: TableFile, has_older: bool) {
        let mut work = lock(&self.work);
        if has_older {
            work.older_rows.push(table);
        } else {
            work.clean.insert(table);
        }
    }

    /// A step has taken so long.
    pub(super) fn took(&self, time: Duration) {
        lock(&self.work).until = Some(Instant::now() + time * PAUSE);
    }

    /// The time until the next step may be due, if there is one.
    pub(super) fn due_in(&self) -> Option<Duration> {
        let work = lock(&self.work);
        let until = work.until.map(|until| until.saturating_duration_since(Instant::now()));
        (!work.is_done() && !work.in_memory).then(|| until.unwrap_or_default())
    }

    /// No file of the shard has older rows: their keys go from the list, durably.
    ///
    /// # Errors
    /// [`FileError`]; the keys are needed until it succeeds.
    pub(super) fn finish(&self, disk: &dyn Disk, dir: &Path) -> Result<(), FileError> {
        let mut work = lock(&self.work);
        let used = self.sealer.used();
        KeyList { plain: used.is_none(), keys: used.into_iter().collect() }.write(disk, dir)?;
        tracing::info!(dir = %dir.display(), to = self.to(), from = from(&work.older), "all rows were written anew");
        *work = Work::default();
        Ok(())
    }

    /// How far it has come, with the tables that are there.
    pub(super) fn progress(&self, tables: &[TableFile]) -> SealedRows {
        let work = lock(&self.work);
        let left = tables.iter().filter(|table| !work.is_done() && !work.clean.contains(table));
        let (count, bytes) = left.fold((0, 0), |(count, bytes), table| (count + 1, bytes + table.bytes));
        SealedRows {
            used: self.sealer.used(),
            older: work.older.keys.iter().copied().collect(),
            plain: work.older.plain,
            tables: count,
            bytes,
        }
    }

    /// How rows are written, for people.
    fn to(&self) -> String {
        self.sealer.used().map_or_else(|| "in the clear".to_owned(), |id| format!("sealed with key {id}"))
    }
}

/// Older keys, for people.
fn from(older: &KeyList) -> String {
    let plain = older.plain.then(|| "in the clear".to_owned());
    let keys = older.keys.iter().map(|id| format!("key {id}"));
    plain.into_iter().chain(keys).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::OsDisk;
    use crate::sealed::Key;

    fn table(id: u64) -> TableFile {
        TableFile { id, checksum: id.into(), bytes: 100 << 20, rows: 10 }
    }

    fn open(dir: &Path, keys: &Keys, is_new: bool) -> Result<Arc<Sealing>, OpenError> {
        let paths = ShardPaths::new(dir.to_path_buf());
        Sealing::open(&OsDisk, &paths, Some(&Arc::new(keys.clone())), is_new).map(|sealing| sealing.expect("with keys"))
    }

    #[test]
    fn every_table_is_looked_through_before_a_key_goes_from_the_list() {
        let dir = tempfile::tempdir().expect("a directory");
        let key = |byte: u8| Key::new([byte; 32]);
        let first = open(dir.path(), &Keys::new(key(1), []), false).expect("opened");
        assert!(!first.is_done() && first.progress(&[table(1)]).plain);
        first.opened(true, dir.path());
        assert_eq!(first.step(&[table(1)], true), ResealStep::Seal);
        assert!(first.wants_seal() && first.due_in().is_none());
        first.memtable_sealed();
        first.flushed();
        let tables = [table(1), table(2)];
        assert_eq!(first.step(&tables, true), ResealStep::Look(table(1)));
        first.looked(table(1), true);
        assert_eq!(first.step(&tables, true), ResealStep::Look(table(2)));
        assert_eq!(first.step(&tables[..1], true), ResealStep::Rewrite(vec![table(1)]));
        let many = [table(1), table(2), table(3)];
        first.looked(table(2), true);
        assert_eq!(first.step(&many, true), ResealStep::Rewrite(vec![table(1), table(2)]), "not all in one go");
        // A table of the same number with another content is another table.
        let tables = [TableFile { checksum: 9, ..table(1) }, TableFile { checksum: 8, ..table(2) }];
        assert_eq!(first.step(&tables, true), ResealStep::Look(tables[0]));
        first.looked(tables[0], false);
        first.took(Duration::from_secs(60));
        assert_eq!(first.step(&tables, true), ResealStep::None, "not before the pause is over");
        assert_eq!(first.step(&tables, false), ResealStep::Look(tables[1]));
        assert_eq!((first.progress(&tables).tables, first.progress(&tables).bytes), (1, 100 << 20));
        first.looked(tables[1], false);
        assert_eq!(first.step(&tables, false), ResealStep::Finish);
        assert!(open(dir.path(), &Keys::to_read([]), false).is_err(), "the key is listed from the first start on");
        first.finish(&OsDisk, dir.path()).expect("writable");
        assert!(first.is_done() && first.step(&tables, false) == ResealStep::None);

        let next = open(dir.path(), &Keys::new(key(2), [key(1)]), false).expect("opened");
        assert_eq!(next.progress(&[]).older, [key(1).id()]);
        assert!(!next.progress(&[]).plain && next.unseal(b"k", "plain".into()).is_err());
        assert!(open(dir.path(), &Keys::new(key(2), []), false).is_err(), "the older key is still needed");
        next.finish(&OsDisk, dir.path()).expect("writable");
        assert!(open(dir.path(), &Keys::new(key(2), []), false).expect("opened").is_done());

        let off = open(dir.path(), &Keys::to_read([key(2)]), false).expect("opened");
        assert!(!off.seals() && !off.is_done());
        off.finish(&OsDisk, dir.path()).expect("writable");
        let paths = ShardPaths::new(dir.path().to_path_buf());
        assert!(Sealing::open(&OsDisk, &paths, None, false).expect("no key is needed").is_none());
    }

    #[test]
    fn a_new_shard_takes_no_row_in_the_clear() {
        let dir = tempfile::tempdir().expect("a directory");
        let new = open(dir.path(), &Keys::new(Key::new([1; 32]), []), true).expect("opened");
        assert!(new.is_done() && new.seals());
        assert!(matches!(new.unseal(b"k", "plain".into()), Err(StoreFault::Damaged(_))));
    }
}
