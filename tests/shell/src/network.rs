//! Real QUIC over turmoil's UDP: datagrams take virtual time, and are lost or doubled as the weather says.

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

/// What happens to datagrams on their way, besides taking time.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Weather {
    /// Of a thousand datagrams, so many are lost.
    pub lost: u64,
    /// Of a thousand, so many arrive twice.
    pub doubled: u64,
}

/// The network of one simulation. Clones mean the same one.
#[derive(Clone, Debug)]
pub struct SimNetwork(Arc<Mutex<Sky>>);

#[derive(Debug)]
struct Sky {
    weather: Weather,
    chance: Xoshiro256PlusPlus,
    fate: [u64; 3],
}

impl SimNetwork {
    /// A network whose weather is decided by that seed, and good to begin with.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Sky {
            weather: Weather::default(),
            chance: Xoshiro256PlusPlus::seed_from_u64(seed),
            fate: [0; 3],
        })))
    }

    /// Changes the weather.
    pub fn set(&self, weather: Weather) {
        self.sky().weather = weather;
    }

    /// How many datagrams were lost so far, went their way once, and were doubled.
    #[must_use]
    pub fn fate(&self) -> [u64; 3] {
        self.sky().fate
    }

    /// How often a datagram goes its way.
    fn copies(&self) -> usize {
        let mut sky = self.sky();
        let (lost, doubled) = (sky.weather.lost, sky.weather.doubled);
        let copies = match sky.chance.next_u64() % 1000 {
            drawn if drawn < lost => 0,
            drawn if drawn < lost + doubled => 2,
            _ => 1,
        };
        sky.fate[copies] += 1;
        copies
    }

    fn sky(&self) -> MutexGuard<'_, Sky> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Network for SimNetwork {
    fn runtime(&self) -> Arc<dyn Runtime> {
        // Each host of the simulation has a runtime of tokio's whose clock is virtual.
        Arc::new(TokioRuntime)
    }

    fn open(&self, addr: SocketAddr, _buffer: usize) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        if addr.is_ipv6() {
            return Err(ErrorKind::AddrNotAvailable.into());
        }
        // A host has one address, and its sockets are bound to all of them. Binding never waits.
        let mut bind = std::pin::pin!(UdpSocket::bind(("0.0.0.0", addr.port())));
        let Poll::Ready(socket) = Future::poll(bind.as_mut(), &mut Context::from_waker(std::task::Waker::noop()))
        else {
            return Err(ErrorKind::WouldBlock.into());
        };
        Ok(Arc::new(Socket { udp: Arc::new(socket?), network: self.clone(), readable: Mutex::default() }))
    }
}

type Readable = Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

struct Socket {
    udp: Arc<UdpSocket>,
    network: SimNetwork,
    /// Kept between polls: it is what holds the reader's place in the queue.
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

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
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

    /// As on the machine's sockets, so that the path's datagram size is discovered.
    fn may_fragment(&self) -> bool {
        false
    }
}

/// A simulated socket takes what it is given.
#[derive(Debug)]
struct Always;

impl UdpPoller for Always {
    fn poll_writable(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
