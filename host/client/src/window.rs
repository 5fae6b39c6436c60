//! How many reads and writes a client may have under way at a node that has refused some as overloaded.
//!
//! The size is found as TCP finds it, by additive increase and multiplicative decrease (Chiu and Jain, Computer
//! Networks and ISDN Systems 1989), with a refusal in the place of a lost packet. A node that refuses nothing has no
//! window. What has no room waits here, in order, before it is sent: a refused value of a megabyte has cost both sides
//! a megabyte's work.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::sync::lock;

/// The smallest window, in requests.
const LEAST: u64 = 4;
/// The least time between two cuts. Requests that were sent together are refused together, which is one piece of news.
const CUT_PAUSE: Duration = Duration::from_millis(100);
/// The most requests that wait for one window. It bounds the wait of a caller that begins more than is done.
const MOST_WAITING: usize = 1_024;
/// The parts of a request in which a window is counted: each answer makes it larger by a fraction of one.
const PARTS: u64 = 1_000_000;

/// The window of one session.
#[derive(Debug, Default)]
pub(crate) struct Window {
    state: Mutex<State>,
    /// There may be room for one more of those that wait.
    room: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// In parts of a request. `None`: nothing was refused yet.
    size: Option<u64>,
    under_way: u64,
    waiting: usize,
    cut_at: Option<Instant>,
}

/// A request's place in a window, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place(Arc<Window>);

/// A request that waits.
struct Turn<'a>(&'a Window);

impl State {
    fn has_room(&self) -> bool {
        self.size.is_none_or(|size| self.under_way < size / PARTS)
    }

    fn cut(&mut self, now: Instant) {
        if self.cut_at.is_some_and(|at| now.saturating_duration_since(at) < CUT_PAUSE) {
            return;
        }
        self.cut_at = Some(now);
        let used = self.under_way.saturating_mul(PARTS);
        let size = self.size.map_or(used, |size| size.min(used));
        self.size = Some((size / 10 * 7).max(LEAST * PARTS));
    }

    /// One more after as many answers as the window has places.
    fn grow(&mut self) {
        self.size = self.size.map(|size| size.saturating_add(PARTS * PARTS / size));
    }
}

impl Window {
    /// Takes a place, behind those that wait already. `None`: there was no room until then, or too many wait.
    pub(crate) async fn enter(self: &Arc<Self>, until: Instant) -> Option<Place> {
        let mut turn = None;
        loop {
            let mut room = std::pin::pin!(self.room.notified());
            // Before the state is looked at, so that a notification in between is not missed.
            room.as_mut().enable();
            {
                let mut state = lock(&self.state);
                if state.has_room() && (turn.is_some() || state.waiting == 0) {
                    state.under_way += 1;
                    return Some(Place(Arc::clone(self)));
                }
                if turn.is_none() {
                    if state.waiting >= MOST_WAITING {
                        return None;
                    }
                    state.waiting += 1;
                    turn = Some(Turn(self));
                }
            }
            tokio::time::timeout_at(until, room).await.ok()?;
        }
    }

    /// Wakes the next one that waits, if there is room for it.
    fn pass_on(&self, change: impl FnOnce(&mut State)) {
        let mut state = lock(&self.state);
        change(&mut state);
        let wakes = state.waiting > 0 && state.has_room();
        drop(state);
        if wakes {
            self.room.notify_one();
        }
    }
}

impl Place {
    /// The node has done the request.
    pub(crate) fn done(self) {
        lock(&self.0.state).grow();
    }

