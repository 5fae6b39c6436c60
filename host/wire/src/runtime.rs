//! Timeouts on the injected runtime, never on tokio's clock, so that a simulation can use its own. Also the lock of
//! this crate.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::{Mutex, MutexGuard, PoisonError},
    task::Poll,
    time::Duration,
};

use quinn::Runtime;

/// Runs `work` for at most `limit`; `None` if it was not done by then.
pub(crate) async fn within<T>(runtime: &dyn Runtime, limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    let mut timer = runtime.new_timer(runtime.now() + limit);
    poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending => quinn::AsyncTimer::poll(timer.as_mut(), cx).map(|()| None),
    })
    .await
}

/// Locks a mutex, also after a panic of another holder: the values in this crate are consistent between any two
/// statements.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
