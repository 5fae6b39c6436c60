//! The journal: every change of a shard, in order, as a hash chain in which no gap goes unnoticed.
//!
//! It writes, reads and retires segment files and the mark. It does not know the tree, and it never decides whether a
//! store may go on after a loss: [`replay`] reports, the caller decides.
//!
//! ```text
//! journal/0000000000000001.seg   slot ‖ slot ‖ header ‖ snapshot of the pinned rows ‖ record ‖ record ‖ … ‖ zeros
//! journal/next                   the next segment while it is prepared: pinned rows, and no slots and no header yet
//! mark                           two slots of 4 KiB: the first and the newest segment that must be there, how far the
//!                                journal was synced at least, and the tree's version
//! ```
//! A record is one change. It carries its index (1, 2, 3, … without gaps; not the tree's sequence numbers) and a chain
//! value: the hash of its payload, seeded with the chain value before it. A segment's header repeats the index and the
//! chain value at which it begins. So a reader can prove that nothing is missing between two segments, and can go on
//! behind a damaged part. A segment's slots, each in a block of 4 KiB, say how far the last syncs have come. Zeros are
//! written ahead of the records, so that most syncs find their blocks written before.
//!
//! Reading order: [`record`], [`segment`], [`slot`], [`writer`] (appends) with [`next_segment`] (switches segments
//! without a pause), [`mark`], [`replay`] (reads back) and [`rewrite`] (makes durable what replay found behind the last
//! sync).

mod mark;
mod next_segment;
mod position;
mod record;
#[cfg(test)]
mod recording_disk;
mod replay;
mod rewrite;
mod segment;
mod slot;
mod writer;

pub(crate) use mark::{Mark, MarkFile};
pub(crate) use next_segment::discard_next;
pub(crate) use position::{FIRST_CHAIN, JournalDir, Position};
pub(crate) use record::is_key_length;
pub(crate) use replay::{Replayed, replay};
pub(crate) use rewrite::rewrite;
pub(crate) use segment::{list_segments, segment_path};
pub(crate) use slot::SyncSlot;
pub(crate) use writer::Writer;
