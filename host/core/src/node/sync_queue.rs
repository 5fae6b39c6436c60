//! Effects that wait for the disk, in the order of their commits.

use alloc::collections::VecDeque;

use crate::port::CommitSeq;

/// The most messages, and as many tickets, that wait for the disk in one shard. A disk that stalls must not use up the
/// memory: an entry above the bound does not wait, and the request that it belongs to is told so.
pub const MAX_WAITING: usize = 1 << 18;

/// A queue whose front may go as soon as its commit is on the disk.
#[derive(Debug)]
pub(crate) struct SyncQueue<T> {
    queue: VecDeque<(CommitSeq, T)>,
    synced: CommitSeq,
    limit: usize,
}

impl<T> SyncQueue<T> {
    /// An empty queue of at most `limit` entries, behind a disk that has everything up to `synced`.
    pub(crate) fn new(limit: usize, synced: CommitSeq) -> Self {
        Self { queue: VecDeque::new(), synced, limit }
    }

    /// Whether that commit is on the disk.
    pub(crate) fn is_synced(&self, seq: CommitSeq) -> bool {
        seq <= self.synced
    }

    /// Adds an entry that waits for that commit, which is no older than those before it. Gives it back if there is no
    /// room.
    pub(crate) fn push(&mut self, seq: CommitSeq, what: T) -> Result<(), T> {
        debug_assert!(self.queue.back().is_none_or(|(last, _)| *last <= seq), "commits only go forward");
        if self.queue.len() >= self.limit {
            return Err(what);
        }
        self.queue.push_back((seq, what));
        Ok(())
    }

    /// Everything up to that commit is on the disk.
    pub(crate) fn synced(&mut self, seq: CommitSeq) {
        self.synced = self.synced.max(seq);
    }

    /// The next that may go.
    pub(crate) fn pop(&mut self) -> Option<T> {
        self.queue.pop_front_if(|(seq, _)| *seq <= self.synced).map(|(_, what)| what)
    }

    /// Whether there is one that may go now.
    pub(crate) fn has_ready(&self) -> bool {
        self.queue.front().is_some_and(|(seq, _)| self.is_synced(*seq))
    }

    /// Whether there is one that needs another sync.
    pub(crate) fn needs_sync(&self) -> bool {
        self.queue.back().is_some_and(|(seq, _)| !self.is_synced(*seq))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;

    fn ready(queue: &mut SyncQueue<u32>) -> Vec<u32> {
        core::iter::from_fn(|| queue.pop()).collect()
    }

    #[test]
    fn nothing_goes_before_its_commit_is_on_the_disk_and_all_of_it_goes_then() {
        let mut queue = SyncQueue::new(MAX_WAITING, CommitSeq::default());
        for (seq, what) in [(1, 10), (1, 11), (2, 20), (4, 40)] {
            assert_eq!(queue.push(CommitSeq(seq), what), Ok(()));
        }
        assert_eq!((ready(&mut queue), queue.has_ready(), queue.needs_sync()), (vec![], false, true));
        queue.synced(CommitSeq(2));
        assert!(queue.has_ready());
        assert_eq!(ready(&mut queue), [10, 11, 20]);
        assert_eq!((queue.has_ready(), queue.needs_sync()), (false, true));
        queue.synced(CommitSeq(1));
        assert!(queue.is_synced(CommitSeq(2)), "what is on the disk stays there");
        queue.synced(CommitSeq(7));
        assert_eq!((ready(&mut queue), queue.needs_sync()), (vec![40], false));
    }

    #[test]
    fn what_was_synced_before_is_ready_and_needs_no_sync() {
        let mut queue = SyncQueue::new(MAX_WAITING, CommitSeq(5));
        assert_eq!(queue.push(CommitSeq(5), 1), Ok(()));
        assert_eq!((queue.has_ready(), queue.needs_sync()), (true, false));
        assert_eq!(queue.push(CommitSeq(6), 2), Ok(()));
        assert_eq!((queue.has_ready(), queue.needs_sync()), (true, true), "neither hides the other");
    }

    #[test]
    fn a_disk_that_stalls_does_not_take_the_memory() {
        let mut queue = SyncQueue::new(100, CommitSeq::default());
        let refused: Vec<u32> = (0..107).filter_map(|what| queue.push(CommitSeq(1), what).err()).collect();
        assert_eq!(refused, [100, 101, 102, 103, 104, 105, 106]);
        queue.synced(CommitSeq(1));
        assert_eq!(ready(&mut queue).len(), 100);
        assert_eq!(queue.push(CommitSeq(2), 0), Ok(()), "there is room again");
    }
}
