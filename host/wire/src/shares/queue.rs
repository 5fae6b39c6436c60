//! The tasks that wait for a worker, in the order of a fair queue between flows.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use super::task::Task;

/// The units of a flow's tag for a nanosecond, so that weights can be told apart.
const SCALE: u64 = 1 << 10;

/// The tasks that wait for a worker.
#[derive(Default)]
pub(super) struct Queue {
    pub(super) waiting: BTreeMap<Option<u64>, Waiting>,
    /// The flows with waiting tasks, by their tags.
    ready: BTreeSet<(u64, Option<u64>)>,
    /// The tag of what was served last.
    now: u64,
    pub(super) stopped: bool,
}

#[derive(Default)]
pub(super) struct Waiting {
    pub(super) tasks: VecDeque<Arc<Task>>,
    tag: u64,
}

impl Queue {
    pub(super) fn push(&mut self, key: Option<u64>, task: Arc<Task>) {
        let now = self.now;
        let waiting = self.waiting.entry(key).or_default();
        if waiting.tasks.is_empty() {
            // Idle flows earn nothing.
            waiting.tag = waiting.tag.max(now);
            self.ready.insert((waiting.tag, key));
        }
        waiting.tasks.push_back(task);
    }

    /// The next task and its flow.
    pub(super) fn pop(&mut self) -> Option<(Option<u64>, Arc<Task>)> {
        let (tag, key) = self.ready.pop_first()?;
        self.now = self.now.max(tag);
        let waiting = self.waiting.get_mut(&key)?;
        let task = waiting.tasks.pop_front()?;
        if !waiting.tasks.is_empty() {
            self.ready.insert((waiting.tag, key));
        }
        Some((key, task))
    }

    /// A task of a flow was polled for so long.
    pub(super) fn charge(&mut self, key: Option<u64>, weight: u64, took_ns: u64) {
        let now = self.now;
        let Some(waiting) = self.waiting.get_mut(&key) else { return };
        let waits = self.ready.remove(&(waiting.tag, key));
        waiting.tag = waiting.tag.saturating_add(took_ns.saturating_mul(SCALE) / weight.max(1));
        if waits {
            self.ready.insert((waiting.tag, key));
        }
        // What has nothing waiting and is not ahead of the others is not remembered.
        self.waiting.retain(|_, waiting| !waiting.tasks.is_empty() || waiting.tag > now);
    }

    /// Nothing waits from now on. Returns what has waited.
    pub(super) fn stop(&mut self) -> impl Iterator<Item = Arc<Task>> + use<> {
        self.stopped = true;
        self.ready.clear();
        std::mem::take(&mut self.waiting).into_values().flat_map(|waiting| waiting.tasks)
    }
}
