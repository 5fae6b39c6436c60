//! Writes: when they are repeated, when they are not, and the errors of the caller.

use std::time::Duration;

use rejoin_client::{Bucket, Bytes, Client, Context, ErrorKind, Json};
use rejoin_proto::client::{Basis, PutOutcome, RequestBody};
use rejoin_proto::{Content, ErrorCode};

use crate::fake::{Cluster, React, refused, stored};

fn notes(client: &Client) -> Bucket<Bytes> {
    client.bucket("notes").unwrap()
}

#[tokio::test]
async fn a_write_goes_to_the_first_owner_and_says_what_it_replaces() {
    let cluster = Cluster::start(3).await;
    let notes = notes(&cluster.client().await);
    let context: Context = "AQEC".parse().unwrap();
    for key in ["a", "b", "c", "d"] {
        let written =
            notes.put(key, b"v".to_vec()).context(&context).w(3).pw(1).ttl(Duration::from_secs(2)).await.unwrap();
        assert_eq!((written.acked, written.needed, written.context.as_bytes()), (2, 2, &[7_u8, 7][..]));
        let (node, put) = cluster.puts().pop().unwrap();
        assert_eq!(node, cluster.owners("notes", key)[0]);
        assert_eq!(put.basis, Basis::Context(context.as_bytes().to_vec().into()));
        assert_eq!((put.ttl_ms, put.attempt, put.content), (Some(2_000), 0, Content::Value("v".into())));
    }
    notes.put("a", b"v".to_vec()).create().await.unwrap();
    notes.delete("a").blind().await.unwrap();
    let puts = cluster.puts();
    assert_eq!(puts[4].1.basis, Basis::Create);
    assert_eq!((&puts[5].1.basis, &puts[5].1.content), (&Basis::Blind, &Content::Tombstone));
}

#[tokio::test]
async fn a_lost_write_is_repeated_at_its_node_under_its_id() {
    let cluster = Cluster::start(3).await;
    let notes = notes(&cluster.client().await);
    cluster.react([React::Close]);
    notes.put("k", b"v".to_vec()).create().await.unwrap();
    let puts = cluster.puts();
    assert_eq!(puts.len(), 2);
    assert_eq!(puts[0].0, puts[1].0, "the same node");
    assert_eq!(puts[0].1.request, puts[1].1.request);
    assert_eq!(puts[0].1.start, puts[1].1.start);
    assert_eq!((puts[0].1.attempt, puts[1].1.attempt), (0, 1));
}

/// An earlier attempt may still arrive after the answer to a later one: only the node's retry row keeps it from being
/// done again.
#[tokio::test]
async fn receipts_go_back_by_the_dozen_and_none_of_a_write_that_was_repeated() {
    let cluster = Cluster::start(1).await;
    let notes = notes(&cluster.client().await);
    cluster.react([React::Silence]);
    notes.put("repeated", b"v".to_vec()).create().timeout(Duration::from_millis(1_600)).await.unwrap();
    for key in 0..65 {
        notes.put(format!("k{key}"), b"v".to_vec()).blind().await.unwrap();
    }
    let settled = |seen: crate::fake::Seen| match seen.request.body {
        RequestBody::Settled(receipts) => Some(receipts),
        _ => None,
    };
    let told: Vec<_> = cluster.seen().into_iter().filter_map(settled).collect();
    assert_eq!(told.len(), 1, "one message for sixty-four writes, before the next write");
    let ids: Vec<u128> = told[0].iter().map(|receipt| receipt.id).collect();
    let once: Vec<u128> = cluster.puts()[2..66].iter().map(|(_, put)| put.request.0).collect();
    assert_eq!(ids, once);
}

#[tokio::test]
async fn a_silent_node_gets_the_repetition_too() {
    let cluster = Cluster::start(3).await;
    let notes = notes(&cluster.client().await);
    cluster.react([React::Silence]);
    notes.put("k", b"v".to_vec()).create().timeout(Duration::from_millis(1_600)).await.unwrap();
    let puts = cluster.puts();
    assert_eq!((puts.len(), puts[1].1.attempt), (2, 1));
    assert_eq!(puts[0].0, puts[1].0);
}

