//! A graceful stop, as `host/node/src/leaving.rs` does it. The node refuses new requests and waits for those under way.
//! Then it tells its peers, which ask nothing more of it and answer when everything they have asked is answered. A time
//! limit ends the stop in any case.

use rejoin_core::shard::event::{ClientRequest, Event};
use rejoin_proto::client::Reply;
use rejoin_proto::{ErrorCode, ErrorReply};

use super::{Occurrence, Parcel, World};
use crate::history::NodeIndex;
use crate::options::{MS, SECOND};

/// The pause between two checks of what is still waited for.
const GLANCE_US: u64 = 10 * MS;

/// A node that is about to stop.
#[derive(Debug)]
pub(super) struct Leaving {
    /// The time limit.
    until_us: u64,
    /// The connections of peers that have not answered yet; `None` until they are told.
    told: Option<Vec<u32>>,
}

impl World {
    /// Begins a graceful stop.
    pub(super) fn leave(&mut self, at: NodeIndex) {
        let drain_us = *self.faults.pick(&[0, 100 * MS, 3 * SECOND]);
        let (until_us, node) = (self.now_us + drain_us, &mut self.nodes[usize::from(at)]);
        let life = node.life;
        let Some(running) = node.running.as_mut().filter(|running| running.leaving.is_none()) else { return };
        running.leaving = Some(Leaving { until_us, told: None });
        self.note(at, || format!("is about to stop, within {} ms", drain_us / MS));
        self.plan_in(1, Occurrence::Leaving { node: at, life });
    }

    /// Goes on with a graceful stop.
    pub(super) fn leaving_due(&mut self, at: NodeIndex) {
        let clients_wait = self.sessions.iter().any(|session| session.pending.is_some_and(|(_, node)| node == at));
        let now_us = self.now_us;
        let Some(running) = &mut self.nodes[usize::from(at)].running else { return };
        let Some(leaving) = &mut running.leaving else { return };
        if let Some(told) = &mut leaving.told {
            told.retain(|connection| running.open.contains_key(connection));
        }
        if now_us >= leaving.until_us || leaving.told.as_ref().is_some_and(Vec::is_empty) {
            self.recorder.mark(if now_us >= leaving.until_us {
                "stop that cut something off"
            } else {
                "graceful stop"
            });
            return self.stop(at);
        }
        if leaving.told.is_none() && !clients_wait {
            self.tell_peers(at);
        }
        let life = self.nodes[usize::from(at)].life;
        self.plan_in(GLANCE_US, Occurrence::Leaving { node: at, life });
    }

    fn tell_peers(&mut self, at: NodeIndex) {
        let peers = (0..self.options.nodes).filter(|peer| *peer != at);
        let told: Vec<(NodeIndex, u32)> =
            peers.map(|peer| (peer, self.held(at, peer))).filter(|(_, held)| *held != 0).collect();
        for (peer, connection) in &told {
            self.post_parcel(at, *peer, *connection, Parcel::Leaving, true);
        }
        if let Some(leaving) = self.nodes[usize::from(at)].running.as_mut().and_then(|running| running.leaving.as_mut())
        {
            leaving.told = Some(told.into_iter().map(|(_, connection)| connection).collect());
        }
    }

    /// A peer is about to stop.
    pub(super) fn peer_leaves(&mut self, at: NodeIndex, peer: NodeIndex, connection: u32) {
        let id = self.keys.node(peer);
        self.tell_all(at, &Event::PeerLeaving(id));
        let life = self.nodes[usize::from(at)].life;
        self.plan_in(1, Occurrence::LetGo { node: at, life, peer, connection });
    }

    /// Tells a stopping peer that nothing more is asked of it, once that is so.
    pub(super) fn let_go(&mut self, at: NodeIndex, peer: NodeIndex, connection: u32) {
        let id = self.keys.node(peer);
        let node = &self.nodes[usize::from(at)];
        let Some(running) = node.running.as_ref().filter(|running| running.open.contains_key(&connection)) else {
            return;
        };
        if running.shards.iter().any(|task| task.batch.shard().waits_for(id)) {
            let life = node.life;
            return self.plan_in(GLANCE_US, Occurrence::LetGo { node: at, life, peer, connection });
        }
        self.post_parcel(at, peer, connection, Parcel::Left, true);
    }

    /// A peer asks nothing more of this node.
    pub(super) fn peer_has_left(&mut self, at: NodeIndex, connection: u32) {
        let running = self.nodes[usize::from(at)].running.as_mut();
        if let Some(told) =
            running.and_then(|running| running.leaving.as_mut()).and_then(|leaving| leaving.told.as_mut())
        {
            told.retain(|other| *other != connection);
        }
    }

    /// Refuses a client's request at a stopping node. Returns whether the node is stopping.
    pub(super) fn refuses(&mut self, at: NodeIndex, request: &ClientRequest) -> bool {
        let leaving = self.nodes[usize::from(at)].running.as_ref().is_some_and(|running| running.leaving.is_some());
        if leaving {
            let error = ErrorReply::new(ErrorCode::Stopping, "the node is stopping, and nothing was done; try another");
            self.reply(at, request.reply_to, Reply::Error(error));
        }
        leaving
    }
}
