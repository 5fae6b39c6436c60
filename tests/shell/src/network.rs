//! Real QUIC over turmoil's UDP: datagrams take virtual time, and some are lost or duplicated.

use std::io::{self, ErrorKind, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, Runtime, TokioRuntime, UdpPoller};
use rand_core::{Rng as _, SeedableRng as _};
use rand_xoshiro::Xoshiro256PlusPlus;
use turmoil::net::UdpSocket;

use rejoin_wire::Network;

/// How many datagrams are lost or duplicated.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Losses {
    /// Lost datagrams per thousand.
    pub lost: u64,
    /// Duplicated datagrams per thousand.
    pub duplicated: u64,
}

/// The network of one simulation. Clones share it.
#[derive(Clone, Debug)]
pub struct SimNetwork(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    losses: Losses,
    rng: Xoshiro256PlusPlus,
    /// How many datagrams were lost, sent once, and sent twice.
    sent: [u64; 3],
}

impl SimNetwork {
    /// A network without losses. The seed decides which datagrams are lost later.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State { losses: Losses::default(), rng: Xoshiro256PlusPlus::seed_from_u64(seed), sent: [0; 3] })))
    }

    /// Changes the rates of loss and duplication.
    pub fn set(&self, losses: Losses) {
        self.state().losses = losses;
    }

    /// How many datagrams were lost so far, sent once, and duplicated.
    #[must_use]
    pub fn sent(&self) -> [u64; 3] {
        self.state().sent
    }

    /// How many copies of the next datagram are sent.
    fn copies(&self) -> usize {
        let mut state = self.state();
        let (lost, duplicated) = (state.losses.lost, state.losses.duplicated);
        let copies = match state.rng.next_u64() % 1000 {
            drawn if drawn < lost => 0,
            drawn if drawn < lost + duplicated => 2,
            _ => 1,
        };
        state.sent[copies] += 1;
        copies
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Network for SimNetwork {
    fn runtime(&self) -> Arc<dyn Runtime> {
        // Each simulated host has a tokio runtime with a virtual clock.
        Arc::new(TokioRuntime)
    }

    fn open(&self, addr: SocketAddr, _buffer: usize) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        if addr.is_ipv6() {
            return Err(ErrorKind::AddrNotAvailable.into());
        }
        // A host has one address, so binding to any address means that one. Binding never waits.
        let mut bind = std::pin::pin!(UdpSocket::bind(("0.0.0.0", addr.port())));
        let Poll::Ready(socket) = Future::poll(bind.as_mut(), &mut Context::from_waker(std::task::Waker::noop())) else {
            return Err(ErrorKind::WouldBlock.into());
        };
        Ok(Arc::new(Socket { udp: Arc::new(socket?), network: self.clone(), readable: Mutex::default() }))
    }
}

type Readable = Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

struct Socket {
    udp: Arc<UdpSocket>,
    network: SimNetwork,
    /// Kept between polls: dropping it would lose the reader's place in the queue.
    readable: Mutex<Option<Readable>>,
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.udp.fmt(f)
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Always)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        for datagram in transmit.contents.chunks(transmit.segment_size.unwrap_or(usize::MAX)) {
            for _ in 0..self.network.copies() {
                self.udp.try_send_to(datagram, transmit.destination)?;
            }
        }
        Ok(())
    }

    fn poll_recv(&self, cx: &mut Context<'_>, bufs: &mut [IoSliceMut<'_>], meta: &mut [RecvMeta]) -> Poll<io::Result<usize>> {
        let mut readable = self.readable.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let udp = self.udp.clone();
            let wait = readable.get_or_insert_with(|| Box::pin(async move { udp.readable().await }));
            ready!(Future::poll(wait.as_mut(), cx))?;
            *readable = None;
            match self.udp.try_recv_from(&mut bufs[0]) {
                Ok((len, addr)) => {
                    meta[0] = RecvMeta { addr, len, stride: len, ecn: None, dst_ip: None };
                    return Poll::Ready(Ok(1));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.udp.local_addr()
    }

    /// As on real sockets, so that QUIC discovers the datagram size of the path.
    fn may_fragment(&self) -> bool {
        false
    }
}

/// A simulated socket is always writable.
#[derive(Debug)]
struct Always;

impl UdpPoller for Always {
    fn poll_writable(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
