//! The fuel that the calls of one job use, whether they answer or not.
//!
//! A job of the pool may call a plugin several times: to find the sibling that a merge fails on, or to merge, apply and
//! validate. All calls run on the job's thread and count here, so that whoever pays for the job pays for all of them.
//! What is remembered calls nothing, and costs nothing.

use std::cell::Cell;

thread_local! {
    /// `None` outside of a job.
    static USED: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Counts what a call of a job has used. A plugin that is loaded is called as well, outside of any job.
pub(crate) fn add(fuel: u64) {
    USED.with(|used| used.set(used.get().map(|so_far| so_far.saturating_add(fuel))));
}

/// The fuel that the calls of the job on this thread have used: for what is done with the job's result.
#[must_use]
pub fn job_fuel() -> u64 {
    USED.with(Cell::get).unwrap_or(0)
}

/// Counts for a job from nothing, until this is dropped. Then the job around it, if there is one, counts on.
pub(crate) struct JobFuel(Option<u64>);

impl JobFuel {
    pub(crate) fn begin() -> Self {
        Self(USED.with(|used| used.replace(Some(0))))
    }
}

impl Drop for JobFuel {
    fn drop(&mut self) {
        USED.with(|used| used.set(self.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_within_a_job_counts_for_itself() {
        let outer = JobFuel::begin();
        add(5);
        {
            let _inner = JobFuel::begin();
            add(7);
            assert_eq!(job_fuel(), 7);
        }
        add(1);
        assert_eq!(job_fuel(), 6);
        drop(outer);
        add(3);
        assert_eq!(job_fuel(), 0, "outside of a job");
    }
}
