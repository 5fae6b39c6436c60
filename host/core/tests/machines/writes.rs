//! Writes by quorum: who takes them, when they are answered, and what an answer means.

use bytes::Bytes;

use rejoin_core::port::Space;
use rejoin_core::shard::event::Event;
use rejoin_proto::catalog::{BucketProps, Durability, Quorum};
use rejoin_proto::client::{Basis, PutOutcome};
use rejoin_proto::peer::PeerBody;
use rejoin_proto::{ErrorCode, VersionVector};

use crate::support::cluster::{Cluster, contexts};
use crate::support::{delete, get, name, object_id, put, with};

fn three() -> Cluster {
    Cluster::new(3, BucketProps::default())
}

#[test]
pub(crate) fn a_write_is_read_from_every_node_and_a_delete_ends_it() {
    let mut cluster = three();
    let written = cluster.put(0, put("k", "milk", 1));
    assert_eq!((written.outcome, written.acked, written.needed), (PutOutcome::Stored, 2, 2));
    for node in 0..3 {
        let read = cluster.get(node, get("k"));
        assert_eq!((read.value.as_deref(), read.siblings.len()), (Some(&b"milk"[..]), 1));
    }
    let read = cluster.get(1, get("k"));
    cluster.put(2, with(&read.context, delete("k", 2)));
    let read = cluster.get(0, get("k"));
    assert_eq!((read.value, read.siblings.len()), (None, 0));
    assert!(cluster.agrees("k", &[0, 1, 2]));
}

/// The object is encoded once: what its coordinator stores is what it sends, and a replica that has nothing the write
/// does not supersede stores what came.
#[test]
pub(crate) fn the_row_of_a_write_is_the_same_bytes_in_the_message_and_at_each_owner() {
    let mut cluster = three();
    cluster.put(0, put("k", "milk", 1));
    for (request, to) in [(2_u128, 0), (3, 1)] {
        let read = cluster.get(to, get("k"));
        cluster.ask_put(to, with(&read.context, put("k", "more milk", request)));
        let mut sent: Vec<Bytes> = Vec::new();
        // As they are, and not decoded from a frame, so that a copy of the bytes shows.
        for (from, to, envelope) in std::mem::take(&mut cluster.wire) {
            let PeerBody::Replicate(message) = &envelope.body else { panic!("a replicate") };
            sent.push(message.state.row().clone());
            let to = cluster.place(to);
            cluster.event(to, Event::Peer(from, envelope));
        }
        cluster.deliver();
        let key = (Space::Objects, Bytes::from(object_id("k").store_key()));
        let rows: Vec<&Bytes> = cluster.nodes.iter().map(|node| &node.store.rows[&key]).collect();
        assert!(sent.len() == 2 && rows.len() == 3);
        for row in rows.into_iter().chain(&sent) {
            assert_eq!(row.as_ptr(), sent[0].as_ptr(), "not copied");
            assert_eq!(row, &sent[0]);
        }
        assert_eq!(cluster.stored(to, "k").entries.len(), 1);
    }
}

#[test]
pub(crate) fn an_acknowledgement_waits_for_the_disks_of_w_replicas_and_a_message_does_not() {
    let mut cluster = three();
    cluster.nodes.iter_mut().for_each(|node| node.syncing = false);
    let number = cluster.ask_put(0, put("k", "milk", 1));
    assert_eq!(cluster.wire.len(), 2, "both owners are sent the write at once");
    cluster.deliver();
    assert!(cluster.replies.is_empty(), "no disk has answered");
    cluster.nodes[1].syncing = true;
    cluster.sync(1);
    cluster.deliver();
    assert!(cluster.replies.is_empty(), "one has");
    cluster.nodes[0].syncing = true;
    cluster.sync(0);
    assert_eq!(cluster.put_reply(number).outcome, PutOutcome::Stored);
}

#[test]
pub(crate) fn with_durability_os_no_disk_is_waited_for() {
    let mut cluster = Cluster::new(3, BucketProps { durability: Durability::Os, ..BucketProps::default() });
    cluster.nodes.iter_mut().for_each(|node| node.syncing = false);
    assert_eq!(cluster.put(0, put("k", "milk", 1)).outcome, PutOutcome::Stored);
}

