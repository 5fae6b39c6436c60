//! Failures of background work, and damage that reads have met.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::time::{Duration, Instant};

use bytes::Bytes;

/// Keys with damage that are remembered. Further ones are reported again when they are read again.
const MAX_REPORTED_KEYS: usize = 64;
/// A pause is at most 2⁶ seconds.
const MAX_DOUBLINGS: u32 = 6;

/// Where a read has met damage.
pub(super) enum ReadPosition<'a> {
    Key(&'a [u8]),
    /// Behind the last key that a scan has visited, or at its beginning.
    After(Bound<Bytes>),
}

/// Damage that reads have met and maintenance has not looked at yet.
#[derive(Default)]
pub(super) struct DamageReports {
    pub(super) keys: BTreeSet<Bytes>,
    /// Where the last scan that met damage was.
    pub(super) behind: Option<Bound<Bytes>>,
}

impl DamageReports {
    pub(super) fn add(&mut self, position: ReadPosition<'_>) {
        match position {
            ReadPosition::Key(key) if self.keys.len() < MAX_REPORTED_KEYS => {
                self.keys.insert(Bytes::copy_from_slice(key));
            }
            ReadPosition::Key(_) => {}
            ReadPosition::After(bound) => self.behind = Some(bound),
        }
    }
}

/// The kinds of background work that have failed.
#[derive(Default)]
pub(super) struct BackgroundFailures {
    pub(super) flush: Backoff,
    pub(super) compaction: Backoff,
    pub(super) repair: Backoff,
    pub(super) reseal: Backoff,
}

impl BackgroundFailures {
    /// Whether anything has failed and is to be tried again.
    pub(super) fn any(&self) -> bool {
        [&self.flush, &self.compaction, &self.repair, &self.reseal].iter().any(|backoff| backoff.why.is_some())
    }

    /// One line about each failure, for people.
    pub(super) fn lines(&self) -> impl Iterator<Item = String> {
        let all = [
            ("flushes", &self.flush),
            ("compactions", &self.compaction),
            ("looking into damage", &self.repair),
            ("writing rows anew under another key", &self.reseal),
        ];
        all.into_iter().filter_map(|(what, backoff)| Some(format!("{what}: {}", backoff.why.as_ref()?)))
    }
}

/// The pause before failed work is tried again: 1 s, doubled with each failure up to 64 s.
#[derive(Default)]
pub(super) struct Backoff {
    failures: u32,
    until: Option<Instant>,
    why: Option<String>,
}

impl Backoff {
    /// The rest of the pause.
    pub(super) fn left(&self) -> Option<Duration> {
        self.until?.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    }

    /// Notes a failure.
    pub(super) fn failed(&mut self, why: String) {
        let pause = Duration::from_secs(1 << self.failures.min(MAX_DOUBLINGS));
        self.failures += 1;
        (self.until, self.why) = (Some(Instant::now() + pause), Some(why));
    }

    /// Notes that the work cannot be tried at the moment; it is looked at again without a pause. Returns whether that
    /// is new.
    pub(super) fn blocked(&mut self, why: String) -> bool {
        self.until = None;
        self.why.replace(why).is_none()
    }

    /// The number of failures in a row.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// Notes that the work has succeeded, or that there is none.
    pub(super) fn succeeded(&mut self) {
        *self = Self::default();
    }
}
