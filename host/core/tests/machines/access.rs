//! Who may do what: the table, and what becomes of tokens.

use bytes::Bytes;

use rejoin_core::access::{Denial, Verb, Whose, allows, authorise, least_scope, may_grant};
use rejoin_core::control::{CatalogChange, TokenChange};
use rejoin_core::view::ClusterView;
use rejoin_proto::access::{Grant, Limits, Scope};
use rejoin_proto::catalog::{BucketProps, RecordBody, RecordKey};
use rejoin_proto::client::{AdminRequest, PushChecks, RequestBody};
use rejoin_proto::{ErrorCode, TenantId};

use crate::support::catalog::Nodes;
use crate::support::{get, layout, name, put, tenant};

#[test]
pub(crate) fn nothing_but_an_operator_reaches_another_tenant_or_the_cluster() {
    for (scope, verb) in Scope::ALL.into_iter().flat_map(|scope| Verb::ALL.map(|verb| (scope, verb))) {
        let (own, other) = (allows(scope, verb, Whose::Own), allows(scope, verb, Whose::Other));
        assert_eq!(other, scope == Scope::Operator, "{scope} {verb:?}");
        assert!(!other || own, "{scope} {verb:?}: what it may elsewhere it may at home");
        let changes_the_cluster = matches!(verb, Verb::TenantCreate | Verb::ClusterChange | Verb::AuditShow);
        assert!(!changes_the_cluster || !own || scope == Scope::Operator, "{scope} {verb:?}");
    }
}

#[test]
fn the_scope_that_is_named_allows_it_and_none_before_it_does() {
    for verb in Verb::ALL {
        for whose in [Whose::Own, Whose::Other] {
            let least = least_scope(verb, whose);
            assert!(allows(least, verb, whose));
            assert!(Scope::ALL.into_iter().all(|scope| scope >= least || !allows(scope, verb, whose)));
            assert!(Denial::Scope { verb, whose }.to_string().contains(least.as_str()));
        }
    }
}

#[test]
pub(crate) fn nobody_gives_more_than_he_has() {
    for (by, granted) in Scope::ALL.into_iter().flat_map(|by| Scope::ALL.map(|granted| (by, granted))) {
        let may = may_grant(by, granted);
        assert!(!may || allows(by, Verb::TokenCreate, Whose::Own), "{by} makes {granted}");
        for verb in Verb::ALL {
            assert!(!may || !allows(granted, verb, Whose::Other) || allows(by, verb, Whose::Other));
            assert!(!may || !allows(granted, verb, Whose::Own) || allows(by, verb, Whose::Own), "{by} {granted}");
        }
    }
}

#[test]
fn whoever_pushes_with_siblings_of_a_bucket_may_read_it() {
    let push = |siblings_of: Option<&str>| {
        let (intent, fixtures) = (Some(Bytes::from_static(b"{}")), vec![Bytes::from_static(b"7")]);
        let checks = PushChecks { intent, siblings_of: siblings_of.map(name), fixtures };
        let (module, checks) = (Bytes::from_static(b"\0asm"), Box::new(checks));
        RequestBody::Admin(AdminRequest::PluginPushWith { name: name("cart"), module, signature: None, checks })
    };
    for scope in Scope::ALL {
        let may = |siblings_of| authorise(&Grant::of(scope), Whose::Own, &push(siblings_of)).is_ok();
        assert_eq!(may(None), allows(scope, Verb::PluginPush, Whose::Own), "{scope}");
        let reads = [Verb::PluginPush, Verb::Read, Verb::ConflictShow].map(|verb| allows(scope, verb, Whose::Own));
        assert_eq!(may(Some("cart")), !reads.contains(&false), "{scope}: the report shows values");
    }
    let limits = Limits { buckets: vec![name("other")], ..Limits::default() };
    let limited = Grant { scope: Scope::Operator, limits, expires_ms: None };
    let denied = |siblings_of| authorise(&limited, Whose::Own, &push(siblings_of)).is_err();
    assert!(denied(Some("cart")) && !denied(Some("other")) && !denied(None));
}

#[test]
pub(crate) fn a_limited_token_opens_only_its_buckets_and_keys() {
    let of = |limits| Grant { scope: Scope::ReadWrite, limits, expires_ms: None };
    let (bucket, prefix) = (get("k").bucket, Bytes::from_static(b"eu/"));
    let grant = of(Limits { buckets: vec![bucket], prefix });
    for (key, admitted) in [("eu/alice", true), ("us/alice", false)] {
        for request in [RequestBody::Get(get(key)), RequestBody::Put(put(key, "v", 1))] {
            assert_eq!(authorise(&grant, Whose::Own, &request).is_ok(), admitted, "{request:?}");
        }
    }
    let other = of(Limits { buckets: vec![name("other")], ..Limits::default() });
    let denial = authorise(&other, Whose::Own, &RequestBody::Get(get("eu/alice"))).expect_err("another bucket");
    assert!(
        denial.to_string().contains("opens only buckets other: this takes a token of scope read-write"),
        "{denial}"
    );
}

