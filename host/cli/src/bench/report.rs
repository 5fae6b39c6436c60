//! The report of a run, as tables or JSON.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Serialize;

use rejoin_client::admin::Durability;

use super::args::{Mode, Plan, RunLength};
use super::memory::Memory;
use super::record::{FailureClass, Latencies, Quantiles, Results, Row};
use super::watch::Counters;
use crate::failure::Failure;
use crate::output::Output;

/// The measured system.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum System {
    Cluster,
    Redis,
    /// Through its JSON gateway.
    Etcd,
}

/// At a fixed rate, operations that begin later than this are a sign that the generator cannot keep up: in one of a
/// hundred, more than a scheduler makes of a thread that is to wake.
const KEEPS_UP_US: u64 = 10_000;

/// All measurements of a run.
pub(crate) struct Measured {
    pub(crate) system: System,
    /// The bucket's; `None` for Redis and etcd, which have it in their configuration.
    pub(crate) durability: Option<Durability>,
    /// Processes that made the load.
    pub(crate) processes: u32,
    pub(crate) connections: u32,
    pub(crate) began: Instant,
    /// The same moment by the wall clock, in milliseconds since 1970.
    pub(crate) began_unix_ms: u64,
    pub(crate) recorded: Results,
    pub(crate) client_cpu: Duration,
    pub(crate) server_cpu: Option<Duration>,
    /// The nodes' counters for each second.
    pub(crate) counters: Option<Vec<Counters>>,
    /// The start and duration of each fdatasync.
    pub(crate) syncs: Option<Vec<(Instant, Duration)>>,
    /// Of each server process that is known.
    pub(crate) memory: Vec<Memory>,
    /// What the nodes of `--dev` have on the disk.
    pub(crate) disk_bytes: Option<u64>,
    /// From the start of a killed node until it served again.
    pub(crate) restarted: Option<Duration>,
}

