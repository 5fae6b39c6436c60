//! A connection that carries frames. It owns two tasks: one writes from the [`Outbox`], one reads into the [`Inbox`].
//! It never decides what a frame means, and never reconnects.

use std::{
    future::poll_fn,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use bytes::Bytes;
use quinn::{ReadError, RecvStream, Runtime, SendStream, VarInt, WriteError};
use tokio::sync::watch;

use rejoin_proto::Name;

use crate::{
    Class, CloseCode, Closed, Frame, Limits, PerClass, Sender, Subject, Validity,
    frame::{Decoder, Oversized},
    identity::Remote,
    inbox::Inbox,
    limits::MAX_DATAGRAM,
    outbox::Outbox,
    preamble::Streams,
    runtime::lock,
    shares::Share,
    slots::Slot,
};

/// The most chunks, each at most one datagram, taken from a stream in one read.
const READ_STEP: usize = 16;

/// Counters of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct ConnectionStats {
    /// Frames queued to be sent.
    pub frames_sent: u64,
    /// Bytes of those frames, headers included.
    pub bytes_sent: u64,
    /// Frames received.
    pub frames_received: u64,
    /// Bytes of those frames, headers included.
    pub bytes_received: u64,
    /// Datagrams sent, those of the handshake and acknowledgements included.
    pub datagrams_sent: u64,
    /// Bytes waiting to be written.
    pub queued_bytes: usize,
    /// Bytes received and not yet taken.
    pub inbox_bytes: usize,
    /// The current round-trip time of the path.
    pub rtt: Duration,
    /// Packets declared lost.
    pub packets_lost: u64,
    /// The path's current datagram size, bytes.
    pub mtu: u16,
}

/// An established connection. Clones are cheap and share the connection, which is closed when the last one is dropped.
#[derive(Clone, Debug)]
pub struct Connection(Arc<Handle>);

/// A connection that the other side dialled.
#[derive(Debug)]
pub enum Accepted {
    /// From the node with that name in its certificate.
    Peer(Connection, Name),
    /// From a client, with or without a certificate.
    Client(Connection),
}

/// Shared by all clones. The tasks do not hold it, so that the last clone closes the connection.
#[derive(Debug)]
struct Handle {
    shared: Shared,
    limits: Arc<Limits>,
    /// Whether the other side may send frames of every class.
    admitted: watch::Sender<bool>,
    /// `None` for a connection that this side dialled.
    slot: Option<Weak<Slot>>,
    /// To whom its tasks are charged; `None` for a connection that this side dialled.
    share: Option<Arc<Share>>,
    /// Where its tasks are.
    home: Option<tokio::runtime::Handle>,
    remote: Option<Remote>,
}

/// How a connection was accepted.
pub(crate) struct AcceptedAs {
    pub(crate) slot: Slot,
    /// It is of a client that must be admitted.
    pub(crate) new: bool,
    pub(crate) share: Arc<Share>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.close(CloseCode::DONE, "dropped");
    }
}

/// Shared by the handle and the tasks.
#[derive(Clone, Debug)]
struct Shared {
    quic: quinn::Connection,
    outbox: Arc<Outbox>,
    inbox: Arc<Inbox>,
    /// Kept here because quinn does not report the reason of a local close.
    our_reason: Arc<Mutex<Option<Closed>>>,
}

impl Shared {
    fn close(&self, code: CloseCode, reason: &str) {
        lock(&self.our_reason).get_or_insert_with(|| Closed::ByUs { code, reason: reason.to_owned() });
        self.quic.close(VarInt::from_u32(code.0), reason.as_bytes());
    }

    fn explain(&self, error: quinn::ConnectionError) -> Closed {
        match (error, &*lock(&self.our_reason)) {
            (quinn::ConnectionError::LocallyClosed, Some(reason)) => reason.clone(),
            (error, _) => error.into(),
        }
    }
}