    /// The node has refused the request as overloaded. The place stays taken for as long as the node asks to wait:
    /// refusals come soon, and would make room for as many more at once.
    pub(crate) fn refused(self, wait: Duration) {
        lock(&self.0.state).cut(Instant::now());
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            drop(self);
        });
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.pass_on(|state| state.under_way -= 1);
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.pass_on(|state| state.waiting -= 1);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::Poll;

    use super::*;

    /// A window of the smallest size.
    fn smallest() -> Arc<Window> {
        let window = Arc::new(Window::default());
        lock(&window.state).size = Some(LEAST * PARTS);
        window
    }

    fn far() -> Instant {
        Instant::now() + Duration::from_secs(3_600)
    }

    fn waiting(window: &Window) -> usize {
        lock(&window.state).waiting
    }

    type Entering = Pin<Box<dyn Future<Output = Option<Place>>>>;

    fn entering(window: &Arc<Window>) -> Entering {
        let window = Arc::clone(window);
        Box::pin(async move { window.enter(far()).await })
    }

    async fn poll(entering: &mut Entering) -> Poll<Option<Place>> {
        std::future::poll_fn(|cx| Poll::Ready(entering.as_mut().poll(cx))).await
    }

    /// A place, if there is one at once.
    async fn try_enter(window: &Arc<Window>) -> Option<Place> {
        match poll(&mut entering(window)).await {
            Poll::Ready(place) => place,
            Poll::Pending => None,
        }
    }

    async fn fill(window: &Arc<Window>, most: usize) -> Vec<Place> {
        let mut places = Vec::new();
        while places.len() < most
            && let Some(place) = try_enter(window).await
        {
            places.push(place);
        }
        places
    }

    #[tokio::test]
    async fn a_node_that_refuses_nothing_has_no_window() {
        let window = Arc::new(Window::default());
        let places = fill(&window, 5_000).await;
        assert_eq!(places.len(), 5_000);
        places.into_iter().for_each(Place::done);
        assert_eq!(lock(&window.state).size, None);
        assert_eq!(lock(&window.state).under_way, 0);
    }

    #[test]
    fn refusals_make_it_smaller_once_in_a_while_and_answers_larger() {
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        let mut state = State { under_way: 20, ..State::default() };
        let places = |state: &State| state.size.map(|size| size / PARTS);
        state.cut(at(0));
        assert_eq!((places(&state), state.has_room()), (Some(14), false), "seven tenths of what was under way");
        state.cut(at(99));
        assert_eq!(places(&state), Some(14), "they were sent together");
        (0..14).for_each(|_| state.grow());
        assert_eq!(places(&state), Some(14), "not quite one more yet");
        state.grow();
        assert_eq!(places(&state), Some(15));
        state.cut(at(100));
        assert_eq!(places(&state), Some(10));
        state.under_way = 1;
        state.cut(at(200));
        assert_eq!((places(&state), state.has_room()), (Some(4), true), "it is never smaller");
    }

    #[tokio::test]
    async fn those_that_wait_come_in_order_and_before_newcomers() {
        let window = smallest();
        let mut places = fill(&window, 100).await;
        assert_eq!((places.len(), waiting(&window)), (4, 0), "one that gave up waits no more");
        let (mut first, mut second, mut third) = (entering(&window), entering(&window), entering(&window));
        for entering in [&mut first, &mut second, &mut third] {
            assert!(poll(entering).await.is_pending());
        }
        assert_eq!(waiting(&window), 3);
        drop(places.pop());
        assert!(try_enter(&window).await.is_none(), "the place is the first one's");
        let Poll::Ready(Some(_place)) = poll(&mut first).await else { panic!("there was room for it") };
        assert!(poll(&mut third).await.is_pending());
        drop(places.pop());
        // One that gives up leaves its turn to the next.
        drop(second);
        let Poll::Ready(Some(_other)) = poll(&mut third).await else { panic!("there was room for it") };
        assert_eq!((waiting(&window), lock(&window.state).under_way), (0, 4));
    }

    #[tokio::test]
    async fn what_waits_is_bounded_in_number_and_time() {
        let window = smallest();
        let _places = fill(&window, 100).await;
        assert!(window.enter(Instant::now()).await.is_none(), "its time is over");
        let mut many: Vec<Entering> = (0..MOST_WAITING).map(|_| entering(&window)).collect();
        for entering in &mut many {
            assert!(poll(entering).await.is_pending());
        }
        assert!(matches!(poll(&mut entering(&window)).await, Poll::Ready(None)), "one more is told so at once");
        drop(many);
        assert_eq!(waiting(&window), 0);
    }

    #[tokio::test]
    async fn a_refused_request_keeps_its_place_for_a_while() {
        let window = smallest();
        let mut places = fill(&window, 100).await;
        places.pop().expect("there are four").refused(Duration::ZERO);
        assert_eq!(lock(&window.state).under_way, 4, "its time has not run yet");
        assert!(window.enter(far()).await.is_some(), "it has ended");
    }
}
