//! Who may do what: every cell of the core's table at a real node, tenants beside each other, and tokens that end.

use std::time::Duration;

use rejoin_client::admin::{
    BucketProps, Component, Grant, LayoutChanges, Limits, Name, NewToken, PluginDigest, PushChecks, Quota,
    ReceiptFilter, Scope, SignerKey,
};
use rejoin_client::{Bytes, Client, Error, ErrorKind};
use rejoin_core::access::{Verb, Whose, allows, least_scope};
use rejoin_proto::client::{
    AdminRequest, ClientHello, HelloReply, PROTOCOL, Reply, ReplyEnvelope, Request, RequestBody,
};
use rejoin_proto::{ErrorCode, codec};
use rejoin_test_shell::{Setup, World, simulate};
use rejoin_wire::{Class, Connection, Endpoint, Identity, Validity};

const ONE: Setup = Setup { seed: 1, nodes: &["n1"], more: "", latency_ms: (1, 1) };

/// The bucket that every tenant has.
const BUCKET: &str = "plain";

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn props() -> BucketProps {
    BucketProps { n: 1, ..BucketProps::default() }
}

/// An operator in a tenant, which is made with the bucket `plain`.
async fn tenant(world: &World, tenant: &str) -> Client {
    let operator = world.client().await;
    if tenant != "default" {
        operator.admin().create_tenant(tenant).await.unwrap();
    }
    let client = world.patiently(|| world.builder().tenant(tenant)).await;
    client.admin().create_bucket(BUCKET, props()).await.unwrap();
    client
}

/// Asks for that, and may be denied it. Everything else that can go wrong shows that it was allowed.
async fn attempt(client: &Client, verb: Verb, fresh: &str) -> Result<(), Error> {
    let (admin, bucket) = (client.admin(), client.bucket::<Bytes>(BUCKET).unwrap());
    let nobody = PluginDigest([9; 32]);
    match verb {
        Verb::Read => bucket.get("k").await.map(|_| ()),
        Verb::Write => bucket.put("k", b"v".to_vec()).blind().await.map(|_| ()),
        Verb::ConflictShow => admin.conflicts(BUCKET).await.map(|_| ()),
        Verb::FoldUndo => {
            let filter = ReceiptFilter { undo: true, ..ReceiptFilter::default() };
            admin.receipts(BUCKET, filter).await.map(|_| ())
        }
        Verb::BucketShow => admin.buckets().await.map(|_| ()),
        Verb::BucketCreate => admin.create_bucket(fresh, props()).await.map(|_| ()),
        Verb::BucketSet => admin.set_bucket(BUCKET, 99, props()).await.map(|_| ()),
        Verb::BucketDelete => admin.restore_bucket("nobody").await.map(|_| ()),
        Verb::BucketQuota => admin.set_quota(Some("nobody"), Quota::default()).await.map(|_| ()),
        Verb::PluginShow => admin.plugins().await.map(|_| ()),
        Verb::PluginPush => admin.push_plugin("none", b"no component".to_vec()).await.map(|_| ()),
        Verb::PluginPushUnchecked => admin.push_plugin_unchecked("none", b"no component".to_vec()).await.map(|_| ()),
        Verb::PluginPushSiblings => {
            let checks = PushChecks { siblings_of: Some(name(BUCKET)), ..PushChecks::default() };
            let component = Component { checks, ..b"no component".to_vec().into() };
            admin.push_plugin_with_report("none", component, |_| {}).await.map(|_| ())
        }
        Verb::PluginRelease => admin.release_plugin(nobody).await.map(|_| ()),
        Verb::PluginDelete => admin.delete_plugin(nobody, Duration::ZERO).await.map(|_| ()),
        Verb::SignersSet => admin.remove_signer(SignerKey([9; 32])).await.map(|_| ()),
        Verb::TokenShow => admin.tokens().await.map(|_| ()),
        Verb::TokenCreate => admin.create_token(fresh, Scope::ReadOnly).await.map(|_| ()),
        Verb::TokenRotate => admin.rotate_token("nobody", Duration::ZERO).await.map(|_| ()),
        Verb::TokenRevoke => admin.revoke_token("nobody").await.map(|_| ()),
        Verb::TenantShow => admin.tenants().await.map(|_| ()),
        Verb::TenantCreate => admin.create_tenant(fresh).await.map(|_| ()),
        Verb::TenantDelete => admin.restore_tenant("nobody").await.map(|_| ()),
        Verb::TenantQuota => admin.set_quota(None, Quota::default()).await.map(|_| ()),
        Verb::ClusterShow => admin.status().await.map(|_| ()),
        Verb::AuditShow => admin.audit(1).await.map(|_| ()),
        Verb::ShadowShow => admin.shadow_counts(BUCKET).await.map(|_| ()),
        Verb::ShadowSamples => admin.shadow_reports(BUCKET).await.map(|_| ()),
        Verb::PluginFetch => admin.fetch_plugin(nobody).await.map(|_| ()),
        Verb::ClusterChange => admin.stage_layout(LayoutChanges::default()).await.map(|_| ()),
    }
}

