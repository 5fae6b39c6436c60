//! A panic in any export of a guest is reported with its message and location, and the fault of a merge names the
//! sibling.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rejoin_laws::{Law, MergeError, Sampler as _, Violation};
use rejoin_merge::build::{self, Options};
use rejoin_merge::check_laws;
use rejoin_merge::{CallLimits, Memo, MergeFault, PluginUnderTest, Refusal, Sibling};
use rejoin_proto::catalog::BucketProps;

const SOURCE: &str = r#"
use rejoin_guest::{Fault, Merger, Presenter, Sampler, Sibling, Validator};

pub struct Fragile;

rejoin_guest::export!(Fragile: Merger, Validator, Presenter, Sampler);

fn look(value: &[u8]) -> Result<(), Fault> {
    match value {
        b"index" => drop(value[value.len() + 1]),
        b"words" => panic!("these are \u{1b}[31mred\u{202e} words of {} bytes", value.len()),
        b"long" => panic!("{}", "x".repeat(5000)),
        b"nothing" => std::panic::panic_any(7_u32),
        b"none" => drop(None::<u8>.expect("there is one")),
        b"bad" => return Err(Fault::Malformed),
        _ => {}
    }
    Ok(())
}

impl Merger for Fragile {
    fn merge(_key: &[u8], siblings: &[Sibling]) -> Result<Vec<u8>, Fault> {
        siblings.iter().try_for_each(|sibling| look(&sibling.value))?;
        siblings.iter().map(|sibling| sibling.value.clone()).max().ok_or(Fault::Malformed)
    }
}

impl Validator for Fragile {
    fn validate(_key: &[u8], value: &[u8]) -> Result<(), Fault> {
        look(value)
    }
}

impl Presenter for Fragile {
    fn show(value: &[u8]) -> Vec<u8> {
        look(value).map(|()| b"{}".to_vec()).unwrap_or_default()
    }
}

impl Sampler for Fragile {
    fn sample(seed: u64, _size: u32) -> Vec<u8> {
        let values: [&[u8]; 4] = [b"a", b"b", b"words", b"c"];
        values[(seed % 4) as usize].to_vec()
    }
}
"#;

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("it is here")
}

/// The guest, built as its author would, in the folder where all guests are built.
fn fragile() -> &'static PluginUnderTest {
    static BUILT: OnceLock<PluginUnderTest> = OnceLock::new();
    BUILT.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a directory");
        let sdk = workspace().join("guest-sdk").display().to_string();
        let manifest = format!(
            "[package]\nname = \"fragile\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[lib]\ncrate-type = [\"cdylib\", \
                \"rlib\"]\n\
             [dependencies]\nrejoin-guest = {{ path = {sdk:?} }}\n[workspace]\n[profile.guest]\ninherits = \
             \"release\"\n\
             opt-level = \"s\"\npanic = \"abort\"\nstrip = true\n"
        );
        std::fs::create_dir(dir.path().join("src")).expect("a new directory");
        std::fs::write(dir.path().join("Cargo.toml"), manifest).expect("it is ours");
        std::fs::write(dir.path().join("src/lib.rs"), SOURCE).expect("it is ours");
        std::fs::copy(workspace().join("Cargo.lock"), dir.path().join("Cargo.lock")).expect("the workspace has one");
        let options = Options { target_dir: Some(workspace().join("target/guest")), offline: true };
        let bytes = build::guest(dir.path(), &options).unwrap_or_else(|error| panic!("{error}"));
        rejoin_test_laws::component::on_a_host(&bytes)
    })
}

fn limits() -> CallLimits {
    CallLimits::default()
}

