//! The budget of file descriptors for tables.

use std::fmt;
use std::sync::{Arc, OnceLock};

use lsm_tree::{AbstractTree, AnyTree, DescriptorTable};
use rustix::process::{Resource, getrlimit};

/// Tables get one in so many of the process's descriptors. The others are for connections, journals, and the tables
/// that a compaction reads.
const SHARE: u64 = 4;
/// With fewer descriptors every read would open a file.
const MIN: u64 = 64;
/// More descriptors would not save further opens.
const MAX: u64 = 8192;

/// A budget of descriptors for the tables of all trees that share it. Past it the ones not used for longest are closed.
/// Cheap to clone.
#[derive(Clone)]
pub struct Descriptors(Arc<DescriptorTable>);

impl Descriptors {
    /// A budget of so many descriptors.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self(Arc::new(DescriptorTable::new(most)))
    }

    /// The budget of this process: a quarter of its limit at the first call, at least 64 and at most 8192.
    #[must_use]
    pub fn of_process() -> Self {
        static SHARED: OnceLock<Descriptors> = OnceLock::new();
        SHARED.get_or_init(|| Self::new(share(getrlimit(Resource::Nofile).current))).clone()
    }

    /// Closes the descriptors of a tree that is closed. Nothing else would: they are kept under the tree's number,
    /// which no other tree has, and they would hold the room of files that are removed later.
    pub(super) fn forget(&self, tree: &AnyTree) {
        for table in tree.current_version().iter_tables() {
            self.0.remove_for_table(&(tree.id(), table.id()).into());
        }
    }

    pub(super) fn table(&self) -> Arc<DescriptorTable> {
        Arc::clone(&self.0)
    }
}

impl fmt::Debug for Descriptors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Descriptors").finish_non_exhaustive()
    }
}

/// The share of the tables; `None` is no limit.
fn share(limit: Option<u64>) -> usize {
    usize::try_from(limit.map_or(MAX, |limit| (limit / SHARE).clamp(MIN, MAX))).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_get_a_quarter_within_bounds() {
        let of = |limit| share(Some(limit));
        assert_eq!((of(20), of(1024), of(1 << 20), share(None)), (64, 256, 8192, 8192));
    }

    #[test]
    fn all_shards_of_a_process_share_one_budget() {
        let options = crate::Options::default();
        assert!(Arc::ptr_eq(&options.descriptors.table(), &Descriptors::of_process().table()));
    }
}