#[test]
fn every_cell_of_the_table_is_what_a_node_does() {
    simulate(&ONE, |world| async move {
        let (home, _) = (tenant(&world, "home").await, tenant(&world, "away").await);
        let mut denials = 0;
        for scope in Scope::ALL {
            let token = home.admin().create_token(scope.as_str(), scope).await.unwrap();
            for (whose, in_tenant) in [(Whose::Own, "home"), (Whose::Other, "away")] {
                let client = world.builder().token(token.text()).tenant(in_tenant).connect().await;
                for verb in Verb::ALL {
                    let fresh = format!("{scope}-{in_tenant}-{}", denials);
                    let done = match &client {
                        Ok(client) => attempt(client, verb, &fresh).await,
                        // A token that may do nothing there is not let in.
                        Err(error) => {
                            assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
                            let least = least_scope(verb, whose);
                            assert!(error.to_string().contains(&format!("takes a token of scope {least}")), "{error}");
                            assert!(!allows(scope, verb, whose), "{scope} {verb:?} {whose:?}: not let in");
                            denials += 1;
                            continue;
                        }
                    };
                    let denied = done.err().filter(|error| error.kind() == ErrorKind::Denied);
                    let may = allows(scope, verb, whose);
                    assert_eq!(denied.is_none(), may, "{scope} {verb:?} {whose:?}: {denied:?}");
                    if let Some(error) = denied {
                        let least = least_scope(verb, whose);
                        assert!(error.to_string().contains(&format!("takes a token of scope {least}")), "{error}");
                        denials += 1;
                    }
                }
            }
        }
        // Four scopes are shut out of the other tenant; at home they may do less and less.
        assert!(denials > 4 * Verb::ALL.len(), "{denials}");
    });
}

#[test]
fn two_tenants_with_one_bucket_name_see_only_their_own() {
    simulate(&Setup { nodes: &["n1", "n2", "n3"], ..ONE }, |world| async move {
        let (red, blue) = (tenant(&world, "red").await, tenant(&world, "blue").await);
        assert_eq!((red.tenant(), blue.tenant()), ("red", "blue"));
        let bucket = |client: &Client| client.bucket::<Bytes>(BUCKET).unwrap();
        let written = bucket(&red).put("k", b"red".to_vec()).create().await.unwrap();
        // To the other tenant the key is new.
        bucket(&blue).put("k", b"blue".to_vec()).create().await.unwrap();
        for (client, value) in [(&red, "red"), (&blue, "blue")] {
            assert_eq!(bucket(client).get("k").await.unwrap().value.as_deref(), Some(value.as_bytes()));
        }
        // A context is of one tenant's key.
        let error = bucket(&blue).put("k", b"x".to_vec()).context(&written.context).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadContext, "{error}");

        // Tokens of one name are two, and each ends alone.
        let (of_red, of_blue) = (token(&red, Scope::ReadWrite).await, token(&blue, Scope::ReadWrite).await);
        assert!(of_red.text().starts_with("red/app:") && of_blue.text().starts_with("blue/app:"));
        red.admin().revoke_token("app").await.unwrap();
        let error = world.builder().token(of_red.text()).connect().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        let app = world.builder().token(of_blue.text()).connect().await.unwrap();
        assert_eq!(bucket(&app).get("k").await.unwrap().value.as_deref(), Some(&b"blue"[..]));
        assert_eq!(red.admin().tokens().await.unwrap().len(), 1, "the list has no token of another tenant");

        let error = world.builder().tenant("green").connect().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        // Whether there is such a tenant is told to operators only.
        for tenant in ["red", "green"] {
            let error = world.builder().token(of_blue.text()).tenant(tenant).connect().await.unwrap_err();
            assert!(error.to_string().contains("may not read in another tenant"), "{error}");
        }
    });
}

async fn token(client: &Client, grant: impl Into<Grant>) -> NewToken {
    client.admin().create_token("app", grant).await.unwrap()
}