impl Connection {
    /// Starts the tasks of a connection whose streams are open.
    pub(crate) fn start(
        runtime: &dyn Runtime,
        quic: quinn::Connection,
        streams: Streams,
        limits: &Arc<Limits>,
        own: Option<&Subject>,
        remote: Option<Remote>,
        accepted: Option<AcceptedAs>,
    ) -> Self {
        let client_queues = accepted.as_ref().and_then(|accepted| accepted.slot.client_queues());
        let outbox = Arc::new(Outbox::new(limits.clone(), limits.frames_of(own), client_queues));
        let received = limits.frames_of(remote.as_ref().map(|remote| &remote.subject));
        let (slot, share, new) = match accepted {
            Some(AcceptedAs { slot, new, share }) => (Some(Arc::new(slot)), Some(share), new),
            None => (None, None, false),
        };
        let inbox = Arc::new(Inbox::new(limits.clone(), new));
        let shared = Shared { quic, outbox, inbox, our_reason: Arc::default() };
        let (admitted, is_admitted) = watch::channel(!new);
        let first = limits.first_frame.unwrap_or(u32::MAX);
        let read_limits = ReadLimits { max_body: received, before_admission: first, admitted: is_admitted };
        let [(control_out, control_in), (request_out, request_in), (large_out, large_in), (bulk_out, bulk_in)] =
            streams;
        let writing = write_all(shared.clone(), [control_out, request_out, large_out, bulk_out]);
        let kept = slot.as_ref().map(Arc::downgrade);
        let writing = async move {
            writing.await;
            // The slot is free once the connection has ended, even while handles of it exist.
            drop(slot);
        };
        let reading = read_all(shared.clone(), read_limits, [control_in, request_in, large_in, bulk_in]);
        let (limits, home) = (limits.clone(), tokio::runtime::Handle::try_current().ok());
        let connection = Self(Arc::new(Handle { shared, limits, admitted, slot: kept, share, home, remote }));
        runtime.spawn(connection.task(writing));
        runtime.spawn(connection.task(reading));
        connection
    }

    /// The runtime that has the tasks of this connection. `None` if that is not one of tokio's.
    #[must_use]
    pub fn runtime(&self) -> Option<&tokio::runtime::Handle> {
        self.0.home.as_ref()
    }

