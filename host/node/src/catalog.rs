//! The task that owns the catalog: it runs the control machine, saves the catalog, and publishes each change to
//! sessions, shards and peers. It never decides a race; that is the machine's part.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use rejoin_core::control::{Catalog, CatalogEffect, CatalogEvent, Control, Published};
use rejoin_core::node::links::LinkEvent;
use rejoin_core::view::ClusterView;
use rejoin_proto::catalog::{Record, RecordBody, RecordKey};
use rejoin_proto::{ErrorCode, ErrorReply, Hlc, Layout, PluginDigest, codec};
use rejoin_store::{ControlFile, FileError};

use crate::context::{NodeContext, quarantined};
use crate::control_files::CATALOG_FILE;
use crate::messages::{CatalogRequest, ShardMessage};
use crate::peers;
use crate::token::Secret;
use crate::view::{NodeView, node_view};

/// How often peers are asked again for missing plugin modules.
const FETCH_INTERVAL: Duration = Duration::from_secs(2);

/// The callers that wait for a change, by the number of the call.
type Answers = BTreeMap<u64, oneshot::Sender<Result<Published, ErrorReply>>>;

pub(crate) struct CatalogTask {
    pub(crate) control: Control,
    pub(crate) layout: Layout,
    pub(crate) secret: Secret,
    pub(crate) files: ControlFile,
    pub(crate) view: watch::Sender<Arc<NodeView>>,
    pub(crate) failures: mpsc::UnboundedSender<String>,
}

impl CatalogTask {
    /// Runs until the node drops its end of `requests`.
    pub(crate) async fn run(mut self, ctx: Arc<NodeContext>, mut requests: mpsc::UnboundedReceiver<CatalogRequest>) {
        let mut answers: Answers = BTreeMap::new();
        let mut next_call = 1;
        let mut fetch = tokio::time::interval(FETCH_INTERVAL);
        self.want_modules(&ctx);
        loop {
            let wake =
                self.control.next_wake_us().map_or_else(|| ctx.clock.instant(u64::MAX), |at| ctx.clock.instant(at));
            let mut hello_from = None;
            let event = tokio::select! {
                biased;
                request = requests.recv() => match request {
                    None => return,
                    Some(CatalogRequest::PeerUp { peer, connection, digest }) => {
                        peers::ask_for_modules(&ctx, &ctx.plugins.to_fetch());
                        hello_from = Some(connection);
                        CatalogEvent::PeerUp(peer, digest)
                    }
                    Some(CatalogRequest::PeerReady { peer, digest }) => CatalogEvent::PeerReady(peer, digest),
                    Some(CatalogRequest::PeerDown(peer)) => CatalogEvent::PeerDown(peer),
                    Some(CatalogRequest::Peer(peer, body)) => CatalogEvent::Peer(peer, body),
                    Some(CatalogRequest::Change(change, wait, answer)) => {
                        next_call += 1;
                        answers.insert(next_call, answer);
                        CatalogEvent::Change(next_call, change, wait)
                    }
                    Some(CatalogRequest::List(kind, tenant, answer)) => {
                        // The caller may be gone.
                        let _ = answer.send(self.control.list(kind, tenant));
                        continue;
                    }
                },
                () = tokio::time::sleep_until(wake) => CatalogEvent::Tick,
                _ = fetch.tick() => {
                    load_and_fetch(&ctx);
                    continue;
                }
            };
            if let Err(error) = self.step(&ctx, event, &mut answers) {
                let _ = self.failures.send(format!("the catalog cannot be kept: {error}"));
                return;
            }
            if let Some(connection) = hello_from {
                // After the catalog summary, if one was sent.
                peers::handle_event(&ctx, LinkEvent::CatalogSent(connection));
            }
        }
    }

    /// Handles one event, and the result of a save that it asks for.
    ///
    /// # Errors
    /// The catalog could not be saved, for another reason than a full disk.
    fn step(&mut self, ctx: &Arc<NodeContext>, event: CatalogEvent, answers: &mut Answers) -> Result<(), FileError> {
        let mut next = Some(event);
        while let Some(event) = next.take() {
            let (now, mut effects) = (ctx.clock.now(), Vec::new());
            self.control.handle(now.mono_us, now.wall_ms, event, &mut effects);
            for effect in effects {
                match effect {
                    CatalogEffect::Save => next = Some(CatalogEvent::Saved(self.save(ctx)?)),
                    effect => self.apply(ctx, effect, answers),
                }
            }
        }
        Ok(())
    }

