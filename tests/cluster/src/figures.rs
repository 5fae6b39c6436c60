//! What the programs that measure real processes have in common: the load of clients, and tables.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use tokio::task::JoinSet;

use rejoin_client::{Bucket, Bytes};

use crate::{Cluster, cli};

/// The bucket that [`write_notes`] fills.
pub const NOTES: &str = "notes";
/// Bytes of each of its values.
pub const NOTE_BYTES: usize = 100;
/// Writers that fill it.
const WRITERS: u64 = 64;
/// Operations per second of the clients beside something else.
const RATE: &str = "2000";
/// The length of a tick in `/proc/PID/stat`, whatever the kernel's own tick is.
const TICK: Duration = Duration::from_millis(10);

/// The columns of [`load`].
pub const LOAD: [&str; 6] = ["rate /s", "reads p50", "reads p99", "writes p50", "writes p99", "failed"];

/// What `rejoin bench mixed` measures at 2 000 operations a second. It has few keys, so that writing them first takes
/// no time.
///
/// # Panics
/// If it fails.
#[must_use]
pub fn load(dir: &Path, profile: &Path, seconds: u64) -> Vec<String> {
    let seconds = seconds.to_string();
    let of_bench = ["bench", "mixed", "--durability", "os", "--rate", RATE, "--seconds", &seconds];
    let few = ["--keys", "1000", "--warm-up", "none", "--json"];
    let report = cli::rejoin(dir, Some(profile), &[&of_bench[..], &few].concat(), b"").done().json();
    let of = |latency: &str, quantile: &str| {
        let us = report[latency][quantile].as_f64().unwrap_or(f64::NAN);
        format!("{:.2} ms", us / 1e3)
    };
    let failed: u64 = report["errors"].as_object().into_iter().flatten().filter_map(|(_, n)| n.as_u64()).sum();
    vec![
        format!("{:.0}", report["rate"].as_f64().unwrap_or(f64::NAN)),
        of("read_latency", "p50_us"),
        of("read_latency", "p99_us"),
        of("write_latency", "p50_us"),
        of("write_latency", "p99_us"),
        failed.to_string(),
    ]
}

/// The key of a note.
#[must_use]
pub fn note(key: u64) -> String {
    format!("note {key:09}")
}

/// Writes these notes, blindly.
///
/// # Panics
/// If one is not written.
pub async fn write_notes(cluster: &Cluster, keys: std::ops::Range<u64>, what: &str) {
    let bucket: Bucket<Bytes> = cluster.client().await.bucket(NOTES).unwrap_or_else(|why| panic!("{why}"));
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let (bucket, keys, what) = (bucket.clone(), keys.clone(), what.to_owned());
        writers.spawn(async move {
            for key in keys.skip(writer as usize).step_by(WRITERS as usize) {
                let mut value = format!("{what} {key} ").into_bytes();
                value.resize(NOTE_BYTES, b'.');
                bucket.put(note(key), value).blind().await.unwrap_or_else(|why| panic!("{}: {why}", note(key)));
            }
        });
    }
    writers.join_all().await;
}

/// CPU time of a process, user plus system: fields 14 and 15 of proc(5), counted after the name in parentheses.
///
/// # Panics
/// If there is no such process.
#[must_use]
pub fn cpu(pid: u32) -> Duration {
    let path = format!("/proc/{pid}/stat");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|why| panic!("{path}: {why}"));
    let fields = text.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().skip(11).take(2));
    let ticks: u32 = fields.into_iter().flatten().filter_map(|field| field.parse::<u32>().ok()).sum();
    TICK * ticks
}

/// A time, for people.
#[must_use]
pub fn text(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

/// Bytes, for people.
#[must_use]
pub fn kilobytes(bytes: u64) -> String {
    format!("{} kB", bytes.div_ceil(1000))
}

/// Prints a line.
///
/// # Panics
/// If nobody reads it.
pub fn say(text: &str) {
    writeln!(std::io::stdout(), "{text}").unwrap_or_else(|why| panic!("{why}"));
}

/// A table in Markdown.
#[derive(Debug)]
pub struct Table(String);

impl Table {
    /// A table with a head.
    #[must_use]
    pub fn new(columns: &[&str]) -> Self {
        let mut table = Self(String::new());
        table.row(columns);
        table.row(&vec!["---"; columns.len()]);
        table
    }

    /// Adds a row.
    ///
    /// # Panics
    /// Never: text has room.
    pub fn row(&mut self, cells: &[impl AsRef<str>]) {
        let cells: Vec<&str> = cells.iter().map(AsRef::as_ref).collect();
        writeln!(self.0, "| {} |", cells.join(" | ")).unwrap_or_else(|why| panic!("{why}"));
    }

    /// Prints it.
    pub fn print(self) {
        say(&self.0);
    }
}