#[tokio::test]
async fn a_node_that_has_forgotten_is_not_asked_again() {
    let cluster = Cluster::start(3).await;
    let notes = notes(&cluster.client().await);
    cluster.react([React::CloseAndForget]);
    let error = notes.put("k", b"v".to_vec()).create().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unknown, "{error}");
    assert!(!error.is_retryable());
    assert_eq!(cluster.puts().len(), 1);
}

#[tokio::test]
async fn outside_the_window_nothing_is_repeated() {
    let cluster = Cluster::with_window(3, 0).await;
    let notes = notes(&cluster.client().await);
    cluster.react([React::Close]);
    let error = notes.put("k", b"v".to_vec()).create().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unknown, "{error}");
    assert_eq!(cluster.puts().len(), 1);
}

#[tokio::test]
async fn what_was_certainly_not_written_goes_to_another_node_as_a_first_attempt() {
    let cluster = Cluster::start(3).await;
    let notes = notes(&cluster.client().await);
    cluster.react([refused(ErrorCode::Unavailable), refused(ErrorCode::Stopping)]);
    notes.put("k", b"v".to_vec()).create().await.unwrap();
    let puts = cluster.puts();
    let nodes: Vec<&str> = puts.iter().map(|(node, _)| node.as_str()).collect();
    assert_eq!(nodes, cluster.owners("notes", "k"), "one owner after the other");
    assert!(puts.iter().all(|(_, put)| put.attempt == 0 && put.request == puts[0].1.request));
}

#[tokio::test]
async fn a_refusal_after_a_lost_attempt_leaves_the_doubt() {
    let cluster = Cluster::start(3).await;
    let notes = notes(&cluster.client().await);
    cluster.react([React::Close, refused(ErrorCode::Exists)]);
    let error = notes.put("k", b"v".to_vec()).create().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unknown, "{error}");
    // Also if the refusal alone would allow another node.
    cluster.react([React::Close, refused(ErrorCode::Unavailable), refused(ErrorCode::Unavailable)]);
    let error = notes.put("k", b"v".to_vec()).create().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unknown, "{error}");
    let puts = cluster.puts();
    assert!(puts[2..].iter().all(|(node, _)| *node == puts[2].0), "never to another node: {puts:?}");
    assert_eq!(puts[2..].iter().map(|(_, put)| put.attempt).collect::<Vec<_>>(), [0, 1, 2]);
}

#[tokio::test]
async fn a_missed_quorum_is_unknown_and_says_how_far_it_got() {
    let cluster = Cluster::start(3).await;
    let client = cluster.builder().attempts(1).connect().await.unwrap();
    cluster.react([React::Say(stored(PutOutcome::Unknown, 1))]);
    let error = notes(&client).put("k", b"v".to_vec()).blind().await.unwrap_err();
    assert_eq!((error.kind(), error.needed(), error.got()), (ErrorKind::Unknown, 2, 1));
    assert_eq!(error.context().unwrap().as_bytes(), [7, 7]);
}

#[tokio::test]
async fn a_refusal_is_passed_on_and_not_repeated() {
    let cluster = Cluster::start(3).await;
    let notes = notes(&cluster.client().await);
    for (code, kind) in [(ErrorCode::BadContext, ErrorKind::BadContext), (ErrorCode::TooLarge, ErrorKind::TooLarge)] {
        cluster.react([refused(code)]);
        assert_eq!(notes.put("k", b"v".to_vec()).blind().await.unwrap_err().kind(), kind);
    }
    assert_eq!(cluster.puts().len(), 2);
    assert_eq!(notes.put(vec![0; 1_025], b"v".to_vec()).blind().await.unwrap_err().kind(), ErrorKind::TooLarge);
    assert_eq!(notes.put("k", vec![0; 19 << 20]).blind().await.unwrap_err().kind(), ErrorKind::TooLarge);
    assert_eq!(cluster.puts().len(), 2, "nothing was sent");
}

