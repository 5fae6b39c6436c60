//! Catalogs are compared on every connect: both nodes learn what they lack, in messages that fit, and then agree.

use rejoin_core::control::{Catalog, CatalogEvent, Control, MAX_RECORDS};
use rejoin_proto::catalog::{PluginRecord, Record, RecordBody, RecordKey, Transcript};
use rejoin_proto::client::RecordKind;
use rejoin_proto::codec;
use rejoin_proto::peer::{PeerBody, PeerEnvelope};
use rejoin_proto::signing::{Provenance, SignerKey};
use rejoin_proto::{Hlc, NodeId, PluginDigest, ProfileId};

use crate::control::create;
use crate::support::catalog::Nodes;
use crate::support::{name, tenant};

#[test]
fn who_was_away_learns_on_connecting_both_ways() {
    let mut nodes = Nodes::new(2);
    nodes.change(0, 1, create("a", 10));
    nodes.change(1, 2, create("b", 10));
    assert!(nodes.answer(1).is_ok() && nodes.answer(2).is_ok(), "nobody is connected: nobody is waited for");
    assert!(!nodes.agree());
    nodes.connect(0, 1);
    assert!(nodes.agree());
    assert_eq!(nodes.all[0].list(RecordKind::Bucket, tenant()).len(), 2);
    nodes.cut(0, 1);
    let before = nodes.delivered;
    nodes.connect(0, 1);
    assert_eq!(nodes.delivered, before, "equal digests need no words");
}

/// A change that is made after a node's greeting was written and before it was read is in neither greeting nor
/// published.
#[test]
fn a_change_during_the_handshake_arrives() {
    let mut nodes = Nodes::new(2);
    let (of_0, of_1) = (nodes.all[0].digest(), nodes.all[1].digest());
    nodes.event(1, CatalogEvent::PeerUp(NodeId(0), of_0));
    nodes.change(0, 1, create("cart", 10));
    nodes.event(0, CatalogEvent::PeerUp(NodeId(1), of_1));
    nodes.deliver();
    assert!(nodes.agree());
    let mut nodes = Nodes::new(2);
    nodes.event(0, CatalogEvent::PeerUp(NodeId(1), of_1));
    nodes.change(1, 1, create("cart", 10));
    nodes.event(1, CatalogEvent::PeerUp(NodeId(0), of_0));
    nodes.deliver();
    assert!(nodes.agree());
}

/// What a control frame takes between nodes, bytes (`rejoin_wire::Limits::max_node_frame`).
const FRAME_BYTES: usize = 18 << 20;

/// A catalog that is full of the largest records there are.
fn largest_catalog() -> Catalog {
    let record = |at: usize| {
        let mut digest = [0xff; 32];
        digest[..8].copy_from_slice(&(at as u64).to_be_bytes());
        let plugin = Box::new(PluginRecord {
            name: name(&"n".repeat(64)),
            version: "v".repeat(64),
            bytes: u64::MAX,
            self_causal: true,
            validates: true,
            quarantined: Some("q".repeat(512)),
            unchecked: Some(name(&"u".repeat(64))),
            transcripts: vec![Transcript { profile: ProfileId(u64::MAX), cases: u16::MAX, hash: [0xff; 32] }; 4],
            provenance: Some(Box::new(Provenance {
                pushed_by: name(&"p".repeat(64)),
                pushed: Hlc(u64::MAX),
                signer: Some(SignerKey([0xff; 32])),
                builder: Some("b".repeat(256)),
            })),
        });
        let (key, body) = (RecordKey::Plugin(tenant(), PluginDigest(digest)), RecordBody::Plugin(plugin));
        Record { key, version: 1 << 48, stamp: Hlc(u64::MAX), body }
    };
    Catalog { records: (0..MAX_RECORDS).map(record).collect() }
}

#[test]
fn the_largest_catalog_travels_in_messages_that_fit_a_frame() {
    let mut nodes = Nodes::new(2);
    nodes.all[0] = Control::new(largest_catalog());
    assert!(codec::encode(&nodes.all[0].catalog()).len() > FRAME_BYTES, "or there is nothing to split");
    let (of_0, of_1) = (nodes.all[0].digest(), nodes.all[1].digest());
    nodes.event(0, CatalogEvent::PeerUp(NodeId(1), of_1));
    nodes.event(1, CatalogEvent::PeerUp(NodeId(0), of_0));
    let mut parts = 0;
    while let Some((from, to, body)) = nodes.wire.pop_front() {
        parts += usize::from(matches!(body, PeerBody::CatalogRecords { .. }));
        let under_way =
            nodes.wire.iter().filter(|(_, _, body)| matches!(body, PeerBody::CatalogRecords { .. })).count();
        assert_eq!(under_way, 0, "the next part is sent when this one is taken");
        let envelope = PeerEnvelope { layout: Default::default(), trace: 0, body };
        assert!(codec::encode(&envelope).len() <= FRAME_BYTES);
        nodes.event(to, CatalogEvent::Peer(NodeId(from as u64), envelope.body));
    }
    assert!(parts > 1 && nodes.agree());
}

