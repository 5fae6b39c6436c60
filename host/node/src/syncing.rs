//! Waits for the disk on behalf of a shard, so that the shard never does.

use std::sync::mpsc;

use rejoin_core::port::StoreFault;
use rejoin_store::{CommitSeq, Syncer};
use tokio::sync::mpsc::UnboundedSender;

use crate::driver::Notice;

/// Asks for a sync. Many wishes while one is under way become one.
pub(crate) struct SyncRequests {
    wishes: mpsc::SyncSender<()>,
}

impl SyncRequests {
    /// Makes everything that was committed so far durable, soon.
    pub(crate) fn want(&self) {
        // Full: a sync that has not begun yet is asked for already, and will see what was committed by now.
        let _ = self.wishes.try_send(());
    }
}

/// Starts the thread that syncs one shard's journal. It ends when the shard drops its [`SyncRequests`], or when the disk fails.
pub(crate) fn start(shard: u16, syncer: Syncer, notices: UnboundedSender<Notice>) -> std::io::Result<SyncRequests> {
    let (wishes, wanted) = mpsc::sync_channel(1);
    std::thread::Builder::new().name(format!("sync-{shard}")).spawn(move || {
        while wanted.recv().is_ok() {
            let synced: Result<CommitSeq, StoreFault> = syncer.sync();
            let failed = synced.is_err();
            if notices.send(Notice::Synced(synced)).is_err() || failed {
                return;
            }
        }
    })?;
    Ok(SyncRequests { wishes })
}
