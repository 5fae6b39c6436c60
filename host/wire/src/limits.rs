//! Every limit of an endpoint. None is left to a default of quinn.

use std::sync::Arc;
use std::time::Duration;

use quinn::congestion::CubicConfig;
use quinn::{AckFrequencyConfig, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};
use quinn_proto::HashedConnectionIdGenerator;
use quinn_proto::crypto::HandshakeTokenKey;
use ring::{hkdf, hmac};

use crate::identity::Credentials;
use crate::{Class, Error, Role, Subject};

/// The smallest datagram that QUIC allows a path to have.
const MIN_MTU: u16 = 1_200;
/// Most bytes of a datagram beside the frames: what a path of `MIN_MTU` has room for.
pub const MAX_DATAGRAM: usize = 1_100;
/// Bytes of datagrams that wait on a connection, in each direction.
const DATAGRAM_BUFFER: usize = 8 << 10;
/// The streams of a connection, one for each class.
pub(crate) const STREAMS: u32 = Class::COUNT as u32;
/// Above this, segmentation offload was measured to lose datagrams.
const MAX_MTU: u16 = 6_500;
/// The other side acknowledges after more than so many packets, if nothing that it sends takes the acknowledgement
/// along before. By default QUIC acknowledges every other packet at once, before the answer is there, in a datagram
/// that has nothing else in it.
const ACK_THRESHOLD: u32 = 15;
/// It waits for no longer than this. A loss at the end of what was sent is noticed that much later, and a sender whose
/// window is less than [`ACK_THRESHOLD`] packets waits for it: 25 ms, QUIC's default, would be a stall.
const ACK_DELAY: Duration = Duration::from_millis(10);
/// What may be under way on a new connection, bytes: more than [`ACK_THRESHOLD`] packets of `MIN_MTU`.
const INITIAL_WINDOW: u64 = 64 << 10;

/// One value per traffic class.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PerClass<T> {
    /// For [`Class::Control`].
    pub control: T,
    /// For [`Class::Request`].
    pub request: T,
    /// For [`Class::Large`].
    pub large: T,
    /// For [`Class::Bulk`].
    pub bulk: T,
}

impl<T: Copy> PerClass<T> {
    /// The same value for each.
    pub const fn all(value: T) -> Self {
        Self { control: value, request: value, large: value, bulk: value }
    }

    /// The value for a class.
    pub const fn get(&self, class: Class) -> T {
        match class {
            Class::Control => self.control,
            Class::Request => self.request,
            Class::Large => self.large,
            Class::Bulk => self.bulk,
        }
    }
}

