//! The task that owns catalog and ring: it runs their machines, saves what they ask for, and publishes each change to
//! sessions, shards and peers. It never decides a race; that is the machines' part.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use rejoin_core::control::{Catalog, CatalogEffect, CatalogEvent, Control, Published};
use rejoin_core::node::links::LinkEvent;
use rejoin_core::ring::{RingCommand, RingEvent, staging};
use rejoin_core::view::ClusterView;
use rejoin_proto::catalog::{BucketProps, Record, RecordBody, RecordKey};
use rejoin_proto::peer::PeerBody;
use rejoin_proto::{ErrorCode, ErrorReply, PluginDigest, TenantId, codec};
use rejoin_store::{ControlFile, FileError};

use crate::context::{NodeContext, quarantined};
use crate::control_files::CATALOG_FILE;
use crate::messages::{CatalogRequest, RingRequest, ShardMessage};
use crate::plugin_table::{NamedPlugin, share};
use crate::ring::{RingPart, RingWork};
use crate::secret::Secret;
use crate::view::{NodeView, node_view};
use crate::{members, peers, transcripts};

/// How often peers are asked again for missing plugin modules.
const FETCH_INTERVAL: Duration = Duration::from_secs(2);

/// The callers that wait for a change, by the number of the call.
type Answers = BTreeMap<u64, oneshot::Sender<Result<Published, ErrorReply>>>;

