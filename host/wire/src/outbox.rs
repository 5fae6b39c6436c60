//! Frames on their way out: a bounded queue per class, filled from any thread and emptied by the connection's one
//! writer.

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

/// Bodies up to this many bytes are copied behind their header, so that many small frames leave as one chunk; larger
/// ones are passed on by reference.
const COPY_BELOW: usize = 4 << 10;
/// Bytes that a client's queue may hold whatever all others do.
const CLIENT_FLOOR: usize = 64 << 10;

/// A cheap, cloneable handle that puts frames into a connection's queues. It does not keep the connection open.
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

    /// Queues as many of `frames` as fit with one wake-up of the writer, and takes those out of the vector; what stays
    /// in it, in order, found its class full. Returns how many were queued. Never blocks.
    ///
    /// # Errors
    /// [`SendError::TooLarge`] or [`SendError::Closed`]: nothing was queued and `frames` is as it was.
    pub fn try_send_batch(&self, frames: &mut Vec<Frame>) -> Result<usize, SendError> {
        self.0.push_batch(frames)
    }

    /// Queues a frame, and waits for room as long as it takes.
    ///
    /// # Errors
    /// [`SendError::TooLarge`] or [`SendError::Closed`].
    pub async fn send(&self, class: Class, id: u64, body: Bytes) -> Result<(), SendError> {
        let frame = Frame { class, id, body };
        loop {
            // Made before the attempt, so that room made in between is not missed.
            let room = self.0.room[class.index()].notified();
            match self.0.push_one(&frame) {
                Err(SendError::Full(_)) => room.await,
                done => return done,
            }
        }
    }

    /// Resolves when frames of a class have been handed to the transport, when none are queued, or when the connection
    /// has ended: then a send that found the class full is worth another attempt.
    pub async fn made_room(&self, class: Class) {
        // Made before the look, so that room made in between is not missed.
        let room = self.0.room[class.index()].notified();
        if !self.is_closed() && self.queued_bytes(class) > 0 {
            room.await;
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
    room: [Notify; 3],
    limits: Arc<Limits>,
    max_frame: PerClass<u32>,
    /// What all clients' queues take together, if this is one of them.
    shared: Option<Arc<ClientQueues>>,
}

/// The bytes in the queues to all accepted clients of an endpoint. Who asks and does not read is one of thousands: a
/// bound for each is none for all.
#[derive(Debug)]
pub(crate) struct ClientQueues {
    most: usize,
    used: AtomicUsize,
}

impl ClientQueues {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, used: AtomicUsize::new(0) }
    }

    fn has_room(&self, cost: usize) -> bool {
        self.used.load(Ordering::Relaxed).saturating_add(cost) <= self.most
    }
}

#[derive(Debug, Default)]
struct State {
    queues: [Queue; 3],
    closed: bool,
    frames: u64,
    bytes: u64,
    /// The writer, while it waits. One is enough: all three classes are written by one task.
    writer: Option<Waker>,
}

#[derive(Debug, Default)]
struct Queue {
    chunks: Vec<Bytes>,
    tail: BytesMut,
    /// Queued here, or taken by the writer and not yet accepted by the transport.
    bytes: usize,
}

impl Queue {
    fn has_room(&self, cost: usize, limit: usize) -> bool {
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

    fn take(&mut self) -> Vec<Bytes> {
        if !self.tail.is_empty() {
            self.chunks.push(self.tail.split().freeze());
        }
        std::mem::take(&mut self.chunks)
    }
}

impl Outbox {
    pub(crate) fn new(limits: Arc<Limits>, max_frame: PerClass<u32>, shared: Option<Arc<ClientQueues>>) -> Self {
        Self { state: Mutex::default(), room: Default::default(), limits, max_frame, shared }
    }

