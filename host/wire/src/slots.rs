//! Slots limit the connections of an endpoint: pending handshakes, peers and clients are counted apart, so that clients
//! cannot take the slots of peers. Under pressure the oldest handshake, or the oldest client that was not admitted yet,
//! is evicted.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Instant,
};

use quinn::VarInt;
use tokio::sync::oneshot;

use crate::{CloseCode, Error, Limits, outbox::ClientQueues, runtime::lock};

/// A handshake is not evicted before this fraction (a quarter) of [`Limits::handshake`] has passed.
const MIN_HANDSHAKE_FRACTION: u32 = 4;
/// Slots reserved for the handshakes of each expected peer, beside [`Limits::max_handshakes`]. A node dials one
/// connection at a time. The second slot lets it retry while its last attempt is still pending here.
const HANDSHAKES_PER_PEER: usize = 2;
/// The reason that an evicted connection is sent.
const EVICTED: &[u8] = b"evicted: others wait for this slot";

/// All slots of an endpoint.
#[derive(Debug)]
pub(crate) struct ConnectionSlots {
    limits: Arc<Limits>,
    client_queues: Arc<ClientQueues>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// The oldest first.
    handshakes: BTreeMap<u64, PendingHandshake>,
    /// The addresses from which peers dial.
    expected: BTreeSet<SocketAddr>,
    peers: BTreeSet<u64>,
    clients: BTreeSet<u64>,
    /// The clients that were not admitted yet, the oldest first.
    new_clients: BTreeMap<u64, quinn::Connection>,
}

/// A pending handshake.
#[derive(Debug)]
struct PendingHandshake {
    from: SocketAddr,
    /// Whether it has a slot of an expected peer.
    reserved: bool,
    begun: Instant,
    /// Tells the handshake to stop.
    evict: oneshot::Sender<()>,
}

/// A slot, returned when this is dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    slots: Arc<ConnectionSlots>,
    number: u64,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut state = lock(&self.slots.state);
        state.handshakes.remove(&self.number);
        state.peers.remove(&self.number);
        state.clients.remove(&self.number);
        state.new_clients.remove(&self.number);
    }
}

/// Numbers of slots in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct SlotCounts {
    pub(crate) handshakes: usize,
    pub(crate) peers: usize,
    pub(crate) clients: usize,
    pub(crate) new_clients: usize,
}

impl State {
    /// Makes sure that one more handshake of a group fits into `most`, by evicting its oldest. `None` if that one may
    /// not be evicted yet.
    fn make_space(
        &mut self,
        most: usize,
        group: impl Fn(&PendingHandshake) -> bool,
        may_evict: impl Fn(Instant) -> bool,
    ) -> Option<()> {
        let mut members = self.handshakes.iter().filter(|(_, other)| group(other));
        let oldest = members.next().map(|(&number, other)| (number, other.begun));
        if usize::from(oldest.is_some()) + members.count() < most {
            return Some(());
        }
        let (number, _) = oldest.filter(|(_, begun)| may_evict(*begun))?;
        if let Some(oldest) = self.handshakes.remove(&number) {
            // The receiver is gone if the handshake has just ended.
            let _ = oldest.evict.send(());
        }
        Some(())
    }
}

/// Undoes the IPv6 form in which a dual-stack socket reports IPv4 addresses.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

impl ConnectionSlots {
    pub(crate) fn new(limits: Arc<Limits>) -> Arc<Self> {
        let client_queues = Arc::new(ClientQueues::new(limits.client_queues));
        Arc::new(Self { limits, client_queues, state: Mutex::default() })
    }

    pub(crate) fn counts(&self) -> SlotCounts {
        let state = lock(&self.state);
        SlotCounts {
            handshakes: state.handshakes.len(),
            peers: state.peers.len(),
            clients: state.clients.len(),
            new_clients: state.new_clients.len(),
        }
    }

    /// Reserves slots for handshakes from these addresses. Replaces the addresses of an earlier call.
    pub(crate) fn expect(&self, peers: impl IntoIterator<Item = SocketAddr>) {
        lock(&self.state).expected = peers.into_iter().map(canonical).collect();
    }

    /// A slot for a handshake, and a receiver that is signalled if the handshake is evicted. `None` if no slot is free.
    ///
    /// The sender has proved that `from` is its address. An expected peer has reserved slots. All others share
    /// [`Limits::max_handshakes`], of which one IP address gets at most three quarters. If no slot is free, the oldest
    /// handshake of the same group is evicted, provided that it had its minimum time: unfinished handshakes cannot keep
    /// others out.
    pub(crate) fn handshake(self: &Arc<Self>, from: SocketAddr, now: Instant) -> Option<(Slot, oneshot::Receiver<()>)> {
        let from = canonical(from);
        let mut state = lock(&self.state);
        let reserved = state.expected.contains(&from);
        if reserved {
            state.make_space(HANDSHAKES_PER_PEER, |other| other.reserved && other.from == from, |_| true)?;
        } else {
            let most = self.limits.max_handshakes;
            let had_its_time =
                |begun| now.saturating_duration_since(begun) >= self.limits.handshake / MIN_HANDSHAKE_FRACTION;
            let of_address = |other: &PendingHandshake| !other.reserved && other.from.ip() == from.ip();
            state.make_space(most - most / 4, of_address, had_its_time)?;
            state.make_space(most, |other| !other.reserved, had_its_time)?;
        }
        let (evict, evicted) = oneshot::channel();
        let slot = self.new_slot(&mut state);
        state.handshakes.insert(slot.number, PendingHandshake { from, reserved, begun: now, evict });
        Some((slot, evicted))
    }

