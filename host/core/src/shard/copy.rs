//! This node's copies of objects: how they are read and written, and what follows from one that cannot be read.
//!
//! Every object is read by [`Shard::load`], every object row is written by [`Shard::store_row`] and removed by
//! [`Shard::drop_object`]. A copy that cannot be read is never taken for an absent one. Something may take its place,
//! but not before [`Shard::give_up`].

use alloc::string::ToString;

use bytes::Bytes;

use rejoin_proto::{EncodedObject, ErrorCode, Object, PartitionId, codec};

use super::Shard;
use super::event::{Alarm, Effect};
use super::turn::{Turn, fault_code};
use crate::exchange::OldRow;
use crate::port::{Change, Space, StoreFault};
use crate::tenure::EndCause;

/// The most damaged copies that are remembered one by one. Keys of a lost range are not among them.
const MAX_UNREADABLE: usize = 10_000;

/// Where an object's row is.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) partition: PartitionId,
    pub(super) store_key: &'a Bytes,
}

/// This node's copy of an object, with the row that it came from.
pub(super) struct Copy {
    pub(super) object: Object,
    pub(super) row: StoredRow,
}

impl Copy {
    /// The object with its encoding, which is made only if there is no row.
    pub(super) fn encoded(self) -> EncodedObject {
        match self.row {
            StoredRow::Present(row) => EncodedObject::of(self.object, row),
            StoredRow::Absent | StoredRow::GivenUp => self.object.into(),
        }
    }
}

/// An object that comes in, with its encoding if that is at hand: what takes the object as it is stores these bytes.
#[derive(Clone, Copy)]
pub(super) struct Incoming<'a> {
    pub(super) object: &'a Object,
    row: Option<&'a Bytes>,
}

impl<'a> From<&'a Object> for Incoming<'a> {
    fn from(object: &'a Object) -> Self {
        Self { object, row: None }
    }
}

impl<'a> From<&'a EncodedObject> for Incoming<'a> {
    fn from(encoded: &'a EncodedObject) -> Self {
        Self { object: encoded, row: Some(encoded.row()) }
    }
}

impl Incoming<'_> {
    /// The row of its join with a copy.
    pub(super) fn row_of(&self, joined: &Object) -> Bytes {
        match self.row {
            Some(row) if core::ptr::eq(joined, self.object) => row.clone(),
            _ => codec::encode_bytes(joined),
        }
    }
}

/// What an object's row holds before it is written.
pub(super) enum StoredRow {
    Absent,
    Present(Bytes),
    /// A copy that cannot be read, made by [`Shard::give_up`] only.
    GivenUp,
}

impl Shard {
    /// Reads this node's copy of an object. A copy whose context is ahead of this node's actor shows that the disk went
    /// back. A copy that cannot be read ends the tenure, see [`damage_found`](Self::damage_found).
    pub(super) fn load(&mut self, turn: &mut Turn<'_>, place: Place<'_>) -> Result<Copy, ErrorCode> {
        let Place { partition, store_key } = place;
        let fault = match turn.store.get(Space::Objects, store_key) {
            Ok(None) => {
                self.forget_damage(store_key);
                return Ok(Copy { object: Object::default(), row: StoredRow::Absent });
            }
            Ok(Some(row)) => match Object::of_row(&row) {
                Ok(object) => {
                    // Rule: copies end a tenure.
                    if self.tenures.is_outrun(partition, &object.context) {
                        let why = "its own copy of an object has seen later writes of the old one";
                        self.end_outrun(turn, partition, &object.context, why);
                    }
                    self.forget_damage(store_key);
                    return Ok(Copy { object, row: StoredRow::Present(row) });
                }
                Err(error) => StoreFault::Damaged(error.to_string()),
            },
            Err(fault) => fault,
        };
        // Rule: unreadable is not absent. Every fault goes to the caller as an error.
        self.damage_found(turn, place, &fault);
        Err(fault_code(turn, fault))
    }

    /// Writes an object's row and the other rows of `change` in one journal record, together with the ends of tenures
    /// that are owed.
    ///
    /// All object rows are written here, with what they replace: what depends on the content of the store (hash trees,
    /// quotas, reaping) needs both.
    pub(super) fn store_row(
        &mut self,
        turn: &mut Turn<'_>,
        place: Place<'_>,
        old: &StoredRow,
        row: Bytes,
        mut change: Change,
    ) -> Result<(), ErrorCode> {
        let is_same = matches!(old, StoredRow::Present(old) if *old == row);
        let mut newly_held = None;
        let staged = (!is_same).then(|| {
            newly_held = self.hold(turn, place, &mut change);
            change.put(Space::Objects, place.store_key.clone(), row.clone());
            // Rule: leaves are written with their objects.
            self.trees.stage(place.store_key, old.as_old(), Some(&row), &mut change)
        });
        if !change.rows.is_empty() {
            self.write(turn, change)?;
        }
        if let Some(staged) = staged {
            self.trees.apply(staged);
        }
        if let Some(version) = newly_held {
            self.holds(turn, place.partition, version);
        }
        Ok(())
    }

