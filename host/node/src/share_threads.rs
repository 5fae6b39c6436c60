//! The threads that serve the connections of tenants which take more than their share of the processors
//! ([`ProcessorShares`]). They have a lower priority than those that serve everybody.

use std::io;
use std::thread::JoinHandle;

use tokio::runtime::Handle;

use rejoin_wire::ProcessorShares;

use crate::loops::Loops;
use crate::platform::Threads;

/// The nice value of these threads: a tenth of the share of one that serves everybody, when processors are short.
#[cfg(target_os = "linux")]
const NICE: i32 = 10;

/// The threads: one for each loop, or as many as the only runtime has. Dropping it ends them, and waits until they have
/// ended.
pub(crate) struct ShareThreads {
    shares: ProcessorShares,
    threads: Vec<JoinHandle<()>>,
}

impl ShareThreads {
    /// Starts the threads within the runtimes that drive the connections of these shares. On one thread there are none,
    /// and no tenant is held back.
    ///
    /// # Errors
    /// A thread could not be started.
    pub(crate) fn start(shares: ProcessorShares, threads: Threads, loops: &Loops) -> io::Result<Self> {
        let mut started = Self { shares, threads: Vec::new() };
        let runtimes = match (threads, loops.all()) {
            (Threads::Shared, _) => Vec::new(),
            (Threads::Own, []) => vec![Handle::current(); Handle::current().metrics().num_workers()],
            (Threads::Own, all) => all.to_vec(),
        };
        for (number, runtime) in runtimes.into_iter().enumerate() {
            let worker = started.shares.worker();
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
