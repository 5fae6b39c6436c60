//! Processor time of accepted clients: who takes more than its share is served by threads of its own.
//!
//! Decrypting and encrypting the packets of a client, cutting them into frames and decoding these is most of what a
//! small request costs. All of it runs in tasks of the client's connection. Each such task is of a *flow*, which is
//! whom the client is to be charged to. What a task takes of a processor is charged to its flow, and every
//! [`REVIEW_US`] the flows are compared. The tasks of a flow that has taken more than its share are from then on not
//! polled by the runtime, whose threads serve everybody, but by [`ShareWorker`]s. Among flows they go by start-time
//! fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996), and the caller gives their threads a lower priority. So the
//! tasks of the other flows neither queue behind those of a greedy one nor wait for a processor that works for it, and
//! what they leave over is the greedy one's.
//!
//! A client that has not shown yet who it is is of the flow of newcomers: all handshakes together have one share. A
//! single flow is never held back, and without workers none is. While there is one flow beside newcomers that take next
//! to nothing, there is nothing to compare: its tasks are polled as if there were no flows, without a clock.

mod queue;
mod task;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Condvar, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Instant,
};

use queue::Queue;
use task::Task;
pub(crate) use task::{Share, SharedRuntime};

use crate::runtime::lock;

/// How often the flows are compared, in microseconds. What they have taken before counts half as much each time.
const REVIEW_US: u64 = 50_000;
/// A flow takes part for so long after it has last taken anything, in microseconds.
const ACTIVE_US: u64 = 1_000_000;
/// What all flows take together before any is held back: an eighth of a processor's time.
const BUSY_NS: u64 = 2 * REVIEW_US * 1_000 / 8;
/// While newcomers take less than this beside one flow, that flow's tasks are not measured: a hundredth of a
/// processor's time.
const FEW_NS: u64 = 2 * REVIEW_US * 1_000 / 100;
/// A flow is held back that has taken more than its share and a quarter.
const TOLERANCE: (u128, u128) = (5, 4);

/// Whom processor time is charged to.
#[derive(Debug)]
struct Flow {
    /// `None` for newcomers.
    key: Option<u64>,
    weight: AtomicU64,
    /// Nanoseconds taken since the flows were last compared.
    taken: AtomicU64,
    /// Its tasks are for the workers.
    is_held: AtomicBool,
}

impl Flow {
    fn new(key: Option<u64>, weight: u32) -> Arc<Self> {
        Arc::new(Self {
            key,
            weight: AtomicU64::new(u64::from(weight.max(1))),
            taken: AtomicU64::new(0),
            is_held: AtomicBool::new(false),
        })
    }
}

/// What is remembered of a flow between two comparisons.
#[derive(Debug)]
struct Standing {
    flow: Weak<Flow>,
    level_ns: u64,
    last_us: u64,
}

#[derive(Debug, Default)]
struct Flows {
    known: BTreeMap<Option<u64>, Standing>,
}

struct Inner {
    began: Instant,
    flows: Mutex<Flows>,
    newcomers: Arc<Flow>,
    /// There is something to compare: every task is measured.
    measures: AtomicBool,
    next_review_us: AtomicU64,
    workers: AtomicUsize,
    queue: Mutex<Queue>,
    ready: Condvar,
}

impl Inner {
    fn now_us(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn charge(&self, flow: &Flow, took_ns: u64) {
        flow.taken.fetch_add(took_ns.max(1), Relaxed);
        let (now_us, due_us) = (self.now_us(), self.next_review_us.load(Relaxed));
        if now_us >= due_us
            && self.next_review_us.compare_exchange(due_us, now_us + REVIEW_US, Relaxed, Relaxed).is_ok()
        {
            self.review(now_us);
        }
    }

    /// Compares the flows.
    fn review(&self, now_us: u64) {
        let mut flows = lock(&self.flows);
        flows.known.retain(|_, standing| standing.flow.strong_count() > 0);
        let mut active = Vec::new();
        for standing in flows.known.values_mut() {
            let Some(flow) = standing.flow.upgrade() else { continue };
            let taken = flow.taken.swap(0, Relaxed);
            standing.level_ns = standing.level_ns / 2 + taken;
            if taken > 0 {
                standing.last_us = now_us;
            }
            if taken > 0 || now_us.saturating_sub(standing.last_us) < ACTIVE_US && standing.last_us > 0 {
                active.push((flow, standing.level_ns));
            } else {
                flow.is_held.store(false, Relaxed);
            }
        }
        let total: u128 = active.iter().map(|(_, level)| u128::from(*level)).sum();
        let weights: u128 = active.iter().map(|(flow, _)| u128::from(flow.weight.load(Relaxed))).sum();
        let newcomers = flows.known.get(&None).map_or(0, |standing| standing.level_ns);
        let measures = flows.known.len() > 2 || newcomers >= FEW_NS;
        self.measures.store(measures, Relaxed);
        let is_busy = measures && active.len() > 1 && total > u128::from(BUSY_NS) && self.workers.load(Relaxed) > 0;
        for (flow, level) in active {
            let (weight, level) = (u128::from(flow.weight.load(Relaxed)), u128::from(level));
            let is_held = is_busy && level * weights * TOLERANCE.1 > total * weight * TOLERANCE.0;
            flow.is_held.store(is_held, Relaxed);
        }
    }

    /// False if the workers have ended.
    fn push(&self, key: Option<u64>, task: Arc<Task>) -> bool {
        let mut queue = lock(&self.queue);
        if queue.stopped {
            return false;
        }
        queue.push(key, task);
        drop(queue);
        self.ready.notify_one();
        true
    }
}

/// The flows of an endpoint's clients. Clones share them.
#[derive(Clone)]
pub struct ProcessorShares(Arc<Inner>);

impl fmt::Debug for ProcessorShares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessorShares").field("workers", &self.0.workers.load(Relaxed)).finish_non_exhaustive()
    }
}

