//! Threads behind a bounded queue that is fair between tenants, and between the groups of jobs of each.
//!
//! Of the tenants with waiting jobs, the one is served next whose jobs have used the least time for its weight, and of
//! its groups the one whose jobs have used the least. It is start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM
//! 1996) by time that is known afterwards. Who was idle starts at the level of the others, so idle time earns no
//! credit. A tenant uses at most all threads but one, if there are several, and a group at most all of its tenant's but
//! one; the waiting jobs of both are bounded. So a job of another tenant or group always finds a place in the queue and
//! soon a thread.
//!
//! A group whose jobs usually take long runs on threads of lower priority. With the others' priority a few of them keep
//! the threads that serve requests, and the short jobs, from a processor for some milliseconds at each step of a
//! request. Such a thread exists beside each other one, and the number of running jobs is bounded for both together.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::fault::{HostError, QueueOf};
use crate::profile::WASM_STACK_BYTES;

/// A job takes long if it takes this much of a processor's time.
const LONG_JOB: Duration = Duration::from_millis(10);
/// The most tenants and groups whose usual time is remembered.
const MAX_KNOWN: usize = 1_024;
/// The nice value of the threads for long jobs: a tenth of the share of a thread that serves, when processors are
/// short.
const NICE: i32 = 10;
/// That of the threads for what nobody waits for: the highest there is, about a seventieth.
const LEAST_NICE: i32 = 19;

/// A tenant, and its share where tenants wait for each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TenantShare {
    /// The tenant.
    pub tenant: u64,
    /// Its weight in relation to the others'; 0 is taken for 1.
    pub weight: u32,
}

impl Default for TenantShare {
    /// A single tenant.
    fn default() -> Self {
        Self { tenant: 0, weight: 1 }
    }
}

/// Whose job it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Whose {
    pub(crate) tenant: TenantShare,
    /// The group of its tenant, such as a bucket.
    pub(crate) group: u64,
}

/// The threads and waiting jobs, in all, of one tenant and of one group. All are at least one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct WorkerLimits {
    pub(crate) threads: usize,
    pub(crate) queue: usize,
    pub(crate) tenant_threads: usize,
    pub(crate) tenant_queue: usize,
    pub(crate) group_threads: usize,
    pub(crate) group_queue: usize,
}

impl WorkerLimits {
    /// With nothing below one, and with a thread left to other groups where there are several.
    fn checked(self) -> Self {
        let (threads, queue) = (self.threads.max(1), self.queue.max(1));
        let tenant_threads = self.tenant_threads.clamp(1, threads);
        let tenant_queue = self.tenant_queue.clamp(1, queue);
        // Where a tenant has one thread, so has a group.
        let most_of_group = if tenant_threads > 1 && threads > 1 { tenant_threads - 1 } else { tenant_threads };
        Self {
            threads,
            queue,
            tenant_threads,
            tenant_queue,
            group_threads: self.group_threads.clamp(1, most_of_group),
            group_queue: self.group_queue.clamp(1, tenant_queue),
        }
    }
}

/// The queue has no room for another job.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct QueueFull {
    /// The most waiting jobs.
    pub(crate) limit: usize,
    /// Whose share it is that is full.
    pub(crate) of: QueueOf,
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

/// Which of the threads run a group's jobs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Lane {
    Short,
    Long,
}

impl Lane {
    const ALL: [Self; 2] = [Self::Short, Self::Long];
}

/// What the jobs of tenants and groups usually take of a processor.
#[derive(Default)]
struct UsualTimes(BTreeMap<(u64, Option<u64>), Duration>);

impl UsualTimes {
    fn note(&mut self, tenant: u64, group: u64, took: Duration) {
        for key in [(tenant, Some(group)), (tenant, None)] {
            if let Some(usual) = self.0.get_mut(&key) {
                *usual = (*usual * 3 + took) / 4;
                continue;
            }
            if self.0.len() >= MAX_KNOWN {
                self.0.pop_first();
            }
            self.0.insert(key, took);
        }
    }

    /// Where a group's jobs run. One that is not known yet is taken for one like the others of its tenant.
    fn lane(&self, tenant: u64, group: u64) -> Lane {
        let usual = self.0.get(&(tenant, Some(group))).or_else(|| self.0.get(&(tenant, None)));
        if usual.is_some_and(|usual| *usual >= LONG_JOB) { Lane::Long } else { Lane::Short }
    }
}

