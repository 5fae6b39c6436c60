//! The actor rule: which actor may mint a dot, and when its tenure ends.
//!
//! An actor is 64 random bits per (node, shard, partition, tenure) with a counter of its own. It may mint a dot for a
//! key only while this node's copy of the key has seen everything that it minted for it before. As soon as that may be
//! false the tenure ends, and the next mint draws another actor. See host/cli/book/internals/actors.md.
//!
//! [`Tenures`] owns this node's actors. [`Observed`] owns what contexts have shown of other nodes' actors, by which a
//! peer with an old disk is found out. Neither writes to the store: both fill changes that the shard writes.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use rand_core::Rng;

use rejoin_proto::peer::ActorNext;
use rejoin_proto::{ActorId, Dot, NodeId, PartitionId, VersionVector, codec};

use crate::Prng;
use crate::port::{Change, Space, Store, StoreFault};
use crate::rows::{self, ActorRow, Kind, NumberRow};
use crate::start::StartIds;

/// The actors of one shard.
///
/// The end of a tenure is *owed* until the store has taken it: a full or busy disk may refuse it, and a row that stays
/// would bring the actor back at the next start. Owed ends go with every change that is written, see `Shard::write`.
#[derive(Debug)]
pub(crate) struct Tenures {
    actors: BTreeMap<PartitionId, ActorRow>,
    /// Renewed with every end of a tenure.
    starts: StartIds,
    /// Partitions whose actor has ended while the store still has its row.
    owed: BTreeSet<PartitionId>,
    /// The last ended actor of each partition, if it ended without any sign that this disk is an old one.
    sound: BTreeMap<PartitionId, ActorRow>,
    /// The actors that a split has ended, in both halves until one mints again. They are announced like the others: if
    /// this disk is from before the split, the peers have seen more of them.
    former: BTreeMap<PartitionId, ActorRow>,
    /// Partitions whose row of a former actor the store has yet to take.
    former_owed: BTreeSet<PartitionId>,
}

/// Why a tenure ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum EndCause {
    /// Someone has seen more of the actor than this disk has: the disk is an old or cloned one.
    OldDisk,
    /// Data of the actor may be lost, or could not be compared.
    Loss,
    /// An object of its partition was dropped, because its owners have it, or the partition was split.
    Drop,
}

impl Tenures {
    /// Reads the actors that the last run left. With `lost` data may be gone, so all of them end. One that is
    /// `observed` ends too: an own actor is noted there only when it has ended, or is known to be on an old disk.
    ///
    /// These ends are owed. The caller writes them, and opens the shard even if the disk has no room for them.
    pub(crate) fn open(
        store: &dyn Store,
        observed: impl Fn(PartitionId, ActorId) -> bool,
        lost: bool,
        rng: &mut Prng,
    ) -> Result<Self, StoreFault> {
        let actors = rows::load::<ActorRow>(store, Kind::Actor)?
            .into_iter()
            .map(|(partition, _, row)| (partition, row))
            .collect();
        let starts = StartIds::open(store, lost, rng)?;
        let former =
            rows::load::<ActorRow>(store, Kind::Former)?.into_iter().map(|(partition, _, row)| (partition, row));
        let (former, owed, former_owed) = (former.collect(), BTreeSet::new(), BTreeSet::new());
        let mut tenures = Self { actors, starts, owed, sound: BTreeMap::new(), former, former_owed };
        let outrun = |(partition, row): (&PartitionId, &ActorRow)| {
            (lost || observed(*partition, row.actor)).then_some(*partition)
        };
        let ended: Vec<PartitionId> = tenures.actors.iter().filter_map(outrun).collect();
        ended.iter().for_each(|partition| tenures.end(*partition, EndCause::OldDisk));
        if !ended.is_empty() {
            tenures.renew_start(rng);
        }
        Ok(tenures)
    }

    /// The shard's start id: a retry is recognised only while it has not changed.
    pub(crate) fn start(&self) -> u64 {
        self.starts.combined()
    }

