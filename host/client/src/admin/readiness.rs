//! Whether the nodes can run a plugin.

use std::collections::BTreeSet;

use rejoin_proto::client::{AdminRequest, Reply, RequestBody};
use rejoin_proto::plugin_state::{NodePlugins, PluginState};
use rejoin_proto::{Name, PluginDigest};

use super::Admin;
#[cfg(doc)]
use crate::ErrorKind;
use crate::Result;
use crate::engine::unexpected;

/// Which nodes can run which plugins.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct PluginReadiness {
    /// The nodes that have answered, by name.
    pub nodes: Vec<NodePlugins>,
    /// The nodes that were asked in vain, by name. They compile a plugin, and compare what they compute with it, before
    /// they merge with it.
    pub unreachable: Vec<Name>,
}

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
        self.nodes.iter().map(move |node| {
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
    /// println!("{} nodes have answered, {:?} have not", readiness.nodes.len(), readiness.unreachable);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Denied`] for a token that may not list plugins; else as [`Admin::status`], if no node answers.
    pub async fn plugin_readiness(&self, digest: Option<PluginDigest>) -> Result<PluginReadiness> {
        let request = RequestBody::Admin(AdminRequest::PluginStates { digest });
        let asked: BTreeSet<Name> = self.engine.targets().into_iter().map(|target| target.name).collect();
        let mut nodes = Vec::new();
        for reply in self.engine.every(&request, self.timeout).await? {
            let Reply::PluginStates(node) = reply else { return Err(unexpected("the node")) };
            nodes.push(node);
        }
        nodes.sort_by(|a, b| a.node.cmp(&b.node));
        let is_silent = |name: &Name| !nodes.iter().any(|node| node.node == *name);
        let unreachable = asked.into_iter().filter(is_silent).collect();
        Ok(PluginReadiness { nodes, unreachable })
    }
}
