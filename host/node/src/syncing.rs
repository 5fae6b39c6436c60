//! Waits for the disk on behalf of a shard, so that the shard never does, where threads are its own.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;

use rejoin_core::port::StoreFault;
use rejoin_store::{CommitSeq, Syncer};

use crate::driver::Notice;
use crate::platform::Threads;

/// Where a shard asks for a sync.
pub(crate) enum SyncRequests {
    /// At a thread, which notes when it is done.
    Thread(SyncThread),
    /// Nowhere else: it is done, and noted, at once.
    Here(Syncer, UnboundedSender<Notice>),
}

impl SyncRequests {
    /// Makes everything that was committed so far durable, soon.
    pub(crate) fn want(&self) {
        match self {
            Self::Thread(thread) => thread.want(),
            // The shard that asks holds the other end.
            Self::Here(syncer, notices) => match syncer.sync() {
                // Asked for again by the next batch that waits.
                Err(StoreFault::Busy) => {}
                synced => drop(notices.send(Notice::Synced(synced))),
            },
        }
    }
}

/// The thread that syncs. Many wishes while one is under way become one. Dropping it ends the thread and waits for that
/// end: it shares the shard's directory, whose lock must be free when the node has stopped.
pub(crate) struct SyncThread {
    wishes: Option<mpsc::SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl SyncThread {
    fn want(&self) {
        // Full: a sync that has not begun yet is asked for already, and will see what was committed by now.
        if let Some(wishes) = &self.wishes {
            let _ = wishes.try_send(());
        }
    }
}

impl Drop for SyncThread {
    fn drop(&mut self) {
        self.wishes = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the sync was told as its failure; there is nothing to add here.
            let _ = thread.join();
        }
    }
}

/// The pause while the system has no descriptor or memory for a sync.
const SHORT_PAUSE: Duration = Duration::from_millis(100);

/// A sync that waits while the system is out of something: nothing has failed, and who waits for it goes on waiting.
fn patient(syncer: &Syncer) -> Result<CommitSeq, StoreFault> {
    loop {
        match syncer.sync() {
            Err(StoreFault::Busy) => std::thread::sleep(SHORT_PAUSE),
            synced => return synced,
        }
    }
}

/// Where one shard's journal is synced. A thread ends when the shard drops its [`SyncRequests`], or when the disk
/// fails.
pub(crate) fn start(threads: Threads, shard: u16, syncer: Syncer, notices: UnboundedSender<Notice>) -> std::io::Result<SyncRequests> {
    if threads == Threads::Shared {
        return Ok(SyncRequests::Here(syncer, notices));
    }
    let (wishes, wanted) = mpsc::sync_channel(1);
    let thread = std::thread::Builder::new().name(format!("sync-{shard}")).spawn(move || {
        while wanted.recv().is_ok() {
            // A thread that died in silence would leave every write without its acknowledgement, and the node none the
            // wiser.
            let panicked = |_| Err(StoreFault::Failed("the thread that syncs the journal has panicked".into()));
            let synced: Result<CommitSeq, StoreFault> = catch_unwind(AssertUnwindSafe(|| patient(&syncer))).unwrap_or_else(panicked);
            let failed = synced.is_err();
            if notices.send(Notice::Synced(synced)).is_err() || failed {
                return;
            }
        }
    })?;
    Ok(SyncRequests::Thread(SyncThread { wishes: Some(wishes), thread: Some(thread) }))
}
