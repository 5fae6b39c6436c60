//! Whether the nodes that are alive are ready for a plugin that a bucket is to get: the node that makes the change asks
//! them before. Without that, a client that does not wait would have readers see siblings where the plugin is still
//! being compiled, and a plugin that differs somewhere would merge.
//!
//! A node that is not connected, or is doubted and does not answer, holds up no change: it becomes ready before it
//! merges.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use rejoin_proto::catalog::BucketProps;
use rejoin_proto::peer::PeerBody;
use rejoin_proto::plugin_state::PluginState;
use rejoin_proto::{ErrorCode, ErrorReply, Name, NodeId, PluginDigest, TenantId};

use crate::context::NodeContext;
use crate::lock::lock;
use crate::members;
use crate::peers::send;

/// The longest that answers are waited for: a node that is alive has its answer at hand.
const PATIENCE: Duration = Duration::from_secs(1);

/// The questions of this node that wait for answers.
#[derive(Debug, Default)]
pub(crate) struct Readiness {
    questions: Mutex<Questions>,
}

#[derive(Debug, Default)]
struct Questions {
    last: u64,
    open: BTreeMap<u64, mpsc::UnboundedSender<(NodeId, PluginState)>>,
}

/// A question that waits for answers until it is dropped.
struct Question<'a> {
    of: &'a Readiness,
    number: u64,
    answers: mpsc::UnboundedReceiver<(NodeId, PluginState)>,
}

impl Readiness {
    fn ask(&self) -> Question<'_> {
        let (answer, answers) = mpsc::unbounded_channel();
        let mut questions = lock(&self.questions);
        questions.last += 1;
        let number = questions.last;
        questions.open.insert(number, answer);
        Question { of: self, number, answers }
    }

    /// A peer answers. Nobody may wait for it any more.
    pub(crate) fn answered(&self, number: u64, peer: NodeId, state: PluginState) {
        if let Some(waits) = lock(&self.questions).open.get(&number) {
            let _ = waits.send((peer, state));
        }
    }
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        lock(&self.of.questions).open.remove(&self.number);
    }
}

/// Refuses a change by which a bucket with the properties `old` begins to use a plugin for which a node that is alive
/// is not ready. Waits an eighth of `wait` at most for each of the up to three plugins. Returns what is left of it.
///
/// # Errors
/// [`ErrorCode::PluginNotReady`] if there are nodes that are not ready yet, and [`ErrorCode::PluginRejected`] if one
/// will not run the plugin.
pub(crate) async fn check(
    ctx: &NodeContext,
    tenant: TenantId,
    (old, new): (Option<&BucketProps>, &BucketProps),
    wait: Duration,
) -> Result<Duration, ErrorReply> {
    let asked = Instant::now();
    for digest in begun(old, new) {
        // Of a plugin that there is not the catalog says so.
        if ctx.cluster_view().plugin_name(tenant, &digest).is_some() {
            let until = Instant::now() + PATIENCE.min(wait / 8);
            judge(&digest, &states(ctx, &digest, until).await, advice(old, new, &digest))?;
        }
    }
    Ok(wait.saturating_sub(asked.elapsed()))
}

/// The plugins that a bucket begins to use. One that merges some of its keys already is not asked about again; neither
/// is a shadow that goes on.
fn begun(old: Option<&BucketProps>, new: &BucketProps) -> BTreeSet<PluginDigest> {
    let merging = |props: &BucketProps| {
        let canary = props.canary.map(|canary| canary.plugin);
        props.plugin.into_iter().chain(canary).map(|active| active.plugin).collect::<BTreeSet<PluginDigest>>()
    };
    let merged = old.map(merging).unwrap_or_default();
    let known: BTreeSet<PluginDigest> = old.into_iter().flat_map(BucketProps::plugins).collect();
    let shadow = new.shadow.map(|shadow| shadow.plugin).filter(|shadow| !known.contains(shadow));
    merging(new).difference(&merged).copied().chain(shadow).collect()
}

