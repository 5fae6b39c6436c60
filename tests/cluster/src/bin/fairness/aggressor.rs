//! The tenant that takes all it can get: a process of its own, at the lowest priority, until its standard input ends.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;

use rejoin_client::{Bucket, Bytes, Client, ClientBuilder, Error, ErrorKind, Profile};
use rejoin_test_cluster::figures::say;
use rejoin_test_hostile::guests;

use crate::Case;

/// The word that makes a process the aggressor.
pub(crate) const VERB: &str = "aggress";
/// What it says when all of it runs.
pub(crate) const READY: &str = "ready";
/// The lowest priority.
const NICE: i32 = 19;
/// Requests that may be unanswered at once.
const OUTSTANDING: usize = 4_096;
/// How often requests are sent, so that many are due at once.
const TICK: Duration = Duration::from_millis(5);
const READERS: u64 = 6;
const LARGE: u64 = 4;
const LARGE_BYTES: usize = 16 << 20;
/// Bytes of a value in the slow bucket: two of them have 1250 million units of fuel.
const SLOW_BYTES: usize = 256 << 10;
const HOT: u64 = 64;
const PUSHERS: u64 = 8;
/// Functions of a pushed plugin: compiling it takes the larger part of a second.
const FUNCTIONS: u64 = 1_500;
/// Connections that are made at once.
const DIALS: usize = 64;

/// What it has had.
#[derive(Default)]
struct Had {
    done: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
    stop: AtomicBool,
}

impl Had {
    fn note<T>(&self, done: &Result<T, Error>) {
        let count = match done {
            Ok(_) => &self.done,
            Err(why) if why.kind() == ErrorKind::Overloaded => &self.refused,
            Err(_) => &self.failed,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }
}

/// The process: `aggress CASE PROFILE RATE CONNECTIONS`.
pub(crate) fn main(words: &[String]) {
    let [case, profile, rate, connections] = words else { panic!("{VERB} CASE PROFILE RATE CONNECTIONS") };
    let number = |text: &String| text.parse::<usize>().unwrap_or_else(|why| panic!("{text}: {why}"));
    let case = Case::of(case).unwrap_or_else(|| panic!("there is no case {case}"));
    // Before there are other threads: they inherit it.
    rustix::process::setpriority_process(None, NICE).unwrap_or_else(|why| panic!("{why}"));
    let runtime = tokio::runtime::Runtime::new().unwrap_or_else(|why| panic!("{why}"));
    let wild = Wild { profile: PathBuf::from(profile), rate: number(rate), had: Arc::default(), end: Arc::default() };
    runtime.block_on(wild.run(case, number(connections)));
    // What is still under way is of no interest.
    runtime.shutdown_background();
}

struct Wild {
    profile: PathBuf,
    /// Requests a second.
    rate: usize,
    had: Arc<Had>,
    end: Arc<Notify>,
}

impl Wild {
    async fn run(&self, case: Case, connections: usize) {
        let client = builder(&self.profile).connect().await.unwrap_or_else(|why| panic!("{why}"));
        let mut tasks = JoinSet::new();
        match case {
            Case::Flood => {
                let bucket = bucket(&client, "plain");
                tasks.spawn(flood(vec![bucket], self.rate, self.had.clone()));
            }
            Case::Connections => {
                let buckets = self.connect_all(connections).await;
                tasks.spawn(flood(buckets, self.rate, self.had.clone()));
            }
            Case::SlowMerges => {
                (0..READERS).for_each(|n| drop(tasks.spawn(slow_merges(bucket(&client, "slow"), n, self.had.clone()))));
            }
            Case::LargeValues => {
                (0..LARGE).for_each(|n| drop(tasks.spawn(large(bucket(&client, "large"), n, self.had.clone()))));
            }
            Case::HotKey => {
                (0..HOT).for_each(|_| drop(tasks.spawn(hot_key(bucket(&client, "plain"), self.had.clone()))));
            }
            Case::Compiles => {
                (0..PUSHERS).for_each(|n| drop(tasks.spawn(pushes(client.clone(), n, self.had.clone()))));
            }
        }
        self.wait_for_the_end();
        let before = self.counts();
        say(READY);
        let began = Instant::now();
        self.end.notified().await;
        let seconds = began.elapsed().as_secs_f64();
        self.had.stop.store(true, Ordering::Relaxed);
        let after = self.counts();
        let rate = |at: usize| (after[at] - before[at]) as f64 / seconds;
        say(&format!("{:.1} /s, {:.1} /s overloaded, {:.1} /s failed", rate(0), rate(1), rate(2)));
    }

    fn counts(&self) -> [u64; 3] {
        let Had { done, refused, failed, .. } = &*self.had;
        [done, refused, failed].map(|count| count.load(Ordering::Relaxed))
    }

    fn wait_for_the_end(&self) {
        let end = self.end.clone();
        std::thread::spawn(move || {
            // Whatever comes, it is over when nobody can write any more.
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            end.notify_one();
        });
    }

