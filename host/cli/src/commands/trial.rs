//! `plugin shadow|fetch`: plugins on trial, and their components.

use serde::Serialize;

use rejoin_client::admin::{FromNodes, ShadowCounts, ShadowReport};
use rejoin_merge::EncodedBytes;
use rejoin_wire::utc_text_ms;

use crate::commands::bucket::done;
use crate::commands::json::{MadeJson, Plugin};
use crate::commands::laws::shown;
use crate::commands::nodes::{all_answered, silent_names, tell_silent};
use crate::commands::show::{chosen, digest};
use crate::connect::connect;
use crate::failure::Failure;
use crate::files::{self, Mode};
use crate::global::GlobalArgs;
use crate::output::{Output, note};
use crate::trial_args::{ALL_KEYS, FetchArgs, NONE, ShadowArgs};

/// `plugin shadow` without a plugin.
#[derive(Serialize, Debug)]
struct ShadowJson {
    bucket: String,
    nodes: Vec<NodeCounts>,
    samples: Vec<SampleJson>,
    /// The nodes that could not be asked.
    silent: Vec<String>,
}

#[derive(Serialize, Debug)]
struct NodeCounts {
    node: String,
    /// Null: the node compares nothing.
    plugin: Option<String>,
    #[serde(flatten)]
    counts: CountsJson,
}

#[derive(Serialize, Clone, Copy, Debug)]
struct CountsJson {
    equal: u64,
    different: u64,
    faulted: u64,
    skipped: u64,
}

impl From<ShadowCounts> for CountsJson {
    fn from(counts: ShadowCounts) -> Self {
        let ShadowCounts { equal, different, faulted, skipped } = counts;
        Self { equal, different, faulted, skipped }
    }
}

/// A merge whose two results are not the same.
#[derive(Serialize, Debug)]
struct SampleJson {
    node: String,
    key: EncodedBytes,
    siblings: Vec<EncodedBytes>,
    active: String,
    made: MadeJson,
    shadow: MadeJson,
    at_ms: u64,
}

pub(crate) async fn shadow(global: &GlobalArgs, out: Output, args: &ShadowArgs) -> Result<(), Failure> {
    let admin = connect(global).await?.admin();
    let bucket = &args.bucket;
    let Some(named) = &args.plugin else {
        let reports = match args.counts {
            true => admin.shadow_counts(bucket).await?,
            false => admin.shadow_reports(bucket).await?,
        };
        tell_silent(&reports.silent);
        return report(out, bucket, &reports);
    };
    if named == NONE {
        let after = admin.shadow_plugin(bucket, None).await?;
        done(out, &after, "changed")?;
        note(format!("bucket {bucket} has no shadow"));
        return Ok(());
    }
    let (plugin, percent) = (digest(&admin, named).await?, args.share.unwrap_or(ALL_KEYS));
    let after = admin.shadow_plugin(bucket, Some((plugin, percent))).await?;
    done(out, &after, "changed")?;
    note(format!(
        "merges of {percent} % of its keys are compared with {named}; `rejoin plugin shadow {bucket}` shows how"
    ));
    Ok(())
}

/// Shows what the nodes have counted, and their samples.
fn report(out: Output, bucket: &str, reports: &FromNodes<Vec<ShadowReport>>) -> Result<(), Failure> {
    let counted = |report: &ShadowReport| NodeCounts {
        node: report.node.to_string(),
        plugin: report.shadow.map(|plugin| plugin.to_string()),
        counts: report.counts.into(),
    };
    let shape = ShadowJson {
        bucket: bucket.to_owned(),
        nodes: reports.answers.iter().map(counted).collect(),
        samples: reports.answers.iter().flat_map(samples).collect(),
        silent: silent_names(&reports.silent),
    };
    if out.json {
        return out.json(&shape);
    }
    if shape.nodes.iter().all(|node| node.plugin.is_none()) {
        all_answered(&reports.silent)?;
        note(format!("bucket {bucket} has no shadow: `rejoin plugin shadow {bucket} PLUGIN` begins one"));
        return Ok(());
    }
    let row = |node: &NodeCounts| {
        let plugin = node.plugin.as_ref().map_or("-", |digest| &digest[..12]);
        let CountsJson { equal, different, faulted, skipped } = node.counts;
        let counts = [equal, different, faulted, skipped].map(|count| count.to_string());
        [vec![node.node.clone(), plugin.to_owned()], counts.to_vec()].concat()
    };
    out.table(&["node", "shadow", "equal", "different", "faulted", "skipped"], shape.nodes.iter().map(row).collect())?;
    for sample in &shape.samples {
        let (key, count) = (shown(&sample.key), sample.siblings.len());
        out.line(format_args!("{key}, {count} siblings, at {} on {}", utc_text_ms(sample.at_ms), sample.node))?;
        out.line(format_args!("  made    {}", sample.made.text()))?;
        out.line(format_args!("  shadow  {}", sample.shadow.text()))?;
    }
    Ok(())
}

fn samples(report: &ShadowReport) -> Vec<SampleJson> {
    let of = |sample: &rejoin_client::admin::ShadowSample| SampleJson {
        node: report.node.to_string(),
        key: EncodedBytes::of_key(&sample.key),
        siblings: sample.siblings.iter().map(|sibling| EncodedBytes::of_key(&sibling.value)).collect(),
        active: sample.active.to_string(),
        made: made(&sample.made),
        shadow: made(&sample.shadow),
        at_ms: sample.at_ms,
    };
    report.samples.iter().map(of).collect()
}

fn made(result: &Result<impl AsRef<[u8]>, String>) -> MadeJson {
    result.as_ref().map(|value| EncodedBytes::of_key(value.as_ref())).map_err(Clone::clone).into()
}

/// Stores the component of a plugin in a file.
pub(crate) async fn fetch(global: &GlobalArgs, out: Output, args: &FetchArgs) -> Result<(), Failure> {
    let admin = connect(global).await?.admin();
    let plugins = admin.plugins().await?;
    let plugin = chosen(&args.plugin, &plugins)?;
    let component = admin.fetch_plugin(plugin.digest).await?;
    // The version is the plugin's own word, and may be anything.
    let usual = format!("{}@{}.wasm", plugin.name, files::name_part(plugin.version.as_bytes()));
    let file = files::write_named(args.output.clone(), usual, &component, Mode::Public)?;
    note(format!("{} {}, {} bytes, in {}", plugin.name, plugin.version, component.len(), file.display()));
    if out.json { out.json(&Plugin::from(plugin)) } else { out.line(plugin.digest) }
}