#[test]
fn a_limited_token_reads_and_writes_its_keys_and_lists_its_buckets() {
    simulate(&ONE, |world| async move {
        let home = tenant(&world, "home").await;
        home.admin().create_bucket("other", props()).await.unwrap();
        let limits = Limits { buckets: vec![name(BUCKET)], prefix: "eu/".into() };
        let token = token(&home, Grant { limits, ..Grant::of(Scope::ReadWrite) }).await;
        let app = world.builder().token(token.text()).connect().await.unwrap();
        let bucket = |name| app.bucket::<Bytes>(name).unwrap();
        bucket(BUCKET).put("eu/alice", b"v".to_vec()).create().await.unwrap();
        for (name, key) in [(BUCKET, "us/alice"), ("other", "eu/alice")] {
            let read = bucket(name).get(key).await.map(|_| ()).unwrap_err();
            let written = bucket(name).put(key, b"v".to_vec()).blind().await.map(|_| ()).unwrap_err();
            for error in [read, written] {
                assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
                assert!(error.to_string().contains("takes a token of scope read-write without that limit"), "{error}");
            }
        }
        let listed = app.admin().buckets().await.unwrap();
        assert_eq!(listed.iter().map(|bucket| bucket.name.as_str()).collect::<Vec<_>>(), [BUCKET]);
    });
}

/// A connection, with the endpoint without which it would end.
struct Idle {
    connection: Connection,
    _endpoint: Endpoint,
}

impl Idle {
    /// Why it has ended, once it has.
    async fn closed(&self) -> String {
        self.connection.closed().await.to_string()
    }

    fn is_open(&self) -> bool {
        self.connection.close_reason().is_none()
    }
}

/// Says hello with a token and perhaps a certificate.
async fn hello(world: &World, node: &str, identity: Identity, token: &str) -> (Idle, HelloReply) {
    let endpoint = world.endpoint(0, identity);
    let connection = endpoint.connect_client(world.address(node)).await.unwrap();
    let hello = ClientHello { protocol: PROTOCOL, token: token.into(), tenant: None, client: "idle".into() };
    connection.sender().try_send(Class::Control, 0, codec::encode(&hello).into()).unwrap();
    let answer = codec::decode(&connection.recv().await.unwrap().body).unwrap();
    (Idle { connection, _endpoint: endpoint }, answer)
}

/// Connects with a token, and then says nothing.
async fn idle(world: &World, node: &str, token: &str) -> Idle {
    let identity = Identity::client(world.files.ca_pem(), None).unwrap();
    let (idle, answer) = hello(world, node, identity, token).await;
    assert!(matches!(answer, HelloReply::Welcome(_)), "{answer:?}");
    idle
}

#[test]
fn idle_connections_end_with_their_token_at_every_node() {
    simulate(&Setup { nodes: &["n1", "n2", "n3"], ..ONE }, |world| async move {
        let home = tenant(&world, "home").await;
        let used = token(&home, Scope::ReadWrite).await;
        let kept = home.admin().create_token("kept", Scope::ReadWrite).await.unwrap();
        let mut connections = Vec::new();
        for node in ["n1", "n2", "n3"] {
            connections.push((idle(&world, node, used.text()).await, idle(&world, node, kept.text()).await));
        }
        home.admin().revoke_token("app").await.unwrap();
        for (ends, stays) in connections {
            let why = ends.closed().await;
            assert!(why.contains("the token was revoked"), "{why}");
            assert!(stays.is_open(), "a token of another name");
        }
    });
}

#[test]
fn a_token_that_expires_ends_its_connections_and_lets_nobody_in() {
    simulate(&ONE, |world| async move {
        let home = tenant(&world, "home").await;
        let now_ms = turmoil::since_epoch().unwrap().as_millis() as u64;
        let token = token(&home, Grant { expires_ms: Some(now_ms + 3_000), ..Grant::of(Scope::ReadWrite) }).await;
        let idle = idle(&world, "n1", token.text()).await;
        let why = idle.closed().await;
        assert!(why.contains("has expired"), "{why}");
        assert!(turmoil::since_epoch().unwrap().as_millis() as u64 >= now_ms + 3_000, "it lived as long as it could");
        let error = world.builder().token(token.text()).connect().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    });
}

