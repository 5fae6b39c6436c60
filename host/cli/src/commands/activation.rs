//! `plugin activate|rollback`: which plugin merges a bucket.

use rejoin_client::admin::{Admin, BucketInfo, PluginDigest, PluginInfo};

use crate::commands::bucket::{done, names};
use crate::commands::readiness;
use crate::commands::show::digest;
use crate::connect::connect;
use crate::failure::Failure;
use crate::global::GlobalArgs;
use crate::output::{Output, note};
use crate::trial_args::{ALL_KEYS, ActivateArgs, NONE};

pub(crate) async fn activate(global: &GlobalArgs, out: Output, args: &ActivateArgs) -> Result<(), Failure> {
    let admin = connect(global).await?.admin();
    let (bucket, named) = (args.bucket.as_str(), args.plugin.as_deref());
    let share = args.partitions.unwrap_or(ALL_KEYS);
    let plugin = match named {
        None | Some(NONE) => None,
        Some(named) => Some(digest(&admin, named).await?),
    };
    let before = admin.bucket(bucket).await?;
    let canary = before.props.canary.map(|canary| canary.plugin.plugin);
    let active = before.props.plugin.map(|active| active.plugin);
    if let Some(plugin) = plugin.filter(|_| !args.force)
        && ![active, canary].contains(&Some(plugin))
    {
        readiness::wait(&admin, plugin).await?;
    }
    let plugin = match (share, named) {
        (0, None) => return told(out, &admin, &admin.end_canary(bucket).await?).await,
        (0, Some(_)) => return Err(Failure::usage("a share of 0 ends the canary that there is: give no plugin")),
        (1..ALL_KEYS, Some(NONE)) => return Err(Failure::usage("no plugin merges no share of the keys")),
        (1..ALL_KEYS, _) => {
            let after = match args.force {
                true => admin.activate_canary_at_once(bucket, plugin, share).await?,
                false => admin.activate_canary(bucket, plugin, share).await?,
            };
            return told(out, &admin, &after).await;
        }
        // The canary gets all keys.
        (_, None) if canary.is_some() => canary,
        (_, None) => return Err(Failure::usage(format!("bucket {bucket} has no canary: name a plugin"))),
        (_, Some(_)) => plugin,
    };
    let after = match args.force {
        true => admin.activate_plugin_at_once(bucket, plugin).await?,
        false => admin.activate_plugin(bucket, plugin).await?,
    };
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
            None => given_back(&admin.bucket(bucket).await?),
        };
        if let Some(plugin) = plugin {
            readiness::refuse_differing(&admin, plugin).await?;
        }
    }
    let after = match force {
        true => admin.roll_back_plugin_at_once(bucket, to).await?,
        false => admin.roll_back_plugin(bucket, to).await?,
    };
    told(out, &admin, &after).await
}

/// The plugin that a rollback gives a bucket for all keys. `None`: none, or its canary ends and it keeps what it has.
fn given_back(bucket: &BucketInfo) -> Option<PluginDigest> {
    let last = bucket.past_plugins.last().filter(|_| bucket.props.canary.is_none());
    last.and_then(|past| past.plugin).map(|of| of.plugin)
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
    let shown = shown(&plugins, active.plugin);
    if let Some(canary) = &bucket.props.canary {
        let (other, percent) = (self::shown(&plugins, canary.plugin.plugin), canary.percent);
        note(format!(
            "{other} merges {percent} % of the keys of {0} now, and {shown} the others, on every node that has the \
             change; `rejoin plugin rollback {0}` takes it back",
            bucket.name
        ));
        return Ok(());
    }
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

/// A plugin with its name and version, if there is a record of it.
fn shown(plugins: &[PluginInfo], digest: PluginDigest) -> String {
    let of = plugins.iter().find(|plugin| plugin.digest == digest);
    of.map_or_else(|| digest.to_string(), |plugin| format!("{}@{}", plugin.name, plugin.version))
}
