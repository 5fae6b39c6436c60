//! `plugin diff`: what two plugins make of a bucket's own conflicts. Both run here, on what the cluster has.

use std::collections::BTreeSet;

use serde::Serialize;

use rejoin_client::admin::{Admin, BucketProps, FromNodes, Name, PluginDigest, ShadowReport};
use rejoin_client::{Bucket, Bytes, Client};
use rejoin_merge::{
    ChildCompiler, Compiler, EncodedBytes, FixtureSibling, ModuleLimits, PluginUnderTest, Sibling, SingleMerge,
};
use rejoin_proto::client;

use crate::args::DEFAULT_MODULE_BYTES;
use crate::commands::json::MadeJson;
use crate::commands::laws::{not_loaded, shown};
use crate::commands::nodes::{all_answered, silent_names, tell_silent};
use crate::commands::object::plugins_sibling;
use crate::commands::show::digest;
use crate::connect::connect;
use crate::failure::{Exit, Failure};
use crate::global::GlobalArgs;
use crate::output::{Output, note};
use crate::trial_args::DiffArgs;

/// `plugin diff`.
#[derive(Serialize, Debug)]
struct DiffJson {
    bucket: String,
    a: String,
    b: String,
    /// How many conflicts were merged by both, and of how many they made the same.
    compared: usize,
    equal: usize,
    /// Keys that could not be read.
    unread: usize,
    /// The nodes that could not be asked.
    silent: Vec<String>,
    /// The conflicts of which they made not the same.
    different: Vec<CaseJson>,
}

/// A conflict, and what both plugins make of it.
#[derive(Serialize, Debug)]
struct CaseJson {
    key: EncodedBytes,
    /// Whether the key has these siblings now, or had them when a shadow was compared.
    now: bool,
    siblings: Vec<FixtureSibling>,
    a: MeasuredJson,
    b: MeasuredJson,
}

#[derive(Serialize, Debug)]
struct MeasuredJson {
    #[serde(flatten)]
    made: MadeJson,
    fuel: u64,
}

impl MeasuredJson {
    fn new(plugin: &PluginUnderTest, merge: &SingleMerge) -> Self {
        let made = merge.result.as_ref().map(|value| EncodedBytes::of_value(plugin, value));
        Self { made: made.map_err(ToString::to_string).into(), fuel: merge.used.fuel }
    }
}

/// Siblings to merge.
#[derive(PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Case {
    key: Vec<u8>,
    siblings: Vec<client::Sibling>,
    now: bool,
}

pub(crate) async fn run(global: &GlobalArgs, out: Output, args: &DiffArgs) -> Result<(), Failure> {
    let client = connect(global).await?;
    let admin = client.admin();
    let props = admin.bucket(&args.bucket).await?.props;
    let (one, other) = (digest(&admin, &args.one).await?, digest(&admin, &args.other).await?);
    let a = loaded(&admin, &props, one).await?;
    let b = loaded(&admin, &props, other).await?;
    let Found { cases, unread, silent } = cases(&client, global, args).await?;
    tell_silent(&silent);
    if unread > 0 {
        note(format!("{unread} keys could not be read, and are not compared"));
    }
    let mut diff = DiffJson {
        bucket: args.bucket.clone(),
        a: one.to_string(),
        b: other.to_string(),
        compared: cases.len(),
        equal: 0,
        unread,
        silent: silent_names(&silent),
        different: Vec::new(),
    };
    for case in &cases {
        match compared(&a, &b, case) {
            Some(different) => diff.different.push(different),
            None => diff.equal += 1,
        }
    }
    if out.json {
        out.json(&diff)?;
    } else {
        diff.different.iter().try_for_each(|case| print(out, case))?;
    }
    conclude(&diff)?;
    // None that differ of those that are known; of others nobody knows.
    all_answered(&silent)
}

fn conclude(diff: &DiffJson) -> Result<(), Failure> {
    match (diff.compared, diff.different.len()) {
        (0, _) => {
            note(format!("bucket {} has no conflicts that could be compared", diff.bucket));
            Ok(())
        }
        (all, 0) => {
            note(format!("both make the same of all {all} conflicts"));
            Ok(())
        }
        (all, different) => {
            Err(Failure::new(Exit::Negative, format!("they make not the same of {different} of {all} conflicts")))
        }
    }
}

/// A plugin of the cluster, with the limits of the bucket.
async fn loaded(admin: &Admin, props: &BucketProps, digest: PluginDigest) -> Result<PluginUnderTest, Failure> {
    let component = admin.fetch_plugin(digest).await?;
    // The cluster has taken a component of this size.
    let bytes = component.len().max(DEFAULT_MODULE_BYTES);
    let compiler = Compiler::Child(ChildCompiler::for_bytes(bytes));
    PluginUnderTest::load(&component, &compiler, &ModuleLimits::for_bytes(bytes), props).map_err(not_loaded)
}

/// The conflicts of a bucket.
struct Found {
    cases: Vec<Case>,
    /// How many keys could not be read.
    unread: usize,
    /// The nodes that could not be asked, each with why.
    silent: Vec<(Name, String)>,
}

