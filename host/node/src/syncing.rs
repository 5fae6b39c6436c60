//! Syncs a shard's journal on a thread of its own, so that the shard never waits for the disk.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;

use rejoin_core::port::StoreFault;
use rejoin_store::{CommitSeq, Syncer};

use crate::messages::ShardMessage;
use crate::platform::Threads;

/// How a shard asks for a sync.
pub(crate) enum SyncRequests {
    /// A thread syncs and reports the result.
    Thread(SyncThread),
    /// The caller's thread syncs at once, for tests on one thread.
    Inline(Syncer, UnboundedSender<ShardMessage>),
}

impl SyncRequests {
    /// Asks for a sync of everything that was committed so far. A [`ShardMessage::Synced`] reports the result.
    pub(crate) fn request(&self) {
        match self {
            Self::Thread(thread) => thread.request(),
            Self::Inline(syncer, messages) => match syncer.sync() {
                // The next batch asks again.
                Err(StoreFault::Busy) => {}
                // The receiver is the shard that calls this.
                synced => drop(messages.send(ShardMessage::Synced(synced))),
            },
        }
    }
}

/// A sync thread. Requests made during a sync are combined into one. Dropping it waits for the thread's end, because
/// the thread holds the data directory's lock, which must be free when the node has stopped.
pub(crate) struct SyncThread {
    requests: Option<mpsc::SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl SyncThread {
    fn request(&self) {
        // If the queue is full, a sync is requested that has not begun yet. It covers everything committed by now.
        if let Some(requests) = &self.requests {
            let _ = requests.try_send(());
        }
    }
}

impl Drop for SyncThread {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // The thread has reported a panic of the sync already.
            let _ = thread.join();
        }
    }
}

/// The pause before another try while the system has no descriptor or memory for a sync.
const BUSY_PAUSE: Duration = Duration::from_millis(100);

/// Syncs, and tries again while the system lacks a resource: nothing has failed, so the waiting requests go on waiting.
fn sync_when_possible(syncer: &Syncer) -> Result<CommitSeq, StoreFault> {
    loop {
        match syncer.sync() {
            Err(StoreFault::Busy) => std::thread::sleep(BUSY_PAUSE),
            synced => return synced,
        }
    }
}

/// Starts syncing for one shard. The thread ends when the shard drops its [`SyncRequests`], or after a failed sync.
///
/// # Errors
/// The thread could not be started.
pub(crate) fn start(
    threads: Threads,
    shard: u16,
    syncer: Syncer,
    messages: UnboundedSender<ShardMessage>,
) -> std::io::Result<SyncRequests> {
    if threads == Threads::Shared {
        return Ok(SyncRequests::Inline(syncer, messages));
    }
    let (requests, requested) = mpsc::sync_channel(1);
    let thread = std::thread::Builder::new().name(format!("sync-{shard}")).spawn(move || {
        while requested.recv().is_ok() {
            // A panic is reported as a failed sync: otherwise no write would be acknowledged, and nothing would say
            // why.
            let panicked = |_| Err(StoreFault::Failed("the thread that syncs the journal has panicked".into()));
            let synced: Result<CommitSeq, StoreFault> =
                catch_unwind(AssertUnwindSafe(|| sync_when_possible(&syncer))).unwrap_or_else(panicked);
            let failed = synced.is_err();
            if messages.send(ShardMessage::Synced(synced)).is_err() || failed {
                return;
            }
        }
    })?;
    Ok(SyncRequests::Thread(SyncThread { requests: Some(requests), thread: Some(thread) }))
}