    /// A slot for a peer.
    pub(crate) fn peer(self: &Arc<Self>) -> Result<Slot, Error> {
        let mut state = lock(&self.state);
        if state.peers.len() >= self.limits.max_peers {
            return Err(Error::NoSlot { whom: "nodes" });
        }
        let slot = self.new_slot(&mut state);
        state.peers.insert(slot.number);
        Ok(slot)
    }

    /// A slot for a client; `new` if it must be admitted first. If none is free, the oldest client that was not
    /// admitted yet is evicted. A client that sends its hello is admitted within a round trip, so only silent ones are
    /// evicted.
    pub(crate) fn client(self: &Arc<Self>, connection: &quinn::Connection, new: bool) -> Result<Slot, Error> {
        let mut state = lock(&self.state);
        let full = state.clients.len() >= self.limits.max_connections;
        if full || (new && state.new_clients.len() >= self.limits.max_new_clients) {
            let Some((oldest, silent)) = state.new_clients.pop_first() else {
                return Err(Error::NoSlot { whom: "clients" });
            };
            state.clients.remove(&oldest);
            silent.close(VarInt::from_u32(CloseCode::BUSY.0), EVICTED);
        }
        let slot = self.new_slot(&mut state);
        state.clients.insert(slot.number);
        if new {
            state.new_clients.insert(slot.number, connection.clone());
        }
        Ok(slot)
    }

    fn new_slot(self: &Arc<Self>, state: &mut State) -> Slot {
        state.next += 1;
        Slot { slots: self.clone(), number: state.next }
    }
}

impl Slot {
    /// Whether it is for the handshake of an expected peer.
    pub(crate) fn is_reserved(&self) -> bool {
        lock(&self.slots.state).handshakes.get(&self.number).is_some_and(|pending| pending.reserved)
    }

    /// The queue limit that all clients share, `None` for the slot of a peer.
    pub(crate) fn client_queues(&self) -> Option<Arc<ClientQueues>> {
        lock(&self.slots.state).clients.contains(&self.number).then(|| self.slots.client_queues.clone())
    }

    /// The client was admitted: it is no longer evicted.
    pub(crate) fn admit(&self) {
        lock(&self.slots.state).new_clients.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn slots(max_handshakes: usize) -> Arc<ConnectionSlots> {
        ConnectionSlots::new(Arc::new(Limits { max_handshakes, ..Limits::default() }))
    }

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_address_leaves_places_to_others_and_gives_up_its_own_first() {
        let (slots, begun) = (slots(8), Instant::now());
        let take = |from: &str, now| slots.handshake(at(from), now);
        let first = take("10.0.0.1:1", begun).unwrap();
        let held: Vec<_> = (2..=6).map(|port| take(&format!("10.0.0.1:{port}"), begun).unwrap()).collect();
        assert!(take("10.0.0.1:7", begun).is_none(), "six of eight are the most for one address");
        let other = take("10.0.0.2:1", begun).unwrap();
        let later = begun + Duration::from_millis(1250);
        let mut late = take("10.0.0.1:8", later).unwrap();
        let (_slot, mut told) = first;
        assert!(told.try_recv().is_ok(), "the oldest of that address gives way");
        assert!(late.1.try_recv().is_err() && held.len() == 5);
        drop(other);
    }

    #[test]
    fn an_expected_peer_has_places_that_nobody_else_can_take() {
        let (slots, now) = (slots(4), Instant::now());
        slots.expect([at("10.0.0.9:7400")]);
        let flood: Vec<_> =
            (1..=4).map(|host| slots.handshake(at(&format!("10.0.0.{host}:1")), now).unwrap()).collect();
        assert!(slots.handshake(at("10.0.0.9:7401"), now).is_none(), "another port of that machine is not the peer");
        let mut of_peer: Vec<_> = (0..3).map(|_| slots.handshake(at("[::ffff:10.0.0.9]:7400"), now).unwrap()).collect();
        assert!(of_peer[0].1.try_recv().is_ok() && of_peer[1].1.try_recv().is_err(), "its own oldest gives way");
        assert_eq!((flood.len(), slots.counts().handshakes), (4, 6));
    }
}
