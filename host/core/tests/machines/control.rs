//! The catalog: changes race to one winner, are saved before they are answered, and reach every node.

use std::collections::BTreeSet;

use rejoin_core::control::{
    CHANGE_WAIT_US, Catalog, CatalogChange, CatalogEffect, CatalogEvent, Control, MAX_RECORDS, SAVE_AGAIN_US,
    TokenChange, Wait, plugin_record,
};
use rejoin_proto::access::{Grant, Scope};
use rejoin_proto::catalog::{Activation, BucketProps, Quorum, Record, RecordBody, RecordKey};
use rejoin_proto::client::RecordKind;
use rejoin_proto::peer::PeerBody;
use rejoin_proto::{ErrorCode, ErrorReply, Hlc, Name, NodeId, PluginDigest};

use crate::support::catalog::{LONG_US, Nodes};
use crate::support::{name, tenant};

fn nobody() -> Wait {
    Wait { all: BTreeSet::new(), until_us: 0 }
}

pub(crate) fn create(bucket: &str, siblings: u16) -> CatalogChange {
    CatalogChange::BucketCreate(tenant(), name(bucket), BucketProps { siblings, ..BucketProps::default() })
}

fn create_token(secret: u8) -> CatalogChange {
    let change = TokenChange::Create(Grant::of(Scope::ReadWrite), [secret; 32]);
    CatalogChange::Token(tenant(), name("app"), Scope::Operator, change)
}

fn revoke(token: &str) -> CatalogChange {
    CatalogChange::Token(tenant(), name(token), Scope::Operator, TokenChange::Revoke)
}

fn token_body() -> RecordBody {
    RecordBody::Token {
        grant: Grant::of(Scope::ReadWrite),
        secret_hash: [0; 32],
        before: None,
        revoked: false,
        barred: false,
    }
}

fn props(record: &Record) -> &BucketProps {
    match &record.body {
        RecordBody::Bucket { props, .. } => props,
        other => panic!("a bucket was expected, not {other:?}"),
    }
}

fn code(answer: Result<Record, ErrorReply>) -> ErrorCode {
    answer.expect_err("a refusal").code
}

#[test]
fn racing_creates_have_one_winner_on_every_node_in_every_order() {
    let mut winners = Vec::new();
    for backward in [false, true] {
        let mut nodes = Nodes::connected(3);
        let (one, two) = if backward { (2, 0) } else { (0, 2) };
        nodes.change(one, 1, create("cart", if backward { 20 } else { 10 }));
        nodes.change(two, 2, create("cart", if backward { 10 } else { 20 }));
        if backward {
            nodes.wire.make_contiguous().reverse();
        }
        nodes.deliver();
        assert!(nodes.agree());
        let answers = [nodes.answer(1), nodes.answer(2)];
        let lost: Vec<&ErrorReply> = answers.iter().filter_map(|answer| answer.as_ref().err()).collect();
        assert!(
            lost.len() == 1 && lost[0].code == ErrorCode::VersionConflict,
            "one of them hears that it has lost: {answers:?}"
        );
        assert!(lost[0].message.starts_with("lost the race"), "{}", lost[0].message);
        let record = nodes.all[1].get(&RecordKey::Bucket(tenant(), name("cart"))).expect("the bucket").clone();
        winners.push(props(&record).siblings);
    }
    assert_eq!(winners[0], winners[1], "the content decides, not the order");
}

#[test]
pub(crate) fn what_a_node_learns_reaches_those_that_the_changer_does_not() {
    let mut nodes = Nodes::new(4);
    // A line: 0 reaches 1 only, and 3 reaches 2 only.
    [(0, 1), (1, 2), (2, 3)].into_iter().for_each(|(a, b)| nodes.connect(a, b));
    nodes.change(0, 1, create("cart", 10));
    nodes.deliver();
    assert!(nodes.agree(), "a change goes down the line");
    // Also what is learnt at a connect.
    nodes.cut(1, 2);
    let one_more = |at: usize| {
        let props = BucketProps { siblings: 10, ..BucketProps::default() };
        CatalogChange::BucketCreate(tenant(), name(&format!("bucket-{at}")), props)
    };
    for at in 0..200 {
        nodes.change(0, 10 + at as u64, one_more(at));
        nodes.deliver();
    }
    let before = nodes.delivered;
    nodes.connect(1, 2);
    assert!(nodes.agree());
    assert!(nodes.delivered - before < 50, "in a few messages: {}", nodes.delivered - before);
}

