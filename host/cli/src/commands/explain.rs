//! `explain`: what each node has of a key, and which merges have made it so.

use serde::Serialize;

use rejoin_client::Bytes;
use rejoin_client::admin::{DotSet, EntryReport, KeptReceipt, KeyReport, Name, ReceiptFilter};
use rejoin_wire::utc_text_ms;

use crate::commands::nodes::silent_names;
use crate::connect::connect;
use crate::failure::Failure;
use crate::fold_args::ExplainArgs;
use crate::global::GlobalArgs;
use crate::output::{Output, note};

/// What there is to say of a key.
#[derive(Serialize, Debug)]
struct ExplainJson {
    /// The owners, in the order of the layout.
    owners: Vec<String>,
    /// The plugin that merges.
    plugin: Option<String>,
    /// Its name, if it has merged what a read returns.
    merged_by: Option<String>,
    /// Why a read is not merged.
    merge_fault: Option<String>,
    nodes: Vec<NodeJson>,
    receipts: Vec<ReceiptJson>,
    /// The nodes that could not be asked.
    silent: Vec<String>,
}

#[derive(Serialize, Debug)]
struct NodeJson {
    node: String,
    owner: bool,
    /// Why the copy cannot be read.
    error: Option<String>,
    entries: Vec<EntryJson>,
    /// Merges of the key that have failed there, the latest first.
    failures: Vec<String>,
}

#[derive(Serialize, Debug)]
struct EntryJson {
    /// The writes that it stands for, each as `actor:from-to`.
    dots: Vec<String>,
    covers: Vec<String>,
    /// Null for a tombstone.
    bytes: Option<u32>,
    stamp_ms: u64,
    expires_ms: Option<u64>,
    /// The plugin that made it of others.
    folded_by: Option<String>,
}

#[derive(Serialize, Debug)]
struct ReceiptJson {
    node: String,
    at_ms: u64,
    /// Until when it is kept.
    until_ms: u64,
    plugin: String,
    inputs: usize,
    fuel: u64,
    fuel_limit: u64,
    output_bytes: u32,
    /// Whether the folded value is what that node has now.
    live: bool,
}

pub(crate) async fn run(global: &GlobalArgs, out: Output, args: &ExplainArgs) -> Result<(), Failure> {
    let (client, bucket, key) = (connect(global).await?, &args.bucket, &args.key);
    let admin = client.admin();
    let reports = admin.explain(bucket, key.bytes()).await?;
    let filter = ReceiptFilter { key: Some(key.bytes().to_vec()), ..ReceiptFilter::default() };
    let receipts = admin.receipts(bucket, filter).await?;
    for node in &receipts.lost {
        note(format!("{node} has lost a part of its disk: receipts of other folds may be gone with it"));
    }
    // What a reader gets says which plugin has merged it, or why none has.
    let keys = client.bucket::<Bytes>(bucket)?;
    let read = keys.get(key.bytes()).timeout(global.timeout).await.ok();
    let first = reports.answers.first().map(|(_, report)| report);
    let shape = ExplainJson {
        owners: first.map(|report| report.owners.iter().map(ToString::to_string).collect()).unwrap_or_default(),
        plugin: first.and_then(|report| report.plugin).map(|active| active.plugin.to_string()),
        merged_by: read.as_ref().and_then(|read| read.merged_by.as_ref()).map(|by| by.digest.to_string()),
        merge_fault: read.and_then(|read| read.merge_fault),
        nodes: reports.answers.iter().map(|(node, report)| of_node(node, report)).collect(),
        receipts: receipts.answers.iter().map(|(node, kept)| of_receipt(node, kept)).collect(),
        silent: silent_names(reports.silent.iter().chain(&receipts.silent)),
    };
    if out.json {
        return out.json(&shape);
    }
    print(out, &shape)
}

fn runs(dots: &DotSet) -> Vec<String> {
    let run = |run: &rejoin_proto::DotSpan| format!("{:016x}:{}-{}", run.actor.0, run.lo + 1, run.hi);
    dots.spans().iter().map(run).collect()
}

