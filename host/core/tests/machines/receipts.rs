//! Receipts of folds: in the record of the fold, bounded in time and bytes, and good for undoing it.

use bytes::Bytes;

use rejoin_core::port::{Space, StoreFault};
use rejoin_core::shard::ReceiptsWanted;
use rejoin_core::shard::event::{Event, PluginError, ValidateJob};
use rejoin_core::view::ClusterView;
use rejoin_proto::catalog::{Activation, BucketProps, Deleted, Quorum, Record, RecordBody};
use rejoin_proto::client::{Basis, Get, Put, PutOutcome};
use rejoin_proto::fault::{MergeFault, Refusal};
use rejoin_proto::receipt::{FoldReceipt, KeptReceipt, RECEIPT_PAGE_BYTES, Restoration, Restored, output_hash};
use rejoin_proto::{Content, ErrorCode, Hlc, Object, PluginDigest, codec};

use crate::support::cluster::{Cluster, Node};
use crate::support::store::Writes;
use crate::support::{SKEW_MS, WALL_MS, bucket, get, layout, object_id, put, with};

const UNDO_MS: u64 = 10_000;

pub(crate) fn props() -> BucketProps {
    let activation = Activation {
        plugin: PluginDigest([1; 32]),
        self_causal: true,
        since: Hlc::from_ms(WALL_MS),
        replaces: false,
        validates: false,
    };
    BucketProps { plugin: Some(activation), w: Quorum::Count(1), fold_undo_ms: UNDO_MS, ..BucketProps::default() }
}

/// Two writes of a key that have not heard of each other.
pub(crate) fn write_apart(cluster: &mut Cluster, key: &str, values: [&str; 2], request: u128) {
    for (at, value) in values.iter().enumerate() {
        let number = cluster.ask_put(at, put(key, value, request + at as u128));
        cluster.wire.clear();
        assert_eq!(cluster.put_reply(number).outcome, PutOutcome::Stored);
    }
}

/// The same, folded by a read at the first node.
pub(crate) fn fold(cluster: &mut Cluster, key: &str, values: [&str; 2], request: u128) {
    write_apart(cluster, key, values, request);
    cluster.get(0, Get { r: Some(Quorum::Count(3)), ..get(key) });
}

type Page = (Vec<KeptReceipt>, Option<Bytes>, bool);

fn page(node: &Node, from: Option<Bytes>) -> Result<Page, StoreFault> {
    let bucket = object_id("").bucket;
    let wanted = ReceiptsWanted { bucket, object: None, plugin: None, since_ms: 0, from, undo: true };
    node.shard.kept_receipts(&node.store, &wanted)
}

fn receipt_rows(cluster: &Cluster, at: usize) -> Vec<(Space, Bytes)> {
    let rows = cluster.nodes[at].store.rows.keys();
    rows.filter(|(space, _)| *space == Space::Receipts).cloned().collect()
}

pub(crate) fn kept(cluster: &Cluster, at: usize) -> Vec<KeptReceipt> {
    page(&cluster.nodes[at], None).expect("a sound store").0
}

pub(crate) fn undo(kept: &KeptReceipt, request: u128) -> Put {
    let restored = |entry: &rejoin_proto::Entry| Restored {
        content: entry.content.clone(),
        expires: entry.expires,
        dots: entry.dots.clone(),
    };
    let inputs = kept.receipt.inputs.iter().map(restored).collect();
    let content = Content::Value(codec::encode(&Restoration { by: kept.receipt.by, inputs }).into());
    let basis = Basis::Undo(kept.context.clone().expect("it was asked for"));
    Put { content, basis, ..put("k", "", request) }
}

/// Every node learns that the bucket has other properties now.
pub(crate) fn now_with(cluster: &mut Cluster, props: BucketProps) {
    cluster.records(&[Record { version: 4, ..bucket(props) }]);
}

/// The bucket has no plugin any more, as before an undo.
fn stop(cluster: &mut Cluster) {
    now_with(cluster, BucketProps { plugin: None, ..props() });
}

