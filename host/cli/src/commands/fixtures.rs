//! Fixtures: values of a team, on which the laws are checked beside those of a plugin's sampler.

use std::path::{Path, PathBuf};

use rejoin_client::admin::{MAX_FIXTURE_BYTES, MAX_FIXTURES};

use crate::failure::Failure;
use crate::files;

/// What one can do with more values than a push takes.
const FEWER: &str = "name fewer of them, and check the others with `rejoin plugin test --fixture`";

/// The values of all paths: a file is one, a directory has one in each of its files.
///
/// # Errors
/// A file cannot be read, or a directory has none.
pub(super) fn read(paths: &[PathBuf]) -> Result<Vec<Vec<u8>>, Failure> {
    all_files(paths)?.iter().map(|file| files::read(file)).collect()
}

/// As [`read`], as many values as a push takes. Larger files are not read.
///
/// # Errors
/// As there; or there are more values, or more bytes of them, than any node takes.
pub(super) fn read_to_push(paths: &[PathBuf]) -> Result<Vec<Vec<u8>>, Failure> {
    read_within(paths, MAX_FIXTURES, MAX_FIXTURE_BYTES)
}

fn read_within(paths: &[PathBuf], most: usize, most_bytes: usize) -> Result<Vec<Vec<u8>>, Failure> {
    let files = all_files(paths)?;
    if files.len() > most {
        let what = format!("{} fixtures were given, and a push takes {most} at most", files.len());
        return Err(Failure::usage(what).next(FEWER));
    }
    let (mut values, mut left) = (Vec::new(), most_bytes);
    for file in &files {
        let too_large = || {
            let what = format!("with {} the fixtures have more than the {most_bytes} bytes of a push", file.display());
            Failure::usage(what).next(FEWER)
        };
        let expected = std::fs::metadata(file).map_err(|why| Failure::file(file, "read", &why))?.len();
        if usize::try_from(expected).unwrap_or(usize::MAX) > left {
            return Err(too_large());
        }
        let value = files::read(file)?;
        // It may have grown meanwhile.
        left = left.checked_sub(value.len()).ok_or_else(too_large)?;
        values.push(value);
    }
    Ok(values)
}

/// The files of all paths.
fn all_files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut all = Vec::new();
    for path in paths {
        all.extend(files_of(path)?);
    }
    Ok(all)
}

/// A file, or the files of a directory by name.
fn files_of(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let unread = |why| Failure::file(path, "read", &why);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(unread)? {
        let file = entry.map_err(unread)?.path();
        files.extend(file.is_file().then_some(file));
    }
    files.sort();
    if files.is_empty() {
        return Err(Failure::usage(format!("there are no files in {}", path.display()))
            .next("--fixture takes a file that is a value, or a directory of such files"));
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Exit;

    #[test]
    fn a_directory_has_a_value_in_each_file_in_the_order_of_their_names() {
        let dir = tempfile::tempdir().expect("a directory");
        let values = dir.path().join("values");
        std::fs::create_dir(&values).expect("it is ours");
        let none = read(std::slice::from_ref(&values)).expect_err("it has no files");
        assert!(none.exit == Exit::Usage && none.to_string().contains("there are no files in"), "{none}");
        for (name, value) in [("b", "two"), ("a", "one"), ("c", "")] {
            std::fs::write(values.join(name), value).expect("it is ours");
        }
        let twice = [values.clone(), values.join("b")];
        assert_eq!(read(&twice).expect("values"), [&b"one"[..], b"two", b"", b"two"]);
        assert_eq!(read_to_push(&twice).expect("values"), [&b"one"[..], b"two", b"", b"two"]);
        for missing in [read(&[values.join("d")]).map(drop), read_to_push(&[values.join("d")]).map(drop)] {
            let missing = missing.expect_err("there is no such file");
            assert!(missing.exit == Exit::Usage && missing.to_string().contains("cannot be read"), "{missing}");
        }
    }

    #[test]
    fn what_a_push_does_not_take_is_named_and_not_read() {
        let dir = tempfile::tempdir().expect("a directory");
        for name in ["a", "b"] {
            std::fs::write(dir.path().join(name), b"four").expect("it is ours");
        }
        let paths = [dir.path().to_owned()];
        assert_eq!(read_within(&paths, 2, 8).expect("as much as it takes").len(), 2);
        let many = read_within(&paths, 1, 8).expect_err("two are too many").to_string();
        assert!(many.contains("2 fixtures were given, and a push takes 1 at most"), "{many}");
        let large = read_within(&paths, 2, 7).expect_err("eight bytes are too many").to_string();
        assert!(large.contains("/b the fixtures have more than the 7 bytes"), "{large}");
    }
}
