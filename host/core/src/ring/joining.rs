//! A node that starts with an empty data directory: by which ring it joins a running cluster.
//!
//! Any node gives its ring to one that joins. That node may be behind: for a second after the last step of a change, or
//! for as long as it cannot reach the others. Its ring may name the joining node a member although an operator has
//! declared it dead and removed it. By that ring it would be a member for a moment, note so in its new directory, and
//! be refused for good by all who know better. So a ring that names the node a member is not enough: it is joined with
//! those of the other nodes that answer. And a node that was declared dead has nothing to do in a change that removes
//! it: it waits until that has ended.

use alloc::vec::Vec;

use rejoin_proto::{Address, NodeId, Ring};

use super::steps::is_dead;

/// The most other nodes whose rings are asked for.
pub const MOST_ASKED: usize = 8;

/// A node may not join yet: it was declared dead, and the change that removes it is under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "an operator has declared this node dead, and the change of layout that removes it is under way: it joins when \
        that has ended; `rejoin layout show` says what it waits for"
)]
pub struct Removing;

/// The nodes whose rings are needed too before `node` joins by this one. None if the ring says that it is no member:
/// then no node takes it for more.
#[must_use]
pub fn to_ask(node: NodeId, ring: &Ring) -> Vec<Address> {
    if !is_member(node, ring) {
        return Vec::new();
    }
    // Those that are further come first: they know the most.
    let mut others: Vec<_> = ring.notes.progress.iter().filter(|(other, _)| **other != node).collect();
    others.sort_by_key(|(other, progress)| (core::cmp::Reverse(progress.reads), **other));
    let of_layout = |other: NodeId| ring.live.iter().rev().find_map(|layout| layout.node(other));
    let address = |other: NodeId| match ring.notes.announced.get(&other) {
        Some(announced) => Some(announced.address.clone()),
        None => of_layout(other).map(|known| known.address.clone()),
    };
    others.into_iter().filter_map(|(other, _)| address(*other)).take(MOST_ASKED).collect()
}

/// The ring by which `node` joins, of the one that it was given first and those of others. Rings of another cluster are
/// left out.
///
/// # Errors
/// [`Removing`]: it has to ask again later.
pub fn joined(node: NodeId, first: Ring, others: Vec<Ring>) -> Result<Ring, Removing> {
    let (origin, mut ring) = (first.origin, first);
    // Rule: who joins asks more than one.
    for other in others.into_iter().filter(|other| other.origin == origin) {
        ring.add(other.live);
        ring.join(&other.notes);
    }
    let is_leaving = is_member(node, &ring) && ring.newest().node(node).is_none();
    // Rule: the dead wait for their removal.
    if is_leaving && is_dead(&ring, node) {
        return Err(Removing);
    }
    Ok(ring)
}

fn is_member(node: NodeId, ring: &Ring) -> bool {
    ring.live.iter().any(|layout| layout.node(node).is_some())
}