/// What was not taken on the old connection is compared again on the next one, and the rest of it is not sent there
/// unasked.
#[test]
fn a_connection_that_is_lost_between_two_parts_is_taken_up_by_the_next_one() {
    let mut nodes = Nodes::new(2);
    nodes.all[0] = Control::new(largest_catalog());
    let (of_0, of_1) = (nodes.all[0].digest(), nodes.all[1].digest());
    nodes.event(0, CatalogEvent::PeerUp(NodeId(1), of_1));
    nodes.event(1, CatalogEvent::PeerUp(NodeId(0), of_0));
    let is_part = |body: &PeerBody| matches!(body, PeerBody::CatalogRecords { .. });
    while !nodes.wire.iter().any(|(_, _, body)| is_part(body)) {
        assert!(nodes.deliver_one(), "a part is to come");
    }
    nodes.deliver_one();
    let taken = nodes.wire.pop_back().expect("the first part was taken");
    nodes.wire.clear();
    nodes.cut(0, 1);
    nodes.event(0, CatalogEvent::Peer(NodeId(1), taken.2));
    assert!(nodes.wire.is_empty(), "nothing more on a connection that is gone");
    assert!(nodes.all[1].records().count() > 0 && !nodes.agree());
    nodes.connect(0, 1);
    assert!(nodes.agree());
}

#[test]
fn a_node_agrees_with_a_peer_only_when_it_has_everything_that_the_peer_had() {
    for equal_at_the_hello in [true, false] {
        let mut nodes = Nodes::connected(2);
        nodes.change(0, 1, create("a", 32));
        nodes.deliver();
        nodes.cut(0, 1);
        if !equal_at_the_hello {
            nodes.change(1, 2, create("b", 32));
        }
        let (of_0, of_1) = (nodes.all[0].digest(), nodes.all[1].digest());
        nodes.agreed.clear();
        nodes.event(0, CatalogEvent::PeerUp(NodeId(1), of_1));
        if equal_at_the_hello {
            // Node 1 learns of a change before it knows of node 0, so that node 0 is not told.
            nodes.change(1, 2, create("b", 32));
        }
        nodes.event(1, CatalogEvent::PeerUp(NodeId(0), of_0));
        let digest = nodes.all[1].digest();
        nodes.event(0, CatalogEvent::PeerReady(NodeId(1), digest));
        assert_eq!(nodes.agreed, [], "it lacks a bucket");
        nodes.deliver();
        assert_eq!(nodes.agreed, [(0, 1)], "equal at the hello: {equal_at_the_hello}");
        assert!(nodes.agree());
    }
}

#[test]
fn two_nodes_that_change_while_they_meet_still_agree() {
    let mut nodes = Nodes::new(2);
    let digest = nodes.all[0].digest();
    nodes.event(0, CatalogEvent::PeerUp(NodeId(1), digest));
    nodes.event(1, CatalogEvent::PeerUp(NodeId(0), digest));
    // Both know the other, and both publish.
    nodes.change(0, 1, create("a", 32));
    nodes.change(1, 2, create("b", 32));
    let (of_0, of_1) = (nodes.all[0].digest(), nodes.all[1].digest());
    nodes.event(0, CatalogEvent::PeerReady(NodeId(1), of_1));
    nodes.event(1, CatalogEvent::PeerReady(NodeId(0), of_0));
    nodes.deliver();
    nodes.agreed.sort_unstable();
    assert_eq!(nodes.agreed, [(0, 1), (1, 0)]);
    assert!(nodes.agree() && nodes.all[0].records().count() == 2);
}

#[test]
fn a_record_that_is_refused_is_not_reported_as_taken_and_nobody_waits_for_it() {
    let mut nodes = Nodes::connected(2);
    nodes.change(0, 1, create("good", 8));
    nodes.deliver();
    let good = nodes.answer(1).expect("made");
    // No honest catalog gets to that version.
    let bad = Record { key: RecordKey::Bucket(tenant(), name("bad")), version: 1 << 60, ..good.clone() };
    let mut taken = |number, records| {
        nodes.event(1, CatalogEvent::Peer(NodeId(0), PeerBody::CatalogRecords { number, records }));
        nodes.wire.drain(..).any(|(_, _, body)| body == PeerBody::CatalogTaken { number })
    };
    assert!(taken(7, vec![good.clone()]));
    assert!(!taken(8, vec![bad.clone()]), "its operator must see who lacks the change");
    assert!(taken(9, vec![good.clone(), bad.clone()]), "the next part of a catalog must follow");
    // A start compares catalogs: it must not wait for what it does not take.
    let mut nodes = Nodes::new(2);
    nodes.event(1, CatalogEvent::PeerUp(NodeId(0), 1));
    let (version, hash) = bad.rank();
    nodes.event(1, CatalogEvent::Peer(NodeId(0), PeerBody::CatalogSummary(vec![(bad.key.clone(), version, hash)])));
    nodes.event(1, CatalogEvent::PeerReady(NodeId(0), 1));
    assert!(nodes.agreed.is_empty());
    nodes.event(1, CatalogEvent::Peer(NodeId(0), PeerBody::CatalogRecords { number: 0, records: vec![bad] }));
    assert_eq!(nodes.agreed, [(1, 0)]);
}
