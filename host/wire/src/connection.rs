//! A connection that carries frames: a writer task, a reader task and the queues between them and the rest of the
//! program.

use std::{
    future::poll_fn,
    net::SocketAddr,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use bytes::Bytes;
use quinn::{ReadError, RecvStream, Runtime, SendStream, VarInt, WriteError};
use tokio::sync::watch;

use crate::{
    Class, CloseCode, Closed, Frame, Limits, PerClass, Period, Sender, Subject,
    frame::{Decoder, Oversized},
    handshake::Remote,
    hello::Stream,
    inbox::Inbox,
    outbox::Outbox,
    places::Place,
    runtime::lock,
};

/// Most chunks (each at most a datagram's worth) taken from a stream in one read.
const READ_STEP: usize = 16;

/// What a connection has moved so far.
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
    /// Bytes that wait to be written now.
    pub queued_bytes: usize,
    /// Bytes that have arrived and wait to be taken now.
    pub inbox_bytes: usize,
    /// The path's current round trip.
    pub rtt: Duration,
    /// Packets found lost.
    pub packets_lost: u64,
    /// The path's current datagram size, bytes.
    pub mtu: u16,
}

/// An established connection. Clones are cheap and mean the same connection; when the last is dropped, it is closed.
#[derive(Clone, Debug)]
pub struct Connection(Arc<Handle>);

/// What clones share. The tasks do not hold it, so that dropping it is noticed.
#[derive(Debug)]
struct Handle {
    link: Link,
    limits: Arc<Limits>,
    /// Set once the other side may send whatever it likes.
    let_in: watch::Sender<bool>,
    /// Of a connection that was accepted.
    place: Option<Weak<Place>>,
    remote: Option<Remote>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.link.close(CloseCode::DONE, "dropped");
    }
}

/// What handle and tasks share.
#[derive(Clone, Debug)]
struct Link {
    quic: quinn::Connection,
    outbox: Arc<Outbox>,
    inbox: Arc<Inbox>,
    /// QUIC forgets why its own side closed.
    our_reason: Arc<Mutex<Option<Closed>>>,
}

