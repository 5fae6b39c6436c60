//! `bucket create|list|show|set|quota|delete|restore`.

use rejoin_client::admin::{Activation, BucketInfo, BucketProps, Durability, LayoutStatus, Name, activation};

use crate::args::{BucketCommand, PropsArgs};
use crate::commands::json::{Bucket, Count};
use crate::commands::layout::{change_lines, copies_text};
use crate::commands::layout_json::{BucketChangeJson, ShownBucket};
use crate::commands::{delete, quota, readiness};
use crate::connect::connect;
use crate::failure::{Exit, Failure};
use crate::global::GlobalArgs;
use crate::output::{Output, note};
use crate::quota_args::TenantQuotaArgs;
use crate::values::{PluginChoice, Ttl};

pub(crate) async fn run(global: &GlobalArgs, out: Output, command: BucketCommand) -> Result<(), Failure> {
    match command {
        BucketCommand::Create { name, props } => {
            let (merge, mut props) = (props.merge, changed(BucketProps::default(), &props)?);
            let client = connect(global).await?;
            if let Some(merge) = merge {
                props.plugin = Some(merge.push(&client).await?);
            }
            let (copies, merges) = (usize::from(props.n), props.plugin.is_some());
            if let Some(active) = props.plugin {
                readiness::refuse_differing(&client.admin(), active.plugin).await?;
            }
            let bucket = client.admin().create_bucket(&name, props).await?;
            done(out, &bucket, "made")?;
            let nodes = client.nodes();
            if copies > nodes {
                note(format!(
                    "warning: n = {copies} and the cluster has {nodes} nodes: each key has {nodes} copies, and a \
                        quorum is still one of {copies}"
                ));
            }
            if !merges {
                note(
                    "warning: the bucket has no merge plugin: concurrent writes stay siblings until a client merges \
                        them (`update(..).resolve(..)` in the SDK)",
                );
            }
            Ok(())
        }
        BucketCommand::List => {
            let buckets = connect(global).await?.admin().buckets().await?;
            list(out, &buckets)
        }
        BucketCommand::Show { name } => {
            let admin = connect(global).await?.admin();
            let bucket = admin.bucket(&name).await?;
            // A change of its copies is one of layout.
            show(out, &bucket, &admin.layout().await?)
        }
        BucketCommand::Delete { name, how } => delete::bucket(global, out, &name, how).await,
        BucketCommand::Restore { name } => {
            let bucket = connect(global).await?.admin().restore_bucket(&name).await?;
            delete::restored("bucket", &name, &bucket.behind);
            Ok(())
        }
        BucketCommand::Quota { name, limits } => {
            let admin = connect(global).await?.admin();
            let bucket = admin.bucket(&name).await?;
            let wish = limits.wish(TenantQuotaArgs::default());
            quota::run(&admin, out, Some(&bucket), (wish, None)).await
        }
        BucketCommand::Set { name, version, props } => {
            let client = connect(global).await?;
            let admin = client.admin();
            let old = admin.bucket(&name).await?;
            if let Some(version) = version.filter(|version| *version != old.version) {
                let what = format!("bucket {name} is at version {}, not {version}", old.version);
                return Err(
                    Failure::new(Exit::Stale, what).next(format!("`rejoin bucket show {name}` shows what it is now"))
                );
            }
            let merge = props.merge;
            let mut props = if props.sets_copies() {
                applied(old.props.clone(), &props)
            } else {
                changed(old.props.clone(), &props)?
            };
            if let Some(merge) = merge {
                props.plugin = Some(merge.push(&client).await?);
            }
            let is_new = |active: &Activation| old.props.plugin.is_none_or(|before| before.plugin != active.plugin);
            if let Some(active) = props.plugin.filter(is_new) {
                readiness::refuse_differing(&admin, active.plugin).await?;
            }
            let has_other_copies = (old.props.n, old.props.sloppy) != (props.n, props.sloppy);
            let moved =
                (old.props.r, old.props.w, old.props.pr, old.props.pw) != (props.r, props.w, props.pr, props.pw);
            let bucket = admin.set_bucket(&name, old.version, props).await?;
            if moved && !bucket.behind.is_empty() {
                note(format!(
                    "until {} has the change, r + w > n need not hold: a read may miss a write with the other r and w",
                    names(&bucket.behind)
                ));
            }
            done(out, &bucket, "changed")?;
            if has_other_copies {
                note(format!(
                    "the new copies take four steps, as a change of layout does; no request fails because of it. \
                     `rejoin bucket show {name}` says how far they have come"
                ));
            }
            Ok(())
        }
    }
}