    /// Mints the next dot of a partition's actor, and draws an actor if there is none. Adds the actor's row to the
    /// change, so that no counter is used twice.
    pub(crate) fn mint(&mut self, partition: PartitionId, change: &mut Change, rng: &mut Prng) -> Dot {
        let row = self.actors.entry(partition).or_insert_with(|| ActorRow { actor: ActorId(rng.next_u64()), next: 1 });
        let dot = Dot { actor: row.actor, counter: row.next };
        row.next += 1;
        change.put(Space::Pinned, rows::key(Kind::Actor, partition, &[]), codec::encode_bytes(row));
        self.begun(partition);
        dot
    }

    /// Reserves the next dot of a partition's actor for a value that a plugin has yet to make. Writes nothing: the dot
    /// leaves the node only with the value, and [`Tenures::take`] writes the actor's row then.
    pub(crate) fn reserve(&mut self, partition: PartitionId, rng: &mut Prng) -> Dot {
        let row = self.actors.entry(partition).or_insert_with(|| ActorRow { actor: ActorId(rng.next_u64()), next: 1 });
        let dot = Dot { actor: row.actor, counter: row.next };
        row.next += 1;
        dot
    }

    /// Takes a reserved dot for a write, if its actor's tenure has not ended. Adds the actor's row to the change.
    pub(crate) fn take(&mut self, partition: PartitionId, dot: Dot, change: &mut Change) -> Option<Dot> {
        let row = self.actors.get(&partition).filter(|row| row.actor == dot.actor)?;
        change.put(Space::Pinned, rows::key(Kind::Actor, partition, &[]), codec::encode_bytes(row));
        self.begun(partition);
        Some(dot)
    }

    /// The partition has minted: its former actor is not announced any more. The row of it goes with the next change;
    /// until then it does no harm.
    fn begun(&mut self, partition: PartitionId) {
        if self.former.remove(&partition).is_some() {
            self.former_owed.insert(partition);
        }
    }

    /// Whether a context has seen a counter of this partition's actor that it has not used yet. Then this disk is an
    /// old or a cloned one.
    pub(crate) fn is_outrun(&self, partition: PartitionId, seen: &VersionVector) -> bool {
        // Rule: former actors are judged too.
        let rows = self.actors.get(&partition).into_iter().chain(self.former.get(&partition));
        rows.into_iter().any(|row| seen.highest(row.actor) >= row.next)
    }

    /// The partitions whose actor that is, or was until they were split.
    pub(crate) fn partitions_of(&self, actor: ActorId) -> Vec<PartitionId> {
        let rows = self.actors.iter().chain(&self.former);
        rows.filter(|(_, row)| row.actor == actor).map(|(partition, _)| *partition).collect()
    }

    /// This partition's actor, if it has one.
    pub(crate) fn actor(&self, partition: PartitionId) -> Option<ActorId> {
        self.actors.get(&partition).map(|row| row.actor)
    }

    /// Whether that is this partition's actor.
    pub(crate) fn is_current(&self, partition: PartitionId, actor: ActorId) -> bool {
        self.actors.get(&partition).is_some_and(|row| row.actor == actor)
    }

    /// Whether this partition has an actor: it has minted something since the last end of a tenure.
    pub(crate) fn has_actor(&self, partition: PartitionId) -> bool {
        self.actors.contains_key(&partition)
    }

    /// Ends the tenure of a partition's actor, if there is one. The removal of its row is owed.
    pub(crate) fn end(&mut self, partition: PartitionId, cause: EndCause) {
        if cause == EndCause::OldDisk {
            self.sound.remove(&partition);
            if self.former.remove(&partition).is_some() {
                self.former_owed.insert(partition);
            }
        }
        let Some(row) = self.actors.remove(&partition) else { return };
        self.owed.insert(partition);
        match cause {
            EndCause::OldDisk => {}
            EndCause::Loss | EndCause::Drop => drop(self.sound.insert(partition, row)),
        }
    }

    /// Partitions are split: all tenures end, and the ends are owed. What is known of the last actor of a partition is
    /// known of both halves, for writes that are under way.
    pub(crate) fn split(&mut self, more: u8) {
        self.former_owed.extend(self.former.keys());
        self.former.extend(self.actors.iter().map(|(partition, row)| (*partition, *row)));
        self.former = halves(core::mem::take(&mut self.former), more);
        self.former_owed.extend(self.former.keys());
        let ended: Vec<PartitionId> = self.actors.keys().copied().collect();
        ended.into_iter().for_each(|partition| self.end(partition, EndCause::Drop));
        self.sound = halves(core::mem::take(&mut self.sound), more);
    }