fn of_entry(entry: &EntryReport) -> EntryJson {
    EntryJson {
        dots: runs(&entry.dots),
        covers: runs(&entry.covers),
        bytes: entry.bytes,
        stamp_ms: entry.stamp.ms(),
        expires_ms: entry.expires.map(|expires| expires.ms()),
        folded_by: entry.folded_by.map(|by| by.plugin.to_string()),
    }
}

fn of_node(node: &Name, report: &KeyReport) -> NodeJson {
    let failure = |failed: &rejoin_client::admin::FailedMerge| format!("{}: {}", utc_text_ms(failed.at_ms), failed.why);
    let (error, entries) = match &report.copy {
        Ok(copy) => (None, copy.entries.iter().map(of_entry).collect()),
        Err(why) => (Some(why.clone()), Vec::new()),
    };
    NodeJson {
        node: node.to_string(),
        owner: report.owners.contains(node),
        error,
        entries,
        failures: report.failures.iter().map(failure).collect(),
    }
}

fn of_receipt(node: &Name, kept: &KeptReceipt) -> ReceiptJson {
    let receipt = &kept.receipt;
    ReceiptJson {
        node: node.to_string(),
        at_ms: receipt.at_ms,
        until_ms: receipt.until_ms,
        plugin: receipt.by.plugin.to_string(),
        inputs: receipt.inputs.len(),
        fuel: receipt.fuel_used,
        fuel_limit: receipt.limits.fuel,
        output_bytes: receipt.output_bytes,
        live: kept.live,
    }
}

fn print(out: Output, shape: &ExplainJson) -> Result<(), Failure> {
    out.line(format_args!("owners    {}", shape.owners.join(", ")))?;
    out.line(format_args!("plugin    {}", shape.plugin.as_deref().unwrap_or("none: readers get all siblings")))?;
    let read = match (&shape.merged_by, &shape.merge_fault) {
        (Some(by), _) => format!("merged by {by}"),
        (None, Some(why)) => format!("not merged: {why}"),
        (None, None) => "as it was written".to_owned(),
    };
    out.line(format_args!("a read    {read}"))?;
    let mut rows = Vec::new();
    for node in &shape.nodes {
        let role = if node.owner { "owner" } else { "-" };
        if let Some(why) = &node.error {
            rows.push(vec![node.node.clone(), role.into(), "cannot be read".into(), why.clone(), String::new()]);
        } else if node.entries.is_empty() {
            rows.push(vec![node.node.clone(), role.into(), "nothing".into(), String::new(), String::new()]);
        }
        for entry in &node.entries {
            let what = match (entry.bytes, &entry.folded_by) {
                (None, _) => "a tombstone".to_owned(),
                (Some(bytes), None) => format!("{bytes} bytes"),
                (Some(bytes), Some(by)) => format!("{bytes} bytes, folded by {by:.12}"),
            };
            let written = utc_text_ms(entry.stamp_ms);
            rows.push(vec![node.node.clone(), role.into(), what, written, entry.dots.join(" ")]);
        }
    }
    out.table(&["node", "role", "has", "written", "dots"], rows)?;
    for node in &shape.nodes {
        node.failures.iter().try_for_each(|why| out.line(format_args!("failed at {} {why}", node.node)))?;
    }
    let row = |of: &ReceiptJson| {
        let fuel = if of.fuel == 0 { "remembered".to_owned() } else { format!("{} of {}", of.fuel, of.fuel_limit) };
        let live = if of.live { "yes" } else { "no" };
        vec![
            of.node.clone(),
            utc_text_ms(of.at_ms),
            of.inputs.to_string(),
            fuel,
            live.into(),
            utc_text_ms(of.until_ms),
            format!("{:.12}", of.plugin),
        ]
    };
    if !shape.receipts.is_empty() {
        let rows = shape.receipts.iter().map(row).collect();
        out.table(&["receipt at", "folded", "inputs", "fuel", "live", "kept until", "plugin"], rows)?;
    }
    if !shape.silent.is_empty() {
        note(format!("{} cannot be asked", shape.silent.join(", ")));
    }
    Ok(())
}
