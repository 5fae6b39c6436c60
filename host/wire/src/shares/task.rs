//! The tasks of a connection: each is spawned on the runtime, and polled by it or by a worker.

use std::{
    cell::RefCell,
    io,
    net::UdpSocket,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, Wake, Waker},
    time::Instant,
};

use quinn::{AsyncTimer, AsyncUdpSocket, Runtime};

use super::{Flow, ProcessorShares};
use crate::runtime::lock;

pub(super) type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// To whom the tasks of one connection are charged.
#[derive(Debug)]
pub(crate) struct Share {
    pub(super) of: ProcessorShares,
    /// `None`: to nobody.
    pub(super) flow: Mutex<Option<Arc<Flow>>>,
    is_newcomer: AtomicBool,
    is_exempt: AtomicBool,
}

impl Share {
    pub(super) fn new(of: ProcessorShares, flow: Option<Arc<Flow>>) -> Arc<Self> {
        let (is_newcomer, is_exempt) = (AtomicBool::new(flow.is_some()), AtomicBool::new(flow.is_none()));
        Arc::new(Self { of, flow: Mutex::new(flow), is_newcomer, is_exempt })
    }

    /// Whether its tasks are neither measured nor held back at present. Newcomers always are measured: they are few.
    fn is_free(&self) -> bool {
        self.is_exempt.load(Relaxed) || !self.of.0.measures.load(Relaxed) && !self.is_newcomer.load(Relaxed)
    }

    /// Charges them to the flow of that key from now on, which has that weight from now on; 0 is taken for 1. Those
    /// that are charged to nobody stay so.
    pub(crate) fn charge_to(&self, key: u64, weight: u32) {
        let flow = self.of.flow(key, weight);
        if let Some(known) = &mut *lock(&self.flow) {
            *known = flow;
            self.is_newcomer.store(false, Relaxed);
        }
    }

    /// Charges them to nobody from now on.
    pub(crate) fn exempt(&self) {
        *lock(&self.flow) = None;
        self.is_exempt.store(true, Relaxed);
    }

    pub(super) fn flow(&self) -> Option<Arc<Flow>> {
        lock(&self.flow).clone()
    }

    /// The flow's key, if it is held back.
    pub(super) fn held(&self) -> Option<Option<u64>> {
        let is_held = |flow: &&Arc<Flow>| flow.is_held.load(Relaxed) && self.of.0.workers.load(Relaxed) > 0;
        lock(&self.flow).as_ref().filter(is_held).map(|flow| flow.key)
    }

    /// A task of the connection: for the runtime, to be spawned there.
    pub(crate) fn task(self: &Arc<Self>, work: impl Future<Output = ()> + Send + 'static) -> Work {
        let state = State { stage: Stage::Due, work: Some(Box::pin(work)), outer: None };
        Box::pin(Outer(Arc::new(Task { share: self.clone(), state: Mutex::new(state) })))
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    /// It was not woken.
    Idle,
    /// The runtime is to poll it.
    Due,
    /// A worker is to poll it.
    Queued,
    Polled,
    /// It was woken while it is being polled.
    PolledAndWoken,
    Ended,
}

pub(super) struct State {
    pub(super) stage: Stage,
    /// Taken out while it is polled.
    pub(super) work: Option<Work>,
    /// Of the runtime's task.
    pub(super) outer: Option<Waker>,
}

pub(super) struct Task {
    pub(super) share: Arc<Share>,
    pub(super) state: Mutex<State>,
}

impl Task {
    /// Has it polled by whoever is to: a worker or the runtime. Its stage says that it is not due yet.
    fn schedule(self: &Arc<Self>, state: &mut State) -> Option<Waker> {
        if let Some(key) = self.share.held()
            && self.share.of.0.push(key, self.clone())
        {
            state.stage = Stage::Queued;
            return None;
        }
        state.stage = Stage::Due;
        state.outer.clone()
    }

    /// Has the runtime poll it and no worker.
    pub(super) fn give_back(&self) {
        let mut state = lock(&self.state);
        if state.stage != Stage::Queued {
            return;
        }
        state.stage = Stage::Due;
        let woken = state.outer.clone();
        drop(state);
        if let Some(waker) = woken {
            waker.wake();
        }
    }