#[test]
pub(crate) fn a_node_that_is_no_owner_forwards_once_and_never_again() {
    let mut cluster = Cluster::new(4, BucketProps::default());
    let owners = cluster.owners("k");
    let stranger = owners[3];
    let number = cluster.ask_put(stranger, put("k", "milk", 1));
    assert!(matches!(cluster.wire[0].2.body, PeerBody::Forward(_)));
    assert_eq!(cluster.place(cluster.wire[0].1), owners[0], "to the preferred owner");
    cluster.deliver();
    assert_eq!(cluster.put_reply(number).outcome, PutOutcome::Stored);
    assert_eq!(cluster.get(stranger, get("k")).value.as_deref(), Some(&b"milk"[..]));
    assert!(cluster.stored(stranger, "k").is_empty());

    // Forwarded to another stranger it would wander: that one refuses.
    let mut cluster = Cluster::new(5, BucketProps::default());
    let (one, two) = (cluster.owners("k")[3], cluster.owners("k")[4]);
    let number = cluster.ask_put(one, put("k", "milk", 1));
    let (from, _, envelope) = cluster.wire.pop_front().expect("a forward");
    cluster.event(two, Event::Peer(from, envelope));
    assert!(cluster.wire.iter().all(|(_, to, _)| *to == from), "not sent on");
    let PeerBody::ForwardReply { op, reply } = cluster.wire[0].2.body.clone() else { panic!("an answer") };
    assert!(matches!(reply, rejoin_proto::client::Reply::Error(error) if error.code == ErrorCode::StaleLayout));
    cluster.deliver();
    assert!(!cluster.replies.contains_key(&number), "only the owner it was sent to may answer for it: {op:?}");
}

#[test]
pub(crate) fn unavailable_means_that_nothing_was_written() {
    let mut cluster = three();
    cluster.cut(0);
    let number = cluster.ask_put(0, put("k", "milk", 1));
    let error = cluster.error(number);
    assert_eq!((error.code, error.needed, error.got, error.why.len()), (ErrorCode::Unavailable, 2, 1, 2));
    assert_eq!(cluster.actor_of(0, "k"), None, "no dot was minted");
    assert!(cluster.stored(0, "k").is_empty());
    assert_eq!(cluster.nodes[0].shard.in_flight(), 0);
}

#[test]
pub(crate) fn after_the_dot_a_missed_quorum_is_unknown_at_the_deadline() {
    let mut cluster = three();
    let number = cluster.ask_put(0, put("k", "milk", 1));
    cluster.wire.clear();
    cluster.pass(999);
    assert!(cluster.replies.is_empty(), "not before the deadline");
    cluster.pass(1);
    let reply = cluster.put_reply(number);
    assert_eq!((reply.outcome, reply.acked, reply.needed), (PutOutcome::Unknown, 1, 2));
    assert_eq!(cluster.stored(0, "k").entries.len(), 1);
    assert_eq!(cluster.nodes[0].shard.in_flight(), 0);
}

#[test]
pub(crate) fn lost_connections_end_the_waiting_early() {
    let mut cluster = three();
    let number = cluster.ask_put(0, put("k", "milk", 1));
    cluster.wire.clear();
    let (one, two) = (cluster.nodes[1].id, cluster.nodes[2].id);
    cluster.event(0, Event::PeerDown(one));
    assert!(cluster.replies.is_empty(), "the other one can still make a quorum");
    cluster.event(0, Event::PeerDown(two));
    assert_eq!(cluster.put_reply(number).outcome, PutOutcome::Unknown);

    let mut cluster = Cluster::new(4, BucketProps::default());
    let owners = cluster.owners("k");
    let stranger = owners[3];
    let (write, read) = (cluster.ask_put(stranger, put("k", "milk", 1)), cluster.ask_get(stranger, get("k")));
    for owner in &owners[..3] {
        assert!(!cluster.replies.contains_key(&read), "another owner can still answer");
        let owner = cluster.nodes[*owner].id;
        cluster.event(stranger, Event::PeerDown(owner));
    }
    assert_eq!(cluster.error(write).code, ErrorCode::Unknown, "the owner may have begun to write");
    assert_eq!(cluster.error(read).code, ErrorCode::TimedOut);
}

