//! `plugin activate|rollback`: which plugin merges a bucket.

use rejoin_client::admin::{Admin, BucketInfo, PluginDigest};

use crate::commands::bucket::{done, names};
use crate::commands::json::Plugin;
use crate::commands::readiness;
use crate::commands::show::chosen;
use crate::connect::connect;
use crate::failure::Failure;
use crate::global::GlobalArgs;
use crate::output::{Output, note};

/// The word for no plugin.
const NONE: &str = "none";

pub(crate) async fn activate(
    global: &GlobalArgs,
    out: Output,
    (bucket, named): (&str, &str),
    force: bool,
) -> Result<(), Failure> {
    let admin = connect(global).await?.admin();
    let plugin = if named == NONE { None } else { Some(digest(&admin, named).await?) };
    let before = admin.bucket(bucket).await?;
    let has_it = before.props.plugin.map(|active| active.plugin) == plugin;
    if let Some(plugin) = plugin.filter(|_| !has_it && !force) {
        readiness::wait(&admin, plugin).await?;
    }
    let after = admin.activate_plugin(bucket, plugin).await?;
    if before.version == after.version {
        note(format!("bucket {bucket} has it already"));
        return done(out, &after, "unchanged");
    }
    told(out, &admin, &after).await
}

pub(crate) async fn roll_back(
    global: &GlobalArgs,
    out: Output,
    (bucket, to): (&str, Option<&str>),
    force: bool,
) -> Result<(), Failure> {
    let admin = connect(global).await?.admin();
    let to = match to {
        Some(named) => Some(digest(&admin, named).await?),
        None => None,
    };
    if !force {
        let plugin = match to {
            Some(digest) => Some(digest),
            None => admin.bucket(bucket).await?.past_plugins.last().and_then(|past| past.plugin).map(|of| of.plugin),
        };
        if let Some(plugin) = plugin {
            readiness::refuse_differing(&admin, plugin).await?;
        }
    }
    let after = admin.roll_back_plugin(bucket, to).await?;
    told(out, &admin, &after).await
}

/// Says which plugin merges the bucket now, and where not yet.
async fn told(out: Output, admin: &Admin, bucket: &BucketInfo) -> Result<(), Failure> {
    done(out, bucket, "changed")?;
    if out.json {
        return Ok(());
    }
    let Some(active) = bucket.props.plugin else {
        note(format!("no plugin merges {} now: readers get all siblings", bucket.name));
        return Ok(());
    };
    let plugins = admin.plugins().await?;
    let of = plugins.iter().find(|plugin| plugin.digest == active.plugin);
    let shown = of.map_or_else(|| active.plugin.to_string(), |plugin| format!("{}@{}", plugin.name, plugin.version));
    note(format!("{shown} merges {} now, on every node that has the change", bucket.name));
    if active.replaces && active.self_causal {
        note(format!(
            "nothing it merges is stored for {} h, so that it can be taken back: `rejoin plugin rollback {}`",
            bucket.props.fold_delay_ms / 3_600_000,
            bucket.name
        ));
    }
    if !bucket.behind.is_empty() {
        note(format!("{} merges with the plugin before until then", names(&bucket.behind)));
    }
    Ok(())
}

pub(super) async fn digest(admin: &Admin, named: &str) -> Result<PluginDigest, Failure> {
    let plugins: Vec<Plugin> = admin.plugins().await?.iter().map(Plugin::from).collect();
    chosen(named, &plugins)?.digest.parse().map_err(Failure::usage)
}
