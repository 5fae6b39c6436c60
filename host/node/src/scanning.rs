//! Scans a shard's object rows on a thread of their own, so that the shard never waits for them.
//!
//! A shard has one scan under way at most. The others wait without a snapshot, since an open snapshot makes compactions
//! keep every row that is overwritten. Each scan opens a snapshot of its own: its rows are those of the time at which
//! it begins.

use std::collections::VecDeque;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::thread::JoinHandle;

use bytes::Bytes;
use tokio::sync::mpsc::UnboundedSender;

use rejoin_core::port::{StoreFault, key_after};
use rejoin_core::shard::event::{Event, ScanJob, ScanTicket, ScannedRows};
use rejoin_store::{ScanError, ScanLimit, ScanStep, ShardStore, Snapshot};

use crate::messages::ShardMessage;
use crate::platform::Threads;

/// The scans of one shard.
pub(crate) struct Scans {
    /// Scans that have not begun, in the order in which they were asked for.
    waiting: VecDeque<(ScanTicket, ScanJob)>,
    under_way: bool,
    /// `None`: the caller's thread scans at once, for tests on one thread.
    thread: Option<ScanThread>,
    messages: UnboundedSender<ShardMessage>,
}

impl Scans {
    /// Starts scanning for one shard. The result of each scan is a [`ShardMessage::Scanned`].
    ///
    /// # Errors
    /// The thread could not be started.
    pub(crate) fn start(
        threads: Threads,
        shard: u16,
        messages: UnboundedSender<ShardMessage>,
    ) -> std::io::Result<Self> {
        let thread = match threads {
            Threads::Own => Some(ScanThread::start(shard, messages.clone())?),
            Threads::Shared => None,
        };
        Ok(Self { waiting: VecDeque::new(), under_way: false, thread, messages })
    }

    /// Asks for a scan.
    pub(crate) fn request(&mut self, store: &ShardStore, ticket: ScanTicket, job: ScanJob) {
        self.waiting.push_back((ticket, job));
        self.begin(store);
    }

    /// The scan under way has ended: the next one begins.
    pub(crate) fn ended(&mut self, store: &ShardStore) {
        self.under_way = false;
        self.begin(store);
    }

    fn begin(&mut self, store: &ShardStore) {
        while !self.under_way
            && let Some((ticket, job)) = self.waiting.pop_front()
        {
            match store.snapshot() {
                Ok(snapshot) => {
                    self.under_way = true;
                    self.run(Scan { ticket, job, snapshot });
                }
                // The receiver is the shard that calls this.
                Err(fault) => {
                    drop(self.messages.send(ShardMessage::Core(Box::new(Event::Scanned(ticket, Err(fault))))))
                }
            }
        }
    }

    fn run(&self, scan: Scan) {
        match &self.thread {
            Some(thread) => thread.run(scan),
            None => drop(self.messages.send(scan.run())),
        }
    }
}

/// A scan that has its snapshot.
struct Scan {
    ticket: ScanTicket,
    job: ScanJob,
    snapshot: Snapshot,
}

impl Scan {
    /// Reads the rows. Blocks on the disk.
    fn run(self) -> ShardMessage {
        let Self { ticket, job, snapshot } = self;
        // A panic is reported as a failure: the machine waits for every scan that it has asked for.
        let panicked = |_| Err(StoreFault::Failed("a scan of the store has panicked".into()));
        let scanned = catch_unwind(AssertUnwindSafe(|| scan(&snapshot, &job))).unwrap_or_else(panicked);
        // Closed before the answer, so that the next snapshot is not opened beside it.
        drop(snapshot);
        ShardMessage::Scanned(ticket, scanned)
    }
}

fn scan(snapshot: &Snapshot, job: &ScanJob) -> Result<ScannedRows, StoreFault> {
    let (from, to) = (Bound::Included(job.from.clone()), job.to.clone().map_or(Bound::Unbounded, Bound::Excluded));
    let limit = ScanLimit { rows: job.max_rows, bytes: job.max_bytes };
    match snapshot.step(&from, &to, limit) {
        Ok(step) => Ok(scanned(job, step)),
        Err(ScanError::Fault(fault)) => Err(fault),
        // Expired: another snapshot may live longer.
        Err(_) => Err(StoreFault::Busy),
    }
}

/// The rows of a step, with all bounds as the machine has them: the first key of a range, and its end excluded.
fn scanned(job: &ScanJob, step: ScanStep) -> ScannedRows {
    let next = step.next.map(first_key).filter(|next| job.to.as_ref().is_none_or(|to| next < to));
    let damaged = step.unreadable.iter().any(|range| range.lost_upto.is_none());
    let unreadable = step.unreadable.into_iter().map(|range| (first_key(range.from), end_key(range.to))).collect();
    ScannedRows { rows: step.rows, next, unreadable, damaged }
}

