//! CPU time, user plus system, of this process and of others on this machine.

use std::fs;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::failure::Failure;

/// The length of a tick in `/proc/PID/stat`: `USER_HZ` is 100 on all architectures of this program, whatever the
/// kernel's own tick is.
const TICK: Duration = Duration::from_millis(10);

/// The CPU time of this process.
pub(crate) fn own() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// The CPU time of these processes with all their threads.
///
/// # Errors
/// A process does not exist, or the system has no `/proc`.
pub(crate) fn of(processes: &[u32]) -> Result<Duration, Failure> {
    processes.iter().try_fold(Duration::ZERO, |sum, pid| {
        let path = format!("/proc/{pid}/stat");
        let text = fs::read_to_string(&path)
            .map_err(|why| Failure::usage(format!("the CPU time of process {pid} cannot be read: {why}")))?;
        let ticks = ticks(&text).ok_or_else(|| Failure::usage(format!("{path} cannot be parsed")))?;
        Ok(sum + TICK * u32::try_from(ticks).unwrap_or(u32::MAX))
    })
}

/// `utime` plus `stime`, fields 14 and 15 of proc(5). Fields are counted after the name, which may contain blanks and
/// parentheses.
fn ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    Some(next()? + next()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_counted_behind_the_name() {
        let stat = "4711 (a (b) c) S 1 4711 4711 0 -1 4194560 100 0 0 0 17 5 0 0 20 0 9 0 1 2 3";
        assert_eq!(ticks(stat), Some(22));
        assert_eq!(ticks("4711 (cut"), None);
    }

    #[test]
    fn this_process_is_measured_in_both_ways() {
        let before = own();
        let mut sum = 0_u64;
        while own() - before < Duration::from_millis(40) {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(of(&[std::process::id()]).unwrap() >= Duration::from_millis(20));
        assert!(of(&[u32::MAX]).unwrap_err().to_string().contains("4294967295"));
    }
}
