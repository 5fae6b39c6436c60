//! Records operations, for each second and in total.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// The longest recorded latency, in microseconds. Longer ones count as this.
const LONGEST_US: u64 = 120_000_000;

/// The kind of an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Read,
    Write,
}

/// The outcome of an operation.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    /// Success. For a read: the number of siblings, and whether a plugin merged them.
    Done { siblings: u64, merged: bool },
    /// Failure, with the kind of the error.
    Failed(String),
}

/// The kind of the failure of an operation that was not sent: its generator was too far behind.
pub(crate) const NEVER_BEGUN: &str = "NeverBegun";

/// What the kind of a failure says of the operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FailureClass {
    /// The servers have answered that nothing was done.
    Refused,
    /// The outcome of a write is not known.
    Unknown,
    /// No answer came in time.
    TimedOut,
    /// It was not sent.
    NeverBegun,
    /// Anything else, such as a broken connection.
    Other,
}

impl FailureClass {
    /// The class of a kind of error: of the SDK, of Redis, or of etcd.
    pub(crate) fn of(kind: &str) -> Self {
        match kind {
            "Overloaded" | "QuotaExceeded" | "DiskFull" | "NotServing" | "Stopping" | "StaleLayout" | "Unavailable"
            | "ResourceExhausted" | "OOM" | "LOADING" | "BUSY" | "MISCONF" | "NOREPLICAS" | "READONLY" => Self::Refused,
            "Unknown" => Self::Unknown,
            "TimedOut" | "DeadlineExceeded" => Self::TimedOut,
            NEVER_BEGUN => Self::NeverBegun,
            _ => Self::Other,
        }
    }
}

/// How often each latency occurred, as microseconds and count: a histogram that another process can add to its own.
pub(crate) type Counts = Vec<(u64, u64)>;

/// Quantiles of a latency, in microseconds.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub(crate) struct Quantiles {
    pub(crate) p50_us: u64,
    pub(crate) p99_us: u64,
    pub(crate) p999_us: u64,
    pub(crate) max_us: u64,
}

/// One second of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Row {
    /// From 0.
    pub(crate) second: u64,
    pub(crate) operations: u64,
    pub(crate) errors: u64,
    pub(crate) p50_us: u64,
    pub(crate) p99_us: u64,
    pub(crate) max_us: u64,
}

/// Latencies by HDR histogram, three significant digits.
pub(crate) struct Latencies(Histogram<u64>);

impl Latencies {
    pub(crate) fn new() -> Self {
        Self(Histogram::new_with_bounds(1, LONGEST_US, 3).expect("these bounds are sound"))
    }

    pub(crate) fn add(&mut self, latency: Duration) {
        self.0.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(LONGEST_US).clamp(1, LONGEST_US));
    }

    /// All that was recorded.
    pub(crate) fn counts(&self) -> Counts {
        self.0.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value())).collect()
    }

    /// Adds what another histogram has recorded. Quantiles are then those of both together, exactly: equal bounds put a
    /// latency into the same bucket.
    pub(crate) fn add_counts(&mut self, counts: &[(u64, u64)]) {
        for (us, count) in counts {
            self.0.saturating_record_n((*us).clamp(1, LONGEST_US), *count);
        }
    }

    /// `None` if nothing was recorded.
    pub(crate) fn quantiles(&self) -> Option<Quantiles> {
        let at = |quantile| self.0.value_at_quantile(quantile);
        (!self.0.is_empty()).then(|| Quantiles {
            p50_us: at(0.5),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: self.0.max(),
        })
    }
}

/// Collects the operations that count.
pub(crate) struct Recorder {
    began: Instant,
    /// How long after it was due an answer is in time.
    deadline: Option<Duration>,
    all: Totals,
    now: Latencies,
    row: Row,
    rows: Vec<Row>,
    /// The latencies of each row, where they are handed over.
    kept: Option<Vec<Counts>>,
}

/// What is summed up over the whole run, of one process or of several.
struct Totals {
    reads: Latencies,
    writes: Latencies,
    /// Of what was refused, from when it was due.
    refused: Latencies,
    /// From when an operation was due until it was begun.
    delays: Latencies,
    errors: BTreeMap<String, u64>,
    /// Answered after the deadline.
    late: u64,
    siblings: u64,
    merged: u64,
}

impl Totals {
    fn new() -> Self {
        Self {
            reads: Latencies::new(),
            writes: Latencies::new(),
            refused: Latencies::new(),
            delays: Latencies::new(),
            errors: BTreeMap::new(),
            late: 0,
            siblings: 0,
            merged: 0,
        }
    }

