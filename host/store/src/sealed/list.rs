//! The list of keys under which a shard may have rows: the file `keys` in its directory, and a copy of it.
//!
//! A key is in the list, durably, before the first row is sealed with it, and stays there until no file of the shard
//! has such a row. So a start knows which keys it needs without reading a row. A shard without a list has rows in the
//! clear only.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::keys::{KeyId, Keys};
use crate::blob;
use crate::disk::Disk;
use crate::error::{FileError, OpenError};

/// The advice for a list of which both copies are damaged.
const ADVICE: &str = "restore one of them from a backup; without the list it is not known which keys the shard needs";
/// The line for rows in the clear.
const PLAIN: &str = "plain";

/// Under which keys a shard may have rows.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct KeyList {
    /// Rows may be in the clear.
    pub(crate) plain: bool,
    pub(crate) keys: BTreeSet<KeyId>,
}

/// The file in a shard's directory.
pub(crate) fn list_file(shard: &Path) -> PathBuf {
    shard.join("keys")
}

impl KeyList {
    /// The list of a shard; `None` if there is none.
    pub(crate) fn read(disk: &dyn Disk, shard: &Path) -> Result<Option<Self>, FileError> {
        let path = list_file(shard);
        let Some(content) = blob::read_either(disk, &path, ADVICE)? else { return Ok(None) };
        let mut list = Self::default();
        for line in String::from_utf8_lossy(&content).lines() {
            match line.strip_prefix("key ").map(str::parse) {
                Some(Ok(id)) => drop(list.keys.insert(id)),
                None if line == PLAIN => list.plain = true,
                _ => return Err(FileError::Damaged { path, why: format!("{line:?} is no line of a list of keys") }),
            }
        }
        Ok(Some(list))
    }

    /// Durably replaces the list of a shard.
    pub(crate) fn write(&self, disk: &dyn Disk, shard: &Path) -> Result<(), FileError> {
        let plain = self.plain.then(|| format!("{PLAIN}\n"));
        let keys = self.keys.iter().map(|id| format!("key {id}\n"));
        blob::write_twice(disk, &list_file(shard), plain.into_iter().chain(keys).collect::<String>().as_bytes())
    }

    /// Checks that a node has every key of the list.
    ///
    /// # Errors
    /// [`OpenError::KeyMissing`].
    pub(crate) fn check(&self, shard: &Path, keys: Option<&Keys>) -> Result<(), OpenError> {
        let missing = self.keys.iter().find(|id| !keys.is_some_and(|keys| keys.has(**id)));
        missing.map_or(Ok(()), |id| {
            let found: Vec<String> = keys.iter().flat_map(|keys| keys.ids()).map(|id| id.to_string()).collect();
            let found = if found.is_empty() {
                "no key is configured".to_owned()
            } else {
                format!("the node has {}", found.join(", "))
            };
            Err(OpenError::KeyMissing { path: shard.to_path_buf(), key: *id, found })
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::keys::Key;
    use super::*;
    use crate::disk::OsDisk;

    #[test]
    fn a_list_reads_back_and_names_the_key_that_is_missing() {
        let dir = tempfile::tempdir().expect("a directory");
        let disk: Arc<dyn Disk> = Arc::new(OsDisk);
        assert_eq!(KeyList::read(disk.as_ref(), dir.path()).expect("readable"), None);
        let key = |byte: u8| Key::new([byte; 32]);
        let list = KeyList { plain: true, keys: [key(1).id(), key(2).id()].into() };
        list.write(disk.as_ref(), dir.path()).expect("writable");
        assert_eq!(KeyList::read(disk.as_ref(), dir.path()).expect("readable"), Some(list.clone()));
        assert!(list.check(dir.path(), Some(&Keys::new(key(1), [key(2)]))).is_ok());
        let refused = list.check(dir.path(), Some(&Keys::new(key(1), []))).expect_err("a key is missing").to_string();
        assert!(refused.contains(&key(2).id().to_string()) && refused.contains(&key(1).id().to_string()), "{refused}");
        assert!(list.check(dir.path(), None).expect_err("no key").to_string().contains("no key is configured"));
        std::fs::write(list_file(dir.path()), "x").expect("writable");
        assert_eq!(KeyList::read(disk.as_ref(), dir.path()).expect("the copy"), Some(list));
    }
}
