//! Deletions: disabled at once, reaped later, restored until then. And what there is to delete.

use std::collections::BTreeMap;
use std::time::Duration;

use rejoin_proto::catalog::{Record, RecordKey};
use rejoin_proto::client::{AdminRequest, Reply, RequestBody};
use rejoin_proto::{BucketId, Name, PluginDigest};

use super::records::bucket_info;
use super::tenants::tenant_info;
use super::{Admin, BucketInfo, TenantInfo, admin_name};
#[cfg(doc)]
use crate::ErrorKind;
use crate::Result;
use crate::engine::unexpected;

/// What the nodes that answered have of a bucket, all copies together.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct Usage {
    /// Copies of objects. A deleted object counts while its tombstone is kept.
    pub objects: u64,
    /// Bytes of these copies.
    pub bytes: u64,
}

impl Admin {
    /// What the nodes have of each bucket of the tenant. Nodes that cannot be reached do not count.
    ///
    /// ```no_run
    /// # async fn run(client: rejoin_client::Client) -> rejoin_client::Result<()> {
    /// let bytes: u64 = client.admin().usage().await?.values().map(|usage| usage.bytes).sum();
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Admin::status`].
    pub async fn usage(&self) -> Result<BTreeMap<BucketId, Usage>> {
        let request = RequestBody::Admin(AdminRequest::Usage);
        let mut sums: BTreeMap<BucketId, Usage> = BTreeMap::new();
        for reply in self.engine.every(&request, self.timeout).await? {
            let Reply::Usage(usages) = reply else { return Err(unexpected("the node")) };
            for usage in usages {
                let sum = sums.entry(usage.bucket).or_default();
                *sum = Usage { objects: sum.objects + usage.objects, bytes: sum.bytes + usage.bytes };
            }
        }
        Ok(sums)
    }

    /// Deletes a bucket: nobody reads or writes it from now on, and after `after` its objects are removed from every
    /// node. Until then [`Admin::restore_bucket`] brings it back. The name is not used again.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # async fn run(client: rejoin_client::Client) -> rejoin_client::Result<()> {
    /// let deleted = client.admin().delete_bucket("cart", Duration::from_secs(24 * 60 * 60)).await?;
    /// assert!(deleted.deleted.is_some());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::Config`] for a malformed name; else as [`Admin::status`].
    pub async fn delete_bucket(&self, name: &str, after: Duration) -> Result<BucketInfo> {
        let (name, after_ms) = (admin_name(name)?, millis(after));
        let (bucket, behind) = self.change(AdminRequest::BucketDelete { name, after_ms }, bucket_info).await?;
        Ok(BucketInfo { behind, ..bucket })
    }

    /// Brings a deleted bucket back, with all that it had. Nodes that do not learn of it in time
    /// ([`BucketInfo::behind`]) reap their copies, and get them again from the others.
    ///
    /// ```no_run
    /// # async fn run(client: rejoin_client::Client) -> rejoin_client::Result<()> {
    /// client.admin().restore_bucket("cart").await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is none, or it is reaped, [`ErrorKind::Config`] for a malformed name; else as
    /// [`Admin::status`].
    pub async fn restore_bucket(&self, name: &str) -> Result<BucketInfo> {
        let name = admin_name(name)?;
        let (bucket, behind) = self.change(AdminRequest::BucketRestore { name }, bucket_info).await?;
        Ok(BucketInfo { behind, ..bucket })
    }

    /// Deletes a tenant as [`Admin::delete_bucket`] deletes a bucket, with all its buckets, plugins and tokens. Its
    /// tokens are refused at once.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # async fn run(client: rejoin_client::Client) -> rejoin_client::Result<()> {
    /// client.admin().delete_tenant("shop", Duration::from_secs(7 * 24 * 60 * 60)).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::BadRequest`] for the tenant `default`; else as [`Admin::delete_bucket`].
    pub async fn delete_tenant(&self, name: &str, after: Duration) -> Result<TenantInfo> {
        let (name, after_ms) = (admin_name(name)?, millis(after));
        let (tenant, behind) = self.change(AdminRequest::TenantDelete { name, after_ms }, tenant_info).await?;
        Ok(TenantInfo { behind, ..tenant })
    }

    /// Brings a deleted tenant back, as [`Admin::restore_bucket`] does a bucket.
    ///
    /// ```no_run
    /// # async fn run(client: rejoin_client::Client) -> rejoin_client::Result<()> {
    /// client.admin().restore_tenant("shop").await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Admin::restore_bucket`].
    pub async fn restore_tenant(&self, name: &str) -> Result<TenantInfo> {
        let name = admin_name(name)?;
        let (tenant, behind) = self.change(AdminRequest::TenantRestore { name }, tenant_info).await?;
        Ok(TenantInfo { behind, ..tenant })
    }

    /// Deletes a plugin that no bucket of the tenant uses. It can be pushed again. Returns the nodes that do not know of
    /// it yet.
    ///
    /// ```no_run
    /// # use rejoin_client::admin::PluginDigest;
    /// # async fn run(client: rejoin_client::Client, digest: PluginDigest) -> rejoin_client::Result<()> {
    /// client.admin().delete_plugin(digest).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::BadRequest`] if a bucket uses it, also a deleted one that can be restored;
    /// else as [`Admin::status`].
    pub async fn delete_plugin(&self, digest: PluginDigest) -> Result<Vec<Name>> {
        self.change(AdminRequest::PluginDelete { digest }, is_plugin).await.map(|((), behind)| behind)
    }
}

fn is_plugin(record: Record) -> Option<()> {
    matches!(record.key, RecordKey::Plugin(..)).then_some(())
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