    /// Work for this connection as a task, to be spawned on its runtime. If the other side has dialled,
    /// the processor time that it takes is charged as the connection's own is, see [`Connection::charge_to`].
    pub fn task(&self, work: impl Future<Output = ()> + Send + 'static) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        match &self.0.share {
            Some(share) => share.task(work),
            None => Box::pin(work),
        }
    }

    /// Charges the processor time of an accepted client to the flow of that key from now on, which has that weight from
    /// now on. Before that it is charged to all newcomers together. Has no effect on a connection that this side
    /// dialled, nor on one of a node.
    pub fn charge_to(&self, flow: u64, weight: u32) {
        if let Some(share) = &self.0.share {
            share.charge_to(flow, weight);
        }
    }

    /// Admits a new client (see [`Limits::first_frame`]): it may now send frames of every class up to their limits, and
    /// is no longer evicted for another client. Has no effect on any other connection.
    pub fn admit(&self) {
        if self.0.admitted.send_replace(true) {
            return;
        }
        self.0.shared.quic.set_receive_window(self.0.limits.window());
        self.0.shared.inbox.lift_restriction();
        if let Some(slot) = self.0.slot.as_ref().and_then(Weak::upgrade) {
            slot.admit();
        }
    }

    /// A handle for sending, usable from any thread.
    #[must_use]
    pub fn sender(&self) -> Sender {
        Sender(self.0.shared.outbox.clone())
    }

    /// The next frame: of [`Class::Control`] if there is one, else of the next class in [`Class::ALL`]; within a class
    /// in the order sent. `None` once the connection has ended and all received frames were taken. A
    /// caller that stops taking frames stops the other side, class by class.
    pub async fn recv(&self) -> Option<Frame> {
        self.0.shared.inbox.recv(&Class::ALL).await
    }

    /// The next frame of one class, for callers with a task for each class. Do not combine it with [`Connection::recv`]
    /// for the same class.
    pub async fn recv_class(&self, class: Class) -> Option<Frame> {
        self.0.shared.inbox.recv(&[class]).await
    }

    /// Waits for a frame, then appends up to `max` of the received frames to `out`. Returns their number, 0 once the
    /// connection has ended.
    pub async fn recv_batch(&self, out: &mut Vec<Frame>, max: usize) -> usize {
        self.recv_batch_of(&Class::ALL, out, max).await
    }

    /// As [`Connection::recv_batch`], for some classes only, those in front first. Another task may take the other
    /// classes.
    pub async fn recv_batch_of(&self, classes: &[Class], out: &mut Vec<Frame>, max: usize) -> usize {
        if max == 0 {
            return 0;
        }
        let Some(first) = self.0.shared.inbox.recv(classes).await else { return 0 };
        out.push(first);
        1 + self.0.shared.inbox.take(classes, out, max - 1)
    }

    /// Sends a datagram of at most [`MAX_DATAGRAM`](crate::MAX_DATAGRAM) bytes, ahead of all frames. It has no order
    /// and may be lost. If too many wait, the oldest are dropped. Returns false if it is too large or the connection
    /// has ended.
    pub fn send_datagram(&self, body: Bytes) -> bool {
        body.len() <= MAX_DATAGRAM && self.0.shared.quic.send_datagram(body).is_ok()
    }

    /// The next datagram, `None` once the connection has ended. If too many wait, the oldest are dropped.
    pub async fn recv_datagram(&self) -> Option<Bytes> {
        self.0.shared.quic.read_datagram().await.ok()
    }

    /// Closes the connection at once. Queued frames are dropped, frames in flight may be lost. The other side sees the
    /// code and the reason, which is cut to fit a packet.
    pub fn close(&self, code: CloseCode, reason: &str) {
        self.0.shared.close(code, reason);
    }

    /// Waits until the connection has ended. Returns the reason.
    pub async fn closed(&self) -> Closed {
        self.0.shared.explain(self.0.shared.quic.closed().await)
    }

    /// Why the connection has ended, `None` while it is open.
    #[must_use]
    pub fn close_reason(&self) -> Option<Closed> {
        self.0.shared.quic.close_reason().map(|error| self.0.shared.explain(error))
    }

    /// The subject of the other side's certificate, `None` for a client without one.
    #[must_use]
    pub fn subject(&self) -> Option<&Subject> {
        self.0.remote.as_ref().map(|remote| &remote.subject)
    }

    /// When the other side's certificate is valid, `None` for a client without one. It was checked during the handshake
    /// only.
    #[must_use]
    pub fn certificate_validity(&self) -> Option<Validity> {
        self.0.remote.as_ref().map(|remote| remote.validity)
    }

    /// The current address of the other side. It may change: QUIC connections migrate.
    #[must_use]
    pub fn remote_address(&self) -> SocketAddr {
        self.0.shared.quic.remote_address()
    }

    /// The counters of this connection.
    #[must_use]
    pub fn stats(&self) -> ConnectionStats {
        let (frames_sent, bytes_sent, queued_bytes) = self.0.shared.outbox.counts();
        let (frames_received, bytes_received, inbox_bytes) = self.0.shared.inbox.counts();
        let stats = self.0.shared.quic.stats();
        let path = stats.path;
        ConnectionStats {
            frames_sent,
            bytes_sent,
            frames_received,
            bytes_received,
            datagrams_sent: stats.udp_tx.datagrams,
            queued_bytes,
            inbox_bytes,
            rtt: path.rtt,
            packets_lost: path.lost_packets,
            mtu: path.current_mtu,
        }
    }
}

/// Writes the classes within one task, in their order. A class that waits for flow control does not block the others.
async fn write_all(shared: Shared, [mut control, mut request, mut large, mut bulk]: [SendStream; Class::COUNT]) {
    let shared = &shared;
    let classes = async {
        tokio::join!(
            biased;
            write_class(shared, Class::Control, &mut control),
            write_class(shared, Class::Request, &mut request),
            write_class(shared, Class::Large, &mut large),
            write_class(shared, Class::Bulk, &mut bulk),
        )
    };
    let ended = async {
        shared.quic.closed().await;
        shared.outbox.close();
    };
    tokio::join!(biased; classes, ended);
}

