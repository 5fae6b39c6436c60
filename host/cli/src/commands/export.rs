//! `conflict export`: the merges of a key in one file, for `plugin replay`.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::Serialize;

use rejoin_client::admin::{KeptReceipt, KeyReport, MergeLimits, PluginDigest, ReceiptFilter, siblings_of};
use rejoin_client::{Bytes, Client, Object};
use rejoin_merge::{Bundle, BundledMerge, BundledOutcome, MergeSource};
use rejoin_proto::catalog::fuel_for;
use rejoin_proto::client::Sibling;

use crate::args::KeyArgs;
use crate::commands::nodes::silent_names;
use crate::commands::object::plugins_sibling;
use crate::commands::token::now_ms;
use crate::connect::connect;
use crate::failure::{Exit, Failure};
use crate::files::{self, Mode};
use crate::global::GlobalArgs;
use crate::output::{Output, note};

/// What was exported.
#[derive(Serialize, Debug)]
struct ExportJson {
    file: String,
    folds: usize,
    failures: usize,
    /// Whether the key has siblings now.
    siblings: bool,
    plugins: Vec<String>,
    /// The nodes that could not be asked.
    silent: Vec<String>,
}

pub(crate) async fn run(
    global: &GlobalArgs,
    out: Output,
    (bucket, key): (&str, &KeyArgs),
    output: Option<PathBuf>,
) -> Result<(), Failure> {
    let client = connect(global).await?;
    let admin = client.admin();
    let filter = ReceiptFilter { key: Some(key.bytes().to_vec()), ..ReceiptFilter::default() };
    let (receipts, reports) = (admin.receipts(bucket, filter).await?, admin.explain(bucket, key.bytes()).await?);
    let mut merges: Vec<BundledMerge> = receipts.answers.iter().map(|(node, kept)| fold(node.as_str(), kept)).collect();
    let folds = merges.len();
    merges.extend(reports.answers.iter().flat_map(|(node, report)| failures(node.as_str(), report)));
    let failures = merges.len() - folds;
    let report = reports.answers.iter().map(|(_, report)| report).find(|report| report.plugin.is_some());
    let current = match report {
        Some(report) => current(&client, global, (bucket, key), report).await?,
        None => None,
    };
    let siblings = current.is_some();
    merges.extend(current);
    if merges.is_empty() {
        return Err(Failure::new(Exit::Negative, format!("{bucket}/{} has no merges to export", key.shown()))
            .next(format!("`rejoin explain {bucket} {}` says what there is", key.typed())));
    }
    let plugins: BTreeSet<PluginDigest> = merges.iter().map(|merge| merge.plugin).collect();
    let mut components = Vec::new();
    for plugin in &plugins {
        let fetched = admin.fetch_plugin(*plugin).await;
        components.push(fetched.map_err(|error| Failure::from(error).during("the component of the plugin"))?);
    }
    let bundle =
        Bundle { bucket: bucket.to_owned(), key: key.bytes().to_vec().into(), made_ms: now_ms(), merges, components };
    let usual = format!("{bucket}.{}.merges", files::name_part(key.bytes()));
    // It has values of the key.
    let file = files::write_named(output, usual, &bundle.to_bytes(), Mode::Private)?;
    let silent = silent_names(receipts.silent.iter().chain(&reports.silent));
    if !silent.is_empty() {
        note(format!("{} cannot be asked: what they know of the key is not in the file", silent.join(", ")));
    }
    if out.json {
        let plugins = plugins.iter().map(ToString::to_string).collect();
        return out.json(&ExportJson { file: file.display().to_string(), folds, failures, siblings, plugins, silent });
    }
    note(format!("{folds} folds, {failures} failed merges{}", if siblings { ", the siblings of now" } else { "" }));
    note(format!("next: `rejoin plugin replay {}`", file.display()));
    out.line(file.display())
}

fn fold(node: &str, kept: &KeptReceipt) -> BundledMerge {
    let receipt = &kept.receipt;
    BundledMerge {
        source: MergeSource::Fold { node: node.to_owned(), at_ms: receipt.at_ms, fuel_used: receipt.fuel_used },
        plugin: receipt.by.plugin,
        profile: receipt.by.profile,
        siblings: siblings_of(&receipt.inputs),
        limits: receipt.limits,
        outcome: BundledOutcome::Value { hash: receipt.output, bytes: receipt.output_bytes },
    }
}

fn failures(node: &str, report: &KeyReport) -> Vec<BundledMerge> {
    let merge = |failure: &rejoin_client::admin::FailedMerge| BundledMerge {
        source: MergeSource::Failure { node: node.to_owned(), at_ms: failure.at_ms },
        plugin: failure.plugin,
        profile: failure.profile,
        siblings: failure.siblings.clone(),
        limits: failure.limits,
        outcome: BundledOutcome::Failed { reason: Some(failure.reason.clone()), why: failure.why.clone() },
    };
    // What a node could not even load, it has not run.
    let was_run = |failure: &&rejoin_client::admin::FailedMerge| failure.reason != "plugin_refused";
    report.failures.iter().filter(was_run).map(merge).collect()
}

/// The siblings that the key has now, and what a read makes of them; `None` if there are not several.
async fn current(
    client: &Client,
    global: &GlobalArgs,
    (bucket, key): (&str, &KeyArgs),
    report: &KeyReport,
) -> Result<Option<BundledMerge>, Failure> {
    let keys = client.bucket::<Bytes>(bucket)?;
    let object: Object<Vec<u8>> = keys.get(key.bytes()).siblings().timeout(global.timeout).await?;
    let (Some(active), true) = (report.plugin, object.siblings.len() > 1) else { return Ok(None) };
    let props = client.admin().bucket(bucket).await?.props;
    let siblings: Vec<Sibling> = object.siblings.into_iter().map(plugins_sibling).collect();
    let bytes = siblings.iter().map(|sibling| sibling.value.len()).sum();
    let outcome = match (&object.value, &object.merge_fault) {
        (Some(value), _) => BundledOutcome::Value {
            hash: rejoin_client::admin::output_hash(value),
            bytes: u32::try_from(value.len()).unwrap_or(u32::MAX),
        },
        (None, Some(why)) => BundledOutcome::Failed { reason: None, why: why.clone() },
        (None, None) => return Ok(None),
    };
    Ok(Some(BundledMerge {
        source: MergeSource::Siblings,
        plugin: active.plugin,
        profile: report.profile,
        siblings,
        limits: MergeLimits {
            fuel: fuel_for(props.fuel, bytes),
            memory_bytes: props.memory_bytes,
            result_bytes: props.value_bytes,
        },
        outcome,
    }))
}
