//! The operator's interface.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rejoin_client::ErrorKind;
use rejoin_client::admin::{
    BucketProps, FromNodes, Grant, LawState, NodePlugins, PluginState, ReceiptFilter, Scope, activation,
};
use rejoin_proto::catalog::{PluginRecord, Record, RecordBody, RecordKey};
use rejoin_proto::client::{AdminRequest, Reply, RequestBody};
use rejoin_proto::conflict::ConflictNote;
use rejoin_proto::receipt::{CopyReport, KeyReport, ReceiptPage};
use rejoin_proto::trial::{ShadowCounts, ShadowReport};
use rejoin_proto::{BucketId, ErrorCode, Hlc, Name, PluginDigest, ProfileId, TenantId, VersionVector};
use rejoin_wire::Class;

use crate::fake::{Cluster, React, refused, tenant};

fn silent<T>(found: &FromNodes<T>) -> Vec<&str> {
    found.silent.iter().map(|(node, _)| node.as_str()).collect()
}

fn bucket(name: &str) -> Record {
    let name = Name::new(name).unwrap();
    let tenant = TenantId::from_name(&tenant());
    let (id, props) = (BucketId::derive(tenant, &name, 0), BucketProps::default());
    let body = RecordBody::Bucket { id, props, past: Default::default() };
    Record { key: RecordKey::Bucket(tenant, name), version: 4, stamp: Hlc::default(), body }
}

#[tokio::test]
async fn buckets_are_listed_found_and_changed() {
    let cluster = Cluster::start(2).await;
    let admin = cluster.client().await.admin();
    let all = || React::Say(Reply::Records(vec![bucket("notes"), bucket("cart")]));
    cluster.react([all(), all(), all()]);
    let names: Vec<String> = admin.buckets().await.unwrap().into_iter().map(|bucket| bucket.name.to_string()).collect();
    assert_eq!(names, ["cart", "notes"]);
    let cart = admin.bucket("cart").await.unwrap();
    assert_eq!(admin.bucket("none").await.unwrap_err().kind(), ErrorKind::NotFound);
    cluster.react([refused(ErrorCode::VersionConflict)]);
    let error = admin.set_bucket("cart", cart.version, cart.props).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::VersionConflict);
    let sent = cluster.seen().pop().unwrap().request.body;
    assert!(matches!(sent, RequestBody::Admin(AdminRequest::BucketSet { version: 4, .. })), "{sent:?}");
}

#[tokio::test]
async fn a_bucket_is_asked_for_again_while_nodes_are_not_ready_for_its_plugin() {
    let cluster = Cluster::start(2).await;
    let admin = cluster.client().await.admin();
    let not_ready = || refused(ErrorCode::PluginNotReady);
    let made = || React::Say(Reply::Changed { record: bucket("cart"), behind: Vec::new() });
    let all = || React::Say(Reply::Records(vec![bucket("cart")]));
    let props = || BucketProps { plugin: Some(activation(PluginDigest([7; 32]))), ..BucketProps::default() };
    cluster.react([not_ready(), not_ready(), made()]);
    assert_eq!(admin.create_bucket("cart", props()).await.unwrap().version, 4);
    let before = cluster.seen().len();
    cluster.react([not_ready(), made()]);
    admin.set_bucket("cart", 4, props()).await.unwrap();
    let forces = || -> Vec<bool> {
        let bodies = cluster.seen().into_iter().skip(before).map(|seen| seen.request.body);
        let force = |body| match body {
            RequestBody::Admin(AdminRequest::BucketSet { force, .. }) => Some(force),
            _ => None,
        };
        bodies.filter_map(force).collect()
    };
    assert_eq!(forces(), [false, false]);
    cluster.react([all(), made()]);
    admin.activate_plugin_at_once("cart", Some(PluginDigest([7; 32]))).await.unwrap();
    assert_eq!(forces(), [false, false, true]);
    // One that will never run it is not waited for.
    cluster.react([refused(ErrorCode::PluginRejected)]);
    let error = admin.create_bucket("cart", props()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PluginRejected, "{error}");
}

