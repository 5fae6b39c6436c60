//! Records operations, for each second and in total.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;

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
    reads: Latencies,
    writes: Latencies,
    now: Latencies,
    row: Row,
    rows: Vec<Row>,
    errors: BTreeMap<String, u64>,
    siblings: u64,
    merged: u64,
}

impl Recorder {
    /// Seconds are counted from `began`.
    pub(crate) fn new(began: Instant) -> Self {
        Self {
            began,
            reads: Latencies::new(),
            writes: Latencies::new(),
            now: Latencies::new(),
            row: empty_row(0),
            rows: Vec::new(),
            errors: BTreeMap::new(),
            siblings: 0,
            merged: 0,
        }
    }

    /// Adds an operation that was due at `due` and ended at `ended`. Failed ones are counted without a latency, since
    /// refusals are fast.
    pub(crate) fn add(&mut self, kind: Kind, due: Instant, ended: Instant, outcome: Outcome) {
        self.go_to(ended);
        match outcome {
            Outcome::Done { siblings, merged } => {
                let latency = ended.saturating_duration_since(due);
                match kind {
                    Kind::Read => self.reads.add(latency),
                    Kind::Write => self.writes.add(latency),
                }
                self.now.add(latency);
                self.row.operations += 1;
                self.siblings += siblings;
                self.merged += u64::from(merged);
            }
            Outcome::Failed(how) => {
                *self.errors.entry(how).or_default() += 1;
                self.row.errors += 1;
            }
        }
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
        self.go_to(ended);
        if self.row.operations + self.row.errors > 0 {
            self.end_row();
        }
        let mut all = self.reads.0.clone();
        all.add(&self.writes.0).expect("both have the same bounds");
        Results {
            took: ended.saturating_duration_since(self.began),
            operations: all.len(),
            reads: self.reads.0.len(),
            siblings: self.siblings,
            merged: self.merged,
            read_latency: self.reads.quantiles(),
            write_latency: self.writes.quantiles(),
            latency: Latencies(all).quantiles(),
            errors: self.errors,
            rows: self.rows,
        }
    }
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
}
