//! `plugin run`: one merge of a component, with what it returns and uses. Only `--bucket` asks a cluster.

use std::path::Path;

use rejoin_client::admin::BucketProps;
use rejoin_merge::laws::Trial;
use rejoin_merge::{
    Compiler, EncodedBytes, Fixture, FixtureSibling, ModuleLimits, PluginUnderTest, Sibling, SingleMerge,
};

use crate::args::RunArgs;
use crate::commands::json::{MergeUse, PluginMerge, PluginRun};
use crate::commands::{laws, object};
use crate::connect::connect;
use crate::failure::{Exit, Failure};
use crate::files;
use crate::global::GlobalArgs;
use crate::output::{Output, note};

pub(crate) async fn run(global: &GlobalArgs, out: Output, compiler: &Compiler, args: &RunArgs) -> Result<(), Failure> {
    let props = props(global, args).await?;
    let component = laws::component(&args.file)?;
    let modules = ModuleLimits::for_bytes(args.module_bytes);
    let under_test = PluginUnderTest::load(&component, compiler, &modules, &props).map_err(laws::not_loaded)?;
    note(laws::introduction(&under_test, &args.file));
    let merges: Vec<PluginMerge> = inputs(&under_test, args)?.iter().map(|input| merged(&under_test, input)).collect();
    let failed = merges.iter().filter(|merge| merge.failure.is_some()).count();
    let (over, all) = (merges.iter().filter(|merge| merge.over).count(), merges.len());
    if out.json {
        let metadata = under_test.plugin.metadata();
        out.json(&PluginRun {
            digest: under_test.plugin.digest().to_string(),
            name: metadata.map(|metadata| metadata.name.clone()),
            version: metadata.map(|metadata| metadata.version.clone()),
            merges,
        })?;
    } else {
        merges.iter().try_for_each(|merge| print(out, merge))?;
    }
    conclude(failed, over, all)
}

fn conclude(failed: usize, over: usize, all: usize) -> Result<(), Failure> {
    let of = if all == 1 { String::new() } else { format!("{failed} of {all} merges: ") };
    match (failed, over) {
        (0, _) => Ok(()),
        (_, 0) => Err(Failure::new(Exit::Negative, format!("{of}the merge failed; a bucket keeps such siblings"))),
        _ => Err(Failure::new(Exit::Negative, format!("{of}the merge is over a limit; a bucket keeps such siblings"))
            .next("make the merge use less, or give the bucket more with `rejoin bucket set`")),
    }
}

/// The properties of the bucket, with the limits that the options give.
async fn props(global: &GlobalArgs, args: &RunArgs) -> Result<BucketProps, Failure> {
    let mut props = match &args.bucket {
        Some(name) => connect(global).await?.admin().bucket(name).await?.props,
        None => BucketProps::default(),
    };
    props.fuel = args.fuel.unwrap_or(props.fuel);
    props.memory_bytes = args.memory_bytes.unwrap_or(props.memory_bytes);
    props.check_record().map_err(Failure::usage)?;
    Ok(props)
}

/// The siblings of one merge.
struct Input {
    law: Option<String>,
    key: Vec<u8>,
    siblings: Vec<Sibling>,
}

fn inputs(under_test: &PluginUnderTest, args: &RunArgs) -> Result<Vec<Input>, Failure> {
    match &args.replay {
        Some(path) => replayed(under_test, path),
        None => typed(args).map(|input| vec![input]),
    }
}

fn typed(args: &RunArgs) -> Result<Input, Failure> {
    if args.siblings.len() < 2 {
        return Err(Failure::usage("one sibling needs no merge: give two or more"));
    }
    let values = args.siblings.iter().map(|text| object::value(text)).collect::<Result<Vec<_>, _>>()?;
    let sibling = |(number, value): (u64, Vec<u8>)| Sibling { value: value.into(), stamp_ms: number, writer: number };
    let key = args.key.clone().unwrap_or_default().into_bytes();
    Ok(Input { law: None, key, siblings: (1..).zip(values).map(sibling).collect() })
}

