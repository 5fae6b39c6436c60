//! The keys that values are encrypted with on a node's disk: their file, reading them at a start, and what there is to
//! say of them while the node runs.
//!
//! ```text
//! rejoin encryption keys
//! use 9c41…        encrypts
//! read 3f2a…       what it has encrypted can be read
//! ```
//!
//! Keys stand there in hexadecimal, 64 digits each. A key's id is derived from it. An id tells nothing of its key, and
//! is what logs and errors name.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::process::Command;

use rejoin_proto::hex::hex;
use rejoin_store::{Key, KeyId, Keys, SealedRows};

use crate::certificates::read;
use crate::config_encryption::EncryptionConfig;
use crate::error::StartError;

/// The first line of a file of keys.
const TITLE: &str = "rejoin encryption keys";
/// The most keys in a file.
const MAX_KEYS: usize = 64;
/// The most bytes that a command may print.
const MAX_PRINTED: u64 = 64 << 10;
/// The mode bits of users that are neither the file's owner nor in its group.
const OTHERS: u32 = 0o007;

/// The content of a file of keys. It is never printed but into a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EncryptionKeys {
    used: Key,
    /// Those whose values can be read, the newest first.
    others: Vec<Key>,
}

/// A file that has no keys, or a change that does not fit its keys.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BadKeys {
    /// It does not begin as a file of keys.
    #[error("it is no file of keys: `rejoin encryption add FILE` makes one")]
    Title,
    /// A line that is none of such a file. The line is not shown: it may have a key.
    #[error("line {line} is not one of a file of keys: `use` or `read`, and 64 hexadecimal digits")]
    Line {
        /// The number of the line, from 1.
        line: usize,
    },
    /// It has no key that encrypts, or two.
    #[error("it has {0} lines `use`, and one key encrypts")]
    Used(usize),
    /// It has two keys with one id.
    #[error("it has key {0} twice")]
    Twice(KeyId),
    /// It has too many keys.
    #[error("it has more than {MAX_KEYS} keys: `rejoin encryption remove FILE KEY` takes one out")]
    Many,
    /// There is no such key.
    #[error("it has no key {0}")]
    NoSuchKey(KeyId),
    /// The key encrypts.
    #[error("key {0} is the one that encrypts: add another one first, and remove this one when no value needs it")]
    InUse(KeyId),
}

impl EncryptionKeys {
    /// A file with one key, which must be drawn at random.
    #[must_use]
    pub fn new(secret: [u8; 32]) -> Self {
        Self { used: Key::new(secret), others: Vec::new() }
    }

