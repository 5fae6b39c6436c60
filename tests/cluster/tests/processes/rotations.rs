//! Keys and secrets are replaced while clients read and write, and no request of theirs fails.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::task::JoinSet;

use rejoin_client::admin::{BucketProps, Durability};
use rejoin_client::{Bytes, Client, ErrorKind};
use rejoin_test_cluster::cli::{self, Ran};
use rejoin_test_cluster::{Cluster, eventually};

/// Requests of one client before it is made anew from its profile, as a service that is restarted now and then.
const REQUESTS: u64 = 40;

/// Clients that read and write from here on.
struct Load {
    over: Arc<AtomicBool>,
    /// How often each of them has begun anew.
    begun: Arc<Vec<AtomicU64>>,
    clients: JoinSet<Result<u64, String>>,
}

impl Load {
    /// As many clients, with the profile of that name in the cluster's directory.
    fn start(cluster: &Cluster, clients: usize, profile: &str) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let begun: Arc<Vec<AtomicU64>> = Arc::new((0..clients).map(|_| AtomicU64::new(0)).collect());
        let mut running = JoinSet::new();
        for client in 0..clients {
            let (over, begun, profile) = (over.clone(), begun.clone(), cluster.files.dir.join(profile));
            running.spawn(run(client, profile, over, begun));
        }
        Self { over, begun, clients: running }
    }

    /// Waits until each client has begun anew, with the files as they are now.
    async fn has_begun_anew(&self) {
        let before: Vec<u64> = self.begun.iter().map(|begun| begun.load(Ordering::Relaxed)).collect();
        // Twice: one may have read the files just before this was asked.
        let anew = async || {
            let now: Vec<u64> = self.begun.iter().map(|begun| begun.load(Ordering::Relaxed)).collect();
            if now.iter().zip(&before).all(|(now, before)| *now >= before + 2) {
                Ok(())
            } else {
                Err((before.clone(), now))
            }
        };
        eventually("the clients begin anew", anew).await;
    }

    /// Ends the clients. None of their requests may have failed.
    async fn end(mut self) {
        self.over.store(true, Ordering::Relaxed);
        let mut requests = 0;
        while let Some(ended) = self.clients.join_next().await {
            requests += ended.unwrap().unwrap_or_else(|failed| panic!("a request has failed: {failed}"));
        }
        eprintln!("{requests} requests, none has failed");
        assert!(requests > 0);
    }
}

/// Writes a key of its own again and again, each time with the context of the read before.
async fn run(
    client: usize,
    profile: PathBuf,
    over: Arc<AtomicBool>,
    begun: Arc<Vec<AtomicU64>>,
) -> Result<u64, String> {
    let (mut requests, key) = (0, format!("key {client}"));
    let mut context = None;
    while !over.load(Ordering::Relaxed) {
        let connected = Client::from_profile(&profile).await.map_err(|why| format!("client {client}: {why}"))?;
        begun[client].fetch_add(1, Ordering::Relaxed);
        let bucket = connected.bucket::<Bytes>("plain").map_err(|why| why.to_string())?;
        for _ in 0..REQUESTS {
            let failed = |why: rejoin_client::Error| format!("client {client}, request {requests}: {why}");
            let write = bucket.put(key.as_str(), requests.to_string().into_bytes());
            // The first one begins the key; all others carry a context on, over restarts of client and nodes too.
            let written = match &context {
                Some(context) => write.context(context).await,
                None => write.blind().await,
            };
            context = Some(written.map_err(failed)?.context);
            let read = bucket.get(key.as_str()).await.map_err(failed)?;
            if read.siblings.len() > 1 {
                return Err(format!("client {client}: a sibling: the context did not count: {read:?}"));
            }
            requests += 2;
        }
    }
    Ok(requests)
}

fn rejoin(cluster: &Cluster, arguments: &[&str]) -> Ran {
    cli::rejoin(&cluster.files.dir, None, arguments, b"")
}

async fn start() -> Cluster {
    let cluster = Cluster::start(3).await;
    // Without syncs: a disk that takes long for one would leave doubts that are none of a rotation's.
    cluster.bucket("plain", BucketProps { durability: Durability::Os, ..BucketProps::default() }).await;
    // As `rejoin cert` names them.
    std::fs::write(cluster.files.dir.join("ca-key.pem"), cluster.files.ca.key_pem()).unwrap();
    std::fs::rename(cluster.files.dir.join("secret"), cluster.files.dir.join("cluster-secret")).unwrap();
    std::os::unix::fs::symlink("cluster-secret", cluster.files.dir.join("secret")).unwrap();
    for node in ["n1", "n2", "n3"] {
        let (named, linked) = (format!("{node}-key.pem"), cluster.files.dir.join(format!("{node}.key")));
        std::fs::rename(&linked, cluster.files.dir.join(&named)).unwrap();
        std::os::unix::fs::symlink(&named, &linked).unwrap();
    }
    cluster
}

/// Tells every node to load its certificate files, and waits until each uses what is there now.
async fn reload(cluster: &Cluster) {
    for (index, node) in ["n1", "n2", "n3"].into_iter().enumerate() {
        // It may have found the files by itself just before.
        let [new, found] = ["the new certificates are", "the certificate files are the ones"]
            .map(|what| format!("{node}: {what} in use"));
        let said = |log: &str| log.matches(&new).count() + log.matches(&found).count();
        let before = said(&cluster.log(index));
        cluster.hang_up(index);
        let used = async || {
            let log = cluster.log(index);
            if said(&log) > before { Ok(()) } else { Err(log) }
        };
        eventually("the files are in use", used).await;
    }
}