fn replayed(under_test: &PluginUnderTest, path: &Path) -> Result<Vec<Input>, Failure> {
    let bad = |why| Failure::usage(why).during(&path.display().to_string());
    let fixture = Fixture::parse(&files::read(path)?).map_err(bad)?;
    let trials = fixture.trials(&under_test.plugin).map_err(bad)?;
    if trials.is_empty() {
        return Err(Failure::usage(format!("{} has no counterexample", path.display())));
    }
    let input = |(law, trial): (rejoin_merge::laws::Law, Trial)| {
        let sibling = |one: rejoin_merge::laws::Sibling| Sibling {
            value: one.value.into(),
            stamp_ms: one.stamp_ms,
            writer: one.writer,
        };
        Input {
            law: Some(law.name().into()),
            key: trial.key,
            siblings: trial.siblings.into_iter().map(sibling).collect(),
        }
    };
    Ok(trials.into_iter().map(input).collect())
}

fn merged(under_test: &PluginUnderTest, input: &Input) -> PluginMerge {
    let single = under_test.merge_once(&input.key, &input.siblings);
    let over = single.is_over();
    let SingleMerge { limits, result, used, takes, .. } = single;
    let shown = |one: &Sibling| FixtureSibling::of(under_test, &one.value, one.stamp_ms, one.writer);
    let result_bytes = result.as_ref().ok().map(bytes_of);
    PluginMerge {
        law: input.law.clone(),
        key: EncodedBytes::of_key(&input.key),
        siblings: input.siblings.iter().map(shown).collect(),
        value: result.as_ref().ok().map(|value| EncodedBytes::of_value(under_test, value)),
        failure: result.err().map(|fault| fault.to_string()),
        over,
        used: MergeUse { fuel: used.fuel, memory_bytes: used.memory_bytes, result_bytes },
        limits: MergeUse {
            fuel: limits.fuel,
            memory_bytes: limits.memory_bytes,
            result_bytes: Some(limits.result_bytes),
        },
        takes: takes.map(|(used, bytes)| MergeUse {
            fuel: used.fuel,
            memory_bytes: used.memory_bytes,
            result_bytes: Some(bytes),
        }),
    }
}

fn bytes_of(value: &impl AsRef<[u8]>) -> usize {
    value.as_ref().len()
}

/// Prints a merge for people, in red what is over a limit.
fn print(out: Output, merge: &PluginMerge) -> Result<(), Failure> {
    if let Some(law) = &merge.law {
        out.line(out.bold(&format!("siblings that break the law of {law}")))?;
    }
    out.line(format_args!("key         {}", laws::shown(&merge.key)))?;
    for (number, sibling) in (1..).zip(&merge.siblings) {
        let (stamp, writer) = (sibling.stamp_ms, &sibling.writer);
        let value = laws::shown(&sibling.value);
        out.line(format_args!("sibling {number:<3} {value}   written at {stamp} ms by {writer}"))?;
    }
    match (&merge.value, &merge.failure) {
        (Some(value), _) => out.line(format_args!("result      {}", laws::shown(value)))?,
        (None, failure) => {
            let failure = failure.as_deref().unwrap_or_default();
            out.line(format_args!("result      {}", out.red(&format!("none: {failure}"))))?;
        }
    }
    for (what, text, is_over) in figures(merge) {
        let text = if is_over { out.red(&text) } else { text };
        out.line(format_args!("{what:<11} {text}"))?;
    }
    Ok(())
}