    fn results(self, took: Duration, rows: Vec<Row>) -> Results {
        let mut all = self.reads.0.clone();
        all.add(&self.writes.0).expect("both have the same bounds");
        Results {
            took,
            operations: all.len(),
            reads: self.reads.0.len(),
            siblings: self.siblings,
            merged: self.merged,
            read_latency: self.reads.quantiles(),
            write_latency: self.writes.quantiles(),
            latency: Latencies(all).quantiles(),
            refused_latency: self.refused.quantiles(),
            delay: self.delays.quantiles(),
            late: self.late,
            errors: self.errors,
            rows,
        }
    }
}

impl Recorder {
    /// Seconds are counted from `began`.
    pub(crate) fn new(began: Instant) -> Self {
        Self {
            began,
            deadline: None,
            all: Totals::new(),
            now: Latencies::new(),
            row: empty_row(0),
            rows: Vec::new(),
            kept: None,
        }
    }

    /// Counts answers that come later than that after their operation was due.
    pub(crate) fn with_deadline(mut self, deadline: Option<Duration>) -> Self {
        self.deadline = deadline;
        self
    }

    /// Keeps the latencies of each second, for [`Recorder::share`].
    pub(crate) fn keeping(mut self) -> Self {
        self.kept = Some(Vec::new());
        self
    }

    /// Adds an operation that was due at `due` and ended at `ended`. Failed ones are not among the latencies, since
    /// refusals are fast; those of refusals are kept apart.
    pub(crate) fn add(&mut self, kind: Kind, due: Instant, ended: Instant, outcome: Outcome) {
        self.go_to(ended);
        let latency = ended.saturating_duration_since(due);
        match outcome {
            Outcome::Done { siblings, merged } => {
                match kind {
                    Kind::Read => self.all.reads.add(latency),
                    Kind::Write => self.all.writes.add(latency),
                }
                self.now.add(latency);
                self.row.operations += 1;
                self.all.late += u64::from(self.deadline.is_some_and(|deadline| latency > deadline));
                self.all.siblings += siblings;
                self.all.merged += u64::from(merged);
            }
            Outcome::Failed(how) => {
                if FailureClass::of(&how) == FailureClass::Refused {
                    self.all.refused.add(latency);
                }
                *self.all.errors.entry(how).or_default() += 1;
                self.row.errors += 1;
            }
        }
    }

    /// Adds how long after it was due an operation was begun.
    pub(crate) fn begun(&mut self, delay: Duration) {
        self.all.delays.add(delay);
    }

    /// Ends the rows of all seconds before that moment. A moment in a second that has ended already counts in the
    /// current one: clients do not report in order.
    fn go_to(&mut self, moment: Instant) {
        let second = moment.saturating_duration_since(self.began).as_secs();
        while self.row.second < second {
            self.end_row();
        }
    }

    fn end_row(&mut self) {
        let quantiles = self.now.quantiles();
        let row =
            quantiles.map_or(self.row, |q| Row { p50_us: q.p50_us, p99_us: q.p99_us, max_us: q.max_us, ..self.row });
        if let Some(kept) = &mut self.kept {
            kept.push(self.now.counts());
        }
        self.rows.push(row);
        self.row = empty_row(row.second + 1);
        self.now.0.reset();
    }

    /// The start of the first second.
    pub(crate) fn began(&self) -> Instant {
        self.began
    }

    /// The results. The last row may be a part of a second.
    pub(crate) fn finish(mut self, ended: Instant) -> Results {
        self.end(ended);
        self.all.results(ended.saturating_duration_since(self.began), self.rows)
    }

    fn end(&mut self, ended: Instant) {
        self.go_to(ended);
        if self.row.operations + self.row.errors > 0 {
            self.end_row();
        }
    }

    /// What another process needs to add this to its own.
    pub(crate) fn share(mut self, ended: Instant, client_cpu: Duration) -> Share {
        self.end(ended);
        let kept = self.kept.unwrap_or_default();
        let second = |(row, latencies): (&Row, Counts)| ShareSecond {
            operations: row.operations,
            errors: row.errors,
            latencies,
        };
        Share {
            took_us: micros(ended.saturating_duration_since(self.began)),
            client_cpu_us: micros(client_cpu),
            reads: self.all.reads.counts(),
            writes: self.all.writes.counts(),
            refused: self.all.refused.counts(),
            delays: self.all.delays.counts(),
            errors: self.all.errors,
            late: self.all.late,
            siblings: self.all.siblings,
            merged: self.all.merged,
            seconds: self.rows.iter().zip(kept).map(second).collect(),
        }
    }
}

