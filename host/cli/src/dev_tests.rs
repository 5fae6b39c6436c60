use super::*;

fn args(nodes: Option<u8>, base_port: Option<u16>, data: &Path) -> DevArgs {
    DevArgs { nodes, base_port, data: Some(data.to_path_buf()) }
}

#[test]
fn node_i_listens_on_the_base_port_plus_i() {
    let nodes = nodes(Shape { nodes: 3, base_port: 7400 });
    assert_eq!(nodes.iter().map(|node| node.address.port()).collect::<Vec<_>>(), [7401, 7402, 7403]);
    assert_eq!((nodes[2].admin.port(), nodes[2].name().as_str()), (7503, "n3"));
}

#[test]
fn a_kept_cluster_is_found_again_in_its_shape() {
    let folder = tempfile::tempdir().expect("a folder of our own");
    let dir = folder.path().join("new/dev");
    let shape = Shape { nodes: 2, base_port: 9000 };
    assert_eq!(cluster_dir(&args(Some(2), Some(9000), &dir)).expect("a folder of our own").1, shape);
    assert_eq!(cluster_dir(&args(None, None, &dir)).expect("a folder of our own").1, shape);
    let failure = cluster_dir(&args(Some(3), None, &dir)).map(|_| ()).unwrap_err();
    assert!(failure.exit == Exit::Usage && failure.to_string().contains("2 nodes on base port 9000"), "{failure}");
    assert!(dir.exists(), "what was asked for is kept");
}

#[test]
fn a_busy_port_is_named_before_anything_is_made() {
    let folder = tempfile::tempdir().expect("a folder of our own");
    let dir = folder.path().join("dev");
    let busy = std::net::UdpSocket::bind("127.0.0.1:0").expect("a folder of our own");
    let port = busy.local_addr().expect("a folder of our own").port();
    let failure = cluster_dir(&args(Some(1), Some(port - 1), &dir)).map(|_| ()).unwrap_err();
    assert!(failure.exit == Exit::Usage && failure.to_string().contains(&port.to_string()), "{failure}");
    assert_eq!(std::fs::read_dir(&dir).expect("a folder of our own").count(), 0);
}

#[test]
fn a_directory_of_something_else_is_left_alone() {
    let folder = tempfile::tempdir().expect("a folder of our own");
    std::fs::write(folder.path().join("thesis.tex"), "").expect("a folder of our own");
    let failure = cluster_dir(&args(None, None, folder.path())).map(|_| ()).unwrap_err();
    assert!(failure.to_string().contains("not empty"), "{failure}");
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder of our own").count(), 1);
}

#[test]
fn a_temporary_cluster_is_removed_with_its_directory() {
    let (cluster_dir, _) =
        cluster_dir(&DevArgs { nodes: None, base_port: None, data: None }).expect("a folder of our own");
    let dir = cluster_dir.dir.clone();
    assert!(dir.is_dir());
    drop(cluster_dir);
    assert!(!dir.exists());
}

#[test]
fn paths_are_quoted_for_the_shell_where_they_must_be() {
    assert_eq!(quoted("/tmp/a-b.c"), "/tmp/a-b.c");
    assert_eq!(quoted("/a b/it's"), r"'/a b/it'\''s'");
}
