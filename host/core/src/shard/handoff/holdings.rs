//! Which nodes hold objects that they do not own.
//!
//! [`Holdings`] has the partitions of this node, each with a durable row, and what is known of other nodes. Statements
//! about a node are ordered by a version that the node itself chooses. A node that learns something new passes it on,
//! and corrects a peer that says something old. A node that hears something about itself that is not so goes on with a
//! higher version: its disk may have been replaced.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use rejoin_proto::layout::MAX_PARTITIONS;
use rejoin_proto::peer::{Holder, PeerBody};
use rejoin_proto::{NodeId, PartitionId, codec};

use crate::port::{Change, Space, Store, StoreFault};
use crate::rows::{self, Kind, NumberRow};
use crate::shard::Shard;
use crate::shard::copy::Place;
use crate::shard::turn::Turn;

/// What this node holds without owning it, and what it knows of others.
#[derive(Debug)]
pub(in crate::shard) struct Holdings {
    /// The partitions of this shard of which this node holds something, each with the version of its advertisement.
    own: BTreeMap<PartitionId, u64>,
    /// The highest version that this shard has used.
    version: u64,
    /// Whether the store did not take rows that say what this node holds.
    pub(super) owed: bool,
    /// Partitions of before and after a split whose rows the store has yet to take.
    renamed: BTreeSet<PartitionId>,
    /// What others have said, by partition and node.
    others: BTreeMap<PartitionId, BTreeMap<NodeId, Statement>>,
}

#[derive(Clone, Copy, Debug)]
struct Statement {
    version: u64,
    holds: bool,
}

impl Holdings {
    /// Reads what the last run held.
    pub(in crate::shard) fn open(store: &dyn Store) -> Result<Self, StoreFault> {
        let rows = rows::load::<NumberRow>(store, Kind::Holding)?.into_iter();
        let own: BTreeMap<PartitionId, u64> = rows.map(|(partition, _, row)| (partition, row.0)).collect();
        let used = rows::load::<NumberRow>(store, Kind::HoldingVersion)?.into_iter().map(|(_, _, row)| row.0);
        let version = used.chain(own.values().copied()).max().unwrap_or_default();
        Ok(Self { own, version, owed: false, renamed: BTreeSet::new(), others: BTreeMap::new() })
    }

    /// Partitions are split: who holds something of one may hold something of both halves.
    pub(in crate::shard) fn split(&mut self, more: u8) {
        self.renamed.extend(self.own.keys());
        self.own = halves(core::mem::take(&mut self.own), more);
        // Rule: holdings are split.
        self.others = halves(core::mem::take(&mut self.others), more);
        self.renamed.extend(self.own.keys());
    }

    /// Whether the store has yet to take rows of a split.
    pub(in crate::shard) fn owes(&self) -> bool {
        !self.renamed.is_empty()
    }

    /// Adds what is owed of a split to a change. Call [`Holdings::settled`] once it is written.
    pub(in crate::shard) fn settle(&self, change: &mut Change) {
        for partition in &self.renamed {
            match self.own.get(partition) {
                Some(version) => put_row(change, *partition, *version),
                None => drop(change.remove(Space::Pinned, rows::key(Kind::Holding, *partition, &[]))),
            }
        }
    }

    /// The change that [`Holdings::settle`] filled is written.
    pub(in crate::shard) fn settled(&mut self) {
        self.renamed.clear();
    }

    /// How many partitions this node holds something of.
    pub(in crate::shard) fn count(&self) -> usize {
        self.own.len()
    }

    /// These partitions.
    pub(in crate::shard) fn partitions(&self) -> impl Iterator<Item = PartitionId> + '_ {
        self.own.keys().copied()
    }

    /// The version of a partition's advertisement, if this node holds something of it.
    pub(in crate::shard) fn held(&self, partition: PartitionId) -> Option<u64> {
        self.own.get(&partition).copied()
    }

    /// The other nodes that hold something of a partition, as far as is known.
    pub(in crate::shard) fn others(&self, partition: PartitionId) -> impl Iterator<Item = NodeId> + '_ {
        let said = self.others.get(&partition).into_iter().flatten();
        said.filter(|(_, said)| said.holds).map(|(node, _)| *node)
    }

    /// A version above `heard` and above all that this shard has used. It follows the wall clock, so that a replaced
    /// disk goes on above what its peers remember of the old one.
    pub(super) fn next_version(&self, heard: u64, wall_ms: u64) -> u64 {
        self.version.max(heard).saturating_add(1).max(wall_ms)
    }

    /// Takes in a statement about another node. Returns whether it is news.
    fn learn(&mut self, partition: PartitionId, holder: Holder) -> bool {
        let statement = Statement { version: holder.version, holds: holder.holds };
        let known = self.others.entry(partition).or_default();
        let is_news = known.get(&holder.node).is_none_or(|known| known.version < statement.version);
        if is_news {
            known.insert(holder.node, statement);
        }
        is_news
    }

    fn statement(&self, partition: PartitionId, node: NodeId) -> Option<Holder> {
        let said = self.others.get(&partition)?.get(&node)?;
        Some(Holder { node, version: said.version, holds: said.holds })
    }
}