#[derive(Default)]
struct Group {
    jobs: VecDeque<Job>,
    running: usize,
    /// The time its jobs have used, counted from the level at which the group started.
    spent: Duration,
}

impl Group {
    fn is_idle(&self) -> bool {
        self.running == 0 && self.jobs.is_empty()
    }

    fn may_run(&self, most: usize) -> bool {
        !self.jobs.is_empty() && self.running < most
    }
}

#[derive(Default)]
struct Tenant {
    groups: BTreeMap<u64, Group>,
    weight: u32,
    waiting: usize,
    running: usize,
    /// The time its jobs have used, divided by its weight, counted from the level at which the tenant started.
    spent: Duration,
    /// The level at which a new group starts: the time of the group that was served last.
    floor: Duration,
}

impl Tenant {
    fn is_idle(&self) -> bool {
        self.running == 0 && self.waiting == 0
    }

    fn may_run(&self, limits: &WorkerLimits, is_of_lane: impl Fn(u64) -> bool) -> bool {
        let mut groups = self.groups.iter().filter(|(name, _)| is_of_lane(**name));
        self.running < limits.tenant_threads && groups.any(|(_, group)| group.may_run(limits.group_threads))
    }

    /// Forgets idle groups that the others have caught up with.
    fn forget(&mut self) {
        let (floor, idle) = (self.floor, self.is_idle());
        self.groups.retain(|_, group| !group.is_idle() || !idle && group.spent > floor);
    }
}

#[derive(Default)]
struct Queue {
    tenants: BTreeMap<u64, Tenant>,
    waiting: usize,
    running: usize,
    usual: UsualTimes,
    /// The level at which a tenant starts that has nothing to do: the time of the tenant that was served last.
    floor: Duration,
    stopped: bool,
}

impl Queue {
    /// The next job for a thread of that lane, its tenant and its group.
    fn take(&mut self, limits: &WorkerLimits, lane: Lane) -> Option<(u64, u64, Job)> {
        if self.running >= limits.threads {
            return None;
        }
        let usual = &self.usual;
        let is_of_lane = |tenant: u64| move |group: u64| usual.lane(tenant, group) == lane;
        let ready = self.tenants.iter_mut().filter(|(key, tenant)| tenant.may_run(limits, is_of_lane(**key)));
        let (&key, tenant) = ready.min_by_key(|(_, tenant)| tenant.spent)?;
        let is_of_lane = is_of_lane(key);
        let ready = tenant.groups.iter_mut().filter(|(name, _)| is_of_lane(**name));
        let ready = ready.filter(|(_, group)| group.may_run(limits.group_threads));
        let (&name, group) = ready.min_by_key(|(_, group)| group.spent)?;
        let job = group.jobs.pop_front()?;
        group.running += 1;
        tenant.floor = tenant.floor.max(group.spent);
        tenant.running += 1;
        tenant.waiting -= 1;
        self.waiting -= 1;
        self.running += 1;
        self.floor = self.floor.max(tenant.spent);
        Some((key, name, job))
    }

    fn has_run(&mut self, key: u64, name: u64, took: Duration) {
        self.running -= 1;
        let Some(tenant) = self.tenants.get_mut(&key) else { return };
        tenant.running -= 1;
        tenant.spent += took / tenant.weight.max(1);
        if let Some(group) = tenant.groups.get_mut(&name) {
            group.running -= 1;
            group.spent += took;
        }
        self.forget();
    }

    /// Forgets what is idle, except who has used more time than those who wait: it must not begin at their level.
    fn forget(&mut self) {
        let floor = self.floor;
        self.tenants.values_mut().for_each(Tenant::forget);
        let all_idle = self.tenants.values().all(Tenant::is_idle);
        self.tenants.retain(|_, tenant| !tenant.is_idle() || !all_idle && tenant.spent > floor);
    }

