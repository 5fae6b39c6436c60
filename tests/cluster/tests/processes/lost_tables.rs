//! A node that has lost its tables serves on: it reads from the others, writes over lost keys, and says so.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rejoin_client::admin::BucketProps;
use rejoin_client::{Bucket, Bytes};
use rejoin_test_cluster::{Cluster, eventually, http};

const KEYS: u32 = 300;
const NEW_KEYS: u32 = 100;
const VALUE: usize = 8 << 10;

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_has_lost_its_tables_reads_writes_and_deletes_every_key_and_says_so() {
    // One shard and a small memtable: most of the values are in tables soon.
    let mut cluster = Cluster::start_with(3, "shards = 1\nmemtable_bytes = 1048576").await;
    cluster.bucket("plain", BucketProps { n: 3, ..BucketProps::default() }).await;
    let client = cluster.client().await;
    let bucket = client.bucket::<Bytes>("plain").unwrap();
    for number in 0..KEYS {
        eventually("a value is written", async || bucket.put(key(number), value(number)).blind().await).await;
    }
    let data = cluster.data(0);
    eventually("there are tables", async || if tables(&data).is_empty() { Err("none") } else { Ok(()) }).await;

    cluster.kill(0);
    tables(&data).iter().for_each(|table| spoil(table));
    cluster.spawn(0);
    cluster.together().await;

    // The damaged node coordinates everything that follows.
    let client = cluster.pinned(0).await;
    let bucket = client.bucket::<Bytes>("plain").unwrap();
    for number in 0..KEYS {
        is_read(&bucket, number).await;
    }
    for number in KEYS..KEYS + NEW_KEYS {
        eventually("a new key is written", async || bucket.put(key(number), value(number)).blind().await).await;
        is_read(&bucket, number).await;
    }
    for number in 0..NEW_KEYS {
        let read = bucket.get(key(number)).await.unwrap();
        let context = read.context;
        eventually("a key is deleted", async || bucket.delete(key(number)).context(&context).await).await;
        assert!(bucket.get(key(number)).await.unwrap().value.is_none(), "key {number} is deleted");
    }
    let (code, health) = http::get(cluster.admin(0), "/health").unwrap();
    assert!(code == 503 && health.contains("lost"), "{code}: {health}");
    let status = cluster.rejoin(&["status"]);
    assert!(status.code == Some(1) && format!("{status:?}").contains("lost"), "{status:?}");
}

fn key(number: u32) -> String {
    format!("key {number}")
}

fn value(number: u32) -> Vec<u8> {
    number.to_le_bytes().repeat(VALUE / 4)
}

async fn is_read(bucket: &Bucket<Bytes>, number: u32) {
    let read = eventually("a value is read", async || bucket.get(key(number)).await).await;
    assert!(read.value.as_deref() == Some(&value(number)[..]), "key {number}");
}

/// The tables of all trees below a directory.
fn tables(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(dir) else { return found };
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            found.extend(tables(&path));
        } else if path.parent().is_some_and(|parent| parent.ends_with("tables")) {
            found.push(path);
        }
    }
    found
}

/// Overwrites the first half of a table, where its rows are.
fn spoil(table: &Path) {
    let file = fs::OpenOptions::new().write(true).open(table).unwrap();
    let half = file.metadata().unwrap().len() / 2;
    file.write_all_at(&vec![0; half as usize], 0).unwrap();
}
