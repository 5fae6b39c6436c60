//! A node's metrics, as Prometheus text. Each node has its own recorder, so that one process can run several nodes.

use std::collections::BTreeMap;
use std::sync::Mutex;

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Label, Level, Metadata, Recorder, SharedString, Unit};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use rejoin_core::exchange::{ExchangeStatus, PairStatus, WalkCounts};
use rejoin_core::members::Counters;
use rejoin_proto::exchange::Sum;
use rejoin_proto::{BucketId, NodeId};

use crate::encryption::EncryptionState;
use crate::lock::lock;
use crate::messages::ShardReport;
use crate::metering::Totals;
use crate::plugin_figures::Figures;

/// Upper bounds of the latency buckets, in seconds.
const SECONDS: &[f64] =
    &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];
/// Upper bounds of the fuel buckets.
const FUEL: &[f64] = &[1e3, 1e4, 1e5, 1e6, 1e7, 1e8];

/// The recorder, and handles for the metrics of hot paths.
pub(crate) struct Metrics {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    pub(crate) get_seconds: Histogram,
    pub(crate) put_seconds: Histogram,
    pub(crate) merge_seconds: Histogram,
    pub(crate) merge_fuel: Histogram,
    pub(crate) batch_events: Histogram,
    pub(crate) overloaded: Counter,
    pub(crate) sends_dropped: Counter,
    /// Held while a shard's counters are set: they must not go back when two readers overlap.
    shards: Mutex<()>,
}

/// The figures of a node that belong to no shard.
pub(crate) struct NodeReport {
    pub(crate) peers: usize,
    /// Bytes in the send queues to peers.
    pub(crate) queued_bytes: usize,
    pub(crate) clients: usize,
    pub(crate) merges_waiting: usize,
    pub(crate) plugins_ready: usize,
    pub(crate) plugins_missing: usize,
    pub(crate) plugins_quarantined: usize,
    pub(crate) plugins_differing: usize,
    pub(crate) memo_hits: u64,
    pub(crate) memo_misses: u64,
}

/// What the tenants of one label use.
#[derive(Default)]
pub(crate) struct TenantFigures {
    pub(crate) totals: Totals,
    pub(crate) connections: u64,
    /// This node's copies.
    pub(crate) stored: Sum,
    pub(crate) soft_reached: u64,
    pub(crate) hard_reached: u64,
}

static METADATA: Metadata<'static> = Metadata::new("rejoin", Level::INFO, None);

