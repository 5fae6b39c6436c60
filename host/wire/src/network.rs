//! Where sockets, tasks and timers come from.

use std::{
    fmt, io,
    net::{SocketAddr, UdpSocket},
    sync::Arc,
};

use quinn::{AsyncUdpSocket, Runtime, TokioRuntime};

/// Where an endpoint's socket, tasks and timers come from: the machine ([`OsNetwork`]), or a simulation in which time
/// and loss are the test's.
pub trait Network: fmt::Debug + Send + Sync {
    /// What tasks and timers are made with.
    fn runtime(&self) -> Arc<dyn Runtime>;

    /// Opens a UDP port, 0 for any free one, with send and receive buffers of about so many bytes.
    ///
    /// # Errors
    /// Why the address cannot be opened; [`io::ErrorKind::AddrInUse`] if somebody has it.
    fn open(&self, addr: SocketAddr, buffer: usize) -> io::Result<Arc<dyn AsyncUdpSocket>>;
}

/// The operating system's sockets and the clock and tasks of the tokio runtime within which it is used.
#[derive(Clone, Copy, Debug)]
pub struct OsNetwork;

impl Network for OsNetwork {
    fn runtime(&self) -> Arc<dyn Runtime> {
        Arc::new(TokioRuntime)
    }

    fn open(&self, addr: SocketAddr, buffer: usize) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let socket = UdpSocket::bind(addr)?;
        // The kernel may grant less, which is no reason not to go on.
        if let Ok(state) = quinn::udp::UdpSocketState::new((&socket).into()) {
            let sized =
                state.set_recv_buffer_size((&socket).into(), buffer).and_then(|()| state.set_send_buffer_size((&socket).into(), buffer));
            if let Err(error) = sized {
                tracing::debug!(%error, "the socket keeps the system's buffer sizes");
            }
        }
        TokioRuntime.wrap_udp_socket(socket)
    }
}
