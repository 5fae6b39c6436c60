//! The source of sockets, tasks and timers, which a simulation replaces.

use std::{
    fmt, io,
    net::{SocketAddr, UdpSocket},
    sync::Arc,
};

use quinn::{AsyncUdpSocket, Runtime, TokioRuntime};

/// The source of an endpoint's socket, tasks and timers: the operating system ([`OsNetwork`]), or a simulation that
/// controls time and packet loss.
pub trait Network: fmt::Debug + Send + Sync {
    /// The runtime for tasks and timers.
    fn runtime(&self) -> Arc<dyn Runtime>;

    /// Binds a UDP port, 0 for any free one, with send and receive buffers of about `buffer` bytes.
    ///
    /// # Errors
    /// [`io::ErrorKind::AddrInUse`] if the port is taken, otherwise the error of the system.
    fn open(&self, addr: SocketAddr, buffer: usize) -> io::Result<Arc<dyn AsyncUdpSocket>>;
}

/// The operating system's sockets, and the clock and tasks of the current tokio runtime.
#[derive(Clone, Copy, Debug)]
pub struct OsNetwork;

impl Network for OsNetwork {
    fn runtime(&self) -> Arc<dyn Runtime> {
        Arc::new(TokioRuntime)
    }

    fn open(&self, addr: SocketAddr, buffer: usize) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let socket = UdpSocket::bind(addr)?;
        // A smaller buffer is slower, not wrong.
        if let Ok(state) = quinn::udp::UdpSocketState::new((&socket).into()) {
            let sized = state
                .set_recv_buffer_size((&socket).into(), buffer)
                .and_then(|()| state.set_send_buffer_size((&socket).into(), buffer));
            if let Err(error) = sized {
                tracing::debug!(%error, "the socket keeps the system's buffer sizes");
            }
        }
        TokioRuntime.wrap_udp_socket(socket)
    }
}
