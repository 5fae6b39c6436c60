//! The task that owns the catalog: it runs the control machine, keeps what it decides, and tells everyone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use rejoin_core::control::{Catalog, CatalogChange, CatalogEffect, CatalogEvent, Control, Published, Wait};
use rejoin_core::node::links::LinkEvent;
use rejoin_core::view::ClusterView;
use rejoin_proto::catalog::{Record, RecordBody, RecordKey};
use rejoin_proto::client::RecordKind;
use rejoin_proto::peer::PeerBody;
use rejoin_proto::{ErrorCode, ErrorReply, Layout, NodeId, PluginDigest, TenantId, codec};
use rejoin_store::{ControlFile, FileError};

use crate::driver::Notice;
use crate::parts::{NodeView, Parts};
use crate::peers;
use crate::token::{Secret, Tokens};

/// The name under which the catalog is kept.
pub(crate) const CATALOG_FILE: &str = "catalog";
/// How often modules that are still missing are asked for again.
const MODULES_AGAIN: Duration = Duration::from_secs(2);

/// What the task is told.
pub(crate) enum ControlCall {
    /// A peer is up over that connection; the digest of its catalog.
    PeerUp(NodeId, u64, u64),
    PeerReady(NodeId, u64),
    PeerDown(NodeId),
    Peer(NodeId, PeerBody),
    Change(CatalogChange, Wait, oneshot::Sender<Result<Published, ErrorReply>>),
    List(RecordKind, TenantId, oneshot::Sender<Vec<Record>>),
}

/// Who waits for the answer to a change.
type Answers = BTreeMap<u64, oneshot::Sender<Result<Published, ErrorReply>>>;

pub(crate) struct CatalogTask {
    pub(crate) control: Control,
    pub(crate) layout: Layout,
    pub(crate) secret: Secret,
    pub(crate) files: ControlFile,
    pub(crate) view: watch::Sender<Arc<NodeView>>,
    pub(crate) failures: mpsc::UnboundedSender<String>,
}

/// A view of layout and catalog.
pub(crate) fn node_view(layout: &Layout, control: &Control, secret: &Secret) -> NodeView {
    let cluster = Arc::new(ClusterView::new(layout.clone(), control.records()));
    NodeView { cluster, tokens: Tokens::new(secret, control.records()) }
}

impl CatalogTask {
    /// Runs until the node drops its end of `calls`.
    pub(crate) async fn run(mut self, parts: Arc<Parts>, mut calls: mpsc::UnboundedReceiver<ControlCall>) {
        let mut answers: Answers = BTreeMap::new();
        let mut next_call = 1;
        let mut modules_again = tokio::time::interval(MODULES_AGAIN);
        self.want_modules(&parts);
        loop {
            let wake = self.control.next_wake_us().map_or_else(|| parts.clock.instant(u64::MAX), |at| parts.clock.instant(at));
            let mut told = None;
            let event = tokio::select! {
                biased;
                call = calls.recv() => match call {
                    None => return,
                    Some(ControlCall::PeerUp(peer, connection, digest)) => {
                        peers::ask_for_modules(&parts, &parts.desk.to_fetch());
                        told = Some(connection);
                        CatalogEvent::PeerUp(peer, digest)
                    }
                    Some(ControlCall::PeerReady(peer, digest)) => CatalogEvent::PeerReady(peer, digest),
                    Some(ControlCall::PeerDown(peer)) => CatalogEvent::PeerDown(peer),
                    Some(ControlCall::Peer(peer, body)) => CatalogEvent::Peer(peer, body),
                    Some(ControlCall::Change(change, wait, answer)) => {
                        next_call += 1;
                        answers.insert(next_call, answer);
                        CatalogEvent::Change(next_call, change, wait)
                    }
                    Some(ControlCall::List(kind, tenant, answer)) => {
                        // Whoever asked may be gone.
                        let _ = answer.send(self.control.list(kind, tenant));
                        continue;
                    }
                },
                () = tokio::time::sleep_until(wake) => CatalogEvent::Tick,
                _ = modules_again.tick() => {
                    load_and_fetch(&parts);
                    continue;
                }
            };
            if let Err(error) = self.step(&parts, event, &mut answers) {
                let _ = self.failures.send(format!("the catalog cannot be kept: {error}"));
                return;
            }
            if let Some(connection) = told {
                // Behind the summary, if one was sent.
                peers::step(&parts, LinkEvent::CatalogSent(connection));
            }
        }
    }

