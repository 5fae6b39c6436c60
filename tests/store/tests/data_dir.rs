//! The data directory: whose it is, who has it open, how the last stop was, and its small files.
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use rejoin_proto::id::{ClusterId, NodeId, PluginDigest};
use rejoin_store::{DataDir, FORMAT_VERSION, FileError, Identity, OpenError};
use rejoin_test_store::{edit, sealed};
use std::path::Path;

const IDENTITY: Identity = Identity { cluster: ClusterId(7), node: NodeId(1), shards: 2 };

fn refused(path: &Path, identity: Identity) -> OpenError {
    DataDir::open(path, identity).err().unwrap()
}

/// Rewrites the version file with a right checksum.
fn rewrite(path: &Path, from: &str, to: &str) {
    edit(&path.join("VERSION"), |bytes| {
        let text = String::from_utf8(bytes.clone()).unwrap();
        let (_, content) = text.split_once('\n').unwrap();
        let content = content.replace(from, to);
        *bytes = sealed(&content);
    });
}

#[test]
fn starts_tell_first_clean_and_killed_apart() {
    let dir = tempfile::tempdir().unwrap();
    let (data, start) = DataDir::open(dir.path(), IDENTITY).unwrap();
    assert!(start.first && !start.unsynced_may_be_gone());
    drop(data);
    let (data, start) = DataDir::open(dir.path(), IDENTITY).unwrap();
    assert!(!start.first && !start.clean && start.same_boot && !start.unsynced_may_be_gone(), "{start:?}");
    data.mark_clean().unwrap();
    let (data, start) = DataDir::open(dir.path(), IDENTITY).unwrap();
    assert!(start.clean && !start.unsynced_may_be_gone());
    drop(data);
    let (_, start) = DataDir::open(dir.path(), IDENTITY).unwrap();
    assert!(!start.clean, "the mark is erased when it is read");
}

#[test]
fn after_another_boot_new_actors_are_owed_until_settled() {
    let dir = tempfile::tempdir().unwrap();
    drop(DataDir::open(dir.path(), IDENTITY).unwrap());
    edit(&dir.path().join("STATE"), |bytes| {
        let content = "boot another\nclean false\nrenewal_owed false\n";
        *bytes = sealed(content);
    });
    for _ in 0..2 {
        let (_, start) = DataDir::open(dir.path(), IDENTITY).unwrap();
        assert!(start.unsynced_may_be_gone(), "a crash before the new actors does not excuse from them: {start:?}");
    }
    let (data, _) = DataDir::open(dir.path(), IDENTITY).unwrap();
    data.settle().unwrap();
    drop(data);
    let (_, start) = DataDir::open(dir.path(), IDENTITY).unwrap();
    assert!(!start.unsynced_may_be_gone());
    std::fs::remove_file(dir.path().join("STATE")).unwrap();
    let (_, start) = DataDir::open(dir.path(), IDENTITY).unwrap();
    assert!(start.unsynced_may_be_gone(), "without a state file nothing is known");
}

#[test]
fn a_directory_is_opened_once_and_the_error_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let (data, _) = DataDir::open(dir.path(), IDENTITY).unwrap();
    let error = refused(dir.path(), IDENTITY);
    assert!(matches!(error, OpenError::InUse { .. }));
    assert!(error.to_string().contains(&dir.path().display().to_string()), "{error}");
    drop(data);
    DataDir::open(dir.path(), IDENTITY).unwrap();
}

#[test]
fn another_clusters_nodes_or_shard_count_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(DataDir::open(dir.path(), IDENTITY).unwrap());
    assert!(matches!(refused(dir.path(), Identity { cluster: ClusterId(8), ..IDENTITY }), OpenError::OtherCluster { .. }));
    assert!(matches!(refused(dir.path(), Identity { node: NodeId(2), ..IDENTITY }), OpenError::OtherNode { .. }));
    assert!(matches!(refused(dir.path(), Identity { shards: 3, ..IDENTITY }), OpenError::OtherShards { found: 2, expected: 3, .. }));
    DataDir::open(dir.path(), IDENTITY).unwrap();
}

#[test]
fn a_newer_or_damaged_version_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (data, _) = DataDir::open(dir.path(), IDENTITY).unwrap();
    let shard = data.shard_dir(0);
    drop(data);
    rewrite(dir.path(), "format 1\ncluster", "format 2\nrealm");
    let error = refused(dir.path(), IDENTITY);
    assert!(matches!(error, OpenError::Newer { found: 2, supported: FORMAT_VERSION, .. }), "{error}");
    edit(&dir.path().join("VERSION"), |bytes| bytes[40] ^= 1);
    assert!(matches!(refused(dir.path(), IDENTITY), OpenError::File(FileError::Damaged { .. })));
    std::fs::remove_file(dir.path().join("VERSION")).unwrap();
    std::fs::create_dir(shard).unwrap();
    assert!(matches!(refused(dir.path(), IDENTITY), OpenError::File(FileError::Damaged { .. })), "not taken for a new one");
}

#[test]
fn control_files_are_replaced_whole_and_checked() {
    let dir = tempfile::tempdir().unwrap();
    let (data, _) = DataDir::open(dir.path(), IDENTITY).unwrap();
    let control = data.control();
    assert_eq!(control.read("catalog").unwrap(), None);
    control.write("catalog", b"one").unwrap();
    control.write("catalog", b"two\nlines").unwrap();
    assert_eq!(control.read("catalog").unwrap().unwrap(), b"two\nlines"[..]);
    for name in ["", "../VERSION", "a/b", "A", "x.new"] {
        assert!(matches!(control.write(name, b""), Err(FileError::BadName { .. })));
    }
    let path = dir.path().join("control/catalog");
    let length = std::fs::metadata(&path).unwrap().len() as usize;
    for place in 0..length {
        edit(&path, |bytes| bytes[place] ^= 1);
        let error = control.read("catalog").unwrap_err();
        assert!(matches!(error, FileError::Damaged { .. }) && error.to_string().contains("catalog"), "{error}");
        edit(&path, |bytes| bytes[place] ^= 1);
    }
    edit(&path, Vec::clear);
    assert!(matches!(control.read("catalog"), Err(FileError::Damaged { .. })));
}

#[test]
fn modules_are_kept_by_digest() {
    let dir = tempfile::tempdir().unwrap();
    let (data, _) = DataDir::open(dir.path(), IDENTITY).unwrap();
    let (one, two) = (PluginDigest([1; 32]), PluginDigest([2; 32]));
    data.modules().put(&two, b"component two").unwrap();
    data.modules().put(&one, b"component one").unwrap();
    std::fs::write(dir.path().join("modules").join(format!("{one}.new")), b"half").unwrap();
    assert_eq!(data.modules().list().unwrap(), [one, two]);
    assert_eq!(data.modules().get(&one).unwrap().unwrap(), b"component one"[..]);
    assert_eq!(data.modules().get(&PluginDigest([3; 32])).unwrap(), None);
}
