//! Deletions: disabled at once, reaped later, restored until then.

use std::time::Duration;

use rejoin_proto::client::AdminRequest;
use rejoin_proto::{Name, PluginDigest};

use super::records::{bucket_info, plugin_info};
use super::tenants::tenant_info;
use super::{Admin, BucketInfo, PluginInfo, TenantInfo, admin_name};
#[cfg(doc)]
use crate::ErrorKind;
use crate::Result;

impl Admin {
    /// Deletes a bucket: nobody reads or writes it from now on, and after `after` its objects are removed from every
    /// node. Until then [`Admin::restore_bucket`] brings it back. After that the name can be used again, up to 32
    /// times.
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

    /// Deletes a plugin that no bucket of the tenant uses, as [`Admin::delete_bucket`] deletes a bucket. It can be
    /// pushed again at any time. Returns the nodes that do not know of it yet.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # use rejoin_client::admin::PluginDigest;
    /// # async fn run(client: rejoin_client::Client, digest: PluginDigest) -> rejoin_client::Result<()> {
    /// client.admin().delete_plugin(digest, Duration::from_secs(24 * 60 * 60)).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::BadRequest`] if a bucket uses it, also a deleted one that can be restored;
    /// else as [`Admin::status`].
    pub async fn delete_plugin(&self, digest: PluginDigest, after: Duration) -> Result<(PluginInfo, Vec<Name>)> {
        self.change(AdminRequest::PluginDelete { digest, after_ms: millis(after) }, plugin_info).await
    }

    /// Brings a deleted plugin back, as [`Admin::restore_bucket`] does a bucket. Returns the nodes that do not know of
    /// it yet.
    ///
    /// ```no_run
    /// # use rejoin_client::admin::PluginDigest;
    /// # async fn run(client: rejoin_client::Client, digest: PluginDigest) -> rejoin_client::Result<()> {
    /// client.admin().restore_plugin(digest).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Admin::restore_bucket`], and [`ErrorKind::QuotaExceeded`].
    pub async fn restore_plugin(&self, digest: PluginDigest) -> Result<(PluginInfo, Vec<Name>)> {
        self.change(AdminRequest::PluginRestore { digest }, plugin_info).await
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
