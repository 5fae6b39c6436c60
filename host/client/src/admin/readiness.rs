//! Whether the nodes can run a plugin.

use rejoin_proto::client::{AdminRequest, Reply, RequestBody};
use rejoin_proto::plugin_state::{NodePlugins, PluginState};
use rejoin_proto::{Name, PluginDigest};

use super::{Admin, FromNodes};
#[cfg(doc)]
use crate::ErrorKind;
use crate::Result;
use crate::engine::unexpected;

/// Which nodes can run which plugins. A node that was asked in vain compiles a plugin, and compares what it computes
/// with it, before it merges with it.
pub type PluginReadiness = FromNodes<Vec<NodePlugins>>;

impl PluginReadiness {
    /// What each node that has answered says of a plugin.
    ///
    /// ```no_run
    /// # use rejoin_client::admin::{PluginDigest, PluginState};
    /// # async fn run(client: rejoin_client::Client, digest: PluginDigest) -> rejoin_client::Result<()> {
    /// let readiness = client.admin().plugin_readiness(Some(digest)).await?;
    /// let is_ready = readiness.of(&digest).all(|(_, state)| *state == PluginState::Ready);
    /// # Ok(()) }
    /// ```
    pub fn of<'a>(&'a self, digest: &'a PluginDigest) -> impl Iterator<Item = (&'a Name, &'a PluginState)> {
        self.answers.iter().map(move |node| {
            let known = node.plugins.iter().find(|(of, _)| of == digest);
            // A node that does not know of the plugin does not have it.
            (&node.node, known.map_or(&PluginState::Missing, |(_, state)| state))
        })
    }
}

impl Admin {
    /// Asks every node whether it can run the tenant's plugins, or one of them, which it then begins to load if it has
    /// it on the disk only. A node runs a plugin once it has compiled it, and computes with it what the node has where
    /// it was pushed: both answer a fixed run of calls with the same bytes, for the same fuel. A pinned client asks its
    /// node only.
    ///
    /// ```no_run
    /// # async fn run(client: rejoin_client::Client) -> rejoin_client::Result<()> {
    /// let readiness = client.admin().plugin_readiness(None).await?;
    /// println!("{} nodes have answered, {:?} have not", readiness.answers.len(), readiness.silent);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Denied`] for a token that may not list plugins; else as [`Admin::status`], if no node answers.
    pub async fn plugin_readiness(&self, digest: Option<PluginDigest>) -> Result<PluginReadiness> {
        let request = RequestBody::Admin(AdminRequest::PluginStates { digest });
        let states = |(node, reply): (Name, Reply)| match reply {
            Reply::PluginStates(states) => Ok(states),
            _ => Err(unexpected(node.as_str())),
        };
        self.engine.every(&request, self.timeout).await?.try_with(|replies| replies.into_iter().map(states).collect())
    }
}