/// The limits of an endpoint. The worst case per connection is about `5 × stream_window` (unacknowledged)
/// `+ 4 × stream_window` (unread) `+ queue_bytes + inbox_bytes + max_frame` of all classes; the defaults suit a data
/// centre and tens of peers.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Largest body, bytes. A longer one is refused when sent and ends the connection when received. Default 18 MiB:
    /// the largest value and its wrapping.
    pub max_frame: PerClass<u32>,
    /// The same for what a node sends, to another node or to a client: an object with all its siblings is larger than
    /// any one value. Applied by a receiver only once the sender's certificate has shown it to be a node. Default 18
    /// MiB for control, 256 MiB for the others.
    pub max_node_frame: PerClass<u32>,
    /// Bytes of frames waiting to be written before a send answers *full*. One frame is always let into an empty queue.
    /// Default 8, 32, 32, 16 MiB.
    pub queue_bytes: PerClass<usize>,
    /// The same for all accepted clients together, beyond 64 KiB that each class of each of them may always hold.
    /// Default 256 MiB.
    pub client_queues: usize,
    /// Bytes of received frames waiting to be taken before reading stops, and with it, by flow control, the other side.
    /// Default 4 MiB each.
    pub inbox_bytes: PerClass<usize>,
    /// Bytes that the other side may have under way on one stream. Default 2 MiB. The connection's window is this times
    /// the number of classes, so that a stalled class cannot take the credit of another, and once more than that may be
    /// unacknowledged towards a peer. Peers should agree on it.
    pub stream_window: u32,
    /// A connection on which nothing arrives for this long is lost. Default 10 s.
    pub idle_timeout: Duration,
    /// A quiet connection is probed this often. Default 3 s; must be below half of `idle_timeout`.
    pub keep_alive: Duration,
    /// The round trip assumed of a path before it is measured: a first datagram that found nobody is sent again after
    /// about three of these. Default 40 ms, so that a node which has just started is found at once; far above a data
    /// centre's, and harmless on a longer path.
    pub initial_rtt: Duration,
    /// From first datagram to usable connection, on either side. Default 5 s.
    pub handshake: Duration,
    /// Pending incoming handshakes. From half of it on, dialers must prove their address first. When all slots are
    /// taken, the oldest handshake is evicted if it has lasted for a quarter of `handshake`; otherwise the newcomer is
    /// refused. Default 128.
    pub max_handshakes: usize,
    /// Open connections accepted from clients. Beyond it newcomers are refused, unless a client that was not admitted
    /// yet can be evicted. Default 4 096.
    pub max_connections: usize,
    /// Open connections accepted from nodes, counted apart from those of clients. Default 1 024.
    pub max_peers: usize,
    /// If set, a client is *new* until [`Connection::admit`](crate::Connection::admit): only its frames of
    /// [`Class::Control`] are read, each of at most this many bytes, and its receive window is little larger. Default
    /// none: clients are admitted at once.
    pub first_frame: Option<u32>,
    /// New clients at once. Beyond it, and when all slots for clients are taken, the oldest new client is evicted.
    /// Default 512.
    pub max_new_clients: usize,
    /// Attempts that the acceptor has not taken yet. Default 256, with at most 16 KiB each and 1 MiB in all.
    pub max_incoming: usize,
    /// Largest datagram that path discovery may settle on, bytes of UDP payload, 1 200 to 6 500. Default 6 000.
    pub mtu: u16,
    /// Asked of the kernel for the socket's send and receive buffers, bytes; it may grant less. Default 4 MiB.
    pub socket_buffer: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_frame: PerClass::all(18 << 20),
            max_node_frame: PerClass { control: 18 << 20, ..PerClass::all(256 << 20) },
            queue_bytes: PerClass { control: 8 << 20, request: 32 << 20, large: 32 << 20, bulk: 16 << 20 },
            client_queues: 256 << 20,
            inbox_bytes: PerClass::all(4 << 20),
            stream_window: 2 << 20,
            idle_timeout: Duration::from_secs(10),
            keep_alive: Duration::from_secs(3),
            initial_rtt: Duration::from_millis(40),
            handshake: Duration::from_secs(5),
            max_handshakes: 128,
            max_connections: 4_096,
            max_peers: 1_024,
            first_frame: None,
            max_new_clients: 512,
            max_incoming: 256,
            mtu: 6_000,
            socket_buffer: 4 << 20,
        }
    }
}

impl Limits {
    /// The largest bodies that a sender with that subject may send.
    pub(crate) fn frames_of(&self, sender: Option<&Subject>) -> PerClass<u32> {
        match sender {
            Some(Subject { role: Role::Node(_), .. }) => self.max_node_frame,
            _ => self.max_frame,
        }
    }

