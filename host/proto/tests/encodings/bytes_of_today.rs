//! The bytes of version 1 as they were first written. A difference here is a change of format: make a new version
//! beside the old one, never new fixtures. Fixtures for something new are written with `REJOIN_WRITE_FIXTURES=1`, which
//! leaves those that exist alone.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rejoin_proto::context::{self, ContextKey};

use crate::support::{self, Sample, object_id, samples, vector};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn hex(bytes: &[u8]) -> String {
    let digits: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    digits.chunks(64).map(|line| line.concat() + "\n").collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    digits
        .chunks(2)
        .map(|pair| {
            u8::from_str_radix(std::str::from_utf8(pair).expect("a readable fixture"), 16).expect("a readable fixture")
        })
        .collect()
}

fn fixture(sample: &Sample) -> Vec<u8> {
    let path = folder().join(format!("{}.hex", sample.name));
    if !path.exists() && std::env::var_os("REJOIN_WRITE_FIXTURES").is_some() {
        std::fs::write(&path, hex(&sample.bytes)).expect("a readable fixture");
    }
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    unhex(&text)
}

#[test]
fn what_is_written_today_is_what_was_written_then() {
    for sample in samples() {
        assert_eq!(hex(&sample.bytes), hex(&fixture(&sample)), "{} is written differently", sample.name);
    }
}

#[test]
fn what_was_written_then_is_read_and_written_again_identically() {
    for sample in samples() {
        let then = fixture(&sample);
        let again = (sample.again)(&then).unwrap_or_else(|error| panic!("{}: {error}", sample.name));
        assert_eq!(hex(&again), hex(&then), "{}", sample.name);
    }
}

#[test]
fn every_fixture_is_of_something() {
    let known: BTreeSet<String> = samples().iter().map(|sample| format!("{}.hex", sample.name)).collect();
    let found = std::fs::read_dir(folder())
        .expect("a readable fixture")
        .map(|entry| entry.expect("a readable fixture").file_name().into_string().expect("a readable fixture"));
    let strays: Vec<String> = found.filter(|name| !known.contains(name)).collect();
    assert!(strays.is_empty(), "fixtures that nothing reads: {strays:?}");
}

/// Places on the ring, ids and sealed contexts are formats as well: another function would move every key and refuse
/// every context.
#[test]
fn ids_hashes_and_contexts_are_what_they_were() {
    let id = object_id();
    let token = ContextKey::derive(1, b"a cluster's secret").seal(&id, &vector());
    let clouded = ContextKey::derive(1, b"a cluster's secret").seal(&id, &support::clouded());
    let found = [
        format!("tenant {}", id.tenant),
        format!("bucket {}", id.bucket),
        format!("hash {:032x}", id.hash()),
        format!("node {}", support::layout().nodes[0].id),
        format!("layout {:016x}", support::layout().name().hash),
        format!("rank {:016x}", support::bucket_record().rank().1),
        format!("context {}", context::to_text(&token)),
        format!("context with a cloud {}", context::to_text(&clouded)),
    ];
    assert_eq!(found.join("\n"), include_str!("../ids_of_today.txt").trim_end());
}
