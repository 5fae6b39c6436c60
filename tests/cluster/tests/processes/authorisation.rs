//! Every cell of the table of who may do what, walked through a real node by the real command line: what is denied ends
//! with exit code 5, and the message names the scope that would allow it.
//!
//! A command may ask for something else before, which the table denies first. Then the same cell is also asked for by
//! the SDK, alone.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rejoin_client::admin::{BucketProps, PluginDigest, Quota, ReceiptFilter, Scope, SignerKey};
use rejoin_client::{Bytes, Client, ErrorKind};
use rejoin_core::access::{Denial, Verb, Whose, allows};
use rejoin_test_cluster::{Cluster, cli};
use rejoin_test_hostile::guests;

/// The tenant of the tokens, and another one.
const OWN: &str = "red";
const OTHER: &str = "blue";
const LONG: Duration = Duration::from_secs(86_400);

/// What both tenants have: a bucket `notes`, a plugin that no bucket uses, a token `victim`.
async fn furnish(cluster: &Cluster, tenant: &str) -> PluginDigest {
    let admin = cluster.builder(0).tenant(tenant).connect().await.unwrap().admin();
    admin.create_bucket("notes", BucketProps { n: 1, ..BucketProps::default() }).await.unwrap();
    admin.create_token("victim", Scope::ReadOnly).await.unwrap();
    admin.push_plugin("first", guests::first()).await.unwrap().digest
}

/// A profile with another token.
fn profile(cluster: &Cluster, scope: Scope, token: &str) -> PathBuf {
    let text = std::fs::read_to_string(cluster.files.profile()).unwrap();
    let kept = text.lines().filter(|line| !line.starts_with("token")).map(|line| format!("{line}\n"));
    let path = cluster.files.dir.join(format!("{scope}.toml"));
    std::fs::write(&path, kept.collect::<String>() + &format!("token = \"{token}\"\n")).unwrap();
    path
}

/// One cell.
struct Cell<'a> {
    scope: Scope,
    verb: Verb,
    whose: Whose,
    plugin: &'a str,
}

