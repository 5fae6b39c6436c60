//! Values that are validated before they are written.

use rejoin_core::shard::event::{Event, PluginError};
use rejoin_proto::catalog::{Activation, BucketProps};
use rejoin_proto::client::{Basis, Put, PutOutcome, StartId};
use rejoin_proto::fault::{MergeFault, Refusal};
use rejoin_proto::peer::PeerBody;
use rejoin_proto::{ErrorCode, Hlc, Object, PluginDigest};

use crate::support::cluster::Cluster;
use crate::support::{WALL_MS, delete, get, put, with};

/// A bucket whose plugin has a validator.
fn validated() -> BucketProps {
    let activation = Activation {
        plugin: PluginDigest([1; 32]),
        self_causal: true,
        since: Hlc::from_ms(WALL_MS),
        replaces: false,
        validates: true,
    };
    BucketProps { plugin: Some(activation), ..BucketProps::default() }
}

/// A cluster whose validations the test answers.
fn by_hand() -> Cluster {
    let mut cluster = Cluster::new(3, validated());
    cluster.validator = None;
    cluster
}

fn refused() -> Result<(), PluginError> {
    Err(MergeFault::Refused(Refusal::Malformed).into())
}

/// Answers the validation that was asked for first.
fn answer(cluster: &mut Cluster, result: Result<(), PluginError>) {
    let (node, ticket, _) = cluster.validations.pop_front().expect("a validation was asked for");
    cluster.event(node, Event::Validated(ticket, result));
    cluster.deliver();
}

fn nothing_is_written(cluster: &Cluster, key: &str) {
    for node in 0..cluster.nodes.len() {
        assert_eq!(cluster.stored(node, key), Object::default(), "node {node}");
        assert_eq!(cluster.actor_of(node, key), None, "no dot was minted");
    }
}

#[test]
pub(crate) fn a_value_that_the_plugin_refuses_is_not_written() {
    let mut cluster = Cluster::new(3, validated());
    for node in 0..3 {
        let create = Put { basis: Basis::Create, ..put("k", "bad!", 10 + node as u128) };
        for write in [put("k", "bad!", node as u128), create] {
            let number = cluster.ask_put(node, write);
            cluster.deliver();
            let error = cluster.error(number);
            assert_eq!(error.code, ErrorCode::InvalidValue);
            assert!(
                error
                    .message
                    .contains("does not take the value: the plugin refused: a value is malformed; nothing was written"),
                "{error}"
            );
        }
    }
    nothing_is_written(&cluster, "k");
    assert_eq!((0..3).map(|node| cluster.nodes[node].shard.counters().values_refused).sum::<u64>(), 6);
    // The key is as good as new, also for what stands beside a refused value's key.
    assert_eq!(cluster.put(0, put("k", "good", 20)).outcome, PutOutcome::Stored);
    assert_eq!(cluster.put(1, put("k", "fine", 21)).outcome, PutOutcome::Stored);
    assert_eq!(cluster.refused(2, put("k", "bad!", 22)), ErrorCode::InvalidValue);
    assert_eq!(cluster.get(2, get("k")).value.as_deref(), Some(&b"fine,good"[..]));
}

#[test]
fn a_forwarded_write_is_validated_by_the_owner_that_coordinates_it() {
    let mut cluster = Cluster::new(5, validated());
    let owners: Vec<usize> = cluster.owners("k").into_iter().take(3).collect();
    let stranger = (0..5).find(|node| !owners.contains(node)).expect("two nodes own nothing of it");
    cluster.validator = None;
    let number = cluster.ask_put(stranger, put("k", "bad!", 1));
    assert!(cluster.validations.is_empty(), "the forwarding node does not judge");
    cluster.deliver();
    assert!(owners.contains(&cluster.validations[0].0));
    answer(&mut cluster, refused());
    assert_eq!(cluster.error(number).code, ErrorCode::InvalidValue);
    nothing_is_written(&cluster, "k");
}

#[test]
fn what_the_plugin_could_not_judge_may_be_tried_again() {
    let mut cluster = by_hand();
    let write = put("k", "good", 1);
    let number = cluster.ask_put(0, write.clone());
    answer(&mut cluster, Err(PluginError::Missing(PluginDigest([5; 32]))));
    let error = cluster.error(number);
    assert!(error.code == ErrorCode::Overloaded && error.code.is_retryable() && error.retry_after_ms > 0, "{error:?}");
    assert!(error.message.contains("yet; it is being fetched from the others; nothing was written"), "{error}");
    nothing_is_written(&cluster, "k");
    let number = cluster.ask_put(0, write);
    answer(&mut cluster, Ok(()));
    assert_eq!(cluster.put_reply(number).outcome, PutOutcome::Stored);
}