#[test]
fn passing_on_ends_where_everybody_knows() {
    let mut nodes = Nodes::connected(6);
    nodes.change(0, 1, create("cart", 10));
    nodes.deliver();
    assert!(nodes.agree());
    // One to each of five, one back from each, and each of five to the four others.
    assert!(nodes.delivered <= 5 + 5 + 20 + 60, "{} messages", nodes.delivered);
}

/// Two administrators make one bucket on both sides of a split, with another n. What was written to each is read as it
/// was written.
#[test]
pub(crate) fn a_race_changes_no_buckets_n_and_keeps_the_one_that_loses_its_name() {
    let of = |n: u8| BucketProps { n, r: Quorum::Count(1), w: Quorum::Count(1), ..BucketProps::default() };
    let mut nodes = Nodes::new(3);
    for (at, n) in [(0, 1), (1, 3)] {
        nodes.change(at, at as u64, CatalogChange::BucketCreate(tenant(), name("b"), of(n)));
        let published = nodes.published(at as u64).expect("nobody is there to object");
        assert!(published.taken_by.is_empty(), "and the answer says that nobody has taken it");
    }
    let before = [nodes.bucket(0, "b"), nodes.bucket(1, "b")];
    assert_ne!(before[0].0, before[1].0, "they are two buckets");
    assert_eq!(before[0].0.place(), before[1].0.place(), "whose keys clients look for at the same nodes");
    // The third node hears of both before those two meet.
    for (a, b) in [(0, 2), (1, 2), (0, 1)] {
        nodes.connect(a, b);
    }
    assert!(nodes.agree());
    let winner = nodes.bucket(0, "b");
    let loser = if winner == before[0] { before[1] } else { before[0] };
    assert!(before.contains(&winner));
    let kept = format!("b.lost-{}", loser.0);
    assert_eq!(nodes.bucket(2, &kept), loser, "under its id and with its n");
    assert_eq!(nodes.all[0].list(RecordKind::Bucket, tenant()).len(), 2);
    assert!(
        nodes.overruled.iter().all(|(_, name)| name.as_ref().map(Name::as_str) == Some(&kept[..]))
            && !nodes.overruled.is_empty()
    );
    // It can be administered as any other.
    nodes.change(0, 9, CatalogChange::BucketSet(tenant(), name(&kept), 1, BucketProps { siblings: 7, ..of(loser.1) }));
    nodes.deliver();
    assert!(nodes.answer(9).is_ok() && nodes.agree());
}

#[test]
fn the_same_bucket_made_twice_at_once_is_one_bucket() {
    let mut nodes = Nodes::connected(2);
    let plugin = Activation {
        plugin: PluginDigest([5; 32]),
        self_causal: false,
        since: Hlc(0),
        replaces: false,
        validates: false,
    };
    nodes.change(
        0,
        1,
        CatalogChange::PluginAdd(
            tenant(),
            PluginDigest([5; 32]),
            plugin_record(name("cart"), "1".into(), 9, false, false),
        ),
    );
    nodes.deliver();
    nodes.answer(1).expect("known");
    let props = BucketProps { plugin: Some(plugin), ..BucketProps::default() };
    nodes.wall_ms = 2_000;
    nodes.change(0, 2, CatalogChange::BucketCreate(tenant(), name("cart"), props.clone()));
    nodes.wall_ms = 3_000;
    nodes.change(1, 3, CatalogChange::BucketCreate(tenant(), name("cart"), props));
    nodes.deliver();
    let (one, two) = (nodes.answer(2).expect("made"), nodes.answer(3).expect("made"));
    assert!(nodes.agree() && one == two && nodes.overruled.is_empty(), "{one:?} {two:?}");
}

