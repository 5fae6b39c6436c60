//! The audit log: who asked what of the control plane, and what came of it.
//!
//! A command is recorded and synced before anything of it is done, and once more, with its outcome, before it is
//! answered. So a command that was done is always in the log, also if the node ends in between; it then has no outcome.
//! Without room for both records the command is refused. What a token does not allow is recorded too. Secrets, their
//! hashes and the bytes of plugins never are.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rejoin_core::tenants::TenantNames;
use rejoin_merge::digest_of;
use rejoin_proto::audit::{
    AuditActor, AuditCommand, AuditEntry, AuditEvent, AuditHash, AuditOutcome, AuditPage, AuditRequest, audit_text,
};
use rejoin_proto::catalog::{Record, RecordBody, RecordKey};
use rejoin_proto::client::{AdminRequest, LawState, RecordKind, Reply};
use rejoin_proto::{ErrorCode, ErrorReply, Name, PluginDigest, TenantId, codec};
use rejoin_store::{AuditFindings, AuditLog, AuditPart, Room};

use crate::audited::{Described, Subject, describe};
use crate::caller::Caller;
use crate::context::NodeContext;
use crate::lock::lock;
use crate::sessions::TokenKey;
use crate::{buckets, layouts, operator};

/// The bytes of records in one answer to who reads the log.
const PAGE_BYTES: usize = 1 << 20;
/// Denials of the same kind to the same token are recorded once in this time, with their number, in microseconds.
const DENIED_EVERY_US: u64 = 60_000_000;
/// The most kinds of denials, of all tokens, that are recorded in this time.
const MAX_DENIALS: usize = 1_024;

/// The log, and what is remembered beside it.
pub(crate) struct Audit {
    /// Of the several that write a record at once only one blocks a thread.
    log: tokio::sync::Mutex<AuditLog>,
    denials: std::sync::Mutex<Denials>,
    /// What the start has found altered or missing.
    faults: Vec<String>,
    /// What else the start has to say.
    notes: Vec<String>,
}

impl Audit {
    pub(crate) fn new(log: AuditLog, findings: AuditFindings) -> Self {
        let AuditFindings { cut_bytes, faults } = findings;
        let cut = (cut_bytes > 0).then(|| {
            format!("the last start has cut {cut_bytes} bytes off the end: a record that a crash had interrupted")
        });
        let notes: Vec<String> = cut.into_iter().collect();
        faults.iter().for_each(|fault| tracing::error!(fault, "the audit log is not as it was written"));
        notes.iter().for_each(|note| tracing::warn!(note, "audit log"));
        Self { log: tokio::sync::Mutex::new(log), denials: std::sync::Mutex::default(), faults, notes }
    }

    /// What an operator should look at.
    pub(crate) fn warnings(&self) -> impl Iterator<Item = String> + '_ {
        self.faults.iter().map(|fault| format!("audit log: {fault}; `rejoin audit verify` looks again"))
    }
}

/// Handles a request of a client that may make it: records it, carries it out, and records what came of it. One that
/// changes nothing is carried out only.
pub(crate) async fn run(
    ctx: &Arc<NodeContext>,
    caller: &Caller,
    from: SocketAddr,
    request: AdminRequest,
    wait: Duration,
) -> Reply {
    if let AdminRequest::Audit(asked) = request {
        return page(ctx, asked).await;
    }
    let digest = pushed(ctx, &request).await;
    let described = describe(&request, caller.tenant, digest);
    if described.subject == Subject::Unchanged {
        return operator::run(ctx, caller, request, digest, wait).await;
    }
    let subject = described.subject.clone();
    let before = state(ctx, &subject).await;
    let command = command(ctx, (caller, from), described, before);
    let asked = match append(ctx, AuditEvent::Asked(command), Room::AndEnd).await {
        Ok(asked) => asked,
        Err(refused) => return Reply::Error(refused),
    };
    let mut pending = Pending { ctx: ctx.clone(), asked: Some(asked) };
    let reply = operator::run(ctx, caller, request, digest, wait).await;
    let outcome = match &reply {
        Reply::Error(error) => AuditOutcome::Refused { code: error.code, why: audit_text(&error.message) },
        Reply::Laws { state, .. } => {
            let why = match state {
                LawState::Checked { broken, .. } => broken.as_deref().unwrap_or_default(),
                _ => "its laws are being checked",
            };
            AuditOutcome::Refused { code: ErrorCode::PluginRejected, why: audit_text(why) }
        }
        Reply::Changed { record, .. } => AuditOutcome::Done { after: Some(hash_of(record)) },
        _ => AuditOutcome::Done { after: state(ctx, &subject).await },
    };
    end(ctx, asked, outcome).await;
    pending.asked = None;
    reply
}