impl Metrics {
    pub(crate) fn new() -> Self {
        let recorder = PrometheusBuilder::new()
            .set_buckets(SECONDS)
            .and_then(|builder| {
                let fuel = metrics_exporter_prometheus::Matcher::Full("rejoin_merge_fuel".into());
                builder.set_buckets_for_metric(fuel, FUEL)
            })
            .and_then(|builder| {
                let batch = metrics_exporter_prometheus::Matcher::Full("rejoin_batch_events".into());
                builder.set_buckets_for_metric(batch, &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0])
            })
            .expect("the bucket lists are not empty")
            .build_recorder();
        let describe = |name: &'static str, unit, text: &'static str| {
            recorder.describe_histogram(KeyName::from_const_str(name), unit, SharedString::const_str(text));
        };
        describe(
            "rejoin_request_seconds",
            Some(Unit::Seconds),
            "From a request's arrival at its coordinator or forwarder to its reply.",
        );
        describe(
            "rejoin_merge_seconds",
            Some(Unit::Seconds),
            "From the request for a merge to its result, including the wait for a thread.",
        );
        describe("rejoin_merge_fuel", None, "Fuel of merges that ran.");
        describe("rejoin_batch_events", None, "Events that a shard handled with one commit.");
        let histogram = |key: Key| recorder.register_histogram(&key, &METADATA);
        let verb = |verb: &'static str| Key::from_parts("rejoin_request_seconds", vec![Label::new("verb", verb)]);
        let counter = |name: &'static str| recorder.register_counter(&Key::from_name(name), &METADATA);
        Self {
            get_seconds: histogram(verb("get")),
            put_seconds: histogram(verb("put")),
            merge_seconds: histogram(Key::from_name("rejoin_merge_seconds")),
            merge_fuel: histogram(Key::from_name("rejoin_merge_fuel")),
            batch_events: histogram(Key::from_name("rejoin_batch_events")),
            overloaded: counter("rejoin_overloaded_total"),
            sends_dropped: counter("rejoin_sends_dropped_total"),
            handle: recorder.handle(),
            recorder,
            shards: Mutex::new(()),
        }
    }

    /// Counts a call of a plugin that gave no result.
    pub(crate) fn merge_failed(&self, reason: &'static str) {
        let key = Key::from_parts("rejoin_merge_failures_total", vec![Label::new("reason", reason)]);
        self.recorder.register_counter(&key, &METADATA).increment(1);
    }

    /// Counts a merge of the sentinel's sample, by what came of it.
    pub(crate) fn laws_sampled(&self, outcome: &'static str) {
        let key = Key::from_parts("rejoin_law_samples_total", vec![Label::new("outcome", outcome)]);
        self.recorder.register_counter(&key, &METADATA).increment(1);
    }

    /// Counts a merge that breaks a law.
    pub(crate) fn law_violated(&self, law: &'static str) {
        let key = Key::from_parts("rejoin_law_violations_total", vec![Label::new("law", law)]);
        self.recorder.register_counter(&key, &METADATA).increment(1);
    }

    /// Sets a shard's figures.
    pub(crate) fn shard(&self, shard: u16, report: &ShardReport) {
        let ShardReport { core, store, .. } = report;
        let _guard = lock(&self.shards);
        let label = || vec![Label::new("shard", shard.to_string())];
        let total = |name: &'static str, value: u64| {
            self.recorder.register_counter(&Key::from_parts(name, label()), &METADATA).absolute(value)
        };
        for (name, value) in [
            ("rejoin_gets_total", core.gets),
            ("rejoin_puts_total", core.puts),
            ("rejoin_forwards_total", core.forwards),
            ("rejoin_requests_overtaken_total", core.overtaken),
            ("rejoin_absorbs_total", core.absorbs),
            ("rejoin_merges_total", core.merges),
            ("rejoin_merge_faults_total", core.merge_faults),
            ("rejoin_values_refused_total", core.values_refused),
            ("rejoin_folds_total", core.folds),
            ("rejoin_folds_discarded_total", core.folds_discarded),
            ("rejoin_folds_undone_total", core.folds_undone),
            ("rejoin_read_repairs_total", core.read_repairs),
            ("rejoin_reads_hedged_total", core.reads_hedged),
            ("rejoin_siblings_read_total", core.siblings_seen),
            ("rejoin_tenures_ended_total", core.tenures_ended),
            ("rejoin_quorum_failures_total", core.quorum_failures),
            ("rejoin_requests_overloaded_total", core.overloaded),
            ("rejoin_writes_sent_again_total", core.writes_sent_again),
            ("rejoin_retries_recognised_total", core.retries_recognised),
            ("rejoin_retries_settled_total", core.retries_settled),
            ("rejoin_copies_replaced_total", core.replaced),
            ("rejoin_fallback_writes_total", core.fallbacks_asked),
            ("rejoin_fallback_requests_total", core.stood_in),
            ("rejoin_holdings_offered_total", core.objects_offered),
            ("rejoin_holdings_sent_total", core.objects_handed_over),
            ("rejoin_holdings_dropped_total", core.objects_dropped),
            ("rejoin_objects_reaped_total", core.objects_reaped),
            ("rejoin_views_compared_total", core.views_compared),
            ("rejoin_views_different_total", core.views_different),
            ("rejoin_quarantines_total", core.quarantines),
            ("rejoin_journal_bytes_total", store.journal_bytes),
            ("rejoin_journal_commits_total", store.commits),
            ("rejoin_journal_syncs_total", store.syncs),
            ("rejoin_journal_sync_microseconds_total", store.sync_micros),
            ("rejoin_flushes_total", store.flushes),
            ("rejoin_compactions_total", store.compactions),
            ("rejoin_store_failures_total", store.failures),
            ("rejoin_store_short_total", store.short),
        ] {
            total(name, value);
        }
        let gauge = |name: &'static str, value: u64| self.gauge(Key::from_parts(name, label()), value);
        gauge("rejoin_requests_in_flight", report.in_flight as u64);
        gauge("rejoin_requests_in_flight_bytes", report.in_flight_bytes as u64);
        gauge("rejoin_retry_bytes", report.retry_bytes as u64);
        gauge("rejoin_receipts", report.receipts.count);
        gauge("rejoin_receipt_bytes", report.receipts.bytes);
        gauge("rejoin_receipts_given_up", report.receipts.given_up);
        gauge("rejoin_holdings", report.held.partitions.len() as u64);
        gauge("rejoin_held_objects", report.held.objects);
        gauge("rejoin_inbox_waiting", report.waiting as u64);
        gauge("rejoin_journal_segments", store.segments);
        gauge("rejoin_memtable_bytes", store.memtable_bytes);
        gauge("rejoin_disk_full", u64::from(store.full));
        gauge("rejoin_disk_read_only", u64::from(store.read_only));
        gauge("rejoin_lost_key_ranges", store.lost_ranges);
    }

    /// Sets how far a shard's exchange with each peer has come.
    pub(crate) fn exchange(&self, shard: u16, status: &ExchangeStatus, now_us: u64, name: impl Fn(NodeId) -> String) {
        let of_shard = || vec![Label::new("shard", shard.to_string())];
        let gauge = |metric: &'static str, value: u64| self.gauge(Key::from_parts(metric, of_shard()), value);
        gauge("rejoin_exchange_paused", u64::from(status.paused));
        gauge("rejoin_incomplete_partitions", status.incomplete.len() as u64);
        gauge("rejoin_rebuild_partitions", status.rebuild.partitions as u64);
        gauge("rejoin_rebuild_objects", status.rebuild.objects);
        gauge("rejoin_rebuild_bytes", status.rebuild.bytes);
        gauge("rejoin_tree_leaves", status.leaves as u64);
        gauge("rejoin_tree_leaves_unknown", status.unknown_leaves as u64);
        let mut peers: BTreeMap<NodeId, Vec<&PairStatus>> = BTreeMap::new();
        for (_, peer, pair) in &status.pairs {
            peers.entry(*peer).or_default().push(pair);
        }
        for (peer, pairs) in peers {
            let label = || vec![Label::new("shard", shard.to_string()), Label::new("peer", name(peer))];
            let open = pairs.iter().filter(|pair| pair.differs || pair.equal_us.is_none()).count();
            let oldest_us = pairs.iter().filter_map(|pair| pair.equal_us).min();
            let age = oldest_us.map_or(0, |at_us| now_us.saturating_sub(at_us) / 1_000_000);
            self.gauge(Key::from_parts("rejoin_exchange_open", label()), open as u64);
            self.gauge(Key::from_parts("rejoin_exchange_age_seconds", label()), age);
            let sum = |of: fn(&WalkCounts) -> u64| pairs.iter().map(|pair| of(&pair.counts)).sum();
            for (metric, value) in [
                ("rejoin_exchange_sent_total", sum(|counts| counts.sent)),
                ("rejoin_exchange_received_total", sum(|counts| counts.received)),
                ("rejoin_exchange_sent_bytes_total", sum(|counts| counts.sent_bytes)),
                ("rejoin_exchange_received_bytes_total", sum(|counts| counts.received_bytes)),
            ] {
                self.recorder.register_counter(&Key::from_parts(metric, label()), &METADATA).absolute(value);
            }
        }
    }

    /// Sets the figures of the node as a whole.
    pub(crate) fn node(&self, report: &NodeReport) {
        let gauge = |name: &'static str, value: usize| self.gauge(Key::from_name(name), value as u64);
        gauge("rejoin_peers_connected", report.peers);
        gauge("rejoin_peers_queued_bytes", report.queued_bytes);
        gauge("rejoin_clients_connected", report.clients);
        gauge("rejoin_merges_waiting", report.merges_waiting);
        gauge("rejoin_plugins_ready", report.plugins_ready);
        gauge("rejoin_plugins_missing", report.plugins_missing);
        gauge("rejoin_plugins_quarantined", report.plugins_quarantined);
        gauge("rejoin_plugins_differing", report.plugins_differing);
        self.recorder.register_counter(&Key::from_name("rejoin_memo_hits_total"), &METADATA).absolute(report.memo_hits);
        self.recorder
            .register_counter(&Key::from_name("rejoin_memo_misses_total"), &METADATA)
            .absolute(report.memo_misses);
    }

    /// Sets what tenants use. Their labels are bounded by who makes them.
    pub(crate) fn tenants(&self, figures: &BTreeMap<String, TenantFigures>) {
        for (tenant, of) in figures {
            let label = || vec![Label::new("tenant", tenant.clone())];
            let TenantFigures { totals, stored, .. } = of;
            for (metric, value) in [
                ("rejoin_tenant_requests_total", totals.requests),
                ("rejoin_tenant_refused_total", totals.refused),
                ("rejoin_tenant_bytes_in_total", totals.bytes_in),
                ("rejoin_tenant_bytes_out_total", totals.bytes_out),
                ("rejoin_tenant_fuel_total", totals.fuel),
            ] {
                self.recorder.register_counter(&Key::from_parts(metric, label()), &METADATA).absolute(value);
            }
            for (metric, value) in [
                ("rejoin_tenant_in_flight", totals.in_flight),
                ("rejoin_tenant_connections", of.connections),
                ("rejoin_tenant_stored_objects", stored.live),
                ("rejoin_tenant_stored_bytes", stored.bytes),
                ("rejoin_tenant_soft_limits_reached", of.soft_reached),
                ("rejoin_tenant_hard_limits_reached", of.hard_reached),
            ] {
                self.gauge(Key::from_parts(metric, label()), value);
            }
        }
    }

    /// Sets what the node thinks of its peers, and what it has done to find out.
    pub(crate) fn members(&self, ([suspect, down], done): ([usize; 2], Counters)) {
        self.gauge(Key::from_name("rejoin_peers_suspect"), suspect as u64);
        self.gauge(Key::from_name("rejoin_peers_down"), down as u64);
        for (name, value) in [
            ("rejoin_member_datagrams_sent_total", done.datagrams_sent),
            ("rejoin_member_bytes_sent_total", done.bytes_sent),
            ("rejoin_member_datagrams_received_total", done.datagrams_received),
            ("rejoin_member_datagrams_rejected_total", done.datagrams_rejected),
            ("rejoin_member_suspicions_total", done.suspected),
            ("rejoin_member_downs_total", done.declared_down),
            ("rejoin_member_pauses_total", done.pauses),
        ] {
            self.recorder.register_counter(&Key::from_name(name), &METADATA).absolute(value);
        }
    }

    /// Sets when the certificates of the node and of its authority end, in seconds since 1970.
    pub(crate) fn certificates(&self, own: u64, authority: u64) {
        let label = |which: &'static str| vec![Label::new("which", which)];
        for (which, until) in [("node", own), ("authority", authority)] {
            self.gauge(Key::from_parts("rejoin_certificate_until_seconds", label(which)), until);
        }
    }

    /// Sets what is left to be encrypted with the key in use.
    pub(crate) fn encryption(&self, state: &EncryptionState) {
        for (name, value) in
            [("rejoin_encryption_tables_left", state.tables), ("rejoin_encryption_bytes_left", state.bytes)]
        {
            self.gauge(Key::from_name(name), value);
        }
    }

    fn gauge(&self, key: Key, value: u64) {
        let gauge: Gauge = self.recorder.register_gauge(&key, &METADATA);
        #[allow(clippy::cast_precision_loss)] // A gauge is a float; 2^53 is far away.
        gauge.set(value as f64);
    }

    /// Sorts the histograms' values into buckets. Without this a node that nobody scrapes would keep every single value
    /// in memory.
    pub(crate) fn upkeep(&self) {
        self.handle.run_upkeep();
    }

    /// All metrics as Prometheus text.
    pub(crate) fn render(&self) -> String {
        self.handle.render()
    }
}