/// What the nodes that are alive say of a plugin, this one among them, by name. `None`: such a node has not answered.
async fn states(ctx: &NodeContext, digest: &PluginDigest, until: Instant) -> BTreeMap<Name, Option<PluginState>> {
    let members: BTreeSet<NodeId> = ctx.view.borrow().members_besides(ctx.node).into_iter().collect();
    let connected = || -> BTreeSet<NodeId> {
        ctx.peers().all().map(|(peer, _)| *peer).filter(|peer| members.contains(peer)).collect()
    };
    let peers = connected();
    let mut question = ctx.readiness.ask();
    let number = question.number;
    peers.iter().for_each(|peer| send(ctx, *peer, PeerBody::PluginAsk { number, digest: *digest }));
    let mut answers: BTreeMap<NodeId, PluginState> = BTreeMap::new();
    let known_silent = members::doubted(ctx);
    while !peers.iter().all(|peer| answers.contains_key(peer) || known_silent.contains(peer)) {
        match tokio::time::timeout_at(until, question.answers.recv()).await {
            Ok(Some((peer, state))) => {
                answers.entry(peer).or_insert(state);
            }
            Ok(None) | Err(_) => break,
        }
    }
    let (still, doubted) = (connected(), members::doubted(ctx));
    let silent = |peer: &NodeId| still.contains(peer) && !doubted.contains(peer);
    let of_peer = |peer: &NodeId| match answers.get(peer) {
        Some(state) => Some((ctx.peer_name(*peer), Some(state.clone()))),
        None => silent(peer).then(|| (ctx.peer_name(*peer), None)),
    };
    let own = (ctx.config.name.clone(), Some(own(ctx, digest)));
    peers.iter().filter_map(of_peer).chain([own]).collect()
}

/// The state of a plugin at this node, which begins to load one that it has on the disk only.
pub(crate) fn own(ctx: &NodeContext, digest: &PluginDigest) -> PluginState {
    ctx.plugins.prepare(digest);
    ctx.plugins.state(digest)
}

/// What one can do about nodes that are not ready for a plugin that is to merge.
const FORCE: &str =
    "`rejoin plugin activate BUCKET PLUGIN --force` does not ask: then siblings are kept where it is not ready";
/// The same for a plugin of a bucket that is to be made.
const WITHOUT: &str = "make the bucket without it, then activate it with `rejoin plugin activate BUCKET PLUGIN \
    --force`, which does not ask: siblings are kept where it is not ready";
/// The same for a shadow.
const SHADOW: &str = "a shadow begins when all nodes that are alive can run it";

fn advice(old: Option<&BucketProps>, new: &BucketProps, digest: &PluginDigest) -> &'static str {
    let merges = new.plugin.into_iter().chain(new.canary.map(|canary| canary.plugin));
    match old {
        _ if merges.into_iter().all(|active| active.plugin != *digest) => SHADOW,
        Some(_) => FORCE,
        None => WITHOUT,
    }
}

/// Refuses a plugin for which not all of these nodes are ready.
fn judge(
    digest: &PluginDigest,
    states: &BTreeMap<Name, Option<PluginState>>,
    advice: &'static str,
) -> Result<(), ErrorReply> {
    let short: String = digest.to_string().chars().take(12).collect();
    if let Some(why) = states.values().flatten().find_map(PluginState::why_not) {
        let nodes = named(states, |state| state.is_some_and(|state| state.why_not().is_some())).join(", ");
        let what = format!("{nodes} cannot run plugin {short}: {why}; {advice}");
        return Err(ErrorReply::new(ErrorCode::PluginRejected, what));
    }
    let late = named(states, |state| state != Some(&PluginState::Ready));
    if late.is_empty() {
        return Ok(());
    }
    let what = format!(
        "plugin {short} is not ready on {}, so nothing was changed: try again in a moment (`rejoin plugin show \
         {short}` names the states); {advice}",
        late.join(", ")
    );
    Err(ErrorReply::new(ErrorCode::PluginNotReady, what))
}