impl Cell<'_> {
    /// The tenant that it is about.
    fn tenant(&self) -> &'static str {
        if self.whose == Whose::Own { OWN } else { OTHER }
    }

    /// The command, and what it asks for before, if it does.
    fn command(&self) -> (Vec<String>, &'static [Verb]) {
        let (tenant, plugin) = (self.tenant(), self.plugin);
        // What is made or deleted where it is allowed is nothing that another cell needs.
        let unique = format!("{}-{}", self.scope, tenant);
        let doomed = if self.scope == Scope::Operator { "doomed" } else { tenant };
        let (line, before): (String, &[Verb]) = match self.verb {
            Verb::Read => ("get notes k".into(), &[]),
            Verb::Write => ("put notes k v --blind".into(), &[]),
            Verb::ConflictShow => ("conflict list notes".into(), &[]),
            Verb::FoldUndo => {
                let command = format!("plugin undo notes --plugin {plugin} --dry-run");
                (command, &[Verb::PluginShow, Verb::BucketShow])
            }
            Verb::BucketShow => ("bucket list".into(), &[]),
            Verb::BucketCreate => (format!("bucket create {unique} --n 1"), &[]),
            Verb::BucketSet => ("bucket set notes --r 1".into(), &[Verb::BucketShow]),
            Verb::BucketDelete => ("bucket delete notes --yes".into(), &[Verb::BucketShow, Verb::TenantShow]),
            Verb::BucketQuota => ("bucket quota notes --objects 1000".into(), &[Verb::BucketShow, Verb::TenantShow]),
            Verb::PluginShow => ("plugin list".into(), &[]),
            Verb::PluginPush => ("plugin push first.wasm".into(), &[]),
            Verb::PluginPushUnchecked => ("plugin push first.wasm --unchecked".into(), &[]),
            Verb::PluginPushSiblings => ("plugin push first.wasm --siblings-of notes".into(), &[]),
            Verb::PluginRelease => (format!("plugin release {plugin}"), &[]),
            Verb::PluginDelete => (format!("plugin delete {plugin} --yes"), &[Verb::PluginShow]),
            Verb::SignersSet => (format!("tenant signers {tenant} remove {}", SignerKey([9; 32])), &[]),
            Verb::TokenShow => ("token list".into(), &[]),
            Verb::TokenCreate => (format!("token create {unique} --scope read-only"), &[]),
            Verb::TokenRotate => ("token rotate victim".into(), &[]),
            Verb::TokenRevoke => ("token revoke victim".into(), &[]),
            Verb::TenantShow => ("tenant list".into(), &[]),
            Verb::TenantCreate => (format!("tenant create new-{unique}"), &[]),
            Verb::TenantDelete => (format!("tenant delete {doomed} --yes"), &[Verb::BucketShow, Verb::TenantShow]),
            Verb::TenantQuota => (format!("tenant quota {tenant} --objects 1000"), &[Verb::TenantShow]),
            Verb::ClusterShow => ("status".into(), &[]),
            Verb::ClusterChange => ("exchange start".into(), &[Verb::ClusterShow]),
            Verb::AuditShow => ("audit list".into(), &[Verb::ClusterShow]),
            Verb::ShadowShow => ("plugin shadow notes --counts".into(), &[]),
            Verb::ShadowSamples => ("plugin shadow notes".into(), &[]),
            Verb::PluginFetch => (format!("plugin fetch {plugin} -o {unique}.wasm"), &[Verb::PluginShow]),
        };
        let mut words: Vec<String> = line.split(' ').map(ToOwned::to_owned).collect();
        if self.whose == Whose::Other {
            words.extend(["--tenant".to_owned(), OTHER.to_owned()]);
        }
        (words, before)
    }

    /// The words of the denial of a verb.
    fn denial(&self, verb: Verb) -> String {
        Denial::Scope { verb, whose: self.whose }.to_string()
    }

    /// Runs the command. Returns whether it was denied because of the cell's own verb.
    fn walk(&self, dir: &Path, profile: &Path) -> Result<bool, String> {
        let (words, before) = self.command();
        let arguments: Vec<&str> = words.iter().map(String::as_str).collect();
        let ran = cli::rejoin(dir, Some(profile), &arguments, b"");
        let refused = before.iter().copied().chain([self.verb]).find(|verb| !allows(self.scope, *verb, self.whose));
        let wrong = |what: &str| Err(format!("{} in {}: {words:?}: {what}: {ran:?}", self.scope, self.tenant()));
        // A token that may do nothing in the tenant that it names is not let in at all.
        let refused = refused.map(|verb| if self.whose == Whose::Other { Verb::Read } else { verb });
        // These nodes check no laws, which only those are told that may ask for it.
        let is_allowed = matches!(ran.code, Some(0 | 1)) || ran.talk.contains("this node checks no laws");
        match refused {
            None if is_allowed => Ok(false),
            None => wrong("the table allows it"),
            Some(verb) if ran.code == Some(5) && ran.talk.contains(&self.denial(verb)) => {
                Ok(verb == self.verb || self.whose == Whose::Other)
            }
            Some(verb) => wrong(&format!("exit code 5 and {:?} were expected", self.denial(verb))),
        }
    }

    /// Asks for the verb and nothing else, and must be denied.
    async fn ask(&self, client: &Client, plugin: PluginDigest) {
        let (admin, bucket) = (client.admin(), client.bucket::<Bytes>("notes").unwrap());
        let outcome = match self.verb {
            Verb::BucketSet => admin.set_bucket("notes", 1, BucketProps::default()).await.map(drop),
            Verb::BucketDelete => admin.delete_bucket("notes", LONG).await.map(drop),
            Verb::BucketQuota => admin.set_quota(Some("notes"), Quota::default()).await.map(drop),
            Verb::PluginDelete => admin.delete_plugin(plugin, LONG).await.map(drop),
            Verb::TenantDelete => admin.delete_tenant(self.tenant(), LONG).await.map(drop),
            Verb::TenantQuota => admin.set_quota(None, Quota::default()).await.map(drop),
            Verb::ClusterChange => admin.pause_exchange(false).await.map(drop),
            Verb::AuditShow => admin.audit(0).await.map(drop),
            Verb::PluginFetch => admin.fetch_plugin(plugin).await.map(drop),
            Verb::FoldUndo => {
                let filter = ReceiptFilter { undo: true, ..ReceiptFilter::default() };
                admin.receipts("notes", filter).await.map(drop)
            }
            // The command asks for these alone.
            _ => bucket.get("k").await.map(drop),
        };
        let error = outcome.expect_err("the table denies it");
        assert_eq!(error.kind(), ErrorKind::Denied, "{:?}: {error}", self.verb);
        assert!(error.to_string().contains(&self.denial(self.verb)), "{:?}: {error}", self.verb);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_cell_of_the_table_is_walked_and_what_is_denied_ends_with_exit_code_5() {
    let cluster = Cluster::start(1).await;
    let operator = cluster.client().await.admin();
    for tenant in [OWN, OTHER, "doomed"] {
        operator.create_tenant(tenant).await.unwrap();
    }
    let plugin = furnish(&cluster, OWN).await;
    assert_eq!(furnish(&cluster, OTHER).await, plugin);
    std::fs::write(cluster.files.dir.join("first.wasm"), guests::first()).unwrap();
    let within = cluster.builder(0).tenant(OWN).connect().await.unwrap().admin();
    let mut cast = Vec::new();
    for scope in Scope::ALL {
        let token = within.create_token(scope.as_str(), scope).await.unwrap();
        let client = cluster.builder(0).token(token.text()).connect().await.unwrap();
        cast.push((scope, profile(&cluster, scope, token.text()), client));
    }
    let digest = plugin.to_string();
    let (mut wrong, mut denied, mut allowed, mut alone) = (Vec::new(), 0, 0, 0);
    // What ends something comes last, and the scopes that may do it behind those that may not.
    let ends =
        |verb: &Verb| matches!(verb, Verb::BucketDelete | Verb::PluginDelete | Verb::TokenRevoke | Verb::TenantDelete);
    let mut verbs = Verb::ALL;
    verbs.sort_by_key(ends);
    for (verb, whose) in verbs.into_iter().flat_map(|verb| [(verb, Whose::Own), (verb, Whose::Other)]) {
        for (scope, profile, client) in &cast {
            let cell = Cell { scope: *scope, verb, whose, plugin: &digest };
            let is_denied = !allows(*scope, verb, whose);
            match cell.walk(&cluster.files.dir, profile) {
                Err(what) => wrong.push(what),
                Ok(by_itself) if is_denied && !by_itself => {
                    cell.ask(client, plugin).await;
                    alone += 1;
                }
                Ok(_) => {}
            }
            *(if is_denied { &mut denied } else { &mut allowed }) += 1;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    println!("{denied} cells are denied with exit code 5, {alone} of them by the SDK alone; {allowed} are allowed");
    assert_eq!(denied + allowed, Scope::ALL.len() * Verb::ALL.len() * 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limited_token_ends_with_exit_code_5_outside_its_buckets_and_keys() {
    let cluster = Cluster::start(1).await;
    for bucket in ["notes", "other"] {
        cluster.bucket(bucket, BucketProps { n: 1, ..BucketProps::default() }).await;
    }
    let created = ["token", "create", "app", "--bucket", "notes", "--prefix", "eu/"];
    let token = cluster.rejoin(&created).done().text().to_owned();
    let profile = profile(&cluster, Scope::ReadWrite, &token);
    let run = |arguments: &[&str]| cli::rejoin(&cluster.files.dir, Some(&profile), arguments, b"");
    run(&["put", "notes", "eu/k", "v"]).done();
    for arguments in [["get", "notes", "us/k"], ["get", "other", "eu/k"]] {
        run(&arguments).said(5, "this takes a token of scope read-write without that limit");
    }
    run(&["put", "notes", "us/k", "v", "--blind"]).said(5, "opens only");
    run(&["delete", "other", "eu/k", "--blind"]).said(5, "opens only");
}
