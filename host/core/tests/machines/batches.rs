//! Group commit: one shard behind its journal.

use rand_core::SeedableRng;

use rejoin_core::Prng;
use rejoin_core::node::MAX_WAITING;
use rejoin_core::node::batch::{FULL_BATCH_BYTES, GroupCommit, Input, Output};
use rejoin_core::port::{CommitSeq, StoreFault};
use rejoin_core::shard::Shard;
use rejoin_core::shard::event::{ClientRequest, Event, ReplyTo};
use rejoin_proto::Content;
use rejoin_proto::catalog::BucketProps;
use rejoin_proto::client::Put;
use rejoin_proto::peer::DataRequest;

use crate::support::cluster::Cluster;
use crate::support::store::Memory;
use crate::support::{DEADLINE_US, at, get, put, tenant};

/// The only node of a cluster, on that store.
fn alone(store: &mut Memory) -> GroupCommit {
    let cluster = Cluster::new(1, BucketProps { n: 1, ..BucketProps::default() });
    let config = cluster.nodes[0].config.clone();
    let shard = Shard::open(config, cluster.view.clone(), Prng::seed_from_u64(1), store).expect("a shard");
    GroupCommit::new(shard, CommitSeq::default(), MAX_WAITING)
}

/// A read that one copy answers ends within its event, so no budget of requests under way counts its value.
#[test]
fn a_batch_is_full_when_its_replies_hold_sixteen_mebibytes() {
    let mut store = Memory::default();
    let (mut batch, mut outputs) = (alone(&mut store), Vec::new());
    let ask = |request| {
        let (reply_to, deadline_us) = (ReplyTo { connection: 1, request: 1 }, DEADLINE_US);
        Input::Event(Event::Client(ClientRequest {
            reply_to,
            tenant: tenant(),
            layout: Default::default(),
            trace: 1,
            deadline_us,
            request,
        }))
    };
    batch.handle(at(1), Input::Event(Event::Serving { met_all: true }), &mut store);
    let value = Content::Value(vec![7; 1 << 20].into());
    batch.handle(at(1), ask(DataRequest::Put(Put { content: value, ..put("k", "", 1) })), &mut store);
    batch.commit(at(1), &mut store, &mut outputs);
    for _ in 0..2 {
        let mut reads = 0;
        while !batch.is_full() && reads < 1000 {
            batch.handle(at(2), ask(DataRequest::Get(get("k"))), &mut store);
            reads += 1;
        }
        // Each reply has the value, and once more as the only sibling.
        assert_eq!(reads, FULL_BATCH_BYTES >> 21);
        batch.commit(at(2), &mut store, &mut outputs);
    }
}

#[test]
fn a_shard_whose_store_has_failed_is_never_due_again() {
    let mut store = Memory::default();
    let (mut batch, mut outputs) = (alone(&mut store), Vec::new());
    batch.handle(at(1), Input::Synced(Err(StoreFault::Failed("fdatasync: input/output error".into()))), &mut store);
    batch.commit(at(1), &mut store, &mut outputs);
    assert!(matches!(outputs.as_slice(), [Output::Failed(_)]), "{outputs:?}");
    assert_eq!(batch.next_wake_us(), u64::MAX, "its thread would turn without end");
}
