//! Whether the nodes can run a plugin: shown with it, and asked before a bucket gets it.

use serde::Serialize;

use rejoin_client::ErrorKind;
use rejoin_client::admin::{Admin, Name, PluginDigest, PluginInfo, PluginReadiness, PluginState, READY_WAIT};

use crate::commands::json::Plugin;
use crate::commands::nodes::silent_names;
use crate::failure::{Exit, Failure};
use crate::output::note;
use crate::progress::Bar;

/// The state of a node that does not answer.
const UNREACHABLE: &str = "unreachable";

/// A plugin at one node.
#[derive(Clone, PartialEq, Eq, Serialize, Debug)]
pub(crate) struct NodeState {
    pub(crate) node: String,
    /// `ready`, `compiling`, `missing`, `stored`, `removed`, `differs`, `refused` or `unreachable`.
    pub(crate) state: &'static str,
    /// Of `differs` and `refused`.
    pub(crate) why: Option<String>,
}

fn word(state: &PluginState) -> (&'static str, Option<String>) {
    match state {
        PluginState::Ready => ("ready", None),
        PluginState::Compiling => ("compiling", None),
        PluginState::Missing => ("missing", None),
        PluginState::Stored => ("stored", None),
        PluginState::Removed => ("removed", None),
        PluginState::Differs(why) => ("differs", Some(why.clone())),
        PluginState::Refused(why) => ("refused", Some(why.clone())),
    }
}

/// A plugin at each node, by name.
pub(crate) fn states(readiness: &PluginReadiness, digest: &PluginDigest) -> Vec<NodeState> {
    let told = readiness.of(digest).map(|(node, state)| {
        let (state, why) = word(state);
        NodeState { node: node.to_string(), state, why }
    });
    let silent = |node: &Name| NodeState { node: node.to_string(), state: UNREACHABLE, why: None };
    let mut states: Vec<NodeState> = told.chain(readiness.silent.iter().map(|(node, _)| silent(node))).collect();
    states.sort_by(|a, b| a.node.cmp(&b.node));
    states
}

/// All states in a few words: how many nodes are ready, or have it on the disk, and which others are in what state.
pub(crate) fn summary(states: &[NodeState]) -> String {
    let usual = ["ready", "stored"].into_iter().filter_map(|state| {
        let count = states.iter().filter(|of| of.state == state).count();
        (count > 0).then(|| format!("{count} {state}"))
    });
    let others = states.iter().filter(|of| !matches!(of.state, "ready" | "stored"));
    usual.chain(others.map(|of| format!("{} {}", of.node, of.state))).collect::<Vec<_>>().join(", ")
}

/// All plugins, with their states at the nodes.
pub(crate) async fn list(admin: &Admin) -> Result<Vec<Plugin>, Failure> {
    let plugins = admin.plugins().await?;
    let readiness = admin.plugin_readiness(None).await?;
    Ok(plugins.iter().map(|info| with_nodes(&readiness, info)).collect())
}

/// A plugin, with its state at the nodes unless it is deleted.
pub(crate) fn with_nodes(readiness: &PluginReadiness, info: &PluginInfo) -> Plugin {
    let nodes = info.deleted.is_none().then(|| states(readiness, &info.digest));
    Plugin { nodes, ..Plugin::from(info) }
}

/// Refuses a plugin for a bucket if a node that can be reached computes otherwise with it.
pub(crate) async fn refuse_differing(admin: &Admin, plugin: PluginDigest) -> Result<(), Failure> {
    let readiness = admin.plugin_readiness(Some(plugin)).await?;
    conclude(readiness.differing(&plugin), &readiness)
}

/// Waits until every node that can be reached is ready to run a plugin.
pub(crate) async fn wait(admin: &Admin, plugin: PluginDigest) -> Result<(), Failure> {
    let (bar, mut told) = (Bar::spinner("asking the nodes"), String::new());
    let watch = |waiting: &str| {
        if told != waiting {
            waiting.clone_into(&mut told);
            match &bar {
                Some(bar) => bar.message(&format!("waiting until all nodes are ready: {waiting}")),
                None => note(format!("waiting until all nodes are ready: {waiting}")),
            }
        }
    };
    let ready = admin.wait_until_ready(plugin, READY_WAIT, watch).await;
    drop(bar);
    let readiness = ready.map_err(|error| match error.kind() {
        ErrorKind::PluginRejected | ErrorKind::TimedOut => Failure::from(error).next(FORCE),
        _ => error.into(),
    })?;
    conclude(None, &readiness)
}

/// What one can do about nodes that are not ready.
const FORCE: &str =
    "`rejoin plugin activate` and `rollback` take --force: then siblings are kept where it is not ready";

fn conclude(refusal: Option<String>, readiness: &PluginReadiness) -> Result<(), Failure> {
    if let Some(why) = refusal {
        return Err(Failure::new(Exit::Rejected, why).next(FORCE));
    }
    if !readiness.silent.is_empty() {
        note(format!(
            "{} cannot be reached: what runs there compares the plugin before it merges with it",
            silent_names(&readiness.silent).join(", ")
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(node: &str, state: &'static str) -> NodeState {
        let why = matches!(state, "differs" | "refused").then(|| "it is so".to_owned());
        NodeState { node: node.into(), state, why }
    }

    #[test]
    fn what_is_usual_is_counted_and_the_rest_is_named() {
        let states = [at("n1", "ready"), at("n2", "differs"), at("n3", "ready"), at("n4", "stored")];
        assert_eq!(summary(&states), "2 ready, 1 stored, n2 differs");
        assert_eq!(summary(&[at("n1", UNREACHABLE)]), "n1 unreachable");
    }
}