fn siblings(values: &[&'static str]) -> Vec<Sibling> {
    let sibling = |(at, value): (usize, &&'static str)| Sibling {
        value: (*value).into(),
        stamp_ms: 1000 + at as u64,
        writer: 0xab + at as u64,
    };
    values.iter().enumerate().map(sibling).collect()
}

fn line(text: &str) -> String {
    let at = SOURCE.lines().position(|line| line.contains(text)).expect("a line of the source") + 1;
    format!("src/lib.rs:{at}:")
}

#[test]
fn merges_validators_and_presenters_keep_their_panics() {
    let fragile = fragile();
    for (value, at, words) in [
        ("index", "b\"index\"", "index out of bounds: the len is 5 but the index is 6"),
        ("words", "b\"words\"", "these are \\u{1b}[31mred\\u{202e} words of 5 bytes"),
        ("none", "b\"none\"", "there is one"),
        ("nothing", "b\"nothing\"", "a panic without a message"),
    ] {
        let faults = [
            fragile.host.merge(&fragile.plugin, b"k", &siblings(&["a", value]), &limits()).expect_err(value),
            fragile.host.validate(&fragile.plugin, b"k", value.as_bytes(), &limits()).expect_err(value),
            fragile.host.show(&fragile.plugin, value.as_bytes(), &limits()).expect_err(value),
        ];
        for fault in &faults {
            let MergeFault::Panicked { message: said } = fault else { panic!("{fault:?}") };
            assert!(said.starts_with(&line(at)) && said.contains(words), "{said}");
            assert!(
                fault.to_string().starts_with("the plugin panicked at src/lib.rs:") && fault.is_deterministic(),
                "{fault}"
            );
            assert_eq!(fault.reason(), "panicked");
        }
        assert!(
            faults.iter().all(|fault| *fault == faults[0]),
            "it is the same wherever and whenever it is asked: {faults:?}"
        );
    }
}

#[test]
fn long_words_are_cut_and_a_good_call_follows() {
    let fragile = fragile();
    let fault = fragile.host.validate(&fragile.plugin, b"k", b"long", &limits()).expect_err("it panics").to_string();
    assert!(fault.contains("xxx") && fault.chars().count() < 500, "{fault}");
    let merged =
        fragile.host.merge(&fragile.plugin, b"k", &siblings(&["a", "b"]), &limits()).expect("a fresh instance");
    assert_eq!(merged.value, "b");
}

#[test]
fn the_sibling_to_which_a_failed_merge_is_due_is_named() {
    let fragile = fragile();
    let memo = Memo::new(1 << 20);
    let merge =
        |values: &[&'static str]| memo.merge(&fragile.host, &fragile.plugin, b"k", &siblings(values), &limits());
    let bad = merge(&["a", "b", "bad", "c"]).expect_err("one is bad");
    let said = "sibling 3 of 4 (written at 1002 ms by 00000000000000ad): the plugin refused: a value is malformed";
    assert_eq!((bad.to_string().as_str(), bad.reason()), (said, "malformed"));
    assert!(matches!(&bad, MergeFault::InSibling { fault, .. } if **fault == MergeFault::Refused(Refusal::Malformed)));
    assert_eq!(merge(&["a", "b", "bad", "c"]), Err(bad), "it is remembered with its name");
    let panicked = merge(&["words", "a"]).expect_err("one makes it panic").to_string();
    assert!(
        panicked
            .starts_with("sibling 1 of 2 (written at 1000 ms by 00000000000000ab): the plugin panicked at src/lib.rs:"),
        "{panicked}"
    );
    assert_eq!(merge(&["a", "b"]).expect("both are good").value, "b");
}

#[test]
fn plugin_test_says_it_too() {
    let fragile = fragile();
    assert_eq!(fragile.sample(2, 1).as_deref(), Ok(&b"words"[..]));
    let props = BucketProps::default();
    let config = rejoin_laws::CheckConfig { cases: 40, ..rejoin_laws::CheckConfig::default() };
    let report = check_laws(fragile, &props, config);
    let found =
        report.counterexamples().find(|found| found.law == Law::Totality).expect("a valid value makes it panic");
    let Violation::NoAnswer { failure: MergeError::Trapped(reason), .. } = &found.violation else { panic!("{found}") };
    assert!(reason.contains("the plugin panicked at src/lib.rs:") && reason.contains("words of 5 bytes"), "{reason}");
    assert!(reason.starts_with("sibling "), "{reason}");
}

#[test]
fn a_guest_without_the_sdk_is_told_by_its_functions() {
    let merge = "(func $read (param i32) (result i32) (i32.div_u (i32.const 1) (local.get 0))) (func $decode (result \
        i32) (call $read (i32.const 0)))";
    let other = rejoin_test_laws::component::on_a_host(&rejoin_test_hostile::guests::merging(merge, "(call $decode)"));
    let fault =
        other.host.merge(&other.plugin, b"k", &siblings(&["a", "b"]), &limits()).expect_err("it divides by zero");
    assert_eq!(fault.to_string(), "the plugin trapped: an arithmetic error, in read, called by decode");
    assert_eq!(fault.reason(), "trapped");
}
