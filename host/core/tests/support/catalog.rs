//! Catalogs of several nodes: control machines that send each other messages over a wire in order.

use std::collections::{BTreeSet, VecDeque};

use rejoin_core::control::{Catalog, CatalogChange, CatalogEffect, CatalogEvent, Control, Published, Wait};
use rejoin_proto::catalog::{Record, RecordBody, RecordKey};
use rejoin_proto::peer::PeerBody;
use rejoin_proto::{BucketId, ErrorCode, ErrorReply, Name, NodeId};

use super::{name, tenant};

/// How long a change waits for all nodes in these tests.
pub(crate) const LONG_US: u64 = 10_000_000;

/// Control machines with a wire between them.
pub(crate) struct Nodes {
    pub(crate) all: Vec<Control>,
    pub(crate) wire: VecDeque<(usize, usize, PeerBody)>,
    pub(crate) answers: Vec<(u64, Result<Published, ErrorReply>)>,
    pub(crate) overruled: Vec<(Record, Option<Name>)>,
    /// Which node has come to contain whose catalog.
    pub(crate) agreed: Vec<(usize, usize)>,
    /// The nodes without room on their disks.
    pub(crate) full: BTreeSet<usize>,
    /// What each would find at a restart.
    pub(crate) kept: Vec<Catalog>,
    pub(crate) now_us: u64,
    pub(crate) wall_ms: u64,
    pub(crate) delivered: usize,
}

impl Nodes {
    pub(crate) fn new(count: usize) -> Self {
        let all = (0..count).map(|_| Control::new(Default::default())).collect();
        Self {
            all,
            wire: VecDeque::new(),
            answers: Vec::new(),
            overruled: Vec::new(),
            agreed: Vec::new(),
            full: BTreeSet::new(),
            kept: vec![Catalog::default(); count],
            now_us: 0,
            wall_ms: 1000,
            delivered: 0,
        }
    }

    pub(crate) fn connected(count: usize) -> Self {
        let mut nodes = Self::new(count);
        (0..count).for_each(|a| (0..a).for_each(|b| nodes.connect(a, b)));
        nodes
    }

    pub(crate) fn event(&mut self, to: usize, event: CatalogEvent) {
        let mut effects = Vec::new();
        self.all[to].handle(self.now_us, self.wall_ms, event, &mut effects);
        if effects.last() == Some(&CatalogEffect::Save) {
            let full = ErrorReply::new(ErrorCode::DiskFull, "the disk is full");
            let saved = if self.full.contains(&to) { Err(full) } else { Ok(()) };
            if saved.is_ok() {
                self.kept[to] = self.all[to].catalog();
            }
            self.all[to].handle(self.now_us, self.wall_ms, CatalogEvent::Saved(saved), &mut effects);
        }
        for effect in effects {
            match effect {
                CatalogEffect::Save | CatalogEffect::Changed => {}
                CatalogEffect::Send(peer, body) => self.wire.push_back((to, peer.0 as usize, body)),
                CatalogEffect::Answer(call, result) => self.answers.push((call, result)),
                CatalogEffect::CaughtUp(peer) => self.agreed.push((to, peer.0 as usize)),
                CatalogEffect::Overruled { lost, kept } => self.overruled.push((lost, kept)),
            }
        }
    }

    pub(crate) fn connect(&mut self, a: usize, b: usize) {
        let (of_a, of_b) = (self.all[a].digest(), self.all[b].digest());
        self.event(a, CatalogEvent::PeerUp(NodeId(b as u64), of_b));
        self.event(b, CatalogEvent::PeerUp(NodeId(a as u64), of_a));
        self.deliver();
    }

    pub(crate) fn cut(&mut self, a: usize, b: usize) {
        self.event(a, CatalogEvent::PeerDown(NodeId(b as u64)));
        self.event(b, CatalogEvent::PeerDown(NodeId(a as u64)));
    }

    pub(crate) fn deliver(&mut self) {
        while self.deliver_one() {}
    }

    pub(crate) fn deliver_one(&mut self) -> bool {
        let Some((from, to, body)) = self.wire.pop_front() else { return false };
        self.delivered += 1;
        assert!(self.delivered < 10_000, "the nodes never stop talking");
        self.event(to, CatalogEvent::Peer(NodeId(from as u64), body));
        true
    }

    pub(crate) fn change(&mut self, at: usize, call: u64, change: CatalogChange) {
        let all = (0..self.all.len()).filter(|other| *other != at).map(|other| NodeId(other as u64)).collect();
        self.event(at, CatalogEvent::Change(call, change, Wait { all, until_us: self.now_us + LONG_US }));
    }

    pub(crate) fn answer(&mut self, call: u64) -> Result<Record, ErrorReply> {
        self.published(call).map(|published| published.record)
    }

    pub(crate) fn published(&mut self, call: u64) -> Result<Published, ErrorReply> {
        let at = self.answers.iter().position(|(of, _)| *of == call).expect("an answer");
        self.answers.remove(at).1
    }

    /// A bucket of the shop as one node has it.
    pub(crate) fn bucket(&self, at: usize, bucket: &str) -> (BucketId, u8) {
        match &self.all[at].get(&RecordKey::Bucket(tenant(), name(bucket))).expect("a bucket").body {
            RecordBody::Bucket { id, props, .. } => (*id, props.n),
            other => panic!("a bucket was expected, not {other:?}"),
        }
    }

    pub(crate) fn agree(&self) -> bool {
        self.all.windows(2).all(|pair| pair[0].catalog() == pair[1].catalog() && pair[0].digest() == pair[1].digest())
    }
}
