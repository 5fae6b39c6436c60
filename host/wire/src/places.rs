//! Who may take which place: peers have places of their own, and a client that has not been let in yet gives way to
//! others.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Instant,
};

use quinn::VarInt;
use tokio::sync::oneshot;

use crate::{CloseCode, Error, Limits, outbox::ClientQueues, runtime::lock};

/// A handshake younger than this share of [`Limits::handshake`] is never given up for another one.
const YOUNG: u32 = 4;
/// Handshakes of each expected peer for which there are places beside [`Limits::max_handshakes`]. A node dials one
/// connection at a time; a second place lets it begin anew while its last attempt is still open here.
const OF_A_PEER: usize = 2;
/// What a connection is told that has to give way.
const GIVE_WAY: &[u8] = b"others wait for this place";

/// All places of an endpoint.
#[derive(Debug)]
pub(crate) struct Places {
    limits: Arc<Limits>,
    client_queues: Arc<ClientQueues>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// Handshakes under way, the oldest first.
    handshakes: BTreeMap<u64, UnderWay>,
    /// The addresses from which peers dial.
    expected: BTreeSet<SocketAddr>,
    peers: BTreeSet<u64>,
    clients: BTreeSet<u64>,
    /// Those of the clients that have not been let in yet, the oldest first.
    new_clients: BTreeMap<u64, quinn::Connection>,
}

/// A handshake under way.
#[derive(Debug)]
struct UnderWay {
    from: SocketAddr,
    /// It has one of the places of an expected peer.
    reserved: bool,
    begun: Instant,
    /// Tells it to give up.
    give_up: oneshot::Sender<()>,
}

/// A place that is given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    number: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = lock(&self.places.state);
        state.handshakes.remove(&self.number);
        state.peers.remove(&self.number);
        state.clients.remove(&self.number);
        state.new_clients.remove(&self.number);
    }
}

/// How many places are taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Taken {
    pub(crate) handshakes: usize,
    pub(crate) peers: usize,
    pub(crate) clients: usize,
    pub(crate) new_clients: usize,
}

impl State {
    /// Leaves room for one more among at most so many handshakes of a group. `None` if its oldest may not be given up
    /// yet.
    fn make_room(&mut self, most: usize, group: impl Fn(&UnderWay) -> bool, may_give_up: impl Fn(Instant) -> bool) -> Option<()> {
        let mut members = self.handshakes.iter().filter(|(_, other)| group(other));
        let oldest = members.next().map(|(&number, other)| (number, other.begun));
        if usize::from(oldest.is_some()) + members.count() < most {
            return Some(());
        }
        let (number, _) = oldest.filter(|(_, begun)| may_give_up(*begun))?;
        if let Some(given_up) = self.handshakes.remove(&number) {
            // One that has just ended does not listen any more.
            let _ = given_up.give_up.send(());
        }
        Some(())
    }
}

/// An IPv4 address that a socket of both families shows as one of IPv6, as what it is.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

impl Places {
    pub(crate) fn new(limits: Arc<Limits>) -> Arc<Self> {
        let client_queues = Arc::new(ClientQueues::new(limits.client_queues));
        Arc::new(Self { limits, client_queues, state: Mutex::default() })
    }

    pub(crate) fn taken(&self) -> Taken {
        let state = lock(&self.state);
        Taken {
            handshakes: state.handshakes.len(),
            peers: state.peers.len(),
            clients: state.clients.len(),
            new_clients: state.new_clients.len(),
        }
    }

    /// Keeps places for handshakes from these addresses, in place of those that were named before.
    pub(crate) fn expect(&self, peers: impl IntoIterator<Item = SocketAddr>) {
        lock(&self.state).expected = peers.into_iter().map(canonical).collect();
    }

    /// A place for a handshake, and what resolves when it has to be given up.
    ///
    /// An expected peer that has `proven` its address has places of its own, which nobody else can take. The others
    /// share the rest, and one IP address has three quarters of it at most. If there is no place, the oldest of those
    /// that it would share with gives way, provided that it has had its time: who begins handshakes and lets them lie
    /// cannot keep others out.
    pub(crate) fn handshake(self: &Arc<Self>, from: SocketAddr, proven: bool, now: Instant) -> Option<(Place, oneshot::Receiver<()>)> {
        let from = canonical(from);
        let mut state = lock(&self.state);
        let reserved = proven && state.expected.contains(&from);
        if reserved {
            state.make_room(OF_A_PEER, |other| other.reserved && other.from == from, |_| true)?;
        } else {
            let most = self.limits.max_handshakes;
            let had_its_time = |begun| now.saturating_duration_since(begun) >= self.limits.handshake / YOUNG;
            let of_address = |other: &UnderWay| !other.reserved && other.from.ip() == from.ip();
            state.make_room(most - most / 4, of_address, had_its_time)?;
            state.make_room(most, |other| !other.reserved, had_its_time)?;
        }
        let (give_up, given_up) = oneshot::channel();
        let place = self.number(&mut state);
        state.handshakes.insert(place.number, UnderWay { from, reserved, begun: now, give_up });
        Some((place, given_up))
    }