/// Records that a request was denied, and answers it.
pub(crate) async fn denied(
    ctx: &NodeContext,
    caller: &Caller,
    from: SocketAddr,
    request: &AdminRequest,
    denial: ErrorReply,
) -> Reply {
    let described = describe(request, caller.tenant, pushed(ctx, request).await);
    let now_us = ctx.clock.now().mono_us;
    let times = lock(&ctx.audit.denials).count(now_us, (caller.token_key(), described.verb));
    if let Some(times) = times {
        let command = command(ctx, (caller, from), described, None);
        let event = AuditEvent::Denied { command, why: audit_text(&denial.message), times };
        // Without room there is no record; it is in the node's own log then.
        let _ = append(ctx, event, Room::Own).await;
    }
    tracing::info!(token = %caller.principal.name, tenant = %caller.tenant_name, why = %denial, "a request was denied");
    Reply::Error(denial)
}

/// The digest of the component that a request pushes.
async fn pushed(ctx: &NodeContext, request: &AdminRequest) -> Option<PluginDigest> {
    let (AdminRequest::PluginPush { module, .. } | AdminRequest::PluginPushWith { module, .. }) = request else {
        return None;
    };
    let module = module.clone();
    Some(ctx.aside.run(move || digest_of(&module)).await)
}

/// A command that was begun. If it is dropped before its end, that is recorded.
struct Pending {
    ctx: Arc<NodeContext>,
    asked: Option<u64>,
}

impl Drop for Pending {
    fn drop(&mut self) {
        let (Some(asked), Ok(runtime)) = (self.asked, tokio::runtime::Handle::try_current()) else { return };
        let ctx = self.ctx.clone();
        runtime.spawn(async move { end(&ctx, asked, AuditOutcome::Unanswered).await });
    }
}

async fn end(ctx: &NodeContext, asked: u64, outcome: AuditOutcome) {
    // It has room. If the disk fails otherwise, the node stops and the command is one without an outcome.
    let _ = append(ctx, AuditEvent::Ended { asked, outcome }, Room::Kept).await;
}

/// Appends a record to the log.
///
/// # Errors
/// What the client is told whose command is refused for it.
async fn append(ctx: &NodeContext, event: AuditEvent, room: Room) -> Result<u64, ErrorReply> {
    let entry = codec::encode(&AuditEntry { at_ms: ctx.clock.now().wall_ms, event });
    let appended = ctx.audit.log.lock().await.append(entry.into(), room);
    appended.map_err(|error| {
        let name = &ctx.config.name;
        tracing::error!(%error, "a command is not recorded in the audit log");
        if error.is_for_want_of_room() {
            let message = format!(
                "{name} cannot record the command in its audit log ({error}): nothing was changed; free space on its \
                 disk, or ask another node"
            );
            return ErrorReply::new(ErrorCode::DiskFull, message);
        }
        let _ = ctx.failures.send(format!("the audit log cannot be kept: {error}"));
        ErrorReply::new(ErrorCode::Stopping, "the node is stopping, and nothing was done; try another")
    })
}

fn command(
    ctx: &NodeContext,
    (caller, from): (&Caller, SocketAddr),
    described: Described,
    before: Option<AuditHash>,
) -> AuditCommand {
    let principal = &caller.principal;
    let view = ctx.cluster_view();
    let tenant = view.tenant_name(principal.tenant).map_or_else(|| principal.tenant.to_string(), Name::to_string);
    let by = AuditActor {
        tenant,
        name: principal.name.to_string(),
        certificate: caller.is_certified(),
        scope: caller.scope(),
        from: from.to_string(),
    };
    AuditCommand {
        by,
        tenant: caller.tenant_name.to_string(),
        verb: described.verb.to_owned(),
        object: audit_text(&described.object),
        detail: audit_text(&described.detail),
        before,
    }
}

/// The hash of what a command is about, as this node knows it now. Of a record that is the hash of its encoding without
/// the hashes of secrets, of the layouts that of the ring.
async fn state(ctx: &NodeContext, subject: &Subject) -> Option<AuditHash> {
    match subject {
        Subject::Unchanged | Subject::Nothing => None,
        Subject::Ring => layouts::ring(ctx).await.map(|ring| *blake3::hash(&codec::encode(&ring)).as_bytes()),
        Subject::Record(kind, tenant, key) => record(ctx, *kind, *tenant, |_| Some(key.clone())).await,
        Subject::Tenant(tenant, name) => {
            let last = |records: &[Record]| Some(RecordKey::Tenant(TenantNames::new(records).get(name)));
            record(ctx, RecordKind::Tenant, *tenant, last).await
        }
        Subject::Quota(tenant, None) => {
            record(ctx, RecordKind::Quota, *tenant, |_| Some(RecordKey::Quota(*tenant, None))).await
        }
        Subject::Quota(tenant, Some(name)) => {
            let key = RecordKey::Bucket(*tenant, name.clone());
            let buckets = operator::records(ctx, RecordKind::Bucket, *tenant).await?;
            let id = buckets.into_iter().find(|bucket| bucket.key == key).and_then(|bucket| match bucket.body {
                RecordBody::Bucket { id, .. } | RecordBody::DeletedBucket { id, .. } => Some(id),
                _ => None,
            })?;
            record(ctx, RecordKind::Quota, *tenant, |_| Some(RecordKey::Quota(*tenant, Some(id)))).await
        }
    }
}

