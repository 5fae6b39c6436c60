//! The tenant that is measured: operations at a fixed rate.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use rejoin_client::{Bucket, Bytes, Client};
use rejoin_test_cluster::within;
use rejoin_test_hostile::guests as hostile;

use crate::RATE;

/// Conflicts a second. Each takes two writes besides the read that merges.
const CONFLICTS: u32 = 20;
/// Keys of the mixed load.
const KEYS: u64 = 1_000;
const VALUE_BYTES: usize = 100;
/// What takes longer does not count as done.
const LATE: Duration = Duration::from_secs(2);
/// As [`LATE`], for a push, which compiles on every node.
const LATE_PUSH: Duration = Duration::from_secs(20);

/// What the victim does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Load {
    /// Reads and writes.
    Mixed,
    /// Reads that merge two siblings.
    Conflicts,
    /// Pushes of new plugins, one after the other.
    Pushes,
}

impl Load {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Mixed => "reads and writes",
            Self::Conflicts => "reads of conflicts",
            Self::Pushes => "pushes of plugins",
        }
    }
}

/// What has become of operations.
#[derive(Default)]
pub(crate) struct Outcome {
    times: Vec<Duration>,
    /// How many should have been done.
    pub(crate) due: usize,
    /// How many have failed or came late.
    pub(crate) failed: usize,
    /// Why the first of them has failed.
    pub(crate) why: Option<String>,
}

impl Outcome {
    pub(crate) fn add(&mut self, other: Self) {
        self.times.extend(other.times);
        self.due += other.due;
        self.failed += other.failed;
        self.why = self.why.take().or(other.why);
    }

    fn note(&mut self, done: Result<Duration, String>, late: Duration) {
        self.due += 1;
        let done = done.and_then(|took| match took > late {
            true => Err(format!("it took {:.1} s", took.as_secs_f64())),
            false => Ok(took),
        });
        match done {
            Ok(took) => self.times.push(took),
            Err(why) => {
                self.failed += 1;
                self.why.get_or_insert(why);
            }
        }
    }

    pub(crate) fn done(&self) -> usize {
        self.times.len()
    }

    /// The share of what was due that was done.
    pub(crate) fn done_per_due(&self) -> f64 {
        self.times.len() as f64 / self.due.max(1) as f64
    }

    pub(crate) fn p99_ms(&self) -> f64 {
        let mut times = self.times.clone();
        times.sort_unstable();
        let at = (times.len() * 99 / 100).min(times.len().saturating_sub(1));
        times.get(at).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
    }
}

/// The victim.
pub(crate) struct Victim {
    client: Client,
    plain: Bucket<Bytes>,
    carts: Bucket<Bytes>,
}

impl Victim {
    pub(crate) fn new(client: Client) -> Self {
        let bucket = |name| client.bucket(name).unwrap_or_else(|why| panic!("{why}"));
        let (plain, carts) = (bucket("plain"), bucket("cart"));
        Self { client, plain, carts }
    }

    /// Waits until every node knows its buckets and plugins.
    pub(crate) async fn is_served(&self) {
        let patience = Duration::from_secs(60);
        within(patience, "the victim's keys are written", async || {
            for key in 0..KEYS {
                self.plain.put(format!("key {key}"), vec![b'.'; VALUE_BYTES]).blind().await?;
            }
            Ok::<_, rejoin_client::Error>(())
        })
        .await;
        within(patience, "its conflicts are merged", async || conflict(&self.carts, 0).await.map(drop)).await;
    }

    /// Does so for that long.
    pub(crate) async fn load(&self, load: Load, turn: u32, time: Duration) -> Outcome {
        match load {
            Load::Mixed => paced(RATE, time, |number| mixed(self.plain.clone(), number)).await,
            Load::Conflicts => {
                let first = u64::from(turn + 1) << 32;
                paced(CONFLICTS, time, |number| {
                    let carts = self.carts.clone();
                    async move { conflict(&carts, first + number).await }
                })
                .await
            }
            Load::Pushes => self.pushes(time).await,
        }
    }

    async fn pushes(&self, time: Duration) -> Outcome {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let (admin, end) = (self.client.admin().timeout(LATE_PUSH), Instant::now() + time);
        let mut outcome = Outcome::default();
        while Instant::now() < end {
            let rounds = u32::try_from(NEXT.fetch_add(1, Ordering::Relaxed)).unwrap_or(u32::MAX);
            let (component, began) = (hostile::slow(rounds), Instant::now());
            let pushed = admin.push_plugin("modest", component).await;
            outcome.note(pushed.map(|_| began.elapsed()).map_err(|why| why.to_string()), LATE_PUSH);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        outcome
    }
}

/// Starts operations at a fixed rate, whether or not those before have ended. Each says how long it took itself, or
/// what it took is counted from when it was due.
async fn paced<F>(rate: u32, time: Duration, operation: impl Fn(u64) -> F) -> Outcome
where
    F: Future<Output = Result<Option<Duration>, String>> + Send + 'static,
{
    let (began, step, mut running) = (Instant::now(), Duration::from_secs(1) / rate, JoinSet::new());
    let count = u32::try_from(time.as_millis()).unwrap_or(u32::MAX).saturating_mul(rate) / 1_000;
    for number in 0..count {
        let due = began + step * number;
        tokio::time::sleep_until(due).await;
        let operation = operation(number.into());
        running.spawn(async move { operation.await.map(|took| took.unwrap_or_else(|| due.elapsed())) });
    }
    let mut outcome = Outcome::default();
    for done in running.join_all().await {
        outcome.note(done, LATE);
    }
    outcome
}

/// A read or a write.
async fn mixed(bucket: Bucket<Bytes>, number: u64) -> Result<Option<Duration>, String> {
    // Neighbours of the schedule are far apart in the ring.
    let key = format!("key {}", number.wrapping_mul(617) % KEYS);
    let done = match number % 2 {
        0 => bucket.get(key).await.map(drop),
        _ => bucket.put(key, vec![b'.'; VALUE_BYTES]).blind().await.map(drop),
    };
    done.map(|()| None).map_err(|why| why.to_string())
}

/// Makes two siblings that no node has merged before, and reads them. Only the read is timed.
async fn conflict(bucket: &Bucket<Bytes>, number: u64) -> Result<Option<Duration>, String> {
    let (key, text) = (format!("cart {number}"), |why: rejoin_client::Error| why.to_string());
    for half in 0..2 {
        let item = format!("item {half} of {number}");
        let value = format!(r#"{{"clock":{{"c{half}":1}},"items":{{"{item}":{{"c{half}:1":1}}}}}}"#);
        bucket.put(&key, value.into_bytes()).blind().await.map_err(text)?;
    }
    let began = Instant::now();
    let read = bucket.get(&key).await.map_err(text)?;
    match (read.merge_fault, read.merged_by) {
        (Some(fault), _) => Err(fault),
        (None, None) => Err("it was not merged".to_owned()),
        (None, Some(_)) => Ok(Some(began.elapsed())),
    }
}
