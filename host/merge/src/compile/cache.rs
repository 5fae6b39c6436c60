//! A cache of machine code on disk, so that a restarted node serves at once.
//!
//! The engine runs machine code unchecked, so the cache only returns files that this node has written: each has a MAC
//! under a key that never leaves the node. The MAC also covers the component's digest, the limits and the version of
//! the scan that it has passed, the engine profile and the engine's compatibility hash. Under another release, limit,
//! fuel table or processor a file is a miss and is replaced. Losing the directory costs only time.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::hash::{Hash, Hasher};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use sha2::{Digest, Sha256};

use rejoin_proto::{PluginDigest, ProfileId};

use super::Compiled;
use crate::host::Host;
use crate::limits::ModuleLimits;
use crate::scan::SCAN_VERSION;

const KEY_FILE: &str = "key";
const MAC_BYTES: usize = 32;
/// The most bytes of the names of a component's exports in a file.
const NAMES_BYTES: usize = 1 << 20;

/// Why the cache cannot be used. A node then works without it.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}; compiled plugins are not kept, and a restart compiles them anew", path.display())]
pub struct CacheError {
    path: PathBuf,
    source: std::io::Error,
}

/// A directory of compiled components.
#[derive(Clone)]
pub struct ArtefactCache {
    dir: PathBuf,
    key: [u8; 32],
    bytes: u64,
    profile: ProfileId,
    compatibility: [u8; 32],
    /// Evicted last.
    in_use: Arc<Mutex<BTreeSet<PluginDigest>>>,
}

impl std::fmt::Debug for ArtefactCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ArtefactCache").field("dir", &self.dir).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl ArtefactCache {
    /// Opens the cache in a directory, and creates the directory and the key if needed. It stores at most `bytes`; 0
    /// stores nothing.
    ///
    /// # Errors
    /// [`CacheError`] if the directory or the key cannot be made or read.
    pub fn open(dir: &Path, bytes: u64, host: &Host) -> Result<Self, CacheError> {
        Self::open_for(dir, bytes, host.profile(), compatibility(host))
    }

    fn open_for(dir: &Path, bytes: u64, profile: ProfileId, compatibility: [u8; 32]) -> Result<Self, CacheError> {
        let fault = |source| CacheError { path: dir.to_path_buf(), source };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(fault)?;
        let key = key(&dir.join(KEY_FILE)).map_err(fault)?;
        Ok(Self { dir: dir.to_path_buf(), key, bytes, profile, compatibility, in_use: Arc::default() })
    }

    /// Sets the plugins that buckets use. Their machine code is evicted after all other.
    pub fn keep(&self, in_use: BTreeSet<PluginDigest>) {
        *self.in_use.lock().unwrap_or_else(PoisonError::into_inner) = in_use;
    }

    /// The machine code of a component. A file that this node has not written for this engine is removed.
    #[must_use]
    pub fn get(&self, digest: &PluginDigest, limits: &ModuleLimits) -> Option<Compiled> {
        let path = self.path(digest);
        let file = File::open(&path).ok()?;
        let found = self.read(&file, digest, limits);
        match &found {
            // The time of the last use, for the eviction. If it cannot be set, the file is still good.
            Some(_) => drop(file.set_modified(SystemTime::now())),
            None => {
                tracing::info!(%digest, "a compiled plugin on the disk is not one of this release and this node: it is \
                    compiled again");
                let _ = std::fs::remove_file(&path);
            }
        }
        found
    }

    fn read(&self, mut file: &File, digest: &PluginDigest, limits: &ModuleLimits) -> Option<Compiled> {
        if file.metadata().ok()?.len() > self.bytes {
            return None;
        }
        let mut content = Vec::new();
        file.read_to_end(&mut content).ok()?;
        let (mac, rest) = content.split_at_checked(MAC_BYTES)?;
        if self.mac(digest, limits, rest) != *<&[u8; MAC_BYTES]>::try_from(mac).ok()? {
            return None;
        }
        let (length, rest) = rest.split_at_checked(8)?;
        let length = usize::try_from(u64::from_le_bytes(length.try_into().ok()?)).ok()?;
        let (names, artefact) = rest.split_at_checked(length)?;
        Some(Compiled { digest: *digest, exports: serde_json::from_slice(names).ok()?, artefact: artefact.to_vec() })
    }

    /// Stores machine code. Makes room for it by evicting first the plugins that no bucket uses, then those that were
    /// not read for longest.
    ///
    /// # Errors
    /// [`CacheError`] if it cannot be written.
    pub fn put(&self, compiled: &Compiled, limits: &ModuleLimits) -> Result<(), CacheError> {
        let names = serde_json::to_vec(&compiled.exports).unwrap_or_default();
        let mut rest = (names.len() as u64).to_le_bytes().to_vec();
        rest.extend(&names);
        rest.extend(&compiled.artefact);
        let size = (MAC_BYTES + rest.len()) as u64;
        if size > self.bytes || names.len() > NAMES_BYTES {
            return Ok(());
        }
        let path = self.path(&compiled.digest);
        let fault = |source| CacheError { path: path.clone(), source };
        self.make_room(size).map_err(fault)?;
        let beside = path.with_extension("new");
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside).map_err(fault)?;
        let mac = *self.mac(&compiled.digest, limits, &rest).as_bytes();
        // Not synced: the MAC of a file that a power cut has damaged does not match.
        let written =
            file.write_all(&mac).and_then(|()| file.write_all(&rest)).and_then(|()| std::fs::rename(&beside, &path));
        written.inspect_err(|_| drop(std::fs::remove_file(&beside))).map_err(fault)
    }

    fn make_room(&self, size: u64) -> std::io::Result<()> {
        let in_use = self.in_use.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let is_used = |name: &str| name.parse().is_ok_and(|digest| in_use.contains(&digest));
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&self.dir)? {
            let entry = entry?;
            let about = entry.metadata()?;
            if about.is_file() && entry.file_name() != KEY_FILE {
                let used = entry.file_name().to_str().is_some_and(is_used);
                files.push((used, about.modified()?, about.len(), entry.path()));
            }
        }
        files.sort();
        let mut held: u64 = files.iter().map(|(_, _, bytes, _)| bytes).sum();
        for (_, _, bytes, path) in files {
            if held + size <= self.bytes {
                break;
            }
            std::fs::remove_file(path)?;
            held -= bytes;
        }
        Ok(())
    }

    fn path(&self, digest: &PluginDigest) -> PathBuf {
        self.dir.join(digest.to_string())
    }

    fn mac(&self, digest: &PluginDigest, limits: &ModuleLimits, rest: &[u8]) -> blake3::Hash {
        let mut mac = blake3::Hasher::new_keyed(&self.key);
        mac.update(b"rejoin compiled plugin 1").update(&digest.0).update(&self.profile.0.to_le_bytes());
        mac.update(&self.compatibility).update(&SCAN_VERSION.to_le_bytes());
        // With its length before it, so that no two inputs give the same bytes.
        let limits = format!("{limits:?}");
        mac.update(&(limits.len() as u64).to_le_bytes()).update(limits.as_bytes()).update(rest);
        mac.finalize()
    }
}

