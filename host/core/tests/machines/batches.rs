//! Group commit: one shard behind its journal.

use rand_core::SeedableRng;

use rejoin_core::Prng;
use rejoin_core::node::MAX_WAITING;
use rejoin_core::node::batch::{FULL_BATCH_BYTES, GroupCommit, Input, Output};
use rejoin_core::port::{CommitSeq, Journal, StoreFault};
use rejoin_core::shard::Shard;
use rejoin_core::shard::event::{ClientRequest, Event, ReplyTo};
use rejoin_proto::catalog::BucketProps;
use rejoin_proto::client::{Put, PutOutcome, Reply};
use rejoin_proto::peer::{DataRequest, PeerBody};
use rejoin_proto::{Content, ErrorCode};

use crate::support::cluster::Cluster;
use crate::support::store::Memory;
use crate::support::{DEADLINE_US, at, get, put, tenant};

/// The only node of a cluster, on that store.
fn alone(store: &mut Memory) -> GroupCommit {
    let cluster = Cluster::new(1, BucketProps { n: 1, ..BucketProps::default() });
    first_of(&cluster, store, MAX_WAITING)
}

/// The first node of a cluster, on that store.
fn first_of(cluster: &Cluster, store: &mut Memory, max_waiting: usize) -> GroupCommit {
    let config = cluster.nodes[0].config.clone();
    let shard = Shard::open(config, cluster.view.clone(), Prng::seed_from_u64(1), store).expect("a shard");
    GroupCommit::new(shard, CommitSeq::default(), max_waiting)
}

fn ask(number: u64, request: DataRequest) -> Input {
    let (reply_to, deadline_us) = (ReplyTo { connection: 1, request: number }, DEADLINE_US);
    let layout = Default::default();
    let (tenant, arrived_us) = (tenant(), 0);
    Input::Event(Event::Client(ClientRequest { reply_to, tenant, layout, trace: 1, arrived_us, deadline_us, request }))
}

/// A read that one copy answers ends within its event, so no budget of requests under way counts its value.
#[test]
fn a_batch_is_full_when_its_replies_hold_sixteen_mebibytes() {
    let mut store = Memory::default();
    let (mut batch, mut outputs) = (alone(&mut store), Vec::new());
    batch.handle(at(1), Input::Event(Event::Serving { met_all: true }), &mut store);
    let value = Content::Value(vec![7; 1 << 20].into());
    batch.handle(at(1), ask(1, DataRequest::Put(Put { content: value, ..put("k", "", 1) })), &mut store);
    batch.commit(at(1), &mut store, &mut outputs);
    for _ in 0..2 {
        let mut reads = 0;
        while !batch.is_full() && reads < 1000 {
            batch.handle(at(2), ask(1, DataRequest::Get(get("k"))), &mut store);
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

fn replies(outputs: &mut Vec<Output>) -> Vec<(u64, PutOutcome)> {
    let put = |output| match output {
        Output::Reply(to, Reply::Put(reply)) => Some((to.request, reply.outcome)),
        _ => None,
    };
    outputs.drain(..).filter_map(put).collect()
}

#[test]
pub(crate) fn a_write_that_finds_no_room_to_wait_for_the_disk_waits_for_it_later() {
    let cluster = Cluster::new(1, BucketProps { n: 1, ..BucketProps::default() });
    let (mut store, mut outputs) = (Memory::default(), Vec::new());
    let mut batch = first_of(&cluster, &mut store, 1);
    batch.handle(at(1), Input::Event(Event::Serving { met_all: true }), &mut store);
    // What the shard tells the ring at its start waits for the disk, too.
    batch.commit(at(1), &mut store, &mut outputs);
    let synced = store.commit();
    batch.handle(at(1), Input::Synced(synced), &mut store);
    batch.commit(at(1), &mut store, &mut outputs);
    outputs.clear();
    for number in [1, 2] {
        batch.handle(at(1), ask(number, DataRequest::Put(put("k", "v", number.into()))), &mut store);
    }
    batch.commit(at(1), &mut store, &mut outputs);
    assert!(outputs.iter().any(|output| matches!(output, Output::Dropped(1))), "{outputs:?}");
    assert!(outputs.iter().any(|output| matches!(output, Output::Again)), "{outputs:?}");
    assert!(replies(&mut outputs).is_empty(), "none is on the disk");
    // The batch that the shell runs at once.
    batch.commit(at(1), &mut store, &mut outputs);
    let again_us = batch.next_wake_us();
    assert!((20_000..50_000).contains(&again_us), "it has a pause, and is not given up: {again_us}");
    let synced = store.commit();
    batch.handle(at(2), Input::Synced(synced), &mut store);
    batch.commit(at(2), &mut store, &mut outputs);
    assert_eq!(replies(&mut outputs), [(1, PutOutcome::Stored)], "the other one waits for the disk as ever");
    // There is room now. The disk has the write already, but not as far as this ticket could know.
    batch.commit(at(50), &mut store, &mut outputs);
    let synced = store.commit();
    batch.handle(at(51), Input::Synced(synced), &mut store);
    batch.commit(at(51), &mut store, &mut outputs);
    assert_eq!(replies(&mut outputs), [(2, PutOutcome::Stored)]);
}

#[test]
fn a_replica_that_has_no_room_to_wait_for_the_disk_refuses_at_once() {
    let mut cluster = Cluster::new(2, BucketProps { n: 2, ..BucketProps::default() });
    for number in [1, 2] {
        cluster.ask_put(1, put("k", "v", number));
    }
    let (mut store, mut outputs) = (Memory::default(), Vec::new());
    let mut batch = first_of(&cluster, &mut store, 1);
    batch.handle(at(1), Input::Event(Event::Serving { met_all: true }), &mut store);
    for (from, _, envelope) in cluster.wire.drain(..) {
        batch.handle(at(1), Input::Event(Event::Peer(from, envelope)), &mut store);
    }
    batch.commit(at(1), &mut store, &mut outputs);
    let refused: Vec<_> = outputs
        .iter()
        .filter_map(|output| match output {
            Output::Send(_, envelope) => match &envelope.body {
                PeerBody::Replicated { outcome, .. } => Some(outcome.clone()),
                _ => None,
            },
            _ => None,
        })
        .collect();
    assert_eq!(refused, [Err(ErrorCode::Overloaded)], "the other answer waits for the disk");
}