/// A loser is told also where the winner's own message has not come: by whoever knows it.
#[test]
fn who_takes_a_record_that_has_lost_says_so_before_it_says_that_it_was_taken() {
    for swapped in [false, true] {
        let mut nodes = Nodes::connected(3);
        let (one, two) = if swapped { (20, 10) } else { (10, 20) };
        nodes.change(0, 1, create("cart", one));
        nodes.change(2, 2, create("cart", two));
        // Nodes 0 and 2 do not hear each other; node 1 hears both.
        nodes.wire.retain(|(from, to, _)| *from == 1 || *to == 1);
        while nodes.deliver_one() {
            nodes.wire.retain(|(from, to, _)| *from == 1 || *to == 1);
        }
        nodes.now_us = CHANGE_WAIT_US;
        nodes.event(0, CatalogEvent::Tick);
        nodes.event(2, CatalogEvent::Tick);
        let answers = [nodes.published(1), nodes.published(2)];
        assert_eq!(answers.iter().filter(|answer| answer.is_err()).count(), 1, "{answers:?}");
        let won = answers.into_iter().find_map(Result::ok).expect("one has won");
        assert_eq!(won.taken_by, [NodeId(1)].into(), "the answer tells who has it");
    }
}

#[test]
fn changes_of_one_bucket_that_race_have_one_winner_and_one_who_hears_of_it() {
    let mut nodes = Nodes::connected(2);
    nodes.change(0, 1, create("cart", 10));
    nodes.deliver();
    let set = |siblings| {
        CatalogChange::BucketSet(tenant(), name("cart"), 1, BucketProps { siblings, ..BucketProps::default() })
    };
    nodes.change(0, 2, set(20));
    nodes.change(1, 3, set(30));
    nodes.deliver();
    let answers = [nodes.answer(2), nodes.answer(3)];
    assert!(nodes.agree() && nodes.overruled.is_empty(), "it is one bucket all the same");
    assert_eq!(
        answers
            .iter()
            .filter(|answer| matches!(answer, Err(error) if error.code == ErrorCode::VersionConflict))
            .count(),
        1
    );
}

#[test]
fn a_token_or_plugin_that_loses_a_race_is_refused_loudly() {
    let token = create_token;
    let push = |text| {
        CatalogChange::PluginAdd(tenant(), PluginDigest([5; 32]), plugin_record(name(text), "1".into(), 9, true, false))
    };
    for (one, two) in [(token(1), token(2)), (push("cart"), push("basket"))] {
        let mut nodes = Nodes::connected(2);
        nodes.change(0, 1, one);
        nodes.change(1, 2, two);
        nodes.deliver();
        let answers = [nodes.answer(1), nodes.answer(2)];
        assert!(nodes.agree());
        assert_eq!(answers.iter().filter(|answer| answer.is_err()).count(), 1, "{answers:?}");
    }
}

/// Making a token on one side of a split, and making and withdrawing one of its name on the other: what is withdrawn
/// stays so.
#[test]
fn a_withdrawal_outlives_a_race_with_a_token_of_its_name() {
    let mut nodes = Nodes::new(2);
    let token = create_token;
    nodes.change(0, 1, token(1));
    nodes.change(1, 2, token(2));
    nodes.change(1, 3, revoke("app"));
    nodes.connect(0, 1);
    let known = nodes.all[0].get(&RecordKey::Token(tenant(), name("app"))).expect("the token").clone();
    assert!(nodes.agree() && matches!(known.body, RecordBody::Token { revoked: true, .. }));
    // Withdrawing what is withdrawn changes nothing, so that it cannot race with who makes it anew.
    nodes.change(0, 4, revoke("app"));
    nodes.deliver();
    assert_eq!(nodes.published(4).expect("withdrawn").record, known);
}

#[test]
fn an_answer_names_those_who_have_a_change_and_no_others() {
    let mut nodes = Nodes::connected(3);
    nodes.cut(0, 2);
    nodes.change(0, 1, create("cart", 10));
    nodes.deliver();
    assert_eq!(nodes.published(1).expect("made").taken_by, [NodeId(1)].into());
    nodes.change(0, 2, create("other", 10));
    nodes.cut(0, 1);
    assert!(nodes.published(2).expect("made").taken_by.is_empty(), "it was lost on the way, for all that is known");
}

