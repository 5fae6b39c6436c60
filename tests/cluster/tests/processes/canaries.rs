//! A tenant's values, keys and secrets carry canaries. After a workload with merges, faults, failed merges, trapping
//! plugins, refused requests and a killed node they are in no log, metric, health report, audit log or file beside the
//! data, in no reply to another tenant, and in no memory of another tenant's plugins.

use std::path::Path;

use rejoin_client::admin::{Admin, BucketProps, Limit, Quota, Scope};
use rejoin_client::{Bucket, Bytes, Client, Context, ErrorKind};
use rejoin_test_cluster::{Cluster, cli, eventually, http};
use rejoin_test_hostile::guests;

/// The most verbose log that operators are told to use.
const LOG: &str = "debug,rejoin_node=trace";
/// What values and keys of the tenant have in them.
const VALUE: &str = "cAnArY-vAlUe-5f1d";
const KEY: &str = "cAnArY-kEy-83b2";
/// A bucket that both tenants have, and one that only this one has.
const NAME: &str = "notes";
const OWN: &str = "canary-name-c96e";
/// How often a value repeats its canary: large enough to lie over much of a guest's memory, and small enough for a
/// guest with little of it.
const LARGE: usize = 6_000;
const SMALL: usize = 20;

/// What is looked for, and where it was found.
struct Search {
    canaries: Vec<(String, Vec<Vec<u8>>)>,
    found: Vec<String>,
    looked_at: u64,
}

impl Search {
    fn new(canaries: &[&str]) -> Self {
        let forms = |text: &&str| {
            let bytes = text.as_bytes();
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            let list = bytes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            ((*text).to_owned(), vec![bytes.to_vec(), hex.into_bytes(), list.into_bytes()])
        };
        Self { canaries: canaries.iter().map(forms).collect(), found: Vec::new(), looked_at: 0 }
    }

    fn has(&self, bytes: &[u8]) -> Vec<&str> {
        let is_in = |needle: &Vec<u8>| memchr::memmem::find(bytes, needle).is_some();
        let seen = self.canaries.iter().filter(|(_, forms)| forms.iter().any(is_in));
        seen.map(|(text, _)| text.as_str()).collect()
    }

    /// There must be none in it.
    fn look(&mut self, place: &str, bytes: &[u8]) {
        self.looked_at += bytes.len() as u64;
        let found: Vec<String> = self.has(bytes).into_iter().map(|canary| format!("{canary} in {place}")).collect();
        self.found.extend(found);
    }

    /// Looks at all files below a directory that are not excepted.
    fn look_at_files(&mut self, dir: &Path, excepted: &dyn Fn(&Path) -> bool) {
        for entry in std::fs::read_dir(dir).unwrap().flatten() {
            let path = entry.path();
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => self.look_at_files(&path, excepted),
                // Files come and go.
                Ok(kind) if kind.is_file() && !excepted(&path) => {
                    let bytes = std::fs::read(&path).unwrap_or_default();
                    self.look(&path.display().to_string(), &bytes);
                }
                _ => {}
            }
        }
    }
}

fn value(number: usize) -> Vec<u8> {
    value_of(number, LARGE)
}

fn value_of(number: usize, repeated: usize) -> Vec<u8> {
    format!("{number} {}", VALUE.repeat(repeated)).into_bytes()
}

fn key(number: usize) -> String {
    format!("{KEY} {number}")
}

/// A tenant with a bucket for each kind of plugin.
struct Tenant {
    admin: Admin,
    client: Client,
    token: String,
}

impl Tenant {
    async fn new(cluster: &Cluster, tenant: &str, name: &str) -> Self {
        cluster.client().await.admin().create_tenant(tenant).await.unwrap();
        let admin = cluster.builder(0).tenant(tenant).connect().await.unwrap().admin();
        let token = admin.create_token(name, Scope::TenantAdmin).await.unwrap().text().to_owned();
        let client = cluster.builder(0).token(token.clone()).connect().await.unwrap();
        Self { admin: client.admin(), client, token }
    }

    async fn bucket(&self, name: &str, component: Option<Vec<u8>>) -> Bucket<Bytes> {
        let mut props = BucketProps { value_bytes: 16 << 20, ..BucketProps::default() };
        if let Some(component) = component {
            props.plugin = Some(self.admin.push_plugin(name, component).await.unwrap().activation());
        }
        self.admin.create_bucket(name, props).await.unwrap();
        let bucket = self.client.bucket::<Bytes>(name).unwrap();
        eventually("the bucket and its plugin are everywhere", async || bucket.get("nothing").r(3).await).await;
        bucket
    }
}

/// Makes two siblings and reads them. Gives the context, and what the reader is told of the merge.
async fn conflict(bucket: &Bucket<Bytes>, at: usize, repeated: usize) -> (Context, Option<Vec<u8>>, String) {
    for number in [2 * at, 2 * at + 1] {
        bucket.put(key(at), value_of(number, repeated)).blind().await.unwrap();
    }
    let read = bucket.get(key(at)).siblings().await.unwrap();
    (read.context, read.value, read.merge_fault.unwrap_or_default())
}

