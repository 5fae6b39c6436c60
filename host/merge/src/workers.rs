//! Threads behind a bounded queue that is fair between groups of jobs.
//!
//! Of the groups with waiting jobs, the one whose jobs have used the least time is served next. A group that was idle
//! starts at the level of the others, so idle time earns no credit. A group uses at most all threads but one, if there
//! are several, and its waiting jobs are bounded: a job of another group always finds a place in the queue and soon a
//! thread.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::fault::HostError;
use crate::profile::WASM_STACK_BYTES;

/// The threads and waiting jobs, in all and of one group. All are at least one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct WorkerLimits {
    pub(crate) threads: usize,
    pub(crate) queue: usize,
    pub(crate) group_threads: usize,
    pub(crate) group_queue: usize,
}

/// The queue has no room for another job.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct QueueFull {
    /// The most waiting jobs.
    pub(crate) limit: usize,
    /// Whether it is the group's share that is full.
    pub(crate) of_group: bool,
}

/// A job runs, or is told that the threads have stopped. Either way it answers its caller once.
struct Job {
    run: Box<dyn FnOnce(StartSignal) + Send>,
    is_cancelled: Box<dyn Fn() -> bool + Send>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum StartSignal {
    Run,
    Stopped,
}

#[derive(Default)]
struct Group {
    jobs: VecDeque<Job>,
    running: usize,
    /// The time its jobs have used, counted from the level at which the group started.
    spent: Duration,
}

#[derive(Default)]
struct Queue {
    groups: BTreeMap<u64, Group>,
    waiting: usize,
    /// The level at which a new group starts: the time of the group that was served last.
    floor: Duration,
    stopped: bool,
}

impl Queue {
    /// The next job and its group.
    fn take(&mut self, group_threads: usize) -> Option<(u64, Job)> {
        let may_run = |group: &Group| !group.jobs.is_empty() && group.running < group_threads;
        let (&name, group) =
            self.groups.iter_mut().filter(|(_, group)| may_run(group)).min_by_key(|(_, group)| group.spent)?;
        let job = group.jobs.pop_front()?;
        group.running += 1;
        self.waiting -= 1;
        self.floor = self.floor.max(group.spent);
        Some((name, job))
    }

    fn has_run(&mut self, name: u64, took: Duration) {
        let Some(group) = self.groups.get_mut(&name) else { return };
        group.running -= 1;
        group.spent += took;
        if group.running == 0 && group.jobs.is_empty() {
            self.groups.remove(&name);
        }
    }

    fn push(&mut self, name: u64, job: Job, limits: &WorkerLimits) -> Result<(), (QueueFull, Job)> {
        if self.waiting >= limits.queue {
            self.drop_given_up();
        }
        if self.waiting >= limits.queue {
            return Err((QueueFull { limit: limits.queue, of_group: false }, job));
        }
        let floor = self.floor;
        let group = self.groups.entry(name).or_insert_with(|| Group { spent: floor, ..Group::default() });
        if group.jobs.len() >= limits.group_queue {
            return Err((QueueFull { limit: limits.group_queue, of_group: true }, job));
        }
        group.jobs.push_back(job);
        self.waiting += 1;
        Ok(())
    }

    /// Drops cancelled jobs. Their callers are gone, so they are not answered.
    fn drop_given_up(&mut self) {
        for group in self.groups.values_mut() {
            group.jobs.retain(|job| !(job.is_cancelled)());
        }
        self.groups.retain(|_, group| group.running > 0 || !group.jobs.is_empty());
        self.waiting = self.groups.values().map(|group| group.jobs.len()).sum();
    }
}

struct Shared {
    queue: Mutex<Queue>,
    ready: Condvar,
    limits: WorkerLimits,
}

impl Shared {
    /// A panic of a job is caught, so it never poisons the lock, and the queue is consistent at every unlock.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The loop of a thread.
    fn work(&self) {
        let mut queue = self.lock();
        loop {
            if queue.stopped {
                return;
            }
            let Some((group, job)) = queue.take(self.limits.group_threads) else {
                queue = self.ready.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(queue);
            let began = Instant::now();
            // Panics of the work are answered as failures. A panic of the caller's `done` must not end the thread.
            if catch_unwind(AssertUnwindSafe(|| (job.run)(StartSignal::Run))).is_err() {
                tracing::error!("what was to be done with a job's outcome panicked; the thread goes on");
            }
            queue = self.lock();
            queue.has_run(group, began.elapsed());
        }
    }
}

/// Stops the threads when the last handle is dropped. A thread ends after its present job; waiting jobs are answered
/// with *stopped*.
struct Threads(Arc<Shared>);

impl Drop for Threads {
    fn drop(&mut self) {
        let mut queue = self.0.lock();
        queue.stopped = true;
        let left = std::mem::take(&mut queue.groups);
        drop(queue);
        self.0.ready.notify_all();
        left.into_values().flat_map(|group| group.jobs).for_each(|job| (job.run)(StartSignal::Stopped));
    }
}

/// The threads and their queue. Cloning is cheap; the threads end with the last clone.
#[derive(Clone)]
pub(crate) struct Workers(Arc<Threads>);

impl std::fmt::Debug for Workers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Workers").field("waiting", &self.waiting()).finish_non_exhaustive()
    }
}

