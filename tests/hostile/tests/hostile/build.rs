//! Guest crates that make no plugin: each error says what to do.

use std::path::Path;

use rejoin_merge::build::{self, BuildError, Options};
use rejoin_test_hostile::Bench;

const MANIFEST: &str = "[package]\nname = \"guest\"\nedition = \"2024\"\n[workspace]\n";
const CDYLIB: &str = "[lib]\ncrate-type = [\"cdylib\"]\n";

fn built(dir: &Path, manifest: &str, source: &str) -> Result<Vec<u8>, BuildError> {
    std::fs::create_dir_all(dir.join("src")).expect("it is ours");
    std::fs::write(dir.join("Cargo.toml"), manifest).expect("it is ours");
    std::fs::write(dir.join("src/lib.rs"), source).expect("it is ours");
    build::guest(dir, &Options { offline: true, ..Options::default() })
}

#[test]
fn a_directory_without_a_crate() {
    let dir = tempfile::tempdir().expect("a directory");
    assert!(matches!(build::guest(dir.path(), &Options::default()), Err(BuildError::NoCrate { .. })));
}

#[test]
fn source_that_does_not_compile_is_answered_with_the_compilers_words() {
    let dir = tempfile::tempdir().expect("a directory");
    let error = built(dir.path(), &format!("{MANIFEST}{CDYLIB}"), "pub fn broken() -> u8 { \"text\" }")
        .expect_err("it does not compile");
    assert!(matches!(&error, BuildError::Failed { output } if output.contains("mismatched types")), "{error}");
}

#[test]
fn a_crate_that_makes_no_module() {
    let dir = tempfile::tempdir().expect("a directory");
    let error = built(dir.path(), MANIFEST, "").expect_err("an rlib is no module");
    assert!(matches!(&error, BuildError::NoModule { package } if package == "guest"), "{error}");
}

#[test]
fn a_module_without_the_contract_is_no_plugin() {
    let dir = tempfile::tempdir().expect("a directory");
    let component =
        built(dir.path(), &format!("{MANIFEST}{CDYLIB}"), "#[unsafe(no_mangle)] pub extern \"C\" fn merge() {}");
    match component {
        Err(error) => assert!(matches!(error, BuildError::NotAGuest { .. }), "{error}"),
        Ok(component) => {
            let rejection = Bench::default()
                .host
                .compile(&component, &rejoin_merge::ModuleLimits::default())
                .expect_err("it exports nothing");
            assert!(matches!(rejection, rejoin_merge::Rejection::NoMerger { .. }), "{rejection}");
        }
    }
}

#[test]
fn bytes_that_are_no_module() {
    assert!(matches!(build::componentize(b"text"), Err(BuildError::NotAGuest { .. })));
}