impl Link {
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
        streams: [Stream; 3],
        limits: &Arc<Limits>,
        own: Option<&Subject>,
        remote: Option<Remote>,
        accepted: Option<(Place, bool)>,
    ) -> Self {
        let shared = accepted.as_ref().and_then(|(place, _)| place.client_queues());
        let outbox = Arc::new(Outbox::new(limits.clone(), limits.frames_of(own), shared));
        let received = limits.frames_of(remote.as_ref().map(|remote| &remote.subject));
        let (place, new) = accepted.map_or((None, false), |(place, new)| (Some(Arc::new(place)), new));
        let inbox = Arc::new(Inbox::new(limits.clone(), new));
        let link = Link { quic, outbox, inbox, our_reason: Arc::default() };
        let (let_in, is_in) = watch::channel(!new);
        let rules = Rules { limits: received, first: limits.first_frame.unwrap_or(u32::MAX), is_in };
        let [(control_out, control_in), (request_out, request_in), (bulk_out, bulk_in)] = streams;
        let writing = write_all(link.clone(), [control_out, request_out, bulk_out]);
        let kept = place.as_ref().map(Arc::downgrade);
        runtime.spawn(Box::pin(async move {
            writing.await;
            // The place is free once the connection has ended, whoever still holds its handle.
            drop(place);
        }));
        runtime.spawn(Box::pin(read_all(link.clone(), rules, [control_in, request_in, bulk_in])));
        Self(Arc::new(Handle { link, limits: limits.clone(), let_in, place: kept, remote }))
    }

    /// Lets a new client in (see [`Limits::first_frame`]): from now on it may send frames of every class, as large as
    /// any client may, and gives way to nobody. For any other connection this changes nothing.
    pub fn let_in(&self) {
        if self.0.let_in.send_replace(true) {
            return;
        }
        self.0.link.quic.set_receive_window(self.0.limits.window());
        self.0.link.inbox.widen();
        if let Some(place) = self.0.place.as_ref().and_then(Weak::upgrade) {
            place.let_in();
        }
    }

    /// A handle to send with, for as many threads as need one.
    #[must_use]
    pub fn sender(&self) -> Sender {
        Sender(self.0.link.outbox.clone())
    }

    /// The next frame: of [`Class::Control`] if there is one, else of [`Class::Request`], else of [`Class::Bulk`];
    /// within a class in the order sent. None once the connection has ended and all that arrived was taken. Not taking
    /// frames stops the other side, class by class.
    pub async fn recv(&self) -> Option<Frame> {
        self.0.link.inbox.recv(&Class::ALL).await
    }

    /// The next frame of one class, for who gives each class its own task. Do not mix with [`Connection::recv`] for the
    /// same class.
    pub async fn recv_class(&self, class: Class) -> Option<Frame> {
        self.0.link.inbox.recv(&[class]).await
    }

    /// Waits for a frame, then appends it and whatever else has arrived, at most `max` frames, to `out`. Returns how
    /// many; 0 once the connection has ended.
    pub async fn recv_batch(&self, out: &mut Vec<Frame>, max: usize) -> usize {
        if max == 0 {
            return 0;
        }
        let Some(first) = self.recv().await else { return 0 };
        out.push(first);
        1 + self.0.link.inbox.take(out, max - 1)
    }

    /// Closes the connection at once: what is queued is not sent, what is under way may not arrive. The other side sees
    /// code and reason (which is cut to what fits a packet).
    pub fn close(&self, code: CloseCode, reason: &str) {
        self.0.link.close(code, reason);
    }

    /// Waits until the connection has ended, and says why.
    pub async fn closed(&self) -> Closed {
        self.0.link.explain(self.0.link.quic.closed().await)
    }

    /// Why the connection has ended; none while it lives.
    #[must_use]
    pub fn close_reason(&self) -> Option<Closed> {
        self.0.link.quic.close_reason().map(|error| self.0.link.explain(error))
    }

    /// Who is on the other side, by its certificate; none for a client without one.
    #[must_use]
    pub fn subject(&self) -> Option<&Subject> {
        self.0.remote.as_ref().map(|remote| &remote.subject)
    }

    /// From when to when the other side's certificate holds; none for a client without one. It was checked when the
    /// connection was made.
    #[must_use]
    pub fn certificate_period(&self) -> Option<Period> {
        self.0.remote.as_ref().map(|remote| remote.period)
    }

    /// The other side's address now. It may change while the connection lives.
    #[must_use]
    pub fn remote_address(&self) -> SocketAddr {
        self.0.link.quic.remote_address()
    }

    /// What it has moved so far.
    #[must_use]
    pub fn stats(&self) -> ConnectionStats {
        let (frames_sent, bytes_sent, queued_bytes) = self.0.link.outbox.counts();
        let (frames_received, bytes_received, inbox_bytes) = self.0.link.inbox.counts();
        let path = self.0.link.quic.stats().path;
        ConnectionStats {
            frames_sent,
            bytes_sent,
            frames_received,
            bytes_received,
            queued_bytes,
            inbox_bytes,
            rtt: path.rtt,
            packets_lost: path.lost_packets,
            mtu: path.current_mtu,
        }
    }
}

/// The one writer: the three classes take turns within one task, in their order, and one that flow control holds up
/// does not hold up the others.
async fn write_all(link: Link, [mut control, mut request, mut bulk]: [SendStream; 3]) {
    let link = &link;
    let classes = async {
        tokio::join!(
            biased;
            write_class(link, Class::Control, &mut control),
            write_class(link, Class::Request, &mut request),
            write_class(link, Class::Bulk, &mut bulk),
        )
    };
    let ended = async {
        link.quic.closed().await;
        link.outbox.close();
    };
    tokio::join!(biased; classes, ended);
}