pub(crate) fn values(object: &Object) -> Vec<Content> {
    let mut values: Vec<Content> = object.entries.iter().map(|entry| entry.content.clone()).collect();
    values.sort();
    values
}

#[test]
pub(crate) fn a_fold_and_its_receipt_are_one_record() {
    let mut cluster = Cluster::new(3, props());
    fold(&mut cluster, "k", ["a", "b"], 1);
    let folds = |cluster: &Cluster| {
        let is_fold = |row: &&rejoin_core::port::Row| {
            let object = row.value.as_ref().and_then(|row| codec::decode::<Object>(row).ok());
            row.space == Space::Objects
                && object.is_some_and(|object| object.entries.iter().any(|entry| entry.folded_by.is_some()))
        };
        let changes = cluster.nodes[0].store.changes.iter();
        changes.filter(|change| change.rows.iter().any(|row| is_fold(&row))).cloned().collect::<Vec<_>>()
    };
    let folded = folds(&cluster);
    assert_eq!(folded.len(), 1);
    let mut receipts = folded[0].rows.iter().filter(|row| row.space == Space::Receipts);
    let receipt = receipts.find_map(|row| codec::decode::<FoldReceipt>(row.value.as_ref()?).ok());
    let receipt = receipt.expect("a receipt in the record of the fold");
    let entry = cluster.stored(0, "k").entries.remove(0);
    assert_eq!((&receipt.dots, &receipt.covers, Some(receipt.by)), (&entry.dots, &entry.covers, entry.folded_by));
    let inputs = values(&Object { entries: receipt.inputs.clone(), ..Object::default() });
    assert_eq!(inputs, [Content::Value("a".into()), Content::Value("b".into())]);
    assert_eq!((receipt.output, receipt.fuel_used), (output_hash(b"a,b"), 7));
    assert_eq!((receipt.object, receipt.until_ms - receipt.at_ms), (object_id("k"), UNDO_MS));
    // The other owners have the fold by read repair: they have not folded.
    assert_eq!([0, 1, 2].map(|at| kept(&cluster, at).len()), [1, 0, 0]);
    assert!(kept(&cluster, 0)[0].live);
    // Without room neither is written.
    write_apart(&mut cluster, "other", ["c", "d"], 10);
    cluster.nodes[0].store.writes = Writes::Full;
    cluster.get(0, Get { r: Some(Quorum::Count(3)), ..get("other") });
    assert_eq!((folds(&cluster).len(), cluster.nodes[0].shard.receipt_sums().count), (1, 1));
}

#[test]
fn a_bucket_may_do_without_receipts() {
    let mut cluster = Cluster::new(3, BucketProps { fold_undo_ms: 0, ..props() });
    fold(&mut cluster, "k", ["a", "b"], 1);
    assert_eq!((cluster.stored(0, "k").entries.len(), kept(&cluster, 0).len()), (1, 0));
}

#[test]
fn a_receipt_is_kept_for_its_time() {
    let mut cluster = Cluster::new(3, props());
    fold(&mut cluster, "k", ["a", "b"], 1);
    cluster.pass(UNDO_MS - 2_000);
    fold(&mut cluster, "later", ["a", "b"], 10);
    assert_eq!(kept(&cluster, 0).len(), 2);
    let store = cluster.nodes[0].store.clone();
    cluster.restart(0, false, store);
    cluster.pass(1_000);
    // Another node's clock may be behind, and its people may still want to undo the fold.
    cluster.pass(SKEW_MS);
    assert_eq!(kept(&cluster, 0).len(), 2);
    cluster.pass(2_000);
    let left = kept(&cluster, 0);
    assert_eq!((left.len(), &left[0].receipt.object), (1, &object_id("later")));
    cluster.pass(UNDO_MS);
    let sums = cluster.nodes[0].shard.receipt_sums();
    assert_eq!((sums.count, sums.bytes, sums.given_up), (0, 0, 0));
    assert!(receipt_rows(&cluster, 0).is_empty());
}

