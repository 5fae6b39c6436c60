//! Runs merges and validations for shards, each within its tenant's and bucket's shares of the pool, and reports why
//! one fails. A failed merge never drops a sibling: the shard keeps all of them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;

use rejoin_core::shard::event::{MergeJob, MergeTicket, Merged, PluginError, ValidateJob, ValidateTicket};
use rejoin_merge::{CallLimits, MergeFault, Overloaded, Plugin, PluginCall, Sibling, TenantShare};
use rejoin_proto::client::Show;
use rejoin_proto::{BucketId, Name, PluginDigest, ProfileId};

use crate::conflicts::FailedMerge;
use crate::lock::lock;
use crate::messages::ShardMessage;
use crate::metering::FuelPayers;
use crate::plugins::PluginService;
use crate::sentinel::RunMerge;

/// The wall-clock limit of a call, for each unit of its fuel. A unit takes less than 4 ns in the slowest guest of
/// `rejoin-fuel` (tests/hostile), so fuel is the effective limit even on a machine that is half as fast.
const WALL_FOR_FUEL: Duration = Duration::from_nanos(8);
/// The least wall-clock limit of a call.
const MIN_WALL: Duration = Duration::from_secs(20);
/// The most siblings that one merge takes.
pub(crate) const MAX_SIBLINGS: usize = 1024;
/// The longest time that a merge waits for its plugin to be fetched.
const FETCH_WAIT: Duration = Duration::from_secs(10);

pub(crate) fn wall_for(fuel: u64) -> Duration {
    let nanos = u128::from(fuel) * WALL_FOR_FUEL.as_nanos();
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)).max(MIN_WALL)
}

pub(crate) fn overloaded(full: Overloaded) -> PluginError {
    PluginError::Overloaded { waiting: full.waiting, of: full.of }
}

/// A merge that a shard has asked for.
struct MergeRequest {
    job: MergeJob,
    share: TenantShare,
    ticket: MergeTicket,
    messages: UnboundedSender<ShardMessage>,
    payers: FuelPayers,
    /// What the merge has used.
    fuel_used: u64,
}

/// Fields of a failure's log line.
pub(crate) struct LogFields {
    pub(crate) bucket: BucketId,
    pub(crate) name: Name,
    pub(crate) key_hash: u128,
    pub(crate) plugin: PluginDigest,
}

/// A merged value, its readable form if there is one, and the engine's profile.
type Value = (Bytes, Option<Bytes>, ProfileId);

impl MergeRequest {
    fn reply(self, result: Result<Value, PluginError>) {
        let fuel_used = self.fuel_used;
        let result = result.map(|(value, shown, profile)| Merged { value, shown, profile, fuel_used });
        // A shard that has stopped takes no results.
        let _ = self.messages.send(ShardMessage::Merged(self.ticket, result));
    }

    fn log_fields(&self) -> LogFields {
        let MergeJob { bucket, bucket_name, key_hash, plugin, .. } = &self.job;
        LogFields { bucket: *bucket, name: bucket_name.clone(), key_hash: *key_hash, plugin: *plugin }
    }

    fn call(&self, plugin: Plugin) -> PluginCall {
        let limits = CallLimits {
            fuel: self.job.fuel,
            memory_bytes: self.job.memory_bytes as usize,
            result_bytes: self.job.result_bytes as usize,
            max_siblings: MAX_SIBLINGS,
            wall: wall_for(self.job.fuel),
        };
        PluginCall { bucket: self.job.bucket.0, tenant: self.share, plugin, limits, fresh: self.job.fresh }
    }
}

impl PluginService {
    /// Runs a merge, and sends the shard its result or why there is none.
    pub(crate) fn merge(
        &self,
        ticket: MergeTicket,
        (job, share): (MergeJob, TenantShare),
        payers: FuelPayers,
        messages: UnboundedSender<ShardMessage>,
    ) {
        let ready = self.find(&job.plugin);
        let request = MergeRequest { job, share, ticket, messages, payers, fuel_used: 0 };
        match ready {
            Some(Ok(plugin)) => self.run(plugin, request),
            Some(Err(error)) => self.fail(request, error),
            None => {
                let service = self.clone();
                self.0.runtime.spawn(async move {
                    match service.wait_for(&request.job.plugin, request.job.deadline_us).await {
                        Ok(plugin) => service.run(plugin, request),
                        Err(error) => service.fail(request, error),
                    }
                });
            }
        }
    }

    /// Waits until a plugin has been fetched and compiled, at most until the job's deadline.
    pub(crate) async fn wait_for(&self, digest: &PluginDigest, deadline_us: u64) -> Result<Plugin, PluginError> {
        let until = self.0.clock.instant(deadline_us).min(Instant::now() + FETCH_WAIT);
        loop {
            // Created before `find`, so that a notification in between is not missed.
            let decided = self.0.decided.notified();
            if let Some(found) = self.find(digest) {
                return found;
            }
            if tokio::time::timeout_at(until, decided).await.is_err() {
                return Err(PluginError::Missing(*digest));
            }
        }
    }

