//! The file descriptors that trees keep open.

use std::fmt;
use std::sync::{Arc, OnceLock};

use lsm_tree::{AbstractTree, AnyTree, DescriptorTable};
use rustix::process::{Resource, getrlimit};

/// The share of the process's descriptors that tables may keep open: the others are for connections, journals, and the
/// tables that a compaction reads.
const SHARE: u64 = 4;
/// Fewer make every read open a file.
const FEWEST: u64 = 64;
/// More would only be more to look through.
const MOST: u64 = 8192;

/// A budget of descriptors for the tables of all trees that share it. Past it the ones not used for longest are closed.
/// Cheap to clone.
#[derive(Clone)]
pub struct Descriptors(Arc<DescriptorTable>);

impl Descriptors {
    /// A budget of so many.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self(Arc::new(DescriptorTable::new(most)))
    }

    /// The one of this process: a quarter of what it may open when this is first called, 64 at least and 8192 at most.
    #[must_use]
    pub fn of_process() -> Self {
        static SHARED: OnceLock<Descriptors> = OnceLock::new();
        SHARED.get_or_init(|| Self::new(share(getrlimit(Resource::Nofile).current))).clone()
    }

    /// Closes what is open of a tree that is closed: the table keeps descriptors under a number that only this tree
    /// has, and with them the room of files that are removed later.
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

/// What tables get of this limit; none is no limit.
fn share(limit: Option<u64>) -> usize {
    usize::try_from(limit.map_or(MOST, |limit| (limit / SHARE).clamp(FEWEST, MOST))).unwrap_or(usize::MAX)
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
