//! The targets: one test each, named as its corpus. `rejoin_test_fuzz` produces the inputs.
#![deny(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod access;
mod catalogs;
mod certificates;
mod contexts;
mod frames;
mod meter;
mod plugins;
mod shards;
mod store;
mod words;

use std::collections::BTreeSet;
use std::path::Path;

use rejoin_test_fuzz::{Target, corpus};

/// Runs a property over its corpus and over what hostile bytes are made of these seeds.
fn fuzz(name: &'static str, seeds: Vec<Vec<u8>>, property: fn(&[u8])) {
    assert!(TARGETS.contains(&name), "{name} is not in the list of targets");
    Target { name, seeds, property, keep: Path::new(env!("CARGO_TARGET_TMPDIR")).to_path_buf() }.run();
}

/// Every target. `cargo xtask fuzz` runs them by these names.
const TARGETS: &[&str] = &[
    "access",
    "catalogs",
    "certificates",
    "contexts",
    "files",
    "frames",
    "messages",
    "objects",
    "records",
    "results",
    "segments",
    "shards",
    "uploads",
];

#[test]
fn every_corpus_is_of_a_target_and_small() {
    let known: BTreeSet<&str> = TARGETS.iter().copied().collect();
    let found: BTreeSet<String> = corpus::targets().into_iter().collect();
    assert_eq!(found.iter().map(String::as_str).collect::<BTreeSet<_>>(), known);
    let bytes: usize = TARGETS.iter().flat_map(|target| corpus::of(target)).map(|(_, bytes)| bytes.len()).sum();
    assert!(bytes < 100_000, "{bytes} bytes: a corpus is read by people");
}