/// What one generator process has recorded, as it hands it to the process that started it.
#[derive(Serialize, Deserialize, Default, Debug)]
pub(crate) struct Share {
    took_us: u64,
    client_cpu_us: u64,
    reads: Counts,
    writes: Counts,
    refused: Counts,
    delays: Counts,
    errors: BTreeMap<String, u64>,
    late: u64,
    siblings: u64,
    merged: u64,
    seconds: Vec<ShareSecond>,
}

#[derive(Serialize, Deserialize, Debug)]
struct ShareSecond {
    operations: u64,
    errors: u64,
    latencies: Counts,
}

impl Share {
    /// The results of all processes together, and the CPU time of all. The run took as long as the longest.
    pub(crate) fn merged(shares: &[Self]) -> (Results, Duration) {
        let mut all = Totals::new();
        for share in shares {
            all.reads.add_counts(&share.reads);
            all.writes.add_counts(&share.writes);
            all.refused.add_counts(&share.refused);
            all.delays.add_counts(&share.delays);
            share.errors.iter().for_each(|(kind, count)| *all.errors.entry(kind.clone()).or_default() += count);
            all.late += share.late;
            all.siblings += share.siblings;
            all.merged += share.merged;
        }
        let seconds = shares.iter().map(|share| share.seconds.len()).max().unwrap_or(0);
        let rows = (0..seconds).map(|second| merged_row(shares, second)).collect();
        let took = shares.iter().map(|share| share.took_us).max().unwrap_or(0);
        let cpu = shares.iter().map(|share| share.client_cpu_us).sum();
        (all.results(Duration::from_micros(took), rows), Duration::from_micros(cpu))
    }
}

