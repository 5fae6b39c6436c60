//! The admin port: health and metrics over plain HTTP, and faults to order where `dev_faults` allows them.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use tokio::sync::oneshot;

use rejoin_proto::{Name, NodeId};
use rejoin_wire::Connection;

use crate::driver::Notice;
use crate::faults::Hold;
use crate::parts::Parts;
use crate::peers;

/// The routes of a node's admin port.
pub(crate) fn routes(parts: Arc<Parts>) -> Router {
    let mut router = Router::new().route("/metrics", get(metrics)).route("/health", get(health));
    if parts.config.dev_faults {
        router = router
            .route("/faults/cut/{peer}", post(cut))
            .route("/faults/heal", post(heal))
            .route("/faults/hold/{what}", post(hold))
            .route("/faults/held", get(held))
            .route("/faults/release", post(release));
    }
    router.with_state(parts)
}

async fn metrics(State(parts): State<Arc<Parts>>) -> String {
    figures(&parts).await
}

/// The node's metrics, as Prometheus text.
pub(crate) async fn figures(parts: &Parts) -> String {
    for (index, shard) in parts.shards.iter().enumerate() {
        let (answer, told) = oneshot::channel();
        let _ = shard.notices.send(Notice::Report(answer));
        if let Ok(report) = told.await {
            let index = u16::try_from(index).unwrap_or(u16::MAX);
            parts.metrics.shard(index, &report);
        }
    }
    let clients = parts.sessions.count();
    let pool = parts.desk.pool();
    let connected: Vec<Connection> = parts.peers().all().map(|(_, connection)| connection.clone()).collect();
    let queued_bytes = connected.iter().map(|peer| peer.stats().queued_bytes).sum();
    let plugins = (parts.desk.ready(), parts.desk.missing().len());
    parts.metrics.node((connected.len(), queued_bytes), clients, pool.waiting(), pool.memo().hits_and_misses(), plugins);
    let (own, authority) = parts.certificates.ends();
    parts.metrics.certificates(own, authority);
    parts.metrics.render()
}

/// 200 when the node serves, has lost nothing and has no problem, else 503; either way a few words.
async fn health(State(parts): State<Arc<Parts>>) -> (StatusCode, String) {
    let nodes = parts.cluster_view().layout().nodes.len();
    let mut text = format!("{}: connected to {} of {} other nodes\n", parts.config.name, parts.peers().count(), nodes - 1);
    for lost in &parts.lost {
        let _ = writeln!(text, "this replica has lost something: {lost}");
    }
    for warning in parts.warnings() {
        let _ = writeln!(text, "warning: {warning}");
    }
    let problems = parts.all_problems();
    for problem in &problems {
        let _ = writeln!(text, "{problem}");
    }
    let serving = parts.serving.initialized();
    if let Some(told) = parts.peers().links.why_not_serving() {
        let _ = writeln!(text, "not serving: {}", told.why);
    }
    (if serving && parts.lost.is_empty() && problems.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, text)
}

async fn cut(State(parts): State<Arc<Parts>>, Path(peer): Path<String>) -> (StatusCode, String) {
    let known = Name::new(peer.as_str()).ok().map(|name| NodeId::from_name(&name));
    match known.filter(|id| parts.cluster_view().layout().node(*id).is_some() && *id != parts.node) {
        Some(id) => {
            peers::cut(&parts, id);
            (StatusCode::OK, format!("cut from {peer}\n"))
        }
        None => (StatusCode::NOT_FOUND, format!("there is no other node {peer}\n")),
    }
}

async fn heal(State(parts): State<Arc<Parts>>) -> &'static str {
    parts.faults.heal();
    parts.redial.notify_one();
    "healed\n"
}

async fn hold(State(parts): State<Arc<Parts>>, Path(what): Path<String>) -> (StatusCode, &'static str) {
    let what = match what.as_str() {
        "fsync" => Hold::Fsync,
        "journal" => Hold::Journal,
        _ => return (StatusCode::NOT_FOUND, "hold fsync or journal\n"),
    };
    parts.faults.hold(what);
    (StatusCode::OK, "held\n")
}

async fn held(State(parts): State<Arc<Parts>>) -> String {
    format!("{}\n", parts.faults.held())
}

async fn release(State(parts): State<Arc<Parts>>) -> &'static str {
    parts.faults.release();
    "released\n"
}