    /// Removes an object's row, whose owners have it or whose bucket is reaped, with the other rows of `change`. An
    /// actor mints only where this node's copy has seen all of its writes, so the partition's actor ends in the same
    /// journal record.
    ///
    /// Objects are dropped here and nowhere else; see [`store_row`](Self::store_row).
    pub(super) fn drop_object(
        &mut self,
        turn: &mut Turn<'_>,
        place: Place<'_>,
        old: &StoredRow,
        mut change: Change,
    ) -> Result<(), ErrorCode> {
        // Rule: drops end a tenure.
        if self.tenures.has_actor(place.partition) {
            self.owe_tenure_end(
                turn,
                place.partition,
                EndCause::Drop,
                "an object was handed over to its owners, or its bucket was reaped",
            );
        }
        change.remove(Space::Objects, place.store_key.clone());
        let staged = self.trees.stage(place.store_key, old.as_old(), None, &mut change);
        self.write(turn, change)?;
        self.trees.apply(staged);
        Ok(())
    }

    /// To be called before something takes the place of a copy that cannot be read. If the tenure has not ended for
    /// this damage yet, it ends now; that is owed, and so written in the record that replaces the copy.
    pub(super) fn give_up(&mut self, turn: &mut Turn<'_>, place: Place<'_>) -> StoredRow {
        let Place { partition, store_key } = place;
        self.counters.replaced += 1;
        let known_loss = lost_upto(turn, store_key).is_some_and(|upto| self.knows_loss(partition, upto));
        // Rule: untold damage ends a tenure.
        if !known_loss && !self.unreadable.contains(store_key) && self.tenures.has_actor(partition) {
            self.owe_tenure_end(turn, partition, EndCause::Loss, DAMAGE);
        }
        StoredRow::GivenUp
    }

    /// A copy that cannot be read ends the tenure, because the actor's own writes may be gone. It does so once and not
    /// with every read, or a key that is often asked for would cost its partition an actor each time. While a copy is
    /// unreadable nothing is minted for its key, so the actors that follow have nothing to lose in it.
    ///
    /// Damaged copies are told apart by their keys. Of a lost range it is enough to know how far the store's count of
    /// writes had come: what an actor writes after the end has a higher number than all that was lost until then.
    fn damage_found(&mut self, turn: &mut Turn<'_>, place: Place<'_>, fault: &StoreFault) {
        let Place { partition, store_key } = place;
        let what = match fault {
            StoreFault::Damaged(what) if self.is_new_damage(store_key) => {
                self.trees.doubt(store_key);
                what
            }
            StoreFault::Lost { upto, what } => {
                // It is not damaged any more.
                self.unreadable.remove(store_key);
                // Rule: losses end a tenure once. They are one loss up to the newest row that may be gone.
                if self.knows_loss(partition, *upto) {
                    return;
                }
                self.lost_upto.insert(partition, *upto);
                self.notice_losses(turn);
                what
            }
            _ => return,
        };
        turn.effects.push(Effect::Alarm(Alarm::Damaged { partition, what: what.clone() }));
        // Rule: damage ends a tenure. Without an actor nothing was minted since the last end, so nothing has to end.
        if self.tenures.has_actor(partition) {
            self.end_tenure(turn, partition, EndCause::Loss, DAMAGE);
        }
    }

    /// Whether a damaged copy was not known of, and is from now on. Those above the bound are not told apart and never
    /// new: they end the tenure when something takes their place.
    fn is_new_damage(&mut self, store_key: &Bytes) -> bool {
        self.unreadable.len() < MAX_UNREADABLE && self.unreadable.insert(store_key.clone())
    }

    /// Whether a loss has ended the tenure of its partition's actor.
    fn knows_loss(&self, partition: PartitionId, upto: u64) -> bool {
        self.lost_upto.get(&partition).is_some_and(|&known| known >= upto)
    }

    fn forget_damage(&mut self, store_key: &Bytes) {
        if !self.unreadable.is_empty() && self.unreadable.remove(store_key) {
            // The sum of its range was made without it.
            self.trees.doubt(store_key);
        }
    }
}

impl StoredRow {
    fn as_old(&self) -> OldRow<'_> {
        match self {
            Self::Absent => OldRow::Absent,
            Self::Present(row) => OldRow::Row(row),
            Self::GivenUp => OldRow::Unreadable,
        }
    }
}

/// Why damage ends a tenure, for the alarm.
const DAMAGE: &str = "its copy of an object cannot be read";

/// Up to which of the store's writes a copy may be lost for good; `None` if it is not.
pub(super) fn lost_upto(turn: &Turn<'_>, store_key: &[u8]) -> Option<u64> {
    match turn.store.get(Space::Objects, store_key) {
        Err(StoreFault::Lost { upto, .. }) => Some(upto),
        _ => None,
    }
}
