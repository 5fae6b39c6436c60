//! Runs the merges and validations that shards ask for, each with its bucket's share of the pool, and says of those
//! that fail why.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;

use rejoin_core::shard::event::{Invalid, MergeJob, MergeTicket, Merged, ValidateJob, ValidateTicket};
use rejoin_merge::{CallLimits, MergeFault, Overloaded, Plugin, PluginCall, Sibling};
use rejoin_proto::{BucketId, Name, PluginDigest, ProfileId};

use crate::driver::Notice;
use crate::modules::Desk;

/// The wall-clock limit of a call: so long for each unit of its fuel, and at least so long. A unit takes less than 4 ns
/// on the slowest guest that `rejoin-fuel` (tests/hostile) knows, so fuel decides on a machine that is half as fast.
const WALL_FOR_FUEL: Duration = Duration::from_nanos(8);
const LEAST_WALL: Duration = Duration::from_secs(20);
/// The most siblings that one merge is given.
const MERGE_SIBLINGS: usize = 1024;
/// The longest that a merge waits for its plugin to be fetched.
const FETCH_WAIT: Duration = Duration::from_secs(10);
/// How often failures of one kind in one bucket are logged, and of how many kinds and buckets it is known when that
/// was.
const LOGGED_EVERY: Duration = Duration::from_secs(10);
const LOGGED_KINDS: usize = 1_024;

fn wall_for(fuel: u64) -> Duration {
    let nanos = u128::from(fuel) * WALL_FOR_FUEL.as_nanos();
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)).max(LEAST_WALL)
}

/// Why there is no merged value: a word for metrics, and a sentence for people.
struct Failure {
    reason: &'static str,
    words: String,
}

impl From<MergeFault> for Failure {
    fn from(fault: MergeFault) -> Self {
        Self { reason: fault.reason(), words: fault.to_string() }
    }
}

impl From<Overloaded> for Failure {
    fn from(full: Overloaded) -> Self {
        Self { reason: if full.of_bucket { "bucket_overloaded" } else { "overloaded" }, words: full.to_string() }
    }
}