/// The properties with the options of the command line applied.
///
/// # Errors
/// A property is out of its bounds.
fn changed(props: BucketProps, args: &PropsArgs) -> Result<BucketProps, Failure> {
    let props = applied(props, args);
    props.check().map_err(|bad| Failure::usage(bad).next("`rejoin bucket create --help` lists the properties"))?;
    Ok(props)
}

/// The same, whatever the bounds are.
fn applied(mut props: BucketProps, args: &PropsArgs) -> BucketProps {
    fn set<T: Copy>(property: &mut T, given: Option<T>) {
        *property = given.unwrap_or(*property);
    }
    set(&mut props.n, args.n);
    set(&mut props.r, args.r);
    set(&mut props.w, args.w);
    set(&mut props.pr, args.pr);
    set(&mut props.pw, args.pw);
    set(&mut props.value_bytes, args.value_bytes);
    set(&mut props.siblings, args.siblings);
    set(&mut props.zones, args.zones);
    set(&mut props.fuel, args.fuel);
    set(&mut props.memory_bytes, args.memory_bytes);
    set(&mut props.fold_delay_ms, args.fold_delay.map(millis));
    set(&mut props.fold_undo_ms, args.fold_undo.map(millis));
    props.sloppy = (props.sloppy || args.sloppy) && !args.strict;
    set(&mut props.durability, args.durability.map(Durability::from));
    match args.plugin {
        Some(PluginChoice::Digest(digest)) => props.plugin = Some(activation(digest)),
        Some(PluginChoice::None) => props.plugin = None,
        None => {}
    }
    match args.ttl {
        Some(Ttl::After(time)) => props.ttl_ms = Some(millis(time)),
        Some(Ttl::None) => props.ttl_ms = None,
        None => {}
    }
    props
}

