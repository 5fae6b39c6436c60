//! The report of a run, as tables or JSON.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Serialize;

use rejoin_client::admin::Durability;

use super::args::{Mode, Plan, RunLength};
use super::record::{Latencies, Quantiles, Results, Row};
use super::watch::Counters;
use crate::failure::Failure;
use crate::output::Output;

/// The measured system.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum System {
    Cluster,
    Redis,
}

/// All measurements of a run.
pub(crate) struct Measured {
    pub(crate) system: System,
    /// The bucket's; `None` for Redis, which has it in its configuration.
    pub(crate) durability: Option<Durability>,
    pub(crate) connections: u32,
    pub(crate) began: Instant,
    pub(crate) recorded: Results,
    pub(crate) client_cpu: Duration,
    pub(crate) server_cpu: Option<Duration>,
    /// The nodes' counters for each second.
    pub(crate) counters: Option<Vec<Counters>>,
    /// The start and duration of each fdatasync.
    pub(crate) syncs: Option<Vec<(Instant, Duration)>>,
}

/// The output of `--json`. Fields that end in `us` are microseconds. CPU time is user plus system.
#[derive(Serialize, Debug)]
pub(crate) struct Report {
    system: System,
    mode: Mode,
    durability: Option<&'static str>,
    clients: u32,
    connections: u32,
    value_bytes: usize,
    keys: u32,
    /// For mixed and conflict only.
    reads_percent: Option<u8>,
    /// Operations due per second; `None` without `--rate`.
    rate_wanted: Option<u32>,
    /// From the end of the warm-up to the last reply.
    seconds: f64,
    operations: u64,
    /// Successful operations per second.
    rate: f64,
    /// CPU time of this process per operation.
    client_cpu_us: f64,
    /// CPU time of the servers per operation; `None` if no process is known.
    server_cpu_us: Option<f64>,
    latency: Option<Quantiles>,
    read_latency: Option<Quantiles>,
    write_latency: Option<Quantiles>,
    /// Failed operations, by kind.
    errors: BTreeMap<String, u64>,
    /// The average number of siblings of a read.
    siblings_per_read: Option<f64>,
    reads_merged: Option<u64>,
    /// One fdatasync of 4 KiB on the servers' disk, during the run.
    fdatasync: Option<Quantiles>,
    /// The average sync of journal and mark, by the nodes' counters.
    journal_sync_us: Option<f64>,
    rows: Vec<Second>,
}

/// One second of a run. Fields that were not measured are omitted.
#[derive(Serialize, Debug)]
struct Second {
    second: u64,
    operations: u64,
    errors: u64,
    p50_us: u64,
    p99_us: u64,
    max_us: u64,
    #[serde(flatten)]
    counters: Option<SecondCounters>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fdatasync_max_us: Option<u64>,
}

#[derive(Clone, Copy, Serialize, Debug)]
struct SecondCounters {
    flushes: u64,
    compactions: u64,
    merges: u64,
    folds: u64,
}

impl Report {
    pub(crate) fn new(plan: &Plan, measured: Measured) -> Self {
        let Measured { system, durability, connections, began, recorded, client_cpu, server_cpu, counters, syncs } =
            measured;
        let syncs: Option<Vec<(Duration, Duration)>> = syncs.map(|all| {
            all.into_iter().filter_map(|(at, took)| Some((at.checked_duration_since(began)?, took))).collect()
        });
        let operations = recorded.operations as f64;
        let seconds = recorded.took.as_secs_f64();
        let conflict = plan.mode == Mode::Conflict;
        let done = counters.iter().flatten().fold(Counters::default(), |mut sum, counters| {
            sum += *counters;
            sum
        });
        Self {
            system,
            mode: plan.mode,
            durability: durability.map(|durability| if durability == Durability::Fsync { "fsync" } else { "os" }),
            clients: plan.clients,
            connections,
            value_bytes: plan.value_bytes,
            keys: plan.keys,
            reads_percent: matches!(plan.mode, Mode::Mixed | Mode::Conflict).then_some(plan.reads),
            rate_wanted: plan.rate,
            seconds,
            operations: recorded.operations,
            rate: operations / seconds,
            client_cpu_us: micros(client_cpu) / operations,
            server_cpu_us: server_cpu.map(|cpu| micros(cpu) / operations),
            latency: recorded.latency,
            read_latency: recorded.read_latency,
            write_latency: recorded.write_latency,
            errors: recorded.errors,
            siblings_per_read: (conflict && recorded.reads > 0)
                .then(|| recorded.siblings as f64 / recorded.reads as f64),
            reads_merged: conflict.then_some(recorded.merged),
            fdatasync: syncs.as_deref().and_then(quantiles),
            journal_sync_us: (done.syncs > 0).then(|| done.sync_us as f64 / done.syncs as f64),
            rows: recorded.rows.iter().map(|row| second(row, counters.as_deref(), syncs.as_deref())).collect(),
        }
    }

