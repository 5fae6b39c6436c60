//! `plugin replay`: runs the merges of a bundle again, without a cluster.

use std::path::Path;

use serde::Serialize;

use rejoin_client::admin::PluginDigest;
use rejoin_merge::{
    Bundle, BundledMerge, BundledOutcome, CancelToken, Compiler, EncodedBytes, Host, HostConfig, MergeSource,
    ModuleLimits, Plugin, Replayed, digest_of,
};
use rejoin_proto::hex::hex;
use rejoin_wire::utc_text_ms;

use crate::commands::component::rejected;
use crate::commands::laws;
use crate::failure::{Exit, Failure};
use crate::files;
use crate::output::{Output, note};

/// A merge that was run again.
#[derive(Serialize, Debug)]
struct ReplayJson {
    /// `fold`, `failure` or `siblings`.
    source: &'static str,
    /// The node, if it was a fold or a failure.
    node: Option<String>,
    at_ms: Option<u64>,
    plugin: String,
    siblings: usize,
    equal: bool,
    /// What came of it before: the BLAKE3 hash of the value, or why there was none.
    expected: OutcomeJson,
    got: OutcomeJson,
    /// The value now.
    value: Option<EncodedBytes>,
    /// The fuel that it took before; null if that is not known.
    expected_fuel: Option<u64>,
    fuel: u64,
    fuel_limit: u64,
}

#[derive(Serialize, Debug)]
struct OutcomeJson {
    hash: Option<String>,
    failure: Option<String>,
}

pub(crate) fn run(out: Output, compiler: impl Fn(usize) -> Compiler, file: &Path) -> Result<(), Failure> {
    let bad = |why: &dyn std::fmt::Display| Failure::usage(why).during(&file.display().to_string());
    let bundle = Bundle::parse(&files::read(file)?).map_err(|why| bad(&why))?;
    let host = Host::new(HostConfig { instances: 1, ..HostConfig::default() }).map_err(Failure::usage)?;
    if let Some(other) = bundle.merges.iter().find(|merge| merge.profile != host.profile()) {
        let what = format!(
            "the merges were run in engine profile {}, and this program has {}: their results may differ",
            other.profile,
            host.profile()
        );
        return Err(bad(&what).next("replay them with the release of the nodes, on a processor of their architecture"));
    }
    let mut replayed = Vec::new();
    for merge in &bundle.merges {
        let plugin = load(&host, &compiler, &bundle, merge.plugin)?;
        let again = merge.replay(&host, &plugin, &bundle.key);
        if !out.json {
            print(out, merge, &again)?;
        }
        replayed.push(shape(merge, &again));
    }
    let different = replayed.iter().filter(|merge| !merge.equal).count();
    if out.json {
        out.json(&replayed)?;
    }
    match (replayed.len(), different) {
        (0, _) => Err(bad(&"the bundle has no merges")),
        (all, 0) => {
            note(format!("all {all} merges of {}/{} end as they did", bundle.bucket, lossy(&bundle.key)));
            Ok(())
        }
        (all, different) => {
            Err(Failure::new(Exit::Negative, format!("{different} of {all} merges end differently than they did")))
        }
    }
}

