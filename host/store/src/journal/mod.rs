//! The journal: what a shard was told, in order, in a chain that shows every gap.
//!
//! ```text
//! journal/0000000000000001.seg   header ‖ snapshot of the pinned rows ‖ record ‖ record ‖ … ‖ zeros up to the preallocated end
//! journal/next                   the segment after the last one while it is made: pinned rows, and no header yet
//! mark                           two slots of 4 KiB: how far the journal was synced, its first live segment, and the tree's version
//! ```
//! A record is one change. It carries its index (1, 2, 3, … without gaps, the journal's own and not the tree's sequence
//! numbers) and a chain value: the hash of its payload seeded with the chain before it. A segment's header repeats the
//! index and chain at which it begins, so reading can prove that nothing is missing between two segments, and can go on
//! behind a damaged stretch. Zeros are written ahead of the records, so that most syncs find their blocks written
//! before.

mod mark;
mod next;
mod record;
mod replay;
mod rewrite;
mod segment;
#[cfg(test)]
mod watched;
mod writer;

pub(crate) use mark::{Mark, MarkFile};
pub(crate) use next::discard_next;
pub(crate) use record::is_key_length;
pub(crate) use replay::{Replayed, replay};
pub(crate) use rewrite::rewrite;
pub(crate) use segment::{list_segments, segment_path};
pub(crate) use writer::{Position, Writer};

/// The chain value before the first record.
pub(crate) const FIRST_CHAIN: u64 = 0x7265_6a6f_696e_0001;