    fn push(&mut self, whose: Whose, job: Job, limits: &WorkerLimits) -> Result<(), (QueueFull, Job)> {
        let full = |limit, of| QueueFull { limit, of };
        let is_full = |queue: &Self| {
            let of_tenant = queue.tenants.get(&whose.tenant.tenant).map_or(0, |tenant| tenant.waiting);
            queue.waiting >= limits.queue || of_tenant >= limits.tenant_queue
        };
        if is_full(self) {
            self.drop_given_up();
        }
        if self.waiting >= limits.queue {
            return Err((full(limits.queue, QueueOf::All), job));
        }
        let floor = self.floor;
        let tenant = self.tenants.entry(whose.tenant.tenant).or_default();
        tenant.weight = whose.tenant.weight;
        if tenant.waiting >= limits.tenant_queue {
            return Err((full(limits.tenant_queue, QueueOf::Tenant), job));
        }
        if tenant.is_idle() {
            tenant.spent = tenant.spent.max(floor);
        }
        let floor = tenant.floor;
        let group = tenant.groups.entry(whose.group).or_default();
        if group.jobs.len() >= limits.group_queue {
            return Err((full(limits.group_queue, QueueOf::Bucket), job));
        }
        if group.is_idle() {
            group.spent = group.spent.max(floor);
        }
        group.jobs.push_back(job);
        tenant.waiting += 1;
        self.waiting += 1;
        Ok(())
    }

    /// Drops cancelled jobs. Their callers are gone, so they are not answered.
    fn drop_given_up(&mut self) {
        for tenant in self.tenants.values_mut() {
            for group in tenant.groups.values_mut() {
                group.jobs.retain(|job| !(job.is_cancelled)());
            }
            tenant.waiting = tenant.groups.values().map(|group| group.jobs.len()).sum();
        }
        self.waiting = self.tenants.values().map(|tenant| tenant.waiting).sum();
        self.forget();
    }
}

struct Shared {
    queue: Mutex<Queue>,
    /// One for each lane, in the order of [`Lane::ALL`].
    ready: [Condvar; 2],
    limits: WorkerLimits,
}

