//! Frames to be sent: a bounded queue for each class, filled from any thread and drained by the connection's writer
//! task.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
};

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;

use crate::{Class, Frame, Limits, PerClass, SendError, frame::header, runtime::lock};

/// Bodies up to this many bytes are copied behind their header, so that many small frames are written as one chunk.
/// Larger ones are passed by reference.
const COPY_BELOW: usize = 4 << 10;
/// Bytes that the queue of a client may hold even when the queues of all clients are at their shared limit.
const CLIENT_FLOOR: usize = 64 << 10;

/// A cheap, cloneable handle that queues frames of a connection. It does not keep the connection open.
#[derive(Clone, Debug)]
pub struct Sender(pub(crate) Arc<Outbox>);

impl Sender {
    /// Queues a frame. Never blocks, and may be called from any thread, also outside a runtime.
    ///
    /// # Errors
    /// [`SendError::Full`] if the class's queue has no room, [`SendError::TooLarge`], [`SendError::Closed`]. The frame
    /// is not queued then.
    pub fn try_send(&self, class: Class, id: u64, body: Bytes) -> Result<(), SendError> {
        self.0.push_one(&Frame { class, id, body })
    }

    /// Queues the frames that fit, with one wake-up of the writer, and removes them from the vector. The frames whose
    /// class is full stay in it, in order. Returns the number queued. Never blocks.
    ///
    /// # Errors
    /// [`SendError::TooLarge`] or [`SendError::Closed`]: nothing was queued and `frames` is as it was.
    pub fn try_send_batch(&self, frames: &mut Vec<Frame>) -> Result<usize, SendError> {
        self.0.push_batch(frames)
    }

    /// Queues a frame. Waits for space without a limit.
    ///
    /// # Errors
    /// [`SendError::TooLarge`] or [`SendError::Closed`].
    pub async fn send(&self, class: Class, id: u64, body: Bytes) -> Result<(), SendError> {
        let frame = Frame { class, id, body };
        loop {
            // Created before the attempt, so that a notification in between is not missed.
            let space = self.0.space[class.index()].notified();
            match self.0.push_one(&frame) {
                Err(SendError::Full(_)) => space.await,
                done => return done,
            }
        }
    }

    /// Waits until frames of a class were handed to the transport, none are queued, or the connection has ended. A send
    /// that failed with [`SendError::Full`] can then be tried again.
    pub async fn writable(&self, class: Class) {
        // Created before the check, so that a notification in between is not missed.
        let space = self.0.space[class.index()].notified();
        if !self.is_closed() && self.queued_bytes(class) > 0 {
            space.await;
        }
    }

    /// Bytes, headers included, that are queued for a class and not yet handed to the transport.
    #[must_use]
    pub fn queued_bytes(&self, class: Class) -> usize {
        lock(&self.0.state).queues[class.index()].bytes
    }

    /// Whether the connection has ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        lock(&self.0.state).closed
    }
}

/// The queues of one connection.
#[derive(Debug)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    space: [Notify; Class::COUNT],
    limits: Arc<Limits>,
    max_frame: PerClass<u32>,
    /// The limit shared by the queues of all clients; `None` for a peer.
    shared: Option<Arc<ClientQueues>>,
}

/// The bytes in the queues of all accepted clients of an endpoint. Thousands of clients that send requests and read no
/// replies would exceed the memory even if each kept its own limit.
#[derive(Debug)]
pub(crate) struct ClientQueues {
    most: usize,
    used: AtomicUsize,
}

impl ClientQueues {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, used: AtomicUsize::new(0) }
    }

    fn has_space(&self, cost: usize) -> bool {
        self.used.load(Ordering::Relaxed).saturating_add(cost) <= self.most
    }
}

#[derive(Debug, Default)]
struct State {
    queues: [Queue; Class::COUNT],
    closed: bool,
    frames: u64,
    bytes: u64,
    /// The waiting writer. One waker is enough: one task writes all classes.
    writer: Option<Waker>,
    /// The writer was woken and lets others go first.
    about_to_take: bool,
}

impl State {
    /// The writer, if it is to be woken for what was queued.
    fn writer_to_wake(&mut self) -> Option<Waker> {
        if self.about_to_take { None } else { self.writer.take() }
    }
}

