//! Waiting for something to become so, with a bound.

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// How long something may take that is about to happen, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often it is looked.
const GLANCE: Duration = Duration::from_millis(20);

/// Looks again and again until it is so, for at most 20 s. `look` gives what was wanted, or what it saw instead.
///
/// # Panics
/// If it does not become so; the message says what was last seen.
pub async fn eventually<T, W: Debug>(what: &str, look: impl AsyncFnMut() -> Result<T, W>) -> T {
    within(PATIENCE, what, look).await
}

/// As [`eventually`], with a bound of its own.
///
/// # Panics
/// If it does not become so; the message says what was last seen.
pub async fn within<T, W: Debug>(bound: Duration, what: &str, mut look: impl AsyncFnMut() -> Result<T, W>) -> T {
    let end = Instant::now() + bound;
    loop {
        match look().await {
            Ok(seen) => return seen,
            Err(instead) if Instant::now() >= end => {
                panic!("not within {} s: {what}; seen last: {instead:?}", bound.as_secs())
            }
            Err(_) => tokio::time::sleep(GLANCE).await,
        }
    }
}
