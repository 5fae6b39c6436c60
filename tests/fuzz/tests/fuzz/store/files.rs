//! The small files beside the shards: a file is what was written, or it is damaged, and never "nothing".

use std::path::PathBuf;
use std::sync::Arc;

use rejoin_proto::{ClusterId, NodeId};
use rejoin_store::{DataDir, FileError, Identity, OpenError};

use super::ram::Ram;
use crate::fuzz;

const IDENTITY: Identity = Identity { cluster: ClusterId(0xc1), node: NodeId(0x0d), shards: 2 };

/// A data directory of its own, on a disk in memory. The folder is for the lock.
fn fresh() -> (tempfile::TempDir, Ram) {
    let dir = tempfile::tempdir().unwrap();
    let disk = Ram::default();
    let (made, _) = DataDir::open_on(dir.path(), IDENTITY, Arc::new(disk.clone())).unwrap();
    made.mark_clean().unwrap();
    (dir, disk)
}

/// What stands in front of a small file's content.
fn wrapped(content: &[u8]) -> Vec<u8> {
    let line = format!("rejoin-file 1 {} {:08x}\n", content.len(), crc32c::crc32c(content));
    [line.as_bytes(), content].concat()
}

fn property(bytes: &[u8]) {
    let (dir, disk) = fresh();
    let path = |name: &str| -> PathBuf { dir.path().join(name) };
    let open = || DataDir::open_on(dir.path(), IDENTITY, Arc::new(disk.clone()));
    {
        let (open, _) = open().unwrap();
        disk.write(path("control/catalog"), bytes);
        match open.control().read("catalog") {
            Ok(content) => assert_eq!(wrapped(&content.expect("there is a file")), bytes, "one content, one form"),
            Err(error) => assert!(matches!(error, FileError::BothDamaged { .. }), "{error}"),
        }
        disk.write(path("control/catalog"), &wrapped(bytes));
        assert_eq!(open.control().read("catalog").unwrap().as_deref(), Some(bytes));
        open.mark_clean().unwrap();
    }
    let text = String::from_utf8_lossy(bytes);
    let says = |line: &str| text.lines().any(|said| said == line);
    let state = disk.read(path("STATE"));
    disk.write(path("STATE"), &wrapped(bytes));
    match open() {
        Ok((_, start)) => {
            assert!(start.first == says("made false") && (!start.clean || says("clean true")), "{start:?} of {text}")
        }
        Err(error) => assert!(matches!(error, OpenError::File(FileError::Damaged { .. })), "{error}"),
    }
    disk.write(path("STATE"), &state);
    disk.write(path("VERSION"), &wrapped(bytes));
    match open() {
        Ok(_) => {
            let says = ["format 3", "format +3", "format 4", "format +4"].into_iter().any(says);
            assert!(says || text.contains("format 0"), "{text}");
        }
        Err(error) => assert!(!matches!(error, OpenError::Tree { .. } | OpenError::InUse { .. }), "{error}"),
    }
}

#[test]
fn files() {
    let text = format!("format 3\ncluster {}\nnode {}\nshards 2\n", IDENTITY.cluster, IDENTITY.node);
    let state = "boot 3b0e\nclean true\nrenewal_owed false\n";
    let seeds =
        vec![text.clone().into_bytes(), state.into(), wrapped(b"the catalog"), wrapped(b""), wrapped(text.as_bytes())];
    fuzz("files", seeds, property);
}
