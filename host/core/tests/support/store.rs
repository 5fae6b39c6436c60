//! A store in memory that can be told to be full, damaged or broken.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use bytes::Bytes;

use rejoin_core::port::{Change, CommitSeq, Journal, Space, Store, StoreFault, key_after};
use rejoin_core::shard::event::{ScanJob, ScannedRows};

/// What a write is answered with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Writes {
    #[default]
    Work,
    Full,
    Busy,
    Failed,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    pub(crate) rows: BTreeMap<(Space, Bytes), Bytes>,
    /// Rows that cannot be read until they are written anew.
    pub(crate) damaged: BTreeSet<Vec<u8>>,
    pub(crate) writes: Writes,
    /// Objects cannot be read at the moment, for want of descriptors or memory.
    pub(crate) is_short: bool,
    pub(crate) written: usize,
    /// Every change that was written.
    pub(crate) changes: Vec<Change>,
    /// The bytes of objects that were read by [`Store::scan`].
    pub(crate) scanned_bytes: Cell<usize>,
    /// The bytes of objects that were read by [`Store::get`].
    pub(crate) got_bytes: Cell<usize>,
    /// Receipts are lost: scans visit what is left of them, and say so.
    pub(crate) receipts_lost: bool,
    /// Objects written up to then are lost, and nobody can tell which there were.
    lost_upto: Option<usize>,
    /// When each object was written.
    ages: BTreeMap<Bytes, usize>,
}

impl Memory {
    /// Loses the range of all keys: what is written from now on can be read.
    pub(crate) fn lose_all(&mut self) {
        self.lost_upto = Some(self.written);
    }

    /// One result of a scan at the present position, as the shell answers it: rows in front of a damaged one are a
    /// result of their own.
    pub(crate) fn scanned(&self, job: &ScanJob) -> Result<ScannedRows, StoreFault> {
        let (mut found, mut bytes) = (ScannedRows::default(), 0);
        let is_inside = |key: &Bytes| job.to.as_ref().is_none_or(|to| key < to);
        let rows = self.rows.range((Space::Objects, job.from.clone())..);
        for ((_, key), value) in rows.take_while(|((space, key), _)| *space == Space::Objects && is_inside(key)) {
            if self.damaged.contains(&key[..]) {
                found.next = match found.rows.last() {
                    Some((last, _)) => Some(key_after(last)),
                    None => {
                        found.damaged = true;
                        found.unreadable.push((job.from.clone(), Some(key_after(key))));
                        found.damaged = true;
                        Some(key_after(key))
                    }
                };
                break;
            }
            if self.lost_upto.is_none_or(|upto| self.ages.get(key).is_some_and(|age| *age > upto)) {
                bytes += key.len() + value.len();
                found.rows.push((key.clone(), value.clone()));
            }
            if found.rows.len() >= job.max_rows.max(1) || bytes >= job.max_bytes {
                found.next = Some(key_after(key));
                break;
            }
        }
        found.next = found.next.filter(is_inside);
        if self.lost_upto.is_some() {
            found.unreadable.push((job.from.clone(), found.next.clone().or_else(|| job.to.clone())));
        }
        Ok(found)
    }
}

impl Journal for Memory {
    fn commit(&mut self) -> Result<CommitSeq, StoreFault> {
        Ok(CommitSeq(self.written as u64))
    }

    fn sync_is_due(&mut self) -> bool {
        false
    }
}

impl Store for Memory {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, StoreFault> {
        if self.is_short && space == Space::Objects {
            return Err(StoreFault::Busy);
        }
        if self.damaged.contains(key) {
            return Err(StoreFault::Damaged("a block's checksum is wrong".into()));
        }
        let lost = |upto: &usize| space == Space::Objects && self.ages.get(key).is_none_or(|age| age <= upto);
        if let Some(upto) = self.lost_upto.filter(lost) {
            return Err(StoreFault::Lost { upto: upto as u64, what: "lost are all keys".into() });
        }
        let row = self.rows.get(&(space, Bytes::copy_from_slice(key))).cloned();
        if space == Space::Objects {
            self.got_bytes.set(self.got_bytes.get() + row.as_ref().map_or(0, Bytes::len));
        }
        Ok(row)
    }

    fn scan(
        &self,
        space: Space,
        from: &[u8],
        to: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>,
    ) -> Result<(), StoreFault> {
        let inside = |at: Space, key: &Bytes| at == space && to.is_none_or(|to| key[..] < *to);
        let rows = self.rows.range((space, Bytes::copy_from_slice(from))..);
        for ((_, key), value) in rows.take_while(|((at, key), _)| inside(*at, key)) {
            if space == Space::Objects && self.damaged.contains(&key[..]) {
                return Err(StoreFault::Damaged("a block's checksum is wrong".into()));
            }
            let lost = |upto: usize| self.ages.get(key).is_none_or(|age| *age <= upto);
            if space == Space::Objects && self.lost_upto.is_some_and(lost) {
                continue;
            }
            if space == Space::Objects {
                self.scanned_bytes.set(self.scanned_bytes.get() + value.len());
            }
            if visit(key, value.clone()).is_break() {
                return Ok(());
            }
        }
        if self.receipts_lost && space == Space::Receipts {
            return Err(StoreFault::Lost { upto: 1, what: "lost are some keys".into() });
        }
        match self.lost_upto.filter(|_| space == Space::Objects) {
            Some(upto) => Err(StoreFault::Lost { upto: upto as u64, what: "lost are all keys".into() }),
            None => Ok(()),
        }
    }

    fn losses(&self) -> u64 {
        self.lost_upto.map_or(0, |upto| upto as u64 + 1)
    }

    fn write(&mut self, change: Change) -> Result<(), StoreFault> {
        match self.writes {
            Writes::Work => {}
            Writes::Full => return Err(StoreFault::Full),
            Writes::Busy => return Err(StoreFault::Busy),
            Writes::Failed => return Err(StoreFault::Failed("fdatasync: input/output error".into())),
        }
        self.written += 1;
        self.changes.push(change.clone());
        for row in change.rows {
            // Written anew, in another block.
            self.damaged.remove(&row.key[..]);
            if row.space == Space::Objects {
                self.ages.insert(row.key.clone(), self.written);
            }
            match row.value {
                Some(value) => self.rows.insert((row.space, row.key), value),
                None => self.rows.remove(&(row.space, row.key)),
            };
        }
        Ok(())
    }
}