fn token(of: TenantId, by: Scope, change: TokenChange) -> CatalogChange {
    CatalogChange::Token(of, name("app"), by, change)
}

/// Makes a token that reads and writes.
fn made(secret: u8) -> TokenChange {
    TokenChange::Create(Grant::of(Scope::ReadWrite), [secret; 32])
}

fn is_revoked(nodes: &Nodes, of: TenantId) -> bool {
    let record = nodes.all[1].get(&RecordKey::Token(of, name("app"))).expect("a token");
    matches!(record.body, RecordBody::Token { revoked: true, .. })
}

#[test]
pub(crate) fn tokens_of_one_name_in_two_tenants_are_two_tokens() {
    let (mut nodes, other) = (Nodes::connected(2), TenantId::from_name(&name("other")));
    nodes.change(0, 1, token(other, Scope::TenantAdmin, made(1)));
    nodes.change(0, 2, token(tenant(), Scope::TenantAdmin, made(2)));
    nodes.deliver();
    assert!(nodes.answer(1).is_ok() && nodes.answer(2).is_ok(), "the names do not collide");
    // Each revokes what is its own.
    for (call, of) in [(3, tenant()), (4, other)] {
        nodes.change(0, call, token(of, Scope::TenantAdmin, TokenChange::Revoke));
        nodes.deliver();
        assert!(nodes.answer(call).is_ok());
        assert_eq!([is_revoked(&nodes, tenant()), is_revoked(&nodes, other)], [true, call == 4]);
    }
    let third = TenantId::from_name(&name("third"));
    nodes.change(0, 5, token(third, Scope::TenantAdmin, TokenChange::Revoke));
    assert_eq!(nodes.answer(5).expect_err("it has none of that name").code, ErrorCode::NotFound);
}

#[test]
pub(crate) fn buckets_of_one_name_in_two_tenants_are_two_buckets() {
    let (mut nodes, other) = (Nodes::connected(2), TenantId::from_name(&name("other")));
    let third = TenantId::from_name(&name("third"));
    let create = |of| CatalogChange::BucketCreate(of, name("cart"), BucketProps::default());
    for (call, of) in [(1, other), (2, tenant())] {
        nodes.change(0, call, create(of));
        nodes.deliver();
        assert!(nodes.answer(call).is_ok(), "the names do not collide");
    }
    let view = ClusterView::new(layout(3), nodes.all[1].records());
    let key = Bytes::from_static(b"k");
    let of = |tenant| view.target(tenant, &name("cart"), &key);
    for tenant in [tenant(), other] {
        let target = of(tenant).expect("it has one of that name");
        assert_eq!((target.object.tenant, target.bucket.tenant), (tenant, tenant));
    }
    assert_ne!(of(tenant()).expect("one").store_key, of(other).expect("the other").store_key);
    assert_eq!(of(third).expect_err("it has none of that name").code, ErrorCode::NotFound);
}

#[test]
pub(crate) fn a_tenants_administrator_neither_makes_nor_takes_over_an_operators_token() {
    let mut nodes = Nodes::connected(2);
    let operators = TokenChange::Create(Grant::of(Scope::Operator), [1; 32]);
    let denied = |nodes: &mut Nodes, call, change: &TokenChange| {
        nodes.change(0, call, token(tenant(), Scope::TenantAdmin, change.clone()));
        let error = nodes.answer(call).expect_err("that is an operator's");
        assert_eq!(error.code, ErrorCode::Denied, "{error}");
        assert!(error.message.contains("it takes a token of scope operator"), "{error}");
    };
    denied(&mut nodes, 1, &operators);
    nodes.change(0, 2, token(tenant(), Scope::Operator, operators));
    nodes.deliver();
    assert!(nodes.answer(2).is_ok());
    denied(&mut nodes, 3, &TokenChange::Rotate([2; 32], 1_000));
    denied(&mut nodes, 4, &TokenChange::Revoke);
    assert!(!is_revoked(&nodes, tenant()));
}

