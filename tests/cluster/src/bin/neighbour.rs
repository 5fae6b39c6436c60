//! Measures reads of conflicted keys in one bucket, alone and beside six readers of another bucket whose merges are
//! slow.
//!
//! `cargo build --workspace --bins --features measure && target/debug/rejoin-bench-neighbour [SECONDS]`. Three nodes in
//! processes of their own serve both buckets. Every read that is counted, and every read of the slow bucket, meets two
//! siblings that no node has merged before, so no memo answers it. The two loads take turns, so that whatever else the
//! machine does meets both.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use rejoin_client::admin::BucketProps;
use rejoin_client::{Bucket, Bytes, Context};
use rejoin_test_cluster::Cluster;
use rejoin_test_hostile::guests;

/// Readers of the slow bucket.
const SLOW_READERS: u64 = 6;
/// Readers of the measured bucket.
const READERS: u64 = 4;
/// How often each load is measured.
const TURNS: u32 = 3;
/// Bytes of a value in the slow bucket: two of them have 1250 million units of fuel.
const SLOW_BYTES: usize = 256 << 10;
/// Rounds of the slow merge's loop: more than a thousand million units of fuel.
const SLOW_ROUNDS: u32 = 180_000_000;

#[tokio::main]
async fn main() {
    let seconds =
        std::env::args().nth(1).map_or(10, |text| text.parse().unwrap_or_else(|why| panic!("SECONDS: {why}")));
    let cluster = Cluster::start(3).await;
    cluster.cart().await;
    cluster.bucket_merging_with("slow", guests::slow(SLOW_ROUNDS), BucketProps::default()).await;
    let client = cluster.client().await;
    let carts: Bucket<Bytes> = client.bucket("cart").unwrap_or_else(|why| panic!("{why}"));
    let slow: Bucket<Bytes> = client.bucket("slow").unwrap_or_else(|why| panic!("{why}"));
    let (mut alone, mut beside, mut slow_reads) = (Reads::default(), Reads::default(), Reads::default());
    for turn in 0..TURNS {
        let time = Duration::from_secs(seconds);
        alone.add(&load(&carts, READERS, u64::from(turn) * 2, time, cart).await);
        let stop = Arc::new(AtomicBool::new(false));
        let readers = slow_load(&slow, turn, &stop);
        beside.add(&load(&carts, READERS, u64::from(turn) * 2 + 1, time, cart).await);
        stop.store(true, Ordering::Relaxed);
        readers.join_all().await.iter().for_each(|reads| slow_reads.add(reads));
    }
    let table = [
        "| reads that merge | reads | failed | p50 | p99 | longest |".to_owned(),
        "|---|---|---|---|---|---|".to_owned(),
        alone.row("carts, alone"),
        beside.row("carts, beside six readers of the slow bucket"),
        slow_reads.row("of the slow bucket"),
    ];
    std::io::Write::write_all(&mut std::io::stdout(), (table.join("\n") + "\n").as_bytes())
        .unwrap_or_else(|why| panic!("{why}"));
}

/// What became of reads.
#[derive(Default)]
struct Reads {
    times: Vec<Duration>,
    failed: usize,
    why: Option<String>,
}

impl Reads {
    fn add(&mut self, other: &Self) {
        self.times.extend(&other.times);
        self.failed += other.failed;
        self.why = self.why.take().or_else(|| other.why.clone());
    }

    fn row(mut self, name: &str) -> String {
        self.times.sort_unstable();
        let ms = |percent: usize| {
            let at = (self.times.len() * percent / 100).min(self.times.len().saturating_sub(1));
            self.times.get(at).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
        };
        let why = self.why.as_ref().map_or_else(String::new, |why| format!(" (the first: {why})"));
        format!(
            "| {name} | {} | {}{why} | {:.2} ms | {:.2} ms | {:.1} ms |",
            self.times.len(),
            self.failed,
            ms(50),
            ms(99),
            ms(100)
        )
    }
}

/// A cart in which an item of its own says who wrote it, and when.
fn cart(reader: u64, write: u64) -> Vec<u8> {
    format!(r#"{{"clock":{{"c{reader}":{write}}},"items":{{"item {write}":{{"c{reader}:{write}":1}}}}}}"#).into_bytes()
}

/// Lets so many readers go for that long.
async fn load(
    bucket: &Bucket<Bytes>,
    readers: u64,
    turn: u64,
    time: Duration,
    value: fn(u64, u64) -> Vec<u8>,
) -> Reads {
    let end = Instant::now() + time;
    let mut running = JoinSet::new();
    for reader in 0..readers {
        let bucket = bucket.clone();
        running
            .spawn(async move { read_until(&bucket, turn * readers + reader, value, || Instant::now() >= end).await });
    }
    let mut all = Reads::default();
    running.join_all().await.iter().for_each(|reads| all.add(reads));
    all
}

/// Starts the readers of the slow bucket, which go until they are told to stop.
fn slow_load(bucket: &Bucket<Bytes>, turn: u32, stop: &Arc<AtomicBool>) -> JoinSet<Reads> {
    let mut running = JoinSet::new();
    for reader in 0..SLOW_READERS {
        let (bucket, stop) = (bucket.clone(), stop.clone());
        let number = u64::from(turn) * SLOW_READERS + reader;
        running.spawn(async move { read_until(&bucket, number, slow_value, || stop.load(Ordering::Relaxed)).await });
    }
    running
}

/// A value that no other write has.
fn slow_value(reader: u64, write: u64) -> Vec<u8> {
    let mut value = vec![b'.'; SLOW_BYTES];
    let name = format!("{reader} {write}");
    value[..name.len()].copy_from_slice(name.as_bytes());
    value
}

/// Makes two siblings of a key of its own and reads them, again and again. Only the read is timed.
async fn read_until(
    bucket: &Bucket<Bytes>,
    reader: u64,
    value: fn(u64, u64) -> Vec<u8>,
    is_over: impl Fn() -> bool,
) -> Reads {
    static WRITES: AtomicU64 = AtomicU64::new(1);
    let next = || value(reader, WRITES.fetch_add(1, Ordering::Relaxed));
    let key = format!("key of reader {reader}");
    let mut seen: Option<Context> = None;
    let mut reads = Reads::default();
    while !is_over() {
        let put = bucket.put(&key, next());
        let put = match &seen {
            Some(context) => put.context(context).await,
            None => put.blind().await,
        };
        let written = match put {
            Ok(_) => bucket.put(&key, next()).blind().await,
            Err(why) => Err(why),
        };
        if let Err(why) = written {
            reads.failed += 1;
            reads.why.get_or_insert_with(|| format!("a write: {why}"));
            continue;
        }
        let began = Instant::now();
        let read = bucket.get(&key).await;
        reads.times.push(began.elapsed());
        match read {
            Ok(object) => {
                if let Some(why) =
                    object.merge_fault.or_else(|| object.merged_by.is_none().then(|| "it was not merged".into()))
                {
                    reads.failed += 1;
                    reads.why.get_or_insert(why);
                }
                seen = Some(object.context);
            }
            Err(why) => {
                reads.failed += 1;
                reads.why.get_or_insert_with(|| why.to_string());
            }
        }
    }
    reads
}