    /// The keys in a file with that content.
    ///
    /// # Errors
    /// [`BadKeys`].
    pub fn from_file(content: &[u8]) -> Result<Self, BadKeys> {
        let text = std::str::from_utf8(content).map_err(|_| BadKeys::Title)?;
        let mut lines = text.lines();
        if lines.next() != Some(TITLE) {
            return Err(BadKeys::Title);
        }
        let (mut used, mut others) = (Vec::new(), Vec::new());
        for (at, line) in lines.enumerate() {
            let bad = BadKeys::Line { line: at + 2 };
            let (what, secret) = line.split_once(' ').ok_or_else(|| bad.clone())?;
            let key = Key::new(unhex(secret).ok_or_else(|| bad.clone())?);
            match what {
                "use" => used.push(key),
                "read" => others.push(key),
                _ => return Err(bad),
            }
        }
        if used.len() + others.len() > MAX_KEYS {
            return Err(BadKeys::Many);
        }
        let count = used.len();
        let used = used.pop().filter(|_| count == 1).ok_or(BadKeys::Used(count))?;
        let keys = Self { used, others };
        let mut ids: Vec<KeyId> = keys.ids().map(|(id, _)| id).collect();
        ids.sort_unstable();
        match ids.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(BadKeys::Twice(pair[0])),
            None => Ok(keys),
        }
    }

    /// The content of its file.
    #[must_use]
    pub fn to_file(&self) -> String {
        let read = self.others.iter().map(|key| format!("read {}\n", hex(key.secret()))).collect::<String>();
        format!("{TITLE}\nuse {}\n{read}", hex(self.used.secret()))
    }

    /// The ids of all keys, and whether it is the one that encrypts. That one is the first.
    pub fn ids(&self) -> impl Iterator<Item = (KeyId, bool)> + '_ {
        let others = self.others.iter().map(|key| (key.id(), false));
        std::iter::once((self.used.id(), true)).chain(others)
    }

    /// With a new key, which must be drawn at random and encrypts from now on.
    ///
    /// # Errors
    /// [`BadKeys::Many`]; [`BadKeys::Twice`] if a key has the same id, so that another one is to be drawn.
    pub fn adding(&self, secret: [u8; 32]) -> Result<Self, BadKeys> {
        let new = Key::new(secret);
        if self.ids().any(|(id, _)| id == new.id()) {
            return Err(BadKeys::Twice(new.id()));
        }
        if self.others.len() + 2 > MAX_KEYS {
            return Err(BadKeys::Many);
        }
        let others = std::iter::once(self.used.clone()).chain(self.others.iter().cloned()).collect();
        Ok(Self { used: new, others })
    }

    /// Without a key.
    ///
    /// # Errors
    /// [`BadKeys::NoSuchKey`], [`BadKeys::InUse`].
    pub fn without(&self, id: KeyId) -> Result<Self, BadKeys> {
        if id == self.used.id() {
            return Err(BadKeys::InUse(id));
        }
        let others: Vec<Key> = self.others.iter().filter(|key| key.id() != id).cloned().collect();
        if others.len() == self.others.len() {
            return Err(BadKeys::NoSuchKey(id));
        }
        Ok(Self { used: self.used.clone(), others })
    }

    /// For a store.
    fn keys(self, off: bool) -> Keys {
        if off { Keys::to_read(self.others.into_iter().chain([self.used])) } else { Keys::new(self.used, self.others) }
    }
}

/// The keys that the configuration names; `None` if values are not encrypted.
///
/// # Errors
/// [`StartError`]: the file cannot be read, or others can; the command has failed; what they have are no keys.
pub(crate) async fn keys(config: Option<&EncryptionConfig>) -> Result<Option<Arc<Keys>>, StartError> {
    let Some(config) = config else { return Ok(None) };
    let (from, content) = match &config.key_file {
        Some(path) => (format!("encryption.key_file = {}", path.display()), read_private(path)?),
        None => {
            let from = format!("encryption.key_command = {:?}", config.key_command);
            let printed = printed(config).await.map_err(|why| StartError::Unfit(format!("{from}: {why}")))?;
            (from, printed)
        }
    };
    let keys = EncryptionKeys::from_file(&content).map_err(|why| StartError::Unfit(format!("{from}: {why}")))?;
    Ok(Some(Arc::new(keys.keys(config.off))))
}

/// Reads a file that not every user may read.
fn read_private(path: &Path) -> Result<Vec<u8>, StartError> {
    let content = read("encryption.key_file", path)?;
    let mode = std::fs::metadata(path).map_or(0, |metadata| metadata.permissions().mode());
    if mode & OTHERS != 0 {
        let (path, mode) = (path.display(), mode & 0o777);
        return Err(StartError::Unfit(format!(
            "encryption.key_file = {path}: every user of this machine may use it (its mode is {mode:03o}): `chmod 600 \
                {path}`, and replace its key if others may have read it"
        )));
    }
    Ok(content)
}

/// What the command prints.
async fn printed(config: &EncryptionConfig) -> Result<Vec<u8>, String> {
    let [program, arguments @ ..] = &config.key_command[..] else { return Err("it names no program".to_owned()) };
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|why| format!("it cannot be started: {why}"))?;
    let mut out = child.stdout.take().ok_or("it has no output")?.take(MAX_PRINTED + 1);
    let ended = async {
        let mut printed = Vec::new();
        out.read_to_end(&mut printed).await.map_err(|why| format!("its output cannot be read: {why}"))?;
        if printed.len() as u64 > MAX_PRINTED {
            return Err(format!("it prints more than {MAX_PRINTED} bytes"));
        }
        let status = child.wait().await.map_err(|why| format!("it cannot be waited for: {why}"))?;
        if status.success() { Ok(printed) } else { Err(format!("it has ended with {status}")) }
    };
    let seconds = config.key_command_seconds;
    let limit = Duration::from_secs(u64::from(seconds));
    tokio::time::timeout(limit, ended).await.unwrap_or_else(|_| {
        Err(format!("it has not ended within {seconds} s; `encryption.key_command_seconds` gives it more"))
    })
}

