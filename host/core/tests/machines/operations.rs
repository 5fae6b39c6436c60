//! Operations of plugins' data types, and questions to them.

use rejoin_core::shard::event::{Event, PluginError};
use rejoin_proto::catalog::{Activation, BucketProps};
use rejoin_proto::client::{Basis, Get, Put, PutOutcome, Show, StartId};
use rejoin_proto::fault::{MergeFault, Refusal};
use rejoin_proto::{Dot, ErrorCode, Hlc, Object, PluginDigest};

use crate::support::cluster::{Cluster, contexts};
use crate::support::merge::add_word;
use crate::support::{WALL_MS, delete, get, object_id, put, with};

fn with_plugin() -> BucketProps {
    let activation = Activation {
        plugin: PluginDigest([1; 32]),
        self_causal: false,
        since: Hlc::from_ms(WALL_MS),
        replaces: false,
        validates: false,
    };
    BucketProps { plugin: Some(activation), ..BucketProps::default() }
}

/// An operation: the plugin adds the word with the counter of its dot.
fn add(key: &str, word: &str, request: u128) -> Put {
    Put { basis: Basis::Operation, ..put(key, word, request) }
}

/// A cluster whose plugin the test plays for operations.
fn by_hand() -> Cluster {
    let mut cluster = Cluster::new(3, with_plugin());
    cluster.operator = None;
    cluster
}

/// Answers the operation that was asked for first, as the plugin would.
fn answer(cluster: &mut Cluster) {
    let (node, ticket, job) = cluster.operations.pop_front().expect("an operation was asked for");
    cluster.event(node, Event::Applied(ticket, add_word(&job)));
    cluster.deliver();
}

fn value(cluster: &mut Cluster, at: usize, key: &str) -> Option<String> {
    let reply = cluster.get(at, get(key));
    reply.value.map(|value| String::from_utf8_lossy(&value).into_owned())
}

#[test]
fn an_operation_makes_the_value_of_the_copy_with_the_dot_of_its_write() {
    let mut cluster = Cluster::new(3, with_plugin());
    cluster.put(0, put("k", "a", 1));
    cluster.put(1, put("k", "b", 2));
    let before = cluster.stored(0, "k");
    assert_eq!(before.entries.len(), 2);
    assert_eq!(cluster.put(0, add("k", "c", 3)).outcome, PutOutcome::Stored);
    let after = cluster.stored(0, "k");
    assert_eq!(after.entries.len(), 1, "it has replaced what it has seen");
    let dot = after.entries[0].dots.highest().next().expect("a dot");
    assert_eq!(Some(dot.actor), cluster.actor_of(0, "k").map(|row| row.actor));
    assert_eq!(value(&mut cluster, 2, "k"), Some(format!("a,b,c.{}", dot.counter)));
    assert!(cluster.agrees("k", &[0, 1, 2]));
    // A key without a value has no state.
    assert_eq!(cluster.put(2, add("j", "x", 4)).outcome, PutOutcome::Stored);
    assert_eq!(value(&mut cluster, 0, "j").as_deref(), Some("x.1"));
}

#[test]
fn a_refused_operation_writes_nothing_and_takes_no_dot_with_it() {
    let mut cluster = Cluster::new(3, with_plugin());
    let number = cluster.ask_put(0, add("k", "bad!", 1));
    cluster.deliver();
    let error = cluster.error(number);
    assert!(error.code == ErrorCode::InvalidValue && error.message.ends_with("nothing was written"), "{error}");
    assert!((0..3).all(|node| cluster.stored(node, "k") == Object::default()));
    // The next one is as good as any.
    assert_eq!(cluster.put(0, add("k", "good", 2)).outcome, PutOutcome::Stored);
    assert_eq!(cluster.nodes[0].shard.in_flight(), 0);
}

#[test]
fn what_the_plugin_cannot_do_now_may_be_tried_again_and_what_it_never_can_may_not() {
    let mut cluster = by_hand();
    let failures = [
        (PluginError::Missing(PluginDigest([5; 32])), ErrorCode::Overloaded),
        (MergeFault::NotExported { interface: "operator" }.into(), ErrorCode::InvalidValue),
        (MergeFault::Refused(Refusal::Unsupported).into(), ErrorCode::InvalidValue),
    ];
    for (request, (failure, code)) in (1..).zip(failures) {
        let number = cluster.ask_put(0, add("k", "a", request));
        let (node, ticket, _) = cluster.operations.pop_front().expect("an operation was asked for");
        cluster.event(node, Event::Applied(ticket, Err(failure)));
        let error = cluster.error(number);
        assert_eq!((error.code, error.retry_after_ms > 0), (code, code == ErrorCode::Overloaded), "{error}");
    }
    let mut plain = Cluster::new(3, BucketProps::default());
    let number = plain.ask_put(0, add("k", "a", 1));
    let error = plain.error(number);
    assert!(error.code == ErrorCode::BadRequest && error.message.contains("has no plugin"), "{error}");
    let removal = Put { basis: Basis::Operation, ..delete("k", 2) };
    assert_eq!(plain.refused(0, removal), ErrorCode::BadRequest);
}

