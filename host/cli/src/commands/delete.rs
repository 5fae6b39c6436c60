//! `bucket`, `tenant` and `plugin` `delete|restore`: what would be deleted is shown before.

use serde::Serialize;

use rejoin_client::admin::{BucketInfo, Deleted, Name, PluginDigest, Stored};
use rejoin_wire::utc_text_ms;

use crate::commands::bucket::names;
use crate::connect::{builder, connect};
use crate::failure::{Exit, Failure};
use crate::global::GlobalArgs;
use crate::output::{Output, note};
use crate::quota_args::DeleteHow;

/// What is deleted, or would be, as `--json` prints it.
#[derive(Serialize, Debug)]
struct Plan {
    name: String,
    /// The copies on all nodes that answered, and their bytes.
    objects: u64,
    bytes: u64,
    /// The buckets of a tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    buckets: Option<Vec<String>>,
    /// When the data is removed, in milliseconds since 1970; null if nothing was done.
    reap_ms: Option<u64>,
}

impl Plan {
    fn of(name: &str, stored: Stored) -> Self {
        Self { name: name.into(), objects: stored.objects, bytes: stored.bytes, buckets: None, reap_ms: None }
    }

    /// Shows what would be deleted. Returns whether it is to be done.
    fn confirmed(&self, out: Output, what: &str, how: DeleteHow) -> Result<bool, Failure> {
        let Self { name, objects, bytes, buckets, .. } = self;
        match (what, buckets) {
            ("plugin", _) => note(format!("plugin {name} has {bytes} bytes")),
            (_, buckets) => {
                let buckets = buckets.as_ref().filter(|buckets| !buckets.is_empty());
                let buckets = buckets.map_or_else(String::new, |buckets| format!(", in {}", buckets.join(", ")));
                note(format!("{what} {name} has {objects} copies of objects with {bytes} bytes on all nodes{buckets}"));
            }
        }
        match (how.dry_run, how.yes) {
            (_, true) => Ok(true),
            (true, false) => {
                note("nothing was done");
                if out.json { out.json(self).map(|()| false) } else { Ok(false) }
            }
            (false, false) => {
                let next = format!("`rejoin {what} delete {name} --yes` does it, --dry-run only shows this");
                Err(Failure::usage("nothing was done: --yes is missing").next(next))
            }
        }
    }

    fn done(mut self, out: Output, what: &str, (deleted, behind): (Option<Deleted>, &[Name])) -> Result<(), Failure> {
        if !behind.is_empty() {
            note(format!("not yet known to {}: a node learns of it when it connects", names(behind)));
        }
        self.reap_ms = deleted.map(|deleted| deleted.reap_ms);
        if out.json {
            return out.json(&self);
        }
        let until = self.reap_ms.map(utc_text_ms).unwrap_or_default();
        let name = &self.name;
        note(format!("{what} {name} is deleted; until {until} `rejoin {what} restore {name}` brings it back"));
        Ok(())
    }
}

pub(crate) async fn bucket(global: &GlobalArgs, out: Output, name: &str, how: DeleteHow) -> Result<(), Failure> {
    let admin = connect(global).await?.admin();
    let bucket = admin.bucket(name).await?;
    let stored = admin.usage().await?.buckets.get(&bucket.id).copied().unwrap_or_default();
    let plan = Plan::of(name, stored);
    if !plan.confirmed(out, "bucket", how)? {
        return Ok(());
    }
    let BucketInfo { deleted, behind, .. } = admin.delete_bucket(name, how.after).await?;
    plan.done(out, "bucket", (deleted, &behind))
}

pub(crate) async fn tenant(global: &GlobalArgs, out: Output, name: &str, how: DeleteHow) -> Result<(), Failure> {
    let within = builder(global)?.tenant(name).connect().await?.admin();
    let buckets = within.buckets().await?.iter().map(|bucket| bucket.name.to_string()).collect();
    let plan = Plan { buckets: Some(buckets), ..Plan::of(name, within.usage().await?.stored()) };
    if !plan.confirmed(out, "tenant", how)? {
        return Ok(());
    }
    let tenant = within.delete_tenant(name, how.after).await?;
    plan.done(out, "tenant", (tenant.deleted, &tenant.behind))
}

/// Says that a bucket or tenant is back.
pub(crate) fn restored(what: &str, name: &str, behind: &[Name]) {
    if !behind.is_empty() {
        note(format!(
            "not yet known to {}: if they do not learn of it in time, they remove their copies, and get them again \
             from the others",
            names(behind)
        ));
    }
    note(format!("{what} {name} is back"));
}

pub(crate) async fn plugin(
    global: &GlobalArgs,
    out: Output,
    digest: PluginDigest,
    how: DeleteHow,
) -> Result<(), Failure> {
    let admin = connect(global).await?.admin();
    let plugins = admin.plugins().await?;
    let Some(plugin) = plugins.iter().find(|plugin| plugin.digest == digest) else {
        return Err(Failure::new(Exit::Negative, format!("there is no plugin {digest}")));
    };
    let plan = Plan { bytes: plugin.bytes, ..Plan::of(&digest.to_string(), Stored::default()) };
    if !plan.confirmed(out, "plugin", how)? {
        return Ok(());
    }
    let (plugin, behind) = admin.delete_plugin(digest, how.after).await?;
    plan.done(out, "plugin", (plugin.deleted, &behind))
}

/// For how long, for people.
pub(crate) fn state(deleted: Option<Deleted>) -> String {
    match deleted {
        None => "valid".to_owned(),
        Some(Deleted { reaped: true, .. }) => "reaped".to_owned(),
        Some(Deleted { reap_ms, .. }) => format!("deleted, can be restored until {}", utc_text_ms(reap_ms)),
    }
}
