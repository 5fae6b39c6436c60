//! `plugin new`: a guest crate, made from the plugin `highest` of the source tree under another name.

use std::path::Path;

use crate::commands::json;
use crate::failure::Failure;
use crate::files::{self, Mode};
use crate::output::{Output, note};

const LIB: &str = include_str!("../../../../plugins/highest/src/lib.rs");
const LAWS: &str = include_str!("../../../../plugins/highest/tests/laws.rs");
const INTENT: &str = include_str!("../../../../plugins/highest/intent.json");
const HISTORIES: &str = include_str!("../../../../plugins/highest/tests/histories.rs");
/// The name of the template's library in its tests.
const LIB_NAME: &str = "rejoin_plugin_highest";

pub(crate) fn run(out: Output, dir: &Path, sdk: &Path) -> Result<(), Failure> {
    let name = name(dir)?;
    let sdk = sdk.canonicalize().map_err(|why| Failure::file(sdk, "read", &why))?;
    if !sdk.join("wit/rejoin.wit").is_file() {
        let what = format!("{} does not hold the SDK", sdk.display());
        return Err(Failure::usage(what).next("give --sdk the folder `guest-sdk` of Rejoin's source tree"));
    }
    if dir.exists() {
        return Err(Failure::usage(format!("{} exists already, and is not overwritten", dir.display()))
            .next("choose another name"));
    }
    files::directory(&dir.join("src"))?;
    files::directory(&dir.join("tests"))?;
    files::create(&dir.join("Cargo.toml"), manifest(name, &sdk).as_bytes(), Mode::Public)?;
    files::create(&dir.join("src/lib.rs"), LIB.as_bytes(), Mode::Public)?;
    files::create(&dir.join("intent.json"), INTENT.as_bytes(), Mode::Public)?;
    for (file, test) in [("tests/laws.rs", LAWS), ("tests/histories.rs", HISTORIES)] {
        let test = test.replace(LIB_NAME, &name.replace('-', "_"));
        files::create(&dir.join(file), test.as_bytes(), Mode::Public)?;
    }
    if out.json {
        return out.json(&json::New { crate_name: name.into(), dir: dir.display().to_string() });
    }
    note(format!("a guest crate is in {}; `cargo test` there tries the laws on its plain functions", dir.display()));
    note(format!("next: `rejoin plugin build {}`", dir.display()));
    out.line(dir.display())
}

/// The name of the crate, which is that of the directory.
fn name(dir: &Path) -> Result<&str, Failure> {
    let name = dir.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let good = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        && name.len() <= 64;
    if good {
        return Ok(name);
    }
    Err(Failure::usage(format!("{name:?} cannot be a crate's name")).next(
        "name the directory with small letters, digits and dashes, a letter first, such as `rejoin plugin new \
            high-scores`",
    ))
}

/// The manifest: a workspace of its own, so that the directory can be anywhere, with the profile of `plugin build` (a
/// small module that does not unwind).
fn manifest(name: &str, sdk: &Path) -> String {
    let sdk = toml::Value::String(sdk.display().to_string());
    format!(
        r#"[package]
name = "{name}"
version = "0.1.0"
edition = "2024"
publish = false

[lib]
crate-type = ["cdylib", "rlib"]

[dependencies]
rejoin-guest = {{ path = {sdk} }}

[profile.guest]
inherits = "release"
opt-level = "s"
debug = false
lto = true
codegen-units = 1
panic = "abort"
strip = true

[workspace]
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Exit;

    const OUT: Output = Output { json: false, color: false };

    #[test]
    fn a_new_crate_is_the_template_under_its_own_name() {
        let folder = tempfile::tempdir().expect("a directory");
        let (dir, sdk) =
            (folder.path().join("high-scores"), Path::new(env!("CARGO_MANIFEST_DIR")).join("../../guest-sdk"));
        run(OUT, &dir, &sdk).expect("it is new");
        let read = |file: &str| std::fs::read_to_string(dir.join(file)).expect("it was made");
        let manifest: toml::Table = read("Cargo.toml").parse().expect("TOML");
        assert_eq!(manifest["package"]["name"].as_str(), Some("high-scores"));
        let path = manifest["dependencies"]["rejoin-guest"]["path"].as_str().expect("a path");
        assert!(Path::new(path).join("wit/rejoin.wit").is_file(), "{path}");
        assert_eq!(read("src/lib.rs"), LIB);
        let laws = read("tests/laws.rs");
        assert!(laws.contains("use high_scores::Highest;") && !laws.contains(LIB_NAME), "{laws}");
        assert!(read("tests/histories.rs").contains("use high_scores::Highest;"));
        rejoin_merge::IntentFile::parse(read("intent.json").as_bytes()).expect("an intent");
        assert!(run(OUT, &dir, &sdk).expect_err("it is there").to_string().contains("exists already"));
    }

    #[test]
    fn bad_names_and_places_are_refused_with_advice() {
        let folder = tempfile::tempdir().expect("a directory");
        for bad in ["9lives", "High", "a_b", "..", "a b"] {
            assert_eq!(run(OUT, &folder.path().join(bad), folder.path()).expect_err(bad).exit, Exit::Usage);
        }
        let no_sdk = run(OUT, &folder.path().join("good"), folder.path()).expect_err("no SDK there");
        assert!(no_sdk.to_string().contains("does not hold the SDK"), "{no_sdk}");
        assert_eq!(std::fs::read_dir(folder.path()).expect("it is ours").count(), 0, "nothing is left behind");
    }
}
