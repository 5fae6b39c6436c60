//! `bucket delete|restore`, `tenant delete|restore` and `plugin delete`: what would be deleted is shown before.

use serde::Serialize;

use rejoin_client::admin::{Admin, BucketInfo, Deleted, Name, PluginDigest, Usage};
use rejoin_wire::utc_text_ms;

use crate::args::DeleteHow;
use crate::commands::bucket::names;
use crate::connect::{builder, connect};
use crate::failure::{Exit, Failure};
use crate::global::GlobalArgs;
use crate::output::{Output, note};

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
    fn of(name: &str, usage: Usage) -> Self {
        Self { name: name.into(), objects: usage.objects, bytes: usage.bytes, buckets: None, reap_ms: None }
    }

    /// Shows what would be deleted. Returns whether it is to be done.
    fn confirmed(&self, out: Output, what: &str, how: DeleteHow) -> Result<bool, Failure> {
        let Self { name, objects, bytes, .. } = self;
        note(format!("{what} {name} has {objects} copies of objects with {bytes} bytes on all nodes together"));
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

fn sum(usages: impl Iterator<Item = Usage>) -> Usage {
    let mut all = Usage::default();
    for usage in usages {
        all.objects += usage.objects;
        all.bytes += usage.bytes;
    }
    all
}

pub(crate) async fn bucket(global: &GlobalArgs, out: Output, name: &str, how: DeleteHow) -> Result<(), Failure> {
    let admin = connect(global).await?.admin();
    let bucket = admin.bucket(name).await?;
    let usage = admin.usage().await?.get(&bucket.id).copied().unwrap_or_default();
    let plan = Plan::of(name, usage);
    if !plan.confirmed(out, "bucket", how)? {
        return Ok(());
    }
    let BucketInfo { deleted, behind, .. } = admin.delete_bucket(name, how.after).await?;
    plan.done(out, "bucket", (deleted, &behind))
}

pub(crate) async fn tenant(global: &GlobalArgs, out: Output, name: &str, how: DeleteHow) -> Result<(), Failure> {
    let within = builder(global)?.tenant(name).connect().await?.admin();
    let buckets = within.buckets().await?.iter().map(|bucket| bucket.name.to_string()).collect();
    let plan = Plan { buckets: Some(buckets), ..Plan::of(name, sum(within.usage().await?.into_values())) };
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
            "not yet known to {}: if they do not learn of it in time, they remove their copies, and get them again from \
             the others",
            names(behind)
        ));
    }
    note(format!("{what} {name} is back"));
}

pub(crate) async fn plugin(admin: &Admin, digest: PluginDigest, yes: bool) -> Result<(), Failure> {
    if !yes {
        let next = format!("`rejoin plugin delete {digest} --yes` does it");
        return Err(Failure::new(Exit::Usage, "nothing was done: --yes is missing").next(next));
    }
    let behind = admin.delete_plugin(digest).await?;
    if !behind.is_empty() {
        note(format!("not yet known to {}: a node learns of it when it connects", names(&behind)));
    }
    note(format!("plugin {digest} is deleted"));
    Ok(())
}

/// For how long, for people.
pub(crate) fn state(deleted: Option<Deleted>) -> String {
    match deleted {
        None => "valid".to_owned(),
        Some(Deleted { reaped: true, .. }) => "reaped".to_owned(),
        Some(Deleted { reap_ms, .. }) => format!("deleted, can be restored until {}", utc_text_ms(reap_ms)),
    }
}