/// When failures were last logged: a plugin that fails fails at every read.
#[derive(Default)]
pub(crate) struct Failures(Mutex<BTreeMap<(u64, &'static str), Instant>>);

impl Failures {
    fn is_news(&self, bucket: u64, reason: &'static str) -> bool {
        let mut logged = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if logged.get(&(bucket, reason)).is_some_and(|at| now < *at + LOGGED_EVERY) {
            return false;
        }
        if logged.len() >= LOGGED_KINDS {
            logged.clear();
        }
        logged.insert((bucket, reason), now);
        true
    }
}

/// A merge that was asked for, without its inputs.
struct Asked {
    job: MergeJob,
    ticket: MergeTicket,
    notices: UnboundedSender<Notice>,
}

/// What a failure was about, for logs.
struct About {
    bucket: BucketId,
    name: Name,
    key_hash: u128,
    plugin: PluginDigest,
}

type Value = (Bytes, Option<Bytes>, ProfileId);

impl Asked {
    fn tell(self, result: Result<Value, String>) {
        let result = result.map(|(value, shown, profile)| Merged { value, shown, profile });
        // The shard may have stopped; then nobody waits.
        let _ = self.notices.send(Notice::Merged(self.ticket, result));
    }

    fn about(&self) -> About {
        let MergeJob { bucket, bucket_name, key_hash, plugin, .. } = &self.job;
        About { bucket: *bucket, name: bucket_name.clone(), key_hash: *key_hash, plugin: *plugin }
    }

    fn call(&self, plugin: Plugin) -> PluginCall {
        let limits = CallLimits {
            fuel: self.job.fuel,
            memory_bytes: self.job.memory_bytes as usize,
            result_bytes: self.job.result_bytes as usize,
            max_siblings: MERGE_SIBLINGS,
            wall: wall_for(self.job.fuel),
        };
        PluginCall { bucket: self.job.bucket.0, plugin, limits }
    }
}

impl Desk {
    /// Runs a merge and tells the shard what became of it, whatever that is.
    pub(crate) fn merge(&self, ticket: MergeTicket, job: MergeJob, notices: UnboundedSender<Notice>) {
        let ready = self.find(&job.plugin);
        let asked = Asked { job, ticket, notices };
        match ready {
            Some(Ok(plugin)) => self.run(plugin, asked),
            Some(Err(words)) => self.fail(asked, Failure { reason: "plugin_refused", words }),
            None => {
                let desk = self.clone();
                self.0.runtime.spawn(async move {
                    match desk.wait_for(&asked.job.plugin, asked.job.deadline_us).await {
                        Ok(plugin) => desk.run(plugin, asked),
                        Err(failure) => desk.fail(asked, failure),
                    }
                });
            }
        }
    }

    /// Waits until a plugin has been fetched and compiled, as long as the job may.
    async fn wait_for(&self, digest: &PluginDigest, deadline_us: u64) -> Result<Plugin, Failure> {
        let until = self.0.clock.instant(deadline_us).min(Instant::now() + FETCH_WAIT);
        loop {
            // Made before the look, so that a decision in between is not missed.
            let decided = self.0.decided.notified();
            if let Some(found) = self.find(digest) {
                return found.map_err(|words| Failure { reason: "plugin_refused", words });
            }
            if tokio::time::timeout_at(until, decided).await.is_err() {
                let words = format!("this node does not have plugin {digest} yet; it is being fetched from the others");
                return Err(Failure { reason: "plugin_missing", words });
            }
        }
    }

    fn run(&self, plugin: Plugin, mut asked: Asked) {
        let siblings = std::mem::take(&mut asked.job.siblings);
        if let [only] = siblings.as_slice() {
            return self.show(plugin, only.value.clone(), asked);
        }
        let lent = siblings.into_iter().map(|s| Sibling { value: s.value, stamp_ms: s.stamp_ms, writer: s.writer }).collect();
        let (call, key, wanted) = (asked.call(plugin.clone()), asked.job.key.clone(), self.wanted(asked.job.deadline_us));
        let (desk, kept) = (self.clone(), Kept::new(asked));
        let again = kept.clone();
        let done = move |result: Result<rejoin_merge::Merged, MergeFault>| {
            let Some(asked) = again.take() else { return };
            match result {
                Ok(merged) => {
                    #[allow(clippy::cast_precision_loss)] // A histogram's value.
                    desk.0.metrics.merge_fuel.record(merged.fuel_used as f64);
                    match asked.job.show {
                        true => desk.show(plugin, merged.value, asked),
                        false => asked.tell(Ok((merged.value, None, desk.0.pool.host().profile()))),
                    }
                }
                Err(fault) => desk.fail(asked, fault.into()),
            }
        };
        if let Err(full) = self.0.pool.merge(call, key, lent, wanted, done)
            && let Some(asked) = kept.take()
        {
            self.fail(asked, full.into());
        }
    }

    /// Whether somebody still waits for it when its turn comes.
    fn wanted(&self, deadline_us: u64) -> impl FnOnce() -> bool + Send + use<> {
        let clock = self.0.clock;
        move || clock.now().mono_us < deadline_us
    }

    /// The readable form of a value. That it has none is no fault of the value.
    fn show(&self, plugin: Plugin, value: Bytes, asked: Asked) {
        let profile = self.0.pool.host().profile();
        if !plugin.exports().present {
            return asked.tell(Ok((value, None, profile)));
        }
        let (call, wanted, kept) = (asked.call(plugin), self.wanted(asked.job.deadline_us), Kept::new(asked));
        let (desk, again, of) = (self.clone(), kept.clone(), value.clone());
        let done = move |shown: Result<Bytes, MergeFault>| {
            let Some(asked) = again.take() else { return };
            if let Err(fault) = &shown {
                desk.count(&asked.about(), &Failure::from(fault.clone()), "a value could not be shown");
            }
            asked.tell(Ok((of, shown.ok(), profile)));
        };
        if let Err(full) = self.0.pool.show(call, value.clone(), wanted, done)
            && let Some(asked) = kept.take()
        {
            self.count(&asked.about(), &full.into(), "a value could not be shown");
            asked.tell(Ok((value, None, profile)));
        }
    }

    /// Has a value validated and tells the shard what became of it, whatever that is.
    pub(crate) fn validate(&self, ticket: ValidateTicket, job: ValidateJob, notices: UnboundedSender<Notice>) {
        match self.find(&job.plugin) {
            Some(Ok(plugin)) => self.run_validation(plugin, ticket, job, notices),
            Some(Err(why)) => drop(notices.send(Notice::Validated(ticket, Err(Invalid::Unjudged(why))))),
            None => {
                let desk = self.clone();
                self.0.runtime.spawn(async move {
                    match desk.wait_for(&job.plugin, job.deadline_us).await {
                        Ok(plugin) => desk.run_validation(plugin, ticket, job, notices),
                        Err(why) => drop(notices.send(Notice::Validated(ticket, Err(Invalid::Unjudged(why.words))))),
                    }
                });
            }
        }
    }

    fn run_validation(&self, plugin: Plugin, ticket: ValidateTicket, job: ValidateJob, notices: UnboundedSender<Notice>) {
        let limits =
            CallLimits { fuel: job.fuel, memory_bytes: job.memory_bytes as usize, wall: wall_for(job.fuel), ..CallLimits::default() };
        let about = About { bucket: job.bucket, name: job.bucket_name, key_hash: job.key_hash, plugin: job.plugin };
        let (call, wanted) = (PluginCall { bucket: job.bucket.0, plugin, limits }, self.wanted(job.deadline_us));
        let (desk, told) = (self.clone(), notices.clone());
        let done = move |result: Result<(), MergeFault>| {
            // A refusal is an answer, and the core counts it.
            if let Err(fault) = result.as_ref()
                && !matches!(fault, MergeFault::Refused(_))
            {
                desk.count(&about, &fault.clone().into(), "a value could not be validated");
            }
            drop(told.send(Notice::Validated(ticket, result.map_err(invalid))));
        };
        if let Err(full) = self.0.pool.validate(call, job.key, job.value, wanted, done) {
            self.0.metrics.merge_failed(Failure::from(full).reason);
            drop(notices.send(Notice::Validated(ticket, Err(Invalid::Unjudged(full.to_string())))));
        }
    }

    fn fail(&self, asked: Asked, failure: Failure) {
        self.count(&asked.about(), &failure, "a merge gave no result; the siblings are kept");
        asked.tell(Err(failure.words));
    }

    fn count(&self, about: &About, failure: &Failure, what: &str) {
        self.0.metrics.merge_failed(failure.reason);
        let About { bucket, name: bucket_name, key_hash, plugin } = about;
        let (key, why) = (format_args!("{key_hash:032x}"), &failure.words);
        if self.0.failures.is_news(bucket.0, failure.reason) {
            tracing::warn!(bucket = %bucket_name, %key, %plugin, reason = failure.reason, why, "{what}");
        } else {
            tracing::debug!(bucket = %bucket_name, %key, %plugin, reason = failure.reason, why, "{what}");
        }
    }
}

/// A validator that traps or uses up its fuel on a value would do so on every node, and so would the merge: the value
/// is refused.
fn invalid(fault: MergeFault) -> Invalid {
    let why = fault.to_string();
    if fault.is_deterministic() { Invalid::Refused(why) } else { Invalid::Unjudged(why) }
}

/// What is needed by whichever of two comes: the outcome, or the news that there is no room for it.
#[derive(Clone)]
struct Kept(std::sync::Arc<Mutex<Option<Asked>>>);

impl Kept {
    fn new(asked: Asked) -> Self {
        Self(std::sync::Arc::new(Mutex::new(Some(asked))))
    }

    fn take(&self) -> Option<Asked> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rejoin_proto::catalog::{BucketProps, MAX_FUEL, fuel_for};

    #[test]
    fn the_fuel_of_any_call_ends_before_its_clock_on_a_slow_machine() {
        for fuel in [1, BucketProps::default().fuel, MAX_FUEL] {
            let most = fuel_for(fuel, usize::MAX);
            let slowest = Duration::from_nanos(4 * most);
            assert!(wall_for(most) >= 2 * slowest, "{most} units end after {slowest:?}, the clock after {:?}", wall_for(most));
        }
        assert_eq!(wall_for(u64::MAX), Duration::from_nanos(u64::MAX));
        assert_eq!(wall_for(0), LEAST_WALL);
    }
}
