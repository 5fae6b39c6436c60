//! Readers and writers beside a test, objects that fill disks, and how much room these take.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;

use rejoin_client::{Bucket, Bytes, Client};

use crate::{Cluster, eventually, within};

/// The bucket in which clients read and write.
const BUCKET: &str = "plain";
/// The clients, and the pause of each after a write and a read.
const CLIENTS: u64 = 3;
const PAUSE: Duration = Duration::from_millis(3);
/// The writes after which a load has begun.
const BEGUN: usize = 300;
/// Writes of [`fill`] that are under way at the same time.
const AT_ONCE: usize = 32;
/// Bytes that a node without objects takes at most: 4.2 MB of ballast, and a first segment for each of its shards.
const LITTLE: u64 = 8 << 20;
/// How long a disk may take to have room again.
const ROOM: Duration = Duration::from_secs(60);

/// Clients that write new keys of the bucket `plain` and read old ones until they are told to stop.
#[derive(Default, Debug)]
pub struct Load {
    over: AtomicBool,
    written: Mutex<Vec<u64>>,
    failures: Mutex<Vec<String>>,
}

/// Also what a client has noted that has panicked since.
fn noted<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Load {
    async fn run(self: Arc<Self>, client: Client, first: u64) {
        let bucket = client.bucket::<Bytes>(BUCKET).expect("a good name");
        let mut key = first;
        while !self.over.load(Ordering::Relaxed) {
            key += 1;
            match bucket.put(key.to_be_bytes(), value(key)).create().await {
                Ok(_) => noted(&self.written).push(key),
                Err(error) => noted(&self.failures).push(format!("writing {key}: {error}")),
            }
            let old = {
                let written = noted(&self.written);
                written.get((key.wrapping_mul(1_000_003) % written.len().max(1) as u64) as usize).copied()
            };
            if let Some(old) = old {
                match bucket.get(old.to_be_bytes()).await {
                    Ok(read) if read.value == Some(value(old)) => {}
                    other => noted(&self.failures).push(format!("reading {old}: {other:?}")),
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Lets clients run until they are told to stop, and waits until they have written something.
    pub async fn begin(cluster: &Cluster) -> (Arc<Self>, JoinSet<()>) {
        let (load, mut tasks) = (Arc::new(Self::default()), JoinSet::new());
        for writer in 1..=CLIENTS {
            tasks.spawn(load.clone().run(cluster.client().await, writer << 32));
        }
        load.goes_on("the clients write", BEGUN).await;
        (load, tasks)
    }

    /// Waits until so many more writes are acknowledged than now.
    pub async fn goes_on(&self, what: &str, more: usize) {
        let least = noted(&self.written).len() + more;
        let written = async || match noted(&self.written).len() {
            count if count > least => Ok(()),
            count => Err(count),
        };
        eventually(what, written).await;
    }

    /// The keys whose writes were acknowledged so far.
    #[must_use]
    pub fn written(&self) -> Vec<u64> {
        noted(&self.written).clone()
    }

    /// Tells the clients to stop, and does not wait for them.
    pub fn stop(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Stops the clients. None of their requests has failed, and each acknowledged write is found through that node.
    ///
    /// # Panics
    /// If it is not so.
    pub async fn end(&self, tasks: JoinSet<()>, cluster: &Cluster, asked: usize) {
        let failures = self.end_with_failures(tasks, cluster, asked).await;
        let some = &failures[..failures.len().min(5)];
        assert!(failures.is_empty(), "{} requests have failed: {some:?}", failures.len());
    }

    /// Stops the clients, some of whose requests may have failed, because a node was killed. Each acknowledged write is
    /// found through that node.
    ///
    /// # Panics
    /// If one is not.
    pub async fn end_with_failures(&self, mut tasks: JoinSet<()>, cluster: &Cluster, asked: usize) -> Vec<String> {
        self.stop();
        while tasks.join_next().await.is_some() {}
        let bucket = cluster.pinned(asked).await.bucket::<Bytes>(BUCKET).expect("a good name");
        for key in self.written() {
            let read = bucket.get(key.to_be_bytes()).await.unwrap_or_else(|why| panic!("{key}: {why}"));
            assert_eq!(read.value, Some(value(key)), "{key} is lost");
        }
        noted(&self.failures).clone()
    }
}

/// The value of a key of a [`Load`].
#[must_use]
pub fn value(key: u64) -> Vec<u8> {
    [&key.to_be_bytes()[..], &[7; 500]].concat()
}

/// Creates so many objects of [`noise`], each at three nodes.
///
/// # Panics
/// If one is not written.
pub async fn fill(bucket: &Bucket<Bytes>, count: u64) {
    let (mut writes, mut keys) = (JoinSet::new(), 0..count);
    loop {
        while let Some(key) = (writes.len() < AT_ONCE).then(|| keys.next()).flatten() {
            let write = bucket.put(key.to_be_bytes(), noise(key)).create().w(3);
            writes.spawn(async move { write.await.map(drop) });
        }
        match writes.join_next().await {
            Some(written) => written.expect("no write panics").unwrap_or_else(|why| panic!("{why}")),
            None => return,
        }
    }
}

/// 20 kB that do not compress.
#[must_use]
pub fn noise(key: u64) -> Vec<u8> {
    let mut state = key.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let word = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_be_bytes()
    };
    (0..2_500).flat_map(word).collect()
}

/// Bytes of blocks that a directory takes on the disk.
#[must_use]
pub fn taken(dir: &Path) -> u64 {
    // Files come and go meanwhile.
    let of = |entry: std::io::Result<std::fs::DirEntry>| match entry.and_then(|entry| Ok((entry.metadata()?, entry))) {
        Ok((found, entry)) if found.is_dir() => taken(&entry.path()),
        Ok((found, _)) => found.blocks() * 512,
        Err(_) => 0,
    };
    std::fs::read_dir(dir).map_or(0, |entries| entries.map(of).sum())
}

/// Waits until a node's disk has nothing but what a node without objects has. Returns the bytes of that.
pub async fn has_room(cluster: &Cluster, index: usize) -> u64 {
    within(ROOM, "the disk has room again", async || match taken(&cluster.data(index)) {
        left if left < LITTLE => Ok(left),
        left => Err(left),
    })
    .await
}