#[test]
fn a_validation_that_takes_too_long_ends_with_its_request() {
    let mut cluster = by_hand();
    let number = cluster.ask_put(0, put("k", "good", 1));
    cluster.pass(2000);
    assert_eq!(cluster.error(number).code, ErrorCode::TimedOut);
    assert_eq!(cluster.nodes[0].shard.in_flight(), 0);
    answer(&mut cluster, Ok(()));
    nothing_is_written(&cluster, "k");
}

#[test]
fn retries_meet_the_validation_that_goes_on_and_an_answer_counts_once() {
    let mut cluster = by_hand();
    let write = put("k", "good", 1);
    let first = cluster.ask_put(0, write.clone());
    let retry = Put { attempt: 1, start: StartId(cluster.nodes[0].shard.start()), ..write.clone() };
    let second = cluster.ask_put(0, retry.clone());
    assert_eq!(cluster.validations.len(), 1, "one write is validated once");
    let (node, ticket, _) = cluster.validations[0].clone();
    answer(&mut cluster, Ok(()));
    cluster.event(node, Event::Validated(ticket, refused()));
    for number in [first, second] {
        assert_eq!(cluster.put_reply(number).outcome, PutOutcome::Stored);
    }
    // What was done is not judged again.
    assert_eq!(cluster.put(0, retry).outcome, PutOutcome::Stored);
    assert!(cluster.validations.is_empty() && cluster.stored(0, "k").entries.len() == 1);
    // Of a refused write nothing is remembered: its id is free.
    let number = cluster.ask_put(0, put("j", "bad!", 2));
    answer(&mut cluster, refused());
    assert_eq!(cluster.error(number).code, ErrorCode::InvalidValue);
    let number = cluster.ask_put(0, put("j", "good", 2));
    answer(&mut cluster, Ok(()));
    assert_eq!(cluster.put_reply(number).outcome, PutOutcome::Stored);
}

#[test]
fn a_create_is_validated_before_it_looks_and_still_finds_what_is_there() {
    let mut cluster = by_hand();
    let create = |request| Put { basis: Basis::Create, ..put("k", "good", request) };
    let number = cluster.ask_put(0, create(1));
    assert!(!cluster.wire.iter().any(|(_, _, envelope)| matches!(envelope.body, PeerBody::Read { .. })));
    answer(&mut cluster, Ok(()));
    assert_eq!(cluster.put_reply(number).outcome, PutOutcome::Stored);
    let number = cluster.ask_put(0, create(2));
    answer(&mut cluster, Ok(()));
    assert_eq!(cluster.error(number).code, ErrorCode::Exists);
    assert_eq!(cluster.nodes[0].shard.in_flight(), 0);
}

#[test]
fn a_write_that_is_too_large_or_has_a_bad_context_and_a_delete_are_not_validated() {
    let mut cluster = Cluster::new(3, BucketProps { value_bytes: 10, ..validated() });
    cluster.put(0, put("k", "good", 1));
    let read = cluster.get(0, get("k"));
    cluster.validator = None;
    assert_eq!(cluster.refused(0, put("k", "much too large", 2)), ErrorCode::TooLarge);
    assert_eq!(cluster.refused(0, with(b"made up", put("k", "good", 3))), ErrorCode::BadContext);
    assert_eq!(cluster.put(0, with(&read.context, delete("k", 4))).outcome, PutOutcome::Stored);
    assert!(cluster.validations.is_empty());
}

#[test]
fn what_others_have_acknowledged_is_not_judged_again() {
    let mut cluster = Cluster::new(3, validated());
    // Written while the bucket had no validator.
    let plain = Activation { validates: false, ..validated().plugin.expect("a plugin") };
    cluster.records(&[crate::support::bucket(BucketProps { plugin: Some(plain), ..BucketProps::default() })]);
    let number = cluster.ask_put(0, put("k", "bad!", 1));
    cluster.deliver_without(2);
    assert_eq!(cluster.put_reply(number).outcome, PutOutcome::Stored);
    cluster.validator = None;
    cluster.records(&[crate::support::bucket(validated())]);
    cluster.deliver();
    assert_eq!(cluster.get(2, get("k")).value.as_deref(), Some(&b"bad!"[..]));
    assert!(cluster.agrees("k", &[0, 1, 2]) && cluster.validations.is_empty());
}