    /// Whether an actor's writes still stand, after an answer with the context `seen`: it is the current actor, or the
    /// last one and nothing shows that it minted on an old disk.
    pub(crate) fn stands(&self, partition: PartitionId, actor: ActorId, seen: &VersionVector) -> bool {
        let ended = self.sound.get(&partition).filter(|row| row.actor == actor);
        self.is_current(partition, actor) || ended.is_some_and(|row| seen.highest(actor) < row.next)
    }

    /// To be called with every end of a tenure, once for ends that come together: retries of what the old actors wrote
    /// are not recognised any more.
    pub(crate) fn renew_start(&mut self, rng: &mut Prng) {
        self.starts.tenure_ended(rng);
    }

    /// Whether the store has yet to take the end of a tenure, or a start id.
    pub(crate) fn owes(&self) -> bool {
        self.starts.is_owed() || !self.owed.is_empty() || !self.former_owed.is_empty()
    }

    /// Adds what is owed to a change. Call [`Tenures::settled`] once it is written.
    pub(crate) fn settle(&self, change: &mut Change) {
        for partition in &self.owed {
            change.remove(Space::Pinned, rows::key(Kind::Actor, *partition, &[]));
        }
        for partition in &self.former_owed {
            let key = rows::key(Kind::Former, *partition, &[]);
            match self.former.get(partition) {
                Some(row) => change.put(Space::Pinned, key, codec::encode(row)),
                None => change.remove(Space::Pinned, key),
            };
        }
        self.starts.settle(change);
    }

    /// The change that [`Tenures::settle`] filled is written.
    pub(crate) fn settled(&mut self) {
        self.owed.clear();
        self.former_owed.clear();
        self.starts.settled();
    }

    /// The same, and what a split has ended: for the handshake.
    pub(crate) fn announce_all(&self) -> Vec<ActorNext> {
        let former = self.former.iter();
        let former = former.map(|(&partition, row)| ActorNext { partition, actor: row.actor, next: row.next });
        self.announce().into_iter().chain(former).collect()
    }

    /// Every actor and its next counter.
    pub(crate) fn announce(&self) -> Vec<ActorNext> {
        self.actors.iter().map(|(&partition, row)| ActorNext { partition, actor: row.actor, next: row.next }).collect()
    }
}

/// What is known of partitions, known of all their parts.
fn halves(of: BTreeMap<PartitionId, ActorRow>, more: u8) -> BTreeMap<PartitionId, ActorRow> {
    of.into_iter().flat_map(|(partition, row)| partition.parts(more).map(move |half| (half, row))).collect()
}

/// The most actors of others that are remembered per partition. A partition has as many writers as owners and
/// fallbacks, each with a new actor per tenure. Old contexts name ended actors for ever, so actors that no node is
/// known to mint with are forgotten first, and among them the one that no context has named for longest.
const MAX_OBSERVED: usize = 64;

/// The highest counters seen of other nodes' actors. A node with an old disk is told of them. Written with the next
/// upkeep.
#[derive(Debug)]
pub(crate) struct Observed {
    seen: BTreeMap<PartitionId, Vec<ObservedActor>>,
    /// Rows of forgotten actors, to be removed.
    forgotten: Vec<Vec<u8>>,
    clock: u64,
}

#[derive(Clone, Copy, Debug)]
struct ObservedActor {
    actor: ActorId,
    counter: u64,
    touched: u64,
    dirty: bool,
    /// Whether the store has a row of it.
    kept: bool,
    /// The node that mints with it, as far as is known.
    minter: Option<NodeId>,
}

impl Observed {
    pub(crate) fn open(store: &dyn Store) -> Result<Self, StoreFault> {
        let mut observed = Self { seen: BTreeMap::new(), forgotten: Vec::new(), clock: 0 };
        for (partition, rest, row) in rows::load::<NumberRow>(store, Kind::Observed)? {
            let actor = <[u8; 8]>::try_from(rest.as_slice())
                .map_err(|_| StoreFault::Damaged("observed row: short key".into()))?;
            let actor = ActorId(u64::from_be_bytes(actor));
            let seen = ObservedActor { actor, counter: row.0, touched: 0, dirty: false, kept: true, minter: None };
            observed.seen.entry(partition).or_default().push(seen);
        }
        Ok(observed)
    }

