//! The journal: every change of a shard, in order, as a hash chain in which no gap goes unnoticed.
//!
//! It writes, reads and retires segment files and the high-water mark. It does not know the tree, and it never decides
//! whether a store may go on after a loss: [`replay`] reports, the caller decides.
//!
//! ```text
//! journal/0000000000000001.seg   header ‖ snapshot of the pinned rows ‖ record ‖ record ‖ … ‖ zeros
//! journal/next                   the next segment while it is prepared: pinned rows, and no header yet
//! mark                           two slots of 4 KiB: how far the journal was synced, its first live segment, and
//!                                the tree's version
//! ```
//! A record is one change. It carries its index (1, 2, 3, … without gaps; not the tree's sequence numbers) and a chain
//! value: the hash of its payload, seeded with the chain value before it. A segment's header repeats the index and the
//! chain value at which it begins. So a reader can prove that nothing is missing between two segments, and can go on
//! behind a damaged part. Zeros are written ahead of the records, so that most syncs find their blocks written before.
//!
//! Reading order: [`record`], [`segment`], [`writer`] (appends) with [`next_segment`] (switches segments without a
//! pause), [`mark`], [`replay`] (reads back) and [`rewrite`] (makes durable what replay found behind the mark).

mod mark;
mod next_segment;
mod position;
mod record;
#[cfg(test)]
mod recording_disk;
mod replay;
mod rewrite;
mod segment;
mod writer;

pub(crate) use mark::{Mark, MarkFile, Marks};
pub(crate) use next_segment::discard_next;
pub(crate) use position::{FIRST_CHAIN, JournalDir, Position};
pub(crate) use record::is_key_length;
pub(crate) use replay::{Replayed, replay};
pub(crate) use rewrite::rewrite;
pub(crate) use segment::{list_segments, segment_path};
pub(crate) use writer::Writer;
