//! What owners hold at each step of a change of layout, for the checker [`steps`](crate::check::steps).
//!
//! When the first node takes a step, all that was acknowledged is looked for on the disks of the owners in live
//! layouts: those that no node has retired yet. So after the last step the former owners do not count, whatever they
//! still hold.

use std::collections::BTreeMap;

use rejoin_proto::catalog::Durability;
use rejoin_proto::ring::Progress;
use rejoin_proto::{Dot, Layout, LayoutRef, Object, VersionVector, codec};

use super::World;
use crate::history::{KeyId, Missing, NodeIndex};

/// How far a node has come with a step.
type Reached = fn(&Progress) -> LayoutRef;

/// The steps, in their order, and how far a ring says that its node has come with each.
const STEPS: [(&str, Reached); 4] = [
    ("has acknowledged", |progress| progress.acknowledged),
    ("has closed those before", |progress| progress.closed),
    ("has taken what it gains by", |progress| progress.exchanged),
    ("reads by", |progress| progress.reads),
];

/// What was acknowledged, and how far the first node has come.
#[derive(Default, Debug)]
pub(super) struct Steps {
    /// By key: when, and the dot of the write.
    acknowledged: Vec<Vec<(u64, Dot)>>,
    reached: [LayoutRef; STEPS.len()],
    /// Layouts with a smaller name are retired on some node.
    oldest: LayoutRef,
}

impl Steps {
    pub(super) fn acknowledged(&mut self, key: KeyId, at_us: u64, dot: Dot) {
        let key = key as usize;
        if self.acknowledged.len() <= key {
            self.acknowledged.resize(key + 1, Vec::new());
        }
        self.acknowledged[key].push((at_us, dot));
    }
}

impl World {
    /// The ring of a node has changed: looks at all keys if it is the first to have taken a step.
    pub(super) fn look_at_steps(&mut self, at: NodeIndex) {
        let node = &self.nodes[usize::from(at)];
        let (notes, newest) = (&node.ring.notes, node.ring.newest().version);
        let mut taken = Vec::new();
        if let Some(own) = notes.progress.get(&node.id) {
            for ((words, of), reached) in STEPS.iter().zip(&mut self.steps.reached) {
                if of(own) > *reached {
                    *reached = of(own);
                    taken.push(*words);
                }
            }
        }
        if notes.oldest > self.steps.oldest {
            self.steps.oldest = notes.oldest;
            taken.push("has retired those before");
        }
        if let Some(words) = taken.last() {
            let step = format!("n{at} {words} layout {newest}");
            self.recorder.mark("step looked at");
            (0..self.keys.places.len() as KeyId).for_each(|key| self.look_for(key, &step));
        }
    }

    /// Records the writes to a key that were acknowledged and that no owner in a live layout has.
    pub(super) fn look_for(&mut self, key: KeyId, step: &str) {
        let (of, place) = (&self.recorder.run.keys[key as usize], self.keys.place(key));
        // Fallbacks may hold what owners have not heard of yet.
        if of.has_fallbacks() {
            return;
        }
        let counts = |synced: bool| synced || of.durability == Durability::Os;
        let losses = self.recorder.run.losses.iter().filter(|loss| counts(loss.synced));
        let since_us = losses.map(|loss| loss.at_us + 1).max().unwrap_or(0);
        let Some(acknowledged) = self.steps.acknowledged.get(key as usize) else { return };
        let due = &acknowledged[acknowledged.partition_point(|(at_us, _)| *at_us < since_us)..];
        if due.is_empty() {
            return;
        }
        let rings = self.nodes.iter().flat_map(|node| &node.ring.live);
        let live: BTreeMap<LayoutRef, &Layout> =
            rings.map(|layout| (layout.name(), layout)).filter(|(name, _)| *name >= self.steps.oldest).collect();
        let in_each = |layout: &&Layout| self.keys.owners(layout, place.bucket, &place.object);
        let mut owners: Vec<NodeIndex> = live.values().flat_map(in_each).collect();
        owners.sort_unstable();
        owners.dedup();
        let mut held = VersionVector::new();
        for owner in &owners {
            let disk = &self.nodes[usize::from(*owner)].disks[usize::from(place.shard)];
            let copy = match of.durability {
                Durability::Fsync => disk.durable_object(&place.store_key),
                Durability::Os => disk.object_on_disk(&place.store_key),
            };
            if let Some(bytes) = copy {
                held.join(&codec::decode::<Object>(bytes).expect("a stored object").context);
            }
        }
        let given_up = &self.recorder.run.given_up;
        let lost = due.iter().find(|(_, dot)| !held.contains(*dot) && !given_up.contains(dot)).copied();
        if let Some((acked_us, _)) = lost {
            let missing = Missing { key, at_us: self.now_us, acked_us, step: step.to_owned(), owners };
            self.recorder.run.missing.push(missing);
        }
    }
}
