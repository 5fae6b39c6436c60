//! Who may take which place: peers have places of their own, and a client that has not been let in yet gives way to others.

use crate::{CloseCode, Error, Limits, runtime::lock};
use quinn::VarInt;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Instant,
};
use tokio::sync::oneshot;

/// A handshake younger than this share of [`Limits::handshake`] is never given up for another one.
const YOUNG: u32 = 4;
/// What a connection is told that has to give way.
const GIVE_WAY: &[u8] = b"others wait for this place";

/// All places of an endpoint.
#[derive(Debug)]
pub(crate) struct Places {
    limits: Arc<Limits>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// Handshakes under way, the oldest first: when each began, and how it is told to give up.
    handshakes: BTreeMap<u64, (Instant, oneshot::Sender<()>)>,
    peers: BTreeSet<u64>,
    clients: BTreeSet<u64>,
    /// Those of the clients that have not been let in yet, the oldest first.
    new_clients: BTreeMap<u64, quinn::Connection>,
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

impl Places {
    pub(crate) fn new(limits: Arc<Limits>) -> Arc<Self> {
        Arc::new(Self { limits, state: Mutex::default() })
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

    /// A place for a handshake, and what resolves when it has to be given up. If all are taken, the oldest one that has had its time gives way: who
    /// begins handshakes and lets them lie cannot keep others out.
    pub(crate) fn handshake(self: &Arc<Self>, now: Instant) -> Option<(Place, oneshot::Receiver<()>)> {
        let mut state = lock(&self.state);
        if state.handshakes.len() >= self.limits.max_handshakes {
            let (&oldest, (begun, _)) = state.handshakes.first_key_value()?;
            if now.saturating_duration_since(*begun) < self.limits.handshake / YOUNG {
                return None;
            }
            if let Some((_, give_up)) = state.handshakes.remove(&oldest) {
                // One that has just ended does not listen any more.
                let _ = give_up.send(());
            }
        }
        let (give_up, given_up) = oneshot::channel();
        let place = self.number(&mut state);
        state.handshakes.insert(place.number, (now, give_up));
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

    /// A place for a client, `new` if it is to be let in first. If all are taken, the oldest new client gives way: one that says its hello is let in
    /// within a round trip, and one that says nothing keeps nobody out.
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
    /// The client has been let in: it gives way to nobody any more.
    pub(crate) fn let_in(&self) {
        lock(&self.places.state).new_clients.remove(&self.number);
    }
}
