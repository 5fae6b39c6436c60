//! The small files beside the shards: control files, which are replaced as a whole, and plugin modules, which are named
//! by their digest.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;

use rejoin_proto::id::PluginDigest;

use crate::blob;
use crate::disk::{Disk, if_found};
use crate::error::{Context, FileError};

/// The advice for a control file of which both copies are damaged.
const ADVICE: &str = "restore one of them from a backup, or remove both: the node then takes their content from its \
    configuration and its peers";

/// Small durable files by name (catalog, layout). Each is replaced atomically, kept in two copies, and verified when it
/// is read.
#[derive(Clone)]
pub struct ControlFile {
    dir: PathBuf,
    disk: Arc<dyn Disk>,
}

impl ControlFile {
    pub(super) fn new(dir: PathBuf, disk: Arc<dyn Disk>) -> Self {
        Self { dir, disk }
    }

    /// The content last written under a name, `None` if nothing ever was. If the file is damaged the copy is read.
    ///
    /// # Errors
    /// [`FileError::BothDamaged`] if neither is intact; it must not be taken for "no content".
    pub fn read(&self, name: &str) -> Result<Option<Bytes>, FileError> {
        Ok(blob::read_either(self.disk.as_ref(), &self.path(name)?, ADVICE)?.map(Bytes::from))
    }

    /// Durably replaces the content under a name (1 to 64 of `a-z 0-9 -`). After a crash either the old or the new
    /// content is read.
    ///
    /// # Errors
    /// [`FileError`]; the old content is then still there.
    pub fn write(&self, name: &str, content: &[u8]) -> Result<(), FileError> {
        blob::write_twice(self.disk.as_ref(), &self.path(name)?, content)
    }

    /// Rewrites damaged files whose copy is intact.
    pub(super) fn mend(&self) {
        let names = if_found(self.disk.list(&self.dir)).ok().flatten().unwrap_or_default();
        let names: BTreeSet<&str> = names.iter().map(|name| name.strip_suffix(".copy").unwrap_or(name)).collect();
        // Names with a dot are those of unfinished files.
        names
            .into_iter()
            .filter_map(|name| self.path(name).ok())
            .for_each(|path| blob::mend(self.disk.as_ref(), &path));
    }

    fn path(&self, name: &str) -> Result<PathBuf, FileError> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if name.is_empty() || name.len() > 64 || !name.bytes().all(allowed) {
            return Err(FileError::BadName { name: name.to_owned() });
        }
        Ok(self.dir.join(name))
    }
}

/// The plugin modules on this node's disk, by SHA-256. The caller verifies the digest before a put and after a get, and
/// fetches a module with another digest again from a peer.
#[derive(Clone)]
pub struct Modules {
    dir: PathBuf,
    disk: Arc<dyn Disk>,
}

impl Modules {
    pub(super) fn new(dir: PathBuf, disk: Arc<dyn Disk>) -> Self {
        Self { dir, disk }
    }

    /// Durably stores a module, or replaces it.
    ///
    /// # Errors
    /// [`FileError`] if the disk refuses.
    pub fn put(&self, digest: &PluginDigest, module: &[u8]) -> Result<(), FileError> {
        // Two puts may run at once, also of the same digest.
        static PUTS: AtomicU64 = AtomicU64::new(0);
        let path = self.dir.join(digest.to_string());
        let beside = path.with_extension(format!("new{}", PUTS.fetch_add(1, Relaxed)));
        blob::write_beside(self.disk.as_ref(), &path, &beside, module)
    }

    /// Removes unfinished modules that a crash has left.
    pub(super) fn clear(&self) {
        let names = if_found(self.disk.list(&self.dir)).ok().flatten().unwrap_or_default();
        for name in names.iter().filter(|name| name.contains(".new")) {
            let _ = self.disk.remove(&self.dir.join(name));
        }
    }

    /// The module under a digest, not verified; `None` if there is none.
    ///
    /// # Errors
    /// [`FileError`] if the disk refuses.
    pub fn get(&self, digest: &PluginDigest) -> Result<Option<Bytes>, FileError> {
        Ok(blob::read_raw(self.disk.as_ref(), &self.dir.join(digest.to_string()))?.map(Bytes::from))
    }

    /// Removes a module, if it is there.
    ///
    /// # Errors
    /// [`FileError`] if the disk refuses.
    pub fn remove(&self, digest: &PluginDigest) -> Result<(), FileError> {
        let path = self.dir.join(digest.to_string());
        if_found(self.disk.remove(&path)).map(drop).context("remove", &path)
    }

    /// The digests of the stored modules, in order. Files with other names are skipped.
    ///
    /// # Errors
    /// [`FileError`] if the directory cannot be read.
    pub fn list(&self) -> Result<Vec<PluginDigest>, FileError> {
        let names = if_found(self.disk.list(&self.dir)).context("list", &self.dir)?.unwrap_or_default();
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }
}
