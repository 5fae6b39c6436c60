//! The data directory: whose it is, who has it open, how the last stop was, and its small files.
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use rejoin_proto::id::{ClusterId, NodeId, PluginDigest};
use rejoin_store::{DataDir, FORMAT_VERSION, FileError, Identity, OpenError, OsDisk, ShardStore};
use rejoin_test_store::{FaultDisk, edit, scratch, sealed, small};

const IDENTITY: Identity = Identity { cluster: ClusterId(7), node: NodeId(1), shards: 2 };

/// The length of the state file.
const STATE_BYTES: usize = 155;

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
    assert!(
        start.first && !start.clean && !start.unsynced_may_be_gone(),
        "no start has come to its end so far: {start:?}"
    );
    data.settle().unwrap();
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
    let dir = scratch();
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
    let settled = || {
        let (data, _) = DataDir::open(dir.path(), IDENTITY).unwrap();
        data.settle().unwrap();
        data.mark_clean().unwrap();
    };
    settled();
    std::fs::remove_file(dir.path().join("STATE")).unwrap();
    let (_, start) = DataDir::open(dir.path(), IDENTITY).unwrap();
    assert!(start.unsynced_may_be_gone(), "without a state file nothing is known");
    for place in (0..STATE_BYTES).step_by(3) {
        settled();
        edit(&dir.path().join("STATE"), |bytes| bytes[place] ^= 1);
        for _ in 0..2 {
            let (_, start) = DataDir::open(dir.path(), IDENTITY).unwrap();
            assert!(start.unsynced_may_be_gone() && !start.clean, "nor with a damaged one: {start:?}");
        }
    }
}

/// One bad sector must not keep a node from starting: there are two copies, or it is not needed.
#[test]
fn a_small_file_that_the_disk_cannot_read_keeps_no_node_from_starting() {
    for name in ["VERSION", "VERSION.copy", "STATE", "control/layout", "control/layout.copy"] {
        let dir = tempfile::tempdir().unwrap();
        let (data, _) = DataDir::open(dir.path(), IDENTITY).unwrap();
        data.control().write("layout", b"kept").unwrap();
        data.mark_clean().unwrap();
        let disk = FaultDisk::default();
        *disk.faults.unreadable.lock().unwrap() = Some(dir.path().join(name));
        let (data, start) = DataDir::open_on(dir.path(), IDENTITY, Arc::new(disk)).unwrap();
        assert_eq!(start.unsynced_may_be_gone(), name == "STATE", "{name}");
        assert_eq!(data.control().read("layout").unwrap().unwrap(), b"kept"[..], "{name}");
    }
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
    assert!(matches!(
        refused(dir.path(), Identity { cluster: ClusterId(8), ..IDENTITY }),
        OpenError::OtherCluster { .. }
    ));
    assert!(matches!(refused(dir.path(), Identity { node: NodeId(2), ..IDENTITY }), OpenError::OtherNode { .. }));
    assert!(matches!(
        refused(dir.path(), Identity { shards: 3, ..IDENTITY }),
        OpenError::OtherShards { found: 2, expected: 3, .. }
    ));
    DataDir::open(dir.path(), IDENTITY).unwrap();
}

