//! The loops of a node: a single-threaded runtime for each core that it uses, on a thread of its own.
//!
//! A shard and a connection stay on the loop that they were given: its task runs there, its timers fire there, and a
//! connection's packets are decrypted, encrypted and sent there. So nothing of a request is handed from thread to
//! thread, but a request whose shard is on another loop than its connection: that crosses the shard's queue. One
//! runtime with several threads gives each task to whichever thread is free, and a request then wakes several.
//!
//! The first loop is the runtime that the node is started in. It reads the UDP port for all, and has the tasks that are
//! neither of a shard nor of a connection.

use std::io;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, JoinSet};

/// The runtimes over which a node spreads its shards and connections.
#[derive(Clone, Default, Debug)]
pub struct Loops(Arc<[Handle]>);

impl Loops {
    /// Only the runtime in which the node is started, whatever its kind.
    #[must_use]
    pub fn current() -> Self {
        Self::default()
    }

    /// All of them, the first one first. Empty for [`Loops::current`].
    pub(crate) fn all(&self) -> &[Handle] {
        &self.0
    }

    /// The loop of a shard, for [`spawn`]. `None`: the caller's.
    pub(crate) fn of_shard(&self, index: u16) -> Option<&Handle> {
        self.0.get(usize::from(index) % self.0.len().max(1))
    }
}

/// Spawns a task of a set on a loop, or on the caller's.
pub(crate) fn spawn(
    tasks: &mut JoinSet<()>,
    on: Option<&Handle>,
    task: impl Future<Output = ()> + Send + 'static,
) -> AbortHandle {
    match on {
        Some(on) => tasks.spawn_on(task, on),
        None => tasks.spawn(task),
    }
}

/// The threads of the loops but the first. Dropping it ends them, the last one first, and waits until they have ended;
/// tasks that are left on them are dropped. A node must be stopped before.
#[derive(Debug)]
pub struct LoopThreads {
    loops: Loops,
    threads: Vec<LoopThread>,
    pinned: Option<Processors>,
}

#[derive(Debug)]
struct LoopThread {
    /// Dropped, it ends the thread.
    running: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl LoopThreads {
    /// The runtime of the first loop, to be built and run by the caller on its thread. `pin`:
    /// [`LoopThreads::pin_first`] will be called.
    #[must_use]
    pub fn first(pin: bool) -> Builder {
        builder(if pin { Processors::for_loops(1) } else { None })
    }

    /// Starts loops: that of the calling runtime, which should be single-threaded, and `count - 1` others. With `pin`
    /// each of these stays on one of the processors that this process may use, if there are that many and the system
    /// can do that; see [`LoopThreads::pin_first`] for the first one.
    ///
    /// # Errors
    /// A thread or its runtime could not be started.
    ///
    /// # Panics
    /// If it is called outside of a runtime.
    pub fn start(count: u16, pin: bool) -> io::Result<Self> {
        let pinned = if pin { Processors::for_loops(usize::from(count)) } else { None };
        let (mut handles, mut threads) = (vec![Handle::current()], Vec::new());
        for number in 1..usize::from(count) {
            let pinned = pinned.clone();
            let (started_in, started) = mpsc::sync_channel(1);
            let (running, ended) = oneshot::channel();
            let builder = std::thread::Builder::new().name(format!("loop-{number}"));
            let thread = builder.spawn(move || run(number, pinned.as_ref(), &started_in, ended))?;
            threads.push(LoopThread { running: Some(running), thread: Some(thread) });
            handles.push(started.recv().map_err(|_| io::Error::other("a loop has ended at its start"))??);
        }
        Ok(Self { loops: Loops(handles.into()), threads, pinned })
    }

    /// The loops, for a [`Platform`](crate::Platform).
    #[must_use]
    pub fn loops(&self) -> Loops {
        self.loops.clone()
    }

    /// Has the calling thread, which must be that of the first loop, stay on its processor too. Threads that it starts
    /// later would inherit that, so a node is started before.
    pub fn pin_first(&self) {
        if let Some(pinned) = &self.pinned {
            pinned.pin(0);
        }
    }
}

impl Drop for LoopThreads {
    fn drop(&mut self) {
        for LoopThread { running, thread } in self.threads.iter_mut().rev() {
            drop(running.take());
            if let Some(thread) = thread.take() {
                // Tasks do not panic out of a runtime.
                let _ = thread.join();
            }
        }
    }
}

/// The runtime of a loop.
fn builder(pinned: Option<Processors>) -> Builder {
    let mut builder = Builder::new_current_thread();
    if let Some(pinned) = pinned {
        // Threads for blocking work are started by the loop's thread, and would inherit its processor.
        builder.on_thread_start(move || pinned.free());
    }
    builder
}

/// Runs a loop until `ended` is told so.
fn run(
    number: usize,
    pinned: Option<&Processors>,
    started: &mpsc::SyncSender<io::Result<Handle>>,
    ended: oneshot::Receiver<()>,
) {
    let runtime = match builder(pinned.cloned()).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return drop(started.send(Err(error))),
    };
    if let Some(pinned) = pinned {
        pinned.pin(number);
    }
    if started.send(Ok(runtime.handle().clone())).is_err() {
        return;
    }
    // An error: the sender was dropped, which is the end.
    let _ = runtime.block_on(ended);
    // Does not wait for blocking work.
    runtime.shutdown_background();
}