/// The first key within a lower bound.
fn first_key(bound: Bound<Bytes>) -> Bytes {
    match bound {
        Bound::Included(key) => key,
        Bound::Excluded(key) => key_after(&key),
        Bound::Unbounded => Bytes::new(),
    }
}

/// The first key behind an upper bound, `None` if there is no bound.
fn end_key(bound: Bound<Bytes>) -> Option<Bytes> {
    match bound {
        Bound::Included(key) => Some(key_after(&key)),
        Bound::Excluded(key) => Some(key),
        Bound::Unbounded => None,
    }
}

/// A thread that scans. Dropping it waits for its end, because a snapshot holds the data directory's lock, which must
/// be free when the node has stopped.
struct ScanThread {
    requests: Option<mpsc::Sender<Scan>>,
    thread: Option<JoinHandle<()>>,
}

impl ScanThread {
    fn start(shard: u16, messages: UnboundedSender<ShardMessage>) -> std::io::Result<Self> {
        let (requests, requested) = mpsc::channel::<Scan>();
        let thread = std::thread::Builder::new().name(format!("scan-{shard}")).spawn(move || {
            while let Ok(scan) = requested.recv()
                && messages.send(scan.run()).is_ok()
            {}
        })?;
        Ok(Self { requests: Some(requests), thread: Some(thread) })
    }

    fn run(&self, scan: Scan) {
        if let Some(requests) = &self.requests {
            // The thread ends after this sender, or when the shard is gone.
            let _ = requests.send(scan);
        }
    }
}

impl Drop for ScanThread {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // A panic of a scan was reported as its result.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::path::Path;
    use std::sync::Arc;

    use rejoin_core::port::{Change, Space, Store};
    use rejoin_store::{Options, OsDisk, Start};
    use tokio::sync::mpsc::UnboundedReceiver;

    fn open(dir: &Path, start: Start) -> ShardStore {
        ShardStore::open(dir, Options::default(), Arc::new(OsDisk), &start).expect("an empty folder").0
    }

    fn write(store: &mut ShardStore, key: &'static str) {
        let mut change = Change::default();
        change.put(Space::Objects, key, key);
        store.write(change).expect("room");
        store.commit().expect("a healthy disk");
    }

    fn job(from: &'static str, to: Option<&'static str>, max_rows: usize) -> ScanJob {
        ScanJob { from: from.into(), to: to.map(Bytes::from), max_rows, max_bytes: 1 << 20 }
    }

    async fn next(messages: &mut UnboundedReceiver<ShardMessage>) -> (ScanTicket, Vec<String>, Option<Bytes>) {
        let Some(ShardMessage::Scanned(ticket, scanned)) = messages.recv().await else { panic!("a result") };
        let ScannedRows { rows, next, unreadable, .. } = scanned.expect("a healthy disk");
        assert!(unreadable.is_empty(), "{unreadable:?}");
        (ticket, rows.into_iter().map(|(key, _)| String::from_utf8_lossy(&key).into_owned()).collect(), next)
    }

    async fn one_after_another(threads: Threads) {
        let dir = tempfile::tempdir().expect("a folder");
        let (messages, mut received) = tokio::sync::mpsc::unbounded_channel();
        let mut store = open(dir.path(), Start::FIRST);
        ["a", "b", "c"].into_iter().for_each(|key| write(&mut store, key));
        let mut scans = Scans::start(threads, 0, messages).expect("a thread");
        scans.request(&store, ScanTicket(1), job("", Some("c"), 1));
        write(&mut store, "aa");
        scans.request(&store, ScanTicket(2), job("a\0", Some("c"), 10));
        write(&mut store, "ab");
        assert_eq!(next(&mut received).await, (ScanTicket(1), vec!["a".into()], Some("a\0".into())));
        assert!(received.try_recv().is_err(), "the second begins when the first has ended");
        scans.ended(&store);
        let all = ["aa", "ab", "b"].map(String::from).to_vec();
        assert_eq!(next(&mut received).await, (ScanTicket(2), all, None), "with rows as of its beginning");
        scans.ended(&store);
        scans.request(&store, ScanTicket(3), job("b", None, 1));
        // While a snapshot is open, the directory is locked.
        drop((store, scans));
        drop(open(dir.path(), Start::KILLED));
    }

    #[tokio::test]
    async fn scans_run_one_after_another_each_on_a_snapshot_of_its_own() {
        one_after_another(Threads::Own).await;
        one_after_another(Threads::Shared).await;
    }

    #[test]
    fn bounds_are_given_as_first_keys_and_excluded_ends() {
        let key = || Bytes::from_static(b"k");
        assert_eq!(first_key(Bound::Included(key())), "k");
        assert_eq!(first_key(Bound::Excluded(key())), "k\0");
        assert_eq!(first_key(Bound::Unbounded), "");
        assert_eq!(end_key(Bound::Included(key())), Some("k\0".into()));
        assert_eq!(end_key(Bound::Excluded(key())), Some("k".into()));
        assert_eq!(end_key(Bound::Unbounded), None);
    }
}
