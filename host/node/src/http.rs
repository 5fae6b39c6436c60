//! The admin port's HTTP routes: `/health`, `/metrics`, and fault injection if `dev_faults` is set. Off loopback
//! `admin_access` asks for a token before any of them.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};

use rejoin_proto::{Name, NodeId};
use rejoin_wire::Connection;

use crate::admin_access;
use crate::context::NodeContext;
use crate::faults::{HeldOperation, SeemingEngine};
use crate::lag::ShardSums;
use crate::metrics::{NodeReport, of_plugins};
use crate::{peers, quotas};

/// The routes of a node's admin port, which asks for no token if it is `open`.
pub(crate) fn routes(ctx: Arc<NodeContext>, open: bool) -> Router {
    let mut router = Router::new().route("/metrics", get(metrics)).route("/health", get(health));
    if ctx.config.dev_faults {
        router = router
            .route("/faults/cut/{peer}", post(cut))
            .route("/faults/heal", post(heal))
            .route("/faults/hold/{what}", post(hold))
            .route("/faults/held", get(held))
            .route("/faults/engine/{engine}", post(engine))
            .route("/faults/release", post(release));
    }
    if !open {
        router = router.layer(from_fn_with_state(ctx.clone(), admin_access::check));
    }
    router.with_state(ctx)
}

async fn metrics(State(ctx): State<Arc<NodeContext>>) -> String {
    figures(&ctx).await
}

/// The node's metrics, as Prometheus text.
pub(crate) async fn figures(ctx: &NodeContext) -> String {
    let (view, now_us) = (ctx.cluster_view(), ctx.clock.now().mono_us);
    let reports = ctx.reports().await;
    for (index, report) in (0..).zip(&reports) {
        ctx.metrics.shard(index, report);
        ctx.metrics.exchange(index, &report.exchange, now_us, |peer| view.node_name(peer).to_string());
    }
    let stored = reports.into_iter().flat_map(|report| report.buckets);
    ctx.metrics.tenants(&quotas::figures(ctx, &view, stored));
    ctx.plugins.figures().retain(|bucket, plugin| {
        view.bucket(bucket).is_some_and(|bucket| bucket.props.plugins().any(|digest| digest == plugin))
    });
    let clients = ctx.sessions.count();
    let pool = ctx.plugins.pool();
    let connected: Vec<Connection> = ctx.peers().all().map(|(_, connection)| connection.clone()).collect();
    let queued_bytes = connected.iter().map(|peer| peer.stats().queued_bytes).sum();
    let (memo_hits, memo_misses) = pool.memo().hits_and_misses();
    ctx.metrics.node(&NodeReport {
        peers: connected.len(),
        queued_bytes,
        clients,
        merges_waiting: pool.waiting(),
        plugins_ready: ctx.plugins.ready(),
        plugins_missing: ctx.plugins.missing().len(),
        plugins_quarantined: view.quarantines().count(),
        plugins_differing: ctx.plugins.differing().len(),
        memo_hits,
        memo_misses,
    });
    ctx.metrics.members(ctx.members().figures());
    let (own, authority) = ctx.certificates.ends();
    ctx.metrics.certificates(own, authority);
    if ctx.keys.is_some() {
        ctx.metrics.encryption(&ctx.encryption());
    }
    let plugins = of_plugins(&ctx.plugins.figures().all());
    ctx.metrics.render() + &plugins
}

/// Answers 200 if the node serves, has lost no data and has no problem, else 503. The text says why.
async fn health(State(ctx): State<Arc<NodeContext>>) -> (StatusCode, String) {
    let others = ctx.view.borrow().members_besides(ctx.node);
    let connected = ctx.peers().all().filter(|(peer, _)| others.contains(peer)).count();
    let mut text = format!("{}: connected to {connected} of {} other nodes\n", ctx.config.name, others.len());
    for lost in &ctx.lost {
        let _ = writeln!(text, "this replica has lost data: {lost}");
    }
    if let Some(summary) = ctx.encryption().summary() {
        let _ = writeln!(text, "{summary}");
    }
    for warning in ctx.warnings() {
        let _ = writeln!(text, "warning: {warning}");
    }
    for line in ShardSums::ask(&ctx).await.lines() {
        let _ = writeln!(text, "{line}");
    }
    let problems = ctx.all_problems();
    for problem in &problems {
        let _ = writeln!(text, "{problem}");
    }
    let serving = ctx.serving.initialized();
    if let Some(reason) = ctx.peers().links.why_not_serving() {
        let _ = writeln!(text, "not serving: {}", reason.why);
    }
    (
        if serving && ctx.lost.is_empty() && problems.is_empty() {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        },
        text,
    )
}

async fn cut(State(ctx): State<Arc<NodeContext>>, Path(peer): Path<String>) -> (StatusCode, String) {
    let known = Name::new(peer.as_str()).ok().map(|name| NodeId::from_name(&name));
    match known.filter(|id| ctx.view.borrow().nodes.contains_key(id) && *id != ctx.node) {
        Some(id) => {
            peers::cut(&ctx, id);
            (StatusCode::OK, format!("cut from {peer}\n"))
        }
        None => (StatusCode::NOT_FOUND, format!("there is no other node {peer}\n")),
    }
}

async fn heal(State(ctx): State<Arc<NodeContext>>) -> &'static str {
    ctx.faults.heal();
    ctx.redial.notify_one();
    "healed\n"
}

async fn hold(State(ctx): State<Arc<NodeContext>>, Path(what): Path<String>) -> (StatusCode, &'static str) {
    let what = match what.as_str() {
        "fsync" => HeldOperation::Sync,
        "journal" => HeldOperation::JournalWrite,
        _ => return (StatusCode::NOT_FOUND, "hold fsync or journal\n"),
    };
    ctx.faults.hold(what);
    (StatusCode::OK, "held\n")
}

async fn held(State(ctx): State<Arc<NodeContext>>) -> String {
    format!("{}\n", ctx.faults.held())
}

/// What the engine seems to be to plugins that are loaded from now on.
async fn engine(State(ctx): State<Arc<NodeContext>>, Path(engine): Path<String>) -> (StatusCode, &'static str) {
    let engine = match engine.as_str() {
        "own" => SeemingEngine::Own,
        "wrong" => SeemingEngine::Wrong,
        "other" => SeemingEngine::Other,
        _ => return (StatusCode::NOT_FOUND, "the engine can be own, wrong or other\n"),
    };
    ctx.faults.seem(engine);
    (StatusCode::OK, "set\n")
}

async fn release(State(ctx): State<Arc<NodeContext>>) -> &'static str {
    ctx.faults.release();
    "released\n"
}