#[test]
fn a_newer_older_or_damaged_version_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (data, _) = DataDir::open(dir.path(), IDENTITY).unwrap();
    let shard = data.shard_dir(0);
    drop(data);
    rewrite(dir.path(), "format 3\ncluster", "format 5\nrealm");
    let error = refused(dir.path(), IDENTITY);
    assert!(matches!(error, OpenError::Newer { found: 5, supported: FORMAT_VERSION, .. }), "{error}");
    for older in [1, 2] {
        rewrite(dir.path(), if older == 1 { "format 5" } else { "format 1" }, &format!("format {older}"));
        let error = refused(dir.path(), IDENTITY);
        let is_older = matches!(error, OpenError::Older { found, supported: 3, .. } if found == older);
        assert!(is_older && error.to_string().contains("start the release of rejoin that has written it"), "{error}");
    }
    edit(&dir.path().join("VERSION"), |bytes| bytes[40] ^= 1);
    edit(&dir.path().join("VERSION.copy"), |bytes| bytes[40] ^= 1);
    let error = refused(dir.path(), IDENTITY);
    assert!(
        matches!(error, OpenError::File(FileError::BothDamaged { .. })) && error.to_string().contains("backup"),
        "{error}"
    );
    std::fs::remove_file(dir.path().join("VERSION")).unwrap();
    assert!(
        matches!(refused(dir.path(), IDENTITY), OpenError::File(FileError::BothDamaged { .. })),
        "not taken for a new one"
    );
    std::fs::remove_file(dir.path().join("VERSION.copy")).unwrap();
    std::fs::create_dir(shard).unwrap();
    assert!(
        matches!(refused(dir.path(), IDENTITY), OpenError::File(FileError::Damaged { .. })),
        "not taken for a new one"
    );
}

#[test]
fn control_files_are_replaced_whole_and_checked() {
    let dir = scratch();
    let (mut data, _) = DataDir::open(dir.path(), IDENTITY).unwrap();
    let control = data.control();
    assert_eq!(control.read("catalog").unwrap(), None);
    control.write("catalog", b"one").unwrap();
    control.write("catalog", b"two\nlines").unwrap();
    assert_eq!(control.read("catalog").unwrap().unwrap(), b"two\nlines"[..]);
    for name in ["", "../VERSION", "a/b", "A", "x.new"] {
        assert!(matches!(control.write(name, b""), Err(FileError::BadName { .. })));
    }
    let (path, second) = (dir.path().join("control/catalog"), dir.path().join("control/catalog.copy"));
    let length = std::fs::metadata(&path).unwrap().len() as usize;
    for place in 0..length {
        edit(&path, |bytes| bytes[place] ^= 1);
        assert_eq!(control.read("catalog").unwrap().unwrap(), b"two\nlines"[..], "the copy is whole");
        edit(&second, |bytes| bytes[length - 1 - place] ^= 1);
        let error = control.read("catalog").unwrap_err();
        assert!(matches!(error, FileError::BothDamaged { .. }) && error.to_string().contains("catalog"), "{error}");
        edit(&path, |bytes| bytes[place] ^= 1);
        assert_eq!(control.read("catalog").unwrap().unwrap(), b"two\nlines"[..]);
        edit(&second, |bytes| bytes[length - 1 - place] ^= 1);
    }
    for damaged in [&path, &second] {
        edit(damaged, Vec::clear);
        drop(data);
        data = DataDir::open(dir.path(), IDENTITY).unwrap().0;
        assert_eq!(
            std::fs::read(&path).unwrap(),
            std::fs::read(&second).unwrap(),
            "a start writes anew what is damaged"
        );
        assert_eq!(data.control().read("catalog").unwrap().unwrap(), b"two\nlines"[..]);
    }
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
    data.modules().remove(&one).unwrap();
    data.modules().remove(&one).unwrap();
    assert_eq!(data.modules().list().unwrap(), [two], "removing it again is no error");
}

/// The room that it takes may be what a start needs.
#[test]
fn what_a_crash_left_of_a_flush_goes_before_the_state_file_is_written() {
    let dir = scratch();
    let (data, start) = DataDir::open(dir.path(), IDENTITY).unwrap();
    drop(ShardStore::open(data.shard_dir(0), small(), Arc::new(OsDisk), &start).unwrap());
    let left = data.shard_dir(0).join("tree/tables/900");
    data.settle().unwrap();
    drop(data);
    std::fs::write(&left, "half a table").unwrap();
    let disk = FaultDisk::default();
    disk.faults.fail_write.store(true, SeqCst);
    assert!(DataDir::open_on(dir.path(), IDENTITY, Arc::new(disk)).is_err(), "the state file cannot be written");
    assert!(!left.exists());
}