    /// Remembers the counters of a context, except for this node's own actor.
    pub(crate) fn note(&mut self, partition: PartitionId, context: &VersionVector, own: impl Fn(ActorId) -> bool) {
        self.clock += 1;
        let highest = context.iter().chain(context.cloud().iter().map(|run| Dot { actor: run.actor, counter: run.hi }));
        highest.filter(|dot| !own(dot.actor)).for_each(|dot| self.see(partition, dot));
    }

    fn see(&mut self, partition: PartitionId, dot: Dot) {
        let touched = self.clock;
        let known = self.seen.entry(partition).or_default();
        match known.iter_mut().find(|seen| seen.actor == dot.actor) {
            Some(seen) if seen.counter >= dot.counter => seen.touched = touched,
            Some(seen) => *seen = ObservedActor { counter: dot.counter, touched, dirty: true, ..*seen },
            None => {
                // Rule: minters are remembered.
                let place = |at: &usize| (known[*at].minter.is_some(), known[*at].touched);
                if known.len() >= MAX_OBSERVED
                    && let Some(first) = (0..known.len()).min_by_key(place)
                {
                    let gone = known.swap_remove(first);
                    if gone.kept {
                        self.forgotten.push(rows::observed_key(partition, gone.actor));
                    }
                }
                known.push(ObservedActor {
                    actor: dot.actor,
                    counter: dot.counter,
                    touched,
                    dirty: true,
                    kept: false,
                    minter: None,
                });
            }
        }
    }

    /// Remembers a dot that a node has minted. The node mints with this actor and no other in the partition.
    pub(crate) fn minted(&mut self, node: NodeId, partition: PartitionId, dot: Dot) {
        self.see(partition, dot);
        self.set_minter(node, partition, dot.actor);
    }

    /// Takes in all actors that a node has announced: it mints with these only.
    pub(crate) fn announced(&mut self, node: NodeId, actors: &[ActorNext]) {
        self.seen.values_mut().flatten().filter(|seen| seen.minter == Some(node)).for_each(|seen| seen.minter = None);
        for announced in actors {
            for name in self.names(announced.partition) {
                let known = self.seen.get_mut(&name).into_iter().flatten();
                known.filter(|seen| seen.actor == announced.actor).for_each(|seen| seen.minter = Some(node));
            }
        }
    }

    /// All partitions under which the counters of a partition's actors may be noted: what was seen before a split is
    /// noted under what is halved by now, and a node that does not know of the split yet announces that. Names of other
    /// partitions may be among them, which does no harm: actors are random.
    fn names(&self, partition: PartitionId) -> Vec<PartitionId> {
        let whole = (1..16).map(|more| PartitionId(partition.0 >> more));
        let mut names: Vec<PartitionId> = core::iter::once(partition).chain(whole).collect();
        for more in 1..16 {
            let first = u32::from(partition.0) << more;
            let Ok(first) = u16::try_from(first) else { break };
            let last = first.saturating_add((1 << more) - 1);
            names.extend(self.seen.range(PartitionId(first)..=PartitionId(last)).map(|(name, _)| *name));
        }
        names.sort_unstable();
        names.dedup();
        names
    }

    fn set_minter(&mut self, node: NodeId, partition: PartitionId, actor: ActorId) {
        for seen in self.seen.get_mut(&partition).into_iter().flatten() {
            if seen.actor == actor {
                seen.minter = Some(node);
            } else if seen.minter == Some(node) {
                seen.minter = None;
            }
        }
    }

    /// Whether an actor is remembered.
    pub(crate) fn knows(&self, partition: PartitionId, actor: ActorId) -> bool {
        self.seen.get(&partition).is_some_and(|known| known.iter().any(|seen| seen.actor == actor))
    }

    /// The counter seen of an announced actor, if the actor has not used it yet.
    pub(crate) fn outruns(&self, announced: &ActorNext) -> Option<u64> {
        // Rule: counters outlive splits.
        let names = self.names(announced.partition);
        let mut known = names.into_iter().filter_map(|name| self.seen.get(&name)).flatten();
        known.find(|seen| seen.actor == announced.actor && seen.counter >= announced.next).map(|seen| seen.counter)
    }