/// How far the rows of all shards are encrypted with the key in use.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct EncryptionState {
    /// Of any shard; all have the same keys.
    used: Option<KeyId>,
    /// Keys beside it that a shard still needs.
    needed: Vec<KeyId>,
    /// Values may be in the clear that are to be encrypted.
    plain: bool,
    pub(crate) tables: u64,
    pub(crate) bytes: u64,
}

impl EncryptionState {
    /// The state of these shards.
    pub(crate) fn of(shards: impl Iterator<Item = SealedRows>) -> Self {
        let mut all = Self::default();
        for SealedRows { used, older, plain, tables, bytes, .. } in shards {
            all.used = used;
            all.needed.extend(older);
            all.plain |= plain;
            all.tables += tables;
            all.bytes += bytes;
        }
        all.needed.sort_unstable();
        all.needed.dedup();
        all
    }

    /// How values are written to the disk, in a line; `None` if they are in the clear.
    pub(crate) fn summary(&self) -> Option<String> {
        self.used.map(|id| format!("values are encrypted on the disk with key {id}"))
    }

    /// What an operator can do, or has to wait for, one line each. `keys` are those of the node.
    pub(crate) fn lines(&self, keys: &Keys) -> Vec<String> {
        let mut lines = Vec::new();
        let is_done = self.needed.is_empty() && !self.plain;
        if !is_done {
            let keys = self.needed.iter().map(|id| format!("with key {id}"));
            let from: Vec<String> = self.plain.then(|| "in the clear".to_owned()).into_iter().chain(keys).collect();
            let to = self.used.map_or("in the clear".to_owned(), |id| format!("with key {id}"));
            lines.push(format!(
                "encryption: values {} are written anew {to}: {} tables with {} bytes are left to be looked through",
                from.join(" and "),
                self.tables,
                self.bytes
            ));
        }
        if self.used.is_none() && is_done {
            lines.push(
                "encryption: no value is encrypted any more, and no key is needed: take [encryption] out of the \
                    configuration"
                    .to_owned(),
            );
        } else {
            let unneeded = keys.ids().filter(|id| Some(*id) != self.used && !self.needed.contains(id));
            lines.extend(unneeded.map(|id| {
                format!("encryption: key {id} is needed no more by this node: `rejoin encryption remove FILE {id}`")
            }));
        }
        lines
    }
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, at) in bytes.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&text[at..at + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(words: &[&str]) -> EncryptionConfig {
        let words: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
        let text = format!("key_command = [{}]\nkey_command_seconds = 5", words.join(", "));
        toml::from_str(&text).expect("a table")
    }

    #[test]
    fn a_file_of_keys_reads_back_and_one_key_encrypts() {
        let first = EncryptionKeys::new([1; 32]);
        let added = first.adding([2; 32]).unwrap();
        let ids = |keys: &EncryptionKeys| keys.ids().collect::<Vec<_>>();
        let (one, two) = (first.used.id(), added.used.id());
        assert_eq!(ids(&added), [(two, true), (one, false)]);
        for keys in [&first, &added] {
            assert_eq!(EncryptionKeys::from_file(keys.to_file().as_bytes()).as_ref(), Ok(keys));
            assert_eq!(EncryptionKeys::from_file(keys.to_file().replace('\n', "\r\n").as_bytes()).as_ref(), Ok(keys));
        }
        assert_eq!(added.without(two), Err(BadKeys::InUse(two)));
        assert_eq!(first.without(two), Err(BadKeys::NoSuchKey(two)));
        assert_eq!(added.without(one).map(|keys| ids(&keys)), Ok(vec![(two, true)]));
        assert_eq!(added.adding([1; 32]), Err(BadKeys::Twice(one)));
        let keys = added.clone().keys(false);
        assert_eq!((keys.used(), keys.ids().count()), (Some(two), 2));
        assert_eq!(added.keys(true).used(), None);
    }

    #[test]
    fn files_that_are_none_are_refused_and_not_shown() {
        let file = EncryptionKeys::new([0xab; 32]).adding([0xcd; 32]).unwrap().to_file();
        for (change, expected) in [
            (String::new(), BadKeys::Title),
            (file.replace("use ", "uses "), BadKeys::Line { line: 2 }),
            (file.replace("read ab", "read xb"), BadKeys::Line { line: 3 }),
            (file.replace("read ", "use "), BadKeys::Used(2)),
            (file.replace("use ", "read "), BadKeys::Used(0)),
            (format!("{file}\n"), BadKeys::Line { line: 4 }),
        ] {
            let refused = EncryptionKeys::from_file(change.as_bytes()).expect_err("it is none");
            assert_eq!(refused, expected, "{change}");
            assert!(!refused.to_string().contains("abab") && !refused.to_string().contains("cdcd"));
        }
        assert!(!format!("{:?}", EncryptionKeys::new([0xab; 32])).contains("171"), "nothing prints a key");
    }

    #[tokio::test]
    async fn a_command_prints_keys_within_its_time_or_is_refused() {
        let file = EncryptionKeys::new([7; 32]).to_file();
        let found = keys(Some(&command(&["printf", "%s", &file]))).await.expect("it prints").expect("keys");
        assert_eq!(found.used(), Some(EncryptionKeys::new([7; 32]).used.id()));
        let refused = async |words: &[&str]| keys(Some(&command(words))).await.expect_err("refused").to_string();
        assert!(refused(&["false"]).await.contains("it has ended with exit status: 1"));
        assert!(refused(&["true"]).await.contains("it is no file of keys"));
        assert!(refused(&["/no/such/program"]).await.contains("it cannot be started"));
        assert!(refused(&["yes"]).await.contains("it prints more than 65536 bytes"));
        let slow = EncryptionConfig { key_command_seconds: 1, ..command(&["sleep", "600"]) };
        let refused = keys(Some(&slow)).await.expect_err("refused").to_string();
        assert!(refused.contains("it has not ended within 1 s"), "{refused}");
        assert!(keys(None).await.expect("nothing to do").is_none());
    }

    #[test]
    fn a_file_that_every_user_may_read_is_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("keys");
        std::fs::write(&path, EncryptionKeys::new([7; 32]).to_file()).expect("writable");
        let set = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("ours");
        set(0o644);
        let refused = read_private(&path).expect_err("refused").to_string();
        assert!(refused.contains("its mode is 644") && refused.contains("chmod 600"), "{refused}");
        for mode in [0o600, 0o440] {
            set(mode);
            assert!(read_private(&path).is_ok(), "{mode:o}");
        }
    }

    #[test]
    fn what_is_left_and_what_may_go_is_said() {
        let (one, two) = (Key::new([1; 32]), Key::new([2; 32]));
        let keys = Keys::new(two.clone(), [one.clone()]);
        let state = |older: &[KeyId], plain, used| EncryptionState {
            used,
            needed: older.to_vec(),
            plain,
            tables: 3,
            bytes: 1000,
        };
        let rotating = state(&[one.id()], true, Some(two.id())).lines(&keys);
        assert_eq!(
            rotating,
            [format!(
                "encryption: values in the clear and with key {} are written anew with key {}: 3 tables with 1000 \
                    bytes are left to be looked through",
                one.id(),
                two.id()
            )]
        );
        let done = state(&[], false, Some(two.id())).lines(&keys);
        assert!(done.len() == 1 && done[0].contains(&format!("remove FILE {}", one.id())), "{done:?}");
        assert!(state(&[], false, Some(two.id())).lines(&Keys::new(two.clone(), [])).is_empty());
        let off = state(&[], false, None).lines(&Keys::to_read([one]));
        assert!(off.len() == 1 && off[0].contains("take [encryption] out"), "{off:?}");
    }
}
