//! What was measured, second by second and in all.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;

/// The longest latency that is told apart, in microseconds; a longer one counts as this.
const LONGEST_US: u64 = 120_000_000;

/// Whether an operation was a read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Read,
    Write,
}

/// How one operation has ended.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    /// It was done. Of a read: how many siblings were there, and whether a plugin made one value of them.
    Done { siblings: u64, merged: bool },
    /// It failed in this way.
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

    /// None if nothing was recorded.
    pub(crate) fn quantiles(&self) -> Option<Quantiles> {
        let at = |quantile| self.0.value_at_quantile(quantile);
        (!self.0.is_empty()).then(|| Quantiles { p50_us: at(0.5), p99_us: at(0.99), p999_us: at(0.999), max_us: self.0.max() })
    }
}

/// Takes every operation that counts.
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

    /// One operation that was due at `due` and has ended at `ended`. Failed ones are counted and have no latency: a
    /// refusal is quick.
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

    /// Ends the rows of all seconds before that moment. Clients end their operations in an order of their own, so a
    /// moment may lie in a second that has ended already: then it counts in the present one.
    fn go_to(&mut self, moment: Instant) {
        let second = moment.saturating_duration_since(self.began).as_secs();
        while self.row.second < second {
            self.end_row();
        }
    }

    fn end_row(&mut self) {
        let quantiles = self.now.quantiles();
        let row = quantiles.map_or(self.row, |q| Row { p50_us: q.p50_us, p99_us: q.p99_us, max_us: q.max_us, ..self.row });
        self.rows.push(row);
        self.row = empty_row(row.second + 1);
        self.now.0.reset();
    }

    /// From when seconds are counted.
    pub(crate) fn began(&self) -> Instant {
        self.began
    }

    /// All of it. The last row is what was left of its second.
    pub(crate) fn finish(mut self, ended: Instant) -> Recorded {
        self.go_to(ended);
        if self.row.operations + self.row.errors > 0 {
            self.end_row();
        }
        let mut all = self.reads.0.clone();
        all.add(&self.writes.0).expect("both have the same bounds");
        Recorded {
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

/// A run that has ended.
pub(crate) struct Recorded {
    /// From the first operation that counts to the end of the last.
    pub(crate) took: Duration,
    /// Those that were done.
    pub(crate) operations: u64,
    pub(crate) reads: u64,
    /// What all reads have found together.
    pub(crate) siblings: u64,
    /// Reads whose value a plugin has made.
    pub(crate) merged: u64,
    pub(crate) latency: Option<Quantiles>,
    pub(crate) read_latency: Option<Quantiles>,
    pub(crate) write_latency: Option<Quantiles>,
    /// Those that were not done, by kind.
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
        let Recorded { rows, operations, errors, took, .. } = recorder.finish(at(2_600));
        assert_eq!(rows.iter().map(|row| (row.second, row.operations, row.errors)).collect::<Vec<_>>(), [(0, 1, 0), (1, 0, 0), (2, 1, 1)]);
        assert_eq!((rows[1].max_us, rows[1].p50_us), (0, 0));
        assert!(rows[2].max_us >= 2_489_000 && rows[0].max_us < 10_100, "a row has the latencies of its own second");
        assert_eq!((operations, errors["Overloaded"], took), (1 + 1, 1, Duration::from_millis(2_600)), "a failure is no operation");
    }
}