#[test]
pub(crate) fn work_that_comes_after_its_deadline_is_not_begun() {
    let mut cluster = Cluster::new(4, BucketProps::default());
    let stranger = cluster.owners("k")[3];
    let number = cluster.ask_put(stranger, put("k", "milk", 1));
    cluster.wire.clear();
    cluster.pass(1000);
    assert_eq!(cluster.error(number).code, ErrorCode::Unknown);
    let request = rejoin_core::shard::event::ClientRequest {
        reply_to: rejoin_core::shard::event::ReplyTo { connection: 1, request: 77 },
        tenant: crate::support::tenant(),
        layout: cluster.view.layout_name(),
        trace: 0,
        arrived_us: 0,
        deadline_us: 1_000_000,
        request: rejoin_proto::peer::DataRequest::Put(put("k", "milk", 2)),
    };
    let written = cluster.nodes[0].store.written;
    cluster.event(0, Event::Client(request));
    assert_eq!(cluster.error(77).code, ErrorCode::TimedOut);
    assert_eq!(cluster.nodes[0].store.written, written);
}

#[test]
pub(crate) fn pw_and_w_of_one_request_are_kept() {
    let mut cluster = three();
    cluster.cut(2);
    assert_eq!(cluster.refused(0, put("k", "a", 1).also(|put| put.w = Some(Quorum::Count(3)))), ErrorCode::Unavailable);
    assert_eq!(
        cluster.refused(0, put("k", "a", 2).also(|put| put.pw = Some(Quorum::Count(3)))),
        ErrorCode::Unavailable
    );
    let alone = put("k", "a", 3).also(|put| put.w = Some(Quorum::Count(1)));
    assert_eq!(cluster.put(2, alone).acked, 1, "w = 1 needs nobody else");
    let number = cluster.ask_get(0, get("k").also(|get| get.pr = Some(Quorum::Count(3))));
    assert_eq!(cluster.error(number).code, ErrorCode::Unavailable);
}

