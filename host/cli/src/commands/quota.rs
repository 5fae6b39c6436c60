//! `tenant quota` and `bucket quota`.

use std::collections::BTreeMap;

use serde::Serialize;

use rejoin_client::admin::{Admin, BucketInfo, Limit, Quota, ReachedLimit};

use crate::commands::bucket::names;
use crate::failure::Failure;
use crate::output::{Output, note};
use crate::quota_args::QuotaWish;

/// A limit, as `--json` prints it; null: no limit.
#[derive(Serialize, Debug)]
struct Amount {
    hard: Option<u64>,
    soft: Option<u64>,
}

/// A limit that is reached, as `--json` prints it.
#[derive(Serialize, Debug)]
pub(crate) struct Reached {
    /// Null: the tenant's own.
    bucket: Option<String>,
    limit: String,
    hard: bool,
    most: u64,
    used: u64,
}

impl From<&ReachedLimit> for Reached {
    fn from(reached: &ReachedLimit) -> Self {
        let ReachedLimit { bucket, limit, hard, most, used } = reached;
        let bucket = bucket.as_ref().map(ToString::to_string);
        Self { bucket, limit: json_name(*limit), hard: *hard, most: *most, used: *used }
    }
}

impl Reached {
    /// For people.
    pub(crate) fn text(&self) -> String {
        let Self { bucket, limit, hard, most, used } = self;
        let whose = bucket.as_ref().map_or_else(String::new, |bucket| format!(" of bucket {bucket}"));
        let kind = if *hard { "limit" } else { "soft limit" };
        format!("{limit}{whose}: {used}, the {kind} is {most}")
    }
}

/// The name of a limit in JSON.
fn json_name(limit: Limit) -> String {
    limit.name().replace('-', "_")
}

/// Whether the quota of a tenant or that of a bucket can have a limit.
fn has(bucket: Option<&BucketInfo>, limit: Limit) -> bool {
    bucket.is_none() || !limit.is_of_tenants()
}

/// A quota, as `--json` prints it.
#[derive(Serialize, Debug)]
struct Shown {
    #[serde(flatten)]
    limits: BTreeMap<String, Amount>,
    /// Of a tenant only.
    #[serde(skip_serializing_if = "Option::is_none")]
    weight: Option<u32>,
}

/// Sets the quota of the tenant or of a bucket, and the weight of the tenant, or shows them.
pub(crate) async fn run(
    admin: &Admin,
    out: Output,
    bucket: Option<&BucketInfo>,
    (wish, weight): (QuotaWish, Option<u32>),
) -> Result<(), Failure> {
    let quotas = admin.quotas().await?;
    let mut quota = quotas.get(&bucket.map(|bucket| bucket.id)).copied().unwrap_or_default();
    match wish {
        QuotaWish::Show => {}
        QuotaWish::End => quota = Quota::default(),
        QuotaWish::Hard(hard) => quota.hard = hard,
        QuotaWish::Soft(soft) => quota.soft = soft,
    }
    quota.weight = weight.or(quota.weight);
    if wish != QuotaWish::Show || weight.is_some() {
        let behind = admin.set_quota(bucket.map(|bucket| bucket.name.as_str()), quota).await?;
        if !behind.is_empty() {
            note(format!("not yet known to {}: a node learns of it when it connects", names(&behind)));
        }
    }
    let limits = Limit::ALL.into_iter().filter(|limit| has(bucket, *limit));
    if out.json {
        let amount = |limit: Limit| {
            let (hard, soft) = (quota.hard.get(limit), quota.soft.get(limit));
            (json_name(limit), Amount { hard, soft })
        };
        let weight = bucket.is_none().then(|| quota.weight.unwrap_or(1));
        return out.json(&Shown { limits: limits.map(amount).collect(), weight });
    }
    let text = |amount: Option<u64>| amount.map_or_else(|| "-".to_owned(), |amount| amount.to_string());
    let row = |limit: Limit| vec![limit.name().to_owned(), text(quota.hard.get(limit)), text(quota.soft.get(limit))];
    let weight = bucket.is_none().then(|| vec!["weight".to_owned(), quota.weight.unwrap_or(1).to_string(), text(None)]);
    out.table(&["limit", "hard", "soft"], limits.map(row).chain(weight).collect())
}