#[test]
pub(crate) fn a_clock_that_has_jumped_ends_no_receipts() {
    const EIGHT_DAYS_MS: u64 = 8 * 24 * 60 * 60 * 1000;
    let mut cluster = Cluster::new(3, props());
    fold(&mut cluster, "k", ["a", "b"], 1);
    cluster.pass(1_000);
    cluster.pass(61_000);
    assert_eq!(kept(&cluster, 0).len(), 1, "it is not over");
    cluster.nodes[0].ahead_ms = EIGHT_DAYS_MS;
    for _ in 0..50 {
        cluster.pass(1_000);
    }
    assert_eq!(kept(&cluster, 0).len(), 1);
    // By then the peers contradict it.
    cluster.event(0, Event::CorrectClock(-(EIGHT_DAYS_MS as i64)));
    for _ in 0..3 {
        cluster.pass(61_000);
    }
    assert_eq!(kept(&cluster, 0).len(), 1, "not while it is wrong");
    cluster.nodes[0].ahead_ms = 0;
    cluster.event(0, Event::CorrectClock(0));
    cluster.pass(1_000);
    cluster.pass(61_000);
    assert_eq!(kept(&cluster, 0).len(), 0);
}

#[test]
fn what_is_left_after_a_loss_is_listed_and_counted_and_ends() {
    let mut cluster = Cluster::new(3, props());
    for (request, key) in [(1, "k"), (10, "l"), (20, "m")] {
        fold(&mut cluster, key, ["a", "b"], request);
    }
    // The row that orders the first one, and the second one itself.
    let mut store = cluster.nodes[0].store.clone();
    for (first, number) in [(b'o', 0_u64), (b'r', 1)] {
        let is_it = |key: &Bytes| key[0] == first && key.ends_with(&number.to_be_bytes());
        let row = receipt_rows(&cluster, 0).into_iter().find(|(_, key)| is_it(key)).expect("it was written");
        store.rows.remove(&row);
    }
    store.receipts_lost = true;
    cluster.nodes[0].config.rows_lost = true;
    cluster.restart(0, false, store);
    let (left, _, lost) = page(&cluster.nodes[0], None).expect("what is left can be read");
    let mut keys: Vec<_> = left.into_iter().map(|kept| kept.receipt.object.key).collect();
    keys.sort();
    assert_eq!((keys, lost), (vec!["k".into(), "m".into()], true));
    assert_eq!(cluster.nodes[0].shard.receipt_sums().count, 3, "the row of the second one is there");
    cluster.pass(1_000);
    cluster.pass(UNDO_MS + SKEW_MS);
    let sums = cluster.nodes[0].shard.receipt_sums();
    assert_eq!((sums.count, sums.bytes, receipt_rows(&cluster, 0)), (0, 0, vec![]));
}

#[test]
pub(crate) fn receipts_take_no_more_than_they_may() {
    let mut cluster = Cluster::with_config(3, props(), |config| config.max_receipt_bytes = 1_500);
    for number in 0..10 {
        fold(&mut cluster, &format!("k{number}"), ["a", "b"], 10 * number + 1);
        assert!(cluster.nodes[0].shard.receipt_sums().bytes <= 1_500);
    }
    let left: Vec<_> = kept(&cluster, 0).into_iter().map(|kept| kept.receipt.object).collect();
    let sums = cluster.nodes[0].shard.receipt_sums();
    assert!(sums.count >= 2 && sums.count + sums.given_up == 10, "{sums:?}");
    assert_eq!(left.len() as u64, sums.count);
    assert!(left.contains(&object_id("k9")) && !left.contains(&object_id("k0")), "the oldest go: {left:?}");
    // One that is too large by itself is not written, and takes nobody's place.
    fold(&mut cluster, "large", [&"a".repeat(1_000), &"b".repeat(1_000)], 1_000);
    assert_eq!(cluster.stored(0, "large").entries.len(), 1);
    let after = cluster.nodes[0].shard.receipt_sums();
    assert_eq!((after.count, after.given_up), (sums.count, sums.given_up + 1));
}