    /// Refuses values that could not work, before a socket is opened.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let zero = [self.max_handshakes, self.max_connections, self.max_peers, self.max_new_clients, self.max_incoming]
            .contains(&0);
        let problem = if !(MIN_MTU..=MAX_MTU).contains(&self.mtu) {
            "mtu must be between 1200 and 6500 bytes"
        } else if self.stream_window < 16 << 10 || self.stream_window > 1 << 28 {
            "stream_window must be between 16 KiB and 256 MiB"
        } else if self.keep_alive.is_zero() || self.keep_alive.saturating_mul(2) > self.idle_timeout {
            "keep_alive must be above zero and at most half of idle_timeout"
        } else if self.idle_timeout > Duration::from_secs(3_600) {
            "idle_timeout must be at most an hour"
        } else if self.first_frame.is_some_and(|first| !(256..=1 << 20).contains(&first)) {
            "first_frame must be between 256 bytes and 1 MiB"
        } else if self.handshake.is_zero() || zero {
            "handshake, max_handshakes, max_connections, max_peers, max_new_clients and max_incoming must be above zero"
        } else {
            return Ok(());
        };
        Err(Error::BadLimits(problem))
    }

    /// The limits of the endpoint as a whole. A seed makes its random choices repeatable, for simulations.
    ///
    /// The keys of connection ids and stateless resets are derived from the private key, if there is one. A process
    /// that is restarted under the same identity then resets the connections of its killed predecessor at their first
    /// packet. Otherwise the peers would wait for `idle_timeout`.
    pub(crate) fn endpoint_config(
        &self,
        seed: Option<[u8; 32]>,
        own: Option<&Credentials>,
    ) -> Result<EndpointConfig, Error> {
        let mut config = EndpointConfig::default();
        if let Some(own) = own {
            let derive = |what: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, own.key.secret_der()), what);
            config.reset_key(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, derive(b"rejoin stateless reset").as_ref())));
            let mut id_key = [0; 8];
            id_key.copy_from_slice(&derive(b"rejoin connection ids").as_ref()[..8]);
            let id_key = u64::from_le_bytes(id_key);
            config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(id_key)));
        }
        config.max_udp_payload_size(self.mtu).map_err(|_| Error::BadLimits("mtu is out of range"))?;
        config.rng_seed(seed);
        Ok(config)
    }

    /// The key of the Retry tokens of an endpoint that starts with these credentials. It must outlive them: who was
    /// sent a token under a key that is gone is sent another one, which QUIC has him ignore, so that he waits until he
    /// gives up.
    pub(crate) fn retry_key(own: &Credentials) -> Arc<dyn HandshakeTokenKey> {
        let secret = hmac::Key::new(hmac::HMAC_SHA256, own.key.secret_der());
        let derived = hmac::sign(&secret, b"rejoin retry tokens");
        Arc::new(hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(derived.as_ref()))
    }

    /// The receive window of all streams of a connection together.
    pub(crate) fn window(&self) -> VarInt {
        VarInt::from_u32(STREAMS * self.stream_window)
    }

    /// As [`Limits::window`], for a connection that is not known to be a peer or an admitted client yet.
    pub(crate) fn first_window(&self) -> VarInt {
        match self.first_frame {
            // One frame with its header and the preambles, twice, so that the window is extended in time.
            Some(first) => VarInt::from_u32((2 * (first + 64)).min(STREAMS * self.stream_window)),
            None => self.window(),
        }
    }

    /// The limits of a connection. The other side may open `streams` bidirectional streams: [`STREAMS`] on an accepted
    /// connection, none on a dialled one.
    pub(crate) fn transport(&self, streams: u32) -> Result<TransportConfig, Error> {
        let idle =
            IdleTimeout::try_from(self.idle_timeout).map_err(|_| Error::BadLimits("idle_timeout is out of range"))?;
        let mut discovery = MtuDiscoveryConfig::default();
        discovery.upper_bound(self.mtu);
        let mut acks = AckFrequencyConfig::default();
        acks.ack_eliciting_threshold(VarInt::from_u32(ACK_THRESHOLD)).max_ack_delay(Some(ACK_DELAY));
        let mut congestion = CubicConfig::default();
        congestion.initial_window(INITIAL_WINDOW);
        let mut transport = TransportConfig::default();
        transport
            .max_concurrent_bidi_streams(VarInt::from_u32(streams))
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            .max_idle_timeout(Some(idle))
            .keep_alive_interval(Some(self.keep_alive))
            .initial_rtt(self.initial_rtt)
            .stream_receive_window(VarInt::from_u32(self.stream_window))
            .receive_window(if streams == 0 { self.window() } else { self.first_window() })
            .send_window(u64::from(STREAMS + 1) * u64::from(self.stream_window))
            .send_fairness(true)
            .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER))
            .datagram_send_buffer_size(DATAGRAM_BUFFER)
            .crypto_buffer_size(16 << 10)
            .initial_mtu(MIN_MTU)
            .min_mtu(MIN_MTU)
            .mtu_discovery_config((self.mtu > MIN_MTU).then_some(discovery))
            .ack_frequency_config(Some(acks))
            .congestion_controller_factory(Arc::new(congestion))
            .allow_spin(false)
            .enable_segmentation_offload(true);
        Ok(transport)
    }

    /// Sets the limits on attempts that were not accepted yet.
    pub(crate) fn apply_to(&self, server: &mut quinn::ServerConfig) {
        server
            .max_incoming(self.max_incoming)
            .incoming_buffer_size(16 << 10)
            .incoming_buffer_size_total(1 << 20)
            .retry_token_lifetime(Duration::from_secs(15))
            .migration(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_hold_and_nonsense_is_refused() {
        assert!(Limits::default().check().is_ok());
        let broken: [fn(&mut Limits); 5] = [
            |limits| limits.mtu = 9_000,
            |limits| limits.stream_window = 0,
            |limits| limits.keep_alive = limits.idle_timeout,
            |limits| limits.max_connections = 0,
            |limits| limits.handshake = Duration::ZERO,
        ];
        for spoil in broken {
            let mut limits = Limits::default();
            spoil(&mut limits);
            assert!(matches!(limits.check(), Err(Error::BadLimits(_))), "{limits:?}");
        }
    }
}