#[tokio::test]
async fn a_change_names_the_nodes_that_have_not_taken_it() {
    let cluster = Cluster::start(2).await;
    let admin = cluster.client().await.admin();
    let behind = vec![Name::new("n7").unwrap()];
    let token = |revoked| {
        let grant = Grant::of(Scope::ReadWrite);
        let body = RecordBody::Token { grant, secret_hash: [0; 32], before: None, revoked, barred: false };
        let tenant = TenantId::from_name(&tenant());
        Record { key: RecordKey::Token(tenant, Name::new("app").unwrap()), version: 1, stamp: Hlc::default(), body }
    };
    let changed = |record| React::Say(Reply::Changed { record, behind: behind.clone() });
    cluster.react([changed(bucket("cart")), changed(bucket("cart")), changed(token(false)), changed(token(true))]);
    assert_eq!(admin.create_bucket("cart", BucketProps::default()).await.unwrap().behind, behind);
    assert_eq!(admin.set_bucket("cart", 4, BucketProps::default()).await.unwrap().behind, behind);
    assert_eq!(admin.create_token("app", Scope::ReadWrite).await.unwrap().behind(), behind);
    assert_eq!(admin.revoke_token("app").await.unwrap(), behind);
    cluster.react([changed(token(false))]);
    let rotated = admin.rotate_token("app", std::time::Duration::from_secs(9)).await.unwrap();
    assert!(rotated.behind() == behind && rotated.text().starts_with("shop/app:"));
    let sent = cluster.seen().pop().unwrap().request.body;
    let RequestBody::Admin(AdminRequest::TokenRotate { secret_hash, overlap_ms: 9_000, .. }) = sent else {
        panic!("{sent:?}")
    };
    assert_eq!(secret_hash, rotated.secret_hash());
}

#[tokio::test]
async fn a_change_is_sent_once() {
    let cluster = Cluster::start(2).await;
    let admin = cluster.client().await.admin();
    cluster.react([React::Close]);
    let error = admin.create_token("app", Scope::ReadWrite).await.unwrap_err();
    assert_eq!((error.kind(), cluster.seen().len()), (ErrorKind::Unknown, 1));
    assert!(error.to_string().contains("look whether it was"), "no key was written: {error}");
}

#[tokio::test]
async fn a_plugin_travels_as_bulk() {
    let cluster = Cluster::start(2).await;
    let admin = cluster.client().await.admin();
    let name = Name::new("cart").unwrap();
    let plugin = Box::new(PluginRecord {
        name,
        version: "1".into(),
        bytes: 3,
        self_causal: true,
        validates: true,
        quarantined: None,
        unchecked: None,
        transcripts: Vec::new(),
        provenance: None,
    });
    let record = Record {
        key: RecordKey::Plugin(TenantId::from_name(&tenant()), PluginDigest([7; 32])),
        version: 1,
        stamp: Hlc::default(),
        body: RecordBody::Plugin(plugin),
    };
    let changed = || React::Say(Reply::Changed { record: record.clone(), behind: Vec::new() });
    cluster.react([changed()]);
    let plugin = admin.push_plugin_unchecked("cart", vec![1, 2, 3]).await.unwrap();
    assert!(plugin.activation().self_causal && plugin.activation().validates && plugin.digest == PluginDigest([7; 32]));
    let sent = cluster.seen().pop().unwrap();
    assert_eq!(sent.class, Class::Bulk);
    assert!(sent.request.deadline_ms > 20_000, "a node compiles it before it answers: {} ms", sent.request.deadline_ms);
    cluster.react([changed()]);
    admin.clone().timeout(Duration::from_secs(3)).push_plugin_unchecked("cart", vec![1, 2, 3]).await.unwrap();
    assert!(cluster.seen().pop().unwrap().request.deadline_ms <= 3_000, "the caller's own is kept");

    // While the laws are checked the node is asked how far it is, and then sent the component again.
    let laws = |state| React::Say(Reply::Laws { digest: PluginDigest([7; 32]), state });
    let checked = |broken| LawState::Checked { broken, report: b"{}".to_vec().into() };
    let checking = || LawState::Checking { law: "growth".into(), case: 7, cases: 300 };
    cluster.react([laws(LawState::Waiting), laws(checking()), laws(checked(None)), changed(), laws(checked(None))]);
    let mut told = Vec::new();
    let pushed = admin.push_plugin_with_report("cart", vec![1].into(), |state| told.push(state.clone())).await.unwrap();
    assert_eq!((pushed.plugin.as_ref().ok(), pushed.report), (Some(&plugin), Some(b"{}".to_vec().into())));
    assert_eq!(told, [LawState::Waiting, checking()]);

    cluster.react([laws(checked(Some("it breaks a law".into())))]);
    let error = admin.push_plugin("cart", vec![1]).await.unwrap_err();
    assert!(error.kind() == ErrorKind::PluginRejected && error.to_string().contains("it breaks a law"), "{error}");
}

