//! A real disk that is full. A file system of 300 MB is filled under a node, which is killed on it, starts with no byte
//! free, and goes on when there is room. And the catalog changes while one of two nodes cannot save it.

use std::path::Path;
use std::process::Command;

use rejoin_client::admin::{Admin, BucketProps, Scope};
use rejoin_client::{Bucket, Bytes, ErrorKind};
use rejoin_test_cluster::{Cluster, eventually, http};

/// Set in the process that may mount: it has a mount namespace of its own.
const MAY_MOUNT: &str = "REJOIN_TEST_MAY_MOUNT";
/// What others have on the disk, and remove in the end.
const OTHERS: usize = 150 << 20;
const VALUE: usize = 64 << 10;

#[test]
fn a_node_on_a_disk_of_300_mb_is_filled_freed_and_restarted_and_reads_throughout() {
    in_a_mount_namespace("a_node_on_a_disk_of_300_mb_is_filled_freed_and_restarted_and_reads_throughout", filled());
}

#[test]
fn the_catalog_changes_while_a_node_has_no_room_to_save_it() {
    in_a_mount_namespace("the_catalog_changes_while_a_node_has_no_room_to_save_it", changed());
}

/// Runs a test again in a process that may mount, and there lets it go.
fn in_a_mount_namespace(test: &str, run: impl Future<Output = ()>) {
    if std::env::var_os(MAY_MOUNT).is_some() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        return runtime.block_on(run);
    }
    let private = |command: &mut Command| {
        let unshare = ["--mount", "--propagation", "private"];
        let mut wrapped = Command::new("unshare");
        wrapped.args(unshare).arg(command.get_program()).args(command.get_args());
        wrapped
    };
    let probe = tempfile::tempdir().unwrap();
    let mount =
        private(Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(probe.path())).output();
    if !mount.as_ref().is_ok_and(|mount| mount.status.success()) {
        eprintln!(
            "SKIPPED: {test} needs to mount a tmpfs in a mount namespace of its own, which this user may not: {mount:?}"
        );
        return;
    }
    let this = std::env::current_exe().unwrap();
    let (_, module) = module_path!().split_once("::").unwrap();
    let mut inside = private(Command::new(this).args(["--exact", &format!("{module}::{test}"), "--nocapture"]));
    let ended = inside.env(MAY_MOUNT, "1").output().unwrap();
    let said = String::from_utf8_lossy(&ended.stdout);
    assert!(ended.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&ended.stderr));
}

fn key(number: u32) -> String {
    format!("key {number}")
}

fn value(number: u32) -> Vec<u8> {
    let mut value = number.to_le_bytes().repeat(VALUE / 4);
    value.truncate(VALUE);
    value
}

/// Every value that was acknowledged is read.
async fn read_all(bucket: &Bucket<Bytes>, written: u32) {
    for number in 0..written {
        let read = eventually("a value is read", async || bucket.get(key(number)).await).await;
        assert!(read.value.as_deref() == Some(&value(number)[..]), "key {number}");
    }
}

/// A write is refused for want of room. Gives the words.
async fn is_refused(bucket: &Bucket<Bytes>, number: u32) -> String {
    let refused = eventually("a write is refused for want of room", async || {
        match bucket.put(key(number), value(number)).blind().await {
            Err(error) if error.kind() == ErrorKind::DiskFull => Ok(error.to_string()),
            other => Err(format!("{other:?}")),
        }
    });
    refused.await
}

async fn filled() {
    let more = "memtable_bytes = 16777216\nfree_space_floor = 16777216\nshards = 2\ncache_bytes = 4194304";
    let mut cluster = Cluster::prepare(1, more);
    let data = cluster.data(0);
    std::fs::create_dir(&data).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=300m", "tmpfs"]).arg(&data).status().unwrap();
    assert!(mounted.success());
    std::fs::write(data.join("others"), vec![1; OTHERS]).unwrap();
    cluster.spawn(0);
    cluster.together().await;
    cluster.bucket("plain", BucketProps { n: 1, ..BucketProps::default() }).await;
    let client = cluster.client().await;
    let bucket = client.bucket::<Bytes>("plain").unwrap();

    let mut written = 0;
    let refused = loop {
        match bucket.put(key(written), value(written)).blind().await {
            Ok(_) => written += 1,
            Err(error) if error.kind() == ErrorKind::DiskFull => break error,
            // Flushes are behind.
            Err(error) => assert_eq!(error.kind(), ErrorKind::Overloaded, "{error}"),
        }
    };
    let said = refused.to_string();
    assert!(said.contains("n1") && said.contains("n1.data") && said.contains("full"), "{said}");
    assert!(written > 200, "{written} values");
    read_all(&bucket, written).await;

    // A flush may make room for some writes more. Now no byte is left, and the process is killed.
    fill(&data.join("filler"));
    is_refused(&bucket, written).await;
    is_called_full(&cluster);
    read_all(&bucket, written).await;
    cluster.kill(0);
    fill(&data.join("filler"));
    cluster.spawn(0);
    cluster.together().await;
    let client = cluster.client().await;
    let bucket = client.bucket::<Bytes>("plain").unwrap();
    read_all(&bucket, written).await;
    assert!(is_refused(&bucket, written).await.contains("n1.data"));
    is_called_full(&cluster);

    // There is room again, and nobody has to tell the node.
    std::fs::remove_file(data.join("filler")).unwrap();
    std::fs::remove_file(data.join("others")).unwrap();
    eventually("writes are taken again", async || bucket.put(key(written), value(written)).blind().await).await;
    for number in written + 1..written + 200 {
        eventually("writes are taken", async || bucket.put(key(number), value(number)).blind().await).await;
    }
    eventually("the node is well", async || match http::get(cluster.admin(0), "/health") {
        Ok((200, text)) => Ok(text),
        other => Err(other),
    })
    .await;
    cluster.kill(0);
    cluster.spawn(0);
    cluster.together().await;
    let bucket = cluster.client().await.bucket::<Bytes>("plain").unwrap();
    read_all(&bucket, written + 200).await;
    cluster.kill(0);
    assert!(Command::new("umount").arg(&data).status().unwrap().success());
}

