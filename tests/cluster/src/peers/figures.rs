//! What runs have measured, and the medians of several.

use serde_json::{Value, json};

/// What one run of `rejoin bench` has measured. Not a number where it was not measured.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Figures {
    /// Operations per second.
    pub(crate) rate: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    /// Of all server processes, for an operation.
    pub(crate) server_cpu_us: f64,
    pub(crate) client_cpu_us: f64,
    /// The median of an fdatasync of 4 KiB beside it.
    pub(crate) fdatasync_us: f64,
    /// Resident after the run, in all server processes.
    pub(crate) memory_bytes: f64,
    pub(crate) disk_bytes: f64,
    pub(crate) restart_ms: f64,
    /// Operations that failed: they are not among the others.
    pub(crate) failed: f64,
}

/// One of the figures.
pub(crate) type Of = fn(&Figures) -> f64;

impl Figures {
    /// The figures of a report.
    ///
    /// # Errors
    /// It has no rate or no latency: nothing was done.
    pub(crate) fn of(report: &Value) -> Result<Self, String> {
        let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
        let memory = report["memory"].as_array().filter(|memory| !memory.is_empty());
        let errors = report["errors"].as_object().into_iter().flatten();
        let figures = Self {
            rate: number(&report["rate"]),
            p50_us: number(&report["latency"]["p50_us"]),
            p99_us: number(&report["latency"]["p99_us"]),
            server_cpu_us: number(&report["server_cpu_us"]),
            client_cpu_us: number(&report["client_cpu_us"]),
            fdatasync_us: number(&report["fdatasync"]["p50_us"]),
            memory_bytes: memory.map_or(f64::NAN, |all| all.iter().map(|one| number(&one["after_bytes"])).sum()),
            disk_bytes: number(&report["disk_bytes"]),
            restart_ms: number(&report["restart_ms"]),
            failed: errors.map(|(_, count)| number(count)).fold(0.0, |sum, count| sum + count),
        };
        if figures.rate.is_nan() || figures.p99_us.is_nan() {
            return Err(format!("nothing was done: {}", report["errors"]));
        }
        Ok(figures)
    }
}

/// A figure of several rounds.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Spread {
    pub(crate) low: f64,
    pub(crate) median: f64,
    pub(crate) high: f64,
}

impl Spread {
    /// The median and the extremes of one figure; none if it was never measured.
    pub(crate) fn of(runs: &[Figures], of: Of) -> Option<Self> {
        let mut values: Vec<f64> = runs.iter().map(of).filter(|value| value.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        let (low, high) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median =
            if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) };
        Some(Self { low, median, high })
    }
}

/// The rate that is so many percent of a peak, at least one operation a second.
pub(crate) fn percent_of(peak: f64, percent: u32) -> u32 {
    // The highest rate of `rejoin bench`. A float that is none becomes 0.
    ((peak * f64::from(percent) / 100.0).round() as u32).clamp(1, 10_000_000)
}

/// All figures, with their medians, lowest and highest, for programs.
pub(crate) fn as_json(runs: &[Figures]) -> Value {
    let all: [(&str, Of); 10] = [
        ("rate", |run| run.rate),
        ("p50_us", |run| run.p50_us),
        ("p99_us", |run| run.p99_us),
        ("server_cpu_us", |run| run.server_cpu_us),
        ("client_cpu_us", |run| run.client_cpu_us),
        ("fdatasync_us", |run| run.fdatasync_us),
        ("memory_bytes", |run| run.memory_bytes),
        ("disk_bytes", |run| run.disk_bytes),
        ("restart_ms", |run| run.restart_ms),
        ("failed", |run| run.failed),
    ];
    let figure = |(name, of): (&str, Of)| {
        let spread = Spread::of(runs, of)?;
        let rounds: Vec<Value> = runs.iter().map(|run| json!(of(run))).collect();
        let figure = json!({
            "median": spread.median, "low": spread.low, "high": spread.high, "rounds": rounds
        });
        Some((name.to_owned(), figure))
    };
    Value::Object(all.into_iter().filter_map(figure).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(rate: f64, restart_ms: f64) -> Figures {
        let report = json!({
            "rate": rate, "latency": {"p50_us": 10, "p99_us": 20}, "server_cpu_us": 5.5, "client_cpu_us": 2,
            "fdatasync": null, "memory": [{"after_bytes": 100}, {"after_bytes": 23}], "restart_ms": restart_ms,
            "errors": {"Overloaded": 2, "TimedOut": 1}
        });
        Figures::of(&report).unwrap()
    }

    #[test]
    fn a_report_has_figures_or_says_what_went_wrong() {
        let run = run(1_000.0, 7.0);
        assert_eq!((run.rate, run.p50_us, run.p99_us, run.server_cpu_us), (1_000.0, 10.0, 20.0, 5.5));
        assert_eq!((run.memory_bytes, run.restart_ms, run.failed), (123.0, 7.0, 3.0));
        assert!(run.fdatasync_us.is_nan() && run.disk_bytes.is_nan());
        let failed = Figures::of(&json!({"rate": 0, "latency": null, "errors": {"Overloaded": 3}})).unwrap_err();
        assert!(failed.contains("Overloaded"), "{failed}");
    }

    #[test]
    fn medians_stand_between_the_lowest_and_the_highest() {
        let odd = [run(30.0, 1.0), run(10.0, 1.0), run(20.0, 1.0)];
        assert_eq!(Spread::of(&odd, |run| run.rate), Some(Spread { low: 10.0, median: 20.0, high: 30.0 }));
        let even = [run(40.0, 1.0), run(10.0, 1.0)];
        assert_eq!(Spread::of(&even, |run| run.rate), Some(Spread { low: 10.0, median: 25.0, high: 40.0 }));
        assert_eq!(Spread::of(&odd, |run| run.disk_bytes), None);
        let json = as_json(&odd);
        assert_eq!(json["rate"], json!({"median": 20.0, "low": 10.0, "high": 30.0, "rounds": [30.0, 10.0, 20.0]}));
        assert_eq!(json.get("disk_bytes"), None);
    }

    #[test]
    fn percents_of_a_peak_are_whole_rates() {
        assert_eq!([10, 50, 90].map(|percent| percent_of(12_345.0, percent)), [1_235, 6_173, 11_111]);
        assert_eq!((percent_of(3.0, 10), percent_of(f64::NAN, 50), percent_of(1e12, 90)), (1, 1, 10_000_000));
    }
}
