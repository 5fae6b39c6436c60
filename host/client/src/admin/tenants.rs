//! Tenants: who shares the cluster.

use rejoin_proto::catalog::{Deleted, Record, RecordBody, RecordKey};
use rejoin_proto::client::{AdminRequest, RecordKind};
use rejoin_proto::{Name, TenantId};

use super::{Admin, admin_name};
#[cfg(doc)]
use crate::ErrorKind;
use crate::Result;

/// A tenant in the catalog.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct TenantInfo {
    /// Its name.
    pub name: Name,
    /// Its id, which is made of the name.
    pub id: TenantId,
    /// Grows by one with each change.
    pub version: u64,
    /// Set if it is deleted.
    pub deleted: Option<Deleted>,
    /// After a change: the nodes that do not have it yet. Empty for a listed tenant.
    pub behind: Vec<Name>,
}

impl Admin {
    /// All tenants, by name; for a token that is not an operator's only its own.
    ///
    /// ```no_run
    /// # async fn run(client: rejoin_client::Client) -> rejoin_client::Result<()> {
    /// for tenant in client.admin().tenants().await? {
    ///     println!("{}", tenant.name);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Admin::status`].
    pub async fn tenants(&self) -> Result<Vec<TenantInfo>> {
        let mut tenants: Vec<TenantInfo> =
            self.list(RecordKind::Tenant).await?.into_iter().filter_map(tenant_info).collect();
        tenants.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(tenants)
    }

    /// Makes a tenant, in which there is nothing yet.
    ///
    /// ```no_run
    /// # use rejoin_client::admin::Scope;
    /// # async fn run(builder: rejoin_client::ClientBuilder) -> rejoin_client::Result<()> {
    /// builder.clone().connect().await?.admin().create_tenant("shop").await?;
    /// // An operator acts in it, and gives its team a token.
    /// let shop = builder.tenant("shop").connect().await?;
    /// println!("{}", shop.admin().create_token("team", Scope::TenantAdmin).await?.text());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Exists`], [`ErrorKind::Config`] for a malformed name; else as [`Admin::status`].
    pub async fn create_tenant(&self, name: &str) -> Result<TenantInfo> {
        let name = admin_name(name)?;
        let (tenant, behind) = self.change(AdminRequest::TenantCreate { name }, tenant_info).await?;
        Ok(TenantInfo { behind, ..tenant })
    }
}

pub(super) fn tenant_info(record: Record) -> Option<TenantInfo> {
    let RecordKey::Tenant(id) = record.key else { return None };
    let (name, deleted) = match record.body {
        RecordBody::Tenant { name } => (name, None),
        RecordBody::DeletedTenant { name, deleted } => (name, Some(deleted)),
        _ => return None,
    };
    Some(TenantInfo { name, id, version: record.version, deleted, behind: Vec::new() })
}