#[test]
fn a_rotated_token_keeps_its_old_secret_for_a_while_and_a_revoked_one_has_none_to_rotate() {
    let mut nodes = Nodes::connected(2);
    let change = |nodes: &mut Nodes, call, change| {
        nodes.change(0, call, token(tenant(), Scope::TenantAdmin, change));
        nodes.deliver();
        nodes.answer(call)
    };
    change(&mut nodes, 1, made(1)).expect("a new one");
    let secrets = |record: rejoin_proto::catalog::Record| match record.body {
        RecordBody::Token { secret_hash, before, .. } => {
            (secret_hash[0], before.map(|old| (old.hash[0], old.until_ms)))
        }
        other => panic!("a token was expected, not {other:?}"),
    };
    let wall_ms = nodes.wall_ms;
    let rotated = change(&mut nodes, 2, TokenChange::Rotate([2; 32], 500)).expect("another secret");
    assert_eq!(secrets(rotated.clone()), (2, Some((1, wall_ms + 500))));
    assert_eq!(secrets(rotated.without_secrets()), (0, None), "what leaves the cluster");
    let again = change(&mut nodes, 3, TokenChange::Rotate([3; 32], u64::MAX)).expect("another secret");
    assert_eq!(secrets(again), (3, Some((2, u64::MAX))), "the oldest ends");
    let at_once = change(&mut nodes, 4, TokenChange::Rotate([4; 32], 0)).expect("another secret");
    assert_eq!(secrets(at_once), (4, None));
    assert!(nodes.agree());

    change(&mut nodes, 5, TokenChange::Revoke).expect("it is there");
    let error = change(&mut nodes, 6, TokenChange::Rotate([5; 32], 500)).expect_err("it has ended");
    assert_eq!(error.code, ErrorCode::NotFound);
    assert_eq!(secrets(change(&mut nodes, 7, made(6)).expect("made anew")), (6, None));
    assert_eq!(change(&mut nodes, 8, made(7)).expect_err("it is there").code, ErrorCode::Exists);
}

#[test]
fn a_barred_name_stays_barred_and_has_no_token_any_more() {
    let mut nodes = Nodes::connected(2);
    let change = |nodes: &mut Nodes, call, change| {
        nodes.change(0, call, token(tenant(), Scope::TenantAdmin, change));
        nodes.deliver();
        nodes.answer(call)
    };
    let is_barred = |record: &rejoin_proto::catalog::Record| {
        matches!(record.body, RecordBody::Token { revoked: true, barred: true, .. })
    };
    // With and without a token of the name, and revoked before.
    change(&mut nodes, 1, made(1)).expect("a new one");
    change(&mut nodes, 2, TokenChange::Revoke).expect("it is there");
    let barred = change(&mut nodes, 3, TokenChange::Bar).expect("revoked is not barred");
    assert!(is_barred(&barred) && nodes.agree());
    assert_eq!(change(&mut nodes, 4, TokenChange::Bar).expect("as it is"), barred);
    assert_eq!(change(&mut nodes, 5, TokenChange::Revoke).expect("as it is"), barred, "a revocation lifts nothing");
    assert_eq!(change(&mut nodes, 6, made(2)).expect_err("the name is used up").code, ErrorCode::Exists);
    nodes.change(0, 7, CatalogChange::Token(tenant(), name("other"), Scope::TenantAdmin, TokenChange::Bar));
    nodes.deliver();
    assert!(is_barred(&nodes.answer(7).expect("no token is needed")));

    // A revocation at another node at the same time may win: then whoever has barred the name is told.
    let mut nodes = Nodes::new(2);
    for at in [0, 1] {
        nodes.change(at, 1 + at as u64, token(tenant(), Scope::TenantAdmin, made(1)));
        assert!(nodes.answer(1 + at as u64).is_ok());
    }
    nodes.connect(0, 1);
    nodes.change(0, 3, token(tenant(), Scope::TenantAdmin, TokenChange::Bar));
    nodes.change(1, 4, token(tenant(), Scope::TenantAdmin, TokenChange::Revoke));
    nodes.deliver();
    let answer = nodes.answer(3);
    let kept = nodes.all[0].get(&RecordKey::Token(tenant(), name("app"))).expect("a token").clone();
    assert!(nodes.agree() && answer.is_ok() == is_barred(&kept), "{answer:?}, {kept:?}");
}

#[test]
fn a_token_with_limits_that_it_could_shed_is_refused() {
    let mut nodes = Nodes::connected(2);
    let limits = Limits { buckets: vec![name("cart")], ..Limits::default() };
    let grant = Grant { limits, ..Grant::of(Scope::TenantAdmin) };
    nodes.change(0, 1, token(tenant(), Scope::Operator, TokenChange::Create(grant, [1; 32])));
    let error = nodes.answer(1).expect_err("it could make another one");
    assert!(error.code == ErrorCode::BadRequest && error.message.contains("only read-only and read-write"), "{error}");
}
