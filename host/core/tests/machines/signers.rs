//! Who may sign a tenant's plugins, and what is known of where a plugin comes from.

use rejoin_core::control::{CatalogChange, plugin_record};
use rejoin_proto::catalog::{Activation, BucketProps, Record, RecordBody, RecordKey};
use rejoin_proto::client::RecordKind;
use rejoin_proto::signing::{MAX_SIGNERS, Provenance, SignerChange, SignerKey};
use rejoin_proto::{ErrorCode, Hlc, Name, PluginDigest, TenantId};

use crate::support::catalog::Nodes;
use crate::support::{name, tenant};

const DIGEST: PluginDigest = PluginDigest([5; 32]);

fn key(number: u8) -> SignerKey {
    SignerKey([number; 32])
}

fn add(number: u8) -> CatalogChange {
    CatalogChange::SignersSet(tenant(), SignerChange::Add(key(number)))
}

fn remove(number: u8) -> CatalogChange {
    CatalogChange::SignersSet(tenant(), SignerChange::Remove(key(number)))
}

fn push_of(by: &str, signer: Option<u8>) -> CatalogChange {
    let from = Provenance {
        pushed_by: name(by),
        pushed: Hlc::default(),
        signer: signer.map(key),
        builder: Some("rustc 1.90.0".into()),
    };
    let mut record = plugin_record(name("cart"), "1".into(), 9, false, false);
    record.provenance = Some(Box::new(from));
    CatalogChange::PluginAdd(tenant(), DIGEST, record)
}

fn create(bucket: &str) -> CatalogChange {
    let since = Hlc::default();
    let plugin = Activation { plugin: DIGEST, self_causal: false, since, replaces: false, validates: false };
    CatalogChange::BucketCreate(tenant(), name(bucket), BucketProps { plugin: Some(plugin), ..BucketProps::default() })
}

/// Who has pushed a plugin first, and which key has signed it.
fn provenance(record: &Record) -> (Name, Option<SignerKey>) {
    let RecordBody::Plugin(plugin) = &record.body else { panic!("{record:?}") };
    let from = plugin.provenance.as_ref().expect("where it comes from");
    assert!(from.pushed > Hlc::default() && from.builder.as_deref() == Some("rustc 1.90.0"), "{record:?}");
    (from.pushed_by.clone(), from.signer)
}

fn refused(nodes: &mut Nodes, call: u64, change: CatalogChange, words: &str) {
    nodes.change(0, call, change);
    let error = nodes.answer(call).expect_err("it is refused");
    assert_eq!(error.code, ErrorCode::PluginRejected, "{error}");
    assert!(error.message.contains(words) && error.message.contains("plugin sign"), "{error}");
}

#[test]
pub(crate) fn a_tenant_with_signers_takes_and_activates_only_what_they_have_signed() {
    let mut nodes = Nodes::connected(2);
    nodes.change(0, 1, push_of("ann", None));
    nodes.change(0, 2, create("before"));
    nodes.change(0, 3, add(1));
    nodes.deliver();
    assert!([1, 2, 3].into_iter().all(|call| nodes.answer(call).is_ok()));
    // What a bucket merges with goes on, and other properties of it can be changed.
    let known = nodes.all[0].get(&RecordKey::Bucket(tenant(), name("before"))).expect("a bucket").clone();
    let RecordBody::Bucket { props, .. } = known.body else { panic!("no bucket") };
    let props = BucketProps { ttl_ms: Some(9), ..props };
    nodes.change(0, 4, CatalogChange::BucketSet(tenant(), name("before"), 1, props));
    nodes.deliver();
    assert!(nodes.answer(4).is_ok());

    refused(&mut nodes, 5, create("after"), "is not signed");
    refused(&mut nodes, 6, push_of("ann", None), &key(1).to_string());
    refused(&mut nodes, 7, push_of("ann", Some(2)), "no signer of this tenant now");
    nodes.change(0, 8, push_of("bob", Some(1)));
    nodes.change(0, 9, create("after"));
    nodes.deliver();
    assert_eq!(provenance(&nodes.answer(8).expect("signed")), (name("ann"), Some(key(1))), "it stays who was first");
    assert!(nodes.answer(9).is_ok());
    // Without that key it is as if it were not signed, and another one takes its place.
    nodes.change(0, 10, add(2));
    nodes.change(0, 11, remove(1));
    nodes.deliver();
    refused(&mut nodes, 12, create("last"), "no signer of this tenant now");
    nodes.change(0, 13, push_of("ann", Some(2)));
    nodes.change(0, 14, create("last"));
    nodes.change(0, 15, remove(2));
    nodes.change(0, 16, create("free"));
    nodes.deliver();
    assert_eq!(provenance(&nodes.answer(13).expect("signed")).1, Some(key(2)));
    assert!([14, 15, 16].into_iter().all(|call| nodes.answer(call).is_ok()), "without signers nothing need be signed");
}

#[test]
fn pushing_a_plugin_again_does_not_change_its_record() {
    let mut nodes = Nodes::connected(2);
    nodes.change(0, 1, add(1));
    nodes.change(0, 2, add(2));
    nodes.change(0, 3, push_of("ann", Some(2)));
    nodes.deliver();
    let first = nodes.answer(3).expect("pushed");
    nodes.wall_ms += 5_000;
    for (call, by, signer) in [(4, "ann", 2), (5, "bob", 2), (6, "bob", 1)] {
        nodes.change(1, call, push_of(by, Some(signer)));
        nodes.deliver();
        assert_eq!(nodes.answer(call).expect("it is there"), first);
    }
    // A deletion in between makes it another push.
    nodes.change(1, 7, CatalogChange::PluginDelete(tenant(), DIGEST, 9_000));
    nodes.change(1, 8, push_of("bob", Some(1)));
    nodes.deliver();
    assert_eq!(provenance(&nodes.answer(8).expect("pushed")), (name("bob"), Some(key(1))));
}

#[test]
fn two_who_push_one_component_at_once_are_both_told_that_it_is_there() {
    let mut nodes = Nodes::connected(2);
    nodes.change(0, 1, push_of("ann", None));
    nodes.change(1, 2, push_of("bob", None));
    nodes.deliver();
    assert!(nodes.answer(1).is_ok() && nodes.answer(2).is_ok());
    let of = |at: usize| provenance(nodes.all[at].get(&RecordKey::Plugin(tenant(), DIGEST)).expect("a plugin"));
    assert_eq!(of(0), of(1));
}

#[test]
fn signers_are_bounded_and_of_their_tenant() {
    let mut nodes = Nodes::connected(1);
    for number in 0..=MAX_SIGNERS as u8 {
        nodes.change(0, u64::from(number), add(number));
    }
    let last = MAX_SIGNERS as u64;
    assert_eq!(nodes.answer(last).expect_err("one too many").code, ErrorCode::TooLarge);
    nodes.change(0, 100, add(3));
    let record = nodes.answer(100).expect("it is there already");
    assert_eq!(record.version, last, "nothing has changed");
    assert_eq!(nodes.all[0].list(RecordKind::Signers, tenant()), [record]);
    assert!(nodes.all[0].list(RecordKind::Signers, TenantId(9)).is_empty());
    nodes.change(0, 101, remove(99));
    assert_eq!(nodes.answer(101).expect_err("nobody").code, ErrorCode::NotFound);
}
