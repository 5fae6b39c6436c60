//! Frames that have arrived and wait to be taken: a bounded queue per class. A full one stops the reading of its
//! stream, and flow control stops the sender.

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
    room: [Notify; 3],
    limits: Arc<Limits>,
    /// Holds one read's frames at a time, of who is not let in yet.
    narrow: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    queues: [VecDeque<Frame>; 3],
    held: [usize; 3],
    frames: u64,
    bytes: u64,
    phase: Phase,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Phase {
    #[default]
    Open,
    /// The connection has ended; what has already arrived is still being read.
    Ending,
    /// Nothing will be added.
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
    pub(crate) fn new(limits: Arc<Limits>, narrow: bool) -> Self {
        Self { state: Mutex::default(), readable: Notify::new(), room: Default::default(), limits, narrow: AtomicBool::new(narrow) }
    }

    /// From now on it holds as much as its limits say.
    pub(crate) fn widen(&self) {
        self.narrow.store(false, Ordering::Release);
        self.room.iter().for_each(Notify::notify_waiters);
    }

    /// Waits until a class may be read on. False once the connection has ended while there was no room.
    pub(crate) async fn room(&self, class: Class) -> bool {
        loop {
            let room = self.room[class.index()].notified();
            {
                let state = lock(&self.state);
                if self.has_room(&state, class) {
                    return true;
                }
                if state.phase != Phase::Open {
                    return false;
                }
            }
            room.await;
        }
    }

    fn has_room(&self, state: &State, class: Class) -> bool {
        let limit = if self.narrow.load(Ordering::Acquire) { 0 } else { self.limits.inbox_bytes.get(class) };
        state.held[class.index()] <= limit
    }

    /// Adds what one read brought. Goes above the limit by at most what one read can complete.
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

    /// The next frame of the first class that has one, of those asked for; none once the connection has ended and they
    /// are empty.
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

    /// Takes up to `max` frames that are there now, [`Class::Control`] first.
    pub(crate) fn take(&self, out: &mut Vec<Frame>, max: usize) -> usize {
        let mut state = lock(&self.state);
        let before = out.len();
        for class in Class::ALL {
            while out.len() - before < max {
                let Some(frame) = state.pop(class) else { break };
                out.push(frame);
            }
            self.wake_reader(&state, class);
        }
        out.len() - before
    }

    fn wake_reader(&self, state: &State, class: Class) {
        if self.has_room(state, class) {
            self.room[class.index()].notify_waiters();
        }
    }

    /// The connection has ended: whoever waits for room stops waiting.
    pub(crate) fn ending(&self) {
        lock(&self.state).phase = Phase::Ending;
        self.room.iter().for_each(Notify::notify_waiters);
    }

    /// Nothing more will be pushed; what is queued may still be taken.
    pub(crate) fn end(&self) {
        lock(&self.state).phase = Phase::Ended;
        self.readable.notify_waiters();
    }

    /// Frames and bytes since the connection began, and bytes that wait now.
    pub(crate) fn counts(&self) -> (u64, u64, usize) {
        let state = lock(&self.state);
        (state.frames, state.bytes, state.held.iter().sum())
    }
}