async fn changed() {
    let more = "memtable_bytes = 16777216\nfree_space_floor = 16777216\nshards = 2\ncache_bytes = 4194304";
    let mut cluster = Cluster::prepare(2, more);
    let data = cluster.data(0);
    std::fs::create_dir(&data).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=200m", "tmpfs"]).arg(&data).status().unwrap();
    assert!(mounted.success());
    (0..2).for_each(|node| cluster.spawn(node));
    cluster.together().await;
    cluster.bucket("plain", BucketProps { n: 2, ..BucketProps::default() }).await;
    let other = cluster.pinned(1).await.admin();
    other.create_token("app", Scope::ReadWrite).await.unwrap();
    fill(&data.join("filler"));

    // A change that the full node is asked for is not made anywhere.
    let full = cluster.pinned(0).await.admin();
    let refused = full.create_bucket("none", BucketProps { n: 2, ..BucketProps::default() }).await.unwrap_err();
    assert!(refused.kind() == ErrorKind::DiskFull && refused.to_string().contains("nothing was changed"), "{refused}");
    for admin in [&full, &other] {
        assert_eq!(admin.bucket("none").await.unwrap_err().kind(), ErrorKind::NotFound);
    }
    // One of another node holds on both, and the operator is told who may forget it.
    let behind = other.revoke_token("app").await.unwrap();
    assert_eq!(behind.iter().map(ToString::to_string).collect::<Vec<_>>(), ["n1"]);
    assert!(is_revoked(&full).await, "it holds at once");
    let (code, health) = http::get(cluster.admin(0), "/health").unwrap();
    assert!(code == 503 && health.contains("the catalog cannot be saved"), "{code}: {health}");
    // A start without room learns it again, and goes on.
    cluster.kill(0);
    fill(&data.join("filler"));
    cluster.spawn(0);
    cluster.together().await;
    assert!(is_revoked(&cluster.pinned(0).await.admin()).await);

    std::fs::remove_file(data.join("filler")).unwrap();
    eventually("the node is well", async || match http::get(cluster.admin(0), "/health") {
        Ok((200, text)) => Ok(text),
        other => Err(other),
    })
    .await;
    // What was refused is in the log, and the log is whole.
    let listed = cluster.rejoin(&["audit", "list", "--refused", "--node", &cluster.address(0).to_string(), "--json"]);
    let listed = listed.done().json();
    assert!(listed.as_array().unwrap().iter().all(|entry| entry["outcome"] == "refused"), "{listed}");
    cluster.rejoin(&["audit", "verify"]).done();
    // It is saved now: alone, the node still knows.
    cluster.kill(0);
    cluster.kill(1);
    cluster.spawn(0);
    assert!(is_revoked(&cluster.pinned(0).await.admin()).await);
    cluster.kill(0);
    assert!(Command::new("umount").arg(&data).status().unwrap().success());
}

async fn is_revoked(admin: &Admin) -> bool {
    admin.tokens().await.unwrap().iter().any(|token| token.name.as_str() == "app" && token.revoked)
}

/// The operator is told: which node, which directory.
fn is_called_full(cluster: &Cluster) {
    let (code, health) = http::get(cluster.admin(0), "/health").unwrap();
    assert!(code == 503 && health.contains("n1.data") && health.contains("is full"), "{code}: {health}");
    let status = cluster.rejoin(&["status"]);
    assert!(format!("{status:?}").contains("is full"), "{status:?}");
}

/// Takes what room there is.
fn fill(path: &Path) {
    use std::io::Write;
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
    for size in [1 << 20, 4096, 1] {
        while file.write_all(&vec![7; size]).is_ok() {}
    }
}