fn millis(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The names of nodes, for a sentence.
pub(crate) fn names(nodes: &[Name]) -> String {
    nodes.iter().map(Name::as_str).collect::<Vec<_>>().join(", ")
}

pub(super) fn done(out: Output, bucket: &BucketInfo, what: &str) -> Result<(), Failure> {
    if !bucket.behind.is_empty() {
        note(format!("not yet known to {}: a node learns of the change when it connects", names(&bucket.behind)));
    }
    if out.json {
        return out.json(&Bucket::from(bucket));
    }
    note(format!("bucket {} {what}, version {}", bucket.name, bucket.version));
    Ok(())
}

fn yes_or_no(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
}

fn list(out: Output, buckets: &[BucketInfo]) -> Result<(), Failure> {
    let rows: Vec<Bucket> = buckets.iter().map(Bucket::from).collect();
    if out.json {
        return out.json(&rows);
    }
    let row = |bucket: Bucket| {
        let counts: [Count; 4] = [bucket.r, bucket.w, bucket.pr, bucket.pw];
        let plugin = bucket.plugin.map_or_else(|| "-".to_owned(), |digest| digest[..12].to_owned());
        let mut row = vec![bucket.name, bucket.n.to_string()];
        row.extend(counts.iter().map(ToString::to_string));
        row.extend([bucket.durability.to_owned(), plugin, yes_or_no(bucket.validates).to_owned(), bucket.state]);
        row
    };
    out.table(
        &["bucket", "n", "r", "w", "pr", "pw", "durability", "plugin", "validates", "state"],
        rows.into_iter().map(row).collect(),
    )
}

fn show(out: Output, bucket: &BucketInfo, layout: &LayoutStatus) -> Result<(), Failure> {
    let changing = layout.buckets.iter().find(|changing| changing.bucket == bucket.id);
    let shape = Bucket::from(bucket);
    if out.json {
        let change = changing.map(|changing| BucketChangeJson::of(changing, layout));
        return out.json(&ShownBucket { bucket: shape, change });
    }
    let none = || "none".to_owned();
    let rows = [
        ("name", shape.name),
        ("id", shape.id),
        ("version", shape.version.to_string()),
        ("n", shape.n.to_string()),
        ("r", shape.r.to_string()),
        ("w", shape.w.to_string()),
        ("pr", shape.pr.to_string()),
        ("pw", shape.pw.to_string()),
        ("durability", shape.durability.to_owned()),
        ("sloppy", if shape.sloppy { "yes" } else { "no (strict)" }.to_owned()),
        ("zones", shape.zones.to_string()),
        ("plugin", shape.plugin.unwrap_or_else(none)),
        ("canary", shape.canary.map_or_else(none, |canary| canary.to_string())),
        ("shadow", shape.shadow.map_or_else(none, |shadow| shadow.to_string())),
        ("self-causal", yes_or_no(shape.self_causal).to_owned()),
        ("validates", yes_or_no(shape.validates).to_owned()),
        ("ttl", shape.ttl_ms.map_or_else(none, |ms| format!("{ms} ms"))),
        ("value-bytes", shape.value_bytes.to_string()),
        ("sibling-limit", shape.sibling_limit.to_string()),
        ("fuel", shape.fuel.to_string()),
        ("memory-bytes", shape.memory_bytes.to_string()),
        ("fold-delay", format!("{} ms", shape.fold_delay_ms)),
        ("fold-undo", format!("{} ms", shape.fold_undo_ms)),
    ];
    out.table(&["property", "value"], rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect())?;
    if let Some(changing) = changing {
        out.line(format!(
            "{}, by layout {}",
            copies_text(changing),
            layout.live.last().map_or(0, |name| name.version)
        ))?;
        for line in layout.change.iter().flat_map(change_lines) {
            out.line(line)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rejoin_client::admin::Quorum;
    use std::time::Duration;

    #[test]
    fn only_what_was_given_changes() {
        let old = BucketProps { r: Quorum::Count(3), sloppy: false, ttl_ms: Some(9), ..BucketProps::default() };
        assert_eq!(changed(old.clone(), &PropsArgs::default()).unwrap(), old);
        let args = PropsArgs { w: Some(Quorum::Count(1)), sloppy: true, ttl: Some(Ttl::None), ..PropsArgs::default() };
        let new = changed(old.clone(), &args).unwrap();
        assert_eq!(new, BucketProps { w: Quorum::Count(1), sloppy: true, ttl_ms: None, ..old });
    }

    #[test]
    fn strict_and_time_to_live_are_set() {
        let args = PropsArgs { strict: true, ttl: Some(Ttl::After(Duration::from_secs(1))), ..PropsArgs::default() };
        let props = changed(BucketProps::default(), &args).unwrap();
        assert_eq!((props.sloppy, props.ttl_ms), (false, Some(1000)));
    }

    #[test]
    fn properties_out_of_bounds_are_named() {
        let args = PropsArgs { n: Some(2), r: Some(Quorum::Count(3)), ..PropsArgs::default() };
        let failure = changed(BucketProps::default(), &args).unwrap_err();
        assert!(failure.exit == Exit::Usage && failure.to_string().starts_with("r must be 1 to n (2)"), "{failure}");
    }
}