/// Writes the pending frames of a class until the connection ends.
async fn write_class(shared: &Shared, class: Class, stream: &mut SendStream) {
    loop {
        poll_fn(|cx| shared.outbox.poll_pending(class, cx)).await;
        // The tasks that are due go first: what they send is then in the same write, and in the same datagram.
        tokio::task::yield_now().await;
        let Some(mut chunks) = shared.outbox.take(class) else { return };
        let mut rest = &mut chunks[..];
        while !rest.is_empty() {
            let written = match stream.write_chunks(rest).await {
                Ok(written) => written,
                // Closing again would replace the reason.
                Err(WriteError::ConnectionLost(_)) => return,
                // The other side stopped a stream, which the protocol does not allow.
                Err(_) => return shared.close(CloseCode::PROTOCOL, "a stream was stopped"),
            };
            tracing::trace!(remote = %shared.quic.remote_address(), %class, bytes = written.bytes, "written");
            shared.outbox.written(class, written.bytes);
            rest = &mut rest[written.chunks..];
        }
    }
}

/// Limits for reading a connection.
struct ReadLimits {
    /// The longest body of each class, in bytes.
    max_body: PerClass<u32>,
    /// The longest body before the other side is admitted, in bytes.
    before_admission: u32,
    admitted: watch::Receiver<bool>,
}

/// Reads the classes until the connection ends. Frames received by then are still delivered.
async fn read_all(
    shared: Shared,
    limits: ReadLimits,
    [mut control, mut request, mut large, mut bulk]: [RecvStream; Class::COUNT],
) {
    let (shared, limits) = (&shared, &limits);
    let ended = async {
        shared.quic.closed().await;
        shared.inbox.ending();
    };
    tokio::join!(
        biased;
        read_class(shared, Class::Control, limits, &mut control),
        read_class(shared, Class::Request, limits, &mut request),
        read_class(shared, Class::Large, limits, &mut large),
        read_class(shared, Class::Bulk, limits, &mut bulk),
        ended,
    );
    shared.inbox.end();
}

/// Waits until the other side is admitted. False if the connection ends first.
async fn wait_admitted(shared: &Shared, limits: &ReadLimits) -> bool {
    let mut admitted = limits.admitted.clone();
    if *admitted.borrow() {
        return true;
    }
    tokio::select! {
        biased;
        waited = admitted.wait_for(|admitted| *admitted) => waited.is_ok(),
        _ = shared.quic.closed() => false,
    }
}

/// Reads one class while its inbox has space. Before admission only [`Class::Control`] is read.
async fn read_class(shared: &Shared, class: Class, limits: &ReadLimits, stream: &mut RecvStream) {
    if class != Class::Control && !wait_admitted(shared, limits).await {
        return;
    }
    let limit = limits.max_body.get(class);
    let mut decoder = Decoder::new(class, limit);
    let mut frames = Vec::new();
    let mut chunks = [const { Bytes::new() }; READ_STEP];
    while shared.inbox.wait_for_space(class).await {
        match stream.read_chunks(&mut chunks).await {
            Ok(Some(count)) => {
                decoder.set_limit(if *limits.admitted.borrow() { limit } else { limit.min(limits.before_admission) });
                let mut arrived = chunks[..count].iter_mut().map(std::mem::take);
                let decoded = arrived.try_for_each(|chunk| decoder.push(chunk, &mut frames));
                for frame in &frames {
                    let (remote, bytes) = (shared.quic.remote_address(), frame.body.len());
                    tracing::trace!(%remote, %class, id = frame.id, bytes, "frame");
                }
                shared.inbox.push(&mut frames);
                if let Err(Oversized { len, limit }) = decoded {
                    tracing::warn!(remote = %shared.quic.remote_address(), %class, len, limit, "oversized frame, \
                        closing the connection");
                    return shared.close(
                        CloseCode::FRAME_TOO_LARGE,
                        &format!("a {class} frame of {len} bytes is above the limit of {limit}"),
                    );
                }
            }
            Err(ReadError::ConnectionLost(_)) => return,
            Ok(None) | Err(_) => return shared.close(CloseCode::PROTOCOL, "a stream ended before its connection"),
        }
    }
}
