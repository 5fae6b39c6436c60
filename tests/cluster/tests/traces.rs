//! One request, one trace id, on every node that it reaches.
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::sync::{Arc, Mutex};

use rejoin_client::admin::BucketProps;
use rejoin_client::{Bytes, Client};
use rejoin_node::{Config, Node};
use rejoin_test_cluster::{Files, cluster_id};

/// What was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// For each trace id, the nodes in whose spans it stands.
    fn traces(&self) -> BTreeMap<String, BTreeSet<String>> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let mut traces: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for line in text.lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            let span = &line["span"];
            if let (Some(trace), Some(node)) = (span["trace"].as_str(), span["node"].as_str()) {
                traces.entry(trace.to_owned()).or_default().insert(node.to_owned());
            }
        }
        traces
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_is_followed_by_one_trace_id_to_all_of_its_owners() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().json().with_max_level(tracing_subscriber::filter::LevelFilter::DEBUG);
    subscriber.with_writer(move || writer.clone()).init();
    let dir = tempfile::tempdir().unwrap();
    let files = Files::create(dir.path(), cluster_id(9), 3);
    let mut nodes = Vec::new();
    for index in 0..files.nodes.len() {
        nodes.push(Node::start(Config::load(&files.config_path(index)).unwrap()).await.unwrap());
    }
    let client = Client::from_profile(files.profile()).await.unwrap();
    client.admin().create_bucket("plain", BucketProps::default()).await.unwrap();
    client.bucket::<Bytes>("plain").unwrap().put("k", b"v".to_vec()).w(3).blind().await.unwrap();
    let traces = log.traces();
    assert!(traces.values().any(|nodes| nodes.len() == 3), "{traces:?}");
    for node in nodes {
        node.stop().await.unwrap();
    }
}