/// The hash of a record of the catalog, as it is shown.
async fn record(
    ctx: &NodeContext,
    kind: RecordKind,
    tenant: TenantId,
    key: impl FnOnce(&[Record]) -> Option<RecordKey>,
) -> Option<AuditHash> {
    let records = operator::records(ctx, kind, tenant).await?;
    let key = key(&records)?;
    let record = records.into_iter().find(|record| record.key == key)?;
    Some(hash_of(&buckets::shown(&ctx.cluster_view(), record.without_secrets())))
}

fn hash_of(record: &Record) -> AuditHash {
    *blake3::hash(&codec::encode(record)).as_bytes()
}

/// A part of the log, for an operator.
async fn page(ctx: &NodeContext, asked: AuditRequest) -> Reply {
    let audit = &ctx.audit;
    let log = audit.log.lock().await;
    match log.part(asked.from, PAGE_BYTES) {
        Ok(AuditPart { records, broken, next }) => {
            let (node, notes) = (ctx.config.name.clone(), audit.faults.iter().chain(&audit.notes).cloned().collect());
            Reply::Audit(AuditPage { node, head: log.head(), records, broken, next, notes })
        }
        Err(error) => {
            Reply::Error(ErrorReply::new(ErrorCode::Damaged, format!("the audit log cannot be read: {error}")))
        }
    }
}

/// Denials that were recorded a short time ago: a client that repeats what it may not do must not fill the log.
#[derive(Default)]
struct Denials(BTreeMap<(TokenKey, &'static str), Denied>);

struct Denied {
    recorded_us: u64,
    /// Since then.
    again: u32,
}

impl Denials {
    /// Counts a denial. Returns how many there were since the last one that was recorded, if this one is to be.
    fn count(&mut self, now_us: u64, kind: (TokenKey, &'static str)) -> Option<u32> {
        let is_recent = |denied: &Denied| now_us < denied.recorded_us.saturating_add(DENIED_EVERY_US);
        if let Some(denied) = self.0.get_mut(&kind) {
            denied.again = denied.again.saturating_add(1);
            if is_recent(denied) {
                return None;
            }
            let times = denied.again;
            *denied = Denied { recorded_us: now_us, again: 0 };
            return Some(times);
        }
        if self.0.len() >= MAX_DENIALS {
            self.0.retain(|_, denied| is_recent(denied));
        }
        if self.0.len() >= MAX_DENIALS {
            return None;
        }
        self.0.insert(kind, Denied { recorded_us: now_us, again: 0 });
        Some(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rejoin_proto::TenantId;

    fn kind(token: usize, verb: &'static str) -> (TokenKey, &'static str) {
        ((TenantId(1), Name::new(format!("t{token}").as_str()).unwrap()), verb)
    }

    #[test]
    fn a_repeated_denial_is_recorded_once_a_minute_with_its_number() {
        let mut denials = Denials::default();
        assert_eq!(denials.count(1, kind(1, "token list")), Some(1));
        assert_eq!([2, 3, 4].map(|now_us| denials.count(now_us, kind(1, "token list"))), [None; 3]);
        assert_eq!(denials.count(5, kind(1, "bucket create")), Some(1), "another command");
        assert_eq!(denials.count(6, kind(2, "token list")), Some(1), "another token");
        assert_eq!(denials.count(1 + DENIED_EVERY_US, kind(1, "token list")), Some(4));
        assert_eq!(denials.count(2 + DENIED_EVERY_US, kind(1, "token list")), None);
    }

    #[test]
    fn denials_of_many_tokens_are_bounded_too() {
        let mut denials = Denials::default();
        let recorded = (0..2 * MAX_DENIALS).filter_map(|token| denials.count(1, kind(token, "status"))).count();
        assert_eq!((recorded, denials.0.len()), (MAX_DENIALS, MAX_DENIALS));
        assert_eq!(denials.count(1 + DENIED_EVERY_US, kind(9_999, "status")), Some(1), "old ones make room");
    }
}
