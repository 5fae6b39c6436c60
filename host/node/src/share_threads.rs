//! The threads that serve the connections of tenants which take more than their share of the processors
//! ([`ProcessorShares`]). They have a lower priority than those that serve everybody.

use std::io;
use std::thread::JoinHandle;

use tokio::runtime::Handle;

use rejoin_wire::ProcessorShares;

use crate::platform::Threads;

/// The nice value of these threads: a tenth of the share of one that serves everybody, when processors are short.
#[cfg(target_os = "linux")]
const NICE: i32 = 10;

/// The threads: as many as the runtime has. Dropping it ends them, and waits until they have ended.
pub(crate) struct ShareThreads {
    shares: ProcessorShares,
    threads: Vec<JoinHandle<()>>,
}

impl ShareThreads {
    /// Starts the threads within the runtime that the endpoint of these shares is driven by. On one thread there are
    /// none, and no tenant is held back.
    ///
    /// # Errors
    /// A thread could not be started.
    pub(crate) fn start(shares: ProcessorShares, threads: Threads) -> io::Result<Self> {
        let mut started = Self { shares, threads: Vec::new() };
        let runtime = Handle::current();
        let count = if threads == Threads::Own { runtime.metrics().num_workers() } else { 0 };
        for number in 0..count {
            let (worker, runtime) = (started.shares.worker(), runtime.clone());
            let thread = std::thread::Builder::new().name(format!("share-{number}")).spawn(move || {
                lower_priority();
                let _entered = runtime.enter();
                worker.run();
            })?;
            started.threads.push(thread);
        }
        Ok(started)
    }
}

impl Drop for ShareThreads {
    fn drop(&mut self) {
        self.shares.stop();
        for thread in self.threads.drain(..) {
            // What a thread polls does not panic out of it.
            let _ = thread.join();
        }
    }
}

/// Lowers the priority of this thread, where the system can do that for a single thread. A failure does no harm.
fn lower_priority() {
    // On Linux `None` is the calling thread. Elsewhere it would be the whole process.
    #[cfg(target_os = "linux")]
    if rustix::process::getpriority_process(None).is_ok_and(|now| now < NICE) {
        let _ = rustix::process::setpriority_process(None, NICE);
    }
}
