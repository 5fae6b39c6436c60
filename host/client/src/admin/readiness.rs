//! Whether the nodes can run a plugin, and waiting until they can.

use std::time::Duration;

use tokio::time::Instant;

use rejoin_proto::client::{AdminRequest, Reply, RequestBody};
use rejoin_proto::plugin_state::{NodePlugins, PluginState};
use rejoin_proto::{Name, PluginDigest};

use super::{Admin, FromNodes};
use crate::engine::unexpected;
use crate::{Error, ErrorKind, Result};

/// For how long an activation waits until all nodes are ready.
pub const READY_WAIT: Duration = Duration::from_secs(30);
/// The pause between two questions meanwhile.
const ASK_INTERVAL: Duration = Duration::from_millis(500);
/// The longest pause before a change is sent again for which nodes were not ready: each refusal is in a node's audit
/// log.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// The first pause before that. It doubles up to [`LONGEST_PAUSE`].
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(50);
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

    /// The nodes that will not run a plugin, with their states and the reason of the first one: those that compute
    /// otherwise, could not compile it, or have removed it. `None`: there is none.
    ///
    /// ```no_run
    /// # use rejoin_client::admin::PluginDigest;
    /// # async fn run(client: rejoin_client::Client, digest: PluginDigest) -> rejoin_client::Result<()> {
    /// if let Some(why) = client.admin().plugin_readiness(Some(digest)).await?.unable(&digest) {
    ///     println!("{why}");
    /// }
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn unable(&self, digest: &PluginDigest) -> Option<String> {
        self.refusal(digest, |state| state.why_not().is_some())
    }

    /// As [`Self::unable`], of the nodes that compute otherwise only.
    ///
    /// ```no_run
    /// # use rejoin_client::admin::PluginDigest;
    /// # async fn run(client: rejoin_client::Client, digest: PluginDigest) -> rejoin_client::Result<()> {
    /// assert_eq!(client.admin().plugin_readiness(Some(digest)).await?.differing(&digest), None);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn differing(&self, digest: &PluginDigest) -> Option<String> {
        self.refusal(digest, |state| matches!(state, PluginState::Differs(_)))
    }

    /// The nodes that are not ready for a plugin yet, with their states. `None`: there is none.
    ///
    /// ```no_run
    /// # use rejoin_client::admin::PluginDigest;
    /// # async fn run(client: rejoin_client::Client, digest: PluginDigest) -> rejoin_client::Result<()> {
    /// let readiness = client.admin().plugin_readiness(Some(digest)).await?;
    /// println!("not yet: {:?}", readiness.unready(&digest));
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn unready(&self, digest: &PluginDigest) -> Option<String> {
        let is =
            |state: &PluginState| matches!(state, PluginState::Compiling | PluginState::Missing | PluginState::Stored);
        self.named(digest, is)
    }

    /// The nodes in such a state, each with its state.
    fn named(&self, digest: &PluginDigest, is: impl Fn(&PluginState) -> bool) -> Option<String> {
        let found = self.of(digest).filter(|(_, state)| is(state));
        let named: Vec<String> = found.map(|(node, state)| format!("{node} ({})", state.word())).collect();
        (!named.is_empty()).then(|| named.join(", "))
    }

    fn refusal(&self, digest: &PluginDigest, is: impl Fn(&PluginState) -> bool) -> Option<String> {
        let named = self.named(digest, &is)?;
        let why = self.of(digest).find(|(_, state)| is(state)).and_then(|(_, state)| state.why_not());
        Some(format!("{named} cannot run the plugin: {}", why.unwrap_or_default()))
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

    /// Waits until every node that answers is ready to run a plugin. `watch` is told of those that are not, with their
    /// states, each time that they are asked. Returns what they say in the end; [`FromNodes::silent`] are those that
    /// have not answered, which compare the plugin before they merge with it.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # async fn run(client: rejoin_client::Client) -> rejoin_client::Result<()> {
    /// let admin = client.admin();
    /// let plugin = admin.push_plugin("cart", std::fs::read("cart.wasm").unwrap()).await?;
    /// admin.wait_until_ready(plugin.digest, Duration::from_secs(60), |late| println!("not yet: {late}")).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::PluginRejected`] if a node will not run it, [`ErrorKind::TimedOut`] if not all are ready by then:
    /// both name the nodes. Else as [`Admin::plugin_readiness`].
    pub async fn wait_until_ready(
        &self,
        digest: PluginDigest,
        within: Duration,
        mut watch: impl FnMut(&str),
    ) -> Result<PluginReadiness> {
        let until = Instant::now() + within.min(crate::time::LONGEST);
        loop {
            let readiness = self.plugin_readiness(Some(digest)).await?;
            if let Some(why) = readiness.unable(&digest) {
                return Err(Error::new(ErrorKind::PluginRejected, why));
            }
            let Some(late) = readiness.unready(&digest) else { return Ok(readiness) };
            if Instant::now() >= until {
                let what = format!("after {within:?} not all nodes are ready: {late}");
                return Err(Error::new(ErrorKind::TimedOut, what));
            }
            watch(&late);
            tokio::time::sleep(ASK_INTERVAL).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: PluginDigest = PluginDigest([7; 32]);

    fn nodes(states: &[(&str, PluginState)]) -> PluginReadiness {
        let node = |(node, state): &(&str, PluginState)| NodePlugins {
            node: Name::new(*node).expect("a name"),
            plugins: vec![(DIGEST, state.clone())],
        };
        let silent = vec![(Name::new("away").expect("a name"), "no answer".to_owned())];
        FromNodes::new(states.iter().map(node).collect(), silent)
    }

    #[test]
    fn a_node_that_will_not_run_it_refuses_and_one_that_is_late_is_named() {
        let ready = nodes(&[("n1", PluginState::Ready), ("n2", PluginState::Ready)]);
        assert_eq!((ready.unable(&DIGEST), ready.differing(&DIGEST), ready.unready(&DIGEST)), (None, None, None));
        let late = nodes(&[("n1", PluginState::Ready), ("n2", PluginState::Compiling), ("n3", PluginState::Missing)]);
        assert_eq!(late.unready(&DIGEST).as_deref(), Some("n2 (compiling), n3 (missing)"));
        assert_eq!(late.unable(&DIGEST), None);
        let other = PluginDigest([8; 32]);
        assert_eq!(ready.unready(&other).as_deref(), Some("n1 (missing), n2 (missing)"), "they do not know of it");
        let differs = nodes(&[("n1", PluginState::Stored), ("n2", PluginState::Differs("it is so".into()))]);
        let why = Some("n2 (differs) cannot run the plugin: it is so".to_owned());
        assert_eq!((differs.unable(&DIGEST), differs.differing(&DIGEST)), (why.clone(), why));
        for never in [PluginState::Refused("it is so".into()), PluginState::Removed] {
            let never = nodes(&[("n1", never)]);
            assert!(never.unable(&DIGEST).is_some() && never.differing(&DIGEST).is_none(), "{never:?}");
        }
    }
}
