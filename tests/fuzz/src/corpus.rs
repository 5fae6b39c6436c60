//! Inputs as files of hexadecimal text, so that they can be read, compared and explained. A line that begins with `#`
//! is a comment.

use std::path::{Path, PathBuf};

/// The inputs kept for a target, each with its path, in the order of their names.
///
/// # Panics
/// If a file is not hexadecimal text, or the target has none: a corpus that nothing reads would go unnoticed.
#[must_use]
pub fn of(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let found = folder(&home().join("corpus").join(target));
    assert!(!found.is_empty(), "target {target} has no corpus");
    found
}

/// The targets that have a corpus, in order.
///
/// # Panics
/// If the folder cannot be read.
#[must_use]
pub fn targets() -> Vec<String> {
    let folder = home().join("corpus");
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

/// The bytes of version 1 of everything that `rejoin-proto` encodes and whose name begins so: its fixtures.
///
/// # Panics
/// If there are none.
#[must_use]
pub fn fixtures(prefixes: &[&str]) -> Vec<Vec<u8>> {
    let all = folder(&home().join("../../host/proto/tests/fixtures"));
    let wanted = |path: &Path| {
        path.file_name().is_some_and(|name| prefixes.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)))
    };
    let found: Vec<Vec<u8>> = all.into_iter().filter(|(path, _)| wanted(path)).map(|(_, bytes)| bytes).collect();
    assert!(!found.is_empty(), "no fixtures of {prefixes:?}");
    found
}

/// The bytes of a file of hexadecimal text.
///
/// # Panics
/// If it is none.
#[must_use]
pub fn read(path: &Path) -> Vec<u8> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let digits: Vec<u8> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .flat_map(str::bytes)
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    let digit = |byte: &u8| char::from(*byte).to_digit(16).map(|digit| digit as u8);
    let byte = |pair: &[u8]| match pair {
        [high, low] => Some(digit(high)? << 4 | digit(low)?),
        _ => None,
    };
    let bytes: Option<Vec<u8>> = digits.chunks(2).map(byte).collect();
    bytes.unwrap_or_else(|| panic!("{} is no hexadecimal text", path.display()))
}

/// The text of such a file.
#[must_use]
pub fn text(remark: &str, bytes: &[u8]) -> String {
    let digits: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let lines: String = digits.chunks(64).map(|line| line.concat() + "\n").collect();
    format!("# {remark}\n{lines}")
}

fn home() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn folder(path: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let Ok(entries) = std::fs::read_dir(path) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|it| it == "hex"))
        .collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), read(&path))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_read_again_and_what_is_no_input_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("one.hex");
        for bytes in [vec![], vec![0], (0..=255).collect::<Vec<u8>>()] {
            std::fs::write(&path, text("why it is here", &bytes)).unwrap();
            assert_eq!(read(&path), bytes);
        }
        for wrong in ["0", "zz", "00 1", "+1"] {
            std::fs::write(&path, wrong).unwrap();
            assert!(std::panic::catch_unwind(|| read(&path)).is_err(), "{wrong}");
        }
    }
}
