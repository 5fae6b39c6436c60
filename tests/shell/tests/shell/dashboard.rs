//! The dashboard that `rejoin dashboard` prints.

use std::collections::BTreeSet;

use serde_json::Value;

use rejoin_node::DASHBOARD;
use rejoin_test_shell::{Setup, simulate};

/// The words of all queries of the dashboard that may be names of metrics.
fn asked_for(dashboard: &Value) -> BTreeSet<String> {
    let strings = |key: &str| {
        let mut found = Vec::new();
        collect(dashboard, key, &mut found);
        found
    };
    let queries = [strings("expr"), strings("query")].concat();
    let words = queries.iter().flat_map(|query| query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'));
    words.filter(|word| word.starts_with("rejoin_")).map(str::to_owned).collect()
}

/// The strings under a key, wherever it is.
fn collect(value: &Value, key: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            found.extend(members.get(key).and_then(Value::as_str).map(str::to_owned));
            members.values().for_each(|member| collect(member, key, found));
        }
        Value::Array(elements) => elements.iter().for_each(|element| collect(element, key, found)),
        _ => {}
    }
}

#[test]
fn every_query_of_the_dashboard_uses_metrics_that_a_node_has() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let asked = asked_for(&dashboard);
    assert!(asked.len() > 30, "{asked:?}");
    simulate(&Setup::default(), move |world| async move {
        let bucket = world.plain().await;
        bucket.put("k", b"v".to_vec()).blind().await.unwrap();
        bucket.get("k").await.unwrap();
        for node in ["n1", "n2", "n3"] {
            let bucket = world.pinned_plain(node).await;
            bucket.get("k").await.unwrap();
            // Until it has compared something with its peers.
            let text = loop {
                let text = world.node(node).metrics().await;
                if text.contains("rejoin_exchange_open") && text.contains("rejoin_request_seconds") {
                    break text;
                }
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            };
            let names: BTreeSet<&str> = text.lines().filter_map(|line| line.split(['{', ' ']).next()).collect();
            let missing: Vec<&String> = asked.iter().filter(|name| !names.contains(name.as_str())).collect();
            assert!(missing.is_empty(), "{node} has no {missing:?}:\n{text}");
        }
    });
}

#[test]
fn panels_have_places_of_their_own_and_queries() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let places: BTreeSet<String> = panels.iter().map(|panel| panel["gridPos"].to_string()).collect();
    let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!((places.len(), ids.len()), (panels.len(), panels.len()));
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        assert!(!panel["targets"].as_array().unwrap().is_empty(), "{panel}");
    }
}
