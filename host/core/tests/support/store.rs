//! A store in memory that can be told to be full, damaged or broken.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use bytes::Bytes;

use rejoin_core::port::{Change, CommitSeq, Journal, Space, Store, StoreFault};

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
    pub(crate) written: usize,
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
        if self.damaged.contains(key) {
            return Err(StoreFault::Damaged("a block's checksum is wrong".into()));
        }
        let lost = |upto: &usize| space == Space::Objects && self.ages.get(key).is_none_or(|age| age <= upto);
        if let Some(upto) = self.lost_upto.filter(lost) {
            return Err(StoreFault::Lost { upto: upto as u64, what: "lost are all keys".into() });
        }
        Ok(self.rows.get(&(space, Bytes::copy_from_slice(key))).cloned())
    }

    fn scan(
        &self,
        space: Space,
        from: &[u8],
        to: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>,
    ) -> Result<(), StoreFault> {
        let inside = |key: &Bytes| key[..] >= *from && to.is_none_or(|to| key[..] < *to);
        for ((_, key), value) in self.rows.iter().filter(|((at, key), _)| *at == space && inside(key)) {
            if visit(key, value.clone()).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn write(&mut self, change: Change) -> Result<(), StoreFault> {
        match self.writes {
            Writes::Work => {}
            Writes::Full => return Err(StoreFault::Full),
            Writes::Busy => return Err(StoreFault::Busy),
            Writes::Failed => return Err(StoreFault::Failed("fdatasync: input/output error".into())),
        }
        self.written += 1;
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