impl Workers {
    pub(crate) fn new(name: &str, limits: WorkerLimits) -> Result<Self, HostError> {
        let threads = limits.threads.max(1);
        let limits = WorkerLimits {
            threads,
            queue: limits.queue.max(1),
            group_threads: limits.group_threads.clamp(1, threads),
            group_queue: limits.group_queue.clamp(1, limits.queue.max(1)),
        };
        let shared = Arc::new(Shared { queue: Mutex::default(), ready: Condvar::new(), limits });
        let workers = Self(Arc::new(Threads(shared.clone())));
        for number in 0..threads {
            let shared = shared.clone();
            // The guest's stack is part of the thread's; 4 MiB more are for the host's frames and the compiler.
            let builder =
                std::thread::Builder::new().name(format!("{name}-{number}")).stack_size(WASM_STACK_BYTES + (4 << 20));
            builder.spawn(move || shared.work())?;
        }
        Ok(workers)
    }

    pub(crate) fn waiting(&self) -> usize {
        self.0.0.lock().waiting
    }

    /// Runs `work` on a thread and passes its result to `done`, or the result of `failed` if the threads stop or `work`
    /// panics.
    pub(crate) fn submit<T: 'static>(
        &self,
        group: u64,
        is_cancelled: impl Fn() -> bool + Send + 'static,
        work: impl FnOnce() -> T + Send + 'static,
        failed: impl FnOnce(String) -> T + Send + 'static,
        done: impl FnOnce(T) + Send + 'static,
    ) -> Result<(), QueueFull> {
        let run = move |turn| {
            done(match turn {
                StartSignal::Stopped => failed(STOPPED.into()),
                // A panic of this crate or the engine, never of the guest. It must not end the thread.
                StartSignal::Run => {
                    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| failed(panic_message(&*panic)))
                }
            });
        };
        let shared = &self.0.0;
        let pushed =
            shared.lock().push(group, Job { run: Box::new(run), is_cancelled: Box::new(is_cancelled) }, &shared.limits);
        // A refused job is dropped here, outside of the lock: dropping it may run the caller's code.
        pushed.map_err(|(full, _job)| full)?;
        shared.ready.notify_one();
        Ok(())
    }
}

/// The reason given to a waiting job when the threads stop.
pub(crate) const STOPPED: &str = "the node is stopping";

pub(crate) fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text =
        panic.downcast_ref::<&str>().map(ToString::to_string).or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "a panic without a message".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: WorkerLimits = WorkerLimits { threads: 3, queue: 10, group_threads: 2, group_queue: 4 };

    fn job() -> Job {
        Job { run: Box::new(|_| ()), is_cancelled: Box::new(|| false) }
    }

    fn queue(groups: &[u64]) -> Queue {
        let mut queue = Queue::default();
        for group in groups {
            assert!(queue.push(*group, job(), &LIMITS).is_ok());
        }
        queue
    }

    fn next(queue: &mut Queue) -> Option<u64> {
        queue.take(LIMITS.group_threads).map(|(group, _)| group)
    }

    #[test]
    fn one_group_never_has_all_threads_nor_all_places() {
        let mut queue = queue(&[1, 1, 1, 1]);
        assert_eq!(
            queue.push(1, job(), &LIMITS).err().map(|(full, _)| full),
            Some(QueueFull { limit: 4, of_group: true })
        );
        assert_eq!([next(&mut queue), next(&mut queue), next(&mut queue)], [Some(1), Some(1), None]);
        assert!(queue.push(2, job(), &LIMITS).is_ok());
        assert_eq!(next(&mut queue), Some(2), "the third thread is for others");
    }

    #[test]
    fn who_has_taken_the_least_time_is_next() {
        let mut queue = queue(&[1, 1, 1, 2, 2, 2]);
        assert_eq!(next(&mut queue), Some(1));
        queue.has_run(1, Duration::from_millis(500));
        for _ in 0..2 {
            assert_eq!(next(&mut queue), Some(2));
            queue.has_run(2, Duration::from_millis(1));
        }
        assert!(queue.push(3, job(), &LIMITS).is_ok());
        assert_eq!(next(&mut queue), Some(3), "a newcomer begins where the others are");
        queue.has_run(3, Duration::from_millis(1));
        assert_eq!(next(&mut queue), Some(2));
        queue.has_run(2, Duration::from_millis(1));
        assert_eq!([next(&mut queue), next(&mut queue), next(&mut queue)], [Some(1), Some(1), None]);
    }

    #[test]
    fn idleness_saves_nothing_up() {
        let mut queue = queue(&[1, 1, 1]);
        for _ in 0..2 {
            assert_eq!(next(&mut queue), Some(1));
            queue.has_run(1, Duration::from_secs(1));
        }
        assert_eq!(next(&mut queue), Some(1));
        for _ in 0..3 {
            assert!(queue.push(2, job(), &LIMITS).is_ok());
        }
        assert!(queue.groups[&2].spent >= Duration::from_secs(2), "it was idle while the other worked");
    }

    #[test]
    fn groups_that_have_nothing_are_forgotten() {
        let mut queue = queue(&[1, 2]);
        for _ in 0..2 {
            let group = next(&mut queue).expect("one waits");
            queue.has_run(group, Duration::from_millis(1));
        }
        assert!(queue.groups.is_empty() && queue.waiting == 0);
    }

    #[test]
    fn what_was_given_up_makes_room_when_room_is_needed() {
        let mut queue = Queue::default();
        for group in 0..10 {
            let is_cancelled = Job { run: Box::new(|_| ()), is_cancelled: Box::new(|| true) };
            assert!(queue.push(group, is_cancelled, &LIMITS).is_ok());
        }
        assert!(queue.push(1, job(), &LIMITS).is_ok());
        assert_eq!((queue.waiting, queue.groups.len()), (1, 1));
    }
}