#[test]
fn a_change_is_compare_and_set() {
    let mut nodes = Nodes::connected(2);
    nodes.change(0, 1, create("cart", 10));
    nodes.deliver();
    assert_eq!(nodes.answer(1).expect("made").version, 1);
    nodes.change(1, 2, create("cart", 11));
    assert_eq!(code(nodes.answer(2)), ErrorCode::Exists);
    let set = |version, siblings| {
        CatalogChange::BucketSet(tenant(), name("cart"), version, BucketProps { siblings, ..BucketProps::default() })
    };
    nodes.change(1, 3, set(1, 20));
    nodes.deliver();
    assert_eq!(nodes.answer(3).expect("set").version, 2);
    nodes.change(0, 4, set(1, 30));
    assert_eq!(code(nodes.answer(4)), ErrorCode::VersionConflict);
    nodes.change(0, 5, set(2, 1));
    assert_eq!(code(nodes.answer(5)), ErrorCode::BadRequest);
    nodes.change(
        0,
        6,
        CatalogChange::BucketSet(
            tenant(),
            name("cart"),
            2,
            BucketProps { n: 5, sloppy: false, r: Quorum::Count(4), ..BucketProps::default() },
        ),
    );
    nodes.deliver();
    let Ok(Record { version: 3, body: RecordBody::Bucket { props, .. }, .. }) = nodes.answer(6) else {
        panic!("a quorum of the copies that it has now is taken")
    };
    assert_eq!((props.n, props.sloppy, props.r), (3, true, Quorum::Count(4)), "its copies are changed in the ring");
    nodes.change(0, 7, CatalogChange::BucketSet(tenant(), name("none"), 1, BucketProps::default()));
    assert_eq!(code(nodes.answer(7)), ErrorCode::NotFound);
    assert!(nodes.agree());
}

#[test]
fn a_change_is_answered_when_connected_peers_have_it_or_after_two_seconds() {
    let mut nodes = Nodes::connected(3);
    nodes.change(0, 1, create("a", 10));
    assert!(nodes.answers.is_empty(), "not before they have it");
    assert_eq!(nodes.all[0].next_wake_us(), Some(CHANGE_WAIT_US));
    nodes.deliver();
    assert!(nodes.answer(1).is_ok());
    assert_eq!(nodes.all[0].next_wake_us(), None);

    nodes.change(0, 2, create("b", 10));
    nodes.wire.clear();
    nodes.now_us = CHANGE_WAIT_US - 1;
    nodes.event(0, CatalogEvent::Tick);
    assert!(nodes.answers.is_empty());
    nodes.now_us = CHANGE_WAIT_US;
    nodes.event(0, CatalogEvent::Tick);
    assert!(nodes.answer(2).is_ok());

    nodes.change(0, 3, create("c", 10));
    nodes.wire.clear();
    nodes.cut(0, 1);
    assert!(nodes.answers.is_empty());
    nodes.cut(0, 2);
    assert!(nodes.answer(3).is_ok(), "nobody is left to wait for");
}

#[test]
fn a_plugin_is_known_before_a_bucket_takes_it_and_its_card_is_what_counts() {
    let mut nodes = Nodes::connected(2);
    let wanted = Activation {
        plugin: PluginDigest([5; 32]),
        self_causal: false,
        since: Hlc(0),
        replaces: true,
        validates: false,
    };
    let with = BucketProps { plugin: Some(wanted), ..BucketProps::default() };
    nodes.change(0, 1, CatalogChange::BucketCreate(tenant(), name("cart"), with.clone()));
    assert_eq!(code(nodes.answer(1)), ErrorCode::NotFound);
    nodes.change(
        0,
        2,
        CatalogChange::PluginAdd(
            tenant(),
            PluginDigest([5; 32]),
            plugin_record(name("cart"), "1".into(), 9, true, true),
        ),
    );
    nodes.change(
        0,
        3,
        CatalogChange::PluginAdd(
            tenant(),
            PluginDigest([6; 32]),
            plugin_record(name("cart"), "2".into(), 9, false, false),
        ),
    );
    nodes.deliver();
    nodes.change(1, 4, CatalogChange::BucketCreate(tenant(), name("cart"), with.clone()));
    nodes.deliver();
    let active = |record: &Record| props(record).plugin.expect("a plugin");
    let first = active(&nodes.answer(4).expect("made"));
    assert!(
        first.self_causal && first.validates && !first.replaces && first.since == Hlc::from_ms(1000),
        "as the card and the clock say: {first:?}"
    );
    let other =
        BucketProps { plugin: Some(Activation { plugin: PluginDigest([6; 32]), ..wanted }), ..BucketProps::default() };
    nodes.change(1, 5, CatalogChange::BucketSet(tenant(), name("cart"), 1, other));
    nodes.deliver();
    let second = active(&nodes.answer(5).expect("set"));
    assert!(!second.self_causal && !second.validates && second.replaces);
}

