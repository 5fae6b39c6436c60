//! Sequences of events against a real shard, see the module of the scripts.

#[path = "../shards/mod.rs"]
mod scripts;

use crate::fuzz;

#[test]
fn shards() {
    fuzz("shards", scripts::seeds(), scripts::play);
}