/// The tenant's workload. Gives a context of one of its keys.
async fn work(cluster: &Cluster, red: &Tenant) -> Context {
    let plain = red.bucket(NAME, None).await;
    red.bucket(OWN, None).await;
    let (context, ..) = conflict(&plain, 0, LARGE).await;
    let merging = red.bucket("merging", Some(guests::first())).await;
    let dumping = red.bucket("dumping", Some(guests::dumping())).await;
    for at in 0..8 {
        let (_, merged, fault) = conflict(&merging, at, LARGE).await;
        assert!(merged.is_some(), "{fault}");
    }
    let (_, memory, fault) = conflict(&dumping, 0, LARGE).await;
    let memory = memory.unwrap_or_else(|| panic!("{fault}"));
    assert!(Search::new(&[VALUE]).has(&memory) == [VALUE], "the tenant's own plugin sees its values");
    // Merges and validations that fail, each in its own way. Only the reader is told what the plugin says.
    for (name, component, told) in [
        ("telling", guests::telling(), VALUE),
        ("trapping", guests::merging("", "(i32.load (i32.const -4))"), "memory"),
        ("refusing", guests::refusing(), "malformed"),
        ("endless", guests::endless(), "fuel"),
    ] {
        let bucket = red.bucket(name, Some(component)).await;
        let (_, merged, fault) = conflict(&bucket, 0, SMALL).await;
        assert!(merged.is_none() && fault.contains(told), "{name}: {fault}");
    }
    let validating = red.bucket("validating", Some(guests::validating())).await;
    for first in ["!", "#", "?"] {
        let written = validating.put(key(1), format!("{first}{VALUE}").into_bytes()).blind().await;
        assert!(written.is_err(), "{first}: {written:?}");
    }
    // Requests that are refused.
    let foreign = plain.put(key(1), value(0)).context(&context).await.unwrap_err();
    assert_eq!(foreign.kind(), ErrorKind::BadContext);
    assert_eq!(plain.put(key(0), value(9)).create().await.unwrap_err().kind(), ErrorKind::Exists);
    let huge = plain.put(key(2), VALUE.repeat(1 << 20).into_bytes()).blind().await.unwrap_err();
    assert_eq!(huge.kind(), ErrorKind::TooLarge);
    assert!(red.client.bucket::<Bytes>("none").unwrap().get(key(0)).await.is_err());
    let wrong = format!("{}x", red.token);
    let refused = cluster.builder(1).token(wrong).connect().await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Denied);
    red.admin.create_token("reader", Scope::ReadOnly).await.unwrap();
    let reader = red.admin.rotate_token("reader", std::time::Duration::ZERO).await.unwrap();
    let reader = cluster.builder(2).token(reader.text()).connect().await.unwrap();
    let denied = reader.bucket::<Bytes>(NAME).unwrap().put(key(3), value(3)).blind().await.unwrap_err();
    assert_eq!(denied.kind(), ErrorKind::Denied);
    red.admin.revoke_token("reader").await.unwrap();
    context
}

/// Faults: a cut, a kill, and a node that is over its quota. Everything is healed afterwards.
async fn faults(cluster: &mut Cluster, red: &Tenant) {
    let plain = red.client.bucket::<Bytes>(NAME).unwrap();
    http::post(cluster.admin(0), "/faults/cut/n3");
    http::post(cluster.admin(2), "/faults/cut/n1");
    for at in 10..20 {
        plain.put(key(at), value(at)).blind().w(1).await.unwrap();
    }
    (0..3).for_each(|index| http::post(cluster.admin(index), "/faults/heal"));
    cluster.together().await;
    cluster.kill(2);
    for at in 20..30 {
        let _ = plain.put(key(at), value(at)).blind().await;
    }
    cluster.spawn_logging(2, LOG);
    cluster.together().await;
    let own = cluster.builder(2).token(red.token.clone()).connect().await.unwrap();
    let own = own.bucket::<Bytes>(NAME).unwrap();
    eventually("the killed node is brought up to date", async || match own.get(key(25)).r(1).await {
        Ok(read) if read.is_found() => Ok(()),
        other => Err(other.map(|read| read.is_found())),
    })
    .await;
    let quota = Quota::default().with(Limit::RequestsPerSecond, 1);
    let operator = cluster.builder(0).tenant("red").connect().await.unwrap().admin();
    operator.set_quota(None, quota).await.unwrap();
    let over = async || match plain.put(key(40), value(40)).blind().await {
        Err(error) if error.kind() == ErrorKind::QuotaExceeded => Ok(()),
        other => Err(other.map(drop)),
    };
    eventually("the quota is used up", over).await;
    operator.set_quota(None, Quota::default()).await.unwrap();
}

