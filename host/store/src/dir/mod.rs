//! A node's data directory: its owner, whether the last stop was clean, and the small files beside the shards.
//!
//! It knows the shards' directories only to free room in them at a start; their stores are opened by the node.
//!
//! ```text
//! LOCK       held (flock) while a process has the directory open
//! VERSION    format, cluster, node, shards: readable text behind a checksum; and VERSION.copy, the same again
//! BALLAST    room for a start on a full disk
//! STATE      OS boot id, clean-stop mark, whether new actors are still owed
//! control/   small files, replaced whole, each with a copy        modules/   plugin components by SHA-256
//! audit/     the audit log
//! shard-000/ …
//! ```

mod files;
mod state;

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use state::State;

use rejoin_proto::id::{ClusterId, NodeId};

use crate::audit::{AuditFindings, AuditLog};
use crate::blob;
use crate::disk::{Disk, OsDisk, PRIVATE, if_found, sync_parent};
use crate::error::{Context, FileError, OpenError};
use crate::io_cause::IoCause;
use crate::journal::discard_next;
use crate::lock::lock_dir;
use crate::sealed::{KeyList, Keys, list_file};
use crate::shard::remove_unlisted;
use crate::start::Start;

pub use files::{ControlFile, Modules};

/// The newest data format that this release reads, and the one of a directory with encrypted values.
pub const FORMAT_VERSION: u32 = 4;
/// The format of every other directory. Releases without encryption read it, and refuse the other one.
const PLAIN_FORMAT: u32 = 3;

/// The mode bits of other users.
const OTHERS: u32 = 0o077;
/// The mode bit of a directory that is shared by all users, such as /tmp.
const STICKY: u32 = 0o1000;

/// The advice for a version file of which both copies are damaged.
const ADVICE: &str =
    "restore one of them from a backup, or from what was copied of this directory before; nothing else in it is lost";

/// The file that is removed to make room for a start.
const BALLAST: &str = "BALLAST";
/// The length of the ballast: room for the state file, and for a mark and a small segment of some dozens of shards.
const BALLAST_BYTES: u64 = 4 << 20;
/// The free space above which the ballast is made.
const BALLAST_ABOVE: u64 = 16 * BALLAST_BYTES;

/// The owner of a data directory, fixed when the directory is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The node's cluster.
    pub cluster: ClusterId,
    /// The node's id.
    pub node: NodeId,
    /// The number of shards, 1 to 4096.
    pub shards: u16,
}

/// What [`DataDir::inspect`] found.
pub struct Inspection {
    /// The directory holds no store yet: opening it makes one.
    pub first: bool,
    /// The control files, to be read.
    pub control: ControlFile,
}

/// An open, locked data directory. Dropping it releases the lock and leaves no clean-stop mark.
pub struct DataDir {
    path: PathBuf,
    disk: Arc<dyn Disk>,
    state: Mutex<State>,
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

    /// Checks whether [`DataDir::open_on`] would accept a directory, and writes nothing.
    ///
    /// # Errors
    /// [`OpenError`]: another cluster's, node's or shard count's, from a newer release, damaged, or it cannot be read.
    pub fn inspect(path: impl AsRef<Path>, identity: Identity, disk: &Arc<dyn Disk>) -> Result<Inspection, OpenError> {
        let path = path.as_ref();
        let missing = if_found(disk.list(path)).context("list", path)?.is_none();
        let first = missing || is_new(disk.as_ref(), path, identity)?;
        Ok(Inspection { first, control: ControlFile::new(path.join("control"), Arc::clone(disk)) })
    }