    fn run(&self, plugin: Plugin, request: MergeRequest) {
        // The request keeps its own: a merge that fails is noted with its inputs.
        let siblings = request.job.siblings.clone();
        if let [only] = siblings.as_slice() {
            return self.present(plugin, only.value.clone(), request);
        }
        let inputs: Vec<Sibling> =
            siblings.into_iter().map(|s| Sibling { value: s.value, stamp_ms: s.stamp_ms, writer: s.writer }).collect();
        let kept_siblings = self.0.engine.sentinel.keep(&inputs);
        let (call, key, wanted) =
            (request.call(plugin.clone()), request.job.key.clone(), self.wanted(request.job.deadline_us));
        let shadow = self.shadows().inputs(&request.job, &inputs, &call, &request.payers);
        let (service, kept) = (self.clone(), SharedRequest::new(request));
        let again = kept.clone();
        let done = move |result: Result<rejoin_merge::Merged, MergeFault>| {
            let Some(mut request) = again.take() else { return };
            request.payers.charge_job(service.0.clock.now().mono_us);
            if let Some(shadow) = shadow {
                service.shadow(&request.job, shadow, &result);
            }
            match result {
                Ok(merged) => {
                    let (payers, messages) = (&request.payers, &request.messages);
                    let ran =
                        RunMerge { job: &request.job, siblings: kept_siblings, merged: &merged, payers, messages };
                    service.sample(request.call(plugin.clone()), ran);
                    service.conflicts().merged(request.job.bucket, &request.job.key);
                    service.shadows().merged(request.job.bucket, &request.job.key);
                    service.figures().merged(request.share, &request.job, merged.fuel_used);
                    #[allow(clippy::cast_precision_loss)] // A histogram's value.
                    service.0.metrics.merge_fuel.record(merged.fuel_used as f64);
                    request.fuel_used = merged.fuel_used;
                    service.present(plugin, merged.value, request);
                }
                Err(fault) => service.fail(request, fault.into()),
            }
        };
        if let Err(full) = self.0.engine.pool.merge(call, key, inputs, wanted, done)
            && let Some(request) = kept.take()
        {
            self.fail(request, overloaded(full));
        }
    }

    /// A check whether the job's deadline has not passed, for when a thread is free.
    pub(crate) fn wanted(&self, deadline_us: u64) -> impl FnOnce() -> bool + Send + use<> {
        let clock = self.0.clock;
        move || clock.now().mono_us < deadline_us
    }

    /// Adds what the reader wants of a merged value.
    fn present(&self, plugin: Plugin, value: Bytes, request: MergeRequest) {
        match &request.job.show {
            Show::Nothing => request.reply(Ok((value, None, self.0.engine.pool.host().profile()))),
            Show::Readable => self.show(plugin, value, request),
            Show::Answer(question) => {
                let question = question.clone();
                self.answer(plugin, value, question, request);
            }
        }
    }

    /// Adds the answer to the reader's question. If there is none, that is the result.
    fn answer(&self, plugin: Plugin, value: Bytes, question: Bytes, request: MergeRequest) {
        let profile = self.0.engine.pool.host().profile();
        let (call, wanted, kept) =
            (request.call(plugin), self.wanted(request.job.deadline_us), SharedRequest::new(request));
        let (service, again, of) = (self.clone(), kept.clone(), value.clone());
        let done = move |answer: Result<rejoin_merge::Merged, MergeFault>| {
            let Some(request) = again.take() else { return };
            request.payers.charge_job(service.0.clock.now().mono_us);
            if let Err(fault) = answer.as_ref()
                && !matches!(fault, MergeFault::Refused(_))
            {
                service.count(&request.log_fields(), &fault.clone().into(), "a question could not be answered");
            }
            request.reply(answer.map(|answer| (of, Some(answer.value), profile)).map_err(PluginError::from));
        };
        if let Err(full) = self.0.engine.pool.query(call, (value, question), wanted, done)
            && let Some(request) = kept.take()
        {
            self.fail(request, overloaded(full));
        }
    }

    /// Adds the readable form of a merged value. If that fails, the value is sent without it.
    fn show(&self, plugin: Plugin, value: Bytes, request: MergeRequest) {
        let profile = self.0.engine.pool.host().profile();
        if !plugin.exports().present {
            return request.reply(Ok((value, None, profile)));
        }
        let (call, wanted, kept) =
            (request.call(plugin), self.wanted(request.job.deadline_us), SharedRequest::new(request));
        let (service, again, of) = (self.clone(), kept.clone(), value.clone());
        let done = move |shown: Result<Bytes, MergeFault>| {
            let Some(request) = again.take() else { return };
            request.payers.charge_job(service.0.clock.now().mono_us);
            if let Err(fault) = &shown {
                service.count(&request.log_fields(), &fault.clone().into(), "a value could not be shown");
            }
            request.reply(Ok((of, shown.ok(), profile)));
        };
        if let Err(full) = self.0.engine.pool.show(call, value.clone(), wanted, done)
            && let Some(request) = kept.take()
        {
            self.count(&request.log_fields(), &overloaded(full), "a value could not be shown");
            request.reply(Ok((value, None, profile)));
        }
    }

