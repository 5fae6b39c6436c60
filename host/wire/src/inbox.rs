//! Received frames that wait to be taken: a bounded queue for each class. A full queue stops the reading of its stream,
//! and QUIC's flow control then stops the sender.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::Notify;

use crate::{Class, Frame, Limits, runtime::lock};

/// The queues of one connection.
#[derive(Debug)]
pub(crate) struct Inbox {
    state: Mutex<State>,
    readable: Notify,
    space: [Notify; Class::COUNT],
    limits: Arc<Limits>,
    /// Before admission: holds the frames of one read at a time.
    restricted: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    queues: [VecDeque<Frame>; Class::COUNT],
    held: [usize; Class::COUNT],
    frames: u64,
    bytes: u64,
    phase: Phase,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Phase {
    #[default]
    Open,
    /// The connection has ended; received bytes are still being decoded.
    Ending,
    /// No more frames will be added.
    Ended,
}

impl State {
    fn pop(&mut self, class: Class) -> Option<Frame> {
        let frame = self.queues[class.index()].pop_front()?;
        self.held[class.index()] -= frame.cost();
        Some(frame)
    }
}

impl Inbox {
    pub(crate) fn new(limits: Arc<Limits>, restricted: bool) -> Self {
        Self {
            state: Mutex::default(),
            readable: Notify::new(),
            space: Default::default(),
            limits,
            restricted: AtomicBool::new(restricted),
        }
    }

    /// Applies the full limits from now on.
    pub(crate) fn lift_restriction(&self) {
        self.restricted.store(false, Ordering::Release);
        self.space.iter().for_each(Notify::notify_waiters);
    }

    /// Waits until the queue of a class has space. False if the connection ends first.
    pub(crate) async fn wait_for_space(&self, class: Class) -> bool {
        loop {
            let space = self.space[class.index()].notified();
            {
                let state = lock(&self.state);
                if self.has_space(&state, class) {
                    return true;
                }
                if state.phase != Phase::Open {
                    return false;
                }
            }
            space.await;
        }
    }

    fn has_space(&self, state: &State, class: Class) -> bool {
        let limit = if self.restricted.load(Ordering::Acquire) { 0 } else { self.limits.inbox_bytes.get(class) };
        state.held[class.index()] <= limit
    }

    /// Adds the frames of one read. Exceeds the limit by at most those frames.
    pub(crate) fn push(&self, frames: &mut Vec<Frame>) {
        if frames.is_empty() {
            return;
        }
        let mut state = lock(&self.state);
        for frame in frames.drain(..) {
            let class = frame.class.index();
            state.frames += 1;
            state.bytes += frame.cost() as u64;
            state.held[class] += frame.cost();
            state.queues[class].push_back(frame);
        }
        drop(state);
        self.readable.notify_waiters();
    }

    /// The next frame of the first of `classes` that has one; `None` once the connection has ended and they are empty.
    pub(crate) async fn recv(&self, classes: &[Class]) -> Option<Frame> {
        loop {
            let readable = self.readable.notified();
            {
                let mut state = lock(&self.state);
                if let Some(frame) = classes.iter().find_map(|class| state.pop(*class)) {
                    self.wake_reader(&state, frame.class);
                    return Some(frame);
                }
                if state.phase == Phase::Ended {
                    return None;
                }
            }
            readable.await;
        }
    }

    /// Takes up to `max` queued frames of `classes`, in that order, without waiting.
    pub(crate) fn take(&self, classes: &[Class], out: &mut Vec<Frame>, max: usize) -> usize {
        let mut state = lock(&self.state);
        let before = out.len();
        for &class in classes {
            while out.len() - before < max {
                let Some(frame) = state.pop(class) else { break };
                out.push(frame);
            }
            self.wake_reader(&state, class);
        }
        out.len() - before
    }

    fn wake_reader(&self, state: &State, class: Class) {
        if self.has_space(state, class) {
            self.space[class.index()].notify_waiters();
        }
    }

    /// The connection has ended: the readers stop waiting for space.
    pub(crate) fn ending(&self) {
        lock(&self.state).phase = Phase::Ending;
        self.space.iter().for_each(Notify::notify_waiters);
    }

    /// No more frames will be pushed. Queued frames can still be taken.
    pub(crate) fn end(&self) {
        lock(&self.state).phase = Phase::Ended;
        self.readable.notify_waiters();
    }

    /// Frames and bytes since the start of the connection, and bytes queued now.
    pub(crate) fn counts(&self) -> (u64, u64, usize) {
        let state = lock(&self.state);
        (state.frames, state.bytes, state.held.iter().sum())
    }
}