    /// Prints it.
    ///
    /// # Errors
    /// stdout cannot be written.
    pub(crate) fn print(&self, out: Output, plan: &Plan) -> Result<(), Failure> {
        if out.json {
            return out.json(self);
        }
        out.line(out.bold(&self.title(plan)))?;
        out.table(&["figure", "value"], self.figures())?;
        out.line("")?;
        out.table(
            &["second", "rate", "errors", "p50", "p99", "max", "fdatasync", "in that second"],
            self.rows.iter().map(Second::cells).collect(),
        )
    }

    fn title(&self, plan: &Plan) -> String {
        let mode = format!("{:?}", self.mode).to_lowercase();
        let of = self.durability.map_or_else(|| "Redis".to_owned(), |durability| format!("durability {durability}"));
        let schedule =
            self.rate_wanted.map_or_else(|| "as fast as they go".to_owned(), |rate| format!("{rate} due a second"));
        let length = match plan.length {
            RunLength::Time(time) => format!("{} s", time.as_secs()),
            RunLength::Operations(operations) => format!("{operations} operations"),
        };
        let (clients, connections) = (self.clients, self.connections);
        let load = format!(
            "{clients} clients, {connections} connections to each server, {} bytes, {} keys",
            self.value_bytes, self.keys
        );
        format!("{mode}, {of}: {load}, {schedule}, {length}")
    }

    fn figures(&self) -> Vec<Vec<String>> {
        let mut figures = vec![
            (
                "rate".to_owned(),
                format!("{:.0} operations a second ({} in {:.1} s)", self.rate, self.operations, self.seconds),
            ),
            ("CPU per operation".to_owned(), self.cpu()),
        ];
        for (name, latency) in [
            ("latency", self.latency),
            ("latency of reads", self.read_latency),
            ("latency of writes", self.write_latency),
        ] {
            // With one kind only, its latency equals that of all operations.
            let alone = name != "latency" && (self.read_latency.is_none() || self.write_latency.is_none());
            figures.extend(latency.filter(|_| !alone).map(|latency| (name.to_owned(), latency.to_string())));
        }
        let errors: Vec<String> = self.errors.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        figures.push(("errors".to_owned(), if errors.is_empty() { "none".to_owned() } else { errors.join(", ") }));
        if let (Some(siblings), Some(merged)) = (self.siblings_per_read, self.reads_merged) {
            figures.push((
                "siblings".to_owned(),
                format!("{siblings:.2} found by a read on average; {merged} reads merged by the plugin"),
            ));
        }
        figures.extend(self.fdatasync.map(|sync| ("fdatasync of 4 KiB beside it".to_owned(), sync.to_string())));
        figures.extend(
            self.journal_sync_us
                .map(|us| ("sync of journal and mark".to_owned(), format!("{} on average", time(us as u64)))),
        );
        figures.into_iter().map(|(name, value)| vec![name, value]).collect()
    }

    fn cpu(&self) -> String {
        let servers = match self.server_cpu_us {
            Some(us) => format!("{us:.1} µs of all servers together (by /proc/PID/stat)"),
            None => "servers not measured (--pid names their processes)".to_owned(),
        };
        format!("{:.1} µs of the clients, {servers}", self.client_cpu_us)
    }
}

impl Second {
    fn cells(&self) -> Vec<String> {
        let mut cells = vec![self.second.to_string(), self.operations.to_string(), self.errors.to_string()];
        cells.extend([self.p50_us, self.p99_us, self.max_us].map(time));
        cells.push(self.fdatasync_max_us.map_or_else(|| "-".to_owned(), time));
        cells.push(self.counters.map_or_else(String::new, |counters| counters.to_string()));
        cells
    }
}

impl std::fmt::Display for SecondCounters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let named = [
            ("flushes", self.flushes),
            ("compactions", self.compactions),
            ("merges", self.merges),
            ("folds", self.folds),
        ];
        let some: Vec<String> =
            named.iter().filter(|(_, count)| *count > 0).map(|(name, count)| format!("{count} {name}")).collect();
        f.write_str(&some.join(", "))
    }
}