    /// Gives back what a queue has taken of the room that all clients share.
    fn release(&self, bytes: usize) {
        if let Some(shared) = &self.shared {
            shared.used.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// The body's length, if the class may carry it.
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
        let writer = state.writer.take();
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
        // Once a frame of a class is refused, the later ones of that class are too: a smaller one must not overtake it.
        let mut full = [false; 3];
        frames.retain(|frame| {
            let refused = &mut full[frame.class.index()];
            *refused = *refused || !self.checked_len(frame).is_ok_and(|len| self.accept(&mut state, len, frame));
            *refused
        });
        let queued = before - frames.len();
        let writer = if queued > 0 { state.writer.take() } else { None };
        drop(state);
        wake(writer);
        Ok(queued)
    }

    fn accept(&self, state: &mut State, len: u32, frame: &Frame) -> bool {
        let queue = &mut state.queues[frame.class.index()];
        let cost = frame.cost();
        if !queue.has_room(cost, self.limits.queue_bytes.get(frame.class)) {
            return false;
        }
        if let Some(shared) = &self.shared {
            // A little is always taken, so that a client can be told why it gets no more.
            if queue.bytes + cost > CLIENT_FLOOR && !shared.has_room(cost) {
                return false;
            }
            shared.used.fetch_add(cost, Ordering::Relaxed);
        }
        queue.push(len, frame);
        state.frames += 1;
        state.bytes += frame.cost() as u64;
        true
    }

    /// For the writer: everything that is pending for a class, or none once the connection has ended.
    pub(crate) fn poll_take(&self, class: Class, cx: &mut Context<'_>) -> Poll<Option<Vec<Bytes>>> {
        let mut state = lock(&self.state);
        if state.closed {
            return Poll::Ready(None);
        }
        let chunks = state.queues[class.index()].take();
        if !chunks.is_empty() {
            return Poll::Ready(Some(chunks));
        }
        if !state.writer.as_ref().is_some_and(|writer| writer.will_wake(cx.waker())) {
            state.writer = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// For the writer: the transport has taken so many bytes, and there is room again.
    pub(crate) fn written(&self, class: Class, bytes: usize) {
        let mut state = lock(&self.state);
        let queue = &mut state.queues[class.index()];
        // Closing empties the count, and may come while a write is under way.
        let bytes = bytes.min(queue.bytes);
        queue.bytes -= bytes;
        self.release(bytes);
        drop(state);
        self.room[class.index()].notify_waiters();
    }

    /// Ends the queues: what is in them is dropped, every send fails from now on.
    pub(crate) fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        self.release(state.queues.iter().map(|queue| queue.bytes).sum());
        state.queues = Default::default();
        let writer = state.writer.take();
        drop(state);
        wake(writer);
        self.room.iter().for_each(Notify::notify_waiters);
    }

    /// Frames and bytes queued since the connection began, and bytes that are queued now.
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
        let limits = Limits { queue_bytes: PerClass::all(queue_bytes), max_frame: PerClass::all(10_000), ..Limits::default() };
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
        assert_eq!(two.try_send(Class::Request, 2, large()), Err(SendError::Full(Class::Request)), "its own queue has room");
        let three = client();
        assert_eq!(three.try_send(Class::Request, 1, large()), Err(SendError::Full(Class::Request)), "also if it is empty");
        three.try_send(Class::Request, 2, vec![0; 1_000].into()).expect("room to be told why");
        one.0.written(Class::Request, 100_012);
        drop(take(&one, Class::Request));
        one.0.close();
        two.0.close();
        three.0.close();
        assert_eq!(shared.used.load(Ordering::Relaxed), 0, "all is given back");
    }

    fn take(sender: &Sender, class: Class) -> Vec<u8> {
        match sender.0.poll_take(class, &mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(chunks)) => chunks.concat(),
            _ => Vec::new(),
        }
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
        assert_eq!(frames.iter().map(|frame| frame.id).collect::<Vec<_>>(), [2, 4], "4 would fit, but must not overtake 2");
        frames.push(frame(Class::Control, 6, 10_001));
        assert!(matches!(sender.try_send_batch(&mut frames), Err(SendError::TooLarge { len: 10_001, .. })));
        sender.0.close();
        frames.pop();
        assert_eq!(sender.try_send_batch(&mut frames), Err(SendError::Closed));
        assert_eq!(frames.len(), 2);
    }
}