/// Stops and starts each node in turn.
async fn restart(cluster: &mut Cluster) {
    for index in 0..3 {
        let process = cluster.take(index);
        let stopped = tokio::task::spawn_blocking(move || process.stop()).await.unwrap();
        assert!(stopped.success(), "{}", cluster.log(index));
        cluster.spawn(index);
        cluster.together().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_authority_and_all_certificates_are_replaced_and_no_request_fails() {
    let mut cluster = start().await;
    let load = Load::start(&cluster, 4, "profile.toml");
    rejoin(&cluster, &["cert", "ca", "--renew", "--new-key"]).done();
    reload(&cluster).await;
    load.has_begun_anew().await;
    for node in ["n1", "n2", "n3"] {
        rejoin(&cluster, &["cert", "node", node, "--renew", "--new-key"]).done();
    }
    reload(&cluster).await;
    // Connections between nodes are made anew, under the new certificates.
    restart(&mut cluster).await;
    rejoin(&cluster, &["cert", "ca", "--retire"]).done();
    reload(&cluster).await;
    load.has_begun_anew().await;
    restart(&mut cluster).await;
    load.end().await;

    // Whoever has the old authority's certificate only trusts nobody here any more.
    std::fs::write(cluster.files.dir.join("old-ca.pem"), cluster.files.ca.cert_pem()).unwrap();
    let profile = std::fs::read_to_string(cluster.files.profile()).unwrap();
    std::fs::write(cluster.files.dir.join("old.toml"), profile.replace("ca.pem", "old-ca.pem")).unwrap();
    let error = Client::from_profile(cluster.files.dir.join("old.toml")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Untrusted, "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_secret_is_replaced_and_contexts_of_before_stay_valid_until_it_is_retired() {
    let mut cluster = start().await;
    // The clients have a token of their own: the root token is replaced along with the secret.
    let token = cluster.rejoin(&["token", "create", "app"]).done().text().to_owned();
    let profile = std::fs::read_to_string(cluster.files.profile()).unwrap();
    let root = rejoin_node::root_token(cluster.files.secret.as_bytes());
    std::fs::write(cluster.files.dir.join("app.toml"), profile.replace(&root, &token)).unwrap();
    let load = Load::start(&cluster, 4, "app.toml");
    load.has_begun_anew().await;
    let bucket = async |profile: &str| {
        let client = Client::from_profile(cluster.files.dir.join(profile)).await.unwrap();
        client.bucket::<Bytes>("plain").unwrap()
    };
    let first = bucket("app.toml").await.put("mine", b"1".to_vec()).blind().await.unwrap().context;

    rejoin(&cluster, &["cert", "secret", "add"]).done();
    rejoin(&cluster, &["cert", "secret", "add"]).said(2, "it has a second secret already");
    restart(&mut cluster).await;
    rejoin(&cluster, &["cert", "secret", "use"]).done();
    restart(&mut cluster).await;
    let bucket = async |profile: &str| {
        let client = Client::from_profile(cluster.files.dir.join(profile)).await.unwrap();
        client.bucket::<Bytes>("plain").unwrap()
    };
    // One of before, and one of after.
    bucket("app.toml").await.put("mine", b"2".to_vec()).context(&first).await.unwrap();
    let newer = rejoin(&cluster, &["token", "root", "--secret", "secret"]).done().text().to_owned();
    assert_ne!(newer, root);
    std::fs::write(cluster.files.dir.join("newer.toml"), profile.replace(&root, &newer)).unwrap();
    let second = bucket("newer.toml").await.get("mine").await.unwrap();
    assert_eq!(second.value.as_deref(), Some(&b"2"[..]));
    load.has_begun_anew().await;

    rejoin(&cluster, &["cert", "secret", "retire"]).done();
    // The harness asks with the root token.
    std::fs::copy(cluster.files.dir.join("newer.toml"), cluster.files.profile()).unwrap();
    restart(&mut cluster).await;
    load.end().await;
    let bucket = Client::from_profile(cluster.files.profile()).await.unwrap().bucket::<Bytes>("plain").unwrap();
    let refused = bucket.put("mine", b"3".to_vec()).context(&first).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::BadContext, "{refused}");
    bucket.put("mine", b"3".to_vec()).context(&second.context).await.unwrap();
    std::fs::write(cluster.files.dir.join("old.toml"), &profile).unwrap();
    let error = Client::from_profile(cluster.files.dir.join("old.toml")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "the old root token: {error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_rotated_within_its_overlap_and_no_request_fails() {
    let cluster = start().await;
    let profile = std::fs::read_to_string(cluster.files.profile()).unwrap();
    let root = rejoin_node::root_token(cluster.files.secret.as_bytes());
    let write = |token: &str| {
        let path = cluster.files.dir.join("app.toml");
        // As one step: the clients read it at any moment.
        std::fs::write(path.with_extension("new"), profile.replace(&root, token)).unwrap();
        std::fs::rename(path.with_extension("new"), path).unwrap();
    };
    let first = cluster.rejoin(&["token", "create", "app"]).done().text().to_owned();
    write(&first);
    let load = Load::start(&cluster, 4, "app.toml");
    load.has_begun_anew().await;
    for _ in 0..3 {
        let token = cluster.rejoin(&["token", "rotate", "app", "--overlap", "1h"]).done().text().to_owned();
        write(&token);
        load.has_begun_anew().await;
    }
    load.end().await;
    write(&first);
    let error = Client::from_profile(cluster.files.dir.join("app.toml")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "the oldest secret: {error}");
}
