//! Runs operations of plugins' data types for shards, as `merging` runs merges: within the shares of their tenant and
//! bucket, and charged to them.

use tokio::sync::mpsc::UnboundedSender;

use rejoin_core::shard::event::{ApplyJob, ApplyTicket, PluginError};
use rejoin_merge::{CallLimits, MergeFault, OperationDot, Plugin, PluginCall, Sibling, TenantShare};

use crate::merging::{LogFields, MAX_SIBLINGS, overloaded, wall_for};
use crate::messages::ShardMessage;
use crate::metering::FuelPayers;
use crate::plugins::PluginService;

/// An operation that a shard has asked for.
struct ApplyRequest {
    job: ApplyJob,
    share: TenantShare,
    ticket: ApplyTicket,
    messages: UnboundedSender<ShardMessage>,
    payers: FuelPayers,
}

impl PluginService {
    /// Applies an operation, and sends the shard the new value or why there is none.
    pub(crate) fn apply(
        &self,
        ticket: ApplyTicket,
        (job, share): (ApplyJob, TenantShare),
        payers: FuelPayers,
        messages: UnboundedSender<ShardMessage>,
    ) {
        let request = ApplyRequest { job, share, ticket, messages, payers };
        match self.find(&request.job.plugin) {
            Some(Ok(plugin)) => self.run_operation(plugin, request),
            Some(Err(error)) => drop(request.messages.send(ShardMessage::Applied(ticket, Err(error)))),
            None => {
                let service = self.clone();
                self.0.runtime.spawn(async move {
                    match service.wait_for(&request.job.plugin, request.job.deadline_us).await {
                        Ok(plugin) => service.run_operation(plugin, request),
                        Err(error) => drop(request.messages.send(ShardMessage::Applied(ticket, Err(error)))),
                    }
                });
            }
        }
    }

    fn run_operation(&self, plugin: Plugin, request: ApplyRequest) {
        let ApplyRequest { job, share, ticket, messages, payers } = request;
        let limits = CallLimits {
            fuel: job.fuel,
            memory_bytes: job.memory_bytes as usize,
            result_bytes: job.result_bytes as usize,
            max_siblings: MAX_SIBLINGS,
            wall: wall_for(job.fuel),
        };
        let log_fields =
            LogFields { bucket: job.bucket, name: job.bucket_name, key_hash: job.key_hash, plugin: job.plugin };
        let call = PluginCall { bucket: job.bucket.0, tenant: share, plugin, limits, fresh: false };
        let siblings = job
            .siblings
            .into_iter()
            .map(|s| Sibling { value: s.value, stamp_ms: s.stamp_ms, writer: s.writer })
            .collect();
        let dot = OperationDot { actor: job.dot.actor.0, counter: job.dot.counter };
        let (service, reply) = (self.clone(), messages.clone());
        let done = move |result: Result<rejoin_merge::Merged, MergeFault>| {
            payers.charge_job(service.0.clock.now().mono_us);
            // A refusal is a result, and the core counts it.
            if let Err(fault) = result.as_ref()
                && !matches!(fault, MergeFault::Refused(_))
            {
                service.count(&log_fields, &fault.clone().into(), "an operation could not be applied");
            }
            let result = result.map(|applied| applied.value).map_err(PluginError::from);
            drop(reply.send(ShardMessage::Applied(ticket, result)));
        };
        let wanted = self.wanted(job.deadline_us);
        let queued = self.0.engine.pool.apply(call, (job.key, siblings), (job.operation, dot), wanted, done);
        if let Err(full) = queued {
            let error = overloaded(full);
            self.0.metrics.merge_failed(error.reason());
            drop(messages.send(ShardMessage::Applied(ticket, Err(error))));
        }
    }
}
