//! A node's data directory: who it belongs to, whether the last stop was clean, and the small files beside the shards.
//!
//! ```text
//! LOCK       held (flock) while a process has the directory open
//! VERSION    format, cluster, node, shards: readable text behind a checksum; and VERSION.copy, the same again
//! BALLAST    room for a start on a full disk
//! STATE      OS boot id, clean-stop mark, whether new actors are still owed
//! control/   small files, replaced whole, each with a copy        modules/   plugin components by SHA-256        shard-000/ …
//! ```

mod files;
mod state;

use std::fs::{File, OpenOptions, Permissions, TryLockError};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use state::State;

use rejoin_proto::id::{ClusterId, NodeId};

use crate::blob;
use crate::disk::{Disk, OsDisk, PRIVATE, if_found, no_room};
use crate::error::{Context, FileError, OpenError};
use crate::journal::discard_next;
use crate::shard::remove_unlisted;

pub use files::{ControlFile, Modules};
pub use state::Start;

/// The data format that this release writes, and the newest that it reads.
pub const FORMAT_VERSION: u32 = 1;

/// What other users may do with a directory.
const OTHERS: u32 = 0o077;
/// A directory in which everybody has files of his own.
const STICKY: u32 = 0o1000;

/// What can be done about a version file of which both copies are damaged.
const ADVICE: &str = "restore one of them from a backup, or from what was copied of this directory before; nothing else in it is lost";

/// The file that is removed to make room for a start.
const BALLAST: &str = "BALLAST";
/// Its length: the state file, and a mark and the front of a journal segment for some dozens of shards.
const BALLAST_BYTES: u64 = 4 << 20;
/// The free space above which it is made.
const BALLAST_ABOVE: u64 = 16 * BALLAST_BYTES;

/// Whose a data directory is. Fixed when it is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
    /// How many shards the node has, 1 to 4096.
    pub shards: u16,
}

/// A data directory as it is found before anything is written to it.
pub struct Found {
    /// It holds no store yet: opening it makes one.
    pub first: bool,
    /// Its small files, to be read.
    pub control: ControlFile,
}

/// An open, locked data directory. Dropping it releases the lock and leaves no clean-stop mark.
pub struct DataDir {
    path: PathBuf,
    disk: Arc<dyn Disk>,
    state: Mutex<State>,
    /// Held for the lock on it; the kernel releases it when the process ends, however it ends.
    _lock: File,
}

impl DataDir {
    /// Opens or creates a data directory on the real disk. The clean-stop mark is read and durably erased before this
    /// returns.
    ///
    /// # Errors
    /// [`OpenError`]: in use, another cluster's, node's or shard count's, from a newer release, damaged, or the disk
    /// refuses.
    pub fn open(path: impl AsRef<Path>, identity: Identity) -> Result<(Self, Start), OpenError> {
        Self::open_on(path, identity, Arc::new(OsDisk))
    }

    /// Looks whether [`DataDir::open_on`] would take a directory, and writes nothing.
    ///
    /// # Errors
    /// [`OpenError`]: another cluster's, node's or shard count's, from a newer release, damaged, or it cannot be read.
    pub fn look(path: impl AsRef<Path>, identity: Identity, disk: &Arc<dyn Disk>) -> Result<Found, OpenError> {
        let path = path.as_ref();
        let missing = if_found(disk.list(path)).context("list", path)?.is_none();
        let first = missing || is_new(disk.as_ref(), path, identity)?;
        Ok(Found { first, control: ControlFile::new(path.join("control"), Arc::clone(disk)) })
    }