/// The node's key. A key that other users may read, or that is damaged, is replaced; all files are then misses.
fn key(path: &Path) -> std::io::Result<[u8; 32]> {
    match File::open(path) {
        Ok(mut file) => {
            let (mut key, mut more) = ([0; 32], [0; 1]);
            let private = file.metadata()?.mode() & 0o077 == 0;
            let whole = file.read_exact(&mut key).is_ok() && file.read(&mut more)? == 0;
            if private && whole {
                return Ok(key);
            }
            tracing::warn!(path = %path.display(), "the key of the compiled plugins is damaged, or others may read it: \
                a new one is made");
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let (key, beside): ([u8; 32], _) = (rand::random(), path.with_extension("new"));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    file.write_all(&key)?;
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    Ok(key)
}

/// The engine's compatibility hash: equal where machine code can be exchanged.
fn compatibility(host: &Host) -> [u8; 32] {
    struct Sink(Sha256);
    impl Hasher for Sink {
        fn finish(&self) -> u64 {
            0
        }
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }
    }
    let mut sink = Sink(Sha256::new());
    host.engine().precompile_compatibility_hash().hash(&mut sink);
    sink.0.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const DIGEST: PluginDigest = PluginDigest([7; 32]);

    fn compiled(digest: PluginDigest, bytes: usize) -> Compiled {
        Compiled { digest, exports: vec!["rejoin:plugin/merger@0.1.0".into()], artefact: vec![9; bytes] }
    }

    fn open(dir: &Path, profile: u64, compatibility: u8) -> ArtefactCache {
        ArtefactCache::open_for(dir, 100_000, ProfileId(profile), [compatibility; 32]).expect("a directory of ours")
    }

    #[test]
    fn it_gives_what_was_put_and_nothing_for_another_engine() {
        let dir = tempfile::tempdir().expect("a directory");
        let cache = open(dir.path(), 1, 1);
        assert!(cache.get(&DIGEST, &ModuleLimits::default()).is_none());
        cache.put(&compiled(DIGEST, 1_000), &ModuleLimits::default()).expect("there is room");
        let found =
            open(dir.path(), 1, 1).get(&DIGEST, &ModuleLimits::default()).expect("the key is kept, so it is found");
        assert_eq!((found.artefact.len(), found.exports.len()), (1_000, 1));
        assert!(
            open(dir.path(), 2, 1).get(&DIGEST, &ModuleLimits::default()).is_none(),
            "another fuel table, another profile"
        );
        cache.put(&compiled(DIGEST, 1_000), &ModuleLimits::default()).expect("there is room");
        assert!(open(dir.path(), 1, 2).get(&DIGEST, &ModuleLimits::default()).is_none(), "another processor");
        cache.put(&compiled(DIGEST, 1_000), &ModuleLimits::default()).expect("there is room");
        let lowered = ModuleLimits { functions: 3, ..ModuleLimits::default() };
        assert!(cache.get(&DIGEST, &lowered).is_none(), "it was scanned under other limits");
        cache.put(&compiled(DIGEST, 1_000), &ModuleLimits::default()).expect("there is room");
        std::fs::rename(cache.path(&DIGEST), cache.path(&PluginDigest([8; 32]))).expect("it is there");
        assert!(cache.get(&PluginDigest([8; 32]), &ModuleLimits::default()).is_none(), "another component's code");
    }

    #[test]
    fn a_file_that_was_damaged_or_forged_is_a_miss_and_goes() {
        let dir = tempfile::tempdir().expect("a directory");
        let cache = open(dir.path(), 1, 1);
        cache.put(&compiled(DIGEST, 100), &ModuleLimits::default()).expect("there is room");
        let whole = std::fs::read(cache.path(&DIGEST)).expect("it is there");
        for at in 0..whole.len() {
            let mut bad = whole.clone();
            bad[at] ^= 1;
            std::fs::write(cache.path(&DIGEST), &bad).expect("it is ours");
            assert!(cache.get(&DIGEST, &ModuleLimits::default()).is_none(), "byte {at}");
            assert!(!cache.path(&DIGEST).exists(), "it stays, and is read again at every start");
        }
        for cut in 0..whole.len() {
            std::fs::write(cache.path(&DIGEST), &whole[..cut]).expect("it is ours");
            assert!(cache.get(&DIGEST, &ModuleLimits::default()).is_none(), "{cut} bytes");
        }
        let other = tempfile::tempdir().expect("a directory");
        let forger = open(other.path(), 1, 1);
        forger.put(&compiled(DIGEST, 100), &ModuleLimits::default()).expect("there is room");
        std::fs::copy(forger.path(&DIGEST), cache.path(&DIGEST)).expect("it is ours");
        assert!(cache.get(&DIGEST, &ModuleLimits::default()).is_none(), "it was written under another node's key");
    }

    #[test]
    fn the_key_is_private_and_one_that_is_not_is_replaced() {
        let dir = tempfile::tempdir().expect("a directory");
        let first = open(dir.path(), 1, 1);
        let path = dir.path().join(KEY_FILE);
        assert_eq!(std::fs::metadata(&path).expect("it is there").mode() & 0o777, 0o600);
        assert_eq!(open(dir.path(), 1, 1).key, first.key);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("it is ours");
        let second = open(dir.path(), 1, 1);
        assert_ne!(second.key, first.key, "others could have read it");
        std::fs::write(&path, b"short").expect("it is ours");
        assert_ne!(open(dir.path(), 1, 1).key, second.key);
        assert_eq!(std::fs::metadata(&path).expect("it is there").mode() & 0o777, 0o600);
    }

    #[test]
    fn the_bound_holds_and_the_oldest_go_first() {
        let dir = tempfile::tempdir().expect("a directory");
        let cache = open(dir.path(), 1, 1);
        for number in 0..10_u8 {
            let digest = PluginDigest([number; 32]);
            cache.put(&compiled(digest, 30_000), &ModuleLimits::default()).expect("there is room");
            let file = File::options().write(true).open(cache.path(&digest)).expect("it is there");
            let then = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(u64::from(number));
            file.set_modified(then).expect("it is ours");
        }
        let kept: Vec<u8> = (0..10_u8)
            .filter(|number| cache.get(&PluginDigest([*number; 32]), &ModuleLimits::default()).is_some())
            .collect();
        assert_eq!(kept, [7, 8, 9]);
        let digest = |number: u8| PluginDigest([number; 32]);
        cache.keep(BTreeSet::from([digest(7)]));
        for number in 20..30 {
            cache.put(&compiled(digest(number), 30_000), &ModuleLimits::default()).expect("there is room");
        }
        let mut kept: Vec<u8> = (0..30).filter(|number| cache.path(&digest(*number)).exists()).collect();
        assert!(kept.remove(0) == 7 && kept.len() == 2, "a plugin that a bucket uses goes last: {kept:?}");
        cache.put(&compiled(DIGEST, 200_000), &ModuleLimits::default()).expect("too large is no error");
        assert!(
            cache.get(&DIGEST, &ModuleLimits::default()).is_some() && !dir.path().join("new").exists(),
            "the old one stays"
        );
    }
}
