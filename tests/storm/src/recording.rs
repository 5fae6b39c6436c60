//! The record of a storm, in the simulator's form: every call as its client saw it, and what became of the disks.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rejoin_test_sim::history::{Asked, Call, CallId, Final, Key, KeyId, Loss, NodeIndex, Outcome, Run};

/// What is recorded, while it is.
#[derive(Debug)]
pub struct Recording {
    began: Instant,
    run: Mutex<Run>,
    /// Writes that were acknowledged, for people.
    pub acknowledged: AtomicUsize,
    /// Writes with an unknown outcome, for people.
    pub unknown: AtomicUsize,
}

impl Default for Recording {
    fn default() -> Self {
        // Nobody sees what a process mints.
        let run = Run { dots_unknown: true, ..Run::default() };
        Self {
            began: Instant::now(),
            run: Mutex::new(run),
            acknowledged: AtomicUsize::new(0),
            unknown: AtomicUsize::new(0),
        }
    }
}

impl Recording {
    /// Microseconds since the beginning.
    #[must_use]
    pub fn now_us(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// What is recorded so far.
    pub fn run(&self) -> MutexGuard<'_, Run> {
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new key.
    pub fn key(&self, key: Key) -> KeyId {
        let mut run = self.run();
        run.keys.push(key);
        (run.keys.len() - 1) as KeyId
    }

    /// A client asks. What it asks of an owner is not known: it goes where its SDK sends it.
    pub fn asks(&self, session: u32, key: KeyId, asked: Asked) -> CallId {
        let mut run = self.run();
        let now_us = self.now_us();
        run.calls.push(Call {
            session,
            node: NodeIndex::MAX,
            key,
            invoked_us: now_us,
            ended_us: now_us,
            asked,
            outcome: Outcome::Unknown(None),
        });
        (run.calls.len() - 1) as CallId
    }

    /// It has its answer.
    pub fn ended(&self, call: CallId, outcome: Outcome) {
        let mut run = self.run();
        let now_us = self.now_us();
        let call = &mut run.calls[call as usize];
        if matches!(call.asked, Asked::Put { .. }) {
            match outcome {
                Outcome::Ok(_) => self.acknowledged.fetch_add(1, Ordering::Relaxed),
                Outcome::Unknown(_) => self.unknown.fetch_add(1, Ordering::Relaxed),
                Outcome::Refused => 0,
            };
        }
        (call.ended_us, call.outcome) = (now_us, outcome);
    }

    /// A node's disk was emptied.
    pub fn wiped(&self, node: NodeIndex) {
        let at_us = self.now_us();
        self.run().losses.push(Loss { node, at_us, synced: true, wiped: true, known_us: None });
    }

    /// A node whose disk was emptied serves: it knows of it.
    pub fn knows_its_losses(&self, node: NodeIndex) {
        let now_us = self.now_us();
        let mut run = self.run();
        run.losses.iter_mut().filter(|loss| loss.node == node).for_each(|loss| {
            loss.known_us.get_or_insert(now_us);
        });
    }

    /// What an owner has in the end.
    pub fn ends_with(&self, copies: Vec<Final>) {
        self.run().finals.extend(copies);
    }
}
