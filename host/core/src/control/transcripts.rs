//! Transcripts of plugins: what each must answer in a fixed run, wherever it runs.
//!
//! The node where a plugin is pushed records its own. A node with another engine, as in a rolling upgrade, adds that of
//! its engine. Of two nodes that do so at once one wins as with any record, and the other compares. A release of the
//! plugin clears them.

use alloc::boxed::Box;

use rejoin_proto::catalog::{MAX_TRANSCRIPTS, PluginRecord, Transcript};

/// The record of a plugin, with what it has answered where it was pushed. Of an engine that has one already, that one
/// stays; of too many engines, the oldest is left out.
#[must_use]
pub fn transcribed_record(mut record: Box<PluginRecord>, added: &[Transcript]) -> Box<PluginRecord> {
    let transcripts = &mut record.transcripts;
    for one in added {
        if !transcripts.iter().any(|known| known.is_comparable(one)) {
            transcripts.push(*one);
        }
    }
    let surplus = transcripts.len().saturating_sub(MAX_TRANSCRIPTS);
    transcripts.drain(..surplus);
    record
}