#[derive(Debug, Default)]
struct Queue {
    chunks: Vec<Bytes>,
    tail: BytesMut,
    /// Queued here, or taken by the writer and not yet accepted by the transport.
    bytes: usize,
}

impl Queue {
    fn has_space(&self, cost: usize, limit: usize) -> bool {
        self.bytes == 0 || self.bytes.saturating_add(cost) <= limit
    }

    fn push(&mut self, len: u32, frame: &Frame) {
        self.bytes += frame.cost();
        self.tail.extend_from_slice(&header(len, frame.id));
        if frame.body.len() <= COPY_BELOW {
            self.tail.extend_from_slice(&frame.body);
        } else {
            self.chunks.push(self.tail.split().freeze());
            self.chunks.push(frame.body.clone());
        }
    }

    fn has_pending(&self) -> bool {
        !self.tail.is_empty() || !self.chunks.is_empty()
    }

    fn take(&mut self) -> Vec<Bytes> {
        if !self.tail.is_empty() {
            self.chunks.push(self.tail.split().freeze());
        }
        std::mem::take(&mut self.chunks)
    }
}

impl Outbox {
    pub(crate) fn new(limits: Arc<Limits>, max_frame: PerClass<u32>, shared: Option<Arc<ClientQueues>>) -> Self {
        Self { state: Mutex::default(), space: Default::default(), limits, max_frame, shared }
    }

