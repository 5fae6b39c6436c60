//! The small files of a shard's directory, beside the journal and the tree.
//!
//! ```text
//! lost          what this replica has lost, until it is settled, for people
//! damaged       the key ranges that were lost with damaged tables
//! tables        a copy of the tree's list of tables
//! keys          the keys that rows may be sealed with, and a copy; see `sealed/list.rs`
//! quarantine/   damaged tables, and files that were found among the tables, for people to look at
//! tree.damaged  a tree that could not be opened, for people to look at
//! ```

use std::path::PathBuf;

use super::tree::{LostRanges, Tree};
use crate::blob;
use crate::disk::Disk;
use crate::error::{Context, FileError, OpenError};

/// The paths of a shard.
pub(super) struct ShardPaths {
    pub(super) dir: PathBuf,
    pub(super) journal: PathBuf,
    pub(super) mark: PathBuf,
    pub(super) tree: PathBuf,
}

impl ShardPaths {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { journal: dir.join("journal"), mark: dir.join("mark"), tree: dir.join("tree"), dir }
    }

    pub(super) fn quarantine(&self) -> PathBuf {
        self.dir.join("quarantine")
    }

    fn loss(&self) -> PathBuf {
        self.dir.join("lost")
    }

    fn lost_ranges(&self) -> PathBuf {
        self.dir.join("damaged")
    }

    fn table_list(&self) -> PathBuf {
        self.dir.join("tables")
    }

    fn set_aside(&self) -> PathBuf {
        self.dir.join("tree.damaged")
    }
}

/// The losses that an earlier start has found and nobody has settled. A damaged file is itself a loss.
pub(super) fn read_loss(disk: &dyn Disk, paths: &ShardPaths) -> Result<Vec<String>, FileError> {
    match blob::read(disk, &paths.loss()) {
        Ok(content) => Ok(String::from_utf8_lossy(&content.unwrap_or_default()).lines().map(str::to_owned).collect()),
        Err(error) if error.cause().is_damage() => Ok(vec!["the note of an earlier loss is damaged".to_owned()]),
        Err(error) => Err(error),
    }
}

/// Durably saves losses. To be called before any step that would hide them.
pub(super) fn write_loss(disk: &dyn Disk, paths: &ShardPaths, lost: &[String]) -> Result<(), FileError> {
    if lost.is_empty() {
        return Ok(());
    }
    for what in lost {
        tracing::error!(dir = %paths.dir.display(), what, "this replica has lost something");
    }
    blob::write(disk, &paths.loss(), lost.join("\n").as_bytes())
}

pub(super) fn remove_loss(disk: &dyn Disk, paths: &ShardPaths) -> Result<(), FileError> {
    blob::remove(disk, &paths.loss())
}

/// The key ranges that were lost with damaged tables; none if there is no file.
pub(super) fn read_lost_ranges(disk: &dyn Disk, paths: &ShardPaths) -> Result<LostRanges, FileError> {
    let path = paths.lost_ranges();
    let text = blob::read(disk, &path)?.unwrap_or_default();
    LostRanges::decode(&text)
        .ok_or_else(|| FileError::Damaged { path, why: "it is not a list of key ranges".to_owned() })
}

pub(super) fn write_lost_ranges(disk: &dyn Disk, paths: &ShardPaths, lost: &LostRanges) -> Result<(), FileError> {
    blob::write(disk, &paths.lost_ranges(), lost.encode().as_bytes())
}

/// The copy of the list of tables; `None` if there is none, or it is damaged.
pub(super) fn read_table_list(disk: &dyn Disk, paths: &ShardPaths) -> Result<Option<Vec<u8>>, FileError> {
    match blob::read(disk, &paths.table_list()) {
        Err(error) if error.cause().is_damage() => Ok(None),
        copy => copy,
    }
}

/// Durably copies the list of tables. A failure is logged only: without a copy nothing is lost until the list itself is
/// damaged.
pub(super) fn write_table_list(disk: &dyn Disk, paths: &ShardPaths, tree: &Tree) {
    save_table_list(disk, paths, &tree.copy_of_manifest());
}

/// As [`write_table_list`], with a list that is to be the tree's.
pub(super) fn save_table_list(disk: &dyn Disk, paths: &ShardPaths, list: &[u8]) {
    if let Err(error) = blob::write(disk, &paths.table_list(), list) {
        tracing::warn!(dir = %paths.dir.display(), %error, "the tree's list of tables could not be copied");
    }
}

/// Moves a tree that cannot be opened out of the way. Returns a line about it, for people; `None` if there is no tree.
pub(super) fn set_aside(paths: &ShardPaths) -> Result<Option<String>, OpenError> {
    if !paths.tree.exists() {
        return Ok(None);
    }
    // One is enough to look at.
    remove_set_aside(paths);
    let to = paths.set_aside();
    std::fs::rename(&paths.tree, &to).context("set aside", &paths.tree)?;
    Ok(Some(format!("what was left of the tree was set aside as {}", to.display())))
}

/// Removes a tree that was set aside.
pub(super) fn remove_set_aside(paths: &ShardPaths) {
    let dir = paths.dir.display();
    match std::fs::remove_dir_all(paths.set_aside()) {
        Ok(()) => tracing::warn!(%dir, "removed a damaged tree that was kept"),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(%dir, %error, "a damaged tree that was kept could not be removed"),
    }
}

/// Removes the tables in quarantine.
pub(super) fn remove_quarantine(paths: &ShardPaths) {
    // Whatever stays is removed at the next attempt.
    let _ = std::fs::remove_dir_all(paths.quarantine());
}
