//! The admin port off loopback, in this process: it asks for a token.

use std::net::{Ipv4Addr, SocketAddr};

use rejoin_client::Client;
use rejoin_client::admin::Scope;
use rejoin_node::{Config, Node};
use rejoin_test_cluster::{Files, cluster_id, http};

/// A node whose admin port is on all addresses, with more lines of configuration.
async fn start(files: &Files, more: &str) -> Result<Node, rejoin_node::StartError> {
    let text = files.config(0).replace("dev_faults = true", "dev_faults = false");
    let own = format!("admin = \"{}\"", files.nodes[0].2);
    let text = text.replace(&own, &format!("admin = \"0.0.0.0:0\"\n{more}"));
    Node::start(Config::parse(&text, &files.dir).unwrap()).await
}

/// Where it is reached from this machine. What it was bound to counts, not who asks.
fn port(node: &Node) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, node.admin_address().unwrap().port()).into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn off_loopback_the_port_asks_for_a_token_and_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let files = Files::create(dir.path(), cluster_id(7), 1);
    std::fs::write(dir.path().join("scrapers"), "the token of a scraper\n").unwrap();
    let node = start(&files, "admin_token = \"scrapers\"").await.unwrap();
    node.ready().await;
    let admin = port(&node);
    let client = Client::from_profile(files.profile()).await.unwrap().admin();
    let reader = client.create_token("reader", Scope::TenantAdmin).await.unwrap();
    let operator = client.create_token("watch", Scope::Operator).await.unwrap();
    for path in ["/metrics", "/health", "/no-such-page"] {
        let (status, text) = http::get(admin, path).unwrap();
        assert_eq!(status, 401, "{path}: {text}");
        assert!(text.contains("send the header `Authorization: Bearer TOKEN`"), "{text}");
        assert!(!text.contains("rejoin_") && !text.contains("connected"), "{text}");
        for wrong in ["Bearer", "Bearer ", "Bearer reader:1234", "Basic dXNlcjpwYXNz", "Bearer the token of a scrape"] {
            assert_eq!(http::get_with(admin, path, wrong).unwrap().0, 401, "{wrong}");
        }
        let (status, text) = http::get_with(admin, path, &format!("Bearer {}", reader.text())).unwrap();
        assert!(status == 403 && text.contains("that takes a token of scope operator"), "{status}: {text}");
    }
    let found = |path: &str, token: &str| http::get_with(admin, path, &format!("bearer {token}")).unwrap();
    for token in [operator.text(), "the token of a scraper", &rejoin_node::root_token(files.secret.as_bytes())] {
        assert!(found("/metrics", token).1.contains("rejoin_clients_connected"));
        assert_eq!((found("/health", token).0, found("/no-such-page", token).0), (200, 404));
    }

    // Both change while the node runs: the file for the scraper, the catalog for the operator.
    std::fs::write(dir.path().join("scrapers"), "the token of a scraper\nthe next of a scraper\n").unwrap();
    assert_eq!(["the token of a scraper", "the next of a scraper"].map(|token| found("/health", token).0), [200; 2]);
    std::fs::write(dir.path().join("scrapers"), "the next of a scraper\n").unwrap();
    assert_eq!(found("/health", "the token of a scraper").0, 401);
    assert_eq!(found("/health", "the next of a scraper").0, 200);
    client.revoke_token("watch").await.unwrap();
    assert_eq!(found("/health", operator.text()).0, 401);
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_of_tokens_that_could_be_guessed_keeps_the_node_from_starting() {
    let dir = tempfile::tempdir().unwrap();
    let files = Files::create(dir.path(), cluster_id(8), 1);
    for (content, words) in [
        (Some("# none\n"), "it has 0 tokens: write 1 to 16"),
        (Some("fifteen letters\n"), "a token has 16 to 256 bytes"),
        (None, "admin_token = "),
    ] {
        let path = dir.path().join("scrapers");
        match content {
            Some(content) => std::fs::write(&path, content).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        }
        let refused = start(&files, "admin_token = \"scrapers\"").await.unwrap_err().to_string();
        assert!(refused.contains(words), "{refused}");
    }
}