    /// As [`DataDir::open`], with the small files on another [`Disk`]. The lock is always the operating system's.
    ///
    /// # Errors
    /// As [`DataDir::open`].
    pub fn open_on(path: impl AsRef<Path>, identity: Identity, disk: Arc<dyn Disk>) -> Result<(Self, Start), OpenError> {
        let path = path.as_ref().to_path_buf();
        disk.create_dir(&path).context("create", &path)?;
        let lock = lock(&path)?;
        let first = is_new(disk.as_ref(), &path, identity)?;
        if first {
            let Identity { cluster, node, shards } = identity;
            let text = format!("format {FORMAT_VERSION}\ncluster {cluster}\nnode {node}\nshards {shards}\n");
            blob::write_twice(disk.as_ref(), &path.join("VERSION"), text.as_bytes())?;
            if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                disk.sync_dir(parent).context("sync", parent)?;
            }
        }
        keep_private(&path);
        make_room(disk.as_ref(), &path, identity.shards);
        blob::mend(disk.as_ref(), &path.join("VERSION"));
        for name in ["control", "modules"] {
            disk.create_dir(&path.join(name)).context("create", &path.join(name))?;
        }
        disk.sync_dir(&path).context("sync", &path)?;
        ControlFile::new(path.join("control"), Arc::clone(&disk)).mend();
        Modules::new(path.join("modules"), Arc::clone(&disk)).clear();
        let (state, start) = State::begin(disk.as_ref(), &path, first)?;
        keep_ballast(disk.as_ref(), &path)?;
        tracing::info!(path = %path.display(), ?start, "data directory open");
        Ok((Self { path, disk, state: Mutex::new(state), _lock: lock }, start))
    }

    /// Where shard `index` lives; made by [`ShardStore::open`](crate::ShardStore::open).
    #[must_use]
    pub fn shard_dir(&self, index: u16) -> PathBuf {
        self.path.join(shard_name(index))
    }

    /// The small files that are replaced as a whole: catalog, layout.
    #[must_use]
    pub fn control(&self) -> ControlFile {
        ControlFile::new(self.path.join("control"), Arc::clone(&self.disk))
    }

    /// The plugin modules that this node keeps.
    #[must_use]
    pub fn modules(&self) -> Modules {
        Modules::new(self.path.join("modules"), Arc::clone(&self.disk))
    }

    /// Says that every shard is there, and that each that needed new actors has them durably. Until then a further
    /// start goes on saying [`Start::unsynced_may_be_gone`], whatever its boot id, so a crash in between cannot keep
    /// old actors. Writes nothing if that was said before.
    ///
    /// # Errors
    /// [`FileError`] if the state file cannot be replaced; the directory then still owes new actors.
    pub fn settle(&self) -> Result<(), FileError> {
        self.set_owed(false)
    }

    /// Says that an actor has ended and its shard could not write that down. A further start then says
    /// [`Start::unsynced_may_be_gone`], also after a clean stop, until it settles. Needs no room on the disk.
    ///
    /// # Errors
    /// [`FileError`] if the state file cannot be replaced; the next start may then bring the ended actor back.
    pub fn owe_renewal(&self) -> Result<(), FileError> {
        self.set_owed(true)
    }

    fn set_owed(&self, renewal_owed: bool) -> Result<(), FileError> {
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let wanted = State { renewal_owed, made: true, ..state.clone() };
        if *state != wanted {
            wanted.write(self.disk.as_ref(), &self.path)?;
            *state = wanted;
        }
        Ok(())
    }

    /// Leaves the clean-stop mark. To be called only after every shard was closed by
    /// [`ShardStore::close`](crate::ShardStore::close), which syncs it.
    ///
    /// # Errors
    /// [`FileError`] if the mark cannot be written; the next start is then an unclean one.
    pub fn mark_clean(self) -> Result<(), FileError> {
        let state = self.state.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        State { clean: true, made: true, ..state }.write(self.disk.as_ref(), &self.path)
    }
}

/// Takes from others what an earlier release, or somebody, has let them have. A directory that is there for all, such
/// as /tmp, is left to its owner, with a warning.
fn keep_private(path: &Path) {
    let mode = std::fs::metadata(path).map_or(0, |metadata| metadata.permissions().mode());
    if mode & OTHERS == 0 {
        return;
    }
    let changed = if mode & STICKY == 0 { std::fs::set_permissions(path, Permissions::from_mode(PRIVATE)).is_ok() } else { false };
    let path = path.display();
    if changed {
        tracing::warn!(%path, "other users could enter the data directory; its mode is 0700 now");
    } else {
        tracing::warn!(%path, "other users can enter the data directory: set its mode to 0700, or give the node another");
    }
}

