//! Siblings of a bucket, as a check of a plugin's laws is given them: those that this node's copies have now. Those
//! that folds have replaced are in their receipts.

use core::ops::ControlFlow;

use alloc::vec::Vec;

use bytes::Bytes;

use rejoin_proto::client::Sibling;
use rejoin_proto::{BucketId, Object, ObjectId};

use super::exchange::KEY_AT;
use crate::causal;
use crate::port::{Space, Store, StoreFault};

/// The rows and bytes that are read for one page, on the shard's turn.
const PAGE_ROWS: usize = 256;
const PAGE_BYTES: usize = 256 << 10;

/// The siblings of one key, as a plugin is given them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecordedSet {
    /// The key.
    pub key: Bytes,
    /// Two or more, in canonical order.
    pub siblings: Vec<Sibling>,
}

/// Some of a bucket's sets of siblings.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct RecordedPage {
    /// Those of one page of rows; there may be none.
    pub sets: Vec<RecordedSet>,
    /// Where the next page begins. `None`: there is none.
    pub next: Option<Bytes>,
}

/// The siblings that the store's copy of an object has at that time, in milliseconds since 1970. `None`: fewer than
/// two, or the copy cannot be read.
#[must_use]
pub fn siblings_of(store: &dyn Store, id: &ObjectId, now_ms: u64) -> Option<RecordedSet> {
    let row = store.get(Space::Objects, &id.store_key()).ok()??;
    siblings_in(&row, id.key.clone(), now_ms)
}

/// The objects of a bucket that have siblings at that time, in a bounded number of rows from a key of the store on.
/// Rows that cannot be read are left out.
///
/// # Errors
/// The store cannot be read at all.
pub fn siblings_from(
    store: &dyn Store,
    bucket: BucketId,
    from: Option<&Bytes>,
    now_ms: u64,
) -> Result<RecordedPage, StoreFault> {
    let (start, end) = (bucket.0.to_be_bytes(), bucket.0.checked_add(1).map(u64::to_be_bytes));
    let from: &[u8] = from.map_or(&start[..], |from| &from[..]).max(&start[..]);
    let (mut page, mut rows, mut bytes) = (RecordedPage::default(), 0_usize, 0_usize);
    let mut visit = |key: &[u8], row: Bytes| {
        if rows >= PAGE_ROWS || (rows > 0 && bytes >= PAGE_BYTES) {
            page.next = Some(Bytes::copy_from_slice(key));
            return ControlFlow::Break(());
        }
        rows += 1;
        bytes += row.len();
        let name = Bytes::copy_from_slice(key.get(KEY_AT..).unwrap_or_default());
        page.sets.extend(siblings_in(&row, name, now_ms));
        ControlFlow::Continue(())
    };
    match store.scan(Space::Objects, from, end.as_ref().map(|end| &end[..]), &mut visit) {
        // The others were visited.
        Ok(()) | Err(StoreFault::Lost { .. }) => Ok(page),
        Err(fault) => Err(fault),
    }
}

/// The siblings in an object's row. They are copied, so that nothing keeps the whole row in memory.
fn siblings_in(row: &Bytes, key: Bytes, now_ms: u64) -> Option<RecordedSet> {
    let object = Object::of_row(row).ok()?;
    let siblings = causal::siblings(&causal::visible(&object, now_ms));
    if siblings.len() < 2 {
        return None;
    }
    let copied = |one: Sibling| Sibling { value: Bytes::copy_from_slice(&one.value), ..one };
    Some(RecordedSet { key, siblings: siblings.into_iter().map(copied).collect() })
}