/// The output of `--json`. Fields that end in `us` are microseconds. CPU time is user plus system.
#[derive(Serialize, Debug)]
pub(crate) struct Report {
    system: System,
    mode: Mode,
    durability: Option<&'static str>,
    processes: u32,
    clients: u32,
    connections: u32,
    value_bytes: usize,
    keys: u32,
    /// For mixed and conflict only.
    reads_percent: Option<u8>,
    /// Operations due per second; `None` without `--rate`.
    rate_wanted: Option<u32>,
    deadline_ms: Option<u64>,
    /// The end of the warm-up, by the wall clock, in milliseconds since 1970.
    began_unix_ms: u64,
    /// From the end of the warm-up to the last reply.
    seconds: f64,
    operations: u64,
    /// Successful operations per second.
    rate: f64,
    /// CPU time of all processes that made the load, per operation.
    client_cpu_us: f64,
    /// CPU time of the servers per operation; `None` if no process is known.
    server_cpu_us: Option<f64>,
    latency: Option<Quantiles>,
    read_latency: Option<Quantiles>,
    write_latency: Option<Quantiles>,
    /// Failed operations, by kind.
    errors: BTreeMap<String, u64>,
    /// Operations per second that were sent, of those that were due; `None` without `--rate`.
    offered: Option<f64>,
    /// Operations per second that succeeded within the deadline; `None` without `--deadline`.
    goodput: Option<f64>,
    /// Operations that succeeded after the deadline.
    late: Option<u64>,
    /// Operations of which the servers said that nothing was done, and how soon they said so.
    refused: u64,
    refused_latency: Option<Quantiles>,
    unknown: u64,
    timed_out: u64,
    /// Operations that were not sent, because the generator was too far behind.
    never_begun: u64,
    /// From when operations were due until they were sent; `None` without `--rate`.
    begin_delay: Option<Quantiles>,
    /// Whether the generator kept up with the rate; `None` without `--rate`.
    keeps_up: Option<bool>,
    /// The average number of siblings of a read.
    siblings_per_read: Option<f64>,
    reads_merged: Option<u64>,
    /// One fdatasync of 4 KiB on the servers' disk, during the run.
    fdatasync: Option<Quantiles>,
    /// The average sync of the journal, by the nodes' counters.
    journal_sync_us: Option<f64>,
    /// The resident memory of each server process.
    memory: Vec<Memory>,
    /// What the data of all nodes takes on the disk; `None` without `--dev`.
    disk_bytes: Option<u64>,
    /// `None` without `--restart`.
    restart_ms: Option<f64>,
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
        let Measured {
            system,
            durability,
            processes,
            connections,
            began,
            began_unix_ms,
            recorded,
            client_cpu,
            server_cpu,
            counters,
            syncs,
            memory,
            disk_bytes,
            restarted,
        } = measured;
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
        let of_class = |class: FailureClass| -> u64 {
            recorded.errors.iter().filter(|(kind, _)| FailureClass::of(kind) == class).map(|(_, count)| count).sum()
        };
        let [refused, unknown, timed_out, never_begun] =
            [FailureClass::Refused, FailureClass::Unknown, FailureClass::TimedOut, FailureClass::NeverBegun]
                .map(of_class);
        let failed: u64 = recorded.errors.values().sum();
        // Operations are due in that time; answers may come later.
        let due = plan.rate.map(|rate| match plan.length {
            RunLength::Time(time) => time.as_secs_f64(),
            RunLength::Operations(operations) => operations as f64 / f64::from(rate),
        });
        let sent = recorded.operations + failed - never_begun;
        let in_time = plan.deadline.map(|_| recorded.operations - recorded.late);
        let soon = recorded.delay.is_none_or(|delay| delay.p99_us <= KEEPS_UP_US);
        Self {
            system,
            mode: plan.mode,
            durability: durability.map(|durability| if durability == Durability::Fsync { "fsync" } else { "os" }),
            processes,
            clients: plan.clients,
            connections,
            value_bytes: plan.value_bytes,
            keys: plan.keys,
            reads_percent: matches!(plan.mode, Mode::Mixed | Mode::Conflict).then_some(plan.reads),
            rate_wanted: plan.rate,
            deadline_ms: plan.deadline.map(|deadline| u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX)),
            began_unix_ms,
            seconds,
            operations: recorded.operations,
            rate: operations / seconds,
            client_cpu_us: micros(client_cpu) / operations,
            server_cpu_us: server_cpu.map(|cpu| micros(cpu) / operations),
            latency: recorded.latency,
            read_latency: recorded.read_latency,
            write_latency: recorded.write_latency,
            offered: due.map(|due| sent as f64 / due),
            goodput: in_time.zip(due).map(|(in_time, due)| in_time as f64 / due),
            late: plan.deadline.map(|_| recorded.late),
            refused,
            refused_latency: recorded.refused_latency,
            unknown,
            timed_out,
            never_begun,
            begin_delay: recorded.delay,
            keeps_up: due.map(|_| never_begun == 0 && soon),
            errors: recorded.errors,
            siblings_per_read: (conflict && recorded.reads > 0)
                .then(|| recorded.siblings as f64 / recorded.reads as f64),
            reads_merged: conflict.then_some(recorded.merged),
            fdatasync: syncs.as_deref().and_then(quantiles),
            journal_sync_us: (done.syncs > 0).then(|| done.sync_us as f64 / done.syncs as f64),
            memory,
            disk_bytes,
            restart_ms: restarted.map(|took| took.as_secs_f64() * 1e3),
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
        let of = match (self.durability, self.system) {
            (Some(durability), _) => format!("durability {durability}"),
            (None, System::Etcd) => "etcd through its JSON gateway".to_owned(),
            (None, _) => "Redis".to_owned(),
        };
        let schedule =
            self.rate_wanted.map_or_else(|| "as fast as they go".to_owned(), |rate| format!("{rate} due a second"));
        let length = match plan.length {
            RunLength::Time(time) => format!("{} s", time.as_secs()),
            RunLength::Operations(operations) => format!("{operations} operations"),
        };
        let (clients, connections) = (self.clients, self.connections);
        let processes = if self.processes == 1 { String::new() } else { format!(" in {} processes", self.processes) };
        // A client of etcd asks one member only.
        let to = if self.system == System::Etcd { "" } else { " to each server" };
        let load = format!(
            "{clients} clients{processes}, {connections} connections{to}, {} bytes, {} keys",
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
        figures.extend(self.overload());
        if let (Some(siblings), Some(merged)) = (self.siblings_per_read, self.reads_merged) {
            figures.push((
                "siblings".to_owned(),
                format!("{siblings:.2} found by a read on average; {merged} reads merged by the plugin"),
            ));
        }
        figures.extend(self.fdatasync.map(|sync| ("fdatasync of 4 KiB beside it".to_owned(), sync.to_string())));
        figures.extend(
            self.journal_sync_us
                .map(|us| ("sync of the journal".to_owned(), format!("{} on average", time(us as u64)))),
        );
        figures
            .extend(self.memory.iter().map(|memory| (format!("memory of process {}", memory.pid), in_words(memory))));
        figures.extend(self.disk_bytes.map(|bytes| ("data on the disk".to_owned(), mebibytes(bytes))));
        let again =
            |ms: f64| ("restart of a killed node".to_owned(), format!("{} until it served", time((ms * 1e3) as u64)));
        figures.extend(self.restart_ms.map(again));
        figures.into_iter().map(|(name, value)| vec![name, value]).collect()
    }

