//! Waits for the disk on behalf of a shard, so that the shard never does.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::thread::JoinHandle;

use rejoin_core::port::StoreFault;
use rejoin_store::{CommitSeq, Syncer};
use tokio::sync::mpsc::UnboundedSender;

use crate::driver::Notice;

/// Asks for a sync. Many wishes while one is under way become one. Dropping it ends the thread and waits for that end: it shares the
/// shard's directory, whose lock must be free when the node has stopped.
pub(crate) struct SyncRequests {
    wishes: Option<mpsc::SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl SyncRequests {
    /// Makes everything that was committed so far durable, soon.
    pub(crate) fn want(&self) {
        // Full: a sync that has not begun yet is asked for already, and will see what was committed by now.
        if let Some(wishes) = &self.wishes {
            let _ = wishes.try_send(());
        }
    }
}

impl Drop for SyncRequests {
    fn drop(&mut self) {
        self.wishes = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the sync was told as its failure; there is nothing to add here.
            let _ = thread.join();
        }
    }
}

/// Starts the thread that syncs one shard's journal. It ends when the shard drops its [`SyncRequests`], or when the disk fails.
pub(crate) fn start(shard: u16, syncer: Syncer, notices: UnboundedSender<Notice>) -> std::io::Result<SyncRequests> {
    let (wishes, wanted) = mpsc::sync_channel(1);
    let thread = std::thread::Builder::new().name(format!("sync-{shard}")).spawn(move || {
        while wanted.recv().is_ok() {
            // A thread that died in silence would leave every write without its acknowledgement, and the node none the wiser.
            let panicked = |_| Err(StoreFault::Failed("the thread that syncs the journal has panicked".into()));
            let synced: Result<CommitSeq, StoreFault> = catch_unwind(AssertUnwindSafe(|| syncer.sync())).unwrap_or_else(panicked);
            let failed = synced.is_err();
            if notices.send(Notice::Synced(synced)).is_err() || failed {
                return;
            }
        }
    })?;
    Ok(SyncRequests { wishes: Some(wishes), thread: Some(thread) })
}