#[test]
fn a_withdrawn_token_can_be_made_again_and_a_live_one_cannot() {
    let mut nodes = Nodes::connected(2);
    let make = || create_token(1);
    nodes.change(0, 1, make());
    nodes.deliver();
    nodes.change(1, 2, make());
    assert_eq!(code(nodes.answer(2)), ErrorCode::Exists);
    nodes.change(1, 3, revoke("app"));
    nodes.deliver();
    assert!(matches!(nodes.answer(3).expect("withdrawn").body, RecordBody::Token { revoked: true, .. }));
    nodes.change(0, 4, make());
    nodes.deliver();
    assert_eq!(nodes.answer(4).expect("made again").version, 3);
    assert!(nodes.agree());
}

/// While one node has the old r and w, and another one the new ones, a read need not meet a write: the operator is not
/// told that it is done before every node has the record, also one that was away.
#[test]
pub(crate) fn a_change_of_quorums_waits_for_nodes_that_are_away() {
    let mut nodes = Nodes::connected(3);
    nodes.change(0, 1, create("cart", 10));
    nodes.deliver();
    nodes.answer(1).expect("made");
    (0..2).for_each(|other| nodes.cut(2, other));
    let props = |w: u8| BucketProps { siblings: 10, w: Quorum::Count(w), ..BucketProps::default() };
    let old = match &nodes.all[0].get(&RecordKey::Bucket(tenant(), name("cart"))).expect("a bucket").body {
        RecordBody::Bucket { props, .. } => props.clone(),
        other => panic!("a bucket was expected, not {other:?}"),
    };
    let set = |version, w| {
        CatalogChange::BucketSet(tenant(), name("cart"), version, BucketProps { w: props(w).w, ..old.clone() })
    };
    nodes.change(0, 2, set(1, 3));
    nodes.deliver();
    nodes.now_us += CHANGE_WAIT_US;
    nodes.event(0, CatalogEvent::Tick);
    assert!(nodes.answers.is_empty(), "one node has not taken it");
    nodes.connect(2, 0);
    assert_eq!(nodes.published(2).expect("changed").taken_by.len(), 2);
    // It does not wait for ever; the answer says who is behind.
    nodes.cut(2, 0);
    nodes.change(0, 3, set(2, 1));
    nodes.deliver();
    nodes.now_us += LONG_US;
    nodes.event(0, CatalogEvent::Tick);
    assert_eq!(nodes.published(3).expect("changed").taken_by, BTreeSet::from([NodeId(1)]));
    // What moves no quorum does not wait for a node that is away.
    let more = BucketProps { siblings: 77, w: props(1).w, ..old.clone() };
    nodes.change(0, 4, CatalogChange::BucketSet(tenant(), name("cart"), 3, more));
    nodes.deliver();
    assert_eq!(nodes.published(4).expect("changed").taken_by, BTreeSet::from([NodeId(1)]));
}

#[test]
pub(crate) fn a_change_that_cannot_be_saved_is_refused_and_undone() {
    let mut nodes = Nodes::connected(2);
    nodes.change(0, 1, create("cart", 10));
    nodes.deliver();
    let before = (nodes.all[0].catalog(), nodes.all[0].digest());
    nodes.full.insert(0);
    nodes.change(0, 2, create("session", 10));
    assert_eq!(code(nodes.answer(2)), ErrorCode::DiskFull);
    let set =
        CatalogChange::BucketSet(tenant(), name("cart"), 1, BucketProps { siblings: 99, ..BucketProps::default() });
    nodes.change(0, 3, set.clone());
    assert_eq!(code(nodes.answer(3)), ErrorCode::DiskFull);
    nodes.deliver();
    assert_eq!((nodes.all[0].catalog(), nodes.all[0].digest()), before, "neither is there");
    assert!(nodes.agree(), "and nobody has heard of them");
    // Nothing has to be done for it once there is room.
    nodes.full.clear();
    nodes.change(0, 4, set);
    nodes.deliver();
    assert_eq!(nodes.answer(4).expect("changed").version, 2);
    assert!(nodes.agree());
}

