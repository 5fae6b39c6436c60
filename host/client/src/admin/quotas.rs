//! Quotas: what a tenant or a bucket may use.

use std::collections::BTreeMap;

use rejoin_proto::Name;
use rejoin_proto::catalog::{Record, RecordBody, RecordKey};
use rejoin_proto::client::{AdminRequest, RecordKind};
use rejoin_proto::quota::Quota;

use super::{Admin, admin_name};
#[cfg(doc)]
use crate::ErrorKind;
use crate::Result;

impl Admin {
    /// The quotas of the tenant (`None`) and of its buckets.
    ///
    /// ```no_run
    /// # async fn run(client: rejoin_client::Client) -> rejoin_client::Result<()> {
    /// let of_tenant = client.admin().quotas().await?.get(&None).copied();
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Admin::status`].
    pub async fn quotas(&self) -> Result<BTreeMap<Option<Name>, Quota>> {
        Ok(self.list(RecordKind::Quota).await?.into_iter().filter_map(quota).collect())
    }

    /// Sets the quota of the tenant, or of one of its buckets. What it does not limit is not limited any more.
    ///
    /// ```no_run
    /// # use rejoin_client::admin::Quota;
    /// # async fn run(client: rejoin_client::Client) -> rejoin_client::Result<()> {
    /// let quota = Quota { bytes: Some(1 << 30), requests_per_second: Some(1_000), ..Quota::default() };
    /// client.admin().set_quota(None, quota).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a malformed name; else as [`Admin::status`].
    pub async fn set_quota(&self, bucket: Option<&str>, quota: Quota) -> Result<Vec<Name>> {
        let bucket = bucket.map(admin_name).transpose()?;
        self.change(AdminRequest::QuotaSet { bucket, quota }, self::quota).await.map(|(_, behind)| behind)
    }
}

fn quota(record: Record) -> Option<(Option<Name>, Quota)> {
    match (record.key, record.body) {
        (RecordKey::Quota(_, bucket), RecordBody::Quota(quota)) => Some((bucket, quota)),
        _ => None,
    }
}