/// The conflicts of a bucket, as far as its nodes know of them: keys whose merge has failed, keys of which siblings
/// were merged lately, and samples of its shadow.
async fn cases(client: &Client, global: &GlobalArgs, args: &DiffArgs) -> Result<Found, Failure> {
    let admin = client.admin();
    let FromNodes { answers: reports, mut silent, .. } = admin.shadow_reports(&args.bucket).await?;
    let noted = admin.conflicts(&args.bucket).await?;
    silent.extend(noted.silent);
    silent.sort();
    silent.dedup_by(|(a, _), (b, _)| a == b);
    let noted = noted.answers.into_iter().map(|conflict| conflict.key.to_vec());
    let merged = reports.iter().flat_map(|report| report.keys.iter().map(|key| key.to_vec()));
    let keys: BTreeSet<Vec<u8>> = noted.chain(merged).collect();
    let bucket = client.bucket::<Bytes>(&args.bucket)?;
    let (mut cases, mut unread) = (BTreeSet::new(), 0);
    for key in keys {
        if cases.len() >= args.limit {
            break;
        }
        match read(&bucket, &key, global).await {
            Ok(case) => cases.extend(case),
            Err(_) => unread += 1,
        }
    }
    for case in reports.iter().flat_map(sampled) {
        let is_known = cases.contains(&Case { key: case.key.clone(), siblings: case.siblings.clone(), now: true });
        if cases.len() < args.limit && !is_known {
            cases.insert(case);
        }
    }
    Ok(Found { cases: cases.into_iter().collect(), unread, silent })
}

/// The siblings of a key, if it has several.
async fn read(bucket: &Bucket<Bytes>, key: &[u8], global: &GlobalArgs) -> rejoin_client::Result<Option<Case>> {
    let object = bucket.get(key).siblings().timeout(global.timeout).await?;
    let siblings: Vec<client::Sibling> = object.siblings.into_iter().map(plugins_sibling).collect();
    Ok((siblings.len() > 1).then(|| Case { key: key.to_vec(), siblings, now: true }))
}

fn sampled(report: &ShadowReport) -> Vec<Case> {
    let of = |sample: &rejoin_client::admin::ShadowSample| Case {
        key: sample.key.to_vec(),
        siblings: sample.siblings.clone(),
        now: false,
    };
    report.samples.iter().map(of).collect()
}

/// What both make of a conflict, if it is not the same.
fn compared(a: &PluginUnderTest, b: &PluginUnderTest, case: &Case) -> Option<CaseJson> {
    let siblings: Vec<Sibling> = case.siblings.iter().map(Sibling::from).collect();
    let (by_a, by_b) = (a.merge_once(&case.key, &siblings), b.merge_once(&case.key, &siblings));
    let is_same = match (&by_a.result, &by_b.result) {
        (Ok(one), Ok(other)) => one == other,
        (Err(_), Err(_)) => true,
        _ => false,
    };
    let shape = || CaseJson {
        key: EncodedBytes::of_key(&case.key),
        now: case.now,
        siblings: siblings.iter().map(|one| FixtureSibling::of(a, &one.value, one.stamp_ms, one.writer)).collect(),
        a: MeasuredJson::new(a, &by_a),
        b: MeasuredJson::new(b, &by_b),
    };
    (!is_same).then(shape)
}

fn print(out: Output, case: &CaseJson) -> Result<(), Failure> {
    let when = if case.now { "" } else { ", as a shadow was given them" };
    out.line(out.bold(&format!("{}: {} siblings{when}", shown(&case.key), case.siblings.len())))?;
    for (number, sibling) in (1..).zip(&case.siblings) {
        out.line(format_args!("  sibling {number:<3} {}", shown(&sibling.value)))?;
    }
    for (name, made) in [("A", &case.a), ("B", &case.b)] {
        out.line(format_args!("  {name} makes     {}   fuel {}", made.made.text(), made.fuel))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plugin() -> PluginUnderTest {
        let component = crate::ready::CART.component().expect("a component");
        let (modules, props) = (ModuleLimits::default(), BucketProps::default());
        PluginUnderTest::load(&component, &Compiler::InProcess, &modules, &props).expect("a plugin")
    }

    fn case(values: [&'static str; 2]) -> Case {
        let sibling =
            |(at, value): (u64, &'static str)| client::Sibling { value: value.into(), stamp_ms: at, writer: at };
        let siblings = (1..).zip(values).map(sibling).collect();
        Case { key: b"ann".to_vec(), siblings, now: true }
    }

    #[test]
    fn two_versions_are_told_apart_by_what_they_make_and_where_only_one_fails() {
        let component = crate::ready::CART.component().expect("a component");
        let hungry = BucketProps { fuel: 1_000, ..BucketProps::default() };
        let modules = ModuleLimits::default();
        let poor = PluginUnderTest::load(&component, &Compiler::InProcess, &modules, &hungry).expect("a plugin");
        let (cart, empty) = (plugin(), r#"{"clock":{},"items":{}}"#);
        assert!(compared(&cart, &cart, &case([empty, empty])).is_none());
        assert!(compared(&cart, &cart, &case([empty, "garbage"])).is_none(), "both fail");
        let different = compared(&cart, &poor, &case([empty, empty])).expect("one of them fails");
        assert!(matches!(different.a.made, MadeJson::Value(_)) && different.a.fuel > 1_000);
        assert!(matches!(different.b.made, MadeJson::Failure(_)));
        let diff = |compared, different| DiffJson {
            bucket: "cart".into(),
            a: String::new(),
            b: String::new(),
            compared,
            equal: 0,
            unread: 0,
            silent: Vec::new(),
            different,
        };
        assert!(conclude(&diff(1, Vec::new())).is_ok() && conclude(&diff(0, Vec::new())).is_ok());
        assert_eq!(conclude(&diff(1, vec![different])).expect_err("a difference").exit, Exit::Negative);
    }
}