fn lossy(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

fn load(
    host: &Host,
    compiler: &impl Fn(usize) -> Compiler,
    bundle: &Bundle,
    digest: PluginDigest,
) -> Result<Plugin, Failure> {
    let missing = || Failure::usage(format!("the bundle does not have plugin {digest}"));
    let component = bundle.components.iter().find(|component| digest_of(component) == digest).ok_or_else(missing)?;
    // The cluster has accepted it, whatever its limits are.
    let limits = ModuleLimits::for_bytes(component.len());
    let compiled = compiler(component.len()).compile(host, component, &limits, &CancelToken::default());
    compiled.and_then(|compiled| host.load(&compiled)).map_err(|why| rejected(&why))
}

fn expected(merge: &BundledMerge) -> OutcomeJson {
    match &merge.outcome {
        BundledOutcome::Value { hash, .. } => OutcomeJson { hash: Some(hex(hash)), failure: None },
        BundledOutcome::Failed { why, .. } => OutcomeJson { hash: None, failure: Some(why.clone()) },
    }
}

fn got(again: &Replayed) -> OutcomeJson {
    match &again.result {
        Ok(value) => OutcomeJson { hash: Some(hex(&rejoin_client::admin::output_hash(value))), failure: None },
        Err(fault) => OutcomeJson { hash: None, failure: Some(fault.to_string()) },
    }
}

fn shape(merge: &BundledMerge, again: &Replayed) -> ReplayJson {
    let (source, node, at_ms) = match &merge.source {
        MergeSource::Fold { node, at_ms, .. } => ("fold", Some(node.clone()), Some(*at_ms)),
        MergeSource::Failure { node, at_ms } => ("failure", Some(node.clone()), Some(*at_ms)),
        MergeSource::Siblings => ("siblings", None, None),
    };
    ReplayJson {
        source,
        node,
        at_ms,
        plugin: merge.plugin.to_string(),
        siblings: merge.siblings.len(),
        equal: again.is_equal(),
        expected: expected(merge),
        got: got(again),
        value: again.result.as_ref().ok().map(|value| EncodedBytes::of_key(value)),
        expected_fuel: merge.fuel_used(),
        fuel: again.used.fuel,
        fuel_limit: merge.limits.fuel,
    }
}

fn print(out: Output, merge: &BundledMerge, again: &Replayed) -> Result<(), Failure> {
    let source = match &merge.source {
        MergeSource::Fold { node, at_ms, .. } => format!("fold at {node}, {}", utc_text_ms(*at_ms)),
        MergeSource::Failure { node, at_ms } => format!("failed merge at {node}, {}", utc_text_ms(*at_ms)),
        MergeSource::Siblings => "the siblings that the key had".to_owned(),
    };
    out.line(out.bold(&source))?;
    for (number, sibling) in (1..).zip(&merge.siblings) {
        let value = laws::shown(&EncodedBytes::of_key(&sibling.value));
        let (stamp, writer) = (sibling.stamp_ms, sibling.writer);
        out.line(format_args!("sibling {number:<3} {value}   written at {stamp} ms by {writer:016x}"))?;
    }
    let told = |outcome: OutcomeJson| match (outcome.hash, outcome.failure) {
        (Some(hash), _) => format!("a value with hash {hash}"),
        (None, failure) => format!("none: {}", failure.unwrap_or_default()),
    };
    if let Ok(value) = &again.result {
        out.line(format_args!("result      {}", laws::shown(&EncodedBytes::of_key(value))))?;
    }
    if again.is_same_result {
        out.line(format_args!("equal       {}", told(got(again))))?;
    } else {
        out.line(format_args!("{}", out.red(&format!("before      {}", told(expected(merge))))))?;
        out.line(format_args!("{}", out.red(&format!("now         {}", told(got(again))))))?;
    }
    let (fuel, limit) = (again.used.fuel, merge.limits.fuel);
    match merge.fuel_used().filter(|_| !again.is_same_fuel) {
        Some(before) => out.line(out.red(&format!("fuel        {fuel} of {limit}, and {before} before"))),
        None => out.line(format_args!("fuel        {fuel} of {limit}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rejoin_client::admin::{MergeLimits, ProfileId};
    use rejoin_proto::client::Sibling;

    const QUIET: Output = Output { json: false, color: false };

    fn profile() -> ProfileId {
        Host::new(HostConfig { instances: 1, ..HostConfig::default() }).expect("a host").profile()
    }

    /// Two carts, whose merge is the first one.
    fn bundle(outcome: BundledOutcome, profile: ProfileId) -> Bundle {
        let component = crate::ready::CART.component().expect("a component");
        let sibling = |writer| Sibling { value: r#"{"clock":{},"items":{}}"#.into(), stamp_ms: 1, writer };
        let merge = BundledMerge {
            source: MergeSource::Fold { node: "n1".into(), at_ms: 1, fuel_used: 0 },
            plugin: digest_of(&component),
            profile,
            siblings: vec![sibling(1), sibling(2)],
            limits: MergeLimits { fuel: 1_000_000_000, memory_bytes: 64 << 20, result_bytes: 1 << 20 },
            outcome,
        };
        let components = vec![component.into()];
        Bundle { bucket: "cart".into(), key: "ann".into(), made_ms: 1, merges: vec![merge], components }
    }

    fn replay(bytes: &[u8]) -> Result<(), Failure> {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("cart.merges");
        std::fs::write(&file, bytes).expect("it is ours");
        run(QUIET, |_| Compiler::InProcess, &file)
    }

    #[test]
    fn a_merge_is_equal_or_different_and_other_files_are_refused() {
        let value = br#"{"clock":{},"items":{}}"#;
        let good = BundledOutcome::Value { hash: rejoin_client::admin::output_hash(value), bytes: 23 };
        replay(&bundle(good.clone(), profile()).to_bytes()).expect("an equal result");
        let other = BundledOutcome::Value { hash: [7; 32], bytes: 23 };
        assert_eq!(replay(&bundle(other, profile()).to_bytes()).expect_err("another value").exit, Exit::Negative);
        let failed = BundledOutcome::Failed { reason: Some("out_of_fuel".into()), why: "it did".into() };
        assert_eq!(replay(&bundle(failed, profile()).to_bytes()).expect_err("it has a value").exit, Exit::Negative);
        let foreign = replay(&bundle(good.clone(), ProfileId(1)).to_bytes()).expect_err("another engine");
        assert!(foreign.exit == Exit::Usage && foreign.to_string().contains("engine profile"), "{foreign}");
        let mut without = bundle(good, profile());
        without.components.clear();
        for (bytes, said) in [(without.to_bytes(), "does not have plugin"), (b"no".to_vec(), "no bundle of merges")] {
            let failure = replay(&bytes).expect_err("it cannot be replayed");
            assert!(failure.exit == Exit::Usage && failure.to_string().contains(said), "{failure}");
        }
    }

    #[test]
    fn other_fuel_is_a_difference() {
        let value = br#"{"clock":{},"items":{}}"#;
        let good = BundledOutcome::Value { hash: rejoin_client::admin::output_hash(value), bytes: 23 };
        let mut bundle = bundle(good, profile());
        let host = Host::new(HostConfig { instances: 1, ..HostConfig::default() }).expect("a host");
        let plugin = load(&host, &|_| Compiler::InProcess, &bundle, bundle.merges[0].plugin).expect("a plugin");
        let again = bundle.merges[0].replay(&host, &plugin, &bundle.key);
        assert!(again.is_equal() && shape(&bundle.merges[0], &again).expected_fuel.is_none(), "it was remembered");
        let fuel = again.used.fuel;
        for (fuel_used, exit) in [(fuel, None), (fuel + 1, Some(Exit::Negative))] {
            bundle.merges[0].source = MergeSource::Fold { node: "n1".into(), at_ms: 1, fuel_used };
            assert_eq!(replay(&bundle.to_bytes()).err().map(|failure| failure.exit), exit, "{fuel_used}");
        }
    }

    #[test]
    fn a_merge_that_was_stopped_is_stopped_again() {
        let failed = BundledOutcome::Failed { reason: Some("out_of_fuel".into()), why: "it did".into() };
        let mut bundle = bundle(failed, profile());
        bundle.merges[0].limits.fuel = 1_000;
        replay(&bundle.to_bytes()).expect("an equal failure");
    }
}