#[test]
fn a_page_of_receipts_reads_few_objects_and_each_of_them_once() {
    const LARGE: usize = 900 << 10;
    let mut cluster = Cluster::new(3, props());
    for number in 0..18 {
        // Three folds of each of six keys.
        fold(&mut cluster, &format!("k{}", number % 6), ["a", "b"], 10 * number + 1);
    }
    for number in 0..6 {
        cluster.put(0, put(&format!("k{number}"), &"v".repeat(LARGE), 1_000 + number));
    }
    let node = &cluster.nodes[0];
    let (mut from, mut found, mut pages) = (None, Vec::new(), 0);
    loop {
        let before = node.store.got_bytes.get();
        let (kept, next, _) = page(node, from).expect("a sound store");
        let got = node.store.got_bytes.get() - before;
        assert!(got < RECEIPT_PAGE_BYTES + LARGE + 4_096, "{got} bytes for {} receipts", kept.len());
        found.extend(kept.into_iter().map(|kept| (kept.receipt.object, kept.receipt.dots, kept.live)));
        (from, pages) = (next, pages + 1);
        if from.is_none() {
            break;
        }
    }
    assert_eq!((found.len(), pages), (18, 2));
    assert_eq!(found.iter().filter(|(.., live)| *live).count(), 6, "the last one of each key");
    assert!(found.windows(2).all(|two| two[0] != two[1]), "none comes twice");
}

#[test]
fn receipts_whose_object_cannot_be_read_are_an_error() {
    let mut cluster = Cluster::new(3, props());
    fold(&mut cluster, "k", ["a", "b"], 1);
    let row = object_id("k").store_key();
    let node = &mut cluster.nodes[0];
    let (sound, key) = (node.store.clone(), (Space::Objects, Bytes::from(row.clone())));
    node.store.damaged.insert(row);
    assert!(matches!(page(node, None), Err(StoreFault::Damaged(_))));
    node.store = sound;
    node.store.rows.insert(key.clone(), "no object".into());
    assert!(matches!(page(node, None), Err(StoreFault::Damaged(_))));
    node.store.rows.remove(&key);
    let kept = page(node, None).expect("a sound store").0;
    assert!(kept.len() == 1 && !kept[0].live, "it is not there any more");
}

#[test]
fn the_receipts_of_a_reaped_bucket_go() {
    let mut cluster = Cluster::new(3, props());
    fold(&mut cluster, "k", ["a", "b"], 1);
    let alive = bucket(props());
    let RecordBody::Bucket { id, props, past } = alive.body.clone() else { panic!("a bucket") };
    let body = RecordBody::DeletedBucket { id, props, past, deleted: Deleted { reap_ms: 1, reaped: true } };
    cluster.show(ClusterView::new(layout(3), &[Record { body, version: 4, ..alive }]));
    cluster.pass(3_000);
    assert_eq!(cluster.nodes[0].shard.receipt_sums().count, 0);
    assert!(kept(&cluster, 0).is_empty());
}

#[test]
pub(crate) fn an_undone_fold_has_its_inputs_again_unless_it_was_written_over() {
    let mut cluster = Cluster::new(3, props());
    fold(&mut cluster, "k", ["a", "b"], 1);
    let receipt = kept(&cluster, 0).remove(0);
    stop(&mut cluster);
    cluster.put(1, put("k", "beside", 5));
    assert_eq!(cluster.put(0, undo(&receipt, 7)).outcome, PutOutcome::Stored);
    let expected = ["a", "b", "beside"].map(|value| Content::Value(value.into()));
    for at in 0..3 {
        let object = cluster.stored(at, "k");
        assert_eq!(values(&object), expected, "node {at}");
        assert!(object.entries.iter().all(|entry| entry.folded_by.is_none()));
    }
    assert!(!kept(&cluster, 0)[0].live);
    assert_eq!(cluster.refused(0, undo(&receipt, 8)), ErrorCode::VersionConflict, "it is undone already");

    let mut cluster = Cluster::new(3, props());
    fold(&mut cluster, "k", ["a", "b"], 1);
    let receipt = kept(&cluster, 0).remove(0);
    stop(&mut cluster);
    let read = cluster.get(0, get("k"));
    cluster.put(0, with(&read.context, put("k", "newer", 5)));
    assert_eq!(cluster.refused(0, undo(&receipt, 7)), ErrorCode::VersionConflict);
    assert_eq!(values(&cluster.stored(0, "k")), [Content::Value("newer".into())], "nothing comes back");
}