/// What a shard holds for the owners of other partitions.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Held {
    /// The partitions of which it holds something without owning it.
    pub partitions: Vec<PartitionId>,
    /// How many objects it holds of them, as far as they are counted.
    pub objects: u64,
}

impl Shard {
    /// What this node holds without owning it.
    #[must_use]
    pub fn held(&self) -> Held {
        let partitions: Vec<PartitionId> = self.holdings.partitions().collect();
        let of = |partition: &PartitionId| {
            let partition = *partition;
            let foreign = move |bucket| !self.view.owns(self.config.node, partition, bucket);
            self.trees.roots(partition).filter(move |(bucket, _)| foreign(*bucket)).map(|(_, root)| root.sum.count)
        };
        let objects = partitions.iter().flat_map(of).sum();
        Held { partitions, objects }
    }

    /// To be called with every change that writes an object row. If this node does not own the object and holds nothing
    /// of its partition yet, the change gets the row that says so; returns its version.
    pub(in crate::shard) fn hold(&mut self, turn: &Turn<'_>, place: Place<'_>, change: &mut Change) -> Option<u64> {
        if self.owns_row(place) {
            return None;
        }
        self.drain.touched(place.partition);
        if self.holdings.own.contains_key(&place.partition) {
            return None;
        }
        let version = self.holdings.next_version(0, turn.now.wall_ms);
        put_row(change, place.partition, version);
        Some(version)
    }

    /// The change with the row of [`hold`](Self::hold) is written. Every peer is told, ahead of the acknowledgement of
    /// what was written.
    pub(in crate::shard) fn holds(&mut self, turn: &mut Turn<'_>, partition: PartitionId, version: u64) {
        self.holdings.version = version;
        self.holdings.own.insert(partition, version);
        self.advertise(turn, partition, version, true);
    }

    /// This node holds nothing of a partition any more. Returns whether that is written.
    pub(in crate::shard) fn release(&mut self, turn: &mut Turn<'_>, partition: PartitionId) -> bool {
        let version = self.holdings.next_version(0, turn.now.wall_ms);
        let mut change = Change::default();
        change.remove(Space::Pinned, rows::key(Kind::Holding, partition, &[]));
        change.put(Space::Pinned, version_key(), codec::encode(&NumberRow(version)));
        if self.write(turn, change).is_err() {
            return false;
        }
        self.holdings.version = version;
        self.holdings.own.remove(&partition);
        self.advertise(turn, partition, version, false);
        true
    }

    fn advertise(&self, turn: &mut Turn<'_>, partition: PartitionId, version: u64, holds: bool) {
        let holder = Holder { node: self.config.node, version, holds };
        for peer in self.connections.connected() {
            self.send_holdings(turn, peer, partition, alloc::vec![holder]);
        }
    }

    /// A peer is connected: it is told of all that this node knows to be held. What it believes beyond that it says
    /// itself, and is corrected.
    pub(in crate::shard) fn tell_holdings(&self, turn: &mut Turn<'_>, peer: NodeId) {
        let mut told: BTreeMap<PartitionId, Vec<Holder>> = BTreeMap::new();
        for (&partition, &version) in &self.holdings.own {
            told.entry(partition).or_default().push(Holder { node: self.config.node, version, holds: true });
        }
        for (&partition, said) in &self.holdings.others {
            let holding = said.iter().filter(|(_, said)| said.holds);
            let holders = holding.map(|(&node, said)| Holder { node, version: said.version, holds: true });
            told.entry(partition).or_default().extend(holders);
        }
        for (partition, holders) in told.into_iter().filter(|(_, holders)| !holders.is_empty()) {
            self.send_holdings(turn, peer, partition, holders);
        }
    }

    /// Tells all peers what this node knows to be held.
    pub(in crate::shard) fn tell_all_holdings(&self, turn: &mut Turn<'_>) {
        self.connections.connected().for_each(|peer| self.tell_holdings(turn, peer));
    }

    fn send_holdings(&self, turn: &mut Turn<'_>, to: NodeId, partition: PartitionId, holders: Vec<Holder>) {
        let partition_bits = self.view.partition_bits();
        self.send(turn, to, 0, PeerBody::Holdings { partition_bits, partition, holders });
    }