/// A node with a full disk hears that a token was withdrawn: it must not take the token any more, and must not say that
/// it has the record.
#[test]
pub(crate) fn records_that_cannot_be_saved_hold_at_once_and_are_taken_when_they_are_saved() {
    let mut nodes = Nodes::connected(3);
    nodes.change(0, 1, create_token(1));
    nodes.deliver();
    let before = nodes.kept[2].clone();
    nodes.full.insert(2);
    nodes.change(0, 2, revoke("app"));
    nodes.deliver();
    assert!(nodes.agree(), "it holds on every node");
    assert_eq!(nodes.kept[2], before, "and one would forget it");
    assert!(nodes.answers.iter().all(|(call, _)| *call != 2), "so the change is not answered yet");
    nodes.now_us += SAVE_AGAIN_US;
    nodes.event(2, CatalogEvent::Tick);
    nodes.deliver();
    assert!(nodes.answers.iter().all(|(call, _)| *call != 2), "the disk is still full");
    nodes.full.clear();
    nodes.now_us += SAVE_AGAIN_US / 2;
    nodes.event(2, CatalogEvent::Tick);
    assert_eq!(nodes.kept[2], before, "not before its time");
    nodes.now_us += SAVE_AGAIN_US / 4 * 3;
    assert!(nodes.all[2].next_wake_us().is_some_and(|at| at <= nodes.now_us));
    nodes.event(2, CatalogEvent::Tick);
    nodes.deliver();
    assert_eq!(nodes.kept[2], nodes.all[0].catalog());
    assert_eq!(nodes.published(2).expect("withdrawn").taken_by.len(), 2);
    assert_eq!(nodes.all[2].next_wake_us(), None, "nothing is left to be saved");
}

#[test]
pub(crate) fn a_change_is_answered_without_a_node_that_cannot_save_it() {
    let mut nodes = Nodes::connected(3);
    nodes.full.insert(2);
    nodes.change(0, 1, create("cart", 10));
    nodes.deliver();
    nodes.now_us += CHANGE_WAIT_US;
    nodes.event(0, CatalogEvent::Tick);
    assert_eq!(nodes.published(1).expect("made").taken_by, BTreeSet::from([NodeId(1)]));
    // A change of another node that finds it just as full is not taken either, although it has that record already.
    nodes.change(1, 2, CatalogChange::BucketSet(tenant(), name("cart"), 1, BucketProps::default()));
    nodes.deliver();
    nodes.full.clear();
    nodes.now_us += SAVE_AGAIN_US;
    nodes.event(2, CatalogEvent::Tick);
    nodes.deliver();
    assert_eq!(nodes.published(2).expect("changed").taken_by.len(), 2);
    assert!(nodes.agree());
}

#[test]
fn a_full_catalog_takes_nothing_new_and_still_withdraws_a_token() {
    let mut kept = Catalog::default();
    for at in 0..MAX_RECORDS {
        let body = token_body();
        kept.records.push(Record {
            key: RecordKey::Token(tenant(), name(&format!("t{at}"))),
            version: 1,
            stamp: Hlc(1),
            body,
        });
    }
    let mut control = Control::new(kept);
    let mut effects = Vec::new();
    control.handle(0, 1000, CatalogEvent::Change(1, create("cart", 10), nobody()), &mut effects);
    assert!(matches!(&effects[..], [CatalogEffect::Answer(1, Err(error))] if error.code == ErrorCode::TooLarge));
    effects.clear();
    control.handle(0, 1000, CatalogEvent::Change(2, revoke("t7"), nobody()), &mut effects);
    control.handle(0, 1000, CatalogEvent::Saved(Ok(())), &mut effects);
    assert!(matches!(effects.last(), Some(CatalogEffect::Answer(2, Ok(_)))), "{effects:?}");
}