/// The nodes of which that holds, each with its state.
fn named(states: &BTreeMap<Name, Option<PluginState>>, is_meant: impl Fn(Option<&PluginState>) -> bool) -> Vec<String> {
    let meant = states.iter().map(|(node, state)| (node, state.as_ref())).filter(|(_, state)| is_meant(*state));
    meant.map(|(node, state)| format!("{node} ({})", state.map_or("no answer", PluginState::word))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rejoin_proto::Hlc;
    use rejoin_proto::catalog::Activation;
    use rejoin_proto::trial::{Canary, Shadow};

    fn digest(number: u8) -> PluginDigest {
        PluginDigest([number; 32])
    }

    fn active(number: u8) -> Activation {
        let since = Hlc::default();
        Activation { plugin: digest(number), self_causal: false, since, replaces: false, validates: false }
    }

    /// Properties with these plugins; 0 is none.
    fn props(plugin: u8, canary: u8, shadow: u8) -> BucketProps {
        let is = |number: u8| (number > 0).then_some(number);
        BucketProps {
            plugin: is(plugin).map(active),
            canary: is(canary).map(|number| Canary { plugin: active(number), percent: 10 }),
            shadow: is(shadow).map(|number| Shadow { plugin: digest(number), since: Hlc::default(), percent: 10 }),
            ..BucketProps::default()
        }
    }

    fn states(of: &[(&str, Option<PluginState>)]) -> BTreeMap<Name, Option<PluginState>> {
        of.iter().map(|(node, state)| (Name::new(*node).expect("a name"), state.clone())).collect()
    }

    #[test]
    fn what_a_bucket_has_is_not_asked_about_again() {
        let begins = |old: Option<BucketProps>, new: BucketProps| -> Vec<u8> {
            begun(old.as_ref(), &new).into_iter().map(|digest| digest.0[0]).collect()
        };
        let none = [0_u8; 0];
        assert_eq!(begins(None, props(0, 0, 0)), none);
        assert_eq!(begins(None, props(1, 2, 3)), [1, 2, 3]);
        assert_eq!(begins(Some(props(1, 2, 3)), props(1, 2, 3)), none);
        assert_eq!(begins(Some(props(1, 2, 3)), props(2, 0, 3)), none, "the canary gets all keys");
        assert_eq!(begins(Some(props(1, 0, 3)), props(3, 0, 0)), [3], "a shadow has merged nothing yet");
        assert_eq!(begins(Some(props(1, 0, 0)), props(1, 2, 0)), [2]);
        assert_eq!(begins(Some(props(1, 0, 0)), props(1, 0, 1)), none, "of that the catalog says what is wrong");
    }

    #[test]
    fn whoever_is_not_ready_is_named_and_what_will_never_run_it_counts_first() {
        use PluginState::{Compiling, Missing, Ready, Removed};
        assert_eq!(judge(&digest(7), &states(&[("n1", Some(Ready)), ("n2", Some(Ready))]), FORCE), Ok(()));
        let late = states(&[("n1", Some(Ready)), ("n2", Some(Compiling)), ("n3", None), ("n4", Some(Missing))]);
        let refused = judge(&digest(7), &late, FORCE).expect_err("three are late");
        assert_eq!(refused.code, ErrorCode::PluginNotReady, "{refused}");
        let says = "plugin 070707070707 is not ready on n2 (compiling), n3 (no answer), n4 (missing)";
        assert!(refused.message.contains(says) && refused.message.contains("--force"), "{refused}");
        for (never, says) in [
            (PluginState::Differs("it is so".into()), "n3 (differs) cannot run plugin 070707070707: it is so"),
            (PluginState::Refused("it is so".into()), "n3 (refused) cannot run plugin 070707070707: it is so"),
            (Removed, "n3 (removed) cannot run plugin 070707070707: its module was removed: push it again"),
        ] {
            let refused = judge(&digest(7), &states(&[("n2", Some(Compiling)), ("n3", Some(never))]), FORCE);
            let refused = refused.expect_err("one never runs it");
            assert!(refused.code == ErrorCode::PluginRejected && refused.message.contains(says), "{refused}");
        }
    }

    #[test]
    fn the_advice_is_of_what_was_asked() {
        let old = props(1, 0, 0);
        assert_eq!(advice(Some(&old), &props(2, 0, 0), &digest(2)), FORCE);
        assert_eq!(advice(Some(&old), &props(1, 2, 0), &digest(2)), FORCE);
        assert_eq!(advice(Some(&old), &props(1, 0, 2), &digest(2)), SHADOW);
        assert_eq!(advice(None, &props(2, 0, 3), &digest(2)), WITHOUT);
        assert_eq!(advice(None, &props(2, 0, 3), &digest(3)), SHADOW);
    }

    #[tokio::test]
    async fn an_answer_goes_to_its_question_and_after_that_to_nobody() {
        let readiness = Readiness::default();
        let (mut one, other) = (readiness.ask(), readiness.ask());
        readiness.answered(one.number, NodeId(5), PluginState::Missing);
        readiness.answered(other.number + 1, NodeId(5), PluginState::Ready);
        assert_eq!(one.answers.recv().await, Some((NodeId(5), PluginState::Missing)));
        assert!(one.answers.is_empty() && other.answers.is_empty());
        drop((one, other));
        assert!(lock(&readiness.questions).open.is_empty(), "whoever has given up leaves nothing behind");
    }
}