impl Shared {
    /// A panic of a job is caught, so it never poisons the lock, and the queue is consistent at every unlock.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ready(&self, lane: Lane) -> &Condvar {
        &self.ready[lane as usize]
    }

    /// The loop of a thread.
    fn work(&self, lane: Lane) {
        let mut queue = self.lock();
        loop {
            if queue.stopped {
                return;
            }
            let Some((tenant, group, job)) = queue.take(&self.limits, lane) else {
                queue = self.ready(lane).wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(queue);
            let (began, used) = (Instant::now(), processor_time());
            // Panics of the work are answered as failures. A panic of the caller's `done` must not end the thread.
            if catch_unwind(AssertUnwindSafe(|| (job.run)(StartSignal::Run))).is_err() {
                tracing::error!("what was to be done with a job's outcome panicked; the thread goes on");
            }
            let used = processor_time().saturating_sub(used);
            queue = self.lock();
            queue.usual.note(tenant, group, used);
            queue.has_run(tenant, group, began.elapsed());
            if queue.waiting > 0 {
                // There is room for a job of either lane, and one that waits may be of the other lane from now on.
                Lane::ALL.iter().for_each(|lane| self.ready(*lane).notify_one());
            }
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
        let left = std::mem::take(&mut queue.tenants);
        drop(queue);
        self.0.ready.iter().for_each(Condvar::notify_all);
        let groups = left.into_values().flat_map(|tenant| tenant.groups.into_values());
        groups.flat_map(|group| group.jobs).for_each(|job| (job.run)(StartSignal::Stopped));
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
        Self::start(name, limits, |lane| (lane == Lane::Long).then_some(NICE))
    }

    /// Threads of the lowest priority, for what nobody waits for.
    pub(crate) fn in_background(name: &str, limits: WorkerLimits) -> Result<Self, HostError> {
        Self::start(name, limits, |_| Some(LEAST_NICE))
    }

    /// Starts threads, those of a lane with that nice value.
    fn start(name: &str, limits: WorkerLimits, nice: fn(Lane) -> Option<i32>) -> Result<Self, HostError> {
        let limits = limits.checked();
        let shared = Arc::new(Shared { queue: Mutex::default(), ready: Default::default(), limits });
        let workers = Self(Arc::new(Threads(shared.clone())));
        for (number, lane) in (0..limits.threads).flat_map(|number| Lane::ALL.map(|lane| (number, lane))) {
            let shared = shared.clone();
            let name = format!("{}{name}-{number}", if lane == Lane::Long { "long-" } else { "" });
            // The guest's stack is part of the thread's; 4 MiB more are for the host's frames and the compiler.
            let builder = std::thread::Builder::new().name(name).stack_size(WASM_STACK_BYTES + (4 << 20));
            builder.spawn(move || {
                if let Some(nice) = nice(lane) {
                    lower_priority(nice);
                }
                shared.work(lane);
            })?;
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
        whose: Whose,
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
        let job = Job { run: Box::new(run), is_cancelled: Box::new(is_cancelled) };
        let mut queue = shared.lock();
        let pushed = queue.push(whose, job, &shared.limits);
        let lane = queue.usual.lane(whose.tenant.tenant, whose.group);
        drop(queue);
        // A refused job is dropped here, outside of the lock: dropping it may run the caller's code.
        pushed.map_err(|(full, _job)| full)?;
        shared.ready(lane).notify_one();
        Ok(())
    }
}

/// What this thread has used of a processor since it was started.
fn processor_time() -> Duration {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let (seconds, nanos) = (u64::try_from(used.tv_sec).unwrap_or(0), u32::try_from(used.tv_nsec).unwrap_or(0));
    Duration::new(seconds, nanos)
}

/// Lowers the priority of this thread, where the system can do that for a single thread. A failure does no harm.
fn lower_priority(nice: i32) {
    // On Linux `None` is the calling thread. Elsewhere it would be the whole process.
    if cfg!(target_os = "linux") && rustix::process::getpriority_process(None).is_ok_and(|now| now < nice) {
        let _ = rustix::process::setpriority_process(None, nice);
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

    const LIMITS: WorkerLimits =
        WorkerLimits { threads: 4, queue: 10, tenant_threads: 3, tenant_queue: 6, group_threads: 2, group_queue: 4 };
    /// The only tenant of most tests.
    const ONE: u64 = 1;

    fn job() -> Job {
        Job { run: Box::new(|_| ()), is_cancelled: Box::new(|| false) }
    }

    fn of(tenant: u64, group: u64) -> Whose {
        Whose { tenant: TenantShare { tenant, weight: 1 }, group }
    }

    fn push(queue: &mut Queue, whose: Whose) -> Result<(), QueueFull> {
        queue.push(whose, job(), &LIMITS).map_err(|(full, _)| full)
    }

    fn queue(groups: &[u64]) -> Queue {
        let mut queue = Queue::default();
        for group in groups {
            assert!(push(&mut queue, of(ONE, *group)).is_ok());
        }
        queue
    }

    /// The tenant and group that are next.
    fn next(queue: &mut Queue) -> Option<(u64, u64)> {
        queue.take(&LIMITS, Lane::Short).map(|(tenant, group, _)| (tenant, group))
    }

    /// The group that is next, where there is one tenant.
    fn group(queue: &mut Queue) -> Option<u64> {
        next(queue).map(|(_, group)| group)
    }

    #[test]
    fn one_group_never_has_all_threads_nor_all_places_of_its_tenant() {
        let mut queue = queue(&[1, 1, 1, 1]);
        assert_eq!(push(&mut queue, of(ONE, 1)), Err(QueueFull { limit: 4, of: QueueOf::Bucket }));
        assert_eq!([group(&mut queue), group(&mut queue), group(&mut queue)], [Some(1), Some(1), None]);
        assert!(push(&mut queue, of(ONE, 2)).is_ok());
        assert_eq!(group(&mut queue), Some(2), "the third thread is for others");
    }

    #[test]
    fn one_tenant_never_has_all_threads_nor_all_places() {
        let mut queue = queue(&[1, 2, 3, 4, 5, 6]);
        assert_eq!(push(&mut queue, of(ONE, 7)), Err(QueueFull { limit: 6, of: QueueOf::Tenant }));
        assert_eq!([group(&mut queue), group(&mut queue), group(&mut queue)], [Some(1), Some(2), Some(3)]);
        assert_eq!(group(&mut queue), None, "the fourth thread is for other tenants");
        assert!(push(&mut queue, of(2, 1)).is_ok());
        assert_eq!(next(&mut queue), Some((2, 1)));
        let full = (0..10).find_map(|group| push(&mut queue, of(3 + group, 1)).err());
        assert_eq!(full, Some(QueueFull { limit: 10, of: QueueOf::All }));
    }

    #[test]
    fn tenants_get_time_by_their_weights_however_many_buckets_they_have() {
        let mut queue = Queue::default();
        let heavy = |group| Whose { tenant: TenantShare { tenant: 1, weight: 3 }, group };
        let (mut served, mut number) = ([0_u32; 3], 0);
        for _ in 0..40 {
            // Both always wait, the lighter one in three buckets.
            for (tenant, groups) in [(1, 1), (2, 3)] {
                while queue.tenants.get(&tenant).is_none_or(|known| known.waiting < 3) {
                    number += 1;
                    let whose = if tenant == 1 { heavy(7) } else { of(2, number % groups) };
                    assert!(push(&mut queue, whose).is_ok());
                }
            }
            let (tenant, group) = next(&mut queue).expect("both wait");
            served[usize::try_from(tenant).expect("small")] += 1;
            queue.has_run(tenant, group, Duration::from_millis(10));
        }
        assert_eq!(served, [0, 30, 10]);
    }

    #[test]
    fn who_has_taken_the_least_time_is_next() {
        let mut queue = queue(&[1, 1, 1, 2, 2, 2]);
        assert_eq!(group(&mut queue), Some(1));
        queue.has_run(ONE, 1, Duration::from_millis(500));
        for _ in 0..2 {
            assert_eq!(group(&mut queue), Some(2));
            queue.has_run(ONE, 2, Duration::from_millis(1));
        }
        assert!(push(&mut queue, of(ONE, 3)).is_ok());
        assert_eq!(group(&mut queue), Some(3), "a newcomer begins where the others are");
        queue.has_run(ONE, 3, Duration::from_millis(1));
        assert_eq!(group(&mut queue), Some(2));
        queue.has_run(ONE, 2, Duration::from_millis(1));
        assert_eq!([group(&mut queue), group(&mut queue), group(&mut queue)], [Some(1), Some(1), None]);
    }

    #[test]
    fn idleness_saves_nothing_up() {
        let mut queue = queue(&[1, 1, 1]);
        for _ in 0..2 {
            assert_eq!(next(&mut queue), Some((ONE, 1)));
            queue.has_run(ONE, 1, Duration::from_secs(1));
        }
        assert_eq!(next(&mut queue), Some((ONE, 1)));
        assert!(push(&mut queue, of(ONE, 2)).is_ok() && push(&mut queue, of(2, 1)).is_ok());
        assert!(queue.tenants[&ONE].groups[&2].spent >= Duration::from_secs(2), "it was idle while the other worked");
        assert!(queue.tenants[&2].spent >= Duration::from_secs(2), "so was the other tenant");
    }

    #[test]
    fn a_tenant_that_stops_for_a_moment_still_owes_what_it_has_used() {
        let mut queue = Queue::default();
        for _ in 0..3 {
            assert!(push(&mut queue, of(2, 1)).is_ok());
        }
        assert!(push(&mut queue, of(ONE, 1)).is_ok());
        assert_eq!(next(&mut queue), Some((ONE, 1)));
        queue.has_run(ONE, 1, Duration::from_secs(1));
        // It had nothing waiting, and comes back at once.
        assert!(push(&mut queue, of(ONE, 1)).is_ok());
        for _ in 0..3 {
            assert_eq!(next(&mut queue), Some((2, 1)));
            queue.has_run(2, 1, Duration::from_millis(100));
        }
        assert_eq!(next(&mut queue), Some((ONE, 1)));
    }

    #[test]
    fn groups_and_tenants_that_have_nothing_are_forgotten() {
        let mut queue = queue(&[1, 2]);
        assert!(push(&mut queue, of(2, 1)).is_ok());
        for _ in 0..3 {
            let (tenant, group) = next(&mut queue).expect("one waits");
            queue.has_run(tenant, group, Duration::from_millis(1));
        }
        assert!(queue.tenants.is_empty() && queue.waiting == 0);
    }

    #[test]
    fn long_jobs_have_threads_of_their_own_and_both_kinds_share_the_limit() {
        let mut queue = queue(&[1]);
        let (long, short) = (Duration::from_secs(1), Duration::from_millis(1));
        queue.usual.note(ONE, 2, long);
        queue.usual.note(ONE, 1, short);
        for whose in [of(ONE, 2), of(2, 1), of(3, 1)] {
            assert!(push(&mut queue, whose).is_ok());
        }
        queue.usual.note(3, 7, long);
        let take = |queue: &mut Queue, lane| queue.take(&LIMITS, lane).map(|(tenant, group, _)| (tenant, group));
        assert_eq!(take(&mut queue, Lane::Long), Some((ONE, 2)));
        assert_eq!(take(&mut queue, Lane::Long), Some((3, 1)), "its tenant's other group has long jobs");
        assert_eq!(take(&mut queue, Lane::Long), None);
        assert_eq!(take(&mut queue, Lane::Short), Some((ONE, 1)));
        assert_eq!(take(&mut queue, Lane::Short), Some((2, 1)));
        assert!(push(&mut queue, of(4, 1)).is_ok());
        assert_eq!(take(&mut queue, Lane::Short), None, "four jobs run");
        queue.has_run(3, 1, long);
        assert_eq!(take(&mut queue, Lane::Short), Some((4, 1)));
    }

    #[test]
    fn a_group_whose_jobs_become_short_changes_its_threads() {
        let mut usual = UsualTimes::default();
        usual.note(ONE, 1, Duration::from_secs(1));
        assert_eq!((usual.lane(ONE, 1), usual.lane(ONE, 2), usual.lane(2, 1)), (Lane::Long, Lane::Long, Lane::Short));
        (0..20).for_each(|_| usual.note(ONE, 1, Duration::from_micros(100)));
        assert_eq!(usual.lane(ONE, 1), Lane::Short);
        (0..5_000).for_each(|group| usual.note(2, group, Duration::ZERO));
        assert!(usual.0.len() <= MAX_KNOWN);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn only_threads_for_long_jobs_have_a_lower_priority() {
        let nice = || rustix::process::getpriority_process(None).expect("a priority");
        let (own, workers) = (nice(), Workers::new("test", LIMITS).expect("threads"));
        let run = |work: fn()| {
            let (tell, told) = std::sync::mpsc::channel();
            let work = move || {
                work();
                rustix::process::getpriority_process(None).expect("a priority")
            };
            let done = move |priority: i32| tell.send(priority).expect("it is waited for");
            let failed = |why: String| -> i32 { panic!("{why}") };
            assert!(workers.submit(of(ONE, 1), || false, work, failed, done).is_ok());
            told.recv().expect("it has run")
        };
        let work = || {
            let until = processor_time() + 2 * LONG_JOB;
            while processor_time() < until {}
        };
        assert_eq!(run(work), own, "it is not known yet");
        // What was seen of the first job is noted after it was answered.
        let lowered = (0..1_000).map(|_| run(work)).find(|nice| *nice != own);
        assert_eq!(lowered, Some(NICE.max(own)));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn threads_for_what_nobody_waits_for_have_the_lowest_priority() {
        let workers = Workers::in_background("test", LIMITS).expect("threads");
        let (tell, told) = std::sync::mpsc::channel();
        let work = || rustix::process::getpriority_process(None).expect("a priority");
        let done = move |priority: i32| tell.send(priority).expect("it is waited for");
        let failed = |why: String| -> i32 { panic!("{why}") };
        assert!(workers.submit(of(ONE, 1), || false, work, failed, done).is_ok());
        assert_eq!(told.recv(), Ok(LEAST_NICE));
    }

    #[test]
    fn what_was_given_up_makes_room_when_room_is_needed() {
        let mut queue = Queue::default();
        for tenant in 0..10 {
            let is_cancelled = Job { run: Box::new(|_| ()), is_cancelled: Box::new(|| true) };
            assert!(queue.push(of(tenant, 1), is_cancelled, &LIMITS).is_ok());
        }
        assert!(push(&mut queue, of(1, 1)).is_ok());
        assert_eq!((queue.waiting, queue.tenants.len()), (1, 1));
    }
}