    /// Adds what has changed since the last [`flushed`](Self::flushed) to a change.
    pub(crate) fn flush(&self, change: &mut Change) {
        for row in &self.forgotten {
            change.remove(Space::Pinned, row.clone());
        }
        for (&partition, known) in &self.seen {
            for seen in known.iter().filter(|seen| seen.dirty) {
                change.put(
                    Space::Pinned,
                    rows::observed_key(partition, seen.actor),
                    codec::encode(&NumberRow(seen.counter)),
                );
            }
        }
    }

    /// The change that [`flush`](Self::flush) filled is written.
    pub(crate) fn flushed(&mut self) {
        self.forgotten.clear();
        self.seen.values_mut().flatten().for_each(|seen| (seen.dirty, seen.kept) = (false, true));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows that a flush would write.
    fn rows(observed: &Observed) -> usize {
        let mut change = Change::default();
        observed.flush(&mut change);
        change.rows.len()
    }

    fn context(actors: core::ops::Range<u64>) -> VersionVector {
        actors.map(|actor| Dot { actor: ActorId(actor), counter: 1 }).collect()
    }

    fn nothing() -> Observed {
        Observed { seen: BTreeMap::new(), forgotten: Vec::new(), clock: 0 }
    }

    #[test]
    fn what_is_remembered_of_others_is_bounded_also_while_the_disk_takes_nothing() {
        let mut observed = nothing();
        let note = |observed: &mut Observed, actors| observed.note(PartitionId(1), &context(actors), |_| false);
        note(&mut observed, 0..64);
        assert_eq!(rows(&observed), MAX_OBSERVED);
        observed.flushed();
        for round in 1..100 {
            note(&mut observed, round * 100..round * 100 + 100);
        }
        assert_eq!(observed.seen[&PartitionId(1)].len(), MAX_OBSERVED);
        assert_eq!(
            rows(&observed),
            2 * MAX_OBSERVED,
            "those that are new, and the removal of those that were written down"
        );
        observed.flushed();
        assert_eq!(rows(&observed), 0);
    }

    #[test]
    fn an_actor_that_contexts_go_on_naming_is_not_forgotten_for_those_that_they_do_not() {
        let mut observed = nothing();
        let note = |observed: &mut Observed, actors| observed.note(PartitionId(1), &context(actors), |_| false);
        for round in 1..100 {
            note(&mut observed, 7..8);
            note(&mut observed, round * 100..round * 100 + 50);
            assert!(observed.knows(PartitionId(1), ActorId(7)), "after {round} rounds");
        }
        assert!(!observed.knows(PartitionId(1), ActorId(100)));
    }

    #[test]
    fn the_actors_that_nodes_mint_with_are_forgotten_last() {
        let (n1, n2, here) = (NodeId(1), NodeId(2), PartitionId(1));
        let dot = |actor| Dot { actor: ActorId(actor), counter: 9 };
        let announced = |actor| ActorNext { partition: here, actor: ActorId(actor), next: 10 };
        let mut observed = nothing();
        let flood = |observed: &mut Observed, round: u64| {
            (1..10).for_each(|at| {
                observed.note(here, &context(round * 1000 + at * 100..round * 1000 + at * 100 + 90), |_| false)
            });
        };
        let known = |observed: &Observed| [1, 2, 3].map(|actor| observed.knows(here, ActorId(actor)));
        observed.minted(n1, here, dot(1));
        observed.minted(n2, here, dot(2));
        flood(&mut observed, 1);
        assert_eq!(known(&observed), [true, true, false]);
        assert_eq!(observed.outruns(&ActorNext { next: 9, ..announced(1) }), Some(9));
        // A node mints with one actor in a partition.
        observed.minted(n1, here, dot(3));
        flood(&mut observed, 2);
        assert_eq!(known(&observed), [false, true, true]);
        // What a node announces is all that it mints with.
        observed.announced(n1, &[announced(3)]);
        observed.announced(n2, &[]);
        flood(&mut observed, 3);
        assert_eq!(known(&observed), [false, false, true]);
        assert_eq!(observed.seen[&here].len(), MAX_OBSERVED);
    }
}
