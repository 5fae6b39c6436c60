//! The actors that nodes announce to each other in their hellos.
//!
//! Two nodes may have heard of a split of the partitions at different times, and so may the shards of one node. So each
//! list says of how many partitions it is.

use alloc::vec::Vec;

use rejoin_proto::peer::{ActorNext, PeerHello};

use super::route::shard_of_named;

/// The actors of all shards for a hello, and the ring of 2^how many partitions names them. Each shard has told its own,
/// of a ring of 2^so many. Where others have heard of a split that it has not, its actors go by the first parts of
/// their partitions: a peer looks for them under all names.
#[must_use]
pub fn announced(of_shards: Vec<(u8, Vec<ActorNext>)>) -> (u8, Vec<ActorNext>) {
    let most = of_shards.iter().map(|(bits, _)| *bits).max().unwrap_or(0);
    let first_part = |bits: u8, actor: ActorNext| {
        let partition = actor.partition.parts(most - bits).next().unwrap_or(actor.partition);
        ActorNext { partition, ..actor }
    };
    let named = |(bits, actors): (u8, Vec<ActorNext>)| actors.into_iter().map(move |actor| first_part(bits, actor));
    (most, of_shards.into_iter().flat_map(named).collect())
}

/// The actors of a peer's hello, for each of this node's shards.
pub(super) fn by_shard(hello: &PeerHello, shards: u16) -> Vec<Vec<ActorNext>> {
    let mut by_shard = alloc::vec![Vec::new(); usize::from(shards)];
    for actor in &hello.actors {
        if let Some(shard) = shard_of_named(hello.partition_bits, actor.partition, shards) {
            by_shard[usize::from(shard)].push(*actor);
        }
    }
    by_shard
}

#[cfg(test)]
mod tests {
    use super::*;
    use rejoin_proto::{ActorId, PartitionId};

    #[test]
    fn actors_go_by_the_partitions_of_the_shard_that_has_heard_of_the_last_split() {
        let actor = |partition| ActorNext { partition: PartitionId(partition), actor: ActorId(7), next: 2 };
        let (bits, actors) = announced(alloc::vec![(3, alloc::vec![actor(3)]), (5, alloc::vec![actor(17)])]);
        assert_eq!(bits, 5);
        assert_eq!(actors, [actor(12), actor(17)], "still of the first and the second shard of two");
        assert_eq!(announced(Vec::new()), (0, Vec::new()));
    }
}