pub(crate) struct CatalogTask {
    pub(crate) control: Control,
    pub(crate) ring: RingPart,
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
            let (catalog, ring) = (self.control.next_wake_us().unwrap_or(u64::MAX), self.ring.next_wake_us());
            let wake = ctx.clock.instant(catalog.min(ring));
            let (mut hello_from, mut ring_event) = (None, None);
            let event = tokio::select! {
                biased;
                request = requests.recv() => match request {
                    None => return,
                    Some(CatalogRequest::Ring(request)) => {
                        let done = self.ring_request(&ctx, request);
                        match self.kept(done) {
                            true => continue,
                            false => return,
                        }
                    }
                    Some(CatalogRequest::PeerUp { peer, connection, digest }) => {
                        peers::ask_for_modules(&ctx, &ctx.plugins.to_fetch());
                        hello_from = Some(connection);
                        ring_event = Some(RingEvent::PeerUp(peer));
                        CatalogEvent::PeerUp(peer, digest)
                    }
                    Some(CatalogRequest::PeerReady { peer, digest }) => CatalogEvent::PeerReady(peer, digest),
                    Some(CatalogRequest::PeerDown(peer)) => {
                        ring_event = Some(RingEvent::PeerDown(peer));
                        CatalogEvent::PeerDown(peer)
                    }
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
                () = tokio::time::sleep_until(wake) => {
                    ring_event = Some(RingEvent::Tick);
                    CatalogEvent::Tick
                }
                _ = fetch.tick() => {
                    load_and_fetch(&ctx);
                    continue;
                }
            };
            let stepped = self.step(&ctx, event, &mut answers).await;
            let stepped = stepped.and_then(|()| ring_event.map_or(Ok(()), |event| self.ring_step(&ctx, event)));
            if !self.kept(stepped) {
                return;
            }
            if let Some(connection) = hello_from {
                // After the catalog summary, if one was sent.
                peers::handle_event(&ctx, LinkEvent::CatalogSent(connection));
            }
        }
    }

    /// Whether everything was saved that had to be. If not, the node stops.
    fn kept(&self, result: Result<(), FileError>) -> bool {
        if let Err(error) = &result {
            let _ = self.failures.send(format!("the catalog or the ring cannot be kept: {error}"));
        }
        result.is_ok()
    }

    /// Handles a request that is about the ring.
    fn ring_request(&mut self, ctx: &Arc<NodeContext>, request: RingRequest) -> Result<(), FileError> {
        match request {
            RingRequest::Event(event) => self.ring_step(ctx, event),
            RingRequest::Command(command, answer) => {
                let work = self.ring.command(ctx, command, answer)?;
                self.ring_work(ctx, work);
                Ok(())
            }
            RingRequest::Stage(changes, answer) => {
                let command = RingCommand::Stage(staging(self.ring.ring(), changes));
                let work = self.ring.command(ctx, command, answer)?;
                self.ring_work(ctx, work);
                Ok(())
            }
            RingRequest::Get(answer) => {
                // The caller may be gone.
                let _ = answer.send(self.ring.ring().clone());
                Ok(())
            }
        }
    }

    fn ring_step(&mut self, ctx: &Arc<NodeContext>, event: RingEvent) -> Result<(), FileError> {
        let work = self.ring.step(ctx, event)?;
        self.ring_work(ctx, work);
        Ok(())
    }

    fn ring_work(&self, ctx: &Arc<NodeContext>, work: Vec<RingWork>) {
        for part in work {
            match part {
                RingWork::Publish => {
                    self.publish(ctx);
                    let (peers, members, layouts) = {
                        let view = ctx.view.borrow();
                        (view.peers_of(ctx.node), view.members_besides(ctx.node), view.cluster.layouts().range())
                    };
                    members::set(ctx, members);
                    peers::handle_event(ctx, peers);
                    peers::handle_event(ctx, LinkEvent::Layouts(layouts));
                }
                RingWork::Send(peer, message) => peers::send(ctx, peer, PeerBody::Ring(message)),
            }
        }
    }

    /// Gives shards and sessions the layouts and the catalog as they are now.
    fn publish(&self, ctx: &NodeContext) {
        let view = Arc::new(node_view((self.ring.ring(), &self.ring.view()), &self.control, &self.secret));
        log_quarantines(&self.view.borrow().cluster, &view.cluster);
        ctx.catalog_digest.store(self.control.digest(), Relaxed);
        ctx.broadcast(|| ShardMessage::View(view.cluster.clone()));
        self.view.send_replace(view);
    }

    /// Handles one event, and the result of a save that it asks for.
    ///
    /// # Errors
    /// The catalog could not be saved, for another reason than a full disk.
    async fn step(
        &mut self,
        ctx: &Arc<NodeContext>,
        event: CatalogEvent,
        answers: &mut Answers,
    ) -> Result<(), FileError> {
        let mut next = Some(event);
        while let Some(event) = next.take() {
            let (now, mut effects) = (ctx.clock.now(), Vec::new());
            self.control.handle(now.mono_us, now.wall_ms, event, &mut effects);
            for effect in effects {
                match effect {
                    CatalogEffect::Save => {
                        let saved = save(ctx, self.files.clone(), self.control.catalog()).await?;
                        next = Some(CatalogEvent::Saved(saved));
                    }
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
                self.publish(ctx);
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

    /// Starts to compile the catalog's plugins, and to fetch those that are missing.
    fn want_modules(&self, ctx: &Arc<NodeContext>) {
        let view = ctx.cluster_view();
        // What was a tenant's that is reaped is removed.
        let is_kept = |tenant: TenantId| !view.is_deleted(tenant) || view.tenant_name(tenant).is_some();
        let is_reaped = |body: &RecordBody| matches!(body, RecordBody::DeletedPlugin { deleted, .. } if deleted.reaped);
        let plugin = |record: &Record| match (&record.key, &record.body) {
            (RecordKey::Plugin(tenant, digest), body) if is_kept(*tenant) && !is_reaped(body) => {
                let (recorded, unrecorded) = ctx.plugins.recorded(*tenant, body);
                Some((*digest, NamedPlugin { stamp: record.stamp, share: share(&view, *tenant), recorded, unrecorded }))
            }
            _ => None,
        };
        // Tenants that have pushed the same component share it.
        let mut named: BTreeMap<PluginDigest, NamedPlugin> = BTreeMap::new();
        for (digest, plugin) in self.control.records().filter_map(plugin) {
            named.entry(digest).and_modify(|known| *known = known.joined(plugin)).or_insert(plugin);
        }
        let in_use = self.control.records().filter_map(|record| match &record.body {
            RecordBody::Bucket { props, .. } => Some(props),
            RecordBody::DeletedBucket { props, deleted, .. } if !deleted.reaped => Some(props),
            _ => None,
        });
        let active = in_use.flat_map(BucketProps::plugins);
        let shadows = self.control.records().filter_map(|record| match &record.body {
            RecordBody::Bucket { id, props, .. } => props.shadow.map(|shadow| (*id, shadow)),
            _ => None,
        });
        ctx.plugins.shadows().set(&shadows.collect());
        let deleted = self.control.records().filter_map(|record| match (&record.key, &record.body) {
            (RecordKey::Plugin(tenant, digest), body) if !is_kept(*tenant) || is_reaped(body) => Some(*digest),
            _ => None,
        });
        // Here and not in the spawned task, so that the list of the later of two changes stays.
        ctx.plugins.want(named, active.collect(), deleted.collect());
        load_and_fetch(ctx);
    }
}

/// Saves the catalog. The inner error says that the disk is full, for the caller of the change.
async fn save(ctx: &NodeContext, files: ControlFile, catalog: Catalog) -> Result<Result<(), ErrorReply>, FileError> {
    match ctx.aside.run(move || files.write(CATALOG_FILE, &codec::encode(&catalog))).await {
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

/// Logs which plugins are quarantined now and were not before, or the other way round.
fn log_quarantines(before: &ClusterView, now: &ClusterView) {
    for quarantine in now.quarantines().filter(|(tenant, digest, _)| before.quarantine(*tenant, digest).is_none()) {
        tracing::error!("{}", quarantined(now, quarantine));
    }
    let is_over = |(tenant, digest, _): &(TenantId, &PluginDigest, &str)| now.quarantine(*tenant, digest).is_none();
    for (_, digest, _) in before.quarantines().filter(is_over) {
        tracing::info!(%digest, "the plugin is released from its quarantine");
    }
}

/// Loads the wanted plugins from the disk, and asks the peers for the rest.
fn load_and_fetch(ctx: &Arc<NodeContext>) {
    let ctx = ctx.clone();
    tokio::spawn(async move {
        ctx.plugins.load().await;
        peers::ask_for_modules(&ctx, &ctx.plugins.to_fetch());
        transcripts::record(&ctx);
    });
}