#[test]
pub(crate) fn operations_on_one_key_run_one_after_the_other_and_each_sees_those_before() {
    let mut cluster = by_hand();
    let numbers = [1, 2, 3].map(|request| cluster.ask_put(0, add("k", &format!("w{request}"), request)));
    let elsewhere = cluster.ask_put(0, add("j", "other", 4));
    let keys: Vec<_> = cluster.operations.iter().map(|(_, _, job)| job.key.clone()).collect();
    assert_eq!(keys, ["k", "j"], "one of a key at a time, and other keys do not wait");
    while !cluster.operations.is_empty() {
        answer(&mut cluster);
    }
    for number in numbers.into_iter().chain([elsewhere]) {
        assert_eq!(cluster.put_reply(number).outcome, PutOutcome::Stored);
    }
    let words = value(&mut cluster, 1, "k").expect("three words");
    assert_eq!(words.split(',').map(|word| &word[..2]).collect::<Vec<_>>(), ["w1", "w2", "w3"]);
    assert_eq!(cluster.nodes[0].shard.in_flight(), 0);
}

#[test]
pub(crate) fn an_operation_runs_again_with_its_dot_when_the_copy_has_changed() {
    let mut cluster = by_hand();
    let number = cluster.ask_put(0, add("k", "mine", 1));
    let dot = cluster.operations[0].2.dot;
    // Another node's write comes in while the plugin runs.
    cluster.put(1, put("k", "theirs", 2));
    let (node, ticket, job) = cluster.operations.pop_front().expect("the first run");
    assert!(job.siblings.is_empty());
    cluster.event(node, Event::Applied(ticket, add_word(&job)));
    let again = cluster.operations.front().expect("a second run").2.clone();
    assert_eq!((again.dot, again.siblings.len()), (dot, 1));
    // The first answer comes once more, and does not count.
    cluster.event(node, Event::Applied(ticket, add_word(&job)));
    answer(&mut cluster);
    assert_eq!(cluster.put_reply(number).outcome, PutOutcome::Stored);
    let words = format!("mine.{},theirs", dot.counter);
    assert_eq!(value(&mut cluster, 2, "k"), Some(words));
    assert_eq!(cluster.stored(0, "k").entries.len(), 1);
}

/// The put gets a later dot of the same actor, and its context covers the reserved one: with that the operation would
/// be acknowledged, and dropped by every owner as seen.
#[test]
pub(crate) fn an_operation_gets_a_new_dot_when_a_put_of_its_key_was_given_a_later_one() {
    let mut cluster = by_hand();
    let number = cluster.ask_put(0, add("k", "op", 1));
    let dot = cluster.operations[0].2.dot;
    assert_eq!(cluster.put(0, put("k", "put", 2)).outcome, PutOutcome::Stored);
    assert!(cluster.stored(0, "k").context.contains(dot), "as the put's context is of its actor");
    answer(&mut cluster);
    let again = cluster.operations[0].2.dot;
    assert!(again.actor == dot.actor && again.counter > dot.counter, "{again:?}");
    answer(&mut cluster);
    assert_eq!(cluster.put_reply(number).outcome, PutOutcome::Stored);
    assert_eq!(value(&mut cluster, 1, "k"), Some(format!("op.{},put", again.counter)));
}

#[test]
fn an_operation_gets_the_dot_of_a_new_actor_when_the_tenure_of_the_old_one_has_ended() {
    let mut cluster = by_hand();
    cluster.operator = Some(add_word);
    cluster.put(0, add("k", "first", 1));
    cluster.operator = None;
    let number = cluster.ask_put(0, add("k", "second", 2));
    let dot = cluster.operations[0].2.dot;
    // A context that has seen more of the actor than it has minted: the disk is an old one.
    let mut ahead = cluster.stored(0, "k").context;
    ahead.insert(Dot { counter: dot.counter + 9, ..dot });
    let context = contexts().seal(&object_id("k"), &ahead);
    cluster.put(0, with(&context, put("k", "clone", 3)));
    answer(&mut cluster);
    let again = cluster.operations[0].2.dot;
    assert_ne!(again.actor, dot.actor);
    answer(&mut cluster);
    assert_eq!(cluster.put_reply(number).outcome, PutOutcome::Stored);
}