/// Changes one thing of a request.
trait Also: Sized {
    fn also(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}
impl<T> Also for T {}

#[test]
pub(crate) fn a_create_is_refused_where_something_is_and_taken_where_it_was_deleted() {
    let mut cluster = three();
    let create = |request| put("k", "first", request).also(|put| put.basis = Basis::Create);
    assert_eq!(cluster.put(0, create(1)).outcome, PutOutcome::Stored);
    assert_eq!(cluster.refused(1, create(2)), ErrorCode::Exists);
    let read = cluster.get(1, get("k"));
    cluster.put(1, with(&read.context, delete("k", 3)));
    assert_eq!(cluster.put(2, create(4)).outcome, PutOutcome::Stored);
    assert_eq!(cluster.stored(2, "k").entries.len(), 1, "the tombstone was seen and is replaced");
}

#[test]
pub(crate) fn a_stale_context_makes_siblings_and_a_full_one_ends_them() {
    let mut cluster = three();
    cluster.plugin = None;
    cluster.put(0, put("k", "a", 1));
    let stale = cluster.get(0, get("k")).context;
    cluster.put(0, with(&stale, put("k", "b", 2)));
    cluster.put(1, with(&stale, put("k", "c", 3)));
    let read = cluster.get(2, get("k"));
    assert_eq!((read.value, read.siblings.len()), (None, 2));
    assert!(read.merge_fault.is_some(), "the reader is told why");
    let written = cluster.put(2, with(&read.context, put("k", "d", 4)));
    assert_eq!(cluster.get(0, get("k")).siblings.len(), 1);
    // The writer's own context goes on without a read.
    cluster.put(0, with(&written.context, put("k", "e", 5)));
    assert_eq!(cluster.get(1, get("k")).value.as_deref(), Some(&b"e"[..]));
}

/// Each write is coordinated by another owner, and none of them is followed by a read.
#[test]
pub(crate) fn a_chain_of_own_contexts_replaces_its_own_writes_beside_a_sibling_it_has_not_seen() {
    let mut cluster = three();
    cluster.plugin = None;
    (0..3).for_each(|node| drop(cluster.put(node, put("k", &format!("unseen {node}"), node as u128 + 1))));
    let mut context = cluster.put(0, put("k", "mine 0", 10)).context;
    for round in 1..=100u128 {
        let written = cluster.put(round as usize % 3, with(&context, put("k", &format!("mine {round}"), 10 + round)));
        context = written.context;
    }
    let read = cluster.get(1, get("k"));
    let mut values: Vec<String> =
        read.siblings.iter().map(|sibling| String::from_utf8_lossy(&sibling.value).into_owned()).collect();
    values.sort_unstable();
    assert_eq!(values, ["mine 100", "unseen 0", "unseen 1", "unseen 2"]);
    assert!(context.len() < 200, "{} bytes", context.len());
    cluster.put(2, with(&context, delete("k", 999)));
    let read = cluster.get(0, get("k"));
    assert_eq!(read.siblings.len(), 3, "a writer can delete what it wrote, and nothing else");
}

#[test]
pub(crate) fn a_time_to_live_of_nothing_is_refused_and_an_endless_one_ends_never() {
    let mut cluster = three();
    let living = |ttl_ms, request| rejoin_proto::client::Put { ttl_ms: Some(ttl_ms), ..put("k", "v", request) };
    assert_eq!(cluster.refused(0, living(0, 1)), ErrorCode::BadRequest);
    assert!(cluster.stored(0, "k").is_empty());
    cluster.put(0, living(u64::MAX, 2));
    cluster.pass(1_000_000);
    assert_eq!(cluster.get(1, get("k")).value.as_deref(), Some(&b"v"[..]));
}

#[test]
pub(crate) fn contexts_of_another_key_or_made_up_are_refused_before_anything_is_written() {
    let mut cluster = three();
    cluster.put(0, put("other", "a", 1));
    let foreign = cluster.get(0, get("other")).context;
    assert_eq!(cluster.refused(0, with(&foreign, put("k", "x", 2))), ErrorCode::BadContext);
    assert_eq!(cluster.refused(0, with(&[1; 40], put("k", "x", 3))), ErrorCode::BadContext);
    assert_eq!(cluster.refused(0, with(&[], put("k", "x", 4))), ErrorCode::BadContext);
    let mut forged = contexts().seal(&object_id("k"), &VersionVector::new());
    forged[5] ^= 1;
    assert_eq!(cluster.refused(0, with(&forged, put("k", "x", 5))), ErrorCode::BadContext);
    assert!(cluster.stored(0, "k").is_empty());
}

#[test]
pub(crate) fn keys_values_and_buckets_are_checked() {
    let mut cluster = Cluster::new(3, BucketProps { value_bytes: 4, ..BucketProps::default() });
    assert_eq!(cluster.refused(0, put("k", "12345", 1)), ErrorCode::TooLarge);
    assert_eq!(cluster.refused(0, put("", "1", 2)), ErrorCode::BadRequest);
    assert_eq!(cluster.refused(0, put(&"k".repeat(1025), "1", 3)), ErrorCode::TooLarge);
    assert_eq!(cluster.refused(0, put("k", "1", 4).also(|put| put.bucket = name("none"))), ErrorCode::NotFound);
    assert_eq!(cluster.put(0, put(&"k".repeat(1024), "1234", 5)).outcome, PutOutcome::Stored);
}

/// What was begun for a request is forgotten when it has ended, however it ended.
#[test]
pub(crate) fn nothing_is_left_of_a_write_that_has_ended() {
    let mut alone = Cluster::new(1, BucketProps { n: 1, durability: Durability::Os, ..BucketProps::default() });
    (1..50).for_each(|request| {
        assert_eq!(alone.put(0, put(&request.to_string(), "a", request)).outcome, PutOutcome::Stored)
    });
    let mut cut = three();
    cut.cut(0);
    (1..50).for_each(|request| assert_eq!(cut.refused(0, put("k", "a", request)), ErrorCode::Unavailable));
    let mut whole = three();
    (1..50).for_each(|request| {
        assert_eq!(whole.put(0, put(&(request % 30).to_string(), "a", request % 30)).outcome, PutOutcome::Stored)
    });
    for shard in [&alone.nodes[0].shard, &cut.nodes[0].shard, &whole.nodes[0].shard] {
        assert_eq!(shard.in_flight(), 0);
        let inside = format!("{shard:?}");
        assert!(
            inside.contains("writing: {}") && inside.contains("Ops { taken: 0,"),
            "a claim or a place is left behind"
        );
    }
}
