//! `plugin shadow|fetch`: plugins on trial, and their components.

use std::path::PathBuf;

use serde::Serialize;

use rejoin_client::admin::{Admin, PluginDigest, ShadowCounts, TrialReport};
use rejoin_merge::EncodedBytes;
use rejoin_wire::utc_text_ms;

use crate::commands::bucket::done;
use crate::commands::json::Plugin;
use crate::commands::laws::shown;
use crate::commands::show::chosen;
use crate::connect::connect;
use crate::failure::Failure;
use crate::files::{self, Mode};
use crate::global::GlobalArgs;
use crate::output::{Output, note};
use crate::trial_args::{FetchArgs, ShadowArgs};

/// The word for no plugin.
const NONE: &str = "none";
/// The share of the keys, in percent, unless it is told.
const ALL: u8 = 100;

/// `plugin shadow` without a plugin.
#[derive(Serialize, Debug)]
struct ShadowReport {
    bucket: String,
    nodes: Vec<NodeCounts>,
    samples: Vec<SampleJson>,
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
    made: ResultJson,
    shadow: ResultJson,
    at_ms: u64,
}

/// A value, or why there is none.
#[derive(Serialize, Debug)]
#[serde(rename_all = "snake_case")]
enum ResultJson {
    Value(EncodedBytes),
    Failure(String),
}

impl ResultJson {
    fn new(result: &Result<impl AsRef<[u8]>, String>) -> Self {
        match result {
            Ok(value) => Self::Value(EncodedBytes::of_key(value.as_ref())),
            Err(why) => Self::Failure(why.clone()),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Value(value) => shown(value),
            Self::Failure(why) => format!("none: {why}"),
        }
    }
}

pub(crate) async fn shadow(global: &GlobalArgs, out: Output, args: &ShadowArgs) -> Result<(), Failure> {
    let admin = connect(global).await?.admin();
    let bucket = &args.bucket;
    let Some(named) = &args.plugin else {
        let reports = match args.counts {
            true => admin.shadow_counts(bucket).await?,
            false => admin.shadow_reports(bucket).await?,
        };
        return report(out, bucket, &reports);
    };
    if named == NONE {
        let after = admin.shadow_plugin(bucket, None).await?;
        done(out, &after, "changed")?;
        note(format!("bucket {bucket} has no shadow"));
        return Ok(());
    }
    let (plugin, percent) = (digest(&admin, named).await?, args.share.unwrap_or(ALL));
    let after = admin.shadow_plugin(bucket, Some((plugin, percent))).await?;
    done(out, &after, "changed")?;
    note(format!(
        "merges of {percent} % of its keys are compared with {named}; `rejoin plugin shadow {bucket}` shows how"
    ));
    Ok(())
}

/// Shows what the nodes have counted, and their samples.
fn report(out: Output, bucket: &str, reports: &[TrialReport]) -> Result<(), Failure> {
    let counted = |report: &TrialReport| NodeCounts {
        node: report.node.to_string(),
        plugin: report.shadow.map(|plugin| plugin.to_string()),
        counts: report.counts.into(),
    };
    let samples: Vec<SampleJson> = reports.iter().flat_map(samples).collect();
    let shape = ShadowReport { bucket: bucket.to_owned(), nodes: reports.iter().map(counted).collect(), samples };
    if out.json {
        return out.json(&shape);
    }
    if shape.nodes.iter().all(|node| node.plugin.is_none()) {
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

fn samples(report: &TrialReport) -> Vec<SampleJson> {
    let of = |sample: &rejoin_client::admin::ShadowSample| SampleJson {
        node: report.node.to_string(),
        key: EncodedBytes::of_key(&sample.key),
        siblings: sample.siblings.iter().map(|sibling| EncodedBytes::of_key(&sibling.value)).collect(),
        active: sample.active.to_string(),
        made: ResultJson::new(&sample.made),
        shadow: ResultJson::new(&sample.shadow),
        at_ms: sample.at_ms,
    };
    report.samples.iter().map(of).collect()
}

/// Stores the component of a plugin in a file.
pub(crate) async fn fetch(global: &GlobalArgs, out: Output, args: &FetchArgs) -> Result<(), Failure> {
    let admin = connect(global).await?.admin();
    let plugins: Vec<Plugin> = admin.plugins().await?.iter().map(Plugin::from).collect();
    let plugin = chosen(&args.plugin, &plugins)?;
    let component = admin.fetch_plugin(plugin.digest.parse().map_err(Failure::usage)?).await?;
    let file = args.output.clone().unwrap_or_else(|| PathBuf::from(&plugin.name).with_extension("wasm"));
    files::replace(&file, &component, Mode::Public)?;
    note(format!("{} {}, {} bytes, in {}", plugin.name, plugin.version, component.len(), file.display()));
    if out.json { out.json(plugin) } else { out.line(&plugin.digest) }
}

/// The digest of the one plugin of that name.
pub(super) async fn digest(admin: &Admin, named: &str) -> Result<PluginDigest, Failure> {
    let plugins: Vec<Plugin> = admin.plugins().await?.iter().map(Plugin::from).collect();
    chosen(named, &plugins)?.digest.parse().map_err(Failure::usage)
}