/// Writes everything that is pending for a class, again and again, until the connection ends.
async fn write_class(link: &Link, class: Class, stream: &mut SendStream) {
    while let Some(mut chunks) = poll_fn(|cx| link.outbox.poll_take(class, cx)).await {
        let mut rest = &mut chunks[..];
        while !rest.is_empty() {
            let written = match stream.write_chunks(rest).await {
                Ok(written) => written,
                // Closing it again would hide why it has ended.
                Err(WriteError::ConnectionLost(_)) => return,
                // The other side has stopped a stream, which the protocol does not know.
                Err(_) => return link.close(CloseCode::PROTOCOL, "a stream was stopped"),
            };
            tracing::trace!(remote = %link.quic.remote_address(), %class, bytes = written.bytes, "written");
            link.outbox.written(class, written.bytes);
            rest = &mut rest[written.chunks..];
        }
    }
}

/// What may be read of a connection.
struct Rules {
    /// The longest bodies.
    limits: PerClass<u32>,
    /// The longest body before the other side was let in.
    first: u32,
    is_in: watch::Receiver<bool>,
}

/// Reads the three classes until the connection ends. What has arrived by then is still handed over.
async fn read_all(link: Link, rules: Rules, [mut control, mut request, mut bulk]: [RecvStream; 3]) {
    let (link, rules) = (&link, &rules);
    let ended = async {
        link.quic.closed().await;
        link.inbox.ending();
    };
    tokio::join!(
        biased;
        read_class(link, Class::Control, rules, &mut control),
        read_class(link, Class::Request, rules, &mut request),
        read_class(link, Class::Bulk, rules, &mut bulk),
        ended,
    );
    link.inbox.end();
}

/// Waits until the other side is let in. False once the connection has ended before.
async fn let_in(link: &Link, rules: &Rules) -> bool {
    let mut is_in = rules.is_in.clone();
    if *is_in.borrow() {
        return true;
    }
    tokio::select! {
        biased;
        let_in = is_in.wait_for(|is_in| *is_in) => let_in.is_ok(),
        _ = link.quic.closed() => false,
    }
}

/// Reads one class, while there is room to put what it brings. Of who is not let in yet, only [`Class::Control`] is
/// read.
async fn read_class(link: &Link, class: Class, rules: &Rules, stream: &mut RecvStream) {
    if class != Class::Control && !let_in(link, rules).await {
        return;
    }
    let limit = rules.limits.get(class);
    let mut decoder = Decoder::new(class, limit);
    let mut frames = Vec::new();
    let mut chunks = [const { Bytes::new() }; READ_STEP];
    while link.inbox.room(class).await {
        match stream.read_chunks(&mut chunks).await {
            Ok(Some(count)) => {
                decoder.set_limit(if *rules.is_in.borrow() { limit } else { limit.min(rules.first) });
                let mut arrived = chunks[..count].iter_mut().map(std::mem::take);
                let decoded = arrived.try_for_each(|chunk| decoder.push(chunk, &mut frames));
                for frame in &frames {
                    tracing::trace!(remote = %link.quic.remote_address(), %class, id = frame.id, bytes = frame.body.len(), "frame");
                }
                link.inbox.push(&mut frames);
                if let Err(Oversized { len, limit }) = decoded {
                    tracing::warn!(remote = %link.quic.remote_address(), %class, len, limit, "oversized frame, closing the connection");
                    return link
                        .close(CloseCode::FRAME_TOO_LARGE, &format!("a {class} frame of {len} bytes is above the limit of {limit}"));
                }
            }
            Err(ReadError::ConnectionLost(_)) => return,
            Ok(None) | Err(_) => return link.close(CloseCode::PROTOCOL, "a stream ended before its connection"),
        }
    }
}