fn merged_row(shares: &[Share], second: usize) -> Row {
    let mut row = empty_row(second as u64);
    let mut latencies = Latencies::new();
    for share in shares.iter().filter_map(|share| share.seconds.get(second)) {
        row.operations += share.operations;
        row.errors += share.errors;
        latencies.add_counts(&share.latencies);
    }
    let quantiles = latencies.quantiles();
    quantiles.map_or(row, |q| Row { p50_us: q.p50_us, p99_us: q.p99_us, max_us: q.max_us, ..row })
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// The results of a run.
pub(crate) struct Results {
    /// From the start of the measurement to the end of the last operation.
    pub(crate) took: Duration,
    /// Successful operations.
    pub(crate) operations: u64,
    pub(crate) reads: u64,
    /// Siblings found by all reads together.
    pub(crate) siblings: u64,
    /// Reads whose value a plugin merged.
    pub(crate) merged: u64,
    pub(crate) latency: Option<Quantiles>,
    pub(crate) read_latency: Option<Quantiles>,
    pub(crate) write_latency: Option<Quantiles>,
    /// Of what the servers have refused.
    pub(crate) refused_latency: Option<Quantiles>,
    /// From when operations were due until they were begun; `None` if none was due at a fixed time.
    pub(crate) delay: Option<Quantiles>,
    /// Successful operations that ended after the deadline.
    pub(crate) late: u64,
    /// Failed operations, by kind.
    pub(crate) errors: BTreeMap<String, u64>,
    pub(crate) rows: Vec<Row>,
}

fn empty_row(second: u64) -> Row {
    Row { second, operations: 0, errors: 0, p50_us: 0, p99_us: 0, max_us: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DONE: Outcome = Outcome::Done { siblings: 1, merged: false };

    #[test]
    fn latency_counts_from_when_an_operation_was_due() {
        let began = Instant::now();
        let at = |ms: u64| began + Duration::from_millis(ms);
        let mut recorder = Recorder::new(began);
        recorder.add(Kind::Write, at(0), at(900), DONE);
        recorder.add(Kind::Read, at(899), at(901), Outcome::Done { siblings: 3, merged: true });
        let recorded = recorder.finish(at(1_000));
        let longest = |latency: Option<Quantiles>| latency.unwrap().max_us;
        let [reads, writes, all] = [recorded.read_latency, recorded.write_latency, recorded.latency].map(longest);
        assert!(reads <= 2_002 && writes >= 899_000 && all == writes, "{reads} {writes} {all}");
        assert_eq!((recorded.operations, recorded.reads, recorded.siblings, recorded.merged), (2, 1, 4, 1));
    }

    #[test]
    fn every_second_has_a_row_also_one_in_which_nothing_ended() {
        let began = Instant::now();
        let at = |ms: u64| began + Duration::from_millis(ms);
        let mut recorder = Recorder::new(began);
        recorder.add(Kind::Write, at(0), at(10), DONE);
        recorder.add(Kind::Write, at(10), at(2_500), DONE);
        recorder.add(Kind::Write, at(10), at(2_400), Outcome::Failed("Overloaded".into()));
        let Results { rows, operations, errors, took, .. } = recorder.finish(at(2_600));
        assert_eq!(
            rows.iter().map(|row| (row.second, row.operations, row.errors)).collect::<Vec<_>>(),
            [(0, 1, 0), (1, 0, 0), (2, 1, 1)]
        );
        assert_eq!((rows[1].max_us, rows[1].p50_us), (0, 0));
        assert!(rows[2].max_us >= 2_489_000 && rows[0].max_us < 10_100, "a row has the latencies of its own second");
        assert_eq!(
            (operations, errors["Overloaded"], took),
            (1 + 1, 1, Duration::from_millis(2_600)),
            "a failure is no operation"
        );
    }

    #[test]
    fn refusals_late_answers_and_late_starts_are_kept_apart() {
        let began = Instant::now();
        let at = |ms: u64| began + Duration::from_millis(ms);
        let mut recorder = Recorder::new(began).with_deadline(Some(Duration::from_millis(100)));
        recorder.add(Kind::Write, at(0), at(100), DONE);
        recorder.add(Kind::Write, at(0), at(101), DONE);
        recorder.add(Kind::Write, at(100), at(102), Outcome::Failed("Overloaded".into()));
        recorder.add(Kind::Write, at(0), at(900), Outcome::Failed("TimedOut".into()));
        recorder.begun(Duration::from_millis(7));
        let results = recorder.finish(at(1_000));
        assert_eq!((results.operations, results.late), (2, 1), "what comes at the deadline is in time");
        let refused = results.refused_latency.unwrap();
        assert!(refused.max_us >= 2_000 && refused.max_us < 2_010, "{refused:?}: a time-out is no refusal");
        assert!(results.delay.unwrap().p50_us >= 7_000);
    }

    #[test]
    fn shares_of_several_processes_merge_to_what_one_would_have_recorded() {
        let began = Instant::now();
        let at = |ms: u64| began + Duration::from_millis(ms);
        let deadline = Some(Duration::from_millis(50));
        let mut whole = Recorder::new(began).with_deadline(deadline);
        let mut parts = [(); 2].map(|()| Recorder::new(began).with_deadline(deadline).keeping());
        // One part has nothing to say of the third second.
        for number in 0..1_500_u64 {
            let took = Duration::from_micros(100 + number * 61 % 70_000);
            // They end in the order in which they are reported, so that no row depends on who reports.
            let ended = at(number + 100);
            let due = ended - took;
            let kind = if number % 3 == 0 { Kind::Read } else { Kind::Write };
            let outcome = match number % 50 {
                0 => Outcome::Failed("Overloaded".into()),
                1 => Outcome::Failed("Unknown".into()),
                _ => Outcome::Done { siblings: number % 2, merged: number % 4 == 0 },
            };
            whole.add(kind, due, ended, outcome.clone());
            whole.begun(took / 9);
            let part = &mut parts[usize::from(number % 5 == 0)];
            part.add(kind, due, ended, outcome);
            part.begun(took / 9);
        }
        let latest = at(2_600);
        whole.add(Kind::Read, at(2_500), latest, DONE);
        parts[0].add(Kind::Read, at(2_500), latest, DONE);
        let cpu = Duration::from_millis(3);
        let shares = parts.map(|part| {
            let text = serde_json::to_string(&part.share(latest, cpu)).unwrap();
            serde_json::from_str::<Share>(&text).unwrap()
        });
        let (merged, merged_cpu) = Share::merged(&shares);
        let whole = whole.finish(latest);
        assert_eq!((merged.took, merged_cpu), (whole.took, cpu * 2));
        assert_eq!((merged.operations, merged.reads, merged.late), (whole.operations, whole.reads, whole.late));
        assert!(merged.late > 0 && merged.siblings > 0);
        assert_eq!((merged.siblings, merged.merged, &merged.errors), (whole.siblings, whole.merged, &whole.errors));
        assert_eq!(
            (merged.latency, merged.read_latency, merged.write_latency, merged.refused_latency, merged.delay),
            (whole.latency, whole.read_latency, whole.write_latency, whole.refused_latency, whole.delay)
        );
        assert_eq!(merged.rows, whole.rows);
        assert_eq!(merged.rows.len(), 3);
        assert_eq!(Share::merged(&[]).0.operations, 0);
    }

    #[test]
    fn failures_have_a_class() {
        use FailureClass::{NeverBegun, Other, Refused, TimedOut, Unknown};
        let of = ["Overloaded", "Unknown", "TimedOut", NEVER_BEGUN, "Missing", "OOM", "MISCONF"].map(FailureClass::of);
        assert_eq!(of, [Refused, Unknown, TimedOut, NeverBegun, Other, Refused, Refused]);
    }
}
