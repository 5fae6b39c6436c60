//! Limits how often a failing plugin is logged: it fails at every read.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::lock::lock;

/// Failures with the same bucket and reason are logged at most once in this time.
const LOG_INTERVAL: Duration = Duration::from_secs(10);
/// The most pairs of bucket and reason that are remembered.
const MAX_ENTRIES: usize = 1_024;

/// When failures were last logged, by bucket and reason.
#[derive(Default)]
pub(crate) struct FailureLog(Mutex<BTreeMap<(u64, &'static str), Instant>>);

impl FailureLog {
    /// Whether a failure should be logged now. If so, its time is noted.
    pub(crate) fn should_log(&self, bucket: u64, reason: &'static str) -> bool {
        let mut logged = lock(&self.0);
        let now = Instant::now();
        if logged.get(&(bucket, reason)).is_some_and(|at| now < *at + LOG_INTERVAL) {
            return false;
        }
        if logged.len() >= MAX_ENTRIES {
            logged.clear();
        }
        logged.insert((bucket, reason), now);
        true
    }
}
