//! Waits for a condition, with a bound.

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// The longest wait for something that should happen soon, on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// The pause between two checks.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Calls `look` until it succeeds, for at most 20 s. Its error is what it saw instead.
///
/// # Panics
/// If it does not succeed in time, with the last error.
pub async fn eventually<T, W: Debug>(what: &str, look: impl AsyncFnMut() -> Result<T, W>) -> T {
    within(PATIENCE, what, look).await
}

/// As [`eventually`], with another bound.
///
/// # Panics
/// If it does not succeed in time, with the last error.
pub async fn within<T, W: Debug>(bound: Duration, what: &str, mut look: impl AsyncFnMut() -> Result<T, W>) -> T {
    let end = Instant::now() + bound;
    loop {
        match look().await {
            Ok(seen) => return seen,
            Err(instead) if Instant::now() >= end => panic!("not within {} s: {what}; seen last: {instead:?}", bound.as_secs()),
            Err(_) => tokio::time::sleep(POLL_INTERVAL).await,
        }
    }
}