    fn apply(&mut self, ctx: &Arc<NodeContext>, effect: CatalogEffect, answers: &mut Answers) {
        match effect {
            // `step` handles it, because the machine needs the result.
            CatalogEffect::Save => {}
            CatalogEffect::Changed => {
                let view = Arc::new(node_view(&self.layout, &self.control, &self.secret));
                log_quarantines(&self.view.borrow().cluster, &view.cluster);
                ctx.catalog_digest.store(self.control.digest(), Relaxed);
                ctx.broadcast(|| ShardMessage::View(view.cluster.clone()));
                self.view.send_replace(view);
                self.want_modules(ctx);
            }
            CatalogEffect::Send(peer, body) => peers::send(ctx, peer, body),
            CatalogEffect::CaughtUp(peer) => peers::handle_event(ctx, LinkEvent::CaughtUp(peer)),
            CatalogEffect::Overruled { lost, kept } => {
                let kept = kept.map_or_else(
                    || "it is not taken any more".to_owned(),
                    |name| format!("it is kept as bucket {name}"),
                );
                tracing::error!(record = ?lost.key, "another node has made one of this name at the same time, and that \
                    one has won; {kept}");
            }
            CatalogEffect::Answer(call, result) => {
                if let Some(answer) = answers.remove(&call) {
                    let _ = answer.send(result);
                }
            }
        }
    }

    /// Saves the catalog. The inner error says that the disk is full, for the caller of the change.
    fn save(&self, ctx: &NodeContext) -> Result<Result<(), ErrorReply>, FileError> {
        let catalog: Catalog = self.control.catalog();
        match self.files.write(CATALOG_FILE, &codec::encode(&catalog)) {
            Ok(()) => {
                ctx.problems.clear(CATALOG_FILE);
                Ok(Ok(()))
            }
            Err(error) if error.is_for_want_of_room() => {
                let name = &ctx.config.name;
                ctx.problems.set(
                    CATALOG_FILE,
                    format!(
                        "{name}: the catalog cannot be saved ({error}): changes made here are refused, and a restart \
                            forgets those of peers"
                    ),
                );
                let message = format!(
                    "{name} cannot save the change ({error}): nothing was changed; free space on its disk, or ask \
                        another node"
                );
                Ok(Err(ErrorReply::new(ErrorCode::DiskFull, message)))
            }
            Err(error) => Err(error),
        }
    }

    /// Starts to compile the catalog's plugins, and to fetch those that are missing.
    fn want_modules(&self, ctx: &Arc<NodeContext>) {
        let plugin = |record: &Record| match record.key {
            RecordKey::Plugin(digest) => Some((digest, record.stamp)),
            _ => None,
        };
        let named: BTreeMap<PluginDigest, Hlc> = self.control.records().filter_map(plugin).collect();
        let active = self.control.records().filter_map(|record| match &record.body {
            RecordBody::Bucket { props, .. } => props.plugin.as_ref().map(|activation| activation.plugin),
            _ => None,
        });
        // Here and not in the spawned task, so that the list of the later of two changes stays.
        ctx.plugins.want(named, active.collect());
        load_and_fetch(ctx);
    }
}

/// Logs which plugins are quarantined now and were not before, or the other way round.
fn log_quarantines(before: &ClusterView, now: &ClusterView) {
    for quarantine in now.quarantines().filter(|(digest, _)| before.quarantine(digest).is_none()) {
        tracing::error!("{}", quarantined(now, quarantine));
    }
    for (digest, _) in before.quarantines().filter(|(digest, _)| now.quarantine(digest).is_none()) {
        tracing::info!(%digest, "the plugin is released from its quarantine");
    }
}

/// Loads the wanted plugins from the disk, and asks the peers for the rest.
fn load_and_fetch(ctx: &Arc<NodeContext>) {
    let ctx = ctx.clone();
    tokio::spawn(async move {
        ctx.plugins.load().await;
        peers::ask_for_modules(&ctx, &ctx.plugins.to_fetch());
    });
}
