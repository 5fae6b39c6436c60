//! Nodes with keys of their own, and one without: their disks have no value in the clear, they survive kills, they
//! agree with each other, and their keys are replaced.

use std::path::Path;

use rejoin_client::admin::BucketProps;
use rejoin_client::{Bucket, Bytes};
use rejoin_test_cluster::{Cluster, cli, eventually, http};

/// A part of every value.
const CANARY: &str = "a canary that nobody may read";
const KEYS: usize = 150;
/// One value is so large.
const LARGE: usize = 400_000;

fn value(number: usize) -> Vec<u8> {
    let length = if number == 0 { LARGE } else { number * 20 };
    format!("{number} {CANARY} {}", "v".repeat(length)).into_bytes()
}

/// Whether a file below a directory has the canary.
fn is_in_the_clear(dir: &Path) -> bool {
    std::fs::read_dir(dir).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return is_in_the_clear(&path);
        }
        // Maintenance may remove a file meanwhile.
        let content = std::fs::read(&path).unwrap_or_default();
        content.windows(CANARY.len()).any(|part| part == CANARY.as_bytes())
    })
}

fn encryption(cluster: &Cluster, arguments: &[&str]) -> String {
    let ran = cli::rejoin(&cluster.files.dir, None, &[&["encryption"], arguments].concat(), b"");
    ran.done().text().to_owned()
}

fn configure(cluster: &Cluster, index: usize, encryption: &str) {
    std::fs::write(cluster.files.config_path(index), format!("{}{encryption}\n", cluster.files.config(index))).unwrap();
}

async fn reads_all(bucket: &Bucket<Bytes>) {
    for number in 0..KEYS {
        let read = eventually("all copies are read", async || {
            let read = bucket.get(format!("key {number}")).r(3).await.map_err(|why| why.to_string())?;
            read.value.map(|value| value.to_vec()).ok_or_else(|| "nothing".to_owned())
        });
        assert!(read.await == value(number), "key {number}");
    }
}

async fn restart(cluster: &mut Cluster, index: usize) {
    let process = cluster.take(index);
    let stopped = tokio::task::spawn_blocking(move || process.stop()).await.unwrap();
    assert!(stopped.success(), "{}", cluster.log(index));
    cluster.spawn(index);
    cluster.together().await;
}

/// Waits until the node's health says this.
async fn says(cluster: &Cluster, index: usize, words: &str) {
    eventually(words, async || {
        let (_, health) = http::get(cluster.admin(index), "/health").map_err(|why| (why, String::new()))?;
        if health.contains(words) { Ok(()) } else { Err((health, cluster.log(index))) }
    })
    .await;
}

fn refused(cluster: &Cluster, index: usize, encryption: &str, words: &[&str]) {
    let config = format!("{}{encryption}\n", cluster.files.config(index));
    std::fs::write(cluster.files.dir.join("changed.toml"), config).unwrap();
    let ran = cli::rejoin(&cluster.files.dir, None, &["serve", "--config", "changed.toml"], b"");
    for words in words {
        ran.said(2, words);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_value_is_on_an_encrypted_disk_and_keys_are_replaced() {
    let mut cluster = Cluster::prepare(3, "memtable_bytes = 1048576");
    let first = encryption(&cluster, &["add", "n1.keys"]).trim().to_owned();
    encryption(&cluster, &["add", "n2.keys"]);
    configure(&cluster, 0, "[encryption]\nkey_file = \"n1.keys\"");
    let printed = cluster.files.dir.join("n2.keys");
    configure(&cluster, 1, &format!("[encryption]\nkey_command = [\"cat\", {:?}]", printed.display().to_string()));
    (0..3).for_each(|index| cluster.spawn(index));
    cluster.together().await;
    cluster.bucket("plain", BucketProps { n: 3, ..BucketProps::default() }).await;
    let client = cluster.client().await;
    let bucket = client.bucket::<Bytes>("plain").unwrap();
    for number in 0..KEYS {
        bucket.put(format!("key {number}"), value(number)).blind().w(3).await.unwrap();
    }
    reads_all(&bucket).await;
    let clear = |cluster: &Cluster| [0, 1, 2].map(|index| is_in_the_clear(&cluster.data(index)));
    assert_eq!(clear(&cluster), [false, false, true], "the third has no keys, and shows what is looked for");

    // Killed, they find everything again; and replicas with different keys agree.
    cluster.kill(0);
    cluster.kill(1);
    cluster.spawn(0);
    cluster.spawn(1);
    cluster.together().await;
    reads_all(&bucket).await;
    for index in 0..2 {
        says(&cluster, index, "values are encrypted on the disk with key ").await;
    }
    eventually("the replicas are equal", async || match http::metric(cluster.admin(0), "rejoin_exchange_open") {
        0.0 => Ok(()),
        open => Err(open),
    })
    .await;
    assert_eq!(clear(&cluster), [false, false, true]);

    // The first one gets another key, and needs both until everything is written anew.
    let second = encryption(&cluster, &["add", "n1.keys"]).trim().to_owned();
    assert_eq!(encryption(&cluster, &["list", "n1.keys"]).lines().count(), 3, "a title and two keys");
    restart(&mut cluster, 0).await;
    says(&cluster, 0, &format!("key {first} is needed no more by this node")).await;
    assert!(http::metric(cluster.admin(0), "rejoin_encryption_tables_left") == 0.0);
    reads_all(&bucket).await;
    encryption(&cluster, &["remove", "n1.keys", &first]);
    cluster.kill(0);
    encryption(&cluster, &["add", "other.keys"]);
    let missing = format!("has values that are encrypted with key {second}");
    refused(&cluster, 0, "", &[&missing, "no key is configured"]);
    refused(&cluster, 0, "[encryption]\nkey_file = \"other.keys\"", &[&missing, "the node has "]);
    refused(&cluster, 0, "[encryption]\nkey_command = [\"false\"]", &["it has ended with exit status: 1"]);
    cluster.spawn(0);
    cluster.together().await;
    reads_all(&bucket).await;

    // The third one is encrypted while it has values, and the second one is not any more.
    encryption(&cluster, &["add", "n3.keys"]);
    configure(&cluster, 2, "[encryption]\nkey_file = \"n3.keys\"");
    configure(&cluster, 1, "[encryption]\nkey_file = \"n2.keys\"\noff = true");
    restart(&mut cluster, 2).await;
    restart(&mut cluster, 1).await;
    says(&cluster, 1, "no key is needed").await;
    says(&cluster, 2, "values are encrypted on the disk").await;
    eventually("nothing is in the clear", async || {
        let left = http::metric(cluster.admin(2), "rejoin_encryption_tables_left");
        if left == 0.0 && clear(&cluster) == [false, true, false] { Ok(()) } else { Err((left, clear(&cluster))) }
    })
    .await;
    configure(&cluster, 1, "");
    restart(&mut cluster, 1).await;
    reads_all(&bucket).await;
}