    /// A place for a peer.
    pub(crate) fn peer(self: &Arc<Self>) -> Result<Place, Error> {
        let mut state = lock(&self.state);
        if state.peers.len() >= self.limits.max_peers {
            return Err(Error::NoPlace { whom: "nodes" });
        }
        let place = self.number(&mut state);
        state.peers.insert(place.number);
        Ok(place)
    }

    /// A place for a client, `new` if it is to be let in first. If all are taken, the oldest new client gives way: one
    /// that says its hello is let in within a round trip, and one that says nothing keeps nobody out.
    pub(crate) fn client(self: &Arc<Self>, connection: &quinn::Connection, new: bool) -> Result<Place, Error> {
        let mut state = lock(&self.state);
        let full = state.clients.len() >= self.limits.max_connections;
        if full || (new && state.new_clients.len() >= self.limits.max_new_clients) {
            let Some((oldest, silent)) = state.new_clients.pop_first() else { return Err(Error::NoPlace { whom: "clients" }) };
            state.clients.remove(&oldest);
            silent.close(VarInt::from_u32(CloseCode::BUSY.0), GIVE_WAY);
        }
        let place = self.number(&mut state);
        state.clients.insert(place.number);
        if new {
            state.new_clients.insert(place.number, connection.clone());
        }
        Ok(place)
    }

    fn number(self: &Arc<Self>, state: &mut State) -> Place {
        state.next += 1;
        Place { places: self.clone(), number: state.next }
    }
}

impl Place {
    /// What the queue to a client shares with those to all others; none if this is no client's place.
    pub(crate) fn client_queues(&self) -> Option<Arc<ClientQueues>> {
        lock(&self.places.state).clients.contains(&self.number).then(|| self.places.client_queues.clone())
    }

    /// The client has been let in: it gives way to nobody any more.
    pub(crate) fn let_in(&self) {
        lock(&self.places.state).new_clients.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn places(max_handshakes: usize) -> Arc<Places> {
        Places::new(Arc::new(Limits { max_handshakes, ..Limits::default() }))
    }

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_address_leaves_places_to_others_and_gives_up_its_own_first() {
        let (places, begun) = (places(8), Instant::now());
        let take = |from: &str, now| places.handshake(at(from), true, now);
        let first = take("10.0.0.1:1", begun).unwrap();
        let held: Vec<_> = (2..=6).map(|port| take(&format!("10.0.0.1:{port}"), begun).unwrap()).collect();
        assert!(take("10.0.0.1:7", begun).is_none(), "six of eight are the most for one address");
        let other = take("10.0.0.2:1", begun).unwrap();
        let later = begun + Duration::from_millis(1250);
        let mut late = take("10.0.0.1:8", later).unwrap();
        let (_place, mut told) = first;
        assert!(told.try_recv().is_ok(), "the oldest of that address gives way");
        assert!(late.1.try_recv().is_err() && held.len() == 5);
        drop(other);
    }

    #[test]
    fn an_expected_peer_has_places_that_nobody_else_can_take() {
        let (places, now) = (places(4), Instant::now());
        places.expect([at("10.0.0.9:7400")]);
        let flood: Vec<_> = (1..=4).map(|host| places.handshake(at(&format!("10.0.0.{host}:1")), true, now).unwrap()).collect();
        assert!(places.handshake(at("10.0.0.9:7401"), true, now).is_none(), "another port of that machine is not the peer");
        assert!(places.handshake(at("10.0.0.9:7400"), false, now).is_none(), "anybody can write that address on a datagram");
        let mut of_peer: Vec<_> = (0..3).map(|_| places.handshake(at("[::ffff:10.0.0.9]:7400"), true, now).unwrap()).collect();
        assert!(of_peer[0].1.try_recv().is_ok() && of_peer[1].1.try_recv().is_err(), "its own oldest gives way");
        assert_eq!((flood.len(), places.taken().handshakes), (4, 6));
    }
}