    /// As [`DataDir::open`], with the small files on another [`Disk`]. The lock is always the operating system's.
    ///
    /// # Errors
    /// As [`DataDir::open`].
    pub fn open_on(
        path: impl AsRef<Path>,
        identity: Identity,
        disk: Arc<dyn Disk>,
    ) -> Result<(Self, Start), OpenError> {
        let path = path.as_ref().to_path_buf();
        disk.create_dir(&path).context("create", &path)?;
        let lock = lock_dir(&path)?;
        let first = is_new(disk.as_ref(), &path, identity)?;
        if first {
            let Identity { cluster, node, shards } = identity;
            let text = format!("format {PLAIN_FORMAT}\ncluster {cluster}\nnode {node}\nshards {shards}\n");
            blob::write_twice(disk.as_ref(), &path.join("VERSION"), text.as_bytes())?;
            sync_parent(disk.as_ref(), &path)?;
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

    /// Checks that these keys open every value in a directory, and writes nothing.
    ///
    /// # Errors
    /// [`OpenError::KeyMissing`] names a key that is missing; [`FileError`] if the list of the keys of a shard is
    /// damaged or gone.
    pub fn check_keys(
        path: impl AsRef<Path>,
        shards: u16,
        disk: &dyn Disk,
        keys: Option<&Keys>,
    ) -> Result<(), OpenError> {
        let path = path.as_ref();
        for shard in (0..shards).map(|index| path.join(shard_name(index))) {
            match KeyList::read(disk, &shard)? {
                Some(list) => list.check(&shard, keys)?,
                None if format_of(disk, path)? == Some(FORMAT_VERSION) => {
                    let why = "it is gone, and the directory has encrypted values".to_owned();
                    return Err(FileError::Damaged { path: list_file(&shard), why }.into());
                }
                None => {}
            }
        }
        Ok(())
    }

    /// Records durably whether values of this directory may be encrypted, so that a release that cannot open them does
    /// not take them for damaged ones. To be called before the first value is encrypted, when every shard is open.
    ///
    /// # Errors
    /// [`FileError`] if the version file cannot be read or replaced.
    pub fn note_encrypted(&self, encrypted: bool) -> Result<(), FileError> {
        let name = self.path.join("VERSION");
        let content = blob::read_either(self.disk.as_ref(), &name, ADVICE)?.unwrap_or_default();
        let text = String::from_utf8_lossy(&content);
        let format = if encrypted { FORMAT_VERSION } else { PLAIN_FORMAT };
        let lines = text
            .lines()
            .map(|line| if line.starts_with("format ") { format!("format {format}\n") } else { format!("{line}\n") });
        let noted: String = lines.collect();
        if noted == text { Ok(()) } else { blob::write_twice(self.disk.as_ref(), &name, noted.as_bytes()) }
    }

    /// The directory of shard `index`, which [`ShardStore::open`](crate::ShardStore::open) makes.
    #[must_use]
    pub fn shard_dir(&self, index: u16) -> PathBuf {
        self.path.join(shard_name(index))
    }

    /// The control files: catalog, layout.
    #[must_use]
    pub fn control(&self) -> ControlFile {
        ControlFile::new(self.path.join("control"), Arc::clone(&self.disk))
    }

    /// The plugin modules that this node keeps.
    #[must_use]
    pub fn modules(&self) -> Modules {
        Modules::new(self.path.join("modules"), Arc::clone(&self.disk))
    }

    /// Opens the audit log, or makes one, of at most so many bytes. Also tells what is wrong with it.
    ///
    /// # Errors
    /// [`FileError`] if the disk refuses.
    pub fn audit(&self, limit_bytes: u64) -> Result<(AuditLog, AuditFindings), FileError> {
        AuditLog::open(self.path.join("audit"), Arc::clone(&self.disk), limit_bytes)
    }

    /// Records that every shard is there and has new actors, durably, if it needed them. Until then every start reports
    /// [`Start::unsynced_may_be_gone`] again, whatever its boot id, so that a crash in between cannot keep old actors.
    /// Writes nothing if it was recorded before.
    ///
    /// # Errors
    /// [`FileError`] if the state file cannot be replaced; the directory then still owes new actors.
    pub fn settle(&self) -> Result<(), FileError> {
        self.set_owed(false)
    }

    /// Records that an actor has ended and its shard could not write that. The next start then reports
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

    /// Writes the clean-stop mark. To be called only after every shard was closed by
    /// [`ShardStore::close`](crate::ShardStore::close), which syncs the shard.
    ///
    /// # Errors
    /// [`FileError`] if the mark cannot be written; the next start is then an unclean one.
    pub fn mark_clean(self) -> Result<(), FileError> {
        let state = self.state.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        State { clean: true, made: true, ..state }.write(self.disk.as_ref(), &self.path)
    }
}

/// Removes other users' permissions. A directory that all users share, such as /tmp, is left as it is, with a warning.
fn keep_private(path: &Path) {
    let mode = std::fs::metadata(path).map_or(0, |metadata| metadata.permissions().mode());
    if mode & OTHERS == 0 {
        return;
    }
    let changed = if mode & STICKY == 0 {
        std::fs::set_permissions(path, Permissions::from_mode(PRIVATE)).is_ok()
    } else {
        false
    };
    let path = path.display();
    if changed {
        tracing::warn!(%path, "other users could enter the data directory; its mode is 0700 now");
    } else {
        tracing::warn!(%path, "other users can enter the data directory: set its mode to 0700, or give the node \
            another");
    }
}

/// Frees room before anything is written: removes what a failed flush or compaction has left, unfinished segments, and
/// the ballast if there is little room. A failure is not reported: if room is missing, the next write fails.
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

/// Makes the ballast while there is plenty of room.
fn keep_ballast(disk: &dyn Disk, path: &Path) -> Result<(), FileError> {
    let name = path.join(BALLAST);
    let plenty = disk.free_space(path).is_ok_and(|free| free >= BALLAST_ABOVE);
    if !plenty || if_found(disk.open(&name)).context("open", &name)?.is_some() {
        return Ok(());
    }
    let made = disk.create(&name).and_then(|file| file.preallocate(BALLAST_BYTES));
    match made {
        Err(error) if IoCause::of(&error) == IoCause::NoRoom => {
            let _ = disk.remove(&name);
            Ok(())
        }
        made => made.context("create", &name),
    }
}

fn shard_name(index: u16) -> String {
    format!("shard-{index:03}")
}

/// The format in the version file; `None` if there is no file, or it names none.
fn format_of(disk: &dyn Disk, path: &Path) -> Result<Option<u32>, FileError> {
    let content = blob::read_either(disk, &path.join("VERSION"), ADVICE)?.unwrap_or_default();
    let text = String::from_utf8_lossy(&content);
    Ok(text.lines().find_map(|line| line.strip_prefix("format ")?.parse().ok()))
}

/// Compares the version file with the identity that was asked for. Returns whether there is none: the directory is new.
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
    // Checked first: another format may have every line but this one changed.
    if format > FORMAT_VERSION {
        return Err(OpenError::Newer { path: path.to_path_buf(), found: format, supported: FORMAT_VERSION });
    }
    if format < PLAIN_FORMAT {
        return Err(OpenError::Older { path: path.to_path_buf(), found: format, supported: PLAIN_FORMAT });
    }
    let cluster: ClusterId =
        field("cluster").and_then(|it| it.parse().ok()).ok_or_else(|| damaged("it names no cluster"))?;
    let node: NodeId = field("node").and_then(|it| it.parse().ok()).ok_or_else(|| damaged("it names no node"))?;
    let shards: u16 =
        field("shards").and_then(|it| it.parse().ok()).ok_or_else(|| damaged("it names no shard count"))?;
    let path = path.to_path_buf();
    if cluster != identity.cluster {
        return Err(OpenError::OtherCluster {
            path,
            found: cluster.to_string(),
            expected: identity.cluster.to_string(),
        });
    }
    if node != identity.node {
        return Err(OpenError::OtherNode { path, found: node.to_string(), expected: identity.node.to_string() });
    }
    if shards != identity.shards {
        return Err(OpenError::OtherShards { path, found: shards, expected: identity.shards });
    }
    Ok(false)
}

/// Refuses a directory that holds a store but no version file: taking it for a new one would hide a loss.
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