impl std::fmt::Display for Quantiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [p50, p99, p999, max] = [self.p50_us, self.p99_us, self.p999_us, self.max_us].map(time);
        write!(f, "p50 {p50}, p99 {p99}, p99.9 {p999}, max {max}")
    }
}

fn second(row: &Row, counters: Option<&[Counters]>, syncs: Option<&[(Duration, Duration)]>) -> Second {
    let at = usize::try_from(row.second).unwrap_or(usize::MAX);
    let counters = counters.and_then(|counters| counters.get(at));
    let counters = counters.map(|m| SecondCounters {
        flushes: m.flushes,
        compactions: m.compactions,
        merges: m.merges,
        folds: m.folds,
    });
    let longest = syncs.into_iter().flatten().filter(|(at, _)| at.as_secs() == row.second).map(|(_, took)| *took).max();
    Second {
        second: row.second,
        operations: row.operations,
        errors: row.errors,
        p50_us: row.p50_us,
        p99_us: row.p99_us,
        max_us: row.max_us,
        counters,
        fdatasync_max_us: longest.map(|took| u64::try_from(took.as_micros()).unwrap_or(u64::MAX)),
    }
}

fn quantiles(syncs: &[(Duration, Duration)]) -> Option<Quantiles> {
    let mut latencies = Latencies::new();
    syncs.iter().for_each(|(_, took)| latencies.add(*took));
    latencies.quantiles()
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// Microseconds in a readable unit.
fn time(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} µs"),
        1_000..1_000_000 => format!("{:.2} ms", us as f64 / 1e3),
        _ => format!("{:.2} s", us as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::record::{Kind, Outcome, Recorder};

    fn report() -> (Report, Plan) {
        let plan = Plan {
            mode: Mode::Conflict,
            rate: Some(2),
            clients: 3,
            value_bytes: 4,
            keys: 5,
            reads: 60,
            length: RunLength::Operations(2),
            warm_up: Duration::ZERO,
            timeout: Duration::from_secs(5),
            prefix: String::new(),
        };
        let began = Instant::now();
        let at = |ms: u64| began + Duration::from_millis(ms);
        let mut recorder = Recorder::new(began);
        recorder.add(Kind::Read, at(0), at(10), Outcome::Done { siblings: 3, merged: true });
        recorder.add(Kind::Write, at(1_000), at(1_500), Outcome::Done { siblings: 0, merged: false });
        let measured = Measured {
            system: System::Cluster,
            durability: Some(Durability::Os),
            connections: 1,
            began,
            recorded: recorder.finish(at(2_000)),
            client_cpu: Duration::from_micros(30),
            server_cpu: Some(Duration::from_millis(1)),
            counters: Some(vec![
                Counters { syncs: 2, sync_us: 100, ..Counters::default() },
                Counters { flushes: 1, merges: 1, ..Counters::default() },
            ]),
            syncs: Some(vec![(at(100), Duration::from_micros(150)), (at(1_100), Duration::from_millis(4))]),
        };
        (Report::new(&plan, measured), plan)
    }

    #[test]
    fn cpu_is_divided_by_operations_and_marks_stand_in_their_seconds() {
        let (report, plan) = report();
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!((json["operations"].as_u64(), json["rate"].as_f64()), (Some(2), Some(1.0)));
        assert_eq!((json["client_cpu_us"].as_f64(), json["server_cpu_us"].as_f64()), (Some(15.0), Some(500.0)));
        assert_eq!((json["journal_sync_us"].as_f64(), json["siblings_per_read"].as_f64()), (Some(50.0), Some(3.0)));
        assert_eq!(
            (&json["durability"], &json["reads_merged"], &json["mode"]),
            (&"os".into(), &1.into(), &"conflict".into())
        );
        let rows = json["rows"].as_array().unwrap();
        assert_eq!((&rows[0]["flushes"], &rows[1]["flushes"], &rows[1]["merges"]), (&0.into(), &1.into(), &1.into()));
        assert_eq!((&rows[0]["fdatasync_max_us"], &rows[1]["fdatasync_max_us"]), (&150.into(), &4000.into()));
        assert_eq!(report.rows[1].cells().last().unwrap(), "1 flushes, 1 merges");
        assert!(
            report.title(&plan).contains("3 clients") && report.title(&plan).contains("2 due a second, 2 operations")
        );
    }

    #[test]
    fn times_are_short() {
        assert_eq!([999, 1_000, 20_500, 3_000_000].map(time), ["999 µs", "1.00 ms", "20.50 ms", "3.00 s"]);
    }
}
