//! Work that blocks or takes long, beside the loops: reads and writes of plugin modules and of the catalog, and hashes
//! of components. On a loop it would hold up the requests of every tenant whose shard or connection is there.

use std::panic::resume_unwind;
use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::platform::Threads;

/// The most pieces of such work at once; further ones wait.
const MAX_ASIDE: u32 = 4;

/// Runs such work. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Aside {
    threads: Threads,
    permits: Arc<Semaphore>,
}

impl Aside {
    pub(crate) fn new(threads: Threads) -> Self {
        Self { threads, permits: Arc::new(Semaphore::new(MAX_ASIDE as usize)) }
    }

    /// Does work on a thread for blocking work, or with [`Threads::Shared`] at once on this one. What has begun goes on
    /// if the future is dropped.
    pub(crate) async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        if self.threads == Threads::Shared {
            return work();
        }
        // The semaphore is never closed.
        let permit = self.permits.clone().acquire_owned().await.ok();
        let work = move || {
            let done = work();
            drop(permit);
            done
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(done) => done,
            Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
            // The runtime is going, and this task with it.
            Err(_) => std::future::pending().await,
        }
    }

    /// Waits until no such work is under way, so that nothing writes to a data directory that another node may open.
    pub(crate) async fn ended(&self) {
        drop(self.permits.acquire_many(MAX_ASIDE).await);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;
    use std::thread::current;
    use std::time::Duration;

    #[tokio::test]
    async fn a_loop_goes_on_while_such_work_is_blocked() {
        let aside = Aside::new(Threads::Own);
        let (release, released) = channel();
        let blocked = aside.run(move || released.recv_timeout(Duration::from_secs(20)));
        // On the same thread, and after the work has been given away.
        let (came, ()) = tokio::join!(blocked, async { release.send(7).expect("the work waits") });
        assert_eq!(came, Ok(7));
        assert_ne!(aside.run(|| current().id()).await, current().id());
        assert_eq!(Aside::new(Threads::Shared).run(|| current().id()).await, current().id());
    }

    #[tokio::test]
    async fn what_was_dropped_is_waited_for() {
        let aside = Aside::new(Threads::Own);
        let (release, released) = channel::<()>();
        let (began, has_begun) = tokio::sync::oneshot::channel();
        let (end, ended) = channel();
        let dropped = aside.run(move || {
            let _ = began.send(());
            let _ = released.recv_timeout(Duration::from_secs(20));
            end.send(()).expect("the test waits");
        });
        tokio::select! {
            () = dropped => panic!("it is held"),
            begun = has_begun => begun.expect("it has begun"),
        }
        release.send(()).expect("the work waits");
        aside.ended().await;
        assert_eq!(ended.try_recv(), Ok(()));
    }
}