/// What plugins do, of each bucket and plugin, as Prometheus text. Their labels are bounded by who makes them, and come
/// and go: the recorder of this text is its own, because a recorder keeps every label that it has met.
pub(crate) fn of_plugins(figures: &[(Option<BucketId>, Figures)]) -> String {
    let recorder = PrometheusBuilder::new().build_recorder();
    let total = |metric: &'static str, labels: Vec<Label>, value: u64| {
        recorder.register_counter(&Key::from_parts(metric, labels), &METADATA).absolute(value);
    };
    let gauge = |metric: &'static str, labels: Vec<Label>, value: u64| {
        let gauge: Gauge = recorder.register_gauge(&Key::from_parts(metric, labels), &METADATA);
        #[allow(clippy::cast_precision_loss)] // A gauge is a float; 2^53 is far away.
        gauge.set(value as f64);
    };
    for (bucket, of) in figures {
        let label = || {
            let id = bucket.map_or_else(|| of.bucket.clone(), |id| id.to_string());
            let labels = [("bucket", of.bucket.clone()), ("bucket_id", id), ("plugin", of.plugin.clone())];
            labels.map(|(name, value)| Label::new(name, value)).to_vec()
        };
        let and = |name: &'static str, value: &'static str| {
            let mut labels: Vec<Label> = label();
            labels.push(Label::new(name, value));
            labels
        };
        total("rejoin_plugin_merges_total", label(), of.merges);
        total("rejoin_plugin_memo_hits_total", label(), of.memo_hits);
        total("rejoin_plugin_siblings_in_total", label(), of.siblings_in);
        total("rejoin_plugin_siblings_out_total", label(), of.siblings_out);
        for (reason, count) in &of.faults {
            total("rejoin_plugin_faults_total", and("reason", reason), *count);
        }
        for (result, count) in &of.shadow {
            total("rejoin_plugin_shadow_total", and("result", result), *count);
        }
        for (quantile, permille) in [("0.5", 500), ("0.99", 990)] {
            if let Some(fuel) = of.fuel(permille) {
                gauge("rejoin_plugin_fuel", and("quantile", quantile), fuel);
            }
        }
        if of.fuel_limit > 0 {
            gauge("rejoin_plugin_fuel_limit", label(), of.fuel_limit);
        }
    }
    recorder.handle().render()
}