#[test]
fn an_operation_that_takes_too_long_ends_with_its_request_and_the_next_one_has_its_turn() {
    let mut cluster = by_hand();
    let slow = cluster.ask_put(0, add("k", "slow", 1));
    cluster.pass(600);
    let next = cluster.ask_put(0, add("k", "next", 2));
    let (node, ticket, job) = cluster.operations.pop_front().expect("the slow one runs");
    cluster.pass(500);
    assert_eq!(cluster.error(slow).code, ErrorCode::TimedOut);
    // Its answer comes too late.
    cluster.event(node, Event::Applied(ticket, add_word(&job)));
    answer(&mut cluster);
    assert_eq!(cluster.put_reply(next).outcome, PutOutcome::Stored);
    let words = value(&mut cluster, 1, "k").expect("one word");
    assert!(words.starts_with("next.") && !words.contains("slow"), "{words}");
    assert_eq!(cluster.nodes[0].shard.in_flight(), 0);
}

#[test]
fn retries_of_an_operation_do_not_apply_it_twice() {
    let mut cluster = by_hand();
    let write = add("k", "once", 1);
    let first = cluster.ask_put(0, write.clone());
    let retry = Put { attempt: 1, start: StartId(cluster.nodes[0].shard.start()), ..write };
    let second = cluster.ask_put(0, retry.clone());
    assert_eq!(cluster.operations.len(), 1, "the retry waits for the first attempt");
    answer(&mut cluster);
    for number in [first, second] {
        assert_eq!(cluster.put_reply(number).outcome, PutOutcome::Stored);
    }
    assert_eq!(cluster.put(0, retry).outcome, PutOutcome::Stored);
    assert!(cluster.operations.is_empty());
    assert_eq!(value(&mut cluster, 2, "k").as_deref(), Some("once.1"));
}

#[test]
fn the_line_of_a_key_is_bounded() {
    let mut cluster = by_hand();
    let waiting: Vec<u64> = (0..64).map(|request| cluster.ask_put(0, add("k", "w", request))).collect();
    let number = cluster.ask_put(0, add("k", "w", 100));
    let error = cluster.error(number);
    assert!(error.code == ErrorCode::Overloaded && error.message.contains("64 operations"), "{error}");
    while !cluster.operations.is_empty() {
        answer(&mut cluster);
    }
    assert!(waiting.into_iter().all(|number| cluster.put_reply(number).outcome == PutOutcome::Stored));
}

#[test]
fn an_operation_on_a_key_that_never_rests_is_refused_in_the_end() {
    let mut cluster = by_hand();
    let number = cluster.ask_put(0, add("k", "mine", 1));
    for request in 10..18 {
        cluster.put(1, put("k", &format!("w{request}"), request));
        answer(&mut cluster);
    }
    let error = cluster.error(number);
    assert!(error.code == ErrorCode::Overloaded && error.message.contains("changes faster"), "{error}");
    assert!(cluster.operations.is_empty() && cluster.nodes[0].shard.in_flight() == 0);
}

#[test]
fn a_forwarded_operation_is_applied_by_an_owner() {
    let mut cluster = Cluster::new(5, with_plugin());
    let owners: Vec<usize> = cluster.owners("k").into_iter().take(3).collect();
    let stranger = (0..5).find(|node| !owners.contains(node)).expect("two nodes own nothing of it");
    cluster.operator = None;
    let number = cluster.ask_put(stranger, add("k", "a", 1));
    cluster.deliver();
    assert!(owners.contains(&cluster.operations[0].0));
    answer(&mut cluster);
    assert_eq!(cluster.put_reply(number).outcome, PutOutcome::Stored);
}

#[test]
fn a_question_is_answered_in_the_place_of_the_value() {
    let mut cluster = Cluster::new(3, with_plugin());
    cluster.put(0, put("k", "a", 1));
    cluster.put(1, put("k", "b", 2));
    let ask = |question: &'static str| Get { show: Show::Answer(question.into()), ..get("k") };
    for (question, answer) in [("b", "true"), ("c", "false")] {
        let reply = cluster.get(2, ask(question));
        assert_eq!(reply.shown.as_deref(), Some(answer.as_bytes()), "{question}");
        assert!(reply.value.is_none() && reply.siblings.is_empty(), "the state is not sent: {reply:?}");
    }
    // Of a key without a value nothing can be asked.
    let reply = cluster.get(2, Get { key: "none".into(), ..ask("a") });
    assert!(reply.shown.is_none() && reply.value.is_none());
    let number = cluster.ask_get(0, ask("?"));
    cluster.deliver();
    let error = cluster.error(number);
    assert!(error.code == ErrorCode::InvalidValue && error.message.contains("has no operator"), "{error}");
}
