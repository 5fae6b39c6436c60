//! CPU time of this process.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// User and system time of all threads of this process.
#[derive(Clone, Copy, Default, Debug)]
pub struct CpuTime;

impl CpuTime {
    /// CPU time used so far.
    #[must_use]
    pub fn now() -> Duration {
        let time = clock_gettime(ClockId::ProcessCPUTime);
        Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
    }

    /// CPU time that `work` uses.
    pub fn of(work: impl FnOnce()) -> Duration {
        let before = Self::now();
        work();
        Self::now() - before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_takes_cpu_time() {
        let busy = CpuTime::of(|| {
            let before = CpuTime::now();
            while CpuTime::now() - before < Duration::from_millis(20) {}
        });
        assert!(busy >= Duration::from_millis(20));
    }
}
