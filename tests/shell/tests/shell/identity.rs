//! Who is not of the cluster.

use std::time::Duration;

use rejoin_client::{ErrorKind, Tls};
use rejoin_node::Node;
use rejoin_test_shell::{Files, Setup, name, simulate};
use rejoin_wire::{Error, Identity};

#[test]
fn a_client_that_trusts_another_authority_sends_nothing() {
    simulate(&Setup::default(), |world| async move {
        world.plain().await;
        let foreign = Files::create(&["n1"]);
        let error = world.builder().tls(Tls::pem(foreign.ca_pem())).connect().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Untrusted, "{error}");
        let error = world.builder().token("nobody:1234").connect().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    });
}

#[test]
fn a_node_of_another_authority_is_refused_and_disturbs_nobody() {
    simulate(&Setup::default(), |world| async move {
        let bucket = world.plain().await;
        let foreign = Files::create(&["n3"]);
        let (certificate, key) = foreign.pem_of("n3");
        // It knows whom to expect, and has the right name and cluster: only the signature is another's.
        let intruder = world.endpoint(0, Identity::node(world.files.ca_pem(), &certificate, &key).unwrap());
        let refused = intruder.connect_peer(world.address("n1"), &name("n1")).await.unwrap_err();
        assert!(matches!(refused, Error::CertificateRefused { .. }), "{refused}");
        let mistrusting = world.endpoint(0, foreign.identity("n3"));
        let refused = mistrusting.connect_peer(world.address("n1"), &name("n1")).await.unwrap_err();
        assert!(matches!(refused, Error::Untrusted { .. }), "{refused}");
        assert_eq!(bucket.put("k", b"v".to_vec()).blind().w(3).timeout(Duration::from_secs(1)).await.unwrap().acked, 3);
    });
}

#[tokio::test]
async fn a_node_with_a_secret_that_could_be_guessed_does_not_start() {
    let files = Files::create(&["n1"]);
    let data = tempfile::tempdir().unwrap();
    let config = || files.config("n1", data.path(), &[("n1", ([127, 0, 0, 77], 7400).into())], "");
    files.spoil_secret("fifteen letters");
    let error = Node::start(config()).await.unwrap_err().to_string();
    assert!(error.contains("fewer than 16 bytes"), "{error}");
    files.spoil_secret("sixteen letters!");
    Node::start(config()).await.unwrap().stop().await.unwrap();
}