/// Removes what only takes room, before anything is written: what a flush or compaction that failed has left, segments
/// that were never finished, and the ballast if there is little room. What cannot be removed shows when something is
/// written.
fn make_room(disk: &dyn Disk, path: &Path, shards: u16) {
    for index in 0..shards {
        let shard = path.join(shard_name(index));
        if let Err(error) = remove_unlisted(&shard.join("tree")) {
            tracing::warn!(path = %shard.display(), %error, "cannot look for files that the tree does not list");
        }
        let _ = discard_next(disk, &shard.join("journal"));
    }
    if disk.free_space(path).is_ok_and(|free| free < BALLAST_BYTES) && disk.remove(&path.join(BALLAST)).is_ok() {
        tracing::warn!(path = %path.display(), "the disk is nearly full: the ballast makes room for this start");
    }
}

/// Keeps some room for a later start, while there is plenty.
fn keep_ballast(disk: &dyn Disk, path: &Path) -> Result<(), FileError> {
    let name = path.join(BALLAST);
    let plenty = disk.free_space(path).is_ok_and(|free| free >= BALLAST_ABOVE);
    if !plenty || if_found(disk.open(&name)).context("open", &name)?.is_some() {
        return Ok(());
    }
    let made = disk.create(&name).and_then(|file| file.preallocate(BALLAST_BYTES));
    match made {
        Err(error) if no_room(&error) => {
            let _ = disk.remove(&name);
            Ok(())
        }
        made => made.context("create", &name),
    }
}

fn shard_name(index: u16) -> String {
    format!("shard-{index:03}")
}

/// Takes the directory's lock, or says who is in the way.
pub(crate) fn lock(path: &Path) -> Result<File, OpenError> {
    let name = path.join("LOCK");
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&name).context("open", &name)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse { path: path.to_path_buf() }),
        Err(TryLockError::Error(source)) => Err(FileError::io("lock", &name, source).into()),
    }
}

/// Compares the version file with what is asked for. Returns whether there is none: then the directory is new.
fn is_new(disk: &dyn Disk, path: &Path, identity: Identity) -> Result<bool, OpenError> {
    let name = path.join("VERSION");
    let Some(content) = blob::read_either(disk, &name, ADVICE)? else {
        refuse_strange(disk, path)?;
        return Ok(true);
    };
    let text = String::from_utf8_lossy(&content);
    let damaged = |why: &str| FileError::Damaged { path: name.clone(), why: why.to_owned() };
    let field = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    let format: u32 = field("format").and_then(|it| it.parse().ok()).ok_or_else(|| damaged("it names no format"))?;
    // Before anything else: only the format line is promised to stay as it is.
    if format > FORMAT_VERSION {
        return Err(OpenError::Newer { path: path.to_path_buf(), found: format, supported: FORMAT_VERSION });
    }
    let cluster: ClusterId = field("cluster").and_then(|it| it.parse().ok()).ok_or_else(|| damaged("it names no cluster"))?;
    let node: NodeId = field("node").and_then(|it| it.parse().ok()).ok_or_else(|| damaged("it names no node"))?;
    let shards: u16 = field("shards").and_then(|it| it.parse().ok()).ok_or_else(|| damaged("it names no shard count"))?;
    let path = path.to_path_buf();
    if cluster != identity.cluster {
        return Err(OpenError::OtherCluster { path, found: cluster.to_string(), expected: identity.cluster.to_string() });
    }
    if node != identity.node {
        return Err(OpenError::OtherNode { path, found: node.to_string(), expected: identity.node.to_string() });
    }
    if shards != identity.shards {
        return Err(OpenError::OtherShards { path, found: shards, expected: identity.shards });
    }
    Ok(false)
}

/// A directory without a version file must not hold a store: taking it for a new one would hide what was lost.
fn refuse_strange(disk: &dyn Disk, path: &Path) -> Result<(), OpenError> {
    let names = disk.list(path).context("list", path)?;
    match names.iter().find(|name| name.starts_with("shard-") || *name == "STATE") {
        None => Ok(()),
        Some(name) => {
            let why = format!("it has {name} but no VERSION file");
            Err(FileError::Damaged { path: path.to_path_buf(), why }.into())
        }
    }
}
