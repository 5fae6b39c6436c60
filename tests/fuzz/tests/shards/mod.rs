//! Sequences of events against a real shard: clients, peers that lie, disks that fill up, messages damaged on the way.
//!
//! An input is a script of steps of sixteen bytes each, so an edit of one byte changes one step. [`script`] parses it,
//! [`world`] is the environment of the shard, and [`watch`] checks the invariants.

mod script;
#[path = "../../../../host/core/tests/support/store.rs"]
#[allow(dead_code, reason = "each room of tests uses its part")]
mod store;
mod watch;
mod world;

use world::World;

/// Plays a script to its end. Panics when something is not as it must be.
pub(crate) fn play(bytes: &[u8]) {
    let mut world = World::new();
    for step in bytes.chunks(16).take(200) {
        script::step(&mut world, step);
    }
    world.end();
}

/// Scripts that go far: a few steps each, whole.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let step = |bytes: &[u8]| {
        let mut step = bytes.to_vec();
        step.resize(16, 0);
        step
    };
    let script = |steps: &[&[u8]]| steps.iter().flat_map(|bytes| step(bytes)).collect::<Vec<u8>>();
    use script::op::*;
    vec![
        // A write, its acknowledgements, the disk; a read, its copies; a merge.
        script(&[
            &[PUT, 0, 1, 0, 3, 1],
            &[REPLICATED, 1, 0, 0],
            &[DURABLE, 1],
            &[PUT, 0, 1, 0, 4, 2],
            &[GET, 0, 1],
            &[READ_REPLY, 1, 0, 0, 1],
            &[MERGED, 0, 0, 5],
        ]),
        // A read of what a peer has too, by its digest, and one that a peer answers with another digest.
        script(&[
            &[PUT, 0, 1, 0, 3, 1],
            &[REPLICATED, 1, 0, 0],
            &[DURABLE, 1],
            &[GET, 0, 1],
            &[READ_REPLY, 1, 0, 3],
            &[GET, 0, 1],
            &[READ_REPLY, 1, 3, 3],
            &[PASS, 20],
        ]),
        // A write that two peers refuse.
        script(&[&[PUT, 0, 1, 0, 3, 1], &[REPLICATED, 1, 0, 0, 4], &[REPLICATED, 2, 0, 0, 5], &[DURABLE, 1]]),
        // A write with the context of another key.
        script(&[&[PUT, 1, 1, 0, 3, 1], &[REPLICATED, 1, 0, 0], &[PUT, 1, 2, 14, 3, 2]]),
        // Two writes side by side, and one with the context of the second.
        script(&[&[PUT, 2, 3, 0, 3, 1], &[DURABLE, 1], &[PUT, 2, 3, 0, 4, 2], &[DURABLE, 1], &[PUT, 2, 3, 6, 3, 3]]),
        // A write with the context of a read, a retry of it, and a delete.
        script(&[
            &[GET, 1, 2],
            &[READ_REPLY, 1, 0, 0],
            &[PUT, 1, 2, 2, 3, 1],
            &[PUT, 1, 2, 2, 3, 1, 1],
            &[REPLICATED, 2, 0, 0],
            &[PUT, 1, 2, 2, 0x80, 2],
        ]),
        // A create, through its read.
        script(&[
            &[PUT, 0, 3, 1, 3, 7],
            &[READ_REPLY, 1, 0, 0],
            &[READ_REPLY, 2, 0, 0],
            &[REPLICATED, 1, 0, 0],
            &[DURABLE, 1],
        ]),
        // Siblings up to the limit and over it, with a plugin that fails.
        script(&[
            &[PUT, 0, 1, 0, 3, 1],
            &[PUT, 0, 1, 0, 4, 2],
            &[PUT, 0, 1, 0, 5, 3],
            &[PUT, 0, 1, 0, 6, 4],
            &[PUT, 0, 1, 0, 7, 5],
            &[MERGED, 0, 1],
            &[PASS, 20],
        ]),
        // A peer's delete beside a value, where the limit is reached: the fold drops the tombstone, and not what was
        // seen.
        script(&[
            &[PUT, 0, 1, 0, 3, 1],
            &[REPLICATE, 1, 0, 0, 0, 1, 0, 0, 1, 1, 0, 24],
            &[PUT, 0, 1, 0, 4, 2],
            &[PUT, 0, 2, 0, 3, 3],
            &[REPLICATE, 1, 0, 0, 0, 2, 0, 0, 1, 1, 0, 24],
            &[PUT, 0, 2, 0, 4, 4],
        ]),
        // Peers that write, object and come back; a restart in between.
        script(&[
            &[PUT, 0, 1, 0, 3, 1],
            &[REPLICATE, 1, 0, 1, 1, 0, 2, 9],
            &[OBSERVED, 2, 1, 9],
            &[PEER_DOWN, 1],
            &[PEER_UP, 1, 3],
            &[RESTART, 0],
            &[PUT, 0, 1, 0, 3, 2],
            &[READ, 1, 0, 1],
        ]),
        // Keys of others, forwarded both ways.
        script(&[
            &[PUT, 0, 0, 0, 3, 1],
            &[PUT, 0, 4, 0, 3, 2],
            &[PUT, 0, 5, 0, 3, 3],
            &[FORWARD_REPLY, 1, 0, 0],
            &[FORWARD, 2, 0, 1, 0, 3],
            &[FORWARD, 2, 0, 1, 1],
        ]),
        // A full disk, a busy one, a copy that cannot be read.
        script(&[
            &[DISK, 1],
            &[PUT, 1, 1, 0, 3, 1],
            &[DISK, 2],
            &[PUT, 1, 1, 0, 3, 2],
            &[DISK, 0],
            &[PUT, 1, 1, 0, 3, 3],
            &[DAMAGE, 1, 1, 1],
            &[GET, 1, 1],
            &[DAMAGE, 1, 1, 0],
            &[PUT, 1, 1, 0, 3, 4],
        ]),
        // A value that is validated, one that is refused, and one that could not be judged.
        script(&[
            &[BUCKET, 128],
            &[PUT, 0, 1, 0, 3, 1],
            &[VALIDATED, 0, 3],
            &[REPLICATED, 1, 0, 0],
            &[DURABLE, 1],
            &[PUT, 0, 1, 0, 4, 2],
            &[VALIDATED, 1, 0],
            &[PUT, 0, 1, 1, 5, 3],
            &[VALIDATED, 2, 1],
        ]),
        // A message that is damaged on its way.
        script(&[
            &[REPLICATE, 1, 0, 1, 1, 0, 2, 9],
            &[DAMAGED, 1, 3, 1, 40, 7],
            &[DAMAGED, 2, 9, 0x80],
            &[BUCKET, 2],
            &[GET, 0, 1],
        ]),
    ]
}