    /// What became of the operations that were due at fixed times.
    fn overload(&self) -> Vec<(String, String)> {
        let mut figures = Vec::new();
        let mut figure = |name: &str, value: String| figures.push((name.to_owned(), value));
        if let (Some(goodput), Some(deadline), Some(late)) = (self.goodput, self.deadline_ms, self.late) {
            figure(
                "goodput",
                format!("{goodput:.0} a second within {deadline} ms of when they were due; {late} came later"),
            );
        }
        let latency = self.refused_latency.map_or_else(String::new, |latency| format!(": {latency}"));
        if self.refused > 0 {
            figure("refused", format!("{}{latency}", self.refused));
        }
        if self.unknown + self.timed_out > 0 {
            figure("without an answer", format!("{} unknown, {} timed out", self.unknown, self.timed_out));
        }
        if let (Some(offered), Some(false)) = (self.offered, self.keeps_up) {
            let delay = self.begin_delay.map_or(0, |delay| delay.p99_us);
            let what = format!(
                "cannot keep up: {offered:.0} a second were sent, {} operations were not, and 1 in 100 was sent more than \
                    {} after it was due. Give more --clients or --processes",
                self.never_begun,
                time(delay)
            );
            figure("the generator", what);
        }
        figures
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

fn in_words(memory: &Memory) -> String {
    let [before, top, after] = [memory.before_bytes, memory.top_bytes, memory.after_bytes].map(mebibytes);
    format!("{before} before, {top} at the top, {after} after")
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
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
            deadline: None,
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
            processes: 1,
            connections: 1,
            began,
            began_unix_ms: 7,
            recorded: recorder.finish(at(2_000)),
            client_cpu: Duration::from_micros(30),
            server_cpu: Some(Duration::from_millis(1)),
            counters: Some(vec![
                Counters { syncs: 2, sync_us: 100, ..Counters::default() },
                Counters { flushes: 1, merges: 1, ..Counters::default() },
            ]),
            syncs: Some(vec![(at(100), Duration::from_micros(150)), (at(1_100), Duration::from_millis(4))]),
            memory: vec![Memory { pid: 9, before_bytes: 1 << 20, top_bytes: 3 << 20, after_bytes: 2 << 20 }],
            disk_bytes: Some(1 << 19),
            restarted: Some(Duration::from_millis(1_500)),
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
    fn an_overload_is_told_apart_by_what_became_of_its_operations() {
        let (_, mut plan) = report();
        (plan.mode, plan.rate, plan.deadline) = (Mode::Put, Some(10), Some(Duration::from_millis(100)));
        plan.length = RunLength::Time(Duration::from_secs(1));
        let began = Instant::now();
        let at = |ms: u64| began + Duration::from_millis(ms);
        let mut recorder = Recorder::new(began).with_deadline(plan.deadline);
        let done = || Outcome::Done { siblings: 0, merged: false };
        (0..4).for_each(|number| recorder.add(Kind::Write, at(number * 100), at(number * 100 + 50), done()));
        recorder.add(Kind::Write, at(400), at(501), done());
        for how in ["Overloaded", "Overloaded", "Unknown", "TimedOut", "NeverBegun"] {
            recorder.add(Kind::Write, at(500), at(502), Outcome::Failed(how.into()));
        }
        (0..9).for_each(|_| recorder.begun(Duration::from_millis(1)));
        let measured = Measured {
            system: System::Etcd,
            durability: None,
            processes: 2,
            connections: 3,
            began,
            began_unix_ms: 7,
            recorded: recorder.finish(at(1_100)),
            client_cpu: Duration::ZERO,
            server_cpu: None,
            counters: None,
            syncs: None,
            memory: Vec::new(),
            disk_bytes: None,
            restarted: None,
        };
        let report = Report::new(&plan, measured);
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!((&json["system"], &json["deadline_ms"]), (&"etcd".into(), &100.into()));
        assert_eq!((json["offered"].as_f64(), json["goodput"].as_f64()), (Some(9.0), Some(4.0)));
        let counts =
            ["late", "refused", "unknown", "timed_out", "never_begun"].map(|name| json[name].as_u64().unwrap());
        assert_eq!(counts, [1, 2, 1, 1, 1]);
        assert!(json["refused_latency"]["p99_us"].as_u64().unwrap() >= 2_000, "{json}");
        assert_eq!(json["keeps_up"], false, "one was never begun");
        let told = format!("{:?}", report.figures());
        for words in
            ["4 a second within 100 ms", "1 came later", "1 unknown, 1 timed out", "cannot keep up: 9 a second"]
        {
            assert!(told.contains(words), "{words}: {told}");
        }
        assert!(report.title(&plan).starts_with("put, etcd through its JSON gateway: 3 clients in 2 processes"));
    }

    #[test]
    fn memory_disk_and_restarts_are_told() {
        let (report, _) = report();
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!((&json["memory"][0]["top_bytes"], &json["disk_bytes"]), (&3_145_728.into(), &524_288.into()));
        assert_eq!((json["restart_ms"].as_f64(), &json["goodput"]), (Some(1_500.0), &serde_json::Value::Null));
        let told = format!("{:?}", report.figures());
        for words in ["1.0 MiB before, 3.0 MiB at the top, 2.0 MiB after", "0.5 MiB", "1.50 s until it served"] {
            assert!(told.contains(words), "{words}: {told}");
        }
    }

    #[test]
    fn times_are_short() {
        assert_eq!([999, 1_000, 20_500, 3_000_000].map(time), ["999 µs", "1.00 ms", "20.50 ms", "3.00 s"]);
    }
}