#[tokio::test]
async fn the_error_of_a_write_is_the_most_telling_one_of_its_attempts() {
    let cluster = Cluster::start(3).await;
    let notes = notes(&cluster.client().await);
    cluster.react([refused(ErrorCode::DiskFull), refused(ErrorCode::Unavailable), refused(ErrorCode::Stopping)]);
    let error = notes.put("k", b"v".to_vec()).blind().await.unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::DiskFull, true), "{error}");
    // The outcome stays unknown after any refusal; the error is that of the node that counted its acknowledgements.
    cluster.react([React::Say(stored(PutOutcome::Unknown, 1)), React::Close, React::CloseAndForget]);
    let error = notes.put("k", b"v".to_vec()).blind().await.unwrap_err();
    assert_eq!((error.kind(), error.needed(), error.got()), (ErrorKind::Unknown, 2, 1), "{error}");
}

#[tokio::test]
async fn an_overloaded_node_is_waited_for_and_that_is_no_attempt() {
    let cluster = Cluster::start(1).await;
    let client = cluster.builder().attempts(2).connect().await.unwrap();
    let notes = notes(&client);
    cluster.react((0..5).map(|_| refused(ErrorCode::Overloaded)));
    notes.put("k", b"v".to_vec()).create().await.unwrap();
    let puts = cluster.puts();
    assert_eq!(puts.iter().map(|(_, put)| put.attempt).collect::<Vec<_>>(), [0; 6]);
    assert!(puts.iter().all(|(_, put)| put.request == puts[0].1.request));
    cluster.react((0..5).map(|_| refused(ErrorCode::Overloaded)));
    let _ = notes.get("k").await.unwrap();
    assert_eq!(cluster.seen().len(), 12);
    // It ends with the caller's time.
    cluster.react((0..1_000).map(|_| refused(ErrorCode::Overloaded)));
    let error = notes.put("k", b"v".to_vec()).create().timeout(Duration::from_millis(150)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Overloaded, "{error}");
}

#[tokio::test]
async fn clients_that_wait_for_each_answer_are_not_refused_by_a_node_that_has_too_much() {
    let cluster = Cluster::start(1).await;
    let notes = notes(&cluster.builder().attempts(1).backpressure(true).connect().await.unwrap());
    cluster.react((0..20).map(|_| refused(ErrorCode::Overloaded)));
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..40 {
        let notes = notes.clone();
        clients.spawn(async move {
            for number in 0..3 {
                notes.put(format!("{client} {number}"), b"v".to_vec()).blind().await.unwrap();
            }
        });
    }
    clients.join_all().await;
    assert_eq!(cluster.puts().len(), 140, "each refused one once more");
}

#[tokio::test]
async fn who_wants_one_attempt_only_is_told_of_the_overload() {
    let cluster = Cluster::start(1).await;
    for builder in [cluster.builder().attempts(1), cluster.builder().attempts(1).backpressure(false)] {
        let notes = notes(&builder.connect().await.unwrap());
        cluster.react([refused(ErrorCode::Overloaded)]);
        assert_eq!(notes.put("k", b"v".to_vec()).blind().await.unwrap_err().kind(), ErrorKind::Overloaded);
    }
    assert_eq!(cluster.puts().len(), 2);
    // Without waiting a refusal is an attempt.
    let notes = notes(&cluster.builder().backpressure(false).connect().await.unwrap());
    cluster.react((0..3).map(|_| refused(ErrorCode::Overloaded)));
    assert_eq!(notes.put("k", b"v".to_vec()).blind().await.unwrap_err().kind(), ErrorKind::Overloaded);
    assert_eq!(cluster.puts().len(), 5);
}

