//! Whether the nodes can run a plugin: shown with it, and asked before a bucket gets it.

use std::time::{Duration, Instant};

use serde::Serialize;

use rejoin_client::admin::{Admin, Name, PluginDigest, PluginInfo, PluginReadiness, PluginState};

use crate::commands::json::Plugin;
use crate::commands::nodes::silent_names;
use crate::failure::{Exit, Failure};
use crate::output::note;
use crate::progress::Bar;

/// For how long `plugin activate` waits until all nodes are ready.
const READY_WAIT: Duration = Duration::from_secs(30);
/// The pause between two questions meanwhile.
const ASK_INTERVAL: Duration = Duration::from_millis(500);
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

/// What is to be done about a plugin that a bucket is to get.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Verdict {
    Ready,
    /// These nodes are not ready yet.
    Wait(String),
    /// Why, and at which nodes.
    Refuse(String),
}

/// With `all_ready` each reachable node must be ready; else none may compute otherwise.
fn verdict(states: &[NodeState], all_ready: bool) -> Verdict {
    let of =
        |wanted: &[&str]| -> Vec<&NodeState> { states.iter().filter(|state| wanted.contains(&state.state)).collect() };
    let listed = |states: Vec<&NodeState>| {
        states.into_iter().map(|of| format!("{} ({})", of.node, of.state)).collect::<Vec<_>>().join(", ")
    };
    let never: &[&str] = if all_ready { &["differs", "refused", "removed"] } else { &["differs"] };
    let (never, later) = (of(never), of(&["compiling", "missing", "stored"]));
    if let Some(first) = never.first() {
        let why = first.why.clone().unwrap_or_else(|| "its module was removed: push it again".into());
        return Verdict::Refuse(format!("{} cannot run the plugin: {why}", listed(never)));
    }
    if all_ready && !later.is_empty() { Verdict::Wait(listed(later)) } else { Verdict::Ready }
}

/// Refuses a plugin for a bucket if a node that can be reached computes otherwise with it.
pub(crate) async fn refuse_differing(admin: &Admin, plugin: PluginDigest) -> Result<(), Failure> {
    let readiness = admin.plugin_readiness(Some(plugin)).await?;
    conclude(verdict(&states(&readiness, &plugin), false), &readiness)
}

/// Waits until every node that can be reached is ready to run a plugin.
pub(crate) async fn wait(admin: &Admin, plugin: PluginDigest) -> Result<(), Failure> {
    let until = Instant::now() + READY_WAIT;
    let (bar, mut told) = (Bar::spinner("asking the nodes"), String::new());
    loop {
        let readiness = admin.plugin_readiness(Some(plugin)).await?;
        let verdict = verdict(&states(&readiness, &plugin), true);
        let Verdict::Wait(waiting) = &verdict else {
            drop(bar);
            return conclude(verdict, &readiness);
        };
        if Instant::now() >= until {
            let what = format!("after {} s not all nodes are ready: {waiting}", READY_WAIT.as_secs());
            return Err(Failure::new(Exit::Retry, what).next(FORCE));
        }
        if told != *waiting {
            told.clone_from(waiting);
            match &bar {
                Some(bar) => bar.message(&format!("waiting until all nodes are ready: {waiting}")),
                None => note(format!("waiting until all nodes are ready: {waiting}")),
            }
        }
        tokio::time::sleep(ASK_INTERVAL).await;
    }
}

/// What one can do about nodes that are not ready.
const FORCE: &str =
    "`rejoin plugin activate` and `rollback` take --force: then siblings are kept where it is not ready";

fn conclude(verdict: Verdict, readiness: &PluginReadiness) -> Result<(), Failure> {
    if let Verdict::Refuse(why) = verdict {
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

    #[test]
    fn a_node_that_differs_refuses_and_one_that_is_late_is_waited_for() {
        let ready = [at("n1", "ready"), at("n2", UNREACHABLE)];
        assert_eq!((verdict(&ready, true), verdict(&ready, false)), (Verdict::Ready, Verdict::Ready));
        let late = [at("n1", "ready"), at("n2", "compiling"), at("n3", "missing")];
        assert_eq!(verdict(&late, true), Verdict::Wait("n2 (compiling), n3 (missing)".into()));
        assert_eq!(verdict(&late, false), Verdict::Ready);
        let differs = [at("n1", "compiling"), at("n2", "differs")];
        let why = Verdict::Refuse("n2 (differs) cannot run the plugin: it is so".into());
        assert_eq!((verdict(&differs, true), verdict(&differs, false)), (why.clone(), why));
        for never in ["refused", "removed"] {
            assert!(matches!(verdict(&[at("n1", never)], true), Verdict::Refuse(_)), "{never}");
            assert_eq!(verdict(&[at("n1", never)], false), Verdict::Ready, "{never}");
        }
    }
}