/// All that another tenant can ask for.
async fn neighbour(cluster: &Cluster, context: &Context, search: &mut Search) {
    let mut names = Search::new(&[OWN]);
    let blue = Tenant::new(cluster, "blue", "team").await;
    let dumping = blue.bucket("dumping", Some(guests::dumping())).await;
    for at in 0..12 {
        let same = format!("blue {at}");
        for value in ["one", "two"] {
            dumping.put(&same, format!("{value} {at}").into_bytes()).blind().await.unwrap();
        }
        let read = dumping.get(&same).siblings().await.unwrap();
        let memory = read.value.unwrap_or_else(|| panic!("{:?}", read.merge_fault));
        assert!(memory.len() >= 12 << 20 && Search::new(&["two"]).has(&memory) == ["two"], "its own it sees");
        search.look("the fresh memory of another tenant's plugin", &memory);
    }
    let plain = blue.bucket(NAME, None).await;
    for at in 0..3 {
        assert!(!plain.get(key(at)).await.unwrap().is_found(), "it has no key of that name");
    }
    let crossed = plain.put(key(0), b"blue".to_vec()).context(context).await.unwrap_err();
    assert_eq!(crossed.kind(), ErrorKind::BadContext);
    let text = std::fs::read_to_string(cluster.files.profile()).unwrap();
    let kept: String = text.lines().filter(|line| !line.starts_with("token")).map(|line| format!("{line}\n")).collect();
    let profile = cluster.files.dir.join("blue.toml");
    std::fs::write(&profile, format!("{kept}token = \"{}\"\n", blue.token)).unwrap();
    for line in [
        "bucket list",
        "bucket list --json",
        "bucket show merging",
        "get merging k",
        "plugin list --json",
        "token list --json",
        "tenant list --json",
        "tenant usage --json",
        "tenant show blue --json",
        "tenant show red",
        "tenant usage red",
        "bucket list --tenant red",
        "status",
        "audit list",
        "exchange status",
        "layout show",
        "node list",
    ] {
        let arguments: Vec<&str> = line.split(' ').collect();
        let ran = cli::rejoin(&cluster.files.dir, Some(&profile), &arguments, b"");
        let shown = [&ran.out[..], ran.talk.as_bytes()].concat();
        for search in [&mut *search, &mut names] {
            search.look(&format!("the answer to `{line}` of another tenant"), &shown);
        }
    }
    search.found.extend(names.found);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_byte_of_a_tenant_is_in_logs_metrics_reports_files_and_replies_of_others() {
    let mut cluster = Cluster::prepare(3, "");
    (0..3).for_each(|index| cluster.spawn_logging(index, LOG));
    cluster.together().await;
    let red = Tenant::new(&cluster, "red", "team").await;
    let context = work(&cluster, &red).await;
    faults(&mut cluster, &red).await;
    let secret = red.token.split(':').next_back().unwrap().to_owned();
    let root = rejoin_node::root_token(cluster.files.secret.as_bytes());
    let mut search = Search::new(&[VALUE, KEY, &secret, root.split(':').next_back().unwrap()]);
    neighbour(&cluster, &context, &mut search).await;
    let mut logs = String::new();
    for index in 0..3 {
        for path in ["/metrics", "/health"] {
            let (_, body) = http::get(cluster.admin(index), path).unwrap();
            search.look(&format!("{path} of node {index}"), body.as_bytes());
        }
        let log = cluster.log(index);
        assert!(log.contains("DEBUG"), "it is as verbose as it may be");
        logs.push_str(&log);
        search.look(&format!("the log of node {index}"), log.as_bytes());
    }
    for line in ["request failed", "a merge gave no result", "panicked", "out_of_fuel", "a client was refused"] {
        assert!(logs.contains(line), "the logs tell of what has failed: {line}");
    }
    for line in ["audit list --json", "audit verify", "status --json", "tenant usage --json", "exchange status --json"]
    {
        let ran = cluster.rejoin(&line.split(' ').collect::<Vec<_>>());
        search.look(&format!("the answer to an operator's `{line}`"), &[&ran.out[..], ran.talk.as_bytes()].concat());
    }
    let data = |path: &Path| {
        let below = path.strip_prefix(&cluster.files.dir).unwrap_or(path).to_string_lossy().into_owned();
        // The objects themselves, and the files that this test has written: profiles and the secret.
        below.contains(".data/shard-") || below.ends_with(".toml") || below == "secret"
    };
    search.look_at_files(&cluster.files.dir, &data);
    println!("{} bytes were searched for {} canaries", search.looked_at, search.canaries.len());
    assert!(search.found.is_empty(), "{}", search.found.join("\n"));
    // And they are where they belong: the search would find them.
    let mut own = Search::new(&[VALUE, KEY]);
    own.look_at_files(&cluster.data(0), &|_| false);
    assert!(own.found.iter().any(|found| found.starts_with(VALUE)), "the data of a node has the values");
}