impl Default for ProcessorShares {
    fn default() -> Self {
        Self::new()
    }
}

impl ProcessorShares {
    /// No flows but that of newcomers, and no workers.
    #[must_use]
    pub fn new() -> Self {
        let newcomers = Flow::new(None, 1);
        let standing = Standing { flow: Arc::downgrade(&newcomers), level_ns: 0, last_us: 0 };
        let flows = Flows { known: BTreeMap::from([(None, standing)]) };
        Self(Arc::new(Inner {
            began: Instant::now(),
            flows: Mutex::new(flows),
            newcomers,
            measures: AtomicBool::new(false),
            next_review_us: AtomicU64::new(REVIEW_US),
            workers: AtomicUsize::new(0),
            queue: Mutex::default(),
            ready: Condvar::new(),
        }))
    }

    /// A worker, to be run on a thread of the caller's.
    #[must_use]
    pub fn worker(&self) -> ShareWorker {
        self.0.workers.fetch_add(1, Relaxed);
        ShareWorker(self.0.clone())
    }

    /// Ends the workers. The runtime polls the tasks that wait for them, and from now on all.
    pub fn stop(&self) {
        self.0.workers.store(0, Relaxed);
        let left = lock(&self.0.queue).stop();
        self.0.ready.notify_all();
        left.for_each(|task| task.give_back());
    }

    /// How many flows are held back at present.
    #[must_use]
    pub fn held_back(&self) -> usize {
        let flows = lock(&self.0.flows);
        let held = |standing: &&Standing| standing.flow.upgrade().is_some_and(|flow| flow.is_held.load(Relaxed));
        flows.known.values().filter(held).count()
    }

    /// The share of a connection that may be anybody's yet.
    pub(crate) fn newcomer(&self) -> Arc<Share> {
        Share::new(self.clone(), Some(self.0.newcomers.clone()))
    }

    /// The share of a connection that is not charged to anybody.
    pub(crate) fn exempt(&self) -> Arc<Share> {
        Share::new(self.clone(), None)
    }

    fn flow(&self, key: u64, weight: u32) -> Arc<Flow> {
        let mut flows = lock(&self.0.flows);
        let known = flows.known.get(&Some(key)).and_then(|standing| standing.flow.upgrade());
        if let Some(flow) = known {
            flow.weight.store(u64::from(weight.max(1)), Relaxed);
            return flow;
        }
        let flow = Flow::new(Some(key), weight);
        let standing = Standing { flow: Arc::downgrade(&flow), level_ns: 0, last_us: 0 };
        flows.known.insert(Some(key), standing);
        if flows.known.len() > 2 {
            // A second one beside the newcomers. If one of them is gone, the next review finds that out.
            self.0.measures.store(true, Relaxed);
        }
        flow
    }
}

/// Polls the tasks of flows that have taken more than their share. A thread runs it until [`ProcessorShares::stop`].
#[derive(Debug)]
pub struct ShareWorker(Arc<Inner>);

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").finish_non_exhaustive()
    }
}

impl ShareWorker {
    /// Polls until the end. The caller has entered the runtime whose timers the tasks use.
    pub fn run(self) {
        let inner = self.0;
        let mut queue = lock(&inner.queue);
        loop {
            if queue.stopped {
                return;
            }
            let Some((key, task)) = queue.pop() else {
                queue = inner.ready.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(queue);
            let (weight, took_ns) = task.run();
            drop(task);
            queue = lock(&inner.queue);
            queue.charge(key, weight, took_ns);
        }
    }
}
