//! `tenant quota` and `bucket quota`.

use serde::Serialize;

use rejoin_client::admin::{Admin, Name, Quota};

use crate::args::QuotaArgs;
use crate::commands::bucket::names;
use crate::failure::Failure;
use crate::output::{Output, note};

/// A quota, as `--json` prints it; null: no limit.
#[derive(Serialize, Debug)]
pub(crate) struct Limits {
    objects: Option<u64>,
    bytes: Option<u64>,
    requests_per_second: Option<u64>,
    bytes_per_second: Option<u64>,
    connections: Option<u64>,
}

impl From<Quota> for Limits {
    fn from(quota: Quota) -> Self {
        let Quota { objects, bytes, requests_per_second, bytes_per_second, connections } = quota;
        Self { objects, bytes, requests_per_second, bytes_per_second, connections }
    }
}

impl Limits {
    fn rows(&self) -> Vec<Vec<String>> {
        let limits = [
            ("objects", self.objects),
            ("bytes", self.bytes),
            ("requests a second", self.requests_per_second),
            ("bytes a second", self.bytes_per_second),
            ("connections", self.connections),
        ];
        let text = |limit: Option<u64>| limit.map_or_else(|| "-".to_owned(), |limit| limit.to_string());
        limits.into_iter().map(|(what, limit)| vec![what.to_owned(), text(limit)]).collect()
    }
}

/// The quota that options name; `None` if they name none.
pub(crate) fn of(args: QuotaArgs, connections: Option<u64>) -> Option<Quota> {
    let QuotaArgs { objects, bytes, requests_per_second, bytes_per_second, none } = args;
    let quota = Quota { objects, bytes, requests_per_second, bytes_per_second, connections };
    (none || !quota.is_none()).then_some(quota)
}

/// Sets the quota of the tenant or of a bucket, or shows it.
pub(crate) async fn run(
    admin: &Admin,
    out: Output,
    bucket: Option<&str>,
    wanted: Option<Quota>,
) -> Result<(), Failure> {
    let quota = match wanted {
        Some(quota) => {
            let behind = admin.set_quota(bucket, quota).await?;
            if !behind.is_empty() {
                note(format!("not yet known to {}: a node learns of it when it connects", names(&behind)));
            }
            quota
        }
        None => {
            let quotas = admin.quotas().await?;
            quotas
                .iter()
                .find(|(of, _)| of.as_ref().map(Name::as_str) == bucket)
                .map(|(_, quota)| *quota)
                .unwrap_or_default()
        }
    };
    let limits = Limits::from(quota);
    if out.json { out.json(&limits) } else { out.table(&["limit", "of"], limits.rows()) }
}