    /// Returns bytes to the limit shared by all clients.
    fn release(&self, bytes: usize) {
        if let Some(shared) = &self.shared {
            shared.used.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// The length of the body, if it is within the class's limit.
    fn checked_len(&self, frame: &Frame) -> Result<u32, SendError> {
        let limit = self.max_frame.get(frame.class);
        let len = frame.body.len();
        match u32::try_from(len) {
            Ok(short) if short <= limit => Ok(short),
            _ => Err(SendError::TooLarge { class: frame.class, len, limit }),
        }
    }

    fn push_one(&self, frame: &Frame) -> Result<(), SendError> {
        let len = self.checked_len(frame)?;
        let mut state = lock(&self.state);
        if state.closed {
            return Err(SendError::Closed);
        }
        if !self.accept(&mut state, len, frame) {
            return Err(SendError::Full(frame.class));
        }
        let writer = state.writer_to_wake();
        drop(state);
        wake(writer);
        Ok(())
    }

    fn push_batch(&self, frames: &mut Vec<Frame>) -> Result<usize, SendError> {
        for frame in frames.iter() {
            self.checked_len(frame)?;
        }
        let mut state = lock(&self.state);
        if state.closed {
            return Err(SendError::Closed);
        }
        let before = frames.len();
        // After the first refused frame of a class all later ones of it are refused, so that none overtakes it.
        let mut full = [false; Class::COUNT];
        frames.retain(|frame| {
            let refused = &mut full[frame.class.index()];
            *refused = *refused || !self.checked_len(frame).is_ok_and(|len| self.accept(&mut state, len, frame));
            *refused
        });
        let queued = before - frames.len();
        let writer = if queued > 0 { state.writer_to_wake() } else { None };
        drop(state);
        wake(writer);
        Ok(queued)
    }

    fn accept(&self, state: &mut State, len: u32, frame: &Frame) -> bool {
        let queue = &mut state.queues[frame.class.index()];
        let cost = frame.cost();
        if !queue.has_space(cost, self.limits.queue_bytes.get(frame.class)) {
            return false;
        }
        if let Some(shared) = &self.shared {
            // Below the floor frames are always accepted, so that a client can be told that the limit is reached.
            if queue.bytes + cost > CLIENT_FLOOR && !shared.has_space(cost) {
                return false;
            }
            shared.used.fetch_add(cost, Ordering::Relaxed);
        }
        queue.push(len, frame);
        state.frames += 1;
        state.bytes += frame.cost() as u64;
        true
    }

    /// For the writer: resolves when a class has pending chunks, or the connection has ended. It has to take them then,
    /// and is not woken before that.
    pub(crate) fn poll_pending(&self, class: Class, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = lock(&self.state);
        if state.closed || state.queues[class.index()].has_pending() {
            state.about_to_take = true;
            return Poll::Ready(());
        }
        if !state.writer.as_ref().is_some_and(|writer| writer.will_wake(cx.waker())) {
            state.writer = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// For the writer: the pending chunks of a class, `None` once the connection has ended.
    pub(crate) fn take(&self, class: Class) -> Option<Vec<Bytes>> {
        let mut state = lock(&self.state);
        if state.closed {
            return None;
        }
        let chunks = state.queues[class.index()].take();
        state.about_to_take = false;
        // What was queued for other classes meanwhile has woken nobody.
        let writer = if state.queues.iter().any(Queue::has_pending) { state.writer.take() } else { None };
        drop(state);
        wake(writer);
        Some(chunks)
    }

    /// For the writer: the transport has taken that many bytes.
    pub(crate) fn written(&self, class: Class, bytes: usize) {
        let mut state = lock(&self.state);
        let queue = &mut state.queues[class.index()];
        // `close` resets the count, and may run during a write.
        let bytes = bytes.min(queue.bytes);
        queue.bytes -= bytes;
        self.release(bytes);
        drop(state);
        self.space[class.index()].notify_waiters();
    }

    /// Closes the queues: queued frames are dropped, and every later send fails.
    pub(crate) fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        self.release(state.queues.iter().map(|queue| queue.bytes).sum());
        state.queues = Default::default();
        let writer = state.writer.take();
        drop(state);
        wake(writer);
        self.space.iter().for_each(Notify::notify_waiters);
    }

    /// Frames and bytes queued since the start of the connection, and bytes queued now.
    pub(crate) fn counts(&self) -> (u64, u64, usize) {
        let state = lock(&self.state);
        (state.frames, state.bytes, state.queues.iter().map(|queue| queue.bytes).sum())
    }
}

fn wake(writer: Option<Waker>) {
    if let Some(writer) = writer {
        writer.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    fn sender(queue_bytes: usize) -> Sender {
        let limits =
            Limits { queue_bytes: PerClass::all(queue_bytes), max_frame: PerClass::all(10_000), ..Limits::default() };
        Sender(Arc::new(Outbox::new(Arc::new(limits.clone()), limits.max_frame, None)))
    }

    #[test]
    fn all_clients_together_have_a_bound_and_each_has_a_little() {
        // Room for three of the large ones with their headers.
        let shared = Arc::new(ClientQueues::new(310_000));
        let limits = Limits { queue_bytes: PerClass::all(1 << 20), ..Limits::default() };
        let client = || Sender(Arc::new(Outbox::new(Arc::new(limits.clone()), limits.max_frame, Some(shared.clone()))));
        let large = || Bytes::from(vec![0; 100_000]);
        let (one, two) = (client(), client());
        one.try_send(Class::Request, 1, large()).unwrap();
        one.try_send(Class::Request, 2, large()).unwrap();
        assert_eq!(two.try_send(Class::Request, 1, large()), Ok(()));
        assert_eq!(
            two.try_send(Class::Request, 2, large()),
            Err(SendError::Full(Class::Request)),
            "its own queue has room"
        );
        let three = client();
        assert_eq!(
            three.try_send(Class::Request, 1, large()),
            Err(SendError::Full(Class::Request)),
            "also if it is empty"
        );
        three.try_send(Class::Request, 2, vec![0; 1_000].into()).expect("room to be told why");
        one.0.written(Class::Request, 100_012);
        drop(take(&one, Class::Request));
        one.0.close();
        two.0.close();
        three.0.close();
        assert_eq!(shared.used.load(Ordering::Relaxed), 0, "all is given back");
    }

    fn take(sender: &Sender, class: Class) -> Vec<u8> {
        match sender.0.poll_pending(class, &mut Context::from_waker(Waker::noop())) {
            Poll::Ready(()) => sender.0.take(class).unwrap_or_default().concat(),
            Poll::Pending => Vec::new(),
        }
    }

    /// Counts how often it is woken.
    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl std::task::Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_writer_is_woken_once_for_what_comes_before_it_takes() {
        let (sender, woken) = (sender(1 << 20), Arc::new(Woken::default()));
        let times = || woken.0.load(Ordering::Relaxed);
        let waker = Waker::from(woken.clone());
        let mut cx = Context::from_waker(&waker);
        let pending = |class, cx: &mut Context<'_>| sender.0.poll_pending(class, cx).is_ready();
        assert!(!pending(Class::Control, &mut cx) && !pending(Class::Request, &mut cx));
        sender.try_send(Class::Request, 1, Bytes::new()).unwrap();
        assert_eq!(times(), 1);
        assert!(!pending(Class::Control, &mut cx) && pending(Class::Request, &mut cx));
        for id in 2..5 {
            sender.try_send(Class::Request, id, Bytes::new()).unwrap();
        }
        let mut frame = vec![Frame { class: Class::Control, id: 5, body: Bytes::new() }];
        assert_eq!(sender.try_send_batch(&mut frame), Ok(1));
        assert_eq!(times(), 1, "it takes them in a moment");
        assert_eq!(sender.0.take(Class::Request).unwrap().concat().len(), 4 * 12);
        assert_eq!(times(), 2, "for the other class, which it has found empty before");
        assert_eq!(take(&sender, Class::Control).len(), 12);
        assert!(!pending(Class::Control, &mut cx) && !pending(Class::Request, &mut cx));
        sender.try_send(Class::Control, 6, Bytes::new()).unwrap();
        assert_eq!(times(), 3);
        sender.0.close();
        assert!(pending(Class::Bulk, &mut cx) && sender.0.take(Class::Bulk).is_none());
    }

    #[test]
    fn small_and_large_frames_keep_their_order() {
        let sender = sender(1 << 20);
        let bodies = [vec![1; 3], vec![2; 9_000], vec![], vec![3; COPY_BELOW], vec![4; COPY_BELOW + 1]];
        let mut expected = Vec::new();
        for (id, body) in bodies.iter().enumerate() {
            sender.try_send(Class::Request, id as u64, body.clone().into()).unwrap();
            expected.extend([&header(body.len() as u32, id as u64)[..], body].concat());
        }
        assert_eq!(take(&sender, Class::Request), expected);
        assert_eq!(sender.queued_bytes(Class::Request), expected.len(), "taken is not yet written");
        sender.0.written(Class::Request, expected.len());
        assert_eq!(sender.queued_bytes(Class::Request), 0);
    }

    #[test]
    fn a_full_queue_says_so_and_counts_what_the_writer_holds() {
        let sender = sender(100);
        sender.try_send(Class::Bulk, 1, vec![0; 500].into()).expect("one frame always fits an empty queue");
        assert_eq!(sender.try_send(Class::Bulk, 2, Bytes::new()), Err(SendError::Full(Class::Bulk)));
        sender.try_send(Class::Request, 3, Bytes::new()).expect("classes do not share their room");
        assert_eq!(take(&sender, Class::Bulk).len(), 512);
        assert_eq!(sender.try_send(Class::Bulk, 2, Bytes::new()), Err(SendError::Full(Class::Bulk)));
        sender.0.written(Class::Bulk, 512);
        sender.try_send(Class::Bulk, 2, Bytes::new()).unwrap();
    }

    #[test]
    fn a_batch_leaves_behind_what_found_its_class_full_in_order() {
        let sender = sender(60);
        let frame = |class, id, len| Frame { class, id, body: vec![0; len].into() };
        let mut frames = vec![
            frame(Class::Bulk, 1, 20),
            frame(Class::Bulk, 2, 40),
            frame(Class::Request, 3, 40),
            frame(Class::Bulk, 4, 0),
            frame(Class::Control, 5, 0),
        ];
        assert_eq!(sender.try_send_batch(&mut frames), Ok(3));
        assert_eq!(
            frames.iter().map(|frame| frame.id).collect::<Vec<_>>(),
            [2, 4],
            "4 would fit, but must not overtake 2"
        );
        frames.push(frame(Class::Control, 6, 10_001));
        assert!(matches!(sender.try_send_batch(&mut frames), Err(SendError::TooLarge { len: 10_001, .. })));
        sender.0.close();
        frames.pop();
        assert_eq!(sender.try_send_batch(&mut frames), Err(SendError::Closed));
        assert_eq!(frames.len(), 2);
    }
}
