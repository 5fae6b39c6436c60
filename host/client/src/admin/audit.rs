//! The audit logs of nodes.

use rejoin_proto::audit::{AuditPage, AuditRequest};
use rejoin_proto::client::{AdminRequest, Reply};

use super::Admin;
#[cfg(doc)]
use crate::ErrorKind;
use crate::Result;
use crate::engine::unexpected;

impl Admin {
    /// A part of the audit log of the node that answers, from the record of that number on. Each node has a log of its
    /// own, so ask with a pinned client. The records are as they are on the node's disk: [`ChainWalk`] checks them.
    ///
    /// ```no_run
    /// # use rejoin_client::admin::ChainWalk;
    /// # async fn run(client: rejoin_client::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut page = client.admin().audit(1).await?;
    /// let mut walk = ChainWalk::new(page.head.first, page.head.before);
    /// loop {
    ///     page.records.iter().try_for_each(|record| walk.step(record))?;
    ///     let Some(next) = page.next else { break };
    ///     page = client.admin().audit(next).await?;
    /// }
    /// walk.end(&page.head)?;
    /// # Ok(()) }
    /// ```
    ///
    /// [`ChainWalk`]: crate::admin::ChainWalk
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`] if the node cannot read its log; else as [`Admin::status`].
    pub async fn audit(&self, from: u64) -> Result<AuditPage> {
        match self.ask(AdminRequest::Audit(AuditRequest { from })).await? {
            Reply::Audit(page) => Ok(page),
            _ => Err(unexpected("the node")),
        }
    }
}