#[test]
fn a_retried_undo_is_done_once() {
    let mut cluster = Cluster::new(3, props());
    fold(&mut cluster, "k", ["a", "b"], 1);
    let receipt = kept(&cluster, 0).remove(0);
    stop(&mut cluster);
    let first = undo(&receipt, 7);
    cluster.put(0, first.clone());
    let before = cluster.stored(0, "k");
    cluster.put(0, first);
    assert_eq!(cluster.stored(0, "k"), before);
    let malformed = Put { content: Content::Value("no inputs".into()), ..undo(&receipt, 8) };
    assert_eq!(cluster.refused(0, malformed), ErrorCode::BadRequest);
}

/// A bucket whose plugin validates.
fn validating() -> BucketProps {
    let activation = Activation { validates: true, ..props().plugin.expect("a plugin") };
    BucketProps { plugin: Some(activation), ..props() }
}

/// The bucket has another plugin now, as before an undo, and that one validates too.
fn give_back(cluster: &mut Cluster) {
    let earlier = validating().plugin.map(|of| Activation { plugin: PluginDigest([2; 32]), self_causal: false, ..of });
    now_with(cluster, BucketProps { plugin: earlier, ..props() });
}

/// A validator that takes nothing any more.
fn strict(_: &ValidateJob) -> Result<(), PluginError> {
    Err(MergeFault::Refused(Refusal::Malformed).into())
}

#[test]
pub(crate) fn an_undo_restores_what_was_accepted_and_nothing_else() {
    let mut cluster = Cluster::new(3, validating());
    fold(&mut cluster, "k", ["a", "b"], 1);
    let receipt = kept(&cluster, 0).remove(0);
    let before = cluster.stored(0, "k");
    let mut forged = receipt.clone();
    forged.receipt.inputs[1].content = Content::Value("forged!".into());
    for (at, request) in [(0, 11), (1, 12)] {
        assert_eq!(cluster.refused(at, undo(&forged, request)), ErrorCode::InvalidValue, "node {at}");
    }
    give_back(&mut cluster);
    cluster.validator = Some(strict);
    assert_eq!(cluster.refused(1, undo(&receipt, 13)), ErrorCode::InvalidValue, "node 1 has no receipt");
    assert_eq!((cluster.stored(0, "k"), cluster.nodes[1].shard.in_flight()), (before, 0), "nothing was written");
    // The node that has folded knows that both were accepted, whatever the plugin takes by now.
    assert_eq!(cluster.put(0, undo(&receipt, 14)).outcome, PutOutcome::Stored);
    assert_eq!(values(&cluster.stored(1, "k")), ["a", "b"].map(|value| Content::Value(value.into())));
}

#[test]
fn each_input_that_no_receipt_shows_is_validated_once() {
    let mut cluster = Cluster::new(3, validating());
    fold(&mut cluster, "k", ["a", "b"], 1);
    let receipt = kept(&cluster, 0).remove(0);
    give_back(&mut cluster);
    cluster.validator = None;
    let number = cluster.ask_put(1, undo(&receipt, 7));
    let mut validated = [0, 1].map(|_| {
        let (node, ticket, job) = cluster.validations.pop_front().expect("a validation was asked for");
        assert_eq!((node, cluster.validations.len()), (1, 0));
        cluster.event(node, Event::Validated(ticket, Ok(())));
        cluster.event(node, Event::Validated(ticket, Ok(())));
        job.value
    });
    validated.sort();
    assert_eq!(validated, [&b"a"[..], b"b"]);
    cluster.deliver();
    assert_eq!((cluster.put_reply(number).outcome, cluster.validations.len()), (PutOutcome::Stored, 0));
    assert_eq!(values(&cluster.stored(0, "k")).len(), 2);
}
