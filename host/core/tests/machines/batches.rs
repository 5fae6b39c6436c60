//! Group commit: one shard behind its journal.

use rand_core::SeedableRng;

use rejoin_core::Prng;
use rejoin_core::node::MAX_WAITING;
use rejoin_core::node::batch::{GroupCommit, Input, Output};
use rejoin_core::port::{CommitSeq, StoreFault};
use rejoin_core::shard::Shard;
use rejoin_proto::catalog::BucketProps;

use crate::support::at;
use crate::support::cluster::Cluster;
use crate::support::store::Memory;

#[test]
fn a_shard_whose_store_has_failed_is_never_due_again() {
    let cluster = Cluster::new(1, BucketProps { n: 1, ..BucketProps::default() });
    let mut store = Memory::default();
    let config = cluster.nodes[0].config.clone();
    let shard = Shard::open(config, cluster.view.clone(), Prng::seed_from_u64(1), &mut store).expect("a shard");
    let (mut batch, mut outputs) = (GroupCommit::new(shard, CommitSeq::default(), MAX_WAITING), Vec::new());
    batch.handle(at(1), Input::Synced(Err(StoreFault::Failed("fdatasync: input/output error".into()))), &mut store);
    batch.commit(at(1), &mut store, &mut outputs);
    assert!(matches!(outputs.as_slice(), [Output::Failed(_)]), "{outputs:?}");
    assert_eq!(batch.next_wake_us(), u64::MAX, "its thread would turn without end");
}
