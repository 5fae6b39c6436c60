//! Accepts connections on the admin port, a bounded number of them, and closes idle ones. It asks for a token only when
//! a request has come, so without these bounds any process that reaches it could use up the file descriptors that the
//! store needs.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

/// The most connections at once; further ones wait to be accepted.
const MAX_CONNECTIONS: usize = 64;
/// A connection that sends nothing for this long is closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// The bounded listener of the admin port.
pub(crate) struct AdminListener {
    listener: TcpListener,
    permits: Arc<Semaphore>,
    idle: Duration,
}

impl AdminListener {
    pub(crate) fn new(listener: TcpListener) -> Self {
        Self { listener, permits: Arc::new(Semaphore::new(MAX_CONNECTIONS)), idle: IDLE_TIMEOUT }
    }
}

impl axum::serve::Listener for AdminListener {
    type Io = AdminStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (AdminStream, SocketAddr) {
        // The semaphore is never closed.
        let permit = self.permits.clone().acquire_owned().await.ok();
        let (stream, from) = axum::serve::Listener::accept(&mut self.listener).await;
        let timer = Box::pin(tokio::time::sleep(self.idle));
        (AdminStream { stream, idle: self.idle, timer, _permit: permit }, from)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that times out when idle, and its permit.
pub(crate) struct AdminStream {
    stream: TcpStream,
    idle: Duration,
    timer: Pin<Box<Sleep>>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl AsyncRead for AdminStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(cx, buffer) {
            let until = Instant::now() + self.idle;
            self.timer.as_mut().reset(until);
            return Poll::Ready(read);
        }
        self.timer.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncWrite for AdminStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt as _;

    #[tokio::test]
    async fn silent_connections_are_few_and_end() {
        let mut port = AdminListener::new(TcpListener::bind("127.0.0.1:0").await.expect("a free port"));
        port.idle = Duration::from_millis(20);
        let address = axum::serve::Listener::local_addr(&port).expect("it is bound");
        let (mut dialled, mut accepted) = (Vec::new(), Vec::new());
        for _ in 0..MAX_CONNECTIONS {
            dialled.push(TcpStream::connect(address).await.expect("it listens"));
            accepted.push(axum::serve::Listener::accept(&mut port).await.0);
        }
        dialled.push(TcpStream::connect(address).await.expect("the kernel takes it"));
        assert_eq!(port.permits.available_permits(), 0);
        let mut first = accepted.swap_remove(0);
        let read = first.read(&mut [0; 8]).await;
        assert_eq!(read.map_err(|error| error.kind()), Err(io::ErrorKind::TimedOut));
        drop(first);
        axum::serve::Listener::accept(&mut port).await;
    }
}