/// Fuel, memory and bytes of the result, each with whether it is over its limit.
fn figures(merge: &PluginMerge) -> Vec<(&'static str, String, bool)> {
    // A merge that was stopped has used no more than its limit: what it would take says more.
    let used = merge.takes.unwrap_or(merge.used);
    let mut figures = vec![
        ("fuel", used.fuel.to_string(), merge.limits.fuel.to_string(), used.fuel > merge.limits.fuel),
        (
            "memory",
            used.memory_bytes.to_string(),
            format!("{} bytes", merge.limits.memory_bytes),
            used.memory_bytes > merge.limits.memory_bytes,
        ),
    ];
    if let (Some(bytes), Some(limit)) = (used.result_bytes, merge.limits.result_bytes) {
        figures.push(("bytes", bytes.to_string(), limit.to_string(), bytes > limit));
    }
    let line = |(what, used, limit, is_over): (&'static str, String, String, bool)| {
        let would = if merge.takes.is_some() { ", without the limits" } else { "" };
        (what, format!("{used} of {limit}{would}"), is_over)
    };
    figures.into_iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command, PluginCommand};
    use clap::Parser;

    const QUIET: Output = Output { json: false, color: false };

    fn given(line: &[&str]) -> (GlobalArgs, RunArgs) {
        let cli = Cli::try_parse_from(["rejoin", "plugin", "run"].iter().chain(line)).expect("a command line");
        let Command::Plugin(PluginCommand::Run(args)) = cli.command else { panic!("another command") };
        (cli.global, args)
    }

    async fn ran(line: &[&str]) -> Result<(), Failure> {
        let (global, args) = given(line);
        run(&global, QUIET, &Compiler::InProcess, &args).await
    }

    fn cart(dir: &Path) -> String {
        let file = dir.join("cart.wasm");
        std::fs::write(&file, crate::ready::CART.component().expect("a component")).expect("it is ours");
        file.display().to_string()
    }

    #[tokio::test]
    async fn a_merge_runs_and_what_is_over_a_limit_fails() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = cart(dir.path());
        let empty = r#"{"clock":{},"items":{}}"#;
        ran(&[&file, "--key", "ann", empty, empty]).await.expect("two empty carts");
        let failure = ran(&[&file, "--key", "ann", empty, empty, "--fuel", "1000"]).await.expect_err("little fuel");
        assert!(failure.exit == Exit::Negative && failure.to_string().contains("over a limit"), "{failure}");
        let failure = ran(&[&file, "--key", "ann", empty, "garbage"]).await.expect_err("it is refused");
        assert!(failure.exit == Exit::Negative && failure.to_string().contains("failed"), "{failure}");
        let failure = ran(&[&file, "--key", "ann", empty]).await.expect_err("one sibling");
        assert_eq!(failure.exit, Exit::Usage);
    }

    #[test]
    fn what_a_stopped_merge_would_take_is_compared_with_the_limits() {
        let dir = tempfile::tempdir().expect("a directory");
        let component = std::fs::read(cart(dir.path())).expect("it was written");
        let props = BucketProps { fuel: 1000, ..BucketProps::default() };
        let modules = ModuleLimits::default();
        let under_test = PluginUnderTest::load(&component, &Compiler::InProcess, &modules, &props).expect("a plugin");
        let empty = || Sibling { value: r#"{"clock":{},"items":{}}"#.into(), stamp_ms: 1, writer: 1 };
        let input = Input { law: None, key: b"ann".to_vec(), siblings: vec![empty(), empty()] };
        let merge = merged(&under_test, &input);
        assert!(merge.over && merge.value.is_none() && merge.used.fuel == 1000, "{merge:?}");
        // Ten times as much is not enough either, so nothing is told of what it takes.
        assert_eq!(merge.takes, None);
        let props = BucketProps { memory_bytes: 64 << 10, ..BucketProps::default() };
        let under_test = PluginUnderTest::load(&component, &Compiler::InProcess, &modules, &props).expect("a plugin");
        let merge = merged(&under_test, &input);
        let takes = merge.takes.expect("it answers with more memory");
        assert!(takes.memory_bytes > merge.limits.memory_bytes, "{merge:?}");
        let over: Vec<&str> = figures(&merge).into_iter().filter_map(|(what, _, over)| over.then_some(what)).collect();
        assert_eq!(over, ["memory"]);
    }
}