#[tokio::test]
async fn every_node_is_asked_whether_it_can_run_a_plugin_and_the_silent_ones_are_named() {
    let cluster = Cluster::start(3).await;
    let admin = cluster.client().await.admin().timeout(Duration::from_secs(3));
    let (digest, other) = (PluginDigest([7; 32]), PluginDigest([8; 32]));
    let says = |node: &str, state| {
        let node = Name::new(node).unwrap();
        React::Say(Reply::PluginStates(NodePlugins { node, plugins: vec![(digest, state)] }))
    };
    cluster.silence("n3");
    // Whichever node answers with which of them: the replies name their nodes.
    cluster.react([says("n2", PluginState::Ready), says("n1", PluginState::Differs("so".into()))]);
    let readiness = admin.plugin_readiness(Some(digest)).await.unwrap();
    let of = |digest| readiness.of(digest).map(|(node, state)| (node.to_string(), state.clone())).collect();
    let differs = PluginState::Differs("so".into());
    let states: BTreeMap<String, PluginState> = of(&digest);
    assert_eq!(states, BTreeMap::from([("n1".to_owned(), differs), ("n2".to_owned(), PluginState::Ready)]));
    assert!(of(&other).values().all(|state| *state == PluginState::Missing));
    assert_eq!(silent(&readiness), ["n3"]);
    let sent = cluster.seen().pop().unwrap().request.body;
    assert_eq!(sent, RequestBody::Admin(AdminRequest::PluginStates { digest: Some(digest) }));
}

#[tokio::test]
async fn what_nodes_say_together_names_those_that_were_silent() {
    let cluster = Cluster::start(3).await;
    let admin = cluster.client().await.admin().timeout(Duration::from_secs(1));
    cluster.silence("n2");
    let note = |times| ConflictNote {
        key: "k".into(),
        plugin: PluginDigest([7; 32]),
        reason: "trapped".into(),
        why: "it trapped".into(),
        siblings: 2,
        first_ms: times,
        last_ms: times,
        times,
    };
    cluster.react([3, 4].map(|times| React::Say(Reply::Conflicts(vec![note(times)]))));
    let conflicts = admin.conflicts("cart").await.unwrap();
    assert_eq!((conflicts.answers.len(), conflicts.answers[0].times, silent(&conflicts)), (1, 7, vec!["n2"]));
    cluster.react([(); 2].map(|()| React::Say(Reply::Violations(Vec::new()))));
    let violations = admin.law_violations("cart").await.unwrap();
    assert_eq!((violations.answers.len(), silent(&violations)), (0, vec!["n2"]));
    let report = |node: &str| ShadowReport {
        node: Name::new(node).unwrap(),
        shadow: None,
        counts: ShadowCounts::default(),
        samples: Vec::new(),
        keys: Vec::new(),
    };
    cluster.react(["n1", "n3"].map(|node| React::Say(Reply::ShadowReport(Box::new(report(node))))));
    let reports = admin.shadow_counts("cart").await.unwrap();
    assert_eq!((reports.answers.len(), silent(&reports)), (2, vec!["n2"]));
    // What the nodes say goes before that one of them says nothing.
    cluster.react([refused(ErrorCode::NotFound), refused(ErrorCode::NotFound)]);
    assert_eq!(admin.conflicts("cart").await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn all_nodes_are_asked_for_receipts_and_a_key_at_once() {
    let cluster = Cluster::start(4).await;
    let admin = cluster.client().await.admin().timeout(Duration::from_secs(2));
    for name in ["n2", "n3", "n4"] {
        cluster.silence(name);
    }
    let page = |next: Option<&'static str>| {
        let (node, lost, next) = (Name::new("n1").unwrap(), next.is_some(), next.map(Into::into));
        React::Say(Reply::Receipts(ReceiptPage { node, receipts: Vec::new(), next, lost }))
    };
    let began = Instant::now();
    cluster.react([page(Some("more")), page(None)]);
    let found = admin.receipts("cart", ReceiptFilter::default()).await.unwrap();
    assert_eq!((found.answers.len(), silent(&found)), (0, vec!["n2", "n3", "n4"]));
    assert_eq!(found.lost, [Name::new("n1").unwrap()]);
    let report = KeyReport {
        node: Name::new("n1").unwrap(),
        owners: Vec::new(),
        copy: Ok(CopyReport { entries: Vec::new(), context: VersionVector::new() }),
        plugin: None,
        quarantined: None,
        profile: ProfileId(1),
        failures: Vec::new(),
    };
    cluster.react([React::Say(Reply::Key(Box::new(report)))]);
    let found = admin.explain("cart", b"k").await.unwrap();
    assert_eq!((found.answers.len(), silent(&found)), (1, vec!["n2", "n3", "n4"]));
    assert!(began.elapsed() < Duration::from_secs(5), "two time-outs, and not six");
}

#[tokio::test]
async fn a_component_that_one_node_lacks_is_fetched_from_another() {
    let cluster = Cluster::start(3).await;
    let admin = cluster.client().await.admin();
    let missing = || refused(ErrorCode::NotFound);
    cluster.react([missing(), missing(), React::Say(Reply::Module("component".into()))]);
    assert_eq!(&admin.fetch_plugin(PluginDigest([7; 32])).await.unwrap()[..], b"component");
    assert!(cluster.seen().iter().all(|seen| seen.class == Class::Bulk));
    cluster.react([missing(), missing(), missing(), missing()]);
    assert_eq!(admin.fetch_plugin(PluginDigest([7; 32])).await.unwrap_err().kind(), ErrorKind::NotFound);
}