    /// Polls it once for the runtime, without measuring it. What it waits for wakes the runtime's task.
    fn run_free(&self, mut state: MutexGuard<'_, State>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(mut work) = state.work.take() else { return Poll::Pending };
        state.stage = Stage::Polled;
        drop(state);
        let polled = catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx)));
        let mut state = lock(&self.state);
        if matches!(polled, Ok(Poll::Pending)) && state.stage != Stage::Ended {
            let was_woken = state.stage == Stage::PolledAndWoken;
            state.work = Some(work);
            state.stage = Stage::Idle;
            drop(state);
            if was_woken {
                // By a waker from when it was measured.
                cx.waker().wake_by_ref();
            }
            return Poll::Pending;
        }
        state.stage = Stage::Ended;
        // Dropping it may come back to this one.
        drop(state);
        drop(work);
        log_panic(polled);
        Poll::Ready(())
    }

    /// Polls it once, and returns the weight of its flow and how long that took, in nanoseconds.
    pub(super) fn run(self: &Arc<Self>) -> (u64, u64) {
        let mut state = lock(&self.state);
        if state.stage == Stage::Ended {
            return (1, 0);
        }
        let Some(mut work) = state.work.take() else { return (1, 0) };
        state.stage = Stage::Polled;
        drop(state);
        let waker = Waker::from(self.clone());
        let began = Instant::now();
        let polled = catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(&mut Context::from_waker(&waker))));
        let took_ns = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let flow = self.share.flow();
        let weight = flow.as_ref().map_or(1, |flow| flow.weight.load(Relaxed));
        if let Some(flow) = flow {
            self.share.of.0.charge(&flow, took_ns);
        }
        let mut state = lock(&self.state);
        let is_over = !matches!(polled, Ok(Poll::Pending)) || state.stage == Stage::Ended;
        let (woken, over) = if is_over {
            state.stage = Stage::Ended;
            (state.outer.take(), Some(work))
        } else {
            let was_woken = state.stage == Stage::PolledAndWoken;
            state.work = Some(work);
            state.stage = Stage::Idle;
            (if was_woken { self.schedule(&mut state) } else { None }, None)
        };
        // Dropping it and waking its task may come back to this one.
        drop(state);
        drop(over);
        log_panic(polled);
        if let Some(waker) = woken {
            waker.wake();
        }
        (weight, took_ns)
    }
}

fn log_panic(polled: std::thread::Result<Poll<()>>) {
    if let Err(panic) = polled {
        let why = panic.downcast_ref::<&str>().copied().unwrap_or("its message is in the log");
        tracing::error!(why, "a task of a connection has panicked and ended");
    }
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut state = lock(&self.state);
        let woken = match state.stage {
            Stage::Idle => self.schedule(&mut state),
            Stage::Polled => {
                state.stage = Stage::PolledAndWoken;
                None
            }
            Stage::Due | Stage::Queued | Stage::PolledAndWoken | Stage::Ended => None,
        };
        drop(state);
        if let Some(waker) = woken {
            waker.wake();
        }
    }
}

/// What the runtime has of a task.
struct Outer(Arc<Task>);

impl Future for Outer {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let task = &self.0;
        let mut state = lock(&task.state);
        if !state.outer.as_ref().is_some_and(|outer| outer.will_wake(cx.waker())) {
            state.outer = Some(cx.waker().clone());
        }
        let stage = state.stage;
        match stage {
            Stage::Ended => return Poll::Ready(()),
            Stage::Idle | Stage::Due if task.share.is_free() => return task.run_free(state, cx),
            // Idle: it was woken by the waker of the runtime's task, which it has from when it was not measured.
            Stage::Idle | Stage::Due => {}
            Stage::Polled => {
                state.stage = Stage::PolledAndWoken;
                return Poll::Pending;
            }
            Stage::Queued | Stage::PolledAndWoken => return Poll::Pending,
        }
        // It may have been held back since it was woken.
        let _ = task.schedule(&mut state);
        if state.stage == Stage::Queued {
            return Poll::Pending;
        }
        drop(state);
        task.run();
        match lock(&task.state).stage {
            Stage::Ended => Poll::Ready(()),
            _ => Poll::Pending,
        }
    }
}

impl Drop for Outer {
    fn drop(&mut self) {
        let mut state = lock(&self.0.state);
        state.stage = Stage::Ended;
        // Wakers of the task may be kept elsewhere, and must not keep more than that.
        let left = (state.work.take(), state.outer.take());
        drop(state);
        drop(left);
    }
}

thread_local! {
    /// Whose tasks this thread is about to spawn.
    static SPAWNING: RefCell<Option<Arc<Share>>> = const { RefCell::new(None) };
}

impl Share {
    /// Does `work`. Tasks that it spawns on a [`SharedRuntime`] are those of this share.
    pub(crate) fn spawning<T>(self: &Arc<Self>, work: impl FnOnce() -> T) -> T {
        SPAWNING.set(Some(self.clone()));
        let done = work();
        SPAWNING.take();
        done
    }
}

/// A runtime for quinn, which spawns the task of an accepted connection while it is accepted.
#[derive(Debug)]
pub(crate) struct SharedRuntime(pub(crate) Arc<dyn Runtime>);

impl Runtime for SharedRuntime {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        self.0.new_timer(at)
    }

    fn spawn(&self, work: Work) {
        self.0.spawn(match SPAWNING.with_borrow(Clone::clone) {
            Some(share) => share.task(work),
            None => work,
        });
    }

    fn wrap_udp_socket(&self, socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        self.0.wrap_udp_socket(socket)
    }

    fn now(&self) -> Instant {
        self.0.now()
    }
}