#[test]
fn a_quarantine_reaches_every_node_and_ends_with_its_release() {
    let mut nodes = Nodes::connected(3);
    let digest = PluginDigest([5; 32]);
    nodes.change(
        0,
        1,
        CatalogChange::PluginAdd(tenant(), digest, plugin_record(name("cart"), "1".into(), 9, false, false)),
    );
    nodes.deliver();
    let why = |nodes: &Nodes| -> Vec<Option<String>> {
        let of = |control: &Control| match &control.get(&RecordKey::Plugin(tenant(), digest)).expect("a plugin").body {
            RecordBody::Plugin(plugin) => plugin.quarantined.clone(),
            other => panic!("{other:?}"),
        };
        nodes.all.iter().map(of).collect()
    };
    nodes.change(1, 2, CatalogChange::PluginQuarantine(tenant(), digest, "ä".repeat(400)));
    nodes.deliver();
    let reason = Some("ä".repeat(256));
    assert_eq!(why(&nodes), [reason.clone(), reason.clone(), reason.clone()], "as much as a record takes");
    // Who finds the same later changes nothing, and neither does a push of the same component.
    nodes.change(2, 3, CatalogChange::PluginQuarantine(tenant(), digest, "another reason".into()));
    nodes.change(
        2,
        4,
        CatalogChange::PluginAdd(tenant(), digest, plugin_record(name("cart"), "1".into(), 9, false, false)),
    );
    nodes.deliver();
    assert_eq!(why(&nodes), [reason.clone(), reason.clone(), reason]);
    let (since, plugin) = (Hlc::default(), digest);
    let activation = Activation { plugin, self_causal: false, since, replaces: false, validates: false };
    let props = BucketProps { plugin: Some(activation), ..BucketProps::default() };
    nodes.change(0, 5, CatalogChange::BucketCreate(tenant(), name("b"), props.clone()));
    let refused = nodes.answer(5).unwrap_err();
    assert!(refused.message.contains("is quarantined"), "{refused}");
    nodes.change(0, 6, CatalogChange::PluginRelease(tenant(), digest));
    nodes.deliver();
    assert_eq!(why(&nodes), [None, None, None]);
    nodes.change(0, 7, CatalogChange::PluginRelease(tenant(), digest));
    nodes.change(0, 8, CatalogChange::BucketCreate(tenant(), name("b"), props));
    nodes.change(0, 9, CatalogChange::PluginRelease(tenant(), PluginDigest([6; 32])));
    nodes.deliver();
    assert_eq!((nodes.answer(6).unwrap().version, nodes.answer(7).unwrap().version), (3, 3), "nothing is left to end");
    assert!(nodes.answer(8).is_ok());
    assert_eq!(nodes.answer(9).unwrap_err().code, ErrorCode::NotFound);
}

#[test]
fn what_is_kept_comes_back_and_unsound_records_are_not_taken() {
    let mut nodes = Nodes::connected(2);
    nodes.change(0, 1, create("cart", 10));
    nodes.deliver();
    let again = Control::new(nodes.all[0].catalog());
    assert_eq!(again.digest(), nodes.all[1].digest());
    let key = RecordKey::Bucket(tenant(), name("bad"));
    let bad = |body| Record { key: key.clone(), version: 9, stamp: Hlc(1), body };
    let out_of_bounds = RecordBody::Bucket {
        id: crate::support::object_id("").bucket,
        props: BucketProps { n: 9, ..BucketProps::default() },
        past: Default::default(),
    };
    let token = |version| {
        let body = token_body();
        Record { key: RecordKey::Token(tenant(), name("t")), version, stamp: Hlc(1), body }
    };
    let records = vec![
        bad(out_of_bounds),
        bad(RecordBody::Tenant { name: name("x") }),
        token(0),
        token(u64::MAX),
        token((1 << 48) + 1),
    ];
    nodes.event(0, CatalogEvent::Peer(NodeId(1), PeerBody::CatalogRecords { number: 0, records }));
    assert_eq!(nodes.all[0].digest(), nodes.all[1].digest());
    // The last version is taken, and then cannot be changed any more.
    nodes
        .event(0, CatalogEvent::Peer(NodeId(1), PeerBody::CatalogRecords { number: 0, records: vec![token(1 << 48)] }));
    nodes.change(0, 2, revoke("t"));
    assert_eq!(code(nodes.answer(2)), ErrorCode::TooLarge);
}