#[test]
fn two_secrets_of_a_rotated_token_overlap_and_the_old_one_ends() {
    simulate(&ONE, |world| async move {
        let home = tenant(&world, "home").await;
        let old = token(&home, Scope::ReadWrite).await;
        let before = idle(&world, "n1", old.text()).await;
        let new = home.admin().rotate_token("app", Duration::from_secs(5)).await.unwrap();
        assert_ne!(old.text(), new.text());
        let (on_old, on_new) = (idle(&world, "n1", old.text()).await, idle(&world, "n1", new.text()).await);
        assert!(before.is_open(), "a rotation ends nothing at once");
        let listed = home.admin().tokens().await.unwrap();
        assert!(listed[0].rotating_until_ms.is_some() && listed[0].last_used_ms.is_some(), "{listed:?}");
        let rotated = world.now();
        tokio::join!(before.closed(), on_old.closed());
        assert!(world.now() - rotated >= Duration::from_secs(4), "the overlap was kept");
        assert!(on_new.is_open());
        let error = world.builder().token(old.text()).connect().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        world.builder().token(new.text()).connect().await.unwrap();
        assert_eq!(home.admin().tokens().await.unwrap()[0].rotating_until_ms, None);
    });
}

#[test]
fn a_certificate_of_a_tenant_is_an_identity_and_its_name_can_be_barred() {
    simulate(&Setup { nodes: &["n1", "n2"], ..ONE }, |world| async move {
        let home = tenant(&world, "home").await;
        // TLS has the machine's clock, not that of the simulation.
        let now = std::time::SystemTime::now();
        let certified = |owner: &str| {
            let (ca, valid) = (world.files.ca(), Validity::days(now, 30));
            let issued = ca.issue_tenant(&name("home"), Scope::ReadOnly, &name(owner), valid).unwrap();
            Identity::client(ca.cert_pem(), Some((&issued.cert_pem, &issued.key_pem))).unwrap()
        };
        let (app, answer) = hello(&world, "n1", certified("app"), "").await;
        let HelloReply::Welcome(welcome) = answer else { panic!("{answer:?}") };
        assert_eq!(welcome.tenant.as_str(), "home");
        // Its scope is that of the certificate.
        let body = RequestBody::Admin(AdminRequest::TenantCreate { name: name("more") });
        let request = Request { deadline_ms: 1_000, trace: 0, layout: welcome.routes.layout.name(), body };
        app.connection.sender().try_send(Class::Request, 1, codec::encode(&request).into()).unwrap();
        let answer: ReplyEnvelope = codec::decode(&app.connection.recv().await.unwrap().body).unwrap();
        let Reply::Error(error) = answer.reply else { panic!("{answer:?}") };
        assert!(error.message.contains("token app (read-only) may not make tenants"), "{error}");

        // A token beside it does not raise it.
        let (_, answer) = hello(&world, "n1", certified("app"), &world.files.token()).await;
        let HelloReply::Refused(error) = answer else { panic!("{answer:?}") };
        assert_eq!(error.code, ErrorCode::Denied, "{error}");

        // Barred at one node, it ends at the other one too, for good; another name does not.
        let (elsewhere, _) = hello(&world, "n2", certified("app"), "").await;
        let (other, _) = hello(&world, "n2", certified("other"), "").await;
        home.admin().revoke_certificates("app").await.unwrap();
        tokio::join!(app.closed(), elsewhere.closed());
        assert!(other.is_open());
        let (_, answer) = hello(&world, "n2", certified("app"), "").await;
        assert!(matches!(answer, HelloReply::Refused(_)), "{answer:?}");
        let error = home.admin().create_token("app", Scope::ReadOnly).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Exists, "{error}");
    });
}

#[test]
fn the_book_has_the_table() {
    let book = concat!(env!("CARGO_MANIFEST_DIR"), "/../../host/cli/book/share-a-cluster.md");
    let book = std::fs::read_to_string(book).unwrap();
    let cell = |yes: bool| if yes { " yes |" } else { " |" };
    let scopes: String = Scope::ALL.iter().map(|scope| format!(" {scope} |")).collect();
    let mut table = format!("| |{scopes}\n|---|---|---|---|---|---|\n");
    for verb in Verb::ALL {
        let row: String = Scope::ALL.iter().map(|scope| cell(allows(*scope, verb, Whose::Own))).collect();
        table.push_str(&format!("| {} |{row}\n", verb.as_str()));
        for scope in Scope::ALL {
            assert_eq!(allows(scope, verb, Whose::Other), scope == Scope::Operator, "the page says so in a sentence");
        }
    }
    assert!(book.contains(&table), "the page has another table than\n{table}");
}
