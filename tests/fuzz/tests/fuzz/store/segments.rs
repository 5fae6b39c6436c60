//! Damaged files: synced data is there as it was last written, or its loss is reported.

use std::path::PathBuf;

use super::{BASE, Opened};
use crate::fuzz;

/// The files that can be damaged, the mark last.
fn files() -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        BASE.disk.list_all().into_iter().map(|(path, _)| path).filter(|path| path.extension().is_some()).collect();
    files.push("mark".into());
    files
}

/// The first byte says which file the rest is now found in.
fn property(bytes: &[u8]) {
    let Some((&which, content)) = bytes.split_first() else { return };
    let files = files();
    let path = &files[usize::from(which) % files.len()];
    let disk = BASE.disk.above("".as_ref());
    disk.write(path, content);
    let opened = Opened::on(&disk);
    let rows = opened.rows();
    for (key, value) in &rows {
        let text = String::from_utf8_lossy(&key[1..]);
        assert!(value.starts_with(format!("{text} as of ").as_bytes()), "{text}: a value that was never written");
    }
    if opened.recovery.lost.is_empty() {
        assert_eq!(rows, BASE.rows, "what was synced is there, or its loss is said");
    }
    // What is there now is what is there at the next start, and a loss is said until it is settled.
    let lost = opened.recovery.lost.clone();
    let again = opened.again();
    assert_eq!((again.rows(), &again.recovery.lost), (rows, &lost));
}

#[test]
fn segments() {
    let mut seeds = Vec::new();
    for (which, path) in files().into_iter().enumerate() {
        let mut content = BASE.disk.read(path);
        content.truncate(content.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1));
        let found = [vec![which as u8], content].concat();
        // As it was, and with a bit that has flipped: in the header, and in one record after the other.
        seeds.push(found.clone());
        for part in 0..6 {
            let mut damaged = found.clone();
            damaged[1 + (found.len() - 1) * part / 6 + 20] ^= 1;
            seeds.push(damaged);
        }
    }
    fuzz("segments", seeds, property);
}