    /// Makes so many connections, each of a client of its own.
    async fn connect_all(&self, count: usize) -> Vec<Bucket<Bytes>> {
        let (places, mut dialling) = (Arc::new(Semaphore::new(DIALS)), JoinSet::new());
        for number in 0..count {
            let (places, profile) = (places.clone(), self.profile.clone());
            dialling.spawn(async move {
                let _place = places.acquire().await;
                let profile = Profile::load(&profile).unwrap_or_else(|why| panic!("{why}"));
                let seed = profile.seeds()[number % profile.seeds().len()].clone();
                let patient = profile.builder().seeds([seed]).pinned().attempts(1);
                patient.connect_timeout(Duration::from_secs(30)).connect().await
            });
        }
        let (mut buckets, mut refused, mut why) = (Vec::new(), 0, None);
        while let Some(dialled) = dialling.join_next().await {
            match dialled.unwrap_or_else(|why| panic!("{why}")) {
                Ok(client) => buckets.push(bucket(&client, "plain")),
                Err(error) => {
                    refused += 1;
                    why.get_or_insert(error);
                }
            }
        }
        if let Some(why) = why {
            eprintln!("{refused} of {count} connections were not made; the first: {why}");
        }
        assert!(!buckets.is_empty(), "there is no connection");
        buckets
    }
}

/// One attempt for each request: a refusal counts as one.
fn builder(profile: &Path) -> ClientBuilder {
    Profile::load(profile).unwrap_or_else(|why| panic!("{why}")).builder().attempts(1)
}

fn bucket(client: &Client, name: &str) -> Bucket<Bytes> {
    client.bucket(name).unwrap_or_else(|why| panic!("{why}"))
}

/// Small reads and writes at a rate, by turns over the buckets, each of which may have a connection of its own.
async fn flood(buckets: Vec<Bucket<Bytes>>, rate: usize, had: Arc<Had>) {
    let (places, mut ticks) = (Arc::new(Semaphore::new(OUTSTANDING)), tokio::time::interval(TICK));
    let each = (rate * usize::try_from(TICK.as_millis()).unwrap_or(1)).div_ceil(1_000);
    let mut number = 0_usize;
    while had.goes_on() {
        ticks.tick().await;
        for _ in 0..each {
            let Ok(place) = places.clone().try_acquire_owned() else { break };
            number = number.wrapping_add(1);
            let (bucket, had) = (buckets[number % buckets.len()].clone(), had.clone());
            tokio::spawn(async move {
                let key = format!("key {}", number.wrapping_mul(617) % 10_000);
                if number.is_multiple_of(2) {
                    had.note(&bucket.get(key).await);
                } else {
                    had.note(&bucket.put(key, vec![b'.'; 100]).blind().await);
                }
                drop(place);
            });
        }
    }
}

/// Makes two siblings of a key of its own and reads them, again and again.
async fn slow_merges(bucket: Bucket<Bytes>, reader: u64, had: Arc<Had>) {
    let (key, mut write) = (format!("key of reader {reader}"), 0);
    let mut next = || {
        write += 1;
        let mut value = vec![b'.'; SLOW_BYTES];
        let name = format!("{reader} {write} {:?}", std::time::SystemTime::now());
        value[..name.len()].copy_from_slice(name.as_bytes());
        value
    };
    let mut seen = None;
    while had.goes_on() {
        let put = bucket.put(&key, next());
        let first = match &seen {
            Some(context) => put.context(context).await,
            None => put.blind().await,
        };
        let second = bucket.put(&key, next()).blind().await;
        if first.is_err() || second.is_err() {
            had.note(&first.and(second));
            continue;
        }
        let read = bucket.get(&key).await;
        had.note(&read);
        seen = read.ok().map(|object| object.context);
    }
}

/// Writes and reads a value that is as large as can be.
async fn large(bucket: Bucket<Bytes>, number: u64, had: Arc<Had>) {
    let (key, mut turn) = (format!("large {number}"), 0_u8);
    while had.goes_on() {
        turn = turn.wrapping_add(1);
        let read = bucket.get(&key).timeout(Duration::from_secs(30)).await;
        had.note(&read);
        let write = bucket.put(&key, vec![turn; LARGE_BYTES]).timeout(Duration::from_secs(30));
        had.note(&match read {
            Ok(object) => write.context(&object.context).await,
            Err(_) => write.blind().await,
        });
    }
}

/// Reads and writes one key.
async fn hot_key(bucket: Bucket<Bytes>, had: Arc<Had>) {
    while had.goes_on() {
        let read = bucket.get("hot").await;
        had.note(&read);
        if let Ok(object) = read {
            had.note(&bucket.put("hot", vec![b'.'; 100]).context(&object.context).await);
        }
    }
}

/// Pushes plugins that nobody has compiled before.
async fn pushes(client: Client, pusher: u64, had: Arc<Had>) {
    let (admin, mut push) = (client.admin().timeout(Duration::from_secs(60)), 0);
    while had.goes_on() {
        push += 1;
        let component = plugin(u64::from(std::process::id()) << 20 | pusher << 12 | push);
        had.note(&admin.push_plugin("wild", component).await);
    }
}

/// A plugin with a number, of many functions.
fn plugin(number: u64) -> Vec<u8> {
    let function = |at: u64| {
        format!(
            "(func (param $x i64) (result i64) (i64.add (i64.mul (local.get $x) (i64.const {number})) \
             (i64.rotl (i64.xor (local.get $x) (i64.const {at})) (i64.const {}))))",
            at % 63 + 1
        )
    };
    let functions: String = (0..FUNCTIONS).map(function).collect();
    let answer = "(call $answer (i32.load (local.get $siblings)) (i32.load offset=4 (local.get $siblings)))";
    guests::with_memory_and("128", &functions, answer)
}
