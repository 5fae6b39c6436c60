//! Files with their permissions: public ones, and private ones for keys, secrets and tokens.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// The permissions of a new file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    /// Readable by everybody.
    Public,
    /// Readable by the owner only.
    Private,
}

/// Makes a file that does not exist yet.
///
/// # Errors
/// The file exists, or cannot be written.
pub(crate) fn create(path: &Path, content: &[u8], mode: Mode) -> Result<(), Failure> {
    write(path, content, mode, OpenOptions::new().write(true).create_new(true)).map_err(|why| match why.kind() {
        std::io::ErrorKind::AlreadyExists => {
            Failure::usage(format!("{} exists already, and is not overwritten", path.display()))
                .next("name another directory with --dir")
        }
        _ => Failure::file(path, "written", &why),
    })
}

/// Makes files that belong together and do not exist yet: all of them, or none.
///
/// # Errors
/// A file exists, or cannot be written.
pub(crate) fn create_all(files: &[(PathBuf, &[u8], Mode)]) -> Result<(), Failure> {
    for (index, (path, content, mode)) in files.iter().enumerate() {
        if let Err(failure) = create(path, content, *mode) {
            for (made, ..) in &files[..index] {
                // If this fails, the next attempt names the file that is in the way.
                let _ = fs::remove_file(made);
            }
            return Err(failure);
        }
    }
    Ok(())
}

/// The most bytes that a file's name has of what it is of.
const MAX_PART: usize = 60;

/// A part of a file's name, such as a key. What is neither a letter nor a digit nor one of `.`, `_` and `-` is written
/// as `%` and two digits; of what is long only the beginning is there.
pub(crate) fn name_part(bytes: &[u8]) -> String {
    let shown = |byte: &u8| match byte {
        b'.' | b'_' | b'-' => char::from(*byte).to_string(),
        letter if letter.is_ascii_alphanumeric() => char::from(*letter).to_string(),
        other => format!("%{other:02X}"),
    };
    bytes.iter().take(MAX_PART).map(shown).collect()
}

/// Writes a file that was named with `-o`, and is replaced, or else one that the command names, and that must not exist
/// yet. Returns its name.
///
/// # Errors
/// The file cannot be written, or nobody has said that it may be replaced.
pub(crate) fn write_named(
    given: Option<PathBuf>,
    usual: impl Into<PathBuf>,
    content: &[u8],
    mode: Mode,
) -> Result<PathBuf, Failure> {
    match given {
        Some(path) => replace(&path, content, mode).map(|()| path),
        None => {
            let path = usual.into();
            match write(&path, content, mode, OpenOptions::new().write(true).create_new(true)) {
                Ok(()) => Ok(path),
                Err(why) if why.kind() == std::io::ErrorKind::AlreadyExists => {
                    Err(Failure::usage(format!("{} exists already, and is not overwritten", path.display()))
                        .next(format!("name a file: `-o {}` replaces it", path.display())))
                }
                Err(why) => Err(Failure::file(&path, "written", &why)),
            }
        }
    }
}

/// Makes or replaces a file atomically.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn replace(path: &Path, content: &[u8], mode: Mode) -> Result<(), Failure> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = Path::new(&name);
    // A leftover of an earlier attempt would fail `create_new`, which is needed for the mode.
    let _ = fs::remove_file(new);
    write(new, content, mode, OpenOptions::new().write(true).create_new(true))
        .and_then(|()| fs::rename(new, path))
        .map_err(|why| Failure::file(path, "written", &why))
}

fn write(path: &Path, content: &[u8], mode: Mode, options: &mut OpenOptions) -> std::io::Result<()> {
    let bits = if mode == Mode::Private { 0o600 } else { 0o644 };
    let mut file = options.mode(bits).open(path)?;
    // A partial file, for instance on a full disk, would be in the way of the next attempt.
    file.write_all(content).and_then(|()| file.sync_all()).inspect_err(|_| drop(fs::remove_file(path)))
}

/// Makes a directory that only its owner can enter, and its parents. An existing one is not changed.
///
/// # Errors
/// The directory cannot be made.
pub(crate) fn directory(path: &Path) -> Result<(), Failure> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|why| Failure::file(path, "made", &why))
}

/// Reads the bytes of a file.
///
/// # Errors
/// The file cannot be read.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(path).map_err(|why| Failure::file(path, "read", &why))
}

/// Reads the text of a file.
///
/// # Errors
/// The file cannot be read, or is not UTF-8.
pub(crate) fn read_text(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(|why| Failure::file(path, "read", &why))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn secrets_are_for_their_owner_only_and_nothing_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        create(&path, b"one", Mode::Private).unwrap();
        assert_eq!(mode(&path), 0o600);
        assert!(create(&path, b"two", Mode::Private).unwrap_err().to_string().contains("exists already"));
        assert_eq!(fs::read(&path).unwrap(), b"one");
        replace(&path, b"three", Mode::Private).unwrap();
        assert_eq!((fs::read(&path).unwrap(), mode(&path)), (b"three".to_vec(), 0o600));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_is_replaced_only_by_whom_it_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let usual = folder.path().join("a.b.k.merges");
        assert_eq!(write_named(None, &usual, b"one", Mode::Private).unwrap(), usual);
        let failure = write_named(None, &usual, b"two", Mode::Private).unwrap_err();
        assert!(failure.to_string().contains("exists already"), "{failure}");
        assert_eq!((fs::read(&usual).unwrap(), mode(&usual)), (b"one".to_vec(), 0o600));
        write_named(Some(usual.clone()), "never", b"two", Mode::Private).unwrap();
        assert_eq!(fs::read(&usual).unwrap(), b"two");
        assert_eq!(name_part(b"eu/../k%\xff"), "eu%2F..%2Fk%25%FF");
        assert_eq!(name_part(&[b'k'; 300]).len(), MAX_PART);
    }

    #[test]
    fn files_that_belong_together_are_made_together_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let files = |names: [&str; 2]| names.map(|name| (folder.path().join(name), &b"x"[..], Mode::Public));
        assert!(create_all(&files(["key", "no/such/folder"])).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        create_all(&files(["key", "certificate"])).unwrap();
        assert!(create_all(&files(["another", "certificate"])).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "what was there stays");
    }
}
