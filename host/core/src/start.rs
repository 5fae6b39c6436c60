//! The start ids of a shard: what tells a client that a retry would not be recognised.
//!
//! A node recognises the retry of a write by its retry row, and answers it by the dot that the first attempt was given.
//! Two things can end that, and each has an id of its own: the *retry memory* may be lost with other data, and a
//! *tenure* may end, so that a dot of the ended actor may stand for another write elsewhere. A retry is sent only while
//! neither has changed since the first attempt.

use rand_core::Rng;

use rejoin_proto::{PartitionId, codec};

use crate::Prng;
use crate::port::{Change, Space, Store, StoreFault};
use crate::rows::{self, Kind, StartRow};

/// Both ids, and whether the store has yet to take them.
#[derive(Debug)]
pub(crate) struct StartIds {
    row: StartRow,
    owed: bool,
}

impl StartIds {
    /// The ids of the last run. New ones are owed if there are none, and for the retry memory also if it is `lost`.
    pub(crate) fn open(store: &dyn Store, lost: bool, rng: &mut Prng) -> Result<Self, StoreFault> {
        let kept = rows::load::<StartRow>(store, Kind::Start)?.into_iter().next().map(|(_, _, row)| row);
        let is_new = lost || kept.is_none();
        let mut row = kept.unwrap_or_else(|| StartRow { memory: 0, tenures: rng.next_u64() });
        if is_new {
            row.memory = rng.next_u64();
        }
        Ok(Self { row, owed: is_new })
    }

    /// A tenure has ended.
    pub(crate) fn tenure_ended(&mut self, rng: &mut Prng) {
        self.row.tenures = rng.next_u64();
        self.owed = true;
    }

    /// One id for both: it changes when either does.
    pub(crate) fn combined(&self) -> u64 {
        self.row.memory ^ self.row.tenures
    }

    pub(crate) fn is_owed(&self) -> bool {
        self.owed
    }

    /// Adds the row to a change, if it is owed.
    pub(crate) fn settle(&self, change: &mut Change) {
        if self.owed {
            change.put(Space::Pinned, rows::key(Kind::Start, PartitionId(0), &[]), codec::encode(&self.row));
        }
    }

    /// The change that [`settle`](Self::settle) filled was written.
    pub(crate) fn settled(&mut self) {
        self.owed = false;
    }
}
