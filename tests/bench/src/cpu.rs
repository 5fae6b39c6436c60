//! CPU time of this process as a measurement for criterion.

use std::time::Duration;

use criterion::measurement::{Measurement, ValueFormatter, WallTime};
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

impl Measurement for CpuTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        Self::now()
    }

    fn end(&self, before: Duration) -> Duration {
        Self::now() - before
    }

    fn add(&self, one: &Duration, other: &Duration) -> Duration {
        *one + *other
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        value.as_nanos() as f64
    }

    /// Formats nanoseconds as criterion formats wall-clock time.
    fn formatter(&self) -> &dyn ValueFormatter {
        static WALL: WallTime = WallTime;
        WALL.formatter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_takes_cpu_time_and_it_is_shown_in_nanoseconds() {
        let busy = CpuTime::of(|| {
            let before = CpuTime::now();
            while CpuTime::now() - before < Duration::from_millis(20) {}
        });
        assert!(busy >= Duration::from_millis(20));
        assert_eq!(CpuTime.formatter().scale_for_machines(&mut [1.0]), "ns");
    }
}