/// The processors that this process might use when its loops were started.
#[cfg(target_os = "linux")]
#[derive(Clone)]
struct Processors {
    all: rustix::thread::CpuSet,
    /// One for each loop.
    of_loops: Arc<[usize]>,
}

#[cfg(target_os = "linux")]
impl Processors {
    /// `None` if there are fewer processors than loops, or the system does not say which.
    fn for_loops(count: usize) -> Option<Self> {
        let all = rustix::thread::sched_getaffinity(None).ok()?;
        let of_loops: Arc<[usize]> =
            (0..rustix::thread::CpuSet::MAX_CPU).filter(|&number| all.is_set(number)).take(count).collect();
        (of_loops.len() == count).then_some(Self { all, of_loops })
    }

    /// Has the calling thread stay on the processor of a loop. A failure does no harm.
    fn pin(&self, number: usize) {
        let mut only = rustix::thread::CpuSet::new();
        self.of_loops.get(number).into_iter().for_each(|&processor| only.set(processor));
        if let Err(error) = rustix::thread::sched_setaffinity(None, &only) {
            tracing::debug!(%error, number, "a loop is not pinned to a processor");
        }
    }

    /// Lets the calling thread run everywhere.
    fn free(&self) {
        // It stays where it is then, which is only slower.
        let _ = rustix::thread::sched_setaffinity(None, &self.all);
    }
}

#[cfg(target_os = "linux")]
impl std::fmt::Debug for Processors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Processors").field(&self.of_loops).finish()
    }
}

/// Elsewhere threads cannot be kept on a processor, or not by a safe call.
#[cfg(not(target_os = "linux"))]
#[derive(Clone, Debug)]
enum Processors {}

#[cfg(not(target_os = "linux"))]
impl Processors {
    fn for_loops(_count: usize) -> Option<Self> {
        None
    }

    fn pin(&self, _number: usize) {}

    fn free(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_spawned_on_a_loop_runs_there_until_the_loops_end() {
        // More than most machines have processors: then none is pinned.
        for (count, pin) in [(1, false), (3, false), (2, true), (200, true)] {
            let threads = LoopThreads::start(count, pin).expect("threads");
            let loops = threads.loops();
            assert_eq!(loops.all().len(), usize::from(count));
            assert_eq!(loops.all()[0].id(), Handle::current().id());
            let mut tasks = JoinSet::new();
            let (seen_in, seen) = mpsc::channel();
            for index in 0..2 * count {
                let seen_in = seen_in.clone();
                spawn(&mut tasks, loops.of_shard(index), async move {
                    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                    seen_in.send((index, std::thread::current().id(), Handle::current().id())).expect("a receiver");
                });
            }
            drop(seen_in);
            while tasks.join_next().await.is_some() {}
            let seen: Vec<_> = seen.iter().collect();
            for (index, thread, runtime) in &seen {
                assert_eq!(*runtime, loops.all()[usize::from(index % count)].id());
                let again = seen.iter().find(|(other, ..)| *other == (index + count) % (2 * count));
                assert_eq!(again.map(|(_, thread, _)| thread), Some(thread), "two shards of one loop");
            }
            let (kept, dropped) = oneshot::channel::<()>();
            spawn(&mut tasks, loops.of_shard(count - 1), async move {
                std::future::pending::<()>().await;
                drop(kept);
            });
            drop((threads, loops));
            drop(tasks);
            assert!(dropped.await.is_err(), "tasks that are left are dropped");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_pinned_thread_stays_on_its_processor_and_is_set_free_again() {
        let of_this_thread = || {
            let set = rustix::thread::sched_getaffinity(None).expect("Linux says so");
            (0..rustix::thread::CpuSet::MAX_CPU).filter(|&number| set.is_set(number)).collect::<Vec<_>>()
        };
        let before = of_this_thread();
        assert!(Processors::for_loops(before.len() + 1).is_none());
        let processors = Processors::for_loops(before.len()).expect("one for each");
        for (number, processor) in before.iter().enumerate() {
            processors.pin(number);
            assert_eq!(of_this_thread(), [*processor]);
        }
        processors.free();
        assert_eq!(of_this_thread(), before);
    }

    #[tokio::test]
    async fn without_loops_everything_is_where_the_caller_is() {
        assert!(Loops::current().of_shard(3).is_none() && Loops::current().all().is_empty());
    }
}
