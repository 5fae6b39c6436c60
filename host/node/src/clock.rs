//! The node's clock. It is read once per batch; the core gets the time as an argument.

use std::time::{SystemTime, UNIX_EPOCH};

use tokio::time::{Duration, Instant};

use rejoin_core::shard::event::Now;

/// A monotonic clock and a wall clock. The monotonic one is tokio's, so a test that pauses tokio's clock drives the
/// node too. The wall clock is a function, so a test can let it jump.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
    wall_ms: fn() -> u64,
}

impl Clock {
    /// The machine's clocks.
    #[must_use]
    pub fn system() -> Self {
        Self::with_wall(system_wall_ms)
    }

    /// tokio's clock for deadlines, and a function for the wall clock, in milliseconds since 1970.
    #[must_use]
    pub fn with_wall(wall_ms: fn() -> u64) -> Self {
        Self { origin: Instant::now(), wall_ms }
    }

    /// The present time of both clocks.
    #[must_use]
    pub fn now(&self) -> Now {
        let mono_us = u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX);
        // One microsecond ahead, because the core uses 0 for "never".
        Now { mono_us: mono_us + 1, wall_ms: (self.wall_ms)() }
    }

    /// The instant at which [`Now::mono_us`] has that value.
    pub(crate) fn instant(&self, mono_us: u64) -> Instant {
        self.origin + Duration::from_micros(mono_us.min(u64::MAX / 4))
    }
}

fn system_wall_ms() -> u64 {
    // A clock set before 1970 counts as 1970: stamps then differ in their logical part only.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
