//! What a shard counts.

/// Counts of what a shard has done since it was opened.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[allow(missing_docs)] // The names say it, and the metrics page explains each.
pub struct Counters {
    pub gets: u64,
    pub puts: u64,
    pub forwards: u64,
    pub overtaken: u64,
    pub absorbs: u64,
    pub merges: u64,
    pub merge_faults: u64,
    pub values_refused: u64,
    pub folds: u64,
    pub folds_discarded: u64,
    pub folds_undone: u64,
    pub read_repairs: u64,
    pub reads_hedged: u64,
    pub siblings_seen: u64,
    pub tenures_ended: u64,
    pub quorum_failures: u64,
    pub overloaded: u64,
    pub writes_sent_again: u64,
    pub retries_recognised: u64,
    pub retries_settled: u64,
    pub replaced: u64,
    pub fallbacks_asked: u64,
    pub stood_in: u64,
    pub objects_offered: u64,
    pub objects_handed_over: u64,
    pub objects_dropped: u64,
    pub objects_reaped: u64,
    pub views_compared: u64,
    pub views_different: u64,
    pub quarantines: u64,
}