    /// Validates a value, and sends the shard the result or why there is none.
    pub(crate) fn validate(
        &self,
        ticket: ValidateTicket,
        (job, share): (ValidateJob, TenantShare),
        payers: FuelPayers,
        messages: UnboundedSender<ShardMessage>,
    ) {
        match self.find(&job.plugin) {
            Some(Ok(plugin)) => self.run_validation(plugin, ticket, (job, share, payers), messages),
            Some(Err(error)) => drop(messages.send(ShardMessage::Validated(ticket, Err(error)))),
            None => {
                let service = self.clone();
                self.0.runtime.spawn(async move {
                    match service.wait_for(&job.plugin, job.deadline_us).await {
                        Ok(plugin) => service.run_validation(plugin, ticket, (job, share, payers), messages),
                        Err(error) => drop(messages.send(ShardMessage::Validated(ticket, Err(error)))),
                    }
                });
            }
        }
    }

    fn run_validation(
        &self,
        plugin: Plugin,
        ticket: ValidateTicket,
        (job, share, payers): (ValidateJob, TenantShare, FuelPayers),
        messages: UnboundedSender<ShardMessage>,
    ) {
        let limits = CallLimits {
            fuel: job.fuel,
            memory_bytes: job.memory_bytes as usize,
            wall: wall_for(job.fuel),
            ..CallLimits::default()
        };
        let log_fields =
            LogFields { bucket: job.bucket, name: job.bucket_name, key_hash: job.key_hash, plugin: job.plugin };
        let call = PluginCall { bucket: job.bucket.0, tenant: share, plugin, limits, fresh: false };
        let wanted = self.wanted(job.deadline_us);
        let (service, reply) = (self.clone(), messages.clone());
        let done = move |result: Result<(), MergeFault>| {
            payers.charge_job(service.0.clock.now().mono_us);
            // A refusal is a result, and the core counts it.
            if let Err(fault) = result.as_ref()
                && !matches!(fault, MergeFault::Refused(_))
            {
                service.count(&log_fields, &fault.clone().into(), "a value could not be validated");
            }
            drop(reply.send(ShardMessage::Validated(ticket, result.map_err(PluginError::from))));
        };
        if let Err(full) = self.0.engine.pool.validate(call, job.key, job.value, wanted, done) {
            let error = overloaded(full);
            self.0.metrics.merge_failed(error.reason());
            drop(messages.send(ShardMessage::Validated(ticket, Err(error))));
        }
    }

    fn fail(&self, request: MergeRequest, error: PluginError) {
        let merge = FailedMerge { job: &request.job, profile: self.profile() };
        self.conflicts().failed(&merge, &error, self.0.clock.now().wall_ms);
        self.figures().failed(request.share, &request.job, error.reason());
        self.count(&request.log_fields(), &error, "a merge gave no result; the siblings are kept");
        request.reply(Err(error));
    }

    /// Counts a failure, and logs it unless a similar one was logged a moment ago.
    pub(crate) fn count(&self, log_fields: &LogFields, error: &PluginError, what: &str) {
        let reason = error.reason();
        self.0.metrics.merge_failed(reason);
        let LogFields { bucket, name: bucket_name, key_hash, plugin } = log_fields;
        let key = format_args!("{key_hash:032x}");
        let error = match error {
            PluginError::Call(fault) => &PluginError::Call(fault.without_words()),
            other => other,
        };
        if self.0.failures.should_log(bucket.0, reason) {
            tracing::warn!(bucket = %bucket_name, %key, %plugin, reason, why = %error, "{what}");
        } else {
            tracing::debug!(bucket = %bucket_name, %key, %plugin, reason, why = %error, "{what}");
        }
    }
}

/// A request that either the call's completion or the error of a full queue takes, whichever comes first.
#[derive(Clone)]
struct SharedRequest(Arc<Mutex<Option<MergeRequest>>>);

impl SharedRequest {
    fn new(request: MergeRequest) -> Self {
        Self(Arc::new(Mutex::new(Some(request))))
    }

    fn take(&self) -> Option<MergeRequest> {
        lock(&self.0).take()
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
            assert!(
                wall_for(most) >= 2 * slowest,
                "{most} units end after {slowest:?}, the clock after {:?}",
                wall_for(most)
            );
        }
        assert_eq!(wall_for(u64::MAX), Duration::from_nanos(u64::MAX));
        assert_eq!(wall_for(0), MIN_WALL);
    }
}