    /// A peer says which nodes hold something of one of its partitions. It may know of a split that this node has not
    /// heard of, or the other way round.
    pub(in crate::shard) fn holdings_told_of(
        &mut self,
        turn: &mut Turn<'_>,
        from: NodeId,
        (bits, partition): (u8, PartitionId),
        mut holders: Vec<Holder>,
    ) {
        let own_bits = self.view.partition_bits();
        // Rule: partitions are told apart.
        if bits == own_bits {
            return self.holdings_told(turn, from, partition, holders);
        }
        if bits > MAX_PARTITIONS.trailing_zeros() as u8 {
            return;
        }
        if bits < own_bits {
            for half in partition.parts(own_bits - bits) {
                self.holdings_told(turn, from, half, holders.clone());
            }
            return;
        }
        // Who holds nothing of one half may hold something of the other one. What is said of this node itself it
        // answers when both have as many partitions.
        holders.retain(|holder| holder.holds && holder.node != self.config.node);
        let whole = partition.0.checked_shr(u32::from(bits - own_bits)).unwrap_or(0);
        self.holdings_told(turn, from, PartitionId(whole), holders);
    }

    /// A peer says which nodes hold something of a partition. News goes on to the other peers, and the peer is told
    /// where it is behind.
    pub(in crate::shard) fn holdings_told(
        &mut self,
        turn: &mut Turn<'_>,
        from: NodeId,
        partition: PartitionId,
        holders: Vec<Holder>,
    ) {
        let (mut news, mut corrections) = (Vec::new(), Vec::new());
        for holder in holders {
            if holder.node == self.config.node {
                self.told_of_itself(turn, partition, holder);
            } else if !self.view.is_member(holder.node) {
                // A node of no live layout holds nothing that anybody may ask for.
            } else if self.holdings.learn(partition, holder) {
                news.push(holder);
            } else {
                let known = self.holdings.statement(partition, holder.node);
                corrections.extend(known.filter(|known| known.version > holder.version));
            }
        }
        if !corrections.is_empty() {
            self.send_holdings(turn, from, partition, corrections);
        }
        // Rule: holdings are passed on.
        if !news.is_empty() {
            for peer in self.connections.connected().filter(|peer| *peer != from) {
                self.send_holdings(turn, peer, partition, news.clone());
            }
        }
    }

    /// Somebody says what this node holds. If that is not so, or no older than what this node says, it says so anew.
    fn told_of_itself(&mut self, turn: &mut Turn<'_>, partition: PartitionId, heard: Holder) {
        let own = self.holdings.held(partition);
        if own == Some(heard.version) && heard.holds || heard.version < own.unwrap_or(0) {
            return;
        }
        if own.is_none() && !heard.holds {
            self.holdings.version = self.holdings.version.max(heard.version);
            return;
        }
        let version = self.holdings.next_version(heard.version, turn.now.wall_ms);
        let mut change = Change::default();
        change.put(Space::Pinned, version_key(), codec::encode(&NumberRow(version)));
        if own.is_some() {
            put_row(&mut change, partition, version);
        }
        // A full disk takes it later: the peer says it again at its next connect.
        if self.write(turn, change).is_ok() {
            self.holdings.version = version;
            self.holdings.own.get_mut(&partition).into_iter().for_each(|own| *own = version);
            self.advertise(turn, partition, version, own.is_some());
        }
    }

    /// A fallback has acknowledged a write: it holds the partition, whether or not its advertisement has come yet.
    pub(in crate::shard) fn learn_holder(
        &mut self,
        turn: &mut Turn<'_>,
        object: PartitionId,
        node: NodeId,
        version: u64,
    ) {
        self.holdings_told(turn, node, object, alloc::vec![Holder { node, version, holds: true }]);
    }

    /// The nodes that may hold writes to a key as fallbacks: those that can be asked, and those that cannot.
    pub(in crate::shard) fn holders(&self, target: &crate::view::Target) -> (Vec<NodeId>, Vec<NodeId>) {
        let others = self.holdings.others(target.partition);
        let others = others.filter(|node| !target.owners.reads_at(*node) && self.view.is_member(*node));
        others.partition(|node| self.is_healthy(*node))
    }

    /// Whether this node owns an object, by its place in the store.
    pub(in crate::shard) fn owns_row(&self, place: Place<'_>) -> bool {
        let bucket = super::drain::bucket_of(place.store_key);
        self.view.owns(self.config.node, place.partition, bucket)
    }
}

/// What is known by partition, known of all parts of each.
fn halves<T: Clone>(of: BTreeMap<PartitionId, T>, more: u8) -> BTreeMap<PartitionId, T> {
    of.into_iter().flat_map(|(partition, known)| partition.parts(more).map(move |half| (half, known.clone()))).collect()
}

/// Adds the row that says of a partition that this node holds something of it.
pub(super) fn put_row(change: &mut Change, partition: PartitionId, version: u64) {
    change.put(Space::Pinned, rows::key(Kind::Holding, partition, &[]), codec::encode(&NumberRow(version)));
}

/// The key of the row with the highest version that was used.
fn version_key() -> Vec<u8> {
    rows::key(Kind::HoldingVersion, PartitionId(0), &[])
}