/// A read of siblings that nobody has merged.
fn conflict(values: &[&'static str]) -> React {
    let mut reply = crate::fake::found("0", 7);
    let one = reply.siblings[0].clone();
    reply.value = None;
    reply.siblings =
        values.iter().map(|value| rejoin_proto::client::Sibling { value: (*value).into(), ..one.clone() }).collect();
    React::Say(rejoin_proto::client::Reply::Get(reply))
}

#[tokio::test]
async fn an_update_merges_siblings_if_it_is_told_how() {
    let cluster = Cluster::start(1).await;
    let stock: Bucket<Json<u32>> = cluster.client().await.bucket("stock").unwrap();
    let add_one = |old: Option<u32>| old.unwrap_or(0) + 1;
    cluster.react([conflict(&["5", "7"])]);
    let error = stock.update("apples", add_one).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(
        error.to_string().contains("update(..).resolve(..)") && error.to_string().contains("merge plugin"),
        "{error}"
    );
    assert!(cluster.puts().is_empty());
    cluster.react([conflict(&["5", "7"])]);
    let most =
        |siblings: Vec<rejoin_client::Sibling<u32>>| siblings.iter().map(|sibling| sibling.value).max().unwrap_or(0);
    assert_eq!(stock.update("apples", add_one).resolve(most).await.unwrap().value, 8);
    let (_, put) = cluster.puts().pop().unwrap();
    assert_eq!((put.content, put.basis), (Content::Value("8".into()), Basis::Context(vec![9, 7].into())));
}

#[tokio::test]
async fn an_update_of_a_full_key_goes_on_for_as_long_as_there_is_time() {
    let cluster = Cluster::start(1).await;
    let stock: Bucket<Json<u32>> = cluster.client().await.bucket("stock").unwrap();
    let round = || {
        [React::Say(rejoin_proto::client::Reply::Get(crate::fake::found("5", 0))), refused(ErrorCode::TooManySiblings)]
    };
    cluster.react((0..6).flat_map(|_| round()));
    let updated = stock.update("apples", |old| old.unwrap_or(0) + 1).timeout(Duration::from_secs(60)).await.unwrap();
    assert_eq!((updated.value, cluster.puts().len()), (6, 7), "more rounds than the client has attempts");
    cluster.react((0..600).flat_map(|_| round()));
    let error =
        stock.update("apples", |old| old.unwrap_or(0) + 1).timeout(Duration::from_millis(300)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooManySiblings, "{error}");
}

#[tokio::test]
async fn an_update_carries_the_context_of_its_read() {
    let cluster = Cluster::start(3).await;
    let stock: Bucket<Json<u32>> = cluster.client().await.bucket("stock").unwrap();
    let updated = stock.update("apples", |old| old.unwrap_or(0) + 1).r(2).w(3).await.unwrap();
    assert_eq!(updated.value, 6);
    let (_, put) = cluster.puts().pop().unwrap();
    assert_eq!((put.content, put.basis), (Content::Value("6".into()), Basis::Context(vec![9, 0].into())));
}

#[tokio::test]
async fn an_update_that_was_not_written_begins_again_with_its_read() {
    let cluster = Cluster::start(1).await;
    let stock: Bucket<Json<u32>> = cluster.client().await.bucket("stock").unwrap();
    // The read succeeds, then the context is refused, then everything succeeds.
    let first = crate::fake::found("5", 0);
    cluster.react([React::Say(rejoin_proto::client::Reply::Get(first)), refused(ErrorCode::BadContext)]);
    let mut calls = 0;
    let updated = stock
        .update("apples", |old| {
            calls += 1;
            old.unwrap_or(0) + 1
        })
        .await
        .unwrap();
    assert_eq!((updated.value, calls, cluster.puts().len()), (6, 2, 2));
    // An uncertain write is not repeated: the change could be made twice.
    let again = crate::fake::found("5", 0);
    cluster.react([React::Say(rejoin_proto::client::Reply::Get(again)), React::CloseAndForget]);
    let error = stock.update("apples", |old| old.unwrap_or(0) + 1).await.unwrap_err();
    assert_eq!((error.kind(), cluster.puts().len()), (ErrorKind::Unknown, 3));
}