    /// Handles one event, and what comes of a save.
    ///
    /// # Errors
    /// The catalog could not be saved, and not for want of room.
    fn step(&mut self, parts: &Arc<Parts>, event: CatalogEvent, answers: &mut Answers) -> Result<(), FileError> {
        let mut next = Some(event);
        while let Some(event) = next.take() {
            let (now, mut effects) = (parts.clock.now(), Vec::new());
            self.control.handle(now.mono_us, now.wall_ms, event, &mut effects);
            for effect in effects {
                match effect {
                    CatalogEffect::Save => next = Some(CatalogEvent::Saved(self.save(parts)?)),
                    effect => self.apply(parts, effect, answers),
                }
            }
        }
        Ok(())
    }

    fn apply(&mut self, parts: &Arc<Parts>, effect: CatalogEffect, answers: &mut Answers) {
        match effect {
            // Done by `step`, which has to tell what came of it.
            CatalogEffect::Save => {}
            CatalogEffect::Changed => {
                let view = Arc::new(node_view(&self.layout, &self.control, &self.secret));
                parts.catalog_digest.store(self.control.digest(), Relaxed);
                parts.tell_all(|| Notice::View(view.cluster.clone()));
                self.view.send_replace(view);
                self.want_modules(parts);
            }
            CatalogEffect::Send(peer, body) => peers::send(parts, peer, body),
            CatalogEffect::CaughtUp(peer) => peers::step(parts, LinkEvent::CaughtUp(peer)),
            CatalogEffect::Overruled { lost, kept } => {
                let kept = kept.map_or_else(|| "it is not taken any more".to_owned(), |name| format!("it is kept as bucket {name}"));
                tracing::error!(record = ?lost.key, "another node has made one of this name at the same time, and that one has won; {kept}");
            }
            CatalogEffect::Answer(call, result) => {
                if let Some(answer) = answers.remove(&call) {
                    let _ = answer.send(result);
                }
            }
        }
    }

    /// Saves the catalog. The inner error is for whoever wanted a change: there was no room for it.
    fn save(&self, parts: &Parts) -> Result<Result<(), ErrorReply>, FileError> {
        let catalog: Catalog = self.control.catalog();
        match self.files.write(CATALOG_FILE, &codec::encode(&catalog)) {
            Ok(()) => {
                parts.problems.clear(CATALOG_FILE);
                Ok(Ok(()))
            }
            Err(error) if error.is_for_want_of_room() => {
                let name = &parts.config.name;
                parts.problems.set(
                    CATALOG_FILE,
                    format!(
                        "{name}: the catalog cannot be saved ({error}): changes made here are refused, and a restart forgets those of peers"
                    ),
                );
                let message =
                    format!("{name} cannot save the change ({error}): nothing was changed; free space on its disk, or ask another node");
                Ok(Err(ErrorReply::new(ErrorCode::DiskFull, message)))
            }
            Err(error) => Err(error),
        }
    }

    /// Has the plugins of the catalog compiled, and those that are missing fetched.
    fn want_modules(&self, parts: &Arc<Parts>) {
        let digest = |record: &Record| match record.key {
            RecordKey::Plugin(digest) => Some(digest),
            _ => None,
        };
        let wanted: BTreeSet<PluginDigest> = self.control.records().filter_map(digest).collect();
        let active = self.control.records().filter_map(|record| match &record.body {
            RecordBody::Bucket { props, .. } => props.plugin.as_ref().map(|activation| activation.plugin),
            _ => None,
        });
        // At once, so that of two changes the later one's list stays.
        parts.desk.want(wanted, active.collect());
        load_and_fetch(parts);
    }
}

/// Loads what is on the disk, and asks the peers for the rest.
fn load_and_fetch(parts: &Arc<Parts>) {
    let parts = parts.clone();
    tokio::spawn(async move {
        parts.desk.load().await;
        peers::ask_for_modules(&parts, &parts.desk.to_fetch());
    });
}
